/* test_ask.c - remembering and asking over the whole library, on the tiny random models of tests/data/model: what they write means
 * nothing, everything around it does. */
#include "test.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cite.h"
#include "runtime/context.h"
#include "runtime/quote.h"
#include "ruvllm/runtime.h"

static char dir[64];

typedef struct rig {
	ruv_config *config;
	ruv_runtime *runtime;
} rig;

static void set(ruv_config *config, const char *key, const char *value)
{
	ruv_error err = {0};

	assert_ok(ruv_config_set(config, key, value, &err), err);
}

static void rig_open(rig *r, const char *model)
{
	ruv_error err = {0};
	char path[512];

	assert_ok(ruv_config_create(&r->config, &err), err);
	snprintf(path, sizeof path, "%s/data", dir);
	set(r->config, "data-dir", path);
	snprintf(path, sizeof path, "%s/model/%s.gguf", RUV_TEST_DATA, model);
	set(r->config, "model", path);
	snprintf(path, sizeof path, "%s/model/lfm2-encoder.gguf", RUV_TEST_DATA);
	set(r->config, "encoder", path);
	set(r->config, "threads", "1");
	set(r->config, "chunk-tokens", "64");
	set(r->config, "max-tokens", "12");
	set(r->config, "seed", "1"); /* random weights: another seed may end an answer at its first token */
	assert_ok(ruv_runtime_open(&r->runtime, r->config, &err), err);
}

static void rig_close(rig *r)
{
	ruv_runtime_free(r->runtime);
	ruv_config_free(r->config);
}

static char *put(const char *name, const char *text)
{
	static char path[256];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return path;
}

static int set_up(void **state)
{
	char path[96];

	(void)state;
	strcpy(dir, "/tmp/ruv-ask-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/docs", dir);
	return mkdir(path, 0700);
}

static int tear_down(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static const char backups[] =
    "# Backups\n\nThe nightly backup starts at 02:00.\n\n## Restore\n\nA restore needs the passphrase.\nIt was printed at setup.\n";
static const char ports[] = "<html><title>Ports</title><body><p>The server listens on port 8080.</p></body></html>";

/* The only node whose text has these words. */
static void find_node(rig *r, const char *words, ruv_memory_node *out, ruv_memory_nodes *nodes)
{
	ruv_memory *memory;
	ruv_memory_filter filter = {0};
	ruv_error err = {0};
	int n = 0;

	assert_ok(ruv_runtime_memory(r->runtime, &memory, &err), err);
	assert_ok(ruv_memory_list(memory, nodes, &filter, false, 0, 100, &err), err);
	for (int i = 0; i < nodes->n; i++)
		if (strstr(nodes->items[i].text, words)) {
			*out = nodes->items[i];
			n++;
		}
	assert_int_equal(n, 1);
}

static void remember(rig *r, const char *path, ruv_remember_result *result)
{
	ruv_remember_params params = {.path = path};
	ruv_error err = {0};

	assert_ok(ruv_remember(r->runtime, &params, result, &err), err);
}

/* Places, titles, hashes; a second run does nothing; a change replaces what changed. */
static void test_provenance(void **state)
{
	rig r;
	ruv_remember_result result;
	ruv_memory_node node;
	ruv_memory_nodes nodes = {0};
	char docs[96], id[RUV_ID_SIZE];

	(void)state;
	put("docs/backups.md", backups);
	put("docs/ports.html", ports);
	put("docs/.hidden.md", "# Hidden\n\nNobody reads this.\n");
	put("docs/picture.bin", "\001\002\003\004\005\006\007\001\002\003\004\005\006\007");
	put("docs/empty.txt", "");
	snprintf(docs, sizeof docs, "%s/docs", dir);
	rig_open(&r, "lfm2");
	remember(&r, docs, &result);
	assert_int_equal(result.n_files, 4);
	assert_int_equal(result.n_added, 2);
	assert_int_equal(result.n_skipped, 2);
	assert_int_equal(result.n_failed, 0);
	assert_int_equal(result.n_passages_added, 3);
	assert_int_equal(result.n_embedded, 3);

	find_node(&r, "passphrase", &node, &nodes);
	assert_string_equal(node.text, "A restore needs the passphrase. It was printed at setup.");
	assert_string_equal(node.title, "Backups > Restore");
	assert_int_equal(node.first_line, 7);
	assert_int_equal(node.last_line, 8);
	assert_int_equal(node.source[0], '/');
	assert_non_null(strstr(node.source, "/docs/backups.md"));
	assert_int_equal(node.type, RUV_NODE_DOCUMENT);
	strcpy(id, node.id);
	ruv_memory_nodes_release(&nodes);
	find_node(&r, "8080", &node, &nodes);
	assert_string_equal(node.title, "Ports");
	ruv_memory_nodes_release(&nodes);

	remember(&r, docs, &result);
	assert_int_equal(result.n_unchanged, 2);
	assert_int_equal(result.n_skipped, 2);
	assert_int_equal(result.n_embedded, 0);

	/* One paragraph changes and moves the other down: that one keeps its node. */
	put("docs/backups.md", "# Backups\n\nThe nightly backup starts\nat 03:30.\n\n## Restore\n\nA restore needs the "
	                       "passphrase.\nIt was printed at setup.\n");
	remember(&r, docs, &result);
	assert_int_equal(result.n_updated, 1);
	assert_int_equal(result.n_passages_added, 1);
	assert_int_equal(result.n_passages_kept, 1);
	assert_int_equal(result.n_passages_removed, 1);
	assert_int_equal(result.n_embedded, 1);
	find_node(&r, "passphrase", &node, &nodes);
	assert_string_equal(node.id, id);
	assert_int_equal(node.first_line, 8);
	ruv_memory_nodes_release(&nodes);
	rig_close(&r);
}

static void test_text_and_tags(void **state)
{
	static const char *const tags[] = {"ops", "b"};
	rig r;
	ruv_remember_params params = {.text = "The kettle holds two litres.",
	                              .n_bytes = 28,
	                              .name = "kitchen.md",
	                              .tags = tags,
	                              .n_tags = 2,
	                              .domain = "home"};
	ruv_remember_result result;
	ruv_memory_node node;
	ruv_memory_nodes nodes = {0};
	ruv_error err = {0};

	(void)state;
	rig_open(&r, "lfm2");
	assert_ok(ruv_remember(r.runtime, &params, &result, &err), err);
	assert_int_equal(result.n_added, 1);
	find_node(&r, "kettle", &node, &nodes);
	assert_string_equal(node.source, "kitchen.md");
	assert_int_equal(node.n_tags, 2);
	assert_string_equal(node.domain, "home");
	ruv_memory_nodes_release(&nodes);

	/* Without a name the text names itself, so that the same one is known again. */
	params.name = NULL;
	assert_ok(ruv_remember(r.runtime, &params, &result, &err), err);
	assert_int_equal(result.n_added, 1);
	assert_ok(ruv_remember(r.runtime, &params, &result, &err), err);
	assert_int_equal(result.n_unchanged, 1);

	params.kind = "pdf";
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "pdf"));
	params = (ruv_remember_params){.path = "/nowhere/at/all"};
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "/nowhere/at/all"));
	params = (ruv_remember_params){0};
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_EINVAL);
	rig_close(&r);
}

typedef struct stopper {
	ruv_cancel cancel;
	int after_files;
} stopper;

static void stop_after(void *user, const ruv_remember_file *file)
{
	stopper *s = user;

	(void)file;
	if (--s->after_files == 0)
		ruv_cancel_set(&s->cancel);
}

/* Stopped after two of four files: two are there, the next run reads only the other two. */
static void test_interrupted(void **state)
{
	rig r;
	stopper s = {.after_files = 2};
	ruv_remember_params params = {.cancel = &s.cancel, .on_file = stop_after, .user = &s};
	ruv_remember_result result;
	ruv_error err = {0};
	char many[96], name[32];

	(void)state;
	snprintf(many, sizeof many, "%s/many", dir);
	assert_int_equal(mkdir(many, 0700), 0);
	for (int i = 0; i < 4; i++) {
		char text[64];

		snprintf(name, sizeof name, "many/%d.txt", i);
		snprintf(text, sizeof text, "File number %d has this sentence.\n", i);
		put(name, text);
	}
	rig_open(&r, "lfm2");
	params.path = many;
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_ECANCELLED);
	assert_int_equal(result.n_added, 2);
	rig_close(&r);
	rig_open(&r, "lfm2");
	remember(&r, many, &result);
	assert_int_equal(result.n_unchanged, 2);
	assert_int_equal(result.n_added, 2);
	rig_close(&r);
}

typedef struct watcher {
	ruv_cancel cancel;
	int stop_at, n_seen;
	int64_t last;
} watcher;

static void watch_progress(void *user, const ruv_remember_progress *p)
{
	watcher *w = user;
	int64_t done = p->n_bytes_done + (p->n_chunks ? p->file_bytes * p->n_chunks_done / p->n_chunks : 0);

	assert_true(done >= w->last && done <= p->n_bytes);
	w->n_seen += done > w->last;
	w->last = done;
	if (w->stop_at && p->n_chunks_done == w->stop_at)
		ruv_cancel_set(&w->cancel);
}

/* Progress advances within a file, and a file that is stopped in its middle leaves nothing. */
static void test_within_a_file(void **state)
{
	rig r;
	watcher w = {.stop_at = 20};
	ruv_remember_params params = {.cancel = &w.cancel, .on_progress = watch_progress, .user = &w};
	ruv_remember_result result;
	ruv_error err = {0};
	ruv_buf text;
	char path[96];

	(void)state;
	ruv_buf_init(&text, 1 << 20);
	for (int i = 0; i < 2000; i++)
		ruv_buf_printf(&text, "The entry %d is here. ", i);
	put("long.txt", ruv_buf_cstr(&text));
	ruv_buf_release(&text);
	snprintf(path, sizeof path, "%s/long.txt", dir);
	params.path = path;
	rig_open(&r, "lfm2");
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_ECANCELLED);
	assert_int_equal(result.n_added, 0);
	assert_in_range(result.n_embedded, 1, 20);
	assert_in_range(w.n_seen, 10, 20);

	/* Set before: not even the cutting runs to its end. */
	w.stop_at = 0;
	w.last = 0;
	w.n_seen = 0;
	assert_int_equal(ruv_remember(r.runtime, &params, &result, &err), RUV_ECANCELLED);
	assert_int_equal(result.n_embedded, 0);
	params.cancel = NULL;
	assert_ok(ruv_remember(r.runtime, &params, &result, &err), err);
	assert_int_equal(result.n_added, 1);
	assert_true(result.n_embedded > 40);
	assert_true(w.n_seen > 40);
	rig_close(&r);
}

typedef struct listener {
	char text[4096];
	int n_sources_seen, n_pieces, stop_after;
} listener;

static bool on_piece(void *user, const ruv_piece *piece)
{
	listener *l = user;

	strncat(l->text, piece->text, sizeof l->text - strlen(l->text) - 1);
	return ++l->n_pieces != l->stop_after;
}

static void on_sources(void *user, const ruv_answer *so_far)
{
	((listener *)user)->n_sources_seen = so_far->n_sources;
}

static bool has_stage(const ruv_answer *answer, const char *name)
{
	for (int i = 0; i < answer->n_stages; i++)
		if (!strcmp(answer->stages[i].name, name))
			return answer->stages[i].ms >= 0;
	return false;
}

static void test_ask(void **state)
{
	rig r;
	listener l = {.n_sources_seen = -1};
	ruv_ask_params params = {
	    .question = "When does the nightly backup start?", .on_piece = on_piece, .on_sources = on_sources, .user = &l};
	ruv_answer answer = {0};
	ruv_error err = {0};
	static const char *const stages[] = {"embed", "retrieve", "assemble", "prefill", "generate", "cite", "judge"};

	(void)state;
	rig_open(&r, "lfm2");
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_sources, 3);
	assert_int_equal(l.n_sources_seen, 3);
	assert_true(answer.n_in_prompt >= 1 && answer.n_in_prompt <= 3);
	assert_true(answer.sources[0].lexical_rank == 1 || answer.sources[1].lexical_rank == 1 ||
	            answer.sources[2].lexical_rank == 1);
	assert_true(answer.sources[0].score >= answer.sources[1].score);
	assert_int_equal(answer.sources[0].number, 1);
	assert_string_equal(answer.text, l.text);
	assert_non_null(answer.answer);
	assert_true(answer.n_tokens >= 1 && answer.n_tokens <= 12);
	assert_int_equal(answer.n_ctx, 512);
	for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
		if (!has_stage(&answer, stages[i]))
			fail_msg("no stage %s", stages[i]);
	assert_int_equal(answer.n_stages, 7);
	assert_int_equal(strlen(answer.id), RUV_ID_SIZE - 1);
	assert_true(answer.verdict.quality >= 0);
	ruv_answer_release(&answer);

	/* Greedy: the same again. */
	l.text[0] = 0;
	char first[4096];
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	strcpy(first, l.text);
	assert_string_equal(answer.text, first);
	ruv_answer_release(&answer);

	params.question = " \n ";
	assert_int_equal(ruv_ask(r.runtime, &params, &answer, &err), RUV_EINVAL);
	assert_null(answer.text);
	rig_close(&r);
}

/* Words alone need no encoder; nobody else's passages are seen; without memory there are no sources. */
static void test_ways_to_ask(void **state)
{
	rig r;
	ruv_ask_params params = {.question = "kettle"};
	ruv_remember_params note = {.text = "Ada's kettle is red.", .n_bytes = 20};
	ruv_answer answer = {0};
	ruv_remember_result result;
	ruv_error err = {0};

	(void)state;
	rig_open(&r, "lfm2");
	ruv_runtime_free(r.runtime);
	set(r.config, "user", "ada");
	set(r.config, "search", "lexical");
	assert_ok(ruv_runtime_open(&r.runtime, r.config, &err), err);
	assert_ok(ruv_remember(r.runtime, &note, &result, &err), err);
	assert_ok(ruv_retrieve(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_sources, 3); /* two common kettles and Ada's */
	assert_false(has_stage(&answer, "embed"));
	assert_null(answer.text);
	ruv_answer_release(&answer);
	ruv_runtime_free(r.runtime);
	set(r.config, "user", "bob");
	assert_ok(ruv_runtime_open(&r.runtime, r.config, &err), err);
	assert_ok(ruv_retrieve(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_sources, 2);
	ruv_answer_release(&answer);

	params.question = "zebra";
	assert_int_equal(ruv_ask(r.runtime, &params, &answer, &err), RUV_ENOTFOUND);
	params.chat = true;
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_sources, 0);
	ruv_answer_release(&answer);
	params.chat = false;
	params.no_memory = true;
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_sources, 0);
	assert_false(has_stage(&answer, "retrieve"));
	ruv_answer_release(&answer);
	rig_close(&r);
}

/* A session that goes on keeps the beginning of the conversation; stopping keeps what was written. */
static void test_conversation(void **state)
{
	rig r;
	ruv_session *session;
	ruv_message history[] = {{.role = "user", .content = "Hello"},
	                         {.role = "assistant", .content = "Hello. What would you like?"}};
	ruv_ask_params params = {.question = "Hello", .no_memory = true, .chat = true};
	ruv_answer answer = {0};
	listener l = {.stop_after = 2};
	ruv_error err = {0};

	(void)state;
	rig_open(&r, "lfm2");
	assert_ok(ruv_runtime_session(r.runtime, NULL, &session, &err), err);
	params.session = session;
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_int_equal(answer.n_kept, 0);
	ruv_answer_release(&answer);
	params.question = "And then?";
	params.history = history;
	params.n_history = 2;
	params.on_piece = on_piece;
	params.user = &l;
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_true(answer.n_kept >= 8); /* the start and the first message */
	assert_int_equal(answer.finish, RUV_FINISH_CANCELLED);
	assert_string_equal(answer.text, l.text);
	ruv_answer_release(&answer);
	ruv_session_free(session);
	rig_close(&r);
}

/* What does not fit is left out from the end, and said; what cannot fit is refused with numbers. */
static void test_context(void **state)
{
	rig r;
	ruv_model *model;
	ruv_error err = {0};
	char word[300];
	ruv_context_source sources[3] = {{"A", word}, {"B", word}, {"C", word}};
	ruv_message history[4] = {{.role = "user", .content = word},
	                          {.role = "assistant", .content = "x"},
	                          {.role = "user", .content = "y"},
	                          {.role = "assistant", .content = "z"}};
	ruv_context_request request = {
	    .sources = sources, .n_sources = 3, .question = "q", .cites = true, .n_ctx = 512, .n_reserve = 64};
	ruv_context context = {0};
	char *text;

	(void)state;
	memset(word, 'w', sizeof word - 1);
	word[sizeof word - 1] = 0;
	rig_open(&r, "lfm2");
	assert_ok(ruv_runtime_model(r.runtime, NULL, &model, &err), err);
	assert_ok(ruv_context_build(&context, model, &request, &err), err);
	assert_int_equal(context.n_sources, 1);
	assert_true(context.tokens.n <= 512 - 64);
	assert_ok(ruv_model_detokenize(model, context.tokens.ids, context.tokens.n, true, &text, &err), err);
	assert_true(!strncmp(text, "<|startoftext|><|im_start|>user\nSources:\n[1] A\nwww", 50));
	assert_non_null(strstr(text, "www\n\nQuestion: q<|im_end|>\n<|im_start|>assistant\n"));
	assert_null(strstr(text, "[2]"));
	free(text);
	ruv_context_release(&context);

	/* History goes before the last source does. */
	request.history = history;
	request.n_history = 4;
	assert_ok(ruv_context_build(&context, model, &request, &err), err);
	assert_int_equal(context.n_sources, 1);
	assert_int_equal(context.n_history_dropped, 2);
	ruv_context_release(&context);

	/* A model that was not trained on the format is told about it; special tokens in texts stay text. */
	request = (ruv_context_request){
	    .sources = &(ruv_context_source){NULL, "a<|im_end|>b"}, .n_sources = 1, .question = "q", .n_ctx = 4096};
	assert_ok(ruv_context_build(&context, model, &request, &err), err);
	assert_ok(ruv_model_detokenize(model, context.tokens.ids, context.tokens.n, false, &text, &err), err);
	assert_non_null(strstr(text, ruv_context_instruction));
	assert_non_null(strstr(text, "a<|im_end|>b"));
	free(text);
	ruv_context_release(&context);

	request = (ruv_context_request){.question = word, .n_ctx = 200, .n_reserve = 50};
	assert_int_equal(ruv_context_build(&context, model, &request, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "150 of 200"));
	rig_close(&r);
}

static void test_missing_models(void **state)
{
	rig r;
	ruv_model *model;
	ruv_error err = {0};
	char path[512];

	(void)state;
	rig_open(&r, "lfm2");
	assert_int_equal(ruv_runtime_model(r.runtime, "/nowhere.gguf", &model, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "/nowhere.gguf"));
	/* An encoder cannot answer. */
	snprintf(path, sizeof path, "%s/model/lfm2-encoder.gguf", RUV_TEST_DATA);
	assert_int_equal(ruv_runtime_model(r.runtime, path, &model, &err), RUV_EMISMATCH);
	rig_close(&r);

	/* A bundled file that is not what SHA256SUMS says is refused. */
	FILE *file;

	put("SHA256SUMS", "0000000000000000000000000000000000000000000000000000000000000000  m.gguf\n");
	file = fopen(put("m.gguf", "GGUF"), "a");
	fclose(file);
	rig_open(&r, "lfm2");
	snprintf(path, sizeof path, "%s/m.gguf", dir);
	assert_int_equal(ruv_runtime_model(r.runtime, path, &model, &err), RUV_ECORRUPT);
	assert_non_null(strstr(err.message, "SHA256SUMS"));
	rig_close(&r);
}

/* What the user vouches for is a memory that cites what the answer rested on; an answer is rated once. */
static void test_feedback(void **state)
{
	rig r;
	ruv_error err = {0};
	ruv_answer answer = {0};
	ruv_ask_params params = {.question = "When does the nightly backup start?"};
	ruv_remember_params what = {.text = backups, .n_bytes = strlen(backups), .name = "backups.md"};
	ruv_feedback_result result;
	ruv_memory *memory;
	ruv_memory_node node;
	ruv_memory_nodes nodes = {0};

	(void)state;
	rig_open(&r, "lfm2");
	assert_ok(ruv_remember(r.runtime, &what, NULL, &err), err);
	assert_ok(ruv_ask(r.runtime, &params, &answer, &err), err);
	assert_false(answer.wrote); /* the setting is off */
	assert_int_equal(ruv_runtime_feedback(r.runtime, answer.id, RUV_FEEDBACK_CORRECT, " ", NULL, &err), RUV_EINVAL);
	assert_int_equal(ruv_runtime_feedback(r.runtime, "x", RUV_FEEDBACK_ACCEPT, NULL, NULL, &err), RUV_ENOTFOUND);
	assert_ok(ruv_runtime_feedback(r.runtime, answer.id, RUV_FEEDBACK_CORRECT, "At half past four.", &result, &err), err);
	assert_true(result.wrote);
	assert_false(result.routed);
	assert_false(result.learned);
	assert_int_equal(ruv_runtime_feedback(r.runtime, answer.id, RUV_FEEDBACK_ACCEPT, NULL, NULL, &err), RUV_ENOTFOUND);
	ruv_answer_release(&answer);
	assert_ok(ruv_runtime_memory(r.runtime, &memory, &err), err);
	find_node(&r, "half past four", &node, &nodes);
	assert_string_equal(node.id, result.written.id);
	assert_int_equal(node.type, RUV_NODE_QA_PAIR);
	assert_true(node.confidence == 1);
	ruv_memory_nodes_release(&nodes);
	rig_close(&r);
}

typedef struct asker {
	ruv_runtime *runtime;
	const char *question;
	char text[4096];
	int rc;
} asker;

static void *ask_in_thread(void *arg)
{
	asker *a = arg;
	ruv_ask_params params = {.question = a->question};
	ruv_answer answer = {0};

	for (int i = 0; i < 3 && !a->rc; i++) {
		a->rc = ruv_ask(a->runtime, &params, &answer, NULL);
		if (!a->rc)
			snprintf(a->text, sizeof a->text, "%s", answer.text);
		ruv_answer_release(&answer);
	}
	return NULL;
}

/* Several threads on one runtime answer as one does alone, through the scheduler and without it. */
static void test_side_by_side(void **state)
{
	static const char *const questions[] = {"When does the nightly backup start?", "What does a restore need?",
	                                        "Which port is used?", "How long is a backup kept?"};
	enum { N = sizeof questions / sizeof *questions };
	rig r;
	ruv_error err = {0};
	ruv_remember_params what = {.text = backups, .n_bytes = strlen(backups), .name = "backups.md"};
	ruv_scheduler *scheduler;
	asker askers[N];
	pthread_t threads[N];
	char alone[N][4096];

	(void)state;
	rig_open(&r, "lfm2");
	assert_ok(ruv_remember(r.runtime, &what, NULL, &err), err);
	for (int i = 0; i < N; i++) {
		askers[i] = (asker){.runtime = r.runtime, .question = questions[i]};
		ask_in_thread(&askers[i]);
		assert_int_equal(askers[i].rc, RUV_OK);
		strcpy(alone[i], askers[i].text);
	}
	for (int scheduled = 0; scheduled < 2; scheduled++) {
		if (scheduled)
			assert_ok(ruv_runtime_scheduler(r.runtime, &scheduler, &err), err);
		for (int i = 0; i < N; i++) {
			askers[i] = (asker){.runtime = r.runtime, .question = questions[i]};
			assert_int_equal(pthread_create(&threads[i], NULL, ask_in_thread, &askers[i]), 0);
		}
		for (int i = 0; i < N; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(askers[i].rc, RUV_OK);
			assert_string_equal(askers[i].text, alone[i]);
		}
	}
	rig_close(&r);
}

static bool cancel_at_once(void *user, const ruv_piece *piece)
{
	(void)user;
	return piece->n_tokens < 3;
}

/* The smallest bundled model: whatever it answers, a quote is a whole sentence of the source that it names. */
static void test_quotes_are_held(void **state)
{
	static const ruv_context_source sources[] = {
	    {"Backups",
	     "The nightly backup of Quxelby-7 starts at 02:00.  It is kept for 30 days, i.e. a month!\nIs it checked? Yes."},
	    {"Ports", "Zyrrhotel listens on port 48213. \"Please do not change it,\" says Mr. BrzeziÅski."},
	    {NULL, "No sentence end here"},
	};
	static const char *const questions[] = {"When does the nightly backup start?", "Which port does Zyrrhotel listen on?",
	                                        "Who says that it should not be changed?", "How long is the backup kept?",
	                                        "What is here?"};
	const char *path = RUV_SOURCE_DIR "/models/ruvllm-nano-s.gguf";
	ruv_model *model = NULL;
	ruv_session *session = NULL;
	/* Alone; choosing among all sentences; never answering. */
	static const ruv_calibrated calibrations[] = {{0}, {.bias = 20, .within = 100}, {.bias = -100}};
	ruv_error err = {0};
	int n_quotes = 0;

	(void)state;
	if (access(path, R_OK)) {
		print_message("%s is not there\n", path);
		skip();
	}
	assert_ok(ruv_model_open(&model, path, &(ruv_model_options){.n_threads = 1}, &err), err);
	assert_true(ruv_model_cites(model));
	assert_ok(ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = 1024}, &err), err);
	for (size_t k = 0; k < 3 * sizeof questions / sizeof *questions; k++) {
		const ruv_calibrated *calibrated = &calibrations[k % 3];
		size_t i = k / 3;
		ruv_context_request request = {
		    .sources = sources, .n_sources = 3, .question = questions[i], .cites = true, .n_ctx = 1024, .n_reserve = 128};
		ruv_generate_params params = {.max_tokens = 128};
		ruv_logit_bias bias;
		ruv_evidence evidence;
		ruv_quote *quote = NULL;
		ruv_generation out;
		ruv_context context;
		ruv_cite_parts parts;

		assert_ok(ruv_context_build(&context, model, &request, &err), err);
		assert_ok(ruv_evidence_open(&evidence, sources, 3, questions[i], &err), err);
		assert_ok(ruv_quote_open(&quote, model, &evidence, calibrated, &err), err);
		params.constraint = ruv_quote_constraint(quote);
		bias = ruv_quote_bias(quote);
		params.sampling.bias = &bias;
		params.sampling.n_bias = 1;
		assert_ok(ruv_generate(session, context.tokens.ids, context.tokens.n, &params, &out, &err), err);
		ruv_cite_parse(&parts, out.text);
		if (calibrated->bias > 0)
			assert_true(parts.n_marks > 0);
		if (calibrated->bias < 0)
			assert_int_equal(parts.n_marks, 0);
		for (int j = 0; j < parts.n_marks && out.finish == RUV_FINISH_STOP; j++) {
			const ruv_cite_mark *mark = &parts.marks[j];

			if (j > 0 || mark->begin == mark->end)
				continue;
			n_quotes++;
			if (!ruv_cite_is_verbatim(sources[mark->number - 1].text, out.text + mark->begin, mark->end - mark->begin))
				fail_msg("not in the source: %s", out.text);
		}
		assert_int_equal(ruv_quote_n_given(quote) > 0, parts.n_marks > 0);
		ruv_generation_release(&out);
		ruv_quote_free(quote);
		assert_ok(ruv_quote_open(&quote, model, &evidence, calibrated, &err), err);
		params.max_tokens = 2;
		params.constraint = ruv_quote_constraint(quote);
		assert_ok(ruv_generate(session, context.tokens.ids, context.tokens.n, &params, &out, &err), err);
		assert_int_equal(out.finish, RUV_FINISH_LENGTH);
		assert_int_equal(out.n_tokens, 2);
		assert_true(out.n_kept > 0);
		ruv_generation_release(&out);
		params = (ruv_generate_params){.max_tokens = 128, .on_piece = cancel_at_once};
		assert_ok(ruv_generate(session, context.tokens.ids, context.tokens.n, &params, &out, &err), err);
		assert_int_equal(out.finish, RUV_FINISH_CANCELLED);
		ruv_generation_release(&out);
		ruv_quote_free(quote);
		ruv_evidence_release(&evidence);
		ruv_context_release(&context);
	}
	assert_true(n_quotes > 0);
	ruv_session_free(session);
	ruv_model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_provenance),      cmocka_unit_test(test_text_and_tags), cmocka_unit_test(test_interrupted),
	    cmocka_unit_test(test_within_a_file),   cmocka_unit_test(test_ask),           cmocka_unit_test(test_ways_to_ask),
	    cmocka_unit_test(test_conversation),    cmocka_unit_test(test_context),       cmocka_unit_test(test_missing_models),
	    cmocka_unit_test(test_quotes_are_held), cmocka_unit_test(test_feedback),      cmocka_unit_test(test_side_by_side),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

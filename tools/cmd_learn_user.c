/* cmd_learn_user.c - `ruvllm learn user-bench`: a user teaches facts one interaction at a time; then other questions about the same
 * facts are answered from memory alone, from the adapter alone and from both, through ruv_ask. A learner that was taught shuffled
 * answers is the control; rollback and a restart must give the same answers byte for byte. */
#include "cmd_learn.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "runtime/context.h"
#include "runtime/eval_data.h"
#include "text/answer_match.h"

enum { MOST = CMD_LEARN_MOST };

/* One way to answer, and how it went. */
struct way {
	const char *name;
	double f1[MOST], exact[MOST];
	char *answers[MOST];
	double mean_f1, mean_exact;
};

int cmd_learn_read_set(cmd_learn_set *set, const char *path, ruv_error *err)
{
	char *text = NULL;
	size_t size = 0;
	int rc = ruv_eval_text_read(&text, &size, path, err), line = 0;
	if (rc)
		return rc;
	for (char *at = text; *at && rc == RUV_OK;) {
		char *end = strchr(at, '\n');
		line++;
		if (end)
			*end = 0;
		json_t *row = *at ? json_loads(at, 0, NULL) : NULL;
		const char *split = json_string_value(json_object_get(row, "split")),
			   *question = json_string_value(json_object_get(row, "question")),
			   *answer = json_string_value(json_object_get(row, "answer"));
		if (*at && (!split || !question || !answer)) {
			rc = ruv_fail(err, RUV_EFORMAT, "learn", "%s:%d: split, question and answer are needed", path, line);
		} else if (*at) {
			const bool test = !strcmp(split, "test");
			cmd_learn_pair *to = test ? &set->test[set->n_test] : &set->teach[set->n_teach];
			if ((test ? set->n_test : set->n_teach) == MOST) {
				rc = ruv_fail(err, RUV_ELIMIT, "learn", "%s has more than %d rows", path, MOST);
			} else {
				*to = (cmd_learn_pair){strdup(question), strdup(answer)};
				*(test ? &set->n_test : &set->n_teach) += 1;
				if (!to->question || !to->answer)
					rc = ruv_fail_memory(err, "learn", 64);
			}
		}
		json_decref(row);
		at = end ? end + 1 : at + strlen(at);
	}
	free(text);
	return rc;
}

void cmd_learn_set_release(cmd_learn_set *set)
{
	for (int i = 0; i < MOST; i++) {
		free(set->teach[i].question);
		free(set->teach[i].answer);
		free(set->test[i].question);
		free(set->test[i].answer);
	}
	*set = (cmd_learn_set){0};
}

/* Every test question through ruv_ask, greedily. */
static int answer_all(struct way *way, const char *name, ruv_runtime *runtime, const cmd_learn_set *set, ruv_adapter *adapter,
                      bool memory, ruv_error *err)
{
	ruv_session *session = NULL;
	cli_progress progress = {0};
	memset(way, 0, sizeof *way);
	way->name = name;
	int rc = ruv_runtime_session(runtime, NULL, &session, err);
	if (rc == RUV_OK)
		rc = ruv_session_set_adapter(session, adapter, err);
	cli_progress_begin(&progress, name, "questions", (uint64_t)set->n_test);
	for (int i = 0; i < set->n_test && rc == RUV_OK; i++) {
		const ruv_sampling greedy = {0};
		ruv_answer answer = {0};
		ruv_answer_score score;
		const ruv_ask_params params = {.question = set->test[i].question,
		                               .session = session,
		                               .no_memory = !memory,
		                               .sampling = &greedy,
		                               .max_tokens = 40,
		                               .cancel = &cli_cancel};
		rc = ruv_ask(runtime, &params, &answer, err);
		if (rc == RUV_OK)
			rc = ruv_answer_match(&score, answer.unknown ? "" : answer.answer,
			                      (const char *const *)&set->test[i].answer, 1, err);
		if (rc == RUV_OK && !(way->answers[i] = strdup(answer.text)))
			rc = ruv_fail_memory(err, "learn", strlen(answer.text));
		if (rc == RUV_OK) {
			way->f1[i] = score.f1;
			way->exact[i] = score.exact;
			way->mean_f1 += score.f1 / set->n_test;
			way->mean_exact += (double)score.exact / set->n_test;
		}
		ruv_answer_release(&answer);
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
	}
	cli_progress_end(&progress, false);
	ruv_session_free(session);
	return rc;
}

static bool same_answers(const struct way *a, const struct way *b, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(a->answers[i], b->answers[i]) != 0)
			return false;
	return true;
}

static void way_release(struct way *way)
{
	for (int i = 0; i < MOST; i++)
		free(way->answers[i]);
	memset(way->answers, 0, sizeof way->answers);
}

/* The 95 % interval of the difference of F1 to the bare model, by the gate's own bootstrap. */
static void interval(const struct way *way, const struct way *bare, int n, bool exact, double *low, double *high)
{
	ruv_gate_result r;
	const ruv_gate_input in = {
	    .before = exact ? bare->exact : bare->f1, .after = exact ? way->exact : way->f1, .n = n, .seed = 1};
	ruv_gate_decide(&r, &in, NULL);
	*low = r.gain_low;
	*high = r.gain_high;
}

/* What was taught goes into memory as accepted answers do. */
static int write_back(ruv_runtime *runtime, const cmd_learn_pair *pair, const char *user, ruv_error *err)
{
	ruv_memory *memory;
	ruv_buf text;
	const int dim = ruv_runtime_embed_dim(runtime, err);
	float *vector = dim > 0 ? malloc((size_t)dim * sizeof *vector) : NULL;
	ruv_memory_written written;
	ruv_buf_init(&text, 1 << 16);
	ruv_buf_printf(&text, "Q: %s\nA: %s", pair->question, pair->answer);
	const char *one = ruv_buf_cstr(&text);
	int rc = dim < 0 ? dim : vector && !text.failed ? RUV_OK : ruv_fail_memory(err, "learn", text.len);
	if (rc == RUV_OK)
		rc = ruv_runtime_memory(runtime, &memory, err);
	if (rc == RUV_OK)
		rc = ruv_runtime_embed(runtime, &one, 1, RUV_EMBED_PASSAGE, vector, &cli_cancel, err);
	if (rc == RUV_OK) {
		const ruv_memory_answer answer = {.question = pair->question,
		                                  .answer = pair->answer,
		                                  .vector = vector,
		                                  .quality = 1,
		                                  .scope = {.user = user},
		                                  .created_by = "user"};
		rc = ruv_memory_write_back(memory, &written, &answer, 1, err);
	}
	ruv_buf_release(&text);
	free(vector);
	return rc;
}

struct teaching {
	int epochs;
	double rate;
};

/* One interaction: the question as it went to the model, with what memory has for it, and the user's correction. */
static int correct(ruv_learner *l, ruv_runtime *runtime, const char *question, const char *answer, ruv_error *err)
{
	ruv_answer found = {0};
	ruv_buf prompt;
	const ruv_ask_params ask = {.question = question, .n_sources = 1, .cancel = &cli_cancel};
	ruv_buf_init(&prompt, 1 << 20);
	int rc = ruv_retrieve(runtime, &ask, &found, err);
	if (rc == RUV_OK) {
		const char *split = found.n_sources ? strstr(found.sources[0].text, "\nA: ") : NULL;
		char *title = split ? strndup(found.sources[0].text + 3, (size_t)(split - found.sources[0].text) - 3) : NULL;
		const ruv_context_source source = {title, split ? split + 4 : ""};
		rc = ruv_context_user_text(&prompt, &source, title != NULL, question);
		free(title);
	}
	ruv_interaction what = {.task = "facts", .question = question, .prompt = ruv_buf_cstr(&prompt), .answer = ""};
	if (rc == RUV_OK)
		rc = ruv_learner_observe(l, &what, err);
	if (rc == RUV_OK)
		rc = ruv_learner_feedback(l, what.id, RUV_FEEDBACK_CORRECT, answer, err);
	ruv_buf_release(&prompt);
	ruv_answer_release(&found);
	return rc;
}

/* Teaches answers[of[i]] to question i, in a drawn order; trains; asks the gate. */
static int teach(ruv_learner *l, ruv_runtime *runtime, const cmd_learn_set *set, const int *of, const struct teaching *how,
                 ruv_gate_result *gate, ruv_error *err)
{
	int *order = malloc((size_t)set->n_teach * sizeof *order), rc = order ? RUV_OK : ruv_fail_memory(err, "learn", 64);
	ruv_rng rng;
	cli_progress progress = {0};
	ruv_rng_init(&rng, 3);
	for (int i = 0; i < set->n_teach && order; i++)
		order[i] = i;
	for (int i = set->n_teach - 1; i > 0 && order; i--) {
		const int j = (int)ruv_rng_below(&rng, (uint64_t)i + 1), swap = order[i];
		order[i] = order[j];
		order[j] = swap;
	}
	cli_progress_begin(&progress, of ? "teach shuffled" : "teach", "interactions", (uint64_t)set->n_teach);
	for (int i = 0; i < set->n_teach && rc == RUV_OK; i++) {
		const cmd_learn_pair *pair = &set->teach[order[i]];
		rc = correct(l, runtime, pair->question, of ? set->teach[of[order[i]]].answer : pair->answer, err);
		if (rc == RUV_OK)
			rc = ruv_learner_work(l, err);
		if (rc == RUV_OK && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "learn", "stopped");
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
	}
	cli_progress_end(&progress, false);
	free(order);
	cli_note("%s: replaying all lessons %d times", of ? "control" : "learner", how->epochs);
	if (rc == RUV_OK)
		rc = ruv_learner_train(l, how->epochs, err);
	if (rc == RUV_OK)
		rc = ruv_learner_gate(l, !of, true, gate, err);
	return rc;
}

static void shuffle_answers(int *of, const cmd_learn_set *set)
{
	ruv_rng rng;
	ruv_rng_init(&rng, 99);
	for (int i = 0; i < set->n_teach; i++)
		of[i] = i;
	for (int i = set->n_teach - 1; i > 0; i--) {
		const int j = (int)ruv_rng_below(&rng, (uint64_t)i), swap = of[i];
		of[i] = of[j];
		of[j] = swap;
	}
	for (int i = 0; i < set->n_teach; i++) /* other wordings have the same answer: nobody keeps it that way either */
		for (int k = 1; k < set->n_teach && !strcmp(set->teach[of[i]].answer, set->teach[i].answer); k++) {
			const int j = (i + k) % set->n_teach, mine = of[i], other = of[j];
			if (strcmp(set->teach[other].answer, set->teach[i].answer) != 0 &&
			    strcmp(set->teach[mine].answer, set->teach[j].answer) != 0) {
				of[i] = other;
				of[j] = mine;
			}
		}
}

static int open_learner(ruv_learner **out, const char *dir, const char *model, const struct teaching *how, ruv_error *err)
{
	const ruv_learner_options options = {
	    .dir = dir, .model_path = model, .no_thread = true, .background_every = 1 << 30, .learning_rate = (float)how->rate};
	return ruv_learner_open(out, &options, err);
}

int cmd_learn_scratch_open(cmd_learn_scratch *scratch, ruv_config *config, const char *name, ruv_error *err)
{
	ruv_config_origin origin;
	const char *where;
	int rc = ruv_dir_create_temporary(scratch->dir, sizeof scratch->dir, name, err);

	if (rc == RUV_OK)
		rc = ruv_config_set(config, "data-dir", scratch->dir, err);
	if (rc == RUV_OK)
		rc = ruv_runtime_open(&scratch->runtime, config, err);
	if (rc == RUV_OK)
		rc = ruv_runtime_find_model(scratch->runtime,
		                            ruv_config_value(config, ruv_config_key_find("model"), &origin, &where), scratch->model,
		                            sizeof scratch->model, err);
	return rc;
}

void cmd_learn_scratch_close(cmd_learn_scratch *scratch)
{
	ruv_error err = {0};

	ruv_runtime_free(scratch->runtime);
	if (*scratch->dir && ruv_dir_remove(scratch->dir, &err))
		cli_note("%s", err.message);
}

/* The candidate's file under the serving model, whatever the gate says: only to measure it. */
static int candidate_adapter(ruv_adapter **out, ruv_model *model, const char *dir, const char *model_path, ruv_error *err)
{
	char path[4200];
	const char *name = strrchr(model_path, '/') ? strrchr(model_path, '/') + 1 : model_path, *dot = strrchr(name, '.');
	snprintf(path, sizeof path, "%s/%.*s/candidate.gguf", dir, dot ? (int)(dot - name) : (int)strlen(name), name);
	return ruv_adapter_open(out, model, path, 1, err);
}

enum { BARE, MEMORY, ADAPTER, BOTH, CONTROL, ROLLED_BACK, FORWARD, RESTARTED, N_WAYS };

struct run {
	cmd_learn_set set;
	struct way ways[N_WAYS];
	ruv_gate_result gate, control_gate;
	bool published;
	double teach_seconds;
	int of[MOST];
};

static int measure(struct run *r, ruv_runtime *runtime, const char *dir, const char *model_path, const struct teaching *how,
                   ruv_error *err)
{
	char learn_dir[4096], control_dir[4096];
	ruv_learner *l = NULL, *control = NULL;
	ruv_model *model = NULL;
	ruv_adapter *adapter = NULL, *shuffled = NULL, *again = NULL;
	const cmd_learn_set *set = &r->set;
	snprintf(learn_dir, sizeof learn_dir, "%s/learn", dir);
	snprintf(control_dir, sizeof control_dir, "%s/control", dir);
	int rc = ruv_runtime_model(runtime, NULL, &model, err);
	if (rc == RUV_OK)
		rc = answer_all(&r->ways[BARE], "bare model", runtime, set, NULL, false, err);
	for (int i = 0; i < set->n_teach && rc == RUV_OK; i++)
		rc = write_back(runtime, &set->teach[i], NULL, err);
	if (rc == RUV_OK)
		rc = answer_all(&r->ways[MEMORY], "memory alone", runtime, set, NULL, true, err);
	const int64_t started = ruv_clock_now_ns();
	if (rc == RUV_OK)
		rc = open_learner(&l, learn_dir, model_path, how, err);
	if (rc == RUV_OK)
		rc = teach(l, runtime, set, NULL, how, &r->gate, err);
	r->teach_seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	r->published = rc == RUV_OK && ruv_learner_live_version(l) == 1;
	if (rc == RUV_OK)
		rc = r->published ? ruv_learner_adapter(l, model, &adapter, err)
		                  : candidate_adapter(&adapter, model, learn_dir, model_path, err);
	if (rc == RUV_OK)
		rc = answer_all(&r->ways[ADAPTER], "adapter alone", runtime, set, adapter, false, err);
	if (rc == RUV_OK)
		rc = answer_all(&r->ways[BOTH], "both", runtime, set, adapter, true, err);
	/* the control is measured however the gate decides */
	shuffle_answers(r->of, set);
	if (rc == RUV_OK)
		rc = open_learner(&control, control_dir, model_path, how, err);
	if (rc == RUV_OK)
		rc = teach(control, runtime, set, r->of, how, &r->control_gate, err);
	if (rc == RUV_OK)
		rc = candidate_adapter(&shuffled, model, control_dir, model_path, err);
	if (rc == RUV_OK)
		rc = answer_all(&r->ways[CONTROL], "shuffled control", runtime, set, shuffled, false, err);
	/* versions */
	if (rc == RUV_OK && r->published) {
		rc = ruv_learner_rollback(l, 0, err);
		if (rc == RUV_OK)
			rc = ruv_learner_adapter(l, model, &again, err);
		if (rc == RUV_OK)
			rc = answer_all(&r->ways[ROLLED_BACK], "rolled back", runtime, set, again, false, err);
		if (rc == RUV_OK)
			rc = ruv_learner_rollback(l, 1, err);
		if (rc == RUV_OK)
			rc = ruv_learner_adapter(l, model, &again, err);
		if (rc == RUV_OK)
			rc = answer_all(&r->ways[FORWARD], "forward again", runtime, set, again, false, err);
		ruv_adapter_free(again);
		again = NULL;
		ruv_learner_free(l);
		l = NULL;
		if (rc == RUV_OK)
			rc = open_learner(&l, learn_dir, model_path, how, err);
		if (rc == RUV_OK)
			rc = ruv_learner_adapter(l, model, &again, err);
		if (rc == RUV_OK)
			rc = answer_all(&r->ways[RESTARTED], "after a restart", runtime, set, again, false, err);
	}
	ruv_adapter_free(adapter);
	ruv_adapter_free(shuffled);
	ruv_adapter_free(again);
	ruv_learner_free(l);
	ruv_learner_free(control);
	return rc;
}

static json_t *report_json(const struct run *r)
{
	json_t *ways = json_array();
	for (int w = 0; w <= (r->published ? RESTARTED : CONTROL); w++) {
		double low, high, exact_low, exact_high;
		interval(&r->ways[w], &r->ways[BARE], r->set.n_test, false, &low, &high);
		interval(&r->ways[w], &r->ways[BARE], r->set.n_test, true, &exact_low, &exact_high);
		json_array_append_new(ways, json_pack("{s:s, s:f, s:f, s:[f, f], s:[f, f]}", "from", r->ways[w].name, "f1",
		                                      r->ways[w].mean_f1, "exact", r->ways[w].mean_exact, "f1_gain", low, high,
		                                      "exact_gain", exact_low, exact_high));
	}
	return json_pack("{s:i, s:i, s:f, s:b, s:o, s:o, s:o, s:b, s:b, s:b}", "taught", r->set.n_teach, "questions", r->set.n_test,
	                 "teach_seconds", r->teach_seconds, "published", r->published, "gate", cmd_learn_gate_json(&r->gate),
	                 "control_gate", cmd_learn_gate_json(&r->control_gate), "answers", ways, "rollback_exact",
	                 r->published && same_answers(&r->ways[BARE], &r->ways[ROLLED_BACK], r->set.n_test), "forward_exact",
	                 r->published && same_answers(&r->ways[ADAPTER], &r->ways[FORWARD], r->set.n_test), "restart_exact",
	                 r->published && same_answers(&r->ways[ADAPTER], &r->ways[RESTARTED], r->set.n_test));
}

static void report(const struct run *r)
{
	cli_table *table = cli_table_create("answers from|>F1|>exact|gain of F1 over the bare model, 95 %|gain of exact, 95 %");
	printf("%d interactions taught in %.0f s, %d other questions about the same facts\n", r->set.n_teach, r->teach_seconds,
	       r->set.n_test);
	for (int w = BARE; w <= CONTROL; w++) {
		double low, high;
		cli_table_cell(table, "%s", r->ways[w].name);
		cli_table_cell(table, "%.1f", 100 * r->ways[w].mean_f1);
		cli_table_cell(table, "%.1f", 100 * r->ways[w].mean_exact);
		for (int exact = 0; exact < 2; exact++) {
			interval(&r->ways[w], &r->ways[BARE], r->set.n_test, exact, &low, &high);
			if (w == BARE)
				cli_table_cell(table, "%s", "");
			else
				cli_table_cell(table, "[%+.1f, %+.1f]", 100 * low, 100 * high);
		}
	}
	cli_table_print(table, stdout);
	printf("\nThe learner's gate: ");
	cmd_learn_print_gate(&r->gate);
	printf("The control's gate: %s\n", r->control_gate.pass ? "passes" : r->control_gate.why);
	if (!r->published) {
		printf("The gate did not let the adapter go live; rollback and restart were not measured.\n");
		return;
	}
	printf("rollback to none    %s as the bare model\n",
	       same_answers(&r->ways[BARE], &r->ways[ROLLED_BACK], r->set.n_test) ? "answers exactly" : "DOES NOT ANSWER");
	printf("forward again       %s as before\n",
	       same_answers(&r->ways[ADAPTER], &r->ways[FORWARD], r->set.n_test) ? "answers exactly" : "DOES NOT ANSWER");
	printf("after a restart     %s as before\n",
	       same_answers(&r->ways[ADAPTER], &r->ways[RESTARTED], r->set.n_test) ? "answers exactly" : "DOES NOT ANSWER");
}

int cmd_learn_user(int argc, char **argv)
{
	static int epochs = 30, show;
	static double rate = 1e-2;
	static const cli_option options[] = {
	    {"epochs", 'e', CLI_INT, &epochs, "N", "passes over the lessons after teaching (default 30)"},
	    {"rate", 0, CLI_DOUBLE, &rate, "X", "of Adam (default 0.01)"},
	    {"show", 0, CLI_INT, &show, "N", "print the first N questions with their answers"},
	    {0}};
	static const cli_spec spec = {
	    .name = "learn user-bench",
	    .usage = "[OPTIONS] [FACTS]",
	    .summary = "A user teaches facts over some hundred interactions; other questions about them are then answered from "
		       "memory alone, "
		       "from the adapter alone, and from both, beside the bare model and an adapter that was taught shuffled "
		       "answers. FACTS "
		       "(default bench/data/user_facts.jsonl) holds {split, question, answer}. Works in a temporary directory.",
	    .options = options,
	    .examples = "ruvllm learn user-bench --model s",
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS};
	cli_args args;
	int code = CLI_EXIT_OK;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (epochs < 1 || !(rate > 0))
		return cli_usage("--epochs is at least 1, --rate above 0");
	cli_interrupt_catch();
	ruv_config *config = cli_config(&code);
	if (!config)
		return code;
	cmd_learn_scratch scratch = {0};
	ruv_error err = {0};
	struct run *r = calloc(1, sizeof *r);
	int rc = !r ? ruv_fail_memory(&err, "learn", sizeof *r) : RUV_OK;
	if (rc == RUV_OK)
		rc = cmd_learn_read_set(&r->set, args.n ? args.items[0] : "bench/data/user_facts.jsonl", &err);
	if (rc == RUV_OK)
		rc = cmd_learn_scratch_open(&scratch, config, "user", &err);
	const struct teaching how = {.epochs = epochs, .rate = rate};
	if (rc == RUV_OK)
		rc = measure(r, scratch.runtime, scratch.dir, scratch.model, &how, &err);
	if (rc == RUV_OK && cli.json) {
		code = cli_json_print(report_json(r));
	} else if (rc == RUV_OK) {
		for (int i = 0; i < show && i < r->set.n_test; i++) {
			printf("Q: %s\n   right: %s\n", r->set.test[i].question, r->set.test[i].answer);
			for (int w = BARE; w <= CONTROL; w++)
				printf("   %s: %s\n", r->ways[w].name, r->ways[w].answers[i]);
		}
		report(r);
	}
	cmd_learn_scratch_close(&scratch);
	for (int w = 0; r && w < N_WAYS; w++)
		way_release(&r->ways[w]);
	if (r)
		cmd_learn_set_release(&r->set);
	free(r);
	return rc ? cli_fail(&err, NULL) : code;
}

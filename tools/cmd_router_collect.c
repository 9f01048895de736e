/* cmd_router_collect.c - `ruvllm router collect`: what every tier makes of a set of questions, through the product's own loop.
 *
 * The set's passages become a memory of their own beside the output (OUT.memory), every question is asked of every tier, and one
 * JSON line a question says what came of it: interrupted at any point, a second call goes on behind the last line. */
#include "cmd_router.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/status.h"
#include "cli_runtime.h"
#include "learn/features.h"
#include "runtime/eval_data.h"
#include "text/answer_match.h"

enum { SEARCH_K = 10, MAX_PATH = 4096 };

struct collection {
	ruv_eval_set set;
	ruv_runtime *runtime;
	ruv_embedder *embedder;
	ruv_memory *memory;
	ruv_session *sessions[RUV_ROUTE_MAX_TIERS];
	ruv_router_tier tiers[RUV_ROUTE_MAX_TIERS];
	int n_tiers, dim;
	ruv_textclass *classes;
	ruv_basis no_basis;
	char encoder[64], encoder_version[24];
	FILE *out;
	char **done; /* [n_done] ids that are in the file, sorted */
	int n_done, n_cap;
	float *vector;
};

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_done(const struct collection *c, const char *id)
{
	return c->n_done && bsearch(&id, c->done, (size_t)c->n_done, sizeof *c->done, by_text);
}

/* A name for a row that has none: its question and passage. */
static const char *id_of(const ruv_eval_row *row, char text[32])
{
	if (*row->id)
		return row->id;
	snprintf(text, 32, "q%016llx",
	         (unsigned long long)ruv_hash64(row->question, strlen(row->question),
	                                        ruv_hash64(row->context, strlen(row->context), 0)));
	return text;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static int open_tiers(struct collection *c, const char *names, ruv_error *err)
{
	char copy[512], *save = NULL;

	snprintf(copy, sizeof copy, "%s", names);
	for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		ruv_model_info info;
		int t = c->n_tiers, rc;

		if (t == RUV_ROUTE_MAX_TIERS)
			return ruv_fail(err, RUV_ELIMIT, "router", "%s: at most %d tiers", names, RUV_ROUTE_MAX_TIERS);
		rc = ruv_runtime_session(c->runtime, name, &c->sessions[t], err);
		if (rc)
			return rc;
		c->n_tiers++;
		ruv_model_get_info(ruv_session_model(c->sessions[t]), &info);
		snprintf(c->tiers[t].name, sizeof c->tiers[t].name, "%s", name);
		c->tiers[t].n_params = info.n_params;
		c->tiers[t].n_bytes = (int64_t)info.n_bytes;
		if (t && c->tiers[t].n_params < c->tiers[t - 1].n_params)
			return ruv_fail(err, RUV_EINVAL, "router", "%s: tiers are named from the smallest to the largest", names);
	}
	return c->n_tiers ? RUV_OK : ruv_fail(err, RUV_EINVAL, "router", "no tier is named");
}

/* The set's passages as the only content of a memory of its own. */
static int fill_memory(struct collection *c, ruv_error *err)
{
	const char *id, *version;
	ruv_memory_stats stats;
	cli_progress progress = {0};
	int rc = ruv_runtime_memory(c->runtime, &c->memory, err), dim;

	if (!rc)
		rc = ruv_memory_get_stats(c->memory, &stats, err);
	if (rc)
		return rc;
	ruv_memory_embedder(c->memory, &id, &version, &dim);
	snprintf(c->encoder, sizeof c->encoder, "%s", id);
	snprintf(c->encoder_version, sizeof c->encoder_version, "%s", version);
	c->dim = dim;
	c->vector = malloc(sizeof *c->vector * (size_t)dim);
	if (!c->vector)
		return ruv_fail_memory(err, "router", sizeof *c->vector * (size_t)dim);
	cli_progress_begin(&progress, "passages", "passages", (uint64_t)c->set.n_passages);
	for (int i = (int)stats.n_nodes; !rc && i < c->set.n_passages; i++) {
		const ruv_eval_passage *passage = &c->set.passages[i];
		char source[32];
		ruv_memory_node node = {.type = RUV_NODE_DOCUMENT,
		                        .text = passage->text,
		                        .title = passage->title,
		                        .vector = c->vector,
		                        .source = source};

		snprintf(source, sizeof source, "passage:%d", i);
		rc = ruv_embedder_embed(c->embedder, &passage->text, 1, RUV_EMBED_PASSAGE, c->vector, &cli_cancel, err);
		if (rc == RUV_ECONTEXT) { /* longer than the encoder reads: found by its words alone */
			node.vector = NULL;
			rc = RUV_OK;
		}
		if (!rc)
			rc = ruv_memory_add(c->memory, &node, 1, err);
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
		if (!rc && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "router", "stopped after %d of %d passages", i + 1, c->set.n_passages);
	}
	cli_progress_end(&progress, false);
	return rc;
}

/* Reads which questions are done, checks that the file is of the same tiers, and cuts a line that was not finished. */
static int open_output(struct collection *c, const char *path, ruv_error *err)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	long whole = 0;
	int rc = RUV_OK, number = 0;

	while (file && !rc && (n = getline(&line, &cap, file)) > 0 && line[n - 1] == '\n') {
		json_t *row = json_loadb(line, (size_t)n, 0, NULL);
		const char *id = json_string_value(json_object_get(row, "id"));

		number++;
		if (number == 1) {
			const json_t *tiers = json_object_get(row, "tiers");
			const char *version = json_string_value(json_object_get(row, "encoder_version"));
			bool same = (int)json_array_size(tiers) == c->n_tiers && version && !strcmp(version, c->encoder_version);

			for (int t = 0; same && t < c->n_tiers; t++) {
				const json_t *tier = json_array_get(tiers, (size_t)t);
				const char *name = json_string_value(json_object_get(tier, "name"));

				same = name && !strcmp(name, c->tiers[t].name) &&
				       json_integer_value(json_object_get(tier, "params")) == c->tiers[t].n_params &&
				       json_integer_value(json_object_get(tier, "bytes")) == c->tiers[t].n_bytes;
			}
			if (!same)
				rc = ruv_fail(err, RUV_EMISMATCH, "router",
				              "%s was collected with other tiers or another encoder; take another --out", path);
		} else if (id) {
			if (c->n_done == c->n_cap) {
				char **more = realloc(c->done, sizeof *more * (size_t)(c->n_cap = 2 * c->n_cap + 1024));

				if (!more)
					rc = ruv_fail_memory(err, "router", sizeof *more * (size_t)c->n_cap);
				else
					c->done = more;
			}
			if (!rc && !(c->done[c->n_done++] = strdup(id)))
				rc = ruv_fail_memory(err, "router", strlen(id));
		} else {
			rc = ruv_fail(err, RUV_EFORMAT, "router", "%s:%d: no outcome", path, number);
		}
		whole += n;
		json_decref(row);
	}
	free(line);
	if (file)
		fclose(file);
	if (rc)
		return rc;
	if (c->n_done)
		qsort(c->done, (size_t)c->n_done, sizeof *c->done, by_text);
	if (number && truncate(path, whole))
		return ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be cut to its whole lines", path);
	c->out = fopen(path, number ? "ae" : "we");
	if (!c->out)
		return ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be written", path);
	if (!number) {
		json_t *tiers = json_array(), *head;

		for (int t = 0; t < c->n_tiers; t++)
			json_array_append_new(tiers, json_pack("{s:s, s:I, s:I}", "name", c->tiers[t].name, "params",
			                                       (json_int_t)c->tiers[t].n_params, "bytes",
			                                       (json_int_t)c->tiers[t].n_bytes));
		head = json_pack("{s:s, s:o, s:s, s:s, s:i}", "kind", "ruvllm-outcomes", "tiers", tiers, "encoder", c->encoder,
		                 "encoder_version", c->encoder_version, "dim", c->dim);
		json_dumpf(head, c->out, JSON_COMPACT);
		fputc('\n', c->out);
		json_decref(head);
	}
	return RUV_OK;
}

/* ---- one question ------------------------------------------------------------------------------------------------------ */

static json_t *numbers(const float *values, int n)
{
	json_t *array = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(array, json_real((double)values[i]));
	return array;
}

static int look(struct collection *c, const ruv_eval_row *row, float *features, ruv_error *err)
{
	ruv_memory_query query = {.text = row->question, .vector = c->vector, .k = SEARCH_K, .with_vectors = true};
	ruv_memory_hits found = {0};
	ruv_route_hit hits[RUV_ROUTE_MAX_HITS];
	ruv_route_system system = {0};
	ruv_route_input input = {.text = row->question, .embedding = c->vector, .dim = c->dim, .ann_recall = 1, .system = &system};
	int rc = ruv_embedder_embed(c->embedder, &row->question, 1, RUV_EMBED_QUERY, c->vector, &cli_cancel, err);

	if (rc)
		return rc;
	rc = ruv_memory_search(c->memory, &found, &query, err);
	if (rc)
		return rc;
	input.n_tokens = ruv_embedder_count(c->embedder, row->question, strlen(row->question), RUV_EMBED_PLAIN, err);
	ruv_route_system_fill(&system);
	ruv_route_input_hits(&input, hits, &found, SEARCH_K);
	rc = input.n_tokens < 0 ? input.n_tokens : ruv_features_compute(features, c->classes, &c->no_basis, &input, err);
	ruv_memory_hits_release(&found);
	return rc;
}

static int grade(const ruv_eval_row *row, const ruv_answer *answer, double *quality, ruv_error *err)
{
	ruv_answer_score score = {0};
	int rc = RUV_OK;

	if (!row->answerable)
		*quality = answer->unknown;
	else if (answer->unknown)
		*quality = 0;
	else
		rc = ruv_answer_match(&score, answer->answer, row->answers, row->n_answers, err);
	if (row->answerable && !answer->unknown)
		*quality = score.f1;
	return rc;
}

/* Tokens that the prompt needs at least: up to the first source that has a right answer, the question, the frame, the answer. */
static int least_context(const struct collection *c, const ruv_eval_row *row, const ruv_answer *answer, int n_answer)
{
	const ruv_model *model = ruv_session_model(c->sessions[c->n_tiers - 1]);
	int n_tokens = 48 + n_answer;
	ruv_token_list tokens = {0};

	if (ruv_model_tokenize(model, row->question, strlen(row->question), 0, &tokens, NULL))
		return 0;
	for (int i = 0; i < answer->n_in_prompt; i++) {
		const char *text = answer->sources[i].text;
		bool has = false;

		if (ruv_model_tokenize(model, text, strlen(text), 0, &tokens, NULL))
			break;
		for (int j = 0; j < row->n_answers && row->answerable; j++)
			has |= ruv_answer_contains(text, row->answers[j]) > 0;
		if (has) {
			n_tokens += tokens.n;
			ruv_token_list_release(&tokens);
			return n_tokens;
		}
	}
	ruv_token_list_release(&tokens);
	return n_tokens; /* no source helps: the smallest will do */
}

static int run_question(struct collection *c, const ruv_eval_row *row, ruv_error *err)
{
	float features[RUV_ROUTE_FEATURES];
	json_t *results = json_object(), *line;
	char name[32], group[32];
	int rc = look(c, row, features, err), context = 0;

	for (int t = 0; !rc && t < c->n_tiers; t++) {
		ruv_ask_params params = {.question = row->question, .session = c->sessions[t], .cancel = &cli_cancel};
		ruv_answer answer = {0};
		double quality = 0;
		bool grounded = false;

		ruv_session_reset(c->sessions[t]);
		rc = ruv_ask(c->runtime, &params, &answer, err);
		if (!rc && answer.finish == RUV_FINISH_CANCELLED)
			rc = ruv_fail(err, RUV_ECANCELLED, "router", "stopped");
		if (!rc)
			rc = grade(row, &answer, &quality, err);
		if (rc) {
			ruv_answer_release(&answer);
			break;
		}
		for (int i = 0; i < answer.n_citations; i++)
			grounded |= answer.citations[i].verbatim;
		context = least_context(c, row, &answer, answer.n_tokens);
		json_object_set_new(results, c->tiers[t].name,
		                    json_pack("{s:f, s:f, s:i, s:i, s:b, s:b, s:b, s:f, s:f, s:f, s:f, s:f}", "quality", quality,
		                              "latency_ms", answer.total_ms, "prompt", answer.n_prompt, "answer", answer.n_tokens,
		                              "unknown", answer.unknown, "grounded", grounded, "cut_off",
		                              answer.finish == RUV_FINISH_LENGTH, "mean_logprob", answer.mean_logprob,
		                              "min_logprob", answer.min_logprob, "temperature", 0.0, "top_p", 1.0, "judged",
		                              (double)answer.verdict.quality));
		ruv_answer_release(&answer);
	}
	if (rc) {
		json_decref(results);
		return rc;
	}
	snprintf(group, sizeof group, "p%016llx", (unsigned long long)ruv_hash64(row->context, strlen(row->context), 0));
	line = json_pack("{s:o, s:o, s:o, s:i, s:b, s:o, s:o, s:o}", "id", cli_json_text(id_of(row, name)), "group",
	                 cli_json_text(*row->title ? row->title : group), "text", cli_json_text(row->question), "context", context,
	                 "answerable", row->answerable, "tiers", results, "features", numbers(features, RUV_ROUTE_FEATURES),
	                 "vector", numbers(c->vector, c->dim));
	if (!line || json_dumpf(line, c->out, JSON_COMPACT | JSON_REAL_PRECISION(6)) || fputc('\n', c->out) == EOF ||
	    fflush(c->out))
		rc = ruv_fail(err, RUV_EIO, "router", "an outcome cannot be written");
	json_decref(line);
	return rc;
}

/* ---- the command ------------------------------------------------------------------------------------------------------- */

static int read_classes(struct collection *c, const char *path, ruv_error *err)
{
	ruv_router_weights *weights;
	int rc = ruv_router_weights_read(&weights, path, true, err);

	if (!rc && !weights->n_class_bytes)
		rc = ruv_fail(err, RUV_EFORMAT, "router", "%s has no text classifiers", path);
	if (!rc)
		rc = ruv_textclass_unpack(&c->classes, weights->class_bytes, weights->n_class_bytes, err);
	ruv_router_weights_free(weights);
	return rc;
}

static void release(struct collection *c)
{
	for (int t = 0; t < c->n_tiers; t++)
		ruv_session_free(c->sessions[t]);
	if (c->out)
		fclose(c->out);
	for (int i = 0; i < c->n_done; i++)
		free(c->done[i]);
	free(c->done);
	free(c->vector);
	ruv_textclass_free(c->classes);
	ruv_runtime_free(c->runtime);
	ruv_eval_set_release(&c->set);
}

int cmd_router_collect(int argc, char **argv)
{
	static int limit;
	static int64_t seed = 1;
	static const char *out, *tiers = "s,m,l", *classes;
	static const cli_option options[] = {
	    {"out", 'o', CLI_STRING, &out, "FILE", "outcomes; when it is there already, goes on behind it (required)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "a seeded sample of N questions in all (default: all)"},
	    {"tiers", 0, CLI_STRING, &tiers, "A,B,..", "models from the smallest to the largest: s, m, l or files (default s,m,l)"},
	    {"classes", 0, CLI_STRING, &classes, "FILE", "text classifiers of `router classify` (default: the bundled router's)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router collect",
	    .usage = "[OPTIONS] -o OUT FILE...",
	    .summary =
		"Ask every tier every question of a set, over a memory of the set's passages, and record quality (F1 of the short "
		"answer; 1 for a right refusal), latency, tokens and how sure the answer was. Interrupted, it goes on where it "
		"was.",
	    .options = options,
	    .notes = "FILE holds JSON Lines as for `ruvllm eval qa`: {\"question\", \"context\", \"title\", \"answers\", "
		     "\"answerable\"}. "
		     "Rows with one title are one group: training never splits it.",
	    .examples = "ruvllm router collect -o outcomes.jsonl -n 600 bench/data/squad_eval.jsonl.zst",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	struct collection c = {0};
	cli_progress progress = {0};
	char memory_dir[MAX_PATH], path[MAX_PATH];
	ruv_config *config;
	ruv_error err = {0};
	cli_args args;
	ruv_rng rng;
	int code, *order = NULL, n, rc = RUV_OK, n_new = 0;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!out)
		return cli_usage("--out is missing");
	cli_interrupt_catch();
	for (int i = 0; !rc && i < args.n; i++)
		rc = ruv_eval_set_read(&c.set, args.items[i], &err);
	if (!rc && snprintf(memory_dir, sizeof memory_dir, "%s.memory", out) >= (int)sizeof memory_dir)
		rc = ruv_fail(&err, RUV_ELIMIT, "router", "the output's path is too long");
	if (rc)
		goto failed;
	config = cli_config(&code);
	if (!config)
		goto done;
	rc = ruv_config_set(config, "data-dir", memory_dir, &err);
	if (!rc)
		rc = ruv_runtime_open(&c.runtime, config, &err);
	if (!rc)
		rc = ruv_runtime_embedder(c.runtime, &c.embedder, &err);
	if (!rc && classes) {
		char *bytes = NULL;
		size_t n_bytes;

		rc = cmd_router_read_classes(&c.classes, classes, &bytes, &n_bytes, &err);
		free(bytes);
	} else if (!rc) {
		if (!cmd_router_file(path, sizeof path, &code))
			goto done;
		rc = read_classes(&c, path, &err);
	}
	if (!rc)
		rc = open_tiers(&c, tiers, &err);
	if (!rc)
		rc = fill_memory(&c, &err);
	if (!rc)
		rc = open_output(&c, out, &err);
	if (rc)
		goto failed;
	ruv_rng_init(&rng, (uint64_t)seed);
	n = ruv_eval_set_sample(&order, &c.set, limit, &rng, &err);
	rc = n < 0 ? n : RUV_OK;
	cli_progress_begin(&progress, "collect", "questions", (uint64_t)(n > 0 ? n : 0));
	for (int i = 0; !rc && i < n; i++) {
		char name[32];
		const ruv_eval_row *row = &c.set.rows[order[i]];

		if (!is_done(&c, id_of(row, name))) {
			rc = run_question(&c, row, &err);
			n_new += !rc;
		}
		if (!rc && cli_interrupted)
			rc = ruv_fail(&err, RUV_ECANCELLED, "router", "stopped; the same command goes on");
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
	}
	cli_progress_end(&progress, false);
	if (!rc) {
		code = cli.json ? cli_json_print(json_pack("{s:s, s:i, s:i, s:i}", "out", out, "questions", n, "new", n_new,
		                                           "tiers", c.n_tiers))
		                : 0;
		if (!cli.json)
			printf("%s: %d questions, %d of them new, %d tiers\n", out, n, n_new, c.n_tiers);
	}
failed:
	if (rc)
		code = cli_runtime_fail(&err);
done:
	free(order);
	release(&c);
	return code;
}

/* cmd_agent.c - `ruvllm agent PART`: which agent a task belongs to; teaching, outcomes, and what the router is worth. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "cli_runtime.h"
#include "ruvllm/agent.h"
#include "runtime/eval_data.h"
#include "runtime/models.h"

/* The encoder that texts are seen through. */
struct eyes {
	ruv_runtime *runtime;
	ruv_embedder *embedder;
	ruv_agent_options options;
	char encoder[64], version[65];
};

static int embed_texts(void *user, const char *const *texts, int n, float *vectors, ruv_error *err)
{
	struct eyes *eyes = user;
	int dim = ruv_embedder_dim(eyes->embedder);

	for (int i = 0; i < n; i++) { /* one longer than the encoder reads is seen by its beginning */
		char *part = strdup(texts[i]);
		size_t length = strlen(texts[i]);
		int rc = part ? RUV_OK : ruv_fail_memory(err, "agent", length);

		while (!rc && length > 8) {
			int count = ruv_embedder_count(eyes->embedder, part, length, RUV_EMBED_QUERY, err);

			if (count <= ruv_embedder_n_ctx(eyes->embedder)) {
				rc = count < 0 ? count : RUV_OK;
				break;
			}
			length = length * (size_t)ruv_embedder_n_ctx(eyes->embedder) / (size_t)count - 1;
			while (length && ((unsigned char)part[length] & 0xc0) == 0x80)
				length--;
			part[length] = 0;
		}
		if (!rc)
			rc = ruv_embedder_embed(eyes->embedder, (const char *const[]){part}, 1, RUV_EMBED_QUERY,
			                        vectors + (size_t)i * (size_t)dim, &cli_cancel, err);
		free(part);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

static bool eyes_open(struct eyes *eyes, int *code)
{
	char path[4096];
	ruv_error err = {0};
	int rc;

	memset(eyes, 0, sizeof *eyes);
	eyes->runtime = cli_runtime(code);
	if (!eyes->runtime)
		return false;
	rc = ruv_runtime_embedder(eyes->runtime, &eyes->embedder, &err);
	if (!rc)
		rc = ruv_runtime_find_model(eyes->runtime, "encoder", path, sizeof path, &err);
	if (!rc)
		rc = ruv_hash_file_sha256(eyes->version, path, &err);
	if (rc) {
		*code = cli_runtime_fail(&err);
		return false;
	}
	eyes->version[16] = 0;
	snprintf(eyes->encoder, sizeof eyes->encoder, "%.63s", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	eyes->options = (ruv_agent_options){.dim = ruv_embedder_dim(eyes->embedder),
	                                    .encoder = eyes->encoder,
	                                    .encoder_version = eyes->version,
	                                    .embed = embed_texts,
	                                    .user = eyes};
	return true;
}

/* The bundled file: `given`, or in a models directory. "" when there is none. */
static bool find_bundled(const char *given, char *path, size_t cap, int *code)
{
	ruv_config *config = cli_config(code);
	ruv_settings settings;
	ruv_error err = {0};
	struct stat there;
	char dir[4000];

	if (!config)
		return false;
	if (given)
		return snprintf(path, cap, "%s", given) < (int)cap;
	if (ruv_config_settings(config, &settings, &err)) {
		*code = cli_fail(&err, NULL);
		return false;
	}
	for (int i = 0; ruv_models_dir_at(&settings, i, dir, sizeof dir); i++)
		if (snprintf(path, cap, "%s/ruvllm-nano-agents.bin", dir) < (int)cap && !stat(path, &there))
			return true;
	*path = 0;
	return true;
}

static ruv_agent_router *open_router(struct eyes *eyes, const char *given, bool with_log, int *code)
{
	ruv_agent_router *router = NULL;
	char bundled[4096], log[4096];
	ruv_error err = {0};
	const char *dir = ruv_runtime_data_dir(eyes->runtime);

	if (!find_bundled(given, bundled, sizeof bundled, code))
		return NULL;
	if (!*bundled)
		cli_note("there is no ruvllm-nano-agents.bin in the models directories: only what was taught here is known");
	if (with_log && (ruv_dir_create(dir, &err) || snprintf(log, sizeof log, "%s/agents.log", dir) >= (int)sizeof log)) {
		*code = cli_fail(&err, NULL);
		return NULL;
	}
	if (ruv_agent_router_open(&router, *bundled ? bundled : NULL, with_log ? log : NULL, &eyes->options, &err)) {
		*code = cli_fail(&err, NULL);
		return NULL;
	}
	return router;
}

static void close_all(struct eyes *eyes, ruv_agent_router *router, float *vector)
{
	free(vector);
	ruv_agent_router_free(router);
	ruv_runtime_free(eyes->runtime);
}

static float *see(struct eyes *eyes, const char *text, ruv_error *err)
{
	float *vector = malloc(sizeof *vector * (size_t)eyes->options.dim);

	if (!vector) {
		ruv_fail_memory(err, "agent", sizeof *vector * (size_t)eyes->options.dim);
		return NULL;
	}
	if (embed_texts(eyes, &text, 1, vector, err)) {
		free(vector);
		return NULL;
	}
	return vector;
}

/* ---- route ------------------------------------------------------------------------------------------------------------- */

static json_t *choice_json(const ruv_agent_choice *choice)
{
	return json_pack("{s:s, s:s, s:f, s:f, s:o}", "agent", choice->agent, "type", ruv_task_type_name(choice->type),
	                 "probability", (double)choice->probability, "quality", (double)choice->quality, "reason",
	                 cli_json_text(choice->reason));
}

static int agent_route(int argc, char **argv)
{
	static const char *bundled;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled ruvllm-nano-agents.bin)"}, {0}};
	static const cli_spec spec = {
	    .name = "agent route",
	    .usage = "[OPTIONS] TASK...",
	    .summary = "Which agent should do a task, how sure that is, who else might, and why; a task that is nobody's is said "
		       "to be so.",
	    .options = options,
	    .examples = "ruvllm agent route 'the login page crashes on Safari'",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_agent_router *router = NULL;
	struct eyes eyes = {0};
	json_t *all = json_array();
	ruv_error err = {0};
	cli_args args;
	int code, rc = RUV_OK;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !eyes_open(&eyes, &code) ||
	    !(router = open_router(&eyes, bundled, true, &code)))
		goto done;
	for (int i = 0; !rc && i < args.n; i++) {
		float *vector = see(&eyes, args.items[i], &err);
		ruv_agent_routed r;

		rc = vector ? ruv_agent_route(router, args.items[i], vector, &r, &err) : err.code;
		free(vector);
		if (rc)
			break;
		if (cli.json) {
			json_t *alternatives = json_array();

			for (int j = 0; j < r.n_alternatives; j++)
				json_array_append_new(alternatives, choice_json(&r.alternatives[j]));
			json_array_append_new(all, json_pack("{s:o, s:b, s:f, s:o, s:o, s:f, s:f, s:f}", "task",
			                                     cli_json_text(args.items[i]), "abstains", r.abstains, "out_of_scope",
			                                     (double)r.out_of_scope, "choice", choice_json(&r.agent),
			                                     "alternatives", alternatives, "complexity", (double)r.complexity,
			                                     "confidence", (double)r.confidence, "us", (double)r.ns / 1e3));
			continue;
		}
		printf("%s\n", args.items[i]);
		if (r.abstains)
			printf("  no agent's task (out of scope %.2f); least far: %s\n", (double)r.out_of_scope, r.agent.agent);
		else
			printf("  %s (%s), %.0f %%, complexity %.2f, expected quality %.2f\n    %s\n", r.agent.agent,
			       ruv_task_type_name(r.agent.type), 100 * (double)r.agent.probability, (double)r.complexity,
			       (double)r.agent.quality, r.agent.reason);
		for (int j = 0; j < r.n_alternatives && !r.abstains; j++)
			printf("  or %s, %.0f %%: %s\n", r.alternatives[j].agent, 100 * (double)r.alternatives[j].probability,
			       r.alternatives[j].reason);
	}
	code = rc ? cli_fail(&err, NULL) : cli.json ? cli_json_print(json_incref(all)) : 0;
done:
	json_decref(all);
	close_all(&eyes, router, NULL);
	return code;
}

/* ---- teach, outcome, forget, list -------------------------------------------------------------------------------------- */

static int agent_teach(int argc, char **argv)
{
	static const char *bundled, *purpose, *type;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled one)"},
	    {"purpose", 0, CLI_STRING, &purpose, "TEXT", "what a new agent is for"},
	    {"type", 0, CLI_CHOICE, &type, "build|investigate|verify|design|fix|explain|improve|operate|plan",
	     "its kind of work (default: that of the nearest agent)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "agent teach",
	    .usage = "[OPTIONS] AGENT TASK...",
	    .summary = "Give an agent examples of its tasks; a name that is not known makes a new agent. Counts at once and stays.",
	    .options = options,
	    .examples = "ruvllm agent teach translator 'translate the menu into French' --purpose 'translates texts'",
	    .min_args = 2,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_agent_router *router = NULL;
	struct eyes eyes = {0};
	ruv_error err = {0};
	cli_args args;
	int code, rc = RUV_OK;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !eyes_open(&eyes, &code) ||
	    !(router = open_router(&eyes, bundled, true, &code)))
		goto done;
	for (int i = 1; !rc && i < args.n; i++) {
		float *vector = see(&eyes, args.items[i], &err);

		rc = vector ? ruv_agent_teach(router, args.items[0], purpose, type ? ruv_task_type_parse(type) : -1, args.items[i],
		                              vector, &err)
		            : err.code;
		free(vector);
	}
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:o, s:i}", "agent", cli_json_text(args.items[0]), "examples", args.n - 1))
	                  : (printf("%s: %d examples more\n", args.items[0], args.n - 1), 0);
done:
	close_all(&eyes, router, NULL);
	return code;
}

static int agent_outcome(int argc, char **argv)
{
	static const char *bundled, *right;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled one)"},
	    {"right", 0, CLI_STRING, &right, "AGENT", "who should have had it, when it went badly"},
	    {0}};
	static const cli_spec spec = {
	    .name = "agent outcome",
	    .usage = "[OPTIONS] AGENT good|bad TASK",
	    .summary = "Say how a task went with an agent. Counts from the next task on and stays.",
	    .options = options,
	    .examples = "ruvllm agent outcome tester bad 'load test is too slow' --right optimizer",
	    .min_args = 3,
	    .max_args = 3,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_agent_router *router = NULL;
	struct eyes eyes = {0};
	ruv_error err = {0};
	float *vector = NULL;
	cli_args args;
	int code, rc;
	bool good;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	good = !strcmp(args.items[1], "good");
	if (!good && strcmp(args.items[1], "bad"))
		return cli_usage("'%s' is neither good nor bad", args.items[1]);
	if (!eyes_open(&eyes, &code) || !(router = open_router(&eyes, bundled, true, &code)))
		goto done;
	vector = see(&eyes, args.items[2], &err);
	rc = vector ? ruv_agent_outcome(router, args.items[2], vector, args.items[0], good, right, &err) : err.code;
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:o, s:b}", "agent", cli_json_text(args.items[0]), "good", good))
	                  : (printf("noted\n"), 0);
done:
	close_all(&eyes, router, vector);
	return code;
}

static int agent_forget(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "agent forget",
	    .usage = "AGENT",
	    .summary = "Forget an agent that was taught here, with its examples.",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_agent_router *router = NULL;
	struct eyes eyes = {0};
	ruv_error err = {0};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (eyes_open(&eyes, &code) && (router = open_router(&eyes, NULL, true, &code))) {
		if (ruv_agent_forget(router, args.items[0], &err))
			code = cli_fail(&err, NULL);
		else if (cli.json)
			code = cli_json_print(json_pack("{s:o}", "forgotten", cli_json_text(args.items[0])));
		else
			printf("%s is forgotten\n", args.items[0]);
	}
	close_all(&eyes, router, NULL);
	return code;
}

static int agent_list(int argc, char **argv)
{
	static const char *bundled;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled one)"}, {0}};
	static const cli_spec spec = {
	    .name = "agent list",
	    .usage = "[OPTIONS]",
	    .summary = "The agents, their examples and outcomes.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	cli_table *table;
	ruv_agent_router *router = NULL;
	struct eyes eyes = {0};
	json_t *all = json_array();
	ruv_agent_info info;
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !eyes_open(&eyes, &code) ||
	    !(router = open_router(&eyes, bundled, true, &code)))
		goto done;
	table = cli.json ? NULL : cli_table_create("agent|type|>examples|>taught|>good|>bad|for");
	for (int i = 0; ruv_agent_at(router, i, &info); i++) {
		if (cli.json) {
			json_array_append_new(all,
			                      json_pack("{s:o, s:s, s:b, s:i, s:i, s:i, s:i, s:o}", "agent",
			                                cli_json_text(info.name), "type", ruv_task_type_name(info.type), "bundled",
			                                info.bundled, "examples", info.n_examples, "taught", info.n_taught, "good",
			                                info.n_good, "bad", info.n_bad, "purpose", cli_json_text(info.purpose)));
			continue;
		}
		cli_table_cell(table, "%s", info.name);
		cli_table_cell(table, "%s", ruv_task_type_name(info.type));
		cli_table_cell(table, "%d", info.n_examples);
		cli_table_cell(table, "%d", info.n_taught);
		cli_table_cell(table, "%d", info.n_good);
		cli_table_cell(table, "%d", info.n_bad);
		cli_table_cell(table, "%s", info.purpose);
	}
	if (cli.json)
		code = cli_json_print(json_incref(all));
	else
		cli_table_print(table, stdout);
done:
	json_decref(all);
	close_all(&eyes, router, NULL);
	return code;
}

/* ---- labelled sets ----------------------------------------------------------------------------------------------------- */

enum part { PART_TRAIN, PART_VALIDATION, PART_TEST };

struct labelled {
	char *id, *text, *agent, *style, *source; /* agent "" : out of scope */
	enum part part;
	float complexity;
	float *vector;
};

struct set {
	struct labelled *items;
	int n, cap;
};

static void set_release(struct set *set)
{
	for (int i = 0; i < set->n; i++) {
		free(set->items[i].id);
		free(set->items[i].text);
		free(set->items[i].agent);
		free(set->items[i].style);
		free(set->items[i].source);
		free(set->items[i].vector);
	}
	free(set->items);
}

static char *copy_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return strdup(text ? text : "");
}

/* DIR/NAME: rows with text, and agent, style, complexity, id, part, source as far as they have them. */
static int set_read(struct set *set, const char *dir, const char *name, ruv_error *err)
{
	char path[4096], *text = NULL, *end;
	size_t n_bytes;
	int rc, line = 0;

	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return ruv_fail(err, RUV_ELIMIT, "agent", "the directory's path is too long");
	rc = ruv_eval_text_read(&text, &n_bytes, path, err);
	for (char *at = text; !rc && *at; at = end + (*end != 0)) {
		struct labelled item = {0};
		const char *part;
		json_t *row;
		uint64_t hash;

		end = strchr(at, '\n');
		end = end ? end : at + strlen(at);
		line++;
		row = json_loadb(at, (size_t)(end - at), 0, NULL);
		if (!json_is_string(json_object_get(row, "text")) || !json_is_string(json_object_get(row, "id"))) {
			rc = ruv_fail(err, RUV_EFORMAT, "agent", "%s:%d: no object with \"id\" and \"text\"", path, line);
			json_decref(row);
			break;
		}
		if (set->n == set->cap) {
			struct labelled *more = realloc(set->items, sizeof *more * (size_t)(set->cap = 2 * set->cap + 1024));

			if (!more) {
				json_decref(row);
				rc = ruv_fail_memory(err, "agent", sizeof *more * (size_t)set->cap);
				break;
			}
			set->items = more;
		}
		item.id = copy_of(row, "id");
		item.text = copy_of(row, "text");
		item.agent = copy_of(row, "agent");
		item.style = copy_of(row, "style");
		item.source = copy_of(row, "source");
		item.complexity = json_is_integer(json_object_get(row, "complexity"))
		                      ? ((float)json_integer_value(json_object_get(row, "complexity")) - 1) / 2
		                      : -1;
		/* By the id alone, so that the parts stay what they are when tasks are added. */
		hash = item.id ? ruv_hash64(item.id, strlen(item.id), 11) % 100 : 0;
		item.part = hash < 55 ? PART_TRAIN : hash < 70 ? PART_VALIDATION : PART_TEST;
		part = json_string_value(json_object_get(row, "part"));
		if (part && !strcmp(part, "test"))
			item.part = PART_TEST;
		else if (part)
			item.part = hash < 60 ? PART_TRAIN : PART_VALIDATION;
		set->items[set->n++] = item;
		json_decref(row);
		if (!item.id || !item.text || !item.agent || !item.style || !item.source)
			rc = ruv_fail_memory(err, "agent", n_bytes);
	}
	free(text);
	return rc;
}

static int set_embed(struct set *set, struct eyes *eyes, ruv_error *err)
{
	cli_progress progress = {0};
	int rc = RUV_OK;

	cli_progress_begin(&progress, "embed", "tasks", (uint64_t)set->n);
	for (int i = 0; !rc && i < set->n; i++) {
		set->items[i].vector = see(eyes, set->items[i].text, err);
		rc = set->items[i].vector ? RUV_OK : err->code;
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
		if (!rc && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "agent", "stopped after %d of %d tasks", i + 1, set->n);
	}
	cli_progress_end(&progress, false);
	return rc;
}

/* Trains a file on the training and validation parts; tasks of the style `without` are left out (NULL: none). */
static int train_on(const struct set *set, const struct eyes *eyes, const char *without, const char *path, ruv_error *err)
{
	ruv_agent_example *examples = malloc(sizeof *examples * (size_t)(set->n + 1));
	int n = 0, n_train = 0, rc;

	if (!examples)
		return ruv_fail_memory(err, "agent", sizeof *examples * (size_t)set->n);
	for (int pass = PART_TRAIN; pass <= PART_VALIDATION; pass++) {
		for (int i = 0; i < set->n; i++) {
			const struct labelled *item = &set->items[i];
			/* Without a style nothing is kept for a test of the others: its own tasks are the test. */
			enum part part = without && item->part == PART_TEST && *item->agent ? PART_TRAIN : item->part;

			if ((int)part != pass || (without && !strcmp(item->style, without)))
				continue;
			examples[n++] = (ruv_agent_example){
			    .agent = item->agent, .text = item->text, .vector = item->vector, .complexity = item->complexity};
		}
		if (pass == PART_TRAIN)
			n_train = n;
	}
	rc = ruv_agent_train(path, examples, n_train, n, &eyes->options, err);
	free(examples);
	return rc;
}

/* ---- train ------------------------------------------------------------------------------------------------------------- */

static int agent_train(int argc, char **argv)
{
	static const char *out;
	static const cli_option options[] = {{"out", 'o', CLI_STRING, &out, "FILE", "the trained file (required)"}, {0}};
	static const cli_spec spec = {
	    .name = "agent train",
	    .usage = "[OPTIONS] -o FILE DIR",
	    .summary = "Train the bundled file on DIR/tasks.jsonl and DIR/out_of_scope.jsonl; the test parts are not looked at.",
	    .options = options,
	    .examples = "ruvllm agent train -o ruvllm-nano-agents.bin bench/data/agents",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	struct set set = {0};
	struct eyes eyes = {0};
	ruv_error err = {0};
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!out)
		return cli_usage("--out is missing");
	cli_interrupt_catch();
	if (!eyes_open(&eyes, &code))
		goto done;
	rc = set_read(&set, args.items[0], "tasks.jsonl", &err);
	if (!rc)
		rc = set_read(&set, args.items[0], "out_of_scope.jsonl", &err);
	if (!rc)
		rc = set_embed(&set, &eyes, &err);
	if (!rc)
		rc = train_on(&set, &eyes, NULL, out, &err);
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:s, s:i}", "file", out, "examples", set.n))
	                  : (printf("%s: trained\n", out), 0);
done:
	set_release(&set);
	close_all(&eyes, NULL, NULL);
	return code;
}

/* ---- eval -------------------------------------------------------------------------------------------------------------- */

struct score {
	int n, right, in_three, abstained;
	double complexity_error, complexity_base;
	int n_complexity;
};

/* Routes the set's tasks of a part (style: only that one; NULL: all) with an agent; `scores` (NULL is fine) gets out-of-scope. */
static int route_part(ruv_agent_router *router, const struct set *set, int part, const char *style, struct score *score,
                      int *confusion, float *scopes, ruv_error *err)
{
	memset(score, 0, sizeof *score);
	for (int i = 0; i < set->n; i++) {
		const struct labelled *item = &set->items[i];
		ruv_agent_routed r;
		bool in_three;
		int rc;

		if ((int)item->part != part || !*item->agent || (style && strcmp(style, item->style)))
			continue;
		rc = ruv_agent_route(router, item->text, item->vector, &r, err);
		if (rc)
			return rc;
		in_three = !strcmp(r.agent.agent, item->agent);
		score->right += in_three;
		for (int j = 0; j < r.n_alternatives && j < 2; j++)
			in_three |= !strcmp(r.alternatives[j].agent, item->agent);
		score->in_three += in_three;
		score->abstained += r.abstains;
		if (item->complexity >= 0) {
			score->complexity_error += pow((double)(r.complexity - item->complexity), 2);
			score->complexity_base += pow((double)(0.5f - item->complexity), 2);
			score->n_complexity++;
		}
		if (scopes)
			scopes[score->n] = r.out_of_scope;
		for (int a = 0; confusion && ruv_agent_spec_at(a); a++)
			for (int b = 0; ruv_agent_spec_at(b); b++)
				confusion[a * 16 + b] += !strcmp(ruv_agent_spec_at(a)->name, item->agent) &&
				                         !strcmp(ruv_agent_spec_at(b)->name, r.agent.agent);
		score->n++;
	}
	return RUV_OK;
}

static double auc_of(const float *low, int n_low, const float *high, int n_high)
{
	double wins = 0;

	for (int i = 0; i < n_low; i++)
		for (int j = 0; j < n_high; j++)
			wins += high[j] > low[i] ? 1 : high[j] == low[i] ? 0.5 : 0;
	return n_low && n_high ? wins / n_low / n_high : 0;
}

/* Half-width of the 95 % interval of a share. */
static double width_of(double share, int n)
{
	return n ? 1.96 * sqrt(share * (1 - share) / n) : 0;
}

/* A new agent: the first five tasks are examples, the next fifty are routed and corrected, the rest is the test. */
static int eval_new_agent(ruv_agent_router *router, const struct set *new_set, const struct set *set, double accuracy[4],
                          int *n_test, double *old_after, ruv_error *err)
{
	enum { N_TAUGHT = 5, N_CORRECTED = 50 };
	int order[1024], n = new_set->n < 1024 ? new_set->n : 1024, rc = RUV_OK;
	const char *agent = new_set->items[0].agent;
	struct score score;

	for (int i = 0; i < n; i++)
		order[i] = i;
	for (int i = 1; i < n; i++) /* by the hash of the id: no style comes first */
		for (int j = i;
		     j > 0 && ruv_hash64(new_set->items[order[j]].id, strlen(new_set->items[order[j]].id), 2) <
		                  ruv_hash64(new_set->items[order[j - 1]].id, strlen(new_set->items[order[j - 1]].id), 2);
		     j--) {
			int swap = order[j];
			order[j] = order[j - 1];
			order[j - 1] = swap;
		}
	*n_test = n - N_TAUGHT - N_CORRECTED;
	if (*n_test < 5)
		return ruv_fail(err, RUV_EINVAL, "agent", "%d tasks of a new agent, 60 are needed at least", n);
	for (int stage = 0; !rc && stage < 4; stage++) {
		int begin = stage == 1   ? 0
		            : stage == 2 ? N_TAUGHT
		                         : N_TAUGHT + 10,
		    end = stage == 2 ? N_TAUGHT + 10 : N_TAUGHT + N_CORRECTED;

		for (int i = 0; !rc && stage == 1 && i < N_TAUGHT; i++)
			rc = ruv_agent_teach(router, agent, "taught in the evaluation", RUV_TASK_INVESTIGATE,
			                     new_set->items[order[i]].text, new_set->items[order[i]].vector, err);
		for (int i = begin; !rc && stage >= 2 && i < end; i++) {
			const struct labelled *item = &new_set->items[order[i]];
			ruv_agent_routed r;

			rc = ruv_agent_route(router, item->text, item->vector, &r, err);
			if (!rc && !strcmp(r.agent.agent, agent))
				rc = ruv_agent_outcome(router, item->text, item->vector, agent, true, NULL, err);
			else if (!rc)
				rc = ruv_agent_outcome(router, item->text, item->vector, r.agent.agent, false, agent, err);
		}
		accuracy[stage] = 0;
		for (int i = N_TAUGHT + N_CORRECTED; !rc && i < n; i++) {
			ruv_agent_routed r;

			rc = ruv_agent_route(router, new_set->items[order[i]].text, new_set->items[order[i]].vector, &r, err);
			accuracy[stage] += !rc && !strcmp(r.agent.agent, agent);
		}
		accuracy[stage] /= *n_test;
	}
	if (!rc)
		rc = route_part(router, set, PART_TEST, NULL, &score, NULL, NULL, err);
	*old_after = rc ? 0 : (double)score.right / score.n;
	return rc;
}

static int agent_eval(int argc, char **argv)
{
	static const char *bundled;
	static bool cross, confusions;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled one)"},
	    {"cross-style", 0, CLI_FLAG, &cross, NULL, "also train without each style of writing and test on it (minutes)"},
	    {"confusion", 0, CLI_FLAG, &confusions, NULL, "show who is taken for whom"},
	    {0}};
	static const cli_spec spec = {
	    .name = "agent eval",
	    .usage = "[OPTIONS] DIR",
	    .summary =
		"Measure the agent router on the untouched test part of DIR (bench/data/agents): accuracy, right one among three, "
		"out-of-scope, complexity, and how a new agent is learned from fifty corrections.",
	    .options = options,
	    .examples = "ruvllm agent eval bench/data/agents --confusion",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	static const char *const styles[] = {"terse", "chatty", "codey", "imperative", "question", "nonnative", "long"};
	static int confusion[16 * 16];
	struct set set = {0}, none = {0}, new_set = {0};
	struct eyes eyes = {0};
	struct score score, by_style[7], crossed[7] = {{0}};
	double auc = 0, refused = 0, accuracy[4] = {0}, old_after = 0, crossed_mean = 0;
	float *in = NULL, *out = NULL;
	ruv_agent_router *router = NULL;
	int code, rc, n_out = 0, n_new = 0, n_crossed = 0;
	ruv_error err = {0};
	cli_args args;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	cli_interrupt_catch();
	if (!eyes_open(&eyes, &code) || !(router = open_router(&eyes, bundled, false, &code)))
		goto done;
	rc = set_read(&set, args.items[0], "tasks.jsonl", &err);
	if (!rc)
		rc = set_read(&none, args.items[0], "out_of_scope.jsonl", &err);
	if (!rc)
		rc = set_read(&new_set, args.items[0], "new_agent.jsonl", &err);
	if (!rc)
		rc = set_embed(&set, &eyes, &err);
	if (!rc)
		rc = set_embed(&none, &eyes, &err);
	if (!rc)
		rc = set_embed(&new_set, &eyes, &err);
	in = malloc(sizeof *in * (size_t)(set.n + 1));
	out = malloc(sizeof *out * (size_t)(none.n + 1));
	if (!rc && (!in || !out))
		rc = ruv_fail_memory(&err, "agent", sizeof *in * (size_t)set.n);
	if (!rc)
		rc = route_part(router, &set, PART_TEST, NULL, &score, confusion, in, &err);
	for (int s = 0; !rc && s < 7; s++)
		rc = route_part(router, &set, PART_TEST, styles[s], &by_style[s], NULL, NULL, &err);
	for (int i = 0; !rc && i < none.n; i++) {
		ruv_agent_routed r;

		if (none.items[i].part != PART_TEST)
			continue;
		rc = ruv_agent_route(router, none.items[i].text, none.items[i].vector, &r, &err);
		out[n_out++] = r.out_of_scope;
		refused += r.abstains;
	}
	if (!rc)
		auc = auc_of(in, score.n, out, n_out);
	if (!rc && new_set.n)
		rc = eval_new_agent(router, &new_set, &set, accuracy, &n_new, &old_after, &err);
	for (int s = 0; !rc && cross && s < 7; s++) {
		char path[] = "/tmp/ruvllm-agents-XXXXXX";
		int fd = mkstemp(path), part;
		struct set all = {0};
		ruv_agent_router *other = NULL;

		if (fd < 0) {
			rc = ruv_fail(&err, RUV_EIO, "agent", "no temporary file can be made");
			break;
		}
		close(fd);
		/* out-of-scope tasks take part in training as they do in the bundled file */
		all.items = malloc(sizeof *all.items * (size_t)(set.n + none.n + 1));
		if (all.items) {
			memcpy(all.items, set.items, sizeof *all.items * (size_t)set.n);
			memcpy(all.items + set.n, none.items, sizeof *all.items * (size_t)none.n);
			all.n = set.n + none.n;
			rc = train_on(&all, &eyes, styles[s], path, &err);
		}
		free(all.items);
		if (!rc)
			rc = ruv_agent_router_open(&other, path, NULL, &eyes.options, &err);
		for (part = PART_TRAIN; !rc && part <= PART_TEST; part++) {
			struct score one;

			rc = route_part(other, &set, part, styles[s], &one, NULL, NULL, &err);
			crossed[s].n += one.n;
			crossed[s].right += one.right;
			crossed[s].in_three += one.in_three;
		}
		ruv_agent_router_free(other);
		unlink(path);
		crossed_mean += crossed[s].right;
		n_crossed += crossed[s].n;
		cli_note("%s left out: %.1f %%", styles[s], crossed[s].n ? 100.0 * crossed[s].right / crossed[s].n : 0);
	}
	if (rc) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	if (cli.json) {
		json_t *per = json_object(), *left = json_object();

		for (int s = 0; s < 7; s++) {
			json_object_set_new(per, styles[s],
			                    json_real((double)by_style[s].right / (by_style[s].n ? by_style[s].n : 1)));
			if (cross)
				json_object_set_new(left, styles[s],
				                    json_real((double)crossed[s].right / (crossed[s].n ? crossed[s].n : 1)));
		}
		code = cli_json_print(json_pack(
		    "{s:i, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:o, s:o, s:{s:i, s:f, s:f, s:f, s:f, s:f}}", "test", score.n,
		    "accuracy", (double)score.right / score.n, "top3", (double)score.in_three / score.n, "in_scope_refused",
		    (double)score.abstained / score.n, "out_of_scope_auc", auc, "out_of_scope_n", n_out, "out_of_scope_refused",
		    refused / (n_out ? n_out : 1), "complexity_error",
		    sqrt(score.complexity_error / (score.n_complexity ? score.n_complexity : 1)), "by_style", per, "without_style",
		    left, "new_agent", "test", n_new, "before", accuracy[0], "after_5_examples", accuracy[1],
		    "after_10_corrections", accuracy[2], "after_50_corrections", accuracy[3], "others_after", old_after));
		goto done;
	}
	printf("untouched test part: %d tasks\naccuracy     %.1f %% (+- %.1f)\namong three  %.1f %%\n", score.n,
	       100.0 * score.right / score.n, 100 * width_of((double)score.right / score.n, score.n),
	       100.0 * score.in_three / score.n);
	for (int s = 0; s < 7; s++)
		printf("  %-11s %.1f %% of %d\n", styles[s], by_style[s].n ? 100.0 * by_style[s].right / by_style[s].n : 0,
		       by_style[s].n);
	printf("out of scope: AUC %.3f over %d foreign texts; refused %.1f %% of them and %.1f %% of the agents' own tasks\n", auc,
	       n_out, 100 * refused / (n_out ? n_out : 1), 100.0 * score.abstained / score.n);
	printf("complexity: root mean square error %.3f (always 0.5: %.3f)\n",
	       sqrt(score.complexity_error / (score.n_complexity ? score.n_complexity : 1)),
	       sqrt(score.complexity_base / (score.n_complexity ? score.n_complexity : 1)));
	if (new_set.n)
		printf("new agent '%s', %d test tasks: %.1f %% before, %.1f %% after 5 examples, %.1f %% after 10 and %.1f %% "
		       "after 50 corrections; "
		       "the others' tasks afterwards %.1f %%\n",
		       new_set.items[0].agent, n_new, 100 * accuracy[0], 100 * accuracy[1], 100 * accuracy[2], 100 * accuracy[3],
		       100 * old_after);
	if (cross) {
		printf("trained without a style, tested on it: %.1f %% of %d\n", 100 * crossed_mean / n_crossed, n_crossed);
		for (int s = 0; s < 7; s++)
			printf("  %-11s %.1f %% of %d, among three %.1f %%\n", styles[s], 100.0 * crossed[s].right / crossed[s].n,
			       crossed[s].n, 100.0 * crossed[s].in_three / crossed[s].n);
	}
	for (int a = 0; confusions && ruv_agent_spec_at(a); a++)
		for (int b = 0; ruv_agent_spec_at(b); b++)
			if (a != b && confusion[a * 16 + b] > 1)
				printf("%s taken for %s: %d\n", ruv_agent_spec_at(a)->name, ruv_agent_spec_at(b)->name,
				       confusion[a * 16 + b]);
done:
	free(in);
	free(out);
	set_release(&set);
	set_release(&none);
	set_release(&new_set);
	close_all(&eyes, router, NULL);
	return code;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static const cli_part parts[] = {
    {"route", agent_route, "which agent a task belongs to, and why"},
    {"teach", agent_teach, "give an agent examples; makes new agents"},
    {"outcome", agent_outcome, "say how a task went with an agent"},
    {"list", agent_list, "the agents, their examples and outcomes"},
    {"forget", agent_forget, "forget an agent that was taught here"},
    {"eval", agent_eval, "measure on labelled tasks"},
    {"train", agent_train, "train the bundled file"},
    {0},
};

int cmd_agent(int argc, char **argv)
{
	return cli_run_part(
	    &(cli_parts){
		.name = "agent", .kind = "part", .summary = "Which agent a task belongs to: docs/router.md.", .parts = parts},
	    argc, argv);
}

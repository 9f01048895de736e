/* cmd_agent.c - `ruvllm agent PART`: which agent a task belongs to; teaching and outcomes. Measuring is cmd_agent_eval.c's. */
#include "cmd_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

/* ---- what the parts share ---------------------------------------------------------------------------------------------- */

static int embed_texts(void *user, const char *const *texts, int n, float *vectors, ruv_error *err)
{
	cmd_agent_door *door = user;
	int dim = ruv_embedder_dim(door->embedder), rc = RUV_OK;

	for (int i = 0; i < n && !rc; i++)
		rc = ruv_runtime_task_vector(door->runtime, texts[i], vectors + (size_t)i * (size_t)dim, &cli_cancel, err);
	return rc;
}

static int open_encoder(cmd_agent_door *door, ruv_error *err)
{
	char path[4096];
	int rc = ruv_runtime_embedder(door->runtime, &door->embedder, err);

	if (!rc)
		rc = ruv_runtime_find_model(door->runtime, "encoder", path, sizeof path, err);
	if (!rc)
		rc = ruv_hash_file_sha256(door->version, path, err);
	if (rc)
		return rc;
	door->version[16] = 0;
	snprintf(door->encoder, sizeof door->encoder, "%.63s", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	door->options = (ruv_agent_options){.dim = ruv_embedder_dim(door->embedder),
	                                    .encoder = door->encoder,
	                                    .encoder_version = door->version,
	                                    .embed = embed_texts,
	                                    .user = door};
	return RUV_OK;
}

static int open_router(cmd_agent_door *door, const char *given, bool with_log, ruv_error *err)
{
	const char *dir = ruv_runtime_data_dir(door->runtime);
	char found[4096], log[4096];
	int rc = RUV_OK;

	if (!given) {
		rc = ruv_runtime_find_model(door->runtime, "agents", found, sizeof found, err);
		if (rc == RUV_ENOTFOUND) {
			cli_note("there is no ruvllm-nano-agents.bin in the models directories: only what was taught here is "
			         "known");
			*err = (ruv_error){0};
			rc = RUV_OK;
		} else {
			given = found;
		}
	}
	if (!rc && with_log)
		rc = ruv_dir_create(dir, err);
	if (!rc && with_log && snprintf(log, sizeof log, "%s/agents.log", dir) >= (int)sizeof log)
		rc = ruv_fail(err, RUV_ELIMIT, "agent", "the data directory's path is too long");
	return rc ? rc : ruv_agent_router_open(&door->router, given, with_log ? log : NULL, &door->options, err);
}

bool cmd_agent_begin(cmd_agent_door *door, const cli_spec *spec, int argc, char **argv, cli_args *args, cmd_agent_need need,
                     const char *const *given, int *code)
{
	ruv_error err = {0};
	int rc;

	if (!cli_parse(spec, argc, argv, args, code))
		return false;
	door->runtime = cli_runtime(code);
	if (!door->runtime)
		return false;
	rc = open_encoder(door, &err);
	if (!rc && need != CMD_AGENT_ENCODER)
		rc = open_router(door, given ? *given : NULL, need == CMD_AGENT_TAUGHT, &err);
	if (rc)
		*code = cli_runtime_fail(&err);
	return !rc;
}

void cmd_agent_end(cmd_agent_door *door)
{
	ruv_agent_router_free(door->router);
	ruv_runtime_free(door->runtime);
}

float *cmd_agent_see(cmd_agent_door *door, const char *text, ruv_error *err)
{
	float *vector = malloc(sizeof *vector * (size_t)door->options.dim);

	if (!vector) {
		ruv_fail_memory(err, "agent", sizeof *vector * (size_t)door->options.dim);
		return NULL;
	}
	if (embed_texts(door, &text, 1, vector, err)) {
		free(vector);
		return NULL;
	}
	return vector;
}

int cmd_agent_say(cmd_agent_door *door, const char *task, const cmd_agent_word *word, ruv_error *err)
{
	float *vector = cmd_agent_see(door, task, err);
	int rc = vector ? RUV_OK : err->code;

	if (!rc && word->what == CMD_AGENT_ROUTE)
		rc = ruv_agent_route(door->router, task, vector, word->routed, err);
	else if (!rc && word->what == CMD_AGENT_TEACH)
		rc = ruv_agent_teach(door->router, word->agent, word->purpose, word->type, task, vector, err);
	else if (!rc)
		rc = ruv_agent_outcome(door->router, task, vector, word->agent, word->good, word->right, err);
	free(vector);
	return rc;
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
	cmd_agent_door door = {0};
	json_t *all = json_array();
	ruv_error err = {0};
	cli_args args;
	int code, rc = RUV_OK;

	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_TAUGHT, &bundled, &code))
		goto done;
	for (int i = 0; !rc && i < args.n; i++) {
		ruv_agent_routed r = {0};

		rc = cmd_agent_say(&door, args.items[i], &(cmd_agent_word){.what = CMD_AGENT_ROUTE, .routed = &r}, &err);
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
	cmd_agent_end(&door);
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
	cmd_agent_door door = {0};
	cmd_agent_word word;
	ruv_error err = {0};
	cli_args args;
	int code, rc = RUV_OK;

	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_TAUGHT, &bundled, &code))
		goto done;
	word = (cmd_agent_word){
	    .what = CMD_AGENT_TEACH, .agent = args.items[0], .purpose = purpose, .type = type ? ruv_task_type_parse(type) : -1};
	for (int i = 1; !rc && i < args.n; i++)
		rc = cmd_agent_say(&door, args.items[i], &word, &err);
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:o, s:i}", "agent", cli_json_text(args.items[0]), "examples", args.n - 1))
	                  : (printf("%s: %d examples more\n", args.items[0], args.n - 1), 0);
done:
	cmd_agent_end(&door);
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
	cmd_agent_door door = {0};
	ruv_error err = {0};
	cli_args args;
	int code, rc;
	bool good;

	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_TAUGHT, &bundled, &code))
		goto done;
	good = !strcmp(args.items[1], "good");
	if (!good && strcmp(args.items[1], "bad")) {
		code = cli_usage("'%s' is neither good nor bad", args.items[1]);
		goto done;
	}
	rc =
	    cmd_agent_say(&door, args.items[2],
	                  &(cmd_agent_word){.what = CMD_AGENT_OUTCOME, .agent = args.items[0], .good = good, .right = right}, &err);
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:o, s:b}", "agent", cli_json_text(args.items[0]), "good", good))
	                  : (printf("noted\n"), 0);
done:
	cmd_agent_end(&door);
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
	cmd_agent_door door = {0};
	ruv_error err = {0};
	cli_args args;
	int code;

	if (cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_TAUGHT, NULL, &code)) {
		if (ruv_agent_forget(door.router, args.items[0], &err))
			code = cli_fail(&err, NULL);
		else if (cli.json)
			code = cli_json_print(json_pack("{s:o}", "forgotten", cli_json_text(args.items[0])));
		else
			printf("%s is forgotten\n", args.items[0]);
	}
	cmd_agent_end(&door);
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
	cmd_agent_door door = {0};
	json_t *all = json_array();
	ruv_agent_info info;
	cli_args args;
	int code;

	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_TAUGHT, &bundled, &code))
		goto done;
	table = cli.json ? NULL : cli_table_create("agent|type|>examples|>taught|>good|>bad|for");
	for (int i = 0; ruv_agent_at(door.router, i, &info); i++) {
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
	cmd_agent_end(&door);
	return code;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static const cli_part parts[] = {
    {"route", agent_route, "which agent a task belongs to, and why"},
    {"teach", agent_teach, "give an agent examples; makes new agents"},
    {"outcome", agent_outcome, "say how a task went with an agent"},
    {"list", agent_list, "the agents, their examples and outcomes"},
    {"forget", agent_forget, "forget an agent that was taught here"},
    {"eval", cmd_agent_eval, "measure on labelled tasks"},
    {"train", cmd_agent_train, "train the bundled file"},
    {0},
};

int cmd_agent(int argc, char **argv)
{
	return cli_run_part(
	    &(cli_parts){
		.name = "agent", .kind = "part", .summary = "Which agent a task belongs to: docs/router.md.", .parts = parts},
	    argc, argv);
}

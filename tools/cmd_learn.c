/* cmd_learn.c - `ruvllm learn PART`: the table of its parts, and those that look after a learner: status, history, teach, train,
 * gate, rollback, export, pause, resume, consolidate. */
#include "cmd_learn.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"

bool cmd_learn_place(ruv_runtime *runtime, const char *which, char *dir, char *model, size_t cap, ruv_error *err)
{
	if (ruv_runtime_find_model(runtime, which, model, cap, err))
		return false;
	if (snprintf(dir, cap, "%s/learn", ruv_runtime_data_dir(runtime)) >= (int)cap) {
		ruv_fail(err, RUV_ELIMIT, "learn", "the data directory's path is too long");
		return false;
	}
	return true;
}

static const char *configured_model(int *code)
{
	ruv_config *config = cli_config(code);
	const char *where;
	ruv_config_origin origin;
	return config ? ruv_config_value(config, ruv_config_key_find("model"), &origin, &where) : NULL;
}

/* The learner of the configured model; without a thread: this program drives it. */
static ruv_learner *open_learner(bool read_only, ruv_runtime **runtime, int *code)
{
	char dir[4096], model[4096];
	ruv_error err = {0};
	ruv_learner *learner = NULL;
	const char *which = configured_model(code);
	*runtime = which ? cli_runtime(code) : NULL;
	if (!*runtime)
		return NULL;
	const ruv_memory_scope scope = ruv_runtime_scope(*runtime);
	if (!cmd_learn_place(*runtime, which, dir, model, sizeof dir, &err)) {
		*code = cli_runtime_fail(&err);
		goto failed;
	}
	const ruv_learner_options options = {.dir = dir,
	                                     .model_path = model,
	                                     .user = scope.user,
	                                     .no_thread = true,
	                                     .read_only = read_only,
	                                     .background_every = 1 << 30};
	int rc = ruv_learner_open(&learner, &options, &err);
	if (rc == RUV_OK)
		return learner;
	*code = cli_fail(&err, rc == RUV_ENOTFOUND ? "`ruvllm learn teach QUESTION ANSWER` begins it"
	                       : rc == RUV_EBUSY   ? "stop it first, or ask it through its API"
	                                           : NULL);
failed:
	ruv_runtime_free(*runtime);
	*runtime = NULL;
	return NULL;
}

/* What a part does with the open learner; prints its result. */
typedef int (*part_work)(ruv_learner *learner, void *user, ruv_error *err);

/* The frame of every part: opens the learner, works, closes. The exit code. */
static int with_learner(bool read_only, part_work work, void *user)
{
	ruv_runtime *runtime;
	ruv_error err = {0};
	int code;
	ruv_learner *learner = open_learner(read_only, &runtime, &code);
	if (!learner)
		return code;
	const int rc = work(learner, user, &err);
	ruv_learner_free(learner);
	ruv_runtime_free(runtime);
	if (rc == RUV_OK)
		return CLI_EXIT_OK;
	code = cli_fail(&err, rc == RUV_ECANCELLED ? "`ruvllm learn resume` goes on" : NULL);
	return code == CLI_EXIT_INTERRUPTED ? CLI_EXIT_FAILED : code; /* paused; nobody pressed Ctrl-C */
}

json_t *cmd_learn_gate_json(const ruv_gate_result *g)
{
	return json_pack("{s:b, s:f, s:[f, f], s:f, s:[f, f], s:f, s:f, s:i, s:i, s:s}", "pass", g->pass, "gain", g->gain,
	                 "interval", g->gain_low, g->gain_high, "shuffled_gain", g->shuffled_gain, "shuffled_interval",
	                 g->shuffled_low, g->shuffled_high, "perplexity_ratio", g->perplexity_ratio, "old_drop_points", g->old_drop,
	                 "items", g->n, "old_items", g->n_old, "why", g->why);
}

void cmd_learn_print_gate(const ruv_gate_result *g)
{
	printf("%s%s%s\n", g->pass ? "passes" : "refused", *g->why ? ": " : "", g->why);
	printf("held-out gain       %+.4f nats a token over wrong answers, 95 %% interval [%+.4f, %+.4f], %d items\n", g->gain,
	       g->gain_low, g->gain_high, g->n);
	printf("shuffled control    %+.4f, [%+.4f, %+.4f]\n", g->shuffled_gain, g->shuffled_low, g->shuffled_high);
	printf("base perplexity     x %.4f (allowed: up to 1.01)\n", g->perplexity_ratio);
	printf("earlier tasks       %+.2f points (allowed: a drop of 0.5), %d items\n", -g->old_drop, g->n_old);
}

static const char common_notes[] =
    "Learning belongs to a model and a data directory: DATA_DIR/learn/MODEL holds the versions (adapters, GGUF "
    "LoRA files), the journal and the reasoning bank.";

#define PART(part, use, says, least, most)                                                                                         \
	static const cli_spec spec = {.name = "learn " part,                                                                       \
	                              .usage = "[OPTIONS]" use,                                                                    \
	                              .summary = says,                                                                             \
	                              .notes = common_notes,                                                                       \
	                              .min_args = least,                                                                           \
	                              .max_args = most,                                                                            \
	                              CLI_CONFIG_OPTIONS};                                                                         \
	cli_args args;                                                                                                             \
	int code;                                                                                                                  \
	if (!cli_parse(&spec, argc, argv, &args, &code))                                                                           \
	return code

/* ---- looking ---- */

static int print_status(ruv_learner *l, void *user, ruv_error *err)
{
	ruv_learner_status s;
	(void)user;
	int rc = ruv_learner_get_status(l, &s, err);
	if (rc)
		return rc;
	if (cli.json) {
		json_t *hooks = json_array();
		for (int i = 0; i < s.n_hooks; i++)
			json_array_append_new(hooks, json_integer(s.hooks[i]));
		cli_json_print(json_pack(
		    "{s:i, s:i, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:I, s:o, s:I, s:I}", "live_version",
		    s.live_version, "last_version", s.last_version, "paused", s.paused, "observed", (json_int_t)s.n_observed,
		    "accepted", (json_int_t)s.n_accepted, "corrected", (json_int_t)s.n_corrected, "rejected",
		    (json_int_t)s.n_rejected, "steps", (json_int_t)s.n_steps, "replayed", (json_int_t)s.n_replayed, "held_out",
		    (json_int_t)s.n_held_out, "skipped", (json_int_t)s.n_skipped, "lessons", s.n_replay, "tasks", s.n_tasks, "rank",
		    s.rank, "parameters", (json_int_t)s.n_params, "hooks", hooks, "trajectories", (json_int_t)s.n_trajectories,
		    "strategies", (json_int_t)s.n_strategies));
		return RUV_OK;
	}
	printf("live version    %d of %d%s\n", s.live_version, s.last_version, s.paused ? ", paused" : "");
	printf("adapter         rank %d at layers", s.rank);
	for (int i = 0; i < s.n_hooks; i++)
		printf("%s %d", i ? "," : "", s.hooks[i]);
	printf(", %lld parameters\n", (long long)s.n_params);
	printf("lessons         %d trained on, %lld held out, %d kinds of tasks\n", s.n_replay, (long long)s.n_held_out, s.n_tasks);
	printf("feedback        %lld accepted, %lld corrected, %lld rejected\n", (long long)s.n_accepted, (long long)s.n_corrected,
	       (long long)s.n_rejected);
	printf("steps           %lld, %lld replayed\n", (long long)s.n_steps, (long long)s.n_replayed);
	printf("reasoning bank  %lld trajectories, %lld strategies\n", (long long)s.n_trajectories, (long long)s.n_strategies);
	return RUV_OK;
}

static int part_status(int argc, char **argv)
{
	PART("status", "", "Says what the learner of a model has learned and what is live.", 0, 0);
	return with_learner(true, print_status, NULL);
}

static json_t *event_json(const ruv_learner_event *e)
{
	return json_pack("{s:I, s:s, s:i, s:I, s:o}", "time_ms", (json_int_t)e->time_ms, "what", e->what, "version", e->version,
	                 "steps", (json_int_t)e->n_steps, "gate", cmd_learn_gate_json(&e->gate));
}

static void event_row(cli_table *table, const ruv_learner_event *e)
{
	const time_t seconds = (time_t)(e->time_ms / 1000);
	const bool gated = e->gate.n > 0;
	char when[32];
	struct tm tm;
	strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &tm));
	cli_table_cell(table, "%s", when);
	cli_table_cell(table, "%s", e->what);
	cli_table_cell(table, "%d", e->version);
	cli_table_cell(table, "%lld", (long long)e->n_steps);
	if (gated) {
		cli_table_cell(table, "%+.3f", e->gate.gain);
		cli_table_cell(table, "[%+.3f, %+.3f]", e->gate.gain_low, e->gate.gain_high);
		cli_table_cell(table, "x %.4f", e->gate.perplexity_ratio);
	}
	for (int k = 0; !gated && k < 3; k++)
		cli_table_cell(table, "%s", "");
	cli_table_cell(table, "%s", e->gate.why);
}

static int print_history(ruv_learner *l, void *user, ruv_error *err)
{
	enum { MOST = 100 };
	static ruv_learner_event events[MOST];
	(void)user;
	const int n = ruv_learner_history(l, events, MOST, err);
	if (n < 0)
		return n;
	if (cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < n; i++)
			json_array_append_new(list, event_json(&events[i]));
		cli_json_print(list);
		return RUV_OK;
	}
	cli_table *table = cli_table_create("time|what|>version|>steps|>gain|interval|>perplexity|why");
	for (int i = 0; i < n; i++)
		event_row(table, &events[i]);
	cli_table_print(table, stdout);
	return RUV_OK;
}

static int part_history(int argc, char **argv)
{
	PART("history", "", "Lists versions, refusals of the gate, rollbacks and refinements of the router, newest first.", 0, 0);
	return with_learner(true, print_history, NULL);
}

/* ---- changing ---- */

static int teach(ruv_learner *l, void *user, ruv_error *err)
{
	char **pair = user;
	int rc = ruv_learner_teach(l, "taught", pair[0], pair[1], err);
	return rc ? rc : ruv_learner_work(l, err);
}

static int part_teach(int argc, char **argv)
{
	PART("teach", " QUESTION ANSWER",
	     "Teaches one answer: a lesson, and one step of the candidate. `learn train` and `learn gate --publish` bring it to "
	     "life.",
	     2, 2);
	return with_learner(false, teach, args.items);
}

static int train(ruv_learner *l, void *user, ruv_error *err)
{
	return ruv_learner_train(l, *(const int *)user, err);
}

static int part_train(int argc, char **argv)
{
	static int epochs = 30;
	static const cli_option options[] = {{"epochs", 'e', CLI_INT, &epochs, "N", "passes over all lessons (default 30)"}, {0}};
	static const cli_spec spec = {
	    .name = "learn train",
	    .usage = "[OPTIONS]",
	    .summary = "Replays all lessons, simple ones first. What is live stays as it is; `learn gate` decides.",
	    .options = options,
	    .notes = common_notes,
	    CLI_CONFIG_OPTIONS};
	cli_args args;
	int code;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	return with_learner(false, train, &epochs);
}

struct gate_run {
	bool control, publish;
	ruv_gate_result result;
	int live;
};

static int gate(ruv_learner *l, void *user, ruv_error *err)
{
	struct gate_run *run = user;
	int rc = ruv_learner_gate(l, run->control, run->publish, &run->result, err);
	run->live = ruv_learner_live_version(l);
	return rc;
}

static int part_gate(int argc, char **argv)
{
	static bool publish, control = true;
	static const cli_option options[] = {
	    {"publish", 'p', CLI_FLAG, &publish, NULL, "make the candidate live when it passes"},
	    {"control", 0, CLI_FLAG, &control, NULL, "train on shuffled answers too, which must not gain (default yes)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "learn gate",
	    .usage = "[OPTIONS]",
	    .summary =
		"Measures the candidate against what is live on lessons that were held out: it passes when the 95 % interval of "
		"its gain "
		"lies above zero, base perplexity rises by at most 1 %, earlier tasks drop by at most 0.5 points, and training on "
		"shuffled answers shows no gain. Ends with 1 when it does not pass.",
	    .options = options,
	    .notes = common_notes,
	    CLI_CONFIG_OPTIONS};
	cli_args args;
	int code;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	struct gate_run run = {.control = control, .publish = publish};
	code = with_learner(false, gate, &run);
	if (code != CLI_EXIT_OK)
		return code;
	if (cli.json)
		cli_json_print(cmd_learn_gate_json(&run.result));
	else
		cmd_learn_print_gate(&run.result);
	if (run.result.pass && publish)
		cli_note("version %d is live", run.live);
	return run.result.pass ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

static bool parse_version(const char *text, int *version)
{
	char *end;
	const long given = strtol(text, &end, 10);
	*version = (int)given;
	return end != text && !*end && given >= 0 && given <= INT32_MAX;
}

static int rollback(ruv_learner *l, void *user, ruv_error *err)
{
	return ruv_learner_rollback(l, *(const int *)user, err);
}

static int part_rollback(int argc, char **argv)
{
	PART("rollback", " VERSION", "Makes an earlier version live again, exactly as it was. 0: none, the bare model.", 1, 1);
	int version;
	if (!parse_version(args.items[0], &version))
		return cli_usage("'%s' is no version; `ruvllm learn history` lists them", args.items[0]);
	return with_learner(false, rollback, &version);
}

struct merge {
	int versions[16], n;
	double kept;
};

static int merge(ruv_learner *l, void *user, ruv_error *err)
{
	struct merge *what = user;
	int rc = ruv_learner_merge(l, what->versions, NULL, what->n, &what->kept, err);
	if (rc == RUV_OK && cli.json)
		cli_json_print(json_pack("{s:i, s:f}", "versions", what->n, "kept", what->kept));
	else if (rc == RUV_OK)
		printf("the candidate is the sum of %d versions; the rank keeps %.1f %% of it\n", what->n, 100 * what->kept);
	return rc;
}

static int part_merge(int argc, char **argv)
{
	PART("merge", " VERSION VERSION ...",
	     "Merges the adapters of several domains: the candidate becomes the sum of their changes. `learn gate --publish` "
	     "brings it "
	     "to life.",
	     2, 16);
	struct merge what = {.n = args.n};
	for (int i = 0; i < args.n; i++)
		if (!parse_version(args.items[i], &what.versions[i]))
			return cli_usage("'%s' is no version; `ruvllm learn history` lists them", args.items[i]);
	return with_learner(false, merge, &what);
}

struct exported {
	int version;
	const char *path;
};

static int export(ruv_learner *l, void *user, ruv_error *err)
{
	const struct exported *what = user;
	return ruv_learner_export(l, what->version, what->path, err);
}

static int part_export(int argc, char **argv)
{
	static int version;
	static const cli_option options[] = {{"number", 'n', CLI_INT, &version, "N", "the version (default: the live one)"}, {0}};
	static const cli_spec spec = {.name = "learn export",
	                              .usage = "[OPTIONS] FILE.gguf",
	                              .summary = "Copies a version's adapter: a GGUF LoRA file like any other.",
	                              .options = options,
	                              .notes = common_notes,
	                              .min_args = 1,
	                              .max_args = 1,
	                              CLI_CONFIG_OPTIONS};
	cli_args args;
	int code;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	struct exported what = {version, args.items[0]};
	return with_learner(true, export, &what);
}

static int pause_learning(ruv_learner *l, void *user, ruv_error *err)
{
	return ruv_learner_pause(l, *(const bool *)user, err);
}

static int part_pause(int argc, char **argv)
{
	PART("pause", "", "Stops learning until `ruvllm learn resume`: nothing is observed, nothing trained.", 0, 0);
	bool paused = true;
	return with_learner(false, pause_learning, &paused);
}

static int part_resume(int argc, char **argv)
{
	PART("resume", "", "Goes on learning after `ruvllm learn pause`.", 0, 0);
	bool paused = false;
	return with_learner(false, pause_learning, &paused);
}

static int consolidate(ruv_learner *l, void *user, ruv_error *err)
{
	ruv_bank_report r;
	(void)user;
	int rc = ruv_learner_consolidate(l, &r, err);
	if (rc)
		return rc;
	if (cli.json)
		cli_json_print(json_pack("{s:i, s:i, s:i, s:i, s:i, s:f}", "trajectories", r.n_trajectories, "clusters",
		                         r.n_clusters, "merged", r.n_merged, "pruned", r.n_pruned, "strategies", r.n_strategies,
		                         "ms", r.ms));
	else
		printf("%d trajectories in %d clusters (%d merged, %d pruned): %d strategies, %.1f ms\n", r.n_trajectories,
		       r.n_clusters, r.n_merged, r.n_pruned, r.n_strategies, r.ms);
	return RUV_OK;
}

static int part_consolidate(int argc, char **argv)
{
	PART("consolidate", "",
	     "The deep loop: clusters what the reasoning bank holds and distils strategies from successes and failures.", 0, 0);
	return with_learner(false, consolidate, NULL);
}

static const cli_part parts[] = {
    {"status", part_status, "what was learned and what is live"},
    {"history", part_history, "versions, refusals, rollbacks"},
    {"teach", part_teach, "teach one answer"},
    {"train", part_train, "replay all lessons"},
    {"gate", part_gate, "measure the candidate; with --publish make it live when it passes"},
    {"rollback", part_rollback, "make an earlier version live again"},
    {"merge", part_merge, "merge the adapters of several domains into the candidate"},
    {"export", part_export, "copy a version's GGUF adapter"},
    {"pause", part_pause, "stop learning"},
    {"resume", part_resume, "go on learning"},
    {"consolidate", part_consolidate, "distil strategies from recorded trajectories"},
    {"forget-bench", cmd_learn_forget,
     "10,000 updates on a stream whose tasks change: what is forgotten, with and without protection"},
    {"user-bench", cmd_learn_user, "a user teaches 200 facts: answers from memory, from the adapter, from both"},
    {"latency-bench", cmd_learn_latency, "what training costs answers that are given meanwhile"},
    {"judge-bench", cmd_learn_judge, "how well the checks tell right answers from wrong ones"},
    {0},
};

int cmd_learn(int argc, char **argv)
{
	return cli_run_part(&(cli_parts){.name = "learn",
	                                 .kind = "part",
	                                 .summary = "Learning from use: adapters, their gate, the reasoning bank.",
	                                 .parts = parts},
	                    argc, argv);
}

/* cmd_memory_attention.c - ruvllm memory graph weave, train, learn, rollback, status: the edges that texts imply, and the
 * parameters of graph attention over them. `ruvllm eval retrieval --graph` says what they are worth. */
#include "cmd_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "cmd_eval.h"
#include "runtime/eval_graph.h"
#include "runtime/graph.h"
#include "runtime/runtime.h"

/* ---- weave -------------------------------------------------------------------------------------------------------------- */

static bool weave_progress(void *user, int64_t done, int64_t all)
{
	return cmd_eval_progress(user, (int)done, (int)all);
}

static int graph_weave(int argc, char **argv)
{
	static bool dry;
	static double same_topic;
	static const cli_option options[] = {
	    {"dry-run", 0, CLI_FLAG, &dry, NULL, "count the edges only"},
	    {"same-topic", 0, CLI_DOUBLE, &same_topic, "COSINE",
	     "entries at least this alike get a SameTopic edge (default 0.6; 2: none do)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory graph weave",
	    .usage = "[OPTIONS]",
	    .summary = "Draws the edges that entries imply and that are not there yet: Follows (the passage before in its source), "
		       "Contains "
		       "(a heading's passages), Cites (the text names another entry's title), SameTopic (alike in meaning).",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	cli_progress progress = {0};
	ruv_weave_options weave = {.progress = weave_progress, .user = &progress};
	ruv_weave_report report;
	const int64_t started = ruv_clock_now_ns();
	memory_action a;
	cli_args args;
	ruv_error err = {0};
	json_t *edges;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	weave.dry = dry;
	weave.same_topic = (float)same_topic;
	cli_interrupt_catch();
	if (!memory_open(&a, false))
		return a.code;
	rc = ruv_memory_weave(a.memory, &report, &weave, &err);
	cli_progress_end(&progress, false);
	memory_close(&a);
	if (rc)
		return cli_runtime_fail(&err);
	if (!cli.json) {
		printf("%lld entries, %lld edges were there", (long long)report.n_nodes, (long long)report.n_there);
		for (int t = 0; t < RUV_N_EDGE_TYPES; t++)
			if (report.n_added[t])
				printf(", %lld %s %s", (long long)report.n_added[t], ruv_edge_type_name(t),
				       dry ? "to draw" : "drawn");
		return printf(", %.1f s\n", (double)(ruv_clock_now_ns() - started) * 1e-9) < 0;
	}
	edges = json_object();
	for (int t = 0; t < RUV_N_EDGE_TYPES; t++)
		json_object_set_new(edges, ruv_edge_type_name(t), json_integer(report.n_added[t]));
	return cli_json_print(json_pack("{s:I, s:I, s:o}", "entries", (json_int_t)report.n_nodes, "there",
	                                (json_int_t)report.n_there, "added", edges));
}

/* ---- train -------------------------------------------------------------------------------------------------------------- */

static bool train_progress(void *user, int epoch, int n_epochs, double loss, double validation)
{
	const char *what = user;

	if (cli.verbose)
		fprintf(stderr, "%s, epoch %d of %d: loss %.4f, validation nDCG@10 %.4f\n", what, epoch, n_epochs, loss,
		        validation);
	return !cli_interrupted;
}

/* The files of one set, read into one memory. */
static int read_samples(ruv_eval_graph_samples *out, ruv_embedder *embedder, const char *const *files, int n, int limit,
                        const char *cache, int number, ruv_error *err)
{
	cli_progress progress = {0};
	ruv_eval_graph_params params = {
	    .limit = limit, .seed = 1, .cancel = &cli_cancel, .progress = cmd_eval_progress, .user = &progress};
	ruv_eval_set set = {0};
	char dir[512];
	int rc = RUV_OK;

	for (int i = 0; !rc && i < n; i++)
		rc = ruv_eval_set_read(&set, files[i], err);
	if (!rc && cache) {
		if (snprintf(dir, sizeof dir, "%s-%d", cache, number) >= (int)sizeof dir)
			rc = ruv_fail(err, RUV_ELIMIT, "graph", "the name of '%s' is too long", cache);
		params.dir = dir;
	}
	if (!rc)
		rc = ruv_eval_graph_read(out, embedder, &set, &params, err);
	cli_progress_end(&progress, false);
	ruv_eval_set_release(&set);
	return rc;
}

enum { MAX_TRAIN = 16, N_ROWS = 3 };

typedef struct training_run {
	ruv_eval_graph_samples sets[MAX_TRAIN + 2];
	int n_sets;
	ruv_eval_graph_samples train, validation; /* borrowed from the sets */
	ruv_eval_graph_samples *test, *check;     /* NULL: not given */
	ruv_graph_training settings;
	ruv_graph_weights weights;
	float *shuffled;
	int dim, repeat;
} training_run;

static void release_run(training_run *t)
{
	for (int i = 0; i < t->n_sets; i++)
		ruv_eval_graph_release(&t->sets[i]);
	free(t->train.items);
	free(t->validation.items);
	free(t->shuffled);
	ruv_graph_weights_release(&t->weights);
}

/* Every fifth question is kept to choose the epoch and the seed. */
static int split(training_run *t, int n_train_sets, ruv_error *err)
{
	size_t n = 1;

	for (int i = 0; i < n_train_sets; i++)
		n += (size_t)t->sets[i].n;
	t->train.items = calloc(n, sizeof *t->train.items);
	t->validation.items = calloc(n, sizeof *t->validation.items);
	if (!t->train.items || !t->validation.items)
		return ruv_fail_memory(err, "graph", n * sizeof *t->train.items);
	for (int i = 0; i < n_train_sets; i++)
		for (int j = 0; j < t->sets[i].n; j++) {
			ruv_eval_graph_samples *part = j % 5 == 4 ? &t->validation : &t->train;
			part->items[part->n++] = t->sets[i].items[j];
		}
	return RUV_OK;
}

static int mean_of(double *mean, const ruv_eval_graph_samples *samples, const ruv_gat_model *model, ruv_error *err)
{
	double *values = malloc(sizeof *values * ((size_t)samples->n + 1));
	int rc =
	    values ? ruv_eval_graph_values(values, samples, model, err) : ruv_fail_memory(err, "graph", (size_t)samples->n * 8);

	*mean = 0;
	for (int i = 0; !rc && i < samples->n; i++)
		*mean += values[i] / samples->n;
	free(values);
	return rc;
}

static int fit(training_run *t, ruv_error *err)
{
	double best = -1, value;
	ruv_gat_shape shape;
	float *params;
	int rc = RUV_OK;

	t->settings.progress = train_progress;
	t->settings.user = "training";
	for (int r = 0; !rc && r < t->repeat; r++) {
		rc = ruv_graph_train(&params, &shape, t->dim, t->train.items, t->train.n, t->validation.items, t->validation.n,
		                     &t->settings, err);
		if (!rc)
			rc = mean_of(&value, &t->validation, &(ruv_gat_model){shape, params}, err);
		if (!rc && value > best) {
			best = value;
			free(t->weights.params);
			t->weights.params = params;
			t->weights.model = (ruv_gat_model){shape, params};
		} else if (!rc)
			free(params);
		t->settings.seed++;
	}
	t->settings.shuffled = true;
	t->settings.user = "control";
	if (!rc)
		rc = ruv_graph_train(&t->shuffled, &shape, t->dim, t->train.items, t->train.n, NULL, 0, &t->settings, err);
	return rc;
}

/* The gate over the test set, with the ordinary one as what must not get worse. */
static int decide(training_run *t, ruv_gate_result *result, ruv_error *err)
{
	const ruv_eval_graph_samples *test = t->test ? t->test : &t->validation, none = {0}, *check = t->check ? t->check : &none;
	const size_t n = (size_t)test->n, m = (size_t)check->n;
	double *values = malloc(sizeof *values * (3 * n + 2 * m + 1)), sums[2] = {0};
	const ruv_gat_model shuffled = {t->weights.model.shape, t->shuffled};
	const ruv_gate_input input = {.before = values,
	                              .after = values + n,
	                              .shuffled_after = values + 2 * n,
	                              .n = test->n,
	                              .old_before = values + 3 * n,
	                              .old_after = values + 3 * n + m,
	                              .n_old = check->n,
	                              .seed = 1};
	int rc = values ? RUV_OK : ruv_fail_memory(err, "graph", n * sizeof *values);

	if (!rc)
		rc = ruv_eval_graph_values(values, test, NULL, err);
	if (!rc)
		rc = ruv_eval_graph_values(values + n, test, &t->weights.model, err);
	if (!rc)
		rc = ruv_eval_graph_values(values + 2 * n, test, &shuffled, err);
	if (!rc)
		rc = ruv_eval_graph_values(values + 3 * n, check, NULL, err);
	if (!rc)
		rc = ruv_eval_graph_values(values + 3 * n + m, check, &t->weights.model, err);
	if (!rc)
		rc = ruv_gate_decide(result, &input, err);
	for (size_t i = 0; !rc && i < 2 * n; i++)
		sums[i / n] += values[i] / (double)n;
	if (!rc)
		t->weights.gate = (ruv_graph_gate){.n = test->n,
		                                   .before = (float)sums[0],
		                                   .after = (float)sums[1],
		                                   .low = (float)result->gain_low,
		                                   .high = (float)result->gain_high,
		                                   .shuffled_low = (float)result->shuffled_low,
		                                   .shuffled_high = (float)result->shuffled_high,
		                                   .old_drop = (float)result->old_drop,
		                                   .pass = result->pass};
	free(values);
	return rc;
}

static int print_run(training_run *t, const ruv_gate_result *gate, ruv_error *err)
{
	const struct {
		const char *name;
		const ruv_eval_graph_samples *samples;
	} rows[N_ROWS] = {{"validation", &t->validation}, {"test", t->test}, {"check", t->check}};
	int rc = RUV_OK;

	for (int i = 0; !rc && i < N_ROWS; i++) {
		ruv_eval_graph_result r;
		if (!rows[i].samples)
			continue;
		rc = ruv_eval_graph(&r, rows[i].samples, &t->weights.model, 1, err);
		if (rc)
			break;
		printf("%s:\n", rows[i].name);
		cmd_eval_print_graph(&r);
	}
	if (!rc)
		printf("gate: %s%s%s; nDCG@10 %+.3f [%+.3f, %+.3f], with shuffled evidence %+.3f [%+.3f, %+.3f], check set %+.1f "
		       "points\n",
		       gate->pass ? "passed" : "refused", *gate->why ? ", " : "", gate->why, gate->gain, gate->gain_low,
		       gate->gain_high, gate->shuffled_gain, gate->shuffled_low, gate->shuffled_high, -gate->old_drop);
	return rc;
}

static int graph_train(int argc, char **argv)
{
	static cli_strings test, check;
	static int limit, check_limit = 300, repeat = 1, epochs, hidden, layers, projected;
	static int64_t seed = 1;
	static double rate, decay;
	static const char *to, *cache;
	static const cli_option options[] = {
	    {"output", 'o', CLI_STRING, &to, "FILE", "where the parameters go (default: nowhere)"},
	    {"test", 0, CLI_LIST, &test, "FILE", "questions that measure; several files make one set"},
	    {"check", 0, CLI_LIST, &check, "FILE", "ordinary questions that must not get worse; several files make one set"},
	    {"check-limit", 0, CLI_INT, &check_limit, "N", "of the ordinary questions (default 300; 0: all)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "questions of each training file (default: all)"},
	    {"epochs", 0, CLI_INT, &epochs, "N", "passes over the questions (default 24)"},
	    {"hidden", 0, CLI_INT, &hidden, "N", "hidden size (default 32)"},
	    {"layers", 0, CLI_INT, &layers, "N", "layers (default 2)"},
	    {"projected", 0, CLI_INT, &projected, "N", "numbers that vectors are projected to (default 16)"},
	    {"rate", 0, CLI_DOUBLE, &rate, "NUMBER", "learning rate (default 0.002)"},
	    {"decay", 0, CLI_DOUBLE, &decay, "NUMBER", "weight decay (default 0.01)"},
	    {"repeat", 0, CLI_INT, &repeat, "N", "train with N seeds and keep the best on validation (default 1)"},
	    {"train-seed", 0, CLI_INT64, &seed, "N", "the first seed (default 1)"},
	    {"cache", 0, CLI_STRING, &cache, "DIR", "keep the sets' memories in DIR-0, DIR-1, ... for another run"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory graph train",
	    .usage = "[OPTIONS] FILE...",
	    .summary = "Trains graph attention on questions whose evidence is known, and measures it on others. Every file is a "
		       "memory of its "
		       "own with edges as `weave` draws them; every fifth question chooses the epoch.",
	    .options = options,
	    .examples = "ruvllm memory graph train train.jsonl --test bench/data/hotpot_multi.jsonl.zst -o graph.bin",
	    .min_args = 1,
	    .max_args = MAX_TRAIN,
	    CLI_CONFIG_OPTIONS,
	};
	training_run t = {0};
	ruv_runtime *runtime;
	ruv_embedder *embedder;
	ruv_model *encoder;
	ruv_model_info info;
	ruv_gate_result gate;
	ruv_error err = {0};
	cli_args args;
	int code = 0, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	cli_interrupt_catch();
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	t.repeat = repeat > 0 ? repeat : 1;
	t.settings = (ruv_graph_training){.projected = projected,
	                                  .hidden = hidden,
	                                  .layers = layers,
	                                  .n_epochs = epochs,
	                                  .rate = (float)rate,
	                                  .decay = (float)decay,
	                                  .seed = (uint64_t)seed};
	rc = ruv_runtime_embedder(runtime, &embedder, &err);
	if (!rc)
		rc = ruv_runtime_model(runtime, "encoder", &encoder, &err);
	for (int i = 0; !rc && i < args.n; i++, t.n_sets++)
		rc = read_samples(&t.sets[i], embedder, (const char *const *)&args.items[i], 1, limit, cache, i, &err);
	if (!rc && test.n) {
		t.test = &t.sets[t.n_sets];
		rc = read_samples(t.test, embedder, test.items, test.n, 0, cache, t.n_sets++, &err);
	}
	if (!rc && check.n) {
		t.check = &t.sets[t.n_sets];
		rc = read_samples(t.check, embedder, check.items, check.n, check_limit, cache, t.n_sets++, &err);
	}
	if (!rc) {
		t.dim = ruv_embedder_dim(embedder);
		rc = split(&t, args.n, &err);
	}
	if (!rc)
		rc = fit(&t, &err);
	if (!rc)
		rc = decide(&t, &gate, &err);
	if (!rc)
		rc = print_run(&t, &gate, &err);
	if (!rc && to) {
		ruv_model_get_info(encoder, &info);
		snprintf(t.weights.encoder, sizeof t.weights.encoder, "%s", info.name);
		snprintf(t.weights.encoder_version, sizeof t.weights.encoder_version, "%s", runtime->encoder_version);
		rc = ruv_graph_weights_save(&t.weights, to, &err);
	}
	release_run(&t);
	ruv_runtime_free(runtime);
	return rc ? cli_fail(&err, NULL) : 0;
}

/* ---- learn, rollback, status -------------------------------------------------------------------------------------------- */

static int graph_learn(int argc, char **argv)
{
	static int epochs;
	static bool force;
	static const cli_option options[] = {
	    {"epochs", 0, CLI_INT, &epochs, "N", "passes over the answers (default 8)"},
	    {"force", 0, CLI_FLAG, &force, NULL, "make the new parameters live whatever the gate says"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory graph learn",
	    .usage = "[OPTIONS]",
	    .summary = "Trains graph attention further on this memory's own kept answers and the passages that they cite. What "
		       "comes out is "
		       "used only when it finds more on the fifth that was held out.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_graph_learning learning = {.seed = 1, .cancel = &cli_cancel};
	ruv_graph_learned learned;
	ruv_runtime *runtime;
	cli_args args;
	ruv_error err = {0};
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	learning.n_epochs = epochs;
	learning.force = force;
	cli_interrupt_catch();
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	rc = ruv_runtime_graph_learn(runtime, &learning, &learned, &err);
	ruv_runtime_free(runtime);
	if (rc)
		return cli_runtime_fail(&err);
	if (cli.json)
		return cli_json_print(json_pack("{s:i, s:i, s:i, s:b, s:s, s:f, s:f, s:f, s:f, s:i}", "answers", learned.n_answers,
		                                "questions", learned.n_questions, "held_out", learned.n_held_out, "passed",
		                                learned.gate.pass, "why", learned.gate.why, "before", learned.before, "after",
		                                learned.after, "gain_low", learned.gate.gain_low, "gain_high",
		                                learned.gate.gain_high, "version", learned.version));
	printf("%d kept answers, %d usable, %d held out: nDCG@10 %.3f, was %.3f; gain %+.3f [%+.3f, %+.3f], with shuffled evidence "
	       "%+.3f "
	       "[%+.3f, %+.3f]\n",
	       learned.n_answers, learned.n_questions, learned.n_held_out, learned.after, learned.before, learned.gate.gain,
	       learned.gate.gain_low, learned.gate.gain_high, learned.gate.shuffled_gain, learned.gate.shuffled_low,
	       learned.gate.shuffled_high);
	if (learned.version)
		printf("version %d is live; `ruvllm memory graph rollback` takes it back\n", learned.version);
	else
		printf("refused by the gate (%s); nothing was changed\n", learned.gate.why);
	return 0;
}

static int graph_rollback(int argc, char **argv)
{
	static int version;
	static const cli_option options[] = {
	    {"version", 0, CLI_INT, &version, "N", "the version to make live again (default 0: the bundled parameters)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory graph rollback",
	    .usage = "[OPTIONS]",
	    .summary = "Makes earlier parameters of graph attention live again.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_runtime *runtime;
	cli_args args;
	ruv_error err = {0};
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	rc = ruv_runtime_graph_rollback(runtime, version, &err);
	ruv_runtime_free(runtime);
	if (rc)
		return cli_runtime_fail(&err);
	if (cli.json)
		return cli_json_print(json_pack("{s:i}", "version", version));
	return printf(version ? "version %d is live\n" : "the bundled parameters are live\n", version) < 0;
}

static int graph_status(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "memory graph status",
	    .usage = "",
	    .summary = "Says which parameters of graph attention there are, what they were measured to be worth, and whether "
		       "searches use them.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	const ruv_runtime_graph *g;
	ruv_runtime *runtime;
	cli_args args;
	ruv_error err = {0};
	char path[4200];
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	rc = ruv_runtime_graph_state(runtime, &g, &err);
	if (rc)
		code = cli_runtime_fail(&err);
	else if (!g)
		code = cli.json ? cli_json_print(json_pack("{s:b}", "used", false))
		                : printf("there are no parameters; searches do without\n") < 0;
	else if (cli.json)
		code = cli_json_print(json_pack(
		    "{s:o, s:b, s:b, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "file", cli_json_text(g->path), "own",
		    g->own, "used", g->used, "why", g->why, "version", g->weights.version, "parameters",
		    ruv_gat_n_params(&g->weights.model.shape), "questions", g->weights.gate.n, "before",
		    (double)g->weights.gate.before, "after", (double)g->weights.gate.after, "gain_low", (double)g->weights.gate.low,
		    "gain_high", (double)g->weights.gate.high, "shuffled_low", (double)g->weights.gate.shuffled_low,
		    "shuffled_high", (double)g->weights.gate.shuffled_high, "check_drop", (double)g->weights.gate.old_drop));
	else {
		const ruv_graph_gate *m = &g->weights.gate;
		printf("%s: %d parameters, trained %s\n", cli_short_path(g->path, path, sizeof path),
		       ruv_gat_n_params(&g->weights.model.shape), g->own ? "on this memory" : "for everybody");
		printf(
		    "measured on %d questions: nDCG@10 %.3f, without %.3f, gain [%+.3f, %+.3f], shuffled control [%+.3f, %+.3f]\n",
		    m->n, (double)m->after, (double)m->before, (double)m->low, (double)m->high, (double)m->shuffled_low,
		    (double)m->shuffled_high);
		printf("%s: %s\n", g->used ? "used" : "not used", g->why);
	}
	ruv_runtime_free(runtime);
	return code;
}

const cli_part memory_graph_parts[] = {
    {"weave", graph_weave, "draw the edges that entries imply"},
    {"status", graph_status, "which parameters there are, and whether searches use them"},
    {"learn", graph_learn, "train them on this memory's kept answers"},
    {"rollback", graph_rollback, "make earlier ones live again"},
    {"train", graph_train, "train them on questions with known evidence"},
    {0},
};

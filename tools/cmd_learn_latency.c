/* cmd_learn_latency.c - `ruvllm learn latency-bench`: how long answers take while a learner trains beside them, in turns with none:
 * its thread at the lowest priority, and the same when steps also stand aside while somebody is served, as the runtime has them do.
 *
 * Turns alternate many times, so that whatever else the machine does meets all three alike. The interval of a ratio is a bootstrap
 * over whole turns. */
#include "cmd_learn.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"

enum { OFF, TRAINING, ASIDE, N_MODES, MOST_TURNS = 200, MOST_ASKED = 200, RESAMPLES = 2000 };

static const char *const mode_names[] = {"no training", "training", "training that stands aside"};

struct latency {
	cmd_learn_scratch scratch;
	cmd_learn_set set;
	int n_turns, n_asked, pause_ms, max_tokens;
	atomic_int asking;
	double ms[N_MODES][MOST_TURNS][MOST_ASKED];
	int64_t n_steps[N_MODES];
	double seconds[N_MODES];
};

static bool is_asking(void *user)
{
	return atomic_load(&((struct latency *)user)->asking) > 0;
}

/* Answers with pauses between them, their times into ms [n_asked]. */
static int ask_all(struct latency *b, ruv_session *session, double *ms, ruv_error *err)
{
	const struct timespec pause = {.tv_sec = b->pause_ms / 1000, .tv_nsec = b->pause_ms % 1000 * 1000000L};
	const ruv_sampling greedy = {0};
	int rc = RUV_OK;
	for (int i = 0; i < b->n_asked && rc == RUV_OK; i++) {
		ruv_answer answer = {0};
		const ruv_ask_params params = {.question = b->set.test[i % b->set.n_test].question,
		                               .session = session,
		                               .no_memory = true,
		                               .sampling = &greedy,
		                               .max_tokens = b->max_tokens,
		                               .cancel = &cli_cancel};
		nanosleep(&pause, NULL);
		const int64_t started = ruv_clock_now_ns();
		atomic_fetch_add(&b->asking, 1);
		rc = ruv_ask(b->scratch.runtime, &params, &answer, err);
		atomic_fetch_sub(&b->asking, 1);
		ms[i] = (double)(ruv_clock_now_ns() - started) * 1e-6;
		ruv_answer_release(&answer);
	}
	return rc;
}

/* One turn of a mode; with training the learner's queue never runs dry. */
static int turn(struct latency *b, int mode, int number, ruv_session *session, ruv_error *err)
{
	const ruv_learner_options options = {.dir = b->scratch.dir,
	                                     .model_path = b->scratch.model,
	                                     .background_every = 64,
	                                     .queue_capacity = 2 * CMD_LEARN_MOST,
	                                     .callbacks = {.busy = mode == ASIDE ? is_asking : NULL, .user = b}};
	ruv_learner *learner = NULL;
	ruv_learner_status before = {0}, after = {0};
	int rc = RUV_OK;
	if (mode != OFF) {
		rc = ruv_learner_open(&learner, &options, err);
		if (rc == RUV_OK)
			rc = ruv_learner_get_status(learner, &before, err);
		for (int i = 0; i < b->set.n_teach && rc == RUV_OK; i++)
			rc = ruv_learner_teach(learner, "facts", b->set.teach[i].question, b->set.teach[i].answer, err);
	}
	const int64_t started = ruv_clock_now_ns();
	if (rc == RUV_OK)
		rc = ask_all(b, session, b->ms[mode][number], err);
	b->seconds[mode] += (double)(ruv_clock_now_ns() - started) * 1e-9;
	if (rc == RUV_OK && learner)
		rc = ruv_learner_get_status(learner, &after, err);
	b->n_steps[mode] += after.n_steps - before.n_steps + (after.n_replayed - before.n_replayed) / 4;
	ruv_learner_free(learner);
	return rc;
}

static int ascending(const void *x, const void *y)
{
	const double a = *(const double *)x, b = *(const double *)y;
	return (a > b) - (a < b);
}

/* A quantile over the turns turns[0..n). */
static double quantile(const struct latency *b, int mode, const int *turns, double q)
{
	const int n = b->n_turns * b->n_asked;
	double *all = malloc((size_t)n * sizeof *all), value;
	if (!all)
		return NAN;
	for (int i = 0; i < b->n_turns; i++)
		memcpy(all + (ptrdiff_t)i * b->n_asked, b->ms[mode][turns[i]], (size_t)b->n_asked * sizeof *all);
	qsort(all, (size_t)n, sizeof *all, ascending);
	value = all[(int)(q * (n - 1) + 0.5)];
	free(all);
	return value;
}

/* mode's quantile over that without training, and its 95 % interval. */
static void ratio_of(const struct latency *b, int mode, double q, double *ratio, double *low, double *high)
{
	double *ratios = malloc(RESAMPLES * sizeof *ratios);
	int turns[MOST_TURNS];
	ruv_rng rng;
	ruv_rng_init(&rng, 5);
	for (int i = 0; i < b->n_turns; i++)
		turns[i] = i;
	*ratio = quantile(b, mode, turns, q) / quantile(b, OFF, turns, q);
	for (int r = 0; r < RESAMPLES && ratios; r++) {
		for (int i = 0; i < b->n_turns; i++)
			turns[i] = (int)ruv_rng_below(&rng, (uint64_t)b->n_turns);
		ratios[r] = quantile(b, mode, turns, q) / quantile(b, OFF, turns, q);
	}
	if (ratios)
		qsort(ratios, RESAMPLES, sizeof *ratios, ascending);
	*low = ratios ? ratios[RESAMPLES / 40] : NAN;
	*high = ratios ? ratios[RESAMPLES - 1 - RESAMPLES / 40] : NAN;
	free(ratios);
}

static int measure(struct latency *b, ruv_error *err)
{
	ruv_session *session = NULL;
	cli_progress progress = {0};
	double warm[MOST_ASKED];
	int rc = ruv_runtime_session(b->scratch.runtime, NULL, &session, err);
	if (rc == RUV_OK)
		rc = ask_all(b, session, warm, err);
	cli_progress_begin(&progress, "latency", "turns", (uint64_t)(N_MODES * b->n_turns));
	for (int t = 0; t < b->n_turns && rc == RUV_OK; t++)
		for (int k = 0; k < N_MODES && rc == RUV_OK; k++) {
			rc = turn(b, (k + t) % N_MODES, t, session, err);
			if (rc == RUV_OK && cli_interrupted)
				rc = ruv_fail(err, RUV_ECANCELLED, "learn", "stopped");
			cli_progress_update(&progress, (uint64_t)(N_MODES * t + k + 1), NULL);
		}
	cli_progress_end(&progress, false);
	ruv_session_free(session);
	return rc;
}

static void report(const struct latency *b)
{
	int turns[MOST_TURNS];
	json_t *list = json_array();
	cli_table *table = cli.json ? NULL : cli_table_create("meanwhile|>p50, ms|>p99, ms|>p99, ratio|95 %|>steps/s");
	for (int i = 0; i < b->n_turns; i++)
		turns[i] = i;
	for (int mode = 0; mode < N_MODES; mode++) {
		const double p50 = quantile(b, mode, turns, 0.5), p99 = quantile(b, mode, turns, 0.99),
			     rate = (double)b->n_steps[mode] / b->seconds[mode];
		double ratio, low, high;
		ratio_of(b, mode, 0.99, &ratio, &low, &high);
		json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f, s:[f, f], s:f}", "meanwhile", mode_names[mode],
		                                      "p50_ms", p50, "p99_ms", p99, "p99_ratio", ratio, "interval", low, high,
		                                      "steps_per_second", rate));
		if (!table)
			continue;
		cli_table_cell(table, "%s", mode_names[mode]);
		cli_table_cell(table, "%.1f", p50);
		cli_table_cell(table, "%.1f", p99);
		cli_table_cell(table, "%.3f", ratio);
		cli_table_cell(table, "[%.3f, %.3f]", low, high);
		cli_table_cell(table, "%.1f", rate);
	}
	if (table)
		cli_table_print(table, stdout);
	else
		cli_json_print(json_pack("{s:i, s:i, s:O}", "turns", b->n_turns, "answers_a_turn", b->n_asked, "modes", list));
	json_decref(list);
}

int cmd_learn_latency(int argc, char **argv)
{
	static int turns = 20, asked = 25, pause_ms = 20, tokens = 16;
	static const cli_option options[] = {
	    {"turns", 0, CLI_INT, &turns, "N", "of each kind, alternating, up to 200 (default 20)"},
	    {"answers", 'n', CLI_INT, &asked, "N", "in a turn, up to 200 (default 25)"},
	    {"gap", 0, CLI_INT, &pause_ms, "MS", "between an answer and the next question (default 20)"},
	    {"max-tokens", 0, CLI_INT, &tokens, "N", "of an answer (default 16)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "learn latency-bench",
	    .usage = "[OPTIONS] [FACTS]",
	    .summary =
		"Answers questions while a learner trains at the lowest priority, in turns with none: p50 and p99 of each. FACTS "
		"(default bench/data/user_facts.jsonl) is what it trains on. Works in a temporary directory.",
	    .options = options,
	    .examples = "ruvllm learn latency-bench --model s",
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS};
	cli_args args;
	int code = CLI_EXIT_OK;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (turns < 2 || turns > MOST_TURNS || asked < 1 || asked > MOST_ASKED || pause_ms < 0 || tokens < 1)
		return cli_usage("--turns is 2 to %d, --answers 1 to %d, --gap at least 0, --max-tokens at least 1", MOST_TURNS,
		                 MOST_ASKED);
	cli_interrupt_catch();
	ruv_config *config = cli_config(&code);
	if (!config)
		return code;
	ruv_error err = {0};
	struct latency *b = calloc(1, sizeof *b);
	if (!b) {
		ruv_fail_memory(&err, "learn", sizeof *b);
		return cli_fail(&err, NULL);
	}
	b->n_turns = turns;
	b->n_asked = asked;
	b->pause_ms = pause_ms;
	b->max_tokens = tokens;
	int rc = cmd_learn_read_set(&b->set, args.n ? args.items[0] : "bench/data/user_facts.jsonl", &err);
	if (rc == RUV_OK && (!b->set.n_test || !b->set.n_teach))
		rc = ruv_fail(&err, RUV_EFORMAT, "learn", "there is nothing to teach or to ask");
	if (rc == RUV_OK)
		rc = cmd_learn_scratch_open(&b->scratch, config, "latency", &err);
	if (rc == RUV_OK)
		rc = measure(b, &err);
	if (rc == RUV_OK)
		report(b);
	cmd_learn_scratch_close(&b->scratch);
	cmd_learn_set_release(&b->set);
	free(b);
	return rc ? cli_fail(&err, NULL) : CLI_EXIT_OK;
}

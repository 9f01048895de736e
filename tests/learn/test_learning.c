/* test_learning.c - the parts of learning by themselves: EWC, the reservoir, the curriculum, the gate, patterns, trajectories and
 * the reasoning bank, the judge. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learn/curriculum.h"
#include "learn/ewc.h"
#include "learn/patterns.h"
#include "learn/replay.h"
#include "ruvllm/learn.h"
#include "test.h"

static char dir[300];

static int setup(void **state)
{
	const char *base = getenv("TMPDIR");
	(void)state;
	snprintf(dir, sizeof dir, "%s/ruv-learning-XXXXXX", base && *base ? base : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[400];
	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

static const char *in_dir(const char *name)
{
	static char path[400];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

/* ---- EWC ---- */

static void test_ewc(void **state)
{
	static const int64_t first[] = {0, 2, 5};
	ruv_error err = {0};
	ruv_ewc *e = NULL, *back = NULL;
	(void)state;
	assert_ok(ruv_ewc_create(&e, first, 2, 4.0, &err), err);
	float theta[5] = {1, 1, 1, 1, 1}, gradient[5] = {0};
	ruv_ewc_pull(e, theta, 0.1f); /* no task yet: nothing holds */
	assert_true(theta[0] == 1);
	ruv_ewc_boundary(e, theta);
	assert_int_equal(e->n_tasks, 0); /* nor without a gradient */
	const float g[5] = {3, 1, 0.001f, 0.001f, 0.002f};
	for (int i = 0; i < 10; i++)
		ruv_ewc_observe(e, g);
	ruv_ewc_boundary(e, theta);
	assert_int_equal(e->n_tasks, 1);
	/* each group's mean is 1, whatever its gradients' size */
	assert_true(fabsf(e->fisher[0] - 1.8f) < 1e-4f && fabsf(e->fisher[1] - 0.2f) < 1e-4f);
	assert_true(fabsf(e->fisher[2] + e->fisher[3] + e->fisher[4] - 3) < 1e-4f && fabsf(e->fisher[4] - 2) < 1e-4f);
	/* lambda / 2 sum F d^2 and its gradient */
	theta[0] = 1.5f;
	theta[4] = 0;
	const double want = 4.0 / 2 * (1.8 * 0.25 + 2 * 1);
	assert_true(fabs(ruv_ewc_penalty(e, theta, gradient) - want) < 1e-4);
	assert_true(fabsf(gradient[0] - 4 * 1.8f * 0.5f) < 1e-4f && fabsf(gradient[4] + 4 * 2.0f) < 1e-4f && gradient[1] == 0);
	/* the pull is the minimiser of penalty + |theta' - theta|^2 / (2 rate) */
	float pulled[5];
	memcpy(pulled, theta, sizeof pulled);
	ruv_ewc_pull(e, pulled, 0.05f);
	memset(gradient, 0, sizeof gradient);
	ruv_ewc_penalty(e, pulled, gradient);
	for (int i = 0; i < 5; i++)
		assert_true(fabsf(gradient[i] + (pulled[i] - theta[i]) / 0.05f) < 1e-3f);
	/* a file holds all of it */
	char path[400];
	snprintf(path, sizeof path, "%s", in_dir("ewc.bin"));
	ruv_ewc_observe(e, g);
	assert_ok(ruv_ewc_save(e, path, &err), err);
	assert_ok(ruv_ewc_create(&back, first, 2, 4.0, &err), err);
	assert_ok(ruv_ewc_load(back, path, &err), err);
	assert_memory_equal(back->fisher, e->fisher, sizeof theta);
	assert_memory_equal(back->running, e->running, sizeof theta);
	assert_memory_equal(back->anchor, e->anchor, sizeof theta);
	assert_int_equal(back->n_tasks, 1);
	FILE *f = fopen(path, "r+");
	fseek(f, 50, SEEK_SET);
	fputc(99, f);
	fclose(f);
	assert_int_equal(ruv_ewc_load(back, path, &err), RUV_ECORRUPT);
	ruv_ewc_free(e);
	ruv_ewc_free(back);
}

/* ---- replay and curriculum ---- */

static void test_reservoir(void **state)
{
	enum { CAP = 50, N = 1000, RUNS = 200 };
	static int kept[N];
	ruv_error err = {0};
	(void)state;
	for (int run = 0; run < RUNS; run++) {
		ruv_replay *r = NULL;
		assert_ok(ruv_replay_create(&r, CAP, 100 + (uint64_t)run, &err), err);
		assert_null(ruv_replay_draw(r));
		for (int i = 0; i < N; i++) {
			ruv_token token = i;
			float weight = 1;
			ruv_example e = {.tokens = &token, .weight = &weight, .n = 1, .task = i < 500, .key = i};
			assert_ok(ruv_replay_offer(r, &e, &err), err);
		}
		assert_int_equal(r->n, CAP);
		assert_int_equal(ruv_replay_count(r, 0) + ruv_replay_count(r, 1), CAP);
		for (int i = 0; i < r->n; i++) {
			assert_int_equal(r->items[i].tokens[0], r->items[i].key);
			kept[r->items[i].key]++;
		}
		ruv_replay_free(r);
	}
	/* the first and the last hundred had the same chance: 1000 expected, deviation about 31 */
	int first = 0, last = 0;
	for (int i = 0; i < 100; i++) {
		first += kept[i];
		last += kept[N - 1 - i];
	}
	assert_in_range(first, 850, 1150);
	assert_in_range(last, 850, 1150);
}

static void test_curriculum(void **state)
{
	ruv_rng rng;
	int order[20];
	float difficulty[20];
	(void)state;
	ruv_rng_init(&rng, 1);
	assert_true(ruv_curriculum_difficulty("Who has the key?", "Anna", 0) <
	            ruv_curriculum_difficulty("Why and how did the 3 teams change after the merger, and then before 2020?",
	                                      "Because they had to", 3));
	for (int i = 0; i < 20; i++)
		difficulty[i] = (float)(19 - i);
	const int early = ruv_curriculum_order(order, difficulty, 20, 0, &rng);
	assert_int_equal(early, 6); /* 0.3 x 20 */
	for (int i = 0; i < early; i++)
		assert_true(order[i] >= 14); /* the easiest */
	assert_int_equal(ruv_curriculum_order(order, difficulty, 20, 1, &rng), 20);
	int sum = 0;
	for (int i = 0; i < 20; i++)
		sum += order[i];
	assert_int_equal(sum, 190);
	assert_int_equal(ruv_curriculum_order(order, difficulty, 0, 1, &rng), 0);
}

/* ---- the gate ---- */

static void test_gate(void **state)
{
	enum { N = 40 };
	double before[N], after[N], shuffled[N], old_before[N], old_after[N];
	ruv_error err = {0};
	ruv_rng rng;
	ruv_gate_result r, again;
	(void)state;
	ruv_rng_init(&rng, 4);
	for (int i = 0; i < N; i++) {
		before[i] = ruv_rng_normal(&rng);
		after[i] = before[i] + 0.5 + 0.2 * ruv_rng_normal(&rng);
		shuffled[i] = before[i] + 0.1 * ruv_rng_normal(&rng);
		old_before[i] = old_after[i] = i % 2;
	}
	ruv_gate_input in = {.before = before,
	                     .after = after,
	                     .n = N,
	                     .old_before = old_before,
	                     .old_after = old_after,
	                     .n_old = N,
	                     .base_nll_before = 3,
	                     .base_nll_after = 3.005,
	                     .shuffled_after = shuffled,
	                     .seed = 9};
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(r.pass && !*r.why);
	assert_true(r.gain_low > 0.4 && r.gain_low < r.gain && r.gain < r.gain_high && r.gain_high < 0.6);
	assert_ok(ruv_gate_decide(&again, &in, &err), err);
	assert_memory_equal(&r, &again, sizeof r);
	/* each limit by itself */
	in.base_nll_after = 3.02;
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(!r.pass && strstr(r.why, "perplexity"));
	in.base_nll_after = 3;
	old_after[1] = 0;
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(!r.pass && strstr(r.why, "earlier tasks") && fabs(r.old_drop - 2.5) < 1e-9);
	old_after[1] = 1;
	in.shuffled_after = after;
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(!r.pass && strstr(r.why, "shuffled"));
	in.shuffled_after = NULL;
	in.after = shuffled;
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(!r.pass && strstr(r.why, "gain"));
	in.after = after;
	in.n = 7;
	assert_ok(ruv_gate_decide(&r, &in, &err), err);
	assert_true(!r.pass && strstr(r.why, "7 held-out"));
	in.n = N;
	after[3] = NAN;
	assert_int_equal(ruv_gate_decide(&r, &in, &err), RUV_EINVAL);
}

/* ---- patterns ---- */

static void test_patterns(void **state)
{
	enum { GROUPS = 4, EACH = 30, DIM = 16, N = GROUPS * EACH + 2 };
	static float v[N * DIM];
	ruv_error err = {0};
	ruv_rng rng;
	ruv_patterns p = {0};
	(void)state;
	ruv_rng_init(&rng, 2);
	for (int i = 0; i < GROUPS * EACH; i++)
		for (int k = 0; k < DIM; k++)
			v[i * DIM + k] = (k == i / EACH ? 5.0f : 0) + 0.3f * (float)ruv_rng_normal(&rng);
	v[GROUPS * EACH * DIM + 12] = 1; /* alone */
	/* and the last is zero */
	assert_ok(ruv_patterns_find(&p, v, N, DIM, &(ruv_patterns_options){.k = 9, .merge_cosine = 0.7f, .min_size = 3}, &err),
	          err);
	assert_int_equal(p.n, GROUPS);
	assert_true(p.n_merged >= 3);
	assert_int_equal(p.of[N - 1], -1);
	assert_int_equal(p.of[N - 2], -1);
	for (int g = 0; g < GROUPS; g++)
		for (int i = 1; i < EACH; i++)
			assert_int_equal(p.of[g * EACH + i], p.of[g * EACH]);
	for (int c = 0; c < p.n; c++)
		assert_int_equal(p.size[c], EACH);
	ruv_patterns_release(&p);
	memset(v, 0, sizeof v);
	assert_ok(ruv_patterns_find(&p, v, N, DIM, &(ruv_patterns_options){0}, &err), err);
	assert_int_equal(p.n, 0);
	ruv_patterns_release(&p);
	assert_true(ruv_patterns_worth(0.8, 10, 0, 30) > 1.9 * ruv_patterns_worth(0.8, 10, 30, 30));
}

/* ---- trajectories and the bank ---- */

static ruv_trajectory *walk(const char *task, const char *state, int axis, const char *const *actions, int n, float quality)
{
	ruv_error err = {0};
	ruv_trajectory *t = NULL;
	float v[8] = {0};
	v[axis] = 1;
	v[7] = 0.1f * quality;
	assert_ok(ruv_trajectory_create(&t, task, &err), err);
	assert_int_equal(ruv_trajectory_add_action(t, "too early", 1, &err), RUV_EINVAL);
	assert_ok(ruv_trajectory_add_state(t, state, v, 8, &err), err);
	for (int i = 0; i < n; i++)
		assert_ok(ruv_trajectory_add_action(t, actions[i], quality, &err), err);
	return t;
}

static void test_bank(void **state)
{
	static const char *const good[] = {"read the test", "reproduce it", "fix"}, *const bad[] = {"guess", "fix"};
	ruv_error err = {0};
	ruv_bank *b = NULL;
	ruv_memory *m = NULL;
	char path[400], store[400];
	(void)state;
	snprintf(path, sizeof path, "%s", in_dir("bank.db"));
	snprintf(store, sizeof store, "%s", in_dir("memory"));
	assert_ok(ruv_memory_open(&m, store, &(ruv_memory_options){.create = true, .embedder_id = "test", .dimension = 8}, &err),
	          err);
	assert_ok(ruv_bank_open(&b, path, &(ruv_bank_options){.capacity = 30}, &err), err);
	for (int i = 0; i < 20; i++) {
		char text[64];
		const bool success = i % 3 != 0;
		snprintf(text, sizeof text, "a failing test, number %d", i);
		ruv_trajectory *t = walk("debugging", text, 2, success ? good : bad, success ? 3 : 2, success ? 0.9f : 0.1f);
		assert_true(fabsf(ruv_trajectory_quality(t) - (success ? 0.9f : 0.1f)) < 1e-5f);
		assert_ok(ruv_bank_record(b, t, NULL, &err), err);
		ruv_trajectory_free(t);
		t = walk("documentation", "a page without an example", 5, (const char *const[]){"write an example"}, 1, 0.8f);
		assert_ok(ruv_bank_record(b, t, NULL, &err), err);
		ruv_trajectory_free(t);
	}
	int64_t n = 0, n_strategies = 0;
	assert_ok(ruv_bank_counts(b, &n, &n_strategies, &err), err);
	assert_int_equal(n, 30); /* the worst went */
	ruv_bank_report report;
	assert_ok(ruv_bank_consolidate(b, m, NULL, &report, &err), err);
	assert_int_equal(report.n_trajectories, 30);
	assert_true(report.n_strategies >= 1);
	ruv_memory_stats stats;
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_by_type[RUV_NODE_CONCEPT], report.n_strategies);
	/* a second time finds the same again */
	ruv_bank_report second;
	assert_ok(ruv_bank_consolidate(b, m, NULL, &second, &err), err);
	assert_int_equal(second.n_strategies, report.n_strategies);
	/* found by a situation, over a restart; uses count */
	ruv_bank_free(b);
	assert_ok(ruv_bank_open(&b, path, &(ruv_bank_options){.capacity = 30}, &err), err);
	float v[8] = {[5] = 1};
	ruv_strategies s = {0};
	assert_ok(ruv_bank_retrieve(b, v, 8, 3, 0.5f, &s, &err), err);
	assert_true(s.n >= 1);
	assert_string_equal(s.items[0].task, "documentation");
	assert_non_null(strstr(s.items[0].text, "write an example"));
	assert_true(s.items[0].similarity > 0.9f);
	assert_ok(ruv_bank_outcome(b, s.items[0].id, true, &err), err);
	const int64_t id = s.items[0].id;
	ruv_strategies_release(&s);
	assert_ok(ruv_bank_retrieve(b, v, 8, 1, 0.5f, &s, &err), err);
	assert_int_equal(s.items[0].id, id);
	assert_int_equal(s.items[0].n_used, 1);
	assert_int_equal(s.items[0].n_helped, 1);
	ruv_strategies_release(&s);
	assert_int_equal(ruv_bank_outcome(b, 99999, true, &err), RUV_ENOTFOUND);
	float other[4] = {1};
	assert_int_equal(ruv_bank_retrieve(b, other, 4, 1, 0, &s, &err), RUV_EMISMATCH);
	ruv_bank_free(b);
	ruv_memory_free(m);
}

/* Failures teach what to avoid. */
/* Full at the capacity of a variant: each new one puts out the one of least use. */
static void test_bank_capacity(void **state)
{
	ruv_error err = {0};
	ruv_bank *b = NULL;
	const int capacity = ruv_variant_find("base")->pattern_capacity, more = 5;
	int64_t n = 0, n_strategies = 0, id = 0;
	(void)state;
	assert_int_equal(capacity, 50000);
	assert_int_equal(ruv_variant_find("coder")->pattern_capacity, 100000); /* takes twice as long and says nothing more */
	assert_ok(ruv_bank_open(&b, NULL, &(ruv_bank_options){.capacity = capacity}, &err), err);
	for (int i = 0; i < capacity + more; i++) {
		ruv_trajectory *t = NULL;
		assert_ok(ruv_trajectory_create(&t, "fill", &err), err);
		assert_ok(ruv_trajectory_add_state(t, "s", (const float[]){1, (float)i}, 2, &err), err);
		assert_ok(ruv_trajectory_add_action(t, "a", i % 1000 == 7 ? 0.1f : 0.8f, &err), err);
		assert_ok(ruv_bank_record(b, t, &id, &err), err);
		ruv_trajectory_free(t);
	}
	assert_ok(ruv_bank_counts(b, &n, &n_strategies, &err), err);
	assert_int_equal(n, capacity);
	assert_int_equal(id, capacity + more); /* the newest was taken, the worst went */
	ruv_bank_free(b);
}

static void test_bank_failures(void **state)
{
	ruv_error err = {0};
	ruv_bank *b = NULL;
	ruv_strategies s = {0};
	float v[8] = {[1] = 1};
	(void)state;
	assert_ok(ruv_bank_open(&b, NULL, NULL, &err), err);
	for (int i = 0; i < 12; i++) {
		ruv_trajectory *t = i % 2 ? walk("deploying", "a release on a Friday", 1,
		                                 (const char *const[]){"deploy", "wait for Monday"}, 2, 0.95f)
		                          : walk("deploying", "a release on a Friday", 1,
		                                 (const char *const[]){"deploy", "skip the checks"}, 2, 0.05f);
		assert_ok(ruv_bank_record(b, t, NULL, &err), err);
		ruv_trajectory_free(t);
	}
	assert_ok(ruv_bank_consolidate(b, NULL, NULL, NULL, &err), err);
	assert_ok(ruv_bank_retrieve(b, v, 8, 5, 0.5f, &s, &err), err);
	assert_int_equal(s.n, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(s.items[i].n_trajectories, 6);
		assert_non_null(strstr(s.items[i].text, s.items[i].from_failures ? "skip the checks" : "wait for Monday"));
		assert_null(strstr(s.items[i].text, s.items[i].from_failures ? "wait for Monday" : "skip the checks"));
	}
	assert_true(s.items[0].from_failures != s.items[1].from_failures);
	ruv_strategies_release(&s);
	ruv_bank_free(b);
}

/* ---- the judge ---- */

static ruv_verdict judge(const char *question, const char *answer, const char *source, bool cite)
{
	ruv_error err = {0};
	ruv_verdict v;
	ruv_judged j = {.question = question, .answer = answer, .sources = &source, .n_sources = source ? 1 : 0, .must_cite = cite};
	assert_ok(ruv_judge_check(&v, &j, NULL, &err), err);
	return v;
}

static void test_judge(void **state)
{
	static const char source[] = "The nightly backup starts at 02:00. It is kept for 30 days on the server in Oslo.";
	static const char question[] = "When does the nightly backup start?";
	(void)state;
	const ruv_verdict right = judge(question, "[1] The nightly backup starts at 02:00.\nAnswer: 02:00", source, true);
	assert_true(right.quality > 0.75f && right.grounded > 0.95f && right.format == 1);
	assert_string_equal(right.why, "");
	const ruv_verdict invented = judge(question, "[1] The nightly backup starts at 23:45.\nAnswer: 23:45", source, true);
	assert_true(invented.grounded < right.grounded && invented.quality < right.quality);
	const ruv_verdict elsewhere = judge(question, "Paris was liberated by tanks", source, false);
	assert_true(elsewhere.grounded < 0.3f && elsewhere.quality < 0.5f);
	const ruv_verdict vague = judge("How many days is it kept?", "It is kept on the server", source, false);
	assert_true(vague.complete < judge("How many days is it kept?", "30 days", source, false).complete);
	const ruv_verdict refused = judge(question, "I don't know.", source, true);
	assert_true(refused.refusal && refused.quality == 0);
	assert_true(judge(question, "", source, false).quality == 0);
	assert_true(judge(question, "02:00 <|im_end|>", source, false).format == 0);
	const ruv_verdict loop = judge(question,
	                               "the backup starts at two the backup starts at two the backup starts at two the backup "
	                               "starts at two",
	                               source, false);
	assert_true(loop.format < 0.7f);
	assert_true(judge(question, "[7] The nightly backup starts at 02:00.\nAnswer: 02:00", source, true).format < 0.5f);
	/* the model's word is kept beside the checks */
	ruv_error err = {0};
	ruv_verdict low, high;
	const char *sources = source;
	ruv_judged j = {.question = question, .answer = "02:00", .sources = &sources, .n_sources = 1, .model_score = 1};
	assert_ok(ruv_judge_check(&low, &j, NULL, &err), err);
	j.model_score = 5;
	assert_ok(ruv_judge_check(&high, &j, NULL, &err), err);
	assert_true(low.model == 0 && high.model == 1 && high.quality > low.quality && low.checks == high.checks);
	j.model_score = 6;
	assert_int_equal(ruv_judge_check(&high, &j, NULL, &err), RUV_EINVAL);
}

static void test_calibration(void **state)
{
	static const float scores[] = {0.9f, 0.8f, 0.7f, 0.6f, 0.4f, 0.3f, 0.2f, 0.1f};
	static const bool labels[] = {true, true, false, true, false, true, false, false};
	ruv_error err = {0};
	ruv_calibration c;
	(void)state;
	assert_ok(ruv_judge_calibrate(&c, scores, labels, 8, &err), err);
	assert_true(fabs(c.auc - 13.0 / 16) < 1e-9);
	assert_int_equal(c.true_right + c.false_wrong, 4);
	assert_int_equal(c.true_wrong + c.false_right, 4);
	assert_true(c.correlation > 0.5 && c.brier < 0.25);
	const float same[] = {0.5f, 0.5f, 0.5f, 0.5f};
	assert_ok(ruv_judge_calibrate(&c, same, labels, 4, &err), err);
	assert_true(fabs(c.auc - 0.5) < 1e-9);
	const bool all[] = {true, true, true, true};
	assert_int_equal(ruv_judge_calibrate(&c, same, all, 4, &err), RUV_EINVAL);
	/* fitting finds the score that tells */
	ruv_verdict v[60];
	bool l[60];
	ruv_rng rng;
	ruv_rng_init(&rng, 6);
	for (int i = 0; i < 60; i++) {
		l[i] = i % 2;
		v[i] = (ruv_verdict){
		    .grounded = l[i] ? 0.9f : 0.2f, .complete = (float)ruv_rng_double(&rng), .format = 1, .model = -1};
	}
	ruv_judge_weights w;
	assert_ok(ruv_judge_fit(&w, v, l, 60, true, &err), err);
	assert_true(w.grounded > 3 && fabsf(w.complete) < w.grounded / 2 && w.model == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ewc),           cmocka_unit_test(test_reservoir),
	                                   cmocka_unit_test(test_curriculum),    cmocka_unit_test(test_gate),
	                                   cmocka_unit_test(test_patterns),      cmocka_unit_test(test_bank),
	                                   cmocka_unit_test(test_bank_capacity), cmocka_unit_test(test_bank_failures),
	                                   cmocka_unit_test(test_judge),         cmocka_unit_test(test_calibration)};
	return cmocka_run_group_tests(tests, setup, teardown);
}

/* test_router.c - training on outcomes, the file, deciding, outcomes that survive, refining behind a gate, rollback, threads. */
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "learn/router_drift.h"
#include "learn/train_router.h"

enum { DIM = 24, N_GROUPS = 24, PER_GROUP = 20 };

static char dir[] = "/tmp/ruv-test-router-XXXXXX";
static char file[64], outcomes[64], log_file[64];

/* A world in which the first number of the vector says whether the small tier will do; features repeat it. */
static void world(int i, float *vector, float *features, float *quality)
{
	ruv_rng rng;
	bool easy;

	ruv_rng_init(&rng, (uint64_t)i + 1);
	for (int d = 0; d < DIM; d++)
		vector[d] = (float)ruv_rng_normal(&rng) * 0.3f;
	easy = ruv_rng_u64(&rng) % 2;
	vector[0] = easy ? 1 : -1;
	memset(features, 0, sizeof(float) * RUV_ROUTE_FEATURES);
	for (int f = 0; f < RUV_ROUTE_FEATURES; f++)
		features[f] = 0.2f * (float)ruv_rng_normal(&rng);
	features[RUV_FEATURE_COHERENCE + 20] = easy ? 1 : 0;
	quality[0] = easy ? 0.9f : 0.1f;
	quality[1] = 0.95f;
}

/* blind: features and vector say nothing, the answer's signs say all. */
static void write_outcomes(bool blind)
{
	FILE *out = fopen(outcomes, "w");

	fprintf(out,
	        "{\"tiers\":[{\"name\":\"s\",\"params\":1000,\"bytes\":1000},{\"name\":\"l\",\"params\":10000,\"bytes\":10000}],"
	        "\"encoder\":\"e\",\"encoder_version\":\"1\",\"dim\":%d}\n",
	        DIM);
	for (int i = 0; i < N_GROUPS * PER_GROUP; i++) {
		float vector[DIM], features[RUV_ROUTE_FEATURES], quality[2];

		world(i, vector, features, quality);
		if (blind) {
			ruv_rng rng;

			ruv_rng_init(&rng, 1000 + (uint64_t)i);
			features[RUV_FEATURE_COHERENCE + 20] = 0;
			for (int d = 0; d < DIM; d++)
				vector[d] = (float)ruv_rng_normal(&rng);
		}
		fprintf(out, "{\"id\":\"q%d\",\"group\":\"g%d\",\"context\":%d,\"vector\":[", i, i / PER_GROUP,
		        quality[0] > 0.5f ? 200 : 900);
		for (int d = 0; d < DIM; d++)
			fprintf(out, "%s%g", d ? "," : "", (double)vector[d]);
		fprintf(out, "],\"features\":[");
		for (int f = 0; f < RUV_ROUTE_FEATURES; f++)
			fprintf(out, "%s%g", f ? "," : "", (double)features[f]);
		fprintf(out, "],\"tiers\":{");
		for (int t = 0; t < 2; t++)
			fprintf(out,
			        "%s\"%s\":{\"quality\":%g,\"latency_ms\":%d,\"prompt\":100,\"answer\":10,\"mean_logprob\":%g,\"min_"
			        "logprob\":-1}",
			        t ? "," : "", t ? "l" : "s", (double)quality[t], t ? 500 : 50,
			        t || (quality[0] > 0.5f) == (blind || i % 4 != 0) ? -0.1 : -3.0); /* a quarter misleads */
		fprintf(out, "}}\n");
	}
	fprintf(out, "{\"id\":\"cut"); /* a line that was not finished is left out */
	fclose(out);
}

static void train(ruv_route_data *data, double mu, double regret)
{
	ruv_router_training training = {.mu = mu, .regret = regret, .lambda = 0.05, .n_epochs = 30, .seed = 1, .n_components = 8};
	ruv_router_weights *weights;
	ruv_error err = {0};

	assert_ok(ruv_route_data_read(data, outcomes, &err), err);
	assert_int_equal(data->n, N_GROUPS * PER_GROUP);
	ruv_route_data_split(data, 1);
	assert_ok(ruv_router_train(&weights, data, &training, &err), err);
	assert_ok(ruv_router_weights_write(weights, file, &err), err);
	ruv_router_weights_free(weights);
}

static void training_finds_the_rule(void **state)
{
	ruv_route_data data = {0};
	ruv_router_weights *weights;
	ruv_policy_result results[RUV_N_ROUTE_POLICIES];
	ruv_error err = {0};

	(void)state;
	train(&data, 0.3, 0.15);         /* the small tier is a fifth of a point behind where it is right */
	for (int i = 0; i < data.n; i++) /* no group is in two of the three */
		for (int j = 0; j < i; j++)
			if (!strcmp(data.samples[i].group, data.samples[j].group)) {
				int a = data.samples[i].part, b = data.samples[j].part;

				assert_true(a == b || (a + b == RUV_PART_TRAIN + RUV_PART_NEW));
			}
	assert_ok(ruv_router_weights_read(&weights, file, true, &err), err);
	ruv_route_data_prepare(&data, weights);
	ruv_route_evaluate(weights, &data, RUV_PART_TEST, results);
	assert_true(results[RUV_POLICY_ROUTER].accuracy > 0.9);
	assert_true(results[RUV_POLICY_ORACLE].accuracy == 1 && results[RUV_POLICY_BIG].quality_regret == 0);
	assert_true(results[RUV_POLICY_ROUTER].utility > results[RUV_POLICY_BIG].utility);
	assert_true(results[RUV_POLICY_CASCADE].escalated < 0.1); /* what is given to the right tier need not go on */
	ruv_route_evaluate(weights, &data, RUV_PART_TRAIN, results);
	assert_true(results[RUV_POLICY_ROUTER].accuracy > 0.95);
	ruv_router_weights_free(weights);
	ruv_route_data_release(&data);
}

static void signs_decide_where_features_do_not(void **state)
{
	ruv_route_data data = {0};
	ruv_router_weights *weights;
	ruv_policy_result results[RUV_N_ROUTE_POLICIES], *cascade = &results[RUV_POLICY_CASCADE];
	ruv_error err = {0};

	(void)state;
	write_outcomes(true);
	train(&data, 1, 0.15);
	assert_ok(ruv_router_weights_read(&weights, file, true, &err), err);
	assert_string_equal(ruv_route_method_name(weights->head.method), "ladder");
	ruv_route_data_prepare(&data, weights);
	ruv_route_evaluate(weights, &data, RUV_PART_TEST, results);
	assert_true(cascade->escalated > 0.3 && cascade->escalated < 0.7);
	assert_true(cascade->quality_regret < 0.2 && cascade->cost < 0.8);
	assert_true(cascade->accuracy > 0.75);
	assert_true(results[RUV_POLICY_BIG].cheapest_good == 1); /* the small one is a fifth of a point behind at best */
	assert_true(results[RUV_POLICY_SMALL].quality_regret > 1);
	ruv_router_weights_free(weights);
	ruv_route_data_release(&data);
	write_outcomes(false);
	memset(&data, 0, sizeof data);
	train(&data, 0.3, 0.15); /* as the other tests expect it */
	ruv_route_data_release(&data);
}

/* The tiers change places and nothing tells the tasks apart: what is not held fast is unlearned, and what
 * is held fast learns nothing new. */
static void protection_holds_what_was_learned(void **state)
{
	ruv_drift_options options = {.n_tasks = 2, .n_updates = 300, .ewc = 1e9, .seed = 1};
	ruv_drift_result results[RUV_N_DRIFT_PROTECTIONS];
	ruv_router_weights *weights;
	ruv_route_data data = {0};
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_route_data_read(&data, outcomes, &err), err);
	assert_ok(ruv_router_weights_read(&weights, file, true, &err), err);
	assert_ok(ruv_router_drift(weights, &data, &options, results, &err), err);
	assert_true(results[0].n_held > 10 && results[0].n_updates == 300);
	assert_string_equal(results[2].protection, "ewc");
	for (int p = 0; p < RUV_N_DRIFT_PROTECTIONS; p++) {
		assert_true(results[p].old_before > 0.5 && results[p].old_before <= 1);
		if (p & 2) /* EWC */
			assert_true(fabs(results[p].old_after - results[p].old_before) < 0.06);
		else
			assert_true(results[p].old_after < results[p].old_before && results[p].last_after > results[2].last_after);
	}
	options.n_tasks = RUV_DRIFT_MAX_TASKS + 1;
	assert_int_equal(ruv_router_drift(weights, &data, &options, results, &err), RUV_EINVAL);
	ruv_router_weights_free(weights);
	ruv_route_data_release(&data);
}

static ruv_route_input input_of(int i, float *vector)
{
	float features[RUV_ROUTE_FEATURES], quality[2];

	world(i, vector, features, quality);
	return (ruv_route_input){.text = "Who signed it?", .embedding = vector, .dim = DIM};
}

static void damaged_files_are_refused(void **state)
{
	char *bytes, path[80];
	size_t n;
	ruv_error err = {0};
	ruv_router *router;

	(void)state;
	assert_ok(ruv_file_read(&bytes, &n, file, (size_t)1 << 30, &err), err);
	snprintf(path, sizeof path, "%s.bad", file);
	for (size_t at = 30; at < n; at += n / 37) {
		bytes[at] ^= 4;
		assert_ok(ruv_file_write(path, bytes, n, &err), err);
		assert_int_equal(ruv_router_open(&router, path, NULL, &err), RUV_ECORRUPT);
		bytes[at] ^= 4;
	}
	assert_ok(ruv_file_write(path, bytes, n / 2, &err), err);
	assert_int_equal(ruv_router_open(&router, path, NULL, &err), RUV_ECORRUPT);
	bytes[8] = 9; /* a later format */
	assert_ok(ruv_file_write(path, bytes, n, &err), err);
	assert_int_equal(ruv_router_open(&router, path, NULL, &err), RUV_EUNSUPPORTED);
	assert_ok(ruv_file_write(path, "hello", 5, &err), err);
	assert_int_equal(ruv_router_open(&router, path, NULL, &err), RUV_EFORMAT);
	unlink(path);
	assert_int_equal(ruv_router_open(&router, path, NULL, &err), RUV_ENOTFOUND);
	free(bytes);
}

static void constraints_are_kept(void **state)
{
	ruv_route_system system = {0};
	ruv_route_decision d;
	ruv_route_state conversation = {0};
	float vector[DIM];
	ruv_route_input input = input_of(3, vector);
	ruv_error err = {0};
	ruv_router *router;

	(void)state;
	assert_ok(ruv_router_open(&router, file, NULL, &err), err);
	assert_int_equal(ruv_router_n_tiers(router), 2);
	assert_int_equal(ruv_router_tier_find(router, "l"), 1);
	assert_int_equal(ruv_router_tier_find(router, "x"), -1);
	input.system = &system;
	system.latency_budget_ms = 100; /* the large one takes 500 */
	assert_ok(ruv_router_decide(router, &conversation, &input, &d, &err), err);
	assert_int_equal(d.tier, 0);
	assert_int_equal(conversation.n_turns, 1);
	system = (ruv_route_system){.memory_available = 5000};
	assert_ok(ruv_router_decide(router, NULL, &input, &d, &err), err);
	assert_int_equal(d.tier, 0);
	system = (ruv_route_system){0};
	assert_ok(ruv_router_set_available(router, 0, false, &err), err);
	assert_ok(ruv_router_decide(router, NULL, &input, &d, &err), err);
	assert_int_equal(d.tier, 1);
	assert_true(d.context >= 256 && d.temperature >= 0 && d.temperature <= 2 && d.top_p >= 0 && d.top_p <= 1);
	assert_ok(ruv_router_set_available(router, 1, false, &err), err);
	assert_int_equal(ruv_router_decide(router, NULL, &input, &d, &err), RUV_ENOTFOUND);
	input.dim = DIM - 1;
	assert_int_equal(ruv_router_decide(router, NULL, &input, &d, &err), RUV_EMISMATCH);
	ruv_router_free(router);
}

static void outcomes_count_at_once_and_survive(void **state)
{
	ruv_router_options options = {.log_path = log_file};
	ruv_route_decision before, after;
	float vector[DIM];
	ruv_route_input input = input_of(100000, vector); /* a question that was never asked */
	ruv_route_outcome outcome = {.latency_ms = 40, .n_prompt_tokens = 100, .n_answer_tokens = 10};
	ruv_router_info info;
	ruv_error err = {0};
	ruv_router *router;
	FILE *log;

	(void)state;
	assert_ok(ruv_router_open(&router, file, &options, &err), err);
	assert_ok(ruv_router_decide(router, NULL, &input, &before, &err), err);
	for (int t = 0; t < 2; t++) { /* the tier that it would not take turns out well, the other badly */
		outcome.tier = t;
		outcome.quality = t == before.tier ? 0 : 1;
		assert_ok(ruv_router_observe(router, NULL, &before, &outcome, &err), err);
	}
	assert_ok(ruv_router_decide(router, NULL, &input, &after, &err), err);
	assert_int_equal(after.tier, 1 - before.tier);
	outcome.quality = 2;
	assert_int_equal(ruv_router_observe(router, NULL, &before, &outcome, &err), RUV_EINVAL);
	ruv_router_free(router);
	log = fopen(log_file, "a"); /* a record that a crash cut off */
	fwrite("RUVOBS1\n12345", 1, 13, log);
	fclose(log);
	assert_ok(ruv_router_open(&router, file, &options, &err), err);
	ruv_router_get_info(router, &info);
	assert_int_equal(info.n_observations, 2);
	assert_ok(ruv_router_decide(router, NULL, &input, &after, &err), err);
	assert_int_equal(after.tier, 1 - before.tier);
	ruv_router_free(router);
	unlink(log_file);
}

static void refining_is_gated_and_taken_back(void **state)
{
	ruv_router_options options = {.explore = 0.5f, .seed = 5, .refine_every = 100};
	ruv_router_refined result;
	ruv_router_info info;
	ruv_rng rng;
	ruv_error err = {0};
	ruv_router *router;
	char previous[80];
	float vector[DIM];

	(void)state;
	assert_ok(ruv_router_open(&router, file, &options, &err), err);
	ruv_rng_init(&rng, 1);
	assert_int_equal(ruv_router_refine(router, file, &result, &err), RUV_EINVAL); /* nothing was seen */
	for (int i = 0; i < 240; i++) { /* quality by chance: there is nothing to learn */
		ruv_route_input input = input_of(200000 + i, vector);
		ruv_route_decision d;
		ruv_route_outcome outcome = {.latency_ms = 40, .n_prompt_tokens = 100, .n_answer_tokens = 10};

		assert_ok(ruv_router_decide(router, NULL, &input, &d, &err), err);
		assert_true(d.propensity > 0 && d.propensity <= 1);
		outcome.tier = d.tier;
		outcome.quality = (float)(ruv_rng_u64(&rng) % 2);
		assert_ok(ruv_router_observe(router, NULL, &d, &outcome, &err), err);
	}
	assert_true(ruv_router_refine_due(router));
	assert_ok(ruv_router_refine(router, file, &result, &err), err);
	assert_false(ruv_router_refine_due(router));
	ruv_router_get_info(router, &info);
	assert_int_equal(info.version, 1 + result.kept);
	assert_int_equal(result.n_observations, 240);
	if (!result.kept)
		assert_int_equal(info.n_rolled_back, 1);
	snprintf(previous, sizeof previous, "%s.previous", file);
	if (!result.kept) {
		assert_int_equal(ruv_router_rollback(router, file, &err), RUV_ENOTFOUND);
	} else {
		assert_int_equal(access(previous, F_OK), 0);
		assert_ok(ruv_router_rollback(router, file, &err), err);
		ruv_router_get_info(router, &info);
		assert_int_equal(info.version, 1);
	}
	ruv_router_free(router);
}

struct shared {
	ruv_router *router;
	int first;
};

static void *decide_many(void *arg)
{
	struct shared *s = arg;
	ruv_error err = {0};

	for (int i = 0; i < 100; i++) {
		float vector[DIM];
		ruv_route_input input = input_of(s->first + i, vector);
		ruv_route_outcome outcome = {.quality = 0.5f, .latency_ms = 10, .n_prompt_tokens = 10, .n_answer_tokens = 1};
		ruv_route_decision d;

		if (ruv_router_decide(s->router, NULL, &input, &d, &err))
			return "decide";
		outcome.tier = d.tier;
		if (ruv_router_observe(s->router, NULL, &d, &outcome, &err))
			return "observe";
	}
	return NULL;
}

static void threads_share_a_router(void **state)
{
	ruv_router_refined result;
	pthread_t threads[3];
	struct shared shared[3];
	ruv_router_info info;
	ruv_error err = {0};
	ruv_router *router;

	(void)state;
	assert_ok(ruv_router_open(&router, file, NULL, &err), err);
	for (int i = 0; i < 3; i++) {
		shared[i] = (struct shared){router, 1000 * i};
		pthread_create(&threads[i], NULL, decide_many, &shared[i]);
	}
	for (int i = 0; i < 3; i++)
		ruv_router_refine(router, NULL, &result, NULL); /* too few at first: an error that harms nothing */
	for (int i = 0; i < 3; i++) {
		void *fault;

		pthread_join(threads[i], &fault);
		assert_null(fault);
	}
	ruv_router_get_info(router, &info);
	assert_int_equal(info.n_observations, 300);
	ruv_router_free(router);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof file, "%s/router.bin", dir);
	snprintf(outcomes, sizeof outcomes, "%s/outcomes.jsonl", dir);
	snprintf(log_file, sizeof log_file, "%s/router.log", dir);
	write_outcomes(false);
	return 0;
}

static int tear_down(void **state)
{
	char previous[80];

	(void)state;
	snprintf(previous, sizeof previous, "%s.previous", file);
	unlink(previous);
	unlink(file);
	unlink(outcomes);
	unlink(log_file);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(training_finds_the_rule),
	                                   cmocka_unit_test(signs_decide_where_features_do_not),
	                                   cmocka_unit_test(protection_holds_what_was_learned),
	                                   cmocka_unit_test(damaged_files_are_refused),
	                                   cmocka_unit_test(constraints_are_kept),
	                                   cmocka_unit_test(outcomes_count_at_once_and_survive),
	                                   cmocka_unit_test(refining_is_gated_and_taken_back),
	                                   cmocka_unit_test(threads_share_a_router)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

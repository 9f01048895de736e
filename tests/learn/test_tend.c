/* test_tend.c - the router that a runtime uses is refined on its learner's thread when enough outcomes have come, with the bundled
 * files: what came of it stands in the learner's history, and a router that was kept lies in the data directory. */
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "ruvllm/learn.h"
#include "ruvllm/router.h"
#include "ruvllm/runtime.h"
#include "test.h"

static void test_router_is_refined(void **state)
{
	char dir[300], command[400], path[400];
	const char *base = getenv("TMPDIR");
	ruv_config *config = NULL;
	ruv_runtime *runtime = NULL;
	ruv_router *router = NULL;
	ruv_learner *learner = NULL;
	ruv_learner_event events[8];
	ruv_router_info info;
	ruv_error err = {0};
	ruv_rng rng;
	int n, n_found = 0;
	(void)state;
	if (access(RUV_SOURCE_DIR "/models/ruvllm-nano-router.bin", R_OK) ||
	    access(RUV_SOURCE_DIR "/models/ruvllm-nano-s.gguf", R_OK))
		skip();
	snprintf(dir, sizeof dir, "%s/ruv-tend-XXXXXX", base && *base ? base : "/tmp");
	assert_non_null(mkdtemp(dir));
	assert_ok(ruv_config_create(&config, &err), err);
	assert_ok(ruv_config_set(config, "data-dir", dir, &err), err);
	assert_ok(ruv_config_set(config, "models-dir", RUV_SOURCE_DIR "/models", &err), err);
	assert_ok(ruv_config_set(config, "model", "s", &err), err);
	assert_ok(ruv_config_set(config, "threads", "1", &err), err);
	assert_ok(ruv_runtime_open(&runtime, config, &err), err);
	assert_ok(ruv_runtime_router(runtime, &router, &err), err);
	ruv_rng_init(&rng, 1);
	for (int i = 0; !ruv_router_refine_due(router); i++) {
		char text[64];
		ruv_route_decision d;
		snprintf(text, sizeof text, "Question %d about harbour %d?", i, i % 7);
		const ruv_route_input input = {.text = text};
		assert_ok(ruv_router_decide(router, NULL, &input, &d, &err), err);
		const ruv_route_outcome outcome = {.tier = d.tier,
		                                   .quality = (float)(ruv_rng_u64(&rng) % 2),
		                                   .latency_ms = 40,
		                                   .n_prompt_tokens = 100,
		                                   .n_answer_tokens = 10};
		assert_ok(ruv_router_observe(router, NULL, &d, &outcome, &err), err);
		assert_true(i < 1000);
	}
	assert_ok(ruv_runtime_learner(runtime, &learner, &err), err);
	assert_ok(ruv_learner_teach(learner, "facts", "Where is the key of the boat house kept?", "in the shed", &err), err);
	assert_ok(ruv_learner_work(learner, &err), err); /* the router has its turn before the thread rests */
	assert_false(ruv_router_refine_due(router));
	n = ruv_learner_history(learner, events, 8, &err);
	assert_true(n >= 1);
	ruv_router_get_info(router, &info);
	snprintf(path, sizeof path, "%s/router.bin", dir);
	for (int i = 0; i < n; i++) {
		const bool kept = !strcmp(events[i].what, "router");
		if (!kept && strcmp(events[i].what, "router kept") != 0)
			continue;
		n_found++;
		assert_true(events[i].gate.pass == kept && events[i].gate.n > 0);
		assert_int_equal(events[i].version, info.version);
		assert_int_equal(access(path, R_OK) == 0, kept);
		assert_int_equal(info.n_refined, kept);
	}
	assert_int_equal(n_found, 1);
	ruv_runtime_free(runtime);
	ruv_config_free(config);
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_router_is_refined)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

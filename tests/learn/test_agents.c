/* test_agents.c - the agent router: training, teaching, outcomes that count at once, restarts, crashes, damaged files. */
#include "test.h"

#include <unistd.h>

#include "base/file.h"
#include "ruvllm/agent.h"

static char dir[] = "/tmp/ruv-test-agents-XXXXXX";
static char bundle[64], log_file[64];

static const char *routed(ruv_agent_router *agents, const char *task, ruv_agent_routed *r)
{
	ruv_error err = {0};

	assert_ok(ruv_agent_route(agents, task, NULL, r, &err), err);
	return r->agent.agent;
}

static void training_makes_a_file(void **state)
{
	static const struct {
		const char *agent, *text;
	} tasks[] = {{"tester", "write unit tests for the parser"},
	             {"debugger", "the app crashes with an exception"},
	             {"devops", "deploy to the kubernetes cluster"},
	             {"planner", "make a roadmap for the sprint"},
	             {"documenter", "write a readme"},
	             {"", "book me a table for two"},
	             {"", "what is the weather tomorrow"}};
	ruv_agent_example examples[42];
	ruv_agent_router *agents;
	ruv_agent_routed r;
	ruv_error err = {0};

	(void)state;
	for (int i = 0; i < 42; i++)
		examples[i] =
		    (ruv_agent_example){.agent = tasks[i % 7].agent, .text = tasks[i % 7].text, .complexity = (float)(i % 2)};
	assert_ok(ruv_agent_train(bundle, examples, 28, 42, NULL, &err), err);
	examples[3].agent = "nobody";
	assert_int_equal(ruv_agent_train(bundle, examples, 28, 42, NULL, &err), RUV_EINVAL);
	assert_ok(ruv_agent_router_open(&agents, bundle, NULL, NULL, &err), err);
	assert_string_equal(routed(agents, "please add unit tests for the lexer", &r), "tester");
	assert_false(r.abstains);
	assert_int_equal(r.agent.type, RUV_TASK_VERIFY);
	assert_true(*r.agent.reason && r.n_alternatives <= RUV_AGENT_ALTERNATIVES);
	assert_string_equal(routed(agents, "refactor the god class, same behaviour", &r), "refactorer"); /* by its marks alone */
	assert_int_equal(ruv_agent_route(agents, " \n", NULL, &r, &err), RUV_EINVAL);
	ruv_agent_router_free(agents);
}

static void what_is_taught_stays(void **state)
{
	ruv_agent_router *agents;
	ruv_agent_info info;
	ruv_agent_routed r;
	ruv_error err = {0};
	FILE *log;
	int n = 0, translator = -1;

	(void)state;
	assert_ok(ruv_agent_router_open(&agents, bundle, log_file, NULL, &err), err);
	assert_string_not_equal(routed(agents, "translate the menu into French", &r), "translator");
	assert_ok(ruv_agent_teach(agents, "translator", "translates texts", RUV_TASK_EXPLAIN, "translate this letter into German",
	                          NULL, &err),
	          err);
	assert_ok(ruv_agent_teach(agents, "translator", NULL, -1, "translate the contract into Spanish", NULL, &err), err);
	assert_string_equal(routed(agents, "translate the menu into French", &r), "translator");
	assert_ok(ruv_agent_outcome(agents, "localise the strings", NULL, "tester", false, "translator", &err), err);
	assert_ok(ruv_agent_outcome(agents, "translate the menu into French", NULL, "translator", true, NULL, &err), err);
	assert_string_equal(routed(agents, "localise the strings", &r), "translator");
	assert_int_equal(ruv_agent_outcome(agents, "x", NULL, "nobody", true, NULL, &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_agent_outcome(agents, "x", NULL, "tester", false, "nobody", &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_agent_forget(agents, "tester", &err), RUV_EINVAL);
	assert_int_equal(ruv_agent_teach(agents, "", NULL, -1, "x", NULL, &err), RUV_EINVAL);
	ruv_agent_router_free(agents);
	log = fopen(log_file, "a"); /* cut off by a crash */
	fwrite("AGE1\x10\0\0\0half", 1, 12, log);
	fclose(log);
	for (int time = 0; time < 2; time++) { /* again, and again without the half record */
		assert_ok(ruv_agent_router_open(&agents, bundle, log_file, NULL, &err), err);
		assert_string_equal(routed(agents, "translate the menu into French", &r), "translator");
		assert_string_equal(routed(agents, "localise the strings", &r), "translator");
		for (n = 0; ruv_agent_at(agents, n, &info); n++)
			if (!strcmp(info.name, "translator"))
				translator = n;
		assert_int_equal(n, 14);
		assert_true(translator >= 0 && ruv_agent_at(agents, translator, &info));
		assert_int_equal(info.n_good, 1);
		assert_int_equal(info.n_taught, 4);
		assert_string_equal(info.purpose, "translates texts");
		assert_int_equal(info.type, RUV_TASK_EXPLAIN);
		ruv_agent_router_free(agents);
	}
	assert_ok(ruv_agent_router_open(&agents, bundle, log_file, NULL, &err), err);
	assert_ok(ruv_agent_forget(agents, "translator", &err), err);
	assert_string_not_equal(routed(agents, "translate the menu into French", &r), "translator");
	assert_int_equal(ruv_agent_forget(agents, "translator", &err), RUV_ENOTFOUND);
	ruv_agent_router_free(agents);
	assert_ok(ruv_agent_router_open(&agents, bundle, log_file, NULL, &err), err);
	assert_string_not_equal(routed(agents, "translate the menu into French", &r), "translator");
	ruv_agent_router_free(agents);
}

static void vectors_and_no_bundle(void **state)
{
	ruv_agent_options options = {.dim = 3, .encoder = "e", .encoder_version = "1"};
	const float north[3] = {1, 0, 0}, east[3] = {0, 1, 0}, nearly_east[3] = {0.1f, 1, 0};
	ruv_agent_router *agents;
	ruv_agent_routed r;
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_agent_router_open(&agents, NULL, NULL, &options, &err), err);
	assert_int_equal(ruv_agent_route(agents, "anything", north, &r, &err), RUV_ENOTFOUND);
	assert_ok(ruv_agent_teach(agents, "a", NULL, RUV_TASK_BUILD, "alpha", north, &err), err);
	assert_ok(ruv_agent_teach(agents, "b", NULL, RUV_TASK_BUILD, "beta", east, &err), err);
	assert_ok(ruv_agent_route(agents, "gamma", nearly_east, &r, &err), err); /* no word is known: meaning decides */
	assert_string_equal(r.agent.agent, "b");
	ruv_agent_router_free(agents);
}

static void damaged_files_are_refused(void **state)
{
	ruv_agent_router *agents;
	char *bytes, path[80];
	size_t n;
	ruv_error err = {0};

	(void)state;
	snprintf(path, sizeof path, "%s.bad", bundle);
	assert_ok(ruv_file_read(&bytes, &n, bundle, (size_t)1 << 30, &err), err);
	for (size_t at = 30; at < n; at += n / 23) {
		bytes[at] ^= 1;
		assert_ok(ruv_file_write(path, bytes, n, &err), err);
		assert_int_equal(ruv_agent_router_open(&agents, path, NULL, NULL, &err), RUV_ECORRUPT);
		bytes[at] ^= 1;
	}
	assert_ok(ruv_file_write(path, bytes, n - 9, &err), err);
	assert_int_equal(ruv_agent_router_open(&agents, path, NULL, NULL, &err), RUV_ECORRUPT);
	free(bytes);
	unlink(path);
	assert_int_equal(ruv_agent_router_open(&agents, path, NULL, NULL, &err), RUV_ENOTFOUND);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(bundle, sizeof bundle, "%s/agents.bin", dir);
	snprintf(log_file, sizeof log_file, "%s/agents.log", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(bundle);
	unlink(log_file);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(training_makes_a_file), cmocka_unit_test(what_is_taught_stays),
	                                   cmocka_unit_test(vectors_and_no_bundle), cmocka_unit_test(damaged_files_are_refused)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

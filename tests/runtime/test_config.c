/* test_config.c - where a setting's value comes from, and what is said about wrong ones. */
#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "runtime/config.h"

static char dir[64];

static const char *value_of(const ruv_config *config, const char *key, ruv_config_origin *origin, const char **where)
{
	int i = ruv_config_key_find(key);

	assert_true(i >= 0);
	return ruv_config_value(config, i, origin, where);
}

static void write_file(char *path, size_t cap, const char *name, const char *text)
{
	FILE *file;

	snprintf(path, cap, "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	fclose(file);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ruv-config-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	/* Nothing of the machine that runs the test may be seen. */
	setenv("HOME", dir, 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("XDG_DATA_HOME");
	unsetenv("RUVLLM_CONFIG");
	for (int i = 0; ruv_config_key_at(i); i++)
		unsetenv(ruv_config_key_at(i)->env);
	return 0;
}

static int tear_down(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void test_defaults_are_valid(void **state)
{
	ruv_config *config;
	ruv_settings settings;
	ruv_error err = {0};
	char expect[128];

	(void)state;
	assert_ok(ruv_config_create(&config, &err), err);
	assert_ok(ruv_config_load(config, NULL, &err), err);
	assert_string_equal(ruv_config_file(config), "");
	assert_ok(ruv_config_settings(config, &settings, &err), err);
	assert_string_equal(settings.model, "l");
	assert_int_equal(settings.sources, 3);
	assert_true(settings.temperature != settings.temperature); /* auto */
	snprintf(expect, sizeof expect, "%s/.local/share/ruvllm", dir);
	assert_string_equal(settings.data_dir, expect);
	for (int i = 0; ruv_config_key_at(i); i++) {
		ruv_config_origin origin;

		assert_string_equal(ruv_config_value(config, i, &origin, NULL), ruv_config_key_at(i)->default_value);
		assert_int_equal(origin, RUV_CONFIG_DEFAULT);
		assert_true(strlen(ruv_config_key_at(i)->help) > 10);
	}
	ruv_config_free(config);
}

/* One key through all five origins, the strongest first taken away. */
static void test_precedence(void **state)
{
	ruv_config *config;
	ruv_config_origin origin;
	ruv_settings settings;
	ruv_error err = {0};
	const char *where;
	char path[128], expect[160];

	(void)state;
	write_file(path, sizeof path, "a.ini", "# machine\npreset = edge\n\ncontext = 2048 ; a comment\n");
	setenv("RUVLLM_CONTEXT", "3072", 1);
	assert_ok(ruv_config_create(&config, &err), err);
	assert_ok(ruv_config_set(config, "context", "512", &err), err);
	assert_ok(ruv_config_load(config, path, &err), err);
	assert_string_equal(value_of(config, "context", &origin, &where), "512");
	assert_int_equal(origin, RUV_CONFIG_FLAG);
	assert_string_equal(where, "--context");
	assert_ok(ruv_config_settings(config, &settings, &err), err);
	assert_int_equal(settings.context, 512);
	ruv_config_free(config);

	assert_ok(ruv_config_create(&config, &err), err);
	assert_ok(ruv_config_load(config, path, &err), err);
	assert_string_equal(value_of(config, "context", &origin, &where), "3072");
	assert_string_equal(where, "RUVLLM_CONTEXT");
	unsetenv("RUVLLM_CONTEXT");
	assert_ok(ruv_config_load(config, path, &err), err);
	assert_string_equal(value_of(config, "context", &origin, &where), "2048");
	snprintf(expect, sizeof expect, "%s:4", path);
	assert_string_equal(where, expect);
	assert_string_equal(ruv_config_file(config), path);

	write_file(path, sizeof path, "b.ini", "preset=edge\n");
	assert_ok(ruv_config_load(config, path, &err), err);
	assert_string_equal(value_of(config, "context", &origin, &where), "1024");
	assert_int_equal(origin, RUV_CONFIG_PRESET);
	assert_string_equal(where, "preset edge");
	assert_string_equal(value_of(config, "kv-type", &origin, NULL), "q8_0");
	/* A preset chosen by a flag replaces the file's. */
	assert_ok(ruv_config_set(config, "preset", "server-cpu", &err), err);
	assert_ok(ruv_config_settings(config, &settings, &err), err);
	assert_int_equal(settings.context, 4096);
	assert_string_equal(settings.kv_type, "f16");
	ruv_config_free(config);
}

static void test_usual_places(void **state)
{
	ruv_config *config;
	ruv_settings settings;
	ruv_error err = {0};
	char path[128], sub[96];

	(void)state;
	snprintf(sub, sizeof sub, "%s/.config", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	snprintf(sub, sizeof sub, "%s/.config/ruvllm", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	write_file(path, sizeof path, ".config/ruvllm/config.ini", "user = ada\ndata-dir = ~/memory\n");
	assert_ok(ruv_config_create(&config, &err), err);
	assert_ok(ruv_config_load(config, NULL, &err), err);
	assert_ok(ruv_config_settings(config, &settings, &err), err);
	assert_string_equal(settings.user, "ada");
	snprintf(sub, sizeof sub, "%s/memory", dir);
	assert_string_equal(settings.data_dir, sub);
	/* RUVLLM_CONFIG names another one, which must be there. */
	setenv("RUVLLM_CONFIG", "/nowhere/config.ini", 1);
	assert_int_equal(ruv_config_load(config, NULL, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "/nowhere/config.ini"));
	unsetenv("RUVLLM_CONFIG");
	setenv("XDG_DATA_HOME", "/var/xdg", 1);
	setenv("XDG_CONFIG_HOME", "/var/none", 1);
	assert_ok(ruv_config_load(config, NULL, &err), err);
	assert_ok(ruv_config_settings(config, &settings, &err), err);
	assert_string_equal(settings.data_dir, "/var/xdg/ruvllm");
	unsetenv("XDG_DATA_HOME");
	unsetenv("XDG_CONFIG_HOME");
	ruv_config_free(config);
}

/* Each wrong file is refused with its line and what is wrong. */
static void test_wrong_files(void **state)
{
	static const struct {
		const char *text;
		int status;
		const char *says[3];
	} cases[] = {
	    {"contxt = 3\n", RUV_ENOTFOUND, {"c.ini:1:", "contxt", "context"}},
	    {"\n\nsources = many\n", RUV_EINVAL, {"c.ini:3:", "many", "whole number"}},
	    {"sources = 99\n", RUV_EINVAL, {"c.ini:1:", "99", "0 to 50"}},
	    {"temperature = hot\n", RUV_EINVAL, {"c.ini:1:", "hot", "auto"}},
	    {"top-p = 1.5\n", RUV_EINVAL, {"c.ini:1:", "1.5", "0 to 1"}},
	    {"search = fuzzy\n", RUV_EINVAL, {"c.ini:1:", "fuzzy", "hybrid|vector|lexical"}},
	    {"sources = 2\nsources = 3\n", RUV_EFORMAT, {"c.ini:2:", "sources", "twice"}},
	    {"[model]\ncontext = 3\n", RUV_EFORMAT, {"c.ini:2:", "sections", "[model]"}},
	    {"context\n", RUV_EFORMAT, {"c.ini:1:", "key = value", ""}},
	};
	ruv_error err = {0};
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_config *config;

		write_file(path, sizeof path, "c.ini", cases[i].text);
		assert_ok(ruv_config_create(&config, &err), err);
		assert_int_equal(ruv_config_load(config, path, &err), cases[i].status);
		for (int j = 0; j < 3; j++)
			if (!strstr(err.message, cases[i].says[j]))
				fail_msg("case %zu: '%s' does not say '%s'", i, err.message, cases[i].says[j]);
		ruv_config_free(config);
	}
}

static void test_wrong_environment_and_flags(void **state)
{
	ruv_config *config;
	ruv_settings settings;
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_config_create(&config, &err), err);
	setenv("RUVLLM_THREADS", "-1", 1);
	assert_int_equal(ruv_config_load(config, NULL, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "RUVLLM_THREADS"));
	unsetenv("RUVLLM_THREADS");
	assert_int_equal(ruv_config_set(config, "tempratur", "1", &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "temperature"));
	assert_int_equal(ruv_config_set(config, "zzz", "1", &err), RUV_ENOTFOUND);
	assert_null(strstr(err.message, "did you mean"));
	assert_int_equal(ruv_config_set(config, "max-tokens", "0", &err), RUV_EINVAL);
	assert_ok(ruv_config_set(config, "preset", "server-gpu", &err), err);
	assert_int_equal(ruv_config_settings(config, &settings, &err), RUV_EUNSUPPORTED);
	assert_non_null(strstr(err.message, "server-cpu"));
	ruv_config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults_are_valid),
	    cmocka_unit_test(test_precedence),
	    cmocka_unit_test(test_usual_places),
	    cmocka_unit_test(test_wrong_files),
	    cmocka_unit_test(test_wrong_environment_and_flags),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

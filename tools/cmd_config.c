/* cmd_config.c - ruvllm config: every key, its value, and where that comes from. */
#include <string.h>

#include "cli_runtime.h"

int cmd_config(int argc, char **argv)
{
	static bool changed;
	static const cli_option options[] = {{"changed", 0, CLI_FLAG, &changed, NULL, "only what differs from the defaults"}, {0}};
	static const cli_spec spec = {
	    .name = "config",
	    .usage = "[OPTIONS] [KEY...]",
	    .summary = "Print the configuration: every key with its value and where the value comes from. A flag beats the "
		       "environment, that beats "
		       "the file, that beats the preset, that beats the default.",
	    .options = options,
	    .notes = "The file is ~/.config/ruvllm/config.ini (or $XDG_CONFIG_HOME/ruvllm/config.ini, or RUVLLM_CONFIG, or "
		     "--config FILE): lines "
		     "'key = value', comments begin with # or ;.",
	    .examples = "ruvllm config\nruvllm config --preset edge --changed\nruvllm config model context --json",
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	static const char *const origins[RUV_N_CONFIG_ORIGINS] = {"default", "preset", "file", "environment", "flag"};
	cli_args args;
	ruv_config *config;
	ruv_runtime *runtime; /* knows what a preset or an empty data-dir comes to */
	const char *names[256];
	int n_names = 0;
	json_t *json = NULL;
	cli_table *table = NULL;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	config = cli_config(&code);
	if (!config)
		return code;
	for (; ruv_config_key_at(n_names) && n_names < 256; n_names++)
		names[n_names] = ruv_config_key_at(n_names)->name;
	for (int i = 0; i < args.n; i++) {
		const char *near = cli_nearest(args.items[i], names, n_names);

		if (ruv_config_key_find(args.items[i]) < 0)
			return near ? cli_usage("there is no key '%s'; did you mean '%s'?", args.items[i], near)
			            : cli_usage("there is no key '%s'; `ruvllm config` lists them", args.items[i]);
	}
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	if (cli.json)
		json = json_object();
	else
		table = cli_table_create("KEY|VALUE|FROM|MEANING");
	for (int i = 0; ruv_config_key_at(i); i++) {
		const ruv_config_key *key = ruv_config_key_at(i);
		ruv_config_origin origin;
		const char *where, *value = ruv_config_value(config, i, &origin, &where);
		bool wanted = args.n == 0;

		if (!strcmp(key->name, "data-dir"))
			value = ruv_runtime_data_dir(runtime);

		for (int j = 0; j < args.n; j++)
			wanted = wanted || !strcmp(args.items[j], key->name);
		if (!wanted || (changed && origin == RUV_CONFIG_DEFAULT))
			continue;
		if (cli.json) {
			json_object_set_new(json, key->name,
			                    json_pack("{s:o, s:s, s:o, s:s, s:s}", "value", cli_json_text(value), "origin",
			                              origins[origin], "where", cli_json_text(where), "env", key->env, "help",
			                              key->help));
		} else {
			cli_table_cell(table, "%s", key->name);
			cli_table_cell(table, "%s", *value ? value : "-");
			cli_table_cell(table, "%s", where);
			cli_table_cell(table, "%s", key->help);
		}
	}
	if (cli.json) {
		ruv_runtime_free(runtime);
		return cli_json_print(json_pack("{s:s, s:o}", "file", ruv_config_file(config), "keys", json));
	}
	cli_table_print(table, stdout);
	ruv_runtime_free(runtime);
	cli_note("file: %s", *ruv_config_file(config) ? ruv_config_file(config) : "none");
	return CLI_EXIT_OK;
}

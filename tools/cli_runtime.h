/* cli_runtime.h - the configuration's keys as options of a subcommand, the runtime they open, and what to do about its errors.
 * Layer: tools. */
#ifndef RUV_TOOLS_CLI_RUNTIME_H
#define RUV_TOOLS_CLI_RUNTIME_H

#include "cli.h"
#include "ruvllm/runtime.h"

/* For a cli_spec's last members: every key is an option, and --config FILE. */
#define CLI_CONFIG_OPTIONS                                                                                                         \
	.knows = cli_config_knows, .take = cli_config_take, .help = cli_config_help, .name_at = cli_config_name_at
bool cli_config_knows(const char *name, bool *needs_value);
int cli_config_take(const char *name, const char *value, ruv_error *err);
void cli_config_help(FILE *out);
const char *cli_config_name_at(int i);

/* The configuration with the flags that cli_parse() saw, the environment and the file; loaded at the first call, the program's.
 * NULL: it failed and said so, *exit_code is what to end with. */
ruv_config *cli_config(int *exit_code);
/* A runtime on it; the caller frees it. The same failure. */
ruv_runtime *cli_runtime(int *exit_code);
/* Reports an error of the runtime with what to do next. Returns the exit code. */
int cli_runtime_fail(const ruv_error *err);

/* A path as people write it here: relative to the working directory when it lies below it. Into text[0..cap). */
const char *cli_short_path(const char *path, char *text, size_t cap);
/* "docs/backup.md:12" or "docs/backup.md:12-18". */
const char *cli_place(const char *source, int first_line, int last_line, char *text, size_t cap);

#endif

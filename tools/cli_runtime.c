/* cli_runtime.c - configuration as options, see cli_runtime.h. */
#include "cli_runtime.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static ruv_config *config; /* made when the first flag is seen; freed at exit */
static const char *config_path;
static bool loaded;

static void free_config(void)
{
	ruv_config_free(config);
	config = NULL;
}

static int need_config(ruv_error *err)
{
	int rc;

	if (config)
		return RUV_OK;
	rc = ruv_config_create(&config, err);
	if (!rc)
		atexit(free_config);
	return rc;
}

/* "no-x" is x switched off when x is a switch. */
static int find_key(const char *name, bool *negated)
{
	int i = ruv_config_key_find(name);

	*negated = false;
	if (i < 0 && !strncmp(name, "no-", 3)) {
		i = ruv_config_key_find(name + 3);
		if (i >= 0 && !ruv_config_key_at(i)->is_switch)
			i = -1;
		*negated = i >= 0;
	}
	return i;
}

bool cli_config_knows(const char *name, bool *needs_value)
{
	bool negated;
	int i;

	*needs_value = true;
	if (!strcmp(name, "config"))
		return true;
	i = find_key(name, &negated);
	if (i < 0)
		return false;
	*needs_value = !ruv_config_key_at(i)->is_switch;
	return true;
}

int cli_config_take(const char *name, const char *value, ruv_error *err)
{
	bool negated;
	int i, rc;

	if (!strcmp(name, "config")) {
		config_path = value;
		return RUV_OK;
	}
	i = find_key(name, &negated);
	rc = need_config(err);
	if (rc)
		return rc;
	return ruv_config_set(config, ruv_config_key_at(i)->name, value ? value : negated ? "no" : "yes", err);
}

const char *cli_config_name_at(int i)
{
	const ruv_config_key *key;

	if (i == 0)
		return "config";
	key = ruv_config_key_at(i - 1);
	return key ? key->name : NULL;
}

/* Which keys a command's help lists; every command takes all of them. Others list all. */
static const struct {
	const char *command, *groups;
} uses[] = {
    {"agent", "place compute whose"},
    {"ask", "place model compute generate search route learn whose traces"},
    {"bench", "place model compute generate"},
    {"chat", "place model compute generate search route learn whose"},
    {"eval", "place model compute generate search remember route"},
    {"learn", "place model compute generate search learn whose"},
    {"mcp", "place model compute generate search remember route learn whose"},
    {"memory", "place compute search whose"},
    {"pull", "place pull"},
    {"remember", "place compute remember whose"},
    {"router", "place model compute generate search route whose"},
    {"serve", "place model compute generate search remember route learn whose traces serve"},
};

static const char *groups_of(const char *command)
{
	for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
		if (!strcmp(uses[i].command, command))
			return uses[i].groups;
	return NULL;
}

/* Is the word one of the list's? */
static bool is_listed(const char *list, const char *word)
{
	const size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

void cli_config_help(FILE *out)
{
	const char *groups = groups_of(cli.command);

	fprintf(out,
	        "\n%sConfiguration%s (also in the environment, RUVLLM_..., and in the file; `ruvllm config` shows the values)\n",
	        cli_sgr(out, CLI_BOLD), cli_sgr(out, CLI_PLAIN));
	fprintf(out, "      --config FILE            the file (default: ~/.config/ruvllm/config.ini)\n");
	for (int i = 0; ruv_config_key_at(i); i++) {
		const ruv_config_key *key = ruv_config_key_at(i);

		if (groups && !is_listed(groups, ruv_config_key_group(i)))
			continue;
		bool has_default = *key->default_value && !strstr(key->help, "default");
		char left[96];
		int n = snprintf(left, sizeof left, "      --%s%s%s", key->name, key->is_switch ? "" : " ",
		                 key->is_switch ? "" : key->arg);

		fprintf(out, "%-30s ", left);
		if (n > 30)
			fprintf(out, "\n%31s", "");
		fprintf(out, "%s%s%s%s\n", key->help, has_default ? " (default " : "", has_default ? key->default_value : "",
		        has_default ? ")" : "");
	}
	if (groups)
		fprintf(out, "Other keys are taken as well: `ruvllm config --help` lists all.\n");
}

static void log_line(void *user, ruv_log_level level, const char *where, const char *line)
{
	(void)user;
	(void)where;
	fprintf(stderr, "%sruvllm:%s %s\n", cli_sgr(stderr, level >= RUV_LOG_WARN ? CLI_YELLOW : CLI_DIM),
	        cli_sgr(stderr, CLI_PLAIN), line);
}

ruv_config *cli_config(int *exit_code)
{
	ruv_error err = {0};
	int rc;

	*exit_code = CLI_EXIT_OK;
	if (loaded)
		return config;
	ruv_log_set(log_line, NULL, cli.verbose ? RUV_LOG_INFO : RUV_LOG_WARN);
	rc = need_config(&err);
	if (!rc)
		rc = ruv_config_load(config, config_path, &err);
	if (rc) {
		*exit_code = cli_fail(&err, NULL);
		return NULL;
	}
	loaded = true;
	return config;
}

ruv_runtime *cli_runtime(int *exit_code)
{
	ruv_config *c = cli_config(exit_code);
	ruv_runtime *runtime = NULL;
	ruv_error err = {0};

	if (!c)
		return NULL;
	if (ruv_runtime_open(&runtime, c, &err))
		*exit_code = cli_fail(&err, NULL);
	return runtime;
}

int cli_runtime_fail(const ruv_error *err)
{
	const char *next = NULL;
	bool is_model = err->where && !strcmp(err->where, "models");

	switch (err->code) {
	case RUV_ENOTFOUND:
		if (is_model)
			next = "set --models-dir to where the models lie, or --model and --encoder to GGUF files";
		else if (err->where && !strcmp(err->where, "ask"))
			next = "give it something first: ruvllm remember FILE|DIR (or ask the model alone with --no-memory)";
		break;
	case RUV_EMISMATCH:
		if (err->where && strstr(err->where, "memory"))
			next = "name that encoder with --encoder, take another --data-dir, or run `ruvllm memory reembed --all`";
		break;
	case RUV_ECONTEXT:
		next = "a larger --context helps where the model allows it";
		break;
	case RUV_ENOMEM:
		next = "a smaller --context, --kv-type q8_0 or a smaller --model needs less";
		break;
	case RUV_ECORRUPT:
		next = "`ruvllm doctor` says what is damaged";
		break;
	default:
		break;
	}
	return cli_fail(err, next);
}

const char *cli_short_path(const char *path, char *text, size_t cap)
{
	char cwd[PATH_MAX];
	size_t n;

	if (path[0] == '/' && getcwd(cwd, sizeof cwd)) {
		n = strlen(cwd);
		if (n > 1 && !strncmp(path, cwd, n) && path[n] == '/')
			path += n + 1;
	}
	snprintf(text, cap, "%s", path);
	return text;
}

const char *cli_place(const char *source, int first_line, int last_line, char *text, size_t cap)
{
	size_t n;

	cli_short_path(source, text, cap);
	n = strlen(text);
	if (first_line > 0 && last_line > first_line)
		snprintf(text + n, cap - n, ":%d-%d", first_line, last_line);
	else if (first_line > 0)
		snprintf(text + n, cap - n, ":%d", first_line);
	return text;
}

/* config.c - reading the configuration: flags over environment over file over preset over defaults.
 *
 * Every origin keeps its own value of a key, as text and already checked; the effective one is that of the strongest origin that
 * has one, so the order in which origins are read does not matter. Which preset applies is itself decided by flag, environment and
 * file.
 *
 * The file is `key = value` lines with # and ; comments (inih); it has no sections. Layer: runtime. */
#include "runtime/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/status.h"

typedef enum kind { TEXT, PATH, INT, REAL, SWITCH, CHOICE } kind;

enum {
#define X(field, kind, name, arg, min, max, def, edge, server, help) KEY_##field,
	RUV_CONFIG_LIST(X)
#undef X
	    N_KEYS
};

typedef struct row {
	kind kind;
	double min, max;
	const char *presets[2]; /* edge, server-cpu */
} row;

static const row rows[N_KEYS] = {
#define X(field, kind, name, arg, min, max, def, edge, server, help) {kind, (double)(min), (double)(max), {edge, server}},
    RUV_CONFIG_LIST(X)
#undef X
};

static const char *const preset_names[] = {"edge", "server-cpu"};

#define MAX_ENV 40

/* Filled at the first use with the same bytes by whoever comes first; RUVLLM_ and the name in capitals. */
static char env_names[N_KEYS][MAX_ENV];

static const ruv_config_key keys[N_KEYS] = {
#define X(field, kind, name, arg, min, max, def, edge, server, help) {name, env_names[KEY_##field], arg, def, help, kind == SWITCH},
    RUV_CONFIG_LIST(X)
#undef X
};

/* What keys are about: each group from its first key on. */
static const struct {
	int first;
	const char *group;
} groups[] = {
    {KEY_preset, "place"},    {KEY_model, "model"},           {KEY_encoder, "compute"},     {KEY_variant, "model"},
    {KEY_threads, "compute"}, {KEY_batch, "model"},           {KEY_models_memory, "serve"}, {KEY_draft, "generate"},
    {KEY_sources, "search"},  {KEY_chunk_tokens, "remember"}, {KEY_router, "route"},        {KEY_write_back, "learn"},
    {KEY_hub, "pull"},        {KEY_otlp_endpoint, "traces"},  {KEY_user, "whose"},          {KEY_host, "serve"},
};

struct ruv_config {
	char *values[N_KEYS][RUV_N_CONFIG_ORIGINS]; /* NULL: not set there; DEFAULT is always set */
	char *where[N_KEYS];                        /* FILE:LINE of the file's value */
	char *expanded[N_KEYS];                     /* PATH values with ~ replaced, made by ruv_config_settings */
	char *file;
};

static void name_env(void)
{
	for (int i = 0; i < N_KEYS; i++) {
		const char *p = keys[i].name;
		char *q = env_names[i] + 7;

		memcpy(env_names[i], "RUVLLM_", 7);
		for (; *p && q < env_names[i] + MAX_ENV - 1; p++)
			*q++ = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
	}
}

const ruv_config_key *ruv_config_key_at(int i)
{
	if (i < 0 || i >= N_KEYS)
		return NULL;
	if (!env_names[N_KEYS - 1][0])
		name_env();
	return &keys[i];
}

const char *ruv_config_key_group(int i)
{
	const char *group = NULL;

	for (size_t g = 0; i >= 0 && i < N_KEYS && g < sizeof groups / sizeof *groups && groups[g].first <= i; g++)
		group = groups[g].group;
	return group;
}

int ruv_config_key_find(const char *name)
{
	for (int i = 0; i < N_KEYS; i++)
		if (!strcmp(name, keys[i].name))
			return i;
	return -1;
}

/* ---- checking values --------------------------------------------------------------------------------------------------- */

static bool has_choice(const char *choices, const char *value)
{
	size_t n = strlen(value);

	for (const char *p = choices; p;) {
		const char *bar = strchr(p, '|');
		size_t len = bar ? (size_t)(bar - p) : strlen(p);

		if (len == n && !memcmp(p, value, n))
			return true;
		p = bar ? bar + 1 : NULL;
	}
	return false;
}

static bool parse_switch(const char *value, bool *on)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};

	for (int i = 0; i < 4; i++) {
		if (!strcasecmp(value, yes[i])) {
			*on = true;
			return true;
		}
		if (!strcasecmp(value, no[i])) {
			*on = false;
			return true;
		}
	}
	return false;
}

static bool parse_int(const char *value, int64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoll(value, &end, 10);
	return end != value && !*end && !errno;
}

/* "auto" is NaN. */
static bool parse_real(const char *value, double *number)
{
	char *end;

	if (!strcmp(value, "auto")) {
		*number = NAN;
		return true;
	}
	*number = strtod(value, &end);
	return end != value && !*end && isfinite(*number);
}

static int check_value(int i, const char *value, ruv_error *err)
{
	const row *r = &rows[i];
	int64_t whole;
	double number;
	bool on;

	switch (r->kind) {
	case TEXT:
	case PATH:
		return RUV_OK;
	case CHOICE:
		if (!has_choice(keys[i].arg, value))
			return ruv_fail(err, RUV_EINVAL, "config", "%s is '%s', but must be one of %s", keys[i].name, value,
			                keys[i].arg);
		return RUV_OK;
	case SWITCH:
		if (!parse_switch(value, &on))
			return ruv_fail(err, RUV_EINVAL, "config", "%s is '%s', but must be yes or no", keys[i].name, value);
		return RUV_OK;
	case INT:
		if (!parse_int(value, &whole))
			return ruv_fail(err, RUV_EINVAL, "config", "%s is '%s', but must be a whole number", keys[i].name, value);
		if ((double)whole < r->min || (double)whole > r->max)
			return ruv_fail(err, RUV_EINVAL, "config", "%s is %s, but must be %.0f to %.0f", keys[i].name, value,
			                r->min, r->max);
		return RUV_OK;
	case REAL:
		if (!parse_real(value, &number))
			return ruv_fail(err, RUV_EINVAL, "config", "%s is '%s', but must be a number or auto", keys[i].name, value);
		if (number < r->min || number > r->max) /* NaN passes */
			return ruv_fail(err, RUV_EINVAL, "config", "%s is %s, but must be %g to %g", keys[i].name, value, r->min,
			                r->max);
		return RUV_OK;
	}
	return RUV_OK;
}

/* The key whose name shares most with `name`: the same letters counted in order, from the front. For a hint only. */
static const char *nearest_key(const char *name)
{
	const char *best = NULL;
	double best_share = 0.6;

	for (int i = 0; i < N_KEYS; i++) {
		size_t n = strlen(name), m = strlen(keys[i].name);
		int row_now[64] = {0};

		if (n > 63 || m > 63)
			continue;
		for (size_t a = 0; a < n; a++) { /* longest common subsequence */
			int diagonal = 0;

			for (size_t b = 0; b < m; b++) {
				int above = row_now[b + 1];

				if ((name[a] == '_' ? '-' : name[a]) == keys[i].name[b])
					row_now[b + 1] = diagonal + 1;
				else if (row_now[b] > above)
					row_now[b + 1] = row_now[b];
				diagonal = above;
			}
		}
		double share = 2.0 * row_now[m] / (double)(n + m);

		if (share > best_share) {
			best_share = share;
			best = keys[i].name;
		}
	}
	return best;
}

static int unknown_key(const char *name, ruv_error *err)
{
	const char *near = nearest_key(name);

	return ruv_fail(err, RUV_ENOTFOUND, "config", "there is no key '%s'%s%s%s", name, near ? "; did you mean '" : "",
	                near ? near : "", near ? "'?" : "; `ruvllm config` lists the keys");
}

static int set_value(ruv_config *config, int i, ruv_config_origin origin, const char *value, ruv_error *err)
{
	char *copy;
	int rc = check_value(i, value, err);

	if (rc)
		return rc;
	copy = strdup(value);
	if (!copy)
		return ruv_fail_memory(err, "config", strlen(value) + 1);
	free(config->values[i][origin]);
	config->values[i][origin] = copy;
	return RUV_OK;
}

/* ---- objects ----------------------------------------------------------------------------------------------------------- */

int ruv_config_create(ruv_config **out, ruv_error *err)
{
	ruv_config *config = calloc(1, sizeof *config);
	int rc = RUV_OK;

	if (!config)
		return ruv_fail_memory(err, "config", sizeof *config);
	for (int i = 0; !rc && i < N_KEYS; i++)
		rc = set_value(config, i, RUV_CONFIG_DEFAULT, ruv_config_key_at(i)->default_value, err);
	if (rc) {
		ruv_config_free(config);
		return rc;
	}
	*out = config;
	return RUV_OK;
}

void ruv_config_free(ruv_config *config)
{
	if (!config)
		return;
	for (int i = 0; i < N_KEYS; i++) {
		for (int o = 0; o < RUV_N_CONFIG_ORIGINS; o++)
			free(config->values[i][o]);
		free(config->where[i]);
		free(config->expanded[i]);
	}
	free(config->file);
	free(config);
}

int ruv_config_copy(ruv_config **out, const ruv_config *config, ruv_error *err)
{
	ruv_config *copy;
	int rc = ruv_config_create(&copy, err);

	if (rc)
		return rc;
	for (int i = 0; i < N_KEYS; i++)
		for (int o = 0; !rc && o < RUV_N_CONFIG_ORIGINS; o++)
			if (config->values[i][o])
				rc = set_value(copy, i, (ruv_config_origin)o, config->values[i][o], err);
	if (!rc && config->file && !(copy->file = strdup(config->file)))
		rc = ruv_fail_memory(err, "config", strlen(config->file));
	if (rc) {
		ruv_config_free(copy);
		return rc;
	}
	*out = copy;
	return RUV_OK;
}

int ruv_config_set(ruv_config *config, const char *name, const char *value, ruv_error *err)
{
	int i = ruv_config_key_find(name);

	if (i < 0)
		return unknown_key(name, err);
	return set_value(config, i, RUV_CONFIG_FLAG, value, err);
}

/* ---- the file ---------------------------------------------------------------------------------------------------------- */

typedef struct file_reader {
	ruv_config *config;
	FILE *stream;
	const char *path;
	int line;
	int rc;
	ruv_error *err;
} file_reader;

/* inih's own copy of the parser reports no line numbers to handlers, so lines are counted where they are read. */
static char *read_line(char *text, int n, void *user)
{
	file_reader *reader = user;
	char *line = fgets(text, n, reader->stream);

	if (!line)
		return NULL;
	reader->line++;
	size_t len = strlen(line);

	if (len + 1 == (size_t)n && line[len - 1] != '\n' && !feof(reader->stream) && !reader->rc) {
		int c = fgetc(reader->stream);

		if (c != EOF && c != '\n')
			reader->rc = ruv_fail(reader->err, RUV_ELIMIT, "config", "%s:%d: the line is longer than %d bytes",
			                      reader->path, reader->line, n - 2);
	}
	return line;
}

static int on_pair(void *user, const char *section, const char *name, const char *value)
{
	file_reader *reader = user;
	ruv_config *config = reader->config;
	char where[512];
	int i;

	if (reader->rc)
		return 0;
	if (*section) {
		reader->rc =
		    ruv_fail(reader->err, RUV_EFORMAT, "config", "%s:%d: the file has no sections; write '%s = %s' before '[%s]'",
		             reader->path, reader->line, name, value, section);
		return 0;
	}
	i = ruv_config_key_find(name);
	reader->rc = i < 0 ? unknown_key(name, reader->err) : RUV_OK;
	if (!reader->rc && config->values[i][RUV_CONFIG_FILE])
		reader->rc = ruv_fail(reader->err, RUV_EFORMAT, "config", "'%s' is set twice", name);
	if (!reader->rc)
		reader->rc = set_value(config, i, RUV_CONFIG_FILE, value, reader->err);
	if (reader->rc) {
		ruv_error_prefix(reader->err, reader->rc, "%s:%d: ", reader->path, reader->line);
		return 0;
	}
	snprintf(where, sizeof where, "%s:%d", reader->path, reader->line);
	config->where[i] = strdup(where);
	return 1;
}

static int read_file(ruv_config *config, const char *path, bool must_be_there, ruv_error *err)
{
	file_reader reader = {.config = config, .path = path, .err = err};
	int bad_line;

	for (int i = 0; i < N_KEYS; i++) { /* a second load replaces the first */
		free(config->values[i][RUV_CONFIG_FILE]);
		config->values[i][RUV_CONFIG_FILE] = NULL;
		free(config->where[i]);
		config->where[i] = NULL;
	}
	free(config->file);
	config->file = NULL;
	reader.stream = fopen(path, "re");
	if (!reader.stream) {
		if (errno == ENOENT && !must_be_there)
			return RUV_OK;
		return ruv_fail_errno(err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, "config", "the configuration file %s",
		                      path);
	}
	bad_line = ini_parse_stream(read_line, &reader, on_pair, &reader);
	if (!reader.rc && ferror(reader.stream))
		reader.rc = ruv_fail(err, RUV_EIO, "config", "%s: reading failed", path);
	fclose(reader.stream);
	if (reader.rc)
		return reader.rc;
	if (bad_line < 0)
		return ruv_fail_memory(err, "config", 0);
	if (bad_line > 0)
		return ruv_fail(err, RUV_EFORMAT, "config", "%s:%d: this is no 'key = value' line", path, bad_line);
	config->file = strdup(path);
	return config->file ? RUV_OK : ruv_fail_memory(err, "config", strlen(path) + 1);
}

/* The user's home directory, or NULL. */
static const char *home_dir(void)
{
	const char *home = getenv("HOME");
	const struct passwd *user;

	if (home && *home)
		return home;
	user = getpwuid(getuid());
	return user && user->pw_dir && *user->pw_dir ? user->pw_dir : NULL;
}

/* $VAR/ruvllm/tail or ~/fallback/ruvllm/tail by the XDG rules (a relative value of the variable is ignored); NULL without a home
 * or memory. */
static char *xdg_path(const char *variable, const char *fallback, const char *tail)
{
	const char *base = getenv(variable), *home;
	char *path = NULL;
	int n = -1;

	if (base && *base == '/') {
		n = asprintf(&path, "%s/ruvllm%s", base, tail);
	} else {
		home = home_dir();
		if (home)
			n = asprintf(&path, "%s/%s/ruvllm%s", home, fallback, tail);
	}
	return n < 0 ? NULL : path;
}

extern char **environ;

static int read_env(ruv_config *config, ruv_error *err)
{
	static const char *const others[] = {"RUVLLM_CONFIG", "RUVLLM_ISA"};

	for (int i = 0; i < N_KEYS; i++) {
		const char *name = ruv_config_key_at(i)->env, *value = getenv(name);
		int rc;

		free(config->values[i][RUV_CONFIG_ENV]);
		config->values[i][RUV_CONFIG_ENV] = NULL;
		if (!value)
			continue;
		rc = set_value(config, i, RUV_CONFIG_ENV, value, err);
		if (rc)
			return ruv_error_prefix(err, rc, "%s in the environment: ", name);
	}
	for (char **p = environ; p && *p; p++) {
		size_t n = strcspn(*p, "=");
		bool known = false;

		if (strncmp(*p, "RUVLLM_", 7))
			continue;
		for (int i = 0; i < N_KEYS && !known; i++)
			known = strlen(keys[i].env) == n && !memcmp(keys[i].env, *p, n);
		for (int i = 0; i < 2 && !known; i++)
			known = strlen(others[i]) == n && !memcmp(others[i], *p, n);
		if (!known)
			ruv_log(RUV_LOG_WARN, "config", "%.*s in the environment is no key of RuvLLM and does nothing", (int)n, *p);
	}
	return RUV_OK;
}

static const char *effective(const ruv_config *config, int i, ruv_config_origin *origin)
{
	int o = RUV_CONFIG_FLAG;

	while (!config->values[i][o])
		o--;
	*origin = (ruv_config_origin)o;
	return config->values[i][o];
}

/* Lays the chosen preset's values under file, environment and flags. */
static int apply_preset(ruv_config *config, ruv_error *err)
{
	ruv_config_origin origin;
	const char *preset = effective(config, KEY_preset, &origin);

	for (int i = 0; i < N_KEYS; i++) {
		free(config->values[i][RUV_CONFIG_PRESET]);
		config->values[i][RUV_CONFIG_PRESET] = NULL;
	}
	for (int p = 0; p < 2; p++) {
		if (strcmp(preset, preset_names[p]))
			continue;
		for (int i = 0; i < N_KEYS; i++) {
			int rc = rows[i].presets[p] ? set_value(config, i, RUV_CONFIG_PRESET, rows[i].presets[p], err) : RUV_OK;

			if (rc)
				return rc;
		}
	}
	return RUV_OK;
}

int ruv_config_load(ruv_config *config, const char *path, ruv_error *err)
{
	const char *named = path ? path : getenv("RUVLLM_CONFIG");
	char *usual = NULL;
	int rc = RUV_OK;

	if (named && *named) {
		rc = read_file(config, named, true, err);
	} else {
		usual = xdg_path("XDG_CONFIG_HOME", ".config", "/config.ini");
		if (usual)
			rc = read_file(config, usual, false, err);
	}
	if (!rc)
		rc = read_env(config, err);
	if (!rc)
		rc = apply_preset(config, err);
	free(usual);
	return rc;
}

const char *ruv_config_file(const ruv_config *config)
{
	return config->file ? config->file : "";
}

const char *ruv_config_value(const ruv_config *config, int i, ruv_config_origin *origin, const char **where)
{
	static _Thread_local char text[96];
	ruv_config_origin from;
	const char *value;

	if (i < 0 || i >= N_KEYS)
		return NULL;
	value = effective(config, i, &from);
	if (origin)
		*origin = from;
	if (where) {
		ruv_config_origin preset_from;

		*where = text;
		switch (from) {
		case RUV_CONFIG_PRESET:
			snprintf(text, sizeof text, "preset %s", effective(config, KEY_preset, &preset_from));
			break;
		case RUV_CONFIG_FILE:
			*where = config->where[i] ? config->where[i] : ruv_config_file(config);
			break;
		case RUV_CONFIG_ENV:
			*where = ruv_config_key_at(i)->env;
			break;
		case RUV_CONFIG_FLAG:
			snprintf(text, sizeof text, "--%s", keys[i].name);
			break;
		default:
			*where = "default";
		}
	}
	return value;
}

/* ---- typed values ------------------------------------------------------------------------------------------------------ */

/* The value with ~/ replaced, kept in the config. */
static int expand_path(ruv_config *config, int i, const char *value, ruv_error *err)
{
	char *path = NULL;

	if (!strncmp(value, "~/", 2)) {
		const char *home = home_dir();

		if (!home)
			return ruv_fail(err, RUV_EINVAL, "config", "%s is '%s', but HOME is not set", keys[i].name, value);
		if (asprintf(&path, "%s/%s", home, value + 2) < 0)
			path = NULL;
	} else if (i == KEY_data_dir && !*value) {
		path = xdg_path("XDG_DATA_HOME", ".local/share", "");
		if (!path)
			return ruv_fail(err, RUV_EINVAL, "config", "there is no home directory to keep memory in; set --data-dir");
	} else {
		path = strdup(value);
	}
	if (!path)
		return ruv_fail_memory(err, "config", strlen(value) + 1);
	free(config->expanded[i]);
	config->expanded[i] = path;
	return RUV_OK;
}

static int to_TEXT(ruv_config *config, int i, const char *value, const char **field, ruv_error *err)
{
	(void)config, (void)i, (void)err;
	*field = value;
	return RUV_OK;
}
#define to_CHOICE to_TEXT

static int to_PATH(ruv_config *config, int i, const char *value, const char **field, ruv_error *err)
{
	int rc = expand_path(config, i, value, err);

	*field = config->expanded[i];
	return rc;
}

static int to_INT(ruv_config *config, int i, const char *value, int64_t *field, ruv_error *err)
{
	(void)config;
	return parse_int(value, field) ? RUV_OK : check_value(i, value, err);
}

static int to_SWITCH(ruv_config *config, int i, const char *value, bool *field, ruv_error *err)
{
	(void)config;
	return parse_switch(value, field) ? RUV_OK : check_value(i, value, err);
}

static int to_REAL(ruv_config *config, int i, const char *value, double *field, ruv_error *err)
{
	(void)config;
	return parse_real(value, field) ? RUV_OK : check_value(i, value, err);
}

int ruv_config_settings(ruv_config *config, ruv_settings *settings, ruv_error *err)
{
	ruv_config_origin origin;
	int rc = apply_preset(config, err);

#define X(field, kind, name, arg, min, max, def, edge, server, help)                                                               \
	if (!rc)                                                                                                                   \
		rc = to_##kind(config, KEY_##field, effective(config, KEY_##field, &origin), &settings->field, err);
	RUV_CONFIG_LIST(X)
#undef X
	if (!rc && !strcmp(settings->preset, "server-gpu"))
		rc = ruv_fail(
		    err, RUV_EUNSUPPORTED, "config",
		    "preset server-gpu needs a GPU backend, and this build has none (backends: cpu); use preset server-cpu");
	return rc;
}

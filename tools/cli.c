/* cli.c - options from tables, the help made of them, and errors as one sentence.
 *
 * Long options are --name VALUE or --name=VALUE, flags --name and --no-name; short ones -k 8, -k8, and flags may be joined (-qv).
 * "--" ends the options; "-" alone is a positional argument (standard input). Positional arguments may stand between options: they
 * are moved to the front of argv, in order. A config key's option (spec->knows) comes after the command's own. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"

cli_state cli = {.command = ""};

static bool want_help, no_color;

const cli_visitor *cli_visiting;

static const cli_option shared_options[] = {
    {"json", 0, CLI_FLAG, &cli.json, NULL, "print the result as one JSON document"},
    {"quiet", 'q', CLI_FLAG, &cli.quiet, NULL, "no progress and no notes"},
    {"verbose", 'v', CLI_FLAG, &cli.verbose, NULL, "say more about what is done"},
    {"no-color", 0, CLI_FLAG, &no_color, NULL, "no colours (NO_COLOR in the environment does the same)"},
    {"help", 'h', CLI_FLAG, &want_help, NULL, "show this help"},
    {0},
};

const cli_option *cli_shared_options(void)
{
	return shared_options;
}

/* ---- spelling ---------------------------------------------------------------------------------------------------------- */

/* Edits that turn a into b, a swap of neighbours counting as one; at most 63 characters of each. */
static int edit_distance(const char *a, const char *b)
{
	int row[3][64];
	int n = (int)strnlen(a, 63), m = (int)strnlen(b, 63);

	for (int j = 0; j <= m; j++)
		row[0][j] = j;
	for (int i = 1; i <= n; i++) {
		int *now = row[i % 3], *before = row[(i - 1) % 3], *before2 = row[(i + 1) % 3];

		now[0] = i;
		for (int j = 1; j <= m; j++) {
			int cost = before[j - 1] + (a[i - 1] != b[j - 1]);

			if (before[j] + 1 < cost)
				cost = before[j] + 1;
			if (now[j - 1] + 1 < cost)
				cost = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before2[j - 2] + 1 < cost)
				cost = before2[j - 2] + 1;
			now[j] = cost;
		}
	}
	return row[n % 3][m];
}

const char *cli_nearest(const char *word, const char *const *words, int n)
{
	const char *best = NULL;
	int best_distance = 1 + (int)strlen(word) / 3; /* a slip, not another word */

	for (int i = 0; i < n; i++) {
		int distance = edit_distance(word, words[i]);

		if (distance <= best_distance && (!best || distance < best_distance)) {
			best = words[i];
			best_distance = distance;
		}
	}
	if (best)
		return best;
	for (int i = 0; i < n; i++) /* "quant" for "quantize" */
		if (strlen(word) >= 3 && !strncmp(word, words[i], strlen(word)))
			return words[i];
	return NULL;
}

static void show_parts(const cli_parts *command, FILE *out)
{
	char kind[16]; /* "ACTION": what stands for a name is in capitals */
	int width = 0;

	snprintf(kind, sizeof kind, "%s", command->kind);
	for (char *c = kind; *c; c++)
		*c = (char)toupper((unsigned char)*c);
	for (const cli_part *part = command->parts; part->name; part++)
		if ((int)strlen(part->name) > width)
			width = (int)strlen(part->name);
	fprintf(out, "Usage: ruvllm %s %s [OPTIONS] ...\n\n%s\n\n", command->name, kind, command->summary);
	for (const cli_part *part = command->parts; part->name; part++)
		fprintf(out, "  %-*s  %s\n", width, part->name, part->help);
	fprintf(out, "\n`ruvllm %s %s --help` explains one.\n", command->name, kind);
}

/* Hands over the table and those of its parts. */
static int visit_parts(const cli_parts *command)
{
	cli_visiting->parts(cli_visiting->user, command);
	for (const cli_part *part = command->parts; part->name; part++)
		part->run(1, (char *[]){(char *)(uintptr_t)part->name, NULL});
	return CLI_EXIT_OK;
}

int cli_run_part(const cli_parts *command, int argc, char **argv)
{
	const char *names[64], *nearest;
	int n = 0;

	if (cli_visiting)
		return visit_parts(command);
	cli.command = command->name;
	if (argc < 2) {
		show_parts(command, stderr);
		return CLI_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		show_parts(command, stdout);
		return CLI_EXIT_OK;
	}
	for (const cli_part *part = command->parts; part->name && n < 64; part++) {
		if (!strcmp(argv[1], part->name))
			return part->run(argc - 1, argv + 1);
		names[n++] = part->name;
	}
	if (argv[1][0] == '-')
		return cli_usage("the %s is missing before %s; `ruvllm %s --help` lists them", command->kind, argv[1],
		                 command->name);
	nearest = cli_nearest(argv[1], names, n);
	if (nearest)
		return cli_usage("there is no %s '%s'; did you mean '%s'?", command->kind, argv[1], nearest);
	return cli_usage("there is no %s '%s'; `ruvllm %s --help` lists them", command->kind, argv[1], command->name);
}

/* ---- values ------------------------------------------------------------------------------------------------------------ */

static bool is_choice(const char *choices, const char *value)
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

/* Stores `value`; a usage error is reported and returned. */
static int set_value(const cli_option *option, const char *value)
{
	char *end = NULL;

	errno = 0;
	switch (option->type) {
	case CLI_FLAG:
		*(bool *)option->value = true;
		return 0;
	case CLI_INT:
	case CLI_INT64: {
		long long number = strtoll(value, &end, 10);

		if (end == value || *end || errno == ERANGE || (option->type == CLI_INT && (number < INT_MIN || number > INT_MAX)))
			return cli_usage("--%s: '%s' is not a whole number", option->name, value);
		if (option->type == CLI_INT)
			*(int *)option->value = (int)number;
		else
			*(int64_t *)option->value = number;
		return 0;
	}
	case CLI_DOUBLE: {
		double number = strtod(value, &end);

		if (end == value || *end || !isfinite(number))
			return cli_usage("--%s: '%s' is not a number", option->name, value);
		*(double *)option->value = number;
		return 0;
	}
	case CLI_SIZE:
		if (!cli_parse_size(value, option->value))
			return cli_usage("--%s: '%s' is not a size such as 512M or 2G", option->name, value);
		return 0;
	case CLI_STRING:
		*(const char **)option->value = value;
		return 0;
	case CLI_CHOICE:
		if (!is_choice(option->arg, value))
			return cli_usage("--%s: '%s' is none of %s", option->name, value, option->arg);
		*(const char **)option->value = value;
		return 0;
	case CLI_LIST: {
		cli_strings *list = option->value;

		if (list->n == (int)(sizeof list->items / sizeof *list->items))
			return cli_usage("--%s is given more than %d times", option->name, list->n);
		list->items[list->n++] = value;
		return 0;
	}
	}
	return cli_usage("--%s has no type", option->name);
}

/* ---- parsing ----------------------------------------------------------------------------------------------------------- */

static const cli_option *find_long(const cli_spec *spec, const char *name, size_t n)
{
	for (const cli_option *o = spec->options; o && o->name; o++)
		if (strlen(o->name) == n && !memcmp(o->name, name, n))
			return o;
	for (const cli_option *o = shared_options; o->name; o++)
		if (strlen(o->name) == n && !memcmp(o->name, name, n))
			return o;
	return NULL;
}

static const cli_option *find_short(const cli_spec *spec, char letter)
{
	for (const cli_option *o = spec->options; o && o->name; o++)
		if (o->letter == letter)
			return o;
	for (const cli_option *o = shared_options; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int unknown_option(const cli_spec *spec, const char *name)
{
	const char *words[256];
	int n = 0;

	for (const cli_option *o = spec->options; o && o->name && n < 256; o++)
		words[n++] = o->name;
	for (const cli_option *o = shared_options; o->name && n < 256; o++)
		words[n++] = o->name;
	for (int i = 0; spec->name_at && spec->name_at(i) && n < 256; i++)
		words[n++] = spec->name_at(i);
	const char *near = cli_nearest(name, words, n);

	if (near)
		return cli_usage("there is no option --%s; did you mean --%s?", name, near);
	return cli_usage("there is no option --%s; `ruvllm %s --help` lists them", name, spec->name);
}

/* One --name[=value]; *i moves over a separate value. */
static int parse_long(const cli_spec *spec, int argc, char **argv, int *i)
{
	const char *text = argv[*i] + 2;
	const char *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : strlen(text);
	const char *value = equals ? equals + 1 : NULL;
	const cli_option *option = find_long(spec, text, n);
	char name[64];

	snprintf(name, sizeof name, "%.*s", (int)n, text);
	if (!option && n > 3 && !memcmp(text, "no-", 3)) {
		option = find_long(spec, text + 3, n - 3);
		if (option && option->type == CLI_FLAG && !value) {
			*(bool *)option->value = false;
			return 0;
		}
		option = NULL;
	}
	if (option && option->type == CLI_FLAG) {
		if (value)
			return cli_usage("--%s takes no value", name);
		return set_value(option, NULL);
	}
	bool needs_value = true;

	if (!option && !(spec->knows && spec->knows(name, &needs_value)))
		return unknown_option(spec, name);
	if (needs_value && !value) {
		if (*i + 1 >= argc)
			return cli_usage("--%s needs a value", name);
		value = argv[++*i];
	}
	if (option)
		return set_value(option, value);
	ruv_error err = {0};

	if (spec->take(name, value, &err))
		return cli_usage("--%s: %s", name, err.message);
	return 0;
}

/* -abc, -k8 or -k 8. */
static int parse_short(const cli_spec *spec, int argc, char **argv, int *i)
{
	for (const char *p = argv[*i] + 1; *p; p++) {
		const cli_option *option = find_short(spec, *p);

		if (!option)
			return cli_usage("there is no option -%c; `ruvllm %s --help` lists them", *p, spec->name);
		if (option->type == CLI_FLAG) {
			set_value(option, NULL);
			continue;
		}
		if (p[1])
			return set_value(option, p + 1);
		if (*i + 1 >= argc)
			return cli_usage("-%c (--%s) needs a value", *p, option->name);
		return set_value(option, argv[++*i]);
	}
	return 0;
}

bool cli_parse(const cli_spec *spec, int argc, char **argv, cli_args *args, int *exit_code)
{
	int n_args = 0;
	bool only_args = false;

	args->items = argv + 1;
	*exit_code = CLI_EXIT_OK;
	if (cli_visiting) {
		cli_visiting->spec(cli_visiting->user, spec);
		return false;
	}
	for (int i = 1; i < argc; i++) {
		if (only_args || argv[i][0] != '-' || !argv[i][1]) {
			argv[1 + n_args++] = argv[i];
		} else if (!strcmp(argv[i], "--")) {
			only_args = true;
		} else {
			*exit_code = argv[i][1] == '-' ? parse_long(spec, argc, argv, &i) : parse_short(spec, argc, argv, &i);
			if (*exit_code)
				return false;
		}
	}
	args->n = n_args;
	if (no_color)
		cli.color = cli.err_color = false;
	if (want_help) {
		cli_help(spec, stdout);
		return false;
	}
	if (n_args < spec->min_args) {
		*exit_code = cli_usage("something is missing: ruvllm %s %s", spec->name, spec->usage);
		return false;
	}
	if (spec->max_args >= 0 && n_args > spec->max_args) {
		*exit_code =
		    cli_usage("'%s' is one argument too many: ruvllm %s %s", args->items[spec->max_args], spec->name, spec->usage);
		return false;
	}
	return true;
}

/* ---- help -------------------------------------------------------------------------------------------------------------- */

/* Prints text broken at `width` columns, later lines indented. */
static void print_wrapped(FILE *out, const char *text, int indent, int width)
{
	int column = indent;

	while (*text) {
		size_t n = strcspn(text, " \n");

		if (column > indent && column + 1 + (int)n > width) {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, n, out);
		column += (int)n;
		text += n;
		while (*text == ' ')
			text++;
		if (*text == '\n') {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
			text++;
		}
	}
	fputc('\n', out);
}

static void print_options(const cli_option *options, FILE *out)
{
	for (const cli_option *o = options; o && o->name; o++) {
		char left[96];
		int n = 0;

		n += snprintf(left + n, sizeof left - (size_t)n, o->letter ? "-%c, " : "    ", o->letter);
		n += snprintf(left + n, sizeof left - (size_t)n, "--%s", o->name);
		if (o->type != CLI_FLAG)
			n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg ? o->arg : "VALUE");
		fprintf(out, "  %-28s ", left);
		if (n > 28)
			fprintf(out, "\n%31s", "");
		print_wrapped(out, o->help, 31, cli_term_width(out));
	}
}

void cli_help(const cli_spec *spec, FILE *out)
{
	const char *bold = cli_sgr(out, CLI_BOLD), *plain = cli_sgr(out, CLI_PLAIN);

	fprintf(out, "%sUsage:%s ruvllm %s %s\n\n", bold, plain, spec->name, spec->usage);
	print_wrapped(out, spec->summary, 0, cli_term_width(out));
	fprintf(out, "\n%sOptions%s\n", bold, plain);
	print_options(spec->options, out);
	print_options(shared_options, out);
	if (spec->help)
		spec->help(out);
	if (spec->notes) {
		fputc('\n', out);
		print_wrapped(out, spec->notes, 0, cli_term_width(out));
	}
	if (spec->examples) {
		fprintf(out, "\n%sExamples%s\n", bold, plain);
		for (const char *p = spec->examples; *p;) {
			size_t n = strcspn(p, "\n");

			fprintf(out, "  %.*s\n", (int)n, p);
			p += n + (p[n] == '\n');
		}
	}
}

/* ---- errors ------------------------------------------------------------------------------------------------------------ */

static void print_error(const char *message, const char *next)
{
	if (cli.command[0])
		fprintf(stderr, "%sruvllm %s:%s %s", cli_sgr(stderr, CLI_RED), cli.command, cli_sgr(stderr, CLI_PLAIN), message);
	else
		fprintf(stderr, "%sruvllm:%s %s", cli_sgr(stderr, CLI_RED), cli_sgr(stderr, CLI_PLAIN), message);
	if (next)
		fprintf(stderr, "; %s", next);
	fputc('\n', stderr);
}

static int report(int status, const char *message, const char *next)
{
	print_error(message, next);
	if (cli.json)
		cli_json_print(json_pack("{s:{s:s, s:o, s:o}}", "error", "code", ruv_status_name(status), "message",
		                         cli_json_text(message), "next", next ? cli_json_text(next) : json_null()));
	return status == RUV_ECANCELLED ? CLI_EXIT_INTERRUPTED : CLI_EXIT_FAILED;
}

int cli_fail(const ruv_error *err, const char *next)
{
	return report(err->code, err->message[0] ? err->message : ruv_status_text(err->code), next);
}

int cli_failf(int status, const char *fmt, ...)
{
	ruv_error err = {0};
	va_list args;

	va_start(args, fmt);
	vsnprintf(err.message, sizeof err.message, fmt, args);
	va_end(args);
	return report(status, err.message, NULL);
}

int cli_usage(const char *fmt, ...)
{
	ruv_error err = {0};
	va_list args;

	va_start(args, fmt);
	vsnprintf(err.message, sizeof err.message, fmt, args);
	va_end(args);
	report(RUV_EINVAL, err.message, NULL);
	return CLI_EXIT_USAGE;
}

void cli_note(const char *fmt, ...)
{
	va_list args;

	if (cli.quiet)
		return;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

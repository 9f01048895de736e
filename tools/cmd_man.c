/* cmd_man.c - ruvllm man: manual pages in roff (man(7)), made of the tables that the program itself runs by (cli_tables.h):
 * ruvllm.1, and ruvllm-COMMAND.1 for each command, with its parts as subsections. The configuration's keys stand in
 * ruvllm-config.1. */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/file.h"
#include "cli_tables.h"

enum { MAX_PAGE_BYTES = 1 << 20, LINE = 78 };

/* One word; `literal`: what the reader types, so that quotes and dashes stay what they are. */
static void put_word(ruv_buf *out, const char *text, size_t n, bool literal)
{
	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (c == '\\')
			ruv_buf_puts(out, "\\e");
		else if (c == '~' || c == '^')
			ruv_buf_puts(out, c == '~' ? "\\(ti" : "\\(ha");
		else if (c == '-' && (literal || (i == 0 && n > 1) || (i == 1 && text[0] == '-')))
			ruv_buf_puts(out, "\\-");
		else if (c == '\'' && (literal || !i))
			ruv_buf_puts(out, "\\(aq");
		else if (c == '`' && (literal || !i))
			ruv_buf_puts(out, literal ? "\\(ga" : "\\(ga");
		else
			ruv_buf_putc(out, c);
	}
}

/* A paragraph's text, broken into lines; no line starts as a request. */
static void put_text(ruv_buf *out, const char *text)
{
	size_t column = 0;

	for (const char *p = text; *p;) {
		size_t n = strcspn(p, " \n");

		if (column && column + 1 + n > LINE) {
			ruv_buf_putc(out, '\n');
			column = 0;
		} else if (column) {
			ruv_buf_putc(out, ' ');
			column++;
		}
		if (!column && (*p == '.' || *p == '\''))
			ruv_buf_puts(out, "\\&");
		put_word(out, p, n, false);
		column += n;
		p += n;
		p += strspn(p, " ");
		if (*p == '\n') {
			ruv_buf_puts(out, "\n.br\n");
			column = 0;
			p += 1;
		}
	}
	ruv_buf_putc(out, '\n');
}

static void put_literal(ruv_buf *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		ruv_buf_puts(out, "\\&");
	put_word(out, text, strlen(text), true);
}

static void put_option(ruv_buf *out, const cli_option_view *o, const char *default_value)
{
	ruv_buf_puts(out, ".TP\n");
	if (o->letter)
		ruv_buf_printf(out, "\\fB\\-%c\\fR, ", o->letter);
	ruv_buf_puts(out, "\\fB\\-\\-");
	put_word(out, o->name, strlen(o->name), true);
	ruv_buf_puts(out, "\\fR");
	if (!o->flag) {
		ruv_buf_puts(out, " \\fI");
		put_word(out, o->arg, strlen(o->arg), true);
		ruv_buf_puts(out, "\\fR");
	}
	ruv_buf_putc(out, '\n');
	put_text(out, o->help);
	if (default_value && *default_value && !strstr(o->help, "default")) {
		ruv_buf_puts(out, "Default: \\fB");
		put_word(out, default_value, strlen(default_value), true);
		ruv_buf_puts(out, "\\fR.\n");
	}
}

static void put_head(ruv_buf *out, const char *name, const char *help)
{
	const char *epoch = getenv("SOURCE_DATE_EPOCH"); /* for packages that are built the same twice */
	time_t when = epoch && *epoch ? (time_t)strtoll(epoch, NULL, 10) : time(NULL);
	struct tm day;
	char date[32], upper[64];
	size_t i;

	gmtime_r(&when, &day);
	strftime(date, sizeof date, "%Y-%m-%d", &day);
	for (i = 0; name[i] && i + 1 < sizeof upper; i++)
		upper[i] = (char)toupper((unsigned char)name[i]);
	upper[i] = 0;
	ruv_buf_printf(out, ".\\\" made by `ruvllm man` of the program's own tables\n.TH %s 1 %s \"ruvllm %s\" RuvLLM\n.SH NAME\n",
	               upper, date, ruv_version());
	put_word(out, name, strlen(name), true);
	ruv_buf_puts(out, " \\- ");
	put_text(out, help);
}

static void put_usage(ruv_buf *out, const cli_spec *spec)
{
	ruv_buf_printf(out, ".B ruvllm ");
	put_word(out, spec->name, strlen(spec->name), true);
	ruv_buf_putc(out, '\n');
	if (*spec->usage) {
		put_literal(out, spec->usage);
		ruv_buf_putc(out, '\n');
	}
}

static void put_examples(ruv_buf *out, const char *examples)
{
	ruv_buf_puts(out, ".nf\n");
	for (const char *p = examples; *p;) {
		size_t n = strcspn(p, "\n");

		ruv_buf_puts(out, "\\&");
		put_word(out, p, n, true);
		ruv_buf_putc(out, '\n');
		p += n + (p[n] == '\n');
	}
	ruv_buf_puts(out, ".fi\n");
}

static void put_own_options(ruv_buf *out, const cli_spec *spec)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, spec, CLI_OWN_OPTIONS, i); i++)
		put_option(out, &o, NULL);
}

static void put_shared_options(ruv_buf *out)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, NULL, CLI_SHARED_OPTIONS, i); i++)
		put_option(out, &o, NULL);
}

static void put_config_hint(ruv_buf *out)
{
	ruv_buf_puts(out, ".PP\nEvery key of the configuration is an option too; see\n.BR ruvllm\\-config (1).\n");
}

static void put_tail(ruv_buf *out)
{
	ruv_buf_puts(
	    out, ".SH EXIT STATUS\n0: done; 1: failed, with the reason on standard error; 2: wrong usage; 130: stopped by Ctrl-C.\n"
		 ".SH SEE ALSO\n.BR ruvllm (1),\n.BR ruvllm\\-config (1)\n");
}

static void command_page(ruv_buf *out, const cli_tables *t, const cli_entry *entry)
{
	const cli_page *first = &t->pages[entry->first_page];
	char name[64];
	bool config = false;

	snprintf(name, sizeof name, "ruvllm-%s", entry->command->name);
	put_head(out, name, entry->command->help);
	ruv_buf_puts(out, ".SH SYNOPSIS\n");
	if (!*entry->kind) {
		put_usage(out, &first->spec);
		ruv_buf_puts(out, ".SH DESCRIPTION\n");
		put_text(out, first->spec.summary);
		ruv_buf_puts(out, ".SH OPTIONS\n");
		put_own_options(out, &first->spec);
		put_shared_options(out);
		config = cli_takes_config(&first->spec);
		if (config)
			put_config_hint(out);
		if (first->spec.notes) {
			ruv_buf_puts(out, ".SH NOTES\n");
			put_text(out, first->spec.notes);
		}
		if (first->spec.examples) {
			ruv_buf_puts(out, ".SH EXAMPLES\n");
			put_examples(out, first->spec.examples);
		}
	} else {
		ruv_buf_printf(out, ".B ruvllm %s\n.I %s\n[OPTIONS] ...\n.SH DESCRIPTION\n", entry->command->name, entry->kind);
		put_text(out, entry->summary);
		for (int p = 0; p < entry->n_pages; p++) {
			const cli_page *page = first + p;

			ruv_buf_puts(out, p ? ".SS " : ".SH PARTS\n.SS ");
			put_word(out, page->part, strlen(page->part), true);
			ruv_buf_putc(out, '\n');
			put_usage(out, &page->spec);
			ruv_buf_puts(out, ".PP\n");
			put_text(out, page->spec.summary);
			put_own_options(out, &page->spec);
			if (page->spec.notes) {
				ruv_buf_puts(out, ".PP\n");
				put_text(out, page->spec.notes);
			}
			if (page->spec.examples) {
				ruv_buf_puts(out, ".PP\n");
				put_examples(out, page->spec.examples);
			}
			config = config || cli_takes_config(&page->spec);
		}
		ruv_buf_puts(out, ".SH OPTIONS\nEvery part has these:\n");
		put_shared_options(out);
		if (config)
			put_config_hint(out);
	}
	if (!strcmp(entry->command->name, "config")) {
		cli_option_view o;

		ruv_buf_puts(out, ".SH KEYS\n");
		put_text(out, "Each is an option of the commands that work with models or memory (--max-tokens 100), a name in the "
		              "environment "
		              "(RUVLLM_MAX_TOKENS=100), and a line of the file (max-tokens = 100). A flag beats the environment, "
		              "that beats the "
		              "file, that the preset, that the default.");
		for (int i = 0; cli_option_at(&o, NULL, CLI_CONFIG_KEYS, i); i++)
			put_option(out, &o, i ? ruv_config_key_at(i - 1)->default_value : NULL);
		ruv_buf_puts(
		    out,
		    ".SH FILES\n.TP\n.I \\(ti/.config/ruvllm/config.ini\nThe configuration; $RUVLLM_CONFIG or $XDG_CONFIG_HOME "
		    "name another place.\n");
	}
	put_tail(out);
}

static void main_page(ruv_buf *out, const cli_tables *t)
{
	put_head(out, "ruvllm", "a local LLM runtime that remembers and learns");
	ruv_buf_puts(out, ".SH SYNOPSIS\n.B ruvllm\n.I COMMAND\n[OPTIONS] [ARGUMENTS]\n.SH DESCRIPTION\n");
	put_text(out, "ruvllm loads language models (GGUF), remembers files and answers, finds what belongs to a question, answers "
	              "it with its "
	              "sources, and serves the same over HTTP. Each command has a page of its own, and --help.");
	for (int g = 0; cli_group_heading(g); g++) {
		bool any = false;

		for (int e = 0; e < t->n_entries; e++) {
			if (t->entries[e].command->group != g)
				continue;
			if (!any) {
				ruv_buf_puts(out, ".SS ");
				put_text(out, cli_group_heading(g));
			}
			any = true;
			ruv_buf_printf(out, ".TP\n.BR ruvllm\\-%s (1)\n", t->entries[e].command->name);
			put_text(out, t->entries[e].command->help);
		}
	}
	ruv_buf_puts(out, ".SH OPTIONS\nEvery command has these:\n");
	put_shared_options(out);
	ruv_buf_puts(out, ".SH ENVIRONMENT\n.TP\n.B RUVLLM_...\nEvery key of the configuration; see\n.BR ruvllm\\-config (1).\n"
	                  ".TP\n.B HF_TOKEN\nSent to the model hub by\n.BR ruvllm\\-pull (1).\n"
	                  ".TP\n.B NO_COLOR\nNo colours.\n"
	                  ".SH FILES\n.TP\n.I \\(ti/.config/ruvllm/config.ini\nThe configuration.\n"
	                  ".TP\n.I \\(ti/.local/share/ruvllm\nMemory, chats, learned adapters and fetched models, unless "
	                  "data\\-dir says otherwise.\n");
	put_tail(out);
}

/* Which is an entry's index, -1 the main page. */
static char *make_page(const cli_tables *t, int which)
{
	ruv_buf out;

	ruv_buf_init(&out, MAX_PAGE_BYTES);
	if (which < 0)
		main_page(&out, t);
	else
		command_page(&out, t, &t->entries[which]);
	return ruv_buf_take(&out);
}

static int write_all(const cli_tables *t, const char *dir)
{
	json_t *written = json_array();
	ruv_error err = {0};
	int rc = ruv_dir_create(dir, &err);

	for (int i = -1; !rc && i < t->n_entries; i++) {
		char path[PATH_MAX], *page = make_page(t, i);

		snprintf(path, sizeof path, "%s/ruvllm%s%s.1", dir, i < 0 ? "" : "-", i < 0 ? "" : t->entries[i].command->name);
		if (!page)
			rc = cli_failf(RUV_ENOMEM, "%s: out of memory", path);
		else
			rc = ruv_file_write(path, page, strlen(page), &err);
		if (!rc)
			json_array_append_new(written, cli_json_text(path));
		if (!rc && !cli.json && !cli.quiet)
			printf("%s\n", path);
		free(page);
	}
	if (rc) {
		json_decref(written);
		return err.code ? cli_fail(&err, NULL) : CLI_EXIT_FAILED;
	}
	if (cli.json)
		return cli_json_print(written);
	json_decref(written);
	return CLI_EXIT_OK;
}

int cmd_man(int argc, char **argv)
{
	static const char *output;
	static const cli_option options[] = {
	    {"output", 'o', CLI_STRING, &output, "DIR", "write all pages there, ruvllm.1 and ruvllm-COMMAND.1"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "man",
	    .usage = "[OPTIONS] [COMMAND]",
	    .summary = "Print a manual page, of one command or of the program, for man(1) to show; or write all of them. They are "
		       "made of the "
		       "tables that --help is made of.",
	    .options = options,
	    .examples = "ruvllm man ask | man -l -\nruvllm man -o ~/.local/share/man/man1",
	    .max_args = 1,
	};
	static cli_tables tables;
	cli_args args;
	int code, which = -1;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (output && args.n)
		return cli_usage("--output writes all pages; leave out '%s'", args.items[0]);
	cli_tables_read(&tables);
	if (output)
		return write_all(&tables, output);
	if (args.n) {
		const char *names[CLI_MAX_COMMANDS], *near;

		for (int i = 0; i < tables.n_entries; i++) {
			names[i] = tables.entries[i].command->name;
			if (!strcmp(names[i], args.items[0]))
				which = i;
		}
		if (which < 0) {
			near = cli_nearest(args.items[0], names, tables.n_entries);
			return cli_usage("there is no command '%s'%s%s%s", args.items[0], near ? "; did you mean '" : "",
			                 near ? near : "", near ? "'?" : "");
		}
	}
	char *page = make_page(&tables, which);

	if (!page)
		return cli_failf(RUV_ENOMEM, "out of memory");
	if (cli.json)
		code = cli_json_print(json_pack("{s:o}", "page", cli_json_text(page)));
	else
		fputs(page, stdout);
	free(page);
	return code;
}

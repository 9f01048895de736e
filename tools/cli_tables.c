/* cli_tables.c - see cli_tables.h. */
#include "cli_tables.h"

#include <ctype.h>
#include <string.h>

static void on_parts(void *user, const cli_parts *command)
{
	cli_tables *t = user;
	cli_entry *entry = &t->entries[t->n_entries];
	int n = 0;

	snprintf(entry->kind, sizeof entry->kind, "%s", command->kind);
	entry->summary = command->summary;
	for (const cli_part *part = command->parts; part->name && t->n_pages + n < CLI_MAX_PAGES; part++)
		t->pages[t->n_pages + n++] = (cli_page){.part = part->name, .help = part->help};
}

static void on_spec(void *user, const cli_spec *spec)
{
	cli_tables *t = user;
	cli_entry *entry = &t->entries[t->n_entries];

	if (t->n_pages == CLI_MAX_PAGES)
		return;
	cli_page *page = &t->pages[t->n_pages++];

	entry->n_pages++;
	page->spec = *spec; /* some commands make theirs on the stack */
	page->spec.usage = spec->usage ? spec->usage : "";
	if (!*entry->kind)
		page->help = entry->command->help;
}

void cli_tables_read(cli_tables *tables)
{
	const cli_visitor visitor = {on_spec, on_parts, tables};
	const char *running = cli.command;
	const cli_command *command;

	memset(tables, 0, sizeof *tables);
	cli_visiting = &visitor;
	for (int i = 0; (command = cli_command_at(i)) && i < CLI_MAX_COMMANDS; i++) {
		tables->entries[i].command = command;
		tables->entries[i].first_page = tables->n_pages;
		command->run(1, (char *[]){(char *)(uintptr_t)command->name, NULL});
		tables->n_entries++;
	}
	cli_visiting = NULL;
	cli.command = running;
}

bool cli_takes_config(const cli_spec *spec)
{
	return spec->knows == cli_config_knows;
}

bool cli_option_at(cli_option_view *view, const cli_spec *spec, int which, int i)
{
	if (which == CLI_CONFIG_KEYS && i == 0) {
		*view = (cli_option_view){.name = "config", .arg = "FILE", .help = "the configuration file"};
		return true;
	}
	if (which == CLI_CONFIG_KEYS) {
		const ruv_config_key *key = ruv_config_key_at(i - 1);

		if (key)
			*view = (cli_option_view){.name = key->name, .flag = key->is_switch, .arg = key->arg, .help = key->help};
		return key != NULL;
	}
	const cli_option *options = which == CLI_OWN_OPTIONS ? spec->options : cli_shared_options();

	for (const cli_option *o = options; o && o->name; o++)
		if (i-- == 0) {
			*view = (cli_option_view){.name = o->name,
			                          .letter = o->letter,
			                          .flag = o->type == CLI_FLAG,
			                          .arg = o->arg ? o->arg : "VALUE",
			                          .help = o->help};
			return true;
		}
	return false;
}

/* The next alternative: up to '|' or a space; its length. */
static size_t next_alternative(const char **p)
{
	*p += strspn(*p, "| []");
	return strcspn(*p, "| []");
}

const char *cli_arg_word(const char *arg, int i, char *text, size_t cap)
{
	size_t n;

	for (const char *p = arg; (n = next_alternative(&p)); p += n) {
		bool word = n < cap && isalnum((unsigned char)*p);

		for (size_t c = 0; c < n; c++)
			word = word && (islower((unsigned char)p[c]) || isdigit((unsigned char)p[c]) || strchr("-_", p[c]));
		if (word && i-- == 0) {
			snprintf(text, cap, "%.*s", (int)n, p);
			return text;
		}
	}
	return NULL;
}

bool cli_arg_is_file(const char *arg)
{
	static const char *const files[] = {"FILE", "DIR", "MODEL", "SET", "OUTCOMES", "FACTS", "STREAM", "OUT", "ROUTER"};
	size_t n;

	for (const char *p = arg; (n = next_alternative(&p)); p += n)
		for (size_t f = 0; f < sizeof files / sizeof *files; f++)
			if (n >= strlen(files[f]) && !strncmp(p, files[f], strlen(files[f])) &&
			    !isalpha((unsigned char)p[strlen(files[f])]))
				return true;
	return false;
}

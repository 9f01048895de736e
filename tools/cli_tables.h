/* cli_tables.h - every table that the program runs by, collected: what manual pages and completions are made of.
 * Threads: the main thread. Layer: tools. */
#ifndef RUV_TOOLS_CLI_TABLES_H
#define RUV_TOOLS_CLI_TABLES_H

#include "cli_runtime.h"

enum { CLI_MAX_PAGES = 256, CLI_MAX_COMMANDS = 64 };

/* One thing that can be run: a command, or a part of one ("memory search"). */
typedef struct cli_page {
	const char *part; /* NULL: the command itself */
	const char *help; /* one line */
	cli_spec spec;    /* usage is never NULL */
} cli_page;

typedef struct cli_entry {
	const cli_command *command;
	char kind[16];           /* what its parts are called; "" without parts */
	const char *summary;     /* with parts: what the command is for */
	int first_page, n_pages; /* one without parts */
} cli_entry;

typedef struct cli_tables {
	cli_entry entries[CLI_MAX_COMMANDS]; /* [n_entries] as in the help */
	cli_page pages[CLI_MAX_PAGES];
	int n_entries, n_pages;
} cli_tables;

/* Fills it; it holds pointers into the program's own tables. */
void cli_tables_read(cli_tables *tables);

/* An option of whichever table. */
typedef struct cli_option_view {
	const char *name;
	char letter;     /* 0: none */
	bool flag;       /* takes no value */
	const char *arg; /* the value's name, or choices "a|b|FILE"; never NULL */
	const char *help;
} cli_option_view;

enum { CLI_OWN_OPTIONS, CLI_SHARED_OPTIONS, CLI_CONFIG_KEYS };
/* The i-th option of the spec's own ones, of those that every command has, or of the configuration's keys with --config (spec is
 * not looked at in those two); false past the last. */
bool cli_option_at(cli_option_view *view, const cli_spec *spec, int which, int i);
/* Does the spec take the configuration's keys? */
bool cli_takes_config(const cli_spec *spec);

/* The words among the alternatives of an option's or command's argument, "auto|s|FILE" -> "auto", "s"; NULL past the last, else in
 * text[0..cap). What stands for a value is in capitals. */
const char *cli_arg_word(const char *arg, int i, char *text, size_t cap);
/* Whether a file or directory may stand there. */
bool cli_arg_is_file(const char *arg);

#endif

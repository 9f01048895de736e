/* cli.h - what every subcommand shares: options from a table, help made of the same table, errors, tables, JSON, progress, Ctrl-C.
 *
 * A subcommand declares its options as rows, calls cli_parse() first, prints results to stdout and everything else to stderr:
 *
 *     static int k = 8;
 *     static const cli_option options[] = {
 *         {"top", 'k', CLI_INT, &k, "N", "sources to retrieve (default 8)"},
 *         {0}};
 *     static const cli_spec spec = {.name = "ask", .usage = "[OPTIONS] QUESTION", .summary = "...", .options = options,
 *                                   .min_args = 1, .max_args = 1};
 *     cli_args args;
 *     int code;
 *     if (!cli_parse(&spec, argc, argv, &args, &code))
 *         return code;
 *
 * --help, --json, --quiet, --verbose and --no-color are understood by every subcommand and set `cli`.
 *
 * Exit codes: 0 done; 1 failed (the reason is on stderr); 2 wrong usage; 130 stopped by Ctrl-C.
 * Threads: the main thread only, except cli_interrupted, which a signal handler sets. Layer: tools. */
#ifndef RUV_TOOLS_CLI_H
#define RUV_TOOLS_CLI_H

#include <signal.h>
#include <stdio.h>

#include <jansson.h>

#include "commands.h"
#include "ruvllm/session.h"

enum { CLI_EXIT_OK = 0, CLI_EXIT_FAILED = 1, CLI_EXIT_USAGE = 2, CLI_EXIT_INTERRUPTED = 130 };

typedef enum cli_type {
	CLI_FLAG,   /* bool: --name, --no-name */
	CLI_INT,    /* int */
	CLI_INT64,  /* int64_t */
	CLI_DOUBLE, /* double */
	CLI_SIZE,   /* uint64_t: bytes, with an optional suffix K, M, G, T (powers of 1024) */
	CLI_STRING, /* const char *: points into argv */
	CLI_CHOICE, /* const char *: one of the words that `arg` lists, "a|b|c" */
	CLI_LIST    /* cli_strings: may be given several times */
} cli_type;

typedef struct cli_strings {
	const char *items[64];
	int n;
} cli_strings;

typedef struct cli_option {
	const char *name; /* long name without dashes; NULL ends the table */
	char letter;      /* short name, 0 for none */
	cli_type type;
	void *value;      /* a variable of the type above, holding the default */
	const char *arg;  /* the argument's name in the help ("FILE"), or the choices */
	const char *help; /* one line; state the default here */
} cli_option;

typedef struct cli_spec {
	const char *name;          /* "ask" */
	const char *usage;         /* what follows the name: "[OPTIONS] QUESTION" */
	const char *summary;       /* one or more sentences */
	const cli_option *options; /* ends with {0}; may be NULL */
	const char *examples;      /* lines, each a command; may be NULL */
	const char *notes;         /* more text under the options; may be NULL */
	int min_args, max_args;    /* positional arguments; max_args -1 is any number */
	/* Options that another table knows (the configuration's keys). take() returns true when it knows --name; then it has used
	 * `value` (NULL when none was given), or failed with *exit_code set. needs_value() says whether --name takes one.
	 * help() prints their section. May all be NULL. */
	bool (*knows)(const char *name, bool *needs_value);
	int (*take)(const char *name, const char *value, ruv_error *err);
	void (*help)(FILE *out);
	const char *(*name_at)(int i); /* for suggestions: NULL behind the last */
} cli_spec;

typedef struct cli_args {
	char **items; /* the positional arguments, inside argv */
	int n;
} cli_args;

/* A command made of parts: `ruvllm memory search ...`. A row with a NULL name ends the table. */
typedef struct cli_part {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the part's name */
	const char *help;                  /* one line */
} cli_part;

typedef struct cli_parts {
	const char *name;    /* the command: "memory" */
	const char *kind;    /* what its parts are called: "action" */
	const char *summary; /* one sentence */
	const cli_part *parts;
} cli_parts;

/* Where the tables go instead, when something is made of them (manual pages, completions): no command runs then. `parts` is called
 * before the specs of those parts, which come in their order; what they get is valid during the call only, but for the texts and
 * options. */
typedef struct cli_visitor {
	void (*spec)(void *user, const cli_spec *spec);
	void (*parts)(void *user, const cli_parts *command);
	void *user;
} cli_visitor;
extern const cli_visitor *cli_visiting; /* NULL: commands run */

/* The options that every command has; ends with {0}. */
const cli_option *cli_shared_options(void);

/* What the shared options said. */
typedef struct cli_state {
	const char *command; /* the running subcommand's name */
	bool json, quiet, verbose;
	bool color;     /* stdout is a terminal, NO_COLOR is unset, --no-color was not given */
	bool err_color; /* the same of stderr */
} cli_state;
extern cli_state cli;

/* Looks at the streams and NO_COLOR; main() calls it once. */
void cli_output_detect(void);

/* Reads argv[1..) by the table. False: end with *exit_code (help was shown, or the usage was wrong and said so). */
bool cli_parse(const cli_spec *spec, int argc, char **argv, cli_args *args, int *exit_code);
/* Runs the part that argv[1] names; shows the table for --help; an unknown name is wrong usage and names the nearest one. */
int cli_run_part(const cli_parts *command, int argc, char **argv);
/* Prints the help of one subcommand. */
void cli_help(const cli_spec *spec, FILE *out);
/* The nearest of n words to `word` when it is near enough to be a slip, else NULL. */
const char *cli_nearest(const char *word, const char *const *words, int n);

/* One sentence on stderr, "ruvllm ask: ..."; with --json also {"error": {...}} on stdout. They return the exit code to end with:
 * cli_fail 1 (130 for RUV_ECANCELLED), cli_usage 2. `next` says what to do now; NULL when the message says it. */
int cli_fail(const ruv_error *err, const char *next);
int cli_failf(int status, const char *fmt, ...) RUV_PRINTF(2, 3);
int cli_usage(const char *fmt, ...) RUV_PRINTF(1, 2);
/* A line on stderr unless --quiet. */
void cli_note(const char *fmt, ...) RUV_PRINTF(1, 2);

/* ---- numbers and text -------------------------------------------------------------------------------------------------- */

/* "1.5 MiB", "912 B" into text[0..cap); returns text. */
const char *cli_human_bytes(char *text, size_t cap, uint64_t n_bytes);
/* "12.3k", "354.5M" (powers of 1000). */
const char *cli_human_count(char *text, size_t cap, double n);
/* "850 ms", "3.2 s", "4 min 10 s". */
const char *cli_human_time(char *text, size_t cap, double seconds);
/* "512M", "2G", "100" to bytes; false when it is not a size. */
bool cli_parse_size(const char *text, uint64_t *n_bytes);
/* Columns that a UTF-8 text takes on a terminal. */
int cli_text_width(const char *text);
/* Columns of the terminal behind `out`, 80 when it is none. */
int cli_term_width(FILE *out);

typedef enum cli_style { CLI_PLAIN, CLI_BOLD, CLI_DIM, CLI_RED, CLI_GREEN, CLI_YELLOW, CLI_BLUE } cli_style;
/* The escape sequence that starts (CLI_PLAIN: ends) a style on that stream, "" when the stream has no colour. */
const char *cli_sgr(FILE *out, cli_style style);

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

/* A table printed with columns as wide as their widest cell. Cells are copied. */
typedef struct cli_table cli_table;
/* `columns`: headings separated by '|'; one that starts with '>' is right-aligned. NULL when memory is out. */
cli_table *cli_table_create(const char *columns);
/* Adds one cell, row by row; printf-like. */
void cli_table_cell(cli_table *table, const char *fmt, ...) RUV_PRINTF(2, 3);
/* Prints and frees. Without rows it prints nothing. */
void cli_table_print(cli_table *table, FILE *out);

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

/* Prints the value, indented, with a newline, and drops the reference. Returns 0, or 1 when it cannot be written. */
int cli_json_print(json_t *value);
/* A JSON string of text that may hold invalid UTF-8 (replaced by U+FFFD). */
json_t *cli_json_text(const char *text);

/* ---- progress ---------------------------------------------------------------------------------------------------------- */

/* A bar with the time left on a terminal; otherwise one line every ten seconds; nothing with --quiet. On stderr. */
typedef struct cli_progress {
	const char *label;
	const char *unit; /* "tensors", "files"; "B" prints human sizes */
	uint64_t total;   /* 0 when unknown */
	uint64_t done;
	uint64_t first; /* set after cli_progress_begin: of done, what an earlier run did already */
	int64_t started_ns, shown_ns;
	bool active, bar;
} cli_progress;

void cli_progress_begin(cli_progress *progress, const char *label, const char *unit, uint64_t total);
/* `detail` (NULL is fine) names what is being worked on. Cheap when called often. */
void cli_progress_update(cli_progress *progress, uint64_t done, const char *detail);
/* Clears the bar; prints "label: N unit in T" when `summary`. Fine when already ended. */
void cli_progress_end(cli_progress *progress, bool summary);

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------------ */

/* The signal's number after SIGINT or SIGTERM, once cli_interrupt_catch() was called; long loops look at it. A second SIGINT within
 * the same wait ends the program at once. */
extern volatile sig_atomic_t cli_interrupted;
/* Set together with it, for calls of the library that take one. */
extern ruv_cancel cli_cancel;
void cli_interrupt_catch(void);
/* Readable while an interrupt waits to be dealt with: for poll() beside an input. -1 before cli_interrupt_catch(). */
int cli_interrupt_fd(void);
/* Forgets an interrupt that was dealt with. */
void cli_interrupt_clear(void);

#endif

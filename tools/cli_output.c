/* cli_output.c - what the subcommands print with: sizes, tables, JSON, a progress bar, colours; and the Ctrl-C flag.
 *
 * Colours and the bar appear on terminals only; a pipe or a file gets plain lines. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli.h"

/* ---- numbers and text -------------------------------------------------------------------------------------------------- */

const char *cli_human_bytes(char *text, size_t cap, uint64_t n_bytes)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)n_bytes / 1024;
	int unit = 0;

	if (n_bytes < 1024) {
		snprintf(text, cap, "%d B", (int)n_bytes);
		return text;
	}
	while (n >= 1023.95 && unit < 5) {
		n /= 1024;
		unit++;
	}
	snprintf(text, cap, "%.1f %s", n, units[unit]);
	return text;
}

const char *cli_human_count(char *text, size_t cap, double n)
{
	static const char units[] = "kMGT";
	int unit = -1;

	while (n >= 999.95 && unit < 3) {
		n /= 1000;
		unit++;
	}
	if (unit < 0)
		snprintf(text, cap, "%.0f", n);
	else
		snprintf(text, cap, "%.1f%c", n, units[unit]);
	return text;
}

const char *cli_human_time(char *text, size_t cap, double seconds)
{
	if (seconds < 0.01)
		snprintf(text, cap, "%.2f ms", seconds * 1e3);
	else if (seconds < 1)
		snprintf(text, cap, "%.0f ms", seconds * 1e3);
	else if (seconds < 59.95)
		snprintf(text, cap, seconds == floor(seconds) ? "%.0f s" : "%.1f s", seconds);
	else if (seconds < 3600)
		snprintf(text, cap, "%d min %d s", (int)seconds / 60, (int)seconds % 60);
	else
		snprintf(text, cap, "%d h %d min", (int)(seconds / 3600), (int)seconds % 3600 / 60);
	return text;
}

bool cli_parse_size(const char *text, uint64_t *n_bytes)
{
	static const char suffixes[] = "KMGT";
	char *end;
	double n;
	int shift = 0;

	errno = 0;
	n = strtod(text, &end);
	if (end == text || errno || !(n >= 0))
		return false;
	if (*end == ' ')
		end++;
	if (*end) {
		const char *suffix = strchr(suffixes, *end >= 'a' ? *end - 32 : *end);

		if (suffix) {
			shift = 10 * (int)(suffix - suffixes + 1);
			end++;
			if (*end == 'i')
				end++;
		}
		if (*end == 'B' || *end == 'b')
			end++;
		if (*end)
			return false;
	}
	n *= (double)(UINT64_C(1) << shift);
	if (n >= 18446744073709551616.0)
		return false;
	*n_bytes = (uint64_t)n;
	return true;
}

int cli_text_width(const char *text)
{
	int width = 0;
	mbstate_t state = {0};

	while (*text) {
		wchar_t c;
		size_t n = mbrtowc(&c, text, strlen(text), &state);

		if (n == (size_t)-1 || n == (size_t)-2) { /* not text of this locale: a column a byte */
			memset(&state, 0, sizeof state);
			n = 1;
			width++;
		} else {
			int w = wcwidth(c);

			width += w > 0 ? w : 0;
		}
		text += n;
	}
	return width;
}

int cli_term_width(FILE *out)
{
	struct winsize size;

	if (isatty(fileno(out)) && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
		return size.ws_col > 132 ? 132 : size.ws_col;
	return 80;
}

void cli_output_detect(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
	bool allowed = !(no && *no) && !(term && !strcmp(term, "dumb"));

	cli.color = allowed && isatty(STDOUT_FILENO);
	cli.err_color = allowed && isatty(STDERR_FILENO);
}

const char *cli_sgr(FILE *out, cli_style style)
{
	static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m", "\033[34m"};

	if (!(out == stderr ? cli.err_color : cli.color))
		return "";
	return codes[style];
}

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

struct cli_table {
	int n_columns;
	bool *right;  /* [n_columns] */
	char **cells; /* row by row, the headings first */
	int n_cells, cap;
};

static void table_free(cli_table *table)
{
	for (int i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table->right);
	free(table);
}

cli_table *cli_table_create(const char *columns)
{
	cli_table *table = calloc(1, sizeof *table);

	if (!table)
		return NULL;
	table->n_columns = 1;
	for (const char *p = columns; *p; p++)
		table->n_columns += *p == '|';
	table->right = calloc((size_t)table->n_columns, sizeof *table->right);
	if (!table->right) {
		free(table);
		return NULL;
	}
	for (int i = 0; i < table->n_columns; i++) {
		size_t n = strcspn(columns, "|");

		if (*columns == '>') {
			table->right[i] = true;
			columns++;
			n--;
		}
		cli_table_cell(table, "%.*s", (int)n, columns);
		columns += n + (columns[n] == '|');
	}
	return table;
}

void cli_table_cell(cli_table *table, const char *fmt, ...)
{
	va_list args;
	char *text;

	if (!table)
		return;
	if (table->n_cells == table->cap) {
		int cap = table->cap ? 2 * table->cap : 64;
		char **cells = realloc(table->cells, (size_t)cap * sizeof *cells);

		if (!cells)
			return;
		table->cells = cells;
		table->cap = cap;
	}
	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		text = NULL;
	va_end(args);
	table->cells[table->n_cells++] = text;
}

void cli_table_print(cli_table *table, FILE *out)
{
	if (!table)
		return;
	int n = table->n_columns;
	int *width = calloc((size_t)n, sizeof *width);

	if (width && table->n_cells > n) {
		for (int i = 0; i < table->n_cells; i++) {
			int w = cli_text_width(table->cells[i] ? table->cells[i] : "");

			if (w > width[i % n])
				width[i % n] = w;
		}
		for (int i = 0; i < table->n_cells; i++) {
			const char *cell = table->cells[i] ? table->cells[i] : "";
			int pad = width[i % n] - cli_text_width(cell);
			bool last = i % n == n - 1;

			if (i % n == 0 && i == 0)
				fputs(cli_sgr(out, CLI_BOLD), out);
			fprintf(out, "%s%*s%s", i % n ? "  " : "", table->right[i % n] ? pad : 0, "", cell);
			if (!last && !table->right[i % n])
				fprintf(out, "%*s", pad, "");
			if (last)
				fprintf(out, "%s\n", i == n - 1 ? cli_sgr(out, CLI_PLAIN) : "");
		}
	}
	free(width);
	table_free(table);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

int cli_json_print(json_t *value)
{
	int rc = value ? json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : -1;

	json_decref(value);
	if (rc) {
		fprintf(stderr, "ruvllm: the JSON result could not be built or written\n");
		return CLI_EXIT_FAILED;
	}
	fputc('\n', stdout);
	return CLI_EXIT_OK;
}

/* Bytes of the well-formed UTF-8 sequence at p, 0 when it is none. */
static int utf8_length(const unsigned char *p)
{
	static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
	int n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
	unsigned c = n == 1 ? *p : n == 2 ? *p & 0x1f : n == 3 ? *p & 0x0f : *p & 0x07;

	for (int i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (n > 1 && (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)))
		return 0;
	return n;
}

json_t *cli_json_text(const char *text)
{
	json_t *string = json_string(text);

	if (string)
		return string;
	ruv_buf buf;

	ruv_buf_init(&buf, (size_t)1 << 30);
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		int n = utf8_length(p);

		if (n)
			ruv_buf_append(&buf, p, (size_t)n);
		else
			ruv_buf_puts(&buf, "\xef\xbf\xbd");
		p += n ? n : 1;
	}
	string = buf.failed ? NULL : json_string(ruv_buf_cstr(&buf));
	ruv_buf_release(&buf);
	return string;
}

/* ---- progress ---------------------------------------------------------------------------------------------------------- */

static const char *amount(char *text, size_t cap, const cli_progress *progress, uint64_t n)
{
	if (!strcmp(progress->unit, "B"))
		return cli_human_bytes(text, cap, n);
	snprintf(text, cap, "%llu", (unsigned long long)n);
	return text;
}

static void show_progress(cli_progress *progress, const char *detail, int64_t now)
{
	double elapsed = (double)(now - progress->started_ns) * 1e-9;
	double share = progress->total ? (double)progress->done / (double)progress->total : 0;
	char done[32], total[32], left[32] = "", line[256];
	char unit[32] = ""; /* a size carries its own */

	if (strcmp(progress->unit, "B"))
		snprintf(unit, sizeof unit, " %s", progress->unit);
	if (share > 1)
		share = 1;
	if (share > 0 && share < 1 && elapsed > 0.5) {
		char time[32];

		double rate = (double)(progress->done - progress->first) / elapsed;

		if (rate > 0)
			snprintf(left, sizeof left, ", %s left",
			         cli_human_time(time, sizeof time, ceil((double)(progress->total - progress->done) / rate)));
	}
	amount(done, sizeof done, progress, progress->done);
	amount(total, sizeof total, progress, progress->total);
	if (progress->bar) {
		char bar[25];
		int filled = (int)(share * 24);

		memset(bar, ' ', 24);
		memset(bar, '=', (size_t)filled);
		if (filled < 24)
			bar[filled] = '>';
		bar[24] = 0;
		if (progress->total)
			snprintf(line, sizeof line, "%s [%s] %3d%% %s/%s%s%s  %.60s", progress->label, bar, (int)(share * 100),
			         done, total, unit, left, detail ? detail : "");
		else
			snprintf(line, sizeof line, "%s %s%s  %.60s", progress->label, done, unit, detail ? detail : "");
		int width = cli_term_width(stderr) - 1;

		if (cli_text_width(line) > width) { /* cut at a character */
			size_t n = strlen(line);

			while (n && (cli_text_width(line) > width || (line[n] & 0xc0) == 0x80))
				line[--n] = 0;
		}
		fprintf(stderr, "\r%s\033[K", line);
	} else if (progress->total) {
		fprintf(stderr, "%s: %s of %s%s (%d%%%s)\n", progress->label, done, total, unit, (int)(share * 100), left);
	} else {
		fprintf(stderr, "%s: %s%s\n", progress->label, done, unit);
	}
	fflush(stderr);
}

void cli_progress_begin(cli_progress *progress, const char *label, const char *unit, uint64_t total)
{
	memset(progress, 0, sizeof *progress);
	progress->label = label;
	progress->unit = unit;
	progress->total = total;
	progress->started_ns = progress->shown_ns = ruv_clock_now_ns();
	progress->active = !cli.quiet;
	progress->bar = progress->active && isatty(STDERR_FILENO);
}

void cli_progress_update(cli_progress *progress, uint64_t done, const char *detail)
{
	int64_t now;

	progress->done = done;
	if (!progress->active)
		return;
	now = ruv_clock_now_ns();
	if (now - progress->shown_ns < (progress->bar ? INT64_C(100000000) : INT64_C(10000000000)))
		return;
	progress->shown_ns = now;
	show_progress(progress, detail, now);
}

void cli_progress_end(cli_progress *progress, bool summary)
{
	if (!progress->active)
		return;
	progress->active = false;
	if (progress->bar)
		fprintf(stderr, "\r\033[K");
	if (summary) {
		char done[32], time[32];

		fprintf(stderr, "%s: %s%s%s in %s\n", progress->label, amount(done, sizeof done, progress, progress->done),
		        strcmp(progress->unit, "B") ? " " : "", strcmp(progress->unit, "B") ? progress->unit : "",
		        cli_human_time(time, sizeof time, (double)(ruv_clock_now_ns() - progress->started_ns) * 1e-9));
	}
	fflush(stderr);
}

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------------ */

volatile sig_atomic_t cli_interrupted;
ruv_cancel cli_cancel;
static int interrupt_pipe[2] = {-1, -1};

static void on_interrupt(int number)
{
	if (cli_interrupted && number == SIGINT) { /* twice: the user means it */
		static const char text[] = "\n";

		if (write(STDERR_FILENO, text, 1) < 0)
			_exit(CLI_EXIT_INTERRUPTED);
		_exit(CLI_EXIT_INTERRUPTED);
	}
	cli_interrupted = number;
	ruv_cancel_set(&cli_cancel);
	if (interrupt_pipe[1] >= 0 && write(interrupt_pipe[1], "", 1) < 0)
		return; /* full: it is readable already */
}

void cli_interrupt_catch(void)
{
	struct sigaction action = {0};

	if (interrupt_pipe[0] < 0 && pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK))
		interrupt_pipe[0] = interrupt_pipe[1] = -1;
	action.sa_handler = on_interrupt;
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL); /* no SA_RESTART: a waiting read must notice */
	sigaction(SIGTERM, &action, NULL);
}

int cli_interrupt_fd(void)
{
	return interrupt_pipe[0];
}

void cli_interrupt_clear(void)
{
	clearerr(stdout); /* a write that the signal cut short is no failed output; a real failure shows at the next write */
	char bytes[64];

	while (interrupt_pipe[0] >= 0 && read(interrupt_pipe[0], bytes, sizeof bytes) > 0)
		;
	cli_interrupted = 0;
	ruv_cancel_clear(&cli_cancel);
}

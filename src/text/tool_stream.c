/* tool_stream.c - a state machine over an open block of tool calls; see tool_stream.h.
 *
 * Python's arguments become JSON as they come: {"key": value, ...}, values by jansson once they are whole, strings decoded and
 * written again in pieces. Because the whole block's arguments are written by the same functions in the same way, what was told is
 * always a beginning of what the end tells; ruv_tool_scan_end checks it. JSON's arguments are passed on as they stand. */
#include "text/tool_stream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

enum { WAIT = 1 }; /* more of the block is needed */

void ruv_tool_scan_init(ruv_tool_scan *s)
{
	memset(s, 0, sizeof *s);
	ruv_buf_init(&s->name, 1 << 12);
	ruv_buf_init(&s->told, SIZE_MAX / 2);
	ruv_buf_init(&s->piece, SIZE_MAX / 2);
}

void ruv_tool_scan_release(ruv_tool_scan *s)
{
	ruv_buf_release(&s->name);
	ruv_buf_release(&s->told);
	ruv_buf_release(&s->piece);
}

void ruv_tool_scan_begin(ruv_tool_scan *s, ruv_tool_syntax syntax, size_t first, ruv_on_tool_part *on_part, void *user)
{
	s->syntax = syntax;
	s->on_part = on_part;
	s->user = user;
	s->state = RUV_SCAN_START;
	s->at = s->n_begun = 0;
	s->first = first;
	s->open = s->in_string = false;
	s->depth = 0;
	ruv_buf_clear(&s->name);
	ruv_buf_clear(&s->told);
	ruv_buf_clear(&s->piece);
}

bool ruv_tool_scan_begun(const ruv_tool_scan *s)
{
	return s->n_begun > 0;
}

/* ---- telling ---- */

static int begin_call(ruv_tool_scan *s, const char *name, size_t n)
{
	ruv_buf_clear(&s->name);
	ruv_buf_clear(&s->told);
	if (ruv_buf_append(&s->name, name, n))
		return s->name.failed;
	s->n_begun++;
	s->open = true;
	return s->on_part(s->user, RUV_PART_BEGIN, s->first + s->n_begun - 1, ruv_buf_cstr(&s->name), "", 0);
}

/* The piece is the next part of the arguments. */
static int tell_piece(ruv_tool_scan *s)
{
	int rc = s->piece.failed;

	if (!rc && s->piece.len) {
		rc = ruv_buf_append(&s->told, s->piece.data, s->piece.len);
		if (!rc)
			rc = s->on_part(s->user, RUV_PART_ARGUMENTS, s->first + s->n_begun - 1, ruv_buf_cstr(&s->name),
			                ruv_buf_cstr(&s->piece), s->piece.len);
	}
	ruv_buf_clear(&s->piece);
	return rc;
}

static int end_call(ruv_tool_scan *s)
{
	s->open = false;
	return s->on_part(s->user, RUV_PART_END, s->first + s->n_begun - 1, ruv_buf_cstr(&s->name), ruv_buf_cstr(&s->told),
	                  s->told.len);
}

/* ---- writing arguments as JSON ---- */

static void put_value(ruv_buf *out, const json_t *value)
{
	char number[40];
	char *text;

	if (json_is_real(value)) {
		for (int precision = 1; precision <= 17; precision++) {
			snprintf(number, sizeof number, "%.*g", precision, json_real_value(value));
			if (strtod(number, NULL) == json_real_value(value))
				break;
		}
		ruv_buf_puts(out, number);
		if (!strpbrk(number, ".e"))
			ruv_buf_puts(out, ".0");
		return;
	}
	text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
	if (text)
		ruv_buf_puts(out, text);
	else
		out->failed = RUV_ENOMEM;
	free(text);
}

static void put_key(ruv_tool_scan *s, const char *key, size_t n)
{
	json_t *name = json_stringn(key, n);

	ruv_buf_puts(&s->piece, s->told.len ? ", " : "{");
	if (name)
		put_value(&s->piece, name);
	ruv_buf_puts(&s->piece, ": ");
	json_decref(name);
}

/* A decoded part of a string, without quotes. */
static void put_string_part(ruv_tool_scan *s, const char *text, size_t n)
{
	json_t *part = json_stringn(text, n);
	char *dump = part ? json_dumps(part, JSON_ENCODE_ANY) : NULL;

	if (dump)
		ruv_buf_append(&s->piece, dump + 1, strlen(dump) - 2);
	else
		s->piece.failed = s->piece.failed ? s->piece.failed : RUV_ENOMEM;
	free(dump);
	json_decref(part);
}

static void put_arguments(ruv_buf *out, const json_t *arguments)
{
	const char *key;
	json_t *value;
	int i = 0;

	ruv_buf_putc(out, '{');
	json_object_foreach((json_t *)arguments, key, value)
	{
		json_t *name = json_string(key);

		if (i++)
			ruv_buf_puts(out, ", ");
		if (name)
			put_value(out, name);
		ruv_buf_puts(out, ": ");
		put_value(out, value);
		json_decref(name);
	}
	ruv_buf_putc(out, '}');
}

/* ---- reading ---- */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_space(const char *block, size_t n, size_t at)
{
	while (at < n && is_space(block[at]))
		at++;
	return at;
}

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' ||
	       (unsigned char)c >= 0x80;
}

static bool is_text(const char *bytes, size_t n)
{
	return ruv_utf8_valid_prefix(bytes, n) == n;
}

static size_t name_end(const char *block, size_t n, size_t at)
{
	while (at < n && is_name(block[at]))
		at++;
	return at;
}

/* Where a value that begins at `at` ends, by its quotes and brackets; n when that is not seen yet. */
static size_t value_end(const char *block, size_t n, size_t at)
{
	char quote = '\0';
	int depth = 0;

	for (; at < n; at++) {
		const char c = block[at];

		if (quote) {
			if (c == '\\')
				at++;
			else if (c == quote)
				quote = '\0';
		} else if (c == '"' || c == '\'') {
			quote = c;
		} else if (c == '[' || c == '(' || c == '{') {
			depth++;
		} else if (depth && (c == ']' || c == ')' || c == '}')) {
			depth--;
		} else if (!depth && (c == ',' || c == ')')) {
			return at;
		}
	}
	return n;
}

/* Stops telling; the whole block's reader decides. */
static int leave(ruv_tool_scan *s)
{
	ruv_buf_clear(&s->piece); /* what was not told yet comes at the end */
	s->state = RUV_SCAN_DONE;
	return RUV_OK;
}

static int step_call(ruv_tool_scan *s, const char *block, size_t n)
{
	const size_t at = skip_space(block, n, s->at), end = name_end(block, n, at), open = skip_space(block, n, end);
	int rc;

	if (at == n)
		return WAIT;
	if (block[at] == ',' || block[at] == ';') { /* between calls */
		if (!s->n_begun)
			return leave(s);
		s->at = at + 1;
		return RUV_OK;
	}
	if (end == at)
		return leave(s);
	if (open == n)
		return WAIT;
	if (block[open] != '(' || end - at > 256 || !is_text(block + at, end - at))
		return leave(s);
	rc = begin_call(s, block + at, end - at);
	s->at = open + 1;
	s->state = RUV_SCAN_ARGUMENT;
	return rc;
}

static int close_call(ruv_tool_scan *s, size_t at)
{
	int rc;

	ruv_buf_puts(&s->piece, s->told.len ? "}" : "{}");
	rc = tell_piece(s);
	s->at = at + 1;
	s->state = RUV_SCAN_CALL;
	return rc ? rc : end_call(s);
}

static int step_argument(ruv_tool_scan *s, const char *block, size_t n)
{
	const size_t at = skip_space(block, n, s->at), end = name_end(block, n, at), equals = skip_space(block, n, end),
		     value = skip_space(block, n, equals + 1);

	if (at == n)
		return WAIT;
	if (block[at] == ')')
		return close_call(s, at);
	if (end == at)
		return leave(s);
	if (equals == n || value >= n)
		return WAIT;
	if (block[equals] != '=' || !is_text(block + at, end - at))
		return leave(s);
	if (block[value] == '"' || block[value] == '\'') {
		put_key(s, block + at, end - at);
		ruv_buf_putc(&s->piece, '"');
		s->quote = block[value];
		s->at = value + 1;
		s->state = RUV_SCAN_STRING;
		return tell_piece(s);
	}
	const size_t stop = value_end(block, n, value);
	size_t last = stop;
	json_t *json = NULL;

	if (stop == n)
		return WAIT;
	while (last > value && is_space(block[last - 1]))
		last--;
	if (ruv_tool_read_value(block + value, last - value, &json))
		return leave(s);
	put_key(s, block + at, end - at);
	put_value(&s->piece, json);
	json_decref(json);
	s->at = stop;
	s->state = RUV_SCAN_AFTER_VALUE;
	return tell_piece(s);
}

/* The length of the escape at `at`; 0: not all of it is there. */
static size_t escape_length(const char *block, size_t n, size_t at)
{
	size_t length = 2;

	if (n - at < 2)
		return 0;
	if (block[at + 1] == 'x')
		length = 4;
	else if (block[at + 1] == 'u')
		length = 6;
	else if (block[at + 1] == 'U')
		length = 10;
	if (n - at < length)
		return 0;
	if (length == 6 && (block[at + 2] | 32) == 'd' && strchr("89abAB", block[at + 3]))
		length = n - at < 12 ? 0 : !memcmp(block + at + 6, "\\u", 2) ? 12 : 6; /* a pair of surrogates */
	return length;
}

static int step_string(ruv_tool_scan *s, const char *block, size_t n)
{
	while (s->at < n) {
		size_t end = s->at, length;

		while (end < n && block[end] != '\\' && block[end] != s->quote)
			end++;
		if (end == n) /* what is whole of it */
			end = s->at + ruv_utf8_valid_prefix(block + s->at, n - s->at);
		if (end > s->at) {
			if (!is_text(block + s->at, end - s->at) || memchr(block + s->at, 0, end - s->at))
				return leave(s);
			put_string_part(s, block + s->at, end - s->at);
			s->at = end;
			continue;
		}
		if (block[s->at] == s->quote) {
			ruv_buf_putc(&s->piece, '"');
			s->at++;
			s->state = RUV_SCAN_AFTER_VALUE;
			return tell_piece(s);
		}
		if (block[s->at] != '\\')
			break;
		length = escape_length(block, n, s->at);
		if (length == 0)
			break;
		char text[16];
		json_t *json = NULL;

		text[0] = text[length + 1] = s->quote;
		memcpy(text + 1, block + s->at, length);
		if (ruv_tool_read_value(text, length + 2, &json) || !json_is_string(json)) {
			json_decref(json);
			tell_piece(s);
			return leave(s);
		}
		put_string_part(s, json_string_value(json), json_string_length(json));
		json_decref(json);
		s->at += length;
	}
	int rc = tell_piece(s);
	return rc ? rc : WAIT;
}

static int step_after_value(ruv_tool_scan *s, const char *block, size_t n)
{
	const size_t at = skip_space(block, n, s->at);

	if (at == n)
		return WAIT;
	if (block[at] == ')')
		return close_call(s, at);
	if (block[at] != ',')
		return leave(s);
	s->at = at + 1;
	s->state = RUV_SCAN_ARGUMENT;
	return RUV_OK;
}

/* JSON: the object {"name": "...", "arguments": {...}}. */
static int step_key(ruv_tool_scan *s, const char *block, size_t n)
{
	const size_t at = skip_space(block, n, s->at);
	size_t end, value, stop;

	if (at == n)
		return WAIT;
	if (block[at] == ',') {
		s->at = at + 1;
		return RUV_OK;
	}
	if (block[at] != '"')
		return leave(s);
	for (end = at + 1; end < n && block[end] != '"'; end++)
		if (block[end] == '\\')
			return leave(s);
	value = skip_space(block, n, end + 1);
	if (value >= n)
		return WAIT;
	if (block[value] != ':')
		return leave(s);
	value = skip_space(block, n, value + 1);
	if (value >= n)
		return WAIT;
	if (end - at == 5 && !memcmp(block + at, "\"name", 5) && block[value] == '"' && !s->name.len) {
		for (stop = value + 1; stop < n && block[stop] != '"'; stop++)
			if (block[stop] == '\\')
				return leave(s);
		if (stop == n)
			return WAIT;
		if (!is_text(block + value + 1, stop - value - 1) || ruv_buf_append(&s->name, block + value + 1, stop - value - 1))
			return leave(s);
		s->at = stop + 1;
		return RUV_OK;
	}
	if (end - at == 10 && !memcmp(block + at, "\"arguments", 10) && block[value] == '{' && s->name.len && !s->n_begun) {
		char name[512];

		if (s->name.len >= sizeof name)
			return leave(s);
		memcpy(name, s->name.data, s->name.len);
		s->at = value;
		s->state = RUV_SCAN_JSON;
		s->depth = 0;
		s->in_string = false;
		return begin_call(s, name, s->name.len);
	}
	return leave(s);
}

static int step_json(ruv_tool_scan *s, const char *block, size_t n)
{
	size_t at = s->at;
	int rc;

	for (; at < n; at++) {
		const char c = block[at];

		if (s->in_string) {
			if (c == '\\' && at + 1 >= n)
				break;
			at += c == '\\';
			s->in_string = c != '"';
		} else if (c == '"') {
			s->in_string = true;
		} else if (c == '{' || c == '[') {
			s->depth++;
		} else if ((c == '}' || c == ']') && --s->depth == 0) {
			ruv_buf_append(&s->piece, block + s->at, at + 1 - s->at);
			s->at = at + 1;
			s->state = RUV_SCAN_DONE;
			rc = tell_piece(s);
			if (rc)
				return rc;
			json_t *whole = json_loadb(ruv_buf_cstr(&s->told), s->told.len, JSON_REJECT_DUPLICATES, NULL);

			if (!whole) /* stays open: the block's reader will call it broken */
				return leave(s);
			json_decref(whole);
			return end_call(s);
		}
	}
	/* whole characters alone are told */
	at = s->at + ruv_utf8_valid_prefix(block + s->at, at - s->at);
	if (at > s->at)
		ruv_buf_append(&s->piece, block + s->at, at - s->at);
	s->at = at;
	rc = tell_piece(s);
	return rc ? rc : WAIT;
}

static int step(ruv_tool_scan *s, const char *block, size_t n)
{
	size_t at;

	switch (s->state) {
	case RUV_SCAN_START:
		at = skip_space(block, n, s->at);
		if (at == n)
			return WAIT;
		if (block[at] == '{' && s->syntax == RUV_TOOL_SYNTAX_QWEN) {
			s->at = at + 1;
			s->state = RUV_SCAN_KEY;
			return RUV_OK;
		}
		if (s->syntax == RUV_TOOL_SYNTAX_QWEN || block[at] == '{')
			return leave(s);
		s->at = at + (block[at] == '[');
		s->state = RUV_SCAN_CALL;
		return RUV_OK;
	case RUV_SCAN_CALL:
		return step_call(s, block, n);
	case RUV_SCAN_ARGUMENT:
	case RUV_SCAN_VALUE:
		return step_argument(s, block, n);
	case RUV_SCAN_STRING:
		return step_string(s, block, n);
	case RUV_SCAN_AFTER_VALUE:
		return step_after_value(s, block, n);
	case RUV_SCAN_KEY:
		return step_key(s, block, n);
	case RUV_SCAN_JSON:
		return step_json(s, block, n);
	case RUV_SCAN_DONE:
		break;
	}
	return WAIT;
}

int ruv_tool_scan_push(ruv_tool_scan *s, const char *block, size_t n)
{
	int rc = RUV_OK;

	while (rc == RUV_OK)
		rc = step(s, block, n);
	return rc == WAIT ? RUV_OK : rc;
}

int ruv_tool_scan_end(ruv_tool_scan *s, const ruv_tool_call *calls, size_t n)
{
	int rc = RUV_OK;

	if (s->n_begun > n)
		return RUV_EFORMAT;
	for (size_t i = s->n_begun - (s->open ? 1 : 0); i < n && rc == RUV_OK; i++) {
		ruv_buf all;

		if (!s->open) {
			rc = begin_call(s, calls[i].name, strlen(calls[i].name));
			if (rc)
				break;
		}
		ruv_buf_init(&all, SIZE_MAX / 2);
		put_arguments(&all, calls[i].arguments);
		rc = all.failed;
		if (!rc && (s->told.len > all.len || (s->told.len && memcmp(s->told.data, all.data, s->told.len))))
			rc = RUV_EFORMAT;
		if (!rc) {
			ruv_buf_append(&s->piece, all.data + s->told.len, all.len - s->told.len);
			rc = tell_piece(s);
		}
		ruv_buf_release(&all);
		if (!rc)
			rc = end_call(s);
	}
	return rc;
}

/* tool_calls.c - the stream splitter, the reader of Python calls and of JSON calls, and the writer.
 *
 * The splitter holds back the shortest end of its input that could still become a mark. Between the marks it collects the block
 * and reads it at once when its end mark arrives. A listener also hears of the block while it grows (tool_stream.c): that is a
 * forecast, which the reading of the whole block confirms, completes, or takes back. */
#include "text/tool_calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/tool_stream.h"
#include "text/unicode.h"

enum { MAX_BLOCK = 1 << 20, MAX_CALLS = 256, MAX_DEPTH = 64 };

static const char *const start_marks[] = {"", "<|tool_call_start|>", "<tool_call>"};
static const char *const end_marks[] = {"", "<|tool_call_end|>", "</tool_call>"};

struct ruv_tool_parser {
	ruv_tool_scan scan;
	ruv_on_tool_part *on_part; /* NULL: nobody listens */
	void *user;
	ruv_tool_syntax syntax;
	ruv_buf pending; /* not yet decided, or the open block */
	ruv_buf block;   /* the block that failed */
	ruv_tool_call *calls;
	size_t n_calls, cap_calls;
	bool in_call;
	bool bare;  /* in_call without a start mark: "[name(" at the very beginning */
	bool begun; /* something else than white space was let through, or a mark was seen */
};

/* ---- reading a block ---- */

typedef struct reader {
	const char *text;
	size_t n, at;
	size_t call; /* the number of the call, from 1, for messages */
	ruv_error *err;
} reader;

static int bad(reader *r, const char *what)
{
	return ruv_fail(r->err, RUV_EFORMAT, "tool calls", "tool call %zu, byte %zu: %s", r->call, r->at, what);
}

static void skip_space(reader *r)
{
	while (r->at < r->n && strchr(" \t\r\n", r->text[r->at]) && r->text[r->at])
		r->at++;
}

static bool is_name_char(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9') ||
	       (unsigned char)c >= 0x80;
}

/* The length of a name at r->at; dots and hyphens inside when `dotted`. */
static size_t name_length(const reader *r, bool dotted)
{
	size_t i = r->at;

	if (i >= r->n || !is_name_char(r->text[i], true))
		return 0;
	while (i < r->n && (is_name_char(r->text[i], false) || (dotted && (r->text[i] == '.' || r->text[i] == '-'))))
		i++;
	return i - r->at;
}

static int read_value(reader *r, int depth, json_t **out);

static int read_string(reader *r, json_t **out)
{
	char quote = r->text[r->at];
	size_t start = r->at;
	ruv_buf text;
	int rc = RUV_OK;

	ruv_buf_init(&text, MAX_BLOCK);
	for (r->at++; r->at < r->n && r->text[r->at] != quote; r->at++) {
		char c = r->text[r->at], hex[9] = {0}, bytes[4], *stop;
		uint32_t cp;
		size_t width;

		if (c == '\0') {
			rc = bad(r, "a NUL in a string");
			goto done;
		}
		if (c != '\\') {
			ruv_buf_putc(&text, c);
			continue;
		}
		if (++r->at == r->n)
			break;
		c = r->text[r->at];
		switch (c) {
		case 'n':
			ruv_buf_putc(&text, '\n');
			break;
		case 't':
			ruv_buf_putc(&text, '\t');
			break;
		case 'r':
			ruv_buf_putc(&text, '\r');
			break;
		case 'b':
			ruv_buf_putc(&text, '\b');
			break;
		case 'f':
			ruv_buf_putc(&text, '\f');
			break;
		case '\n':
			break;
		case '\\':
		case '\'':
		case '"':
		case '/':
			ruv_buf_putc(&text, c);
			break;
		case 'x':
		case 'u':
		case 'U':
			width = c == 'x' ? 2 : c == 'u' ? 4 : 8;
			if (r->n - r->at <= width) {
				rc = bad(r, "an escape is cut off");
				goto done;
			}
			memcpy(hex, r->text + r->at + 1, width);
			cp = (uint32_t)strtoul(hex, &stop, 16);
			if (stop != hex + width || hex[0] == '-' || hex[0] == '+' || hex[0] == ' ') {
				rc = bad(r, "an escape without its hex digits");
				goto done;
			}
			r->at += width;
			if (c == 'u' && cp >= 0xD800 && cp < 0xDC00 && r->n - r->at > 6 && r->text[r->at + 1] == '\\' &&
			    r->text[r->at + 2] == 'u') {
				uint32_t low;
				memcpy(hex, r->text + r->at + 3, 4);
				hex[4] = '\0';
				low = (uint32_t)strtoul(hex, &stop, 16);
				if (stop == hex + 4 && low >= 0xDC00 && low < 0xE000) {
					cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
					r->at += 6;
				}
			}
			if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000) || cp == 0) {
				rc = bad(r, "an escape that is no character");
				goto done;
			}
			ruv_buf_append(&text, bytes, (size_t)ruv_utf8_encode(cp, bytes));
			break;
		default: /* Python keeps unknown escapes */
			if (c == '\0') {
				rc = bad(r, "a NUL in a string");
				goto done;
			}
			ruv_buf_putc(&text, '\\');
			ruv_buf_putc(&text, c);
		}
	}
	if (r->at >= r->n) {
		r->at = start;
		rc = bad(r, "this string is never closed");
		goto done;
	}
	r->at++;
	*out = text.failed ? NULL : json_stringn(ruv_buf_cstr(&text), text.len);
	if (!*out) {
		r->at = start;
		rc = text.failed ? ruv_fail_memory(r->err, "tool calls", text.len) : bad(r, "this string is not UTF-8");
	}
done:
	ruv_buf_release(&text);
	return rc;
}

static int read_number(reader *r, json_t **out)
{
	char digits[64], *stop;
	size_t n = 0, i = r->at;
	bool real = false;

	while (i < r->n && r->text[i] && strchr("+-0123456789.eE_", r->text[i])) {
		if (n + 1 == sizeof digits)
			return bad(r, "this number is too long");
		real |= strchr(".eE", r->text[i]) != NULL;
		if (r->text[i] != '_')
			digits[n++] = r->text[i];
		i++;
	}
	digits[n] = '\0';
	errno = 0;
	if (real) {
		double f = strtod(digits, &stop);
		*out = *stop || !n ? NULL : json_real(f); /* NULL also for infinities */
	} else {
		long long value = strtoll(digits, &stop, 10);
		*out = *stop || !n || errno ? NULL : json_integer(value);
	}
	if (!*out)
		return bad(r, "this is no number that can be represented");
	r->at = i;
	return RUV_OK;
}

/* "[...]" or "(...)". */
static int read_list(reader *r, int depth, json_t **out)
{
	char close = r->text[r->at] == '[' ? ']' : ')';
	json_t *list = json_array(), *item;
	int rc = list ? RUV_OK : ruv_fail_memory(r->err, "tool calls", 64);

	r->at++;
	while (rc == RUV_OK) {
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == close) {
			r->at++;
			*out = list;
			return RUV_OK;
		}
		rc = read_value(r, depth + 1, &item);
		if (rc == RUV_OK && json_array_append_new(list, item))
			rc = ruv_fail_memory(r->err, "tool calls", 64);
		if (rc)
			break;
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == ',')
			r->at++;
		else if (r->at >= r->n || r->text[r->at] != close)
			rc = bad(r, "',' or the end of the list expected");
	}
	json_decref(list);
	return rc;
}

static int read_dict(reader *r, int depth, json_t **out)
{
	json_t *dict = json_object(), *key = NULL, *item = NULL;
	int rc = dict ? RUV_OK : ruv_fail_memory(r->err, "tool calls", 64);

	r->at++;
	while (rc == RUV_OK) {
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == '}') {
			r->at++;
			*out = dict;
			return RUV_OK;
		}
		rc = read_value(r, depth + 1, &key);
		if (rc)
			break;
		skip_space(r);
		if (!json_is_string(key)) {
			rc = bad(r, "a dict's key must be a string");
		} else if (r->at >= r->n || r->text[r->at] != ':') {
			rc = bad(r, "':' expected");
		} else if (json_object_get(dict, json_string_value(key))) {
			rc = bad(r, "a key stands twice");
		} else {
			r->at++;
			skip_space(r);
			rc = read_value(r, depth + 1, &item);
			if (rc == RUV_OK && json_object_setn_new(dict, json_string_value(key), json_string_length(key), item))
				rc = bad(r, "this key cannot be stored");
		}
		json_decref(key);
		if (rc)
			break;
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == ',')
			r->at++;
		else if (r->at >= r->n || r->text[r->at] != '}')
			rc = bad(r, "',' or '}' expected");
	}
	json_decref(dict);
	return rc;
}

static int read_value(reader *r, int depth, json_t **out)
{
	static const struct {
		const char *word;
		int value; /* 1, 0, -1: none */
	} words[] = {{"True", 1}, {"true", 1}, {"False", 0}, {"false", 0}, {"None", -1}, {"null", -1}};
	size_t i, n;
	char c;

	skip_space(r);
	if (depth > MAX_DEPTH)
		return bad(r, "nested too deeply");
	if (r->at >= r->n)
		return bad(r, "a value is missing");
	c = r->text[r->at];
	if (c == '"' || c == '\'')
		return read_string(r, out);
	if (c == '[' || c == '(')
		return read_list(r, depth, out);
	if (c == '{')
		return read_dict(r, depth, out);
	if (c == '-' || c == '+' || c == '.' || (c >= '0' && c <= '9'))
		return read_number(r, out);
	n = name_length(r, false);
	for (i = 0; i < sizeof words / sizeof *words; i++)
		if (n == strlen(words[i].word) && memcmp(r->text + r->at, words[i].word, n) == 0) {
			r->at += n;
			*out = words[i].value < 0 ? json_null() : json_boolean(words[i].value);
			return RUV_OK;
		}
	return bad(r, "a value expected (a string, number, list, dict, True, False or None)");
}

int ruv_tool_read_value(const char *text, size_t n, json_t **out)
{
	reader r = {.text = text, .n = n};
	int rc = read_value(&r, 1, out);

	if (!rc && r.at < n) {
		json_decref(*out);
		rc = RUV_EFORMAT;
	}
	return rc;
}

static int add_call(ruv_tool_parser *p, const char *name, size_t n, json_t *arguments, ruv_error *err)
{
	ruv_tool_call *call;

	if (p->n_calls == MAX_CALLS) {
		json_decref(arguments);
		return ruv_fail(err, RUV_ELIMIT, "tool calls", "more than %d tool calls", MAX_CALLS);
	}
	if (p->n_calls == p->cap_calls) {
		size_t cap = p->cap_calls ? 2 * p->cap_calls : 4;
		ruv_tool_call *calls = realloc(p->calls, cap * sizeof *calls);
		if (!calls) {
			json_decref(arguments);
			return ruv_fail_memory(err, "tool calls", cap * sizeof *calls);
		}
		p->calls = calls;
		p->cap_calls = cap;
	}
	call = &p->calls[p->n_calls];
	call->name = strndup(name, n);
	call->arguments = arguments;
	if (!call->name) {
		json_decref(arguments);
		return ruv_fail_memory(err, "tool calls", n);
	}
	p->n_calls++;
	return RUV_OK;
}

/* name(key=value, ...) */
static int read_python_call(ruv_tool_parser *p, reader *r)
{
	size_t name, n_name, n;
	json_t *arguments, *value;
	char key[256];
	int rc = RUV_OK;

	r->call = p->n_calls + 1;
	skip_space(r);
	name = r->at;
	n_name = name_length(r, true);
	if (n_name == 0)
		return bad(r, "a function's name expected");
	r->at += n_name;
	skip_space(r);
	if (r->at >= r->n || r->text[r->at] != '(')
		return bad(r, "'(' expected behind the function's name");
	r->at++;
	arguments = json_object();
	if (!arguments)
		return ruv_fail_memory(r->err, "tool calls", 64);
	for (;;) {
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == ')')
			break;
		n = name_length(r, true);
		if (n == 0 || n >= sizeof key) {
			rc = bad(r, "an argument's name expected (name=value)");
			break;
		}
		memcpy(key, r->text + r->at, n);
		key[n] = '\0';
		r->at += n;
		skip_space(r);
		if (r->at >= r->n || r->text[r->at] != '=') {
			rc = bad(r, "'=' expected behind the argument's name");
			break;
		}
		r->at++;
		if (json_object_get(arguments, key)) {
			rc = bad(r, "an argument stands twice");
			break;
		}
		rc = read_value(r, 1, &value);
		if (rc)
			break;
		if (json_object_set_new(arguments, key, value)) {
			rc = bad(r, "this argument's name is not UTF-8");
			break;
		}
		skip_space(r);
		if (r->at < r->n && r->text[r->at] == ',') {
			r->at++;
		} else if (r->at >= r->n || r->text[r->at] != ')') {
			rc = bad(r, "',' or ')' expected");
			break;
		}
	}
	if (rc) {
		json_decref(arguments);
		return rc;
	}
	r->at++;
	return add_call(p, r->text + name, n_name, arguments, r->err);
}

/* {"name": ..., "arguments": {...} or "{...}"} */
static int take_json_call(ruv_tool_parser *p, reader *r, const json_t *call)
{
	const json_t *name = json_object_get(call, "name");
	json_t *arguments = json_object_get(call, "arguments"), *parsed;
	json_error_t at;

	r->call = p->n_calls + 1;
	if (!json_is_object(call) || !json_is_string(name) || json_string_length(name) == 0)
		return bad(r, "an object with a \"name\" expected");
	if (!arguments)
		arguments = json_object_get(call, "parameters");
	if (json_is_string(arguments)) {
		parsed = json_loadb(json_string_value(arguments), json_string_length(arguments), JSON_REJECT_DUPLICATES, &at);
		if (!json_is_object(parsed)) {
			json_decref(parsed);
			return bad(r, "the string of \"arguments\" is no JSON object");
		}
	} else if (!arguments || json_is_null(arguments)) {
		parsed = json_object();
	} else if (json_is_object(arguments)) {
		parsed = json_incref(arguments);
	} else {
		return bad(r, "\"arguments\" is no object");
	}
	if (!parsed)
		return ruv_fail_memory(r->err, "tool calls", 64);
	return add_call(p, json_string_value(name), json_string_length(name), parsed, r->err);
}

static int read_json(ruv_tool_parser *p, reader *r)
{
	json_error_t at;
	json_t *json = json_loadb(r->text, r->n, JSON_REJECT_DUPLICATES, &at);
	size_t i;
	int rc = RUV_OK;

	r->call = p->n_calls + 1;
	if (!json) {
		r->at = at.position > 0 ? (size_t)at.position : 0;
		return bad(r, at.text);
	}
	r->at = 0;
	if (json_is_array(json)) {
		if (json_array_size(json) == 0)
			rc = bad(r, "a list of no calls");
		for (i = 0; rc == RUV_OK && i < json_array_size(json); i++)
			rc = take_json_call(p, r, json_array_get(json, i));
	} else {
		rc = take_json_call(p, r, json);
	}
	json_decref(json);
	return rc;
}

static void drop_calls(ruv_tool_parser *p, size_t from)
{
	while (p->n_calls > from) {
		p->n_calls--;
		free(p->calls[p->n_calls].name);
		json_decref(p->calls[p->n_calls].arguments);
	}
}

/* Reads one block; adds all of its calls or none. */
static int read_block(ruv_tool_parser *p, const char *text, size_t n, ruv_error *err)
{
	reader r = {.text = text, .n = n, .call = p->n_calls + 1, .err = err};
	size_t before = p->n_calls;
	bool list;
	int rc = RUV_OK;

	skip_space(&r);
	if (r.at == r.n)
		return bad(&r, "nothing stands between the marks");
	list = text[r.at] == '[';
	if (p->syntax == RUV_TOOL_SYNTAX_QWEN || text[r.at] == '{') {
		rc = read_json(p, &r);
		goto done;
	}
	if (list) {
		size_t start = r.at++;
		skip_space(&r);
		if (r.at < r.n && text[r.at] == '{') {
			r.at = start;
			rc = read_json(p, &r);
			goto done;
		}
	}
	for (;;) {
		skip_space(&r);
		if (list && r.at < r.n && text[r.at] == ']' && p->n_calls > before)
			break;
		rc = read_python_call(p, &r);
		if (rc)
			goto done;
		skip_space(&r);
		if (r.at < r.n && (text[r.at] == ',' || (!list && text[r.at] == ';')))
			r.at++;
		else if (list && (r.at >= r.n || text[r.at] != ']'))
			rc = bad(&r, "',' or ']' expected");
		else if (!list)
			break;
		if (rc)
			goto done;
	}
	r.at += list;
	skip_space(&r);
	if (r.at < r.n)
		rc = bad(&r, "something follows the calls");
done:
	if (rc)
		drop_calls(p, before);
	return rc;
}

/* ---- the stream ---- */

const char *ruv_tool_syntax_name(ruv_tool_syntax syntax)
{
	return syntax == RUV_TOOL_SYNTAX_LFM2 ? "lfm2" : syntax == RUV_TOOL_SYNTAX_QWEN ? "qwen" : "none";
}

ruv_tool_syntax ruv_tool_syntax_of_template(const char *source, size_t n_bytes)
{
	if (memmem(source, n_bytes, "<|tool_call_start|>", 19) || memmem(source, n_bytes, "<|tool_list_start|>", 19))
		return RUV_TOOL_SYNTAX_LFM2;
	if (memmem(source, n_bytes, "<tool_call>", 11))
		return RUV_TOOL_SYNTAX_QWEN;
	/* LFM2.5's template names the tools in words of its own and leaves the calls to the content. */
	if (memmem(source, n_bytes, "List of tools: [", 16))
		return RUV_TOOL_SYNTAX_LFM2;
	return RUV_TOOL_SYNTAX_NONE;
}

int ruv_tool_parser_create(ruv_tool_parser **out, ruv_tool_syntax syntax, ruv_error *err)
{
	ruv_tool_parser *p = calloc(1, sizeof *p);

	if (!p)
		return ruv_fail_memory(err, "tool calls", sizeof *p);
	p->syntax = syntax;
	ruv_buf_init(&p->pending, SIZE_MAX / 2);
	ruv_buf_init(&p->block, MAX_BLOCK + 1024);
	ruv_tool_scan_init(&p->scan);
	*out = p;
	return RUV_OK;
}

void ruv_tool_parser_free(ruv_tool_parser *p)
{
	if (!p)
		return;
	drop_calls(p, 0);
	free(p->calls);
	ruv_buf_release(&p->pending);
	ruv_buf_release(&p->block);
	ruv_tool_scan_release(&p->scan);
	free(p);
}

static void drop_front(ruv_buf *buf, size_t n)
{
	if (n == 0)
		return;
	memmove(buf->data, buf->data + n, buf->len - n);
	ruv_buf_truncate(buf, buf->len - n);
}

/* Lets pending[0..n) through as text. */
static int let_through(ruv_tool_parser *p, size_t n, ruv_buf *text)
{
	size_t i;
	int rc = RUV_OK;

	for (i = 0; i < n && !p->begun; i++)
		p->begun = !strchr(" \t\r\n", p->pending.data[i]);
	if (n > 0 && p->on_part) {
		const char kept = p->pending.data[n];

		p->pending.data[n] = '\0';
		rc = p->on_part(p->user, RUV_PART_TEXT, 0, NULL, p->pending.data, n);
		p->pending.data[n] = kept;
	} else if (n > 0 && text) {
		rc = ruv_buf_append(text, p->pending.data, n);
	}
	if (n > 0)
		drop_front(&p->pending, n);
	return rc;
}

/* Does the text begin like a list of Python calls? 1 yes, 0 no, -1 more is needed to tell. */
static int begins_bare(const ruv_tool_parser *p)
{
	reader r = {.text = ruv_buf_cstr(&p->pending), .n = p->pending.len};
	size_t n;

	skip_space(&r);
	if (r.at == r.n)
		return -1;
	if (r.text[r.at++] != '[')
		return 0;
	skip_space(&r);
	if (r.at == r.n)
		return -1;
	n = name_length(&r, true);
	r.at += n;
	if (n == 0 || n > 128)
		return 0;
	if (r.at == r.n)
		return -1;
	return r.text[r.at] == '(';
}

static int fail_block(ruv_tool_parser *p, const char *text, size_t n)
{
	ruv_buf_clear(&p->block);
	return ruv_buf_append(&p->block, text, n < MAX_BLOCK ? n : MAX_BLOCK);
}

/* The block pending[0, n) is complete, and with its end mark n_all bytes long: its calls are told, or it was text after all. */
static int close_block(ruv_tool_parser *p, size_t n, size_t n_all, ruv_error *err)
{
	const char *start = start_marks[p->syntax];
	const size_t before = p->n_calls;
	ruv_error local = {0};
	ruv_buf text;
	int rc = read_block(p, ruv_buf_cstr(&p->pending), n, &local);

	p->in_call = false;
	if (rc == RUV_OK)
		rc = ruv_tool_scan_end(&p->scan, p->calls ? p->calls + before : NULL, p->n_calls - before);
	else if (rc != RUV_EFORMAT)
		ruv_fail(err, rc, "tool calls", "%s", local.message);
	if (rc != RUV_EFORMAT) {
		drop_front(&p->pending, n_all);
		return rc;
	}
	drop_calls(p, before);
	ruv_buf_init(&text, SIZE_MAX / 2);
	ruv_buf_puts(&text, start);
	ruv_buf_append(&text, ruv_buf_cstr(&p->pending), n_all);
	drop_front(&p->pending, n_all);
	rc = text.failed;
	if (!rc && ruv_tool_scan_begun(&p->scan))
		rc = p->on_part(p->user, RUV_PART_BROKEN, before, NULL, "", 0);
	if (!rc)
		rc = p->on_part(p->user, RUV_PART_TEXT, 0, NULL, text.data, text.len);
	ruv_buf_release(&text);
	return rc;
}

void ruv_tool_parser_listen(ruv_tool_parser *p, ruv_on_tool_part *on_part, void *user)
{
	p->on_part = on_part;
	p->user = user;
}

int ruv_tool_parser_push(ruv_tool_parser *p, const char *bytes, size_t n_bytes, ruv_buf *text, ruv_error *err)
{
	const char *start = start_marks[p->syntax], *end = end_marks[p->syntax], *found;
	size_t n_start = strlen(start), n_end = strlen(end), keep, n;
	int rc = ruv_buf_append(&p->pending, bytes, n_bytes);

	if (rc)
		return ruv_fail_memory(err, "tool calls", n_bytes);
	if (p->syntax == RUV_TOOL_SYNTAX_NONE)
		rc = let_through(p, p->pending.len, text);
	while (rc == RUV_OK && p->pending.len > 0) {
		if (!p->in_call) {
			found = memmem(p->pending.data, p->pending.len, start, n_start);
			if (found) {
				rc = let_through(p, (size_t)(found - p->pending.data), text);
				drop_front(&p->pending, n_start);
				p->in_call = p->begun = true;
				if (p->on_part)
					ruv_tool_scan_begin(&p->scan, p->syntax, p->n_calls, p->on_part, p->user);
				continue;
			}
			if (p->syntax == RUV_TOOL_SYNTAX_LFM2 && !p->begun) {
				int bare = begins_bare(p);
				p->bare = p->in_call = bare == 1;
				if (bare)
					break;
			}
			/* All but an end that may be the beginning of a mark. */
			for (keep = n_start - 1 < p->pending.len ? n_start - 1 : p->pending.len; keep > 0; keep--)
				if (memcmp(p->pending.data + p->pending.len - keep, start, keep) == 0)
					break;
			rc = let_through(p, p->pending.len - keep, text);
			break;
		}
		if (p->bare) { /* its end is the end of the text; a start mark says that it was text after all */
			found = memmem(p->pending.data, p->pending.len, start, n_start);
			if (!found && p->pending.len <= MAX_BLOCK)
				break;
			p->bare = p->in_call = false;
			p->begun = true;
			continue;
		}
		found = memmem(p->pending.data, p->pending.len, end, n_end);
		n = found ? (size_t)(found - p->pending.data) : p->pending.len;
		if (n > MAX_BLOCK) {
			fail_block(p, p->pending.data, n);
			return ruv_fail(err, RUV_ELIMIT, "tool calls", "tool call %zu is larger than %d bytes", p->n_calls + 1,
			                MAX_BLOCK);
		}
		if (p->on_part)
			rc = ruv_tool_scan_push(&p->scan, p->pending.data, n);
		if (!found || rc)
			break;
		if (p->on_part) {
			rc = close_block(p, n, n + n_end, err);
			continue;
		}
		rc = read_block(p, p->pending.data, n, err);
		if (rc)
			fail_block(p, p->pending.data, n);
		drop_front(&p->pending, n + n_end);
		p->in_call = false;
		if (rc)
			return rc;
	}
	if (rc && err && err->code == rc)
		return rc;
	return rc ? ruv_fail(err, rc, "tool calls", "%s", ruv_status_text(rc)) : RUV_OK;
}

int ruv_tool_parser_finish(ruv_tool_parser *p, ruv_buf *text, ruv_error *err)
{
	ruv_error local = {0};
	int rc = RUV_OK;

	/* A failed push may have left whole blocks behind. */
	rc = ruv_tool_parser_push(p, "", 0, text, err);
	if (rc)
		return rc;
	if (p->in_call && p->on_part && !p->bare)
		return close_block(p, p->pending.len, p->pending.len, err);
	if (p->in_call && p->bare) {
		const size_t before = p->n_calls;

		if (read_block(p, p->pending.data, p->pending.len, &local) == RUV_OK) {
			ruv_buf_clear(&p->pending);
			if (p->on_part) {
				ruv_tool_scan_begin(&p->scan, p->syntax, before, p->on_part, p->user);
				rc = ruv_tool_scan_end(&p->scan, p->calls + before, p->n_calls - before);
				p->in_call = p->bare = false;
				return rc ? ruv_fail(err, rc, "tool calls", "%s", ruv_status_text(rc)) : RUV_OK;
			}
		}
		p->in_call = p->bare = false; /* what is no call was text */
		p->begun = true;
		rc = let_through(p, p->pending.len, text);
	} else if (p->in_call) {
		p->in_call = false;
		rc = read_block(p, ruv_buf_cstr(&p->pending), p->pending.len, err);
		if (rc) {
			fail_block(p, ruv_buf_cstr(&p->pending), p->pending.len);
			ruv_buf_clear(&p->pending);
			return ruv_error_prefix(err, rc, "generation ended inside a tool call: ");
		}
		ruv_buf_clear(&p->pending);
	} else {
		rc = let_through(p, p->pending.len, text);
	}
	return rc ? ruv_fail(err, rc, "tool calls", "%s", ruv_status_text(rc)) : RUV_OK;
}

size_t ruv_tool_parser_n_calls(const ruv_tool_parser *p)
{
	return p->n_calls;
}

const ruv_tool_call *ruv_tool_parser_call(const ruv_tool_parser *p, size_t i)
{
	return i < p->n_calls ? &p->calls[i] : NULL;
}

bool ruv_tool_parser_in_call(const ruv_tool_parser *p)
{
	return p->in_call;
}

const char *ruv_tool_parser_block(const ruv_tool_parser *p)
{
	return p->in_call ? ruv_buf_cstr(&p->pending) : ruv_buf_cstr(&p->block);
}

/* ---- writing ---- */

/* As Python writes the value, with double quotes. */
static int put_python(ruv_buf *out, const json_t *v, int depth)
{
	const char *key;
	json_t *item;
	char *text;
	size_t i;

	if (depth > MAX_DEPTH)
		return RUV_ELIMIT;
	switch (json_typeof(v)) {
	case JSON_TRUE:
		return ruv_buf_puts(out, "True");
	case JSON_FALSE:
		return ruv_buf_puts(out, "False");
	case JSON_NULL:
		return ruv_buf_puts(out, "None");
	case JSON_ARRAY:
		ruv_buf_putc(out, '[');
		json_array_foreach((json_t *)v, i, item)
		{
			int rc;
			if (i)
				ruv_buf_puts(out, ", ");
			rc = put_python(out, item, depth + 1);
			if (rc)
				return rc;
		}
		return ruv_buf_putc(out, ']');
	case JSON_OBJECT:
		ruv_buf_putc(out, '{');
		i = 0;
		json_object_foreach((json_t *)v, key, item)
		{
			json_t *name = json_string(key);
			int rc = name ? RUV_OK : RUV_ENOMEM;
			if (i++)
				ruv_buf_puts(out, ", ");
			if (rc == RUV_OK)
				rc = put_python(out, name, depth + 1);
			json_decref(name);
			ruv_buf_puts(out, ": ");
			if (rc == RUV_OK)
				rc = put_python(out, item, depth + 1);
			if (rc)
				return rc;
		}
		return ruv_buf_putc(out, '}');
	default:
		text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
		if (!text)
			return RUV_ENOMEM;
		ruv_buf_puts(out, text);
		free(text);
		return out->failed;
	}
}

int ruv_tool_calls_format(ruv_tool_syntax syntax, const ruv_tool_call *calls, size_t n_calls, ruv_buf *out, ruv_error *err)
{
	const char *key;
	json_t *value, *name;
	char *text;
	size_t i, k;
	int rc = RUV_OK;

	if (syntax == RUV_TOOL_SYNTAX_NONE)
		return ruv_fail(err, RUV_EINVAL, "tool calls", "this model has no notation for tool calls");
	if (syntax == RUV_TOOL_SYNTAX_LFM2)
		ruv_buf_puts(out, "<|tool_call_start|>[");
	for (i = 0; rc == RUV_OK && i < n_calls; i++) {
		if (syntax == RUV_TOOL_SYNTAX_LFM2) {
			ruv_buf_printf(out, "%s%s(", i ? ", " : "", calls[i].name);
			k = 0;
			json_object_foreach(calls[i].arguments, key, value)
			{
				ruv_buf_printf(out, "%s%s=", k++ ? ", " : "", key);
				rc = rc ? rc : put_python(out, value, 0);
			}
			ruv_buf_putc(out, ')');
			continue;
		}
		name = json_string(calls[i].name);
		text = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
		ruv_buf_printf(out, "%s<tool_call>\n{\"name\": %s, \"arguments\": ", i ? "\n" : "", text ? text : "");
		json_decref(name);
		rc = text ? RUV_OK : RUV_ENOMEM;
		free(text);
		text = json_dumps(calls[i].arguments, 0);
		ruv_buf_printf(out, "%s}\n</tool_call>", text ? text : "");
		rc = text ? rc : RUV_ENOMEM;
		free(text);
	}
	if (syntax == RUV_TOOL_SYNTAX_LFM2)
		ruv_buf_puts(out, "]<|tool_call_end|>");
	rc = rc ? rc : out->failed;
	return rc ? ruv_fail(err, rc, "tool calls", "writing %zu calls: %s", n_calls, ruv_status_text(rc)) : RUV_OK;
}

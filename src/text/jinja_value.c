/* jinja_value.c - values of jinja.h: strings that know who wrote them, lists, dicts; printing, comparing, reading from JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/jinja.h"
#include "text/unicode.h"

int ruv_jinja_fail(jinja_interp *in, int code, const char *fmt, ...)
{
	char message[360];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	if (!in->at)
		return ruv_fail(in->err, code, "chat template", "%s", message);
	return ruv_fail(in->err, code, "chat template", "line %d, column %d: %s", in->at->line, in->at->column, message);
}

void *ruv_jinja_alloc(jinja_interp *in, size_t n_bytes)
{
	void *memory;

	if (n_bytes > JINJA_MAX_MEMORY || in->arena.n_bytes + n_bytes > JINJA_MAX_MEMORY) {
		in->alloc_status =
		    ruv_jinja_fail(in, RUV_ELIMIT, "the template uses more than %d MiB of memory", JINJA_MAX_MEMORY >> 20);
		return NULL;
	}
	memory = ruv_arena_alloc(&in->arena, n_bytes ? n_bytes : 1);
	if (!memory)
		in->alloc_status = ruv_fail_memory(in->err, "chat template", n_bytes);
	return memory;
}

int ruv_jinja_charge(jinja_interp *in, size_t n_steps)
{
	if (n_steps > JINJA_MAX_STEPS || in->n_steps + n_steps > JINJA_MAX_STEPS)
		return ruv_jinja_fail(in, RUV_ELIMIT, "the template takes more than %d steps", JINJA_MAX_STEPS);
	in->n_steps += n_steps;
	return RUV_OK;
}

/* ---- building ---- */

void ruv_jinja_builder_init(jinja_builder *b, size_t max_bytes)
{
	memset(b, 0, sizeof *b);
	ruv_buf_init(&b->text, max_bytes);
}

void ruv_jinja_builder_release(jinja_builder *b)
{
	ruv_buf_release(&b->text);
	free(b->spans);
	b->spans = NULL;
	b->n_spans = b->cap_spans = 0;
}

static int append(jinja_interp *in, jinja_builder *b, const char *data, size_t len)
{
	int rc = ruv_buf_append(&b->text, data, len);

	if (rc == RUV_ELIMIT)
		return ruv_jinja_fail(in, rc, "the text grows beyond %zu bytes", b->text.max);
	return rc ? ruv_fail_memory(in->err, "chat template", len) : ruv_jinja_charge(in, len / 64);
}

static int mark(jinja_interp *in, jinja_builder *b, size_t begin, size_t end)
{
	if (begin == end)
		return RUV_OK;
	if (b->n_spans > 0 && b->spans[b->n_spans - 1].end == begin) {
		b->spans[b->n_spans - 1].end = end;
		return RUV_OK;
	}
	if (b->n_spans == b->cap_spans) {
		size_t cap = b->cap_spans ? 2 * b->cap_spans : 32;
		ruv_span *spans = realloc(b->spans, cap * sizeof *spans);
		if (!spans)
			return ruv_fail_memory(in->err, "chat template", cap * sizeof *spans);
		b->spans = spans;
		b->cap_spans = cap;
	}
	b->spans[b->n_spans++] = (ruv_span){begin, end};
	return RUV_OK;
}

int ruv_jinja_put(jinja_interp *in, jinja_builder *b, const char *data, size_t len, bool trusted)
{
	size_t begin = b->text.len;
	int rc = append(in, b, data, len);

	return rc == RUV_OK && trusted ? mark(in, b, begin, begin + len) : rc;
}

int ruv_jinja_put_slice(jinja_interp *in, jinja_builder *b, jinja_string *s, size_t from, size_t to)
{
	size_t begin = b->text.len, i;
	int rc = ruv_jinja_flatten(in, s);

	if (rc == RUV_OK)
		rc = append(in, b, s->data + from, to - from);
	for (i = 0; rc == RUV_OK && i < s->n_trusted; i++) {
		size_t x = s->trusted[i].begin > from ? s->trusted[i].begin : from,
		       y = s->trusted[i].end < to ? s->trusted[i].end : to;
		if (x < y)
			rc = mark(in, b, begin + x - from, begin + y - from);
	}
	return rc;
}

int ruv_jinja_builder_value(jinja_interp *in, jinja_builder *b, jinja_value *out)
{
	jinja_string *s = ruv_jinja_alloc(in, sizeof *s);
	char *data = s ? ruv_jinja_alloc(in, b->text.len + 1) : NULL;
	ruv_span *spans = data ? ruv_jinja_alloc(in, (b->n_spans + 1) * sizeof *spans) : NULL;

	if (!spans)
		return in->alloc_status;
	memcpy(data, ruv_buf_cstr(&b->text), b->text.len + 1);
	if (b->n_spans)
		memcpy(spans, b->spans, b->n_spans * sizeof *spans);
	*s = (jinja_string){.data = data, .len = b->text.len, .trusted = spans, .n_trusted = b->n_spans};
	*out = (jinja_value){.type = JINJA_STRING, .s = s};
	return RUV_OK;
}

/* ---- strings ---- */

int ruv_jinja_new_string(jinja_interp *in, const char *data, size_t len, bool trusted, jinja_value *out)
{
	jinja_string *s = ruv_jinja_alloc(in, sizeof *s);
	ruv_span *span = s ? ruv_jinja_alloc(in, sizeof *span) : NULL;
	char *copy = span ? ruv_jinja_alloc(in, len + 1) : NULL;

	if (!copy)
		return in->alloc_status;
	if (len)
		memcpy(copy, data, len);
	copy[len] = '\0';
	*span = (ruv_span){0, len};
	*s = (jinja_string){.data = copy, .len = len, .trusted = span, .n_trusted = trusted && len};
	*out = (jinja_value){.type = JINJA_STRING, .s = s};
	return RUV_OK;
}

int ruv_jinja_slice(jinja_interp *in, jinja_string *s, size_t from, size_t to, jinja_value *out)
{
	jinja_string *part;
	ruv_span *spans;
	char *data;
	size_t i, n = 0;
	int rc = ruv_jinja_flatten(in, s);

	if (rc)
		return rc;
	part = ruv_jinja_alloc(in, sizeof *part);
	spans = part ? ruv_jinja_alloc(in, (s->n_trusted + 1) * sizeof *spans) : NULL;
	data = spans ? ruv_jinja_alloc(in, to - from + 1) : NULL; /* a copy, so that every flat string ends with a NUL */
	if (!data)
		return in->alloc_status;
	memcpy(data, s->data + from, to - from);
	data[to - from] = '\0';
	for (i = 0; i < s->n_trusted; i++) {
		size_t x = s->trusted[i].begin > from ? s->trusted[i].begin : from,
		       y = s->trusted[i].end < to ? s->trusted[i].end : to;
		if (x < y)
			spans[n++] = (ruv_span){x - from, y - from};
	}
	*part = (jinja_string){.data = data, .len = to - from, .trusted = spans, .n_trusted = n};
	*out = (jinja_value){.type = JINJA_STRING, .s = part};
	return RUV_OK;
}

int ruv_jinja_concat(jinja_interp *in, jinja_string *left, jinja_string *right, jinja_value *out)
{
	jinja_string *s;

	if (right->len == 0 || left->len == 0) {
		*out = (jinja_value){.type = JINJA_STRING, .s = right->len == 0 ? left : right};
		return RUV_OK;
	}
	if (left->len + right->len > JINJA_MAX_MEMORY)
		return ruv_jinja_fail(in, RUV_ELIMIT, "a string grows beyond %d MiB", JINJA_MAX_MEMORY >> 20);
	s = ruv_jinja_alloc(in, sizeof *s);
	if (!s)
		return in->alloc_status;
	*s = (jinja_string){.len = left->len + right->len, .left = left, .right = right};
	*out = (jinja_value){.type = JINJA_STRING, .s = s};
	return RUV_OK;
}

int ruv_jinja_flatten(jinja_interp *in, jinja_string *s)
{
	size_t cap = 64, n = 0, at = 0, n_spans = 0, cap_spans = 64, i;
	jinja_string **stack, *node = s;
	ruv_span *spans;
	char *data;

	if (s->data)
		return RUV_OK;
	data = ruv_jinja_alloc(in, s->len + 1);
	stack = malloc(cap * sizeof *stack);
	spans = malloc(cap_spans * sizeof *spans);
	if (!data || !stack || !spans)
		goto failed;
	/* Left to right: go down the left side, come back for the right ones. */
	for (;;) {
		if (!node->data) {
			if (n == cap) {
				jinja_string **more = realloc(stack, 2 * cap * sizeof *stack);
				if (!more)
					goto failed;
				stack = more;
				cap *= 2;
			}
			stack[n++] = node->right;
			node = node->left;
			continue;
		}
		memcpy(data + at, node->data, node->len);
		for (i = 0; i < node->n_trusted; i++) {
			ruv_span span = {at + node->trusted[i].begin, at + node->trusted[i].end};
			if (n_spans > 0 && spans[n_spans - 1].end == span.begin) {
				spans[n_spans - 1].end = span.end;
				continue;
			}
			if (n_spans == cap_spans) {
				ruv_span *more = realloc(spans, 2 * cap_spans * sizeof *spans);
				if (!more)
					goto failed;
				spans = more;
				cap_spans *= 2;
			}
			spans[n_spans++] = span;
		}
		at += node->len;
		if (n == 0)
			break;
		node = stack[--n];
	}
	data[at] = '\0';
	s->trusted = ruv_jinja_alloc(in, (n_spans + 1) * sizeof *spans);
	if (!s->trusted)
		goto failed;
	memcpy((ruv_span *)s->trusted, spans, n_spans * sizeof *spans);
	s->n_trusted = n_spans;
	s->data = data;
	s->left = s->right = NULL;
	free(stack);
	free(spans);
	return ruv_jinja_charge(in, s->len / 64);
failed:
	free(stack);
	free(spans);
	return in->alloc_status ? in->alloc_status : ruv_fail_memory(in->err, "chat template", s->len);
}

/* ---- lists and dicts ---- */

int ruv_jinja_new_list(jinja_interp *in, size_t cap, jinja_value *out)
{
	jinja_list *l = ruv_jinja_alloc(in, sizeof *l);

	if (!l)
		return in->alloc_status;
	*l = (jinja_list){.cap = cap};
	l->items = ruv_jinja_alloc(in, (cap + 1) * sizeof *l->items);
	if (!l->items)
		return in->alloc_status;
	*out = (jinja_value){.type = JINJA_LIST, .l = l};
	return RUV_OK;
}

int ruv_jinja_list_push(jinja_interp *in, jinja_list *l, jinja_value v)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 8;
		jinja_value *items = ruv_jinja_alloc(in, cap * sizeof *items);
		if (!items)
			return in->alloc_status;
		if (l->n)
			memcpy(items, l->items, l->n * sizeof *items);
		l->items = items;
		l->cap = cap;
	}
	l->items[l->n++] = v;
	return RUV_OK;
}

int ruv_jinja_new_dict(jinja_interp *in, jinja_value *out)
{
	jinja_dict *d = ruv_jinja_alloc(in, sizeof *d);

	if (!d)
		return in->alloc_status;
	*d = (jinja_dict){0};
	*out = (jinja_value){.type = JINJA_DICT, .d = d};
	return RUV_OK;
}

/* Where the key stands; d->n when it is not there. Keys are strings (flat) or other scalars. */
static int dict_find(jinja_interp *in, const jinja_dict *d, jinja_value key, size_t *at)
{
	bool equal;
	int rc = RUV_OK;

	for (*at = 0; *at < d->n; ++*at) {
		rc = ruv_jinja_equal(in, d->keys[*at], key, 0, &equal);
		if (rc || equal)
			return rc;
	}
	return ruv_jinja_charge(in, d->n / 8);
}

int ruv_jinja_dict_set(jinja_interp *in, jinja_dict *d, jinja_value key, jinja_value v)
{
	size_t at;
	int rc;

	if (key.type == JINJA_LIST || key.type == JINJA_DICT || key.type == JINJA_UNDEFINED)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot be a key", ruv_jinja_type_name(key));
	if (key.type == JINJA_STRING && (rc = ruv_jinja_flatten(in, key.s)))
		return rc;
	rc = dict_find(in, d, key, &at);
	if (rc)
		return rc;
	if (at < d->n) {
		d->values[at] = v;
		return RUV_OK;
	}
	if (d->n == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 8;
		jinja_value *keys = ruv_jinja_alloc(in, 2 * cap * sizeof *keys);
		if (!keys)
			return in->alloc_status;
		if (d->n) {
			memcpy(keys, d->keys, d->n * sizeof *keys);
			memcpy(keys + cap, d->values, d->n * sizeof *keys);
		}
		d->keys = keys;
		d->values = keys + cap;
		d->cap = cap;
	}
	d->keys[d->n] = key;
	d->values[d->n++] = v;
	return RUV_OK;
}

const jinja_value *ruv_jinja_dict_get(const jinja_dict *d, const char *key, size_t len)
{
	size_t i;

	for (i = 0; i < d->n; i++)
		if (d->keys[i].type == JINJA_STRING && d->keys[i].s->len == len && memcmp(d->keys[i].s->data, key, len) == 0)
			return &d->values[i];
	return NULL;
}

int ruv_jinja_from_json(jinja_interp *in, const json_t *json, int depth, jinja_value *out)
{
	const char *key;
	json_t *value;
	size_t i;
	int rc;

	if (depth > 200)
		return ruv_fail(in->err, RUV_ELIMIT, "chat template", "the input's JSON is nested more than 200 levels deep");
	switch (json_typeof(json)) {
	case JSON_OBJECT: {
		jinja_value k, v;
		jinja_dict *d;
		size_t n = json_object_size(json), at = 0;
		rc = ruv_jinja_new_dict(in, out);
		if (rc)
			return rc;
		/* Keys differ already: filled directly, without a search for each. */
		d = out->d;
		d->cap = n;
		d->keys = ruv_jinja_alloc(in, (2 * n + 1) * sizeof *d->keys);
		if (!d->keys)
			return in->alloc_status;
		d->values = d->keys + n;
		json_object_foreach((json_t *)json, key, value)
		{
			if ((rc = ruv_jinja_new_string(in, key, strlen(key), false, &k)) ||
			    (rc = ruv_jinja_from_json(in, value, depth + 1, &v)))
				return rc;
			d->keys[at] = k;
			d->values[at++] = v;
			d->n = at;
		}
		return RUV_OK;
	}
	case JSON_ARRAY:
		rc = ruv_jinja_new_list(in, json_array_size(json), out);
		for (i = 0; rc == RUV_OK && i < json_array_size(json); i++) {
			jinja_value v;
			rc = ruv_jinja_from_json(in, json_array_get(json, i), depth + 1, &v);
			if (rc == RUV_OK)
				rc = ruv_jinja_list_push(in, out->l, v);
		}
		return rc;
	case JSON_STRING:
		return ruv_jinja_new_string(in, json_string_value(json), json_string_length(json), false, out);
	case JSON_INTEGER:
		*out = (jinja_value){.type = JINJA_INT, .i = json_integer_value(json)};
		return RUV_OK;
	case JSON_REAL:
		*out = (jinja_value){.type = JINJA_FLOAT, .f = json_real_value(json)};
		return RUV_OK;
	case JSON_TRUE:
	case JSON_FALSE:
		*out = (jinja_value){.type = JINJA_BOOL, .b = json_is_true(json)};
		return RUV_OK;
	default:
		*out = (jinja_value){.type = JINJA_NONE};
		return RUV_OK;
	}
}

/* ---- printing ---- */

const char *ruv_jinja_type_name(jinja_value v)
{
	static const char *const names[] = {
	    "an undefined value", "none",  "a boolean", "an integer", "a float", "a string", "a list", "a dict", "a macro",
	    "a function",         "a loop"};
	return names[v.type];
}

/* As Python prints it: the fewest digits that read back, never without a point or an exponent. */
static void format_float(double f, char text[40])
{
	char digits[40], *e;
	int precision, exponent, magnitude;

	if (isnan(f) || isinf(f)) {
		strcpy(text, isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity");
		return;
	}
	for (precision = 0; precision < 17; precision++) {
		snprintf(digits, sizeof digits, "%.*e", precision, f);
		if (strtod(digits, NULL) == f)
			break;
	}
	e = strchr(digits, 'e');
	exponent = atoi(e + 1);
	if (exponent < -4 || exponent >= 16) {
		*e = '\0';
		magnitude = abs(exponent) % 1000;
		snprintf(text, 40, "%.30se%c%02d", digits, exponent < 0 ? '-' : '+', magnitude);
	} else {
		int decimals = precision - exponent;
		snprintf(text, 40, "%.*f", decimals > 0 ? decimals : 1, f);
	}
}

int ruv_jinja_put_repr(jinja_interp *in, jinja_builder *b, jinja_value v, int depth)
{
	size_t i;
	int rc = ruv_jinja_charge(in, 1);

	if (depth > 100)
		return ruv_jinja_fail(in, RUV_ELIMIT, "a value is nested more than 100 levels deep");
	if (rc)
		return rc;
	switch (v.type) {
	case JINJA_STRING: {
		jinja_string *s = v.s;
		const char *quote;
		rc = ruv_jinja_flatten(in, s);
		if (rc)
			return rc;
		quote = memchr(s->data, '\'', s->len) && !memchr(s->data, '"', s->len) ? "\"" : "'";
		rc = ruv_jinja_put(in, b, quote, 1, false);
		for (i = 0; rc == RUV_OK && i < s->len; i++) {
			unsigned char c = (unsigned char)s->data[i];
			char escape[8] = {0};
			if (c == '\\' || c == (unsigned char)*quote)
				snprintf(escape, sizeof escape, "\\%c", c);
			else if (c == '\n' || c == '\r' || c == '\t')
				snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
			else if (c < 0x20 || c == 0x7F)
				snprintf(escape, sizeof escape, "\\x%02x", c);
			rc =
			    *escape ? ruv_jinja_put(in, b, escape, strlen(escape), false) : ruv_jinja_put_slice(in, b, s, i, i + 1);
		}
		return rc ? rc : ruv_jinja_put(in, b, quote, 1, false);
	}
	case JINJA_LIST:
		rc = ruv_jinja_put(in, b, "[", 1, false);
		for (i = 0; rc == RUV_OK && i < v.l->n; i++) {
			if (i)
				rc = ruv_jinja_put(in, b, ", ", 2, false);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_repr(in, b, v.l->items[i], depth + 1);
		}
		return rc ? rc : ruv_jinja_put(in, b, "]", 1, false);
	case JINJA_DICT:
		rc = ruv_jinja_put(in, b, "{", 1, false);
		for (i = 0; rc == RUV_OK && i < v.d->n; i++) {
			if (i)
				rc = ruv_jinja_put(in, b, ", ", 2, false);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_repr(in, b, v.d->keys[i], depth + 1);
			if (rc == RUV_OK)
				rc = ruv_jinja_put(in, b, ": ", 2, false);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_repr(in, b, v.d->values[i], depth + 1);
		}
		return rc ? rc : ruv_jinja_put(in, b, "}", 1, false);
	case JINJA_UNDEFINED:
		return ruv_jinja_put(in, b, "Undefined", 9, false);
	default:
		return ruv_jinja_put_value(in, b, v);
	}
}

int ruv_jinja_put_value(jinja_interp *in, jinja_builder *b, jinja_value v)
{
	char text[40];

	switch (v.type) {
	case JINJA_UNDEFINED:
		return RUV_OK;
	case JINJA_NONE:
		return ruv_jinja_put(in, b, "None", 4, false);
	case JINJA_BOOL:
		return ruv_jinja_put(in, b, v.b ? "True" : "False", v.b ? 4 : 5, false);
	case JINJA_INT:
		snprintf(text, sizeof text, "%lld", (long long)v.i);
		return ruv_jinja_put(in, b, text, strlen(text), false);
	case JINJA_FLOAT:
		format_float(v.f, text);
		if (isnan(v.f) || isinf(v.f))
			strcpy(text, isnan(v.f) ? "nan" : v.f > 0 ? "inf" : "-inf");
		return ruv_jinja_put(in, b, text, strlen(text), false);
	case JINJA_STRING:
		return ruv_jinja_put_slice(in, b, v.s, 0, v.s->len);
	case JINJA_LIST:
	case JINJA_DICT:
		return ruv_jinja_put_repr(in, b, v, 0);
	default:
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot be printed", ruv_jinja_type_name(v));
	}
}

static int put_line(jinja_interp *in, jinja_builder *b, int indent, int depth)
{
	int rc = ruv_jinja_put(in, b, "\n", 1, false), i;

	for (i = 0; rc == RUV_OK && i < indent * depth; i++)
		rc = ruv_jinja_put(in, b, " ", 1, false);
	return rc;
}

static int put_json_string(jinja_interp *in, jinja_builder *b, jinja_string *s)
{
	size_t i, plain = 0;
	int rc = ruv_jinja_flatten(in, s);

	if (rc == RUV_OK)
		rc = ruv_jinja_put(in, b, "\"", 1, false);
	for (i = 0; rc == RUV_OK && i < s->len; i++) {
		unsigned char c = (unsigned char)s->data[i];
		char escape[8];
		const char *at;

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		at = c == '"'    ? "\\\""
		     : c == '\\' ? "\\\\"
		     : c == '\n' ? "\\n"
		     : c == '\r' ? "\\r"
		     : c == '\t' ? "\\t"
		     : c == '\b' ? "\\b"
		     : c == '\f' ? "\\f"
		                 : NULL;
		if (!at) {
			snprintf(escape, sizeof escape, "\\u%04x", c);
			at = escape;
		}
		rc = ruv_jinja_put_slice(in, b, s, plain, i);
		if (rc == RUV_OK)
			rc = ruv_jinja_put(in, b, at, strlen(at), false);
		plain = i + 1;
	}
	if (rc == RUV_OK)
		rc = ruv_jinja_put_slice(in, b, s, plain, s->len);
	return rc ? rc : ruv_jinja_put(in, b, "\"", 1, false);
}

static int by_key(const void *a, const void *b)
{
	const jinja_string *x = ((const jinja_value *)a)->s, *y = ((const jinja_value *)b)->s;
	int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);

	return order ? order : x->len < y->len ? -1 : x->len > y->len;
}

int ruv_jinja_put_json(jinja_interp *in, jinja_builder *b, jinja_value v, int indent, bool sort_keys, int depth)
{
	size_t i;
	char text[40];
	int rc = ruv_jinja_charge(in, 1);

	if (rc)
		return rc;
	if (depth > 200)
		return ruv_jinja_fail(in, RUV_ELIMIT, "a value is nested more than 200 levels deep");
	switch (v.type) {
	case JINJA_NONE:
		return ruv_jinja_put(in, b, "null", 4, false);
	case JINJA_BOOL:
		return ruv_jinja_put(in, b, v.b ? "true" : "false", v.b ? 4 : 5, false);
	case JINJA_FLOAT:
		format_float(v.f, text);
		return ruv_jinja_put(in, b, text, strlen(text), false);
	case JINJA_INT:
		return ruv_jinja_put_value(in, b, v);
	case JINJA_STRING:
		return put_json_string(in, b, v.s);
	case JINJA_LIST:
		rc = ruv_jinja_put(in, b, "[", 1, false);
		for (i = 0; rc == RUV_OK && i < v.l->n; i++) {
			if (i)
				rc = ruv_jinja_put(in, b, ", ", indent < 0 ? 2 : 1, false);
			if (rc == RUV_OK && indent >= 0)
				rc = put_line(in, b, indent, depth + 1);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_json(in, b, v.l->items[i], indent, sort_keys, depth + 1);
		}
		if (rc == RUV_OK && indent >= 0 && v.l->n)
			rc = put_line(in, b, indent, depth);
		return rc ? rc : ruv_jinja_put(in, b, "]", 1, false);
	case JINJA_DICT: {
		jinja_value *pairs = ruv_jinja_alloc(in, (2 * v.d->n + 1) * sizeof *pairs);
		if (!pairs)
			return in->alloc_status;
		for (i = 0; i < v.d->n; i++) {
			pairs[2 * i] = v.d->keys[i];
			pairs[2 * i + 1] = v.d->values[i];
			if (v.d->keys[i].type == JINJA_STRING)
				continue;
			/* JSON's keys are strings: what Python makes of other scalars. */
			{
				jinja_builder key;
				ruv_jinja_builder_init(&key, 4096);
				rc = ruv_jinja_put_json(in, &key, v.d->keys[i], -1, false, depth + 1);
				if (rc == RUV_OK)
					rc = ruv_jinja_builder_value(in, &key, &pairs[2 * i]);
				ruv_jinja_builder_release(&key);
				if (rc)
					return rc;
			}
		}
		if (sort_keys)
			qsort(pairs, v.d->n, 2 * sizeof *pairs, by_key);
		rc = ruv_jinja_put(in, b, "{", 1, false);
		for (i = 0; rc == RUV_OK && i < v.d->n; i++) {
			if (i)
				rc = ruv_jinja_put(in, b, ", ", indent < 0 ? 2 : 1, false);
			if (rc == RUV_OK && indent >= 0)
				rc = put_line(in, b, indent, depth + 1);
			if (rc == RUV_OK)
				rc = put_json_string(in, b, pairs[2 * i].s);
			if (rc == RUV_OK)
				rc = ruv_jinja_put(in, b, ": ", 2, false);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_json(in, b, pairs[2 * i + 1], indent, sort_keys, depth + 1);
		}
		if (rc == RUV_OK && indent >= 0 && v.d->n)
			rc = put_line(in, b, indent, depth);
		return rc ? rc : ruv_jinja_put(in, b, "}", 1, false);
	}
	case JINJA_UNDEFINED:
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined and cannot become JSON", v.s ? v.s->data : "?");
	default:
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot become JSON", ruv_jinja_type_name(v));
	}
}

/* ---- comparing ---- */

bool ruv_jinja_truth(jinja_value v)
{
	switch (v.type) {
	case JINJA_BOOL:
		return v.b;
	case JINJA_INT:
		return v.i != 0;
	case JINJA_FLOAT:
		return v.f != 0;
	case JINJA_STRING:
		return v.s->len > 0;
	case JINJA_LIST:
		return v.l->n > 0;
	case JINJA_DICT:
		return v.d->n > 0 || v.d->is_namespace;
	case JINJA_UNDEFINED:
	case JINJA_NONE:
		return false;
	default:
		return true;
	}
}

static bool is_number(jinja_value v)
{
	return v.type == JINJA_INT || v.type == JINJA_FLOAT || v.type == JINJA_BOOL;
}

static double number(jinja_value v)
{
	return v.type == JINJA_FLOAT ? v.f : v.type == JINJA_BOOL ? (double)v.b : (double)v.i;
}

int ruv_jinja_equal(jinja_interp *in, jinja_value a, jinja_value b, int depth, bool *equal)
{
	const jinja_value *other;
	size_t i;
	int rc = ruv_jinja_charge(in, 1);

	*equal = false;
	if (rc)
		return rc;
	if (depth > 100)
		return ruv_jinja_fail(in, RUV_ELIMIT, "a value is nested more than 100 levels deep");
	if (is_number(a) && is_number(b)) {
		*equal = a.type == JINJA_FLOAT || b.type == JINJA_FLOAT
		             ? number(a) == number(b)
		             : (a.type == JINJA_BOOL ? a.b : a.i) == (b.type == JINJA_BOOL ? b.b : b.i);
		return RUV_OK;
	}
	if (a.type != b.type)
		return RUV_OK;
	switch (a.type) {
	case JINJA_STRING:
		if (a.s->len != b.s->len)
			return RUV_OK;
		if ((rc = ruv_jinja_flatten(in, a.s)) || (rc = ruv_jinja_flatten(in, b.s)))
			return rc;
		*equal = memcmp(a.s->data, b.s->data, a.s->len) == 0;
		return ruv_jinja_charge(in, a.s->len / 64);
	case JINJA_LIST:
		if (a.l->n != b.l->n)
			return RUV_OK;
		for (i = 0; i < a.l->n; i++) {
			rc = ruv_jinja_equal(in, a.l->items[i], b.l->items[i], depth + 1, equal);
			if (rc || !*equal)
				return rc;
		}
		*equal = true;
		return RUV_OK;
	case JINJA_DICT:
		if (a.d == b.d || a.d->n != b.d->n) {
			*equal = a.d == b.d;
			return RUV_OK;
		}
		for (i = 0; i < a.d->n; i++) {
			if (a.d->keys[i].type != JINJA_STRING)
				return ruv_jinja_fail(in, RUV_EUNSUPPORTED,
				                      "dicts with keys that are no strings cannot be compared");
			rc = ruv_jinja_charge(in, b.d->n / 8);
			if (rc)
				return rc;
			other = ruv_jinja_dict_get(b.d, a.d->keys[i].s->data, a.d->keys[i].s->len);
			*equal = false;
			rc = other ? ruv_jinja_equal(in, a.d->values[i], *other, depth + 1, equal) : RUV_OK;
			if (rc || !*equal)
				return rc;
		}
		*equal = true;
		return RUV_OK;
	case JINJA_UNDEFINED:
	case JINJA_NONE:
		*equal = true;
		return RUV_OK;
	case JINJA_MACRO:
		*equal = a.m == b.m;
		return RUV_OK;
	default:
		*equal = a.i == b.i;
		return RUV_OK;
	}
}

int ruv_jinja_order(jinja_interp *in, jinja_value a, jinja_value b, int *order)
{
	size_t i;
	int rc;

	if (is_number(a) && is_number(b)) {
		double x = number(a), y = number(b);
		if (a.type != JINJA_FLOAT && b.type != JINJA_FLOAT) {
			int64_t p = a.type == JINJA_BOOL ? a.b : a.i, q = b.type == JINJA_BOOL ? b.b : b.i;
			*order = p < q ? -1 : p > q;
		} else {
			*order = x < y ? -1 : x > y;
		}
		return RUV_OK;
	}
	if (a.type == JINJA_STRING && b.type == JINJA_STRING) {
		if ((rc = ruv_jinja_flatten(in, a.s)) || (rc = ruv_jinja_flatten(in, b.s)))
			return rc;
		*order = by_key(&a, &b); /* bytes of UTF-8 order like code points */
		*order = *order < 0 ? -1 : *order > 0;
		return ruv_jinja_charge(in, a.s->len / 64);
	}
	if (a.type == JINJA_LIST && b.type == JINJA_LIST) {
		for (i = 0; i < a.l->n && i < b.l->n; i++) {
			if (a.l->items[i].type == JINJA_LIST)
				return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "nested lists cannot be ordered");
			rc = ruv_jinja_order(in, a.l->items[i], b.l->items[i], order);
			if (rc || *order)
				return rc;
		}
		*order = a.l->n < b.l->n ? -1 : a.l->n > b.l->n;
		return RUV_OK;
	}
	if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED) {
		jinja_value u = a.type == JINJA_UNDEFINED ? a : b;
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined", u.s ? u.s->data : "?");
	}
	return ruv_jinja_fail(in, RUV_EFORMAT, "%s and %s have no order", ruv_jinja_type_name(a), ruv_jinja_type_name(b));
}

int ruv_jinja_contains(jinja_interp *in, jinja_value container, jinja_value item, bool *found)
{
	size_t i;
	int rc;

	*found = false;
	switch (container.type) {
	case JINJA_STRING:
		if (item.type != JINJA_STRING)
			return ruv_jinja_fail(in, RUV_EFORMAT, "'in' a string needs a string, not %s", ruv_jinja_type_name(item));
		if ((rc = ruv_jinja_flatten(in, container.s)) || (rc = ruv_jinja_flatten(in, item.s)))
			return rc;
		*found = memmem(container.s->data, container.s->len, item.s->data, item.s->len) != NULL;
		return ruv_jinja_charge(in, container.s->len / 64);
	case JINJA_LIST:
		for (i = 0; i < container.l->n && !*found; i++) {
			rc = ruv_jinja_equal(in, container.l->items[i], item, 0, found);
			if (rc)
				return rc;
		}
		return RUV_OK;
	case JINJA_DICT:
		if (item.type == JINJA_STRING && (rc = ruv_jinja_flatten(in, item.s)))
			return rc;
		rc = dict_find(in, container.d, item, &i);
		*found = i < container.d->n;
		return rc;
	case JINJA_UNDEFINED:
		return RUV_OK;
	default:
		return ruv_jinja_fail(in, RUV_EFORMAT, "nothing can be 'in' %s", ruv_jinja_type_name(container));
	}
}

int ruv_jinja_iterate(jinja_interp *in, jinja_value v, jinja_list **items)
{
	jinja_value list = {0}, part;
	size_t i;
	int rc;

	if (v.type == JINJA_LIST) {
		*items = v.l;
		return RUV_OK;
	}
	rc = ruv_jinja_new_list(in, v.type == JINJA_DICT ? v.d->n : 0, &list);
	if (rc)
		return rc;
	*items = list.l;
	switch (v.type) {
	case JINJA_UNDEFINED:
		return RUV_OK;
	case JINJA_DICT:
		for (i = 0; rc == RUV_OK && i < v.d->n; i++)
			rc = ruv_jinja_list_push(in, list.l, v.d->keys[i]);
		return rc;
	case JINJA_STRING:
		rc = ruv_jinja_flatten(in, v.s);
		for (i = 0; rc == RUV_OK && i < v.s->len;) {
			int n = ruv_utf8_decode(v.s->data + i, v.s->len - i, NULL, NULL, NULL);
			n = n ? n : 1;
			rc = ruv_jinja_charge(in, 1);
			if (rc == RUV_OK)
				rc = ruv_jinja_slice(in, v.s, i, i + (size_t)n, &part);
			if (rc == RUV_OK)
				rc = ruv_jinja_list_push(in, list.l, part);
			i += (size_t)n;
		}
		return rc;
	default:
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot be iterated over", ruv_jinja_type_name(v));
	}
}

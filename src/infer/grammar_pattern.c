/* grammar_pattern.c - a JSON schema's "pattern": a regular expression as a tree over the characters of a JSON string.
 *
 * ECMA 262's notation without what is not regular or looks around: alternatives, groups (also (?:...) and (?<name>...)), classes,
 * . \d \D \w \W \s \S, escapes \t \n \r \f \v \0 \xHH \uHHHH \u{H...} \cX and escaped signs, * + ? {m} {m,} {m,n} (a lazy "?"
 * behind them changes nothing here), ^ at the beginning and $ at the end of an alternative. As the schema says, a pattern without
 * anchors may stand anywhere in the string. Refused by name: assertions, \b, \B, back references, \p{...}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "infer/grammar_ast.h"
#include "text/unicode.h"

typedef struct parser {
	ruv_gast *ast;
	const char *text, *at, *end;
	int depth;
	ruv_error *err;
} parser;

typedef struct set {
	ruv_grange ranges[512];
	int n;
} set;

static const ruv_grange digit_set[] = {{'0', '9'}};
static const ruv_grange word_set[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const ruv_grange space_set[] = {{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                                       {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
static const ruv_grange line_set[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

static int bad(const parser *p, int code, const char *what)
{
	return ruv_fail(p->err, code, "grammar", "pattern \"%.200s\", byte %d: %s", p->text, (int)(p->at - p->text), what);
}

static char peek(const parser *p)
{
	return p->at < p->end ? *p->at : '\0';
}

static int add_ranges(const parser *p, set *s, const ruv_grange *ranges, int n)
{
	if (s->n + n > (int)(sizeof s->ranges / sizeof *s->ranges))
		return bad(p, RUV_ELIMIT, "a class of more than 512 ranges");
	memcpy(s->ranges + s->n, ranges, (size_t)n * sizeof *ranges);
	s->n += n;
	return RUV_OK;
}

/* The other code points, as ranges. */
static int add_complement(const parser *p, set *s, const ruv_grange *ranges, int n)
{
	const ruv_gnode *node = ruv_gast_chars(p->ast, ranges, n, true);

	return node->kind == RUV_G_CHARS ? add_ranges(p, s, node->items, node->n) : RUV_OK;
}

static int read_hex(parser *p, int width, uint32_t *cp)
{
	*cp = 0;
	for (int i = 0; i < width; i++, p->at++) {
		char c = peek(p);
		int digit = c >= '0' && c <= '9'   ? c - '0'
		            : c >= 'a' && c <= 'f' ? c - 'a' + 10
		            : c >= 'A' && c <= 'F' ? c - 'A' + 10
		                                   : -1;

		if (digit < 0)
			return bad(p, RUV_EFORMAT, "an escape without its hex digits");
		*cp = *cp * 16 + (uint32_t)digit;
	}
	return RUV_OK;
}

/* Behind a backslash: one character, or a class into *s. */
static int read_escape(parser *p, bool in_class, uint32_t *cp, set *s, bool *is_class)
{
	char c = peek(p);

	*is_class = true;
	switch (c) {
	case 'd':
		p->at++;
		return add_ranges(p, s, digit_set, 1);
	case 'D':
		p->at++;
		return add_complement(p, s, digit_set, 1);
	case 'w':
		p->at++;
		return add_ranges(p, s, word_set, 4);
	case 'W':
		p->at++;
		return add_complement(p, s, word_set, 4);
	case 's':
		p->at++;
		return add_ranges(p, s, space_set, 10);
	case 'S':
		p->at++;
		return add_complement(p, s, space_set, 10);
	default:
		break;
	}
	*is_class = false;
	if (p->at >= p->end)
		return bad(p, RUV_EFORMAT, "a backslash at the end");
	p->at++;
	switch (c) {
	case 't':
		*cp = '\t';
		return RUV_OK;
	case 'n':
		*cp = '\n';
		return RUV_OK;
	case 'r':
		*cp = '\r';
		return RUV_OK;
	case 'f':
		*cp = '\f';
		return RUV_OK;
	case 'v':
		*cp = '\v';
		return RUV_OK;
	case 'x':
		return read_hex(p, 2, cp);
	case 'u':
		if (peek(p) == '{') {
			const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
			int width = close ? (int)(close - p->at) - 1 : 0, rc;

			if (width < 1 || width > 6)
				return bad(p, RUV_EFORMAT, "\\u{...} takes one to six hex digits");
			p->at++;
			rc = read_hex(p, width, cp);
			p->at++;
			return rc || *cp <= 0x10FFFF ? rc : bad(p, RUV_EFORMAT, "no such character");
		}
		return read_hex(p, 4, cp);
	case 'c':
		if (((peek(p) | 32) < 'a') || ((peek(p) | 32) > 'z'))
			return bad(p, RUV_EFORMAT, "\\c takes a letter");
		*cp = (uint32_t)(*p->at++ & 31);
		return RUV_OK;
	case 'b':
		if (in_class) {
			*cp = '\b';
			return RUV_OK;
		}
		return bad(p, RUV_EUNSUPPORTED, "\\b is not supported");
	case 'B':
		return bad(p, RUV_EUNSUPPORTED, "\\B is not supported");
	case 'p':
	case 'P':
		return bad(p, RUV_EUNSUPPORTED, "\\p{...} is not supported");
	case 'k':
		return bad(p, RUV_EUNSUPPORTED, "back references are not supported");
	case '0':
		*cp = 0;
		return RUV_OK;
	default:
		if (c >= '1' && c <= '9')
			return bad(p, RUV_EUNSUPPORTED, "back references are not supported");
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80)
			return bad(p, RUV_EFORMAT, "an unknown escape");
		*cp = (unsigned char)c;
		return RUV_OK;
	}
}

static int read_char(parser *p, uint32_t *cp)
{
	int n = ruv_utf8_decode(p->at, (size_t)(p->end - p->at), cp, NULL, NULL);

	if (n == 0)
		return bad(p, RUV_EFORMAT, "this is not UTF-8");
	p->at += n;
	return RUV_OK;
}

static int read_class(parser *p, const ruv_gnode **out)
{
	set *s = calloc(1, sizeof *s);
	bool complement, is_class;
	int rc = s ? RUV_OK : ruv_fail_memory(p->err, "grammar", sizeof *s);

	p->at++;
	complement = peek(p) == '^';
	p->at += complement;
	while (!rc && peek(p) != ']') {
		ruv_grange r = {0};

		if (p->at >= p->end) {
			rc = bad(p, RUV_EFORMAT, "a class without its end ']'");
			break;
		}
		is_class = false;
		if (*p->at == '\\') {
			p->at++;
			rc = read_escape(p, true, &r.low, s, &is_class);
		} else {
			rc = read_char(p, &r.low);
		}
		if (rc || is_class)
			continue;
		r.high = r.low;
		if (peek(p) == '-' && p->at + 1 < p->end && p->at[1] != ']') {
			p->at++;
			if (*p->at == '\\') {
				p->at++;
				rc = read_escape(p, true, &r.high, s, &is_class);
				if (!rc && is_class)
					rc = bad(p, RUV_EFORMAT, "a range that ends with a class");
			} else {
				rc = read_char(p, &r.high);
			}
			if (!rc && r.high < r.low)
				rc = bad(p, RUV_EFORMAT, "a range whose end is before its beginning");
		}
		if (!rc)
			rc = add_ranges(p, s, &r, 1);
	}
	if (!rc) {
		p->at++;
		*out = ruv_gjson_chars(p->ast, s->ranges, s->n, complement);
	}
	free(s);
	return rc;
}

static int read_alternatives(parser *p, bool top, const ruv_gnode **out);

static int read_group(parser *p, const ruv_gnode **out)
{
	int rc;

	p->at++;
	if (peek(p) == '?') {
		const char *close;

		p->at++;
		if (peek(p) == ':') {
			p->at++;
		} else if (peek(p) == '<' && p->at + 1 < p->end && p->at[1] != '=' && p->at[1] != '!') {
			close = memchr(p->at, '>', (size_t)(p->end - p->at));
			if (!close)
				return bad(p, RUV_EFORMAT, "a group's name without its end '>'");
			p->at = close + 1;
		} else {
			return bad(p, RUV_EUNSUPPORTED, "assertions (?=...), (?!...), (?<=...), (?<!...) are not supported");
		}
	}
	if (++p->depth > RUV_GRAMMAR_MAX_DEPTH)
		return bad(p, RUV_ELIMIT, "too many nested groups");
	rc = read_alternatives(p, false, out);
	if (rc)
		return rc;
	if (peek(p) != ')')
		return bad(p, RUV_EFORMAT, "a group without its end ')'");
	p->at++;
	p->depth--;
	return RUV_OK;
}

static int read_atom(parser *p, const ruv_gnode **out)
{
	uint32_t cp = 0;
	bool is_class = false;
	int rc;

	switch (peek(p)) {
	case '(':
		return read_group(p, out);
	case '[':
		return read_class(p, out);
	case '.':
		p->at++;
		*out = ruv_gjson_chars(p->ast, line_set, 3, true);
		return RUV_OK;
	case '^':
	case '$':
		return bad(p, RUV_EUNSUPPORTED, "^ and $ are supported only at the beginning and the end of the whole pattern");
	case '*':
	case '+':
	case '?':
	case '{':
		return bad(p, RUV_EFORMAT, "nothing to repeat");
	case '\\': {
		set *s = calloc(1, sizeof *s);

		if (!s)
			return ruv_fail_memory(p->err, "grammar", sizeof *s);
		p->at++;
		rc = read_escape(p, false, &cp, s, &is_class);
		if (!rc)
			*out = is_class ? ruv_gjson_chars(p->ast, s->ranges, s->n, false)
			                : ruv_gjson_chars(p->ast, &(ruv_grange){cp, cp}, 1, false);
		free(s);
		return rc;
	}
	default:
		rc = read_char(p, &cp);
		if (!rc)
			*out = ruv_gjson_chars(p->ast, &(ruv_grange){cp, cp}, 1, false);
		return rc;
	}
}

static int read_count(parser *p, int *count)
{
	int64_t n = 0;

	while (peek(p) >= '0' && peek(p) <= '9') {
		n = n * 10 + (*p->at++ - '0');
		if (n > RUV_GRAMMAR_MAX_REPEAT)
			return bad(p, RUV_ELIMIT, "more than 100000 repetitions");
	}
	*count = (int)n;
	return RUV_OK;
}

static int read_repeat(parser *p, const ruv_gnode **node)
{
	int min = 0, max = -1, rc = RUV_OK;

	switch (peek(p)) {
	case '*':
		break;
	case '+':
		min = 1;
		break;
	case '?':
		max = 1;
		break;
	case '{':
		p->at++;
		if (peek(p) < '0' || peek(p) > '9')
			return bad(p, RUV_EFORMAT, "'{' must be followed by a number, or be written \\{");
		rc = read_count(p, &min);
		max = min;
		if (!rc && peek(p) == ',') {
			p->at++;
			max = -1;
			if (peek(p) != '}')
				rc = read_count(p, &max);
		}
		if (!rc && peek(p) != '}')
			rc = bad(p, RUV_EFORMAT, "'}' expected");
		if (!rc && max >= 0 && max < min)
			rc = bad(p, RUV_EFORMAT, "the most repetitions are fewer than the fewest");
		if (rc)
			return rc;
		break;
	default:
		return RUV_OK;
	}
	p->at++;
	if (peek(p) == '?')
		p->at++;
	*node = ruv_gast_repeat(p->ast, *node, min, max);
	return RUV_OK;
}

static int read_alternatives(parser *p, bool top, const ruv_gnode **out)
{
	const ruv_gnode *any = top ? ruv_gast_repeat(p->ast, ruv_gjson_chars(p->ast, NULL, 0, true), 0, -1) : NULL, *node = NULL;
	ruv_glist alternatives = {0}, items = {0};
	int rc = RUV_OK;

	for (;;) {
		bool begins = false, ends = false;

		items.n = 0;
		if (top && peek(p) == '^') {
			p->at++;
			begins = true;
		}
		if (top && !begins)
			ruv_glist_push(p->ast, &items, any);
		while (!rc && p->at < p->end && *p->at != '|' && *p->at != ')') {
			if (top && *p->at == '$' && (p->at + 1 == p->end || p->at[1] == '|')) {
				p->at++;
				ends = true;
				break;
			}
			rc = read_atom(p, &node);
			if (!rc)
				rc = read_repeat(p, &node);
			if (!rc)
				ruv_glist_push(p->ast, &items, node);
		}
		if (rc)
			break;
		if (top && !ends)
			ruv_glist_push(p->ast, &items, any);
		ruv_glist_push(p->ast, &alternatives, ruv_gast_list(p->ast, RUV_G_SEQ, items.items, items.n));
		if (peek(p) != '|')
			break;
		p->at++;
	}
	if (!rc)
		*out = ruv_gast_list(p->ast, RUV_G_ALT, alternatives.items, alternatives.n);
	ruv_glist_release(&alternatives);
	ruv_glist_release(&items);
	return rc;
}

int ruv_gjson_pattern(ruv_gast *ast, const char *pattern, const ruv_gnode **out, ruv_error *err)
{
	parser p = {.ast = ast, .text = pattern, .at = pattern, .end = pattern + strlen(pattern), .err = err};
	int rc = read_alternatives(&p, true, out);

	if (!rc && p.at < p.end)
		rc = bad(&p, RUV_EFORMAT, "')' without its '('");
	return rc;
}

/* ruv_jinja_parse.c - Jinja source into a syntax tree: tags and white space control, tokens, recursive descent by Jinja's
 * precedences.
 *
 * One pass, one token of look-ahead. All nodes live in the template's arena. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/jinja.h"
#include "text/unicode.h"

typedef enum token_kind { T_TAG_END, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP } token_kind;

typedef struct token {
	token_kind kind;
	const char *text; /* T_NAME: NUL-terminated; T_STRING: decoded, `len` bytes */
	size_t len;
	int op; /* T_OP: the character, or two of them as a << 8 | b */
	int64_t i;
	double f;
	int line, column;
} token;

typedef struct parser {
	jinja_template *tmpl;
	const char *src;
	size_t n, pos;
	size_t line_pos; /* position up to which `line` and `line_start` hold */
	int line;
	size_t line_start;
	int brackets;       /* open ones within the tag */
	char close;         /* '%' or '}': how the tag ends */
	bool line_starting; /* does text from here on begin a line? */
	token tok;
	int nesting;
	int n_loops;
	ruv_error *err;
} parser;

#define OP2(a, b) ((a) << 8 | (b))

static void locate(parser *p, size_t pos, int *line, int *column)
{
	while (p->line_pos < pos) {
		if (p->src[p->line_pos] == '\n') {
			p->line++;
			p->line_start = p->line_pos + 1;
		}
		p->line_pos++;
	}
	*line = p->line;
	*column = (int)(pos - (pos < p->line_start ? pos : p->line_start)) + 1;
}

static int syntax(parser *p, int line, int column, const char *fmt, ...) RUV_PRINTF(4, 5);
static int syntax(parser *p, int line, int column, const char *fmt, ...)
{
	char message[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	return ruv_fail(p->err, RUV_EFORMAT, "chat template", "line %d, column %d: %s", line, column, message);
}

#define SYNTAX(p, ...) syntax(p, (p)->tok.line, (p)->tok.column, __VA_ARGS__)

static void *take(parser *p, size_t n)
{
	void *memory = ruv_arena_calloc(&p->tmpl->arena, 1, n);
	if (!memory)
		ruv_fail_memory(p->err, "chat template", n);
	return memory;
}

static jinja_node *node_new(parser *p, jinja_kind kind)
{
	jinja_node *node = take(p, sizeof *node);
	if (!node)
		return NULL;
	node->kind = kind;
	node->line = p->tok.line;
	node->column = p->tok.column;
	return node;
}

/* Appends to node->items and, when `name` or `named` says so, to node->names. */
static int node_push(parser *p, jinja_node *node, jinja_node *item)
{
	if ((node->n_items & (node->n_items + 1)) == 0) { /* 0, 1, 3, 7, ...: grow to 2n + 1 */
		jinja_node **items = take(p, (2 * node->n_items + 2) * sizeof *items);
		if (!items)
			return RUV_ENOMEM;
		if (node->n_items)
			memcpy(items, node->items, node->n_items * sizeof *items);
		node->items = items;
	}
	node->items[node->n_items++] = item;
	return RUV_OK;
}

static int name_push(parser *p, jinja_node *node, const char *name)
{
	if ((node->n_names & (node->n_names + 1)) == 0) {
		const char **names = take(p, (2 * node->n_names + 2) * sizeof *names);
		if (!names)
			return RUV_ENOMEM;
		if (node->n_names)
			memcpy(names, node->names, node->n_names * sizeof *names);
		node->names = names;
	}
	node->names[node->n_names++] = name;
	return RUV_OK;
}

/* A template's own string: all of it trusted. */
static int literal(parser *p, const char *data, size_t len, jinja_value *out)
{
	jinja_string *s = take(p, sizeof *s);
	ruv_span *span = take(p, sizeof *span);

	if (!s || !span)
		return RUV_ENOMEM;
	*span = (ruv_span){0, len};
	*s = (jinja_string){.data = data, .len = len, .trusted = span, .n_trusted = len > 0};
	*out = (jinja_value){.type = JINJA_STRING, .s = s};
	return RUV_OK;
}

/* ---- tokens ---- */

static bool is_name_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_white(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

/* Reads what stands behind the quote at p->pos; escapes as in Python. */
static int read_string(parser *p)
{
	char quote = p->src[p->pos];
	size_t i = p->pos + 1, n = 0;
	char *text;

	while (i < p->n && p->src[i] != quote)
		i += p->src[i] == '\\' ? 2 : 1;
	if (i >= p->n)
		return SYNTAX(p, "this string is never closed");
	text = take(p, i - p->pos);
	if (!text)
		return RUV_ENOMEM;
	for (i = p->pos + 1; p->src[i] != quote; i++) {
		char c = p->src[i], hex[9] = {0}, *stop;
		uint32_t cp;
		size_t width;

		if (c != '\\') {
			text[n++] = c;
			continue;
		}
		c = p->src[++i];
		switch (c) {
		case 'n':
			text[n++] = '\n';
			break;
		case 't':
			text[n++] = '\t';
			break;
		case 'r':
			text[n++] = '\r';
			break;
		case 'b':
			text[n++] = '\b';
			break;
		case 'f':
			text[n++] = '\f';
			break;
		case 'v':
			text[n++] = '\v';
			break;
		case 'a':
			text[n++] = '\a';
			break;
		case '0':
			text[n++] = '\0';
			break;
		case '\\':
		case '\'':
		case '"':
			text[n++] = c;
			break;
		case '\n':
			break; /* a continued line */
		case 'x':
		case 'u':
		case 'U':
			width = c == 'x' ? 2 : c == 'u' ? 4 : 8;
			if (p->n - i <= width)
				return SYNTAX(p, "a \\%c escape needs %zu hex digits", c, width);
			memcpy(hex, p->src + i + 1, width);
			cp = (uint32_t)strtoul(hex, &stop, 16);
			if (stop != hex + width || !strchr("0123456789abcdefABCDEF", hex[0]))
				return SYNTAX(p, "a \\%c escape needs %zu hex digits", c, width);
			if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
				return SYNTAX(p, "\\%c%s is no character", c, hex);
			n += (size_t)ruv_utf8_encode(cp, text + n);
			i += width;
			break;
		default: /* Python keeps unknown escapes */
			text[n++] = '\\';
			text[n++] = c;
		}
	}
	p->pos = i + 1;
	p->tok.kind = T_STRING;
	p->tok.text = text;
	p->tok.len = n;
	return RUV_OK;
}

static int read_number(parser *p)
{
	size_t i = p->pos, n = 0;
	char digits[64], *stop;
	bool is_float = false;

	while (i < p->n && (is_digit(p->src[i]) || p->src[i] == '_' ||
	                    (p->src[i] == '.' && !is_float && i + 1 < p->n && is_digit(p->src[i + 1])) ||
	                    ((p->src[i] == 'e' || p->src[i] == 'E') && i + 1 < p->n &&
	                     (is_digit(p->src[i + 1]) ||
	                      ((p->src[i + 1] == '-' || p->src[i + 1] == '+') && i + 2 < p->n && is_digit(p->src[i + 2])))))) {
		is_float |= p->src[i] == '.' || p->src[i] == 'e' || p->src[i] == 'E';
		if (n + 2 >= sizeof digits)
			return SYNTAX(p, "this number is too long");
		if (p->src[i] != '_')
			digits[n++] = p->src[i];
		if (p->src[i] == 'e' || p->src[i] == 'E')
			digits[n++] = p->src[++i];
		i++;
	}
	digits[n] = '\0';
	p->pos = i;
	errno = 0;
	if (is_float) {
		p->tok.kind = T_FLOAT;
		p->tok.f = strtod(digits, &stop);
	} else {
		p->tok.kind = T_INT;
		p->tok.i = strtoll(digits, &stop, 10);
	}
	if (*stop || errno)
		return SYNTAX(p, "'%s' is no number that can be represented", digits);
	return RUV_OK;
}

/* The end of a tag at p->pos: its length with the marker, 0 when it is none. */
static size_t tag_end_at(const parser *p, char *marker)
{
	size_t i = p->pos;

	*marker = 0;
	if (i < p->n && (p->src[i] == '-' || (p->src[i] == '+' && p->close != '}')))
		*marker = p->src[i++];
	if (i + 1 < p->n && p->src[i] == p->close && p->src[i + 1] == '}')
		return i + 2 - p->pos;
	return 0;
}

/* Behind a tag: drops the white space that its end asks for. */
static void after_tag(parser *p, char marker, bool trims)
{
	size_t start = p->pos;

	if (marker == '-')
		while (p->pos < p->n && is_white(p->src[p->pos]))
			p->pos++;
	else if (trims && marker != '+' && p->pos < p->n && p->src[p->pos] == '\n')
		p->pos++;
	p->line_starting = p->pos > start && p->src[p->pos - 1] == '\n';
}

/* The next token of a tag into p->tok. */
static int next(parser *p)
{
	static const char twos[][2] = {{'=', '='}, {'!', '='}, {'<', '='}, {'>', '='}, {'/', '/'}, {'*', '*'}};
	size_t len, i;
	char marker, c;

	while (p->pos < p->n && is_white(p->src[p->pos]))
		p->pos++;
	locate(p, p->pos, &p->tok.line, &p->tok.column);
	if (p->pos >= p->n)
		return SYNTAX(p, "the template ends inside a tag; '%c}' is missing", p->close);
	if (p->brackets == 0 && (len = tag_end_at(p, &marker)) > 0) {
		p->tok.kind = T_TAG_END;
		p->pos += len;
		after_tag(p, marker, p->close == '%');
		return RUV_OK;
	}
	c = p->src[p->pos];
	if (is_name_start(c)) {
		for (i = p->pos; i < p->n && (is_name_start(p->src[i]) || is_digit(p->src[i])); i++)
			;
		p->tok.kind = T_NAME;
		p->tok.len = i - p->pos;
		p->tok.text = ruv_arena_strndup(&p->tmpl->arena, p->src + p->pos, p->tok.len);
		p->pos = i;
		return p->tok.text ? RUV_OK : ruv_fail_memory(p->err, "chat template", p->tok.len);
	}
	if (c == '\'' || c == '"')
		return read_string(p);
	if (is_digit(c))
		return read_number(p);
	p->tok.kind = T_OP;
	for (i = 0; i < sizeof twos / sizeof *twos; i++)
		if (p->pos + 1 < p->n && c == twos[i][0] && p->src[p->pos + 1] == twos[i][1]) {
			p->tok.op = OP2(c, twos[i][1]);
			p->pos += 2;
			return RUV_OK;
		}
	if (!strchr("+-*/%~<>=()[]{},:.|", c))
		return SYNTAX(p, "unexpected character '%.*s'", ruv_utf8_decode(p->src + p->pos, p->n - p->pos, NULL, NULL, NULL),
		              p->src + p->pos);
	if (strchr("([{", c))
		p->brackets++;
	if (strchr(")]}", c) && --p->brackets < 0)
		return SYNTAX(p, "'%c' closes nothing", c);
	p->tok.op = c;
	p->pos++;
	return RUV_OK;
}

static bool is_op(const parser *p, int op)
{
	return p->tok.kind == T_OP && p->tok.op == op;
}

static bool is_word(const parser *p, const char *word)
{
	return p->tok.kind == T_NAME && strcmp(p->tok.text, word) == 0;
}

static const char *token_name(const parser *p, char text[48])
{
	switch (p->tok.kind) {
	case T_TAG_END:
		return "the end of the tag";
	case T_STRING:
		return "a string";
	case T_INT:
	case T_FLOAT:
		return "a number";
	case T_NAME:
		snprintf(text, 48, "'%.40s'", p->tok.text);
		return text;
	default:
		if (p->tok.op > 255)
			snprintf(text, 48, "'%c%c'", p->tok.op >> 8, p->tok.op & 255);
		else
			snprintf(text, 48, "'%c'", p->tok.op);
		return text;
	}
}

static int unexpected(parser *p, const char *wanted)
{
	char text[48];
	return SYNTAX(p, "%s expected, %s found", wanted, token_name(p, text));
}

static int expect_op(parser *p, int op)
{
	char wanted[8];

	if (!is_op(p, op)) {
		snprintf(wanted, sizeof wanted, "'%c'", op);
		return unexpected(p, wanted);
	}
	return next(p);
}

static int expect_end(parser *p)
{
	/* The tag's end was read together with the white space behind it; the next token is not looked at. */
	return p->tok.kind == T_TAG_END ? RUV_OK : unexpected(p, "the end of the tag");
}

/* ---- expressions ---- */

static int parse_expression(parser *p, jinja_node **out);
static int parse_unary(parser *p, bool with_filter, jinja_node **out);

static int enter(parser *p)
{
	if (++p->nesting > JINJA_MAX_NESTING)
		return syntax(p, p->tok.line, p->tok.column, "nested more than %d levels deep", JINJA_MAX_NESTING);
	return RUV_OK;
}

/* Arguments behind '(' , which was read, up to ')'. */
static int parse_args(parser *p, jinja_node *call)
{
	int rc;

	while (!is_op(p, ')')) {
		jinja_node *value;
		const char *keyword = NULL;

		if (call->n_items == JINJA_MAX_ARGS)
			return SYNTAX(p, "more than %d arguments", JINJA_MAX_ARGS);
		if (is_op(p, '*') || is_op(p, OP2('*', '*')))
			return ruv_fail(p->err, RUV_EUNSUPPORTED, "chat template",
			                "line %d, column %d: unpacking of arguments is not supported", p->tok.line, p->tok.column);
		rc = parse_expression(p, &value);
		if (rc)
			return rc;
		if (is_op(p, '=')) {
			if (value->kind != N_NAME)
				return unexpected(p, "a name in front of '='");
			keyword = value->name;
			if ((rc = next(p)) || (rc = parse_expression(p, &value)))
				return rc;
		} else if (call->n_names && call->names[call->n_names - 1]) {
			return SYNTAX(p, "an argument without a name behind one with a name");
		}
		if ((rc = node_push(p, call, value)) || (rc = name_push(p, call, keyword)))
			return rc;
		if (is_op(p, ',')) {
			rc = next(p);
			if (rc)
				return rc;
		} else if (!is_op(p, ')')) {
			return unexpected(p, "',' or ')'");
		}
	}
	return next(p);
}

static int parse_sequence(parser *p, jinja_node *list, int close)
{
	int rc;

	while (!is_op(p, close)) {
		jinja_node *item;
		if ((rc = parse_expression(p, &item)) || (rc = node_push(p, list, item)))
			return rc;
		if (!is_op(p, ','))
			break;
		rc = next(p);
		if (rc)
			return rc;
	}
	return expect_op(p, close);
}

static int parse_primary(parser *p, jinja_node **out)
{
	jinja_node *node;
	int rc;

	switch (p->tok.kind) {
	case T_NAME:
		node = node_new(p, N_NAME);
		if (!node)
			return RUV_ENOMEM;
		node->name = p->tok.text;
		if (is_word(p, "true") || is_word(p, "True") || is_word(p, "false") || is_word(p, "False")) {
			node->kind = N_LITERAL;
			node->value = (jinja_value){.type = JINJA_BOOL, .b = p->tok.text[0] == 't' || p->tok.text[0] == 'T'};
		} else if (is_word(p, "none") || is_word(p, "None")) {
			node->kind = N_LITERAL;
			node->value = (jinja_value){.type = JINJA_NONE};
		} else if (is_word(p, "in") || is_word(p, "is") || is_word(p, "and") || is_word(p, "or") || is_word(p, "else")) {
			return unexpected(p, "a value");
		}
		*out = node;
		return next(p);
	case T_STRING: {
		ruv_buf joined;
		node = node_new(p, N_LITERAL);
		if (!node)
			return RUV_ENOMEM;
		rc = literal(p, p->tok.text, p->tok.len, &node->value);
		ruv_buf_init(&joined, JINJA_MAX_SOURCE * 2);
		ruv_buf_append(&joined, p->tok.text, p->tok.len);
		while (rc == RUV_OK && (rc = next(p)) == RUV_OK && p->tok.kind == T_STRING) {
			/* strings side by side are one */
			const char *copy;
			rc = ruv_buf_append(&joined, p->tok.text, p->tok.len);
			copy = rc ? NULL : ruv_arena_strndup(&p->tmpl->arena, joined.data, joined.len);
			rc = copy ? literal(p, copy, joined.len, &node->value)
			          : ruv_fail_memory(p->err, "chat template", joined.len);
		}
		ruv_buf_release(&joined);
		*out = node;
		return rc;
	}
	case T_INT:
	case T_FLOAT:
		node = node_new(p, N_LITERAL);
		if (!node)
			return RUV_ENOMEM;
		if (p->tok.kind == T_INT)
			node->value = (jinja_value){.type = JINJA_INT, .i = p->tok.i};
		else
			node->value = (jinja_value){.type = JINJA_FLOAT, .f = p->tok.f};
		*out = node;
		return next(p);
	case T_OP:
		if (p->tok.op == '(') {
			rc = next(p);
			if (rc)
				return rc;
			if (!is_op(p, ')')) {
				rc = parse_expression(p, out);
				if (rc || is_op(p, ')'))
					return rc ? rc : next(p);
				if (!is_op(p, ','))
					return unexpected(p, "')'");
			}
			node = node_new(p, N_LIST); /* a tuple */
			if (!node)
				return RUV_ENOMEM;
			if (is_op(p, ',') && ((rc = node_push(p, node, *out)) || (rc = next(p))))
				return rc;
			*out = node;
			return parse_sequence(p, node, ')');
		}
		if (p->tok.op == '[') {
			node = node_new(p, N_LIST);
			if (!node)
				return RUV_ENOMEM;
			*out = node;
			rc = next(p);
			return rc ? rc : parse_sequence(p, node, ']');
		}
		if (p->tok.op == '{') {
			node = node_new(p, N_DICT);
			if (!node)
				return RUV_ENOMEM;
			*out = node;
			rc = next(p);
			while (rc == RUV_OK && !is_op(p, '}')) {
				jinja_node *key, *value;
				if ((rc = parse_expression(p, &key)) || (rc = expect_op(p, ':')) ||
				    (rc = parse_expression(p, &value)) || (rc = node_push(p, node, key)) ||
				    (rc = node_push(p, node, value)))
					return rc;
				if (!is_op(p, ','))
					break;
				rc = next(p);
			}
			return rc ? rc : expect_op(p, '}');
		}
		break;
	default:
		break;
	}
	return unexpected(p, "a value");
}

/* Behind '[': an index or a slice. */
static int parse_subscript(parser *p, jinja_node **out)
{
	jinja_node *node = node_new(p, N_INDEX), *part[3] = {NULL, NULL, NULL};
	int k = 0, rc;

	if (!node)
		return RUV_ENOMEM;
	node->a = *out;
	for (;;) {
		if (!is_op(p, ':') && !is_op(p, ']')) {
			rc = parse_expression(p, &part[k]);
			if (rc)
				return rc;
		}
		if (!is_op(p, ':') || k == 2)
			break;
		node->kind = N_SLICE;
		k++;
		rc = next(p);
		if (rc)
			return rc;
	}
	if (node->kind == N_INDEX && !part[0])
		return unexpected(p, "an index");
	node->b = part[0];
	node->c = part[1];
	node->d = part[2];
	*out = node;
	return expect_op(p, ']');
}

static int parse_postfix(parser *p, jinja_node **out)
{
	int rc = RUV_OK;

	while (rc == RUV_OK && p->tok.kind == T_OP) {
		jinja_node *node;

		if (p->tok.op == '.') {
			node = node_new(p, N_ATTR);
			if (!node)
				return RUV_ENOMEM;
			rc = next(p);
			if (rc)
				return rc;
			node->a = *out;
			if (p->tok.kind == T_NAME) {
				node->name = p->tok.text;
			} else if (p->tok.kind == T_INT) {
				node->kind = N_INDEX;
				node->b = node_new(p, N_LITERAL);
				if (!node->b)
					return RUV_ENOMEM;
				node->b->value = (jinja_value){.type = JINJA_INT, .i = p->tok.i};
			} else {
				return unexpected(p, "a name behind '.'");
			}
			*out = node;
			rc = next(p);
		} else if (p->tok.op == '[') {
			rc = next(p);
			if (rc == RUV_OK)
				rc = parse_subscript(p, out);
		} else if (p->tok.op == '(') {
			node = node_new(p, N_CALL);
			if (!node)
				return RUV_ENOMEM;
			node->a = *out;
			*out = node;
			rc = next(p);
			if (rc == RUV_OK)
				rc = parse_args(p, node);
		} else {
			break;
		}
	}
	return rc;
}

static int parse_filters(parser *p, jinja_node **out)
{
	int rc = RUV_OK;

	while (rc == RUV_OK) {
		jinja_node *node;

		if (is_op(p, '|')) {
			rc = next(p);
			if (rc)
				return rc;
			if (p->tok.kind != T_NAME)
				return unexpected(p, "a filter's name");
			if (!ruv_jinja_is_filter(p->tok.text))
				return ruv_fail(p->err, RUV_EUNSUPPORTED, "chat template",
				                "line %d, column %d: filter '%s' is not supported", p->tok.line, p->tok.column,
				                p->tok.text);
			node = node_new(p, N_FILTER);
			if (!node)
				return RUV_ENOMEM;
			node->a = *out;
			node->name = p->tok.text;
			*out = node;
			rc = next(p);
			if (rc == RUV_OK && is_op(p, '(')) {
				rc = next(p);
				if (rc == RUV_OK)
					rc = parse_args(p, node);
			}
		} else if (is_word(p, "is")) {
			rc = next(p);
			if (rc)
				return rc;
			node = node_new(p, N_TEST);
			if (!node)
				return RUV_ENOMEM;
			node->a = *out;
			if (is_word(p, "not")) {
				node->op = 1;
				rc = next(p);
				if (rc)
					return rc;
			}
			if (p->tok.kind != T_NAME && p->tok.kind != T_OP)
				return unexpected(p, "a test's name");
			if (p->tok.kind == T_NAME && !ruv_jinja_is_test(p->tok.text))
				return ruv_fail(p->err, RUV_EUNSUPPORTED, "chat template",
				                "line %d, column %d: test '%s' is not supported", p->tok.line, p->tok.column,
				                p->tok.text);
			if (p->tok.kind != T_NAME)
				return unexpected(p, "a test's name");
			node->name = p->tok.text;
			*out = node;
			rc = next(p);
			if (rc)
				return rc;
			if (is_op(p, '(')) {
				rc = next(p);
				if (rc == RUV_OK)
					rc = parse_args(p, node);
			} else if (p->tok.kind == T_STRING || p->tok.kind == T_INT || p->tok.kind == T_FLOAT || is_op(p, '[') ||
			           is_op(p, '{') ||
			           (p->tok.kind == T_NAME && !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and") &&
			            !is_word(p, "is") && !is_word(p, "if") && !is_word(p, "in") && !is_word(p, "not"))) {
				jinja_node *argument;
				if ((rc = parse_primary(p, &argument)) || (rc = parse_postfix(p, &argument)) ||
				    (rc = node_push(p, node, argument)) || (rc = name_push(p, node, NULL)))
					return rc;
			}
		} else if (is_op(p, '(')) {
			rc = parse_postfix(p, out);
		} else {
			break;
		}
	}
	return rc;
}

static int parse_unary(parser *p, bool with_filter, jinja_node **out)
{
	int rc;

	if (is_op(p, '-') || is_op(p, '+')) {
		jinja_node *node = node_new(p, is_op(p, '-') ? N_NEGATE : N_PLUS);
		if (!node)
			return RUV_ENOMEM;
		if ((rc = enter(p)) || (rc = next(p)) || (rc = parse_unary(p, false, &node->a)))
			return rc;
		p->nesting--;
		*out = node;
	} else if ((rc = parse_primary(p, out)) != RUV_OK) {
		return rc;
	}
	rc = parse_postfix(p, out);
	if (rc == RUV_OK && with_filter)
		rc = parse_filters(p, out);
	return rc;
}

static int binary(parser *p, int op, jinja_node **left, int (*parse_right)(parser *p, jinja_node **out))
{
	jinja_node *node = node_new(p, N_BINARY);
	int rc;

	if (!node)
		return RUV_ENOMEM;
	node->op = op;
	node->a = *left;
	if ((rc = next(p)) || (rc = parse_right(p, &node->b)))
		return rc;
	*left = node;
	return RUV_OK;
}

static int parse_filtered(parser *p, jinja_node **out)
{
	return parse_unary(p, true, out);
}

static int parse_power(parser *p, jinja_node **out)
{
	int rc = parse_filtered(p, out);
	while (rc == RUV_OK && is_op(p, OP2('*', '*')))
		rc = binary(p, '^', out, parse_filtered);
	return rc;
}

static int parse_product(parser *p, jinja_node **out)
{
	int rc = parse_power(p, out);
	while (rc == RUV_OK && (is_op(p, '*') || is_op(p, '/') || is_op(p, '%') || is_op(p, OP2('/', '/'))))
		rc = binary(p, p->tok.op == OP2('/', '/') ? 'f' : p->tok.op, out, parse_power);
	return rc;
}

static int parse_tilde(parser *p, jinja_node **out)
{
	int rc = parse_product(p, out);
	while (rc == RUV_OK && is_op(p, '~'))
		rc = binary(p, '~', out, parse_product);
	return rc;
}

static int parse_sum(parser *p, jinja_node **out)
{
	int rc = parse_tilde(p, out);
	while (rc == RUV_OK && (is_op(p, '+') || is_op(p, '-')))
		rc = binary(p, p->tok.op, out, parse_tilde);
	return rc;
}

static int parse_compare(parser *p, jinja_node **out)
{
	jinja_node *node = NULL, *right;
	int rc = parse_sum(p, out);

	while (rc == RUV_OK) {
		const char *op = NULL;

		if (is_op(p, OP2('=', '=')))
			op = "=";
		else if (is_op(p, OP2('!', '=')))
			op = "!";
		else if (is_op(p, OP2('<', '=')))
			op = "l";
		else if (is_op(p, OP2('>', '=')))
			op = "g";
		else if (is_op(p, '<'))
			op = "<";
		else if (is_op(p, '>'))
			op = ">";
		else if (is_word(p, "in"))
			op = "i";
		else if (is_word(p, "not")) { /* only "not in" can stand here */
			rc = next(p);
			if (rc)
				return rc;
			if (!is_word(p, "in"))
				return unexpected(p, "'in' behind 'not'");
			op = "n";
		}
		if (!op)
			break;
		if (!node) {
			node = node_new(p, N_COMPARE);
			if (!node)
				return RUV_ENOMEM;
			node->a = *out;
			*out = node;
		}
		if ((rc = next(p)) || (rc = parse_sum(p, &right)) || (rc = node_push(p, node, right)))
			return rc;
		rc = name_push(p, node, op);
	}
	return rc;
}

static int parse_not(parser *p, jinja_node **out)
{
	jinja_node *node;
	int rc;

	if (!is_word(p, "not"))
		return parse_compare(p, out);
	node = node_new(p, N_NOT);
	if (!node)
		return RUV_ENOMEM;
	if ((rc = enter(p)) || (rc = next(p)) || (rc = parse_not(p, &node->a)))
		return rc;
	p->nesting--;
	*out = node;
	return RUV_OK;
}

static int parse_and(parser *p, jinja_node **out)
{
	int rc = parse_not(p, out);
	while (rc == RUV_OK && is_word(p, "and")) {
		rc = binary(p, 0, out, parse_not);
		(*out)->kind = N_AND;
	}
	return rc;
}

static int parse_or(parser *p, jinja_node **out)
{
	int rc = parse_and(p, out);
	while (rc == RUV_OK && is_word(p, "or")) {
		rc = binary(p, 0, out, parse_and);
		(*out)->kind = N_OR;
	}
	return rc;
}

static int parse_expression(parser *p, jinja_node **out)
{
	int rc = enter(p);

	if (rc == RUV_OK)
		rc = parse_or(p, out);
	while (rc == RUV_OK && is_word(p, "if")) {
		jinja_node *node = node_new(p, N_TERNARY);
		if (!node)
			return RUV_ENOMEM;
		node->b = *out;
		*out = node;
		if ((rc = next(p)) || (rc = parse_or(p, &node->a)))
			return rc;
		if (is_word(p, "else")) {
			if ((rc = next(p)) || (rc = parse_expression(p, &node->c)))
				return rc;
		}
	}
	p->nesting--;
	return rc;
}

/* An expression, or several with commas between them (a tuple). */
static int parse_tuple(parser *p, jinja_node **out)
{
	jinja_node *list;
	int rc = parse_expression(p, out);

	if (rc || !is_op(p, ','))
		return rc;
	list = node_new(p, N_LIST);
	if (!list)
		return RUV_ENOMEM;
	rc = node_push(p, list, *out);
	*out = list;
	while (rc == RUV_OK && is_op(p, ',')) {
		jinja_node *item;
		rc = next(p);
		if (rc || p->tok.kind == T_TAG_END)
			break;
		rc = parse_expression(p, &item);
		if (rc == RUV_OK)
			rc = node_push(p, list, item);
	}
	return rc;
}

/* ---- statements ---- */

static int parse_body(parser *p, const char *const *ends, const char **end, jinja_node **out);

/* Names with commas between them into node->names. */
static int parse_targets(parser *p, jinja_node *node)
{
	bool parens = is_op(p, '(');
	int rc = parens ? next(p) : RUV_OK;

	for (;;) {
		if (rc)
			return rc;
		if (p->tok.kind != T_NAME || is_word(p, "in"))
			return unexpected(p, "a variable's name");
		if ((rc = name_push(p, node, p->tok.text)) || (rc = next(p)))
			return rc;
		if (!is_op(p, ','))
			break;
		rc = next(p);
	}
	return parens ? expect_op(p, ')') : RUV_OK;
}

static int parse_if(parser *p, jinja_node *node)
{
	static const char *const ends[] = {"elif", "else", "endif", NULL};
	static const char *const last[] = {"endif", NULL};
	const char *end = "elif";
	jinja_node *condition, *body;
	int rc;

	while (strcmp(end, "elif") == 0) {
		if ((rc = parse_expression(p, &condition)) || (rc = expect_end(p)) || (rc = parse_body(p, ends, &end, &body)) ||
		    (rc = node_push(p, node, condition)) || (rc = node_push(p, node, body)))
			return rc;
	}
	if (strcmp(end, "else") == 0) {
		if ((rc = expect_end(p)) || (rc = parse_body(p, last, &end, &body)) || (rc = node_push(p, node, body)))
			return rc;
	}
	return expect_end(p);
}

static int parse_for(parser *p, jinja_node *node)
{
	static const char *const ends[] = {"else", "endfor", NULL};
	static const char *const last[] = {"endfor", NULL};
	const char *end;
	int rc = parse_targets(p, node);

	if (rc)
		return rc;
	if (!is_word(p, "in"))
		return unexpected(p, "'in'");
	if ((rc = next(p)) || (rc = parse_or(p, &node->a)))
		return rc;
	if (is_op(p, ',')) {
		jinja_node *list = node_new(p, N_LIST), *item;
		if (!list || node_push(p, list, node->a))
			return RUV_ENOMEM;
		while (is_op(p, ','))
			if ((rc = next(p)) || (rc = parse_or(p, &item)) || (rc = node_push(p, list, item)))
				return rc;
		node->a = list;
	}
	if (is_word(p, "if") && ((rc = next(p)) || (rc = parse_expression(p, &node->b))))
		return rc;
	if (is_word(p, "recursive"))
		return ruv_fail(p->err, RUV_EUNSUPPORTED, "chat template", "line %d, column %d: recursive loops are not supported",
		                p->tok.line, p->tok.column);
	p->n_loops++;
	rc = expect_end(p);
	if (rc == RUV_OK)
		rc = parse_body(p, ends, &end, &node->c);
	p->n_loops--;
	if (rc)
		return rc;
	if (strcmp(end, "else") == 0 && ((rc = expect_end(p)) || (rc = parse_body(p, last, &end, &node->d))))
		return rc;
	return expect_end(p);
}

static int parse_set(parser *p, jinja_node *node)
{
	static const char *const ends[] = {"endset", NULL};
	const char *end;
	int rc;

	if (p->tok.kind != T_NAME)
		return parse_targets(p, node);
	node->name = p->tok.text;
	rc = next(p);
	if (rc)
		return rc;
	if (is_op(p, '.')) {
		rc = next(p);
		if (rc)
			return rc;
		if (p->tok.kind != T_NAME)
			return unexpected(p, "a name behind '.'");
		node->op = 1;
		if ((rc = name_push(p, node, p->tok.text)) || (rc = next(p)))
			return rc;
	} else {
		rc = name_push(p, node, node->name);
		while (rc == RUV_OK && is_op(p, ',')) {
			rc = next(p);
			if (rc)
				return rc;
			if (p->tok.kind != T_NAME)
				return unexpected(p, "a variable's name");
			if ((rc = name_push(p, node, p->tok.text)) || (rc = next(p)))
				return rc;
		}
		if (rc)
			return rc;
	}
	if (is_op(p, '=')) {
		if ((rc = next(p)) || (rc = parse_tuple(p, &node->a)))
			return rc;
		return expect_end(p);
	}
	if (p->tok.kind != T_TAG_END)
		return unexpected(p, "'='");
	rc = parse_body(p, ends, &end, &node->c);
	return rc ? rc : expect_end(p);
}

/* "(a, b=1)" into names and items. */
static int parse_parameters(parser *p, jinja_node *node)
{
	int rc = expect_op(p, '(');

	while (rc == RUV_OK && !is_op(p, ')')) {
		jinja_node *value = NULL;
		if (p->tok.kind != T_NAME)
			return unexpected(p, "a parameter's name");
		if (node->n_names == JINJA_MAX_ARGS)
			return SYNTAX(p, "more than %d parameters", JINJA_MAX_ARGS);
		if ((rc = name_push(p, node, p->tok.text)) || (rc = next(p)))
			return rc;
		if (is_op(p, '=') && ((rc = next(p)) || (rc = parse_expression(p, &value))))
			return rc;
		rc = node_push(p, node, value);
		if (rc == RUV_OK && is_op(p, ','))
			rc = next(p);
		else if (rc == RUV_OK && !is_op(p, ')'))
			return unexpected(p, "',' or ')'");
	}
	return rc ? rc : next(p);
}

/* The statement whose keyword is the current token; *out stays NULL for what leaves nothing behind. */
static int parse_statement(parser *p, jinja_node **out)
{
	static const char *const end_macro[] = {"endmacro", NULL}, *const end_call[] = {"endcall", NULL};
	static const char *const end_generation[] = {"endgeneration", NULL};
	const char *word = p->tok.text, *end;
	jinja_node *node = node_new(p, N_BLOCK);
	int rc, loops;

	if (!node)
		return RUV_ENOMEM;
	*out = node;
	rc = next(p);
	if (rc)
		return rc;
	if (strcmp(word, "if") == 0) {
		node->kind = N_IF;
		return parse_if(p, node);
	}
	if (strcmp(word, "for") == 0) {
		node->kind = N_FOR;
		return parse_for(p, node);
	}
	if (strcmp(word, "set") == 0) {
		node->kind = N_SET;
		return parse_set(p, node);
	}
	if (strcmp(word, "macro") == 0) {
		node->kind = N_MACRO;
		if (p->tok.kind != T_NAME)
			return unexpected(p, "the macro's name");
		node->name = p->tok.text;
		loops = p->n_loops;
		p->n_loops = 0;
		if ((rc = next(p)) || (rc = parse_parameters(p, node)) || (rc = expect_end(p)) ||
		    (rc = parse_body(p, end_macro, &end, &node->c)))
			return rc;
		p->n_loops = loops;
		if (is_word(p, node->name) && (rc = next(p)))
			return rc;
		return expect_end(p);
	}
	if (strcmp(word, "call") == 0) {
		node->kind = N_CALL_BLOCK;
		if (is_op(p, '(') && (rc = parse_parameters(p, node)))
			return rc;
		rc = parse_expression(p, &node->a);
		if (rc == RUV_OK && node->a->kind != N_CALL)
			return SYNTAX(p, "a call expected");
		if (rc || (rc = expect_end(p)) || (rc = parse_body(p, end_call, &end, &node->c)))
			return rc;
		return expect_end(p);
	}
	if (strcmp(word, "do") == 0) {
		node->kind = N_DO;
		rc = parse_expression(p, &node->a);
		return rc ? rc : expect_end(p);
	}
	if (strcmp(word, "generation") == 0) {
		if ((rc = expect_end(p)) || (rc = parse_body(p, end_generation, &end, out)))
			return rc;
		return expect_end(p);
	}
	if (strcmp(word, "break") == 0 || strcmp(word, "continue") == 0) {
		node->kind = word[0] == 'b' ? N_BREAK : N_CONTINUE;
		if (p->n_loops == 0)
			return syntax(p, node->line, node->column, "'%s' outside of a loop", word);
		return expect_end(p);
	}
	if (strncmp(word, "end", 3) == 0 || strcmp(word, "else") == 0 || strcmp(word, "elif") == 0)
		return syntax(p, node->line, node->column, "'%.40s' ends nothing here", word);
	return ruv_fail(p->err, RUV_EUNSUPPORTED, "chat template", "line %d, column %d: statement '%.40s' is not supported",
	                node->line, node->column, word);
}

/* Text [from, to) as a node. */
static int add_text(parser *p, jinja_node *block, size_t from, size_t to)
{
	jinja_node *node;
	int rc;

	if (from >= to)
		return RUV_OK;
	node = node_new(p, N_TEXT);
	if (!node)
		return RUV_ENOMEM;
	locate(p, from, &node->line, &node->column);
	rc = literal(p, p->src + from, to - from, &node->value);
	return rc ? rc : node_push(p, block, node);
}

/* Where text [start, tag) ends once the tag's opening marker had its way: '-' takes all white space, none (lstrip_blocks) that of a
 * line which holds nothing else in front of the tag, '+' nothing. */
static size_t text_end(const parser *p, size_t start, size_t tag, char marker, bool starting)
{
	size_t stop = tag;

	if (marker == '-') {
		while (stop > start && is_white(p->src[stop - 1]))
			stop--;
	} else if (marker != '+') {
		while (stop > start && (p->src[stop - 1] == ' ' || p->src[stop - 1] == '\t'))
			stop--;
		if (stop > start ? p->src[stop - 1] != '\n' : !starting)
			stop = tag;
	}
	return stop;
}

/* Is p->src[pos..) "{% WORD %}" with optional markers? Its length, and the markers. */
static size_t plain_tag(const parser *p, size_t pos, const char *word, char *open, char *close)
{
	size_t i = pos + 2, n = strlen(word);

	*open = *close = 0;
	if (p->n - pos < n + 4 || memcmp(p->src + pos, "{%", 2))
		return 0;
	if (p->src[i] == '-' || p->src[i] == '+')
		*open = p->src[i++];
	while (i < p->n && is_white(p->src[i]))
		i++;
	if (p->n - i < n + 2 || memcmp(p->src + i, word, n))
		return 0;
	for (i += n; i < p->n && is_white(p->src[i]); i++)
		;
	if (i < p->n && (p->src[i] == '-' || p->src[i] == '+'))
		*close = p->src[i++];
	return p->n - i >= 2 && p->src[i] == '%' && p->src[i + 1] == '}' ? i + 2 - pos : 0;
}

/* Text up to and including the tag that ends it; *end is the keyword, and p->tok stands behind it. NULL `ends`: the whole template.
 */
static int parse_body(parser *p, const char *const *ends, const char **end, jinja_node **out)
{
	jinja_node *block;
	int rc = enter(p), line, column;

	if (rc)
		return rc;
	block = node_new(p, N_BLOCK);
	if (!block)
		return RUV_ENOMEM;
	*out = block;
	for (;;) {
		size_t start = p->pos, tag, stop, i;
		bool starting = p->line_starting;
		char kind = 0, marker = 0, marker_end, close;

		for (tag = start; tag + 1 < p->n; tag++)
			if (p->src[tag] == '{' && (p->src[tag + 1] == '{' || p->src[tag + 1] == '%' || p->src[tag + 1] == '#')) {
				kind = p->src[tag + 1];
				break;
			}
		if (!kind) {
			rc = add_text(p, block, start, p->n);
			p->pos = p->n;
			locate(p, p->n, &line, &column);
			if (rc == RUV_OK && ends)
				rc = syntax(p, line, column, "the template ends, but '%s' is missing for line %d",
				            ends[0][0] == 'e' && ends[0][1] == 'n' ? ends[0]
				            : ends[1] && ends[1][1] == 'n'         ? ends[1]
				                                                   : "endif",
				            block->line);
			p->nesting--;
			return rc;
		}
		if (tag + 2 < p->n && (p->src[tag + 2] == '-' || (p->src[tag + 2] == '+' && kind != '{')))
			marker = p->src[tag + 2];
		stop = text_end(p, start, tag, kind == '{' && !marker ? '+' : marker, starting);
		rc = add_text(p, block, start, stop);
		if (rc)
			return rc;
		locate(p, tag, &p->tok.line, &p->tok.column);
		if (kind == '#') {
			for (i = tag + 2; i + 1 < p->n && (p->src[i] != '#' || p->src[i + 1] != '}'); i++)
				;
			if (i + 1 >= p->n)
				return SYNTAX(p, "this comment is never closed");
			close = i > tag + 2 ? p->src[i - 1] : 0;
			p->pos = i + 2;
			after_tag(p, close == '-' || close == '+' ? close : 0, true);
			continue;
		}
		if (kind == '%' && (i = plain_tag(p, tag, "raw", &marker, &marker_end)) > 0) {
			p->pos = tag + i;
			after_tag(p, marker_end, false);
			for (stop = p->pos; stop < p->n && !(i = plain_tag(p, stop, "endraw", &marker, &marker_end)); stop++)
				;
			if (stop >= p->n)
				return SYNTAX(p, "'endraw' is missing");
			start = p->pos;
			p->pos = stop + i;
			stop = text_end(p, start, stop, marker, starting);
			rc = add_text(p, block, start, stop);
			if (rc)
				return rc;
			after_tag(p, marker_end, true);
			continue;
		}
		p->pos = tag + 2 + (marker != 0);
		p->close = kind == '{' ? '}' : '%';
		p->brackets = 0;
		rc = next(p);
		if (rc)
			return rc;
		if (kind == '{') {
			jinja_node *node = node_new(p, N_OUTPUT);
			if (!node)
				return RUV_ENOMEM;
			if ((rc = parse_tuple(p, &node->a)) || (rc = expect_end(p)) || (rc = node_push(p, block, node)))
				return rc;
			continue;
		}
		if (p->tok.kind != T_NAME)
			return unexpected(p, "a statement");
		for (i = 0; ends && ends[i]; i++)
			if (is_word(p, ends[i])) {
				*end = ends[i];
				p->nesting--;
				return next(p);
			}
		{
			jinja_node *node;
			if ((rc = parse_statement(p, &node)) || (rc = node_push(p, block, node)))
				return rc;
		}
	}
}

int ruv_jinja_parse(jinja_template *tmpl, const char *source, size_t n_bytes, ruv_error *err)
{
	parser p = {.tmpl = tmpl, .line = 1, .line_starting = true, .err = err};
	const char *end;
	char *clean;
	size_t i, n = 0;
	int rc;

	memset(tmpl, 0, sizeof *tmpl);
	ruv_arena_init(&tmpl->arena);
	if (n_bytes > JINJA_MAX_SOURCE)
		return ruv_fail(err, RUV_ELIMIT, "chat template", "%zu bytes are too much for a template, at most %d are allowed",
		                n_bytes, JINJA_MAX_SOURCE);
	i = ruv_utf8_valid_prefix(source, n_bytes);
	if (i < n_bytes)
		return ruv_fail(err, RUV_EFORMAT, "chat template", "byte %zu is not UTF-8", i);
	clean = ruv_arena_alloc(&tmpl->arena, n_bytes + 1);
	if (!clean)
		return ruv_fail_memory(err, "chat template", n_bytes);
	for (i = 0; i < n_bytes; i++) /* any line end becomes \n */
		if (source[i] != '\r')
			clean[n++] = source[i];
		else if (i + 1 == n_bytes || source[i + 1] != '\n')
			clean[n++] = '\n';
	if (n > 0 && clean[n - 1] == '\n')
		n--;
	clean[n] = '\0';
	p.src = clean;
	p.n = n;
	rc = parse_body(&p, NULL, &end, &tmpl->root);
	if (rc)
		ruv_jinja_release(tmpl);
	return rc;
}

void ruv_jinja_release(jinja_template *tmpl)
{
	ruv_arena_release(&tmpl->arena);
	tmpl->root = NULL;
}

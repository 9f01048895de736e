/* grammar_gbnf.c - reading GBNF, the notation that llama.cpp's users write.
 *
 *   # a comment
 *   root  ::= item ("," item)* | ""         rules; the first character of a line's rule is its name
 *   item  ::= "text" | [a-z0-9] | [^"] | .  texts, classes, any character; escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH
 *   many  ::= item* item+ item? item{3} item{2,} item{0,5}
 *   mark  ::= <|tool_call_start|> | <[1234]> one token, by its text or its id
 *
 * A rule ends at the end of its line, except inside parentheses, behind "::=" and "|", and where the next line begins with "|".
 * Deviations: names may hold "_"; a rule that is defined twice or never is an error; rules that no text can end are refused (by the
 * automaton), and so is left recursion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "infer/grammar_ast.h"
#include "text/unicode.h"

typedef struct parser {
	ruv_gast *ast;
	const char *text, *at, *end;
	const ruv_vocab *vocab;
	int depth;
	ruv_error *err;
} parser;

static int parse_alternatives(parser *p, bool nested, const ruv_gnode **out);

static int bad(const parser *p, const char *fmt, const char *what)
{
	int line = 1, column = 1;
	char message[256];

	for (const char *c = p->text; c < p->at; c++) {
		column = *c == '\n' ? 1 : column + 1;
		line += *c == '\n';
	}
	snprintf(message, sizeof message, fmt, what);
	return ruv_fail(p->err, RUV_EFORMAT, "grammar", "line %d, column %d: %s", line, column, message);
}

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static char peek(const parser *p)
{
	return p->at < p->end ? *p->at : '\0';
}

static void skip_space(parser *p, bool lines)
{
	while (p->at < p->end) {
		char c = *p->at;

		if (c == '#') {
			while (p->at < p->end && *p->at != '\n')
				p->at++;
		} else if (c == ' ' || c == '\t' || (lines && (c == '\r' || c == '\n'))) {
			p->at++;
		} else {
			return;
		}
	}
}

/* One character of a text or class, escapes read. */
static int parse_char(parser *p, uint32_t *cp)
{
	int width;
	size_t n;

	if (p->at >= p->end || *p->at == '\n')
		return bad(p, "%s", "this line ends inside a text or class");
	if (*p->at != '\\') {
		n = (size_t)ruv_utf8_decode(p->at, (size_t)(p->end - p->at), cp, NULL, NULL);
		if (n == 0)
			return bad(p, "%s", "this is not UTF-8");
		p->at += n;
		return RUV_OK;
	}
	p->at++;
	switch (peek(p)) {
	case 'x':
		width = 2;
		break;
	case 'u':
		width = 4;
		break;
	case 'U':
		width = 8;
		break;
	case 'n':
		*cp = '\n';
		p->at++;
		return RUV_OK;
	case 'r':
		*cp = '\r';
		p->at++;
		return RUV_OK;
	case 't':
		*cp = '\t';
		p->at++;
		return RUV_OK;
	case '\\':
	case '"':
	case '[':
	case ']':
	case '-':
	case '^':
		*cp = (unsigned char)*p->at++;
		return RUV_OK;
	default:
		return bad(p, "%s", "an unknown escape; there are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH");
	}
	p->at++;
	*cp = 0;
	for (int i = 0; i < width; i++) {
		char c = peek(p);
		int digit = c >= '0' && c <= '9'   ? c - '0'
		            : c >= 'a' && c <= 'f' ? c - 'a' + 10
		            : c >= 'A' && c <= 'F' ? c - 'A' + 10
		                                   : -1;

		if (digit < 0)
			return bad(p, "%s", "an escape without its hex digits");
		*cp = *cp * 16 + (uint32_t)digit;
		p->at++;
	}
	if (*cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000))
		return bad(p, "%s", "an escape that is no character");
	return RUV_OK;
}

static int parse_text(parser *p, const ruv_gnode **out)
{
	ruv_buf text;
	char bytes[4];
	uint32_t cp;
	int rc = RUV_OK;

	ruv_buf_init(&text, RUV_GRAMMAR_MAX_TEXT);
	p->at++;
	while (rc == RUV_OK && peek(p) != '"') {
		rc = parse_char(p, &cp);
		if (rc == RUV_OK)
			ruv_buf_append(&text, bytes, (size_t)ruv_utf8_encode(cp, bytes));
	}
	if (rc == RUV_OK) {
		p->at++;
		*out = ruv_gast_bytes(p->ast, text.data, text.len);
		rc = text.failed ? ruv_fail_memory(p->err, "grammar", text.len) : RUV_OK;
	}
	ruv_buf_release(&text);
	return rc;
}

static int parse_class(parser *p, const ruv_gnode **out)
{
	ruv_grange *ranges = NULL;
	int n = 0, cap = 0, rc = RUV_OK;
	bool complement;

	p->at++;
	complement = peek(p) == '^';
	p->at += complement;
	while (rc == RUV_OK && peek(p) != ']') {
		ruv_grange r;

		rc = parse_char(p, &r.low);
		r.high = r.low;
		if (rc == RUV_OK && peek(p) == '-' && p->at + 1 < p->end && p->at[1] != ']') {
			p->at++;
			rc = parse_char(p, &r.high);
			if (rc == RUV_OK && r.high < r.low)
				rc = bad(p, "%s", "a range whose end is before its beginning");
		}
		if (rc == RUV_OK && n == cap) {
			ruv_grange *more = realloc(ranges, (size_t)(cap = cap ? 2 * cap : 16) * sizeof *more);

			if (more)
				ranges = more;
			else
				rc = ruv_fail_memory(p->err, "grammar", (size_t)cap * sizeof *more);
		}
		if (rc == RUV_OK)
			ranges[n++] = r;
	}
	if (rc == RUV_OK) {
		p->at++;
		*out = ruv_gast_chars(p->ast, ranges, n, complement);
	}
	free(ranges);
	return rc;
}

static int parse_token(parser *p, const ruv_gnode **out)
{
	const char *close = memchr(p->at, '>', (size_t)(p->end - p->at));
	size_t n = close ? (size_t)(close + 1 - p->at) : 0;
	char name[128];
	ruv_token token;

	if (!close || memchr(p->at, '\n', n) || n >= sizeof name)
		return bad(p, "%s", "'<' begins a token, \"<name>\" or \"<[id]>\", which does not end here");
	memcpy(name, p->at, n);
	name[n] = '\0';
	if (!p->vocab)
		return bad(p, "the token %s cannot be looked up without a vocabulary", name);
	if (n > 4 && name[1] == '[' && name[n - 2] == ']') {
		char *stop;
		long id = strtol(name + 2, &stop, 10);

		if (stop != name + n - 2 || id < 0 || (size_t)id >= ruv_vocab_n_tokens(p->vocab))
			return bad(p, "%s is no token of this model", name);
		token = (ruv_token)id;
	} else {
		token = ruv_vocab_find(p->vocab, name, n);
		if (token < 0)
			return bad(p, "%s is no token of this model", name);
	}
	p->at += n;
	*out = ruv_gast_token(p->ast, token);
	return RUV_OK;
}

static int find_rule(parser *p, const char *name, size_t n)
{
	char copy[128];

	for (int i = 0; i < p->ast->n_rules; i++)
		if (!strncmp(p->ast->rules[i].name, name, n) && !p->ast->rules[i].name[n])
			return i;
	memcpy(copy, name, n);
	copy[n] = '\0';
	return ruv_gast_rule(p->ast, copy);
}

static int parse_name(parser *p, int *rule)
{
	const char *begin = p->at;

	while (p->at < p->end && is_word(*p->at))
		p->at++;
	if (p->at == begin)
		return bad(p, "%s", "a rule's name expected");
	if (p->at - begin > 100)
		return bad(p, "%s", "a rule's name is longer than 100 letters");
	*rule = find_rule(p, begin, (size_t)(p->at - begin));
	return RUV_OK;
}

static int parse_number(parser *p, int *value)
{
	int64_t n = 0;

	if (peek(p) < '0' || peek(p) > '9')
		return bad(p, "%s", "a number expected");
	while (peek(p) >= '0' && peek(p) <= '9') {
		n = n * 10 + (*p->at++ - '0');
		if (n > RUV_GRAMMAR_MAX_REPEAT)
			return bad(p, "%s", "at most 100000 repetitions are possible");
	}
	*value = (int)n;
	return RUV_OK;
}

/* The repetition behind an item, if there is one. */
static int parse_repeat(parser *p, bool nested, const ruv_gnode **node)
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
		skip_space(p, nested);
		if (peek(p) != ',')
			rc = parse_number(p, &min);
		skip_space(p, nested);
		max = min;
		if (rc == RUV_OK && peek(p) == ',') {
			p->at++;
			skip_space(p, nested);
			max = -1;
			if (peek(p) != '}')
				rc = parse_number(p, &max);
			skip_space(p, nested);
		}
		if (rc == RUV_OK && peek(p) != '}')
			rc = bad(p, "%s", "'}' expected");
		if (rc == RUV_OK && max >= 0 && max < min)
			rc = bad(p, "%s", "the most repetitions are fewer than the fewest");
		if (rc)
			return rc;
		break;
	default:
		return RUV_OK;
	}
	p->at++;
	*node = ruv_gast_repeat(p->ast, *node, min, max);
	return RUV_OK;
}

static int parse_item(parser *p, bool nested, const ruv_gnode **out)
{
	int rule, rc;

	switch (peek(p)) {
	case '"':
		return parse_text(p, out);
	case '[':
		return parse_class(p, out);
	case '<':
		return parse_token(p, out);
	case '!':
		return ruv_fail(p->err, RUV_EUNSUPPORTED, "grammar", "negated tokens (\"!<...>\") are not supported");
	case '.':
		p->at++;
		*out = ruv_gast_chars(p->ast, NULL, 0, true);
		return RUV_OK;
	case '(':
		if (++p->depth > RUV_GRAMMAR_MAX_DEPTH)
			return ruv_fail(p->err, RUV_ELIMIT, "grammar", "more than %d nested parentheses",
			                (int)RUV_GRAMMAR_MAX_DEPTH);
		p->at++;
		skip_space(p, true);
		rc = parse_alternatives(p, true, out);
		if (rc)
			return rc;
		if (peek(p) != ')')
			return bad(p, "%s", "')' expected");
		p->at++;
		p->depth--;
		return RUV_OK;
	default:
		rc = parse_name(p, &rule);
		if (rc == RUV_OK)
			*out = ruv_gast_ref(p->ast, rule);
		(void)nested;
		return rc;
	}
}

static bool begins_item(const parser *p)
{
	char c = peek(p);

	return c == '"' || c == '[' || c == '(' || c == '<' || c == '!' || c == '.' || is_word(c);
}

/* Outside parentheses a new line ends the rule, unless the next thing is '|'. */
static void skip_to_bar(parser *p)
{
	const char *here = p->at;

	skip_space(p, true);
	if (peek(p) != '|')
		p->at = here;
}

static int parse_alternatives(parser *p, bool nested, const ruv_gnode **out)
{
	ruv_glist alternatives = {0}, items = {0};
	const ruv_gnode *node;
	int rc = RUV_OK;

	for (;;) {
		items.n = 0;
		while (rc == RUV_OK && begins_item(p)) {
			rc = parse_item(p, nested, &node);
			skip_space(p, nested);
			while (rc == RUV_OK && peek(p) && strchr("*+?{", peek(p))) {
				rc = parse_repeat(p, nested, &node);
				skip_space(p, nested);
			}
			if (rc == RUV_OK)
				ruv_glist_push(p->ast, &items, node);
		}
		if (rc)
			break;
		ruv_glist_push(p->ast, &alternatives, ruv_gast_list(p->ast, RUV_G_SEQ, items.items, items.n));
		if (!nested)
			skip_to_bar(p);
		if (peek(p) != '|')
			break;
		p->at++;
		skip_space(p, true);
	}
	if (rc == RUV_OK)
		*out = ruv_gast_list(p->ast, RUV_G_ALT, alternatives.items, alternatives.n);
	ruv_glist_release(&alternatives);
	ruv_glist_release(&items);
	return rc;
}

static int parse_rule(parser *p)
{
	const ruv_gnode *node = NULL;
	int rule, rc = parse_name(p, &rule);

	if (rc)
		return rc;
	skip_space(p, false);
	if (p->end - p->at < 3 || memcmp(p->at, "::=", 3))
		return bad(p, "'::=' expected behind the rule's name '%s'", p->ast->rules[rule].name);
	if (p->ast->rules[rule].node)
		return bad(p, "the rule '%s' is defined twice", p->ast->rules[rule].name);
	p->at += 3;
	skip_space(p, true);
	rc = parse_alternatives(p, false, &node);
	if (rc)
		return rc;
	if (p->at < p->end && *p->at != '\n' && *p->at != '\r')
		return bad(p, "%s", "a text, class, token, rule or the end of the line expected");
	p->ast->rules[rule].node = node;
	skip_space(p, true);
	return RUV_OK;
}

int ruv_gbnf_parse(ruv_gast *ast, const char *text, size_t n_bytes, const ruv_vocab *vocab, ruv_error *err)
{
	parser p = {.ast = ast, .text = text, .at = text, .end = text + n_bytes, .vocab = vocab, .err = err};
	int rc = RUV_OK;

	skip_space(&p, true);
	while (rc == RUV_OK && p.at < p.end && !ast->failed)
		rc = parse_rule(&p);
	if (rc == RUV_OK)
		rc = ruv_gast_check(ast, err);
	if (rc)
		return rc;
	for (int i = 0; i < ast->n_rules; i++) {
		if (!ast->rules[i].node)
			return ruv_fail(err, RUV_EFORMAT, "grammar", "the rule '%s' is used but not defined", ast->rules[i].name);
		if (!strcmp(ast->rules[i].name, "root"))
			ast->root = i;
	}
	if (ast->root < 0)
		return ruv_fail(err, RUV_EFORMAT, "grammar", "there is no rule 'root'");
	return RUV_OK;
}

/* grammar_json.c - JSON's own pieces as trees: values, strings, numbers and ranges of numbers, literals, other keys.
 *
 * What is generated is a part of JSON (RFC 8259), narrowed where the whole would serve nobody: white space cannot go on for ever,
 * numbers are short enough for a double (15 digits before the point, 16 behind it, exponents of two digits), escapes are
 * \" \\ \/ \b \f \n \r \t and \uXXXX for what is neither a surrogate nor NUL. Where a text must have one spelling only (keys that
 * must differ, patterns), characters stand for themselves and only what must be escaped is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "infer/grammar_ast.h"
#include "text/unicode.h"

enum { INT_DIGITS = 15, FRACTION_DIGITS = 16, MAX_INDENT = 16 };

void ruv_gjson_init(ruv_gjson *json)
{
	*json = (ruv_gjson){-1, -1, -1, -1, -1, -1, -1, -1, -1};
}

static const ruv_gnode *range(ruv_gast *ast, uint32_t low, uint32_t high)
{
	return ruv_gast_chars(ast, &(ruv_grange){low, high}, 1, false);
}

static const ruv_gnode *digits(ruv_gast *ast, int min, int max)
{
	return ruv_gast_repeat(ast, range(ast, '0', '9'), min, max);
}

static const ruv_gnode *optional(ruv_gast *ast, const ruv_gnode *node)
{
	return ruv_gast_repeat(ast, node, 0, 1);
}

/* The rule in *slot; *fresh when it is still to be defined. */
static const ruv_gnode *shared(ruv_gast *ast, int *slot, const char *name, bool *fresh)
{
	*fresh = *slot < 0;
	if (*fresh)
		*slot = ruv_gast_rule(ast, name);
	return ruv_gast_ref(ast, *slot);
}

const ruv_gnode *ruv_gjson_space(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->space, "JSON space", &fresh);

	if (fresh && !ast->failed)
		ast->rules[json->space].node =
		    optional(ast, RUV_GALT(ast, ruv_gast_text(ast, " "),
		                           RUV_GSEQ(ast, ruv_gast_text(ast, "\n"),
		                                    ruv_gast_repeat(ast, ruv_gast_text(ast, " "), 0, MAX_INDENT))));
	return ref;
}

const ruv_gnode *ruv_gjson_char(ruv_gast *ast, ruv_gjson *json)
{
	static const ruv_grange plain[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
	static const ruv_grange escapes[] = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'},
	                                     {'f', 'f'}, {'n', 'n'},   {'r', 'r'}, {'t', 't'}};
	static const ruv_grange hex[] = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
	static const ruv_grange hex1[] = {{'1', '9'}, {'a', 'f'}, {'A', 'F'}};
	static const ruv_grange not_d[] = {{'1', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}};
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->character, "JSON character", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *h = ruv_gast_chars(ast, hex, 3, false), *h1 = ruv_gast_chars(ast, hex1, 3, false);
		const ruv_gnode *zero = ruv_gast_text(ast, "0");
		/* 0001..FFFF without D800..DFFF */
		const ruv_gnode *code =
		    RUV_GALT(ast, RUV_GSEQ(ast, ruv_gast_chars(ast, not_d, 5, false), h, h, h),
		             RUV_GSEQ(ast, ruv_gast_chars(ast, (ruv_grange[]){{'d', 'd'}, {'D', 'D'}}, 2, false),
		                      range(ast, '0', '7'), h, h),
		             RUV_GSEQ(ast, zero, h1, h, h), RUV_GSEQ(ast, zero, zero, h1, h), RUV_GSEQ(ast, zero, zero, zero, h1));

		ast->rules[json->character].node = RUV_GALT(
		    ast, ruv_gast_chars(ast, plain, 3, true),
		    RUV_GSEQ(ast, ruv_gast_text(ast, "\\"),
		             RUV_GALT(ast, ruv_gast_chars(ast, escapes, 8, false), RUV_GSEQ(ast, ruv_gast_text(ast, "u"), code))));
	}
	return ref;
}

static const ruv_gnode *quoted(ruv_gast *ast, const ruv_gnode *inside)
{
	const ruv_gnode *quote = ruv_gast_text(ast, "\"");

	return RUV_GSEQ(ast, quote, inside, quote);
}

const ruv_gnode *ruv_gjson_string(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->string, "JSON string", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *node = quoted(ast, ruv_gast_repeat(ast, ruv_gjson_char(ast, json), 0, -1));

		ast->rules[json->string].node = node;
	}
	return ref;
}

/* 0, or up to INT_DIGITS digits of which the first is not 0. */
static const ruv_gnode *whole(ruv_gast *ast)
{
	return RUV_GALT(ast, ruv_gast_text(ast, "0"), RUV_GSEQ(ast, range(ast, '1', '9'), digits(ast, 0, INT_DIGITS - 1)));
}

const ruv_gnode *ruv_gjson_integer(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->integer, "JSON integer", &fresh);

	if (fresh && !ast->failed)
		ast->rules[json->integer].node = RUV_GSEQ(ast, optional(ast, ruv_gast_text(ast, "-")), whole(ast));
	return ref;
}

const ruv_gnode *ruv_gjson_number(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->number, "JSON number", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *sign = ruv_gast_chars(ast, (ruv_grange[]){{'-', '-'}, {'+', '+'}}, 2, false);
		const ruv_gnode *e = ruv_gast_chars(ast, (ruv_grange[]){{'e', 'e'}, {'E', 'E'}}, 2, false);

		ast->rules[json->number].node =
		    RUV_GSEQ(ast, optional(ast, ruv_gast_text(ast, "-")), whole(ast),
		             optional(ast, RUV_GSEQ(ast, ruv_gast_text(ast, "."), digits(ast, 1, FRACTION_DIGITS))),
		             optional(ast, RUV_GSEQ(ast, e, optional(ast, sign), digits(ast, 1, 2))));
	}
	return ref;
}

const ruv_gnode *ruv_gjson_boolean(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->boolean, "JSON boolean", &fresh);

	if (fresh && !ast->failed)
		ast->rules[json->boolean].node = RUV_GALT(ast, ruv_gast_text(ast, "true"), ruv_gast_text(ast, "false"));
	return ref;
}

/* open item ("," item)* close with min to max items. */
static const ruv_gnode *list_of(ruv_gast *ast, ruv_gjson *json, const char *open, const ruv_gnode *item, const char *close, int min,
                                int max)
{
	const ruv_gnode *space = ruv_gjson_space(ast, json);
	const ruv_gnode *more = RUV_GSEQ(ast, ruv_gast_text(ast, ","), space, item);
	const ruv_gnode *none = RUV_GSEQ(ast, ruv_gast_text(ast, open), space, ruv_gast_text(ast, close));
	const ruv_gnode *some;

	if (max == 0)
		return min > 0 ? ruv_gast_never() : none;
	some =
	    RUV_GSEQ(ast, ruv_gast_text(ast, open), space, item,
	             ruv_gast_repeat(ast, more, min > 0 ? min - 1 : 0, max < 0 ? -1 : max - 1), space, ruv_gast_text(ast, close));
	return min > 0 ? some : RUV_GALT(ast, some, none);
}

const ruv_gnode *ruv_gjson_list(ruv_gast *ast, ruv_gjson *json, const ruv_gnode *item, int min, int max)
{
	return list_of(ast, json, "[", item, "]", min, max);
}

const ruv_gnode *ruv_gjson_any_object(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->object, "JSON object", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *pair = RUV_GSEQ(ast, ruv_gjson_string(ast, json), ruv_gast_text(ast, ":"),
		                                 ruv_gjson_space(ast, json), ruv_gjson_value(ast, json));
		const ruv_gnode *node = list_of(ast, json, "{", pair, "}", 0, -1);

		ast->rules[json->object].node = node;
	}
	return ref;
}

const ruv_gnode *ruv_gjson_any_array(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->array, "JSON array", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *node = list_of(ast, json, "[", ruv_gjson_value(ast, json), "]", 0, -1);

		ast->rules[json->array].node = node;
	}
	return ref;
}

const ruv_gnode *ruv_gjson_value(ruv_gast *ast, ruv_gjson *json)
{
	bool fresh;
	const ruv_gnode *ref = shared(ast, &json->value, "JSON value", &fresh);

	if (fresh && !ast->failed) {
		const ruv_gnode *node =
		    RUV_GALT(ast, ruv_gjson_string(ast, json), ruv_gjson_any_object(ast, json), ruv_gjson_any_array(ast, json),
		             ruv_gjson_number(ast, json), ruv_gjson_boolean(ast, json), ruv_gast_text(ast, "null"));

		ast->rules[json->value].node = node;
	}
	return ref;
}

const ruv_gnode *ruv_gjson_object(ruv_gast *ast)
{
	ruv_gjson json;

	ruv_gjson_init(&json);
	return ruv_gjson_any_object(ast, &json);
}

/* ---- characters and literals ---- */

/* How JSON writes a character that it must escape; NULL: as it is. */
static const char *escape_of(uint32_t cp, char text[8])
{
	static const char short_of[][2] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
	                                   {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

	for (size_t i = 0; i < sizeof short_of / sizeof *short_of; i++)
		if (cp == (unsigned char)short_of[i][0]) {
			snprintf(text, 8, "\\%c", short_of[i][1]);
			return text;
		}
	if (cp >= 0x20)
		return NULL;
	snprintf(text, 8, "\\u%04x", (unsigned)cp);
	return text;
}

const ruv_gnode *ruv_gjson_chars(ruv_gast *ast, const ruv_grange *ranges, int n, bool complement)
{
	const ruv_gnode *set = ruv_gast_chars(ast, ranges, n, complement);
	const ruv_grange *in = set->items;
	ruv_glist alternatives = {0};
	ruv_grange *raw;
	const ruv_gnode *node;
	int k = 0;

	if (set->kind != RUV_G_CHARS)
		return set;
	raw = malloc(((size_t)set->n + 4) * sizeof *raw);
	if (!raw) {
		ast->failed = RUV_ENOMEM;
		return ruv_gast_empty();
	}
	for (int i = 0; i < set->n; i++) {
		uint32_t low = in[i].low;
		const uint32_t high = in[i].high;
		char text[8];

		/* what must be escaped lies below 0x5D */
		for (uint32_t cp = low; cp <= high && cp <= '\\'; cp++) {
			if (!escape_of(cp, text) || (cp == 0))
				continue;
			ruv_glist_push(ast, &alternatives, ruv_gast_text(ast, text));
		}
		low = low < 0x20 ? 0x20 : low;
		for (int j = 0; j < 3 && low <= high; j++) {
			static const uint32_t hole[3] = {'"', '\\', UINT32_MAX};

			if (low > hole[j])
				continue;
			if (high < hole[j]) {
				raw[k++] = (ruv_grange){low, high};
				break;
			}
			if (low < hole[j])
				raw[k++] = (ruv_grange){low, hole[j] - 1};
			low = hole[j] + 1;
		}
	}
	ruv_glist_push(ast, &alternatives, ruv_gast_chars(ast, raw, k, false));
	node = ruv_gast_list(ast, RUV_G_ALT, alternatives.items, alternatives.n);
	ruv_glist_release(&alternatives);
	free(raw);
	return node;
}

const ruv_gnode *ruv_gjson_literal(ruv_gast *ast, const json_t *value)
{
	char number[40];
	char *text;
	const ruv_gnode *node;

	if (json_is_real(value)) { /* the shortest that reads back as the same */
		for (int precision = 1; precision <= 17; precision++) {
			snprintf(number, sizeof number, "%.*g", precision, json_real_value(value));
			if (strtod(number, NULL) == json_real_value(value))
				break;
		}
		return ruv_gast_text(ast, number);
	}
	text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	if (!text) {
		ast->failed = RUV_ENOMEM;
		return ruv_gast_empty();
	}
	node = ruv_gast_text(ast, text);
	free(text);
	return node;
}

/* Strings behind a beginning that names [n] share up to byte `at`. */
static const ruv_gnode *other(ruv_gast *ast, const ruv_gnode *rest, const char *const *names, int n, size_t at, int depth)
{
	ruv_glist alternatives = {0};
	ruv_grange *taken = calloc((size_t)n + 1, sizeof *taken);
	const char **below = malloc(((size_t)n + 1) * sizeof *below);
	const ruv_gnode *node;
	bool ends = false;
	int n_taken = 0;

	if (!taken || !below || depth > RUV_GRAMMAR_MAX_DEPTH) {
		ast->failed = taken && below ? RUV_ELIMIT : RUV_ENOMEM;
		free(taken);
		free(below);
		return ruv_gast_empty();
	}
	for (int i = 0; i < n; i++) {
		uint32_t cp = 0;
		size_t width = (size_t)ruv_utf8_decode(names[i] + at, strlen(names[i] + at), &cp, NULL, NULL);
		bool seen = false;
		int n_below = 0;

		ends |= names[i][at] == '\0';
		if (width == 0)
			continue;
		for (int k = 0; k < n_taken; k++)
			seen |= taken[k].low == cp;
		if (seen)
			continue;
		taken[n_taken++] = (ruv_grange){cp, cp};
		for (int k = i; k < n; k++)
			if (!strncmp(names[k] + at, names[i] + at, width))
				below[n_below++] = names[k];
		ruv_glist_push(ast, &alternatives,
		               RUV_GSEQ(ast, ruv_gjson_chars(ast, &taken[n_taken - 1], 1, false),
		                        other(ast, rest, below, n_below, at + width, depth + 1)));
	}
	ruv_glist_push(ast, &alternatives, RUV_GSEQ(ast, ruv_gjson_chars(ast, taken, n_taken, true), rest));
	if (!ends)
		ruv_glist_push(ast, &alternatives, ruv_gast_empty());
	node = ruv_gast_list(ast, RUV_G_ALT, alternatives.items, alternatives.n);
	ruv_glist_release(&alternatives);
	free(taken);
	free(below);
	return node;
}

const ruv_gnode *ruv_gjson_other_string(ruv_gast *ast, ruv_gjson *json, const char *const *names, int n)
{
	const ruv_gnode *rest;

	if (n == 0)
		return ruv_gjson_string(ast, json);
	rest = ruv_gast_repeat(ast, ruv_gjson_chars(ast, NULL, 0, true), 0, -1);
	return quoted(ast, other(ast, rest, names, n, 0, 0));
}

/* ---- ranges of whole numbers ---- */

/* Digit strings of low [n]..high [n]. */
static const ruv_gnode *same_length(ruv_gast *ast, const char *low, const char *high, int n)
{
	const int zeros = (int)strspn(low, "0"), nines = (int)strspn(high, "9");
	const ruv_gnode *first, *middle, *last;
	char edge[24];

	if (n == 0)
		return ruv_gast_empty();
	if (zeros >= n && nines >= n)
		return digits(ast, n, n);
	if (low[0] == high[0])
		return RUV_GSEQ(ast, range(ast, (unsigned char)low[0], (unsigned char)low[0]),
		                same_length(ast, low + 1, high + 1, n - 1));
	memset(edge, '9', sizeof edge);
	edge[n - 1] = '\0';
	first = RUV_GSEQ(ast, range(ast, (unsigned char)low[0], (unsigned char)low[0]), same_length(ast, low + 1, edge, n - 1));
	middle = low[0] + 1 > high[0] - 1 ? ruv_gast_never()
	                                  : RUV_GSEQ(ast, range(ast, (unsigned char)(low[0] + 1), (unsigned char)(high[0] - 1)),
	                                             digits(ast, n - 1, n - 1));
	memset(edge, '0', sizeof edge);
	edge[n - 1] = '\0';
	last = RUV_GSEQ(ast, range(ast, (unsigned char)high[0], (unsigned char)high[0]), same_length(ast, edge, high + 1, n - 1));
	return RUV_GALT(ast, first, middle, last);
}

/* Whole numbers low..high, neither negative. */
static const ruv_gnode *natural_range(ruv_gast *ast, uint64_t low, uint64_t high)
{
	ruv_glist alternatives = {0};
	const ruv_gnode *node;
	uint64_t begin = 0, end = 9;

	for (int length = 1; length <= 19 && begin <= high; length++) {
		const uint64_t from = low > begin ? low : begin, to = high < end ? high : end;
		char a[24], b[24];

		if (from <= to) {
			snprintf(a, sizeof a, "%0*llu", length, (unsigned long long)from);
			snprintf(b, sizeof b, "%0*llu", length, (unsigned long long)to);
			ruv_glist_push(ast, &alternatives, same_length(ast, a, b, length));
		}
		begin = end + 1;
		end = length < 18 ? end * 10 + 9 : UINT64_MAX;
	}
	node = ruv_gast_list(ast, RUV_G_ALT, alternatives.items, alternatives.n);
	ruv_glist_release(&alternatives);
	return node;
}

const ruv_gnode *ruv_gjson_integer_range(ruv_gast *ast, bool has_low, int64_t low, bool has_high, int64_t high)
{
	const int64_t most = 999999999999999; /* INT_DIGITS */
	const ruv_gnode *negative = ruv_gast_never(), *positive = ruv_gast_never();

	if (!has_low)
		low = has_high && high < -most ? INT64_MIN : -most;
	if (!has_high)
		high = low > most ? INT64_MAX : most;
	if (low < 0 && low <= high)
		negative = RUV_GSEQ(ast, ruv_gast_text(ast, "-"),
		                    natural_range(ast, high < 0 ? (uint64_t)0 - (uint64_t)high : 1, (uint64_t)0 - (uint64_t)low));
	if (high >= 0 && low <= high)
		positive = natural_range(ast, low > 0 ? (uint64_t)low : 0, (uint64_t)high);
	return RUV_GALT(ast, negative, positive);
}

/* ---- ranges of numbers ---- */

/* A bound without its sign: the whole part, and the digits behind the point [n] without zeros at their end. */
typedef struct bound {
	bool is_there, exclusive;
	uint64_t whole;
	char fraction[64];
	int n;
} bound;

static bound read_bound(const char *text, bool exclusive)
{
	bound b = {.is_there = true, .exclusive = exclusive};
	char *stop;

	b.whole = strtoull(text, &stop, 10);
	if (*stop == '.') {
		snprintf(b.fraction, sizeof b.fraction, "%s", stop + 1);
		b.n = (int)strlen(b.fraction);
		while (b.n > 0 && b.fraction[b.n - 1] == '0')
			b.fraction[--b.n] = '\0';
	}
	return b;
}

static const ruv_gnode *one_digit(ruv_gast *ast, int low, int high)
{
	return low > high ? ruv_gast_never() : range(ast, (uint32_t)low, (uint32_t)high);
}

/* Digit strings D with 0.D >= 0.f. In all three: `first` means that D must not be empty; D may be longer than f. */
static const ruv_gnode *at_least(ruv_gast *ast, const char *f, int n, bool exclusive, bool first)
{
	const ruv_gnode *any = digits(ast, 0, FRACTION_DIGITS);

	if (n == 0 && exclusive)
		return RUV_GSEQ(ast, ruv_gast_repeat(ast, ruv_gast_text(ast, "0"), 0, 3), range(ast, '1', '9'), any);
	if (n == 0)
		return digits(ast, first, FRACTION_DIGITS);
	return RUV_GALT(ast, RUV_GSEQ(ast, one_digit(ast, f[0] + 1, '9'), any),
	                RUV_GSEQ(ast, one_digit(ast, f[0], f[0]), at_least(ast, f + 1, n - 1, exclusive, false)));
}

static const ruv_gnode *at_most(ruv_gast *ast, const char *f, int n, bool exclusive, bool first)
{
	const bool zero = (int)strspn(f, "0") >= n;

	if (n == 0)
		return exclusive ? ruv_gast_never() : ruv_gast_repeat(ast, ruv_gast_text(ast, "0"), first, 2);
	return RUV_GALT(ast, first || (zero && exclusive) ? ruv_gast_never() : ruv_gast_empty(),
	                RUV_GSEQ(ast, one_digit(ast, '0', f[0] - 1), digits(ast, 0, FRACTION_DIGITS)),
	                RUV_GSEQ(ast, one_digit(ast, f[0], f[0]), at_most(ast, f + 1, n - 1, exclusive, false)));
}

static const ruv_gnode *between(ruv_gast *ast, const char *low, const char *high, int n, bool low_ex, bool high_ex, bool first)
{
	if (n == 0)
		return low_ex || high_ex ? ruv_gast_never() : ruv_gast_repeat(ast, ruv_gast_text(ast, "0"), first, 2);
	if (low[0] > high[0])
		return ruv_gast_never();
	if (low[0] == high[0])
		return RUV_GSEQ(ast, one_digit(ast, low[0], low[0]),
		                between(ast, low + 1, high + 1, n - 1, low_ex, high_ex, false));
	return RUV_GALT(ast, RUV_GSEQ(ast, one_digit(ast, low[0], low[0]), at_least(ast, low + 1, n - 1, low_ex, false)),
	                RUV_GSEQ(ast, one_digit(ast, low[0] + 1, high[0] - 1), digits(ast, 0, FRACTION_DIGITS)),
	                RUV_GSEQ(ast, one_digit(ast, high[0], high[0]), at_most(ast, high + 1, n - 1, high_ex, false)));
}

static const ruv_gnode *point(ruv_gast *ast, const ruv_gnode *behind, bool may_lack)
{
	const ruv_gnode *node = RUV_GSEQ(ast, ruv_gast_text(ast, "."), behind);

	return may_lack ? RUV_GALT(ast, node, ruv_gast_empty()) : node;
}

/* Numbers of low..high, both without sign; high may lack. */
static const ruv_gnode *unsigned_range(ruv_gast *ast, bound low, bound high)
{
	const uint64_t most = 999999999999999;
	const ruv_gnode *any = point(ast, digits(ast, 1, FRACTION_DIGITS), true), *below, *middle, *above;
	const uint64_t top = high.is_there ? high.whole : low.whole > most ? INT64_MAX : most;

	if (low.whole > top)
		return ruv_gast_never();
	if (high.is_there && low.whole == high.whole) {
		char a[64] = {0}, b[64] = {0};
		const int n = low.n > high.n ? low.n : high.n;

		memset(a, '0', (size_t)n);
		memset(b, '0', (size_t)n);
		memcpy(a, low.fraction, (size_t)low.n);
		memcpy(b, high.fraction, (size_t)high.n);
		return RUV_GSEQ(ast, natural_range(ast, low.whole, low.whole),
		                point(ast, between(ast, a, b, n, low.exclusive, high.exclusive, true),
		                      low.n == 0 && !low.exclusive && (high.n > 0 || !high.exclusive)));
	}
	below = RUV_GSEQ(ast, natural_range(ast, low.whole, low.whole),
	                 point(ast, at_least(ast, low.fraction, low.n, low.exclusive, true), low.n == 0 && !low.exclusive));
	if (!high.is_there)
		return RUV_GALT(ast, below, RUV_GSEQ(ast, natural_range(ast, low.whole + 1, top), any));
	middle =
	    high.whole - low.whole < 2 ? ruv_gast_never() : RUV_GSEQ(ast, natural_range(ast, low.whole + 1, high.whole - 1), any);
	above = RUV_GSEQ(ast, natural_range(ast, high.whole, high.whole),
	                 point(ast, at_most(ast, high.fraction, high.n, high.exclusive, true), high.n > 0 || !high.exclusive));
	return RUV_GALT(ast, below, middle, above);
}

const ruv_gnode *ruv_gjson_number_range(ruv_gast *ast, const char *low, bool low_exclusive, const char *high, bool high_exclusive)
{
	const bool low_negative = !low || low[0] == '-', high_negative = high && high[0] == '-';
	const ruv_gnode *negative = ruv_gast_never(), *positive = ruv_gast_never();

	if (low_negative) { /* as if mirrored; without zero */
		bound near = high_negative ? read_bound(high + 1, high_exclusive) : read_bound("0", true);
		bound far = low ? read_bound(low + 1, low_exclusive) : (bound){0};

		negative = RUV_GSEQ(ast, ruv_gast_text(ast, "-"), unsigned_range(ast, near, far));
	}
	if (!high_negative)
		positive = unsigned_range(ast, low_negative ? read_bound("0", false) : read_bound(low, low_exclusive),
		                          high ? read_bound(high, high_exclusive) : (bound){0});
	return RUV_GALT(ast, negative, positive);
}

/* check.h - what generated texts are held against, written apart from the grammars: a small validator of JSON schemas over jansson
 * and PCRE2, and the suite of schemas and grammars that the test and the benchmark generate with. */
#ifndef RUV_TESTS_GRAMMAR_CHECK_H
#define RUV_TESTS_GRAMMAR_CHECK_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "ruvllm/grammar.h"

typedef struct grammar_case {
	const char *name;
	ruv_grammar_kind kind;
	const char *text;
	const char *regex; /* GBNF: the same language, anchored */
	const char *prompt;
	int max_tokens;
} grammar_case;

static const grammar_case grammar_cases[] = {
    {"person", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":24},\"age\":{\"type\":"
     "\"integer\",\"minimum\":0,\"maximum\":120},\"email\":{\"type\":\"string\",\"format\":\"email\"},\"tags\":{\"type\":\"array\","
     "\"items\":{\"enum\":[\"red\",\"green\",\"dark "
     "blue\"]},\"minItems\":1,\"maxItems\":3}},\"required\":[\"name\",\"age\",\"tags\"],"
     "\"additionalProperties\":false}",
     NULL, "Describe a person.", 400},
    {"order", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"$defs\":{\"line\":{\"type\":\"object\",\"properties\":{\"sku\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d{4}$\"},"
     "\"n\":{\"type\":\"integer\",\"minimum\":1,\"exclusiveMaximum\":100},\"price\":{\"type\":\"number\",\"minimum\":0.01,"
     "\"maximum\":999.99}},\"required\":[\"sku\",\"n\",\"price\"]}},\"type\":\"object\",\"properties\":{\"id\":{\"type\":"
     "\"string\","
     "\"format\":\"uuid\"},\"when\":{\"type\":\"string\",\"format\":\"date-time\"},\"lines\":{\"type\":\"array\",\"items\":{\"$"
     "ref\":"
     "\"#/$defs/line\"},\"minItems\":1,\"maxItems\":2},\"note\":{\"type\":[\"string\",\"null\"],\"maxLength\":20}},\"required\":"
     "[\"id\",\"when\",\"lines\",\"note\"]}",
     NULL, "Give me an order.", 500},
    {"shape", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"circle\"},\"r\":{\"type\":\"number\","
     "\"exclusiveMinimum\":"
     "0,\"maximum\":50}},\"required\":[\"kind\",\"r\"],\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{"
     "\"kind\":"
     "{\"const\":\"box\"},\"w\":{\"type\":\"integer\",\"minimum\":-7,\"maximum\":13},\"h\":{\"type\":\"integer\",\"minimum\":-250,"
     "\"maximum\":-3}},\"required\":[\"kind\",\"w\",\"h\"],\"additionalProperties\":false}]}",
     NULL, "Draw something.", 200},
    {"sums", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"boolean\"},{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":1.25},{"
     "\"type\":"
     "\"string\",\"format\":\"ipv4\"}],\"items\":{\"type\":\"integer\"},\"minItems\":3,\"maxItems\":5}",
     NULL, "Numbers please.", 200},
    {"map", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":8}},\"required\":[\"a\"]},{"
     "\"properties\":"
     "{\"b\":{\"anyOf\":[{\"type\":\"null\"},{\"enum\":[1,2.5,\"x\\\"y\",[true]]}]}}}]}",
     NULL, "A map.", 120},
    {"tree", RUV_GRAMMAR_JSON_SCHEMA,
     "{\"$ref\":\"#/$defs/"
     "twig\",\"$defs\":{\"twig\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\",\"minimum\":0,"
     "\"maximum\":9},\"leaves\":{\"type\":\"array\",\"maxItems\":3,\"items\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":"
     "\"#/$defs/leaf\"}]}}},\"required\":[\"v\",\"leaves\"]},\"leaf\":{\"type\":\"object\",\"properties\":{\"green\":{\"type\":"
     "\"boolean\"},\"size\":{\"type\":\"number\",\"minimum\":-2,\"exclusiveMaximum\":7.25}},\"required\":[\"green\"]}}}",
     NULL, "A twig with leaves.", 300},
    {"date", RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"format\":\"date\"}", NULL, "When was the moon landing?", 60},
    {"choice", RUV_GRAMMAR_GBNF, "root ::= \"yes\" | \"no\" | \"I am \" mood \".\"\nmood ::= \"sure\" | \"un\" \"sure\"",
     "yes|no|I am (un)?sure\\.", "Is it true?", 30},
    {"sum", RUV_GRAMMAR_GBNF, "# digits\nroot ::= num (\" + \" num){1,3} \" = \" num\nnum ::= [1-9] [0-9]{0,3}",
     "[1-9][0-9]{0,3}( \\+ [1-9][0-9]{0,3}){1,3} = [1-9][0-9]{0,3}", "Add some numbers.", 60},
    {"words", RUV_GRAMMAR_GBNF,
     "root ::= word (\" \" word){2,9} [.!?]\nword ::= [a-z]{1,12} | [A-ZÄÖÜ] [^\\x00-\\x20.!?\\x7F]{0,6}",
     "(?:[a-z]{1,12}|[A-ZÄÖÜ][^\\x00-\\x20.!?\\x7F]{0,6})(?: (?:[a-z]{1,12}|[A-ZÄÖÜ][^\\x00-\\x20.!?\\x7F]{0,6})){2,9}[.!?]",
     "Say something.", 250},
};
enum { N_GRAMMAR_CASES = sizeof grammar_cases / sizeof *grammar_cases };

static inline bool check_regex(const char *pattern, const char *text, size_t n, bool whole)
{
	char anchored[2048];
	int code;
	PCRE2_SIZE at;

	snprintf(anchored, sizeof anchored, whole ? "\\A(?:%s)\\z" : "%s", pattern);
	pcre2_code *re =
	    pcre2_compile((PCRE2_SPTR)anchored, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
	if (!re)
		return false;
	pcre2_match_data *match = pcre2_match_data_create_from_pattern(re, NULL);
	const int found = pcre2_match(re, (PCRE2_SPTR)text, n, 0, 0, match, NULL);
	pcre2_match_data_free(match);
	pcre2_code_free(re);
	return found >= 0;
}

static inline bool check_format(const char *format, const char *text)
{
	static const struct {
		const char *name, *pattern;
	} known[] = {
	    {"date", "^\\d{4}-(0\\d|1[012])-([012]\\d|3[01])$"},
	    {"date-time", "^\\d{4}-(0\\d|1[012])-([012]\\d|3[01])T\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"},
	    {"uuid", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
	    {"email", "^[^@\\s]+@[^@\\s.]+(\\.[^@\\s.]+)+$"},
	    {"ipv4", "^((25[0-5]|2[0-4]\\d|1?\\d?\\d)(\\.(?!$)|$)){4}$"},
	};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, format))
			return check_regex(known[i].pattern, text, strlen(text), false);
	return false;
}

static inline bool check_type(const char *type, const json_t *v)
{
	if (!strcmp(type, "integer"))
		return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
	return !strcmp(type, "number")    ? json_is_number(v)
	       : !strcmp(type, "string")  ? json_is_string(v)
	       : !strcmp(type, "object")  ? json_is_object(v)
	       : !strcmp(type, "array")   ? json_is_array(v)
	       : !strcmp(type, "boolean") ? json_is_boolean(v)
	                                  : !strcmp(type, "null") && json_is_null(v);
}

static inline size_t check_length(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xC0) != 0x80;
	return n;
}

/* Does the value follow the schema? Of the drafts, what the suite uses. */
static inline bool check_schema(const json_t *root, const json_t *schema, const json_t *v)
{
	const json_t *k, *item;
	const char *key;
	json_t *sub;
	size_t i, n = 0;

#define KEY(name) (k = json_object_get(schema, name))
	if (json_is_boolean(schema))
		return json_is_true(schema);
	if (KEY("$ref")) {
		const char *name = strrchr(json_string_value(k), '/') + 1;

		return check_schema(root, json_object_get(json_object_get(root, "$defs"), name), v);
	}
	if (KEY("allOf"))
		json_array_foreach((json_t *)k, i, sub) if (!check_schema(root, sub, v)) return false;
	if (KEY("anyOf") || KEY("oneOf")) {
		json_array_foreach((json_t *)k, i, sub) n += check_schema(root, sub, v);
		if (json_object_get(schema, "oneOf") ? n != 1 : n == 0)
			return false;
	}
	if (KEY("const") && !json_equal(k, v))
		return false;
	if (KEY("enum")) {
		bool found = false;

		json_array_foreach((json_t *)k, i, sub) found |= json_equal(sub, v);
		if (!found)
			return false;
	}
	if (KEY("type")) {
		bool found = json_is_string(k) && check_type(json_string_value(k), v);

		json_array_foreach((json_t *)k, i, sub) found |= check_type(json_string_value(sub), v);
		if (!found)
			return false;
	}
	if (json_is_string(v)) {
		const char *text = json_string_value(v);

		if ((KEY("minLength") && check_length(text) < (size_t)json_integer_value(k)) ||
		    (KEY("maxLength") && check_length(text) > (size_t)json_integer_value(k)) ||
		    (KEY("pattern") && !check_regex(json_string_value(k), text, strlen(text), false)) ||
		    (KEY("format") && !check_format(json_string_value(k), text)))
			return false;
	}
	if (json_is_number(v)) {
		const double x = json_number_value(v);

		if ((KEY("minimum") && x < json_number_value(k)) || (KEY("maximum") && x > json_number_value(k)) ||
		    (KEY("exclusiveMinimum") && x <= json_number_value(k)) ||
		    (KEY("exclusiveMaximum") && x >= json_number_value(k)))
			return false;
	}
	if (json_is_array(v)) {
		const json_t *prefix = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items");

		if ((KEY("minItems") && json_array_size(v) < (size_t)json_integer_value(k)) ||
		    (KEY("maxItems") && json_array_size(v) > (size_t)json_integer_value(k)))
			return false;
		json_array_foreach((json_t *)v, i, sub)
		{
			item = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
			if (item && !check_schema(root, item, sub))
				return false;
		}
	}
	if (json_is_object(v)) {
		const json_t *properties = json_object_get(schema, "properties"),
			     *more = json_object_get(schema, "additionalProperties");

		json_array_foreach(json_object_get(schema, "required"), i,
		                   sub) if (!json_object_get(v, json_string_value(sub))) return false;
		json_object_foreach((json_t *)v, key, sub)
		{
			item = json_object_get(properties, key);
			item = item ? item : more;
			if (item && !check_schema(root, item, sub))
				return false;
		}
	}
#undef KEY
	return true;
}

/* Is the text what the case asks for? */
static inline bool check_case(const grammar_case *c, const char *text, size_t n)
{
	json_t *schema, *value;
	bool good;

	if (c->kind == RUV_GRAMMAR_GBNF)
		return check_regex(c->regex, text, n, true);
	schema = json_loads(c->text, 0, NULL);
	value = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	good = schema && value && check_schema(schema, schema, value);
	json_decref(schema);
	json_decref(value);
	return good;
}

#endif

/* grammar_schema.c - a JSON schema as a tree: every text of it follows the schema.
 *
 * Drafts 7 and 2020-12. What the tree holds may be narrower than what the schema allows, never wider: properties come in the
 * schema's order; an object with "properties" and no word on additional ones has none; numbers and white space are bounded as
 * grammar_json.c says. A keyword that narrows and cannot be held to is refused by its name and place; words that the drafts do not
 * know are annotations, as they say.
 *
 * "$ref" into the same document becomes a rule, so that schemas may be recursive. "allOf" and the siblings of "anyOf", "oneOf" and
 * "$ref" are merged into one schema before it is compiled. "oneOf" is "anyOf" where its branches cannot overlap (other types, or
 * other constants of a common property); otherwise it is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "infer/grammar_ast.h"

enum { MAX_REFS = 2000, MAX_PROPERTIES = 2000 };

typedef struct compiler {
	ruv_gast *ast;
	const json_t *root;
	ruv_gjson json;
	struct {
		const char *pointer; /* the arena's */
		int rule;
	} refs[MAX_REFS];
	int n_refs;
	int depth;
	bool call;    /* the object at hand is a call's arguments */
	ruv_buf path; /* "#/properties/age" */
	ruv_error *err;
} compiler;

static int compile(compiler *c, const json_t *schema, const ruv_gnode **out);

/* ---- failures, and where in the schema one is ---- */

static int fail(const compiler *c, int code, const char *fmt, const char *what)
{
	char message[320];

	snprintf(message, sizeof message, fmt, what);
	return ruv_fail(c->err, code, "grammar", "%s: %s", ruv_buf_cstr(&c->path), message);
}

static size_t enter(compiler *c, const char *key)
{
	const size_t before = c->path.len;

	if (before + strlen(key) < 240)
		ruv_buf_printf(&c->path, "/%s", key);
	return before;
}

static int compile_at(compiler *c, const char *key, const json_t *schema, const ruv_gnode **out)
{
	const size_t before = enter(c, key);
	const int rc = compile(c, schema, out);

	if (!rc)
		ruv_buf_truncate(&c->path, before);
	return rc;
}

static int compile_in(compiler *c, const char *key, const char *name, const json_t *schema, const ruv_gnode **out)
{
	const size_t before = enter(c, key);
	const int rc = compile_at(c, name, schema, out);

	if (!rc)
		ruv_buf_truncate(&c->path, before);
	return rc;
}

/* ---- keywords ---- */

enum { STRUCTURE = 1, STRING = 2, NUMBER = 4, OBJECT = 8, ARRAY = 16, NOTE = 32, REFUSED = 64 };

static const struct keyword {
	const char *name;
	int kind;
} keywords[] = {
    {"type", STRUCTURE},
    {"enum", STRUCTURE},
    {"const", STRUCTURE},
    {"anyOf", STRUCTURE},
    {"oneOf", STRUCTURE},
    {"allOf", STRUCTURE},
    {"$ref", STRUCTURE},
    {"minLength", STRING},
    {"maxLength", STRING},
    {"pattern", STRING},
    {"format", STRING},
    {"minimum", NUMBER},
    {"maximum", NUMBER},
    {"exclusiveMinimum", NUMBER},
    {"exclusiveMaximum", NUMBER},
    {"multipleOf", NUMBER},
    {"properties", OBJECT},
    {"required", OBJECT},
    {"minProperties", OBJECT},
    {"maxProperties", OBJECT},
    {"propertyNames", OBJECT},
    {"items", ARRAY},
    {"prefixItems", ARRAY},
    {"additionalItems", ARRAY},
    {"minItems", ARRAY},
    {"maxItems", ARRAY},
    {"uniqueItems", ARRAY},
    {"$defs", NOTE},
    {"definitions", NOTE},
    {"additionalProperties", OBJECT},
    {"not", REFUSED},
    {"if", REFUSED},
    {"then", REFUSED},
    {"else", REFUSED},
    {"contains", REFUSED},
    {"minContains", REFUSED},
    {"maxContains", REFUSED},
    {"patternProperties", REFUSED},
    {"dependencies", REFUSED},
    {"dependentRequired", REFUSED},
    {"dependentSchemas", REFUSED},
    {"unevaluatedItems", REFUSED},
    {"unevaluatedProperties", REFUSED},
    {"$dynamicRef", REFUSED},
    {"$recursiveRef", REFUSED},
};

static int kind_of(const char *key)
{
	for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
		if (!strcmp(keywords[i].name, key))
			return keywords[i].kind;
	return NOTE;
}

static bool has_kind(const json_t *schema, int kinds)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)schema, key, value) if (kind_of(key) & kinds) return true;
	return false;
}

static int check_keywords(compiler *c, const json_t *schema)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)schema, key, value)
	{
		if (!(kind_of(key) & REFUSED))
			continue;
		if (!strcmp(key, "unevaluatedProperties") || !strcmp(key, "unevaluatedItems"))
			if (json_is_true(value) || (json_is_false(value) && !has_kind(schema, STRUCTURE & ~1)))
				continue;
		return fail(c, RUV_EUNSUPPORTED, "the keyword \"%.100s\" is not supported", key);
	}
	return RUV_OK;
}

/* A count: a whole number from 0. *value is left alone when there is none. */
static int read_count(compiler *c, const json_t *schema, const char *key, int *value)
{
	const json_t *v = json_object_get(schema, key);
	double n;

	if (!v)
		return RUV_OK;
	n = json_number_value(v);
	if (!json_is_number(v) || n < 0 || n != floor(n))
		return fail(c, RUV_EFORMAT, "\"%s\" must be a whole number, 0 or more", key);
	if (n > RUV_GRAMMAR_MAX_REPEAT)
		return fail(c, RUV_ELIMIT, "\"%s\" is larger than 100000", key);
	*value = (int)n;
	return RUV_OK;
}

/* ---- references ---- */

/* The part of the document that "#/a/b" points to. */
static const json_t *point_to(const compiler *c, const char *pointer)
{
	const json_t *at = c->root;
	const char *p = pointer;

	if (*p++ != '#')
		return NULL;
	while (at && *p == '/') {
		char part[256];
		size_t n = 0;

		for (p++; *p && *p != '/' && n + 1 < sizeof part; p++) {
			char ch = *p;
			unsigned hex;

			if (ch == '~' && (p[1] == '0' || p[1] == '1'))
				ch = *++p == '0' ? '~' : '/';
			else if (ch == '%' && sscanf(p + 1, "%2x", &hex) == 1 && p[1] && p[2]) {
				ch = (char)hex;
				p += 2;
			}
			part[n++] = ch;
		}
		part[n] = '\0';
		if (json_is_array(at)) {
			char *stop;
			unsigned long i = strtoul(part, &stop, 10);

			at = n && !*stop ? json_array_get(at, i) : NULL;
		} else {
			at = json_object_get(at, part);
		}
	}
	return *p ? NULL : at;
}

static int find_ref(compiler *c, const json_t *schema, const char **pointer, const json_t **target)
{
	*pointer = json_string_value(json_object_get(schema, "$ref"));
	if (!*pointer)
		return fail(c, RUV_EFORMAT, "%s", "\"$ref\" must be a string");
	if ((*pointer)[0] != '#' || ((*pointer)[1] && (*pointer)[1] != '/'))
		return fail(c, RUV_EUNSUPPORTED, "\"$ref\" to \"%.200s\": only places in the same document (#/...) are supported",
		            *pointer);
	*target = point_to(c, *pointer);
	if (!json_is_object(*target) && !json_is_boolean(*target))
		return fail(c, RUV_EFORMAT, "\"$ref\" to \"%.200s\", where no schema is", *pointer);
	return RUV_OK;
}

static int compile_ref(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const char *pointer = NULL;
	const json_t *target = NULL;
	const ruv_gnode *node = NULL;
	ruv_buf path;
	int i, rule, rc = find_ref(c, schema, &pointer, &target);

	if (rc)
		return rc;
	for (i = 0; i < c->n_refs; i++)
		if (!strcmp(c->refs[i].pointer, pointer)) {
			*out = ruv_gast_ref(c->ast, c->refs[i].rule);
			return RUV_OK;
		}
	if (c->n_refs == MAX_REFS)
		return fail(c, RUV_ELIMIT, "%s", "more than 2000 places are referred to");
	rule = ruv_gast_rule(c->ast, pointer);
	if (c->ast->failed)
		return ruv_gast_check(c->ast, c->err);
	c->refs[c->n_refs].pointer = c->ast->rules[rule].name;
	c->refs[c->n_refs++].rule = rule;
	path = c->path;
	ruv_buf_init(&c->path, 1 << 16);
	ruv_buf_printf(&c->path, "%.200s", pointer);
	rc = compile(c, target, &node);
	ruv_buf_release(&c->path);
	c->path = path;
	if (!rc && !c->ast->failed)
		c->ast->rules[rule].node = node;
	*out = ruv_gast_ref(c->ast, rule);
	return rc;
}

/* ---- merging ---- */

static json_t *type_list(const json_t *type)
{
	return json_is_array(type) ? json_copy((json_t *)type) : json_pack("[O]", type);
}

static bool contains(const json_t *list, const json_t *value)
{
	size_t i;
	json_t *item;

	json_array_foreach((json_t *)list, i, item) if (json_equal(item, value)) return true;
	return false;
}

/* The types of both; a number that is an integer as well is an integer. */
static json_t *merge_types(const json_t *a, const json_t *b)
{
	json_t *x = type_list(a), *y = type_list(b), *both = json_array(), *item, *integer = json_string("integer"),
	       *number = json_string("number");
	size_t i;

	json_array_foreach(x, i, item)
	{
		if (contains(y, item))
			json_array_append(both, item);
		else if ((json_equal(item, integer) && contains(y, number)) || (json_equal(item, number) && contains(y, integer)))
			json_array_append(both, integer);
	}
	json_decref(x);
	json_decref(y);
	json_decref(integer);
	json_decref(number);
	return both;
}

static json_t *merge_lists(const json_t *a, const json_t *b, bool both)
{
	json_t *list = json_array(), *item;
	size_t i;

	json_array_foreach((json_t *)a, i, item) if (!both || contains(b, item)) json_array_append(list, item);
	if (!both)
		json_array_foreach((json_t *)b, i, item) if (!contains(list, item)) json_array_append(list, item);
	return list;
}

static bool one_of_these(const char *key, const char *list)
{
	const size_t n = strlen(key);

	for (const char *at = strstr(list, key); at; at = strstr(at + 1, key))
		if ((at == list || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
			return true;
	return false;
}

/* Adds the properties of `from`; one that both have must follow both. */
static void merge_properties(json_t *into, const json_t *from)
{
	json_t *copy = json_copy(json_object_get(into, "properties")), *value, *old;
	const char *key;

	json_object_foreach((json_t *)json_object_get(from, "properties"), key, value)
	{
		old = json_object_get(copy, key);
		if (!old || json_equal(old, value))
			json_object_set(copy, key, value);
		else
			json_object_set_new(copy, key, json_pack("{s:[O,O]}", "allOf", old, value));
	}
	json_object_set_new(into, "properties", copy);
}

static bool closes(const json_t *schema)
{
	const json_t *more = json_object_get(schema, "additionalProperties");

	return more && !json_is_true(more);
}

/* Every property of `from` is one of `to`. */
static bool covers(const json_t *to, const json_t *from)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)json_object_get(from, "properties"), key,
	                    value) if (!json_object_get(json_object_get(to, "properties"), key)) return false;
	return true;
}

/* Narrows the object `into` (which nobody else holds) by `from`. */
static int merge(compiler *c, json_t *into, const json_t *from)
{
	const char *key;
	json_t *value, *old;

	if ((closes(into) && !covers(into, from)) || (closes(from) && !covers(from, into)))
		return fail(c, RUV_EUNSUPPORTED, "%s",
		            "\"additionalProperties\" in a part of a combined schema whose other parts have more properties");
	json_object_foreach((json_t *)from, key, value)
	{
		old = json_object_get(into, key);
		if (!old || (kind_of(key) == NOTE && old)) {
			if (!old)
				json_object_set(into, key, value);
			continue;
		}
		if (json_equal(old, value))
			continue;
		if (!strcmp(key, "type")) {
			json_object_set_new(into, key, merge_types(old, value));
		} else if (!strcmp(key, "properties") && json_is_object(old) && json_is_object(value)) {
			merge_properties(into, from);
		} else if (!strcmp(key, "required")) {
			json_object_set_new(into, key, merge_lists(old, value, false));
		} else if (!strcmp(key, "enum")) {
			json_object_set_new(into, key, merge_lists(old, value, true));
		} else if (!strcmp(key, "allOf")) {
			json_t *all = json_copy(old);

			json_array_extend(all, value);
			json_object_set_new(into, key, all);
		} else if (one_of_these(key, "minimum exclusiveMinimum minLength minItems minProperties") && json_is_number(old) &&
		           json_is_number(value)) {
			if (json_number_value(value) > json_number_value(old))
				json_object_set(into, key, value);
		} else if (one_of_these(key, "maximum exclusiveMaximum maxLength maxItems maxProperties") && json_is_number(old) &&
		           json_is_number(value)) {
			if (json_number_value(value) < json_number_value(old))
				json_object_set(into, key, value);
		} else if (!strcmp(key, "additionalProperties") && (json_is_true(old) || json_is_false(value))) {
			json_object_set(into, key, value);
		} else if (!strcmp(key, "additionalProperties") && (json_is_true(value) || json_is_false(old))) {
			continue;
		} else {
			return fail(c, RUV_EUNSUPPORTED, "two different \"%.100s\" in parts of one schema cannot be combined", key);
		}
	}
	return RUV_OK;
}

/* As merge, of a part that may be a boolean or a reference. *never: nothing can follow it. */
static int merge_part(compiler *c, json_t *into, const json_t *part, bool *never)
{
	json_t *copy = NULL;
	int rc = RUV_OK;

	if (json_is_false(part))
		*never = true;
	if (json_is_boolean(part))
		return RUV_OK;
	if (!json_is_object(part))
		return fail(c, RUV_EFORMAT, "%s", "a schema must be an object, true or false");
	for (int hops = 0; !rc && json_object_get(part, "$ref"); hops++) {
		const char *pointer = NULL;
		const json_t *target = NULL;

		if (hops == RUV_GRAMMAR_MAX_DEPTH) {
			rc = fail(c, RUV_EFORMAT, "%s", "references that go round in a circle");
			break;
		}
		rc = find_ref(c, part, &pointer, &target);
		if (rc)
			break;
		*never |= json_is_false(target);
		json_t *next = json_is_object(target) ? json_copy((json_t *)target) : json_object();
		json_t *siblings = json_copy((json_t *)part);

		json_object_del(siblings, "$ref");
		rc = next && siblings ? merge(c, next, siblings) : ruv_fail_memory(c->err, "grammar", 64);
		json_decref(siblings);
		json_decref(copy);
		part = copy = next;
	}
	if (!rc)
		rc = merge(c, into, part);
	json_decref(copy);
	return rc;
}

/* ---- one of several ---- */

static json_t *constants_of(const compiler *c, const json_t *schema)
{
	const json_t *value;

	for (int hops = 0; hops < 8 && json_object_get(schema, "$ref"); hops++) {
		const char *pointer = json_string_value(json_object_get(schema, "$ref"));

		schema = pointer ? point_to(c, pointer) : NULL;
	}
	value = json_object_get(schema, "const");
	if (value)
		return json_pack("[O]", value);
	value = json_object_get(schema, "enum");
	return json_is_array(value) ? json_incref((json_t *)value) : NULL;
}

static const json_t *resolve(const compiler *c, const json_t *schema)
{
	for (int hops = 0; hops < 8 && json_object_get(schema, "$ref"); hops++) {
		const char *pointer = json_string_value(json_object_get(schema, "$ref"));

		schema = pointer ? point_to(c, pointer) : NULL;
	}
	return schema;
}

static bool share_none(const json_t *a, const json_t *b)
{
	size_t i;
	json_t *item;

	json_array_foreach((json_t *)a, i, item) if (contains(b, item)) return false;
	return true;
}

static bool types_apart(const json_t *a, const json_t *b)
{
	const json_t *ta = json_object_get(a, "type"), *tb = json_object_get(b, "type");
	json_t *both;
	bool apart;

	if (!ta || !tb)
		return false;
	both = merge_types(ta, tb);
	apart = json_array_size(both) == 0;
	json_decref(both);
	return apart;
}

/* Can nothing follow both? */
static bool disjoint(const compiler *c, const json_t *a, const json_t *b)
{
	json_t *ca, *cb, *pa;
	const json_t *property;
	const char *key;
	bool apart;

	a = resolve(c, a);
	b = resolve(c, b);
	if (json_is_false(a) || json_is_false(b) || types_apart(a, b))
		return true;
	ca = constants_of(c, a);
	cb = constants_of(c, b);
	apart = ca && cb && share_none(ca, cb);
	json_decref(ca);
	json_decref(cb);
	if (apart)
		return true;
	/* a property that both require, with constants that differ or types that do */
	json_object_foreach(json_object_get(a, "properties"), key, pa)
	{
		json_t *name = json_string(key);
		const bool needed =
		    contains(json_object_get(a, "required"), name) && contains(json_object_get(b, "required"), name);

		json_decref(name);
		property = json_object_get(json_object_get(b, "properties"), key);
		if (!needed || !property)
			continue;
		ca = constants_of(c, pa);
		cb = constants_of(c, property);
		apart = (ca && cb && share_none(ca, cb)) || types_apart(resolve(c, pa), resolve(c, property));
		json_decref(ca);
		json_decref(cb);
		if (apart)
			return true;
	}
	return false;
}

static int compile_branches(compiler *c, const json_t *schema, const char *key, const ruv_gnode **out)
{
	const json_t *branches = json_object_get(schema, key);
	json_t *base = json_copy((json_t *)schema), *branch;
	ruv_glist nodes = {0};
	char number[24];
	size_t i;
	int rc = RUV_OK;

	if (!base)
		return ruv_fail_memory(c->err, "grammar", 64);
	json_object_del(base, key);
	if (!json_is_array(branches) || json_array_size(branches) == 0)
		rc = fail(c, RUV_EFORMAT, "\"%s\" must be a list of schemas", key);
	for (i = 0; !rc && !strcmp(key, "oneOf") && i < json_array_size(branches); i++)
		for (size_t k = 0; !rc && k < i; k++)
			if (!disjoint(c, json_array_get(branches, i), json_array_get(branches, k)))
				rc = fail(c, RUV_EUNSUPPORTED, "%s",
				          "\"oneOf\" with branches that may overlap is not supported; use \"anyOf\", or give each "
				          "branch a required property with a constant of its own");
	if (!rc)
		json_array_foreach((json_t *)branches, i, branch)
		{
			const ruv_gnode *node = NULL;
			bool never = false;

			snprintf(number, sizeof number, "%zu", i);
			if (!has_kind(base, ~NOTE)) {
				rc = compile_in(c, key, number, branch, &node);
			} else {
				const size_t before = enter(c, key);
				json_t *merged = json_copy(base);

				rc = merged ? merge_part(c, merged, branch, &never) : ruv_fail_memory(c->err, "grammar", 64);
				if (!rc && !never)
					rc = compile_at(c, number, merged, &node);
				json_decref(merged);
				if (!rc)
					ruv_buf_truncate(&c->path, before);
			}
			if (rc)
				break;
			ruv_glist_push(c->ast, &nodes, never ? ruv_gast_never() : node);
		}
	if (!rc)
		*out = ruv_gast_list(c->ast, RUV_G_ALT, nodes.items, nodes.n);
	ruv_glist_release(&nodes);
	json_decref(base);
	return rc;
}

static int compile_all(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *parts = json_object_get(schema, "allOf");
	json_t *merged = json_copy((json_t *)schema), *part;
	bool never = false;
	size_t i;
	int rc = RUV_OK;

	if (!merged)
		return ruv_fail_memory(c->err, "grammar", 64);
	json_object_del(merged, "allOf");
	if (!json_is_array(parts))
		rc = fail(c, RUV_EFORMAT, "%s", "\"allOf\" must be a list of schemas");
	else
		json_array_foreach((json_t *)parts, i, part)
		{
			const size_t before = enter(c, "allOf");

			rc = merge_part(c, merged, part, &never);
			if (rc)
				break;
			ruv_buf_truncate(&c->path, before);
		}
	if (!rc && never)
		*out = ruv_gast_never();
	else if (!rc)
		rc = compile(c, merged, out);
	json_decref(merged);
	return rc;
}

/* ---- types ---- */

static bool is_of_type(const json_t *value, const char *type)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return !strcmp(type, "object");
	case JSON_ARRAY:
		return !strcmp(type, "array");
	case JSON_STRING:
		return !strcmp(type, "string");
	case JSON_INTEGER:
		return !strcmp(type, "integer") || !strcmp(type, "number");
	case JSON_REAL:
		return !strcmp(type, "number") ||
		       (!strcmp(type, "integer") && json_real_value(value) == floor(json_real_value(value)));
	case JSON_TRUE:
	case JSON_FALSE:
		return !strcmp(type, "boolean");
	case JSON_NULL:
		return !strcmp(type, "null");
	}
	return false;
}

static bool type_allows(const json_t *types, const json_t *value)
{
	size_t i;
	json_t *item;

	if (!types)
		return true;
	if (json_is_string(types))
		return is_of_type(value, json_string_value(types));
	json_array_foreach((json_t *)types, i,
	                   item) if (json_is_string(item) && is_of_type(value, json_string_value(item))) return true;
	return false;
}

/* "enum" and "const". */
static int compile_constants(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *only = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
	const json_t *types = json_object_get(schema, "type");
	ruv_glist nodes = {0};
	json_t *value;
	size_t i;

	if (list && !json_is_array(list))
		return fail(c, RUV_EFORMAT, "%s", "\"enum\" must be a list");
	if (has_kind(schema, STRING | NUMBER | OBJECT | ARRAY))
		return fail(c, RUV_EUNSUPPORTED, "%s", "\"enum\" or \"const\" beside other keywords that narrow is not supported");
	if (only) {
		*out = type_allows(types, only) && (!list || contains(list, only)) ? ruv_gjson_literal(c->ast, only)
		                                                                   : ruv_gast_never();
		return RUV_OK;
	}
	json_array_foreach((json_t *)list, i, value) if (type_allows(types, value))
	    ruv_glist_push(c->ast, &nodes, ruv_gjson_literal(c->ast, value));
	*out = ruv_gast_list(c->ast, RUV_G_ALT, nodes.items, nodes.n);
	ruv_glist_release(&nodes);
	return RUV_OK;
}

#define DATE                                                                                                                       \
	"[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-" \
	"8]))"
#define TIME "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?"
#define ZONE "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){0,4}"

static const struct {
	const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME ZONE "$"},
    {"date-time", "^" DATE "T" TIME ZONE "$"},
    {"duration", "^P(?:[0-9]{1,4}W|(?:[0-9]{1,4}D|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?)"
                 "(?:T[0-9]{1,4}[HMS])?|T[0-9]{1,4}[HMS])$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,32}){0,2}@" LABEL "(?:\\." LABEL "){1,3}$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" BYTE "(?:\\." BYTE "){3}$"},
    {"ipv6", "^(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$"},
    {"uri",
     "^[a-z][a-z0-9+.-]{1,10}://" HOST "(?::[0-9]{1,4})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]*)*(?:\\?[A-Za-z0-9._~!$&'()*+,;=:@/?-]*)?"
     "(?:#[A-Za-z0-9._~-]*)?$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
};

static int compile_string(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
	const ruv_gnode *quote = ruv_gast_text(c->ast, "\""), *inside = NULL;
	const bool sized = json_object_get(schema, "minLength") || json_object_get(schema, "maxLength");
	const char *text = NULL;
	int min = 0, max = -1, rc;

	if ((rc = read_count(c, schema, "minLength", &min)) || (rc = read_count(c, schema, "maxLength", &max)))
		return rc;
	if (pattern && !json_is_string(pattern))
		return fail(c, RUV_EFORMAT, "%s", "\"pattern\" must be a string");
	if (format && !json_is_string(format))
		return fail(c, RUV_EFORMAT, "%s", "\"format\" must be a string");
	if (pattern) {
		if (format)
			return fail(c, RUV_EUNSUPPORTED, "%s", "\"pattern\" together with \"format\" is not supported");
		text = json_string_value(pattern);
	} else if (format) {
		for (size_t i = 0; i < sizeof formats / sizeof *formats && !text; i++)
			if (!strcmp(formats[i].name, json_string_value(format)))
				text = formats[i].pattern;
		if (!text)
			return fail(c, RUV_EUNSUPPORTED,
			            "the format \"%.60s\" is not supported; date, time, date-time, duration, email, "
			            "hostname, ipv4, ipv6, uri and uuid are",
			            json_string_value(format));
	}
	if (text) {
		if (sized)
			return fail(
			    c, RUV_EUNSUPPORTED, "%s",
			    "\"minLength\" and \"maxLength\" together with \"pattern\" or \"format\" are not supported; write "
			    "the lengths into the pattern");
		rc = ruv_gjson_pattern(c->ast, text, &inside, c->err);
		if (rc)
			return ruv_error_prefix(c->err, rc, "%s: ", ruv_buf_cstr(&c->path));
	} else if (sized) {
		if (max >= 0 && max < min) {
			*out = ruv_gast_never();
			return RUV_OK;
		}
		inside = ruv_gast_repeat(c->ast, ruv_gjson_char(c->ast, &c->json), min, max);
	} else {
		*out = ruv_gjson_string(c->ast, &c->json);
		return RUV_OK;
	}
	*out = RUV_GSEQ(c->ast, quote, inside, quote);
	return RUV_OK;
}

/* A bound as decimal text without exponent. */
static int decimal(compiler *c, const json_t *value, const char *key, char text[64])
{
	double x = json_number_value(value);

	if (!json_is_number(value))
		return fail(c, RUV_EFORMAT, "\"%s\" must be a number", key);
	if (json_is_integer(value)) {
		snprintf(text, 64, "%lld", (long long)json_integer_value(value));
		return RUV_OK;
	}
	if (!(fabs(x) < 1e18))
		return fail(c, RUV_EUNSUPPORTED, "\"%s\" is too large", key);
	for (int precision = 0; precision <= 30; precision++) {
		snprintf(text, 64, "%.*f", precision, x);
		if (strtod(text, NULL) == x) {
			if (!strcmp(text, "-0"))
				strcpy(text, "0");
			return RUV_OK;
		}
	}
	return fail(c, RUV_EUNSUPPORTED, "\"%s\" is too small", key);
}

typedef struct limits {
	char low[64], high[64];
	bool has_low, has_high, low_exclusive, high_exclusive;
} limits;

/* minimum and exclusiveMinimum, which may be a number (draft 7) or a word about minimum (draft 4). */
static int read_limit(compiler *c, const json_t *schema, const char *key, const char *exclusive_key, bool lower, char text[64],
                      bool *has, bool *exclusive)
{
	const json_t *value = json_object_get(schema, key), *edge = json_object_get(schema, exclusive_key);
	int rc = RUV_OK;

	if (value) {
		rc = decimal(c, value, key, text);
		*has = true;
		*exclusive = json_is_true(edge);
	}
	if (!rc && edge && !json_is_boolean(edge)) {
		const bool narrower = !value || (lower ? json_number_value(edge) >= json_number_value(value)
		                                       : json_number_value(edge) <= json_number_value(value));

		if (!json_is_number(edge))
			return fail(c, RUV_EFORMAT, "\"%s\" must be a number", exclusive_key);
		if (narrower) {
			rc = decimal(c, edge, exclusive_key, text);
			*has = *exclusive = true;
		}
	}
	return rc;
}

/* The whole number at or inside a bound. */
static int64_t whole_limit(const char *text, bool exclusive, bool lower)
{
	const char *point = strchr(text, '.');
	int64_t n = strtoll(text, NULL, 10);
	const bool fraction = point && strspn(point + 1, "0") < strlen(point + 1);

	if (fraction) { /* n is cut towards 0 */
		if (lower && text[0] != '-')
			n++;
		else if (!lower && text[0] == '-')
			n--;
	} else if (exclusive) {
		n += lower ? (n < INT64_MAX) : -(n > INT64_MIN);
	}
	return n;
}

static int compile_number(compiler *c, const json_t *schema, bool integer, const ruv_gnode **out)
{
	const json_t *multiple = json_object_get(schema, "multipleOf"), *format = json_object_get(schema, "format");
	limits l = {0};
	int rc;

	(void)format; /* int32, double, ...: said for people */
	if (multiple && !(integer && json_is_number(multiple) && json_number_value(multiple) == 1))
		return fail(c, RUV_EUNSUPPORTED, "%s", "the keyword \"multipleOf\" is not supported");
	if ((rc = read_limit(c, schema, "minimum", "exclusiveMinimum", true, l.low, &l.has_low, &l.low_exclusive)) ||
	    (rc = read_limit(c, schema, "maximum", "exclusiveMaximum", false, l.high, &l.has_high, &l.high_exclusive)))
		return rc;
	if (!l.has_low && !l.has_high)
		*out = integer ? ruv_gjson_integer(c->ast, &c->json) : ruv_gjson_number(c->ast, &c->json);
	else if (integer)
		*out = ruv_gjson_integer_range(c->ast, l.has_low, l.has_low ? whole_limit(l.low, l.low_exclusive, true) : 0,
		                               l.has_high, l.has_high ? whole_limit(l.high, l.high_exclusive, false) : 0);
	else if (l.has_low && l.has_high && strtod(l.low, NULL) > strtod(l.high, NULL))
		*out = ruv_gast_never();
	else
		*out = ruv_gjson_number_range(c->ast, l.has_low ? l.low : NULL, l.low_exclusive, l.has_high ? l.high : NULL,
		                              l.high_exclusive);
	return RUV_OK;
}

static int compile_array(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *items = json_object_get(schema, "items"), *prefix = json_object_get(schema, "prefixItems");
	const json_t *unique = json_object_get(schema, "uniqueItems");
	const ruv_gnode *item = NULL, *space = ruv_gjson_space(c->ast, &c->json);
	int min = 0, max = -1, n_prefix = 0, rc;

	if ((rc = read_count(c, schema, "minItems", &min)) || (rc = read_count(c, schema, "maxItems", &max)))
		return rc;
	if (unique && !json_is_false(unique) && (max < 0 || max > 1))
		return fail(c, RUV_EUNSUPPORTED, "%s", "the keyword \"uniqueItems\" is not supported");
	if (json_is_array(items)) { /* draft 7's tuples */
		prefix = items;
		items = json_object_get(schema, "additionalItems");
	}
	if (prefix && !json_is_array(prefix))
		return fail(c, RUV_EFORMAT, "%s", "\"prefixItems\" must be a list of schemas");
	n_prefix = (int)json_array_size(prefix);
	if (max >= 0 && max < min) {
		*out = ruv_gast_never();
		return RUV_OK;
	}
	if (!items && !n_prefix)
		item = ruv_gjson_value(c->ast, &c->json);
	else if (!items)
		item = min > n_prefix ? ruv_gjson_value(c->ast, &c->json) : ruv_gast_never();
	else
		rc = compile_at(c, "items", items, &item);
	if (rc)
		return rc;
	if (n_prefix == 0) {
		*out = item->kind == RUV_G_NEVER ? ruv_gjson_list(c->ast, &c->json, item, min, 0)
		                                 : ruv_gjson_list(c->ast, &c->json, item, min, max);
		return RUV_OK;
	}
	/* the prefix in full, then items */
	ruv_glist parts = {0};

	if (max >= 0 && max < n_prefix)
		n_prefix = max;
	ruv_glist_push(c->ast, &parts, ruv_gast_text(c->ast, "["));
	for (int i = 0; i < n_prefix && !rc; i++) {
		const ruv_gnode *node = NULL;
		char number[24];

		snprintf(number, sizeof number, "%d", i);
		rc = compile_in(c, "prefixItems", number, json_array_get(prefix, (size_t)i), &node);
		if (i)
			ruv_glist_push(c->ast, &parts, ruv_gast_text(c->ast, ","));
		ruv_glist_push(c->ast, &parts, space);
		if (!rc)
			ruv_glist_push(c->ast, &parts, node);
	}
	if (!rc) {
		ruv_glist_push(c->ast, &parts,
		               ruv_gast_repeat(c->ast, RUV_GSEQ(c->ast, ruv_gast_text(c->ast, ","), space, item),
		                               min > n_prefix ? min - n_prefix : 0, max < 0 ? -1 : max - n_prefix));
		ruv_glist_push(c->ast, &parts, space);
		ruv_glist_push(c->ast, &parts, ruv_gast_text(c->ast, "]"));
		*out = ruv_gast_list(c->ast, RUV_G_SEQ, parts.items, parts.n);
	}
	ruv_glist_release(&parts);
	return rc;
}

/* ---- objects ---- */

typedef struct object {
	const ruv_gnode **pairs; /* [n] "name": value */
	const char **names;      /* [n] */
	bool *needed;            /* [n] */
	int n;
	const ruv_gnode *more; /* a pair of another name, or never */
} object;

static const ruv_gnode *pair_of(compiler *c, const ruv_gnode *key, const ruv_gnode *value)
{
	if (value->kind == RUV_G_NEVER)
		return value;
	if (c->call)
		return RUV_GSEQ(c->ast, key, ruv_gast_text(c->ast, "="), value);
	return RUV_GSEQ(c->ast, key, ruv_gast_text(c->ast, ":"), ruv_gjson_space(c->ast, &c->json), value);
}

/* Rules for what may follow the first i pairs when none of them was written, and when one was: of n pairs 2 (n + 1) rules, where a
 * nesting of optional parts would take 2^n. */
static const ruv_gnode *object_tree(compiler *c, const object *o, int min, int max)
{
	ruv_gast *ast = c->ast;
	const ruv_gnode *space = c->call ? ruv_gast_empty() : ruv_gjson_space(ast, &c->json);
	const ruv_gnode *comma = c->call ? ruv_gast_text(ast, ", ") : RUV_GSEQ(ast, ruv_gast_text(ast, ","), space);
	const ruv_gnode *some = ruv_gast_repeat(ast, RUV_GSEQ(ast, comma, o->more), 0, -1), *none;

	if (o->n == 0 && (min > 0 || max >= 0)) {
		none = max == 0 ? ruv_gast_empty()
		                : RUV_GSEQ(ast, o->more,
		                           ruv_gast_repeat(ast, RUV_GSEQ(ast, comma, o->more), min > 0 ? min - 1 : 0,
		                                           max < 0 ? -1 : max - 1));
		if (min == 0)
			none = RUV_GALT(ast, none, ruv_gast_empty());
	} else {
		none = RUV_GALT(ast, RUV_GSEQ(ast, o->more, some), ruv_gast_empty());
	}
	for (int i = o->n - 1; i >= 0 && !ast->failed; i--) {
		const int rule_some = ruv_gast_rule(ast, "object"), rule_none = ruv_gast_rule(ast, "object");
		const ruv_gnode *with = RUV_GSEQ(ast, o->pairs[i], some);

		if (ast->failed)
			break;
		ast->rules[rule_none].node = o->needed[i] ? with : RUV_GALT(ast, with, none);
		ast->rules[rule_some].node =
		    o->needed[i] ? RUV_GSEQ(ast, comma, with) : RUV_GALT(ast, RUV_GSEQ(ast, comma, with), some);
		none = ruv_gast_ref(ast, rule_none);
		some = ruv_gast_ref(ast, rule_some);
	}
	return RUV_GSEQ(ast, ruv_gast_text(ast, c->call ? "(" : "{"), space, none, space, ruv_gast_text(ast, c->call ? ")" : "}"));
}

static int read_pairs(compiler *c, const json_t *schema, object *o)
{
	const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
	const json_t *more = json_object_get(schema, "additionalProperties");
	json_t *value;
	const char *key;
	size_t i;
	int rc = RUV_OK;

	json_object_foreach((json_t *)properties, key, value)
	{
		const ruv_gnode *node = NULL;
		json_t *name = json_string(key);
		const ruv_gnode *literal;
		const bool call = c->call;

		c->call = false;
		rc = name ? compile_in(c, "properties", key, value, &node) : ruv_fail_memory(c->err, "grammar", 64);
		c->call = call;
		if (rc) {
			json_decref(name);
			return rc;
		}
		literal = call ? ruv_gast_text(c->ast, key) : ruv_gjson_literal(c->ast, name);
		o->needed[o->n] = contains(required, name);
		o->names[o->n] = key;
		o->pairs[o->n++] = pair_of(c, literal, node);
		json_decref(name);
	}
	json_array_foreach((json_t *)required, i, value)
	{
		const ruv_gnode *node = NULL;

		key = json_string_value(value);
		if (!key)
			return fail(c, RUV_EFORMAT, "%s", "\"required\" must be a list of names");
		if (json_object_get(properties, key))
			continue;
		if (more ? json_is_false(more) : json_object_size(properties) > 0)
			return fail(c, RUV_EFORMAT, "the property \"%.100s\" is required, but not among \"properties\"", key);
		rc = json_is_object(more) ? compile_at(c, "additionalProperties", more, &node) : RUV_OK;
		if (rc)
			return rc;
		o->needed[o->n] = true;
		o->names[o->n] = key;
		o->pairs[o->n++] = pair_of(c, ruv_gjson_literal(c->ast, value), node ? node : ruv_gjson_value(c->ast, &c->json));
	}
	return RUV_OK;
}

static int compile_object(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
	const json_t *more = json_object_get(schema, "additionalProperties"), *keys = json_object_get(schema, "propertyNames");
	const size_t n = json_object_size(properties) + json_array_size(required);
	object o = {.more = ruv_gast_never()};
	const ruv_gnode *value = NULL, *key = NULL;
	int min = 0, max = -1, n_needed = 0, rc;

	if ((rc = read_count(c, schema, "minProperties", &min)) || (rc = read_count(c, schema, "maxProperties", &max)))
		return rc;
	if (properties && !json_is_object(properties))
		return fail(c, RUV_EFORMAT, "%s", "\"properties\" must be an object");
	if (required && !json_is_array(required) && !json_is_boolean(required))
		return fail(c, RUV_EFORMAT, "%s", "\"required\" must be a list of names");
	if (n > MAX_PROPERTIES)
		return fail(c, RUV_ELIMIT, "%s", "an object with more than 2000 properties");
	if (n == 0 && (!more || json_is_true(more)) && !keys && min == 0 && max < 0) {
		*out = ruv_gjson_any_object(c->ast, &c->json);
		return RUV_OK;
	}
	o.pairs = calloc(n + 1, sizeof *o.pairs);
	o.names = calloc(n + 1, sizeof *o.names);
	o.needed = calloc(n + 1, sizeof *o.needed);
	rc = o.pairs && o.names && o.needed ? read_pairs(c, schema, &o) : ruv_fail_memory(c->err, "grammar", n * 24);
	if (rc)
		goto done;
	for (int i = 0; i < o.n; i++)
		n_needed += o.needed[i];
	if (more ? !json_is_false(more) : json_object_size(properties) == 0) {
		if (json_is_object(more))
			rc = compile_at(c, "additionalProperties", more, &value);
		else
			value = ruv_gjson_value(c->ast, &c->json);
		if (!rc && keys && o.n)
			rc = fail(c, RUV_EUNSUPPORTED, "%s", "\"propertyNames\" beside \"properties\" is not supported");
		if (!rc && keys) {
			json_t *names = json_is_object(keys) ? json_copy((json_t *)keys) : json_object();

			if (names && !json_object_get(names, "type"))
				json_object_set_new(names, "type", json_string("string"));
			rc = compile_at(c, "propertyNames", names, &key);
			json_decref(names);
		} else if (!rc) {
			key = ruv_gjson_other_string(c->ast, &c->json, o.names, o.n);
		}
		if (rc)
			goto done;
		o.more = pair_of(c, key, value);
	}
	if (o.n > 0 && (min > n_needed || (max >= 0 && (max < o.n || o.more->kind != RUV_G_NEVER)))) {
		rc = fail(c, RUV_EUNSUPPORTED, "%s",
		          "\"minProperties\" and \"maxProperties\" beside \"properties\" are not supported");
		goto done;
	}
	*out = object_tree(c, &o, min, max);
done:
	free(o.pairs);
	free(o.names);
	free(o.needed);
	return rc;
}

/* ---- any schema ---- */

static int compile_type(compiler *c, const json_t *schema, const char *type, const ruv_gnode **out)
{
	if (!strcmp(type, "object"))
		return compile_object(c, schema, out);
	if (!strcmp(type, "array"))
		return compile_array(c, schema, out);
	if (!strcmp(type, "string"))
		return compile_string(c, schema, out);
	if (!strcmp(type, "integer") || !strcmp(type, "number"))
		return compile_number(c, schema, !strcmp(type, "integer"), out);
	if (!strcmp(type, "boolean"))
		*out = ruv_gjson_boolean(c->ast, &c->json);
	else if (!strcmp(type, "null"))
		*out = ruv_gast_text(c->ast, "null");
	else
		return fail(c, RUV_EFORMAT, "\"%.60s\" is no type", type);
	return RUV_OK;
}

static int compile_types(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	const json_t *type = json_object_get(schema, "type");
	ruv_glist nodes = {0};
	json_t *item;
	size_t i;
	int rc = RUV_OK;

	if (json_is_string(type))
		return compile_type(c, schema, json_string_value(type), out);
	if (type && !json_is_array(type))
		return fail(c, RUV_EFORMAT, "%s", "\"type\" must be a string or a list of strings");
	if (!type) {
		if (has_kind(schema, OBJECT))
			return compile_object(c, schema, out);
		if (has_kind(schema, ARRAY))
			return compile_array(c, schema, out);
		if (has_kind(schema, STRING))
			return compile_string(c, schema, out);
		if (has_kind(schema, NUMBER))
			return compile_number(c, schema, false, out);
		*out = ruv_gjson_value(c->ast, &c->json);
		return RUV_OK;
	}
	json_array_foreach((json_t *)type, i, item)
	{
		const ruv_gnode *node = NULL;

		if (!json_is_string(item))
			rc = fail(c, RUV_EFORMAT, "%s", "\"type\" must be a string or a list of strings");
		else
			rc = compile_type(c, schema, json_string_value(item), &node);
		if (rc)
			break;
		ruv_glist_push(c->ast, &nodes, node);
	}
	if (!rc)
		*out = ruv_gast_list(c->ast, RUV_G_ALT, nodes.items, nodes.n);
	ruv_glist_release(&nodes);
	return rc;
}

static int compile_some(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	int rc = check_keywords(c, schema);

	if (rc)
		return rc;
	if (json_object_get(schema, "$ref")) {
		json_t *merged;
		bool never = false;

		if (json_object_size(schema) == 1)
			return compile_ref(c, schema, out);
		merged = json_copy((json_t *)schema);
		if (!merged)
			return ruv_fail_memory(c->err, "grammar", 64);
		json_object_del(merged, "$ref");
		if (!has_kind(merged, ~NOTE)) {
			json_decref(merged);
			return compile_ref(c, schema, out);
		}
		json_t *only = json_pack("{s:O}", "$ref", json_object_get(schema, "$ref"));

		rc = merge_part(c, merged, only, &never);
		json_decref(only);
		if (!rc && !never)
			rc = compile(c, merged, out);
		if (!rc && never)
			*out = ruv_gast_never();
		json_decref(merged);
		return rc;
	}
	if (json_object_get(schema, "allOf"))
		return compile_all(c, schema, out);
	if (json_object_get(schema, "anyOf"))
		return compile_branches(c, schema, "anyOf", out);
	if (json_object_get(schema, "oneOf"))
		return compile_branches(c, schema, "oneOf", out);
	if (json_object_get(schema, "const") || json_object_get(schema, "enum"))
		return compile_constants(c, schema, out);
	return compile_types(c, schema, out);
}

static int compile(compiler *c, const json_t *schema, const ruv_gnode **out)
{
	int rc;

	*out = ruv_gast_never();
	if (json_is_boolean(schema)) {
		if (json_is_true(schema))
			*out = ruv_gjson_value(c->ast, &c->json);
		return RUV_OK;
	}
	if (!json_is_object(schema))
		return fail(c, RUV_EFORMAT, "%s", "a schema must be an object, true or false");
	if (c->ast->failed)
		return ruv_gast_check(c->ast, c->err);
	if (++c->depth > RUV_GRAMMAR_MAX_DEPTH)
		return fail(c, RUV_ELIMIT, "%s", "the schema is nested too deeply");
	rc = compile_some(c, schema, out);
	c->depth--;
	return rc;
}

static int start(compiler **out, ruv_gast *ast, const json_t *schema, ruv_error *err)
{
	compiler *c = calloc(1, sizeof *c);

	*out = c;
	if (!c)
		return ruv_fail_memory(err, "grammar", sizeof *c);
	c->ast = ast;
	c->root = schema;
	c->err = err;
	ruv_gjson_init(&c->json);
	ruv_buf_init(&c->path, 1 << 16);
	ruv_buf_puts(&c->path, "#");
	return RUV_OK;
}

static int finish(compiler *c, int rc)
{
	if (!rc)
		rc = ruv_gast_check(c->ast, c->err);
	ruv_buf_release(&c->path);
	free(c);
	return rc;
}

int ruv_schema_compile(ruv_gast *ast, const json_t *schema, const ruv_gnode **out, ruv_error *err)
{
	compiler *c;
	int rc = start(&c, ast, schema, err);

	*out = ruv_gast_never();
	return rc ? rc : finish(c, compile(c, schema, out));
}

/* As a call's reader takes them: letters, digits and "_", not a digit first. */
static bool is_identifier(const char *name)
{
	if (!*name || (*name >= '0' && *name <= '9'))
		return false;
	for (; *name; name++)
		if (!((*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') || (*name >= '0' && *name <= '9') ||
		      *name == '_'))
			return false;
	return true;
}

int ruv_schema_arguments(ruv_gast *ast, const json_t *schema, const ruv_gnode **out, ruv_error *err)
{
	const json_t *more = json_object_get(schema, "additionalProperties");
	json_t *plain, *value;
	const char *key;
	compiler *c;
	int rc;

	*out = ruv_gast_never();
	json_object_foreach((json_t *)schema, key, value)
	{
		const int kind = kind_of(key);

		if (kind != NOTE && strcmp(key, "type") && strcmp(key, "properties") && strcmp(key, "required") &&
		    strcmp(key, "additionalProperties"))
			return RUV_EMISMATCH;
	}
	json_object_foreach(json_object_get(schema, "properties"), key, value) if (!is_identifier(key)) return RUV_EMISMATCH;
	if (json_is_object(more) && json_object_size(more))
		return RUV_EMISMATCH;
	rc = start(&c, ast, schema, err);
	if (rc)
		return rc;
	plain = json_copy((json_t *)schema);
	if (!plain)
		return finish(c, ruv_fail_memory(err, "grammar", 64));
	json_object_set_new(plain, "additionalProperties", json_false());
	c->call = true;
	rc = finish(c, compile_object(c, plain, out));
	json_decref(plain);
	return rc;
}

/* grammar_ast.h - a grammar as a tree: what the GBNF parser and the JSON-schema compiler make, and the automaton is made from.
 *
 * Nodes live in the tree's arena and may be shared. Builders never return NULL: when memory is out or a limit is passed, the tree
 * is `failed` and they give the empty node, so that a writer checks once at the end. Threads: one at a time. Layer: infer. */
#ifndef RUV_INFER_GRAMMAR_AST_H
#define RUV_INFER_GRAMMAR_AST_H

#include <jansson.h>

#include "base/arena.h"
#include "ruvllm/types.h"
#include "text/vocab.h"

enum {
	RUV_GRAMMAR_MAX_TEXT = 1 << 20,
	RUV_GRAMMAR_MAX_DEPTH = 200,
	RUV_GRAMMAR_MAX_NODES = 1000000,
	RUV_GRAMMAR_MAX_RULES = 20000,
	RUV_GRAMMAR_MAX_REPEAT = 100000
};

typedef enum ruv_gkind {
	RUV_G_EMPTY,  /* the empty text */
	RUV_G_NEVER,  /* no text at all */
	RUV_G_BYTES,  /* this text */
	RUV_G_CHARS,  /* one code point of the ranges, as UTF-8 */
	RUV_G_TOKEN,  /* one token, whatever its text */
	RUV_G_REF,    /* a rule */
	RUV_G_SEQ,    /* all of the items, one after the other */
	RUV_G_ALT,    /* one of the items */
	RUV_G_REPEAT, /* the child min to max times */
} ruv_gkind;

typedef struct ruv_grange {
	uint32_t low, high; /* code points, both included */
} ruv_grange;

typedef struct ruv_gnode {
	ruv_gkind kind;
	int n;             /* bytes, ranges, items; the token's id; the rule's number */
	int min, max;      /* of REPEAT; max -1: no limit */
	int depth;         /* nesting below it */
	int64_t n_states;  /* about what it takes */
	const void *items; /* char [n], ruv_grange [n] ascending and apart, ruv_gnode *[n]; ruv_gnode of REPEAT */
} ruv_gnode;

typedef struct ruv_grule {
	const char *name;
	const ruv_gnode *node; /* NULL: not defined yet */
} ruv_grule;

typedef struct ruv_gast {
	ruv_arena arena;
	ruv_grule *rules; /* [n_rules] */
	int n_rules, cap_rules;
	int root;
	int n_nodes;
	int failed; /* RUV_OK, RUV_ENOMEM, RUV_ELIMIT */
} ruv_gast;

void ruv_gast_init(ruv_gast *ast);
void ruv_gast_release(ruv_gast *ast);
/* RUV_OK, or why building failed, as a sentence. */
int ruv_gast_check(const ruv_gast *ast, ruv_error *err);

const ruv_gnode *ruv_gast_empty(void);
const ruv_gnode *ruv_gast_never(void);
const ruv_gnode *ruv_gast_bytes(ruv_gast *ast, const char *bytes, size_t n);
const ruv_gnode *ruv_gast_text(ruv_gast *ast, const char *text);
/* Any ranges, sorted and joined here; `complement`: all other code points (surrogates are never among them). */
const ruv_gnode *ruv_gast_chars(ruv_gast *ast, const ruv_grange *ranges, int n, bool complement);
const ruv_gnode *ruv_gast_token(ruv_gast *ast, ruv_token token);
const ruv_gnode *ruv_gast_ref(ruv_gast *ast, int rule);
/* RUV_G_SEQ or RUV_G_ALT of items [n], copied. */
const ruv_gnode *ruv_gast_list(ruv_gast *ast, ruv_gkind kind, const ruv_gnode *const *items, int n);
const ruv_gnode *ruv_gast_repeat(ruv_gast *ast, const ruv_gnode *child, int min, int max);

#define RUV_GSEQ(ast, ...)                                                                                                         \
	ruv_gast_list(ast, RUV_G_SEQ, (const ruv_gnode *const[]){__VA_ARGS__},                                                     \
	              (int)(sizeof((const ruv_gnode *const[]){__VA_ARGS__}) / sizeof(const ruv_gnode *)))
#define RUV_GALT(ast, ...)                                                                                                         \
	ruv_gast_list(ast, RUV_G_ALT, (const ruv_gnode *const[]){__VA_ARGS__},                                                     \
	              (int)(sizeof((const ruv_gnode *const[]){__VA_ARGS__}) / sizeof(const ruv_gnode *)))

/* A new rule, defined by setting rules[i].node. The name is copied. */
int ruv_gast_rule(ruv_gast *ast, const char *name);

/* A growable list of nodes; zeroed is empty. */
typedef struct ruv_glist {
	const ruv_gnode **items;
	int n, cap;
} ruv_glist;
void ruv_glist_push(ruv_gast *ast, ruv_glist *list, const ruv_gnode *node);
void ruv_glist_release(ruv_glist *list);

/* ---- what makes trees ---- */

/* GBNF. vocab (NULL: none) names the tokens of <name>. */
int ruv_gbnf_parse(ruv_gast *ast, const char *text, size_t n_bytes, const ruv_vocab *vocab, ruv_error *err);
/* A JSON schema: the node of all texts that follow it. Rules that it needs are added. Several schemas may go into one tree. */
int ruv_schema_compile(ruv_gast *ast, const json_t *schema, const ruv_gnode **out, ruv_error *err);
/* Keyword arguments of a call, "(name=value, ...)", whose object follows the schema; values are JSON. RUV_EMISMATCH, without a
 * message, when the schema is none that can be written so (names that are no names, keywords beside properties and required). */
int ruv_schema_arguments(ruv_gast *ast, const json_t *schema, const ruv_gnode **out, ruv_error *err);
/* Any JSON object. */
const ruv_gnode *ruv_gjson_object(ruv_gast *ast);

/* ---- pieces of JSON (grammar_json.c) ---- */

/* The rules that JSON shares, made when first needed; zeroed with rules -1: ruv_gjson_init. */
typedef struct ruv_gjson {
	int value, object, array, string, number, integer, space, character, boolean;
} ruv_gjson;

void ruv_gjson_init(ruv_gjson *json);
const ruv_gnode *ruv_gjson_value(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_any_object(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_any_array(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_string(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_number(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_integer(ruv_gast *ast, ruv_gjson *json);
const ruv_gnode *ruv_gjson_boolean(ruv_gast *ast, ruv_gjson *json);
/* White space where JSON allows it: nothing, a space, or a new line and up to 16 spaces; a model cannot go on with it for ever. */
const ruv_gnode *ruv_gjson_space(ruv_gast *ast, ruv_gjson *json);
/* One character inside a string, escaped where it must be. */
const ruv_gnode *ruv_gjson_char(ruv_gast *ast, ruv_gjson *json);
/* "[" item ("," item)* "]" with min to max items (-1: no limit). */
const ruv_gnode *ruv_gjson_list(ruv_gast *ast, ruv_gjson *json, const ruv_gnode *item, int min, int max);
/* The code points of the ranges as they stand in a JSON string. */
const ruv_gnode *ruv_gjson_chars(ruv_gast *ast, const ruv_grange *ranges, int n, bool complement);
/* This value, written compactly. */
const ruv_gnode *ruv_gjson_literal(ruv_gast *ast, const json_t *value);
/* A string between quotes that is none of names [n]. */
const ruv_gnode *ruv_gjson_other_string(ruv_gast *ast, ruv_gjson *json, const char *const *names, int n);
/* Whole numbers of low..high; has_low, has_high: is there a bound? */
const ruv_gnode *ruv_gjson_integer_range(ruv_gast *ast, bool has_low, int64_t low, bool has_high, int64_t high);
/* Numbers of low..high, written without exponent; the bounds themselves unless exclusive. NULL bound: none. The bounds are decimal
 * numbers as text ("-12.5"). */
const ruv_gnode *ruv_gjson_number_range(ruv_gast *ast, const char *low, bool low_exclusive, const char *high, bool high_exclusive);

/* A regular expression (ECMA 262's subset, see grammar_pattern.c) as what may stand between a JSON string's quotes. */
int ruv_gjson_pattern(ruv_gast *ast, const char *pattern, const ruv_gnode **out, ruv_error *err);

#endif

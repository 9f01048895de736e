/* jinja.h - the subset of Jinja that chat templates are written in: values, syntax tree, interpreter. Private to the text layer.
 *
 * Statements   if elif else, for (unpacking, inline if, else, break, continue), set (also ns.x = ..., a, b = ..., set ... endset),
 *              macro (defaults, caller), call, do, raw, generation (transparent)
 * Expressions  literals, lists, tuples, dicts; . [] slices calls; + - * / // % ** ~; == != < <= > >= in, not in (chains); and or
 * not; x if c else y; filters; tests Functions    namespace dict range raise_exception strftime_now; loop.index index0 revindex
 * revindex0 first last length previtem nextitem depth depth0 cycle changed Filters, tests and methods are listed in
 * jinja_builtins.c. trim_blocks and lstrip_blocks are on, no autoescape, one line end at the template's end is dropped; like
 * transformers. Differences: no tuples of their own (lists), no string formatting, no inheritance or includes, methods cannot be
 * taken without a call.
 *
 * Every string knows which of its bytes the template wrote (`trusted` spans); all operations carry the spans along. Concatenation
 * makes a rope, which is flattened when its bytes are needed, so that building a prompt piece by piece stays linear.
 *
 * Limits of one rendering: steps (a step is one node, or 64 bytes worked on), memory, nesting, output. Threads: a template is
 * immutable. */
#ifndef RUV_TEXT_JINJA_H
#define RUV_TEXT_JINJA_H

#include <jansson.h>

#include "base/arena.h"
#include "base/buf.h"
#include "ruvllm/types.h"
#include "text/vocab.h"

enum {
	JINJA_MAX_SOURCE = 1 << 20,
	JINJA_MAX_NESTING = 100, /* of statements and expressions in the source */
	JINJA_MAX_DEPTH = 600,   /* of the evaluation, macros included */
	JINJA_MAX_ARGS = 24,
	JINJA_MAX_RANGE = 100000,
	JINJA_MAX_STEPS = 5000000,
	JINJA_MAX_MEMORY = 128 << 20
};

/* ---- values ---- */

typedef enum jinja_type {
	JINJA_UNDEFINED, /* s: what was looked for, for the message; may be NULL */
	JINJA_NONE,
	JINJA_BOOL,
	JINJA_INT,
	JINJA_FLOAT,
	JINJA_STRING,
	JINJA_LIST,
	JINJA_DICT,
	JINJA_MACRO,
	JINJA_FUNCTION, /* i: JINJA_FN_* */
	JINJA_LOOP
} jinja_type;

typedef struct jinja_string {
	const char *data; /* [len] and a NUL; NULL: a rope of left and right */
	size_t len;
	const ruv_span *trusted; /* [n_trusted] ascending, apart */
	size_t n_trusted;
	struct jinja_string *left, *right;
} jinja_string;

typedef struct jinja_value {
	jinja_type type;
	union {
		bool b;
		int64_t i;
		double f;
		jinja_string *s;
		struct jinja_list *l;
		struct jinja_dict *d;
		struct jinja_macro *m;
		struct jinja_loop *loop;
	};
} jinja_value;

typedef struct jinja_list {
	jinja_value *items; /* [n] */
	size_t n, cap;
} jinja_list;

typedef struct jinja_dict {
	jinja_value *keys, *values; /* [n] in order of insertion */
	size_t n, cap;
	bool is_namespace;
} jinja_dict;

typedef struct jinja_scope {
	struct jinja_scope *parent;
	const char **names;
	jinja_value *values;
	size_t n, cap;
} jinja_scope;

typedef struct jinja_macro {
	const struct jinja_node *node;
	jinja_scope *closure;
} jinja_macro;

typedef struct jinja_loop {
	size_t index0, length;
	int depth;
	const jinja_value *items;
	jinja_value changed; /* what loop.changed() saw last */
	bool has_changed;
} jinja_loop;

enum { JINJA_FN_NAMESPACE, JINJA_FN_DICT, JINJA_FN_RANGE, JINJA_FN_RAISE, JINJA_FN_STRFTIME };

/* ---- syntax tree ---- */

typedef enum jinja_kind {
	/* statements */
	N_BLOCK,      /* items */
	N_TEXT,       /* value */
	N_OUTPUT,     /* a */
	N_IF,         /* items: condition, body, condition, body, ..., [else body] */
	N_FOR,        /* names: targets; a: iterable, b: condition or NULL, c: body, d: else or NULL */
	N_SET,        /* names: targets, or name.attribute in name, names[0] with op 1; a: value, or c: body */
	N_MACRO,      /* name, names: parameters, items: their defaults or NULL; c: body */
	N_CALL_BLOCK, /* a: the call; names, items: the caller's parameters; c: body */
	N_DO,         /* a */
	N_BREAK,
	N_CONTINUE,
	/* expressions */
	N_LITERAL, /* value */
	N_NAME,    /* name */
	N_LIST,    /* items */
	N_DICT,    /* items: key, value, ... */
	N_ATTR,    /* a.name */
	N_INDEX,   /* a[b] */
	N_SLICE,   /* a[b:c:d] */
	N_CALL,    /* a(items); names[i] is the keyword or NULL */
	N_FILTER,  /* a | name(items) */
	N_TEST,    /* a is name(items); op 1: is not */
	N_NOT,     /* not a */
	N_NEGATE,  /* -a */
	N_PLUS,    /* +a */
	N_BINARY,  /* a op b */
	N_COMPARE, /* a, then items[i] by ops in names[i][0] */
	N_AND,
	N_OR,
	N_TERNARY /* b if a else c */
} jinja_kind;

typedef struct jinja_node {
	jinja_kind kind;
	int op; /* of N_BINARY: '+', '-', '*', '/', 'f' (//), '%', '^' (**), '~' */
	int line, column;
	const char *name;
	jinja_value value;
	struct jinja_node *a, *b, *c, *d;
	struct jinja_node **items;
	const char **names;
	size_t n_items, n_names;
} jinja_node;

typedef struct jinja_template {
	ruv_arena arena;
	jinja_node *root;
} jinja_template;

/* Syntax errors are RUV_EFORMAT with line and column. */
int ruv_jinja_parse(jinja_template *tmpl, const char *source, size_t n_bytes, ruv_error *err);
void ruv_jinja_release(jinja_template *tmpl);

/* ---- interpreter ---- */

/* Output, or a string that is being made. */
typedef struct jinja_builder {
	ruv_buf text;
	ruv_span *spans;
	size_t n_spans, cap_spans;
} jinja_builder;

typedef struct jinja_interp {
	ruv_arena arena;
	ruv_error *err;
	size_t n_steps, max_output;
	int alloc_status; /* of the ruv_jinja_alloc that failed */
	int depth, loop_depth;
	enum { FLOW_NORMAL, FLOW_BREAK, FLOW_CONTINUE } flow;
	jinja_builder *out;
	jinja_scope *globals;
	const jinja_node *at; /* for messages */
	int64_t now_s;
} jinja_interp;

/* Zeroes and prepares; the globals hold the functions. */
int ruv_jinja_interp_init(jinja_interp *in, size_t max_output, ruv_error *err);
void ruv_jinja_interp_release(jinja_interp *in);
/* Renders into `out` (zeroed; release it in any case). */
int ruv_jinja_run(jinja_interp *in, const jinja_template *tmpl, jinja_builder *out);

/* What the interpreter's files share. All return a status; a failure has filled in->err. */
int ruv_jinja_fail(jinja_interp *in, int code, const char *fmt, ...) RUV_PRINTF(3, 4);
void *ruv_jinja_alloc(jinja_interp *in, size_t n_bytes); /* NULL: failed with in->alloc_status */
int ruv_jinja_charge(jinja_interp *in, size_t n_steps);
int ruv_jinja_set(jinja_interp *in, jinja_scope *scope, const char *name, jinja_value value);
int ruv_jinja_eval(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out);

void ruv_jinja_builder_init(jinja_builder *b, size_t max_bytes);
void ruv_jinja_builder_release(jinja_builder *b);
int ruv_jinja_put(jinja_interp *in, jinja_builder *b, const char *data, size_t len, bool trusted);
/* Bytes [from, to) of s with their marks. */
int ruv_jinja_put_slice(jinja_interp *in, jinja_builder *b, jinja_string *s, size_t from, size_t to);
/* What {{ value }} prints. */
int ruv_jinja_put_value(jinja_interp *in, jinja_builder *b, jinja_value v);
/* Python's repr(). */
int ruv_jinja_put_repr(jinja_interp *in, jinja_builder *b, jinja_value v, int depth);
/* json.dumps(): indent < 0: on one line. */
int ruv_jinja_put_json(jinja_interp *in, jinja_builder *b, jinja_value v, int indent, bool sort_keys, int depth);
int ruv_jinja_builder_value(jinja_interp *in, jinja_builder *b, jinja_value *out);

int ruv_jinja_flatten(jinja_interp *in, jinja_string *s);
int ruv_jinja_new_string(jinja_interp *in, const char *data, size_t len, bool trusted, jinja_value *out);
/* Bytes [from, to) as a string of its own. */
int ruv_jinja_slice(jinja_interp *in, jinja_string *s, size_t from, size_t to, jinja_value *out);
int ruv_jinja_concat(jinja_interp *in, jinja_string *left, jinja_string *right, jinja_value *out);
int ruv_jinja_new_list(jinja_interp *in, size_t cap, jinja_value *out);
int ruv_jinja_list_push(jinja_interp *in, jinja_list *l, jinja_value v);
int ruv_jinja_new_dict(jinja_interp *in, jinja_value *out);
int ruv_jinja_dict_set(jinja_interp *in, jinja_dict *d, jinja_value key, jinja_value v);
/* NULL: not there. */
const jinja_value *ruv_jinja_dict_get(const jinja_dict *d, const char *key, size_t len);
int ruv_jinja_from_json(jinja_interp *in, const json_t *json, int depth, jinja_value *out);

bool ruv_jinja_truth(jinja_value v);
int ruv_jinja_equal(jinja_interp *in, jinja_value a, jinja_value b, int depth, bool *equal);
/* -1, 0, 1 of numbers, strings or lists; others fail. */
int ruv_jinja_order(jinja_interp *in, jinja_value a, jinja_value b, int *order);
int ruv_jinja_contains(jinja_interp *in, jinja_value container, jinja_value item, bool *found);
/* The values that a for loop sees. */
int ruv_jinja_iterate(jinja_interp *in, jinja_value v, jinja_list **items);
const char *ruv_jinja_type_name(jinja_value v);
/* value.name as a template sees it: item of a dict, field of a loop; undefined when there is none. */
int ruv_jinja_attribute(jinja_interp *in, jinja_value v, const char *name, jinja_value *out);
/* value[key]. */
int ruv_jinja_item(jinja_interp *in, jinja_value v, jinja_value key, jinja_value *out);

/* Evaluated arguments of a filter, test, method or function. */
typedef struct jinja_args {
	jinja_value v[JINJA_MAX_ARGS];
	const char *name[JINJA_MAX_ARGS]; /* NULL: by position; those stand first */
	size_t n, n_positional;
} jinja_args;

/* Argument `i` or the one named `name`; NULL when it was not given. */
const jinja_value *ruv_jinja_arg(const jinja_args *args, size_t i, const char *name);
int ruv_jinja_filter(jinja_interp *in, const char *name, jinja_value v, const jinja_args *args, jinja_value *out);
int ruv_jinja_test(jinja_interp *in, const char *name, jinja_value v, const jinja_args *args, bool *out);
/* RUV_ENOTFOUND (without a message) when values of this type have no such method. */
int ruv_jinja_method(jinja_interp *in, jinja_value v, const char *name, const jinja_args *args, jinja_value *out);
int ruv_jinja_function(jinja_interp *in, int64_t fn, const jinja_args *args, jinja_value *out);
bool ruv_jinja_is_method(jinja_value v, const char *name);
bool ruv_jinja_is_filter(const char *name);
bool ruv_jinja_is_test(const char *name);

#endif

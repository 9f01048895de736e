/* ruv_jinja_eval.c - the interpreter of jinja.h: scopes, statements, expressions.
 *
 * Scopes as in Jinja: a loop's body and a macro have their own, if has none; an assignment in a loop ends with its round. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/jinja.h"
#include "text/unicode.h"

static int run(jinja_interp *in, jinja_scope *scope, const jinja_node *node);

/* ---- scopes ---- */

static int scope_new(jinja_interp *in, jinja_scope *parent, jinja_scope **out)
{
	jinja_scope *scope = ruv_jinja_alloc(in, sizeof *scope);

	if (!scope)
		return in->alloc_status;
	memset(scope, 0, sizeof *scope);
	scope->parent = parent;
	*out = scope;
	return RUV_OK;
}

int ruv_jinja_set(jinja_interp *in, jinja_scope *scope, const char *name, jinja_value value)
{
	size_t i;

	for (i = 0; i < scope->n; i++)
		if (strcmp(scope->names[i], name) == 0) {
			scope->values[i] = value;
			return RUV_OK;
		}
	if (scope->n == scope->cap) {
		size_t cap = scope->cap ? 2 * scope->cap : 8;
		const char **names = ruv_jinja_alloc(in, cap * sizeof *names);
		jinja_value *values = names ? ruv_jinja_alloc(in, cap * sizeof *values) : NULL;
		if (!values)
			return in->alloc_status;
		if (scope->n) {
			memcpy(names, scope->names, scope->n * sizeof *names);
			memcpy(values, scope->values, scope->n * sizeof *values);
		}
		scope->names = names;
		scope->values = values;
		scope->cap = cap;
	}
	scope->names[scope->n] = name;
	scope->values[scope->n++] = value;
	return RUV_OK;
}

/* An undefined value that knows its name. */
static int undefined(jinja_interp *in, const char *name, jinja_value *out)
{
	int rc = ruv_jinja_new_string(in, name, strlen(name), false, out);
	out->type = JINJA_UNDEFINED;
	return rc;
}

static int lookup(jinja_interp *in, const jinja_scope *scope, const char *name, jinja_value *out)
{
	size_t i;

	for (; scope; scope = scope->parent)
		for (i = 0; i < scope->n; i++)
			if (strcmp(scope->names[i], name) == 0) {
				*out = scope->values[i];
				return RUV_OK;
			}
	return undefined(in, name, out);
}

int ruv_jinja_interp_init(jinja_interp *in, size_t max_output, ruv_error *err)
{
	static const char *const names[] = {"namespace", "dict", "range", "raise_exception", "strftime_now"};
	int i, rc;

	memset(in, 0, sizeof *in);
	ruv_arena_init(&in->arena);
	in->max_output = max_output;
	in->err = err;
	rc = scope_new(in, NULL, &in->globals);
	for (i = 0; rc == RUV_OK && i < 5; i++)
		rc = ruv_jinja_set(in, in->globals, names[i], (jinja_value){.type = JINJA_FUNCTION, .i = i});
	return rc;
}

void ruv_jinja_interp_release(jinja_interp *in)
{
	ruv_arena_release(&in->arena);
}

/* ---- access ---- */

int ruv_jinja_attribute(jinja_interp *in, jinja_value v, const char *name, jinja_value *out)
{
	const jinja_value *found;
	const jinja_loop *loop;

	if (v.type == JINJA_UNDEFINED)
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined, so it has no '%s'", v.s ? v.s->data : "?", name);
	if (ruv_jinja_is_method(v, name))
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "method '%s' can only be called", name);
	if (v.type == JINJA_DICT) {
		found = ruv_jinja_dict_get(v.d, name, strlen(name));
		if (found) {
			*out = *found;
			return RUV_OK;
		}
	} else if (v.type == JINJA_LOOP) {
		int64_t number = -1;
		loop = v.loop;
		if (strcmp(name, "index0") == 0)
			number = (int64_t)loop->index0;
		else if (strcmp(name, "index") == 0)
			number = (int64_t)loop->index0 + 1;
		else if (strcmp(name, "revindex0") == 0)
			number = (int64_t)(loop->length - loop->index0) - 1;
		else if (strcmp(name, "revindex") == 0)
			number = (int64_t)(loop->length - loop->index0);
		else if (strcmp(name, "length") == 0)
			number = (int64_t)loop->length;
		else if (strcmp(name, "depth") == 0)
			number = loop->depth;
		else if (strcmp(name, "depth0") == 0)
			number = loop->depth - 1;
		if (number >= 0) {
			*out = (jinja_value){.type = JINJA_INT, .i = number};
			return RUV_OK;
		}
		if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0) {
			*out = (jinja_value){.type = JINJA_BOOL,
			                     .b = name[0] == 'f' ? loop->index0 == 0 : loop->index0 + 1 == loop->length};
			return RUV_OK;
		}
		if (strcmp(name, "previtem") == 0 && loop->index0 > 0) {
			*out = loop->items[loop->index0 - 1];
			return RUV_OK;
		}
		if (strcmp(name, "nextitem") == 0 && loop->index0 + 1 < loop->length) {
			*out = loop->items[loop->index0 + 1];
			return RUV_OK;
		}
	}
	return undefined(in, name, out);
}

/* Byte position of character `index` of a flat string of n characters. */
static size_t char_offset(const jinja_string *s, int64_t index)
{
	size_t at = 0;

	while (index-- > 0 && at < s->len) {
		int n = ruv_utf8_decode(s->data + at, s->len - at, NULL, NULL, NULL);
		at += n ? (size_t)n : 1;
	}
	return at;
}

int ruv_jinja_item(jinja_interp *in, jinja_value v, jinja_value key, jinja_value *out)
{
	jinja_dict *d;
	size_t i, at;
	int64_t index;
	int rc;

	if (v.type == JINJA_UNDEFINED)
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined, so it has no items", v.s ? v.s->data : "?");
	if (v.type == JINJA_DICT) {
		d = v.d;
		if (key.type == JINJA_STRING) {
			const jinja_value *found;
			rc = ruv_jinja_flatten(in, key.s);
			if (rc)
				return rc;
			found = ruv_jinja_dict_get(d, key.s->data, key.s->len);
			rc = ruv_jinja_charge(in, d->n / 8);
			if (rc)
				return rc;
			if (found) {
				*out = *found;
				return RUV_OK;
			}
			*out = (jinja_value){.type = JINJA_UNDEFINED, .s = key.s};
			return RUV_OK;
		}
		for (i = 0; i < d->n; i++) {
			bool equal;
			rc = ruv_jinja_equal(in, d->keys[i], key, 0, &equal);
			if (rc)
				return rc;
			if (equal) {
				*out = d->values[i];
				return RUV_OK;
			}
		}
		return undefined(in, "item", out);
	}
	if (key.type == JINJA_INT && (v.type == JINJA_LIST || v.type == JINJA_STRING)) {
		int64_t n;
		if (v.type == JINJA_STRING && (rc = ruv_jinja_flatten(in, v.s)))
			return rc;
		n = v.type == JINJA_LIST ? (int64_t)v.l->n : (int64_t)ruv_utf8_length(v.s->data, v.s->len);
		index = key.i < 0 ? key.i + n : key.i;
		if (index < 0 || index >= n)
			return undefined(in, "item", out);
		if (v.type == JINJA_LIST) {
			*out = v.l->items[index];
			return RUV_OK;
		}
		at = char_offset(v.s, index);
		rc = ruv_jinja_charge(in, v.s->len / 64);
		return rc ? rc
		          : ruv_jinja_slice(in, v.s, at,
		                            at + char_offset(&(jinja_string){.data = v.s->data + at, .len = v.s->len - at}, 1),
		                            out);
	}
	if (key.type == JINJA_STRING) {
		rc = ruv_jinja_flatten(in, key.s);
		return rc ? rc : ruv_jinja_attribute(in, v, key.s->data, out);
	}
	return undefined(in, "item", out);
}

static int eval_slice(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	const jinja_node *parts[3] = {node->b, node->c, node->d};
	jinja_value v, bound[3];
	int64_t n, low, high, step = 1, i;
	int k, rc = ruv_jinja_eval(in, scope, node->a, &v);

	for (k = 0; rc == RUV_OK && k < 3; k++) {
		bound[k] = (jinja_value){.type = JINJA_NONE};
		if (parts[k])
			rc = ruv_jinja_eval(in, scope, parts[k], &bound[k]);
		if (rc == RUV_OK && bound[k].type != JINJA_NONE && bound[k].type != JINJA_INT)
			rc = ruv_jinja_fail(in, RUV_EFORMAT, "a slice needs integers, not %s", ruv_jinja_type_name(bound[k]));
	}
	in->at = node;
	if (rc)
		return rc;
	if (bound[2].type == JINJA_INT)
		step = bound[2].i;
	if (step == 0)
		return ruv_jinja_fail(in, RUV_EFORMAT, "a slice's step is 0");
	if (v.type == JINJA_STRING) {
		rc = ruv_jinja_flatten(in, v.s);
		if (rc == RUV_OK)
			rc = ruv_jinja_charge(in, v.s->len / 64);
		if (rc)
			return rc;
		n = (int64_t)ruv_utf8_length(v.s->data, v.s->len);
	} else if (v.type == JINJA_LIST) {
		n = (int64_t)v.l->n;
	} else if (v.type == JINJA_UNDEFINED) {
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined and cannot be sliced", v.s ? v.s->data : "?");
	} else {
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot be sliced", ruv_jinja_type_name(v));
	}
	low = bound[0].type == JINJA_INT ? bound[0].i : step > 0 ? 0 : n - 1;
	high = bound[1].type == JINJA_INT ? bound[1].i : step > 0 ? n : -1;
	if (bound[0].type == JINJA_INT) {
		low += low < 0 ? n : 0;
		low = low < 0 ? (step > 0 ? 0 : -1) : low >= n ? (step > 0 ? n : n - 1) : low;
	}
	if (bound[1].type == JINJA_INT) {
		high += high < 0 ? n : 0;
		high = high < 0 ? (step > 0 ? 0 : -1) : high >= n ? (step > 0 ? n : n - 1) : high;
	}
	if (v.type == JINJA_STRING) {
		size_t from, to;
		if (step != 1)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "slices of strings with a step are not supported");
		from = char_offset(v.s, low);
		to = high > low ? from + char_offset(&(jinja_string){.data = v.s->data + from, .len = v.s->len - from}, high - low)
		                : from;
		return ruv_jinja_slice(in, v.s, from, to, out);
	}
	rc = ruv_jinja_new_list(in, 0, out);
	for (i = low; rc == RUV_OK && (step > 0 ? i < high : i > high);) {
		rc = ruv_jinja_charge(in, 1);
		if (rc == RUV_OK)
			rc = ruv_jinja_list_push(in, out->l, v.l->items[i]);
		if (__builtin_add_overflow(i, step, &i))
			break;
	}
	return rc;
}

/* ---- operators ---- */

static int as_string(jinja_interp *in, jinja_value v, jinja_value *out)
{
	jinja_builder b;
	int rc;

	if (v.type == JINJA_STRING) {
		*out = v;
		return RUV_OK;
	}
	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY);
	rc = ruv_jinja_put_value(in, &b, v);
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int repeat(jinja_interp *in, jinja_value v, int64_t times, jinja_value *out)
{
	int rc = RUV_OK;

	if (v.type == JINJA_LIST) {
		rc = ruv_jinja_new_list(in, 0, out);
		for (; rc == RUV_OK && times > 0; times--) {
			size_t i;
			rc = ruv_jinja_charge(in, v.l->n + 1);
			for (i = 0; rc == RUV_OK && i < v.l->n; i++)
				rc = ruv_jinja_list_push(in, out->l, v.l->items[i]);
		}
		return rc;
	}
	{
		jinja_builder b;
		ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
		for (; rc == RUV_OK && times > 0 && v.s->len > 0; times--) {
			rc = ruv_jinja_charge(in, 1);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_value(in, &b, v);
		}
		if (rc == RUV_OK)
			rc = ruv_jinja_builder_value(in, &b, out);
		ruv_jinja_builder_release(&b);
	}
	return rc;
}

static const char *op_name(int op)
{
	switch (op) {
	case '+':
		return "+";
	case '-':
		return "-";
	case '*':
		return "*";
	case '/':
		return "/";
	case 'f':
		return "//";
	case '%':
		return "%";
	default:
		return "**";
	}
}

static int arithmetic(jinja_interp *in, int op, jinja_value a, jinja_value b, jinja_value *out)
{
	bool floats = a.type == JINJA_FLOAT || b.type == JINJA_FLOAT, over = false;
	int64_t x = a.type == JINJA_BOOL ? a.b : a.i, y = b.type == JINJA_BOOL ? b.b : b.i, r = 0;
	double p = a.type == JINJA_FLOAT ? a.f : (double)x, q = b.type == JINJA_FLOAT ? b.f : (double)y;

	if ((op == '/' || op == 'f' || op == '%') && (floats ? q == 0 : y == 0))
		return ruv_jinja_fail(in, RUV_EFORMAT, "division by zero");
	if (op == '/' || floats || (op == '^' && y < 0)) {
		double f;
		switch (op) {
		case '+':
			f = p + q;
			break;
		case '-':
			f = p - q;
			break;
		case '*':
			f = p * q;
			break;
		case '/':
			f = p / q;
			break;
		case 'f':
			f = floor(p / q);
			break;
		case '%':
			f = fmod(p, q);
			f += f != 0 && (f < 0) != (q < 0) ? q : 0;
			break;
		default:
			f = pow(p, q);
		}
		*out = (jinja_value){.type = JINJA_FLOAT, .f = f};
		return RUV_OK;
	}
	switch (op) {
	case '+':
		over = __builtin_add_overflow(x, y, &r);
		break;
	case '-':
		over = __builtin_sub_overflow(x, y, &r);
		break;
	case '*':
		over = __builtin_mul_overflow(x, y, &r);
		break;
	case 'f':
	case '%':
		if (y == -1) { /* INT64_MIN / -1 does not fit */
			over = op == 'f' && __builtin_sub_overflow((int64_t)0, x, &r);
			break;
		}
		r = op == 'f' ? x / y - (x % y != 0 && (x < 0) != (y < 0)) : x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0);
		break;
	default:
		for (r = 1; y > 0 && !over && r != 0 && !(r == 1 && x == 1); y--) {
			over = __builtin_mul_overflow(r, x, &r);
			if (x == -1 && !over) { /* only the parity matters */
				r = y % 2 ? -1 : 1;
				break;
			}
		}
	}
	if (over)
		return ruv_jinja_fail(in, RUV_ELIMIT, "an integer grows beyond 64 bits");
	*out = (jinja_value){.type = JINJA_INT, .i = r};
	return RUV_OK;
}

static int eval_binary(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	jinja_value a, b, s, t;
	bool numbers;
	size_t i;
	int rc = ruv_jinja_eval(in, scope, node->a, &a);

	if (rc == RUV_OK)
		rc = ruv_jinja_eval(in, scope, node->b, &b);
	if (rc)
		return rc;
	in->at = node;
	if (node->op == '~') {
		if ((rc = as_string(in, a, &s)) || (rc = as_string(in, b, &t)))
			return rc;
		return ruv_jinja_concat(in, s.s, t.s, out);
	}
	numbers = (a.type == JINJA_INT || a.type == JINJA_FLOAT || a.type == JINJA_BOOL) &&
	          (b.type == JINJA_INT || b.type == JINJA_FLOAT || b.type == JINJA_BOOL);
	if (numbers)
		return arithmetic(in, node->op, a, b, out);
	if (node->op == '+' && a.type == JINJA_STRING && b.type == JINJA_STRING)
		return ruv_jinja_concat(in, a.s, b.s, out);
	if (node->op == '+' && a.type == JINJA_LIST && b.type == JINJA_LIST) {
		rc = ruv_jinja_charge(in, (a.l->n + b.l->n) / 8);
		if (rc == RUV_OK)
			rc = ruv_jinja_new_list(in, a.l->n + b.l->n, out);
		for (i = 0; rc == RUV_OK && i < a.l->n + b.l->n; i++)
			rc = ruv_jinja_list_push(in, out->l, i < a.l->n ? a.l->items[i] : b.l->items[i - a.l->n]);
		return rc;
	}
	if (node->op == '*' && (a.type == JINJA_STRING || a.type == JINJA_LIST) && b.type == JINJA_INT)
		return repeat(in, a, b.i, out);
	if (node->op == '*' && a.type == JINJA_INT && (b.type == JINJA_STRING || b.type == JINJA_LIST))
		return repeat(in, b, a.i, out);
	if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED) {
		s = a.type == JINJA_UNDEFINED ? a : b;
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined", s.s ? s.s->data : "?");
	}
	if (node->op == '%' && a.type == JINJA_STRING)
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "formatting strings with %% is not supported");
	return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' does not take %s and %s", op_name(node->op), ruv_jinja_type_name(a),
	                      ruv_jinja_type_name(b));
}

static int eval_compare(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	jinja_value left, right;
	size_t i;
	int rc = ruv_jinja_eval(in, scope, node->a, &left), order;
	bool holds = true;

	for (i = 0; rc == RUV_OK && i < node->n_items && holds; i++) {
		char op = node->names[i][0];
		rc = ruv_jinja_eval(in, scope, node->items[i], &right);
		in->at = node;
		if (rc)
			return rc;
		switch (op) {
		case '=':
		case '!':
			rc = ruv_jinja_equal(in, left, right, 0, &holds);
			holds ^= op == '!';
			break;
		case 'i':
		case 'n':
			rc = ruv_jinja_contains(in, right, left, &holds);
			holds ^= op == 'n';
			break;
		default:
			rc = ruv_jinja_order(in, left, right, &order);
			if (rc == RUV_OK)
				holds = op == '<' ? order < 0 : op == '>' ? order > 0 : op == 'l' ? order <= 0 : order >= 0;
		}
		left = right;
	}
	*out = (jinja_value){.type = JINJA_BOOL, .b = holds};
	return rc;
}

/* ---- calls ---- */

const jinja_value *ruv_jinja_arg(const jinja_args *args, size_t i, const char *name)
{
	size_t k;

	if (i < args->n_positional)
		return &args->v[i];
	for (k = args->n_positional; name && k < args->n; k++)
		if (strcmp(args->name[k], name) == 0)
			return &args->v[k];
	return NULL;
}

static int eval_args(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_args *args)
{
	size_t i;
	int rc = RUV_OK;

	args->n = args->n_positional = 0;
	for (i = 0; rc == RUV_OK && i < node->n_items; i++) {
		rc = ruv_jinja_eval(in, scope, node->items[i], &args->v[i]);
		args->name[i] = node->names[i];
		args->n++;
		args->n_positional += !node->names[i];
	}
	in->at = node;
	return rc;
}

/* Runs a body into a string. */
static int capture(jinja_interp *in, jinja_scope *scope, const jinja_node *body, jinja_value *out)
{
	jinja_builder b, *before = in->out;
	int rc;

	ruv_jinja_builder_init(&b, in->max_output);
	in->out = &b;
	rc = run(in, scope, body);
	in->out = before;
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int call_macro(jinja_interp *in, const jinja_macro *macro, const jinja_args *args, const jinja_value *caller,
                      jinja_value *out)
{
	const jinja_node *node = macro->node, *call = in->at;
	jinja_scope *scope = NULL;
	jinja_value v;
	size_t i, k;
	int rc = scope_new(in, macro->closure, &scope);

	if (rc)
		return rc;
	if (args->n_positional > node->n_names)
		return ruv_jinja_fail(in, RUV_EFORMAT, "macro '%s' takes %zu arguments, %zu are given",
		                      node->name ? node->name : "caller", node->n_names, args->n_positional);
	for (k = args->n_positional; k < args->n; k++) {
		for (i = 0; i < node->n_names && strcmp(node->names[i], args->name[k]); i++)
			;
		if (i == node->n_names)
			return ruv_jinja_fail(in, RUV_EFORMAT, "macro '%s' has no parameter '%s'",
			                      node->name ? node->name : "caller", args->name[k]);
	}
	for (i = 0; i < node->n_names; i++) {
		const jinja_value *given = ruv_jinja_arg(args, i, node->names[i]);
		if (given)
			v = *given;
		else if (node->items[i])
			rc = ruv_jinja_eval(in, scope, node->items[i], &v);
		else
			rc = undefined(in, node->names[i], &v);
		if (rc == RUV_OK)
			rc = ruv_jinja_set(in, scope, node->names[i], v);
		if (rc)
			return rc;
	}
	if (caller && (rc = ruv_jinja_set(in, scope, "caller", *caller)))
		return rc;
	rc = capture(in, scope, node->c, out);
	in->at = call;
	return rc;
}

static int call_value(jinja_interp *in, jinja_value callee, const char *name, const jinja_args *args, const jinja_value *caller,
                      jinja_value *out)
{
	if (callee.type == JINJA_MACRO)
		return call_macro(in, callee.m, args, caller, out);
	if (callee.type == JINJA_FUNCTION)
		return ruv_jinja_function(in, callee.i, args, out);
	if (callee.type == JINJA_UNDEFINED)
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined and cannot be called", name);
	return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is %s and cannot be called", name, ruv_jinja_type_name(callee));
}

static int eval_call(jinja_interp *in, jinja_scope *scope, const jinja_node *node, const jinja_value *caller, jinja_value *out)
{
	const jinja_node *target = node->a;
	jinja_value callee, owner;
	jinja_args *args = ruv_jinja_alloc(in, sizeof *args); /* too large for the stack of a deep recursion */
	int rc;

	if (!args)
		return in->alloc_status;
	if (target->kind == N_ATTR) {
		rc = ruv_jinja_eval(in, scope, target->a, &owner);
		if (rc)
			return rc;
		in->at = node;
		if (owner.type == JINJA_UNDEFINED)
			return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is undefined, so it has no method '%s'",
			                      owner.s ? owner.s->data : "?", target->name);
		if (ruv_jinja_is_method(owner, target->name)) {
			rc = eval_args(in, scope, node, args);
			return rc ? rc : ruv_jinja_method(in, owner, target->name, args, out);
		}
		rc = ruv_jinja_attribute(in, owner, target->name, &callee);
		if (rc == RUV_OK && callee.type == JINJA_UNDEFINED)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "%s has no method '%s' here", ruv_jinja_type_name(owner),
			                      target->name);
	} else {
		rc = ruv_jinja_eval(in, scope, target, &callee);
	}
	if (rc == RUV_OK)
		rc = eval_args(in, scope, node, args);
	return rc ? rc : call_value(in, callee, target->name ? target->name : "this", args, caller, out);
}

/* ---- expressions ---- */

static int eval(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	jinja_value v, w;
	jinja_args *args;
	size_t i;
	bool holds = false;
	int rc;

	in->at = node;
	switch (node->kind) {
	case N_LITERAL:
		*out = node->value;
		return RUV_OK;
	case N_NAME:
		return lookup(in, scope, node->name, out);
	case N_LIST:
		rc = ruv_jinja_new_list(in, node->n_items, out);
		for (i = 0; rc == RUV_OK && i < node->n_items; i++) {
			rc = ruv_jinja_eval(in, scope, node->items[i], &v);
			if (rc == RUV_OK)
				rc = ruv_jinja_list_push(in, out->l, v);
		}
		return rc;
	case N_DICT:
		rc = ruv_jinja_new_dict(in, out);
		for (i = 0; rc == RUV_OK && i < node->n_items; i += 2) {
			if ((rc = ruv_jinja_eval(in, scope, node->items[i], &v)) ||
			    (rc = ruv_jinja_eval(in, scope, node->items[i + 1], &w)))
				return rc;
			in->at = node;
			rc = ruv_jinja_dict_set(in, out->d, v, w);
		}
		return rc;
	case N_ATTR:
	case N_INDEX:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		if (rc)
			return rc;
		if (node->kind == N_ATTR) {
			in->at = node;
			return ruv_jinja_attribute(in, v, node->name, out);
		}
		rc = ruv_jinja_eval(in, scope, node->b, &w);
		in->at = node;
		return rc ? rc : ruv_jinja_item(in, v, w, out);
	case N_SLICE:
		return eval_slice(in, scope, node, out);
	case N_CALL:
		return eval_call(in, scope, node, NULL, out);
	case N_FILTER:
	case N_TEST:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		args = rc ? NULL : ruv_jinja_alloc(in, sizeof *args);
		if (!args)
			return rc ? rc : in->alloc_status;
		rc = eval_args(in, scope, node, args);
		if (rc)
			return rc;
		if (node->kind == N_FILTER)
			return ruv_jinja_filter(in, node->name, v, args, out);
		rc = ruv_jinja_test(in, node->name, v, args, &holds);
		*out = (jinja_value){.type = JINJA_BOOL, .b = holds ^ (node->op == 1)};
		return rc;
	case N_NOT:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		*out = (jinja_value){.type = JINJA_BOOL, .b = rc == RUV_OK && !ruv_jinja_truth(v)};
		return rc;
	case N_NEGATE:
	case N_PLUS:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		if (rc)
			return rc;
		in->at = node;
		if (v.type != JINJA_INT && v.type != JINJA_FLOAT && v.type != JINJA_BOOL)
			return ruv_jinja_fail(in, RUV_EFORMAT, "a sign does not take %s", ruv_jinja_type_name(v));
		return arithmetic(in, node->kind == N_PLUS ? '+' : '-', (jinja_value){.type = JINJA_INT, .i = 0}, v, out);
	case N_BINARY:
		return eval_binary(in, scope, node, out);
	case N_COMPARE:
		return eval_compare(in, scope, node, out);
	case N_AND:
	case N_OR:
		rc = ruv_jinja_eval(in, scope, node->a, out);
		if (rc || ruv_jinja_truth(*out) == (node->kind == N_OR))
			return rc;
		return ruv_jinja_eval(in, scope, node->b, out);
	case N_TERNARY:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		if (rc)
			return rc;
		if (ruv_jinja_truth(v))
			return ruv_jinja_eval(in, scope, node->b, out);
		if (node->c)
			return ruv_jinja_eval(in, scope, node->c, out);
		return undefined(in, "the missing else", out);
	default:
		return ruv_jinja_fail(in, RUV_EINTERNAL, "no expression");
	}
}

int ruv_jinja_eval(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	int rc = ruv_jinja_charge(in, 1);

	if (rc)
		return rc;
	if (++in->depth > JINJA_MAX_DEPTH) {
		in->at = node;
		in->depth--;
		return ruv_jinja_fail(in, RUV_ELIMIT, "evaluation is nested more than %d levels deep", JINJA_MAX_DEPTH);
	}
	rc = eval(in, scope, node, out);
	in->depth--;
	return rc;
}

/* ---- statements ---- */

static int assign(jinja_interp *in, jinja_scope *scope, const char *const *names, size_t n, jinja_value v)
{
	jinja_list *items;
	size_t i;
	int rc;

	if (n == 1)
		return ruv_jinja_set(in, scope, names[0], v);
	if (v.type != JINJA_LIST && v.type != JINJA_STRING && v.type != JINJA_DICT)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s cannot be taken apart into %zu variables", ruv_jinja_type_name(v), n);
	rc = ruv_jinja_iterate(in, v, &items);
	if (rc == RUV_OK && items->n != n)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%zu values for %zu variables", items->n, n);
	for (i = 0; rc == RUV_OK && i < n; i++)
		rc = ruv_jinja_set(in, scope, names[i], items->items[i]);
	return rc;
}

static int run_for(jinja_interp *in, jinja_scope *scope, const jinja_node *node)
{
	jinja_scope *inner = NULL;
	jinja_value v, list, kept;
	jinja_list *items;
	jinja_loop *loop;
	size_t i;
	int rc = ruv_jinja_eval(in, scope, node->a, &v);

	if (rc)
		return rc;
	in->at = node;
	if ((rc = ruv_jinja_iterate(in, v, &items)))
		return rc;
	if (node->b) {
		rc = ruv_jinja_new_list(in, 0, &kept);
		for (i = 0; rc == RUV_OK && i < items->n; i++) {
			if ((rc = scope_new(in, scope, &inner)) ||
			    (rc = assign(in, inner, node->names, node->n_names, items->items[i])) ||
			    (rc = ruv_jinja_eval(in, inner, node->b, &v)))
				return rc;
			if (ruv_jinja_truth(v))
				rc = ruv_jinja_list_push(in, kept.l, items->items[i]);
		}
		if (rc)
			return rc;
		items = kept.l;
	}
	if (items->n == 0)
		return node->d ? run(in, scope, node->d) : RUV_OK;
	loop = ruv_jinja_alloc(in, sizeof *loop);
	if (!loop)
		return in->alloc_status;
	*loop = (jinja_loop){.length = items->n, .items = items->items, .depth = ++in->loop_depth};
	list = (jinja_value){.type = JINJA_LOOP, .loop = loop};
	for (i = 0; rc == RUV_OK && i < loop->length; i++) {
		loop->index0 = i;
		rc = scope_new(in, scope, &inner); /* what the round before assigned is gone */
		if (rc || (rc = ruv_jinja_set(in, inner, "loop", list)) ||
		    (rc = assign(in, inner, node->names, node->n_names, loop->items[i])))
			break;
		rc = run(in, inner, node->c);
		if (in->flow == FLOW_BREAK) {
			in->flow = FLOW_NORMAL;
			break;
		}
		in->flow = FLOW_NORMAL;
	}
	in->loop_depth--;
	return rc;
}

static int run_set(jinja_interp *in, jinja_scope *scope, const jinja_node *node)
{
	jinja_value v, ns;
	int rc = node->c ? capture(in, scope, node->c, &v) : ruv_jinja_eval(in, scope, node->a, &v);

	if (rc)
		return rc;
	in->at = node;
	if (node->op != 1)
		return assign(in, scope, node->names, node->n_names, v);
	rc = lookup(in, scope, node->name, &ns);
	if (rc)
		return rc;
	if (ns.type != JINJA_DICT || !ns.d->is_namespace)
		return ruv_jinja_fail(in, RUV_EFORMAT, "'%s' is %s, only a namespace() can be assigned to", node->name,
		                      ruv_jinja_type_name(ns));
	{
		jinja_value key;
		rc = ruv_jinja_new_string(in, node->names[0], strlen(node->names[0]), true, &key);
		return rc ? rc : ruv_jinja_dict_set(in, ns.d, key, v);
	}
}

static int new_macro(jinja_interp *in, jinja_scope *scope, const jinja_node *node, jinja_value *out)
{
	jinja_macro *macro = ruv_jinja_alloc(in, sizeof *macro);

	if (!macro)
		return in->alloc_status;
	*macro = (jinja_macro){.node = node, .closure = scope};
	*out = (jinja_value){.type = JINJA_MACRO, .m = macro};
	return RUV_OK;
}

static int run_one(jinja_interp *in, jinja_scope *scope, const jinja_node *node)
{
	jinja_value v;
	size_t i;
	int rc = ruv_jinja_charge(in, 1);

	in->at = node;
	if (rc)
		return rc;
	switch (node->kind) {
	case N_BLOCK:
		for (i = 0; rc == RUV_OK && i < node->n_items && in->flow == FLOW_NORMAL; i++)
			rc = run(in, scope, node->items[i]);
		return rc;
	case N_TEXT:
		return ruv_jinja_put_value(in, in->out, node->value);
	case N_OUTPUT:
		rc = ruv_jinja_eval(in, scope, node->a, &v);
		in->at = node;
		return rc ? rc : ruv_jinja_put_value(in, in->out, v);
	case N_IF:
		for (i = 0; i + 1 < node->n_items; i += 2) {
			rc = ruv_jinja_eval(in, scope, node->items[i], &v);
			if (rc)
				return rc;
			if (ruv_jinja_truth(v))
				return run(in, scope, node->items[i + 1]);
		}
		return i < node->n_items ? run(in, scope, node->items[i]) : RUV_OK;
	case N_FOR:
		return run_for(in, scope, node);
	case N_SET:
		return run_set(in, scope, node);
	case N_MACRO:
		rc = new_macro(in, scope, node, &v);
		return rc ? rc : ruv_jinja_set(in, scope, node->name, v);
	case N_CALL_BLOCK:
		rc = new_macro(in, scope, node, &v);
		if (rc == RUV_OK) {
			jinja_value printed;
			rc = eval_call(in, scope, node->a, &v, &printed);
			if (rc == RUV_OK)
				rc = ruv_jinja_put_value(in, in->out, printed);
		}
		return rc;
	case N_DO:
		return ruv_jinja_eval(in, scope, node->a, &v);
	case N_BREAK:
		in->flow = FLOW_BREAK;
		return RUV_OK;
	case N_CONTINUE:
		in->flow = FLOW_CONTINUE;
		return RUV_OK;
	default:
		return ruv_jinja_fail(in, RUV_EINTERNAL, "no statement");
	}
}

static int run(jinja_interp *in, jinja_scope *scope, const jinja_node *node)
{
	int rc;

	if (++in->depth > JINJA_MAX_DEPTH) {
		in->at = node;
		in->depth--;
		return ruv_jinja_fail(in, RUV_ELIMIT, "evaluation is nested more than %d levels deep", JINJA_MAX_DEPTH);
	}
	rc = run_one(in, scope, node);
	in->depth--;
	return rc;
}

int ruv_jinja_run(jinja_interp *in, const jinja_template *tmpl, jinja_builder *out)
{
	int rc;

	ruv_jinja_builder_init(out, in->max_output);
	in->out = out;
	rc = run(in, in->globals, tmpl->root);
	in->out = NULL;
	return rc;
}

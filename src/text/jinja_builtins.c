/* jinja_builtins.c - filters, tests, methods and functions of jinja.h, one row each in a table.
 *
 * They follow Jinja 3.1 and Python where templates use them; arguments that change the meaning and are not known here are an error.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"
#include "text/jinja.h"
#include "text/unicode.h"

static jinja_value boolean(bool b)
{
	return (jinja_value){.type = JINJA_BOOL, .b = b};
}

static jinja_value integer(int64_t i)
{
	return (jinja_value){.type = JINJA_INT, .i = i};
}

static int need_string(jinja_interp *in, const char *what, jinja_value v)
{
	if (v.type == JINJA_UNDEFINED)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s: '%s' is undefined", what, v.s ? v.s->data : "?");
	if (v.type != JINJA_STRING)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs a string, not %s", what, ruv_jinja_type_name(v));
	return ruv_jinja_flatten(in, v.s);
}

/* A string argument that may be missing; *s is NULL then. */
static int string_arg(jinja_interp *in, const jinja_args *args, size_t i, const char *name, const char *what, jinja_string **s)
{
	const jinja_value *v = ruv_jinja_arg(args, i, name);
	int rc;

	*s = NULL;
	if (!v || v->type == JINJA_NONE)
		return RUV_OK;
	rc = need_string(in, what, *v);
	if (rc == RUV_OK)
		*s = v->s;
	return rc;
}

static int int_arg(jinja_interp *in, const jinja_args *args, size_t i, const char *name, const char *what, int64_t *value)
{
	const jinja_value *v = ruv_jinja_arg(args, i, name);

	if (!v || v->type == JINJA_NONE)
		return RUV_OK;
	if (v->type != JINJA_INT && v->type != JINJA_BOOL)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs an integer, not %s", what, ruv_jinja_type_name(*v));
	*value = v->type == JINJA_BOOL ? v->b : v->i;
	return RUV_OK;
}

static int to_string(jinja_interp *in, jinja_value v, jinja_value *out)
{
	jinja_builder b;
	int rc;

	if (v.type == JINJA_STRING) {
		*out = v;
		return ruv_jinja_flatten(in, v.s);
	}
	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	rc = ruv_jinja_put_value(in, &b, v);
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

/* ---- strings: what filters and methods share ---- */

/* memmem() whose cost is that of what it passes over, also where tools check the whole range on every call. */
static const char *find(const char *text, size_t n, const char *what, size_t n_what)
{
	const char *end = text + n, *at;

	if (n_what == 0 || n_what > 16)
		return memmem(text, n, what, n_what);
	for (at = text; (size_t)(end - at) >= n_what && (at = memchr(at, *what, (size_t)(end - at) - n_what + 1)); at++)
		if (memcmp(at, what, n_what) == 0)
			return at;
	return NULL;
}

static bool in_set(uint32_t cp, const jinja_string *set)
{
	size_t i;

	if (!set)
		return ruv_unicode_is_space(cp);
	for (i = 0; i < set->len;) {
		uint32_t c = 0;
		int n = ruv_utf8_decode(set->data + i, set->len - i, &c, NULL, NULL);
		if (n && c == cp)
			return true;
		i += n ? (size_t)n : 1;
	}
	return false;
}

/* Without characters of `set` (NULL: white space) at the left and/or right end. */
static int strip(jinja_interp *in, jinja_string *s, const jinja_string *set, bool left, bool right, jinja_value *out)
{
	size_t from = 0, to = s->len, at;
	uint32_t cp = 0;
	int n;

	while (left && from < to && (n = ruv_utf8_decode(s->data + from, to - from, &cp, NULL, NULL)) && in_set(cp, set))
		from += (size_t)n;
	while (right && to > from) {
		at = ruv_utf8_floor(s->data, to, to - 1);
		if (!ruv_utf8_decode(s->data + at, to - at, &cp, NULL, NULL) || !in_set(cp, set))
			break;
		to = at;
	}
	return ruv_jinja_slice(in, s, from, to, out);
}

/* Splits at `separator` (NULL: runs of white space) at most `max` times (< 0: without limit); from the right when asked. */
static int split(jinja_interp *in, jinja_string *s, const jinja_string *separator, int64_t max, bool from_right, jinja_value *out)
{
	size_t at = 0, end = s->len, i;
	jinja_value part;
	int rc = ruv_jinja_new_list(in, 0, out);

	if (rc == RUV_OK)
		rc = ruv_jinja_charge(in, s->len / 16);
	if (rc)
		return rc;
	if (separator && separator->len == 0)
		return ruv_jinja_fail(in, RUV_EFORMAT, "split: the separator is empty");
	if (from_right) {
		if (!separator)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "rsplit without a separator is not supported");
		while (max != 0) {
			for (i = end; i >= separator->len && memcmp(s->data + i - separator->len, separator->data, separator->len);
			     i--)
				;
			if (i < separator->len)
				break;
			if ((rc = ruv_jinja_slice(in, s, i, end, &part)) || (rc = ruv_jinja_list_push(in, out->l, part)))
				return rc;
			end = i - separator->len;
			max -= max > 0;
		}
		if ((rc = ruv_jinja_slice(in, s, 0, end, &part)) || (rc = ruv_jinja_list_push(in, out->l, part)))
			return rc;
		for (i = 0; i < out->l->n / 2; i++) {
			jinja_value swap = out->l->items[i];
			out->l->items[i] = out->l->items[out->l->n - 1 - i];
			out->l->items[out->l->n - 1 - i] = swap;
		}
		return RUV_OK;
	}
	for (;;) {
		const char *found = NULL;
		size_t stop, n_separator = separator ? separator->len : 0;
		uint32_t cp = 0;
		int n;

		if (!separator) {
			while (at < s->len && (n = ruv_utf8_decode(s->data + at, s->len - at, &cp, NULL, NULL)) &&
			       ruv_unicode_is_space(cp))
				at += (size_t)n;
			if (at == s->len)
				return RUV_OK;
			for (stop = at; max != 0 && stop < s->len; stop += n ? (size_t)n : 1) {
				n = ruv_utf8_decode(s->data + stop, s->len - stop, &cp, NULL, NULL);
				if (n && ruv_unicode_is_space(cp))
					break;
			}
			if (max == 0) /* the rest as it is */
				stop = s->len;
			n_separator = 0;
		} else {
			if (max != 0)
				found = find(s->data + at, s->len - at, separator->data, separator->len);
			stop = found ? (size_t)(found - s->data) : s->len;
		}
		if ((rc = ruv_jinja_charge(in, 1)) || (rc = ruv_jinja_slice(in, s, at, stop, &part)) ||
		    (rc = ruv_jinja_list_push(in, out->l, part)))
			return rc;
		if ((separator && !found) || (!separator && (stop == s->len || max == 0)))
			return RUV_OK;
		max -= max > 0;
		at = stop + n_separator;
	}
}

static int replace(jinja_interp *in, jinja_string *s, jinja_string *what, jinja_string *with, int64_t max, jinja_value *out)
{
	jinja_builder b;
	size_t at = 0;
	int rc = RUV_OK;

	if (what->len == 0)
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "replacing the empty string is not supported");
	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	while (rc == RUV_OK && max != 0) {
		const char *found = find(s->data + at, s->len - at, what->data, what->len);
		if (!found)
			break;
		rc = ruv_jinja_charge(in, 1);
		if (rc == RUV_OK)
			rc = ruv_jinja_put_slice(in, &b, s, at, (size_t)(found - s->data));
		if (rc == RUV_OK)
			rc = ruv_jinja_put_slice(in, &b, with, 0, with->len);
		at = (size_t)(found - s->data) + what->len;
		max -= max > 0;
	}
	if (rc == RUV_OK)
		rc = ruv_jinja_put_slice(in, &b, s, at, s->len);
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

/* 'u'pper, 'l'ower, 'c'apitalize, 't'itle. */
static int change_case(jinja_interp *in, jinja_string *s, char how, jinja_value *out)
{
	jinja_builder b;
	size_t at = 0, span = 0;
	bool start = true;
	int rc = RUV_OK;

	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	while (rc == RUV_OK && at < s->len) {
		uint32_t cp = 0;
		char bytes[4];
		int n = ruv_utf8_decode(s->data + at, s->len - at, &cp, NULL, NULL);

		if (!n) { /* cannot happen: strings are UTF-8 */
			at++;
			continue;
		}
		while (span < s->n_trusted && s->trusted[span].end <= at)
			span++;
		if (how == 'u' || ((how == 'c' || how == 't') && start))
			cp = ruv_unicode_to_upper(cp);
		else
			cp = ruv_unicode_to_lower(cp);
		start = how == 't' && !ruv_unicode_is_letter(cp);
		rc = ruv_jinja_charge(in, 1);
		if (rc == RUV_OK)
			rc = ruv_jinja_put(in, &b, bytes, (size_t)ruv_utf8_encode(cp, bytes),
			                   span < s->n_trusted && s->trusted[span].begin <= at);
		at += (size_t)n;
	}
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int join(jinja_interp *in, jinja_list *items, jinja_string *separator, const char *attribute, jinja_value *out)
{
	jinja_builder b;
	size_t i;
	int rc = RUV_OK;

	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	for (i = 0; rc == RUV_OK && i < items->n; i++) {
		jinja_value v = items->items[i];
		if (attribute)
			rc = ruv_jinja_attribute(in, v, attribute, &v);
		if (rc == RUV_OK && i && separator)
			rc = ruv_jinja_put_slice(in, &b, separator, 0, separator->len);
		if (rc == RUV_OK)
			rc = ruv_jinja_put_value(in, &b, v);
	}
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int indent_text(jinja_interp *in, jinja_string *s, int64_t width, bool first, bool blank, jinja_value *out)
{
	jinja_builder b;
	size_t at = 0;
	int rc = RUV_OK;

	if (width < 0 || width > 1000)
		return ruv_jinja_fail(in, RUV_ELIMIT, "indent: a width of %lld", (long long)width);
	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	while (rc == RUV_OK && at < s->len) {
		const char *stop = memchr(s->data + at, '\n', s->len - at);
		size_t end = stop ? (size_t)(stop - s->data) + 1 : s->len;
		int64_t k;
		if ((at > 0 || first) && (blank || s->data[at] != '\n'))
			for (k = 0; rc == RUV_OK && k < width; k++)
				rc = ruv_jinja_put(in, &b, " ", 1, false);
		if (rc == RUV_OK)
			rc = ruv_jinja_put_slice(in, &b, s, at, end);
		at = end;
	}
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int dict_items(jinja_interp *in, const jinja_dict *d, jinja_value *out)
{
	size_t i;
	int rc = ruv_jinja_new_list(in, d->n, out);

	for (i = 0; rc == RUV_OK && i < d->n; i++) {
		jinja_value pair;
		if ((rc = ruv_jinja_new_list(in, 2, &pair)) || (rc = ruv_jinja_list_push(in, pair.l, d->keys[i])) ||
		    (rc = ruv_jinja_list_push(in, pair.l, d->values[i])) || (rc = ruv_jinja_list_push(in, out->l, pair)))
			return rc;
	}
	return rc;
}

/* Stable insertion into order; lists in templates are short, and steps are counted. */
static int sort_values(jinja_interp *in, jinja_list *l, const char *attribute, bool reverse, bool cased)
{
	size_t i, k;
	int rc = RUV_OK, order;

	for (i = 1; i < l->n; i++) {
		jinja_value v = l->items[i];
		for (k = i; k > 0; k--) {
			jinja_value x = l->items[k - 1], y = v;
			if ((rc = ruv_jinja_charge(in, 1)) ||
			    (attribute &&
			     ((rc = ruv_jinja_item(in, x,
			                           (jinja_value){.type = JINJA_STRING,
			                                         .s = &(jinja_string){.data = attribute, .len = strlen(attribute)}},
			                           &x)) ||
			      (rc = ruv_jinja_item(in, y,
			                           (jinja_value){.type = JINJA_STRING,
			                                         .s = &(jinja_string){.data = attribute, .len = strlen(attribute)}},
			                           &y)))))
				return rc;
			if (!cased && x.type == JINJA_STRING && y.type == JINJA_STRING &&
			    ((rc = ruv_jinja_flatten(in, x.s)) || (rc = ruv_jinja_flatten(in, y.s)) ||
			     (rc = change_case(in, x.s, 'l', &x)) || (rc = change_case(in, y.s, 'l', &y))))
				return rc;
			rc = ruv_jinja_order(in, x, y, &order);
			if (rc)
				return rc;
			if (reverse ? order >= 0 : order <= 0)
				break;
			l->items[k] = l->items[k - 1];
		}
		l->items[k] = v;
	}
	return RUV_OK;
}

/* ---- filters ---- */

typedef int filter_fn(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out);

static int f_tojson(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *sort = ruv_jinja_arg(args, 3, "sort_keys"), *ascii = ruv_jinja_arg(args, (size_t)-1, "ensure_ascii");
	int64_t indent = -1;
	jinja_builder b;
	int rc = int_arg(in, args, 0, "indent", "tojson", &indent);

	if (rc)
		return rc;
	if (ruv_jinja_arg(args, (size_t)-1, "separators") || (ascii && ruv_jinja_truth(*ascii)))
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "tojson: separators and ensure_ascii=true are not supported");
	if (indent > 100)
		return ruv_jinja_fail(in, RUV_ELIMIT, "tojson: an indent of %lld", (long long)indent);
	ruv_jinja_builder_init(&b, JINJA_MAX_MEMORY / 4);
	rc = ruv_jinja_put_json(in, &b, v, (int)indent, sort && ruv_jinja_truth(*sort), 0);
	if (rc == RUV_OK)
		rc = ruv_jinja_builder_value(in, &b, out);
	ruv_jinja_builder_release(&b);
	return rc;
}

static int f_trim(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_string *set;
	int rc = string_arg(in, args, 0, "chars", "trim", &set);

	if (rc || (rc = to_string(in, v, &v)))
		return rc;
	return strip(in, v.s, set, true, true, out);
}

static int f_length(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	int rc;

	(void)args;
	switch (v.type) {
	case JINJA_STRING:
		rc = ruv_jinja_flatten(in, v.s);
		if (rc == RUV_OK)
			rc = ruv_jinja_charge(in, v.s->len / 64);
		*out = integer(rc ? 0 : (int64_t)ruv_utf8_length(v.s->data, v.s->len));
		return rc;
	case JINJA_LIST:
		*out = integer((int64_t)v.l->n);
		return RUV_OK;
	case JINJA_DICT:
		*out = integer((int64_t)v.d->n);
		return RUV_OK;
	case JINJA_UNDEFINED:
		*out = integer(0);
		return RUV_OK;
	default:
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s has no length", ruv_jinja_type_name(v));
	}
}

static int f_string(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	return to_string(in, v, out);
}

static int f_same(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)in;
	(void)args;
	*out = v;
	return RUV_OK;
}

static int f_list(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_list *items;
	size_t i;
	int rc = ruv_jinja_iterate(in, v, &items);

	(void)args;
	if (rc == RUV_OK)
		rc = ruv_jinja_new_list(in, items->n, out);
	for (i = 0; rc == RUV_OK && i < items->n; i++)
		rc = ruv_jinja_list_push(in, out->l, items->items[i]);
	return rc;
}

static int f_join(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_string *separator, *attribute;
	jinja_list *items;
	int rc;

	if ((rc = string_arg(in, args, 0, "d", "join", &separator)) ||
	    (rc = string_arg(in, args, 1, "attribute", "join", &attribute)) || (rc = ruv_jinja_iterate(in, v, &items)))
		return rc;
	return join(in, items, separator, attribute ? attribute->data : NULL, out);
}

static int f_default(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *other = ruv_jinja_arg(args, 0, "default_value"), *falsy = ruv_jinja_arg(args, 1, "boolean");

	if (v.type == JINJA_UNDEFINED || (falsy && ruv_jinja_truth(*falsy) && !ruv_jinja_truth(v))) {
		if (other)
			*out = *other;
		else
			return ruv_jinja_new_string(in, "", 0, true, out);
	} else {
		*out = v;
	}
	return RUV_OK;
}

/* value, or value.attribute with dots and numbers in between. */
static int dig(jinja_interp *in, jinja_value v, const jinja_value *attribute, jinja_value *out)
{
	char part[256];
	const char *at, *dot;
	int rc;

	*out = v;
	if (attribute->type == JINJA_INT)
		return ruv_jinja_item(in, v, *attribute, out);
	rc = need_string(in, "an attribute's name", *attribute);
	for (at = attribute->s ? attribute->s->data : ""; rc == RUV_OK && *at; at = *dot ? dot + 1 : dot) {
		jinja_value key;
		dot = strchrnul(at, '.');
		if ((size_t)(dot - at) >= sizeof part)
			return ruv_jinja_fail(in, RUV_ELIMIT, "an attribute's name of %zu bytes", (size_t)(dot - at));
		memcpy(part, at, (size_t)(dot - at));
		part[dot - at] = '\0';
		rc = ruv_jinja_new_string(in, part, (size_t)(dot - at), false, &key);
		if (rc == RUV_OK)
			rc = ruv_jinja_item(in, *out, key, out);
	}
	return rc;
}

static int choose(jinja_interp *in, jinja_value v, const jinja_args *args, bool by_attribute, bool keep, const char *what,
                  jinja_value *out)
{
	size_t skip = by_attribute ? 1 : 0, i, k;
	jinja_string *test = NULL;
	jinja_list *items;
	jinja_args *rest;
	int rc = ruv_jinja_iterate(in, v, &items);

	if (rc)
		return rc;
	if (args->n_positional < skip)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs an attribute's name", what);
	if (args->n_positional > skip) {
		rc = string_arg(in, args, skip, NULL, what, &test);
		if (rc)
			return rc;
		if (!test || !ruv_jinja_is_test(test->data))
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "%s: test '%s' is not supported", what, test ? test->data : "");
	}
	rest = ruv_jinja_alloc(in, sizeof *rest);
	if (!rest)
		return in->alloc_status;
	rest->n = rest->n_positional = 0;
	for (k = skip + 1; k < args->n_positional; k++) {
		rest->v[rest->n++] = args->v[k];
		rest->n_positional++;
	}
	rc = ruv_jinja_new_list(in, 0, out);
	for (i = 0; rc == RUV_OK && i < items->n; i++) {
		jinja_value subject = items->items[i];
		bool holds;
		if (by_attribute)
			rc = dig(in, subject, &args->v[0], &subject);
		if (rc)
			return rc;
		if (test)
			rc = ruv_jinja_test(in, test->data, subject, rest, &holds);
		else
			holds = ruv_jinja_truth(subject);
		if (rc == RUV_OK && holds == keep)
			rc = ruv_jinja_list_push(in, out->l, items->items[i]);
	}
	return rc;
}

static int f_selectattr(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	return choose(in, v, args, true, true, "selectattr", out);
}

static int f_rejectattr(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	return choose(in, v, args, true, false, "rejectattr", out);
}

static int f_select(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	return choose(in, v, args, false, true, "select", out);
}

static int f_reject(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	return choose(in, v, args, false, false, "reject", out);
}

static int f_map(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *attribute = ruv_jinja_arg(args, (size_t)-1, "attribute"),
			  *other = ruv_jinja_arg(args, (size_t)-1, "default");
	jinja_string *filter = NULL;
	jinja_list *items;
	jinja_args *rest;
	size_t i;
	int rc = ruv_jinja_iterate(in, v, &items);

	if (rc)
		return rc;
	if (!attribute) {
		rc = string_arg(in, args, 0, NULL, "map", &filter);
		if (rc)
			return rc;
		if (!filter || !ruv_jinja_is_filter(filter->data) || strcmp(filter->data, "map") == 0)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "map: filter '%s' is not supported",
			                      filter ? filter->data : "");
	}
	rest = ruv_jinja_alloc(in, sizeof *rest);
	if (!rest)
		return in->alloc_status;
	rest->n = rest->n_positional = 0;
	for (i = 1; i < args->n_positional; i++) {
		rest->v[rest->n++] = args->v[i];
		rest->n_positional++;
	}
	rc = ruv_jinja_new_list(in, items->n, out);
	for (i = 0; rc == RUV_OK && i < items->n; i++) {
		jinja_value mapped;
		if (attribute) {
			rc = dig(in, items->items[i], attribute, &mapped);
			if (rc == RUV_OK && mapped.type == JINJA_UNDEFINED && other)
				mapped = *other;
		} else {
			rc = ruv_jinja_filter(in, filter->data, items->items[i], rest, &mapped);
		}
		if (rc == RUV_OK)
			rc = ruv_jinja_list_push(in, out->l, mapped);
	}
	return rc;
}

static int f_first(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_list *items;
	int rc = ruv_jinja_iterate(in, v, &items);

	(void)args;
	if (rc == RUV_OK)
		*out = items->n ? items->items[0] : (jinja_value){.type = JINJA_UNDEFINED};
	return rc;
}

static int f_last(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_list *items;
	int rc = ruv_jinja_iterate(in, v, &items);

	(void)args;
	if (rc == RUV_OK)
		*out = items->n ? items->items[items->n - 1] : (jinja_value){.type = JINJA_UNDEFINED};
	return rc;
}

static int cased(jinja_interp *in, jinja_value v, char how, jinja_value *out)
{
	int rc = to_string(in, v, &v);
	return rc ? rc : change_case(in, v.s, how, out);
}

static int f_upper(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	return cased(in, v, 'u', out);
}

static int f_lower(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	return cased(in, v, 'l', out);
}

static int f_capitalize(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	return cased(in, v, 'c', out);
}

static int f_title(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	return cased(in, v, 't', out);
}

static int f_replace(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_string *what, *with;
	int64_t max = -1;
	int rc;

	if ((rc = to_string(in, v, &v)) || (rc = string_arg(in, args, 0, "s", "replace", &what)) ||
	    (rc = string_arg(in, args, 1, "new", "replace", &with)) || (rc = int_arg(in, args, 2, "count", "replace", &max)))
		return rc;
	if (!what || !with)
		return ruv_jinja_fail(in, RUV_EFORMAT, "replace needs two strings");
	return replace(in, v.s, what, with, max, out);
}

static int f_items(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	if (v.type == JINJA_UNDEFINED)
		return ruv_jinja_new_list(in, 0, out);
	if (v.type != JINJA_DICT)
		return ruv_jinja_fail(in, RUV_EFORMAT, "items needs a dict, not %s", ruv_jinja_type_name(v));
	return dict_items(in, v.d, out);
}

static int f_dictsort(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *case_sensitive = ruv_jinja_arg(args, 0, "case_sensitive");
	int rc;

	if (ruv_jinja_arg(args, 1, "by") || ruv_jinja_arg(args, 2, "reverse"))
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "dictsort: by and reverse are not supported");
	if ((rc = f_items(in, v, args, out)))
		return rc;
	{
		/* By key: sort the keys, then fetch the pairs in that order. */
		jinja_value pairs = *out, keys;
		size_t i, k;
		if ((rc = ruv_jinja_new_list(in, pairs.l->n, &keys)))
			return rc;
		for (i = 0; rc == RUV_OK && i < pairs.l->n; i++)
			rc = ruv_jinja_list_push(in, keys.l, pairs.l->items[i].l->items[0]);
		if (rc == RUV_OK)
			rc = sort_values(in, keys.l, NULL, false, case_sensitive && ruv_jinja_truth(*case_sensitive));
		if (rc == RUV_OK)
			rc = ruv_jinja_new_list(in, pairs.l->n, out);
		for (i = 0; rc == RUV_OK && i < keys.l->n; i++)
			for (k = 0; rc == RUV_OK && k < pairs.l->n; k++)
				if (pairs.l->items[k].l->items[0].s == keys.l->items[i].s)
					rc = ruv_jinja_list_push(in, out->l, pairs.l->items[k]);
	}
	return rc;
}

static int f_sort(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *reverse = ruv_jinja_arg(args, 0, "reverse"), *case_sensitive = ruv_jinja_arg(args, 1, "case_sensitive");
	jinja_string *attribute;
	int rc;

	if ((rc = string_arg(in, args, 2, "attribute", "sort", &attribute)) || (rc = f_list(in, v, args, out)))
		return rc;
	return sort_values(in, out->l, attribute ? attribute->data : NULL, reverse && ruv_jinja_truth(*reverse),
	                   case_sensitive && ruv_jinja_truth(*case_sensitive));
}

static int f_unique(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_list *items;
	size_t i;
	int rc = ruv_jinja_iterate(in, v, &items);

	(void)args;
	if (rc == RUV_OK)
		rc = ruv_jinja_new_list(in, 0, out);
	for (i = 0; rc == RUV_OK && i < items->n; i++) {
		bool seen;
		rc = ruv_jinja_contains(in, *out, items->items[i], &seen);
		if (rc == RUV_OK && !seen)
			rc = ruv_jinja_list_push(in, out->l, items->items[i]);
	}
	return rc;
}

static int f_reverse(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	jinja_list *items;
	size_t i;
	int rc = ruv_jinja_iterate(in, v, &items);

	(void)args;
	if (rc == RUV_OK)
		rc = ruv_jinja_new_list(in, items->n, out);
	for (i = items->n; rc == RUV_OK && i > 0; i--)
		rc = ruv_jinja_list_push(in, out->l, items->items[i - 1]);
	if (rc == RUV_OK && v.type == JINJA_STRING)
		rc = join(in, out->l, NULL, NULL, out);
	return rc;
}

static int f_int(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	int64_t other = 0;
	char *stop;
	int rc = int_arg(in, args, 0, "default", "int", &other);

	*out = integer(other);
	if (rc)
		return rc;
	if (v.type == JINJA_INT || v.type == JINJA_BOOL)
		*out = integer(v.type == JINJA_BOOL ? v.b : v.i);
	else if (v.type == JINJA_FLOAT && v.f > -9e18 && v.f < 9e18)
		*out = integer((int64_t)v.f);
	else if (v.type == JINJA_STRING && (rc = ruv_jinja_flatten(in, v.s)) == RUV_OK && v.s->len > 0) {
		long long i = strtoll(v.s->data, &stop, 10);
		double f;
		if (*stop == '\0') {
			*out = integer(i);
		} else {
			f = strtod(v.s->data, &stop);
			if (*stop == '\0' && f > -9e18 && f < 9e18)
				*out = integer((int64_t)f);
		}
	}
	return rc;
}

static int f_float(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *other = ruv_jinja_arg(args, 0, "default");
	char *stop;
	int rc = RUV_OK;

	*out = other ? *other : (jinja_value){.type = JINJA_FLOAT, .f = 0};
	if (v.type == JINJA_FLOAT || v.type == JINJA_INT || v.type == JINJA_BOOL) {
		*out = (jinja_value){.type = JINJA_FLOAT,
		                     .f = v.type == JINJA_FLOAT ? v.f
		                          : v.type == JINJA_INT ? (double)v.i
		                                                : (double)v.b};
	} else if (v.type == JINJA_STRING && v.s->len > 0) {
		double f;
		if ((rc = ruv_jinja_flatten(in, v.s)))
			return rc;
		f = strtod(v.s->data, &stop);
		if (*stop == '\0')
			*out = (jinja_value){.type = JINJA_FLOAT, .f = f};
	}
	return rc;
}

static int f_abs(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	(void)args;
	*out = v;
	if (v.type == JINJA_INT && v.i > INT64_MIN)
		out->i = v.i < 0 ? -v.i : v.i;
	else if (v.type == JINJA_FLOAT)
		out->f = v.f < 0 ? -v.f : v.f;
	else
		return ruv_jinja_fail(in, RUV_EFORMAT, "abs needs a number, not %s", ruv_jinja_type_name(v));
	return RUV_OK;
}

static int f_indent(jinja_interp *in, jinja_value v, const jinja_args *args, jinja_value *out)
{
	const jinja_value *first = ruv_jinja_arg(args, 1, "first"), *blank = ruv_jinja_arg(args, 2, "blank");
	int64_t width = 4;
	int rc;

	if ((rc = to_string(in, v, &v)) || (rc = int_arg(in, args, 0, "width", "indent", &width)))
		return rc;
	return indent_text(in, v.s, width, first && ruv_jinja_truth(*first), blank && ruv_jinja_truth(*blank), out);
}

static const struct {
	const char *name;
	filter_fn *fn;
} filters[] = {
    {"tojson", f_tojson},
    {"trim", f_trim},
    {"length", f_length},
    {"count", f_length},
    {"string", f_string},
    {"list", f_list},
    {"join", f_join},
    {"default", f_default},
    {"d", f_default},
    {"selectattr", f_selectattr},
    {"rejectattr", f_rejectattr},
    {"select", f_select},
    {"reject", f_reject},
    {"map", f_map},
    {"first", f_first},
    {"last", f_last},
    {"upper", f_upper},
    {"lower", f_lower},
    {"capitalize", f_capitalize},
    {"title", f_title},
    {"replace", f_replace},
    {"items", f_items},
    {"dictsort", f_dictsort},
    {"sort", f_sort},
    {"unique", f_unique},
    {"reverse", f_reverse},
    {"int", f_int},
    {"float", f_float},
    {"abs", f_abs},
    {"indent", f_indent},
    {"safe", f_same},
};

bool ruv_jinja_is_filter(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof filters / sizeof *filters; i++)
		if (strcmp(filters[i].name, name) == 0)
			return true;
	return false;
}

int ruv_jinja_filter(jinja_interp *in, const char *name, jinja_value v, const jinja_args *args, jinja_value *out)
{
	size_t i;

	for (i = 0; i < sizeof filters / sizeof *filters; i++)
		if (strcmp(filters[i].name, name) == 0)
			return filters[i].fn(in, v, args, out);
	return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "filter '%s' is not supported", name);
}

/* ---- tests ---- */

typedef enum test_id {
	IS_DEFINED,
	IS_UNDEFINED,
	IS_NONE,
	IS_STRING,
	IS_MAPPING,
	IS_ITERABLE,
	IS_SEQUENCE,
	IS_NUMBER,
	IS_INTEGER,
	IS_FLOAT,
	IS_BOOLEAN,
	IS_TRUE,
	IS_FALSE,
	IS_CALLABLE,
	IS_ODD,
	IS_EVEN,
	IS_DIVISIBLEBY,
	IS_EQ,
	IS_NE,
	IS_LT,
	IS_LE,
	IS_GT,
	IS_GE,
	IS_IN,
	IS_LOWER,
	IS_UPPER,
	IS_SAMEAS
} test_id;

static const struct {
	const char *name;
	test_id id;
} tests[] = {
    {"defined", IS_DEFINED},
    {"undefined", IS_UNDEFINED},
    {"none", IS_NONE},
    {"string", IS_STRING},
    {"mapping", IS_MAPPING},
    {"iterable", IS_ITERABLE},
    {"sequence", IS_SEQUENCE},
    {"number", IS_NUMBER},
    {"integer", IS_INTEGER},
    {"float", IS_FLOAT},
    {"boolean", IS_BOOLEAN},
    {"true", IS_TRUE},
    {"false", IS_FALSE},
    {"callable", IS_CALLABLE},
    {"odd", IS_ODD},
    {"even", IS_EVEN},
    {"divisibleby", IS_DIVISIBLEBY},
    {"eq", IS_EQ},
    {"equalto", IS_EQ},
    {"ne", IS_NE},
    {"lt", IS_LT},
    {"lessthan", IS_LT},
    {"le", IS_LE},
    {"gt", IS_GT},
    {"greaterthan", IS_GT},
    {"ge", IS_GE},
    {"in", IS_IN},
    {"lower", IS_LOWER},
    {"upper", IS_UPPER},
    {"sameas", IS_SAMEAS},
};

bool ruv_jinja_is_test(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof tests / sizeof *tests; i++)
		if (strcmp(tests[i].name, name) == 0)
			return true;
	return false;
}

/* Are all letters of that case, and is there one at least? */
static bool all_case(const jinja_string *s, bool upper)
{
	bool any = false;
	size_t at = 0;

	while (at < s->len) {
		uint32_t cp = 0;
		int n = ruv_utf8_decode(s->data + at, s->len - at, &cp, NULL, NULL);
		if (upper ? ruv_unicode_is_lower(cp) : ruv_unicode_is_upper(cp))
			return false;
		any |= upper ? ruv_unicode_is_upper(cp) : ruv_unicode_is_lower(cp);
		at += n ? (size_t)n : 1;
	}
	return any;
}

int ruv_jinja_test(jinja_interp *in, const char *name, jinja_value v, const jinja_args *args, bool *out)
{
	const jinja_value *other = ruv_jinja_arg(args, 0, "other");
	test_id id = IS_DEFINED;
	size_t i;
	int rc = RUV_OK, order = 0;

	for (i = 0; i < sizeof tests / sizeof *tests; i++)
		if (strcmp(tests[i].name, name) == 0)
			break;
	if (i == sizeof tests / sizeof *tests)
		return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "test '%s' is not supported", name);
	id = tests[i].id;
	if (id >= IS_DIVISIBLEBY && id <= IS_IN && !other)
		return ruv_jinja_fail(in, RUV_EFORMAT, "test '%s' needs a value to compare with", name);
	switch (id) {
	case IS_DEFINED:
		*out = v.type != JINJA_UNDEFINED;
		break;
	case IS_UNDEFINED:
		*out = v.type == JINJA_UNDEFINED;
		break;
	case IS_NONE:
		*out = v.type == JINJA_NONE;
		break;
	case IS_STRING:
		*out = v.type == JINJA_STRING;
		break;
	case IS_MAPPING:
		*out = v.type == JINJA_DICT && !v.d->is_namespace;
		break;
	/* An undefined value can be iterated over (it is empty). */
	case IS_ITERABLE:
		*out = v.type == JINJA_LIST || v.type == JINJA_DICT || v.type == JINJA_STRING || v.type == JINJA_UNDEFINED;
		break;
	case IS_SEQUENCE:
		*out = v.type == JINJA_LIST || v.type == JINJA_DICT || v.type == JINJA_STRING || v.type == JINJA_UNDEFINED;
		break;
	case IS_NUMBER:
		*out = v.type == JINJA_INT || v.type == JINJA_FLOAT || v.type == JINJA_BOOL;
		break;
	case IS_INTEGER:
		*out = v.type == JINJA_INT;
		break;
	case IS_FLOAT:
		*out = v.type == JINJA_FLOAT;
		break;
	case IS_BOOLEAN:
		*out = v.type == JINJA_BOOL;
		break;
	case IS_TRUE:
		*out = v.type == JINJA_BOOL && v.b;
		break;
	case IS_FALSE:
		*out = v.type == JINJA_BOOL && !v.b;
		break;
	case IS_CALLABLE:
		*out = v.type == JINJA_MACRO || v.type == JINJA_FUNCTION || v.type == JINJA_UNDEFINED;
		break;
	case IS_ODD:
	case IS_EVEN:
		if (v.type != JINJA_INT)
			return ruv_jinja_fail(in, RUV_EFORMAT, "test '%s' needs an integer, not %s", name, ruv_jinja_type_name(v));
		*out = (v.i % 2 != 0) == (id == IS_ODD);
		break;
	case IS_DIVISIBLEBY:
		if (v.type != JINJA_INT || other->type != JINJA_INT || other->i == 0)
			return ruv_jinja_fail(in, RUV_EFORMAT, "divisibleby needs integers and no zero");
		*out = other->i == -1 || v.i % other->i == 0;
		break;
	case IS_EQ:
	case IS_NE:
		rc = ruv_jinja_equal(in, v, *other, 0, out);
		*out ^= id == IS_NE;
		break;
	case IS_LT:
	case IS_LE:
	case IS_GT:
	case IS_GE:
		rc = ruv_jinja_order(in, v, *other, &order);
		*out = id == IS_LT ? order < 0 : id == IS_LE ? order <= 0 : id == IS_GT ? order > 0 : order >= 0;
		break;
	case IS_IN:
		rc = ruv_jinja_contains(in, *other, v, out);
		break;
	case IS_LOWER:
	case IS_UPPER:
		rc = need_string(in, name, v);
		*out = rc == RUV_OK && all_case(v.s, id == IS_UPPER);
		break;
	case IS_SAMEAS:
		*out = other && v.type == other->type &&
		       (v.type == JINJA_NONE || (v.type == JINJA_BOOL ? v.b == other->b : v.i == other->i));
		break;
	}
	return rc;
}

/* ---- methods ---- */

static const char *const string_methods[] = {
    "strip", "lstrip",     "rstrip", "split", "rsplit", "startswith", "endswith", "replace",      "upper",        "lower",
    "title", "capitalize", "join",   "find",  "count",  "splitlines", "isdigit",  "removeprefix", "removesuffix", NULL};
static const char *const dict_methods[] = {"items", "keys", "values", "get", NULL};
static const char *const list_methods[] = {"index", "count", NULL};
static const char *const loop_methods[] = {"cycle", "changed", NULL};

bool ruv_jinja_is_method(jinja_value v, const char *name)
{
	const char *const *list = v.type == JINJA_STRING                       ? string_methods
	                          : v.type == JINJA_DICT && !v.d->is_namespace ? dict_methods
	                          : v.type == JINJA_LIST                       ? list_methods
	                          : v.type == JINJA_LOOP                       ? loop_methods
	                                                                       : NULL;

	for (; list && *list; list++)
		if (strcmp(*list, name) == 0)
			return true;
	return false;
}

/* startswith, endswith: one string or a list of them. */
static int has_edge(jinja_interp *in, jinja_string *s, const jinja_value *edge, bool start, const char *name, bool *out)
{
	size_t i;
	int rc = RUV_OK;

	*out = false;
	if (!edge)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs a string", name);
	if (edge->type == JINJA_LIST) {
		for (i = 0; rc == RUV_OK && i < edge->l->n && !*out; i++)
			rc = edge->l->items[i].type == JINJA_LIST ? ruv_jinja_fail(in, RUV_EFORMAT, "%s needs strings", name)
			                                          : has_edge(in, s, &edge->l->items[i], start, name, out);
		return rc;
	}
	rc = need_string(in, name, *edge);
	if (rc == RUV_OK && edge->s->len <= s->len)
		*out = memcmp(start ? s->data : s->data + s->len - edge->s->len, edge->s->data, edge->s->len) == 0;
	return rc;
}

static int string_method(jinja_interp *in, jinja_string *s, const char *name, const jinja_args *args, jinja_value *out)
{
	const jinja_value *argument = ruv_jinja_arg(args, 0, NULL);
	jinja_string *first, *second;
	int64_t number = -1;
	jinja_list *items;
	bool yes;
	int rc = ruv_jinja_flatten(in, s);

	if (rc == RUV_OK)
		rc = ruv_jinja_charge(in, 1 + s->len / 64);
	if (rc)
		return rc;
	if (strstr(name, "strip")) {
		rc = string_arg(in, args, 0, "chars", name, &first);
		return rc ? rc : strip(in, s, first, name[0] != 'r', name[0] != 'l', out);
	}
	if (strcmp(name, "split") == 0 || strcmp(name, "rsplit") == 0) {
		if ((rc = string_arg(in, args, 0, "sep", name, &first)) || (rc = int_arg(in, args, 1, "maxsplit", name, &number)))
			return rc;
		return split(in, s, first, number, name[0] == 'r', out);
	}
	if (strcmp(name, "startswith") == 0 || strcmp(name, "endswith") == 0) {
		rc = has_edge(in, s, argument, name[0] == 's', name, &yes);
		*out = boolean(yes);
		return rc;
	}
	if (strcmp(name, "replace") == 0) {
		if ((rc = string_arg(in, args, 0, "old", name, &first)) || (rc = string_arg(in, args, 1, "new", name, &second)) ||
		    (rc = int_arg(in, args, 2, "count", name, &number)))
			return rc;
		if (!first || !second)
			return ruv_jinja_fail(in, RUV_EFORMAT, "replace needs two strings");
		return replace(in, s, first, second, number, out);
	}
	if (strcmp(name, "upper") == 0 || strcmp(name, "lower") == 0 || strcmp(name, "title") == 0 ||
	    strcmp(name, "capitalize") == 0)
		return change_case(in, s, name[0], out);
	if (strcmp(name, "join") == 0) {
		if (!argument)
			return ruv_jinja_fail(in, RUV_EFORMAT, "join needs a list");
		rc = ruv_jinja_iterate(in, *argument, &items);
		return rc ? rc : join(in, items, s, NULL, out);
	}
	if (strcmp(name, "find") == 0 || strcmp(name, "count") == 0) {
		const char *at, *found;
		int64_t n = 0;
		if ((rc = string_arg(in, args, 0, NULL, name, &first)))
			return rc;
		if (!first || first->len == 0 || args->n > 1)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "%s takes one string that is not empty", name);
		for (at = s->data; (found = find(at, s->len - (size_t)(at - s->data), first->data, first->len));
		     at = found + first->len) {
			if (name[0] == 'f') {
				*out = integer((int64_t)ruv_utf8_length(s->data, (size_t)(found - s->data)));
				return RUV_OK;
			}
			n++;
		}
		*out = integer(name[0] == 'f' ? -1 : n);
		return RUV_OK;
	}
	if (strcmp(name, "splitlines") == 0) {
		size_t at = 0;
		rc = ruv_jinja_new_list(in, 0, out);
		while (rc == RUV_OK && at < s->len) {
			size_t end = at;
			jinja_value line;
			while (end < s->len && s->data[end] != '\n' && s->data[end] != '\r')
				end++;
			if ((rc = ruv_jinja_charge(in, 1)) || (rc = ruv_jinja_slice(in, s, at, end, &line)) ||
			    (rc = ruv_jinja_list_push(in, out->l, line)))
				return rc;
			at = end + 1 + (end + 1 < s->len && s->data[end] == '\r' && s->data[end + 1] == '\n');
		}
		return rc;
	}
	if (strcmp(name, "isdigit") == 0) {
		size_t at = 0;
		yes = s->len > 0;
		while (yes && at < s->len) {
			uint32_t cp = 0;
			int n = ruv_utf8_decode(s->data + at, s->len - at, &cp, NULL, NULL);
			yes = n && ruv_unicode_is_digit(cp);
			at += n ? (size_t)n : 1;
		}
		*out = boolean(yes);
		return RUV_OK;
	}
	/* removeprefix, removesuffix */
	rc = has_edge(in, s, argument, name[6] == 'p', name, &yes);
	if (rc)
		return rc;
	if (argument->type != JINJA_STRING)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs a string", name);
	return ruv_jinja_slice(in, s, yes && name[6] == 'p' ? argument->s->len : 0,
	                       yes && name[6] == 's' ? s->len - argument->s->len : s->len, out);
}

int ruv_jinja_method(jinja_interp *in, jinja_value v, const char *name, const jinja_args *args, jinja_value *out)
{
	const jinja_value *argument = ruv_jinja_arg(args, 0, NULL), *other = ruv_jinja_arg(args, 1, "default");
	size_t i;
	bool equal;
	int64_t n = 0;
	int rc = RUV_OK;

	if (v.type == JINJA_STRING)
		return string_method(in, v.s, name, args, out);
	if (v.type == JINJA_DICT) {
		if (strcmp(name, "items") == 0)
			return dict_items(in, v.d, out);
		if (strcmp(name, "get") == 0) {
			if (!argument)
				return ruv_jinja_fail(in, RUV_EFORMAT, "get needs a key");
			rc = ruv_jinja_item(in, v, *argument, out);
			if (rc == RUV_OK && out->type == JINJA_UNDEFINED)
				*out = other ? *other : (jinja_value){.type = JINJA_NONE};
			return rc;
		}
		rc = ruv_jinja_new_list(in, v.d->n, out);
		for (i = 0; rc == RUV_OK && i < v.d->n; i++)
			rc = ruv_jinja_list_push(in, out->l, name[0] == 'k' ? v.d->keys[i] : v.d->values[i]);
		return rc;
	}
	if (v.type == JINJA_LOOP) {
		if (strcmp(name, "cycle") == 0) {
			if (args->n_positional == 0)
				return ruv_jinja_fail(in, RUV_EFORMAT, "cycle needs values");
			*out = args->v[v.loop->index0 % args->n_positional];
			return RUV_OK;
		}
		if (!argument)
			return ruv_jinja_fail(in, RUV_EFORMAT, "changed needs a value");
		equal = false;
		if (v.loop->has_changed)
			rc = ruv_jinja_equal(in, v.loop->changed, *argument, 0, &equal);
		v.loop->changed = *argument;
		v.loop->has_changed = true;
		*out = boolean(!equal);
		return rc;
	}
	if (!argument)
		return ruv_jinja_fail(in, RUV_EFORMAT, "%s needs a value", name);
	for (i = 0; i < v.l->n; i++) {
		rc = ruv_jinja_equal(in, v.l->items[i], *argument, 0, &equal);
		if (rc)
			return rc;
		if (equal && name[0] == 'i') {
			*out = integer((int64_t)i);
			return RUV_OK;
		}
		n += equal;
	}
	if (name[0] == 'i')
		return ruv_jinja_fail(in, RUV_EFORMAT, "index: the value is not in the list");
	*out = integer(n);
	return RUV_OK;
}

/* ---- functions ---- */

int ruv_jinja_function(jinja_interp *in, int64_t fn, const jinja_args *args, jinja_value *out)
{
	jinja_string *text;
	int64_t from = 0, to = 0, step = 1, i;
	time_t now;
	struct tm parts;
	char formatted[512];
	size_t k, n;
	int rc = RUV_OK;

	switch (fn) {
	case JINJA_FN_NAMESPACE:
	case JINJA_FN_DICT:
		rc = ruv_jinja_new_dict(in, out);
		if (rc == RUV_OK && args->n_positional == 1 && args->v[0].type == JINJA_DICT)
			for (k = 0; rc == RUV_OK && k < args->v[0].d->n; k++)
				rc = ruv_jinja_dict_set(in, out->d, args->v[0].d->keys[k], args->v[0].d->values[k]);
		else if (args->n_positional)
			return ruv_jinja_fail(in, RUV_EUNSUPPORTED, "namespace() and dict() take keywords or one dict");
		for (k = args->n_positional; rc == RUV_OK && k < args->n; k++) {
			jinja_value key;
			rc = ruv_jinja_new_string(in, args->name[k], strlen(args->name[k]), true, &key);
			if (rc == RUV_OK)
				rc = ruv_jinja_dict_set(in, out->d, key, args->v[k]);
		}
		if (rc == RUV_OK)
			out->d->is_namespace = fn == JINJA_FN_NAMESPACE;
		return rc;
	case JINJA_FN_RANGE:
		if (args->n == 0 || args->n > 3 || args->n != args->n_positional)
			return ruv_jinja_fail(in, RUV_EFORMAT, "range takes one to three integers");
		if ((rc = int_arg(in, args, 0, NULL, "range", args->n == 1 ? &to : &from)) ||
		    (rc = int_arg(in, args, 1, NULL, "range", &to)) || (rc = int_arg(in, args, 2, NULL, "range", &step)))
			return rc;
		if (step == 0)
			return ruv_jinja_fail(in, RUV_EFORMAT, "range: the step is 0");
		rc = ruv_jinja_new_list(in, 0, out);
		for (i = from; rc == RUV_OK && (step > 0 ? i < to : i > to);) {
			if (out->l->n == JINJA_MAX_RANGE)
				return ruv_jinja_fail(in, RUV_ELIMIT, "a range of more than %d numbers", JINJA_MAX_RANGE);
			rc = ruv_jinja_charge(in, 1);
			if (rc == RUV_OK)
				rc = ruv_jinja_list_push(in, out->l, integer(i));
			if (__builtin_add_overflow(i, step, &i))
				break;
		}
		return rc;
	case JINJA_FN_RAISE:
		if ((rc = string_arg(in, args, 0, "message", "raise_exception", &text)))
			return rc;
		return ruv_jinja_fail(in, RUV_EFORMAT, "the template refuses: %.*s",
		                      text ? (int)(text->len > 300 ? 300 : text->len) : 0, text ? text->data : "");
	default:
		if ((rc = string_arg(in, args, 0, "format", "strftime_now", &text)))
			return rc;
		if (!text || text->len > 100)
			return ruv_jinja_fail(in, RUV_EFORMAT, "strftime_now needs a short format");
		now = in->now_s ? (time_t)in->now_s : (time_t)(ruv_clock_wall_ms() / 1000);
		gmtime_r(&now, &parts);
		n = strftime(formatted, sizeof formatted, text->data, &parts);
		return ruv_jinja_new_string(in, formatted, n, false, out);
	}
}

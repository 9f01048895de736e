/* labels.c - see labels.h. Layer: memory. */
#include "memory/labels.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"

enum { FIRST_CAP = 64 };

int ruv_texts_init(ruv_texts *t, ruv_error *err)
{
	memset(t, 0, sizeof *t);
	pthread_mutex_init(&t->lock, NULL);
	t->cap = FIRST_CAP;
	t->n_buckets = 2 * FIRST_CAP;
	t->items = calloc(t->cap, sizeof *t->items);
	t->buckets = calloc(t->n_buckets, sizeof *t->buckets);
	if (t->items)
		t->items[0] = calloc(1, 1);
	if (!t->items || !t->buckets || !t->items[0]) {
		ruv_texts_release(t);
		return ruv_fail_memory(err, "memory", FIRST_CAP * (sizeof *t->items + 2 * sizeof *t->buckets));
	}
	t->n = 1;
	return RUV_OK;
}

void ruv_texts_release(ruv_texts *t)
{
	for (uint32_t i = 0; t->items && i < (t->n ? t->n : 1); i++)
		free(t->items[i]);
	free(t->items);
	free(t->buckets);
	if (t->cap)
		pthread_mutex_destroy(&t->lock);
	memset(t, 0, sizeof *t);
}

static uint32_t bucket_of(const ruv_texts *t, const char *text, size_t n)
{
	return (uint32_t)ruv_hash64(text, n, 0) & (t->n_buckets - 1);
}

static uint32_t find(const ruv_texts *t, const char *text)
{
	size_t n = strlen(text);

	if (!n)
		return 0;
	for (uint32_t i = bucket_of(t, text, n); t->buckets[i]; i = (i + 1) & (t->n_buckets - 1))
		if (!strcmp(t->items[t->buckets[i] - 1], text))
			return t->buckets[i] - 1;
	return UINT32_MAX;
}

static int grow(ruv_texts *t, ruv_error *err)
{
	uint32_t cap = t->cap * 2;
	char **items = realloc(t->items, cap * sizeof *items);
	uint32_t *buckets = calloc((size_t)cap * 2, sizeof *buckets);

	if (items)
		t->items = items;
	if (!items || !buckets) {
		free(buckets);
		return ruv_fail_memory(err, "memory", cap * (sizeof *items + 2 * sizeof *buckets));
	}
	free(t->buckets);
	t->buckets = buckets;
	t->n_buckets = cap * 2;
	t->cap = cap;
	for (uint32_t j = 1; j < t->n; j++) {
		uint32_t i = bucket_of(t, items[j], strlen(items[j]));
		while (buckets[i])
			i = (i + 1) & (t->n_buckets - 1);
		buckets[i] = j + 1;
	}
	return RUV_OK;
}

static int add(ruv_texts *t, uint32_t *number, const char *text, ruv_error *err)
{
	size_t n = strlen(text);
	uint32_t i;
	int rc;

	*number = find(t, text);
	if (*number != UINT32_MAX)
		return RUV_OK;
	if (t->n == t->cap && (rc = grow(t, err)))
		return rc;
	t->items[t->n] = malloc(n + 1);
	if (!t->items[t->n])
		return ruv_fail_memory(err, "memory", n + 1);
	memcpy(t->items[t->n], text, n + 1);
	for (i = bucket_of(t, text, n); t->buckets[i]; i = (i + 1) & (t->n_buckets - 1))
		;
	t->buckets[i] = t->n + 1;
	t->bytes += n + 1;
	*number = t->n++;
	return RUV_OK;
}

int ruv_texts_add(ruv_texts *t, uint32_t *number, const char *text, ruv_error *err)
{
	int rc;

	pthread_mutex_lock(&t->lock);
	rc = add(t, number, text, err);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

uint32_t ruv_texts_find(ruv_texts *t, const char *text)
{
	uint32_t number;

	pthread_mutex_lock(&t->lock);
	number = find(t, text);
	pthread_mutex_unlock(&t->lock);
	return number;
}

char *ruv_texts_join(ruv_texts *t, size_t *n_bytes)
{
	char *all, *to;

	pthread_mutex_lock(&t->lock);
	*n_bytes = t->bytes;
	all = to = malloc(t->bytes + 1);
	for (uint32_t i = 1; all && i < t->n; i++)
		to = stpcpy(to, t->items[i]) + 1;
	pthread_mutex_unlock(&t->lock);
	return all;
}

int ruv_labels_of_row(ruv_labels *l, ruv_texts *t, const ruv_store_row *row, ruv_error *err)
{
	int rc;

	pthread_mutex_lock(&t->lock);
	rc = add(t, &l->user, row->user, err);
	if (!rc)
		rc = add(t, &l->agent, row->agent, err);
	if (!rc)
		rc = add(t, &l->session, row->session, err);
	if (!rc)
		rc = add(t, &l->domain, row->domain, err);
	if (!rc)
		rc = add(t, &l->source, row->source, err);
	if (!rc)
		rc = add(t, &l->tags, row->tags, err);
	pthread_mutex_unlock(&t->lock);
	l->type = (uint32_t)row->type;
	l->confidence = row->confidence;
	l->created_ms = row->created_ms;
	l->expires_ms = row->expires_ms;
	return rc;
}

/* ---- filters ---- */

static bool has_tag(const char *set, const char *tag)
{
	size_t n = strlen(tag);

	for (const char *p = set; (p = strchr(p, '\n')) && p[1]; p++)
		if (!strncmp(p + 1, tag, n) && p[1 + n] == '\n')
			return true;
	return false;
}

int ruv_label_filter_init(ruv_label_filter *out, ruv_texts *t, const ruv_memory_filter *filter, int64_t now_ms, ruv_error *err)
{
	int rc = RUV_OK;

	memset(out, 0, sizeof *out);
	out->every_scope = filter->every_scope;
	out->types = filter->types;
	out->from_ms = filter->created_from_ms;
	out->to_ms = filter->created_to_ms;
	out->min_confidence = filter->min_confidence;
	out->now_ms = now_ms;
	pthread_mutex_lock(&t->lock);
	/* A text that no node has matches no node but those that are anybody's (number 0). */
	out->user = find(t, filter->scope.user ? filter->scope.user : "");
	out->agent = find(t, filter->scope.agent ? filter->scope.agent : "");
	out->session = find(t, filter->scope.session ? filter->scope.session : "");
	if (filter->domain)
		out->domain = find(t, filter->domain);
	if (filter->source)
		out->source = find(t, filter->source);
	if (filter->n_tags) {
		out->n_texts = t->n;
		out->tags_ok = calloc(out->n_texts, 1);
		if (!out->tags_ok)
			rc = ruv_fail_memory(err, "memory", out->n_texts);
		for (uint32_t i = 1; !rc && i < out->n_texts; i++) {
			bool ok = t->items[i][0] == '\n';
			for (int j = 0; ok && j < filter->n_tags; j++)
				ok = has_tag(t->items[i], filter->tags[j]);
			out->tags_ok[i] = ok;
		}
	}
	pthread_mutex_unlock(&t->lock);
	out->any = !out->types && !out->domain && !out->source && !out->from_ms && !out->to_ms && out->min_confidence <= 0 &&
	           !out->tags_ok;
	return rc;
}

void ruv_label_filter_release(ruv_label_filter *filter)
{
	free(filter->tags_ok);
	filter->tags_ok = NULL;
}

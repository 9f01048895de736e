/* labels.h - what a search filters by, as numbers: an index keeps a ruv_labels beside each of its entries.
 *
 * Texts (users, sources, tag sets ...) become numbers in an append-only table; numbers are never reused, 0 is "".
 * Threads: any; adding by one writer at a time. Layer: memory. */
#ifndef RUV_MEMORY_LABELS_H
#define RUV_MEMORY_LABELS_H

#include <pthread.h>

#include "memory/store.h"

typedef struct ruv_texts {
	pthread_mutex_t lock;
	char **items; /* [n] */
	uint32_t n, cap;
	uint32_t *buckets; /* number + 1; 0: empty */
	uint32_t n_buckets;
	size_t bytes;
} ruv_texts;

int ruv_texts_init(ruv_texts *texts, ruv_error *err);
/* Fine on a zeroed struct. */
void ruv_texts_release(ruv_texts *texts);
/* The number of a text, which is added when it is new. */
int ruv_texts_add(ruv_texts *texts, uint32_t *number, const char *text, ruv_error *err);
/* UINT32_MAX when there is none. */
uint32_t ruv_texts_find(ruv_texts *texts, const char *text);
/* All texts but "" in the order of their numbers, each with its NUL, on the heap. NULL: out of memory. */
char *ruv_texts_join(ruv_texts *texts, size_t *n_bytes);

/* Labels of an entry, texts as numbers: 0 is "". */
typedef struct ruv_labels {
	uint32_t user, agent, session, domain, source, tags;
	uint32_t type;
	float confidence;
	int64_t created_ms, expires_ms;
} ruv_labels;

int ruv_labels_of_row(ruv_labels *out, ruv_texts *texts, const ruv_store_row *row, ruv_error *err);

/* A filter in numbers, made once a search. */
typedef struct ruv_label_filter {
	bool every_scope, any; /* any: lets everything through that is in scope and not expired */
	uint32_t user, agent, session, types;
	uint32_t domain, source; /* 0: any; UINT32_MAX: a text that no node has */
	int64_t from_ms, to_ms, now_ms;
	float min_confidence;
	unsigned char *tags_ok; /* [n_texts]: tag sets that hold every tag asked for; NULL: any */
	uint32_t n_texts;
} ruv_label_filter;

int ruv_label_filter_init(ruv_label_filter *out, ruv_texts *texts, const ruv_memory_filter *filter, int64_t now_ms, ruv_error *err);
void ruv_label_filter_release(ruv_label_filter *filter);

static inline bool ruv_labels_pass(const ruv_labels *l, const ruv_label_filter *f)
{
	if (l->expires_ms && l->expires_ms <= f->now_ms)
		return false;
	if (!f->every_scope &&
	    ((l->user && l->user != f->user) || (l->agent && l->agent != f->agent) || (l->session && l->session != f->session)))
		return false;
	if (f->any)
		return true;
	if ((f->types && !(f->types >> l->type & 1)) || (f->domain && l->domain != f->domain) ||
	    (f->source && l->source != f->source))
		return false;
	if ((f->from_ms && l->created_ms < f->from_ms) || (f->to_ms && l->created_ms > f->to_ms) ||
	    l->confidence < f->min_confidence)
		return false;
	return !f->tags_ok || (l->tags < f->n_texts && f->tags_ok[l->tags]);
}

#endif

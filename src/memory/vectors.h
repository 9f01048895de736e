/* vectors.h - the vectors of a store in memory, with what searches filter by; exact search and graph indexes share it.
 *
 * Slots of normalised F32 in chunks that never move. A slot is free, or holds the key of a node with its vector and labels. Putting
 * a key again takes a new slot; the old one stays for the readers that were there before, so that a reader sees the old, the new
 * or, for that moment, both (flat.c keeps one), never a mix and never none. Removing takes effect at once.
 *
 * Threads: any number of readers between enter and leave, without locks; put, remove and intern by one writer at a time.
 * Layer: memory. */
#ifndef RUV_MEMORY_VECTORS_H
#define RUV_MEMORY_VECTORS_H

#include <stdatomic.h>

#include "memory/epoch.h"
#include "memory/store.h"

enum {
	RUV_VECTORS_CHUNK = 1024,        /* slots of a chunk */
	RUV_VECTORS_MAX_CHUNKS = 1 << 17 /* 134 million slots */
};

/* Labels of a slot, texts as numbers: 0 is "". */
typedef struct ruv_labels {
	uint32_t user, agent, session, domain, source, tags;
	uint32_t type;
	float confidence;
	int64_t created_ms, expires_ms;
} ruv_labels;

typedef struct ruv_vectors_chunk {
	float *rows; /* [RUV_VECTORS_CHUNK, stride], 64-byte aligned, unit length, zeros behind the dimension */
	ruv_labels labels[RUV_VECTORS_CHUNK];
	atomic_uint dead[RUV_VECTORS_CHUNK];     /* epoch in which another slot took the key over; 0: none has */
	_Atomic int64_t keys[RUV_VECTORS_CHUNK]; /* 0: free */
} ruv_vectors_chunk;

typedef struct ruv_vectors ruv_vectors;

int ruv_vectors_create(ruv_vectors **out, int dimension, ruv_error *err);
void ruv_vectors_free(ruv_vectors *vectors);

/* The writer's. put: row->vector is set and neither zero nor infinite; replaces what the key had. remove: fine when there is
 * nothing. */
int ruv_vectors_put(ruv_vectors *vectors, const ruv_store_row *row, ruv_error *err);
void ruv_vectors_remove(ruv_vectors *vectors, int64_t key);

int ruv_vectors_dimension(const ruv_vectors *vectors);
/* Floats from one row to the next: the dimension rounded up to 16. */
int ruv_vectors_stride(const ruv_vectors *vectors);
int64_t ruv_vectors_count(const ruv_vectors *vectors);
int64_t ruv_vectors_bytes(const ruv_vectors *vectors);

/* Readers' part. */
unsigned ruv_vectors_enter(ruv_vectors *vectors);
void ruv_vectors_leave(ruv_vectors *vectors, unsigned ticket);
/* Slots in use are below this. */
uint32_t ruv_vectors_n_slots(const ruv_vectors *vectors);
const ruv_vectors_chunk *ruv_vectors_chunk_at(const ruv_vectors *vectors, uint32_t chunk);
/* Some key may be in two slots for this reader; asked after the slots were read. */
bool ruv_vectors_has_dead(const ruv_vectors *vectors);
/* The key in a slot that the reader with this ticket is to look at, else 0. `dead` is read first: a slot is cleared in the other
 * order. */
static inline int64_t ruv_vectors_key(const ruv_vectors_chunk *chunk, int i, unsigned ticket)
{
	unsigned dead = atomic_load_explicit(&chunk->dead[i], memory_order_acquire);

	return dead && (int)(ticket - dead) > 0 ? 0 : atomic_load_explicit(&chunk->keys[i], memory_order_acquire);
}
/* The row of a key, NULL when it has none; valid until leave. Takes the writer's lock for an instant. */
const float *ruv_vectors_find(ruv_vectors *vectors, int64_t key);

/* A filter in numbers, made once a search. */
typedef struct ruv_label_filter {
	bool every_scope, any; /* any: lets everything through that is not expired */
	uint32_t user, agent, session, types;
	uint32_t domain, source; /* 0: any; UINT32_MAX: a text that no node has */
	int64_t from_ms, to_ms, now_ms;
	float min_confidence;
	unsigned char *tags_ok; /* [n_texts]: tag sets that hold every tag asked for; NULL: any */
	uint32_t n_texts;
} ruv_label_filter;

int ruv_label_filter_init(ruv_label_filter *out, ruv_vectors *vectors, const ruv_memory_filter *filter, int64_t now_ms,
                          ruv_error *err);
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

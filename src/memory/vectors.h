/* vectors.h - the vectors of a store in memory or mapped, with what searches filter by; exact search and graph indexes share it.
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
#include "memory/labels.h"

enum {
	RUV_VECTORS_CHUNK = 1024,        /* slots of a chunk */
	RUV_VECTORS_MAX_CHUNKS = 1 << 17 /* 134 million slots */
};

typedef struct ruv_vectors_chunk {
	float *rows;           /* [RUV_VECTORS_CHUNK, stride], 64-byte aligned, unit length, zeros behind the dimension */
	bool mapped;           /* rows are pages of a segment file, not heap */
	ruv_labels *labels;    /* [RUV_VECTORS_CHUNK] */
	atomic_uint *dead;     /* [RUV_VECTORS_CHUNK] epoch in which another slot took the key over; 0: none has */
	_Atomic int64_t *keys; /* [RUV_VECTORS_CHUNK] 0: free */
} ruv_vectors_chunk;

typedef struct ruv_vectors ruv_vectors;

int ruv_vectors_create(ruv_vectors **out, int dimension, ruv_error *err);
void ruv_vectors_free(ruv_vectors *vectors);

/* The writer's. put: row->vector is set and neither zero nor infinite; replaces what the key had. remove: fine when there is
 * nothing. */
int ruv_vectors_put(ruv_vectors *vectors, const ruv_store_row *row, ruv_error *err);
void ruv_vectors_remove(ruv_vectors *vectors, int64_t key);
/* The same, and which slots: the new one, and the one that the key had, RUV_NO_SLOT when none. */
#define RUV_NO_SLOT UINT32_MAX
int ruv_vectors_put_at(ruv_vectors *vectors, const ruv_store_row *row, uint32_t *slot, uint32_t *old, ruv_error *err);
uint32_t ruv_vectors_remove_at(ruv_vectors *vectors, int64_t key);

int ruv_vectors_dimension(const ruv_vectors *vectors);
/* Floats from one row to the next: the dimension rounded up to 16. */
int ruv_vectors_stride(const ruv_vectors *vectors);
int64_t ruv_vectors_count(const ruv_vectors *vectors);
/* In memory; rows of a mapped segment are counted in *mapped (may be NULL) and not in the result. */
int64_t ruv_vectors_bytes(ruv_vectors *vectors, int64_t *mapped);
ruv_texts *ruv_vectors_texts(ruv_vectors *vectors);
/* Slots whose labels a filter without conditions could hold back: in somebody's scope, or with a time to expire. */
int64_t ruv_vectors_n_restricted(const ruv_vectors *vectors);

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
/* Does the table hold exactly this row, vector and labels? The writer's. */
bool ruv_vectors_same(ruv_vectors *vectors, const ruv_store_row *row);

/* Row and key of a slot below ruv_vectors_n_slots. */
static inline const float *ruv_vectors_row(const ruv_vectors *vectors, uint32_t slot)
{
	return ruv_vectors_chunk_at(vectors, slot / RUV_VECTORS_CHUNK)->rows +
	       (size_t)(slot % RUV_VECTORS_CHUNK) * (size_t)ruv_vectors_stride(vectors);
}

/* ---- segment files (vectors_file.c) ----
 * The rows, keys and labels of a moment, in one file that appears whole or not at all; opened, its rows are mapped. */

enum { RUV_VECTORS_TAG = 128 };

typedef struct ruv_vectors_mark {
	int64_t seq;                 /* of the store's log: all events up to it are in the segment */
	uint64_t event;              /* what the log said at seq */
	uint64_t owner;              /* of the store and its embedder */
	char graph[RUV_VECTORS_TAG]; /* name of the graph's file that belongs to it, "" */
} ruv_vectors_mark;

/* keys [n_slots] as they were at the mark, 0 for slots that are not to be written. The caller has been inside enter since before
 * the mark, so that no slot has got another row. */
int ruv_vectors_save(ruv_vectors *vectors, const char *path, const ruv_vectors_mark *mark, const int64_t *keys, uint32_t n_slots,
                     ruv_error *err);
/* RUV_ENOTFOUND, RUV_EIO, RUV_EFORMAT (another version), RUV_ECORRUPT. The rows' own checksums are ruv_vectors_verify's. */
int ruv_vectors_open(ruv_vectors **out, const char *path, ruv_vectors_mark *mark, ruv_error *err);
/* Reads a file's rows and compares them with their checksums; RUV_ECORRUPT. */
int ruv_vectors_verify(const char *path, ruv_error *err);

#endif

/* vectors_impl.h - inside of a ruv_vectors; vectors.c and vectors_file.c include it. Layer: memory, private. */
#ifndef RUV_MEMORY_VECTORS_IMPL_H
#define RUV_MEMORY_VECTORS_IMPL_H

#include "memory/keymap.h"
#include "memory/vectors.h"

typedef struct ruv_retired_slot {
	uint32_t slot;
	unsigned epoch;
} ruv_retired_slot;

struct ruv_vectors {
	int dimension, stride;
	ruv_epoch epoch;
	_Atomic(ruv_vectors_chunk *) *chunks; /* [RUV_VECTORS_MAX_CHUNKS] */
	atomic_uint n_slots;
	_Atomic int64_t count, n_restricted;
	atomic_uint n_dead; /* slots that are marked dead and not yet free */
	ruv_texts texts;

	/* A mapped segment, NULL when there is none; fixed since the table was opened. */
	unsigned char *map;
	size_t map_bytes;

	pthread_mutex_t lock; /* over what is below */
	ruv_key_map keys;
	uint32_t *free_slots;
	size_t n_free, free_cap;
	ruv_retired_slot *retired; /* a ring would do; in practice a handful */
	size_t n_retired, retired_cap;
};

/* The chunk at n / RUV_VECTORS_CHUNK; rows NULL: on the heap. */
int ruv_vectors_make_chunk(ruv_vectors *vectors, uint32_t chunk, float *rows, ruv_error *err);
/* Enters a key whose row and labels stand in the slot. There is room, and nobody else is at the table. False: the key is there. */
bool ruv_vectors_adopt(ruv_vectors *vectors, int64_t key, uint32_t slot);
int ruv_vectors_free_slot(ruv_vectors *vectors, uint32_t slot, ruv_error *err);

static inline bool ruv_labels_restrict(const ruv_labels *l)
{
	return l->user || l->agent || l->session || l->expires_ms;
}

#endif

/* index_impl.h - inside of a ruv_index. Layer: memory, private to index*.c.
 *
 * A slot of the table is, by state[slot]: nothing (INDEX_NONE), pending (INDEX_PENDING | its place in `pending`), or in the graph
 * (the id there). Locks, in this order: work (who changes the graph), lock (what is below it in the struct), then the table's. */
#ifndef RUV_MEMORY_INDEX_IMPL_H
#define RUV_MEMORY_INDEX_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "memory/index.h"

#define INDEX_NONE UINT32_MAX
#define INDEX_PENDING (1u << 31)

/* Freed by the last who lets go of it. */
typedef struct index_graph {
	ruv_hnsw *x;
	atomic_int users;
} index_graph;

typedef struct index_slots {
	uint32_t *at;
	size_t n, cap;
} index_slots;

struct ruv_index {
	ruv_vectors *vectors;
	ruv_index_setup setup;
	ruv_memory_index_options options;
	char *dir;

	pthread_mutex_t work; /* who changes the graph or writes the files */
	int64_t n_unsaved;    /* changes of the graph since the files were written; under work */
	char graph_name[64];  /* of the files that are there, "" */
	_Atomic int64_t n_in_graph;
	_Atomic int64_t searched_ns; /* when the last search began */
	atomic_int n_helping;        /* writers that link, ruv_index_make_room */
	atomic_int n_cold;           /* > 0: rows are mostly not in memory, for so many searches more */

	pthread_mutex_t lock; /* over what follows */
	index_graph *graph;   /* NULL: none yet */
	uint32_t *state;      /* [state_cap] */
	size_t state_cap;
	index_slots pending; /* slots */
	index_slots gone;    /* ids to be taken out of the graph */
	int64_t seq;
	int64_t n_put; /* for which no writer has linked any yet */

	pthread_t thread;
	pthread_cond_t wake; /* with lock */
	bool started;
	atomic_bool stop, failed; /* failed: said once, not tried again until there is something new */
};

/* index.c; the caller holds lock. */
int ruv_index_reserve(ruv_index *x, size_t n_slots, ruv_error *err);
/* The slot is in no search any more: out of pending, or into gone (where there is room). */
void ruv_index_drop_slot(ruv_index *x, uint32_t slot);
int ruv_index_slots_reserve(index_slots *slots, size_t n_more, ruv_error *err);
void ruv_index_graph_release(index_graph *graph);

/* index_work.c */
/* The caller holds lock: starts or wakes the thread when there is enough to do. */
void ruv_index_wake(ruv_index *x);
/* index_file.c; the caller holds work. Nothing to do when files are not wanted. */
int ruv_index_save(ruv_index *x, ruv_error *err);

#endif

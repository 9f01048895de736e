/* index.h - what answers a search by vector: every vector compared (flat.h), or a graph (hnsw.h) over most of them with the rest
 * compared beside it.
 *
 * The vectors' table is always whole: a write is in it, and in every search, when put returns. The graph follows behind: what it
 * does not hold yet is pending, and a search looks at all pending vectors itself, so no search waits for the graph and none misses
 * what is new. A thread of the index's own, at low priority, links pending vectors in batches once there are enough of them, and
 * writes the segment files when enough has changed.
 *
 * Files in the memory's directory, all derived and rebuilt from the store when they are missing, stale or damaged:
 *     memory.vectors         rows, keys and labels (vectors_file.c), with the number of the store's last event in it; names the
 * graph memory-XXXX.graph      the graph (hnsw_file.c), its keys are slots + 1 The rename of memory.vectors is the moment at which
 * a new pair counts.
 *
 * Threads: searches from any number, put and remove by one writer at a time. Layer: memory. */
#ifndef RUV_MEMORY_INDEX_H
#define RUV_MEMORY_INDEX_H

#include "memory/flat.h"
#include "memory/hnsw.h"
#include "memory/vectors.h"

typedef struct ruv_index ruv_index;

typedef struct ruv_index_setup {
	ruv_memory_index_options options;
	const char *dir; /* of the segment files */
	bool may_save;   /* false: nothing is written */
	uint64_t owner;  /* stands for the embedder */
	/* What the store's log says at an event, as a number; RUV_ENOTFOUND when it is not there. Called by the index's thread. */
	int (*event)(void *user, int64_t seq, uint64_t *mark, ruv_error *err);
	void *user;
} ruv_index_setup;

/* The defaults filled in. RUV_EINVAL when something is out of range. */
int ruv_index_options_check(ruv_memory_index_options *options, ruv_error *err);

int ruv_index_create(ruv_index **out, int dimension, const ruv_index_setup *setup, ruv_error *err);
/* From the segment files; *seq is the last event that they hold. RUV_ENOTFOUND when there are none, RUV_EMISMATCH when they are not
 * of this store, and what opening them returns. */
int ruv_index_open(ruv_index **out, const ruv_index_setup *setup, int64_t *seq, ruv_error *err);
/* Ends the work behind; nothing is saved any more. Searches go on. */
void ruv_index_disown(ruv_index *index);
/* Saves what is worth it, stops, frees. No search may be running. NULL is fine. */
void ruv_index_free(ruv_index *index);

ruv_vectors *ruv_index_vectors(ruv_index *index);
int ruv_index_put(ruv_index *index, const ruv_store_row *row, ruv_error *err);
void ruv_index_remove(ruv_index *index, int64_t key);
/* For a writer after its write, holding no lock: keeps what is pending from growing without end while there are searches, by
 * linking some of it. */
void ruv_index_make_room(ruv_index *index);
/* All events up to seq have been put and removed. */
void ruv_index_reached(ruv_index *index, int64_t seq);

typedef struct ruv_index_query {
	const float *unit; /* [stride], unit length, zeros behind the dimension; aligned to 64 */
	int k;
	int ef;           /* of the graph's walk; 0: the options' */
	float min_cosine; /* -INFINITY: none */
	bool exact;       /* compare every vector */
	const ruv_memory_filter *filter;
	int64_t now_ms;
} ruv_index_query;

/* The k nearest that pass, nearest first; each key once. Fewer only when fewer pass. *by_graph (may be NULL): which way. */
int ruv_index_search(ruv_near *out, int *n, ruv_index *index, const ruv_index_query *query, bool *by_graph, ruv_error *err);

/* Brings the graph up to date with n_threads (0: all cores) and writes the files; nothing to do below the flat limit. progress may
 * be NULL; returning false there stops the work with RUV_ECANCELLED. rebuild: from nothing, also when the graph is of another shape
 * than its size wants. */
int ruv_index_finish(ruv_index *index, int n_threads, bool rebuild, ruv_memory_progress_fn *progress, void *user, ruv_error *err);

/* Graph, pending list, table and files against each other. RUV_ECORRUPT with the first thing that does not fit. */
int ruv_index_check(ruv_index *index, ruv_error *err);
/* Removes the segment files. */
void ruv_index_drop_files(const char *dir);

typedef struct ruv_index_stats {
	int64_t n_vectors, n_in_graph, n_pending, bytes, mapped_bytes;
	int m, ef_construction, ef_search, bits; /* of the graph; 0 without one */
	bool by_graph;                           /* how a search without conditions is answered now */
} ruv_index_stats;
void ruv_index_get_stats(ruv_index *index, ruv_index_stats *out);

#endif

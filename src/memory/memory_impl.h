/* memory_impl.h - inside of a ruv_memory. Layer: memory. */
#ifndef RUV_MEMORY_IMPL_H
#define RUV_MEMORY_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "memory/store.h"
#include "memory/cache.h"
#include "memory/index.h"
#include "memory/words.h"

struct ruv_memory {
	ruv_store *store;
	bool read_only;
	ruv_arena arena; /* the embedder's texts; grows only in ruv_memory_change_embedder */
	pthread_mutex_t embedder_lock;
	ruv_store_embedder embedder;

	/* The vector index follows the store's event log. */
	char *dir;
	ruv_memory_index_options index_options;
	pthread_mutex_t index_lock;    /* of who brings it up to date */
	_Atomic(ruv_index *) index;    /* NULL until the first search by vector */
	atomic_int_fast64_t index_seq; /* the last event that it holds */
	atomic_int n_following;        /* writers of this process between their commit and the end of following it */
	/* The word index in memory, NULL until it pays: memory_words.c. */
	pthread_mutex_t words_lock; /* of who brings it up to date */
	_Atomic(ruv_words *) words;
	atomic_int_fast64_t words_seq;
	atomic_int n_asked;
	atomic_bool stopping;
	bool words_started, words_threaded;
	pthread_t words_thread;
	ruv_cache *cache;      /* NULL: none */
	ruv_index *former[16]; /* of embedders before; freed with the memory, searches may be in them */
	int n_former;
};

/* A heap arena for a result's `owner`; NULL with err set. */
ruv_arena *ruv_memory_arena(ruv_error *err);
void ruv_memory_arena_free(void *owner);

/* Loads the vectors on the first call, then applies what the log has since. wait: when another thread is doing it, wait for it to
 * be done; otherwise go on with what is there (all acknowledged writes of this process are). */
int ruv_memory_sync(ruv_memory *memory, bool wait, ruv_error *err);
/* The same for the word index, if there is one in memory. */
int ruv_memory_sync_words(ruv_memory *memory, bool wait, ruv_error *err);
/* Builds it now. */
int ruv_memory_load_words(ruv_memory *memory, ruv_error *err);
void ruv_memory_words_free(ruv_memory *memory);
/* The store's search by words or this one's, whichever is there: the same hits. Not inside a transaction. */
int ruv_memory_lexical(ruv_memory *memory, ruv_store_match *out, int *n, const ruv_store_term *terms, int n_terms,
                       const ruv_memory_filter *filter, int limit, ruv_error *err);
/* Commits, and brings what is loaded up to date before the write is acknowledged; a failure of that is logged, because the write
 * has succeeded. Searches leave the work to the writer meanwhile. */
int ruv_memory_commit(ruv_memory *memory, ruv_error *err);
/* The second half alone. */
void ruv_memory_follow(ruv_memory *memory);

/* Checks a node that came from outside and fills in its defaults: sorted tags, compact meta, times. Strings go into the arena where
 * they change; dimension 0: no vector allowed. */
int ruv_node_check(ruv_memory_node *node, ruv_arena *arena, int dimension, int64_t now_ms, ruv_error *err);
int ruv_edge_check(ruv_memory_edge *edge, int64_t now_ms, ruv_error *err);
/* Checks a filter; *out is a copy in which "" is NULL where NULL means any. NULL is a zeroed filter. */
int ruv_filter_check(ruv_memory_filter *out, const ruv_memory_filter *filter, ruv_error *err);
/* Does the filter let the node through? (Expiry is the store's.) */
bool ruv_filter_pass(const ruv_memory_filter *filter, const ruv_memory_node *node);
/* A UUID in its canonical, lower-case form into `out`. */
int ruv_id_check(char out[RUV_ID_SIZE], const char *id, ruv_error *err);
/* After a node of a known source was erased on its own: remembering the source will leave it out. In a transaction. */
int ruv_source_note_forgotten(ruv_memory *memory, ruv_arena *arena, const ruv_memory_node *node, ruv_error *err);
/* RUV_EINVAL unless all are finite and not all zero. */
int ruv_vector_check(const float *vector, int dimension, ruv_error *err);

#endif

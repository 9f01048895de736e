/* cache.h - results of searches, kept for the same question asked again while nothing has changed.
 *
 * A key is every byte of a query and the number of the store's last event: a result is handed out again only when computing it anew
 * would give the same. It lives for a time (TTL), and no longer than the next node does that expires. Least recently used goes
 * first. Queries that are alike but not the same are not matched: near is not the same, and a wrong answer from a cache looks like
 * a right one (docs/vector-search.md).
 *
 * Threads: any. Layer: memory. */
#ifndef RUV_MEMORY_CACHE_H
#define RUV_MEMORY_CACHE_H

#include "base/arena.h"
#include "base/buf.h"
#include "ruvllm/memory.h"

typedef struct ruv_cache ruv_cache;

/* What a hits->owner points at: an arena that several results and the cache share, and the result's own array of hits. */
typedef struct ruv_cache_owner ruv_cache_owner;

int ruv_cache_create(ruv_cache **out, int n_entries, int64_t ttl_ms, ruv_error *err);
/* NULL is fine. Results that were handed out live on. */
void ruv_cache_free(ruv_cache *cache);

/* Everything that decides the result; RUV_ENOMEM. */
int ruv_cache_key(ruv_buf *key, const ruv_memory_query *query, int dimension, int64_t seq);
/* True with *hits filled. */
bool ruv_cache_find(ruv_cache *cache, ruv_memory_hits *hits, const ruv_buf *key, int64_t now_ms);
/* Keeps a result whose owner came from ruv_cache_own. expires_ms: of the first node to expire, 0: none. */
void ruv_cache_keep(ruv_cache *cache, const ruv_memory_hits *hits, const ruv_buf *key, int64_t now_ms, int64_t expires_ms);

/* Makes a result's arena (on the heap, from ruv_memory_arena) shareable; takes it over, also on failure. */
int ruv_cache_own(ruv_memory_hits *hits, ruv_arena *arena, ruv_error *err);
/* The result, which has an owner, takes over an arena (from ruv_memory_arena) of its own beside that: hits may lie in either. Once
 * a result. */
void ruv_cache_attach(ruv_memory_hits *hits, ruv_arena *arena);
void ruv_cache_release(void *owner);

#endif

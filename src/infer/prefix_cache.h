/* prefix_cache.h - full pages of finished and running sequences, found again by the tokens that led to them.
 *
 * The key of a page is a hash chain: of the page before it (the root: model, adapter, salt) and of its own 64 tokens, which are
 * kept and compared as well. The cache holds every page it lists (kv_pages.h counts it as one more user), so a page whose only user
 * is the cache may be evicted; the one used longest ago goes first, and of one sequence the deepest, because a page without those
 * before it is of no use. Beside a page may stand the convolution state behind its last token.
 *
 * A page belongs to the cache from when it is full. Full pages are never written again, so sharing them needs no copy.
 *
 * Kwon et al. 2023 for pages; the chain as in vLLM's prefix caching. Threads: those of the pool. Layer: infer. */
#ifndef RUV_INFER_PREFIX_CACHE_H
#define RUV_INFER_PREFIX_CACHE_H

#include "infer/kv_pages.h"

typedef struct ruv_prefix_cache {
	ruv_kv_pool *pool;
	size_t state_bytes;
	char *states; /* backend [n_pages, state_bytes], touched only where a state was kept; NULL without convolutions */
	uint32_t mask;
	int32_t *buckets;  /* [mask + 1] first page of a chain, -1: none */
	int32_t *next;     /* [n_pages] in the bucket */
	int32_t *older;    /* [n_pages + 1] list by use; the last element is its two ends */
	int32_t *newer;    /* [n_pages + 1] */
	uint64_t *keys;    /* [n_pages] */
	ruv_token *tokens; /* [n_pages, 64] */
	bool *listed;      /* [n_pages] */
	bool *has_state;   /* [n_pages] */
	int n_listed;
	int64_t n_evictions;
} ruv_prefix_cache;

/* state_bytes 0: no states. The pool outlives the cache. Wants the engine's lock, as release does. */
int ruv_prefix_cache_init(ruv_prefix_cache *cache, ruv_kv_pool *pool, size_t state_bytes, ruv_error *err);
void ruv_prefix_cache_release(ruv_prefix_cache *cache);

/* Where a chain begins. */
uint64_t ruv_prefix_root(uint64_t model_fingerprint, uint64_t adapter_fingerprint, uint64_t salt);
/* The key of the page of tokens [64] behind `parent`. */
uint64_t ruv_prefix_key(uint64_t parent, const ruv_token *tokens);

/* The page of that key and tokens, now also the caller's and the one used last; -1: none. */
int32_t ruv_prefix_find(ruv_prefix_cache *cache, uint64_t key, const ruv_token *tokens);
/* The same, but nothing changes. */
int32_t ruv_prefix_peek(const ruv_prefix_cache *cache, uint64_t key, const ruv_token *tokens);
/* Lists a full page. state: backend address of the convolution state behind it, or NULL. A page of that key that is listed already
 * stays (it gets the state when it has none). Wants the engine's lock when there is a state. */
void ruv_prefix_add(ruv_prefix_cache *cache, uint64_t key, const ruv_token *tokens, int32_t page, const void *state);
/* The state behind a listed page, or NULL. */
const void *ruv_prefix_state(const ruv_prefix_cache *cache, int32_t page);
/* The page is the one used last. Call for the pages of a sequence from the deepest up when it gives them up. No effect on pages
 * that are not listed. */
void ruv_prefix_touch(ruv_prefix_cache *cache, int32_t page);

/* Pages that nobody but the cache uses. */
int ruv_prefix_idle(const ruv_prefix_cache *cache);
/* Evicts until the pool has n free pages; false when there are too few. */
bool ruv_prefix_make_free(ruv_prefix_cache *cache, int n);

#endif

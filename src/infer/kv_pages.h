/* kv_pages.h - keys and values of all attention layers in pages of 64 tokens, shared between sequences by reference counts.
 *
 * A page holds 64 tokens of every attention layer: page p of layer i lies at layers[i].k + p * page_bytes (ops.h). A sequence lists
 * its pages in order; a fork lists the same pages and raises their counts. A page that two sequences list must not be written:
 * ruv_kv_pool_own gives the writer a copy of its own first.
 *
 * Threads: as the sessions that share the pool: one at a time; calls that touch the device want the engine's lock. Layer: infer. */
#ifndef RUV_INFER_KV_PAGES_H
#define RUV_INFER_KV_PAGES_H

#include "tensor/ops.h"

typedef struct ruv_kv_pool {
	int n_refs; /* sessions */
	ruv_backend *backend;
	int n_layers, n_pages, n_free;
	ruv_kv_layer *layers; /* [n_layers] */
	int32_t *refs;        /* [n_pages] sequences that list the page */
	int32_t *free_pages;  /* [n_free] stack */
} ruv_kv_pool;

/* n_layers may be 0 (a model without attention): pages are then only counted. */
int ruv_kv_pool_open(ruv_kv_pool **out, ruv_backend *backend, int n_layers, int n_kv_heads, int head_dim, ruv_dtype dtype,
                     int n_pages, ruv_error *err);
ruv_kv_pool *ruv_kv_pool_hold(ruv_kv_pool *pool);
/* Gives up one hold; NULL is fine. */
void ruv_kv_pool_free(ruv_kv_pool *pool);

/* A page that nobody lists, with a count of 1; -1 when all are in use. Its contents are left over. */
int32_t ruv_kv_pool_take(ruv_kv_pool *pool);
void ruv_kv_pool_share(ruv_kv_pool *pool, int32_t page);
void ruv_kv_pool_drop(ruv_kv_pool *pool, int32_t page);
/* The page itself when only the caller lists it, else a copy in its place; -1 when there is no page for the copy. */
int32_t ruv_kv_pool_own(ruv_kv_pool *pool, int32_t page);
/* Would a write to this page need a copy? */
bool ruv_kv_pool_is_shared(const ruv_kv_pool *pool, int32_t page);

#endif

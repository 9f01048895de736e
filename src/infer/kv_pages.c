/* kv_pages.c - the page pool: a stack of free pages and a count per page.
 *
 * Kwon et al. 2023 (PagedAttention) for the idea. The stack hands out the page that was freed last, which is the one most likely
 * still in cache. Device memory is allocated once, at open; pages that were never touched cost nothing on a CPU. */
#include "infer/kv_pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "kv pages";

static int alloc_layer(ruv_kv_pool *pool, ruv_kv_layer *layer, ruv_error *err)
{
	size_t n_bytes = layer->page_bytes * (size_t)pool->n_pages;
	int rc = ruv_backend_alloc(pool->backend, &layer->k, n_bytes, err);
	return rc ? rc : ruv_backend_alloc(pool->backend, &layer->v, n_bytes, err);
}

int ruv_kv_pool_open(ruv_kv_pool **out, ruv_backend *backend, int n_layers, int n_kv_heads, int head_dim, ruv_dtype dtype,
                     int n_pages, ruv_error *err)
{
	*out = NULL;
	size_t row = n_layers ? ruv_dtype_row_bytes(dtype, head_dim) : 1;
	if (row == 0)
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "heads of %d elements cannot be kept as %s, which goes in blocks of %d", head_dim,
		                ruv_dtype_name(dtype), ruv_dtype_block_elements(dtype));
	ruv_kv_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return ruv_fail_memory(err, where, sizeof *pool);
	*pool = (ruv_kv_pool){.n_refs = 1, .backend = backend, .n_layers = n_layers, .n_pages = n_pages};
	int rc = RUV_OK;
	pool->layers = calloc((size_t)n_layers + 1, sizeof *pool->layers);
	pool->refs = calloc((size_t)n_pages + 1, sizeof *pool->refs);
	pool->free_pages = calloc((size_t)n_pages + 1, sizeof *pool->free_pages);
	if (!pool->layers || !pool->refs || !pool->free_pages) {
		rc = ruv_fail_memory(err, where, (size_t)n_pages * 8);
		goto failed;
	}
	for (int i = 0; i < n_layers && rc == RUV_OK; i++) {
		pool->layers[i] = (ruv_kv_layer){.dtype = dtype, .n_kv_heads = n_kv_heads, .head_dim = head_dim};
		pool->layers[i].page_bytes = (size_t)n_kv_heads * RUV_KV_PAGE_TOKENS * row;
		rc = alloc_layer(pool, &pool->layers[i], err);
	}
	if (rc)
		goto failed;
	for (int i = 0; i < n_pages; i++) /* the lowest page comes first */
		pool->free_pages[pool->n_free++] = n_pages - 1 - i;
	*out = pool;
	return RUV_OK;
failed:
	ruv_kv_pool_free(pool);
	return rc;
}

ruv_kv_pool *ruv_kv_pool_hold(ruv_kv_pool *pool)
{
	pool->n_refs++;
	return pool;
}

void ruv_kv_pool_free(ruv_kv_pool *pool)
{
	if (!pool || --pool->n_refs > 0)
		return;
	for (int i = 0; pool->layers && i < pool->n_layers; i++) {
		if (pool->layers[i].k)
			ruv_backend_release(pool->backend, pool->layers[i].k);
		if (pool->layers[i].v)
			ruv_backend_release(pool->backend, pool->layers[i].v);
	}
	free(pool->layers);
	free(pool->refs);
	free(pool->free_pages);
	free(pool);
}

int32_t ruv_kv_pool_take(ruv_kv_pool *pool)
{
	if (pool->n_free == 0)
		return -1;
	int32_t page = pool->free_pages[--pool->n_free];
	assert(pool->refs[page] == 0);
	pool->refs[page] = 1;
	return page;
}

void ruv_kv_pool_share(ruv_kv_pool *pool, int32_t page)
{
	assert(pool->refs[page] > 0);
	pool->refs[page]++;
}

void ruv_kv_pool_drop(ruv_kv_pool *pool, int32_t page)
{
	assert(pool->refs[page] > 0);
	if (--pool->refs[page] == 0)
		pool->free_pages[pool->n_free++] = page;
}

bool ruv_kv_pool_is_shared(const ruv_kv_pool *pool, int32_t page)
{
	return pool->refs[page] > 1;
}

int32_t ruv_kv_pool_own(ruv_kv_pool *pool, int32_t page)
{
	if (!ruv_kv_pool_is_shared(pool, page))
		return page;
	int32_t copy = ruv_kv_pool_take(pool);
	if (copy < 0)
		return -1;
	for (int i = 0; i < pool->n_layers; i++) {
		const ruv_kv_layer *layer = &pool->layers[i];
		size_t to = (size_t)copy * layer->page_bytes, from = (size_t)page * layer->page_bytes;
		ruv_backend_copy(pool->backend, (char *)layer->k + to, (const char *)layer->k + from, layer->page_bytes);
		ruv_backend_copy(pool->backend, (char *)layer->v + to, (const char *)layer->v + from, layer->page_bytes);
	}
	ruv_kv_pool_drop(pool, page);
	return copy;
}

/* prefix_cache.c - the table and the order of use. Everything is indexed by page number, so that nothing is allocated after init.
 */
#include "infer/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"

static const char where[] = "prefix cache";

enum { PAGE = RUV_KV_PAGE_TOKENS };

int ruv_prefix_cache_init(ruv_prefix_cache *c, ruv_kv_pool *pool, size_t state_bytes, ruv_error *err)
{
	const size_t n = (size_t)pool->n_pages;
	uint32_t n_buckets = 16;
	while (n_buckets < 2 * n)
		n_buckets *= 2;
	*c = (ruv_prefix_cache){.pool = pool, .state_bytes = state_bytes, .mask = n_buckets - 1};
	c->buckets = malloc(n_buckets * sizeof *c->buckets);
	c->next = malloc(n * sizeof *c->next);
	c->older = malloc((n + 1) * sizeof *c->older);
	c->newer = malloc((n + 1) * sizeof *c->newer);
	c->keys = malloc(n * sizeof *c->keys);
	c->tokens = malloc(n * PAGE * sizeof *c->tokens);
	c->listed = calloc(n, sizeof *c->listed);
	c->has_state = calloc(n, sizeof *c->has_state);
	int rc = RUV_OK;
	if (!c->buckets || !c->next || !c->older || !c->newer || !c->keys || !c->tokens || !c->listed || !c->has_state)
		rc = ruv_fail_memory(err, where, n * (PAGE * 4 + 32));
	if (rc == RUV_OK && state_bytes) {
		void *states = NULL;
		rc = ruv_backend_alloc(pool->backend, &states, n * state_bytes, err);
		c->states = states;
	}
	if (rc) {
		ruv_prefix_cache_release(c);
		return rc;
	}
	for (uint32_t i = 0; i < n_buckets; i++)
		c->buckets[i] = -1;
	c->older[n] = c->newer[n] = (int32_t)n;
	return RUV_OK;
}

void ruv_prefix_cache_release(ruv_prefix_cache *c)
{
	for (int i = 0; c->listed && c->pool && i < c->pool->n_pages; i++)
		if (c->listed[i])
			ruv_kv_pool_drop(c->pool, i);
	if (c->states)
		ruv_backend_release(c->pool->backend, c->states);
	free(c->buckets);
	free(c->next);
	free(c->older);
	free(c->newer);
	free(c->keys);
	free(c->tokens);
	free(c->listed);
	free(c->has_state);
	memset(c, 0, sizeof *c);
}

uint64_t ruv_prefix_root(uint64_t model_fingerprint, uint64_t adapter_fingerprint, uint64_t salt)
{
	const uint64_t parts[] = {model_fingerprint, adapter_fingerprint, salt};
	return ruv_hash64(parts, sizeof parts, 0);
}

uint64_t ruv_prefix_key(uint64_t parent, const ruv_token *tokens)
{
	return ruv_hash64(tokens, PAGE * sizeof *tokens, parent);
}

static int32_t lookup(const ruv_prefix_cache *c, uint64_t key, const ruv_token *tokens)
{
	int32_t page = c->buckets[key & c->mask];
	while (page >= 0 && (c->keys[page] != key || memcmp(c->tokens + (size_t)page * PAGE, tokens, PAGE * sizeof *tokens) != 0))
		page = c->next[page];
	return page;
}

static void unlink_use(ruv_prefix_cache *c, int32_t page)
{
	c->newer[c->older[page]] = c->newer[page];
	c->older[c->newer[page]] = c->older[page];
}

static void link_newest(ruv_prefix_cache *c, int32_t page)
{
	const int32_t ends = c->pool->n_pages, newest = c->older[ends];
	c->newer[newest] = page;
	c->older[page] = newest;
	c->newer[page] = ends;
	c->older[ends] = page;
}

void ruv_prefix_touch(ruv_prefix_cache *c, int32_t page)
{
	if (!c->listed[page])
		return;
	unlink_use(c, page);
	link_newest(c, page);
}

int32_t ruv_prefix_find(ruv_prefix_cache *c, uint64_t key, const ruv_token *tokens)
{
	const int32_t page = lookup(c, key, tokens);
	if (page >= 0) {
		ruv_kv_pool_share(c->pool, page);
		ruv_prefix_touch(c, page);
	}
	return page;
}

int32_t ruv_prefix_peek(const ruv_prefix_cache *c, uint64_t key, const ruv_token *tokens)
{
	return lookup(c, key, tokens);
}

void ruv_prefix_add(ruv_prefix_cache *c, uint64_t key, const ruv_token *tokens, int32_t page, const void *state)
{
	const int32_t there = lookup(c, key, tokens);
	if (there < 0) {
		if (c->listed[page])
			return; /* listed under another key: cannot be, full pages do not change */
		ruv_kv_pool_share(c->pool, page);
		c->keys[page] = key;
		memcpy(c->tokens + (size_t)page * PAGE, tokens, PAGE * sizeof *tokens);
		c->next[page] = c->buckets[key & c->mask];
		c->buckets[key & c->mask] = page;
		c->listed[page] = true;
		c->has_state[page] = false;
		c->n_listed++;
		link_newest(c, page);
	} else {
		page = there;
	}
	if (state && c->states && !c->has_state[page]) {
		ruv_backend_copy(c->pool->backend, c->states + (size_t)page * c->state_bytes, state, c->state_bytes);
		c->has_state[page] = true;
	}
}

const void *ruv_prefix_state(const ruv_prefix_cache *c, int32_t page)
{
	return c->listed[page] && c->has_state[page] ? c->states + (size_t)page * c->state_bytes : NULL;
}

static void evict(ruv_prefix_cache *c, int32_t page)
{
	int32_t *at = &c->buckets[c->keys[page] & c->mask];
	while (*at != page)
		at = &c->next[*at];
	*at = c->next[page];
	unlink_use(c, page);
	c->listed[page] = false;
	c->n_listed--;
	c->n_evictions++;
	ruv_kv_pool_drop(c->pool, page);
}

int ruv_prefix_idle(const ruv_prefix_cache *c)
{
	int n = 0;
	for (int i = 0; i < c->pool->n_pages; i++)
		n += c->listed[i] && !ruv_kv_pool_is_shared(c->pool, i);
	return n;
}

bool ruv_prefix_make_free(ruv_prefix_cache *c, int n)
{
	const int32_t ends = c->pool->n_pages;
	for (int32_t page = c->newer[ends], newer; page != ends && c->pool->n_free < n; page = newer) {
		newer = c->newer[page];
		if (!ruv_kv_pool_is_shared(c->pool, page))
			evict(c, page);
	}
	return c->pool->n_free >= n;
}

/* cache.c - see cache.h. A list in the order of use, and a walk along it: with some hundred entries the compare of a 64-bit hash an
 * entry is nothing beside a search. Layer: memory. */
#include "memory/cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "memory/memory_impl.h"

typedef struct shared_arena {
	ruv_arena *arena;
	atomic_int users;
} shared_arena;

struct ruv_cache_owner {
	shared_arena *shared;
	ruv_memory_hit *items; /* the result's own copy, NULL when the arena holds it */
	ruv_arena *attached;   /* of this result alone, NULL: none */
};

typedef struct entry {
	uint64_t hash;
	char *key; /* NULL: free */
	size_t key_bytes;
	ruv_memory_hits hits; /* owner unused */
	shared_arena *shared;
	int64_t until_ms;
	uint64_t used; /* the clock of uses */
} entry;

struct ruv_cache {
	pthread_mutex_t lock;
	entry *entries; /* [n] */
	int n;
	int64_t ttl_ms;
	uint64_t clock;
};

static void let_go(shared_arena *shared)
{
	if (shared && atomic_fetch_sub(&shared->users, 1) == 1) {
		ruv_memory_arena_free(shared->arena);
		free(shared);
	}
}

int ruv_cache_own(ruv_memory_hits *hits, ruv_arena *arena, ruv_error *err)
{
	ruv_cache_owner *owner = calloc(1, sizeof *owner);
	shared_arena *shared = calloc(1, sizeof *shared);

	if (!owner || !shared) {
		free(owner);
		free(shared);
		ruv_memory_arena_free(arena);
		return ruv_fail_memory(err, "memory", sizeof *owner + sizeof *shared);
	}
	shared->arena = arena;
	atomic_init(&shared->users, 1);
	owner->shared = shared;
	hits->owner = owner;
	return RUV_OK;
}

void ruv_cache_release(void *of)
{
	ruv_cache_owner *owner = of;

	if (!owner)
		return;
	let_go(owner->shared);
	free(owner->items);
	ruv_memory_arena_free(owner->attached);
	free(owner);
}

void ruv_cache_attach(ruv_memory_hits *hits, ruv_arena *arena)
{
	ruv_cache_owner *owner = hits->owner;

	owner->attached = arena;
}

static void drop(entry *e)
{
	let_go(e->shared);
	free(e->key);
	free(e->hits.items);
	memset(e, 0, sizeof *e);
}

int ruv_cache_create(ruv_cache **out, int n_entries, int64_t ttl_ms, ruv_error *err)
{
	ruv_cache *c = calloc(1, sizeof *c);

	*out = NULL;
	if (c)
		c->entries = calloc((size_t)n_entries, sizeof *c->entries);
	if (!c || !c->entries) {
		free(c);
		return ruv_fail_memory(err, "memory", (size_t)n_entries * sizeof(entry));
	}
	pthread_mutex_init(&c->lock, NULL);
	c->n = n_entries;
	c->ttl_ms = ttl_ms;
	*out = c;
	return RUV_OK;
}

void ruv_cache_free(ruv_cache *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->n; i++)
		drop(&c->entries[i]);
	free(c->entries);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void put_text(ruv_buf *b, const char *text)
{
	ruv_buf_append(b, text ? "+" : "-", 1); /* NULL is not "" where it means any */
	ruv_buf_append(b, text ? text : "", text ? strlen(text) + 1 : 1);
}

int ruv_cache_key(ruv_buf *b, const ruv_memory_query *q, int dimension, int64_t seq)
{
	int32_t numbers[] = {q->k,
	                     (int)q->mode,
	                     q->filter.every_scope,
	                     (int)q->filter.types,
	                     q->filter.n_tags,
	                     (int)q->fusion,
	                     q->n_candidates,
	                     q->rrf_k,
	                     q->ef,
	                     q->exact,
	                     q->with_vectors,
	                     q->vector != NULL};
	float weights[] = {q->vector_weight,         q->lexical_weight, q->min_cosine,
	                   q->filter.min_confidence, q->label_weight,   q->confidence_weight,
	                   q->recency_weight,        q->recency_days,   q->mmr_lambda};
	int64_t times[] = {seq, q->filter.created_from_ms, q->filter.created_to_ms};

	ruv_buf_append(b, numbers, sizeof numbers);
	ruv_buf_append(b, weights, sizeof weights);
	ruv_buf_append(b, times, sizeof times);
	put_text(b, q->text);
	put_text(b, q->filter.scope.user);
	put_text(b, q->filter.scope.agent);
	put_text(b, q->filter.scope.session);
	put_text(b, q->filter.domain);
	put_text(b, q->filter.source);
	for (int i = 0; i < q->filter.n_tags; i++)
		put_text(b, q->filter.tags[i]);
	if (q->vector)
		ruv_buf_append(b, q->vector, sizeof *q->vector * (size_t)dimension);
	return b->failed;
}

bool ruv_cache_find(ruv_cache *c, ruv_memory_hits *hits, const ruv_buf *key, int64_t now_ms)
{
	uint64_t hash = ruv_hash64(key->data, key->len, 0);
	ruv_cache_owner *owner = NULL;

	pthread_mutex_lock(&c->lock);
	for (int i = 0; i < c->n && !owner; i++) {
		entry *e = &c->entries[i];
		if (!e->key || e->hash != hash || e->key_bytes != key->len || memcmp(e->key, key->data, key->len))
			continue;
		if (now_ms >= e->until_ms) {
			drop(e);
			break;
		}
		owner = calloc(1, sizeof *owner);
		if (owner)
			owner->items = malloc((size_t)e->hits.n * sizeof *owner->items + 1);
		if (!owner || !owner->items) {
			free(owner);
			owner = NULL;
			break; /* without memory for it, it is computed, which says so */
		}
		memcpy(owner->items, e->hits.items, (size_t)e->hits.n * sizeof *owner->items);
		owner->shared = e->shared;
		atomic_fetch_add(&e->shared->users, 1);
		*hits = e->hits;
		hits->items = owner->items;
		hits->owner = owner;
		hits->cached = true;
		e->used = ++c->clock;
	}
	pthread_mutex_unlock(&c->lock);
	return owner != NULL;
}

void ruv_cache_keep(ruv_cache *c, const ruv_memory_hits *hits, const ruv_buf *key, int64_t now_ms, int64_t expires_ms)
{
	const ruv_cache_owner *owner = hits->owner;
	ruv_memory_hit *items = malloc((size_t)hits->n * sizeof *items + 1);
	char *copy = malloc(key->len);
	entry *oldest;

	if (!items || !copy) { /* then it is not kept */
		free(items);
		free(copy);
		return;
	}
	if (hits->n)
		memcpy(items, hits->items, (size_t)hits->n * sizeof *items);
	memcpy(copy, key->data, key->len);
	pthread_mutex_lock(&c->lock);
	oldest = &c->entries[0];
	for (int i = 0; i < c->n; i++) {
		entry *e = &c->entries[i];
		if (!e->key) {
			oldest = e;
			break;
		}
		oldest = e->used < oldest->used ? e : oldest;
	}
	drop(oldest);
	atomic_fetch_add(&owner->shared->users, 1);
	*oldest = (entry){.hash = ruv_hash64(key->data, key->len, 0),
	                  .key = copy,
	                  .key_bytes = key->len,
	                  .hits = *hits,
	                  .shared = owner->shared,
	                  .until_ms = now_ms + c->ttl_ms,
	                  .used = ++c->clock};
	oldest->hits.items = items;
	oldest->hits.owner = NULL;
	if (expires_ms && expires_ms < oldest->until_ms)
		oldest->until_ms = expires_ms;
	pthread_mutex_unlock(&c->lock);
}

/* vectors.c - the table of vectors.h.
 *
 * Chunks hang in a directory of fixed size, so that readers never see it move. The writer keeps, under `lock`, the map from key to
 * slot, the free slots, and the slots that readers may still look at (retired in epoch e, free from e + 2 on). Publishing a slot is
 * the store of its key; removing it is the store of 0; replacing it marks it dead for readers of later epochs. Texts become numbers
 * in an append-only table; numbers are never reused. Layer: memory. */
#include "memory/vectors.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct retired {
	uint32_t slot;
	unsigned epoch;
} retired;

/* Open addressing, linear probing, at most 2/3 full. */
typedef struct key_map {
	int64_t *keys; /* 0: empty, -1: deleted */
	uint32_t *slots;
	size_t cap, used; /* used: not empty */
	size_t n;
} key_map;

typedef struct texts {
	char **items; /* [n]; items[0] is "" */
	uint32_t n, cap;
	uint32_t *buckets; /* number + 1; 0: empty */
	uint32_t n_buckets;
	size_t bytes;
} texts;

struct ruv_vectors {
	int dimension, stride;
	ruv_epoch epoch;
	_Atomic(ruv_vectors_chunk *) *chunks; /* [RUV_VECTORS_MAX_CHUNKS] */
	atomic_uint n_slots;
	_Atomic int64_t count;
	atomic_uint n_dead; /* slots that are marked dead and not yet free */

	pthread_mutex_t lock; /* over what is below */
	key_map map;
	uint32_t *free_slots;
	size_t n_free, free_cap;
	retired *retired; /* a ring would do; in practice a handful */
	size_t n_retired, retired_cap;
	texts texts;
};

/* ---- key -> slot ---- */

static uint64_t mix(int64_t key)
{
	uint64_t x = (uint64_t)key * 0x9e3779b97f4a7c15u;

	return x ^ x >> 32;
}

static size_t map_find(const key_map *map, int64_t key)
{
	if (!map->cap || key <= 0)
		return SIZE_MAX;
	for (size_t i = mix(key) & (map->cap - 1);; i = (i + 1) & (map->cap - 1)) {
		if (map->keys[i] == key)
			return i;
		if (map->keys[i] == 0)
			return SIZE_MAX;
	}
}

static int map_grow(key_map *map, ruv_error *err)
{
	size_t cap = 64;
	int64_t *keys;
	uint32_t *slots;

	while (cap < map->n * 3)
		cap *= 2;
	keys = calloc(cap, sizeof *keys);
	slots = malloc(cap * sizeof *slots);
	if (!keys || !slots) {
		free(keys);
		free(slots);
		return ruv_fail_memory(err, "memory", cap * (sizeof *keys + sizeof *slots));
	}
	for (size_t i = 0; i < map->cap; i++) {
		if (map->keys[i] > 0) {
			size_t j = mix(map->keys[i]) & (cap - 1);
			while (keys[j])
				j = (j + 1) & (cap - 1);
			keys[j] = map->keys[i];
			slots[j] = map->slots[i];
		}
	}
	free(map->keys);
	free(map->slots);
	map->keys = keys;
	map->slots = slots;
	map->cap = cap;
	map->used = map->n;
	return RUV_OK;
}

/* There is room (map_reserve) and the key is not there. */
static void map_add(key_map *map, int64_t key, uint32_t slot)
{
	size_t i = mix(key) & (map->cap - 1);

	while (map->keys[i] > 0)
		i = (i + 1) & (map->cap - 1);
	if (map->keys[i] == 0)
		map->used++;
	map->keys[i] = key;
	map->slots[i] = slot;
	map->n++;
}

static int map_reserve(key_map *map, ruv_error *err)
{
	return map->cap && (map->used + 1) * 3 <= map->cap * 2 ? RUV_OK : map_grow(map, err);
}

/* ---- texts -> numbers ---- */

static uint32_t text_find(const texts *t, const char *text, size_t n)
{
	uint32_t i;

	if (!n)
		return 0;
	if (!t->n_buckets)
		return UINT32_MAX;
	for (i = (uint32_t)ruv_hash64(text, n, 0) & (t->n_buckets - 1); t->buckets[i]; i = (i + 1) & (t->n_buckets - 1)) {
		const char *item = t->items[t->buckets[i] - 1];
		if (!strncmp(item, text, n) && !item[n])
			return t->buckets[i] - 1;
	}
	return UINT32_MAX;
}

static int text_add(texts *t, uint32_t *number, const char *text, ruv_error *err)
{
	size_t n = strlen(text);
	uint32_t i;

	*number = text_find(t, text, n);
	if (*number != UINT32_MAX)
		return RUV_OK;
	if (t->n == t->cap) {
		uint32_t cap = t->cap ? t->cap * 2 : 64;
		char **items = realloc(t->items, cap * sizeof *items);
		uint32_t *buckets = calloc((size_t)cap * 2, sizeof *buckets);
		if (items)
			t->items = items;
		if (!items || !buckets) {
			free(buckets);
			return ruv_fail_memory(err, "memory", cap * (sizeof *items + 2 * sizeof *buckets));
		}
		for (uint32_t j = 1; j < t->n; j++) {
			for (i = (uint32_t)ruv_hash64(items[j], strlen(items[j]), 0) & (cap * 2 - 1); buckets[i];
			     i = (i + 1) & (cap * 2 - 1))
				;
			buckets[i] = j + 1;
		}
		free(t->buckets);
		t->buckets = buckets;
		t->n_buckets = cap * 2;
		t->cap = cap;
	}
	t->items[t->n] = malloc(n + 1);
	if (!t->items[t->n])
		return ruv_fail_memory(err, "memory", n + 1);
	memcpy(t->items[t->n], text, n + 1);
	for (i = (uint32_t)ruv_hash64(text, n, 0) & (t->n_buckets - 1); t->buckets[i]; i = (i + 1) & (t->n_buckets - 1))
		;
	t->buckets[i] = t->n + 1;
	t->bytes += n + 1;
	*number = t->n++;
	return RUV_OK;
}

/* ---- the table ---- */

int ruv_vectors_create(ruv_vectors **out, int dimension, ruv_error *err)
{
	ruv_vectors *v = calloc(1, sizeof *v);
	uint32_t zero;

	*out = NULL;
	if (!v)
		return ruv_fail_memory(err, "memory", sizeof *v);
	v->dimension = dimension;
	v->stride = (dimension + 15) & ~15;
	ruv_epoch_init(&v->epoch);
	pthread_mutex_init(&v->lock, NULL);
	v->chunks = calloc(RUV_VECTORS_MAX_CHUNKS, sizeof *v->chunks);
	v->texts.cap = 64;
	v->texts.items = calloc(v->texts.cap, sizeof *v->texts.items);
	v->texts.n_buckets = 128;
	v->texts.buckets = calloc(v->texts.n_buckets, sizeof *v->texts.buckets);
	zero = 0;
	if (v->texts.items)
		v->texts.items[0] = calloc(1, 1);
	if (!v->chunks || !v->texts.items || !v->texts.buckets || !v->texts.items[zero]) {
		ruv_vectors_free(v);
		return ruv_fail_memory(err, "memory", RUV_VECTORS_MAX_CHUNKS * sizeof *v->chunks);
	}
	v->texts.n = 1;
	*out = v;
	return RUV_OK;
}

void ruv_vectors_free(ruv_vectors *v)
{
	if (!v)
		return;
	for (size_t i = 0; v->chunks && i < RUV_VECTORS_MAX_CHUNKS; i++) {
		ruv_vectors_chunk *chunk = atomic_load(&v->chunks[i]);
		if (!chunk)
			break;
		free(chunk->rows);
		free(chunk);
	}
	free(v->chunks);
	free(v->map.keys);
	free(v->map.slots);
	free(v->free_slots);
	free(v->retired);
	for (uint32_t i = 0; v->texts.items && i < v->texts.cap && i < (v->texts.n ? v->texts.n : 1); i++)
		free(v->texts.items[i]);
	free(v->texts.items);
	free(v->texts.buckets);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

int ruv_vectors_dimension(const ruv_vectors *v)
{
	return v->dimension;
}

int ruv_vectors_stride(const ruv_vectors *v)
{
	return v->stride;
}

int64_t ruv_vectors_count(const ruv_vectors *v)
{
	return atomic_load(&v->count);
}

int64_t ruv_vectors_bytes(const ruv_vectors *v)
{
	uint32_t n_chunks = (atomic_load(&v->n_slots) + RUV_VECTORS_CHUNK - 1) / RUV_VECTORS_CHUNK;

	return (int64_t)n_chunks * (int64_t)(sizeof(ruv_vectors_chunk) + sizeof(float) * RUV_VECTORS_CHUNK * (size_t)v->stride) +
	       (int64_t)(v->map.cap * (sizeof(int64_t) + sizeof(uint32_t))) + (int64_t)v->texts.bytes;
}

/* Moves what no reader can see any more to the free slots. */
static void reclaim(ruv_vectors *v)
{
	unsigned now = ruv_epoch_advance(&v->epoch);
	size_t kept = 0;

	for (size_t i = 0; i < v->n_retired; i++) {
		uint32_t slot = v->retired[i].slot;
		ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
		if ((int)(now - v->retired[i].epoch) < 2) {
			v->retired[kept++] = v->retired[i];
			continue;
		}
		if (atomic_exchange(&chunk->keys[slot % RUV_VECTORS_CHUNK], 0))
			atomic_fetch_sub(&v->n_dead, 1);
		v->free_slots[v->n_free++] = slot; /* room was made when it was retired */
	}
	v->n_retired = kept;
}

/* Room for one more retired slot and, later, one more free slot. */
static int reserve_retired(ruv_vectors *v, ruv_error *err)
{
	if (v->n_retired == v->retired_cap) {
		size_t cap = v->retired_cap ? v->retired_cap * 2 : 64;
		retired *grown = realloc(v->retired, cap * sizeof *grown);
		if (!grown)
			return ruv_fail_memory(err, "memory", cap * sizeof *grown);
		v->retired = grown;
		v->retired_cap = cap;
	}
	if (v->n_free + v->n_retired + 1 > v->free_cap) {
		size_t cap = v->free_cap ? v->free_cap * 2 : 64;
		uint32_t *grown = realloc(v->free_slots, cap * sizeof *grown);
		if (!grown)
			return ruv_fail_memory(err, "memory", cap * sizeof *grown);
		v->free_slots = grown;
		v->free_cap = cap;
	}
	return RUV_OK;
}

static void retire(ruv_vectors *v, uint32_t slot, bool removed)
{
	ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
	unsigned epoch = atomic_load(&v->epoch.current);

	if (removed)
		atomic_store(&chunk->keys[slot % RUV_VECTORS_CHUNK], 0);
	else
		atomic_store(&chunk->dead[slot % RUV_VECTORS_CHUNK], epoch);
	v->retired[v->n_retired++] = (retired){slot, epoch};
	atomic_fetch_sub(&v->count, 1);
	ruv_epoch_advance(&v->epoch); /* readers that come now leave the dead slot alone */
}

static int take_slot(ruv_vectors *v, uint32_t *slot, ruv_error *err)
{
	uint32_t n = atomic_load(&v->n_slots);
	ruv_vectors_chunk *chunk;

	if (v->n_retired)
		reclaim(v);
	if (v->n_free) {
		*slot = v->free_slots[--v->n_free];
		return RUV_OK;
	}
	if (n / RUV_VECTORS_CHUNK >= RUV_VECTORS_MAX_CHUNKS)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%u vectors are in memory, which is the most", n);
	if (n % RUV_VECTORS_CHUNK == 0 && !atomic_load(&v->chunks[n / RUV_VECTORS_CHUNK])) {
		size_t bytes = sizeof(float) * RUV_VECTORS_CHUNK * (size_t)v->stride;
		chunk = calloc(1, sizeof *chunk);
		if (chunk)
			chunk->rows = aligned_alloc(64, bytes);
		if (!chunk || !chunk->rows) {
			free(chunk);
			return ruv_fail_memory(err, "memory", sizeof *chunk + bytes);
		}
		atomic_store(&v->chunks[n / RUV_VECTORS_CHUNK], chunk);
	}
	atomic_store(&v->n_slots, n + 1); /* readers that see it find key 0 until it is published */
	*slot = n;
	return RUV_OK;
}

static int make_labels(ruv_vectors *v, ruv_labels *l, const ruv_store_row *row, ruv_error *err)
{
	int rc = text_add(&v->texts, &l->user, row->user, err);

	if (!rc)
		rc = text_add(&v->texts, &l->agent, row->agent, err);
	if (!rc)
		rc = text_add(&v->texts, &l->session, row->session, err);
	if (!rc)
		rc = text_add(&v->texts, &l->domain, row->domain, err);
	if (!rc)
		rc = text_add(&v->texts, &l->source, row->source, err);
	if (!rc)
		rc = text_add(&v->texts, &l->tags, row->tags, err);
	l->type = (uint32_t)row->type;
	l->confidence = row->confidence;
	l->created_ms = row->created_ms;
	l->expires_ms = row->expires_ms;
	return rc;
}

int ruv_vectors_put(ruv_vectors *v, const ruv_store_row *row, ruv_error *err)
{
	ruv_labels labels = {0};
	ruv_vectors_chunk *chunk;
	double norm = 0;
	size_t at;
	uint32_t slot = 0, in_chunk;
	float *to;
	int rc;

	if (row->key <= 0)
		return ruv_fail(err, RUV_EINVAL, "memory", "key %lld is none", (long long)row->key);
	pthread_mutex_lock(&v->lock);
	rc = make_labels(v, &labels, row, err);
	if (!rc)
		rc = reserve_retired(v, err);
	if (!rc)
		rc = map_reserve(&v->map, err);
	if (!rc)
		rc = take_slot(v, &slot, err);
	if (rc)
		goto done;
	chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
	in_chunk = slot % RUV_VECTORS_CHUNK;
	to = chunk->rows + (size_t)in_chunk * (size_t)v->stride;
	for (int i = 0; i < v->dimension; i++)
		norm += (double)row->vector[i] * row->vector[i];
	norm = norm > 0 ? 1 / sqrt(norm) : 0;
	for (int i = 0; i < v->dimension; i++)
		to[i] = (float)(row->vector[i] * norm);
	memset(to + v->dimension, 0, sizeof *to * (size_t)(v->stride - v->dimension));
	chunk->labels[in_chunk] = labels;
	at = map_find(&v->map, row->key);
	if (at != SIZE_MAX)
		atomic_fetch_add(&v->n_dead, 1); /* before anybody can see the key twice */
	atomic_store(&chunk->dead[in_chunk], 0);
	atomic_store(&chunk->keys[in_chunk], row->key);
	atomic_fetch_add(&v->count, 1);
	if (at != SIZE_MAX) {
		retire(v, v->map.slots[at], false);
		v->map.slots[at] = slot;
	} else {
		map_add(&v->map, row->key, slot);
	}
done:
	pthread_mutex_unlock(&v->lock);
	return rc;
}

void ruv_vectors_remove(ruv_vectors *v, int64_t key)
{
	size_t at;

	pthread_mutex_lock(&v->lock);
	at = map_find(&v->map, key);
	if (at != SIZE_MAX) {
		uint32_t slot = v->map.slots[at];
		v->map.keys[at] = -1;
		v->map.n--;
		if (reserve_retired(v, NULL) == RUV_OK) {
			retire(v, slot, true);
		} else {
			/* No memory to remember the slot: it is out of every search, and stays unused. */
			ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
			atomic_store(&chunk->keys[slot % RUV_VECTORS_CHUNK], 0);
			atomic_fetch_sub(&v->count, 1);
		}
	}
	pthread_mutex_unlock(&v->lock);
}

/* ---- readers ---- */

unsigned ruv_vectors_enter(ruv_vectors *v)
{
	return ruv_epoch_enter(&v->epoch);
}

void ruv_vectors_leave(ruv_vectors *v, unsigned ticket)
{
	ruv_epoch_leave(&v->epoch, ticket);
}

bool ruv_vectors_has_dead(const ruv_vectors *v)
{
	return atomic_load(&v->n_dead) > 0;
}

uint32_t ruv_vectors_n_slots(const ruv_vectors *v)
{
	return atomic_load(&v->n_slots);
}

const ruv_vectors_chunk *ruv_vectors_chunk_at(const ruv_vectors *v, uint32_t chunk)
{
	return atomic_load(&v->chunks[chunk]);
}

const float *ruv_vectors_find(ruv_vectors *v, int64_t key)
{
	const float *row = NULL;
	size_t at;

	pthread_mutex_lock(&v->lock);
	at = map_find(&v->map, key);
	if (at != SIZE_MAX) {
		uint32_t slot = v->map.slots[at];
		row = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK])->rows +
		      (size_t)(slot % RUV_VECTORS_CHUNK) * (size_t)v->stride;
	}
	pthread_mutex_unlock(&v->lock);
	return row;
}

/* ---- filters ---- */

static bool has_tag(const char *set, const char *tag)
{
	size_t n = strlen(tag);

	for (const char *p = set; (p = strchr(p, '\n')) && p[1]; p++)
		if (!strncmp(p + 1, tag, n) && p[1 + n] == '\n')
			return true;
	return false;
}

int ruv_label_filter_init(ruv_label_filter *out, ruv_vectors *v, const ruv_memory_filter *filter, int64_t now_ms, ruv_error *err)
{
	const char *user = filter->scope.user ? filter->scope.user : "", *agent = filter->scope.agent ? filter->scope.agent : "";
	const char *session = filter->scope.session ? filter->scope.session : "";
	int rc = RUV_OK;

	memset(out, 0, sizeof *out);
	out->every_scope = filter->every_scope;
	out->types = filter->types;
	out->from_ms = filter->created_from_ms;
	out->to_ms = filter->created_to_ms;
	out->min_confidence = filter->min_confidence;
	out->now_ms = now_ms;
	pthread_mutex_lock(&v->lock);
	/* A text that no node has matches no node but those that are anybody's (number 0). */
	out->user = text_find(&v->texts, user, strlen(user));
	out->agent = text_find(&v->texts, agent, strlen(agent));
	out->session = text_find(&v->texts, session, strlen(session));
	if (filter->domain)
		out->domain = text_find(&v->texts, filter->domain, strlen(filter->domain));
	if (filter->source)
		out->source = text_find(&v->texts, filter->source, strlen(filter->source));
	if (filter->n_tags) {
		out->n_texts = v->texts.n;
		out->tags_ok = calloc(out->n_texts, 1);
		if (!out->tags_ok)
			rc = ruv_fail_memory(err, "memory", out->n_texts);
		for (uint32_t i = 1; !rc && i < out->n_texts; i++) {
			bool ok = v->texts.items[i][0] == '\n';
			for (int t = 0; ok && t < filter->n_tags; t++)
				ok = has_tag(v->texts.items[i], filter->tags[t]);
			out->tags_ok[i] = ok;
		}
	}
	pthread_mutex_unlock(&v->lock);
	out->any = !out->types && !out->domain && !out->source && !out->from_ms && !out->to_ms && out->min_confidence <= 0 &&
	           !out->tags_ok;
	return rc;
}

void ruv_label_filter_release(ruv_label_filter *filter)
{
	free(filter->tags_ok);
	filter->tags_ok = NULL;
}

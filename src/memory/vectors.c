/* vectors.c - the table of vectors.h.
 *
 * Chunks hang in a directory of fixed size, so that readers never see it move. The writer keeps, under `lock`, the map from key to
 * slot, the free slots, and the slots that readers may still look at (retired in epoch e, free from e + 2 on). Publishing a slot is
 * the store of its key; removing it is the store of 0; replacing it marks it dead for readers of later epochs. Texts become numbers
 * in an append-only table; numbers are never reused. Layer: memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"
#include "memory/vectors_impl.h"

typedef ruv_retired_slot retired;

/* ---- the table ---- */

int ruv_vectors_create(ruv_vectors **out, int dimension, ruv_error *err)
{
	ruv_vectors *v = calloc(1, sizeof *v);
	int rc;

	*out = NULL;
	if (!v)
		return ruv_fail_memory(err, "memory", sizeof *v);
	v->dimension = dimension;
	v->stride = (dimension + 15) & ~15;
	ruv_epoch_init(&v->epoch);
	pthread_mutex_init(&v->lock, NULL);
	v->chunks = calloc(RUV_VECTORS_MAX_CHUNKS, sizeof *v->chunks);
	rc =
	    v->chunks ? ruv_texts_init(&v->texts, err) : ruv_fail_memory(err, "memory", RUV_VECTORS_MAX_CHUNKS * sizeof *v->chunks);
	if (rc) {
		ruv_vectors_free(v);
		return rc;
	}
	*out = v;
	return RUV_OK;
}

static void free_chunk(ruv_vectors_chunk *chunk)
{
	if (!chunk)
		return;
	if (!chunk->mapped)
		free(chunk->rows);
	free(chunk->labels);
	free((void *)chunk->dead);
	free((void *)chunk->keys);
	free(chunk);
}

void ruv_vectors_free(ruv_vectors *v)
{
	if (!v)
		return;
	for (size_t i = 0; v->chunks && i < RUV_VECTORS_MAX_CHUNKS && atomic_load(&v->chunks[i]); i++)
		free_chunk(atomic_load(&v->chunks[i]));
	free(v->chunks);
	ruv_key_map_release(&v->keys);
	free(v->free_slots);
	free(v->retired);
	ruv_texts_release(&v->texts);
	if (v->map)
		munmap(v->map, v->map_bytes);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

int ruv_vectors_make_chunk(ruv_vectors *v, uint32_t at, float *rows, ruv_error *err)
{
	size_t bytes = sizeof(float) * RUV_VECTORS_CHUNK * (size_t)v->stride;
	ruv_vectors_chunk *chunk = calloc(1, sizeof *chunk);

	if (chunk) {
		chunk->mapped = rows != NULL;
		chunk->rows = rows ? rows : aligned_alloc(64, bytes);
		chunk->labels = calloc(RUV_VECTORS_CHUNK, sizeof *chunk->labels);
		chunk->dead = calloc(RUV_VECTORS_CHUNK, sizeof *chunk->dead);
		chunk->keys = calloc(RUV_VECTORS_CHUNK, sizeof *chunk->keys);
	}
	if (!chunk || !chunk->rows || !chunk->labels || !chunk->dead || !chunk->keys) {
		free_chunk(chunk);
		return ruv_fail_memory(err, "memory", bytes + RUV_VECTORS_CHUNK * 64);
	}
	atomic_store(&v->chunks[at], chunk);
	return RUV_OK;
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

int64_t ruv_vectors_bytes(ruv_vectors *v, int64_t *mapped)
{
	uint32_t n_chunks = (atomic_load(&v->n_slots) + RUV_VECTORS_CHUNK - 1) / RUV_VECTORS_CHUNK;
	int64_t a_chunk = (int64_t)sizeof(float) * RUV_VECTORS_CHUNK * v->stride, n_mapped = 0, bytes;

	for (uint32_t i = 0; i < n_chunks; i++)
		n_mapped += atomic_load(&v->chunks[i])->mapped;
	if (mapped)
		*mapped = n_mapped * a_chunk;
	bytes = (int64_t)n_chunks * (int64_t)(sizeof(ruv_vectors_chunk) +
	                                      RUV_VECTORS_CHUNK * (sizeof(ruv_labels) + sizeof(int64_t) + sizeof(int))) +
	        ((int64_t)n_chunks - n_mapped) * a_chunk;
	pthread_mutex_lock(&v->lock);
	bytes += ruv_key_map_bytes(&v->keys);
	pthread_mutex_unlock(&v->lock);
	pthread_mutex_lock(&v->texts.lock);
	bytes += (int64_t)v->texts.bytes;
	pthread_mutex_unlock(&v->texts.lock);
	return bytes;
}

ruv_texts *ruv_vectors_texts(ruv_vectors *v)
{
	return &v->texts;
}

int64_t ruv_vectors_n_restricted(const ruv_vectors *v)
{
	return atomic_load(&v->n_restricted);
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

	atomic_fetch_sub(&v->n_restricted, ruv_labels_restrict(&chunk->labels[slot % RUV_VECTORS_CHUNK]));
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

	if (v->n_retired)
		reclaim(v);
	if (v->n_free) {
		*slot = v->free_slots[--v->n_free];
		return RUV_OK;
	}
	if (n / RUV_VECTORS_CHUNK >= RUV_VECTORS_MAX_CHUNKS)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%u vectors are in memory, which is the most", n);
	if (n % RUV_VECTORS_CHUNK == 0 && !atomic_load(&v->chunks[n / RUV_VECTORS_CHUNK])) {
		int rc = ruv_vectors_make_chunk(v, n / RUV_VECTORS_CHUNK, NULL, err);
		if (rc)
			return rc;
	}
	atomic_store(&v->n_slots, n + 1); /* readers that see it find key 0 until it is published */
	*slot = n;
	return RUV_OK;
}

/* to [stride]: unit length, zeros behind the dimension. */
static void normalise(const ruv_vectors *v, float *to, const float *from)
{
	double norm = 0;

	for (int i = 0; i < v->dimension; i++)
		norm += (double)from[i] * from[i];
	norm = norm > 0 ? 1 / sqrt(norm) : 0;
	for (int i = 0; i < v->dimension; i++)
		to[i] = (float)(from[i] * norm);
	memset(to + v->dimension, 0, sizeof *to * (size_t)(v->stride - v->dimension));
}

int ruv_vectors_put_at(ruv_vectors *v, const ruv_store_row *row, uint32_t *slot_out, uint32_t *old, ruv_error *err)
{
	ruv_labels labels = {0};
	ruv_vectors_chunk *chunk;
	size_t at;
	uint32_t slot = 0, in_chunk;
	float *to;
	int rc;

	if (row->key <= 0)
		return ruv_fail(err, RUV_EINVAL, "memory", "key %lld is none", (long long)row->key);
	*old = RUV_NO_SLOT;
	rc = ruv_labels_of_row(&labels, &v->texts, row, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&v->lock);
	rc = reserve_retired(v, err);
	if (!rc)
		rc = ruv_key_map_reserve(&v->keys, 1, err);
	if (!rc)
		rc = take_slot(v, &slot, err);
	if (rc)
		goto done;
	chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
	in_chunk = slot % RUV_VECTORS_CHUNK;
	to = chunk->rows + (size_t)in_chunk * (size_t)v->stride;
	normalise(v, to, row->vector);
	chunk->labels[in_chunk] = labels;
	at = ruv_key_map_find(&v->keys, row->key);
	if (at != SIZE_MAX)
		atomic_fetch_add(&v->n_dead, 1); /* before anybody can see the key twice */
	atomic_store(&chunk->dead[in_chunk], 0);
	atomic_store(&chunk->keys[in_chunk], row->key);
	atomic_fetch_add(&v->count, 1);
	atomic_fetch_add(&v->n_restricted, ruv_labels_restrict(&labels));
	*slot_out = slot;
	if (at != SIZE_MAX) {
		*old = v->keys.values[at];
		retire(v, *old, false);
		v->keys.values[at] = slot;
	} else {
		ruv_key_map_add(&v->keys, row->key, slot);
	}
done:
	pthread_mutex_unlock(&v->lock);
	return rc;
}

int ruv_vectors_put(ruv_vectors *v, const ruv_store_row *row, ruv_error *err)
{
	uint32_t slot, old;

	return ruv_vectors_put_at(v, row, &slot, &old, err);
}

uint32_t ruv_vectors_remove_at(ruv_vectors *v, int64_t key)
{
	uint32_t slot = RUV_NO_SLOT;
	size_t at;

	pthread_mutex_lock(&v->lock);
	at = ruv_key_map_find(&v->keys, key);
	if (at != SIZE_MAX) {
		slot = v->keys.values[at];
		ruv_key_map_remove_at(&v->keys, at);
		if (reserve_retired(v, NULL) == RUV_OK) {
			retire(v, slot, true);
		} else {
			/* No memory to remember the slot: it is out of every search, and stays unused. */
			ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
			atomic_store(&chunk->keys[slot % RUV_VECTORS_CHUNK], 0);
			atomic_fetch_sub(&v->count, 1);
			atomic_fetch_sub(&v->n_restricted, ruv_labels_restrict(&chunk->labels[slot % RUV_VECTORS_CHUNK]));
		}
	}
	pthread_mutex_unlock(&v->lock);
	return slot;
}

void ruv_vectors_remove(ruv_vectors *v, int64_t key)
{
	(void)ruv_vectors_remove_at(v, key);
}

bool ruv_vectors_same(ruv_vectors *v, const ruv_store_row *row)
{
	float unit[RUV_MEMORY_MAX_DIMENSION + 16];
	ruv_labels labels = {0};
	bool same;
	size_t at;

	pthread_mutex_lock(&v->lock);
	same = ruv_key_map_find(&v->keys, row->key) != SIZE_MAX;
	pthread_mutex_unlock(&v->lock);
	if (!same || ruv_labels_of_row(&labels, &v->texts, row, NULL))
		return false;
	normalise(v, unit, row->vector);
	pthread_mutex_lock(&v->lock);
	at = ruv_key_map_find(&v->keys, row->key);
	if (at != SIZE_MAX) {
		uint32_t slot = v->keys.values[at];
		const ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);
		same = !memcmp(ruv_vectors_row(v, slot), unit, sizeof *unit * (size_t)v->stride) &&
		       !memcmp(&chunk->labels[slot % RUV_VECTORS_CHUNK], &labels, sizeof labels);
	}
	pthread_mutex_unlock(&v->lock);
	return same && at != SIZE_MAX;
}

/* ---- taking over a segment ---- */

bool ruv_vectors_adopt(ruv_vectors *v, int64_t key, uint32_t slot)
{
	ruv_vectors_chunk *chunk = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK]);

	if (ruv_key_map_find(&v->keys, key) != SIZE_MAX)
		return false;
	ruv_key_map_add(&v->keys, key, slot);
	atomic_store(&chunk->keys[slot % RUV_VECTORS_CHUNK], key);
	atomic_fetch_add(&v->count, 1);
	atomic_fetch_add(&v->n_restricted, ruv_labels_restrict(&chunk->labels[slot % RUV_VECTORS_CHUNK]));
	return true;
}

int ruv_vectors_free_slot(ruv_vectors *v, uint32_t slot, ruv_error *err)
{
	int rc = reserve_retired(v, err);

	if (!rc)
		v->free_slots[v->n_free++] = slot;
	return rc;
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
	at = ruv_key_map_find(&v->keys, key);
	if (at != SIZE_MAX) {
		uint32_t slot = v->keys.values[at];
		row = atomic_load(&v->chunks[slot / RUV_VECTORS_CHUNK])->rows +
		      (size_t)(slot % RUV_VECTORS_CHUNK) * (size_t)v->stride;
	}
	pthread_mutex_unlock(&v->lock);
	return row;
}

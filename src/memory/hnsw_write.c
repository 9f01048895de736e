/* hnsw_write.c - adding, removing and replacing nodes; see hnsw.h and hnsw_impl.h.
 *
 * Everything that can fail comes before the first node is visible: ids, memory, scratch of every thread. Then all codes are
 * written, then keys, then each node is linked. A node's own lists stand on all its levels before any other node gets a link to it,
 * level 0 first, so that whoever comes to it can go on. Threads of one add meet at lists only, under a lock of the list's id;
 * searches take no lock. Layer: memory. */
#include <math.h>
#include <sched.h>
#include <stdlib.h>

#include "memory/hnsw_impl.h"

enum {
	CENTRE_MIN = 256, /* fewer vectors have no centre worth having */
	CENTRE_SAMPLE = 20000,
	REPAIR_MIN = 64,   /* removed nodes, and a 64th of all, before a repair comes by itself; so many suffice in any case, */
	REPAIR_MAX = 4096, /* lest it takes seconds */
	REPAIR_SHARE = 64,
	BLOCK = 32 /* nodes of one task */
};

static const char *const WHERE = "vector index";

/* ---- ids ---- */

int ruv_hnsw_ids_reserve(hnsw_ids *ids, size_t n_more, ruv_error *err)
{
	size_t cap = ids->cap;
	uint32_t *grown;

	if (ids->n + n_more <= cap)
		return RUV_OK;
	while (cap < ids->n + n_more)
		cap = cap ? 2 * cap : 64;
	grown = realloc(ids->at, cap * sizeof *grown);
	if (!grown)
		return ruv_fail_memory(err, WHERE, cap * sizeof *grown);
	ids->at = grown;
	ids->cap = cap;
	return RUV_OK;
}

int ruv_hnsw_ids_push(hnsw_ids *ids, uint32_t id, ruv_error *err)
{
	int rc = ruv_hnsw_ids_reserve(ids, 1, err);

	if (!rc)
		ids->at[ids->n++] = id;
	return rc;
}

void ruv_hnsw_reclaim(ruv_hnsw *x)
{
	unsigned now;
	size_t kept = 0;

	if (!x->n_retired)
		return;
	now = ruv_epoch_advance(&x->epoch);
	for (size_t i = 0; i < x->n_retired; i++) {
		uint32_t id = x->retired[i].id;
		hnsw_tail *tail = hnsw_tail_of(x, id);
		/* Without memory for the lists of what is free, it stays retired. */
		if ((int)(now - x->retired[i].epoch) < 2 || ruv_hnsw_ids_reserve(&x->free_ids, 1, NULL) ||
		    (tail->level && ruv_hnsw_ids_reserve(&x->free_uppers[tail->level], 1, NULL))) {
			x->retired[kept++] = x->retired[i];
			continue;
		}
		if (tail->level)
			x->free_uppers[tail->level].at[x->free_uppers[tail->level].n++] = tail->upper;
		tail->level = tail->upper = 0;
		atomic_store_explicit(&tail->list[0], 0, memory_order_relaxed);
		atomic_store_explicit(&x->keys[id], 0, memory_order_release);
		atomic_store_explicit(&tail->dead, 0, memory_order_release);
		x->free_ids.at[x->free_ids.n++] = id;
	}
	x->n_retired = kept;
}

/* One id whose record is usable and that nobody looks at: free ones first, then new ones. n_new: new ones taken so far by the
 * caller and not yet counted in n_ids. */
static int take_id(ruv_hnsw *x, uint32_t *n_new, uint32_t *id, ruv_error *err)
{
	uint32_t n_ids = atomic_load_explicit(&x->n_ids, memory_order_relaxed) + *n_new;
	int rc;

	if (x->free_ids.n) {
		*id = x->free_ids.at[--x->free_ids.n];
		return RUV_OK;
	}
	if (n_ids >= x->params.max_nodes)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "%u nodes are the most this index holds", x->params.max_nodes);
	rc = ruv_hnsw_region_use(&x->record_region, ((size_t)n_ids + 1) * x->record_bytes, err);
	if (!rc)
		rc = ruv_hnsw_region_use(&x->key_region, ((size_t)n_ids + 1) * sizeof *x->keys, err);
	if (rc)
		return rc;
	*id = n_ids;
	++*n_new;
	return RUV_OK;
}

int ruv_hnsw_reserve(ruv_hnsw *x, uint32_t *ids, int n, ruv_error *err)
{
	size_t before;
	uint32_t n_new = 0;
	int rc;

	pthread_mutex_lock(&x->writer);
	ruv_hnsw_reclaim(x);
	before = x->reserved_ids.n;
	rc = ruv_hnsw_ids_reserve(&x->reserved_ids, (size_t)n, err);
	for (int i = 0; !rc && i < n; i++) {
		rc = take_id(x, &n_new, &ids[i], err);
		if (!rc)
			x->reserved_ids.at[x->reserved_ids.n++] = ids[i];
	}
	/* New records are all zeros: ids without a node, which n_ids may count from now on. */
	atomic_fetch_add(&x->n_ids, n_new);
	if (rc) {
		while (x->reserved_ids.n > before &&
		       !ruv_hnsw_ids_push(&x->free_ids, x->reserved_ids.at[x->reserved_ids.n - 1], NULL))
			x->reserved_ids.n--;
	}
	pthread_mutex_unlock(&x->writer);
	return rc;
}

int ruv_hnsw_upper_take(ruv_hnsw *x, int level, uint32_t *upper, ruv_error *err)
{
	uint32_t n_words = (uint32_t)(level * (1 + x->params.m));
	int rc;

	*upper = 0;
	if (!level)
		return RUV_OK;
	if (x->free_uppers[level].n) {
		*upper = x->free_uppers[level].at[--x->free_uppers[level].n];
		for (uint32_t i = 0; i < n_words; i++)
			atomic_store_explicit(&x->uppers[*upper + i], 0, memory_order_relaxed);
		return RUV_OK;
	}
	rc = ruv_hnsw_region_use(&x->upper_region, ((size_t)x->n_upper_words + n_words) * sizeof(uint32_t), err);
	if (rc)
		return rc;
	*upper = x->n_upper_words;
	x->n_upper_words += n_words;
	return RUV_OK;
}

/* ---- linking ---- */

int ruv_hnsw_select(const ruv_hnsw *x, hnsw_scratch *s, const hnsw_candidate *from, int n, int max, uint32_t *to, int n_to)
{
	enum { AT_ONCE = 8 };
	float d[AT_ONCE];

	for (int i = 0; i < n && n_to < max; i++) {
		bool good = true;
		if (n_to)
			ruv_code_query_of_code(&x->format, &s->other, hnsw_record(x, from[i].id));
		for (int j = 0; good && j < n_to; j += AT_ONCE) {
			int n_here = n_to - j < AT_ONCE ? n_to - j : AT_ONCE;
			x->distances(d, &x->format, &s->other, x->records, x->record_bytes, to + j, n_here);
			for (int l = 0; l < n_here; l++)
				good &= d[l] >= from[i].d;
		}
		if (good)
			to[n_to++] = from[i].id;
	}
	return n_to;
}

void ruv_hnsw_link(const ruv_hnsw *x, hnsw_scratch *s, uint32_t id, int level, uint32_t to)
{
	atomic_uint *list = hnsw_list(x, id, level);
	int cap = hnsw_list_cap(x, level), n = hnsw_list_n(list, cap), kept = 0;
	hnsw_candidate *sorted = s->list; /* room for m0 + 1: made by the caller */

	for (int i = 0; i < n; i++) {
		uint32_t other = hnsw_list_at(list, i);
		if (other == to)
			return;
		s->near_ids[i] = other;
	}
	if (n < cap) {
		atomic_store_explicit(&list[1 + n], to, memory_order_release);
		atomic_store_explicit(&list[0], (unsigned)n + 1, memory_order_release);
		return;
	}
	s->near_ids[n] = to;
	ruv_code_query_of_code(&x->format, &s->other, hnsw_record(x, id));
	x->distances(s->near_distances, &x->format, &s->other, x->records, x->record_bytes, s->near_ids, n + 1);
	for (int i = 0; i <= n; i++)
		if (i == n || hnsw_is_live(x, s->near_ids[i]))
			sorted[kept++] = (hnsw_candidate){s->near_distances[i], s->near_ids[i]};
	qsort(sorted, (size_t)kept, sizeof *sorted, ruv_hnsw_by_distance);
	n = ruv_hnsw_select(x, s, sorted, kept, cap, s->near_ids, 0);
	hnsw_list_set(list, s->near_ids, n);
}

/* Links a node whose code stands in its record, and whose lists are empty. */
static void link_node(ruv_hnsw *x, hnsw_scratch *s, uint32_t id, const float *vector)
{
	hnsw_tail *tail = hnsw_tail_of(x, id);
	int level = (int)tail->level, top, ef = x->params.ef_construction;
	uint64_t entry = atomic_load_explicit(&x->entry, memory_order_acquire);
	uint32_t n_ids = atomic_load_explicit(&x->n_ids, memory_order_acquire);
	bool raises = entry == HNSW_NO_ENTRY || level > (int)(entry >> 32);

	if (raises) {
		pthread_mutex_lock(&x->entry_lock);
		entry = atomic_load_explicit(&x->entry, memory_order_acquire);
		raises = entry == HNSW_NO_ENTRY || level > (int)(entry >> 32);
		if (!raises)
			pthread_mutex_unlock(&x->entry_lock);
	}
	top = entry == HNSW_NO_ENTRY ? -1 : level < (int)(entry >> 32) ? level : (int)(entry >> 32);
	if (vector)
		ruv_code_query_of_vector(&x->format, &s->query, vector);
	else
		ruv_code_query_of_code(&x->format, &s->query, hnsw_record(x, id));
	ruv_hnsw_descend(x, s, &s->query, entry, top, n_ids);
	for (int l = top; l >= 0; l--) {
		uint32_t *chosen = s->chosen + (size_t)l * (size_t)(1 + x->params.m);
		int kept = 0;
		for (int i = 0; i < s->n_pool; i++)
			s->pool[i].id &= ~HNSW_EXPANDED;
		ruv_hnsw_walk(x, s, &s->query, l, ef, n_ids);
		ruv_hnsw_clear_visited(s);
		for (int i = 0; i < s->n_pool; i++) {
			uint32_t other = s->pool[i].id & ~HNSW_EXPANDED;
			if (other != id && hnsw_is_live(x, other))
				s->list[kept++] = (hnsw_candidate){s->pool[i].d, other};
		}
		chosen[0] = (uint32_t)ruv_hnsw_select(x, s, s->list, kept, x->params.m, chosen + 1, 0);
		hnsw_list_set(hnsw_list(x, id, l), chosen + 1, (int)chosen[0]);
	}
	for (int l = 0; l <= top; l++) {
		const uint32_t *chosen = s->chosen + (size_t)l * (size_t)(1 + x->params.m);
		for (uint32_t i = 1; i <= chosen[0]; i++) {
			pthread_mutex_t *lock = &x->locks[chosen[i] % HNSW_LOCKS];
			pthread_mutex_lock(lock);
			ruv_hnsw_link(x, s, chosen[i], l, id);
			pthread_mutex_unlock(lock);
		}
	}
	if (raises) {
		atomic_store_explicit(&x->entry, (uint64_t)level << 32 | id, memory_order_release);
		pthread_mutex_unlock(&x->entry_lock);
	}
}

/* ---- adding ---- */

typedef struct adding {
	ruv_hnsw *x;
	const ruv_hnsw_rows *rows;
	const int64_t *keys;
	const uint32_t *ids;
	hnsw_scratch **scratches;
	int n, first;   /* of this pass */
	atomic_int bad; /* a row that is not there or not finite, plus one */
} adding;

static const float *row_at(const ruv_hnsw_rows *rows, int i)
{
	return rows->row ? rows->row(rows->arg, (uint32_t)i, 0) : rows->base + (size_t)i * rows->stride;
}

static void check_rows(void *arg, int task, int thread)
{
	adding *a = arg;
	int dim = a->x->params.dimension;

	(void)thread;
	for (int i = task * BLOCK; i < a->n && i < (task + 1) * BLOCK; i++) {
		const float *row = row_at(a->rows, i);
		float sum = 0;
		for (int j = 0; row && j < dim; j++)
			sum += row[j] * 0;
		if (!row || sum != 0)
			atomic_store(&a->bad, i + 1);
	}
}

static void encode_rows(void *arg, int task, int thread)
{
	adding *a = arg;

	(void)thread;
	for (int i = task * BLOCK; i < a->n && i < (task + 1) * BLOCK; i++)
		ruv_code_encode(&a->x->format, hnsw_record(a->x, a->ids[i]), row_at(a->rows, i));
}

static void link_rows(void *arg, int task, int thread)
{
	adding *a = arg;

	for (int i = a->first + task * BLOCK; i < a->n && i < a->first + (task + 1) * BLOCK; i++)
		link_node(a->x, a->scratches[thread], a->ids[i], row_at(a->rows, i));
}

static void run(ruv_pool *pool, ruv_pool_fn *fn, adding *a, int n)
{
	int n_tasks = (n + BLOCK - 1) / BLOCK;

	if (pool && n_tasks > 1)
		ruv_pool_run(pool, fn, a, n_tasks);
	else
		for (int i = 0; i < n_tasks; i++)
			fn(a, i, 0);
}

static int set_centre(ruv_hnsw *x, const ruv_hnsw_rows *rows, int n, ruv_error *err)
{
	int dim = x->params.dimension, step = n / CENTRE_SAMPLE + 1, n_summed = 0;
	double *sum;
	float *mean;

	if (n < CENTRE_MIN) {
		ruv_code_set_centre(&x->format, NULL);
		return RUV_OK;
	}
	sum = calloc((size_t)dim, sizeof *sum);
	mean = malloc((size_t)dim * sizeof *mean);
	if (!sum || !mean) {
		free(sum);
		free(mean);
		return ruv_fail_memory(err, WHERE, (size_t)dim * (sizeof *sum + sizeof *mean));
	}
	for (int i = 0; i < n; i += step, n_summed++) {
		const float *row = row_at(rows, i);
		for (int j = 0; j < dim; j++)
			sum[j] += row[j];
	}
	for (int j = 0; j < dim; j++)
		mean[j] = (float)(sum[j] / n_summed);
	ruv_code_set_centre(&x->format, mean);
	free(sum);
	free(mean);
	return RUV_OK;
}

static int random_level(ruv_hnsw *x)
{
	double level = -log(1 - ruv_rng_double(&x->rng)) / log(x->params.m);

	return level < HNSW_MAX_LEVEL ? (int)level : HNSW_MAX_LEVEL;
}

/* ids[0..n) with records, levels and empty lists; reserved ones first. Nothing is visible. *n_new as in take_id. */
static int take_nodes(ruv_hnsw *x, uint32_t *ids, int n, uint32_t *n_new, ruv_error *err)
{
	size_t n_reserved = x->reserved_ids.n < (size_t)n ? x->reserved_ids.n : (size_t)n;
	int taken = (int)n_reserved, rc = RUV_OK;

	for (size_t i = 0; i < n_reserved; i++)
		ids[i] = x->reserved_ids.at[i];
	while (!rc && taken < n) {
		rc = take_id(x, n_new, &ids[taken], err);
		taken += !rc;
	}
	for (int i = 0; !rc && i < n; i++) {
		int level = random_level(x);
		uint32_t upper;
		hnsw_tail *tail = hnsw_tail_of(x, ids[i]);
		rc = ruv_hnsw_upper_take(x, level, &upper, err);
		if (rc) { /* what has a block keeps it for the next time */
			for (int j = 0; j < i; j++) {
				tail = hnsw_tail_of(x, ids[j]);
				if (tail->level)
					(void)ruv_hnsw_ids_push(&x->free_uppers[tail->level], tail->upper, NULL);
				tail->level = tail->upper = 0;
			}
			break;
		}
		tail->level = (uint32_t)level;
		tail->upper = upper;
		tail->lost = 0;
		atomic_store_explicit(&tail->list[0], 0, memory_order_relaxed);
		atomic_store_explicit(&tail->dead, 0, memory_order_relaxed);
	}
	if (rc) { /* reserved ones are still reserved; new ones were never counted */
		uint32_t n_ids = atomic_load(&x->n_ids);
		for (int i = (int)n_reserved; i < taken; i++)
			if (ids[i] < n_ids)
				(void)ruv_hnsw_ids_push(&x->free_ids, ids[i], NULL);
		return rc;
	}
	x->reserved_ids.n -= n_reserved;
	if (n_reserved)
		memmove(x->reserved_ids.at, x->reserved_ids.at + n_reserved, x->reserved_ids.n * sizeof *x->reserved_ids.at);
	return RUV_OK;
}

/* The writer's lock is held. */
static int add(ruv_hnsw *x, const ruv_hnsw_rows *rows, const int64_t *keys, int n, uint32_t *ids, ruv_pool *pool, ruv_error *err)
{
	int n_threads = pool ? ruv_pool_n_threads(pool) : 1, rc = RUV_OK;
	size_t pool_cap = (size_t)x->params.ef_construction, list_cap = pool_cap + (size_t)x->m0 + 1;
	adding a = {.x = x, .rows = rows, .keys = keys, .ids = ids, .n = n};
	uint32_t n_new = 0, n_ids;

	if (!rows->row && !rows->base)
		return ruv_fail(err, RUV_EINVAL, WHERE, "there are no vectors to add");
	for (int i = 0; i < n; i++)
		if (keys[i] <= 0)
			return ruv_fail(err, RUV_EINVAL, WHERE, "key %lld is none, keys are positive", (long long)keys[i]);
	run(pool, check_rows, &a, n);
	if (atomic_load(&a.bad))
		return ruv_fail(err, RUV_EINVAL, WHERE, "vector %d is missing or not finite", atomic_load(&a.bad) - 1);
	ruv_hnsw_reclaim(x);
	if (!atomic_load(&x->begun)) {
		rc = set_centre(x, rows, n, err);
		if (rc)
			return rc;
		atomic_store(&x->begun, true);
	}
	a.scratches = calloc((size_t)n_threads, sizeof *a.scratches);
	if (!a.scratches)
		return ruv_fail_memory(err, WHERE, (size_t)n_threads * sizeof *a.scratches);
	/* As if every node were new: a few more than needed. */
	n_ids = atomic_load(&x->n_ids) + (uint32_t)n;
	for (int i = 0; i < n_threads; i++) {
		a.scratches[i] = ruv_hnsw_scratch_take(x, (int)pool_cap, n_ids);
		if (!a.scratches[i] || ruv_hnsw_reserve_list(a.scratches[i], list_cap)) {
			rc = ruv_fail_memory(err, WHERE, list_cap * sizeof(hnsw_candidate));
			goto done;
		}
	}
	rc = take_nodes(x, ids, n, &n_new, err);
	if (rc)
		goto done;

	run(pool, encode_rows, &a, n);
	atomic_fetch_add(&x->n_ids, n_new);
	for (int i = 0; i < n; i++)
		atomic_store_explicit(&x->keys[ids[i]], keys[i], memory_order_release);
	atomic_fetch_add(&x->n_live, n);
	x->n_added += n;
	if (atomic_load(&x->entry) == HNSW_NO_ENTRY) {
		link_node(x, a.scratches[0], ids[0], row_at(rows, 0));
		a.first = 1;
	}
	run(pool, link_rows, &a, n - a.first);
done:
	for (int i = 0; i < n_threads; i++)
		ruv_hnsw_scratch_give(x, a.scratches[i]);
	free(a.scratches);
	return rc;
}

/* Enough has changed that the graph deserves a repair: removed nodes are walked in vain, and what was added may have pushed out
 * somebody's last link. A repair that finds no memory comes with the next change instead: what its caller wanted is done. */
static void maybe_repair(ruv_hnsw *x, ruv_pool *pool)
{
	int64_t n_removed = atomic_load(&x->n_removed), n_live = atomic_load(&x->n_live);

	if (n_removed >= REPAIR_MAX || (n_removed >= REPAIR_MIN && n_removed >= n_live / REPAIR_SHARE) ||
	    (x->n_added >= REPAIR_MIN && x->n_added >= n_live / 8))
		(void)ruv_hnsw_repair_links(x, pool, NULL);
}

int ruv_hnsw_add(ruv_hnsw *x, const ruv_hnsw_rows *rows, const int64_t *keys, int n, uint32_t *ids, ruv_pool *pool, ruv_error *err)
{
	uint32_t *own = NULL;
	int rc;

	if (n < 0)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%d vectors", n);
	if (!n)
		return RUV_OK;
	if (!ids) {
		ids = own = malloc((size_t)n * sizeof *own);
		if (!own)
			return ruv_fail_memory(err, WHERE, (size_t)n * sizeof *own);
	}
	pthread_mutex_lock(&x->writer);
	rc = add(x, rows, keys, n, ids, pool, err);
	if (!rc)
		maybe_repair(x, pool);
	pthread_mutex_unlock(&x->writer);
	free(own);
	return rc;
}

/* ---- removing ---- */

int ruv_hnsw_remove(ruv_hnsw *x, uint32_t id, ruv_error *err)
{
	int rc;

	pthread_mutex_lock(&x->writer);
	if (id >= atomic_load(&x->n_ids) || !hnsw_is_live(x, id)) {
		rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "id %u holds no node", id);
	} else {
		rc = ruv_hnsw_ids_push(&x->dead_ids, id, err);
		if (!rc) {
			atomic_store_explicit(&x->keys[id], -1, memory_order_release);
			atomic_fetch_add(&x->n_removed, 1);
			atomic_fetch_sub(&x->n_live, 1);
			maybe_repair(x, NULL);
		}
	}
	pthread_mutex_unlock(&x->writer);
	return rc;
}

int ruv_hnsw_update(ruv_hnsw *x, uint32_t id, const float *vector, uint32_t *new_id, ruv_error *err)
{
	ruv_hnsw_rows rows = {.base = vector};
	uint32_t fresh;
	unsigned epoch;
	int64_t key;
	int rc;

	pthread_mutex_lock(&x->writer);
	if (id >= atomic_load(&x->n_ids) || !hnsw_is_live(x, id)) {
		rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "id %u holds no node", id);
		goto done;
	}
	rc = ruv_hnsw_ids_reserve(&x->dead_ids, 1, err);
	if (rc)
		goto done;
	key = atomic_load(&x->keys[id]);
	atomic_store(&x->replaced, true);
	rc = add(x, &rows, &key, 1, &fresh, NULL, err);
	if (rc)
		goto done;
	epoch = atomic_load(&x->epoch.current);
	atomic_store(&hnsw_tail_of(x, id)->dead, epoch);
	x->dead_ids.at[x->dead_ids.n++] = id;
	atomic_fetch_add(&x->n_removed, 1);
	atomic_fetch_sub(&x->n_live, 1);
	/* Until the epoch moves, searches see both and return the nearer: wait for the few that hold it. */
	while (ruv_epoch_advance(&x->epoch) == epoch)
		sched_yield();
	if (new_id)
		*new_id = fresh;
	maybe_repair(x, NULL);
done:
	pthread_mutex_unlock(&x->writer);
	return rc;
}

int ruv_hnsw_repair(ruv_hnsw *x, ruv_pool *pool, ruv_error *err)
{
	int rc;

	pthread_mutex_lock(&x->writer);
	rc = ruv_hnsw_repair_links(x, pool, err);
	pthread_mutex_unlock(&x->writer);
	return rc;
}

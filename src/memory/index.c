/* index.c - searching, putting and removing; see index.h.
 *
 * Why no search misses a vector. A reader enters the table's epoch, then copies the pending slots and takes the graph under `lock`,
 * then searches both. A vector put before the copy is pending in it or was already in that graph; one that moves into the graph
 * later was in the copy. A replaced vector's former slot is visible to readers that entered before, its new slot is pending for
 * those that enter after, because putting is one step under `lock`. What is seen twice is told apart by its key. Layer: memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/dot.h"
#include "memory/index_impl.h"

enum {
	FLAT_BELOW = 20000,
	LEAST_EF = 256,    /* what questions need, whose neighbours are far: docs/vector-search.md */
	GRAPH_COST = 6000, /* vectors compared in the time of a walk */
	MAX_GRAPH_K = 10000,
	COLD = 64 /* searches that ask for their rows at once after one that had to wait for a row from the disk */
};

static const char *const WHERE = "vector index";

/* ---- lifetime ---- */

int ruv_index_options_check(ruv_memory_index_options *o, ruv_error *err)
{
	ruv_hnsw_params params;
	ruv_hnsw *probe;
	int rc;

	if (o->flat_below < -1)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%lld vectors are compared one by one: -1 (always) or more",
		                (long long)o->flat_below);
	if (!o->flat_below)
		o->flat_below = FLAT_BELOW;
	ruv_hnsw_params_for(&params, 16, RUV_HNSW_IP, 1);
	params.m = o->m ? o->m : params.m;
	params.ef_construction = o->ef_construction                  ? o->ef_construction
	                         : params.m > params.ef_construction ? params.m
	                                                             : params.ef_construction;
	params.ef_search = o->ef_search;
	params.bits = o->bits ? o->bits : 8;
	params.max_nodes = 64;
	rc = ruv_hnsw_create(&probe, &params, err); /* it knows what it can */
	ruv_hnsw_free(probe);
	return rc;
}

int ruv_index_create(ruv_index **out, int dimension, const ruv_index_setup *setup, ruv_error *err)
{
	ruv_index *x = calloc(1, sizeof *x);
	int rc = RUV_OK;

	*out = NULL;
	if (!x)
		return ruv_fail_memory(err, WHERE, sizeof *x);
	x->setup = *setup;
	x->options = setup->options;
	pthread_mutex_init(&x->work, NULL);
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->wake, NULL);
	x->dir = strdup(setup->dir);
	if (!x->dir)
		rc = ruv_fail_memory(err, WHERE, strlen(setup->dir));
	if (!rc && dimension)
		rc = ruv_vectors_create(&x->vectors, dimension, err);
	if (rc) {
		ruv_index_free(x);
		return rc;
	}
	*out = x;
	return RUV_OK;
}

void ruv_index_graph_release(index_graph *graph)
{
	if (graph && atomic_fetch_sub(&graph->users, 1) == 1) {
		ruv_hnsw_free(graph->x);
		free(graph);
	}
}

static void stop(ruv_index *x)
{
	bool started;

	pthread_mutex_lock(&x->lock);
	atomic_store(&x->stop, true);
	started = x->started;
	x->started = false;
	pthread_cond_signal(&x->wake);
	pthread_mutex_unlock(&x->lock);
	if (started)
		pthread_join(x->thread, NULL);
}

void ruv_index_disown(ruv_index *x)
{
	stop(x);
	pthread_mutex_lock(&x->work);
	x->setup.may_save = false;
	pthread_mutex_unlock(&x->work);
}

void ruv_index_free(ruv_index *x)
{
	enum { WORTH_SAVING = 16384 };

	if (!x)
		return;
	stop(x);
	if (x->graph && x->n_unsaved >= WORTH_SAVING) {
		ruv_error err;
		if (ruv_index_save(x, &err))
			ruv_log(RUV_LOG_WARN, "memory", "the vector index was not saved, it will be built again: %s", err.message);
	}
	ruv_index_graph_release(x->graph);
	ruv_vectors_free(x->vectors);
	free(x->state);
	free(x->pending.at);
	free(x->gone.at);
	free(x->dir);
	pthread_mutex_destroy(&x->work);
	pthread_mutex_destroy(&x->lock);
	pthread_cond_destroy(&x->wake);
	free(x);
}

ruv_vectors *ruv_index_vectors(ruv_index *x)
{
	return x->vectors;
}

/* ---- writing ---- */

int ruv_index_slots_reserve(index_slots *s, size_t n_more, ruv_error *err)
{
	size_t cap = s->cap;
	uint32_t *grown;

	if (s->n + n_more <= cap)
		return RUV_OK;
	while (cap < s->n + n_more)
		cap = cap ? 2 * cap : 64;
	grown = realloc(s->at, cap * sizeof *grown);
	if (!grown)
		return ruv_fail_memory(err, WHERE, cap * sizeof *grown);
	s->at = grown;
	s->cap = cap;
	return RUV_OK;
}

int ruv_index_reserve(ruv_index *x, size_t n_slots, ruv_error *err)
{
	if (n_slots > x->state_cap) {
		size_t cap = x->state_cap ? x->state_cap * 2 : 1024;
		uint32_t *grown;
		while (cap < n_slots)
			cap *= 2;
		grown = realloc(x->state, cap * sizeof *grown);
		if (!grown)
			return ruv_fail_memory(err, WHERE, cap * sizeof *grown);
		for (size_t i = x->state_cap; i < cap; i++)
			grown[i] = INDEX_NONE;
		x->state = grown;
		x->state_cap = cap;
	}
	return RUV_OK;
}

void ruv_index_drop_slot(ruv_index *x, uint32_t slot)
{
	uint32_t state = x->state[slot];

	x->state[slot] = INDEX_NONE;
	if (state == INDEX_NONE)
		return;
	if (state & INDEX_PENDING) {
		uint32_t at = state & ~INDEX_PENDING, last = x->pending.at[--x->pending.n];
		x->pending.at[at] = last;
		if (last != slot)
			x->state[last] = INDEX_PENDING | at;
		return;
	}
	atomic_fetch_sub(&x->n_in_graph, 1);
	/* Without memory it stays in the graph, where every search passes it over, until the graph is built anew. */
	if (!ruv_index_slots_reserve(&x->gone, 1, NULL))
		x->gone.at[x->gone.n++] = state;
}

int ruv_index_put(ruv_index *x, const ruv_store_row *row, ruv_error *err)
{
	uint32_t slot = 0, old = RUV_NO_SLOT;
	int rc;

	pthread_mutex_lock(&x->lock);
	rc = ruv_index_reserve(x, (size_t)ruv_vectors_n_slots(x->vectors) + 1, err);
	if (!rc)
		rc = ruv_index_slots_reserve(&x->pending, 1, err);
	if (!rc)
		rc = ruv_vectors_put_at(x->vectors, row, &slot, &old, err);
	if (!rc) {
		if (old != RUV_NO_SLOT)
			ruv_index_drop_slot(x, old);
		x->state[slot] = INDEX_PENDING | (uint32_t)x->pending.n;
		x->pending.at[x->pending.n++] = slot;
		x->n_put++;
		ruv_index_wake(x);
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

void ruv_index_remove(ruv_index *x, int64_t key)
{
	uint32_t slot;

	pthread_mutex_lock(&x->lock);
	slot = ruv_vectors_remove_at(x->vectors, key);
	if (slot != RUV_NO_SLOT && slot < x->state_cap) {
		ruv_index_drop_slot(x, slot);
		ruv_index_wake(x);
	}
	pthread_mutex_unlock(&x->lock);
}

void ruv_index_reached(ruv_index *x, int64_t seq)
{
	pthread_mutex_lock(&x->lock);
	x->seq = seq;
	pthread_mutex_unlock(&x->lock);
}

/* ---- searching ---- */

typedef struct looking {
	ruv_vectors *vectors;
	const ruv_label_filter *filter;
	unsigned ticket;
	int n_missing; /* what the graph led to and is gone */
} looking;

/* The key that a slot shows this search, 0 when none or when the filter holds it back. */
static inline int64_t key_of(const looking *l, uint32_t slot)
{
	const ruv_vectors_chunk *chunk = ruv_vectors_chunk_at(l->vectors, slot / RUV_VECTORS_CHUNK);
	int64_t key = ruv_vectors_key(chunk, (int)(slot % RUV_VECTORS_CHUNK), l->ticket);

	return key && ruv_labels_pass(&chunk->labels[slot % RUV_VECTORS_CHUNK], l->filter) ? key : 0;
}

static bool pass(void *arg, uint32_t id, int64_t key)
{
	(void)id;
	return key_of(arg, (uint32_t)(key - 1)) != 0;
}

/* A slot that shows this search a key keeps its row until the search leaves; any other may be written at this moment. */
static const float *row(void *arg, uint32_t id, int64_t key)
{
	looking *l = arg;

	(void)id;
	if (key_of(l, (uint32_t)(key - 1)))
		return ruv_vectors_row(l->vectors, (uint32_t)(key - 1));
	l->n_missing++;
	return NULL;
}

static inline bool farther(const ruv_near *a, const ruv_near *b)
{
	return a->cosine < b->cosine || (a->cosine == b->cosine && a->key > b->key);
}

static int nearer_first(const void *a, const void *b)
{
	return farther(a, b) ? 1 : farther(b, a) ? -1 : 0;
}

static int by_key(const void *a, const void *b)
{
	const ruv_near *x = a, *y = b;

	return x->key != y->key ? (x->key < y->key ? -1 : 1) : nearer_first(a, b);
}

/* list[0..n), the nearer of each key, nearest first; returns how many. */
static int tidy(ruv_near *list, int n)
{
	int kept = 0;

	qsort(list, (size_t)n, sizeof *list, by_key);
	for (int i = 0; i < n; i++)
		if (!kept || list[kept - 1].key != list[i].key)
			list[kept++] = list[i];
	qsort(list, (size_t)kept, sizeof *list, nearer_first);
	return kept;
}

/* Of the pending slots what is nearer than the farthest of list[0..k), a heap in no order but with the farthest first. */
static int look_at_pending(ruv_near *list, int n, const looking *l, const ruv_index_query *q, const uint32_t *pending,
                           size_t n_pending)
{
	ruv_dot_f32_fn *dot = ruv_dot_f32_kernel();
	int stride = ruv_vectors_stride(l->vectors), least = 0, first = n;

	for (size_t i = 0; i < n_pending; i++) {
		ruv_near near = {.key = key_of(l, pending[i])};
		if (!near.key)
			continue;
		near.cosine = dot(q->unit, ruv_vectors_row(l->vectors, pending[i]), stride);
		if (!(near.cosine >= q->min_cosine))
			continue;
		if (n - first < q->k) {
			list[n++] = near;
			if (n - first == q->k)
				for (int j = least = first; j < n; j++)
					least = farther(&list[j], &list[least]) ? j : least;
		} else if (farther(&list[least], &near)) {
			list[least] = near;
			for (int j = first; j < n; j++)
				least = farther(&list[j], &list[least]) ? j : least;
		}
	}
	return n;
}

/* Of this thread: pages that it waited for the disk to read. */
static int64_t major_faults(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_majflt;
}

/* By the graph and what is pending. *short_of: fewer than k because some vanished meanwhile. */
static int search_graph(ruv_near *out, int *n, bool *short_of, ruv_index *x, index_graph *graph, looking *l,
                        const ruv_index_query *q, const uint32_t *pending, size_t n_pending, bool filtered, ruv_error *err)
{
	int ef = q->ef ? q->ef : x->options.ef_search, n_hits, n_list = 0;
	const ruv_hnsw_filter filter = {.pass = pass, .arg = l};
	const ruv_hnsw_rows rows = {.row = row, .arg = l, .on_disk = atomic_load(&x->n_cold) > 0};
	bool mapped = ruv_vectors_chunk_at(l->vectors, 0)->mapped;
	int64_t faults = mapped ? major_faults() : 0;
	ruv_hnsw_hit *hits = malloc((size_t)q->k * sizeof *hits);
	ruv_near *list = malloc((size_t)q->k * 2 * sizeof *list);
	ruv_hnsw_query query = {.k = q->k, .rows = &rows, .filter = filtered ? &filter : NULL};
	int rc = RUV_OK;

	if (!hits || !list) {
		rc = ruv_fail_memory(err, WHERE, (size_t)q->k * 2 * (sizeof *hits + sizeof *list));
		goto done;
	}
	if (!ef) {
		ef = ruv_hnsw_get_params(graph->x)->ef_search;
		ef = ef < LEAST_EF ? LEAST_EF : ef;
	}
	query.ef = ef < 2 * q->k ? 2 * q->k : ef;
	n_hits = ruv_hnsw_search(graph->x, q->unit, &query, hits);
	if (mapped && major_faults() > faults)
		atomic_store(&x->n_cold, COLD);
	else if (rows.on_disk)
		atomic_fetch_sub(&x->n_cold, 1);
	if (n_hits < 0) {
		rc = ruv_fail(err, n_hits, WHERE, "the graph cannot be searched: %s", ruv_status_text(n_hits));
		goto done;
	}
	for (int i = 0; i < n_hits; i++) {
		ruv_near near = {key_of(l, (uint32_t)(hits[i].key - 1)), hits[i].score};
		l->n_missing += !near.key;
		if (near.key && near.cosine >= q->min_cosine)
			list[n_list++] = near;
	}
	n_list = look_at_pending(list, n_list, l, q, pending, n_pending);
	n_list = tidy(list, n_list);
	*n = n_list < q->k ? n_list : q->k;
	*short_of = l->n_missing && *n < q->k;
	memcpy(out, list, (size_t)*n * sizeof *out);
done:
	free(hits);
	free(list);
	return rc;
}

int ruv_index_search(ruv_near *out, int *n, ruv_index *x, const ruv_index_query *q, bool *by_graph, ruv_error *err)
{
	ruv_label_filter filter;
	looking l = {x->vectors, &filter, 0, 0};
	index_graph *graph = NULL;
	uint32_t *pending = NULL;
	size_t n_pending = 0;
	bool flat = true;
	int rc = ruv_label_filter_init(&filter, ruv_vectors_texts(x->vectors), q->filter, q->now_ms, err);

	*n = 0;
	if (rc)
		return rc;
	atomic_store_explicit(&x->searched_ns, ruv_clock_now_ns(), memory_order_relaxed);
	l.ticket = ruv_vectors_enter(x->vectors);
	pthread_mutex_lock(&x->lock);
	if (x->graph && !q->exact && q->k <= MAX_GRAPH_K &&
	    (int64_t)x->pending.n + GRAPH_COST <
	        ruv_vectors_count(x->vectors) + (x->options.flat_below < GRAPH_COST ? GRAPH_COST : 0)) {
		n_pending = x->pending.n;
		pending = malloc(n_pending * sizeof *pending + 1);
		if (pending) {
			memcpy(pending, x->pending.at, n_pending * sizeof *pending);
			graph = x->graph;
			atomic_fetch_add(&graph->users, 1);
		}
	}
	pthread_mutex_unlock(&x->lock);
	if (graph) {
		bool filtered = !filter.any || ruv_vectors_n_restricted(x->vectors) > 0;
		rc = search_graph(out, n, &flat, x, graph, &l, q, pending, n_pending, filtered, err);
	}
	if (!rc && flat)
		rc = ruv_flat_search(out, n, x->vectors, l.ticket, q->unit, q->k, q->min_cosine, &filter, err);
	if (by_graph)
		*by_graph = !flat;
	ruv_vectors_leave(x->vectors, l.ticket);
	ruv_index_graph_release(graph);
	ruv_label_filter_release(&filter);
	free(pending);
	return rc;
}

void ruv_index_get_stats(ruv_index *x, ruv_index_stats *out)
{
	index_graph *graph;

	memset(out, 0, sizeof *out);
	out->n_vectors = ruv_vectors_count(x->vectors);
	out->bytes = ruv_vectors_bytes(x->vectors, &out->mapped_bytes);
	pthread_mutex_lock(&x->lock);
	out->n_pending = (int64_t)x->pending.n;
	out->n_in_graph = atomic_load(&x->n_in_graph);
	out->bytes += (int64_t)((x->state_cap + x->pending.cap + x->gone.cap) * sizeof(uint32_t));
	graph = x->graph;
	if (graph)
		atomic_fetch_add(&graph->users, 1);
	pthread_mutex_unlock(&x->lock);
	if (graph) {
		const ruv_hnsw_params *p = ruv_hnsw_get_params(graph->x);
		ruv_hnsw_stats stats;
		ruv_hnsw_get_stats(graph->x, &stats);
		out->bytes += stats.n_bytes;
		out->m = p->m;
		out->ef_construction = p->ef_construction;
		out->ef_search = x->options.ef_search ? x->options.ef_search : p->ef_search < LEAST_EF ? LEAST_EF : p->ef_search;
		out->bits = p->bits;
		out->by_graph =
		    out->n_pending + GRAPH_COST < out->n_vectors + (x->options.flat_below < GRAPH_COST ? GRAPH_COST : 0);
		ruv_index_graph_release(graph);
	}
}

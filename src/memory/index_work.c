/* index_work.c - the graph follows the table: linking what is pending, taking out what is gone, in batches; see index.h.
 *
 * A batch is copied under `lock` after entering the table's epoch, so that each of its slots keeps its row until the batch is done,
 * also when it is removed meanwhile; what was removed meanwhile is taken out of the graph again right after. The thread runs at low
 * priority and sleeps unless there is a batch's worth to do: fewer pending vectors cost a search less than they would cost the
 * graph. A writer at full speed outruns it by far, and every search would pay for that; so, while there are searches, a writer that
 * has left more than ROOM pending links two of them for each that it added before it goes on. Layer: memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/index_impl.h"

enum {
	BATCH = 256,        /* of the thread */
	FIRST_BATCH = 4096, /* the codes' centre comes from it */
	BIG_BATCH = 8192,   /* with a pool */
	ROOM = 2048,        /* pending vectors that searches put up with: about a third of a walk's cost */
	HELP_BATCH = 64,    /* of a writer that helps, and of the thread meanwhile: so long one waits for the other */
	SEARCHES_MS = 1000, /* so long after one there are searches */
	GONE_MIN = 64,
	SAVE_MIN = 4096, /* changes after which the files are written, and a 16th of all */
	SAVE_SHARE = 16,
	NICE = 10
};

static const char *const WHERE = "vector index";

/* ---- a batch ---- */

typedef struct batch {
	const ruv_vectors *vectors;
	const uint32_t *slots;
} batch;

static const float *row(void *arg, uint32_t i, int64_t key)
{
	const batch *b = arg;

	(void)key;
	return ruv_vectors_row(b->vectors, b->slots[i]);
}

static int make_graph(ruv_index *x, ruv_error *err)
{
	const ruv_memory_index_options *o = &x->options;
	index_graph *graph = calloc(1, sizeof *graph);
	int64_t n = ruv_vectors_count(x->vectors);
	ruv_hnsw_params params;
	int rc;

	if (!graph)
		return ruv_fail_memory(err, WHERE, sizeof *graph);
	ruv_hnsw_params_for(&params, ruv_vectors_dimension(x->vectors), RUV_HNSW_IP, n + n / 2); /* it will grow */
	params.m = o->m ? o->m : params.m;
	params.ef_construction = o->ef_construction                  ? o->ef_construction
	                         : params.m > params.ef_construction ? params.m
	                                                             : params.ef_construction;
	params.ef_search = o->ef_search ? o->ef_search : params.ef_search;
	params.bits = o->bits ? o->bits : 8;
	rc = ruv_hnsw_create(&graph->x, &params, err);
	if (rc) {
		free(graph);
		return rc;
	}
	atomic_init(&graph->users, 1);
	pthread_mutex_lock(&x->lock);
	x->graph = graph;
	pthread_mutex_unlock(&x->lock);
	return RUV_OK;
}

/* Copies up to `most` pending slots; the first time from all over, because what came one after the other is alike. */
static size_t take_pending(ruv_index *x, uint32_t *slots, size_t most, bool spread)
{
	size_t n = x->pending.n < most ? x->pending.n : most;

	for (size_t i = 0; i < n; i++)
		slots[i] = x->pending.at[spread ? i * x->pending.n / n : i];
	return n;
}

/* The caller holds work. *n: how many changes were made. */
static int do_batch(ruv_index *x, size_t most, ruv_pool *pool, int64_t *n, ruv_error *err)
{
	uint32_t *slots = NULL, *ids = NULL;
	int64_t *keys = NULL;
	index_slots gone = {0};
	unsigned ticket;
	size_t n_slots = 0;
	batch b;
	int rc = RUV_OK;

	*n = 0;
	if (!x->graph) {
		most = most > FIRST_BATCH ? most : FIRST_BATCH;
		rc = make_graph(x, err);
		if (rc)
			return rc;
	}
	slots = malloc(most * sizeof *slots);
	ids = malloc(most * sizeof *ids);
	keys = malloc(most * sizeof *keys);
	if (!slots || !ids || !keys) {
		rc = ruv_fail_memory(err, WHERE, most * (2 * sizeof *slots + sizeof *keys));
		goto done;
	}
	ticket = ruv_vectors_enter(x->vectors);
	pthread_mutex_lock(&x->lock);
	gone = x->gone;
	x->gone = (index_slots){0};
	n_slots = take_pending(x, slots, most, atomic_load(&x->n_in_graph) == 0);
	/* As many may be removed again below. */
	rc = ruv_index_slots_reserve(&x->gone, n_slots, err);
	pthread_mutex_unlock(&x->lock);
	for (size_t i = 0; i < gone.n; i++)
		(void)ruv_hnsw_remove(x->graph->x, gone.at[i], NULL); /* what is not there needs no removing */
	*n = (int64_t)gone.n;
	if (!rc && n_slots) {
		ruv_hnsw_rows rows = {.row = row, .arg = &b};
		b = (batch){x->vectors, slots};
		for (size_t i = 0; i < n_slots; i++)
			keys[i] = (int64_t)slots[i] + 1;
		rc = ruv_hnsw_add(x->graph->x, &rows, keys, (int)n_slots, ids, pool, err);
		pthread_mutex_lock(&x->lock);
		for (size_t i = 0; !rc && i < n_slots; i++) {
			uint32_t slot = slots[i], state = x->state[slot];
			if (state != INDEX_NONE && (state & INDEX_PENDING)) {
				ruv_index_drop_slot(x, slot);
				x->state[slot] = ids[i];
				atomic_fetch_add(&x->n_in_graph, 1);
			} else if (!ruv_index_slots_reserve(&x->gone, 1, NULL)) {
				x->gone.at[x->gone.n++] = ids[i];
			}
		}
		pthread_mutex_unlock(&x->lock);
		if (!rc)
			*n += (int64_t)n_slots;
	}
	ruv_vectors_leave(x->vectors, ticket);
	x->n_unsaved += *n;
done:
	free(gone.at);
	free(slots);
	free(ids);
	free(keys);
	return rc;
}

/* ---- the thread ---- */

/* The caller holds lock. */
static bool has_work(ruv_index *x)
{
	if (x->options.flat_below < 0 || atomic_load(&x->failed))
		return false;
	if (x->graph)
		return x->pending.n >= BATCH || x->gone.n >= GONE_MIN;
	return ruv_vectors_count(x->vectors) >= x->options.flat_below;
}

static void *run(void *arg)
{
	ruv_index *x = arg;
	ruv_error err = {0};

	/* Of this thread alone, on Linux. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	for (;;) {
		int64_t n = 0, worth = atomic_load(&x->n_in_graph) / SAVE_SHARE;
		bool more;
		int rc;
		pthread_mutex_lock(&x->lock);
		while (!atomic_load(&x->stop) && !has_work(x))
			pthread_cond_wait(&x->wake, &x->lock);
		pthread_mutex_unlock(&x->lock);
		if (atomic_load(&x->stop))
			break;
		pthread_mutex_lock(&x->work);
		rc = do_batch(x, atomic_load(&x->n_helping) ? HELP_BATCH : BATCH, NULL, &n, &err);
		pthread_mutex_lock(&x->lock);
		more = has_work(x);
		pthread_mutex_unlock(&x->lock);
		if (!rc && !more && !atomic_load(&x->stop) && x->n_unsaved >= (worth > SAVE_MIN ? worth : SAVE_MIN))
			rc = ruv_index_save(x, &err);
		pthread_mutex_unlock(&x->work);
		if (rc) {
			atomic_store(&x->failed, true);
			ruv_log(RUV_LOG_WARN, "memory", "the vector index does not follow for now, searches stay whole: %s",
			        err.message);
		}
	}
	return NULL;
}

void ruv_index_wake(ruv_index *x)
{
	if (x->options.no_background || atomic_load(&x->stop) || !has_work(x))
		return;
	if (x->started) {
		pthread_cond_signal(&x->wake);
		return;
	}
	if (pthread_create(&x->thread, NULL, run, x)) {
		atomic_store(&x->failed, true);
		ruv_log(RUV_LOG_WARN, "memory", "no thread for the vector index: searches compare every vector");
		return;
	}
	x->started = true;
}

/* Is it on a writer to link? Takes what it owes for one batch. */
static bool owes(ruv_index *x)
{
	bool yes;

	pthread_mutex_lock(&x->lock);
	if (x->pending.n <= ROOM)
		x->n_put = 0;
	yes = x->graph && 2 * x->n_put >= HELP_BATCH && !x->options.no_background && !atomic_load(&x->failed) &&
	      !atomic_load(&x->stop) &&
	      ruv_clock_now_ns() - atomic_load_explicit(&x->searched_ns, memory_order_relaxed) < SEARCHES_MS * INT64_C(1000000);
	x->n_put -= yes ? HELP_BATCH / 2 : 0;
	pthread_mutex_unlock(&x->lock);
	return yes;
}

void ruv_index_make_room(ruv_index *x)
{
	int64_t n;
	bool helping = false;

	while (owes(x)) {
		ruv_error err;
		int rc;
		if (!helping)
			atomic_fetch_add(&x->n_helping, 1);
		helping = true;
		pthread_mutex_lock(&x->work);
		rc = x->graph ? do_batch(x, HELP_BATCH, NULL, &n, &err) : RUV_OK;
		pthread_mutex_unlock(&x->work);
		if (rc)
			break; /* the thread will say so */
	}
	if (helping)
		atomic_fetch_sub(&x->n_helping, 1);
}

/* ---- on request ---- */

/* Everything pending again, no graph. */
static int start_over(ruv_index *x, ruv_error *err)
{
	uint32_t n_slots;
	int rc;

	pthread_mutex_lock(&x->lock);
	n_slots = ruv_vectors_n_slots(x->vectors);
	rc = ruv_index_reserve(x, n_slots, err);
	if (!rc)
		rc = ruv_index_slots_reserve(&x->pending, n_slots, err);
	for (uint32_t i = 0; !rc && i < n_slots; i++)
		if (x->state[i] != INDEX_NONE && !(x->state[i] & INDEX_PENDING)) {
			x->state[i] = INDEX_PENDING | (uint32_t)x->pending.n;
			x->pending.at[x->pending.n++] = i;
		}
	if (!rc) {
		atomic_store(&x->n_in_graph, 0);
		x->gone.n = 0;
		ruv_index_graph_release(x->graph);
		x->graph = NULL;
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

/* Does the graph have the shape that its size wants? */
static bool shape_fits(const ruv_index *x)
{
	ruv_hnsw_params params;
	const ruv_hnsw_params *have;
	int64_t n = ruv_vectors_count(x->vectors);

	if (!x->graph)
		return true;
	have = ruv_hnsw_get_params(x->graph->x);
	ruv_hnsw_params_for(&params, have->dimension, RUV_HNSW_IP, n);
	if (x->options.bits && x->options.bits != have->bits)
		return false;
	return x->options.m ? x->options.m == have->m : params.m <= have->m;
}

int ruv_index_finish(ruv_index *x, int n_threads, bool rebuild, ruv_memory_progress_fn *progress, void *user, ruv_error *err)
{
	ruv_pool *pool = NULL;
	bool more = true;
	int rc = RUV_OK;

	pthread_mutex_lock(&x->work);
	atomic_store(&x->failed, false);
	if (x->options.flat_below < 0 || ruv_vectors_count(x->vectors) < (x->graph ? 1 : x->options.flat_below))
		goto done;
	if (x->graph && (rebuild || !shape_fits(x)))
		rc = start_over(x, err);
	if (!rc)
		rc = ruv_pool_create(&pool, n_threads, err);
	while (!rc && more) {
		int64_t n, in_graph = atomic_load(&x->n_in_graph), all = ruv_vectors_count(x->vectors);
		if (progress && !progress(user, in_graph < all ? in_graph : all, all)) {
			rc = ruv_fail(err, RUV_ECANCELLED, WHERE, "stopped on request");
			break;
		}
		rc = do_batch(x, BIG_BATCH, pool, &n, err);
		pthread_mutex_lock(&x->lock);
		more = x->pending.n || x->gone.n;
		pthread_mutex_unlock(&x->lock);
	}
	if (!rc && progress)
		(void)progress(user, ruv_vectors_count(x->vectors), ruv_vectors_count(x->vectors));
	if ((!rc || rc == RUV_ECANCELLED) && x->n_unsaved) {
		ruv_error late;
		int saved = ruv_index_save(x, rc ? &late : err);
		rc = rc ? rc : saved;
	}
done:
	pthread_mutex_unlock(&x->work);
	ruv_pool_free(pool);
	return rc;
}

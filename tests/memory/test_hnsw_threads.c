/* test_hnsw_threads.c - one writer at full speed with readers beside it: nothing is lost, half seen or handed out after it was
 * removed. Made to be run under ThreadSanitizer, too. */
#include "hnsw_test.h"

#include <pthread.h>
#include <stdatomic.h>

enum { DIM = 20, STEADY = 600, MOVING = 300, CAP = 4000, ROUNDS = 1500, READERS = 3 };

/* Key k + 1 of the steady part has vector k for ever. The writer adds, removes and updates the keys behind them; their vectors are
 * all different, and versions[key] says which one a reader may find. */
typedef struct shared {
	ruv_hnsw *index;
	float *vectors;                   /* [n_vectors, DIM] */
	_Atomic(const float *) rows[CAP]; /* by id: put there before the id is linked, never taken away while a reader may look */
	atomic_int gone[STEADY + MOVING + ROUNDS + 1]; /* by key: removed for good */
	atomic_bool stop;
	atomic_int failures, n_walks, n_missed;
	char what[256];
} shared;

static const float *row_of(void *arg, uint32_t id, int64_t key)
{
	(void)key;
	return atomic_load(&((shared *)arg)->rows[id]);
}

static void note(shared *s, const char *what)
{
	if (!atomic_fetch_add(&s->failures, 1))
		snprintf(s->what, sizeof s->what, "%s", what);
}

static void *reader(void *arg)
{
	shared *s = arg;
	ruv_hnsw_rows rows = {.row = row_of, .arg = s};
	ruv_rng rng;

	ruv_rng_init(&rng, (uint64_t)(uintptr_t)&rng);
	for (unsigned n = 0; !atomic_load(&s->stop); n++) {
		int target = (int)ruv_rng_below(&rng, STEADY);
		const float *q = s->vectors + target * DIM;
		ruv_hnsw_query query = {.k = 10, .ef = 64, .how = n % 4 == 3 ? RUV_HNSW_SCAN : RUV_HNSW_GRAPH, .rows = &rows};
		ruv_hnsw_hit hits[10];
		bool gone[10], found = false;
		int count, probe = STEADY + 1 + (int)ruv_rng_below(&rng, MOVING + ROUNDS);
		gone[0] = atomic_load(&s->gone[probe]); /* before the search begins */
		count = ruv_hnsw_search(s->index, q, &query, hits);
		if (count != 10)
			note(s, "a search found fewer than k");
		for (int i = 0; i < count; i++) {
			found |= hits[i].key == target + 1;
			if (hits[i].key == probe && gone[0])
				note(s, "a removed node was returned");
			if (hits[i].key < 1 || hits[i].key > STEADY + MOVING + ROUNDS)
				note(s, "a key that nobody gave");
			for (int j = 0; j < i; j++)
				if (hits[j].key == hits[i].key)
					note(s, "one key twice");
		}
		if (query.how == RUV_HNSW_GRAPH) { /* approximate, and between repairs an add may push out somebody's last link */
			atomic_fetch_add(&s->n_walks, 1);
			atomic_fetch_add(&s->n_missed, !found);
		} else if (!found) {
			note(s, "a node that was always there was not found");
		}
		if (!found)
			continue;
		if (fabs(hits[0].score - 1) > 1e-4)
			note(s, "the nearest is not the vector itself");
	}
	return NULL;
}

static void test_readers_beside_a_writer(void **state)
{
	shared *s = calloc(1, sizeof *s);
	ruv_hnsw_params p = {.dimension = DIM, .metric = RUV_HNSW_IP, .bits = 8, .m = 8, .ef_construction = 60, .max_nodes = CAP};
	ruv_hnsw_report report;
	ruv_error err;
	uint32_t *ids = calloc(STEADY + MOVING + ROUNDS + 1, sizeof *ids), moving[MOVING];
	int64_t keys[STEADY + MOVING], next = STEADY + MOVING + 1;
	int n_vectors = STEADY + MOVING + 2 * ROUNDS, used = STEADY + MOVING;
	ruv_hnsw_rows rows;
	pthread_t threads[READERS];
	ruv_rng rng;

	(void)state;
	assert_non_null(s);
	assert_non_null(ids);
	ruv_rng_init(&rng, 5);
	s->vectors = make_vectors(n_vectors, DIM, 90);
	rows = (ruv_hnsw_rows){.base = s->vectors, .stride = DIM};
	for (int i = 0; i < STEADY + MOVING; i++) {
		keys[i] = i + 1;
		atomic_store(&s->rows[i], s->vectors + i * DIM);
	}
	assert_ok(ruv_hnsw_create(&s->index, &p, &err), err);
	assert_ok(ruv_hnsw_add(s->index, &rows, keys, STEADY + MOVING, ids, NULL, &err), err);
	for (int i = 0; i < MOVING; i++)
		moving[i] = ids[STEADY + i];
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, s), 0);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t at = (uint32_t)ruv_rng_below(&rng, MOVING), id;
		const float *vector = s->vectors + used++ * DIM;
		int64_t key = ruv_hnsw_key(s->index, moving[at]);
		assert_true(key > STEADY);
		assert_ok(ruv_hnsw_reserve(s->index, &id, 1, &err), err);
		assert_true(id < CAP);
		atomic_store(&s->rows[id], vector);
		if (round % 3) {
			ruv_hnsw_rows one = {.base = vector};
			assert_ok(ruv_hnsw_remove(s->index, moving[at], &err), err);
			atomic_store(&s->gone[key], 1);
			key = next++;
			assert_ok(ruv_hnsw_add(s->index, &one, &key, 1, &moving[at], NULL, &err), err);
		} else {
			assert_ok(ruv_hnsw_update(s->index, moving[at], vector, &moving[at], &err), err);
		}
		assert_int_equal(moving[at], id);
		assert_int_equal(ruv_hnsw_key(s->index, id), key);
	}
	atomic_store(&s->stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	if (atomic_load(&s->failures))
		fail_msg("%d failures, the first: %s", atomic_load(&s->failures), s->what);
	print_message("%d walks beside the writer, %d missed the node itself\n", atomic_load(&s->n_walks),
	              atomic_load(&s->n_missed));
	assert_true(atomic_load(&s->n_missed) <= atomic_load(&s->n_walks) / 100);
	assert_ok(ruv_hnsw_repair(s->index, NULL, &err), err);
	assert_ok(ruv_hnsw_check(s->index, &report, &err), err);
	assert_int_equal(report.n_nodes, STEADY + MOVING);
	assert_int_equal(report.n_unreachable, 0);
	ruv_hnsw_free(s->index);
	free(s->vectors);
	free(ids);
	free(s);
}

/* Threads that link nodes into one graph at once, with readers who begin before there is anything. */
static void test_parallel_build(void **state)
{
	enum { N = 2500 };
	shared *s = calloc(1, sizeof *s);
	ruv_hnsw_params p = {.dimension = DIM, .metric = RUV_HNSW_L2, .bits = 4, .m = 6, .ef_construction = 40, .max_nodes = CAP};
	ruv_hnsw_rows rows;
	ruv_hnsw_report report;
	ruv_error err;
	ruv_pool *pool;
	int64_t keys[N];
	int found = 0;

	(void)state;
	assert_non_null(s);
	assert_ok(ruv_pool_create(&pool, 4, &err), err);
	s->vectors = make_vectors(N, DIM, 91);
	rows = (ruv_hnsw_rows){.base = s->vectors, .stride = DIM};
	for (int i = 0; i < N; i++)
		keys[i] = i + 1;
	assert_ok(ruv_hnsw_create(&s->index, &p, &err), err);
	for (int at = 0; at < N; at += 500)
		assert_ok(ruv_hnsw_add(s->index, &(ruv_hnsw_rows){.base = s->vectors + at * DIM, .stride = DIM}, keys + at, 500,
		                       NULL, pool, &err),
		          err);
	assert_ok(ruv_hnsw_repair(s->index, pool, &err), err);
	assert_ok(ruv_hnsw_check(s->index, &report, &err), err);
	assert_int_equal(report.n_nodes, N);
	assert_int_equal(report.n_unreachable, 0);
	for (int i = 0; i < N; i++) {
		ruv_hnsw_query query = {.k = 1, .ef = 32, .how = RUV_HNSW_GRAPH, .rows = &rows};
		ruv_hnsw_hit hit;
		if (ruv_hnsw_search(s->index, s->vectors + i * DIM, &query, &hit) == 1)
			found += hit.key == i + 1;
	}
	assert_true(found >= N * 98 / 100);
	ruv_hnsw_free(s->index);
	ruv_pool_free(pool);
	free(s->vectors);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_readers_beside_a_writer),
	    cmocka_unit_test(test_parallel_build),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

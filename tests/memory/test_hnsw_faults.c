/* test_hnsw_faults.c - every allocation of the vector index failed in turn: an error, and nothing half done. Linked with --wrap. */
#include "hnsw_test.h"

#include <unistd.h>

#include "base/pool.h"

static long countdown = -1; /* allocations until one fails; -1: none does */

static bool fails(void)
{
	return countdown >= 0 && countdown-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
	return fails() ? NULL : __real_aligned_alloc(alignment, n);
}

enum { DIM = 12, N = 700, MORE = 40 };

typedef struct story {
	float *vectors;
	char path[64];
	int64_t n_nodes; /* that must be in the index after the last call */
} story;

static int64_t count(ruv_hnsw *x)
{
	ruv_hnsw_report report;
	ruv_error err;
	long held = countdown;

	countdown = -1;
	assert_ok(ruv_hnsw_check(x, &report, &err), err);
	assert_int_equal(report.n_bad_links, 0);
	countdown = held;
	return report.n_nodes;
}

/* The life of an index; the first failure ends it. Whatever happened, the index is whole. */
static int live(story *s)
{
	ruv_hnsw_params p = {.dimension = DIM, .metric = RUV_HNSW_IP, .bits = 8, .m = 4, .ef_construction = 20, .max_nodes = 2 * N};
	ruv_hnsw_rows rows = {.base = s->vectors, .stride = DIM}, later = {.base = s->vectors + N * DIM, .stride = DIM};
	ruv_hnsw_query by_graph = {.k = 5, .how = RUV_HNSW_GRAPH, .rows = &rows},
		       by_scan = {.k = 9, .how = RUV_HNSW_SCAN, .rows = &rows};
	ruv_hnsw_hit hits[9];
	int64_t keys[N + MORE];
	uint32_t id = 0;
	ruv_hnsw *x, *again = NULL;
	int rc = ruv_hnsw_create(&x, &p, NULL), n = 0;

	for (int i = 0; i < N + MORE; i++)
		keys[i] = i + 1;
	if (rc)
		return rc;
	rc = ruv_hnsw_add(x, &rows, keys, N, NULL, NULL, NULL);
	assert_int_equal(count(x), rc ? 0 : N);
	if (!rc)
		rc = ruv_hnsw_search(x, s->vectors, &by_graph, hits);
	if (rc >= 0)
		rc = ruv_hnsw_search(x, s->vectors, &by_scan, hits);
	for (uint32_t i = 0; rc >= 0 && i < 100; i++) {
		rc = ruv_hnsw_remove(x, i * 3, NULL);
		n += !rc;
		assert_int_equal(count(x), N - n);
	}
	if (rc >= 0) {
		rc = ruv_hnsw_add(x, &later, keys + N, MORE, NULL, NULL, NULL);
		n -= rc ? 0 : MORE;
		assert_int_equal(count(x), N - n);
	}
	if (rc >= 0) {
		rc = ruv_hnsw_update(x, 1, s->vectors, &id, NULL);
		assert_int_equal(count(x), N - n);
		assert_int_equal(ruv_hnsw_key(x, rc ? 1 : id) > 0, 1);
	}
	if (rc >= 0)
		rc = ruv_hnsw_reserve(x, &id, 1, NULL);
	if (rc >= 0)
		rc = ruv_hnsw_repair(x, NULL, NULL);
	if (rc >= 0)
		rc = ruv_hnsw_save(x, s->path, "tag", NULL);
	if (rc >= 0) {
		rc = ruv_hnsw_open_file(&again, s->path, RUV_HNSW_MAP, 0, NULL, NULL);
		assert_int_equal(!again, rc < 0);
	}
	ruv_hnsw_free(again);
	ruv_hnsw_free(x);
	return rc < 0 ? rc : RUV_OK;
}

static void test_every_allocation(void **state)
{
	story s = {.vectors = make_vectors(N + MORE, DIM, 3)};
	int fd, rc = RUV_ENOMEM;
	long n = 0;

	(void)state;
	strcpy(s.path, "/tmp/ruv-hnsw-XXXXXX");
	fd = mkstemp(s.path);
	assert_true(fd >= 0);
	close(fd);
	for (; rc; n++) {
		long left;
		countdown = n;
		rc = live(&s);
		left = countdown;
		countdown = -1;
		assert_true(rc == RUV_OK || rc == RUV_ENOMEM || rc == RUV_EIO); /* stdio calls its own lack of memory so */
		if (rc == RUV_OK && left < 0) /* an allocation failed that nobody needed: a repair that comes later */
			rc = RUV_ENOMEM;
		assert_true(n < 5000);
	}
	print_message("%ld allocations\n", n);
	unlink(s.path);
	free(s.vectors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

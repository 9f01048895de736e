/* test_flat.c - exact search against brute force in double, fusion against values worked out by hand, words of a question. */
#include "store_test.h"

#include <math.h>

#include "memory/dot.h"
#include "memory/flat.h"
#include "memory/fuse.h"
#include "memory/lexical.h"
#include "memory/vectors.h"

enum { MAX_KEYS = 5000 };

static ruv_store_row row_of(int64_t key, const float *vector)
{
	return (ruv_store_row){.key = key,
	                       .vector = vector,
	                       .user = "",
	                       .agent = "",
	                       .session = "",
	                       .domain = "",
	                       .source = "",
	                       .tags = "",
	                       .confidence = 1,
	                       .created_ms = 1};
}

static void test_dot(void **state)
{
	static const int sizes[] = {16, 32, 48, 64, 80, 128, 384, 768, 1024, 8192};
	float *a = aligned_alloc(64, sizeof(float) * 8192), *b = aligned_alloc(64, sizeof(float) * 8192);
	ruv_rng rng;

	(void)state;
	ruv_rng_init(&rng, 11);
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		double sum = 0, na = 0, nb = 0;
		int n = sizes[s];
		random_vector(a, n, &rng);
		random_vector(b, n, &rng);
		for (int i = 0; i < n; i++) {
			sum += (double)a[i] * b[i];
			na += (double)a[i] * a[i];
			nb += (double)b[i] * b[i];
		}
		if (fabs(ruv_dot_f32_kernel()(a, b, n) - sum) > (n / 64.0 + 7) * 0x1p-24 * sqrt(na * nb))
			fail_msg("n = %d: %.9g, expected %.9g", n, (double)ruv_dot_f32_kernel()(a, b, n), sum);
	}
	free(a);
	free(b);
}

/* Random puts, replacements and removals; then every neighbour list must be the brute-force one. */
static void test_against_brute_force(void **state)
{
	static const int dims[] = {1, 7, 16, 33, 100};

	(void)state;
	for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
		int dim = dims[d], stride = (dim + 15) & ~15, n_live = 0;
		float *truth = calloc(MAX_KEYS * (size_t)dim, sizeof *truth);
		bool *live = calloc(MAX_KEYS, sizeof *live);
		float *query = aligned_alloc(64, sizeof *query * (size_t)stride);
		ruv_label_filter filter;
		ruv_memory_filter all = {.every_scope = true};
		ruv_vectors *vectors;
		ruv_near near[64];
		ruv_error err = {0};
		ruv_rng rng;

		ruv_rng_init(&rng, 100 + d);
		assert_ok(ruv_vectors_create(&vectors, dim, &err), err);
		for (int step = 0; step < 9000; step++) {
			int key = (int)ruv_rng_below(&rng, MAX_KEYS - 1) + 1;
			float *v = truth + (size_t)key * (size_t)dim;
			if (ruv_rng_below(&rng, 4) == 0) {
				ruv_vectors_remove(vectors, key);
				n_live -= live[key];
				live[key] = false;
			} else {
				ruv_store_row row = row_of(key, v);
				do
					random_vector(v, dim, &rng);
				while (v[0] == 0);
				assert_ok(ruv_vectors_put(vectors, &row, &err), err);
				n_live += !live[key];
				live[key] = true;
			}
		}
		assert_int_equal(ruv_vectors_count(vectors), n_live);
		assert_true(ruv_vectors_n_slots(vectors) <= MAX_KEYS + 64); /* slots are used again */
		assert_ok(ruv_label_filter_init(&filter, ruv_vectors_texts(vectors), &all, 1, &err), err);
		for (int q = 0; q < 20; q++) {
			double worst, norm = 0;
			bool seen[MAX_KEYS] = {false};
			int n, k = 1 + (int)ruv_rng_below(&rng, 64), better = 0;
			unsigned ticket = ruv_vectors_enter(vectors);
			memset(query, 0, sizeof *query * (size_t)stride);
			random_vector(query, dim, &rng);
			for (int i = 0; i < dim; i++)
				norm += (double)query[i] * query[i];
			for (int i = 0; i < dim; i++)
				query[i] = (float)(query[i] / sqrt(norm));
			assert_ok(ruv_flat_search(near, &n, vectors, ticket, query, k, -INFINITY, &filter, &err), err);
			ruv_vectors_leave(vectors, ticket);
			assert_int_equal(n, k < n_live ? k : n_live);
			for (int i = 0; i < n; i++) {
				const float *v = truth + (size_t)near[i].key * (size_t)dim;
				double dot = 0, length = 0;
				assert_true(live[near[i].key] && !seen[near[i].key]);
				seen[near[i].key] = true;
				for (int j = 0; j < dim; j++) {
					dot += (double)v[j] * query[j];
					length += (double)v[j] * v[j];
				}
				assert_true(fabs(dot / sqrt(length) - near[i].cosine) < 1e-6);
				assert_true(i == 0 || near[i - 1].cosine >= near[i].cosine);
			}
			/* nobody outside the list is nearer than its last, beyond rounding */
			worst = near[n - 1].cosine;
			for (int key = 1; key < MAX_KEYS; key++) {
				const float *v = truth + (size_t)key * (size_t)dim;
				double dot = 0, length = 0;
				if (!live[key] || seen[key])
					continue;
				for (int j = 0; j < dim; j++) {
					dot += (double)v[j] * query[j];
					length += (double)v[j] * v[j];
				}
				better += dot / sqrt(length) > worst + 1e-6;
			}
			assert_int_equal(better, 0);
		}
		ruv_label_filter_release(&filter);
		ruv_vectors_free(vectors);
		free(truth);
		free(live);
		free(query);
	}
}

/* A reader that stays sees what was there when it came, and never less. */
static void test_replaced_under_a_reader(void **state)
{
	float v[16] = {1}, w[16] = {0, 1}, *query = aligned_alloc(64, sizeof v);
	ruv_store_row row = row_of(7, v);
	ruv_memory_filter all = {.every_scope = true};
	ruv_label_filter filter;
	ruv_vectors *vectors;
	ruv_near near[2];
	ruv_error err = {0};
	unsigned before, after;
	int n;

	(void)state;
	memcpy(query, v, sizeof v);
	assert_ok(ruv_vectors_create(&vectors, 16, &err), err);
	assert_ok(ruv_vectors_put(vectors, &row, &err), err);
	assert_ok(ruv_label_filter_init(&filter, ruv_vectors_texts(vectors), &all, 1, &err), err);
	before = ruv_vectors_enter(vectors);
	row.vector = w;
	for (int i = 0; i < 5; i++)
		assert_ok(ruv_vectors_put(vectors, &row, &err), err);
	assert_ok(ruv_flat_search(near, &n, vectors, before, query, 2, -2, &filter, &err), err);
	assert_int_equal(n, 1);
	assert_int_equal(near[0].key, 7);
	ruv_vectors_leave(vectors, before);
	for (int i = 0; i < 5; i++)
		assert_ok(ruv_vectors_put(vectors, &row, &err), err);
	after = ruv_vectors_enter(vectors);
	assert_ok(ruv_flat_search(near, &n, vectors, after, query, 2, -2, &filter, &err), err);
	assert_int_equal(n, 1);
	assert_true(near[0].cosine == 0); /* the new vector only */
	ruv_vectors_remove(vectors, 7);
	assert_ok(ruv_flat_search(near, &n, vectors, after, query, 2, -2, &filter, &err), err);
	assert_int_equal(n, 0); /* forgotten is forgotten, for those who are there, too */
	ruv_vectors_leave(vectors, after);
	ruv_label_filter_release(&filter);
	ruv_vectors_free(vectors);
	free(query);
}

static void test_rrf(void **state)
{
	ruv_candidate c[4] = {{.key = 1, .vector_rank = 1},
	                      {.key = 2, .vector_rank = 2, .lexical_rank = 3},
	                      {.key = 3, .lexical_rank = 1},
	                      {.key = 4, .lexical_rank = 2}};

	(void)state;
	ruv_fuse_rrf(c, 4, 1, 1, 60);
	assert_true(fabs(c[0].score - 0.016393442622950820) < 1e-15); /* 1/61 */
	assert_true(fabs(c[1].score - 0.032002048131080390) < 1e-15); /* 1/62 + 1/63 */
	ruv_fuse_sort(c, 4);
	assert_int_equal(c[0].key, 2);
	assert_int_equal(c[1].key, 1); /* equal to 3: by key */
	assert_int_equal(c[2].key, 3);
	assert_int_equal(c[3].key, 4);
	ruv_fuse_rrf(c, 4, 0.25, 2, 10);
	assert_true(fabs(c[0].score - (0.25 / 12 + 2.0 / 13)) < 1e-15);
}

static void test_zscore(void **state)
{
	/* cosines .9 .5 .1 (mean .5, deviation .326599), BM25 0 2 4 (mean 2, deviation 1.632993) */
	ruv_candidate c[3] = {{.key = 1, .vector_rank = 1, .cosine = 0.9f, .has_cosine = true},
	                      {.key = 2, .vector_rank = 2, .cosine = 0.5f, .has_cosine = true, .lexical_rank = 2, .bm25 = 2},
	                      {.key = 3, .cosine = 0.1f, .has_cosine = true, .lexical_rank = 1, .bm25 = 4}};
	ruv_candidate same[2] = {{.key = 1, .cosine = 0.3f, .has_cosine = true}, {.key = 2, .cosine = 0.3f, .has_cosine = true}};

	(void)state;
	ruv_fuse_zscore(c, 3, 2, 1, 0);
	assert_true(fabs(c[0].score - (2 * 1.224744871 - 1.224744871)) < 1e-6);
	assert_true(fabs(c[1].score) < 1e-6);
	assert_true(fabs(c[2].score + 1.224744871) < 1e-6);
	ruv_fuse_zscore(same, 2, 1, 1, 0);
	assert_true(same[0].score == 0 && same[1].score == 0); /* nothing to tell them apart */
	/* without a cosine: the least of the others; outside a cut list: its last score */
	c[2].has_cosine = false;
	ruv_fuse_zscore(c, 3, 1, 1, 2);
	assert_true(fabs(c[0].score - (1.414213562 - 0.707106781)) < 1e-6); /* cosines .9 .5 .5, BM25 2 2 4 */
	assert_true(fabs(c[2].score - (-0.707106781 + 1.414213562)) < 1e-6);
	ruv_fuse_zscore(NULL, 0, 1, 1, 0);
}

static void check_terms(const char *text, const char *expected)
{
	ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
	char joined[512] = "";
	int n = ruv_lexical_terms(terms, text);

	for (int i = 0; i < n; i++) {
		strncat(joined, terms[i].text, (size_t)terms[i].n);
		strcat(joined, "|");
	}
	assert_string_equal(joined, expected);
}

static void test_terms(void **state)
{
	(void)state;
	check_terms("What is the capital of France?", "capital|France|");
	check_terms("The the THE", "The|");
	check_terms("who is it", "who|is|it|");
	check_terms("don't  C++ foo_bar", "don|C|foo|bar|");
	check_terms("Apple apple APPLE pie", "Apple|pie|");
	check_terms("", "");
	check_terms("?!\"'\n", "");
	check_terms("naïve Zürich", "naïve|Zürich|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_dot),
	    cmocka_unit_test(test_against_brute_force),
	    cmocka_unit_test(test_replaced_under_a_reader),
	    cmocka_unit_test(test_rrf),
	    cmocka_unit_test(test_zscore),
	    cmocka_unit_test(test_terms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* hnsw_test.h - vectors to test the vector index with, and the truth about them. */
#ifndef RUV_TESTS_HNSW_TEST_H
#define RUV_TESTS_HNSW_TEST_H

#include "../test.h"

#include <math.h>

#include "base/rng.h"
#include "memory/hnsw.h"

/* n unit vectors in n / 100 clusters around a common mean. */
static float *make_vectors(int n, int dim, uint64_t seed)
{
	int n_clusters = n / 100 + 1;
	float *centres = malloc(sizeof *centres * (size_t)n_clusters * (size_t)dim);
	float *v = malloc(sizeof *v * (size_t)n * (size_t)dim);
	ruv_rng rng;

	assert_non_null(centres);
	assert_non_null(v);
	ruv_rng_init(&rng, seed);
	for (int i = 0; i < n_clusters * dim; i++)
		centres[i] = (float)ruv_rng_normal(&rng) + 1.5f * (float)(i % dim % 3);
	for (int i = 0; i < n; i++) {
		const float *from = centres + (size_t)dim * ruv_rng_below(&rng, (uint64_t)n_clusters);
		double norm = 0;
		for (int j = 0; j < dim; j++) {
			float c = from[j] + 1.1f * (float)ruv_rng_normal(&rng);
			v[(size_t)i * (size_t)dim + (size_t)j] = c;
			norm += (double)c * c;
		}
		for (int j = 0; j < dim; j++)
			v[(size_t)i * (size_t)dim + (size_t)j] /= (float)sqrt(norm);
	}
	free(centres);
	return v;
}

static inline double true_score(ruv_hnsw_metric metric, const float *a, const float *b, int dim)
{
	double s = 0;

	for (int i = 0; i < dim; i++)
		s += metric == RUV_HNSW_IP ? (double)a[i] * b[i] : -((double)a[i] - b[i]) * ((double)a[i] - b[i]);
	return s;
}

static inline int greater_first(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x > y ? -1 : x < y;
}

/* What a hit must score at least to be one of the k nearest among the n vectors that `in` (NULL: all) lets in; how many these are
 * goes to *n_in. */
static inline double kth_score(ruv_hnsw_metric metric, const float *vectors, const bool *in, int n, int dim, const float *query,
                               int k, int *n_in)
{
	double *scores = malloc(sizeof *scores * (size_t)n + 1), kth;

	assert_non_null(scores);
	*n_in = 0;
	for (int i = 0; i < n; i++)
		if (!in || in[i])
			scores[(*n_in)++] = true_score(metric, vectors + (size_t)i * (size_t)dim, query, dim);
	qsort(scores, (size_t)*n_in, sizeof *scores, greater_first);
	kth = !*n_in ? INFINITY : scores[(*n_in < k ? *n_in : k) - 1];
	free(scores);
	return kth;
}

#endif

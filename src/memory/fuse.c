/* fuse.c - reciprocal rank fusion (Cormack, Clarke, Buettcher 2009) and the sum of standard scores; see fuse.h. Layer: memory. */
#include "memory/fuse.h"

#include <math.h>
#include <stdlib.h>

void ruv_fuse_rrf(ruv_candidate *c, int n, double vector_weight, double lexical_weight, int k)
{
	for (int i = 0; i < n; i++) {
		c[i].score = 0;
		if (c[i].vector_rank)
			c[i].score += vector_weight / (k + c[i].vector_rank);
		if (c[i].lexical_rank)
			c[i].score += lexical_weight / (k + c[i].lexical_rank);
	}
}

/* 1 / deviation, 0 when there is none. */
static double scale_of(double sum, double squares, int n)
{
	double mean = sum / n, variance = squares / n - mean * mean;

	return variance > 1e-12 * (mean * mean + 1e-12) ? 1 / sqrt(variance) : 0;
}

void ruv_fuse_zscore(ruv_candidate *c, int n, double vector_weight, double lexical_weight, double bm25_floor)
{
	double sum[2] = {0}, squares[2] = {0}, scale[2], least = INFINITY;

	if (n <= 0)
		return;
	if (n == 1) { /* no deviation to measure by: its own figure says more than 0 */
		c->score = c->has_cosine ? (double)c->cosine : (double)c->bm25;
		return;
	}
	for (int i = 0; i < n; i++)
		if (c[i].has_cosine && c[i].cosine < least)
			least = c[i].cosine;
	if (!isfinite(least))
		least = 0;
	for (int i = 0; i < n; i++) {
		double x[2] = {c[i].has_cosine ? c[i].cosine : least, c[i].lexical_rank ? c[i].bm25 : bm25_floor};
		for (int j = 0; j < 2; j++) {
			sum[j] += x[j];
			squares[j] += x[j] * x[j];
		}
	}
	for (int j = 0; j < 2; j++)
		scale[j] = scale_of(sum[j], squares[j], n);
	for (int i = 0; i < n; i++) {
		double cosine = c[i].has_cosine ? c[i].cosine : least, bm25 = c[i].lexical_rank ? c[i].bm25 : bm25_floor;
		c[i].score = vector_weight * (cosine - sum[0] / n) * scale[0] + lexical_weight * (bm25 - sum[1] / n) * scale[1];
	}
}

static int better_first(const void *a, const void *b)
{
	const ruv_candidate *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

void ruv_fuse_sort(ruv_candidate *candidates, int n)
{
	if (n > 1)
		qsort(candidates, (size_t)n, sizeof *candidates, better_first);
}

/* knn.c - see knn.h. Layer: learn. */
#include "learn/knn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "learn/vec.h"

void ruv_knn_init(ruv_knn *knn, int dim, int limit)
{
	*knn = (ruv_knn){.dim = dim, .limit = limit};
}

void ruv_knn_release(ruv_knn *knn)
{
	free(knn->rows);
	free(knn->outcomes);
	memset(knn, 0, sizeof *knn);
}

bool ruv_knn_unit(float *row, int dim)
{
	float norm = sqrtf(ruv_vec_dot(row, row, dim));

	if (!(norm > 1e-12f) || !isfinite(norm))
		return false;
	for (int i = 0; i < dim; i++)
		row[i] /= norm;
	return true;
}

int ruv_knn_add(ruv_knn *knn, const float *row, const ruv_knn_outcome *outcome, ruv_error *err)
{
	float unit[RUV_KNN_MAX_DIM];
	int at = knn->n;

	memcpy(unit, row, sizeof *unit * (size_t)knn->dim);
	if (!ruv_knn_unit(unit, knn->dim))
		return RUV_OK;
	if (knn->limit && knn->n == knn->limit) {
		at = knn->next;
		knn->next = (knn->next + 1) % knn->limit;
	} else if (knn->n == knn->cap) {
		int cap = knn->cap ? 2 * knn->cap : 256;
		float *rows = realloc(knn->rows, sizeof *rows * (size_t)cap * (size_t)knn->dim);
		ruv_knn_outcome *outcomes;

		if (!rows)
			return ruv_fail_memory(err, "router", sizeof *rows * (size_t)cap * (size_t)knn->dim);
		knn->rows = rows;
		outcomes = realloc(knn->outcomes, sizeof *outcomes * (size_t)cap);
		if (!outcomes)
			return ruv_fail_memory(err, "router", sizeof *outcomes * (size_t)cap);
		knn->outcomes = outcomes;
		knn->cap = cap;
	}
	memcpy(knn->rows + (size_t)at * (size_t)knn->dim, unit, sizeof *unit * (size_t)knn->dim);
	knn->outcomes[at] = *outcome;
	knn->n += at == knn->n;
	return RUV_OK;
}

/* The nearest rows, nearest first; returns how many. */
static int nearest(const ruv_knn *knn, const float *unit, int skip, int *ids, float *cosines)
{
	int n = 0;

	for (int i = 0; i < knn->n; i++) {
		float cosine = ruv_vec_dot(unit, knn->rows + (size_t)i * (size_t)knn->dim, knn->dim);
		int at;

		if (i == skip || (n == RUV_KNN_NEIGHBOURS && cosine <= cosines[n - 1]))
			continue;
		at = n < RUV_KNN_NEIGHBOURS ? n++ : n - 1;
		for (; at > 0 && cosines[at - 1] < cosine; at--) {
			cosines[at] = cosines[at - 1];
			ids[at] = ids[at - 1];
		}
		cosines[at] = cosine;
		ids[at] = i;
	}
	return n;
}

static void sum_up(const ruv_knn *knn, const int *ids, const float *cosines, int n, float band, ruv_knn_sums *sums)
{
	for (int i = 0; i < n; i++) {
		const ruv_knn_outcome *o = &knn->outcomes[ids[i]];
		float w = expf((cosines[i] - 1) / band);

		for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++)
			if (o->quality[t] >= 0) {
				sums->weight[t] += w;
				sums->quality[t] += w * o->quality[t];
				sums->latency_s[t] += w * o->latency_s[t];
				sums->cost[t] += w * o->cost[t];
			}
	}
}

float ruv_knn_ask_two(const ruv_knn *knn, const float *unit, float narrow_band, ruv_knn_sums *narrow, float wide_band,
                      ruv_knn_sums *wide, int skip)
{
	float cosines[RUV_KNN_NEIGHBOURS];
	int ids[RUV_KNN_NEIGHBOURS], n = nearest(knn, unit, skip, ids, cosines);

	sum_up(knn, ids, cosines, n, narrow_band, narrow);
	sum_up(knn, ids, cosines, n, wide_band, wide);
	return n ? cosines[0] : -1;
}

float ruv_knn_ask(const ruv_knn *knn, const float *unit, float band, int skip, ruv_knn_sums *sums)
{
	float cosines[RUV_KNN_NEIGHBOURS];
	int ids[RUV_KNN_NEIGHBOURS], n = nearest(knn, unit, skip, ids, cosines);

	sum_up(knn, ids, cosines, n, band, sums);
	return n ? cosines[0] : -1;
}

/* knn.h - past outcomes by the nearness of their questions: the baseline of routing, and the evidence that the blend adds to the
 * network. Rows are unit vectors of a few dozen principal components, scanned whole: some thousands take some ten microseconds.
 *
 * Threads: readers together, or one writer. Layer: learn. */
#ifndef RUV_LEARN_KNN_H
#define RUV_LEARN_KNN_H

#include "ruvllm/router.h"

enum { RUV_KNN_MAX_DIM = 64, RUV_KNN_NEIGHBOURS = 24 };

/* What became of one question by each tier. */
typedef struct ruv_knn_outcome {
	float quality[RUV_ROUTE_MAX_TIERS];   /* 0..1; negative: not known */
	float latency_s[RUV_ROUTE_MAX_TIERS]; /* where quality is known */
	float cost[RUV_ROUTE_MAX_TIERS];      /* tokens x parameters over the unit of the router; likewise */
} ruv_knn_outcome;

typedef struct ruv_knn {
	int dim, n, cap;
	int next;                  /* with a limit: the row that is replaced next */
	int limit;                 /* most rows; 0: as many as are added */
	float *rows;               /* [n, dim] of length 1 */
	ruv_knn_outcome *outcomes; /* [n] */
} ruv_knn;

void ruv_knn_init(ruv_knn *knn, int dim, int limit);
void ruv_knn_release(ruv_knn *knn);
/* Adds a row (made a unit vector; a zero vector is left out). The oldest goes when the limit is reached. */
int ruv_knn_add(ruv_knn *knn, const float *row, const ruv_knn_outcome *outcome, ruv_error *err);

/* Kernel sums over the RUV_KNN_NEIGHBOURS nearest: per tier, weight w = exp((cosine - 1) / band) of the outcomes that know it, and
 * the sums of w x quality, latency and cost. Adds to what is there, so that several banks may be asked. `skip`: a row to leave out
 * (its own, in training); -1: none. Returns the greatest cosine, -1 without rows. */
typedef struct ruv_knn_sums {
	float weight[RUV_ROUTE_MAX_TIERS], quality[RUV_ROUTE_MAX_TIERS], latency_s[RUV_ROUTE_MAX_TIERS], cost[RUV_ROUTE_MAX_TIERS];
} ruv_knn_sums;
float ruv_knn_ask(const ruv_knn *knn, const float *unit, float band, int skip, ruv_knn_sums *sums);
/* The same for two kernels in one scan. */
float ruv_knn_ask_two(const ruv_knn *knn, const float *unit, float narrow_band, ruv_knn_sums *narrow, float wide_band,
                      ruv_knn_sums *wide, int skip);

/* Makes row [dim] a unit vector; false when it is zero. */
bool ruv_knn_unit(float *row, int dim);

#endif

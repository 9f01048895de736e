/* patterns.h - clusters of unit vectors: k-means++ (Arthur & Vassilvitskii 2007) on the sphere, merging and pruning of what it
 * finds.
 *
 * Threads: any (no state). Layer: learn. */
#ifndef RUV_LEARN_PATTERNS_H
#define RUV_LEARN_PATTERNS_H

#include "ruvllm/types.h"

typedef struct ruv_patterns {
	int n, dim;
	float *centroids; /* [n, dim], unit length */
	int *size;        /* [n] vectors of each */
	int *of;          /* [n_vectors] its pattern, -1: pruned */
	int n_merged, n_pruned;
	double inertia; /* mean of 1 - cosine to the centroid, before pruning */
} ruv_patterns;

typedef struct ruv_patterns_options {
	int k;              /* seeds; 0: sqrt(n / 2), at most 256 */
	int iterations;     /* of Lloyd's; 0: 25 */
	float merge_cosine; /* patterns at least this near are one; 0: 0.9 */
	int min_size;       /* smaller ones are pruned; 0: 2 */
	uint64_t seed;
} ruv_patterns_options;

/* vectors [n, dim], any length but zero (a zero one is pruned). Release the result also after a failure. */
int ruv_patterns_find(ruv_patterns *out, const float *vectors, int n, int dim, const ruv_patterns_options *options, ruv_error *err);
void ruv_patterns_release(ruv_patterns *patterns);
/* What a pattern is worth: mean quality x log2(1 + size) x 0.5^(age / half_life). */
double ruv_patterns_worth(double quality, int size, double age_days, double half_life_days);

#endif

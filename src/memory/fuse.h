/* fuse.h - one ranking out of two. Layer: memory. */
#ifndef RUV_MEMORY_FUSE_H
#define RUV_MEMORY_FUSE_H

#include "ruvllm/memory.h"

/* A candidate of either list or both. */
typedef struct ruv_candidate {
	int64_t key;
	int vector_rank, lexical_rank; /* from 1; 0: not in that list */
	float cosine;                  /* known for every candidate that has a vector, else 0 */
	bool has_cosine;
	float bm25; /* 0 when lexical_rank is 0 */
	double score;
} ruv_candidate;

/* score = vector_weight / (k + vector_rank) + lexical_weight / (k + lexical_rank), absent ranks adding nothing. */
void ruv_fuse_rrf(ruv_candidate *candidates, int n, double vector_weight, double lexical_weight, int k);

/* score = vector_weight * z(cosine) + lexical_weight * z(bm25), each z over all candidates: (x - mean) / standard deviation, 0
 * where all are equal. A candidate without a cosine has the least one of the others; one outside the lexical list has bm25_floor
 * (0, or the last of a list that was cut). */
void ruv_fuse_zscore(ruv_candidate *candidates, int n, double vector_weight, double lexical_weight, double bm25_floor);

/* Best first; equal scores by key. */
void ruv_fuse_sort(ruv_candidate *candidates, int n);

#endif

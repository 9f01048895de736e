/* flat.h - exact nearest neighbours: every vector is looked at. Right for small stores, and the oracle for every approximate index.
 *
 * Threads: any; see vectors.h. Layer: memory. */
#ifndef RUV_MEMORY_FLAT_H
#define RUV_MEMORY_FLAT_H

#include "memory/vectors.h"

typedef struct ruv_near {
	int64_t key;
	float cosine;
} ruv_near;

/* The k nearest by cosine that pass the filter and have at least min_cosine, nearest first, equal ones by key.
 *   query  [stride] unit length, zeros behind the dimension, 64-byte aligned
 *   out    [k]; *n is how many were found: fewer than k only when fewer pass
 * The caller stands between enter (ticket) and leave. RUV_ENOMEM. */
int ruv_flat_search(ruv_near *out, int *n, ruv_vectors *vectors, unsigned ticket, const float *query, int k, float min_cosine,
                    const ruv_label_filter *filter, ruv_error *err);

#endif

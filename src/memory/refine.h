/* refine.h - what is done with the fused candidates once their nodes are read: labels, priors, variety. Layer: memory. */
#ifndef RUV_MEMORY_REFINE_H
#define RUV_MEMORY_REFINE_H

#include "ruvllm/memory.h"

/* Does the query ask for any of it? Then more nodes are read than it wants hits. */
bool ruv_refine_wanted(const ruv_memory_query *query);

/* The share of its title's content words that the question has, plus 1 for every tag all of whose words it has. */
double ruv_refine_label_match(const ruv_memory_node *node, const char *question);

/* Orders hits[0..n) anew and returns how many of them, at most k, are left at the front. The scores that come in are fused ones,
 * best first; `added` says that they are sums around 0 (z-scores), so that priors are added and not multiplied.
 *   rows  [n] unit vectors of `stride` floats, NULL where a hit has none; NULL without mmr_lambda */
int ruv_refine(ruv_memory_hit *hits, int n, int k, const ruv_memory_query *query, bool added, const float *const *rows, int stride,
               int64_t now_ms, ruv_error *err);

#endif

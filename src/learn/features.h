/* features.h - the 128 numbers of a question, in the order of FR-003 (include/ruvllm/router.h has the offsets, docs/router.md every
 * number). All lie within about [-4, 4]; what is not known has the neutral value that docs/router.md states.
 *
 * Threads: any; a basis and a history are read only here. Layer: learn. */
#ifndef RUV_LEARN_FEATURES_H
#define RUV_LEARN_FEATURES_H

#include "learn/textclass.h"
#include "ruvllm/memory.h"
#include "ruvllm/router.h"

enum { RUV_ROUTE_SEARCH_K = 10 }; /* hits that a decision looks at, in training and in use */
enum { RUV_BASIS_MAX_COMPONENTS = 64, RUV_BASIS_CLUSTERS = 4 };

/* Where embeddings lie: their mean, the directions in which they vary most, and four cluster centres; fitted to the vectors of a
 * memory. dim 0: there is none. */
typedef struct ruv_basis {
	int dim, n_components;
	float *mean;                            /* [dim] */
	float *components;                      /* [n_components, dim], orthonormal, largest variance first */
	float *centres;                         /* [RUV_BASIS_CLUSTERS, dim] */
	float scale[RUV_BASIS_MAX_COMPONENTS];  /* 1 / standard deviation along a component */
	float offset[RUV_BASIS_MAX_COMPONENTS]; /* component . mean */
} ruv_basis;

/* Fits to vectors [n, dim] by subspace iteration and k-means++; n_components at most RUV_BASIS_MAX_COMPONENTS, dim and n. */
int ruv_basis_fit(ruv_basis *basis, const float *vectors, int n, int dim, int n_components, uint64_t seed, ruv_error *err);
void ruv_basis_release(ruv_basis *basis);
/* coordinates [n_components] of a vector, not scaled. */
void ruv_basis_project(const ruv_basis *basis, const float *vector, float *coordinates);

/* How well each tier has done: running means with their weights. Plain memory. */
typedef struct ruv_route_history {
	struct {
		float sum[RUV_ROUTE_MAX_TIERS], weight[RUV_ROUTE_MAX_TIERS];
	} overall, by_type[RUV_ROUTE_QUERY_TYPES], by_domain[RUV_ROUTE_DOMAINS];
} ruv_route_history;

/* Starts every mean at the tiers' own, as if `weight` outcomes had been seen. */
void ruv_route_history_init(ruv_route_history *history, const float *quality, int n_tiers, float weight);
/* One outcome of a question with these features. Old ones fade by 1 % each. */
void ruv_route_history_add(ruv_route_history *history, const float *features, int tier, float quality);
/* Sets features[RUV_FEATURE_HISTORY..+16): overall, this type, this domain, this conversation. history or state may be NULL. */
void ruv_features_history(float *features, const ruv_route_history *history, const ruv_route_state *state);

/* What a search of the memory found, as a decision looks at it: hits [RUV_ROUTE_MAX_HITS] is filled and input's fields about the
 * search are set. The hits point into `found`; search with with_vectors and k 10, as the outcomes were collected. */
void ruv_route_input_hits(ruv_route_input *input, ruv_route_hit *hits, const ruv_memory_hits *found, int k);

/* Everything but the history part, which is neutral (0). `basis` may have dim 0. RUV_EINVAL without text; RUV_EMISMATCH when the
 * embedding's dimension is not the basis's. */
int ruv_features_compute(float features[RUV_ROUTE_FEATURES], const ruv_textclass *classes, const ruv_basis *basis,
                         const ruv_route_input *input, ruv_error *err);

#endif

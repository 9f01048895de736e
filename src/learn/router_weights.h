/* router_weights.h - everything that a router has learned, as one immutable object with a count of users, and as a file.
 *
 * The file is a section_file of kind "RUVROUTE": "head" (struct of fixed numbers below, little-endian), "tiers", "params",
 * "fisher", "norm" (mean and 1/deviation of the features), "basis", "classes" (textclass.h), "bank" (neighbours, 8 bits a
 * component), "gate" (held-out rows that an online refinement must not get worse on). Threads: never changed once made. Layer:
 * learn. */
#ifndef RUV_LEARN_ROUTER_WEIGHTS_H
#define RUV_LEARN_ROUTER_WEIGHTS_H

#include "learn/features.h"
#include "learn/knn.h"
#include "learn/router_net.h"

/* How the utility of the tiers is estimated for a question that was not asked before. */
typedef enum ruv_route_method {
	RUV_ROUTE_KNN,
	RUV_ROUTE_FASTGRNN,
	RUV_ROUTE_BLEND, /* half of each */
	RUV_ROUTE_LADDER /* not at all: the smallest tier first, and up when its answer is not sure of itself */
} ruv_route_method;
const char *ruv_route_method_name(int method);

enum {
	RUV_ROUTE_SIGNS = 10,    /* numbers that trust looks at, the constant included */
	RUV_ROUTE_GAIN_SIGNS = 3 /* of them those that say what a larger tier would add: constant, mean and least log-probability */
};

/* Fixed-size numbers of a router. */
typedef struct ruv_router_head {
	int32_t n_tiers, hidden, rank, shared, method, version, n_outcomes, has_trust;
	float mu, lambda;            /* utility: quality (1..5) - lambda * seconds - mu * cost */
	float kappa;                 /* weight of the network against past outcomes */
	float band;                  /* of the kernel by which questions that were asked before are known again */
	float near_kappa, near_band; /* of the neighbours' estimate: how much the tiers' means weigh, and its wider kernel */
	float shrink;                /* how far the network may move utilities away from the tiers' means, 0..1 */
	float share;                 /* of the tier head against expected quality in the network's own view */
	float tau;                   /* temperature of utilities when they become probabilities */
	float min_confidence;
	float density;
	double cost_unit; /* parameters x tokens that cost 1: the mean answer of the largest tier */
	int64_t trained_ms;
	float trust[RUV_ROUTE_MAX_TIERS][RUV_ROUTE_SIGNS]; /* logistic: the answer is as good as a larger tier's */
	float gain[RUV_ROUTE_MAX_TIERS][RUV_ROUTE_SIGNS]; /* linear: points of quality that the largest tier would add; by the first
	                                                     RUV_ROUTE_GAIN_SIGNS alone */
	float threshold[RUV_ROUTE_MAX_TIERS];             /* gain above which the largest tier answers again */
	char encoder[64], encoder_version[24];
} ruv_router_head;

/* A held-out question: standardized features and each tier's utility. */
typedef struct ruv_router_gate_row {
	float x[RUV_ROUTE_FEATURES];
	float utility[RUV_ROUTE_MAX_TIERS];
} ruv_router_gate_row;

typedef struct ruv_router_weights {
	int users; /* atomic */
	ruv_router_head head;
	ruv_router_tier tiers[RUV_ROUTE_MAX_TIERS];
	ruv_router_shape shape;
	int n_params;
	float *params, *fisher; /* [n_params] */
	float mean[RUV_ROUTE_FEATURES], inverse[RUV_ROUTE_FEATURES];
	ruv_basis basis;
	ruv_textclass *classes;
	ruv_knn bank;
	ruv_router_gate_row *gate; /* [n_gate] */
	int n_gate;
	ruv_fastgrnn_cell *cell; /* made from params by ruv_router_weights_ready */
	/* Kept whole for writing the file again. */
	char *class_bytes;
	size_t n_class_bytes;
} ruv_router_weights;

/* An empty one with one user. */
int ruv_router_weights_create(ruv_router_weights **out, ruv_error *err);
ruv_router_weights *ruv_router_weights_use(ruv_router_weights *weights);
void ruv_router_weights_free(ruv_router_weights *weights); /* gives up one use; NULL is fine */
/* A deep copy with parameters of its own to train. */
int ruv_router_weights_copy(ruv_router_weights **out, const ruv_router_weights *from, ruv_error *err);
/* Builds what is derived: the shape and the cell to run. int8 false: in F32. */
int ruv_router_weights_ready(ruv_router_weights *weights, bool int8, ruv_error *err);

int ruv_router_weights_write(const ruv_router_weights *weights, const char *path, ruv_error *err);
int ruv_router_weights_read(ruv_router_weights **out, const char *path, bool int8, ruv_error *err);

/* x = (features - mean) * inverse, cut to [-4, 4]. */
void ruv_router_standardize(const ruv_router_weights *weights, const float *features, float *x);

/* From this share of past outcomes on, a question counts as known: what came of it is trusted more than an answer's signs. */
#define RUV_ROUTE_KNOWN 0.5f

/* How each tier is seen: utility in points of quality, from the network's outputs and the neighbours' sums. The method gives an
 * estimate: the tiers' means moved by the network (fastgrnn), by neighbours in the wide sense (knn), or half by each (blend). What
 * came of (nearly) the same question before then outweighs it: `same`. A method on its own, for comparing, has no such memory. */
typedef struct ruv_router_view {
	float utility[RUV_ROUTE_MAX_TIERS], probability[RUV_ROUTE_MAX_TIERS], quality[RUV_ROUTE_MAX_TIERS];
	float neighbours; /* 0..1 */
	float confidence;
	int best;
} ruv_router_view;
void ruv_router_judge(const ruv_router_weights *weights, int method, const ruv_router_outputs *out, const ruv_knn_sums *near,
                      const ruv_knn_sums *same, ruv_router_view *view);

/* quality 0..1, seconds and cost to utility. */
float ruv_router_utility(const ruv_router_head *head, float quality, float seconds, float cost);

/* The numbers that trust looks at. */
void ruv_route_signs_numbers(const ruv_route_signs *signs, float numbers[RUV_ROUTE_SIGNS]);

#endif

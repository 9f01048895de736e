/* router_net.h - the router's network: the FastGRNN cell under its heads (section 5.2), the loss of section 5.3, its gradient.
 *
 * Parameters are one array: the cell's, then the heads' as rows [hidden] with their biases behind: tiers, contexts, temperature,
 * top-p, confidence, expected quality of each tier. Inputs are features that were standardized.
 * Threads: any on different buffers. Layer: learn. */
#ifndef RUV_LEARN_ROUTER_NET_H
#define RUV_LEARN_ROUTER_NET_H

#include "learn/fastgrnn.h"

typedef struct ruv_router_shape {
	ruv_fastgrnn_shape cell;
	int n_tiers; /* 1..RUV_ROUTE_MAX_TIERS */
} ruv_router_shape;

int ruv_router_shape_check(const ruv_router_shape *shape, ruv_error *err);
int ruv_router_net_n_params(const ruv_router_shape *shape);
void ruv_router_net_init(float *params, const ruv_router_shape *shape, ruv_rng *rng);

typedef struct ruv_router_outputs {
	float tiers[RUV_ROUTE_MAX_TIERS], contexts[RUV_ROUTE_CONTEXTS]; /* probabilities */
	float temperature, top_p, confidence;
	float quality[RUV_ROUTE_MAX_TIERS];
} ruv_router_outputs;

/* The heads on a state [hidden]; heads: params behind the cell's. */
void ruv_router_heads(const ruv_router_shape *shape, const float *heads, const float *state, ruv_router_outputs *out);

/* What one turn should have come to. */
typedef struct ruv_router_target {
	float tiers[RUV_ROUTE_MAX_TIERS];   /* a distribution: all on the best tier, or spread by utility */
	int context;                        /* index of the bin; -1: not known */
	float temperature, top_p;           /* negative: not known */
	float quality[RUV_ROUTE_MAX_TIERS]; /* negative: not known */
	float confidence; /* 1 when the tier that the network would take is as good as the best; negative: not known */
	float weight;     /* of the tier loss; the rest has the sign's own: 0 leaves this turn out */
} ruv_router_target;

/* A conversation of features [n_turns, 128]; adds the gradient of the mean loss over its turns (NULL: only the loss) and returns
 * the loss. The state starts at 0. At most RUV_ROUTER_MAX_TURNS turns. */
enum { RUV_ROUTER_MAX_TURNS = 8 };
double ruv_router_net_loss(const ruv_router_shape *shape, const float *params, const float *x, const ruv_router_target *targets,
                           int n_turns, float *gradient);

/* Weights of the loss's parts: alpha and beta of section 5.3, and those of the parts that it does not have. */
#define RUV_ROUTER_ALPHA 0.5f
#define RUV_ROUTER_BETA 0.5f
#define RUV_ROUTER_GAMMA 0.3f /* confidence */
#define RUV_ROUTER_DELTA 0.5f /* expected quality */

#endif

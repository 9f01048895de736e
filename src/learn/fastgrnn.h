/* fastgrnn.h - the gated recurrent cell of the router, its gradient, and the small forms that it runs in.
 *
 * Kusupati et al. 2018 as section 5.1 writes it, the reset gate fixed to 1:
 *     z = sigmoid(Wz x + Uz h + bz)      c = tanh(Wh x + Uh h + bh)      h' = (zeta (1 - z) + nu) c + z h
 * zeta and nu are sigmoids of two learned numbers, so that both lie in (0, 1): with nu fixed at 0.5 the state could grow. W is made
 * sparse by magnitude, U = A B has low rank when `rank` is not 0. With `shared` both gates use one W and one U, as the paper does.
 *
 * Parameters are one array of F32, in the order: Wz [hidden, n_in], Wh (not when shared), Uz ([hidden, hidden], or A [hidden, rank]
 * and B [rank, hidden]), Uh (not when shared), bz [hidden], bh [hidden], zeta, nu.
 *
 * Threads: any number on one cell; a training pass belongs to one. Layer: learn. */
#ifndef RUV_LEARN_FASTGRNN_H
#define RUV_LEARN_FASTGRNN_H

#include "base/rng.h"
#include "ruvllm/router.h"

typedef struct ruv_fastgrnn_shape {
	int n_in;   /* 1..256 */
	int hidden; /* 1..RUV_ROUTE_MAX_HIDDEN */
	int rank;   /* of U; 0: dense */
	bool shared;
} ruv_fastgrnn_shape;

/* RUV_EINVAL names what is out of range. */
int ruv_fastgrnn_check(const ruv_fastgrnn_shape *shape, ruv_error *err);
int ruv_fastgrnn_n_params(const ruv_fastgrnn_shape *shape);
/* The first so many parameters are input weights, the part that is made sparse. */
int ruv_fastgrnn_n_input_weights(const ruv_fastgrnn_shape *shape);
/* Glorot-uniform weights, zero biases except bz = 1, zeta = sigmoid(3), nu = sigmoid(-3). */
void ruv_fastgrnn_init(float *params, const ruv_fastgrnn_shape *shape, ruv_rng *rng);

/* What a step leaves for its gradient. */
typedef struct ruv_fastgrnn_cache {
	float z[RUV_ROUTE_MAX_HIDDEN], c[RUV_ROUTE_MAX_HIDDEN];
	float bz[RUV_ROUTE_MAX_HIDDEN], bh[RUV_ROUTE_MAX_HIDDEN]; /* B h of either gate when U has low rank */
} ruv_fastgrnn_cache;

/* after [hidden] from x [n_in] and before [hidden]; after may be before. cache may be NULL. */
void ruv_fastgrnn_step(const ruv_fastgrnn_shape *shape, const float *params, const float *x, const float *before, float *after,
                       ruv_fastgrnn_cache *cache);
/* Adds to gradient [n_params] and sets d_before [hidden] (NULL: not wanted) from d_after [hidden] = dLoss/d after. */
void ruv_fastgrnn_back(const ruv_fastgrnn_shape *shape, const float *params, const float *x, const float *before,
                       const ruv_fastgrnn_cache *cache, const float *d_after, float *gradient, float *d_before);

/* Keeps the `density` share of the input weights that are largest, sets the rest to 0; mask [n_input_weights] gets 1 for kept ones
 * (NULL is fine). RUV_ENOMEM. */
int ruv_fastgrnn_prune(const ruv_fastgrnn_shape *shape, float *params, double density, unsigned char *mask, ruv_error *err);

/* ---- running ----------------------------------------------------------------------------------------------------------- */

typedef enum ruv_fastgrnn_form {
	RUV_FASTGRNN_DENSE = 0,
	RUV_FASTGRNN_SPARSE = 1, /* W as its non-zero weights alone, with one byte of column each */
	RUV_FASTGRNN_INT8 = 2    /* weights in 8 bits with a scale a row; inputs and state in 8 bits with a scale each */
} ruv_fastgrnn_form;             /* flags: SPARSE | INT8 is both */

typedef struct ruv_fastgrnn_cell ruv_fastgrnn_cell;

int ruv_fastgrnn_cell_create(ruv_fastgrnn_cell **out, const ruv_fastgrnn_shape *shape, const float *params, unsigned form,
                             ruv_error *err);
void ruv_fastgrnn_cell_free(ruv_fastgrnn_cell *cell);
/* state [hidden] is advanced by x [n_in]. */
void ruv_fastgrnn_cell_run(const ruv_fastgrnn_cell *cell, const float *x, float *state);
/* Bytes of its weights, indices and scales. */
size_t ruv_fastgrnn_cell_bytes(const ruv_fastgrnn_cell *cell);

#endif

/* ewc.h - online elastic weight consolidation: parameters that earlier tasks rest on are held back.
 *
 * Kirkpatrick et al. 2017, with the running Fisher of EWC++ (Chaudhry et al. 2018):
 *     running Fisher   R <- (1 - a) R + a g^2 at every step
 *     at a boundary    F <- decay F + R / mean of R over its group;   theta* <- theta
 *     penalty          lambda / 2 sum F (theta - theta*)^2
 * F is normalised per parameter group (a matrix), because gradients of A and B differ by orders of magnitude and one lambda has to
 * serve all. The penalty acts as a proximal step after the optimizer's, theta <- theta* + (theta - theta*) / (1 + rate lambda F):
 * the implicit form, stable for every lambda, and untouched by Adam's scaling.
 *
 * Threads: one at a time. Layer: learn. */
#ifndef RUV_LEARN_EWC_H
#define RUV_LEARN_EWC_H

#include "ruvllm/types.h"

typedef struct ruv_ewc {
	int64_t n;
	int64_t *first; /* [n_groups + 1] */
	int n_groups;
	float *fisher;              /* [n] of finished tasks */
	float *running;             /* [n] of the task that runs */
	float *anchor;              /* [n] theta at the last boundary */
	double lambda, decay, rate; /* rate: a */
	int n_tasks;                /* boundaries so far */
	int64_t n_seen;             /* gradients since the last one */
} ruv_ewc;

/* first: [n_groups + 1] offsets, first[n_groups] == n. */
int ruv_ewc_create(ruv_ewc **out, const int64_t *first, int n_groups, double lambda, ruv_error *err);
void ruv_ewc_free(ruv_ewc *ewc);
/* A gradient [n] of the running task. */
void ruv_ewc_observe(ruv_ewc *ewc, const float *gradient);
/* The running task is over. Nothing happens when no gradient was seen. */
void ruv_ewc_boundary(ruv_ewc *ewc, const float *theta);
/* Moves the anchor without changing what is important (after a rollback). */
void ruv_ewc_move_anchor(ruv_ewc *ewc, const float *theta);
/* The penalty; its gradient is added to `gradient` [n] unless that is NULL. */
double ruv_ewc_penalty(const ruv_ewc *ewc, const float *theta, float *gradient);
/* The proximal step; `rate` is the optimizer's. */
void ruv_ewc_pull(const ruv_ewc *ewc, float *theta, float rate);

/* The whole state as a file with a checksum; RUV_EMISMATCH when it has other groups, RUV_ECORRUPT. lambda stays the caller's. */
int ruv_ewc_save(const ruv_ewc *ewc, const char *path, ruv_error *err);
int ruv_ewc_load(ruv_ewc *ewc, const char *path, ruv_error *err);

#endif

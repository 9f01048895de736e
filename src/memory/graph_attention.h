/* graph_attention.h - scores of retrieved nodes, corrected by what their neighbourhood in the memory's graph says.
 *
 * Input is a small graph: the hits of a search and nodes within two edges of them, each with its vector, a few features and the
 * score that the search gave it; edges with their type, direction, weight, confidence and age. Output is that score plus a
 * correction. The correction is a function of what arrives over edges alone: without edges it is exactly 0 and the ranking is the
 * search's own, and with zero parameters it is 0 everywhere.
 *
 *     h0_i   = tanh(W0 [P x_i, P x_i * P q, f_i] + b0)
 *     q, k   = R(hop) Wq h, R(hop) Wk h                             GraphRoPE: pairs turned by hop distance times a frequency
 *     e_ij   = a . LeakyReLU(q_i + k_j + We r_ij)                   GATv2, edge-featured (Brody et al. 2022)
 *            + alpha <q_i, k_j> / sqrt(d) - beta d_P(U h_i, U h_j)  dual space: Euclidean and Poincare ball
 *     w_ij   = exp(e_ij) / (1 + sum_j exp(e_ij))                    a head may attend to nothing: the 1 in the sum
 *     h_i   += Wo [sum_j w_ij (Wv h_j + Ve r_ij)]                   per head, joined; two layers
 *     score_i = base_i + w2 . (phi(W1 [h0, h - h0] + b1) - phi(W1 [h0, 0] + b1))
 *
 * r_ij is a learned row per relation (type and direction) plus rows times weight, confidence and recency. d_P is the distance of
 * the Poincare ball of curvature -1 between exp_0 of both: acosh(1 + 2|u-v|^2 / ((1-|u|^2)(1-|v|^2))). Edges of weight x confidence
 * below `prune` are left out. Order of nodes and edges does not matter but for rounding.
 *
 * Threads: any number on one set of parameters; a pass belongs to one. Layer: memory. */
#ifndef RUV_MEMORY_GRAPH_ATTENTION_H
#define RUV_MEMORY_GRAPH_ATTENTION_H

#include "base/arena.h"
#include "base/rng.h"
#include "ruvllm/memory.h"

enum {
	RUV_GAT_MAX_HIDDEN = 64,
	RUV_GAT_MAX_HEADS = 8,
	RUV_GAT_MAX_LAYERS = 4,
	RUV_GAT_BALL = 4,                          /* dimensions of a head's Poincare ball */
	RUV_GAT_RELATIONS = 2 * RUV_N_EDGE_TYPES,  /* type, and type + RUV_N_EDGE_TYPES against the edge's direction */
	RUV_GAT_EDGE_ROWS = RUV_GAT_RELATIONS + 3, /* and weight, confidence, recency */
	RUV_GAT_FEATURES = 14                      /* of a node: graph_rank.c has the list */
};

typedef struct ruv_gat_shape {
	int dim;       /* of vectors */
	int projected; /* P is [dim, projected] */
	int hidden;    /* a multiple of 2 * heads */
	int heads, layers;
	float prune; /* edges of weight x confidence below it do not count */
} ruv_gat_shape;

/* RUV_EINVAL names what is out of range. */
int ruv_gat_check(const ruv_gat_shape *shape, ruv_error *err);
int ruv_gat_n_params(const ruv_gat_shape *shape);
/* Random weights with w2 = 0: every correction is 0. */
void ruv_gat_init(float *params, const ruv_gat_shape *shape, ruv_rng *rng);
/* The last parameter: log of the sharpness of a listwise softmax over scores. Training's alone. */

/* What arrives at a node: from another, over an edge. */
typedef struct ruv_gat_edge {
	int from, to;
	int relation;                      /* < RUV_GAT_RELATIONS */
	float weight, confidence, recency; /* recency in (0, 1] */
} ruv_gat_edge;

typedef struct ruv_gat_graph {
	int n, n_edges;
	const float *question;     /* [dim] unit length */
	const float *const *rows;  /* [n] unit vectors [dim], NULL where a node has none */
	const float *features;     /* [n, RUV_GAT_FEATURES] */
	const float *base;         /* [n] */
	const int *hops;           /* [n] from the nearest hit: 0 for hits */
	const ruv_gat_edge *edges; /* [n_edges] both directions of an edge are two */
} ruv_gat_graph;

/* A pass, kept for its gradient. Everything lives in `arena`, which the caller owns. */
typedef struct ruv_gat_pass ruv_gat_pass;

/* scores [n]. RUV_ENOMEM. */
int ruv_gat_forward(ruv_gat_pass **pass, float *scores, const ruv_gat_shape *shape, const float *params, const ruv_gat_graph *graph,
                    ruv_arena *arena, ruv_error *err);
/* Adds to gradient [n_params] from d_scores [n] = dLoss / d scores. RUV_ENOMEM. */
int ruv_gat_backward(const ruv_gat_pass *pass, const float *d_scores, float *gradient, ruv_error *err);
/* Weights of the first layer's first head over the pass's edges as they were left after pruning; *n of them. For looking. */
const float *ruv_gat_attention(const ruv_gat_pass *pass, int layer, int *n);

/* Distance of two tangent vectors' points in the Poincare ball, and its gradient (NULL: not wanted) with respect to both. */
float ruv_gat_poincare(const float x[RUV_GAT_BALL], const float y[RUV_GAT_BALL], float d_x[RUV_GAT_BALL], float d_y[RUV_GAT_BALL]);

#endif

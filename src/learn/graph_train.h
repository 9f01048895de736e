/* graph_train.h - trained parameters of graph attention: made from questions whose evidence is known, measured, kept in a file.
 *
 * A sample is a view (memory/graph_rank.h) of one question with a mark at every node that is evidence. The loss is the listwise
 * cross-entropy: the softmax over all of a view's scores against the evidence in it, so that what ranks above it are the hard
 * negatives. The scores start as the search's own. Threads: one. Layer: learn. */
#ifndef RUV_LEARN_GRAPH_TRAIN_H
#define RUV_LEARN_GRAPH_TRAIN_H

#include "memory/graph_rank.h"
#include "ruvllm/learn.h"

typedef struct ruv_graph_sample {
	ruv_graph_view view;
	unsigned char *gold; /* [view.n] malloced: 1 for evidence */
	int n_gold;          /* of the question, in the view or not */
} ruv_graph_sample;

void ruv_graph_sample_release(ruv_graph_sample *sample);

/* Zeros take the value in brackets. */
typedef struct ruv_graph_training {
	int projected, hidden, heads, layers; /* [16, 32, 4, 2] */
	float prune;                          /* [0.05] */
	int n_epochs;                         /* [24] */
	float rate, decay;                    /* of Adam [0.002], [0.01] */
	uint64_t seed;                        /* [1] */
	bool shuffled;                        /* the control: evidence marks go to random nodes of each view, as many of them */
	const float *from;                    /* [n_params] to go on from, the same shape; NULL: from nothing */
	bool (*progress)(void *user, int epoch, int n_epochs, double loss, double validation); /* false: stop. NULL: none */
	void *user;
} ruv_graph_training;

/* Trains on samples[0..n), keeps the parameters of the epoch that does best on validation[0..n_validation) (its last when there are
 * none). *params is malloced. dim: of the vectors. RUV_EINVAL when no sample has evidence and edges. */
int ruv_graph_train(float **params, ruv_gat_shape *shape, int dim, const ruv_graph_sample *samples, int n,
                    const ruv_graph_sample *validation, int n_validation, const ruv_graph_training *training, ruv_error *err);

/* What a ranking of a view is worth: each 0..1. */
typedef struct ruv_graph_quality {
	double recall_1, recall_2, recall_5, recall_10; /* share of the question's evidence among the first k */
	double all_5, all_10;                           /* all of it is */
	double mrr, ndcg_10;
} ruv_graph_quality;

/* model NULL: the search's own order. rewired: the sources of all edges are permuted, a control of the structure (seed 0: they are
 * not). */
int ruv_graph_measure(ruv_graph_quality *quality, const ruv_graph_sample *sample, const ruv_gat_model *model, uint64_t rewired,
                      ruv_error *err);

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

/* How the parameters did on questions that they were not trained on. nDCG@10. */
typedef struct ruv_graph_gate {
	int n;
	float before, after, low, high; /* interval of the gain */
	float shuffled_low, shuffled_high, old_drop;
	bool pass;
} ruv_graph_gate;

typedef struct ruv_graph_weights {
	ruv_gat_model model;
	float *params; /* owned; what model.params points at */
	char encoder[64], encoder_version[24];
	ruv_graph_gate gate;
	int version; /* of the file's content: counts trainings on one memory */
} ruv_graph_weights;

/* RUV_ENOTFOUND, RUV_EFORMAT, RUV_EUNSUPPORTED, RUV_ECORRUPT. */
int ruv_graph_weights_load(ruv_graph_weights *weights, const char *path, ruv_error *err);
int ruv_graph_weights_save(const ruv_graph_weights *weights, const char *path, ruv_error *err);
void ruv_graph_weights_release(ruv_graph_weights *weights);

#endif

/* eval_graph.h - what graph attention is worth: questions with known evidence, asked with and without it; and the samples that it
 * is trained on.
 *
 * A set's passages are stored as `remember` stores them (title and text embedded together, passages of one title in one source),
 * the edges are those of ruv_memory_weave, the search is the product's default (hybrid, standardised scores). Threads: one.
 * Layer: runtime. */
#ifndef RUV_RUNTIME_EVAL_GRAPH_H
#define RUV_RUNTIME_EVAL_GRAPH_H

#include "learn/graph_train.h"
#include "memory/graph_weave.h"
#include "runtime/eval.h"

typedef struct ruv_eval_graph_samples {
	ruv_graph_sample *items; /* [n] */
	int n, n_passages;
	ruv_weave_report woven;
} ruv_eval_graph_samples;

/* Zeros take the value in brackets. */
typedef struct ruv_eval_graph_params {
	int limit; /* questions; 0: all */
	uint64_t seed;
	const char *dir; /* where the set's memory is kept for another run; NULL: a temporary directory */
	ruv_weave_options weave;
	const ruv_cancel *cancel;
	ruv_eval_progress *progress;
	void *user;
} ruv_eval_graph_params;

int ruv_eval_graph_read(ruv_eval_graph_samples *out, ruv_embedder *embedder, const ruv_eval_set *set,
                        const ruv_eval_graph_params *params, ruv_error *err);
void ruv_eval_graph_release(ruv_eval_graph_samples *samples);

/* Rankings over the samples. */
enum { RUV_EVAL_GRAPH_OFF, RUV_EVAL_GRAPH_ON, RUV_EVAL_GRAPH_REWIRED, RUV_EVAL_GRAPH_N };
const char *ruv_eval_graph_name(int ranking);

typedef struct ruv_eval_gain {
	double gain, low, high; /* 95 %, paired bootstrap over questions */
} ruv_eval_gain;

typedef struct ruv_eval_graph_result {
	int n, n_with_edges;
	ruv_graph_quality means[RUV_EVAL_GRAPH_N];
	ruv_eval_gain ndcg, recall_5, all_5, rewired_ndcg; /* on over off; rewired over off */
	double mean_nodes, mean_edges;
	double search_ms[2], gather_ms[2], score_ms[2]; /* of CPU: median and 99th percentile of a question */
} ruv_eval_graph_result;

int ruv_eval_graph(ruv_eval_graph_result *result, const ruv_eval_graph_samples *samples, const ruv_gat_model *model, uint64_t seed,
                   ruv_error *err);

/* nDCG@10 of every sample into values [n]; model NULL: without. */
int ruv_eval_graph_values(double *values, const ruv_eval_graph_samples *samples, const ruv_gat_model *model, ruv_error *err);

#endif

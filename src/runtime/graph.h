/* graph.h - which graph attention the runtime searches with, and how it learns from what was found useful.
 *
 * Parameters are those that this memory has trained (DATA/graph/attention.bin), else the bundled ones. With the setting
 * graph-attention auto they are used when they belong to the configured encoder, when their own record says that they beat the
 * search without them on held-out questions, and when the search is the default one (hybrid); with on they are used or the question
 * fails; with off there are none.
 *
 * Threads: any; what is handed out stays until the runtime is freed. Layer: runtime. */
#ifndef RUV_RUNTIME_GRAPH_H
#define RUV_RUNTIME_GRAPH_H

#include "learn/graph_train.h"
#include "runtime/runtime.h"

typedef struct ruv_runtime_graph {
	ruv_graph_weights weights;
	char path[4200];
	bool own;        /* this memory's */
	bool used;       /* searches go through it */
	const char *why; /* static: why it is used, or not */
} ruv_runtime_graph;

/* What is there, looked up once; *out is NULL when no file is. RUV_ECORRUPT and the like when the file is damaged. */
int ruv_runtime_graph_state(ruv_runtime *runtime, const ruv_runtime_graph **out, ruv_error *err);
/* The search of the loop: through graph attention where that is to be used. *reached (NULL is fine): hits that only edges led to
 * could be among them. */
int ruv_runtime_search(ruv_runtime *runtime, ruv_memory *memory, ruv_memory_hits *out, const ruv_memory_query *query,
                       ruv_graph_times *times, ruv_error *err);

/* Zeros take the value in brackets. */
typedef struct ruv_graph_learning {
	int most;     /* answers looked at, newest first [2000] */
	int n_epochs; /* [8] */
	uint64_t seed;
	bool force; /* publish whatever the gate says */
	const ruv_cancel *cancel;
} ruv_graph_learning;

typedef struct ruv_graph_learned {
	int n_answers, n_questions; /* kept answers; those whose cited passages the search or an edge leads to */
	int n_held_out, version;    /* version that was published, 0: none */
	double before, after;       /* nDCG@10 on the held-out ones: with the parameters that were live, with the new ones */
	ruv_gate_result gate;
} ruv_graph_learned;

/* Online update: answers that were kept (QAPair nodes) and the passages that they cite are questions with their evidence. Every
 * fifth is held out. The new parameters go live only through the gate. RUV_EINVAL with fewer than 20 usable answers. */
int ruv_runtime_graph_learn(ruv_runtime *runtime, const ruv_graph_learning *learning, ruv_graph_learned *learned, ruv_error *err);
/* Makes an earlier version live again; 0: the bundled one. RUV_ENOTFOUND. */
int ruv_runtime_graph_rollback(ruv_runtime *runtime, int version, ruv_error *err);
void ruv_runtime_graph_free(ruv_runtime_graph *graph);

#endif

/* graph_rank.h - hits of a search, looked at together with what lies within two edges of them.
 *
 * A view is what graph attention works on: the search's hits in their order, then nodes that edges lead to (one edge away, then
 * two), each read from the store under the query's filter. What the filter hides is not in it, and no path leads through it.
 * Threads: any; a view belongs to one. Layer: memory. */
#ifndef RUV_MEMORY_GRAPH_RANK_H
#define RUV_MEMORY_GRAPH_RANK_H

#include "memory/graph_attention.h"

enum {
	RUV_GRAPH_HITS = 64,  /* of the search, at most */
	RUV_GRAPH_NEAR = 64,  /* nodes one edge away, at most */
	RUV_GRAPH_FAR = 32,   /* two */
	RUV_GRAPH_LINKS = 32, /* edges read of a node, heaviest first */
	RUV_GRAPH_MOST = RUV_GRAPH_HITS + RUV_GRAPH_NEAR + RUV_GRAPH_FAR
};

typedef struct ruv_graph_view {
	ruv_memory_hit *items; /* [n] hits first, in the search's order; a reached node has its cosine and no rank */
	int64_t *keys;         /* [n] */
	int n, n_hits;
	ruv_gat_graph graph; /* of the same n nodes */
	ruv_memory_hits hits;
	ruv_arena *arena;                     /* of everything else; NULL when the search alone is all there is */
	int64_t search_ns, gather_ns;         /* by the clock on the wall */
	int64_t search_cpu_ns, gather_cpu_ns; /* by the process's CPU time: the same where nothing else runs */
} ruv_graph_view;

/* Searches and gathers. query->k hits are wanted at the end: the search is the one that would be made without a graph, only more of
 * its hits are read. A query without a vector, or with mmr_lambda, has no graph: arena is NULL. */
int ruv_graph_view_make(ruv_graph_view *view, ruv_memory *memory, const ruv_memory_query *query, ruv_error *err);
/* Fine on a zeroed view. */
void ruv_graph_view_release(ruv_graph_view *view);

/* The first hit stays first where it is the nearest in meaning and the best by words: then it is almost always right, and what
 * edges say is about the others. */
void ruv_graph_keep_first(const ruv_graph_view *view, float *scores);

/* Trained parameters. */
typedef struct ruv_gat_model {
	ruv_gat_shape shape;
	const float *params; /* [ruv_gat_n_params] */
} ruv_gat_model;

typedef struct ruv_graph_times {
	int64_t search_ns, gather_ns, score_ns;
	int n_hits, n_reached, n_edges;
} ruv_graph_times;

/* As ruv_memory_search, ordered by graph attention: nodes that only edges lead to may be among the hits. Without edges, or with a
 * model that corrects nothing, the same hits in the same order. RUV_EMISMATCH when the model is for other vectors. times may be
 * NULL. */
int ruv_graph_search(ruv_memory *memory, ruv_memory_hits *out, const ruv_memory_query *query, const ruv_gat_model *model,
                     ruv_graph_times *times, ruv_error *err);

#endif

/* graph_weave.h - the edges that a memory's texts imply: what follows what in a source, which heading holds which, which passage
 * names another's title, which are about the same.
 *
 *     Follows    a passage to the one before it in its source
 *     Contains   a passage to those under its heading ("A" to "A > B"), in a source
 *     Cites      a passage to the first one under a title that its text names, word for word and with a capital letter; the weight
 *                falls with the number of passages that name it: 1 / (1 + ln n)
 *     SameTopic  a passage to the nearest others by vector, at least `same_topic` alike; the weight is the cosine
 *
 * Only nodes of one scope, or one of which nobody owns, are linked. Layer: memory. */
#ifndef RUV_MEMORY_GRAPH_WEAVE_H
#define RUV_MEMORY_GRAPH_WEAVE_H

#include "ruvllm/memory.h"

/* Zeros take the value in brackets. */
typedef struct ruv_weave_options {
	float same_topic; /* cosine [0.6]; 2 and above: no such edges */
	int n_same_topic; /* of a node, at most [4] */
	int n_cites;      /* of a node, the rarest titles first [16] */
	bool fresh;       /* SameTopic only from nodes that had no edge at all: what is new since the last time */
	bool dry;         /* count only */
	ruv_memory_progress_fn *progress;
	void *user;
} ruv_weave_options;

typedef struct ruv_weave_report {
	int64_t n_nodes, n_there; /* edges that were there already */
	int64_t n_added[RUV_N_EDGE_TYPES];
} ruv_weave_report;

/* Looks at every node of every scope and adds the edges that are missing, created by "weave". What is added is the same whatever
 * was there; running it again adds nothing. options and report may be NULL. */
int ruv_memory_weave(ruv_memory *memory, ruv_weave_report *report, const ruv_weave_options *options, ruv_error *err);

#endif

/* rerank.h - passages in order of how likely a model finds the question behind each of them.
 *
 * Query likelihood (Ponte and Croft 1998; with a language model that is given the passage: Sachan et al. 2022): a passage that
 * answers a question makes the question likely. Added to BM25 it finds the right passage first more often than any fusion of word
 * and vector search does, for a pass of a small model over each passage (docs/answering.md has the figures). Any generator will do.
 * Layer: runtime. */
#ifndef RUV_RUNTIME_RERANK_H
#define RUV_RUNTIME_RERANK_H

#include "runtime/context.h"
#include "ruvllm/session.h"

enum { RUV_RERANK_PASSAGES = 10 }; /* of a search that are worth it */

typedef struct ruv_rerank_params {
	const char *question;
	const ruv_context_source *passages; /* [n] best first */
	const float *bm25;                  /* [n] 0 for those that word search did not find */
	int n;
	double budget_ms; /* once it is spent no further passage is begun; 0: none */
	const ruv_cancel *cancel;
} ruv_rerank_params;

/* order [n] gets the indices of the passages, best first: those that were read by log-likelihood and BM25, then the rest as it was.
 * Returns how many were read (at least one, unless none fits the session's context), or a negative status. The session loses what
 * it holds. */
int ruv_rerank(int *order, ruv_session *session, const ruv_rerank_params *params, ruv_error *err);

#endif

/* batch.h - one forward pass over rows of several sessions of a pool: the step of the scheduler, and the checking pass of
 * speculation.
 *
 * The tokens of a part stand in its session already, behind those that it holds; a batch takes pages for them, runs them all in one
 * pass, and moves the sessions on. Rows may be taken back afterwards, which costs nothing: pages are dropped, and the convolution
 * state behind any row of the pass was kept.
 *
 * Threads: one at a time. All memory is had at open, but for logits, which grow to the most rows asked for. Layer: infer. */
#ifndef RUV_INFER_BATCH_H
#define RUV_INFER_BATCH_H

#include "infer/session_object.h"

typedef struct ruv_batch_part {
	ruv_session *session; /* tokens [n, n + n_rows) are to be run; n_rows <= n_ctx - n */
	int n_rows;
	int n_logits;   /* logits of the last n_logits rows, 0..n_rows */
	bool take_back; /* rows may be taken back; such parts have at most RUV_MAX_LOOKAHEAD + 1 rows */
	/* results */
	float *logits;    /* host [n_logits, n_vocab], the batch's until its next run; NULL when n_logits is 0 */
	float *columns;   /* backend, see ruv_forward_seq.conv_columns; NULL without convolutions or take_back */
	int row_of_batch; /* first row of the pass */
} ruv_batch_part;

typedef struct ruv_batch {
	ruv_model *model; /* held */
	int max_rows, max_seqs;
	ruv_forward_seq *seqs; /* [max_seqs] */
	ruv_token *tokens;     /* [max_rows] */
	int32_t *logit_rows;   /* [max_rows] */
	float *logits;         /* [cap_logits, n_vocab] */
	int cap_logits;
	float *columns; /* backend [max_seqs, n_conv, RUV_MAX_LOOKAHEAD + 3, hidden]; NULL: not yet needed */
} ruv_batch;

/* Passes of up to max_rows rows of max_seqs sessions, over contexts of n_ctx tokens. */
int ruv_batch_init(ruv_batch *batch, ruv_model *model, int max_rows, int max_seqs, int n_ctx, ruv_error *err);
void ruv_batch_release(ruv_batch *batch);

/* Runs the parts. Convolution states are settled first. RUV_ELIMIT when the pool has too few pages: nothing ran. After another
 * failure the sessions are where they were. Sessions of one adapter should stand together. */
int ruv_batch_run(ruv_batch *batch, ruv_batch_part *parts, int n_parts, ruv_error *err);
/* The session keeps only the first n_keep rows (1..n_rows) of its part of the last run. */
void ruv_batch_take_back(ruv_batch *batch, const ruv_batch_part *part, int n_keep);

#endif

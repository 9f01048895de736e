/* forward.h - one forward pass over a batch: rows of several sequences through all layers.
 *
 * Rows of one sequence are consecutive tokens; sequences may be at different positions, so that prefill chunks and decode steps of
 * many sequences may share a batch. Logits are computed only for the rows that ask for them. Layer: model. */
#ifndef RUV_MODEL_FORWARD_H
#define RUV_MODEL_FORWARD_H

#include "model/adapter.h"
#include "model/hparams.h"
#include "model/weights.h"

/* The rows of one sequence. */
typedef struct ruv_forward_seq {
	int first_row, n_rows;
	int position;         /* of the first row */
	const int32_t *pages; /* host; covers position + n_rows tokens */
	float
	    *conv_state; /* backend address [n_conv, 2, hidden], updated; NULL when nothing reads it (no convolution, or centred) */
	/* Backend address [n_conv, n_rows + 2, hidden], or NULL: for each convolution its state before the pass and the column of
	 * every row; columns i + 1 and i + 2 are the state behind row i. For taking back the last rows of a pass. */
	float *conv_columns;
	const ruv_adapter *adapter; /* of this sequence's rows; NULL: none. Sequences of one adapter should stand together */
} ruv_forward_seq;

/* Listens to a pass; any member may be NULL. x are backend addresses, valid during the call. A result other than RUV_OK ends the
 * pass with it. */
typedef struct ruv_forward_tap {
	void *user;
	/* i 0: the embeddings; 1..n_layers: the residual stream after layer i - 1; n_layers + 1: after the final norm. */
	int (*hidden)(void *user, int i, ruv_backend *backend, const float *x, int n, int64_t dim);
	/* What a matrix is about to multiply: x [n, n_in]. layer -1: the head. */
	int (*linear)(void *user, int layer, const char *suffix, ruv_backend *backend, const float *x, int n, int64_t n_in);
} ruv_forward_tap;

typedef struct ruv_forward {
	const ruv_token *tokens; /* host [n] */
	int n;
	const ruv_forward_seq *seqs; /* [n_seqs], covering all rows */
	int n_seqs;
	const ruv_kv_layer *kv; /* [n_attention]; see kv_stride */
	int kv_stride;          /* 1; 0: kv[0] serves all layers (a pass whose keys and values nobody reads later) */
	bool keep_kv;           /* do not write keys and values: the pages hold them already (rebuilding a convolution state) */

	const int32_t *logit_rows; /* host [n_logit_rows], ascending */
	int n_logit_rows;
	float *logits; /* host [n_logit_rows, n_vocab] */
	float *pooled; /* host [n_seqs, embedding_dim], or NULL */
	const ruv_forward_tap *tap;
	const ruv_adapter *adapter; /* of all rows, instead of the sequences' own; or NULL. Ranks within the workspace */
} ruv_forward;

/* The buffers of a pass, on the backend. */
typedef struct ruv_workspace {
	ruv_backend *backend;
	int n_rows, n_seqs, rank; /* room */
	float *x;                 /* [n_rows, hidden] residual stream */
	float *t;                 /* [n_rows, hidden] normalised */
	float *work;         /* of one operator at a time: q, k, v and its result; or b, c, x and the convolution; or gate, up */
	float *low;          /* [n_rows, rank] of adapters; NULL while there are none */
	float *few;          /* [n_rows, hidden] rows that go on, or pooled ones */
	float *logits;       /* [RUV_LOGIT_ROWS, n_vocab] */
	int32_t *positions;  /* host [n_rows] */
	int32_t *rows;       /* host [n_rows] */
	ruv_batch_seq *seqs; /* host [n_seqs] */
} ruv_workspace;

enum { RUV_LOGIT_ROWS = 32 /* logits are computed for that many rows at a time */ };

/* Makes room for n_rows rows of n_seqs sequences over up to n_context tokens; grows only. */
int ruv_workspace_reserve(ruv_workspace *ws, const ruv_hparams *hp, const ruv_weights *w, int n_rows, int n_seqs, int n_context,
                          ruv_error *err);
/* Room for adapters of up to that rank. */
int ruv_workspace_reserve_rank(ruv_workspace *ws, int rank, ruv_error *err);
void ruv_workspace_release(ruv_workspace *ws);

/* Elements of a pooled vector. */
int ruv_forward_embedding_dim(const ruv_hparams *hp, const ruv_weights *w);

/* Runs the pass; n and n_seqs within the workspace, tokens within the vocabulary (the caller checked). Allocates nothing. */
int ruv_forward_run(const ruv_hparams *hp, const ruv_weights *w, ruv_workspace *ws, const ruv_forward *f, ruv_error *err);

#endif

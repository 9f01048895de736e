/* session_object.h - what is inside a session, for the files of this layer.
 *
 * Invariants: pages [n_pages] cover exactly ceil(n / 64) pages of tokens [n]. The convolution state belongs to the position
 * state_at; it is -1 when nobody knows (after a failed pass). Before a pass it is brought to n. Layer: infer. */
#ifndef RUV_INFER_SESSION_OBJECT_H
#define RUV_INFER_SESSION_OBJECT_H

#include "infer/kv_pages.h"
#include "model/object.h"

struct ruv_session {
	ruv_model *model;
	ruv_kv_pool *pool;
	ruv_kv_type kv_type;
	int n_ctx;
	int n;             /* tokens held */
	ruv_token *tokens; /* [n_ctx] */
	int32_t *pages;    /* [n_ctx / 64 rounded up] */
	int n_pages;
	float *conv_state; /* backend [n_conv, 2, hidden], NULL without convolutions */
	int state_at;
	float *logits; /* host [n_vocab] */
	bool has_logits;
	int32_t *rows;              /* host [n_batch] row numbers 0, 1, 2, ... */
	ruv_adapter *adapter;       /* NULL: none */
	const ruv_forward_tap *tap; /* listens to every pass; NULL */
};

size_t ruv_session_state_bytes(const ruv_session *session);
/* Empties the session and takes n_pages fresh pages for n tokens, which the caller fills; RUV_ELIMIT without a change. */
int ruv_session_adopt(ruv_session *session, int n, ruv_error *err);

#endif

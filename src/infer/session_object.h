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
	float *logits; /* host [n_vocab]; NULL: whoever runs it in batches keeps them */
	bool has_logits;
	int32_t *rows;              /* host [n_batch] row numbers 0, 1, 2, ...; NULL with logits */
	ruv_adapter *adapter;       /* NULL: none */
	const ruv_forward_tap *tap; /* listens to every pass; NULL */
	struct ruv_ahead *ahead;    /* generate.c: speculation; NULL: none */
};

/* Forgets its speculation. */
void ruv_session_drop_ahead(ruv_session *session);
/* A session in a pool that others made, which runs in batches alone (batch.h): it has no logits of its own. */
int ruv_session_open_in(ruv_session **out, ruv_model *model, ruv_kv_pool *pool, int n_ctx, ruv_kv_type kv_type, ruv_error *err);
/* n_ctx as the options say (0: the default), or a failure. */
int ruv_session_pick_ctx(const ruv_model *model, int n_ctx, bool allow_longer, ruv_error *err);
ruv_dtype ruv_session_kv_dtype(ruv_kv_type type);
/* Brings the convolution state to the position, re-running the last few tokens when it is not known. */
int ruv_session_settle(ruv_session *session, ruv_error *err);
/* Free pages of the pool that n more tokens take; */
int ruv_session_pages_needed(const ruv_session *session, int n);
/* and taking them. RUV_ELIMIT without a change when there are too few. */
int ruv_session_make_room(ruv_session *session, int n, ruv_error *err);
/* Gives up pages that hold no token. */
void ruv_session_trim(ruv_session *session);

size_t ruv_session_state_bytes(const ruv_session *session);
/* Empties the session and takes n_pages fresh pages for n tokens, which the caller fills; RUV_ELIMIT without a change. */
int ruv_session_adopt(ruv_session *session, int n, ruv_error *err);

#endif

/* batch.c - putting the rows of sessions together. */
#include "infer/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "batch";

enum { COLUMN_ROWS = RUV_MAX_LOOKAHEAD + 3 };

int ruv_batch_init(ruv_batch *b, ruv_model *model, int max_rows, int max_seqs, int n_ctx, ruv_error *err)
{
	*b = (ruv_batch){.max_rows = max_rows, .max_seqs = max_seqs};
	int rc = ruv_model_reserve(model, max_rows, max_seqs, n_ctx, err);
	if (rc)
		return rc;
	b->model = ruv_model_hold(model);
	b->seqs = malloc((size_t)max_seqs * sizeof *b->seqs);
	b->tokens = malloc((size_t)max_rows * sizeof *b->tokens);
	b->logit_rows = malloc((size_t)max_rows * sizeof *b->logit_rows);
	if (!b->seqs || !b->tokens || !b->logit_rows) {
		ruv_batch_release(b);
		return ruv_fail_memory(err, where, (size_t)max_rows * 8 + (size_t)max_seqs * sizeof *b->seqs);
	}
	return RUV_OK;
}

void ruv_batch_release(ruv_batch *b)
{
	if (!b->model)
		return;
	if (b->columns) {
		ruv_engine_lock(b->model->engine);
		ruv_backend_release(ruv_engine_backend(b->model->engine), b->columns);
		ruv_engine_unlock(b->model->engine);
	}
	ruv_model_free(b->model);
	free(b->seqs);
	free(b->tokens);
	free(b->logit_rows);
	free(b->logits);
	memset(b, 0, sizeof *b);
}

static size_t column_floats(const ruv_batch *b)
{
	return (size_t)b->model->hp.n_conv * COLUMN_ROWS * (size_t)b->model->hp.hidden;
}

static int reserve(ruv_batch *b, int n_logits, bool columns, ruv_error *err)
{
	const size_t n_vocab = (size_t)b->model->hp.n_vocab;
	if (n_logits > b->cap_logits) {
		free(b->logits);
		b->cap_logits = 0;
		b->logits = malloc((size_t)n_logits * n_vocab * sizeof *b->logits);
		if (!b->logits)
			return ruv_fail_memory(err, where, (size_t)n_logits * n_vocab * sizeof *b->logits);
		b->cap_logits = n_logits;
	}
	if (columns && !b->columns && b->model->hp.n_conv) {
		void *address = NULL;
		ruv_engine_lock(b->model->engine);
		int rc = ruv_backend_alloc(ruv_engine_backend(b->model->engine), &address,
		                           (size_t)b->max_seqs * column_floats(b) * sizeof(float), err);
		ruv_engine_unlock(b->model->engine);
		if (rc)
			return rc;
		b->columns = address;
	}
	return RUV_OK;
}

/* States and pages of all parts; the pages first, since they may be too few. */
static int prepare(ruv_batch_part *parts, int n_parts, ruv_error *err)
{
	int rc = RUV_OK;
	for (int i = 0; i < n_parts && rc == RUV_OK; i++)
		rc = ruv_session_make_room(parts[i].session, parts[i].n_rows, err);
	for (int i = 0; i < n_parts && rc == RUV_OK; i++)
		rc = ruv_session_settle(parts[i].session, err);
	return rc;
}

int ruv_batch_run(ruv_batch *b, ruv_batch_part *parts, int n_parts, ruv_error *err)
{
	int n_rows = 0, n_logits = 0;
	bool columns = false;
	for (int i = 0; i < n_parts; i++) {
		n_rows += parts[i].n_rows;
		n_logits += parts[i].n_logits;
		columns |= parts[i].take_back;
	}
	int rc = reserve(b, n_logits, columns, err);
	if (rc == RUV_OK)
		rc = prepare(parts, n_parts, err);
	n_rows = n_logits = 0;
	for (int i = 0; i < n_parts && rc == RUV_OK; i++) {
		ruv_batch_part *part = &parts[i];
		ruv_session *s = part->session;
		part->row_of_batch = n_rows;
		part->logits = part->n_logits ? b->logits + (size_t)n_logits * (size_t)b->model->hp.n_vocab : NULL;
		part->columns = part->take_back && b->columns ? b->columns + (size_t)i * column_floats(b) : NULL;
		b->seqs[i] = (ruv_forward_seq){.first_row = n_rows,
		                               .n_rows = part->n_rows,
		                               .position = s->n,
		                               .pages = s->pages,
		                               .conv_state = s->conv_state,
		                               .conv_columns = part->columns,
		                               .adapter = s->adapter};
		memcpy(b->tokens + n_rows, s->tokens + s->n, (size_t)part->n_rows * sizeof *b->tokens);
		n_rows += part->n_rows;
		for (int k = part->n_logits; k > 0; k--)
			b->logit_rows[n_logits++] = n_rows - k;
		s->state_at = -1;
		s->has_logits = false;
	}
	if (rc == RUV_OK) {
		const ruv_forward forward = {.tokens = b->tokens,
		                             .n = n_rows,
		                             .seqs = b->seqs,
		                             .n_seqs = n_parts,
		                             .kv = parts[0].session->pool->layers,
		                             .kv_stride = 1,
		                             .logit_rows = b->logit_rows,
		                             .n_logit_rows = n_logits,
		                             .logits = b->logits,
		                             .tap = parts[0].session->tap};
		rc = ruv_model_forward(b->model, &forward, err);
	}
	for (int i = 0; i < n_parts; i++) {
		if (rc == RUV_OK)
			parts[i].session->state_at = parts[i].session->n += parts[i].n_rows;
		else
			ruv_session_trim(parts[i].session);
	}
	return rc;
}

void ruv_batch_take_back(ruv_batch *b, const ruv_batch_part *part, int n_keep)
{
	ruv_session *s = part->session;
	if (n_keep == part->n_rows)
		return;
	s->n -= part->n_rows - n_keep;
	ruv_session_trim(s);
	if (!part->columns)
		return; /* no convolutions: the state is nothing */
	const int64_t hidden = b->model->hp.hidden;
	ruv_backend *backend = ruv_engine_backend(b->model->engine);
	ruv_engine_lock(b->model->engine);
	for (int i = 0; i < b->model->hp.n_conv; i++)
		ruv_backend_copy(backend, s->conv_state + i * 2 * hidden,
		                 part->columns + ((int64_t)i * (part->n_rows + 2) + n_keep) * hidden,
		                 (size_t)(2 * hidden) * sizeof(float));
	ruv_engine_unlock(b->model->engine);
	s->state_at = s->n;
}

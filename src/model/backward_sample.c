/* backward_sample.c - texts that a generator itself finds likely, drawn from its own distribution.
 *
 * They are what an adapter is anchored to: the divergence between the bare and the adapted model, averaged over the bare model's
 * own texts, is the divergence of the two distributions, whatever was trained on. One token a pass for all texts at once, with keys
 * and values in pages as serving has them; the engine is locked for one pass at a time.
 *
 * Threads: one at a time on a model that trains. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "model/backward.h"
#include "model/object.h"

static const char where[] = "backward";

struct sampling {
	ruv_model *model;
	ruv_backend *backend;
	ruv_kv_layer *kv;  /* [n_attention] */
	float *conv_state; /* device [n_seqs, conv elements] */
	int32_t *pages;    /* [n_seqs, n_pages] */
	float *logits;     /* [n_seqs, n_vocab] */
	size_t conv_elements;
	int n_pages;
};

static void release(struct sampling *s)
{
	ruv_engine_lock(s->model->engine);
	for (int i = 0; s->kv && i < s->model->hp.n_attention; i++) {
		if (s->kv[i].k)
			ruv_backend_release(s->backend, s->kv[i].k);
		if (s->kv[i].v)
			ruv_backend_release(s->backend, s->kv[i].v);
	}
	if (s->conv_state)
		ruv_backend_release(s->backend, s->conv_state);
	ruv_engine_unlock(s->model->engine);
	free(s->kv);
	free(s->pages);
	free(s->logits);
}

/* Device memory; under the engine's lock. */
static int reserve_device(struct sampling *s, int n_seqs, ruv_error *err)
{
	const ruv_hparams *hp = &s->model->hp;
	const size_t page = (size_t)hp->n_kv_heads * RUV_KV_PAGE_TOKENS * (size_t)hp->head_dim * sizeof(float),
		     all = page * (size_t)s->n_pages * (size_t)n_seqs, conv = s->conv_elements * (size_t)n_seqs * sizeof(float);
	void *address = NULL;
	int rc = RUV_OK;
	for (int i = 0; i < hp->n_attention && rc == RUV_OK; i++) {
		s->kv[i] =
		    (ruv_kv_layer){.dtype = RUV_F32, .n_kv_heads = hp->n_kv_heads, .head_dim = hp->head_dim, .page_bytes = page};
		rc = ruv_backend_alloc(s->backend, &s->kv[i].k, all, err);
		if (rc == RUV_OK)
			rc = ruv_backend_alloc(s->backend, &s->kv[i].v, all, err);
	}
	if (rc == RUV_OK && conv) {
		rc = ruv_backend_alloc(s->backend, &address, conv, err);
		s->conv_state = address;
		if (rc == RUV_OK)
			ruv_backend_zero(s->backend, address, conv);
	}
	return rc;
}

static int reserve(struct sampling *s, int n_seqs, ruv_error *err)
{
	const ruv_hparams *hp = &s->model->hp;
	s->kv = calloc((size_t)hp->n_attention + 1, sizeof *s->kv);
	s->pages = malloc((size_t)n_seqs * (size_t)s->n_pages * sizeof *s->pages);
	s->logits = malloc((size_t)n_seqs * (size_t)hp->n_vocab * sizeof *s->logits);
	if (!s->kv || !s->pages || !s->logits)
		return ruv_fail_memory(err, where, (size_t)n_seqs * (size_t)hp->n_vocab * sizeof *s->logits);
	for (int i = 0; i < n_seqs * s->n_pages; i++)
		s->pages[i] = i;
	ruv_engine_lock(s->model->engine);
	int rc = reserve_device(s, n_seqs, err);
	ruv_engine_unlock(s->model->engine);
	return rc ? rc : ruv_model_reserve(s->model, n_seqs, n_seqs, s->n_pages * RUV_KV_PAGE_TOKENS, err);
}

/* A token with the model's own probability. */
static ruv_token draw(const float *logits, int n, ruv_rng *rng)
{
	float most = -INFINITY;
	double sum = 0;
	for (int i = 0; i < n; i++)
		most = logits[i] > most ? logits[i] : most;
	for (int i = 0; i < n; i++)
		sum += (double)expf(logits[i] - most);
	double left = ruv_rng_double(rng) * sum;
	for (int i = 0; i < n; i++)
		if ((left -= (double)expf(logits[i] - most)) <= 0)
			return i;
	return n - 1;
}

int ruv_backward_sample(ruv_model *model, const ruv_token *first, int n_seqs, int n_tokens, uint64_t seed, ruv_token *out,
                        ruv_error *err)
{
	ruv_forward_seq seqs[RUV_TRAIN_MAX_SEQS];
	ruv_token ids[RUV_TRAIN_MAX_SEQS];
	int32_t rows[RUV_TRAIN_MAX_SEQS];
	ruv_rng rng;
	if (n_seqs < 1 || n_seqs > RUV_TRAIN_MAX_SEQS || n_tokens < 2 || n_tokens > RUV_TRAIN_MAX_ROWS)
		return ruv_fail(err, RUV_ELIMIT, where, "%d texts of %d tokens, 1..%d of 2..%d are possible", n_seqs, n_tokens,
		                RUV_TRAIN_MAX_SEQS, RUV_TRAIN_MAX_ROWS);
	for (int i = 0; i < n_seqs; i++)
		if (first[i] < 0 || first[i] >= model->hp.n_vocab)
			return ruv_fail(err, RUV_EINVAL, where, "token %d is outside the model's vocabulary of %d", first[i],
			                model->hp.n_vocab);
	struct sampling s = {.model = model,
	                     .backend = ruv_engine_backend(model->engine),
	                     .conv_elements = (size_t)model->hp.n_conv * 2 * (size_t)model->hp.hidden,
	                     .n_pages = (n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS};
	ruv_rng_init(&rng, seed);
	int rc = reserve(&s, n_seqs, err);
	for (int i = 0; i < n_seqs && rc == RUV_OK; i++) {
		rows[i] = i;
		out[(ptrdiff_t)i * n_tokens] = first[i];
		seqs[i] = (ruv_forward_seq){.first_row = i, .n_rows = 1, .pages = s.pages + (ptrdiff_t)i * s.n_pages};
		if (s.conv_state)
			seqs[i].conv_state = s.conv_state + (size_t)i * s.conv_elements;
	}
	for (int t = 1; t < n_tokens && rc == RUV_OK; t++) {
		for (int i = 0; i < n_seqs; i++) {
			ids[i] = out[(ptrdiff_t)i * n_tokens + t - 1];
			seqs[i].position = t - 1;
		}
		const ruv_forward f = {.tokens = ids,
		                       .n = n_seqs,
		                       .seqs = seqs,
		                       .n_seqs = n_seqs,
		                       .kv = s.kv,
		                       .kv_stride = 1,
		                       .logit_rows = rows,
		                       .n_logit_rows = n_seqs,
		                       .logits = s.logits};
		rc = ruv_model_forward(model, &f, err);
		for (int i = 0; i < n_seqs && rc == RUV_OK; i++)
			out[(ptrdiff_t)i * n_tokens + t] =
			    draw(s.logits + (ptrdiff_t)i * model->hp.n_vocab, model->hp.n_vocab, &rng);
	}
	release(&s);
	return rc;
}

/* embed.c - texts into unit vectors: several texts a pass, each a sequence of its own from position 0.
 *
 * Nobody reads the keys and values of an embedding later, so all layers share the pages of one. A text goes through whole: encoders
 * see it in both directions, and the mean is taken over all its tokens. The workspace grows to the longest text met, up to n_ctx.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "infer/kv_pages.h"
#include "infer/session_object.h"

static const char where[] = "embed";

enum { DEFAULT_CTX = 2048, MAX_CTX = 32768, MAX_SEQS = 32, START_ROWS = 256 };

struct ruv_embedder {
	ruv_model *model;
	int n_ctx, dim;
	int n_rows; /* rows that a pass may have now */
	ruv_kv_pool *pool;
	int32_t *pages;    /* [n_pages] 0, 1, 2, ... */
	float *conv_state; /* backend [MAX_SEQS, n_conv, 2, hidden]; NULL when centred or without convolutions */
	float *pooled;     /* host [MAX_SEQS, dim] */
};

static size_t state_bytes(const ruv_embedder *e)
{
	return e->model->hp.causal ? (size_t)e->model->hp.n_conv * 2 * (size_t)e->model->hp.hidden * sizeof(float) : 0;
}

static int pages_for(int n_tokens)
{
	return (n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
}

/* Room for passes of n_rows rows: workspace, and pages for them even when every sequence ends in a half-empty one. */
static int grow(ruv_embedder *e, int n_rows, ruv_error *err)
{
	if (n_rows <= e->n_rows)
		return RUV_OK;
	const ruv_hparams *hp = &e->model->hp;
	int rc = ruv_model_reserve(e->model, n_rows, MAX_SEQS, n_rows, err);
	if (rc)
		return rc;
	const int n_pages = pages_for(n_rows) + MAX_SEQS;
	int32_t *pages = malloc((size_t)n_pages * sizeof *pages);
	if (!pages)
		return ruv_fail_memory(err, where, (size_t)n_pages * sizeof *pages);
	ruv_kv_pool *pool = NULL;
	ruv_engine_lock(e->model->engine);
	rc = ruv_kv_pool_open(&pool, ruv_engine_backend(e->model->engine), hp->n_attention ? 1 : 0, hp->n_kv_heads, hp->head_dim,
	                      RUV_F32, n_pages, err);
	if (rc == RUV_OK) {
		ruv_kv_pool_free(e->pool);
		e->pool = pool;
	}
	ruv_engine_unlock(e->model->engine);
	if (rc) {
		free(pages);
		return rc;
	}
	for (int i = 0; i < n_pages; i++)
		pages[i] = i;
	free(e->pages);
	e->pages = pages;
	e->n_rows = n_rows;
	return RUV_OK;
}

int ruv_embedder_open(ruv_embedder **out, ruv_model *model, int n_ctx, ruv_error *err)
{
	*out = NULL;
	if (!model->engine)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s was opened for its vocabulary alone", model->path);
	const int longest = model->hp.n_ctx_train < MAX_CTX ? model->hp.n_ctx_train : MAX_CTX;
	if (n_ctx == 0)
		n_ctx = longest < DEFAULT_CTX ? longest : DEFAULT_CTX;
	if (n_ctx < 1 || n_ctx > longest)
		return ruv_fail(err, RUV_EINVAL, where, "texts of %d tokens were asked for; %s takes 1..%d", n_ctx, model->path,
		                longest);
	ruv_embedder *e = calloc(1, sizeof *e);
	if (!e)
		return ruv_fail_memory(err, where, sizeof *e);
	e->model = ruv_model_hold(model);
	e->n_ctx = n_ctx;
	e->dim = ruv_forward_embedding_dim(&model->hp, &model->weights);
	e->pooled = malloc((size_t)MAX_SEQS * (size_t)e->dim * sizeof *e->pooled);
	int rc = e->pooled ? RUV_OK : ruv_fail_memory(err, where, (size_t)MAX_SEQS * (size_t)e->dim * sizeof *e->pooled);
	if (rc == RUV_OK && state_bytes(e)) {
		void *state = NULL;
		ruv_engine_lock(model->engine);
		rc = ruv_backend_alloc(ruv_engine_backend(model->engine), &state, state_bytes(e) * MAX_SEQS, err);
		ruv_engine_unlock(model->engine);
		e->conv_state = state;
	}
	if (rc == RUV_OK)
		rc = grow(e, n_ctx < START_ROWS ? n_ctx : START_ROWS, err);
	if (rc) {
		ruv_embedder_free(e);
		return rc;
	}
	*out = e;
	return RUV_OK;
}

void ruv_embedder_free(ruv_embedder *e)
{
	if (!e)
		return;
	ruv_engine_lock(e->model->engine);
	ruv_kv_pool_free(e->pool);
	if (e->conv_state)
		ruv_backend_release(ruv_engine_backend(e->model->engine), e->conv_state);
	ruv_engine_unlock(e->model->engine);
	ruv_model_free(e->model);
	free(e->pages);
	free(e->pooled);
	free(e);
}

int ruv_embedder_dim(const ruv_embedder *e)
{
	return e->dim;
}

int ruv_embedder_n_ctx(const ruv_embedder *e)
{
	return e->n_ctx;
}

static int encode(const ruv_embedder *e, const char *text, size_t n_bytes, ruv_embed_kind kind, ruv_tokens *tokens, ruv_error *err)
{
	const ruv_model *m = e->model;
	if (!m->vocab)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no tokenizer", m->path);
	const char *prefix = kind == RUV_EMBED_QUERY ? m->query_prefix : kind == RUV_EMBED_PASSAGE ? m->passage_prefix : "";
	if (!*prefix)
		return ruv_vocab_encode(m->vocab, text, n_bytes, RUV_ENCODE_EDGES, tokens, err);
	/* prefix and text are tokenized as one, as in training */
	ruv_buf both;
	ruv_buf_init(&both, SIZE_MAX / 2);
	int rc = ruv_buf_puts(&both, prefix);
	if (rc == RUV_OK)
		rc = ruv_buf_append(&both, text, n_bytes);
	rc = rc ? ruv_fail_memory(err, where, n_bytes)
	        : ruv_vocab_encode(m->vocab, both.data, both.len, RUV_ENCODE_EDGES, tokens, err);
	ruv_buf_release(&both);
	return rc;
}

int ruv_embedder_count(const ruv_embedder *e, const char *text, size_t n_bytes, ruv_embed_kind kind, ruv_error *err)
{
	ruv_tokens tokens = {.max = INT32_MAX};
	int rc = encode(e, text, n_bytes, kind, &tokens, err);
	int n = (int)tokens.n;
	ruv_tokens_release(&tokens);
	return rc ? rc : n;
}

/* One pass over n_seqs sequences whose tokens stand one behind the other; lengths [n_seqs]. */
static int run(ruv_embedder *e, const ruv_token *tokens, const int *lengths, int n_seqs, float *vectors, ruv_error *err)
{
	const ruv_hparams *hp = &e->model->hp;
	ruv_forward_seq seqs[MAX_SEQS];
	int row = 0, page = 0;
	const size_t state_floats = state_bytes(e) / sizeof(float);
	for (int i = 0; i < n_seqs; i++) {
		seqs[i] = (ruv_forward_seq){.first_row = row, .n_rows = lengths[i], .pages = e->pages + page};
		if (e->conv_state)
			seqs[i].conv_state = e->conv_state + state_floats * (size_t)i;
		row += lengths[i];
		page += pages_for(lengths[i]);
	}
	if (e->conv_state) {
		ruv_engine_lock(e->model->engine);
		ruv_backend_zero(ruv_engine_backend(e->model->engine), e->conv_state, state_bytes(e) * (size_t)n_seqs);
		ruv_engine_unlock(e->model->engine);
	}
	for (int i = 0; i < row; i++)
		if (tokens[i] < 0 || tokens[i] >= hp->n_vocab)
			return ruv_fail(err, RUV_EINVAL, where, "token %d is outside the model's vocabulary of %d", tokens[i],
			                hp->n_vocab);
	const ruv_forward forward = {
	    .tokens = tokens, .n = row, .seqs = seqs, .n_seqs = n_seqs, .kv = e->pool->layers, .kv_stride = 0, .pooled = e->pooled};
	int rc = ruv_model_forward(e->model, &forward, err);
	if (rc)
		return rc;
	for (int i = 0; i < n_seqs; i++) {
		const float *x = e->pooled + (size_t)i * (size_t)e->dim;
		float *y = vectors + (size_t)i * (size_t)e->dim;
		double sum = 0;
		for (int j = 0; j < e->dim; j++)
			sum += (double)x[j] * x[j];
		if (!(sum > 0) || !isfinite(sum))
			return ruv_fail(err, RUV_EINTERNAL, where, "an embedding has length %g", sqrt(sum));
		const double scale = 1 / sqrt(sum);
		for (int j = 0; j < e->dim; j++)
			y[j] = (float)(x[j] * scale);
	}
	return RUV_OK;
}

int ruv_embedder_embed_tokens(ruv_embedder *e, const ruv_token *tokens, int n, float *vector, ruv_error *err)
{
	if (n < 1)
		return ruv_fail(err, RUV_EINVAL, where, "%d tokens were given, at least one is needed", n);
	if (n > e->n_ctx)
		return ruv_fail(err, RUV_ECONTEXT, where, "the text has %d tokens, but the embedder takes %d", n, e->n_ctx);
	int rc = grow(e, n, err);
	return rc ? rc : run(e, tokens, &n, 1, vector, err);
}

int ruv_embedder_embed(ruv_embedder *e, const char *const *texts, int n_texts, ruv_embed_kind kind, float *vectors,
                       const ruv_cancel *cancel, ruv_error *err)
{
	if (n_texts < 1)
		return ruv_fail(err, RUV_EINVAL, where, "%d texts were given, at least one is needed", n_texts);
	ruv_tokens tokens = {.max = INT32_MAX / 4};
	int *lengths = malloc((size_t)n_texts * sizeof *lengths), longest = 0;
	int rc = lengths ? RUV_OK : ruv_fail_memory(err, where, (size_t)n_texts * sizeof *lengths);
	for (int i = 0; i < n_texts && rc == RUV_OK; i++) {
		const size_t before = tokens.n;
		rc = encode(e, texts[i], strlen(texts[i]), kind, &tokens, err);
		if (rc)
			break;
		lengths[i] = (int)(tokens.n - before);
		longest = lengths[i] > longest ? lengths[i] : longest;
		if (lengths[i] > e->n_ctx)
			rc = ruv_fail(err, RUV_ECONTEXT, where, "text %d has %d tokens, but the embedder takes %d", i, lengths[i],
			              e->n_ctx);
		else if (lengths[i] == 0)
			rc = ruv_fail(err, RUV_EINVAL, where, "text %d is empty", i);
	}
	if (rc == RUV_OK)
		rc = grow(e, longest, err);
	for (int i = 0, at = 0; i < n_texts && rc == RUV_OK;) {
		int n_seqs = 0, n_rows = 0;
		while (i + n_seqs < n_texts && n_seqs < MAX_SEQS && n_rows + lengths[i + n_seqs] <= e->n_rows)
			n_rows += lengths[i + n_seqs++];
		if (ruv_cancel_is_set(cancel)) {
			rc = ruv_fail(err, RUV_ECANCELLED, where, "cancelled after %d of %d texts", i, n_texts);
			break;
		}
		rc = run(e, tokens.ids + at, lengths + i, n_seqs, vectors + (size_t)i * (size_t)e->dim, err);
		i += n_seqs;
		at += n_rows;
	}
	ruv_tokens_release(&tokens);
	free(lengths);
	return rc;
}

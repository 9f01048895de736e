/* session.c - one sequence on a model: extending, taking back, branching.
 *
 * A pass extends the sequence by up to n_batch tokens. Pages for them are taken before anything runs, so that a full pool refuses a
 * call as a whole. A page that a fork shares is copied before its first write.
 *
 * LFM2's convolutions carry the last two columns of each layer from pass to pass. Taking tokens back cannot undo that, so the state
 * at a position p is rebuilt: zero, then the tokens [p - R, p) once more with R = 2 n_conv, attention reading the cached keys and
 * values and writing none. A column of layer i depends on the two columns before it in layer i - 1, so that after 2 n_conv tokens
 * nothing is left of the zero start: the rebuilt state is exact but for rounding (and wholly exact when p <= R).
 *
 * Threads: see session.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "infer/session_object.h"

static const char where[] = "session";

enum { DEFAULT_CTX = 4096, MAX_POOL_TOKENS = 1 << 26 };

void ruv_cancel_set(ruv_cancel *cancel)
{
	__atomic_store_n(&cancel->flag, 1, __ATOMIC_RELAXED);
}

void ruv_cancel_clear(ruv_cancel *cancel)
{
	__atomic_store_n(&cancel->flag, 0, __ATOMIC_RELAXED);
}

bool ruv_cancel_is_set(const ruv_cancel *cancel)
{
	return cancel && __atomic_load_n(&cancel->flag, __ATOMIC_RELAXED) != 0;
}

static int pages_for(int n_tokens)
{
	return (n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
}

ruv_dtype ruv_session_kv_dtype(ruv_kv_type type)
{
	return type == RUV_KV_F32 ? RUV_F32 : type == RUV_KV_Q8_0 ? RUV_Q8_0 : RUV_F16;
}

size_t ruv_session_state_bytes(const ruv_session *session)
{
	const ruv_hparams *hp = &session->model->hp;
	return (size_t)hp->n_conv * 2 * (size_t)hp->hidden * sizeof(float);
}

/* Everything of a session but its pool. */
static int create(ruv_session **out, ruv_model *model, int n_ctx, ruv_kv_type kv_type, bool alone, ruv_error *err)
{
	*out = NULL;
	ruv_session *s = calloc(1, sizeof *s);
	if (!s)
		return ruv_fail_memory(err, where, sizeof *s);
	s->model = ruv_model_hold(model);
	s->n_ctx = n_ctx;
	s->kv_type = kv_type;
	s->tokens = malloc((size_t)n_ctx * sizeof *s->tokens);
	s->pages = malloc((size_t)pages_for(n_ctx) * sizeof *s->pages);
	if (alone) {
		s->logits = malloc((size_t)model->hp.n_vocab * sizeof *s->logits);
		s->rows = malloc((size_t)model->n_batch * sizeof *s->rows);
	}
	int rc = RUV_OK;
	if (!s->tokens || !s->pages || (alone && (!s->logits || !s->rows)))
		rc = ruv_fail_memory(err, where, (size_t)n_ctx * 8 + (size_t)model->hp.n_vocab * 4);
	for (int i = 0; rc == RUV_OK && alone && i < model->n_batch; i++)
		s->rows[i] = i;
	if (rc == RUV_OK && model->hp.n_conv) {
		void *state = NULL;
		ruv_engine_lock(model->engine);
		rc = ruv_backend_alloc(ruv_engine_backend(model->engine), &state, ruv_session_state_bytes(s), err);
		ruv_engine_unlock(model->engine);
		s->conv_state = state;
	}
	if (rc) {
		ruv_session_free(s);
		return rc;
	}
	*out = s;
	return RUV_OK;
}

int ruv_session_pick_ctx(const ruv_model *model, int n_ctx, bool allow_longer, ruv_error *err)
{
	const ruv_hparams *hp = &model->hp;
	if (!model->engine)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s was opened for its vocabulary alone", model->path);
	if (!hp->causal)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s is an encoder: it makes embeddings and cannot generate",
		                model->path);
	if (n_ctx == 0)
		n_ctx = hp->n_ctx_train < DEFAULT_CTX ? hp->n_ctx_train : DEFAULT_CTX;
	if (n_ctx < 1 || n_ctx > RUV_MAX_CONTEXT)
		return ruv_fail(err, RUV_EINVAL, where, "a context of %d tokens is outside 1..%d", n_ctx, (int)RUV_MAX_CONTEXT);
	if (n_ctx > hp->n_ctx_train && !allow_longer)
		return ruv_fail(err, RUV_EINVAL, where,
		                "a context of %d tokens was asked for, but %s was made for %d; set allow_longer to try it anyway",
		                n_ctx, model->path, hp->n_ctx_train);
	return n_ctx;
}

int ruv_session_open(ruv_session **out, ruv_model *model, const ruv_session_options *options, ruv_error *err)
{
	const ruv_session_options defaults = {0};
	*out = NULL;
	options = options ? options : &defaults;
	const ruv_hparams *hp = &model->hp;
	int n_ctx = ruv_session_pick_ctx(model, options->n_ctx, options->allow_longer, err);
	if (n_ctx < 0)
		return n_ctx;
	int n_pool = options->n_pool ? options->n_pool : n_ctx;
	if (n_pool < n_ctx || n_pool > MAX_POOL_TOKENS)
		return ruv_fail(err, RUV_EINVAL, where, "a pool of %d tokens is outside %d (the context)..%d", n_pool, n_ctx,
		                (int)MAX_POOL_TOKENS);
	if ((int)options->kv_type < RUV_KV_F16 || options->kv_type > RUV_KV_Q8_0)
		return ruv_fail(err, RUV_EINVAL, where, "kv_type %d does not exist", (int)options->kv_type);

	int rc = ruv_model_reserve(model, model->n_batch, 1, n_ctx, err);
	if (rc)
		return rc;
	ruv_session *s = NULL;
	rc = create(&s, model, n_ctx, options->kv_type, true, err);
	if (rc)
		return rc;
	ruv_engine_lock(model->engine);
	rc = ruv_kv_pool_open(&s->pool, ruv_engine_backend(model->engine), hp->n_attention, hp->n_kv_heads, hp->head_dim,
	                      ruv_session_kv_dtype(options->kv_type), pages_for(n_pool), err);
	ruv_engine_unlock(model->engine);
	if (rc) {
		ruv_session_free(s);
		return rc;
	}
	*out = s;
	return RUV_OK;
}

int ruv_session_open_in(ruv_session **out, ruv_model *model, ruv_kv_pool *pool, int n_ctx, ruv_kv_type kv_type, ruv_error *err)
{
	int rc = create(out, model, n_ctx, kv_type, false, err);
	if (rc == RUV_OK)
		(*out)->pool = ruv_kv_pool_hold(pool);
	return rc;
}

void ruv_session_free(ruv_session *s)
{
	if (!s)
		return;
	ruv_session_drop_ahead(s);
	for (int i = 0; s->pool && i < s->n_pages; i++)
		ruv_kv_pool_drop(s->pool, s->pages[i]);
	ruv_engine_lock(s->model->engine);
	ruv_kv_pool_free(s->pool);
	if (s->conv_state)
		ruv_backend_release(ruv_engine_backend(s->model->engine), s->conv_state);
	ruv_engine_unlock(s->model->engine);
	ruv_adapter_free(s->adapter);
	ruv_model_free(s->model);
	free(s->tokens);
	free(s->pages);
	free(s->logits);
	free(s->rows);
	free(s);
}

ruv_model *ruv_session_model(const ruv_session *s)
{
	return s->model;
}

int ruv_session_n_ctx(const ruv_session *s)
{
	return s->n_ctx;
}

int ruv_session_position(const ruv_session *s)
{
	return s->n;
}

const ruv_token *ruv_session_tokens(const ruv_session *s)
{
	return s->tokens;
}

const float *ruv_session_logits(const ruv_session *s)
{
	return s->has_logits ? s->logits : NULL;
}

/* ---- passes ---- */

/* Runs tokens that stand in s->tokens at [position, position + n). */
static int pass(ruv_session *s, int position, int n, bool keep_kv, int n_logit_rows, const int32_t *logit_rows, float *logits,
                ruv_error *err)
{
	const ruv_forward_seq seq = {
	    .first_row = 0, .n_rows = n, .position = position, .pages = s->pages, .conv_state = s->conv_state};
	const ruv_forward forward = {.tokens = s->tokens + position,
	                             .n = n,
	                             .seqs = &seq,
	                             .n_seqs = 1,
	                             .kv = s->pool->layers,
	                             .kv_stride = 1,
	                             .keep_kv = keep_kv,
	                             .logit_rows = logit_rows,
	                             .n_logit_rows = n_logit_rows,
	                             .logits = logits,
	                             .tap = keep_kv ? NULL : s->tap,
	                             .adapter = s->adapter};
	s->state_at = -1;
	int rc = ruv_model_forward(s->model, &forward, err);
	if (rc == RUV_OK)
		s->state_at = position + n;
	return rc;
}

/* Brings the convolution state to s->n. */
int ruv_session_settle(ruv_session *s, ruv_error *err)
{
	if (!s->conv_state || s->state_at == s->n) {
		s->state_at = s->n;
		return RUV_OK;
	}
	int back = 2 * s->model->hp.n_conv, start = s->n > back ? s->n - back : 0;
	ruv_engine_lock(s->model->engine);
	ruv_backend_zero(ruv_engine_backend(s->model->engine), s->conv_state, ruv_session_state_bytes(s));
	ruv_engine_unlock(s->model->engine);
	s->state_at = start;
	int rc = RUV_OK;
	for (int at = start; at < s->n && rc == RUV_OK;) {
		int n = s->n - at < s->model->n_batch ? s->n - at : s->model->n_batch;
		rc = pass(s, at, n, true, 0, NULL, NULL, err);
		at += n;
	}
	return rc;
}

/* Is the page that the next token goes to listed by somebody else too? */
static bool must_copy(const ruv_session *s)
{
	const int first = s->n / RUV_KV_PAGE_TOKENS;
	return first < s->n_pages && ruv_kv_pool_is_shared(s->pool, s->pages[first]);
}

int ruv_session_pages_needed(const ruv_session *s, int n)
{
	return pages_for(s->n + n) - s->n_pages + must_copy(s);
}

/* Pages for n more tokens, those in use by others copied. Nothing changes when there are too few. */
int ruv_session_make_room(ruv_session *s, int n, ruv_error *err)
{
	const int first = s->n / RUV_KV_PAGE_TOKENS, n_needed = ruv_session_pages_needed(s, n);
	if (n_needed > s->pool->n_free)
		return ruv_fail(err, RUV_ELIMIT, where,
		                "%d more tokens need %d pages of %d tokens, but %d of the pool's %d are free; open the session "
		                "with a larger n_pool",
		                n, n_needed, (int)RUV_KV_PAGE_TOKENS, s->pool->n_free, s->pool->n_pages);
	if (must_copy(s)) {
		ruv_engine_lock(s->model->engine);
		s->pages[first] = ruv_kv_pool_own(s->pool, s->pages[first]);
		ruv_engine_unlock(s->model->engine);
	}
	while (s->n_pages < pages_for(s->n + n))
		s->pages[s->n_pages++] = ruv_kv_pool_take(s->pool);
	return RUV_OK;
}

static void drop_pages(ruv_session *s, int n_keep)
{
	while (s->n_pages > n_keep)
		ruv_kv_pool_drop(s->pool, s->pages[--s->n_pages]);
}

void ruv_session_trim(ruv_session *s)
{
	drop_pages(s, pages_for(s->n));
}

static int check_tokens(const ruv_session *s, const ruv_token *tokens, int n, ruv_error *err)
{
	if (n < 1)
		return ruv_fail(err, RUV_EINVAL, where, "%d tokens were given, at least one is needed", n);
	for (int i = 0; i < n; i++)
		if (tokens[i] < 0 || tokens[i] >= s->model->hp.n_vocab)
			return ruv_fail(err, RUV_EINVAL, where, "token %d at position %d is outside the model's vocabulary of %d",
			                tokens[i], i, s->model->hp.n_vocab);
	return RUV_OK;
}

static int extend(ruv_session *s, const ruv_token *tokens, int n, float *all_logits, const ruv_cancel *cancel, ruv_error *err)
{
	int rc = check_tokens(s, tokens, n, err);
	if (rc)
		return rc;
	if (n > s->n_ctx - s->n)
		return ruv_fail(err, RUV_ECONTEXT, where,
		                "%d tokens behind the %d that are there make %lld, but the context holds %d", n, s->n,
		                (long long)s->n + n, s->n_ctx);
	if ((rc = ruv_session_settle(s, err)) || (rc = ruv_session_make_room(s, n, err)))
		return rc;
	s->has_logits = false;
	memcpy(s->tokens + s->n, tokens, (size_t)n * sizeof *tokens);
	const size_t n_vocab = (size_t)s->model->hp.n_vocab;
	for (int done = 0; done < n && rc == RUV_OK;) {
		if (done && ruv_cancel_is_set(cancel)) {
			rc = ruv_fail(err, RUV_ECANCELLED, where, "cancelled after %d of %d tokens", done, n);
			break;
		}
		int chunk = n - done < s->model->n_batch ? n - done : s->model->n_batch;
		bool last = done + chunk == n;
		int32_t last_row = chunk - 1;
		if (all_logits)
			rc = pass(s, s->n, chunk, false, chunk, s->rows, all_logits + (size_t)done * n_vocab, err);
		else
			rc = pass(s, s->n, chunk, false, last, &last_row, s->logits, err);
		if (rc)
			break;
		s->n += chunk;
		done += chunk;
	}
	drop_pages(s, pages_for(s->n));
	if (rc)
		return rc;
	if (all_logits)
		memcpy(s->logits, all_logits + ((size_t)n - 1) * n_vocab, n_vocab * sizeof(float));
	s->has_logits = true;
	return RUV_OK;
}

int ruv_session_prefill(ruv_session *s, const ruv_token *tokens, int n, const ruv_cancel *cancel, ruv_error *err)
{
	if (ruv_cancel_is_set(cancel))
		return ruv_fail(err, RUV_ECANCELLED, where, "cancelled before the first of %d tokens", n);
	return extend(s, tokens, n, NULL, cancel, err);
}

int ruv_session_decode(ruv_session *s, ruv_token token, ruv_error *err)
{
	return extend(s, &token, 1, NULL, NULL, err);
}

int ruv_session_score(ruv_session *s, const ruv_token *tokens, int n, float *logits, const ruv_cancel *cancel, ruv_error *err)
{
	return extend(s, tokens, n, logits, cancel, err);
}

/* ---- back, and branches ---- */

int ruv_session_truncate(ruv_session *s, int position, ruv_error *err)
{
	if (position < 0 || position > s->n)
		return ruv_fail(err, RUV_EINVAL, where, "position %d is outside 0..%d", position, s->n);
	if (position == s->n)
		return RUV_OK;
	s->n = position;
	s->has_logits = false;
	drop_pages(s, pages_for(position));
	return RUV_OK; /* the state is settled before the next pass */
}

void ruv_session_reset(ruv_session *s)
{
	ruv_session_truncate(s, 0, NULL);
}

int ruv_session_set_tokens(ruv_session *s, const ruv_token *tokens, int n, int *n_kept, const ruv_cancel *cancel, ruv_error *err)
{
	int rc = check_tokens(s, tokens, n, err);
	if (rc)
		return rc;
	if (n > s->n_ctx)
		return ruv_fail(err, RUV_ECONTEXT, where, "the prompt has %d tokens, but the context holds %d", n, s->n_ctx);
	int common = 0;
	while (common < n && common < s->n && tokens[common] == s->tokens[common])
		common++;
	if (common == n && s->n == n && s->has_logits) {
		if (n_kept)
			*n_kept = n;
		return RUV_OK;
	}
	if (common == n)
		common--;
	if ((rc = ruv_session_truncate(s, common, err)))
		return rc;
	if (n_kept)
		*n_kept = common;
	return ruv_session_prefill(s, tokens + common, n - common, cancel, err);
}

int ruv_session_set_adapter(ruv_session *s, ruv_adapter *adapter, ruv_error *err)
{
	if (adapter && adapter->model != s->model)
		return ruv_fail(err, RUV_EMISMATCH, where, "the adapter belongs to another model than the session's");
	if (adapter) {
		ruv_engine_lock(s->model->engine);
		int rc = ruv_workspace_reserve_rank(&s->model->workspace, adapter->rank, err);
		ruv_engine_unlock(s->model->engine);
		if (rc)
			return rc;
		ruv_adapter_hold(adapter);
	}
	ruv_session_reset(s);
	ruv_adapter_free(s->adapter);
	s->adapter = adapter;
	return RUV_OK;
}

int ruv_session_fork(ruv_session **out, ruv_session *s, ruv_error *err)
{
	ruv_session *fork = NULL;
	*out = NULL;
	int rc = ruv_session_settle(s, err);
	if (rc)
		return rc;
	rc = create(&fork, s->model, s->n_ctx, s->kv_type, s->logits != NULL, err);
	if (rc)
		return rc;
	fork->pool = ruv_kv_pool_hold(s->pool);
	fork->adapter = s->adapter ? ruv_adapter_hold(s->adapter) : NULL;
	memcpy(fork->tokens, s->tokens, (size_t)s->n * sizeof *s->tokens);
	memcpy(fork->pages, s->pages, (size_t)s->n_pages * sizeof *s->pages);
	for (int i = 0; i < s->n_pages; i++)
		ruv_kv_pool_share(s->pool, s->pages[i]);
	fork->n = s->n;
	fork->n_pages = s->n_pages;
	if (s->conv_state) {
		ruv_engine_lock(s->model->engine);
		ruv_backend_copy(ruv_engine_backend(s->model->engine), fork->conv_state, s->conv_state, ruv_session_state_bytes(s));
		ruv_engine_unlock(s->model->engine);
	}
	fork->state_at = s->state_at;
	fork->has_logits = s->has_logits;
	if (s->has_logits)
		memcpy(fork->logits, s->logits, (size_t)s->model->hp.n_vocab * sizeof *s->logits);
	*out = fork;
	return RUV_OK;
}

int ruv_session_adopt(ruv_session *s, int n, ruv_error *err)
{
	int n_pages = pages_for(n), n_own = 0;
	for (int i = 0; i < s->n_pages; i++)
		n_own += !ruv_kv_pool_is_shared(s->pool, s->pages[i]);
	if (n_pages > s->pool->n_free + n_own)
		return ruv_fail(err, RUV_ELIMIT, where, "%d tokens need %d pages, but only %d of the pool's %d are free", n,
		                n_pages, s->pool->n_free + n_own, s->pool->n_pages);
	drop_pages(s, 0);
	while (s->n_pages < n_pages)
		s->pages[s->n_pages++] = ruv_kv_pool_take(s->pool);
	s->n = n;
	s->has_logits = false;
	s->state_at = -1;
	return RUV_OK;
}

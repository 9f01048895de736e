/* stream.c - tokens in, text out: stop strings, streaming, logprobs.
 *
 * Text leaves in pieces that are whole UTF-8 and that no stop string can begin in: what might still become part of one is held back
 * until it cannot. The bytes of the text are those of the tokens (invalid ones as U+FFFD), cut before the stop string.
 *
 * Invariant: text[0, n_shown) was handed out; no stop string begins before n_shown. */
#include "infer/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "generate";

enum { MAX_TOP = 20, MAX_TEXT_BYTES = 1 << 30 };

const char *ruv_finish_name(ruv_finish finish)
{
	switch (finish) {
	case RUV_FINISH_STOP:
		return "stop";
	case RUV_FINISH_LENGTH:
		return "length";
	case RUV_FINISH_CANCELLED:
		return "cancelled";
	}
	return "unknown";
}

void ruv_generation_release(ruv_generation *g)
{
	free(g->text);
	free(g->tokens);
	free(g->logprobs);
	free(g->top);
	memset(g, 0, sizeof *g);
}

int ruv_generate_params_check(const ruv_generate_params *p, ruv_error *err)
{
	if (p->max_tokens < 0)
		return ruv_fail(err, RUV_EINVAL, where, "max_tokens is %d, must not be negative", p->max_tokens);
	if (p->n_logprobs < -1 || p->n_logprobs > MAX_TOP)
		return ruv_fail(err, RUV_EINVAL, where, "n_logprobs is %d, which is outside -1..%d", p->n_logprobs, (int)MAX_TOP);
	for (int i = 0; i < p->n_stops; i++) {
		const size_t n = p->stops[i] ? strlen(p->stops[i]) : 0;
		if (n == 0)
			return ruv_fail(err, RUV_EINVAL, where, "stop string %d is empty", i);
		if (ruv_utf8_valid_prefix(p->stops[i], n) != n)
			return ruv_fail(err, RUV_EINVAL, where, "stop string %d is not valid UTF-8", i);
	}
	return RUV_OK;
}

int ruv_stream_init(ruv_stream *r, const ruv_model *model, const ruv_generate_params *params, void *constraint_state,
                    int max_tokens, ruv_generation *out, ruv_stream_fn *on_text, void *user, ruv_error *err)
{
	*r = (ruv_stream){.model = model, .params = params, .out = out, .on_text = on_text, .user = user};
	r->max_tokens = params->max_tokens && params->max_tokens < max_tokens ? params->max_tokens : max_tokens;
	ruv_buf_init(&r->text, MAX_TEXT_BYTES);
	ruv_buf_init(&r->piece, MAX_TEXT_BYTES);
	ruv_utf8_stream_init(&r->utf8);
	out->end_token = -1;
	out->stop_index = -1;
	out->finish = RUV_FINISH_LENGTH;
	const size_t n = (size_t)r->max_tokens, n_words = ((size_t)model->hp.n_vocab + 63) / 64;
	out->tokens = malloc(n * sizeof *out->tokens);
	bool ok = out->tokens != NULL;
	if (params->n_logprobs >= 0)
		ok = (out->logprobs = malloc(n * sizeof *out->logprobs)) && ok;
	if (params->n_logprobs > 0) {
		out->n_top = params->n_logprobs < model->hp.n_vocab ? params->n_logprobs : model->hp.n_vocab;
		ok = (out->top = malloc(n * (size_t)out->n_top * sizeof *out->top)) && ok;
	}
	if (params->constraint) {
		r->constraint = params->constraint;
		r->constraint_state = constraint_state ? constraint_state : params->constraint->state;
		ok = (r->allowed = malloc(n_words * sizeof *r->allowed)) && ok;
	}
	return ok ? RUV_OK : ruv_fail_memory(err, where, n * 8);
}

void ruv_stream_release(ruv_stream *r)
{
	ruv_buf_release(&r->text);
	ruv_buf_release(&r->piece);
	free(r->allowed);
	r->allowed = NULL;
}

/* Hands out text up to `end`; false when the callback wants no more. */
static bool show(ruv_stream *r, size_t end, bool at_end)
{
	const int n_new = r->out->n_tokens - r->n_told;
	if (end <= r->n_shown && !(at_end && n_new))
		return true;
	const size_t from = r->n_shown;
	r->n_shown = end > from ? end : from;
	r->n_told = r->out->n_tokens;
	if (!r->on_text)
		return true;
	ruv_buf_clear(&r->piece);
	if (r->n_shown > from && ruv_buf_append(&r->piece, r->text.data + from, r->n_shown - from))
		return true; /* the failure is found by finish's check of piece.failed */
	return r->on_text(r->user, r, ruv_buf_cstr(&r->piece), r->piece.len, n_new);
}

/* The earliest stop string in text[n_shown, len): its place in *at, its number in *which. */
static bool find_stop(const ruv_stream *r, size_t *at, int *which)
{
	bool found = false;
	for (int i = 0; i < r->params->n_stops; i++) {
		const char *begin = r->text.data + r->n_shown;
		const char *hit = r->text.len > r->n_shown
		                      ? memmem(begin, r->text.len - r->n_shown, r->params->stops[i], strlen(r->params->stops[i]))
		                      : NULL;
		if (hit && (!found || (size_t)(hit - r->text.data) < *at)) {
			*at = (size_t)(hit - r->text.data);
			*which = i;
			found = true;
		}
	}
	return found;
}

/* Where text begins that may turn into a stop string: its longest suffix that is the beginning of one. */
static size_t safe_end(const ruv_stream *r)
{
	size_t safe = r->text.len;
	for (int i = 0; i < r->params->n_stops; i++) {
		const size_t n = strlen(r->params->stops[i]);
		size_t most = r->text.len - r->n_shown;
		most = most < n - 1 ? most : n - 1;
		for (size_t k = most; k > 0; k--)
			if (memcmp(r->text.data + r->text.len - k, r->params->stops[i], k) == 0) {
				safe = r->text.len - k < safe ? r->text.len - k : safe;
				break;
			}
	}
	return safe;
}

static void end(ruv_stream *r, ruv_finish finish)
{
	r->done = true;
	r->out->finish = finish;
}

/* New text has arrived (or, at the end, nothing may be held back any longer). */
static void text_grew(ruv_stream *r, bool at_end)
{
	size_t at = 0;
	int which = -1;
	if (find_stop(r, &at, &which)) {
		ruv_buf_truncate(&r->text, at);
		r->out->stop_index = which;
		end(r, RUV_FINISH_STOP);
		show(r, at, true);
	} else if (!show(r, at_end ? r->text.len : safe_end(r), at_end) && !at_end) {
		r->refused = true;
		end(r, RUV_FINISH_CANCELLED);
	}
}

int ruv_stream_limit(ruv_stream *r, ruv_sampler *sampler, ruv_error *err)
{
	if (!r->constraint)
		return RUV_OK;
	const int n_vocab = r->model->hp.n_vocab;
	memset(r->allowed, 0, ((size_t)n_vocab + 63) / 64 * sizeof *r->allowed);
	const int rc = r->constraint->fill(r->constraint_state, r->allowed, n_vocab, err);
	if (rc < 0)
		return rc;
	ruv_sampler_allow(sampler, rc == RUV_CONSTRAINT_ALL ? NULL : r->allowed);
	return RUV_OK;
}

int ruv_stream_push(ruv_stream *r, ruv_token token, const float *logits, ruv_error *err)
{
	ruv_generation *g = r->out;
	int rc = r->constraint ? r->constraint->accept(r->constraint_state, token, err) : RUV_OK;
	if (rc < 0)
		return rc;
	if (!r->params->ignore_end && ruv_model_token_is_end(r->model, token)) {
		g->end_token = token;
		end(r, RUV_FINISH_STOP);
		return RUV_OK;
	}
	const int n_vocab = r->model->hp.n_vocab, i = g->n_tokens++;
	g->tokens[i] = token;
	if (g->logprobs)
		g->logprobs[i] = (float)((double)logits[token] - ruv_log_sum_exp(logits, n_vocab));
	if (g->top)
		ruv_top_logprobs(logits, n_vocab, g->n_top, g->top + (size_t)i * (size_t)g->n_top);
	const ruv_vocab *vocab = r->model->vocab;
	if (vocab && (r->params->special_text || !ruv_vocab_is_special(vocab, token))) {
		ruv_str bytes = ruv_vocab_bytes(vocab, token);
		if (ruv_utf8_stream_push(&r->utf8, bytes.data, bytes.len, &r->text))
			return ruv_fail_memory(err, where, bytes.len);
	}
	text_grew(r, false);
	if (!r->done && g->n_tokens == r->max_tokens)
		end(r, RUV_FINISH_LENGTH);
	return RUV_OK;
}

void ruv_stream_cancel(ruv_stream *r)
{
	if (!r->done)
		end(r, RUV_FINISH_CANCELLED);
}

int ruv_stream_finish(ruv_stream *r, ruv_error *err)
{
	ruv_generation *g = r->out;
	/* behind a stop string nothing is left; a caller who wanted no more gets no more */
	if (g->stop_index < 0 && !r->refused) {
		if (ruv_utf8_stream_finish(&r->utf8, &r->text))
			return ruv_fail_memory(err, where, r->text.len);
		text_grew(r, true);
	}
	if (r->text.failed || r->piece.failed)
		return ruv_fail_memory(err, where, r->text.len);
	g->n_bytes = r->text.len;
	g->text = r->text.len ? ruv_buf_take(&r->text) : calloc(1, 1);
	return g->text ? RUV_OK : ruv_fail_memory(err, where, g->n_bytes);
}

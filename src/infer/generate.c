/* generate.c - prompt in, text out: the sampling loop with stop strings, streaming and logprobs.
 *
 * Text leaves in pieces that are whole UTF-8 and that no stop string can begin in: what might still become part of one is held back
 * until it cannot. The bytes of the text are those of the tokens (invalid ones as U+FFFD), cut before the stop string.
 *
 * Invariant: text[0, n_shown) was handed out; no stop string begins before n_shown. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "infer/sampler.h"
#include "infer/session_object.h"
#include "text/unicode.h"

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

struct run {
	ruv_session *session;
	const ruv_generate_params *params;
	ruv_sampler *sampler;
	ruv_generation *out;
	int max_tokens; /* room in out's arrays */
	ruv_buf text;
	ruv_utf8_stream utf8;
	size_t n_shown;
	ruv_buf piece; /* for the NUL behind it */
};

static int check_params(const ruv_generate_params *p, ruv_error *err)
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

/* Hands out text up to `end`; false when the callback wants no more. */
static bool show(struct run *r, size_t end)
{
	if (end <= r->n_shown)
		return true;
	const size_t from = r->n_shown;
	r->n_shown = end;
	if (!r->params->on_piece)
		return true;
	ruv_buf_clear(&r->piece);
	if (ruv_buf_append(&r->piece, r->text.data + from, end - from))
		return true; /* the failure is found by the caller's check of piece.failed */
	const ruv_piece piece = {.text = ruv_buf_cstr(&r->piece), .n_bytes = r->piece.len, .n_tokens = r->out->n_tokens};
	return r->params->on_piece(r->params->user, &piece);
}

/* The earliest stop string in text[n_shown, len): its place in *at, its number in *which. */
static bool find_stop(const struct run *r, size_t *at, int *which)
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
static size_t safe_end(const struct run *r)
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

enum verdict { GO_ON, STOP_STRING, CALLER_STOPS };

/* New text has arrived (or, at the end, nothing may be held back any longer). */
static enum verdict text_grew(struct run *r, bool at_end)
{
	size_t at = 0;
	int which = -1;
	if (find_stop(r, &at, &which)) {
		ruv_buf_truncate(&r->text, at);
		r->out->stop_index = which;
		show(r, at);
		return STOP_STRING;
	}
	return show(r, at_end ? r->text.len : safe_end(r)) ? GO_ON : CALLER_STOPS;
}

static int add_token(struct run *r, ruv_token token, const float *logits, ruv_error *err)
{
	ruv_generation *g = r->out;
	const int n_vocab = r->session->model->hp.n_vocab, i = g->n_tokens;
	g->tokens[g->n_tokens++] = token;
	if (g->logprobs)
		g->logprobs[i] = (float)((double)logits[token] - ruv_log_sum_exp(logits, n_vocab));
	if (g->top)
		ruv_top_logprobs(logits, n_vocab, g->n_top, g->top + (size_t)i * (size_t)g->n_top);
	const ruv_vocab *vocab = r->session->model->vocab;
	if (vocab && (r->params->special_text || !ruv_vocab_is_special(vocab, token))) {
		ruv_str bytes = ruv_vocab_bytes(vocab, token);
		if (ruv_utf8_stream_push(&r->utf8, bytes.data, bytes.len, &r->text))
			return ruv_fail_memory(err, where, bytes.len);
	}
	return RUV_OK;
}

static int sample_loop(struct run *r, ruv_error *err)
{
	ruv_session *s = r->session;
	ruv_generation *g = r->out;
	g->finish = RUV_FINISH_LENGTH;
	while (g->n_tokens < r->max_tokens) {
		if (ruv_cancel_is_set(r->params->cancel)) {
			g->finish = RUV_FINISH_CANCELLED;
			break;
		}
		const float *logits = ruv_session_logits(s);
		ruv_token token;
		int rc = ruv_sampler_choose(r->sampler, logits, s->tokens, s->n, &token, err);
		if (rc)
			return rc;
		if (!r->params->ignore_end && ruv_model_token_is_end(s->model, token)) {
			g->finish = RUV_FINISH_STOP;
			g->end_token = token;
			break;
		}
		if ((rc = add_token(r, token, logits, err)))
			return rc;
		enum verdict verdict = text_grew(r, false);
		if (verdict != GO_ON) {
			g->finish = verdict == STOP_STRING ? RUV_FINISH_STOP : RUV_FINISH_CANCELLED;
			return RUV_OK;
		}
		/* the last token of a full context is sampled but cannot be run */
		if (g->n_tokens < r->max_tokens && (rc = ruv_session_decode(s, token, err)))
			return rc;
	}
	if (ruv_utf8_stream_finish(&r->utf8, &r->text))
		return ruv_fail_memory(err, where, r->text.len);
	switch (text_grew(r, true)) {
	case GO_ON:
		break;
	case STOP_STRING:
		g->finish = RUV_FINISH_STOP;
		break;
	case CALLER_STOPS:
		break; /* it had all of it */
	}
	return RUV_OK;
}

static int alloc_results(struct run *r, ruv_error *err)
{
	ruv_generation *g = r->out;
	const size_t n = (size_t)r->max_tokens;
	g->tokens = malloc(n * sizeof *g->tokens);
	bool ok = g->tokens != NULL;
	if (r->params->n_logprobs >= 0)
		ok = (g->logprobs = malloc(n * sizeof *g->logprobs)) && ok;
	if (r->params->n_logprobs > 0) {
		g->n_top =
		    r->params->n_logprobs < r->session->model->hp.n_vocab ? r->params->n_logprobs : r->session->model->hp.n_vocab;
		ok = (g->top = malloc(n * (size_t)g->n_top * sizeof *g->top)) && ok;
	}
	return ok ? RUV_OK : ruv_fail_memory(err, where, n * 8);
}

int ruv_generate(ruv_session *session, const ruv_token *prompt, int n_prompt, const ruv_generate_params *params,
                 ruv_generation *out, ruv_error *err)
{
	const ruv_generate_params defaults = {0};
	memset(out, 0, sizeof *out);
	out->end_token = -1;
	out->stop_index = -1;
	params = params ? params : &defaults;
	struct run r = {.session = session, .params = params, .out = out};
	ruv_buf_init(&r.text, MAX_TEXT_BYTES);
	ruv_buf_init(&r.piece, MAX_TEXT_BYTES);
	ruv_utf8_stream_init(&r.utf8);

	int rc = check_params(params, err);
	if (rc)
		goto done;
	if (n_prompt >= session->n_ctx) {
		rc = ruv_fail(err, RUV_ECONTEXT, where,
		              "the prompt has %d tokens, but the context holds %d, of which an answer needs at least 1", n_prompt,
		              session->n_ctx);
		goto done;
	}
	rc = ruv_sampler_open(&r.sampler, &params->sampling, session->model->may_sample, session->model->hp.n_vocab, err);
	if (rc)
		goto done;
	out->seed = ruv_sampler_seed(r.sampler);
	const int64_t start = ruv_clock_now_ns();
	out->n_prompt = n_prompt;
	rc = ruv_session_set_tokens(session, prompt, n_prompt, &out->n_kept, params->cancel, err);
	const int64_t prefilled = ruv_clock_now_ns();
	out->prefill_ms = (double)(prefilled - start) / 1e6;
	if (rc)
		goto done;
	r.max_tokens = session->n_ctx - n_prompt;
	if (params->max_tokens && params->max_tokens < r.max_tokens)
		r.max_tokens = params->max_tokens;
	if ((rc = alloc_results(&r, err)) || (rc = sample_loop(&r, err)))
		goto done;
	out->decode_ms = (double)(ruv_clock_now_ns() - prefilled) / 1e6;
	if (r.text.failed || r.piece.failed) {
		rc = ruv_fail_memory(err, where, r.text.len);
		goto done;
	}
	out->n_bytes = r.text.len;
	out->text = r.text.len ? ruv_buf_take(&r.text) : calloc(1, 1);
	if (!out->text)
		rc = ruv_fail_memory(err, where, out->n_bytes);
done:
	ruv_sampler_free(r.sampler);
	ruv_buf_release(&r.text);
	ruv_buf_release(&r.piece);
	if (rc)
		ruv_generation_release(out);
	return rc;
}

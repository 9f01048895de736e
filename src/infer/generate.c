/* generate.c - prompt in, text out on one session: the sampling loop. What is done with a token is stream.c's.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "infer/session_object.h"
#include "infer/stream.h"

static const char where[] = "generate";

static bool hand_on(void *user, const ruv_stream *stream, const char *text, size_t n_bytes, int n_new)
{
	const ruv_generate_params *params = user;
	(void)n_new;
	if (n_bytes == 0)
		return true;
	const ruv_piece piece = {.text = text, .n_bytes = n_bytes, .n_tokens = stream->out->n_tokens};
	return params->on_piece(params->user, &piece);
}

static int sample_loop(ruv_session *s, ruv_stream *stream, ruv_sampler *sampler, ruv_error *err)
{
	for (;;) {
		if (ruv_cancel_is_set(stream->params->cancel)) {
			ruv_stream_cancel(stream);
			return RUV_OK;
		}
		const float *logits = ruv_session_logits(s);
		ruv_token token;
		int rc;
		if ((rc = ruv_stream_limit(stream, sampler, err)) ||
		    (rc = ruv_sampler_choose(sampler, logits, s->tokens, s->n, &token, err)) ||
		    (rc = ruv_stream_push(stream, token, logits, err)))
			return rc;
		if (stream->done)
			return RUV_OK; /* the last token of a full context is sampled but cannot be run */
		if ((rc = ruv_session_decode(s, token, err)))
			return rc;
	}
}

int ruv_generate(ruv_session *session, const ruv_token *prompt, int n_prompt, const ruv_generate_params *params,
                 ruv_generation *out, ruv_error *err)
{
	const ruv_generate_params defaults = {0};
	ruv_stream stream = {0};
	ruv_sampler *sampler = NULL;
	memset(out, 0, sizeof *out);
	params = params ? params : &defaults;

	int rc = ruv_generate_params_check(params, err);
	if (rc)
		goto done;
	if (n_prompt >= session->n_ctx) {
		rc = ruv_fail(err, RUV_ECONTEXT, where,
		              "the prompt has %d tokens, but the context holds %d, of which an answer needs at least 1", n_prompt,
		              session->n_ctx);
		goto done;
	}
	rc = ruv_sampler_open(&sampler, &params->sampling, session->model->may_sample, session->model->hp.n_vocab, err);
	if (rc)
		goto done;
	out->seed = ruv_sampler_seed(sampler);
	const int64_t start = ruv_clock_now_ns();
	out->n_prompt = n_prompt;
	rc = ruv_session_set_tokens(session, prompt, n_prompt, &out->n_kept, params->cancel, err);
	const int64_t prefilled = ruv_clock_now_ns();
	out->prefill_ms = (double)(prefilled - start) / 1e6;
	if (rc)
		goto done;
	if ((rc = ruv_stream_init(&stream, session->model, params, NULL, session->n_ctx - n_prompt, out,
	                          params->on_piece ? hand_on : NULL, (void *)(uintptr_t)params, err)) ||
	    (rc = sample_loop(session, &stream, sampler, err)))
		goto done;
	out->decode_ms = (double)(ruv_clock_now_ns() - prefilled) / 1e6;
	rc = ruv_stream_finish(&stream, err);
done:
	ruv_sampler_free(sampler);
	ruv_stream_release(&stream);
	if (rc)
		ruv_generation_release(out);
	return rc;
}

/* generate.c - prompt in, text out on one session: the sampling loop. What is done with a token is stream.c's.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "infer/session_object.h"
#include "infer/speculative.h"
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

/* ---- several tokens a pass: speculation, and tokens that a constraint forces ---- */

struct ruv_ahead {
	ruv_speculator *speculator; /* NULL: forced tokens alone */
	ruv_batch batch;
	ruv_lane lane; /* keeps the draft's session from call to call */
};

void ruv_session_drop_ahead(ruv_session *s)
{
	if (!s->ahead)
		return;
	ruv_lane_release(&s->ahead->lane);
	ruv_batch_release(&s->ahead->batch);
	ruv_speculator_free(s->ahead->speculator);
	free(s->ahead);
	s->ahead = NULL;
}

/* how NULL: without guesses. */
static int open_ahead(ruv_session *s, const ruv_speculation *how, ruv_error *err)
{
	struct ruv_ahead *ahead = calloc(1, sizeof *ahead);
	if (!ahead)
		return ruv_fail_memory(err, where, sizeof *ahead);
	int rc = how ? ruv_speculator_open(&ahead->speculator, s->model, how, s->n_ctx, 1, err) : RUV_OK;
	if (rc == RUV_OK)
		rc = ruv_batch_init(&ahead->batch, s->model, RUV_MAX_LOOKAHEAD + 1, 1, s->n_ctx, err);
	if (rc) {
		ruv_speculator_free(ahead->speculator);
		free(ahead);
		return rc;
	}
	ruv_session_drop_ahead(s);
	s->ahead = ahead;
	return RUV_OK;
}

int ruv_session_set_speculation(ruv_session *s, const ruv_speculation *how, ruv_error *err)
{
	if (how)
		return open_ahead(s, how, err);
	ruv_session_drop_ahead(s);
	return RUV_OK;
}

void ruv_session_speculation_stats(const ruv_session *s, ruv_speculation_stats *stats)
{
	ruv_speculator_stats(s->ahead ? s->ahead->speculator : NULL, stats);
}

/* The lane for a new text: what the draft holds of its beginning is kept. */
static void begin_lane(ruv_session *s, ruv_stream *stream, ruv_sampler *sampler)
{
	ruv_lane *lane = &s->ahead->lane;
	lane->session = s;
	lane->stream = stream;
	lane->sampler = sampler;
	ruv_sampler_free(lane->draft_sampler); /* its parameters were the last call's */
	lane->draft_sampler = NULL;
	lane->n_common = 0;
	while (lane->draft && lane->n_common < lane->draft->n && lane->n_common < s->n &&
	       lane->draft->tokens[lane->n_common] == s->tokens[lane->n_common])
		lane->n_common++;
}

static int round_of(ruv_session *s, ruv_error *err)
{
	struct ruv_ahead *a = s->ahead;
	ruv_lane *lane = &a->lane;
	int rc = ruv_lanes_force(&lane, 1, RUV_MAX_LOOKAHEAD, err), n_keep = 0;
	if (rc || (rc = ruv_speculator_draft(a->speculator, &lane, 1, err)))
		return rc;
	const int n_rows = 1 + lane->n_drafts;
	ruv_batch_part part = {.session = s, .n_rows = n_rows, .n_logits = n_rows, .take_back = n_rows > 1};
	const int64_t start = ruv_clock_now_ns();
	if ((rc = ruv_batch_run(&a->batch, &part, 1, err)))
		return rc;
	ruv_speculator_measured(a->speculator, &lane, 1, (double)(ruv_clock_now_ns() - start) / 1e6);
	if ((rc = ruv_speculator_accept(a->speculator, lane, part.logits, &n_keep, err)))
		n_keep = 1;
	ruv_batch_take_back(&a->batch, &part, n_keep);
	return rc;
}

static int speculate_loop(ruv_session *s, ruv_stream *stream, ruv_sampler *sampler, ruv_error *err)
{
	ruv_lane *lane = &s->ahead->lane;
	int rc;
	begin_lane(s, stream, sampler);
	for (bool first = true; !stream->done; first = false) {
		if (ruv_cancel_is_set(stream->params->cancel)) {
			ruv_stream_cancel(stream);
			break;
		}
		if (!first) {
			if ((rc = round_of(s, err)))
				return rc;
			continue;
		}
		ruv_token token;
		if ((rc = ruv_stream_limit(stream, sampler, err)) ||
		    (rc = ruv_sampler_choose(sampler, s->logits, s->tokens, s->n, &token, err)) ||
		    (rc = ruv_stream_push(stream, token, s->logits, err)))
			return rc;
		if (!stream->done) {
			s->tokens[s->n] = token;
			lane->n_known = s->n + 1;
		}
	}
	return RUV_OK;
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
	if (params->constraint && !session->ahead && (rc = open_ahead(session, NULL, err)))
		goto done;
	if ((rc = ruv_stream_init(&stream, session->model, params, NULL, session->n_ctx - n_prompt, out,
	                          params->on_piece ? hand_on : NULL, (void *)(uintptr_t)params, err)) ||
	    (rc = session->ahead ? speculate_loop(session, &stream, sampler, err) : sample_loop(session, &stream, sampler, err)))
		goto done;
	out->decode_ms = (double)(ruv_clock_now_ns() - prefilled) / 1e6;
	rc = ruv_stream_finish(&stream, err);
done:
	if (session->ahead) {
		session->ahead->lane.stream = NULL;
		session->ahead->lane.sampler = NULL;
	}
	if (session->ahead && !session->ahead->speculator)
		ruv_session_drop_ahead(session);
	ruv_sampler_free(sampler);
	ruv_stream_release(&stream);
	if (rc)
		ruv_generation_release(out);
	return rc;
}

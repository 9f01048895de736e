/* stream.h - what one generation has said so far: tokens, text, logprobs, stop strings, pieces handed out, the constraint.
 *
 * ruv_generate and the scheduler both push the tokens that they sample into one; the rules of ruv_generate_params live here alone.
 * Threads: one at a time. Layer: infer. */
#ifndef RUV_INFER_STREAM_H
#define RUV_INFER_STREAM_H

#include "base/buf.h"
#include "infer/sampler.h"
#include "model/object.h"
#include "text/unicode.h"

typedef struct ruv_stream ruv_stream;

/* text[0, n_bytes) and a NUL is new, and so are the last n_new tokens. Returns whether to go on. */
typedef bool ruv_stream_fn(void *user, const ruv_stream *stream, const char *text, size_t n_bytes, int n_new);

struct ruv_stream {
	const ruv_model *model;
	const ruv_generate_params *params; /* outlives the stream */
	ruv_generation *out;
	int max_tokens; /* room in out's arrays */
	bool done;      /* out->finish is set */
	bool refused;   /* on_text wanted no more */
	ruv_buf text;
	ruv_utf8_stream utf8;
	size_t n_shown;
	int n_told;    /* tokens that pieces told of */
	ruv_buf piece; /* for the NUL behind it */
	ruv_stream_fn *on_text;
	void *user;
	const ruv_constraint *constraint; /* NULL: none */
	void *constraint_state;
	uint64_t *allowed; /* [(n_vocab + 63) / 64], NULL without a constraint */
};

/* Are the parameters within their ranges? RUV_EINVAL names the one that is not. */
int ruv_generate_params_check(const ruv_generate_params *params, ruv_error *err);

/* An empty one; `out` gets its arrays. max_tokens >= 1: what fits. params->constraint is used with the state given (its own when
 * NULL). ruv_stream_release after a failure too. */
int ruv_stream_init(ruv_stream *stream, const ruv_model *model, const ruv_generate_params *params, void *constraint_state,
                    int max_tokens, ruv_generation *out, ruv_stream_fn *on_text, void *user, ruv_error *err);
void ruv_stream_release(ruv_stream *stream);

/* Tells the sampler what the constraint allows now. */
int ruv_stream_limit(ruv_stream *stream, ruv_sampler *sampler, ruv_error *err);
/* A token was chosen; logits [n_vocab] are those it was chosen by. Sets `done` when it ends the generation (the last one that fits
 * does). */
int ruv_stream_push(ruv_stream *stream, ruv_token token, const float *logits, ruv_error *err);
/* Ends it from outside. */
void ruv_stream_cancel(ruv_stream *stream);
/* Hands out what was held back and gives out its text. Once, after `done`. */
int ruv_stream_finish(ruv_stream *stream, ruv_error *err);

#endif

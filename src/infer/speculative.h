/* speculative.h - guessing several tokens ahead and checking them in one pass (Leviathan et al. 2023, Chen et al. 2023).
 *
 * A lane is one sequence that is being generated: a target session whose last known token was not run yet, its sampler and stream,
 * and what is drafted for it. A round is: draft for all lanes, run the known token and the drafts of each in one pass of the
 * target, accept. With no drafts this is ordinary decoding, so that one loop serves both; ruv_generate has one lane, the scheduler
 * many.
 *
 * Lossless: with p and q the distributions after the sampler (bias, penalties, cuts, constraint and temperature of that very
 * position), a draft x ~ q is taken with probability min(1, p(x) / q(x)); the first one refused is replaced by a draw from
 * max(p - q, 0), normalised; when all are taken one more token is drawn from p. Guesses from the text itself are q = 1. Where
 * drafting stops depends on q as a whole, never on the token drawn, and the number of drafts on the past alone: neither bends the
 * distribution.
 *
 * Threads: one at a time. Layer: infer. */
#ifndef RUV_INFER_SPECULATIVE_H
#define RUV_INFER_SPECULATIVE_H

#include "infer/batch.h"
#include "infer/stream.h"

typedef struct ruv_speculator ruv_speculator;

/* FORCED: the constraint allows nothing else. */
typedef enum ruv_draft_source { RUV_DRAFT_NONE, RUV_DRAFT_FORCED, RUV_DRAFT_LOOKUP, RUV_DRAFT_MODEL } ruv_draft_source;

typedef struct ruv_lane {
	ruv_session *session; /* target; session->n == n_known - 1 when a round begins */
	int n_known;          /* tokens of session->tokens that are fixed */
	ruv_stream *stream;
	ruv_sampler *sampler;
	/* of the round */
	int n_drafts; /* they stand behind the known tokens in session->tokens */
	ruv_draft_source source;
	float sure[RUV_MAX_LOOKAHEAD]; /* how sure the draft model was of each */
	double chance;                 /* that all of them are taken */
	/* kept by the speculator */
	ruv_session *draft;         /* the draft model's; NULL: none yet */
	int n_common;               /* tokens of draft that are known tokens of session */
	ruv_sampler *draft_sampler; /* NULL: none yet */
	ruv_candidate *q[RUV_MAX_LOOKAHEAD];
	int n_q[RUV_MAX_LOOKAHEAD], cap_q[RUV_MAX_LOOKAHEAD]; /* 0: certain */
	uint64_t *allowed;                                    /* [RUV_MAX_LOOKAHEAD + 1, words] of a constraint; NULL without */
	int limit_of[RUV_MAX_LOOKAHEAD + 1];                  /* what fill said of each place, */
	int n_limited;                                        /* of the first n_limited places of this round */
	float *states; /* backend [RUV_MAX_LOOKAHEAD, state of the draft] behind each of its passes; NULL without convolutions */
	int n_draft_passes; /* of this round */
	int n_base;         /* tokens of draft behind its first pass of this round */
} ruv_lane;

/* n_lanes that draft at once, contexts of n_ctx. Checks the vocabularies; errors as ruv_session_set_speculation. */
int ruv_speculator_open(ruv_speculator **out, ruv_model *target, const ruv_speculation *how, int n_ctx, int n_lanes,
                        ruv_error *err);
void ruv_speculator_free(ruv_speculator *speculator);
/* NULL speculator: zeros. */
void ruv_speculator_stats(const ruv_speculator *speculator, ruv_speculation_stats *stats);

/* A lane begins (fields before "of the round" are set) or ends; speculator NULL: a lane that never drafts. */
void ruv_lane_release(ruv_lane *lane);

/* Begins a round: tokens that the constraint of a lane forces are its drafts, at most n_rows of all lanes together. They need no
 * guessing, and many of them one pass instead of one each. */
int ruv_lanes_force(ruv_lane **lanes, int n_lanes, int n_rows, ruv_error *err);
/* Drafts for the lanes without forced tokens, whose n_drafts and tokens are set; most tokens of a lane are bounded by its context
 * and max_tokens. */
int ruv_speculator_draft(ruv_speculator *speculator, ruv_lane **lanes, int n_lanes, ruv_error *err);
/* The target ran; logits [n_drafts + 1, n_vocab] are those behind the known token and each draft. Pushes what was taken into the
 * stream, moves n_known on, and says in *n_keep how many rows of the pass the session keeps. speculator NULL is fine without
 * drafts, or with forced ones. */
int ruv_speculator_accept(ruv_speculator *speculator, ruv_lane *lane, const float *logits, int *n_keep, ruv_error *err);
/* How long the target's pass over the lanes took, for the choice of the lookahead. Not when the pass had other rows. */
void ruv_speculator_measured(ruv_speculator *speculator, ruv_lane *const *lanes, int n_lanes, double ms);

#endif

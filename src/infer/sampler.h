/* sampler.h - from logits to the next token: allowed tokens, bias, penalties, cuts, temperature, draw.
 *
 * The cuts (top-k, typical-p, top-p, min-p) see the distribution at temperature 1, as llama.cpp's do; temperature shapes what is
 * left. Each renormalises over what the one before it kept. Ties are broken by the lower id, so that the same seed gives the same
 * text on every machine whose logits agree. All memory is allocated at open. Threads: one at a time. Layer: infer. */
#ifndef RUV_INFER_SAMPLER_H
#define RUV_INFER_SAMPLER_H

#include "base/rng.h"
#include "ruvllm/session.h"

typedef struct ruv_candidate {
	ruv_token token;
	float logit; /* after bias and penalties */
	float p;     /* the probability it is drawn with */
} ruv_candidate;

typedef struct ruv_sampler ruv_sampler;
/* What a sampler works in, some 20 bytes a token of the vocabulary. Samplers of one thread may share it. */
typedef struct ruv_sampler_scratch ruv_sampler_scratch;

/* may_sample [n_vocab] says which ids exist; copied. */
int ruv_sampler_scratch_open(ruv_sampler_scratch **out, const bool *may_sample, int n_vocab, ruv_error *err);
void ruv_sampler_scratch_free(ruv_sampler_scratch *scratch);

/* may_sample [n_vocab] says which ids exist. RUV_EINVAL names the parameter that is out of range. The bias list is copied. */
int ruv_sampler_open(ruv_sampler **out, const ruv_sampling *sampling, const bool *may_sample, int n_vocab, ruv_error *err);
/* The same in a scratch that outlives the sampler; candidates are then valid until any sampler of the scratch is called. */
int ruv_sampler_open_in(ruv_sampler **out, const ruv_sampling *sampling, ruv_sampler_scratch *scratch, ruv_error *err);
void ruv_sampler_free(ruv_sampler *sampler);
/* The seed in use (chosen at open when it was 0). */
uint64_t ruv_sampler_seed(const ruv_sampler *sampler);
/* Does it always take the likeliest token (temperature 0 or top-k 1)? */
bool ruv_sampler_is_greedy(const ruv_sampler *sampler);
/* Its generator, from which every draw comes. */
ruv_rng *ruv_sampler_rng(ruv_sampler *sampler);
/* From now on only tokens whose bit is set in allowed [(n_vocab + 63) / 64] (kept by the caller); NULL: all. */
void ruv_sampler_allow(ruv_sampler *sampler, const uint64_t *allowed);

/* The distribution that follows `history` [n_history]: candidates whose p sum to 1, in no particular
 * order. The result is the sampler's, valid until its next call. RUV_EINTERNAL when logits are not finite, RUV_EINVAL when nothing
 * is left to choose from. */
int ruv_sampler_distribution(ruv_sampler *sampler, const float *logits, const ruv_token *history, int n_history,
                             const ruv_candidate **candidates, int *n, ruv_error *err);
/* For a draft: the best token alone when the sampler is greedy and nothing changes the logits (constraints are not looked at), and
 * how far it is before the second, 1 / (1 + e^(second - best)) in 0.5..1; false: it is not so, or no logit is finite. */
bool ruv_sampler_best(ruv_sampler *sampler, const float *logits, const ruv_candidate **candidate, float *sure);
/* Draws from candidates [n] by their p with one number of the generator (none when n is 1). */
ruv_token ruv_candidates_draw(const ruv_candidate *candidates, int n, ruv_rng *rng);
/* Both: the distribution and a draw from it. */
int ruv_sampler_choose(ruv_sampler *sampler, const float *logits, const ruv_token *history, int n_history, ruv_token *token,
                       ruv_error *err);

/* log-softmax of the raw logits: the normaliser log(sum(exp(logits))). */
double ruv_log_sum_exp(const float *logits, int n);
/* The n_top most likely of the raw logits, most likely first; top: [n_top], n_top <= n_vocab. */
void ruv_top_logprobs(const float *logits, int n_vocab, int n_top, ruv_token_logprob *top);

#endif

/* sampler.h - from logits to the next token: bias, penalties, cuts, temperature, draw.
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

/* may_sample [n_vocab] (outlives the sampler) says which ids exist. RUV_EINVAL names the parameter that is out of range. The bias
 * list is copied. */
int ruv_sampler_open(ruv_sampler **out, const ruv_sampling *sampling, const bool *may_sample, int n_vocab, ruv_error *err);
void ruv_sampler_free(ruv_sampler *sampler);
/* The seed in use (chosen at open when it was 0). */
uint64_t ruv_sampler_seed(const ruv_sampler *sampler);

/* The distribution that follows `history` [n_history]: candidates whose p sum to 1, in no particular
 * order. The result is the sampler's, valid until its next call. RUV_EINTERNAL when logits are not finite, RUV_EINVAL when the bias
 * bans every token. */
int ruv_sampler_distribution(ruv_sampler *sampler, const float *logits, const ruv_token *history, int n_history,
                             const ruv_candidate **candidates, int *n, ruv_error *err);
/* Draws from it. */
int ruv_sampler_choose(ruv_sampler *sampler, const float *logits, const ruv_token *history, int n_history, ruv_token *token,
                       ruv_error *err);

/* log-softmax of the raw logits: the normaliser log(sum(exp(logits))). */
double ruv_log_sum_exp(const float *logits, int n);
/* The n_top most likely of the raw logits, most likely first; top: [n_top], n_top <= n_vocab. */
void ruv_top_logprobs(const float *logits, int n_vocab, int n_top, ruv_token_logprob *top);

#endif

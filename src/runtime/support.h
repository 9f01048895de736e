/* support.h - does an answer follow from the sources, by their words and by how likely a model finds it?
 *
 * A small model asked to rate an answer from 1 to 5 guesses. Three things tell right from wrong much better: whether the sentence
 * that the answer stands in is the one that the question asks about (evidence.h), how likely the model finds the answer behind
 * that sentence, and how likely it would be there whatever was asked: what the question adds to it is what counts. Their weights
 * were fitted on the answers to development questions, half of them right answers to another question about the same passage
 * (docs/answering.md has the figures). Layer: runtime. */
#ifndef RUV_RUNTIME_SUPPORT_H
#define RUV_RUNTIME_SUPPORT_H

#include "runtime/evidence.h"
#include "ruvllm/session.h"

/* The sentence with the highest score that has the answer in it; -1: none has. */
int ruv_support_sentence(const ruv_evidence *evidence, const char *answer);
/* The probability that an answer is right. sentence: as above. asked, unasked: mean log-likelihood (natural) of the answer's tokens
 * and its end behind the sentence, with the question and without. */
double ruv_support_probability(const ruv_evidence *evidence, int sentence, double asked, double unasked);
/* The latter: the sentence alone, and a question that asks for nothing. The session loses what it holds. */
int ruv_support_unasked(double *mean, ruv_session *session, const char *sentence, const char *answer, const ruv_cancel *cancel,
                        ruv_error *err);
/* The probability for any answer to a question, all computed in `session`, which is left somewhere else. */
int ruv_support_rate(double *probability, ruv_session *session, const ruv_context_source *sources, int n_sources,
                     const char *question, const char *answer, const ruv_cancel *cancel, ruv_error *err);

#endif

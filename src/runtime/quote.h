/* quote.h - holding a model to its sources: an answer that begins with a citation quotes a sentence that the evidence points at.
 *
 * The model decides whether it can answer: it begins with "[" or with anything else ("I don't know."); what was calibrated for
 * the model shifts that decision. Once it begins with "[", the number, the sentence and "Answer:" are given, and the
 * model writes the short answer. Where sentences are about as likely by the evidence, the model chooses among them as it begins
 * them. Layer: runtime. */
#ifndef RUV_RUNTIME_QUOTE_H
#define RUV_RUNTIME_QUOTE_H

#include "runtime/calibration.h"
#include "runtime/evidence.h"
#include "ruvllm/model.h"
#include "ruvllm/session.h"

typedef struct ruv_quote ruv_quote;

/* The model outlives the quote; the evidence is needed only here. *out is NULL when there is no sentence to quote. */
int ruv_quote_open(ruv_quote **out, const ruv_model *model, const ruv_evidence *evidence, const ruv_calibrated *calibrated,
                   ruv_error *err);
void ruv_quote_free(ruv_quote *quote); /* NULL is fine */
/* For ruv_generate_params; valid while the quote is. NULL for NULL. */
const ruv_constraint *ruv_quote_constraint(const ruv_quote *quote);
/* What shifts the decision, for ruv_sampling: the one token that begins a citation. */
ruv_logit_bias ruv_quote_bias(const ruv_quote *quote);
/* How many of the first tokens were given rather than chosen, so far: 0 where the model began otherwise. The first of them was its
 * own choice. */
int ruv_quote_n_given(const ruv_quote *quote);

#endif

/* quote.h - letting a model answer from sources while its quotes are held to them: behind "[n] " only a sentence of source n,
 * letter by letter, can be written. Layer: runtime. */
#ifndef RUV_RUNTIME_QUOTE_H
#define RUV_RUNTIME_QUOTE_H

#include "runtime/context.h"
#include "ruvllm/session.h"

/* As ruv_generate with temperature 0 and no logprobs (params' sampling and stops are not used), for a prompt that ends with the
 * sources given. A text that begins otherwise ("I don't know.") is left as the model wants it, and so is what follows the quote. */
int ruv_quote_generate(ruv_session *session, const ruv_token *prompt, int n_prompt, const ruv_context_source *sources,
                       int n_sources, const ruv_generate_params *params, ruv_generation *out, ruv_error *err);

#endif

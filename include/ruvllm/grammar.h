/* grammar.h - output that follows a language: GBNF grammars and JSON schemas, compiled for one model's vocabulary into
 * constraints (session.h).
 *
 * A grammar is compiled once and kept with its model: asking again for the same text costs a look-up. It is a pushdown automaton
 * over bytes; which tokens may come next is computed once a state and remembered, so that a constrained token costs little more
 * than a free one.
 *
 * Usable from C11 and C++.
 * Threads: a grammar may be used by any number of constraints on any threads (they take turns); a constraint by one at a time. */
#ifndef RUVLLM_GRAMMAR_H
#define RUVLLM_GRAMMAR_H

#include "ruvllm/session.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ruv_grammar_kind {
	RUV_GRAMMAR_GBNF,        /* as llama.cpp's users write it; the rule "root" is where it begins */
	RUV_GRAMMAR_JSON_SCHEMA, /* a JSON schema (draft 2020-12 and 7; docs/structured-output.md lists what of it) */
	RUV_GRAMMAR_JSON_OBJECT  /* any JSON object; the text is not looked at */
} ruv_grammar_kind;

typedef struct ruv_grammar ruv_grammar;

/* Compiles text[0..n_bytes) for the model, or finds it compiled. *out is one hold, given up by ruv_grammar_free; it stays good
 * after the model is closed.
 *
 *   RUV_EFORMAT       malformed; the message has line and column (GBNF) or the place in the schema ("#/properties/age")
 *   RUV_EUNSUPPORTED  a keyword or notation that cannot be held to, named with its place
 *   RUV_ELIMIT        too large: 1 MiB of text, 200 nested levels, 1,000,000 states
 *   RUV_ENOMEM */
RUV_API int ruv_grammar_open(ruv_grammar **out, ruv_model *model, ruv_grammar_kind kind, const char *text, size_t n_bytes,
                             ruv_error *err);
RUV_API void ruv_grammar_free(ruv_grammar *grammar); /* NULL is fine */

/* Fills *constraint for one generation that begins at the grammar's start. Its `free` is the caller's to call (with its state).
 * The constraint holds the grammar. It can be rolled back and forked. */
RUV_API int ruv_grammar_constrain(ruv_grammar *grammar, ruv_constraint *constraint, ruv_error *err);

/* How far text[0..n_bytes) follows the grammar: *n_matched bytes (n_bytes: all of it), and whether it may end there. */
RUV_API int ruv_grammar_match(ruv_grammar *grammar, const char *text, size_t n_bytes, size_t *n_matched, bool *complete,
                              ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif

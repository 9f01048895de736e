/* lexical.h - the words of a question. Layer: memory. */
#ifndef RUV_MEMORY_LEXICAL_H
#define RUV_MEMORY_LEXICAL_H

#include "memory/store.h"

enum { RUV_LEXICAL_MAX_TERMS = 128 };

/* Cuts text into distinct words (runs of letters, digits and marks; other characters separate), without English stop words as long
 * as others remain. Any bytes will do. terms point into text. Returns how many, at most RUV_LEXICAL_MAX_TERMS: of a longer text the
 * first distinct ones. */
int ruv_lexical_terms(ruv_store_term terms[RUV_LEXICAL_MAX_TERMS], const char *text);

/* Is it one of the stop words, in any ASCII case? */
bool ruv_lexical_is_stop_word(const char *text, int n);

#endif

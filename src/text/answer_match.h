/* answer_match.h - how well a short answer matches the right ones, as the SQuAD evaluation counts it (Rajpurkar et al. 2016).
 *
 * Texts are compared after lower-casing, dropping ASCII punctuation and the words a, an, the, and splitting at white space. F1 is
 * the harmonic mean of precision and recall over the two bags of words; exact means equal after that. Threads: any. Layer: text. */
#ifndef RUV_TEXT_ANSWER_MATCH_H
#define RUV_TEXT_ANSWER_MATCH_H

#include "ruvllm/types.h"

typedef struct ruv_answer_score {
	double f1; /* 0..1 */
	bool exact;
} ruv_answer_score;

/* The normal form as a new string (free()); NULL when memory is out. */
char *ruv_answer_normalize(const char *text);

/* The best score of `given` against any of right[0..n_right). RUV_ENOMEM, RUV_EINVAL for n_right 0. */
int ruv_answer_match(ruv_answer_score *score, const char *given, const char *const *right, int n_right, ruv_error *err);

/* Does `text` contain `part`, both in normal form, at word borders? An empty part is never contained. -1 when memory is out. */
int ruv_answer_contains(const char *text, const char *part);

#endif

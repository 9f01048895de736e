/* eval_data.h - reading evaluation sets: JSON Lines, plain or packed by zstd (by the file's first bytes, not its name).
 *
 * A row is {"question", "context", "title", "answers": ["..."], "answerable": bool, "id", "evidence": [{"title", "text"}]}; only
 * "context" or "text" is needed for a file of distractors. "evidence" are the other passages that the answer needs. Unknown fields
 * are ignored. Layer: runtime. */
#ifndef RUV_RUNTIME_EVAL_DATA_H
#define RUV_RUNTIME_EVAL_DATA_H

#include "base/arena.h"
#include "base/rng.h"
#include "ruvllm/types.h"

typedef struct ruv_eval_row {
	const char *id;      /* "" when absent */
	const char *title;   /* "" when absent */
	const char *context; /* the passage */
	const char *question;
	const char *const *answers; /* [n_answers] right ones; none when unanswerable */
	int n_answers;
	bool answerable;
	int passage;         /* index of its passage in the set */
	const int *evidence; /* [n_evidence] of the other passages that the answer needs */
	int n_evidence;
} ruv_eval_row;

typedef struct ruv_eval_passage {
	const char *title, *text;
} ruv_eval_passage;

typedef struct ruv_eval_set {
	ruv_eval_row *rows; /* [n_rows] those with a question */
	int n_rows;
	ruv_eval_passage *passages; /* [n_passages] different contexts, in the order of their first row */
	int n_passages;
	ruv_arena arena; /* of the strings */
} ruv_eval_set;

/* Adds a file to a set (zeroed is empty). RUV_EFORMAT names file, line and what is wrong. On failure the set is still to be
 * released. */
int ruv_eval_set_read(ruv_eval_set *set, const char *path, ruv_error *err);
void ruv_eval_set_release(ruv_eval_set *set);

/* A seeded sample of n of the set's questions (0: all), in a seeded order, into *order (free()). Returns how many, or a negative
 * status. */
int ruv_eval_set_sample(int **order, const ruv_eval_set *set, int n, ruv_rng *rng, ruv_error *err);

/* A whole text file, unpacked when it is packed by zstd; NUL-terminated, free() it. At most 4 GiB. */
int ruv_eval_text_read(char **text, size_t *n_bytes, const char *path, ruv_error *err);

#endif

/* textclass.h - what language, domain and kind of request a text is: three linear models over hashed grams, 8 bits a weight.
 *
 * Softmax regression over bags of grams (Joulin et al. 2016 without the embedding), a text's vector having length 1. Trained by
 * `ruvllm router classify --train` on labelled texts; docs/router.md says on which.
 * Threads: any number of readers. Layer: learn. */
#ifndef RUV_LEARN_TEXTCLASS_H
#define RUV_LEARN_TEXTCLASS_H

#include "ruvllm/types.h"

typedef enum ruv_textclass_head {
	RUV_TEXTCLASS_LANGUAGE, /* [8] */
	RUV_TEXTCLASS_DOMAIN,   /* [16] */
	RUV_TEXTCLASS_TYPE,     /* [6] */
	RUV_N_TEXTCLASS_HEADS
} ruv_textclass_head;

enum { RUV_TEXTCLASS_MAX_CLASSES = 16 };

typedef struct ruv_textclass ruv_textclass;

const char *ruv_textclass_head_name(int head); /* "language", "domain", "type" */
int ruv_textclass_n_classes(int head);
/* "en", "medicine", "factual", ...; NULL out of range. */
const char *ruv_textclass_name(int head, int i);
/* -1 when there is none. */
int ruv_textclass_parse(int head, const char *name);

/* One training text; a label is -1 where it is not known. */
typedef struct ruv_textclass_example {
	const char *text;
	int labels[RUV_N_TEXTCLASS_HEADS];
} ruv_textclass_example;

/* Trains on examples[0..n); `held_out_every` > 0: every so manyth (by its hash) is left out and measured instead.
 * accuracy [RUV_N_TEXTCLASS_HEADS] on those, n_held_out likewise; both may be NULL. */
int ruv_textclass_train(ruv_textclass **out, const ruv_textclass_example *examples, int n, int held_out_every, uint64_t seed,
                        double *accuracy, int *n_held_out, ruv_error *err);
void ruv_textclass_free(ruv_textclass *classes);

/* Probabilities of one head's classes. An empty text gives the classes' shares in training. */
void ruv_textclass_apply(const ruv_textclass *classes, int head, const char *text, size_t n_bytes, float *probabilities);

/* As one section of a file. */
int ruv_textclass_pack(const ruv_textclass *classes, char **bytes, size_t *n_bytes, ruv_error *err);
int ruv_textclass_unpack(ruv_textclass **out, const void *bytes, size_t n_bytes, ruv_error *err);

#endif

/* grams.h - a text as hashes of its words, word pairs, word beginnings and runs of bytes: what the linear text models look at.
 *
 * Words are runs of letters, digits and bytes of other scripts; ASCII letters are lower-cased and every digit is '0'. Threads: any.
 * Layer: learn. */
#ifndef RUV_LEARN_GRAMS_H
#define RUV_LEARN_GRAMS_H

#include "ruvllm/types.h"

enum {
	RUV_GRAM_WORD = 1,
	RUV_GRAM_PAIR = 2,   /* two words in a row */
	RUV_GRAM_PREFIX = 4, /* the first five bytes of longer words */
	RUV_GRAM_BYTES = 8,  /* runs of 2 to 4 bytes of a word with its borders */
	RUV_GRAM_FIRST = 16, /* the first three words, marked as such */
	RUV_GRAM_SHAPE = 32  /* code-like signs: brackets, paths, camelCase, digits, '?', line breaks */
};

/* Hashes into hashes[0..cap), in the order of the text; more are left out. Returns how many. */
int ruv_grams(uint32_t *hashes, int cap, const char *text, size_t n_bytes, unsigned kinds);

/* The next word of text[*at..n_bytes): its begin, *length bytes, *at behind it. NULL at the end. */
const char *ruv_grams_next_word(const char *text, size_t n_bytes, size_t *at, size_t *length);

#endif

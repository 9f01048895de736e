/* minhash.h - how alike two texts are, from 128 numbers each. Layer: memory. */
#ifndef RUV_MEMORY_MINHASH_H
#define RUV_MEMORY_MINHASH_H

#include <stddef.h>
#include <stdint.h>

enum { RUV_MINHASH_SIZE = 128, RUV_MINHASH_SHINGLE = 5 };

typedef struct ruv_minhash {
	uint32_t least[RUV_MINHASH_SIZE]; /* all ones for a text without a shingle */
} ruv_minhash;

/* Of the runs of 5 bytes of text[0..n), letters in ASCII lower case, runs of anything that is no letter or digit as one space. A
 * shorter text is one shingle. Broder 1997. */
void ruv_minhash_text(ruv_minhash *out, const char *text, size_t n);
/* The share of equal numbers: estimates |A and B| / |A or B| of the shingles, standard deviation at most 0.045. */
float ruv_minhash_similarity(const ruv_minhash *a, const ruv_minhash *b);

#endif

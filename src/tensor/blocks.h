/* blocks.h - the bytes of every quantized block, as GGUF stores them (little-endian, no padding).
 *
 * x below is the value that a block means, q the stored code. 32-element blocks carry one f16 scale d (and a minimum m); the "K"
 * super-blocks of 256 carry eight 6-bit (or sixteen 8-bit) scales that are themselves multiplied by f16 super-scales.
 *
 *   Q4_0  x = d (q - 8)        code j < 16 is the low nibble of qs[j], code 16 + j its high nibble
 *   Q4_1  x = d q + m          the same order
 *   Q5_0  x = d (q - 16)       nibbles as above, bit j of qh is the fifth bit of code j
 *   Q5_1  x = d q + m
 *   Q8_0  x = d q
 *   Q4_K  x = d sc q - dmin mn 32-byte chunk c of qs holds sub-block 2c (low nibbles) and 2c + 1 (high)
 *   Q5_K  the same, and bit s of qh[l] is the fifth bit of code l of sub-block s
 *   Q6_K  x = d sc (q - 32)    per half of 128 codes, l < 32: code l, l + 32, l + 64, l + 96 take the low nibbles of ql[l], ql[l +
 * 32], then their high nibbles, and bits 0-1, 2-3, 4-5, 6-7 of qh[l]; scale index is code / 16
 *
 * Layer: tensor. */
#ifndef RUV_TENSOR_BLOCKS_H
#define RUV_TENSOR_BLOCKS_H

#include <stdint.h>

enum { RUV_QK = 32, RUV_QK_K = 256 };

typedef struct ruv_block_q4_0 {
	uint16_t d;
	uint8_t qs[16];
} ruv_block_q4_0;

typedef struct ruv_block_q4_1 {
	uint16_t d, m;
	uint8_t qs[16];
} ruv_block_q4_1;

typedef struct ruv_block_q5_0 {
	uint16_t d;
	uint8_t qh[4], qs[16];
} ruv_block_q5_0;

typedef struct ruv_block_q5_1 {
	uint16_t d, m;
	uint8_t qh[4], qs[16];
} ruv_block_q5_1;

typedef struct ruv_block_q8_0 {
	uint16_t d;
	int8_t qs[32];
} ruv_block_q8_0;

typedef struct ruv_block_q4_k {
	uint16_t d, dmin;
	uint8_t scales[12], qs[128];
} ruv_block_q4_k;

typedef struct ruv_block_q5_k {
	uint16_t d, dmin;
	uint8_t scales[12], qh[32], qs[128];
} ruv_block_q5_k;

typedef struct ruv_block_q6_k {
	uint8_t ql[128], qh[64];
	int8_t scales[16];
	uint16_t d;
} ruv_block_q6_k;

_Static_assert(sizeof(ruv_block_q4_0) == 18, "Q4_0");
_Static_assert(sizeof(ruv_block_q4_1) == 20, "Q4_1");
_Static_assert(sizeof(ruv_block_q5_0) == 22, "Q5_0");
_Static_assert(sizeof(ruv_block_q5_1) == 24, "Q5_1");
_Static_assert(sizeof(ruv_block_q8_0) == 34, "Q8_0");
_Static_assert(sizeof(ruv_block_q4_k) == 144, "Q4_K");
_Static_assert(sizeof(ruv_block_q5_k) == 176, "Q5_K");
_Static_assert(sizeof(ruv_block_q6_k) == 210, "Q6_K");

/* The 6-bit scale and minimum of sub-block s (0..7) out of the 12 packed bytes of Q4_K and Q5_K: bytes 0-3 hold scales 0-3 in their
 * low 6 bits and the top 2 bits of scales 4-7; bytes 4-7 the same for the minima; bytes 8-11 the low nibbles of scales 4-7 and,
 * above them, of minima 4-7. */
static inline void ruv_k_scale_min(const uint8_t packed[12], int s, int *scale, int *min)
{
	if (s < 4) {
		*scale = packed[s] & 63;
		*min = packed[s + 4] & 63;
	} else {
		*scale = (packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4;
		*min = packed[s + 4] >> 4 | (packed[s] >> 6) << 4;
	}
}

#endif

/* decode.h - quantized blocks taken apart into unsigned codes, scales and minima, eight blocks of 32 (one super-block) at a time.
 *
 * Plain loops that every ISA file compiles with its own flags: the compiler turns them into that ISA's vectors. Private to the
 * kernel files; half_to_float is theirs. A chunk is up to 256 elements: codes[256], scale[16 or 8], min[8]: w = scale[i / group] *
 * (code[i] - offset) - min[i / 32]. Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_DECODE_H
#define RUV_TENSOR_CPU_DECODE_H

#include <string.h>

#include "tensor/blocks.h"

enum { CHUNK = 256 };

/* What a type's chunks look like. */
struct form {
	int group, offset;
	bool has_min;
};

static inline struct form form_of(ruv_dtype dtype)
{
	switch ((int)dtype) {
	case RUV_Q4_0:
		return (struct form){32, 8, false};
	case RUV_Q5_0:
		return (struct form){32, 16, false};
	case RUV_Q8_0:
		return (struct form){32, Q8_OFFSET, false};
	case RUV_Q6_K:
		return (struct form){16, 32, false};
	default:
		return (struct form){32, 0, true};
	}
}

#define DECODE static inline __attribute__((always_inline)) void

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));

DECODE decode_nibbles(uint8_t *restrict c, const uint8_t *restrict qs)
{
	bytes16 q, lo, hi;
	memcpy(&q, qs, 16);
	lo = q & 15;
	hi = q >> 4;
	memcpy(c, &lo, 16);
	memcpy(c + 16, &hi, 16);
}

/* Each byte of qh is spread over eight bytes, of which byte j keeps bit j. */
DECODE decode_fifth_bits(uint8_t *restrict c, const uint8_t qh[4])
{
	uint64_t spread[4];
	bytes32 bits, codes;
	for (int i = 0; i < 4; i++)
		spread[i] = (qh[i] * 0x0101010101010101ull) & 0x8040201008040201ull;
	memcpy(&bits, spread, 32);
	memcpy(&codes, c, 32);
	codes |= (bytes32)(bits != 0) & 16;
	memcpy(c, &codes, 32);
}

DECODE decode_q4_0(uint8_t *c, float *scale, const ruv_block_q4_0 *b, int n_blocks)
{
	for (int i = 0; i < n_blocks; i++) {
		decode_nibbles(c + 32 * i, b[i].qs);
		scale[i] = half_to_float(b[i].d);
	}
}

DECODE decode_q4_1(uint8_t *c, float *scale, float *min, const ruv_block_q4_1 *b, int n_blocks)
{
	for (int i = 0; i < n_blocks; i++) {
		decode_nibbles(c + 32 * i, b[i].qs);
		scale[i] = half_to_float(b[i].d);
		min[i] = -half_to_float(b[i].m);
	}
}

DECODE decode_q5_0(uint8_t *c, float *scale, const ruv_block_q5_0 *b, int n_blocks)
{
	for (int i = 0; i < n_blocks; i++) {
		decode_nibbles(c + 32 * i, b[i].qs);
		decode_fifth_bits(c + 32 * i, b[i].qh);
		scale[i] = half_to_float(b[i].d);
	}
}

DECODE decode_q5_1(uint8_t *c, float *scale, float *min, const ruv_block_q5_1 *b, int n_blocks)
{
	for (int i = 0; i < n_blocks; i++) {
		decode_nibbles(c + 32 * i, b[i].qs);
		decode_fifth_bits(c + 32 * i, b[i].qh);
		scale[i] = half_to_float(b[i].d);
		min[i] = -half_to_float(b[i].m);
	}
}

/* Q8_OFFSET 128: signed codes become unsigned; 0: they stay as they are and the ISA multiplies signed bytes. */
DECODE decode_q8_0(uint8_t *restrict c, float *restrict scale, const ruv_block_q8_0 *restrict b, int n_blocks)
{
	for (int i = 0; i < n_blocks; i++) {
		bytes32 codes;
		memcpy(&codes, b[i].qs, 32);
		codes ^= Q8_OFFSET;
		memcpy(c + 32 * i, &codes, 32);
		scale[i] = half_to_float(b[i].d);
	}
}

#ifndef OWN_K_SCALES
/* block: Q4_K or Q5_K, which begin alike */
DECODE decode_k_scales(float *restrict scale, float *restrict min, const void *block)
{
	const ruv_block_q4_k *b = block;
	float d = half_to_float(b->d), dmin = half_to_float(b->dmin);
	/* Four scales a word: the low six bits of words 0 and 1, and the rest put together from word 2 and the top bits. */
	uint32_t w[3], sc[2], mn[2];
	memcpy(w, b->scales, 12);
	sc[0] = w[0] & 0x3f3f3f3f;
	mn[0] = w[1] & 0x3f3f3f3f;
	sc[1] = (w[2] & 0x0f0f0f0f) | (w[0] >> 2 & 0x30303030);
	mn[1] = (w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 2 & 0x30303030);
	for (int s = 0; s < 8; s++) {
		scale[s] = d * (float)(sc[s / 4] >> 8 * (s % 4) & 255);
		min[s] = dmin * (float)(mn[s / 4] >> 8 * (s % 4) & 255);
	}
}
#endif

DECODE decode_q4_k(uint8_t *restrict c, float *scale, float *min, const ruv_block_q4_k *restrict b)
{
	for (int k = 0; k < 4; k++)
		for (int l = 0; l < 32; l++) {
			c[64 * k + l] = b->qs[32 * k + l] & 15;
			c[64 * k + 32 + l] = b->qs[32 * k + l] >> 4;
		}
	decode_k_scales(scale, min, b);
}

DECODE decode_q5_k(uint8_t *restrict c, float *scale, float *min, const ruv_block_q5_k *restrict b)
{
	for (int k = 0; k < 4; k++)
		for (int l = 0; l < 32; l++) {
			c[64 * k + l] = (uint8_t)((b->qs[32 * k + l] & 15) | (b->qh[l] >> 2 * k & 1) << 4);
			c[64 * k + 32 + l] = (uint8_t)(b->qs[32 * k + l] >> 4 | (b->qh[l] >> (2 * k + 1) & 1) << 4);
		}
	decode_k_scales(scale, min, b);
}

DECODE decode_q6_k(uint8_t *restrict c, float *restrict scale, const ruv_block_q6_k *restrict b)
{
	float d = half_to_float(b->d);
	for (int h = 0; h < 2; h++)
		for (int l = 0; l < 32; l++) {
			const uint8_t *ql = b->ql + 64 * h;
			uint8_t qh = b->qh[32 * h + l], *out = c + 128 * h + l;
			out[0] = (uint8_t)((ql[l] & 15) | (qh & 3) << 4);
			out[32] = (uint8_t)((ql[l + 32] & 15) | (qh >> 2 & 3) << 4);
			out[64] = (uint8_t)(ql[l] >> 4 | (qh >> 4 & 3) << 4);
			out[96] = (uint8_t)(ql[l + 32] >> 4 | (qh >> 6 & 3) << 4);
		}
	for (int s = 0; s < 16; s++)
		scale[s] = d * (float)b->scales[s];
}

/* n elements (a multiple of the block, at most 256) from `blocks`. dtype is a constant where this is inlined. */
DECODE decode_chunk(ruv_dtype dtype, uint8_t *c, float *scale, float *min, const void *blocks, int n)
{
	switch ((int)dtype) {
	case RUV_Q4_0:
		decode_q4_0(c, scale, blocks, n / 32);
		break;
	case RUV_Q4_1:
		decode_q4_1(c, scale, min, blocks, n / 32);
		break;
	case RUV_Q5_0:
		decode_q5_0(c, scale, blocks, n / 32);
		break;
	case RUV_Q5_1:
		decode_q5_1(c, scale, min, blocks, n / 32);
		break;
	case RUV_Q8_0:
		decode_q8_0(c, scale, blocks, n / 32);
		break;
	case RUV_Q4_K:
		decode_q4_k(c, scale, min, blocks);
		break;
	case RUV_Q5_K:
		decode_q5_k(c, scale, min, blocks);
		break;
	case RUV_Q6_K:
		decode_q6_k(c, scale, blocks);
		break;
	}
}

#endif

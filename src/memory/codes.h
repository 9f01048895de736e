/* codes.h - vectors in 8, 4 or 1 bits a component, and inner products with them.
 *
 * Locally adaptive quantization (LVQ, Aguerrebere et al. 2023): a vector minus the centre of all, x - m, becomes bias + scale * c
 * with scale and bias of its own and c in 0..2^bits - 1. A query is q - m in signed bytes with one scale, or another vector's code.
 * What a kernel returns is a distance that sorts as the metric does, smaller is nearer: inner product:  -(q . x) Euclidean:  |q -
 * x|^2 / 2 up to quantization. Everything but (q - m) . (x - m) is a constant of the query or of the vector, which its header
 * keeps.
 *
 * With 1 bit, x - m is rotated first, always by the same orthogonal transform that mixes every component with every other; then c
 * is the sign, and scale and bias are such that the inner product with any query is right on average (RaBitQ, Gao & Long 2024): the
 * error of one estimate is about |q - m| |x - m| / sqrt(dimension), so many candidates have to be ranked again. A rotation spreads
 * outlying components over all; 4 and 8 bits of our encoder's vectors gain nothing from it (docs/vector-search.md) and go without.
 *
 * A coded vector: the codes, n_bytes of them, then a ruv_code_header.
 *   8 bits: byte i is component i.   4 bits: byte 64 b + j is component 128 b + j (low half) and 128 b + 64 + j (high half).
 *   1 bit: bit i % 8 of byte i / 8 is component i.
 * Components behind the dimension are 0, in queries too.
 * Threads: any. Layer: memory. */
#ifndef RUV_MEMORY_CODES_H
#define RUV_MEMORY_CODES_H

#include "ruvllm/types.h"

enum { RUV_CODE_MAX_DIMENSION = 16384 };

typedef struct ruv_code_format {
	int dimension, bits; /* 8, 4 or 1 */
	int n_bytes;         /* of a vector's codes: a multiple of 64, of 16 with 1 bit */
	int n_components;    /* the dimension rounded up: a multiple of 64, of 128 with 4 bits and 1 bit */
	bool euclidean;
	bool rotated; /* set by init: with 1 bit. Who sets it for other bits does so before anything is coded */
	float centre_norm2;
	float *centre; /* [dimension], the owner of the format owns it */
} ruv_code_format;

typedef struct ruv_code_header {
	float scale, bias;
	float offset; /* m . (x - m), or -|x - m|^2 / 2 */
	float sum;    /* of the components of bias + scale * c */
} ruv_code_header;

/* d(x) = -(scale * x.scale * (codes . x.c) + scale_sum * x.bias + bias * x.sum + x.offset + offset) */
typedef struct ruv_code_query {
	int8_t *codes; /* [n_components] aligned to 64; the caller's */
	float scale, bias, scale_sum, offset;
} ruv_code_query;

/* Fills everything but centre, which the caller then points at [dimension] floats and passes to ruv_code_set_centre. */
void ruv_code_format_init(ruv_code_format *format, int dimension, int bits, bool euclidean);
/* Copies; NULL: zero. */
void ruv_code_set_centre(ruv_code_format *format, const float *centre);

/* Writes n_bytes and the header. `to` aligned to 16. The dimension is at most RUV_CODE_MAX_DIMENSION. */
void ruv_code_encode(const ruv_code_format *format, unsigned char *to, const float *vector);
void ruv_code_query_of_vector(const ruv_code_format *format, ruv_code_query *query, const float *vector);
void ruv_code_query_of_code(const ruv_code_format *format, ruv_code_query *query, const unsigned char *code);

/* distances[i] of the coded vector at codes + ids[i] * stride, for i < n; reads ahead of itself. stride in bytes, `codes` and
 * stride multiples of 16. `query` is const all over. */
typedef void ruv_code_distances_fn(float *distances, const ruv_code_format *format, const ruv_code_query *query,
                                   const unsigned char *codes, size_t stride, const uint32_t *ids, int n);
/* The inner product, or the squared distance, of any two rows. */
typedef float ruv_rows_fn(const float *a, const float *b, int n);

typedef struct ruv_code_kernels {
	const char *name; /* "avx512-vnni", "avx2", "scalar" */
	ruv_code_distances_fn *distances8, *distances4, *distances1;
	ruv_rows_fn *dot, *squared;
} ruv_code_kernels;

/* The kernel for that many bits. */
static inline ruv_code_distances_fn *ruv_code_distances_for(const ruv_code_kernels *kernels, int bits)
{
	return bits == 8 ? kernels->distances8 : bits == 4 ? kernels->distances4 : kernels->distances1;
}

/* The fastest that this processor runs. */
const ruv_code_kernels *ruv_code_kernels_get(void);
/* All that it runs, fastest first; returns how many (at most cap). */
int ruv_code_kernels_all(const ruv_code_kernels **out, int cap);

#endif

/* avx512_vnni.c - the kernels for AVX-512 with VNNI: four byte products a lane and instruction, unsigned times signed.
 *
 * gemm and the rest are generic.h's. gemv is written by hand, because decode has to keep up with memory: four weight rows a pass
 * share the loads and permutations of the activations, 256 elements a step. The int32 sums of a vector belong to several groups; a
 * permutation of the group scales (weight's times activation's) gives every lane its own, and one multiply-add a vector finishes
 * it. Offsets of the unsigned codes and minima are one multiply-add a row and step against the activations' sums. */
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/x86_512.h"

enum { Q8_OFFSET = 128 };

#define OWN_QUANT_GEMV

X86_INLINE vi dot(vi acc, vi c, vi x)
{
	return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)c, (__m512i)x);
}

X86_INLINE vi dot_signed(vi acc, vi c, vi x) /* not used: codes are always unsigned here */
{
	(void)c;
	(void)x;
	return acc;
}

#include "tensor/cpu/generic.h"

typedef __m512i zi;
typedef __m512 zf;

/* What four rows share at one step of 256 elements. */
struct step {
	zi x[4]; /* codes, in the order in which the type's codes come */
	zf d, s; /* [16]: multiplied into the scales; see prepare */
};

/* Lane l takes scale index[l]. */
#define LANES8(a, b) _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b)
#define LANES4(a, b, c, d) _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)

X86_INLINE zf scaled(zf acc, zi sums, zf scales, zi index)
{
	return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(index, scales), acc);
}

X86_INLINE zi mul_codes(zi codes, zi x)
{
	return _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, x);
}

X86_INLINE zi nibbles_low(zi q)
{
	return _mm512_and_si512(q, _mm512_set1_epi8(15));
}

X86_INLINE zi nibbles_high(zi q)
{
	return _mm512_and_si512(_mm512_srli_epi16(q, 4), _mm512_set1_epi8(15));
}

/* (a & m) | b, bit by bit */
X86_INLINE zi and_or(zi a, zi m, zi b)
{
	return _mm512_ternarylogic_epi32(a, m, b, 0xea);
}

X86_INLINE zf join(__m256 low, __m256 high)
{
	return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/* Activations of elements i .. i + 255. d: the scale of each group of 32, s: minus its share of an offset or minimum. */
X86_INLINE struct step prepare(ruv_dtype dtype, const ruv_act_row *x, int64_t i)
{
	struct step step;
	zi v[4];
	__m256 d = _mm256_loadu_ps(x->d + i / 32), s = _mm256_loadu_ps(x->s + i / 32);

	for (int j = 0; j < 4; j++)
		v[j] = _mm512_loadu_si512(x->q + i + 64 * j);
	switch ((int)dtype) {
	case RUV_Q4_K:
	case RUV_Q5_K: /* low nibbles of 64 bytes are groups 4j and 4j + 2, high ones 4j + 1 and 4j + 3 */
		for (int j = 0; j < 4; j += 2) {
			step.x[j] = _mm512_shuffle_i64x2(v[j], v[j + 1], 0x44);
			step.x[j + 1] = _mm512_shuffle_i64x2(v[j], v[j + 1], 0xee);
		}
		step.d = join(d, _mm256_sub_ps(_mm256_setzero_ps(), s)); /* lanes 0-7 meet scales, 8-15 minima */
		step.s = _mm512_setzero_ps();
		break;
	case RUV_Q6_K: { /* natural order; scales of 16 */
		zi twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
		for (int j = 0; j < 4; j++)
			step.x[j] = v[j];
		step.d = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(d));
		step.s = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(x->sum + i / 16)),
		                       _mm512_mul_ps(step.d, _mm512_set1_ps(-32)));
		break;
	}
	case RUV_Q8_0:
		for (int j = 0; j < 4; j++)
			step.x[j] = v[j];
		step.d = join(d, d);
		step.s = join(_mm256_mul_ps(s, _mm256_set1_ps(-128)), _mm256_setzero_ps());
		break;
	default: { /* four blocks a vector: first halves, second halves */
		float offset = dtype == RUV_Q4_0 ? -8 : dtype == RUV_Q5_0 ? -16 : 1;
		for (int j = 0; j < 4; j += 2) {
			step.x[j] = _mm512_shuffle_i64x2(v[j], v[j + 1], 0x88);
			step.x[j + 1] = _mm512_shuffle_i64x2(v[j], v[j + 1], 0xdd);
		}
		step.d = join(d, d);
		step.s = join(_mm256_mul_ps(s, _mm256_set1_ps(offset)), _mm256_setzero_ps());
	}
	}
	return step;
}

/* Scales (lanes 0-7) and minima (8-15) of a Q4_K or Q5_K block, times the block's d and dmin. `head`: its first 16 bytes. */
X86_INLINE zf k_scales(__m128i head)
{
	zf super = _mm512_permutexvar_ps(LANES8(0, 1), _mm512_castps128_ps512(_mm_cvtph_ps(head)));
	return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(k_scale_bytes(head))), super);
}

X86_INLINE void step_q4_k(zf *acc, zf *rest, const ruv_block_q4_k *b, const struct step *step)
{
	zf scales = _mm512_mul_ps(k_scales(_mm_loadu_si128((const __m128i *)b)), step->d);
	zi q0 = _mm512_loadu_si512(b->qs), q1 = _mm512_loadu_si512(b->qs + 64);
	*acc = scaled(*acc, mul_codes(nibbles_low(q0), step->x[0]), scales, LANES8(0, 2));
	*acc = scaled(*acc, mul_codes(nibbles_high(q0), step->x[1]), scales, LANES8(1, 3));
	*acc = scaled(*acc, mul_codes(nibbles_low(q1), step->x[2]), scales, LANES8(4, 6));
	*acc = scaled(*acc, mul_codes(nibbles_high(q1), step->x[3]), scales, LANES8(5, 7));
	*rest = _mm512_mask_add_ps(*rest, 0xff00, *rest, scales);
}

/* Bit `a` of every byte of the low half, bit `b` of the high half, moved to bit 4. */
X86_INLINE zi fifth_bits(zi qh, int a, int b)
{
	zi turn = _mm512_setr_epi64(a - 4, a - 4, a - 4, a - 4, b - 4, b - 4, b - 4, b - 4);
	return _mm512_and_si512(_mm512_rorv_epi64(qh, turn), _mm512_set1_epi8(16));
}

X86_INLINE void step_q5_k(zf *acc, zf *rest, const ruv_block_q5_k *b, const struct step *step)
{
	zf scales = _mm512_mul_ps(k_scales(_mm_loadu_si128((const __m128i *)b)), step->d);
	zi q0 = _mm512_loadu_si512(b->qs), q1 = _mm512_loadu_si512(b->qs + 64), four = _mm512_set1_epi8(15);
	zi qh = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)b->qh));
	zi h0 = _mm512_srli_epi16(q0, 4), h1 = _mm512_srli_epi16(q1, 4);
	*acc = scaled(*acc, mul_codes(and_or(q0, four, fifth_bits(qh, 0, 2)), step->x[0]), scales, LANES8(0, 2));
	*acc = scaled(*acc, mul_codes(and_or(h0, four, fifth_bits(qh, 1, 3)), step->x[1]), scales, LANES8(1, 3));
	*acc = scaled(*acc, mul_codes(and_or(q1, four, fifth_bits(qh, 4, 6)), step->x[2]), scales, LANES8(4, 6));
	*acc = scaled(*acc, mul_codes(and_or(h1, four, fifth_bits(qh, 5, 7)), step->x[3]), scales, LANES8(5, 7));
	*rest = _mm512_mask_add_ps(*rest, 0xff00, *rest, scales);
}

X86_INLINE void step_q6_k(zf *acc, zf *rest, const ruv_block_q6_k *b, const struct step *step)
{
	zi four = _mm512_set1_epi8(15), top = _mm512_set1_epi8(0x30);
	zi left = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), right = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
	zf plain = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)b->scales))),
	                         _mm512_set1_ps(_cvtsh_ss(b->d)));
	zf scales = _mm512_mul_ps(plain, step->d);
	for (int h = 0; h < 2; h++) {
		zi ql = _mm512_loadu_si512(b->ql + 64 * h);
		zi qh = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(b->qh + 32 * h)));
		zi lo = and_or(ql, four, _mm512_and_si512(_mm512_sllv_epi64(qh, left), top));
		zi hi = and_or(_mm512_srli_epi16(ql, 4), four, _mm512_and_si512(_mm512_srlv_epi64(qh, right), top));
		*acc = scaled(*acc, mul_codes(lo, step->x[2 * h]), scales, h ? LANES4(8, 9, 10, 11) : LANES4(0, 1, 2, 3));
		*acc = scaled(*acc, mul_codes(hi, step->x[2 * h + 1]), scales, h ? LANES4(12, 13, 14, 15) : LANES4(4, 5, 6, 7));
	}
	*rest = _mm512_fmadd_ps(plain, step->s, *rest);
}

/* n (4 or 8) f16 that lie `stride` bytes apart, as floats in the lowest lanes. */
X86_INLINE zf gather_scales(const uint8_t *p, size_t stride, int n)
{
	uint16_t h[8] = {0};
	for (int i = 0; i < n; i++)
		memcpy(h + i, p + (size_t)i * stride, 2);
	__m128i v =
	    _mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5], (short)h[6], (short)h[7]);
	return _mm512_castps256_ps512(_mm256_cvtph_ps(v));
}

/* The types of 32 take a whole step (8 blocks) or half of one: rows of 896 end in a half. */
X86_INLINE void step_q8_0(zf *acc, zf *rest, const ruv_block_q8_0 *b, const struct step *step, int n_blocks)
{
	zf plain = gather_scales((const uint8_t *)b, sizeof *b, n_blocks), scales = _mm512_mul_ps(plain, step->d);
	const zi flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 4
	for (int j = 0; j < n_blocks / 2; j++) {
		zi q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)b[2 * j].qs)),
		                          _mm256_loadu_si256((const __m256i *)b[2 * j + 1].qs), 1);
		zi index = j == 0 ? LANES8(0, 1) : j == 1 ? LANES8(2, 3) : j == 2 ? LANES8(4, 5) : LANES8(6, 7);
		*acc = scaled(*acc, mul_codes(_mm512_xor_si512(q, flip), step->x[j]), scales, index);
	}
	*rest = _mm512_mask3_fmadd_ps(plain, step->s, *rest, (__mmask16)((1 << n_blocks) - 1));
}

/* The 16-byte pieces of four blocks. */
X86_INLINE zi load_four(const uint8_t *p, size_t stride)
{
	zi v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
	v = _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
	v = _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(p + 2 * stride)), 2);
	return _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(p + 3 * stride)), 3);
}

/* Fifth bits of four blocks as masks over the first and second halves of their codes. */
X86_INLINE void fifth_masks(const uint8_t *p, size_t stride, __mmask64 *first, __mmask64 *second)
{
	uint32_t q[4];
	for (int i = 0; i < 4; i++)
		memcpy(q + i, p + (size_t)i * stride, 4);
	__m128i v = _mm_shuffle_epi8(_mm_setr_epi32((int)q[0], (int)q[1], (int)q[2], (int)q[3]),
	                             _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
	*first = (__mmask64)_mm_cvtsi128_si64(v);
	*second = (__mmask64)_mm_extract_epi64(v, 1);
}

/* Q4_0, Q4_1, Q5_0, Q5_1: blocks of `size` bytes whose nibbles start at `qs`, fifth bits at `qh` (0: none), minimum at `m` (0:
 * none). */
X86_INLINE void step_32(zf *acc, zf *rest, const uint8_t *b, const struct step *step, int n_blocks, size_t size, size_t qs,
                        size_t qh, size_t m)
{
	zf plain = gather_scales(b, size, n_blocks), scales = _mm512_mul_ps(plain, step->d);
#pragma GCC unroll 2
	for (int j = 0; j < n_blocks / 4; j++) {
		zi q = load_four(b + (size_t)(4 * j) * size + qs, size), lo = nibbles_low(q), hi = nibbles_high(q);
		if (qh) {
			__mmask64 first, second;
			fifth_masks(b + (size_t)(4 * j) * size + qh, size, &first, &second);
			lo = _mm512_mask_add_epi8(lo, first, lo, _mm512_set1_epi8(16));
			hi = _mm512_mask_add_epi8(hi, second, hi, _mm512_set1_epi8(16));
		}
		zi sums = _mm512_dpbusd_epi32(mul_codes(lo, step->x[2 * j]), hi, step->x[2 * j + 1]);
		*acc = scaled(*acc, sums, scales, j ? LANES4(4, 5, 6, 7) : LANES4(0, 1, 2, 3));
	}
	*rest = _mm512_mask3_fmadd_ps(m ? gather_scales(b + m, size, n_blocks) : plain, step->s, *rest,
	                              (__mmask16)((1 << n_blocks) - 1));
}

X86_INLINE void step_any(ruv_dtype dtype, zf *acc, zf *rest, const uint8_t *b, const struct step *step, int n)
{
	switch ((int)dtype) {
	case RUV_Q4_K:
		step_q4_k(acc, rest, (const ruv_block_q4_k *)b, step);
		break;
	case RUV_Q5_K:
		step_q5_k(acc, rest, (const ruv_block_q5_k *)b, step);
		break;
	case RUV_Q6_K:
		step_q6_k(acc, rest, (const ruv_block_q6_k *)b, step);
		break;
	case RUV_Q8_0:
		step_q8_0(acc, rest, (const ruv_block_q8_0 *)b, step, n);
		break;
	case RUV_Q4_0:
		step_32(acc, rest, b, step, n, sizeof(ruv_block_q4_0), offsetof(ruv_block_q4_0, qs), 0, 0);
		break;
	case RUV_Q4_1:
		step_32(acc, rest, b, step, n, sizeof(ruv_block_q4_1), offsetof(ruv_block_q4_1, qs), 0,
		        offsetof(ruv_block_q4_1, m));
		break;
	case RUV_Q5_0:
		step_32(acc, rest, b, step, n, sizeof(ruv_block_q5_0), offsetof(ruv_block_q5_0, qs), offsetof(ruv_block_q5_0, qh),
		        0);
		break;
	case RUV_Q5_1:
		step_32(acc, rest, b, step, n, sizeof(ruv_block_q5_1), offsetof(ruv_block_q5_1, qs), offsetof(ruv_block_q5_1, qh),
		        offsetof(ruv_block_q5_1, m));
		break;
	}
}

X86_INLINE void gemv_vnni(ruv_dtype dtype, float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)
{
	const size_t chunk_bytes = (size_t)(CHUNK / ruv_dtype_block_elements(dtype) * ruv_dtype_block_bytes(dtype));

	size_t distance = prefetch_distance(row_bytes);

	for (int r = 0; r < n_rows; r += ROW_BATCH) {
		const uint8_t *row[ROW_BATCH], *batch = (const uint8_t *)w + (size_t)r * row_bytes + distance;
		zf acc[ROW_BATCH], rest[ROW_BATCH];
		int64_t i = 0;
		size_t at = 0;
		for (int j = 0; j < ROW_BATCH; j++) { /* rows past the end repeat the last one */
			row[j] = (const uint8_t *)w + (size_t)(r + j < n_rows ? r + j : n_rows - 1) * row_bytes;
			acc[j] = rest[j] = _mm512_setzero_ps();
		}
		for (; i + CHUNK <= k; i += CHUNK, at += chunk_bytes) {
			struct step step = prepare(dtype, x, i);
#pragma GCC unroll 4
			for (int j = 0; j < ROW_BATCH; j++) {
				prefetch(row_bytes > LONG_ROW ? row[j] + at + distance
				                              : batch + ROW_BATCH * at + (size_t)j * chunk_bytes,
				         chunk_bytes);
				step_any(dtype, &acc[j], &rest[j], row[j] + at, &step, 8);
			}
		}
		if (ruv_dtype_block_elements(dtype) == 32 && i + CHUNK / 2 <= k) {
			/* Reads activations past the row's end, inside their memory, and uses none of them. */
			struct step step = prepare(dtype, x, i);
			for (int j = 0; j < ROW_BATCH; j++)
				step_any(dtype, &acc[j], &rest[j], row[j] + at, &step, 4);
			i += CHUNK / 2;
			at += chunk_bytes / 2;
		}
		for (int j = 0; j < ROW_BATCH && r + j < n_rows; j++) {
			y[r + j] = _mm512_reduce_add_ps(_mm512_add_ps(acc[j], rest[j]));
			if (i < k)
				y[r + j] += dot_chunk(dtype, row[j] + at, x, i, (int)(k - i));
		}
	}
}

#define X(id)                                                                                                                      \
	static void gemv_##id(float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)              \
	{                                                                                                                          \
		gemv_vnni(id, y, w, row_bytes, n_rows, x, k);                                                                      \
	}
QUANT_TYPES(X)
#undef X

const ruv_kernels ruv_kernels_avx512_vnni = {.name = "avx512-vnni", GENERIC_KERNELS};

/* x86_256.h - what generic.h needs of 256-bit x86, shared by the AVX2 file and by the AVX-512 ones for groups of 32 codes.
 * Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_X86_256_H
#define RUV_TENSOR_CPU_X86_256_H

#include <immintrin.h>
#include <stdint.h>

#define X86_INLINE static inline __attribute__((always_inline))

typedef __m256 gf;

X86_INLINE float half_to_float(uint16_t h)
{
	return _cvtsh_ss(h);
}

/* Four products a lane. Without VNNI, c is unsigned and below 128, so that no pair saturates: 2 * 127 * 127 < 2^15. */
X86_INLINE __m256i dot_256(__m256i c, __m256i x)
{
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
	return _mm256_dpbusd_epi32(_mm256_setzero_si256(), c, x);
#endif
	return _mm256_madd_epi16(_mm256_maddubs_epi16(c, x), _mm256_set1_epi16(1));
}

/* Signed c: its magnitude times x with c's sign. |c| = 128 is safe because |x| <= 127. */
X86_INLINE __m256i dot_signed_256(__m256i c, __m256i x)
{
	return dot_256(_mm256_abs_epi8(c), _mm256_sign_epi8(x, c));
}

/* 32 codes: the lanes of the first 16 get s0, the others s1. */
X86_INLINE gf group_dot(gf acc, const uint8_t *c, const int8_t *x, float s0, float s1, _Bool is_signed)
{
	__m256i cv = _mm256_loadu_si256((const __m256i *)c), xv = _mm256_loadu_si256((const __m256i *)x);
	__m256i p = is_signed ? dot_signed_256(cv, xv) : dot_256(cv, xv);
	__m256 s = _mm256_set_m128(_mm_set1_ps(s1), _mm_set1_ps(s0));
	return _mm256_fmadd_ps(_mm256_cvtepi32_ps(p), s, acc);
}

/* The packed 6-bit scales of Q4_K and Q5_K as bytes: eight scales, eight minima. `head`: the first 16 bytes of a block. */
X86_INLINE __m128i k_scale_bytes(__m128i head)
{
	const __m128i six = _mm_set1_epi8(63), four = _mm_set1_epi8(15), top = _mm_set1_epi8(0x30);
	__m128i first = _mm_shuffle_epi32(head, 0x09); /* words 1, 2: bytes 0-7 of the packed scales */
	__m128i last = _mm_srlv_epi32(_mm_shuffle_epi32(head, 0x0f), _mm_setr_epi32(0, 4, 0, 0));
	__m128i high = _mm_or_si128(_mm_and_si128(last, four), _mm_and_si128(_mm_srli_epi32(first, 2), top));
	return _mm_unpacklo_epi32(_mm_and_si128(first, six), high);
}

#define OWN_K_SCALES
X86_INLINE void decode_k_scales(float *scale, float *min, const void *block)
{
	__m128i head = _mm_loadu_si128((const __m128i *)block), bytes = k_scale_bytes(head);
	__m128 super = _mm_cvtph_ps(head);
	__m256 d = _mm256_broadcastss_ps(super), m = _mm256_broadcastss_ps(_mm_movehdup_ps(super));
	_mm256_storeu_ps(scale, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), d));
	_mm256_storeu_ps(min, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))), m));
}

/* 32 values to codes with one scale; sums[2] of 16 codes each. Returns the scale. */
#define OWN_QUANTIZE_GROUP
X86_INLINE float quantize_group(int8_t *q, int32_t *sums, const float *x)
{
	const __m256 sign = _mm256_set1_ps(-0.0f);
	__m256 v[4], top;
	for (int i = 0; i < 4; i++)
		v[i] = _mm256_loadu_ps(x + 8 * i);
	top = _mm256_max_ps(_mm256_max_ps(_mm256_andnot_ps(sign, v[0]), _mm256_andnot_ps(sign, v[1])),
	                    _mm256_max_ps(_mm256_andnot_ps(sign, v[2]), _mm256_andnot_ps(sign, v[3])));
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	float amax = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
	__m256 inverse = _mm256_set1_ps(amax > 1e-30f ? 127 / amax : 0);
	__m256i c[4];
	for (int i = 0; i < 4; i++)
		c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
	/* Packing works within halves of 128 bits: words come out as 0 4 8 12 | ... and are put in order. */
	__m256i b = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
	b = _mm256_permutevar8x32_epi32(b, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
	_mm256_storeu_si256((__m256i *)q, b);
	__m256i s = _mm256_sad_epu8(_mm256_xor_si256(b, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
	__m128i lo = _mm256_castsi256_si128(s), hi = _mm256_extracti128_si256(s, 1);
	sums[0] = _mm_cvtsi128_si32(lo) + _mm_extract_epi32(lo, 2) - 16 * 128;
	sums[1] = _mm_cvtsi128_si32(hi) + _mm_extract_epi32(hi, 2) - 16 * 128;
	return amax / 127;
}

X86_INLINE float gf_sum(gf v)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#endif

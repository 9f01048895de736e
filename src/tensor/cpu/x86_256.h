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

X86_INLINE float gf_sum(gf v)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#endif

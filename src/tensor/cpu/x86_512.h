/* x86_512.h - what generic.h needs of AVX-512 (F, BW, DQ, VL), all but the dot products, which differ with VNNI.
 * Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_X86_512_H
#define RUV_TENSOR_CPU_X86_512_H

#include "tensor/cpu/x86_256.h"

#define NT_MAX 6
enum { VW = 16, NT = NT_MAX, KEY_ROWS = 4, VALUE_VECTORS = 4 };

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));

X86_INLINE vf splat(float x)
{
	return (vf)_mm512_set1_ps(x);
}

X86_INLINE vi splat_int(int32_t x)
{
	return (vi)_mm512_set1_epi32(x);
}

X86_INLINE vf vf_max(vf a, vf b)
{
	return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

X86_INLINE vf vf_from_half(vh h)
{
	return (vf)_mm512_cvtph_ps((__m256i)h);
}

X86_INLINE vh vh_from_float(vf v)
{
	return (vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
}

X86_INLINE vi load_bytes(const uint8_t *p)
{
	return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

X86_INLINE vi load_signed_bytes(const int8_t *p)
{
	return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}

X86_INLINE float sum_lanes(vf v)
{
	return _mm512_reduce_add_ps((__m512)v);
}

/* to[i] = sum of v[i]'s lanes. */
X86_INLINE void sum_lanes_4(float *to, const vf v[4])
{
	__m512 t0 = _mm512_add_ps(_mm512_unpacklo_ps((__m512)v[0], (__m512)v[1]), _mm512_unpackhi_ps((__m512)v[0], (__m512)v[1]));
	__m512 t1 = _mm512_add_ps(_mm512_unpacklo_ps((__m512)v[2], (__m512)v[3]), _mm512_unpackhi_ps((__m512)v[2], (__m512)v[3]));
	__m512 u = _mm512_add_ps((__m512)_mm512_unpacklo_pd((__m512d)t0, (__m512d)t1),
	                         (__m512)_mm512_unpackhi_pd((__m512d)t0, (__m512d)t1));
	__m256 h = _mm256_add_ps(_mm512_castps512_ps256(u), _mm512_extractf32x8_ps(u, 1));
	_mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

X86_INLINE void transpose_words(uint32_t *to, size_t ld, const vi rows[16])
{
	__m512i r[16], t[16];
	for (int i = 0; i < 16; i++)
		r[i] = (__m512i)rows[i];
	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	/* r[4 a + c]: 128-bit lane b holds word 4 b + c of rows 4 a .. 4 a + 3. */
	for (int c = 0; c < 4; c++) {
		__m512i even0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), odd0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
		__m512i even1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88),
			odd1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
		_mm512_storeu_si512(to + (size_t)c * ld, _mm512_shuffle_i32x4(even0, even1, 0x88));
		_mm512_storeu_si512(to + (size_t)(4 + c) * ld, _mm512_shuffle_i32x4(odd0, odd1, 0x88));
		_mm512_storeu_si512(to + (size_t)(8 + c) * ld, _mm512_shuffle_i32x4(even0, even1, 0xdd));
		_mm512_storeu_si512(to + (size_t)(12 + c) * ld, _mm512_shuffle_i32x4(odd0, odd1, 0xdd));
	}
}

#endif

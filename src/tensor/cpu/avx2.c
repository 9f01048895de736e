/* avx2.c - the kernels for AVX2 with FMA and F16C. */
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/x86_256.h"

#define NT_MAX 2
enum { VW = 8, NT = NT_MAX, Q8_OFFSET = 0, KEY_ROWS = 2, VALUE_VECTORS = 2 };

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint16_t vh __attribute__((vector_size(16)));

X86_INLINE vf splat(float x)
{
	return (vf)_mm256_set1_ps(x);
}

X86_INLINE vi splat_int(int32_t x)
{
	return (vi)_mm256_set1_epi32(x);
}

X86_INLINE vf vf_max(vf a, vf b)
{
	return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

X86_INLINE vf vf_from_half(vh h)
{
	return (vf)_mm256_cvtph_ps((__m128i)h);
}

X86_INLINE vh vh_from_float(vf v)
{
	return (vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}

X86_INLINE vi dot(vi acc, vi c, vi x)
{
	return acc + (vi)dot_256((__m256i)c, (__m256i)x);
}

X86_INLINE vi dot_signed(vi acc, vi c, vi x)
{
	return acc + (vi)dot_signed_256((__m256i)c, (__m256i)x);
}

X86_INLINE vi load_bytes(const uint8_t *p)
{
	return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

X86_INLINE vi load_signed_bytes(const int8_t *p)
{
	return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

X86_INLINE float sum_lanes(vf v)
{
	return gf_sum((gf)v);
}

X86_INLINE void sum_lanes_4(float *to, const vf v[4])
{
	__m256 u = _mm256_hadd_ps(_mm256_hadd_ps((__m256)v[0], (__m256)v[1]), _mm256_hadd_ps((__m256)v[2], (__m256)v[3]));
	_mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1)));
}

X86_INLINE void transpose_words(uint32_t *to, size_t ld, const vi rows[8])
{
	__m256 r[8], t[8];
	for (int i = 0; i < 8; i++)
		r[i] = (__m256)rows[i];
	for (int i = 0; i < 8; i += 2) {
		t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
		t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
	}
	for (int i = 0; i < 8; i += 4) {
		r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
		r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
		r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
		r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
	}
	for (int i = 0; i < 4; i++) {
		_mm256_storeu_ps((float *)(to + (size_t)i * ld), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
		_mm256_storeu_ps((float *)(to + (size_t)(i + 4) * ld), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
	}
}

#include "tensor/cpu/generic.h"

const ruv_kernels ruv_kernels_avx2 = {.name = "avx2", GENERIC_KERNELS};

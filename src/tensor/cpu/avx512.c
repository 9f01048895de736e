/* avx512.c - the kernels for AVX-512 without VNNI (Skylake-X): byte products in pairs through 16 bits. */
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/x86_512.h"

enum { Q8_OFFSET = 0 };

X86_INLINE vi dot(vi acc, vi c, vi x)
{
	return acc + (vi)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)c, (__m512i)x), _mm512_set1_epi16(1));
}

X86_INLINE vi dot_signed(vi acc, vi c, vi x)
{
	__mmask64 negative = _mm512_movepi8_mask((__m512i)c);
	__m512i flipped = _mm512_mask_sub_epi8((__m512i)x, negative, _mm512_setzero_si512(), (__m512i)x);
	return dot(acc, (vi)_mm512_abs_epi8((__m512i)c), (vi)flipped);
}

#include "tensor/cpu/generic.h"

const ruv_kernels ruv_kernels_avx512 = {.name = "avx512", GENERIC_KERNELS};

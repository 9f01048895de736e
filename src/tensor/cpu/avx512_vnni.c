/* avx512_vnni.c - the kernels for AVX-512 with VNNI: four byte products a lane and instruction, unsigned times signed. */
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/x86_512.h"

enum { Q8_OFFSET = 128 };

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

const ruv_kernels ruv_kernels_avx512_vnni = {.name = "avx512-vnni", GENERIC_KERNELS};

/* dot.c - inner products of F32 vectors for AVX-512, AVX2 and whatever the compiler's baseline is.
 *
 * One body in the compiler's vector types, compiled three times with the function attribute `target`; chosen once by ruv_cpu_get().
 * Four independent sums of 16 hide the adder's latency. Layer: memory. */
#include "memory/dot.h"

#include "base/cpu.h"

typedef float v16 __attribute__((vector_size(64), aligned(64)));

#define DOT_BODY                                                                                                                   \
	v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                                                \
	float sum = 0;                                                                                                             \
	int i = 0;                                                                                                                 \
	for (; i + 64 <= n; i += 64) {                                                                                             \
		s0 += *(const v16 *)(a + i) * *(const v16 *)(b + i);                                                               \
		s1 += *(const v16 *)(a + i + 16) * *(const v16 *)(b + i + 16);                                                     \
		s2 += *(const v16 *)(a + i + 32) * *(const v16 *)(b + i + 32);                                                     \
		s3 += *(const v16 *)(a + i + 48) * *(const v16 *)(b + i + 48);                                                     \
	}                                                                                                                          \
	for (; i < n; i += 16)                                                                                                     \
		s0 += *(const v16 *)(a + i) * *(const v16 *)(b + i);                                                               \
	s0 = (s0 + s1) + (s2 + s3);                                                                                                \
	for (int j = 0; j < 16; j++)                                                                                               \
		sum += s0[j];                                                                                                      \
	return sum;

/* No fused multiply-add under -ffp-contract=off; memory bandwidth, not the adder, is the limit. */
static float dot_base(const float *a, const float *b, int n)
{
	DOT_BODY
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static float dot_avx2(const float *a, const float *b, int n)
{
	DOT_BODY
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static float dot_avx512(const float *a, const float *b, int n){DOT_BODY}
#endif

ruv_dot_f32_fn *ruv_dot_f32_kernel(void)
{
#if defined(__x86_64__)
	const ruv_cpu *cpu = ruv_cpu_get();
	if (cpu->avx512)
		return dot_avx512;
	if (cpu->avx2)
		return dot_avx2;
#endif
	return dot_base;
}

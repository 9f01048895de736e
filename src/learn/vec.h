/* vec.h - inner products of short F32 vectors of any alignment, in the compiler's own vectors of four: the learning layer's vectors
 * are too short for a call through the kernel tables to pay. Threads: any. Layer: learn. */
#ifndef RUV_LEARN_VEC_H
#define RUV_LEARN_VEC_H

typedef float ruv_v4 __attribute__((vector_size(16), aligned(4), may_alias));

/* Sum of a[i] * b[i] in sixteen partial sums. */
static inline float ruv_vec_dot(const float *a, const float *b, int n)
{
	ruv_v4 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
	float sum;
	int i = 0;

	for (; i + 16 <= n; i += 16) {
		s0 += *(const ruv_v4 *)(a + i) * *(const ruv_v4 *)(b + i);
		s1 += *(const ruv_v4 *)(a + i + 4) * *(const ruv_v4 *)(b + i + 4);
		s2 += *(const ruv_v4 *)(a + i + 8) * *(const ruv_v4 *)(b + i + 8);
		s3 += *(const ruv_v4 *)(a + i + 12) * *(const ruv_v4 *)(b + i + 12);
	}
	s0 = (s0 + s1) + (s2 + s3);
	sum = (s0[0] + s0[1]) + (s0[2] + s0[3]);
	for (; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* y[i] += scale * x[i] */
static inline void ruv_vec_add(float *y, float scale, const float *x, int n)
{
	int i = 0;

	for (; i + 4 <= n; i += 4)
		*(ruv_v4 *)(y + i) += scale * *(const ruv_v4 *)(x + i);
	for (; i < n; i++)
		y[i] += scale * x[i];
}

#endif

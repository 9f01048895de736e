/* dot.h - the inner product that exact search spends its time in. Layer: memory. */
#ifndef RUV_MEMORY_DOT_H
#define RUV_MEMORY_DOT_H

/* Sum of a[i] * b[i]; n a multiple of 16, both aligned to 64 bytes. In 64 partial sums: the error is within
 * (n / 64 + 7) * 2^-24 * |a||b|, on every instruction set. */
typedef float ruv_dot_f32_fn(const float *a, const float *b, int n);

/* The fastest that this processor runs. */
ruv_dot_f32_fn *ruv_dot_f32_kernel(void);

#endif

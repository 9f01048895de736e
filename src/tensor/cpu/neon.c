/* neon.c - the kernels for AArch64 with the dot product extension (ARMv8.2). All codes are signed bytes here. */
#include <arm_neon.h>

#include "tensor/cpu/kernels.h"

#define ARM_INLINE static inline __attribute__((always_inline))

#define NT_MAX 6
enum { VW = 4, NT = NT_MAX, Q8_OFFSET = 0, KEY_ROWS = 4, VALUE_VECTORS = 4 };

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint16_t vh __attribute__((vector_size(8)));
typedef float32x4_t gf;

ARM_INLINE float half_to_float(uint16_t h)
{
	return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}

ARM_INLINE vf splat(float x)
{
	return (vf)vdupq_n_f32(x);
}

ARM_INLINE vi splat_int(int32_t x)
{
	return (vi)vdupq_n_s32(x);
}

ARM_INLINE vf vf_max(vf a, vf b)
{
	return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
}

ARM_INLINE vf vf_from_half(vh h)
{
	return (vf)vcvt_f32_f16((float16x4_t)h);
}

ARM_INLINE vh vh_from_float(vf v)
{
	return (vh)vcvt_f16_f32((float32x4_t)v);
}

/* Codes are at most 63 or signed: both are signed bytes. */
ARM_INLINE vi load_bytes(const uint8_t *p)
{
	uint32_t word;
	__builtin_memcpy(&word, p, 4);
	return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
}

ARM_INLINE vi load_signed_bytes(const int8_t *p)
{
	uint32_t word;
	__builtin_memcpy(&word, p, 4);
	return (vi)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word)))));
}

ARM_INLINE vi dot(vi acc, vi c, vi x)
{
	return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)c, (int8x16_t)x);
}

ARM_INLINE vi dot_signed(vi acc, vi c, vi x)
{
	return dot(acc, c, x);
}

ARM_INLINE gf group_dot(gf acc, const uint8_t *c, const int8_t *x, float s0, float s1, bool is_signed)
{
	int32x4_t zero = vdupq_n_s32(0);
	int32x4_t p0 = vdotq_s32(zero, vreinterpretq_s8_u8(vld1q_u8(c)), vld1q_s8(x));
	int32x4_t p1 = vdotq_s32(zero, vreinterpretq_s8_u8(vld1q_u8(c + 16)), vld1q_s8(x + 16));
	(void)is_signed;
	acc = vfmaq_n_f32(acc, vcvtq_f32_s32(p0), s0);
	return vfmaq_n_f32(acc, vcvtq_f32_s32(p1), s1);
}

ARM_INLINE float gf_sum(gf v)
{
	return vaddvq_f32(v);
}

ARM_INLINE float sum_lanes(vf v)
{
	return vaddvq_f32((float32x4_t)v);
}

ARM_INLINE void sum_lanes_4(float *to, const vf v[4])
{
	float32x4_t a = vpaddq_f32((float32x4_t)v[0], (float32x4_t)v[1]), b = vpaddq_f32((float32x4_t)v[2], (float32x4_t)v[3]);
	vst1q_f32(to, vpaddq_f32(a, b));
}

ARM_INLINE void transpose_words(uint32_t *to, size_t ld, const vi rows[4])
{
	uint32x4x2_t a = vtrnq_u32((uint32x4_t)rows[0], (uint32x4_t)rows[1]);
	uint32x4x2_t b = vtrnq_u32((uint32x4_t)rows[2], (uint32x4_t)rows[3]);
	vst1q_u32(to, vcombine_u32(vget_low_u32(a.val[0]), vget_low_u32(b.val[0])));
	vst1q_u32(to + ld, vcombine_u32(vget_low_u32(a.val[1]), vget_low_u32(b.val[1])));
	vst1q_u32(to + 2 * ld, vcombine_u32(vget_high_u32(a.val[0]), vget_high_u32(b.val[0])));
	vst1q_u32(to + 3 * ld, vcombine_u32(vget_high_u32(a.val[1]), vget_high_u32(b.val[1])));
}

#include "tensor/cpu/generic.h"

const ruv_kernels ruv_kernels_neon = {.name = "neon", GENERIC_KERNELS};

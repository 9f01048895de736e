/* half.h - scalar conversions between F32 and the two 16-bit float formats; round to nearest even. Layer: tensor. */
#ifndef RUV_TENSOR_HALF_H
#define RUV_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

static inline float ruv_f32_from_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static inline uint32_t ruv_f32_bits(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static inline float ruv_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
	if (magnitude >= 0x7c00) /* infinity, NaN */
		return ruv_f32_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
	if (magnitude >= 0x0400)
		return ruv_f32_from_bits(sign | ((magnitude << 13) + 0x38000000));
	/* Subnormal: magnitude * 2^-24, exact in F32. */
	float f = (float)magnitude * 0x1p-24f;
	return sign ? -f : f;
}

static inline uint16_t ruv_f32_to_f16(float f)
{
	uint32_t bits = ruv_f32_bits(f), sign = bits >> 16 & 0x8000, a = bits & 0x7fffffff;
	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	if (a >= 0x477ff000) /* 65520 and more round to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (a >= 0x38800000) { /* 2^-14: normal */
		a += 0xfff + (a >> 13 & 1);
		return (uint16_t)(sign | (a - 0x38000000) >> 13);
	}
	/* Subnormal: adding 0.5 puts the unit of the last kept bit (2^-24) at the end of the F32 mantissa, so that the adder
	 * rounds. */
	float r = ruv_f32_from_bits(a) + 0.5f;
	return (uint16_t)(sign | (ruv_f32_bits(r) - 0x3f000000));
}

static inline float ruv_bf16_to_f32(uint16_t h)
{
	return ruv_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t ruv_f32_to_bf16(float f)
{
	uint32_t bits = ruv_f32_bits(f);
	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif

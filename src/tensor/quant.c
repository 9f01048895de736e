/* quant.c - dequantization of every type, and the way into quantization (the search itself is quant_search.c). */
#include "tensor/quant.h"

#include <math.h>
#include <string.h>

#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quant_search.h"

static void from_f16(float *y, const uint8_t *src, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, src + 2 * i, 2);
		y[i] = ruv_f16_to_f32(h);
	}
}

static void from_bf16(float *y, const uint8_t *src, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, src + 2 * i, 2);
		y[i] = ruv_bf16_to_f32(h);
	}
}

static void from_q4_0(float *y, const ruv_block_q4_0 *b)
{
	float d = ruv_f16_to_f32(b->d);
	for (int j = 0; j < 16; j++) {
		y[j] = (float)((b->qs[j] & 15) - 8) * d;
		y[j + 16] = (float)((b->qs[j] >> 4) - 8) * d;
	}
}

static void from_q4_1(float *y, const ruv_block_q4_1 *b)
{
	float d = ruv_f16_to_f32(b->d), m = ruv_f16_to_f32(b->m);
	for (int j = 0; j < 16; j++) {
		y[j] = (float)(b->qs[j] & 15) * d + m;
		y[j + 16] = (float)(b->qs[j] >> 4) * d + m;
	}
}

static uint32_t load_u32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

static void from_q5_0(float *y, const ruv_block_q5_0 *b)
{
	float d = ruv_f16_to_f32(b->d);
	uint32_t qh = load_u32(b->qh);
	for (int j = 0; j < 16; j++) {
		int lo = (b->qs[j] & 15) | (int)(qh >> j & 1) << 4;
		int hi = b->qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
		y[j] = (float)(lo - 16) * d;
		y[j + 16] = (float)(hi - 16) * d;
	}
}

static void from_q5_1(float *y, const ruv_block_q5_1 *b)
{
	float d = ruv_f16_to_f32(b->d), m = ruv_f16_to_f32(b->m);
	uint32_t qh = load_u32(b->qh);
	for (int j = 0; j < 16; j++) {
		int lo = (b->qs[j] & 15) | (int)(qh >> j & 1) << 4;
		int hi = b->qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
		y[j] = (float)lo * d + m;
		y[j + 16] = (float)hi * d + m;
	}
}

static void from_q8_0(float *y, const ruv_block_q8_0 *b)
{
	float d = ruv_f16_to_f32(b->d);
	for (int j = 0; j < 32; j++)
		y[j] = (float)b->qs[j] * d;
}

static void from_q4_k(float *y, const ruv_block_q4_k *b)
{
	float d = ruv_f16_to_f32(b->d), dmin = ruv_f16_to_f32(b->dmin);
	for (int s = 0; s < 8; s++) {
		const uint8_t *qs = b->qs + 32 * (s / 2);
		int shift = s & 1 ? 4 : 0, scale, min;
		ruv_k_scale_min(b->scales, s, &scale, &min);
		float ds = d * (float)scale, m = dmin * (float)min;
		for (int l = 0; l < 32; l++)
			y[32 * s + l] = ds * (float)(qs[l] >> shift & 15) - m;
	}
}

static void from_q5_k(float *y, const ruv_block_q5_k *b)
{
	float d = ruv_f16_to_f32(b->d), dmin = ruv_f16_to_f32(b->dmin);
	for (int s = 0; s < 8; s++) {
		const uint8_t *qs = b->qs + 32 * (s / 2);
		int shift = s & 1 ? 4 : 0, scale, min;
		ruv_k_scale_min(b->scales, s, &scale, &min);
		float ds = d * (float)scale, m = dmin * (float)min;
		for (int l = 0; l < 32; l++)
			y[32 * s + l] = ds * (float)((qs[l] >> shift & 15) | (b->qh[l] >> s & 1) << 4) - m;
	}
}

static void from_q6_k(float *y, const ruv_block_q6_k *b)
{
	float d = ruv_f16_to_f32(b->d);
	for (int h = 0; h < 2; h++) {
		const uint8_t *ql = b->ql + 64 * h, *qh = b->qh + 32 * h;
		const int8_t *scales = b->scales + 8 * h;
		for (int part = 0; part < 4; part++)
			for (int l = 0; l < 32; l++) {
				int low = ql[32 * (part & 1) + l] >> (part & 2 ? 4 : 0) & 15;
				int q = (low | (qh[l] >> 2 * part & 3) << 4) - 32;
				y[128 * h + 32 * part + l] = d * (float)scales[2 * part + l / 16] * (float)q;
			}
	}
}

int ruv_dequantize_row(float *dst, ruv_dtype dtype, const void *src, int64_t n)
{
	int64_t n_elements = ruv_dtype_known((int)dtype) ? ruv_dtype_block_elements(dtype) : 1;

	if (n < 0 || n % n_elements)
		return RUV_EINVAL;
	switch ((int)dtype) {
	case RUV_F32:
		memcpy(dst, src, (size_t)n * sizeof(float));
		return RUV_OK;
	case RUV_F16:
		from_f16(dst, src, n);
		return RUV_OK;
	case RUV_BF16:
		from_bf16(dst, src, n);
		return RUV_OK;
/* Blocks hold only bytes and 16-bit values, and files align tensors to 32 bytes; a block's own size is even. */
#define ROW(id, type, fn)                                                                                                          \
	case id:                                                                                                                   \
		for (int64_t i = 0; i < n / n_elements; i++)                                                                       \
			fn(dst + i * n_elements, (const type *)src + i);                                                           \
		return RUV_OK;
		ROW(RUV_Q4_0, ruv_block_q4_0, from_q4_0)
		ROW(RUV_Q4_1, ruv_block_q4_1, from_q4_1)
		ROW(RUV_Q5_0, ruv_block_q5_0, from_q5_0)
		ROW(RUV_Q5_1, ruv_block_q5_1, from_q5_1)
		ROW(RUV_Q8_0, ruv_block_q8_0, from_q8_0)
		ROW(RUV_Q4_K, ruv_block_q4_k, from_q4_k)
		ROW(RUV_Q5_K, ruv_block_q5_k, from_q5_k)
		ROW(RUV_Q6_K, ruv_block_q6_k, from_q6_k)
#undef ROW
	default:
		return RUV_EUNSUPPORTED;
	}
}

bool ruv_dtype_quantizable(int id)
{
	return ruv_dtype_known(id) && id != RUV_I8 && id != RUV_I16 && id != RUV_I32;
}

static bool all_finite(const float *x, int64_t n)
{
	uint32_t worst = 0;
	for (int64_t i = 0; i < n; i++) {
		uint32_t exponent = ruv_f32_bits(x[i]) & 0x7f800000;
		worst = exponent > worst ? exponent : worst;
	}
	return worst != 0x7f800000;
}

int ruv_quantize_rows(void *dst, ruv_dtype dtype, const float *src, int64_t n_rows, int64_t n_in, const float *importance)
{
	size_t row_bytes;
	int64_t per_block;

	if (!ruv_dtype_quantizable((int)dtype))
		return RUV_EUNSUPPORTED;
	per_block = ruv_dtype_block_elements(dtype);
	if (n_rows < 0 || n_in <= 0 || n_in % per_block)
		return RUV_EINVAL;
	row_bytes = ruv_dtype_row_bytes(dtype, n_in);
	for (int64_t r = 0; r < n_rows; r++) {
		const float *x = src + r * n_in;
		uint8_t *out = (uint8_t *)dst + (size_t)r * row_bytes;
		if (!all_finite(x, n_in))
			return RUV_EFORMAT;
		switch ((int)dtype) {
		case RUV_F32:
			memcpy(out, x, (size_t)n_in * sizeof *x);
			break;
		case RUV_F16:
		case RUV_BF16:
			for (int64_t i = 0; i < n_in; i++) {
				uint16_t h = dtype == RUV_F16 ? ruv_f32_to_f16(x[i]) : ruv_f32_to_bf16(x[i]);
				memcpy(out + 2 * i, &h, 2);
			}
			break;
		default:
			ruv_quantize_blocks(out, dtype, x, n_in, importance);
		}
	}
	return RUV_OK;
}

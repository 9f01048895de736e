/* ref.c - every kernel in plain C: the reference that the fast ones are tested against, and what runs where no ISA file fits.
 *
 * Written for being obviously right: weights are dequantized with quant.h, sums are kept in double. A quantized type multiplies the
 * same quantized activations as the fast kernels do, so the two differ by rounding alone. */
#include <math.h>
#include <string.h>

#include "tensor/blocks.h"
#include "tensor/cpu/kernels.h"
#include "tensor/half.h"
#include "tensor/quant.h"

enum { PANEL_ROWS = 4, CHUNK = 256 };

/* The value of an activation as a weight of `dtype` sees it. */
static double act_value(const ruv_act_row *x, bool q8, int64_t i)
{
	return q8 ? (double)x->q[i] * (double)x->d[i / 32] : (double)x->f[i];
}

static void gemv(ruv_dtype dtype, float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)
{
	bool q8 = ruv_dtype_wants_q8(dtype);
	for (int r = 0; r < n_rows; r++) {
		const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
		double sum = 0;
		for (int64_t i = 0; i < k; i += CHUNK) {
			int64_t n = k - i < CHUNK ? k - i : CHUNK;
			float values[CHUNK];
			ruv_dequantize_row(values, dtype, row + ruv_dtype_row_bytes(dtype, i), n);
			for (int64_t j = 0; j < n; j++)
				sum += (double)values[j] * act_value(x, q8, i + j);
		}
		y[r] = (float)sum;
	}
}

static void unpack(ruv_dtype dtype, ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)
{
	panel->k = k;
	panel->n_rows = n_rows;
	panel->group = 32;
	panel->offset = 0;
	panel->has_min = false;
	memset(panel->f, 0, (size_t)k * PANEL_ROWS * sizeof(float));
	for (int r = 0; r < n_rows; r++) {
		const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
		for (int64_t i = 0; i < k; i += CHUNK) {
			int64_t n = k - i < CHUNK ? k - i : CHUNK;
			float values[CHUNK];
			ruv_dequantize_row(values, dtype, row + ruv_dtype_row_bytes(dtype, i), n);
			for (int64_t j = 0; j < n; j++)
				panel->f[(i + j) * PANEL_ROWS + r] = values[j];
		}
	}
}

static void gemm(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *x, int64_t first, int n, const float *bias,
                 bool accumulate, bool q8)
{
	for (int t = 0; t < n; t++) {
		ruv_act_row row = ruv_act_get_row(x, first + t);
		for (int r = 0; r < panel->n_rows; r++) {
			double sum = bias ? (double)bias[r] : 0;
			for (int64_t i = 0; i < panel->k; i++)
				sum += (double)panel->f[i * PANEL_ROWS + r] * act_value(&row, q8, i);
			c[t * ld_c + r] = (float)(accumulate ? sum + (double)c[t * ld_c + r] : sum);
		}
	}
}

static void gemm_f32(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *x, int64_t first, int n, const float *bias,
                     bool accumulate)
{
	gemm(c, ld_c, panel, x, first, n, bias, accumulate, false);
}

static void gemm_q8(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *x, int64_t first, int n, const float *bias,
                    bool accumulate)
{
	gemm(c, ld_c, panel, x, first, n, bias, accumulate, true);
}

#define TYPES(X)                                                                                                                   \
	X(RUV_F32)                                                                                                                 \
	X(RUV_F16) X(RUV_BF16) X(RUV_Q4_0) X(RUV_Q4_1) X(RUV_Q5_0) X(RUV_Q5_1) X(RUV_Q8_0) X(RUV_Q4_K) X(RUV_Q5_K) X(RUV_Q6_K)

#define X(id)                                                                                                                      \
	static void gemv_##id(float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)              \
	{                                                                                                                          \
		gemv(id, y, w, row_bytes, n_rows, x, k);                                                                           \
	}                                                                                                                          \
	static void unpack_##id(ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)                          \
	{                                                                                                                          \
		unpack(id, panel, w, row_bytes, n_rows, k);                                                                        \
	}                                                                                                                          \
	static void dequantize_##id(float *y, const void *w, int64_t n)                                                            \
	{                                                                                                                          \
		ruv_dequantize_row(y, id, w, n);                                                                                   \
	}
TYPES(X)
#undef X

/* Round to nearest even through the default rounding mode. */
static void quantize_act(ruv_act *x, int64_t i)
{
	const float *f = x->f + i * x->k;
	for (int64_t g = 0; g < x->k / 32; g++) {
		int64_t at = i * (x->k / 32) + g;
		float amax = 0;
		int total = 0;
		for (int j = 0; j < 32; j++)
			amax = fmaxf(amax, fabsf(f[32 * g + j]));
		float d = amax / 127, inverse = amax > 1e-30f ? 127 / amax : 0;
		for (int half = 0; half < 2; half++) {
			int sum = 0;
			for (int j = 16 * half; j < 16 * half + 16; j++) {
				int q = (int)nearbyintf(f[32 * g + j] * inverse);
				q = q > 127 ? 127 : q < -127 ? -127 : q;
				x->q[i * x->k + 32 * g + j] = (int8_t)q;
				sum += q;
			}
			x->sum[2 * at + half] = sum;
			total += sum;
		}
		x->d[at] = d;
		x->s[at] = d * (float)total;
	}
}

static void rms_norm(float *y, const float *x, const float *w, int64_t dim, float eps)
{
	double sum = 0;
	for (int64_t i = 0; i < dim; i++)
		sum += (double)x[i] * (double)x[i];
	float scale = (float)(1 / sqrt(sum / (double)dim + (double)eps));
	for (int64_t i = 0; i < dim; i++)
		y[i] = x[i] * scale * w[i];
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps)
{
	double sum = 0, square = 0;
	for (int64_t i = 0; i < dim; i++)
		sum += (double)x[i];
	double mean = sum / (double)dim;
	for (int64_t i = 0; i < dim; i++)
		square += ((double)x[i] - mean) * ((double)x[i] - mean);
	double scale = 1 / sqrt(square / (double)dim + (double)eps);
	for (int64_t i = 0; i < dim; i++)
		y[i] = (float)(((double)x[i] - mean) * scale) * w[i] + b[i];
}

static void swiglu(float *y, const float *gate, const float *up, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i]))) * up[i];
}

static void add(float *y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] += x[i];
}

static void conv3(float *y, const float *c, const float *a, const float *b, const float *x, const float *taps, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		float sum = taps[3 * i + 2] * x[i];
		if (b)
			sum += taps[3 * i + 1] * b[i];
		if (a)
			sum += taps[3 * i] * a[i];
		y[i] = c[i] * sum;
	}
}

static void mul(float *y, const float *a, const float *b, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = a[i] * b[i];
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = ruv_f32_to_f16(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = ruv_f16_to_f32(x[i]);
}

static void tile_mul(float *c, int64_t ld_c, const float *a, int64_t ld_a, const float *b, int64_t ld_b, int m, int n, int k,
                     bool accumulate)
{
	for (int i = 0; i < m; i++)
		for (int j = 0; j < n; j++) {
			double sum = accumulate ? (double)c[i * ld_c + j] : 0;
			for (int l = 0; l < k; l++)
				sum += (double)a[i * ld_a + l] * (double)b[l * ld_b + j];
			c[i * ld_c + j] = (float)sum;
		}
}

static void load_keys(float *kt, const void *keys, ruv_dtype dtype, int head_dim, int n_tokens)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int t = 0; t < RUV_KV_TILE; t++)
		for (int d = 0; d < head_dim; d += 32) {
			int n = head_dim - d < 32 ? head_dim - d : 32;
			float values[32] = {0};
			if (t < n_tokens)
				ruv_dequantize_row(values, dtype,
				                   (const uint8_t *)keys + (size_t)t * row_bytes + ruv_dtype_row_bytes(dtype, d),
				                   n);
			for (int i = 0; i < n; i++)
				kt[(d + i) * RUV_KV_TILE + t] = values[i];
		}
}

static void load_values(float *v, int64_t ld_v, const void *values, ruv_dtype dtype, int head_dim, int n_tokens)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	memset(v, 0, RUV_KV_TILE * (size_t)ld_v * sizeof *v);
	for (int t = 0; t < n_tokens; t++)
		ruv_dequantize_row(v + t * ld_v, dtype, (const uint8_t *)values + (size_t)t * row_bytes, head_dim);
}

static void keys_dot(float *scores, const float *q, const void *keys, const void *next, ruv_dtype dtype, int n_rows, int head_dim,
                     int n_tokens)
{
	(void)next;
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int t = 0; t < n_tokens; t++) {
		float key[CHUNK];
		ruv_dequantize_row(key, dtype, (const uint8_t *)keys + (size_t)t * row_bytes, head_dim);
		for (int r = 0; r < n_rows; r++) {
			double sum = 0;
			for (int d = 0; d < head_dim; d++)
				sum += (double)q[r * head_dim + d] * (double)key[d];
			scores[r * RUV_KV_TILE + t] = (float)sum;
		}
	}
}

static void values_add(float *out, int64_t ld_out, const float *scores, const void *values, const void *next, ruv_dtype dtype,
                       int n_rows, int head_dim, int n_tokens)
{
	(void)next;
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int r = 0; r < n_rows; r++) {
		double sum[CHUNK] = {0};
		for (int t = 0; t < n_tokens; t++) {
			float value[CHUNK];
			ruv_dequantize_row(value, dtype, (const uint8_t *)values + (size_t)t * row_bytes, head_dim);
			for (int d = 0; d < head_dim; d++)
				sum[d] += (double)scores[r * RUV_KV_TILE + t] * (double)value[d];
		}
		for (int d = 0; d < head_dim; d++)
			out[r * ld_out + d] += (float)sum[d];
	}
}

static float softmax_row(float *s, int from, int to, float scale, float *max, float *sum)
{
	float top = *max;
	double total = 0;
	for (int i = from; i < to; i++)
		top = fmaxf(top, scale * s[i]);
	for (int i = 0; i < RUV_KV_TILE; i++) {
		s[i] = i >= from && i < to ? (float)exp((double)(scale * s[i]) - (double)top) : 0;
		total += (double)s[i];
	}
	float keep = isinf(*max) ? 0 : expf(*max - top);
	*sum = *sum * keep + (float)total;
	*max = top;
	return keep;
}

static double spin_fma(int64_t n)
{
	volatile float sink;
	float acc[8] = {0}, x = 0.999f;
	for (int64_t i = 0; i < n; i++)
		for (int j = 0; j < 8; j++)
			acc[j] = acc[j] * x + 1;
	sink = acc[0] + acc[1] + acc[2] + acc[3] + acc[4] + acc[5] + acc[6] + acc[7];
	(void)sink;
	return 16.0 * (double)n;
}

static uint64_t read_memory(const void *memory, size_t n_bytes)
{
	const uint64_t *p = memory;
	uint64_t sum = 0;
	for (size_t i = 0; i < n_bytes / 8; i++)
		sum += p[i];
	return sum;
}

const ruv_kernels ruv_kernels_ref = {
    .name = "scalar",
    .panel_rows = PANEL_ROWS,
#define X(id) [id] = gemv_##id,
    .gemv = {TYPES(X)},
#undef X
#define X(id) [id] = unpack_##id,
    .unpack = {TYPES(X)},
#undef X
#define X(id) [id] = dequantize_##id,
    .dequantize = {TYPES(X)},
#undef X
    .gemm_f32 = gemm_f32,
    .gemm_q8 = gemm_q8,
    .quantize_act = quantize_act,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .swiglu = swiglu,
    .add = add,
    .conv3 = conv3,
    .mul = mul,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .tile_mul = tile_mul,
    .load_keys = load_keys,
    .load_values = load_values,
    .keys_dot = keys_dot,
    .values_add = values_add,
    .softmax_row = softmax_row,
    .spin_fma = spin_fma,
    .spin_dot = spin_fma, /* codes are multiplied as floats here */
    .read_memory = read_memory,
};

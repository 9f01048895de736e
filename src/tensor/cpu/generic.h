/* generic.h - the kernels, written once over a vector type that each ISA file names before it includes this.
 *
 * The including file defines:
 *
 *   VW                     float lanes of a vector; vf, vi, vh: GCC vectors of VW floats, int32, uint16
 *
 *   NT                     tokens of the gemm micro-kernel (2 * NT int32 and 2 * NT float accumulators must fit the registers)
 *
 *   KEY_ROWS, VALUE_VECTORS  decode's attention: query rows met by four keys at a time, vectors of values at a time (2 or 4)
 *
 *   Q8_OFFSET              128 when dot() wants unsigned codes of 8 bits, 0 when dot_signed() multiplies Q8_0's signed ones
 *
 *   splat(x), splat_int(i) every lane the same
 *
 *   half_to_float(h)       one f16
 *
 *   load_bytes(p), load_signed_bytes(p)  VW bytes as int32
 *
 *   vf_max(a, b)           lane by lane
 *
 *   vf_from_half(vh)       f16 -> f32; vh_from_float(vf): f32 -> f16, nearest even
 *
 *   dot(acc, c, x)         acc lane += sum of 4 products of unsigned bytes c (<= 63, or <= 255 with Q8_OFFSET 128) and signed
 *                          bytes x; dot_signed(acc, c, x) the same with signed c (Q8_OFFSET 0 only)
 *
 *   group_dot(acc, c, x, s0, s1, is_signed)  acc (a vector gf, summed by gf_sum) += s0 * (bytes 0-15 of c . x) + s1 * (bytes 16-31)
 *
 *   sum_lanes(vf)          one sum; sum_lanes_4(to, vf[4]) four
 *
 *   transpose_words(to, ld, rows)  to[j * ld + i] = rows[i][j] for VW vectors of VW 32-bit words
 *
 * and is compiled with -ffp-contract=fast, so that a * b + c is one fused instruction where there is one.
 *
 * gemm micro-kernel: 2 vectors of weight rows x NT tokens in registers. Four consecutive codes of VW rows meet one broadcast word
 * of a token's codes. After a group the int32 sums become floats, times the rows' scales, times the token's scale.
 *
 * Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_GENERIC_H
#define RUV_TENSOR_CPU_GENERIC_H

#include <math.h>

#include "tensor/cpu/decode.h"

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define REGISTER(v) "+v"(v)
#else
#define REGISTER(v) "+w"(v)
#endif

/* Memory that is read soon. */
INLINE void fetch_ahead(const uint8_t *p, size_t n_bytes)
{
	for (size_t line = 0; line < n_bytes; line += 64)
		__builtin_prefetch(p + line, 0, 3);
}

enum { PANEL_ROWS = 2 * VW, ROW_BATCH = 4 };

INLINE vf load(const float *p)
{
	vf v;
	memcpy(&v, p, sizeof v);
	return v;
}

INLINE void store(float *p, vf v)
{
	memcpy(p, &v, sizeof v);
}

INLINE vi load_codes(const uint8_t *p)
{
	vi v;
	memcpy(&v, p, sizeof v);
	return v;
}

INLINE vi splat_word(const int8_t *p)
{
	int32_t w;
	memcpy(&w, p, 4);
	return splat_int(w);
}

INLINE float max_lanes(vf v)
{
	float lanes[VW];
	memcpy(lanes, &v, sizeof v);
	for (int stride = VW / 2; stride; stride /= 2)
		for (int i = 0; i < stride; i++)
			lanes[i] = lanes[i] > lanes[i + stride] ? lanes[i] : lanes[i + stride];
	return lanes[0];
}

/* exp: 2^n * e^r with |r| <= ln 2 / 2, r in two parts, a polynomial of degree 6: within 2 ulp between -87 and 88, clamped there. */
INLINE vf vexp(vf x)
{
	const vf magic = splat(12582912.0f);
	x = vf_max(x, splat(-87.3f));
	x = -vf_max(-x, splat(-88.3f));
	vf shifted = x * splat(1.44269504f) + magic, n = shifted - magic;
	vf r = x - n * splat(0.693145752f);
	r = r - n * splat(1.42860677e-6f);
	vf p = splat(1.0f / 720);
	p = p * r + splat(1.0f / 120);
	p = p * r + splat(1.0f / 24);
	p = p * r + splat(1.0f / 6);
	p = p * r + splat(0.5f);
	p = p * r + splat(1);
	p = p * r + splat(1);
	/* The low bits of `shifted` are n: into the exponent. */
	return (vf)((vi)p + ((vi)shifted << 23));
}

/* ---- activations ---- */

#ifndef OWN_QUANTIZE_GROUP
/* 32 values to codes with one scale; sums[2] of 16 codes each. Returns the scale. */
INLINE float quantize_group(int8_t *q, int32_t *sums, const float *x)
{
	const vf magic = splat(12582912.0f);
	const vi sign = splat_int(0x7fffffff);
	vf top = splat(0);
	int32_t codes[32];

	for (int j = 0; j < 32; j += VW)
		top = vf_max(top, (vf)((vi)load(x + j) & sign));
	float amax = max_lanes(top), inverse = amax > 1e-30f ? 127 / amax : 0;
	for (int j = 0; j < 32; j += VW) {
		vi code = (vi)(load(x + j) * splat(inverse) + magic) - (vi)magic;
		memcpy(codes + j, &code, sizeof code);
	}
	sums[0] = sums[1] = 0;
	for (int j = 0; j < 16; j++) {
		q[j] = (int8_t)codes[j];
		q[j + 16] = (int8_t)codes[j + 16];
		sums[0] += q[j]; /* as stored: codes of NaN and infinity are any number */
		sums[1] += q[j + 16];
	}
	return amax / 127;
}
#endif

static void quantize_act(ruv_act *x, int64_t i)
{
	for (int64_t g = 0; g < x->k / 32; g++) {
		int64_t at = i * (x->k / 32) + g;
		int32_t *sums = x->sum + 2 * at;
		float d = quantize_group(x->q + i * x->k + 32 * g, sums, x->f + i * x->k + 32 * g);
		x->d[at] = d;
		x->s[at] = d * (float)(sums[0] + sums[1]);
	}
}

/* Four short rows are read as one piece of memory, but not in its order, which the processor's own prefetchers do not follow: so
 * the piece AHEAD of it is fetched in order meanwhile, a quarter of a row for each row's step. Rows beyond LONG_ROW are streams of
 * their own. */
enum { AHEAD = 8192, LONG_ROW = 8192 };

INLINE size_t prefetch_distance(size_t row_bytes)
{
	return row_bytes > LONG_ROW ? 1024 : row_bytes * ROW_BATCH > AHEAD ? row_bytes * ROW_BATCH : AHEAD;
}

INLINE void prefetch(const uint8_t *p, size_t n_bytes)
{
	for (size_t line = 0; line < n_bytes; line += 64)
		__builtin_prefetch(p + line);
}

/* ---- gemv: each chunk of a row is decoded into the first cache and multiplied there ---- */

/* sum of w x over n elements (at most CHUNK) from element i (a multiple of 32) on; `at` points to their blocks. */
INLINE float dot_chunk(ruv_dtype dtype, const uint8_t *at, const ruv_act_row *x, int64_t i, int n)
{
	struct form form = form_of(dtype);
	bool is_signed = dtype == RUV_Q8_0 && Q8_OFFSET == 0;
	uint8_t codes[CHUNK];
	float scale[16], min[8], rest = 0;
	gf acc = {0};

	decode_chunk(dtype, codes, scale, min, at, n);
	for (int g = 0; g < n / 32; g++) {
		int64_t b = i / 32 + g;
		float d = x->d[b], s0 = form.group == 16 ? scale[2 * g] : scale[g], s1 = form.group == 16 ? scale[2 * g + 1] : s0;
		acc = group_dot(acc, codes + 32 * g, x->q + i + 32 * g, s0 * d, s1 * d, is_signed);
		if (form.has_min)
			rest += min[g] * x->s[b];
		else if (form.group == 16)
			rest += (float)form.offset * d * (s0 * (float)x->sum[2 * b] + s1 * (float)x->sum[2 * b + 1]);
		else if (form.offset)
			rest += (float)form.offset * s0 * x->s[b];
	}
	return gf_sum(acc) - rest;
}

INLINE void gemv_q8(ruv_dtype dtype, float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)
{
	size_t chunk_bytes = (size_t)(CHUNK / ruv_dtype_block_elements(dtype) * ruv_dtype_block_bytes(dtype));

	for (int r = 0; r < n_rows; r++) {
		const uint8_t *at = (const uint8_t *)w + (size_t)r * row_bytes;
		float sum = 0;
		for (int64_t i = 0; i < k; i += CHUNK, at += chunk_bytes)
			sum += dot_chunk(dtype, at, x, i, (int)(k - i < CHUNK ? k - i : CHUNK));
		y[r] = sum;
	}
}

INLINE vf load_float(ruv_dtype dtype, const uint8_t *p)
{
	if (dtype == RUV_F32)
		return load((const float *)p);
	vh h;
	memcpy(&h, p, sizeof h);
	if (dtype == RUV_F16)
		return vf_from_half(h);
	return (vf)(__builtin_convertvector(h, vi) << 16);
}

INLINE float load_float_one(ruv_dtype dtype, const uint8_t *p)
{
	if (dtype == RUV_F32)
		return *(const float *)p;
	uint16_t h;
	memcpy(&h, p, 2);
	if (dtype == RUV_F16)
		return half_to_float(h);
	uint32_t bits = (uint32_t)h << 16;
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

INLINE void gemv_float(ruv_dtype dtype, float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)
{
	const size_t size = dtype == RUV_F32 ? 4 : 2, distance = prefetch_distance(row_bytes);
	for (int r = 0; r < n_rows; r += ROW_BATCH) {
		const uint8_t *row[ROW_BATCH], *batch = (const uint8_t *)w + (size_t)r * row_bytes + distance;
		vf acc[ROW_BATCH][2] = {0};
		float rest[ROW_BATCH] = {0};
		int64_t i = 0;
		for (int j = 0; j < ROW_BATCH; j++) /* rows past the end repeat the last one */
			row[j] = (const uint8_t *)w + (size_t)(r + j < n_rows ? r + j : n_rows - 1) * row_bytes;
		for (; i + 2 * VW <= k; i += 2 * VW) {
			vf x0 = load(x->f + i), x1 = load(x->f + i + VW);
#pragma GCC unroll 4
			for (int j = 0; j < ROW_BATCH; j++) {
				size_t at = (size_t)i * size, step = 2 * VW * size;
				prefetch(row_bytes > LONG_ROW ? row[j] + at + distance : batch + ROW_BATCH * at + (size_t)j * step,
				         step);
				acc[j][0] += load_float(dtype, row[j] + (size_t)i * size) * x0;
				acc[j][1] += load_float(dtype, row[j] + (size_t)(i + VW) * size) * x1;
			}
		}
		for (; i < k; i++)
			for (int j = 0; j < ROW_BATCH; j++)
				rest[j] += load_float_one(dtype, row[j] + (size_t)i * size) * x->f[i];
		for (int j = 0; j < ROW_BATCH && r + j < n_rows; j++)
			y[r + j] = sum_lanes(acc[j][0] + acc[j][1]) + rest[j];
	}
}

/* A few rows of activations: four weight rows, each vector loaded once for up to four rows of activations. */
INLINE void block_rows(ruv_dtype dtype, float *c, int64_t ld_c, const uint8_t *const row[ROW_BATCH], const uint8_t *ahead,
                       int n_rows, const float *x, int64_t k, int nt)
{
	const size_t size = dtype == RUV_F32 ? 4 : 2;
	vf acc[ROW_BATCH][4];
	int64_t i = 0;
	for (int j = 0; j < ROW_BATCH; j++)
		for (int t = 0; t < nt; t++)
			acc[j][t] = splat(0);
	for (; i + VW <= k; i += VW) {
		vf w[ROW_BATCH];
		prefetch(ahead + (size_t)i * ROW_BATCH * size, ROW_BATCH * VW * size);
#pragma GCC unroll 4
		for (int j = 0; j < ROW_BATCH; j++)
			w[j] = load_float(dtype, row[j] + (size_t)i * size);
#pragma GCC unroll 4
		for (int t = 0; t < nt; t++) {
			vf v = load(x + t * k + i);
#pragma GCC unroll 4
			for (int j = 0; j < ROW_BATCH; j++)
				acc[j][t] += w[j] * v;
		}
	}
	for (int t = 0; t < nt; t++)
		for (int j = 0; j < n_rows; j++) {
			float sum = sum_lanes(acc[j][t]);
			for (int64_t l = i; l < k; l++)
				sum += load_float_one(dtype, row[j] + (size_t)l * size) * x[t * k + l];
			c[t * ld_c + j] = sum;
		}
}

INLINE void mul_rows_float(ruv_dtype dtype, float *c, int64_t ld_c, const void *w, size_t row_bytes, int n_rows, const ruv_act *act,
                           int n)
{
	for (int r = 0; r < n_rows; r += ROW_BATCH) {
		const int rows = n_rows - r < ROW_BATCH ? n_rows - r : ROW_BATCH;
		const uint8_t *row[ROW_BATCH], *ahead = (const uint8_t *)w + (size_t)(r + ROW_BATCH) * row_bytes;
		for (int j = 0; j < ROW_BATCH; j++) /* rows past the end repeat the last one */
			row[j] = (const uint8_t *)w + (size_t)(r + (j < rows ? j : rows - 1)) * row_bytes;
		for (int t = 0; t < n; t += 4) {
			const float *x = act->f + t * act->k;
			float *to = c + t * ld_c + r;
			if (n - t >= 4)
				block_rows(dtype, to, ld_c, row, ahead, rows, x, act->k, 4);
			else if (n - t == 3)
				block_rows(dtype, to, ld_c, row, ahead, rows, x, act->k, 3);
			else if (n - t == 2)
				block_rows(dtype, to, ld_c, row, ahead, rows, x, act->k, 2);
			else
				block_rows(dtype, to, ld_c, row, ahead, rows, x, act->k, 1);
		}
	}
}

/* ---- panels ---- */

/* to[k / 4][PANEL_ROWS] words from PANEL_ROWS rows of `n` words that lie `ld` words apart. */
INLINE void transpose_panel(uint32_t *to, const uint32_t *from, size_t ld, int n)
{
	int j = 0;
	for (; j + VW <= n; j += VW)
		for (int half = 0; half < PANEL_ROWS; half += VW) {
			vi rows[VW];
			for (int i = 0; i < VW; i++)
				rows[i] = load_codes((const uint8_t *)(from + (size_t)(half + i) * ld + j));
			transpose_words(to + (size_t)j * PANEL_ROWS + half, PANEL_ROWS, rows);
		}
	for (; j < n; j++)
		for (int i = 0; i < PANEL_ROWS; i++)
			to[(size_t)j * PANEL_ROWS + i] = from[(size_t)i * ld + j];
}

INLINE void unpack_q8(ruv_dtype dtype, ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)
{
	struct form form = form_of(dtype);
	size_t chunk_bytes = (size_t)(CHUNK / ruv_dtype_block_elements(dtype) * ruv_dtype_block_bytes(dtype));
	_Alignas(64) uint8_t codes[PANEL_ROWS][CHUNK];
	_Alignas(64) float scale[PANEL_ROWS][16], min[PANEL_ROWS][16];

	panel->k = k;
	panel->n_rows = n_rows;
	panel->group = form.group;
	panel->offset = form.offset;
	panel->has_min = form.has_min;
	if (n_rows < PANEL_ROWS) {
		memset(codes, 0, sizeof codes);
		memset(scale, 0, sizeof scale);
		memset(min, 0, sizeof min);
	}
	for (int64_t i = 0; i < k; i += CHUNK) {
		int n = (int)(k - i < CHUNK ? k - i : CHUNK);
		for (int r = 0; r < n_rows; r++)
			decode_chunk(dtype, codes[r], scale[r], min[r],
			             (const uint8_t *)w + (size_t)r * row_bytes + (size_t)(i / CHUNK) * chunk_bytes, n);
		transpose_panel((uint32_t *)(panel->q + i * PANEL_ROWS), (const uint32_t *)codes[0], CHUNK / 4, n / 4);
		transpose_panel((uint32_t *)(panel->scale + i / form.group * PANEL_ROWS), (const uint32_t *)scale[0], 16,
		                n / form.group);
		if (form.has_min)
			transpose_panel((uint32_t *)(panel->min + i / 32 * PANEL_ROWS), (const uint32_t *)min[0], 16, n / 32);
	}
}

INLINE void unpack_float(ruv_dtype dtype, ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)
{
	const size_t size = dtype == RUV_F32 ? 4 : 2;
	_Alignas(64) float rows[PANEL_ROWS][64];

	panel->k = k;
	panel->n_rows = n_rows;
	if (n_rows < PANEL_ROWS)
		memset(rows, 0, sizeof rows);
	for (int64_t i = 0; i < k; i += 64) {
		int n = (int)(k - i < 64 ? k - i : 64);
		for (int r = 0; r < n_rows; r++) {
			const uint8_t *at = (const uint8_t *)w + (size_t)r * row_bytes + (size_t)i * size;
			int j = 0;
			for (; j + VW <= n; j += VW)
				store(rows[r] + j, load_float(dtype, at + (size_t)j * size));
			for (; j < n; j++)
				rows[r][j] = load_float_one(dtype, at + (size_t)j * size);
		}
		transpose_panel((uint32_t *)(panel->f + i * PANEL_ROWS), (const uint32_t *)rows[0], 64, n);
	}
}

/* ---- values: for gradients, which are not quantized ---- */

INLINE void dequantize_q8(ruv_dtype dtype, float *y, const uint8_t *at, int64_t n)
{
	struct form form = form_of(dtype);
	bool is_signed = dtype == RUV_Q8_0 && Q8_OFFSET == 0;
	size_t chunk_bytes = (size_t)(CHUNK / ruv_dtype_block_elements(dtype) * ruv_dtype_block_bytes(dtype));
	_Alignas(64) uint8_t codes[CHUNK];
	float scale[16], min[8];

	for (int64_t i = 0; i < n; i += CHUNK, at += chunk_bytes) {
		int m = (int)(n - i < CHUNK ? n - i : CHUNK);
		decode_chunk(dtype, codes, scale, min, at, m);
		for (int j = 0; j < m; j += VW) {
			vf s = splat(scale[j / form.group]), shift = splat(form.has_min ? -min[j / 32] : 0);
			vi code = is_signed ? load_signed_bytes((const int8_t *)codes + j) : load_bytes(codes + j) - form.offset;
			store(y + i + j, __builtin_convertvector(code, vf) * s + shift);
		}
	}
}

INLINE void dequantize_float(ruv_dtype dtype, float *y, const uint8_t *at, int64_t n)
{
	const size_t size = dtype == RUV_F32 ? 4 : 2;
	int64_t i = 0;
	for (; i + VW <= n; i += VW)
		store(y + i, load_float(dtype, at + (size_t)i * size));
	for (; i < n; i++)
		y[i] = load_float_one(dtype, at + (size_t)i * size);
}

/* Writes one token's results: sum (+ bias) (+ what is there). */
INLINE void finish(float *c, int n_rows, vf lo, vf hi, const float *bias, bool accumulate)
{
	if (n_rows == PANEL_ROWS) {
		if (bias) {
			lo += load(bias);
			hi += load(bias + VW);
		}
		if (accumulate) {
			lo += load(c);
			hi += load(c + VW);
		}
		store(c, lo);
		store(c + VW, hi);
		return;
	}
	float lanes[PANEL_ROWS];
	store(lanes, lo);
	store(lanes + VW, hi);
	for (int i = 0; i < n_rows; i++)
		c[i] = lanes[i] + (bias ? bias[i] : 0) + (accumulate ? c[i] : 0);
}

INLINE void block_f32(float *c, int64_t ld_c, const ruv_panel *panel, const float *x, int64_t ld_x, const float *bias,
                      bool accumulate, int nt)
{
	vf lo[NT], hi[NT];
	for (int t = 0; t < nt; t++)
		lo[t] = hi[t] = splat(0);
	const float *w = panel->f;
	for (int64_t i = 0; i < panel->k; i++, w += PANEL_ROWS) {
		vf w0 = load(w), w1 = load(w + VW);
#pragma GCC unroll 8
		for (int t = 0; t < nt; t++) {
			vf b = splat(x[t * ld_x + i]);
			lo[t] += w0 * b;
			hi[t] += w1 * b;
		}
	}
	for (int t = 0; t < nt; t++)
		finish(c + t * ld_c, panel->n_rows, lo[t], hi[t], bias, accumulate);
}

static void gemm_f32(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *act, int64_t first, int n, const float *bias,
                     bool accumulate)
{
	int t = 0;
	for (; t + NT <= n; t += NT)
		block_f32(c + t * ld_c, ld_c, panel, act->f + (first + t) * act->k, act->k, bias, accumulate, NT);
	for (; t + 2 <= n; t += 2)
		block_f32(c + t * ld_c, ld_c, panel, act->f + (first + t) * act->k, act->k, bias, accumulate, 2);
	if (t < n)
		block_f32(c + t * ld_c, ld_c, panel, act->f + (first + t) * act->k, act->k, bias, accumulate, 1);
}

/* nt tokens x one panel. group, has_min and is_signed are constants where this is inlined. */
INLINE void block_q8(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act_row *x, int64_t k, const float *bias,
                     bool accumulate, int nt, int group, bool has_min, bool is_signed)
{
	vf lo[NT], hi[NT];
	const uint8_t *w = panel->q;
	const float *scale = panel->scale, *min = panel->min;
	const int64_t n_groups = k / 32;
	const int offset = panel->offset;

	for (int t = 0; t < nt; t++)
		lo[t] = hi[t] = splat(0);
	for (int64_t g = 0; g < n_groups; g++) {
		vf part_lo[NT], part_hi[NT];
		for (int half = 0; half < 32 / group; half++) {
			vi acc_lo[NT], acc_hi[NT];
#pragma GCC unroll 8
			for (int t = 0; t < nt; t++) {
				const int32_t *sums = x->sum + t * 2 * n_groups + 2 * g;
				int32_t sum = group == 16 ? sums[half] : sums[0] + sums[1];
				acc_lo[t] = acc_hi[t] = has_min || is_signed ? splat_int(0) : splat_int(-offset * sum);
			}
#pragma GCC unroll 8
			for (int j = 0; j < group / 4; j++, w += 4 * PANEL_ROWS) {
				vi w0 = load_codes(w), w1 = load_codes(w + 4 * VW);
#pragma GCC unroll 8
				for (int t = 0; t < nt; t++) {
					vi b = splat_word(x->q + t * k + 32 * g + group * half + 4 * j);
					acc_lo[t] = is_signed ? dot_signed(acc_lo[t], w0, b) : dot(acc_lo[t], w0, b);
					acc_hi[t] = is_signed ? dot_signed(acc_hi[t], w1, b) : dot(acc_hi[t], w1, b);
				}
			}
			vf s0 = load(scale), s1 = load(scale + VW);
			scale += PANEL_ROWS;
#pragma GCC unroll 8
			for (int t = 0; t < nt; t++) {
				vf p0 = __builtin_convertvector(acc_lo[t], vf) * s0,
				   p1 = __builtin_convertvector(acc_hi[t], vf) * s1;
				part_lo[t] = half ? part_lo[t] + p0 : p0;
				part_hi[t] = half ? part_hi[t] + p1 : p1;
			}
		}
#pragma GCC unroll 8
		for (int t = 0; t < nt; t++) {
			vf d = splat(x->d[t * n_groups + g]);
			lo[t] += part_lo[t] * d;
			hi[t] += part_hi[t] * d;
		}
		if (has_min) {
			vf m0 = load(min), m1 = load(min + VW);
			min += PANEL_ROWS;
#pragma GCC unroll 8
			for (int t = 0; t < nt; t++) {
				vf s = splat(x->s[t * n_groups + g]);
				lo[t] -= m0 * s;
				hi[t] -= m1 * s;
			}
		}
	}
	for (int t = 0; t < nt; t++)
		finish(c + t * ld_c, panel->n_rows, lo[t], hi[t], bias, accumulate);
}

INLINE void gemm_q8_form(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *act, int64_t first, int n,
                         const float *bias, bool accumulate, int group, bool has_min, bool is_signed)
{
	int t = 0;
	for (; t + NT <= n; t += NT) {
		ruv_act_row x = ruv_act_get_row(act, first + t);
		block_q8(c + t * ld_c, ld_c, panel, &x, act->k, bias, accumulate, NT, group, has_min, is_signed);
	}
	for (; t + 2 <= n; t += 2) {
		ruv_act_row x = ruv_act_get_row(act, first + t);
		block_q8(c + t * ld_c, ld_c, panel, &x, act->k, bias, accumulate, 2, group, has_min, is_signed);
	}
	if (t < n) {
		ruv_act_row x = ruv_act_get_row(act, first + t);
		block_q8(c + t * ld_c, ld_c, panel, &x, act->k, bias, accumulate, 1, group, has_min, is_signed);
	}
}

static void gemm_q8(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *act, int64_t first, int n, const float *bias,
                    bool accumulate)
{
	if (panel->group == 16)
		gemm_q8_form(c, ld_c, panel, act, first, n, bias, accumulate, 16, false, false);
	else if (panel->has_min)
		gemm_q8_form(c, ld_c, panel, act, first, n, bias, accumulate, 32, true, false);
	else if (panel->offset)
		gemm_q8_form(c, ld_c, panel, act, first, n, bias, accumulate, 32, false, false);
	else
		gemm_q8_form(c, ld_c, panel, act, first, n, bias, accumulate, 32, false, true);
}

/* One gemv and one unpack a type. */
#define FLOAT_TYPES(X) X(RUV_F32) X(RUV_F16) X(RUV_BF16)
#define QUANT_TYPES(X) X(RUV_Q4_0) X(RUV_Q4_1) X(RUV_Q5_0) X(RUV_Q5_1) X(RUV_Q8_0) X(RUV_Q4_K) X(RUV_Q5_K) X(RUV_Q6_K)

#define X(id)                                                                                                                      \
	static void gemv_##id(float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)              \
	{                                                                                                                          \
		gemv_float(id, y, w, row_bytes, n_rows, x, k);                                                                     \
	}                                                                                                                          \
	static void unpack_##id(ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)                          \
	{                                                                                                                          \
		unpack_float(id, panel, w, row_bytes, n_rows, k);                                                                  \
	}                                                                                                                          \
	static void dequantize_##id(float *y, const void *w, int64_t n)                                                            \
	{                                                                                                                          \
		dequantize_float(id, y, w, n);                                                                                     \
	}                                                                                                                          \
	static void mul_rows_##id(float *c, int64_t ld_c, const void *w, size_t row_bytes, int n_rows, const ruv_act *x, int n)    \
	{                                                                                                                          \
		mul_rows_float(id, c, ld_c, w, row_bytes, n_rows, x, n);                                                           \
	}
FLOAT_TYPES(X)
#undef X

#define X(id)                                                                                                                      \
	static void unpack_##id(ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k)                          \
	{                                                                                                                          \
		unpack_q8(id, panel, w, row_bytes, n_rows, k);                                                                     \
	}                                                                                                                          \
	static void dequantize_##id(float *y, const void *w, int64_t n)                                                            \
	{                                                                                                                          \
		dequantize_q8(id, y, w, n);                                                                                        \
	}
QUANT_TYPES(X)
#undef X

#ifndef OWN_QUANT_GEMV
#define X(id)                                                                                                                      \
	static void gemv_##id(float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k)              \
	{                                                                                                                          \
		gemv_q8(id, y, w, row_bytes, n_rows, x, k);                                                                        \
	}
QUANT_TYPES(X)
#undef X
#endif

#include "tensor/cpu/packed.h"

/* ---- elementwise ---- */

static void rms_norm(float *y, const float *x, const float *w, int64_t dim, float eps)
{
	vf acc = splat(0);
	float rest = 0;
	int64_t i = 0;
	for (; i + VW <= dim; i += VW) {
		vf v = load(x + i);
		acc += v * v;
	}
	for (; i < dim; i++)
		rest += x[i] * x[i];
	float scale = 1 / sqrtf((sum_lanes(acc) + rest) / (float)dim + eps);
	for (i = 0; i + VW <= dim; i += VW)
		store(y + i, load(x + i) * splat(scale) * load(w + i));
	for (; i < dim; i++)
		y[i] = x[i] * scale * w[i];
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps)
{
	vf acc = splat(0);
	float rest = 0;
	int64_t i = 0;
	for (; i + VW <= dim; i += VW)
		acc += load(x + i);
	for (; i < dim; i++)
		rest += x[i];
	float mean = (sum_lanes(acc) + rest) / (float)dim;
	acc = splat(0);
	rest = 0;
	for (i = 0; i + VW <= dim; i += VW) {
		vf v = load(x + i) - splat(mean);
		acc += v * v;
	}
	for (; i < dim; i++)
		rest += (x[i] - mean) * (x[i] - mean);
	float scale = 1 / sqrtf((sum_lanes(acc) + rest) / (float)dim + eps);
	for (i = 0; i + VW <= dim; i += VW)
		store(y + i, (load(x + i) - splat(mean)) * splat(scale) * load(w + i) + load(b + i));
	for (; i < dim; i++)
		y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

static void swiglu(float *y, const float *gate, const float *up, int64_t n)
{
	int64_t i = 0;
	for (; i + VW <= n; i += VW) {
		vf g = load(gate + i);
		store(y + i, g / (splat(1) + vexp(-g)) * load(up + i));
	}
	for (; i < n; i++)
		y[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void add(float *y, const float *x, int64_t n)
{
	int64_t i = 0;
	for (; i + VW <= n; i += VW)
		store(y + i, load(y + i) + load(x + i));
	for (; i < n; i++)
		y[i] += x[i];
}

static void conv3(float *restrict y, const float *c, const float *a, const float *b, const float *x, const float *taps, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = c[i] * (taps[3 * i] * a[i] + taps[3 * i + 1] * b[i] + taps[3 * i + 2] * x[i]);
}

static void mul(float *restrict y, const float *a, const float *b, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = a[i] * b[i];
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
	int64_t i = 0;
	for (; i + VW <= n; i += VW) {
		vh h = vh_from_float(load(x + i));
		memcpy(y + i, &h, sizeof h);
	}
	if (i < n) {
		float last[VW] = {0};
		memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
		vh h = vh_from_float(load(last));
		memcpy(y + i, &h, (size_t)(n - i) * sizeof *y);
	}
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
	int64_t i = 0;
	for (; i + VW <= n; i += VW)
		store(y + i, load_float(RUV_F16, (const uint8_t *)(x + i)));
	for (; i < n; i++)
		y[i] = half_to_float(x[i]);
}

/* ---- attention ---- */

/* nt rows of a x one pair of vectors of columns of b */
INLINE void block_tile(float *c, int64_t ld_c, const float *a, int64_t ld_a, const float *b, int64_t ld_b, int k, bool accumulate,
                       int nt, int nv)
{
	vf acc[NT][2];
#pragma GCC unroll 8
	for (int t = 0; t < nt; t++)
		for (int v = 0; v < nv; v++)
			acc[t][v] = accumulate ? load(c + t * ld_c + v * VW) : splat(0);
	for (int l = 0; l < k; l++) {
		vf w[2];
		for (int v = 0; v < nv; v++)
			w[v] = load(b + l * ld_b + v * VW);
#pragma GCC unroll 8
		for (int t = 0; t < nt; t++) {
			vf s = splat(a[t * ld_a + l]);
			for (int v = 0; v < nv; v++)
				acc[t][v] += w[v] * s;
		}
	}
#pragma GCC unroll 8
	for (int t = 0; t < nt; t++)
		for (int v = 0; v < nv; v++)
			store(c + t * ld_c + v * VW, acc[t][v]);
}

INLINE void tile_columns(float *c, int64_t ld_c, const float *a, int64_t ld_a, const float *b, int64_t ld_b, int m, int k,
                         bool accumulate, int nv)
{
	int t = 0;
	for (; t + NT <= m; t += NT)
		block_tile(c + t * ld_c, ld_c, a + t * ld_a, ld_a, b, ld_b, k, accumulate, NT, nv);
	for (; t + 2 <= m; t += 2)
		block_tile(c + t * ld_c, ld_c, a + t * ld_a, ld_a, b, ld_b, k, accumulate, 2, nv);
	if (t < m)
		block_tile(c + t * ld_c, ld_c, a + t * ld_a, ld_a, b, ld_b, k, accumulate, 1, nv);
}

static void tile_mul(float *c, int64_t ld_c, const float *a, int64_t ld_a, const float *b, int64_t ld_b, int m, int n, int k,
                     bool accumulate)
{
	int j = 0;
	for (; j + 2 * VW <= n; j += 2 * VW)
		tile_columns(c + j, ld_c, a, ld_a, b + j, ld_b, m, k, accumulate, 2);
	if (j < n)
		tile_columns(c + j, ld_c, a, ld_a, b + j, ld_b, m, k, accumulate, 1);
}

/* n elements (for Q8_0 whole blocks) of a key or value as floats. */
INLINE void load_token(float *row, const uint8_t *at, ruv_dtype dtype, int n)
{
	if (dtype == RUV_F16)
		f16_to_f32(row, (const uint16_t *)at, n);
	else if (dtype == RUV_F32)
		memcpy(row, at, (size_t)n * sizeof *row);
	else
		for (int b = 0; b < n / 32; b++) {
			const ruv_block_q8_0 *block = (const ruv_block_q8_0 *)at + b;
			float d = half_to_float(block->d);
			for (int j = 0; j < 32; j++)
				row[32 * b + j] = (float)block->qs[j] * d;
		}
}

static void load_values(float *v, int64_t ld_v, const void *values, ruv_dtype dtype, int head_dim, int n_tokens)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int t = 0; t < n_tokens; t++) {
		load_token(v + t * ld_v, (const uint8_t *)values + (size_t)t * row_bytes, dtype, head_dim);
		memset(v + t * ld_v + head_dim, 0, (size_t)(ld_v - head_dim) * sizeof *v);
	}
	memset(v + n_tokens * ld_v, 0, (size_t)((RUV_KV_TILE - n_tokens) * ld_v) * sizeof *v);
}

/* Elements d .. d + VW - 1 of one key or value; for Q8_0 within one block. */
INLINE vf load_kv(ruv_dtype dtype, const uint8_t *row, int d)
{
	if (dtype != RUV_Q8_0)
		return load_float(dtype, row + (size_t)d * (dtype == RUV_F32 ? 4 : 2));
	const ruv_block_q8_0 *block = (const ruv_block_q8_0 *)row + d / 32;
	return __builtin_convertvector(load_signed_bytes(block->qs + d % 32), vf) * splat(half_to_float(block->d));
}

INLINE float load_kv_one(ruv_dtype dtype, const uint8_t *row, int d)
{
	if (dtype != RUV_Q8_0)
		return load_float_one(dtype, row + (size_t)d * (dtype == RUV_F32 ? 4 : 2));
	const ruv_block_q8_0 *block = (const ruv_block_q8_0 *)row + d / 32;
	return (float)block->qs[d % 32] * half_to_float(block->d);
}

INLINE void load_keys_of(float *kt, const uint8_t *keys, ruv_dtype dtype, int head_dim, int n_tokens)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int t = 0; t < RUV_KV_TILE; t += VW) {
		int d = 0;
		for (; d + VW <= head_dim; d += VW) {
			vi rows[VW];
#pragma GCC unroll 16
			for (int i = 0; i < VW; i++)
				rows[i] =
				    t + i < n_tokens ? (vi)load_kv(dtype, keys + (size_t)(t + i) * row_bytes, d) : splat_int(0);
			transpose_words((uint32_t *)(kt + d * RUV_KV_TILE + t), RUV_KV_TILE, rows);
		}
		for (; d < head_dim; d++)
			for (int i = t; i < t + VW; i++)
				kt[d * RUV_KV_TILE + i] = i < n_tokens ? load_kv_one(dtype, keys + (size_t)i * row_bytes, d) : 0;
	}
}

static void load_keys(float *kt, const void *keys, ruv_dtype dtype, int head_dim, int n_tokens)
{
	if (dtype == RUV_F16)
		load_keys_of(kt, keys, RUV_F16, head_dim, n_tokens);
	else if (dtype == RUV_F32)
		load_keys_of(kt, keys, RUV_F32, head_dim, n_tokens);
	else
		load_keys_of(kt, keys, RUV_Q8_0, head_dim, n_tokens);
}

/* Decode: few rows, so the page is used as it lies. Four keys' vectors are loaded once for nr rows, and their sums over the lanes
 * taken together; a row's scores do not depend on how many rows there are. */
INLINE void keys_dot_of(float *scores, const float *q, const uint8_t *keys, const uint8_t *next, ruv_dtype dtype, int head_dim,
                        int n_tokens, int nr)
{
	enum { N_KEYS = 4 };
	const size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	for (int t = 0; t < n_tokens; t += N_KEYS) {
		const uint8_t *key[N_KEYS];
		vf acc[KEY_ROWS][N_KEYS];
		float out[N_KEYS];
		int d = 0;
		if (next)
			fetch_ahead(next + (size_t)t * row_bytes, (size_t)N_KEYS * row_bytes);
#pragma GCC unroll 4
		for (int i = 0; i < N_KEYS; i++) /* behind the last one: the last again */
			key[i] = keys + (size_t)(t + i < n_tokens ? t + i : n_tokens - 1) * row_bytes;
#pragma GCC unroll 4
		for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
			for (int i = 0; i < N_KEYS; i++)
				acc[r][i] = splat(0);
		for (; d + VW <= head_dim; d += VW) {
			vf k[N_KEYS];
#pragma GCC unroll 4
			for (int i = 0; i < N_KEYS; i++)
				k[i] = load_kv(dtype, key[i], d);
#pragma GCC unroll 4
			for (int r = 0; r < nr; r++) {
				const vf x = load(q + r * head_dim + d);
#pragma GCC unroll 4
				for (int i = 0; i < N_KEYS; i++)
					acc[r][i] += k[i] * x;
			}
		}
#pragma GCC unroll 4
		for (int r = 0; r < nr; r++) {
			sum_lanes_4(out, acc[r]);
			for (int i = 0; i < N_KEYS && t + i < n_tokens; i++) {
				for (int e = d; e < head_dim; e++)
					out[i] += load_kv_one(dtype, key[i], e) * q[r * head_dim + e];
				scores[r * RUV_KV_TILE + t + i] = out[i];
			}
		}
	}
}

INLINE void keys_dot_rows(float *scores, const float *q, const uint8_t *keys, const uint8_t *next, ruv_dtype dtype, int n_rows,
                          int head_dim, int n_tokens)
{
	int r = 0;
	for (; KEY_ROWS >= 4 && r + 4 <= n_rows; r += 4)
		keys_dot_of(scores + r * RUV_KV_TILE, q + r * head_dim, keys, r ? NULL : next, dtype, head_dim, n_tokens,
		            KEY_ROWS >= 4 ? 4 : 1);
	for (; r + 2 <= n_rows; r += 2)
		keys_dot_of(scores + r * RUV_KV_TILE, q + r * head_dim, keys, r ? NULL : next, dtype, head_dim, n_tokens, 2);
	if (r < n_rows)
		keys_dot_of(scores + r * RUV_KV_TILE, q + r * head_dim, keys, r ? NULL : next, dtype, head_dim, n_tokens, 1);
}

static void keys_dot(float *scores, const float *q, const void *keys, const void *next, ruv_dtype dtype, int n_rows, int head_dim,
                     int n_tokens)
{
	if (dtype == RUV_F16)
		keys_dot_rows(scores, q, keys, next, RUV_F16, n_rows, head_dim, n_tokens);
	else if (dtype == RUV_F32)
		keys_dot_rows(scores, q, keys, next, RUV_F32, n_rows, head_dim, n_tokens);
	else
		keys_dot_rows(scores, q, keys, next, RUV_Q8_0, n_rows, head_dim, n_tokens);
}

/* nr rows x nv vectors of the output stay in registers over all tokens. */
INLINE void values_add_of(float *out, int64_t ld_out, const float *scores, const uint8_t *values, const uint8_t *next,
                          size_t row_bytes, ruv_dtype dtype, int d, int n_tokens, int nr, int nv)
{
	vf acc[4][VALUE_VECTORS];
#pragma GCC unroll 4
	for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			acc[r][v] = load(out + r * ld_out + d + v * VW);
	for (int t = 0; t < n_tokens; t++) {
		vf value[VALUE_VECTORS];
		if (next)
			fetch_ahead(next + (size_t)t * row_bytes, row_bytes);
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			value[v] = load_kv(dtype, values + (size_t)t * row_bytes, d + v * VW);
#pragma GCC unroll 4
		for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
			for (int v = 0; v < nv; v++)
				acc[r][v] += splat(scores[r * RUV_KV_TILE + t]) * value[v];
	}
#pragma GCC unroll 4
	for (int r = 0; r < nr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			store(out + r * ld_out + d + v * VW, acc[r][v]);
}

INLINE void values_add_rows(float *out, int64_t ld_out, const float *scores, const uint8_t *values, const uint8_t *next,
                            ruv_dtype dtype, int head_dim, int n_tokens, int nr)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, head_dim);
	int d = 0;
	for (; VALUE_VECTORS == 4 && d + 4 * VW <= head_dim; d += 4 * VW)
		values_add_of(out, ld_out, scores, values, d ? NULL : next, row_bytes, dtype, d, n_tokens, nr, VALUE_VECTORS);
	for (; d + 2 * VW <= head_dim; d += 2 * VW)
		values_add_of(out, ld_out, scores, values, d ? NULL : next, row_bytes, dtype, d, n_tokens, nr, 2);
	for (; d + VW <= head_dim; d += VW)
		values_add_of(out, ld_out, scores, values, d ? NULL : next, row_bytes, dtype, d, n_tokens, nr, 1);
	for (; d < head_dim; d++)
		for (int t = 0; t < n_tokens; t++)
			for (int r = 0; r < nr; r++)
				out[r * ld_out + d] +=
				    scores[r * RUV_KV_TILE + t] * load_kv_one(dtype, values + (size_t)t * row_bytes, d);
}

INLINE void values_add_type(float *out, int64_t ld_out, const float *scores, const uint8_t *values, const uint8_t *next,
                            ruv_dtype dtype, int n_rows, int head_dim, int n_tokens)
{
	int r = 0;
	for (; r + 4 <= n_rows; r += 4)
		values_add_rows(out + r * ld_out, ld_out, scores + r * RUV_KV_TILE, values, r ? NULL : next, dtype, head_dim,
		                n_tokens, 4);
	for (; r + 2 <= n_rows; r += 2)
		values_add_rows(out + r * ld_out, ld_out, scores + r * RUV_KV_TILE, values, r ? NULL : next, dtype, head_dim,
		                n_tokens, 2);
	if (r < n_rows)
		values_add_rows(out + r * ld_out, ld_out, scores + r * RUV_KV_TILE, values, r ? NULL : next, dtype, head_dim,
		                n_tokens, 1);
}

static void values_add(float *out, int64_t ld_out, const float *scores, const void *values, const void *next, ruv_dtype dtype,
                       int n_rows, int head_dim, int n_tokens)
{
	if (dtype == RUV_F16)
		values_add_type(out, ld_out, scores, values, next, RUV_F16, n_rows, head_dim, n_tokens);
	else if (dtype == RUV_F32)
		values_add_type(out, ld_out, scores, values, next, RUV_F32, n_rows, head_dim, n_tokens);
	else
		values_add_type(out, ld_out, scores, values, next, RUV_Q8_0, n_rows, head_dim, n_tokens);
}

static float softmax_row(float *s, int from, int to, float scale, float *max, float *sum)
{
	float top = *max, total, keep;
	vf acc = splat(0), best = splat(-INFINITY);

	for (int i = 0; i < from; i++)
		s[i] = -INFINITY;
	for (int i = to; i < RUV_KV_TILE; i++)
		s[i] = -INFINITY;
	for (int i = 0; i < RUV_KV_TILE; i += VW)
		best = vf_max(best, load(s + i));
	total = max_lanes(best) * scale;
	top = total > top ? total : top;
	for (int i = 0; i < RUV_KV_TILE; i += VW) {
		vf e = vexp(load(s + i) * splat(scale) - splat(top));
		store(s + i, e);
	}
	/* What vexp makes of minus infinity is tiny, not zero. */
	for (int i = 0; i < from; i++)
		s[i] = 0;
	for (int i = to; i < RUV_KV_TILE; i++)
		s[i] = 0;
	for (int i = 0; i < RUV_KV_TILE; i += VW)
		acc += load(s + i);
	keep = *max == -INFINITY ? 0 : expf(*max - top);
	*sum = *sum * keep + sum_lanes(acc);
	*max = top;
	return keep;
}

/* ---- the machine's limits ---- */

static double spin_fma(int64_t n)
{
	enum { CHAINS = 12 };
	vf acc[CHAINS], x = splat(0.999f);
	volatile float sink;
	for (int j = 0; j < CHAINS; j++)
		acc[j] = splat((float)j);
	for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 12
		for (int j = 0; j < CHAINS; j++)
			acc[j] = acc[j] * x + x;
	}
	for (int j = 1; j < CHAINS; j++)
		acc[0] += acc[j];
	sink = sum_lanes(acc[0]);
	(void)sink;
	return 2.0 * VW * CHAINS * (double)n;
}

static double spin_dot(int64_t n)
{
	enum { CHAINS = 12 };
	vi acc[CHAINS], x = splat_int(0x01020301), w = splat_int(0x01030201);
	volatile int32_t sink;
	for (int j = 0; j < CHAINS; j++)
		acc[j] = splat_int(j);
	for (int64_t i = 0; i < n; i++) {
		/* Without VNNI the products do not depend on the sums: keep the compiler from hoisting them. */
		__asm__ volatile("" : REGISTER(w));
#pragma GCC unroll 12
		for (int j = 0; j < CHAINS; j++)
			acc[j] = dot(acc[j], w, x);
	}
	for (int j = 1; j < CHAINS; j++)
		acc[0] += acc[j];
	sink = acc[0][0];
	(void)sink;
	return 8.0 * VW * CHAINS * (double)n;
}

static uint64_t read_memory(const void *memory, size_t n_bytes)
{
	const uint8_t *p = memory;
	vi acc[256 / (4 * VW)];
	memset(acc, 0, sizeof acc);
	for (size_t i = 0; i + 256 <= n_bytes; i += 256)
#pragma GCC unroll 16
		for (int j = 0; j < 256 / (4 * VW); j++)
			acc[j] ^= load_codes(p + i + (size_t)j * 4 * VW);
	for (int j = 1; j < 256 / (4 * VW); j++)
		acc[0] ^= acc[j];
	return (uint64_t)(uint32_t)acc[0][0];
}

/* The table's rows, all but its name and what an ISA does in its own way. */
#define GEMV_ROW(id) [id] = gemv_##id,
#define UNPACK_ROW(id) [id] = unpack_##id,
#define DEQUANTIZE_ROW(id) [id] = dequantize_##id,
#define PACK_ROW(id) [id] = pack_##id,
#define MUL_ROWS_ROW(id) [id] = mul_rows_##id,
#define MUL_ROW(id) [id] = mul_##id,
#define EXPAND_ROW(id) [id] = expand_##id,
#define GENERIC_KERNELS                                                                                                            \
	.panel_rows = PANEL_ROWS, .gemv = {FLOAT_TYPES(GEMV_ROW) QUANT_TYPES(GEMV_ROW)},                                           \
	.unpack = {FLOAT_TYPES(UNPACK_ROW) QUANT_TYPES(UNPACK_ROW)},                                                               \
	.dequantize = {FLOAT_TYPES(DEQUANTIZE_ROW) QUANT_TYPES(DEQUANTIZE_ROW)}, .pack = {QUANT_TYPES(PACK_ROW)},                  \
	.mul_rows = {FLOAT_TYPES(MUL_ROWS_ROW)}, .mul_packed = {QUANT_TYPES(MUL_ROW)}, .expand = {QUANT_TYPES(EXPAND_ROW)},        \
	.gemm_f32 = gemm_f32, .gemm_q8 = gemm_q8, .quantize_act = quantize_act, .rms_norm = rms_norm, .layer_norm = layer_norm,    \
	.swiglu = swiglu, .add = add, .conv3 = conv3, .mul = mul, .f32_to_f16 = f32_to_f16, .f16_to_f32 = f16_to_f32,              \
	.tile_mul = tile_mul, .load_keys = load_keys, .load_values = load_values, .keys_dot = keys_dot, .values_add = values_add,  \
	.softmax_row = softmax_row, .spin_fma = spin_fma, .spin_dot = spin_dot, .read_memory = read_memory

#endif

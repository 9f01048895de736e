/* quant_search.c - the codes and scales of every quantized type, by search.
 *
 * A group of n values x with weights w is approximated by  d q + m  (affine: Q4_1, Q5_1, and with m <= 0 the sub-blocks of Q4_K and
 * Q5_K)  or by  d q  with signed q (Q4_0, Q5_0, and the sub-blocks of Q6_K). For fixed codes the best d (and m) is a weighted least
 * squares fit in closed form; the codes for a given scale are roundings. So we try a range of scales around the one that spans the
 * data, round, refit, and keep the fit of least weighted error. For super-blocks the scales are then rounded to their 6 or 8 bits
 * against a super-scale, which is itself refitted to the codes, and the scale codes next to the rounded ones are tried as well.
 *
 * Weights: w = importance of the column * sqrt(2 mean(x^2) + x^2), with importance 1 when none is given: large values matter more,
 * because they multiply whatever comes. Without importance the affine K types use rms + |x| instead.
 *
 * All sums run in eight fixed lanes (GCC vectors), so that the result is the same on every machine, and fast on most. */
#include "tensor/quant_search.h"

#include <math.h>
#include <string.h>

#include "tensor/blocks.h"
#include "tensor/half.h"

typedef float vec __attribute__((vector_size(32)));
typedef int32_t veci __attribute__((vector_size(32)));

enum { LANES = 8, MAX_N = 32 };

#define INLINE static inline __attribute__((always_inline))
/* The search is the cost of quantizing a model: build it twice, choose at load. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&            \
    !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

INLINE vec splat(float x)
{
	return (vec){x, x, x, x, x, x, x, x};
}

INLINE float total(vec v)
{
	return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

INLINE vec vmin(vec a, vec b)
{
	veci less = a < b;
	return (vec)(((veci)a & less) | ((veci)b & ~less));
}

INLINE vec vmax(vec a, vec b)
{
	veci more = a > b;
	return (vec)(((veci)a & more) | ((veci)b & ~more));
}

/* Nearest integer, ties to even: adding 1.5 * 2^23 leaves no room for a fraction. |v| < 2^22. */
INLINE vec nearest(vec v)
{
	const vec magic = splat(12582912.0f);
	return (v + magic) - magic;
}

INLINE vec load(const float *x)
{
	vec v;
	memcpy(&v, x, sizeof v);
	return v;
}

/* Codes in [lo, hi] nearest to (x - m) * inverse. */
INLINE vec codes(vec x, float m, float inverse, float lo, float hi)
{
	vec c = vmin(vmax((x - splat(m)) * splat(inverse), splat(lo)), splat(hi));
	return nearest(c);
}

typedef struct fit {
	float d, m, error; /* x ~ d q + m */
} fit;

/* sum w (d q + m - x)^2 for given codes */
INLINE float error_of(const vec *x, const vec *w, const vec *q, int n_vec, float d, float m)
{
	vec e = splat(0);
	for (int i = 0; i < n_vec; i++) {
		vec r = splat(d) * q[i] + splat(m) - x[i];
		e += w[i] * r * r;
	}
	return total(e);
}

/* The best affine fit with codes 0..n_max; m <= 0 when `negative_min`. */
INLINE fit affine_search(const float *xs, const float *ws, int n, int n_max, bool negative_min)
{
	int n_vec = n / LANES;
	vec x[MAX_N / LANES], w[MAX_N / LANES], q[MAX_N / LANES];
	vec sw = splat(0), swx = splat(0);
	float min = xs[0], max = xs[0];

	for (int i = 0; i < n; i++) {
		min = xs[i] < min ? xs[i] : min;
		max = xs[i] > max ? xs[i] : max;
	}
	for (int i = 0; i < n_vec; i++) {
		x[i] = load(xs + i * LANES);
		w[i] = load(ws + i * LANES);
		sw += w[i];
		swx += w[i] * x[i];
	}
	float sum_w = total(sw), sum_x = total(swx);
	if (negative_min && min > 0)
		min = 0;
	if (max - min < 1e-30f) { /* constant: m alone, or (m may not be positive) d alone with q = n_max */
		fit f = {0, min, 0};
		if (negative_min && max > 0)
			f = (fit){max / (float)n_max, 0, 0};
		return f;
	}
	fit best = {(max - min) / (float)n_max, min, INFINITY};
	/* Scales from finer (clipping the extremes) to coarser, and a lower end that may be pulled in. */
	for (int step = -6; step <= 12; step++) {
		float inverse = ((float)n_max + 0.1f * (float)step * (n_max > 15 ? 1.5f : 1.0f)) / (max - min);
		float m = min, d = 0;
		/* Round, refit; then round to the refitted grid and refit once more. */
		for (int round = 0; round < 2; round++) {
			vec sq = splat(0), sqq = splat(0), sxq = splat(0);
			for (int i = 0; i < n_vec; i++) {
				q[i] = codes(x[i], m, inverse, 0, (float)n_max);
				vec wq = w[i] * q[i];
				sq += wq;
				sqq += wq * q[i];
				sxq += wq * x[i];
			}
			float a = total(sq), b = total(sqq), c = total(sxq), det = sum_w * b - a * a;
			if (!(det > 0))
				break;
			d = (sum_w * c - a * sum_x) / det;
			m = (b * sum_x - a * c) / det;
			if (negative_min && m > 0) {
				m = 0;
				d = c / b;
			}
			float e = error_of(x, w, q, n_vec, d, m);
			if (e < best.error)
				best = (fit){d, m, e};
			if (!(d > 0))
				break;
			inverse = 1 / d;
		}
	}
	if (!(best.error < INFINITY))
		best = (fit){(max - min) / (float)n_max, min, 0};
	return best;
}

/* The best d for signed codes in [-n_max, n_max - 1]; d may be negative, so that the larger side gets the extra code. */
INLINE fit symmetric_search(const float *xs, const float *ws, int n, int n_max)
{
	int n_vec = n / LANES;
	vec x[MAX_N / LANES], w[MAX_N / LANES], q[MAX_N / LANES];
	float extreme = 0;
	fit best = {0, 0, 0};
	vec e0 = splat(0);

	for (int i = 0; i < n; i++)
		extreme = fabsf(xs[i]) > fabsf(extreme) ? xs[i] : extreme;
	if (fabsf(extreme) < 1e-30f)
		return best;
	for (int i = 0; i < n_vec; i++) {
		x[i] = load(xs + i * LANES);
		w[i] = load(ws + i * LANES);
		e0 += w[i] * x[i] * x[i];
	}
	best.error = total(e0); /* all zero */
	for (int step = -10; step <= 10; step++) {
		float span = (float)n_max + 0.12f * (float)step * (n_max > 16 ? 1.6f : n_max > 8 ? 1.3f : 1.0f);
		for (int side = 0; side < 2; side++) {
			float inverse = (side ? span : -span) / extreme, d = 0;
			for (int round = 0; round < 2; round++) {
				vec sqq = splat(0), sxq = splat(0);
				for (int i = 0; i < n_vec; i++) {
					q[i] = codes(x[i], 0, inverse, (float)-n_max, (float)(n_max - 1));
					vec wq = w[i] * q[i];
					sqq += wq * q[i];
					sxq += wq * x[i];
				}
				float b = total(sqq), c = total(sxq);
				if (!(b > 0))
					break;
				d = c / b;
				float e = error_of(x, w, q, n_vec, d, 0);
				if (e < best.error)
					best = (fit){d, 0, e};
				if (d == 0)
					break;
				inverse = 1 / d;
			}
		}
	}
	return best;
}

/* ---- blocks of 32 ---- */

static void store_codes(uint8_t *out, const float *x, int n, float d, float m, int lo, int hi)
{
	float inverse = d != 0 ? 1 / d : 0;
	for (int i = 0; i < n; i++) {
		float c = nearbyintf((x[i] - m) * inverse);
		c = c < (float)lo ? (float)lo : c > (float)hi ? (float)hi : c;
		out[i] = (uint8_t)((int)c - lo);
	}
}

static void pack_nibbles(uint8_t qs[16], const uint8_t c[32])
{
	for (int j = 0; j < 16; j++)
		qs[j] = (uint8_t)((c[j] & 15) | (c[j + 16] & 15) << 4);
}

static void pack_fifth_bits(uint8_t qh[4], const uint8_t c[32])
{
	uint32_t bits = 0;
	for (int j = 0; j < 32; j++)
		bits |= (uint32_t)(c[j] >> 4 & 1) << j;
	memcpy(qh, &bits, 4);
}

static uint16_t to_scale(float d)
{
	/* A scale beyond F16 would become infinite: 65504 is the largest there is. */
	return ruv_f32_to_f16(d > 65504.0f ? 65504.0f : d < -65504.0f ? -65504.0f : d);
}

/* w = importance * sqrt(2 mean(x^2) + x^2). Columns that never saw an activation keep a trace of weight, so that no fit divides by
 * 0. */
static void weigh(float *w, const float *x, const float *importance, int n)
{
	float square = 0, sum = 0;
	for (int j = 0; j < n; j++)
		square += x[j] * x[j];
	for (int j = 0; j < n; j++) {
		w[j] = (importance ? importance[j] : 1) * sqrtf(2 * square / (float)n + x[j] * x[j]);
		sum += w[j];
	}
	for (int j = 0; j < n; j++)
		w[j] = sum > 0 ? w[j] + 1e-6f * sum : 1;
}

CLONES static void quantize_32(void *dst, int dtype, const float *x, const float *importance, int64_t n_blocks)
{
	for (int64_t i = 0; i < n_blocks; i++, x += 32) {
		float w[32];
		uint8_t c[32];
		weigh(w, x, importance ? importance + 32 * i : NULL, 32);
		switch (dtype) {
		case RUV_Q4_0: {
			ruv_block_q4_0 *b = (ruv_block_q4_0 *)dst + i;
			b->d = to_scale(symmetric_search(x, w, 32, 8).d);
			store_codes(c, x, 32, ruv_f16_to_f32(b->d), 0, -8, 7);
			pack_nibbles(b->qs, c);
			break;
		}
		case RUV_Q5_0: {
			ruv_block_q5_0 *b = (ruv_block_q5_0 *)dst + i;
			b->d = to_scale(symmetric_search(x, w, 32, 16).d);
			store_codes(c, x, 32, ruv_f16_to_f32(b->d), 0, -16, 15);
			pack_nibbles(b->qs, c);
			pack_fifth_bits(b->qh, c);
			break;
		}
		case RUV_Q4_1: {
			ruv_block_q4_1 *b = (ruv_block_q4_1 *)dst + i;
			fit f = affine_search(x, w, 32, 15, false);
			b->d = to_scale(f.d);
			b->m = to_scale(f.m);
			store_codes(c, x, 32, ruv_f16_to_f32(b->d), ruv_f16_to_f32(b->m), 0, 15);
			pack_nibbles(b->qs, c);
			break;
		}
		case RUV_Q5_1: {
			ruv_block_q5_1 *b = (ruv_block_q5_1 *)dst + i;
			fit f = affine_search(x, w, 32, 31, false);
			b->d = to_scale(f.d);
			b->m = to_scale(f.m);
			store_codes(c, x, 32, ruv_f16_to_f32(b->d), ruv_f16_to_f32(b->m), 0, 31);
			pack_nibbles(b->qs, c);
			pack_fifth_bits(b->qh, c);
			break;
		}
		}
	}
}

/* Q8_0 needs no search: the largest magnitude becomes 127. */
static void quantize_q8_0(ruv_block_q8_0 *b, const float *x, int64_t n_blocks)
{
	for (int64_t i = 0; i < n_blocks; i++, x += 32) {
		float amax = 0;
		for (int j = 0; j < 32; j++)
			amax = fmaxf(amax, fabsf(x[j]));
		float d = amax / 127, inverse = d > 0 ? 1 / d : 0;
		b[i].d = to_scale(d);
		/* With d at the limit of F16 codes could pass 127. */
		if (amax > 127 * 65504.0f)
			inverse = 1 / 65504.0f;
		for (int j = 0; j < 32; j++) {
			float c = nearbyintf(x[j] * inverse);
			b[i].qs[j] = (int8_t)(c > 127 ? 127 : c < -127 ? -127 : c);
		}
	}
}

/* ---- super-blocks of 256 ---- */

/* error of one sub-block whose codes are rounded to d q - m */
INLINE float grid_error(const float *xs, const float *ws, int n, float d, float m, int lo, int hi)
{
	vec e = splat(0);
	float inverse = d != 0 ? 1 / d : 0;
	for (int i = 0; i < n; i += LANES) {
		vec x = load(xs + i), q = codes(x, -m, inverse, (float)lo, (float)hi);
		vec r = splat(d) * q - splat(m) - x;
		e += load(ws + i) * r * r;
	}
	return total(e);
}

static int clamp_int(float v, int lo, int hi)
{
	float c = nearbyintf(v);
	return c < (float)lo ? lo : c > (float)hi ? hi : (int)c;
}

/* Scale and min codes of the eight sub-blocks for super-scales d and dmin: the rounded ones and their neighbours, whichever is
 * best. Returns the weighted error of all 256. */
INLINE float choose_scale_codes(const float *x, const float *w, const fit *fits, float d, float dmin, int n_max, int sc[8],
                                int mn[8])
{
	float error = 0;
	for (int s = 0; s < 8; s++) {
		int sc0 = d > 0 ? clamp_int(fits[s].d / d, 0, 63) : 0, mn0 = dmin > 0 ? clamp_int(-fits[s].m / dmin, 0, 63) : 0;
		/* All zero is where super-scales too small for F16 end. */
		float best = grid_error(x + 32 * s, w + 32 * s, 32, 0, 0, 0, n_max);
		sc[s] = mn[s] = 0;
		for (int a = sc0 - 1; a <= sc0 + 1; a++)
			for (int b = mn0 - 1; b <= mn0 + 1; b++) {
				if (a < 0 || a > 63 || b < 0 || b > 63)
					continue;
				float e = grid_error(x + 32 * s, w + 32 * s, 32, d * (float)a, dmin * (float)b, 0, n_max);
				if (e < best) {
					best = e;
					sc[s] = a;
					mn[s] = b;
				}
			}
		error += best;
	}
	return error;
}

/* With codes and scale codes fixed, x ~ d (sc q) - dmin mn: least squares for d and dmin over the whole super-block. */
INLINE void refit_super(const float *x, const float *w, const int sc[8], const int mn[8], int n_max, float *d, float *dmin)
{
	double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
	for (int s = 0; s < 8; s++) {
		float ds = *d * (float)sc[s], m = *dmin * (float)mn[s], inverse = ds != 0 ? 1 / ds : 0;
		vec sw = splat(0), sq = splat(0), sqq = splat(0), sx = splat(0), sxq = splat(0);
		for (int i = 32 * s; i < 32 * s + 32; i += LANES) {
			vec xv = load(x + i), wv = load(w + i), q = codes(xv, -m, inverse, 0, (float)n_max), wq = wv * q;
			sw += wv;
			sq += wq;
			sqq += wq * q;
			sx += wv * xv;
			sxq += wq * xv;
		}
		double a = sc[s], b = -mn[s];
		aa += a * a * (double)total(sqq);
		ab += a * b * (double)total(sq);
		bb += b * b * (double)total(sw);
		ax += a * (double)total(sxq);
		bx += b * (double)total(sx);
	}
	double det = aa * bb - ab * ab;
	if (det > 1e-12 * aa * bb && aa > 0 && bb > 0) {
		double nd = (bb * ax - ab * bx) / det, nm = (aa * bx - ab * ax) / det;
		if (nd > 0 && nm >= 0) {
			*d = (float)nd;
			*dmin = (float)nm;
			return;
		}
	}
	if (aa > 0 && bb <= 0 && ax > 0)
		*d = (float)(ax / aa);
}

CLONES static void quantize_k_affine(void *dst, int dtype, const float *x, const float *importance, int64_t n_blocks)
{
	int n_max = dtype == RUV_Q4_K ? 15 : 31;

	for (int64_t i = 0; i < n_blocks; i++, x += 256) {
		float w[256], square = 0, max_d = 0, max_m = 0, d, dmin, best_error = INFINITY;
		fit fits[8];
		int sc[8] = {0}, mn[8] = {0}, best_sc[8] = {0}, best_mn[8] = {0};
		uint16_t best_d = 0, best_dmin = 0;
		uint8_t scales[12] = {0}, c[256], *qs, *qh = NULL;

		for (int j = 0; j < 256; j++)
			square += x[j] * x[j];
		for (int s = 0; s < 8; s++) {
			const float *xs = x + 32 * s;
			float *ws = w + 32 * s, sub = 0, sum = 0;
			for (int j = 0; j < 32; j++)
				sub += xs[j] * xs[j];
			for (int j = 0; j < 32; j++)
				ws[j] = importance ? importance[256 * i + 32 * s + j] * sqrtf(2 * square / 256 + xs[j] * xs[j])
				                   : sqrtf(sub / 32) + fabsf(xs[j]);
			for (int j = 0; j < 32; j++)
				sum += ws[j];
			for (int j = 0; j < 32; j++)
				ws[j] = sum > 0 ? ws[j] + 1e-6f * sum : 1;
			fits[s] = affine_search(xs, ws, 32, n_max, true);
			max_d = fits[s].d > max_d ? fits[s].d : max_d;
			max_m = -fits[s].m > max_m ? -fits[s].m : max_m;
		}
		d = max_d / 63;
		dmin = max_m / 63;
		for (int round = 0; round < 3; round++) {
			uint16_t hd = to_scale(d), hm = to_scale(dmin);
			float error;
			d = ruv_f16_to_f32(hd);
			dmin = ruv_f16_to_f32(hm);
			error = choose_scale_codes(x, w, fits, d, dmin, n_max, sc, mn);
			if (error < best_error) {
				best_error = error;
				best_d = hd;
				best_dmin = hm;
				memcpy(best_sc, sc, sizeof sc);
				memcpy(best_mn, mn, sizeof mn);
			}
			if (round < 2)
				refit_super(x, w, sc, mn, n_max, &d, &dmin);
		}
		d = ruv_f16_to_f32(best_d);
		dmin = ruv_f16_to_f32(best_dmin);
		for (int s = 0; s < 8; s++) {
			store_codes(c + 32 * s, x + 32 * s, 32, d * (float)best_sc[s], -(dmin * (float)best_mn[s]), 0, n_max);
			if (s < 4) {
				scales[s] |= (uint8_t)best_sc[s];
				scales[s + 4] |= (uint8_t)best_mn[s];
			} else {
				scales[s + 4] = (uint8_t)((best_sc[s] & 15) | (best_mn[s] & 15) << 4);
				scales[s - 4] |= (uint8_t)((best_sc[s] >> 4) << 6);
				scales[s] |= (uint8_t)((best_mn[s] >> 4) << 6);
			}
		}
		if (dtype == RUV_Q4_K) {
			ruv_block_q4_k *b = (ruv_block_q4_k *)dst + i;
			b->d = best_d;
			b->dmin = best_dmin;
			memcpy(b->scales, scales, 12);
			qs = b->qs;
		} else {
			ruv_block_q5_k *b = (ruv_block_q5_k *)dst + i;
			b->d = best_d;
			b->dmin = best_dmin;
			memcpy(b->scales, scales, 12);
			qs = b->qs;
			qh = b->qh;
		}
		for (int s = 0; s < 8; s += 2)
			for (int l = 0; l < 32; l++)
				qs[16 * s + l] = (uint8_t)((c[32 * s + l] & 15) | (c[32 * s + 32 + l] & 15) << 4);
		if (qh)
			for (int l = 0; l < 32; l++) {
				qh[l] = 0;
				for (int s = 0; s < 8; s++)
					qh[l] |= (uint8_t)((c[32 * s + l] >> 4) << s);
			}
	}
}

CLONES static void quantize_q6_k(ruv_block_q6_k *b, const float *x, const float *importance, int64_t n_blocks)
{
	for (int64_t i = 0; i < n_blocks; i++, x += 256) {
		float w[256], extreme = 0, best_error = INFINITY, d;
		fit fits[16];
		int sc[16] = {0}, best_sc[16] = {0};
		uint16_t best_d = 0;
		uint8_t c[256];

		for (int s = 0; s < 16; s++) {
			float *ws = w + 16 * s;
			weigh(ws, x + 16 * s, importance ? importance + 256 * i + 16 * s : NULL, 16);
			fits[s] = symmetric_search(x + 16 * s, ws, 16, 32);
			extreme = fabsf(fits[s].d) > fabsf(extreme) ? fits[s].d : extreme;
		}
		d = extreme / -128;
		for (int round = 0; round < 3; round++) {
			uint16_t hd = to_scale(d);
			float error = 0;
			double aa = 0, ax = 0;
			d = ruv_f16_to_f32(hd);
			for (int s = 0; s < 16; s++) {
				int sc0 = d != 0 ? clamp_int(fits[s].d / d, -128, 127) : 0;
				float best = INFINITY;
				for (int a = sc0 - 1; a <= sc0 + 1; a++) {
					if (a < -128 || a > 127)
						continue;
					float e = grid_error(x + 16 * s, w + 16 * s, 16, d * (float)a, 0, -32, 31);
					if (e < best) {
						best = e;
						sc[s] = a;
					}
				}
				error += best;
				float ds = d * (float)sc[s], inverse = ds != 0 ? 1 / ds : 0;
				vec sqq = splat(0), sxq = splat(0);
				for (int j = 16 * s; j < 16 * s + 16; j += LANES) {
					vec q = codes(load(x + j), 0, inverse, -32, 31), wq = load(w + j) * q;
					sqq += wq * q;
					sxq += wq * load(x + j);
				}
				aa += (double)sc[s] * sc[s] * (double)total(sqq);
				ax += (double)sc[s] * (double)total(sxq);
			}
			if (error < best_error) {
				best_error = error;
				best_d = hd;
				memcpy(best_sc, sc, sizeof sc);
			}
			if (aa > 0 && ax != 0)
				d = (float)(ax / aa);
		}
		b[i].d = best_d;
		d = ruv_f16_to_f32(best_d);
		for (int s = 0; s < 16; s++) {
			b[i].scales[s] = (int8_t)best_sc[s];
			store_codes(c + 16 * s, x + 16 * s, 16, d * (float)best_sc[s], 0, -32, 31);
		}
		for (int h = 0; h < 2; h++)
			for (int l = 0; l < 32; l++) {
				const uint8_t *q = c + 128 * h + l;
				b[i].ql[64 * h + l] = (uint8_t)((q[0] & 15) | (q[64] & 15) << 4);
				b[i].ql[64 * h + 32 + l] = (uint8_t)((q[32] & 15) | (q[96] & 15) << 4);
				b[i].qh[32 * h + l] =
				    (uint8_t)(q[0] >> 4 | (q[32] >> 4) << 2 | (q[64] >> 4) << 4 | (q[96] >> 4) << 6);
			}
	}
}

void ruv_quantize_blocks(void *dst, ruv_dtype dtype, const float *x, int64_t n, const float *importance)
{
	switch ((int)dtype) {
	case RUV_Q8_0:
		quantize_q8_0(dst, x, n / 32);
		break;
	case RUV_Q4_K:
	case RUV_Q5_K:
		quantize_k_affine(dst, (int)dtype, x, importance, n / 256);
		break;
	case RUV_Q6_K:
		quantize_q6_k(dst, x, importance, n / 256);
		break;
	default:
		quantize_32(dst, (int)dtype, x, importance, n / 32);
	}
}

/* packed.h - quantized weights laid out for the multiplier: packing, and products with a few rows of activations.
 *
 * A packed panel holds PANEL_ROWS rows in exactly the bytes that they have in the file, so that a repacked model costs no memory
 * and no bandwidth more. The codes of a group of 32 elements are words of four consecutive elements, word w of all rows side by
 * side: one vector register is the same four elements of VW rows, and a dot-product instruction multiplies it with one broadcast
 * word of activations. No sum ever crosses lanes, nothing is shuffled, and the decoding of a vector serves every row of
 * activations.
 *
 *   4-bit codes   vector j (0..3): word j in the low nibbles, word j + 4 in the high ones
 *   fifth bits    one vector a group: bit w of a byte belongs to word w
 *   two high bits two vectors a group: bits 2j, 2j + 1 belong to word j of the first, of the second half
 *   8-bit codes   eight vectors
 *
 * Every vector stands twice, for rows 0 .. VW - 1 and for the rest. Before the codes of a block stand its scales, each as long as
 * in the file, one of every row side by side:
 *
 *   Q4_0 Q5_0 Q8_0   d                              Q4_1 Q5_1  d, m
 *   Q4_K Q5_K        d, dmin, then for groups 0..7 the scale with the top two bits of the minimum above it, then for pairs of
 *                    groups the low four bits of both minima
 *   Q6_K             d, then sixteen 8-bit scales
 *
 * Part of generic.h, which includes it. Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_PACKED_H
#define RUV_TENSOR_CPU_PACKED_H

enum { WORDS = 4 * VW }; /* bytes of a vector of words */

/* dtype.h's functions as constants. */
INLINE int block_elements(ruv_dtype dtype)
{
	return dtype == RUV_Q4_K || dtype == RUV_Q5_K || dtype == RUV_Q6_K ? 256 : 32;
}

INLINE size_t block_bytes(ruv_dtype dtype)
{
	switch ((int)dtype) {
#define X(c, id, text, elements, bytes)                                                                                            \
	case id:                                                                                                                   \
		return bytes;
		RUV_DTYPE_LIST(X)
#undef X
	}
	return 0;
}

/* Bits of a code beyond the nibble; 4: whole bytes. */
INLINE int high_bits(ruv_dtype dtype)
{
	switch ((int)dtype) {
	case RUV_Q5_0:
	case RUV_Q5_1:
	case RUV_Q5_K:
		return 1;
	case RUV_Q6_K:
		return 2;
	case RUV_Q8_0:
		return 4;
	default:
		return 0;
	}
}

/* Bytes of a packed group's codes, and of what stands before the codes of a block. */
INLINE size_t group_bytes(ruv_dtype dtype)
{
	return (size_t)(4 + high_bits(dtype)) * 4 * PANEL_ROWS;
}

INLINE size_t header_bytes(ruv_dtype dtype)
{
	return block_bytes(dtype) * PANEL_ROWS - (size_t)(block_elements(dtype) / 32) * group_bytes(dtype);
}

/* ---- packing ---- */

INLINE uint32_t *packed_words(uint8_t *group, int vector)
{
	return (uint32_t *)(group + (size_t)vector * 2 * WORDS);
}

/* words [8][PANEL_ROWS] of one group */
INLINE void pack_group(ruv_dtype dtype, uint8_t *to, const uint32_t *words)
{
	const int bits = high_bits(dtype);
	if (bits == 4) {
		memcpy(to, words, 8 * PANEL_ROWS * sizeof *words);
		return;
	}
	for (int j = 0; j < 4; j++)
		for (int r = 0; r < PANEL_ROWS; r++)
			packed_words(to, j)[r] =
			    (words[j * PANEL_ROWS + r] & 0x0f0f0f0f) | (words[(j + 4) * PANEL_ROWS + r] & 0x0f0f0f0f) << 4;
	for (int r = 0; r < PANEL_ROWS && bits == 1; r++) {
		uint32_t high = 0;
		for (int j = 0; j < 8; j++)
			high |= (words[j * PANEL_ROWS + r] >> 4 & 0x01010101) << j;
		packed_words(to, 4)[r] = high;
	}
	for (int half = 0; half < 2 && bits == 2; half++)
		for (int r = 0; r < PANEL_ROWS; r++) {
			uint32_t high = 0;
			for (int j = 0; j < 4; j++)
				high |= (words[(4 * half + j) * PANEL_ROWS + r] >> 4 & 0x03030303) << 2 * j;
			packed_words(to, 4 + half)[r] = high;
		}
}

/* Row r's part of a block's header. */
INLINE void pack_header(ruv_dtype dtype, uint8_t *to, const uint8_t *block, int r)
{
	uint16_t *halves = (uint16_t *)to;
	uint8_t *bytes;

	switch ((int)dtype) {
	case RUV_Q4_1:
	case RUV_Q5_1:
		memcpy(halves + PANEL_ROWS + r, block + 2, 2);
		memcpy(halves + r, block, 2);
		break;
	case RUV_Q4_K:
	case RUV_Q5_K:
		memcpy(halves + r, block, 2);
		memcpy(halves + PANEL_ROWS + r, block + 2, 2);
		bytes = to + 4 * PANEL_ROWS + r;
		for (int s = 0; s < 8; s += 2) {
			int scale0, min0, scale1, min1;
			ruv_k_scale_min(block + 4, s, &scale0, &min0);
			ruv_k_scale_min(block + 4, s + 1, &scale1, &min1);
			bytes[s * PANEL_ROWS] = (uint8_t)(scale0 | (min0 >> 4) << 6);
			bytes[(s + 1) * PANEL_ROWS] = (uint8_t)(scale1 | (min1 >> 4) << 6);
			bytes[(8 + s / 2) * PANEL_ROWS] = (uint8_t)((min0 & 15) | (min1 & 15) << 4);
		}
		break;
	case RUV_Q6_K:
		memcpy(halves + r, block + 208, 2);
		for (int s = 0; s < 16; s++)
			to[(2 + s) * PANEL_ROWS + r] = block[192 + s];
		break;
	default:
		memcpy(halves + r, block, 2);
	}
}

INLINE void pack_any(ruv_dtype dtype, uint8_t *to, const void *w, size_t row_bytes, int n_rows, int64_t k)
{
	const int block = block_elements(dtype);
	const size_t one_block = block_bytes(dtype), header = header_bytes(dtype), group = group_bytes(dtype);
	_Alignas(64) uint8_t codes[PANEL_ROWS][CHUNK];
	_Alignas(64) uint32_t words[CHUNK / 4 * PANEL_ROWS];
	float scale[16], min[8];

	memset(codes, 0, sizeof codes);
	for (int64_t i = 0; i < k; i += CHUNK) {
		const int n = (int)(k - i < CHUNK ? k - i : CHUNK);
		const uint8_t *at = (const uint8_t *)w + (size_t)(i / block) * one_block;
		for (int r = 0; r < n_rows; r++)
			decode_chunk(dtype, codes[r], scale, min, at + (size_t)r * row_bytes, n);
		transpose_panel(words, (const uint32_t *)codes[0], CHUNK / 4, n / 4);
		for (int b = 0; b < n / block; b++, to += one_block * PANEL_ROWS) {
			memset(to, 0, header);
			for (int r = 0; r < n_rows; r++)
				pack_header(dtype, to, at + (size_t)r * row_bytes + (size_t)b * one_block, r);
			for (int g = 0; g < block / 32; g++)
				pack_group(dtype, to + header + (size_t)g * group,
				           words + (size_t)(b * block / 32 + g) * 8 * PANEL_ROWS);
		}
	}
}

/* ---- what a packed block means ---- */

INLINE vf load_half(const uint8_t *p)
{
	vh h;
	memcpy(&h, p, sizeof h);
	return vf_from_half(h);
}

/* Scale of group g (half h of it for groups of 16) of the block with this header, for rows v * VW and on. */
INLINE vf packed_scale(ruv_dtype dtype, const uint8_t *header, int g, int h, int v)
{
	vf d = load_half(header + (size_t)v * 2 * VW);
	if (dtype == RUV_Q4_K || dtype == RUV_Q5_K)
		return d * __builtin_convertvector(load_bytes(header + (size_t)(4 + g) * PANEL_ROWS + (size_t)v * VW) & 63, vf);
	if (dtype == RUV_Q6_K)
		return d *
		       __builtin_convertvector(
			   load_signed_bytes((const int8_t *)header + (size_t)(2 + 2 * g + h) * PANEL_ROWS + (size_t)v * VW), vf);
	return d;
}

INLINE vf packed_min(ruv_dtype dtype, const uint8_t *header, int g, int v)
{
	vf m = load_half(header + 2 * PANEL_ROWS + (size_t)v * 2 * VW);
	if (dtype != RUV_Q4_K && dtype != RUV_Q5_K)
		return -m;
	vi high = load_bytes(header + (size_t)(4 + g) * PANEL_ROWS + (size_t)v * VW) >> 2 & 0x30;
	vi low = load_bytes(header + (size_t)(12 + g / 2) * PANEL_ROWS + (size_t)v * VW) >> (g % 2 ? 4 : 0) & 15;
	return m * __builtin_convertvector(high | low, vf);
}

/* Word 4 * half + j of a group for rows v * VW and on. */
INLINE vi packed_code(ruv_dtype dtype, const uint8_t *group, int half, int j, int v)
{
	const int bits = high_bits(dtype), w = 4 * half + j;
	if (bits == 4)
		return load_codes(group + (size_t)(2 * w + v) * WORDS);
	vi q = load_codes(group + (size_t)(2 * j + v) * WORDS);
	q = (half ? q >> 4 : q) & 0x0f0f0f0f;
	if (bits == 1) {
		vi high = load_codes(group + (size_t)(8 + v) * WORDS);
		q |= (w < 4 ? high << (4 - w) : high >> (w - 4)) & 0x10101010;
	} else if (bits == 2) {
		vi high = load_codes(group + (size_t)(8 + 2 * half + v) * WORDS);
		q |= (j < 2 ? high << (4 - 2 * j) : high >> (2 * j - 4)) & 0x30303030;
	}
	return q;
}

/* ---- products ---- */

/* How far before its use a panel is fetched: the processor's own prefetchers do not keep up with a core that decodes. */
enum { PACKED_AHEAD = 12288 };

/* nt rows of activations times one packed panel; dtype and nt are constants where this is inlined. */
INLINE void packed_block(ruv_dtype dtype, float *c, int64_t ld_c, const uint8_t *at, int n_rows, const ruv_act_row *x, int64_t k,
                         const float *bias, bool accumulate, int nt)
{
	const struct form form = form_of(dtype);
	const bool is_signed = dtype == RUV_Q8_0 && Q8_OFFSET == 0;
	const int groups = block_elements(dtype) / 32;
	const int64_t n_groups = k / 32;
	const size_t header = header_bytes(dtype), bytes = group_bytes(dtype);
	/* A group's share of its block, header included, so that every line is fetched once. */
	const size_t share = block_bytes(dtype) * PANEL_ROWS / (size_t)groups;
	const uint8_t *ahead = at + PACKED_AHEAD;
	vf lo[NT], hi[NT];

	for (int t = 0; t < nt; t++)
		lo[t] = hi[t] = splat(0);
	for (int64_t b = 0; b < n_groups; b += groups) {
		const uint8_t *head = at;
		at += header;
		for (int pair = 0; pair < groups; pair += 2)
			for (int g = pair; g < groups && g < pair + 2; g++, at += bytes) {
				const int8_t *q = x->q + 32 * (b + g);
				vi acc_lo[NT], acc_hi[NT];
				vf part_lo[NT], part_hi[NT];
				fetch_ahead(ahead, share);
				ahead += share;
				for (int half = 0; half < 2; half++) {
					const int n_starts = half == 0 || form.group == 16 ? nt : 0;
#pragma GCC unroll 8
					for (int t = 0; t < n_starts; t++) {
						const int32_t *sums = x->sum + 2 * (t * n_groups + b + g);
						int32_t sum = form.group == 16 ? sums[half] : sums[0] + sums[1];
						acc_lo[t] = acc_hi[t] =
						    splat_int(form.offset && !is_signed ? -form.offset * sum : 0);
					}
#pragma GCC unroll 4
					for (int j = 0; j < 4; j++) {
						vi w0 = packed_code(dtype, at, half, j, 0), w1 = packed_code(dtype, at, half, j, 1);
#pragma GCC unroll 8
						for (int t = 0; t < nt; t++) {
							vi word = splat_word(q + t * k + 16 * half + 4 * j);
							acc_lo[t] =
							    is_signed ? dot_signed(acc_lo[t], w0, word) : dot(acc_lo[t], w0, word);
							acc_hi[t] =
							    is_signed ? dot_signed(acc_hi[t], w1, word) : dot(acc_hi[t], w1, word);
						}
					}
					if (form.group == 32 && half == 0)
						continue;
					vf s0 = packed_scale(dtype, head, g, half, 0), s1 = packed_scale(dtype, head, g, half, 1);
#pragma GCC unroll 8
					for (int t = 0; t < nt; t++) {
						vf p0 = __builtin_convertvector(acc_lo[t], vf) * s0,
						   p1 = __builtin_convertvector(acc_hi[t], vf) * s1;
						part_lo[t] = form.group == 16 && half ? part_lo[t] + p0 : p0;
						part_hi[t] = form.group == 16 && half ? part_hi[t] + p1 : p1;
					}
				}
#pragma GCC unroll 8
				for (int t = 0; t < nt; t++) {
					vf d = splat(x->d[t * n_groups + b + g]);
					lo[t] += part_lo[t] * d;
					hi[t] += part_hi[t] * d;
				}
				if (form.has_min) {
					vf m0 = packed_min(dtype, head, g, 0), m1 = packed_min(dtype, head, g, 1);
#pragma GCC unroll 8
					for (int t = 0; t < nt; t++) {
						vf s = splat(x->s[t * n_groups + b + g]);
						lo[t] -= m0 * s;
						hi[t] -= m1 * s;
					}
				}
			}
	}
	for (int t = 0; t < nt; t++)
		finish(c + t * ld_c, n_rows, lo[t], hi[t], bias, accumulate);
}

INLINE void packed_mul(ruv_dtype dtype, float *c, int64_t ld_c, const uint8_t *panel, int n_rows, const ruv_act *act, int n,
                       const float *bias, bool accumulate)
{
	const int64_t k = act->k;
	for (int t = 0; t < n;) {
		/* Blocks of about equal size: 8 rows are 4 and 4, not 6 and 2. */
		int blocks = (n - t + NT - 1) / NT, nt = (n - t + blocks - 1) / blocks;
		ruv_act_row x = ruv_act_get_row(act, t);
		float *to = c + t * ld_c;
		switch (nt) {
		case 1:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 1);
			break;
		case 2:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 2);
			break;
#if NT_MAX > 2
		case 3:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 3);
			break;
		case 4:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 4);
			break;
		case 5:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 5);
			break;
		case 6:
			packed_block(dtype, to, ld_c, panel, n_rows, &x, k, bias, accumulate, 6);
			break;
#endif
		}
		t += nt;
	}
}

/* A packed panel as gemm wants it: decoded once for many rows of activations. The sums are the same, bit for bit but for Q6_K. */
INLINE void packed_expand(ruv_dtype dtype, ruv_panel *panel, const uint8_t *at, int n_rows, int64_t k)
{
	const struct form form = form_of(dtype);
	const int groups = block_elements(dtype) / 32;
	const size_t header = header_bytes(dtype), bytes = group_bytes(dtype);
	uint8_t *q = panel->q;
	float *scale = panel->scale, *min = panel->min;

	panel->k = k;
	panel->n_rows = n_rows;
	panel->group = form.group;
	panel->offset = form.offset;
	panel->has_min = form.has_min;
	for (int64_t b = 0; b < k / 32; b += groups) {
		const uint8_t *head = at;
		at += header;
		for (int g = 0; g < groups; g++, at += bytes, q += 32 * PANEL_ROWS) {
#pragma GCC unroll 2
			for (int v = 0; v < 2; v++) {
#pragma GCC unroll 8
				for (int w = 0; w < 8; w++) {
					vi code = packed_code(dtype, at, w / 4, w % 4, v);
					memcpy(q + (size_t)(2 * w + v) * WORDS, &code, sizeof code);
				}
				for (int h = 0; h < 32 / form.group; h++)
					store(scale + h * PANEL_ROWS + v * VW, packed_scale(dtype, head, g, h, v));
				if (form.has_min)
					store(min + v * VW, packed_min(dtype, head, g, v));
			}
			scale += 32 / form.group * PANEL_ROWS;
			min += PANEL_ROWS;
		}
	}
}

#define X(id)                                                                                                                      \
	static void expand_##id(ruv_panel *panel, const uint8_t *packed, int n_rows, int64_t k)                                    \
	{                                                                                                                          \
		packed_expand(id, panel, packed, n_rows, k);                                                                       \
	}                                                                                                                          \
	static void pack_##id(uint8_t *to, const void *w, size_t row_bytes, int n_rows, int64_t k)                                 \
	{                                                                                                                          \
		pack_any(id, to, w, row_bytes, n_rows, k);                                                                         \
	}                                                                                                                          \
	static void mul_##id(float *c, int64_t ld_c, const uint8_t *packed, int n_rows, const ruv_act *x, int n,                   \
	                     const float *bias, bool accumulate)                                                                   \
	{                                                                                                                          \
		packed_mul(id, c, ld_c, packed, n_rows, x, n, bias, accumulate);                                                   \
	}
QUANT_TYPES(X)
#undef X

#endif

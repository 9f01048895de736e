/* kernels.h - the table of inner loops that every instruction set fills in, and the forms of data that they share.
 *
 * One table an ISA: ref (plain C, the reference of every test), avx2, avx512, avx512_vnni, neon. The backend takes the best one
 * that the processor and the operating system allow (table.c); an op never asks which one it got.
 *
 * Activations. A row x[k] is used as it is by F32, F16 and BF16 weights. For the quantized types it is quantized once for all
 * weights that read it: int8 codes in groups of 32 with one F32 scale, x = d q, |q| <= 127, plus the sums of the codes that correct
 * for unsigned weight codes and for minima. Dot products of codes are exact in int32.
 *
 * Weights. A quantized weight is w = scale * (code - offset) - min with an unsigned code of at most 8 bits, a scale for every 16 or
 * 32 elements of a row and (some types) a min for every 32. gemv reads the file's blocks directly, for one row of activations. gemm
 * works on a panel: `panel_rows` weight rows whose codes are laid out [k / 4][panel_rows][4], so that one vector holds four
 * consecutive elements of many rows and meets one broadcast 32-bit word of activations. unpack makes a panel out of blocks; the
 * packed form (packed.h) has the same words in the file's number of bytes; it is made once and needs no unpacking.
 *
 * Threads: pure functions on the caller's memory. Layer: tensor. */
#ifndef RUV_TENSOR_CPU_KERNELS_H
#define RUV_TENSOR_CPU_KERNELS_H

#include "base/cpu.h"
#include "tensor/dtype.h"

enum {
	RUV_MAX_PANEL_ROWS = 32,
	RUV_KV_TILE = 64, /* tokens of a key/value tile: one page */
};

/* One row of activations in both forms. `f` is always there; the others when a quantized weight reads the row. */
typedef struct ruv_act_row {
	const float *f;     /* [k] */
	const int8_t *q;    /* [k] codes */
	const float *d;     /* [k / 32] scale of a group */
	const float *s;     /* [k / 32] d * (sum of the group's codes) */
	const int32_t *sum; /* [k / 16] sum of 16 codes */
} ruv_act_row;

/* n rows of activations: row i of each array starts at i * (its row length). */
typedef struct ruv_act {
	float *f;
	int8_t *q;
	float *d, *s;
	int32_t *sum;
	int64_t k;
} ruv_act;

/* Weight rows unpacked for gemm. The arrays are the caller's; see ruv_panel_bytes. */
typedef struct ruv_panel {
	float *f;     /* float weights: [k][panel_rows] */
	uint8_t *q;   /* quantized: [k / 4][panel_rows][4] */
	float *scale; /* [k / group][panel_rows] */
	float *min;   /* [k / 32][panel_rows]; read only when has_min */
	int64_t k;
	int n_rows; /* of panel_rows that exist; the rest is zero */
	int group;  /* 16 or 32 */
	int offset; /* subtracted from every code */
	bool has_min;
} ruv_panel;

/* y[r] = sum over k of w[r, k] * x[k] for n_rows rows that lie row_bytes apart. */
typedef void ruv_gemv_fn(float *y, const void *w, size_t row_bytes, int n_rows, const ruv_act_row *x, int64_t k);
/* Fills a panel from n_rows <= panel_rows rows. */
typedef void ruv_unpack_fn(ruv_panel *panel, const void *w, size_t row_bytes, int n_rows, int64_t k);
/* One packed panel (packed.h) of panel_rows * row_bytes bytes from n_rows <= panel_rows rows; `to` is 64-byte aligned. */
typedef void ruv_pack_fn(uint8_t *to, const void *w, size_t row_bytes, int n_rows, int64_t k);
/* The panel for gemm out of a packed one. */
typedef void ruv_expand_fn(ruv_panel *panel, const uint8_t *packed, int n_rows, int64_t k);
/* c[t, r] (+)= packed row r * activation row t (+ bias[r]) for t in [0, n), r in [0, n_rows). */
typedef void ruv_mul_packed_fn(float *c, int64_t ld_c, const uint8_t *packed, int n_rows, const ruv_act *x, int n,
                               const float *bias, bool accumulate);
/* c[t, r] = weight row r * activation row t for rows that lie row_bytes apart; each weight is read once for all t. Float types. */
typedef void ruv_mul_rows_fn(float *c, int64_t ld_c, const void *w, size_t row_bytes, int n_rows, const ruv_act *x, int n);
/* y[0..n) = the values of a piece of a row; n is a multiple of the block. */
typedef void ruv_dequantize_fn(float *y, const void *w, int64_t n);
/* c[t, r] (+)= panel row r * activation row t (+ bias[r]) for t in [0, n), r in [0, panel->n_rows). */
typedef void ruv_gemm_fn(float *c, int64_t ld_c, const ruv_panel *panel, const ruv_act *x, int64_t first, int n, const float *bias,
                         bool accumulate);

typedef struct ruv_kernels {
	const char *name; /* "avx512-vnni" */
	int panel_rows;
	/* [dtype]; NULL where a type cannot be multiplied (integers). */
	ruv_gemv_fn *gemv[RUV_DTYPE_END];
	ruv_unpack_fn *unpack[RUV_DTYPE_END];
	ruv_gemm_fn *gemm_f32, *gemm_q8;
	ruv_dequantize_fn *dequantize[RUV_DTYPE_END];
	ruv_mul_rows_fn *mul_rows[RUV_DTYPE_END]; /* NULL where there is none */
	/* NULL where a type (or this table) has no packed form. */
	ruv_pack_fn *pack[RUV_DTYPE_END];
	ruv_expand_fn *expand[RUV_DTYPE_END];
	ruv_mul_packed_fn *mul_packed[RUV_DTYPE_END];

	/* Quantizes row i of x->f into the other arrays. */
	void (*quantize_act)(ruv_act *x, int64_t i);

	/* Elementwise, on one row. */
	void (*rms_norm)(float *y, const float *x, const float *w, int64_t dim, float eps);
	void (*layer_norm)(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps);
	void (*swiglu)(float *y, const float *gate, const float *up, int64_t n);
	void (*add)(float *y, const float *x, int64_t n);
	/* y = c * (w0 a + w1 b + w2 x), over channels; taps [n][3]. a, b NULL: zero. One token of the short convolution. */
	void (*conv3)(float *y, const float *c, const float *a, const float *b, const float *x, const float *taps, int64_t n);
	/* y = a * b */
	void (*mul)(float *y, const float *a, const float *b, int64_t n);
	void (*f32_to_f16)(uint16_t *y, const float *x, int64_t n);
	void (*f16_to_f32)(float *y, const uint16_t *x, int64_t n);

	/* Attention, on tiles in F32. n is a multiple of 16, rows of b and c are at least n long.
	 * c[m, n] (+)= a[m, k] * b[k, n] */
	void (*tile_mul)(float *c, int64_t ld_c, const float *a, int64_t ld_a, const float *b, int64_t ld_b, int m, int n, int k,
	                 bool accumulate);
	/* kt[d][64] = transpose of 64 keys [64][head_dim] in `dtype`; tokens from n_tokens up become zero. */
	void (*load_keys)(float *kt, const void *keys, ruv_dtype dtype, int head_dim, int n_tokens);
	/* v[64][ld_v] likewise, not transposed. */
	void (*load_values)(float *v, int64_t ld_v, const void *values, ruv_dtype dtype, int head_dim, int n_tokens);
	/* The same two products for a few rows of queries, straight from the page: scores[r][64] (the first n_tokens of each) =
	 * q[r, :] . key t; out[r, :] += sum over t of scores[r][t] * value t. q: [n_rows][head_dim], out: [n_rows][ld_out].
	 * next: rows as long as these that will be read afterwards and are fetched meanwhile, or NULL. */
	void (*keys_dot)(float *scores, const float *q, const void *keys, const void *next, ruv_dtype dtype, int n_rows,
	                 int head_dim, int n_tokens);
	void (*values_add)(float *out, int64_t ld_out, const float *scores, const void *values, const void *next, ruv_dtype dtype,
	                   int n_rows, int head_dim, int n_tokens);
	/* One row of online softmax: s[64] are scores, of which [from, to) count (to > from). With *max and *sum of the row so far:
	 * s becomes exp(scale * s - new max), zero outside; *max, *sum are updated; returns what the row's output so far must be
	 * multiplied with. */
	float (*softmax_row)(float *s, int from, int to, float scale, float *max, float *sum);

	/* What the machine can do at most, for benchmarks: each runs the fastest instruction of its kind n times in a loop of
	 * registers (resp. reads memory) and returns how many operations that was, a multiplication and an addition counting as
	 * two. */
	double (*spin_fma)(int64_t n);
	double (*spin_dot)(int64_t n);
	uint64_t (*read_memory)(const void *memory, size_t n_bytes); /* a checksum; n_bytes a multiple of 256 */
} ruv_kernels;

/* The best table that this cpu allows; never NULL. */
const ruv_kernels *ruv_kernels_pick(const ruv_cpu *cpu);
/* Every table that this cpu allows, best first, ref last; returns how many (at most cap). For tests and benchmarks. */
int ruv_kernels_all(const ruv_cpu *cpu, const ruv_kernels **tables, int cap);

/* Does this weight type read quantized activations? */
bool ruv_dtype_wants_q8(ruv_dtype dtype);

/* A panel for up to k elements of every type inside `memory` (64-byte aligned, ruv_panel_bytes(panel_rows, k) long). */
size_t ruv_panel_bytes(int panel_rows, int64_t k);
void ruv_panel_place(ruv_panel *panel, void *memory, int panel_rows, int64_t k);
/* Activations of n rows of k elements inside `memory` (64-byte aligned, ruv_act_bytes(n, k) long); f stays the caller's. */
size_t ruv_act_bytes(int64_t n, int64_t k);
void ruv_act_place(ruv_act *x, void *memory, int64_t n, int64_t k);
ruv_act_row ruv_act_get_row(const ruv_act *x, int64_t i);

/* The tables; each exists where its architecture does. */
extern const ruv_kernels ruv_kernels_ref;
#if defined(__x86_64__)
extern const ruv_kernels ruv_kernels_avx2, ruv_kernels_avx512, ruv_kernels_avx512_vnni;
#elif defined(__aarch64__)
extern const ruv_kernels ruv_kernels_neon;
#endif

#endif

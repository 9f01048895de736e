/* ops.h - what a model graph may ask of a backend: weights, buffers, and the operations of a forward pass.
 *
 * A model graph is written once over this header. A backend owns the bytes behind every `ruv_tensor` and `ruv_buffer` on its own
 * device; the graph never dereferences them. Activations are F32, rows contiguous; weights are any dtype of dtype.h, [n_out rows of
 * n_in elements]. Operations are asynchronous in principle: a failure inside one sticks, and ruv_backend_sync reports it. The CPU
 * backend runs each operation to its end on its thread pool.
 *
 * Shapes are given as [rows, elements of a row]. `n` is the number of rows, one row a token.
 *
 * Threads: one thread drives a backend at a time (the engine thread). Allocation happens only in open, bind, buffer_create and
 * reserve; no operation allocates.
 * Layer: tensor. */
#ifndef RUV_TENSOR_OPS_H
#define RUV_TENSOR_OPS_H

#include "ruvllm/types.h"
#include "tensor/dtype.h"

typedef struct ruv_backend ruv_backend;

/* A weight on a backend. `data` is the backend's address of it, `packed` the backend's own form of it (or NULL). */
typedef struct ruv_tensor {
	const void *data;
	void *packed;
	ruv_dtype dtype;
	int64_t n_in;  /* elements of a row, contiguous */
	int64_t n_out; /* rows; 1 for a vector */
	bool mapped;   /* set by who binds it: data lies in a read-only mapping of a file, whose pages may be given back to the
	                * system once the backend has a form of its own (they come back from the file when they are read) */
} ruv_tensor;

/* ---- backend ---- */

/* The CPU: n_threads 0 means one per core. */
int ruv_backend_open_cpu(ruv_backend **out, int n_threads, ruv_error *err);
void ruv_backend_free(ruv_backend *backend);
/* "cpu (avx512-vnni, 2 threads)" */
const char *ruv_backend_describe(const ruv_backend *backend);
int ruv_backend_n_threads(const ruv_backend *backend);
/* Waits for everything asked so far; the first failure since the last sync, if any. */
int ruv_backend_sync(ruv_backend *backend, ruv_error *err);
/* Makes room for operations on up to n_rows rows of up to n_elements and for attention over up to n_context tokens. Grows only. */
int ruv_backend_reserve(ruv_backend *backend, int n_rows, int64_t n_elements, int64_t n_context, ruv_error *err);

/* Binds a weight to bytes that outlive it (a mapped file). The CPU uses them in place until the first product with a quantized
 * matrix lays it out anew (packed), which costs one pass over its bytes; another device copies. */
int ruv_backend_bind(ruv_backend *backend, ruv_tensor *tensor, ruv_dtype dtype, int64_t n_in, int64_t n_out, const void *bytes,
                     ruv_error *err);
void ruv_backend_unbind(ruv_backend *backend, ruv_tensor *tensor);

/* Whether matrices bound from now on are packed (the default). */
void ruv_backend_set_packing(ruv_backend *backend, bool packing);
/* What packing has cost so far: bytes of the backend's own forms, and the time it took to make them. Any pointer may be NULL. */
void ruv_backend_packed(const ruv_backend *backend, size_t *n_bytes, int64_t *ns);

/* Zeroed memory on the device, 64-byte aligned. */
int ruv_backend_alloc(ruv_backend *backend, void **address, size_t n_bytes, ruv_error *err);
void ruv_backend_release(ruv_backend *backend, void *address);
void ruv_backend_upload(ruv_backend *backend, void *address, const void *host, size_t n_bytes);
void ruv_backend_download(ruv_backend *backend, void *host, const void *address, size_t n_bytes);
void ruv_backend_copy(ruv_backend *backend, void *to, const void *from, size_t n_bytes);
void ruv_backend_zero(ruv_backend *backend, void *address, size_t n_bytes);

/* ---- operations; every float* is a backend address unless it says host ---- */

/* y[i, :] = row ids[i] of `table` as F32. ids: host [n]. y: [n, table.n_in]. */
void ruv_op_get_rows(ruv_backend *backend, float *y, const ruv_tensor *table, const int32_t *ids, int n);

/* One matrix of a group that reads the same activations: y[n, w.n_out] = x[n, w.n_in] * w^T + bias. */
typedef struct ruv_linear {
	float *y;               /* [n, ld_y], must not overlap x */
	int64_t ld_y;           /* elements from one row of y to the next, >= w->n_out */
	const ruv_tensor *w;    /* [n_out, n_in] */
	const ruv_tensor *bias; /* F32 [n_out] or NULL */
	bool accumulate;        /* y += instead of y = (residual stream) */
} ruv_linear;

/* Quantizes x once for all weights of the group that want the same form. x: [n, n_in of every w]. */
void ruv_op_linear(ruv_backend *backend, const ruv_linear *group, int n_group, const float *x, int n);

/* The product of the transpose, which carries a gradient back through a matrix: dx[n, w.n_in] (+)= dy[n, w.n_out] * w, in F32 over
 * the dequantized weight, for every float or block type. ld_dy: elements from one row of dy to the next, >= w->n_out. dx must not
 * overlap dy. */
void ruv_op_linear_transposed(ruv_backend *backend, float *dx, const ruv_tensor *w, const float *dy, int64_t ld_dy, int n,
                              bool accumulate);

/* y = x / rms(x) * w, over rows of `dim`. In place allowed. For per-head norms pass n * n_heads rows of head_dim. */
void ruv_op_rms_norm(ruv_backend *backend, float *y, const float *x, const ruv_tensor *w, int64_t n, int64_t dim, float eps);
/* y = (x - mean) / sqrt(var + eps) * w + b. In place allowed. */
void ruv_op_layer_norm(ruv_backend *backend, float *y, const float *x, const ruv_tensor *w, const ruv_tensor *b, int64_t n,
                       int64_t dim, float eps);
/* y = silu(gate) * up, elementwise over n_elements. In place on either allowed. */
void ruv_op_swiglu(ruv_backend *backend, float *y, const float *gate, const float *up, int64_t n_elements);
/* y += x */
void ruv_op_add(ruv_backend *backend, float *y, const float *x, int64_t n_elements);

typedef enum ruv_rope_kind {
	RUV_ROPE_NEOX,       /* pairs (i, i + n_rot/2): LFM2, Qwen */
	RUV_ROPE_INTERLEAVED /* pairs (2i, 2i + 1): Llama in GGUF */
} ruv_rope_kind;

typedef struct ruv_rope {
	ruv_rope_kind kind;
	int n_rot;              /* rotated elements of a head, even, <= head_dim */
	const float *frequency; /* host [n_rot / 2]: radians per position (theta, scaling and rope_freqs folded in) */
	float magnitude;        /* multiplies cos and sin (YaRN), else 1 */
} ruv_rope;

/* Rotates x[n, n_heads, head_dim] in place; positions: host [n]. */
void ruv_op_rope(ruv_backend *backend, float *x, const ruv_rope *rope, const int32_t *positions, int n, int n_heads, int head_dim);

enum { RUV_KV_PAGE_TOKENS = 64 };

/* One layer's keys and values in pages of 64 tokens.
 * Page p of K starts at k + p * page_bytes and holds [n_kv_heads][64][head_dim] elements of dtype; V the same. */
typedef struct ruv_kv_layer {
	void *k, *v;
	ruv_dtype dtype; /* RUV_F32, RUV_F16 or RUV_Q8_0 (head_dim % 32 == 0) */
	int n_kv_heads, head_dim;
	size_t page_bytes; /* n_kv_heads * 64 * row_bytes(head_dim) */
} ruv_kv_layer;

/* The rows of a batch that belong to one sequence; all arrays are host memory. */
typedef struct ruv_batch_seq {
	int first_row, n_rows; /* rows [first_row, first_row + n_rows) of the batch */
	int position;          /* of its first row in the sequence */
	const int32_t *pages;  /* page of tokens [64 i, 64 i + 64) of the sequence; covers position + n_rows tokens */
	void *conv_state;      /* backend address of this sequence's state in this layer [2, dim]; see ruv_op_short_conv */
	void *conv_columns;    /* NULL, or [n_rows + 2, dim]: the state before and g of every row, so that the state behind row i
	                        * is columns i + 1 and i + 2 (taking rows back). Causal only */
} ruv_batch_seq;

/* Stores k, v [n, n_kv_heads, head_dim] F32 at the positions of the sequences' rows. */
void ruv_op_kv_write(ruv_backend *backend, const ruv_kv_layer *kv, const float *k, const float *v, const ruv_batch_seq *seqs,
                     int n_seqs);

typedef struct ruv_attention {
	int n_heads;        /* a multiple of kv.n_kv_heads */
	float scale;        /* 1 / sqrt(head_dim) */
	int window;         /* sliding window in tokens, 0: none */
	bool bidirectional; /* every row sees all position + n_rows tokens of its sequence */
} ruv_attention;

/* y, q: [n, n_heads, head_dim]. Row i at position p of its sequence sees tokens [max(0, p - window + 1), p]. */
void ruv_op_attention(ruv_backend *backend, float *y, const float *q, const ruv_kv_layer *kv, const ruv_attention *attention,
                      const ruv_batch_seq *seqs, int n_seqs);

/* The gated short convolution of LFM2 on bcx [n, 3 dim] (B, C, X): g = B * X;
 *   causal:  y_t = C_t * (w0 g_{t-2} + w1 g_{t-1} + w2 g_t), the state of each sequence holds g of its last two tokens
 *            [2, dim] (older first) and is updated;
 *   centred: y_t = C_t * (w0 g_{t-1} + w1 g_t + w2 g_{t+1}), zero beyond the sequence's rows; conv_state is not used.
 * taps: F32 [dim rows of 3]. y: [n, dim]. */
void ruv_op_short_conv(ruv_backend *backend, float *y, const float *bcx, const ruv_tensor *taps, int64_t dim, bool centred,
                       const ruv_batch_seq *seqs, int n_seqs);

/* y[i, :] = x[rows[i], :]; rows: host [n]. For the logits of only the rows that are needed. */
void ruv_op_take_rows(ruv_backend *backend, float *y, const float *x, const int32_t *rows, int n, int64_t dim);
/* y[s, :] = mean of the rows of sequence s. y: [n_seqs, dim]. */
void ruv_op_mean_pool(ruv_backend *backend, float *y, const float *x, int64_t dim, const ruv_batch_seq *seqs, int n_seqs);

#endif

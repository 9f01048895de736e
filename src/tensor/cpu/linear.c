/* linear.c - matrix products: every weight of a group multiplied with the same rows of activations, and table look-ups.
 *
 * A quantized matrix is packed by its first product (pack.c), and a task is a run of its panels, each read once for all rows of
 * activations (decoded again for every few of them up to PACKED_ROWS_MAX, once for all beyond). Matrices without a packed form are
 * read where they lie: for one or two rows of activations by runs of weight rows (gemv; mul_rows of float types up to MUL_ROWS_MAX
 * rows), for more a task unpacks one panel and multiplies it with all rows of activations (gemm), so that the cost of unpacking is
 * shared by all of them. */
#include <string.h>

#include "tensor/cpu/backend.h"
#include "tensor/quant.h"

enum {
	MAX_GROUP = 16,
	GEMV_ROWS_MAX = 2,
	GEMV_CHUNK = 64,
	MUL_ROWS_MAX = 16,
	PACKED_ROWS_MAX = 24,
	SMALL_TASK = 16384,
	LARGE_TASK = 262144
};

struct job {
	ruv_backend *backend;
	const ruv_linear *group;
	ruv_act x;
	int n_group, n;
	int first_task[MAX_GROUP + 1]; /* of each weight */
	int64_t rows_per_task[MAX_GROUP];
	const uint8_t *packed[MAX_GROUP]; /* NULL: as it lies in the file */
};

static void quantize_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	(void)thread;
	job->backend->k->quantize_act(&job->x, task);
}

/* Weight rows [from, to) of matrix g, as they lie, for at most MUL_ROWS_MAX rows of activations. */
static void mul_in_place(const struct job *job, int g, int64_t from, int64_t to)
{
	const ruv_linear *l = &job->group[g];
	const ruv_tensor *w = l->w;
	const float *bias = l->bias ? l->bias->data : NULL;
	const size_t row_bytes = ruv_dtype_row_bytes(w->dtype, w->n_in);
	const ruv_kernels *k = job->backend->k;

	for (int64_t r = from; r < to; r += GEMV_CHUNK) {
		const uint8_t *rows = (const uint8_t *)w->data + (size_t)r * row_bytes;
		const int n_rows = (int)(to - r < GEMV_CHUNK ? to - r : GEMV_CHUNK);
		float out[MUL_ROWS_MAX][GEMV_CHUNK];
		if (k->mul_rows[w->dtype] && job->n > 1)
			k->mul_rows[w->dtype](out[0], GEMV_CHUNK, rows, row_bytes, n_rows, &job->x, job->n);
		else
			for (int t = 0; t < job->n; t++) {
				ruv_act_row x = ruv_act_get_row(&job->x, t);
				k->gemv[w->dtype](out[t], rows, row_bytes, n_rows, &x, w->n_in);
			}
		for (int t = 0; t < job->n; t++) {
			float *y = l->y + t * l->ld_y + r;
			for (int i = 0; i < n_rows; i++)
				y[i] = (l->accumulate ? y[i] : 0) + out[t][i] + (bias ? bias[r + i] : 0);
		}
	}
}

static bool in_place(const ruv_kernels *k, ruv_dtype dtype, int n)
{
	return n <= (k->mul_rows[dtype] ? MUL_ROWS_MAX : GEMV_ROWS_MAX);
}

static void linear_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	const ruv_kernels *k = job->backend->k;
	int g = 0;
	while (task >= job->first_task[g + 1])
		g++;
	const ruv_linear *l = &job->group[g];
	const ruv_tensor *w = l->w;
	const size_t row_bytes = ruv_dtype_row_bytes(w->dtype, w->n_in),
		     panel_bytes = ((size_t)k->panel_rows * row_bytes + 63) & ~(size_t)63;
	int64_t r = (task - job->first_task[g]) * job->rows_per_task[g], to = r + job->rows_per_task[g];
	to = to < w->n_out ? to : w->n_out;

	if (!job->packed[g] && in_place(k, w->dtype, job->n)) {
		mul_in_place(job, g, r, to);
		return;
	}
	for (; r < to; r += k->panel_rows) {
		const int n_rows = (int)(to - r < k->panel_rows ? to - r : k->panel_rows);
		const float *bias = l->bias ? (const float *)l->bias->data + r : NULL;
		ruv_panel panel;
		const uint8_t *packed = job->packed[g] ? job->packed[g] + (size_t)(r / k->panel_rows) * panel_bytes : NULL;
		if (packed && job->n <= PACKED_ROWS_MAX) {
			k->mul_packed[w->dtype](l->y + r, l->ld_y, packed, n_rows, &job->x, job->n, bias, l->accumulate);
			continue;
		}
		ruv_panel_place(&panel, ruv_backend_scratch(job->backend, thread), k->panel_rows, w->n_in);
		if (packed)
			k->expand[w->dtype](&panel, packed, n_rows, w->n_in);
		else
			k->unpack[w->dtype](&panel, (const uint8_t *)w->data + (size_t)r * row_bytes, row_bytes, n_rows, w->n_in);
		(ruv_dtype_wants_q8(w->dtype) ? k->gemm_q8 : k->gemm_f32)(l->y + r, l->ld_y, &panel, &job->x, 0, job->n, bias,
		                                                          l->accumulate);
	}
}

void ruv_op_linear(ruv_backend *b, const ruv_linear *group, int n_group, const float *x, int n)
{
	struct job job = {.backend = b, .group = group, .n_group = n_group, .n = n};
	bool q8 = false;
	size_t total = 0;
	int64_t n_in;

	if (n <= 0 || n_group <= 0)
		return;
	if (n_group > MAX_GROUP) {
		ruv_backend_fail(b, RUV_ELIMIT, "linear", "a group of %d matrices, at most %d are possible", n_group, MAX_GROUP);
		return;
	}
	n_in = group[0].w->n_in;
	for (int g = 0; g < n_group; g++) {
		const ruv_linear *l = &group[g];
		if (l->w->n_in != n_in || !b->k->gemv[l->w->dtype] || l->ld_y < l->w->n_out ||
		    (l->bias && (l->bias->dtype != RUV_F32 || l->bias->n_in < l->w->n_out))) {
			ruv_backend_fail(
			    b, RUV_EINVAL, "linear", "matrix %d of a group (%s, %lld rows of %lld) does not fit its input of %lld",
			    g, ruv_dtype_name((int)l->w->dtype), (long long)l->w->n_out, (long long)l->w->n_in, (long long)n_in);
			return;
		}
		q8 |= ruv_dtype_wants_q8(l->w->dtype);
		total += (size_t)l->w->n_out * ruv_dtype_row_bytes(l->w->dtype, n_in);
	}
	if (n_in > b->max_elements || (q8 && ruv_act_bytes(n, n_in) > b->act_bytes)) {
		ruv_backend_fail(b, RUV_ELIMIT, "linear", "%d rows of %lld elements exceed what was reserved (%lld rows of %lld)",
		                 n, (long long)n_in, (long long)b->max_rows, (long long)b->max_elements);
		return;
	}
	job.x = (ruv_act){.k = n_in};
	if (q8) {
		ruv_act_place(&job.x, b->act, n, n_in);
		job.x.f = (float *)x;
		ruv_backend_run(b, quantize_task, &job, n, (size_t)n * (size_t)n_in * 4);
	}
	job.x.f = (float *)x; /* only read */

	/* Tasks of about equal bytes, enough of them for threads of unequal speed; with many rows a panel is work enough. */
	size_t bytes = total / (8 * (size_t)b->n_threads);
	bytes = bytes < SMALL_TASK ? SMALL_TASK : bytes > LARGE_TASK ? LARGE_TASK : bytes;
	for (int g = 0; g < n_group; g++) {
		const ruv_tensor *w = group[g].w;
		const int64_t panel = b->k->panel_rows;
		int64_t rows = (int64_t)(bytes / (size_t)n / ruv_dtype_row_bytes(w->dtype, n_in));
		job.packed[g] = ruv_pack_get(b, w);
		if (!job.packed[g] && in_place(b->k, w->dtype, n))
			rows = rows < 4 ? 4 : rows & ~(int64_t)3;
		else
			rows = rows < panel ? panel : rows / panel * panel;
		job.rows_per_task[g] = rows;
		job.first_task[g + 1] = job.first_task[g] + (int)((w->n_out + rows - 1) / rows);
	}
	/* A product goes through its bytes faster than the other operations, so that sharing pays from more of them on. */
	ruv_backend_run(b, linear_task, &job, job.first_task[n_group], total * (size_t)n / 8);
}

/* ---- the transpose ---- */

enum { SLAB_ROWS = 64, SLAB_COLUMNS = 256, SLAB_TOKENS = 64 };

struct transposed_job {
	ruv_backend *backend;
	float *dx;
	const ruv_tensor *w;
	const float *dy;
	int64_t ld_dy;
	int n;
	bool accumulate;
};

/* 256 columns of dx: slabs of 64 rows of w as F32, each times all rows of dy. */
static void transposed_task(void *arg, int task, int thread)
{
	struct transposed_job *job = arg;
	const ruv_kernels *k = job->backend->k;
	const ruv_tensor *w = job->w;
	const size_t row_bytes = ruv_dtype_row_bytes(w->dtype, w->n_in);
	const int64_t from = (int64_t)task * SLAB_COLUMNS;
	const int width = (int)(w->n_in - from < SLAB_COLUMNS ? w->n_in - from : SLAB_COLUMNS), padded = (width + 15) & ~15;
	const uint8_t *column = (const uint8_t *)w->data +
	                        (size_t)(from / ruv_dtype_block_elements(w->dtype)) * (size_t)ruv_dtype_block_bytes(w->dtype);
	float *slab = ruv_backend_scratch(job->backend, thread), *odd = slab + SLAB_ROWS * SLAB_COLUMNS;

	for (int t = 0; t < job->n && !job->accumulate; t++)
		memset(job->dx + t * w->n_in + from, 0, (size_t)width * sizeof(float));
	if (padded != width)
		memset(slab, 0, SLAB_ROWS * SLAB_COLUMNS * sizeof *slab);
	for (int64_t r = 0; r < w->n_out; r += SLAB_ROWS) {
		const int rows = (int)(w->n_out - r < SLAB_ROWS ? w->n_out - r : SLAB_ROWS);
		for (int i = 0; i < rows; i++)
			k->dequantize[w->dtype](slab + i * SLAB_COLUMNS, column + (size_t)(r + i) * row_bytes, width);
		for (int t = 0; t < job->n; t += SLAB_TOKENS) {
			const int m = job->n - t < SLAB_TOKENS ? job->n - t : SLAB_TOKENS;
			float *dx = job->dx + t * w->n_in + from;
			const float *dy = job->dy + t * job->ld_dy + r;
			if (padded == width) {
				k->tile_mul(dx, w->n_in, dy, job->ld_dy, slab, SLAB_COLUMNS, m, width, rows, true);
				continue;
			}
			k->tile_mul(odd, SLAB_COLUMNS, dy, job->ld_dy, slab, SLAB_COLUMNS, m, padded, rows, false);
			for (int i = 0; i < m; i++)
				k->add(dx + i * w->n_in, odd + i * SLAB_COLUMNS, width);
		}
	}
}

void ruv_op_linear_transposed(ruv_backend *b, float *dx, const ruv_tensor *w, const float *dy, int64_t ld_dy, int n,
                              bool accumulate)
{
	struct transposed_job job = {b, dx, w, dy, ld_dy, n, accumulate};

	_Static_assert((SLAB_ROWS + SLAB_TOKENS) * SLAB_COLUMNS <= 4 * RUV_ATTENTION_ROWS * RUV_MAX_HEAD_DIM, "fits the scratch");
	if (n <= 0)
		return;
	if (!b->k->dequantize[w->dtype] || ld_dy < w->n_out) {
		ruv_backend_fail(b, RUV_EINVAL, "linear_transposed",
		                 "a matrix of %s with %lld rows does not fit a gradient of %lld", ruv_dtype_name((int)w->dtype),
		                 (long long)w->n_out, (long long)ld_dy);
		return;
	}
	ruv_backend_run(b, transposed_task, &job, (int)((w->n_in + SLAB_COLUMNS - 1) / SLAB_COLUMNS),
	                (size_t)(w->n_in * w->n_out) * sizeof(float));
}

struct rows_job {
	float *y;
	const ruv_tensor *table;
	const int32_t *ids;
};

static void get_row_task(void *arg, int task, int thread)
{
	struct rows_job *job = arg;
	const ruv_tensor *t = job->table;
	(void)thread;
	ruv_dequantize_row(job->y + task * t->n_in, t->dtype,
	                   (const uint8_t *)t->data + (size_t)job->ids[task] * ruv_dtype_row_bytes(t->dtype, t->n_in), t->n_in);
}

void ruv_op_get_rows(ruv_backend *b, float *y, const ruv_tensor *table, const int32_t *ids, int n)
{
	struct rows_job job = {y, table, ids};

	for (int i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= table->n_out) {
			ruv_backend_fail(b, RUV_EINVAL, "get_rows", "row %d asked for, the table has %lld", ids[i],
			                 (long long)table->n_out);
			return;
		}
	ruv_backend_run(b, get_row_task, &job, n, (size_t)n * (size_t)table->n_in * 4);
}

void ruv_op_take_rows(ruv_backend *b, float *y, const float *x, const int32_t *rows, int n, int64_t dim)
{
	(void)b;
	for (int i = 0; i < n; i++)
		memmove(y + i * dim, x + rows[i] * dim, (size_t)dim * sizeof *y);
}

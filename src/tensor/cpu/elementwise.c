/* elementwise.c - norms, gates, rotary positions, the short convolution, pooling: everything of a forward pass that is neither a
 * matrix product nor attention. Work is cut by rows, or by runs of channels. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/backend.h"

enum { RUN = 4096, CHANNELS = 256 };

struct norm_job {
	const ruv_kernels *k;
	float *y;
	const float *x, *w, *b;
	int64_t n, dim, rows_per_task;
	float eps;
};

static void norm_task(void *arg, int task, int thread)
{
	struct norm_job *job = arg;
	int64_t from = task * job->rows_per_task, to = from + job->rows_per_task;

	(void)thread;
	for (int64_t i = from; i < to && i < job->n; i++)
		if (job->b)
			job->k->layer_norm(job->y + i * job->dim, job->x + i * job->dim, job->w, job->b, job->dim, job->eps);
		else
			job->k->rms_norm(job->y + i * job->dim, job->x + i * job->dim, job->w, job->dim, job->eps);
}

static void norm(ruv_backend *b, float *y, const float *x, const ruv_tensor *w, const ruv_tensor *bias, int64_t n, int64_t dim,
                 float eps)
{
	struct norm_job job = {b->k, y, x, w->data, bias ? bias->data : NULL, n, dim, 1, eps};

	if (w->dtype != RUV_F32 || w->n_in != dim || (bias && (bias->dtype != RUV_F32 || bias->n_in != dim))) {
		ruv_backend_fail(b, RUV_EINVAL, "norm", "a norm over %lld elements has %s weights of %lld", (long long)dim,
		                 ruv_dtype_name((int)w->dtype), (long long)w->n_in);
		return;
	}
	if (dim < RUN)
		job.rows_per_task = RUN / dim;
	ruv_backend_run(b, norm_task, &job, (int)((n + job.rows_per_task - 1) / job.rows_per_task), (size_t)(n * dim) * 4);
}

void ruv_op_rms_norm(ruv_backend *b, float *y, const float *x, const ruv_tensor *w, int64_t n, int64_t dim, float eps)
{
	norm(b, y, x, w, NULL, n, dim, eps);
}

void ruv_op_layer_norm(ruv_backend *b, float *y, const float *x, const ruv_tensor *w, const ruv_tensor *bias, int64_t n,
                       int64_t dim, float eps)
{
	norm(b, y, x, w, bias, n, dim, eps);
}

struct run_job {
	const ruv_kernels *k;
	float *y;
	const float *a, *b;
	int64_t n;
};

static int64_t run_length(const struct run_job *job, int task)
{
	int64_t left = job->n - (int64_t)task * RUN;
	return left < RUN ? left : RUN;
}

static void swiglu_task(void *arg, int task, int thread)
{
	struct run_job *job = arg;
	int64_t at = (int64_t)task * RUN;
	(void)thread;
	job->k->swiglu(job->y + at, job->a + at, job->b + at, run_length(job, task));
}

static void add_task(void *arg, int task, int thread)
{
	struct run_job *job = arg;
	int64_t at = (int64_t)task * RUN;
	(void)thread;
	job->k->add(job->y + at, job->a + at, run_length(job, task));
}

void ruv_op_swiglu(ruv_backend *b, float *y, const float *gate, const float *up, int64_t n)
{
	struct run_job job = {b->k, y, gate, up, n};
	ruv_backend_run(b, swiglu_task, &job, (int)((n + RUN - 1) / RUN), (size_t)n * 12);
}

void ruv_op_add(ruv_backend *b, float *y, const float *x, int64_t n)
{
	struct run_job job = {b->k, y, x, NULL, n};
	ruv_backend_run(b, add_task, &job, (int)((n + RUN - 1) / RUN), (size_t)n * 8);
}

struct rope_job {
	float *x;
	const ruv_rope *rope;
	const int32_t *positions;
	int n_heads, head_dim;
};

/* The angle is formed in double: at position 100,000 an F32 product would be off by milliradians. */
static void rope_task(void *arg, int task, int thread)
{
	struct rope_job *job = arg;
	const ruv_rope *rope = job->rope;
	int half = rope->n_rot / 2;
	float cosine[RUV_MAX_HEAD_DIM / 2], sine[RUV_MAX_HEAD_DIM / 2];

	(void)thread;
	for (int i = 0; i < half; i++) {
		double angle = (double)job->positions[task] * (double)rope->frequency[i];
		cosine[i] = (float)cos(angle) * rope->magnitude;
		sine[i] = (float)sin(angle) * rope->magnitude;
	}
	for (int h = 0; h < job->n_heads; h++) {
		float *x = job->x + ((int64_t)task * job->n_heads + h) * job->head_dim;
		if (rope->kind == RUV_ROPE_NEOX)
			for (int i = 0; i < half; i++) {
				float a = x[i], b = x[i + half];
				x[i] = a * cosine[i] - b * sine[i];
				x[i + half] = a * sine[i] + b * cosine[i];
			}
		else
			for (int i = 0; i < half; i++) {
				float a = x[2 * i], b = x[2 * i + 1];
				x[2 * i] = a * cosine[i] - b * sine[i];
				x[2 * i + 1] = a * sine[i] + b * cosine[i];
			}
	}
}

void ruv_op_rope(ruv_backend *b, float *x, const ruv_rope *rope, const int32_t *positions, int n, int n_heads, int head_dim)
{
	struct rope_job job = {x, rope, positions, n_heads, head_dim};

	if (rope->n_rot < 0 || rope->n_rot % 2 || rope->n_rot > head_dim || rope->n_rot > RUV_MAX_HEAD_DIM) {
		ruv_backend_fail(b, RUV_EINVAL, "rope", "cannot rotate %d elements of heads of %d", rope->n_rot, head_dim);
		return;
	}
	ruv_backend_run(b, rope_task, &job, n, (size_t)n * (size_t)(n_heads * head_dim) * 8);
}

struct conv_job {
	const ruv_kernels *k;
	float *y;
	const float *bcx, *taps;
	int64_t dim;
	bool centred;
	const ruv_batch_seq *seqs;
	int chunks;
};

/* One sequence, one run of channels, all its tokens in order. g of the last tokens lives in three buffers that rotate. */
static void conv_task(void *arg, int task, int thread)
{
	struct conv_job *job = arg;
	const ruv_batch_seq *seq = &job->seqs[task / job->chunks];
	int64_t dim = job->dim, at = (int64_t)(task % job->chunks) * CHANNELS;
	int64_t n = dim - at < CHANNELS ? dim - at : CHANNELS;
	const float *taps = job->taps + 3 * at;
	float g[3][CHANNELS];
	float *older = g[0], *old = g[1], *now = g[2];
	float *state = job->centred || !seq->conv_state ? NULL : (float *)seq->conv_state + at;

	(void)thread;
	if (state) {
		memcpy(older, state, (size_t)n * sizeof *state);
		memcpy(old, state + dim, (size_t)n * sizeof *state);
	} else {
		memset(older, 0, (size_t)n * sizeof *older);
		memset(old, 0, (size_t)n * sizeof *old);
	}
	float *columns = state && seq->conv_columns ? (float *)seq->conv_columns + at : NULL;
	if (columns) {
		memcpy(columns, older, (size_t)n * sizeof *columns);
		memcpy(columns + dim, old, (size_t)n * sizeof *columns);
	}
	if (job->centred && seq->n_rows > 0) { /* one token ahead: "now" is t + 1 */
		const float *first = job->bcx + (int64_t)seq->first_row * 3 * dim + at;
		job->k->mul(old, first, first + 2 * dim, n);
	}
	for (int t = 0; t < seq->n_rows; t++) {
		int64_t row = seq->first_row + t;
		const float *bcx = job->bcx + row * 3 * dim + at;
		float *swap = older;
		if (!job->centred)
			job->k->mul(now, bcx, bcx + 2 * dim, n);
		else if (t + 1 < seq->n_rows)
			job->k->mul(now, bcx + 3 * dim, bcx + 5 * dim, n);
		else
			memset(now, 0, (size_t)n * sizeof *now);
		job->k->conv3(job->y + row * dim + at, bcx + dim, older, old, now, taps, n);
		if (columns)
			memcpy(columns + (t + 2) * dim, now, (size_t)n * sizeof *columns);
		older = old;
		old = now;
		now = swap;
	}
	if (state) {
		memcpy(state, older, (size_t)n * sizeof *state);
		memcpy(state + dim, old, (size_t)n * sizeof *state);
	}
}

static int64_t total_rows(const ruv_batch_seq *seqs, int n_seqs)
{
	int64_t n = 0;
	for (int i = 0; i < n_seqs; i++)
		n += seqs[i].n_rows;
	return n;
}

void ruv_op_short_conv(ruv_backend *b, float *y, const float *bcx, const ruv_tensor *taps, int64_t dim, bool centred,
                       const ruv_batch_seq *seqs, int n_seqs)
{
	struct conv_job job = {b->k, y, bcx, taps->data, dim, centred, seqs, (int)((dim + CHANNELS - 1) / CHANNELS)};

	if (taps->dtype != RUV_F32 || taps->n_in != 3 || taps->n_out != dim) {
		ruv_backend_fail(b, RUV_EINVAL, "short_conv", "taps are %s [%lld, %lld], F32 [%lld, 3] is needed",
		                 ruv_dtype_name((int)taps->dtype), (long long)taps->n_out, (long long)taps->n_in, (long long)dim);
		return;
	}
	for (int i = 0; i < n_seqs; i++)
		if (!centred && !seqs[i].conv_state) {
			ruv_backend_fail(b, RUV_EINVAL, "short_conv", "sequence %d of the batch has no convolution state", i);
			return;
		}
	ruv_backend_run(b, conv_task, &job, n_seqs * job.chunks, (size_t)(total_rows(seqs, n_seqs) * dim) * 16);
}

struct pool_job {
	const ruv_kernels *k;
	float *y;
	const float *x;
	int64_t dim;
	const ruv_batch_seq *seqs;
};

static void mean_task(void *arg, int task, int thread)
{
	struct pool_job *job = arg;
	const ruv_batch_seq *seq = &job->seqs[task];
	float *y = job->y + task * job->dim, inverse = seq->n_rows ? 1.0f / (float)seq->n_rows : 0;

	(void)thread;
	memset(y, 0, (size_t)job->dim * sizeof *y);
	for (int t = 0; t < seq->n_rows; t++)
		job->k->add(y, job->x + (seq->first_row + t) * job->dim, job->dim);
	for (int64_t i = 0; i < job->dim; i++)
		y[i] *= inverse;
}

void ruv_op_mean_pool(ruv_backend *b, float *y, const float *x, int64_t dim, const ruv_batch_seq *seqs, int n_seqs)
{
	struct pool_job job = {b->k, y, x, dim, seqs};
	ruv_backend_run(b, mean_task, &job, n_seqs, (size_t)(total_rows(seqs, n_seqs) * dim) * 4);
}

/* backward.c - reverse-mode differentiation of forward.c's block, by hand.
 *
 *     h   = x + Op(rms(x, attn_norm))       Op: attention, or LFM2's gated short convolution
 *     out = h + W_down(silu(W_gate n) * W_up n),  n = rms(h, ffn_norm)
 *
 * The pass is recorded through forward.c's tap: the residual stream before each layer and what each matrix reads. Outputs of
 * matrices (q, k, v; B, C, X; gate, up) are computed again when their layer's turn comes, which costs one more forward pass of the
 * layers above the lowest adapted one and keeps memory at a few rows of the hidden size per layer and token.
 *
 * Products with weights run on the backend; what lies between them (norms, gates, rotations, softmax, convolution) is elementwise
 * or small and runs here, on the host, in F32 with sums in double where many terms meet. Nothing here reads a weight's bytes:
 * vectors are downloaded once at open.
 *
 * Threads: one at a time on a ruv_backward. */
#include "model/backward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/object.h"

static const char where[] = "backward";

/* What a layer's matrices read, and its input; rows of one call. */
struct record {
	float *x;    /* [n, hidden] residual before the layer */
	float *t;    /* [n, hidden] its norm, read by q, k, v or conv_in */
	float *y;    /* [n, q_dim or hidden] read by attn_output or conv_out */
	float *t2;   /* [n, hidden] read by gate and up */
	float *s;    /* [n, ffn] read by down */
	float *norm; /* [hidden] attn_norm */
	float *ffn_norm;
	float *q_norm, *k_norm; /* [head_dim] or NULL */
	float *taps;            /* [hidden, 3] or NULL */
};

struct ruv_backward {
	ruv_model *model;
	ruv_backend *backend;
	struct record *records; /* [n_layers + 1]; the last: x alone, before the final norm */
	float *final_norm;      /* [hidden] */
	ruv_adapter adapter;    /* the params as forward.c wants them; never handed out */
	int lowest;             /* layer from which on the pass is recorded */
	int reserved_from;      /* and from which on there is room for it */

	int max_rows, max_targets, max_pages;
	ruv_kv_layer kv;
	int32_t *pages;
	float *conv_state; /* device */
	size_t conv_bytes;
	float *in_dev, *out_dev; /* [max_rows, widest] */
	float *head_dev;         /* [RUV_LOGIT_ROWS, n_vocab] */
	float *logits;           /* [max_targets, n_vocab] */
	float *teacher;          /* [max_targets, n_vocab] or NULL: probabilities */
	float *dx, *dh, *work;   /* [max_rows, hidden], the same, [max_rows, work_elements] */
	float *low;              /* [max_rows, 2 rank] */
	int low_rank;
	int32_t *rows;  /* [max_targets] */
	ruv_token *ids; /* [max_rows] */
};

/* ---- opening ---- */

static int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t q_dim(const ruv_hparams *hp)
{
	return (int64_t)hp->n_heads * hp->head_dim;
}

static int64_t kv_dim(const ruv_hparams *hp)
{
	return (int64_t)hp->n_kv_heads * hp->head_dim;
}

/* Elements of one row of the widest thing that goes through a matrix. */
static int64_t widest(const ruv_hparams *hp)
{
	return max64(max64(3 * (int64_t)hp->hidden, hp->feed_forward), q_dim(hp) + 2 * kv_dim(hp));
}

static float *download_vector(ruv_backend *backend, const ruv_tensor *tensor)
{
	const size_t n = (size_t)(tensor->n_in * (tensor->n_out ? tensor->n_out : 1));
	float *host = malloc(n * sizeof *host);
	if (host)
		ruv_backend_download(backend, host, tensor->data, n * sizeof *host);
	return host;
}

static int load_vectors(ruv_backward *b, ruv_error *err)
{
	const ruv_hparams *hp = &b->model->hp;
	bool all = true;
	ruv_engine_lock(b->model->engine);
	for (int i = 0; i < hp->n_layers; i++) {
		const ruv_layer_weights *l = &b->model->weights.layers[i];
		struct record *r = &b->records[i];
		all &= (r->norm = download_vector(b->backend, &l->attn_norm)) != NULL;
		all &= (r->ffn_norm = download_vector(b->backend, &l->ffn_norm)) != NULL;
		if (ruv_tensor_present(&l->attn_q_norm)) {
			all &= (r->q_norm = download_vector(b->backend, &l->attn_q_norm)) != NULL;
			all &= (r->k_norm = download_vector(b->backend, &l->attn_k_norm)) != NULL;
		}
		if (hp->kind[i] == RUV_LAYER_CONV)
			all &= (r->taps = download_vector(b->backend, &l->conv_taps)) != NULL;
	}
	all &= (b->final_norm = download_vector(b->backend, &b->model->weights.final_norm)) != NULL;
	ruv_engine_unlock(b->model->engine);
	return all ? RUV_OK : ruv_fail_memory(err, where, (size_t)hp->hidden * (size_t)hp->n_layers * 8);
}

int ruv_backward_open(ruv_backward **out, ruv_model *model, ruv_error *err)
{
	const ruv_hparams *hp = &model->hp;
	*out = NULL;
	if (!model->engine)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s was opened for its vocabulary alone", model->path);
	if (!hp->causal)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s is an encoder; only generators are adapted", model->path);
	ruv_backward *b = calloc(1, sizeof *b);
	if (!b)
		return ruv_fail_memory(err, where, sizeof *b);
	b->model = ruv_model_hold(model);
	b->backend = ruv_engine_backend(model->engine);
	b->records = calloc((size_t)hp->n_layers + 1, sizeof *b->records);
	b->adapter.loras = calloc((size_t)hp->n_layers * RUV_SLOT_N, sizeof *b->adapter.loras);
	int rc = b->records && b->adapter.loras ? load_vectors(b, err)
	                                        : ruv_fail_memory(err, where, (size_t)hp->n_layers * RUV_SLOT_N * 64);
	if (rc) {
		ruv_backward_free(b);
		return rc;
	}
	b->adapter.model = model;
	*out = b;
	return RUV_OK;
}

static void device_release(ruv_backward *b, float **address)
{
	if (*address)
		ruv_backend_release(b->backend, *address);
	*address = NULL;
}

static void release_rows(ruv_backward *b)
{
	ruv_engine_lock(b->model->engine);
	device_release(b, &b->in_dev);
	device_release(b, &b->out_dev);
	device_release(b, &b->head_dev);
	device_release(b, &b->conv_state);
	if (b->kv.k)
		ruv_backend_release(b->backend, b->kv.k);
	if (b->kv.v)
		ruv_backend_release(b->backend, b->kv.v);
	b->kv.k = b->kv.v = NULL;
	ruv_engine_unlock(b->model->engine);
	for (int i = 0; b->records && i <= b->model->hp.n_layers; i++) {
		struct record *r = &b->records[i];
		float **const all[] = {&r->x, &r->t, &r->y, &r->t2, &r->s};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++) {
			free(*all[j]);
			*all[j] = NULL;
		}
	}
	free(b->dx);
	free(b->dh);
	free(b->work);
	free(b->low);
	free(b->ids);
	free(b->pages);
	b->dx = b->dh = b->work = b->low = NULL;
	b->ids = NULL;
	b->pages = NULL;
	b->max_rows = b->max_pages = b->low_rank = 0;
}

void ruv_backward_free(ruv_backward *b)
{
	if (!b)
		return;
	release_rows(b);
	for (int i = 0; b->records && i < b->model->hp.n_layers; i++) {
		struct record *r = &b->records[i];
		free(r->norm);
		free(r->ffn_norm);
		free(r->q_norm);
		free(r->k_norm);
		free(r->taps);
	}
	free(b->records);
	free(b->adapter.loras);
	free(b->final_norm);
	free(b->logits);
	free(b->teacher);
	free(b->rows);
	ruv_model_free(b->model);
	free(b);
}

static const ruv_tensor *slot_matrix(const ruv_layer_weights *l, ruv_adapter_slot slot)
{
	const ruv_tensor *const all[RUV_SLOT_N] = {
	    [RUV_SLOT_Q] = &l->attn_q,          [RUV_SLOT_K] = &l->attn_k,
	    [RUV_SLOT_V] = &l->attn_v,          [RUV_SLOT_ATTN_OUTPUT] = &l->attn_output,
	    [RUV_SLOT_CONV_IN] = &l->conv_in,   [RUV_SLOT_CONV_OUT] = &l->conv_out,
	    [RUV_SLOT_FFN_GATE] = &l->ffn_gate, [RUV_SLOT_FFN_UP] = &l->ffn_up,
	    [RUV_SLOT_FFN_DOWN] = &l->ffn_down,
	};
	return all[slot];
}

int ruv_lora_shape(const ruv_model *model, int layer, ruv_adapter_slot slot, int64_t *n_in, int64_t *n_out, ruv_error *err)
{
	if (layer < 0 || layer >= model->hp.n_layers || (unsigned)slot >= RUV_SLOT_N)
		return ruv_fail(err, RUV_ENOTFOUND, where, "there is no layer %d, %s has %d", layer, model->path,
		                model->hp.n_layers);
	const ruv_tensor *w = slot_matrix(&model->weights.layers[layer], slot);
	if (!ruv_tensor_present(w))
		return ruv_fail(err, RUV_ENOTFOUND, where, "layer %d of %s has no %s", layer, model->path,
		                ruv_adapter_slot_name(slot));
	*n_in = w->n_in;
	*n_out = w->n_out;
	return RUV_OK;
}

/* ---- room ---- */

static float *floats(int64_t n, int64_t dim)
{
	return malloc((size_t)n * (size_t)dim * sizeof(float));
}

static int device_floats(ruv_backward *b, float **out, int64_t n, ruv_error *err)
{
	void *address = NULL;
	int rc = ruv_backend_alloc(b->backend, &address, (size_t)n * sizeof(float), err);
	*out = address;
	return rc;
}

/* Device memory for n rows of n_seqs sequences on n_pages pages; under the lock. */
static int reserve_device(ruv_backward *b, int n, int n_seqs, int n_pages, ruv_error *err)
{
	const ruv_hparams *hp = &b->model->hp;
	void *k = NULL, *v = NULL;
	int rc;
	b->conv_bytes = (size_t)hp->n_conv * 2 * (size_t)hp->hidden * sizeof(float);
	if ((rc = ruv_backend_reserve(b->backend, n, max64(widest(hp), hp->hidden), n, err)) ||
	    (rc = device_floats(b, &b->in_dev, n * widest(hp), err)) || (rc = device_floats(b, &b->out_dev, n * widest(hp), err)) ||
	    (rc = device_floats(b, &b->head_dev, (int64_t)RUV_LOGIT_ROWS * hp->n_vocab, err)))
		return rc;
	if (b->conv_bytes &&
	    (rc = device_floats(b, &b->conv_state, (int64_t)n_seqs * (int64_t)(b->conv_bytes / sizeof(float)), err)))
		return rc;
	if (!hp->n_attention)
		return RUV_OK;
	b->kv = (ruv_kv_layer){.dtype = RUV_F32,
	                       .n_kv_heads = hp->n_kv_heads,
	                       .head_dim = hp->head_dim,
	                       .page_bytes = (size_t)kv_dim(hp) * RUV_KV_PAGE_TOKENS * sizeof(float)};
	rc = ruv_backend_alloc(b->backend, &k, b->kv.page_bytes * (size_t)n_pages, err);
	b->kv.k = k;
	if (rc == RUV_OK)
		rc = ruv_backend_alloc(b->backend, &v, b->kv.page_bytes * (size_t)n_pages, err);
	b->kv.v = v;
	return rc;
}

/* Room for n rows; grows in steps so that lengths that vary do not allocate each time. */
static int reserve_rows(ruv_backward *b, int n, int n_pages, int n_targets, int rank, bool teacher, ruv_error *err)
{
	const ruv_hparams *hp = &b->model->hp;
	const int n_seqs = RUV_TRAIN_MAX_SEQS;
	int rc = RUV_OK;
	if (n > b->max_rows || n_pages > b->max_pages || b->lowest < b->reserved_from) {
		n = (n + 127) & ~127;
		n = n > b->max_rows ? n : b->max_rows;
		n_pages = n_pages > b->max_pages ? n_pages + 8 : b->max_pages;
		release_rows(b);
		ruv_engine_lock(b->model->engine);
		rc = reserve_device(b, n, n_seqs, n_pages, err);
		ruv_engine_unlock(b->model->engine);
		if (rc)
			goto failed;
		bool all = true;
		for (int i = b->lowest; i <= hp->n_layers; i++) {
			struct record *r = &b->records[i];
			all &= (r->x = floats(n, hp->hidden)) != NULL;
			if (i == hp->n_layers)
				break;
			all &= (r->t = floats(n, hp->hidden)) != NULL;
			all &= (r->y = floats(n, hp->kind[i] == RUV_LAYER_ATTENTION ? q_dim(hp) : hp->hidden)) != NULL;
			all &= (r->t2 = floats(n, hp->hidden)) != NULL;
			all &= (r->s = floats(n, hp->feed_forward)) != NULL;
		}
		b->dx = floats(n, hp->hidden);
		b->dh = floats(n, hp->hidden);
		b->work = floats(n, 4 * widest(hp));
		b->ids = malloc((size_t)n * sizeof *b->ids);
		b->pages = malloc((size_t)n_pages * sizeof *b->pages);
		if (!all || !b->dx || !b->dh || !b->work || !b->ids || !b->pages) {
			rc = ruv_fail_memory(err, where, (size_t)n * (size_t)(hp->hidden * hp->n_layers * 5) * sizeof(float));
			goto failed;
		}
		for (int i = 0; i < n_pages; i++)
			b->pages[i] = i;
		b->max_rows = n;
		b->max_pages = n_pages;
		b->reserved_from = b->lowest;
	}
	if (rank > b->low_rank) {
		free(b->low);
		b->low = floats(b->max_rows, 2 * (int64_t)rank);
		b->low_rank = b->low ? rank : 0;
		if (!b->low)
			return ruv_fail_memory(err, where, (size_t)b->max_rows * (size_t)rank * 8);
	}
	if (n_targets > b->max_targets) {
		free(b->logits);
		free(b->teacher);
		free(b->rows);
		b->teacher = NULL;
		b->max_targets = 0;
		b->logits = floats(n_targets, hp->n_vocab);
		b->rows = malloc((size_t)n_targets * sizeof *b->rows);
		if (!b->logits || !b->rows)
			return ruv_fail_memory(err, where, (size_t)n_targets * (size_t)hp->n_vocab * sizeof(float));
		b->max_targets = n_targets;
	}
	if (teacher && !b->teacher && !(b->teacher = floats(b->max_targets, hp->n_vocab)))
		return ruv_fail_memory(err, where, (size_t)b->max_targets * (size_t)hp->n_vocab * sizeof(float));
	ruv_engine_lock(b->model->engine);
	rc = ruv_workspace_reserve(&b->model->workspace, hp, &b->model->weights, b->max_rows, n_seqs, b->max_rows, err);
	if (rc == RUV_OK && rank)
		rc = ruv_workspace_reserve_rank(&b->model->workspace, rank, err);
	ruv_engine_unlock(b->model->engine);
	return rc;
failed:
	release_rows(b);
	return rc;
}

/* ---- products on the backend, host memory on both sides ---- */

struct call {
	ruv_backward *b;
	const ruv_hparams *hp;
	const ruv_lora_param *params;
	int n_params;
	const ruv_train_seq *seqs;
	int n_seqs, n; /* rows */
	ruv_error *err;
	int rc; /* the first failure; later products do nothing */
};

static const ruv_lora_param *find_param(const struct call *c, int layer, ruv_adapter_slot slot)
{
	for (int i = 0; i < c->n_params; i++)
		if (c->params[i].layer == layer && c->params[i].slot == slot)
			return &c->params[i];
	return NULL;
}

/* low [n, rank] = x A^T */
static void lora_down(const ruv_lora_param *p, float *low, const float *x, int n)
{
	for (int i = 0; i < n; i++)
		for (int r = 0; r < p->rank; r++) {
			const float *a = p->a + r * p->n_in, *row = x + i * p->n_in;
			float sum[8] = {0};
			int64_t k = 0;
			for (; k + 8 <= p->n_in; k += 8)
				for (int j = 0; j < 8; j++)
					sum[j] += a[k + j] * row[k + j];
			for (; k < p->n_in; k++)
				sum[0] += a[k] * row[k];
			low[i * p->rank + r] = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
		}
}

/* y [n, n_out] = W x + bias + B A x */
static void product(struct call *c, float *y, int layer, ruv_adapter_slot slot, const ruv_tensor *bias, const float *x, int n)
{
	ruv_backward *b = c->b;
	const ruv_tensor *w = slot_matrix(&b->model->weights.layers[layer], slot);
	const ruv_linear linear = {
	    .y = b->out_dev, .ld_y = w->n_out, .w = w, .bias = bias && ruv_tensor_present(bias) ? bias : NULL};
	if (c->rc)
		return;
	ruv_engine_lock(b->model->engine);
	ruv_backend_upload(b->backend, b->in_dev, x, (size_t)n * (size_t)w->n_in * sizeof *x);
	ruv_op_linear(b->backend, &linear, 1, b->in_dev, n);
	ruv_backend_download(b->backend, y, b->out_dev, (size_t)n * (size_t)w->n_out * sizeof *y);
	c->rc = ruv_backend_sync(b->backend, c->err);
	ruv_engine_unlock(b->model->engine);
	const ruv_lora_param *p = find_param(c, layer, slot);
	if (!p || c->rc)
		return;
	lora_down(p, b->low, x, n);
	for (int i = 0; i < n; i++)
		for (int64_t o = 0; o < p->n_out; o++) {
			float sum = 0;
			for (int r = 0; r < p->rank; r++)
				sum += p->b[o * p->rank + r] * b->low[i * p->rank + r];
			y[i * p->n_out + o] += sum;
		}
}

/* dx [n, n_in] (+)= dy [n, n_out] W; the head's rows, which are long, go in groups. */
static void transposed(struct call *c, float *dx, const ruv_tensor *w, const float *dy, int n, bool accumulate)
{
	ruv_backward *b = c->b;
	const int64_t wide = widest(c->hp);
	const int group = w->n_out > wide ? RUV_LOGIT_ROWS : n;
	float *from = w->n_out > wide ? b->head_dev : b->in_dev;
	ruv_engine_lock(b->model->engine);
	for (int i = 0; i < n && !c->rc; i += group) {
		const int rows = n - i < group ? n - i : group;
		const size_t n_bytes = (size_t)rows * (size_t)w->n_in * sizeof *dx;
		ruv_backend_upload(b->backend, from, dy + i * w->n_out, (size_t)rows * (size_t)w->n_out * sizeof *dy);
		if (accumulate)
			ruv_backend_upload(b->backend, b->out_dev, dx + i * w->n_in, n_bytes);
		ruv_op_linear_transposed(b->backend, b->out_dev, w, from, w->n_out, rows, accumulate);
		ruv_backend_download(b->backend, dx + i * w->n_in, b->out_dev, n_bytes);
		c->rc = ruv_backend_sync(b->backend, c->err);
	}
	ruv_engine_unlock(b->model->engine);
}

/* One row through B: dlow [rank] = B^T g, grad_b += g low^T. A rank that the compiler knows keeps low and dlow in registers. */
static inline __attribute__((always_inline)) void up_back(const ruv_lora_param *p, float *dlow, const float *low, const float *g,
                                                          const int rank)
{
	float in[4] = {0}, out[4] = {0};
	for (int r = 0; r < rank; r++)
		in[r] = low[r];
	for (int64_t o = 0; o < p->n_out; o++)
		for (int r = 0; r < rank; r++) {
			p->grad_b[o * rank + r] += g[o] * in[r];
			out[r] += g[o] * p->b[o * rank + r];
		}
	for (int r = 0; r < rank; r++)
		dlow[r] = out[r];
}

static void lora_up_back(const ruv_lora_param *p, float *dlow, const float *low, const float *g)
{
	switch (p->rank) {
	case 1:
		up_back(p, dlow, low, g, 1);
		return;
	case 2:
		up_back(p, dlow, low, g, 2);
		return;
	case 3:
		up_back(p, dlow, low, g, 3);
		return;
	case 4:
		up_back(p, dlow, low, g, 4);
		return;
	default:
		for (int r = 0; r < p->rank; r++)
			dlow[r] = 0;
		for (int64_t o = 0; o < p->n_out; o++)
			for (int r = 0; r < p->rank; r++) {
				p->grad_b[o * p->rank + r] += g[o] * low[r];
				dlow[r] += g[o] * p->b[o * p->rank + r];
			}
	}
}

/* Backward through y = W x + B A x: adds to the gradients of A and B when the matrix is adapted, and to dx unless it is NULL. */
static void matrix_back(struct call *c, float *dx, int layer, ruv_adapter_slot slot, const float *x, const float *dy, int n,
                        bool accumulate)
{
	if (dx)
		transposed(c, dx, slot_matrix(&c->b->model->weights.layers[layer], slot), dy, n, accumulate);
	const ruv_lora_param *p = find_param(c, layer, slot);
	if (!p || c->rc)
		return;
	float *low = c->b->low, *dlow = low + (int64_t)n * p->rank;
	lora_down(p, low, x, n);
	for (int i = 0; i < n; i++) {
		lora_up_back(p, dlow + i * p->rank, low + i * p->rank, dy + i * p->n_out);
		for (int r = 0; r < p->rank; r++) {
			const float d = dlow[i * p->rank + r], *row = x + i * p->n_in, *a = p->a + r * p->n_in;
			float *grad = p->grad_a + r * p->n_in;
			for (int64_t k = 0; k < p->n_in; k++)
				grad[k] += d * row[k];
			for (int64_t k = 0; dx && k < p->n_in; k++)
				dx[i * p->n_in + k] += d * a[k];
		}
	}
}

/* ---- what lies between the matrices ---- */

/* y = x / rms(x) * w: dx = w dy / rms - x sum(w dy x) / (dim rms^3); added to dx. Rows of dim. */
static void rms_norm_back(float *dx, const float *dy, const float *x, const float *w, int64_t n, int64_t dim, float eps)
{
	for (int64_t i = 0; i < n; i++) {
		const float *xi = x + i * dim, *g = dy + i * dim;
		float *to = dx + i * dim;
		double square = 0, dot = 0;
		for (int64_t k = 0; k < dim; k++) {
			square += (double)xi[k] * xi[k];
			dot += (double)w[k] * g[k] * xi[k];
		}
		const double inverse = 1 / sqrt(square / (double)dim + (double)eps);
		const float scale = (float)inverse, mix = (float)(dot * inverse * inverse * inverse / (double)dim);
		for (int64_t k = 0; k < dim; k++)
			to[k] += w[k] * g[k] * scale - xi[k] * mix;
	}
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, int64_t dim, float eps)
{
	for (int64_t i = 0; i < n; i++) {
		double square = 0;
		for (int64_t k = 0; k < dim; k++)
			square += (double)x[i * dim + k] * x[i * dim + k];
		const float scale = (float)(1 / sqrt(square / (double)dim + (double)eps));
		for (int64_t k = 0; k < dim; k++)
			y[i * dim + k] = x[i * dim + k] * scale * w[k];
	}
}

/* Rotates the heads of one row at `position`; `back` by the transposed matrix. */
static void rotate(const ruv_hparams *hp, float *x, int n_heads, int position, bool back)
{
	const int half = hp->n_rot / 2, neox = hp->rope_kind == RUV_ROPE_NEOX;
	for (int i = 0; i < half; i++) {
		const double angle = (double)position * (double)hp->rope_frequency[i];
		const float cosine = (float)cos(angle) * hp->rope_magnitude;
		const float sine = (float)(back ? -sin(angle) : sin(angle)) * hp->rope_magnitude;
		const int first = neox ? i : 2 * i, second = neox ? i + half : 2 * i + 1;
		for (int h = 0; h < n_heads; h++) {
			float *head = x + (int64_t)h * hp->head_dim;
			const float u = head[first], v = head[second];
			head[first] = u * cosine - v * sine;
			head[second] = u * sine + v * cosine;
		}
	}
}

static float dot(const float *a, const float *b, int n)
{
	float sum[8] = {0};
	int k = 0;
	for (; k + 8 <= n; k += 8)
		for (int j = 0; j < 8; j++)
			sum[j] += a[k + j] * b[k + j];
	for (; k < n; k++)
		sum[0] += a[k] * b[k];
	return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

static void add_scaled(float *to, const float *from, float scale, int n)
{
	for (int k = 0; k < n; k++)
		to[k] += scale * from[k];
}

/* Causal softmax(q k^T) v of one head of one sequence, backward. q, k, v rows have strides; p [n], dp [n] scratch. */
struct head_view {
	const float *q, *k, *v, *dy;
	float *dq, *dk, *dv;
	int64_t q_stride, kv_stride;
};

static void softmax_back(const struct head_view *h, int n, int dim, float scale, float *p, float *dp)
{
	for (int i = 0; i < n; i++) {
		const float *q = h->q + i * h->q_stride, *dy = h->dy + i * h->q_stride;
		float max = -INFINITY;
		double sum = 0, mean = 0;
		for (int j = 0; j <= i; j++) {
			p[j] = scale * dot(q, h->k + j * h->kv_stride, dim);
			max = p[j] > max ? p[j] : max;
		}
		for (int j = 0; j <= i; j++)
			sum += p[j] = expf(p[j] - max);
		for (int j = 0; j <= i; j++) {
			p[j] = (float)(p[j] / sum);
			dp[j] = dot(dy, h->v + j * h->kv_stride, dim);
			mean += (double)p[j] * dp[j];
		}
		for (int j = 0; j <= i; j++) {
			const float ds = p[j] * (dp[j] - (float)mean) * scale;
			add_scaled(h->dv + j * h->kv_stride, dy, p[j], dim);
			add_scaled(h->dq + i * h->q_stride, h->k + j * h->kv_stride, ds, dim);
			add_scaled(h->dk + j * h->kv_stride, q, ds, dim);
		}
	}
}

static void rotate_rows(const struct call *c, float *x, int n_heads, bool back)
{
	int row = 0;
	for (int s = 0; s < c->n_seqs; s++)
		for (int i = 0; i < c->seqs[s].n; i++, row++)
			rotate(c->hp, x + (int64_t)row * n_heads * c->hp->head_dim, n_heads, i, back);
}

/* dy [n, hidden]: gradient of what the operator adds to the stream. dt [n, hidden] = gradient of its normed input, NULL: not
 * needed. */
static void attention_back(struct call *c, float *dt, int layer, const float *dy)
{
	ruv_backward *b = c->b;
	const ruv_hparams *hp = c->hp;
	const struct record *r = &b->records[layer];
	const ruv_layer_weights *l = &b->model->weights.layers[layer];
	const int64_t nq = c->n * q_dim(hp), nk = c->n * kv_dim(hp);
	float *all = malloc((size_t)(4 * nq + 6 * nk + 2 * (int64_t)c->n) * sizeof *all);
	if (!all && !c->rc)
		c->rc = ruv_fail_memory(c->err, where, (size_t)(4 * nq + 6 * nk) * sizeof *all);
	if (c->rc) {
		free(all);
		return;
	}
	float *q0 = all, *q = q0 + nq, *dq = q + nq, *da = dq + nq, *k0 = da + nq, *k = k0 + nk, *v = k + nk, *dk = v + nk,
	      *dv = dk + nk, *dn = dv + nk, *p = dn + nk;
	matrix_back(c, da, layer, RUV_SLOT_ATTN_OUTPUT, r->y, dy, c->n, false);
	product(c, q0, layer, RUV_SLOT_Q, &l->attn_q_bias, r->t, c->n);
	product(c, k0, layer, RUV_SLOT_K, &l->attn_k_bias, r->t, c->n);
	product(c, v, layer, RUV_SLOT_V, &l->attn_v_bias, r->t, c->n);
	if (c->rc)
		goto done;
	if (r->q_norm) {
		rms_norm(q, q0, r->q_norm, (int64_t)c->n * hp->n_heads, hp->head_dim, hp->rms_eps);
		rms_norm(k, k0, r->k_norm, (int64_t)c->n * hp->n_kv_heads, hp->head_dim, hp->rms_eps);
	} else {
		memcpy(q, q0, (size_t)nq * sizeof *q);
		memcpy(k, k0, (size_t)nk * sizeof *k);
	}
	rotate_rows(c, q, hp->n_heads, false);
	rotate_rows(c, k, hp->n_kv_heads, false);
	memset(dq, 0, (size_t)nq * sizeof *dq);
	memset(dk, 0, (size_t)(2 * nk) * sizeof *dk);
	const int group = hp->n_heads / hp->n_kv_heads;
	int64_t first = 0;
	for (int s = 0; s < c->n_seqs; first += c->seqs[s].n, s++)
		for (int h = 0; h < hp->n_heads; h++) {
			const int64_t at_q = first * q_dim(hp) + (int64_t)h * hp->head_dim,
				      at_k = first * kv_dim(hp) + (int64_t)(h / group) * hp->head_dim;
			const struct head_view view = {q + at_q,  k + at_k,  v + at_k,  da + at_q, dq + at_q,
			                               dk + at_k, dv + at_k, q_dim(hp), kv_dim(hp)};
			softmax_back(&view, c->seqs[s].n, hp->head_dim, 1.0f / sqrtf((float)hp->head_dim), p, p + c->n);
		}
	rotate_rows(c, dq, hp->n_heads, true);
	rotate_rows(c, dk, hp->n_kv_heads, true);
	if (r->q_norm) {
		memset(da, 0, (size_t)nq * sizeof *da);
		memset(dn, 0, (size_t)nk * sizeof *dn);
		rms_norm_back(da, dq, q0, r->q_norm, (int64_t)c->n * hp->n_heads, hp->head_dim, hp->rms_eps);
		rms_norm_back(dn, dk, k0, r->k_norm, (int64_t)c->n * hp->n_kv_heads, hp->head_dim, hp->rms_eps);
		dq = da;
		dk = dn;
	}
	matrix_back(c, dt, layer, RUV_SLOT_Q, r->t, dq, c->n, false);
	matrix_back(c, dt, layer, RUV_SLOT_K, r->t, dk, c->n, true);
	matrix_back(c, dt, layer, RUV_SLOT_V, r->t, dv, c->n, true);
done:
	free(all);
}

/* y_t = C_t z_t, z_t = w0 g_{t-2} + w1 g_{t-1} + w2 g_t, g = B X. */
static void convolution_back(struct call *c, float *dt, int layer, const float *dy)
{
	ruv_backward *b = c->b;
	const int64_t d = c->hp->hidden;
	const struct record *r = &b->records[layer];
	float *bcx = b->work, *dbcx = bcx + c->n * 3 * d, *dz = dbcx + c->n * 3 * d; /* [n, 3d], [n, 3d], [n, d] */
	float *dv = dz + c->n * d;
	matrix_back(c, dv, layer, RUV_SLOT_CONV_OUT, r->y, dy, c->n, false);
	product(c, bcx, layer, RUV_SLOT_CONV_IN, NULL, r->t, c->n);
	if (c->rc)
		return;
	int64_t first = 0;
	for (int s = 0; s < c->n_seqs; first += c->seqs[s].n, s++) {
		const int64_t n = c->seqs[s].n;
		const float *in = bcx + first * 3 * d;
		float *out = dbcx + first * 3 * d, *z = dz + first * d;
		const float *g = dv + first * d;
		for (int64_t t = 0; t < n; t++)
			for (int64_t k = 0; k < d; k++) {
				const float *w = r->taps + 3 * k;
				float sum = w[2] * in[t * 3 * d + k] * in[t * 3 * d + 2 * d + k];
				if (t >= 1)
					sum += w[1] * in[(t - 1) * 3 * d + k] * in[(t - 1) * 3 * d + 2 * d + k];
				if (t >= 2)
					sum += w[0] * in[(t - 2) * 3 * d + k] * in[(t - 2) * 3 * d + 2 * d + k];
				out[t * 3 * d + d + k] = g[t * d + k] * sum;
				z[t * d + k] = g[t * d + k] * in[t * 3 * d + d + k];
			}
		for (int64_t t = 0; t < n; t++)
			for (int64_t k = 0; k < d; k++) {
				const float *w = r->taps + 3 * k;
				float dg = w[2] * z[t * d + k];
				if (t + 1 < n)
					dg += w[1] * z[(t + 1) * d + k];
				if (t + 2 < n)
					dg += w[0] * z[(t + 2) * d + k];
				out[t * 3 * d + k] = dg * in[t * 3 * d + 2 * d + k];
				out[t * 3 * d + 2 * d + k] = dg * in[t * 3 * d + k];
			}
	}
	matrix_back(c, dt, layer, RUV_SLOT_CONV_IN, r->t, dbcx, c->n, false);
}

/* dt2 = gradient of the normed input of gate and up; NULL: not needed. */
static void feed_forward_back(struct call *c, float *dt2, int layer, const float *dy)
{
	ruv_backward *b = c->b;
	const struct record *r = &b->records[layer];
	const int64_t f = c->hp->feed_forward;
	float *gate = b->work, *up = gate + c->n * f, *ds = up + c->n * f;
	const bool need = dt2 || find_param(c, layer, RUV_SLOT_FFN_GATE) || find_param(c, layer, RUV_SLOT_FFN_UP);
	matrix_back(c, need ? ds : NULL, layer, RUV_SLOT_FFN_DOWN, r->s, dy, c->n, false);
	if (!need)
		return;
	product(c, gate, layer, RUV_SLOT_FFN_GATE, NULL, r->t2, c->n);
	product(c, up, layer, RUV_SLOT_FFN_UP, NULL, r->t2, c->n);
	if (c->rc)
		return;
	for (int64_t i = 0; i < c->n * f; i++) {
		const float sigmoid = 1 / (1 + expf(-gate[i])), silu = gate[i] * sigmoid;
		const float d_up = ds[i] * silu, d_gate = ds[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
		gate[i] = d_gate;
		up[i] = d_up;
	}
	matrix_back(c, dt2, layer, RUV_SLOT_FFN_GATE, r->t2, gate, c->n, false);
	matrix_back(c, dt2, layer, RUV_SLOT_FFN_UP, r->t2, up, c->n, true);
}

/* ---- layers ---- */

static bool op_adapted(const struct call *c, int layer)
{
	for (int s = 0; s < RUV_SLOT_FFN_GATE; s++)
		if (find_param(c, layer, (ruv_adapter_slot)s))
			return true;
	return false;
}

/* dx: gradient of the layer's output on entry, of its input on return (untouched parts of the lowest layer are left out). */
static void layer_back(struct call *c, int layer)
{
	ruv_backward *b = c->b;
	const ruv_hparams *hp = c->hp;
	const struct record *r = &b->records[layer];
	const int64_t n = c->n, d = hp->hidden;
	const bool lowest = layer == b->lowest, op = !lowest || op_adapted(c, layer);
	feed_forward_back(c, op ? b->dh : NULL, layer, b->dx);
	if (!op || c->rc)
		return;
	/* h = x + what the operator added */
	float *h = malloc((size_t)(2 * n * d) * sizeof *h);
	if (!h) {
		c->rc = ruv_fail_memory(c->err, where, (size_t)(2 * n * d) * sizeof *h);
		return;
	}
	float *dt = h + n * d;
	const bool attention = hp->kind[layer] == RUV_LAYER_ATTENTION;
	product(c, h, layer, attention ? RUV_SLOT_ATTN_OUTPUT : RUV_SLOT_CONV_OUT,
	        attention ? &b->model->weights.layers[layer].attn_output_bias : NULL, r->y, c->n);
	for (int64_t i = 0; i < n * d; i++)
		h[i] += r->x[i];
	rms_norm_back(b->dx, b->dh, h, r->ffn_norm, n, d, hp->rms_eps);
	if (attention)
		attention_back(c, lowest ? NULL : dt, layer, b->dx);
	else
		convolution_back(c, lowest ? NULL : dt, layer, b->dx);
	if (!lowest && !c->rc)
		rms_norm_back(b->dx, dt, r->x, r->norm, n, d, hp->rms_eps);
	free(h);
}

/* ---- the recorded pass ---- */

static int record_hidden(void *user, int i, ruv_backend *backend, const float *x, int n, int64_t dim)
{
	ruv_backward *b = user;
	if (i >= b->lowest && i <= b->model->hp.n_layers)
		ruv_backend_download(backend, b->records[i].x, x, (size_t)n * (size_t)dim * sizeof *x);
	return RUV_OK;
}

static int record_linear(void *user, int layer, const char *suffix, ruv_backend *backend, const float *x, int n, int64_t n_in)
{
	ruv_backward *b = user;
	float *to = NULL;
	if (layer < b->lowest)
		return RUV_OK;
	struct record *r = &b->records[layer];
	if (suffix == ruv_adapter_slot_name(RUV_SLOT_Q) || suffix == ruv_adapter_slot_name(RUV_SLOT_CONV_IN))
		to = r->t;
	else if (suffix == ruv_adapter_slot_name(RUV_SLOT_ATTN_OUTPUT) || suffix == ruv_adapter_slot_name(RUV_SLOT_CONV_OUT))
		to = r->y;
	else if (suffix == ruv_adapter_slot_name(RUV_SLOT_FFN_GATE))
		to = r->t2;
	else if (suffix == ruv_adapter_slot_name(RUV_SLOT_FFN_DOWN))
		to = r->s;
	if (to)
		ruv_backend_download(backend, to, x, (size_t)n * (size_t)n_in * sizeof *x);
	return RUV_OK;
}

/* Binds the params' matrices for forward.c. */
static int bind_params(struct call *c)
{
	ruv_backward *b = c->b;
	int rc = RUV_OK;
	b->adapter.rank = 0;
	for (int i = 0; i < c->n_params && rc == RUV_OK; i++) {
		const ruv_lora_param *p = &c->params[i];
		ruv_lora *lora = &b->adapter.loras[p->layer * RUV_SLOT_N + (int)p->slot];
		b->adapter.rank = p->rank > b->adapter.rank ? p->rank : b->adapter.rank;
		rc = ruv_backend_bind(b->backend, &lora->a, RUV_F32, p->n_in, p->rank, p->a, c->err);
		if (rc == RUV_OK)
			rc = ruv_backend_bind(b->backend, &lora->b, RUV_F32, p->rank, p->n_out, p->b, c->err);
	}
	return rc;
}

static void unbind_params(const struct call *c)
{
	ruv_backward *b = c->b;
	for (int i = 0; i < c->n_params; i++) {
		ruv_lora *lora = &b->adapter.loras[c->params[i].layer * RUV_SLOT_N + (int)c->params[i].slot];
		if (ruv_tensor_present(&lora->a))
			ruv_backend_unbind(b->backend, &lora->a);
		if (ruv_tensor_present(&lora->b))
			ruv_backend_unbind(b->backend, &lora->b);
		*lora = (ruv_lora){0};
	}
}

static int forward(struct call *c, int n_targets, bool plain, bool record)
{
	ruv_backward *b = c->b;
	ruv_forward_seq seqs[RUV_TRAIN_MAX_SEQS];
	int row = 0, page = 0;
	for (int s = 0; s < c->n_seqs; s++) {
		seqs[s] = (ruv_forward_seq){.first_row = row, .n_rows = c->seqs[s].n, .pages = b->pages + page};
		if (b->conv_state)
			seqs[s].conv_state = b->conv_state + (size_t)s * (b->conv_bytes / sizeof(float));
		row += c->seqs[s].n;
		page += (c->seqs[s].n + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
	}
	const ruv_forward_tap tap = {.user = b, .hidden = record_hidden, .linear = record_linear};
	const ruv_forward f = {.tokens = b->ids,
	                       .n = c->n,
	                       .seqs = seqs,
	                       .n_seqs = c->n_seqs,
	                       .kv = &b->kv,
	                       .logit_rows = b->rows,
	                       .n_logit_rows = n_targets,
	                       .logits = plain ? b->teacher : b->logits,
	                       .tap = record ? &tap : NULL,
	                       .adapter = plain || !c->n_params ? NULL : &b->adapter};
	ruv_engine_lock(b->model->engine);
	if (b->conv_state)
		ruv_backend_zero(b->backend, b->conv_state, (size_t)c->n_seqs * b->conv_bytes);
	int rc = f.adapter ? bind_params(c) : RUV_OK;
	if (rc == RUV_OK)
		rc = ruv_forward_run(c->hp, &b->model->weights, &b->model->workspace, &f, c->err);
	if (f.adapter)
		unbind_params(c);
	ruv_engine_unlock(b->model->engine);
	return rc;
}

static int check(const ruv_backward *b, const ruv_lora_param *params, int n_params, ruv_train_seq *seqs, int n_seqs, int *n_rows,
                 int *n_targets, int *n_pages, ruv_error *err)
{
	const ruv_hparams *hp = &b->model->hp;
	*n_rows = *n_targets = *n_pages = 0;
	if (n_seqs < 1 || n_seqs > RUV_TRAIN_MAX_SEQS)
		return ruv_fail(err, RUV_ELIMIT, where, "%d sequences in one call, 1..%d are possible", n_seqs, RUV_TRAIN_MAX_SEQS);
	for (int s = 0; s < n_seqs; s++) {
		ruv_train_seq *q = &seqs[s];
		q->nll = 0;
		q->n_targets = q->n_right = 0;
		for (int i = 0; i < q->n; i++) {
			if (q->tokens[i] < 0 || q->tokens[i] >= hp->n_vocab)
				return ruv_fail(err, RUV_EINVAL, where, "token %d is outside the model's vocabulary of %d",
				                q->tokens[i], hp->n_vocab);
			q->n_targets += i > 0 && q->weight[i] > 0;
		}
		if (q->n_targets == 0)
			return ruv_fail(err, RUV_EINVAL, where, "sequence %d of %d has nothing to predict", s + 1, n_seqs);
		*n_rows += q->n;
		*n_targets += q->n_targets;
		*n_pages += (q->n + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
		if (*n_rows > RUV_TRAIN_MAX_ROWS)
			return ruv_fail(err, RUV_ELIMIT, where, "more than %d tokens in one call", RUV_TRAIN_MAX_ROWS);
	}
	for (int i = 0; i < n_params; i++) {
		int64_t n_in = 0, n_out = 0;
		int rc = ruv_lora_shape(b->model, params[i].layer, params[i].slot, &n_in, &n_out, err);
		if (rc)
			return rc;
		if (n_in != params[i].n_in || n_out != params[i].n_out || params[i].rank < 1)
			return ruv_fail(err, RUV_EINVAL, where, "blk.%d.%s is [%lld, %lld], its adapter says [%lld, %lld]",
			                params[i].layer, ruv_adapter_slot_name(params[i].slot), (long long)n_out, (long long)n_in,
			                (long long)params[i].n_out, (long long)params[i].n_in);
	}
	return RUV_OK;
}

/* p = softmax(logits) in place; returns log of the sum's normaliser so that log p_i = logit_i - it. */
static double softmax(float *x, int n)
{
	float max = -INFINITY;
	double sum = 0;
	for (int i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (int i = 0; i < n; i++)
		sum += x[i] = expf(x[i] - max);
	const float inverse = (float)(1 / sum);
	for (int i = 0; i < n; i++)
		x[i] *= inverse;
	return log(sum > 0 ? sum : 1) + (double)max;
}

/* Loss of every target; logits become their gradient. */
static double losses(struct call *c, ruv_train_seq *seqs)
{
	const int n_vocab = c->hp->n_vocab;
	double loss = 0;
	int target = 0;
	for (int s = 0; s < c->n_seqs; s++)
		for (int i = 1; i < seqs[s].n; i++) {
			if (!(seqs[s].weight[i] > 0))
				continue;
			float *p = c->b->logits + (int64_t)target * n_vocab;
			const ruv_token want = seqs[s].tokens[i];
			const float weight = seqs[s].weight[i], logit = p[want];
			double nll;
			int best = 0;
			for (int k = 1; k < n_vocab; k++)
				best = p[k] > p[best] ? k : best;
			seqs[s].n_right += best == want;
			nll = softmax(p, n_vocab) - (double)logit;
			if (seqs[s].distill) {
				float *q = c->b->teacher + (int64_t)target * n_vocab;
				softmax(q, n_vocab);
				nll = 0;
				for (int k = 0; k < n_vocab; k++) {
					if (q[k] > 0)
						nll += (double)q[k] * (log((double)q[k]) - log((double)p[k] + 1e-30));
					p[k] = weight * (p[k] - q[k]);
				}
			} else {
				for (int k = 0; k < n_vocab; k++)
					p[k] *= weight;
				p[want] -= weight;
			}
			seqs[s].nll += nll;
			loss += (double)weight * nll;
			target++;
		}
	return loss;
}

/* From the logits' gradient to that of the residual stream before the final norm. */
static void head_back(struct call *c, int n_targets)
{
	ruv_backward *b = c->b;
	const int64_t d = c->hp->hidden;
	memset(b->dx, 0, (size_t)c->n * (size_t)d * sizeof *b->dx);
	transposed(c, b->work, ruv_weights_head(&b->model->weights), b->logits, n_targets, false);
	for (int i = 0; i < n_targets && !c->rc; i++) {
		const int64_t at = (int64_t)b->rows[i] * d;
		rms_norm_back(b->dx + at, b->work + i * d, b->records[c->hp->n_layers].x + at, b->final_norm, 1, d, c->hp->rms_eps);
	}
}

int ruv_backward_run(ruv_backward *b, const ruv_lora_param *params, int n_params, ruv_train_seq *seqs, int n_seqs, bool gradients,
                     double *loss, ruv_error *err)
{
	int n_rows, n_targets, n_pages, rank = 0, target = 0, row = 0;
	bool distill = false;
	int rc = check(b, params, n_params, seqs, n_seqs, &n_rows, &n_targets, &n_pages, err);
	if (rc)
		return rc;
	b->lowest = b->model->hp.n_layers;
	for (int i = 0; i < n_params; i++) {
		rank = params[i].rank > rank ? params[i].rank : rank;
		b->lowest = params[i].layer < b->lowest ? params[i].layer : b->lowest;
	}
	for (int s = 0; s < n_seqs; s++)
		distill |= seqs[s].distill;
	rc = reserve_rows(b, n_rows, n_pages, n_targets, rank, distill, err);
	if (rc)
		return rc;
	for (int s = 0; s < n_seqs; s++)
		for (int i = 0; i < seqs[s].n; i++, row++) {
			b->ids[row] = seqs[s].tokens[i];
			if (i > 0 && seqs[s].weight[i] > 0)
				b->rows[target++] = row - 1;
		}
	struct call c = {.b = b,
	                 .hp = &b->model->hp,
	                 .params = params,
	                 .n_params = n_params,
	                 .seqs = seqs,
	                 .n_seqs = n_seqs,
	                 .n = n_rows,
	                 .err = err};
	if (distill && (rc = forward(&c, n_targets, true, false)))
		return rc;
	if ((rc = forward(&c, n_targets, false, gradients && n_params)))
		return rc;
	const double sum = losses(&c, seqs);
	if (loss)
		*loss = sum;
	if (!isfinite(sum))
		return ruv_fail(err, RUV_EINTERNAL, where, "the loss is %g", sum);
	if (!gradients || !n_params)
		return RUV_OK;
	head_back(&c, n_targets);
	for (int layer = c.hp->n_layers - 1; layer >= b->lowest && !c.rc; layer--)
		layer_back(&c, layer);
	return c.rc;
}

/* forward.c - the block that LFM2, Qwen and Llama share, written once over tensor/ops.h.
 *
 *     h   = x + Op(rms(x, attn_norm))       Op: attention, or LFM2's gated short convolution
 *     out = h + W_down(silu(W_gate n) * W_up n),  n = rms(h, ffn_norm)
 *
 * After the last layer the final norm, then the head (the embedding's own matrix when tied) or, for embeddings, pooling and the
 * embedding head. Projections back into the residual stream accumulate in place. In the last layer only the rows that somebody
 * asked for go through the feed-forward part.
 *
 * Nothing here touches a device's memory: addresses go from one operation to the next. Threads: one pass at a time on a workspace.
 */
#include "model/forward.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/registry.h"

static const char where[] = "forward";

static int64_t q_dim(const ruv_hparams *hp)
{
	return (int64_t)hp->n_heads * hp->head_dim;
}

static int64_t kv_dim(const ruv_hparams *hp)
{
	return (int64_t)hp->n_kv_heads * hp->head_dim;
}

static int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Elements that the operators need of `work`, per row. */
static int64_t work_elements(const ruv_hparams *hp)
{
	int64_t n = 2 * (int64_t)hp->feed_forward;
	if (hp->n_attention)
		n = max64(n, 2 * q_dim(hp) + 2 * kv_dim(hp));
	if (hp->n_conv)
		n = max64(n, 4 * (int64_t)hp->hidden);
	return n;
}

int ruv_forward_embedding_dim(const ruv_hparams *hp, const ruv_weights *w)
{
	return ruv_tensor_present(&w->embedding_proj) ? (int)w->embedding_proj.n_out : hp->hidden;
}

static int alloc_floats(ruv_backend *backend, float **out, int64_t n, int64_t dim, ruv_error *err)
{
	void *address = NULL;
	int rc = ruv_backend_alloc(backend, &address, (size_t)n * (size_t)dim * sizeof(float), err);
	if (rc == RUV_OK)
		*out = address;
	return rc;
}

static void release_buffers(ruv_workspace *ws)
{
	float **const all[] = {&ws->x, &ws->t, &ws->work, &ws->low, &ws->few, &ws->logits};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (*all[i])
			ruv_backend_release(ws->backend, *all[i]);
		*all[i] = NULL;
	}
	free(ws->positions);
	free(ws->rows);
	free(ws->seqs);
	ws->positions = ws->rows = NULL;
	ws->seqs = NULL;
	ws->n_rows = ws->n_seqs = 0;
}

int ruv_workspace_reserve(ruv_workspace *ws, const ruv_hparams *hp, const ruv_weights *w, int n_rows, int n_seqs, int n_context,
                          ruv_error *err)
{
	ws->backend = w->backend;
	int64_t widest = max64(max64(work_elements(hp), hp->hidden), max64(hp->feed_forward, ruv_forward_embedding_dim(hp, w)));
	int rc = ruv_backend_reserve(ws->backend, n_rows > RUV_LOGIT_ROWS ? n_rows : RUV_LOGIT_ROWS, widest, n_context, err);
	if (rc)
		return rc;
	if (n_rows <= ws->n_rows && n_seqs <= ws->n_seqs)
		return RUV_OK;
	n_rows = n_rows > ws->n_rows ? n_rows : ws->n_rows;
	n_seqs = n_seqs > ws->n_seqs ? n_seqs : ws->n_seqs;
	release_buffers(ws);
	/* pooled vectors use `t` and `few` after the last layer */
	int64_t wide = max64(hp->hidden, ruv_forward_embedding_dim(hp, w)), n = n_rows > n_seqs ? n_rows : n_seqs;
	if ((rc = alloc_floats(ws->backend, &ws->x, n, hp->hidden, err)) ||
	    (rc = alloc_floats(ws->backend, &ws->t, n, wide, err)) ||
	    (rc = alloc_floats(ws->backend, &ws->work, n, work_elements(hp), err)) ||
	    (rc = alloc_floats(ws->backend, &ws->few, n, wide, err)) ||
	    (rc = alloc_floats(ws->backend, &ws->logits, RUV_LOGIT_ROWS, hp->n_vocab, err)))
		goto failed;
	ws->positions = calloc((size_t)n, sizeof *ws->positions);
	ws->rows = calloc((size_t)n, sizeof *ws->rows);
	ws->seqs = calloc((size_t)n_seqs, sizeof *ws->seqs);
	if (!ws->positions || !ws->rows || !ws->seqs) {
		rc = ruv_fail_memory(err, where, (size_t)n * 8 + (size_t)n_seqs * sizeof *ws->seqs);
		goto failed;
	}
	if (ws->rank && (rc = alloc_floats(ws->backend, &ws->low, n, ws->rank, err)))
		goto failed;
	ws->n_rows = n_rows;
	ws->n_seqs = n_seqs;
	return RUV_OK;
failed:
	release_buffers(ws);
	return rc;
}

int ruv_workspace_reserve_rank(ruv_workspace *ws, int rank, ruv_error *err)
{
	if (rank <= ws->rank)
		return RUV_OK;
	if (ws->n_rows) {
		float *low = NULL;
		int rc = alloc_floats(ws->backend, &low, ws->n_rows, rank, err);
		if (rc)
			return rc;
		if (ws->low)
			ruv_backend_release(ws->backend, ws->low);
		ws->low = low;
	}
	ws->rank = rank;
	return RUV_OK;
}

void ruv_workspace_release(ruv_workspace *ws)
{
	if (ws->backend)
		release_buffers(ws);
	memset(ws, 0, sizeof *ws);
}

/* ---- one pass ---- */

struct pass {
	const ruv_hparams *hp;
	const ruv_weights *w;
	ruv_workspace *ws;
	const ruv_forward *f;
	ruv_backend *b;
	bool adapted;         /* some row has an adapter */
	const int32_t *taken; /* host [n]: the rows of the batch that go on; NULL: all */
};

/* The adapter of row i of what goes on now. Rows of a batch ascend with the sequences; *seq, 0 at first, is where to look. */
static const ruv_adapter *adapter_of(const struct pass *p, int i, int *seq)
{
	if (p->f->adapter)
		return p->f->adapter;
	const int row = p->taken ? p->taken[i] : i;
	while (row >= p->f->seqs[*seq].first_row + p->f->seqs[*seq].n_rows)
		++*seq;
	return p->f->seqs[*seq].adapter;
}

/* What an adapter adds to rows [first, first + n) of a matrix's result. */
static void add_low_rank(const struct pass *p, const ruv_lora *lora, const ruv_linear *linear, const float *x, int first, int n)
{
	if (!ruv_tensor_present(&lora->a))
		return;
	const ruv_linear down = {.y = p->ws->low, .ld_y = lora->a.n_out, .w = &lora->a};
	const ruv_linear up = {.y = linear->y + first * linear->ld_y, .ld_y = linear->ld_y, .w = &lora->b, .accumulate = true};
	ruv_op_linear(p->b, &down, 1, x + first * lora->a.n_in, n);
	ruv_op_linear(p->b, &up, 1, p->ws->low, n);
}

/* The same for a group of matrices over all rows: each run of rows with one adapter at a time. */
static void adapt(const struct pass *p, int layer, ruv_adapter_slot first_slot, const ruv_linear *group, int n_group,
                  const float *x, int n)
{
	int seq = 0;
	for (int first = 0; first < n;) {
		const ruv_adapter *adapter = adapter_of(p, first, &seq);
		int end = first + 1;
		while (end < n && adapter_of(p, end, &seq) == adapter)
			end++;
		for (int g = 0; g < n_group && adapter; g++)
			add_low_rank(p, &adapter->loras[layer * RUV_SLOT_N + (int)first_slot + g], &group[g], x, first,
			             end - first);
		first = end;
	}
}

static int tap_hidden(const struct pass *p, int i, const float *x)
{
	const ruv_forward_tap *tap = p->f->tap;
	return tap && tap->hidden ? tap->hidden(tap->user, i, p->b, x, p->f->n, p->hp->hidden) : RUV_OK;
}

static int tap_linear(const struct pass *p, int layer, const char *suffix, const float *x, int n, int64_t n_in)
{
	const ruv_forward_tap *tap = p->f->tap;
	return tap && tap->linear ? tap->linear(tap->user, layer, suffix, p->b, x, n, n_in) : RUV_OK;
}

/* A group of a layer's matrices, slots first_slot and on, over the same x, with what an adapter adds to each. */
static int project(const struct pass *p, int layer, ruv_adapter_slot first_slot, const ruv_linear *group, int n_group,
                   const float *x, int n)
{
	for (int g = 0; g < n_group; g++) {
		int rc = tap_linear(p, layer, ruv_adapter_slot_name(first_slot + (unsigned)g), x, n, group[g].w->n_in);
		if (rc)
			return rc;
	}
	ruv_op_linear(p->b, group, n_group, x, n);
	if (p->adapted)
		adapt(p, layer, first_slot, group, n_group, x, n);
	return RUV_OK;
}

static const ruv_tensor *or_null(const ruv_tensor *tensor)
{
	return ruv_tensor_present(tensor) ? tensor : NULL;
}

/* x += W y */
static int add_projection(const struct pass *p, int layer, ruv_adapter_slot slot, float *x, const ruv_tensor *w,
                          const ruv_tensor *bias, const float *y, int n)
{
	const ruv_linear linear = {.y = x, .ld_y = p->hp->hidden, .w = w, .bias = or_null(bias), .accumulate = true};
	return project(p, layer, slot, &linear, 1, y, n);
}

static int attention(const struct pass *p, int layer, int index)
{
	const ruv_hparams *hp = p->hp;
	const ruv_layer_weights *l = &p->w->layers[layer];
	const int n = p->f->n;
	float *q = p->ws->work, *k = q + n * q_dim(hp), *v = k + n * kv_dim(hp), *y = v + n * kv_dim(hp);
	const ruv_linear qkv[3] = {
	    {.y = q, .ld_y = q_dim(hp), .w = &l->attn_q, .bias = or_null(&l->attn_q_bias)},
	    {.y = k, .ld_y = kv_dim(hp), .w = &l->attn_k, .bias = or_null(&l->attn_k_bias)},
	    {.y = v, .ld_y = kv_dim(hp), .w = &l->attn_v, .bias = or_null(&l->attn_v_bias)},
	};
	int rc = project(p, layer, RUV_SLOT_Q, qkv, 3, p->ws->t, n);
	if (rc)
		return rc;
	if (ruv_tensor_present(&l->attn_q_norm)) {
		ruv_op_rms_norm(p->b, q, q, &l->attn_q_norm, (int64_t)n * hp->n_heads, hp->head_dim, hp->rms_eps);
		ruv_op_rms_norm(p->b, k, k, &l->attn_k_norm, (int64_t)n * hp->n_kv_heads, hp->head_dim, hp->rms_eps);
	}
	const ruv_rope rope = {
	    .kind = hp->rope_kind, .n_rot = hp->n_rot, .frequency = hp->rope_frequency, .magnitude = hp->rope_magnitude};
	ruv_op_rope(p->b, q, &rope, p->ws->positions, n, hp->n_heads, hp->head_dim);
	ruv_op_rope(p->b, k, &rope, p->ws->positions, n, hp->n_kv_heads, hp->head_dim);

	const ruv_kv_layer *kv = &p->f->kv[index * p->f->kv_stride];
	if (!p->f->keep_kv)
		ruv_op_kv_write(p->b, kv, k, v, p->ws->seqs, p->f->n_seqs);
	const ruv_attention how = {
	    .n_heads = hp->n_heads, .scale = 1.0f / sqrtf((float)hp->head_dim), .bidirectional = !hp->causal};
	ruv_op_attention(p->b, y, q, kv, &how, p->ws->seqs, p->f->n_seqs);
	return add_projection(p, layer, RUV_SLOT_ATTN_OUTPUT, p->ws->x, &l->attn_output, &l->attn_output_bias, y, n);
}

static int convolution(const struct pass *p, int layer, int index)
{
	const ruv_hparams *hp = p->hp;
	const ruv_layer_weights *l = &p->w->layers[layer];
	const int n = p->f->n;
	const int64_t d = hp->hidden;
	float *bcx = p->ws->work, *y = bcx + n * 3 * d;
	const ruv_linear in = {.y = bcx, .ld_y = 3 * d, .w = &l->conv_in};
	int rc = project(p, layer, RUV_SLOT_CONV_IN, &in, 1, p->ws->t, n);
	if (rc)
		return rc;
	for (int s = 0; s < p->f->n_seqs; s++) {
		const ruv_forward_seq *seq = &p->f->seqs[s];
		p->ws->seqs[s].conv_state = seq->conv_state ? seq->conv_state + (int64_t)index * 2 * d : NULL;
		p->ws->seqs[s].conv_columns = seq->conv_columns ? seq->conv_columns + (int64_t)index * (seq->n_rows + 2) * d : NULL;
	}
	ruv_op_short_conv(p->b, y, bcx, &l->conv_taps, d, !hp->causal, p->ws->seqs, p->f->n_seqs);
	return add_projection(p, layer, RUV_SLOT_CONV_OUT, p->ws->x, &l->conv_out, &(ruv_tensor){0}, y, n);
}

static int feed_forward(const struct pass *p, int layer, float *x, int n)
{
	const ruv_hparams *hp = p->hp;
	const ruv_layer_weights *l = &p->w->layers[layer];
	const int64_t f = hp->feed_forward;
	float *gate = p->ws->work, *up = gate + n * f;
	ruv_op_rms_norm(p->b, p->ws->t, x, &l->ffn_norm, n, hp->hidden, hp->rms_eps);
	const ruv_linear both[2] = {{.y = gate, .ld_y = f, .w = &l->ffn_gate}, {.y = up, .ld_y = f, .w = &l->ffn_up}};
	int rc = project(p, layer, RUV_SLOT_FFN_GATE, both, 2, p->ws->t, n);
	if (rc)
		return rc;
	ruv_op_swiglu(p->b, gate, gate, up, n * f);
	return add_projection(p, layer, RUV_SLOT_FFN_DOWN, x, &l->ffn_down, &(ruv_tensor){0}, gate, n);
}

/* logits of the first n rows of x, which are past the final norm; in groups, so that the buffer stays small */
static int head(const struct pass *p, const float *x, int n)
{
	const ruv_hparams *hp = p->hp;
	int rc = tap_linear(p, -1, "output", x, n, hp->hidden);
	for (int i = 0; i < n && rc == RUV_OK; i += RUV_LOGIT_ROWS) {
		int group = n - i < RUV_LOGIT_ROWS ? n - i : RUV_LOGIT_ROWS;
		const ruv_linear linear = {.y = p->ws->logits, .ld_y = hp->n_vocab, .w = ruv_weights_head(p->w)};
		ruv_op_linear(p->b, &linear, 1, x + (int64_t)i * hp->hidden, group);
		ruv_backend_download(p->b, p->f->logits + (int64_t)i * hp->n_vocab, p->ws->logits,
		                     (size_t)group * (size_t)hp->n_vocab * sizeof(float));
	}
	return rc;
}

/* One vector per sequence from the rows past the final norm. */
static void pool(const struct pass *p, const float *x)
{
	const ruv_hparams *hp = p->hp;
	const ruv_weights *w = p->w;
	const int n = p->f->n_seqs;
	float *y = p->ws->few;
	if (hp->pooling == RUV_POOL_MEAN) {
		ruv_op_mean_pool(p->b, y, x, hp->hidden, p->ws->seqs, n);
	} else {
		for (int s = 0; s < n; s++) {
			const ruv_forward_seq *seq = &p->f->seqs[s];
			p->ws->rows[s] = seq->first_row + (hp->pooling == RUV_POOL_LAST ? seq->n_rows - 1 : 0);
		}
		ruv_op_take_rows(p->b, y, x, p->ws->rows, n, hp->hidden);
	}
	const int dim = ruv_forward_embedding_dim(hp, w);
	if (ruv_tensor_present(&w->embedding_proj)) {
		float *projected = p->ws->t;
		const ruv_linear linear = {
		    .y = projected, .ld_y = dim, .w = &w->embedding_proj, .bias = or_null(&w->embedding_proj_bias)};
		ruv_op_linear(p->b, &linear, 1, y, n);
		y = projected;
	}
	if (ruv_tensor_present(&w->embedding_norm))
		ruv_op_layer_norm(p->b, y, y, &w->embedding_norm, &w->embedding_norm_bias, n, dim, 1e-5f);
	ruv_backend_download(p->b, p->f->pooled, y, (size_t)n * (size_t)dim * sizeof(float));
}

static int run_layers(struct pass *p)
{
	const ruv_hparams *hp = p->hp;
	const ruv_forward *f = p->f;
	const bool all_rows = f->pooled || f->tap;
	int attention_index = 0, conv_index = 0, n_out = f->n, rc;
	float *x = p->ws->x;
	for (int layer = 0; layer < hp->n_layers; layer++) {
		ruv_op_rms_norm(p->b, p->ws->t, x, &p->w->layers[layer].attn_norm, f->n, hp->hidden, hp->rms_eps);
		rc = hp->kind[layer] == RUV_LAYER_ATTENTION ? attention(p, layer, attention_index++)
		                                            : convolution(p, layer, conv_index++);
		if (rc)
			return rc;
		if (layer == hp->n_layers - 1 && !all_rows) {
			if (f->n_logit_rows == 0)
				return RUV_OK; /* keys, values and states are written: that was all */
			if (f->n_logit_rows < f->n) {
				ruv_op_take_rows(p->b, p->ws->few, x, f->logit_rows, f->n_logit_rows, hp->hidden);
				x = p->ws->few;
				n_out = f->n_logit_rows;
				p->taken = f->logit_rows;
			}
		}
		if ((rc = feed_forward(p, layer, x, n_out)) || (rc = tap_hidden(p, layer + 1, x)))
			return rc;
	}
	ruv_op_rms_norm(p->b, x, x, &p->w->final_norm, n_out, hp->hidden, hp->rms_eps);
	if ((rc = tap_hidden(p, hp->n_layers + 1, x)))
		return rc;
	if (f->pooled)
		pool(p, x);
	if (f->n_logit_rows == 0)
		return RUV_OK;
	if (f->n_logit_rows < n_out) { /* all rows were kept for the tap or the pool */
		ruv_op_take_rows(p->b, p->ws->few, x, f->logit_rows, f->n_logit_rows, hp->hidden);
		x = p->ws->few;
	}
	return head(p, x, f->n_logit_rows);
}

int ruv_forward_run(const ruv_hparams *hp, const ruv_weights *w, ruv_workspace *ws, const ruv_forward *f, ruv_error *err)
{
	assert(f->n > 0 && f->n <= ws->n_rows && f->n_seqs > 0 && f->n_seqs <= ws->n_seqs);
	struct pass p = {.hp = hp, .w = w, .ws = ws, .f = f, .b = ws->backend, .adapted = f->adapter != NULL};
	for (int s = 0; s < f->n_seqs; s++) {
		const ruv_forward_seq *seq = &f->seqs[s];
		ws->seqs[s] = (ruv_batch_seq){
		    .first_row = seq->first_row, .n_rows = seq->n_rows, .position = seq->position, .pages = seq->pages};
		p.adapted |= seq->adapter != NULL;
		for (int i = 0; i < seq->n_rows; i++)
			ws->positions[seq->first_row + i] = seq->position + i;
	}
	ruv_op_get_rows(p.b, ws->x, &w->token_embd, f->tokens, f->n);
	int rc = tap_hidden(&p, 0, ws->x);
	if (rc == RUV_OK)
		rc = run_layers(&p);
	int synced = ruv_backend_sync(p.b, rc ? NULL : err);
	if (rc)
		return err && err->code == rc ? rc : ruv_fail(err, rc, where, "a listener ended the forward pass");
	return synced;
}

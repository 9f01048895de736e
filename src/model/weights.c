/* weights.c - binding tensors by name and shape.
 *
 * Each tensor that the architecture needs is asked for once; whatever the file holds besides is an error too, because a tensor that
 * a graph ignores means that the graph is not the model's. Vectors and convolution taps must be F32, as every GGUF file has them.
 */
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/registry.h"

static const char where[] = "model";

enum {
	REQUIRED = 0,
	OPTIONAL = 1,
	MATRIX = 0,
	PLAIN = 2 /* must be F32 */
};

struct binder {
	ruv_weights *w;
	const ruv_gguf *gguf;
	unsigned char *used; /* [n_tensors] */
	ruv_error *err;
	int rc; /* the first failure; later calls do nothing */
};

/* n_out 0: a vector of n_in elements. */
static void bind(struct binder *b, ruv_tensor *tensor, const char *name, int64_t n_in, int64_t n_out, int flags)
{
	if (b->rc)
		return;
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(b->gguf, name);
	if (!t) {
		if (!(flags & OPTIONAL))
			b->rc = ruv_fail(b->err, RUV_EFORMAT, where, "tensor '%s' is missing", name);
		return;
	}
	int64_t want[2] = {n_in, n_out ? n_out : 1};
	if (t->ne[0] != want[0] || t->ne[1] != want[1] || t->ne[2] != 1 || t->ne[3] != 1) {
		char shape[64];
		if (n_out)
			b->rc = ruv_fail(b->err, RUV_EFORMAT, where, "tensor '%s' is %s, expected [%lld, %lld]", name,
			                 ruv_gguf_shape(t, shape, sizeof shape), (long long)n_in, (long long)n_out);
		else
			b->rc = ruv_fail(b->err, RUV_EFORMAT, where, "tensor '%s' is %s, expected [%lld]", name,
			                 ruv_gguf_shape(t, shape, sizeof shape), (long long)n_in);
		return;
	}
	if ((flags & PLAIN) && t->dtype != RUV_F32) {
		b->rc = ruv_fail(b->err, RUV_EUNSUPPORTED, where, "tensor '%s' is %s, must be F32", name, ruv_dtype_name(t->dtype));
		return;
	}
	if (t->dtype == RUV_I8 || t->dtype == RUV_I16 || t->dtype == RUV_I32) {
		b->rc = ruv_fail(b->err, RUV_EUNSUPPORTED, where, "tensor '%s' is %s, which is no type of weights", name,
		                 ruv_dtype_name(t->dtype));
		return;
	}
	b->rc = ruv_backend_bind(b->w->backend, tensor, (ruv_dtype)t->dtype, want[0], want[1], t->data, b->err);
	if (b->rc) {
		ruv_error_prefix(b->err, b->rc, "tensor '%s': ", name);
		return;
	}
	tensor->mapped = true;
	for (size_t i = 0; i < ruv_gguf_n_tensors(b->gguf); i++)
		if (ruv_gguf_tensor_at(b->gguf, i) == t)
			b->used[i] = 1;
	b->w->n_params += want[0] * want[1];
	b->w->n_bytes += t->n_bytes;
}

static void bind_layer(struct binder *b, const ruv_hparams *hp, int layer, ruv_layer_weights *l)
{
	char name[64];
	const unsigned traits = hp->arch->traits;
	const int64_t d = hp->hidden, f = hp->feed_forward, q = (int64_t)hp->n_heads * hp->head_dim,
		      kv = (int64_t)hp->n_kv_heads * hp->head_dim;
#define BIND(field, suffix, n_in, n_out, flags)                                                                                    \
	do {                                                                                                                       \
		snprintf(name, sizeof name, "blk.%d." suffix, layer);                                                              \
		bind(b, &l->field, name, n_in, n_out, flags);                                                                      \
	} while (0)
	BIND(attn_norm, "attn_norm.weight", d, 0, PLAIN);
	BIND(ffn_norm, "ffn_norm.weight", d, 0, PLAIN);
	BIND(ffn_gate, "ffn_gate.weight", d, f, MATRIX);
	BIND(ffn_up, "ffn_up.weight", d, f, MATRIX);
	BIND(ffn_down, "ffn_down.weight", f, d, MATRIX);
	if (hp->kind[layer] == RUV_LAYER_CONV) {
		BIND(conv_in, "shortconv.in_proj.weight", d, 3 * d, MATRIX);
		BIND(conv_taps, "shortconv.conv.weight", RUV_CONV_TAPS, d, PLAIN);
		BIND(conv_out, "shortconv.out_proj.weight", d, d, MATRIX);
		return;
	}
	const int bias = traits & RUV_ARCH_QKV_BIAS ? PLAIN : PLAIN | OPTIONAL;
	BIND(attn_q, "attn_q.weight", d, q, MATRIX);
	BIND(attn_k, "attn_k.weight", d, kv, MATRIX);
	BIND(attn_v, "attn_v.weight", d, kv, MATRIX);
	BIND(attn_output, "attn_output.weight", q, d, MATRIX);
	BIND(attn_q_bias, "attn_q.bias", q, 0, bias);
	BIND(attn_k_bias, "attn_k.bias", kv, 0, bias);
	BIND(attn_v_bias, "attn_v.bias", kv, 0, bias);
	BIND(attn_output_bias, "attn_output.bias", d, 0, PLAIN | OPTIONAL);
	if (traits & RUV_ARCH_QK_NORM) {
		BIND(attn_q_norm, "attn_q_norm.weight", hp->head_dim, 0, PLAIN);
		BIND(attn_k_norm, "attn_k_norm.weight", hp->head_dim, 0, PLAIN);
	}
#undef BIND
}

/* Llama 3 scaling: each frequency is divided by its own factor. The vector is small and read once, at load. */
static void fold_rope_freqs(struct binder *b, ruv_hparams *hp)
{
	ruv_tensor freqs = {0};
	bind(b, &freqs, "rope_freqs.weight", hp->n_rot / 2, 0, PLAIN | OPTIONAL);
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(b->gguf, "rope_freqs.weight");
	if (b->rc || !t)
		return;
	for (int i = 0; i < hp->n_rot / 2 && !b->rc; i++) {
		float factor;
		memcpy(&factor, (const char *)t->data + 4 * (size_t)i, 4); /* the file's bytes, not the device's */
		if (!(factor > 0) || !isfinite(factor))
			b->rc =
			    ruv_fail(b->err, RUV_EFORMAT, where, "tensor 'rope_freqs.weight' holds %g at %d", (double)factor, i);
		else
			hp->rope_frequency[i] /= factor;
	}
	ruv_backend_unbind(b->w->backend, &freqs);
}

static void bind_embedding_head(struct binder *b, const ruv_hparams *hp)
{
	ruv_weights *w = b->w;
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(b->gguf, "embedding_proj.weight");
	int64_t dim = hp->hidden;
	if (t) {
		dim = t->ne[1];
		if (dim < 1 || dim > RUV_MAX_HIDDEN) {
			b->rc =
			    ruv_fail(b->err, RUV_EFORMAT, where, "tensor 'embedding_proj.weight' has %lld rows", (long long)dim);
			return;
		}
		bind(b, &w->embedding_proj, "embedding_proj.weight", hp->hidden, dim, MATRIX);
		bind(b, &w->embedding_proj_bias, "embedding_proj.bias", dim, 0, PLAIN | OPTIONAL);
	}
	bind(b, &w->embedding_norm, "embedding_layer_norm.weight", dim, 0, PLAIN | OPTIONAL);
	if (ruv_tensor_present(&w->embedding_norm))
		bind(b, &w->embedding_norm_bias, "embedding_layer_norm.bias", dim, 0, PLAIN);
}

int ruv_weights_bind(ruv_weights *w, ruv_hparams *hp, const ruv_gguf *gguf, ruv_backend *backend, ruv_error *err)
{
	memset(w, 0, sizeof *w);
	w->backend = backend;
	w->n_layers = hp->n_layers;
	w->layers = calloc((size_t)hp->n_layers, sizeof *w->layers);
	size_t n_tensors = ruv_gguf_n_tensors(gguf);
	struct binder b = {.w = w, .gguf = gguf, .used = calloc(n_tensors + 1, 1), .err = err};
	if (!w->layers || !b.used) {
		b.rc = ruv_fail_memory(err, where, (size_t)hp->n_layers * sizeof *w->layers + n_tensors);
		goto done;
	}
	bind(&b, &w->token_embd, "token_embd.weight", hp->hidden, hp->n_vocab, MATRIX);
	bind(&b, &w->final_norm, hp->arch->final_norm, hp->hidden, 0, PLAIN);
	bind(&b, &w->output, "output.weight", hp->hidden, hp->n_vocab, MATRIX | OPTIONAL);
	for (int i = 0; i < hp->n_layers; i++)
		bind_layer(&b, hp, i, &w->layers[i]);
	if (hp->arch->traits & RUV_ARCH_ROPE_FREQS)
		fold_rope_freqs(&b, hp);
	if (hp->arch->traits & RUV_ARCH_EMBEDDING_HEAD)
		bind_embedding_head(&b, hp);
	if (b.rc)
		goto done;
	size_t n_extra = 0, extra = 0;
	for (size_t i = 0; i < n_tensors; i++)
		if (!b.used[i] && n_extra++ == 0)
			extra = i;
	if (n_extra)
		b.rc = ruv_fail(
		    err, RUV_EUNSUPPORTED, where,
		    "%zu tensor%s that a plain %s model does not have, the first is '%s'; without %s the results would be wrong",
		    n_extra, n_extra == 1 ? "" : "s", hp->arch->name, ruv_gguf_tensor_at(gguf, extra)->name,
		    n_extra == 1 ? "it" : "them");
done:
	free(b.used);
	return b.rc;
}

static void unbind(ruv_weights *w, ruv_tensor *tensor)
{
	if (ruv_tensor_present(tensor))
		ruv_backend_unbind(w->backend, tensor);
}

void ruv_weights_release(ruv_weights *w)
{
	ruv_tensor *const top[] = {&w->token_embd,         &w->final_norm,          &w->output,
	                           &w->embedding_proj,     &w->embedding_proj_bias, &w->embedding_norm,
	                           &w->embedding_norm_bias};
	for (size_t i = 0; i < sizeof top / sizeof *top; i++)
		unbind(w, top[i]);
	for (int i = 0; w->layers && i < w->n_layers; i++) {
		ruv_layer_weights *l = &w->layers[i];
		ruv_tensor *const all[] = {&l->attn_norm,   &l->ffn_norm,    &l->ffn_gate,         &l->ffn_up,      &l->ffn_down,
		                           &l->attn_q,      &l->attn_k,      &l->attn_v,           &l->attn_output, &l->attn_q_bias,
		                           &l->attn_k_bias, &l->attn_v_bias, &l->attn_output_bias, &l->attn_q_norm, &l->attn_k_norm,
		                           &l->conv_in,     &l->conv_taps,   &l->conv_out};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++)
			unbind(w, all[j]);
	}
	free(w->layers);
	memset(w, 0, sizeof *w);
}

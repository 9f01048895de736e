/* adapter.c - reading and binding LoRA adapters.
 *
 * The file is a GGUF with general.type "adapter", general.architecture that of the model, adapter.type "lora", adapter.lora.alpha
 * (f32), and for each adapted matrix NAME the tensors NAME.lora_a [n_in, r] and NAME.lora_b [r, n_out]. The change is scale * alpha
 * / r * B A. A half without the other, another suffix, or a NAME that the model does not have is an error. Both matrices are kept
 * in F32: they are small. Threads: read-only once open. */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "model/object.h"
#include "model/registry.h"
#include "tensor/quant.h"

static const char where[] = "adapter";

enum { MAX_RANK = 1024 };

const char *ruv_adapter_slot_name(ruv_adapter_slot slot)
{
	static const char *const names[] = {
#define X(id, suffix) suffix,
	    RUV_ADAPTER_SLOT_LIST(X)
#undef X
	};
	return names[slot];
}

static const ruv_tensor *base_matrix(const ruv_layer_weights *l, ruv_adapter_slot slot)
{
	switch (slot) {
	case RUV_SLOT_Q:
		return &l->attn_q;
	case RUV_SLOT_K:
		return &l->attn_k;
	case RUV_SLOT_V:
		return &l->attn_v;
	case RUV_SLOT_ATTN_OUTPUT:
		return &l->attn_output;
	case RUV_SLOT_CONV_IN:
		return &l->conv_in;
	case RUV_SLOT_CONV_OUT:
		return &l->conv_out;
	case RUV_SLOT_FFN_GATE:
		return &l->ffn_gate;
	case RUV_SLOT_FFN_UP:
		return &l->ffn_up;
	case RUV_SLOT_FFN_DOWN:
		return &l->ffn_down;
	case RUV_SLOT_N:
		break;
	}
	return NULL;
}

int ruv_adapter_create(ruv_adapter **out, ruv_model *model, ruv_error *err)
{
	*out = NULL;
	if (!model->engine)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s was opened for its vocabulary alone", model->path);
	ruv_adapter *a = calloc(1, sizeof *a);
	const size_t n = (size_t)model->hp.n_layers * RUV_SLOT_N;
	if (!a || !(a->loras = calloc(n, sizeof *a->loras))) {
		free(a);
		return ruv_fail_memory(err, where, n * sizeof *a->loras);
	}
	a->n_refs = 1;
	a->model = ruv_model_hold(model);
	*out = a;
	return RUV_OK;
}

ruv_adapter *ruv_adapter_hold(ruv_adapter *a)
{
	__atomic_add_fetch(&a->n_refs, 1, __ATOMIC_RELAXED);
	return a;
}

void ruv_adapter_free(ruv_adapter *a)
{
	if (!a || __atomic_sub_fetch(&a->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	ruv_backend *backend = ruv_engine_backend(a->model->engine);
	ruv_engine_lock(a->model->engine);
	for (int i = 0; i < a->model->hp.n_layers * RUV_SLOT_N; i++) {
		if (ruv_tensor_present(&a->loras[i].a))
			ruv_backend_unbind(backend, &a->loras[i].a);
		if (ruv_tensor_present(&a->loras[i].b))
			ruv_backend_unbind(backend, &a->loras[i].b);
	}
	ruv_engine_unlock(a->model->engine);
	for (int i = 0; i < a->n_buffers; i++)
		free(a->buffers[i]);
	free(a->buffers);
	free(a->loras);
	ruv_model_free(a->model);
	free(a);
}

/* A buffer of n floats that lives as long as the adapter; NULL when memory is out. */
static float *own_floats(ruv_adapter *a, size_t n)
{
	if (a->n_buffers == a->cap_buffers) {
		int cap = a->cap_buffers ? 2 * a->cap_buffers : 32;
		float **buffers = realloc(a->buffers, (size_t)cap * sizeof *buffers);
		if (!buffers)
			return NULL;
		a->buffers = buffers;
		a->cap_buffers = cap;
	}
	void *p = NULL;
	if (posix_memalign(&p, 64, n * sizeof(float) + 64))
		return NULL;
	a->buffers[a->n_buffers++] = p;
	return p;
}

int ruv_adapter_add(ruv_adapter *adapter, int layer, ruv_adapter_slot slot, int rank, const float *a, const float *b, float scale,
                    ruv_error *err)
{
	ruv_model *model = adapter->model;
	const char *name = ruv_adapter_slot_name(slot);
	if (layer < 0 || layer >= model->hp.n_layers)
		return ruv_fail(err, RUV_ENOTFOUND, where, "there is no layer %d, %s has %d", layer, model->path,
		                model->hp.n_layers);
	const ruv_tensor *base = base_matrix(&model->weights.layers[layer], slot);
	if (!ruv_tensor_present(base))
		return ruv_fail(err, RUV_ENOTFOUND, where, "layer %d of %s has no %s", layer, model->path, name);
	ruv_lora *lora = &adapter->loras[layer * RUV_SLOT_N + (int)slot];
	if (ruv_tensor_present(&lora->a))
		return ruv_fail(err, RUV_EEXIST, where, "blk.%d.%s is adapted already", layer, name);
	if (rank < 1 || rank > MAX_RANK)
		return ruv_fail(err, RUV_EINVAL, where, "blk.%d.%s has rank %d, which is outside 1..%d", layer, name, rank,
		                (int)MAX_RANK);
	const size_t n_a = (size_t)rank * (size_t)base->n_in, n_b = (size_t)base->n_out * (size_t)rank;
	float *own_a = own_floats(adapter, n_a), *own_b = own_floats(adapter, n_b);
	if (!own_a || !own_b)
		return ruv_fail_memory(err, where, (n_a + n_b) * sizeof(float));
	bool finite = isfinite(scale);
	for (size_t i = 0; i < n_a; i++)
		finite &= isfinite(own_a[i] = a[i] * scale) != 0;
	for (size_t i = 0; i < n_b; i++)
		finite &= isfinite(own_b[i] = b[i]) != 0;
	if (!finite)
		return ruv_fail(err, RUV_EINVAL, where, "blk.%d.%s holds values that are not finite", layer, name);
	ruv_backend *backend = ruv_engine_backend(model->engine);
	ruv_engine_lock(model->engine);
	int rc = ruv_backend_bind(backend, &lora->a, RUV_F32, base->n_in, rank, own_a, err);
	if (rc == RUV_OK) {
		rc = ruv_backend_bind(backend, &lora->b, RUV_F32, rank, base->n_out, own_b, err);
		if (rc)
			ruv_backend_unbind(backend, &lora->a);
	}
	ruv_engine_unlock(model->engine);
	if (rc) {
		*lora = (ruv_lora){0};
		return rc;
	}
	adapter->rank = rank > adapter->rank ? rank : adapter->rank;
	adapter->fingerprint =
	    ruv_hash64(own_a, n_a * sizeof(float), adapter->fingerprint + (uint64_t)layer * RUV_SLOT_N + slot + 1);
	adapter->fingerprint = ruv_hash64(own_b, n_b * sizeof(float), adapter->fingerprint);
	return RUV_OK;
}

/* ---- from a file ---- */

/* "blk.3.attn_q.weight" into layer and slot. */
static bool parse_name(const char *name, size_t n, int *layer, ruv_adapter_slot *slot)
{
	char suffix[64];
	int used = 0;
	if (n >= sizeof suffix)
		return false;
	memcpy(suffix, name, n);
	suffix[n] = 0;
	if (sscanf(suffix, "blk.%4d.%n", layer, &used) != 1 || !used)
		return false;
	for (int s = 0; s < RUV_SLOT_N; s++) {
		char want[48];
		snprintf(want, sizeof want, "%s.weight", ruv_adapter_slot_name((ruv_adapter_slot)s));
		if (strcmp(suffix + used, want) == 0) {
			*slot = (ruv_adapter_slot)s;
			return true;
		}
	}
	return false;
}

static int to_floats(float **out, const ruv_gguf_tensor *t, ruv_error *err)
{
	const int64_t rows = t->ne[1], n = t->ne[0];
	const size_t row_bytes = ruv_dtype_row_bytes((ruv_dtype)t->dtype, n);
	*out = malloc((size_t)rows * (size_t)n * sizeof **out + 1);
	if (!*out)
		return ruv_fail_memory(err, where, (size_t)(rows * n) * sizeof **out);
	for (int64_t r = 0; r < rows; r++) {
		int rc = ruv_dequantize_row(*out + r * n, (ruv_dtype)t->dtype, (const char *)t->data + (size_t)r * row_bytes, n);
		if (rc)
			return ruv_fail(err, RUV_EUNSUPPORTED, where, "tensor '%s' is %s, which is no type of weights", t->name,
			                ruv_dtype_name(t->dtype));
	}
	return RUV_OK;
}

static int check_keys(const ruv_model *model, const ruv_gguf *gguf, float *alpha, ruv_error *err)
{
	ruv_gguf_str type, arch, kind;
	int rc;
	if ((rc = ruv_gguf_get_str(gguf, "general.type", &type, err)) ||
	    (rc = ruv_gguf_get_str(gguf, "adapter.type", &kind, err)) ||
	    (rc = ruv_gguf_get_str(gguf, "general.architecture", &arch, err)) ||
	    (rc = ruv_gguf_get_f32(gguf, "adapter.lora.alpha", alpha, err)))
		goto bad_key;
	if (!ruv_gguf_str_is(type, "adapter") || !ruv_gguf_str_is(kind, "lora"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "no LoRA adapter: general.type is '%.*s', adapter.type '%.*s'",
		                (int)(type.len > 40 ? 40 : type.len), type.data, (int)(kind.len > 40 ? 40 : kind.len), kind.data);
	if (!ruv_gguf_str_is(arch, model->hp.arch->name))
		return ruv_fail(err, RUV_EMISMATCH, where, "made for architecture '%.*s', the model is %s",
		                (int)(arch.len > 40 ? 40 : arch.len), arch.data, model->hp.arch->name);
	if (!isfinite(*alpha))
		return ruv_fail(err, RUV_EFORMAT, where, "key 'adapter.lora.alpha' is %g", (double)*alpha);
	return RUV_OK;
bad_key:
	if (rc == RUV_ENOTFOUND) {
		rc = RUV_EFORMAT;
		if (err)
			err->code = rc;
	}
	return ruv_error_prefix(err, rc, "no LoRA adapter: ");
}

static int add_pair(ruv_adapter *adapter, const ruv_gguf *gguf, const ruv_gguf_tensor *ta, float alpha, float scale, ruv_error *err)
{
	const size_t n = strlen(ta->name) - strlen(".lora_a");
	int layer = 0;
	ruv_adapter_slot slot = RUV_SLOT_Q;
	char other[80];
	snprintf(other, sizeof other, "%.*s.lora_b", (int)n, ta->name);
	const ruv_gguf_tensor *tb = ruv_gguf_find_tensor(gguf, other);
	if (!tb)
		return ruv_fail(err, RUV_EFORMAT, where, "tensor '%s' is there, but '%s' is missing", ta->name, other);
	if (!parse_name(ta->name, n, &layer, &slot) || layer >= adapter->model->hp.n_layers)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "'%.*s' is no matrix of the model's layers that can be adapted",
		                (int)n, ta->name);
	const ruv_tensor *base = base_matrix(&adapter->model->weights.layers[layer], slot);
	if (!ruv_tensor_present(base))
		return ruv_fail(err, RUV_EMISMATCH, where, "the model has no '%.*s'", (int)n, ta->name);
	const int64_t rank = ta->ne[1];
	if (rank < 1 || rank > MAX_RANK || ta->ne[0] != base->n_in || tb->ne[0] != rank || tb->ne[1] != base->n_out ||
	    ta->ne[2] != 1 || ta->ne[3] != 1 || tb->ne[2] != 1 || tb->ne[3] != 1) {
		char sa[64], sb[64];
		return ruv_fail(err, RUV_EMISMATCH, where, "'%.*s' is [%lld, %lld] in the model, but lora_a is %s and lora_b %s",
		                (int)n, ta->name, (long long)base->n_in, (long long)base->n_out, ruv_gguf_shape(ta, sa, sizeof sa),
		                ruv_gguf_shape(tb, sb, sizeof sb));
	}
	float *a = NULL, *b = NULL;
	int rc = to_floats(&a, ta, err);
	if (rc == RUV_OK)
		rc = to_floats(&b, tb, err);
	if (rc == RUV_OK)
		rc = ruv_adapter_add(adapter, layer, slot, (int)rank, a, b, scale * alpha / (float)rank, err);
	free(a);
	free(b);
	return rc;
}

static bool ends_with(const char *text, const char *end)
{
	const size_t n = strlen(text), m = strlen(end);
	return n > m && strcmp(text + n - m, end) == 0;
}

int ruv_adapter_open(ruv_adapter **out, ruv_model *model, const char *path, float scale, ruv_error *err)
{
	ruv_gguf *gguf = NULL;
	ruv_adapter *adapter = NULL;
	float alpha = 0;
	*out = NULL;
	int rc = ruv_gguf_open(&gguf, path, 0, err);
	if (rc)
		return rc;
	if ((rc = ruv_adapter_create(&adapter, model, err)) || (rc = check_keys(model, gguf, &alpha, err)))
		goto done;
	size_t n_pairs = 0;
	for (size_t i = 0; i < ruv_gguf_n_tensors(gguf) && rc == RUV_OK; i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(gguf, i);
		if (ends_with(t->name, ".lora_a")) {
			rc = add_pair(adapter, gguf, t, alpha, scale, err);
			n_pairs++;
		} else if (ends_with(t->name, ".lora_b")) {
			char other[80];
			snprintf(other, sizeof other, "%.*s.lora_a", (int)(strlen(t->name) - 7), t->name);
			if (!ruv_gguf_find_tensor(gguf, other))
				rc = ruv_fail(err, RUV_EFORMAT, where, "tensor '%s' is there, but '%s' is missing", t->name, other);
		} else {
			rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "tensor '%s' is neither lora_a nor lora_b", t->name);
		}
	}
	if (rc == RUV_OK && n_pairs == 0)
		rc = ruv_fail(err, RUV_EFORMAT, where, "there is no tensor in it");
	if (rc == RUV_OK) {
		*out = adapter;
		adapter = NULL;
	}
done:
	if (rc)
		ruv_error_prefix(err, rc, "%s: ", path);
	ruv_adapter_free(adapter);
	ruv_gguf_free(gguf);
	return rc;
}

int ruv_adapter_rank(const ruv_adapter *adapter)
{
	return adapter->rank;
}

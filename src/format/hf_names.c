/* hf_names.c - Hugging Face's tensor names and shapes of LFM2, Qwen2, Qwen3 and Llama, and GGUF's for the same tensors.
 *
 * One table a family; a row says both names, the shape in model dimensions, and when the tensor must be there. Every expected
 * tensor is looked up and checked, and a tensor of the file that no row took is an error, so that nothing is lost silently. */
#include "format/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define WHERE "convert"

/* Model dimensions a shape is made of. */
typedef enum dim {
	NONE,
	D,  /* hidden size */
	D3, /* 3 hidden */
	F,  /* feed-forward */
	V,  /* vocabulary */
	Q,  /* heads * head_dim */
	K,  /* this layer's kv heads * head_dim */
	H,  /* head_dim */
	T,  /* convolution taps */
	E   /* embedding projection */
} dim;

enum {
	ATTENTION = 1, /* only in attention layers */
	CONV = 2,      /* only in convolution layers */
	OPTIONAL = 4,
	UNTIED = 8, /* only when the head has its own matrix */
	ROTATED_Q = 16,
	ROTATED_K = 32, /* rows go to interleaved order (Llama) */
	ENCODER = 64,   /* only with a projection */
	SQUEEZE = 128   /* [n, 1, k] in the file is [n, k] here */
};

typedef struct name_row {
	const char *hf, *gguf; /* behind the layer's prefix */
	dim outer, inner;      /* shape [outer, inner]; inner NONE: a vector */
	int flags;
} name_row;

static const name_row lfm2_head[] = {{"model.embed_tokens.weight", "token_embd.weight", V, D, 0},
                                     {"model.embedding_norm.weight", "token_embd_norm.weight", D, NONE, 0},
                                     {"lm_head.weight", "output.weight", V, D, UNTIED},
                                     {"embedding_proj.weight", "embedding_proj.weight", E, D, ENCODER},
                                     {"embedding_proj.bias", "embedding_proj.bias", E, NONE, ENCODER},
                                     {"embedding_layer_norm.weight", "embedding_layer_norm.weight", E, NONE, ENCODER},
                                     {"embedding_layer_norm.bias", "embedding_layer_norm.bias", E, NONE, ENCODER},
                                     {NULL, NULL, NONE, NONE, 0}};

static const name_row lfm2_layer[] = {{"operator_norm.weight", "attn_norm.weight", D, NONE, 0},
                                      {"ffn_norm.weight", "ffn_norm.weight", D, NONE, 0},
                                      {"feed_forward.w1.weight", "ffn_gate.weight", F, D, 0},
                                      {"feed_forward.w3.weight", "ffn_up.weight", F, D, 0},
                                      {"feed_forward.w2.weight", "ffn_down.weight", D, F, 0},
                                      {"self_attn.q_proj.weight", "attn_q.weight", Q, D, ATTENTION},
                                      {"self_attn.k_proj.weight", "attn_k.weight", K, D, ATTENTION},
                                      {"self_attn.v_proj.weight", "attn_v.weight", K, D, ATTENTION},
                                      {"self_attn.out_proj.weight", "attn_output.weight", D, Q, ATTENTION},
                                      {"self_attn.q_layernorm.weight", "attn_q_norm.weight", H, NONE, ATTENTION},
                                      {"self_attn.k_layernorm.weight", "attn_k_norm.weight", H, NONE, ATTENTION},
                                      {"conv.conv.weight", "shortconv.conv.weight", D, T, CONV | SQUEEZE},
                                      {"conv.in_proj.weight", "shortconv.in_proj.weight", D3, D, CONV},
                                      {"conv.out_proj.weight", "shortconv.out_proj.weight", D, D, CONV},
                                      {NULL, NULL, NONE, NONE, 0}};

static const name_row llama_head[] = {{"model.embed_tokens.weight", "token_embd.weight", V, D, 0},
                                      {"model.norm.weight", "output_norm.weight", D, NONE, 0},
                                      {"lm_head.weight", "output.weight", V, D, UNTIED},
                                      {NULL, NULL, NONE, NONE, 0}};

#define FEED_FORWARD                                                                                                               \
	{"input_layernorm.weight", "attn_norm.weight", D, NONE, 0},                                                                \
	    {"post_attention_layernorm.weight", "ffn_norm.weight", D, NONE, 0},                                                    \
	    {"mlp.gate_proj.weight", "ffn_gate.weight", F, D, 0}, {"mlp.up_proj.weight", "ffn_up.weight", F, D, 0},                \
	{                                                                                                                          \
		"mlp.down_proj.weight", "ffn_down.weight", D, F, 0                                                                 \
	}

static const name_row llama_layer[] = {FEED_FORWARD,
                                       {"self_attn.q_proj.weight", "attn_q.weight", Q, D, ROTATED_Q},
                                       {"self_attn.k_proj.weight", "attn_k.weight", K, D, ROTATED_K},
                                       {"self_attn.v_proj.weight", "attn_v.weight", K, D, 0},
                                       {"self_attn.o_proj.weight", "attn_output.weight", D, Q, 0},
                                       {NULL, NULL, NONE, NONE, 0}};

static const name_row qwen2_layer[] = {FEED_FORWARD,
                                       {"self_attn.q_proj.weight", "attn_q.weight", Q, D, 0},
                                       {"self_attn.q_proj.bias", "attn_q.bias", Q, NONE, 0},
                                       {"self_attn.k_proj.weight", "attn_k.weight", K, D, 0},
                                       {"self_attn.k_proj.bias", "attn_k.bias", K, NONE, 0},
                                       {"self_attn.v_proj.weight", "attn_v.weight", K, D, 0},
                                       {"self_attn.v_proj.bias", "attn_v.bias", K, NONE, 0},
                                       {"self_attn.o_proj.weight", "attn_output.weight", D, Q, 0},
                                       {NULL, NULL, NONE, NONE, 0}};

static const name_row qwen3_layer[] = {FEED_FORWARD,
                                       {"self_attn.q_proj.weight", "attn_q.weight", Q, D, 0},
                                       {"self_attn.k_proj.weight", "attn_k.weight", K, D, 0},
                                       {"self_attn.v_proj.weight", "attn_v.weight", K, D, 0},
                                       {"self_attn.o_proj.weight", "attn_output.weight", D, Q, 0},
                                       {"self_attn.q_norm.weight", "attn_q_norm.weight", H, NONE, 0},
                                       {"self_attn.k_norm.weight", "attn_k_norm.weight", H, NONE, 0},
                                       {NULL, NULL, NONE, NONE, 0}};

static const struct {
	const char *arch;
	const name_row *head, *layer;
} families[] = {{"lfm2", lfm2_head, lfm2_layer},
                {"qwen2", llama_head, qwen2_layer},
                {"qwen3", llama_head, qwen3_layer},
                {"llama", llama_head, llama_layer}};

typedef struct mapper {
	ruv_source *source;
	const ruv_hf_dims *dims;
	bool *used; /* [n tensors of the files] */
	ruv_error *err;
} mapper;

static int64_t extent(const ruv_hf_dims *dims, dim d, int layer)
{
	switch (d) {
	case NONE:
		return 1;
	case D:
		return dims->hidden;
	case D3:
		return 3 * (int64_t)dims->hidden;
	case F:
		return dims->feed_forward;
	case V:
		return dims->vocab;
	case Q:
		return (int64_t)dims->n_heads * dims->head_dim;
	case K:
		return (int64_t)dims->n_kv_heads[layer] * dims->head_dim;
	case H:
		return dims->head_dim;
	case T:
		return dims->n_conv_taps;
	case E:
		return dims->embed_dim;
	}
	return 0;
}

/* The tensor by its name, or by the name without "model." (checkpoints of the bare model class). */
static const ruv_safetensors_tensor *find(const ruv_safetensors *st, const char *name)
{
	const ruv_safetensors_tensor *t = ruv_safetensors_find(st, name);
	if (!t && !strncmp(name, "model.", 6))
		t = ruv_safetensors_find(st, name + 6);
	return t;
}

static const char *shape_text(const ruv_safetensors_tensor *t, char *text, size_t cap)
{
	size_t n = (size_t)snprintf(text, cap, "[");
	for (int d = 0; d < t->n_dims && n < cap; d++)
		n += (size_t)snprintf(text + n, cap - n, "%s%lld", d ? ", " : "", (long long)t->shape[d]);
	if (n < cap)
		snprintf(text + n, cap - n, "]");
	return text;
}

static int map_row(mapper *m, const name_row *row, int layer)
{
	const ruv_hf_dims *dims = m->dims;
	const ruv_safetensors *st = m->source->st;
	char hf[160], have[128];
	int n;

	if (layer >= 0 && ((row->flags & ATTENTION && !dims->n_kv_heads[layer]) || (row->flags & CONV && dims->n_kv_heads[layer])))
		return RUV_OK;
	if ((row->flags & UNTIED && dims->tied) || (row->flags & ENCODER && !dims->embed_dim))
		return RUV_OK;
	if (layer >= 0)
		snprintf(hf, sizeof hf, "model.layers.%d.%s", layer, row->hf);
	else
		snprintf(hf, sizeof hf, "%s", row->hf);
	const ruv_safetensors_tensor *from = find(st, hf);
	if (!from) {
		if (row->flags & OPTIONAL)
			return RUV_OK;
		return ruv_fail(m->err, RUV_EFORMAT, WHERE, "tensor '%s' is missing", hf);
	}
	if (from->dtype < 0)
		return ruv_fail(m->err, RUV_EUNSUPPORTED, WHERE, "tensor '%s' is of type %s; F32, F16 and BF16 can be converted",
		                from->name, from->type_name);

	int64_t outer = extent(dims, row->outer, layer), inner = extent(dims, row->inner, layer);
	bool fits;
	if (row->inner == NONE)
		fits = from->n_dims == 1 && from->shape[0] == outer;
	else if (row->flags & SQUEEZE && from->n_dims == 3)
		fits = from->shape[0] == outer && from->shape[1] == 1 && from->shape[2] == inner;
	else
		fits = from->n_dims == 2 && from->shape[0] == outer && from->shape[1] == inner;
	if (!fits) {
		char want[64];
		snprintf(want, sizeof want, row->inner == NONE ? "[%lld]" : "[%lld, %lld]", (long long)outer, (long long)inner);
		return ruv_fail(m->err, RUV_EFORMAT, WHERE, "tensor '%s' has the shape %s, but config.json makes it %s", from->name,
		                shape_text(from, have, sizeof have), want);
	}

	ruv_source_tensor *t = ruv_source_add(m->source);
	if (!t)
		return ruv_fail_memory(m->err, WHERE, sizeof *t);
	n = layer >= 0 ? snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, row->gguf)
	               : snprintf(t->name, sizeof t->name, "%s", row->gguf);
	if (n < 0 || (size_t)n >= sizeof t->name)
		return ruv_fail(m->err, RUV_ELIMIT, WHERE, "the name of tensor '%s' is too long", hf);
	t->n_dims = row->inner == NONE ? 1 : 2;
	t->ne[0] = row->inner == NONE ? outer : inner;
	t->ne[1] = row->inner == NONE ? 1 : outer;
	t->ne[2] = t->ne[3] = 1;
	t->dtype = (ruv_dtype)from->dtype;
	t->data = from->data;
	if (row->flags & ROTATED_Q)
		t->interleave_heads = dims->n_heads;
	else if (row->flags & ROTATED_K)
		t->interleave_heads = dims->n_kv_heads[layer];
	m->used[from - ruv_safetensors_at(st, 0)] = true;
	return RUV_OK;
}

/* Tensors that hold nothing a GGUF file needs. */
static bool harmless(const ruv_hf_dims *dims, const char *name)
{
	size_t n = strlen(name), tail = strlen("rotary_emb.inv_freq");
	if (n >= tail && !strcmp(name + n - tail, "rotary_emb.inv_freq"))
		return true; /* follows from the config */
	if (!strcmp(name, "pos_emb.inv_freq") || !strcmp(name, "model.pos_emb.inv_freq"))
		return true;
	return dims->tied && !strcmp(name, "lm_head.weight"); /* a second copy of the embedding */
}

int ruv_hf_map_tensors(ruv_source *source, const ruv_hf_dims *dims, ruv_error *err)
{
	const name_row *head = NULL, *layer_rows = NULL;
	size_t n = ruv_safetensors_n_tensors(source->st);
	mapper m = {.source = source, .dims = dims, .err = err};
	int rc = RUV_OK;

	for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
		if (!strcmp(families[i].arch, dims->arch)) {
			head = families[i].head;
			layer_rows = families[i].layer;
		}
	}
	if (!head)
		return ruv_fail(err, RUV_EINTERNAL, WHERE, "no tensor names for architecture '%s'", dims->arch);
	m.used = calloc(n + 1, sizeof *m.used);
	if (!m.used)
		return ruv_fail_memory(err, WHERE, n + 1);

	for (const name_row *row = head; row->hf && !rc; row++)
		rc = map_row(&m, row, -1);
	for (int i = 0; i < dims->n_layers && !rc; i++)
		for (const name_row *row = layer_rows; row->hf && !rc; row++)
			rc = map_row(&m, row, i);
	for (size_t i = 0; i < n && !rc; i++) {
		const ruv_safetensors_tensor *t = ruv_safetensors_at(source->st, i);
		if (!m.used[i] && !harmless(dims, t->name))
			rc = ruv_fail(err, RUV_EUNSUPPORTED, WHERE,
			              "tensor '%.200s' has no place in a GGUF file of architecture %s", t->name, dims->arch);
	}
	free(m.used);
	return rc;
}

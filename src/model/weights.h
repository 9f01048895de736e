/* weights.h - every tensor of a model, bound to its backend. Layer: model. */
#ifndef RUV_MODEL_WEIGHTS_H
#define RUV_MODEL_WEIGHTS_H

#include "format/gguf.h"
#include "model/hparams.h"
#include "tensor/ops.h"

/* A tensor with n_out 0 is absent. Shapes as [n_out, n_in]; d hidden, f feed-forward, h heads, k kv heads, e head size. */
typedef struct ruv_layer_weights {
	ruv_tensor attn_norm, ffn_norm;        /* [d], both kinds of layers */
	ruv_tensor ffn_gate, ffn_up, ffn_down; /* [f, d], [f, d], [d, f] */
	ruv_tensor attn_q, attn_k, attn_v;     /* [h e, d], [k e, d], [k e, d] */
	ruv_tensor attn_output;                /* [d, h e] */
	ruv_tensor attn_q_bias, attn_k_bias, attn_v_bias, attn_output_bias;
	ruv_tensor attn_q_norm, attn_k_norm;     /* [e] */
	ruv_tensor conv_in, conv_taps, conv_out; /* [3 d, d], [d, 3], [d, d] */
} ruv_layer_weights;

typedef struct ruv_weights {
	ruv_backend *backend;
	ruv_tensor token_embd;                          /* [V, d] */
	ruv_tensor final_norm;                          /* [d] */
	ruv_tensor output;                              /* [V, d], absent when tied: use ruv_weights_head */
	ruv_tensor embedding_proj, embedding_proj_bias; /* [e, d], [e] */
	ruv_tensor embedding_norm, embedding_norm_bias; /* [e] */
	ruv_layer_weights *layers;                      /* [n_layers] */
	int n_layers;
	int64_t n_params;
	size_t n_bytes;
} ruv_weights;

/* Finds, checks and binds all tensors; folds rope_freqs.weight into hp. The file must outlive the weights. *w is zeroed first;
 * release it also after a failure. RUV_EFORMAT names the tensor that is missing, misshapen or unknown. */
int ruv_weights_bind(ruv_weights *w, ruv_hparams *hp, const ruv_gguf *gguf, ruv_backend *backend, ruv_error *err);
void ruv_weights_release(ruv_weights *w);

static inline bool ruv_tensor_present(const ruv_tensor *tensor)
{
	return tensor->n_out != 0;
}

static inline const ruv_tensor *ruv_weights_head(const ruv_weights *w)
{
	return ruv_tensor_present(&w->output) ? &w->output : &w->token_embd;
}

#endif

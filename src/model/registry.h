/* registry.h - the architectures: one row each, which says how its block differs from the common one.
 *
 * The common block is h = x + Op(rms(x)); out = h + W_down(silu(W_gate n) * W_up n), n = rms(h), with Op an attention with grouped
 * key/value heads and RoPE, or a convolution (decoder.c computes it). Layer: model. */
#ifndef RUV_MODEL_REGISTRY_H
#define RUV_MODEL_REGISTRY_H

#include "model/hparams.h"
#include "ruvllm/session.h"

enum {
	RUV_ARCH_QKV_BIAS = 1,       /* q, k, v have biases; elsewhere they may but need not */
	RUV_ARCH_QK_NORM = 2,        /* RMSNorm over each head of q and k */
	RUV_ARCH_SHORT_CONV = 4,     /* layers without kv heads are gated short convolutions */
	RUV_ARCH_ROPE_FREQS = 8,     /* may carry rope_freqs.weight */
	RUV_ARCH_EMBEDDING_HEAD = 16 /* may carry embedding_proj and embedding_layer_norm */
};

typedef struct ruv_arch {
	const char *name; /* general.architecture */
	unsigned traits;
	ruv_rope_kind rope;
	const char *final_norm; /* tensor of the norm after the last layer */
	/* Reads which layers are what, and what else only this architecture has: fills kind, n_attention, n_conv, n_kv_heads. */
	int (*read_layers)(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err);
	ruv_sampling sampling; /* what its authors recommend */
} ruv_arch;

extern const ruv_arch ruv_arch_lfm2, ruv_arch_qwen2, ruv_arch_qwen3, ruv_arch_llama;

/* NULL when unknown. */
const ruv_arch *ruv_arch_find(const char *name, size_t n_bytes);
/* "lfm2, qwen2, ..." for messages (static). */
const char *ruv_arch_names(void);

/* read_layers of architectures whose layers are all attention. */
int ruv_arch_read_attention_layers(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err);

#endif

/* registry.c - the table of architectures, and the rows of the plain transformers: Qwen2/2.5, Qwen3, Llama.
 *
 *   qwen2  q/k/v biases, NEOX RoPE, tied or separate head, YaRN keys; RuvLTRA-Medium is one
 *   qwen3  no biases, RMSNorm per head on q and k, head size of its own
 *   llama  no biases, interleaved RoPE, optional rope_freqs.weight (Llama 3 scaling)
 * LFM2 has a file of its own, lfm2.c. */
#include "model/registry.h"

#include <string.h>

#include "base/status.h"

int ruv_arch_read_attention_layers(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	hp->n_kv_heads = hp->n_heads;
	hp->n_attention = hp->n_layers;
	memset(hp->kind, RUV_LAYER_ATTENTION, sizeof hp->kind);
	return ruv_hparams_opt_int(hp, gguf, "attention.head_count_kv", 1, RUV_MAX_HEADS, &hp->n_kv_heads, err);
}

const ruv_arch ruv_arch_qwen2 = {
    .name = "qwen2",
    .traits = RUV_ARCH_QKV_BIAS,
    .rope = RUV_ROPE_NEOX,
    .final_norm = "output_norm.weight",
    .read_layers = ruv_arch_read_attention_layers,
    .sampling = {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1.05f},
};

const ruv_arch ruv_arch_qwen3 = {
    .name = "qwen3",
    .traits = RUV_ARCH_QK_NORM,
    .rope = RUV_ROPE_NEOX,
    .final_norm = "output_norm.weight",
    .read_layers = ruv_arch_read_attention_layers,
    .sampling = {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
};

const ruv_arch ruv_arch_llama = {
    .name = "llama",
    .traits = RUV_ARCH_ROPE_FREQS,
    .rope = RUV_ROPE_INTERLEAVED,
    .final_norm = "output_norm.weight",
    .read_layers = ruv_arch_read_attention_layers,
    .sampling = {.temperature = 0.6f, .top_p = 0.9f},
};

static const ruv_arch *const archs[] = {&ruv_arch_lfm2, &ruv_arch_qwen2, &ruv_arch_qwen3, &ruv_arch_llama};

const ruv_arch *ruv_arch_find(const char *name, size_t n_bytes)
{
	for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
		if (strlen(archs[i]->name) == n_bytes && memcmp(archs[i]->name, name, n_bytes) == 0)
			return archs[i];
	return NULL;
}

const char *ruv_arch_names(void)
{
	return "lfm2, qwen2, qwen3, llama";
}

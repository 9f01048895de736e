/* lfm2.c - LFM2 (Liquid AI, arXiv 2511.23404): gated short convolutions with a few attention layers between them.
 *
 * One array says which layer is what: lfm2.attention.head_count_kv has an element per layer, 0 for a convolution. q and k have an
 * RMSNorm per head. The final norm's tensor is called token_embd_norm. An encoder has attention.causal = false: its attention sees
 * the whole text and its convolution is centred (decoder.c passes that on), and it may end in embedding_proj and
 * embedding_layer_norm. */
#include "base/status.h"
#include "model/registry.h"

static int read_layers(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	static const char where[] = "lfm2";
	int taps = 0;
	int rc = ruv_hparams_int(hp, gguf, "shortconv.l_cache", 1, 1024, &taps, err);
	if (rc)
		return rc;
	if (taps != RUV_CONV_TAPS)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "key 'lfm2.shortconv.l_cache' is %d; only %d is supported", taps,
		                (int)RUV_CONV_TAPS);

	ruv_gguf_array kv;
	rc = ruv_gguf_get_array(gguf, "lfm2.attention.head_count_kv", &kv, err);
	if (rc)
		return rc == RUV_ENOTFOUND ? ruv_fail(err, RUV_EFORMAT, where, "key 'lfm2.attention.head_count_kv' is missing")
		                           : rc;
	if (kv.n != (uint64_t)hp->n_layers)
		return ruv_fail(err, RUV_EFORMAT, where, "key 'lfm2.attention.head_count_kv' has %llu elements for %d layers",
		                (unsigned long long)kv.n, hp->n_layers);
	for (int i = 0; i < hp->n_layers; i++) {
		int64_t n = 0;
		rc = ruv_gguf_array_i64(&kv, (uint64_t)i, &n, err);
		if (rc)
			return ruv_error_prefix(err, rc, "key 'lfm2.attention.head_count_kv': ");
		if (n < 0 || n > RUV_MAX_HEADS)
			return ruv_fail(err, RUV_EFORMAT, where, "key 'lfm2.attention.head_count_kv' says %lld for layer %d",
			                (long long)n, i);
		hp->kind[i] = n ? RUV_LAYER_ATTENTION : RUV_LAYER_CONV;
		if (n && hp->n_attention && n != hp->n_kv_heads)
			return ruv_fail(err, RUV_EUNSUPPORTED, where,
			                "key 'lfm2.attention.head_count_kv' differs between attention layers (%d and %lld)",
			                hp->n_kv_heads, (long long)n);
		if (n)
			hp->n_kv_heads = (int)n;
		hp->n_attention += n != 0;
		hp->n_conv += n == 0;
	}
	return RUV_OK;
}

const ruv_arch ruv_arch_lfm2 = {
    .name = "lfm2",
    .traits = RUV_ARCH_QK_NORM | RUV_ARCH_SHORT_CONV | RUV_ARCH_EMBEDDING_HEAD,
    .rope = RUV_ROPE_NEOX,
    .final_norm = "token_embd_norm.weight",
    .read_layers = read_layers,
    .sampling = {.temperature = 0.3f, .min_p = 0.15f, .repetition_penalty = 1.05f},
};

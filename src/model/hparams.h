/* hparams.h - what a model's metadata keys say about its shape, checked before anything is allocated from it.
 *
 * Keys are "<architecture>.<name>" as GGUF names them (spec of each architecture in its own file and in registry.c). A value that
 * is absurd, contradicts another, or asks for something that no graph here computes is an error that names the key. Layer: model.
 */
#ifndef RUV_MODEL_HPARAMS_H
#define RUV_MODEL_HPARAMS_H

#include "format/gguf.h"
#include "tensor/ops.h"

struct ruv_arch;

enum {
	RUV_MAX_LAYERS = 256,
	RUV_MAX_HIDDEN = 65536,
	RUV_MAX_FEED_FORWARD = 1 << 20,
	RUV_MAX_HEADS = 1024,
	RUV_MAX_HEAD_DIM = 512,
	RUV_MAX_VOCAB = 1 << 22,
	RUV_MAX_CONTEXT = 1 << 24,
	RUV_CONV_TAPS = 3 /* the only short convolution that exists */
};

typedef enum ruv_layer_kind { RUV_LAYER_ATTENTION, RUV_LAYER_CONV } ruv_layer_kind;

typedef enum ruv_pooling { RUV_POOL_MEAN, RUV_POOL_FIRST, RUV_POOL_LAST } ruv_pooling;

typedef struct ruv_hparams {
	const struct ruv_arch *arch;
	int n_layers, n_attention, n_conv;
	unsigned char kind[RUV_MAX_LAYERS]; /* ruv_layer_kind */
	int hidden, feed_forward;
	int n_heads, n_kv_heads, head_dim; /* the same in every attention layer */
	int n_vocab;                       /* rows of token_embd */
	int n_ctx_train;                   /* scaling included */
	float rms_eps;
	bool causal;
	ruv_pooling pooling;

	int n_rot;
	ruv_rope_kind rope_kind;
	float rope_theta;
	float rope_magnitude;  /* YaRN's factor on cos and sin, else 1 */
	float *rope_frequency; /* [n_rot / 2], ours; rope_freqs.weight is folded in by weights.c */
} ruv_hparams;

/* Reads and checks everything; *hp is zeroed first. Release also after a failure.
 *   RUV_EFORMAT       a key is missing, of another type, absurd or contradicts another
 *   RUV_EUNSUPPORTED  an architecture or setting that is not known here */
int ruv_hparams_read(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err);
void ruv_hparams_release(ruv_hparams *hp);

/* For the architectures' own readers: "<arch>.<name>" as an integer within [low, high]. */
int ruv_hparams_int(const ruv_hparams *hp, const ruv_gguf *gguf, const char *name, int low, int high, int *value, ruv_error *err);
/* The same; a missing key leaves *value. */
int ruv_hparams_opt_int(const ruv_hparams *hp, const ruv_gguf *gguf, const char *name, int low, int high, int *value,
                        ruv_error *err);

#endif

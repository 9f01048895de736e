/* hparams.c - metadata keys into checked numbers, and the rotary frequencies with their scaling.
 *
 * Every number that later sizes an allocation or a loop is bounded here, so that the code behind can multiply without looking.
 * YaRN: Peng et al. 2023 (arXiv 2309.00071) as Qwen2.5 uses it; "linear" divides every frequency. */
#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/registry.h"

static const char where[] = "model";

static const char *arch_key(const ruv_hparams *hp, const char *name, char *text, size_t cap)
{
	snprintf(text, cap, "%s.%s", hp->arch->name, name);
	return text;
}

static int check_range(const char *key, int64_t value, int low, int high, ruv_error *err)
{
	if (value < low || value > high)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is %lld, which is outside %d..%d", key, (long long)value, low,
		                high);
	return RUV_OK;
}

int ruv_hparams_int(const ruv_hparams *hp, const ruv_gguf *gguf, const char *name, int low, int high, int *value, ruv_error *err)
{
	char key[96];
	uint64_t v = 0;
	int rc = ruv_gguf_get_u64(gguf, arch_key(hp, name, key, sizeof key), &v, err);
	if (rc)
		return rc == RUV_ENOTFOUND ? ruv_fail(err, RUV_EFORMAT, where, "key '%s' is missing", key) : rc;
	rc = check_range(key, v > INT32_MAX ? INT32_MAX : (int64_t)v, low, high, err);
	if (rc == RUV_OK)
		*value = (int)v;
	return rc;
}

int ruv_hparams_opt_int(const ruv_hparams *hp, const ruv_gguf *gguf, const char *name, int low, int high, int *value,
                        ruv_error *err)
{
	char key[96];
	if (!ruv_gguf_find_key(gguf, arch_key(hp, name, key, sizeof key)))
		return RUV_OK;
	return ruv_hparams_int(hp, gguf, name, low, high, value, err);
}

/* A float key within (low, high]; missing: *value stays, unless it is required. */
static int read_float(const ruv_hparams *hp, const ruv_gguf *gguf, const char *name, bool required, double low, double high,
                      float *value, ruv_error *err)
{
	char key[96];
	float v = *value;
	arch_key(hp, name, key, sizeof key);
	int rc = required ? ruv_gguf_get_f32(gguf, key, &v, err) : ruv_gguf_opt_f32(gguf, key, &v, err);
	if (rc)
		return rc == RUV_ENOTFOUND ? ruv_fail(err, RUV_EFORMAT, where, "key '%s' is missing", key) : rc;
	if (!required && !ruv_gguf_find_key(gguf, key))
		return RUV_OK;
	if (!(v > low && v <= high)) /* a NaN is neither */
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is %g, which is outside %g..%g", key, (double)v, low, high);
	*value = v;
	return RUV_OK;
}

/* The head's width may come as one number or as one per layer; here all must be equal. */
static int read_feed_forward(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	char key[96];
	const ruv_gguf_key *k = ruv_gguf_find_key(gguf, arch_key(hp, "feed_forward_length", key, sizeof key));
	if (!k || k->type != RUV_GGUF_ARRAY)
		return ruv_hparams_int(hp, gguf, "feed_forward_length", 1, RUV_MAX_FEED_FORWARD, &hp->feed_forward, err);
	if (k->array.n != (uint64_t)hp->n_layers)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' has %llu elements for %d layers", key,
		                (unsigned long long)k->array.n, hp->n_layers);
	for (int i = 0; i < hp->n_layers; i++) {
		int64_t v = 0;
		int rc = ruv_gguf_array_i64(&k->array, (uint64_t)i, &v, err);
		if (rc)
			return ruv_error_prefix(err, rc, "key '%s': ", key);
		rc = check_range(key, v, 1, RUV_MAX_FEED_FORWARD, err);
		if (rc)
			return rc;
		if (i && v != hp->feed_forward)
			return ruv_fail(err, RUV_EUNSUPPORTED, where,
			                "key '%s' differs between layers (%d and %lld), which is not supported", key,
			                hp->feed_forward, (long long)v);
		hp->feed_forward = (int)v;
	}
	return RUV_OK;
}

static int read_rope(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	char key[96];
	int rc;
	hp->rope_kind = hp->arch->rope;
	hp->n_rot = hp->head_dim;
	rc = ruv_hparams_opt_int(hp, gguf, "rope.dimension_count", 2, RUV_MAX_HEAD_DIM, &hp->n_rot, err);
	if (rc)
		return rc;
	if (hp->n_rot % 2 || hp->n_rot > hp->head_dim)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is %d, but must be even and at most the head size %d",
		                arch_key(hp, "rope.dimension_count", key, sizeof key), hp->n_rot, hp->head_dim);
	hp->rope_theta = 10000.0f;
	rc = read_float(hp, gguf, "rope.freq_base", false, 1, 1e12, &hp->rope_theta, err);
	if (rc)
		return rc;

	int n = hp->n_rot / 2;
	hp->rope_frequency = malloc((size_t)n * sizeof *hp->rope_frequency);
	if (!hp->rope_frequency)
		return ruv_fail_memory(err, where, (size_t)n * sizeof *hp->rope_frequency);
	hp->rope_magnitude = 1;

	ruv_gguf_str type = {"none", 4};
	rc = ruv_gguf_opt_str(gguf, arch_key(hp, "rope.scaling.type", key, sizeof key), &type, err);
	if (rc)
		return rc;
	float factor = 1;
	rc = read_float(hp, gguf, "rope.scaling.factor", false, 0.999, 1e4, &factor, err);
	if (rc)
		return rc;
	bool yarn = ruv_gguf_str_is(type, "yarn"), linear = ruv_gguf_str_is(type, "linear");
	if (!yarn && !linear && !ruv_gguf_str_is(type, "none"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "key '%s' is '%.*s'; known are none, linear and yarn", key,
		                (int)(type.len > 40 ? 40 : type.len), type.data);

	int original = hp->n_ctx_train;
	if (yarn) {
		rc = ruv_hparams_int(hp, gguf, "rope.scaling.original_context_length", 1, RUV_MAX_CONTEXT, &original, err);
		if (rc)
			return rc;
		float attn_factor = 1;
		rc = read_float(hp, gguf, "rope.scaling.attn_factor", false, 0, 1e3, &attn_factor, err);
		if (rc)
			return rc;
		hp->rope_magnitude = attn_factor * (1 + 0.1f * logf(factor));
	}
	if (yarn || linear) {
		double longest = (double)original * factor;
		if (longest > hp->n_ctx_train)
			hp->n_ctx_train = longest > RUV_MAX_CONTEXT ? RUV_MAX_CONTEXT : (int)longest;
	}

	/* corr(b): the pair whose wave turns b times over the original context */
	double base = hp->rope_theta, low = 0, high = 1;
	if (yarn) {
		low = floor(hp->n_rot * log(original / (32 * 2 * M_PI)) / (2 * log(base)));
		high = ceil(hp->n_rot * log(original / (1 * 2 * M_PI)) / (2 * log(base)));
		low = fmax(low, 0);
		high = fmin(high, hp->n_rot - 1);
	}
	for (int i = 0; i < n; i++) {
		double f = pow(base, -2.0 * i / hp->n_rot);
		if (linear)
			f /= factor;
		if (yarn) {
			double y = (i - low) / fmax(0.001, high - low);
			double r = 1 - fmin(1, fmax(0, y));
			f *= (1 - r) / factor + r;
		}
		hp->rope_frequency[i] = (float)f;
	}
	return RUV_OK;
}

static int read_pooling(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	int type = 1;
	char key[96];
	int rc = ruv_hparams_opt_int(hp, gguf, "pooling_type", 0, 16, &type, err);
	if (rc)
		return rc;
	switch (type) {
	case 0: /* "none": a generator; its embedding is the mean */
	case 1:
		hp->pooling = RUV_POOL_MEAN;
		return RUV_OK;
	case 2:
		hp->pooling = RUV_POOL_FIRST;
		return RUV_OK;
	case 3:
		hp->pooling = RUV_POOL_LAST;
		return RUV_OK;
	}
	return ruv_fail(err, RUV_EUNSUPPORTED, where, "key '%s' is %d; known are 1 (mean), 2 (first) and 3 (last)",
	                arch_key(hp, "pooling_type", key, sizeof key), type);
}

/* The vocabulary's size is the embedding's row count; a vocab_size key must agree with it. */
static int read_vocab_size(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(gguf, "token_embd.weight");
	if (!t)
		return ruv_fail(err, RUV_EFORMAT, where, "tensor 'token_embd.weight' is missing");
	if (t->ne[0] != hp->hidden || t->ne[1] < 1 || t->ne[1] > RUV_MAX_VOCAB || t->ne[2] != 1 || t->ne[3] != 1) {
		char shape[64];
		return ruv_fail(err, RUV_EFORMAT, where, "tensor 'token_embd.weight' is %s, expected [%d, 1..%d]",
		                ruv_gguf_shape(t, shape, sizeof shape), hp->hidden, (int)RUV_MAX_VOCAB);
	}
	hp->n_vocab = (int)t->ne[1];
	int said = hp->n_vocab;
	int rc = ruv_hparams_opt_int(hp, gguf, "vocab_size", 1, RUV_MAX_VOCAB, &said, err);
	if (rc == RUV_OK && said != hp->n_vocab)
		rc = ruv_fail(err, RUV_EFORMAT, where, "key '%s.vocab_size' is %d, but token_embd.weight has %d rows",
		              hp->arch->name, said, hp->n_vocab);
	return rc;
}

int ruv_hparams_read(ruv_hparams *hp, const ruv_gguf *gguf, ruv_error *err)
{
	memset(hp, 0, sizeof *hp);
	ruv_gguf_str name, type = {"model", 5};
	int rc = ruv_gguf_opt_str(gguf, "general.type", &type, err);
	if (rc)
		return rc;
	if (!ruv_gguf_str_is(type, "model"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "this file is no model: key 'general.type' is '%.*s'",
		                (int)(type.len > 40 ? 40 : type.len), type.data);
	rc = ruv_gguf_get_str(gguf, "general.architecture", &name, err);
	if (rc)
		return rc == RUV_ENOTFOUND ? ruv_fail(err, RUV_EFORMAT, where, "key 'general.architecture' is missing") : rc;
	hp->arch = ruv_arch_find(name.data, name.len);
	if (!hp->arch)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "architecture '%.*s' is not supported; supported are %s",
		                (int)(name.len > 40 ? 40 : name.len), name.data, ruv_arch_names());

	rc = ruv_hparams_int(hp, gguf, "block_count", 1, RUV_MAX_LAYERS, &hp->n_layers, err);
	if (rc)
		return rc;
	rc = ruv_hparams_int(hp, gguf, "context_length", 1, RUV_MAX_CONTEXT, &hp->n_ctx_train, err);
	if (rc)
		return rc;
	rc = ruv_hparams_int(hp, gguf, "embedding_length", 1, RUV_MAX_HIDDEN, &hp->hidden, err);
	if (rc)
		return rc;
	rc = read_feed_forward(hp, gguf, err);
	if (rc)
		return rc;
	rc = ruv_hparams_int(hp, gguf, "attention.head_count", 1, RUV_MAX_HEADS, &hp->n_heads, err);
	if (rc)
		return rc;
	rc = hp->arch->read_layers(hp, gguf, err);
	if (rc)
		return rc;
	if (hp->n_attention && hp->n_heads % hp->n_kv_heads)
		return ruv_fail(err, RUV_EFORMAT, where, "%d heads cannot share %d key/value heads ('%s.attention.head_count_kv')",
		                hp->n_heads, hp->n_kv_heads, hp->arch->name);

	hp->head_dim = hp->hidden / hp->n_heads;
	rc = ruv_hparams_opt_int(hp, gguf, "attention.key_length", 2, RUV_MAX_HEAD_DIM, &hp->head_dim, err);
	if (rc)
		return rc;
	int value_dim = hp->head_dim;
	rc = ruv_hparams_opt_int(hp, gguf, "attention.value_length", 2, RUV_MAX_HEAD_DIM, &value_dim, err);
	if (rc)
		return rc;
	if (value_dim != hp->head_dim)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "keys of %d and values of %d elements a head are not supported",
		                hp->head_dim, value_dim);
	if (hp->head_dim < 2 || hp->head_dim > RUV_MAX_HEAD_DIM || hp->head_dim % 2)
		return ruv_fail(err, RUV_EFORMAT, where,
		                "%d elements over %d heads give a head size of %d, which must be even and in 2..%d", hp->hidden,
		                hp->n_heads, hp->head_dim, (int)RUV_MAX_HEAD_DIM);

	rc = read_float(hp, gguf, "attention.layer_norm_rms_epsilon", true, 0, 1, &hp->rms_eps, err);
	if (rc)
		return rc;
	hp->causal = true;
	char key[96];
	rc = ruv_gguf_opt_bool(gguf, arch_key(hp, "attention.causal", key, sizeof key), &hp->causal, err);
	if (rc)
		return rc;
	int window = 0;
	rc = ruv_hparams_opt_int(hp, gguf, "attention.sliding_window", 0, RUV_MAX_CONTEXT, &window, err);
	if (rc)
		return rc;
	if (window)
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "key '%s.attention.sliding_window' is %d; sliding windows are not supported", hp->arch->name,
		                window);
	rc = read_rope(hp, gguf, err);
	if (rc)
		return rc;
	rc = read_pooling(hp, gguf, err);
	if (rc)
		return rc;
	return read_vocab_size(hp, gguf, err);
}

void ruv_hparams_release(ruv_hparams *hp)
{
	free(hp->rope_frequency);
	hp->rope_frequency = NULL;
}

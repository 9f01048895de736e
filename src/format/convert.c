/* convert.c - a Hugging Face directory (config.json, safetensors, tokenizer) as a GGUF model; see source.h.
 *
 * The keys are those that llama.cpp writes for the same models. Whatever in config.json changes the computation and is not one of
 * the things known here is refused by name: a converted model is right or is not written. */
#include "format/source.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/status.h"

#define WHERE "convert"

enum { MAX_JSON_BYTES = 256 << 20, MAX_LAYERS = 1024 };

typedef struct converter {
	ruv_source *source;
	ruv_gguf_writer *writer;
	const char *dir;
	json_t *config;
	ruv_hf_dims dims;
	int kv[MAX_LAYERS];
	char key[96];
	ruv_error *err;
} converter;

int ruv_hf_json(json_t **json, const char *dir, const char *file, ruv_error *err)
{
	char path[PATH_MAX], *text = NULL;
	json_error_t je;
	struct stat sb;
	size_t n;
	int rc;

	*json = NULL;
	if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, file) >= sizeof path)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "the path '%.200s...' is too long", dir);
	if (stat(path, &sb))
		return RUV_OK;
	rc = ruv_file_read(&text, &n, path, MAX_JSON_BYTES, err);
	if (rc)
		return rc;
	*json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	free(text);
	if (!*json)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "%s is not valid JSON: %s (line %d, column %d)", path, je.text, je.line,
		                je.column);
	return RUV_OK;
}

/* ---- config.json ---- */

/* The first of the names "a|b|c" that config has with a value other than null. */
static json_t *lookup(json_t *object, const char *names)
{
	char name[64];
	while (*names) {
		size_t n = strcspn(names, "|");
		snprintf(name, sizeof name, "%.*s", (int)n, names);
		json_t *v = json_object_get(object, name);
		if (v && !json_is_null(v))
			return v;
		names += n + (names[n] == '|');
	}
	return NULL;
}

static int missing(converter *c, const char *names)
{
	return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json has no \"%s\"", names);
}

/* Required unless *value comes in >= 0. */
static int get_int(converter *c, const char *names, int low, int high, int *value)
{
	json_t *v = lookup(c->config, names);
	if (!v)
		return *value >= 0 ? RUV_OK : missing(c, names);
	if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: \"%s\" must be a whole number from %d to %d", names, low,
		                high);
	*value = (int)json_integer_value(v);
	return RUV_OK;
}

static int get_number(converter *c, json_t *object, const char *names, double *value)
{
	json_t *v = lookup(object, names);
	if (!v)
		return *value > 0 ? RUV_OK : missing(c, names);
	if (!json_is_number(v) || !(json_number_value(v) > 0) || json_number_value(v) > 1e15)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: \"%s\" must be a positive number", names);
	*value = json_number_value(v);
	return RUV_OK;
}

/* A flag that only `value` is supported for. */
static int need_bool(converter *c, const char *name, bool value)
{
	json_t *v = lookup(c->config, name);
	if (v && json_is_true(v) != value)
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "config.json: \"%s\" is %s, which is not supported for this architecture", name,
		                json_is_true(v) ? "true" : "false");
	return RUV_OK;
}

static const char *arch_key(converter *c, const char *name)
{
	snprintf(c->key, sizeof c->key, "%s.%s", c->dims.arch, name);
	return c->key;
}

/* ---- rotary frequencies ---- */

/* Llama 3's scaling as one divisor a pair: long waves are stretched by `factor`, short ones stay, those between are blended. */
static int add_rope_freqs(converter *c, json_t *scaling, double theta, int n_rot)
{
	double factor = 0, low = 0, high = 0, original = 0;
	int rc;

	rc = get_number(c, scaling, "factor", &factor);
	if (!rc)
		rc = get_number(c, scaling, "low_freq_factor", &low);
	if (!rc)
		rc = get_number(c, scaling, "high_freq_factor", &high);
	if (!rc)
		rc = get_number(c, scaling, "original_max_position_embeddings", &original);
	if (rc)
		return rc;
	if (high <= low)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: high_freq_factor %g must be above low_freq_factor %g",
		                high, low);

	float *divisor = ruv_arena_calloc(&c->source->arena, (size_t)n_rot / 2, sizeof *divisor);
	ruv_source_tensor *t = ruv_source_add(c->source);
	if (!divisor || !t)
		return ruv_fail_memory(c->err, WHERE, (size_t)n_rot * sizeof *divisor);
	for (int i = 0; i < n_rot / 2; i++) {
		double wave = 2 * M_PI * pow(theta, 2.0 * i / n_rot);
		if (wave < original / high) {
			divisor[i] = 1;
		} else if (wave > original / low) {
			divisor[i] = (float)factor;
		} else {
			double smooth = (original / wave - low) / (high - low);
			divisor[i] = (float)(1 / ((1 - smooth) / factor + smooth));
		}
	}
	snprintf(t->name, sizeof t->name, "rope_freqs.weight");
	t->n_dims = 1;
	t->ne[0] = n_rot / 2;
	t->ne[1] = t->ne[2] = t->ne[3] = 1;
	t->dtype = RUV_F32;
	t->data = divisor;
	return RUV_OK;
}

static int set_rope(converter *c)
{
	/* Newer configs keep everything in rope_parameters, older ones theta beside rope_scaling. */
	json_t *scaling = lookup(c->config, "rope_parameters");
	double theta = 0;
	int rc;

	if (!scaling)
		scaling = lookup(c->config, "rope_scaling");
	if (scaling && !json_is_object(scaling))
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: the rotary parameters must be an object");
	if (scaling && lookup(scaling, "full_attention|sliding_attention"))
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "config.json: rotary parameters per kind of layer are not supported");
	rc = get_number(c, scaling && lookup(scaling, "rope_theta") ? scaling : c->config, "rope_theta|theta", &theta);
	if (rc)
		return rc;
	ruv_gguf_set_f32(c->writer, arch_key(c, "rope.freq_base"), (float)theta);

	json_t *partial = lookup(c->config, "partial_rotary_factor");
	if (!partial && scaling)
		partial = lookup(scaling, "partial_rotary_factor");
	if (partial && json_number_value(partial) != 1.0)
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "config.json: \"partial_rotary_factor\" other than 1 is not supported");

	const char *type = scaling ? json_string_value(lookup(scaling, "rope_type|type")) : NULL;
	if (!type || !strcmp(type, "default"))
		return RUV_OK;
	if (!strcmp(type, "llama3") && !strcmp(c->dims.arch, "llama"))
		return add_rope_freqs(c, scaling, theta, c->dims.head_dim);
	double factor = 0;
	if (!strcmp(type, "yarn") || !strcmp(type, "linear")) {
		rc = get_number(c, scaling, "factor", &factor);
		if (rc)
			return rc;
		ruv_gguf_set_str(c->writer, arch_key(c, "rope.scaling.type"), type);
		ruv_gguf_set_f32(c->writer, arch_key(c, "rope.scaling.factor"), (float)factor);
		if (!strcmp(type, "linear"))
			return RUV_OK;
		json_t *v = lookup(scaling, "original_max_position_embeddings");
		if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT_MAX)
			return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: yarn needs \"original_max_position_embeddings\"");
		ruv_gguf_set_u32(c->writer, arch_key(c, "rope.scaling.original_context_length"), (uint32_t)json_integer_value(v));
		static const struct {
			const char *name;
			double known;
		} fixed[] = {{"beta_fast", 32}, {"beta_slow", 1}};
		for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
			v = lookup(scaling, fixed[i].name);
			if (v && json_number_value(v) != fixed[i].known)
				return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
				                "config.json: yarn with \"%s\" other than %g is not supported", fixed[i].name,
				                fixed[i].known);
		}
		if (lookup(scaling, "mscale|mscale_all_dim|attention_factor"))
			return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
			                "config.json: yarn with its own attention factor is not supported");
		return RUV_OK;
	}
	return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE, "config.json: rotary scaling '%.40s' is not supported for %s", type,
	                c->dims.arch);
}

/* ---- what the families share ---- */

static int set_common(converter *c)
{
	ruv_hf_dims *d = &c->dims;
	int n_context = -1, n_kv = -1, rc;
	json_t *v = lookup(c->config, "hidden_act|hidden_activation");

	if (v && (!json_is_string(v) || (strcmp(json_string_value(v), "silu") && strcmp(json_string_value(v), "swish"))))
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE, "config.json: activation '%.40s' is not supported; silu is",
		                json_is_string(v) ? json_string_value(v) : "?");
	if (lookup(c->config, "quantization_config"))
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "config.json has a \"quantization_config\": convert the original weights, not quantized ones");
	d->hidden = d->n_layers = d->vocab = d->n_heads = -1;
	if ((rc = get_int(c, "hidden_size|block_dim", 1, 1 << 20, &d->hidden)) ||
	    (rc = get_int(c, "num_hidden_layers", 1, MAX_LAYERS, &d->n_layers)) ||
	    (rc = get_int(c, "vocab_size", 1, 1 << 24, &d->vocab)) ||
	    (rc = get_int(c, "num_attention_heads|num_heads", 1, 4096, &d->n_heads)) ||
	    (rc = get_int(c, "max_position_embeddings", 1, INT_MAX, &n_context)))
		return rc;
	n_kv = d->n_heads;
	if ((rc = get_int(c, "num_key_value_heads", 1, 4096, &n_kv)))
		return rc;
	if (d->n_heads % n_kv)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: %d attention heads cannot share %d key/value heads",
		                d->n_heads, n_kv);
	d->head_dim = 0;
	if ((rc = get_int(c, "head_dim", 1, 4096, &d->head_dim)))
		return rc;
	if (!d->head_dim) {
		if (d->hidden % d->n_heads)
			return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: hidden size %d is no multiple of %d heads",
			                d->hidden, d->n_heads);
		d->head_dim = d->hidden / d->n_heads;
	}
	if (d->head_dim % 2)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: head size %d is odd", d->head_dim);
	for (int i = 0; i < d->n_layers; i++)
		c->kv[i] = n_kv;
	d->n_kv_heads = c->kv;

	/* transformers' default is true for LFM2 and false for the others; the file tells when the config does not. */
	v = lookup(c->config, "tie_word_embeddings|tie_embedding");
	d->tied = v ? json_is_true(v) : !ruv_safetensors_find(c->source->st, "lm_head.weight");

	ruv_gguf_set_u32(c->writer, arch_key(c, "block_count"), (uint32_t)d->n_layers);
	ruv_gguf_set_u32(c->writer, arch_key(c, "context_length"), (uint32_t)n_context);
	ruv_gguf_set_u32(c->writer, arch_key(c, "embedding_length"), (uint32_t)d->hidden);
	ruv_gguf_set_u32(c->writer, arch_key(c, "attention.head_count"), (uint32_t)d->n_heads);
	ruv_gguf_set_u32(c->writer, arch_key(c, "attention.head_count_kv"), (uint32_t)n_kv);
	ruv_gguf_set_u32(c->writer, arch_key(c, "vocab_size"), (uint32_t)d->vocab);
	return set_rope(c);
}

static int set_llama_like(converter *c)
{
	ruv_hf_dims *d = &c->dims;
	double eps = 0;
	bool llama = !strcmp(d->arch, "llama"), qwen3 = !strcmp(d->arch, "qwen3");
	int rc;

	rc = set_common(c);
	if (rc)
		return rc;
	d->feed_forward = -1;
	if ((rc = get_int(c, "intermediate_size", 1, 1 << 22, &d->feed_forward)) ||
	    (rc = get_number(c, c->config, "rms_norm_eps", &eps)))
		return rc;
	if ((llama || qwen3) && ((rc = need_bool(c, "attention_bias", false)) || (rc = need_bool(c, "mlp_bias", false))))
		return rc;
	if ((rc = need_bool(c, "use_sliding_window", false)))
		return rc;
	ruv_gguf_set_u32(c->writer, arch_key(c, "feed_forward_length"), (uint32_t)d->feed_forward);
	ruv_gguf_set_f32(c->writer, arch_key(c, "attention.layer_norm_rms_epsilon"), (float)eps);
	if (lookup(c->config, "head_dim")) {
		ruv_gguf_set_u32(c->writer, arch_key(c, "attention.key_length"), (uint32_t)d->head_dim);
		ruv_gguf_set_u32(c->writer, arch_key(c, "attention.value_length"), (uint32_t)d->head_dim);
	}
	if (llama)
		ruv_gguf_set_u32(c->writer, arch_key(c, "rope.dimension_count"), (uint32_t)d->head_dim);
	return RUV_OK;
}

/* ---- LFM2 ---- */

static int set_layer_kinds(converter *c)
{
	json_t *types = lookup(c->config, "layer_types"), *attention = lookup(c->config, "full_attn_idxs"), *v;
	size_t i;

	if (types) {
		if (!json_is_array(types) || json_array_size(types) != (size_t)c->dims.n_layers)
			return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: \"layer_types\" must name %d layers",
			                c->dims.n_layers);
		json_array_foreach(types, i, v)
		{
			const char *kind = json_string_value(v);
			if (kind && !strcmp(kind, "conv"))
				c->kv[i] = 0;
			else if (!kind || strcmp(kind, "full_attention"))
				return ruv_fail(
				    c->err, RUV_EUNSUPPORTED, WHERE,
				    "config.json: layer %zu is of type '%.40s'; 'conv' and 'full_attention' are supported", i,
				    kind ? kind : "?");
		}
		return RUV_OK;
	}
	if (!attention)
		return missing(c, "layer_types|full_attn_idxs");
	bool is_attention[MAX_LAYERS] = {false};
	json_array_foreach(attention, i, v)
	{
		json_int_t at = json_is_integer(v) ? json_integer_value(v) : -1;
		if (at < 0 || at >= c->dims.n_layers)
			return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: \"full_attn_idxs\" must hold layers below %d",
			                c->dims.n_layers);
		is_attention[at] = true;
	}
	for (int l = 0; l < c->dims.n_layers; l++)
		if (!is_attention[l])
			c->kv[l] = 0;
	return RUV_OK;
}

static int lfm2_feed_forward(converter *c)
{
	/* block_auto_adjust_ff_dim is true in transformers when the config is silent; new configs store the final width otherwise.
	 */
	json_t *adjust = lookup(c->config, "block_auto_adjust_ff_dim");
	double multiplier = 1;
	int multiple = 256, width = -1, rc;

	if ((rc = get_int(c, "block_ff_dim|intermediate_size", 1, 1 << 22, &width)) ||
	    (rc = get_int(c, "block_multiple_of", 1, 1 << 20, &multiple)) ||
	    (rc = get_number(c, c->config, "block_ffn_dim_multiplier", &multiplier)))
		return rc;
	if (!adjust || json_is_true(adjust)) {
		double f = floor(multiplier * (double)((int64_t)2 * width / 3));
		if (f < 1 || f > (double)(1 << 22))
			return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: the feed-forward width comes out as %g", f);
		width = ((int)f + multiple - 1) / multiple * multiple;
	}
	c->dims.feed_forward = width;
	return RUV_OK;
}

/* A file DIR/1_Pooling/config.json of sentence-transformers says how token states become one vector. */
static int pooling_of_directory(converter *c, int *pooling)
{
	static const struct {
		const char *name;
		int type;
	} modes[] = {{"pooling_mode_mean_tokens", 1}, {"pooling_mode_cls_token", 2}, {"pooling_mode_lasttoken", 3}};
	json_t *json;
	int rc = ruv_hf_json(&json, c->dir, "1_Pooling/config.json", c->err);
	if (rc || !json)
		return rc;
	*pooling = 0;
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (json_is_true(json_object_get(json, modes[i].name)))
			*pooling = modes[i].type;
	json_decref(json);
	if (!*pooling)
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "1_Pooling/config.json asks for a pooling other than mean, first or last token");
	return RUV_OK;
}

static int set_encoder(converter *c)
{
	json_t *embed = lookup(c->config, "ruvllm_embed"), *v;
	char path[PATH_MAX];
	struct stat sb;
	int pooling = 1, rc;

	snprintf(path, sizeof path, "%s/1_Dense/model.safetensors", c->dir);
	if (!stat(path, &sb))
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE, "a projection in 1_Dense is not supported");
	rc = pooling_of_directory(c, &pooling);
	if (rc)
		return rc;
	if (embed) {
		static const char *const prefixes[] = {"query_prefix", "passage_prefix"};
		const char *name = json_string_value(json_object_get(embed, "pooling"));
		if (name && strcmp(name, "mean"))
			return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
			                "config.json: ruvllm_embed.pooling '%.40s' is not supported; mean is", name);
		v = json_object_get(embed, "dimension");
		if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 1 << 16)
			return ruv_fail(c->err, RUV_EFORMAT, WHERE,
			                "config.json: ruvllm_embed.dimension must be a whole number from 1 to 65536");
		c->dims.embed_dim = (int)json_integer_value(v);
		ruv_gguf_set_u32(c->writer, "ruvllm.embed.dimension", (uint32_t)c->dims.embed_dim);
		for (int i = 0; i < 2; i++) {
			char key[48];
			v = json_object_get(embed, prefixes[i]);
			if (v && !json_is_string(v))
				return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json: ruvllm_embed.%s must be a string",
				                prefixes[i]);
			snprintf(key, sizeof key, "ruvllm.embed.%s", prefixes[i]);
			ruv_gguf_set_str(c->writer, key, v ? json_string_value(v) : "");
		}
		/* Without a projection the dimension is the hidden size. */
		if (!ruv_safetensors_find(c->source->st, "embedding_proj.weight")) {
			if (c->dims.embed_dim != c->dims.hidden)
				return ruv_fail(c->err, RUV_EFORMAT, WHERE,
				                "config.json: ruvllm_embed.dimension is %d, but there is no tensor "
				                "'embedding_proj.weight' and the hidden size is %d",
				                c->dims.embed_dim, c->dims.hidden);
			c->dims.embed_dim = 0;
		}
		pooling = 1;
	}
	ruv_gguf_set_u32(c->writer, arch_key(c, "pooling_type"), (uint32_t)pooling);
	return RUV_OK;
}

static int set_lfm2(converter *c, const char *class_name)
{
	ruv_hf_dims *d = &c->dims;
	json_t *causal = lookup(c->config, "is_causal");
	double eps = 0;
	int rc;

	rc = set_common(c);
	if (rc)
		return rc;
	d->n_conv_taps = -1;
	if ((rc = get_int(c, "conv_L_cache", 1, 64, &d->n_conv_taps)) || (rc = need_bool(c, "conv_bias", false)) ||
	    (rc = get_number(c, c->config, "norm_eps|block_norm_eps|rms_norm_eps", &eps)) || (rc = set_layer_kinds(c)) ||
	    (rc = lfm2_feed_forward(c)))
		return rc;
	if (lookup(c->config, "sliding_window"))
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE, "config.json: \"sliding_window\" is not supported for lfm2");
	ruv_gguf_set_u32(c->writer, arch_key(c, "feed_forward_length"), (uint32_t)d->feed_forward);
	ruv_gguf_set_f32(c->writer, arch_key(c, "attention.layer_norm_rms_epsilon"), (float)eps);
	ruv_gguf_set_u32(c->writer, arch_key(c, "shortconv.l_cache"), (uint32_t)d->n_conv_taps);
	ruv_gguf_set_array(c->writer, arch_key(c, "attention.head_count_kv"), RUV_GGUF_I32, c->kv, (size_t)d->n_layers);

	bool bidirectional = !strcmp(class_name, "Lfm2BidirectionalModel") || (causal && json_is_false(causal));
	if (bidirectional) {
		ruv_gguf_set_bool(c->writer, arch_key(c, "attention.causal"), false);
		d->tied = true; /* an encoder has no head */
		rc = set_encoder(c);
	} else if (lookup(c->config, "ruvllm_embed")) {
		rc = set_encoder(c);
	}
	return rc;
}

/* ---- the whole ---- */

static const struct {
	const char *class_name, *arch;
} classes[] = {{"Lfm2ForCausalLM", "lfm2"},        {"LFM2ForCausalLM", "lfm2"},   {"Lfm2Model", "lfm2"},
               {"Lfm2BidirectionalModel", "lfm2"}, {"Qwen2ForCausalLM", "qwen2"}, {"Qwen3ForCausalLM", "qwen3"},
               {"LlamaForCausalLM", "llama"}};

/* The last part of a path, "LFM2-350M" of "/models/LFM2-350M/"; of a Hugging Face snapshot the repository's name. */
static void name_of_directory(const char *dir, char *name, size_t cap)
{
	char real[PATH_MAX];
	const char *models;
	if (!realpath(dir, real))
		snprintf(real, sizeof real, "%s", dir);
	models = strstr(real, "/models--");
	if (models && strstr(models, "/snapshots/")) {
		const char *last = models + strlen("/models--"), *end = strchr(last, '/');
		for (const char *p = last; p + 1 < end; p++)
			if (p[0] == '-' && p[1] == '-')
				last = p + 2;
		snprintf(name, cap, "%.*s", (int)(end - last), last);
		return;
	}
	const char *slash = strrchr(real, '/');
	snprintf(name, cap, "%.*s", (int)cap - 1, slash && slash[1] ? slash + 1 : real);
}

static int convert(converter *c, const char *name, bool no_tokenizer)
{
	const char *class_name;
	char derived[256];
	int rc;

	rc = ruv_hf_json(&c->config, c->dir, "config.json", c->err);
	if (rc)
		return rc;
	if (!c->config)
		return ruv_fail(c->err, RUV_ENOTFOUND, WHERE, "'%s' holds no config.json: it is no Hugging Face model directory",
		                c->dir);
	if (!json_is_object(c->config))
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "%s/config.json is no JSON object", c->dir);
	class_name = json_string_value(json_array_get(json_object_get(c->config, "architectures"), 0));
	if (!class_name)
		return ruv_fail(c->err, RUV_EFORMAT, WHERE, "config.json names no \"architectures\"");
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (!strcmp(classes[i].class_name, class_name))
			c->dims.arch = classes[i].arch;
	if (!c->dims.arch)
		return ruv_fail(c->err, RUV_EUNSUPPORTED, WHERE,
		                "config.json: architecture '%.60s' is not supported; LFM2, Qwen2, Qwen3 and Llama models are",
		                class_name);
	rc = ruv_safetensors_open(&c->source->st, c->dir, c->err);
	if (rc)
		return rc;

	ruv_gguf_set_str(c->writer, "general.architecture", c->dims.arch);
	ruv_gguf_set_str(c->writer, "general.type", "model");
	if (!name) {
		name_of_directory(c->dir, derived, sizeof derived);
		name = derived;
	}
	ruv_gguf_set_str(c->writer, "general.name", name);
	/* Which form of docs/prompt-format.md it was trained on: the runtime then leaves out the instructions. */
	if (json_is_string(lookup(c->config, "ruvllm_prompt_format")))
		ruv_gguf_set_str(c->writer, "ruvllm.prompt_format", json_string_value(lookup(c->config, "ruvllm_prompt_format")));

	rc = !strcmp(c->dims.arch, "lfm2") ? set_lfm2(c, class_name) : set_llama_like(c);
	if (rc)
		return rc;
	c->source->n_layers = c->dims.n_layers;
	rc = ruv_hf_map_tensors(c->source, &c->dims, c->err);
	if (rc)
		return rc;
	if (no_tokenizer) {
		ruv_gguf_set_str(c->writer, "tokenizer.ggml.model", "no_vocab");
		return RUV_OK;
	}
	return ruv_hf_set_tokenizer(c->writer, c->dir, c->dims.arch, c->config, c->dims.vocab, c->err);
}

int ruv_source_open_hf(ruv_source *source, const char *dir, const char *name, bool no_tokenizer, ruv_gguf_writer *writer,
                       ruv_error *err)
{
	converter *c = calloc(1, sizeof *c);
	int rc;
	if (!c)
		return ruv_fail_memory(err, WHERE, sizeof *c);
	c->source = source;
	c->writer = writer;
	c->dir = dir;
	c->err = err;
	rc = convert(c, name, no_tokenizer);
	json_decref(c->config);
	free(c);
	return rc;
}

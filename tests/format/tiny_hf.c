/* tiny_hf.c - see tiny_hf.h. */
#include "tiny_hf.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"

static ruv_rng rng;

void tiny_byte_letter(int byte, char text[3])
{
	int letter = byte, n = 0;
#define PRINTABLE(b) (((b) >= 33 && (b) <= 126) || ((b) >= 161 && (b) <= 172) || (b) >= 174)
	if (!PRINTABLE(byte)) {
		for (int b = 0; b < byte; b++)
			n += !PRINTABLE(b);
		letter = 256 + n;
	}
	if (letter < 0x80) {
		text[0] = (char)letter;
		text[1] = '\0';
	} else {
		text[0] = (char)(0xc0 | letter >> 6);
		text[1] = (char)(0x80 | (letter & 63));
		text[2] = '\0';
	}
}

tiny_tensor *tiny_hf_add(tiny_hf *hf, const char *name, int n_dims, int a, int b, int c)
{
	tiny_tensor *t = &hf->tensors[hf->n_tensors++];
	assert_true(hf->n_tensors <= 128);
	memset(t, 0, sizeof *t);
	snprintf(t->name, sizeof t->name, "%s", name);
	t->n_dims = n_dims;
	t->shape[0] = a;
	t->shape[1] = b;
	t->shape[2] = c;
	t->n = (size_t)a * (size_t)(n_dims > 1 ? b : 1) * (size_t)(n_dims > 2 ? c : 1);
	t->bits = malloc(t->n * 2);
	for (size_t i = 0; i < t->n; i++) {
		float x = (float)ruv_rng_normal(&rng) * 0.1f + (n_dims == 1 ? 1 : 0);
		uint32_t u;
		memcpy(&u, &x, 4);
		t->bits[i] = (uint16_t)(u >> 16);
	}
	return t;
}

static void add_layer(tiny_hf *hf, int layer, const char *name, int n_dims, int a, int b, int c)
{
	char full[96];
	snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
	tiny_hf_add(hf, full, n_dims, a, b, c);
}

static void add_tokenizer(tiny_hf *hf, const char *regex, bool ignore_merges)
{
	static const char *const specials[] = {"<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"};
	json_t *vocab = json_object(), *added = json_array(), *merges = json_array();
	char text[8];

	for (int i = 0; i < 5; i++) {
		json_object_set_new(vocab, specials[i], json_integer(i));
		json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i, "content", specials[i],
		                                       "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
	}
	for (int b = 0; b < 256; b++) {
		tiny_byte_letter(b, text);
		json_object_set_new(vocab, text, json_integer(5 + b));
	}
	json_object_set_new(vocab, "he", json_integer(261));
	json_object_set_new(vocab, "llo", json_integer(262));
	json_object_set_new(vocab, "ll", json_integer(263));
	json_array_append_new(merges, json_pack("[s, s]", "h", "e"));
	json_array_append_new(merges, json_string("l l")); /* both forms that files use */
	json_array_append_new(merges, json_pack("[s, s]", "ll", "o"));
	json_array_append_new(added, json_pack("{s:i, s:s, s:b}", "id", 264, "content", "<tool_call>", "special", 0));

	hf->tokenizer = json_pack(
	    "{s:s, s:o, s:n, s:{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}, s:n, s:{s:s, s:b, s:o, s:o}}", "version",
	    "1.0", "added_tokens", added, "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type", "Split",
	    "pattern", "Regex", regex, "behavior", "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space", 0, "use_regex",
	    0, "post_processor", "model", "type", "BPE", "ignore_merges", ignore_merges, "vocab", vocab, "merges", merges);
	assert_non_null(hf->tokenizer);
	hf->tokenizer_config =
	    json_pack("{s:b, s:s, s:s, s:{s:s}, s:s}", "add_bos_token", 1, "bos_token", "<|startoftext|>", "eos_token",
	              "<|im_end|>", "pad_token", "content", "<|pad|>", "chat_template", "{{ bos_token }}hi");
	assert_non_null(hf->tokenizer_config);
}

static void add_lfm2(tiny_hf *hf, bool encoder)
{
	const int d = TINY_HIDDEN, q = TINY_HEADS * TINY_HEAD_DIM, kv = TINY_KV * TINY_HEAD_DIM;
	/* int(2 * 140 / 3) = 93, rounded up to a multiple of 32: 96 */
	hf->config = json_pack(
	    "{s:[s], s:b, s:f, s:i, s:i, s:i, s:b, s:i, s:i, s:i, s:[s,s,s], s:i, s:f, s:i, s:i, s:i, s:{s:f, s:s}, s:b, s:i}",
	    "architectures", encoder ? "Lfm2BidirectionalModel" : "Lfm2ForCausalLM", "block_auto_adjust_ff_dim", 1,
	    "block_ffn_dim_multiplier", 1.0, "block_multiple_of", 32, "bos_token_id", 1, "conv_L_cache", 3, "conv_bias", 0,
	    "eos_token_id", 4, "hidden_size", d, "block_ff_dim", 140, "layer_types", "conv", "full_attention", "conv",
	    "max_position_embeddings", 512, "norm_eps", 1e-5, "num_attention_heads", TINY_HEADS, "num_hidden_layers", TINY_LAYERS,
	    "num_key_value_heads", TINY_KV, "rope_parameters", "rope_theta", 1e6, "rope_type", "default", "tie_word_embeddings", 1,
	    "vocab_size", TINY_VOCAB);
	assert_non_null(hf->config);
	tiny_hf_add(hf, "model.embed_tokens.weight", 2, TINY_VOCAB, d, 0);
	tiny_hf_add(hf, "model.embedding_norm.weight", 1, d, 0, 0);
	for (int i = 0; i < TINY_LAYERS; i++) {
		add_layer(hf, i, "operator_norm.weight", 1, d, 0, 0);
		add_layer(hf, i, "ffn_norm.weight", 1, d, 0, 0);
		add_layer(hf, i, "feed_forward.w1.weight", 2, TINY_FF, d, 0);
		add_layer(hf, i, "feed_forward.w2.weight", 2, d, TINY_FF, 0);
		add_layer(hf, i, "feed_forward.w3.weight", 2, TINY_FF, d, 0);
		if (i == 1) {
			add_layer(hf, i, "self_attn.q_proj.weight", 2, q, d, 0);
			add_layer(hf, i, "self_attn.k_proj.weight", 2, kv, d, 0);
			add_layer(hf, i, "self_attn.v_proj.weight", 2, kv, d, 0);
			add_layer(hf, i, "self_attn.out_proj.weight", 2, d, q, 0);
			add_layer(hf, i, "self_attn.q_layernorm.weight", 1, TINY_HEAD_DIM, 0, 0);
			add_layer(hf, i, "self_attn.k_layernorm.weight", 1, TINY_HEAD_DIM, 0, 0);
		} else {
			add_layer(hf, i, "conv.conv.weight", 3, d, 1, 3);
			add_layer(hf, i, "conv.in_proj.weight", 2, 3 * d, d, 0);
			add_layer(hf, i, "conv.out_proj.weight", 2, d, d, 0);
		}
	}
	if (encoder) {
		json_object_set_new(hf->config, "ruvllm_embed",
		                    json_pack("{s:i, s:s, s:s, s:s}", "dimension", 48, "pooling", "mean", "query_prefix",
		                              "query: ", "passage_prefix", "passage: "));
		tiny_hf_add(hf, "embedding_proj.weight", 2, 48, d, 0);
		tiny_hf_add(hf, "embedding_proj.bias", 1, 48, 0, 0);
		tiny_hf_add(hf, "embedding_layer_norm.weight", 1, 48, 0, 0);
		tiny_hf_add(hf, "embedding_layer_norm.bias", 1, 48, 0, 0);
	}
}

static void add_llama_like(tiny_hf *hf, const char *family)
{
	bool qwen2 = !strcmp(family, "qwen2"), qwen3 = !strcmp(family, "qwen3");
	const int d = TINY_HIDDEN, q = TINY_HEADS * TINY_HEAD_DIM, kv = TINY_KV * TINY_HEAD_DIM;

	hf->config = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:i}", "architectures",
	                       qwen2   ? "Qwen2ForCausalLM"
	                       : qwen3 ? "Qwen3ForCausalLM"
	                               : "LlamaForCausalLM",
	                       "hidden_act", "silu", "hidden_size", d, "intermediate_size", TINY_FF, "max_position_embeddings", 512,
	                       "num_attention_heads", TINY_HEADS, "num_hidden_layers", TINY_LAYERS, "num_key_value_heads", TINY_KV,
	                       "rms_norm_eps", 1e-6, "rope_theta", 5e5, "tie_word_embeddings", 0, "vocab_size", TINY_VOCAB);
	assert_non_null(hf->config);
	if (!strcmp(family, "llama"))
		json_object_set_new(hf->config, "rope_scaling",
		                    json_pack("{s:f, s:f, s:f, s:i, s:s}", "factor", 8.0, "low_freq_factor", 1.0,
		                              "high_freq_factor", 4.0, "original_max_position_embeddings", 8192, "rope_type",
		                              "llama3"));
	if (qwen3)
		json_object_set_new(hf->config, "head_dim", json_integer(TINY_HEAD_DIM));
	tiny_hf_add(hf, "model.embed_tokens.weight", 2, TINY_VOCAB, d, 0);
	tiny_hf_add(hf, "model.norm.weight", 1, d, 0, 0);
	tiny_hf_add(hf, "lm_head.weight", 2, TINY_VOCAB, d, 0);
	for (int i = 0; i < TINY_LAYERS; i++) {
		add_layer(hf, i, "input_layernorm.weight", 1, d, 0, 0);
		add_layer(hf, i, "post_attention_layernorm.weight", 1, d, 0, 0);
		add_layer(hf, i, "mlp.gate_proj.weight", 2, TINY_FF, d, 0);
		add_layer(hf, i, "mlp.up_proj.weight", 2, TINY_FF, d, 0);
		add_layer(hf, i, "mlp.down_proj.weight", 2, d, TINY_FF, 0);
		add_layer(hf, i, "self_attn.q_proj.weight", 2, q, d, 0);
		add_layer(hf, i, "self_attn.k_proj.weight", 2, kv, d, 0);
		add_layer(hf, i, "self_attn.v_proj.weight", 2, kv, d, 0);
		add_layer(hf, i, "self_attn.o_proj.weight", 2, d, q, 0);
		if (qwen2) {
			add_layer(hf, i, "self_attn.q_proj.bias", 1, q, 0, 0);
			add_layer(hf, i, "self_attn.k_proj.bias", 1, kv, 0, 0);
			add_layer(hf, i, "self_attn.v_proj.bias", 1, kv, 0, 0);
		}
		if (qwen3) {
			add_layer(hf, i, "self_attn.q_norm.weight", 1, TINY_HEAD_DIM, 0, 0);
			add_layer(hf, i, "self_attn.k_norm.weight", 1, TINY_HEAD_DIM, 0, 0);
		}
	}
}

void tiny_hf_init(tiny_hf *hf, const char *family)
{
	static const char tail[] = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
	static const char head[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}";
	bool lfm2 = !strcmp(family, "lfm2") || !strcmp(family, "encoder"), llama = !strcmp(family, "llama");
	char regex[256];

	memset(hf, 0, sizeof *hf);
	ruv_rng_init(&rng, 7);
	snprintf(hf->dir, sizeof hf->dir, "/tmp/ruv-tiny-XXXXXX");
	assert_non_null(mkdtemp(hf->dir));
	snprintf(regex, sizeof regex, "%s%s%s", head, lfm2 || llama ? "{1,3}" : "", tail);
	add_tokenizer(hf, regex, lfm2 || llama);
	if (lfm2)
		add_lfm2(hf, !strcmp(family, "encoder"));
	else
		add_llama_like(hf, family);
}

const char *tiny_hf_path(const tiny_hf *hf, const char *file)
{
	static char path[sizeof hf->dir + 256];
	snprintf(path, sizeof path, "%s/%s", hf->dir, file);
	return path;
}

void tiny_hf_write(const tiny_hf *hf)
{
	json_t *header = json_object();
	size_t offset = 0;

	unlink(tiny_hf_path(hf, "tokenizer.json"));
	unlink(tiny_hf_path(hf, "tokenizer_config.json"));
	unlink(tiny_hf_path(hf, "config.json"));
	if (hf->config)
		assert_int_equal(json_dump_file(hf->config, tiny_hf_path(hf, "config.json"), 0), 0);
	if (hf->tokenizer)
		assert_int_equal(json_dump_file(hf->tokenizer, tiny_hf_path(hf, "tokenizer.json"), 0), 0);
	if (hf->tokenizer_config)
		assert_int_equal(json_dump_file(hf->tokenizer_config, tiny_hf_path(hf, "tokenizer_config.json"), 0), 0);
	for (int i = 0; i < hf->n_tensors; i++) {
		const tiny_tensor *t = &hf->tensors[i];
		json_t *shape = json_array();
		for (int d = 0; d < t->n_dims; d++)
			json_array_append_new(shape, json_integer(t->shape[d]));
		json_object_set_new(header, t->name,
		                    json_pack("{s:s, s:o, s:[I, I]}", "dtype", "BF16", "shape", shape, "data_offsets",
		                              (json_int_t)offset, (json_int_t)(offset + 2 * t->n)));
		offset += 2 * t->n;
	}
	char *text = json_dumps(header, JSON_COMPACT);
	uint64_t n = strlen(text);
	FILE *f = fopen(tiny_hf_path(hf, "model.safetensors"), "wb");
	assert_non_null(f);
	fwrite(&n, 8, 1, f);
	fwrite(text, 1, n, f);
	for (int i = 0; i < hf->n_tensors; i++)
		fwrite(hf->tensors[i].bits, 2, hf->tensors[i].n, f);
	assert_int_equal(fclose(f), 0);
	free(text);
	json_decref(header);
}

void tiny_hf_release(tiny_hf *hf)
{
	DIR *dir = opendir(hf->dir);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (e->d_name[0] != '.')
			unlink(tiny_hf_path(hf, e->d_name));
	if (dir)
		closedir(dir);
	rmdir(hf->dir);
	for (int i = 0; i < hf->n_tensors; i++)
		free(hf->tensors[i].bits);
	json_decref(hf->config);
	json_decref(hf->tokenizer);
	json_decref(hf->tokenizer_config);
}

tiny_tensor *tiny_hf_find(tiny_hf *hf, const char *name)
{
	for (int i = 0; i < hf->n_tensors; i++)
		if (!strcmp(hf->tensors[i].name, name))
			return &hf->tensors[i];
	fail_msg("no tensor %s", name);
	return NULL;
}

void tiny_hf_drop(tiny_hf *hf, const char *name)
{
	tiny_tensor *t = tiny_hf_find(hf, name);
	free(t->bits);
	memmove(t, t + 1, (size_t)(hf->tensors + hf->n_tensors - t - 1) * sizeof *t);
	hf->n_tensors--;
}

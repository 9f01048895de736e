/* test_convert.c - Hugging Face directories become GGUF files with the right keys, names and bits, or are refused with the reason.
 */
#include "test.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/quantize.h"
#include "tiny_hf.h"

static char out_path[256];

static ruv_gguf *convert(tiny_hf *hf, ruv_recipe recipe)
{
	const ruv_write_options options = {.recipe = recipe};
	ruv_error err = {0};
	ruv_gguf *g = NULL;

	tiny_hf_write(hf);
	snprintf(out_path, sizeof out_path, "%s/out.gguf", hf->dir);
	assert_ok(ruv_model_write(out_path, hf->dir, &options, NULL, &err), err);
	assert_ok(ruv_gguf_open(&g, out_path, 0, &err), err);
	return g;
}

/* The message must hold `what`, and nothing is left behind. */
static void refused(tiny_hf *hf, int code, const char *what)
{
	const ruv_write_options options = {.recipe = RUV_RECIPE_BF16};
	ruv_error err = {0};

	tiny_hf_write(hf);
	snprintf(out_path, sizeof out_path, "%s/out.gguf", hf->dir);
	unlink(out_path);
	int rc = ruv_model_write(out_path, hf->dir, &options, NULL, &err);
	if (rc != code || !strstr(err.message, what))
		fail_msg("expected %d with '%s', got %d with '%s'", code, what, rc, err.message);
	assert_int_not_equal(access(out_path, F_OK), 0);
}

static void same_bits(const ruv_gguf *g, const char *name, const tiny_tensor *from)
{
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(g, name);
	if (!t)
		fail_msg("no tensor '%s'", name);
	assert_int_equal(t->n_bytes, from->n * (t->dtype == RUV_F32 ? 4 : 2));
	if (t->dtype == RUV_BF16) {
		assert_memory_equal(t->data, from->bits, t->n_bytes);
		return;
	}
	assert_int_equal(t->dtype, RUV_F32);
	for (size_t i = 0; i < from->n; i++)
		assert_int_equal(((const uint32_t *)t->data)[i], (uint32_t)from->bits[i] << 16);
}

static uint32_t key_u32(const ruv_gguf *g, const char *name)
{
	ruv_error err = {0};
	uint32_t v = 0;
	assert_ok(ruv_gguf_get_u32(g, name, &v, &err), err);
	return v;
}

static float key_f32(const ruv_gguf *g, const char *name)
{
	ruv_error err = {0};
	float v = 0;
	assert_ok(ruv_gguf_get_f32(g, name, &v, &err), err);
	return v;
}

static bool key_is(const ruv_gguf *g, const char *name, const char *text)
{
	ruv_error err = {0};
	ruv_gguf_str s;
	assert_ok(ruv_gguf_get_str(g, name, &s, &err), err);
	return ruv_gguf_str_is(s, text);
}

static bool key_bool(const ruv_gguf *g, const char *name)
{
	ruv_error err = {0};
	bool b = false;
	assert_ok(ruv_gguf_get_bool(g, name, &b, &err), err);
	return b;
}

static void lfm2(void **state)
{
	static const char *const pairs[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
	                                       {"token_embd_norm.weight", "model.embedding_norm.weight"},
	                                       {"blk.0.attn_norm.weight", "model.layers.0.operator_norm.weight"},
	                                       {"blk.0.ffn_norm.weight", "model.layers.0.ffn_norm.weight"},
	                                       {"blk.2.ffn_gate.weight", "model.layers.2.feed_forward.w1.weight"},
	                                       {"blk.2.ffn_down.weight", "model.layers.2.feed_forward.w2.weight"},
	                                       {"blk.2.ffn_up.weight", "model.layers.2.feed_forward.w3.weight"},
	                                       {"blk.0.shortconv.conv.weight", "model.layers.0.conv.conv.weight"},
	                                       {"blk.0.shortconv.in_proj.weight", "model.layers.0.conv.in_proj.weight"},
	                                       {"blk.0.shortconv.out_proj.weight", "model.layers.0.conv.out_proj.weight"},
	                                       {"blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight"},
	                                       {"blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight"},
	                                       {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"},
	                                       {"blk.1.attn_output.weight", "model.layers.1.self_attn.out_proj.weight"},
	                                       {"blk.1.attn_q_norm.weight", "model.layers.1.self_attn.q_layernorm.weight"},
	                                       {"blk.1.attn_k_norm.weight", "model.layers.1.self_attn.k_layernorm.weight"}};
	ruv_gguf_array kv;
	ruv_error err = {0};
	tiny_hf hf;
	int64_t v;
	(void)state;

	tiny_hf_init(&hf, "lfm2");
	ruv_gguf *g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_is(g, "general.architecture", "lfm2"));
	assert_int_equal(key_u32(g, "lfm2.block_count"), 3);
	assert_int_equal(key_u32(g, "lfm2.context_length"), 512);
	assert_int_equal(key_u32(g, "lfm2.embedding_length"), TINY_HIDDEN);
	assert_int_equal(key_u32(g, "lfm2.feed_forward_length"), TINY_FF); /* from block_ff_dim 140 */
	assert_int_equal(key_u32(g, "lfm2.vocab_size"), TINY_VOCAB);
	assert_int_equal(key_u32(g, "lfm2.shortconv.l_cache"), 3);
	assert_int_equal(key_u32(g, "lfm2.attention.head_count"), 2);
	assert_true(key_f32(g, "lfm2.rope.freq_base") == 1e6f);
	assert_true(key_f32(g, "lfm2.attention.layer_norm_rms_epsilon") == 1e-5f);
	assert_int_equal(key_u32(g, "general.file_type"), 32);
	assert_null(ruv_gguf_find_key(g, "lfm2.attention.causal"));
	assert_ok(ruv_gguf_get_array(g, "lfm2.attention.head_count_kv", &kv, &err), err);
	assert_int_equal(kv.n, 3);
	for (int i = 0; i < 3; i++) {
		assert_ok(ruv_gguf_array_i64(&kv, (uint64_t)i, &v, &err), err);
		assert_int_equal(v, i == 1 ? TINY_KV : 0);
	}
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		same_bits(g, pairs[i][0], tiny_hf_find(&hf, pairs[i][1]));
	const ruv_gguf_tensor *conv = ruv_gguf_find_tensor(g, "blk.0.shortconv.conv.weight");
	assert_int_equal(conv->n_dims, 2);
	assert_int_equal(conv->ne[0], 3);
	assert_int_equal(conv->ne[1], TINY_HIDDEN);
	assert_int_equal(conv->dtype, RUV_F32);
	assert_int_equal(ruv_gguf_n_tensors(g), (size_t)hf.n_tensors);
	ruv_gguf_free(g);

	/* LFM2.5's spellings: the final width, theta at the top, attention layers by number. */
	json_object_set_new(hf.config, "intermediate_size", json_integer(TINY_FF));
	json_object_set_new(hf.config, "block_auto_adjust_ff_dim", json_false());
	json_object_del(hf.config, "block_ff_dim");
	json_object_del(hf.config, "rope_parameters");
	json_object_set_new(hf.config, "rope_theta", json_real(1e7));
	json_object_del(hf.config, "layer_types");
	json_object_set_new(hf.config, "full_attn_idxs", json_pack("[i]", 1));
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_int_equal(key_u32(g, "lfm2.feed_forward_length"), TINY_FF);
	assert_true(key_f32(g, "lfm2.rope.freq_base") == 1e7f);
	same_bits(g, "blk.1.attn_q.weight", tiny_hf_find(&hf, "model.layers.1.self_attn.q_proj.weight"));
	ruv_gguf_free(g);
	tiny_hf_release(&hf);
}

static void an_encoder(void **state)
{
	tiny_hf hf;
	(void)state;

	tiny_hf_init(&hf, "encoder");
	ruv_gguf *g = convert(&hf, RUV_RECIPE_BF16);
	assert_false(key_bool(g, "lfm2.attention.causal"));
	assert_int_equal(key_u32(g, "lfm2.pooling_type"), 1);
	assert_int_equal(key_u32(g, "ruvllm.embed.dimension"), 48);
	assert_true(key_is(g, "ruvllm.embed.query_prefix", "query: "));
	assert_true(key_is(g, "ruvllm.embed.passage_prefix", "passage: "));
	same_bits(g, "embedding_proj.weight", tiny_hf_find(&hf, "embedding_proj.weight"));
	same_bits(g, "embedding_proj.bias", tiny_hf_find(&hf, "embedding_proj.bias"));
	same_bits(g, "embedding_layer_norm.weight", tiny_hf_find(&hf, "embedding_layer_norm.weight"));
	same_bits(g, "embedding_layer_norm.bias", tiny_hf_find(&hf, "embedding_layer_norm.bias"));
	ruv_gguf_free(g);

	/* Names of the bare model class, and "is_causal" in place of the class. */
	for (int i = 0; i < hf.n_tensors; i++)
		if (!strncmp(hf.tensors[i].name, "model.", 6))
			memmove(hf.tensors[i].name, hf.tensors[i].name + 6, strlen(hf.tensors[i].name) - 5);
	json_object_set_new(hf.config, "architectures", json_pack("[s]", "Lfm2Model"));
	json_object_set_new(hf.config, "is_causal", json_false());
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_false(key_bool(g, "lfm2.attention.causal"));
	ruv_gguf_free(g);
	json_object_set_new(json_object_get(hf.config, "ruvllm_embed"), "pooling", json_string("median"));
	refused(&hf, RUV_EUNSUPPORTED, "median");
	json_object_set_new(json_object_get(hf.config, "ruvllm_embed"), "pooling", json_string("mean"));
	json_object_set_new(json_object_get(hf.config, "ruvllm_embed"), "dimension", json_integer(47));
	refused(&hf, RUV_EFORMAT, "embedding_proj");
	tiny_hf_release(&hf);
}

static void qwen2_and_qwen3(void **state)
{
	tiny_hf hf;
	ruv_gguf *g;
	(void)state;

	tiny_hf_init(&hf, "qwen2");
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_is(g, "general.architecture", "qwen2"));
	assert_true(key_is(g, "tokenizer.ggml.pre", "qwen2"));
	assert_int_equal(key_u32(g, "qwen2.attention.head_count_kv"), TINY_KV);
	same_bits(g, "output.weight", tiny_hf_find(&hf, "lm_head.weight"));
	same_bits(g, "output_norm.weight", tiny_hf_find(&hf, "model.norm.weight"));
	same_bits(g, "blk.1.attn_q.weight", tiny_hf_find(&hf, "model.layers.1.self_attn.q_proj.weight"));
	same_bits(g, "blk.1.attn_v.bias", tiny_hf_find(&hf, "model.layers.1.self_attn.v_proj.bias"));
	same_bits(g, "blk.1.ffn_norm.weight", tiny_hf_find(&hf, "model.layers.1.post_attention_layernorm.weight"));
	ruv_gguf_free(g);
	json_object_set_new(hf.config, "tie_word_embeddings", json_true()); /* a second copy of the embedding is left out */
	json_object_set_new(hf.config, "rope_scaling",
	                    json_pack("{s:s, s:f, s:i}", "type", "yarn", "factor", 4.0, "original_max_position_embeddings", 512));
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_null(ruv_gguf_find_tensor(g, "output.weight"));
	assert_true(key_is(g, "qwen2.rope.scaling.type", "yarn"));
	assert_true(key_f32(g, "qwen2.rope.scaling.factor") == 4);
	assert_int_equal(key_u32(g, "qwen2.rope.scaling.original_context_length"), 512);
	ruv_gguf_free(g);
	tiny_hf_release(&hf);

	tiny_hf_init(&hf, "qwen3");
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_int_equal(key_u32(g, "qwen3.attention.key_length"), TINY_HEAD_DIM);
	same_bits(g, "blk.2.attn_k_norm.weight", tiny_hf_find(&hf, "model.layers.2.self_attn.k_norm.weight"));
	ruv_gguf_free(g);
	tiny_hf_release(&hf);
}

static void llama_rows_go_to_interleaved_order(void **state)
{
	tiny_hf hf;
	const int half = TINY_HEAD_DIM / 2;
	(void)state;

	tiny_hf_init(&hf, "llama");
	ruv_gguf *g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_is(g, "tokenizer.ggml.pre", "llama-bpe"));
	assert_int_equal(key_u32(g, "llama.rope.dimension_count"), TINY_HEAD_DIM);
	const tiny_tensor *q = tiny_hf_find(&hf, "model.layers.0.self_attn.q_proj.weight");
	const uint16_t *out = ruv_gguf_find_tensor(g, "blk.0.attn_q.weight")->data;
	/* Element i of a head's first half and element i of its second half become neighbours 2i and 2i + 1. */
	for (int head = 0; head < TINY_HEADS; head++)
		for (int i = 0; i < half; i++)
			for (int part = 0; part < 2; part++)
				assert_memory_equal(out + (size_t)(head * TINY_HEAD_DIM + 2 * i + part) * TINY_HIDDEN,
				                    q->bits + (size_t)(head * TINY_HEAD_DIM + part * half + i) * TINY_HIDDEN,
				                    TINY_HIDDEN * 2);
	same_bits(g, "blk.0.attn_v.weight", tiny_hf_find(&hf, "model.layers.0.self_attn.v_proj.weight"));

	const ruv_gguf_tensor *freqs = ruv_gguf_find_tensor(g, "rope_freqs.weight");
	assert_non_null(freqs);
	assert_int_equal(freqs->ne[0], half);
	const float *f = freqs->data;
	assert_true(f[0] == 1); /* the shortest wave stays, the longest is stretched by the factor */
	assert_true(f[half - 1] == 8);
	for (int i = 1; i < half; i++)
		assert_true(f[i] >= f[i - 1]);
	ruv_gguf_free(g);
	tiny_hf_release(&hf);
}

static void the_tokenizer(void **state)
{
	tiny_hf hf;
	ruv_gguf *g;
	ruv_gguf_array a;
	ruv_gguf_str s, tokens[TINY_VOCAB];
	ruv_error err = {0};
	size_t cursor = 0;
	int64_t type;
	(void)state;

	tiny_hf_init(&hf, "lfm2");
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_is(g, "tokenizer.ggml.model", "gpt2"));
	assert_true(key_is(g, "tokenizer.ggml.pre", "lfm2"));
	assert_ok(ruv_gguf_get_array(g, "tokenizer.ggml.tokens", &a, &err), err);
	assert_int_equal(a.n, TINY_VOCAB);
	for (int i = 0; i < TINY_VOCAB; i++)
		assert_true(ruv_gguf_array_next_str(&a, &cursor, &tokens[i]));
	assert_true(ruv_gguf_str_is(tokens[1], "<|startoftext|>"));
	assert_true(ruv_gguf_str_is(tokens[5 + ' '], "\xc4\xa0"));
	assert_true(ruv_gguf_str_is(tokens[5 + 'A'], "A"));
	assert_true(ruv_gguf_str_is(tokens[262], "llo"));
	assert_true(ruv_gguf_str_is(tokens[265], "[PAD265]"));
	assert_ok(ruv_gguf_get_array(g, "tokenizer.ggml.token_type", &a, &err), err);
	const struct {
		int id, type;
	} types[] = {{0, 3}, {4, 3}, {5, 1}, {263, 1}, {264, 4}, {265, 5}, {299, 5}};
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		assert_ok(ruv_gguf_array_i64(&a, (uint64_t)types[i].id, &type, &err), err);
		assert_int_equal(type, types[i].type);
	}
	assert_ok(ruv_gguf_get_array(g, "tokenizer.ggml.merges", &a, &err), err);
	assert_int_equal(a.n, 3);
	cursor = 0;
	assert_true(ruv_gguf_array_next_str(&a, &cursor, &s) && ruv_gguf_str_is(s, "h e"));
	assert_true(ruv_gguf_array_next_str(&a, &cursor, &s) && ruv_gguf_str_is(s, "l l"));
	assert_int_equal(key_u32(g, "tokenizer.ggml.bos_token_id"), 1);
	assert_int_equal(key_u32(g, "tokenizer.ggml.eos_token_id"), 4);
	assert_int_equal(key_u32(g, "tokenizer.ggml.eot_token_id"), 4);
	assert_int_equal(key_u32(g, "tokenizer.ggml.padding_token_id"), 0);
	assert_true(key_bool(g, "tokenizer.ggml.add_bos_token"));
	assert_true(key_is(g, "tokenizer.chat_template", "{{ bos_token }}hi"));
	ruv_gguf_free(g);

	/* add_bos from the post-processor, several templates, a template file that goes first. */
	json_object_del(hf.tokenizer_config, "add_bos_token");
	json_object_set_new(hf.tokenizer, "post_processor",
	                    json_pack("{s:s, s:[{s:{s:s}}]}", "type", "TemplateProcessing", "single", "Sequence", "id", "A"));
	json_object_set_new(
	    hf.tokenizer_config, "chat_template",
	    json_pack("[{s:s, s:s}, {s:s, s:s}]", "name", "default", "template", "D", "name", "tool_use", "template", "T"));
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_false(key_bool(g, "tokenizer.ggml.add_bos_token"));
	assert_true(key_is(g, "tokenizer.chat_template", "D"));
	assert_true(key_is(g, "tokenizer.chat_template.tool_use", "T"));
	ruv_gguf_free(g);
	json_object_set_new(
	    hf.tokenizer, "post_processor",
	    json_pack("{s:s, s:[{s:{s:s}}]}", "type", "TemplateProcessing", "single", "SpecialToken", "id", "<|startoftext|>"));
	assert_ok(ruv_file_write(tiny_hf_path(&hf, "chat_template.jinja"), "J", 1, &err), err);
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_bool(g, "tokenizer.ggml.add_bos_token"));
	assert_true(key_is(g, "tokenizer.chat_template", "J"));
	ruv_gguf_free(g);
	tiny_hf_release(&hf);

	/* vocab.json with merges.txt: Qwen's architecture says how it splits. */
	tiny_hf_init(&hf, "qwen2");
	json_t *model = json_object_get(hf.tokenizer, "model"), *vocab = json_object_get(model, "vocab");
	assert_int_equal(json_dump_file(vocab, tiny_hf_path(&hf, "vocab.json"), 0), 0);
	assert_ok(ruv_file_write(tiny_hf_path(&hf, "merges.txt"), "#version: 0.2\nh e\nl l\nll o\n", 28, &err), err);
	json_object_set_new(hf.tokenizer_config, "added_tokens_decoder",
	                    json_pack("{s:{s:s, s:b}, s:{s:s, s:b}}", "0", "content", "<|pad|>", "special", 1, "264", "content",
	                              "<tool_call>", "special", 0));
	json_decref(hf.tokenizer);
	hf.tokenizer = NULL;
	g = convert(&hf, RUV_RECIPE_BF16);
	assert_true(key_is(g, "tokenizer.ggml.pre", "qwen2"));
	assert_ok(ruv_gguf_get_array(g, "tokenizer.ggml.merges", &a, &err), err);
	assert_int_equal(a.n, 3);
	assert_ok(ruv_gguf_get_array(g, "tokenizer.ggml.token_type", &a, &err), err);
	assert_ok(ruv_gguf_array_i64(&a, 264, &type, &err), err);
	assert_int_equal(type, 4);
	ruv_gguf_free(g);
	unlink(tiny_hf_path(&hf, "vocab.json"));
	refused(&hf, RUV_ENOTFOUND, "tokenizer");
	tiny_hf_release(&hf);
}

static void what_cannot_be_converted_right_is_refused(void **state)
{
	tiny_hf hf;
	(void)state;

#define CONFIG_CASE(family, key, value, code, what)                                                                                \
	tiny_hf_init(&hf, family);                                                                                                 \
	json_object_set_new(hf.config, key, value);                                                                                \
	refused(&hf, code, what);                                                                                                  \
	tiny_hf_release(&hf)
	CONFIG_CASE("lfm2", "architectures", json_pack("[s]", "MambaForCausalLM"), RUV_EUNSUPPORTED, "MambaForCausalLM");
	CONFIG_CASE("lfm2", "architectures", json_null(), RUV_EFORMAT, "architectures");
	CONFIG_CASE("lfm2", "conv_bias", json_true(), RUV_EUNSUPPORTED, "conv_bias");
	CONFIG_CASE("lfm2", "hidden_size", json_integer(-1), RUV_EFORMAT, "hidden_size");
	CONFIG_CASE("lfm2", "hidden_size", json_integer(128), RUV_EFORMAT, "embed_tokens");
	CONFIG_CASE("lfm2", "num_hidden_layers", json_integer(2), RUV_EFORMAT, "layer_types");
	CONFIG_CASE("lfm2", "num_key_value_heads", json_integer(3), RUV_EFORMAT, "heads");
	CONFIG_CASE("lfm2", "block_ff_dim", json_integer(500), RUV_EFORMAT, "feed_forward");
	CONFIG_CASE("lfm2", "layer_types", json_pack("[s,s,s]", "conv", "full_attention", "mamba"), RUV_EUNSUPPORTED, "mamba");
	CONFIG_CASE("lfm2", "quantization_config", json_object(), RUV_EUNSUPPORTED, "quantization_config");
	CONFIG_CASE("qwen2", "hidden_act", json_string("gelu"), RUV_EUNSUPPORTED, "gelu");
	CONFIG_CASE("qwen2", "use_sliding_window", json_true(), RUV_EUNSUPPORTED, "use_sliding_window");
	CONFIG_CASE("qwen2", "rope_scaling", json_pack("{s:s, s:f}", "type", "dynamic", "factor", 2.0), RUV_EUNSUPPORTED,
	            "dynamic");
	CONFIG_CASE("llama", "attention_bias", json_true(), RUV_EUNSUPPORTED, "attention_bias");
	CONFIG_CASE("llama", "vocab_size", json_integer(200), RUV_EFORMAT, "embed_tokens");

	tiny_hf_init(&hf, "lfm2");
	tiny_hf_drop(&hf, "model.layers.1.self_attn.k_layernorm.weight");
	refused(&hf, RUV_EFORMAT, "k_layernorm");
	tiny_hf_release(&hf);
	tiny_hf_init(&hf, "lfm2");
	tiny_hf_add(&hf, "model.layers.0.mystery.weight", 1, 4, 0, 0);
	refused(&hf, RUV_EUNSUPPORTED, "mystery");
	tiny_hf_release(&hf);
	tiny_hf_init(&hf, "lfm2");
	json_decref(hf.config);
	hf.config = NULL;
	refused(&hf, RUV_ENOTFOUND, "config.json");
	tiny_hf_release(&hf);

	/* Tokenizers. */
#define TOKENIZER_CASE(path_a, key, value, code, what)                                                                             \
	tiny_hf_init(&hf, "lfm2");                                                                                                 \
	json_object_set_new(path_a, key, value);                                                                                   \
	refused(&hf, code, what);                                                                                                  \
	tiny_hf_release(&hf)
	json_t *split;
	tiny_hf_init(&hf, "lfm2");
	split = json_array_get(json_object_get(json_object_get(hf.tokenizer, "pre_tokenizer"), "pretokenizers"), 0);
	json_object_set_new(json_object_get(split, "pattern"), "Regex", json_string("\\w+"));
	refused(&hf, RUV_EUNSUPPORTED, "\\w+");
	tiny_hf_release(&hf);
	TOKENIZER_CASE(json_object_get(hf.tokenizer, "model"), "type", json_string("Unigram"), RUV_EUNSUPPORTED, "Unigram");
	TOKENIZER_CASE(json_object_get(hf.tokenizer, "model"), "byte_fallback", json_true(), RUV_EUNSUPPORTED, "byte_fallback");
	TOKENIZER_CASE(json_object_get(json_object_get(hf.tokenizer, "model"), "vocab"), "beyond", json_integer(300), RUV_EFORMAT,
	               "beyond");
	TOKENIZER_CASE(json_object_get(json_object_get(hf.tokenizer, "model"), "vocab"), "second", json_integer(7), RUV_EFORMAT,
	               "second");
	TOKENIZER_CASE(json_object_get(hf.tokenizer, "model"), "merges", json_pack("[s]", "one two three"), RUV_EFORMAT, "merge 0");
	TOKENIZER_CASE(hf.tokenizer, "normalizer", json_pack("{s:s}", "type", "Lowercase"), RUV_EUNSUPPORTED, "Lowercase");
	TOKENIZER_CASE(hf.tokenizer, "pre_tokenizer", json_pack("{s:s}", "type", "Metaspace"), RUV_EUNSUPPORTED, "Metaspace");

	/* A weight type that is none. */
	tiny_hf_init(&hf, "lfm2");
	tiny_hf_write(&hf);
	char *bytes, *at;
	size_t n;
	ruv_error err = {0};
	assert_ok(ruv_file_read(&bytes, &n, tiny_hf_path(&hf, "model.safetensors"), 1 << 24, &err), err);
	at = memmem(bytes, n, "BF16", 4);
	assert_non_null(at);
	memcpy(at, "I16\"", 4);
	at[4] = ' ';
	assert_ok(ruv_file_write(tiny_hf_path(&hf, "model.safetensors"), bytes, n, &err), err);
	free(bytes);
	const ruv_write_options options = {.recipe = RUV_RECIPE_BF16};
	assert_int_equal(ruv_model_write("/tmp/ruv-never.gguf", hf.dir, &options, NULL, &err), RUV_EUNSUPPORTED);
	assert_non_null(strstr(err.message, "I16"));
	tiny_hf_release(&hf);
}

static void models_are_found_by_path_and_in_the_cache(void **state)
{
	char hub[] = "/tmp/ruv-hub-XXXXXX", path[512], command[600], *found = NULL;
	ruv_error err = {0};
	(void)state;

	assert_non_null(mkdtemp(hub));
	snprintf(path, sizeof path, "%s/models--LiquidAI--LFM2-350M/snapshots/abc123", hub);
	assert_ok(ruv_dir_create(path, &err), err);
	setenv("HF_HUB_CACHE", hub, 1);
	assert_ok(ruv_model_find(&found, "LiquidAI/LFM2-350M", &err), err); /* without refs/main: the newest snapshot */
	assert_string_equal(found, path);
	free(found);
	snprintf(path, sizeof path, "%s/models--LiquidAI--LFM2-350M/refs", hub);
	assert_ok(ruv_dir_create(path, &err), err);
	snprintf(path, sizeof path, "%s/models--LiquidAI--LFM2-350M/refs/main", hub);
	assert_ok(ruv_file_write(path, "abc123\n", 7, &err), err);
	assert_ok(ruv_model_find(&found, "LiquidAI/LFM2-350M", &err), err);
	assert_non_null(strstr(found, "/snapshots/abc123"));
	free(found);
	assert_ok(ruv_model_find(&found, hub, &err), err);
	assert_string_equal(found, hub);
	free(found);
	assert_int_equal(ruv_model_find(&found, "LiquidAI/other", &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, hub));
	assert_non_null(strstr(err.message, "nothing is downloaded"));
	assert_int_equal(ruv_model_find(&found, "no/such/path", &err), RUV_ENOTFOUND);
	snprintf(command, sizeof command, "rm -rf %s", hub);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lfm2),
	    cmocka_unit_test(an_encoder),
	    cmocka_unit_test(qwen2_and_qwen3),
	    cmocka_unit_test(llama_rows_go_to_interleaved_order),
	    cmocka_unit_test(the_tokenizer),
	    cmocka_unit_test(what_cannot_be_converted_right_is_refused),
	    cmocka_unit_test(models_are_found_by_path_and_in_the_cache),
	};
	return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}

/* test_refuse.c - model files that are whole as GGUF but no model: each is refused with an error that names key or tensor, and none
 * crashes. The files are the fixtures with one thing changed. */
#include "base/rng.h"
#include "fixture.h"
#include "format/gguf_write.h"

static char temp[300];
static ruv_engine *engine;

static int setup(void **state)
{
	ruv_error err = {0};
	const char *dir = getenv("TMPDIR");
	(void)state;
	snprintf(temp, sizeof temp, "%s/ruv-refuse-%d.gguf", dir && *dir ? dir : "/tmp", (int)getpid());
	return ruv_engine_open(&engine, 1, &err);
}

static int teardown(void **state)
{
	(void)state;
	unlink(temp);
	ruv_engine_free(engine);
	return 0;
}

struct change {
	const char *drop_key, *drop_tensor, *retype_tensor, *reshape_tensor;
	const char *extra_tensor;
	void (*set)(ruv_gguf_writer *w);
};

/* Writes `from` with a change to the temporary file. */
static void rewrite(const ruv_gguf *from, const struct change *c)
{
	ruv_error err = {0};
	ruv_gguf_writer *w = NULL;
	assert_ok(ruv_gguf_writer_create(&w, &err), err);
	for (size_t i = 0; i < ruv_gguf_n_keys(from); i++) {
		const ruv_gguf_key *k = ruv_gguf_key_at(from, i);
		if (!c->drop_key || !ruv_gguf_str_is(k->name, c->drop_key))
			ruv_gguf_set_copy(w, k);
	}
	if (c->set)
		c->set(w);
	static const char zeros[1 << 16];
	const size_t n = ruv_gguf_n_tensors(from);
	for (size_t i = 0; i < n; i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(from, i);
		int64_t ne[4];
		memcpy(ne, t->ne, sizeof ne);
		if (c->drop_tensor && !strcmp(c->drop_tensor, t->name))
			continue;
		bool reshape = c->reshape_tensor && !strcmp(c->reshape_tensor, t->name);
		bool retype = c->retype_tensor && !strcmp(c->retype_tensor, t->name);
		ne[0] += reshape;
		ruv_gguf_add_tensor(w, t->name, retype ? (t->dtype == RUV_F32 ? RUV_F16 : RUV_I32) : (ruv_dtype)t->dtype, t->n_dims,
		                    ne);
	}
	if (c->extra_tensor)
		ruv_gguf_add_tensor(w, c->extra_tensor, RUV_F32, 1, (int64_t[]){8});
	assert_ok(ruv_gguf_writer_begin(w, temp, &err), err);
	for (size_t i = 0; i < n; i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(from, i);
		size_t n_bytes = t->n_bytes;
		if (c->drop_tensor && !strcmp(c->drop_tensor, t->name))
			continue;
		if (c->retype_tensor && !strcmp(c->retype_tensor, t->name))
			n_bytes = t->dtype == RUV_F32 ? n_bytes / 2 : n_bytes * 2;
		if (c->reshape_tensor && !strcmp(c->reshape_tensor, t->name))
			n_bytes += n_bytes / (size_t)t->ne[0];
		if (n_bytes == t->n_bytes)
			assert_ok(ruv_gguf_writer_data(w, t->data, n_bytes, &err), err);
		else
			for (size_t at = 0; at < n_bytes; at += sizeof zeros)
				assert_ok(
				    ruv_gguf_writer_data(w, zeros, n_bytes - at < sizeof zeros ? n_bytes - at : sizeof zeros, &err),
				    err);
	}
	if (c->extra_tensor)
		assert_ok(ruv_gguf_writer_data(w, zeros, 32, &err), err);
	assert_ok(ruv_gguf_writer_finish(w, &err), err);
	ruv_gguf_writer_free(w);
}

static int open_temp(ruv_error *err)
{
	ruv_model *model = NULL;
	int rc = ruv_model_open(&model, temp, &(ruv_model_options){.engine = engine}, err);
	assert_true((rc == RUV_OK) == (model != NULL));
	ruv_model_free(model);
	return rc;
}

static void expect_refusal(const ruv_gguf *from, const struct change *c, const char *name)
{
	ruv_error err = {0};
	rewrite(from, c);
	int rc = open_temp(&err);
	if (rc == RUV_OK || !strstr(err.message, name))
		fail_msg("expected a refusal naming '%s', got %d: %s", name, rc, err.message);
	assert_true(rc == RUV_EFORMAT || rc == RUV_EUNSUPPORTED || rc == RUV_ELIMIT);
}

static const char *const models[] = {"lfm2.gguf", "lfm2-encoder.gguf", "qwen2.gguf", "qwen3.gguf", "llama.gguf"};
enum { N_MODELS = sizeof models / sizeof *models };

/* Absent, they have a meaning of their own: tied head, no scaling, no head for embeddings. */
static bool may_be_absent(const char *name)
{
	return !strcmp(name, "output.weight") || !strcmp(name, "rope_freqs.weight") || !strcmp(name, "embedding_proj.bias") ||
	       !strcmp(name, "embedding_layer_norm.weight") || !strcmp(name, "embedding_proj.weight");
}

static void test_tensors(void **state)
{
	(void)state;
	int n_tried = 0;
	for (int m = 0; m < N_MODELS; m++) {
		ruv_error err = {0};
		ruv_gguf *from = NULL;
		assert_ok(ruv_gguf_open(&from, fixture_path(models[m]), 0, &err), err);
		rewrite(from, &(struct change){0}); /* unchanged, it opens */
		assert_ok(open_temp(&err), err);
		for (size_t i = 0; i < ruv_gguf_n_tensors(from); i++) {
			const char *name = ruv_gguf_tensor_at(from, i)->name;
			if (!may_be_absent(name))
				expect_refusal(from, &(struct change){.drop_tensor = name}, name);
			expect_refusal(from, &(struct change){.retype_tensor = name}, name);
			expect_refusal(from, &(struct change){.reshape_tensor = name},
			               strcmp(name, "embedding_proj.weight") ? name : "embedding_proj");
			n_tried += 3;
		}
		expect_refusal(from, &(struct change){.extra_tensor = "blk.0.attn_sinks.weight"}, "blk.0.attn_sinks.weight");
		expect_refusal(from, &(struct change){.extra_tensor = "dense_2.weight"}, "dense_2.weight");
		ruv_gguf_free(from);
	}
	print_message("%d changed tensors refused\n", n_tried);
}

#define SET(name, call)                                                                                                            \
	static void name(ruv_gguf_writer *w)                                                                                       \
	{                                                                                                                          \
		call;                                                                                                              \
	}
SET(arch_unknown, ruv_gguf_set_str(w, "general.architecture", "gpt-j"))
SET(type_adapter, ruv_gguf_set_str(w, "general.type", "adapter"))
SET(layers_zero, ruv_gguf_set_u32(w, "lfm2.block_count", 0))
SET(layers_many, ruv_gguf_set_u32(w, "lfm2.block_count", 1000000000))
SET(layers_text, ruv_gguf_set_str(w, "lfm2.block_count", "5"))
SET(layers_six, ruv_gguf_set_u32(w, "lfm2.block_count", 6))
SET(hidden_zero, ruv_gguf_set_u32(w, "lfm2.embedding_length", 0))
SET(hidden_huge, ruv_gguf_set_u64(w, "lfm2.embedding_length", UINT64_MAX))
SET(hidden_other, ruv_gguf_set_u32(w, "lfm2.embedding_length", 64))
SET(ffn_huge, ruv_gguf_set_u32(w, "lfm2.feed_forward_length", 4000000000u))
SET(ffn_other, ruv_gguf_set_u32(w, "lfm2.feed_forward_length", 47))
SET(context_zero, ruv_gguf_set_u32(w, "lfm2.context_length", 0))
SET(heads_zero, ruv_gguf_set_u32(w, "lfm2.attention.head_count", 0))
SET(heads_many, ruv_gguf_set_u32(w, "lfm2.attention.head_count", 32))
SET(kv_negative, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_I32, ((int32_t[]){0, -1, 0, 1, 0}), 5))
SET(kv_mixed, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_I32, ((int32_t[]){0, 1, 0, 2, 0}), 5))
SET(kv_three, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_I32, ((int32_t[]){0, 3, 0, 3, 0}), 5))
SET(kv_short, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_I32, ((int32_t[]){0, 1}), 2))
SET(kv_floats, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_F32, ((float[]){0, 1, 0, 1, 0}), 5))
SET(kv_number, ruv_gguf_set_u32(w, "lfm2.attention.head_count_kv", 1))
SET(kv_swapped, ruv_gguf_set_array(w, "lfm2.attention.head_count_kv", RUV_GGUF_I32, ((int32_t[]){1, 0, 0, 1, 0}), 5))
SET(eps_zero, ruv_gguf_set_f32(w, "lfm2.attention.layer_norm_rms_epsilon", 0))
SET(eps_nan, ruv_gguf_set_f32(w, "lfm2.attention.layer_norm_rms_epsilon", NAN))
SET(taps_four, ruv_gguf_set_u32(w, "lfm2.shortconv.l_cache", 4))
SET(vocab_other, ruv_gguf_set_u32(w, "lfm2.vocab_size", 299))
SET(theta_negative, ruv_gguf_set_f32(w, "lfm2.rope.freq_base", -1))
SET(rot_odd, ruv_gguf_set_u32(w, "lfm2.rope.dimension_count", 7))
SET(rot_wide, ruv_gguf_set_u32(w, "lfm2.rope.dimension_count", 64))
SET(scaling_unknown, ruv_gguf_set_str(w, "lfm2.rope.scaling.type", "longrope"))
SET(scaling_bare, ruv_gguf_set_str(w, "lfm2.rope.scaling.type", "yarn"))
SET(factor_nan, ruv_gguf_set_f32(w, "lfm2.rope.scaling.factor", NAN))
SET(pooling_rank, ruv_gguf_set_u32(w, "lfm2.pooling_type", 4))
SET(window, ruv_gguf_set_u32(w, "lfm2.attention.sliding_window", 128))
SET(value_other, ruv_gguf_set_u32(w, "lfm2.attention.value_length", 8))
SET(causal_text, ruv_gguf_set_str(w, "lfm2.attention.causal", "no"))
SET(pre_unknown, ruv_gguf_set_str(w, "tokenizer.ggml.pre", "martian"))
SET(model_spm, ruv_gguf_set_str(w, "tokenizer.ggml.model", "llama"))
SET(eos_outside, ruv_gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 5000))
SET(types_short, ruv_gguf_set_array(w, "tokenizer.ggml.token_type", RUV_GGUF_I32, ((int32_t[]){1, 2}), 2))
SET(merges_bad, ruv_gguf_set_array(w, "tokenizer.ggml.merges", RUV_GGUF_I32, ((int32_t[]){1, 2}), 2))
SET(prefix_number, ruv_gguf_set_u32(w, "ruvllm.embed.query_prefix", 2))
SET(dimension_other, ruv_gguf_set_u32(w, "ruvllm.embed.dimension", 384))
SET(temp_negative, ruv_gguf_set_f32(w, "general.sampling.temp", -2))

static void test_keys(void **state)
{
	(void)state;
	static const struct {
		void (*set)(ruv_gguf_writer *w);
		const char *name;
	} sets[] = {{arch_unknown, "gpt-j"},
	            {type_adapter, "general.type"},
	            {layers_zero, "lfm2.block_count"},
	            {layers_many, "lfm2.block_count"},
	            {layers_text, "lfm2.block_count"},
	            {layers_six, "head_count_kv"},
	            {hidden_zero, "lfm2.embedding_length"},
	            {hidden_huge, "lfm2.embedding_length"},
	            {hidden_other, "token_embd.weight"},
	            {ffn_huge, "lfm2.feed_forward_length"},
	            {ffn_other, "ffn_"},
	            {context_zero, "lfm2.context_length"},
	            {heads_zero, "head_count"},
	            {heads_many, "head"},
	            {kv_negative, "head_count_kv"},
	            {kv_mixed, "head_count_kv"},
	            {kv_three, "head"},
	            {kv_short, "head_count_kv"},
	            {kv_floats, "head_count_kv"},
	            {kv_number, "head_count_kv"},
	            {kv_swapped, "blk.0."},
	            {eps_zero, "epsilon"},
	            {eps_nan, "epsilon"},
	            {taps_four, "l_cache"},
	            {vocab_other, "vocab_size"},
	            {theta_negative, "freq_base"},
	            {rot_odd, "dimension_count"},
	            {rot_wide, "dimension_count"},
	            {scaling_unknown, "longrope"},
	            {scaling_bare, "original_context_length"},
	            {factor_nan, "rope.scaling.factor"},
	            {pooling_rank, "pooling_type"},
	            {window, "sliding_window"},
	            {value_other, "values"},
	            {causal_text, "causal"},
	            {pre_unknown, "martian"},
	            {model_spm, "tokenizer.ggml.model"},
	            {eos_outside, "eos_token_id"},
	            {types_short, "token_type"},
	            {merges_bad, "merges"},
	            {prefix_number, "query_prefix"},
	            {dimension_other, "ruvllm.embed.dimension"},
	            {temp_negative, "general.sampling.temp"}};
	static const char *const required[] = {"general.architecture",         "lfm2.block_count",
	                                       "lfm2.context_length",          "lfm2.embedding_length",
	                                       "lfm2.feed_forward_length",     "lfm2.attention.head_count",
	                                       "lfm2.attention.head_count_kv", "lfm2.attention.layer_norm_rms_epsilon",
	                                       "lfm2.shortconv.l_cache",       "tokenizer.ggml.tokens",
	                                       "tokenizer.ggml.merges",        "tokenizer.ggml.pre"};
	ruv_error err = {0};
	ruv_gguf *from = NULL;
	assert_ok(ruv_gguf_open(&from, fixture_path("lfm2.gguf"), 0, &err), err);
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		expect_refusal(from, &(struct change){.set = sets[i].set}, sets[i].name);
	for (size_t i = 0; i < sizeof required / sizeof *required; i++)
		expect_refusal(from, &(struct change){.drop_key = required[i]}, required[i]);
	ruv_gguf_free(from);
	ruv_model *model = NULL;
	assert_int_equal(ruv_model_open(&model, "/no/such/file.gguf", NULL, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "/no/such/file.gguf"));
	assert_int_equal(ruv_model_open(&model, "", NULL, &err), RUV_EINVAL);
}

/* Bytes changed anywhere in header and tables: an error or a model that runs, never a crash. */
static void test_random_bytes(void **state)
{
	(void)state;
	ruv_rng rng;
	ruv_rng_init(&rng, 77);
	int n_opened = 0;
	for (int m = 0; m < N_MODELS; m++) {
		FILE *f = fopen(fixture_path(models[m]), "rb");
		assert_non_null(f);
		static unsigned char bytes[1 << 18], changed[1 << 18];
		const size_t n = fread(bytes, 1, sizeof bytes, f);
		fclose(f);
		for (int i = 0; i < 120; i++) {
			memcpy(changed, bytes, n);
			for (int k = 0; k < 1 + i % 3; k++)
				changed[ruv_rng_below(&rng, i % 4 ? 1600 : 16000)] = (unsigned char)ruv_rng_u64(&rng);
			f = fopen(temp, "wb");
			assert_int_equal(fwrite(changed, 1, n, f), n);
			fclose(f);
			ruv_error err = {0};
			ruv_model *model = NULL;
			int rc = ruv_model_open(&model, temp, &(ruv_model_options){.engine = engine, .n_batch = 8}, &err);
			if (rc) {
				assert_true(err.message[0] != 0);
				continue;
			}
			n_opened++;
			ruv_model_info info;
			ruv_session *s = NULL;
			ruv_model_get_info(model, &info);
			if (!info.is_encoder && ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = 1}, &err) == RUV_OK)
				assert_ok(ruv_session_decode(s, 3, &err), err);
			ruv_session_free(s);
			ruv_model_free(model);
		}
	}
	print_message("%d of %d still opened\n", n_opened, N_MODELS * 120);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_tensors), cmocka_unit_test(test_keys),
	                                   cmocka_unit_test(test_random_bytes)};
	return cmocka_run_group_tests(tests, setup, teardown);
}

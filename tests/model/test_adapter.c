/* test_adapter.c - an adapter gives what the model with its product merged into the weights gives; malformed adapters are refused.
 */
#include "base/rng.h"
#include "fixture.h"
#include "format/gguf_write.h"
#include "model/adapter.h"
#include "tensor/quant.h"

static char merged_path[300], adapter_path[300];

static int setup(void **state)
{
	const char *dir = getenv("TMPDIR");
	(void)state;
	dir = dir && *dir ? dir : "/tmp";
	snprintf(merged_path, sizeof merged_path, "%s/ruv-merged-%d.gguf", dir, (int)getpid());
	snprintf(adapter_path, sizeof adapter_path, "%s/ruv-adapter-%d.gguf", dir, (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(merged_path);
	unlink(adapter_path);
	return 0;
}

static bool adaptable(const char *name)
{
	return strncmp(name, "blk.", 4) == 0 && !strstr(name, "norm") && !strstr(name, "bias") && !strstr(name, "shortconv.conv.");
}

/* Writes a random adapter for every second matrix, and the model with it merged in at scale * alpha / rank. */
static void write_both(const ruv_gguf *base, const char *arch, int rank, float alpha, float scale)
{
	ruv_error err = {0};
	ruv_rng rng;
	ruv_gguf_writer *m = NULL, *a = NULL;
	ruv_rng_init(&rng, 7);
	assert_ok(ruv_gguf_writer_create(&m, &err), err);
	assert_ok(ruv_gguf_writer_create(&a, &err), err);
	for (size_t i = 0; i < ruv_gguf_n_keys(base); i++)
		ruv_gguf_set_copy(m, ruv_gguf_key_at(base, i));
	ruv_gguf_set_str(a, "general.type", "adapter");
	ruv_gguf_set_str(a, "general.architecture", arch);
	ruv_gguf_set_str(a, "adapter.type", "lora");
	ruv_gguf_set_f32(a, "adapter.lora.alpha", alpha);
	const size_t n = ruv_gguf_n_tensors(base);
	int count = 0;
	for (size_t i = 0; i < n; i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(base, i);
		char name[80];
		ruv_gguf_add_tensor(m, t->name, RUV_F32, t->n_dims, t->ne);
		if (!adaptable(t->name) || count++ % 2)
			continue;
		snprintf(name, sizeof name, "%s.lora_a", t->name);
		ruv_gguf_add_tensor(a, name, RUV_F32, 2, (int64_t[]){t->ne[0], rank});
		snprintf(name, sizeof name, "%s.lora_b", t->name);
		ruv_gguf_add_tensor(a, name, RUV_F32, 2, (int64_t[]){rank, t->ne[1]});
	}
	assert_true(count > 10);
	assert_ok(ruv_gguf_writer_begin(m, merged_path, &err), err);
	assert_ok(ruv_gguf_writer_begin(a, adapter_path, &err), err);
	count = 0;
	for (size_t i = 0; i < n; i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(base, i);
		const int64_t n_in = t->ne[0], n_out = t->ne[1];
		float *w = malloc((size_t)(n_in * n_out) * sizeof *w);
		for (int64_t r = 0; r < n_out; r++)
			assert_int_equal(
			    ruv_dequantize_row(w + r * n_in, (ruv_dtype)t->dtype,
			                       (const char *)t->data + (size_t)r * ruv_dtype_row_bytes((ruv_dtype)t->dtype, n_in),
			                       n_in),
			    RUV_OK);
		if (adaptable(t->name) && count++ % 2 == 0) {
			float *la = malloc((size_t)(n_in * rank) * sizeof *la), *lb = malloc((size_t)(n_out * rank) * sizeof *lb);
			for (int64_t k = 0; k < n_in * rank; k++)
				la[k] = (float)(0.2 * ruv_rng_normal(&rng));
			for (int64_t k = 0; k < n_out * rank; k++)
				lb[k] = (float)(0.2 * ruv_rng_normal(&rng));
			assert_ok(ruv_gguf_writer_data(a, la, (size_t)(n_in * rank) * sizeof *la, &err), err);
			assert_ok(ruv_gguf_writer_data(a, lb, (size_t)(n_out * rank) * sizeof *lb, &err), err);
			for (int64_t r = 0; r < n_out; r++)
				for (int64_t c = 0; c < n_in; c++) {
					double sum = 0;
					for (int k = 0; k < rank; k++)
						sum += (double)lb[r * rank + k] * la[k * n_in + c];
					w[r * n_in + c] += (float)(sum * scale * alpha / rank);
				}
			free(la);
			free(lb);
		}
		assert_ok(ruv_gguf_writer_data(m, w, (size_t)(n_in * n_out) * sizeof *w, &err), err);
		free(w);
	}
	assert_ok(ruv_gguf_writer_finish(m, &err), err);
	assert_ok(ruv_gguf_writer_finish(a, &err), err);
	ruv_gguf_writer_free(m);
	ruv_gguf_writer_free(a);
}

static void test_as_merged(void **state)
{
	(void)state;
	static const struct {
		const char *file, *arch;
		int rank;
	} cases[] = {{"lfm2.gguf", "lfm2", 4}, {"qwen2.gguf", "qwen2", 1}, {"llama.gguf", "llama", 7}};
	enum { N = 90 };
	for (size_t c = 0; c < 3; c++) {
		ruv_error err = {0};
		ruv_gguf *base = NULL;
		assert_ok(ruv_gguf_open(&base, fixture_path(cases[c].file), 0, &err), err);
		write_both(base, cases[c].arch, cases[c].rank, 3, 0.5f);
		ruv_gguf_free(base);
		ruv_model *model = fixture_model(cases[c].file, 32), *merged = NULL;
		assert_ok(ruv_model_open(&merged, merged_path, &(ruv_model_options){.n_threads = 1}, &err), err);
		ruv_adapter *adapter = NULL;
		assert_ok(ruv_adapter_open(&adapter, model, adapter_path, 0.5f, &err), err);
		assert_int_equal(ruv_adapter_rank(adapter), cases[c].rank);
		ruv_session *s = fixture_session(model, 128, RUV_KV_F32), *plain = fixture_session(model, 128, RUV_KV_F32),
			    *want = fixture_session(merged, 128, RUV_KV_F32), *fork = NULL;
		ruv_token ids[N];
		for (int i = 0; i < N; i++)
			ids[i] = 10 + i * 13 % 260;
		assert_ok(ruv_session_prefill(s, ids, 20, NULL, &err), err);
		assert_ok(ruv_session_set_adapter(s, adapter, &err), err);
		assert_int_equal(ruv_session_position(s), 0); /* what was there came without it */
		assert_int_equal(ruv_session_set_adapter(want, adapter, &err), RUV_EMISMATCH);
		ruv_adapter_free(adapter); /* the session keeps it */
		const int n_vocab = model->hp.n_vocab;
		for (int i = 0; i < N; i += 15) { /* in turns with a session that has none */
			assert_ok(ruv_session_prefill(s, ids + i, 14, NULL, &err), err);
			assert_ok(ruv_session_prefill(plain, ids + i, 15, NULL, &err), err);
			assert_ok(ruv_session_decode(s, ids[i + 14], &err), err);
			assert_ok(ruv_session_prefill(want, ids + i, 15, NULL, &err), err);
			assert_close(ruv_session_logits(s), ruv_session_logits(want), n_vocab, 2e-5);
			assert_true(difference(ruv_session_logits(s), ruv_session_logits(plain), n_vocab) > 1e-2);
		}
		assert_ok(ruv_session_fork(&fork, s, &err), err);
		assert_ok(ruv_session_truncate(fork, 50, &err), err);
		assert_ok(ruv_session_truncate(want, 50, &err), err);
		assert_ok(ruv_session_decode(fork, 77, &err), err);
		assert_ok(ruv_session_decode(want, 77, &err), err);
		assert_close(ruv_session_logits(fork), ruv_session_logits(want), n_vocab, 2e-5);
		/* a file saved with the adapter is no use without it */
		assert_ok(ruv_session_save(s, merged_path, &err), err);
		assert_int_equal(ruv_session_restore(plain, merged_path, &err), RUV_EMISMATCH);
		assert_ok(ruv_session_restore(fork, merged_path, &err), err);
		assert_ok(ruv_session_set_adapter(s, NULL, &err), err);
		assert_ok(ruv_session_prefill(s, ids, N, NULL, &err), err);
		assert_close(ruv_session_logits(s), ruv_session_logits(plain), n_vocab, 2e-5);
		ruv_session_free(s);
		ruv_session_free(fork);
		ruv_session_free(plain);
		ruv_session_free(want);
		ruv_model_free(model);
		ruv_model_free(merged);
	}
}

struct bad {
	const char *type, *kind, *arch, *names[3];
	int64_t ne[3][2];
	bool no_alpha;
	int status;
	const char *says;
};

static void test_refusals(void **state)
{
	(void)state;
#define Q "blk.1.attn_q.weight"
	static const struct bad cases[] = {
	    {"model", "lora", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {2, 32}}, false, RUV_EUNSUPPORTED, "general.type"},
	    {"adapter", "control", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {2, 32}}, false, RUV_EUNSUPPORTED, "control"},
	    {"adapter", "lora", "qwen2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {2, 32}}, false, RUV_EMISMATCH, "qwen2"},
	    {"adapter", "lora", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {2, 32}}, true, RUV_EFORMAT, "alpha"},
	    {"adapter", "lora", "lfm2", {Q ".lora_a"}, {{32, 2}}, false, RUV_EFORMAT, Q ".lora_b"},
	    {"adapter", "lora", "lfm2", {Q ".lora_b"}, {{2, 32}}, false, RUV_EFORMAT, Q ".lora_a"},
	    {"adapter",
	     "lora",
	     "lfm2",
	     {Q ".lora_a", Q ".lora_b", Q ".lora_mid"},
	     {{32, 2}, {2, 32}, {2, 2}},
	     false,
	     RUV_EUNSUPPORTED,
	     "lora_mid"},
	    {"adapter", "lora", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{31, 2}, {2, 32}}, false, RUV_EMISMATCH, Q},
	    {"adapter", "lora", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {3, 32}}, false, RUV_EMISMATCH, Q},
	    {"adapter", "lora", "lfm2", {Q ".lora_a", Q ".lora_b"}, {{32, 2}, {2, 31}}, false, RUV_EMISMATCH, Q},
	    {"adapter",
	     "lora",
	     "lfm2",
	     {"blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"},
	     {{32, 2}, {2, 32}},
	     false,
	     RUV_EMISMATCH,
	     "blk.0.attn_q"},
	    {"adapter",
	     "lora",
	     "lfm2",
	     {"blk.9.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_b"},
	     {{32, 2}, {2, 32}},
	     false,
	     RUV_EUNSUPPORTED,
	     "blk.9.attn_q"},
	    {"adapter",
	     "lora",
	     "lfm2",
	     {"token_embd.weight.lora_a", "token_embd.weight.lora_b"},
	     {{32, 2}, {2, 300}},
	     false,
	     RUV_EUNSUPPORTED,
	     "token_embd"},
	    {"adapter", "lora", "lfm2", {NULL}, {{0}}, false, RUV_EFORMAT, "no tensor"},
	};
	ruv_model *model = fixture_model("lfm2.gguf", 32);
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		const struct bad *bad = &cases[c];
		static const float zeros[4096];
		ruv_error err = {0};
		ruv_gguf_writer *w = NULL;
		ruv_adapter *adapter = NULL;
		assert_ok(ruv_gguf_writer_create(&w, &err), err);
		ruv_gguf_set_str(w, "general.type", bad->type);
		ruv_gguf_set_str(w, "general.architecture", bad->arch);
		ruv_gguf_set_str(w, "adapter.type", bad->kind);
		if (!bad->no_alpha)
			ruv_gguf_set_f32(w, "adapter.lora.alpha", 2);
		for (int i = 0; i < 3 && bad->names[i]; i++)
			ruv_gguf_add_tensor(w, bad->names[i], RUV_F32, 2, bad->ne[i]);
		assert_ok(ruv_gguf_writer_begin(w, adapter_path, &err), err);
		for (int i = 0; i < 3 && bad->names[i]; i++)
			assert_ok(ruv_gguf_writer_data(w, zeros, (size_t)(bad->ne[i][0] * bad->ne[i][1]) * 4, &err), err);
		assert_ok(ruv_gguf_writer_finish(w, &err), err);
		ruv_gguf_writer_free(w);
		int rc = ruv_adapter_open(&adapter, model, adapter_path, 1, &err);
		if (rc != bad->status || !strstr(err.message, bad->says))
			fail_msg("case %zu: %d, %s", c, rc, err.message);
		assert_null(adapter);
	}
	ruv_model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_merged), cmocka_unit_test(test_refusals)};
	return cmocka_run_group_tests(tests, setup, teardown);
}

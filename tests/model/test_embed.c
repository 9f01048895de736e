/* test_embed.c - embeddings: an encoder's against its float64 reference, and that batching does not matter. */
#include "fixture.h"

static double dot(const float *a, const float *b, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

static void test_reference(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_gguf *ref = NULL;
	int64_t n, n_ref;
	assert_ok(ruv_gguf_open(&ref, fixture_path("lfm2-encoder.ref.gguf"), 0, &err), err);
	const ruv_token *ids = ref_data(ref, "ids", &n);
	const float *want = ref_data(ref, "embedding", &n_ref);
	ruv_model *model = fixture_model("lfm2-encoder.gguf", 16);
	ruv_embedder *e = NULL;
	assert_ok(ruv_embedder_open(&e, model, 0, &err), err);
	const int dim = ruv_embedder_dim(e);
	assert_int_equal(dim, 20);
	assert_int_equal(n_ref, dim);
	assert_int_equal(ruv_embedder_n_ctx(e), 512);
	float got[20];
	assert_ok(ruv_embedder_embed_tokens(e, ids, (int)n, got, &err), err);
	print_message("encoder: %.1e\n", difference(got, want, dim));
	assert_close(got, want, dim, 1e-5);
	assert_true(fabs(dot(got, got, dim) - 1) < 1e-5);
	ruv_model_info info;
	ruv_model_get_info(model, &info);
	assert_true(info.is_encoder);
	assert_int_equal(info.embedding_dim, 20);
	assert_string_equal(info.query_prefix, "query: ");
	ruv_model_free(model); /* the embedder keeps it */
	assert_ok(ruv_embedder_embed_tokens(e, ids, 1, got, &err), err);
	ruv_embedder_free(e);
	ruv_gguf_free(ref);
}

static void test_batches(void **state)
{
	(void)state;
	static const char *const models[] = {"lfm2-encoder.gguf", "lfm2.gguf", "qwen2.gguf"};
	enum { N = 70 };
	ruv_error err = {0};
	char text[N][160];
	const char *texts[N];
	for (int i = 0; i < N; i++) {
		int len = 1 + (i * 53) % 140;
		for (int k = 0; k < len; k++)
			text[i][k] = (char)('a' + (i * 7 + k * k) % 26);
		text[i][len] = 0;
		texts[i] = text[i];
	}
	for (int m = 0; m < 3; m++) {
		ruv_model *model = fixture_model(models[m], 32);
		ruv_embedder *e = NULL;
		assert_ok(ruv_embedder_open(&e, model, 0, &err), err);
		const int dim = ruv_embedder_dim(e);
		float *all = malloc((size_t)N * (size_t)dim * sizeof *all), *one = malloc((size_t)dim * sizeof *one);
		assert_ok(ruv_embedder_embed(e, texts, N, RUV_EMBED_PASSAGE, all, NULL, &err), err);
		for (int i = 0; i < N; i++) {
			assert_ok(ruv_embedder_embed(e, &texts[i], 1, RUV_EMBED_PASSAGE, one, NULL, &err), err);
			assert_true(dot(one, all + i * dim, dim) > 1 - 1e-5);
		}
		/* the prefixes make a difference where the model has them, and none elsewhere */
		assert_ok(ruv_embedder_embed(e, texts, 1, RUV_EMBED_QUERY, one, NULL, &err), err);
		assert_int_equal(dot(one, all, dim) < 1 - 1e-4, m == 0);
		/* a generator beside it on the same model does not disturb it */
		if (m > 0) {
			ruv_session *s = fixture_session(model, 64, RUV_KV_F32);
			const ruv_token ids[] = {11, 12, 13};
			assert_ok(ruv_session_prefill(s, ids, 3, NULL, &err), err);
			assert_ok(ruv_embedder_embed(e, texts, 1, RUV_EMBED_PASSAGE, one, NULL, &err), err);
			assert_true(dot(one, all, dim) > 1 - 1e-5);
			ruv_session_free(s);
		}
		free(all);
		free(one);
		ruv_embedder_free(e);
		ruv_model_free(model);
	}
}

static void test_too_long(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_model *model = fixture_model("lfm2-encoder.gguf", 32);
	ruv_embedder *e = NULL;
	float v[40];
	assert_int_equal(ruv_embedder_open(&e, model, 513, &err), RUV_EINVAL);
	assert_ok(ruv_embedder_open(&e, model, 50, &err), err);
	const char *const texts[] = {"abc", "xyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyz"};
	assert_int_equal(ruv_embedder_count(e, texts[1], strlen(texts[1]), RUV_EMBED_PLAIN, &err), 43);
	assert_int_equal(ruv_embedder_count(e, texts[1], strlen(texts[1]), RUV_EMBED_PASSAGE, &err), 43 + 9);
	v[0] = 77;
	assert_int_equal(ruv_embedder_embed(e, texts, 2, RUV_EMBED_PASSAGE, v, NULL, &err), RUV_ECONTEXT);
	assert_true(v[0] == 77);
	assert_non_null(strstr(err.message, "52"));
	assert_non_null(strstr(err.message, "50"));
	assert_int_equal(ruv_embedder_embed(e, texts, 0, RUV_EMBED_PASSAGE, v, NULL, &err), RUV_EINVAL);
	ruv_token ids[60] = {0};
	assert_int_equal(ruv_embedder_embed_tokens(e, ids, 51, v, &err), RUV_ECONTEXT);
	ids[0] = 300;
	assert_int_equal(ruv_embedder_embed_tokens(e, ids, 5, v, &err), RUV_EINVAL);
	ruv_cancel cancel = {1};
	assert_int_equal(ruv_embedder_embed(e, texts, 1, RUV_EMBED_PASSAGE, v, &cancel, &err), RUV_ECANCELLED);
	ruv_embedder_free(e);
	ruv_model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_batches),
	                                   cmocka_unit_test(test_too_long)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

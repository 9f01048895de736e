/* test_vocab.c - vocabulary, encoding and decoding against the ids of other implementations. */
#include <jansson.h>

#include "base/clock.h"
#include "base/rng.h"
#include "text/pretokenize.h"
#include "text/unicode.h"
#include "vocab_fixture.h"

enum { N_GOLDEN = 486 };

static ruv_vocab *qwen, *gpt2, *lfm2;

static int setup(void **state)
{
	(void)state;
	qwen = fixture_vocab("qwen2", NULL);
	gpt2 = fixture_vocab("gpt-2", NULL);
	lfm2 = fixture_vocab("qwen2", "lfm2");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ruv_vocab_free(qwen);
	ruv_vocab_free(gpt2);
	ruv_vocab_free(lfm2);
	return 0;
}

static void check_ids(const ruv_vocab *vocab, const char *text, size_t len, int flags, const ruv_token *ids, size_t n)
{
	ruv_tokens tokens = {0};
	ruv_error err = {0};
	size_t i;

	assert_ok(ruv_vocab_encode(vocab, text, len, flags, &tokens, &err), err);
	for (i = 0; i < n || i < tokens.n; i++)
		if (i >= n || i >= tokens.n || tokens.ids[i] != ids[i])
			fail_msg("'%.*s': id %zu of %zu is %d, %d of %zu expected", (int)len, text, i, tokens.n,
				 i < tokens.n ? (int)tokens.ids[i] : -1, i < n ? (int)ids[i] : -1, n);
	ruv_tokens_release(&tokens);
}

#define CHECK_IDS(vocab, text, flags, ...)                                                                                     \
	do {                                                                                                                   \
		const ruv_token ids_[] = {__VA_ARGS__};                                                                        \
		check_ids(vocab, text, strlen(text), flags, ids_, sizeof ids_ / sizeof *ids_);                                 \
	} while (0)

/* A file of {"text": ..., "ids": [...]} lines. */
static size_t check_vectors(const ruv_vocab *vocab, const char *file)
{
	char path[512], *line = NULL;
	size_t cap = 0, n = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/tokenizer/%s", RUV_TEST_DATA, file);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s is missing", path);
	while (getline(&line, &cap, f) > 0) {
		json_error_t at;
		json_t *row = json_loads(line, JSON_ALLOW_NUL, &at), *text, *ids;
		ruv_token *expected;
		ruv_buf back;
		ruv_error err = {0};
		size_t i;

		if (!row)
			fail_msg("%s:%zu: %s", path, n + 1, at.text);
		text = json_object_get(row, "text");
		ids = json_object_get(row, "ids");
		expected = calloc(json_array_size(ids) + 1, sizeof *expected);
		for (i = 0; i < json_array_size(ids); i++)
			expected[i] = (ruv_token)json_integer_value(json_array_get(ids, i));
		check_ids(vocab, json_string_value(text), json_string_length(text), RUV_ENCODE_SPECIAL, expected, i);
		if (vocab == gpt2 || vocab == lfm2) { /* without NFC, decoding gives the text back */
			ruv_buf_init(&back, 1 << 20);
			assert_ok(ruv_vocab_decode(vocab, expected, i, false, &back, &err), err);
			assert_int_equal(back.len, json_string_length(text));
			assert_memory_equal(ruv_buf_cstr(&back), json_string_value(text), back.len);
			ruv_buf_release(&back);
		}
		free(expected);
		json_decref(row);
		n++;
	}
	free(line);
	fclose(f);
	return n;
}

static void test_llama_cpp_vectors(void **state)
{
	ruv_vocab *r1 = fixture_vocab("qwen2", "deepseek-r1-qwen");

	(void)state;
	assert_int_equal(check_vectors(qwen, "qwen2.vectors.jsonl"), 47);
	assert_int_equal(check_vectors(gpt2, "gpt-2.vectors.jsonl"), 47);
	assert_int_equal(check_vectors(r1, "deepseek-r1-qwen.vectors.jsonl"), 47);
	ruv_vocab_free(r1);
}

static void test_hugging_face_golden(void **state)
{
	(void)state;
	assert_int_equal(check_vectors(qwen, "qwen2.golden.jsonl"), N_GOLDEN);
	assert_int_equal(check_vectors(lfm2, "lfm2-pattern.golden.jsonl"), N_GOLDEN);
}

static void test_known(void **state)
{
	(void)state;
	CHECK_IDS(qwen, "Hello, world", 0, 9707, 11, 1879);
	CHECK_IDS(qwen, "<|im_start|>", RUV_ENCODE_SPECIAL, 151644);
	CHECK_IDS(qwen, "", RUV_ENCODE_SPECIAL, );
	CHECK_IDS(qwen, "<|im_end|><|endoftext|>", RUV_ENCODE_SPECIAL, 151645, 151643);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_llama_cpp_vectors),
	    cmocka_unit_test(test_hugging_face_golden),
	    cmocka_unit_test(test_known),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}

/* test_bundled_vocab.c - the vocabulary inside the bundled model files against Hugging Face's encoding with their tokenizer.json.
 */
#include <glob.h>
#include <jansson.h>

#include "test.h"
#include "ruvllm/model.h"

static void check_model(const char *path)
{
	ruv_model_options options = {.vocab_only = true};
	ruv_model *model = NULL;
	ruv_error err = {0};
	char *line = NULL;
	size_t cap = 0, n = 0;
	FILE *f = fopen(RUV_TEST_DATA "/tokenizer/bundled.golden.jsonl", "r");

	assert_non_null(f);
	assert_ok(ruv_model_open(&model, path, &options, &err), err);
	assert_int_equal(ruv_model_token_bos(model), 1);
	assert_true(ruv_model_token_is_end(model, 7) && ruv_model_token_is_end(model, 2));
	while (getline(&line, &cap, f) > 0) {
		json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL), *text = json_object_get(row, "text"),
		       *ids = json_object_get(row, "ids");
		ruv_token_list tokens = {0};
		int i;

		assert_ok(ruv_model_tokenize(model, json_string_value(text), json_string_length(text), RUV_TOKENIZE_SPECIAL,
		                             &tokens, &err),
		          err);
		for (i = 0; i < tokens.n || i < (int)json_array_size(ids); i++)
			if (i >= tokens.n || i >= (int)json_array_size(ids) ||
			    tokens.ids[i] != json_integer_value(json_array_get(ids, (size_t)i)))
				fail_msg("%s, text %zu: token %d differs", path, n, i);
		ruv_token_list_release(&tokens);
		json_decref(row);
		n++;
	}
	assert_int_equal(n, 486);
	free(line);
	fclose(f);
	ruv_model_free(model);
}

static void test_models(void **state)
{
	glob_t found;
	size_t i;

	(void)state;
	assert_int_equal(glob(RUV_SOURCE_DIR "/models/*.gguf", 0, NULL, &found), 0);
	for (i = 0; i < found.gl_pathc; i++)
		check_model(found.gl_pathv[i]);
	globfree(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_models)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

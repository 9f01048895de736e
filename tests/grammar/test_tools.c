/* test_tools.c - forced tool calls on a model with the notation: whatever is allowed is read back as a call that follows the tool's
 * schema. */
#include "test.h"

#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "check.h"
#include "format/gguf_write.h"
#include "ruvllm/tools.h"

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{"
    "\"type\":"
    "\"string\",\"maxLength\":12},\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9},\"units\":{\"enum\":[\"C\",\"F\"]}},"
    "\"required\":[\"city\"]}}},{\"name\":\"now\"},{\"name\":\"notes.add\",\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"tags\":{"
    "\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":5},\"maxItems\":2},\"done\":{\"type\":\"boolean\"},\"x\":{"
    "\"type\":"
    "\"object\",\"properties\":{\"k\":{\"type\":\"null\"}}}},\"required\":[\"tags\",\"done\"]}}]";
static const char odd_tools[] =
    "[{\"name\":\"odd\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a-b\":{\"type\":\"integer\","
    "\"minimum\":0,\"maximum\":5}},\"required\":[\"a-b\"]}},{\"name\":\"f\"}]";

typedef struct heard {
	json_t *list; /* tools */
	int n_calls, n_text, n_broken;
} heard;

static bool on_event(void *user, const ruv_tool_event *event)
{
	heard *h = user;
	json_t *tool, *arguments;
	size_t i;
	bool good = false;

	h->n_text += event->kind == RUV_TOOL_TEXT;
	h->n_broken += event->kind == RUV_TOOL_BROKEN;
	if (event->kind != RUV_TOOL_END)
		return true;
	h->n_calls++;
	arguments = json_loadb(event->text, event->n_bytes, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(arguments);
	json_array_foreach(h->list, i, tool)
	{
		json_t *function = json_object_get(tool, "function") ? json_object_get(tool, "function") : tool;
		json_t *parameters = json_object_get(function, "parameters");

		if (!strcmp(json_string_value(json_object_get(function, "name")), event->name))
			good = parameters ? check_schema(parameters, parameters, arguments) : json_object_size(arguments) == 0;
	}
	if (!good)
		fail_msg("call %s with %s", event->name, event->text);
	json_decref(arguments);
	return true;
}

/* Random tokens under the grammar, through the stream. */
static void force(ruv_model *model, const char *list, const char *name, bool parallel, int n_walks)
{
	ruv_grammar *g = NULL;
	ruv_error err = {0};
	ruv_model_info info;
	ruv_rng rng;
	heard h = {.list = json_loads(list, 0, NULL)};

	ruv_rng_init(&rng, 3);
	ruv_model_get_info(model, &info);
	const size_t n_words = ((size_t)info.n_tokens + 63) / 64;
	uint64_t *bits = malloc(n_words * sizeof *bits);
	assert_ok(ruv_tools_grammar(&g, model, list, name, parallel, &err), err);
	for (int k = 0; k < n_walks; k++) {
		ruv_tool_stream *stream = NULL;
		ruv_constraint c;
		const int before = h.n_calls;
		bool ended = false;

		assert_ok(ruv_tool_stream_open(&stream, model, on_event, &h, &err), err);
		assert_ok(ruv_grammar_constrain(g, &c, &err), err);
		for (int i = 0; i < 20000 && !ended; i++) {
			int n_allowed = 0, pick;
			ruv_token token = -1;
			size_t n;

			memset(bits, 0, n_words * sizeof *bits);
			assert_ok(c.fill(c.state, bits, info.n_tokens, &err), err);
			for (int t = 0; t < info.n_tokens; t++)
				n_allowed += bits[t / 64] >> (t % 64) & 1;
			assert_true(n_allowed > 0);
			pick = (int)ruv_rng_below(&rng, (uint64_t)n_allowed);
			for (int t = 0; t < info.n_tokens && token < 0; t++)
				if ((bits[t / 64] >> (t % 64) & 1) && pick-- == 0)
					token = t;
			assert_ok(c.accept(c.state, token, &err), err);
			ended = ruv_model_token_is_end(model, token);
			const char *bytes = ruv_model_token_bytes(model, token, &n);
			if (!ended)
				assert_ok(ruv_tool_stream_push(stream, bytes, n, &err), err);
		}
		assert_true(ended);
		assert_ok(ruv_tool_stream_finish(stream, &err), err);
		assert_int_equal(ruv_tool_stream_n_calls(stream), h.n_calls - before);
		assert_true(parallel ? h.n_calls > before : h.n_calls == before + 1);
		ruv_tool_stream_free(stream);
		c.free(c.state);
	}
	assert_int_equal(h.n_broken, 0);
	json_decref(h.list);
	free(bits);
	ruv_grammar_free(g);
}

static void forced_calls_are_read_back(void **state)
{
	ruv_model *model = *state;

	force(model, tools, NULL, false, 60);
	force(model, tools, NULL, true, 10);
	force(model, tools, "notes.add", false, 20);
	force(model, odd_tools, NULL, false, 20);
}

/* The same in Qwen's notation: a tiny vocabulary under Qwen2.5's own template. */
static void forced_calls_of_qwen(void **state)
{
	char path[] = "/tmp/ruvllm-qwen-XXXXXX";
	const int fd = mkstemp(path);
	ruv_gguf_writer *writer = NULL;
	ruv_gguf *tiny = NULL;
	ruv_model *model = NULL;
	ruv_error err = {0};
	char *source;
	size_t n;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_ok(ruv_gguf_open(&tiny, RUV_TEST_DATA "/model/qwen2.gguf", 0, &err), err);
	assert_ok(ruv_file_read(&source, &n, RUV_TEST_DATA "/templates/Qwen-Qwen2.5-7B-Instruct.jinja", 1 << 20, &err), err);
	assert_ok(ruv_gguf_writer_create(&writer, &err), err);
	for (size_t i = 0; ruv_gguf_key_at(tiny, i); i++)
		ruv_gguf_set_copy(writer, ruv_gguf_key_at(tiny, i));
	ruv_gguf_set_strn(writer, "tokenizer.chat_template", source, n);
	assert_ok(ruv_gguf_writer_begin(writer, path, &err), err);
	assert_ok(ruv_gguf_writer_finish(writer, &err), err);
	ruv_gguf_writer_free(writer);
	ruv_gguf_free(tiny);
	free(source);
	assert_ok(ruv_model_open(&model, path, &(ruv_model_options){.vocab_only = true}, &err), err);
	assert_true(ruv_model_has_tools(model));
	force(model, tools, NULL, false, 40);
	force(model, tools, NULL, true, 5);
	force(model, odd_tools, NULL, false, 10);
	ruv_model_free(model);
	unlink(path);
}

static void refusals(void **state)
{
	static const struct {
		const char *tools, *name;
		int code;
		const char *says;
	} cases[] = {
	    {"[]", NULL, RUV_EFORMAT, "empty"},
	    {"{}", NULL, RUV_EFORMAT, "array"},
	    {"[{\"description\":\"x\"}]", NULL, RUV_EFORMAT, "no name"},
	    {tools, "nothing", RUV_ENOTFOUND, "\"nothing\""},
	    {"[{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}}]", NULL, RUV_EUNSUPPORTED,
	     "\"f\": #/properties/a"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_grammar *g = NULL;
		ruv_error err = {0};
		int rc = ruv_tools_grammar(&g, *state, cases[i].tools, cases[i].name, true, &err);

		if (rc != cases[i].code || !strstr(err.message, cases[i].says))
			fail_msg("case %zu: %s: %s", i, ruv_status_name(rc), err.message);
	}
}

static int setup(void **state)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	const char *dir = getenv("RUVLLM_MODELS_DIR");
	char path[512];

	snprintf(path, sizeof path, "%s/ruvllm-nano-s.gguf", dir ? dir : RUV_SOURCE_DIR "/models");
	assert_ok(ruv_model_open(&model, path, &(ruv_model_options){.vocab_only = true}, &err), err);
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	ruv_model_free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests_[] = {
	    cmocka_unit_test(forced_calls_are_read_back),
	    cmocka_unit_test(forced_calls_of_qwen),
	    cmocka_unit_test(refusals),
	};
	return cmocka_run_group_tests_name("forced tool calls", tests_, setup, teardown);
}

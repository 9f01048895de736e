/* test_tool_calls.c - both notations, whole and byte by byte; what is no call; damaged calls. */
#include "base/rng.h"
#include "test.h"
#include "text/tool_calls.h"

/* Feeds `input` in steps; gives text and calls as "name{json};..." Returns the first failing status. */
static int parse(ruv_tool_syntax syntax, const char *input, size_t step, ruv_buf *text, ruv_buf *calls, ruv_error *err)
{
	ruv_tool_parser *p = NULL;
	size_t n = strlen(input), i;
	int rc = RUV_OK, first = RUV_OK;

	assert_int_equal(ruv_tool_parser_create(&p, syntax, err), RUV_OK);
	for (i = 0; i < n; i += step) {
		rc = ruv_tool_parser_push(p, input + i, n - i < step ? n - i : step, text, first ? NULL : err);
		first = first ? first : rc;
	}
	rc = ruv_tool_parser_finish(p, text, first ? NULL : err);
	first = first ? first : rc;
	for (i = 0; i < ruv_tool_parser_n_calls(p); i++) {
		const ruv_tool_call *call = ruv_tool_parser_call(p, i);
		char *json = json_dumps(call->arguments, JSON_COMPACT);
		ruv_buf_printf(calls, "%s%s;", call->name, json);
		free(json);
	}
	assert_null(ruv_tool_parser_call(p, i));
	ruv_tool_parser_free(p);
	return first;
}

/* What a listener heard. */
typedef struct heard {
	ruv_buf text, calls, arguments;
	size_t n_calls, n_pieces;
	int n_broken;
	bool open;
} heard;

static int on_part(void *user, ruv_tool_part part, size_t call, const char *name, const char *text, size_t n)
{
	heard *h = user;
	json_t *json;
	char *dump;

	switch (part) {
	case RUV_PART_TEXT:
		assert_false(h->open);
		assert_int_equal(text[n], 0);
		ruv_buf_append(&h->text, text, n);
		break;
	case RUV_PART_BEGIN:
		assert_false(h->open);
		assert_int_equal(call, h->n_calls);
		h->open = true;
		ruv_buf_clear(&h->arguments);
		break;
	case RUV_PART_ARGUMENTS:
		assert_true(h->open && n > 0);
		assert_int_equal(call, h->n_calls);
		ruv_buf_append(&h->arguments, text, n);
		h->n_pieces++;
		break;
	case RUV_PART_END:
		assert_true(h->open);
		h->open = false;
		h->n_calls++;
		assert_string_equal(ruv_buf_cstr(&h->arguments), text);
		json = json_loadb(text, n, 0, NULL);
		assert_true(json_is_object(json));
		dump = json_dumps(json, JSON_COMPACT);
		ruv_buf_printf(&h->calls, "%s%s;", name, dump);
		free(dump);
		json_decref(json);
		break;
	case RUV_PART_BROKEN:
		h->open = false;
		h->n_calls = call;
		h->n_broken++;
		break;
	}
	return RUV_OK;
}

static void listen(ruv_tool_syntax syntax, const char *input, size_t step, heard *h)
{
	ruv_tool_parser *p = NULL;
	size_t n = strlen(input);
	ruv_error err = {0};

	memset(h, 0, sizeof *h);
	ruv_buf_init(&h->text, 1 << 20);
	ruv_buf_init(&h->calls, 1 << 20);
	ruv_buf_init(&h->arguments, 1 << 20);
	assert_ok(ruv_tool_parser_create(&p, syntax, &err), err);
	ruv_tool_parser_listen(p, on_part, h);
	for (size_t i = 0; i < n; i += step)
		assert_ok(ruv_tool_parser_push(p, input + i, n - i < step ? n - i : step, NULL, &err), err);
	assert_ok(ruv_tool_parser_finish(p, NULL, &err), err);
	assert_int_equal(ruv_tool_parser_n_calls(p), h->n_calls);
	ruv_tool_parser_free(p);
}

static void heard_release(heard *h)
{
	ruv_buf_release(&h->text);
	ruv_buf_release(&h->calls);
	ruv_buf_release(&h->arguments);
}

static void check(ruv_tool_syntax syntax, const char *input, const char *text, const char *calls)
{
	static const size_t steps[] = {1, 2, 3, 7, 1000000};
	ruv_buf got_text, got_calls;
	size_t i;

	ruv_buf_init(&got_text, 1 << 20);
	ruv_buf_init(&got_calls, 1 << 20);
	for (i = 0; i < 5; i++) {
		ruv_error err = {0};
		ruv_buf_clear(&got_text);
		ruv_buf_clear(&got_calls);
		assert_ok(parse(syntax, input, steps[i], &got_text, &got_calls, &err), err);
		assert_string_equal(ruv_buf_cstr(&got_text), text);
		assert_string_equal(ruv_buf_cstr(&got_calls), calls);

		heard h;
		listen(syntax, input, steps[i], &h);
		assert_string_equal(ruv_buf_cstr(&h.text), text);
		assert_string_equal(ruv_buf_cstr(&h.calls), calls);
		assert_int_equal(h.n_broken, 0);
		heard_release(&h);
	}
	ruv_buf_release(&got_text);
	ruv_buf_release(&got_calls);
}

#define LFM2(input, text, calls) check(RUV_TOOL_SYNTAX_LFM2, input, text, calls)
#define QWEN(input, text, calls) check(RUV_TOOL_SYNTAX_QWEN, input, text, calls)
#define S "<|tool_call_start|>"
#define E "<|tool_call_end|>"

static void test_lfm2(void **state)
{
	(void)state;
	LFM2(S "[get_weather(city=\"Paris\", days=2)]" E, "", "get_weather{\"city\":\"Paris\",\"days\":2};");
	LFM2("Let me look. " S "[a.b.c(x='it\\'s', y=True, z=None)]" E " Done.", "Let me look.  Done.",
	     "a.b.c{\"x\":\"it's\",\"y\":true,\"z\":null};");
	LFM2(S "[f(), g(a=false, b=null, c=true)]" E, "", "f{};g{\"a\":false,\"b\":null,\"c\":true};");
	LFM2(S "[f(l=[1, -2.5, 'x', [True]], d={'k': {\"n\": (1, 2)}, 'e': []})]" E, "",
	     "f{\"l\":[1,-2.5,\"x\",[true]],\"d\":{\"k\":{\"n\":[1,2]},\"e\":[]}};");
	LFM2(S "f(x=1)" E, "", "f{\"x\":1};");
	LFM2(S " [ f ( x = 1 , ) , ] " E, "", "f{\"x\":1};");
	LFM2(S "[f(x=1)]" E "between" S "[g(y='2')]" E, "between", "f{\"x\":1};g{\"y\":\"2\"};");
	LFM2(S "[{\"name\": \"f\", \"arguments\": {\"x\": [1, null]}}, {\"name\": \"g\"}]" E, "", "f{\"x\":[1,null]};g{};");
	LFM2(S "{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}" E, "", "f{\"x\":1};");
	LFM2(S "[f(x=\"a, b) ] }\", y='\\u00e9\\n\\ud83d\\ude00\\x41')]" E, "",
	     "f{\"x\":\"a, b) ] }\",\"y\":\"\xC3\xA9\\n\xF0\x9F\x98\x80"
	     "A\"};");
	LFM2(S "[f(x=1e3, y=1_000, z=-7)]" E, "", "f{\"x\":1000.0,\"y\":1000,\"z\":-7};");
	LFM2(S "[f(x='line\nbreak')]" E, "", "f{\"x\":\"line\\nbreak\"};");
	/* The end mark is missing, the call is whole. */
	LFM2(S "[f(x=1)]", "", "f{\"x\":1};");
}

/* Arguments arrive while they are written: long strings in pieces, JSON byte for byte. */
static void test_listening(void **state)
{
	heard h;

	(void)state;
	listen(RUV_TOOL_SYNTAX_LFM2,
	       S "[write(path='a.c', text=\"int main(void)\\n{\\n\\treturn 0; /* \xC3\xA4 */\\n}\", n=1.5), g()]" E, 4, &h);
	assert_string_equal(
	    ruv_buf_cstr(&h.calls),
	    "write{\"path\":\"a.c\",\"text\":\"int main(void)\\n{\\n\\treturn 0; /* \xC3\xA4 */\\n}\",\"n\":1.5};g{};");
	assert_true(h.n_pieces > 12);
	heard_release(&h);
	listen(RUV_TOOL_SYNTAX_QWEN,
	       "Hm.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"xyz \\\"q\\\" }\", \"b\": [1, {}]}}\n</tool_call>", 1,
	       &h);
	assert_string_equal(ruv_buf_cstr(&h.text), "Hm.");
	assert_string_equal(ruv_buf_cstr(&h.calls), "f{\"a\":\"xyz \\\"q\\\" }\",\"b\":[1,{}]};");
	assert_true(h.n_pieces > 20);
	heard_release(&h);
}

/* What is no call after all is text, whole, and the calls before and behind it stay. */
static void test_broken_while_listening(void **state)
{
	static const struct {
		ruv_tool_syntax syntax;
		const char *input, *text, *calls;
		int n_broken;
	} cases[] = {
	    {RUV_TOOL_SYNTAX_LFM2, "a" S "[f(x=1), g(y=" E "b" S "[h()]" E, "a" S "[f(x=1), g(y=" E "b", "h{};", 1},
	    {RUV_TOOL_SYNTAX_LFM2, S "[f(x=1)" E, S "[f(x=1)" E, "", 1},
	    {RUV_TOOL_SYNTAX_LFM2, S "[f(x=\"never closed", S "[f(x=\"never closed", "", 1},
	    {RUV_TOOL_SYNTAX_LFM2, S "nothing of the kind" E "!", S "nothing of the kind" E "!", "", 0},
	    {RUV_TOOL_SYNTAX_LFM2, S "[f(x=1, x=2)]" E, S "[f(x=1, x=2)]" E, "", 1},
	    {RUV_TOOL_SYNTAX_QWEN,
	     "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"g\", \"arguments\": {]}</tool_call>.",
	     "<tool_call>{\"name\": \"g\", \"arguments\": {]}</tool_call>.", "f{};", 1},
	    {RUV_TOOL_SYNTAX_QWEN, "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": 1",
	     "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": 1", "", 1},
	};
	static const size_t steps[] = {1, 5, 1000};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (size_t k = 0; k < 3; k++) {
			heard h;

			listen(cases[i].syntax, cases[i].input, steps[k], &h);
			assert_string_equal(ruv_buf_cstr(&h.text), cases[i].text);
			assert_int_equal(h.n_broken, cases[i].n_broken);
			/* calls of a void block may have been told before; those that stay are the last ones */
			const char *calls = ruv_buf_cstr(&h.calls);
			size_t n = strlen(cases[i].calls);
			assert_true(strlen(calls) >= n);
			if (n)
				assert_string_equal(strstr(calls, cases[i].calls), cases[i].calls);
			heard_release(&h);
		}
}

static void test_lfm2_without_marks(void **state)
{
	(void)state;
	LFM2("[get_weather(city=\"Paris\")]", "", "get_weather{\"city\":\"Paris\"};");
	LFM2("  [a(x=1), b.c(y=2)]\n", "", "a{\"x\":1};b.c{\"y\":2};");
	/* Text that only begins like one. */
	LFM2("[1] The nightly backup starts at 02:00.\nAnswer: 02:00", "[1] The nightly backup starts at 02:00.\nAnswer: 02:00",
	     "");
	LFM2("[see(this)] for more", "[see(this)] for more", "");
	LFM2("[note", "[note", "");
	LFM2("[f(x=1)] is how to call it", "[f(x=1)] is how to call it", "");
	LFM2("Say [f(x=1)]", "Say [f(x=1)]", "");
	LFM2("a <|tool_call_sta", "a <|tool_call_sta", "");
	LFM2("x < y and <|tool", "x < y and <|tool", "");
	LFM2("", "", "");
	check(RUV_TOOL_SYNTAX_NONE, "[f(x=1)] <tool_call>", "[f(x=1)] <tool_call>", "");
}

static void test_qwen(void **state)
{
	(void)state;
	QWEN("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>", "", "f{\"x\":1};");
	QWEN("Sure.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": "
	     "\"{\\\"a\\\": "
	     "[]}\"}</tool_call>!",
	     "Sure.\n\n!", "f{};g{\"a\":[]};");
	QWEN("a <tool_call", "a <tool_call", "");
	QWEN("<tool_call>{\"name\": \"f\"}", "", "f{};");
}

static void fails(ruv_tool_syntax syntax, const char *input, const char *message)
{
	static const size_t steps[] = {1, 5, 1000000};
	ruv_buf text, calls;
	size_t i;

	ruv_buf_init(&text, 1 << 20);
	ruv_buf_init(&calls, 1 << 20);
	for (i = 0; i < 3; i++) {
		ruv_error err = {0};
		assert_int_equal(parse(syntax, input, steps[i], &text, &calls, &err), RUV_EFORMAT);
		if (!strstr(err.message, message))
			fail_msg("'%s' failed with '%s', not '%s'", input, err.message, message);
	}
	ruv_buf_release(&text);
	ruv_buf_release(&calls);
}

static void test_errors(void **state)
{
	(void)state;
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(1)]" E, "tool call 1, byte 3: an argument's name expected");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=1), g(y=)]" E, "tool call 2, byte 13: a value expected");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x='a]" E, "never closed");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=1]" E, "',' or ')' expected");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=1, x=2)]" E, "an argument stands twice");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=y)]" E, "a value expected");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x={1: 2})]" E, "a dict's key must be a string");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x={'a': 1, 'a': 2})]" E, "a key stands twice");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=99999999999999999999)]" E, "no number");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=1)] trailing" E, "something follows");
	fails(RUV_TOOL_SYNTAX_LFM2, S "" E, "nothing stands");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[]" E, "a function's name expected");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=\"\xFF\")]" E, "not UTF-8");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x='\\ud800')]" E, "no character");
	fails(RUV_TOOL_SYNTAX_LFM2, S "[f(x=1", "generation ended inside a tool call");
	fails(RUV_TOOL_SYNTAX_QWEN, "<tool_call>{\"name\": \"f\", \"arguments\": [}</tool_call>", "tool call 1, byte");
	fails(RUV_TOOL_SYNTAX_QWEN, "<tool_call>{\"arguments\": {}}</tool_call>", "\"name\" expected");
	fails(RUV_TOOL_SYNTAX_QWEN, "<tool_call>{\"name\": \"f\", \"arguments\": 3}</tool_call>", "is no object");
	fails(RUV_TOOL_SYNTAX_QWEN, "<tool_call>{\"name\": \"f\", \"name\": \"g\"}</tool_call>", "uplicate");
	fails(RUV_TOOL_SYNTAX_QWEN, "<tool_call>{\"name\": ", "generation ended inside a tool call");
}

/* After a block that failed, the next ones are still read, and the failed text can be had. */
static void test_goes_on(void **state)
{
	ruv_tool_parser *p;
	ruv_error err = {0};
	ruv_buf text;

	(void)state;
	ruv_buf_init(&text, 1000);
	assert_ok(ruv_tool_parser_create(&p, RUV_TOOL_SYNTAX_LFM2, &err), err);
	assert_int_equal(ruv_tool_parser_push(p, S "[f(]" E "and" S "[g()]" E, strlen(S "[f(]" E "and" S "[g()]" E), &text, &err),
	                 RUV_EFORMAT);
	assert_string_equal(ruv_tool_parser_block(p), "[f(]");
	assert_ok(ruv_tool_parser_finish(p, &text, &err), err);
	assert_int_equal(ruv_tool_parser_n_calls(p), 1);
	assert_string_equal(ruv_buf_cstr(&text), "and");
	ruv_tool_parser_free(p);

	assert_ok(ruv_tool_parser_create(&p, RUV_TOOL_SYNTAX_LFM2, &err), err);
	assert_ok(ruv_tool_parser_push(p, "a" S "[f", 1 + strlen(S) + 2, &text, &err), err);
	assert_true(ruv_tool_parser_in_call(p));
	assert_string_equal(ruv_tool_parser_block(p), "[f");
	ruv_tool_parser_free(p);
	ruv_buf_release(&text);
}

static void test_limits(void **state)
{
	ruv_tool_parser *p;
	ruv_error err = {0};
	char *deep = malloc(2 << 20);
	size_t n;

	(void)state;
	n = (size_t)sprintf(deep, S "[f(x=");
	memset(deep + n, '[', 1000);
	strcpy(deep + n + 1000, E);
	fails(RUV_TOOL_SYNTAX_LFM2, deep, "nested too deeply");
	assert_ok(ruv_tool_parser_create(&p, RUV_TOOL_SYNTAX_QWEN, &err), err);
	memset(deep, 'x', 2 << 20);
	memcpy(deep, "<tool_call>", 11);
	assert_int_equal(ruv_tool_parser_push(p, deep, 2 << 20, NULL, &err), RUV_ELIMIT);
	ruv_tool_parser_free(p);
	assert_ok(ruv_tool_parser_create(&p, RUV_TOOL_SYNTAX_LFM2, &err), err);
	n = (size_t)sprintf(deep, S "[");
	while (n < 2000)
		n += (size_t)sprintf(deep + n, "f(),");
	n += (size_t)sprintf(deep + n, "]" E);
	assert_int_equal(ruv_tool_parser_push(p, deep, n, NULL, &err), RUV_ELIMIT);
	assert_int_equal(ruv_tool_parser_n_calls(p), 0); /* all of a block or nothing */
	ruv_tool_parser_free(p);
	free(deep);
}

static void test_format(void **state)
{
	ruv_tool_call calls[2] = {
	    {.name = "f.g", .arguments = json_pack("{s:s,s:[b,n,f],s:{s:i}}", "x", "a\"\n\xC3\xA9", "l", 1, 0.5, "d", "k", 1)},
	    {.name = "h", .arguments = json_object()}};
	ruv_tool_syntax syntax;
	ruv_error err = {0};
	size_t i;

	(void)state;
	for (syntax = RUV_TOOL_SYNTAX_LFM2; syntax <= RUV_TOOL_SYNTAX_QWEN; syntax++) {
		ruv_tool_parser *p;
		ruv_buf out;
		ruv_buf_init(&out, 10000);
		assert_ok(ruv_tool_calls_format(syntax, calls, 2, &out, &err), err);
		assert_ok(ruv_tool_parser_create(&p, syntax, &err), err);
		assert_ok(ruv_tool_parser_push(p, out.data, out.len, NULL, &err), err);
		assert_int_equal(ruv_tool_parser_n_calls(p), 2);
		for (i = 0; i < 2; i++) {
			assert_string_equal(ruv_tool_parser_call(p, i)->name, calls[i].name);
			assert_true(json_equal(ruv_tool_parser_call(p, i)->arguments, calls[i].arguments));
		}
		ruv_tool_parser_free(p);
		ruv_buf_release(&out);
	}
	for (i = 0; i < 2; i++)
		json_decref(calls[i].arguments);
	assert_int_equal(ruv_tool_syntax_of_template("x <|tool_list_start|> y", 23), RUV_TOOL_SYNTAX_LFM2);
	assert_int_equal(ruv_tool_syntax_of_template("'<tool_call>'", 13), RUV_TOOL_SYNTAX_QWEN);
	assert_int_equal(ruv_tool_syntax_of_template("<|im_start|>", 12), RUV_TOOL_SYNTAX_NONE);
	assert_string_equal(ruv_tool_syntax_name(RUV_TOOL_SYNTAX_QWEN), "qwen");
}

/* Damaged blocks end in calls or an error. */
static void test_mutations(void **state)
{
	static const char good[] = S "[f(l=[1, -2.5, 'x', [True]], d={'k': {\"n\": (1, 2)}, 'e': []}), a.b(s=\"q\\n\\u00e9\")]" E;
	static const char qwen[] = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, \"\\u00e9\"]}}\n</tool_call>";
	ruv_rng rng;
	ruv_buf text, calls;
	int round;

	(void)state;
	ruv_rng_init(&rng, 3);
	ruv_buf_init(&text, 1 << 20);
	ruv_buf_init(&calls, 1 << 20);
	for (round = 0; round < 3000; round++) {
		char copy[200];
		size_t n, k;
		strcpy(copy, round % 2 ? good : qwen);
		n = strlen(copy);
		for (k = 1 + ruv_rng_below(&rng, 3); k > 0; k--)
			copy[ruv_rng_below(&rng, n)] = "[](){}'\",=:\\x1-\xFF \n<>|."[ruv_rng_below(&rng, 22)];
		ruv_buf_clear(&text);
		ruv_buf_clear(&calls);
		parse(round % 2 ? RUV_TOOL_SYNTAX_LFM2 : RUV_TOOL_SYNTAX_QWEN, copy, 1 + ruv_rng_below(&rng, 30), &text, &calls,
		      NULL);
	}
	ruv_buf_release(&text);
	ruv_buf_release(&calls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lfm2),      cmocka_unit_test(test_lfm2_without_marks),
	    cmocka_unit_test(test_listening), cmocka_unit_test(test_broken_while_listening),
	    cmocka_unit_test(test_qwen),      cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_goes_on),   cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_format),    cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

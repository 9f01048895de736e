/* test_grammar.c - grammars and schemas: what they let through, what they refuse, and that generation under them always ends in
 * text that a validator of its own accepts. */
#include "test.h"

#include "base/rng.h"
#include "check.h"
#include "infer/grammar_automaton.h"

static ruv_model *open_model(const char *name)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	char path[512];

	snprintf(path, sizeof path, "%s/model/%s", RUV_TEST_DATA, name);
	assert_ok(ruv_model_open(&model, path, &(ruv_model_options){.n_threads = 1}, &err), err);
	return model;
}

static ruv_model *model;

static ruv_grammar *compiled(ruv_grammar_kind kind, const char *text)
{
	ruv_error err = {0};
	ruv_grammar *g = NULL;
	int rc = ruv_grammar_open(&g, model, kind, text, strlen(text), &err);

	if (rc)
		fail_msg("%s\nis refused: %s", text, err.message);
	return g;
}

static bool matches(ruv_grammar *g, const char *text)
{
	ruv_error err = {0};
	size_t n;
	bool complete;

	assert_ok(ruv_grammar_match(g, text, strlen(text), &n, &complete, &err), err);
	return complete;
}

typedef struct language {
	const char *text;
	const char *good[12], *bad[12];
} language;

static void check_language(ruv_grammar_kind kind, const language *l)
{
	ruv_grammar *g = compiled(kind, l->text);

	for (int i = 0; i < 12 && l->good[i]; i++)
		if (!matches(g, l->good[i]))
			fail_msg("%s\nshould allow: %s", l->text, l->good[i]);
	for (int i = 0; i < 12 && l->bad[i]; i++)
		if (matches(g, l->bad[i]))
			fail_msg("%s\nshould not allow: %s", l->text, l->bad[i]);
	ruv_grammar_free(g);
}

static void gbnf_languages(void **state)
{
	static const language languages[] = {
	    {"root ::= \"a\" | \"b\" \"c\"", {"a", "bc"}, {"", "b", "ab", "bcc"}},
	    {"root ::= [a-c]+ \"-\"? [^a-c]{2}", {"axx", "abc-äö", "a--x"}, {"a", "-xx", "axa", "abc-ax"}},
	    {"root ::= x{2,4}\nx ::= \"ab\" # comment\n\n", {"abab", "ababab", "abababab"}, {"ab", "ababababab", "aba"}},
	    {"root ::= \"x\"{100,200}", {}, {"x", "xx"}},
	    {"root ::= (\"a\"\n | \"b\" # why\n)* \"!\"", {"!", "ab!", "bba!"}, {"ab", "c!"}},
	    {"root ::=\n  item\n | \"(\" root \")\"\nitem ::= .", {"x", "(ß)", "((y))", ")"}, {"(x", "xx", "()x"}},
	    {"root ::= \"\\x41\\u00e4\\U0001F600\\n\\t\\\"\\\\\" []", {}, {"A"}},
	    {"root ::= [\\]\\-\\\\^-] [a-]", {"]a", "-a", "\\-", "^-"}, {"aa", "]b"}},
	    {"root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
	     {"1", "1+2", "(1+(22+3))+4"},
	     {"", "1+", "(1", "1)"}},
	    {"root ::= list\nlist ::= \"x\" | \"x\" \",\" list", {"x", "x,x,x,x,x,x,x,x,x"}, {"", "x,", ",x"}},
	    {"root ::= | \"a\"", {"", "a"}, {"aa"}},
	    {"root ::= \"a\"{0} \"b\"{,2}", {"", "b", "bb"}, {"a", "bbb"}},
	    {"root_rule ::= \"a\"\nroot ::= root_rule root-2\nroot-2 ::= \"b\"", {"ab"}, {"a"}},
	    {"root ::= ([a-zé]{1,20} \" \"?){1,30}", {"été", "a b c"}, {"A", ""}},
	    {"root ::= never | \"a\"\nnever ::= \"x\" never", {"a"}, {"x", "xa"}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
		if (i != 6) /* its class is empty: no text follows it */
			check_language(RUV_GRAMMAR_GBNF, &languages[i]);
	/* long counted repetitions */
	char text[260];
	ruv_grammar *g = compiled(RUV_GRAMMAR_GBNF, "root ::= \"x\"{100,200}");

	memset(text, 'x', sizeof text);
	for (int n = 90; n < 210; n++) {
		text[n] = '\0';
		assert_int_equal(matches(g, text), n >= 100 && n <= 200);
		text[n] = 'x';
	}
	ruv_grammar_free(g);
}

static void schema_languages(void **state)
{
	static const language languages[] = {
	    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"},\"c\":{\"type\":"
	     "\"null\"}},\"required\":[\"b\"]}",
	     {"{\"b\":\"\"}", "{\"a\": -5, \"b\": \"x\", \"c\": null}", "{\"b\":\"\\u00e9\\n\",\"c\":null}", "{\n  \"b\":\"é\"\n}"},
	     {"{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",}", "{\"b\":\"\",\"d\":1}", "{\"b\":\"\t\"}",
	      "{\"b\":\"\\ud800\"}", "{\"b\":\"\\x\"}", "{,\"b\":\"\"}"}},
	    {"{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"boolean\"},\"b\":{\"type\":\"boolean\"}},"
	     "\"additionalProperties\":{\"type\":\"integer\"}}",
	     {"{}", "{\"ab\":true}", "{\"a\":1}", "{\"abc\":1,\"x\":2}", "{\"b\":false,\"c\":3}", "{\"\":4}", "{\"\\\"\":4}"},
	     {"{\"ab\":1}", "{\"x\":true}", "{\"b\":true,\"ab\":true}", "{\"x\":1,\"b\":true}"}},
	    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":345}",
	     {"-12", "-9", "0", "7", "99", "100", "299", "345"},
	     {"-13", "-0", "346", "1000", "01", "", "3.0"}},
	    {"{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":12.5}",
	     {"10", "11", "12"},
	     {"9", "13", "1", "012"}},
	    {"{\"type\":\"integer\",\"minimum\":1000}", {"1000", "9999", "10000", "999999999999999"}, {"999", "0", "-1000"}},
	    {"{\"type\":\"integer\",\"maximum\":-5}", {"-5", "-10", "-999"}, {"-4", "5", "0"}},
	    {"{\"type\":\"number\",\"minimum\":0.25,\"maximum\":3.5}",
	     {"0.25", "0.3", "1", "2.999", "3", "3.5", "3.50", "0.2500", "3.49"},
	     {"0.2", "0", "3.51", "4", "0.249", "-1", "3.501"}},
	    {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"exclusiveMaximum\":2}",
	     {"-1.49", "-1", "0", "-0.5", "1.999", "1", "0.0"},
	     {"-1.5", "-1.50", "2", "2.0", "-2", "-1.51", "20"}},
	    {"{\"type\":\"number\",\"minimum\":5}", {"5", "5.1", "5.0", "10", "123456.5"}, {"4.9", "-5", "0"}},
	    {"{\"type\":\"number\"}", {"0", "-1.5e3", "12E-5", "0.25"}, {"01", "1.", ".5", "+1", "1e", "1e999"}},
	    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
	     {"\"ab\"", "\"äöü\"", "\"a\\n\"", "\"\\u0041b\""},
	     {"\"a\"", "\"abcd\"", "\"\""}},
	    {"{\"type\":\"string\",\"pattern\":\"^(foo|ba[rz])+\\\\d{2,3}$\"}",
	     {"\"foo12\"", "\"barbaz123\""},
	     {"\"foo\"", "\"foo1\"", "\"xfoo12\"", "\"12\""}},
	    {"{\"type\":\"string\",\"pattern\":\"a.c\"}", {"\"abc\"", "\"xxa\\\"cxx\"", "\"aäc\""}, {"\"ac\"", "\"a\\nc\""}},
	    {"{\"type\":\"string\",\"pattern\":\"^[^\\\\w\\\\s]\\\\W?\\\\S$\"}",
	     {"\"--\"", "\"-+x\"", "\"\\\"\\\"\""},
	     {"\"a\"", "\"- \""}},
	    {"{\"type\":\"string\",\"format\":\"date\"}",
	     {"\"2024-02-28\"", "\"1999-12-31\""},
	     {"\"2024-02-30\"", "\"2024-13-01\"", "\"2024-4-1\"", "\"2024-04-31\""}},
	    {"{\"type\":\"string\",\"format\":\"uri\"}",
	     {"\"https://example.com/a?b=c#d\"", "\"http://localhost:80\""},
	     {"\"x\"", "\"http:/x\""}},
	    {"{\"enum\":[\"a\",1,null,true,{\"x\":[1,2]},0.1,\"q\\\"\"]}",
	     {"\"a\"", "1", "null", "true", "{\"x\":[1,2]}", "0.1", "\"q\\\"\""},
	     {"\"b\"", "2", "false", "0.10"}},
	    {"{\"enum\":[\"a\",1],\"type\":\"string\"}", {"\"a\""}, {"1"}},
	    {"{\"const\":{\"k\":\"v\"}}", {"{\"k\":\"v\"}"}, {"{}", "{\"k\":\"w\"}"}},
	    {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":3}",
	     {"[true]", "[true, false,true]"},
	     {"[]", "[1]", "[true,true,true,true]", "[true,]"}},
	    {"{\"type\":\"array\",\"maxItems\":0}", {"[]", "[ ]"}, {"[1]"}},
	    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}]}",
	     {"[1,2]", "[1, 2]"},
	     {"[]", "[1]", "[2,1]", "[1,2,3]"}},
	    {"{\"type\":\"array\",\"items\":[{\"const\":1}],\"additionalItems\":{\"const\":0}}",
	     {"[1]", "[1,0,0]"},
	     {"[0]", "[1,1]"}},
	    {"{\"type\":[\"string\",\"null\"]}", {"\"x\"", "null"}, {"1"}},
	    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"description\":\"x\"}", {"1", "\"x\""}, {"true"}},
	    {"{\"type\":\"object\",\"properties\":{\"t\":{\"type\":\"integer\"}},\"required\":[\"t\"],\"anyOf\":[{\"properties\":{"
	     "\"a\":{\"const\":1}},\"required\":[\"a\"]},{\"properties\":{\"b\":{\"const\":2}}}]}",
	     {"{\"t\":1,\"a\":1}", "{\"t\":1}", "{\"t\":1,\"b\":2}"},
	     {"{\"a\":1}", "{\"t\":1,\"b\":3}"}},
	    {"{\"allOf\":[{\"$ref\":\"#/definitions/"
	     "base\"},{\"properties\":{\"y\":{\"type\":\"integer\",\"minimum\":3}},\"required\":[\"y\"]}],\"definitions\":{"
	     "\"base\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"},\"y\":{\"type\":\"integer\",\"maximum\":5}"
	     "},\"required\":[\"x\"]}}}",
	     {"{\"x\":1,\"y\":3}", "{\"x\":1,\"y\":5}"},
	     {"{\"x\":1}", "{\"x\":1,\"y\":6}", "{\"x\":1,\"y\":2}"}},
	    {"{\"$ref\":\"#/$defs/"
	     "t\",\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
	     "t\"}}}}}}",
	     {"{}", "{\"k\":[]}", "{\"k\":[{\"k\":[{}]},{}]}"},
	     {"{\"k\":1}", "{\"k\":[1]}"}},
	    {"{\"$ref\":\"#\",\"type\":\"object\"}", {NULL}, {NULL}},
	    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1,\"maxProperties\":2,"
	     "\"propertyNames\":{\"pattern\":\"^[a-z]$\"}}",
	     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
	     {"{}", "{\"a\":1,\"b\":2,\"c\":3}", "{\"A\":1}"}},
	    {"{}", {"1", "\"x\"", "{\"a\":[1,{}]}", "[]", "null", "[ 1, 2 ]"}, {"", "nul", "{a:1}"}},
	    {"true", {"1", "{}"}, {""}},
	    {"{\"type\":\"object\",\"required\":[\"x\"]}", {"{\"x\":1}", "{\"x\":{},\"y\":2}"}, {"{}", "{\"y\":1}"}},
	    {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}", "{ }"}, {"{\"a\":1}"}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
		if (languages[i].good[0])
			check_language(RUV_GRAMMAR_JSON_SCHEMA, &languages[i]);
	ruv_grammar *g = compiled(RUV_GRAMMAR_JSON_OBJECT, "");

	assert_true(matches(g, "{\"a\": [1, {\"b\": null}], \"c\": \"\\\"\"}"));
	assert_false(matches(g, "[1]"));
	assert_false(matches(g, "{\"a\"}"));
	ruv_grammar_free(g);
}

static void refusals(void **state)
{
	static const struct {
		ruv_grammar_kind kind;
		const char *text;
		int code;
		const char *says;
	} cases[] = {
	    {RUV_GRAMMAR_GBNF, "", RUV_EFORMAT, "no rule 'root'"},
	    {RUV_GRAMMAR_GBNF, "root = \"a\"", RUV_EFORMAT, "line 1, column 6"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"a", RUV_EFORMAT, "ends inside"},
	    {RUV_GRAMMAR_GBNF, "root ::= a", RUV_EFORMAT, "'a' is used but not defined"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"a\"\nroot ::= \"b\"", RUV_EFORMAT, "twice"},
	    {RUV_GRAMMAR_GBNF, "root ::= root \"a\" | \"a\"", RUV_EFORMAT, "left recursion"},
	    {RUV_GRAMMAR_GBNF, "root ::= n root \"a\" | \"a\"\nn ::= \"x\"?", RUV_EFORMAT, "left recursion"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"a\" root", RUV_EFORMAT, "can never end"},
	    {RUV_GRAMMAR_GBNF, "root ::= [b-a]", RUV_EFORMAT, "range"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"a\"{3,2}", RUV_EFORMAT, "fewer"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"a\"{1000000}", RUV_EFORMAT, "100000"},
	    {RUV_GRAMMAR_GBNF, "root ::= (\"a\"", RUV_EFORMAT, "')' expected"},
	    {RUV_GRAMMAR_GBNF, "root ::= \"\\q\"", RUV_EFORMAT, "escape"},
	    {RUV_GRAMMAR_GBNF, "root ::= <nothing-like-that>", RUV_EFORMAT, "no token"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":", RUV_EFORMAT, "no JSON"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "[]", RUV_EFORMAT, "a schema must be"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "false", RUV_EFORMAT, "can never end"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}", RUV_EUNSUPPORTED,
	     "#/properties/a: the keyword \"not\""},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"array\",\"uniqueItems\":true}", RUV_EUNSUPPORTED, "uniqueItems"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"number\",\"multipleOf\":0.5}", RUV_EUNSUPPORTED, "multipleOf"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(?=a)\"}", RUV_EUNSUPPORTED, "assertions"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(\"}", RUV_EFORMAT, "pattern"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"format\":\"x-mine\"}", RUV_EUNSUPPORTED, "x-mine"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"strin\"}", RUV_EFORMAT, "\"strin\" is no type"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"http://x/y\"}", RUV_EUNSUPPORTED, "same document"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"#/$defs/x\"}", RUV_EFORMAT, "where no schema is"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"#\"}", RUV_EFORMAT, "never end"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", RUV_EFORMAT, "left recursion"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", RUV_EUNSUPPORTED, "oneOf"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"]}", RUV_EFORMAT,
	     "\"b\" is required"},
	    {RUV_GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", RUV_EFORMAT, "never end"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_error err = {0};
		ruv_grammar *g = NULL;
		int rc = ruv_grammar_open(&g, model, cases[i].kind, cases[i].text, strlen(cases[i].text), &err);

		if (rc != cases[i].code || !strstr(err.message, cases[i].says))
			fail_msg("%s\ngives %s: %s", cases[i].text, ruv_status_name(rc), err.message);
		assert_null(g);
	}
}

/* Picks any allowed token at random, as a model of no sense at all would. */
static size_t walk(ruv_grammar *g, ruv_rng *rng, char *text, size_t cap, bool *ended)
{
	ruv_model_info info;
	ruv_error err = {0};
	ruv_constraint c;
	uint64_t *bits;
	size_t n = 0;

	ruv_model_get_info(model, &info);
	const size_t n_words = ((size_t)info.n_vocab + 63) / 64;
	bits = malloc(n_words * sizeof *bits);
	*ended = false;
	assert_ok(ruv_grammar_constrain(g, &c, &err), err);
	while (n + 64 < cap && !*ended) {
		int n_allowed = 0, pick;
		ruv_token token = -1;

		memset(bits, 0, n_words * sizeof *bits);
		assert_ok(c.fill(c.state, bits, info.n_vocab, &err), err);
		for (int i = 0; i < info.n_vocab; i++)
			n_allowed += bits[i / 64] >> (i % 64) & 1;
		assert_true(n_allowed > 0);
		pick = (int)ruv_rng_below(rng, (uint64_t)n_allowed);
		for (int i = 0; i < info.n_vocab && token < 0; i++)
			if ((bits[i / 64] >> (i % 64) & 1) && pick-- == 0)
				token = i;
		assert_ok(c.accept(c.state, token, &err), err);
		if (ruv_rng_below(rng, 4) == 0) { /* back and forth again */
			assert_ok(c.rollback(c.state, 1, &err), err);
			assert_ok(c.accept(c.state, token, &err), err);
		}
		if (ruv_model_token_is_end(model, token)) {
			*ended = true;
		} else {
			size_t length;
			const char *bytes = ruv_model_token_bytes(model, token, &length);

			memcpy(text + n, bytes, length);
			n += length;
		}
	}
	c.free(c.state);
	free(bits);
	return n;
}

static void random_walks_are_valid(void **state)
{
	char *text = malloc(1 << 16);
	ruv_rng rng;
	int n_ended = 0;

	(void)state;
	ruv_rng_init(&rng, 7);
	for (int i = 0; i < N_GRAMMAR_CASES; i++) {
		ruv_grammar *g = compiled(grammar_cases[i].kind, grammar_cases[i].text);

		for (int k = 0; k < 40; k++) {
			bool ended;
			size_t n = walk(g, &rng, text, 1 << 16, &ended);

			text[n] = '\0';
			if (ended && !check_case(&grammar_cases[i], text, n))
				fail_msg("case %s: %s", grammar_cases[i].name, text);
			n_ended += ended;
		}
		ruv_grammar_free(g);
	}
	assert_true(n_ended > 30 * N_GRAMMAR_CASES);
	free(text);
}

static void constraints_fork_and_roll_back(void **state)
{
	ruv_grammar *g = compiled(RUV_GRAMMAR_GBNF, "root ::= \"ab\" \"c\"*");
	ruv_error err = {0};
	ruv_constraint c;
	ruv_token a = -1, b = -1, x = -1, end = -1;
	ruv_model_info info;
	uint64_t bits[4096];
	void *copy;

	(void)state;
	ruv_model_get_info(model, &info);
	for (int i = 0; i < info.n_tokens; i++) {
		size_t n;
		const char *bytes = ruv_model_token_bytes(model, i, &n);

		a = n == 1 && *bytes == 'a' ? i : a;
		b = n == 1 && *bytes == 'b' ? i : b;
		x = n == 1 && *bytes == 'c' ? i : x;
		end = ruv_model_token_is_end(model, i) ? i : end;
	}
	assert_true(a >= 0 && b >= 0 && x >= 0 && end >= 0);
#define ALLOWED(token)                                                                                                             \
	(memset(bits, 0, sizeof bits), c.fill(c.state, bits, info.n_vocab, &err), bits[(token) / 64] >> ((token) % 64) & 1)
	assert_ok(ruv_grammar_constrain(g, &c, &err), err);
	assert_true(ALLOWED(a));
	assert_false(ALLOWED(b));
	assert_false(ALLOWED(end));
	assert_int_equal(c.accept(c.state, b, &err), RUV_EINVAL);
	assert_ok(c.accept(c.state, a, &err), err);
	assert_ok(c.accept(c.state, b, &err), err);
	assert_true(ALLOWED(end));
	assert_true(ALLOWED(x));
	assert_ok(c.fork(c.state, &copy, &err), err);
	assert_ok(c.accept(c.state, end, &err), err);
	assert_true(ALLOWED(end));
	assert_false(ALLOWED(x));
	assert_ok(c.rollback(c.state, 1, &err), err);
	assert_true(ALLOWED(x));
	assert_ok(c.rollback(c.state, 2, &err), err);
	assert_true(ALLOWED(a));
	assert_ok(c.accept(copy, x, &err), err);
	assert_int_equal(c.rollback(copy, 4, &err), RUV_EINVAL);
	assert_ok(c.rollback(copy, 3, &err), err);
	c.free(copy);
	c.free(c.state);
	ruv_grammar_free(g);
#undef ALLOWED
}

static void tokens_in_grammars(void **state)
{
	char text[200];
	ruv_grammar *g;
	ruv_error err = {0};
	ruv_constraint c;
	ruv_model_info info;
	uint64_t bits[4096] = {0};
	ruv_token special = -1;

	(void)state;
	ruv_model_get_info(model, &info);
	for (int i = 0; i < info.n_tokens && special < 0; i++) {
		size_t n;
		const char *bytes = ruv_model_token_bytes(model, i, &n);

		if (n > 4 && !memcmp(bytes, "<|", 2) && !ruv_model_token_is_end(model, i) && i != ruv_model_token_bos(model))
			special = i;
	}
	if (special < 0)
		skip();
	snprintf(text, sizeof text, "root ::= \"a\"? <[%d]> \"b\"", special);
	g = compiled(RUV_GRAMMAR_GBNF, text);
	assert_ok(ruv_grammar_constrain(g, &c, &err), err);
	assert_ok(c.fill(c.state, bits, info.n_vocab, &err), err);
	assert_true(bits[special / 64] >> (special % 64) & 1);
	assert_ok(c.accept(c.state, special, &err), err);
	assert_int_equal(c.accept(c.state, special, &err), RUV_EINVAL);
	c.free(c.state);
	ruv_grammar_free(g);
}

static void compiled_once(void **state)
{
	ruv_grammar *a = compiled(RUV_GRAMMAR_GBNF, "root ::= \"x\""), *b = compiled(RUV_GRAMMAR_GBNF, "root ::= \"x\"");
	ruv_grammar *d = compiled(RUV_GRAMMAR_GBNF, "root ::= \"y\"");

	(void)state;
	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, d);
	for (int i = 0; i < 100; i++) { /* pushes the first out; holds stay good */
		char text[64];

		snprintf(text, sizeof text, "root ::= \"z%d\"", i);
		ruv_grammar_free(compiled(RUV_GRAMMAR_GBNF, text));
	}
	assert_true(matches(a, "x"));
	ruv_grammar_free(a);
	ruv_grammar_free(b);
	ruv_grammar_free(d);
}

/* Places are numbered anew without a constraint noticing. */
static void forgetting_keeps_places(void **state)
{
	ruv_gast ast;
	ruv_error err = {0};
	ruv_automaton *a;
	const char *text = "root ::= \"(\" root \")\" | [a-z]{3,50}", *in = "((((abcd", *rest = "ef))))";

	(void)state;
	ruv_gast_init(&ast);
	assert_ok(ruv_gbnf_parse(&ast, text, strlen(text), NULL, &err), err);
	assert_ok(ruv_automaton_open(&a, &ast, &err), err);
	ruv_gast_release(&ast);
	int place = RUV_PLACE_BEGIN, begin = RUV_PLACE_BEGIN, *places[] = {&place, &begin};
	for (const char *p = in; *p; p++)
		place = ruv_automaton_step(a, place, (unsigned char)*p);
	const int n = ruv_automaton_n_places(a);
	assert_int_equal(ruv_automaton_forget(a, places, 2), RUV_OK);
	assert_true(ruv_automaton_n_places(a) < n);
	assert_int_equal(begin, RUV_PLACE_BEGIN);
	for (const char *p = rest; *p; p++) {
		assert_false(ruv_automaton_may_end(a, place));
		place = ruv_automaton_step(a, place, (unsigned char)*p);
	}
	assert_true(ruv_automaton_may_end(a, place));
	ruv_automaton_free(a);
}

static void generation_obeys(void **state)
{
	ruv_error err = {0};
	ruv_session *session = NULL;

	(void)state;
	assert_ok(ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = 512, .allow_longer = true}, &err), err);
	for (int i = 0; i < N_GRAMMAR_CASES; i++) {
		ruv_grammar *g = compiled(grammar_cases[i].kind, grammar_cases[i].text);
		ruv_generation out;

		for (int k = 0; k < 2; k++) {
			ruv_constraint c;
			ruv_generate_params params = {.sampling = {.temperature = k ? 1.0f : 0.0f, .seed = 11}, .max_tokens = 400};

			assert_ok(ruv_grammar_constrain(g, &c, &err), err);
			params.constraint = &c;
			assert_ok(ruv_generate(session, (ruv_token[]){5, 6, 7}, 3, &params, &out, &err), err);
			if (out.finish == RUV_FINISH_STOP)
				assert_true(check_case(&grammar_cases[i], out.text, out.n_bytes));
			else
				assert_int_equal(out.n_tokens, 400);
			ruv_generation_release(&out);
			c.free(c.state);
		}
		ruv_grammar_free(g);
	}
	ruv_session_free(session);
}

static int setup(void **state)
{
	(void)state;
	model = open_model("lfm2.gguf");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ruv_model_free(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(gbnf_languages),
	    cmocka_unit_test(schema_languages),
	    cmocka_unit_test(refusals),
	    cmocka_unit_test(random_walks_are_valid),
	    cmocka_unit_test(constraints_fork_and_roll_back),
	    cmocka_unit_test(tokens_in_grammars),
	    cmocka_unit_test(compiled_once),
	    cmocka_unit_test(forgetting_keeps_places),
	    cmocka_unit_test(generation_obeys),
	};
	return cmocka_run_group_tests_name("grammars", tests, setup, teardown);
}

/* test_cite.c - taking answers apart, and finding quotes in sources and files. */
#include "test.h"

#include "runtime/cite.h"

typedef struct expected {
	const char *text, *answer;
	bool unknown;
	int numbers[4]; /* of the marks, 0 ends */
	const char *quotes[4];
} expected;

static const expected cases[] = {
    {"[1] The nightly backup starts at 02:00.\nAnswer: 02:00", "02:00", false, {1}, {"The nightly backup starts at 02:00."}},
    {"[2]The port is 8080.\nAnswer:8080\n", "8080", false, {2}, {"The port is 8080."}},
    {"  [12] Twelve.\n\nAnswer: twelve  \n", "twelve", false, {12}, {"Twelve."}},
    {"[1] One.\n[3] Three.\nAnswer: one and three", "one and three", false, {1, 3}, {"One.", "Three."}},
    {"I don't know.", "I don't know.", true, {0}, {0}},
    {"I don\xe2\x80\x99t know", "I don\xe2\x80\x99t know", true, {0}, {0}},
    {"I do not know that.", "I do not know that.", true, {0}, {0}},
    /* It quotes and then says that it does not know: nothing is claimed. */
    {"[1] Something else.\nAnswer: I don't know.", "I don't know.", true, {0}, {0}},
    /* Free texts of other models. */
    {"The port is 8080 [2], see also [1][2].", "The port is 8080 [2], see also [1][2].", false, {2, 1}, {"", ""}},
    {"[1] The port is 8080.\nSo it is 8080.", "So it is 8080.", false, {1}, {"The port is 8080."}},
    {"[1] The port is 8080.", "The port is 8080.", false, {1}, {"The port is 8080."}},
    {"Answer: see [2]", "see [2]", false, {2}, {""}},
    {"No marks at all.", "No marks at all.", false, {0}, {0}},
    /* What looks like a mark and is none. */
    {"a[0] [] [x] [-1] [ 1] [99999]", "a[0] [] [x] [-1] [ 1] [99999]", false, {0}, {0}},
    {"", "", false, {0}, {0}},
    {"[", "[", false, {0}, {0}},
    {"[1", "[1", false, {0}, {0}},
    {"[1]", "[1]", false, {1}, {""}},
    {"[1]\nAnswer:", "", false, {1}, {""}},
};

static void test_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const expected *e = &cases[i];
		ruv_cite_parts parts;
		size_t n;

		ruv_cite_parse(&parts, e->text);
		n = parts.answer_end - parts.answer_begin;
		if (n != strlen(e->answer) || memcmp(e->text + parts.answer_begin, e->answer, n))
			fail_msg("case %zu: answer '%.*s'", i, (int)n, e->text + parts.answer_begin);
		assert_int_equal(parts.unknown, e->unknown);
		for (int j = 0; j < 4; j++) {
			if (!e->numbers[j]) {
				if (parts.n_marks != j)
					fail_msg("case %zu: %d marks", i, parts.n_marks);
				break;
			}
			assert_true(j < parts.n_marks);
			assert_int_equal(parts.marks[j].number, e->numbers[j]);
			n = parts.marks[j].end - parts.marks[j].begin;
			if (n != strlen(e->quotes[j]) || memcmp(e->text + parts.marks[j].begin, e->quotes[j], n))
				fail_msg("case %zu: quote '%.*s'", i, (int)n, e->text + parts.marks[j].begin);
		}
	}
}

static void test_many_marks(void **state)
{
	char text[4096] = "";
	ruv_cite_parts parts;

	(void)state;
	for (int i = 1; i <= 100; i++)
		sprintf(text + strlen(text), "see [%d] ", i);
	ruv_cite_parse(&parts, text);
	assert_int_equal(parts.n_marks, RUV_ANSWER_MAX_CITATIONS);
}

static bool verbatim(const char *source, const char *quote)
{
	return ruv_cite_is_verbatim(source, quote, strlen(quote));
}

static void test_verbatim(void **state)
{
	const char *source = "First line.\nThe nightly\n   backup starts at 02:00. It is kept.";

	(void)state;
	assert_true(verbatim(source, "The nightly backup starts at 02:00."));
	assert_true(verbatim(source, " The nightly backup  starts at 02:00. "));
	assert_true(verbatim(source, "It is kept."));
	assert_false(verbatim(source, "The nightly backup starts at 03:00."));
	assert_false(verbatim(source, "Thenightly"));
	assert_false(verbatim(source, "It is kept. And more"));
	assert_false(verbatim(source, ""));
	assert_false(verbatim("", "x"));
}

static void test_line(void **state)
{
	static const char file[] =
	    "# Backups\n\nSome words.\nThe **nightly** backup starts\nat `02:00`. It is kept.\n\n- The list's\n  last item.\n";
	size_t n = sizeof file - 1;
#define LINE(first, last, quote) ruv_cite_find_line(file, n, first, last, quote, strlen(quote))

	(void)state;
	assert_int_equal(LINE(3, 5, "The nightly backup starts at 02:00."), 4);
	assert_int_equal(LINE(3, 5, "It is kept."), 5);
	assert_int_equal(LINE(7, 8, "last item."), 8);
	assert_int_equal(LINE(7, 8, "The list's last item."), 7);
	assert_int_equal(LINE(3, 3, "It is kept."), 0); /* outside the passage's lines */
	assert_int_equal(LINE(1, 8, "Not there at all"), 0);
	assert_int_equal(LINE(50, 60, "It is kept."), 0);
	assert_int_equal(LINE(1, 8, "..."), 0);
	assert_int_equal(ruv_cite_find_line(NULL, 0, 1, 5, "x", 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_many_marks),
	    cmocka_unit_test(test_verbatim),
	    cmocka_unit_test(test_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_answer_match.c - the normal form and scores of the SQuAD evaluation, against values worked out by hand. */
#include "test.h"

#include "text/answer_match.h"

static void normalizes(const char *text, const char *expected)
{
	char *normal = ruv_answer_normalize(text);
	assert_non_null(normal);
	assert_string_equal(normal, expected);
	free(normal);
}

static void the_normal_form_drops_case_articles_punctuation_and_space(void **state)
{
	(void)state;
	normalizes("The  Quick, Brown-Fox!", "quick brownfox");
	normalizes(" an A the ", "");
	normalizes("É\u00a0Über\tx", "é über x");
	normalizes("\xff\xfe odd", "\xff\xfe odd");
	normalizes("", "");
}

static ruv_answer_score match(const char *given, const char *right)
{
	ruv_error err = {0};
	ruv_answer_score score;
	assert_ok(ruv_answer_match(&score, given, &right, 1, &err), err);
	return score;
}

static void scores_match_hand_computed_values(void **state)
{
	const char *both[] = {"seven", "the number 7"};
	ruv_error err = {0};
	ruv_answer_score score;
	(void)state;
	assert_true(match("the Denver Broncos.", "Denver Broncos").exact);
	assert_float_equal(match("Denver Broncos", "Denver").f1, 2.0 / 3, 1e-9);
	assert_float_equal(match("a b c d", "b d e").f1, 2 * (2.0 / 3) * (2.0 / 3) / (4.0 / 3), 1e-9); /* "a" is an article */
	assert_float_equal(match("x x y", "x y y").f1, 2.0 / 3, 1e-9);
	assert_float_equal(match("", "something").f1, 0, 0);
	assert_true(match("", "the").exact);
	assert_ok(ruv_answer_match(&score, "number 7", both, 2, &err), err);
	assert_true(score.exact);
	assert_int_equal(ruv_answer_match(&score, "x", both, 0, &err), RUV_EINVAL);
}

static void containment_respects_words(void **state)
{
	(void)state;
	assert_int_equal(ruv_answer_contains("It was the 1990s.", "1990"), 0);
	assert_int_equal(ruv_answer_contains("In 19 or 1990, say.", "1990"), 1);
	assert_int_equal(ruv_answer_contains("anything", "the"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_normal_form_drops_case_articles_punctuation_and_space),
	    cmocka_unit_test(scores_match_hand_computed_values),
	    cmocka_unit_test(containment_respects_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

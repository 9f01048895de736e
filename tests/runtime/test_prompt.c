/* test_prompt.c - the user text against docs/prompt-format.md, byte by byte. */
#include "test.h"

#include "runtime/context.h"

static char *user_text(const ruv_context_source *sources, int n, const char *question)
{
	ruv_buf buf;

	ruv_buf_init(&buf, 65536);
	assert_int_equal(ruv_context_user_text(&buf, sources, n, question), RUV_OK);
	return ruv_buf_take(&buf);
}

/* The example of the contract itself. */
static void test_contract(void **state)
{
	static const ruv_context_source sources[] = {
	    {"Backups", "The nightly backup starts at 02:00. It is kept for 30 days."},
	    {"Restore", "A restore needs the passphrase that was printed at setup."},
	};
	char *text = user_text(sources, 2, "When does the nightly backup start?");

	(void)state;
	assert_string_equal(text, "Sources:\n[1] Backups\nThe nightly backup starts at 02:00. It is kept for 30 days.\n\n"
	                          "[2] Restore\nA restore needs the passphrase that was printed at setup.\n\n"
	                          "Question: When does the nightly backup start?");
	free(text);
}

/* That example as the document prints it, so that the two cannot drift apart. */
static void test_document_agrees(void **state)
{
	static const ruv_context_source sources[] = {
	    {"Backups", "The nightly backup starts at 02:00. It is kept for 30 days."},
	    {"Restore", "A restore needs the passphrase that was printed at setup."},
	};
	char *text = user_text(sources, 2, "When does the nightly backup start?"), *document = calloc(1, 65536);
	FILE *file = fopen(RUV_SOURCE_DIR "/docs/prompt-format.md", "r");

	(void)state;
	assert_non_null(file);
	assert_non_null(document);
	assert_true(fread(document, 1, 65535, file) > 0);
	fclose(file);
	assert_non_null(strstr(document, text));
	free(document);
	free(text);
}

static void test_without_titles_and_white_space(void **state)
{
	static const ruv_context_source sources[] = {
	    {NULL, "  One\n\n two\tthree.  "},
	    {"", "Four."},
	    {" A \n title ", "Five [1] six."},
	};
	char *text = user_text(sources, 3, "  What\n now? ");

	(void)state;
	assert_string_equal(text, "Sources:\n[1] One two three.\n\n[2] Four.\n\n[3] A title\nFive [1] six.\n\nQuestion: What now?");
	free(text);
	text = user_text(NULL, 0, " Hello\n there ");
	assert_string_equal(text, "Hello there");
	free(text);
}

static void test_limit(void **state)
{
	static const ruv_context_source source = {"T", "0123456789012345678901234567890123456789"};
	ruv_buf buf;

	(void)state;
	ruv_buf_init(&buf, 32);
	assert_int_equal(ruv_context_user_text(&buf, &source, 1, "Q"), RUV_ELIMIT);
	ruv_buf_release(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_contract),
	    cmocka_unit_test(test_document_agrees),
	    cmocka_unit_test(test_without_titles_and_white_space),
	    cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

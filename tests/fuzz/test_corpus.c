/* test_corpus.c - replays every input of the corpora. A file named ok-* must be accepted, bad-* refused; others (found by fuzzing)
 * must only do no harm. */
#include "test.h"

#include <dirent.h>

#include "base/file.h"
#include "targets.h"

static int replay(const char *name)
{
	char path[512];
	int n = 0;
	DIR *d;

	snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", RUV_SOURCE_DIR, name);
	d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		ruv_error err = {0};
		char *bytes;
		size_t size;
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s/%.200s", RUV_SOURCE_DIR, name, e->d_name);
		assert_ok(ruv_file_read(&bytes, &size, path, 1 << 24, &err), err);
		uint8_t *exact = malloc(size ? size : 1); /* so that a byte read too far shows */
		memcpy(exact, bytes, size);
		int rc = fuzz_run(name, exact, size, &err);
		if (!strncmp(e->d_name, "ok-", 3) && rc)
			fail_msg("%s/%s is refused: %s", name, e->d_name, err.message);
		if (!strncmp(e->d_name, "bad-", 4) && !rc)
			fail_msg("%s/%s is accepted", name, e->d_name);
		free(exact);
		free(bytes);
		n++;
	}
	if (d)
		closedir(d);
	return n;
}

static void every_corpus_replays(void **state)
{
	(void)state;
	for (int i = 0; fuzz_name_at(i); i++) {
		int n = replay(fuzz_name_at(i));
		print_message("%-12s %d inputs\n", fuzz_name_at(i), n);
		if (!n)
			fail_msg("no corpus for target %s", fuzz_name_at(i));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_corpus_replays)};
	return cmocka_run_group_tests_name("fuzz corpora", tests, NULL, NULL);
}

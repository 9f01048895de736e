/* test_durability.c - a writer killed at random points loses nothing that it was told is stored; damaged files are refused or
 * survived with a clear error, never with a crash. RUV_TEST_KILLS=200 kills more writers than a test run has time for. */
#include "store_test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"

enum { ROUNDS = 25, BATCH = 5, MAX_TOLD = 200000 };

/* What the writer tells its parent after a call returned: one line through a pipe. */
typedef struct note {
	char what; /* 'a' added a batch, 'f' forgot one node of it */
	int number;
	char ids[BATCH][RUV_ID_SIZE];
} note;

static void write_for_ever(const char *dir, int fd, int round)
{
	ruv_memory *m = NULL;
	ruv_memory_options o = {.embedder_id = "test-embedder", .embedder_version = "1", .dimension = TEST_DIM, .create = true};
	ruv_error err = {0};
	ruv_rng rng;

	if (ruv_memory_open(&m, dir, &o, &err)) {
		fprintf(stderr, "child: %s\n", err.message);
		_exit(9);
	}
	ruv_rng_init(&rng, (uint64_t)round);
	for (int number = 0;; number++) {
		ruv_memory_node nodes[BATCH];
		float v[BATCH][TEST_DIM];
		char text[BATCH][512];
		note said = {'a', number, {{0}}};
		memset(nodes, 0, sizeof nodes);
		for (int i = 0; i < BATCH; i++) {
			snprintf(text[i], sizeof text[i], "round %d batch %d part %d %.*s", round, number, i,
			         (int)ruv_rng_below(&rng, 400),
			         "pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad "
			         "pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad "
			         "pad pad pad "
			         "pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad pad "
			         "pad pad pad");
			random_vector(v[i], TEST_DIM, &rng);
			nodes[i].text = text[i];
			nodes[i].vector = v[i];
			nodes[i].type = RUV_NODE_FACT;
		}
		if (ruv_memory_add(m, nodes, BATCH, &err))
			_exit(8);
		for (int i = 0; i < BATCH; i++)
			memcpy(said.ids[i], nodes[i].id, RUV_ID_SIZE);
		if (write(fd, &said, sizeof said) != sizeof said)
			_exit(7);
		if (number % 3 == 2) {
			const char *id = nodes[0].id;
			if (ruv_memory_forget(m, &id, 1, &err))
				_exit(6);
			said.what = 'f';
			if (write(fd, &said, sizeof said) != sizeof said)
				_exit(5);
		}
	}
}

static bool print_problem(void *user, const char *problem)
{
	(void)user;
	print_error("%s\n", problem);
	return true;
}

static void test_killed_writer(void **state)
{
	note *told = malloc(sizeof *told * MAX_TOLD);
	const char *wanted = getenv("RUV_TEST_KILLS");
	int n_told = 0, n_before = 0, n_rounds = wanted ? atoi(wanted) : ROUNDS;
	ruv_rng rng;

	ruv_rng_init(&rng, 99);
	for (int round = 0; round < n_rounds; round++) {
		struct timespec nap = {0, (long)(1000000 + ruv_rng_below(&rng, round < 5 ? 20000000 : 120000000))};
		ruv_memory_report report;
		ruv_memory_nodes got;
		ruv_memory_stats stats;
		ruv_error err = {0};
		ruv_memory *m;
		int fds[2], status;
		int64_t live = 0;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		assert_int_equal(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) < 0, 0);
		fflush(NULL);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			close(fds[0]);
			write_for_ever(*state, fds[1], round);
		}
		close(fds[1]);
		nanosleep(&nap, NULL);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSIGNALED(status))
			fail_msg("the writer ended by itself, with %d", WEXITSTATUS(status));
		while (n_told < MAX_TOLD && read(fds[0], &told[n_told], sizeof *told) == (ssize_t)sizeof *told)
			n_told++;
		assert_true(n_told < MAX_TOLD);
		close(fds[0]);

		m = open_memory(*state);
		for (int i = n_before; i < n_told; i++) {
			for (int j = 0; j < BATCH; j++) {
				char expected[64];
				bool gone = j == 0 && i + 1 < n_told && told[i + 1].what == 'f';
				int rc = ruv_memory_get(m, &got, told[i].ids[j], &err);
				if (told[i].what == 'f')
					break;
				/* the last forgetting may have been done without having been told */
				if (gone ? rc != RUV_ENOTFOUND : rc && !(j == 0 && i + 1 == n_told && told[i].number % 3 == 2))
					fail_msg("round %d: node %d of batch %d: %s", round, j, told[i].number,
					         rc ? err.message : "still there");
				if (!rc) {
					snprintf(expected, sizeof expected, "round %d batch %d part %d ", round, told[i].number, j);
					assert_memory_equal(got.items[0].text, expected, strlen(expected));
					assert_non_null(got.items[0].vector);
					ruv_memory_nodes_release(&got);
				}
			}
		}
		for (int i = 0; i < n_told; i++)
			live += told[i].what == 'a' ? BATCH : -1;
		assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
		/* Of what was not told, at most one call a round may be there, and then all of it: a batch, or the forgetting of
		 * one. */
		if (stats.n_nodes < live - (round + 1) || stats.n_nodes > live + (round + 1) * BATCH)
			fail_msg("%lld nodes are there, %lld were acknowledged", (long long)stats.n_nodes, (long long)live);
		assert_ok(ruv_memory_check(m, &report, false, print_problem, NULL, &err), err);
		assert_int_equal(report.n_problems, 0);
		{
			/* what was half done is not there: every batch has all its parts but those forgotten */
			ruv_memory_nodes all;
			int parts[BATCH] = {0};
			assert_ok(ruv_memory_list(m, &all, NULL, false, 0, 1000000, &err), err);
			for (int i = 0; i < all.n; i++) {
				int r, b, part;
				assert_int_equal(sscanf(all.items[i].text, "round %d batch %d part %d", &r, &b, &part), 3);
				parts[part]++;
			}
			for (int i = 2; i < BATCH; i++)
				assert_int_equal(parts[i], parts[1]);
			ruv_memory_nodes_release(&all);
		}
		ruv_memory_free(m);
		n_before = n_told;
	}
	print_message("%d acknowledged calls in %d killed writers, none lost\n", n_told, n_rounds);
	free(told);
}

/* Opens, reads, searches, checks and writes what may be damaged; every error must be one of the announced ones. */
static void use(const char *dir, const char *what, int *n_refused)
{
	ruv_memory_options o = {.embedder_id = "test-embedder", .dimension = TEST_DIM, .lock_wait_ms = 200};
	float v[TEST_DIM] = {1};
	ruv_memory_query q = {.text = "word number 7", .vector = v, .k = 50};
	ruv_memory_node node = {.text = "one more", .vector = v};
	ruv_memory_report report;
	ruv_memory_nodes nodes;
	ruv_memory_hits hits;
	ruv_error err = {0};
	ruv_memory *m = NULL;
	int rc[5] = {0};

	rc[0] = ruv_memory_open(&m, dir, &o, &err);
	if (!rc[0]) {
		rc[1] = ruv_memory_search(m, &hits, &q, &err);
		if (!rc[1])
			ruv_memory_hits_release(&hits);
		rc[2] = ruv_memory_list(m, &nodes, NULL, false, 0, 1000, &err);
		if (!rc[2])
			ruv_memory_nodes_release(&nodes);
		rc[3] = ruv_memory_check(m, &report, false, NULL, NULL, &err);
		if (!rc[3] && report.n_problems)
			rc[3] = RUV_ECORRUPT;
		rc[4] = ruv_memory_add(m, &node, 1, &err);
	}
	ruv_memory_free(m);
	for (int i = 0; i < 5; i++) {
		if (rc[i] != RUV_OK && rc[i] != RUV_ECORRUPT && rc[i] != RUV_ENOTFOUND && rc[i] != RUV_EFORMAT &&
		    rc[i] != RUV_EUNSUPPORTED && rc[i] != RUV_EMISMATCH && rc[i] != RUV_EIO)
			fail_msg("%s: step %d gave %s: %s", what, i, ruv_status_name(rc[i]), err.message);
		if (rc[i]) {
			++*n_refused;
			break;
		}
	}
}

static void test_damaged_files(void **state)
{
	char path[512], wal[520], what[80];
	ruv_memory *m = open_memory(*state);
	char *good;
	size_t size;
	float v[TEST_DIM];
	ruv_error err = {0};
	ruv_rng rng;
	int n_refused = 0, n_quiet = 0;

	ruv_rng_init(&rng, 21);
	for (int i = 0; i < 300; i++) {
		char text[200];
		snprintf(text, sizeof text, "word number %d stands here with some others around it", i);
		random_vector(v, TEST_DIM, &rng);
		add_fact(m, text, v, NULL);
	}
	ruv_memory_free(m);
	snprintf(path, sizeof path, "%s/memory.db", (char *)*state);
	snprintf(wal, sizeof wal, "%s-wal", path);
	assert_ok(ruv_file_read(&good, &size, path, (size_t)1 << 26, &err), err);
	assert_true(access(wal, F_OK) != 0 || size > 100000); /* closed: all of it is in the one file */

	/* cut short */
	for (int i = 0; i < 24; i++) {
		size_t keep = i < 8 ? (size_t)(i * 90) : size * (size_t)(i - 7) / 17;
		FILE *f;
		unlink(wal);
		f = fopen(path, "wb");
		fwrite(good, 1, keep, f);
		fclose(f);
		snprintf(what, sizeof what, "cut to %zu of %zu bytes", keep, size);
		int before = n_refused;
		use(*state, what, &n_refused);
		if (n_refused == before)
			fail_msg("%s: nobody noticed", what);
	}
	/* a page of zeros, a page of noise, flipped bytes */
	for (int i = 0; i < 60; i++) {
		size_t at = ruv_rng_below(&rng, size / 4096) * 4096;
		char *bad = malloc(size);
		FILE *f;
		memcpy(bad, good, size);
		for (size_t j = 0; j < 4096; j++) {
			if (i % 3 == 0)
				bad[at + j] = 0;
			else if (i % 3 == 1)
				bad[at + j] = (char)ruv_rng_u64(&rng);
		}
		if (i % 3 == 2)
			for (int j = 0; j < 20; j++)
				bad[ruv_rng_below(&rng, size)] ^= (char)(1 << ruv_rng_below(&rng, 8));
		unlink(wal);
		f = fopen(path, "wb");
		fwrite(bad, 1, size, f);
		fclose(f);
		free(bad);
		snprintf(what, sizeof what, "damage %d at page %zu", i, at / 4096);
		int before = n_refused;
		use(*state, what, &n_refused);
		n_quiet += n_refused == before;
	}
	print_message("%d damaged files refused or found by check; %d had their damage in bytes that mean nothing\n", n_refused,
	              n_quiet);
	assert_true(n_quiet < 15);
	free(good);
}

static void test_not_a_memory(void **state)
{
	char path[512];
	ruv_memory_options create = {.create = true};
	ruv_memory *m = NULL;
	ruv_error err = {0};

	/* nothing, and no such directory */
	assert_int_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_ENOTFOUND);
	snprintf(path, sizeof path, "%s/none", (char *)*state);
	assert_int_equal(ruv_memory_open(&m, path, NULL, &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_memory_open(&m, "", NULL, &err), RUV_EINVAL);
	/* another file of that name */
	snprintf(path, sizeof path, "%s/memory.db", (char *)*state);
	{
		static const char text[] =
		    "This is no database, though it is long enough to be read as the header of one: 0123456789 0123456789.";
		assert_ok(ruv_file_write(path, text, sizeof text, &err), err);
	}
	assert_int_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_ECORRUPT);
	assert_non_null(strstr(err.message, "memory.db"));
	assert_int_equal(ruv_memory_open(&m, *state, &create, &err), RUV_ECORRUPT); /* and is not written over */
	/* a directory of that name */
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_not_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_OK);
	rmdir(path);
	/* a database of another program, and a newer version's */
	{
		char command[1200];
		ruv_memory *good;
		snprintf(command, sizeof command, "%s/x", (char *)*state);
		good = open_memory(command);
		add_fact(good, "x", NULL, NULL);
		ruv_memory_free(good);
		char *bytes;
		size_t n;
		snprintf(command, sizeof command, "%s/x/memory.db", (char *)*state);
		assert_ok(ruv_file_read(&bytes, &n, command, 1 << 26, &err), err);
		bytes[63] = 99; /* user_version, big-endian at 60 */
		assert_ok(ruv_file_write(path, bytes, n, &err), err);
		assert_int_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_EUNSUPPORTED);
		assert_non_null(strstr(err.message, "schema 99"));
		bytes[63] = 1;
		bytes[68] = 'Z'; /* application_id at 68 */
		assert_ok(ruv_file_write(path, bytes, n, &err), err);
		assert_int_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_EFORMAT);
		free(bytes);
	}
	/* an empty file, as a kill between making it and filling it leaves it */
	assert_ok(ruv_file_write(path, "", 0, &err), err);
	assert_int_equal(ruv_memory_open(&m, *state, NULL, &err), RUV_ENOTFOUND);
	assert_ok(ruv_memory_open(&m, *state, &create, &err), err);
	ruv_memory_free(m);
}

static void test_read_only(void **state)
{
	ruv_memory *m = open_memory(*state), *r = NULL;
	ruv_memory_options o = {.read_only = true};
	ruv_memory_node node = {.text = "x"};
	ruv_memory_stats stats;
	ruv_memory_report report;
	ruv_error err = {0};

	add_fact(m, "seen by both", NULL, NULL);
	assert_ok(ruv_memory_open(&r, *state, &o, &err), err);
	assert_int_equal(ruv_memory_add(r, &node, 1, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "read-only"));
	add_fact(m, "and this", NULL, NULL);
	assert_ok(ruv_memory_get_stats(r, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 2);
	assert_ok(ruv_memory_check(r, &report, false, NULL, NULL, &err), err);
	assert_int_equal(report.n_problems, 0);
	ruv_memory_free(r);
	ruv_memory_free(m);
	assert_ok(ruv_memory_open(&r, *state, &o, &err), err);
	ruv_memory_free(r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_killed_writer), T(test_damaged_files), T(test_not_a_memory), T(test_read_only)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

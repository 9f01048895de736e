/* test_concurrent.c - searches beside writers: threads of one memory, and two processes on one directory. */
#include "store_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/wait.h>

enum { N_FIXED = 200, N_MOVING = 40, N_WRITES = 400, N_READERS = 3 };

typedef struct shared {
	ruv_memory *m;
	char moving[N_MOVING][RUV_ID_SIZE];
	atomic_bool stop;
	atomic_int n_searches, n_errors;
	char error[480];
} shared;

/* Every fixed node is found by its own vector at every moment, and every moving one is found somewhere. */
static void *read_on(void *user)
{
	shared *s = user;
	ruv_rng rng;
	ruv_error err = {0};

	ruv_rng_init(&rng, 1000);
	while (!atomic_load(&s->stop) || atomic_load(&s->n_searches) < 20) {
		int i = (int)ruv_rng_below(&rng, N_FIXED), n_moving = 0, n_fixed = 0;
		float v[TEST_DIM] = {0};
		ruv_memory_query q = {.text = "lamp", .vector = v, .k = N_FIXED + N_MOVING + 500, .n_candidates = 2000};
		ruv_memory_hits hits;
		v[i % TEST_DIM] = 1;
		v[(i / TEST_DIM) % TEST_DIM] += 0.5f;
		if (ruv_memory_search(s->m, &hits, &q, &err)) {
			if (!atomic_fetch_add(&s->n_errors, 1))
				snprintf(s->error, sizeof s->error, "%s", err.message);
			break;
		}
		for (int h = 0; h < hits.n; h++) {
			n_moving += !strncmp(hits.items[h].node.text, "moving", 6);
			n_fixed += !strncmp(hits.items[h].node.text, "fixed", 5);
			/* A hit is a whole node: text and labels of one version. */
			if (!strncmp(hits.items[h].node.text, "moving", 6)) {
				int version = 0;
				sscanf(hits.items[h].node.text, "moving lamp version %d", &version);
				if (version != hits.items[h].node.version && !atomic_fetch_add(&s->n_errors, 1))
					snprintf(s->error, sizeof s->error, "text of version %d in version %d", version,
					         hits.items[h].node.version);
			}
		}
		if ((n_moving != N_MOVING || n_fixed != N_FIXED) && !atomic_fetch_add(&s->n_errors, 1))
			snprintf(s->error, sizeof s->error, "%d of %d moving and %d of %d fixed nodes found", n_moving, N_MOVING,
			         n_fixed, N_FIXED);
		atomic_fetch_add(&s->n_searches, 1);
		ruv_memory_hits_release(&hits);
	}
	return NULL;
}

static void test_threads(void **state)
{
	shared s = {.m = open_memory(*state)};
	pthread_t readers[N_READERS];
	ruv_rng rng;
	float v[TEST_DIM];
	ruv_error err = {0};
	ruv_memory_report report;

	ruv_rng_init(&rng, 31);
	for (int i = 0; i < N_FIXED + N_MOVING; i++) {
		random_vector(v, TEST_DIM, &rng);
		add_fact(s.m, i < N_FIXED ? "fixed lamp" : "moving lamp version 1", v, i < N_FIXED ? NULL : s.moving[i - N_FIXED]);
	}
	for (int i = 0; i < N_READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &s), 0);
	for (int i = 0; i < N_WRITES && !atomic_load(&s.n_errors); i++) {
		char text[64], id[RUV_ID_SIZE];
		random_vector(v, TEST_DIM, &rng);
		if (i % 2) { /* a moving node gets a new vector and text */
			ruv_memory_node node = {.text = text, .vector = v};
			snprintf(text, sizeof text, "moving lamp version %d", i / 2 / N_MOVING + 2);
			memcpy(node.id, s.moving[i / 2 % N_MOVING], RUV_ID_SIZE);
			assert_ok(ruv_memory_update(s.m, &node, &err), err);
		} else { /* something comes and goes */
			const char *one = id;
			add_fact(s.m, "passing", v, id);
			assert_ok(ruv_memory_forget(s.m, &one, 1, &err), err);
		}
	}
	atomic_store(&s.stop, true);
	for (int i = 0; i < N_READERS; i++)
		pthread_join(readers[i], NULL);
	if (atomic_load(&s.n_errors))
		fail_msg("%s", s.error);
	assert_ok(ruv_memory_check(s.m, &report, false, NULL, NULL, &err), err);
	assert_int_equal(report.n_problems, 0);
	print_message("%d searches beside %d writes\n", atomic_load(&s.n_searches), N_WRITES);
	ruv_memory_free(s.m);
}

typedef struct adder {
	ruv_memory *m;
	int number, rc;
	char error[480];
} adder;

static void *add_many(void *user)
{
	adder *a = user;
	ruv_error err = {0};

	for (int i = 0; i < 50 && !a->rc; i++) {
		char text[64];
		ruv_memory_node node = {.text = text};
		snprintf(text, sizeof text, "thread %d write %d", a->number, i);
		a->rc = ruv_memory_add(a->m, &node, 1, &err);
	}
	snprintf(a->error, sizeof a->error, "%s", err.message);
	return NULL;
}

static void test_many_writers(void **state)
{
	ruv_memory *m = open_memory(*state), *same = open_memory(*state); /* two handles: as good as two processes */
	adder adders[6];
	pthread_t threads[6];
	ruv_memory_stats stats;
	ruv_error err = {0};

	for (int i = 0; i < 6; i++) {
		adders[i] = (adder){.m = i % 2 ? m : same, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &adders[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		if (adders[i].rc)
			fail_msg("%s", adders[i].error);
	}
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 300);
	ruv_memory_free(same);
	ruv_memory_free(m);
}

static void test_processes(void **state)
{
	ruv_memory *m = open_memory(*state);
	float v[TEST_DIM] = {1};
	ruv_memory_query q = {.vector = v, .k = 100};
	ruv_memory_hits hits;
	ruv_error err = {0};
	ruv_memory_nodes nodes;
	pid_t pid;
	int status;

	add_fact(m, "by the parent", v, NULL);
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err); /* vectors are in memory now */
	assert_int_equal(hits.n, 1);
	ruv_memory_hits_release(&hits);
	ruv_memory_free(m); /* SQLite connections do not survive a fork */
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		ruv_memory_options o = {.embedder_id = "test-embedder", .embedder_version = "1", .dimension = TEST_DIM};
		for (int i = 0; i < 30; i++) {
			ruv_memory_node node = {.text = "by the child", .vector = v};
			if (ruv_memory_open(&m, *state, &o, &err) || ruv_memory_add(m, &node, 1, &err)) {
				fprintf(stderr, "child: %s\n", err.message);
				_exit(1);
			}
			ruv_memory_free(m);
		}
		_exit(0);
	}
	m = open_memory(*state);
	for (int i = 0; i < 30; i++) {
		add_fact(m, "by the parent", v, NULL);
		assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
		assert_true(hits.n >= i + 2);
		ruv_memory_hits_release(&hits);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	/* the child's writes are in this process's search without being told */
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 61);
	ruv_memory_hits_release(&hits);
	assert_ok(ruv_memory_list(m, &nodes, NULL, false, 0, 1000, &err), err);
	assert_int_equal(nodes.n, 61);
	ruv_memory_nodes_release(&nodes);
	ruv_memory_free(m);
}

static void test_locked(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_options o = {.lock_wait_ms = 50};
	ruv_memory_node node = {.text = "x"};
	ruv_memory_nodes nodes;
	char path[512];
	ruv_error err = {0};
	int fd;

	add_fact(m, "first", NULL, NULL);
	ruv_memory_free(m);
	assert_ok(ruv_memory_open(&m, *state, &o, &err), err);
	snprintf(path, sizeof path, "%s/memory.lock", (char *)*state);
	fd = open(path, O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(ruv_memory_add(m, &node, 1, &err), RUV_EBUSY);
	assert_non_null(strstr(err.message, "process"));                      /* says who */
	assert_ok(ruv_memory_list(m, &nodes, NULL, false, 0, 10, &err), err); /* reading goes on */
	assert_int_equal(nodes.n, 1);
	ruv_memory_nodes_release(&nodes);
	close(fd);
	assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	ruv_memory_free(m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_threads), T(test_many_writers), T(test_processes), T(test_locked)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

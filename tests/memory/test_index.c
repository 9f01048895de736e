/* test_index.c - searches by the graph beside the store: the same as exact ones within its recall, whole at every moment, kept in
 * files that are believed only while they fit. */
#include "store_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { DIM = 32, N = 3000, K = 10 };

static ruv_memory *open_with(const char *dir, int64_t flat_below, bool background)
{
	ruv_memory_options o = {.embedder_id = "test-embedder",
	                        .embedder_version = "1",
	                        .dimension = DIM,
	                        .create = true,
	                        .n_cached = -1, /* every question is to be answered */
	                        .index = {.flat_below = flat_below, .m = 12, .ef_construction = 60, .no_background = !background}};
	ruv_error err = {0};
	ruv_memory *m = NULL;

	assert_ok(ruv_memory_open(&m, dir, &o, &err), err);
	return m;
}

/* Around one of 40 centres that the number decides. */
static void vector_of(float *v, int i, uint64_t seed)
{
	ruv_rng rng, centre;

	ruv_rng_init(&rng, seed * 1000003 + (uint64_t)i);
	ruv_rng_init(&centre, (uint64_t)(i % 40) + 77);
	for (int d = 0; d < DIM; d++)
		v[d] = (float)(ruv_rng_normal(&centre) + 0.7 * ruv_rng_normal(&rng));
}

/* Tags, types, domains and times by the number, so that filters let known shares through. */
static void add_range(ruv_memory *m, int from, int to, uint64_t seed, char (*ids)[RUV_ID_SIZE])
{
	static const char *const half[] = {"half"}, *const rare[] = {"half", "rare"};
	ruv_memory_node *nodes = calloc((size_t)(to - from), sizeof *nodes);
	float(*vectors)[DIM] = malloc(sizeof *vectors * (size_t)(to - from));
	char(*texts)[32] = malloc(sizeof *texts * (size_t)(to - from));
	ruv_error err = {0};

	for (int i = from; i < to; i++) {
		ruv_memory_node *n = &nodes[i - from];
		vector_of(vectors[i - from], i, seed);
		snprintf(texts[i - from], sizeof texts[i - from], "node %d", i);
		*n = (ruv_memory_node){.type = i % 10 == 3 ? RUV_NODE_FACT : RUV_NODE_DOCUMENT,
		                       .text = texts[i - from],
		                       .vector = vectors[i - from],
		                       .tags = i % 1000 == 500 ? rare : half,
		                       .n_tags = i % 1000 == 500 ? 2 : i % 2,
		                       .domain = i % 100 == 7 ? "seven" : "",
		                       .created_ms = 1000 + i,
		                       .scope = {.user = i % 5 == 4 ? "ann" : ""}};
	}
	assert_ok(ruv_memory_add(m, nodes, to - from, &err), err);
	for (int i = from; ids && i < to; i++)
		memcpy(ids[i], nodes[i - from].id, RUV_ID_SIZE);
	free(nodes);
	free(vectors);
	free(texts);
}

/* The share of what an exact search finds that the memory's own way finds, over questions near the nodes; both give as many. */
static double recall(ruv_memory *m, const ruv_memory_filter *filter, int n_questions, bool by_graph)
{
	int n_found = 0, n_there = 0;
	ruv_error err = {0};

	for (int i = 0; i < n_questions; i++) {
		float v[DIM];
		ruv_memory_query q = {.vector = v, .k = K, .mode = RUV_SEARCH_VECTOR};
		ruv_memory_hits got, truth;
		vector_of(v, i * 37 + 11, 999);
		if (filter)
			q.filter = *filter;
		assert_ok(ruv_memory_search(m, &got, &q, &err), err);
		assert_int_equal(got.by_graph, by_graph);
		q.exact = true;
		assert_ok(ruv_memory_search(m, &truth, &q, &err), err);
		assert_false(truth.by_graph);
		assert_int_equal(got.n, truth.n); /* a filter never loses results */
		for (int j = 0; j < got.n; j++) {
			assert_true(!j || got.items[j].score <= got.items[j - 1].score);
			for (int l = 0; l < truth.n; l++)
				if (!strcmp(got.items[j].node.id, truth.items[l].node.id)) {
					assert_true(fabs(got.items[j].score - truth.items[l].score) < 1e-5);
					n_found++;
				}
			for (int l = 0; l < j; l++)
				assert_string_not_equal(got.items[j].node.id, got.items[l].node.id);
		}
		n_there += truth.n;
		ruv_memory_hits_release(&got);
		ruv_memory_hits_release(&truth);
	}
	return n_there ? (double)n_found / n_there : 1;
}

static void check_clean(ruv_memory *m)
{
	ruv_memory_report report;
	ruv_error err = {0};

	assert_ok(ruv_memory_check(m, &report, false, NULL, NULL, &err), err);
	assert_int_equal(report.n_problems, 0);
}

static bool last_problem(void *user, const char *problem)
{
	snprintf(user, 400, "%s", problem);
	return true;
}

/* One name of each derived file; NULL path: how many files end so. */
static int find_file(const char *dir, const char *ending, char *path, size_t cap)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	int n = 0;

	while ((e = readdir(d))) {
		size_t l = strlen(e->d_name), k = strlen(ending);
		if (l >= k && !strcmp(e->d_name + l - k, ending)) {
			n++;
			if (path)
				snprintf(path, cap, "%s/%s", dir, e->d_name);
		}
	}
	closedir(d);
	return n;
}

static void test_recall_and_filters(void **state)
{
	static const char *const half[] = {"half"}, *const rare[] = {"rare"};
	ruv_memory *m = open_with(*state, 500, false);
	ruv_memory_filter every = {.every_scope = true}, filters[] = {{.every_scope = true, .tags = half, .n_tags = 1},
	                                                              {.every_scope = true, .types = 1 << RUV_NODE_FACT},
	                                                              {.every_scope = true, .domain = "seven"},
	                                                              {.every_scope = true, .tags = rare, .n_tags = 1},
	                                                              {.every_scope = true, .created_from_ms = 1000 + N - 60},
	                                                              {.scope = {.user = "ann"}},
	                                                              {.scope = {.user = "bob"}},
	                                                              {.scope = {.user = "ann"}, .domain = "nowhere"}};
	ruv_memory_stats stats;
	ruv_error err = {0};

	add_range(m, 0, N, 1, NULL);
	assert_true(recall(m, &every, 5, false) == 1); /* no graph before somebody asks for it */
	assert_ok(ruv_memory_index(m, 2, false, NULL, NULL, &err), err);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_true(stats.index_by_graph && stats.index_n_graph == N && stats.index_n_pending == 0 && stats.index_m == 12);
	assert_true(recall(m, &every, 100, true) >= 0.99);
	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
		double r = recall(m, &filters[i], 60, true);
		if (r < 0.98)
			fail_msg("filter %zu: recall %.3f", i, r);
	}
	check_clean(m);
	ruv_memory_free(m);
}

static void test_follows_writes(void **state)
{
	ruv_memory *m = open_with(*state, 500, false), *other;
	char(*ids)[RUV_ID_SIZE] = calloc(2 * N, sizeof *ids);
	ruv_memory_filter every = {.every_scope = true};
	ruv_memory_stats stats;
	ruv_error err = {0};
	ruv_rng rng;

	ruv_rng_init(&rng, 5);
	add_range(m, 0, N, 1, ids);
	assert_ok(ruv_memory_index(m, 1, false, NULL, NULL, &err), err);
	for (int round = 0; round < 4; round++) {
		/* half forgotten, some replaced, some new, by this handle and by another one on the same directory */
		for (int i = 0; i < N; i++) {
			const char *id = ids[i];
			float v[DIM];
			if (i % 4 == round && id[0]) {
				assert_ok(ruv_memory_forget(m, &id, 1, &err), err);
				ids[i][0] = '\0';
			} else if (i % 7 == round && id[0]) {
				ruv_memory_node node = {.text = "replaced", .vector = v};
				memcpy(node.id, id, RUV_ID_SIZE);
				vector_of(v, i, 50 + (uint64_t)round);
				assert_ok(ruv_memory_update(m, &node, &err), err);
			}
		}
		other = open_with(*state, 500, false);
		add_range(other, N + round * 200, N + round * 200 + 200, 3, ids);
		assert_true(recall(m, &every, 40, true) >= 0.98); /* pending beside the graph */
		assert_ok(ruv_memory_index(round % 2 ? other : m, 1, false, NULL, NULL, &err), err);
		assert_true(recall(m, &every, 40, true) >= 0.98);
		assert_true(recall(other, &every, 40, true) >= 0.98);
		check_clean(m);
		check_clean(other);
		ruv_memory_free(other);
	}
	assert_ok(ruv_memory_index(m, 1, true, NULL, NULL, &err), err); /* from nothing */
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.index_n_graph, stats.n_vectors);
	assert_true(recall(m, &every, 40, true) >= 0.99);
	ruv_memory_free(m);
	/* What was saved is there at once, and what came after it follows. */
	m = open_with(*state, 500, false);
	assert_true(recall(m, &every, 40, true) >= 0.99);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_true(stats.index_mapped_bytes > 0 && stats.index_n_pending == 0);
	check_clean(m);
	ruv_memory_free(m);
	assert_int_equal(find_file(*state, ".graph", NULL, 0), 1); /* former ones are swept away */
	free(ids);
}

static void damage(const char *path, off_t from_end, size_t n)
{
	struct stat st;
	int fd = open(path, O_RDWR);
	char byte;

	assert_true(fd >= 0 && !fstat(fd, &st));
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(pread(fd, &byte, 1, st.st_size - from_end + (off_t)i), 1);
		byte = (char)~byte;
		assert_int_equal(pwrite(fd, &byte, 1, st.st_size - from_end + (off_t)i), 1);
	}
	close(fd);
}

static void test_damaged_files(void **state)
{
	enum { CASES = 9 };
	ruv_memory_filter every = {.every_scope = true};
	ruv_memory *m;
	ruv_error err = {0};
	char graph[512], vectors[512], why[400];
	struct stat st;

	for (int c = 0; c < CASES; c++) {
		ruv_memory_report report;
		m = open_with(*state, 500, false);
		if (!c)
			add_range(m, 0, 1200, 1, NULL);
		assert_ok(ruv_memory_index(m, 1, false, NULL, NULL, &err), err);
		add_range(m, 2000 + c * 10, 2010 + c * 10, 1, NULL); /* after what is saved */
		assert_true(recall(m, &every, 10, true) >= 0.98);
		ruv_memory_free(m);
		assert_int_equal(find_file(*state, ".graph", graph, sizeof graph), 1);
		assert_int_equal(find_file(*state, ".vectors", vectors, sizeof vectors), 1);
		assert_int_equal(stat(vectors, &st), 0);
		switch (c) {
		case 0:
			unlink(graph);
			break;
		case 1:
			unlink(vectors);
			break;
		case 2:
			assert_int_equal(truncate(graph, 5000), 0);
			break;
		case 3:
			assert_int_equal(truncate(vectors, 4095), 0);
			break;
		case 4:
			damage(vectors, st.st_size - 100, 1); /* the header */
			break;
		case 5:
			damage(vectors, st.st_size - 4096 - 4096 - 10, 4); /* keys or labels */
			break;
		case 6:
			damage(graph, 3000, 2);
			break;
		case 7:
			assert_int_equal(truncate(vectors, 0), 0);
			break;
		default: /* a row: no search can know, `verify` does */
			damage(vectors, 4096 * 40, 8);
			m = open_with(*state, 500, false);
			assert_ok(ruv_memory_check(m, &report, false, last_problem, why, &err), err);
			assert_int_equal(report.n_problems, 1);
			assert_non_null(strstr(why, "vector"));
			assert_ok(ruv_memory_check(m, &report, true, last_problem, why, &err), err);
			assert_int_equal(report.n_repaired, 1);
			ruv_memory_free(m);
			break;
		}
		m = open_with(*state, 500, false);
		if (recall(m, &every, 10, false) < 0.999)
			fail_msg("case %d", c);
		check_clean(m);
		ruv_memory_free(m);
	}
}

/* A store put back from a backup has other events under the same numbers. */
static void test_restored(void **state)
{
	ruv_memory_filter every = {.every_scope = true};
	ruv_memory *m = open_with(*state, 500, false);
	char backup[512], db[512], wal[512];
	ruv_error err = {0};

	snprintf(backup, sizeof backup, "%s/copy", (char *)*state);
	snprintf(db, sizeof db, "%s/memory.db", (char *)*state);
	snprintf(wal, sizeof wal, "%s/memory.db-wal", (char *)*state);
	add_range(m, 0, 800, 1, NULL);
	assert_ok(ruv_memory_backup(m, backup, &err), err);
	add_range(m, 800, 1200, 1, NULL);
	assert_ok(ruv_memory_index(m, 1, false, NULL, NULL, &err), err);
	ruv_memory_free(m);
	unlink(wal);
	assert_int_equal(rename(backup, db), 0);
	m = open_with(*state, 500, false); /* the files are ahead of the store */
	assert_true(recall(m, &every, 10, false) == 1);
	check_clean(m);
	ruv_memory_free(m);
	usleep(2000);
	m = open_with(*state, 500, false);
	add_range(m, 3000, 3600, 2, NULL); /* now it is ahead of the files */
	ruv_memory_free(m);
	m = open_with(*state, 500, false);
	assert_true(recall(m, &every, 10, false) == 1);
	check_clean(m);
	ruv_memory_free(m);
}

/* ---- threads ---- */

typedef struct shared {
	ruv_memory *m;
	atomic_bool stop;
	atomic_int n_searches, n_by_graph, n_errors;
	char error[480];
} shared;

enum { STEADY = 700 };

/* A steady node is found by its own vector, at the top, at every moment. */
static void *read_on(void *user)
{
	shared *s = user;
	ruv_error err = {0};
	ruv_rng rng;

	ruv_rng_init(&rng, (uint64_t)(uintptr_t)&rng);
	while (!atomic_load(&s->stop) || atomic_load(&s->n_searches) < 50) {
		int i = (int)ruv_rng_below(&rng, STEADY);
		char text[32];
		float v[DIM];
		ruv_memory_query q = {.vector = v, .k = 5, .mode = RUV_SEARCH_VECTOR, .filter = {.every_scope = true}};
		ruv_memory_hits hits;
		bool found = false;
		vector_of(v, i, 1);
		snprintf(text, sizeof text, "node %d", i);
		if (ruv_memory_search(s->m, &hits, &q, &err)) {
			if (!atomic_fetch_add(&s->n_errors, 1))
				snprintf(s->error, sizeof s->error, "%s", err.message);
			break;
		}
		for (int h = 0; h < hits.n; h++)
			found |= !strcmp(hits.items[h].node.text, text) && hits.items[h].score > 0.9999;
		if ((!found || hits.n != 5) && !atomic_fetch_add(&s->n_errors, 1))
			snprintf(s->error, sizeof s->error, "%s is not among %d hits (by %s)", text, hits.n,
			         hits.by_graph ? "graph" : "scan");
		atomic_fetch_add(&s->n_searches, 1);
		atomic_fetch_add(&s->n_by_graph, hits.by_graph);
		ruv_memory_hits_release(&hits);
	}
	return NULL;
}

static void test_threads(void **state)
{
	shared s = {.m = open_with(*state, 400, true)};
	char(*ids)[RUV_ID_SIZE] = calloc(N, sizeof *ids);
	pthread_t readers[3];
	ruv_memory_stats stats;
	ruv_error err = {0};

	add_range(s.m, 0, STEADY, 1, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &s), 0);
	/* The graph is begun, grows, loses and regains nodes under the readers. */
	for (int round = 0; round < 3 && !atomic_load(&s.n_errors); round++) {
		const char *gone[300];
		add_range(s.m, 1000, 1600, 2 + (uint64_t)round, ids);
		for (int i = 1000; i < 1060; i++) {
			float v[DIM];
			ruv_memory_node node = {.text = "moved", .vector = v};
			memcpy(node.id, ids[i], RUV_ID_SIZE);
			vector_of(v, i, 60);
			assert_ok(ruv_memory_update(s.m, &node, &err), err);
		}
		for (int i = 0; i < 300; i++)
			gone[i] = ids[1000 + i];
		assert_ok(ruv_memory_forget(s.m, gone, 300, &err), err);
		for (int i = 0; i < 300; i++)
			gone[i] = ids[1300 + i];
		assert_ok(ruv_memory_forget(s.m, gone, 300, &err), err);
		if (round == 1)
			assert_ok(ruv_memory_index(s.m, 1, true, NULL, NULL, &err), err);
	}
	atomic_store(&s.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(readers[i], NULL);
	if (atomic_load(&s.n_errors))
		fail_msg("%s", s.error);
	assert_ok(ruv_memory_index(s.m, 1, false, NULL, NULL, &err), err);
	assert_ok(ruv_memory_get_stats(s.m, &stats, &err), err);
	assert_int_equal(stats.index_n_graph, STEADY);
	assert_true(atomic_load(&s.n_by_graph) > 0);
	check_clean(s.m);
	print_message("%d searches, %d by the graph\n", atomic_load(&s.n_searches), atomic_load(&s.n_by_graph));
	ruv_memory_free(s.m);
	free(ids);
}

/* A writer that outruns the graph while somebody searches: it links some itself, and nothing is lost or seen twice. */
static void test_writer_ahead(void **state)
{
	shared s = {.m = open_with(*state, 400, true)};
	pthread_t readers[2];
	ruv_memory_stats stats;
	ruv_error err = {0};

	add_range(s.m, 0, STEADY, 1, NULL);
	assert_ok(ruv_memory_index(s.m, 1, false, NULL, NULL, &err), err);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &s), 0);
	add_range(s.m, 1000, 4000, 9, NULL);   /* more than searches put up with, */
	for (int i = 4000; i < 4600; i += 100) /* so these are linked as they come */
		add_range(s.m, i, i + 100, 9, NULL);
	atomic_store(&s.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	if (atomic_load(&s.n_errors))
		fail_msg("%s", s.error);
	assert_ok(ruv_memory_index(s.m, 1, false, NULL, NULL, &err), err);
	assert_ok(ruv_memory_get_stats(s.m, &stats, &err), err);
	assert_int_equal(stats.index_n_graph, STEADY + 3600);
	check_clean(s.m);
	ruv_memory_free(s.m);
}

/* ---- kill -9 ---- */

static void write_and_save(const char *dir, int fd)
{
	ruv_memory *m = open_with(dir, 300, true);
	ruv_error err = {0};

	for (int i = 0;; i++) {
		float v[DIM];
		char text[32];
		ruv_memory_node node = {.text = text, .vector = v};
		vector_of(v, i, 8);
		snprintf(text, sizeof text, "write %d", i);
		if (ruv_memory_add(m, &node, 1, &err) || write(fd, node.id, RUV_ID_SIZE) != RUV_ID_SIZE)
			_exit(1);
		if (i % 10 == 9 && ruv_memory_index(m, 1, false, NULL, NULL, &err))
			_exit(2);
	}
}

static void test_killed(void **state)
{
	enum { TIMES = 12 };
	int n_acknowledged = 0;
	ruv_memory *m;
	ruv_rng rng;
	ruv_error err = {0};
	ruv_memory_stats stats;

	ruv_rng_init(&rng, 3);
	m = open_with(*state, 300, false);
	add_range(m, 0, 400, 1, NULL);
	ruv_memory_free(m);
	for (int t = 0; t < TIMES; t++) {
		char id[RUV_ID_SIZE];
		int fds[2], status;
		pid_t pid;
		assert_int_equal(pipe(fds), 0);
		fflush(NULL);
		pid = fork();
		if (!pid)
			write_and_save(*state, fds[1]);
		close(fds[1]);
		assert_int_equal(read(fds[0], id, sizeof id), (int)sizeof id); /* it is at it */
		n_acknowledged++;
		usleep((useconds_t)ruv_rng_below(&rng, 120000));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		m = open_with(*state, 300, false);
		while (read(fds[0], id, sizeof id) == (ssize_t)sizeof id) {
			ruv_memory_nodes node;
			assert_ok(ruv_memory_get(m, &node, id, &err), err);
			ruv_memory_nodes_release(&node);
			n_acknowledged++;
		}
		close(fds[0]);
		check_clean(m);
		ruv_memory_free(m);
	}
	m = open_with(*state, 300, false);
	assert_ok(ruv_memory_index(m, 1, true, NULL, NULL, &err), err); /* saving sweeps away what a kill left behind */
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_true(stats.n_vectors >= 400 + n_acknowledged && stats.n_vectors <= 400 + n_acknowledged + TIMES);
	assert_int_equal(find_file(*state, ".graph", NULL, 0), 1);
	assert_true(n_acknowledged > 0);
	ruv_memory_free(m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {
	    T(test_recall_and_filters), T(test_follows_writes), T(test_damaged_files), T(test_restored), T(test_threads),
	    T(test_writer_ahead),       T(test_killed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

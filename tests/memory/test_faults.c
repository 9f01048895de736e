/* test_faults.c - the disk and the allocator fail: at every write, flush and allocation in turn.
 *
 * A layer between SQLite and the operating system (an sqlite3_vfs) counts writes and flushes. From a chosen one on everything
 * fails, as on a full disk or a dying machine; then the power goes: what was not flushed may be there or not, sector by sector,
 * torn in the middle. After that the memory must open with every acknowledged write and nothing half. */
#include "store_test.h"

#include <sqlite3.h>

#include "base/log.h"

enum { MAX_FILES = 8, SECTOR = 512 };

/* ---- the failing disk ---- */

typedef struct disk_file {
	char path[300];
	char *flushed; /* what a power loss cannot take */
	size_t n_flushed;
} disk_file;

static struct {
	sqlite3_vfs *real;
	disk_file files[MAX_FILES];
	int n_files;
	long countdown; /* operations until everything fails; negative: never */
	bool dead, short_write;
	int code; /* what it fails with */
} disk;

typedef struct open_file {
	sqlite3_file base;
	disk_file *file; /* NULL: not watched */
	sqlite3_file *real;
} open_file;

static bool dies(void)
{
	if (!disk.dead && disk.countdown >= 0 && disk.countdown-- == 0)
		disk.dead = true;
	return disk.dead;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
	return ((open_file *)f)->real;
}

static char *read_all(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	char *data = NULL;

	*n = 0;
	if (!f)
		return NULL;
	fseek(f, 0, SEEK_END);
	*n = (size_t)ftell(f);
	rewind(f);
	data = malloc(*n + 1);
	if (fread(data, 1, *n, f) != *n)
		*n = 0;
	fclose(f);
	return data;
}

static void flush_file(disk_file *file)
{
	free(file->flushed);
	file->flushed = read_all(file->path, &file->n_flushed);
}

static int f_close(sqlite3_file *f)
{
	int rc = real_of(f)->pMethods ? real_of(f)->pMethods->xClose(real_of(f)) : SQLITE_OK;

	sqlite3_free(real_of(f));
	return rc;
}

static int f_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	return real_of(f)->pMethods->xRead(real_of(f), to, n, at);
}

static int f_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
	bool was = disk.dead;

	if (dies()) {
		if (!was && disk.short_write) /* the last one gets half way */
			real_of(f)->pMethods->xWrite(real_of(f), from, n / 2, at);
		return disk.code;
	}
	return real_of(f)->pMethods->xWrite(real_of(f), from, n, at);
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return dies() ? SQLITE_IOERR_TRUNCATE : real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
	(void)flags;
	if (dies())
		return SQLITE_IOERR_FSYNC;
	if (((open_file *)f)->file) /* what survives is kept here: the real disk need not be waited for */
		flush_file(((open_file *)f)->file);
	return SQLITE_OK;
}

static int f_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return real_of(f)->pMethods->xFileSize(real_of(f), size);
}

static int f_lock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int f_unlock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int f_check_lock(sqlite3_file *f, int *out)
{
	return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
	return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int f_sector(sqlite3_file *f)
{
	(void)f;
	return SECTOR;
}

static int f_device(sqlite3_file *f)
{
	(void)f;
	return 0; /* promises nothing: neither whole sectors nor safe overwriting */
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
	return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
	real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int f_shm_unmap(sqlite3_file *f, int remove)
{
	return real_of(f)->pMethods->xShmUnmap(real_of(f), remove);
}

static const sqlite3_io_methods methods = {
    2,         f_close,  f_read,   f_write,   f_truncate, f_sync,        f_size,      f_lock, f_unlock, f_check_lock,
    f_control, f_sector, f_device, f_shm_map, f_shm_lock, f_shm_barrier, f_shm_unmap, NULL,   NULL,
};

static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out_flags)
{
	open_file *file = (open_file *)f;
	int rc;

	(void)vfs;
	memset(file, 0, sizeof *file);
	file->real = sqlite3_malloc(disk.real->szOsFile);
	if (!file->real)
		return SQLITE_NOMEM;
	memset(file->real, 0, (size_t)disk.real->szOsFile);
	rc = disk.real->xOpen(disk.real, name, file->real, flags, out_flags);
	if (name && flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) {
		for (int i = 0; i < disk.n_files && !file->file; i++)
			if (!strcmp(disk.files[i].path, name))
				file->file = &disk.files[i];
		if (!file->file && disk.n_files < MAX_FILES) {
			file->file = &disk.files[disk.n_files++];
			snprintf(file->file->path, sizeof file->file->path, "%s", name);
			flush_file(file->file);
		}
	}
	if (file->real->pMethods)
		file->base.pMethods = &methods;
	else
		sqlite3_free(file->real);
	return rc;
}

static int v_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	int rc;

	(void)vfs;
	if (disk.dead)
		return SQLITE_IOERR_DELETE;
	rc = disk.real->xDelete(disk.real, name, sync);
	/* Without a flush of the directory, a deleted file may be there again after a power loss. */
	for (int i = 0; !rc && sync && i < disk.n_files; i++)
		if (!strcmp(disk.files[i].path, name))
			flush_file(&disk.files[i]);
	return rc;
}

static sqlite3_vfs failing;

static void install_disk(void)
{
	disk.real = sqlite3_vfs_find(NULL);
	failing = *disk.real;
	failing.pNext = NULL;
	failing.zName = "failing";
	failing.szOsFile = sizeof(open_file);
	failing.xOpen = v_open;
	failing.xDelete = v_delete;
	assert_int_equal(sqlite3_vfs_register(&failing, 1), SQLITE_OK);
}

static int start_disk(void **state)
{
	(void)state;
	install_disk();
	return 0;
}

static void new_disk(long countdown, int code, bool short_write)
{
	for (int i = 0; i < disk.n_files; i++)
		free(disk.files[i].flushed);
	memset(disk.files, 0, sizeof disk.files);
	disk.n_files = 0;
	disk.countdown = countdown;
	disk.dead = false;
	disk.code = code;
	disk.short_write = short_write;
}

static int stop_disk(void **state)
{
	(void)state;
	new_disk(-1, 0, false);
	return sqlite3_vfs_unregister(&failing);
}

/* The power goes: each file becomes what was flushed, with any of the sectors that were written since. */
static void lose_power(ruv_rng *rng)
{
	for (int i = 0; i < disk.n_files; i++) {
		disk_file *file = &disk.files[i];
		size_t n_now = 0, n;
		char *now = read_all(file->path, &n_now), *left;
		FILE *f;

		if (!now && !file->flushed)
			continue; /* is not there, and cannot come back */
		n = file->n_flushed > n_now ? file->n_flushed : n_now;
		if (ruv_rng_below(rng, 2))
			n = n_now < file->n_flushed ? file->n_flushed : n_now - ruv_rng_below(rng, n_now - file->n_flushed + 1);
		/* A file that was cut or deleted without a flush is as before or as now, not half. */
		if (n_now < file->n_flushed && ruv_rng_below(rng, 2)) {
			free(now);
			now = malloc(file->n_flushed);
			memcpy(now, file->flushed, file->n_flushed);
			n = n_now = file->n_flushed;
		} else if (n_now < file->n_flushed) {
			n = n_now;
		}
		left = calloc(1, n + 1);
		for (size_t at = 0; at < n; at += SECTOR) {
			size_t m = n - at < SECTOR ? n - at : SECTOR;
			bool fresh = ruv_rng_below(rng, 2);
			const char *from = fresh ? now : file->flushed;
			size_t have = fresh ? n_now : file->n_flushed;
			if (at < have)
				memcpy(left + at, from + at, have - at < m ? have - at : m);
		}
		f = fopen(file->path, "wb");
		if (n)
			fwrite(left, 1, n, f);
		fclose(f);
		free(left);
		free(now);
	}
}

/* ---- what is written ---- */

enum { N_CALLS = 12 };

/* Calls that each add two nodes; stops at the first failure. Returns how many were acknowledged. */
static int write_some(const char *dir, ruv_error *err, int *rc)
{
	ruv_memory_options o = {.embedder_id = "test-embedder", .embedder_version = "1", .dimension = TEST_DIM, .create = true};
	ruv_memory *m = NULL;
	float v[TEST_DIM] = {1};
	int n = 0;

	*rc = ruv_memory_open(&m, dir, &o, err);
	for (; !*rc && n < N_CALLS; n++) {
		char text[2][64];
		ruv_memory_node nodes[2] = {{.text = text[0], .vector = v}, {.text = text[1], .vector = v}};
		snprintf(text[0], sizeof text[0], "call %d left", n);
		snprintf(text[1], sizeof text[1], "call %d right", n);
		*rc = ruv_memory_add(m, nodes, 2, err);
		if (*rc)
			break;
	}
	ruv_memory_free(m);
	return n;
}

/* All acknowledged calls whole, at most the one after them, and that whole or not at all. */
static void check_after(const char *dir, int acknowledged, const char *what)
{
	ruv_memory *m = NULL;
	ruv_memory_report report;
	ruv_memory_nodes all;
	ruv_error err = {0};
	int rc = ruv_memory_open(&m, dir, NULL, &err), sides[N_CALLS + 1][2] = {{0}};

	if (rc == RUV_ENOTFOUND && acknowledged == 0)
		return;
	if (rc)
		fail_msg("%s: %s", what, err.message);
	assert_ok(ruv_memory_list(m, &all, NULL, false, 0, 1000, &err), err);
	for (int i = 0; i < all.n; i++) {
		char side[8];
		int call;
		assert_int_equal(sscanf(all.items[i].text, "call %d %7s", &call, side), 2);
		sides[call][side[0] == 'r']++;
	}
	ruv_memory_nodes_release(&all);
	for (int i = 0; i <= N_CALLS; i++)
		if (sides[i][0] != sides[i][1] || sides[i][0] > 1 || (i < acknowledged && !sides[i][0]) ||
		    (i > acknowledged && sides[i][0]))
			fail_msg("%s: call %d of %d acknowledged: %d left, %d right", what, i, acknowledged, sides[i][0],
			         sides[i][1]);
	assert_ok(ruv_memory_check(m, &report, false, NULL, NULL, &err), err);
	assert_int_equal(report.n_problems, 0);
	ruv_memory_free(m);
}

static void test_failing_disk(void **state)
{
	static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_FULL};
	int n_points = 0, n_lost_power = 0;
	ruv_rng rng;

	ruv_rng_init(&rng, 5);
	for (long at = 0;; at += 1 + (long)ruv_rng_below(&rng, 3)) {
		char dir[400], what[64];
		ruv_error err = {0};
		int rc, acknowledged;
		bool power = ruv_rng_below(&rng, 3) > 0;

		snprintf(dir, sizeof dir, "%s/%ld", (char *)*state, at);
		snprintf(what, sizeof what, "operation %ld, %s", at, power ? "power lost" : "disk failed");
		new_disk(at, codes[at % 2], at % 3 == 0);
		acknowledged = write_some(dir, &err, &rc);
		if (!disk.dead) { /* all done before */
			assert_int_equal(acknowledged, N_CALLS);
			break;
		}
		if (rc && rc != RUV_EIO && rc != RUV_ECORRUPT)
			fail_msg("%s: %s %s", what, ruv_status_name(rc), err.message);
		if (power)
			lose_power(&rng);
		n_lost_power += power;
		disk.dead = false;
		disk.countdown = -1;
		check_after(dir, acknowledged, what);
		remove_tree(dir);
		n_points++;
	}
	print_message("%d points of failure, %d of them with the power lost\n", n_points, n_lost_power);
}

/* ---- the failing allocator ---- */

static long allocations = -1; /* until one fails; negative: none does */

static bool fails(void)
{
	return allocations >= 0 && allocations-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return fails() ? NULL : __real_aligned_alloc(align, n);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

/* SQLite's own allocations fail by the same count. */
static sqlite3_mem_methods sqlite_allocator;

static void *failing_malloc(int n)
{
	return fails() ? NULL : sqlite_allocator.xMalloc(n);
}

static void *failing_realloc(void *p, int n)
{
	return fails() ? NULL : sqlite_allocator.xRealloc(p, n);
}

static int use_everything(const char *dir, ruv_error *err)
{
	static const char *const tags[] = {"b", "a"};
	ruv_memory_options o = {.embedder_id = "test-embedder", .embedder_version = "1", .dimension = TEST_DIM, .create = true};
	float v[TEST_DIM] = {1}, w[TEST_DIM] = {0, 1};
	ruv_memory_node nodes[2] = {{.text = "one apple", .vector = v, .tags = tags, .n_tags = 2, .meta = "{\"a\":1}"},
	                            {.text = "two pears", .vector = w}};
	ruv_memory_source source = {.name = "s", .hash = "h"};
	ruv_memory_node chunk = {.text = "a chunk", .vector = w};
	ruv_memory_answer answer = {.question = "How many apples?", .answer = "One.", .vector = v, .quality = 1};
	ruv_memory_written written;
	ruv_memory_query q = {.text = "apples and pears", .vector = v, .filter = {.tags = tags, .n_tags = 1}};
	ruv_memory_edge edge = {.type = RUV_EDGE_CITES};
	ruv_memory_nodes got = {0};
	ruv_memory_hits hits = {0};
	ruv_memory_graph graph = {0};
	ruv_memory *m = NULL;
	const char *id;
	FILE *null;
	int rc = ruv_memory_open(&m, dir, &o, err);

	if (!rc)
		rc = ruv_memory_add(m, nodes, 2, err);
	if (!rc)
		rc = ruv_memory_search(m, &hits, &q, err);
	ruv_memory_hits_release(&hits);
	if (!rc)
		rc = ruv_memory_source_replace(m, &source, &chunk, 1, NULL, err);
	if (!rc)
		rc = ruv_memory_write_back(m, &written, &answer, 1, err);
	memcpy(edge.src, nodes[0].id, RUV_ID_SIZE);
	memcpy(edge.dst, nodes[1].id, RUV_ID_SIZE);
	if (!rc)
		rc = ruv_memory_link(m, &edge, 1, err);
	if (!rc)
		rc = ruv_memory_neighbours(m, &graph, nodes[0].id, 2, 10, NULL, err);
	ruv_memory_graph_release(&graph);
	if (!rc)
		rc = ruv_memory_get(m, &got, nodes[1].id, err);
	if (!rc) {
		got.items[0].text = "three pears";
		rc = ruv_memory_update(m, &got.items[0], err);
	}
	ruv_memory_nodes_release(&got);
	null = rc ? NULL : fopen("/dev/null", "w");
	if (null) {
		rc = ruv_memory_export(m, null, false, NULL, err);
		fclose(null);
	}
	id = nodes[1].id;
	if (!rc)
		rc = ruv_memory_forget(m, &id, 1, err);
	ruv_memory_free(m);
	return rc;
}

static void test_failing_allocator(void **state)
{
	int n_failed = 0, n_unharmed = 0;
	ruv_rng rng;

	ruv_rng_init(&rng, 8);
	new_disk(-1, 0, false);
	for (long at = 0; n_unharmed < 8; at += at < 150 ? 1 : 1 + (long)ruv_rng_below(&rng, 23)) {
		char dir[400];
		ruv_memory_report report;
		ruv_memory *m = NULL;
		ruv_error err = {0};
		bool failed;
		int rc;

		snprintf(dir, sizeof dir, "%s/m%ld", (char *)*state, at);
		allocations = at;
		rc = use_everything(dir, &err);
		failed = allocations < 0;
		allocations = -1;
		/* A failure that cost only speed (a page cache) is no failure; everything else is told as what it is. */
		if (rc && rc != RUV_ENOMEM && rc != RUV_EIO && rc != RUV_ELIMIT)
			fail_msg("allocation %ld: %s: %s", at, ruv_status_name(rc), err.message);
		if (rc)
			assert_true(err.message[0] != 0);
		n_failed += rc != RUV_OK;
		n_unharmed += !failed;
		rc = ruv_memory_open(&m, dir, NULL, &err);
		if (!rc) {
			assert_ok(ruv_memory_check(m, &report, false, NULL, NULL, &err), err);
			assert_int_equal(report.n_problems, 0);
			ruv_memory_free(m);
		} else if (rc != RUV_ENOTFOUND) {
			fail_msg("after allocation %ld: %s", at, err.message);
		}
		remove_tree(dir);
		if (!failed)
			break;
	}
	print_message("%d failed allocations told\n", n_failed);
	assert_true(n_failed > 100);
}

static void no_log(void *user, ruv_log_level level, const char *where, const char *line)
{
	(void)user;
	(void)level;
	(void)where;
	(void)line;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_failing_disk), T(test_failing_allocator)};
	sqlite3_mem_methods failing_memory;

	ruv_log_set(no_log, NULL, RUV_LOG_ERROR);
	sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_allocator);
	failing_memory = sqlite_allocator;
	failing_memory.xMalloc = failing_malloc;
	failing_memory.xRealloc = failing_realloc;
	if (!sqlite_allocator.xMalloc) { /* before initialisation there may be none yet to wrap */
		sqlite3_initialize();
		sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_allocator);
		sqlite3_shutdown();
		sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_allocator);
		failing_memory = sqlite_allocator;
		failing_memory.xMalloc = failing_malloc;
		failing_memory.xRealloc = failing_realloc;
	}
	sqlite3_config(SQLITE_CONFIG_MALLOC, &failing_memory);
	return cmocka_run_group_tests(tests, start_disk, stop_disk);
}

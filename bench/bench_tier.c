/* bench_tier.c - more vectors than memory: the graph with its codes in memory, the F32 vectors on disk, ranked again by reading
 * them.
 *
 *   bench_tier make  --from F --dim D --n N --queries Q --out O [--threads T]
 *   bench_tier build --file O --dim D --n N --queries Q --index I [--m M] [--efc E] [--bits 8|4|1] [--threads T] [--seconds S]
 *   bench_tier truth --file O --dim D --n N --queries Q [--threads T]
 *   bench_tier ask   --file O --dim D --n N --queries Q --index I
 *
 * make: writes N vectors to O and after them the queries, and to O.truth the ten nearest of each, by an exact scan of all. The
 * first vectors are those of F (raw float32), whose last Q are the queries; when F has fewer than N, the rest are made of them: a
 * vector x plus s (y - z), normalised, for x, y, z of F drawn at random and s from 0.4 to 0.8, so that the noise has the directions
 * of the data. It prints how near these are to their x, beside how near the nearest is to a query.
 *
 * build: links them in portions, saves, and ends with 3 when S seconds are over: ask again, and it goes on.
 *
 * truth: finds the ten nearest among the first N alone, for an index that holds no more.
 *
 * ask: opens the index, gives up O's pages before every row of the table, and searches on one thread: by the clock, with the rows
 * read one after the other and all at once, and again with the rows that the pages hold by then. Memory is what the process has
 * without pages of files. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "memory/codes.h"
#include "memory/hnsw.h"

enum { K = 10, BLOCK = 16384, STRIP = 256 };

typedef struct bench {
	const char *from, *out, *file, *index;
	int dim, n_queries, m, efc, bits, n_threads;
	int64_t n, n_real;
	double seconds;
	const float *real; /* [n_real + n_queries, dim], mapped */
	float *queries;    /* [n_queries, dim] */
	float *block;      /* [BLOCK, dim] */
	int64_t first;     /* of the block */
	int n_block;
	struct nearest *found; /* [n_queries] */
	double *cosines;       /* of made vectors with their x, a few */
} bench;

typedef struct nearest {
	float score[K];
	uint32_t id[K];
	int n;
} nearest;

static void die(const char *what)
{
	fprintf(stderr, "bench_tier: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
	exit(1);
}

static void die_of(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_tier: %s: %s\n", what, err->message);
	exit(1);
}

static void *allocate(size_t n_bytes)
{
	void *p = aligned_alloc(64, (n_bytes + 63) / 64 * 64);

	if (!p)
		die("memory");
	return p;
}

static const float *map_floats(const char *path, int64_t *n_floats)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die(path);
	close(fd);
	*n_floats = st.st_size / (int64_t)sizeof(float);
	return p;
}

static void normalise(float *v, int dim)
{
	float norm = sqrtf(ruv_code_kernels_get()->dot(v, v, dim));

	for (int i = 0; i < dim; i++)
		v[i] = norm > 0 ? v[i] / norm : v[i];
}

/* ---- make ---- */

static void make_strip(void *arg, int task, int thread)
{
	bench *b = arg;
	ruv_rows_fn *dot = ruv_code_kernels_get()->dot;
	int from = task * STRIP, to = from + STRIP < b->n_block ? from + STRIP : b->n_block;
	ruv_rng rng;

	(void)thread;
	ruv_rng_init(&rng, (uint64_t)(b->first + from));
	for (int i = from; i < to; i++) {
		float *v = b->block + (size_t)i * (size_t)b->dim;
		const float *x, *y, *z;
		float s;
		if (b->first + i < b->n_real) {
			memcpy(v, b->real + (size_t)(b->first + i) * (size_t)b->dim, sizeof *v * (size_t)b->dim);
			normalise(v, b->dim);
			continue;
		}
		x = b->real + ruv_rng_below(&rng, (uint64_t)b->n_real) * (uint64_t)b->dim;
		y = b->real + ruv_rng_below(&rng, (uint64_t)b->n_real) * (uint64_t)b->dim;
		z = b->real + ruv_rng_below(&rng, (uint64_t)b->n_real) * (uint64_t)b->dim;
		s = 0.4f + 0.4f * (float)ruv_rng_double(&rng);
		for (int j = 0; j < b->dim; j++)
			v[j] = x[j] + s * (y[j] - z[j]);
		normalise(v, b->dim);
		if (i == from)
			b->cosines[task] = dot(v, x, b->dim) / sqrtf(dot(x, x, b->dim));
	}
}

/* A query against the block. */
static void compare_query(void *arg, int q, int thread)
{
	bench *b = arg;
	nearest *found = &b->found[q];
	ruv_rows_fn *dot = ruv_code_kernels_get()->dot;
	const float *query = b->queries + (size_t)q * (size_t)b->dim;

	(void)thread;
	for (int i = 0; i < b->n_block; i++) {
		float s = dot(query, b->block + (size_t)i * (size_t)b->dim, b->dim);
		int at;
		if (found->n == K && s <= found->score[K - 1])
			continue;
		found->n += found->n < K;
		for (at = found->n - 1; at > 0 && found->score[at - 1] < s; at--) {
			found->score[at] = found->score[at - 1];
			found->id[at] = found->id[at - 1];
		}
		found->score[at] = s;
		found->id[at] = (uint32_t)(b->first + i);
	}
}

static void write_all(int fd, const void *from, size_t n)
{
	for (const char *at = from; n;) {
		ssize_t put = write(fd, at, n);
		if (put <= 0)
			die("writing");
		at += put;
		n -= (size_t)put;
	}
}

/* Returns how many of the nearest are among the first n_real vectors; *near: sum of the cosines of the nearest. */
static int write_truth(const bench *b, const char *of, double *near)
{
	char path[4096];
	int n_real_found = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s.truth", of);
	f = fopen(path, "wb");
	for (int q = 0; q < b->n_queries; q++) {
		*near += b->found[q].score[0];
		for (int i = 0; i < K; i++)
			n_real_found += b->found[q].id[i] < b->n_real;
		if (!f || fwrite(b->found[q].id, sizeof *b->found[q].id, K, f) != K)
			die(path);
	}
	if (fclose(f))
		die(path);
	return n_real_found;
}

/* The queries end the file. */
static void take_queries(bench *b, const float *rows, int64_t n_floats)
{
	int64_t n = n_floats / b->dim - b->n_queries;

	if (n < b->n)
		die("the file holds fewer vectors");
	memcpy(b->queries, rows + (size_t)n * (size_t)b->dim, sizeof(float) * (size_t)b->n_queries * (size_t)b->dim);
}

static void find_truth(bench *b, ruv_pool *pool)
{
	size_t row = sizeof(float) * (size_t)b->dim;
	const float *rows;
	int64_t n_floats;
	double near = 0;
	int fd = open(b->file, O_RDONLY);

	b->found = calloc((size_t)b->n_queries, sizeof *b->found);
	if (fd < 0 || !b->found)
		die(b->file);
	rows = map_floats(b->file, &n_floats);
	take_queries(b, rows, n_floats);
	for (b->first = 0; b->first < b->n; b->first += BLOCK) {
		size_t bytes;
		b->n_block = b->n - b->first < BLOCK ? (int)(b->n - b->first) : BLOCK;
		bytes = row * (size_t)b->n_block;
		if (pread(fd, b->block, bytes, (off_t)((int64_t)row * b->first)) != (ssize_t)bytes)
			die(b->file);
		(void)posix_fadvise(fd, (off_t)((int64_t)row * b->first), (off_t)bytes, POSIX_FADV_DONTNEED);
		ruv_pool_run(pool, compare_query, b, b->n_queries);
	}
	(void)write_truth(b, b->file, &near);
	printf("the ten nearest of %lld vectors found; cosine of the queries with their nearest %.3f\n", (long long)b->n,
	       near / b->n_queries);
	close(fd);
}

static void make(bench *b, ruv_pool *pool)
{
	int64_t n_floats, n_cosines = 0;
	size_t row = sizeof(float) * (size_t)b->dim;
	double made = 0, near = 0;
	int fd, n_real_found;

	b->real = map_floats(b->from, &n_floats);
	b->n_real = n_floats / b->dim - b->n_queries;
	if (b->n_real < 1)
		die("too few vectors");
	memcpy(b->queries, b->real + (size_t)b->n_real * (size_t)b->dim, row * (size_t)b->n_queries);
	for (int q = 0; q < b->n_queries; q++)
		normalise(b->queries + (size_t)q * (size_t)b->dim, b->dim);
	b->n_real = b->n_real < b->n ? b->n_real : b->n;
	b->found = calloc((size_t)b->n_queries, sizeof *b->found);
	b->cosines = calloc(BLOCK / STRIP, sizeof *b->cosines);
	fd = open(b->out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || !b->found || !b->cosines)
		die(b->out);
	for (b->first = 0; b->first < b->n; b->first += BLOCK) {
		b->n_block = b->n - b->first < BLOCK ? (int)(b->n - b->first) : BLOCK;
		ruv_pool_run(pool, make_strip, b, (b->n_block + STRIP - 1) / STRIP);
		ruv_pool_run(pool, compare_query, b, b->n_queries);
		write_all(fd, b->block, row * (size_t)b->n_block);
		if (b->first / BLOCK % 16 == 15 || b->first + BLOCK >= b->n) { /* no more of other programs' pages than needed */
			if (fdatasync(fd))
				die(b->out);
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		}
		if (b->first > b->n_real)
			for (int i = 0; i < BLOCK / STRIP; i++, n_cosines++)
				made += b->cosines[i];
	}
	write_all(fd, b->queries, row * (size_t)b->n_queries);
	if (fsync(fd) || close(fd))
		die(b->out);
	n_real_found = write_truth(b, b->out, &near);
	printf(
	    "%lld x %d written, %lld of them real; cosine of the queries with their nearest %.3f, of made vectors with what they "
	    "were made of %.3f; of the ten nearest %.0f %% are real\n",
	    (long long)b->n, b->dim, (long long)b->n_real, near / b->n_queries, n_cosines ? made / (double)n_cosines : 0,
	    100.0 * n_real_found / K / b->n_queries);
}

/* ---- build ---- */

static void read_took(const char *index, double *wall, double *cpu)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof path, "%s.took", index);
	f = fopen(path, "r");
	if (f && fscanf(f, "%lf %lf", wall, cpu) != 2)
		die(path);
	if (f)
		fclose(f);
}

static void write_took(const char *index, double wall, double cpu)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof path, "%s.took", index);
	f = fopen(path, "w");
	if (!f || fprintf(f, "%f %f\n", wall, cpu) < 0 || fclose(f))
		die(path);
}

static int64_t anonymous_mb(void)
{
	char line[256];
	int64_t kb = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof line, f))
		(void)sscanf(line, "RssAnon: %ld", &kb);
	if (f)
		fclose(f);
	return kb / 1024;
}

static int build(bench *b, ruv_pool *pool)
{
	int64_t began = ruv_clock_now_ns(), *keys = allocate(sizeof *keys * BLOCK), n = 0;
	double wall = 0, cpu = 0;
	ruv_hnsw_rows rows = {.base = b->block, .stride = (size_t)b->dim};
	size_t row = sizeof(float) * (size_t)b->dim;
	int fd = open(b->file, O_RDONLY), rc;
	ruv_hnsw *x = NULL;
	ruv_error err = {0};

	if (fd < 0)
		die(b->file);
	rc = ruv_hnsw_open_file(&x, b->index, RUV_HNSW_READ | RUV_HNSW_TRUST, 0, NULL, &err);
	if (!rc) {
		n = ruv_hnsw_n_ids(x);
		read_took(b->index, &wall, &cpu);
	} else if (rc == RUV_ENOTFOUND) {
		ruv_hnsw_params p;
		ruv_hnsw_params_for(&p, b->dim, RUV_HNSW_IP, b->n);
		p.m = b->m ? b->m : p.m;
		p.ef_construction = b->efc ? b->efc : p.ef_construction;
		p.bits = b->bits;
		rc = ruv_hnsw_create(&x, &p, &err);
	}
	if (rc)
		die_of(b->index, &err);
	while (n < b->n && 1e-9 * (double)(ruv_clock_now_ns() - began) < b->seconds) {
		int here = b->n - n < BLOCK ? (int)(b->n - n) : BLOCK;
		int64_t wall0 = ruv_clock_now_ns(), cpu0 = ruv_clock_cpu_ns();
		if (pread(fd, b->block, row * (size_t)here, (off_t)((int64_t)row * n)) != (ssize_t)(row * (size_t)here))
			die(b->file);
		(void)posix_fadvise(fd, (off_t)((int64_t)row * n), (off_t)(row * (size_t)here), POSIX_FADV_DONTNEED);
		for (int i = 0; i < here; i++)
			keys[i] = n + i + 1;
		if (ruv_hnsw_add(x, &rows, keys, here, NULL, pool, &err))
			die_of("adding", &err);
		n += here;
		wall += 1e-9 * (double)(ruv_clock_now_ns() - wall0);
		cpu += 1e-9 * (double)(ruv_clock_cpu_ns() - cpu0);
	}
	if (ruv_hnsw_save(x, b->index, "bench_tier", &err))
		die_of("saving", &err);
	write_took(b->index, wall, cpu);
	printf("%lld of %lld linked in %.0f s, %.0f s of CPU on %d threads; %lld MB in memory\n", (long long)n, (long long)b->n,
	       wall, cpu, b->n_threads, (long long)anonymous_mb());
	ruv_hnsw_free(x);
	free(keys);
	return n < b->n ? 3 : 0;
}

/* ---- ask ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double thread_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void give_up_pages(const bench *b, const float *rows, int64_t n_floats)
{
	int fd = open(b->file, O_RDONLY);

	if (fd < 0 || madvise((void *)(uintptr_t)rows, (size_t)n_floats * sizeof *rows, MADV_DONTNEED) ||
	    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) ||
	    madvise((void *)(uintptr_t)rows, (size_t)n_floats * sizeof *rows, MADV_RANDOM))
		die(b->file);
	close(fd);
}

static void ask(bench *b)
{
	static const int efs[] = {64, 128, 256, 512, 1024};
	static const char *const ways[] = {"one by one", "all at once", "in memory"};
	int64_t n_floats, began = ruv_clock_now_ns();
	const float *base = map_floats(b->file, &n_floats);
	uint32_t *truth = allocate(sizeof *truth * K * (size_t)b->n_queries);
	double *wall = allocate(sizeof *wall * (size_t)b->n_queries), *cpu = allocate(sizeof *cpu * (size_t)b->n_queries);
	char path[4096];
	ruv_hnsw *x;
	ruv_error err = {0};
	ruv_hnsw_stats stats;
	FILE *f;

	snprintf(path, sizeof path, "%s.truth", b->file);
	f = fopen(path, "rb");
	if (!f || fread(truth, sizeof *truth, K * (size_t)b->n_queries, f) != K * (size_t)b->n_queries || fclose(f))
		die(path);
	take_queries(b, base, n_floats);
	if (ruv_hnsw_open_file(&x, b->index, RUV_HNSW_MAP | RUV_HNSW_TRUST, 0, NULL, &err))
		die_of(b->index, &err);
	printf("opened, mapped, in %.2f s\n", 1e-9 * (double)(ruv_clock_now_ns() - began));
	ruv_hnsw_free(x);
	began = ruv_clock_now_ns();
	if (ruv_hnsw_open_file(&x, b->index, RUV_HNSW_READ | RUV_HNSW_TRUST, 0, NULL, &err))
		die_of(b->index, &err);
	ruv_hnsw_get_stats(x, &stats);
	printf("read into memory in %.1f s; %lld nodes, M %d, efConstruction %d, %d bits, %.0f bytes a vector in memory\n",
	       1e-9 * (double)(ruv_clock_now_ns() - began), (long long)stats.n_nodes, ruv_hnsw_get_params(x)->m,
	       ruv_hnsw_get_params(x)->ef_construction, ruv_hnsw_get_params(x)->bits,
	       (double)stats.n_bytes / (double)stats.n_nodes);
	printf("%5s %-12s %8s %12s %10s %10s %10s %10s\n", "ef", "rows", "recall", "rows read", "median ms", "p99 ms", "CPU ms",
	       "reads/s");
	for (size_t e = 0; e < sizeof efs / sizeof *efs; e++)
		for (int way = 0; way < 3; way++) {
			ruv_hnsw_rows rows = {.base = base, .stride = (size_t)b->dim, .on_disk = way == 1};
			int depth = ruv_hnsw_get_params(x)->bits == 1 ? efs[e] / 2 : 0;
			ruv_hnsw_query query = {.k = K, .ef = efs[e], .n_rerank = depth, .how = RUV_HNSW_GRAPH, .rows = &rows};
			struct rusage before, after;
			double all;
			int64_t found = 0;
			if (way < 2)
				give_up_pages(b, base, n_floats);
			getrusage(RUSAGE_SELF, &before);
			all = 1e-6 * (double)ruv_clock_now_ns();
			for (int q = 0; q < b->n_queries; q++) {
				ruv_hnsw_hit hits[K];
				int n;
				cpu[q] = thread_ms();
				wall[q] = 1e-6 * (double)ruv_clock_now_ns();
				n = ruv_hnsw_search(x, b->queries + (size_t)q * (size_t)b->dim, &query, hits);
				wall[q] = 1e-6 * (double)ruv_clock_now_ns() - wall[q];
				cpu[q] = thread_ms() - cpu[q];
				for (int i = 0; i < n; i++)
					for (int j = 0; j < K; j++)
						found += hits[i].key - 1 == truth[(size_t)q * K + (size_t)j];
			}
			all = 1e-6 * (double)ruv_clock_now_ns() - all;
			getrusage(RUSAGE_SELF, &after);
			qsort(wall, (size_t)b->n_queries, sizeof *wall, by_value);
			qsort(cpu, (size_t)b->n_queries, sizeof *cpu, by_value);
			printf("%5d %-12s %8.4f %9.1f MB %10.3f %10.3f %10.3f %10.0f\n", efs[e], ways[way],
			       (double)found / K / b->n_queries, 512e-6 * (double)(after.ru_inblock - before.ru_inblock),
			       wall[b->n_queries / 2], wall[b->n_queries * 99 / 100], cpu[b->n_queries / 2],
			       1e3 * b->n_queries / all);
			fflush(stdout);
		}
	printf("%lld MB of memory without pages of files\n", (long long)anonymous_mb());
	ruv_hnsw_free(x);
	free(truth);
	free(wall);
	free(cpu);
}

int main(int argc, char **argv)
{
	bench b = {.dim = 384, .n = 10000000, .n_queries = 200, .bits = 4, .n_threads = 2, .seconds = 1e9};
	const char *what = argc > 1 ? argv[1] : "";
	ruv_error err = {0};
	ruv_pool *pool;
	int rc = 0;

	for (int i = 2; i + 1 < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];
		if (!strcmp(name, "--from"))
			b.from = value;
		else if (!strcmp(name, "--out"))
			b.out = value;
		else if (!strcmp(name, "--file"))
			b.file = value;
		else if (!strcmp(name, "--index"))
			b.index = value;
		else if (!strcmp(name, "--dim"))
			b.dim = atoi(value);
		else if (!strcmp(name, "--n"))
			b.n = atoll(value);
		else if (!strcmp(name, "--queries"))
			b.n_queries = atoi(value);
		else if (!strcmp(name, "--m"))
			b.m = atoi(value);
		else if (!strcmp(name, "--efc"))
			b.efc = atoi(value);
		else if (!strcmp(name, "--bits"))
			b.bits = atoi(value);
		else if (!strcmp(name, "--threads"))
			b.n_threads = atoi(value);
		else if (!strcmp(name, "--seconds"))
			b.seconds = atof(value);
		else
			what = "";
	}
	errno = 0;
	if (b.dim < 1 || b.n < K || b.n > RUV_HNSW_MAX_NODES || b.n_queries < 1)
		what = "";
	b.block = allocate(sizeof *b.block * BLOCK * (size_t)b.dim);
	b.queries = allocate(sizeof *b.queries * (size_t)b.n_queries * (size_t)b.dim);
	if (ruv_pool_create(&pool, b.n_threads, &err))
		die_of("threads", &err);
	if (!strcmp(what, "make") && b.from && b.out)
		make(&b, pool);
	else if (!strcmp(what, "build") && b.file && b.index)
		rc = build(&b, pool);
	else if (!strcmp(what, "truth") && b.file)
		find_truth(&b, pool);
	else if (!strcmp(what, "ask") && b.file && b.index)
		ask(&b);
	else
		die("make|build|truth|ask: the beginning of bench_tier.c says how");
	ruv_pool_free(pool);
	free(b.block);
	free(b.queries);
	return rc;
}

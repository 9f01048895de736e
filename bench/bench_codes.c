/* bench_codes.c - every code that vectors can be kept in: bytes, recall against exact search, speed of scanning and of coding.
 *
 *   bench_codes --file F [--dim D] [--n N] [--queries Q] [--pq 192,96,48] [--sample S]
 *
 * F: raw little-endian float32, D a vector; normalised. The last Q vectors are the queries. Each code is scanned whole, on one
 * thread and timed by its CPU clock; its recall@10 is given for its own order, and after ranking its best 20, 50, 100, 200 and 500
 * again by the F32 vectors. Product codes learn from the first S vectors. Truth is an exact scan, whose speed is the first row. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"
#include "memory/codes.h"
#include "memory/pq.h"

enum { K = 10, MOST = 500, BLOCK = 1024, LINE = 64 };

static const int depths[] = {K, 20, 50, 100, 200, MOST};
enum { N_DEPTHS = sizeof depths / sizeof *depths };

typedef struct candidate {
	float d;
	uint32_t id;
} candidate;

typedef struct bench {
	int dim, n_queries;
	int64_t n;
	float *vectors, *queries; /* [n + n_queries, dim] */
	uint32_t *truth;          /* [n_queries, K] */
} bench;

/* A way of scanning: `prepare` for a query, then distances of the vectors from `first` on. */
typedef struct scanner {
	const char *name;
	double bytes, coding, training; /* a vector; CPU microseconds a vector; CPU seconds */
	void (*prepare)(struct scanner *s, const float *query);
	void (*distances)(struct scanner *s, float *to, int64_t first, int n);
	const bench *b;
	const float *query; /* exact */
	ruv_code_format format;
	ruv_code_query code_query;
	ruv_code_distances_fn *kernel;
	size_t stride;
	unsigned char *codes;
	const ruv_pq *pq;
	float *tables;
	uint32_t ids[BLOCK];
} scanner;

static double thread_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "bench_codes: %s\n", what);
	exit(1);
}

static void *allocate(size_t n_bytes)
{
	void *p = aligned_alloc(LINE, (n_bytes + LINE - 1) / LINE * LINE);

	if (!p)
		die("out of memory");
	return p;
}

static void load(bench *b, const char *path)
{
	size_t row = sizeof(float) * (size_t)b->dim;
	FILE *f = fopen(path, "rb");
	long size;

	if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0)
		die("the file cannot be read");
	if (!b->n || b->n > size / (long)row - b->n_queries)
		b->n = size / (long)row - b->n_queries;
	if (b->n < MOST)
		die("there are too few vectors");
	b->vectors = allocate(row * (size_t)(b->n + b->n_queries));
	b->queries = b->vectors + (size_t)b->n * (size_t)b->dim;
	rewind(f);
	if (fread(b->vectors, row, (size_t)b->n, f) != (size_t)b->n || fseek(f, -(long)row * b->n_queries, SEEK_END) ||
	    fread(b->queries, row, (size_t)b->n_queries, f) != (size_t)b->n_queries)
		die("the file cannot be read");
	fclose(f);
	for (int64_t i = 0; i < b->n + b->n_queries; i++) {
		float *v = b->vectors + (size_t)i * (size_t)b->dim;
		float norm = ruv_code_kernels_get()->dot(v, v, b->dim);
		norm = norm > 0 ? 1 / sqrtf(norm) : 0;
		for (int j = 0; j < b->dim; j++)
			v[j] *= norm;
	}
}

/* ---- scanning ---- */

static void sift_down(candidate *heap, int n, int i)
{
	candidate moving = heap[i];

	for (int child; (child = 2 * i + 1) < n; i = child) {
		child += child + 1 < n && heap[child + 1].d > heap[child].d;
		if (heap[child].d <= moving.d)
			break;
		heap[i] = heap[child];
	}
	heap[i] = moving;
}

static int nearer_first(const void *a, const void *b)
{
	const candidate *x = a, *y = b;

	return x->d != y->d ? (x->d < y->d ? -1 : 1) : x->id < y->id ? -1 : x->id > y->id;
}

/* The `most` nearest, nearest first. */
static void scan(scanner *s, const float *query, candidate *to, int most)
{
	float d[BLOCK];
	int n = 0;

	s->prepare(s, query);
	for (int64_t first = 0; first < s->b->n; first += BLOCK) {
		int here = s->b->n - first < BLOCK ? (int)(s->b->n - first) : BLOCK;
		s->distances(s, d, first, here);
		for (int i = 0; i < here; i++) {
			if (n < most) {
				to[n++] = (candidate){d[i], (uint32_t)(first + i)};
				for (int at = n / 2 - 1; n == most && at >= 0; at--)
					sift_down(to, n, at);
			} else if (d[i] < to[0].d) {
				to[0] = (candidate){d[i], (uint32_t)(first + i)};
				sift_down(to, n, 0);
			}
		}
	}
	qsort(to, (size_t)n, sizeof *to, nearer_first);
}

static void exact_prepare(scanner *s, const float *query)
{
	s->query = query;
}

static void exact_distances(scanner *s, float *to, int64_t first, int n)
{
	ruv_rows_fn *dot = ruv_code_kernels_get()->dot;

	for (int i = 0; i < n; i++)
		to[i] = -dot(s->query, s->b->vectors + (size_t)(first + i) * (size_t)s->b->dim, s->b->dim);
}

static void code_prepare(scanner *s, const float *query)
{
	ruv_code_query_of_vector(&s->format, &s->code_query, query);
}

static void code_distances(scanner *s, float *to, int64_t first, int n)
{
	s->kernel(to, &s->format, &s->code_query, s->codes + (size_t)first * s->stride, s->stride, s->ids, n);
}

static void pq_prepare(scanner *s, const float *query)
{
	ruv_pq_tables(s->pq, s->tables, query);
}

static void pq_distances(scanner *s, float *to, int64_t first, int n)
{
	ruv_pq_distances(to, s->pq, s->tables, s->codes + (size_t)first * s->stride, n);
}

static void measure(const bench *b, scanner *s)
{
	candidate *found = allocate(sizeof *found * MOST);
	double seconds = 0, hit[N_DEPTHS] = {0};

	for (int q = 0; q < b->n_queries; q++) {
		const float *query = b->queries + (size_t)q * (size_t)b->dim;
		double t = thread_seconds();
		scan(s, query, found, 100);
		seconds += thread_seconds() - t;
		scan(s, query, found, MOST);
		/* What is among the first `depth` by the code is found by ranking them again. */
		for (int i = 0; i < MOST; i++)
			for (int j = 0; j < K; j++)
				if (found[i].id == b->truth[(size_t)q * K + (size_t)j])
					for (int d = 0; d < N_DEPTHS; d++)
						hit[d] += i < depths[d];
	}
	printf("%-14s %6.0f %9.2f %9.1f %10.1f", s->name, s->bytes, s->training, s->coding,
	       1e-6 * (double)b->n * b->n_queries / seconds);
	for (int d = 0; d < N_DEPTHS; d++)
		printf(" %7.4f", hit[d] / K / b->n_queries);
	putchar('\n');
	fflush(stdout);
	free(found);
}

/* ---- the codes ---- */

static void with_codes(const bench *b, const char *name, int bits, bool rotated)
{
	scanner s = {.name = name, .b = b, .prepare = code_prepare, .distances = code_distances};
	float *mean = calloc((size_t)b->dim, sizeof *mean);
	double t;

	if (!mean)
		die("out of memory");
	for (int64_t i = 0; i < b->n; i++)
		for (int j = 0; j < b->dim; j++)
			mean[j] += b->vectors[(size_t)i * (size_t)b->dim + (size_t)j] / (float)b->n;
	ruv_code_format_init(&s.format, b->dim, bits, false);
	s.format.rotated = rotated;
	s.format.centre = allocate(sizeof(float) * (size_t)b->dim);
	ruv_code_set_centre(&s.format, mean);
	s.stride = (size_t)s.format.n_bytes + sizeof(ruv_code_header);
	s.bytes = (double)s.stride;
	s.codes = allocate(s.stride * (size_t)b->n);
	s.code_query.codes = allocate((size_t)s.format.n_components);
	s.kernel = ruv_code_distances_for(ruv_code_kernels_get(), bits);
	for (int i = 0; i < BLOCK; i++)
		s.ids[i] = (uint32_t)i;
	t = thread_seconds();
	for (int64_t i = 0; i < b->n; i++)
		ruv_code_encode(&s.format, s.codes + (size_t)i * s.stride, b->vectors + (size_t)i * (size_t)b->dim);
	s.coding = 1e6 * (thread_seconds() - t) / (double)b->n;
	measure(b, &s);
	free(mean);
	free(s.format.centre);
	free(s.codes);
	free(s.code_query.codes);
}

static void with_pq(const bench *b, int n_parts, int64_t n_sample)
{
	scanner s = {.b = b, .prepare = pq_prepare, .distances = pq_distances, .bytes = n_parts, .stride = (size_t)n_parts};
	ruv_error err = {0};
	ruv_pq *pq;
	char name[32];
	double t = thread_seconds();

	if (ruv_pq_train(&pq, b->vectors, n_sample < b->n ? n_sample : b->n, b->dim, n_parts, 10, 1, NULL, &err))
		die(err.message);
	s.training = thread_seconds() - t;
	snprintf(name, sizeof name, "product %d", n_parts);
	s.name = name;
	s.pq = pq;
	s.codes = allocate((size_t)b->n * s.stride);
	s.tables = allocate(sizeof(float) * RUV_PQ_CENTROIDS * (size_t)n_parts);
	t = thread_seconds();
	for (int64_t i = 0; i < b->n; i++)
		ruv_pq_encode(pq, s.codes + (size_t)i * s.stride, b->vectors + (size_t)i * (size_t)b->dim);
	s.coding = 1e6 * (thread_seconds() - t) / (double)b->n;
	measure(b, &s);
	ruv_pq_free(pq);
	free(s.codes);
	free(s.tables);
}

int main(int argc, char **argv)
{
	bench b = {.dim = 384, .n_queries = 200};
	const char *file = NULL, *parts = "192,96,48";
	int64_t n_sample = 20000;
	scanner exact = {.name = "F32, exact", .prepare = exact_prepare, .distances = exact_distances, .b = &b};
	candidate found[K];

	for (int i = 1; i + 1 < argc; i += 2)
		if (!strcmp(argv[i], "--file"))
			file = argv[i + 1];
		else if (!strcmp(argv[i], "--dim"))
			b.dim = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--n"))
			b.n = atoll(argv[i + 1]);
		else if (!strcmp(argv[i], "--queries"))
			b.n_queries = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--pq"))
			parts = argv[i + 1];
		else if (!strcmp(argv[i], "--sample"))
			n_sample = atoll(argv[i + 1]);
		else
			file = NULL, i = argc;
	if (!file || b.dim < 1 || b.dim > RUV_CODE_MAX_DIMENSION || b.n_queries < 1)
		die("--file F [--dim D] [--n N] [--queries Q] [--pq 192,96,48] [--sample S]");
	load(&b, file);
	b.truth = allocate(sizeof *b.truth * K * (size_t)b.n_queries);
	for (int q = 0; q < b.n_queries; q++) {
		scan(&exact, b.queries + (size_t)q * (size_t)b.dim, found, K);
		for (int j = 0; j < K; j++)
			b.truth[(size_t)q * K + (size_t)j] = found[j].id;
	}
	printf("%lld x %d, %d queries, recall@%d, %s, one thread\n", (long long)b.n, b.dim, b.n_queries, K,
	       ruv_code_kernels_get()->name);
	printf("%-14s %6s %9s %9s %10s", "code", "bytes", "trained s", "coding us", "million/s");
	for (int d = 0; d < N_DEPTHS; d++)
		printf(d ? " of %4d" : "     own", depths[d]);
	putchar('\n');
	exact.bytes = (double)sizeof(float) * b.dim;
	measure(&b, &exact);
	with_codes(&b, "8 bits", 8, false);
	with_codes(&b, "4 bits", 4, false);
	with_codes(&b, "4 bits rotated", 4, true);
	with_codes(&b, "1 bit rotated", 1, true);
	for (char *rest = (char *)parts; *rest;) {
		long n_parts = strtol(rest, &rest, 10);
		if (n_parts < 1)
			die("--pq wants numbers with commas between");
		with_pq(&b, (int)n_parts, n_sample);
		rest += *rest == ',';
	}
	free(b.vectors);
	free(b.truth);
	return 0;
}

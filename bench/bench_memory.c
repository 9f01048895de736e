/* bench_memory.c - what the memory costs: adding (every batch flushed to the disk), loading, searching by vector, by words and
 * both, beside a writer, and opening again.
 *
 *   bench_memory DIR [--n N] [--batch B] [--lines FILE --vectors FILE] [--questions FILE] [--dim D] [--bits 8|4|1] [--m M]
 *              [--realtime 1]
 *
 * DIR must not hold a memory yet. With --lines (a text a line) and --vectors (raw float32, one a line) the passages are real, and
 * the last 500 are kept as questions; --questions takes the words of the word searches from a file, up to a tab in each line.
 * Without: random vectors, 40 words a text drawn with a skew from 20,000, about as often as in English. Exact search stands beside
 * its bound, the bytes of the vectors over the machine's read bandwidth; word search in memory beside FTS5's, over the same
 * questions in turns. --realtime: where other programs run, the searches beside a writer are those of a thread before whom they
 * stand back (SCHED_RR, root's right), alone and beside the writer alike; the writer is not. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "machine.h"
#include "memory/lexical.h"
#include "memory/memory_impl.h"
#include "ruvllm/memory.h"

enum { N_WORDS = 20000, TEXT_WORDS = 40, N_QUESTIONS = 500, MAX_LINE = 4096, LIMIT = 50, ROUNDS = 10 };

typedef struct bench {
	const char *dir, *lines, *vectors, *questions;
	int n, batch, dim, bits, m, realtime;
	FILE *line_file, *vector_file;
	ruv_rng rng;
	float *asked;            /* [N_QUESTIONS, dim] */
	char (*words)[MAX_LINE]; /* [N_QUESTIONS] */
	ruv_memory *memory;
} bench;

static char vocabulary[N_WORDS][12];

static void die(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_memory: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
	exit(1);
}

static const char *draw_word(ruv_rng *rng)
{
	/* Zipf by inversion of a continuous 1/x law. */
	int i = (int)pow(N_WORDS, ruv_rng_double(rng)) - 1;

	return vocabulary[i < 0 ? 0 : i >= N_WORDS ? N_WORDS - 1 : i];
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The next passage; false at the end of the files. */
static bool next(bench *b, char *text, float *v)
{
	if (b->line_file) {
		size_t n;
		if (!fgets(text, MAX_LINE, b->line_file) || fread(v, sizeof *v, (size_t)b->dim, b->vector_file) != (size_t)b->dim)
			return false;
		n = strcspn(text, "\n");
		text[n ? n : 1] = '\0';
		return true;
	}
	text[0] = '\0';
	for (int w = 0, at = 0; w < TEXT_WORDS; w++)
		at += snprintf(text + at, (size_t)(MAX_LINE - at), "%s ", draw_word(&b->rng));
	for (int d = 0; d < b->dim; d++)
		v[d] = (float)ruv_rng_normal(&b->rng);
	return true;
}

static int add_batch(bench *b, int n, int64_t *spent)
{
	float *v = malloc(sizeof *v * (size_t)b->dim * (size_t)n);
	char(*text)[MAX_LINE] = malloc(sizeof *text * (size_t)n);
	ruv_memory_node *nodes = calloc((size_t)n, sizeof *nodes);
	ruv_error err = {0};
	int64_t start;
	int got = 0;

	if (!v || !text || !nodes)
		die("out of memory", NULL);
	while (got < n && next(b, text[got], v + (size_t)got * (size_t)b->dim)) {
		nodes[got] =
		    (ruv_memory_node){.type = RUV_NODE_DOCUMENT, .text = text[got], .vector = v + (size_t)got * (size_t)b->dim};
		got++;
	}
	start = ruv_clock_now_ns();
	if (ruv_memory_add(b->memory, nodes, got, &err))
		die("adding", &err);
	*spent += ruv_clock_now_ns() - start;
	free(v);
	free(text);
	free(nodes);
	return got;
}

static void take_questions(bench *b)
{
	FILE *f = b->questions ? fopen(b->questions, "r") : NULL;

	for (int i = 0; i < N_QUESTIONS; i++) {
		if (!next(b, b->words[i], b->asked + (size_t)i * (size_t)b->dim))
			die("the files are too short", NULL);
		if (b->questions && (!f || !fgets(b->words[i], MAX_LINE, f)))
			die("the questions cannot be read", NULL);
		b->words[i][strcspn(b->words[i], "\t\n")] = '\0';
		if (!b->line_file) /* three words */
			snprintf(b->words[i], MAX_LINE, "%s %s %s", draw_word(&b->rng), draw_word(&b->rng), draw_word(&b->rng));
	}
	if (f)
		fclose(f);
}

static void print_times(const char *name, double *ms, int n)
{
	qsort(ms, (size_t)n, sizeof *ms, by_value);
	printf("%-*s median %8.3f ms, p99 %8.3f", *name ? 28 : 0, name, ms[n / 2], ms[n * 99 / 100]);
}

/* One thread's searches, by its CPU clock. */
static double thread_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void ask(bench *b, const char *name, ruv_memory_query q, int times)
{
	double ms[N_QUESTIONS];
	ruv_error err = {0};
	int n_hits = 0, n_cached = 0, n_graph = 0;

	for (int i = 0; i < times; i++) {
		ruv_memory_hits hits;
		q.text = b->words[i % N_QUESTIONS];
		q.vector = b->asked + (size_t)(i % N_QUESTIONS) * (size_t)b->dim;
		ms[i] = thread_ms();
		if (ruv_memory_search(b->memory, &hits, &q, &err))
			die("searching", &err);
		ms[i] = thread_ms() - ms[i];
		n_hits += hits.n;
		n_cached += hits.cached;
		n_graph += hits.by_graph;
		ruv_memory_hits_release(&hits);
	}
	print_times(name, ms, times);
	printf(" of CPU; %.1f hits%s%s\n", (double)n_hits / times, n_graph ? ", by the graph" : "", n_cached ? ", kept" : "");
}

/* The share of the exact first ten that a search finds. */
static void recall(bench *b)
{
	ruv_error err = {0};
	int found = 0, there = 0;

	for (int i = 0; i < 200; i++) {
		ruv_memory_query q = {.vector = b->asked + (size_t)i * (size_t)b->dim, .k = 10, .mode = RUV_SEARCH_VECTOR};
		ruv_memory_hits got, truth;
		if (ruv_memory_search(b->memory, &got, &q, &err))
			die("searching", &err);
		q.exact = true;
		if (ruv_memory_search(b->memory, &truth, &q, &err))
			die("searching", &err);
		for (int j = 0; j < truth.n; j++)
			for (int l = 0; l < got.n; l++)
				found += !strcmp(truth.items[j].node.id, got.items[l].node.id);
		there += truth.n;
		ruv_memory_hits_release(&got);
		ruv_memory_hits_release(&truth);
	}
	printf("recall@10 of the search by vector: %.4f\n", (double)found / there);
}

/* FTS5 and the index in memory on the same questions, in turns of 50, hits compared. */
static void words(bench *b)
{
	static double fts5[N_QUESTIONS], own[N_QUESTIONS];
	ruv_memory_filter filter = {.every_scope = true};
	ruv_error err = {0};
	int64_t start = ruv_clock_now_ns();
	int n_differ = 0, n_unable = 0;

	if (ruv_memory_load_words(b->memory, &err))
		die("the word index", &err);
	printf("word index   built in %.1f s, %.1f MB in memory\n", 1e-9 * (double)(ruv_clock_now_ns() - start),
	       1e-6 * (double)ruv_words_bytes(atomic_load(&b->memory->words)));
	for (int first = 0; first < N_QUESTIONS; first += 50)
		for (int side = 0; side < 2; side++)
			for (int i = first; i < first + 50; i++) {
				ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
				ruv_store_match a[LIMIT], c[LIMIT];
				int n_terms = ruv_lexical_terms(terms, b->words[i]), na = 0, nc = 0, rc;
				bool able = true;
				double t = thread_ms();
				rc = side ? ruv_words_search(atomic_load(&b->memory->words), a, &na, &able, terms, n_terms, &filter,
				                             LIMIT, 1, &err)
				          : b->memory->store->ops->lexical(b->memory->store, a, &na, terms, n_terms, &filter, LIMIT,
				                                           &err);
				if (rc)
					die("searching words", &err);
				*(side ? &own[i] : &fts5[i]) = thread_ms() - t;
				n_unable += !able;
				if (side && able) {
					rc = b->memory->store->ops->lexical(b->memory->store, c, &nc, terms, n_terms, &filter,
					                                    LIMIT, &err);
					n_differ += rc || na != nc;
					for (int j = 0; j < na && j < nc; j++)
						n_differ += a[j].key != c[j].key;
				}
			}
	print_times("words, FTS5", fts5, N_QUESTIONS);
	printf(" of CPU\n");
	print_times("words, in memory", own, N_QUESTIONS);
	printf(" of CPU; %d hits differ, %d questions left to FTS5\n", n_differ, n_unable);
}

/* Searches whose F32 rows have to come from the disk: the file's pages are given up first, so the graph is in memory and the
 * vectors are not. By the clock. */
static void cold(bench *b, const ruv_memory_options *options)
{
	char path[4096];
	double ms[N_QUESTIONS];
	ruv_error err = {0};
	int fd, n = 200;

	ruv_memory_free(b->memory);
	snprintf(path, sizeof path, "%s/memory.vectors", b->dir);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die("the pages cannot be given up", NULL);
	close(fd);
	if (ruv_memory_open(&b->memory, b->dir, options, &err) || ruv_memory_warm(b->memory, &err))
		die("opening again", &err);
	for (int i = 0; i < n; i++) {
		ruv_memory_query q = {.vector = b->asked + (size_t)i * (size_t)b->dim, .k = 10, .mode = RUV_SEARCH_VECTOR};
		ruv_memory_hits hits;
		int64_t start = ruv_clock_now_ns();
		if (ruv_memory_search(b->memory, &hits, &q, &err))
			die("searching", &err);
		ms[i] = 1e-6 * (double)(ruv_clock_now_ns() - start);
		ruv_memory_hits_release(&hits);
	}
	print_times("by vector, rows on disk", ms, n);
	printf(" by the clock\n");
}

typedef struct writer {
	bench *b;
	atomic_bool stop;
	atomic_int n;
	int64_t spent;
} writer;

static void *write_on(void *user)
{
	writer *w = user;
	int64_t until = ruv_clock_now_ns() + 20000000000;

	while (!atomic_load(&w->stop) && ruv_clock_now_ns() < until) {
		int got = add_batch(w->b, 50, &w->spent);
		w->n += got;
		if (got < 50)
			break;
	}
	return NULL;
}

/* Times of searches by vector, alone, beside a writer at full speed, and alone again when the graph has caught up; by the thread's
 * CPU clock and by the wall's. */
static void beside_writer(bench *b)
{
	static const char *const names[] = {"by vector, alone", "by vector, beside a writer", "by vector, alone again"};
	static double wall[ROUNDS * N_QUESTIONS], cpu[ROUNDS * N_QUESTIONS];
	const struct sched_param first = {.sched_priority = 1}, none = {0};

	for (int part = 0; part < 3; part++) {
		writer w = {.b = b};
		pthread_t thread;
		ruv_error err = {0};
		ruv_memory_stats stats;
		int64_t began, most_pending = 0;
		if (part == 1 && pthread_create(&thread, NULL, write_on, &w))
			die("no thread", NULL);
		if (part == 2 && ruv_memory_index(b->memory, 2, false, NULL, NULL, &err))
			die("the graph", &err);
		began = ruv_clock_now_ns();
		if (b->realtime && sched_setscheduler(0, SCHED_RR, &first))
			die("no right to real-time priority", NULL);
		for (int i = 0; i < ROUNDS * N_QUESTIONS; i++) { /* another ef each round: no result is kept from before */
			ruv_memory_query q = {.vector = b->asked + (size_t)(i % N_QUESTIONS) * (size_t)b->dim,
			                      .k = 10,
			                      .mode = RUV_SEARCH_VECTOR,
			                      .ef = 255 - part * ROUNDS - i / N_QUESTIONS};
			ruv_memory_hits hits;
			wall[i] = 1e-6 * (double)ruv_clock_now_ns();
			cpu[i] = thread_ms();
			if (ruv_memory_search(b->memory, &hits, &q, &err))
				die("searching", &err);
			cpu[i] = thread_ms() - cpu[i];
			wall[i] = 1e-6 * (double)ruv_clock_now_ns() - wall[i];
			ruv_memory_hits_release(&hits);
			if (i % 100 == 0 && !ruv_memory_get_stats(b->memory, &stats, &err) && stats.index_n_pending > most_pending)
				most_pending = stats.index_n_pending;
		}
		began = ruv_clock_now_ns() - began;
		if (b->realtime)
			(void)sched_setscheduler(0, SCHED_OTHER, &none);
		print_times(names[part], cpu, ROUNDS * N_QUESTIONS);
		printf(" of CPU;");
		print_times("", wall, ROUNDS * N_QUESTIONS);
		printf(" by the clock; at most %lld pending", (long long)most_pending);
		if (part == 1) {
			printf(", %d added in %.1f s", w.n, 1e-9 * (double)began);
			atomic_store(&w.stop, true);
			pthread_join(thread, NULL);
		}
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	bench b = {.n = 10000, .batch = 1000, .dim = 384};
	ruv_memory_options options = {.embedder_id = "bench", .create = true, .n_cached = -1};
	ruv_memory_query vector = {.k = 10, .mode = RUV_SEARCH_VECTOR}, hybrid = {.k = 10},
			 exact = {.k = 10, .exact = true, .mode = RUV_SEARCH_VECTOR};
	ruv_memory_stats stats;
	ruv_error err = {0};
	struct rusage usage;
	machine rates;
	int64_t start, spent = 0, cpu;
	int done = 0;

	if (argc < 2)
		die("DIR [--n N] [--batch B] [--lines FILE --vectors FILE] [--questions FILE] [--dim D] [--bits 8|4|1] [--m M] "
		    "[--realtime 1]",
		    NULL);
	b.dir = argv[1];
	for (int i = 2; i + 1 < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];
		if (!strcmp(name, "--n"))
			b.n = atoi(value);
		else if (!strcmp(name, "--batch"))
			b.batch = atoi(value);
		else if (!strcmp(name, "--dim"))
			b.dim = atoi(value);
		else if (!strcmp(name, "--bits"))
			b.bits = atoi(value);
		else if (!strcmp(name, "--m"))
			b.m = atoi(value);
		else if (!strcmp(name, "--realtime"))
			b.realtime = atoi(value);
		else if (!strcmp(name, "--lines"))
			b.lines = value;
		else if (!strcmp(name, "--vectors"))
			b.vectors = value;
		else if (!strcmp(name, "--questions"))
			b.questions = value;
		else
			die(name, NULL);
	}
	if (b.n < 1 || b.batch < 1 || b.batch > b.n || !b.lines != !b.vectors)
		die("that makes no sense", NULL);
	ruv_rng_init(&b.rng, 1);
	for (int i = 0; i < N_WORDS; i++) {
		int length = 3 + (int)ruv_rng_below(&b.rng, 8);
		for (int j = 0; j < length; j++)
			vocabulary[i][j] = (char)('a' + ruv_rng_below(&b.rng, 26));
	}
	if (b.lines && (!(b.line_file = fopen(b.lines, "r")) || !(b.vector_file = fopen(b.vectors, "rb"))))
		die("the files cannot be read", NULL);
	b.asked = malloc(sizeof *b.asked * N_QUESTIONS * (size_t)b.dim);
	b.words = malloc(sizeof *b.words * N_QUESTIONS);
	if (!b.asked || !b.words || machine_measure(&rates, 1, &err))
		die("cannot begin", NULL);
	take_questions(&b);
	printf("%d x %d F32; one thread reads %.1f GB/s, so comparing all takes %.2f ms at least\n", b.n, b.dim,
	       rates.one.read_bytes / 1e9, (double)b.n * b.dim * 4 / rates.one.read_bytes * 1e3);
	options.dimension = b.dim;
	options.index.no_background = true; /* each cost by itself */
	options.index.bits = b.bits;
	options.index.m = b.m;
	options.index.ef_construction = b.m ? 200 : 0;
	if (ruv_memory_open(&b.memory, b.dir, &options, &err))
		die("opening", &err);
	while (done < b.n) {
		int got = add_batch(&b, b.n - done < b.batch ? b.n - done : b.batch, &spent);
		if (!got)
			die("the files are too short", NULL);
		done += got;
	}
	printf("add          in batches of %d: %.0f a second\n", b.batch, b.n / (1e-9 * (double)spent));
	start = ruv_clock_now_ns();
	if (ruv_memory_warm(b.memory, &err))
		die("loading", &err);
	printf("load         from the store: %.0f ms\n", 1e-6 * (double)(ruv_clock_now_ns() - start));
	ask(&b, "by vector, one by one", exact, 50);
	start = ruv_clock_now_ns();
	cpu = ruv_clock_cpu_ns();
	if (ruv_memory_index(b.memory, 2, false, NULL, NULL, &err))
		die("the graph", &err);
	printf("graph        built and saved in %.1f s, %.1f s of CPU\n", 1e-9 * (double)(ruv_clock_now_ns() - start),
	       1e-9 * (double)(ruv_clock_cpu_ns() - cpu));
	ruv_memory_free(b.memory);

	options.n_cached = 2 * N_QUESTIONS;
	options.index.no_background = false;
	start = ruv_clock_now_ns();
	if (ruv_memory_open(&b.memory, b.dir, &options, &err) || ruv_memory_warm(b.memory, &err))
		die("opening again", &err);
	printf("open         with its index: %.0f ms\n", 1e-6 * (double)(ruv_clock_now_ns() - start));
	ask(&b, "by vector", vector, N_QUESTIONS);
	ask(&b, "by vector, asked again", vector, 200);
	recall(&b);
	words(&b);
	ask(&b, "hybrid", hybrid, N_QUESTIONS);
	cold(&b, &options);
	beside_writer(&b);
	if (ruv_memory_get_stats(b.memory, &stats, &err))
		die("counting", &err);
	getrusage(RUSAGE_SELF, &usage);
	printf("size         %.1f MB on disk; index %.1f MB in memory, %.1f MB mapped; M %d, ef %d; %lld in the graph, %lld "
	       "pending; peak %.0f "
	       "MB\n",
	       1e-6 * (double)stats.database_bytes, 1e-6 * (double)stats.index_bytes, 1e-6 * (double)stats.index_mapped_bytes,
	       stats.index_m, stats.index_ef_search, (long long)stats.index_n_graph, (long long)stats.index_n_pending,
	       (double)usage.ru_maxrss / 1024);
	ruv_memory_free(b.memory);
	free(b.asked);
	free(b.words);
	return 0;
}

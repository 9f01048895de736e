/* bench_forks.c - what conversations that begin alike save by sharing pages.
 *
 *     bench_forks [-n CONVERSATIONS] MODEL.gguf...
 *
 * CONVERSATIONS (16) of 1024 tokens whose first 256, 512 or 768 are the same: once each in a session of its own, once forked from
 * one session that read the beginning. Printed are the bytes of keys and values in use (pages, as the pools count them), what the
 * process grew by (resident), and the time to read all tokens; then whether the logits behind each conversation agree. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "infer/session_object.h"
#include "ruvllm/session.h"

enum { TOTAL = 1024, MAX_N = 64 };

typedef struct use {
	double page_bytes, resident, ms;
} use;

static void die(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_forks: %s: %s\n", what, err->message);
	exit(2);
}

static double resident(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void make_tokens(ruv_token *tokens, int prefix, int which, int n_vocab)
{
	for (int i = 0; i < TOTAL; i++)
		tokens[i] = 20 + (i * 37 + i * i * 3 + (i < prefix ? 0 : (which + 1) * 101)) % (n_vocab - 40);
}

static double bytes_in_use(const ruv_session *s, const ruv_model_info *info)
{
	return (double)(s->pool->n_pages - s->pool->n_free) * RUV_KV_PAGE_TOKENS * (double)info->kv_bytes_per_token;
}

static use run(ruv_model *model, int n, int prefix, bool forked, float *logits)
{
	ruv_error err = {0};
	ruv_model_info info;
	ruv_session *sessions[MAX_N] = {NULL}, *first = NULL;
	ruv_token tokens[TOTAL];
	const ruv_session_options alone = {.n_ctx = TOTAL}, shared = {.n_ctx = TOTAL, .n_pool = (n + 1) * TOTAL};
	use u = {.resident = -resident()};
	ruv_model_get_info(model, &info);
	const int64_t start = ruv_clock_now_ns();
	make_tokens(tokens, prefix, 0, info.n_tokens);
	if (forked && (ruv_session_open(&first, model, &shared, &err) || ruv_session_prefill(first, tokens, prefix, NULL, &err)))
		die("reading the beginning", &err);
	for (int i = 0; i < n; i++) {
		make_tokens(tokens, prefix, i, info.n_tokens);
		if (forked ? ruv_session_fork(&sessions[i], first, &err) : ruv_session_open(&sessions[i], model, &alone, &err))
			die("opening a session", &err);
		const int from = forked ? prefix : 0;
		if (ruv_session_prefill(sessions[i], tokens + from, TOTAL - from, NULL, &err))
			die("reading a conversation", &err);
		memcpy(logits + (size_t)i * (size_t)info.n_vocab, ruv_session_logits(sessions[i]),
		       (size_t)info.n_vocab * sizeof *logits);
		u.page_bytes += forked ? 0 : bytes_in_use(sessions[i], &info);
	}
	u.ms = (double)(ruv_clock_now_ns() - start) / 1e6;
	u.page_bytes += forked ? bytes_in_use(first, &info) : 0;
	u.resident += resident();
	for (int i = 0; i < n; i++)
		ruv_session_free(sessions[i]);
	ruv_session_free(first);
	return u;
}

static void bench(const char *path, int n)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	ruv_model_info info;
	if (ruv_model_open(&model, path, NULL, &err))
		die("opening the model", &err);
	ruv_model_get_info(model, &info);
	float *a = malloc((size_t)n * (size_t)info.n_vocab * sizeof *a), *b = malloc((size_t)n * (size_t)info.n_vocab * sizeof *b);
	if (!a || !b) {
		fprintf(stderr, "bench_forks: out of memory\n");
		exit(2);
	}
	run(model, 1, TOTAL / 2, false, a); /* packs the weights */
	printf("%s: %d conversations of %d tokens\n", path, n, TOTAL);
	for (int prefix = TOTAL / 4; prefix < TOTAL; prefix += TOTAL / 4) {
		const use one = run(model, n, prefix, false, a), fork = run(model, n, prefix, true, b);
		double worst = 0, most = 0;
		for (size_t i = 0; i < (size_t)n * (size_t)info.n_vocab; i++) {
			worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
			most = fmax(most, fabs((double)a[i]));
		}
		printf("  %d in common: keys and values %.1f -> %.1f MB (%.0f %% saved), resident +%.1f -> +%.1f MB, %.0f -> %.0f "
		       "ms; logits "
		       "differ by at most %.3g of %.3g\n",
		       prefix, one.page_bytes / 1e6, fork.page_bytes / 1e6, 100 * (1 - fork.page_bytes / one.page_bytes),
		       one.resident / 1e6, fork.resident / 1e6, one.ms, fork.ms, worst, most);
	}
	free(a);
	free(b);
	ruv_model_free(model);
}

int main(int argc, char **argv)
{
	int n = 16, option;
	while ((option = getopt(argc, argv, "n:")) != -1)
		if (option != 'n' || (n = atoi(optarg)) < 2 || n > MAX_N) {
			fprintf(stderr, "usage: bench_forks [-n 2..%d] MODEL.gguf...\n", (int)MAX_N);
			return 2;
		}
	mallopt(M_MMAP_THRESHOLD, 1 << 17); /* what is freed goes back to the system, so that growth is growth */
	for (int i = optind; i < argc; i++)
		bench(argv[i], n);
	return 0;
}

/* bench_lossless.c - is sampled text with speculation distributed as without it?
 *
 *     bench_lossless [-n TOKENS] TARGET.gguf DRAFT.gguf
 *
 * TOKENS (100000) are sampled behind one prompt at temperature 0.5 and at 1, five at a time, plainly and with four drafts in every
 * round (never off), with seeds of their own. For each of the five places the two sets of tokens are compared by a two-sample
 * chi-square test over all tokens that came ten times or more (the others are one class); printed are chi-square, degrees of
 * freedom and the chance of such a difference between equal distributions. Exits 1 when one is below 0.0001. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ruvllm/session.h"

enum { PLACES = 5, LEAST = 10 };

static void die(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_lossless: %s: %s\n", what, err->message);
	exit(2);
}

/* Chance of chi-square x or more with df degrees of freedom (Wilson and Hilferty's cube root). */
static double chance(double x, int df)
{
	const double k = 2.0 / (9 * df);
	return df < 1 ? 1 : 0.5 * erfc((cbrt(x / df) - (1 - k)) / sqrt(k) / sqrt(2));
}

static int64_t sample(ruv_session *s, const ruv_token_list *prompt, float temperature, int n, uint64_t seed, int *counts,
                      int n_vocab)
{
	ruv_error err = {0};
	int64_t n_drafted = 0;
	for (int i = 0; i < n; i++) {
		ruv_generation g;
		const ruv_generate_params p = {.sampling = {.temperature = temperature, .seed = seed + (uint64_t)i},
		                               .max_tokens = PLACES,
		                               .n_logprobs = -1,
		                               .ignore_end = true};
		if (ruv_generate(s, prompt->ids, prompt->n, &p, &g, &err))
			die("generating", &err);
		for (int k = 0; k < g.n_tokens; k++)
			counts[k * n_vocab + g.tokens[k]]++;
		n_drafted += g.n_drafted;
		ruv_generation_release(&g);
	}
	return n_drafted;
}

/* Of n tokens each, so that the expected counts are the means. */
static double compare(const int *a, const int *b, int n_vocab, double *x, int *df)
{
	int rest_a = 0, rest_b = 0;
	*x = 0;
	*df = -1;
	for (int t = 0; t <= n_vocab; t++) {
		const int p = t < n_vocab ? a[t] : rest_a, q = t < n_vocab ? b[t] : rest_b;
		if (t < n_vocab && p + q < LEAST) {
			rest_a += p;
			rest_b += q;
		} else if (p + q) {
			*x += (double)(p - q) * (p - q) / (p + q);
			++*df;
		}
	}
	return chance(*x, *df);
}

int main(int argc, char **argv)
{
	static const char text[] = "Tell me a short story about a fox.";
	const ruv_message message = {.role = "user", .content = text};
	const float temperatures[] = {0.5f, 1};
	int n_tokens = 100000, option, code = 0;
	while ((option = getopt(argc, argv, "n:")) != -1)
		if (option != 'n' || (n_tokens = atoi(optarg)) < PLACES)
			argc = 0;
	if (argc - optind != 2) {
		fprintf(stderr, "usage: bench_lossless [-n TOKENS] TARGET.gguf DRAFT.gguf\n");
		return 2;
	}
	ruv_error err = {0};
	ruv_engine *engine;
	ruv_model *target, *draft;
	ruv_session *sessions[2];
	ruv_model_info info;
	ruv_token_list prompt = {0};
	if (ruv_engine_open(&engine, 0, &err))
		die("opening the engine", &err);
	const ruv_model_options on_engine = {.engine = engine};
	const ruv_session_options options = {.n_ctx = 256};
	if (ruv_model_open(&target, argv[optind], &on_engine, &err) || ruv_model_open(&draft, argv[optind + 1], &on_engine, &err) ||
	    ruv_session_open(&sessions[0], target, &options, &err) || ruv_session_open(&sessions[1], target, &options, &err) ||
	    ruv_model_chat_tokens(target, &message, 1, NULL, true, &prompt, &err))
		die("opening the models", &err);
	const ruv_speculation always = {.draft = draft, .max_lookahead = 4, .fixed = true};
	if (ruv_session_set_speculation(sessions[1], &always, &err))
		die("speculating", &err);
	ruv_model_get_info(target, &info);
	const size_t n_counts = (size_t)PLACES * (size_t)info.n_vocab;
	for (int t = 0; t < 2; t++) {
		int *counts[2] = {calloc(n_counts, sizeof(int)), calloc(n_counts, sizeof(int))};
		int64_t n_drafted = 0;
		if (!counts[0] || !counts[1]) {
			fprintf(stderr, "bench_lossless: out of memory\n");
			return 2;
		}
		for (int on = 0; on < 2; on++)
			n_drafted = sample(sessions[on], &prompt, temperatures[t], n_tokens / PLACES, on ? 1u << 30 : 1, counts[on],
			                   info.n_vocab);
		printf("temperature %g: %d tokens each, %lld drafts\n", (double)temperatures[t], n_tokens / PLACES * PLACES,
		       (long long)n_drafted);
		for (int k = 0; k < PLACES; k++) {
			double x;
			int df;
			const double p = compare(counts[0] + k * info.n_vocab, counts[1] + k * info.n_vocab, info.n_vocab, &x, &df);
			printf("  place %d: chi-square %.1f with %d degrees of freedom, chance %.4f\n", k + 1, x, df, p);
			code |= p < 0.0001;
		}
		free(counts[0]);
		free(counts[1]);
	}
	ruv_token_list_release(&prompt);
	ruv_session_free(sessions[0]);
	ruv_session_free(sessions[1]);
	ruv_model_free(draft);
	ruv_model_free(target);
	ruv_engine_free(engine);
	return code;
}

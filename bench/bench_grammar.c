/* bench_grammar.c - structured output: is every generation valid, and what does holding to it cost?
 *
 *     bench_grammar [-n GENERATIONS] [-t TEMPERATURE] MODEL.gguf...
 *
 * For each model, GENERATIONS (100) runs over the schemas and grammars of tests/grammar/check.h, each with a seed of its own; a run
 * that ends by itself must pass the validator there, one that is cut by max_tokens is counted apart. Then the same prompts without
 * a constraint, for as many tokens, alternating; the figures are tokens a second of decoding, and the time to compile a grammar the
 * first time and to find it again. Exits 1 when a text is not valid. */
#include <stdio.h>
#include <stdlib.h>

#include "../tests/grammar/check.h"
#include "base/clock.h"

typedef struct totals {
	double ms;
	int64_t tokens;
} totals;

static void die(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_grammar: %s: %s\n", what, err->message);
	exit(2);
}

static void bench(const char *path, int n, float temperature, int *n_invalid)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	ruv_session *session = NULL;
	totals with = {0}, without = {0};
	double compile_ms = 0, found_ms = 0;
	int n_valid = 0, n_cut = 0;

	if (ruv_model_open(&model, path, NULL, &err) ||
	    ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = 2048}, &err))
		die(path, &err);
	for (int k = 0; k < n; k++) {
		const grammar_case *c = &grammar_cases[k % N_GRAMMAR_CASES];
		ruv_generate_params params = {.sampling = {.temperature = temperature, .seed = 1000 + (uint64_t)k},
		                              .n_logprobs = -1};
		ruv_generation out;
		ruv_constraint constraint;
		ruv_grammar *g = NULL;
		ruv_token_list prompt = {0};
		const ruv_message message = {.role = "user", .content = c->prompt};
		int64_t start = ruv_clock_now_ns();

		if (ruv_grammar_open(&g, model, c->kind, c->text, strlen(c->text), &err))
			die(c->name, &err);
		*(k < N_GRAMMAR_CASES ? &compile_ms : &found_ms) += (double)(ruv_clock_now_ns() - start) * 1e-6;
		if (ruv_model_chat_tokens(model, &message, 1, NULL, true, &prompt, &err) ||
		    ruv_grammar_constrain(g, &constraint, &err))
			die(c->name, &err);
		params.constraint = &constraint;
		params.max_tokens = c->max_tokens;
		if (ruv_generate(session, prompt.ids, prompt.n, &params, &out, &err))
			die(c->name, &err);
		if (out.finish != RUV_FINISH_STOP) {
			n_cut++;
		} else if (check_case(c, out.text, out.n_bytes)) {
			n_valid++;
		} else {
			++*n_invalid;
			printf("INVALID %s: %s\n", c->name, out.text);
		}
		with.ms += out.decode_ms;
		with.tokens += out.n_tokens + (out.finish == RUV_FINISH_STOP);
		params.constraint = NULL;
		params.ignore_end = true;
		params.max_tokens = out.n_tokens + (out.finish == RUV_FINISH_STOP);
		ruv_generation_release(&out);
		if (ruv_generate(session, prompt.ids, prompt.n, &params, &out, &err))
			die(c->name, &err);
		without.ms += out.decode_ms;
		without.tokens += out.n_tokens;
		ruv_generation_release(&out);
		constraint.free(constraint.state);
		ruv_grammar_free(g);
		ruv_token_list_release(&prompt);
	}
	const double fast = (double)without.tokens / without.ms * 1e3, slow = (double)with.tokens / with.ms * 1e3;

	printf("%s\n  temperature %.1f: %d generations, %d valid, %d invalid, %d cut by max_tokens; %lld tokens\n", path,
	       (double)temperature, n, n_valid, *n_invalid, n_cut, (long long)with.tokens);
	printf("  decode tokens/s: %.0f without, %.0f with (%+.1f %%)\n", fast, slow, (slow / fast - 1) * 100);
	printf("  a grammar: %.2f ms compiled (vocabulary and all: %.1f ms for the first %d), %.4f ms found again\n",
	       compile_ms / N_GRAMMAR_CASES, compile_ms, N_GRAMMAR_CASES,
	       n > N_GRAMMAR_CASES ? found_ms / (n - N_GRAMMAR_CASES) : 0);
	ruv_session_free(session);
	ruv_model_free(model);
}

int main(int argc, char **argv)
{
	int n = 100, n_invalid = 0, i = 1;
	float temperature = 1;

	for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (!strcmp(argv[i], "-n"))
			n = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "-t"))
			temperature = strtof(argv[i + 1], NULL);
	}
	if (i >= argc || n < 1) {
		fprintf(stderr, "usage: bench_grammar [-n GENERATIONS] [-t TEMPERATURE] MODEL.gguf...\n");
		return 2;
	}
	for (; i < argc; i++)
		bench(argv[i], n, temperature, &n_invalid);
	return n_invalid > 0;
}

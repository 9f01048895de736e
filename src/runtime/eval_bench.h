/* eval_bench.h - the public benchmarks with their usual prompts and scoring, on any model.
 *
 *   mmlu        5-shot (Hendrycks et al. 2021): the likeliest of the letters A-D after "Answer:"
 *   truthfulqa  MC1 and MC2 (Lin et al. 2022): log-likelihood of whole answers after a fixed primer
 *   gsm8k       few-shot chain of thought (Cobbe et al. 2021): the number behind "####", compared as a number
 *   humaneval   pass@1 of one greedy completion (Chen et al. 2021), run in a sandbox (sandbox.h)
 *
 * Files are JSON Lines, plain or packed by zstd, with the fields that the sets are published with. Threads: one. Layer: runtime. */
#ifndef RUV_RUNTIME_EVAL_BENCH_H
#define RUV_RUNTIME_EVAL_BENCH_H

#include "runtime/eval.h"

typedef struct ruv_eval_bench_params {
	const char *path;  /* the questions */
	const char *shots; /* mmlu, gsm8k: solved examples, same format; NULL: none */
	int n_shots;       /* at most so many of them (mmlu: of the same subject) */
	int limit;         /* a seeded sample; 0: all */
	uint64_t seed;
	const ruv_cancel *cancel;
	ruv_eval_progress *progress;
	void *user;
} ruv_eval_bench_params;

typedef struct ruv_eval_bench_result {
	int n, n_too_long;     /* questions scored; left out because they do not fit the context */
	int n_shots;           /* examples in each prompt, the most there were */
	double score;          /* share right; MC1; pass@1 */
	double mc2;            /* truthfulqa: probability on true answers */
	double chance;         /* of guessing; 0 where there is nothing to guess from */
	double standard_error; /* of score */
	double seconds;
} ruv_eval_bench_result;

int ruv_eval_mmlu(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err);
int ruv_eval_truthfulqa(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err);
int ruv_eval_gsm8k(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err);
int ruv_eval_humaneval(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err);

#endif

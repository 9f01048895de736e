/* cmd_eval_bench.c - `ruvllm eval mmlu|truthfulqa|gsm8k|humaneval`: the public benchmarks, with one table row each. */
#include "cmd_eval.h"

#include <string.h>

#include "cli_runtime.h"
#include "runtime/eval_bench.h"

typedef int bench_fn(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err);

static void print(const char *name, const ruv_model_info *info, const ruv_eval_bench_result *r, const char *measure)
{
	printf("%s, %s (%s): %s %.1f %% +/- %.1f", name, *info->name ? info->name : info->path, info->file_type, measure,
	       100 * r->score, 100 * r->standard_error);
	if (r->mc2 > 0)
		printf(", MC2 %.1f %%", 100 * r->mc2);
	if (r->chance > 0)
		printf(" (guessing gives %.1f %%)", 100 * r->chance);
	printf("\n%d questions, %d examples in the prompt, %.1f s\n", r->n, r->n_shots, r->seconds);
	if (r->n_too_long)
		printf("left out, too long for the context: %d\n", r->n_too_long);
}

static int run(int argc, char **argv, const cli_spec *base, bench_fn *bench, const char *measure, bool takes_shots)
{
	static int limit, n_shots = 5;
	static int64_t seed = 1;
	static const char *shots;
	static const cli_option options[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "only a seeded sample of N questions (default: all)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample (default 1)"},
	    {"shots", 0, CLI_STRING, &shots, "FILE", "solved examples in the same format, put before the question"},
	    {"n-shots", 0, CLI_INT, &n_shots, "N", "how many of them (default 5)"},
	    {0}};
	static const cli_option options_without_shots[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "only a seeded sample of N questions (default: all)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample (default 1)"},
	    {0}};
	cli_spec spec = *base;
	cli_progress progress = {0};
	ruv_runtime *runtime = NULL;
	ruv_eval_bench_params params;
	ruv_eval_bench_result r;
	ruv_model_info info;
	ruv_model *model;
	ruv_error err = {0};
	cli_args args;
	int code;

	spec.options = takes_shots ? options : options_without_shots;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	cli_interrupt_catch();
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	if (ruv_runtime_model(runtime, NULL, &model, &err)) {
		code = cli_runtime_fail(&err);
		goto done;
	}
	ruv_model_get_info(model, &info);
	params = (ruv_eval_bench_params){.path = args.items[0],
	                                 .shots = shots,
	                                 .n_shots = n_shots,
	                                 .limit = limit,
	                                 .seed = (uint64_t)seed,
	                                 .cancel = &cli_cancel,
	                                 .progress = cmd_eval_progress,
	                                 .user = &progress};
	code = bench(&r, model, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&progress, false);
	if (code)
		goto done;
	if (cli.json)
		code =
		    cli_json_print(json_pack("{s:s, s:o, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "suite", spec.name, "model",
		                             cli_json_text(*info.name ? info.name : info.path), "measure", measure, "questions",
		                             r.n, "too_long", r.n_too_long, "shots", r.n_shots, "score", r.score, "standard_error",
		                             r.standard_error, "mc2", r.mc2, "chance", r.chance, "seconds", r.seconds));
	else
		print(spec.name + strlen("eval "), &info, &r, measure);
done:
	ruv_runtime_free(runtime);
	return code;
}

int cmd_eval_mmlu(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "eval mmlu",
	    .usage = "[OPTIONS] FILE",
	    .summary = "MMLU (Hendrycks et al. 2021): the likeliest letter behind \"Answer:\". FILE holds JSON Lines "
		       "{\"question\", \"choices\": [4], \"answer\": "
		       "0-3 or A-D, \"subject\"}; --shots takes the development set, of which up to five of the same subject go "
		       "before each question.",
	    .examples = "ruvllm eval mmlu mmlu_test.jsonl --shots mmlu_dev.jsonl --model qwen2.5-3b-instruct-q4_k_m.gguf",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	return run(argc, argv, &spec, ruv_eval_mmlu, "accuracy", true);
}

int cmd_eval_truthfulqa(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "eval truthfulqa",
	    .usage = "[OPTIONS] FILE",
	    .summary = "TruthfulQA (Lin et al. 2022), multiple choice by log-likelihood of whole answers: MC1 (the best answer "
		       "against the false ones) and MC2 "
		       "(probability on true answers). FILE holds the set's table as JSON Lines. The six question-and-answer "
		       "examples before each question "
		       "are our own, in the form of the paper's.",
	    .examples = "ruvllm eval truthfulqa bench/data/truthfulqa.jsonl.zst -n 200",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	return run(argc, argv, &spec, ruv_eval_truthfulqa, "MC1", false);
}

int cmd_eval_gsm8k(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "eval gsm8k",
	    .usage = "[OPTIONS] FILE",
	    .summary = "GSM8K (Cobbe et al. 2021): greedy reasoning in words, the number behind \"####\" compared as a number. "
		       "FILE holds JSON Lines "
		       "{\"question\", \"answer\"}; --shots takes solved examples of the training set.",
	    .examples = "ruvllm eval gsm8k bench/data/gsm8k_test.jsonl.zst --shots gsm8k_train.jsonl --n-shots 8",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	return run(argc, argv, &spec, ruv_eval_gsm8k, "accuracy", true);
}

int cmd_eval_humaneval(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "eval humaneval",
	    .usage = "[OPTIONS] FILE",
	    .summary = "HumanEval (Chen et al. 2021): one greedy completion of each function, run against its tests by python3 in "
		       "a sandbox without network or "
		       "writable files (10 s, 1 GiB each). Where the system allows no sandbox, nothing is run.",
	    .examples = "ruvllm eval humaneval bench/data/humaneval.jsonl.zst",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	return run(argc, argv, &spec, ruv_eval_humaneval, "pass@1", false);
}

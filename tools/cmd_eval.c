/* cmd_eval.c - `ruvllm eval SUITE`: what a model is worth, measured. One row of the table below per suite, one file cmd_eval_*.c.
 */
#include "cmd_eval.h"

#include <string.h>

static const struct suite {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the suite's name */
	const char *help;
} suites[] = {
    {"qa", cmd_eval_qa, "answers from given passages: F1, exact match, right sentence, refusals"},
    {"retrieval", cmd_eval_retrieval, "finding the passage that holds the answer: R@k, MRR, nDCG"},
    {"judge", cmd_eval_judge, "telling right answers from wrong ones: AUC"},
    {"draft", cmd_eval_draft, "how often a small model proposes the generator's next token"},
    {"perplexity", cmd_eval_perplexity, "how well a model predicts a text, comparable with llama.cpp's figure"},
    {"mmlu", cmd_eval_mmlu, "multiple-choice knowledge questions"},
    {"truthfulqa", cmd_eval_truthfulqa, "true against popular false answers: MC1, MC2"},
    {"gsm8k", cmd_eval_gsm8k, "school arithmetic in words"},
    {"humaneval", cmd_eval_humaneval, "writing Python functions, run in a sandbox: pass@1"},
};

int cmd_eval(int argc, char **argv)
{
	const size_t n = sizeof suites / sizeof *suites;
	const bool asks = argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"));
	if (argc >= 2 && !asks) {
		const char *names[sizeof suites / sizeof *suites];
		for (size_t i = 0; i < n; i++) {
			names[i] = suites[i].name;
			if (!strcmp(argv[1], suites[i].name))
				return suites[i].run(argc - 1, argv + 1);
		}
		const char *nearest = cli_nearest(argv[1], names, (int)n);
		if (nearest)
			return cli_usage("there is no suite '%s'; did you mean '%s'?", argv[1], nearest);
		if (argv[1][0] == '-')
			return cli_usage("a suite is missing before %s; `ruvllm eval --help` lists them", argv[1]);
		return cli_usage("there is no suite '%s'; `ruvllm eval --help` lists them", argv[1]);
	}
	FILE *out = asks ? stdout : stderr;
	fprintf(out, "Usage: ruvllm eval SUITE [OPTIONS] ...\n\nMeasures what a model is worth. Suites:\n");
	for (size_t i = 0; i < n; i++)
		fprintf(out, "  %-12s %s\n", suites[i].name, suites[i].help);
	fprintf(out, "\n`ruvllm eval SUITE --help` explains one.\n");
	return asks ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}

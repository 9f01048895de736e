/* cmd_eval.c - `ruvllm eval SUITE`: what a model is worth, measured. One row of the table below per suite, one file cmd_eval_*.c.
 */
#include "cmd_eval.h"

#include <string.h>

static const cli_part suites[] = {
    {"qa", cmd_eval_qa, "answers from given passages: F1, exact match, right sentence, refusals"},
    {"retrieval", cmd_eval_retrieval, "finding the passage that holds the answer: R@k, MRR, nDCG"},
    {"judge", cmd_eval_judge, "telling right answers from wrong ones: AUC"},
    {"generate", cmd_eval_generate, "free generation: perplexity, distinct words, repetition"},
    {"draft", cmd_eval_draft, "how often a small model proposes the generator's next token"},
    {"perplexity", cmd_eval_perplexity, "how well a model predicts a text, comparable with llama.cpp's figure"},
    {"mmlu", cmd_eval_mmlu, "multiple-choice knowledge questions"},
    {"truthfulqa", cmd_eval_truthfulqa, "true against popular false answers: MC1, MC2"},
    {"gsm8k", cmd_eval_gsm8k, "school arithmetic in words"},
    {"humaneval", cmd_eval_humaneval, "writing Python functions, run in a sandbox: pass@1"},
    {0},
};

int cmd_eval(int argc, char **argv)
{
	return cli_run_part(
	    &(cli_parts){.name = "eval", .kind = "suite", .summary = "Measures what a model is worth.", .parts = suites}, argc,
	    argv);
}

/* cmd_eval.h - the parts of `ruvllm eval`, one function a measure; cmd_eval.c picks by the first word. Layer: tools. */
#ifndef RUV_TOOLS_CMD_EVAL_H
#define RUV_TOOLS_CMD_EVAL_H

#include "cli.h"
#include "runtime/eval_graph.h"
#include "ruvllm/runtime.h"

/* argv[0] is the measure's name. They return the exit code. */
int cmd_eval_perplexity(int argc, char **argv);
int cmd_eval_qa(int argc, char **argv);
int cmd_eval_judge(int argc, char **argv);
int cmd_eval_draft(int argc, char **argv);
int cmd_eval_generate(int argc, char **argv);
int cmd_eval_retrieval(int argc, char **argv);
int cmd_eval_mmlu(int argc, char **argv);
int cmd_eval_truthfulqa(int argc, char **argv);
int cmd_eval_gsm8k(int argc, char **argv);
int cmd_eval_humaneval(int argc, char **argv);

/* Measures graph attention on the set and prints what came out; returns the exit code. */
int cmd_eval_graph(ruv_runtime *runtime, ruv_embedder *embedder, const ruv_eval_set *set, int limit, uint64_t seed);
void cmd_eval_print_graph(const ruv_eval_graph_result *result);

/* A ruv_eval_progress over a cli_progress; stops on Ctrl-C. */
bool cmd_eval_progress(void *user, int n_done, int n_total);

#endif

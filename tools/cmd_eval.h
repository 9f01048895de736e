/* cmd_eval.h - the parts of `ruvllm eval`, one function a measure; cmd_eval.c picks by the first word. Layer: tools. */
#ifndef RUV_TOOLS_CMD_EVAL_H
#define RUV_TOOLS_CMD_EVAL_H

#include "cli.h"

/* argv[0] is the measure's name. They return the exit code. */
int cmd_eval_perplexity(int argc, char **argv);
int cmd_eval_qa(int argc, char **argv);
int cmd_eval_judge(int argc, char **argv);
int cmd_eval_draft(int argc, char **argv);
int cmd_eval_retrieval(int argc, char **argv);
int cmd_eval_mmlu(int argc, char **argv);
int cmd_eval_truthfulqa(int argc, char **argv);
int cmd_eval_gsm8k(int argc, char **argv);
int cmd_eval_humaneval(int argc, char **argv);

/* A ruv_eval_progress over a cli_progress; stops on Ctrl-C. */
bool cmd_eval_progress(void *user, int n_done, int n_total);

#endif

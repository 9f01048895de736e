/* cmd_learn.h - what the parts of `ruvllm learn` share. Layer: tools. */
#ifndef RUV_TOOLS_CMD_LEARN_H
#define RUV_TOOLS_CMD_LEARN_H

#include "cli.h"
#include "cli_runtime.h"
#include "ruvllm/learn.h"

int cmd_learn_forget(int argc, char **argv);
int cmd_learn_user(int argc, char **argv);
int cmd_learn_judge(int argc, char **argv);

/* DATA_DIR/learn, and the model's file. */
bool cmd_learn_place(ruv_runtime *runtime, const char *which, char *dir, char *model, size_t cap, ruv_error *err);
/* The gate's figures on stdout. */
void cmd_learn_print_gate(const ruv_gate_result *gate);
json_t *cmd_learn_gate_json(const ruv_gate_result *gate);

#endif

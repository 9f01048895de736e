/* cmd_learn.h - what the parts of `ruvllm learn` share. Layer: tools. */
#ifndef RUV_TOOLS_CMD_LEARN_H
#define RUV_TOOLS_CMD_LEARN_H

#include "cli.h"
#include "cli_runtime.h"
#include "ruvllm/learn.h"

int cmd_learn_forget(int argc, char **argv);
int cmd_learn_user(int argc, char **argv);
int cmd_learn_judge(int argc, char **argv);
int cmd_learn_latency(int argc, char **argv);

enum { CMD_LEARN_MOST = 2000 };

typedef struct cmd_learn_pair {
	char *question, *answer;
} cmd_learn_pair;

/* Questions that are taught and others about the same facts. */
typedef struct cmd_learn_set {
	cmd_learn_pair teach[CMD_LEARN_MOST], test[CMD_LEARN_MOST];
	int n_teach, n_test;
} cmd_learn_set;

/* Reads JSON Lines of {split, question, answer} into a zeroed set; release it also after a failure. */
int cmd_learn_read_set(cmd_learn_set *set, const char *path, ruv_error *err);
void cmd_learn_set_release(cmd_learn_set *set);

/* A runtime with the configuration's settings whose data lives in a temporary directory, for benchmarks. */
typedef struct cmd_learn_scratch {
	ruv_runtime *runtime;
	char dir[4000], model[4096]; /* the directory, and the configured model's file */
} cmd_learn_scratch;

/* `name` stands in the directory's name. End it with cmd_learn_scratch_close also after a failure (of a zeroed struct). */
int cmd_learn_scratch_open(cmd_learn_scratch *scratch, ruv_config *config, const char *name, ruv_error *err);
void cmd_learn_scratch_close(cmd_learn_scratch *scratch);

/* DATA_DIR/learn, and the model's file. */
bool cmd_learn_place(ruv_runtime *runtime, const char *which, char *dir, char *model, size_t cap, ruv_error *err);
/* The gate's figures on stdout. */
void cmd_learn_print_gate(const ruv_gate_result *gate);
json_t *cmd_learn_gate_json(const ruv_gate_result *gate);

#endif

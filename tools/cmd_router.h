/* cmd_router.h - the parts of `ruvllm router`. Layer: tools. */
#ifndef RUV_TOOLS_CMD_ROUTER_H
#define RUV_TOOLS_CMD_ROUTER_H

#include "learn/train_router.h"

/* argv[0] is the part's name; the result is the exit code. */
int cmd_router_classify(int argc, char **argv);
int cmd_router_collect(int argc, char **argv);
int cmd_router_train(int argc, char **argv);
int cmd_router_eval(int argc, char **argv);
int cmd_router_bench(int argc, char **argv);
int cmd_router_drift(int argc, char **argv);
int cmd_router_ask(int argc, char **argv);
int cmd_router_refine(int argc, char **argv);
int cmd_router_rollback(int argc, char **argv);

/* Reads a file of `router classify`: *bytes (free()) as a router file stores them. */
int cmd_router_read_classes(ruv_textclass **classes, const char *path, char **bytes, size_t *n_bytes, ruv_error *err);
/* Writes one. */
int cmd_router_write_classes(const ruv_textclass *classes, const char *path, ruv_error *err);

/* The router file to use: the configured one (--router), or the bundled one. False: it is not there, *code is what to end with. */
bool cmd_router_file(char *path, size_t cap, int *code);

#endif

/* cmd_memory.h - what the files of `ruvllm memory` share. Layer: tools. */
#ifndef RUV_TOOLS_CMD_MEMORY_H
#define RUV_TOOLS_CMD_MEMORY_H

#include "cli_runtime.h"

/* What an action has: its frame is memory_parse, memory_open, what it does, memory_end. */
typedef struct memory_action {
	cli_args args;
	ruv_runtime *runtime;
	ruv_memory *memory;
	ruv_error err;
	int code; /* to end with: 0 unless something says otherwise, or what memory_parse and memory_open found wrong */
} memory_action;

/* False: there is nothing more to do, end with `code`. */
bool memory_parse(memory_action *action, const cli_spec *spec, int argc, char **argv);
/* Says what went wrong when rc is an error, which `err` tells; closes; returns the code to end with. */
int memory_end(memory_action *action, int rc);

/* with_encoder: bound to the configured encoder and made when absent; otherwise only what is there, whatever filled it. */
bool memory_open(memory_action *action, bool with_encoder);
/* The runtime and what it opened; memory_end does it, too. */
void memory_close(memory_action *action);
/* The id that the user's beginning or end of one stands for. With --user, --agent or --session only among what they may see:
 * RUV_ENOTFOUND for another's. */
int memory_resolve(memory_action *action, char id[RUV_ID_SIZE], const char *part, ruv_error *err);
/* Does the configured scope see what belongs to `owner`? Always, when none is configured. */
bool memory_sees(memory_action *action, const ruv_memory_scope *owner);
/* "2026-11-23 06:50" in local time. */
const char *memory_time(char *text, size_t cap, int64_t ms);
/* The vector that the encoder gives a passage, [dim], freed by the caller. */
int memory_embed(memory_action *action, float **vector, const char *title, const char *text, ruv_error *err);

int memory_export(int argc, char **argv);
int memory_import(int argc, char **argv);
int memory_backup(int argc, char **argv);
int memory_verify(int argc, char **argv);
int memory_compact(int argc, char **argv);
int memory_stats(int argc, char **argv);
int memory_history(int argc, char **argv);
int memory_reembed(int argc, char **argv);
int memory_sources(int argc, char **argv);
int memory_graph(int argc, char **argv);
/* The words that `memory graph` takes in place of an entry: weave, learn, ... */
extern const cli_part memory_graph_parts[];
int memory_index(int argc, char **argv);

#endif

/* cmd_agent.h - what the parts of `ruvllm agent` share: the runtime's encoder and the router over it. Layer: tools. */
#ifndef RUV_TOOLS_CMD_AGENT_H
#define RUV_TOOLS_CMD_AGENT_H

#include "cli.h"
#include "cli_runtime.h"
#include "ruvllm/agent.h"

int cmd_agent_eval(int argc, char **argv);
int cmd_agent_train(int argc, char **argv);

/* Zeroed before cmd_agent_begin; the options point into it, so it stays where it is. */
typedef struct cmd_agent_door {
	ruv_runtime *runtime;
	ruv_embedder *embedder;
	ruv_agent_options options;
	ruv_agent_router *router; /* NULL: not asked for */
	char encoder[64], version[65];
} cmd_agent_door;

typedef enum cmd_agent_need {
	CMD_AGENT_ENCODER, /* the encoder alone */
	CMD_AGENT_BUNDLED, /* and the router, without what was taught here */
	CMD_AGENT_TAUGHT   /* and the router with DATA_DIR/agents.log */
} cmd_agent_need;

/* Reads the command line, opens what is needed. `given`: where an option put the trained file's path (NULL there: the bundled one).
 * False: end with *code; cmd_agent_end is due either way. */
bool cmd_agent_begin(cmd_agent_door *door, const cli_spec *spec, int argc, char **argv, cli_args *args, cmd_agent_need need,
                     const char *const *given, int *code);
void cmd_agent_end(cmd_agent_door *door);

/* The text's vector [door->options.dim], free(); NULL: *err says why. A text longer than the encoder reads is seen by its
 * beginning.
 */
float *cmd_agent_see(cmd_agent_door *door, const char *text, ruv_error *err);

/* Something said to a router about a task, or asked of it. */
typedef struct cmd_agent_word {
	enum { CMD_AGENT_ROUTE, CMD_AGENT_TEACH, CMD_AGENT_OUTCOME } what;
	const char *agent, *purpose, *right; /* as ruv_agent_teach and ruv_agent_outcome take them */
	int type;
	bool good;
	ruv_agent_routed *routed; /* what routing gives */
} cmd_agent_word;
/* Looks at the task and says it to door->router. */
int cmd_agent_say(cmd_agent_door *door, const char *task, const cmd_agent_word *word, ruv_error *err);

#endif

/* agents.h - the router of agents for what carries requests: HTTP (agents_api.c) and MCP (mcp_tools.c). Layer: server. */
#ifndef RUV_SERVER_AGENTS_H
#define RUV_SERVER_AGENTS_H

#include <jansson.h>

#include "ruvllm/runtime.h"

/* body's task, the router, and the task's vector [ruv_runtime_embed_dim], which the caller frees. RUV_EINVAL, RUV_ELIMIT. */
int ruv_agent_see(ruv_runtime *runtime, const json_t *body, const char **task, ruv_agent_router **agents, float **vector,
                  const ruv_cancel *cancel, ruv_error *err);
/* The choice with its alternatives; a new reference. */
json_t *ruv_agent_routed_json(const ruv_agent_routed *routed);
/* Notes body's {agent, task, good, right}; *agent belongs to the body. */
int ruv_agent_note(ruv_runtime *runtime, const json_t *body, const char **agent, bool *good, const ruv_cancel *cancel,
                   ruv_error *err);

#endif

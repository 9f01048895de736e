/* mcp_tools.h - the tools of the MCP server. Layer: server. */
#ifndef RUV_SERVER_MCP_TOOLS_H
#define RUV_SERVER_MCP_TOOLS_H

#include "server/mcp.h"

/* [{name, title, description, inputSchema, outputSchema, annotations}], always in the same order. */
json_t *ruv_mcp_tools_list(void);
/* The result of tools/call, also when the tool fails (isError); NULL: there is no tool of that name. token: of progress, or NULL.
 */
json_t *ruv_mcp_tools_call(const ruv_mcp_caller *caller, const char *name, const json_t *arguments, const json_t *token);

#endif

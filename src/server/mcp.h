/* mcp.h - a Model Context Protocol server over one runtime: JSON-RPC messages in, answers out, whatever carries them.
 *
 * Two eras of the protocol are spoken. Legacy (2025-06-18, 2025-11-25): an `initialize` handshake, then requests. Modern
 * (2026-07-28): every request says its version and capabilities in `_meta`, nothing is remembered between requests. Which one a
 * message belongs to shows in the message itself. Batches belong to neither and are invalid requests.
 *
 * Tools: memory_search, memory_add, memory_forget, ask, agent_route, agent_outcome. What a tool cannot do is a result with isError,
 * which the client's model reads; what the protocol does not allow is a JSON-RPC error.
 *
 * Threads: messages may be handled on several threads at once. Layer: server. */
#ifndef RUV_SERVER_MCP_H
#define RUV_SERVER_MCP_H

#include <jansson.h>

#include "ruvllm/runtime.h"

#define RUV_MCP_LATEST "2026-07-28"
#define RUV_MCP_LATEST_LEGACY "2025-11-25"

/* What a message may do, and where its notifications go. */
typedef struct ruv_mcp_caller {
	ruv_runtime *runtime;
	ruv_memory_scope scope; /* whose memory; NULL fields: as configured */
	bool may_read, may_write, may_learn;
	const char *owner_user, *owner_agent; /* "": anybody's; otherwise only their nodes may be forgotten */
	const ruv_cancel *cancel;             /* of this message; NULL is fine */
	const ruv_trace_context *trace;       /* what its spans are part of; NULL is fine */
	/* A notification that belongs to the message's request, before its answer; takes over `message`. NULL: none are sent. */
	void (*notify)(void *user, json_t *message);
	/* A question was answered, or a task routed; for counting. NULL is fine. */
	void (*answered)(void *user, const char *question, const ruv_answer *answer);
	void (*routed)(void *user, const ruv_agent_routed *routed);
	void *user;
} ruv_mcp_caller;

typedef enum ruv_mcp_kind {
	RUV_MCP_ANSWER, /* *answer is to be sent */
	RUV_MCP_SILENT, /* a notification: nothing is */
	RUV_MCP_CANCEL  /* a notification: the request whose id is *answer (a new reference) is to be stopped */
} ruv_mcp_kind;

/* Handles one message. *answer: a new reference. *http_status (NULL is fine): what HTTP says with it. */
ruv_mcp_kind ruv_mcp_handle(const ruv_mcp_caller *caller, const json_t *message, json_t **answer, int *http_status);
/* An error answer; id NULL: none could be read. */
json_t *ruv_mcp_error(const json_t *id, int code, const char *message, json_t *data);
/* Does the version name one that is spoken here? */
bool ruv_mcp_speaks(const char *version);
/* The version that a message says itself (modern), NULL: it says none. */
const char *ruv_mcp_version_of(const json_t *message);
/* -32022 with the versions that are spoken. */
json_t *ruv_mcp_unsupported(const json_t *id, const char *version);
/* Does the message want progress? */
bool ruv_mcp_wants_progress(const json_t *message);

enum {
	RUV_MCP_PARSE_ERROR = -32700,
	RUV_MCP_INVALID_REQUEST = -32600,
	RUV_MCP_NO_METHOD = -32601,
	RUV_MCP_INVALID_PARAMS = -32602,
	RUV_MCP_INTERNAL = -32603,
	RUV_MCP_HEADER_MISMATCH = -32020,
	RUV_MCP_VERSION = -32022
};

#endif

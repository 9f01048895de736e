/* mcp.c - the protocol's methods; see mcp.h. mcp_tools.c has what the tools do.
 *
 * Methods: initialize, ping (legacy); server/discover (modern); tools/list, tools/call. All else is -32601. Layer: server. */
#include "server/mcp.h"

#include <string.h>

#include "base/status.h"
#include "server/mcp_tools.h"

static const char *const versions[] = {RUV_MCP_LATEST, RUV_MCP_LATEST_LEGACY, "2025-06-18"};
enum { N_VERSIONS = sizeof versions / sizeof *versions };

static const char instructions[] =
    "RuvLLM remembers passages and answers questions from them, on this machine. Use memory_search for passages, ask for an answer "
    "with its source, memory_add for what is worth keeping, and memory_forget to take it back.";

bool ruv_mcp_speaks(const char *version)
{
	for (int i = 0; i < N_VERSIONS; i++)
		if (!strcmp(versions[i], version))
			return true;
	return false;
}

static const json_t *meta_of(const json_t *message)
{
	return json_object_get(json_object_get(message, "params"), "_meta");
}

const char *ruv_mcp_version_of(const json_t *message)
{
	return json_string_value(json_object_get(meta_of(message), "io.modelcontextprotocol/protocolVersion"));
}

bool ruv_mcp_wants_progress(const json_t *message)
{
	const json_t *token = json_object_get(meta_of(message), "progressToken");

	return json_is_string(token) || json_is_integer(token);
}

json_t *ruv_mcp_error(const json_t *id, int code, const char *text, json_t *data)
{
	json_t *answer = json_pack("{s:s}", "jsonrpc", "2.0");
	json_t *error = json_pack("{s:i, s:s}", "code", code, "message", text);

	if (id)
		json_object_set(answer, "id", (json_t *)id);
	if (data)
		json_object_set_new(error, "data", data);
	json_object_set_new(answer, "error", error);
	return answer;
}

static json_t *spoken(void)
{
	json_t *list = json_array();

	for (int i = 0; i < N_VERSIONS; i++)
		json_array_append_new(list, json_string(versions[i]));
	return list;
}

json_t *ruv_mcp_unsupported(const json_t *id, const char *version)
{
	return ruv_mcp_error(id, RUV_MCP_VERSION, "Unsupported protocol version",
	                     json_pack("{s:o, s:s}", "supported", spoken(), "requested", version));
}

static json_t *server_info(void)
{
	return json_pack("{s:s, s:s, s:s}", "name", "ruvllm", "title", "RuvLLM", "version", ruv_version());
}

/* Takes over `result`. */
static json_t *success(const json_t *id, json_t *result, bool modern)
{
	if (modern) {
		json_object_set_new(result, "resultType", json_string("complete"));
		json_object_set_new(result, "_meta", json_pack("{s:o}", "io.modelcontextprotocol/serverInfo", server_info()));
	}
	return json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result);
}

static json_t *capabilities(void)
{
	return json_pack("{s:{s:b}}", "tools", "listChanged", 0);
}

/* What clients may keep: the list is the same until the program is another one. */
static void add_caching(json_t *result)
{
	json_object_set_new(result, "ttlMs", json_integer(3600000));
	json_object_set_new(result, "cacheScope", json_string("public"));
}

static json_t *initialize(const json_t *id, const json_t *params)
{
	const char *wanted = json_string_value(json_object_get(params, "protocolVersion"));

	if (!wanted)
		return ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, "initialize needs a protocolVersion", NULL);
	/* the newest one with a handshake, unless the client wants an older one that we speak */
	if (!ruv_mcp_speaks(wanted) || !strcmp(wanted, RUV_MCP_LATEST))
		wanted = RUV_MCP_LATEST_LEGACY;
	return success(id,
	               json_pack("{s:s, s:o, s:o, s:s}", "protocolVersion", wanted, "capabilities", capabilities(), "serverInfo",
	                         server_info(), "instructions", instructions),
	               false);
}

static json_t *discover(const json_t *id)
{
	json_t *result = json_pack("{s:o, s:o, s:s}", "supportedVersions", spoken(), "capabilities", capabilities(), "instructions",
	                           instructions);

	add_caching(result);
	return success(id, result, true);
}

static json_t *list_tools(const json_t *id, const json_t *params, bool modern)
{
	const json_t *cursor = json_object_get(params, "cursor");
	json_t *result;

	if (cursor && !json_is_null(cursor))
		return ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, "this list has one page: there is no such cursor", NULL);
	result = json_pack("{s:o}", "tools", ruv_mcp_tools_list());
	if (modern)
		add_caching(result);
	return success(id, result, modern);
}

static json_t *call_tool(const ruv_mcp_caller *caller, const json_t *id, const json_t *params, bool modern)
{
	const char *name = json_string_value(json_object_get(params, "name"));
	const json_t *arguments = json_object_get(params, "arguments"), *token;
	char text[200];
	json_t *result;

	if (!name)
		return ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, "tools/call needs a name", NULL);
	if (arguments && !json_is_object(arguments))
		return ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, "the arguments of a tool must be an object", NULL);
	token = json_object_get(json_object_get(params, "_meta"), "progressToken");
	result = ruv_mcp_tools_call(caller, name, arguments, json_is_string(token) || json_is_integer(token) ? token : NULL);
	if (!result) {
		snprintf(text, sizeof text, "Unknown tool: %.100s", name);
		return ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, text, NULL);
	}
	return success(id, result, modern);
}

static ruv_mcp_kind answered(json_t **out, json_t *answer, int *status, int code)
{
	*out = answer;
	*status = code;
	return RUV_MCP_ANSWER;
}

/* The message is a modern request whose version and capabilities are in order; otherwise *answer says what is wrong. */
static bool check_modern(const json_t *message, const json_t *id, json_t **answer, int *status)
{
	const char *version = ruv_mcp_version_of(message);

	if (strcmp(version, RUV_MCP_LATEST)) /* versions with a handshake do not say it here */
		return answered(answer, ruv_mcp_unsupported(id, version), status, 400), false;
	if (!json_is_object(json_object_get(meta_of(message), "io.modelcontextprotocol/clientCapabilities")))
		return answered(answer,
		                ruv_mcp_error(id, RUV_MCP_INVALID_PARAMS, "_meta lacks io.modelcontextprotocol/clientCapabilities",
		                              NULL),
		                status, 400),
		       false;
	return true;
}

ruv_mcp_kind ruv_mcp_handle(const ruv_mcp_caller *caller, const json_t *message, json_t **answer, int *http_status)
{
	const json_t *id = json_object_get(message, "id"), *params = json_object_get(message, "params");
	const char *method = json_string_value(json_object_get(message, "method"));
	const char *rpc = json_string_value(json_object_get(message, "jsonrpc"));
	const bool modern = ruv_mcp_version_of(message) != NULL;
	int ignored = 0, *status = http_status ? http_status : &ignored;
	char text[200];

	*answer = NULL;
	*status = 200;
	if (json_is_array(message))
		return answered(answer, ruv_mcp_error(NULL, RUV_MCP_INVALID_REQUEST, "Batches are not part of this protocol", NULL),
		                status, 400);
	if (!json_is_object(message) || !rpc || strcmp(rpc, "2.0"))
		return answered(answer, ruv_mcp_error(NULL, RUV_MCP_INVALID_REQUEST, "A JSON-RPC 2.0 object expected", NULL),
		                status, 400);
	if (id && !json_is_string(id) && !json_is_integer(id))
		return answered(answer, ruv_mcp_error(NULL, RUV_MCP_INVALID_REQUEST, "The id must be a string or an integer", NULL),
		                status, 400);
	if (!method) {
		if (id && (json_object_get(message, "result") || json_object_get(message, "error"))) {
			*status = 202; /* an answer to nothing that we asked */
			return RUV_MCP_SILENT;
		}
		return answered(answer, ruv_mcp_error(id, RUV_MCP_INVALID_REQUEST, "The method is missing", NULL), status, 400);
	}
	if (params && !json_is_object(params)) {
		if (!id)
			return RUV_MCP_SILENT;
		return answered(answer, ruv_mcp_error(id, RUV_MCP_INVALID_REQUEST, "params must be an object", NULL), status, 400);
	}
	if (!id) {
		*status = 202;
		if (!strcmp(method, "notifications/cancelled") && json_object_get(params, "requestId")) {
			*answer = json_incref(json_object_get(params, "requestId"));
			return RUV_MCP_CANCEL;
		}
		return RUV_MCP_SILENT;
	}
	if (modern && !check_modern(message, id, answer, status))
		return RUV_MCP_ANSWER;
	if (!strcmp(method, "tools/list"))
		return answered(answer, list_tools(id, params, modern), status, 200);
	if (!strcmp(method, "tools/call"))
		return answered(answer, call_tool(caller, id, params, modern), status, 200);
	if (modern && !strcmp(method, "server/discover"))
		return answered(answer, discover(id), status, 200);
	if (!modern && !strcmp(method, "initialize"))
		return answered(answer, initialize(id, params), status, 200);
	if (!modern && !strcmp(method, "ping"))
		return answered(answer, success(id, json_object(), false), status, 200);
	snprintf(text, sizeof text, "Method not found: %.100s", method);
	return answered(answer, ruv_mcp_error(id, RUV_MCP_NO_METHOD, text, NULL), status, modern ? 404 : 200);
}

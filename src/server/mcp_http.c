/* mcp_http.c - MCP's streamable HTTP transport at /mcp: a POST a message; nothing is kept between them.
 *
 * A request is answered with one JSON object, or, when it wants progress and its client reads event streams, with a stream of its
 * notifications and the answer. The client that goes away cancels what it asked for. Without sessions a cancellation that comes in
 * a message of its own names nothing that could be told from another client's: it is taken and has no effect.
 *
 * Modern messages (2026-07-28) repeat method, name and version in headers, which must agree with the body. Origins other than this
 * machine's are refused before this is reached (http.c). Layer: server. */
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/status.h"
#include "server/ask.h"
#include "server/mcp.h"
#include "server/server_impl.h"

typedef struct stream {
	ruv_exchange *exchange;
	bool wanted;
} stream;

static void reply(ruv_exchange *exchange, int status, json_t *answer)
{
	if (ruv_exchange_has_begun(exchange)) {
		ruv_exchange_event(exchange, "message", answer);
		ruv_exchange_end(exchange);
	} else {
		ruv_exchange_reply_json(exchange, status, answer);
	}
}

static void notify(void *user, json_t *message)
{
	stream *s = user;

	if (!s->wanted) {
		json_decref(message);
		return;
	}
	if (!ruv_exchange_has_begun(s->exchange)) {
		ruv_exchange_set_header(s->exchange, "X-Accel-Buffering", "no");
		ruv_exchange_begin(s->exchange, "text/event-stream");
	}
	ruv_exchange_event(s->exchange, "message", message);
}

/* The header's value as the body would have it: "=?base64?...?=" decoded. In out[cap]; false: it is malformed. */
static bool plain_value(const char *value, char *out, size_t cap)
{
	const size_t n = strlen(value), open = 9, close = 2;
	int length;

	if (n < open + close || strncmp(value, "=?base64?", open) || strcmp(value + n - close, "?=")) {
		snprintf(out, cap, "%s", value);
		return n < cap;
	}
	if (n - open - close > cap || (n - open - close) % 4)
		return false;
	length = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)value + open, (int)(n - open - close));
	if (length < 0)
		return false;
	for (const char *p = value + n - close - 1; *p == '=' && length > 0; p--)
		length--;
	out[length] = '\0';
	return true;
}

/* The headers of a modern message against its body; NULL: they agree. */
static json_t *check_headers(const ruv_exchange *exchange, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");
	const char *method = json_string_value(json_object_get(message, "method"));
	const char *name = json_string_value(json_object_get(json_object_get(message, "params"), "name"));
	const struct {
		const char *header, *value;
	} pairs[] = {{"MCP-Protocol-Version", ruv_mcp_version_of(message)},
	             {"Mcp-Method", method},
	             {"Mcp-Name", method && !strcmp(method, "tools/call") ? name : NULL}};
	char text[300], value[1024];

	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		const char *header = ruv_exchange_header(exchange, pairs[i].header);

		if (!pairs[i].value)
			continue;
		if (header && plain_value(header, value, sizeof value) && !strcmp(value, pairs[i].value))
			continue;
		if (header)
			snprintf(text, sizeof text, "Header mismatch: %s header value '%.80s' does not match body value '%.80s'",
			         pairs[i].header, header, pairs[i].value);
		else
			snprintf(text, sizeof text, "Header mismatch: the %s header is missing", pairs[i].header);
		return ruv_mcp_error(id, RUV_MCP_HEADER_MISMATCH, text, NULL);
	}
	return NULL;
}

static void answered(void *user, const char *question, const ruv_answer *answer)
{
	ruv_ask_count(((stream *)user)->exchange, question, answer);
}

static void routed(void *user, const ruv_agent_routed *routed)
{
	ruv_metrics_agent(ruv_exchange_server(((stream *)user)->exchange)->metrics, routed->abstains);
}

static void post(ruv_exchange *exchange)
{
	const ruv_identity *identity = ruv_exchange_identity(exchange);
	const char *accept = ruv_exchange_header(exchange, "Accept"),
		   *version = ruv_exchange_header(exchange, "MCP-Protocol-Version");
	stream s = {.exchange = exchange};
	ruv_mcp_caller caller = {.runtime = ruv_server_runtime(ruv_exchange_server(exchange)),
	                         .may_read = identity->scopes & RUV_SCOPE_READ,
	                         .may_write = identity->scopes & RUV_SCOPE_WRITE,
	                         .may_learn = identity->scopes & RUV_SCOPE_LEARN,
	                         .owner_user = identity->user,
	                         .owner_agent = identity->agent,
	                         .cancel = ruv_exchange_cancel(exchange),
	                         .trace = ruv_exchange_trace(exchange),
	                         .notify = notify,
	                         .answered = answered,
	                         .routed = routed,
	                         .user = &s};
	json_t *message = NULL, *answer = NULL;
	ruv_error err = {0};
	int status = 200;

	if (ruv_exchange_json(exchange, false, &message, &err)) {
		reply(exchange, 400, ruv_mcp_error(NULL, RUV_MCP_PARSE_ERROR, err.message, NULL));
		return;
	}
	if (ruv_mcp_version_of(message)) {
		if ((answer = check_headers(exchange, message))) {
			reply(exchange, 400, answer);
			goto done;
		}
	} else if (version && !strcmp(version, RUV_MCP_LATEST)) {
		reply(exchange, 400,
		      ruv_mcp_error(json_object_get(message, "id"), RUV_MCP_HEADER_MISMATCH,
		                    "Header mismatch: _meta lacks io.modelcontextprotocol/protocolVersion", NULL));
		goto done;
	} else if (version && !ruv_mcp_speaks(version) && strcmp(version, "2025-03-26")) {
		reply(exchange, 400, ruv_mcp_unsupported(json_object_get(message, "id"), version));
		goto done;
	}
	if (ruv_scope_of(exchange, NULL, &caller.scope, &err)) {
		reply(exchange, 403, ruv_mcp_error(json_object_get(message, "id"), RUV_MCP_INVALID_REQUEST, err.message, NULL));
		goto done;
	}
	s.wanted = accept && strstr(accept, "text/event-stream") && ruv_mcp_wants_progress(message);
	switch (ruv_mcp_handle(&caller, message, &answer, &status)) {
	case RUV_MCP_ANSWER:
		reply(exchange, status, answer);
		break;
	case RUV_MCP_CANCEL:
		json_decref(answer);
		ruv_exchange_reply(exchange, 202, NULL, "", 0);
		break;
	case RUV_MCP_SILENT:
		ruv_exchange_reply(exchange, 202, NULL, "", 0);
		break;
	}
done:
	json_decref(message);
}

/* No stream of the server's own, and no session to end. */
static void not_allowed(ruv_exchange *exchange)
{
	ruv_exchange_set_header(exchange, "Allow", "POST");
	ruv_exchange_reply(exchange, 405, NULL, "", 0);
}

const ruv_route ruv_routes_mcp[] = {
    {RUV_POST, "/mcp", post, RUV_SCOPE_NONE, 0, RUV_ERRORS_OPENAI},
    {RUV_GET | RUV_DELETE, "/mcp", not_allowed, RUV_SCOPE_NONE, RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {0},
};

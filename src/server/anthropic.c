/* anthropic.c - /v1/messages and /v1/messages/count_tokens: Anthropic's form of a chat run.
 *
 * A request's system blocks, messages and tools become OpenAI's form, which chat.h takes: tool_use blocks are calls of the
 * assistant, tool_result blocks messages of the role "tool" in front of the user's text. System blocks that clients use for billing
 * ("x-anthropic-billing-header: ...") differ from request to request and say nothing to the model: they are left out, or no prompt
 * would begin like the one before and nothing of it could be taken from the prefix cache. Thinking blocks of earlier turns go back
 * to the template as reasoning.
 *
 * Usage: input_tokens are those that had to be computed; what came from the prefix cache is cache_read_input_tokens.
 *
 * Streams: message_start, then per block content_block_start, deltas, content_block_stop, then message_delta with the reason and
 * the counts, and message_stop. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "server/openai.h"

static const char where[] = "server";

enum { MAX_TEXT = 64 << 20 };

/* ---- reading a request ------------------------------------------------------------------------------------------------- */

typedef struct request {
	ruv_chat_request chat;
	json_t *messages, *tools, *extra; /* of ours */
	char *schema;
	const char *stops[RUV_OPENAI_MAX_STOPS];
	bool stream;
} request;

static void request_release(request *r)
{
	json_decref(r->messages);
	json_decref(r->tools);
	json_decref(r->extra);
	free(r->schema);
}

static const char *type_of(const json_t *block)
{
	const char *type = json_string_value(json_object_get(block, "type"));

	return type ? type : "";
}

static bool is_billing(const char *text)
{
	return !strncmp(text, "x-anthropic-billing-header", 26);
}

/* The text of a string or of text blocks, a blank line between. `what` is for messages. */
static int text_of(ruv_buf *out, const json_t *content, const char *what, ruv_error *err)
{
	const json_t *block;
	size_t i;

	if (!content || json_is_null(content))
		return RUV_OK;
	if (json_is_string(content)) {
		ruv_buf_append(out, json_string_value(content), json_string_length(content));
		return RUV_OK;
	}
	if (!json_is_array(content))
		return ruv_fail(err, RUV_EINVAL, where, "%s must be a string or an array of blocks", what);
	json_array_foreach(content, i, block)
	{
		const char *text = json_string_value(json_object_get(block, "text"));

		if (strcmp(type_of(block), "text") || !text)
			return ruv_fail(err, RUV_EUNSUPPORTED, where,
			                "block %zu of %s is of type '%.40s'; these models read text only", i + 1, what,
			                type_of(block));
		if (is_billing(text))
			continue;
		ruv_buf_printf(out, "%s%s", out->len ? "\n\n" : "", text);
	}
	return RUV_OK;
}

static json_t *taken_text(ruv_buf *text)
{
	json_t *value = ruv_json_string(ruv_buf_cstr(text), text->len);

	ruv_buf_release(text);
	return value;
}

static int read_system(request *r, const json_t *body, ruv_error *err)
{
	ruv_buf text;
	int rc;

	ruv_buf_init(&text, MAX_TEXT);
	rc = text_of(&text, json_object_get(body, "system"), "'system'", err);
	if (!rc && text.len && !is_billing(ruv_buf_cstr(&text)))
		json_array_append_new(r->messages,
		                      json_pack("{s:s, s:o}", "role", "system", "content", ruv_json_string(text.data, text.len)));
	ruv_buf_release(&text);
	return rc;
}

static int read_tool_use(json_t *calls, const json_t *block, size_t number, ruv_error *err)
{
	const json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name"),
		     *input = json_object_get(block, "input");
	char *arguments;

	if (!json_is_string(id) || !json_is_string(name) || (input && !json_is_object(input)))
		return ruv_fail(err, RUV_EINVAL, where, "a tool_use block of message %zu needs id, name and an input object",
		                number);
	arguments = input ? json_dumps(input, 0) : strdup("{}");
	json_array_append_new(calls, json_pack("{s:O, s:s, s:{s:O, s:s}}", "id", id, "type", "function", "function", "name", name,
	                                       "arguments", arguments ? arguments : "{}"));
	free(arguments);
	return RUV_OK;
}

static int read_tool_result(request *r, const json_t *block, size_t number, ruv_error *err)
{
	const json_t *id = json_object_get(block, "tool_use_id");
	char what[64];
	ruv_buf text;
	int rc;

	if (!json_is_string(id))
		return ruv_fail(err, RUV_EINVAL, where, "a tool_result block of message %zu has no tool_use_id", number);
	snprintf(what, sizeof what, "a tool_result of message %zu", number);
	ruv_buf_init(&text, MAX_TEXT);
	rc = text_of(&text, json_object_get(block, "content"), what, err);
	if (rc) {
		ruv_buf_release(&text);
		return rc;
	}
	json_array_append_new(r->messages,
	                      json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", taken_text(&text)));
	return RUV_OK;
}

static int read_blocks(request *r, const char *role, const json_t *content, size_t number, ruv_error *err)
{
	const bool assistant = !strcmp(role, "assistant");
	json_t *calls = json_array(), *message;
	ruv_buf text, thinking;
	const json_t *block;
	size_t i;
	int rc = RUV_OK;

	ruv_buf_init(&text, MAX_TEXT);
	ruv_buf_init(&thinking, MAX_TEXT);
	json_array_foreach(content, i, block)
	{
		const char *type = type_of(block), *said = json_string_value(json_object_get(block, "text"));
		const json_t *source = json_object_get(block, "source");

		if (!strcmp(type, "text") && said) {
			ruv_buf_printf(&text, "%s%s", text.len ? "\n" : "", said);
		} else if (assistant && !strcmp(type, "tool_use")) {
			rc = read_tool_use(calls, block, number, err);
		} else if (!assistant && !strcmp(type, "tool_result")) {
			rc = read_tool_result(r, block, number, err);
		} else if (assistant && !strcmp(type, "thinking")) {
			said = json_string_value(json_object_get(block, "thinking"));
			ruv_buf_puts(&thinking, said ? said : "");
		} else if (assistant && !strcmp(type, "redacted_thinking")) {
			continue; /* nobody can read it */
		} else if (!strcmp(type, "document") && !strcmp(type_of(source), "text") &&
		           json_is_string(json_object_get(source, "data"))) {
			ruv_buf_printf(&text, "%s%s", text.len ? "\n" : "", json_string_value(json_object_get(source, "data")));
		} else {
			rc = ruv_fail(err, RUV_EUNSUPPORTED, where,
			              "block %zu of message %zu is of type '%.40s', which a %.20s's message "
			              "here cannot have; these models read text only",
			              i + 1, number, type, role);
		}
		if (rc)
			break;
	}
	if (!rc && (text.len || json_array_size(calls) || json_array_size(content) == 0)) {
		message =
		    json_pack("{s:s, s:o}", "role", role, "content",
		              text.len || !json_array_size(calls) ? ruv_json_string(ruv_buf_cstr(&text), text.len) : json_null());
		if (json_array_size(calls))
			json_object_set(message, "tool_calls", calls);
		if (thinking.len)
			json_object_set_new(message, "reasoning_content", ruv_json_string(thinking.data, thinking.len));
		json_array_append_new(r->messages, message);
	}
	json_decref(calls);
	ruv_buf_release(&text);
	ruv_buf_release(&thinking);
	return rc;
}

static int read_messages(request *r, const json_t *body, ruv_error *err)
{
	json_t *list = NULL;
	const json_t *message;
	size_t i;
	int rc = ruv_json_array(body, "messages", &list, err);

	if (!rc && !json_array_size(list))
		rc = ruv_fail(err, RUV_EINVAL, where, "'messages' must be an array with at least one message");
	json_array_foreach(list, i, message)
	{
		const char *role = json_string_value(json_object_get(message, "role"));
		const json_t *content = json_object_get(message, "content");

		if (rc)
			break;
		if (!role || (strcmp(role, "user") && strcmp(role, "assistant") && strcmp(role, "system")))
			rc = ruv_fail(err, RUV_EINVAL, where, "the role of message %zu must be user or assistant", i + 1);
		else if (json_is_string(content))
			json_array_append_new(r->messages, json_pack("{s:s, s:O}", "role", role, "content", content));
		else if (json_is_array(content))
			rc = read_blocks(r, role, content, i + 1, err);
		else
			rc = ruv_fail(err, RUV_EINVAL, where, "the content of message %zu must be a string or an array of blocks",
			              i + 1);
	}
	return rc;
}

static int read_tools(request *r, const json_t *body, const char **param, ruv_error *err)
{
	json_t *list = NULL, *choice = NULL;
	const json_t *tool;
	const char *type = NULL;
	bool single = false;
	size_t i;
	int rc;

	*param = "tools";
	rc = ruv_json_array(body, "tools", &list, err);
	if (!rc && json_array_size(list))
		r->tools = json_array();
	json_array_foreach(list, i, tool)
	{
		const json_t *name = json_object_get(tool, "name"), *about = json_object_get(tool, "description"),
			     *schema = json_object_get(tool, "input_schema");
		json_t *function;

		if (rc)
			return rc;
		if (!json_is_string(name))
			return ruv_fail(err, RUV_EINVAL, where, "tool %zu has no name", i + 1);
		if (!json_is_object(schema))
			return ruv_fail(
			    err, RUV_EUNSUPPORTED, where,
			    "the tool '%.60s' of type '%.60s' has no input_schema; tools that run on the server are not there",
			    json_string_value(name), type_of(tool));
		function = json_pack("{s:O, s:O}", "name", name, "parameters", schema);
		if (json_is_string(about))
			json_object_set(function, "description", (json_t *)about);
		json_array_append_new(r->tools, json_pack("{s:s, s:o}", "type", "function", "function", function));
	}
	*param = "tool_choice";
	if (!rc)
		rc = ruv_json_object(body, "tool_choice", &choice, err);
	if (rc || !choice)
		return rc;
	if ((rc = ruv_json_text(choice, "type", &type, err)) ||
	    (rc = ruv_json_bool(choice, "disable_parallel_tool_use", &single, err)))
		return rc;
	r->chat.no_parallel_tools = single;
	if (type && !strcmp(type, "none"))
		r->chat.tool_choice = RUV_TOOLS_NONE;
	else if (type && !strcmp(type, "any"))
		r->chat.tool_choice = RUV_TOOLS_REQUIRED;
	else if (type && !strcmp(type, "tool")) {
		r->chat.tool_choice = RUV_TOOLS_NAMED;
		rc = ruv_json_text(choice, "name", &r->chat.tool_name, err);
		if (!rc && !r->chat.tool_name)
			rc = ruv_fail(err, RUV_EINVAL, where, "'tool_choice' of type tool needs a name");
	} else if (!type || strcmp(type, "auto"))
		rc = ruv_fail(err, RUV_EINVAL, where, "the type of 'tool_choice' must be auto, any, tool or none");
	if (!rc && !r->tools && r->chat.tool_choice >= RUV_TOOLS_REQUIRED)
		rc = ruv_fail(err, RUV_EINVAL, where, "'tool_choice' asks for a tool, but there are no tools");
	return rc;
}

/* output_config.format, or output_format as it was called first: a JSON schema. */
static int read_format(request *r, const json_t *body, const char **param, ruv_error *err)
{
	json_t *config = NULL, *format = NULL, *schema = NULL;
	int rc;

	*param = "output_config";
	rc = ruv_json_object(body, "output_config", &config, err);
	if (!rc)
		rc = config ? ruv_json_object(config, "format", &format, err) : RUV_OK;
	if (!rc && !format) {
		*param = "output_format";
		rc = ruv_json_object(body, "output_format", &format, err);
	}
	if (rc || !format)
		return rc;
	if (strcmp(type_of(format), "json_schema"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "'%s' of type '%.40s' is not supported; json_schema is", *param,
		                type_of(format));
	rc = ruv_json_object(format, "schema", &schema, err);
	if (!rc && !schema)
		rc = ruv_fail(err, RUV_EINVAL, where, "'%s' needs a schema", *param);
	if (rc)
		return rc;
	r->schema = json_dumps(schema, JSON_COMPACT);
	if (!r->schema)
		return ruv_fail_memory(err, where, 0);
	r->chat.format = RUV_FORMAT_JSON_SCHEMA;
	r->chat.format_text = r->schema;
	return RUV_OK;
}

static int read_sampling(request *r, const json_t *body, const char **param, ruv_error *err)
{
	static const struct {
		const char *name;
		double high;
		unsigned bit;
	} reals[] = {{"temperature", 2, RUV_SET_TEMPERATURE}, {"top_p", 1, RUV_SET_TOP_P}};
	double *const places[] = {&r->chat.temperature, &r->chat.top_p};
	int rc = RUV_OK;

	for (size_t i = 0; i < sizeof reals / sizeof *reals && !rc; i++) {
		const json_t *value = json_object_get(body, reals[i].name);

		*param = reals[i].name;
		rc = ruv_json_real(body, reals[i].name, 0, reals[i].high, places[i], err);
		if (value && !json_is_null(value))
			r->chat.set |= reals[i].bit;
	}
	*param = "top_k";
	if (!rc)
		rc = ruv_json_int(body, "top_k", 0, INT32_MAX, &r->chat.top_k, err);
	if (json_is_integer(json_object_get(body, "top_k")))
		r->chat.set |= RUV_SET_TOP_K;
	return rc;
}

static int read_stops(request *r, const json_t *body, ruv_error *err)
{
	json_t *list = NULL;
	const json_t *stop;
	size_t i;
	int rc = ruv_json_array(body, "stop_sequences", &list, err);

	if (!rc && json_array_size(list) > RUV_OPENAI_MAX_STOPS)
		rc = ruv_fail(err, RUV_EINVAL, where, "'stop_sequences' has %zu items; at most %d are taken", json_array_size(list),
		              (int)RUV_OPENAI_MAX_STOPS);
	json_array_foreach(list, i, stop)
	{
		if (rc)
			break;
		if (!json_is_string(stop) || !json_string_length(stop))
			rc = ruv_fail(err, RUV_EINVAL, where, "item %zu of 'stop_sequences' is no text", i + 1);
		else
			r->stops[r->chat.n_stops++] = json_string_value(stop);
	}
	r->chat.stops = r->stops;
	return rc;
}

/* Fills *r from the body, whose strings it uses; released by the caller in any case. */
static int read_request(request *r, const json_t *body, bool counting, const char **param, ruv_error *err)
{
	static const char *const refused[] = {"mcp_servers", "container", NULL};
	json_t *thinking = NULL;
	int64_t max_tokens = 0;
	int rc;

	ruv_chat_request_init(&r->chat);
	r->messages = json_array();
	rc = ruv_openai_refuse(body, refused, param, err);
	if (rc)
		return rc;
	*param = "model";
	if ((rc = ruv_json_text(body, "model", &r->chat.model, err)))
		return rc;
	*param = "max_tokens";
	if ((rc = ruv_json_int(body, "max_tokens", 1, INT32_MAX, &max_tokens, err)))
		return rc;
	if (!max_tokens && !counting)
		return ruv_fail(err, RUV_EINVAL, where, "'max_tokens' is required");
	r->chat.max_tokens = (int)max_tokens;
	*param = "stream";
	if ((rc = ruv_json_bool(body, "stream", &r->stream, err)))
		return rc;
	*param = "system";
	if ((rc = read_system(r, body, err)))
		return rc;
	*param = "messages";
	if ((rc = read_messages(r, body, err)))
		return rc;
	*param = "stop_sequences";
	if ((rc = read_stops(r, body, err)))
		return rc;
	*param = "thinking";
	if ((rc = ruv_json_object(body, "thinking", &thinking, err)))
		return rc;
	if (thinking)
		r->extra = json_pack("{s:b}", "enable_thinking", strcmp(type_of(thinking), "disabled") != 0);
	if ((rc = read_sampling(r, body, param, err)) || (rc = read_tools(r, body, param, err)) ||
	    (rc = read_format(r, body, param, err)))
		return rc;
	r->chat.messages = r->messages;
	r->chat.tools = r->tools;
	r->chat.template_extra = r->extra;
	*param = NULL;
	return RUV_OK;
}

/* ---- answering --------------------------------------------------------------------------------------------------------- */

typedef enum block_kind { BLOCK_NONE, BLOCK_TEXT, BLOCK_THINKING, BLOCK_TOOL } block_kind;

typedef struct message {
	char id[64];
	bool stream;
	block_kind open;
	int n_blocks; /* begun */
	bool called;  /* a tool was */
} message;

static json_t *usage_json(const ruv_chat_usage *usage, bool output)
{
	json_t *json =
	    json_pack("{s:i, s:i, s:i, s:i}", "input_tokens", usage->n_prompt - usage->n_cached, "cache_creation_input_tokens", 0,
	              "cache_read_input_tokens", usage->n_cached, "output_tokens", output ? usage->n_output : 0);

	return json;
}

static void send(message *m, ruv_chat_run *run, json_t *event)
{
	(void)m;
	ruv_exchange_event(ruv_chat_exchange(run), type_of(event), event);
}

static void close_block(message *m, ruv_chat_run *run)
{
	if (m->open == BLOCK_NONE)
		return;
	if (m->open == BLOCK_THINKING)
		send(m, run,
		     json_pack("{s:s, s:i, s:{s:s, s:s}}", "type", "content_block_delta", "index", m->n_blocks - 1, "delta", "type",
		               "signature_delta", "signature", ""));
	send(m, run, json_pack("{s:s, s:i}", "type", "content_block_stop", "index", m->n_blocks - 1));
	m->open = BLOCK_NONE;
}

/* Takes over `block`. */
static void open_block(message *m, ruv_chat_run *run, block_kind kind, json_t *block)
{
	close_block(m, run);
	m->open = kind;
	send(m, run, json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", m->n_blocks++, "content_block", block));
}

static void send_delta(message *m, ruv_chat_run *run, const char *type, const char *key, const char *text, size_t n)
{
	send(m, run,
	     json_pack("{s:s, s:i, s:{s:s, s:o}}", "type", "content_block_delta", "index", m->n_blocks - 1, "delta", "type", type,
	               key, ruv_json_string(text, n)));
}

static void on_begin(void *user, ruv_chat_run *run)
{
	message *m = user;
	const ruv_chat_usage usage = ruv_chat_usage_now(run);

	if (!m->stream)
		return;
	ruv_exchange_begin(ruv_chat_exchange(run), "text/event-stream");
	send(m, run,
	     json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:[], s:n, s:n, s:o}}", "type", "message_start", "message", "id", m->id,
	               "type", "message", "role", "assistant", "model", ruv_chat_model(run), "content", "stop_reason",
	               "stop_sequence", "usage", usage_json(&usage, false)));
	send(m, run, json_pack("{s:s}", "type", "ping"));
}

static bool is_blank(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr(" \t\r\n", text[i]))
			return false;
	return true;
}

static void on_text(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs)
{
	message *m = user;

	(void)choice, (void)logprobs;
	/* the line ends between calls are the notation's, not the answer's */
	if (!m->stream || !n || (m->called && m->open != BLOCK_TEXT && is_blank(text, n)))
		return;
	if (m->open != BLOCK_TEXT)
		open_block(m, run, BLOCK_TEXT, json_pack("{s:s, s:s}", "type", "text", "text", ""));
	send_delta(m, run, "text_delta", "text", text, n);
}

static void on_reasoning(void *user, ruv_chat_run *run, int choice, const char *text, size_t n)
{
	message *m = user;

	(void)choice;
	if (!m->stream)
		return;
	if (m->open != BLOCK_THINKING)
		open_block(m, run, BLOCK_THINKING,
		           json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", ""));
	send_delta(m, run, "thinking_delta", "thinking", text, n);
}

static void on_tool_begin(void *user, ruv_chat_run *run, int choice, int index, const char *id, const char *name)
{
	message *m = user;

	(void)choice, (void)index;
	m->called = true;
	if (m->stream)
		open_block(m, run, BLOCK_TOOL,
		           json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", id, "name", name, "input"));
}

static void on_tool_arguments(void *user, ruv_chat_run *run, int choice, int index, const char *json, size_t n)
{
	message *m = user;

	(void)choice, (void)index;
	if (m->stream && m->open == BLOCK_TOOL)
		send_delta(m, run, "input_json_delta", "partial_json", json, n);
}

static void on_tool_end(void *user, ruv_chat_run *run, int choice, int index)
{
	message *m = user;

	(void)choice, (void)index;
	if (m->stream)
		close_block(m, run);
}

static const char *stop_reason(const ruv_chat_choice *choice)
{
	switch (choice->end) {
	case RUV_END_LENGTH:
		return "max_tokens";
	case RUV_END_TOOL_CALLS:
		return "tool_use";
	case RUV_END_STOP_STRING:
		return "stop_sequence";
	case RUV_END_STOP:
		break;
	}
	return "end_turn";
}

static json_t *content_of(const ruv_chat_choice *choice)
{
	json_t *content = json_array(), *call;
	size_t i;

	if (choice->n_reasoning)
		json_array_append_new(content, json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking",
		                                         ruv_json_string(choice->reasoning, choice->n_reasoning), "signature", ""));
	if (choice->n_text && !(json_array_size(choice->tool_calls) && is_blank(choice->text, choice->n_text)))
		json_array_append_new(
		    content, json_pack("{s:s, s:o}", "type", "text", "text", ruv_json_string(choice->text, choice->n_text)));
	json_array_foreach(choice->tool_calls, i, call)
	{
		const json_t *function = json_object_get(call, "function");
		json_t *input = json_loads(json_string_value(json_object_get(function, "arguments")), 0, NULL);

		json_array_append_new(content,
		                      json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id", json_object_get(call, "id"),
		                                "name", json_object_get(function, "name"), "input", input ? input : json_object()));
	}
	return content;
}

static void on_end(void *user, ruv_chat_run *run)
{
	message *m = user;
	ruv_exchange *exchange = ruv_chat_exchange(run);
	const ruv_chat_choice choice = ruv_chat_choice_at(run, 0);
	const ruv_chat_usage usage = ruv_chat_usage_now(run);
	json_t *stop = choice.end == RUV_END_STOP_STRING && choice.stop ? json_string(choice.stop) : json_null();
	json_t *answer;

	if (m->stream) {
		close_block(m, run);
		send(m, run,
		     json_pack("{s:s, s:{s:s, s:o}, s:o}", "type", "message_delta", "delta", "stop_reason", stop_reason(&choice),
		               "stop_sequence", stop, "usage", usage_json(&usage, true)));
		send(m, run, json_pack("{s:s}", "type", "message_stop"));
		ruv_exchange_end(exchange);
	} else {
		answer = json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:o}", "id", m->id, "type", "message", "role", "assistant",
		                   "model", ruv_chat_model(run), "content", content_of(&choice), "stop_reason",
		                   stop_reason(&choice), "stop_sequence", stop, "usage", usage_json(&usage, true));
		if (ruv_chat_memory(run))
			json_object_set_new(answer, "ruvllm", json_pack("{s:O}", "memory", ruv_chat_memory(run)));
		ruv_exchange_reply_json(exchange, 200, answer);
	}
	free(m);
}

static void on_fail(void *user, ruv_chat_run *run, const ruv_error *err)
{
	ruv_exchange_fail(ruv_chat_exchange(run), err, err->code == RUV_ECONTEXT ? "messages" : NULL);
	free(user);
}

static const ruv_chat_events events = {.begin = on_begin,
                                       .text = on_text,
                                       .reasoning = on_reasoning,
                                       .tool_begin = on_tool_begin,
                                       .tool_arguments = on_tool_arguments,
                                       .tool_end = on_tool_end,
                                       .end = on_end,
                                       .fail = on_fail};

static void messages(ruv_exchange *exchange)
{
	request r = {0};
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	message *m = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_request(&r, body, false, &param, &err);
	if (!rc) {
		m = calloc(1, sizeof *m);
		if (!m)
			rc = ruv_fail_memory(&err, where, sizeof *m);
	}
	if (!rc) {
		ruv_openai_make_id(m->id, "msg_");
		m->stream = r.stream;
		rc = ruv_chat_start(exchange, &r.chat, &events, m, &param, &err);
		if (rc)
			free(m);
	}
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	request_release(&r);
	json_decref(body);
}

static void count_tokens(ruv_exchange *exchange)
{
	request r = {0};
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	int n = 0, rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_request(&r, body, true, &param, &err);
	if (!rc)
		rc = ruv_chat_count(exchange, &r.chat, &n, &param, &err);
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	else
		ruv_exchange_reply_json(exchange, 200, json_pack("{s:i}", "input_tokens", n));
	request_release(&r);
	json_decref(body);
}

const ruv_route ruv_routes_anthropic[] = {
    {RUV_POST, "/v1/messages", messages, RUV_SCOPE_CHAT, 0, RUV_ERRORS_ANTHROPIC},
    {RUV_POST, "/v1/messages/count_tokens", count_tokens, RUV_SCOPE_CHAT, 0, RUV_ERRORS_ANTHROPIC},
    {0},
};

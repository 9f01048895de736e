/* responses.c - /v1/responses: OpenAI's newer form of a chat run, whole or as named events.
 *
 * Input items become messages: message, function_call, function_call_output, reasoning (whose text goes back to the template);
 * items of other kinds that clients send along from other servers (web_search_call, ...) are passed over, as are tools of types
 * that this server does not run (web_search, local_shell, custom, ...): Codex lists them beside its functions. System and developer
 * messages may stand anywhere and repeat themselves: equal ones are taken once.
 *
 * Nothing is stored: previous_response_id, conversation and background are refused by name; "store" is answered false.
 *
 * Streams: response.created and in_progress, then per output item output_item.added, its parts and deltas, output_item.done, and
 * response.completed (or incomplete, failed). Events count up in sequence_number. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "server/openai.h"

static const char where[] = "server";

enum { MAX_TEXT = 64 << 20 };

/* ---- reading a request ------------------------------------------------------------------------------------------------- */

typedef struct request {
	ruv_openai_request common;
	json_t *messages, *tools, *body; /* body: in the form that ruv_openai_read takes */
} request;

static void request_release(request *r)
{
	ruv_openai_release(&r->common);
	json_decref(r->messages);
	json_decref(r->tools);
	json_decref(r->body);
}

static const char *text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* A string, or the texts of parts. */
static int content_of(ruv_buf *out, const json_t *content, size_t number, ruv_error *err)
{
	const json_t *part;
	size_t i;

	if (json_is_string(content)) {
		ruv_buf_append(out, json_string_value(content), json_string_length(content));
		return RUV_OK;
	}
	json_array_foreach(content, i, part)
	{
		const char *type = text_at(part, "type");
		const json_t *text = json_object_get(part, !strcmp(type, "refusal") ? "refusal" : "text");

		if (!json_is_string(text))
			return ruv_fail(err, RUV_EUNSUPPORTED, where,
			                "part %zu of input item %zu is of type '%.40s'; these models read text only", i + 1, number,
			                type);
		ruv_buf_printf(out, "%s%s", i ? "\n" : "", json_string_value(text));
	}
	return RUV_OK;
}

/* The assistant's message that calls belong to: the last one, or a new one. */
static json_t *calling_message(request *r)
{
	json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);

	if (last && !strcmp(text_at(last, "role"), "assistant")) {
		if (!json_object_get(last, "tool_calls"))
			json_object_set_new(last, "tool_calls", json_array());
		return last;
	}
	last = json_pack("{s:s, s:n, s:[]}", "role", "assistant", "content", "tool_calls");
	json_array_append_new(r->messages, last);
	return last;
}

static bool is_repeated(const request *r, const char *role, const char *text)
{
	const json_t *message;
	size_t i;

	if (strcmp(role, "system") && strcmp(role, "developer"))
		return false;
	json_array_foreach(r->messages, i, message)
	{
		const char *other = text_at(message, "role");

		if ((!strcmp(other, "system") || !strcmp(other, "developer")) && !strcmp(text_at(message, "content"), text))
			return true;
	}
	return false;
}

static int read_item(request *r, const json_t *item, size_t number, ruv_error *err)
{
	const char *type = text_at(item, "type"), *role = text_at(item, "role");
	ruv_buf text;
	int rc = RUV_OK;

	if (!json_is_object(item))
		return ruv_fail(err, RUV_EINVAL, where, "input item %zu is no object", number);
	if (!strcmp(type, "item_reference"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "input item %zu refers to a stored item; this server stores none",
		                number);
	ruv_buf_init(&text, MAX_TEXT);
	if (*role && (!*type || !strcmp(type, "message"))) {
		rc = content_of(&text, json_object_get(item, "content"), number, err);
		if (!rc && !is_repeated(r, role, ruv_buf_cstr(&text)))
			json_array_append_new(r->messages, json_pack("{s:s, s:o}", "role", role, "content",
			                                             ruv_json_string(ruv_buf_cstr(&text), text.len)));
	} else if (!strcmp(type, "function_call") || !strcmp(type, "custom_tool_call")) {
		const char *arguments = text_at(item, *type == 'c' ? "input" : "arguments");
		json_t *object = json_loads(arguments, 0, NULL);
		char *wrapped = NULL;

		if (!json_is_object(object)) { /* a custom tool's free text */
			json_t *whole = json_pack("{s:s}", "input", arguments);

			wrapped = json_dumps(whole, 0);
			json_decref(whole);
		}
		json_array_append_new(json_object_get(calling_message(r), "tool_calls"),
		                      json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", text_at(item, "call_id"), "type", "function",
		                                "function", "name", text_at(item, "name"), "arguments",
		                                wrapped ? wrapped : arguments));
		free(wrapped);
		json_decref(object);
	} else if (!strcmp(type, "function_call_output") || !strcmp(type, "custom_tool_call_output")) {
		rc = content_of(&text, json_object_get(item, "output"), number, err);
		if (!rc)
			json_array_append_new(r->messages,
			                      json_pack("{s:s, s:s, s:o}", "role", "tool", "tool_call_id", text_at(item, "call_id"),
			                                "content", ruv_json_string(ruv_buf_cstr(&text), text.len)));
	}
	ruv_buf_release(&text);
	return rc;
}

static int read_input(request *r, const json_t *body, const char **param, ruv_error *err)
{
	const json_t *input = json_object_get(body, "input"), *item;
	const char *instructions = NULL;
	size_t i;
	int rc;

	*param = "instructions";
	if ((rc = ruv_json_text(body, "instructions", &instructions, err)))
		return rc;
	if (instructions && *instructions)
		json_array_append_new(r->messages, json_pack("{s:s, s:s}", "role", "system", "content", instructions));
	*param = "input";
	if (json_is_string(input)) {
		json_array_append_new(r->messages, json_pack("{s:s, s:O}", "role", "user", "content", input));
	} else if (!json_is_array(input) || !json_array_size(input)) {
		return ruv_fail(err, RUV_EINVAL, where, "'input' must be a text or an array of items");
	}
	json_array_foreach(input, i, item) if (!rc) rc = read_item(r, item, i + 1, err);
	return rc;
}

/* Functions in chat's form, the other tools left out. */
static int read_tools(request *r, const json_t *body, const char **param, ruv_error *err)
{
	json_t *list = NULL, *choice = json_object_get(body, "tool_choice");
	const json_t *tool;
	size_t i;
	int rc;

	*param = "tools";
	rc = ruv_json_array(body, "tools", &list, err);
	r->tools = json_array();
	json_array_foreach(list, i, tool)
	{
		const json_t *name = json_object_get(tool, "name"), *about = json_object_get(tool, "description"),
			     *parameters = json_object_get(tool, "parameters");
		json_t *function;

		if (strcmp(text_at(tool, "type"), "function"))
			continue;
		if (!json_is_string(name))
			return ruv_fail(err, RUV_EINVAL, where, "tool %zu has no name", i + 1);
		function = json_pack("{s:O}", "name", name);
		if (json_is_string(about))
			json_object_set(function, "description", (json_t *)about);
		if (json_is_object(parameters))
			json_object_set(function, "parameters", (json_t *)parameters);
		json_array_append_new(r->tools, json_pack("{s:s, s:o}", "type", "function", "function", function));
	}
	if (rc)
		return rc;
	if (json_array_size(r->tools))
		json_object_set(r->body, "tools", r->tools);
	if (json_is_object(choice) && !strcmp(text_at(choice, "type"), "function"))
		json_object_set_new(r->body, "tool_choice",
		                    json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", text_at(choice, "name")));
	else if (json_is_string(choice) && (json_array_size(r->tools) || strcmp(json_string_value(choice), "auto")))
		json_object_set(r->body, "tool_choice", choice);
	else if (json_is_object(choice)) {
		*param = "tool_choice";
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "'tool_choice' of type '%.40s' is not supported",
		                text_at(choice, "type"));
	}
	if (json_object_get(body, "parallel_tool_calls") && json_array_size(r->tools))
		json_object_set(r->body, "parallel_tool_calls", json_object_get(body, "parallel_tool_calls"));
	return RUV_OK;
}

/* text.format in chat's form. */
static int read_format(request *r, const json_t *body, const char **param, ruv_error *err)
{
	json_t *text = NULL, *format = NULL, *schema;
	int rc;

	*param = "text";
	if ((rc = ruv_json_object(body, "text", &text, err)) || !text || (rc = ruv_json_object(text, "format", &format, err)) ||
	    !format)
		return rc;
	if (!strcmp(text_at(format, "type"), "json_schema")) {
		schema = json_object();
		json_object_set_new(schema, "name", json_string(*text_at(format, "name") ? text_at(format, "name") : "schema"));
		json_object_set(schema, "schema", json_object_get(format, "schema"));
		json_object_set_new(r->body, "response_format",
		                    json_pack("{s:s, s:o}", "type", "json_schema", "json_schema", schema));
	} else {
		json_object_set(r->body, "response_format", format);
	}
	return RUV_OK;
}

static int read_request(request *r, const json_t *body, const char **param, ruv_error *err)
{
	static const char *const refused[] = {"previous_response_id", "conversation", "background", "prompt", NULL};
	static const char *const same[] = {"model", "temperature", "top_p", "stream", "ruvllm",
	                                   "seed",  "stop",        "top_k", "min_p",  NULL};
	const char *truncation = NULL;
	int64_t max_tokens = 0;
	int rc;

	r->messages = json_array();
	r->body = json_object();
	if ((rc = ruv_openai_refuse(body, refused, param, err)))
		return rc;
	*param = "truncation";
	if ((rc = ruv_json_text(body, "truncation", &truncation, err)))
		return rc;
	if (truncation && !strcmp(truncation, "auto"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "'truncation' auto is not supported: what does not fit is refused, not cut");
	*param = "max_output_tokens";
	if ((rc = ruv_json_int(body, "max_output_tokens", 1, INT32_MAX, &max_tokens, err)))
		return rc;
	for (int i = 0; same[i]; i++)
		if (json_object_get(body, same[i]))
			json_object_set(r->body, same[i], json_object_get(body, same[i]));
	if (max_tokens)
		json_object_set_new(r->body, "max_tokens", json_integer(max_tokens));
	if ((rc = read_input(r, body, param, err)) || (rc = read_tools(r, body, param, err)) ||
	    (rc = read_format(r, body, param, err)) || (rc = ruv_openai_read(&r->common, r->body, param, err)) ||
	    (rc = ruv_openai_read_tools(&r->common, r->body, param, err)))
		return rc;
	r->common.request.messages = r->messages;
	*param = NULL;
	return RUV_OK;
}

/* ---- answering --------------------------------------------------------------------------------------------------------- */

typedef enum item_kind { ITEM_NONE, ITEM_MESSAGE, ITEM_REASONING, ITEM_CALL } item_kind;

typedef struct response {
	char id[64];
	int64_t created;
	bool stream;
	json_t *echo; /* fields of the request that the response repeats */
	int sequence;
	item_kind open;
	char item_id[64];
	json_t *output; /* items that are complete */
	ruv_buf text;   /* of the open item */
	char *call_id, *name;
	bool called;
} response;

static void response_free(response *p)
{
	json_decref(p->echo);
	json_decref(p->output);
	ruv_buf_release(&p->text);
	free(p->call_id);
	free(p->name);
	free(p);
}

static json_t *usage_json(const ruv_chat_usage *usage)
{
	return json_pack("{s:i, s:{s:i}, s:i, s:{s:i}, s:i}", "input_tokens", usage->n_prompt, "input_tokens_details",
	                 "cached_tokens", usage->n_cached, "output_tokens", usage->n_output, "output_tokens_details",
	                 "reasoning_tokens", 0, "total_tokens", usage->n_prompt + usage->n_output);
}

/* The response object; usage only once it is over. */
static json_t *response_json(const response *p, ruv_chat_run *run, const char *status, json_t *output, bool over)
{
	const ruv_chat_usage usage = ruv_chat_usage_now(run);
	json_t *json =
	    json_pack("{s:s, s:s, s:I, s:s, s:n, s:n, s:s, s:O, s:o, s:n}", "id", p->id, "object", "response", "created_at",
	              (json_int_t)p->created, "status", status, "error", "incomplete_details", "model", ruv_chat_model(run),
	              "output", output, "usage", over ? usage_json(&usage) : json_null(), "previous_response_id");

	json_object_update_missing(json, p->echo);
	if (!strcmp(status, "incomplete"))
		json_object_set_new(json, "incomplete_details", json_pack("{s:s}", "reason", "max_output_tokens"));
	return json;
}

/* Takes over `event`, whose type it names. */
static void send(response *p, ruv_chat_run *run, const char *type, json_t *event)
{
	json_object_set_new(event, "type", json_string(type));
	json_object_set_new(event, "sequence_number", json_integer(p->sequence++));
	ruv_exchange_event(ruv_chat_exchange(run), type, event);
}

static int item_index(const response *p)
{
	return (int)json_array_size(p->output);
}

static json_t *text_part(const char *type, const char *text, size_t n)
{
	json_t *part = json_pack("{s:s, s:o}", "type", type, "text", ruv_json_string(text, n));

	if (!strcmp(type, "output_text")) {
		json_object_set_new(part, "annotations", json_array());
		json_object_set_new(part, "logprobs", json_array());
	}
	return part;
}

/* The open item with what it has so far. */
static json_t *item_json(const response *p, const char *status, bool empty)
{
	const char *text = ruv_buf_cstr(&p->text);
	json_t *content =
	    empty || p->open == ITEM_CALL
		? json_array()
		: json_pack("[o]", text_part(p->open == ITEM_MESSAGE ? "output_text" : "reasoning_text", text, p->text.len));
	json_t *item = NULL;

	switch (p->open) {
	case ITEM_MESSAGE:
		item = json_pack("{s:s, s:s, s:s, s:s, s:O}", "id", p->item_id, "type", "message", "status", status, "role",
		                 "assistant", "content", content);
		break;
	case ITEM_REASONING:
		item = json_pack("{s:s, s:s, s:s, s:[], s:O}", "id", p->item_id, "type", "reasoning", "status", status, "summary",
		                 "content", content);
		break;
	case ITEM_CALL:
		item = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "id", p->item_id, "type", "function_call", "status", status,
		                 "call_id", p->call_id, "name", p->name, "arguments",
		                 empty ? json_string("") : ruv_json_string(text, p->text.len));
		break;
	case ITEM_NONE:
		break;
	}
	json_decref(content);
	return item;
}

static json_t *place(const response *p)
{
	return json_pack("{s:s, s:i}", "item_id", p->item_id, "output_index", item_index(p));
}

static json_t *place_in(const response *p)
{
	json_t *json = place(p);

	json_object_set_new(json, "content_index", json_integer(0));
	return json;
}

static void close_item(response *p, ruv_chat_run *run, const char *status)
{
	const char *text = ruv_buf_cstr(&p->text);
	json_t *event, *item;

	if (p->open == ITEM_NONE)
		return;
	item = item_json(p, status, false);
	if (p->stream && p->open == ITEM_CALL) {
		event = place(p);
		json_object_set_new(event, "name", json_string(p->name));
		json_object_set_new(event, "arguments", ruv_json_string(text, p->text.len));
		send(p, run, "response.function_call_arguments.done", event);
	} else if (p->stream) {
		const bool message = p->open == ITEM_MESSAGE;

		event = place_in(p);
		json_object_set_new(event, "text", ruv_json_string(text, p->text.len));
		if (message)
			json_object_set_new(event, "logprobs", json_array());
		send(p, run, message ? "response.output_text.done" : "response.reasoning_text.done", event);
		event = place_in(p);
		json_object_set_new(event, "part", text_part(message ? "output_text" : "reasoning_text", text, p->text.len));
		send(p, run, "response.content_part.done", event);
	}
	if (p->stream)
		send(p, run, "response.output_item.done", json_pack("{s:i, s:O}", "output_index", item_index(p), "item", item));
	json_array_append_new(p->output, item);
	ruv_buf_clear(&p->text);
	p->open = ITEM_NONE;
}

static void open_item(response *p, ruv_chat_run *run, item_kind kind)
{
	json_t *event;

	close_item(p, run, p->open == ITEM_CALL ? "incomplete" : "completed");
	p->open = kind;
	ruv_openai_make_id(p->item_id, kind == ITEM_MESSAGE ? "msg_" : kind == ITEM_CALL ? "fc_" : "rs_");
	if (!p->stream)
		return;
	send(p, run, "response.output_item.added",
	     json_pack("{s:i, s:o}", "output_index", item_index(p), "item", item_json(p, "in_progress", true)));
	if (kind == ITEM_CALL)
		return;
	event = place_in(p);
	json_object_set_new(event, "part", text_part(kind == ITEM_MESSAGE ? "output_text" : "reasoning_text", "", 0));
	send(p, run, "response.content_part.added", event);
}

static void add_text(response *p, ruv_chat_run *run, const char *type, const char *text, size_t n)
{
	json_t *event;

	ruv_buf_append(&p->text, text, n);
	if (!p->stream)
		return;
	event = p->open == ITEM_CALL ? place(p) : place_in(p);
	json_object_set_new(event, "delta", ruv_json_string(text, n));
	if (p->open == ITEM_MESSAGE)
		json_object_set_new(event, "logprobs", json_array());
	send(p, run, type, event);
}

static void on_begin(void *user, ruv_chat_run *run)
{
	response *p = user;

	if (!p->stream)
		return;
	ruv_exchange_begin(ruv_chat_exchange(run), "text/event-stream");
	send(p, run, "response.created", json_pack("{s:o}", "response", response_json(p, run, "in_progress", p->output, false)));
	send(p, run, "response.in_progress",
	     json_pack("{s:o}", "response", response_json(p, run, "in_progress", p->output, false)));
}

static void on_text(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs)
{
	response *p = user;

	(void)choice, (void)logprobs;
	/* the line ends between calls are the notation's, not the answer's */
	if (!n || (p->called && p->open != ITEM_MESSAGE && strspn(text, " \t\r\n") == n))
		return;
	if (p->open != ITEM_MESSAGE)
		open_item(p, run, ITEM_MESSAGE);
	add_text(p, run, "response.output_text.delta", text, n);
}

static void on_reasoning(void *user, ruv_chat_run *run, int choice, const char *text, size_t n)
{
	response *p = user;

	(void)choice;
	if (p->open != ITEM_REASONING)
		open_item(p, run, ITEM_REASONING);
	add_text(p, run, "response.reasoning_text.delta", text, n);
}

static void on_tool_begin(void *user, ruv_chat_run *run, int choice, int index, const char *id, const char *name)
{
	response *p = user;

	(void)choice, (void)index;
	close_item(p, run, p->open == ITEM_CALL ? "incomplete" : "completed");
	free(p->call_id);
	free(p->name);
	p->call_id = strdup(id);
	p->name = strdup(name);
	p->called = true;
	open_item(p, run, ITEM_CALL);
}

static void on_tool_arguments(void *user, ruv_chat_run *run, int choice, int index, const char *json, size_t n)
{
	response *p = user;

	(void)choice, (void)index;
	if (p->open == ITEM_CALL)
		add_text(p, run, "response.function_call_arguments.delta", json, n);
}

static void on_tool_end(void *user, ruv_chat_run *run, int choice, int index)
{
	(void)choice, (void)index;
	close_item(user, run, "completed");
}

static void on_end(void *user, ruv_chat_run *run)
{
	response *p = user;
	ruv_exchange *exchange = ruv_chat_exchange(run);
	const bool cut = ruv_chat_choice_at(run, 0).end == RUV_END_LENGTH;
	const char *status = cut ? "incomplete" : "completed";
	json_t *json;

	if (p->open == ITEM_NONE && !json_array_size(p->output)) /* an answer of nothing is a message of nothing */
		open_item(p, run, ITEM_MESSAGE);
	close_item(p, run, cut || p->open == ITEM_CALL ? "incomplete" : "completed");
	json = response_json(p, run, status, p->output, true);
	if (ruv_chat_memory(run))
		json_object_set_new(json, "ruvllm", json_pack("{s:O}", "memory", ruv_chat_memory(run)));
	if (p->stream) {
		send(p, run, cut ? "response.incomplete" : "response.completed", json_pack("{s:o}", "response", json));
		ruv_exchange_end(exchange);
	} else {
		ruv_exchange_reply_json(exchange, 200, json);
	}
	response_free(p);
}

static void on_fail(void *user, ruv_chat_run *run, const ruv_error *err)
{
	response *p = user;
	ruv_exchange *exchange = ruv_chat_exchange(run);

	if (ruv_exchange_has_begun(exchange)) {
		json_t *json = response_json(p, run, "failed", p->output, false);

		json_object_set_new(json, "error", json_pack("{s:s, s:s}", "code", "server_error", "message", err->message));
		send(p, run, "response.failed", json_pack("{s:o}", "response", json));
		ruv_exchange_end(exchange);
	} else {
		ruv_exchange_fail(exchange, err, err->code == RUV_ECONTEXT ? "input" : NULL);
	}
	response_free(p);
}

static const ruv_chat_events events = {.begin = on_begin,
                                       .text = on_text,
                                       .reasoning = on_reasoning,
                                       .tool_begin = on_tool_begin,
                                       .tool_arguments = on_tool_arguments,
                                       .tool_end = on_tool_end,
                                       .end = on_end,
                                       .fail = on_fail};

/* What a response repeats of its request. */
static json_t *echo_of(const json_t *body)
{
	static const struct {
		const char *name, *absent; /* JSON of the value when the request has none */
	} fields[] = {{"instructions", "null"},
	              {"max_output_tokens", "null"},
	              {"temperature", "null"},
	              {"top_p", "null"},
	              {"tools", "[]"},
	              {"tool_choice", "\"auto\""},
	              {"parallel_tool_calls", "true"},
	              {"metadata", "{}"},
	              {"text", "{\"format\":{\"type\":\"text\"}}"},
	              {"reasoning", "{\"effort\":null,\"summary\":null}"},
	              {"user", "null"}};
	json_t *echo = json_pack("{s:s, s:b}", "truncation", "disabled", "store", 0);

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		json_t *value = json_object_get(body, fields[i].name);

		if (value)
			json_object_set(echo, fields[i].name, value);
		else
			json_object_set_new(echo, fields[i].name, json_loads(fields[i].absent, JSON_DECODE_ANY, NULL));
	}
	return echo;
}

static void responses(ruv_exchange *exchange)
{
	request r = {0};
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	response *p = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_request(&r, body, &param, &err);
	if (!rc) {
		p = calloc(1, sizeof *p);
		if (!p)
			rc = ruv_fail_memory(&err, where, sizeof *p);
	}
	if (!rc) {
		ruv_openai_make_id(p->id, "resp_");
		p->created = ruv_clock_wall_ms() / 1000;
		p->stream = r.common.stream;
		p->echo = echo_of(body);
		p->output = json_array();
		ruv_buf_init(&p->text, MAX_TEXT);
		rc = ruv_chat_start(exchange, &r.common.request, &events, p, &param, &err);
		if (rc)
			response_free(p);
	}
	if (rc)
		ruv_exchange_fail(exchange, &err, param && !strcmp(param, "messages") ? "input" : param);
	request_release(&r);
	json_decref(body);
}

const ruv_route ruv_routes_responses[] = {
    {RUV_POST, "/v1/responses", responses, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {0},
};

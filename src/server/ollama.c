/* ollama.c - Ollama's API over our models: /api/chat, generate, embed, embeddings, tags, show, ps, version.
 *
 * Answers stream as lines of JSON unless "stream" is false. Times are in nanoseconds. A model's name may carry a tag (":latest"),
 * which is passed over. Options that we know are taken, unknown ones passed over, as Ollama does; but a prompt that does not fit is
 * refused with both numbers where Ollama would cut it: "num_ctx" and "truncate" change nothing here.
 *
 * Layer: server. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"
#include "ruvllm/tools.h"
#include "server/openai.h"

static const char where[] = "server";

/* ---- reading a request ------------------------------------------------------------------------------------------------- */

typedef struct request {
	ruv_chat_request chat;
	json_t *messages, *extra; /* of ours */
	char *schema, *model;
	const char *stops[RUV_OPENAI_MAX_STOPS];
	bool stream;
} request;

static void request_release(request *r)
{
	json_decref(r->messages);
	json_decref(r->extra);
	free(r->schema);
	free(r->model);
}

/* The name without its tag, for free(); NULL when there is none. */
static char *model_of(const json_t *body)
{
	const char *name = json_string_value(json_object_get(body, "model"));

	if (!name)
		name = json_string_value(json_object_get(body, "name"));
	return name ? strndup(name, strcspn(name, ":")) : NULL;
}

static int read_options(request *r, const json_t *body, const char **param, ruv_error *err)
{
	static const struct {
		const char *name;
		double low, high;
		unsigned bit;
	} reals[] = {{"temperature", 0, 100, RUV_SET_TEMPERATURE},
	             {"top_p", 0, 1, RUV_SET_TOP_P},
	             {"min_p", 0, 1, RUV_SET_MIN_P},
	             {"typical_p", 0, 1, RUV_SET_TYPICAL_P},
	             {"repeat_penalty", 0, 100, RUV_SET_REPETITION_PENALTY},
	             {"frequency_penalty", -100, 100, RUV_SET_FREQUENCY_PENALTY},
	             {"presence_penalty", -100, 100, RUV_SET_PRESENCE_PENALTY}};
	ruv_chat_request *c = &r->chat;
	double *const places[] = {&c->temperature,       &c->top_p,           &c->min_p, &c->typical_p, &c->repetition_penalty,
	                          &c->frequency_penalty, &c->presence_penalty};
	json_t *options = NULL;
	const json_t *stop, *item;
	int64_t n = 0;
	size_t i;
	int rc;

	*param = "options";
	rc = ruv_json_object(body, "options", &options, err);
	if (rc || !options)
		return rc;
	for (i = 0; i < sizeof reals / sizeof *reals && !rc; i++) {
		rc = ruv_json_real(options, reals[i].name, reals[i].low, reals[i].high, places[i], err);
		if (json_is_number(json_object_get(options, reals[i].name)))
			c->set |= reals[i].bit;
	}
	if (!rc)
		rc = ruv_json_int(options, "top_k", 0, INT32_MAX, &c->top_k, err);
	if (json_is_integer(json_object_get(options, "top_k")))
		c->set |= RUV_SET_TOP_K;
	if (!rc)
		rc = ruv_json_int(options, "seed", INT64_MIN, INT64_MAX, &c->seed, err);
	if (json_is_integer(json_object_get(options, "seed")) && c->seed > 0) /* 0 and below: a new one each time */
		c->set |= RUV_SET_SEED;
	if (!rc)
		rc = ruv_json_int(options, "num_predict", -2, INT32_MAX, &n, err);
	c->max_tokens = n > 0 ? (int)n : 0;
	if (!rc && json_number_value(json_object_get(options, "mirostat")) > 0)
		rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "'mirostat' is not supported by this server");
	stop = json_object_get(options, "stop");
	if (json_is_string(stop) && json_string_length(stop))
		r->stops[c->n_stops++] = json_string_value(stop);
	json_array_foreach(stop, i, item)
	{
		if (rc)
			break;
		if (!json_is_string(item) || !json_string_length(item) || c->n_stops == RUV_OPENAI_MAX_STOPS)
			rc = ruv_fail(err, RUV_EINVAL, where, "'stop' must be at most %d texts that are not empty",
			              (int)RUV_OPENAI_MAX_STOPS);
		else
			r->stops[c->n_stops++] = json_string_value(item);
	}
	c->stops = r->stops;
	return rc;
}

/* "json", or a schema. */
static int read_format(request *r, const json_t *body, ruv_error *err)
{
	const json_t *format = json_object_get(body, "format");

	if (!format || json_is_null(format) || (json_is_string(format) && !json_string_length(format)))
		return RUV_OK;
	if (json_is_string(format) && !strcmp(json_string_value(format), "json")) {
		r->chat.format = RUV_FORMAT_JSON;
		return RUV_OK;
	}
	if (!json_is_object(format))
		return ruv_fail(err, RUV_EINVAL, where, "'format' must be \"json\" or a JSON schema");
	r->schema = json_dumps(format, JSON_COMPACT);
	if (!r->schema)
		return ruv_fail_memory(err, where, 0);
	r->chat.format = RUV_FORMAT_JSON_SCHEMA;
	r->chat.format_text = r->schema;
	return RUV_OK;
}

/* What chat and generate have in common. */
static int read_common(request *r, const json_t *body, const char **param, ruv_error *err)
{
	const json_t *think = json_object_get(body, "think");
	int rc;

	ruv_chat_request_init(&r->chat);
	r->messages = json_array();
	r->stream = true;
	*param = "model";
	r->model = model_of(body);
	if (!r->model)
		return ruv_fail(err, RUV_EINVAL, where, "'model' is required");
	r->chat.model = r->model;
	*param = "stream";
	if ((rc = ruv_json_bool(body, "stream", &r->stream, err)))
		return rc;
	*param = "format";
	if ((rc = read_format(r, body, err)) || (rc = read_options(r, body, param, err)))
		return rc;
	if (think && !json_is_null(think)) {
		r->extra = json_pack("{s:b}", "enable_thinking", !json_is_false(think));
		r->chat.template_extra = r->extra;
	}
	*param = NULL;
	return RUV_OK;
}

/* Ollama's messages: arguments of calls are objects, and have no ids. */
static int read_messages(request *r, const json_t *body, ruv_error *err)
{
	json_t *list = NULL;
	const json_t *message, *call;
	size_t i, k;
	int rc = ruv_json_array(body, "messages", &list, err);

	json_array_foreach(list, i, message)
	{
		const json_t *calls = json_object_get(message, "tool_calls"), *name = json_object_get(message, "tool_name");
		const json_t *thinking = json_object_get(message, "thinking");
		json_t *copy;

		if (rc)
			return rc;
		if (!json_is_object(message))
			return ruv_fail(err, RUV_EINVAL, where, "message %zu is no object", i + 1);
		if (json_array_size(json_object_get(message, "images")))
			return ruv_fail(err, RUV_EUNSUPPORTED, where, "message %zu has images; these models read text only", i + 1);
		copy = json_copy((json_t *)message);
		json_object_del(copy, "tool_calls");
		if (json_array_size(calls)) {
			json_t *ours = json_array();

			json_array_foreach(calls, k, call)
			{
				const json_t *function = json_object_get(call, "function");
				const json_t *arguments = json_object_get(function, "arguments");
				char id[64], *text = json_is_object(arguments) ? json_dumps(arguments, 0) : NULL;

				snprintf(id, sizeof id, "call_%zu_%zu", i, k);
				if (json_is_string(json_object_get(function, "name")))
					json_array_append_new(ours,
					                      json_pack("{s:s, s:s, s:{s:O, s:s}}", "id", id, "type", "function",
					                                "function", "name", json_object_get(function, "name"),
					                                "arguments", text ? text : "{}"));
				free(text);
			}
			json_object_set_new(copy, "tool_calls", ours);
		}
		if (json_is_string(name))
			json_object_set(copy, "name", (json_t *)name);
		if (json_is_string(thinking))
			json_object_set(copy, "reasoning_content", (json_t *)thinking);
		json_array_append_new(r->messages, copy);
	}
	return rc;
}

/* ---- answering --------------------------------------------------------------------------------------------------------- */

typedef struct answer {
	bool stream, chat;
	int64_t started_ns;
	char model[128]; /* as the client named it */
	json_t *calls;   /* [{"function": {"name", "arguments"}}] of the whole answer */
	char *name;      /* of the open call */
} answer;

static json_t *now_text(void)
{
	const int64_t ms = ruv_clock_wall_ms();
	const time_t s = (time_t)(ms / 1000);
	struct tm tm;
	char text[64], all[80];

	gmtime_r(&s, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(all, sizeof all, "%s.%03dZ", text, (int)(ms % 1000));
	return json_string(all);
}

/* Takes over `message`: chat's message, or generate's text. */
static json_t *line_of(const answer *a, json_t *message, bool done)
{
	return json_pack("{s:s, s:o, s:o, s:b}", "model", a->model, "created_at", now_text(), a->chat ? "message" : "response",
	                 message, "done", done);
}

static void on_begin(void *user, ruv_chat_run *run)
{
	answer *a = user;

	if (a->stream)
		ruv_exchange_begin(ruv_chat_exchange(run), "application/x-ndjson");
}

static void on_text(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs)
{
	answer *a = user;

	(void)choice, (void)logprobs;
	if (!a->stream || !n)
		return;
	ruv_exchange_line(ruv_chat_exchange(run),
	                  line_of(a,
	                          a->chat ? json_pack("{s:s, s:o}", "role", "assistant", "content", ruv_json_string(text, n))
	                                  : ruv_json_string(text, n),
	                          false));
}

static void on_reasoning(void *user, ruv_chat_run *run, int choice, const char *text, size_t n)
{
	answer *a = user;
	json_t *line;

	(void)choice;
	if (!a->stream)
		return;
	line = line_of(a, a->chat ? json_pack("{s:s, s:s}", "role", "assistant", "content", "") : json_string(""), false);
	json_object_set_new(a->chat ? json_object_get(line, "message") : line, "thinking", ruv_json_string(text, n));
	ruv_exchange_line(ruv_chat_exchange(run), line);
}

static json_t *call_json(const json_t *call)
{
	const json_t *function = json_object_get(call, "function");
	json_t *arguments = json_loads(json_string_value(json_object_get(function, "arguments")), 0, NULL);

	return json_pack("{s:{s:O, s:o}}", "function", "name", json_object_get(function, "name"), "arguments",
	                 arguments ? arguments : json_object());
}

static void on_tool_end(void *user, ruv_chat_run *run, int choice, int index)
{
	answer *a = user;
	const ruv_chat_choice so_far = ruv_chat_choice_at(run, choice);

	if (a->stream && a->chat)
		ruv_exchange_line(ruv_chat_exchange(run),
		                  line_of(a,
		                          json_pack("{s:s, s:s, s:[o]}", "role", "assistant", "content", "", "tool_calls",
		                                    call_json(json_array_get(so_far.tool_calls, (size_t)index))),
		                          false));
}

static void add_counts(json_t *line, const answer *a, const ruv_chat_usage *usage, ruv_chat_end end)
{
	const double prompt_ms = usage->first_token_ms > usage->queue_ms ? usage->first_token_ms - usage->queue_ms : 0;
	const double eval_ms = usage->total_ms > usage->first_token_ms ? usage->total_ms - usage->first_token_ms : 0;

	json_object_set_new(line, "done_reason", json_string(end == RUV_END_LENGTH ? "length" : "stop"));
	json_object_set_new(line, "total_duration", json_integer(ruv_clock_now_ns() - a->started_ns));
	json_object_set_new(line, "load_duration", json_integer((json_int_t)(usage->queue_ms * 1e6)));
	json_object_set_new(line, "prompt_eval_count", json_integer(usage->n_prompt));
	json_object_set_new(line, "prompt_eval_duration", json_integer((json_int_t)(prompt_ms * 1e6)));
	json_object_set_new(line, "eval_count", json_integer(usage->n_output));
	json_object_set_new(line, "eval_duration", json_integer((json_int_t)(eval_ms * 1e6)));
}

static void on_end(void *user, ruv_chat_run *run)
{
	answer *a = user;
	ruv_exchange *exchange = ruv_chat_exchange(run);
	const ruv_chat_choice choice = ruv_chat_choice_at(run, 0);
	const ruv_chat_usage usage = ruv_chat_usage_now(run);
	json_t *line, *call, *said, *message;
	size_t i;

	said = a->stream ? json_string("") : ruv_json_string(choice.text, choice.n_text);
	message = a->chat ? json_pack("{s:s, s:o}", "role", "assistant", "content", said) : said;
	line = line_of(a, message, true);
	if (!a->stream) {
		if (choice.n_reasoning)
			json_object_set_new(a->chat ? message : line, "thinking",
			                    ruv_json_string(choice.reasoning, choice.n_reasoning));
		if (a->chat && json_array_size(choice.tool_calls)) {
			json_t *calls = json_array();

			json_array_foreach(choice.tool_calls, i, call) json_array_append_new(calls, call_json(call));
			json_object_set_new(message, "tool_calls", calls);
		}
	}
	add_counts(line, a, &usage, choice.end);
	if (a->stream) {
		ruv_exchange_line(exchange, line);
		ruv_exchange_end(exchange);
	} else {
		ruv_exchange_reply_json(exchange, 200, line);
	}
	free(a);
}

static void on_fail(void *user, ruv_chat_run *run, const ruv_error *err)
{
	ruv_exchange_fail(ruv_chat_exchange(run), err, NULL);
	free(user);
}

static const ruv_chat_events events = {
    .begin = on_begin, .text = on_text, .reasoning = on_reasoning, .tool_end = on_tool_end, .end = on_end, .fail = on_fail};

/* Nothing to say: clients ask so for the model to be loaded. */
static int load_only(ruv_exchange *exchange, const request *r, bool chat, ruv_error *err)
{
	const ruv_served_model *served = NULL;
	ruv_server *server = ruv_exchange_server(exchange);
	answer a = {.chat = chat};
	ruv_model *model = NULL;
	json_t *line;
	int rc = ruv_server_model_find(server, r->chat.model, &served, err);

	if (!rc)
		rc = ruv_server_model_acquire(server, served, &model, err);
	if (rc)
		return rc;
	ruv_model_free(model);
	snprintf(a.model, sizeof a.model, "%s", r->model);
	line = line_of(&a, chat ? json_pack("{s:s, s:s}", "role", "assistant", "content", "") : json_string(""), true);
	json_object_set_new(line, "done_reason", json_string("load"));
	ruv_exchange_reply_json(exchange, 200, line);
	return RUV_OK;
}

static void run(ruv_exchange *exchange, bool chat, int (*read)(request *, const json_t *, const char **, ruv_error *))
{
	request r = {0};
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	answer *a = NULL;
	bool nothing = false;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_common(&r, body, &param, &err);
	if (!rc)
		rc = read(&r, body, &param, &err);
	if (!rc && !json_array_size(r.messages) && !r.chat.prompt) {
		nothing = true;
		rc = load_only(exchange, &r, chat, &err);
	} else if (!rc) {
		a = calloc(1, sizeof *a);
		if (!a)
			rc = ruv_fail_memory(&err, where, sizeof *a);
	}
	if (!rc && !nothing) {
		a->stream = r.stream;
		a->chat = chat;
		a->started_ns = ruv_exchange_started_ns(exchange);
		snprintf(a->model, sizeof a->model, "%s", r.model);
		if (!r.chat.prompt)
			r.chat.messages = r.messages;
		rc = ruv_chat_start(exchange, &r.chat, &events, a, &param, &err);
		if (rc)
			free(a);
	}
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	request_release(&r);
	json_decref(body);
}

static int read_chat(request *r, const json_t *body, const char **param, ruv_error *err)
{
	json_t *tools = NULL;
	int rc;

	*param = "messages";
	if ((rc = read_messages(r, body, err)))
		return rc;
	*param = "tools";
	rc = ruv_json_array(body, "tools", &tools, err);
	r->chat.tools = json_array_size(tools) ? tools : NULL;
	*param = NULL;
	return rc;
}

static void chat(ruv_exchange *exchange)
{
	run(exchange, true, read_chat);
}

static int read_generate(request *r, const json_t *body, const char **param, ruv_error *err)
{
	static const char *const refused[] = {"images", "suffix", "template", "context", NULL};
	const char *prompt = NULL, *system = NULL;
	bool raw = false;
	int rc;

	if ((rc = ruv_openai_refuse(body, refused, param, err)))
		return rc;
	*param = "prompt";
	if ((rc = ruv_json_text(body, "prompt", &prompt, err)))
		return rc;
	*param = "system";
	if ((rc = ruv_json_text(body, "system", &system, err)))
		return rc;
	*param = "raw";
	if ((rc = ruv_json_bool(body, "raw", &raw, err)))
		return rc;
	*param = NULL;
	if (!prompt || !*prompt)
		return RUV_OK;
	if (raw) {
		r->chat.prompt = prompt;
		r->chat.prompt_bytes = strlen(prompt);
		return RUV_OK;
	}
	if (system && *system)
		json_array_append_new(r->messages, json_pack("{s:s, s:s}", "role", "system", "content", system));
	json_array_append_new(r->messages, json_pack("{s:s, s:s}", "role", "user", "content", prompt));
	return RUV_OK;
}

static void generate(ruv_exchange *exchange)
{
	run(exchange, false, read_generate);
}

/* ---- embeddings -------------------------------------------------------------------------------------------------------- */

static void embed_with(ruv_exchange *exchange, const char *input_key, bool old)
{
	const char *param = "input", *id = NULL;
	ruv_error err = {0};
	json_t *body = NULL, *vectors = NULL, *input;
	char *model = NULL;
	int64_t n_tokens = 0;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc) {
		model = model_of(body);
		input = json_object_get(body, input_key);
		if (!model) {
			param = "model";
			rc = ruv_fail(&err, RUV_EINVAL, where, "'model' is required");
		} else if (json_number_value(json_object_get(body, "dimensions")) > 0) {
			param = "dimensions";
			rc = ruv_fail(&err, RUV_EUNSUPPORTED, where, "'dimensions' is not supported: vectors cannot be shortened");
		} else if (old && !json_is_string(input)) {
			param = "prompt";
			rc = ruv_fail(&err, RUV_EINVAL, where, "'prompt' must be a text");
		} else if (json_is_array(input) && !json_array_size(input)) {
			vectors = json_array();
		} else {
			rc = ruv_openai_embed(exchange, model, input, &vectors, &id, &n_tokens, &err);
		}
	}
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	else if (old)
		ruv_exchange_reply_json(exchange, 200, json_pack("{s:O}", "embedding", json_array_get(vectors, 0)));
	else
		ruv_exchange_reply_json(exchange, 200,
		                        json_pack("{s:s, s:O, s:I, s:i, s:I}", "model", model, "embeddings", vectors,
		                                  "total_duration",
		                                  (json_int_t)(ruv_clock_now_ns() - ruv_exchange_started_ns(exchange)),
		                                  "load_duration", 0, "prompt_eval_count", (json_int_t)n_tokens));
	json_decref(vectors);
	free(model);
	json_decref(body);
}

static void embed(ruv_exchange *exchange)
{
	embed_with(exchange, "input", false);
}

static void embeddings(ruv_exchange *exchange)
{
	embed_with(exchange, "prompt", true);
}

/* ---- models ------------------------------------------------------------------------------------------------------------ */

static json_t *file_time(const ruv_served_model *served)
{
	const time_t s = (time_t)served->created_s;
	struct tm tm;
	char text[64];

	gmtime_r(&s, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static json_t *details_of(const ruv_model *model)
{
	char parameters[32] = "";
	ruv_model_info info;

	ruv_model_get_info(model, &info);
	if (info.n_params >= 1000000000)
		snprintf(parameters, sizeof parameters, "%.1fB", (double)info.n_params / 1e9);
	else
		snprintf(parameters, sizeof parameters, "%.1fM", (double)info.n_params / 1e6);
	return json_pack("{s:s, s:s, s:s, s:[s], s:s, s:s}", "parent_model", "", "format", "gguf", "family", info.architecture,
	                 "families", info.architecture, "parameter_size", parameters, "quantization_level", info.file_type);
}

/* To ask what it is: generators are the scheduler's, the encoder is the runtime's. */
static int open_model(ruv_server *server, const ruv_served_model *served, ruv_model **out, ruv_error *err)
{
	return served->is_encoder ? ruv_runtime_model(ruv_server_runtime(server), "encoder", out, err)
	                          : ruv_server_model_acquire(server, served, out, err);
}

static void close_model(const ruv_served_model *served, ruv_model *model)
{
	if (model && !served->is_encoder)
		ruv_model_free(model);
}

static json_t *entry_of(const ruv_served_model *served)
{
	struct stat st;
	json_int_t size = stat(served->path, &st) ? 0 : (json_int_t)st.st_size;

	return json_pack("{s:s, s:s, s:o, s:I}", "name", served->id, "model", served->id, "modified_at", file_time(served), "size",
	                 size);
}

static void tags(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served;
	json_t *list = json_array();

	for (int i = 0; (served = ruv_server_model_at(server, i)); i++) {
		json_t *entry = entry_of(served);
		ruv_model *model = NULL;

		/* a model that cannot be opened is listed all the same; using it will say why */
		if (!open_model(server, served, &model, NULL))
			json_object_set_new(entry, "details", details_of(model));
		close_model(served, model);
		json_array_append_new(list, entry);
	}
	ruv_exchange_reply_json(exchange, 200, json_pack("{s:o}", "models", list));
}

static json_t *model_info(const ruv_model *model)
{
	ruv_model_info info;
	char key[128];
	json_t *json;

	ruv_model_get_info(model, &info);
	json = json_pack("{s:s, s:s, s:I}", "general.architecture", info.architecture, "general.basename", info.name,
	                 "general.parameter_count", (json_int_t)info.n_params);
#define PUT(name, value)                                                                                                           \
	(snprintf(key, sizeof key, "%s." name, info.architecture), json_object_set_new(json, key, json_integer(value)))
	PUT("context_length", info.n_ctx_train);
	PUT("embedding_length", info.hidden_size);
	PUT("block_count", info.n_layers);
	PUT("attention.head_count", info.n_heads);
	PUT("attention.head_count_kv", info.n_kv_heads);
	PUT("vocab_size", info.n_vocab);
#undef PUT
	return json;
}

static void show(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served = NULL;
	ruv_error err = {0};
	json_t *body = NULL, *capabilities;
	ruv_model *model = NULL;
	ruv_sampling sampling;
	ruv_model_info info;
	char *name = NULL, *template = NULL, parameters[128];
	int n, rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc) {
		name = model_of(body);
		rc = name ? ruv_server_model_find(server, name, &served, &err)
		          : ruv_fail(&err, RUV_EINVAL, where, "'model' is required");
	}
	if (!rc)
		rc = open_model(server, served, &model, &err);
	if (rc) {
		ruv_exchange_fail(exchange, &err, "model");
		goto done;
	}
	ruv_model_get_info(model, &info);
	ruv_model_default_sampling(model, &sampling);
	n = ruv_model_get_meta(model, "tokenizer.chat_template", NULL, 0);
	template = n > 0 ? malloc((size_t)n + 1) : NULL;
	if (template)
		ruv_model_get_meta(model, "tokenizer.chat_template", template, (size_t)n + 1);
	snprintf(parameters, sizeof parameters, "temperature %g\ntop_p %g\nmin_p %g", (double)sampling.temperature,
	         (double)sampling.top_p, (double)sampling.min_p);
	capabilities = json_array();
	json_array_append_new(capabilities, json_string(served->is_encoder ? "embedding" : "completion"));
	if (!served->is_encoder && ruv_model_has_tools(model))
		json_array_append_new(capabilities, json_string("tools"));
	ruv_exchange_reply_json(exchange, 200,
	                        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "modelfile", "", "parameters",
	                                  served->is_encoder ? "" : parameters, "template", template ? template : "", "details",
	                                  details_of(model), "model_info", model_info(model), "capabilities", capabilities,
	                                  "modified_at", file_time(served)));
done:
	close_model(served, model);
	free(template);
	free(name);
	json_decref(body);
}

static void version(ruv_exchange *exchange)
{
	ruv_exchange_reply_json(exchange, 200, json_pack("{s:s}", "version", ruv_version()));
}

const ruv_route ruv_routes_ollama[] = {
    {RUV_POST, "/api/chat", chat, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_POST, "/api/generate", generate, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_POST, "/api/embed", embed, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_POST, "/api/embeddings", embeddings, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_GET, "/api/tags", tags, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_POST, "/api/show", show, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OLLAMA},
    {RUV_GET, "/api/version", version, RUV_SCOPE_NONE, RUV_ROUTE_INLINE | RUV_ROUTE_OPEN, RUV_ERRORS_OLLAMA},
    {0},
};

/* openai.c - /v1/chat/completions and /v1/completions: OpenAI's form of a chat run, whole or as server-sent events.
 *
 * A chat is one run. A completion may have several prompts, which are as many runs side by side; the last one to end answers.
 * Beyond OpenAI's fields: min_p, top_k, typical_p, repetition_penalty, grammar, ignore_eos, chat_template_kwargs, and "ruvllm" for
 * memory, whose finds come back in "ruvllm" of the answer. Layer: server. */
#include "server/openai.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

static const char where[] = "server";

/* ---- chat -------------------------------------------------------------------------------------------------------------- */

typedef struct chat {
	char id[64];
	int64_t created;
	bool stream, include_usage;
	int n_parts[RUV_MAX_CHOICES]; /* of each choice's answer that were sent */
} chat;

static json_t *chunk(const chat *c, ruv_chat_run *run, json_t *choices)
{
	json_t *event = json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", c->id, "object", "chat.completion.chunk", "created",
	                          (json_int_t)c->created, "model", ruv_chat_model(run), "choices", choices);

	if (c->include_usage)
		json_object_set_new(event, "usage", json_null());
	return event;
}

/* Takes over delta and logprobs. */
static void send_delta(chat *c, ruv_chat_run *run, int choice, json_t *delta, json_t *logprobs, const char *finish)
{
	if (!c->n_parts[choice]++)
		json_object_set_new(delta, "role", json_string("assistant"));
	ruv_exchange_event(ruv_chat_exchange(run), NULL,
	                   chunk(c, run,
	                         json_pack("[{s:i, s:o, s:o, s:o}]", "index", choice, "delta", delta, "logprobs",
	                                   logprobs ? json_pack("{s:o}", "content", logprobs) : json_null(), "finish_reason",
	                                   finish ? json_string(finish) : json_null())));
}

static void chat_begin(void *user, ruv_chat_run *run)
{
	chat *c = user;

	if (!c->stream)
		return;
	ruv_exchange_begin(ruv_chat_exchange(run), "text/event-stream");
	for (int i = 0; i < ruv_chat_n_choices(run); i++)
		send_delta(c, run, i, json_pack("{s:s}", "content", ""), NULL, NULL);
}

static void chat_text(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs)
{
	chat *c = user;

	if (c->stream)
		send_delta(c, run, choice, json_pack("{s:o}", "content", ruv_json_string(text, n)), json_incref(logprobs), NULL);
}

static void chat_reasoning(void *user, ruv_chat_run *run, int choice, const char *text, size_t n)
{
	chat *c = user;

	if (c->stream)
		send_delta(c, run, choice, json_pack("{s:o}", "reasoning_content", ruv_json_string(text, n)), NULL, NULL);
}

static void chat_tool_begin(void *user, ruv_chat_run *run, int choice, int index, const char *id, const char *name)
{
	chat *c = user;

	if (c->stream)
		send_delta(c, run, choice,
		           json_pack("{s:[{s:i, s:s, s:s, s:{s:s, s:s}}]}", "tool_calls", "index", index, "id", id, "type",
		                     "function", "function", "name", name, "arguments", ""),
		           NULL, NULL);
}

static void chat_tool_arguments(void *user, ruv_chat_run *run, int choice, int index, const char *json, size_t n)
{
	chat *c = user;

	if (c->stream)
		send_delta(c, run, choice,
		           json_pack("{s:[{s:i, s:{s:o}}]}", "tool_calls", "index", index, "function", "arguments",
		                     ruv_json_string(json, n)),
		           NULL, NULL);
}

static void chat_choice_end(void *user, ruv_chat_run *run, int choice, ruv_chat_end end, const char *stop)
{
	chat *c = user;

	(void)stop;
	if (c->stream)
		send_delta(c, run, choice, json_object(), NULL, ruv_openai_finish(end));
}

/* What we add: what memory found, and times. */
static json_t *own_part(ruv_chat_run *run)
{
	const ruv_chat_usage usage = ruv_chat_usage_now(run);
	json_t *memory = ruv_chat_memory(run);

	if (!memory)
		return NULL;
	return json_pack("{s:O, s:{s:f, s:f, s:f}}", "memory", memory, "timings_ms", "queue", usage.queue_ms, "first_token",
	                 usage.first_token_ms, "total", usage.total_ms);
}

static json_t *whole_choice(ruv_chat_run *run, int i)
{
	const ruv_chat_choice choice = ruv_chat_choice_at(run, i);
	const bool calls = json_array_size(choice.tool_calls) > 0;
	json_t *message =
	    json_pack("{s:s, s:o, s:o}", "role", "assistant", "content",
	              calls && !choice.n_text ? json_null() : ruv_json_string(choice.text, choice.n_text), "refusal", json_null());

	if (choice.n_reasoning)
		json_object_set_new(message, "reasoning_content", ruv_json_string(choice.reasoning, choice.n_reasoning));
	if (calls)
		json_object_set(message, "tool_calls", choice.tool_calls);
	return json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message", message, "logprobs",
	                 choice.logprobs ? json_pack("{s:O}", "content", choice.logprobs) : json_null(), "finish_reason",
	                 ruv_openai_finish(choice.end));
}

static void chat_end(void *user, ruv_chat_run *run)
{
	chat *c = user;
	ruv_exchange *exchange = ruv_chat_exchange(run);
	const ruv_chat_usage usage = ruv_chat_usage_now(run);
	json_t *own = own_part(run), *choices, *answer;

	if (c->stream) {
		if (own) {
			answer = chunk(c, run, json_array());
			json_object_set_new(answer, "ruvllm", own);
			ruv_exchange_event(exchange, NULL, answer);
		}
		if (c->include_usage) {
			answer = chunk(c, run, json_array());
			json_object_set_new(answer, "usage", ruv_openai_usage(&usage));
			ruv_exchange_event(exchange, NULL, answer);
		}
		ruv_exchange_write(exchange, "data: [DONE]\n\n", 14);
		ruv_exchange_end(exchange);
		free(c);
		return;
	}
	choices = json_array();
	for (int i = 0; i < ruv_chat_n_choices(run); i++)
		json_array_append_new(choices, whole_choice(run, i));
	answer =
	    json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", c->id, "object", "chat.completion", "created", (json_int_t)c->created,
	              "model", ruv_chat_model(run), "choices", choices, "usage", ruv_openai_usage(&usage));
	if (own)
		json_object_set_new(answer, "ruvllm", own);
	ruv_exchange_reply_json(exchange, 200, answer);
	free(c);
}

static void chat_fail(void *user, ruv_chat_run *run, const ruv_error *err)
{
	ruv_exchange_fail(ruv_chat_exchange(run), err, err->code == RUV_ECONTEXT ? "messages" : NULL);
	free(user);
}

static const ruv_chat_events chat_events = {.begin = chat_begin,
                                            .text = chat_text,
                                            .reasoning = chat_reasoning,
                                            .tool_begin = chat_tool_begin,
                                            .tool_arguments = chat_tool_arguments,
                                            .choice_end = chat_choice_end,
                                            .end = chat_end,
                                            .fail = chat_fail};

static int read_chat(ruv_openai_request *in, const json_t *body, const char **param, ruv_error *err)
{
	static const char *const refused[] = {"audio", "functions", "function_call", "prediction", "web_search_options", NULL};
	const json_t *modalities = json_object_get(body, "modalities");
	json_t *messages = NULL, *extra = NULL;
	bool logprobs = false;
	int64_t top = 0;
	int rc = ruv_openai_refuse(body, refused, param, err);

	if (!rc && json_array_size(modalities) &&
	    (json_array_size(modalities) != 1 || !json_is_string(json_array_get(modalities, 0)) ||
	     strcmp(json_string_value(json_array_get(modalities, 0)), "text"))) {
		*param = "modalities";
		rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "'modalities' other than [\"text\"] are not supported by this server");
	}
	if (!rc)
		rc = ruv_openai_read(in, body, param, err);
	if (!rc)
		rc = ruv_openai_read_tools(in, body, param, err);
	if (rc)
		return rc;
	*param = "messages";
	if ((rc = ruv_json_array(body, "messages", &messages, err)))
		return rc;
	in->request.messages = messages;
	*param = "chat_template_kwargs";
	if ((rc = ruv_json_object(body, "chat_template_kwargs", &extra, err)))
		return rc;
	in->request.template_extra = extra;
	*param = "logprobs";
	if ((rc = ruv_json_bool(body, "logprobs", &logprobs, err)))
		return rc;
	*param = "top_logprobs";
	if ((rc = ruv_json_int(body, "top_logprobs", 0, 20, &top, err)))
		return rc;
	if (top && !logprobs)
		return ruv_fail(err, RUV_EINVAL, where, "'top_logprobs' needs 'logprobs': true");
	in->request.n_logprobs = logprobs ? (int)top : -1;
	*param = "messages";
	if (!json_array_size(messages))
		return ruv_fail(err, RUV_EINVAL, where, "'messages' must be an array with at least one message");
	*param = NULL;
	return RUV_OK;
}

static void chat_completions(ruv_exchange *exchange)
{
	ruv_openai_request in = {0};
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	chat *c = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_chat(&in, body, &param, &err);
	if (!rc) {
		c = calloc(1, sizeof *c);
		if (!c)
			rc = ruv_fail_memory(&err, where, sizeof *c);
	}
	if (!rc) {
		ruv_openai_make_id(c->id, "chatcmpl-");
		c->created = ruv_clock_wall_ms() / 1000;
		c->stream = in.stream;
		c->include_usage = in.stream && in.include_usage;
		rc = ruv_chat_start(exchange, &in.request, &chat_events, c, &param, &err);
		if (rc)
			free(c);
	}
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	ruv_openai_release(&in);
	json_decref(body);
}

/* ---- completions ------------------------------------------------------------------------------------------------------- */

enum { MAX_PROMPTS = 64 };

typedef struct completion completion;

typedef struct part {
	completion *whole;
	int index;                       /* of the prompt */
	json_t *choices;                 /* when it has ended */
	size_t offsets[RUV_MAX_CHOICES]; /* bytes of text sent */
} part;

struct completion {
	ruv_exchange *exchange;
	char id[64], model[128];
	int64_t created;
	bool stream, include_usage, logprobs;
	int n_choices; /* of each prompt */
	pthread_mutex_t lock;
	int n_pending; /* lock: prompts that have not ended */
	ruv_error err; /* lock: the first failure */
	ruv_chat_usage usage;
	int n_parts;
	part parts[MAX_PROMPTS];
};

static void completion_free(completion *c)
{
	for (int i = 0; i < c->n_parts; i++)
		json_decref(c->parts[i].choices);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* OpenAI's older form of logprobs. */
static json_t *old_logprobs(const json_t *content, size_t offset)
{
	json_t *tokens = json_array(), *values = json_array(), *tops = json_array(), *offsets = json_array();
	const json_t *entry, *t;
	size_t i, k;

	json_array_foreach(content, i, entry)
	{
		json_t *token = json_object_get(entry, "token"), *top = json_object();

		json_array_append(tokens, token);
		json_array_append(values, json_object_get(entry, "logprob"));
		json_array_foreach(json_object_get(entry, "top_logprobs"), k, t)
		    json_object_set(top, json_string_value(json_object_get(t, "token")), json_object_get(t, "logprob"));
		json_array_append_new(tops, top);
		json_array_append_new(offsets, json_integer((json_int_t)offset));
		offset += json_array_size(json_object_get(entry, "bytes"));
	}
	return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops, "text_offset",
	                 offsets);
}

static json_t *completion_object(const completion *c, json_t *choices)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", c->id, "object", "text_completion", "created", (json_int_t)c->created,
	                 "model", c->model, "choices", choices);
}

static void completion_begin(void *user, ruv_chat_run *run)
{
	part *p = user;

	(void)run;
	if (p->whole->stream)
		ruv_exchange_begin(p->whole->exchange, "text/event-stream");
}

/* Takes over logprobs. */
static void send_completion(part *p, int choice, json_t *text, json_t *logprobs, const char *finish)
{
	completion *c = p->whole;
	json_t *event = completion_object(c, json_pack("[{s:i, s:o, s:o, s:o}]", "index", choice, "text", text, "logprobs",
	                                               logprobs ? logprobs : json_null(), "finish_reason",
	                                               finish ? json_string(finish) : json_null()));

	if (c->include_usage)
		json_object_set_new(event, "usage", json_null());
	ruv_exchange_event(c->exchange, NULL, event);
}

static void completion_text(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs)
{
	part *p = user;

	(void)run;
	if (p->whole->stream) {
		send_completion(p, choice, ruv_json_string(text, n), logprobs ? old_logprobs(logprobs, p->offsets[choice]) : NULL,
		                NULL);
		p->offsets[choice] += n;
	}
}

static void completion_choice_end(void *user, ruv_chat_run *run, int choice, ruv_chat_end end, const char *stop)
{
	part *p = user;

	(void)run, (void)stop;
	if (p->whole->stream)
		send_completion(p, choice, json_string(""), NULL, ruv_openai_finish(end));
}

/* One prompt has ended, or never began. The last one answers. */
static void part_over(completion *c, const ruv_error *err)
{
	json_t *choices, *answer;
	bool last;

	pthread_mutex_lock(&c->lock);
	if (err && !c->err.code)
		c->err = *err;
	last = --c->n_pending == 0;
	pthread_mutex_unlock(&c->lock);
	if (!last)
		return;
	if (c->err.code) {
		ruv_exchange_fail(c->exchange, &c->err, c->err.code == RUV_ECONTEXT ? "prompt" : NULL);
	} else if (c->stream) {
		if (c->include_usage) {
			answer = completion_object(c, json_array());
			json_object_set_new(answer, "usage", ruv_openai_usage(&c->usage));
			ruv_exchange_event(c->exchange, NULL, answer);
		}
		ruv_exchange_write(c->exchange, "data: [DONE]\n\n", 14);
		ruv_exchange_end(c->exchange);
	} else {
		choices = json_array();
		for (int i = 0; i < c->n_parts; i++)
			json_array_extend(choices, c->parts[i].choices);
		answer = completion_object(c, choices);
		json_object_set_new(answer, "usage", ruv_openai_usage(&c->usage));
		ruv_exchange_note(c->exchange, c->model, c->usage.n_prompt, c->usage.n_cached, c->usage.n_output);
		ruv_exchange_reply_json(c->exchange, 200, answer);
	}
	completion_free(c);
}

static void completion_end(void *user, ruv_chat_run *run)
{
	part *p = user;
	completion *c = p->whole;
	const ruv_chat_usage usage = ruv_chat_usage_now(run);

	p->choices = json_array();
	for (int i = 0; i < ruv_chat_n_choices(run); i++) {
		const ruv_chat_choice choice = ruv_chat_choice_at(run, i);

		json_array_append_new(p->choices, json_pack("{s:i, s:o, s:o, s:s}", "index", p->index * c->n_choices + i, "text",
		                                            ruv_json_string(choice.text, choice.n_text), "logprobs",
		                                            choice.logprobs ? old_logprobs(choice.logprobs, 0) : json_null(),
		                                            "finish_reason", ruv_openai_finish(choice.end)));
	}
	c->usage.n_prompt += usage.n_prompt;
	c->usage.n_cached += usage.n_cached;
	c->usage.n_output += usage.n_output;
	part_over(c, NULL);
}

static void completion_fail(void *user, ruv_chat_run *run, const ruv_error *err)
{
	part *p = user;

	(void)run;
	part_over(p->whole, err);
}

static const ruv_chat_events completion_events = {.begin = completion_begin,
                                                  .text = completion_text,
                                                  .choice_end = completion_choice_end,
                                                  .end = completion_end,
                                                  .fail = completion_fail};

/* A list of token ids as tokens; *out is the caller's. */
static int read_ids(ruv_token **out, const json_t *list, ruv_error *err)
{
	const json_t *item;
	size_t i;

	*out = malloc(sizeof(ruv_token) * (json_array_size(list) + 1));
	if (!*out)
		return ruv_fail_memory(err, where, 0);
	json_array_foreach(list, i, item)
	{
		if (!json_is_integer(item) || json_integer_value(item) < 0 || json_integer_value(item) > INT32_MAX)
			return ruv_fail(err, RUV_EINVAL, where, "item %zu of the prompt is no token id", i + 1);
		(*out)[i] = (ruv_token)json_integer_value(item);
	}
	return RUV_OK;
}

/* How many prompts there are: text, [texts], [ids], [[ids]]. */
static int count_prompts(const json_t *prompt, int *n, ruv_error *err)
{
	const json_t *first = json_array_get(prompt, 0);
	size_t size = json_is_string(prompt) || json_is_integer(first) ? 1 : json_array_size(prompt);

	if (!size)
		return ruv_fail(err, RUV_EINVAL, where, "'prompt' must be a text, token ids, or an array of either");
	if (size > MAX_PROMPTS)
		return ruv_fail(err, RUV_EINVAL, where, "there are %zu prompts; at most %d are taken", size, (int)MAX_PROMPTS);
	*n = (int)size;
	return RUV_OK;
}

static int start_part(completion *c, int i, const ruv_openai_request *in, const json_t *prompt, const char **param, ruv_error *err)
{
	ruv_chat_request request = in->request;
	ruv_token *ids = NULL;
	int rc = RUV_OK;

	if (json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0)))
		prompt = json_array_get(prompt, (size_t)i);
	*param = "prompt";
	if (json_is_string(prompt)) {
		request.prompt = json_string_value(prompt);
		request.prompt_bytes = json_string_length(prompt);
	} else if (json_is_array(prompt) && json_array_size(prompt)) {
		rc = read_ids(&ids, prompt, err);
		request.prompt_tokens = ids;
		request.n_prompt_tokens = (int)json_array_size(prompt);
	} else {
		rc = ruv_fail(err, RUV_EINVAL, where, "prompt %d is neither text nor token ids", i + 1);
	}
	if (!rc)
		rc = ruv_chat_start(c->exchange, &request, &completion_events, &c->parts[i], param, err);
	free(ids);
	return rc;
}

static void completions(ruv_exchange *exchange)
{
	static const char *const refused[] = {"suffix", "echo", NULL};
	ruv_openai_request in = {0};
	const ruv_served_model *served = NULL;
	const char *param = NULL;
	const json_t *prompt = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	completion *c = NULL;
	int64_t logprobs = -1, best_of = 1;
	int n = 0, rc = ruv_exchange_json(exchange, true, &body, &err);

	if (rc || (rc = ruv_openai_refuse(body, refused, &param, &err)) || (rc = ruv_openai_read(&in, body, &param, &err)))
		goto done;
	param = "logprobs";
	if ((rc = ruv_json_int(body, "logprobs", 0, 20, &logprobs, &err)))
		goto done;
	param = "best_of";
	if ((rc = ruv_json_int(body, "best_of", 1, 1, &best_of, &err)))
		goto done;
	param = "model";
	if ((rc = ruv_server_model_find(ruv_exchange_server(exchange), in.request.model, &served, &err)))
		goto done;
	param = "prompt";
	prompt = json_object_get(body, "prompt");
	if ((rc = count_prompts(prompt, &n, &err)))
		goto done;
	if (in.stream && n > 1) {
		rc = ruv_fail(&err, RUV_EUNSUPPORTED, where, "several prompts cannot be streamed; send them one by one");
		goto done;
	}
	in.request.n_logprobs = (int)logprobs;
	if (!in.request.max_tokens)
		in.request.max_tokens = 16; /* as OpenAI's: a completion has no end of its own */
	c = calloc(1, sizeof *c);
	if (!c) {
		rc = ruv_fail_memory(&err, where, sizeof *c);
		goto done;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->exchange = exchange;
	ruv_openai_make_id(c->id, "cmpl-");
	snprintf(c->model, sizeof c->model, "%s", served->id);
	c->created = ruv_clock_wall_ms() / 1000;
	c->stream = in.stream;
	c->include_usage = in.stream && in.include_usage;
	c->n_choices = in.request.n_choices;
	c->n_pending = c->n_parts = n;
	for (int i = 0; i < n; i++)
		c->parts[i] = (part){.whole = c, .index = i};
	for (int i = 0; i < n; i++) {
		ruv_error failure = {0};

		rc = start_part(c, i, &in, prompt, &param, &failure);
		if (rc && n == 1) { /* nobody else is at it: answer with the field at fault */
			ruv_exchange_fail(exchange, &failure, param);
			completion_free(c);
		} else if (rc) {
			part_over(c, &failure);
		}
	}
	rc = RUV_OK;
done:
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	ruv_openai_release(&in);
	json_decref(body);
}

const ruv_route ruv_routes_openai[] = {
    {RUV_POST, "/v1/chat/completions", chat_completions, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/completions", completions, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/embeddings", ruv_openai_embeddings, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/rerank", ruv_openai_rerank, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/rerank", ruv_openai_rerank, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/models", ruv_openai_models, RUV_SCOPE_CHAT, RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/models/{model}", ruv_openai_model, RUV_SCOPE_CHAT, RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {0},
};

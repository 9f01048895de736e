/* chat.c - the neutral generation of chat.h: from messages to a job of the scheduler, and from its pieces to events.
 *
 * Two threads meet in a run. The scheduler's only copies what comes into the run's list and posts the run; the event loop takes the
 * list, splits reasoning from text and tool calls from both, and calls the protocol. So the batch waits for nobody's JSON, and a
 * loop that is behind finds several pieces at once.
 *
 * A model that was trained on docs/prompt-format.md gets its memory in that form: its chats with memory go through ruv_ask on the
 * worker's thread. Other models get the sources as a system message.
 *
 * Ownership: a run has two holders, the worker in ruv_chat_start and the events; the last one frees it. Layer: server. */
#include "server/chat.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/uuid.h"
#include "ruvllm/tools.h"
#include "server/ask.h"
#include "server/server_impl.h"

static const char where[] = "server";
static const char think_open[] = "<think>", think_close[] = "</think>";

enum { MAX_TEXT = 64 << 20, MAX_MESSAGES = 4096 };

/* What the scheduler said, on its way to the loop. */
typedef struct piece {
	struct piece *next;
	int choice, n_new, n_top;
	size_t n_bytes;
	ruv_token *tokens;      /* [n_new] when logprobs are wanted */
	float *logprobs;        /* [n_new] */
	ruv_token_logprob *top; /* [n_new, n_top] */
	char text[];            /* [n_bytes] and a NUL */
} piece;

typedef enum think_state { THINK_MAYBE, THINK_IN, THINK_OUT } think_state;

typedef struct choice_state {
	ruv_chat_run *run;
	int index;
	think_state think;
	bool trim;    /* white space after the reasoning is left out */
	ruv_buf held; /* may be the beginning of a mark */
	ruv_buf text, reasoning;
	ruv_tool_stream *tools;
	int call_base;     /* calls before the stream's index 0 */
	ruv_buf arguments; /* of the open call */
	json_t *tool_calls, *logprobs, *new_logprobs;
	ruv_chat_end end;
	const char *stop;
} choice_state;

struct ruv_chat_run {
	int n_refs; /* atomic */
	ruv_exchange *exchange;
	ruv_chat_events events;
	void *user;
	ruv_model *model;
	ruv_scheduler *scheduler;
	char model_id[128];
	int n_choices, n_logprobs;
	bool use_tools;
	choice_state choices[RUV_MAX_CHOICES];
	char **stops; /* [n_stops] */
	int n_stops;
	json_t *memory;
	ruv_grammar *grammar;
	ruv_constraint constraint;
	bool constrained;

	pthread_mutex_t lock;
	piece *first, **last; /* lock */
	bool posted, done;    /* lock */
	ruv_job *job;         /* lock; set once, by whoever has it first */
	ruv_task task;
	bool begun; /* loop */

	/* How it ended; set before `done`. */
	int rc;
	ruv_error err;
	ruv_finish finish[RUV_MAX_CHOICES];
	int stop_index[RUV_MAX_CHOICES];
	ruv_chat_usage usage;
};

void ruv_chat_request_init(ruv_chat_request *request)
{
	*request = (ruv_chat_request){.n_logprobs = -1};
}

static void run_release(ruv_chat_run *run)
{
	if (__atomic_sub_fetch(&run->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (piece *p = run->first, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	for (int i = 0; i < run->n_choices; i++) {
		choice_state *c = &run->choices[i];

		ruv_tool_stream_free(c->tools);
		ruv_buf_release(&c->held);
		ruv_buf_release(&c->text);
		ruv_buf_release(&c->reasoning);
		ruv_buf_release(&c->arguments);
		json_decref(c->tool_calls);
		json_decref(c->logprobs);
		json_decref(c->new_logprobs);
	}
	for (int i = 0; i < run->n_stops; i++)
		free(run->stops[i]);
	free(run->stops);
	ruv_job_free(run->job);
	if (run->constrained && run->constraint.free)
		run->constraint.free(run->constraint.state);
	ruv_grammar_free(run->grammar);
	json_decref(run->memory);
	ruv_model_free(run->model);
	pthread_mutex_destroy(&run->lock);
	free(run);
}

/* ---- from pieces to events, on the loop -------------------------------------------------------------------------------- */

static void say_text(choice_state *c, const char *text, size_t n)
{
	ruv_chat_run *run = c->run;
	json_t *logprobs = c->new_logprobs;

	if (!n)
		return;
	ruv_buf_append(&c->text, text, n);
	c->new_logprobs = NULL;
	if (run->events.text)
		run->events.text(run->user, run, c->index, text, n, logprobs);
	json_decref(logprobs);
}

static void say_reasoning(choice_state *c, const char *text, size_t n)
{
	if (!n)
		return;
	ruv_buf_append(&c->reasoning, text, n);
	if (c->run->events.reasoning)
		c->run->events.reasoning(c->run->user, c->run, c->index, text, n);
}

static void make_call_id(char id[32])
{
	char text[37];

	ruv_uuid_format(ruv_uuid_make(), text);
	/* "call_" and the id's digits: random ones are at its end. */
	snprintf(id, 32, "call_%.4s%.12s", text + 19, text + 24);
}

static bool on_tool_event(void *user, const ruv_tool_event *event)
{
	choice_state *c = user;
	ruv_chat_run *run = c->run;
	const ruv_chat_events *e = &run->events;
	char id[32];

	switch (event->kind) {
	case RUV_TOOL_TEXT:
		say_text(c, event->text, event->n_bytes);
		break;
	case RUV_TOOL_BEGIN:
		make_call_id(id);
		json_array_append_new(c->tool_calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id, "type", "function", "function",
		                                               "name", event->name, "arguments", ""));
		if (e->tool_begin)
			e->tool_begin(run->user, run, c->index, event->index, id, event->name);
		break;
	case RUV_TOOL_ARGUMENTS:
		if (e->tool_arguments)
			e->tool_arguments(run->user, run, c->index, event->index, event->text, event->n_bytes);
		break;
	case RUV_TOOL_END:
		json_object_set_new(json_object_get(json_array_get(c->tool_calls, (size_t)event->index), "function"), "arguments",
		                    ruv_json_string(event->text, event->n_bytes));
		if (e->tool_end)
			e->tool_end(run->user, run, c->index, event->index);
		break;
	case RUV_TOOL_BROKEN:
		while (json_array_size(c->tool_calls) > (size_t)event->index)
			json_array_remove(c->tool_calls, json_array_size(c->tool_calls) - 1);
		break;
	}
	return true;
}

/* Text that is no reasoning. */
static void feed_text(choice_state *c, const char *text, size_t n)
{
	if (c->trim) {
		while (n && (*text == '\n' || *text == ' ')) {
			text++;
			n--;
		}
		c->trim = !n;
	}
	if (!n)
		return;
	if (c->tools)
		ruv_tool_stream_push(c->tools, text, n, NULL);
	else
		say_text(c, text, n);
}

/* How many bytes at the end of text[0..n) may be the beginning of `mark`. */
static size_t tail_of_mark(const char *text, size_t n, const char *mark)
{
	size_t most = strlen(mark) - 1;

	for (size_t k = n < most ? n : most; k; k--)
		if (!memcmp(text + n - k, mark, k))
			return k;
	return 0;
}

/* Splits "<think>...</think>" at the beginning of an answer from what follows. */
static void feed(choice_state *c, const char *text, size_t n, bool last)
{
	const char *p, *found;
	size_t keep;

	if (c->think == THINK_OUT) {
		feed_text(c, text, n);
		return;
	}
	ruv_buf_append(&c->held, text, n);
	p = ruv_buf_cstr(&c->held);
	if (c->think == THINK_MAYBE) {
		size_t space = strspn(p, " \n"), len = strlen(p + space);

		if (!last && len < sizeof think_open - 1 && !strncmp(p + space, think_open, len))
			return; /* may become the mark */
		if (strncmp(p + space, think_open, sizeof think_open - 1)) {
			c->think = THINK_OUT;
			feed_text(c, p, c->held.len);
			ruv_buf_clear(&c->held);
			return;
		}
		c->think = THINK_IN;
		p += space + sizeof think_open - 1;
		p += *p == '\n';
	}
	found = strstr(p, think_close);
	if (found) {
		say_reasoning(c, p, (size_t)(found - p));
		c->think = THINK_OUT;
		c->trim = true;
		p = found + sizeof think_close - 1;
		feed_text(c, p, strlen(p));
		ruv_buf_clear(&c->held);
		return;
	}
	keep = last ? 0 : tail_of_mark(p, strlen(p), think_close);
	say_reasoning(c, p, strlen(p) - keep);

	char rest[sizeof think_close];

	memcpy(rest, p + strlen(p) - keep, keep + 1);
	ruv_buf_clear(&c->held);
	ruv_buf_append(&c->held, rest, keep);
}

static json_t *bytes_of(const char *text, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer((unsigned char)text[i]));
	return list;
}

static json_t *logprob_entry(const ruv_model *model, ruv_token token, float logprob)
{
	size_t n = 0;
	const char *text = ruv_model_token_bytes(model, token, &n);

	return json_pack("{s:o, s:f, s:o}", "token", ruv_json_string(text ? text : "", n), "logprob",
	                 isfinite(logprob) ? (double)logprob : -9999.0, "bytes", bytes_of(text ? text : "", n));
}

static void take_logprobs(choice_state *c, const piece *p)
{
	ruv_chat_run *run = c->run;

	if (run->n_logprobs < 0 || !p->logprobs)
		return;
	if (!c->new_logprobs)
		c->new_logprobs = json_array();
	for (int i = 0; i < p->n_new; i++) {
		json_t *entry = logprob_entry(run->model, p->tokens[i], p->logprobs[i]), *top = json_array();

		for (int k = 0; k < p->n_top; k++) {
			const ruv_token_logprob *t = &p->top[i * p->n_top + k];

			json_array_append_new(top, logprob_entry(run->model, t->token, t->logprob));
		}
		json_object_set_new(entry, "top_logprobs", top);
		json_array_append(c->logprobs, entry);
		json_array_append_new(c->new_logprobs, entry);
	}
}

static void end_choice(choice_state *c)
{
	ruv_chat_run *run = c->run;

	feed(c, "", 0, true);
	if (c->tools)
		ruv_tool_stream_finish(c->tools, NULL);
	if (json_array_size(c->new_logprobs) && run->events.text) /* of tokens without text of their own */
		run->events.text(run->user, run, c->index, "", 0, c->new_logprobs);
	c->end = run->finish[c->index] == RUV_FINISH_LENGTH ? RUV_END_LENGTH
	         : json_array_size(c->tool_calls)           ? RUV_END_TOOL_CALLS
	         : run->stop_index[c->index] >= 0           ? RUV_END_STOP_STRING
	                                                    : RUV_END_STOP;
	if (run->stop_index[c->index] >= 0 && run->stop_index[c->index] < run->n_stops)
		c->stop = run->stops[run->stop_index[c->index]];
	if (run->events.choice_end)
		run->events.choice_end(run->user, run, c->index, c->end, c->stop);
}

/* Posted by the scheduler's thread: takes what has come. */
static void take(void *arg)
{
	ruv_chat_run *run = arg;
	piece *list;
	bool done;

	pthread_mutex_lock(&run->lock);
	list = run->first;
	run->first = NULL;
	run->last = &run->first;
	run->posted = false;
	done = run->done;
	pthread_mutex_unlock(&run->lock);
	if (!run->begun && (list || (done && !run->rc))) {
		run->begun = true;
		if (run->events.begin)
			run->events.begin(run->user, run);
	}
	while (list) {
		piece *next = list->next;
		choice_state *c = &run->choices[list->choice];

		take_logprobs(c, list);
		if (list->n_bytes)
			feed(c, list->text, list->n_bytes, false);
		free(list);
		list = next;
	}
	if (!done)
		return;
	if (!run->rc && ruv_cancel_is_set(ruv_exchange_cancel(run->exchange)))
		run->rc = ruv_fail(&run->err, RUV_ECANCELLED, where, "the client is gone");
	if (run->rc) {
		run->events.fail(run->user, run, &run->err);
	} else {
		for (int i = 0; i < run->n_choices; i++)
			end_choice(&run->choices[i]);
		ruv_exchange_note(run->exchange, run->model_id, run->usage.n_prompt, run->usage.n_cached, run->usage.n_output);
		run->events.end(run->user, run);
	}
	run_release(run);
}

/* ---- from the scheduler ------------------------------------------------------------------------------------------------ */

/* With the lock held. */
static void post(ruv_chat_run *run)
{
	if (!run->posted) {
		run->posted = true;
		ruv_server_post(ruv_exchange_server(run->exchange), &run->task);
	}
}

static bool add_piece(ruv_chat_run *run, int choice, const char *text, size_t n_bytes, const ruv_job_piece *tokens)
{
	size_t n_new = tokens && tokens->logprobs && run->n_logprobs >= 0 ? (size_t)tokens->n_new : 0;
	size_t n_top = n_new && tokens->top ? (size_t)tokens->n_top : 0;
	/* The arrays lie behind the text, at a place that suits them. */
	size_t text_room = (sizeof(piece) + n_bytes + 1 + 15) & ~(size_t)15;
	size_t room = text_room + n_new * (sizeof(ruv_token) + sizeof(float)) + n_new * n_top * sizeof(ruv_token_logprob);
	piece *p = malloc(room);

	if (!p)
		return false;
	*p = (piece){.choice = choice, .n_bytes = n_bytes, .n_new = (int)n_new, .n_top = (int)n_top};
	memcpy(p->text, text, n_bytes);
	p->text[n_bytes] = 0;
	if (n_new) {
		p->tokens = (ruv_token *)((char *)p + text_room);
		p->logprobs = (void *)(p->tokens + n_new);
		p->top = (ruv_token_logprob *)(p->logprobs + n_new);
		memcpy(p->tokens, tokens->tokens, n_new * sizeof *p->tokens);
		memcpy(p->logprobs, tokens->logprobs, n_new * sizeof *p->logprobs);
		if (n_top)
			memcpy(p->top, tokens->top, n_new * n_top * sizeof *p->top);
	}
	pthread_mutex_lock(&run->lock);
	*run->last = p;
	run->last = &p->next;
	post(run);
	pthread_mutex_unlock(&run->lock);
	return true;
}

static bool on_job_piece(void *user, const ruv_job_piece *job_piece)
{
	ruv_chat_run *run = user;

	if (ruv_cancel_is_set(ruv_exchange_cancel(run->exchange)))
		return false;
	if (!job_piece->n_bytes && run->n_logprobs < 0)
		return true;
	return add_piece(run, job_piece->choice, job_piece->text, job_piece->n_bytes, job_piece);
}

static void on_job_done(void *user, ruv_job *job)
{
	ruv_chat_run *run = user;
	ruv_job_times times;

	run->rc = ruv_job_status(job, &run->err);
	ruv_job_get_times(job, &times);
	run->usage.queue_ms = times.queue_ms;
	run->usage.first_token_ms = times.first_token_ms;
	run->usage.total_ms = times.total_ms;
	for (int i = 0; i < run->n_choices && !run->rc; i++) {
		const ruv_generation *g = ruv_job_result(job, i);

		if (!g)
			continue;
		run->finish[i] = g->finish;
		run->stop_index[i] = g->stop_index;
		run->usage.n_output += g->n_tokens;
		if (i == 0)
			run->usage.n_cached = g->n_kept;
		if (g->finish == RUV_FINISH_CANCELLED)
			run->rc = ruv_fail(&run->err, RUV_ECANCELLED, where, "the generation was cancelled");
	}
	pthread_mutex_lock(&run->lock);
	run->job = job;
	run->done = true;
	post(run);
	pthread_mutex_unlock(&run->lock);
}

/* ---- the prompt -------------------------------------------------------------------------------------------------------- */

/* The text of a message's content: of parts, their texts with newlines between. A part that is no text is refused. */
static int content_text(json_t **out, const json_t *content, size_t number, ruv_error *err)
{
	const json_t *part;
	ruv_buf text;
	size_t i;

	*out = NULL;
	if (!content || json_is_null(content)) {
		*out = json_null();
		return RUV_OK;
	}
	if (json_is_string(content)) {
		*out = json_incref((json_t *)content);
		return RUV_OK;
	}
	if (!json_is_array(content))
		return ruv_fail(err, RUV_EINVAL, where, "the content of message %zu must be a string or an array of parts", number);
	ruv_buf_init(&text, MAX_TEXT);
	json_array_foreach(content, i, part)
	{
		const char *type = json_string_value(json_object_get(part, "type"));
		const char *said = json_string_value(json_object_get(part, "text"));

		if (!said && type && !strcmp(type, "refusal"))
			said = json_string_value(json_object_get(part, "refusal"));
		if (!said) {
			ruv_buf_release(&text);
			return ruv_fail(err, RUV_EUNSUPPORTED, where,
			                "part %zu of message %zu is of type '%.40s'; these models read text only", i + 1, number,
			                type ? type : "?");
		}
		if (i)
			ruv_buf_putc(&text, '\n');
		ruv_buf_puts(&text, said);
	}
	*out = json_stringn(ruv_buf_cstr(&text), text.len);
	ruv_buf_release(&text);
	return *out ? RUV_OK : ruv_fail_memory(err, where, 0);
}

/* Messages with plain content and the roles that templates know. *out is a new reference. */
static int plain_messages(json_t **out, const json_t *messages, ruv_error *err)
{
	static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
	const json_t *message;
	json_t *list = json_array();
	size_t i;
	int rc = RUV_OK;

	if (json_array_size(messages) > MAX_MESSAGES)
		rc = ruv_fail(err, RUV_ELIMIT, where, "there are %zu messages; at most %d are taken", json_array_size(messages),
		              (int)MAX_MESSAGES);
	json_array_foreach(messages, i, message)
	{
		const char *role = json_string_value(json_object_get(message, "role"));
		json_t *copy, *content;
		bool known = false;

		if (rc)
			break;
		for (size_t r = 0; role && r < sizeof roles / sizeof *roles; r++)
			known = known || !strcmp(role, roles[r]);
		if (!known) {
			rc = ruv_fail(err, RUV_EINVAL, where,
			              "the role of message %zu is '%.40s'; it must be system, developer, user, assistant or tool",
			              i + 1, role ? role : "missing");
			break;
		}
		rc = content_text(&content, json_object_get(message, "content"), i + 1, err);
		if (rc)
			break;
		copy = json_copy((json_t *)message);
		json_object_set_new(copy, "content", content);
		if (!strcmp(role, "developer"))
			json_object_set_new(copy, "role", json_string("system"));
		if (json_is_null(content) && strcmp(role, "assistant"))
			json_object_set_new(copy, "content", json_string(""));
		if (json_array_append_new(list, copy))
			rc = ruv_fail_memory(err, where, 0);
	}
	if (rc) {
		json_decref(list);
		return rc;
	}
	*out = list;
	return RUV_OK;
}

/* What the last user message says, NULL without one. */
static const char *last_question(const json_t *messages, size_t *index)
{
	for (size_t i = json_array_size(messages); i-- > 0;) {
		const json_t *message = json_array_get(messages, i);

		if (!strcmp(json_string_value(json_object_get(message, "role")), "user")) {
			*index = i;
			return json_string_value(json_object_get(message, "content"));
		}
	}
	return NULL;
}

/* Looks for sources and puts them into a system message in front of the last question. */
static int add_sources(ruv_chat_run *run, const ruv_chat_request *request, const ruv_memory_scope *scope, json_t *messages,
                       ruv_error *err)
{
	ruv_runtime *runtime = ruv_server_runtime(ruv_exchange_server(run->exchange));
	ruv_ask_params params = {.scope = scope,
	                         .n_sources = request->n_sources,
	                         .chat = true,
	                         .cancel = ruv_exchange_cancel(run->exchange),
	                         .trace = ruv_exchange_trace(run->exchange)};
	ruv_answer found = {0};
	ruv_buf text;
	size_t at;
	int rc;

	params.question = last_question(messages, &at);
	if (!params.question || !*params.question)
		return RUV_OK;
	rc = ruv_retrieve(runtime, &params, &found, err);
	if (rc)
		return rc;
	run->memory = json_pack("{s:o}", "sources", ruv_sources_json(&found, true));
	if (found.n_sources) {
		ruv_buf_init(&text, MAX_TEXT);
		ruv_buf_puts(&text, "From memory, where it helps to answer:\n");
		for (int i = 0; i < found.n_sources; i++)
			ruv_buf_printf(&text, "[%d] %s%s%s\n", i + 1, found.sources[i].title, *found.sources[i].title ? ": " : "",
			               found.sources[i].text);
		json_array_insert_new(
		    messages, at,
		    json_pack("{s:s, s:o}", "role", "system", "content", ruv_json_string(ruv_buf_cstr(&text), text.len)));
		ruv_buf_release(&text);
	}
	ruv_answer_release(&found);
	return RUV_OK;
}

/* Several system messages are one, in front: most templates know only that. */
static int merge_system(json_t *messages, ruv_error *err)
{
	ruv_buf text;
	bool any = false;

	ruv_buf_init(&text, MAX_TEXT);
	for (size_t i = 0; i < json_array_size(messages);) {
		json_t *message = json_array_get(messages, i);

		if (strcmp(json_string_value(json_object_get(message, "role")), "system")) {
			i++;
			continue;
		}
		ruv_buf_printf(&text, "%s%s", any ? "\n\n" : "", json_string_value(json_object_get(message, "content")));
		any = true;
		json_array_remove(messages, i);
	}
	if (any && (text.failed || json_array_insert_new(messages, 0,
	                                                 json_pack("{s:s, s:o}", "role", "system", "content",
	                                                           ruv_json_string(ruv_buf_cstr(&text), text.len)))))
		return ruv_fail_memory(err, where, text.len);
	ruv_buf_release(&text);
	return RUV_OK;
}

static int chat_prompt(const ruv_model *model, const ruv_chat_request *request, json_t *messages, bool with_tools,
                       ruv_token_list *tokens, const char **param, ruv_error *err)
{
	ruv_conversation conversation = {.add_generation_prompt = true};
	char *text = json_dumps(messages, JSON_COMPACT), *tools = NULL, *variables = NULL;
	int rc;

	if (with_tools)
		tools = json_dumps(request->tools, JSON_COMPACT);
	if (request->template_extra)
		variables = json_dumps(request->template_extra, JSON_COMPACT);
	conversation.messages = text;
	conversation.tools = tools;
	conversation.variables = variables;
	*param = "messages";
	rc = text ? ruv_model_chat(model, &conversation, tokens, NULL, err) : ruv_fail_memory(err, where, 0);
	if (!rc)
		*param = NULL;
	free(text);
	free(tools);
	free(variables);
	return rc;
}

/* The prompt's tokens and, when the run has memory, what it found. */
static int make_prompt(ruv_chat_run *run, const ruv_model *model, const ruv_chat_request *request,
                       const ruv_memory_scope *memory_scope, json_t **messages, ruv_token_list *tokens, const char **param,
                       ruv_error *err)
{
	const bool with_tools = json_array_size(request->tools) && request->tool_choice != RUV_TOOLS_NONE;
	int rc;

	if (request->prompt_tokens) {
		*param = "prompt";
		tokens->ids = malloc(sizeof(ruv_token) * (size_t)(request->n_prompt_tokens + 1));
		if (!tokens->ids)
			return ruv_fail_memory(err, where, 0);
		memcpy(tokens->ids, request->prompt_tokens, sizeof(ruv_token) * (size_t)request->n_prompt_tokens);
		tokens->n = tokens->cap = request->n_prompt_tokens;
		return RUV_OK;
	}
	if (request->prompt) {
		*param = "prompt";
		return ruv_model_tokenize(model, request->prompt, request->prompt_bytes, RUV_TOKENIZE_BOS, tokens, err);
	}
	*param = "messages";
	if (!json_array_size(request->messages))
		return ruv_fail(err, RUV_EINVAL, where, "'messages' must be an array with at least one message");
	rc = plain_messages(messages, request->messages, err);
	if (!rc && with_tools && !ruv_model_has_tools(model)) {
		*param = "tools";
		rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "the chat template of this model knows no tools");
	}
	if (!rc && run && memory_scope)
		rc = add_sources(run, request, memory_scope, *messages, err);
	if (!rc)
		rc = merge_system(*messages, err);
	return rc ? rc : chat_prompt(model, request, *messages, with_tools, tokens, param, err);
}

/* ---- starting ---------------------------------------------------------------------------------------------------------- */

static int take_sampling(ruv_sampling *sampling, const ruv_chat_request *request, const ruv_model *model)
{
	const unsigned set = request->set;

	memset(sampling, 0, sizeof *sampling);
	/* Models that cite copy sentences: the likeliest token, unless the client wants otherwise. */
	if (!ruv_model_cites(model))
		ruv_model_default_sampling(model, sampling);
	if (set & RUV_SET_TEMPERATURE)
		sampling->temperature = (float)request->temperature;
	if (set & RUV_SET_TOP_P)
		sampling->top_p = (float)request->top_p;
	if (set & RUV_SET_MIN_P)
		sampling->min_p = (float)request->min_p;
	if (set & RUV_SET_TYPICAL_P)
		sampling->typical_p = (float)request->typical_p;
	if (set & RUV_SET_REPETITION_PENALTY)
		sampling->repetition_penalty = (float)request->repetition_penalty;
	if (set & RUV_SET_FREQUENCY_PENALTY)
		sampling->frequency_penalty = (float)request->frequency_penalty;
	if (set & RUV_SET_PRESENCE_PENALTY)
		sampling->presence_penalty = (float)request->presence_penalty;
	if (set & (RUV_SET_FREQUENCY_PENALTY | RUV_SET_PRESENCE_PENALTY))
		sampling->penalty_last_n = -1;
	if (set & RUV_SET_TOP_K)
		sampling->top_k = (int)request->top_k;
	if (set & RUV_SET_SEED)
		sampling->seed = (uint64_t)request->seed;
	sampling->bias = request->bias;
	sampling->n_bias = request->n_bias;
	return RUV_OK;
}

/* The grammar that the request asks for, if any. */
static int take_constraint(ruv_chat_run *run, const ruv_chat_request *request, const char **param, ruv_error *err)
{
	const char *text = request->format_text ? request->format_text : "";
	int rc = RUV_OK;

	if (request->format != RUV_FORMAT_TEXT) {
		*param = "response_format";
		rc = ruv_grammar_open(&run->grammar, run->model,
		                      request->format == RUV_FORMAT_GRAMMAR       ? RUV_GRAMMAR_GBNF
		                      : request->format == RUV_FORMAT_JSON_SCHEMA ? RUV_GRAMMAR_JSON_SCHEMA
		                                                                  : RUV_GRAMMAR_JSON_OBJECT,
		                      text, strlen(text), err);
	} else if (run->use_tools && (request->tool_choice == RUV_TOOLS_REQUIRED || request->tool_choice == RUV_TOOLS_NAMED)) {
		json_t *bare = json_array();
		const json_t *tool;
		char *tools;
		size_t i;

		*param = "tool_choice";
		json_array_foreach(request->tools, i, tool)
		{
			json_t *function = json_object_get(tool, "function");

			json_array_append(bare, function ? function : (json_t *)tool);
		}
		tools = json_dumps(bare, JSON_COMPACT);
		json_decref(bare);
		rc = tools ? ruv_tools_grammar(&run->grammar, run->model, tools,
		                               request->tool_choice == RUV_TOOLS_NAMED ? request->tool_name : NULL,
		                               !request->no_parallel_tools, err)
		           : ruv_fail_memory(err, where, 0);
		free(tools);
	}
	if (!rc && run->grammar) {
		rc = ruv_grammar_constrain(run->grammar, &run->constraint, err);
		run->constrained = !rc;
	}
	if (!rc)
		*param = NULL;
	return rc;
}

static int open_choices(ruv_chat_run *run, ruv_error *err)
{
	for (int i = 0; i < run->n_choices; i++) {
		choice_state *c = &run->choices[i];

		*c = (choice_state){
		    .run = run, .index = i, .think = THINK_MAYBE, .tool_calls = json_array(), .logprobs = json_array()};
		ruv_buf_init(&c->held, MAX_TEXT);
		ruv_buf_init(&c->text, MAX_TEXT);
		ruv_buf_init(&c->reasoning, MAX_TEXT);
		ruv_buf_init(&c->arguments, MAX_TEXT);
		run->stop_index[i] = -1;
	}
	for (int i = 0; i < run->n_choices && run->use_tools; i++) {
		int rc = ruv_tool_stream_open(&run->choices[i].tools, run->model, on_tool_event, &run->choices[i], err);

		if (rc)
			return rc;
	}
	return RUV_OK;
}

/* Does the prompt end within reasoning that the template began? */
static bool prompt_opens_thinking(const ruv_model *model, const ruv_token_list *tokens)
{
	int n = tokens->n < 4 ? tokens->n : 4;
	char *text;
	size_t len;
	bool opens = false;

	if (ruv_model_detokenize(model, tokens->ids + tokens->n - n, n, true, &text, NULL))
		return false;
	len = strlen(text);
	while (len && (text[len - 1] == '\n' || text[len - 1] == ' '))
		len--;
	opens = len >= sizeof think_open - 1 && !memcmp(text + len - (sizeof think_open - 1), think_open, sizeof think_open - 1);
	free(text);
	return opens;
}

static int copy_stops(ruv_chat_run *run, const ruv_chat_request *request, ruv_error *err)
{
	if (!request->n_stops)
		return RUV_OK;
	run->stops = calloc((size_t)request->n_stops, sizeof *run->stops);
	if (!run->stops)
		return ruv_fail_memory(err, where, 0);
	for (; run->n_stops < request->n_stops; run->n_stops++)
		if (!(run->stops[run->n_stops] = strdup(request->stops[run->n_stops])))
			return ruv_fail_memory(err, where, 0);
	return RUV_OK;
}

/* Requests share cached prompts only with those of the same key's user. */
static uint64_t salt_of(const ruv_identity *identity)
{
	const char *who = *identity->user ? identity->user : identity->key_name;

	return *who ? ruv_hash64(who, strlen(who), 0x73616c74) : 0;
}

static int submit(ruv_chat_run *run, const ruv_chat_request *request, const char *model_name, const ruv_token_list *tokens,
                  ruv_error *err)
{
	ruv_generate_params params = {.max_tokens = request->max_tokens,
	                              .stops = (const char *const *)run->stops,
	                              .n_stops = run->n_stops,
	                              .n_logprobs = request->n_logprobs,
	                              .special_text = run->use_tools,
	                              .ignore_end = request->ignore_end,
	                              .constraint = run->constrained ? &run->constraint : NULL,
	                              .cancel = ruv_exchange_cancel(run->exchange)};
	ruv_request job = {.model = model_name,
	                   .prompt = tokens->ids,
	                   .n_prompt = tokens->n,
	                   .params = &params,
	                   .n_choices = run->n_choices,
	                   .salt = salt_of(ruv_exchange_identity(run->exchange)),
	                   .on_piece = on_job_piece,
	                   .on_done = on_job_done,
	                   .user = run};
	ruv_job *made = NULL;

	take_sampling(&params.sampling, request, run->model);
	run->n_refs = 2; /* the events' and ours */
	int rc = ruv_scheduler_submit(run->scheduler, &job, &made, err);

	if (rc) {
		run->n_refs = 1;
		return rc;
	}
	pthread_mutex_lock(&run->lock);
	run->job = made;
	pthread_mutex_unlock(&run->lock);
	run_release(run);
	return RUV_OK;
}

/* ---- chats through the loop -------------------------------------------------------------------------------------------- */

static bool on_ask_piece(void *user, const ruv_piece *p)
{
	ruv_chat_run *run = user;

	return !ruv_cancel_is_set(ruv_exchange_cancel(run->exchange)) &&
	       (!p->n_bytes || add_piece(run, 0, p->text, p->n_bytes, NULL));
}

static void on_ask_sources(void *user, const ruv_answer *so_far)
{
	ruv_chat_run *run = user;

	if (!run->memory)
		run->memory = json_pack("{s:o}", "sources", ruv_sources_json(so_far, true));
}

/* Answers by ruv_ask, here and now. The run is the events' from the first piece on. */
static void ask(ruv_chat_run *run, const ruv_chat_request *request, const char *model_name, const ruv_memory_scope *scope,
                const json_t *messages)
{
	ruv_runtime *runtime = ruv_server_runtime(ruv_exchange_server(run->exchange));
	ruv_message *history = calloc(json_array_size(messages) + 1, sizeof *history);
	ruv_sampling sampling;
	ruv_ask_params params = {.history = history,
	                         .chat = true,
	                         .model = model_name,
	                         .scope = scope,
	                         .max_tokens = request->max_tokens,
	                         .n_sources = request->n_sources,
	                         .trace = ruv_exchange_trace(run->exchange),
	                         .cancel = ruv_exchange_cancel(run->exchange),
	                         .on_sources = on_ask_sources,
	                         .on_piece = on_ask_piece,
	                         .user = run};
	ruv_answer answer = {0};
	size_t at = 0;

	params.question = last_question(messages, &at);
	for (size_t i = 0; history && i < at; i++) {
		const json_t *message = json_array_get(messages, i);
		const char *role = json_string_value(json_object_get(message, "role"));

		if (!strcmp(role, "user") || !strcmp(role, "assistant"))
			history[params.n_history++] =
			    (ruv_message){.role = role, .content = json_string_value(json_object_get(message, "content"))};
	}
	if (request->set) {
		take_sampling(&sampling, request, run->model);
		params.sampling = &sampling;
	}
	run->rc = ruv_ask(runtime, &params, &answer, &run->err);
	if (!run->rc) {
		run->finish[0] = answer.finish;
		run->usage = (ruv_chat_usage){.n_prompt = answer.n_prompt,
		                              .n_cached = answer.n_kept,
		                              .n_output = answer.n_tokens,
		                              .first_token_ms = answer.total_ms - answer.decode_ms,
		                              .total_ms = answer.total_ms};
		ruv_ask_count(run->exchange, params.question, &answer);
		json_decref(run->memory);
		run->memory = json_pack("{s:s, s:o}", "answer_id", answer.id, "sources", ruv_sources_json(&answer, true));
		if (answer.finish == RUV_FINISH_CANCELLED)
			run->rc = ruv_fail(&run->err, RUV_ECANCELLED, where, "the generation was cancelled");
	}
	ruv_answer_release(&answer);
	free(history);
	pthread_mutex_lock(&run->lock);
	run->done = true;
	post(run);
	pthread_mutex_unlock(&run->lock);
}

/* ---- the doors --------------------------------------------------------------------------------------------------------- */

/* Whose memory this request may see: a key that speaks for somebody confines it. */
static int choose_scope(const ruv_exchange *exchange, const ruv_chat_request *request, ruv_memory_scope *scope, ruv_error *err)
{
	const ruv_memory_scope configured = ruv_runtime_scope(ruv_server_runtime(ruv_exchange_server(exchange)));

	return ruv_scope_for(exchange, &request->scope, &configured, scope, err);
}

int ruv_chat_start(ruv_exchange *exchange, const ruv_chat_request *request, const ruv_chat_events *events, void *user,
                   const char **param, ruv_error *err)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_identity *identity = ruv_exchange_identity(exchange);
	const bool with_memory = !request->no_memory && request->messages &&
	                         (request->memory || identity->memory || (request->model && !strcmp(request->model, "auto")));
	const ruv_served_model *served;
	ruv_token_list tokens = {0};
	ruv_memory_scope scope = {0};
	json_t *messages = NULL;
	const char *ignored = NULL;
	bool own_form;
	ruv_chat_run *run = NULL;
	size_t at;
	int rc;

	param = param ? param : &ignored;
	*param = "model";
	rc = ruv_server_model_find(server, request->model, &served, err);
	if (rc)
		return rc;
	if (with_memory && !(identity->scopes & RUV_SCOPE_READ))
		return ruv_fail(err, RUV_EINVAL, where, "the key '%s' lacks the scope 'read', which memory in a chat needs",
		                identity->key_name);
	if (request->n_choices < 0 || request->n_choices > RUV_MAX_CHOICES) {
		*param = "n";
		return ruv_fail(err, RUV_EINVAL, where, "%d answers are wanted; at most %d can be had", request->n_choices,
		                (int)RUV_MAX_CHOICES);
	}
	run = calloc(1, sizeof *run);
	if (!run)
		return ruv_fail_memory(err, where, sizeof *run);
	run->n_refs = 1;
	run->exchange = exchange;
	run->events = *events;
	run->user = user;
	run->scheduler = ruv_server_scheduler(server);
	run->n_logprobs = request->n_logprobs;
	run->last = &run->first;
	run->task = (ruv_task){.fn = take, .arg = run};
	pthread_mutex_init(&run->lock, NULL);
	snprintf(run->model_id, sizeof run->model_id, "%s", served->id);
	rc = ruv_server_model_acquire(server, served, &run->model, err);
	if (rc)
		goto done;
	run->use_tools = json_array_size(request->tools) && request->tool_choice != RUV_TOOLS_NONE;
	if (with_memory) {
		*param = "ruvllm.scope";
		rc = choose_scope(exchange, request, &scope, err);
		if (rc)
			goto done;
	}
	run->n_choices = request->n_choices ? request->n_choices : 1;
	*param = NULL;
	rc = open_choices(run, err);
	if (!rc)
		rc = copy_stops(run, request, err);
	if (!rc)
		rc = take_constraint(run, request, param, err);
	if (rc)
		goto done;
	own_form = with_memory && ruv_model_cites(run->model) && !run->use_tools && !run->grammar && run->n_choices == 1 &&
	           request->n_logprobs < 0 && !request->n_stops;
	if (own_form) {
		*param = "messages";
		rc = json_array_size(request->messages)
		         ? plain_messages(&messages, request->messages, err)
		         : ruv_fail(err, RUV_EINVAL, where, "'messages' must be an array with at least one message");
		if (!rc && !last_question(messages, &at))
			rc = ruv_fail(err, RUV_EINVAL, where, "there is no message of a user to answer");
		if (rc)
			goto done;
		ask(run, request, ruv_server_ask_model(server, request->model, served), &scope, messages);
		run = NULL; /* the events have it */
		goto done;
	}
	rc = make_prompt(run, run->model, request, with_memory ? &scope : NULL, &messages, &tokens, param, err);
	if (rc)
		goto done;
	run->usage.n_prompt = tokens.n;
	for (int i = 0; i < run->n_choices; i++)
		if (request->messages && prompt_opens_thinking(run->model, &tokens))
			run->choices[i].think = THINK_IN;
		else if (!request->messages)
			run->choices[i].think = THINK_OUT;
	rc = submit(run, request, served->name, &tokens, err);
	if (!rc)
		run = NULL;
	else
		*param = rc == RUV_ECONTEXT ? request->messages ? "messages" : "prompt" : NULL;
done:
	if (run)
		run_release(run);
	json_decref(messages);
	ruv_token_list_release(&tokens);
	return rc;
}

int ruv_chat_count(ruv_exchange *exchange, const ruv_chat_request *request, int *n_tokens, const char **param, ruv_error *err)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served;
	ruv_token_list tokens = {0};
	ruv_model *model = NULL;
	json_t *messages = NULL;
	const char *ignored = NULL;
	int rc;

	param = param ? param : &ignored;
	*param = "model";
	rc = ruv_server_model_find(server, request->model, &served, err);
	if (!rc)
		rc = ruv_server_model_acquire(server, served, &model, err);
	if (!rc)
		rc = make_prompt(NULL, model, request, NULL, &messages, &tokens, param, err);
	if (!rc)
		*n_tokens = tokens.n;
	json_decref(messages);
	ruv_model_free(model);
	ruv_token_list_release(&tokens);
	return rc;
}

/* ---- asking a run ------------------------------------------------------------------------------------------------------ */

ruv_exchange *ruv_chat_exchange(const ruv_chat_run *run)
{
	return run->exchange;
}

const char *ruv_chat_model(const ruv_chat_run *run)
{
	return run->model_id;
}

int ruv_chat_n_choices(const ruv_chat_run *run)
{
	return run->n_choices;
}

ruv_chat_usage ruv_chat_usage_now(const ruv_chat_run *run)
{
	return run->usage;
}

json_t *ruv_chat_memory(const ruv_chat_run *run)
{
	return run->memory;
}

ruv_chat_choice ruv_chat_choice_at(const ruv_chat_run *run, int i)
{
	const choice_state *c = &run->choices[i];

	return (ruv_chat_choice){.text = ruv_buf_cstr(&c->text),
	                         .reasoning = ruv_buf_cstr(&c->reasoning),
	                         .n_text = c->text.len,
	                         .n_reasoning = c->reasoning.len,
	                         .tool_calls = c->tool_calls,
	                         .logprobs = run->n_logprobs >= 0 ? c->logprobs : NULL,
	                         .end = c->end,
	                         .stop = c->stop};
}

/* chat.h - one generation for a client, whatever protocol asked for it: messages and parameters in; text, reasoning, tool calls,
 * usage and the reason of the end out.
 *
 * A protocol turns its request into a ruv_chat_request (messages and tools in OpenAI's JSON form), calls ruv_chat_start from its
 * endpoint's function (a worker thread), and returns. What comes is handed to its ruv_chat_events, all of them on the event-loop
 * thread, one at a time, so that they need no lock; the last one, `end` or `fail`, answers the exchange. A protocol that does not
 * stream sets only these two and takes the whole from ruv_chat_choice.
 *
 * The run belongs to the exchange: a client that goes away ends it (`fail` with RUV_ECANCELLED comes all the same, so that the
 * exchange can be finished and `user` freed).
 *
 * Threads: as said. Layer: server. */
#ifndef RUV_SERVER_CHAT_H
#define RUV_SERVER_CHAT_H

#include "server/server.h"

typedef struct ruv_chat_run ruv_chat_run;

typedef enum ruv_tool_choice { RUV_TOOLS_AUTO, RUV_TOOLS_NONE, RUV_TOOLS_REQUIRED, RUV_TOOLS_NAMED } ruv_tool_choice;

typedef enum ruv_chat_format {
	RUV_FORMAT_TEXT,
	RUV_FORMAT_JSON,        /* any JSON object */
	RUV_FORMAT_JSON_SCHEMA, /* of format_text: a JSON schema */
	RUV_FORMAT_GRAMMAR      /* format_text: GBNF */
} ruv_chat_format;

/* Start from ruv_chat_request_init: zeroed but for the sampling, which is the configured one for the model, and n_logprobs.
 * Everything pointed at is needed during ruv_chat_start only. */
typedef struct ruv_chat_request {
	const char *model; /* as the client names it; NULL: the configured one */

	/* One of these. */
	const json_t *messages;         /* [{role, content, tool_calls, tool_call_id, name, reasoning_content}]; content is text or
	                                   [{"type": "text", "text"}]; roles system, developer, user, assistant, tool */
	const char *prompt;             /* text to go on with, no template; special tokens only from the model's start token */
	const ruv_token *prompt_tokens; /* [n_prompt_tokens] likewise */
	size_t prompt_bytes;
	int n_prompt_tokens;

	const json_t *tools; /* [{"type": "function", "function": {name, description, parameters}}] or NULL */
	ruv_tool_choice tool_choice;
	const char *tool_name;        /* of RUV_TOOLS_NAMED */
	bool no_parallel_tools;       /* at most one call */
	const json_t *template_extra; /* an object of further template variables (enable_thinking, ...), or NULL */

	ruv_chat_format format;
	const char *format_text;

	/* Sampling over the configured one: a field counts when its bit is in `set`. */
	unsigned set; /* RUV_SET_... */
	double temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
	int64_t top_k, seed;
	const ruv_logit_bias *bias; /* [n_bias] */
	int n_bias;

	int max_tokens;           /* 0: as many as the context holds */
	const char *const *stops; /* [n_stops] */
	int n_stops;
	int n_choices;  /* 0: 1; at most RUV_MAX_CHOICES */
	int n_logprobs; /* -1: none (the initial value); 0..20 alternatives beside the token's own */
	bool ignore_end;

	bool memory;            /* look for sources and give them to the model; the server's and the key's defaults apply too */
	bool no_memory;         /* not even by default */
	ruv_memory_scope scope; /* whose memory; a key may confine it. NULL fields: as configured */
	int n_sources;          /* 0: as configured */
} ruv_chat_request;

enum {
	RUV_SET_TEMPERATURE = 1,
	RUV_SET_TOP_P = 2,
	RUV_SET_MIN_P = 4,
	RUV_SET_TYPICAL_P = 8,
	RUV_SET_REPETITION_PENALTY = 16,
	RUV_SET_FREQUENCY_PENALTY = 32,
	RUV_SET_PRESENCE_PENALTY = 64,
	RUV_SET_TOP_K = 128,
	RUV_SET_SEED = 256
};

void ruv_chat_request_init(ruv_chat_request *request);

typedef enum ruv_chat_end {
	RUV_END_STOP,        /* an end token */
	RUV_END_STOP_STRING, /* one of `stops` */
	RUV_END_LENGTH,
	RUV_END_TOOL_CALLS
} ruv_chat_end;

typedef struct ruv_chat_usage {
	int n_prompt, n_cached; /* tokens of the prompt, and of them from the prefix cache */
	int n_output;           /* of all choices, end tokens not counted */
	double queue_ms, first_token_ms, total_ms;
} ruv_chat_usage;

/* What happens, in order. All on the event-loop thread. NULL is fine but for end and fail. */
typedef struct ruv_chat_events {
	/* Once, before everything else; the prompt is made (ruv_chat_usage_now has n_prompt). */
	void (*begin)(void *user, ruv_chat_run *run);
	/* Text [n] and a NUL. logprobs: an array as OpenAI's logprobs.content for the tokens that came with it, or NULL; borrowed.
	 */
	void (*text)(void *user, ruv_chat_run *run, int choice, const char *text, size_t n, json_t *logprobs);
	void (*reasoning)(void *user, ruv_chat_run *run, int choice, const char *text, size_t n);
	/* A call begins: index counts the calls of this choice from 0. Then its arguments, a JSON text in one or more parts. */
	void (*tool_begin)(void *user, ruv_chat_run *run, int choice, int index, const char *id, const char *name);
	void (*tool_arguments)(void *user, ruv_chat_run *run, int choice, int index, const char *json, size_t n);
	void (*tool_end)(void *user, ruv_chat_run *run, int choice, int index);
	void (*choice_end)(void *user, ruv_chat_run *run, int choice, ruv_chat_end end, const char *stop);
	/* The last call is one of these; afterwards the run is gone. */
	void (*end)(void *user, ruv_chat_run *run);
	void (*fail)(void *user, ruv_chat_run *run, const ruv_error *err);
} ruv_chat_events;

/* Makes the prompt and queues the generation. Events may come before it returns. On failure none comes; *param (NULL is fine) names
 * the field at fault or is NULL. RUV_EBUSY: full (ruv_exchange_fail makes a 429 with Retry-After of it); RUV_ECONTEXT: the prompt
 * does not fit, with both numbers; RUV_EUNSUPPORTED: tools or a format that this model cannot do; RUV_ENOTFOUND: the model. */
int ruv_chat_start(ruv_exchange *exchange, const ruv_chat_request *request, const ruv_chat_events *events, void *user,
                   const char **param, ruv_error *err);

/* ---- asking a run, in its events ---- */

ruv_exchange *ruv_chat_exchange(const ruv_chat_run *run);
/* The served model's id. */
const char *ruv_chat_model(const ruv_chat_run *run);
int ruv_chat_n_choices(const ruv_chat_run *run);
/* Complete at `end`; before, what is known so far. */
ruv_chat_usage ruv_chat_usage_now(const ruv_chat_run *run);
/* What memory added: {"sources": [...]} as /v1/ask shows them, or NULL. Borrowed. */
json_t *ruv_chat_memory(const ruv_chat_run *run);

/* All of a choice so far. Strings and references are the run's. */
typedef struct ruv_chat_choice {
	const char *text, *reasoning; /* "" when there is none */
	size_t n_text, n_reasoning;
	json_t *tool_calls; /* [{"id", "type": "function", "function": {"name", "arguments": "JSON text"}}], empty: none */
	json_t *logprobs;   /* all, or NULL */
	ruv_chat_end end;
	const char *stop; /* the stop string that ended it, or NULL */
} ruv_chat_choice;
ruv_chat_choice ruv_chat_choice_at(const ruv_chat_run *run, int i);

/* Counts the prompt's tokens without generating (count_tokens). Workers only. */
int ruv_chat_count(ruv_exchange *exchange, const ruv_chat_request *request, int *n_tokens, const char **param, ruv_error *err);

#endif

/* http.h - the transport under every endpoint: routes, one exchange per request, JSON, server-sent events, limits.
 *
 * An endpoint is one function and one row of a route table. The event-loop thread owns sockets (libevent's evhttp); it
 * authenticates, finds the route and hands the exchange to a worker thread, which calls the endpoint's function. That function
 * reads the request and either answers at once or keeps the exchange and answers later, from any thread. Every exchange is finished
 * exactly once, by ruv_exchange_reply*, ruv_exchange_fail* or ruv_exchange_end; after that call the pointer must not be used.
 * Finishing is right also when the client is gone (nothing is sent then), and it is required then as well.
 *
 * Back-pressure: what is written goes to the client as fast as it reads. A worker's ruv_exchange_write waits while much is unsent;
 * other threads (the event loop, the scheduler) never wait: a client that leaves more than RUV_EXCHANGE_MAX_UNSENT bytes unread is
 * cut off and its request cancelled. A client that closes sets ruv_exchange_cancel() at once.
 *
 * Errors have the shape that the route's clients expect (ruv_error_style). Messages are ruv_error's: they name the value.
 *
 * Threads: functions on one exchange may be called from any thread, by one at a time. Layer: server. */
#ifndef RUV_SERVER_HTTP_H
#define RUV_SERVER_HTTP_H

#include <jansson.h>

#include "ruvllm/session.h"
#include "ruvllm/trace.h"
#include "ruvllm/types.h"

enum {
	RUV_EXCHANGE_MAX_UNSENT = 1 << 20, /* bytes */
	RUV_HTTP_MAX_JSON_DEPTH = 128,     /* nesting of a request's JSON */
	RUV_HTTP_MAX_PARAMS = 4            /* {names} in a route's path */
};

typedef struct ruv_exchange ruv_exchange;
typedef struct ruv_server ruv_server;

/* A call to make later, linked into a queue while it waits. */
typedef struct ruv_task {
	struct ruv_task *next;
	void (*fn)(void *arg);
	void *arg;
} ruv_task;

/* ---- routes ---- */

enum { RUV_GET = 1, RUV_POST = 2, RUV_PUT = 4, RUV_PATCH = 8, RUV_DELETE = 16 };

/* What a key may be allowed to do; a route asks for all of its bits. A server without keys allows everything. */
typedef enum ruv_scope {
	RUV_SCOPE_NONE = 0,
	RUV_SCOPE_CHAT = 1,   /* generate, embed, tokenize, rerank, list models */
	RUV_SCOPE_READ = 2,   /* read memory: ask, search, list, graph */
	RUV_SCOPE_WRITE = 4,  /* change memory */
	RUV_SCOPE_LEARN = 8,  /* feedback, adapters, rollback */
	RUV_SCOPE_ADMIN = 16, /* export everything, metrics */
} ruv_scope;

/* How failures look. */
typedef enum ruv_error_style {
	RUV_ERRORS_OPENAI,    /* {"error": {"message", "type", "param", "code"}} */
	RUV_ERRORS_ANTHROPIC, /* {"type": "error", "error": {"type", "message"}, "request_id"} */
	RUV_ERRORS_OLLAMA     /* {"error": "message"} */
} ruv_error_style;

enum {
	RUV_ROUTE_INLINE = 1, /* runs on the event-loop thread: must not wait, read files or run a model */
	RUV_ROUTE_OPEN = 2    /* needs no key */
};

typedef struct ruv_route {
	unsigned methods; /* RUV_GET | ... */
	const char *path; /* "/v1/memory/{id}": {id} is one segment; the name of the route in metrics and logs */
	void (*handle)(ruv_exchange *exchange);
	unsigned scopes; /* RUV_SCOPE_... */
	unsigned flags;  /* RUV_ROUTE_... */
	ruv_error_style errors;
} ruv_route;

/* A table of routes ends with {0}. server.c lists the tables. */

/* ---- reading a request ---- */

ruv_server *ruv_exchange_server(const ruv_exchange *exchange);
const ruv_route *ruv_exchange_route(const ruv_exchange *exchange);
/* The id that goes out as x-request-id: the client's own when it sent a sane one. */
const char *ruv_exchange_id(const ruv_exchange *exchange);
unsigned ruv_exchange_method(const ruv_exchange *exchange);
/* The decoded segment that stands for {name}; NULL when the route has none of that name. */
const char *ruv_exchange_param(const ruv_exchange *exchange, const char *name);
/* A decoded value of the query string, NULL when absent. */
const char *ruv_exchange_query(const ruv_exchange *exchange, const char *name);
/* As a whole number within low..high: RUV_OK with *value untouched when it is absent; RUV_EINVAL names it. */
int ruv_exchange_query_int(const ruv_exchange *exchange, const char *name, int64_t low, int64_t high, int64_t *value,
                           ruv_error *err);
/* A header's value, NULL when absent. Names in any case. */
const char *ruv_exchange_header(const ruv_exchange *exchange, const char *name);
/* The body, [*n] bytes. */
const char *ruv_exchange_body(const ruv_exchange *exchange, size_t *n);
/* The body as JSON (a new reference in *out): UTF-8, depth at most RUV_HTTP_MAX_JSON_DEPTH, no key twice. RUV_EFORMAT with line and
 * column; RUV_EINVAL when `object` is asked for and it is none. */
int ruv_exchange_json(const ruv_exchange *exchange, bool object, json_t **out, ruv_error *err);
/* Set as soon as the client is gone; give it to whatever works for this exchange. */
ruv_cancel *ruv_exchange_cancel(ruv_exchange *exchange);
/* Called once on the event-loop thread when the client goes before the exchange is finished. */
void ruv_exchange_on_gone(ruv_exchange *exchange, void (*gone)(void *user), void *user);
/* Nanoseconds (ruv_clock_now_ns) when the request was complete. */
int64_t ruv_exchange_started_ns(const ruv_exchange *exchange);

/* What spans of work for this exchange are part of; NULL without a tracer. */
const ruv_trace_context *ruv_exchange_trace(const ruv_exchange *exchange);

/* Whom the request's key speaks for. Strings are "" when there are no keys or the key says nothing. */
typedef struct ruv_identity {
	const char *key_name;
	unsigned scopes;
	const char *user, *agent; /* a key that names them confines its requests to that user's memory */
	bool memory;              /* this key's chats use memory without asking for it */
} ruv_identity;
const ruv_identity *ruv_exchange_identity(const ruv_exchange *exchange);

/* ---- answering in one piece ---- */

/* Before the first byte is sent. Copies. */
void ruv_exchange_set_header(ruv_exchange *exchange, const char *name, const char *value);
void ruv_exchange_reply(ruv_exchange *exchange, int status, const char *content_type, const void *bytes, size_t n);
/* Takes over `value`. */
void ruv_exchange_reply_json(ruv_exchange *exchange, int status, json_t *value);
/* The HTTP status, type and code follow from err->code (http.c has the table). In a stream that has begun it becomes the stream's
 * last event, in the route's style. `param` names the request's field at fault, NULL is fine. */
void ruv_exchange_fail(ruv_exchange *exchange, const ruv_error *err, const char *param);
/* Ends an endpoint: 200 with `result`, or the failure when rc is one. Takes over body and result; NULL is fine for both. */
void ruv_exchange_finish(ruv_exchange *exchange, int rc, const ruv_error *err, const char *param, json_t *body, json_t *result);
/* A failure of one's own making. code: "model_not_found", ...; NULL is null. */
void ruv_exchange_failf(ruv_exchange *exchange, int status, const char *type, const char *code, const char *param, const char *fmt,
                        ...) RUV_PRINTF(6, 7);
/* 429 with Retry-After: everything is full. */
void ruv_exchange_busy(ruv_exchange *exchange, int retry_after_s, const char *what);

/* ---- answering as a stream ---- */

/* Sends status 200 and headers; text/event-stream, application/x-ndjson, ... */
void ruv_exchange_begin(ruv_exchange *exchange, const char *content_type);
bool ruv_exchange_has_begun(const ruv_exchange *exchange);
/* Appends to the stream. RUV_ECANCELLED when the client is gone: stop working; the exchange must still be ended. */
int ruv_exchange_write(ruv_exchange *exchange, const void *bytes, size_t n);
/* "event: NAME\n" (NULL: none) and "data: JSON\n\n". Takes over `data`. */
int ruv_exchange_event(ruv_exchange *exchange, const char *name, json_t *data);
/* The JSON on a line of its own (application/x-ndjson). Takes over `data`. */
int ruv_exchange_line(ruv_exchange *exchange, json_t *data);
void ruv_exchange_end(ruv_exchange *exchange);

/* What this exchange did, for the log and the metrics; counted when it is finished. */
void ruv_exchange_note(ruv_exchange *exchange, const char *model, int n_prompt_tokens, int n_cached_tokens, int n_output_tokens);

/* ---- JSON helpers: reading fields of a request ---- */

/* Each reads object[key] into *value when it is there and not null, and leaves *value alone otherwise. RUV_EINVAL names the key and
 * what it must be. Strings belong to the object. */
int ruv_json_bool(const json_t *object, const char *key, bool *value, ruv_error *err);
int ruv_json_int(const json_t *object, const char *key, int64_t low, int64_t high, int64_t *value, ruv_error *err);
int ruv_json_real(const json_t *object, const char *key, double low, double high, double *value, ruv_error *err);
int ruv_json_text(const json_t *object, const char *key, const char **value, ruv_error *err);
/* An object or array, else RUV_EINVAL. Borrowed. */
int ruv_json_object(const json_t *object, const char *key, json_t **value, ruv_error *err);
int ruv_json_array(const json_t *object, const char *key, json_t **value, ruv_error *err);
/* A JSON string of bytes that may not be UTF-8 (they become U+FFFD). */
json_t *ruv_json_string(const char *bytes, size_t n);

#endif

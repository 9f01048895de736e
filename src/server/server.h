/* server.h - the server as endpoints see it: its runtime, its models, and the loop thread to come back to.
 *
 * Life: ruv_server_open binds the sockets, ruv_server_run serves until ruv_server_stop (or SIGTERM, SIGINT), then lets running
 * requests end (drain), and ruv_server_free closes. SIGHUP reads the keys again.
 *
 * Threads: the event-loop thread is the one in ruv_server_run; n_workers threads run endpoints' functions; the scheduler's thread
 * (ruvllm/scheduler.h) generates. Layer: server (sees include/ruvllm and base). */
#ifndef RUV_SERVER_SERVER_H
#define RUV_SERVER_SERVER_H

#include "ruvllm/runtime.h"
#include "ruvllm/scheduler.h"
#include "server/http.h"

/* Zeroed takes the value in brackets. */
typedef struct ruv_server_options {
	const char *host;               /* [127.0.0.1] */
	int port;                       /* [0: any free one; ruv_server_port tells] */
	const char *socket;             /* path of a unix socket besides; NULL or "": none */
	const char *keys_file;          /* API keys (auth.h); NULL or "": no keys */
	const char *tls_cert, *tls_key; /* PEM files; both or none */
	int n_workers;                  /* [4] */
	int max_connections;            /* [2048] */
	int max_queue;                  /* requests that wait for a worker [256] */
	int64_t max_body_bytes;         /* [32 MiB] */
	int max_header_bytes;           /* [32 KiB] */
	int timeout_s;                  /* for a request's bytes to come, and for a client to take an answer's [60] */
	int drain_s;                    /* for running requests after SIGTERM [30] */
	bool log_requests;              /* one JSON line a request on stderr */
	const char *model;              /* generator for requests that name none: a tier or a file [l] */
	bool chat_memory;               /* chats use memory without asking for it */
	void (*on_ready)(void *user, ruv_server *server); /* sockets are open; called by ruv_server_run */
	void *user;
} ruv_server_options;

/* Keeps the runtime, which the caller frees after the server. RUV_EIO when an address is taken (named), RUV_EINVAL. */
int ruv_server_open(ruv_server **out, ruv_runtime *runtime, const ruv_server_options *options, ruv_error *err);
/* Serves; returns after a stop, when everything is drained. One thread, once. */
int ruv_server_run(ruv_server *server, ruv_error *err);
/* Any thread, or a signal handler. */
void ruv_server_stop(ruv_server *server);
void ruv_server_free(ruv_server *server); /* NULL is fine */
int ruv_server_port(const ruv_server *server);

ruv_runtime *ruv_server_runtime(const ruv_server *server);
const ruv_server_options *ruv_server_get_options(const ruv_server *server);

/* Something to do on the event-loop thread: fn(arg), once, in the order of posting. It lies in its owner's object, so posting
 * cannot fail; it may be posted again from fn on. Any thread. */
void ruv_server_post(ruv_server *server, ruv_task *task);

/* ---- models ---- */

/* A model that clients may name. */
typedef struct ruv_served_model {
	char id[128]; /* "ruvllm-nano-l": the file's general.name in lower case with '-' for what is no letter, digit or '.'; no '/'
	               */
	char name[64]; /* the scheduler's and the runtime's name: "s", "m", "l", "encoder", or the configured file */
	char path[4096];
	bool is_encoder;   /* embeds only */
	int64_t created_s; /* of the file */
} ruv_served_model;

/* The i-th model, NULL past the end. Fixed once the server is open. */
const ruv_served_model *ruv_server_model_at(const ruv_server *server, int i);
/* The model of that name: an id, a tier ("s", "m", "l"), NULL, "default" or "auto" (the configured generator), or a file's name
 * without directory. RUV_ENOTFOUND lists the ids. */
int ruv_server_model_find(const ruv_server *server, const char *name, const ruv_served_model **out, ruv_error *err);
/* Loads it if need be; the caller gives it up with ruv_model_free. Workers only: reading a file may take a while. */
int ruv_server_model_acquire(ruv_server *server, const ruv_served_model *served, ruv_model **out, ruv_error *err);
ruv_scheduler *ruv_server_scheduler(const ruv_server *server);
/* What the loop is to be asked with for a model that a client names: "auto" when there is a router, else the configured generator
 * (NULL); the served model's name otherwise. */
const char *ruv_server_ask_model(ruv_server *server, const char *name, const ruv_served_model *served);

/* ---- tables of routes: each protocol has one, ending with {0} ---- */

extern const ruv_route ruv_routes_ops[], ruv_routes_openai[], ruv_routes_native[], ruv_routes_memory[], ruv_routes_learn[],
    ruv_routes_agents[], ruv_routes_anthropic[], ruv_routes_ollama[], ruv_routes_responses[], ruv_routes_mcp[], ruv_routes_assets[];
/* anthropic.c, ollama.c, responses.c, mcp.c: declare theirs here and add them to the list in server.c. */

#endif

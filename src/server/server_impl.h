/* server_impl.h - the server's object, its exchanges and connections, for http.c, server.c, auth.c and metrics.c.
 *
 * Ownership: a connection (server_conn) lives as long as evhttp's; it knows the exchange that runs on it. An exchange belongs to
 * the endpoint until it is finished, then to the event-loop thread, which frees it after the last byte was handed to evhttp. The
 * evhttp_request below it stays valid until then, also when the client is gone.
 *
 * Threads: fields that say `loop` belong to the event-loop thread; those that say `lock` are guarded by the exchange's or server's
 * lock; the others do not change after the exchange is handed out. Layer: server. */
#ifndef RUV_SERVER_SERVER_IMPL_H
#define RUV_SERVER_SERVER_IMPL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <pthread.h>

#include "server/auth.h"
#include "server/decisions.h"
#include "server/metrics.h"
#include "server/server.h"

enum { SERVER_MAX_LISTENERS = 8, SERVER_MAX_MODELS = 8, SERVER_MAX_TABLES = 16, EXCHANGE_MAX_HEADERS = 24 };

typedef struct server_conn {
	ruv_server *server;
	struct server_conn *prev, *next; /* loop: of server->conns */
	struct bufferevent *bev;         /* loop */
	struct evhttp_connection *evcon; /* loop; NULL before its first request, then `held` */
	bool held;                       /* loop: we keep a reference to bev, to notice its end */
	bool busy;                       /* loop: a request is being answered */
	int64_t waits_since_ns;          /* loop: for a whole request, when not busy */
	ruv_exchange *exchange;          /* loop: not finished yet */
} server_conn;

typedef struct exchange_header {
	char *name, *value;
} exchange_header;

struct ruv_exchange {
	ruv_server *server;
	const ruv_route *route; /* NULL: none matched */
	int route_index;        /* in the metrics */
	ruv_error_style errors;
	unsigned method;
	char id[65];
	ruv_auth *auth; /* where identity's strings live */
	ruv_identity identity;
	struct evhttp_request *req;
	server_conn *conn; /* loop; NULL once the client is gone */
	struct evkeyvalq query;
	bool has_query;
	struct {
		const char *name; /* [n_name] in the route's path */
		size_t n_name;
		char *value;
	} params[RUV_HTTP_MAX_PARAMS];
	int n_params;
	const char *body; /* [n_body] in req */
	size_t n_body;
	ruv_trace_span span; /* of the request; its trace is not valid when there is no tracer */
	int64_t started_ns;
	ruv_cancel cancel;
	ruv_task work; /* in the workers' queue */

	pthread_mutex_t lock;
	pthread_cond_t drained;
	struct evbuffer *out; /* lock: written, not yet handed to evhttp */
	exchange_header headers[EXCHANGE_MAX_HEADERS];
	int n_headers;
	int status;
	bool stream;             /* lock: begun as a stream */
	bool finished;           /* lock: by the endpoint */
	bool gone;               /* lock: the client is */
	bool queued;             /* lock: `flush` is posted */
	size_t unsent;           /* lock: in evhttp's buffer */
	bool sent_start;         /* loop */
	void (*on_gone)(void *); /* lock */
	void *gone_user;
	ruv_task flush;

	char model[128];
	int n_prompt, n_cached, n_output;
};

typedef struct worker_queue {
	pthread_mutex_t lock;
	pthread_cond_t more;
	ruv_task *first, **last;
	int n, n_busy;
	bool closed;
} worker_queue;

struct ruv_server {
	ruv_server_options options; /* strings copied */
	char *strings[8];
	int n_strings;
	char not_ready[480]; /* lock: why, "" when ready */
	ruv_runtime *runtime;
	ruv_scheduler *scheduler;
	ruv_served_model models[SERVER_MAX_MODELS];
	int n_models, default_model;
	int64_t started_ms;

	struct event_base *base;
	struct evhttp *http;
	struct evconnlistener *listeners[SERVER_MAX_LISTENERS];
	int n_listeners, port;
	bool accepting;    /* loop */
	void *tls;         /* SSL_CTX *, NULL: plain */
	char *socket_path; /* to remove at the end */
	struct event *wake, *tick, *signals[3];
	int wake_fd;
	pthread_t loop_thread;
	bool draining; /* loop */
	bool ready;    /* atomic */
	int stop;      /* atomic: asked to */
	int64_t drain_until_ns;
	ruv_task preload;

	pthread_mutex_t lock;
	ruv_task *posted, **posted_last; /* lock */

	server_conn *conns; /* loop */
	int n_conns;        /* loop; read by metrics */
	int n_exchanges;    /* atomic: not finished */

	worker_queue queue;
	pthread_t *workers;
	int n_workers;

	pthread_mutex_t embed_lock;
	ruv_embedder *embedder; /* embed_lock: of /v1/embeddings and /v1/rerank; NULL until the first */

	ruv_auth *auth; /* loop: replaced by SIGHUP */
	ruv_metrics *metrics;
	ruv_decisions *decisions;

	const ruv_route *routes[SERVER_MAX_TABLES];
	int n_tables;
};

/* server.c: only workers may wait for slow readers. */
bool ruv_server_on_worker(void);

/* http.c */

/* A new request, from evhttp. */
void ruv_http_on_request(struct evhttp_request *req, void *server);
/* Makes a new connection's bufferevent and counts it. */
struct bufferevent *ruv_http_on_connection(struct event_base *base, void *server);
/* Every second: ends connections that take too long for a request. */
void ruv_http_sweep(ruv_server *server);
/* The connection is gone. */
void ruv_http_conn_release(server_conn *conn);
/* Takes the worker's side: runs the endpoint. */
void ruv_http_run(void *exchange);
/* Its span, where there is a tracer (trace.c). */
void ruv_exchange_trace_begin(ruv_exchange *exchange);
void ruv_exchange_trace_end(ruv_exchange *exchange, const char *method, int status);
void ruv_http_accepting(ruv_server *server, bool on);
/* The route and its path's parameters for a request; NULL with *other_methods set when only others are known. */
const ruv_route *ruv_http_find_route(const ruv_server *server, unsigned method, const char *path, int *index,
                                     unsigned *other_methods, ruv_exchange *exchange);

#endif

/* http.c - connections and requests: from evhttp to an exchange in an endpoint's hands, and its bytes back to evhttp.
 *
 * What evhttp (libevent 2.1) does not do is done here:
 *   - It counts no connections. Each gets its bufferevent from us; until its first request we hold a reference to that and notice
 *     its end in ruv_http_sweep (evhttp has cleared its callbacks); from then on evhttp's close callback tells.
 *   - Its timeout starts anew with every byte. The sweep ends connections that take longer than that for a whole request.
 *   - While a request is answered it does not read, so a client's leaving goes unnoticed until something is written. We read on
 * with no read callback, as evhttp itself does once it has written; a high-water mark bounds what a pipelining client can pile up.
 *   - That reading would time out during a long answer: the read timeout is off meanwhile.
 *   - A client that goes leaves its request to us; evhttp_send_reply* must be called once more for it, and frees it.
 *
 * Threads: the event loop's but for ruv_http_run and the functions of http_reply.c. Layer: server. */
#include "server/http.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <event2/bufferevent_ssl.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"
#include "server/server_impl.h"

/* ---- connections ------------------------------------------------------------------------------------------------------- */

void ruv_http_accepting(ruv_server *server, bool on)
{
	if (server->accepting == on)
		return;
	server->accepting = on;
	for (int i = 0; i < server->n_listeners; i++) {
		if (on)
			evconnlistener_enable(server->listeners[i]);
		else
			evconnlistener_disable(server->listeners[i]);
	}
}

static void set_timeouts(server_conn *conn, bool reading)
{
	const struct timeval tv = {.tv_sec = conn->server->options.timeout_s};

	bufferevent_set_timeouts(conn->bev, reading ? &tv : NULL, &tv);
}

void ruv_http_conn_release(server_conn *conn)
{
	ruv_server *server = conn->server;

	if (conn->prev)
		conn->prev->next = conn->next;
	else
		server->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	if (conn->held)
		bufferevent_decref(conn->bev);
	__atomic_sub_fetch(&server->n_conns, 1, __ATOMIC_RELAXED);
	if (server->n_conns < server->options.max_connections && !server->draining)
		ruv_http_accepting(server, true);
	free(conn);
}

struct bufferevent *ruv_http_on_connection(struct event_base *base, void *arg)
{
	ruv_server *server = arg;
	server_conn *conn = calloc(1, sizeof *conn);
	struct bufferevent *bev = NULL;

	if (!conn)
		return NULL; /* evhttp makes one of its own: served, but not counted */
	if (server->tls) {
		SSL *ssl = SSL_new(server->tls);

		if (ssl) {
			bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
			if (!bev)
				SSL_free(ssl);
			else
				bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
		}
	}
	if (!server->tls)
		bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (!bev) {
		free(conn);
		return NULL;
	}
	bufferevent_setwatermark(bev, EV_READ, 0,
	                         (size_t)server->options.max_body_bytes * 2 + (size_t)server->options.max_header_bytes + 65536);
	bufferevent_incref(bev);
	*conn =
	    (server_conn){.server = server, .next = server->conns, .bev = bev, .held = true, .waits_since_ns = ruv_clock_now_ns()};
	if (server->conns)
		server->conns->prev = conn;
	server->conns = conn;
	if (__atomic_add_fetch(&server->n_conns, 1, __ATOMIC_RELAXED) >= server->options.max_connections)
		ruv_http_accepting(server, false);
	return bev;
}

void ruv_http_sweep(ruv_server *server)
{
	const int64_t late = ruv_clock_now_ns() - (int64_t)server->options.timeout_s * 1000000000;

	for (server_conn *conn = server->conns, *next; conn; conn = next) {
		bufferevent_event_cb on_event = NULL;

		next = conn->next;
		if (conn->held) {
			bufferevent_getcb(conn->bev, NULL, NULL, &on_event, NULL);
			if (!on_event) { /* evhttp has given it up */
				ruv_http_conn_release(conn);
				continue;
			}
		}
		if (!conn->busy && conn->waits_since_ns < late)
			shutdown(bufferevent_getfd(conn->bev), SHUT_RDWR); /* evhttp reads the end and closes */
	}
	if (!server->draining && server->n_conns < server->options.max_connections)
		ruv_http_accepting(server, true);
}

/* The client is gone (or the server closes it). */
static void on_close(struct evhttp_connection *evcon, void *arg)
{
	server_conn *conn = arg;
	ruv_exchange *exchange = conn->exchange;

	(void)evcon;
	if (exchange) {
		void (*gone)(void *);
		void *user;

		pthread_mutex_lock(&exchange->lock);
		exchange->gone = true;
		exchange->conn = NULL;
		ruv_cancel_set(&exchange->cancel);
		gone = exchange->finished ? NULL : exchange->on_gone;
		user = exchange->gone_user;
		exchange->on_gone = NULL;
		if (!exchange->finished)
			ruv_metrics_gone(conn->server->metrics, false);
		pthread_cond_broadcast(&exchange->drained);
		if (gone)
			gone(user);
		pthread_mutex_unlock(&exchange->lock);
	}
	ruv_http_conn_release(conn);
}

/* The last byte of an answer is with the kernel. */
static void on_complete(struct evhttp_request *req, void *arg)
{
	server_conn *conn = arg;

	(void)req;
	conn->busy = false;
	conn->waits_since_ns = ruv_clock_now_ns();
	set_timeouts(conn, true);
}

/* The connection that a request came on; the first time it is found among the held ones. */
static server_conn *conn_of(ruv_server *server, struct evhttp_connection *evcon)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evcon);
	server_conn *conn = server->conns;

	while (conn && conn->bev != bev)
		conn = conn->next;
	if (conn && conn->held) {
		conn->held = false;
		conn->evcon = evcon;
		evhttp_connection_set_closecb(evcon, on_close, conn);
		bufferevent_decref(bev);
	}
	if (conn && conn->prev) { /* to the front: active ones are found at once */
		conn->prev->next = conn->next;
		if (conn->next)
			conn->next->prev = conn->prev;
		conn->prev = NULL;
		conn->next = server->conns;
		server->conns->prev = conn;
		server->conns = conn;
	}
	return conn;
}

/* ---- exchanges --------------------------------------------------------------------------------------------------------- */

static void exchange_free(ruv_exchange *exchange)
{
	for (int i = 0; i < exchange->n_params; i++)
		free(exchange->params[i].value);
	for (int i = 0; i < exchange->n_headers; i++) {
		free(exchange->headers[i].name);
		free(exchange->headers[i].value);
	}
	if (exchange->has_query)
		evhttp_clear_headers(&exchange->query);
	if (exchange->out)
		evbuffer_free(exchange->out);
	ruv_auth_free(exchange->auth);
	pthread_cond_destroy(&exchange->drained);
	pthread_mutex_destroy(&exchange->lock);
	free(exchange);
}

static const char *method_name(unsigned method)
{
	return method == RUV_GET      ? "GET"
	       : method == RUV_POST   ? "POST"
	       : method == RUV_PUT    ? "PUT"
	       : method == RUV_PATCH  ? "PATCH"
	       : method == RUV_DELETE ? "DELETE"
	                              : "OPTIONS";
}

/* One JSON line: what was asked, how it ended; never what it said. */
static void log_exchange(const ruv_exchange *exchange, int status, double seconds)
{
	json_t *line = json_pack("{s:I, s:s, s:s, s:s, s:s, s:i, s:f}", "time_ms", (json_int_t)ruv_clock_wall_ms(), "event",
	                         "request", "request_id", exchange->id, "method", method_name(exchange->method), "route",
	                         exchange->route ? exchange->route->path : "", "status", status, "seconds", seconds);
	char *text;

	if (line && *exchange->identity.key_name)
		json_object_set_new(line, "key", json_string(exchange->identity.key_name));
	if (line && *exchange->model)
		json_object_update_new(line, json_pack("{s:s, s:i, s:i, s:i}", "model", exchange->model, "prompt_tokens",
		                                       exchange->n_prompt, "cached_tokens", exchange->n_cached, "output_tokens",
		                                       exchange->n_output));
	text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	if (text)
		fprintf(stderr, "%s\n", text);
	free(text);
	json_decref(line);
}

static void send_headers(ruv_exchange *exchange)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->req);

	evhttp_add_header(headers, "x-request-id", exchange->id);
	for (int i = 0; i < exchange->n_headers; i++) {
		evhttp_remove_header(headers, exchange->headers[i].name);
		evhttp_add_header(headers, exchange->headers[i].name, exchange->headers[i].value);
	}
	if (exchange->server->draining)
		evhttp_add_header(headers, "Connection", "close");
}

static void on_drained(struct evhttp_connection *evcon, void *arg)
{
	server_conn *conn = arg;
	ruv_exchange *exchange = conn->exchange;

	(void)evcon;
	if (!exchange)
		return;
	pthread_mutex_lock(&exchange->lock);
	exchange->unsent = 0;
	pthread_cond_broadcast(&exchange->drained);
	pthread_mutex_unlock(&exchange->lock);
}

/* Hands to evhttp what was written since the last time; with the exchange finished, lets go of it. */
static void flush(void *arg)
{
	ruv_exchange *exchange = arg;
	ruv_server *server = exchange->server;
	bool finished;

	pthread_mutex_lock(&exchange->lock);
	exchange->queued = false;
	finished = exchange->finished;
	if (!exchange->sent_start) {
		send_headers(exchange);
		exchange->sent_start = true;
		if (exchange->stream)
			evhttp_send_reply_start(exchange->req, exchange->status, NULL);
	}
	if (exchange->stream && exchange->conn) {
		struct bufferevent *bev = exchange->conn->bev;

		evhttp_send_reply_chunk_with_cb(exchange->req, exchange->out, on_drained, exchange->conn);
		exchange->unsent = evbuffer_get_length(bufferevent_get_output(bev));
		if (exchange->unsent > RUV_EXCHANGE_MAX_UNSENT && !finished) {
			ruv_log(RUV_LOG_WARN, "server", "request %s: the client leaves %zu bytes unread and is cut off",
			        exchange->id, exchange->unsent);
			ruv_metrics_gone(server->metrics, true);
			ruv_cancel_set(&exchange->cancel);
			shutdown(bufferevent_getfd(bev), SHUT_RDWR);
		}
	}
	if (exchange->stream)
		evbuffer_drain(exchange->out, evbuffer_get_length(exchange->out)); /* nothing left unless the client is gone */
	pthread_mutex_unlock(&exchange->lock);
	if (!finished)
		return;

	const double seconds = (double)(ruv_clock_now_ns() - exchange->started_ns) * 1e-9;
	const int status = exchange->gone ? 499 : exchange->status;

	if (exchange->conn)
		exchange->conn->exchange = NULL;
	ruv_metrics_request(server->metrics, exchange->route_index, exchange->method, status, seconds);
	ruv_exchange_trace_end(exchange, method_name(exchange->method), status);
	if (server->options.log_requests)
		log_exchange(exchange, status, seconds);
	if (exchange->stream)
		evhttp_send_reply_end(exchange->req);
	else
		evhttp_send_reply(exchange->req, exchange->status, NULL, exchange->out);
	exchange_free(exchange);
	__atomic_sub_fetch(&server->n_exchanges, 1, __ATOMIC_RELEASE);
}

void ruv_http_run(void *arg)
{
	ruv_exchange *exchange = arg;

	if (ruv_cancel_is_set(&exchange->cancel))
		ruv_exchange_failf(exchange, 499, "cancelled", NULL, NULL, "the client is gone");
	else
		exchange->route->handle(exchange);
}

/* ---- routes ------------------------------------------------------------------------------------------------------------ */

/* Does the path match the pattern? {name} stands for one segment that is not empty. Fills the exchange's params (still encoded). */
static bool match(const char *pattern, const char *path, ruv_exchange *exchange)
{
	int n = 0;

	while (*pattern && *path) {
		if (*pattern == '{') {
			const char *close = strchr(pattern, '}');
			size_t len = strcspn(path, "/");

			if (!len)
				return false;
			if (exchange && n < RUV_HTTP_MAX_PARAMS) {
				exchange->params[n].name = pattern + 1;
				exchange->params[n].n_name = (size_t)(close - pattern - 1);
				exchange->params[n].value = strndup(path, len);
			}
			n++;
			pattern = close + 1;
			path += len;
		} else if (*pattern++ != *path++) {
			n = -1;
			break;
		}
	}
	if (n >= 0 && *pattern == 0 && *path == 0) {
		if (exchange)
			exchange->n_params = n;
		return true;
	}
	for (int i = 0; exchange && i < RUV_HTTP_MAX_PARAMS; i++) {
		free(exchange->params[i].value);
		exchange->params[i].value = NULL;
	}
	return false;
}

const ruv_route *ruv_http_find_route(const ruv_server *server, unsigned method, const char *path, int *index,
                                     unsigned *other_methods, ruv_exchange *exchange)
{
	int i = 0;

	*other_methods = 0;
	for (int t = 0; t < server->n_tables; t++)
		for (const ruv_route *route = server->routes[t]; route->path; route++, i++) {
			if (!(route->methods & method)) {
				if (match(route->path, path, NULL))
					*other_methods |= route->methods;
				continue;
			}
			if (match(route->path, path, exchange)) {
				*index = i;
				return route;
			}
		}
	*index = i;
	return NULL;
}

/* Decodes the params in place. False: an encoded NUL, or memory is out. */
static bool decode_params(ruv_exchange *exchange)
{
	for (int i = 0; i < exchange->n_params; i++) {
		size_t n;
		char *text = exchange->params[i].value ? evhttp_uridecode(exchange->params[i].value, 0, &n) : NULL;

		free(exchange->params[i].value);
		exchange->params[i].value = text;
		if (!text || strlen(text) != n)
			return false;
	}
	return true;
}

/* ---- who asks ---------------------------------------------------------------------------------------------------------- */

/* A host name or address [n] that means this machine. */
static bool is_local_host(const char *host, size_t n)
{
	return (n == 9 && !strncasecmp(host, "localhost", 9)) || (n > 4 && !strncmp(host, "127.", 4)) ||
	       (n == 5 && !strncmp(host, "[::1]", 5)) || (n == 3 && !strncmp(host, "::1", 3));
}

/* The host's part of "host:port" or "[v6]:port". */
static size_t host_length(const char *text)
{
	const char *close = *text == '[' ? strchr(text, ']') : NULL;

	return close ? (size_t)(close + 1 - text) : strcspn(text, ":/");
}

static bool origin_is_local(const char *origin)
{
	const char *host = strstr(origin, "://");

	if (!host || (strncmp(origin, "http://", 7) && strncmp(origin, "https://", 8)))
		return false;
	host += 3;
	return is_local_host(host, host_length(host));
}

/* A page of another site may resolve its own name to 127.0.0.1 and then read our answers as its own ("DNS rebinding"). While only
 * this machine is served and no key is asked for, a request must call the server by an address or a name of this machine. */
static bool host_is_ours(const ruv_server *server, const char *host)
{
	char name[64];
	size_t n;
	struct in_addr v4;

	if (!host || server->auth || !server->options.host || !is_local_host(server->options.host, strlen(server->options.host)))
		return true;
	n = host_length(host);
	if (is_local_host(host, n) || *host == '[' ||
	    (n == strlen(server->options.host) && !strncasecmp(host, server->options.host, n)))
		return true;
	snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), host);
	return inet_pton(AF_INET, name, &v4) == 1;
}

static const char *bearer(const ruv_exchange *exchange)
{
	const char *value = ruv_exchange_header(exchange, "Authorization");

	if (value && !strncasecmp(value, "Bearer ", 7))
		return value + 7 + strspn(value + 7, " ");
	return ruv_exchange_header(exchange, "x-api-key");
}

/* Identity of the request, or false with the exchange failed. */
static bool authorize(ruv_exchange *exchange)
{
	const ruv_server *server = exchange->server;
	const ruv_route *route = exchange->route;
	const char *key;
	unsigned lacks;

	exchange->identity =
	    (ruv_identity){.key_name = "", .user = "", .agent = "", .scopes = ~0u, .memory = server->options.chat_memory};
	if (!server->auth || (route->flags & RUV_ROUTE_OPEN))
		return true;
	key = bearer(exchange);
	if (!key || !ruv_auth_check(server->auth, key, &exchange->identity)) {
		exchange->identity = (ruv_identity){.key_name = "", .user = "", .agent = ""};
		ruv_exchange_set_header(exchange, "WWW-Authenticate", "Bearer");
		ruv_exchange_failf(exchange, 401, "authentication_error", "invalid_api_key", NULL,
		                   key ? "the API key is not known here"
		                       : "this server asks for an API key: send it as 'Authorization: Bearer KEY'");
		return false;
	}
	exchange->auth = ruv_auth_hold(server->auth);
	exchange->identity.memory = exchange->identity.memory || server->options.chat_memory;
	lacks = route->scopes & ~exchange->identity.scopes;
	for (unsigned bit = 1; bit; bit <<= 1)
		if (lacks & bit) {
			ruv_exchange_failf(exchange, 403, "permission_error", "insufficient_scope", NULL,
			                   "the key '%s' lacks the scope '%s', which %s needs", exchange->identity.key_name,
			                   ruv_scope_name(bit), route->path);
			return false;
		}
	return true;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static unsigned method_of(const struct evhttp_request *req)
{
	switch (evhttp_request_get_command(req)) {
	case EVHTTP_REQ_GET:
	case EVHTTP_REQ_HEAD:
		return RUV_GET;
	case EVHTTP_REQ_POST:
		return RUV_POST;
	case EVHTTP_REQ_PUT:
		return RUV_PUT;
	case EVHTTP_REQ_PATCH:
		return RUV_PATCH;
	case EVHTTP_REQ_DELETE:
		return RUV_DELETE;
	default:
		return 0;
	}
}

static void choose_id(ruv_exchange *exchange)
{
	const char *given = ruv_exchange_header(exchange, "x-request-id");
	size_t n = given ? strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") : 0;

	if (n && n < sizeof exchange->id && !given[n])
		memcpy(exchange->id, given, n + 1);
	else
		ruv_uuid_format(ruv_uuid_make(), exchange->id);
}

static void list_methods(unsigned methods, char *text, size_t cap)
{
	*text = 0;
	for (unsigned bit = 1; bit <= RUV_DELETE; bit <<= 1)
		if (methods & bit) {
			size_t n = strlen(text);

			snprintf(text + n, cap - n, "%s%s", n ? ", " : "", method_name(bit));
		}
}

/* Everything that can be said before an endpoint is asked. True: go on to the endpoint. */
static bool admit(ruv_exchange *exchange)
{
	ruv_server *server = exchange->server;
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(exchange->req));
	const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(exchange->req));
	const char *origin = ruv_exchange_header(exchange, "Origin"), *host = ruv_exchange_header(exchange, "Host");
	bool preflight = evhttp_request_get_command(exchange->req) == EVHTTP_REQ_OPTIONS;
	unsigned others = 0;
	char methods[64];

	path = path && *path ? path : "/";
	exchange->route = ruv_http_find_route(server, exchange->method, path, &exchange->route_index, &others, exchange);
	if (exchange->route)
		exchange->errors = exchange->route->errors;
	if (!host_is_ours(server, host)) {
		ruv_exchange_failf(exchange, 403, "permission_error", "host_not_allowed", NULL,
		                   "this server answers only to 'localhost' and addresses, not to '%.80s'", host);
		return false;
	}
	if (origin && !origin_is_local(origin)) {
		ruv_exchange_failf(exchange, 403, "permission_error", "origin_not_allowed", NULL,
		                   "pages of '%.80s' may not use this server; only those of localhost may", origin);
		return false;
	}
	if (origin) {
		ruv_exchange_set_header(exchange, "Access-Control-Allow-Origin", origin);
		ruv_exchange_set_header(exchange, "Vary", "Origin");
		ruv_exchange_set_header(exchange, "Access-Control-Expose-Headers", "x-request-id, Retry-After, Mcp-Session-Id");
	}
	if (preflight) {
		const char *wanted = ruv_exchange_header(exchange, "Access-Control-Request-Headers");

		ruv_exchange_set_header(exchange, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
		if (wanted)
			ruv_exchange_set_header(exchange, "Access-Control-Allow-Headers", wanted);
		ruv_exchange_set_header(exchange, "Access-Control-Max-Age", "600");
		ruv_exchange_reply(exchange, 204, NULL, "", 0);
		return false;
	}
	if (!exchange->route && others) {
		list_methods(others, methods, sizeof methods);
		ruv_exchange_set_header(exchange, "Allow", methods);
		ruv_exchange_failf(exchange, 405, "invalid_request_error", "method_not_allowed", NULL, "%.200s takes %s", path,
		                   methods);
		return false;
	}
	if (!exchange->route) {
		ruv_exchange_failf(exchange, 404, "invalid_request_error", "unknown_url", NULL, "there is nothing at %.200s", path);
		return false;
	}
	if (!authorize(exchange))
		return false;
	if (!decode_params(exchange) || (query && evhttp_parse_query_str(query, &exchange->query))) {
		ruv_exchange_failf(exchange, 400, "invalid_request_error", NULL, NULL, "the URL's path or query is malformed");
		return false;
	}
	exchange->has_query = query != NULL;
	if (exchange->n_body > (size_t)server->options.max_body_bytes) {
		ruv_exchange_failf(exchange, 413, "invalid_request_error", "request_too_large", NULL,
		                   "the body has %zu bytes; at most %lld are taken", exchange->n_body,
		                   (long long)server->options.max_body_bytes);
		return false;
	}
	if (server->draining && !(exchange->route->flags & RUV_ROUTE_OPEN)) {
		ruv_exchange_set_header(exchange, "Retry-After", "5");
		ruv_exchange_failf(exchange, 503, "server_error", "shutting_down", NULL, "the server is shutting down");
		return false;
	}
	return true;
}

static bool enqueue(ruv_server *server, ruv_exchange *exchange)
{
	worker_queue *queue = &server->queue;
	bool room;

	exchange->work = (ruv_task){.fn = ruv_http_run, .arg = exchange};
	pthread_mutex_lock(&queue->lock);
	room = queue->n < server->options.max_queue;
	if (room) {
		*queue->last = &exchange->work;
		queue->last = &exchange->work.next;
		queue->n++;
		pthread_cond_signal(&queue->more);
	}
	pthread_mutex_unlock(&queue->lock);
	return room;
}

void ruv_http_on_request(struct evhttp_request *req, void *arg)
{
	ruv_server *server = arg;
	struct evhttp_connection *evcon = evhttp_request_get_connection(req);
	server_conn *conn = conn_of(server, evcon);
	ruv_exchange *exchange = calloc(1, sizeof *exchange);
	struct evbuffer *input = evhttp_request_get_input_buffer(req);
	bufferevent_data_cb on_write;
	bufferevent_event_cb on_event;
	void *cb_arg;

	if (exchange)
		exchange->out = evbuffer_new();
	if (!conn || !exchange || !exchange->out) {
		free(exchange);
		evhttp_send_error(req, 503, "Out of memory");
		return;
	}
	pthread_mutex_init(&exchange->lock, NULL);
	pthread_cond_init(&exchange->drained, NULL);
	exchange->server = server;
	exchange->req = req;
	exchange->conn = conn;
	exchange->flush = (ruv_task){.fn = flush, .arg = exchange};
	exchange->method = method_of(req);
	exchange->identity = (ruv_identity){.key_name = "", .user = "", .agent = ""};
	exchange->started_ns = ruv_clock_now_ns();
	exchange->n_body = evbuffer_get_length(input);
	exchange->body = exchange->n_body ? (const char *)evbuffer_pullup(input, -1) : "";
	conn->exchange = exchange;
	conn->busy = true;
	__atomic_add_fetch(&server->n_exchanges, 1, __ATOMIC_RELAXED);
	evhttp_request_set_on_complete_cb(req, on_complete, conn);
	set_timeouts(conn, false);
	bufferevent_getcb(conn->bev, NULL, &on_write, &on_event, &cb_arg);
	bufferevent_setcb(conn->bev, NULL, on_write, on_event, cb_arg);
	bufferevent_enable(conn->bev, EV_READ);

	choose_id(exchange);
	ruv_exchange_trace_begin(exchange);
	if (!exchange->body) {
		exchange->n_body = 0;
		ruv_exchange_failf(exchange, 503, "server_error", NULL, NULL, "memory is out");
		return;
	}
	if (!admit(exchange))
		return;
	if (exchange->route->flags & RUV_ROUTE_INLINE)
		exchange->route->handle(exchange);
	else if (!enqueue(server, exchange))
		ruv_exchange_busy(exchange, 1, "requests");
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

ruv_server *ruv_exchange_server(const ruv_exchange *exchange)
{
	return exchange->server;
}

const ruv_route *ruv_exchange_route(const ruv_exchange *exchange)
{
	return exchange->route;
}

const char *ruv_exchange_id(const ruv_exchange *exchange)
{
	return exchange->id;
}

unsigned ruv_exchange_method(const ruv_exchange *exchange)
{
	return exchange->method;
}

const char *ruv_exchange_param(const ruv_exchange *exchange, const char *name)
{
	for (int i = 0; i < exchange->n_params; i++)
		if (strlen(name) == exchange->params[i].n_name &&
		    !memcmp(name, exchange->params[i].name, exchange->params[i].n_name))
			return exchange->params[i].value;
	return NULL;
}

const char *ruv_exchange_query(const ruv_exchange *exchange, const char *name)
{
	return exchange->has_query ? evhttp_find_header(&exchange->query, name) : NULL;
}

int ruv_exchange_query_int(const ruv_exchange *exchange, const char *name, int64_t low, int64_t high, int64_t *value,
                           ruv_error *err)
{
	const char *text = ruv_exchange_query(exchange, name);
	char *end;
	long long number;

	if (!text)
		return RUV_OK;
	number = strtoll(text, &end, 10);
	if (end == text || *end || number < low || number > high)
		return ruv_fail(err, RUV_EINVAL, "server", "%s is '%.60s'; it must be a whole number from %lld to %lld", name, text,
		                (long long)low, (long long)high);
	*value = number;
	return RUV_OK;
}

const char *ruv_exchange_header(const ruv_exchange *exchange, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(exchange->req), name);
}

const char *ruv_exchange_body(const ruv_exchange *exchange, size_t *n)
{
	*n = exchange->n_body;
	return exchange->body;
}

ruv_cancel *ruv_exchange_cancel(ruv_exchange *exchange)
{
	return &exchange->cancel;
}

void ruv_exchange_on_gone(ruv_exchange *exchange, void (*gone)(void *user), void *user)
{
	pthread_mutex_lock(&exchange->lock);
	exchange->on_gone = gone;
	exchange->gone_user = user;
	if (exchange->gone && gone) {
		exchange->on_gone = NULL;
		gone(user);
	}
	pthread_mutex_unlock(&exchange->lock);
}

int64_t ruv_exchange_started_ns(const ruv_exchange *exchange)
{
	return exchange->started_ns;
}

const ruv_identity *ruv_exchange_identity(const ruv_exchange *exchange)
{
	return &exchange->identity;
}

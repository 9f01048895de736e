/* server.c - the server's life: sockets, event loop, workers, models, signals, draining.
 *
 * Other threads reach the event loop through ruv_server_post: a list and an eventfd. The loop needs no locks of libevent's then.
 * Workers take exchanges from a bounded queue; when it is full the loop answers 429 itself. Layer: server. */
#include "server/server.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "server/server_impl.h"

static const char where[] = "server";

/* Every table of routes. */
static const ruv_route *const tables[] = {ruv_routes_ops,       ruv_routes_openai, ruv_routes_native,    ruv_routes_memory,
                                          ruv_routes_learn,     ruv_routes_agents, ruv_routes_anthropic, ruv_routes_ollama,
                                          ruv_routes_responses, ruv_routes_mcp,    ruv_routes_assets};
enum { N_TABLES = sizeof tables / sizeof *tables };

/* ---- the way back to the loop ------------------------------------------------------------------------------------------ */

static void wake(ruv_server *server)
{
	const uint64_t one = 1;
	ssize_t n = write(server->wake_fd, &one, sizeof one); /* full means that it wakes anyway */

	(void)n;
}

void ruv_server_post(ruv_server *server, ruv_task *task)
{
	bool was_empty;

	pthread_mutex_lock(&server->lock);
	was_empty = !server->posted;
	task->next = NULL;
	*server->posted_last = task;
	server->posted_last = &task->next;
	pthread_mutex_unlock(&server->lock);
	if (was_empty)
		wake(server);
}

static bool is_idle(const ruv_server *server)
{
	if (__atomic_load_n(&server->n_exchanges, __ATOMIC_ACQUIRE))
		return false;
	for (const server_conn *conn = server->conns; conn; conn = conn->next)
		if (conn->busy)
			return false;
	return true;
}

static void begin_drain(ruv_server *server)
{
	server->draining = true;
	server->drain_until_ns = ruv_clock_now_ns() + (int64_t)server->options.drain_s * 1000000000;
	ruv_http_accepting(server, false);
	ruv_log(RUV_LOG_INFO, where, "stopping: %d requests are running", server->n_exchanges);
}

/* Ends what runs too long, and the loop when nothing runs. */
static void go_on_draining(ruv_server *server)
{
	const int64_t now = ruv_clock_now_ns();

	if (is_idle(server) || now > server->drain_until_ns + (int64_t)5000000000) {
		event_base_loopbreak(server->base);
		return;
	}
	if (now < server->drain_until_ns)
		return;
	for (server_conn *conn = server->conns; conn; conn = conn->next)
		if (conn->exchange) {
			ruv_cancel_set(&conn->exchange->cancel);
			shutdown(bufferevent_getfd(conn->bev), SHUT_RDWR);
		}
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	ruv_server *server = arg;
	ruv_task *task;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN)
		ruv_log(RUV_LOG_WARN, where, "eventfd: %s", strerror(errno));
	pthread_mutex_lock(&server->lock);
	task = server->posted;
	server->posted = NULL;
	server->posted_last = &server->posted;
	pthread_mutex_unlock(&server->lock);
	while (task) {
		ruv_task *next = task->next; /* the call may free or post it again */

		task->fn(task->arg);
		task = next;
	}
	if (__atomic_load_n(&server->stop, __ATOMIC_ACQUIRE) && !server->draining)
		begin_drain(server);
	if (server->draining)
		go_on_draining(server);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	ruv_server *server = arg;

	(void)fd, (void)what;
	ruv_http_sweep(server);
	if (server->draining)
		go_on_draining(server);
}

void ruv_server_stop(ruv_server *server)
{
	__atomic_store_n(&server->stop, 1, __ATOMIC_RELEASE);
	wake(server);
}

/* ---- workers ----------------------------------------------------------------------------------------------------------- */

static _Thread_local bool on_worker;

bool ruv_server_on_worker(void)
{
	return on_worker;
}

static void *work(void *arg)
{
	ruv_server *server = arg;
	worker_queue *queue = &server->queue;

	on_worker = true;
	pthread_mutex_lock(&queue->lock);
	for (;;) {
		ruv_task *task;

		while (!queue->first && !queue->closed)
			pthread_cond_wait(&queue->more, &queue->lock);
		task = queue->first;
		if (!task)
			break;
		queue->first = task->next;
		if (!queue->first)
			queue->last = &queue->first;
		queue->n--;
		queue->n_busy++;
		pthread_mutex_unlock(&queue->lock);
		task->fn(task->arg);
		pthread_mutex_lock(&queue->lock);
		queue->n_busy--;
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

static int start_workers(ruv_server *server, ruv_error *err)
{
	sigset_t all, old;
	int rc = RUV_OK;

	server->workers = calloc((size_t)server->options.n_workers, sizeof *server->workers);
	if (!server->workers)
		return ruv_fail_memory(err, where, (size_t)server->options.n_workers * sizeof *server->workers);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
	for (; server->n_workers < server->options.n_workers && !rc; server->n_workers++) {
		int e = pthread_create(&server->workers[server->n_workers], NULL, work, server);

		if (e) {
			rc = ruv_fail_errno(err, RUV_ELIMIT, e, where, "starting worker thread %d", server->n_workers + 1);
			break;
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

static void stop_workers(ruv_server *server)
{
	pthread_mutex_lock(&server->queue.lock);
	server->queue.closed = true;
	pthread_cond_broadcast(&server->queue.more);
	pthread_mutex_unlock(&server->queue.lock);
	for (int i = 0; i < server->n_workers; i++)
		pthread_join(server->workers[i], NULL);
	server->n_workers = 0;
}

/* ---- models ------------------------------------------------------------------------------------------------------------ */

/* "RuvLLM Nano L" -> "ruvllm-nano-l"; never empty, never with '/'. */
static void make_id(char *id, size_t cap, const char *name, const char *path)
{
	const char *base = strrchr(path, '/');
	size_t n = 0;

	for (const char *p = *name ? name : base ? base + 1 : path; *p && n + 1 < cap; p++) {
		unsigned char c = (unsigned char)*p;

		if (isalnum(c) || c == '.' || c == '_')
			id[n++] = (char)tolower(c);
		else if (n && id[n - 1] != '-')
			id[n++] = '-';
	}
	while (n && id[n - 1] == '-')
		n--;
	if (!n)
		id[n++] = 'm';
	id[n] = 0;
}

static int add_model(ruv_server *server, const char *name, bool must_be_there, ruv_error *err)
{
	ruv_served_model *served = &server->models[server->n_models];
	const ruv_model_options options = {.vocab_only = true};
	ruv_model_info info;
	ruv_model *model;
	struct stat st;
	int rc = ruv_runtime_find_model(server->runtime, name, served->path, sizeof served->path, must_be_there ? err : NULL);

	if (rc)
		return rc == RUV_ENOTFOUND && !must_be_there ? RUV_OK : rc;
	for (int i = 0; i < server->n_models; i++)
		if (!strcmp(server->models[i].path, served->path) && strcmp(name, "encoder"))
			return RUV_OK;
	if (strlen(name) >= sizeof served->name) {
		const char *base = strrchr(name, '/');

		name = base ? base + 1 : name;
	}
	snprintf(served->name, sizeof served->name, "%s", name);
	rc = ruv_model_open(&model, served->path, &options, err);
	if (rc)
		return rc;
	ruv_model_get_info(model, &info);
	make_id(served->id, sizeof served->id, info.name, served->path);
	ruv_model_free(model);
	for (int i = 0; i < server->n_models; i++)
		if (!strcmp(server->models[i].id, served->id)) {
			size_t n = strlen(served->id);

			snprintf(served->id + n, sizeof served->id - n, "-%d", i + 1);
		}
	served->is_encoder = !strcmp(name, "encoder");
	served->created_s = stat(served->path, &st) ? 0 : (int64_t)st.st_mtime;
	server->n_models++;
	return RUV_OK;
}

/* The tiers that are there, the configured generator, the encoder. */
static int find_models(ruv_server *server, ruv_error *err)
{
	const char *model = server->options.model;
	char path[4096];
	int rc = RUV_OK;

	for (const char *const *tier = (const char *const[]){"s", "m", "l", NULL}; *tier && !rc; tier++)
		rc = add_model(server, *tier, !strcmp(model, *tier), err);
	if (!rc)
		rc = add_model(server, model, true, err);
	if (!rc)
		rc = ruv_runtime_find_model(server->runtime, model, path, sizeof path, err);
	if (rc)
		return rc;
	for (int i = 0; i < server->n_models; i++)
		if (!strcmp(server->models[i].path, path))
			server->default_model = i;
	return add_model(server, "encoder", false, err);
}

const ruv_served_model *ruv_server_model_at(const ruv_server *server, int i)
{
	return i >= 0 && i < server->n_models ? &server->models[i] : NULL;
}

int ruv_server_model_find(const ruv_server *server, const char *name, const ruv_served_model **out, ruv_error *err)
{
	char list[400] = "";

	if (!name || !*name || !strcmp(name, "default") || !strcmp(name, "auto")) {
		*out = &server->models[server->default_model];
		return RUV_OK;
	}
	for (int i = 0; i < server->n_models; i++) {
		const ruv_served_model *served = &server->models[i];
		const char *base = strrchr(served->path, '/');

		base = base ? base + 1 : served->path;
		if (!strcasecmp(served->id, name) || !strcmp(served->name, name) || !strcmp(base, name)) {
			*out = served;
			return RUV_OK;
		}
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", served->id);
	}
	return ruv_fail(err, RUV_ENOTFOUND, where, "there is no model '%.100s' here; there are %s", name, list);
}

int ruv_server_model_acquire(ruv_server *server, const ruv_served_model *served, ruv_model **out, ruv_error *err)
{
	if (served->is_encoder)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s embeds texts; it cannot generate", served->id);
	return ruv_scheduler_acquire(server->scheduler, served->name, out, err);
}

ruv_scheduler *ruv_server_scheduler(const ruv_server *server)
{
	return server->scheduler;
}

const char *ruv_server_ask_model(ruv_server *server, const char *name, const ruv_served_model *served)
{
	ruv_router *router;

	if (!name || !*name || !strcmp(name, "default"))
		return NULL;
	if (!strcmp(name, "auto"))
		return ruv_runtime_router(server->runtime, &router, NULL) ? NULL : "auto";
	return served->name;
}

/* The memory with its vectors and their graph, where there is one: the first search then waits for neither. What is wrong with it
 * is no reason not to serve: requests that need it say so themselves. */
static void warm_memory(ruv_server *server)
{
	const int64_t began = ruv_clock_now_ns();
	ruv_memory_stats stats;
	ruv_memory *memory;
	ruv_error err = {0};
	int rc = ruv_runtime_memory_if_any(server->runtime, &memory, &err);

	if (rc == RUV_ENOTFOUND)
		return;
	if (!rc)
		rc = ruv_runtime_memory(server->runtime, &memory, &err);
	if (!rc)
		rc = ruv_memory_get_stats(memory, &stats, &err);
	if (!rc && stats.n_vectors)
		rc = ruv_memory_warm(memory, &err);
	if (rc)
		ruv_log(RUV_LOG_WARN, where, "the memory is not ready: %s", err.message);
	else
		ruv_log(RUV_LOG_INFO, where, "the memory with %lld vectors was read in %.1f s", (long long)stats.n_vectors,
		        (double)(ruv_clock_now_ns() - began) * 1e-9);
}

static bool goes_on(void *until, int64_t done, int64_t all)
{
	(void)done, (void)all;
	return ruv_clock_now_ns() < *(const int64_t *)until;
}

/* At the end: the graph's files are written as they are after what is pending was linked, so that the next start has them; what
 * takes longer than a drain may is left to it. */
static void save_index(ruv_server *server)
{
	int64_t until = ruv_clock_now_ns() + (int64_t)server->options.drain_s * 1000000000;
	ruv_memory_stats stats;
	ruv_memory *memory;
	ruv_error err = {0};
	int rc;

	if (ruv_runtime_memory_if_any(server->runtime, &memory, NULL) || ruv_memory_get_stats(memory, &stats, NULL) ||
	    !stats.index_by_graph) /* nothing was searched by vector, or there is no graph */
		return;
	rc = ruv_memory_index(memory, 0, false, goes_on, &until, &err);
	if (rc && rc != RUV_ECANCELLED && rc != RUV_EMISMATCH)
		ruv_log(RUV_LOG_WARN, where, "the vector index is not saved: %s", err.message);
}

/* On a worker at the start: what the first request would wait for. */
static void preload(void *arg)
{
	ruv_server *server = arg;
	const ruv_served_model *served = &server->models[server->default_model];
	ruv_error err = {0};
	ruv_embedder *embedder;
	ruv_model *model;
	int rc = ruv_server_model_acquire(server, served, &model, &err);

	if (!rc) {
		ruv_model_free(model);
		rc = ruv_runtime_embedder(server->runtime, &embedder, &err);
		if (rc == RUV_ENOTFOUND)
			rc = RUV_OK; /* a server may do without an encoder: memory then says so itself */
		else if (!rc)
			warm_memory(server);
	}
	pthread_mutex_lock(&server->lock);
	snprintf(server->not_ready, sizeof server->not_ready, "%s", rc ? err.message : "");
	pthread_mutex_unlock(&server->lock);
	if (rc)
		ruv_log(RUV_LOG_ERROR, where, "not ready: %s", err.message);
	__atomic_store_n(&server->ready, !rc, __ATOMIC_RELEASE);
}

/* ---- sockets ----------------------------------------------------------------------------------------------------------- */

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	ruv_server *server = arg;

	(void)listener;
	ruv_log(RUV_LOG_WARN, where, "a connection cannot be accepted: %s", strerror(errno));
	ruv_http_accepting(server, false); /* the sweep opens again */
}

/* Listens on fd, which is bound; owns it from here on. */
static int add_listener(ruv_server *server, int fd, const char *name, ruv_error *err)
{
	struct evconnlistener *listener = NULL;

	const int room = 256 << 10; /* unread answers lie in our buffers, where they are counted, not in the kernel's */

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	if (server->n_listeners < SERVER_MAX_LISTENERS && !evutil_make_socket_nonblocking(fd))
		listener = evconnlistener_new(server->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 512, fd);
	if (!listener) {
		int e = errno;

		close(fd);
		return ruv_fail_errno(err, RUV_EIO, e, where, "listening on %s", name);
	}
	evhttp_bind_listener(server->http, listener); /* frees it with evhttp */
	evconnlistener_set_error_cb(listener, on_accept_error);
	server->listeners[server->n_listeners++] = listener;
	return RUV_OK;
}

static int listen_tcp(ruv_server *server, ruv_error *err)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_ADDRCONFIG, .ai_socktype = SOCK_STREAM};
	const char *host = server->options.host;
	struct addrinfo *list = NULL;
	char port[16], name[128];
	int e, rc = RUV_OK;

	snprintf(port, sizeof port, "%d", server->options.port);
	e = getaddrinfo(host, port, &hints, &list);
	if (e)
		return ruv_fail(err, RUV_EINVAL, where, "the address '%s': %s", host, gai_strerror(e));
	snprintf(name, sizeof name, "%.100s:%s", host, port);
	for (struct addrinfo *a = list; a && !rc; a = a->ai_next) {
		struct sockaddr_storage bound = {0};
		socklen_t n = sizeof bound;
		int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			continue; /* no IPv6 here */
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (a->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
		if (bind(fd, a->ai_addr, a->ai_addrlen)) {
			rc = ruv_fail_errno(err, RUV_EIO, errno, where, "cannot listen on %s", name);
			close(fd);
			break;
		}
		if (!getsockname(fd, (struct sockaddr *)&bound, &n) && !server->port)
			server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
			                                                 : ((struct sockaddr_in *)&bound)->sin_port);
		rc = add_listener(server, fd, name, err);
		if (!server->options.port)
			break; /* any port: the first address alone */
	}
	freeaddrinfo(list);
	if (!rc && !server->n_listeners)
		rc = ruv_fail(err, RUV_EIO, where, "the address '%s' is none of this machine", host);
	return rc;
}

static int listen_unix(ruv_server *server, ruv_error *err)
{
	const char *path = server->options.socket;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, rc;

	if (strlen(path) >= sizeof address.sun_path)
		return ruv_fail(err, RUV_ELIMIT, where, "the socket's path '%s' has %zu bytes; at most %zu fit", path, strlen(path),
		                sizeof address.sun_path - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, where, "the socket %s", path);
	if (!stat(path, &st)) {
		bool stale =
		    S_ISSOCK(st.st_mode) && connect(fd, (struct sockaddr *)&address, sizeof address) && errno == ECONNREFUSED;

		if (!stale) {
			close(fd);
			return ruv_fail(err, RUV_EEXIST, where, "%s is there already%s", path,
			                S_ISSOCK(st.st_mode) ? " and somebody listens on it" : " and is no socket");
		}
		unlink(path);
	}
	mode_t old = umask(0177); /* the owner's alone from the first moment */

	rc = bind(fd, (struct sockaddr *)&address, sizeof address)
	         ? ruv_fail_errno(err, RUV_EIO, errno, where, "the socket %s", path)
	         : RUV_OK;
	umask(old);
	if (rc) {
		close(fd);
		return rc;
	}
	server->socket_path = strdup(path);
	return add_listener(server, fd, path, err);
}

static int open_tls(const ruv_server *server, void **out, ruv_error *err)
{
	const char *cert = server->options.tls_cert, *key = server->options.tls_key;
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	char reason[200] = "";

	if (!tls)
		return ruv_fail_memory(err, where, 0);
	SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(tls, cert) == 1 && SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) == 1 &&
	    SSL_CTX_check_private_key(tls) == 1) {
		*out = tls;
		return RUV_OK;
	}
	ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
	SSL_CTX_free(tls);
	return ruv_fail(err, RUV_EFORMAT, where, "the certificate %s with the key %s: %s", cert, key, reason);
}

/* ---- signals ----------------------------------------------------------------------------------------------------------- */

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	ruv_server *server = arg;
	ruv_error err = {0};

	(void)what;
	if (number != SIGHUP) {
		if (server->draining) /* the second time: at once */
			server->drain_until_ns = 0;
		__atomic_store_n(&server->stop, 1, __ATOMIC_RELEASE);
		wake(server);
		return;
	}
	if (server->options.keys_file) {
		ruv_auth *auth = NULL;

		if (ruv_auth_open(&auth, server->options.keys_file, &err)) {
			ruv_log(RUV_LOG_ERROR, where, "the keys stay as they were: %s", err.message);
		} else {
			ruv_auth_free(server->auth);
			server->auth = auth;
			ruv_log(RUV_LOG_INFO, where, "%d keys read again from %s", ruv_auth_n_keys(auth),
			        server->options.keys_file);
		}
	}
	if (server->tls) {
		void *tls = NULL;

		if (open_tls(server, &tls, &err)) {
			ruv_log(RUV_LOG_ERROR, where, "the certificate stays as it was: %s", err.message);
		} else {
			SSL_CTX_free(server->tls); /* connections hold their own */
			server->tls = tls;
			ruv_log(RUV_LOG_INFO, where, "certificate read again from %s", server->options.tls_cert);
		}
	}
}

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static const char *copy_text(ruv_server *server, const char *text)
{
	if (!text || !*text)
		return NULL;
	server->strings[server->n_strings] = strdup(text);
	return server->strings[server->n_strings] ? server->strings[server->n_strings++] : NULL;
}

static int take_options(ruv_server *server, const ruv_server_options *options, ruv_error *err)
{
	ruv_server_options *o = &server->options;
	struct rlimit files;

	*o = *options;
	o->host = copy_text(server, options->host ? options->host : "127.0.0.1");
	o->socket = copy_text(server, options->socket);
	o->keys_file = copy_text(server, options->keys_file);
	o->tls_cert = copy_text(server, options->tls_cert);
	o->tls_key = copy_text(server, options->tls_key);
	o->model = copy_text(server, options->model ? options->model : "l");
	if (!o->tls_cert != !o->tls_key)
		return ruv_fail(err, RUV_EINVAL, where, "TLS needs both a certificate and a key");
	if (o->port < 0 || o->port > 65535)
		return ruv_fail(err, RUV_EINVAL, where, "the port is %d; it must be from 0 to 65535", o->port);
	o->n_workers = o->n_workers ? o->n_workers : 16;
	o->max_connections = o->max_connections ? o->max_connections : 2048;
	o->max_queue = o->max_queue ? o->max_queue : 256;
	o->max_body_bytes = o->max_body_bytes ? o->max_body_bytes : 32 << 20;
	o->max_header_bytes = o->max_header_bytes ? o->max_header_bytes : 32 << 10;
	o->timeout_s = o->timeout_s ? o->timeout_s : 60;
	o->drain_s = o->drain_s ? o->drain_s : 30;
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
		if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur != RLIM_INFINITY &&
		    (int64_t)files.rlim_cur - 128 < o->max_connections)
			o->max_connections = files.rlim_cur > 256 ? (int)files.rlim_cur - 128 : 128;
	}
	return RUV_OK;
}

static int collect_routes(ruv_server *server, ruv_error *err)
{
	const char *names[512];
	int n = 0;

	for (int t = 0; t < N_TABLES; t++) {
		server->routes[server->n_tables++] = tables[t];
		for (const ruv_route *route = tables[t]; route->path && n < 512; route++)
			names[n++] = route->path;
	}
	return ruv_metrics_create(&server->metrics, names, n, err);
}

static int open_http(ruv_server *server, ruv_error *err)
{
	const struct timeval second = {.tv_sec = 1};
	const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	server->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	server->base = event_base_new();
	server->http = server->base ? evhttp_new(server->base) : NULL;
	if (server->wake_fd < 0 || !server->http)
		return ruv_fail(err, RUV_ENOMEM, where, "libevent cannot start");
	evhttp_set_allowed_methods(server->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
	                                             EVHTTP_REQ_PATCH | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
	evhttp_set_max_headers_size(server->http, server->options.max_header_bytes);
	/* Up to twice our limit is read and then refused in JSON; what is larger evhttp refuses itself. */
	evhttp_set_max_body_size(server->http, (ev_ssize_t)server->options.max_body_bytes * 2);
	evhttp_set_flags(server->http, EVHTTP_SERVER_LINGERING_CLOSE);
	evhttp_set_timeout(server->http, server->options.timeout_s);
	evhttp_set_default_content_type(server->http, NULL);
	evhttp_set_gencb(server->http, ruv_http_on_request, server);
	evhttp_set_bevcb(server->http, ruv_http_on_connection, server);
	server->wake = event_new(server->base, server->wake_fd, EV_READ | EV_PERSIST, on_wake, server);
	server->tick = event_new(server->base, -1, EV_PERSIST, on_tick, server);
	if (!server->wake || !server->tick || event_add(server->wake, NULL) || event_add(server->tick, &second))
		return ruv_fail_memory(err, where, 0);
	for (int i = 0; i < 3; i++) {
		server->signals[i] = evsignal_new(server->base, numbers[i], on_signal, server);
		if (!server->signals[i] || event_add(server->signals[i], NULL))
			return ruv_fail_memory(err, where, 0);
	}
	return RUV_OK;
}

int ruv_server_open(ruv_server **out, ruv_runtime *runtime, const ruv_server_options *options, ruv_error *err)
{
	ruv_server *server = calloc(1, sizeof *server);
	int rc;

	if (!server)
		return ruv_fail_memory(err, where, sizeof *server);
	pthread_mutex_init(&server->lock, NULL);
	pthread_mutex_init(&server->embed_lock, NULL);
	pthread_mutex_init(&server->queue.lock, NULL);
	pthread_cond_init(&server->queue.more, NULL);
	server->posted_last = &server->posted;
	server->queue.last = &server->queue.first;
	server->runtime = runtime;
	server->wake_fd = -1;
	server->accepting = true;
	server->started_ms = ruv_clock_wall_ms();
	snprintf(server->not_ready, sizeof server->not_ready, "models are being loaded");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error like a full disk */
	rc = take_options(server, options, err);
	if (!rc && server->options.keys_file)
		rc = ruv_auth_open(&server->auth, server->options.keys_file, err);
	if (!rc && server->options.tls_cert)
		rc = open_tls(server, &server->tls, err);
	if (!rc)
		rc = find_models(server, err);
	if (!rc)
		rc = ruv_runtime_scheduler(runtime, &server->scheduler, err);
	if (!rc)
		rc = ruv_decisions_create(&server->decisions, err);
	if (!rc)
		rc = collect_routes(server, err);
	if (!rc)
		rc = open_http(server, err);
	if (!rc)
		rc = listen_tcp(server, err);
	if (!rc && server->options.socket)
		rc = listen_unix(server, err);
	if (rc) {
		ruv_server_free(server);
		return rc;
	}
	*out = server;
	return RUV_OK;
}

int ruv_server_run(ruv_server *server, ruv_error *err)
{
	int rc;

	server->loop_thread = pthread_self();
	rc = start_workers(server, err);
	if (!rc) {
		server->preload = (ruv_task){.fn = preload, .arg = server};
		pthread_mutex_lock(&server->queue.lock);
		*server->queue.last = &server->preload;
		server->queue.last = &server->preload.next;
		server->queue.n++;
		pthread_cond_signal(&server->queue.more);
		pthread_mutex_unlock(&server->queue.lock);
		if (server->options.on_ready)
			server->options.on_ready(server->options.user, server);
		if (event_base_dispatch(server->base) < 0)
			rc = ruv_fail(err, RUV_EIO, where, "the event loop failed");
	}
	__atomic_store_n(&server->ready, false, __ATOMIC_RELEASE);
	stop_workers(server);
	/* What workers and the scheduler still had to say when the loop ended. */
	on_wake(server->wake_fd, 0, server);
	save_index(server);
	return rc;
}

void ruv_server_free(ruv_server *server)
{
	if (!server)
		return;
	stop_workers(server);
	if (server->http)
		evhttp_free(server->http); /* and its listeners */
	while (server->conns)
		ruv_http_conn_release(server->conns);
	for (int i = 0; i < 3; i++)
		if (server->signals[i])
			event_free(server->signals[i]);
	if (server->tick)
		event_free(server->tick);
	if (server->wake)
		event_free(server->wake);
	if (server->base)
		event_base_free(server->base);
	if (server->wake_fd >= 0)
		close(server->wake_fd);
	if (server->socket_path)
		unlink(server->socket_path);
	free(server->socket_path);
	ruv_embedder_free(server->embedder);
	SSL_CTX_free(server->tls);
	ruv_auth_free(server->auth);
	ruv_metrics_free(server->metrics);
	ruv_decisions_free(server->decisions);
	for (int i = 0; i < server->n_strings; i++)
		free(server->strings[i]);
	free(server->workers);
	pthread_cond_destroy(&server->queue.more);
	pthread_mutex_destroy(&server->queue.lock);
	pthread_mutex_destroy(&server->embed_lock);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

int ruv_server_port(const ruv_server *server)
{
	return server->port;
}

ruv_runtime *ruv_server_runtime(const ruv_server *server)
{
	return server->runtime;
}

const ruv_server_options *ruv_server_get_options(const ruv_server *server)
{
	return &server->options;
}

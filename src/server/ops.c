/* ops.c - what operators ask: is it alive, is it ready, what does it do. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/server_impl.h"

/* The process answers: nothing else is said. */
static void livez(ruv_exchange *exchange)
{
	ruv_exchange_reply(exchange, 200, "text/plain; charset=utf-8", "ok\n", 3);
}

static bool is_ready(ruv_server *server, char *why, size_t cap)
{
	if (server->draining) {
		snprintf(why, cap, "the server is shutting down");
		return false;
	}
	pthread_mutex_lock(&server->lock);
	snprintf(why, cap, "%s", server->not_ready);
	pthread_mutex_unlock(&server->lock);
	return __atomic_load_n(&server->ready, __ATOMIC_ACQUIRE);
}

/* Requests can be served: models are loaded and nothing shuts down. 503 with the reason otherwise. */
static void readyz(ruv_exchange *exchange)
{
	char why[520];
	bool ready = is_ready(ruv_exchange_server(exchange), why, sizeof why - 1);

	if (!ready)
		strcat(why, "\n");
	ruv_exchange_reply(exchange, ready ? 200 : 503, "text/plain; charset=utf-8", ready ? "ok\n" : why, ready ? 3 : strlen(why));
}

static void health(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	char why[520];
	bool ready = is_ready(server, why, sizeof why);

	ruv_exchange_reply_json(exchange, ready ? 200 : 503,
	                        json_pack("{s:s, s:s, s:s, s:f, s:i, s:i}", "status", ready ? "ok" : "unavailable", "reason",
	                                  ready ? "" : why, "version", ruv_version(), "uptime_seconds",
	                                  (double)(ruv_clock_wall_ms() - server->started_ms) * 1e-3, "requests_in_progress",
	                                  __atomic_load_n(&server->n_exchanges, __ATOMIC_RELAXED) - 1, "connections",
	                                  __atomic_load_n(&server->n_conns, __ATOMIC_RELAXED)));
}

static void metrics(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	char *text = ruv_metrics_text(server->metrics, server);

	if (!text)
		ruv_exchange_failf(exchange, 503, "server_error", NULL, NULL, "memory is out");
	else
		ruv_exchange_reply(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", text, strlen(text));
	free(text);
}

const ruv_route ruv_routes_ops[] = {
    {RUV_GET, "/livez", livez, 0, RUV_ROUTE_OPEN | RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {RUV_GET, "/readyz", readyz, 0, RUV_ROUTE_OPEN | RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {RUV_GET, "/health", health, 0, RUV_ROUTE_OPEN | RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {RUV_GET, "/metrics", metrics, RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {0},
};

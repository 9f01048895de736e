/* trace.c - a span for each request, part of its caller's trace where a traceparent header says so (ruvllm/trace.h); the work for
 * it hangs below (ruv_exchange_trace). Routes that the event loop answers itself (health, metrics, the page) have none. Threads:
 * begin and end on the event-loop thread. Layer: server. */
#include "server/server_impl.h"

#include <stdio.h>

void ruv_exchange_trace_begin(ruv_exchange *exchange)
{
	ruv_trace_context caller;

	if (!ruv_runtime_tracer(exchange->server->runtime))
		return;
	ruv_trace_parse(&caller, ruv_exchange_header(exchange, "traceparent"));
	ruv_trace_span_begin(&exchange->span, &caller, "request", RUV_SPAN_SERVER);
}

const ruv_trace_context *ruv_exchange_trace(const ruv_exchange *exchange)
{
	return exchange->span.self.valid ? &exchange->span.self : NULL;
}

void ruv_exchange_trace_end(ruv_exchange *exchange, const char *method, int status)
{
	ruv_trace_span *span = &exchange->span;
	char name[200];

	if (!span->self.valid || !exchange->route || (exchange->route->flags & RUV_ROUTE_INLINE))
		return;
	ruv_trace_span_end(span);
	snprintf(name, sizeof name, "%s %s", method, exchange->route->path);
	span->name = name;
	ruv_trace_span_text(span, "http.request.method", method);
	ruv_trace_span_text(span, "http.route", exchange->route->path);
	ruv_trace_span_whole(span, "http.response.status_code", status);
	ruv_trace_span_text(span, "ruvllm.request_id", exchange->id);
	if (*exchange->model) {
		ruv_trace_span_text(span, "gen_ai.request.model", exchange->model);
		ruv_trace_span_whole(span, "gen_ai.usage.input_tokens", exchange->n_prompt);
		ruv_trace_span_whole(span, "ruvllm.cached_tokens", exchange->n_cached);
		ruv_trace_span_whole(span, "gen_ai.usage.output_tokens", exchange->n_output);
	}
	if (status >= 500)
		span->failure = "server error";
	ruv_tracer_add(ruv_runtime_tracer(exchange->server->runtime), span);
}

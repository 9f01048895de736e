/* trace.h - traces of what is done, sent to an OpenTelemetry collector: OTLP over HTTP with JSON bodies, POST ENDPOINT/v1/traces.
 *
 * A span is one piece of work with a name, a beginning and an end; spans of one trace share its id and point at the span that they
 * are part of. The ids come from the caller's W3C traceparent header where there is one; a caller who does not sample its trace has
 * ours left out as well. Spans hold names, counts and times, never what was asked or answered.
 *
 * Finished spans go into a queue of bounded length; one that finds it full is dropped and counted. A thread of the tracer's sends
 * what is there every second, or as soon as it is many. A collector that is busy or away is tried again a few times; then the batch
 * is dropped and counted, and a warning is logged.
 *
 * Threads: any, on one tracer. Source: OpenTelemetry Protocol 1.x, W3C Trace Context. */
#ifndef RUVLLM_TRACE_H
#define RUVLLM_TRACE_H

#include "ruvllm/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ruv_tracer ruv_tracer;

/* Where a span belongs. Zeroed: nowhere, which begins a trace of its own. */
typedef struct ruv_trace_context {
	unsigned char trace_id[16], span_id[8];
	bool valid, sampled;
} ruv_trace_context;

/* Reads a traceparent header ("00-<32 hex>-<16 hex>-<2 hex>"); false, with *context zeroed, when it is none (NULL is none). */
RUV_API bool ruv_trace_parse(ruv_trace_context *context, const char *traceparent);

enum { RUV_SPAN_MAX_ATTRIBUTES = 16 };

typedef enum ruv_trace_span_kind {
	RUV_SPAN_INTERNAL = 1,
	RUV_SPAN_SERVER = 2,
	RUV_SPAN_CLIENT = 3
} ruv_trace_span_kind; /* OTLP's numbers */

/* One attribute: a text where `text` is set, else a number (whole when `real` is NaN). */
typedef struct ruv_trace_span_attribute {
	const char *key, *text;
	int64_t whole;
	double real;
} ruv_trace_span_attribute;

typedef struct ruv_trace_span {
	ruv_trace_context self;
	unsigned char parent_id[8]; /* zero: none */
	const char *name;
	ruv_trace_span_kind kind;
	int64_t start_ns, end_ns; /* of the monotonic clock, as ruv_trace_span_begin and ruv_trace_span_end take it */
	const char *failure;      /* NULL: it went well or nobody says */
	ruv_trace_span_attribute attributes[RUV_SPAN_MAX_ATTRIBUTES];
	int n_attributes;
} ruv_trace_span;

/* Starts now, with an id of its own, below `parent` (NULL or zeroed: a trace of its own). Costs next to nothing; names and texts
 * must live until ruv_tracer_add. */
RUV_API void ruv_trace_span_begin(ruv_trace_span *span, const ruv_trace_context *parent, const char *name,
                                  ruv_trace_span_kind kind);
/* A span below `parent` that began at start_ns and took `ms`. */
RUV_API void ruv_trace_span_make(ruv_trace_span *span, const ruv_trace_context *parent, const char *name, int64_t start_ns,
                                 double ms);
/* Appends an attribute; those beyond the 16th are left out. A NULL text is left out. */
RUV_API void ruv_trace_span_text(ruv_trace_span *span, const char *key, const char *text);
RUV_API void ruv_trace_span_whole(ruv_trace_span *span, const char *key, int64_t value);
RUV_API void ruv_trace_span_real(ruv_trace_span *span, const char *key, double value);
/* Ends it now. */
RUV_API void ruv_trace_span_end(ruv_trace_span *span);

/* `endpoint`: "http://localhost:4318"; /v1/traces is appended unless it is there. $OTEL_EXPORTER_OTLP_HEADERS ("name=value,...") is
 * sent along. RUV_EINVAL: no http or https address. */
RUV_API int ruv_tracer_create(ruv_tracer **out, const char *endpoint, ruv_error *err);
/* Sends what is left, for five seconds at most. NULL is fine. */
RUV_API void ruv_tracer_free(ruv_tracer *tracer);
/* Queues a copy, unless its trace is not sampled. NULL: nothing happens. Never waits for the network. */
RUV_API void ruv_tracer_add(ruv_tracer *tracer, const ruv_trace_span *span);

typedef struct ruv_tracer_stats {
	int64_t n_sent, n_dropped, n_queued;
} ruv_tracer_stats;
/* Of spans. NULL: all zero. */
RUV_API void ruv_tracer_get_stats(const ruv_tracer *tracer, ruv_tracer_stats *stats);

#ifdef __cplusplus
}
#endif
#endif

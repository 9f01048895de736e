/* trace.c - OTLP/HTTP in JSON: see ruvllm/trace.h.
 *
 * A finished span becomes its JSON text on the thread that finished it (some microseconds) and waits in a ring of MAX_QUEUED; the
 * sender takes up to MAX_BATCH of them, wraps them in one ExportTraceServiceRequest and posts it. 429, 502, 503, 504 and a failing
 * connection are tried again after 1, 2 and 4 seconds; any other answer than 2xx drops the batch. Layer: runtime. */
#include "ruvllm/trace.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"
#include "runtime/http_client.h"

#define WHERE "trace"

enum { MAX_QUEUED = 4096, MAX_BATCH = 512, SEND_AT = 256, MAX_TRIES = 4, FREE_WAIT_S = 5, MAX_HEADERS = 8 };

struct ruv_tracer {
	char *url;
	char *headers[MAX_HEADERS + 1];
	int n_headers;
	char *head;              /* what stands before the spans */
	pthread_mutex_t lock;    /* of what follows */
	pthread_cond_t wake;     /* something to send, or the end */
	char *queue[MAX_QUEUED]; /* ring of JSON texts */
	int first, n;
	bool ending;
	int64_t end_by_ns; /* when ending */
	pthread_t thread;
	ruv_cancel cancel;
	_Atomic int64_t n_sent, n_dropped;
	int64_t warned_ns; /* the sender's alone */
};

/* ---- ids --------------------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; /* capitals are not allowed */
}

static bool read_hex(unsigned char *out, int n, const char *text)
{
	unsigned char any = 0;

	for (int i = 0; i < n; i++) {
		int high = hex_digit(text[2 * i]), low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);

		if (low < 0)
			return false;
		out[i] = (unsigned char)(high << 4 | low);
		any |= out[i];
	}
	return any != 0;
}

static void put_hex(char *text, const unsigned char *bytes, int n)
{
	for (int i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

bool ruv_trace_parse(ruv_trace_context *context, const char *traceparent)
{
	unsigned char version, flags;
	size_t n = traceparent ? strlen(traceparent) : 0;

	memset(context, 0, sizeof *context);
	/* A later version may append fields behind a dash; ff is none. */
	if (n < 55 || traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' || !strncmp(traceparent, "ff", 2) ||
	    (n > 55 && (!strncmp(traceparent, "00", 2) || traceparent[55] != '-')))
		return false;
	read_hex(&version, 1, traceparent); /* zero is fine here */
	if (hex_digit(traceparent[0]) < 0 || hex_digit(traceparent[1]) < 0 || hex_digit(traceparent[53]) < 0 ||
	    hex_digit(traceparent[54]) < 0)
		return false;
	flags = (unsigned char)(hex_digit(traceparent[53]) << 4 | hex_digit(traceparent[54]));
	if (!read_hex(context->trace_id, 16, traceparent + 3) || !read_hex(context->span_id, 8, traceparent + 36)) {
		memset(context, 0, sizeof *context);
		return false;
	}
	context->valid = true;
	context->sampled = flags & 1;
	return true;
}

static void make_ids(ruv_trace_context *context, const ruv_trace_context *parent)
{
	ruv_uuid trace = ruv_uuid_make(), span = ruv_uuid_make();

	if (parent && parent->valid) {
		*context = *parent;
	} else {
		memcpy(context->trace_id, &trace, 16);
		context->valid = context->sampled = true;
	}
	memcpy(context->span_id, (const unsigned char *)&span + 8, 8); /* the random half */
}

/* ---- spans ------------------------------------------------------------------------------------------------------------- */

void ruv_trace_span_begin(ruv_trace_span *span, const ruv_trace_context *parent, const char *name, ruv_trace_span_kind kind)
{
	memset(span, 0, sizeof *span);
	make_ids(&span->self, parent);
	if (parent && parent->valid)
		memcpy(span->parent_id, parent->span_id, 8);
	span->name = name;
	span->kind = kind;
	span->start_ns = ruv_clock_now_ns();
}

void ruv_trace_span_make(ruv_trace_span *span, const ruv_trace_context *parent, const char *name, int64_t start_ns, double ms)
{
	ruv_trace_span_begin(span, parent, name, RUV_SPAN_INTERNAL);
	span->start_ns = start_ns;
	span->end_ns = start_ns + (int64_t)(ms * 1e6);
}

static ruv_trace_span_attribute *add_attribute(ruv_trace_span *span, const char *key)
{
	static _Thread_local ruv_trace_span_attribute beyond;
	ruv_trace_span_attribute *a =
	    span->n_attributes < RUV_SPAN_MAX_ATTRIBUTES ? &span->attributes[span->n_attributes++] : &beyond;

	*a = (ruv_trace_span_attribute){.key = key, .real = NAN};
	return a;
}

void ruv_trace_span_text(ruv_trace_span *span, const char *key, const char *text)
{
	if (text)
		add_attribute(span, key)->text = text;
}

void ruv_trace_span_whole(ruv_trace_span *span, const char *key, int64_t value)
{
	add_attribute(span, key)->whole = value;
}

void ruv_trace_span_real(ruv_trace_span *span, const char *key, double value)
{
	if (isfinite(value))
		add_attribute(span, key)->real = value;
}

void ruv_trace_span_end(ruv_trace_span *span)
{
	span->end_ns = ruv_clock_now_ns();
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

/* 64-bit numbers are texts in OTLP's JSON. */
static json_t *whole_json(int64_t value)
{
	return json_sprintf("%" PRId64, value);
}

static json_t *attribute_json(const ruv_trace_span_attribute *a)
{
	json_t *value = a->text          ? json_pack("{s:s?}", "stringValue", a->text)
	                : isnan(a->real) ? json_pack("{s:o}", "intValue", whole_json(a->whole))
	                                 : json_pack("{s:f}", "doubleValue", a->real);

	return value ? json_pack("{s:s, s:o}", "key", a->key, "value", value) : NULL; /* NULL: no UTF-8 */
}

static char *span_text(const ruv_trace_span *span)
{
	static const unsigned char none[8];
	const int64_t to_wall = ruv_clock_wall_ms() * 1000000 - ruv_clock_now_ns();
	char trace[33], self[17], parent[17] = "";
	json_t *attributes = json_array(), *object;
	char *text;

	put_hex(trace, span->self.trace_id, 16);
	put_hex(self, span->self.span_id, 8);
	if (memcmp(span->parent_id, none, 8))
		put_hex(parent, span->parent_id, 8);
	for (int i = 0; i < span->n_attributes; i++) {
		json_t *attribute = attribute_json(&span->attributes[i]);

		if (attribute)
			json_array_append_new(attributes, attribute);
	}
	object =
	    json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:i}", "traceId", trace, "spanId", self, "parentSpanId", parent,
	              "name", span->name, "kind", (int)span->kind, "startTimeUnixNano", whole_json(span->start_ns + to_wall),
	              "endTimeUnixNano", whole_json(span->end_ns + to_wall), "attributes", attributes, "flags", 1);
	if (object && !*parent)
		json_object_del(object, "parentSpanId");
	if (object && span->failure)
		json_object_set_new(object, "status", json_pack("{s:i, s:s?}", "code", 2, "message", span->failure));
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return text;
}

/* Everything before the spans; what is behind them is TAIL. */
static const char TAIL[] = "]}]}]}";

static char *make_head(void)
{
	char host[256] = "", instance[300];
	char *text = NULL, *list = NULL;

	gethostname(host, sizeof host - 1);
	snprintf(instance, sizeof instance, "%s-%ld", host, (long)getpid());
	const ruv_trace_span_attribute resource[] = {{"service.name", "ruvllm", 0, 0},
	                                             {"service.version", ruv_version(), 0, 0},
	                                             {"service.instance.id", instance, 0, 0},
	                                             {"host.name", host, 0, 0}};
	json_t *attributes = json_array();

	for (size_t i = 0; i < sizeof resource / sizeof *resource; i++)
		json_array_append_new(attributes, attribute_json(&resource[i]));
	list = json_dumps(attributes, JSON_COMPACT);
	if (list &&
	    asprintf(&text,
	             "{\"resourceSpans\":[{\"resource\":{\"attributes\":%s},\"scopeSpans\":[{\"scope\":{\"name\":\"ruvllm\","
	             "\"version\":\"%s\"},\"spans\":[",
	             list, ruv_version()) < 0)
		text = NULL;
	free(list);
	json_decref(attributes);
	return text;
}

/* ---- sending ----------------------------------------------------------------------------------------------------------- */

static void warn(ruv_tracer *t, const char *why, int n_lost)
{
	int64_t now = ruv_clock_now_ns();

	if (t->warned_ns && now - t->warned_ns < INT64_C(60000000000))
		return;
	t->warned_ns = now;
	ruv_log(RUV_LOG_WARN, WHERE, "%d spans are lost (%lld so far): %s", n_lost, (long long)(t->n_dropped + n_lost), why);
}

/* Waits `seconds` or until the end is near; false: give up. */
static bool wait_to_retry(ruv_tracer *t, int seconds)
{
	struct timespec until;
	bool go_on;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&t->lock);
	while (!t->ending && pthread_cond_timedwait(&t->wake, &t->lock, &until) == 0)
		; /* spans that were added wait */
	go_on = !t->ending;
	pthread_mutex_unlock(&t->lock);
	return go_on;
}

static void send_batch(ruv_tracer *t, ruv_http_client *client, char **spans, int n)
{
	ruv_buf body, answer;
	bool sent = false;
	char why[600] = "";

	ruv_buf_init(&body, (size_t)64 << 20);
	ruv_buf_init(&answer, (size_t)1 << 20);
	ruv_buf_puts(&body, t->head);
	for (int i = 0; i < n; i++) {
		ruv_buf_printf(&body, "%s%s", i ? "," : "", spans[i]);
		free(spans[i]);
	}
	ruv_buf_puts(&body, TAIL);
	for (int i = 0; !sent && i < MAX_TRIES && !body.failed; i++) {
		ruv_http_request request = {.url = t->url,
		                            .headers = (const char *const *)t->headers,
		                            .n_headers = t->n_headers,
		                            .body = body.data,
		                            .n_body = body.len,
		                            .stays = true,
		                            .timeout_s = FREE_WAIT_S,
		                            .cancel = &t->cancel};
		ruv_http_reply reply;
		ruv_error err = {0};
		int rc;

		if (i && !wait_to_retry(t, 1 << (i - 1)))
			break;
		ruv_buf_clear(&answer);
		rc = ruv_http_fetch(client, &request, &reply, &answer, &err);
		sent = !rc && reply.status >= 200 && reply.status < 300;
		if (rc)
			snprintf(why, sizeof why, "%s", err.message);
		else
			snprintf(why, sizeof why, "%s answers %d", t->url, reply.status);
		bool again =
		    rc ? rc == RUV_EBUSY : reply.status == 429 || reply.status == 502 || reply.status == 503 || reply.status == 504;

		ruv_http_reply_release(&reply);
		if (!sent && !again)
			break;
	}
	if (sent) {
		t->n_sent += n;
	} else {
		warn(t, *why ? why : "memory is out", n);
		t->n_dropped += n;
	}
	ruv_buf_release(&body);
	ruv_buf_release(&answer);
}

static void *sender(void *arg)
{
	ruv_tracer *t = arg;
	ruv_http_client *client = NULL;
	char *batch[MAX_BATCH];
	bool ending = false;

	if (ruv_http_client_create(&client, NULL))
		client = NULL; /* each request makes one then, and says why it cannot */
	while (!ending) {
		struct timespec until;
		int n = 0;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
		pthread_mutex_lock(&t->lock);
		while (!t->ending && t->n < SEND_AT && pthread_cond_timedwait(&t->wake, &t->lock, &until) == 0)
			;
		while (n < MAX_BATCH && t->n) {
			batch[n++] = t->queue[t->first];
			t->first = (t->first + 1) % MAX_QUEUED;
			t->n--;
		}
		ending = t->ending && (t->n == 0 || ruv_clock_now_ns() > t->end_by_ns);
		pthread_mutex_unlock(&t->lock);
		if (n)
			send_batch(t, client, batch, n);
	}
	ruv_http_client_free(client);
	return NULL;
}

/* ---- the tracer -------------------------------------------------------------------------------------------------------- */

/* "name=value,name=value" as header lines. */
static int take_headers(ruv_tracer *t, ruv_error *err)
{
	const char *p = getenv("OTEL_EXPORTER_OTLP_HEADERS");

	t->headers[t->n_headers++] = strdup("Content-Type: application/json");
	while (p && *p) {
		size_t n = strcspn(p, ",");
		const char *equals = memchr(p, '=', n);

		if (!equals || memchr(p, '\n', n) || memchr(p, '\r', n))
			return ruv_fail(err, RUV_EINVAL, WHERE, "OTEL_EXPORTER_OTLP_HEADERS is not 'name=value,...'");
		if (t->n_headers > MAX_HEADERS)
			return ruv_fail(err, RUV_ELIMIT, WHERE, "OTEL_EXPORTER_OTLP_HEADERS has more than %d headers", MAX_HEADERS);
		if (asprintf(&t->headers[t->n_headers], "%.*s: %.*s", (int)(equals - p), p, (int)(p + n - equals - 1), equals + 1) <
		    0) {
			t->headers[t->n_headers] = NULL;
			return ruv_fail_memory(err, WHERE, n);
		}
		t->n_headers++;
		p += n + (p[n] == ',');
	}
	return t->headers[0] ? RUV_OK : ruv_fail_memory(err, WHERE, 40);
}

static void free_memory(ruv_tracer *t)
{
	for (; t->n; t->n--) {
		free(t->queue[t->first]);
		t->first = (t->first + 1) % MAX_QUEUED;
	}
	for (int i = 0; i < t->n_headers; i++)
		free(t->headers[i]);
	free(t->head);
	free(t->url);
	free(t);
}

int ruv_tracer_create(ruv_tracer **out, const char *endpoint, ruv_error *err)
{
	static const char path[] = "/v1/traces";
	ruv_tracer *t = calloc(1, sizeof *t);
	size_t n = strlen(endpoint);
	pthread_condattr_t monotonic;
	sigset_t all, before;
	int rc;

	if (!t)
		return ruv_fail_memory(err, WHERE, sizeof *t);
	while (n && endpoint[n - 1] == '/')
		n--;
	bool has_path = n >= sizeof path - 1 && !strncmp(endpoint + n - (sizeof path - 1), path, sizeof path - 1);

	if (asprintf(&t->url, "%.*s%s", (int)n, endpoint, has_path ? "" : path) < 0)
		t->url = NULL;
	t->head = make_head();
	rc = t->url && t->head ? take_headers(t, err) : ruv_fail_memory(err, WHERE, 1000);
	if (!rc && strncmp(endpoint, "http://", 7) && strncmp(endpoint, "https://", 8))
		rc = ruv_fail(err, RUV_EINVAL, WHERE, "otlp-endpoint is '%.200s', which is no http or https address", endpoint);
	if (rc) {
		free_memory(t);
		return rc;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&t->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	sigfillset(&all); /* signals are for the program's own threads */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&t->thread, NULL, sender, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		rc = ruv_fail_errno(err, RUV_ENOMEM, rc, WHERE, "the sender's thread does not start");
		pthread_cond_destroy(&t->wake);
		pthread_mutex_destroy(&t->lock);
		free_memory(t);
		return rc;
	}
	*out = t;
	return RUV_OK;
}

void ruv_tracer_free(ruv_tracer *tracer)
{
	if (!tracer)
		return;
	pthread_mutex_lock(&tracer->lock);
	tracer->ending = true;
	tracer->end_by_ns = ruv_clock_now_ns() + (int64_t)FREE_WAIT_S * 1000000000;
	pthread_cond_broadcast(&tracer->wake);
	pthread_mutex_unlock(&tracer->lock);
	pthread_join(tracer->thread, NULL);
	if (tracer->n)
		ruv_log(RUV_LOG_WARN, WHERE, "%d spans were not sent before the end", tracer->n);
	pthread_cond_destroy(&tracer->wake);
	pthread_mutex_destroy(&tracer->lock);
	free_memory(tracer);
}

void ruv_tracer_add(ruv_tracer *tracer, const ruv_trace_span *span)
{
	char *text = tracer && span->self.sampled ? span_text(span) : NULL;
	bool taken = false;

	if (!tracer || !span->self.sampled)
		return;
	pthread_mutex_lock(&tracer->lock);
	if (text && tracer->n < MAX_QUEUED) {
		tracer->queue[(tracer->first + tracer->n++) % MAX_QUEUED] = text;
		taken = true;
		if (tracer->n >= SEND_AT)
			pthread_cond_signal(&tracer->wake);
	}
	pthread_mutex_unlock(&tracer->lock);
	if (!taken) {
		free(text);
		tracer->n_dropped++;
	}
}

void ruv_tracer_get_stats(const ruv_tracer *tracer, ruv_tracer_stats *stats)
{
	memset(stats, 0, sizeof *stats);
	if (!tracer)
		return;
	stats->n_sent = tracer->n_sent;
	stats->n_dropped = tracer->n_dropped;
	pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&tracer->lock);
	stats->n_queued = tracer->n;
	pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&tracer->lock);
}

/* http_reply.c - the endpoint's side of an exchange: answers, failures in the client's own shape, streams; and reading JSON.
 *
 * Whatever is written here goes into the exchange's buffer and is handed to evhttp by the event-loop thread (http.c, flush), so
 * that these functions may be called from any thread. A thread that is not the event loop's waits while a slow reader leaves more
 * than MAX_AHEAD bytes. Layer: server. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "server/server_impl.h"

enum { MAX_AHEAD = 256 << 10 };

/* ---- finishing --------------------------------------------------------------------------------------------------------- */

/* With the lock held: has the loop look at it. */
static void post_flush(ruv_exchange *exchange)
{
	if (exchange->queued)
		return;
	exchange->queued = true;
	ruv_server_post(exchange->server, &exchange->flush);
}

static void finish(ruv_exchange *exchange)
{
	pthread_mutex_lock(&exchange->lock);
	exchange->finished = true;
	exchange->on_gone = NULL;
	post_flush(exchange);
	pthread_mutex_unlock(&exchange->lock); /* from here on it is the loop's */
}

void ruv_exchange_set_header(ruv_exchange *exchange, const char *name, const char *value)
{
	exchange_header *header;

	for (int i = 0; i < exchange->n_headers; i++)
		if (!strcasecmp(exchange->headers[i].name, name)) {
			char *copy = strdup(value);

			if (copy) {
				free(exchange->headers[i].value);
				exchange->headers[i].value = copy;
			}
			return;
		}
	if (exchange->n_headers == EXCHANGE_MAX_HEADERS)
		return;
	header = &exchange->headers[exchange->n_headers];
	header->name = strdup(name);
	header->value = strdup(value);
	if (header->name && header->value) {
		exchange->n_headers++;
	} else {
		free(header->name);
		free(header->value);
	}
}

void ruv_exchange_reply(ruv_exchange *exchange, int status, const char *content_type, const void *bytes, size_t n)
{
	if (content_type)
		ruv_exchange_set_header(exchange, "Content-Type", content_type);
	exchange->status = status;
	if (n && evbuffer_add(exchange->out, bytes, n)) {
		exchange->status = 503;
		evbuffer_drain(exchange->out, evbuffer_get_length(exchange->out));
	}
	finish(exchange);
}

static void free_text(const void *data, size_t n, void *text)
{
	(void)data, (void)n;
	free(text);
}

void ruv_exchange_reply_json(ruv_exchange *exchange, int status, json_t *value)
{
	static const char no_memory[] = "{\"error\":{\"message\":\"memory is out\"}}";
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	json_decref(value);
	if (text && !evbuffer_add_reference(exchange->out, text, strlen(text), free_text, text)) {
		ruv_exchange_set_header(exchange, "Content-Type", "application/json");
		exchange->status = status;
		finish(exchange);
		return;
	}
	free(text);
	ruv_exchange_reply(exchange, 503, "application/json", no_memory, sizeof no_memory - 1);
}

/* ---- failing ----------------------------------------------------------------------------------------------------------- */

/* What a status of ours is in HTTP, in OpenAI's words, and in a word of its own. */
static const struct failure {
	int code, http;
	const char *type, *name;
} failures[] = {
    {RUV_EINVAL, 400, "invalid_request_error", NULL},
    {RUV_EFORMAT, 400, "invalid_request_error", "invalid_format"},
    {RUV_EUNSUPPORTED, 400, "invalid_request_error", "unsupported"},
    {RUV_ENOTFOUND, 404, "invalid_request_error", "not_found"},
    {RUV_EEXIST, 409, "invalid_request_error", "exists"},
    {RUV_ELIMIT, 400, "invalid_request_error", "limit_exceeded"},
    {RUV_ECONTEXT, 400, "invalid_request_error", "context_length_exceeded"},
    {RUV_EMISMATCH, 409, "invalid_request_error", "mismatch"},
    {RUV_EBUSY, 429, "rate_limit_error", "server_busy"},
    {RUV_ECANCELLED, 499, "cancelled", "cancelled"},
    {RUV_ENOMEM, 503, "server_error", "out_of_memory"},
    {RUV_EIO, 500, "server_error", "io_error"},
    {RUV_ECORRUPT, 500, "server_error", "corrupt"},
};

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

/* Anthropic's words for a status. */
static const char *anthropic_type(int status)
{
	switch (status) {
	case 401:
		return "authentication_error";
	case 403:
		return "permission_error";
	case 404:
		return "not_found_error";
	case 413:
		return "request_too_large";
	case 429:
		return "rate_limit_error";
	case 503:
		return "overloaded_error";
	default:
		return status >= 500 ? "api_error" : "invalid_request_error";
	}
}

static json_t *error_body(const ruv_exchange *exchange, int status, const char *type, const char *code, const char *param,
                          const char *message)
{
	json_t *text = ruv_json_string(message, strlen(message));

	switch (exchange->errors) {
	case RUV_ERRORS_ANTHROPIC:
		return json_pack("{s:s, s:{s:s, s:o}, s:s}", "type", "error", "error", "type", anthropic_type(status), "message",
		                 text, "request_id", exchange->id);
	case RUV_ERRORS_OLLAMA:
		return json_pack("{s:o}", "error", text);
	default:
		return json_pack("{s:{s:o, s:s, s:o, s:o}}", "error", "message", text, "type", type, "param", text_or_null(param),
		                 "code", text_or_null(code));
	}
}

static void fail(ruv_exchange *exchange, int status, const char *type, const char *code, const char *param, const char *message)
{
	json_t *body = error_body(exchange, status, type, code, param, message);

	if (!exchange->stream) {
		ruv_exchange_reply_json(exchange, status, body);
		return;
	}
	exchange->status = status; /* too late for the client; the log and the metrics say it */
	if (exchange->errors == RUV_ERRORS_OLLAMA)
		ruv_exchange_line(exchange, body);
	else
		ruv_exchange_event(exchange, exchange->errors == RUV_ERRORS_ANTHROPIC ? "error" : NULL, body);
	ruv_exchange_end(exchange);
}

void ruv_exchange_fail(ruv_exchange *exchange, const ruv_error *err, const char *param)
{
	struct failure f = {err->code, 500, "server_error", "internal_error"};

	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
		if (failures[i].code == err->code)
			f = failures[i];
	if (f.code == RUV_ENOTFOUND && param && !strcmp(param, "model"))
		f.name = "model_not_found";
	if (f.code == RUV_EBUSY && !exchange->stream) {
		char seconds[16];
		int ms = exchange->server->scheduler ? ruv_scheduler_retry_after_ms(exchange->server->scheduler) : 1000;

		snprintf(seconds, sizeof seconds, "%d", (ms + 999) / 1000);
		ruv_exchange_set_header(exchange, "Retry-After", seconds);
	}
	fail(exchange, f.http, f.type, f.name, param, *err->message ? err->message : ruv_status_text(err->code));
}

void ruv_exchange_finish(ruv_exchange *exchange, int rc, const ruv_error *err, const char *param, json_t *body, json_t *result)
{
	if (rc) {
		ruv_exchange_fail(exchange, err, param);
		json_decref(result);
	} else {
		ruv_exchange_reply_json(exchange, 200, result);
	}
	json_decref(body);
}

void ruv_exchange_failf(ruv_exchange *exchange, int status, const char *type, const char *code, const char *param, const char *fmt,
                        ...)
{
	char message[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	fail(exchange, status, type, code, param, message);
}

void ruv_exchange_busy(ruv_exchange *exchange, int retry_after_s, const char *what)
{
	char seconds[16];

	snprintf(seconds, sizeof seconds, "%d", retry_after_s);
	ruv_exchange_set_header(exchange, "Retry-After", seconds);
	ruv_exchange_failf(exchange, 429, "rate_limit_error", "server_busy", NULL,
	                   "the server's queue of %s is full; try again in %d s", what, retry_after_s);
}

/* ---- streaming --------------------------------------------------------------------------------------------------------- */

void ruv_exchange_begin(ruv_exchange *exchange, const char *content_type)
{
	ruv_exchange_set_header(exchange, "Content-Type", content_type);
	ruv_exchange_set_header(exchange, "Cache-Control", "no-cache");
	ruv_exchange_set_header(exchange, "X-Accel-Buffering", "no"); /* proxies: pass it on at once */
	pthread_mutex_lock(&exchange->lock);
	exchange->status = 200;
	exchange->stream = true;
	post_flush(exchange);
	pthread_mutex_unlock(&exchange->lock);
}

bool ruv_exchange_has_begun(const ruv_exchange *exchange)
{
	return exchange->stream;
}

int ruv_exchange_write(ruv_exchange *exchange, const void *bytes, size_t n)
{
	const bool may_wait = ruv_server_on_worker();
	const char *p = bytes;
	int rc = RUV_OK;

	pthread_mutex_lock(&exchange->lock);
	while (n && !rc) {
		size_t part = may_wait && n > MAX_AHEAD ? MAX_AHEAD : n;

		while (may_wait && !exchange->gone && exchange->unsent + evbuffer_get_length(exchange->out) > MAX_AHEAD)
			pthread_cond_wait(&exchange->drained, &exchange->lock);
		if (exchange->gone)
			rc = RUV_ECANCELLED;
		else if (evbuffer_add(exchange->out, p, part))
			rc = RUV_ENOMEM;
		else
			post_flush(exchange);
		p += part;
		n -= part;
	}
	pthread_mutex_unlock(&exchange->lock);
	return rc;
}

static int write_json(ruv_exchange *exchange, const char *before, json_t *data, const char *after)
{
	char *text = data ? json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	ruv_buf buf;
	int rc;

	json_decref(data);
	if (!text)
		return RUV_ENOMEM;
	ruv_buf_init(&buf, (size_t)64 << 20);
	ruv_buf_puts(&buf, before);
	ruv_buf_puts(&buf, text);
	ruv_buf_puts(&buf, after);
	free(text);
	rc = buf.failed ? buf.failed : ruv_exchange_write(exchange, buf.data, buf.len);
	ruv_buf_release(&buf);
	return rc;
}

int ruv_exchange_event(ruv_exchange *exchange, const char *name, json_t *data)
{
	char before[96] = "data: ";

	if (name)
		snprintf(before, sizeof before, "event: %s\ndata: ", name);
	return write_json(exchange, before, data, "\n\n");
}

int ruv_exchange_line(ruv_exchange *exchange, json_t *data)
{
	return write_json(exchange, "", data, "\n");
}

void ruv_exchange_end(ruv_exchange *exchange)
{
	finish(exchange);
}

void ruv_exchange_note(ruv_exchange *exchange, const char *model, int n_prompt_tokens, int n_cached_tokens, int n_output_tokens)
{
	snprintf(exchange->model, sizeof exchange->model, "%s", model);
	exchange->n_prompt = n_prompt_tokens;
	exchange->n_cached = n_cached_tokens;
	exchange->n_output = n_output_tokens;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

/* jansson nests up to 2048 deep; brackets outside strings are counted before it sees the text. */
static bool is_too_deep(const char *text, size_t n)
{
	int depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > RUV_HTTP_MAX_JSON_DEPTH)
				return true;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return false;
}

int ruv_exchange_json(const ruv_exchange *exchange, bool object, json_t **out, ruv_error *err)
{
	json_error_t bad;

	*out = NULL;
	if (is_too_deep(exchange->body, exchange->n_body))
		return ruv_fail(err, RUV_ELIMIT, "server", "the body's JSON is nested deeper than %d levels",
		                (int)RUV_HTTP_MAX_JSON_DEPTH);
	*out = json_loadb(exchange->body, exchange->n_body, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &bad);
	if (!*out)
		return ruv_fail(err, RUV_EFORMAT, "server", "the body is no valid JSON: line %d, column %d: %s", bad.line,
		                bad.column, bad.text);
	if (object && !json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		return ruv_fail(err, RUV_EINVAL, "server", "the body must be a JSON object");
	}
	return RUV_OK;
}

/* The value when it is there and not null. */
static json_t *field(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	return json_is_null(value) ? NULL : value;
}

int ruv_json_bool(const json_t *object, const char *key, bool *value, ruv_error *err)
{
	const json_t *v = field(object, key);

	if (!v)
		return RUV_OK;
	if (!json_is_boolean(v))
		return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be true or false", key);
	*value = json_is_true(v);
	return RUV_OK;
}

int ruv_json_int(const json_t *object, const char *key, int64_t low, int64_t high, int64_t *value, ruv_error *err)
{
	const json_t *v = field(object, key);
	double real;

	if (!v)
		return RUV_OK;
	if (json_is_integer(v) && json_integer_value(v) >= low && json_integer_value(v) <= high) {
		*value = json_integer_value(v);
		return RUV_OK;
	}
	real = json_real_value(v);
	if (json_is_real(v) && real == floor(real) && real >= (double)low && real <= (double)high && fabs(real) < 9e15) {
		*value = (int64_t)real; /* 1.0: some clients have no whole numbers */
		return RUV_OK;
	}
	return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be a whole number from %lld to %lld", key, (long long)low,
	                (long long)high);
}

int ruv_json_real(const json_t *object, const char *key, double low, double high, double *value, ruv_error *err)
{
	const json_t *v = field(object, key);
	double number = json_number_value(v);

	if (!v)
		return RUV_OK;
	if (!json_is_number(v) || !(number >= low && number <= high))
		return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be a number from %g to %g", key, low, high);
	*value = number;
	return RUV_OK;
}

int ruv_json_text(const json_t *object, const char *key, const char **value, ruv_error *err)
{
	const json_t *v = field(object, key);

	if (!v)
		return RUV_OK;
	if (!json_is_string(v))
		return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be a string", key);
	*value = json_string_value(v);
	return RUV_OK;
}

int ruv_json_object(const json_t *object, const char *key, json_t **value, ruv_error *err)
{
	json_t *v = field(object, key);

	if (!v)
		return RUV_OK;
	if (!json_is_object(v))
		return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be an object", key);
	*value = v;
	return RUV_OK;
}

int ruv_json_array(const json_t *object, const char *key, json_t **value, ruv_error *err)
{
	json_t *v = field(object, key);

	if (!v)
		return RUV_OK;
	if (!json_is_array(v))
		return ruv_fail(err, RUV_EINVAL, "server", "'%s' must be an array", key);
	*value = v;
	return RUV_OK;
}

/* Length of the valid UTF-8 character at p[0..n), 0 when there is none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
	size_t len = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;

	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

json_t *ruv_json_string(const char *bytes, size_t n)
{
	json_t *value = json_stringn(bytes, n);
	ruv_buf text;

	if (value)
		return value;
	ruv_buf_init(&text, 3 * n + 1);
	for (size_t i = 0; i < n;) {
		size_t len = utf8_length((const unsigned char *)bytes + i, n - i);

		if (len)
			ruv_buf_append(&text, bytes + i, len);
		else
			ruv_buf_puts(&text, "\xef\xbf\xbd");
		i += len ? len : 1;
	}
	value = json_stringn(ruv_buf_cstr(&text), text.len);
	ruv_buf_release(&text);
	return value;
}

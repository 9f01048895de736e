/* http_client.c - see http_client.h. */
#include "runtime/http_client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"

#define WHERE "http"

enum { MAX_REDIRECTS = 6, CONNECT_TIMEOUT_S = 30, SILENCE_S = 60 };

struct ruv_http_client {
	CURL *curl;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global_rc;

static void init_curl(void)
{
	global_rc = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int ruv_http_client_create(ruv_http_client **out, ruv_error *err)
{
	ruv_http_client *client = calloc(1, sizeof *client);

	pthread_once(&once, init_curl);
	if (client && !global_rc)
		client->curl = curl_easy_init();
	if (!client || !client->curl) {
		free(client);
		return global_rc ? ruv_fail(err, RUV_EINTERNAL, WHERE, "libcurl does not start: %s", curl_easy_strerror(global_rc))
		                 : ruv_fail_memory(err, WHERE, sizeof *client);
	}
	*out = client;
	return RUV_OK;
}

void ruv_http_client_free(ruv_http_client *client)
{
	if (!client)
		return;
	curl_easy_cleanup(client->curl);
	free(client);
}

/* ---- replies ----------------------------------------------------------------------------------------------------------- */

static void clear_headers(ruv_http_reply *reply)
{
	for (int i = 0; i < reply->n_headers; i++) {
		free(reply->headers[i].name);
		free(reply->headers[i].value);
	}
	reply->n_headers = 0;
}

void ruv_http_reply_release(ruv_http_reply *reply)
{
	clear_headers(reply);
	free(reply->url);
	free(reply->first_headers_etag);
	memset(reply, 0, sizeof *reply);
}

const char *ruv_http_reply_header(const ruv_http_reply *reply, const char *name)
{
	for (int i = 0; i < reply->n_headers; i++)
		if (!strcmp(reply->headers[i].name, name))
			return reply->headers[i].value;
	return NULL;
}

/* ---- addresses --------------------------------------------------------------------------------------------------------- */

/* Where an address leads, for comparing: "https://host:443". */
typedef struct origin {
	char scheme[8], host[256], port[8];
} origin;

static bool take_part(CURLU *url, CURLUPart what, unsigned flags, char *text, size_t cap)
{
	char *part = NULL;
	bool fits = !curl_url_get(url, what, &part, flags) && strlen(part) < cap;

	if (fits)
		for (size_t i = 0; i <= strlen(part); i++)
			text[i] = (char)tolower((unsigned char)part[i]);
	curl_free(part);
	return fits;
}

static int parse_origin(origin *out, const char *address, ruv_error *err)
{
	CURLU *url = curl_url();
	bool good = url && !curl_url_set(url, CURLUPART_URL, address, 0) &&
	            take_part(url, CURLUPART_SCHEME, 0, out->scheme, sizeof out->scheme) &&
	            take_part(url, CURLUPART_HOST, 0, out->host, sizeof out->host) &&
	            take_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT, out->port, sizeof out->port) &&
	            (!strcmp(out->scheme, "http") || !strcmp(out->scheme, "https"));

	curl_url_cleanup(url);
	return good ? RUV_OK : ruv_fail(err, RUV_EINVAL, WHERE, "'%.200s' is no http or https address", address);
}

static bool same_origin(const origin *a, const origin *b)
{
	return !strcmp(a->scheme, b->scheme) && !strcmp(a->host, b->host) && !strcmp(a->port, b->port);
}

static bool is_loopback(const origin *o)
{
	return !strcmp(o->host, "localhost") || !strncmp(o->host, "127.", 4) || !strcmp(o->host, "[::1]");
}

/* ---- one exchange ------------------------------------------------------------------------------------------------------ */

typedef struct exchange {
	const ruv_http_request *request;
	ruv_http_reply *reply;
	CURL *curl;
	bool announced; /* on_reply was called */
	int rc;         /* what a callback of ours failed with */
	ruv_error err;
} exchange;

static bool is_redirect(int status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static size_t on_header(char *line, size_t one, size_t n, void *user)
{
	exchange *x = user;
	ruv_http_reply *reply = x->reply;
	const char *colon;
	size_t total = n * one;

	if (n > 5 && !memcmp(line, "HTTP/", 5)) { /* also after 100 Continue: the last one counts */
		clear_headers(reply);
		return total;
	}
	while (n && isspace((unsigned char)line[n - 1]))
		n--;
	colon = memchr(line, ':', n);
	if (!colon || reply->n_headers == RUV_HTTP_MAX_HEADERS)
		return total;
	const char *value = colon + 1;

	while (value < line + n && isspace((unsigned char)*value))
		value++;
	char *name_copy = strndup(line, (size_t)(colon - line)), *value_copy = strndup(value, (size_t)(line + n - value));

	if (!name_copy || !value_copy) {
		free(name_copy);
		free(value_copy);
		x->rc = ruv_fail_memory(&x->err, WHERE, n);
		return 0;
	}
	for (char *p = name_copy; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	reply->headers[reply->n_headers].name = name_copy;
	reply->headers[reply->n_headers++].value = value_copy;
	return total;
}

/* Status and length are known: tells the caller. */
static int announce(exchange *x)
{
	long status = 0;
	curl_off_t n_bytes = -1;

	if (x->announced)
		return RUV_OK;
	curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(x->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &n_bytes);
	x->reply->status = (int)status;
	x->reply->n_bytes = n_bytes < 0 ? UINT64_MAX : (uint64_t)n_bytes;
	x->announced = true;
	if (!x->request->stays && is_redirect((int)status) && ruv_http_reply_header(x->reply, "location"))
		return RUV_OK;
	return x->request->on_reply ? x->request->on_reply(x->request->user, x->reply, &x->err) : RUV_OK;
}

static size_t on_body(char *bytes, size_t one, size_t n, void *user)
{
	exchange *x = user;

	n *= one;
	x->rc = announce(x);
	if (!x->rc && !is_redirect(x->reply->status) && x->request->on_body)
		x->rc = x->request->on_body(x->request->user, bytes, n, &x->err);
	return x->rc ? 0 : n;
}

static int on_tick(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
	exchange *x = user;

	(void)total, (void)now, (void)up_total, (void)up;
	return ruv_cancel_is_set(x->request->cancel);
}

/* May the same request succeed when it is sent again? */
static bool is_passing(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_PARTIAL_FILE:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return true;
	default:
		return false;
	}
}

static int set_up(exchange *x, const char *url, bool with_token, struct curl_slist **headers, char *reason)
{
	const ruv_http_request *request = x->request;
	const char *ca = getenv("SSL_CERT_FILE");
	struct curl_slist *list = NULL, *more;
	CURL *c = x->curl;

	curl_easy_reset(c); /* connections stay */
	for (int i = 0; i < request->n_headers; i++) {
		more = curl_slist_append(list, request->headers[i]);
		if (!more)
			goto memory;
		list = more;
	}
	if (with_token) {
		char line[1100];

		snprintf(line, sizeof line, "Authorization: Bearer %s", request->token);
		more = curl_slist_append(list, line);
		if (!more)
			goto memory;
		list = more;
	}
	*headers = list;
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_USERAGENT, "ruvllm/" RUV_VERSION);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)request->timeout_s);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_tick);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, reason);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L * 1024);
	if (ca && *ca)
		curl_easy_setopt(c, CURLOPT_CAINFO, ca);
	if (request->body) {
		curl_easy_setopt(c, CURLOPT_POST, 1L);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, request->body);
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->n_body);
	}
	return RUV_OK;
memory:
	curl_slist_free_all(list);
	return ruv_fail_memory(&x->err, WHERE, 100);
}

/* A connection that breaks off while we write must not end the program: TLS writes without MSG_NOSIGNAL. */
static CURLcode perform(CURL *curl)
{
	sigset_t pipe, before, pending;
	CURLcode code;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	code = curl_easy_perform(curl);
	sigpending(&pending);
	if (sigismember(&pending, SIGPIPE) && !sigismember(&before, SIGPIPE))
		sigtimedwait(&pipe, NULL, &(struct timespec){0});
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code;
}

/* One request and its reply, a redirect being a reply like another. */
static int send_once(exchange *x, const char *url, bool with_token, ruv_error *err)
{
	char reason[CURL_ERROR_SIZE] = "";
	struct curl_slist *headers = NULL;
	CURLcode code;
	int rc = set_up(x, url, with_token, &headers, reason);

	x->announced = false;
	if (rc)
		goto done;
	code = perform(x->curl);
	if (!code)
		x->rc = announce(x); /* a reply without a body */
	if (x->rc)
		rc = x->rc;
	else if (code == CURLE_ABORTED_BY_CALLBACK)
		rc = ruv_fail(&x->err, RUV_ECANCELLED, WHERE, "stopped while talking to %.200s", url);
	else if (code)
		rc = ruv_fail(&x->err, is_passing(code) ? RUV_EBUSY : RUV_EIO, WHERE, "%.200s: %s", url,
		              *reason ? reason : curl_easy_strerror(code));
done:
	curl_easy_reset(x->curl); /* it must not keep our stack's addresses */
	curl_slist_free_all(headers);
	if (rc && err)
		*err = x->err;
	return rc;
}

/* Makes `url` the address that the reply redirects to. */
static int follow(char **url, const ruv_http_reply *reply, ruv_error *err)
{
	CURLU *parsed = curl_url();
	char *next = NULL, *copy = NULL;
	const char *location = ruv_http_reply_header(reply, "location");
	int rc = RUV_OK;

	if (!parsed || curl_url_set(parsed, CURLUPART_URL, *url, 0) || curl_url_set(parsed, CURLUPART_URL, location, 0) ||
	    curl_url_get(parsed, CURLUPART_URL, &next, 0))
		rc = ruv_fail(err, RUV_EIO, WHERE, "%.160s redirects to '%.160s', which is no address", *url, location);
	else if (!strncmp(*url, "https:", 6) && strncmp(next, "https:", 6))
		rc = ruv_fail(err, RUV_EIO, WHERE, "%.160s redirects to %.160s, away from https; it is not followed", *url, next);
	else if (!(copy = strdup(next)))
		rc = ruv_fail_memory(err, WHERE, strlen(next));
	curl_free(next);
	curl_url_cleanup(parsed);
	if (!rc) {
		free(*url);
		*url = copy;
	}
	return rc;
}

int ruv_http_send(ruv_http_client *client, const ruv_http_request *request, ruv_http_reply *reply, ruv_error *err)
{
	exchange x = {.request = request, .reply = reply};
	ruv_http_client *own = NULL;
	bool token = request->token && *request->token;
	origin first, here;
	char *url = NULL;
	int rc;

	memset(reply, 0, sizeof *reply);
	rc = parse_origin(&first, request->url, err);
	if (rc)
		return rc;
	if (token && strlen(request->token) > 1000)
		return ruv_fail(err, RUV_EINVAL, WHERE, "the token has more than 1000 bytes");
	if (token && strpbrk(request->token, "\r\n"))
		return ruv_fail(err, RUV_EINVAL, WHERE, "the token has a line break in it");
	if (token && strcmp(first.scheme, "https") && !is_loopback(&first))
		return ruv_fail(err, RUV_EINVAL, WHERE, "the token is not sent to %.200s over plain http; use https", first.host);
	if (!client) {
		rc = ruv_http_client_create(&own, err);
		if (rc)
			return rc;
		client = own;
	}
	x.curl = client->curl;
	url = strdup(request->url);
	if (!url)
		rc = ruv_fail_memory(err, WHERE, strlen(request->url));
	for (int i = 0; !rc; i++) {
		rc = parse_origin(&here, url, err);
		if (!rc)
			rc = send_once(&x, url, token && same_origin(&first, &here), err);
		if (rc)
			break;
		const char *etag = ruv_http_reply_header(reply, "x-linked-etag");

		if (etag && !reply->first_headers_etag)
			reply->first_headers_etag = strdup(etag); /* without it the sum is not known, no more */
		if (request->stays || !is_redirect(reply->status) || !ruv_http_reply_header(reply, "location"))
			break;
		if (i == MAX_REDIRECTS)
			rc = ruv_fail(err, RUV_EIO, WHERE, "%.200s redirects more than %d times", request->url, MAX_REDIRECTS);
		else
			rc = follow(&url, reply, err);
		if (!rc)
			clear_headers(reply);
	}
	reply->url = url;
	ruv_http_client_free(own);
	return rc;
}

/* ---- small bodies ------------------------------------------------------------------------------------------------------ */

static int keep(void *user, const void *bytes, size_t n_bytes, ruv_error *err)
{
	ruv_buf *body = user;
	int rc = ruv_buf_append(body, bytes, n_bytes);

	return rc ? ruv_fail(err, rc, WHERE, "the reply is larger than %zu bytes", body->max) : RUV_OK;
}

int ruv_http_fetch(ruv_http_client *client, const ruv_http_request *request, ruv_http_reply *reply, ruv_buf *body, ruv_error *err)
{
	ruv_http_request whole = *request;

	whole.on_reply = NULL;
	whole.on_body = keep;
	whole.user = body;
	return ruv_http_send(client, &whole, reply, err);
}

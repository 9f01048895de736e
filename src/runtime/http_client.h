/* http_client.h - requests to other machines over libcurl: model downloads, the hub's listings, traces.
 *
 * One call is one request, its redirects followed here and not by libcurl, so that a secret goes only where it was meant to: a
 * bearer token is sent to the scheme, host and port of the first address alone, and over plain http only to this machine. A
 * redirect from https to http is refused. Certificates are checked against the system's list, or $SSL_CERT_FILE; https_proxy and
 * no_proxy count as everywhere.
 *
 * A status of 400 or above is no failure of the call: the caller sees it in the reply. A failure is that no whole reply came.
 * Threads: any; one call uses a connection of its own unless it is given a ruv_http_client, which one thread uses at a time.
 * Layer: runtime. */
#ifndef RUV_RUNTIME_HTTP_CLIENT_H
#define RUV_RUNTIME_HTTP_CLIENT_H

#include "base/buf.h"
#include "ruvllm/session.h"

/* Keeps connections open between requests. */
typedef struct ruv_http_client ruv_http_client;
int ruv_http_client_create(ruv_http_client **out, ruv_error *err);
void ruv_http_client_free(ruv_http_client *client); /* NULL is fine */

enum { RUV_HTTP_MAX_HEADERS = 64 };

typedef struct ruv_http_reply {
	int status;       /* 200; 0: none came */
	uint64_t n_bytes; /* of the body by Content-Length, UINT64_MAX when it was not said */
	char *url;        /* the last address, after redirects */
	struct {
		char *name, *value;      /* name in small letters */
	} headers[RUV_HTTP_MAX_HEADERS]; /* of the last reply; the first 64 */
	int n_headers;
	char *first_headers_etag; /* x-linked-etag of the first reply: the hub names a file's sum there before it redirects */
} ruv_http_reply;

void ruv_http_reply_release(ruv_http_reply *reply);
/* NULL when it is not there; `name` in small letters. */
const char *ruv_http_reply_header(const ruv_http_reply *reply, const char *name);

typedef struct ruv_http_request {
	const char *url;
	const char *token;          /* bearer, NULL: none */
	const char *const *headers; /* [n_headers] "Name: value" */
	int n_headers;
	const void *body; /* POST when not NULL */
	size_t n_body;
	bool stays;    /* a redirect is a reply like another, for requests whose headers hold secrets */
	int timeout_s; /* of the whole; 0: none, but 60 s without a byte end it */
	const ruv_cancel *cancel;
	/* Called once, before the first byte of the last reply's body; a status other than RUV_OK ends the request with it. */
	int (*on_reply)(void *user, const ruv_http_reply *reply, ruv_error *err);
	int (*on_body)(void *user, const void *bytes, size_t n_bytes, ruv_error *err);
	void *user;
} ruv_http_request;

/* RUV_EINVAL: the address is none, or a token would go over plain http; RUV_ECANCELLED; RUV_EBUSY: the connection failed or broke
 * off, so that it may go better later; RUV_EIO: it cannot go better (a wrong certificate, a wrong redirect, a protocol error). */
int ruv_http_send(ruv_http_client *client, const ruv_http_request *request, ruv_http_reply *reply, ruv_error *err);

/* Reads the whole body of at most body->max bytes; request's on_body is not used. RUV_ELIMIT when it is larger. */
int ruv_http_fetch(ruv_http_client *client, const ruv_http_request *request, ruv_http_reply *reply, ruv_buf *body, ruv_error *err);

#endif

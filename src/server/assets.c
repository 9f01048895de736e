/* assets.c - the web page at / and its files under /web/, from the program itself.
 *
 * They need no key: they hold nothing of anybody's. The page sends the key that is typed into it with each request of its own.
 * The browser may ask again each time and gets a 304 while nothing changed. The policy allows scripts, styles and requests of this
 * server alone, and no frame around the page. Layer: server. */
#include "server/assets.h"

#include <string.h>

#include "server/server.h"

static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
			     "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

static void asset(ruv_exchange *exchange)
{
	const char *name = ruv_exchange_param(exchange, "file"), *known = ruv_exchange_header(exchange, "if-none-match");

	for (const ruv_asset *a = ruv_assets; a->name; a++) {
		bool same = known && (strstr(known, a->etag) || !strcmp(known, "*")); /* a list of tags, perhaps weak ones */

		if (strcmp(a->name, name ? name : "index.html"))
			continue;
		ruv_exchange_set_header(exchange, "ETag", a->etag);
		ruv_exchange_set_header(exchange, "Cache-Control", "no-cache");
		ruv_exchange_set_header(exchange, "Content-Security-Policy", policy);
		ruv_exchange_set_header(exchange, "X-Content-Type-Options", "nosniff");
		ruv_exchange_set_header(exchange, "Referrer-Policy", "no-referrer");
		ruv_exchange_reply(exchange, same ? 304 : 200, a->type, a->bytes, same ? 0 : a->n);
		return;
	}
	ruv_exchange_failf(exchange, 404, "invalid_request_error", "not_found", NULL, "the page has no file '%.80s'", name);
}

const ruv_route ruv_routes_assets[] = {
    {RUV_GET, "/", asset, 0, RUV_ROUTE_OPEN | RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {RUV_GET, "/web/{file}", asset, 0, RUV_ROUTE_OPEN | RUV_ROUTE_INLINE, RUV_ERRORS_OPENAI},
    {0},
};

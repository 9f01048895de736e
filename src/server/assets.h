/* assets.h - the files of the web page, compiled in: web/embed.py writes their table. Layer: server. */
#ifndef RUV_SERVER_ASSETS_H
#define RUV_SERVER_ASSETS_H

#include <stddef.h>

typedef struct ruv_asset {
	const char *name, *type;
	const char *etag; /* quoted, of the content */
	const unsigned char *bytes;
	size_t n;
} ruv_asset;

/* Ends with {0}. */
extern const ruv_asset ruv_assets[];

#endif

/* uuid.h - UUID version 7 (RFC 9562): 48 bits of milliseconds, then random bits, so that ids sort by the time they were made.
 *
 * Ids made by one process strictly increase, also within a millisecond. Any thread. Layer: base. */
#ifndef RUV_BASE_UUID_H
#define RUV_BASE_UUID_H

#include "ruvllm/types.h"

typedef struct ruv_uuid {
	unsigned char b[16];
} ruv_uuid;

ruv_uuid ruv_uuid_make(void);
/* "01932c5e-...": 36 characters and a NUL. Returns text. */
const char *ruv_uuid_format(ruv_uuid id, char text[37]);
/* Reads the 36-character form, either case; RUV_EINVAL otherwise. */
int ruv_uuid_parse(ruv_uuid *id, const char *text, ruv_error *err);
/* Milliseconds since 1970 that the id carries. */
int64_t ruv_uuid_time_ms(ruv_uuid id);

#endif

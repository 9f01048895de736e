/* uuid.c - UUIDv7 with a monotonic 12-bit counter in rand_a (RFC 9562, 6.2 method 1). */
#include "base/uuid.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t last_ms;
static unsigned counter;

ruv_uuid ruv_uuid_make(void)
{
	uint64_t random = ruv_rng_entropy();
	ruv_uuid id;
	int64_t ms;
	unsigned seq;

	pthread_mutex_lock(&lock);
	ms = ruv_clock_wall_ms();
	if (ms > last_ms) {
		last_ms = ms;
		counter = random & 0xff; /* room for at least 3840 more in this millisecond */
	} else if (++counter > 0xfff) {
		last_ms++; /* borrow from the next millisecond rather than repeat or run backwards */
		counter = 0;
	}
	ms = last_ms;
	seq = counter;
	pthread_mutex_unlock(&lock);

	for (int i = 0; i < 6; i++)
		id.b[i] = (unsigned char)(ms >> (40 - 8 * i));
	id.b[6] = (unsigned char)(0x70 | seq >> 8);
	id.b[7] = (unsigned char)seq;
	random = ruv_rng_entropy();
	memcpy(id.b + 8, &random, 8);
	id.b[8] = (id.b[8] & 0x3f) | 0x80;
	return id;
}

const char *ruv_uuid_format(ruv_uuid id, char text[37])
{
	char *p = text;
	for (int i = 0; i < 16; i++) {
		p += sprintf(p, "%02x", id.b[i]);
		if (i == 3 || i == 5 || i == 7 || i == 9)
			*p++ = '-';
	}
	*p = '\0';
	return text;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int ruv_uuid_parse(ruv_uuid *id, const char *text, ruv_error *err)
{
	int n = 0;
	size_t i = 0;
	if (strlen(text) != 36)
		goto bad;
	while (i < 36) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i++] != '-')
				goto bad;
			continue;
		}
		int hi = hex_value(text[i]), lo = hex_value(text[i + 1]);
		if (hi < 0 || lo < 0)
			goto bad;
		id->b[n++] = (unsigned char)(hi << 4 | lo);
		i += 2;
	}
	return RUV_OK;
bad:
	return ruv_fail(err, RUV_EINVAL, "uuid", "'%.60s' is not an id like 01932c5e-8f3a-7cc1-b1a2-5d0c3f6e7a90", text);
}

int64_t ruv_uuid_time_ms(ruv_uuid id)
{
	int64_t ms = 0;
	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id.b[i];
	return ms;
}

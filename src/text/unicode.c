/* unicode.c - UTF-8 by the table of well-formed sequences (Unicode 15, table 3-7); composing and classes by utf8proc. */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/status.h"

/* The range that a second byte may have, which alone depends on the first (no overlong forms, no surrogates, nothing > 10FFFF). */
static int sequence_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
	*low = 0x80;
	*high = 0xBF;
	if (lead < 0x80)
		return 1;
	if (lead < 0xC2)
		return 0;
	if (lead < 0xE0)
		return 2;
	if (lead < 0xF0) {
		if (lead == 0xE0)
			*low = 0xA0;
		else if (lead == 0xED)
			*high = 0x9F;
		return 3;
	}
	if (lead < 0xF5) {
		if (lead == 0xF0)
			*low = 0x90;
		else if (lead == 0xF4)
			*high = 0x8F;
		return 4;
	}
	return 0;
}

int ruv_utf8_decode(const char *bytes, size_t n_bytes, uint32_t *cp, int *n_bad, bool *cut)
{
	const unsigned char *s = (const unsigned char *)bytes;
	unsigned char low, high;
	uint32_t value;
	int n, i, bad = 1;
	bool more = false;

	if (n_bytes == 0) {
		n = bad = 0;
		goto malformed;
	}
	n = sequence_length(s[0], &low, &high);
	if (n == 0)
		goto malformed;
	if (n == 1) {
		if (cp)
			*cp = s[0];
		return 1;
	}
	value = s[0] & (0xFFu >> (n + 1));
	for (i = 1; i < n; i++) {
		bad = i;
		if ((size_t)i == n_bytes) {
			more = true;
			goto malformed;
		}
		if (s[i] < low || s[i] > high)
			goto malformed;
		low = 0x80;
		high = 0xBF;
		value = value << 6 | (s[i] & 0x3F);
	}
	if (cp)
		*cp = value;
	return n;
malformed:
	if (n_bad)
		*n_bad = bad;
	if (cut)
		*cut = more;
	return 0;
}

int ruv_utf8_encode(uint32_t cp, char bytes[4])
{
	if (cp < 0x80) {
		bytes[0] = (char)cp;
		return 1;
	}
	if (cp < 0x800) {
		bytes[0] = (char)(0xC0 | cp >> 6);
		bytes[1] = (char)(0x80 | (cp & 0x3F));
		return 2;
	}
	if (cp < 0x10000) {
		bytes[0] = (char)(0xE0 | cp >> 12);
		bytes[1] = (char)(0x80 | (cp >> 6 & 0x3F));
		bytes[2] = (char)(0x80 | (cp & 0x3F));
		return 3;
	}
	bytes[0] = (char)(0xF0 | cp >> 18);
	bytes[1] = (char)(0x80 | (cp >> 12 & 0x3F));
	bytes[2] = (char)(0x80 | (cp >> 6 & 0x3F));
	bytes[3] = (char)(0x80 | (cp & 0x3F));
	return 4;
}

size_t ruv_utf8_valid_prefix(const char *bytes, size_t n_bytes)
{
	size_t i = 0;

	while (i < n_bytes) {
		uint64_t word;
		int n;

		/* Eight ASCII bytes at a time. */
		while (n_bytes - i >= sizeof word) {
			memcpy(&word, bytes + i, sizeof word);
			if (word & 0x8080808080808080u)
				break;
			i += sizeof word;
		}
		if (i == n_bytes)
			break;
		n = ruv_utf8_decode(bytes + i, n_bytes - i, NULL, NULL, NULL);
		if (n == 0)
			break;
		i += (size_t)n;
	}
	return i;
}

size_t ruv_utf8_length(const char *bytes, size_t n_bytes)
{
	size_t i = 0, count = 0;

	while (i < n_bytes) {
		int n = ruv_utf8_decode(bytes + i, n_bytes - i, NULL, NULL, NULL);
		i += n ? (size_t)n : 1;
		count++;
	}
	return count;
}

size_t ruv_utf8_floor(const char *bytes, size_t n_bytes, size_t at)
{
	size_t start;

	if (at >= n_bytes)
		return n_bytes;
	for (start = at; start > 0 && at - start < 3 && ((unsigned char)bytes[start] & 0xC0) == 0x80; start--)
		;
	if (start == at)
		return at;
	/* A stray continuation byte is no reason to go back. */
	return start + (size_t)ruv_utf8_decode(bytes + start, n_bytes - start, NULL, NULL, NULL) > at ? start : at;
}

int ruv_utf8_repair(const char *bytes, size_t n_bytes, ruv_buf *out)
{
	while (n_bytes > 0) {
		size_t n = ruv_utf8_valid_prefix(bytes, n_bytes);
		int bad = 1;

		ruv_buf_append(out, bytes, n);
		bytes += n;
		n_bytes -= n;
		if (n_bytes == 0)
			break;
		ruv_utf8_decode(bytes, n_bytes, NULL, &bad, NULL);
		ruv_buf_append(out, "\xEF\xBF\xBD", 3);
		bytes += bad;
		n_bytes -= (size_t)bad;
	}
	return out->failed;
}

/* Ranges of starters that never compose with anything and are already composed: text of these alone is in NFC. */
static bool always_nfc(uint32_t cp)
{
	return cp < 0x300 || (cp >= 0x3400 && cp <= 0x9FFF) || (cp >= 0x3041 && cp <= 0x3096) || (cp >= 0x30A0 && cp <= 0x30FF) ||
	       (cp >= 0xAC00 && cp <= 0xD7A3) || (cp >= 0x400 && cp <= 0x482) || (cp >= 0x2010 && cp <= 0x205E) ||
	       (cp >= 0x3001 && cp <= 0x3029) || (cp >= 0xFF01 && cp <= 0xFF9D) || (cp >= 0x1F300 && cp <= 0x1FAFF);
}

/* Composes a stretch of well-formed text. */
static int compose(const char *bytes, size_t n_bytes, ruv_buf *out, ruv_error *err)
{
	utf8proc_uint8_t *composed = NULL;
	utf8proc_ssize_t n =
	    utf8proc_map((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)n_bytes, &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);

	if (n == UTF8PROC_ERROR_NOMEM)
		return ruv_fail_memory(err, "unicode", n_bytes);
	if (n < 0)
		return ruv_fail(err, RUV_EINVAL, "unicode", "composing text: %s", utf8proc_errmsg(n));
	ruv_buf_append(out, composed, (size_t)n);
	free(composed);
	return RUV_OK;
}

int ruv_unicode_nfc(const char *bytes, size_t n_bytes, ruv_buf *out, ruv_error *err)
{
	/* Nothing composes across the border between two characters of always_nfc, so only stretches that hold others are worked
	 * on: from the character before the first of them until a run of harmless bytes follows. */
	enum { HARMLESS_RUN = 32 };
	size_t plain = 0, previous = 0, last = 0, i = 0, harmless;
	int rc;

	while (i < n_bytes) {
		uint32_t cp;
		int len = ruv_utf8_decode(bytes + i, n_bytes - i, &cp, NULL, NULL);

		if (len == 0)
			return ruv_fail(err, RUV_EINVAL, "unicode", "malformed UTF-8 at byte %zu", i);
		if (always_nfc(cp)) {
			previous = i;
			i += (size_t)len;
			continue;
		}
		ruv_buf_append(out, bytes + plain, previous - plain);
		for (harmless = 0; i < n_bytes && harmless < HARMLESS_RUN; i += (size_t)len) {
			len = ruv_utf8_decode(bytes + i, n_bytes - i, &cp, NULL, NULL);
			if (len == 0)
				return ruv_fail(err, RUV_EINVAL, "unicode", "malformed UTF-8 at byte %zu", i);
			harmless = always_nfc(cp) ? harmless + (size_t)len : 0;
			last = i;
		}
		if (i < n_bytes)
			i = last; /* what comes next may compose with the run's last character */
		rc = compose(bytes + previous, i - previous, out, err);
		if (rc)
			return rc;
		plain = previous = i;
	}
	ruv_buf_append(out, bytes + plain, n_bytes - plain);
	if (out->failed)
		return ruv_fail(err, out->failed, "unicode", "composed text of %zu bytes: %s", n_bytes,
		                ruv_status_text(out->failed));
	return RUV_OK;
}

bool ruv_unicode_is_space(uint32_t cp)
{
	return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
	       (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool ruv_unicode_is_letter(uint32_t cp)
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
	return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool ruv_unicode_is_digit(uint32_t cp)
{
	return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

bool ruv_unicode_is_upper(uint32_t cp)
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
	return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LT;
}

bool ruv_unicode_is_lower(uint32_t cp)
{
	return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LL;
}

uint32_t ruv_unicode_to_upper(uint32_t cp)
{
	return (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp);
}

uint32_t ruv_unicode_to_lower(uint32_t cp)
{
	return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

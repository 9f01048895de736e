/* unicode.h - UTF-8: walking, checking, composing. Layer: text. */
#ifndef RUV_TEXT_UNICODE_H
#define RUV_TEXT_UNICODE_H

#include "base/buf.h"
#include "ruvllm/types.h"

/* Length 1..4 of the well-formed character at bytes[0..n_bytes), its code point in *cp; 0 when there is none. With 0, *n_bad is how
 * many bytes one U+FFFD replaces (the maximal subpart, 1..3), and *cut tells that more bytes could still complete it. NULLs are
 * fine. */
int ruv_utf8_decode(const char *bytes, size_t n_bytes, uint32_t *cp, int *n_bad, bool *cut);
/* Writes cp (a scalar value) to bytes; returns the length 1..4. */
int ruv_utf8_encode(uint32_t cp, char bytes[4]);
/* How many of the first bytes are well-formed: n_bytes when all are. */
size_t ruv_utf8_valid_prefix(const char *bytes, size_t n_bytes);
/* Characters in well-formed text; every byte that is not part of one counts as one. */
size_t ruv_utf8_length(const char *bytes, size_t n_bytes);
/* The largest position <= `at` where no character is cut. */
size_t ruv_utf8_floor(const char *bytes, size_t n_bytes, size_t at);
/* Appends the text with what is malformed replaced by U+FFFD. */
int ruv_utf8_repair(const char *bytes, size_t n_bytes, ruv_buf *out);

/* Appends the text in NFC. It must be well-formed. */
int ruv_unicode_nfc(const char *bytes, size_t n_bytes, ruv_buf *out, ruv_error *err);

/* Classes over code points (utf8proc's Unicode version). */
bool ruv_unicode_is_space(uint32_t cp); /* as Python's str.isspace() */
bool ruv_unicode_is_letter(uint32_t cp);
bool ruv_unicode_is_digit(uint32_t cp); /* Nd */
bool ruv_unicode_is_upper(uint32_t cp); /* Lu, Lt */
bool ruv_unicode_is_lower(uint32_t cp);
uint32_t ruv_unicode_to_upper(uint32_t cp);
uint32_t ruv_unicode_to_lower(uint32_t cp);

#endif

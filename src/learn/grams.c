/* grams.c - see grams.h. Layer: learn. */
#include "learn/grams.h"

#include <ctype.h>
#include <string.h>

static bool is_word_byte(unsigned char c)
{
	return isalnum(c) || c >= 0x80 || c == '_';
}

static unsigned char fold(unsigned char c)
{
	return isdigit(c) ? '0' : (unsigned char)tolower(c);
}

/* FNV-1a, finished so that its low bits are good. */
static uint32_t hash_bytes(const char *bytes, size_t n, uint32_t seed)
{
	uint32_t h = 2166136261u ^ (seed * 0x9e3779b9u);

	for (size_t i = 0; i < n; i++)
		h = (h ^ fold((unsigned char)bytes[i])) * 16777619u;
	h ^= h >> 15;
	h *= 0x2c1b3c6du;
	h ^= h >> 12;
	return h;
}

const char *ruv_grams_next_word(const char *text, size_t n_bytes, size_t *at, size_t *length)
{
	size_t i = *at, begin;

	while (i < n_bytes && !is_word_byte((unsigned char)text[i]))
		i++;
	begin = i;
	while (i < n_bytes && is_word_byte((unsigned char)text[i]))
		i++;
	*at = i;
	*length = i - begin;
	return i > begin ? text + begin : NULL;
}

static int add_shapes(uint32_t *hashes, int cap, const char *text, size_t n)
{
	int counts[8] = {0}, made = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i], next = i + 1 < n ? (unsigned char)text[i + 1] : 0;

		counts[0] += c == '(' || c == '{' || c == '[' || c == ';' || c == '=';
		counts[1] += c == '/' || c == '\\';
		counts[2] += islower(c) && isupper(next);
		counts[3] += isdigit(c) != 0;
		counts[4] += c == '?';
		counts[5] += c == '\n';
		counts[6] += c == '_';
		counts[7] += c == '`' || c == '"' || c == '\'';
	}
	for (int i = 0; i < 8 && made < cap; i++)
		if (counts[i]) {
			char name[3] = {'#', (char)('a' + i), counts[i] > 3 ? '+' : '1'};
			hashes[made++] = hash_bytes(name, 3, 77);
		}
	return made;
}

int ruv_grams(uint32_t *hashes, int cap, const char *text, size_t n_bytes, unsigned kinds)
{
	size_t at = 0, length;
	uint32_t before = 0;
	const char *word;
	int n = 0, n_words = 0;

	if (kinds & RUV_GRAM_SHAPE)
		n += add_shapes(hashes, cap, text, n_bytes);
	while (n < cap && (word = ruv_grams_next_word(text, n_bytes, &at, &length))) {
		uint32_t h = hash_bytes(word, length, 1);

		if (kinds & RUV_GRAM_WORD)
			hashes[n++] = h;
		if ((kinds & RUV_GRAM_PAIR) && n_words && n < cap)
			hashes[n++] = (before * 0x85ebca6bu) ^ (h + 0x9e3779b9u + (before << 6));
		if ((kinds & RUV_GRAM_PREFIX) && length > 5 && n < cap)
			hashes[n++] = hash_bytes(word, 5, 2);
		if ((kinds & RUV_GRAM_FIRST) && n_words < 3 && n < cap)
			hashes[n++] = hash_bytes(word, length, 3);
		if (kinds & RUV_GRAM_BYTES) {
			char padded[66];
			size_t m = length > 62 ? 62 : length;

			padded[0] = ' ';
			memcpy(padded + 1, word, m);
			padded[m + 1] = ' ';
			for (size_t size = 2; size <= 4; size++)
				for (size_t i = 0; i + size <= m + 2 && n < cap; i++)
					hashes[n++] = hash_bytes(padded + i, size, 4);
		}
		before = h;
		n_words++;
	}
	return n;
}

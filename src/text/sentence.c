/* sentence.c - where a sentence ends, by rules: no model, the same on every machine.
 *
 * A stop ends a sentence when white space follows and nothing speaks against it: an abbreviation, an initial, an enumeration, a
 * small letter behind it. Line ends are handled too, because passages keep their lists and headings on lines of their own. */
#include <string.h>

#include "text/chunk.h"
#include "text/document_build.h"
#include "text/unicode.h"

/* Abbreviations that something always follows. Compared without case, dots inside included. */
static const char *const never_last[] = {
    "dr",  "mr",  "mrs",  "ms",  "prof", "st",   "fig", "figs", "eq",   "eqs",  "sec",  "sect",   "ch",  "chap",
    "no",  "nos", "nr",   "vs",  "e.g",  "i.e",  "cf",  "vol",  "vols", "pp",   "ed",   "eds",    "gen", "col",
    "lt",  "sgt", "capt", "rev", "hon",  "gov",  "sen", "rep",  "pres", "mt",   "ft",   "approx", "ca",  "dept",
    "est", "z.b", "d.h",  "bzw", "vgl",  "ggf",  "sog", "u.a",  "resp", "incl", "excl", "jan",    "feb", "mar",
    "apr", "jun", "jul",  "aug", "sep",  "sept", "oct", "nov",  "dec",  "al",   NULL};
/* Abbreviations that may also be a sentence's last word: a capital letter behind them decides. */
static const char *const maybe_last[] = {"etc", "inc", "ltd",  "co",  "corp", "jr",  "sr",   "a.m",  "p.m", "u.s", "u.k", "u.s.a",
                                         "e.u", "usw", "ph.d", "m.d", "b.a",  "m.a", "b.sc", "m.sc", "p",   "art", NULL};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\f' || c == '\v';
}

static bool is_cjk_stop(uint32_t cp)
{
	return cp == 0x3002 || cp == 0xFF01 || cp == 0xFF1F || cp == 0xFF61;
}

/* Quotes and brackets that belong to what stands before them. */
static bool is_closing(uint32_t cp)
{
	return cp == '"' || cp == '\'' || cp == ')' || cp == ']' || cp == '}' || cp == 0x201D || cp == 0x2019 || cp == 0xBB ||
	       cp == 0x300D || cp == 0x300F || cp == 0xFF09 || cp == 0x3011;
}

static bool is_opening(uint32_t cp)
{
	return cp == '"' || cp == '\'' || cp == '(' || cp == '[' || cp == '{' || cp == 0x201C || cp == 0x2018 || cp == 0x201E ||
	       cp == 0xAB || cp == '*' || cp == '_' || cp == '`';
}

/* The character at `at` (a malformed byte counts as itself) and its length; 0 at the end. */
static int char_at(const char *text, size_t n, size_t at, uint32_t *cp)
{
	int len;

	if (at >= n)
		return 0;
	len = ruv_utf8_decode(text + at, n - at, cp, NULL, NULL);
	if (len)
		return len;
	*cp = (unsigned char)text[at];
	return 1;
}

static bool in_list(const char *word, size_t len, const char *const *list)
{
	for (; *list; list++)
		if (strlen(*list) == len && strncasecmp(*list, word, len) == 0)
			return true;
	return false;
}

/* Does the dot at `dot` only shorten a word? [begin, dot) is the sentence so far, `next` the first character behind the white
 * space. */
static bool is_abbreviation(const char *text, size_t begin, size_t dot, uint32_t next)
{
	size_t word = dot, len, i;
	bool digits = true;

	while (word > begin &&
	       ((text[word - 1] >= 'a' && text[word - 1] <= 'z') || (text[word - 1] >= 'A' && text[word - 1] <= 'Z') ||
	        (text[word - 1] >= '0' && text[word - 1] <= '9') || text[word - 1] == '.' || (unsigned char)text[word - 1] >= 0x80))
		word--;
	len = dot - word;
	if (len == 0)
		return false;
	for (i = word; i < dot; i++)
		digits &= text[i] >= '0' && text[i] <= '9';
	if (digits) /* "1." in front of a sentence; "3. Oktober" is left to the small-letter rule of other languages */
		return word == begin && len <= 3;
	if (len == 1 && text[word] >= 'A' && text[word] <= 'Z' && text[word] != 'I') /* an initial */
		return true;
	if (in_list(text + word, len, never_last)) {
		/* "No." and "Mar." are words as well: only a number behind makes them short. */
		if (in_list(text + word, len, (const char *const[]){"no", "sec", "ed", "est", "col", "al", NULL}))
			return (next >= '0' && next <= '9') || ruv_unicode_is_lower(next);
		return true;
	}
	if (in_list(text + word, len, maybe_last))
		return !ruv_unicode_is_upper(next) && next != 0;
	return false;
}

/* Does the line end at `at` end a sentence? The next line's first character begins at `next`. */
static bool line_ends_sentence(const char *text, size_t n, size_t begin, size_t at, size_t next)
{
	size_t line = at;
	uint32_t cp;

	if (next >= n || ruv_doc_list_marker(text + next, n - next))
		return true;
	while (line > begin && text[line - 1] != '\n')
		line--;
	char_at(text, n, next, &cp);
	if (ruv_unicode_is_lower(cp))
		return false;
	/* A line of a wrapped paragraph is long. */
	return at - line < 45;
}

bool ruv_sentence_next(const char *text, size_t n, size_t from, size_t *begin, size_t *end)
{
	size_t i = from, next, stop;
	uint32_t cp = 0;
	int len;

	for (;;) {
		size_t marker;
		while ((len = char_at(text, n, i, &cp)) && ruv_unicode_is_space(cp))
			i += (size_t)len;
		if (len == 0)
			return false;
		marker = i == 0 || text[i - 1] == '\n' ? ruv_doc_list_marker(text + i, n - i) : 0;
		if (!marker)
			break;
		i += marker;
	}
	*begin = i;
	while ((len = char_at(text, n, i, &cp)) > 0) {
		size_t first = i;
		uint32_t follow = 0, after;
		int k;

		if (cp == '\n') {
			for (next = i + 1; next < n && is_blank(text[next]); next++)
				;
			if (next >= n || text[next] == '\n' || line_ends_sentence(text, n, *begin, i, next)) {
				*end = i;
				goto found;
			}
			i++;
			continue;
		}
		i += (size_t)len;
		if (!is_cjk_stop(cp) && cp != '.' && cp != '!' && cp != '?' && cp != 0x2026)
			continue;
		/* "?!", "...", then closing quotes. */
		while ((k = char_at(text, n, i, &after)) &&
		       (after == '.' || after == '!' || after == '?' || after == 0x2026 || is_cjk_stop(after)))
			i += (size_t)k;
		stop = i;
		while ((k = char_at(text, n, i, &after)) && is_closing(after))
			i += (size_t)k;
		if (is_cjk_stop(cp)) {
			*end = i;
			return true;
		}
		k = char_at(text, n, i, &after);
		if (k && !ruv_unicode_is_space(after)) {
			/* "3.14", "file.txt", "word.[1]": go on behind the stop, a quote may belong to what follows. */
			i = stop;
			continue;
		}
		for (next = i; (k = char_at(text, n, next, &after)) && after != '\n' && ruv_unicode_is_space(after);
		     next += (size_t)k)
			;
		if (k && after == '\n')
			for (; (k = char_at(text, n, next, &after)) && ruv_unicode_is_space(after); next += (size_t)k)
				;
		follow = k ? after : 0;
		while (k && is_opening(follow)) {
			next += (size_t)k;
			k = char_at(text, n, next, &follow);
			if (!k)
				follow = 0;
		}
		if (k && ruv_unicode_is_lower(follow) && !memchr(text + i, '\n', next - i))
			continue;
		if (cp == '.' && stop == first + 1 && is_abbreviation(text, *begin, first, follow))
			continue;
		*end = i;
		return true;
	}
	*end = n;
found:
	while (*end > *begin && (is_blank(text[*end - 1]) || text[*end - 1] == '\n' || text[*end - 1] == '\r'))
		--*end;
	return true;
}

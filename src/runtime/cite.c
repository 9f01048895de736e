/* cite.c - what the model cited, and whether it really stands there. What it did not cite is never claimed. Layer: runtime. */
#include "runtime/cite.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_space(char c)
{
	return c && strchr(" \t\n\r\f\v", c);
}

/* "[12]" at p: its number and length, 0 when there is none. */
static int read_mark(const char *p, int *number)
{
	int n = 1, value = 0;

	if (*p != '[')
		return 0;
	while (n < 5 && isdigit((unsigned char)p[n]))
		value = 10 * value + (p[n++] - '0');
	if (n == 1 || p[n] != ']' || value == 0)
		return 0;
	*number = value;
	return n + 1;
}

static void add_mark(ruv_cite_parts *parts, int number, size_t begin, size_t end)
{
	for (int i = 0; i < parts->n_marks; i++)
		if (parts->marks[i].number == number && parts->marks[i].begin == begin)
			return;
	if (begin == end) /* a mark without a quote adds nothing to a source that is cited already */
		for (int i = 0; i < parts->n_marks; i++)
			if (parts->marks[i].number == number)
				return;
	if (parts->n_marks < RUV_ANSWER_MAX_CITATIONS)
		parts->marks[parts->n_marks++] = (ruv_cite_mark){number, begin, end};
}

/* The model's way of saying that it does not know, with either apostrophe, at the start of the text. */
static bool says_unknown(const char *text)
{
	static const char *const forms[] = {"I don't know", "I don\xe2\x80\x99t know", "I do not know"};

	for (int i = 0; i < 3; i++)
		if (!strncasecmp(text, forms[i], strlen(forms[i])))
			return true;
	return false;
}

void ruv_cite_parse(ruv_cite_parts *parts, const char *text)
{
	size_t n = strlen(text), line = 0, quote_end = 0;
	bool answered = false;

	memset(parts, 0, sizeof *parts);
	while (n && is_space(text[n - 1]))
		n--;
	while (line < n && is_space(text[line]))
		line++;
	parts->answer_begin = line;
	parts->answer_end = n;
	if (says_unknown(text + line)) {
		parts->unknown = true;
		return;
	}
	while (line < n) {
		const char *newline = memchr(text + line, '\n', n - line);
		size_t end = newline ? (size_t)(newline - text) : n, begin = line;
		int number, len;

		while (begin < end && is_space(text[begin]))
			begin++;
		len = read_mark(text + begin, &number);
		if (!strncmp(text + begin, "Answer:", 7)) {
			answered = true;
			parts->answer_begin = begin + 7;
			end = n;
		} else if (len) {
			size_t from = begin + (size_t)len, to = end;

			while (from < to && is_space(text[from]))
				from++;
			while (to > from && is_space(text[to - 1]))
				to--;
			add_mark(parts, number, from, to);
			quote_end = end;
		}
		if (!len || answered) /* marks inside the text */
			for (size_t i = begin; i < end; i++)
				if (text[i] == '[' && (len = read_mark(text + i, &number)) != 0)
					add_mark(parts, number, i, i);
		line = end + 1;
	}
	/* Quotes and then plain words: those are the answer. Nothing but quotes: the first quote is. */
	if (!answered && quote_end) {
		if (quote_end < n) {
			parts->answer_begin = quote_end;
		} else if (parts->marks[0].begin < parts->marks[0].end) {
			parts->answer_begin = parts->marks[0].begin;
			parts->answer_end = parts->marks[0].end;
		}
	}
	while (parts->answer_begin < parts->answer_end && is_space(text[parts->answer_begin]))
		parts->answer_begin++;
	if (says_unknown(text + parts->answer_begin) && answered) {
		parts->unknown = true;
		parts->n_marks = 0;
	}
}

/* Compares quote[0..n) with the text at p; white space of any length equals any other. */
static bool matches_at(const char *p, const char *quote, size_t n)
{
	size_t i = 0;

	while (i < n) {
		if (is_space(quote[i])) {
			if (!is_space(*p))
				return false;
			while (i < n && is_space(quote[i]))
				i++;
			while (is_space(*p))
				p++;
		} else if (*p++ != quote[i++]) {
			return false;
		}
	}
	return true;
}

bool ruv_cite_is_verbatim(const char *source, const char *text, size_t n)
{
	while (n && is_space(*text)) {
		text++;
		n--;
	}
	while (n && is_space(text[n - 1]))
		n--;
	if (n == 0)
		return false;
	for (const char *p = source; *p; p++)
		if (*p == *text && matches_at(p, text, n))
			return true;
	return false;
}

/* Letters, digits and every byte of other scripts. */
static bool counts(unsigned char c)
{
	return isalnum(c) || c >= 0x80;
}

int ruv_cite_find_line(const char *bytes, size_t n_bytes, int first_line, int last_line, const char *quote, size_t n_quote)
{
	size_t at = 0;
	int line = 1;

	while (line < first_line && at < n_bytes) {
		const char *newline = memchr(bytes + at, '\n', n_bytes - at);

		if (!newline)
			return 0;
		at = (size_t)(newline - bytes) + 1;
		line++;
	}
	while (n_quote && !counts((unsigned char)*quote)) {
		quote++;
		n_quote--;
	}
	if (n_quote == 0)
		return 0;
	for (; at < n_bytes && line <= last_line; at++) {
		if (bytes[at] == '\n') {
			line++;
			continue;
		}
		if (bytes[at] != *quote)
			continue;
		size_t i = at, j = 0, same = 0;

		/* The first forty letters decide: a quote may go beyond what markup leaves contiguous. */
		while (j < n_quote && same < 40) {
			if (!counts((unsigned char)quote[j])) {
				j++;
			} else if (i < n_bytes && !counts((unsigned char)bytes[i])) {
				i++;
			} else if (i < n_bytes && bytes[i] == quote[j]) {
				i++;
				j++;
				same++;
			} else {
				break;
			}
		}
		while (j < n_quote && !counts((unsigned char)quote[j]))
			j++;
		if (same >= 40 || j == n_quote)
			return line;
	}
	return 0;
}

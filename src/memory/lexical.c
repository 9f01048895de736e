/* lexical.c - from a question to search terms; see lexical.h.
 *
 * The home stems and folds (FTS5: porter over unicode61), so a term here is the word as it was written. Words are told apart
 * without regard to ASCII case. Every byte above 0x7f counts as a letter: the home splits such a term further where its tokenizer
 * sees a separator (an emoji, a dash), which makes it a phrase; a term in which it sees no word matches nothing. Layer: memory. */
#include "memory/lexical.h"

#include <string.h>
#include <strings.h>

/* Question words, articles, pronouns, auxiliaries and prepositions that say nothing about the topic. */
static const char *const stop_words[] = {
    "a",     "about", "am",    "an",    "and",    "any",   "are",  "as",    "at",   "be",   "been", "being", "but",   "by",
    "can",   "could", "did",   "do",    "does",   "doing", "for",  "from",  "had",  "has",  "have", "he",    "her",   "hers",
    "him",   "his",   "how",   "i",     "if",     "in",    "into", "is",    "it",   "its",  "me",   "my",    "of",    "on",
    "or",    "our",   "shall", "she",   "should", "so",    "such", "tell",  "than", "that", "the",  "their", "them",  "then",
    "there", "these", "they",  "this",  "those",  "to",    "us",   "was",   "we",   "were", "what", "when",  "where", "which",
    "while", "who",   "whom",  "whose", "why",    "will",  "with", "would", "you",  "your", "s",    "t",
};

static bool is_word(unsigned char c)
{
	return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool same(const ruv_store_term *a, const char *text, int n)
{
	return a->n == n && !strncasecmp(a->text, text, (size_t)n);
}

bool ruv_lexical_is_stop_word(const char *text, int n)
{
	ruv_store_term term = {text, n};

	for (size_t i = 0; i < sizeof stop_words / sizeof *stop_words; i++)
		if (same(&term, stop_words[i], (int)strlen(stop_words[i])))
			return true;
	return false;
}

int ruv_lexical_terms(ruv_store_term terms[RUV_LEXICAL_MAX_TERMS], const char *text)
{
	int n = 0, n_content = 0;

	for (const char *p = text; *p && n_content < RUV_LEXICAL_MAX_TERMS;) {
		ruv_store_term term = {p, 0};
		bool seen = false;
		if (!is_word((unsigned char)*p)) {
			p++;
			continue;
		}
		while (is_word((unsigned char)*p) && p - term.text < 256)
			p++;
		term.n = (int)(p - term.text);
		for (int i = 0; i < n && !seen; i++)
			seen = same(&terms[i], term.text, term.n);
		if (seen)
			continue;
		/* Content words stand before stop words; a content word pushes out the last stop word when the list is full. */
		if (ruv_lexical_is_stop_word(term.text, term.n)) {
			if (n < RUV_LEXICAL_MAX_TERMS)
				terms[n++] = term;
			continue;
		}
		if (n == RUV_LEXICAL_MAX_TERMS)
			n--;
		memmove(terms + n_content + 1, terms + n_content, (size_t)(n - n_content) * sizeof *terms);
		terms[n_content++] = term;
		n++;
	}
	return n_content ? n_content : n;
}

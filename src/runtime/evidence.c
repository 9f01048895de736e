/* evidence.c - sentences of the sources against a question: see evidence.h.
 *
 * Words are runs of letters and digits, lower-cased, reduced to Snowball's English stem; words that say nothing about what is asked
 * for are left out. A word weighs log((n + 1) / (n_with_it + 1/2)) over the sentences of the prompt: what every sentence has cannot
 * tell them apart. Words are kept as 64-bit hashes: two of them colliding would move a weight, nothing else. Layer: runtime. */
#include "runtime/evidence.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <libstemmer.h>

#include "base/hash.h"
#include "base/status.h"
#include "text/chunk.h"

static const char where[] = "evidence";

enum { MAX_SENTENCES = 1024, MAX_QUESTION_WORDS = 64, MAX_WORD = 64 };

/* Fitted by maximum likelihood of the right sentence, 438 development questions (292 of Wikipedia articles, 146 of web searches).
 */
static const float weight_overlap = 6.7F, weight_passage = 11.8F, weight_around = 1.7F, weight_cosine = 4.0F;

/* Words that do not tell sentences apart, question words among them. */
static bool is_stop_word(const char *word)
{
	static const char *const words[] = {
	    "a",    "an",  "and",  "are", "as",   "at",   "be",   "been",  "by",    "did",  "do",   "does", "for",  "from", "her",
	    "his",  "how", "in",   "is",  "it",   "its",  "kind", "many",  "much",  "name", "of",   "on",   "or",   "that", "the",
	    "this", "to",  "type", "was", "were", "what", "when", "where", "which", "who",  "whom", "why",  "with", "their"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(words[i], word))
			return true;
	return false;
}

/* Walks words. */
typedef struct words {
	struct sb_stemmer *stemmer;
	const char *at, *end;
} words;

/* The next word's hash; false at the end. Stop words are passed over when `skip`. */
static bool next_word(words *w, bool skip, uint64_t *hash)
{
	char word[MAX_WORD];

	while (w->at < w->end) {
		size_t n = 0;

		while (w->at < w->end && (isalnum((unsigned char)*w->at) || (unsigned char)*w->at >= 0x80)) {
			if (n < MAX_WORD - 1)
				word[n++] = (char)tolower((unsigned char)*w->at);
			w->at++;
		}
		if (n == 0) {
			w->at++;
			continue;
		}
		word[n] = 0;
		if (skip && is_stop_word(word))
			continue;

		const sb_symbol *stem = sb_stemmer_stem(w->stemmer, (const sb_symbol *)word, (int)n);

		*hash = stem ? ruv_hash64(stem, (size_t)sb_stemmer_length(w->stemmer), 0) : ruv_hash64(word, n, 0);
		return true;
	}
	return false;
}

/* The question's words, each once: [MAX_QUESTION_WORDS]. */
static int question_words(uint64_t *out, struct sb_stemmer *stemmer, const char *question)
{
	words w = {stemmer, question, question + strlen(question)};
	uint64_t hash;
	int n = 0;

	while (n < MAX_QUESTION_WORDS && next_word(&w, true, &hash)) {
		bool known = false;

		for (int i = 0; i < n; i++)
			known |= out[i] == hash;
		if (!known)
			out[n++] = hash;
	}
	return n;
}

/* Which of the question's words [n] a text has, as bits. */
static uint64_t words_of(struct sb_stemmer *stemmer, const char *text, size_t n_bytes, const uint64_t *wanted, int n)
{
	words w = {stemmer, text, text + n_bytes};
	uint64_t hash, found = 0;

	while (next_word(&w, false, &hash))
		for (int i = 0; i < n; i++)
			if (wanted[i] == hash)
				found |= (uint64_t)1 << i;
	return found;
}

static float weigh(uint64_t has, const float *weights, int n, float total)
{
	float sum = 0;

	for (int i = 0; i < n; i++)
		if (has >> i & 1)
			sum += weights[i];
	return total > 0 ? sum / total : 0;
}

/* Places of all sentences; text pointers are offsets until the buffer stands still. */
static int split(ruv_evidence *e, const ruv_context_source *sources, int n_sources, ruv_error *err)
{
	size_t *begins = calloc(MAX_SENTENCES, sizeof *begins), b, end;

	e->items = calloc(MAX_SENTENCES, sizeof *e->items);
	if (!e->items || !begins) {
		free(begins);
		return ruv_fail_memory(err, where, MAX_SENTENCES * sizeof *e->items);
	}
	for (int s = 0; s < n_sources; s++) {
		ruv_buf squashed;

		ruv_buf_init(&squashed, (size_t)1 << 24);
		ruv_context_squash(&squashed, sources[s].text);
		for (size_t from = 0;
		     e->n < MAX_SENTENCES && !squashed.failed && ruv_sentence_next(squashed.data, squashed.len, from, &b, &end);
		     from = end > from ? end : from + 1) {
			e->items[e->n].source = s;
			e->items[e->n].n_bytes = end - b;
			begins[e->n++] = e->text.len;
			ruv_buf_append(&e->text, squashed.data + b, end - b);
			ruv_buf_append(&e->text, "", 1);
		}
		if (squashed.failed)
			e->text.failed = squashed.failed;
		ruv_buf_release(&squashed);
	}
	for (int i = 0; i < e->n; i++)
		e->items[i].text = e->text.data + begins[i];
	free(begins);
	return e->text.failed ? ruv_fail_memory(err, where, e->text.len) : RUV_OK;
}

static void rescore(ruv_evidence *e)
{
	for (int i = 0; i < e->n; i++) {
		ruv_sentence_evidence *s = &e->items[i];

		s->score = weight_overlap * s->overlap + weight_passage * s->passage + weight_around * s->around +
		           weight_cosine * s->cosine;
	}
}

int ruv_evidence_open(ruv_evidence *out, const ruv_context_source *sources, int n_sources, const char *question, ruv_error *err)
{
	struct sb_stemmer *stemmer = sb_stemmer_new("english", NULL);
	uint64_t wanted[MAX_QUESTION_WORDS], *has = calloc(MAX_SENTENCES, sizeof *has);
	float weights[MAX_QUESTION_WORDS], total = 0;
	int n_wanted, rc;

	memset(out, 0, sizeof *out);
	ruv_buf_init(&out->text, (size_t)1 << 24);
	if (!stemmer || !has) {
		rc = ruv_fail_memory(err, where, MAX_SENTENCES * sizeof *has);
		goto done;
	}
	rc = split(out, sources, n_sources, err);
	if (rc)
		goto done;
	n_wanted = question_words(wanted, stemmer, question);
	for (int i = 0; i < out->n; i++)
		has[i] = words_of(stemmer, out->items[i].text, out->items[i].n_bytes, wanted, n_wanted);
	for (int i = 0; i < n_wanted; i++) {
		int n_with = 0;

		for (int j = 0; j < out->n; j++)
			n_with += (int)(has[j] >> i & 1);
		weights[i] = logf((float)(out->n + 1) / ((float)n_with + 0.5F));
		total += weights[i];
	}
	for (int i = 0; i < out->n; i++) {
		ruv_sentence_evidence *s = &out->items[i];
		const char *title = sources[s->source].title;
		uint64_t near = 0, all = title ? words_of(stemmer, title, strlen(title), wanted, n_wanted) : 0;

		for (int j = 0; j < out->n; j++)
			if (out->items[j].source == s->source) {
				all |= has[j];
				near |= j == i - 1 || j == i + 1 ? has[j] : 0;
			}
		s->overlap = weigh(has[i], weights, n_wanted, total);
		s->around = weigh(near & ~has[i], weights, n_wanted, total);
		s->passage = weigh(all, weights, n_wanted, total);
	}
	rescore(out);
done:
	sb_stemmer_delete(stemmer);
	free(has);
	if (rc)
		ruv_evidence_release(out);
	return rc;
}

void ruv_evidence_release(ruv_evidence *evidence)
{
	free(evidence->items);
	ruv_buf_release(&evidence->text);
	memset(evidence, 0, sizeof *evidence);
}

void ruv_evidence_add_cosines(ruv_evidence *evidence, const float *cosines)
{
	for (int i = 0; i < evidence->n; i++)
		evidence->items[i].cosine = cosines[i];
	rescore(evidence);
}

int ruv_evidence_best(const ruv_evidence *evidence)
{
	int best = -1;

	for (int i = 0; i < evidence->n; i++)
		if (best < 0 || evidence->items[i].score > evidence->items[best].score)
			best = i;
	return best;
}

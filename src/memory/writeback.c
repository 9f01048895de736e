/* writeback.c - answers into memory: what is worth keeping, what is there already, what contradicts it.
 *
 * A pair is compared with the pairs of exactly its scope that are near it by vector or share its words (so that a text which the
 * vectors miss is still found, and pairs of the same call are seen, which no index in memory has yet). Two pairs are about one
 * question when their vectors are near (near_cosine) or their texts are (MinHash >= 0.8) or the one's words are all the other's,
 * and the words of their questions, greetings and thanks aside, agree: what one question has and the other lacks may only be
 * filler, never a number, a name, or a word in another's place, and both ask alike (who, when, where, why, how). Then their answers
 * decide: they agree merged: the old pair stays, its confidence becomes 1 - (1 - a)(1 - b) one says more           superseded when
 * the new one's quality is higher, else merged they disagree           both stay, linked (SameTopic by "contradiction"), the less
 * sure one loses half its confidence; equally sure: the older A pair that is merely near (0.8 and up) is linked as SameTopic.
 * Layer: memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/lexical.h"
#include "memory/memory_impl.h"
#include "memory/minhash.h"

enum { N_CANDIDATES = 16, MAX_WORDS = 512, MAX_TOPIC_EDGES = 3 };

static const float near_jaccard = 0.8f, topic_cosine = 0.8f;

/* ---- words ---- */

typedef struct word {
	uint64_t stem; /* hash of the folded, shortened word */
	bool number;   /* has a digit */
	bool name;     /* began with a capital letter, not at the text's beginning */
	bool negation;
	bool asks; /* who, when, where, why, how: what a question is after */
} word;

typedef struct words {
	word items[MAX_WORDS]; /* by stem, each once */
	int n;
} words;

static int by_stem(const void *x, const void *y)
{
	uint64_t a = ((const word *)x)->stem, b = ((const word *)y)->stem;

	return a < b ? -1 : a > b;
}

/* Where a word ends without its inflection: enough to take "starts", "started" and "starting" for one. */
static size_t stem_length(const char *w, size_t n)
{
	static const char *const endings[] = {"ing", "ed", "es", "s", "'s"};

	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t e = strlen(endings[i]);
		if (n >= e + 4 && !memcmp(w + n - e, endings[i], e))
			return n - e;
	}
	return n;
}

static bool is_negation(const char *w, size_t n)
{
	static const char *const list[] = {"no", "not", "never", "none", "without", "cannot", "nor"};

	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		if (strlen(list[i]) == n && !memcmp(w, list[i], n))
			return true;
	return n > 3 && !memcmp(w + n - 3, "n't", 3);
}

static bool is_asking(const char *w, size_t n)
{
	static const char *const list[] = {"who", "whom", "whose", "when", "where", "why", "how"};

	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		if (strlen(list[i]) == n && !memcmp(w, list[i], n))
			return true;
	return false;
}

/* Lower case, compatibility forms as one; at most cap bytes of it. Returns the length, or a status. */
static int fold(char *to, size_t cap, const char *from, size_t n, ruv_error *err)
{
	utf8proc_uint8_t *folded = NULL;
	utf8proc_ssize_t length;
	size_t i = 0;

	for (; i < n && i < cap && (unsigned char)from[i] < 0x80; i++)
		to[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] + 'a' - 'A') : from[i];
	if (i == n || i == cap)
		return (int)i;
	length = utf8proc_map((const utf8proc_uint8_t *)from, (utf8proc_ssize_t)n, &folded,
	                      (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_COMPAT));
	if (length < 0)
		return ruv_fail(err, length == UTF8PROC_ERROR_NOMEM ? RUV_ENOMEM : RUV_EFORMAT, "memory",
		                "a text cannot be folded: %s", utf8proc_errmsg(length));
	if ((size_t)length > cap)
		length = (utf8proc_ssize_t)cap;
	memcpy(to, folded, (size_t)length);
	free(folded);
	return (int)length;
}

static bool is_letter(unsigned char c)
{
	return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

/* The words of text[0..n) that carry meaning. A number keeps what joins its digits ("02:00", "3.5"), a word its apostrophe. */
static int words_of(words *out, const char *text, size_t n, bool question, ruv_error *err)
{
	int kept = 0;

	out->n = 0;
	for (size_t at = 0; at < n && out->n < MAX_WORDS;) {
		size_t from = at;
		char folded[256];
		word w = {0};
		int length;
		for (; at < n; at++) {
			unsigned char c = (unsigned char)text[at];
			w.number |= is_digit(c);
			if (is_letter(c) || is_digit(c))
				continue;
			if (at > from && at + 1 < n && c == '\'' && is_letter((unsigned char)text[at + 1]))
				continue;
			if (at > from && at + 1 < n && strchr(".:,/-", c) && is_digit((unsigned char)text[at - 1]) &&
			    is_digit((unsigned char)text[at + 1]))
				continue;
			break;
		}
		if (at == from) {
			at++;
			continue;
		}
		w.name = from > 0 && text[from] >= 'A' && text[from] <= 'Z';
		length = fold(folded, sizeof folded, text + from, at - from, err);
		if (length < 0)
			return length;
		w.negation = is_negation(folded, (size_t)length);
		w.asks = question && is_asking(folded, (size_t)length);
		if (!w.negation && !w.asks && ruv_lexical_is_stop_word(folded, length))
			continue;
		w.stem = ruv_hash64(folded, w.number ? (size_t)length : stem_length(folded, (size_t)length), 0);
		out->items[out->n++] = w;
	}
	qsort(out->items, (size_t)out->n, sizeof *out->items, by_stem);
	for (int i = 0; i < out->n; i++) {
		if (i && out->items[kept - 1].stem == out->items[i].stem)
			continue;
		out->items[kept++] = out->items[i];
	}
	out->n = kept;
	return RUV_OK;
}

typedef struct overlap {
	int both, only_a, only_b;
	bool numbers_differ, names_differ, negation_differs, asks_differ;
} overlap;

static bool has(const words *set, uint64_t stem)
{
	word key = {.stem = stem};

	return bsearch(&key, set->items, (size_t)set->n, sizeof key, by_stem) != NULL;
}

/* Compares two sets of words, leaving out those that are in `except` (NULL: none). */
static overlap compare(const words *a, const words *b, const words *except)
{
	overlap o = {0};

	for (int side = 0; side < 2; side++) {
		const words *x = side ? b : a, *y = side ? a : b;
		for (int i = 0; i < x->n; i++) {
			const word *w = &x->items[i];
			if (except && has(except, w->stem))
				continue;
			if (has(y, w->stem)) {
				o.both += side == 0 && !w->asks;
				continue;
			}
			if (w->asks) {
				o.asks_differ = true;
				continue;
			}
			*(side ? &o.only_b : &o.only_a) += 1;
			o.numbers_differ |= w->number;
			o.names_differ |= w->name;
			o.negation_differs |= w->negation;
		}
	}
	return o;
}

static bool one_question(const words *a, const words *b, bool answers_agree)
{
	overlap o = compare(a, b, NULL);
	double jaccard = o.both + o.only_a + o.only_b ? (double)o.both / (o.both + o.only_a + o.only_b) : 0;

	if (o.numbers_differ || o.names_differ || o.negation_differs)
		return false;
	/* "When ..." and "at what time ..." are one question if they have one answer; "when ..." and "where ..." never have. */
	if (o.asks_differ && !answers_agree)
		return false;
	if (!o.only_a || !o.only_b) /* one only leaves filler out */
		return jaccard >= (answers_agree ? 0.6 : 0.8);
	/* A word stands where another stood: a synonym only if the answer is the same, too. */
	return answers_agree && jaccard >= 0.5;
}

/* Every word of a's is one of b's. */
static bool same_words(const words *a, const words *b)
{
	overlap o = compare(a, b, NULL);

	return o.both > 0 && !o.only_a;
}

typedef enum agreement { AGREE, SAYS_MORE, DISAGREE } agreement;

static agreement compare_answers(const words *a, const words *b, const words *question)
{
	overlap o = compare(a, b, question); /* "The backup starts at 02:00" and "02:00" say the same about when it starts */
	double jaccard;

	if (o.both + o.only_a == 0 || o.both + o.only_b == 0)
		o = compare(a, b, NULL);
	if (o.numbers_differ && o.only_a && o.only_b)
		return DISAGREE;
	if (o.negation_differs)
		return DISAGREE;
	if (!o.only_a && !o.only_b)
		return AGREE;
	jaccard = (double)o.both / (o.both + o.only_a + o.only_b);
	if (!o.both)
		return DISAGREE;
	if (!o.only_a || !o.only_b)
		return jaccard >= 0.7 ? AGREE : SAYS_MORE;
	if (o.names_differ && jaccard < 0.7)
		return DISAGREE;
	return jaccard >= 0.7 ? AGREE : jaccard >= 0.34 ? SAYS_MORE : DISAGREE;
}

/* ---- junk ---- */

static bool starts_with(const char *text, const char *prefix)
{
	return !strncasecmp(text, prefix, strlen(prefix));
}

/* Why an answer must not come back as knowledge; NULL: it may. */
static const char *junk(const ruv_memory_answer *item, const char *answer)
{
	static const char *const refusals[] = {
	    "i don't know",
	    "i do not know",
	    "i dont know",
	    "i'm sorry",
	    "i am sorry",
	    "sorry,",
	    "i cannot",
	    "i can't",
	    "i can not",
	    "i'm not able",
	    "i am not able",
	    "i'm unable",
	    "i am unable",
	    "as an ai",
	    "as a language model",
	    "as a large language model",
	    "i don't have",
	    "i do not have",
	    "no information",
	    "not enough information",
	    "the sources do not",
	    "the context does not",
	    "there is no information",
	    "error:",
	    "unknown",
	};
	static const char *const leftovers[] = {
	    "<|",
	    "|>",
	    "[INST]",
	    "[/INST]",
	    "<<SYS>>",
	    "</s>",
	    "<tool_call>",
	    "You are a helpful assistant",
	    "system prompt",
	    "Traceback (most recent call last)",
	    "Answer the question from the sources",
	};
	ruv_minhash a, s;
	size_t n = strlen(answer);
	bool letters = false;

	for (const char *p = answer; *p && !letters; p++)
		letters =
		    (unsigned char)*p >= 0x80 || (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
	if (!letters)
		return "the answer has no word in it";
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
		if (starts_with(answer, refusals[i]))
			return "the answer is a refusal";
	for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
		if (strcasestr(answer, leftovers[i]) || strcasestr(item->question, leftovers[i]))
			return "a prompt's leftovers";
	ruv_minhash_text(&a, answer, n);
	ruv_minhash_text(&s, item->question, strlen(item->question));
	if (ruv_minhash_similarity(&a, &s) > 0.95f)
		return "the answer repeats the question";
	/* A sentence quoted from a source is an answer; the source as a whole is only the source again. */
	for (int i = 0; i < item->n_sources; i++) {
		size_t n_source = strlen(item->sources[i]);
		if (n < 60 || n < n_source / 2)
			continue;
		ruv_minhash_text(&s, item->sources[i], n_source);
		if (ruv_minhash_similarity(&a, &s) > 0.8f)
			return "the answer repeats a whole source";
	}
	return NULL;
}

/* ---- one answer ---- */

typedef struct pair {
	words question, answer;
	ruv_minhash hash;
} pair;

typedef struct writing {
	ruv_memory *m;
	int dimension;
	int64_t now_ms;
	ruv_arena arena; /* of one answer */
	pair mine, theirs;
} writing;

/* What people put before and behind a question without changing it. */
static const char *const courtesies[] = {"please tell me",
                                         "please",
                                         "i would like to know",
                                         "i'd like to know",
                                         "i want to know",
                                         "do you know",
                                         "can you tell me",
                                         "could you tell me",
                                         "would you tell me",
                                         "tell me",
                                         "i wonder",
                                         "i was wondering",
                                         "quick question",
                                         "hi",
                                         "hello",
                                         "hey",
                                         "so",
                                         "well",
                                         "ok",
                                         "okay",
                                         "thanks",
                                         "thank you",
                                         "thanks in advance",
                                         "many thanks"};

static bool is_joint(char c)
{
	return strchr(" \t\r\n,.:;!?-", c) != NULL;
}

/* The question's own part of text[0..*n): *text and *n move past greetings and thanks, unless nothing would be left. */
static void strip_courtesy(const char **text, size_t *n)
{
	bool again = true;

	while (again) {
		const char *p = *text;
		size_t left = *n;
		again = false;
		while (left && is_joint(*p)) {
			p++;
			left--;
		}
		for (size_t i = 0; i < sizeof courtesies / sizeof *courtesies; i++) {
			size_t l = strlen(courtesies[i]), behind;
			if (left > l && !strncasecmp(p, courtesies[i], l) && is_joint(p[l])) {
				*text = p + l;
				*n = left - l;
				again = true;
				break;
			}
			for (behind = left; behind && is_joint(p[behind - 1]); behind--)
				;
			if (behind > l && !strncasecmp(p + behind - l, courtesies[i], l) && is_joint(p[behind - l - 1]) && l > 4) {
				*text = p;
				*n = behind - l;
				again = true;
				break;
			}
		}
	}
}

static int read_pair(pair *to, const char *question, size_t n_question, const char *answer, const char *whole, ruv_error *err)
{
	int rc;

	strip_courtesy(&question, &n_question);
	rc = words_of(&to->question, question, n_question, true, err);
	if (!rc)
		rc = words_of(&to->answer, answer, strlen(answer), false, err);
	ruv_minhash_text(&to->hash, whole, strlen(whole));
	return rc;
}

static double cosine(const float *a, const float *b, int n)
{
	double dot = 0, na = 0, nb = 0;

	for (int i = 0; i < n; i++) {
		dot += (double)a[i] * b[i];
		na += (double)a[i] * a[i];
		nb += (double)b[i] * b[i];
	}
	return na > 0 && nb > 0 ? dot / sqrt(na * nb) : 0;
}

static bool same_scope(const ruv_memory_scope *a, const ruv_memory_scope *b)
{
#define SAME(x, y) !strcmp((x) ? (x) : "", (y) ? (y) : "")
	return SAME(a->user, b->user) && SAME(a->agent, b->agent) && SAME(a->session, b->session);
#undef SAME
}

/* The pairs to compare with, by vector (what is committed) and by words (this transaction's, too). */
static int find_candidates(writing *w, const ruv_memory_answer *item, ruv_memory_node **nodes, bool **found, int *n, ruv_error *err)
{
	ruv_memory_filter filter = {.scope = item->scope, .types = 1u << RUV_NODE_QA_PAIR};
	ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
	ruv_store_match matches[N_CANDIDATES];
	ruv_near near[N_CANDIDATES];
	int64_t keys[2 * N_CANDIDATES];
	int n_terms, n_matches = 0, n_near = 0, rc;

	n_terms = ruv_lexical_terms(terms, item->question);
	rc = w->m->store->ops->lexical(w->m->store, matches, &n_matches, terms, n_terms, &filter, N_CANDIDATES, err);
	if (!rc)
		rc = ruv_memory_sync(w->m, true, err);
	if (!rc) {
		ruv_index *index = atomic_load(&w->m->index);
		int stride = ruv_vectors_stride(ruv_index_vectors(index));
		float *unit = aligned_alloc(64, sizeof *unit * (size_t)stride);
		ruv_index_query query = {
		    .unit = unit, .k = N_CANDIDATES, .min_cosine = topic_cosine, .filter = &filter, .now_ms = w->now_ms};
		double norm = 0;
		if (!unit)
			return ruv_fail_memory(err, "memory", sizeof *unit * (size_t)stride);
		for (int i = 0; i < w->dimension; i++)
			norm += (double)item->vector[i] * item->vector[i];
		for (int i = 0; i < stride; i++)
			unit[i] = i < w->dimension ? (float)(item->vector[i] / sqrt(norm)) : 0;
		rc = ruv_index_search(near, &n_near, index, &query, NULL, err);
		free(unit);
	}
	if (rc)
		return rc;
	*n = 0;
	for (int i = 0; i < n_near; i++)
		keys[(*n)++] = near[i].key;
	for (int i = 0; i < n_matches; i++) {
		bool seen = false;
		for (int j = 0; j < n_near && !seen; j++)
			seen = near[j].key == matches[i].key;
		if (!seen)
			keys[(*n)++] = matches[i].key;
	}
	*nodes = ruv_arena_calloc(&w->arena, (size_t)*n + 1, sizeof **nodes);
	*found = ruv_arena_calloc(&w->arena, (size_t)*n + 1, sizeof **found);
	if (!*nodes || !*found)
		return ruv_fail_memory(err, "memory", (size_t)*n * sizeof **nodes);
	return w->m->store->ops->nodes_by_key(w->m->store, &w->arena, *nodes, *found, keys, *n, &filter, true, err);
}

static int put_edge(writing *w, const char *src, const char *dst, ruv_edge_type type, float weight, const char *by, ruv_error *err)
{
	ruv_memory_edge edge = {.type = type, .weight = weight, .created_by = by};
	int rc;

	snprintf(edge.src, sizeof edge.src, "%s", src);
	snprintf(edge.dst, sizeof edge.dst, "%s", dst);
	if (!strcmp(edge.src, edge.dst))
		return RUV_OK;
	rc = ruv_edge_check(&edge, w->now_ms, err);
	return rc ? rc : w->m->store->ops->edge_put(w->m->store, &edge, err);
}

/* The edges that every kept answer gets. */
static int link_answer(writing *w, const ruv_memory_answer *item, const char *id, ruv_error *err)
{
	const char *by = item->created_by && *item->created_by ? item->created_by : "writeback";
	int rc = RUV_OK;

	for (int i = 0; !rc && i < item->n_cited; i++)
		rc = put_edge(w, id, item->cited[i], RUV_EDGE_CITES, item->quality, by, err);
	if (!rc && item->previous)
		rc = put_edge(w, id, item->previous, RUV_EDGE_FOLLOWS, 1, by, err);
	return rc;
}

/* Rewrites a node with a new confidence and, when text is not NULL, a new text and vector. */
static int change(writing *w, const ruv_memory_node *old, float confidence, const char *text, const float *vector, ruv_error *err)
{
	ruv_memory_node node = *old;

	node.confidence = confidence > 1 ? 1 : confidence < 0.01f ? 0.01f : confidence;
	node.version++;
	node.updated_ms = w->now_ms;
	node.vector = NULL;
	if (text) {
		node.text = text;
		node.vector = vector;
	}
	return w->m->store->ops->node_replace(w->m->store, &node, !text, err);
}

static int store_new(writing *w, const ruv_memory_answer *item, const char *text, char id[RUV_ID_SIZE], ruv_error *err)
{
	ruv_memory_node node = {.type = RUV_NODE_QA_PAIR,
	                        .text = text,
	                        .vector = item->vector,
	                        .scope = item->scope,
	                        .domain = item->domain,
	                        .tags = item->tags,
	                        .n_tags = item->n_tags,
	                        .confidence = item->quality > 0.01f ? item->quality : 0.01f};
	int64_t key;
	int rc;

	ruv_uuid_format(ruv_uuid_make(), node.id);
	rc = ruv_node_check(&node, &w->arena, w->dimension, w->now_ms, err);
	if (!rc)
		rc = w->m->store->ops->node_put(w->m->store, &node, &key, err);
	memcpy(id, node.id, RUV_ID_SIZE);
	return rc;
}

static int write_one(writing *w, ruv_memory_written *out, const ruv_memory_answer *item, ruv_error *err)
{
	float threshold = item->threshold > 0 ? item->threshold : 0.75f,
	      near_cosine = item->near_cosine > 0 ? item->near_cosine : 0.95f;
	const char *answer = item->answer + strspn(item->answer, " \t\r\n");
	size_t n_text = strlen(item->question) + strlen(answer) + 8;
	ruv_memory_node *nodes = NULL, *other = NULL;
	bool *found = NULL, contradicts = false;
	agreement how = AGREE;
	char *text;
	int n = 0, n_topics = 0, rc;

	memset(out, 0, sizeof *out);
	if (item->quality < threshold) {
		out->as = RUV_WRITTEN_NOT_GOOD;
		out->why = "the quality is below the threshold";
		return RUV_OK;
	}
	out->why = junk(item, answer);
	if (out->why) {
		out->as = RUV_WRITTEN_JUNK;
		return RUV_OK;
	}
	text = ruv_arena_alloc(&w->arena, n_text);
	if (!text)
		return ruv_fail_memory(err, "memory", n_text);
	snprintf(text, n_text, "Q: %s\nA: %s", item->question, answer);
	rc = read_pair(&w->mine, item->question, strlen(item->question), answer, text, err);
	if (!rc)
		rc = find_candidates(w, item, &nodes, &found, &n, err);
	if (rc)
		return rc;

	/* The nearest pair that is about the same question; one that agrees goes before one that does not. */
	for (int i = 0; !rc && i < n; i++) {
		const char *split = found[i] ? strstr(nodes[i].text, "\nA: ") : NULL;
		float c, j;
		agreement agrees;
		if (!split || strncmp(nodes[i].text, "Q: ", 3) || !same_scope(&nodes[i].scope, &item->scope))
			continue;
		rc = read_pair(&w->theirs, nodes[i].text + 3, (size_t)(split - nodes[i].text - 3), split + 4, nodes[i].text, err);
		if (rc)
			return rc;
		c = nodes[i].vector ? (float)cosine(item->vector, nodes[i].vector, w->dimension) : 0;
		j = ruv_minhash_similarity(&w->mine.hash, &w->theirs.hash);
		agrees = compare_answers(&w->mine.answer, &w->theirs.answer, &w->mine.question);
		if ((c >= near_cosine || j >= near_jaccard || same_words(&w->mine.question, &w->theirs.question) ||
		     same_words(&w->theirs.question, &w->mine.question)) &&
		    one_question(&w->mine.question, &w->theirs.question, agrees == AGREE)) {
			bool better = !other || (contradicts && agrees != DISAGREE) ||
			              (contradicts == (agrees == DISAGREE) && c > out->cosine);
			if (better) {
				other = &nodes[i];
				contradicts = agrees == DISAGREE;
				how = agrees;
				out->cosine = c;
				out->jaccard = j;
			}
		}
	}

	if (other && !contradicts) {
		bool better = how == SAYS_MORE && item->quality > other->confidence;
		memcpy(out->id, other->id, sizeof out->id);
		memcpy(out->other, other->id, sizeof out->other);
		out->as = better ? RUV_WRITTEN_SUPERSEDED : RUV_WRITTEN_MERGED;
		out->why = better ? "a better answer to a question that is there" : "the same question and answer are there";
		rc = change(w, other, better ? item->quality : 1 - (1 - other->confidence) * (1 - item->quality),
		            better ? text : NULL, item->vector, err);
		return rc ? rc : link_answer(w, item, out->id, err);
	}
	rc = store_new(w, item, text, out->id, err);
	if (!rc)
		rc = link_answer(w, item, out->id, err);
	out->as = RUV_WRITTEN_NEW;
	out->why = "nothing like it is there";
	if (!rc && contradicts) {
		out->as = RUV_WRITTEN_CONTRADICTS;
		out->why = "another answer to the same question is there";
		memcpy(out->other, other->id, sizeof out->other);
		rc = put_edge(w, out->id, other->id, RUV_EDGE_SAME_TOPIC, 1, "contradiction", err);
		if (!rc && item->quality >= other->confidence) {
			rc = change(w, other, other->confidence / 2, NULL, NULL, err);
		} else if (!rc) {
			ruv_memory_node mine;
			rc = w->m->store->ops->node_get(w->m->store, &w->arena, &mine, out->id, err);
			if (!rc)
				rc = change(w, &mine, item->quality / 2, NULL, NULL, err);
		}
	}
	for (int i = 0; !rc && i < n && n_topics < MAX_TOPIC_EDGES; i++) {
		float c = found[i] && nodes[i].vector ? (float)cosine(item->vector, nodes[i].vector, w->dimension) : 0;
		if (c >= topic_cosine && &nodes[i] != other && same_scope(&nodes[i].scope, &item->scope)) {
			rc = put_edge(w, out->id, nodes[i].id, RUV_EDGE_SAME_TOPIC, c, "writeback", err);
			n_topics++;
		}
	}
	return rc;
}

int ruv_memory_write_back(ruv_memory *m, ruv_memory_written *written, const ruv_memory_answer *answers, int n, ruv_error *err)
{
	writing *w;
	int rc = RUV_OK;

	if (n < 0 || n > RUV_MEMORY_MAX_BATCH)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d answers in one call, at most %d are allowed", n,
		                RUV_MEMORY_MAX_BATCH);
	if (n == 0)
		return RUV_OK;
	w = calloc(1, sizeof *w);
	if (!w)
		return ruv_fail_memory(err, "memory", sizeof *w);
	w->m = m;
	w->now_ms = ruv_clock_wall_ms();
	ruv_arena_init(&w->arena);
	ruv_memory_embedder(m, NULL, NULL, &w->dimension);
	for (int i = 0; !rc && i < n; i++) {
		const ruv_memory_answer *a = &answers[i];
		ruv_memory_filter scope = {.scope = a->scope}, checked;
		if (!a->question || !*a->question || !a->answer)
			rc = ruv_fail(err, RUV_EINVAL, "memory", "a question and an answer are needed");
		else if (!a->vector || !w->dimension)
			rc =
			    ruv_fail(err, a->vector ? RUV_EMISMATCH : RUV_EINVAL, "memory",
			             a->vector ? "the memory has no embedder yet: open it with one" : "an answer needs its vector");
		else if (!(a->quality >= 0 && a->quality <= 1))
			rc = ruv_fail(err, RUV_EINVAL, "memory", "quality %g is not in [0, 1]", (double)a->quality);
		else
			rc = ruv_vector_check(a->vector, w->dimension, err);
		if (!rc)
			rc = ruv_filter_check(&checked, &scope, err);
		if (!rc) { /* the pair itself, so that what is wrong with it is found before anything is written */
			ruv_memory_node q = {.text = a->question}, answer = {.text = *a->answer ? a->answer : "-",
			                                                     .tags = a->tags,
			                                                     .n_tags = a->n_tags,
			                                                     .domain = a->domain};
			rc = ruv_node_check(&q, &w->arena, 0, w->now_ms, err);
			if (!rc)
				rc = ruv_node_check(&answer, &w->arena, 0, w->now_ms, err);
		}
		if (rc)
			ruv_error_prefix(err, rc, "answer %d of %d: ", i + 1, n);
	}
	ruv_arena_release(&w->arena);
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		goto done;
	for (int i = 0; !rc && i < n; i++) {
		rc = write_one(w, &written[i], &answers[i], err);
		ruv_arena_release(&w->arena);
	}
	if (rc) {
		m->store->ops->rollback(m->store);
		goto done;
	}
	rc = ruv_memory_commit(m, err);
done:
	ruv_arena_release(&w->arena);
	free(w);
	return rc;
}

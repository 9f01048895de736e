/* words.c - see words.h.
 *
 * Invariants: a term's documents ascend; a dead document has key 0 and still stands in the postings; df counts live ones only.
 * `terms_of` of a document is its distinct terms, so that taking it out finds their counts. Layer: memory. */
#include "memory/words.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "memory/keymap.h"
#include "memory/labels.h"
#include "memory/lexical.h"

enum {
	TITLE_WEIGHT = 2,
	MAX_COUNT = UINT16_MAX,
	ARENA = 1 << 20, /* bytes of a block of words or of documents' terms */
	DEAD_MIN = 4096  /* documents, and a third of all, before postings are packed */
};

#define K1 1.2
#define B 0.75

static const char *const WHERE = "word index";

typedef struct term {
	const char *text;
	uint32_t length;
	uint32_t df;     /* live documents */
	uint32_t n, cap; /* of docs and counts */
	uint32_t *docs;
	uint16_t *counts;     /* weighted */
	uint32_t most, least; /* a bound: the greatest count and the shortest document that there ever was */
} term;

typedef struct document {
	int64_t key; /* 0: dead */
	uint32_t length, n_terms;
	uint32_t *terms_of; /* [n_terms] */
	ruv_labels labels;
} document;

typedef struct block {
	struct block *next;
	size_t used, size;
	unsigned char bytes[];
} block;

/* One search's sums, all zero between searches. */
typedef struct scratch {
	struct scratch *next;
	double *sums; /* [cap] by document */
	uint32_t *touched;
	size_t cap;
} scratch;

struct ruv_words {
	pthread_rwlock_t lock;
	ruv_tokenizer *for_writing, *for_asking;
	pthread_mutex_t asking; /* over for_asking and the list of scratches */
	scratch *scratches;
	ruv_texts texts;

	term *terms;
	uint32_t n_terms, terms_cap;
	uint32_t *buckets; /* term + 1; 0: empty */
	uint32_t n_buckets;
	document *docs;
	uint32_t n_docs, docs_cap;
	int64_t n_live, n_tokens; /* of live documents */
	ruv_key_map keys;
	block *blocks;
	int64_t bytes;
	bool beyond; /* some count did not fit */

	/* Of the document being put. */
	uint32_t *seen;        /* [seen_cap] terms */
	uint32_t *seen_counts; /* [seen_cap] */
	uint32_t n_seen, seen_cap;
	uint32_t *place; /* [terms_cap] place in seen + 1 */
	uint32_t length, weight;
	ruv_error *err;
};

/* ---- lifetime ---- */

int ruv_words_create(ruv_words **out, ruv_store *store, ruv_error *err)
{
	ruv_words *w = calloc(1, sizeof *w);
	int rc;

	*out = NULL;
	if (!w)
		return ruv_fail_memory(err, WHERE, sizeof *w);
	pthread_rwlock_init(&w->lock, NULL);
	pthread_mutex_init(&w->asking, NULL);
	rc = ruv_texts_init(&w->texts, err);
	if (!rc)
		rc = store->ops->tokenizer(store, &w->for_writing, err);
	if (!rc)
		rc = store->ops->tokenizer(store, &w->for_asking, err);
	if (rc) {
		ruv_words_free(w);
		return rc;
	}
	*out = w;
	return RUV_OK;
}

void ruv_words_free(ruv_words *w)
{
	if (!w)
		return;
	for (uint32_t i = 0; i < w->n_terms; i++) {
		free(w->terms[i].docs);
		free(w->terms[i].counts);
	}
	free(w->terms);
	free(w->buckets);
	free(w->docs);
	free(w->seen);
	free(w->seen_counts);
	free(w->place);
	ruv_key_map_release(&w->keys);
	while (w->blocks) {
		block *b = w->blocks;
		w->blocks = b->next;
		free(b);
	}
	while (w->scratches) {
		scratch *s = w->scratches;
		w->scratches = s->next;
		free(s->sums);
		free(s->touched);
		free(s);
	}
	if (w->for_writing)
		w->for_writing->free(w->for_writing);
	if (w->for_asking)
		w->for_asking->free(w->for_asking);
	ruv_texts_release(&w->texts);
	pthread_rwlock_destroy(&w->lock);
	pthread_mutex_destroy(&w->asking);
	free(w);
}

int64_t ruv_words_count(ruv_words *w)
{
	int64_t n;

	pthread_rwlock_rdlock(&w->lock);
	n = w->n_live;
	pthread_rwlock_unlock(&w->lock);
	return n;
}

int64_t ruv_words_bytes(ruv_words *w)
{
	int64_t n;

	pthread_rwlock_rdlock(&w->lock);
	n = w->bytes +
	    (int64_t)((w->terms_cap) * (sizeof(term) + sizeof(uint32_t)) + w->n_buckets * sizeof(uint32_t) +
	              w->docs_cap * sizeof(document)) +
	    ruv_key_map_bytes(&w->keys);
	pthread_rwlock_unlock(&w->lock);
	return n;
}

/* Memory that is given back with the index; aligned to 4. */
static void *keep(ruv_words *w, size_t n)
{
	block *b = w->blocks;

	n = (n + 3) & ~(size_t)3;
	if (!b || b->size - b->used < n) {
		size_t size = n > ARENA ? n : ARENA;
		b = malloc(sizeof *b + size);
		if (!b)
			return NULL;
		*b = (block){.next = w->blocks, .size = size};
		w->blocks = b;
		w->bytes += (int64_t)(sizeof *b + size);
	}
	b->used += n;
	return b->bytes + b->used - n;
}

/* ---- terms ---- */

static uint32_t find_term(const ruv_words *w, const char *text, int n)
{
	if (!w->n_buckets)
		return UINT32_MAX;
	for (uint32_t i = (uint32_t)ruv_hash64(text, (size_t)n, 0) & (w->n_buckets - 1); w->buckets[i];
	     i = (i + 1) & (w->n_buckets - 1)) {
		const term *t = &w->terms[w->buckets[i] - 1];
		if (t->length == (uint32_t)n && !memcmp(t->text, text, (size_t)n))
			return w->buckets[i] - 1;
	}
	return UINT32_MAX;
}

static void enter_term(ruv_words *w, uint32_t number)
{
	const term *t = &w->terms[number];
	uint32_t i = (uint32_t)ruv_hash64(t->text, t->length, 0) & (w->n_buckets - 1);

	while (w->buckets[i])
		i = (i + 1) & (w->n_buckets - 1);
	w->buckets[i] = number + 1;
}

static int grow_terms(ruv_words *w)
{
	uint32_t cap = w->terms_cap ? w->terms_cap * 2 : 1024;
	term *terms = realloc(w->terms, cap * sizeof *terms);
	uint32_t *place, *buckets;

	if (!terms)
		return RUV_ENOMEM;
	w->terms = terms;
	place = realloc(w->place, cap * sizeof *place);
	if (!place)
		return RUV_ENOMEM;
	w->place = place;
	memset(place + w->terms_cap, 0, (cap - w->terms_cap) * sizeof *place);
	buckets = calloc((size_t)cap * 2, sizeof *buckets);
	if (!buckets)
		return RUV_ENOMEM;
	free(w->buckets);
	w->buckets = buckets;
	w->n_buckets = cap * 2;
	w->terms_cap = cap;
	for (uint32_t i = 0; i < w->n_terms; i++)
		enter_term(w, i);
	return RUV_OK;
}

static int add_term(ruv_words *w, uint32_t *number, const char *text, int n)
{
	char *copy;

	*number = find_term(w, text, n);
	if (*number != UINT32_MAX)
		return RUV_OK;
	if (w->n_terms == w->terms_cap && grow_terms(w))
		return RUV_ENOMEM;
	copy = keep(w, (size_t)n + 1);
	if (!copy)
		return RUV_ENOMEM;
	memcpy(copy, text, (size_t)n);
	w->terms[w->n_terms] = (term){.text = copy, .length = (uint32_t)n, .least = UINT32_MAX};
	enter_term(w, w->n_terms);
	*number = w->n_terms++;
	return RUV_OK;
}

/* ---- documents ---- */

static int count_token(void *user, const char *token, int n)
{
	ruv_words *w = user;
	uint32_t number;

	if (add_term(w, &number, token, n))
		return RUV_ENOMEM;
	w->length++;
	if (!w->place[number]) {
		if (w->n_seen == w->seen_cap) {
			uint32_t cap = w->seen_cap ? w->seen_cap * 2 : 256;
			uint32_t *seen = realloc(w->seen, cap * sizeof *seen), *counts;
			if (!seen)
				return RUV_ENOMEM;
			w->seen = seen;
			counts = realloc(w->seen_counts, cap * sizeof *counts);
			if (!counts)
				return RUV_ENOMEM;
			w->seen_counts = counts;
			w->seen_cap = cap;
		}
		w->seen[w->n_seen] = number;
		w->seen_counts[w->n_seen] = 0;
		w->place[number] = ++w->n_seen;
	}
	w->seen_counts[w->place[number] - 1] += w->weight;
	return 0;
}

static int count_words(ruv_words *w, const char *text, uint32_t weight)
{
	w->weight = weight;
	return *text ? w->for_writing->cut(w->for_writing, text, (int)strlen(text), false, count_token, w) : RUV_OK;
}

static void take_out(ruv_words *w, size_t at)
{
	document *d = &w->docs[w->keys.values[at]];

	for (uint32_t i = 0; i < d->n_terms; i++)
		w->terms[d->terms_of[i]].df--;
	w->n_live--;
	w->n_tokens -= d->length;
	d->key = 0;
	ruv_key_map_remove_at(&w->keys, at);
}

/* Drops dead documents from the postings, and numbers the others anew in their order. */
static void pack(ruv_words *w)
{
	uint32_t *number = malloc(((size_t)w->n_docs + 1) * sizeof *number), n = 0;

	if (!number)
		return; /* another time */
	for (uint32_t i = 0; i < w->n_docs; i++) {
		number[i] = w->docs[i].key ? n : UINT32_MAX;
		if (w->docs[i].key) {
			w->keys.values[ruv_key_map_find(&w->keys, w->docs[i].key)] = n;
			w->docs[n++] = w->docs[i];
		}
	}
	w->n_docs = n;
	for (uint32_t t = 0; t < w->n_terms; t++) {
		term *of = &w->terms[t];
		uint32_t kept = 0;
		for (uint32_t i = 0; i < of->n; i++)
			if (number[of->docs[i]] != UINT32_MAX) {
				of->docs[kept] = number[of->docs[i]];
				of->counts[kept++] = of->counts[i];
			}
		of->n = kept;
	}
	free(number);
}

static int reserve_posting(ruv_words *w, term *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : 2, *docs;
	uint16_t *counts;

	if (t->n < t->cap)
		return RUV_OK;
	docs = realloc(t->docs, cap * sizeof *docs);
	if (!docs)
		return RUV_ENOMEM;
	t->docs = docs;
	counts = realloc(t->counts, cap * sizeof *counts);
	if (!counts)
		return RUV_ENOMEM;
	t->counts = counts;
	w->bytes += (int64_t)((cap - t->cap) * (sizeof *docs + sizeof *counts));
	t->cap = cap;
	return RUV_OK;
}

/* Everything that may fail comes before the first change. */
static int put(ruv_words *w, const ruv_store_row *row)
{
	document d = {.key = row->key};
	size_t at;
	int rc = ruv_labels_of_row(&d.labels, &w->texts, row, NULL);

	w->n_seen = 0;
	w->length = 0;
	if (!rc)
		rc = count_words(w, row->title, TITLE_WEIGHT);
	if (!rc)
		rc = count_words(w, row->tags, 1);
	if (!rc)
		rc = count_words(w, row->text, 1);
	for (uint32_t i = 0; i < w->n_seen; i++) {
		w->place[w->seen[i]] = 0;
		if (!rc)
			rc = reserve_posting(w, &w->terms[w->seen[i]]);
	}
	if (!rc)
		rc = ruv_key_map_reserve(&w->keys, 1, NULL);
	if (!rc && w->n_docs == w->docs_cap) {
		uint32_t cap = w->docs_cap ? w->docs_cap * 2 : 1024;
		document *docs = realloc(w->docs, cap * sizeof *docs);
		if (!docs)
			return RUV_ENOMEM;
		w->docs = docs;
		w->docs_cap = cap;
	}
	d.terms_of = rc ? NULL : keep(w, w->n_seen * sizeof *d.terms_of + 1);
	if (rc || !d.terms_of)
		return RUV_ENOMEM;
	at = ruv_key_map_find(&w->keys, row->key);
	if (at != SIZE_MAX)
		take_out(w, at);
	memcpy(d.terms_of, w->seen, w->n_seen * sizeof *d.terms_of);
	d.n_terms = w->n_seen;
	d.length = w->length;
	for (uint32_t i = 0; i < w->n_seen; i++) {
		term *t = &w->terms[w->seen[i]];
		uint32_t count = w->seen_counts[i];
		w->beyond |= count > MAX_COUNT;
		t->docs[t->n] = w->n_docs;
		t->counts[t->n++] = count > MAX_COUNT ? MAX_COUNT : (uint16_t)count;
		t->df++;
		t->most = count > t->most ? count : t->most;
		t->least = d.length < t->least ? d.length : t->least;
	}
	ruv_key_map_add(&w->keys, row->key, w->n_docs);
	w->docs[w->n_docs++] = d;
	w->n_live++;
	w->n_tokens += d.length;
	return RUV_OK;
}

static void pack_if_worth(ruv_words *w)
{
	int64_t n_dead = (int64_t)w->n_docs - w->n_live;

	if (n_dead >= DEAD_MIN && n_dead * 3 >= w->n_docs)
		pack(w);
}

int ruv_words_put(ruv_words *w, const ruv_store_row *row, ruv_error *err)
{
	int rc;

	if (row->key <= 0)
		return ruv_fail(err, RUV_EINVAL, WHERE, "key %lld is none", (long long)row->key);
	pthread_rwlock_wrlock(&w->lock);
	rc = put(w, row);
	if (!rc)
		pack_if_worth(w);
	pthread_rwlock_unlock(&w->lock);
	return rc ? ruv_fail_memory(err, WHERE, strlen(row->text)) : RUV_OK;
}

void ruv_words_remove(ruv_words *w, int64_t key)
{
	size_t at;

	pthread_rwlock_wrlock(&w->lock);
	at = ruv_key_map_find(&w->keys, key);
	if (at != SIZE_MAX) {
		take_out(w, at);
		pack_if_worth(w);
	}
	pthread_rwlock_unlock(&w->lock);
}

void ruv_words_trim(ruv_words *w)
{
	pthread_rwlock_wrlock(&w->lock);
	for (uint32_t i = 0; i < w->n_terms; i++) {
		term *t = &w->terms[i];
		uint32_t *docs = t->n && t->n < t->cap ? realloc(t->docs, t->n * sizeof *docs) : NULL;
		uint16_t *counts;
		if (!docs)
			continue;
		t->docs = docs;
		w->bytes -= (int64_t)((t->cap - t->n) * (sizeof *docs + sizeof *counts));
		t->cap = t->n;
		counts = realloc(t->counts, t->n * sizeof *counts);
		t->counts = counts ? counts : t->counts;
	}
	pthread_rwlock_unlock(&w->lock);
}

/* ---- searching ---- */

typedef struct wanted {
	const term *of;
	double idf, bound; /* bound: the most that it adds to a document */
} wanted;

typedef struct asking {
	ruv_words *w;
	int n; /* tokens of this term */
	uint32_t number;
} asking;

static int one_token(void *user, const char *token, int n)
{
	asking *a = user;

	if (a->n++ == 0)
		a->number = find_term(a->w, token, n);
	return 0;
}

static inline double part(double idf, double count, double length, double mean)
{
	return idf * ((count * (K1 + 1.0)) / (count + K1 * (1.0 - B + B * length / mean)));
}

static int rarer_first(const void *a, const void *b)
{
	const wanted *const *x = a, *const *y = b;

	return (*x)->of->df != (*y)->of->df ? ((*x)->of->df < (*y)->of->df ? -1 : 1) : (*x < *y ? -1 : *x > *y);
}

static scratch *take_scratch(ruv_words *w, size_t n)
{
	scratch *s;

	pthread_mutex_lock(&w->asking);
	s = w->scratches;
	if (s)
		w->scratches = s->next;
	pthread_mutex_unlock(&w->asking);
	if (!s)
		s = calloc(1, sizeof *s);
	if (s && s->cap < n) {
		size_t cap = n + n / 4;
		free(s->sums);
		free(s->touched);
		s->sums = calloc(cap, sizeof *s->sums);
		s->touched = malloc(cap * sizeof *s->touched);
		s->cap = s->sums && s->touched ? cap : 0;
		if (!s->cap) {
			free(s->sums);
			free(s->touched);
			free(s);
			s = NULL;
		}
	}
	return s;
}

static void give_scratch(ruv_words *w, scratch *s)
{
	pthread_mutex_lock(&w->asking);
	s->next = w->scratches;
	w->scratches = s;
	pthread_mutex_unlock(&w->asking);
}

/* Is a worse than b? */
static inline bool worse(const ruv_store_match *a, const ruv_store_match *b)
{
	return a->score < b->score || (a->score == b->score && a->key > b->key);
}

static void sift_down(ruv_store_match *heap, int n, int i)
{
	ruv_store_match moving = heap[i];

	for (int child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && worse(&heap[child + 1], &heap[child]))
			child++;
		if (!worse(&heap[child], &moving))
			break;
		heap[i] = heap[child];
	}
	heap[i] = moving;
}

static int better_first(const void *a, const void *b)
{
	const ruv_store_match *x = a, *y = b;

	return worse(x, y) ? 1 : worse(y, x) ? -1 : 0;
}

/* The best `limit` of the touched documents by their sums so far, a heap with the worst at its root. Keys are documents + 1 then:
 * documents ascend as keys do unless one was replaced, so equal sums are settled later, by one more than is wanted. */
static int select_best(const ruv_words *w, const scratch *s, size_t n_touched, const ruv_label_filter *filter,
                       ruv_store_match *heap, int limit)
{
	int n = 0;

	for (size_t i = 0; i < n_touched; i++) {
		const document *d = &w->docs[s->touched[i]];
		ruv_store_match m = {d->key, s->sums[s->touched[i]]};
		if (!m.key || (n == limit && !worse(&heap[0], &m)) || !ruv_labels_pass(&d->labels, filter))
			continue;
		if (n < limit) {
			heap[n++] = m;
			if (n == limit)
				for (int j = n / 2 - 1; j >= 0; j--)
					sift_down(heap, n, j);
		} else {
			heap[0] = m;
			sift_down(heap, n, 0);
		}
	}
	return n;
}

/* The place of a document in a term's postings from `from` on: galloping, then halving. */
static uint32_t seek(const term *t, uint32_t from, uint32_t doc)
{
	uint32_t step = 1, low = from, high;

	while (low + step < t->n && t->docs[low + step] < doc) {
		low += step;
		step *= 2;
	}
	high = low + step < t->n ? low + step : t->n;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (t->docs[middle] < doc)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int ascending(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Sums up all terms; returns how many documents were touched and may be among the best. */
static size_t sum_up(const ruv_words *w, scratch *s, const wanted *const *order, int n_order, const ruv_label_filter *filter,
                     ruv_store_match *heap, int limit, double mean, size_t *n_all)
{
	size_t n_touched = 0;
	double rest = 0;
	int i = 0;

	for (int j = 0; j < n_order; j++)
		rest += order[j]->bound;
	for (; i < n_order; i++) {
		const term *t = order[i]->of;
		/* Worth looking when there is a lot left to read. */
		if (n_touched >= (size_t)limit && t->n > 1024 && select_best(w, s, n_touched, filter, heap, limit) == limit &&
		    heap[0].score > rest * (1 + 1e-9))
			break;
		for (uint32_t p = 0; p < t->n; p++) {
			uint32_t doc = t->docs[p];
			if (!w->docs[doc].key)
				continue;
			if (s->sums[doc] == 0)
				s->touched[n_touched++] = doc;
			s->sums[doc] += part(order[i]->idf, t->counts[p], w->docs[doc].length, mean);
		}
		rest -= order[i]->bound;
	}
	*n_all = n_touched;
	if (i == n_order)
		return n_touched;
	/* Documents that cannot get there any more go to the end of the list, where their sums are still known. */
	for (size_t a = 0, b = n_touched; a < b;) {
		if (s->sums[s->touched[a]] + rest * (1 + 1e-9) >= heap[0].score) {
			a++;
			n_touched = a;
		} else {
			uint32_t swap = s->touched[--b];
			s->touched[b] = s->touched[a];
			s->touched[a] = swap;
			n_touched = a;
		}
	}
	qsort(s->touched, n_touched, sizeof *s->touched, ascending);
	for (; i < n_order; i++) {
		const term *t = order[i]->of;
		uint32_t at = 0;
		for (size_t j = 0; j < n_touched && at < t->n; j++) {
			uint32_t doc = s->touched[j];
			at = seek(t, at, doc);
			if (at < t->n && t->docs[at] == doc)
				s->sums[doc] += part(order[i]->idf, t->counts[at], w->docs[doc].length, mean);
		}
	}
	return n_touched;
}

/* The score as the home sums it: in the order of the question's terms. */
static double exact_score(const ruv_words *w, const wanted *terms, int n_terms, uint32_t doc, double mean)
{
	double score = 0;

	for (int i = 0; i < n_terms; i++) {
		const term *t = terms[i].of;
		uint32_t at = t ? seek(t, 0, doc) : 0;
		if (t && at < t->n && t->docs[at] == doc)
			score += part(terms[i].idf, t->counts[at], w->docs[doc].length, mean);
	}
	return score;
}

int ruv_words_search(ruv_words *w, ruv_store_match *out, int *n, bool *able, const ruv_store_term *terms, int n_terms,
                     const ruv_memory_filter *filter, int limit, int64_t now_ms, ruv_error *err)
{
	wanted wants[RUV_LEXICAL_MAX_TERMS];
	const wanted *order[RUV_LEXICAL_MAX_TERMS];
	ruv_label_filter labels;
	scratch *s = NULL;
	ruv_store_match *heap = NULL;
	int n_order = 0, rc, wide = limit + 8; /* sums differ by their order in the last digit: a few more, then exactly */
	size_t n_touched = 0, n_all = 0;
	double mean;

	*n = 0;
	*able = true;
	if (limit <= 0 || n_terms > RUV_LEXICAL_MAX_TERMS)
		return RUV_OK;
	rc = ruv_label_filter_init(&labels, &w->texts, filter, now_ms, err);
	if (rc)
		return rc;
	pthread_rwlock_rdlock(&w->lock);
	*able = !w->beyond;
	mean = w->n_live ? (double)w->n_tokens / (double)w->n_live : 1;
	pthread_mutex_lock(&w->asking);
	for (int i = 0; i < n_terms && *able && !rc; i++) {
		asking a = {.w = w, .number = UINT32_MAX};
		rc = w->for_asking->cut(w->for_asking, terms[i].text, terms[i].n, true, one_token, &a);
		*able = a.n <= 1;
		wants[i] = (wanted){0};
		if (a.number != UINT32_MAX && w->terms[a.number].df) {
			const term *t = &w->terms[a.number];
			double hits = t->df, all = (double)w->n_live, idf = log((all - hits + 0.5) / (hits + 0.5));
			wants[i].of = t;
			wants[i].idf = idf <= 0 ? 1e-6 : idf;
			wants[i].bound = part(wants[i].idf, t->most, t->least, mean);
			order[n_order++] = &wants[i];
		}
	}
	pthread_mutex_unlock(&w->asking);
	if (rc || !*able || !n_order)
		goto done;
	s = take_scratch(w, (size_t)w->n_docs + 1);
	heap = malloc((size_t)wide * sizeof *heap);
	if (!s || !heap) {
		rc = ruv_fail_memory(err, WHERE, w->n_docs * sizeof(double));
		goto done;
	}
	qsort(order, (size_t)n_order, sizeof *order, rarer_first);
	n_touched = sum_up(w, s, order, n_order, &labels, heap, wide, mean, &n_all);
	*n = select_best(w, s, n_touched, &labels, heap, wide);
	for (int i = 0; i < *n; i++)
		heap[i].score = exact_score(w, wants, n_terms, w->keys.values[ruv_key_map_find(&w->keys, heap[i].key)], mean);
	qsort(heap, (size_t)*n, sizeof *heap, better_first);
	*n = *n < limit ? *n : limit;
	memcpy(out, heap, (size_t)*n * sizeof *out);
done:
	if (s) {
		for (size_t i = 0; i < n_all; i++)
			s->sums[s->touched[i]] = 0;
		give_scratch(w, s);
	}
	pthread_rwlock_unlock(&w->lock);
	free(heap);
	ruv_label_filter_release(&labels);
	return rc == RUV_ENOMEM ? ruv_fail_memory(err, WHERE, 1) : rc;
}

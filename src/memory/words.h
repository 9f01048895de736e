/* words.h - an index of words in memory: BM25 by the home's own words, many times faster than the home's search.
 *
 * The ranking is FTS5's bm25(words, 2, 1, 1), figure for figure: title words count twice, k1 = 1.2, b = 0.75, the words come from
 * FTS5's own tokenizer, and the score of a hit is summed in the order of the question's words. Derived from the store by its event
 * log, as the vector index is; until it is built, the home's search answers.
 *
 * Postings are arrays in the order of documents; a document that changes gets a new number, and what the old one had is dropped
 * when a third is dead. A search goes through the question's words from the rarest on (Turtle & Flood's MaxScore, term at a time):
 * as soon as the k-th best of the documents seen beats what the words to come could give to a new one, these are looked up for the
 * documents that can still get among the k best, and not read through.
 *
 * Threads: any number of searches, one writer at a time; a writer keeps searches waiting for one document's words.
 * Layer: memory. */
#ifndef RUV_MEMORY_WORDS_H
#define RUV_MEMORY_WORDS_H

#include "memory/store.h"

typedef struct ruv_words ruv_words;

int ruv_words_create(ruv_words **out, ruv_store *store, ruv_error *err);
/* No search may be running. NULL is fine. */
void ruv_words_free(ruv_words *words);

/* The writer's. put: row->title and row->text are set; replaces what the key had. */
int ruv_words_put(ruv_words *words, const ruv_store_row *row, ruv_error *err);
void ruv_words_remove(ruv_words *words, int64_t key);
/* Gives back what growing took in advance. */
void ruv_words_trim(ruv_words *words);

/* The best `limit` that pass, best first, equal ones by key. *able false: a term is several words to the home (a phrase), or a text
 * is beyond what the postings count; the home's search answers instead. */
int ruv_words_search(ruv_words *words, ruv_store_match *out, int *n, bool *able, const ruv_store_term *terms, int n_terms,
                     const ruv_memory_filter *filter, int limit, int64_t now_ms, ruv_error *err);

int64_t ruv_words_count(ruv_words *words);
int64_t ruv_words_bytes(ruv_words *words);

#endif

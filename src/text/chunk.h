/* chunk.h - cutting a document into passages that a small model can read and a vector can stand for; cutting text into sentences.
 *
 * A chunk never crosses a heading: it holds neighbouring blocks of one section, as many as fit max_tokens. A block that does not
 * fit is cut at sentence ends (code and tables at line ends), a sentence that does not fit at words, a word at characters; never
 * inside a UTF-8 character. A chunk that continues a section begins with the last sentences of the one before (overlap_sentences),
 * if they are short enough to leave room for new text.
 *
 * Threads: everything here is pure. Layer: text. */
#ifndef RUV_TEXT_CHUNK_H
#define RUV_TEXT_CHUNK_H

#include "ruvllm/types.h"
#include "text/document.h"
#include "text/vocab.h"

/* Tokens of text[0..n_bytes) into *n_tokens; ruv_chunk_count_vocab is the usual one. It is called at least once a unit of text, on
 * at most 64 bytes a token of max_tokens (but for a heading); a failure, RUV_ECANCELLED too, ends the call that asked. */
typedef int ruv_chunk_count_fn(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err);
/* user: a const ruv_vocab *. */
int ruv_chunk_count_vocab(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err);
/* user unused: a rough count without a vocabulary, one token for every 4 bytes. */
int ruv_chunk_count_rough(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err);

typedef struct ruv_chunk_options {
	size_t max_tokens;         /* of a chunk's text, >= 8 */
	size_t overlap_sentences;  /* 0..3 */
	ruv_chunk_count_fn *count; /* NULL: ruv_chunk_count_rough */
	void *count_user;
} ruv_chunk_options;

typedef struct ruv_chunk {
	const char *text; /* [len] and a NUL: blocks with an empty line between them (list items of one list: a line end) */
	size_t len;
	const char *heading_path;  /* "Backups > Restore"; "" when there is none */
	const char *heading;       /* the innermost heading, "" when there is none */
	int first_line, last_line; /* in the source, overlap not counted */
	size_t n_tokens;
} ruv_chunk;

typedef struct ruv_chunks {
	const ruv_chunk *items; /* [n] in reading order */
	size_t n;
	const char *title; /* the document's */
} ruv_chunks;

/* The caller frees *out; it does not refer to the document. A document without blocks gives n = 0. A heading without text below it
 * becomes a chunk of its own words only when its section is empty and it has no sections inside. */
int ruv_chunk_document(ruv_chunks **out, const ruv_document *doc, const ruv_chunk_options *options, ruv_error *err);
void ruv_chunks_free(ruv_chunks *chunks);

/* The next sentence of text[0..n_bytes) at or after `from`: *begin at its first character, *end behind its last (closing quotes and
 * brackets included, white space not). False when there is none. Knows abbreviations ("e.g.", "Dr."), initials, numbers ("3.14"),
 * enumerations ("1. "), ellipses, file names and versions, CJK stops; an empty line, a list marker or a new line behind a line that
 * does not look wrapped ends a sentence. */
bool ruv_sentence_next(const char *text, size_t n_bytes, size_t from, size_t *begin, size_t *end);

#endif

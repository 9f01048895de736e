/* pretokenize.h - splitting text into the pieces that BPE merges within, by a model family's regular expression (PCRE2).
 *
 * The expressions are those of the families' tokenizer.json, with \s written out as Unicode's White_Space, because PCRE2's own \s
 * also takes U+180E. JIT-compiled where the system allows it, interpreted otherwise; both split alike.
 * Threads: a pretokenizer is immutable; a cursor belongs to one thread. Layer: text. */
#ifndef RUV_TEXT_PRETOKENIZE_H
#define RUV_TEXT_PRETOKENIZE_H

#include "ruvllm/types.h"

typedef struct ruv_pretokenizer ruv_pretokenizer;

/* What a family of models does around splitting. */
typedef struct ruv_pretokenizer_traits {
	const char *name;
	bool nfc;           /* text is composed first */
	bool ignore_merges; /* a piece that is a token needs no merging */
	bool add_bos;
} ruv_pretokenizer_traits;

/* NULL for an unknown name. */
const ruv_pretokenizer_traits *ruv_pretokenizer_traits_of(const char *name);
/* "lfm2, llama-bpe, ..." */
const char *ruv_pretokenizer_names(void);

int ruv_pretokenizer_create(ruv_pretokenizer **out, const char *name, ruv_error *err);
void ruv_pretokenizer_free(ruv_pretokenizer *pt);
/* Was the expression compiled to machine code? */
bool ruv_pretokenizer_is_jit(const ruv_pretokenizer *pt);
/* For tests: interpret from now on. */
void ruv_pretokenizer_disable_jit(ruv_pretokenizer *pt);

typedef struct ruv_pretokenize_cursor {
	const ruv_pretokenizer *pt;
	void *match; /* pcre2_match_data */
	const char *text;
	size_t n_bytes, at;
} ruv_pretokenize_cursor;

int ruv_pretokenize_open(ruv_pretokenize_cursor *cursor, const ruv_pretokenizer *pt, ruv_error *err);
void ruv_pretokenize_close(ruv_pretokenize_cursor *cursor); /* also of a zeroed cursor */
/* Starts over with text[0..n_bytes), which must be well-formed UTF-8 and stay where it is. */
void ruv_pretokenize_set(ruv_pretokenize_cursor *cursor, const char *text, size_t n_bytes);
/* The next piece as [*begin, *end); pieces cover the text without gaps. 1: a piece, 0: the end, negative: a status. */
int ruv_pretokenize_next(ruv_pretokenize_cursor *cursor, size_t *begin, size_t *end, ruv_error *err);

#endif

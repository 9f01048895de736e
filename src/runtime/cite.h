/* cite.h - what a model's answer cites: "[1] The sentence.\nAnswer: x" taken apart, and quotes found again in sources and files.
 * Layer: runtime. */
#ifndef RUV_RUNTIME_CITE_H
#define RUV_RUNTIME_CITE_H

#include "ruvllm/runtime.h"

/* Bytes [begin, end) of the answer's text. */
typedef struct ruv_cite_mark {
	int number;        /* in the brackets, from 1 */
	size_t begin, end; /* the quote; empty where the mark stood inside a free text */
} ruv_cite_mark;

typedef struct ruv_cite_parts {
	ruv_cite_mark marks[RUV_ANSWER_MAX_CITATIONS];
	int n_marks;
	size_t answer_begin, answer_end; /* the short answer; the whole text where there is no "Answer:" line and no quote */
	bool unknown;                    /* "I don't know." */
} ruv_cite_parts;

/* Takes an answer apart. A line that begins with [n] is a quote; "Answer:" begins the short answer, which goes to the end; [n]
 * elsewhere is a mark without a quote. When the model does not know, nothing is cited. */
void ruv_cite_parse(ruv_cite_parts *parts, const char *text);

/* Does text[0..n) stand in `source`, with any white space equal to any other? */
bool ruv_cite_is_verbatim(const char *source, const char *text, size_t n);

/* The line (from 1) within first..last of a file's bytes on which the quote begins; 0 when it is not there. Only letters and digits
 * are compared, since a passage no longer has its file's markup. */
int ruv_cite_find_line(const char *bytes, size_t n_bytes, int first_line, int last_line, const char *quote, size_t n_quote);

#endif

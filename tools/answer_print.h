/* answer_print.h - an answer on the terminal: streamed, then its sources and times; or as JSON. Used by ask and chat.
 * Layer: tools. */
#ifndef RUV_TOOLS_ANSWER_PRINT_H
#define RUV_TOOLS_ANSWER_PRINT_H

#include "cli_runtime.h"

/* Text on its way to stdout. On a terminal the quoted sentence is dim and the short answer bold. Zeroed is the start. */
typedef struct answer_stream {
	char head[8]; /* the first bytes of a line, held until it is known whether they are "Answer:" */
	int n_head;
	bool inside; /* the line's kind is known */
	bool answered, any;
	char last; /* byte written */
} answer_stream;

/* A ruv_on_piece; user is an answer_stream *. */
bool answer_stream_piece(void *user, const ruv_piece *piece);
/* Writes what is held and ends the line. */
void answer_stream_end(answer_stream *stream);

/* The table of sources: which were cited, place, title, scores. */
void answer_print_sources(const ruv_answer *answer, FILE *out);
/* What the model said about its sources that does not hold, and why it stopped early; nothing when all is well. */
void answer_print_warnings(const ruv_answer *answer, FILE *out);
/* Tokens, speed, time per stage: one line. */
void answer_print_times(const ruv_answer *answer, FILE *out);
json_t *answer_json(const ruv_answer *answer, const char *question);

#endif

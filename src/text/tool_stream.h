/* tool_stream.h - telling of a tool call while it is being written. Inside text, for tool_calls.c.
 *
 * A scan follows an open block as it grows and tells what cannot change any more; the whole block, read by tool_calls.c, tells the
 * rest. What it does not understand it leaves to that. Threads: one at a time. Layer: text. */
#ifndef RUV_TEXT_TOOL_STREAM_H
#define RUV_TEXT_TOOL_STREAM_H

#include "text/tool_calls.h"

typedef enum ruv_scan_state {
	RUV_SCAN_START,
	RUV_SCAN_CALL,     /* Python: a name, or the list's end */
	RUV_SCAN_ARGUMENT, /* Python: a key, or ')' */
	RUV_SCAN_VALUE,
	RUV_SCAN_STRING, /* Python: inside a string that is a whole argument */
	RUV_SCAN_AFTER_VALUE,
	RUV_SCAN_KEY,  /* JSON: a key of the call's object */
	RUV_SCAN_JSON, /* JSON: inside the arguments */
	RUV_SCAN_DONE  /* nothing more is told before the end */
} ruv_scan_state;

typedef struct ruv_tool_scan {
	ruv_tool_syntax syntax;
	ruv_on_tool_part *on_part;
	void *user;
	ruv_scan_state state;
	size_t at;      /* of the block: before it everything is decided */
	size_t first;   /* number of the block's first call */
	size_t n_begun; /* calls of the block that were told of, the last of them open when `open` */
	bool open;
	char quote;     /* of STRING */
	int depth;      /* of JSON */
	bool in_string; /* of JSON */
	ruv_buf name;   /* of the last call */
	ruv_buf told;   /* its arguments so far */
	ruv_buf piece;
} ruv_tool_scan;

void ruv_tool_scan_init(ruv_tool_scan *scan);
void ruv_tool_scan_release(ruv_tool_scan *scan);
/* A block begins; its calls count from `first`. */
void ruv_tool_scan_begin(ruv_tool_scan *scan, ruv_tool_syntax syntax, size_t first, ruv_on_tool_part *on_part, void *user);
/* The block is block[0..n) so far, what was there before unchanged. */
int ruv_tool_scan_push(ruv_tool_scan *scan, const char *block, size_t n);
/* Its calls [n], as read from the whole: tells what was not told yet. RUV_EFORMAT when they contradict what was. */
int ruv_tool_scan_end(ruv_tool_scan *scan, const ruv_tool_call *calls, size_t n);
/* Was any call of the block told of? */
bool ruv_tool_scan_begun(const ruv_tool_scan *scan);

/* tool_calls.c: the whole of text[0..n) as one value of Python or JSON (new reference). */
int ruv_tool_read_value(const char *text, size_t n, json_t **out);

#endif

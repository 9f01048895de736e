/* tools.h - a model's tool calls: taken out of what it writes, while it writes, and forced by a grammar.
 *
 * Models write calls in notations of their own (LFM2: a list of Python calls between special tokens; Qwen2.5: JSON between
 * <tool_call> marks). A stream turns generated text into events: plain text, and calls whose arguments arrive as pieces of one
 * JSON object. What begins like a call and is none comes out as text; nothing is lost.
 *
 * Generate with ruv_generate_params.special_text set, or the marks are not in the text.
 *
 * Usable from C11 and C++. Threads: a stream belongs to one thread at a time. */
#ifndef RUVLLM_TOOLS_H
#define RUVLLM_TOOLS_H

#include "ruvllm/grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Does the model's chat template know tools? */
RUV_API bool ruv_model_has_tools(const ruv_model *model);

typedef enum ruv_tool_event_kind {
	RUV_TOOL_TEXT,      /* text[n_bytes]: plain text, whole UTF-8 */
	RUV_TOOL_BEGIN,     /* call `index` of the tool `name` begins */
	RUV_TOOL_ARGUMENTS, /* text[n_bytes]: the next piece of its arguments; the pieces together are one JSON object */
	RUV_TOOL_END,       /* it is complete: `name`, and all of its arguments as text */
	RUV_TOOL_BROKEN     /* what began as call `index` is none after all: its calls since the last mark are void. Its text, as
	                     * the model wrote it, follows as RUV_TOOL_TEXT */
} ruv_tool_event_kind;

typedef struct ruv_tool_event {
	ruv_tool_event_kind kind;
	int index;        /* of the call, from 0 */
	const char *name; /* BEGIN, ARGUMENTS, END */
	const char *text; /* [n_bytes] and a NUL, valid during the call */
	size_t n_bytes;
} ruv_tool_event;

/* Returns whether to go on; false makes push return RUV_ECANCELLED. */
typedef bool ruv_on_tool_event(void *user, const ruv_tool_event *event);

typedef struct ruv_tool_stream ruv_tool_stream;

/* A stream for the model's notation; for a model without one everything is text. */
RUV_API int ruv_tool_stream_open(ruv_tool_stream **out, const ruv_model *model, ruv_on_tool_event *on_event, void *user,
                                 ruv_error *err);
RUV_API void ruv_tool_stream_free(ruv_tool_stream *stream); /* NULL is fine */
/* Takes the next generated text. RUV_ECANCELLED, RUV_ENOMEM, RUV_ELIMIT (1 MiB of one call, 256 calls). */
RUV_API int ruv_tool_stream_push(ruv_tool_stream *stream, const char *text, size_t n_bytes, ruv_error *err);
/* The end of generation: what is held back comes out; an open call that can be read is taken, one that cannot is BROKEN. */
RUV_API int ruv_tool_stream_finish(ruv_tool_stream *stream, ruv_error *err);
/* Complete calls so far. */
RUV_API int ruv_tool_stream_n_calls(const ruv_tool_stream *stream);

/* The grammar of an answer that is tool calls alone, each to a tool of the list with arguments that follow its schema:
 * tool_choice "required" (name NULL) and a named tool.
 *
 *   tools     JSON array of {"name", "description", "parameters"} objects
 *   parallel  more than one call in the answer is allowed
 *
 * RUV_EUNSUPPORTED when the model has no notation for calls, or a schema uses what ruv_grammar_open refuses (the tool is named);
 * RUV_ENOTFOUND when `name` is no tool of the list; RUV_EFORMAT. */
RUV_API int ruv_tools_grammar(ruv_grammar **out, ruv_model *model, const char *tools, const char *name, bool parallel,
                              ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif

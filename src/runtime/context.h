/* context.h - assembling the prompt: sources, question and history as the strings of docs/prompt-format.md, in the tokens that fit.
 * Layer: runtime. */
#ifndef RUV_RUNTIME_CONTEXT_H
#define RUV_RUNTIME_CONTEXT_H

#include "base/buf.h"
#include "ruvllm/model.h"

typedef struct ruv_context_source {
	const char *title; /* NULL or "": none */
	const char *text;
} ruv_context_source;

typedef struct ruv_context_request {
	const ruv_context_source *sources; /* [n_sources] best first */
	int n_sources;
	const char *question;
	const ruv_message *history; /* [n_history], user and assistant in turn */
	int n_history;
	bool cites;    /* the model knows the format; otherwise a system message explains it */
	int n_ctx;     /* tokens of the context window */
	int n_reserve; /* of them kept free for the answer */
} ruv_context_request;

typedef struct ruv_context {
	ruv_token_list tokens;
	int n_sources;         /* the first so many are in it */
	int n_history_dropped; /* the oldest so many messages are not */
} ruv_context;

void ruv_context_release(ruv_context *context);

/* Appends text with every run of white space as one space, none at the ends: the form in which the models saw all texts. */
void ruv_context_squash(ruv_buf *out, const char *text);

/* Appends the user text: "Sources:\n[1] TITLE\nTEXT\n\n[2] ...\n\nQuestion: QUESTION", or the question alone when n is 0. White
 * space in titles, texts and the question becomes single spaces, as in the training data; numbered marks that sources contain stay
 * what they are. */
int ruv_context_user_text(ruv_buf *out, const ruv_context_source *sources, int n, const char *question);

/* The system message for models that were not trained on the format. */
extern const char ruv_context_instruction[];

/* Renders with the model's chat template. When everything does not fit n_ctx - n_reserve, sources are left out from the last one
 * on; when not even the first fits, the oldest exchange of the history goes first. RUV_ECONTEXT, with both numbers, when the
 * question alone is too long. */
int ruv_context_build(ruv_context *out, const ruv_model *model, const ruv_context_request *request, ruv_error *err);

#endif

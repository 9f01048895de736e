/* context.c - the prompt, exactly as docs/prompt-format.md has it.
 *
 * What fits is found by rendering: templates may add anything, so only the tokens of the whole prompt count. Few sources and short
 * prompts make that cheap (a render is well under a millisecond for 1,000 tokens). Layer: runtime. */
#include "runtime/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#define MAX_USER_TEXT ((size_t)16 << 20)

const char ruv_context_instruction[] = "Answer the question only from the numbered sources that come with it. First write the "
				       "number of the source in square brackets and, "
				       "behind one space, the one sentence of it that supports the answer, word for word. Then, on "
				       "a new line, write \"Answer: \" and the "
				       "answer in a few words. If the sources do not hold the answer, write exactly: I don't know.";

void ruv_context_release(ruv_context *context)
{
	ruv_token_list_release(&context->tokens);
	memset(context, 0, sizeof *context);
}

void ruv_context_squash(ruv_buf *out, const char *text)
{
	bool space = false, any = false;

	for (; *text; text++) {
		if (strchr(" \t\n\r\f\v", *text)) {
			space = any;
			continue;
		}
		if (space)
			ruv_buf_putc(out, ' ');
		ruv_buf_putc(out, *text);
		space = false;
		any = true;
	}
}

int ruv_context_user_text(ruv_buf *out, const ruv_context_source *sources, int n, const char *question)
{
	if (n == 0) {
		ruv_context_squash(out, question);
		return out->failed;
	}
	ruv_buf_puts(out, "Sources:\n");
	for (int i = 0; i < n; i++) {
		ruv_buf_printf(out, "[%d] ", i + 1);
		if (sources[i].title && *sources[i].title) {
			ruv_context_squash(out, sources[i].title);
			ruv_buf_putc(out, '\n');
		}
		ruv_context_squash(out, sources[i].text);
		ruv_buf_puts(out, "\n\n");
	}
	ruv_buf_puts(out, "Question: ");
	ruv_context_squash(out, question);
	return out->failed;
}

/* The tokens with the first n sources and without the oldest `dropped` messages. */
static int render(ruv_token_list *tokens, const ruv_model *model, const ruv_context_request *request, int n, int dropped,
                  ruv_error *err)
{
	int n_history = request->n_history - dropped, n_messages = 0, rc;
	ruv_message *messages = calloc((size_t)n_history + 2, sizeof *messages);
	ruv_buf user;

	ruv_buf_init(&user, MAX_USER_TEXT);
	if (!messages) {
		rc = ruv_fail_memory(err, "context", ((size_t)n_history + 2) * sizeof *messages);
		goto done;
	}
	rc = ruv_context_user_text(&user, request->sources, n, request->question);
	if (rc) {
		rc = ruv_fail(err, rc, "context", "the prompt's text does not fit %zu bytes", MAX_USER_TEXT);
		goto done;
	}
	if (n && !request->cites)
		messages[n_messages++] = (ruv_message){.role = "system", .content = ruv_context_instruction};
	for (int i = 0; i < n_history; i++)
		messages[n_messages++] = request->history[dropped + i];
	messages[n_messages++] = (ruv_message){.role = "user", .content = ruv_buf_cstr(&user)};
	tokens->n = 0;
	rc = ruv_model_chat_tokens(model, messages, n_messages, NULL, true, tokens, err);
done:
	ruv_buf_release(&user);
	free(messages);
	return rc;
}

int ruv_context_build(ruv_context *out, const ruv_model *model, const ruv_context_request *request, ruv_error *err)
{
	ruv_context context = {0};
	int room = request->n_ctx - request->n_reserve, rc;
	int n = request->n_sources, dropped = 0;

	for (;;) {
		rc = render(&context.tokens, model, request, n, dropped, err);
		if (rc)
			goto done;
		if (context.tokens.n <= room)
			break;
		if (n > 1 || (n == 1 && dropped == request->n_history)) {
			n--;
		} else if (dropped < request->n_history) {
			/* An exchange at a time, so that the history keeps beginning with a user's message. */
			dropped += request->n_history - dropped >= 2 ? 2 : 1;
			n = request->n_sources;
		} else {
			rc = ruv_fail(err, RUV_ECONTEXT, "context",
			              "the question takes %d tokens, but only %d of %d are free for it beside the answer",
			              context.tokens.n, room, request->n_ctx);
			goto done;
		}
	}
	context.n_sources = n;
	context.n_history_dropped = dropped;
	*out = context;
	memset(&context, 0, sizeof context);
done:
	ruv_context_release(&context);
	return rc;
}

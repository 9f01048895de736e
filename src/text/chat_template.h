/* chat_template.h - a model's chat template (its own subset of Jinja) turned into a prompt.
 *
 * Strings that come from the conversation never become special tokens: every byte of the prompt knows whether it comes from the
 * template (trusted; "<|im_start|>" there is the token) or from input (role, content, names, tools, tool calls). Marks survive
 * concatenation, slicing and filters. ruv_chat_prompt_encode() recognises special tokens in trusted bytes only, and tokenises the
 * whole prompt in one go, so that honest text gets exactly the ids that Hugging Face gives.
 *
 * Templates come from model files and are not trusted to be well-behaved: nesting, steps, memory and output are limited, and a
 * template cannot reach anything but its inputs. Errors name "line L, column C".
 *
 * The language: see jinja.h. trim_blocks and lstrip_blocks are on, as in transformers.
 * Threads: a compiled template is immutable; any number of threads render it at once. Layer: text. */
#ifndef RUV_TEXT_CHAT_TEMPLATE_H
#define RUV_TEXT_CHAT_TEMPLATE_H

#include <jansson.h>

#include "base/buf.h"
#include "ruvllm/types.h"
#include "text/vocab.h"

typedef struct ruv_chat_template ruv_chat_template;

/* Compiles source[0..n_bytes), at most 1 MiB. RUV_EFORMAT with line and column for a syntax error, RUV_EUNSUPPORTED for a construct
 * that this subset lacks, RUV_ELIMIT. The caller frees *out. */
int ruv_chat_template_compile(ruv_chat_template **out, const char *source, size_t n_bytes, ruv_error *err);
void ruv_chat_template_free(ruv_chat_template *tmpl);

/* Plain ChatML ("<|im_start|>ROLE\nTEXT<|im_end|>\n"), for model files that carry no template but know its tokens. */
extern const char ruv_chat_template_chatml[];

/* One message. NULL fields are absent (undefined in the template), except that a NULL content without parts is none. */
typedef struct ruv_chat_message {
	const char *role;         /* system, user, assistant, tool; required */
	const char *content;      /* UTF-8 */
	const json_t *parts;      /* instead of content: an array of {"type": "text", "text": ...} */
	const char *thinking;     /* reasoning text of an assistant message (also visible as reasoning_content) */
	const json_t *tool_calls; /* OpenAI's array: [{"id", "type", "function": {"name", "arguments"}}]; arguments as an object or
	                           * as a string that holds one (templates always see the object) */
	const char *tool_call_id, *name; /* of a tool's answer */
} ruv_chat_message;

typedef struct ruv_chat_input {
	const ruv_chat_message *messages; /* [n_messages] */
	size_t n_messages;
	const json_t *tools;               /* array of objects, or NULL */
	bool add_generation_prompt;        /* end with the start of an assistant message */
	const char *bos_token, *eos_token; /* their texts; NULL: "" . Trusted. */
	const json_t *extra;               /* an object of further variables (enable_thinking, ...), or NULL */
	int64_t now_s;                     /* for strftime_now: seconds since 1970 (UTC); 0: the clock */
	size_t max_bytes;                  /* of the prompt; 0: 64 MiB */
} ruv_chat_input;

/* The rendered prompt. Zero it to start. */
typedef struct ruv_chat_prompt {
	char *text; /* [n_bytes] and a NUL */
	size_t n_bytes;
	ruv_span *trusted; /* [n_trusted] ascending, apart: the bytes that the template wrote */
	size_t n_trusted;
} ruv_chat_prompt;

/* Renders. RUV_EFORMAT with line and column when the template fails (also raise_exception: its message), RUV_EINVAL for malformed
 * input, RUV_ELIMIT when a limit is met, RUV_ENOMEM. *prompt is untouched on failure; release it otherwise. */
int ruv_chat_template_render(const ruv_chat_template *tmpl, const ruv_chat_input *input, ruv_chat_prompt *prompt, ruv_error *err);
void ruv_chat_prompt_release(ruv_chat_prompt *prompt);

/* Appends the prompt's ids. The template writes bos itself where its model wants one; when it did not and the vocabulary asks for
 * bos, it is put in front once. */
int ruv_chat_prompt_encode(const ruv_chat_prompt *prompt, const ruv_vocab *vocab, ruv_tokens *tokens, ruv_error *err);

/* Both steps, with bos_token and eos_token taken from the vocabulary where the input leaves them NULL. */
int ruv_chat_template_encode(const ruv_chat_template *tmpl, const ruv_vocab *vocab, const ruv_chat_input *input, ruv_tokens *tokens,
                             ruv_error *err);

#endif

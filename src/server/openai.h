/* openai.h - pieces of OpenAI's request form that other protocols share. Layer: server. */
#ifndef RUV_SERVER_OPENAI_H
#define RUV_SERVER_OPENAI_H

#include "server/chat.h"

enum { RUV_OPENAI_MAX_STOPS = 16, RUV_OPENAI_MAX_BIAS = 1024 };

/* A ruv_chat_request with room for what it points at. Zero it, read into it, use `request`, release it. */
typedef struct ruv_openai_request {
	ruv_chat_request request;
	const char *stops[RUV_OPENAI_MAX_STOPS];
	ruv_logit_bias *bias;
	char *schema; /* format_text of a JSON schema */
	bool stream, include_usage;
} ruv_openai_request;

/* Reads sampling, stops, max_tokens, n, seed, logit_bias, penalties, response_format, grammar, stream and the "ruvllm" object: what
 * chats and completions have in common. *param names the field at fault. Strings belong to `body`. */
int ruv_openai_read(ruv_openai_request *out, const json_t *body, const char **param, ruv_error *err);
/* tools, tool_choice, parallel_tool_calls. */
int ruv_openai_read_tools(ruv_openai_request *out, const json_t *body, const char **param, ruv_error *err);
void ruv_openai_release(ruv_openai_request *out);

/* "chatcmpl-" and 32 hex digits into id[64]. */
void ruv_openai_make_id(char id[64], const char *prefix);
/* "stop", "length", "tool_calls". */
const char *ruv_openai_finish(ruv_chat_end end);
json_t *ruv_openai_usage(const ruv_chat_usage *usage);

/* RUV_EUNSUPPORTED naming the first key of `names` (ends with NULL) that is in `body` with a value that asks for something: not
 * null, false, 0, "" or an empty array or object. */
int ruv_openai_refuse(const json_t *body, const char *const *names, const char **param, ruv_error *err);

/* The vectors (a new array of arrays) of `input`: a text, texts, or token ids. *id: the encoder's. Workers only; noted and counted.
 */
int ruv_openai_embed(ruv_exchange *exchange, const char *model, const json_t *input, json_t **vectors, const char **id,
                     int64_t *n_tokens, ruv_error *err);

/* Endpoints in openai_embed.c. */
void ruv_openai_models(ruv_exchange *exchange);
void ruv_openai_model(ruv_exchange *exchange);
void ruv_openai_embeddings(ruv_exchange *exchange);
void ruv_openai_rerank(ruv_exchange *exchange);

#endif

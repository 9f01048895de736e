/* chat.c - a conversation as JSON, the form that clients of servers send, through the model's template.
 *
 * Tools are handed to the template in the form that its model was trained on: LFM2's lists bare {"name", "description",
 * "parameters"} objects, the others' {"type": "function", "function": {...}}. Layer: model. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/object.h"
#include "text/tool_calls.h"

static const char where[] = "model";

static int parse(json_t **out, const char *text, const char *what, bool array, ruv_error *err)
{
	json_error_t bad;

	*out = json_loads(text, JSON_REJECT_DUPLICATES, &bad);
	if (!*out)
		return ruv_fail(err, RUV_EINVAL, where, "%s: no valid JSON: line %d, column %d: %s", what, bad.line, bad.column,
		                bad.text);
	if (array ? !json_is_array(*out) : !json_is_object(*out))
		return ruv_fail(err, RUV_EINVAL, where, "%s must be a JSON %s", what, array ? "array" : "object");
	return RUV_OK;
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* The tools in the form that the template's model knows. *out is a new reference. */
static int shape_tools(json_t **out, const ruv_model *model, const json_t *tools, ruv_error *err)
{
	ruv_gguf_str source = {NULL, 0};
	const json_t *tool;
	size_t i;
	bool bare;
	int rc = ruv_gguf_opt_str(model->gguf, "tokenizer.chat_template", &source, err);

	if (rc)
		return rc;
	bare = source.data && ruv_tool_syntax_of_template(source.data, source.len) == RUV_TOOL_SYNTAX_LFM2;
	*out = json_array();
	json_array_foreach(tools, i, tool)
	{
		json_t *inner = json_object_get(tool, "function");
		json_t *shaped;

		if (!inner && json_object_get(tool, "name"))
			inner = (json_t *)tool;
		if (!json_is_object(inner) || !text_of(inner, "name"))
			return ruv_fail(err, RUV_EINVAL, where, "tool %zu has no function with a name", i + 1);
		shaped = bare ? json_incref(inner) : json_pack("{s:s, s:O}", "type", "function", "function", inner);
		if (json_array_append_new(*out, shaped))
			return ruv_fail_memory(err, where, 0);
	}
	return RUV_OK;
}

static int read_messages(ruv_chat_message *list, const json_t *messages, ruv_error *err)
{
	const json_t *message, *content;
	size_t i;

	json_array_foreach(messages, i, message)
	{
		content = json_object_get(message, "content");
		if (!text_of(message, "role"))
			return ruv_fail(err, RUV_EINVAL, where, "message %zu has no role", i + 1);
		if (content && !json_is_null(content) && !json_is_string(content) && !json_is_array(content))
			return ruv_fail(err, RUV_EINVAL, where, "the content of message %zu is neither text nor a list of parts",
			                i + 1);
		list[i] = (ruv_chat_message){.role = text_of(message, "role"),
		                             .content = json_string_value(content),
		                             .parts = json_is_array(content) ? content : NULL,
		                             .thinking = text_of(message, "reasoning_content"),
		                             .tool_calls = json_object_get(message, "tool_calls"),
		                             .tool_call_id = text_of(message, "tool_call_id"),
		                             .name = text_of(message, "name")};
		if (json_is_null(list[i].tool_calls) || json_array_size(list[i].tool_calls) == 0)
			list[i].tool_calls = NULL;
	}
	return RUV_OK;
}

static char *copy_special(const ruv_vocab *vocab, ruv_token id)
{
	ruv_str s = id >= 0 ? ruv_vocab_text(vocab, id) : (ruv_str){NULL, 0};

	return strndup(s.data ? s.data : "", s.len);
}

int ruv_model_chat(const ruv_model *model, const ruv_conversation *chat, ruv_token_list *tokens, char **text, ruv_error *err)
{
	json_t *messages = NULL, *given = NULL, *tools = NULL, *variables = NULL;
	ruv_chat_prompt prompt = {0};
	ruv_chat_message *list = NULL;
	ruv_chat_input input = {.add_generation_prompt = chat->add_generation_prompt};
	char *bos = NULL, *eos = NULL;
	int rc;

	if (!model->vocab)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no tokenizer", model->path);
	if (!model->chat)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no chat template", model->path);
	rc = parse(&messages, chat->messages ? chat->messages : "", "the messages", true, err);
	if (!rc && chat->tools)
		rc = parse(&given, chat->tools, "the list of tools", true, err);
	if (!rc && json_array_size(given))
		rc = shape_tools(&tools, model, given, err);
	if (!rc && chat->variables)
		rc = parse(&variables, chat->variables, "the template's variables", false, err);
	if (rc)
		goto done;
	list = calloc(json_array_size(messages) + 1, sizeof *list);
	bos = copy_special(model->vocab, ruv_vocab_bos(model->vocab));
	eos = copy_special(model->vocab, ruv_vocab_eos(model->vocab));
	if (!list || !bos || !eos) {
		rc = ruv_fail_memory(err, where, json_array_size(messages) * sizeof *list);
		goto done;
	}
	rc = read_messages(list, messages, err);
	if (rc)
		goto done;
	input.messages = list;
	input.n_messages = json_array_size(messages);
	input.tools = tools;
	input.bos_token = bos;
	input.eos_token = eos;
	input.extra = variables;
	rc = ruv_chat_template_render(model->chat, &input, &prompt, err);
	if (rc)
		goto done;
	if (tokens) {
		ruv_tokens ids = {.ids = tokens->ids, .n = (size_t)tokens->n, .cap = (size_t)tokens->cap, .max = INT32_MAX / 4};

		rc = ruv_chat_prompt_encode(&prompt, model->vocab, &ids, err);
		tokens->ids = ids.ids;
		tokens->cap = (int)ids.cap;
		if (!rc)
			tokens->n = (int)ids.n;
	}
	if (!rc && text) {
		*text = strndup(prompt.text, prompt.n_bytes);
		rc = *text ? RUV_OK : ruv_fail_memory(err, where, prompt.n_bytes);
	}
done:
	ruv_chat_prompt_release(&prompt);
	free(bos);
	free(eos);
	free(list);
	json_decref(variables);
	json_decref(tools);
	json_decref(given);
	json_decref(messages);
	return rc;
}

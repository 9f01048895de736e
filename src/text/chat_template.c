/* chat_template.c - the conversation as a template's variables, rendering, and the prompt's token ids. */
#include "text/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/jinja.h"
#include "text/unicode.h"

enum { DEFAULT_MAX_PROMPT = 64 << 20 };

struct ruv_chat_template {
	jinja_template jinja;
};

const char ruv_chat_template_chatml[] = "{{ bos_token }}"
					"{% for message in messages %}"
					"{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}"
					"{% endfor %}"
					"{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

int ruv_chat_template_compile(ruv_chat_template **out, const char *source, size_t n_bytes, ruv_error *err)
{
	ruv_chat_template *tmpl = calloc(1, sizeof *tmpl);
	int rc;

	if (!tmpl)
		return ruv_fail_memory(err, "chat template", sizeof *tmpl);
	rc = ruv_jinja_parse(&tmpl->jinja, source, n_bytes, err);
	if (rc) {
		ruv_chat_template_free(tmpl);
		return rc;
	}
	*out = tmpl;
	return RUV_OK;
}

void ruv_chat_template_free(ruv_chat_template *tmpl)
{
	if (!tmpl)
		return;
	ruv_jinja_release(&tmpl->jinja);
	free(tmpl);
}

/* dict[key] = text, unless it is NULL. */
static int set_text(jinja_interp *in, jinja_dict *d, const char *key, const char *text)
{
	jinja_value k, v;
	size_t len, valid;
	int rc;

	if (!text)
		return RUV_OK;
	len = strlen(text);
	valid = ruv_utf8_valid_prefix(text, len);
	if (valid < len)
		return ruv_fail(in->err, RUV_EINVAL, "chat template", "'%s' of a message is not UTF-8 at byte %zu", key, valid);
	if ((rc = ruv_jinja_new_string(in, key, strlen(key), false, &k)) || (rc = ruv_jinja_new_string(in, text, len, false, &v)))
		return rc;
	return ruv_jinja_dict_set(in, d, k, v);
}

static int set_value(jinja_interp *in, jinja_dict *d, const char *key, jinja_value v)
{
	jinja_value k;
	int rc = ruv_jinja_new_string(in, key, strlen(key), false, &k);

	return rc ? rc : ruv_jinja_dict_set(in, d, k, v);
}

/* The calls, with arguments that are given as a string of JSON turned into the object. */
static int set_tool_calls(jinja_interp *in, jinja_dict *d, const json_t *calls, size_t message)
{
	json_t *copy, *call;
	jinja_value v;
	size_t i;
	int rc = RUV_OK;

	if (!json_is_array(calls))
		return ruv_fail(in->err, RUV_EINVAL, "chat template", "tool_calls of message %zu is no array", message);
	copy = json_deep_copy(calls);
	if (!copy)
		return ruv_fail_memory(in->err, "chat template", 1024);
	json_array_foreach(copy, i, call)
	{
		json_t *function = json_object_get(call, "function"), *owner = function ? function : call, *arguments;
		arguments = json_object_get(owner, "arguments");
		if (json_is_string(arguments)) {
			json_error_t at;
			json_t *object =
			    json_loadb(json_string_value(arguments), json_string_length(arguments), JSON_REJECT_DUPLICATES, &at);
			if (!json_is_object(object) || json_object_set_new(owner, "arguments", object)) {
				if (!json_is_object(object))
					json_decref(object);
				rc = ruv_fail(in->err, RUV_EINVAL, "chat template",
				              "arguments of tool call %zu of message %zu are no JSON object%s%s", i, message,
				              object ? "" : ": ", object ? "" : at.text);
				goto done;
			}
		}
	}
	rc = ruv_jinja_from_json(in, copy, 0, &v);
	if (rc == RUV_OK)
		rc = set_value(in, d, "tool_calls", v);
done:
	json_decref(copy);
	return rc;
}

static int set_messages(jinja_interp *in, const ruv_chat_input *input)
{
	jinja_value list, v;
	size_t i;
	int rc = ruv_jinja_new_list(in, input->n_messages, &list);

	for (i = 0; rc == RUV_OK && i < input->n_messages; i++) {
		const ruv_chat_message *m = &input->messages[i];
		jinja_value message;

		if (!m->role)
			return ruv_fail(in->err, RUV_EINVAL, "chat template", "message %zu has no role", i);
		if ((rc = ruv_jinja_new_dict(in, &message)) || (rc = set_text(in, message.d, "role", m->role)))
			return rc;
		if (m->parts) {
			if ((rc = ruv_jinja_from_json(in, m->parts, 0, &v)) || (rc = set_value(in, message.d, "content", v)))
				return rc;
		} else if (m->content) {
			rc = set_text(in, message.d, "content", m->content);
		} else {
			rc = set_value(in, message.d, "content", (jinja_value){.type = JINJA_NONE});
		}
		if (rc || (rc = set_text(in, message.d, "thinking", m->thinking)) ||
		    (rc = set_text(in, message.d, "reasoning_content", m->thinking)) ||
		    (rc = set_text(in, message.d, "tool_call_id", m->tool_call_id)) ||
		    (rc = set_text(in, message.d, "name", m->name)) ||
		    (m->tool_calls && (rc = set_tool_calls(in, message.d, m->tool_calls, i))))
			return rc;
		rc = ruv_jinja_list_push(in, list.l, message);
	}
	return rc ? rc : ruv_jinja_set(in, in->globals, "messages", list);
}

static int set_variables(jinja_interp *in, const ruv_chat_input *input)
{
	const char *key;
	json_t *value;
	jinja_value v;
	int rc;

	if (input->extra) {
		if (!json_is_object(input->extra))
			return ruv_fail(in->err, RUV_EINVAL, "chat template", "the extra variables are no JSON object");
		json_object_foreach((json_t *)input->extra, key,
		                    value) if ((rc = ruv_jinja_from_json(in, value, 0, &v)) ||
		                               (rc = ruv_jinja_set(in, in->globals, key, v))) return rc;
	}
	if (input->tools && !json_is_array(input->tools))
		return ruv_fail(in->err, RUV_EINVAL, "chat template", "the tools are no JSON array");
	v = (jinja_value){.type = JINJA_NONE};
	if ((input->tools && (rc = ruv_jinja_from_json(in, input->tools, 0, &v))) ||
	    (rc = ruv_jinja_set(in, in->globals, "tools", v)))
		return rc;
	if ((rc = ruv_jinja_set(in, in->globals, "add_generation_prompt",
	                        (jinja_value){.type = JINJA_BOOL, .b = input->add_generation_prompt})))
		return rc;
	key = input->bos_token ? input->bos_token : "";
	if ((rc = ruv_jinja_new_string(in, key, strlen(key), true, &v)) || (rc = ruv_jinja_set(in, in->globals, "bos_token", v)))
		return rc;
	key = input->eos_token ? input->eos_token : "";
	if ((rc = ruv_jinja_new_string(in, key, strlen(key), true, &v)) || (rc = ruv_jinja_set(in, in->globals, "eos_token", v)))
		return rc;
	return set_messages(in, input);
}

int ruv_chat_template_render(const ruv_chat_template *tmpl, const ruv_chat_input *input, ruv_chat_prompt *prompt, ruv_error *err)
{
	jinja_interp in;
	jinja_builder out;
	size_t max_bytes = input->max_bytes ? input->max_bytes : DEFAULT_MAX_PROMPT, n;
	char *text;
	int rc;

	ruv_jinja_builder_init(&out, max_bytes);
	rc = ruv_jinja_interp_init(&in, max_bytes, err);
	if (rc)
		goto done;
	in.now_s = input->now_s;
	rc = set_variables(&in, input);
	if (rc)
		goto done;
	rc = ruv_jinja_run(&in, &tmpl->jinja, &out);
	if (rc)
		goto done;
	n = out.text.len;
	text = ruv_buf_take(&out.text);
	if (!text) {
		rc = ruv_fail_memory(err, "chat template", n);
		goto done;
	}
	*prompt = (ruv_chat_prompt){.text = text, .n_bytes = n, .trusted = out.spans, .n_trusted = out.n_spans};
	out.spans = NULL;
done:
	ruv_jinja_builder_release(&out);
	ruv_jinja_interp_release(&in);
	return rc;
}

void ruv_chat_prompt_release(ruv_chat_prompt *prompt)
{
	free(prompt->text);
	free(prompt->trusted);
	memset(prompt, 0, sizeof *prompt);
}

int ruv_chat_prompt_encode(const ruv_chat_prompt *prompt, const ruv_vocab *vocab, ruv_tokens *tokens, ruv_error *err)
{
	size_t n_before = tokens->n;
	ruv_token bos = ruv_vocab_bos(vocab);
	int rc = RUV_OK;

	if (ruv_vocab_add_bos(vocab))
		rc = ruv_tokens_push(tokens, bos, err);
	if (rc == RUV_OK)
		rc = ruv_vocab_encode_trusted(vocab, prompt->text, prompt->n_bytes, prompt->trusted, prompt->n_trusted, 0, tokens,
		                              err);
	if (rc) {
		tokens->n = n_before;
		return rc;
	}
	/* The template wrote it already. */
	if (ruv_vocab_add_bos(vocab) && tokens->n > n_before + 1 && tokens->ids[n_before + 1] == bos) {
		memmove(tokens->ids + n_before, tokens->ids + n_before + 1, (tokens->n - n_before - 1) * sizeof *tokens->ids);
		tokens->n--;
	}
	return RUV_OK;
}

/* A token's text as a C string; NULL when there is no such token or memory is out. */
static char *token_text(const ruv_vocab *vocab, ruv_token id)
{
	ruv_str text = ruv_vocab_text(vocab, id);

	return text.data ? strndup(text.data, text.len) : NULL;
}

int ruv_chat_template_encode(const ruv_chat_template *tmpl, const ruv_vocab *vocab, const ruv_chat_input *input, ruv_tokens *tokens,
                             ruv_error *err)
{
	ruv_chat_input filled = *input;
	ruv_chat_prompt prompt = {0};
	char *bos = NULL, *eos = NULL;
	int rc;

	if (!filled.bos_token)
		filled.bos_token = bos = token_text(vocab, ruv_vocab_bos(vocab));
	if (!filled.eos_token)
		filled.eos_token = eos = token_text(vocab, ruv_vocab_eos(vocab));
	rc = ruv_chat_template_render(tmpl, &filled, &prompt, err);
	if (rc == RUV_OK)
		rc = ruv_chat_prompt_encode(&prompt, vocab, tokens, err);
	ruv_chat_prompt_release(&prompt);
	free(bos);
	free(eos);
	return rc;
}

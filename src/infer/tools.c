/* tools.c - tool calls at the public door: text/tool_calls.h's parser as a stream of events, and the grammar that forces calls.
 *
 * The grammar writes calls as the model would. LFM2: one block of Python calls, or of JSON objects where a tool's parameters cannot
 * be keyword arguments. Qwen: a block a call. Marks that are tokens of the vocabulary are demanded as tokens: spelled out in other
 * tokens they would not be what the model knows. Layer: infer. */
#include "ruvllm/tools.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "infer/grammar.h"
#include "model/object.h"
#include "text/tool_calls.h"

static const char where[] = "tools";

enum { TOOLS_KIND = 16, MAX_TOOLS = 512 };

/* ---- streams ---- */

struct ruv_tool_stream {
	ruv_tool_parser *parser;
	ruv_on_tool_event *on_event;
	void *user;
};

static ruv_tool_syntax syntax_of(const ruv_model *model)
{
	ruv_gguf_str source = {NULL, 0};

	if (!model->chat || ruv_gguf_opt_str(model->gguf, "tokenizer.chat_template", &source, NULL) || !source.data)
		return RUV_TOOL_SYNTAX_NONE;
	return ruv_tool_syntax_of_template(source.data, source.len);
}

bool ruv_model_has_tools(const ruv_model *model)
{
	return syntax_of(model) != RUV_TOOL_SYNTAX_NONE;
}

static int on_part(void *user, ruv_tool_part part, size_t call, const char *name, const char *text, size_t n)
{
	static const ruv_tool_event_kind kinds[] = {[RUV_PART_TEXT] = RUV_TOOL_TEXT,
	                                            [RUV_PART_BEGIN] = RUV_TOOL_BEGIN,
	                                            [RUV_PART_ARGUMENTS] = RUV_TOOL_ARGUMENTS,
	                                            [RUV_PART_END] = RUV_TOOL_END,
	                                            [RUV_PART_BROKEN] = RUV_TOOL_BROKEN};
	ruv_tool_stream *stream = user;
	const ruv_tool_event event = {kinds[part], (int)call, name, text, n};

	return stream->on_event(stream->user, &event) ? RUV_OK : RUV_ECANCELLED;
}

int ruv_tool_stream_open(ruv_tool_stream **out, const ruv_model *model, ruv_on_tool_event *on_event, void *user, ruv_error *err)
{
	ruv_tool_stream *stream = calloc(1, sizeof *stream);
	int rc;

	*out = NULL;
	if (!stream)
		return ruv_fail_memory(err, where, sizeof *stream);
	rc = ruv_tool_parser_create(&stream->parser, syntax_of(model), err);
	if (rc) {
		free(stream);
		return rc;
	}
	stream->on_event = on_event;
	stream->user = user;
	ruv_tool_parser_listen(stream->parser, on_part, stream);
	*out = stream;
	return RUV_OK;
}

void ruv_tool_stream_free(ruv_tool_stream *stream)
{
	if (!stream)
		return;
	ruv_tool_parser_free(stream->parser);
	free(stream);
}

int ruv_tool_stream_push(ruv_tool_stream *stream, const char *text, size_t n_bytes, ruv_error *err)
{
	return ruv_tool_parser_push(stream->parser, text, n_bytes, NULL, err);
}

int ruv_tool_stream_finish(ruv_tool_stream *stream, ruv_error *err)
{
	return ruv_tool_parser_finish(stream->parser, NULL, err);
}

int ruv_tool_stream_n_calls(const ruv_tool_stream *stream)
{
	return (int)ruv_tool_parser_n_calls(stream->parser);
}

/* ---- grammars ---- */

typedef struct request {
	const json_t *tools;
	const char *name; /* NULL: any */
	bool parallel;
} request;

/* The model's token of that text, or the text itself. */
static const ruv_gnode *mark(ruv_gast *ast, const ruv_model *model, const char *text)
{
	const ruv_token token = ruv_vocab_find(model->vocab, text, strlen(text));

	return token >= 0 ? ruv_gast_token(ast, token) : ruv_gast_text(ast, text);
}

/* {"name": NAME, "arguments": {...}} */
static int json_call(ruv_gast *ast, const json_t *name, const json_t *parameters, const ruv_gnode **out, ruv_error *err)
{
	const ruv_gnode *arguments = NULL;
	int rc = RUV_OK;

	if (!parameters || (json_object_size(parameters) == 0))
		arguments = ruv_gast_text(ast, "{}");
	else
		rc = ruv_schema_compile(ast, parameters, &arguments, err);
	if (!rc)
		*out = RUV_GSEQ(ast, ruv_gast_text(ast, "{\"name\": "), ruv_gjson_literal(ast, name),
		                ruv_gast_text(ast, ", \"arguments\": "), arguments, ruv_gast_text(ast, "}"));
	return rc;
}

/* Does the reader of Python calls take this name? */
static bool is_function(const char *name)
{
	if (!*name || (*name >= '0' && *name <= '9') || *name == '.' || *name == '-')
		return false;
	for (; *name; name++)
		if (!((*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') || (*name >= '0' && *name <= '9') ||
		      *name == '_' || *name == '.' || *name == '-'))
			return false;
	return true;
}

/* NAME(key=value, ...); RUV_EMISMATCH when the tool cannot be called so. */
static int python_call(ruv_gast *ast, const char *name, const json_t *parameters, const ruv_gnode **out, ruv_error *err)
{
	const ruv_gnode *arguments = NULL;
	int rc = is_function(name) ? RUV_OK : RUV_EMISMATCH;

	if (!rc && json_object_size(json_object_get(parameters, "properties")) == 0)
		arguments = ruv_gast_text(ast, "()");
	else if (!rc)
		rc = ruv_schema_arguments(ast, parameters, &arguments, err);
	if (!rc)
		*out = RUV_GSEQ(ast, ruv_gast_text(ast, name), arguments);
	return rc;
}

/* The calls that are allowed, in both notations' lists. */
static int build_calls(const request *r, ruv_gast *ast, bool python, ruv_glist *calls, ruv_glist *objects, ruv_error *err)
{
	json_t *tool;
	size_t i;
	bool found = false;
	int rc = RUV_OK;

	json_array_foreach((json_t *)r->tools, i, tool)
	{
		const json_t *function = json_object_get(tool, "function"), *name, *parameters;
		const ruv_gnode *node = NULL;

		function = json_is_object(function) ? function : tool;
		name = json_object_get(function, "name");
		parameters = json_object_get(function, "parameters");
		if (!json_is_string(name) || !json_string_length(name))
			return ruv_fail(err, RUV_EFORMAT, where, "tool %zu has no name", i);
		if (r->name && strcmp(r->name, json_string_value(name)))
			continue;
		found = true;
		rc = python ? python_call(ast, json_string_value(name), parameters, &node, err) : RUV_EMISMATCH;
		if (rc == RUV_OK) {
			ruv_glist_push(ast, calls, node);
			continue;
		}
		if (rc == RUV_EMISMATCH)
			rc = json_call(ast, name, parameters, &node, err);
		if (rc)
			return ruv_error_prefix(err, rc, "the parameters of the tool \"%.60s\": ", json_string_value(name));
		ruv_glist_push(ast, objects, node);
	}
	if (!found && r->name)
		return ruv_fail(err, RUV_ENOTFOUND, where, "there is no tool \"%.100s\" in the list", r->name);
	return found ? RUV_OK : ruv_fail(err, RUV_EFORMAT, where, "the list of tools is empty");
}

/* item, or item (separator item)* */
static const ruv_gnode *one_or_more(ruv_gast *ast, const ruv_glist *items, const char *separator, bool more)
{
	const ruv_gnode *item;
	const int rule = ruv_gast_rule(ast, "call");

	if (items->n == 0 || ast->failed)
		return ruv_gast_never();
	ast->rules[rule].node = ruv_gast_list(ast, RUV_G_ALT, items->items, items->n);
	item = ruv_gast_ref(ast, rule);
	return more ? RUV_GSEQ(ast, item, ruv_gast_repeat(ast, RUV_GSEQ(ast, ruv_gast_text(ast, separator), item), 0, 63)) : item;
}

static int build(void *user, ruv_gast *ast, const ruv_model *model, ruv_error *err)
{
	const request *r = user;
	const bool lfm2 = syntax_of(model) == RUV_TOOL_SYNTAX_LFM2;
	ruv_glist calls = {0}, objects = {0};
	const ruv_gnode *body, *block = ruv_gast_never();
	int rc;

	ast->root = ruv_gast_rule(ast, "root");
	rc = build_calls(r, ast, lfm2, &calls, &objects, err);
	if (!rc && lfm2) {
		if (objects.n && calls.n) { /* one block has one notation */
			calls.n = objects.n = 0;
			rc = build_calls(r, ast, false, &calls, &objects, err);
		}
		body = calls.n ? one_or_more(ast, &calls, ", ", r->parallel) : one_or_more(ast, &objects, ", ", r->parallel);
		block = RUV_GSEQ(ast, mark(ast, model, "<|tool_call_start|>"), ruv_gast_text(ast, "["), body,
		                 ruv_gast_text(ast, "]"), mark(ast, model, "<|tool_call_end|>"));
	} else if (!rc) {
		body = one_or_more(ast, &objects, "", false);
		block = RUV_GSEQ(ast, mark(ast, model, "<tool_call>"), ruv_gast_text(ast, "\n"), body, ruv_gast_text(ast, "\n"),
		                 mark(ast, model, "</tool_call>"));
		if (r->parallel && !ast->failed) {
			const int rule = ruv_gast_rule(ast, "block");

			if (!ast->failed) {
				ast->rules[rule].node = block;
				block = ruv_gast_ref(ast, rule);
				block = RUV_GSEQ(ast, block,
				                 ruv_gast_repeat(ast, RUV_GSEQ(ast, ruv_gast_text(ast, "\n"), block), 0, 63));
			}
		}
	}
	if (!rc)
		rc = ruv_gast_check(ast, err);
	if (!rc)
		ast->rules[ast->root].node = block;
	ruv_glist_release(&calls);
	ruv_glist_release(&objects);
	return rc;
}

int ruv_tools_grammar(ruv_grammar **out, ruv_model *model, const char *tools, const char *name, bool parallel, ruv_error *err)
{
	request r = {.name = name, .parallel = parallel};
	json_error_t at;
	json_t *list;
	ruv_buf key;
	int rc;

	*out = NULL;
	if (!ruv_model_has_tools(model))
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "this model's chat template has no notation for tool calls");
	list = json_loads(tools, JSON_REJECT_DUPLICATES, &at);
	if (!json_is_array(list)) {
		json_decref(list);
		return ruv_fail(err, RUV_EFORMAT, where, "the tools are no JSON array%s%s", list ? "" : ": ", list ? "" : at.text);
	}
	if (json_array_size(list) > MAX_TOOLS) {
		json_decref(list);
		return ruv_fail(err, RUV_ELIMIT, where, "more than %d tools", (int)MAX_TOOLS);
	}
	r.tools = list;
	ruv_buf_init(&key, RUV_GRAMMAR_MAX_TEXT);
	ruv_buf_printf(&key, "%d %s\n%s", parallel, name ? name : "", tools);
	rc = key.failed ? ruv_fail(err, key.failed, where, "the tools have more than %d bytes", (int)RUV_GRAMMAR_MAX_TEXT)
	                : ruv_grammar_build(out, model, TOOLS_KIND, key.data, key.len, build, &r, err);
	ruv_buf_release(&key);
	json_decref(list);
	return rc;
}

/* openai_request.c - reading what OpenAI's requests have in common, see openai.h. Fields that we do not know are passed over;
 * fields that we know and cannot do are refused by name. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "base/uuid.h"
#include "server/openai.h"

static const char where[] = "server";

void ruv_openai_make_id(char id[64], const char *prefix)
{
	char text[37];
	size_t n = strlen(prefix);

	ruv_uuid_format(ruv_uuid_make(), text);
	memcpy(id, prefix, n);
	for (const char *p = text; *p; p++)
		if (*p != '-')
			id[n++] = *p;
	id[n] = 0;
}

const char *ruv_openai_finish(ruv_chat_end end)
{
	return end == RUV_END_LENGTH ? "length" : end == RUV_END_TOOL_CALLS ? "tool_calls" : "stop";
}

json_t *ruv_openai_usage(const ruv_chat_usage *usage)
{
	return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", usage->n_prompt, "completion_tokens", usage->n_output,
	                 "total_tokens", usage->n_prompt + usage->n_output, "prompt_tokens_details", "cached_tokens",
	                 usage->n_cached);
}

static bool asks_for_something(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_NULL:
	case JSON_FALSE:
		return false;
	case JSON_STRING:
		return json_string_length(value) > 0;
	case JSON_INTEGER:
	case JSON_REAL:
		return json_number_value(value) != 0;
	case JSON_ARRAY:
		return json_array_size(value) > 0;
	case JSON_OBJECT:
		return json_object_size(value) > 0;
	default:
		return true;
	}
}

int ruv_openai_refuse(const json_t *body, const char *const *names, const char **param, ruv_error *err)
{
	for (; *names; names++) {
		const json_t *value = json_object_get(body, *names);

		if (value && asks_for_something(value)) {
			*param = *names;
			return ruv_fail(err, RUV_EUNSUPPORTED, where, "'%s' is not supported by this server", *names);
		}
	}
	return RUV_OK;
}

static int read_stops(ruv_openai_request *out, const json_t *body, ruv_error *err)
{
	const json_t *stop = json_object_get(body, "stop"), *item;
	size_t i;

	if (!stop || json_is_null(stop))
		return RUV_OK;
	if (json_is_string(stop)) {
		out->stops[0] = json_string_value(stop);
		out->request.n_stops = *out->stops[0] ? 1 : 0;
	} else if (!json_is_array(stop) || json_array_size(stop) > RUV_OPENAI_MAX_STOPS) {
		return ruv_fail(err, RUV_EINVAL, where, "'stop' must be a string or an array of at most %d strings",
		                (int)RUV_OPENAI_MAX_STOPS);
	}
	json_array_foreach(stop, i, item)
	{
		if (!json_is_string(item) || !json_string_length(item))
			return ruv_fail(err, RUV_EINVAL, where, "item %zu of 'stop' is no text", i + 1);
		out->stops[out->request.n_stops++] = json_string_value(item);
	}
	out->request.stops = out->stops;
	return RUV_OK;
}

static int read_bias(ruv_openai_request *out, const json_t *body, ruv_error *err)
{
	json_t *map = NULL, *value;
	const char *key;
	int rc = ruv_json_object(body, "logit_bias", &map, err);

	if (rc || !json_object_size(map))
		return rc;
	if (json_object_size(map) > RUV_OPENAI_MAX_BIAS)
		return ruv_fail(err, RUV_EINVAL, where, "'logit_bias' has %zu tokens; at most %d are taken", json_object_size(map),
		                (int)RUV_OPENAI_MAX_BIAS);
	out->bias = calloc(json_object_size(map), sizeof *out->bias);
	if (!out->bias)
		return ruv_fail_memory(err, where, 0);
	json_object_foreach(map, key, value)
	{
		char *end;
		long token = strtol(key, &end, 10);

		if (!*key || *end || token < 0 || token > INT32_MAX)
			return ruv_fail(err, RUV_EINVAL, where, "'%.40s' in 'logit_bias' is no token id", key);
		if (!json_is_number(value) || json_number_value(value) < -100 || json_number_value(value) > 100)
			return ruv_fail(err, RUV_EINVAL, where, "the bias of token %s must be a number from -100 to 100", key);
		out->bias[out->request.n_bias++] =
		    (ruv_logit_bias){.token = (ruv_token)token, .bias = (float)json_number_value(value)};
	}
	out->request.bias = out->bias;
	return RUV_OK;
}

static int read_format(ruv_openai_request *out, const json_t *body, ruv_error *err)
{
	json_t *format = NULL, *inner = NULL, *schema = NULL;
	const char *type = NULL, *grammar = NULL;
	int rc = ruv_json_object(body, "response_format", &format, err);

	if (rc || (rc = ruv_json_text(body, "grammar", &grammar, err)))
		return rc;
	if (grammar && *grammar) {
		out->request.format = RUV_FORMAT_GRAMMAR;
		out->request.format_text = grammar;
	}
	if (!format)
		return RUV_OK;
	if ((rc = ruv_json_text(format, "type", &type, err)))
		return rc;
	if (!type || !strcmp(type, "text"))
		return type ? RUV_OK : ruv_fail(err, RUV_EINVAL, where, "'response_format' has no type");
	if (out->request.format == RUV_FORMAT_GRAMMAR)
		return ruv_fail(err, RUV_EINVAL, where, "'grammar' and 'response_format' exclude each other");
	if (!strcmp(type, "json_object")) {
		out->request.format = RUV_FORMAT_JSON;
		return RUV_OK;
	}
	if (strcmp(type, "json_schema"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "the response format '%.40s' is not known; there are text, json_object and json_schema", type);
	rc = ruv_json_object(format, "json_schema", &inner, err);
	if (!rc && inner)
		rc = ruv_json_object(inner, "schema", &schema, err);
	if (rc)
		return rc;
	if (!schema)
		return ruv_fail(err, RUV_EINVAL, where, "'response_format.json_schema.schema' must be an object");
	out->schema = json_dumps(schema, JSON_COMPACT);
	if (!out->schema)
		return ruv_fail_memory(err, where, 0);
	out->request.format = RUV_FORMAT_JSON_SCHEMA;
	out->request.format_text = out->schema;
	return RUV_OK;
}

/* {"memory": true, "scope": {user, agent, session}, "n_sources": 3} */
static int read_own(ruv_openai_request *out, const json_t *body, ruv_error *err)
{
	json_t *own = NULL, *scope = NULL;
	int64_t n_sources = 0;
	int rc = ruv_json_object(body, "ruvllm", &own, err);

	if (rc || !own)
		return rc;
	if ((rc = ruv_json_bool(own, "memory", &out->request.memory, err)) || (rc = ruv_json_object(own, "scope", &scope, err)) ||
	    (rc = ruv_json_int(own, "n_sources", 1, 50, &n_sources, err)))
		return rc;
	out->request.no_memory = json_is_false(json_object_get(own, "memory"));
	out->request.n_sources = (int)n_sources;
	if (scope && ((rc = ruv_json_text(scope, "user", &out->request.scope.user, err)) ||
	              (rc = ruv_json_text(scope, "agent", &out->request.scope.agent, err)) ||
	              (rc = ruv_json_text(scope, "session", &out->request.scope.session, err))))
		return rc;
	return RUV_OK;
}

/* A number that counts as set when it is there. */
static int read_real(ruv_openai_request *out, const json_t *body, const char *key, double low, double high, double *value,
                     unsigned bit, const char **param, ruv_error *err)
{
	const json_t *v = json_object_get(body, key);

	if (!v || json_is_null(v))
		return RUV_OK;
	*param = key;
	out->request.set |= bit;
	return ruv_json_real(body, key, low, high, value, err);
}

static int read_int(ruv_openai_request *out, const json_t *body, const char *key, int64_t low, int64_t high, int64_t *value,
                    unsigned bit, const char **param, ruv_error *err)
{
	const json_t *v = json_object_get(body, key);

	if (!v || json_is_null(v))
		return RUV_OK;
	*param = key;
	out->request.set |= bit;
	return ruv_json_int(body, key, low, high, value, err);
}

int ruv_openai_read(ruv_openai_request *out, const json_t *body, const char **param, ruv_error *err)
{
	ruv_chat_request *r = &out->request;
	int64_t max_tokens = 0, n = 1;
	json_t *options = NULL;
	int rc;

	ruv_chat_request_init(r);
	*param = "model";
	rc = ruv_json_text(body, "model", &r->model, err);
	if (rc || (rc = read_real(out, body, "temperature", 0, 10, &r->temperature, RUV_SET_TEMPERATURE, param, err)) ||
	    (rc = read_real(out, body, "top_p", 0, 1, &r->top_p, RUV_SET_TOP_P, param, err)) ||
	    (rc = read_real(out, body, "min_p", 0, 1, &r->min_p, RUV_SET_MIN_P, param, err)) ||
	    (rc = read_real(out, body, "typical_p", 0, 1, &r->typical_p, RUV_SET_TYPICAL_P, param, err)) ||
	    (rc = read_real(out, body, "repetition_penalty", 0, 10, &r->repetition_penalty, RUV_SET_REPETITION_PENALTY, param,
	                    err)) ||
	    (rc = read_real(out, body, "frequency_penalty", -2, 2, &r->frequency_penalty, RUV_SET_FREQUENCY_PENALTY, param, err)) ||
	    (rc = read_real(out, body, "presence_penalty", -2, 2, &r->presence_penalty, RUV_SET_PRESENCE_PENALTY, param, err)) ||
	    (rc = read_int(out, body, "top_k", -1, 1 << 20, &r->top_k, RUV_SET_TOP_K, param, err)) ||
	    (rc = read_int(out, body, "seed", INT64_MIN, INT64_MAX, &r->seed, RUV_SET_SEED, param, err)))
		return rc;
	if (r->top_k < 0)
		r->top_k = 0; /* -1: all, as some clients write it */
	if ((r->set & RUV_SET_SEED) && r->seed <= 0)
		r->seed = r->seed ? -(r->seed + 1) + 1 : 1; /* 0 draws one; the same seed must give the same text */
	if ((rc = read_int(out, body, "max_tokens", 1, INT32_MAX, &max_tokens, 0, param, err)) ||
	    (rc = read_int(out, body, "max_completion_tokens", 1, INT32_MAX, &max_tokens, 0, param, err)) ||
	    (rc = read_int(out, body, "n", 1, RUV_MAX_CHOICES, &n, 0, param, err)))
		return rc;
	r->max_tokens = (int)max_tokens;
	r->n_choices = (int)n;
	*param = "stop";
	if ((rc = read_stops(out, body, err)))
		return rc;
	*param = "logit_bias";
	if ((rc = read_bias(out, body, err)))
		return rc;
	*param = "response_format";
	if ((rc = read_format(out, body, err)))
		return rc;
	*param = "ruvllm";
	if ((rc = read_own(out, body, err)))
		return rc;
	*param = "stream";
	if ((rc = ruv_json_bool(body, "stream", &out->stream, err)))
		return rc;
	*param = "stream_options";
	if ((rc = ruv_json_object(body, "stream_options", &options, err)) ||
	    (options && (rc = ruv_json_bool(options, "include_usage", &out->include_usage, err))))
		return rc;
	*param = "ignore_eos";
	if ((rc = ruv_json_bool(body, "ignore_eos", &r->ignore_end, err)))
		return rc;
	*param = NULL;
	return RUV_OK;
}

int ruv_openai_read_tools(ruv_openai_request *out, const json_t *body, const char **param, ruv_error *err)
{
	ruv_chat_request *r = &out->request;
	json_t *tools = NULL, *choice, *tool;
	bool parallel = true;
	size_t i;
	int rc;

	*param = "tools";
	rc = ruv_json_array(body, "tools", &tools, err);
	if (rc)
		return rc;
	json_array_foreach(tools, i, tool)
	{
		const char *type = json_string_value(json_object_get(tool, "type"));
		const json_t *function = json_object_get(tool, "function");

		if (type && strcmp(type, "function"))
			return ruv_fail(err, RUV_EUNSUPPORTED, where, "tool %zu is of type '%.40s'; only functions can be called",
			                i + 1, type);
		if (!json_is_string(json_object_get(function, "name")))
			return ruv_fail(err, RUV_EINVAL, where, "tool %zu has no function.name", i + 1);
	}
	r->tools = json_array_size(tools) ? tools : NULL;
	*param = "parallel_tool_calls";
	if ((rc = ruv_json_bool(body, "parallel_tool_calls", &parallel, err)))
		return rc;
	r->no_parallel_tools = !parallel;
	*param = "tool_choice";
	choice = json_object_get(body, "tool_choice");
	if (!choice || json_is_null(choice)) {
		*param = NULL;
		return RUV_OK;
	}
	if (json_is_string(choice)) {
		const char *text = json_string_value(choice);

		r->tool_choice = !strcmp(text, "none")       ? RUV_TOOLS_NONE
		                 : !strcmp(text, "required") ? RUV_TOOLS_REQUIRED
		                                             : RUV_TOOLS_AUTO;
		if (r->tool_choice == RUV_TOOLS_AUTO && strcmp(text, "auto"))
			return ruv_fail(err, RUV_EINVAL, where,
			                "'tool_choice' is '%.40s'; it must be none, auto, required or a function", text);
	} else {
		r->tool_name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
		if (!r->tool_name)
			return ruv_fail(err, RUV_EINVAL, where,
			                "'tool_choice' must be none, auto, required or {\"type\": \"function\", \"function\": "
			                "{\"name\": ...}}");
		r->tool_choice = RUV_TOOLS_NAMED;
	}
	if (!r->tools && (r->tool_choice == RUV_TOOLS_REQUIRED || r->tool_choice == RUV_TOOLS_NAMED))
		return ruv_fail(err, RUV_EINVAL, where, "'tool_choice' asks for a call, but there are no tools");
	*param = NULL;
	return RUV_OK;
}

void ruv_openai_release(ruv_openai_request *out)
{
	free(out->bias);
	free(out->schema);
	*out = (ruv_openai_request){0};
}

/* ask.c - /v1/ask: a question answered from memory by the whole loop, in one piece or as a stream of events.
 *
 * The loop runs on the worker's thread and generates through the scheduler, so that questions are answered side by side.
 * A stream's events: "sources" (what was found, before the first token), "delta" {text}, "answer" (all, as without a stream).
 * Layer: server. */
#include "server/ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "server/server_impl.h"

static const char where[] = "server";

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

static json_t *text_of(const char *text)
{
	return text ? ruv_json_string(text, strlen(text)) : json_null();
}

json_t *ruv_sources_json(const ruv_answer *answer, bool with_text)
{
	json_t *list = json_array();

	for (int i = 0; i < answer->n_sources; i++) {
		const ruv_source *s = &answer->sources[i];
		json_t *source =
		    json_pack("{s:o, s:s, s:o, s:i, s:i, s:o, s:f, s:o, s:o, s:b}", "number",
		              s->number ? json_integer(s->number) : json_null(), "id", s->id, "file", text_of(s->source),
		              "first_line", s->first_line, "last_line", s->last_line, "title", text_of(s->title), "score", s->score,
		              "cosine", s->vector_rank ? json_real((double)s->cosine) : json_null(), "bm25",
		              s->lexical_rank ? json_real((double)s->bm25) : json_null(), "cited", s->cited);

		if (with_text)
			json_object_set_new(source, "text", text_of(s->text));
		json_array_append_new(list, source);
	}
	return list;
}

static json_t *citations_json(const ruv_answer *answer)
{
	json_t *list = json_array();

	for (int i = 0; i < answer->n_citations; i++) {
		const ruv_citation *c = &answer->citations[i];
		const ruv_source *s = &answer->sources[c->source];

		json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:o, s:o, s:o, s:b}", "id", s->id, "number", s->number,
		                                      "named", c->named, "quote", *c->quote ? text_of(c->quote) : json_null(),
		                                      "file", text_of(s->source), "line",
		                                      c->line ? json_integer(c->line) : json_null(), "verbatim", c->verbatim));
	}
	return list;
}

static json_t *route_json(const ruv_answer_route *route)
{
	return route->used ? json_pack("{s:s, s:s, s:s, s:f, s:i}", "tier", route->tier, "first", route->first, "why", route->why,
	                               "confidence", (double)route->confidence, "escalations", route->n_escalations)
	                   : json_null();
}

static json_t *verdict_json(const ruv_verdict *verdict)
{
	return verdict->quality >= 0 ? json_pack("{s:f, s:f, s:f, s:f, s:s}", "quality", (double)verdict->quality, "grounded",
	                                         (double)verdict->grounded, "complete", (double)verdict->complete, "format",
	                                         (double)verdict->format, "why", verdict->why ? verdict->why : "")
	                             : json_null();
}

json_t *ruv_answer_json(const ruv_answer *answer, const char *question, const char *model)
{
	json_t *stages = json_object(), *object;

	for (int i = 0; i < answer->n_stages; i++)
		json_object_set_new(stages, answer->stages[i].name, json_real(answer->stages[i].ms));
	object =
	    json_pack("{s:s, s:s, s:o, s:o, s:o, s:b, s:o, s:o, s:b, s:s, s:s}", "object", "ruvllm.answer", "id", answer->id,
	              "question", text_of(question), "answer", text_of(answer->answer), "text", text_of(answer->text), "unknown",
	              answer->unknown, "citations", citations_json(answer), "sources", ruv_sources_json(answer, true), "focused",
	              answer->focused, "finish", answer->text ? ruv_finish_name(answer->finish) : "retrieved", "model", model);
	json_object_update_new(object,
	                       json_pack("{s:{s:i, s:i, s:i, s:i}, s:{s:f, s:f}, s:o, s:o, s:o, s:f, s:o, s:I}", "usage",
	                                 "prompt_tokens", answer->n_prompt, "cached_tokens", answer->n_kept, "completion_tokens",
	                                 answer->n_tokens, "total_tokens", answer->n_prompt + answer->n_tokens, "confidence",
	                                 "mean_logprob", answer->mean_logprob, "min_logprob", answer->min_logprob, "route",
	                                 route_json(&answer->route), "quality", verdict_json(&answer->verdict), "written",
	                                 answer->wrote && *answer->written.id ? json_string(answer->written.id) : json_null(),
	                                 "total_ms", answer->total_ms, "stages_ms", stages, "seed", (json_int_t)answer->seed));
	return object;
}

void ruv_ask_count(ruv_exchange *exchange, const char *question, const ruv_answer *answer)
{
	const ruv_server *server = ruv_exchange_server(exchange);

	ruv_metrics_answer(server->metrics, answer);
	ruv_decisions_note(server->decisions, ruv_exchange_identity(exchange), question, answer);
}

/* ---- whose memory ------------------------------------------------------------------------------------------------------ */

static int confine(const char **field, const char *wanted, const char *configured, const char *own, const char *what,
                   const char *key, ruv_error *err)
{
	*field = wanted ? wanted : configured ? configured : "";
	if (!*own)
		return RUV_OK;
	if (wanted && *wanted && strcmp(wanted, own))
		return ruv_fail(err, RUV_EINVAL, where, "the key '%s' speaks for the %s '%s', not for '%.80s'", key, what, own,
		                wanted);
	*field = own;
	return RUV_OK;
}

int ruv_scope_for(const ruv_exchange *exchange, const ruv_memory_scope *wanted, const ruv_memory_scope *configured,
                  ruv_memory_scope *scope, ruv_error *err)
{
	const ruv_identity *identity = ruv_exchange_identity(exchange);
	int rc = confine(&scope->user, wanted->user, configured->user, identity->user, "user", identity->key_name, err);

	if (!rc)
		rc = confine(&scope->agent, wanted->agent, configured->agent, identity->agent, "agent", identity->key_name, err);
	scope->session = wanted->session ? wanted->session : configured->session ? configured->session : "";
	return rc;
}

int ruv_scope_of(const ruv_exchange *exchange, const json_t *body, ruv_memory_scope *scope, ruv_error *err)
{
	const ruv_memory_scope configured = ruv_runtime_scope(ruv_server_runtime(ruv_exchange_server(exchange)));
	ruv_memory_scope wanted = {.user = ruv_exchange_query(exchange, "user"),
	                           .agent = ruv_exchange_query(exchange, "agent"),
	                           .session = ruv_exchange_query(exchange, "session")};
	json_t *object = NULL;
	int rc = body ? ruv_json_object(body, "scope", &object, err) : RUV_OK;

	if (!rc && object &&
	    ((rc = ruv_json_text(object, "user", &wanted.user, err)) || (rc = ruv_json_text(object, "agent", &wanted.agent, err)) ||
	     (rc = ruv_json_text(object, "session", &wanted.session, err))))
		return rc;
	return rc ? rc : ruv_scope_for(exchange, &wanted, &configured, scope, err);
}

static bool sees(const char *reader, const char *owner)
{
	return !owner || !*owner || !strcmp(reader ? reader : "", owner);
}

bool ruv_scope_sees(const ruv_memory_scope *scope, const ruv_memory_node *node)
{
	return sees(scope->user, node->scope.user) && sees(scope->agent, node->scope.agent) &&
	       sees(scope->session, node->scope.session);
}

/* ---- /v1/ask ----------------------------------------------------------------------------------------------------------- */

static bool on_piece(void *user, const ruv_piece *piece)
{
	ruv_exchange *exchange = user;

	if (!piece->n_bytes)
		return true;
	return ruv_exchange_event(exchange, "delta", json_pack("{s:o}", "text", ruv_json_string(piece->text, piece->n_bytes))) ==
	       RUV_OK;
}

static void on_sources(void *user, const ruv_answer *so_far)
{
	ruv_exchange_event(user, "sources", json_pack("{s:o}", "sources", ruv_sources_json(so_far, true)));
}

typedef struct asked {
	const char *question, *model;
	ruv_message *history;
	int n_history;
	bool stream, only_sources;
	ruv_ask_params params;
	ruv_sampling sampling;
	ruv_memory_scope scope;
} asked;

static int read_history(asked *a, const json_t *list, ruv_error *err)
{
	const json_t *message;
	size_t i;

	a->history = calloc(json_array_size(list) + 1, sizeof *a->history);
	if (!a->history)
		return ruv_fail_memory(err, where, 0);
	json_array_foreach(list, i, message)
	{
		const char *role = NULL, *content = NULL;
		int rc = json_is_object(message) ? ruv_json_text(message, "role", &role, err) : RUV_EINVAL;

		if (!rc)
			rc = ruv_json_text(message, "content", &content, err);
		if (rc || !role || !content || (strcmp(role, "user") && strcmp(role, "assistant")))
			return ruv_fail(err, RUV_EINVAL, where,
			                "message %zu of 'history' must have the role user or assistant and content as text", i + 1);
		a->history[a->n_history++] = (ruv_message){.role = role, .content = content};
	}
	return RUV_OK;
}

/* Sampling is all of the request's or all of the configuration's: temperature alone changes only itself of the model's own. */
static int read_sampling(asked *a, const json_t *body, ruv_model *model, ruv_error *err)
{
	double temperature = -1, top_p = -1, min_p = -1;
	int64_t seed = -1, top_k = -1;
	int rc;

	if ((rc = ruv_json_real(body, "temperature", 0, 10, &temperature, err)) ||
	    (rc = ruv_json_real(body, "top_p", 0, 1, &top_p, err)) || (rc = ruv_json_real(body, "min_p", 0, 1, &min_p, err)) ||
	    (rc = ruv_json_int(body, "top_k", 0, 1 << 20, &top_k, err)) ||
	    (rc = ruv_json_int(body, "seed", 0, INT64_MAX, &seed, err)))
		return rc;
	if (temperature < 0 && top_p < 0 && min_p < 0 && top_k < 0 && seed < 0)
		return RUV_OK;
	if (!ruv_model_cites(model))
		ruv_model_default_sampling(model, &a->sampling);
	if (temperature >= 0)
		a->sampling.temperature = (float)temperature;
	if (top_p >= 0)
		a->sampling.top_p = (float)top_p;
	if (min_p >= 0)
		a->sampling.min_p = (float)min_p;
	if (top_k >= 0)
		a->sampling.top_k = (int)top_k;
	if (seed >= 0)
		a->sampling.seed = (uint64_t)seed;
	a->params.sampling = &a->sampling;
	return RUV_OK;
}

static int read_ask(asked *a, ruv_exchange *exchange, const json_t *body, const ruv_served_model **served, const char **param,
                    ruv_error *err)
{
	int64_t max_tokens = 0, n_sources = 0;
	json_t *history = NULL;
	ruv_model *model;
	int rc;

	*param = "question";
	rc = ruv_json_text(body, "question", &a->question, err);
	if (!rc && (!a->question || !a->question[strspn(a->question, " \t\r\n")]))
		rc = ruv_fail(err, RUV_EINVAL, where, "'question' must be a text");
	if (rc)
		return rc;
	*param = "model";
	if ((rc = ruv_json_text(body, "model", &a->model, err)) ||
	    (rc = ruv_server_model_find(ruv_exchange_server(exchange), a->model, served, err)) ||
	    (rc = ruv_server_model_acquire(ruv_exchange_server(exchange), *served, &model, err)))
		return rc;
	*param = NULL;
	if ((rc = ruv_json_array(body, "history", &history, err)) ||
	    (rc = ruv_json_int(body, "max_tokens", 1, 1 << 20, &max_tokens, err)) ||
	    (rc = ruv_json_int(body, "n_sources", 1, 50, &n_sources, err)) ||
	    (rc = ruv_json_bool(body, "stream", &a->stream, err)) ||
	    (rc = ruv_json_bool(body, "no_memory", &a->params.no_memory, err)) ||
	    (rc = ruv_json_bool(body, "chat", &a->params.chat, err)) ||
	    (rc = ruv_json_bool(body, "only_sources", &a->only_sources, err)) ||
	    (rc = ruv_scope_of(exchange, body, &a->scope, err)) || (rc = read_history(a, history, err)) ||
	    (rc = read_sampling(a, body, model, err)))
		goto done;
	a->params.question = a->question;
	a->params.history = a->history;
	a->params.n_history = a->n_history;
	a->params.model = ruv_server_ask_model(ruv_exchange_server(exchange), a->model, *served);
	a->params.trace = ruv_exchange_trace(exchange);
	a->params.scope = &a->scope;
	a->params.max_tokens = (int)max_tokens;
	a->params.n_sources = (int)n_sources;
	a->params.cancel = ruv_exchange_cancel(exchange);
	if (a->stream && !a->only_sources) {
		a->params.on_piece = on_piece;
		a->params.on_sources = on_sources;
		a->params.user = exchange;
	}
done:
	ruv_model_free(model);
	return rc;
}

static void ask(ruv_exchange *exchange)
{
	ruv_runtime *runtime = ruv_server_runtime(ruv_exchange_server(exchange));
	const ruv_served_model *served;
	const char *param = NULL;
	ruv_answer answer = {0};
	ruv_error err = {0};
	json_t *body = NULL;
	asked a = {0};
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = read_ask(&a, exchange, body, &served, &param, &err);
	if (!rc) {
		if (a.stream)
			ruv_exchange_begin(exchange, "text/event-stream");
		rc = a.only_sources ? ruv_retrieve(runtime, &a.params, &answer, &err) : ruv_ask(runtime, &a.params, &answer, &err);
	}
	if (rc) {
		ruv_exchange_fail(exchange, &err, param);
	} else {
		json_t *result;

		if (answer.route.used) /* another tier than the one that was named */
			ruv_server_model_find(ruv_exchange_server(exchange), answer.route.tier, &served, NULL);
		result = ruv_answer_json(&answer, a.question, served->id);

		if (!a.only_sources) {
			ruv_ask_count(exchange, a.question, &answer);
			ruv_exchange_note(exchange, served->id, answer.n_prompt, answer.n_kept, answer.n_tokens);
		}
		if (a.stream) {
			ruv_exchange_event(exchange, "answer", result);
			ruv_exchange_end(exchange);
		} else {
			ruv_exchange_reply_json(exchange, 200, result);
		}
	}
	ruv_answer_release(&answer);
	free(a.history);
	json_decref(body);
}

/* ---- tokens and templates ---------------------------------------------------------------------------------------------- */

/* The body and its model, held; false: the exchange has failed. */
static bool read_with_model(ruv_exchange *exchange, json_t **body, ruv_model **model, const ruv_served_model **served)
{
	const char *name = NULL, *param = NULL;
	ruv_error err = {0};
	int rc = ruv_exchange_json(exchange, true, body, &err);

	if (!rc) {
		param = "model";
		rc = ruv_json_text(*body, "model", &name, &err);
		if (!rc)
			rc = ruv_server_model_find(ruv_exchange_server(exchange), name, served, &err);
		if (!rc && (*served)->is_encoder) {
			const ruv_model_options options = {.vocab_only = true};

			rc = ruv_model_open(model, (*served)->path, &options, &err);
		} else if (!rc) {
			rc = ruv_server_model_acquire(ruv_exchange_server(exchange), *served, model, &err);
		}
	}
	if (!rc)
		return true;
	json_decref(*body);
	ruv_exchange_fail(exchange, &err, param);
	return false;
}

/* {content, add_special, parse_special, with_pieces} -> {tokens}: as other servers have it. */
static void tokenize(ruv_exchange *exchange)
{
	const ruv_served_model *served;
	const char *content = NULL;
	bool bos = false, special = false, pieces = false;
	ruv_token_list list = {0};
	ruv_error err = {0};
	ruv_model *model;
	json_t *body, *tokens;
	int rc;

	if (!read_with_model(exchange, &body, &model, &served))
		return;
	if ((rc = ruv_json_text(body, "content", &content, &err)) || (rc = ruv_json_bool(body, "add_special", &bos, &err)) ||
	    (rc = ruv_json_bool(body, "parse_special", &special, &err)) || (rc = ruv_json_bool(body, "with_pieces", &pieces, &err)))
		goto done;
	if (!content) {
		rc = ruv_fail(&err, RUV_EINVAL, where, "'content' must be a text");
		goto done;
	}
	rc = ruv_model_tokenize(model, content, strlen(content),
	                        (bos ? RUV_TOKENIZE_BOS : 0u) | (special ? RUV_TOKENIZE_SPECIAL : 0u), &list, &err);
	if (rc)
		goto done;
	tokens = json_array();
	for (int i = 0; i < list.n; i++) {
		size_t n = 0;
		const char *text = ruv_model_token_bytes(model, list.ids[i], &n);

		json_array_append_new(
		    tokens, pieces ? json_pack("{s:i, s:o}", "id", list.ids[i], "piece", ruv_json_string(text ? text : "", n))
				   : json_integer(list.ids[i]));
	}
	ruv_exchange_reply_json(exchange, 200,
	                        json_pack("{s:o, s:i, s:s}", "tokens", tokens, "count", list.n, "model", served->id));
done:
	if (rc)
		ruv_exchange_fail(exchange, &err, "content");
	ruv_token_list_release(&list);
	ruv_model_free(model);
	json_decref(body);
}

static void detokenize(ruv_exchange *exchange)
{
	const ruv_served_model *served;
	json_t *body, *tokens = NULL, *item;
	ruv_token *ids = NULL;
	ruv_error err = {0};
	char *text = NULL;
	ruv_model *model;
	ruv_model_info info;
	size_t i;
	int rc;

	if (!read_with_model(exchange, &body, &model, &served))
		return;
	ruv_model_get_info(model, &info);
	rc = ruv_json_array(body, "tokens", &tokens, &err);
	if (!rc && !tokens)
		rc = ruv_fail(&err, RUV_EINVAL, where, "'tokens' must be an array of token ids");
	ids = calloc(json_array_size(tokens) + 1, sizeof *ids);
	if (!rc && !ids)
		rc = ruv_fail_memory(&err, where, json_array_size(tokens) * sizeof *ids);
	json_array_foreach(tokens, i, item)
	{
		if (rc)
			break;
		if (!json_is_integer(item) || json_integer_value(item) < 0 || json_integer_value(item) >= info.n_tokens)
			rc = ruv_fail(&err, RUV_EINVAL, where, "item %zu of 'tokens' is no token id; they go from 0 to %d", i + 1,
			              info.n_tokens - 1);
		else
			ids[i] = (ruv_token)json_integer_value(item);
	}
	if (!rc)
		rc = ruv_model_detokenize(model, ids, (int)json_array_size(tokens), true, &text, &err);
	if (rc)
		ruv_exchange_fail(exchange, &err, "tokens");
	else
		ruv_exchange_reply_json(exchange, 200, json_pack("{s:o, s:s}", "content", text_of(text), "model", served->id));
	free(text);
	free(ids);
	ruv_model_free(model);
	json_decref(body);
}

/* {messages, tools} -> {prompt, tokens}: what a chat's prompt is. */
static void apply_template(ruv_exchange *exchange)
{
	const ruv_served_model *served;
	ruv_conversation conversation = {.add_generation_prompt = true};
	json_t *body, *messages = NULL, *tools = NULL, *variables = NULL;
	char *texts[3] = {NULL, NULL, NULL}, *prompt = NULL;
	ruv_token_list tokens = {0};
	ruv_error err = {0};
	ruv_model *model;
	int rc;

	if (!read_with_model(exchange, &body, &model, &served))
		return;
	if ((rc = ruv_json_array(body, "messages", &messages, &err)) || (rc = ruv_json_array(body, "tools", &tools, &err)) ||
	    (rc = ruv_json_object(body, "chat_template_kwargs", &variables, &err)) ||
	    (rc = ruv_json_bool(body, "add_generation_prompt", &conversation.add_generation_prompt, &err)))
		goto done;
	if (!messages) {
		rc = ruv_fail(&err, RUV_EINVAL, where, "'messages' must be an array");
		goto done;
	}
	conversation.messages = texts[0] = json_dumps(messages, JSON_COMPACT);
	conversation.tools = texts[1] = tools ? json_dumps(tools, JSON_COMPACT) : NULL;
	conversation.variables = texts[2] = variables ? json_dumps(variables, JSON_COMPACT) : NULL;
	rc = ruv_model_chat(model, &conversation, &tokens, &prompt, &err);
	if (!rc)
		ruv_exchange_reply_json(
		    exchange, 200,
		    json_pack("{s:o, s:i, s:s}", "prompt", text_of(prompt), "n_tokens", tokens.n, "model", served->id));
done:
	if (rc)
		ruv_exchange_fail(exchange, &err, "messages");
	for (int i = 0; i < 3; i++)
		free(texts[i]);
	free(prompt);
	ruv_token_list_release(&tokens);
	ruv_model_free(model);
	json_decref(body);
}

const ruv_route ruv_routes_native[] = {
    {RUV_POST, "/v1/ask", ask, RUV_SCOPE_CHAT | RUV_SCOPE_READ, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/tokenize", tokenize, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/detokenize", detokenize, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/apply-template", apply_template, RUV_SCOPE_CHAT, 0, RUV_ERRORS_OPENAI},
    {0},
};

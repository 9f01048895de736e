/* learn_api.c - what people say about answers, what the router would do, and the learner's state: /v1/feedback, /v1/route,
 * /v1/learn.
 *
 * Feedback names an answer by the "id" that /v1/ask and chats with memory give out. The learner trains on a thread of its own;
 * /v1/learn/train and /v1/learn/gate run on the worker that was asked and may take minutes. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "ruvllm/learn.h"
#include "ruvllm/router.h"
#include "server/ask.h"
#include "server/server_impl.h"

static const char where[] = "server";

enum { MAX_EVENTS = 200, ROUTE_HITS = 10 };

/* ---- feedback ---------------------------------------------------------------------------------------------------------- */

/* {answer_id, feedback: "accept" | "correct" | "reject", correction} */
static void feedback(ruv_exchange *exchange)
{
	static const char *const names[] = {"accept", "correct", "reject"};
	ruv_server *server = ruv_exchange_server(exchange);
	ruv_runtime *runtime = ruv_server_runtime(server);
	const char *id = NULL, *word = NULL, *correction = NULL, *param = NULL;
	ruv_feedback_result done = {0};
	ruv_error err = {0};
	json_t *body = NULL, *result = NULL;
	int which = -1, rc = ruv_exchange_json(exchange, true, &body, &err);

	if (rc || (rc = ruv_json_text(body, "answer_id", &id, &err)) || (rc = ruv_json_text(body, "feedback", &word, &err)) ||
	    (rc = ruv_json_text(body, "correction", &correction, &err)))
		goto done;
	for (int i = 0; word && i < 3; i++)
		which = strcmp(word, names[i]) ? which : i;
	param = "feedback";
	if (which < 0) {
		rc = ruv_fail(&err, RUV_EINVAL, where, "'feedback' must be accept, correct or reject");
		goto done;
	}
	param = "answer_id";
	rc = id ? ruv_runtime_feedback(runtime, id, (ruv_feedback)which, correction, &done, &err)
	        : ruv_fail(&err, RUV_EINVAL, where, "'answer_id' must be the id of an answer");
	if (!rc) {
		ruv_metrics_feedback(server->metrics, (ruv_feedback)which, &done);
		ruv_decisions_feedback(server->decisions, id, names[which]);
		result = json_pack("{s:s, s:s, s:b, s:b, s:b, s:o}", "object", "ruvllm.feedback", "answer_id", id, "wrote",
		                   done.wrote, "routed", done.routed, "learned", done.learned, "node_id",
		                   done.wrote && *done.written.id ? json_string(done.written.id) : json_null());
	}
done:
	ruv_exchange_finish(exchange, rc, &err, param, body, result);
}

/* ---- routing ----------------------------------------------------------------------------------------------------------- */

static json_t *decision_json(const ruv_router *router, const ruv_route_decision *d)
{
	json_t *tiers = json_array();

	for (int i = 0; i < ruv_router_n_tiers(router); i++)
		json_array_append_new(tiers,
		                      json_pack("{s:s, s:f, s:f}", "tier", ruv_router_tier_at(router, i)->name, "probability",
		                                (double)d->probabilities[i], "expected_quality", (double)d->expected[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:f, s:i, s:f, s:f, s:f, s:o, s:f}", "object", "ruvllm.route", "tier",
	                 ruv_router_tier_at(router, d->tier)->name, "best", ruv_router_tier_at(router, d->best)->name, "why",
	                 ruv_route_why_name(d->why), "confidence", (double)d->confidence, "context", d->context, "temperature",
	                 (double)d->temperature, "top_p", (double)d->top_p, "neighbours", (double)d->neighbours, "tiers", tiers,
	                 "micros", (double)d->ns * 1e-3);
}

/* {question, scope, latency_budget_ms}: which tier would answer, without answering. */
static void route(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	ruv_runtime *runtime = ruv_server_runtime(server);
	ruv_ask_params params = {.chat = true, .n_sources = ROUTE_HITS, .cancel = ruv_exchange_cancel(exchange)};
	ruv_route_hit hits[ROUTE_HITS];
	ruv_route_system machine = {0};
	ruv_route_input input = {.hits = hits, .k = ROUTE_HITS, .system = &machine};
	ruv_route_decision *decision = calloc(1, sizeof *decision);
	ruv_memory_scope scope;
	ruv_answer found = {0};
	float *vector = NULL;
	ruv_router *router;
	const char *param = NULL;
	ruv_error err = {0};
	json_t *body = NULL, *result = NULL;
	int rc = decision ? ruv_exchange_json(exchange, true, &body, &err) : ruv_fail_memory(&err, where, sizeof *decision);

	if (rc || (rc = ruv_json_real(body, "latency_budget_ms", 0, 1e9, &machine.latency_budget_ms, &err)) ||
	    (rc = ruv_scope_of(exchange, body, &scope, &err)) || (rc = ruv_runtime_router(runtime, &router, &err)))
		goto done;
	param = "question";
	rc = ruv_json_text(body, "question", &params.question, &err);
	if (!rc && (!params.question || !*params.question))
		rc = ruv_fail(&err, RUV_EINVAL, where, "'question' must be a text");
	if (rc)
		goto done;
	params.scope = &scope;
	if ((rc = ruv_retrieve(runtime, &params, &found, &err)))
		goto done;
	for (int i = 0; i < found.n_sources && i < ROUTE_HITS; i++, input.n_hits++)
		hits[i] = (ruv_route_hit){.text = found.sources[i].text,
		                          .source = found.sources[i].source,
		                          .score = found.sources[i].score,
		                          .cosine = found.sources[i].cosine,
		                          .vector_rank = found.sources[i].vector_rank,
		                          .lexical_rank = found.sources[i].lexical_rank};
	input.text = params.question;
	input.dim = ruv_runtime_embed_dim(runtime, &err);
	vector = input.dim > 0 ? malloc(sizeof(float) * (size_t)input.dim) : NULL;
	rc = input.dim < 0 ? input.dim : vector ? RUV_OK : ruv_fail_memory(&err, where, 0);
	if (!rc)
		rc = ruv_runtime_embed(runtime, &params.question, 1, RUV_EMBED_QUERY, vector, params.cancel, &err);
	input.embedding = vector;
	ruv_route_system_fill(&machine);
	if (!rc)
		rc = ruv_router_decide(router, NULL, &input, decision, &err);
	if (!rc)
		result = decision_json(router, decision);
done:
	ruv_exchange_finish(exchange, rc, &err, param, body, result);
	ruv_answer_release(&found);
	free(vector);
	free(decision);
}

/* What it chose for the last questions. */
static void decisions(ruv_exchange *exchange)
{
	int64_t limit = 50;
	ruv_error err = {0};
	int rc = ruv_exchange_query_int(exchange, "limit", 1, RUV_DECISIONS_KEPT, &limit, &err);
	json_t *data =
	    rc ? NULL : ruv_decisions_json(ruv_exchange_server(exchange)->decisions, ruv_exchange_identity(exchange), (int)limit);

	ruv_exchange_finish(exchange, rc, &err, "limit", NULL, rc ? NULL : json_pack("{s:s, s:o}", "object", "list", "data", data));
}

/* ---- the learner ------------------------------------------------------------------------------------------------------- */

static int learner_of(ruv_exchange *exchange, ruv_learner **out, ruv_error *err)
{
	return ruv_runtime_learner(ruv_server_runtime(ruv_exchange_server(exchange)), out, err);
}

static json_t *gate_json(const ruv_gate_result *g)
{
	return json_pack("{s:b, s:f, s:[f,f], s:f, s:f, s:i, s:s}", "pass", g->pass, "gain", g->gain, "gain_interval", g->gain_low,
	                 g->gain_high, "perplexity_ratio", g->perplexity_ratio, "old_drop", g->old_drop, "items", g->n, "why",
	                 g->why);
}

static json_t *status_json(const ruv_learner_status *s)
{
	json_t *object =
	    json_pack("{s:s, s:i, s:i, s:b, s:b, s:i, s:I, s:I, s:I, s:I, s:I}", "object", "ruvllm.learner", "live_version",
	              s->live_version, "last_version", s->last_version, "paused", s->paused, "training", s->training, "queued",
	              s->n_queued, "observed", (json_int_t)s->n_observed, "accepted", (json_int_t)s->n_accepted, "corrected",
	              (json_int_t)s->n_corrected, "rejected", (json_int_t)s->n_rejected, "steps", (json_int_t)s->n_steps);

	json_object_update_new(object,
	                       json_pack("{s:I, s:i, s:I, s:i, s:f, s:f, s:I, s:I, s:s}", "held_out", (json_int_t)s->n_held_out,
	                                 "replay", s->n_replay, "parameters", (json_int_t)s->n_params, "rank", s->rank, "last_loss",
	                                 s->last_loss, "mean_loss", s->mean_loss, "trajectories", (json_int_t)s->n_trajectories,
	                                 "strategies", (json_int_t)s->n_strategies, "error", s->error));
	return object;
}

static void learn_status(ruv_exchange *exchange)
{
	ruv_learner_status status = {0};
	ruv_learner *learner;
	ruv_error err = {0};
	int rc = learner_of(exchange, &learner, &err);

	if (!rc)
		rc = ruv_learner_get_status(learner, &status, &err);
	ruv_exchange_finish(exchange, rc, &err, NULL, NULL, rc ? NULL : status_json(&status));
}

static void learn_history(ruv_exchange *exchange)
{
	ruv_learner_event *events = calloc(MAX_EVENTS, sizeof *events);
	json_t *data = json_array();
	ruv_learner *learner;
	int64_t limit = 50;
	ruv_error err = {0};
	int n = 0, rc = events ? learner_of(exchange, &learner, &err) : ruv_fail_memory(&err, where, 0);

	if (!rc)
		rc = ruv_exchange_query_int(exchange, "limit", 1, MAX_EVENTS, &limit, &err);
	if (!rc) {
		n = ruv_learner_history(learner, events, (int)limit, &err);
		rc = n < 0 ? n : RUV_OK;
	}
	for (int i = 0; i < n; i++) {
		const ruv_learner_event *e = &events[i];
		json_t *event = json_pack("{s:I, s:s, s:i, s:I}", "time_ms", (json_int_t)e->time_ms, "what", e->what, "version",
		                          e->version, "steps", (json_int_t)e->n_steps);

		if (!strcmp(e->what, "published") || !strcmp(e->what, "refused"))
			json_object_set_new(event, "gate", gate_json(&e->gate));
		json_array_append_new(data, event);
	}
	free(events);
	ruv_exchange_finish(exchange, rc, &err, NULL, NULL, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

/* {question, answer, task} */
static void learn_teach(ruv_exchange *exchange)
{
	const char *question = NULL, *answer = NULL, *task = "ask";
	ruv_learner *learner;
	ruv_error err = {0};
	json_t *body = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc && !(rc = ruv_json_text(body, "question", &question, &err)) &&
	    !(rc = ruv_json_text(body, "answer", &answer, &err)) && !(rc = ruv_json_text(body, "task", &task, &err)) &&
	    (!question || !*question || !answer || !*answer))
		rc = ruv_fail(&err, RUV_EINVAL, where, "'question' and 'answer' must be texts");
	if (!rc)
		rc = learner_of(exchange, &learner, &err);
	if (!rc)
		rc = ruv_learner_teach(learner, task, question, answer, &err);
	ruv_exchange_finish(exchange, rc, &err, NULL, body, json_pack("{s:s, s:b}", "object", "ruvllm.taught", "queued", 1));
}

/* {version}: 0 is the bare model. */
static void learn_rollback(ruv_exchange *exchange)
{
	ruv_learner_status status = {0};
	ruv_learner *learner;
	int64_t version = -1;
	ruv_error err = {0};
	json_t *body = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = ruv_json_int(body, "version", 0, INT32_MAX, &version, &err);
	if (!rc && version < 0)
		rc = ruv_fail(&err, RUV_EINVAL, where, "'version' must be a version's number, or 0 for the bare model");
	if (!rc)
		rc = learner_of(exchange, &learner, &err);
	if (!rc)
		rc = ruv_learner_rollback(learner, (int)version, &err);
	if (!rc)
		rc = ruv_learner_get_status(learner, &status, &err);
	ruv_exchange_finish(exchange, rc, &err, "version", body, rc ? NULL : status_json(&status));
}

/* pause, resume, train: what the last word of the path says. */
static void learn_do(ruv_exchange *exchange)
{
	const char *what = strrchr(ruv_exchange_route(exchange)->path, '/') + 1;
	ruv_learner_status status = {0};
	ruv_learner *learner;
	ruv_error err = {0};
	int rc = learner_of(exchange, &learner, &err);

	if (!rc)
		rc = !strcmp(what, "train") ? ruv_learner_train(learner, 0, &err)
		                            : ruv_learner_pause(learner, !strcmp(what, "pause"), &err);
	if (!rc)
		rc = ruv_learner_get_status(learner, &status, &err);
	ruv_exchange_finish(exchange, rc, &err, NULL, NULL, rc ? NULL : status_json(&status));
}

/* {control, publish}: measures the candidate; publish makes it live when it passes. */
static void learn_gate(ruv_exchange *exchange)
{
	bool control = true, publish = false;
	ruv_gate_result gate = {0};
	ruv_learner *learner;
	ruv_error err = {0};
	json_t *body = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc && !(rc = ruv_json_bool(body, "control", &control, &err)) &&
	    !(rc = ruv_json_bool(body, "publish", &publish, &err)) && !(rc = learner_of(exchange, &learner, &err)))
		rc = ruv_learner_gate(learner, control, publish, &gate, &err);
	ruv_exchange_finish(exchange, rc, &err, NULL, body, rc ? NULL : gate_json(&gate));
}

const ruv_route ruv_routes_learn[] = {
    {RUV_POST, "/v1/feedback", feedback, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/route", route, RUV_SCOPE_READ, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/route/decisions", decisions, RUV_SCOPE_READ, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/learn", learn_status, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/learn/history", learn_history, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/teach", learn_teach, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/pause", learn_do, RUV_SCOPE_LEARN | RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/resume", learn_do, RUV_SCOPE_LEARN | RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/train", learn_do, RUV_SCOPE_LEARN | RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/gate", learn_gate, RUV_SCOPE_LEARN | RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/learn/rollback", learn_rollback, RUV_SCOPE_LEARN | RUV_SCOPE_ADMIN, 0, RUV_ERRORS_OPENAI},
    {0},
};

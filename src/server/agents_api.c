/* agents_api.c - which agent a task belongs to: /v1/agents. Routing, teaching by examples, and how tasks went.
 *
 * What is taught counts at once, for every client, and stays (DATA_DIR/agents.log). Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "ruvllm/agent.h"
#include "server/agents.h"
#include "server/server_impl.h"

static const char where[] = "server";

static json_t *text_of(const char *text)
{
	return ruv_json_string(text ? text : "", text ? strlen(text) : 0);
}

static json_t *choice_json(const ruv_agent_choice *choice)
{
	return json_pack("{s:o, s:s, s:f, s:f, s:o}", "agent", text_of(choice->agent), "type", ruv_task_type_name(choice->type),
	                 "probability", (double)choice->probability, "quality", (double)choice->quality, "reason",
	                 text_of(choice->reason));
}

json_t *ruv_agent_routed_json(const ruv_agent_routed *r)
{
	json_t *object = choice_json(&r->agent), *alternatives = json_array();

	for (int i = 0; i < r->n_alternatives; i++)
		json_array_append_new(alternatives, choice_json(&r->alternatives[i]));
	json_object_update_new(object, json_pack("{s:b, s:f, s:f, s:f, s:o}", "abstains", r->abstains, "out_of_scope",
	                                         (double)r->out_of_scope, "complexity", (double)r->complexity, "confidence",
	                                         (double)r->confidence, "alternatives", alternatives));
	return object;
}

int ruv_agent_see(ruv_runtime *runtime, const json_t *body, const char **task, ruv_agent_router **agents, float **vector,
                  const ruv_cancel *cancel, ruv_error *err)
{
	int dim, rc = ruv_json_text(body, "task", task, err);

	if (!rc && (!*task || !(*task)[strspn(*task, " \t\r\n")]))
		rc = ruv_fail(err, RUV_EINVAL, where, "'task' must be a text that is not empty");
	if (!rc && strlen(*task) > RUV_AGENT_MAX_TASK)
		rc = ruv_fail(err, RUV_ELIMIT, where, "'task' has %zu bytes; at most %d are taken", strlen(*task),
		              (int)RUV_AGENT_MAX_TASK);
	if (!rc)
		rc = ruv_runtime_agents(runtime, agents, err);
	if (rc)
		return rc;
	dim = ruv_runtime_embed_dim(runtime, err);
	if (dim < 0)
		return dim;
	*vector = malloc(sizeof **vector * (size_t)dim);
	if (!*vector)
		return ruv_fail_memory(err, where, sizeof **vector * (size_t)dim);
	rc = ruv_runtime_task_vector(runtime, *task, *vector, cancel, err);
	if (rc) {
		free(*vector);
		*vector = NULL;
	}
	return rc;
}

/* {task} */
static void route(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	ruv_agent_routed routed = {0};
	ruv_agent_router *agents;
	const char *task = NULL;
	float *vector = NULL;
	ruv_error err = {0};
	json_t *body = NULL, *result = NULL;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = ruv_agent_see(ruv_server_runtime(server), body, &task, &agents, &vector, ruv_exchange_cancel(exchange), &err);
	if (!rc)
		rc = ruv_agent_route(agents, task, vector, &routed, &err);
	if (!rc) {
		ruv_metrics_agent(server->metrics, routed.abstains);
		result = ruv_agent_routed_json(&routed);
		json_object_update_new(result,
		                       json_pack("{s:s, s:f}", "object", "ruvllm.agent_route", "micros", (double)routed.ns * 1e-3));
	}
	free(vector);
	ruv_exchange_finish(exchange, rc, &err, "task", body, result);
}

static void list(ruv_exchange *exchange)
{
	ruv_agent_router *agents;
	ruv_agent_info info;
	ruv_error err = {0};
	json_t *data = json_array();
	int rc = ruv_runtime_agents(ruv_server_runtime(ruv_exchange_server(exchange)), &agents, &err);

	for (int i = 0; !rc && ruv_agent_at(agents, i, &info); i++)
		json_array_append_new(data, json_pack("{s:o, s:o, s:s, s:b, s:i, s:i, s:i, s:i}", "agent", text_of(info.name),
		                                      "purpose", text_of(info.purpose), "type", ruv_task_type_name(info.type),
		                                      "bundled", info.bundled, "examples", info.n_examples, "taught", info.n_taught,
		                                      "good", info.n_good, "bad", info.n_bad));
	ruv_exchange_finish(exchange, rc, &err, NULL, NULL, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

/* {agent, task, purpose, type}: an example of an agent, which may be a new one. */
static void teach(ruv_exchange *exchange)
{
	ruv_runtime *runtime = ruv_server_runtime(ruv_exchange_server(exchange));
	const char *agent = NULL, *task = NULL, *purpose = NULL, *type = NULL, *param = "agent";
	ruv_agent_router *agents;
	float *vector = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	int kind = -1, rc = ruv_exchange_json(exchange, true, &body, &err);

	if (rc || (rc = ruv_json_text(body, "agent", &agent, &err)) || (rc = ruv_json_text(body, "purpose", &purpose, &err)) ||
	    (rc = ruv_json_text(body, "type", &type, &err)))
		goto done;
	if (!agent || !*agent || strlen(agent) >= RUV_AGENT_NAME) {
		rc = ruv_fail(&err, RUV_EINVAL, where, "'agent' must be a name of 1 to %d bytes", (int)RUV_AGENT_NAME - 1);
		goto done;
	}
	if (type && (kind = ruv_task_type_parse(type)) < 0) {
		param = "type";
		rc = ruv_fail(&err, RUV_EINVAL, where, "'type' is '%.40s', which is no kind of work", type);
		goto done;
	}
	param = "task";
	rc = ruv_agent_see(runtime, body, &task, &agents, &vector, ruv_exchange_cancel(exchange), &err);
	if (!rc)
		rc = ruv_agent_teach(agents, agent, purpose, kind, task, vector, &err);
done:
	free(vector);
	ruv_exchange_finish(exchange, rc, &err, param, body,
	                    rc ? NULL : json_pack("{s:s, s:o}", "object", "ruvllm.agent_taught", "agent", text_of(agent)));
}

int ruv_agent_note(ruv_runtime *runtime, const json_t *body, const char **agent, bool *good, const ruv_cancel *cancel,
                   ruv_error *err)
{
	const char *task = NULL, *right = NULL;
	ruv_agent_router *agents;
	float *vector = NULL;
	int rc;

	if ((rc = ruv_json_text(body, "agent", agent, err)) || (rc = ruv_json_text(body, "right", &right, err)))
		return rc;
	if (!*agent || !**agent)
		return ruv_fail(err, RUV_EINVAL, where, "'agent' must be the name of an agent");
	if (!json_is_boolean(json_object_get(body, "good")))
		return ruv_fail(err, RUV_EINVAL, where, "'good' must be true or false");
	*good = json_is_true(json_object_get(body, "good"));
	if (*good && right)
		return ruv_fail(err, RUV_EINVAL, where, "'right' belongs to a task that went badly");
	rc = ruv_agent_see(runtime, body, &task, &agents, &vector, cancel, err);
	if (!rc)
		rc = ruv_agent_outcome(agents, task, vector, *agent, *good, right, err);
	free(vector);
	return rc;
}

/* {agent, task, good, right} */
static void outcome(ruv_exchange *exchange)
{
	const char *agent = NULL;
	ruv_error err = {0};
	json_t *body = NULL;
	bool good = false;
	int rc = ruv_exchange_json(exchange, true, &body, &err);

	if (!rc)
		rc = ruv_agent_note(ruv_server_runtime(ruv_exchange_server(exchange)), body, &agent, &good,
		                    ruv_exchange_cancel(exchange), &err);
	ruv_exchange_finish(
	    exchange, rc, &err, NULL, body,
	    rc ? NULL : json_pack("{s:s, s:o, s:b}", "object", "ruvllm.agent_outcome", "agent", text_of(agent), "good", good));
}

static void forget(ruv_exchange *exchange)
{
	const char *agent = ruv_exchange_param(exchange, "agent");
	ruv_agent_router *agents;
	ruv_error err = {0};
	int rc = ruv_runtime_agents(ruv_server_runtime(ruv_exchange_server(exchange)), &agents, &err);

	if (!rc)
		rc = ruv_agent_forget(agents, agent, &err);
	ruv_exchange_finish(exchange, rc, &err, "agent", NULL,
	                    rc ? NULL
	                       : json_pack("{s:s, s:o, s:b}", "object", "ruvllm.agent", "agent", text_of(agent), "deleted", 1));
}

const ruv_route ruv_routes_agents[] = {
    {RUV_POST, "/v1/agents/route", route, RUV_SCOPE_READ, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/agents", list, RUV_SCOPE_READ, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/agents/teach", teach, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/agents/outcome", outcome, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {RUV_DELETE, "/v1/agents/{agent}", forget, RUV_SCOPE_LEARN, 0, RUV_ERRORS_OPENAI},
    {0},
};

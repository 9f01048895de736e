/* mcp_tools.c - what the MCP tools do with a runtime: find passages, keep and forget them, answer from them.
 *
 * Each tool is a row of the table: its description for clients and a function that fills the structured result or fails with a
 * message, which names the argument at fault. The text of a result is for the client's model; structuredContent is the same as
 * data. Layer: server. */
#include "server/mcp_tools.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "server/agents.h"
#include "server/http.h"

static const char where[] = "mcp";

enum { MAX_TEXT = 16 << 20, MAX_FOUND = 50 };

typedef struct call {
	const ruv_mcp_caller *caller;
	const json_t *arguments; /* an object or NULL */
	const json_t *token;
	ruv_memory_scope scope;
	json_t *data; /* the structured result, made by the tool */
	ruv_buf text;
	int n_progress;
	int64_t last_progress_ns;
	ruv_error err;
} call;

static json_t *text_of(const char *text)
{
	return ruv_json_string(text ? text : "", text ? strlen(text) : 0);
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

/* notifications/progress; not more than ten a second. */
static void progress(call *c, const char *message)
{
	const int64_t now = ruv_clock_now_ns();
	json_t *params;

	if (!c->token || !c->caller->notify || (c->n_progress && now - c->last_progress_ns < 100000000))
		return;
	c->last_progress_ns = now;
	params = json_pack("{s:O, s:i, s:s}", "progressToken", c->token, "progress", ++c->n_progress, "message", message);
	c->caller->notify(c->caller->user,
	                  json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "notifications/progress", "params", params));
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

static json_t *source_json(const ruv_source *s)
{
	return json_pack("{s:s, s:o, s:o, s:o, s:i, s:i, s:f}", "id", s->id, "text", text_of(s->text), "title", text_of(s->title),
	                 "source", text_of(s->source), "first_line", s->first_line, "last_line", s->last_line, "score", s->score);
}

static void put_source(ruv_buf *text, int number, const ruv_source *s)
{
	ruv_buf_printf(text, "[%d] %s", number, or_empty(s->source));
	if (s->first_line)
		ruv_buf_printf(text, ":%d", s->first_line);
	ruv_buf_printf(text, " (id %s)\n%s\n\n", s->id, or_empty(s->text));
}

static int memory_search(call *c)
{
	ruv_ask_params params = {.scope = &c->scope, .n_sources = 8, .chat = true, .cancel = c->caller->cancel};
	ruv_answer found = {0};
	json_t *list = json_array();
	int64_t limit = 8;
	int rc = ruv_json_text(c->arguments, "query", &params.question, &c->err);

	if (!rc)
		rc = ruv_json_int(c->arguments, "limit", 1, MAX_FOUND, &limit, &c->err);
	if (!rc && (!params.question || !*params.question))
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "'query' must be a text that is not empty");
	params.n_sources = (int)limit;
	if (!rc)
		rc = ruv_retrieve(c->caller->runtime, &params, &found, &c->err);
	for (int i = 0; !rc && i < found.n_sources; i++) {
		json_array_append_new(list, source_json(&found.sources[i]));
		put_source(&c->text, i + 1, &found.sources[i]);
	}
	if (!rc && !found.n_sources)
		ruv_buf_puts(&c->text, "Memory has nothing on this.");
	c->data = json_pack("{s:o}", "passages", list);
	ruv_answer_release(&found);
	return rc;
}

static int memory_add(call *c)
{
	ruv_memory_node node = {.type = RUV_NODE_FACT, .scope = c->scope};
	const char *tags[RUV_MEMORY_MAX_TAGS];
	ruv_memory *memory = NULL;
	json_t *list = NULL;
	const json_t *tag;
	float *vector = NULL;
	size_t i;
	int dim, rc = ruv_json_text(c->arguments, "text", &node.text, &c->err);

	if (!rc && (!node.text || !*node.text))
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "'text' must be a text that is not empty");
	if (rc || (rc = ruv_json_text(c->arguments, "title", &node.title, &c->err)) ||
	    (rc = ruv_json_text(c->arguments, "source", &node.source, &c->err)) ||
	    (rc = ruv_json_array(c->arguments, "tags", &list, &c->err)))
		return rc;
	if (json_array_size(list) > RUV_MEMORY_MAX_TAGS)
		return ruv_fail(&c->err, RUV_ELIMIT, where, "there are %zu tags; at most %d are taken", json_array_size(list),
		                (int)RUV_MEMORY_MAX_TAGS);
	json_array_foreach(list, i, tag)
	{
		if (!json_is_string(tag))
			return ruv_fail(&c->err, RUV_EINVAL, where, "tag %zu is no text", i + 1);
		tags[node.n_tags++] = json_string_value(tag);
	}
	node.tags = tags;
	rc = ruv_runtime_memory(c->caller->runtime, &memory, &c->err);
	if (rc)
		return rc;
	dim = ruv_runtime_embed_dim(c->caller->runtime, &c->err);
	if (dim < 0)
		return dim;
	vector = malloc(sizeof *vector * (size_t)dim);
	if (!vector)
		return ruv_fail_memory(&c->err, where, sizeof *vector * (size_t)dim);
	rc = ruv_runtime_embed(c->caller->runtime, &node.text, 1, RUV_EMBED_PASSAGE, vector, c->caller->cancel, &c->err);
	node.vector = vector;
	if (!rc)
		rc = ruv_memory_add(memory, &node, 1, &c->err);
	if (!rc) {
		c->data = json_pack("{s:s}", "id", node.id);
		ruv_buf_printf(&c->text, "Remembered as %s.", node.id);
	}
	free(vector);
	return rc;
}

static bool sees(const char *scope, const char *node)
{
	return !*or_empty(node) || !strcmp(or_empty(scope), or_empty(node));
}

static int memory_forget(call *c)
{
	const ruv_mcp_caller *caller = c->caller;
	ruv_memory_nodes nodes = {0};
	ruv_memory *memory = NULL;
	const char *id = NULL, *ids[1];
	int rc = ruv_json_text(c->arguments, "id", &id, &c->err);

	if (!rc && (!id || !*id))
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "'id' must be the id of a passage");
	if (!rc)
		rc = ruv_runtime_memory(caller->runtime, &memory, &c->err);
	if (!rc)
		rc = ruv_memory_get(memory, &nodes, id, &c->err);
	if (rc)
		return rc;
	const ruv_memory_scope *of = &nodes.items[0].scope;

	if (!sees(c->scope.user, of->user) || !sees(c->scope.agent, of->agent) || !sees(c->scope.session, of->session))
		rc = ruv_fail(&c->err, RUV_ENOTFOUND, where, "there is no passage '%.60s'", id);
	else if ((*caller->owner_user && strcmp(caller->owner_user, or_empty(of->user))) ||
	         (*caller->owner_agent && strcmp(caller->owner_agent, or_empty(of->agent))))
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "this passage belongs to everybody: your key may not forget it");
	ids[0] = nodes.items[0].id;
	if (!rc)
		rc = ruv_memory_forget(memory, ids, 1, &c->err);
	if (!rc) {
		c->data = json_pack("{s:s, s:b}", "id", ids[0], "forgotten", 1);
		ruv_buf_printf(&c->text, "Forgot %s.", ids[0]);
	}
	ruv_memory_nodes_release(&nodes);
	return rc;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static void on_sources(void *user, const ruv_answer *so_far)
{
	char text[80];

	snprintf(text, sizeof text, "%d passages found", so_far->n_sources);
	progress(user, text);
}

static bool on_piece(void *user, const ruv_piece *piece)
{
	char text[80];

	snprintf(text, sizeof text, "%d tokens written", piece->n_tokens);
	progress(user, text);
	return true;
}

static int ask(call *c)
{
	ruv_ask_params params = {.scope = &c->scope,
	                         .cancel = c->caller->cancel,
	                         .trace = c->caller->trace,
	                         .on_sources = on_sources,
	                         .on_piece = on_piece,
	                         .user = c};
	ruv_answer answer = {0};
	json_t *sources = json_array();
	int64_t max_tokens = 0;
	int rc;

	if ((rc = ruv_json_text(c->arguments, "question", &params.question, &c->err)) ||
	    (rc = ruv_json_text(c->arguments, "model", &params.model, &c->err)) ||
	    (rc = ruv_json_int(c->arguments, "max_tokens", 1, INT32_MAX, &max_tokens, &c->err)))
		goto done;
	params.max_tokens = (int)max_tokens;
	if (!params.question || !*params.question) {
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "'question' must be a text that is not empty");
		goto done;
	}
	rc = ruv_ask(c->caller->runtime, &params, &answer, &c->err);
	if (!rc && answer.finish == RUV_FINISH_CANCELLED)
		rc = ruv_fail(&c->err, RUV_ECANCELLED, where, "the question was cancelled");
	if (rc)
		goto done;
	if (c->caller->answered)
		c->caller->answered(c->caller->user, params.question, &answer);
	ruv_buf_puts(&c->text, answer.answer);
	for (int i = 0; i < answer.n_citations; i++) {
		const ruv_source *s = &answer.sources[answer.citations[i].source];

		ruv_buf_printf(&c->text, "%s\n%s:%d (id %s)%s", i ? "" : "\n\nSources:", or_empty(s->source),
		               answer.citations[i].line, s->id,
		               answer.citations[i].verbatim ? "" : " - the quote does not stand there word for word");
	}
	for (int i = 0; i < answer.n_sources; i++) {
		json_t *source = source_json(&answer.sources[i]);

		json_object_set_new(source, "cited", json_boolean(answer.sources[i].cited));
		json_array_append_new(sources, source);
	}
	c->data = json_pack("{s:s, s:o, s:b, s:s, s:O}", "answer_id", answer.id, "answer", text_of(answer.answer), "unknown",
	                    answer.unknown, "model", or_empty(answer.model), "sources", sources);
done:
	json_decref(sources);
	ruv_answer_release(&answer);
	return rc;
}

/* ---- agents ------------------------------------------------------------------------------------------------------------ */

static int agent_route(call *c)
{
	ruv_agent_router *agents;
	ruv_agent_routed routed = {0};
	const char *task = NULL;
	float *vector = NULL;
	int rc = ruv_agent_see(c->caller->runtime, c->arguments, &task, &agents, &vector, c->caller->cancel, &c->err);

	if (!rc)
		rc = ruv_agent_route(agents, task, vector, &routed, &c->err);
	free(vector);
	if (rc)
		return rc;
	if (c->caller->routed)
		c->caller->routed(c->caller->user, &routed);
	c->data = ruv_agent_routed_json(&routed);
	if (routed.abstains)
		ruv_buf_printf(&c->text, "No agent's task (out of scope %.2f); least far: %s.", (double)routed.out_of_scope,
		               routed.agent.agent);
	else
		ruv_buf_printf(&c->text, "%s (%.0f %%): %s", routed.agent.agent, 100 * (double)routed.agent.probability,
		               routed.agent.reason);
	for (int i = 0; i < routed.n_alternatives && !routed.abstains; i++)
		ruv_buf_printf(&c->text, "\nor %s (%.0f %%)", routed.alternatives[i].agent,
		               100 * (double)routed.alternatives[i].probability);
	return RUV_OK;
}

static int agent_outcome(call *c)
{
	const char *agent = NULL;
	bool good = false;
	int rc = ruv_agent_note(c->caller->runtime, c->arguments, &agent, &good, c->caller->cancel, &c->err);

	if (rc)
		return rc;
	c->data = json_pack("{s:o, s:b}", "agent", text_of(agent), "good", good);
	ruv_buf_printf(&c->text, "Noted: the task went %s with %s.", good ? "well" : "badly", agent);
	return RUV_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

typedef struct tool {
	const char *name, *title, *description;
	const char *input, *output; /* JSON schemas */
	bool reads, writes, destroys, learns;
	int (*run)(call *c);
} tool;

#define PASSAGE                                                                                                                    \
	"{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"text\":{\"type\":\"string\"},\"title\":{\"type\":"    \
	"\"string\"},"                                                                                                             \
	"\"source\":{\"type\":\"string\"},\"first_line\":{\"type\":\"integer\"},\"last_line\":{\"type\":\"integer\"},\"score\":{"  \
	"\"type\":"                                                                                                                \
	"\"number\"},\"cited\":{\"type\":\"boolean\"}},\"required\":[\"id\",\"text\",\"source\",\"score\"]}"

#define CHOICE                                                                                                                     \
	"\"agent\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},\"probability\":{\"type\":\"number\"},\"quality\":{"       \
	"\"type\":"                                                                                                                \
	"\"number\"},\"reason\":{\"type\":\"string\"}"

static const tool tools[] = {
    {"memory_search", "Search memory",
     "Find passages in memory by meaning and words: notes, documents, earlier answers. Gives each with its id, file and lines.",
     "{\"type\":\"object\",\"properties\":{\"query\":{\"type\":\"string\",\"description\":\"What to look for, in plain words\"},"
     "\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":50,\"default\":8,\"description\":\"Most passages to give\"}},"
     "\"required\":[\"query\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{\"passages\":{\"type\":\"array\",\"items\":" PASSAGE "}},\"required\":[\"passages\"]}",
     true, false, false, false, memory_search},
    {"memory_add", "Remember a text",
     "Keep a text in memory word for word, to be found later by memory_search and ask. Gives its id.",
     "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\",\"description\":\"The text, at best one fact or "
     "paragraph\"},"
     "\"title\":{\"type\":\"string\"},\"source\":{\"type\":\"string\",\"description\":\"Where it is from: a file, a "
     "URL\"},\"tags\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"string\"}}},\"required\":[\"text\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"}},\"required\":[\"id\"]}", false, true, false, false,
     memory_add},
    {"memory_forget", "Forget a passage", "Remove a passage from memory by its id. This cannot be undone.",
     "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"}},\"required\":[\"id\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"forgotten\":{\"type\":\"boolean\"}},\"required\":[\"id\","
     "\"forgotten\"]}",
     false, true, true, false, memory_forget},
    {"ask", "Answer from memory",
     "Answer a question from the passages in memory with a small local model, and say which passage it comes from.",
     "{\"type\":\"object\",\"properties\":{\"question\":{\"type\":\"string\"},\"model\":{\"type\":\"string\",\"description\":\"s, "
     "m, l, "
     "or auto\"},\"max_tokens\":{\"type\":\"integer\",\"minimum\":1}},\"required\":[\"question\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{\"answer_id\":{\"type\":\"string\"},\"answer\":{\"type\":\"string\"},\"unknown\":{"
     "\"type\":"
     "\"boolean\",\"description\":\"The passages do not hold the answer\"},\"model\":{\"type\":\"string\"},\"sources\":{\"type\":"
     "\"array\",\"items\":" PASSAGE "}},\"required\":[\"answer\",\"unknown\",\"sources\"]}",
     true, false, false, false, ask},
    {"agent_route", "Choose an agent",
     "Say which agent a task belongs to (researcher, coder, tester, ...), how sure that is, and who else might do it; a task that "
     "is "
     "nobody's is said to be so.",
     "{\"type\":\"object\",\"properties\":{\"task\":{\"type\":\"string\",\"description\":\"The task in plain "
     "words\"}},\"required\":[\"task\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{" CHOICE ",\"abstains\":{\"type\":\"boolean\"},\"out_of_scope\":{\"type\":\"number\"},"
     "\"complexity\":{\"type\":\"number\"},\"confidence\":{\"type\":\"number\"},\"alternatives\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"object\",\"properties\":{" CHOICE "}}}},\"required\":[\"agent\",\"abstains\",\"alternatives\"]}",
     true, false, false, false, agent_route},
    {"agent_outcome", "Say how a task went",
     "Tell how a task went with an agent, so that later tasks like it are routed better. With good false, `right` may name the "
     "agent "
     "that should have had it.",
     "{\"type\":\"object\",\"properties\":{\"task\":{\"type\":\"string\"},\"agent\":{\"type\":\"string\"},\"good\":{\"type\":"
     "\"boolean\"},\"right\":{\"type\":\"string\"}},\"required\":[\"task\",\"agent\",\"good\"],\"additionalProperties\":false}",
     "{\"type\":\"object\",\"properties\":{\"agent\":{\"type\":\"string\"},\"good\":{\"type\":\"boolean\"}},\"required\":["
     "\"agent\","
     "\"good\"]}",
     false, true, false, true, agent_outcome},
};
enum { N_TOOLS = sizeof tools / sizeof *tools };

json_t *ruv_mcp_tools_list(void)
{
	json_t *list = json_array();

	for (int i = 0; i < N_TOOLS; i++) {
		const tool *t = &tools[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:o, s:{s:b, s:b, s:b, s:b}}", "name", t->name, "title",
		                                      t->title, "description", t->description, "inputSchema",
		                                      json_loads(t->input, 0, NULL), "outputSchema", json_loads(t->output, 0, NULL),
		                                      "annotations", "readOnlyHint", !t->writes, "destructiveHint", t->destroys,
		                                      "idempotentHint", !t->writes, "openWorldHint", 0));
	}
	return list;
}

/* Arguments that the tool does not have are a mistake that its caller should hear of. */
static int check_names(call *c, const tool *t)
{
	json_t *schema = json_loads(t->input, 0, NULL), *value;
	const json_t *known = json_object_get(schema, "properties");
	const char *key;
	int rc = RUV_OK;

	json_object_foreach((json_t *)c->arguments, key, value) if (!rc && !json_object_get(known, key)) rc =
	    ruv_fail(&c->err, RUV_EINVAL, where, "%s has no argument '%.60s'", t->name, key);
	json_decref(schema);
	return rc;
}

static const char *or_configured(const char *wanted, const char *configured)
{
	return wanted && *wanted ? wanted : configured;
}

json_t *ruv_mcp_tools_call(const ruv_mcp_caller *caller, const char *name, const json_t *arguments, const json_t *token)
{
	const ruv_memory_scope configured = ruv_runtime_scope(caller->runtime);
	json_t *none = json_object(), *result;
	call c = {.caller = caller, .arguments = arguments ? arguments : none, .token = token};
	const tool *t = NULL;
	int rc;

	for (int i = 0; i < N_TOOLS; i++)
		if (!strcmp(tools[i].name, name))
			t = &tools[i];
	if (!t) {
		json_decref(none);
		return NULL;
	}
	c.scope = (ruv_memory_scope){or_configured(caller->scope.user, configured.user),
	                             or_configured(caller->scope.agent, configured.agent),
	                             or_configured(caller->scope.session, configured.session)};
	ruv_buf_init(&c.text, MAX_TEXT);
	rc = check_names(&c, t);
	if (!rc && ((t->reads && !caller->may_read) || (t->writes && !t->learns && !caller->may_write) ||
	            (t->learns && !caller->may_learn)))
		rc = ruv_fail(&c.err, RUV_EINVAL, where, "your key may not use %s", t->name);
	if (!rc)
		rc = t->run(&c);
	if (!rc && c.text.failed)
		rc = ruv_fail_memory(&c.err, where, c.text.len);
	if (rc) {
		result =
		    json_pack("{s:[{s:s, s:o}], s:b}", "content", "type", "text", "text", text_of(c.err.message), "isError", 1);
		json_decref(c.data);
	} else {
		result = json_pack("{s:[{s:s, s:o}], s:o, s:b}", "content", "type", "text", "text",
		                   ruv_json_string(ruv_buf_cstr(&c.text), c.text.len), "structuredContent", c.data, "isError", 0);
	}
	ruv_buf_release(&c.text);
	json_decref(none);
	return result;
}

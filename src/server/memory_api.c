/* memory_api.c - /v1/memory: nodes, search, the graph around a node, sources, history, export and import.
 *
 * Every call sees with a scope (user, agent, session): from the request ("scope" or the query string), else as configured, and
 * confined by its key. What a scope cannot see is not found. `every_scope=1` is the owner's view and needs the scope admin.
 * Texts are embedded as passages when they are stored. Layer: server. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "server/ask.h"
#include "server/server_impl.h"

static const char where[] = "server";

enum { MAX_NODES = 1000 };

/* What every endpoint here begins with. */
typedef struct call {
	ruv_exchange *exchange;
	ruv_runtime *runtime;
	ruv_memory *memory;
	ruv_memory_scope scope;
	bool every_scope;
	json_t *body; /* NULL: none was asked for */
	ruv_error err;
	const char *param;
	int rc;
} call;

/* Reads the body when there should be one, the scope, and opens the memory (making it when something is to be written). */
static bool call_begin(call *c, ruv_exchange *exchange, bool with_body, bool create)
{
	int64_t every = 0;

	*c = (call){.exchange = exchange, .runtime = ruv_server_runtime(ruv_exchange_server(exchange))};
	if (with_body)
		c->rc = ruv_exchange_json(exchange, true, &c->body, &c->err);
	if (!c->rc)
		c->rc = ruv_scope_of(exchange, c->body, &c->scope, &c->err);
	if (!c->rc)
		c->rc = ruv_exchange_query_int(exchange, "every_scope", 0, 1, &every, &c->err);
	if (!c->rc && every && !(ruv_exchange_identity(exchange)->scopes & RUV_SCOPE_ADMIN))
		c->rc = ruv_fail(&c->err, RUV_EINVAL, where, "every_scope needs a key with the scope 'admin'");
	c->every_scope = every;
	if (!c->rc)
		c->rc = create ? ruv_runtime_memory(c->runtime, &c->memory, &c->err)
		               : ruv_runtime_memory_if_any(c->runtime, &c->memory, &c->err);
	return !c->rc;
}

/* Answers with `result` (taken over), or with the failure. */
static void call_end(call *c, int status, json_t *result)
{
	if (c->rc) {
		ruv_exchange_fail(c->exchange, &c->err, c->param);
		json_decref(result);
	} else {
		ruv_exchange_reply_json(c->exchange, status, result);
	}
	json_decref(c->body);
}

/* ---- nodes as JSON ----------------------------------------------------------------------------------------------------- */

static json_t *text_of(const char *text)
{
	return ruv_json_string(text ? text : "", text ? strlen(text) : 0);
}

static json_t *scope_json(const ruv_memory_scope *scope)
{
	return json_pack("{s:o, s:o, s:o}", "user", text_of(scope->user), "agent", text_of(scope->agent), "session",
	                 text_of(scope->session));
}

static json_t *node_json(const ruv_memory_node *node)
{
	json_t *tags = json_array(), *meta = node->meta && *node->meta ? json_loads(node->meta, 0, NULL) : NULL;

	for (int i = 0; i < node->n_tags; i++)
		json_array_append_new(tags, text_of(node->tags[i]));
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:f, s:i, s:I, s:I, s:o, s:o, s:b}", "id", node->id,
	                 "type", ruv_node_type_name(node->type), "text", text_of(node->text), "title", text_of(node->title),
	                 "source", text_of(node->source), "first_line", node->first_line, "last_line", node->last_line, "tags",
	                 tags, "domain", text_of(node->domain), "scope", scope_json(&node->scope), "confidence",
	                 (double)node->confidence, "version", node->version, "created_ms", (json_int_t)node->created_ms,
	                 "updated_ms", (json_int_t)node->updated_ms, "expires_ms",
	                 node->expires_ms ? json_integer(node->expires_ms) : json_null(), "meta", meta ? meta : json_object(),
	                 "has_vector", node->vector != NULL);
}

static json_t *nodes_json(const ruv_memory_nodes *nodes)
{
	json_t *list = json_array();

	for (int i = 0; i < nodes->n; i++)
		json_array_append_new(list, node_json(&nodes->items[i]));
	return list;
}

static json_t *edge_json(const ruv_memory_edge *edge)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:I, s:o}", "id", edge->id, "src", edge->src, "dst", edge->dst, "type",
	                 ruv_edge_type_name(edge->type), "weight", (double)edge->weight, "confidence", (double)edge->confidence,
	                 "created_ms", (json_int_t)edge->created_ms, "created_by", text_of(edge->created_by));
}

/* What a request says about a node; strings belong to the JSON, meta and tags to this. */
typedef struct node_in {
	ruv_memory_node node;
	const char *tags[RUV_MEMORY_MAX_TAGS];
	char *meta;
} node_in;

static int read_tags(const char **tags, int *n, const json_t *list, ruv_error *err)
{
	const json_t *tag;
	size_t i;

	if (json_array_size(list) > RUV_MEMORY_MAX_TAGS)
		return ruv_fail(err, RUV_ELIMIT, where, "there are %zu tags; at most %d are taken", json_array_size(list),
		                (int)RUV_MEMORY_MAX_TAGS);
	*n = 0;
	json_array_foreach(list, i, tag)
	{
		if (!json_is_string(tag))
			return ruv_fail(err, RUV_EINVAL, where, "tag %zu is no text", i + 1);
		tags[(*n)++] = json_string_value(tag);
	}
	return RUV_OK;
}

/* Fields that are there change the node; the others stay. */
static int read_node(node_in *in, const json_t *object, ruv_error *err)
{
	ruv_memory_node *node = &in->node;
	int64_t first = node->first_line, last = node->last_line, expires = node->expires_ms, lives_s = -1;
	double confidence = (double)node->confidence;
	json_t *tags = NULL, *meta = NULL;
	const char *type = NULL;
	int rc;

	if (!json_is_object(object))
		return ruv_fail(err, RUV_EINVAL, where, "a node must be an object");
	if ((rc = ruv_json_text(object, "text", &node->text, err)) || (rc = ruv_json_text(object, "title", &node->title, err)) ||
	    (rc = ruv_json_text(object, "source", &node->source, err)) ||
	    (rc = ruv_json_text(object, "domain", &node->domain, err)) || (rc = ruv_json_text(object, "type", &type, err)) ||
	    (rc = ruv_json_int(object, "first_line", 0, INT32_MAX, &first, err)) ||
	    (rc = ruv_json_int(object, "last_line", 0, INT32_MAX, &last, err)) ||
	    (rc = ruv_json_int(object, "expires_ms", 0, INT64_MAX, &expires, err)) ||
	    (rc = ruv_json_int(object, "expires_in_s", 1, INT64_MAX / 2000, &lives_s, err)) ||
	    (rc = ruv_json_real(object, "confidence", 0, 1, &confidence, err)) ||
	    (rc = ruv_json_array(object, "tags", &tags, err)) || (rc = ruv_json_object(object, "meta", &meta, err)))
		return rc;
	if (type && (rc = ruv_node_type_parse(&node->type, type, err)))
		return rc;
	if (tags) {
		if ((rc = read_tags(in->tags, &node->n_tags, tags, err)))
			return rc;
		node->tags = in->tags;
	}
	if (meta) {
		free(in->meta);
		in->meta = json_dumps(meta, JSON_COMPACT);
		node->meta = in->meta;
	}
	if (!node->text || !*node->text)
		return ruv_fail(err, RUV_EINVAL, where, "a node needs a 'text'");
	node->first_line = (int)first;
	node->last_line = (int)last;
	node->expires_ms = lives_s > 0 ? ruv_clock_wall_ms() + lives_s * 1000 : expires;
	node->confidence = (float)confidence;
	return RUV_OK;
}

/* Gives every node its vector: [n, dim], freed by the caller. */
static int embed_nodes(call *c, node_in *nodes, int n, float **vectors)
{
	const char **texts = calloc((size_t)n, sizeof *texts);
	int dim = ruv_runtime_embed_dim(c->runtime, &c->err), rc;

	*vectors = dim > 0 ? malloc(sizeof(float) * (size_t)n * (size_t)dim) : NULL;
	if (dim < 0) {
		rc = dim;
	} else if (!texts || !*vectors) {
		rc = ruv_fail_memory(&c->err, where, sizeof(float) * (size_t)n * (size_t)dim);
	} else {
		for (int i = 0; i < n; i++)
			texts[i] = nodes[i].node.text;
		rc =
		    ruv_runtime_embed(c->runtime, texts, n, RUV_EMBED_PASSAGE, *vectors, ruv_exchange_cancel(c->exchange), &c->err);
	}
	for (int i = 0; i < n && !rc; i++)
		nodes[i].node.vector = *vectors + (size_t)i * (size_t)dim;
	free(texts);
	return rc;
}

/* A node by the id in the path, when the scope sees it. */
static int get_node(call *c, ruv_memory_nodes *out)
{
	const char *id = ruv_exchange_param(c->exchange, "id");
	int rc = ruv_memory_get(c->memory, out, id, &c->err);

	c->param = "id";
	if (!rc && !c->every_scope && !ruv_scope_sees(&c->scope, &out->items[0])) {
		ruv_memory_nodes_release(out);
		rc = ruv_fail(&c->err, RUV_ENOTFOUND, where, "there is no node '%.60s'", id);
	}
	return rc;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------- */

/* {text, ...} or {"nodes": [{text, ...}]} */
static void add(ruv_exchange *exchange)
{
	json_t *list = NULL, *single = NULL, *ids;
	ruv_memory_node *nodes = NULL;
	float *vectors = NULL;
	node_in *in = NULL;
	int n = 0;
	call c;

	if (!call_begin(&c, exchange, true, true))
		goto done;
	c.rc = ruv_json_array(c.body, "nodes", &list, &c.err);
	if (!c.rc && !list)
		list = single = json_pack("[O]", c.body);
	n = (int)json_array_size(list);
	if (!c.rc && (n < 1 || n > MAX_NODES))
		c.rc = ruv_fail(&c.err, RUV_EINVAL, where, "'nodes' has %d items; from 1 to %d are taken", n, (int)MAX_NODES);
	in = calloc((size_t)(n > 0 ? n : 1), sizeof *in);
	nodes = calloc((size_t)(n > 0 ? n : 1), sizeof *nodes);
	if (!c.rc && (!in || !nodes))
		c.rc = ruv_fail_memory(&c.err, where, (size_t)n * sizeof *in);
	for (int i = 0; i < n && !c.rc; i++) {
		in[i].node.type = RUV_NODE_FACT;
		in[i].node.scope = c.scope;
		c.rc = read_node(&in[i], json_array_get(list, (size_t)i), &c.err);
		if (c.rc && !single)
			ruv_error_prefix(&c.err, c.rc, "node %d: ", i + 1);
	}
	if (!c.rc)
		c.rc = embed_nodes(&c, in, n, &vectors);
	for (int i = 0; i < n && !c.rc; i++)
		nodes[i] = in[i].node;
	if (!c.rc)
		c.rc = ruv_memory_add(c.memory, nodes, n, &c.err);
done:
	ids = json_array();
	for (int i = 0; i < n && !c.rc; i++)
		json_array_append_new(ids, node_json(&nodes[i]));
	if (single && !c.rc) {
		json_t *one = json_incref(json_array_get(ids, 0));

		json_decref(ids);
		call_end(&c, 201, one);
	} else {
		call_end(&c, 201, json_pack("{s:s, s:o}", "object", "list", "data", ids));
	}
	for (int i = 0; in && i < n; i++)
		free(in[i].meta);
	json_decref(single);
	free(vectors);
	free(nodes);
	free(in);
}

/* The filter that query string and body ("filter" object) describe. tags: room for its tags. */
static int read_filter(call *c, ruv_memory_filter *filter, const char **tags)
{
	const json_t *object = NULL;
	json_t *list = NULL, *named = NULL;
	const char *type = ruv_exchange_query(c->exchange, "type");
	double confidence = 0;
	int rc = c->body ? ruv_json_object(c->body, "filter", &named, &c->err) : RUV_OK;

	object = named;
	*filter = (ruv_memory_filter){.scope = c->scope,
	                              .every_scope = c->every_scope,
	                              .domain = ruv_exchange_query(c->exchange, "domain"),
	                              .source = ruv_exchange_query(c->exchange, "source"),
	                              .tags = tags};
	if (!rc && ruv_exchange_query(c->exchange, "tag"))
		tags[filter->n_tags++] = ruv_exchange_query(c->exchange, "tag");
	if (!rc && object &&
	    ((rc = ruv_json_text(object, "type", &type, &c->err)) ||
	     (rc = ruv_json_text(object, "domain", &filter->domain, &c->err)) ||
	     (rc = ruv_json_text(object, "source", &filter->source, &c->err)) ||
	     (rc = ruv_json_array(object, "tags", &list, &c->err)) ||
	     (rc = ruv_json_int(object, "created_from_ms", 0, INT64_MAX, &filter->created_from_ms, &c->err)) ||
	     (rc = ruv_json_int(object, "created_to_ms", 0, INT64_MAX, &filter->created_to_ms, &c->err)) ||
	     (rc = ruv_json_real(object, "min_confidence", 0, 1, &confidence, &c->err)) ||
	     (rc = list ? read_tags(tags, &filter->n_tags, list, &c->err) : 0)))
		return rc;
	filter->min_confidence = (float)confidence;
	if (!rc && type) {
		ruv_node_type parsed;

		rc = ruv_node_type_parse(&parsed, type, &c->err);
		filter->types = rc ? 0 : 1u << parsed;
	}
	return rc;
}

/* A key that speaks for somebody changes what is theirs, not what is everybody's. */
static int check_owner(call *c, const ruv_memory_node *node)
{
	const ruv_identity *identity = ruv_exchange_identity(c->exchange);

	if ((!*identity->user || !strcmp(identity->user, node->scope.user)) &&
	    (!*identity->agent || !strcmp(identity->agent, node->scope.agent)))
		return RUV_OK;
	return ruv_fail(&c->err, RUV_EINVAL, where, "the key '%s' may change only nodes of '%s'", identity->key_name,
	                *identity->user ? identity->user : identity->agent);
}

static void list(ruv_exchange *exchange)
{
	const char *tags[RUV_MEMORY_MAX_TAGS];
	int64_t limit = 50, offset = 0;
	ruv_memory_nodes nodes = {0};
	ruv_memory_filter filter;
	json_t *data = NULL;
	bool more = false;
	call c;

	if (call_begin(&c, exchange, false, false) &&
	    !(c.rc = ruv_exchange_query_int(exchange, "limit", 1, MAX_NODES, &limit, &c.err)) &&
	    !(c.rc = ruv_exchange_query_int(exchange, "offset", 0, INT32_MAX - MAX_NODES - 1, &offset, &c.err)) &&
	    !(c.rc = read_filter(&c, &filter, tags)))
		c.rc = ruv_memory_list(c.memory, &nodes, &filter, false, (int)offset, (int)limit + 1, &c.err);
	if (!c.rc) {
		more = nodes.n > limit;
		nodes.n = more ? (int)limit : nodes.n;
		data = nodes_json(&nodes);
	}
	call_end(&c, 200, c.rc ? NULL : json_pack("{s:s, s:o, s:b}", "object", "list", "data", data, "has_more", more));
	ruv_memory_nodes_release(&nodes);
}

static void get(ruv_exchange *exchange)
{
	ruv_memory_nodes nodes = {0};
	call c;

	if (call_begin(&c, exchange, false, false))
		c.rc = get_node(&c, &nodes);
	call_end(&c, 200, c.rc ? NULL : node_json(&nodes.items[0]));
	ruv_memory_nodes_release(&nodes);
}

/* Changes the fields that are given. */
static void update(ruv_exchange *exchange)
{
	ruv_memory_nodes nodes = {0}, after = {0};
	float *vectors = NULL;
	node_in in = {0};
	json_t *result = NULL;
	call c;

	if (!call_begin(&c, exchange, true, true) || (c.rc = get_node(&c, &nodes)) || (c.rc = check_owner(&c, &nodes.items[0])))
		goto done;
	c.param = NULL;
	in.node = nodes.items[0];
	in.node.vector = NULL;
	c.rc = read_node(&in, c.body, &c.err);
	if (!c.rc && strcmp(in.node.text, nodes.items[0].text))
		c.rc = embed_nodes(&c, &in, 1, &vectors);
	if (!c.rc)
		c.rc = ruv_memory_update(c.memory, &in.node, &c.err);
	if (!c.rc)
		c.rc = ruv_memory_get(c.memory, &after, in.node.id, &c.err);
	if (!c.rc)
		result = node_json(&after.items[0]);
done:
	call_end(&c, 200, result);
	ruv_memory_nodes_release(&after);
	ruv_memory_nodes_release(&nodes);
	free(in.meta);
	free(vectors);
}

static void forget(ruv_exchange *exchange)
{
	ruv_memory_nodes nodes = {0};
	char id[RUV_ID_SIZE] = "";
	call c;

	if (call_begin(&c, exchange, false, false) && !(c.rc = get_node(&c, &nodes)) &&
	    !(c.rc = check_owner(&c, &nodes.items[0]))) {
		const char *ids[1] = {id};

		memcpy(id, nodes.items[0].id, sizeof id);
		c.rc = ruv_memory_forget(c.memory, ids, 1, &c.err);
	}
	call_end(&c, 200, c.rc ? NULL : json_pack("{s:s, s:s, s:b}", "object", "ruvllm.forgotten", "id", id, "deleted", 1));
	ruv_memory_nodes_release(&nodes);
}

static void history(ruv_exchange *exchange)
{
	ruv_memory_events events = {0};
	ruv_memory_nodes nodes = {0};
	json_t *data = json_array();
	int64_t limit = 50;
	call c;

	if (call_begin(&c, exchange, false, false) && !(c.rc = get_node(&c, &nodes)) &&
	    !(c.rc = ruv_exchange_query_int(exchange, "limit", 1, MAX_NODES, &limit, &c.err)))
		c.rc = ruv_memory_history(c.memory, &events, nodes.items[0].id, (int)limit, &c.err);
	for (int i = 0; i < events.n && !c.rc; i++) {
		const ruv_memory_event *e = &events.items[i];
		json_t *detail = *e->detail ? json_loads(e->detail, JSON_DECODE_ANY, NULL) : NULL;

		json_array_append_new(data,
		                      json_pack("{s:I, s:I, s:s, s:o}", "seq", (json_int_t)e->seq, "time_ms",
		                                (json_int_t)e->time_ms, "what", e->what, "detail", detail ? detail : json_null()));
	}
	call_end(&c, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
	ruv_memory_events_release(&events);
	ruv_memory_nodes_release(&nodes);
}

/* ---- search ------------------------------------------------------------------------------------------------------------ */

static json_t *hits_json(const ruv_memory_hits *hits)
{
	json_t *data = json_array();

	for (int i = 0; i < hits->n; i++) {
		const ruv_memory_hit *hit = &hits->items[i];

		json_array_append_new(data, json_pack("{s:o, s:f, s:o, s:o}", "node", node_json(&hit->node), "score", hit->score,
		                                      "cosine", hit->vector_rank ? json_real((double)hit->cosine) : json_null(),
		                                      "bm25", hit->lexical_rank ? json_real((double)hit->bm25) : json_null()));
	}
	return json_pack("{s:s, s:o, s:{s:f, s:f, s:f}}", "object", "list", "data", data, "timings_ms", "vector",
	                 (double)hits->vector_ns * 1e-6, "lexical", (double)hits->lexical_ns * 1e-6, "total",
	                 (double)hits->total_ns * 1e-6);
}

/* {query, k, mode, filter, scope, min_cosine} */
static void search(ruv_exchange *exchange)
{
	const char *tags[RUV_MEMORY_MAX_TAGS], *mode = "hybrid", *fusion = "zscore";
	ruv_memory_query query = {0};
	ruv_memory_hits hits = {0};
	float *vector = NULL;
	double min_cosine = 0;
	int64_t k = 10;
	call c;
	int dim;

	if (!call_begin(&c, exchange, true, false) || (c.rc = ruv_json_text(c.body, "query", &query.text, &c.err)) ||
	    (c.rc = ruv_json_int(c.body, "k", 1, MAX_NODES, &k, &c.err)) || (c.rc = ruv_json_text(c.body, "mode", &mode, &c.err)) ||
	    (c.rc = ruv_json_text(c.body, "fusion", &fusion, &c.err)) ||
	    (c.rc = ruv_json_real(c.body, "min_cosine", -1, 1, &min_cosine, &c.err)) ||
	    (c.rc = read_filter(&c, &query.filter, tags)))
		goto done;
	c.param = "query";
	if (!query.text || !*query.text) {
		c.rc = ruv_fail(&c.err, RUV_EINVAL, where, "'query' must be a text");
		goto done;
	}
	c.param = "mode";
	if (strcmp(mode, "hybrid") && strcmp(mode, "vector") && strcmp(mode, "lexical")) {
		c.rc = ruv_fail(&c.err, RUV_EINVAL, where, "'mode' is '%.40s'; it must be hybrid, vector or lexical", mode);
		goto done;
	}
	c.param = "fusion";
	if (strcmp(fusion, "zscore") && strcmp(fusion, "rrf")) {
		c.rc = ruv_fail(&c.err, RUV_EINVAL, where, "'fusion' is '%.40s'; it must be zscore or rrf", fusion);
		goto done;
	}
	c.param = NULL;
	query.k = (int)k;
	query.mode = !strcmp(mode, "vector")    ? RUV_SEARCH_VECTOR
	             : !strcmp(mode, "lexical") ? RUV_SEARCH_LEXICAL
	                                        : RUV_SEARCH_HYBRID;
	query.fusion = !strcmp(fusion, "rrf") ? RUV_FUSE_RRF : RUV_FUSE_ZSCORE;
	query.min_cosine = (float)min_cosine;
	if (query.mode != RUV_SEARCH_LEXICAL) {
		dim = ruv_runtime_embed_dim(c.runtime, &c.err);
		vector = dim > 0 ? malloc(sizeof(float) * (size_t)dim) : NULL;
		c.rc = dim < 0 ? dim : vector ? RUV_OK : ruv_fail_memory(&c.err, where, 0);
		if (!c.rc)
			c.rc = ruv_runtime_embed(c.runtime, &query.text, 1, RUV_EMBED_QUERY, vector, ruv_exchange_cancel(exchange),
			                         &c.err);
		query.vector = vector;
	}
	if (!c.rc)
		c.rc = ruv_memory_search(c.memory, &hits, &query, &c.err);
done:
	call_end(&c, 200, c.rc ? NULL : hits_json(&hits));
	ruv_memory_hits_release(&hits);
	free(vector);
}

/* ---- graph ------------------------------------------------------------------------------------------------------------- */

static void graph(ruv_exchange *exchange)
{
	const char *tags[RUV_MEMORY_MAX_TAGS];
	ruv_memory_graph around = {0};
	ruv_memory_nodes nodes = {0};
	int64_t hops = 2, max_nodes = 100;
	json_t *list_nodes = json_array(), *list_edges = json_array();
	ruv_memory_filter filter;
	call c;

	if (call_begin(&c, exchange, false, false) && !(c.rc = ruv_exchange_query_int(exchange, "hops", 1, 8, &hops, &c.err)) &&
	    !(c.rc = ruv_exchange_query_int(exchange, "max_nodes", 1, MAX_NODES, &max_nodes, &c.err)) &&
	    !(c.rc = read_filter(&c, &filter, tags)) && !(c.rc = get_node(&c, &nodes)))
		c.rc = ruv_memory_neighbours(c.memory, &around, nodes.items[0].id, (int)hops, (int)max_nodes, &filter, &c.err);
	for (int i = 0; i < around.nodes.n && !c.rc; i++) {
		json_t *node = node_json(&around.nodes.items[i]);

		json_object_set_new(node, "hops", json_integer(around.hops[i]));
		json_array_append_new(list_nodes, node);
	}
	for (int i = 0; i < around.n_edges && !c.rc; i++)
		json_array_append_new(list_edges, edge_json(&around.edges[i]));
	call_end(&c, 200, json_pack("{s:s, s:o, s:o}", "object", "ruvllm.graph", "nodes", list_nodes, "edges", list_edges));
	ruv_memory_graph_release(&around);
	ruv_memory_nodes_release(&nodes);
}

/* Both ends must be visible. */
static int check_end(call *c, const char *key, char id[RUV_ID_SIZE])
{
	ruv_memory_nodes nodes = {0};
	const char *text = NULL;
	int rc = ruv_json_text(c->body, key, &text, &c->err);

	c->param = key;
	if (!rc && (!text || strlen(text) != RUV_ID_SIZE - 1))
		rc = ruv_fail(&c->err, RUV_EINVAL, where, "'%s' must be the id of a node", key);
	if (!rc)
		rc = ruv_memory_get(c->memory, &nodes, text, &c->err);
	if (!rc && !c->every_scope && !ruv_scope_sees(&c->scope, &nodes.items[0]))
		rc = ruv_fail(&c->err, RUV_ENOTFOUND, where, "there is no node '%.60s'", text);
	if (!rc) {
		memcpy(id, text, RUV_ID_SIZE);
		c->param = NULL;
	}
	ruv_memory_nodes_release(&nodes);
	return rc;
}

/* {src, dst, type, weight, confidence} */
static void add_edge(ruv_exchange *exchange)
{
	const char *type = "SameTopic", *by = "api";
	double weight = 1, confidence = 1;
	ruv_memory_edge edge = {0};
	call c;

	if (call_begin(&c, exchange, true, true) && !(c.rc = ruv_json_text(c.body, "type", &type, &c.err)) &&
	    !(c.rc = ruv_json_text(c.body, "created_by", &by, &c.err)) &&
	    !(c.rc = ruv_json_real(c.body, "weight", 0, 1e6, &weight, &c.err)) &&
	    !(c.rc = ruv_json_real(c.body, "confidence", 0, 1, &confidence, &c.err)) && !(c.rc = check_end(&c, "src", edge.src)) &&
	    !(c.rc = check_end(&c, "dst", edge.dst)) && !(c.rc = ruv_edge_type_parse(&edge.type, type, &c.err))) {
		edge.weight = (float)weight;
		edge.confidence = (float)confidence;
		edge.created_by = by;
		c.rc = ruv_memory_link(c.memory, &edge, 1, &c.err);
	}
	call_end(&c, 201, c.rc ? NULL : edge_json(&edge));
}

static void remove_edge(ruv_exchange *exchange)
{
	const char *id = ruv_exchange_param(exchange, "id");
	const ruv_identity *identity = ruv_exchange_identity(exchange);
	ruv_memory_filter filter = {0};
	call c;

	if (call_begin(&c, exchange, false, false)) {
		c.param = "id";
		filter.scope = c.scope;
		filter.every_scope = c.every_scope;
		c.rc = *identity->user || *identity->agent
		           ? ruv_fail(&c.err, RUV_EINVAL, where, "the key '%s' speaks for somebody and may not remove edges",
		                      identity->key_name)
		           : ruv_memory_unlink_seen(c.memory, id, &filter, &c.err);
	}
	call_end(&c, 200,
	         c.rc ? NULL : json_pack("{s:s, s:o, s:b}", "object", "ruvllm.forgotten", "id", text_of(id), "deleted", 1));
}

/* ---- sources ----------------------------------------------------------------------------------------------------------- */

/* {text, name, kind, tags, domain, again}: a document is cut into passages and remembered, in place of what its name had. */
static void remember(ruv_exchange *exchange)
{
	const char *tags[RUV_MEMORY_MAX_TAGS];
	ruv_remember_params params = {.tags = tags, .cancel = ruv_exchange_cancel(exchange)};
	ruv_remember_result result = {0};
	json_t *tag_list = NULL;
	call c;

	if (!call_begin(&c, exchange, true, true) || (c.rc = ruv_json_text(c.body, "text", &params.text, &c.err)) ||
	    (c.rc = ruv_json_text(c.body, "name", &params.name, &c.err)) ||
	    (c.rc = ruv_json_text(c.body, "kind", &params.kind, &c.err)) ||
	    (c.rc = ruv_json_text(c.body, "domain", &params.domain, &c.err)) ||
	    (c.rc = ruv_json_array(c.body, "tags", &tag_list, &c.err)) ||
	    (c.rc = ruv_json_bool(c.body, "again", &params.again, &c.err)) ||
	    (c.rc = read_tags(tags, &params.n_tags, tag_list, &c.err)))
		goto done;
	if (!params.text || !*params.text) {
		c.rc = ruv_fail(&c.err, RUV_EINVAL, where, "'text' must be a text");
		goto done;
	}
	params.n_bytes = strlen(params.text);
	params.scope = &c.scope;
	c.rc = ruv_remember(c.runtime, &params, &result, &c.err);
done:
	call_end(&c, 201,
	         c.rc ? NULL
	              : json_pack("{s:s, s:i, s:i, s:i, s:i, s:b, s:f}", "object", "ruvllm.remembered", "passages_added",
	                          result.n_passages_added, "passages_kept", result.n_passages_kept, "passages_removed",
	                          result.n_passages_removed, "embedded", result.n_embedded, "unchanged", result.n_unchanged > 0,
	                          "seconds", result.seconds));
}

static void sources(ruv_exchange *exchange)
{
	const char *tags[RUV_MEMORY_MAX_TAGS];
	ruv_memory_sources found = {0};
	ruv_memory_filter filter;
	json_t *data = json_array();
	call c;

	if (call_begin(&c, exchange, false, false) && !(c.rc = read_filter(&c, &filter, tags)))
		c.rc = ruv_memory_source_list(c.memory, &found, &filter, &c.err);
	for (int i = 0; i < found.n && !c.rc; i++) {
		const ruv_memory_source *s = &found.items[i];

		json_array_append_new(data, json_pack("{s:o, s:o, s:I, s:I, s:I, s:i}", "name", text_of(s->name), "scope",
		                                      scope_json(&s->scope), "size_bytes", (json_int_t)s->size_bytes, "modified_ms",
		                                      (json_int_t)s->modified_ms, "remembered_ms", (json_int_t)s->remembered_ms,
		                                      "n_nodes", s->n_nodes));
	}
	call_end(&c, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
	ruv_memory_sources_release(&found);
}

static void forget_source(ruv_exchange *exchange)
{
	ruv_memory_source source = {.name = ruv_exchange_query(exchange, "name")};
	int n_removed = 0;
	call c;

	if (call_begin(&c, exchange, false, false)) {
		c.param = "name";
		source.scope = c.scope;
		c.rc = source.name && *source.name ? ruv_memory_source_forget(c.memory, &source, &n_removed, &c.err)
		                                   : ruv_fail(&c.err, RUV_EINVAL, where, "the query string must have ?name=SOURCE");
	}
	call_end(&c, 200,
	         c.rc ? NULL
	              : json_pack("{s:s, s:o, s:i, s:b}", "object", "ruvllm.forgotten", "name", text_of(source.name), "nodes",
	                          n_removed, "deleted", 1));
}

/* ---- the whole --------------------------------------------------------------------------------------------------------- */

static void stats(ruv_exchange *exchange)
{
	json_t *types = json_object(), *edges = json_object();
	ruv_memory_stats s = {0};
	const char *embedder = "", *version = "";
	int dim = 0;
	call c;

	if (call_begin(&c, exchange, false, false) && !(c.rc = ruv_memory_get_stats(c.memory, &s, &c.err)))
		ruv_memory_embedder(c.memory, &embedder, &version, &dim);
	for (int i = 0; i < RUV_N_NODE_TYPES; i++)
		json_object_set_new(types, ruv_node_type_name(i), json_integer(s.n_by_type[i]));
	for (int i = 0; i < RUV_N_EDGE_TYPES; i++)
		json_object_set_new(edges, ruv_edge_type_name(i), json_integer(s.n_by_edge_type[i]));
	call_end(&c, 200,
	         json_pack("{s:s, s:I, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:o, s:o, s:i}}", "object",
	                   "ruvllm.memory_stats", "nodes", (json_int_t)s.n_nodes, "nodes_by_type", types, "edges",
	                   (json_int_t)s.n_edges, "edges_by_type", edges, "vectors", (json_int_t)s.n_vectors, "without_vector",
	                   (json_int_t)s.n_without_vector, "sources", (json_int_t)s.n_sources, "text_bytes",
	                   (json_int_t)s.text_bytes, "database_bytes", (json_int_t)s.database_bytes, "index_bytes",
	                   (json_int_t)s.index_bytes, "embedder", "id", text_of(embedder), "version", text_of(version), "dimension",
	                   dim));
}

/* A FILE whose bytes go to the client; writing waits for slow readers. */
static ssize_t write_to_client(void *exchange, const char *bytes, size_t n)
{
	return ruv_exchange_write(exchange, bytes, n) ? 0 : (ssize_t)n; /* 0 is an error to stdio */
}

static void export_all(ruv_exchange *exchange)
{
	const cookie_io_functions_t io = {.write = write_to_client};
	int64_t without_vectors = 0;
	FILE *out = NULL;
	call c;

	if (!call_begin(&c, exchange, false, false) ||
	    (c.rc = ruv_exchange_query_int(exchange, "without_vectors", 0, 1, &without_vectors, &c.err))) {
		call_end(&c, 200, NULL);
		return;
	}
	ruv_exchange_begin(exchange, "application/x-ndjson");
	out = fopencookie(exchange, "w", io);
	c.rc = out ? ruv_memory_export(c.memory, out, without_vectors, NULL, &c.err) : ruv_fail_memory(&c.err, where, 0);
	if (out && fclose(out) && !c.rc)
		c.rc = ruv_fail(&c.err, RUV_ECANCELLED, where, "the client is gone");
	if (c.rc)
		ruv_exchange_fail(exchange, &c.err, NULL);
	else
		ruv_exchange_end(exchange);
}

static void import_all(ruv_exchange *exchange)
{
	ruv_memory_transfer done = {0};
	int64_t without_vectors = 0;
	const char *body;
	FILE *in = NULL;
	size_t n;
	call c;

	body = ruv_exchange_body(exchange, &n);
	if (call_begin(&c, exchange, false, true) &&
	    !(c.rc = ruv_exchange_query_int(exchange, "without_vectors", 0, 1, &without_vectors, &c.err))) {
		in = n ? fmemopen((void *)(uintptr_t)body, n, "r") : NULL;
		c.rc = in ? ruv_memory_import(c.memory, in, "the body", without_vectors, &done, &c.err)
		          : ruv_fail(&c.err, RUV_EINVAL, where, "the body must be an export: JSON lines");
	}
	if (in)
		fclose(in);
	call_end(&c, 200,
	         c.rc ? NULL
	              : json_pack("{s:s, s:I, s:I, s:I, s:I}", "object", "ruvllm.imported", "nodes", (json_int_t)done.n_nodes,
	                          "edges", (json_int_t)done.n_edges, "sources", (json_int_t)done.n_sources, "skipped",
	                          (json_int_t)done.n_skipped));
}

#define READ RUV_SCOPE_READ
#define WRITE RUV_SCOPE_READ | RUV_SCOPE_WRITE
#define ADMIN RUV_SCOPE_READ | RUV_SCOPE_WRITE | RUV_SCOPE_ADMIN

const ruv_route ruv_routes_memory[] = {
    {RUV_GET, "/v1/memory", list, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/memory", add, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/memory/search", search, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/memory/remember", remember, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/sources", sources, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_DELETE, "/v1/memory/sources", forget_source, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/stats", stats, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/export", export_all, ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/memory/import", import_all, ADMIN, 0, RUV_ERRORS_OPENAI},
    {RUV_POST, "/v1/memory/edges", add_edge, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_DELETE, "/v1/memory/edges/{id}", remove_edge, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/{id}", get, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_PUT | RUV_PATCH, "/v1/memory/{id}", update, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_DELETE, "/v1/memory/{id}", forget, WRITE, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/{id}/graph", graph, READ, 0, RUV_ERRORS_OPENAI},
    {RUV_GET, "/v1/memory/{id}/history", history, READ, 0, RUV_ERRORS_OPENAI},
    {0},
};

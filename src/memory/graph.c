/* graph.c - edges and neighbourhoods; see memory.h. Layer: memory. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/memory_impl.h"

enum { MAX_EDGES_OF_A_NODE = 1024, MAX_NEIGHBOURHOOD = 100000 };

int ruv_edge_check(ruv_memory_edge *edge, int64_t now_ms, ruv_error *err)
{
	char src[RUV_ID_SIZE], dst[RUV_ID_SIZE], id[RUV_ID_SIZE];
	int rc;

	if ((unsigned)edge->type >= RUV_N_EDGE_TYPES)
		return ruv_fail(err, RUV_EINVAL, "memory", "%d is no type of edge", (int)edge->type);
	rc = ruv_id_check(src, edge->src, err);
	if (!rc)
		rc = ruv_id_check(dst, edge->dst, err);
	if (!rc && edge->id[0])
		rc = ruv_id_check(id, edge->id, err);
	else if (!rc)
		ruv_uuid_format(ruv_uuid_make(), id);
	if (rc)
		return rc;
	if (!strcmp(src, dst))
		return ruv_fail(err, RUV_EINVAL, "memory", "an edge from node %s to itself", src);
	memcpy(edge->src, src, sizeof src);
	memcpy(edge->dst, dst, sizeof dst);
	memcpy(edge->id, id, sizeof id);
	if (edge->weight == 0)
		edge->weight = 1;
	if (edge->confidence == 0)
		edge->confidence = 1;
	/* Written so that NaN fails. */
	if (!(edge->weight > -1e30f && edge->weight < 1e30f))
		return ruv_fail(err, RUV_EINVAL, "memory", "weight %g of an edge", (double)edge->weight);
	if (!(edge->confidence > 0 && edge->confidence <= 1))
		return ruv_fail(err, RUV_EINVAL, "memory", "confidence %g is not in (0, 1]", (double)edge->confidence);
	if (edge->created_by && strlen(edge->created_by) > RUV_MEMORY_MAX_LABEL)
		return ruv_fail(err, RUV_ELIMIT, "memory", "created_by has %zu bytes, at most %d are allowed",
		                strlen(edge->created_by), RUV_MEMORY_MAX_LABEL);
	if (!edge->created_ms)
		edge->created_ms = now_ms;
	return RUV_OK;
}

int ruv_memory_link(ruv_memory *m, ruv_memory_edge *edges, int n, ruv_error *err)
{
	int64_t now = ruv_clock_wall_ms();
	ruv_memory_edge *checked;
	int rc = RUV_OK;

	if (n < 0 || n > RUV_MEMORY_MAX_BATCH)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d edges in one call, at most %d are allowed", n, RUV_MEMORY_MAX_BATCH);
	if (n == 0)
		return RUV_OK;
	checked = malloc((size_t)n * sizeof *checked);
	if (!checked)
		return ruv_fail_memory(err, "memory", (size_t)n * sizeof *checked);
	for (int i = 0; !rc && i < n; i++) {
		checked[i] = edges[i];
		rc = ruv_edge_check(&checked[i], now, err);
	}
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		goto done;
	for (int i = 0; !rc && i < n; i++)
		rc = m->store->ops->edge_put(m->store, &checked[i], err);
	if (rc)
		m->store->ops->rollback(m->store);
	else
		rc = ruv_memory_commit(m, err);
	for (int i = 0; !rc && i < n; i++) {
		memcpy(edges[i].id, checked[i].id, sizeof edges[i].id);
		edges[i].weight = checked[i].weight;
		edges[i].confidence = checked[i].confidence;
		edges[i].created_ms = checked[i].created_ms;
	}
done:
	free(checked);
	return rc;
}

/* RUV_ENOTFOUND unless the filter sees both ends of the edge. */
static int check_ends(ruv_memory *m, const char *id, const ruv_memory_filter *filter, ruv_error *err)
{
	ruv_memory_edge edge;
	ruv_arena arena;
	int rc;

	ruv_arena_init(&arena);
	rc = m->store->ops->edge_get(m->store, &arena, &edge, id, err);
	for (int end = 0; !rc && end < 2; end++) {
		ruv_memory_node node;
		rc = m->store->ops->node_get(m->store, &arena, &node, end ? edge.dst : edge.src, err);
		if (rc == RUV_ENOTFOUND || (!rc && !ruv_filter_pass(filter, &node)))
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no edge %s", id);
	}
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_unlink_seen(ruv_memory *m, const char *edge_id, const ruv_memory_filter *filter, ruv_error *err)
{
	ruv_memory_filter checked;
	char id[RUV_ID_SIZE];
	int rc = ruv_id_check(id, edge_id, err);

	if (!rc && filter)
		rc = ruv_filter_check(&checked, filter, err);
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		return rc;
	if (filter)
		rc = check_ends(m, id, &checked, err);
	if (!rc)
		rc = m->store->ops->edge_erase(m->store, id, err);
	if (rc)
		m->store->ops->rollback(m->store);
	else
		rc = ruv_memory_commit(m, err);
	return rc;
}

int ruv_memory_unlink(ruv_memory *m, const char *edge_id, ruv_error *err)
{
	return ruv_memory_unlink_seen(m, edge_id, NULL, err);
}

/* ---- neighbourhoods ---- */

/* Which ids have been reached: open addressing over their last 8 bytes, which are random. */
typedef struct reached {
	char (*ids)[RUV_ID_SIZE];
	int *buckets; /* number + 1 */
	int n, n_buckets;
} reached;

static int *reached_slot(reached *r, const char *id)
{
	uint32_t h = 2166136261u;

	for (const char *p = id + 19; *p; p++)
		h = (h ^ (unsigned char)*p) * 16777619u;
	for (h &= (uint32_t)r->n_buckets - 1; r->buckets[h]; h = (h + 1) & ((uint32_t)r->n_buckets - 1))
		if (!memcmp(r->ids[r->buckets[h] - 1], id, RUV_ID_SIZE))
			break;
	return &r->buckets[h];
}

static int collect(ruv_memory *m, ruv_memory_graph *out, ruv_arena *arena, const char *id, int n_hops, int max_nodes,
                   const ruv_memory_filter *filter, ruv_error *err)
{
	reached refused = {0}, in = {0};
	int n_all_edges = 0, cap_edges = 0, rc, n_buckets = 64;

	while (n_buckets < max_nodes * 4)
		n_buckets *= 2;
	in.n_buckets = n_buckets;
	in.ids = ruv_arena_calloc(arena, (size_t)max_nodes, sizeof *in.ids);
	in.buckets = ruv_arena_calloc(arena, (size_t)n_buckets, sizeof *in.buckets);
	/* Nodes that the filter holds back are remembered, too, up to as many: others are simply looked up again. */
	refused.n_buckets = n_buckets;
	refused.ids = ruv_arena_calloc(arena, (size_t)max_nodes, sizeof *refused.ids);
	refused.buckets = ruv_arena_calloc(arena, (size_t)n_buckets, sizeof *refused.buckets);
	out->nodes.items = ruv_arena_calloc(arena, (size_t)max_nodes, sizeof *out->nodes.items);
	out->hops = ruv_arena_calloc(arena, (size_t)max_nodes, sizeof *out->hops);
	if (!in.ids || !in.buckets || !refused.ids || !refused.buckets || !out->nodes.items || !out->hops)
		return ruv_fail_memory(err, "memory", (size_t)max_nodes * (sizeof *out->nodes.items + 2 * sizeof *in.ids));
	rc = m->store->ops->node_get(m->store, arena, &out->nodes.items[0], id, err);
	if (!rc && !ruv_filter_pass(filter, &out->nodes.items[0]))
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no node %s in this scope", id);
	if (rc)
		return rc;
	memcpy(in.ids[0], out->nodes.items[0].id, RUV_ID_SIZE);
	*reached_slot(&in, in.ids[0]) = 1;
	out->nodes.n = in.n = 1;

	for (int i = 0; i < out->nodes.n; i++) {
		ruv_memory_edge *edges = NULL;
		int n_edges = 0;
		rc = m->store->ops->edges_of(m->store, arena, &edges, &n_edges, out->nodes.items[i].id, MAX_EDGES_OF_A_NODE, err);
		if (rc == RUV_ENOTFOUND)
			continue; /* forgotten meanwhile */
		if (rc)
			return rc;
		for (int e = 0; e < n_edges; e++) {
			const char *other = strcmp(edges[e].src, out->nodes.items[i].id) ? edges[e].src : edges[e].dst;
			int *slot = reached_slot(&in, other), *no = reached_slot(&refused, other);
			int at = *slot - 1;
			if (at < 0 && !*no && out->hops[i] < n_hops && in.n < max_nodes) {
				ruv_memory_node *node = &out->nodes.items[in.n];
				rc = m->store->ops->node_get(m->store, arena, node, other, err);
				if (rc && rc != RUV_ENOTFOUND)
					return rc;
				if (!rc && ruv_filter_pass(filter, node)) {
					memcpy(in.ids[in.n], other, RUV_ID_SIZE);
					out->hops[in.n] = out->hops[i] + 1;
					at = in.n++;
					*slot = in.n;
					out->nodes.n = in.n;
				} else if (refused.n < max_nodes) {
					memcpy(refused.ids[refused.n], other, RUV_ID_SIZE);
					*no = ++refused.n;
				}
			}
			/* Each edge once: from the end that is expanded later. */
			if (at < 0 || at > i)
				continue;
			if (n_all_edges == cap_edges) {
				int cap = cap_edges ? cap_edges * 2 : 64;
				ruv_memory_edge *grown = ruv_arena_calloc(arena, (size_t)cap, sizeof *grown);
				if (!grown)
					return ruv_fail_memory(err, "memory", (size_t)cap * sizeof *grown);
				if (n_all_edges)
					memcpy(grown, out->edges, (size_t)n_all_edges * sizeof *grown);
				out->edges = grown;
				cap_edges = cap;
			}
			out->edges[n_all_edges++] = edges[e];
			out->n_edges = n_all_edges;
		}
	}
	return RUV_OK;
}

int ruv_memory_neighbours(ruv_memory *m, ruv_memory_graph *out, const char *id, int n_hops, int max_nodes,
                          const ruv_memory_filter *filter, ruv_error *err)
{
	char canonical[RUV_ID_SIZE];
	ruv_memory_filter checked;
	ruv_arena *arena;
	int rc;

	memset(out, 0, sizeof *out);
	rc = ruv_id_check(canonical, id, err);
	if (!rc)
		rc = ruv_filter_check(&checked, filter, err);
	if (!rc && (n_hops < 1 || n_hops > 8))
		rc = ruv_fail(err, RUV_EINVAL, "memory", "%d hops, 1 to 8 are possible", n_hops);
	if (!rc && (max_nodes < 1 || max_nodes > MAX_NEIGHBOURHOOD))
		rc = ruv_fail(err, RUV_EINVAL, "memory", "a neighbourhood of %d nodes, 1 to %d are possible", max_nodes,
		              MAX_NEIGHBOURHOOD);
	if (rc)
		return rc;
	arena = ruv_memory_arena(err);
	if (!arena)
		return RUV_ENOMEM;
	rc = collect(m, out, arena, canonical, n_hops, max_nodes, &checked, err);
	out->nodes.owner = arena;
	if (rc)
		ruv_memory_graph_release(out);
	return rc;
}

void ruv_memory_graph_release(ruv_memory_graph *graph)
{
	ruv_memory_arena_free(graph->nodes.owner);
	memset(graph, 0, sizeof *graph);
}

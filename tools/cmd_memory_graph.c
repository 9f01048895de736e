/* cmd_memory_graph.c - ruvllm memory: graph, a picture of what lies around an entry, and index, the vector index's own action.
 *
 * The picture is a radial tree: the entry in the middle, what is one edge away on the first ring, and so on; every node sits within
 * the angle of the node through which it was reached, which gets as much as it has leaves below it. */
#include "cmd_memory.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/status.h"
#include "runtime/runtime.h"

enum { MAX_HOPS = 8, LABEL = 28, RING = 150, MARGIN = 190, LEGEND = 60 };

static const char *const node_colours[RUV_N_NODE_TYPES] = {"#b45309", "#1d4ed8", "#6d28d9", "#047857", "#0e7490", "#be123c"};
static const char *const edge_colours[RUV_N_EDGE_TYPES] = {"#1d4ed8", "#6b7280", "#d97706", "#6d28d9", "#047857", "#0e7490"};

/* ---- text ------------------------------------------------------------------------------------------------------------- */

/* The beginning of a node's title or text on one line, cut at a character. */
static void label_of(ruv_buf *to, const ruv_memory_node *node, size_t most)
{
	const char *text = node->title && *node->title ? node->title : node->text;
	size_t n = 0;
	bool space = true;

	ruv_buf_clear(to);
	for (const char *p = text; *p; p++) {
		bool blank = isspace((unsigned char)*p);
		if (((unsigned char)*p & 0xc0) != 0x80 && !blank && ++n > most) {
			ruv_buf_puts(to, "…");
			return;
		}
		if (blank && space)
			continue;
		ruv_buf_putc(to, blank ? ' ' : *p);
		n += blank;
		space = blank;
	}
}

static void put_xml(ruv_buf *to, const char *text)
{
	for (const char *p = text; *p; p++) {
		switch (*p) {
		case '&':
			ruv_buf_puts(to, "&amp;");
			break;
		case '<':
			ruv_buf_puts(to, "&lt;");
			break;
		case '>':
			ruv_buf_puts(to, "&gt;");
			break;
		case '"':
			ruv_buf_puts(to, "&quot;");
			break;
		default: /* control characters are not allowed in XML */
			ruv_buf_putc(to, (unsigned char)*p < 0x20 && *p != '\n' && *p != '\t' ? ' ' : *p);
		}
	}
}

static void put_dot(ruv_buf *to, const char *text)
{
	ruv_buf_putc(to, '"');
	for (const char *p = text; *p; p++) {
		if (*p == '"' || *p == '\\')
			ruv_buf_putc(to, '\\');
		ruv_buf_putc(to, (unsigned char)*p < 0x20 ? ' ' : *p);
	}
	ruv_buf_putc(to, '"');
}

static int number_of(const ruv_memory_graph *g, const char *id)
{
	for (int i = 0; i < g->nodes.n; i++)
		if (!strcmp(g->nodes.items[i].id, id))
			return i;
	return -1;
}

/* ---- DOT -------------------------------------------------------------------------------------------------------------- */

static void write_dot(ruv_buf *out, const ruv_memory_graph *g)
{
	ruv_buf label;

	ruv_buf_init(&label, 4096);
	ruv_buf_puts(out, "digraph memory {\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n"
	                  "  edge [fontname=\"sans-serif\", fontsize=9];\n");
	for (int i = 0; i < g->nodes.n; i++) {
		label_of(&label, &g->nodes.items[i], 60);
		ruv_buf_printf(out, "  \"%s\" [label=", g->nodes.items[i].id);
		put_dot(out, ruv_buf_cstr(&label));
		ruv_buf_printf(out, ", color=\"%s\"%s];\n", node_colours[g->nodes.items[i].type], i ? "" : ", penwidth=2");
	}
	for (int i = 0; i < g->n_edges; i++)
		ruv_buf_printf(out, "  \"%s\" -> \"%s\" [label=\"%s\", color=\"%s\", penwidth=%.1f];\n", g->edges[i].src,
		               g->edges[i].dst, ruv_edge_type_name(g->edges[i].type), edge_colours[g->edges[i].type],
		               1 + 1.5 * fmin(1, fabs((double)g->edges[i].weight)));
	ruv_buf_puts(out, "}\n");
	ruv_buf_release(&label);
}

/* ---- SVG -------------------------------------------------------------------------------------------------------------- */

typedef struct place {
	int parent; /* -1: the middle */
	int leaves; /* at or below it */
	double from, to, x, y;
} place;

/* Nodes come nearest first, so that a parent stands before its children. */
static void lay_out(place *p, const ruv_memory_graph *g)
{
	for (int i = 0; i < g->nodes.n; i++)
		p[i] = (place){.parent = -1};
	for (int e = 0; e < g->n_edges; e++) { /* the strongest edge to the ring within comes first */
		int a = number_of(g, g->edges[e].src), b = number_of(g, g->edges[e].dst);
		if (a < 0 || b < 0)
			continue;
		if (g->hops[a] == g->hops[b] + 1 && p[a].parent < 0)
			p[a].parent = b;
		else if (g->hops[b] == g->hops[a] + 1 && p[b].parent < 0)
			p[b].parent = a;
	}
	for (int i = g->nodes.n - 1; i >= 0; i--) {
		p[i].leaves = p[i].leaves ? p[i].leaves : 1;
		if (i && p[i].parent < 0)
			p[i].parent = 0;
		if (i)
			p[p[i].parent].leaves += p[i].leaves;
	}
	for (int i = 0; i < g->nodes.n; i++) { /* what is left of a node's angle begins at `from` */
		if (!i) {
			p[i].from = -1.5707963;
			p[i].to = p[i].from + 6.2831853;
		} else {
			place *parent = &p[p[i].parent];
			double width = (parent->to - parent->from) * p[i].leaves / (parent->leaves > 0 ? parent->leaves : 1);
			p[i].from = parent->from;
			p[i].to = p[i].from + width;
			parent->from = p[i].to; /* the rest is for its other children */
			parent->leaves -= p[i].leaves;
		}
		p[i].x = g->hops[i] * RING * cos((p[i].from + p[i].to) / 2);
		p[i].y = g->hops[i] * RING * sin((p[i].from + p[i].to) / 2);
		if (i)
			continue;
		p[i].x = p[i].y = 0;
	}
}

static void write_legend(ruv_buf *out, const ruv_memory_graph *g, double left, double top)
{
	bool nodes[RUV_N_NODE_TYPES] = {false}, edges[RUV_N_EDGE_TYPES] = {false};
	double y = top;

	for (int i = 0; i < g->nodes.n; i++)
		nodes[g->nodes.items[i].type] = true;
	for (int i = 0; i < g->n_edges; i++)
		edges[g->edges[i].type] = true;
	for (int i = 0; i < RUV_N_NODE_TYPES; i++)
		if (nodes[i]) {
			ruv_buf_printf(out,
			               "<circle cx=\"%.0f\" cy=\"%.0f\" r=\"5\" fill=\"%s\"/><text x=\"%.0f\" y=\"%.0f\" "
			               "class=\"k\">%s</text>\n",
			               left + 8, y, node_colours[i], left + 20, y + 4, ruv_node_type_name(i));
			y += 18;
		}
	for (int i = 0; i < RUV_N_EDGE_TYPES; i++)
		if (edges[i]) {
			ruv_buf_printf(out,
			               "<line x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\" stroke=\"%s\" stroke-width=\"2\"/>"
			               "<text x=\"%.0f\" y=\"%.0f\" class=\"k\">%s</text>\n",
			               left, y, left + 16, y, edge_colours[i], left + 20, y + 4, ruv_edge_type_name(i));
			y += 18;
		}
}

static int write_svg(ruv_buf *out, const ruv_memory_graph *g, ruv_error *err)
{
	place *p = calloc((size_t)g->nodes.n, sizeof *p);
	ruv_buf label;
	double left = -MARGIN, right = MARGIN, top = -120, bottom = 120; /* room for the legend */

	if (!p)
		return ruv_fail_memory(err, "memory", (size_t)g->nodes.n * sizeof *p);
	ruv_buf_init(&label, 4096);
	lay_out(p, g);
	for (int i = 0; i < g->nodes.n; i++) { /* labels stand beside their nodes */
		left = fmin(left, p[i].x - MARGIN);
		right = fmax(right, p[i].x + MARGIN);
		top = fmin(top, p[i].y - 30);
		bottom = fmax(bottom, p[i].y + 40);
	}
	left -= LEGEND;
	ruv_buf_printf(out,
	               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"%.0f %.0f %.0f %.0f\" width=\"%.0f\" height=\"%.0f\">\n"
	               "<style>text{font:11px sans-serif;fill:#111827}.k{font-size:10px;fill:#4b5563}"
	               ".n{paint-order:stroke;stroke:#fff;stroke-width:3px}</style>\n<rect x=\"%.0f\" y=\"%.0f\" width=\"100%%\" "
	               "height=\"100%%\" fill=\"#fff\"/>\n<defs>",
	               left, top, right - left, bottom - top, right - left, bottom - top, left, top);
	for (int i = 0; i < RUV_N_EDGE_TYPES; i++)
		ruv_buf_printf(out,
		               "<marker id=\"a%d\" viewBox=\"0 0 8 8\" refX=\"17\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" "
		               "markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"%s\"/></marker>",
		               i, edge_colours[i]);
	ruv_buf_puts(out, "</defs>\n");
	for (int i = 0; i < g->n_edges; i++) {
		const ruv_memory_edge *e = &g->edges[i];
		int a = number_of(g, e->src), b = number_of(g, e->dst);
		if (a < 0 || b < 0)
			continue;
		ruv_buf_printf(out,
		               "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%.1f\" "
		               "stroke-opacity=\"%.2f\" marker-end=\"url(#a%d)\"><title>%s, weight %.3g, by ",
		               p[a].x, p[a].y, p[b].x, p[b].y, edge_colours[e->type], 1 + 1.5 * fmin(1, fabs((double)e->weight)),
		               0.35 + 0.6 * (double)e->confidence, (int)e->type, ruv_edge_type_name(e->type), (double)e->weight);
		put_xml(out, e->created_by ? e->created_by : "");
		ruv_buf_puts(out, "</title></line>\n");
	}
	for (int i = 0; i < g->nodes.n; i++) {
		const ruv_memory_node *node = &g->nodes.items[i];
		bool to_left = p[i].x < -1;
		label_of(&label, node, LABEL);
		ruv_buf_printf(out, "<g><title>%s %s\n", ruv_node_type_name(node->type), node->id);
		put_xml(out, node->text);
		ruv_buf_printf(
		    out,
		    "</title><circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\" fill-opacity=\"%.2f\" stroke=\"#fff\"/>"
		    "<text class=\"n\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
		    p[i].x, p[i].y, i ? 7 : 11, node_colours[node->type], 0.4 + 0.6 * (double)node->confidence,
		    i ? p[i].x + (to_left ? -11 : 11) : 0, i ? p[i].y + 4 : 26,
		    !i        ? "middle"
		    : to_left ? "end"
			      : "start");
		put_xml(out, ruv_buf_cstr(&label));
		ruv_buf_puts(out, "</text></g>\n");
	}
	write_legend(out, g, left + 12, top + 18);
	ruv_buf_puts(out, "</svg>\n");
	ruv_buf_release(&label);
	free(p);
	return RUV_OK;
}

/* ---- the actions ------------------------------------------------------------------------------------------------------- */

static void write_text(ruv_buf *out, const ruv_memory_graph *g)
{
	ruv_buf label;

	ruv_buf_init(&label, 4096);
	for (int i = 0; i < g->nodes.n; i++) {
		label_of(&label, &g->nodes.items[i], 80);
		ruv_buf_printf(out, "%*s%s  %s  %s\n", 2 * g->hops[i], "", g->nodes.items[i].id + 24,
		               ruv_node_type_name(g->nodes.items[i].type), ruv_buf_cstr(&label));
	}
	for (int i = 0; i < g->n_edges; i++)
		ruv_buf_printf(out, "%s -%s-> %s  weight %.3g\n", g->edges[i].src + 24, ruv_edge_type_name(g->edges[i].type),
		               g->edges[i].dst + 24, (double)g->edges[i].weight);
	ruv_buf_release(&label);
}

int memory_graph(int argc, char **argv)
{
	static bool svg, dot;
	static int hops = 2, limit = 60;
	static const char *to;
	static const cli_option options[] = {
	    {"svg", 0, CLI_FLAG, &svg, NULL, "as a picture"},
	    {"dot", 0, CLI_FLAG, &dot, NULL, "as a graph for Graphviz"},
	    {"hops", 0, CLI_INT, &hops, "N", "edges away at most, 1 to 8 (default 2)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "entries at most, nearest first (default 60)"},
	    {"output", 'o', CLI_STRING, &to, "FILE", "to a file in place of standard output"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory graph",
	    .usage = "[OPTIONS] ID | weave | status | learn | rollback | train ...",
	    .summary = "Shows what lies around an entry: the entries within some edges, either way, and the edges between them.",
	    .notes = "`memory graph weave` draws the edges that entries imply; `memory graph status`, `learn`, `rollback` and "
		     "`train` are\n"
		     "about graph attention, which orders what is found by them (docs/graph-attention.md); each has its --help.",
	    .options = options,
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_filter filter = {0};
	ruv_memory_graph graph = {0};
	memory_action a;
	ruv_buf out;
	char id[RUV_ID_SIZE];
	int rc;

	for (const cli_part *part = memory_graph_parts; argc > 1 && part->name; part++)
		if (!strcmp(argv[1], part->name)) /* no id is such a word */
			return part->run(argc - 1, argv + 1);
	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (svg && dot)
		return cli_usage("--svg or --dot, not both");
	if (hops < 1 || hops > MAX_HOPS || limit < 1)
		return cli_usage("--hops is 1 to %d, --limit at least 1", MAX_HOPS);
	if (!memory_open(&a, false))
		return a.code;
	ruv_buf_init(&out, (size_t)1 << 28);
	filter.scope = ruv_runtime_scope(a.runtime);
	filter.every_scope = !(filter.scope.user && *filter.scope.user) && !(filter.scope.agent && *filter.scope.agent) &&
	                     !(filter.scope.session && *filter.scope.session);
	rc = memory_resolve(&a, id, a.args.items[0], &a.err);
	if (!rc)
		rc = ruv_memory_neighbours(a.memory, &graph, id, hops, limit, &filter, &a.err);
	if (!rc && svg)
		rc = write_svg(&out, &graph, &a.err);
	else if (!rc && dot)
		write_dot(&out, &graph);
	else if (!rc && !cli.json)
		write_text(&out, &graph);
	if (!rc && cli.json && !svg && !dot) {
		json_t *nodes = json_array(), *edges = json_array();
		char *text;
		for (int i = 0; i < graph.nodes.n; i++)
			json_array_append_new(nodes, json_pack("{s:s, s:s, s:i, s:o}", "id", graph.nodes.items[i].id, "type",
			                                       ruv_node_type_name(graph.nodes.items[i].type), "hops", graph.hops[i],
			                                       "text", cli_json_text(graph.nodes.items[i].text)));
		for (int i = 0; i < graph.n_edges; i++)
			json_array_append_new(edges, json_pack("{s:s, s:s, s:s, s:s, s:f}", "id", graph.edges[i].id, "src",
			                                       graph.edges[i].src, "dst", graph.edges[i].dst, "type",
			                                       ruv_edge_type_name(graph.edges[i].type), "weight",
			                                       (double)graph.edges[i].weight));
		nodes = json_pack("{s:o, s:o}", "nodes", nodes, "edges", edges);
		text = json_dumps(nodes, JSON_INDENT(2));
		ruv_buf_puts(&out, text ? text : "");
		ruv_buf_putc(&out, '\n');
		free(text);
		json_decref(nodes);
	}
	if (!rc && out.failed)
		rc = ruv_fail(&a.err, out.failed, "memory", "the picture is too large");
	if (!rc && to)
		rc = ruv_file_write(to, out.data, out.len, &a.err);
	else if (!rc && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout)))
		rc = ruv_fail(&a.err, RUV_EIO, "memory", "cannot write to standard output");
	ruv_buf_release(&out);
	ruv_memory_graph_release(&graph);
	return memory_end(&a, rc);
}

static bool on_progress(void *user, int64_t done, int64_t all)
{
	cli_progress *progress = user;

	(void)all;
	cli_progress_update(progress, (uint64_t)done, NULL);
	return !ruv_cancel_is_set(&cli_cancel);
}

int memory_index(int argc, char **argv)
{
	static bool rebuild;
	static int threads;
	static const cli_option options[] = {
	    {"rebuild", 0, CLI_FLAG, &rebuild, NULL, "from nothing"},
	    {"index-threads", 0, CLI_INT, &threads, "N", "threads that build (default: all cores)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory index",
	    .usage = "[OPTIONS]",
	    .summary =
		"Brings the vector index up to date and writes it beside the store, which happens by itself behind long runs. "
		"Small memories have none: every vector is compared.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_stats stats;
	cli_progress progress;
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	rc = ruv_memory_get_stats(a.memory, &stats, &a.err);
	cli_progress_begin(&progress, "indexing", "vectors", rc ? 0 : (uint64_t)stats.n_vectors);
	if (!rc)
		rc = ruv_memory_index(a.memory, threads, rebuild, on_progress, &progress, &a.err);
	cli_progress_end(&progress, false);
	if (!rc)
		rc = ruv_memory_get_stats(a.memory, &stats, &a.err);
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:I, s:I, s:b}", "vectors", (json_int_t)stats.n_vectors, "in_graph",
		                                  (json_int_t)stats.index_n_graph, "by_graph", stats.index_by_graph));
	else if (!rc && stats.index_n_graph)
		a.code =
		    printf("%lld of %lld vectors in the graph\n", (long long)stats.index_n_graph, (long long)stats.n_vectors) < 0;
	else if (!rc)
		a.code = printf("%lld vectors: too few for a graph, every one is compared\n", (long long)stats.n_vectors) < 0;
	return memory_end(&a, rc);
}

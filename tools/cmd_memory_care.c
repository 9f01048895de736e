/* cmd_memory_care.c - ruvllm memory: export, import, backup, verify, compact, reembed, sources, history, stats. */
#include "cmd_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "runtime/runtime.h"

/* Belongs to a user that no other is: only who is the owner of all sees it. */
static const ruv_memory_scope nobody = {.user = "\x01", .agent = "\x01", .session = "\x01"};

/* ---- export and import ------------------------------------------------------------------------------------------------- */

int memory_export(int argc, char **argv)
{
	static bool without;
	static const cli_option options[] = {
	    {"without-vectors", 0, CLI_FLAG, &without, NULL, "texts and labels only"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory export",
	    .usage = "[OPTIONS] [FILE]",
	    .summary = "Writes the whole memory, everybody's, as JSON lines: to FILE, which appears complete or not at all, or to "
		       "standard output. "
		       "Import gives the same memory back.",
	    .options = options,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_transfer done = {0};
	ruv_outfile out = {0};
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	if (a.args.n && strcmp(a.args.items[0], "-")) {
		rc = ruv_outfile_open(&out, a.args.items[0], &a.err);
		if (!rc)
			rc = ruv_memory_export(a.memory, out.stream, without, &done, &a.err);
		if (!rc)
			rc = ruv_outfile_commit(&out, &a.err);
	} else {
		rc = ruv_memory_export(a.memory, stdout, without, &done, &a.err);
		if (!rc && fflush(stdout))
			rc = ruv_fail_errno(&a.err, RUV_EIO, errno, "memory", "cannot write the export");
	}
	ruv_outfile_release(&out);
	if (!rc)
		cli_note("%lld entries, %lld edges, %lld sources written", (long long)done.n_nodes, (long long)done.n_edges,
		         (long long)done.n_sources);
	return memory_end(&a, rc);
}

int memory_import(int argc, char **argv)
{
	static bool without;
	static const cli_option options[] = {
	    {"without-vectors", 0, CLI_FLAG, &without, NULL, "leave the vectors out; `memory reembed` computes them"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory import",
	    .usage = "[OPTIONS] FILE|-",
	    .summary = "Reads an export into memory. What is there already, by its id, stays as it is, so that an interrupted "
		       "import can be repeated.",
	    .options = options,
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_options create = {.create = true};
	ruv_memory_transfer done = {0};
	ruv_runtime *runtime;
	ruv_memory *memory = NULL;
	cli_args args;
	ruv_error err = {0};
	FILE *in = NULL;
	bool is_stdin;
	int code, rc = RUV_OK;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	is_stdin = !strcmp(args.items[0], "-");
	in = is_stdin ? stdin : fopen(args.items[0], "r");
	if (!in)
		rc = ruv_fail_errno(&err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, "memory", "cannot open '%s'",
		                    args.items[0]);
	/* Without the encoder: a new memory takes on the export's. */
	if (!rc)
		rc = ruv_memory_open(&memory, ruv_runtime_data_dir(runtime), &create, &err);
	if (!rc)
		rc = ruv_memory_import(memory, in, is_stdin ? "standard input" : args.items[0], without, &done, &err);
	if (rc)
		code = cli_runtime_fail(&err);
	else if (cli.json)
		code = cli_json_print(json_pack("{s:I, s:I, s:I, s:I}", "nodes", (json_int_t)done.n_nodes, "edges",
		                                (json_int_t)done.n_edges, "sources", (json_int_t)done.n_sources, "skipped",
		                                (json_int_t)done.n_skipped));
	else
		code = printf("%lld entries, %lld edges, %lld sources read; %lld were there already\n", (long long)done.n_nodes,
		              (long long)done.n_edges, (long long)done.n_sources, (long long)done.n_skipped) < 0;
	if (in && !is_stdin)
		fclose(in);
	ruv_memory_free(memory);
	ruv_runtime_free(runtime);
	return code;
}

int memory_backup(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "memory backup",
	    .usage = "FILE",
	    .summary =
		"Copies the store as one file while it is in use. To restore it, put it as memory.db into an empty data directory.",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	rc = ruv_memory_backup(a.memory, a.args.items[0], &a.err);
	if (!rc)
		cli_note("backed up to %s", a.args.items[0]);
	return memory_end(&a, rc);
}

/* ---- verify, compact --------------------------------------------------------------------------------------------------- */

typedef struct problems {
	json_t *list;
	int n;
} problems;

static bool on_problem(void *user, const char *text)
{
	problems *p = user;

	p->n++;
	if (cli.json)
		json_array_append_new(p->list, cli_json_text(text));
	else
		printf("%s%s%s\n", cli_sgr(stdout, CLI_RED), text, cli_sgr(stdout, CLI_PLAIN));
	return p->n < 1000;
}

int memory_verify(int argc, char **argv)
{
	static bool repair;
	static const cli_option options[] = {
	    {"repair", 0, CLI_FLAG, &repair, NULL,
	     "make anew what can be made from the store, drop edges and vectors that are damaged"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory verify",
	    .usage = "[OPTIONS]",
	    .summary =
		"Checks every page, text, vector, edge, the word index and the vector index. Ends with 1 when damage is left.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_report report;
	problems found = {0};
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	found.list = json_array();
	rc = ruv_memory_check(a.memory, &report, repair, on_problem, &found, &a.err);
	if (!rc) {
		bool left = report.n_problems > report.n_repaired;
		if (cli.json)
			cli_json_print(json_pack("{s:I, s:I, s:I, s:i, s:i, s:O}", "nodes", (json_int_t)report.n_nodes, "vectors",
			                         (json_int_t)report.n_vectors, "edges", (json_int_t)report.n_edges, "problems",
			                         report.n_problems, "repaired", report.n_repaired, "details", found.list));
		else
			printf("%lld texts, %lld vectors, %lld edges checked: %d problems%s", (long long)report.n_nodes,
			       (long long)report.n_vectors, (long long)report.n_edges, report.n_problems,
			       report.n_repaired ? "" : "\n");
		if (!cli.json && report.n_repaired)
			printf(", %d repaired\n", report.n_repaired);
		if (left && !repair)
			cli_note("ruvllm memory verify --repair mends what it can");
		a.code = left ? CLI_EXIT_FAILED : CLI_EXIT_OK;
	}
	json_decref(found.list);
	return memory_end(&a, rc);
}

int memory_compact(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "memory compact",
	    .usage = "",
	    .summary =
		"Gives the space of what was forgotten back to the file system and merges the word index. Writers wait meanwhile.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_stats before, after;
	memory_action a;
	char from[32], to[32];
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	rc = ruv_memory_get_stats(a.memory, &before, &a.err);
	if (!rc)
		rc = ruv_memory_compact(a.memory, &a.err);
	if (!rc)
		rc = ruv_memory_get_stats(a.memory, &after, &a.err);
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:I, s:I}", "bytes_before", (json_int_t)before.database_bytes, "bytes_after",
		                                  (json_int_t)after.database_bytes));
	else if (!rc)
		a.code = printf("%s -> %s\n", cli_human_bytes(from, sizeof from, (uint64_t)before.database_bytes),
		                cli_human_bytes(to, sizeof to, (uint64_t)after.database_bytes)) < 0;
	return memory_end(&a, rc);
}

/* ---- reembed ----------------------------------------------------------------------------------------------------------- */

int memory_reembed(int argc, char **argv)
{
	static bool all;
	static const cli_option options[] = {
	    {"all", 0, CLI_FLAG, &all, NULL, "drop every vector first: for another encoder than the one that filled the memory"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory reembed",
	    .usage = "[OPTIONS]",
	    .summary = "Computes the vectors of entries that have none, with the configured encoder. Interrupted, it goes on where "
		       "it stopped.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_filter every = {.every_scope = true};
	cli_progress progress = {0};
	ruv_memory_stats stats;
	memory_action a;
	uint64_t n_done = 0;
	int rc = RUV_OK;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, !all))
		return a.code;
	cli_interrupt_catch();
	if (all) {
		/* Opened without the encoder, because the memory is another one's; named as the runtime will name it. */
		ruv_embedder *embedder = NULL;
		ruv_model_info info;
		rc = ruv_runtime_embedder(a.runtime, &embedder, &a.err);
		if (!rc) {
			ruv_model_get_info(a.runtime->encoder, &info);
			rc = ruv_memory_change_embedder(a.memory, info.name, a.runtime->encoder_version, ruv_embedder_dim(embedder),
			                                &a.err);
		}
	}
	if (!rc)
		rc = ruv_memory_get_stats(a.memory, &stats, &a.err);
	cli_progress_begin(&progress, "embedding", "texts", rc ? 0 : (uint64_t)stats.n_without_vector);
	while (!rc) {
		ruv_memory_nodes nodes;
		rc = ruv_memory_list(a.memory, &nodes, &every, true, 0, 64, &a.err);
		if (rc || !nodes.n) {
			if (!rc)
				ruv_memory_nodes_release(&nodes);
			break;
		}
		for (int i = 0; !rc && i < nodes.n; i++) {
			float *vector = NULL;
			rc = memory_embed(&a, &vector, nodes.items[i].title, nodes.items[i].text, &a.err);
			nodes.items[i].vector = vector;
			if (!rc)
				rc = ruv_memory_update(a.memory, &nodes.items[i], &a.err);
			free(vector);
			cli_progress_update(&progress, ++n_done, NULL);
			if (!rc && cli_interrupted)
				rc = ruv_fail(&a.err, RUV_ECANCELLED, "memory", "stopped; what is done is kept");
		}
		ruv_memory_nodes_release(&nodes);
	}
	cli_progress_end(&progress, false);
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:I}", "embedded", (json_int_t)n_done));
	else if (!rc)
		a.code = printf("%llu texts embedded\n", (unsigned long long)n_done) < 0;
	return memory_end(&a, rc);
}

/* ---- looking ----------------------------------------------------------------------------------------------------------- */

int memory_sources(int argc, char **argv)
{
	static bool all_scopes;
	static const cli_option options[] = {
	    {"all-scopes", 0, CLI_FLAG, &all_scopes, NULL, "everybody's"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory sources",
	    .usage = "[OPTIONS]",
	    .summary = "Lists the files and pages that were remembered.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_filter filter = {0};
	ruv_memory_sources sources = {0};
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	filter.scope = ruv_runtime_scope(a.runtime);
	filter.every_scope = all_scopes;
	rc = ruv_memory_source_list(a.memory, &sources, &filter, &a.err);
	if (!rc && cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < sources.n; i++)
			json_array_append_new(list, json_pack("{s:o, s:s, s:i, s:I, s:I, s:o}", "name",
			                                      cli_json_text(sources.items[i].name), "hash", sources.items[i].hash,
			                                      "passages", sources.items[i].n_nodes, "bytes",
			                                      (json_int_t)sources.items[i].size_bytes, "remembered_ms",
			                                      (json_int_t)sources.items[i].remembered_ms, "user",
			                                      cli_json_text(sources.items[i].scope.user)));
		a.code = cli_json_print(list);
	} else if (!rc) {
		cli_table *table = cli_table_create("source|>passages|>size|remembered");
		for (int i = 0; table && i < sources.n; i++) {
			char path[4400], size[32], when[32];
			cli_table_cell(table, "%s", cli_short_path(sources.items[i].name, path, sizeof path));
			cli_table_cell(table, "%d", sources.items[i].n_nodes);
			cli_table_cell(table, "%s", cli_human_bytes(size, sizeof size, (uint64_t)sources.items[i].size_bytes));
			cli_table_cell(table, "%s", memory_time(when, sizeof when, sources.items[i].remembered_ms));
		}
		if (table)
			cli_table_print(table, stdout);
	}
	ruv_memory_sources_release(&sources);
	return memory_end(&a, rc);
}

/* Leaves of the log what is about entries that the configured scope sees, and what is about none. */
static void keep_seen(memory_action *a, ruv_memory_events *events)
{
	int kept = 0;

	if (memory_sees(a, &nobody))
		return;
	for (int i = 0; i < events->n; i++) {
		ruv_memory_nodes nodes = {0};
		ruv_error err;
		bool seen = !events->items[i].id[0];
		if (!seen && !ruv_memory_get(a->memory, &nodes, events->items[i].id, &err))
			seen = memory_sees(a, &nodes.items[0].scope);
		ruv_memory_nodes_release(&nodes);
		if (seen)
			events->items[kept++] = events->items[i];
	}
	events->n = kept;
}

int memory_history(int argc, char **argv)
{
	static int limit = 50;
	static const cli_option options[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "at most so many (default 50)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory history",
	    .usage = "[OPTIONS] [ID]",
	    .summary = "Shows the log, newest first: of one entry (with --json also what it said before each change), or of all.",
	    .options = options,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_events events = {0};
	memory_action a;
	char id[RUV_ID_SIZE];
	int rc = RUV_OK;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	if (a.args.n) {
		rc = memory_resolve(&a, id, a.args.items[0], &a.err);
		/* A whole id may be of something that was forgotten; whose it was, nobody knows any more, so that only the owner
		 * sees it. */
		if (rc == RUV_ENOTFOUND && strlen(a.args.items[0]) == 36 && memory_sees(&a, &nobody)) {
			memcpy(id, a.args.items[0], sizeof id);
			rc = RUV_OK;
		}
	}
	if (!rc)
		rc = ruv_memory_history(a.memory, &events, a.args.n ? id : NULL, limit, &a.err);
	if (!rc && !a.args.n)
		keep_seen(&a, &events);
	if (!rc && cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < events.n; i++) {
			json_t *detail = *events.items[i].detail ? json_loads(events.items[i].detail, 0, NULL) : NULL;
			json_array_append_new(list, json_pack("{s:I, s:I, s:s, s:s, s:o}", "seq", (json_int_t)events.items[i].seq,
			                                      "time_ms", (json_int_t)events.items[i].time_ms, "what",
			                                      events.items[i].what, "id", events.items[i].id, "detail",
			                                      detail ? detail : json_null()));
		}
		a.code = cli_json_print(list);
	} else if (!rc) {
		cli_table *table = cli_table_create(">seq|when|what|id");
		for (int i = 0; table && i < events.n; i++) {
			char when[32];
			cli_table_cell(table, "%lld", (long long)events.items[i].seq);
			cli_table_cell(table, "%s", memory_time(when, sizeof when, events.items[i].time_ms));
			cli_table_cell(table, "%s", events.items[i].what);
			cli_table_cell(table, "%s", events.items[i].id);
		}
		if (table)
			cli_table_print(table, stdout);
	}
	ruv_memory_events_release(&events);
	return memory_end(&a, rc);
}

int memory_stats(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "memory stats",
	    .usage = "",
	    .summary = "Counts what is in memory, everybody's, and what it takes on disk.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_stats s = {0};
	memory_action a;
	const char *id, *version;
	char bytes[32], text[32];
	int rc, dimension;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	rc = ruv_memory_warm(a.memory, &a.err); /* so that there is something to say of the index */
	if (rc == RUV_EMISMATCH)
		rc = RUV_OK;
	if (!rc)
		rc = ruv_memory_get_stats(a.memory, &s, &a.err);
	ruv_memory_embedder(a.memory, &id, &version, &dimension);
	if (!rc && cli.json) {
		json_t *types = json_object(), *edges = json_object();
		for (int i = 0; i < RUV_N_NODE_TYPES; i++)
			json_object_set_new(types, ruv_node_type_name(i), json_integer((json_int_t)s.n_by_type[i]));
		for (int i = 0; i < RUV_N_EDGE_TYPES; i++)
			json_object_set_new(edges, ruv_edge_type_name(i), json_integer((json_int_t)s.n_by_edge_type[i]));
		a.code = cli_json_print(json_pack(
		    "{s:I, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:i, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:i, s:i, "
		    "s:i, s:i}",
		    "nodes", (json_int_t)s.n_nodes, "by_type", types, "edges", (json_int_t)s.n_edges, "by_edge_type", edges,
		    "vectors", (json_int_t)s.n_vectors, "sources", (json_int_t)s.n_sources, "events", (json_int_t)s.n_events,
		    "text_bytes", (json_int_t)s.text_bytes, "database_bytes", (json_int_t)s.database_bytes, "encoder", id,
		    "encoder_version", version, "dimension", dimension, "store_id", s.store_id, "schema", s.schema_version, "index",
		    !s.index_loaded    ? "none"
		    : s.index_by_graph ? "graph"
				       : "flat",
		    "index_in_graph", (json_int_t)s.index_n_graph, "index_pending", (json_int_t)s.index_n_pending, "index_bytes",
		    (json_int_t)s.index_bytes, "index_mapped_bytes", (json_int_t)s.index_mapped_bytes, "index_m", s.index_m,
		    "index_ef_construction", s.index_ef_construction, "index_ef_search", s.index_ef_search, "index_bits",
		    s.index_bits));
	} else if (!rc) {
		printf("%lld entries (%s of text), %lld vectors, %lld edges, %lld sources, %lld events\n", (long long)s.n_nodes,
		       cli_human_bytes(text, sizeof text, (uint64_t)s.text_bytes), (long long)s.n_vectors, (long long)s.n_edges,
		       (long long)s.n_sources, (long long)s.n_events);
		for (int i = 0; i < RUV_N_NODE_TYPES; i++)
			if (s.n_by_type[i])
				printf("  %-10s %lld\n", ruv_node_type_name(i), (long long)s.n_by_type[i]);
		if (s.n_without_vector)
			printf("%lld entries have no vector; ruvllm memory reembed computes them\n", (long long)s.n_without_vector);
		printf("%s on disk in %s, schema %d\n", cli_human_bytes(bytes, sizeof bytes, (uint64_t)s.database_bytes),
		       ruv_runtime_data_dir(a.runtime), s.schema_version);
		if (s.index_by_graph)
			printf("vectors are searched by a graph (M %d, ef %d, %d bits): %lld in it, %lld compared beside it; %s in "
			       "memory, "
			       "%s mapped\n",
			       s.index_m, s.index_ef_search, s.index_bits, (long long)s.index_n_graph, (long long)s.index_n_pending,
			       cli_human_bytes(bytes, sizeof bytes, (uint64_t)s.index_bytes),
			       cli_human_bytes(text, sizeof text, (uint64_t)s.index_mapped_bytes));
		else if (s.index_loaded)
			printf("vectors are compared one by one; %s in memory\n",
			       cli_human_bytes(bytes, sizeof bytes, (uint64_t)s.index_bytes));
		if (*id)
			printf("filled by encoder %s (%s), %d numbers a vector\n", id, version, dimension);
	}
	return memory_end(&a, rc);
}

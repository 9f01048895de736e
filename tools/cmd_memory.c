/* cmd_memory.c - ruvllm memory: look into memory and change it, one action a word: add, search, list, show, edit, forget, link, ...
 *
 * Every action works in the scope that the configuration names (--user, --agent, --session); --all-scopes is the owner's view. */
#include "cmd_memory.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "runtime/context.h"
#include "runtime/runtime.h"

/* ---- shared ------------------------------------------------------------------------------------------------------------ */

bool memory_parse(memory_action *a, const cli_spec *spec, int argc, char **argv)
{
	memset(a, 0, sizeof *a);
	a->code = CLI_EXIT_OK;
	return cli_parse(spec, argc, argv, &a->args, &a->code);
}

int memory_end(memory_action *a, int rc)
{
	if (rc)
		a->code = cli_runtime_fail(&a->err);
	memory_close(a);
	return a->code;
}

bool memory_open(memory_action *a, bool with_encoder)
{
	ruv_error err = {0};
	int rc;

	a->memory = NULL;
	a->runtime = cli_runtime(&a->code);
	if (!a->runtime)
		return false;
	rc = with_encoder ? ruv_runtime_memory(a->runtime, &a->memory, &err)
	                  : ruv_runtime_memory_if_any(a->runtime, &a->memory, &err);
	if (!rc)
		return true;
	a->code = rc == RUV_ENOTFOUND && !with_encoder
	              ? cli_fail(&err, "nothing has been remembered there; ruvllm remember FILE|DIR makes one")
	              : cli_runtime_fail(&err);
	ruv_runtime_free(a->runtime);
	a->runtime = NULL;
	return false;
}

void memory_close(memory_action *a)
{
	ruv_runtime_free(a->runtime);
	a->runtime = NULL;
}

static bool has_scope(const ruv_memory_scope *scope)
{
	return (scope->user && *scope->user) || (scope->agent && *scope->agent) || (scope->session && *scope->session);
}

static bool sees(const char *reader, const char *owner)
{
	return !owner || !*owner || (reader && !strcmp(reader, owner));
}

bool memory_sees(memory_action *a, const ruv_memory_scope *owner)
{
	const ruv_memory_scope mine = ruv_runtime_scope(a->runtime);

	return !has_scope(&mine) ||
	       (sees(mine.user, owner->user) && sees(mine.agent, owner->agent) && sees(mine.session, owner->session));
}

int memory_resolve(memory_action *a, char id[RUV_ID_SIZE], const char *part, ruv_error *err)
{
	const ruv_memory_scope mine = ruv_runtime_scope(a->runtime);
	ruv_memory_nodes nodes = {0};
	int rc = ruv_memory_resolve(a->memory, id, part, err);

	if (rc || !has_scope(&mine))
		return rc;
	rc = ruv_memory_get(a->memory, &nodes, id, err);
	if (!rc && !memory_sees(a, &nodes.items[0].scope))
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no node's id begins or ends with '%s'", part);
	ruv_memory_nodes_release(&nodes);
	return rc;
}

const char *memory_time(char *text, size_t cap, int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;

	if (!ms || !localtime_r(&seconds, &tm) || !strftime(text, cap, "%Y-%m-%d %H:%M", &tm))
		snprintf(text, cap, "-");
	return text;
}

int memory_embed(memory_action *a, float **vector, const char *title, const char *text, ruv_error *err)
{
	const char *texts[1];
	ruv_embedder *embedder;
	ruv_buf buf;
	int rc = ruv_runtime_embedder(a->runtime, &embedder, err);

	*vector = NULL;
	if (rc)
		return rc;
	ruv_buf_init(&buf, (size_t)RUV_MEMORY_MAX_TEXT * 2);
	if (title && *title) { /* as remember does, the title stands before the text when both fit */
		ruv_context_squash(&buf, title);
		ruv_buf_putc(&buf, '\n');
		ruv_context_squash(&buf, text);
		if (ruv_embedder_count(embedder, ruv_buf_cstr(&buf), buf.len, RUV_EMBED_PASSAGE, err) >
		    ruv_embedder_n_ctx(embedder))
			ruv_buf_clear(&buf);
	}
	if (!buf.len)
		ruv_context_squash(&buf, text);
	*vector = malloc(sizeof **vector * (size_t)ruv_embedder_dim(embedder));
	texts[0] = ruv_buf_cstr(&buf);
	rc = buf.failed || !*vector ? ruv_fail_memory(err, "memory", strlen(text))
	                            : ruv_embedder_embed(embedder, texts, 1, RUV_EMBED_PASSAGE, *vector, &cli_cancel, err);
	if (rc) {
		free(*vector);
		*vector = NULL;
	}
	ruv_buf_release(&buf);
	return rc;
}

/* Filters as options; `filter_options` rows go into an action's table. */
static struct {
	const char *type, *domain, *source;
	cli_strings tags;
	double min_confidence;
	bool all_scopes;
} wanted;

#define FILTER_OPTIONS                                                                                                             \
	{"type",       't',    CLI_STRING,                                                                                         \
	 &wanted.type, "TYPE", "only Query, Document, AgentStep, Fact, QAPair or Concept; several with commas"},                   \
	    {"tag", 0, CLI_LIST, &wanted.tags, "TAG", "only what has this tag (repeated: all of them)"},                           \
	    {"domain", 0, CLI_STRING, &wanted.domain, "NAME", "only this domain"},                                                 \
	    {"source", 0, CLI_STRING, &wanted.source, "NAME", "only this source (the path as `memory sources` shows it)"},         \
	    {"min-confidence", 0, CLI_DOUBLE, &wanted.min_confidence, "P", "only with at least this confidence"},                  \
	{                                                                                                                          \
		"all-scopes", 0, CLI_FLAG, &wanted.all_scopes, NULL, "everybody's, not only --user's, --agent's and --session's"   \
	}

static int make_filter(memory_action *a, ruv_memory_filter *filter, ruv_error *err)
{
	memset(filter, 0, sizeof *filter);
	filter->scope = ruv_runtime_scope(a->runtime);
	filter->every_scope = wanted.all_scopes;
	filter->tags = wanted.tags.items;
	filter->n_tags = wanted.tags.n;
	filter->domain = wanted.domain;
	filter->source = wanted.source;
	filter->min_confidence = (float)wanted.min_confidence;
	for (const char *p = wanted.type; p && *p;) {
		size_t n = strcspn(p, ",");
		char name[32];
		ruv_node_type type;
		int rc;
		snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), p);
		rc = ruv_node_type_parse(&type, name, err);
		if (rc)
			return rc;
		filter->types |= 1u << type;
		p += n + (p[n] == ',');
	}
	return RUV_OK;
}

static json_t *node_json(const ruv_memory_node *node)
{
	json_t *tags = json_array(), *json;

	for (int i = 0; i < node->n_tags; i++)
		json_array_append_new(tags, cli_json_text(node->tags[i]));
	json = json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:f, s:i, s:I, s:I, s:I}", "id", node->id,
	                 "type", ruv_node_type_name(node->type), "text", cli_json_text(node->text), "title",
	                 cli_json_text(node->title), "source", cli_json_text(node->source), "first_line", node->first_line,
	                 "last_line", node->last_line, "tags", tags, "domain", cli_json_text(node->domain), "user",
	                 cli_json_text(node->scope.user), "agent", cli_json_text(node->scope.agent), "session",
	                 cli_json_text(node->scope.session), "confidence", (double)node->confidence, "version", node->version,
	                 "created_ms", (json_int_t)node->created_ms, "updated_ms", (json_int_t)node->updated_ms, "expires_ms",
	                 (json_int_t)node->expires_ms);
	if (json && node->meta && *node->meta)
		json_object_set_new(json, "meta", json_loads(node->meta, 0, NULL));
	return json;
}

/* The beginning of a text on one line, at most `width` bytes, cut between characters. */
static const char *one_line(char *to, size_t cap, const char *text, int width)
{
	size_t n = 0, limit = (size_t)(width > 8 ? width : 8);
	bool space = false;

	if (limit > cap - 4)
		limit = cap - 4;
	for (; *text && n < limit; text++) {
		if ((unsigned char)*text <= ' ') {
			space = n > 0;
			continue;
		}
		if (space)
			to[n++] = ' ';
		space = false;
		to[n++] = *text;
	}
	if (*text) {
		while (n > 0 && ((unsigned char)to[n - 1] & 0xc0) == 0x80)
			n--;
		if (n > 0 && (unsigned char)to[n - 1] >= 0xc0)
			n--;
		memcpy(to + n, "...", 3);
		n += 3;
	}
	to[n] = '\0';
	return to;
}

static void print_node(const ruv_memory_node *node)
{
	char when[32], place[4400];

	printf("%s%s%s  %s", cli_sgr(stdout, CLI_BOLD), node->id, cli_sgr(stdout, CLI_PLAIN), ruv_node_type_name(node->type));
	if (*node->title)
		printf("  %s", node->title);
	printf("\n%s", cli_sgr(stdout, CLI_DIM));
	if (*node->source)
		printf("%s  ", cli_place(node->source, node->first_line, node->last_line, place, sizeof place));
	printf("%s", memory_time(when, sizeof when, node->created_ms));
	if (node->version > 1)
		printf("  version %d, %s", node->version, memory_time(when, sizeof when, node->updated_ms));
	if (node->confidence < 1)
		printf("  confidence %.2f", (double)node->confidence);
	if (*node->domain)
		printf("  domain %s", node->domain);
	for (int i = 0; i < node->n_tags; i++)
		printf("%s%s", i ? ", " : "  tags ", node->tags[i]);
	if (*node->scope.user || *node->scope.agent || *node->scope.session)
		printf("  of %s/%s/%s", node->scope.user, node->scope.agent, node->scope.session);
	if (node->expires_ms)
		printf("  until %s", memory_time(when, sizeof when, node->expires_ms));
	printf("%s\n%s\n", cli_sgr(stdout, CLI_PLAIN), node->text);
	if (*node->meta)
		printf("%s%s%s\n", cli_sgr(stdout, CLI_DIM), node->meta, cli_sgr(stdout, CLI_PLAIN));
}

/* "90s", "15m", "36h", "30d" in milliseconds; 0 when it is none. */
static int64_t parse_duration(const char *text)
{
	char *end;
	double n = strtod(text, &end);
	int64_t unit = !strcmp(end, "s")   ? 1000
	               : !strcmp(end, "m") ? 60000
	               : !strcmp(end, "h") ? 3600000
	               : !strcmp(end, "d") ? 86400000
	                                   : 0;

	return n > 0 && n < 1e6 && unit ? (int64_t)(n * (double)unit) : 0;
}

/* The text of an argument, or standard input for "-"; freed by the caller. */
static char *text_of(const char *argument, ruv_error *err)
{
	ruv_buf buf;
	char part[8192], *text;
	size_t n;

	if (strcmp(argument, "-"))
		return strdup(argument);
	ruv_buf_init(&buf, RUV_MEMORY_MAX_TEXT);
	ruv_buf_puts(&buf, "");
	while ((n = fread(part, 1, sizeof part, stdin)) > 0)
		ruv_buf_append(&buf, part, n);
	while (buf.len && buf.data[buf.len - 1] == '\n')
		ruv_buf_truncate(&buf, buf.len - 1);
	text = ruv_buf_take(&buf);
	if (!text)
		ruv_fail(err, RUV_ELIMIT, "memory",
		         "standard input holds more than %d bytes, the most of one text; ruvllm remember cuts longer ones",
		         RUV_MEMORY_MAX_TEXT);
	return text;
}

/* ---- add, edit --------------------------------------------------------------------------------------------------------- */

static struct {
	const char *type, *title, *domain, *source, *ttl, *meta, *text;
	cli_strings tags;
	double confidence;
	bool no_tags;
} given;

/* What the options say, on top of what the node has. */
static int apply_given(ruv_memory_node *node, ruv_error *err)
{
	if (given.type) {
		int rc = ruv_node_type_parse(&node->type, given.type, err);
		if (rc)
			return rc;
	}
	if (given.title)
		node->title = given.title;
	if (given.domain)
		node->domain = given.domain;
	if (given.source)
		node->source = given.source;
	if (given.meta)
		node->meta = given.meta;
	if (given.tags.n || given.no_tags) {
		node->tags = given.tags.items;
		node->n_tags = given.tags.n;
	}
	if (given.confidence != 0)
		node->confidence = (float)given.confidence;
	if (given.ttl) {
		int64_t ms = parse_duration(given.ttl);
		if (strcmp(given.ttl, "never") && !ms)
			return ruv_fail(err, RUV_EINVAL, "memory", "'%s' is no time to live: 90s, 15m, 36h, 30d or never",
			                given.ttl);
		node->expires_ms = ms ? ruv_clock_wall_ms() + ms : 0;
	}
	return RUV_OK;
}

#define GIVEN_OPTIONS                                                                                                              \
	{"type", 't', CLI_STRING, &given.type, "TYPE", "Query, Document, AgentStep, Fact, QAPair or Concept (add: default Fact)"}, \
	    {"title", 0, CLI_STRING, &given.title, "TEXT", "a title; its words weigh more in searches"},                           \
	    {"tag", 0, CLI_LIST, &given.tags, "TAG", "a tag (may be repeated)"},                                                   \
	    {"domain", 0, CLI_STRING, &given.domain, "NAME", "the domain"},                                                        \
	    {"source", 0, CLI_STRING, &given.source, "NAME", "where it comes from"},                                               \
	    {"confidence", 0, CLI_DOUBLE, &given.confidence, "P", "how sure it is, above 0 and up to 1 (add: default 1)"},         \
	    {"ttl", 0, CLI_STRING, &given.ttl, "TIME", "forget it after this time: 90s, 15m, 36h, 30d, never"},                    \
	{                                                                                                                          \
		"meta", 0, CLI_STRING, &given.meta, "JSON", "a JSON object to keep with it"                                        \
	}

static int action_add(int argc, char **argv)
{
	static const cli_option options[] = {GIVEN_OPTIONS, {0}};
	static const cli_spec spec = {
	    .name = "memory add",
	    .usage = "[OPTIONS] TEXT|-",
	    .summary = "Stores one text, embedded, and prints its id. - reads standard input.",
	    .options = options,
	    .examples = "ruvllm memory add \"The backup starts at 02:00.\" --tag ops\nruvllm memory add --type Concept --ttl 30d -",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_node node = {.type = RUV_NODE_FACT};
	memory_action a;
	float *vector = NULL;
	char *text = NULL;
	int rc = RUV_OK;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, true))
		return a.code;
	text = text_of(a.args.items[0], &a.err);
	if (!text)
		rc = a.err.code ? a.err.code : RUV_ENOMEM;
	node.text = text;
	node.scope = ruv_runtime_scope(a.runtime);
	if (!rc)
		rc = apply_given(&node, &a.err);
	if (!rc && !*text)
		rc = ruv_fail(&a.err, RUV_EINVAL, "memory", "the text is empty");
	if (!rc)
		rc = memory_embed(&a, &vector, node.title, text, &a.err);
	node.vector = vector;
	if (!rc)
		rc = ruv_memory_add(a.memory, &node, 1, &a.err);
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:s}", "id", node.id));
	else if (!rc)
		a.code = printf("%s\n", node.id) < 0;
	free(vector);
	free(text);
	return memory_end(&a, rc);
}

static int action_edit(int argc, char **argv)
{
	static const cli_option options[] = {
	    {"text", 0, CLI_STRING, &given.text, "TEXT", "the new text; - reads standard input"},
	    {"no-tags", 0, CLI_FLAG, &given.no_tags, NULL, "take all tags off"},
	    GIVEN_OPTIONS,
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory edit",
	    .usage = "[OPTIONS] ID",
	    .summary = "Changes what the options name of one entry; the rest stays, and the log keeps what was. ID may be the "
		       "beginning or the end of an id.",
	    .options = options,
	    .examples = "ruvllm memory edit 4f1c90a2 --text \"The backup starts at 03:00.\"",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_nodes nodes = {0};
	ruv_memory_node node;
	memory_action a;
	char id[RUV_ID_SIZE], *text = NULL;
	float *vector = NULL;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, given.text || given.title))
		return a.code;
	rc = memory_resolve(&a, id, a.args.items[0], &a.err);
	if (!rc)
		rc = ruv_memory_get(a.memory, &nodes, id, &a.err);
	if (rc)
		goto done;
	node = nodes.items[0];
	node.vector = NULL;
	rc = apply_given(&node, &a.err);
	if (!rc && given.text) {
		text = text_of(given.text, &a.err);
		rc = text ? RUV_OK : a.err.code ? a.err.code : RUV_ENOMEM;
		node.text = text;
	}
	if (!rc && (given.text || given.title)) {
		rc = memory_embed(&a, &vector, node.title, node.text, &a.err);
		node.vector = vector;
	}
	if (!rc)
		rc = ruv_memory_update(a.memory, &node, &a.err);
done:
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:s, s:i}", "id", id, "version", node.version + 1));
	else if (!rc)
		a.code = printf("%s version %d\n", id, node.version + 1) < 0;
	free(vector);
	free(text);
	ruv_memory_nodes_release(&nodes);
	return memory_end(&a, rc);
}

/* ---- search, list, show ------------------------------------------------------------------------------------------------ */

static int action_search(int argc, char **argv)
{
	static int k = 10;
	static const char *mode = "hybrid", *fusion = NULL;
	static const cli_option options[] = {
	    {"top", 'k', CLI_INT, &k, "N", "how many (default 10)"},
	    {"mode", 'm', CLI_CHOICE, &mode, "hybrid|vector|lexical",
	     "by meaning and words, by meaning, or by words (default hybrid)"},
	    {"fuse", 0, CLI_CHOICE, &fusion, "rrf|zscore", "how the two lists become one (default: as the configuration says)"},
	    FILTER_OPTIONS,
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory search",
	    .usage = "[OPTIONS] QUESTION",
	    .summary = "Finds what memory has on a question, best first, with its scores. No model but the encoder is used, and "
		       "none with --mode lexical.",
	    .options = options,
	    .examples =
		"ruvllm memory search \"when does the backup run\"\nruvllm memory search --mode lexical --type Fact,Concept backup",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_query query = {0};
	ruv_memory_hits hits = {0};
	ruv_embedder *embedder;
	memory_action a;
	ruv_buf text;
	float *vector = NULL;
	bool lexical;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (k < 1)
		return cli_usage("--top %d: at least 1", k);
	lexical = !strcmp(mode, "lexical");
	if (!memory_open(&a, false)) /* a search makes no memory */
		return a.code;
	ruv_buf_init(&text, (size_t)1 << 24);
	ruv_context_squash(&text, a.args.items[0]);
	rc = make_filter(&a, &query.filter, &a.err);
	if (!rc && !lexical)
		rc = ruv_runtime_bound_memory(a.runtime, false, &a.memory, &a.err);
	if (!rc && !lexical) {
		rc = ruv_runtime_embedder(a.runtime, &embedder, &a.err);
		vector = rc ? NULL : malloc(sizeof *vector * (size_t)ruv_embedder_dim(embedder));
		if (!rc && !vector)
			rc = ruv_fail_memory(&a.err, "memory", sizeof *vector);
		if (!rc)
			rc = ruv_runtime_embed_question(a.runtime, ruv_buf_cstr(&text), vector, &cli_cancel, &a.err);
	}
	query.text = a.args.items[0];
	query.vector = vector;
	query.k = k;
	query.mode = lexical ? RUV_SEARCH_LEXICAL : !strcmp(mode, "vector") ? RUV_SEARCH_VECTOR : RUV_SEARCH_HYBRID;
	if (!fusion) { /* the configuration's */
		const char *value = NULL;
		int i = ruv_config_key_find("fusion");
		int ignored;
		ruv_config *config = i >= 0 ? cli_config(&ignored) : NULL;
		value = config ? ruv_config_value(config, i, NULL, NULL) : NULL;
		fusion = value ? value : "rrf";
	}
	query.fusion = !strcmp(fusion, "zscore") ? RUV_FUSE_ZSCORE : RUV_FUSE_RRF;
	if (!rc)
		rc = ruv_memory_search(a.memory, &hits, &query, &a.err);
	if (!rc && cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < hits.n; i++) {
			const ruv_memory_hit *h = &hits.items[i];
			json_t *node = node_json(&h->node);
			json_object_set_new(node, "score", json_real(h->score));
			json_object_set_new(node, "cosine", json_real((double)h->cosine));
			json_object_set_new(node, "bm25", json_real((double)h->bm25));
			json_object_set_new(node, "vector_rank", json_integer(h->vector_rank));
			json_object_set_new(node, "lexical_rank", json_integer(h->lexical_rank));
			json_array_append_new(list, node);
		}
		a.code =
		    cli_json_print(json_pack("{s:o, s:f, s:f, s:f}", "hits", list, "vector_ms", (double)hits.vector_ns / 1e6,
		                             "lexical_ms", (double)hits.lexical_ns / 1e6, "total_ms", (double)hits.total_ns / 1e6));
	} else if (!rc) {
		cli_table *table = cli_table_create("id|>score|>cosine|>bm25|where|text");
		for (int i = 0; table && i < hits.n; i++) {
			const ruv_memory_hit *h = &hits.items[i];
			char line[400], place[4400];
			cli_table_cell(table, "%s", h->node.id + 24);
			cli_table_cell(table, "%.4f", h->score > -0.00005 && h->score < 0 ? 0.0 : h->score);
			cli_table_cell(table, "%.3f", (double)h->cosine);
			cli_table_cell(table, "%.2f", h->bm25 > -0.005F && h->bm25 < 0.005F ? 0.0 : (double)h->bm25);
			cli_table_cell(table, "%s",
			               *h->node.source
			                   ? cli_place(h->node.source, h->node.first_line, h->node.last_line, place, sizeof place)
			                   : ruv_node_type_name(h->node.type));
			cli_table_cell(table, "%s",
			               one_line(line, sizeof line, h->node.text,
			                        cli_term_width(stdout) > 110 ? cli_term_width(stdout) - 70 : 40));
		}
		if (table)
			cli_table_print(table, stdout);
		cli_note("%d found in %.1f ms", hits.n, (double)hits.total_ns / 1e6);
	}
	ruv_buf_release(&text);
	free(vector);
	ruv_memory_hits_release(&hits);
	return memory_end(&a, rc);
}

static int action_list(int argc, char **argv)
{
	static int limit = 20, offset;
	static bool missing;
	static const cli_option options[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "at most so many (default 20)"},
	    {"offset", 0, CLI_INT, &offset, "N", "after so many newer ones"},
	    {"without-vector", 0, CLI_FLAG, &missing, NULL, "only what has no vector and is found by words alone"},
	    FILTER_OPTIONS,
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory list",
	    .usage = "[OPTIONS]",
	    .summary = "Lists entries, newest first.",
	    .options = options,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_filter filter;
	ruv_memory_nodes nodes = {0};
	memory_action a;
	bool more;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	rc = make_filter(&a, &filter, &a.err);
	if (!rc)
		rc = ruv_memory_list(a.memory, &nodes, &filter, missing, offset, limit < INT_MAX ? limit + (limit >= 0) : limit,
		                     &a.err);
	more = !rc && nodes.n > limit; /* one more was asked for, to know */
	if (more)
		nodes.n = limit;
	if (!rc && cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < nodes.n; i++)
			json_array_append_new(list, node_json(&nodes.items[i]));
		a.code = cli_json_print(list);
	} else if (!rc) {
		cli_table *table = cli_table_create("id|type|when|where|text");
		for (int i = 0; table && i < nodes.n; i++) {
			const ruv_memory_node *node = &nodes.items[i];
			char line[400], place[4400], when[32];
			cli_table_cell(table, "%s", node->id + 24);
			cli_table_cell(table, "%s", ruv_node_type_name(node->type));
			cli_table_cell(table, "%s", memory_time(when, sizeof when, node->created_ms));
			cli_table_cell(
			    table, "%s",
			    *node->source ? cli_place(node->source, node->first_line, node->last_line, place, sizeof place) : "");
			cli_table_cell(table, "%s",
			               one_line(line, sizeof line, node->text,
			                        cli_term_width(stdout) > 116 ? cli_term_width(stdout) - 76 : 40));
		}
		if (table)
			cli_table_print(table, stdout);
		if (!nodes.n)
			cli_note("no entries");
		else if (more)
			cli_note("there are more than these %d; --limit N shows more", nodes.n);
	}
	ruv_memory_nodes_release(&nodes);
	return memory_end(&a, rc);
}

static int action_show(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "memory show",
	    .usage = "ID...",
	    .summary = "Shows entries whole, with the edges at them. ID may be the beginning or the end of an id.",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	memory_action a;
	json_t *list;
	int rc = RUV_OK;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!memory_open(&a, false))
		return a.code;
	list = json_array();
	for (int i = 0; !rc && i < a.args.n; i++) {
		ruv_memory_filter every = {.scope = ruv_runtime_scope(a.runtime)};
		ruv_memory_graph graph = {0};
		char id[RUV_ID_SIZE];
		json_t *node, *edges;
		every.every_scope = !has_scope(&every.scope);
		rc = memory_resolve(&a, id, a.args.items[i], &a.err);
		if (!rc)
			rc = ruv_memory_neighbours(a.memory, &graph, id, 1, 200, &every, &a.err);
		if (rc)
			break;
		if (!cli.json) {
			print_node(&graph.nodes.items[0]);
			for (int e = 0; e < graph.n_edges; e++)
				if (!strcmp(graph.edges[e].src, id) || !strcmp(graph.edges[e].dst, id))
					printf("%s%s %s %s%s  weight %.3g  edge %s\n", cli_sgr(stdout, CLI_DIM),
					       !strcmp(graph.edges[e].src, id) ? "->" : "<-",
					       ruv_edge_type_name(graph.edges[e].type),
					       !strcmp(graph.edges[e].src, id) ? graph.edges[e].dst : graph.edges[e].src,
					       cli_sgr(stdout, CLI_PLAIN), (double)graph.edges[e].weight, graph.edges[e].id);
			if (i + 1 < a.args.n)
				printf("\n");
		} else {
			node = node_json(&graph.nodes.items[0]);
			edges = json_array();
			for (int e = 0; e < graph.n_edges; e++)
				json_array_append_new(
				    edges, json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:o}", "id", graph.edges[e].id, "src",
				                     graph.edges[e].src, "dst", graph.edges[e].dst, "type",
				                     ruv_edge_type_name(graph.edges[e].type), "weight",
				                     (double)graph.edges[e].weight, "confidence", (double)graph.edges[e].confidence,
				                     "created_by", cli_json_text(graph.edges[e].created_by)));
			json_object_set_new(node, "edges", edges);
			json_array_append_new(list, node);
		}
		ruv_memory_graph_release(&graph);
	}
	if (!rc && cli.json)
		a.code = cli_json_print(list);
	else
		json_decref(list);
	return memory_end(&a, rc);
}

/* ---- forget, link ------------------------------------------------------------------------------------------------------ */

static int action_forget(int argc, char **argv)
{
	static const char *source;
	static bool undo;
	static const cli_option options[] = {
	    {"source", 0, CLI_STRING, &source, "NAME", "everything of one source, as `memory sources` shows it"},
	    {"undo", 0, CLI_FLAG, &undo, NULL,
	     "with --source: what was forgotten of it entry by entry comes back when it is remembered next"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory forget",
	    .usage = "ID... | --source NAME [--undo]",
	    .summary = "Deletes entries: text, vector, words, edges, and what the log kept of them. All of the ids or, when one is "
		       "wrong, none. An entry of a remembered file stays out when the file is remembered again.",
	    .options = options,
	    .min_args = 0,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	char(*ids)[RUV_ID_SIZE] = NULL;
	const char **list = NULL;
	memory_action a;
	int rc = RUV_OK, n = 0;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (!source == !a.args.n)
		return cli_usage("give ids, or --source NAME");
	if (undo && !source)
		return cli_usage("--undo needs --source NAME");
	if (!memory_open(&a, false))
		return a.code;
	if (source) {
		ruv_memory_source which = {.name = source, .scope = ruv_runtime_scope(a.runtime)};
		rc = undo ? ruv_memory_source_restore(a.memory, &which, &n, &a.err)
		          : ruv_memory_source_forget(a.memory, &which, &n, &a.err);
	} else {
		n = a.args.n;
		ids = calloc((size_t)n, sizeof *ids);
		list = calloc((size_t)n, sizeof *list);
		if (!ids || !list)
			rc = ruv_fail_memory(&a.err, "memory", (size_t)n * sizeof *ids);
		for (int i = 0; !rc && i < n; i++) {
			rc = memory_resolve(&a, ids[i], a.args.items[i], &a.err);
			list[i] = ids[i];
		}
		if (!rc)
			rc = ruv_memory_forget(a.memory, list, n, &a.err);
	}
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:i}", undo ? "restored" : "forgotten", n));
	else if (!rc && undo)
		a.code = printf(n == 1 ? "%d entry comes back when the source is remembered next\n"
		                       : "%d entries come back when the source is remembered next\n",
		                n) < 0;
	else if (!rc)
		a.code = printf("%d forgotten\n", n) < 0;
	free(ids);
	free(list);
	return memory_end(&a, rc);
}

static int action_link(int argc, char **argv)
{
	static const char *type = "SameTopic", *remove;
	static double weight = 1, confidence = 1;
	static const cli_option options[] = {
	    {"type", 't', CLI_STRING, &type, "TYPE",
	     "Cites, Follows, SameTopic, AgentStep, Derived or Contains (default SameTopic)"},
	    {"weight", 'w', CLI_DOUBLE, &weight, "W", "how strong (default 1)"},
	    {"confidence", 0, CLI_DOUBLE, &confidence, "P", "how sure (default 1)"},
	    {"remove", 0, CLI_STRING, &remove, "EDGE", "remove the edge with this id instead"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "memory link",
	    .usage = "[OPTIONS] FROM TO | --remove EDGE",
	    .summary = "Draws an edge from one entry to another, or removes one, and prints its id.",
	    .options = options,
	    .min_args = 0,
	    .max_args = 2,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_memory_edge edge = {.created_by = "user"};
	memory_action a;
	int rc;

	if (!memory_parse(&a, &spec, argc, argv))
		return a.code;
	if (remove ? a.args.n != 0 : a.args.n != 2)
		return cli_usage("give two ids, or --remove EDGE");
	if (!memory_open(&a, false))
		return a.code;
	if (remove) {
		ruv_memory_filter filter = {.scope = ruv_runtime_scope(a.runtime)};
		filter.every_scope = !has_scope(&filter.scope);
		rc = ruv_memory_unlink_seen(a.memory, remove, &filter, &a.err);
	} else {
		rc = memory_resolve(&a, edge.src, a.args.items[0], &a.err);
		if (!rc)
			rc = memory_resolve(&a, edge.dst, a.args.items[1], &a.err);
		if (!rc)
			rc = ruv_edge_type_parse(&edge.type, type, &a.err);
		edge.weight = (float)weight;
		edge.confidence = (float)confidence;
		if (!rc)
			rc = ruv_memory_link(a.memory, &edge, 1, &a.err);
	}
	if (!rc && cli.json)
		a.code = cli_json_print(json_pack("{s:s}", "edge", remove ? remove : edge.id));
	else if (!rc)
		a.code = printf("%s\n", remove ? "removed" : edge.id) < 0;
	return memory_end(&a, rc);
}

/* ---- the actions ------------------------------------------------------------------------------------------------------- */

static const cli_part actions[] = {
    {"add", action_add, "store a text"},
    {"search", action_search, "find by meaning and words"},
    {"list", action_list, "list entries, newest first"},
    {"show", action_show, "show entries whole"},
    {"edit", action_edit, "change an entry"},
    {"forget", action_forget, "delete entries or a source"},
    {"link", action_link, "draw or remove an edge"},
    {"graph", memory_graph, "show what lies around an entry, also as a picture"},
    {"sources", memory_sources, "list the files that were remembered"},
    {"history", memory_history, "show the log"},
    {"export", memory_export, "write everything as JSON lines"},
    {"import", memory_import, "read such lines in"},
    {"backup", memory_backup, "copy the store, while it is in use"},
    {"verify", memory_verify, "check everything, and repair"},
    {"compact", memory_compact, "give free space back"},
    {"index", memory_index, "bring the vector index up to date"},
    {"reembed", memory_reembed, "compute missing vectors, or all anew for another encoder"},
    {"stats", memory_stats, "count and measure"},
    {0},
};

int cmd_memory(int argc, char **argv)
{
	return cli_run_part(
	    &(cli_parts){.name = "memory", .kind = "action", .summary = "Looks into memory and changes it.", .parts = actions},
	    argc, argv);
}

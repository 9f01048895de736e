/* ingest.c - remembering: files to passages with their places, passages to vectors, vectors to the store.
 *
 * A file is one transaction: read, hashed, cut, embedded, and then put in place of what the store had of it. The store knows a
 * file's hash, so a second run over the same directory costs a read per file and goes on where an interrupted one stopped; passages
 * that a changed file still has keep their nodes and vectors. The hash names how passages are cut, too: other settings cut again.
 * Layer: runtime. */
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/graph_weave.h"
#include "runtime/context.h"
#include "runtime/runtime.h"
#include "text/chunk.h"
#include "text/document.h"

/* A batch of the encoder cannot be interrupted: it holds passages of BATCH_TOKENS tokens, or one. */
enum { EMBED_BATCH = 8, BATCH_TOKENS = 1024, MAX_TITLE = 120, WEAVE_MOST = 50000 };

/* A new way of cutting or embedding passages must change this, so that files are remembered again. */
#define PASSAGES_VERSION 2

typedef struct entry {
	char *path;
	int64_t size, modified_ms;
} entry;

typedef struct ingest {
	ruv_runtime *runtime;
	const ruv_remember_params *params;
	ruv_remember_result *result;
	ruv_remember_progress progress;
	ruv_memory *memory;
	ruv_embedder *embedder;
	int max_tokens; /* of a passage */
	entry *entries; /* [n] in the order of their names */
	int n, cap;
} ingest;

static bool cancelled(const ingest *in)
{
	return ruv_cancel_is_set(in->params->cancel);
}

static ruv_memory_scope scope_of(const ingest *in)
{
	return in->params->scope ? *in->params->scope : ruv_runtime_scope(in->runtime);
}

static int fail_cancelled(ruv_error *err)
{
	return ruv_fail(err, RUV_ECANCELLED, "remember",
	                "stopped; what is finished is kept, and the same command goes on from here");
}

static void report_progress(ingest *in)
{
	if (in->params->on_progress)
		in->params->on_progress(in->params->user, &in->progress);
}

/* ---- finding files ----------------------------------------------------------------------------------------------------- */

static int add_entry(ingest *in, const char *path, const struct stat *st, ruv_error *err)
{
	if (in->n == in->cap) {
		int cap = in->cap ? 2 * in->cap : 64;
		entry *entries = realloc(in->entries, (size_t)cap * sizeof *entries);

		if (!entries)
			return ruv_fail_memory(err, "remember", (size_t)cap * sizeof *entries);
		in->entries = entries;
		in->cap = cap;
	}
	char *copy = strdup(path);

	if (!copy)
		return ruv_fail_memory(err, "remember", strlen(path) + 1);
	entry *e = &in->entries[in->n++];

	e->path = copy;
	e->size = st->st_size;
	e->modified_ms = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
	in->progress.n_bytes += st->st_size;
	return RUV_OK;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void report_file(ingest *in, const char *path, ruv_remember_outcome outcome, const char *why,
                        const ruv_memory_replaced *nodes);

static int walk(ingest *in, char *root, ruv_error *err)
{
	char *const roots[] = {root, NULL};
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	int rc = RUV_OK;

	if (!tree)
		return ruv_fail_errno(err, RUV_EIO, errno, "remember", "the directory %s", root);
	for (FTSENT *e; !rc && (errno = 0, e = fts_read(tree));) {
		bool hidden = e->fts_level > 0 && e->fts_name[0] == '.';

		if (e->fts_info == FTS_D && hidden)
			fts_set(tree, e, FTS_SKIP);
		else if (e->fts_info == FTS_F && !hidden)
			rc = add_entry(in, e->fts_path, e->fts_statp, err);
		else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
			report_file(in, e->fts_path, RUV_REMEMBER_FAILED, strerror(e->fts_errno), NULL);
		if (!rc && cancelled(in))
			rc = fail_cancelled(err);
	}
	if (!rc && errno)
		rc = ruv_fail_errno(err, RUV_EIO, errno, "remember", "the directory %s", root);
	fts_close(tree);
	return rc;
}

static int find_files(ingest *in, const char *path, ruv_error *err)
{
	char *real = realpath(path, NULL);
	struct stat st;
	int rc;

	if (!real || stat(real, &st)) {
		rc = ruv_fail_errno(err, errno == ENOENT || errno == ENOTDIR ? RUV_ENOTFOUND : RUV_EIO, errno, "remember", "%s",
		                    path);
		goto done;
	}
	if (S_ISDIR(st.st_mode))
		rc = walk(in, real, err);
	else if (S_ISREG(st.st_mode))
		rc = add_entry(in, real, &st, err);
	else
		rc = ruv_fail(err, RUV_EINVAL, "remember", "%s is neither a file nor a directory", path);
done:
	free(real);
	return rc;
}

/* ---- one source -------------------------------------------------------------------------------------------------------- */

static void report_file(ingest *in, const char *path, ruv_remember_outcome outcome, const char *why,
                        const ruv_memory_replaced *nodes)
{
	ruv_remember_file file = {.path = path, .outcome = outcome, .why = why ? why : ""};
	int *const counts[] = {&in->result->n_added,   &in->result->n_updated, &in->result->n_unchanged,
	                       &in->result->n_skipped, &in->result->n_failed,  &in->result->n_forgotten};

	++*counts[outcome];
	if (nodes) {
		file.nodes = *nodes;
		in->result->n_passages_added += nodes->n_added;
		in->result->n_passages_kept += nodes->n_kept;
		in->result->n_passages_removed += nodes->n_removed;
	}
	if (in->params->on_file)
		in->params->on_file(in->params->user, &file);
}

/* Cutting asks it all the time, so that this is where a long file notices that it should stop. */
static int count_tokens(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err)
{
	ingest *in = user;
	int n;

	if (cancelled(in))
		return fail_cancelled(err);
	n = ruv_embedder_count(in->embedder, text, n_bytes, RUV_EMBED_PLAIN, err);

	if (n < 0)
		return n;
	*n_tokens = (size_t)n;
	return RUV_OK;
}

/* What a passage is called: the headings above it, or the document's own name. */
static const char *title_of(const ruv_chunk *chunk, const ruv_chunks *chunks)
{
	if (*chunk->heading_path && strlen(chunk->heading_path) <= MAX_TITLE)
		return chunk->heading_path;
	if (*chunk->heading && strlen(chunk->heading) <= MAX_TITLE)
		return chunk->heading;
	return strlen(chunks->title) <= MAX_TITLE ? chunks->title : "";
}

/* What the encoder reads of a passage: its title and its text, as sources stand in a prompt. */
static int embed_text(const ingest *in, const char *title, const char *text, char **out, ruv_error *err)
{
	ruv_buf buf;
	int n;

	ruv_buf_init(&buf, (size_t)RUV_MEMORY_MAX_TEXT + RUV_MEMORY_MAX_LABEL);
	for (bool with_title = *title != 0;; with_title = false) {
		ruv_buf_clear(&buf);
		if (with_title) {
			ruv_context_squash(&buf, title);
			ruv_buf_putc(&buf, '\n');
		}
		ruv_context_squash(&buf, text);
		if (!with_title) /* the text alone fits: it was cut to */
			break;
		n = ruv_embedder_count(in->embedder, ruv_buf_cstr(&buf), buf.len, RUV_EMBED_PASSAGE, err);
		if (n < 0) {
			ruv_buf_release(&buf);
			return n;
		}
		if (n <= ruv_embedder_n_ctx(in->embedder))
			break;
	}
	*out = ruv_buf_take(&buf);
	return *out ? RUV_OK : ruv_fail_memory(err, "remember", strlen(text));
}

/* Vectors of the passages that the store does not know, [n, dim]; rows of known ones stay untouched. */
static int embed_new(ingest *in, const ruv_chunks *chunks, char **texts, const bool *known, float *vectors, ruv_error *err)
{
	int dim = ruv_embedder_dim(in->embedder), rows[EMBED_BATCH], n = (int)chunks->n, n_batch = 0, rc;
	size_t n_tokens = 0;
	const char *batch[EMBED_BATCH];
	float *out = malloc(sizeof(float) * EMBED_BATCH * (size_t)dim);

	if (!out)
		return ruv_fail_memory(err, "remember", sizeof(float) * EMBED_BATCH * (size_t)dim);
	rc = RUV_OK;
	for (int i = 0; i < n; i++) {
		bool more = i + 1 < n;

		if (cancelled(in)) {
			rc = RUV_ECANCELLED;
			break;
		}
		if (!known[i]) {
			rows[n_batch] = i;
			batch[n_batch++] = texts[i];
			n_tokens += chunks->items[i].n_tokens;
		}
		if (n_batch == EMBED_BATCH || (n_batch && (!more || n_tokens + chunks->items[i + 1].n_tokens > BATCH_TOKENS))) {
			rc = ruv_runtime_embed(in->runtime, batch, n_batch, RUV_EMBED_PASSAGE, out, in->params->cancel, err);
			if (rc)
				break;
			for (int j = 0; j < n_batch; j++)
				memcpy(vectors + (size_t)rows[j] * (size_t)dim, out + (size_t)j * (size_t)dim,
				       sizeof(float) * (size_t)dim);
			in->result->n_embedded += n_batch;
			n_batch = 0;
			n_tokens = 0;
		}
		in->progress.n_chunks_done = i + 1;
		report_progress(in);
	}
	free(out);
	return rc == RUV_ECANCELLED ? fail_cancelled(err) : rc;
}

/* The node's own details, as a JSON object. */
static char *meta_of(const ruv_chunk *chunk, ruv_document_kind kind)
{
	json_t *meta = json_pack("{s:s, s:s, s:I}", "kind", ruv_document_kind_name(kind), "headings", chunk->heading_path, "tokens",
	                         (json_int_t)chunk->n_tokens);
	char *text = meta ? json_dumps(meta, JSON_COMPACT) : NULL;

	json_decref(meta);
	return text;
}

/* Cuts, embeds and stores one document. */
static int store_passages(ingest *in, const ruv_memory_source *source, ruv_document_kind kind, const ruv_chunks *chunks,
                          ruv_memory_replaced *replaced, ruv_error *err)
{
	const ruv_remember_params *params = in->params;
	size_t n = chunks->n, dim = (size_t)ruv_embedder_dim(in->embedder);
	ruv_memory_node *nodes = calloc(n + 1, sizeof *nodes);
	const char **titles = calloc(n + 1, sizeof *titles), **plain = calloc(n + 1, sizeof *plain);
	char **texts = calloc(n + 1, sizeof *texts), **metas = calloc(n + 1, sizeof *metas);
	bool *known = calloc(n + 1, sizeof *known);
	float *vectors = malloc(sizeof(float) * dim * (n + 1));
	int rc = RUV_OK;

	if (!nodes || !titles || !plain || !texts || !metas || !known || !vectors) {
		rc = ruv_fail_memory(err, "remember", n * (sizeof *nodes + sizeof(float) * dim));
		goto done;
	}
	for (size_t i = 0; i < n; i++) {
		titles[i] = title_of(&chunks->items[i], chunks);
		plain[i] = chunks->items[i].text;
		metas[i] = meta_of(&chunks->items[i], kind);
		if (!metas[i]) {
			rc = ruv_fail_memory(err, "remember", 256);
			goto done;
		}
		rc = cancelled(in) ? fail_cancelled(err) : embed_text(in, titles[i], plain[i], &texts[i], err);
		if (rc)
			goto done;
	}
	rc = ruv_memory_source_known(in->memory, known, source, plain, titles, (int)n, err);
	if (rc)
		goto done;
	in->progress.n_chunks = (int)n;
	in->progress.n_chunks_done = 0;
	rc = embed_new(in, chunks, texts, known, vectors, err);
	if (rc)
		goto done;
	for (size_t i = 0; i < n; i++)
		nodes[i] = (ruv_memory_node){
		    .type = RUV_NODE_DOCUMENT,
		    .text = plain[i],
		    .title = titles[i],
		    .vector = known[i] ? NULL : vectors + i * dim,
		    .first_line = chunks->items[i].first_line,
		    .last_line = chunks->items[i].last_line,
		    .tags = params->tags,
		    .n_tags = params->n_tags,
		    .domain = params->domain,
		    .meta = metas[i],
		};
	rc = ruv_memory_source_replace(in->memory, source, nodes, (int)n, replaced, err);
done:
	for (size_t i = 0; texts && i < n; i++)
		free(texts[i]);
	for (size_t i = 0; metas && i < n; i++)
		free(metas[i]);
	free(nodes);
	free(titles);
	free(plain);
	free(texts);
	free(metas);
	free(known);
	free(vectors);
	return rc;
}

/* Forgets what the store has of a source, if it has any. */
static int forget(ingest *in, const ruv_memory_source *source, int *n_removed, ruv_error *err)
{
	int rc = ruv_memory_source_forget(in->memory, source, n_removed, err);

	if (rc != RUV_ENOTFOUND)
		return rc;
	*n_removed = 0;
	return RUV_OK;
}

/* One source from its bytes. What is wrong with the source itself is reported, what is wrong beyond it is the status. */
static int remember_bytes(ingest *in, const char *name, const char *bytes, size_t size, int64_t modified_ms, ruv_error *err)
{
	ruv_document_kind kind = ruv_document_kind_of(name);
	ruv_document *doc = NULL;
	ruv_chunks *chunks = NULL;
	ruv_chunk_options cut = {.max_tokens = (size_t)in->max_tokens,
	                         .overlap_sentences = (size_t)in->runtime->settings.chunk_overlap,
	                         .count = count_tokens,
	                         .count_user = in};
	char hex[65], hash[128];
	ruv_memory_source source = {
	    .name = name, .hash = hash, .scope = scope_of(in), .size_bytes = (int64_t)size, .modified_ms = modified_ms};
	ruv_memory_replaced replaced = {0};
	bool same = false;
	int rc;

	if (in->params->kind)
		kind = !strcmp(in->params->kind, "markdown") ? RUV_DOCUMENT_MARKDOWN
		       : !strcmp(in->params->kind, "html")   ? RUV_DOCUMENT_HTML
		                                             : RUV_DOCUMENT_TEXT;
	if (ruv_document_is_binary(bytes, size)) {
		report_file(in, name, RUV_REMEMBER_SKIPPED, "it is a binary file", NULL);
		return RUV_OK;
	}
	rc = ruv_hash_sha256(hex, bytes, size, err);
	if (rc)
		return rc;
	snprintf(hash, sizeof hash, "sha256:%s %s %d+%d v%d", hex, ruv_document_kind_name(kind), in->max_tokens,
	         (int)cut.overlap_sentences, PASSAGES_VERSION);
	rc = ruv_memory_source_unchanged(in->memory, &same, &source, err);
	if (rc)
		return rc;
	if (same && !in->params->again) {
		report_file(in, name, RUV_REMEMBER_UNCHANGED, NULL, NULL);
		return RUV_OK;
	}
	rc = ruv_document_read(&doc, kind, bytes, size, err);
	if (!rc)
		rc = ruv_chunk_document(&chunks, doc, &cut, err);
	if (rc == RUV_EFORMAT || rc == RUV_ELIMIT || rc == RUV_EUNSUPPORTED) {
		report_file(in, name, RUV_REMEMBER_FAILED, err ? err->message : ruv_status_text(rc), NULL);
		rc = RUV_OK;
		goto done;
	}
	if (rc)
		goto done;
	rc = chunks->n ? store_passages(in, &source, kind, chunks, &replaced, err) : forget(in, &source, &replaced.n_removed, err);
	if (rc)
		goto done;
	if (chunks->n == 0)
		report_file(in, name, replaced.n_removed ? RUV_REMEMBER_UPDATED : RUV_REMEMBER_SKIPPED, "it has no text",
		            &replaced);
	else
		report_file(in, name, replaced.n_kept || replaced.n_removed ? RUV_REMEMBER_UPDATED : RUV_REMEMBER_ADDED, doc->note,
		            &replaced);
done:
	ruv_chunks_free(chunks);
	ruv_document_free(doc);
	return rc;
}

static int remember_file(ingest *in, const entry *e, ruv_error *err)
{
	char why[64];
	char *bytes = NULL;
	size_t size = 0;
	int rc;

	if (e->size > in->runtime->settings.max_file_bytes) {
		snprintf(why, sizeof why, "it is larger than max-file-bytes (%lld)",
		         (long long)in->runtime->settings.max_file_bytes);
		report_file(in, e->path, RUV_REMEMBER_SKIPPED, why, NULL);
		return RUV_OK;
	}
	rc = ruv_file_read(&bytes, &size, e->path, (size_t)in->runtime->settings.max_file_bytes, err);
	if (rc == RUV_ENOMEM)
		return rc;
	if (rc) {
		report_file(in, e->path, RUV_REMEMBER_FAILED, err ? err->message : ruv_status_text(rc), NULL);
		return RUV_OK;
	}
	rc = remember_bytes(in, e->path, bytes, size, e->modified_ms, err);
	free(bytes);
	return rc;
}

/* ---- the call ---------------------------------------------------------------------------------------------------------- */

static int remember_text(ingest *in, ruv_error *err)
{
	const ruv_remember_params *params = in->params;
	char hex[65], name[32];
	const char *use = params->name;
	int rc;

	if (!use) {
		rc = ruv_hash_sha256(hex, params->text, params->n_bytes, err);
		if (rc)
			return rc;
		snprintf(name, sizeof name, "text:%.12s", hex);
		use = name;
	}
	in->progress.n_files = 1;
	in->progress.path = use;
	in->progress.n_bytes = in->progress.file_bytes = (int64_t)params->n_bytes;
	rc = remember_bytes(in, use, params->text, params->n_bytes, ruv_clock_wall_ms(), err);
	in->result->n_files = 1;
	in->result->n_bytes = (int64_t)params->n_bytes;
	return rc;
}

static bool same_scope(const ruv_memory_scope *a, const ruv_memory_scope *b)
{
	const char *const pairs[][2] = {{a->user, b->user}, {a->agent, b->agent}, {a->session, b->session}};

	for (int i = 0; i < 3; i++)
		if (strcmp(pairs[i][0] ? pairs[i][0] : "", pairs[i][1] ? pairs[i][1] : ""))
			return false;
	return true;
}

/* Forgets the files below a directory that are no longer there. Only what the file system says is absent counts: what cannot be
 * looked at stays. */
static int forget_missing(ingest *in, ruv_error *err)
{
	ruv_memory_scope scope = scope_of(in);
	ruv_memory_filter filter = {.scope = scope};
	ruv_memory_sources sources = {0};
	char *root = realpath(in->params->path, NULL);
	size_t n_root = root ? strlen(root) : 0;
	struct stat st;
	int rc;

	if (!root || stat(root, &st) || !S_ISDIR(st.st_mode)) {
		free(root);
		return RUV_OK;
	}
	rc = ruv_memory_source_list(in->memory, &sources, &filter, err);
	for (int i = 0; !rc && i < sources.n; i++) {
		const ruv_memory_source *source = &sources.items[i];
		ruv_memory_replaced gone = {0};

		if (strncmp(source->name, root, n_root) || (source->name[n_root] != '/' && strcmp(root, "/")) ||
		    !same_scope(&source->scope, &scope) || lstat(source->name, &st) == 0 || (errno != ENOENT && errno != ENOTDIR))
			continue;
		rc = forget(in, source, &gone.n_removed, err);
		if (!rc)
			report_file(in, source->name, RUV_REMEMBER_FORGOTTEN, "it is gone", &gone);
	}
	ruv_memory_sources_release(&sources);
	free(root);
	return rc;
}

static int remember_path(ingest *in, ruv_error *err)
{
	int rc = find_files(in, in->params->path, err);

	in->progress.n_files = in->n;
	for (int i = 0; !rc && i < in->n; i++) {
		in->progress.path = in->entries[i].path;
		in->progress.n_chunks = in->progress.n_chunks_done = 0;
		in->progress.file_bytes = in->entries[i].size;
		report_progress(in);
		if (cancelled(in))
			return fail_cancelled(err);
		rc = remember_file(in, &in->entries[i], err);
		if (rc)
			return rc == RUV_ECANCELLED ? rc : ruv_error_prefix(err, rc, "%s: ", in->entries[i].path);
		in->progress.n_chunks = in->progress.n_chunks_done = 0;
		in->progress.file_bytes = 0;
		in->progress.n_files_done = i + 1;
		in->progress.n_bytes_done += in->entries[i].size;
		in->result->n_files++;
		in->result->n_bytes += in->entries[i].size;
		report_progress(in);
	}
	return rc || in->params->keep_missing ? rc : forget_missing(in, err);
}

/* The edges that the new passages imply. It looks at the whole memory, so a large one is left for `ruvllm memory graph weave`. */
static int weave(ingest *in, ruv_error *err)
{
	const ruv_weave_options fresh = {.fresh = true};
	ruv_memory_stats stats;
	int rc = ruv_memory_get_stats(in->memory, &stats, err);

	if (!rc && stats.n_nodes > WEAVE_MOST)
		ruv_log(RUV_LOG_INFO, "remember", "%lld entries: edges are drawn by `ruvllm memory graph weave`",
		        (long long)stats.n_nodes);
	return rc || stats.n_nodes > WEAVE_MOST ? rc : ruv_memory_weave(in->memory, NULL, &fresh, err);
}

int ruv_remember(ruv_runtime *runtime, const ruv_remember_params *params, ruv_remember_result *result, ruv_error *err)
{
	ruv_remember_result own = {0};
	ruv_error own_err;
	ingest in = {.runtime = runtime, .params = params, .result = result ? result : &own};
	int64_t started = ruv_clock_now_ns();
	int rc, room;

	memset(in.result, 0, sizeof *in.result);
	if (!err) { /* files' failures are reported from it */
		memset(&own_err, 0, sizeof own_err);
		err = &own_err;
	}
	if (!params->path == !params->text)
		return ruv_fail(err, RUV_EINVAL, "remember", "give either a path or a text");
	if (params->kind && strcmp(params->kind, "text") && strcmp(params->kind, "markdown") && strcmp(params->kind, "html"))
		return ruv_fail(err, RUV_EINVAL, "remember", "the kind '%s' is none of text, markdown, html", params->kind);
	rc = ruv_runtime_memory(runtime, &in.memory, err);
	if (!rc)
		rc = ruv_runtime_embedder(runtime, &in.embedder, err);
	if (rc)
		return rc;
	/* A passage must fit the encoder, prefix and special tokens included. */
	rc = ruv_embedder_count(in.embedder, "", 0, RUV_EMBED_PASSAGE, err);
	if (rc < 0)
		return rc;
	room = ruv_embedder_n_ctx(in.embedder) - rc - 8;
	in.max_tokens = runtime->settings.chunk_tokens < room ? (int)runtime->settings.chunk_tokens : room;
	if (in.max_tokens < 8)
		return ruv_fail(err, RUV_EUNSUPPORTED, "remember", "the encoder reads only %d tokens at a time",
		                ruv_embedder_n_ctx(in.embedder));
	rc = params->text ? remember_text(&in, err) : remember_path(&in, err);
	if (!rc && in.result->n_passages_added > 0 && strcmp(runtime->settings.graph_attention, "off"))
		rc = weave(&in, err);
	in.result->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	for (int i = 0; i < in.n; i++)
		free(in.entries[i].path);
	free(in.entries);
	return rc;
}

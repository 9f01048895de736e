/* chunk.c - packing a section's sentences and lines into chunks.
 *
 * A section becomes a list of units that must not be cut further (sentences; lines of code and tables; pieces of what is too long),
 * each with the bytes that stand between it and the one before. Units are counted once; the finished chunk is counted again,
 * because tokens may join across units, and gives its last unit back when it came out too long.
 *
 * No step looks at more of a text than a constant times what it takes of it, and no count is asked of more than 64 bytes a token of
 * max_tokens: a document without line ends costs as much as one with them. */
#include "text/chunk.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "text/unicode.h"

typedef struct unit {
	const char *gap; /* between the unit before and this one */
	size_t n_gap;
	const char *text;
	size_t len;
	int first_line, last_line;
	size_t n_tokens; /* gap included */
	bool sentence;   /* may be repeated as overlap */
	bool block_start;
} unit;

typedef struct chunk_set {
	ruv_chunks pub;
	ruv_arena arena;
	ruv_chunk *items;
	size_t cap;
} chunk_set;

typedef struct chunker {
	const ruv_chunk_options *options;
	ruv_chunk_count_fn *count;
	chunk_set *set;
	unit *units;
	size_t n_units, cap_units;
	ruv_buf text;
	ruv_error *err;
} chunker;

int ruv_chunk_count_vocab(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err)
{
	return ruv_vocab_count(user, text, n_bytes, n_tokens, err);
}

int ruv_chunk_count_rough(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err)
{
	(void)user;
	(void)text;
	(void)err;
	*n_tokens = (n_bytes + 3) / 4;
	return RUV_OK;
}

static int count(chunker *c, const char *text, size_t len, size_t *n_tokens)
{
	return c->count(c->options->count_user, text, len, n_tokens, c->err);
}

static bool is_space(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\n';
}

/* A part of text[0..len) that fits max_tokens: all of it, or nearly the longest, cut at a space where one stands in its second
 * half. It looks at a multiple of what it returns, never at the rest of the text, so that a long line costs linear time. */
static int fit(chunker *c, const char *text, size_t len, size_t *n_fit)
{
	size_t max = c->options->max_tokens, most = max < len / 64 ? max * 64 : len, low = 0, high, n, cut, space;
	int rc;

	/* Doubling finds a length that is too long; what fits stands below it. */
	for (high = max < most / 4 ? max * 4 : most;; high = high < most / 2 ? high * 2 : most) {
		rc = count(c, text, high, &n);
		if (rc)
			return rc;
		if (n > max)
			break;
		low = high;
		if (high == most)
			break;
	}
	if (low == len) {
		*n_fit = len;
		return RUV_OK;
	}
	while (low + 1 < high && high - low > low / 32) {
		size_t middle = low + (high - low) / 2;
		rc = count(c, text, middle, &n);
		if (rc)
			return rc;
		if (n <= max)
			low = middle;
		else
			high = middle;
	}
	for (cut = low ? low : 1; cut > 0;) {
		cut = ruv_utf8_floor(text, len, cut);
		for (space = cut; cut < len && space > cut / 2 && !is_space(text[space]); space--)
			;
		if (cut < len && space > cut / 2)
			cut = space;
		/* Whole characters and words may count differently from the bytes that the search tried. */
		rc = count(c, text, cut, &n);
		if (rc)
			return rc;
		if (n <= max)
			break;
		cut = cut > 8 ? cut * 7 / 8 : cut - 1;
	}
	if (cut == 0) /* one character alone is always taken */
		cut = (size_t)ruv_utf8_decode(text, len, NULL, NULL, NULL);
	*n_fit = cut ? cut : 1;
	return RUV_OK;
}

/* Adds a unit of `block`, in parts when it is too long. */
static int add_unit(chunker *c, const ruv_block *block, unit u)
{
	int rc;

	for (;;) {
		unit part = u;

		rc = fit(c, u.text, u.len, &part.len);
		if (rc)
			return rc;
		if (part.len < u.len) {
			part.sentence = false;
			u.sentence = false;
		}
		if (part.gap + part.n_gap == part.text) { /* they stand together in the block */
			rc = count(c, part.gap, part.n_gap + part.len, &part.n_tokens);
		} else {
			rc = count(c, part.text, part.len, &part.n_tokens);
			part.n_tokens += part.n_gap > 0;
		}
		if (rc)
			return rc;
		part.first_line = ruv_block_line(block, (size_t)(part.text - block->text));
		part.last_line = ruv_block_line(block, (size_t)(part.text - block->text) + (part.len ? part.len - 1 : 0));
		if (c->n_units == c->cap_units) {
			size_t cap = c->cap_units ? 2 * c->cap_units : 128;
			unit *units = realloc(c->units, cap * sizeof *units);
			if (!units)
				return ruv_fail_memory(c->err, "chunk", cap * sizeof *units);
			c->units = units;
			c->cap_units = cap;
		}
		c->units[c->n_units++] = part;
		if (part.len == u.len)
			return RUV_OK;
		u.gap = u.text + part.len;
		u.text += part.len;
		u.len -= part.len;
		while (u.len > 0 && is_space(*u.text)) {
			u.text++;
			u.len--;
		}
		u.n_gap = (size_t)(u.text - u.gap);
		u.block_start = false;
		if (u.len == 0)
			return RUV_OK;
	}
}

/* The units of one block. */
static int add_block(chunker *c, const ruv_block *block, bool after_item)
{
	bool lines = block->kind == RUV_BLOCK_CODE || block->kind == RUV_BLOCK_TABLE;
	size_t at = 0, begin, end;
	bool first = true;
	int rc;

	while (at < block->len) {
		unit u = {0};

		if (lines) {
			const char *stop = memchr(block->text + at, '\n', block->len - at);
			begin = at;
			end = stop ? (size_t)(stop - block->text) : block->len;
			if (end == begin && !first) { /* an empty line joins the gap */
				at = end + 1;
				continue;
			}
		} else if (!ruv_sentence_next(block->text, block->len, at, &begin, &end)) {
			break;
		}
		if (first) { /* a list marker stands before the first sentence */
			begin = 0;
			u.gap = block->kind == RUV_BLOCK_LIST_ITEM && after_item ? "\n" : "\n\n";
			u.n_gap = strlen(u.gap);
			u.block_start = true;
		} else {
			const unit *before = &c->units[c->n_units - 1];
			u.gap = before->text + before->len;
			u.n_gap = (size_t)(block->text + begin - u.gap);
		}
		u.text = block->text + begin;
		u.len = end - begin;
		u.sentence = !lines;
		rc = add_unit(c, block, u);
		if (rc)
			return rc;
		first = false;
		at = end + (lines && end < block->len);
	}
	return RUV_OK;
}

static int emit(chunker *c, const char *text, size_t len, const char *path, const char *heading, int first_line, int last_line,
                size_t n_tokens)
{
	chunk_set *set = c->set;
	ruv_chunk *chunk;

	if (set->pub.n == set->cap) {
		size_t cap = set->cap ? 2 * set->cap : 32;
		ruv_chunk *items = realloc(set->items, cap * sizeof *items);
		if (!items)
			return ruv_fail_memory(c->err, "chunk", cap * sizeof *items);
		set->items = items;
		set->pub.items = items;
		set->cap = cap;
	}
	chunk = &set->items[set->pub.n];
	chunk->text = ruv_arena_strndup(&set->arena, text, len);
	chunk->heading_path = ruv_arena_strndup(&set->arena, path, strlen(path));
	chunk->heading = ruv_arena_strndup(&set->arena, heading, strlen(heading));
	if (!chunk->text || !chunk->heading_path || !chunk->heading)
		return ruv_fail_memory(c->err, "chunk", len);
	chunk->len = len;
	chunk->first_line = first_line;
	chunk->last_line = last_line;
	chunk->n_tokens = n_tokens;
	set->pub.n++;
	return RUV_OK;
}

/* Units [from, to) as text. */
static int assemble(chunker *c, size_t from, size_t to, size_t *n_tokens)
{
	size_t i;

	ruv_buf_clear(&c->text);
	for (i = from; i < to; i++) {
		if (i > from)
			ruv_buf_append(&c->text, c->units[i].gap, c->units[i].n_gap);
		ruv_buf_append(&c->text, c->units[i].text, c->units[i].len);
	}
	if (c->text.failed)
		return ruv_fail(c->err, c->text.failed, "chunk", "%s", ruv_status_text(c->text.failed));
	return count(c, c->text.data, c->text.len, n_tokens);
}

/* Cuts the section's units into chunks. */
static int pack(chunker *c, const char *path, const char *heading)
{
	size_t max = c->options->max_tokens, i = 0, k;
	int rc;

	while (i < c->n_units) {
		size_t from = i, to, total = 0, overlap = 0, n_tokens, middle;

		/* Sentences of the chunk before, if they leave at least three quarters of the room. */
		for (k = 0; k < c->options->overlap_sentences && from > 0 && c->units[from - 1].sentence; k++) {
			if (overlap + c->units[from - 1].n_tokens > max / 4)
				break;
			overlap += c->units[--from].n_tokens;
		}
		if (overlap + c->units[i].n_tokens > max) {
			from = i;
			overlap = 0;
		}
		total = overlap + c->units[i].n_tokens;
		for (to = i + 1; to < c->n_units && total + c->units[to].n_tokens <= max; to++)
			total += c->units[to].n_tokens;
		/* Rather end with a block than within one, when that leaves the chunk at least half full. */
		if (to < c->n_units && !c->units[to].block_start) {
			for (middle = to - 1; middle > i && !c->units[middle].block_start; middle--)
				total -= c->units[middle].n_tokens;
			if (middle > i && total - c->units[middle].n_tokens >= max / 2)
				to = middle;
		}
		for (;;) {
			rc = assemble(c, from, to, &n_tokens);
			if (rc)
				return rc;
			if (n_tokens <= max || (from == i && to == i + 1))
				break;
			if (from < i)
				from = i;
			else
				to--;
		}
		rc =
		    emit(c, c->text.data, c->text.len, path, heading, c->units[i].first_line, c->units[to - 1].last_line, n_tokens);
		if (rc)
			return rc;
		i = to;
	}
	c->n_units = 0;
	return RUV_OK;
}

int ruv_chunk_document(ruv_chunks **out, const ruv_document *doc, const ruv_chunk_options *options, ruv_error *err)
{
	chunker c = {.options = options, .err = err, .count = options->count ? options->count : ruv_chunk_count_rough};
	const ruv_block *blocks = doc->blocks;
	const char *path = "", *heading = "";
	chunk_set *set;
	size_t i, n_tokens;
	int rc = RUV_OK;

	if (options->max_tokens < 8 || options->overlap_sentences > 3)
		return ruv_fail(err, RUV_EINVAL, "chunk", "max_tokens %zu must be at least 8, overlap_sentences %zu at most 3",
		                options->max_tokens, options->overlap_sentences);
	set = calloc(1, sizeof *set);
	if (!set)
		return ruv_fail_memory(err, "chunk", sizeof *set);
	ruv_arena_init(&set->arena);
	c.set = set;
	ruv_buf_init(&c.text, SIZE_MAX / 2);
	set->pub.title = ruv_arena_strndup(&set->arena, doc->title, strlen(doc->title));
	if (!set->pub.title) {
		rc = ruv_fail_memory(err, "chunk", strlen(doc->title));
		goto done;
	}
	for (i = 0; i < doc->n_blocks && rc == RUV_OK; i++) {
		if (blocks[i].kind == RUV_BLOCK_HEADING) {
			rc = pack(&c, path, heading);
			if (rc)
				break;
			heading = blocks[i].text;
			path = i + 1 < doc->n_blocks ? blocks[i + 1].heading_path : "";
			if (i + 1 == doc->n_blocks ||
			    (blocks[i + 1].kind == RUV_BLOCK_HEADING && blocks[i + 1].level <= blocks[i].level)) {
				rc = count(&c, blocks[i].text, blocks[i].len, &n_tokens);
				if (rc == RUV_OK)
					rc = emit(&c, blocks[i].text, blocks[i].len, blocks[i].heading_path, blocks[i].text,
					          blocks[i].first_line, blocks[i].last_line, n_tokens);
			}
			continue;
		}
		rc = add_block(&c, &blocks[i], c.n_units > 0 && blocks[i - 1].kind == RUV_BLOCK_LIST_ITEM);
	}
	if (rc == RUV_OK)
		rc = pack(&c, path, heading);
	if (rc)
		goto done;
	*out = &set->pub;
	set = NULL;
done:
	free(c.units);
	ruv_buf_release(&c.text);
	if (set)
		ruv_chunks_free(&set->pub);
	return rc;
}

void ruv_chunks_free(ruv_chunks *pub)
{
	chunk_set *set = (chunk_set *)pub;

	if (!set)
		return;
	ruv_arena_release(&set->arena);
	free(set->items);
	free(set);
}

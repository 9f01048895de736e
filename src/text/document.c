/* document.c - the builder of blocks, plain text, and the choice of the reader. Markdown and HTML have files of their own. */
#include "text/document.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "text/document_build.h"
#include "text/unicode.h"

enum { MAX_SOURCE = 256 << 20 };

/* The arena holds everything that a document's pointers reach, and stands behind the public struct. */
typedef struct document {
	ruv_document pub;
	ruv_arena arena;
} document;

/* ---- the builder ---- */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\v' || c == '\r';
}

bool ruv_doc_has_text(const doc_builder *b)
{
	return b->text.len > 0;
}

bool ruv_doc_at_space(const doc_builder *b)
{
	return b->text.len == 0 || is_space(b->text.data[b->text.len - 1]);
}

void ruv_doc_trim(doc_builder *b)
{
	while (b->text.len > 0 && b->text.data[b->text.len - 1] == ' ')
		ruv_buf_truncate(&b->text, b->text.len - 1);
}

static void note_line(doc_builder *b, int line)
{
	while (b->line < line) {
		if (b->n_lines == b->cap_lines) {
			size_t cap = b->cap_lines ? 2 * b->cap_lines : 64;
			uint32_t *lines = realloc(b->line_at, cap * sizeof *lines);
			if (!lines) {
				b->rc = RUV_ENOMEM;
				return;
			}
			b->line_at = lines;
			b->cap_lines = cap;
		}
		b->line_at[b->n_lines++] = (uint32_t)b->text.len;
		b->line++;
	}
}

void ruv_doc_append(doc_builder *b, const char *bytes, size_t n_bytes, int line, bool keep_space)
{
	if (b->text.len == 0 && !keep_space)
		while (n_bytes > 0 && is_space(*bytes)) {
			bytes++;
			n_bytes--;
		}
	if (n_bytes == 0 || b->rc)
		return;
	if (b->text.len == 0) {
		b->first_line = b->line = line;
		b->n_lines = 0;
	}
	note_line(b, line);
	if (!b->rc)
		b->rc = ruv_buf_append(&b->text, bytes, n_bytes);
}

/* "A > B" of the open headings above `level`. */
static const char *heading_path(doc_builder *b, int level)
{
	ruv_buf path;
	const char *copy;
	int i;

	ruv_buf_init(&path, MAX_SOURCE);
	for (i = 1; i < level && i <= 6; i++)
		if (b->heading[i]) {
			if (path.len)
				ruv_buf_puts(&path, " > ");
			ruv_buf_puts(&path, b->heading[i]);
		}
	copy = path.failed ? NULL : ruv_arena_strndup(b->arena, ruv_buf_cstr(&path), path.len);
	if (!copy) {
		b->rc = RUV_ENOMEM;
		copy = "";
	}
	ruv_buf_release(&path);
	return copy;
}

void ruv_doc_close(doc_builder *b, ruv_block_kind kind, int level)
{
	size_t len = b->text.len, n_lines, i;
	ruv_block *block;
	uint32_t *line_at;

	while (len > 0 && is_space(b->text.data[len - 1]))
		len--;
	for (i = 0; i < len && is_space(b->text.data[i]); i++)
		;
	if (len == 0 || i == len || b->rc)
		goto done;
	if (b->n_blocks == b->cap_blocks) {
		size_t cap = b->cap_blocks ? 2 * b->cap_blocks : 64;
		ruv_block *blocks = realloc(b->blocks, cap * sizeof *blocks);
		if (!blocks) {
			b->rc = RUV_ENOMEM;
			goto done;
		}
		b->blocks = blocks;
		b->cap_blocks = cap;
	}
	/* Lines that begin behind the last visible character are not the block's. */
	for (n_lines = b->n_lines; n_lines > 0 && b->line_at[n_lines - 1] >= len; n_lines--)
		;
	block = &b->blocks[b->n_blocks];
	memset(block, 0, sizeof *block);
	block->kind = kind;
	block->level = level;
	block->len = len;
	block->text = ruv_arena_strndup(b->arena, b->text.data, len);
	line_at = ruv_arena_alloc(b->arena, (n_lines + 1) * sizeof *line_at);
	if (!block->text || !line_at) {
		b->rc = RUV_ENOMEM;
		goto done;
	}
	if (n_lines)
		memcpy(line_at, b->line_at, n_lines * sizeof *line_at);
	block->line_at = line_at;
	block->first_line = b->first_line;
	block->last_line = b->first_line + (int)n_lines;
	if (kind == RUV_BLOCK_HEADING) {
		block->heading_path = heading_path(b, level);
		b->heading[level] = block->text;
		for (i = (size_t)level + 1; i <= 6; i++)
			b->heading[i] = NULL;
		b->path = heading_path(b, 7);
	} else {
		block->heading_path = b->path;
	}
	b->n_blocks++;
done:
	ruv_buf_clear(&b->text);
	b->n_lines = 0;
}

int ruv_block_line(const ruv_block *block, size_t offset)
{
	int low = 0, high = block->last_line - block->first_line;

	while (low < high) {
		int middle = (low + high) / 2;
		if (block->line_at[middle] <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return block->first_line + low;
}

/* ---- plain text ---- */

size_t ruv_doc_list_marker(const char *text, size_t n_bytes)
{
	size_t i = 0, n;

	if (n_bytes > 3 && memcmp(text, "\xE2\x80\xA2", 3) == 0) { /* a bullet character */
		i = 3;
	} else if (n_bytes > 1 && (*text == '-' || *text == '*' || *text == '+')) {
		i = 1;
	} else {
		while (i < n_bytes && i < 4 && text[i] >= '0' && text[i] <= '9')
			i++;
		if (i == 0 || i == n_bytes || (text[i] != '.' && text[i] != ')'))
			return 0;
		i++;
	}
	for (n = i; n < n_bytes && (text[n] == ' ' || text[n] == '\t'); n++)
		;
	return n > i && n < n_bytes && text[n] != '\n' ? n : 0;
}

/* A line of plain text without its end. */
typedef struct text_line {
	const char *data;
	size_t len, indent;
	int number;
} text_line;

static bool next_line(const char *source, size_t n_bytes, size_t *at, int *number, text_line *line)
{
	const char *end;

	if (*at >= n_bytes)
		return false;
	line->data = source + *at;
	end = memchr(line->data, '\n', n_bytes - *at);
	line->len = end ? (size_t)(end - line->data) : n_bytes - *at;
	*at += line->len + (end != NULL);
	line->number = ++*number;
	while (line->len > 0 && is_space(line->data[line->len - 1]))
		line->len--;
	for (line->indent = 0; line->indent < line->len && is_space(line->data[line->indent]); line->indent++)
		;
	return true;
}

/* Paragraphs stand between empty lines; a line with a list marker begins an item. Lines are joined where they look wrapped: the
 * line is nearly as long as the paragraph's longest, which is a text's width, and the next one is not indented. */
void ruv_doc_read_text(doc_builder *b, const char *source, size_t n_bytes)
{
	size_t at = 0;
	int number = 0;
	text_line line;

	while (at < n_bytes && !b->rc) {
		size_t start = at, scan = at, widest = 0, previous = 0;
		int start_number = number, scan_number = number;
		bool item = false, first = true;

		while (next_line(source, n_bytes, &scan, &scan_number, &line) && line.len > 0)
			if (line.len > widest)
				widest = line.len;
		if (scan_number == start_number + 1 && widest == 0) { /* an empty line */
			at = scan;
			number = scan_number;
			continue;
		}
		at = start;
		while (next_line(source, n_bytes, &at, &number, &line) && line.len > 0) {
			if (ruv_doc_list_marker(line.data + line.indent, line.len - line.indent) && line.indent < 12) {
				ruv_doc_close(b, item ? RUV_BLOCK_LIST_ITEM : RUV_BLOCK_PARAGRAPH, item);
				item = true;
				ruv_doc_append(b, line.data + line.indent, line.len - line.indent, line.number, false);
			} else if (first || !ruv_doc_has_text(b)) {
				ruv_doc_append(b, line.data, line.len, line.number, true);
			} else if (item) {
				ruv_doc_append(b, " ", 1, line.number, true);
				ruv_doc_append(b, line.data + line.indent, line.len - line.indent, line.number, true);
			} else {
				bool wrapped = widest >= 50 && previous >= widest * 6 / 10 && line.indent == 0;
				ruv_doc_append(b, wrapped ? " " : "\n", 1, line.number, true);
				ruv_doc_append(b, line.data, line.len, line.number, true);
			}
			previous = line.len;
			first = false;
		}
		ruv_doc_close(b, item ? RUV_BLOCK_LIST_ITEM : RUV_BLOCK_PARAGRAPH, item);
	}
}

/* ---- the choice ---- */

ruv_document_kind ruv_document_kind_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	if (!dot)
		return RUV_DOCUMENT_TEXT;
	if (!strcasecmp(dot, ".md") || !strcasecmp(dot, ".markdown") || !strcasecmp(dot, ".mdown"))
		return RUV_DOCUMENT_MARKDOWN;
	if (!strcasecmp(dot, ".html") || !strcasecmp(dot, ".htm") || !strcasecmp(dot, ".xhtml"))
		return RUV_DOCUMENT_HTML;
	return RUV_DOCUMENT_TEXT;
}

const char *ruv_document_kind_name(ruv_document_kind kind)
{
	return kind == RUV_DOCUMENT_MARKDOWN ? "markdown" : kind == RUV_DOCUMENT_HTML ? "html" : "text";
}

/* ---- encodings ---- */

/* Which half of a UTF-16 unit stands first, by the byte order mark. UTF-32's little-endian mark begins like UTF-16's. */
typedef enum utf16_order { NOT_UTF16, UTF16_LE, UTF16_BE } utf16_order;

static utf16_order utf16_order_of(const char *bytes, size_t n_bytes)
{
	if (n_bytes < 2)
		return NOT_UTF16;
	if (memcmp(bytes, "\xFF\xFE", 2) == 0)
		return n_bytes >= 4 && bytes[2] == 0 && bytes[3] == 0 ? NOT_UTF16 : UTF16_LE;
	return memcmp(bytes, "\xFE\xFF", 2) == 0 ? UTF16_BE : NOT_UTF16;
}

static uint32_t utf16_unit(const char *bytes, utf16_order order)
{
	unsigned char a = (unsigned char)bytes[0], b = (unsigned char)bytes[1];

	return order == UTF16_LE ? (uint32_t)(b << 8 | a) : (uint32_t)(a << 8 | b);
}

bool ruv_document_is_binary(const char *bytes, size_t n_bytes)
{
	size_t i, n = n_bytes < 8192 ? n_bytes : 8192, n_control = 0, n_characters = 0;
	utf16_order order = utf16_order_of(bytes, n_bytes);
	size_t step = order == NOT_UTF16 ? 1 : 2;

	for (i = order == NOT_UTF16 ? 0 : 2; i + step <= n; i += step) {
		uint32_t c = order == NOT_UTF16 ? (unsigned char)bytes[i] : utf16_unit(bytes + i, order);
		if (c == 0)
			return true;
		n_control += c < 0x20 && !is_space((char)c) && c != 0x1B;
		n_characters++;
	}
	return n_control * 10 > n_characters;
}

static void put_character(ruv_buf *out, uint32_t cp)
{
	char bytes[4];

	ruv_buf_append(out, bytes, (size_t)ruv_utf8_encode(cp, bytes));
}

/* Units without their other half, and half a unit at the end, become U+FFFD. */
static void from_utf16(const char *source, size_t n_bytes, utf16_order order, ruv_buf *out)
{
	size_t i;

	for (i = 2; i + 2 <= n_bytes; i += 2) {
		uint32_t cp = utf16_unit(source + i, order), low;

		if (cp >= 0xD800 && cp <= 0xDFFF) {
			low = cp < 0xDC00 && i + 4 <= n_bytes ? utf16_unit(source + i + 2, order) : 0;
			if (low >= 0xDC00 && low <= 0xDFFF) {
				cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
				i += 2;
			} else {
				cp = 0xFFFD;
			}
		}
		put_character(out, cp);
	}
	if (i < n_bytes)
		put_character(out, 0xFFFD);
}

static void from_windows_1252(const char *source, size_t n_bytes, ruv_buf *out)
{
	/* 0x80 to 0x9F; the rest is Latin-1, the same as Unicode's first 256. Five bytes mean nothing. */
	static const uint16_t high[32] = {0x20AC, 0xFFFD, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
	                                  0x2039, 0x0152, 0xFFFD, 0x017D, 0xFFFD, 0xFFFD, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
	                                  0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0xFFFD, 0x017E, 0x0178};
	size_t i;

	for (i = 0; i < n_bytes; i++) {
		unsigned char c = (unsigned char)source[i];

		if (c < 0x80)
			ruv_buf_putc(out, (char)c);
		else
			put_character(out, c < 0xA0 ? high[c - 0x80] : c);
	}
}

/* Is what is not well-formed UTF-8 still meant as UTF-8: does it have more characters of several bytes than stray bytes? */
static bool is_damaged_utf8(const char *source, size_t n_bytes)
{
	size_t i = 0, n_good = 0, n_stray = 0;

	while (i < n_bytes) {
		int bad = 1, n = ruv_utf8_decode(source + i, n_bytes - i, NULL, &bad, NULL);

		n_good += n > 1;
		n_stray += n == 0;
		i += (size_t)(n ? n : bad);
	}
	return n_good > n_stray;
}

/* Well-formed UTF-8 without a byte order mark, with LF line ends and no NUL, and what there is to say about it. */
static int clean(const char *source, size_t n_bytes, ruv_buf *out, const char **note)
{
	utf16_order order = utf16_order_of(source, n_bytes);
	bool marked = n_bytes >= 3 && memcmp(source, "\xEF\xBB\xBF", 3) == 0;
	size_t i, n = 0;

	*note = "";
	if (marked) {
		source += 3;
		n_bytes -= 3;
	}
	if (order != NOT_UTF16) {
		from_utf16(source, n_bytes, order, out);
		*note = "read as UTF-16";
	} else if (ruv_utf8_valid_prefix(source, n_bytes) == n_bytes) {
		ruv_buf_append(out, source, n_bytes);
	} else if (marked || is_damaged_utf8(source, n_bytes)) {
		ruv_utf8_repair(source, n_bytes, out);
		*note = "bytes that are not UTF-8 were replaced";
	} else {
		from_windows_1252(source, n_bytes, out);
		*note = "read as Windows-1252: it is not UTF-8";
	}
	if (out->failed || out->len == 0)
		return out->failed;
	for (i = 0; i < out->len; i++)
		if (out->data[i] == 0) /* far behind, so that it is no binary file: a block is a C string */
			out->data[n++] = ' ';
		else if (out->data[i] != '\r')
			out->data[n++] = out->data[i];
		else if (i + 1 == out->len || out->data[i + 1] != '\n')
			out->data[n++] = '\n';
	ruv_buf_truncate(out, n);
	return RUV_OK;
}

static const char *first_heading(const doc_builder *b)
{
	const ruv_block *best = NULL;
	size_t i;

	for (i = 0; i < b->n_blocks; i++)
		if (b->blocks[i].kind == RUV_BLOCK_HEADING && (!best || b->blocks[i].level < best->level))
			best = &b->blocks[i];
	return best ? best->text : "";
}

int ruv_document_read(ruv_document **out, ruv_document_kind kind, const char *source, size_t n_bytes, ruv_error *err)
{
	document *doc = NULL;
	doc_builder b = {.path = ""};
	ruv_buf text;
	ruv_block *blocks;
	const char *title = NULL;
	size_t i;
	int rc;

	if (n_bytes > MAX_SOURCE)
		return ruv_fail(err, RUV_ELIMIT, "document", "%zu bytes are too much for one document, at most %d are read",
		                n_bytes, MAX_SOURCE);
	if (ruv_document_is_binary(source, n_bytes))
		return ruv_fail(err, RUV_EFORMAT, "document", "this is binary data, not text");
	ruv_buf_init(&text, 4 * (size_t)MAX_SOURCE);
	ruv_buf_init(&b.text, 4 * (size_t)MAX_SOURCE);
	doc = calloc(1, sizeof *doc);
	if (!doc) {
		rc = RUV_ENOMEM;
		goto done;
	}
	ruv_arena_init(&doc->arena);
	b.arena = &doc->arena;
	rc = clean(source, n_bytes, &text, &doc->pub.note);
	if (rc)
		goto done;
	doc->pub.n_lines = text.len > 0;
	for (i = 0; i + 1 < text.len; i++)
		doc->pub.n_lines += text.data[i] == '\n';
	if (kind == RUV_DOCUMENT_MARKDOWN)
		ruv_doc_read_markdown(&b, ruv_buf_cstr(&text), text.len, &title);
	else if (kind == RUV_DOCUMENT_HTML)
		ruv_doc_read_html(&b, ruv_buf_cstr(&text), text.len, 0, &title);
	else
		ruv_doc_read_text(&b, ruv_buf_cstr(&text), text.len);
	rc = b.rc;
	if (rc)
		goto done;
	blocks = ruv_arena_alloc(&doc->arena, (b.n_blocks + 1) * sizeof *blocks);
	if (!blocks) {
		rc = RUV_ENOMEM;
		goto done;
	}
	if (b.n_blocks)
		memcpy(blocks, b.blocks, b.n_blocks * sizeof *blocks);
	doc->pub.blocks = blocks;
	doc->pub.n_blocks = b.n_blocks;
	doc->pub.title = title && *title ? title : first_heading(&b);
	*out = &doc->pub;
	doc = NULL;
done:
	if (rc)
		ruv_fail(err, rc, "document", "reading %zu bytes: %s", n_bytes, ruv_status_text(rc));
	ruv_buf_release(&text);
	ruv_buf_release(&b.text);
	free(b.line_at);
	free(b.blocks);
	if (doc)
		ruv_document_free(&doc->pub);
	return rc;
}

void ruv_document_free(ruv_document *pub)
{
	document *doc = (document *)pub;

	if (!doc)
		return;
	ruv_arena_release(&doc->arena);
	free(doc);
}

/* document.h - reading text, Markdown (CommonMark, libcmark) and HTML (libxml2) into blocks that know where they stand.
 *
 * A document is a list of blocks in reading order: headings, paragraphs, list items, code, quotes, tables. Every block knows its
 * lines in the source (from 1) and the headings above it, so that an answer can cite FILE:LINE. Text is UTF-8. UTF-16 with
 * a byte order mark is converted; what is not UTF-8 is read as Windows-1252 (which has all of Latin-1's letters), unless most of
 * its bytes above 127 do form UTF-8: then it is damaged, and malformed bytes become U+FFFD. CRLF becomes LF. Inline markup is
 * dropped (link text stays; scripts, styles and a page's <nav> go), code keeps its line ends, the lines of a wrapped paragraph are
 * joined. List items begin with their marker ("- " or "2. ").
 *
 * Lifetime: all strings belong to the document. Threads: immutable once read. Layer: text. */
#ifndef RUV_TEXT_DOCUMENT_H
#define RUV_TEXT_DOCUMENT_H

#include "ruvllm/types.h"

typedef enum ruv_document_kind { RUV_DOCUMENT_TEXT, RUV_DOCUMENT_MARKDOWN, RUV_DOCUMENT_HTML } ruv_document_kind;

typedef enum ruv_block_kind {
	RUV_BLOCK_HEADING,
	RUV_BLOCK_PARAGRAPH,
	RUV_BLOCK_LIST_ITEM, /* one paragraph of an item; its nested items are blocks of their own */
	RUV_BLOCK_CODE,
	RUV_BLOCK_QUOTE,
	RUV_BLOCK_TABLE /* one row a line, cells joined by " | " */
} ruv_block_kind;

typedef struct ruv_block {
	ruv_block_kind kind;
	int level;        /* heading: 1..6; list item: depth from 1; else 0 */
	const char *text; /* [len] and a NUL */
	size_t len;
	int first_line, last_line; /* in the source, from 1 */
	const uint32_t *line_at;   /* [last_line - first_line] offsets in text where source line first_line + 1, + 2, ... begins */
	const char
	    *heading_path; /* the headings above it, " > " between them; "" when there are none; for a heading: its parents */
} ruv_block;

typedef struct ruv_document {
	const char *title;       /* HTML's <title>, else the first heading of the highest level, else "" */
	const ruv_block *blocks; /* [n_blocks] */
	size_t n_blocks;
	int n_lines;      /* of the source */
	const char *note; /* how it was read when not as UTF-8, for the user: "read as UTF-16"; "" when there is nothing to say */
} ruv_document;

/* The source line of the character at `offset` of a block's text. */
int ruv_block_line(const ruv_block *block, size_t offset);

/* By the ending of a file's name (.md, .markdown, .html, .htm, .xhtml); text for all others. */
ruv_document_kind ruv_document_kind_of(const char *path);
/* "text", "markdown", "html". */
const char *ruv_document_kind_name(ruv_document_kind kind);

/* Does it look like a binary file (a NUL, or many control characters, in the first 8 KiB)? Such files have nothing to read. Behind
 * a byte order mark of UTF-16 characters are counted, not bytes. */
bool ruv_document_is_binary(const char *bytes, size_t n_bytes);

/* Reads source[0..n_bytes), at most 256 MiB. A document without text has no blocks and is no error. The caller frees *out.
 * RUV_EFORMAT for binary data, RUV_ELIMIT, RUV_ENOMEM. */
int ruv_document_read(ruv_document **out, ruv_document_kind kind, const char *source, size_t n_bytes, ruv_error *err);
void ruv_document_free(ruv_document *doc);

#endif

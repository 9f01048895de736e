/* document_build.h - what the readers of document.h share: collecting a block's text with the source line of every byte.
 *
 * A reader appends characters with their line and closes the block; the builder trims, keeps the heading path and the line table.
 * The first failure stays in `rc`, and later calls do nothing. Layer: text, private. */
#ifndef RUV_TEXT_DOCUMENT_BUILD_H
#define RUV_TEXT_DOCUMENT_BUILD_H

#include "base/arena.h"
#include "base/buf.h"
#include "text/document.h"

typedef struct doc_builder {
	ruv_arena *arena;
	ruv_block *blocks;
	size_t n_blocks, cap_blocks;
	ruv_buf text;      /* of the open block */
	uint32_t *line_at; /* of the open block */
	size_t n_lines, cap_lines;
	int first_line, line;   /* of the open block: its first and its latest line */
	const char *heading[7]; /* [1..6] the open headings, NULL where there is none */
	const char *path;       /* of the open headings */
	int rc;
} doc_builder;

/* Appends bytes that stand in source line `line`. Leading white space of a block is dropped unless keep_space. */
void ruv_doc_append(doc_builder *b, const char *bytes, size_t n_bytes, int line, bool keep_space);
/* Has the open block any text? */
bool ruv_doc_has_text(const doc_builder *b);
/* Ends the open block: trims white space at its end, adds it when anything is left. */
void ruv_doc_close(doc_builder *b, ruv_block_kind kind, int level);
/* Is there white space or nothing at the end of the open block? */
bool ruv_doc_at_space(const doc_builder *b);

/* Drops spaces at the end of the open block. */
void ruv_doc_trim(doc_builder *b);

/* The readers. `line_base` is added to line numbers (a fragment within another document). */
void ruv_doc_read_text(doc_builder *b, const char *source, size_t n_bytes);
void ruv_doc_read_markdown(doc_builder *b, const char *source, size_t n_bytes, const char **title);
void ruv_doc_read_html(doc_builder *b, const char *source, size_t n_bytes, int line_base, const char **title);

/* Length of a list marker and the spaces behind it at the start of a line ("- ", "* ", "12. ", "3) "); 0 when there is none. */
size_t ruv_doc_list_marker(const char *text, size_t n_bytes);

#endif

/* document_markdown.c - Markdown into blocks, over libcmark's tree (CommonMark 0.30) with source positions.
 *
 * CommonMark has no tables: a paragraph whose second line is a table's delimiter row is taken as one. YAML front matter is skipped,
 * its title kept. Blocks of raw HTML go through the HTML reader. */
#include <cmark.h>
#include <stdlib.h>
#include <string.h>

#include "text/document_build.h"

/* Inside a paragraph while it is collected: how a line ended. */
#define SOFT '\r'
#define HARD '\n'

static bool is_delimiter_row(const char *line, size_t len)
{
	size_t i;
	bool dash = false, bar = false;

	for (i = 0; i < len; i++) {
		dash |= line[i] == '-';
		bar |= line[i] == '|';
		if (!strchr("-|: \t", line[i]))
			return false;
	}
	return dash && bar;
}

/* Appends one row's cells. */
static void append_row(doc_builder *b, const char *row, size_t len, int line)
{
	size_t i = 0, n_cells = 0;

	while (len > 0 && (row[len - 1] == ' ' || row[len - 1] == '\t'))
		len--;
	if (len > 0 && row[len - 1] == '|')
		len--;
	while (i < len && (row[i] == ' ' || row[i] == '\t'))
		i++;
	if (i < len && row[i] == '|')
		i++;
	while (i <= len) {
		size_t end = i, first, last;
		while (end < len && row[end] != '|')
			end++;
		for (first = i; first < end && row[first] == ' '; first++)
			;
		for (last = end; last > first && row[last - 1] == ' '; last--)
			;
		if (n_cells++)
			ruv_doc_append(b, " | ", 3, line, true);
		ruv_doc_append(b, row + first, last - first, line, true);
		i = end + 1;
	}
}

/* `text` holds the paragraph with its line ends; line `first_line + k` is its k-th line. */
static void add_paragraph(doc_builder *b, const char *marker, const char *text, size_t len, int first_line, ruv_block_kind kind,
                          int level)
{
	const char *second = memchr(text, SOFT, len);
	size_t at = 0, n = 0;
	int line = first_line;
	bool table = false;

	if (second) {
		const char *rest = second + 1, *end = memchr(rest, SOFT, len - (size_t)(rest - text));
		table = memchr(text, '|', (size_t)(second - text)) &&
		        is_delimiter_row(rest, end ? (size_t)(end - rest) : len - (size_t)(rest - text));
	}
	if (*marker)
		ruv_doc_append(b, marker, strlen(marker), first_line, false);
	while (at < len) {
		for (n = at; n < len && text[n] != SOFT && text[n] != HARD; n++)
			;
		if (!table) {
			ruv_doc_append(b, text + at, n - at, line, *marker != 0);
			if (n < len && text[n] == HARD)
				ruv_doc_append(b, "\n", 1, line, true);
			else if (n < len && !ruv_doc_at_space(b))
				ruv_doc_append(b, " ", 1, line, true);
		} else if (line != first_line + 1) {
			append_row(b, text + at, n - at, line);
			ruv_doc_append(b, "\n", 1, line, true);
		}
		line++;
		at = n + 1;
	}
	ruv_doc_close(b, table ? RUV_BLOCK_TABLE : kind, table ? 0 : level);
}

/* Length of the front matter and, when it has one, its title. */
static size_t front_matter(doc_builder *b, const char *source, size_t n_bytes, const char **title)
{
	const char *end, *line;

	if (n_bytes < 8 || memcmp(source, "---\n", 4))
		return 0;
	end = strstr(source, "\n---\n");
	if (!end || end - source > 16384)
		return 0;
	for (line = source + 4; line < end; line = strchr(line, '\n') + 1) {
		const char *stop = strchr(line, '\n');
		if (strncmp(line, "title:", 6) == 0) {
			for (line += 6; line < stop && strchr(" \"'", *line); line++)
				;
			while (stop > line && strchr(" \"'", stop[-1]))
				stop--;
			*title = ruv_arena_strndup(b->arena, line, (size_t)(stop - line));
			if (!*title)
				b->rc = RUV_ENOMEM;
			break;
		}
	}
	return (size_t)(end + 5 - source);
}

void ruv_doc_read_markdown(doc_builder *b, const char *source, size_t n_bytes, const char **title)
{
	size_t skip = front_matter(b, source, n_bytes, title), i;
	int base = 0, quote = 0, depth = 0, level;
	cmark_node *root, *node;
	cmark_iter *iter;
	cmark_event_type event;
	ruv_buf text;
	char marker[24] = "";
	const char *source_at = source + skip; /* where line source_line of the parsed text begins */
	int source_line = 1;

	for (i = 0; i < skip; i++)
		base += source[i] == '\n';
	root = cmark_parse_document(source + skip, n_bytes - skip, CMARK_OPT_DEFAULT);
	iter = root ? cmark_iter_new(root) : NULL;
	if (!iter) {
		cmark_node_free(root);
		b->rc = RUV_ENOMEM;
		return;
	}
	ruv_buf_init(&text, n_bytes + 16);
	while (!b->rc && (event = cmark_iter_next(iter)) != CMARK_EVENT_DONE) {
		bool enter = event == CMARK_EVENT_ENTER;
		const char *literal;
		int line;

		node = cmark_iter_get_node(iter);
		line = cmark_node_get_start_line(node) + base;
		switch (cmark_node_get_type(node)) {
		case CMARK_NODE_BLOCK_QUOTE:
			quote += enter ? 1 : -1;
			break;
		case CMARK_NODE_LIST:
			depth += enter ? 1 : -1;
			break;
		case CMARK_NODE_ITEM:
			marker[0] = '\0';
			if (enter && cmark_node_get_list_type(cmark_node_parent(node)) == CMARK_ORDERED_LIST) {
				cmark_node *before;
				int number = cmark_node_get_list_start(cmark_node_parent(node));
				for (before = cmark_node_previous(node); before; before = cmark_node_previous(before))
					number++;
				snprintf(marker, sizeof marker, "%d. ", number);
			} else if (enter) {
				strcpy(marker, "- ");
			}
			break;
		case CMARK_NODE_PARAGRAPH:
		case CMARK_NODE_HEADING:
			if (enter) {
				ruv_buf_clear(&text);
				break;
			}
			if (cmark_node_get_type(node) == CMARK_NODE_HEADING) {
				level = cmark_node_get_heading_level(node);
				for (i = 0; i < text.len; i++)
					if (text.data[i] == SOFT || text.data[i] == HARD)
						text.data[i] = ' ';
				ruv_doc_append(b, ruv_buf_cstr(&text), text.len, line, false);
				ruv_doc_close(b, RUV_BLOCK_HEADING, level);
			} else {
				add_paragraph(b, marker, ruv_buf_cstr(&text), text.len, line,
				              depth   ? RUV_BLOCK_LIST_ITEM
				              : quote ? RUV_BLOCK_QUOTE
				                      : RUV_BLOCK_PARAGRAPH,
				              depth);
			}
			marker[0] = '\0';
			b->rc = b->rc ? b->rc : text.failed;
			break;
		case CMARK_NODE_TEXT:
		case CMARK_NODE_CODE:
			literal = cmark_node_get_literal(node);
			ruv_buf_puts(&text, literal ? literal : "");
			break;
		case CMARK_NODE_SOFTBREAK:
			ruv_buf_putc(&text, SOFT);
			break;
		case CMARK_NODE_LINEBREAK:
			ruv_buf_putc(&text, HARD);
			break;
		case CMARK_NODE_CODE_BLOCK: {
			const char *at = cmark_node_get_literal(node), *end;
			/* The fence's own line comes before the code; an indented block has none. */
			while (source_line < line - base && (end = strchr(source_at, '\n'))) {
				source_at = end + 1;
				source_line++;
			}
			end = source_at + cmark_node_get_start_column(node) - 1;
			line += (size_t)(end - source) < n_bytes && (*end == '`' || *end == '~');
			for (; at && *at; at = end) {
				end = strchr(at, '\n');
				end = end ? end + 1 : at + strlen(at);
				ruv_doc_append(b, at, (size_t)(end - at), line++, true);
			}
			ruv_doc_close(b, RUV_BLOCK_CODE, 0);
			break;
		}
		case CMARK_NODE_HTML_BLOCK:
			literal = cmark_node_get_literal(node);
			if (enter && literal)
				ruv_doc_read_html(b, literal, strlen(literal), line - 1, NULL);
			break;
		default:
			break;
		}
	}
	ruv_buf_release(&text);
	cmark_iter_free(iter);
	cmark_node_free(root);
}

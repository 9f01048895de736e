/* document_html.c - HTML into blocks, over libxml2's forgiving parser in its event form: no tree, so that deep nesting costs
 * nothing.
 *
 * A block ends where an element that is laid out as a block begins or ends. Scripts, styles, templates, drawings and <nav> go.
 * Cells of a table row are joined by " | "; a table that holds headings, lists or further tables is layout and its content reads
 * like any other. The parser reports text behind its end, so a run's first line is its last minus the line ends in it. */
#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>
#include <libxml/SAX2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text/document_build.h"

enum { MAX_LISTS = 32 };

typedef struct html_reader {
	doc_builder *b;
	htmlParserCtxtPtr parser;
	int line_base;
	int n_dropped; /* depth inside elements whose text goes */
	bool in_title;
	int heading; /* level of the open heading, 0: none */
	int n_pre, n_quotes;
	int n_lists, number[MAX_LISTS]; /* open lists: the next number of an ordered one, -1 of a bulleted one */
	bool item;                      /* the open block belongs to a list item */
	int n_tables;                   /* depth */
	int table;                      /* the depth whose rows are collected, 0: none */
	bool row_has_cell;
	int line; /* of the latest character */
	ruv_buf title;
} html_reader;

static bool one_of(const char *name, const char *const *names)
{
	for (; *names; names++)
		if (strcasecmp(name, *names) == 0)
			return true;
	return false;
}

static const char *const dropped[] = {"script", "style",  "template", "svg",    "math", "nav",
                                      "iframe", "object", "select",   "button", NULL};
static const char *const blocks[] = {
    "p",    "div",      "section", "article",    "main",     "header",  "footer",  "aside",    "ul",    "ol",      "menu", "dl",
    "dt",   "dd",       "li",      "blockquote", "table",    "tr",      "thead",   "tbody",    "tfoot", "caption", "pre",  "hr",
    "form", "fieldset", "figure",  "figcaption", "address",  "details", "summary", "body",     "html",  "h1",      "h2",   "h3",
    "h4",   "h5",       "h6",      "center",     "noscript", "legend",  "option",  "textarea", NULL};
static const char *const layout[] = {"h1", "h2",  "h3",    "h4",      "h5",      "h6",         "ul", "ol",
                                     "dl", "pre", "table", "article", "section", "blockquote", NULL};

/* A block that holds nothing but a list marker. */
static bool only_marker(const doc_builder *b)
{
	return b->text.len > 0 && b->text.len < 8 &&
	       (strcmp(b->text.data, "- ") == 0 || strspn(b->text.data, "0123456789. ") == b->text.len);
}

/* A list marker alone waits for its item's text: <li><p>text. */
static void close_block(html_reader *h)
{
	ruv_block_kind kind = RUV_BLOCK_PARAGRAPH;
	int level = 0;

	if (h->item && only_marker(h->b))
		return;
	if (h->heading) {
		kind = RUV_BLOCK_HEADING;
		level = h->heading;
	} else if (h->n_pre) {
		kind = RUV_BLOCK_CODE;
	} else if (h->table) {
		kind = RUV_BLOCK_TABLE;
	} else if (h->item && h->n_lists) {
		kind = RUV_BLOCK_LIST_ITEM;
		level = h->n_lists;
	} else if (h->n_quotes) {
		kind = RUV_BLOCK_QUOTE;
	}
	ruv_doc_close(h->b, kind, level);
}

static void end_table_mode(html_reader *h)
{
	if (!h->table)
		return;
	close_block(h);
	h->table = 0;
}

static void on_start(void *user, const xmlChar *name_x, const xmlChar **attributes)
{
	html_reader *h = user;
	const char *name = (const char *)name_x;

	(void)attributes;
	if (one_of(name, dropped)) {
		h->n_dropped++;
		return;
	}
	if (h->n_dropped)
		return;
	if (strcasecmp(name, "title") == 0) {
		h->in_title = true;
		return;
	}
	if (strcasecmp(name, "br") == 0) {
		if (ruv_doc_has_text(h->b))
			ruv_doc_append(h->b, h->table ? " " : "\n", 1, h->b->line, true);
		return;
	}
	if (h->table && one_of(name, layout))
		end_table_mode(h);
	if (h->table) {
		if (strcasecmp(name, "td") == 0 || strcasecmp(name, "th") == 0) {
			if (h->row_has_cell)
				ruv_doc_append(h->b, " | ", 3, h->line ? h->line : 1, true);
			h->row_has_cell = true;
		} else if (one_of(name, blocks) && ruv_doc_has_text(h->b) && !ruv_doc_at_space(h->b)) {
			ruv_doc_append(h->b, " ", 1, h->b->line, true);
		}
		if (strcasecmp(name, "tr") == 0)
			h->row_has_cell = false;
		return;
	}
	if (!one_of(name, blocks)) {
		if ((strcasecmp(name, "td") == 0 || strcasecmp(name, "th") == 0))
			close_block(h);
		return;
	}
	close_block(h);
	if (strcasecmp(name, "table") == 0) {
		h->n_tables++;
		h->table = h->n_tables;
		h->row_has_cell = false;
	} else if (strcasecmp(name, "pre") == 0 || strcasecmp(name, "textarea") == 0) {
		h->n_pre++;
	} else if (strcasecmp(name, "blockquote") == 0) {
		h->n_quotes++;
	} else if ((name[0] == 'h' || name[0] == 'H') && name[1] >= '1' && name[1] <= '6' && !name[2]) {
		h->heading = name[1] - '0';
	} else if (strcasecmp(name, "ul") == 0 || strcasecmp(name, "menu") == 0 || strcasecmp(name, "ol") == 0) {
		if (h->n_lists < MAX_LISTS)
			h->number[h->n_lists] = name[0] == 'o' || name[0] == 'O' ? 1 : -1;
		h->n_lists++;
		h->item = false;
	} else if (strcasecmp(name, "li") == 0) {
		char marker[24] = "- ";
		int k = h->n_lists - 1;
		if (k >= 0 && k < MAX_LISTS && h->number[k] > 0)
			snprintf(marker, sizeof marker, "%d. ", h->number[k]++);
		if (only_marker(h->b)) /* an empty item before, or a list right inside it */
			ruv_buf_clear(&h->b->text);
		/* The marker stands on the line where the item's tag does. */
		ruv_doc_append(h->b, marker, strlen(marker), h->parser->input ? h->parser->input->line + h->line_base : 1, true);
		h->item = true;
	}
}

static void on_end(void *user, const xmlChar *name_x)
{
	html_reader *h = user;
	const char *name = (const char *)name_x;

	if (one_of(name, dropped)) {
		h->n_dropped -= h->n_dropped > 0;
		return;
	}
	if (h->n_dropped)
		return;
	if (strcasecmp(name, "title") == 0) {
		h->in_title = false;
		return;
	}
	if (h->table && strcasecmp(name, "table") != 0) {
		if (strcasecmp(name, "tr") == 0)
			ruv_doc_trim(h->b);
		if (strcasecmp(name, "tr") == 0 && ruv_doc_has_text(h->b))
			ruv_doc_append(h->b, "\n", 1, h->b->line, true);
		return;
	}
	if (!one_of(name, blocks))
		return;
	if (strcasecmp(name, "li") == 0 && only_marker(h->b))
		ruv_buf_clear(&h->b->text);
	close_block(h);
	if (strcasecmp(name, "table") == 0) {
		h->table = 0;
		h->n_tables -= h->n_tables > 0;
	} else if (strcasecmp(name, "pre") == 0 || strcasecmp(name, "textarea") == 0) {
		h->n_pre -= h->n_pre > 0;
	} else if (strcasecmp(name, "blockquote") == 0) {
		h->n_quotes -= h->n_quotes > 0;
	} else if ((name[0] == 'h' || name[0] == 'H') && name[1] >= '1' && name[1] <= '6' && !name[2]) {
		h->heading = 0;
	} else if (strcasecmp(name, "ul") == 0 || strcasecmp(name, "menu") == 0 || strcasecmp(name, "ol") == 0) {
		h->n_lists -= h->n_lists > 0;
		h->item = h->n_lists > 0;
	} else if (strcasecmp(name, "li") == 0) {
		h->item = false;
	}
}

static void on_text(void *user, const xmlChar *text_x, int len)
{
	html_reader *h = user;
	const char *text = (const char *)text_x;
	int line, i, n;

	if (len <= 0 || h->n_dropped)
		return;
	if (h->in_title) {
		ruv_buf_append(&h->title, text, (size_t)len);
		return;
	}
	line = (h->parser->input ? h->parser->input->line : 1) + h->line_base;
	for (i = 0; i < len; i++)
		line -= text[i] == '\n';
	if (line < h->line_base + 1)
		line = h->line_base + 1;
	if (ruv_doc_has_text(h->b) && line < h->b->line)
		line = h->b->line;
	for (i = 0; i < len;) {
		if (h->n_pre) {
			for (n = i; n < len && text[n] != '\n'; n++)
				;
			ruv_doc_append(h->b, text + i, (size_t)(n - i), line, true);
			if (n < len && ruv_doc_has_text(h->b))
				ruv_doc_append(h->b, "\n", 1, line, true);
			line += n < len;
			i = n + 1;
			continue;
		}
		if (strchr(" \t\n\f\r\v", text[i]) || (text[i] == '\xC2' && i + 1 < len && text[i + 1] == '\xA0')) {
			if (ruv_doc_has_text(h->b) && !ruv_doc_at_space(h->b))
				ruv_doc_append(h->b, " ", 1, line, true);
			line += text[i] == '\n';
			i += text[i] == '\xC2' ? 2 : 1;
			continue;
		}
		for (n = i; n < len && !strchr(" \t\n\f\r\v", text[n]) && text[n] != '\xC2'; n++)
			;
		if (n == i) /* another character of Latin-1 */
			n = i + 1;
		ruv_doc_append(h->b, text + i, (size_t)(n - i), line, false);
		i = n;
	}
	h->line = line;
}

static void init_library(void)
{
	xmlInitParser();
}

void ruv_doc_read_html(doc_builder *b, const char *source, size_t n_bytes, int line_base, const char **title)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	html_reader h = {.b = b, .line_base = line_base};

	pthread_once(&once, init_library);
	if (n_bytes == 0)
		return;
	h.parser = htmlCreateMemoryParserCtxt(source, (int)n_bytes);
	if (!h.parser) {
		b->rc = RUV_ENOMEM;
		return;
	}
	htmlCtxtUseOptions(h.parser, HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING | HTML_PARSE_NONET |
	                                 HTML_PARSE_IGNORE_ENC | HTML_PARSE_COMPACT);
	xmlSwitchEncoding(h.parser, XML_CHAR_ENCODING_UTF8);
	memset(h.parser->sax, 0, sizeof *h.parser->sax);
	h.parser->sax->initialized = 1;
	h.parser->sax->startElement = on_start;
	h.parser->sax->endElement = on_end;
	h.parser->sax->characters = on_text;
	h.parser->sax->ignorableWhitespace = on_text;
	h.parser->sax->cdataBlock = on_text;
	h.parser->userData = &h;
	ruv_buf_init(&h.title, 4096);
	htmlParseDocument(h.parser);
	close_block(&h);
	if (title && h.title.len) {
		/* One line, single spaces. */
		size_t i, n = 0;
		for (i = 0; i < h.title.len; i++) {
			bool space = strchr(" \t\n\r\f", h.title.data[i]) != NULL;
			if (space && (n == 0 || h.title.data[n - 1] == ' '))
				continue;
			h.title.data[n++] = space ? ' ' : h.title.data[i];
		}
		while (n > 0 && h.title.data[n - 1] == ' ')
			n--;
		*title = ruv_arena_strndup(b->arena, h.title.data, n);
		if (!*title)
			b->rc = RUV_ENOMEM;
	}
	ruv_buf_release(&h.title);
	htmlFreeParserCtxt(h.parser);
}

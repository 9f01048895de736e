/* test_chunk.c - documents into blocks, sentences, chunks: where things stand, and what must hold for every input. */
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "text/chunk.h"
#include "text/unicode.h"
#include "vocab_fixture.h"

/* The blocks as "kind level first-last path|text" lines. */
static void check_blocks(ruv_document_kind kind, const char *source, const char *title, const char *expected)
{
	static const char kinds[] = "HPLCQT";
	ruv_document *doc = NULL;
	ruv_error err = {0};
	ruv_buf got;
	size_t i;

	assert_ok(ruv_document_read(&doc, kind, source, strlen(source), &err), err);
	ruv_buf_init(&got, 1 << 20);
	for (i = 0; i < doc->n_blocks; i++) {
		const ruv_block *b = &doc->blocks[i];
		assert_int_equal(strlen(b->text), b->len);
		ruv_buf_printf(&got, "%c%d %d-%d %s|%s\n", kinds[b->kind], b->level, b->first_line, b->last_line, b->heading_path,
		               b->text);
	}
	assert_string_equal(ruv_buf_cstr(&got), expected);
	assert_string_equal(doc->title, title);
	ruv_buf_release(&got);
	ruv_document_free(doc);
}

static void test_markdown(void **state)
{
	(void)state;
	check_blocks(RUV_DOCUMENT_MARKDOWN,
	             "# Title *one*\n\nFirst paragraph\nwrapped, with `code` and a\n[link](http://x.y).\n\n## Sub\n- item **a**\n- "
	             "item b\n  goes on\n\n"
	             "  second paragraph\n  1. inner\n  2. inner two\n\n> quoted\n> text\n\n```c\nint x;\n\n  y();\n```\n\n    "
	             "indented code\n\nTail  \nhard break\n",
	             "Title one",
	             "H1 1-1 |Title one\n"
	             "P0 3-5 Title one|First paragraph wrapped, with code and a link.\n"
	             "H2 7-7 Title one|Sub\n"
	             "L1 8-8 Title one > Sub|- item a\n"
	             "L1 9-10 Title one > Sub|- item b goes on\n"
	             "L1 12-12 Title one > Sub|second paragraph\n"
	             "L2 13-13 Title one > Sub|1. inner\n"
	             "L2 14-14 Title one > Sub|2. inner two\n"
	             "Q0 16-17 Title one > Sub|quoted text\n"
	             "C0 20-22 Title one > Sub|int x;\n\n  y();\n"
	             "C0 25-25 Title one > Sub|indented code\n"
	             "P0 27-28 Title one > Sub|Tail\nhard break\n");
	check_blocks(RUV_DOCUMENT_MARKDOWN,
	             "---\ntitle: \"Front matter\"\ndate: x\n---\n\nText.\n\n| A | B |\n|---|:-:|\n| 1 | `2` |\n| 3 |  |\n",
	             "Front matter", "P0 6-6 |Text.\nT0 8-11 |A | B\n1 | 2\n3 |\n");
	check_blocks(RUV_DOCUMENT_MARKDOWN, "A\n=\n\ntext\n\n### Deep\n\nx\n\n## Two\n\ny\n", "A",
	             "H1 1-1 |A\nP0 4-4 A|text\nH3 6-6 A|Deep\nP0 8-8 A > Deep|x\nH2 10-10 A|Two\nP0 12-12 A > Two|y\n");
	check_blocks(RUV_DOCUMENT_MARKDOWN,
	             "<div align=\"center\">\n\n<b>Big</b> text\n\n</div>\n\n<p>in html\n<i>two</i></p>\n<script>no</script>\n", "",
	             "P0 3-3 |Big text\nP0 7-8 |in html two\n");
	check_blocks(RUV_DOCUMENT_MARKDOWN, "", "", "");
	check_blocks(RUV_DOCUMENT_MARKDOWN, "a\r\nb\r\n\r\nc", "", "P0 1-2 |a b\nP0 4-4 |c\n");
}

static void test_html(void **state)
{
	(void)state;
	check_blocks(RUV_DOCUMENT_HTML,
	             "<!DOCTYPE html>\n<html><head><title>My\n page</title>\n<script>if (a<b) "
	             "x('<p>no</p>');</script><style>p{}</style></head>\n"
	             "<body><nav><a>Home</a></nav>\n<h1>Head &amp; more</h1>\n<p>Caf&eacute; is <b>bo</b>ld&nbsp;and\nwraps "
	             "&mdash; ok.<p>Unclosed\n"
	             "<ul><li>one<li><p>two</p><ol><li>in<li>ner</ol></ul>\n<pre>\nint x;\n  y &lt; z;\n</pre>\n<h2>T</h2>\n"
	             "<table><tr><th>N<th>V\n<tr><td>a<td><p>1</p>\n</table>\n<blockquote>quote</blockquote>\n<div>out<div>in</"
	             "div>after<br>break</div>\n"
	             "<!-- c --><svg><text>no</text></svg>end &lt;x&gt;</body></html>",
	             "My page",
	             "H1 6-6 |Head & more\n"
	             "P0 7-8 Head & more|Caf\xC3\xA9 is bold and wraps \xE2\x80\x94 ok.\n"
	             "P0 8-8 Head & more|Unclosed\n"
	             "L1 9-9 Head & more|- one\n"
	             "L1 9-9 Head & more|- two\n"
	             "L2 9-9 Head & more|1. in\n"
	             "L2 9-9 Head & more|2. ner\n"
	             "C0 11-12 Head & more|int x;\n  y < z;\n"
	             "H2 14-14 Head & more|T\n"
	             "T0 15-16 Head & more > T|N | V\na | 1\n"
	             "Q0 18-18 Head & more > T|quote\n"
	             "P0 19-19 Head & more > T|out\n"
	             "P0 19-19 Head & more > T|in\n"
	             "P0 19-19 Head & more > T|after\nbreak\n"
	             "P0 20-20 Head & more > T|end <x>\n");
	check_blocks(RUV_DOCUMENT_HTML, "<table><tr><td><h2>Layout</h2><p>text</p></td></tr></table>", "Layout",
	             "H2 1-1 |Layout\nP0 1-1 Layout|text\n");
	check_blocks(RUV_DOCUMENT_HTML, "plain & simple", "", "P0 1-1 |plain & simple\n");
	check_blocks(RUV_DOCUMENT_HTML, "", "", "");
	check_blocks(RUV_DOCUMENT_HTML, "<p>\xC3\xA9\xC2\xB5 \xE6\x97\xA5</p>", "", "P0 1-1 |\xC3\xA9\xC2\xB5 \xE6\x97\xA5\n");
}

static void test_text(void **state)
{
	(void)state;
	check_blocks(
	    RUV_DOCUMENT_TEXT,
	    "\xEF\xBB\xBF"
	    "This is a plain text file that was wrapped by an editor at about seventy\ncharacters, so that its lines should be "
	    "joined again.\n\n"
	    "Short lines\nstay apart\n\n\n- item one\n- item two that\n  continues\n3. numbered\n\ndef f(x):\n    return x\n",
	    "",
	    "P0 1-2 |This is a plain text file that was wrapped by an editor at about seventy characters, so that its lines should "
	    "be joined again.\n"
	    "P0 4-5 |Short lines\nstay apart\n"
	    "L1 8-8 |- item one\n"
	    "L1 9-10 |- item two that continues\n"
	    "L1 11-11 |3. numbered\n"
	    "P0 13-14 |def f(x):\n    return x\n");
	check_blocks(RUV_DOCUMENT_TEXT, "a\xFF\rb\n\n\n", "", "P0 1-2 |a\xC3\xBF\nb\n");
	check_blocks(RUV_DOCUMENT_TEXT, "\n \n\t\n", "", "");
}

static void check_encoding(ruv_document_kind kind, const char *bytes, size_t n, const char *text, const char *note)
{
	ruv_document *doc = NULL;
	ruv_error err = {0};

	assert_false(ruv_document_is_binary(bytes, n));
	assert_ok(ruv_document_read(&doc, kind, bytes, n, &err), err);
	assert_int_equal(doc->n_blocks, 1);
	assert_string_equal(doc->blocks[0].text, text);
	assert_string_equal(doc->note, note);
	ruv_document_free(doc);
}

#define ENCODED(literal) literal, sizeof(literal) - 1

static void test_encodings(void **state)
{
	static const char *const cp1252 = "read as Windows-1252: it is not UTF-8", *const utf16 = "read as UTF-16",
				 *const damaged = "bytes that are not UTF-8 were replaced";
	ruv_document_kind text = RUV_DOCUMENT_TEXT;
	static char far[16384], copy[16384];

	(void)state;
	check_encoding(text,
	               ENCODED("\xFF\xFE"
	                       "K\0\xE9\0\r\0\n\0\x3D\xD8\x00\xDE"),
	               "K\xC3\xA9\n\xF0\x9F\x98\x80", utf16);
	check_encoding(text,
	               ENCODED("\xFE\xFF"
	                       "\0K\0\xE9\x20\xAC\xD8\x3D\xDE\x00"),
	               "K\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", utf16);
	/* Half a pair, and half a unit. */
	check_encoding(text,
	               ENCODED("\xFE\xFF"
	                       "\xDE\x00\0K\xD8\x3D\0L\xD8\x3D!"),
	               "\xEF\xBF\xBDK\xEF\xBF\xBDL\xEF\xBF\xBD\xEF\xBF\xBD", utf16);
	check_encoding(RUV_DOCUMENT_HTML, ENCODED("\xFF\xFE<\0p\0>\0\xE9\0"), "\xC3\xA9", utf16);
	check_encoding(text, ENCODED("Caf\xE9 \x80 5 \x93ok\x94 \x81"),
	               "Caf\xC3\xA9 \xE2\x82\xAC 5 \xE2\x80\x9Cok\xE2\x80\x9D \xEF\xBF\xBD", cp1252);
	check_encoding(RUV_DOCUMENT_MARKDOWN, ENCODED("na\xEFve"), "na\xC3\xAFve", cp1252);
	check_encoding(RUV_DOCUMENT_HTML, ENCODED("<meta charset=\"iso-8859-1\"><p>\xE9\xFC"), "\xC3\xA9\xC3\xBC", cp1252);
	check_encoding(text, ENCODED("\xC3\xA9 \xC3\xBC \xFF \xC3\xA4"), "\xC3\xA9 \xC3\xBC \xEF\xBF\xBD \xC3\xA4", damaged);
	check_encoding(text,
	               ENCODED("\xEF\xBB\xBF"
	                       "a\xFF"),
	               "a\xEF\xBF\xBD", damaged);
	check_encoding(text, ENCODED("\xC3\xA9"), "\xC3\xA9", "");
	assert_true(ruv_document_is_binary(ENCODED("\xFF\xFE\0\0a\0\0\0"))); /* UTF-32 */
	assert_true(ruv_document_is_binary(ENCODED("\xFF\xFE"
	                                           "a\0\0\0b\0")));
	assert_true(ruv_document_is_binary(ENCODED("a\0b\0")));
	memset(far, 'a', sizeof far); /* a NUL where nobody looks for it */
	far[sizeof far - 1] = 0;
	memcpy(copy, far, sizeof far);
	far[9000] = ' ';
	copy[9000] = 0;
	check_encoding(text, copy, sizeof copy - 1, far, "");
}

static void test_kinds(void **state)
{
	ruv_document *doc = NULL;
	ruv_error err = {0};

	(void)state;
	assert_int_equal(ruv_document_kind_of("a/b.MD"), RUV_DOCUMENT_MARKDOWN);
	assert_int_equal(ruv_document_kind_of("x.html"), RUV_DOCUMENT_HTML);
	assert_int_equal(ruv_document_kind_of("x.htm.txt"), RUV_DOCUMENT_TEXT);
	assert_int_equal(ruv_document_kind_of("README"), RUV_DOCUMENT_TEXT);
	assert_true(ruv_document_is_binary("\x7f"
	                                   "ELF\0",
	                                   5) &&
	            !ruv_document_is_binary("text\n", 5) && !ruv_document_is_binary("", 0));
	assert_int_equal(ruv_document_read(&doc, RUV_DOCUMENT_TEXT, "a\0b", 3, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "binary"));
}

static void check_sentences(const char *text, const char *expected)
{
	size_t n = strlen(text), at = 0, begin, end;
	ruv_buf got;

	ruv_buf_init(&got, 1 << 16);
	while (ruv_sentence_next(text, n, at, &begin, &end)) {
		assert_true(begin >= at && end > begin && end <= n);
		ruv_buf_append(&got, text + begin, end - begin);
		ruv_buf_putc(&got, '|');
		at = end;
	}
	assert_string_equal(ruv_buf_cstr(&got), expected);
	ruv_buf_release(&got);
}

static void test_sentences(void **state)
{
	(void)state;
	check_sentences("One. Two! Three? Four", "One.|Two!|Three?|Four|");
	check_sentences("Dr. Smith paid $3.50 to J. R. Jones, e.g. at 5 p.m. on Monday. Then he left.",
	                "Dr. Smith paid $3.50 to J. R. Jones, e.g. at 5 p.m. on Monday.|Then he left.|");
	check_sentences("Use v1.2.3 of file.txt (see example.com). It works.",
	                "Use v1.2.3 of file.txt (see example.com).|It works.|");
	check_sentences("He said \"Stop!\" and ran. \"Why?\" she asked. (Nobody knew.) End.",
	                "He said \"Stop!\" and ran.|\"Why?\" she asked.|(Nobody knew.)|End.|");
	check_sentences("Wait... what? No\xE2\x80\xA6 yes. Really?! Yes.", "Wait... what?|No\xE2\x80\xA6 yes.|Really?!|Yes.|");
	check_sentences("It is in the U.S. The law, etc. changed. He works at Acme Inc. in Ohio.",
	                "It is in the U.S.|The law, etc. changed.|He works at Acme Inc. in Ohio.|");
	check_sentences("\xE4\xBB\x8A\xE6\x97\xA5\xE3\x80\x82\xE6\x98\x8E\xE6\x97\xA5\xEF\xBC\x9F\xE3\x80\x8D\xE5\xA5\xBD",
	                "\xE4\xBB\x8A\xE6\x97\xA5\xE3\x80\x82|\xE6\x98\x8E\xE6\x97\xA5\xEF\xBC\x9F\xE3\x80\x8D|\xE5\xA5\xBD|");
	check_sentences("- item one\n- item two\n1. first\n2. second. More", "item one|item two|first|second.|More|");
	check_sentences("Heading\n\nText here. More.", "Heading|Text here.|More.|");
	check_sentences("A long line that looks as if an editor had wrapped it\nat this place. Next.",
	                "A long line that looks as if an editor had wrapped it\nat this place.|Next.|");
	check_sentences("See Fig. 3 and No. 5. No. That is all. Vol. 2 begins.",
	                "See Fig. 3 and No. 5.|No.|That is all.|Vol. 2 begins.|");
	check_sentences("", "");
	check_sentences("  \n ", "");
	check_sentences("1. Start the server. 2. Stop it.", "Start the server.|2. Stop it.|");
}

static char *read_handbook(size_t *size)
{
	/* Real Markdown: the project's own documents. */
	static const char *const files[] = {"docs/architecture.md", "docs/prompt-format.md", "CONTRIBUTING.md"};
	ruv_buf all;
	size_t i;

	ruv_buf_init(&all, 1 << 20);
	for (i = 0; i < 3; i++) {
		char path[512], *data;
		size_t n;
		ruv_error err = {0};
		snprintf(path, sizeof path, "%s/%s", RUV_SOURCE_DIR, files[i]);
		assert_ok(ruv_file_read(&data, &n, path, 1 << 20, &err), err);
		ruv_buf_append(&all, data, n);
		ruv_buf_puts(&all, "\n\n");
		free(data);
	}
	*size = all.len;
	return ruv_buf_take(&all);
}

/* Every chunk fits, is UTF-8, stands in its lines; and all words of the document are in the chunks, in order. */
static void check_invariants(const ruv_document *doc, const ruv_chunk_options *options)
{
	ruv_chunks *chunks = NULL;
	ruv_error err = {0};
	size_t i, k, n_words = 0, n_found = 0, at = 0;
	int last_line = 0;

	assert_ok(ruv_chunk_document(&chunks, doc, options, &err), err);
	for (i = 0; i < chunks->n; i++) {
		const ruv_chunk *c = &chunks->items[i];
		size_t n;
		assert_int_equal(strlen(c->text), c->len);
		assert_true(c->len > 0);
		assert_int_equal(ruv_utf8_valid_prefix(c->text, c->len), c->len);
		assert_ok(options->count(options->count_user, c->text, c->len, &n, &err), err);
		assert_int_equal(n, c->n_tokens);
		assert_true(n <= options->max_tokens || ruv_utf8_length(c->text, c->len) == 1);
		assert_true(c->first_line >= 1 && c->first_line <= c->last_line && c->last_line <= doc->n_lines);
		assert_true(c->first_line >= last_line || doc->n_lines == 1 || options->max_tokens < 16 ||
		            c->first_line == last_line);
		last_line = c->first_line;
	}
	if (options->overlap_sentences == 0) { /* walk both: the same bytes but for white space */
		for (k = 0, i = 0; k < doc->n_blocks; k++) {
			const char *p = doc->blocks[k].text;
			if (doc->blocks[k].kind == RUV_BLOCK_HEADING)
				continue;
			for (; *p; p++) {
				if (strchr(" \n\t", *p))
					continue;
				n_words++;
				for (;;) {
					while (i < chunks->n && (at == chunks->items[i].len ||
					                         strcmp(chunks->items[i].text, chunks->items[i].heading) == 0)) {
						i++;
						at = 0;
					}
					if (i == chunks->n || !strchr(" \n\t", chunks->items[i].text[at]))
						break;
					at++;
				}
				assert_true(i < chunks->n);
				n_found += chunks->items[i].text[at++] == *p;
			}
		}
		assert_int_equal(n_found, n_words);
	}
	ruv_chunks_free(chunks);
}

static void test_chunk_invariants(void **state)
{
	static const size_t sizes[] = {8, 9, 13, 32, 100, 256, 100000};
	ruv_vocab *vocab = fixture_vocab("gpt-2", NULL);
	ruv_document *docs[4] = {NULL};
	size_t size, i, k, overlap;
	char *text = read_handbook(&size), *wild = malloc(60000);
	ruv_error err = {0};
	ruv_rng rng;

	(void)state;
	ruv_rng_init(&rng, 9);
	for (i = 0; i < 60000 - 8;) { /* words without end, CJK, emoji, code */
		static const char *const parts[] = {"word ", "\xE5\xAD\x97", "\xF0\x9F\x98\x80", ". ",   "\n", "\n\n", "x",
		                                    "- ",    "1. ",          "\xC3\xA9",         "    ", "!? "};
		const char *part = parts[ruv_rng_below(&rng, 12)];
		size_t n = ruv_rng_below(&rng, 40) == 0 ? 300 : 1;
		for (; n > 0 && i < 60000 - 8; n--) {
			memcpy(wild + i, part, strlen(part));
			i += strlen(part);
		}
	}
	assert_ok(ruv_document_read(&docs[0], RUV_DOCUMENT_MARKDOWN, text, size, &err), err);
	assert_ok(ruv_document_read(&docs[1], RUV_DOCUMENT_TEXT, text, size, &err), err);
	assert_ok(ruv_document_read(&docs[2], RUV_DOCUMENT_TEXT, wild, i, &err), err);
	assert_ok(ruv_document_read(&docs[3], RUV_DOCUMENT_HTML, text, size, &err), err);
	for (k = 0; k < 4; k++)
		for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
			for (overlap = 0; overlap < 3; overlap += 2) {
				ruv_chunk_options options = {
				    sizes[i], overlap, i % 2 ? ruv_chunk_count_vocab : ruv_chunk_count_rough, i % 2 ? vocab : NULL};
				check_invariants(docs[k], &options);
			}
	for (k = 0; k < 4; k++)
		ruv_document_free(docs[k]);
	free(text);
	free(wild);
	ruv_vocab_free(vocab);
}

static void test_chunk_structure(void **state)
{
	static const char source[] =
	    "# Guide\n\n## Backups\nThe nightly backup starts at 02:00. It is kept for 30 days. Nobody has to do anything.\n\n"
	    "- one\n- two\n\n## Empty\n\n## Restore\nA restore needs the passphrase.\n";
	ruv_document *doc = NULL;
	ruv_chunks *chunks = NULL;
	ruv_error err = {0};
	ruv_chunk_options options = {.max_tokens = 100};

	(void)state;
	assert_ok(ruv_document_read(&doc, RUV_DOCUMENT_MARKDOWN, source, sizeof source - 1, &err), err);
	assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
	assert_string_equal(chunks->title, "Guide");
	assert_int_equal(chunks->n, 3);
	assert_string_equal(
	    chunks->items[0].text,
	    "The nightly backup starts at 02:00. It is kept for 30 days. Nobody has to do anything.\n\n- one\n- two");
	assert_string_equal(chunks->items[0].heading_path, "Guide > Backups");
	assert_string_equal(chunks->items[0].heading, "Backups");
	assert_int_equal(chunks->items[0].first_line, 4);
	assert_int_equal(chunks->items[0].last_line, 7);
	assert_string_equal(chunks->items[1].text, "Empty");
	assert_string_equal(chunks->items[2].text, "A restore needs the passphrase.");
	assert_int_equal(chunks->items[2].first_line, 12);
	ruv_chunks_free(chunks);

	/* Sentences stay whole, and the last one before the cut comes again. */
	options.max_tokens = 18;
	options.overlap_sentences = 1;
	assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
	assert_string_equal(chunks->items[0].text, "The nightly backup starts at 02:00. It is kept for 30 days.");
	assert_string_equal(chunks->items[1].text, "Nobody has to do anything.\n\n- one\n- two");
	ruv_chunks_free(chunks);
	options.max_tokens = 7;
	assert_int_equal(ruv_chunk_document(&chunks, doc, &options, &err), RUV_EINVAL);
	ruv_document_free(doc);

	assert_ok(ruv_document_read(&doc, RUV_DOCUMENT_TEXT, "", 0, &err), err);
	options.max_tokens = 100;
	assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
	assert_int_equal(chunks->n, 0);
	ruv_chunks_free(chunks);
	ruv_document_free(doc);
}

static void test_overlap(void **state)
{
	static const char source[] = "Aa aa aa. Bb bb bb. Cc cc cc. Dd dd dd. Ee ee ee. Ff ff ff. Gg gg gg. Hh hh hh.";
	ruv_document *doc = NULL;
	ruv_chunks *chunks = NULL;
	ruv_error err = {0};
	ruv_chunk_options options = {.max_tokens = 12, .overlap_sentences = 1};
	size_t i;

	(void)state;
	assert_ok(ruv_document_read(&doc, RUV_DOCUMENT_TEXT, source, sizeof source - 1, &err), err);
	assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
	assert_true(chunks->n >= 3);
	for (i = 1; i < chunks->n; i++) { /* the first sentence is the last one of the chunk before */
		const char *before = chunks->items[i - 1].text;
		assert_memory_equal(chunks->items[i].text, before + strlen(before) - 9, 9);
	}
	ruv_chunks_free(chunks);
	ruv_document_free(doc);
}

/* Damaged documents of every kind read without a fault, and chunk. */
static void test_mutations(void **state)
{
	static const char *const pieces[] = {"<div>", "</div>",  "<table>", "<td>",       "<ul><li>", "</ul>",    "<pre>", "</pre>",
	                                     "<h2>",  "<title>", "&",       "&#x110000;", "<!--",     "<script>", "\xFF",  "\x01",
	                                     "```\n", "# ",      "> ",      "- ",         "|---|\n",  "---\n",    "\n\n",  "<",
	                                     ">",     "\"",      "<p",      "</",         "\r",       "1) "};
	size_t size, k;
	char *text = read_handbook(&size), *copy = malloc(10000);
	ruv_rng rng;
	int round;

	(void)state;
	ruv_rng_init(&rng, 21);
	for (round = 0; round < 300; round++) {
		size_t from = ruv_rng_below(&rng, size - 4000), n = 4000;
		ruv_document *doc = NULL;
		ruv_chunks *chunks = NULL;
		ruv_error err = {0};
		ruv_chunk_options options = {.max_tokens = 20 + (size_t)round % 100, .overlap_sentences = (size_t)round % 4};

		memcpy(copy, text + from, n);
		for (k = 0; k < 40; k++) {
			const char *piece = pieces[ruv_rng_below(&rng, sizeof pieces / sizeof *pieces)];
			size_t at = ruv_rng_below(&rng, n);
			memmove(copy + at + strlen(piece), copy + at, n - at);
			memcpy(copy + at, piece, strlen(piece));
			n += strlen(piece);
		}
		assert_ok(ruv_document_read(&doc, (ruv_document_kind)(round % 3), copy, n, &err), err);
		assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
		for (k = 0; k < chunks->n; k++)
			assert_true(chunks->items[k].first_line >= 1 && chunks->items[k].last_line <= doc->n_lines);
		ruv_chunks_free(chunks);
		ruv_document_free(doc);
	}
	free(text);
	free(copy);
}

/* A hundred thousand open elements or quotes are no deep recursion. */
static void test_deep_nesting(void **state)
{
	static const char *const units[] = {"<div>", "<ul><li>", "<b>", "> ", "- ", "[", "*a "};
	size_t i, k, n = 20000;
	char *source = malloc(n * 8 + 1);

	(void)state;
	for (i = 0; i < sizeof units / sizeof *units; i++) {
		ruv_document *doc = NULL;
		ruv_error err = {0};
		char *at = source;
		/* libcmark takes quadratic time for open brackets and nested containers: fewer of them. */
		for (k = 0; k < (i < 3 ? n : 1000); k++)
			at = stpcpy(at, units[i]);
		assert_ok(
		    ruv_document_read(&doc, i < 3 ? RUV_DOCUMENT_HTML : RUV_DOCUMENT_MARKDOWN, source, (size_t)(at - source), &err),
		    err);
		ruv_document_free(doc);
	}
	free(source);
}

/* What the token callback was asked. */
typedef struct meter {
	size_t n_calls, n_bytes, longest;
	const ruv_vocab *vocab; /* NULL: the rough count */
	size_t stop_at;         /* calls until RUV_ECANCELLED; 0: never */
} meter;

static int count_metered(void *user, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err)
{
	meter *m = user;

	m->n_calls++;
	m->n_bytes += n_bytes;
	m->longest = n_bytes > m->longest ? n_bytes : m->longest;
	if (m->n_calls == m->stop_at)
		return ruv_fail(err, RUV_ECANCELLED, "test", "stopped");
	if (m->vocab)
		return ruv_vocab_count(m->vocab, text, n_bytes, n_tokens, err);
	return ruv_chunk_count_rough(NULL, text, n_bytes, n_tokens, err);
}

/* One line of 4 MB, with and without words, and a paragraph of many lines: all of it is there in order, every chunk fits, and the
 * callback sees a constant times the text, in pieces of bounded length. */
static void test_long_lines(void **state)
{
	enum { SIZE = 4 << 20, MAX_TOKENS = 256, TIMES = 40 };
	static const char *const units[] = {"x",
	                                    "word ",
	                                    "{\"key\": 12, \"text\": \"a b\"}, ",
	                                    "2026-01-01,17,ok\n",
	                                    "A sentence of five words. ",
	                                    "a.b.c.d. ",
	                                    ". ",
	                                    "\xE5\xAD\x97",
	                                    "=",
	                                    "- "};
	ruv_vocab *vocab = fixture_vocab("gpt-2", NULL);
	size_t i, k, n, at;

	(void)state;
	for (i = 0; i < 2 * sizeof units / sizeof *units; i++) {
		const char *unit = units[i / 2];
		size_t size = i % 2 ? SIZE / 16 : SIZE, len = strlen(unit); /* the vocabulary's count is slow under sanitizers */
		meter m = {.vocab = i % 2 ? vocab : NULL};
		ruv_chunk_options options = {.max_tokens = MAX_TOKENS, .count = count_metered, .count_user = &m};
		ruv_document *doc = NULL;
		ruv_chunks *chunks = NULL;
		ruv_error err = {0};
		char *source = malloc(size);

		for (k = 0; k < size; k++)
			source[k] = unit[k % len];
		size -= size % len;
		assert_ok(ruv_document_read(&doc, RUV_DOCUMENT_TEXT, source, size, &err), err);
		assert_ok(ruv_chunk_document(&chunks, doc, &options, &err), err);
		assert_true(m.n_bytes <= TIMES * size);
		assert_true(m.longest <= 64 * MAX_TOKENS);
		for (k = 0, at = 0; k < chunks->n; k++) {
			const ruv_chunk *chunk = &chunks->items[k];

			assert_true(chunk->n_tokens <= MAX_TOKENS);
			for (n = 0; n < chunk->len; n++) {
				if (strchr(" \n", chunk->text[n]))
					continue;
				while (at < size && strchr(" \n", source[at]))
					at++;
				if (at == size || source[at++] != chunk->text[n])
					fail_msg("unit %zu: chunk %zu differs from the source at %zu", i, k, at);
			}
		}
		while (at < size && strchr(" \n", source[at]))
			at++;
		assert_int_equal(at, size);
		ruv_chunks_free(chunks);

		/* A failure of the callback, such as a cancel, is the call's. */
		m.stop_at = m.n_calls / 2;
		m.n_calls = 0;
		assert_int_equal(ruv_chunk_document(&chunks, doc, &options, &err), RUV_ECANCELLED);
		assert_int_equal(m.n_calls, m.stop_at);
		ruv_document_free(doc);
		free(source);
	}
	ruv_vocab_free(vocab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_markdown),
	    cmocka_unit_test(test_html),
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_kinds),
	    cmocka_unit_test(test_encodings),
	    cmocka_unit_test(test_sentences),
	    cmocka_unit_test(test_chunk_invariants),
	    cmocka_unit_test(test_chunk_structure),
	    cmocka_unit_test(test_overlap),
	    cmocka_unit_test(test_mutations),
	    cmocka_unit_test(test_deep_nesting),
	    cmocka_unit_test(test_long_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

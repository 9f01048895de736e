/* test_vocab.c - vocabulary, encoding and decoding against the ids of other implementations. */
#include <jansson.h>
#include <utf8proc.h>

#include "base/rng.h"
#include "text/pretokenize.h"
#include "text/unicode.h"
#include "vocab_fixture.h"

enum { N_GOLDEN = 486 };

static ruv_vocab *qwen, *gpt2, *lfm2;

static int setup(void **state)
{
	(void)state;
	qwen = fixture_vocab("qwen2", NULL);
	gpt2 = fixture_vocab("gpt-2", NULL);
	lfm2 = fixture_vocab("qwen2", "lfm2");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ruv_vocab_free(qwen);
	ruv_vocab_free(gpt2);
	ruv_vocab_free(lfm2);
	return 0;
}

static void check_ids(const ruv_vocab *vocab, const char *text, size_t len, int flags, const ruv_token *ids, size_t n)
{
	ruv_tokens tokens = {0};
	ruv_error err = {0};
	size_t i;

	assert_ok(ruv_vocab_encode(vocab, text, len, flags, &tokens, &err), err);
	for (i = 0; i < n || i < tokens.n; i++)
		if (i >= n || i >= tokens.n || tokens.ids[i] != ids[i])
			fail_msg("'%.*s': id %zu of %zu is %d, %d of %zu expected", (int)len, text, i, tokens.n,
			         i < tokens.n ? (int)tokens.ids[i] : -1, i < n ? (int)ids[i] : -1, n);
	ruv_tokens_release(&tokens);
}

#define CHECK_IDS(vocab, text, flags, ...)                                                                                         \
	do {                                                                                                                       \
		const ruv_token ids_[] = {__VA_ARGS__};                                                                            \
		check_ids(vocab, text, strlen(text), flags, ids_, sizeof ids_ / sizeof *ids_);                                     \
	} while (0)

/* A file of {"text": ..., "ids": [...]} lines. */
static size_t check_vectors(const ruv_vocab *vocab, const char *file)
{
	char path[512], *line = NULL;
	size_t cap = 0, n = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/tokenizer/%s", RUV_TEST_DATA, file);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s is missing", path);
	while (getline(&line, &cap, f) > 0) {
		json_error_t at;
		json_t *row = json_loads(line, JSON_ALLOW_NUL, &at), *text, *ids;
		ruv_token *expected;
		ruv_buf back;
		ruv_error err = {0};
		size_t i;

		if (!row)
			fail_msg("%s:%zu: %s", path, n + 1, at.text);
		text = json_object_get(row, "text");
		ids = json_object_get(row, "ids");
		expected = calloc(json_array_size(ids) + 1, sizeof *expected);
		for (i = 0; i < json_array_size(ids); i++)
			expected[i] = (ruv_token)json_integer_value(json_array_get(ids, i));
		check_ids(vocab, json_string_value(text), json_string_length(text), RUV_ENCODE_SPECIAL, expected, i);
		if (vocab == gpt2 || vocab == lfm2) { /* without NFC, decoding gives the text back */
			ruv_buf_init(&back, 1 << 20);
			assert_ok(ruv_vocab_decode(vocab, expected, i, false, &back, &err), err);
			assert_int_equal(back.len, json_string_length(text));
			assert_memory_equal(ruv_buf_cstr(&back), json_string_value(text), back.len);
			ruv_buf_release(&back);
		}
		free(expected);
		json_decref(row);
		n++;
	}
	free(line);
	fclose(f);
	return n;
}

static void test_llama_cpp_vectors(void **state)
{
	ruv_vocab *r1 = fixture_vocab("qwen2", "deepseek-r1-qwen");

	(void)state;
	assert_int_equal(check_vectors(qwen, "qwen2.vectors.jsonl"), 47);
	assert_int_equal(check_vectors(gpt2, "gpt-2.vectors.jsonl"), 47);
	assert_int_equal(check_vectors(r1, "deepseek-r1-qwen.vectors.jsonl"), 47);
	ruv_vocab_free(r1);
}

static void test_hugging_face_golden(void **state)
{
	(void)state;
	assert_int_equal(check_vectors(qwen, "qwen2.golden.jsonl"), N_GOLDEN);
	assert_int_equal(check_vectors(lfm2, "lfm2-pattern.golden.jsonl"), N_GOLDEN);
}

static void test_known(void **state)
{
	(void)state;
	CHECK_IDS(qwen, "Hello, world", 0, 9707, 11, 1879);
	CHECK_IDS(qwen, "<|im_start|>", RUV_ENCODE_SPECIAL, 151644);
	CHECK_IDS(qwen, "", RUV_ENCODE_SPECIAL, );
	CHECK_IDS(qwen, "<|im_end|><|endoftext|>", RUV_ENCODE_SPECIAL, 151645, 151643);
}

static void test_properties(void **state)
{
	ruv_str text;

	(void)state;
	assert_int_equal(ruv_vocab_n_tokens(qwen), 151666);
	assert_int_equal(ruv_vocab_find(qwen, "<|im_start|>", 12), 151644);
	assert_int_equal(ruv_vocab_find(qwen, "<|im_start", 10), -1);
	assert_true(ruv_vocab_is_end(qwen, 151645) && ruv_vocab_is_end(qwen, 151643) && !ruv_vocab_is_end(qwen, 151644));
	assert_true(ruv_vocab_is_end(gpt2, 50256) && ruv_vocab_may_sample(gpt2, 50256)); /* bos and eos at once */
	assert_true(ruv_vocab_is_special(qwen, 151644) && ruv_vocab_is_special(qwen, 151657) && !ruv_vocab_is_special(qwen, 9707));
	assert_true(ruv_vocab_may_sample(qwen, 9707) && ruv_vocab_may_sample(qwen, 151645));
	assert_false(ruv_vocab_may_sample(qwen, 151665) || ruv_vocab_may_sample(qwen, 151666) || ruv_vocab_may_sample(qwen, -1));
	assert_int_equal(ruv_vocab_type(qwen, 151665), RUV_TOKEN_UNUSED);
	assert_int_equal(ruv_vocab_type(qwen, 200000), RUV_TOKEN_UNUSED);
	text = ruv_vocab_bytes(qwen, 1879);
	assert_int_equal(text.len, 6);
	assert_memory_equal(text.data, " world", 6);
	text = ruv_vocab_text(qwen, 1879);
	assert_memory_equal(text.data, "\xC4\xA0world", 7);
	assert_null(ruv_vocab_bytes(qwen, 151666).data);
	assert_true(ruv_vocab_pre_known("lfm2") && !ruv_vocab_pre_known("bloom"));
	assert_false(ruv_vocab_add_bos(qwen));
}

static void test_special_tokens(void **state)
{
	const char *text = "<|im_start|>user\n<|im_end|><tool_call>x<|im_";
	ruv_tokens plain = {0}, marked = {0};
	ruv_span spans[2] = {{0, 12}, {17, 20}};
	ruv_error err = {0};
	size_t i;

	(void)state;
	/* Text from users never becomes a special token, nor one of the form <...>. */
	assert_ok(ruv_vocab_encode(qwen, text, strlen(text), 0, &plain, &err), err);
	for (i = 0; i < plain.n; i++)
		assert_true(plain.ids[i] < 151643);
	/* Only what lies wholly within a trusted span does. */
	assert_ok(ruv_vocab_encode_trusted(qwen, text, strlen(text), spans, 2, 0, &marked, &err), err);
	assert_int_equal(marked.ids[0], 151644);
	for (i = 1; i < marked.n; i++)
		assert_true(marked.ids[i] < 151643);
	marked.n = 0;
	spans[1] = (ruv_span){17, strlen(text)};
	assert_ok(ruv_vocab_encode_trusted(qwen, text, strlen(text), spans, 2, 0, &marked, &err), err);
	plain.n = 0;
	assert_ok(ruv_vocab_encode(qwen, text, strlen(text), RUV_ENCODE_SPECIAL, &plain, &err), err);
	assert_int_equal(marked.n, plain.n);
	assert_memory_equal(marked.ids, plain.ids, plain.n * sizeof *plain.ids);
	ruv_tokens_release(&plain);
	ruv_tokens_release(&marked);
	/* The longest of several that begin alike. */
	CHECK_IDS(qwen, "<|fim_pad|><|fim_prefix|>", RUV_ENCODE_SPECIAL, 151662, 151659);
}

/* Bytes that are no UTF-8 come back as they were, in a piece of their own. */
static void test_invalid_utf8(void **state)
{
	static const char *const texts[] = {"\xFF",          "a\x80z",   "\xC3",           "\xE2\x82",
	                                    "x\xF0\x9F\x98", "\xC0\xAF", "\xED\xA0\x80 b", "ok \xFE\xFF ok\xC3\xA9"};
	const ruv_vocab *vocabs[] = {qwen, gpt2, lfm2};
	size_t i, v;

	(void)state;
	for (v = 0; v < 3; v++)
		for (i = 0; i < sizeof texts / sizeof *texts; i++) {
			ruv_tokens tokens = {0};
			ruv_error err = {0};
			ruv_buf back;
			ruv_buf_init(&back, 1000);
			assert_ok(ruv_vocab_encode(vocabs[v], texts[i], strlen(texts[i]), 0, &tokens, &err), err);
			assert_ok(ruv_vocab_decode(vocabs[v], tokens.ids, tokens.n, false, &back, &err), err);
			assert_string_equal(ruv_buf_cstr(&back), texts[i]);
			ruv_buf_release(&back);
			ruv_tokens_release(&tokens);
		}
}

/* ---- against a slow reference ---- */

static char **sorted_merges;
static size_t n_sorted;

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The merges as "left right\trank", sorted, to be found by bisection. */
static void load_reference(const char *name)
{
	char path[512], *line = NULL;
	size_t cap = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/%s.merges", RUV_TEST_MERGES, name);
	f = fopen(path, "r");
	assert_non_null(f);
	sorted_merges = malloc(200000 * sizeof *sorted_merges);
	while (getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		assert_true(asprintf(&sorted_merges[n_sorted], "%s\t%zu", line, n_sorted) > 0);
		n_sorted++;
	}
	qsort(sorted_merges, n_sorted, sizeof *sorted_merges, by_text);
	free(line);
	fclose(f);
}

static long reference_rank(const char *left, const char *right)
{
	char key[2048];
	size_t low = 0, high = n_sorted, len = (size_t)snprintf(key, sizeof key, "%s %s\t", left, right);

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strncmp(sorted_merges[middle], key, len);
		if (order == 0)
			return atol(sorted_merges[middle] + len);
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

/* GPT-2's own loop over strings: merge the best pair until there is none. Appends ids. */
static void reference_piece(const ruv_vocab *vocab, const char *piece, size_t n, ruv_tokens *out)
{
	char **part = calloc(n, sizeof *part);
	size_t i;
	ruv_error err = {0};

	for (i = 0; i < n; i++) {
		ruv_str letter = {0};
		ruv_token id;
		for (id = 0; id < 256; id++) /* the byte letters come first in these vocabularies */
			if (ruv_vocab_bytes(vocab, id).data[0] == piece[i])
				letter = ruv_vocab_text(vocab, id);
		part[i] = strndup(letter.data, letter.len);
	}
	for (;;) {
		long best = -1, rank;
		size_t at = 0;
		for (i = 0; i + 1 < n; i++) {
			rank = reference_rank(part[i], part[i + 1]);
			if (rank >= 0 && (best < 0 || rank < best)) {
				best = rank;
				at = i;
			}
		}
		if (best < 0)
			break;
		part[at] = realloc(part[at], strlen(part[at]) + strlen(part[at + 1]) + 1);
		strcat(part[at], part[at + 1]);
		free(part[at + 1]);
		memmove(part + at + 1, part + at + 2, (n - at - 2) * sizeof *part);
		n--;
	}
	for (i = 0; i < n; i++) {
		assert_ok(ruv_tokens_push(out, ruv_vocab_find(vocab, part[i], strlen(part[i])), &err), err);
		free(part[i]);
	}
	free(part);
}

/* Pieces of every length, around the one where the algorithm changes. */
static void test_merging_against_reference(void **state)
{
	static const char *const alphabets[] = {"abcdefghijklmnopqrstuvwxyz", "aab", "ETAOINetaoin", "=-", "tionsengr"};
	ruv_rng rng;
	int round;

	(void)state;
	load_reference("gpt-2");
	ruv_rng_init(&rng, 11);
	for (round = 0; round < 300; round++) {
		const char *alphabet = alphabets[ruv_rng_below(&rng, 5)];
		char piece[200];
		size_t n = 1 + ruv_rng_below(&rng, round % 3 ? 20 : 150), i;
		ruv_tokens expected = {0};

		for (i = 0; i < n; i++)
			piece[i] = alphabet[ruv_rng_below(&rng, strlen(alphabet))];
		reference_piece(gpt2, piece, n, &expected);
		check_ids(gpt2, piece, n, 0, expected.ids, expected.n);
		ruv_tokens_release(&expected);
	}
	while (n_sorted > 0)
		free(sorted_merges[--n_sorted]);
	free(sorted_merges);
}

/* The interpreter splits as the machine code does. */
static void test_interpreted(void **state)
{
	static const char *const names[] = {"lfm2", "qwen2", "gpt-2"};
	static const char text[] =
	    "It's 12345 o'clock,  don't\tworry \n\n\n  \xC3\x9C"
	    "ber \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E 3.14\xC2\xBD x\xE1\xA0\x8Ey\xC2\x85z   \r\n !?! \xF0\x9F\x98\x80 ";
	size_t k;

	(void)state;
	for (k = 0; k < 3; k++) {
		ruv_pretokenizer *a, *b;
		ruv_pretokenize_cursor x, y;
		size_t begin[2], end[2];
		ruv_error err = {0};
		int got, covered = 0;

		assert_ok(ruv_pretokenizer_create(&a, names[k], &err), err);
		assert_ok(ruv_pretokenizer_create(&b, names[k], &err), err);
		ruv_pretokenizer_disable_jit(b);
		assert_ok(ruv_pretokenize_open(&x, a, &err), err);
		assert_ok(ruv_pretokenize_open(&y, b, &err), err);
		ruv_pretokenize_set(&x, text, sizeof text - 1);
		ruv_pretokenize_set(&y, text, sizeof text - 1);
		do {
			got = ruv_pretokenize_next(&x, &begin[0], &end[0], &err);
			assert_int_equal(got, ruv_pretokenize_next(&y, &begin[1], &end[1], &err));
			if (got > 0) {
				assert_int_equal(begin[0], covered);
				assert_int_equal(begin[0], begin[1]);
				assert_int_equal(end[0], end[1]);
				covered = (int)end[0];
			}
		} while (got > 0);
		assert_int_equal(got, 0);
		assert_int_equal(covered, sizeof text - 1);
		ruv_pretokenize_close(&x);
		ruv_pretokenize_close(&y);
		ruv_pretokenizer_free(a);
		ruv_pretokenizer_free(b);
	}
}

/* A megabyte without a break must neither take forever nor overflow anything. */
static void test_long_pieces(void **state)
{
	static const char *const units[] = {"a", " ", "\n", "\xE5\xAD\x97", "=", "7", "\xCC\x81", "ab "};
	const ruv_vocab *vocabs[] = {qwen, gpt2, lfm2};
	size_t n = 1 << 19, i, v;
	char *text = malloc(n);

	(void)state;
	for (i = 0; i < sizeof units / sizeof *units; i++) {
		size_t unit = strlen(units[i]), k;
		for (k = 0; k + unit <= n; k += unit)
			memcpy(text + k, units[i], unit);
		for (v = 0; v < 3; v++) {
			ruv_tokens tokens = {0};
			ruv_error err = {0};
			ruv_buf back;
			ruv_buf_init(&back, 4 * n);
			assert_ok(ruv_vocab_encode(vocabs[v], text, k, 0, &tokens, &err), err);
			assert_ok(ruv_vocab_decode(vocabs[v], tokens.ids, tokens.n, false, &back, &err), err);
			assert_int_equal(back.len, k);
			assert_memory_equal(back.data, text, k);
			ruv_buf_release(&back);
			ruv_tokens_release(&tokens);
		}
	}
	free(text);
}

static void test_limits_and_edges(void **state)
{
	ruv_tokens tokens = {.max = 4};
	ruv_error err = {0};
	size_t n;

	(void)state;
	assert_ok(ruv_tokens_push(&tokens, 1, &err), err);
	assert_int_equal(ruv_vocab_encode(qwen, "one two three four", 18, 0, &tokens, &err), RUV_ELIMIT);
	assert_non_null(strstr(err.message, "more than 4 tokens"));
	assert_int_equal(tokens.n, 1); /* as before */
	assert_ok(ruv_vocab_encode(qwen, "one two three", 13, 0, &tokens, &err), err);
	ruv_tokens_release(&tokens);
	assert_ok(ruv_vocab_count(qwen, "Hello, world", 12, &n, &err), err);
	assert_int_equal(n, 3);
	assert_ok(ruv_vocab_count(qwen, "", 0, &n, &err), err);
	assert_int_equal(n, 0);
}

/* A vocabulary by hand: letters, then what is given. */
static int small_vocab(ruv_vocab **out, const char *const *tokens, const int32_t *types, const char *const *merges, const char *pre,
                       ruv_token bos, int add_bos, ruv_error *err)
{
	ruv_str t[64], m[64];
	ruv_vocab_desc desc;
	size_t i;

	ruv_vocab_desc_init(&desc);
	for (i = 0; tokens[i]; i++)
		t[i] = (ruv_str){tokens[i], strlen(tokens[i])};
	desc.tokens = t;
	desc.n_tokens = i;
	desc.types = types;
	for (i = 0; merges && merges[i]; i++)
		m[i] = (ruv_str){merges[i], strlen(merges[i])};
	desc.merges = m;
	desc.n_merges = i;
	desc.pre = pre;
	desc.bos = bos;
	desc.add_bos = add_bos;
	return ruv_vocab_create(out, &desc, err);
}

static void test_refusals(void **state)
{
	static const char *const letters[] = {"a", "b", "ab", "<s>", NULL};
	static const int32_t types[] = {1, 1, 1, 3}, odd_types[] = {1, 1, 9, 3}, byte_types[] = {1, 1, 6, 3};
	static const char *const good[] = {"a b", NULL}, *const unspaced[] = {"ab", NULL}, *const unknown[] = {"a c", NULL},
				 *const unmade[] = {"b a", NULL};
	ruv_vocab *v = NULL;
	ruv_tokens tokens = {0};
	ruv_error err = {0};

	(void)state;
	assert_int_equal(small_vocab(&v, letters, types, good, "bloom", 3, 1, &err), RUV_EUNSUPPORTED);
	assert_non_null(strstr(err.message, "'bloom' is not supported"));
	assert_non_null(strstr(err.message, "lfm2, llama-bpe"));
	assert_int_equal(small_vocab(&v, letters, types, good, NULL, 3, 1, &err), RUV_EUNSUPPORTED);
	assert_int_equal(small_vocab(&v, letters, types, unspaced, "lfm2", 3, 1, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "merge 0"));
	assert_int_equal(small_vocab(&v, letters, types, unknown, "lfm2", 3, 1, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "right part"));
	assert_int_equal(small_vocab(&v, letters, types, unmade, "lfm2", 3, 1, &err), RUV_EFORMAT);
	assert_int_equal(small_vocab(&v, letters, odd_types, good, "lfm2", 3, 1, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "token 2 has type 9"));
	assert_int_equal(small_vocab(&v, letters, byte_types, good, "lfm2", 3, 1, &err), RUV_EFORMAT);
	assert_int_equal(small_vocab(&v, letters, types, good, "lfm2", 4, 1, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "bos token id 4"));
	assert_int_equal(small_vocab(&v, letters, types, good, "lfm2", -1, 1, &err), RUV_EFORMAT);
	assert_null(v);

	assert_ok(small_vocab(&v, letters, types, good, "lfm2", 3, -1, &err), err);
	assert_true(ruv_vocab_add_bos(v)); /* LFM2's default */
	{
		const ruv_token ids[] = {3, 2, 0};
		check_ids(v, "aba", 3, RUV_ENCODE_EDGES, ids, 3);
	}
	assert_int_equal(ruv_vocab_encode(v, "abc", 3, 0, &tokens, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "no token for byte 0x63"));
	assert_int_equal(tokens.n, 0);
	ruv_tokens_release(&tokens);
	ruv_vocab_free(v);
}

/* Composing in stretches is composing the whole: random mixtures, against utf8proc over all of it. */
static void test_nfc_in_stretches(void **state)
{
	static const char *const parts[] = {"a",
	                                    "e",
	                                    "\xCC\x81",
	                                    "\xCC\xA3",
	                                    " ",
	                                    "plain words in between, long enough to end a stretch ",
	                                    "thirty-one bytes that are plain",
	                                    "7654321",
	                                    "\xE1\x84\x80",
	                                    "\xE1\x85\xA1",
	                                    "\xE1\x86\xA8",
	                                    "\xEA\xB0\x80",
	                                    "\xE3\x81\x8B",
	                                    "\xE3\x82\x99",
	                                    "\xE2\x84\xAB",
	                                    "\xE6\xBC\xA2",
	                                    "\xD9\x86"};
	ruv_rng rng;
	ruv_buf text, parts_out;
	ruv_error err = {0};
	int round;

	(void)state;
	ruv_rng_init(&rng, 4);
	ruv_buf_init(&text, 1 << 16);
	ruv_buf_init(&parts_out, 1 << 16);
	for (round = 0; round < 3000; round++) {
		size_t n = 1 + ruv_rng_below(&rng, 40);
		utf8proc_uint8_t *composed;
		ruv_buf_clear(&text);
		ruv_buf_clear(&parts_out);
		while (n-- > 0)
			ruv_buf_puts(&text, parts[ruv_rng_below(&rng, sizeof parts / sizeof *parts)]);
		composed = utf8proc_NFC((const utf8proc_uint8_t *)text.data);
		assert_non_null(composed);
		assert_ok(ruv_unicode_nfc(text.data, text.len, &parts_out, &err), err);
		assert_string_equal(ruv_buf_cstr(&parts_out), (char *)composed);
		free(composed);
	}
	ruv_buf_release(&text);
	ruv_buf_release(&parts_out);
}

static void test_utf8_stream(void **state)
{
	static const char text[] = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80z";
	static const struct {
		const char *bytes, *shown;
	} broken[] = {
	    {"\xFFx", "\xEF\xBF\xBDx"},
	    {"\xE6\x97", "\xEF\xBF\xBD"},
	    {"\xE6\x97x", "\xEF\xBF\xBDx"},
	    {"\xF0\x9F\x98\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},
	    {"\xC3\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},
	    {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
	    {"\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},
	};
	ruv_utf8_stream stream;
	ruv_buf out;
	size_t step, i, k;

	(void)state;
	ruv_buf_init(&out, 1000);
	for (step = 1; step <= sizeof text; step++) {
		ruv_utf8_stream_init(&stream);
		ruv_buf_clear(&out);
		for (i = 0; i < sizeof text - 1; i += step) {
			size_t n = sizeof text - 1 - i < step ? sizeof text - 1 - i : step;
			assert_int_equal(ruv_utf8_stream_push(&stream, text + i, n, &out), RUV_OK);
			assert_int_equal(ruv_utf8_valid_prefix(ruv_buf_cstr(&out), out.len), out.len);
		}
		assert_int_equal(stream.n_held, 0);
		assert_string_equal(ruv_buf_cstr(&out), text);
	}
	for (k = 0; k < sizeof broken / sizeof *broken; k++)
		for (step = 1; step < 4; step++) {
			size_t n = strlen(broken[k].bytes);
			ruv_utf8_stream_init(&stream);
			ruv_buf_clear(&out);
			for (i = 0; i < n; i += step)
				ruv_utf8_stream_push(&stream, broken[k].bytes + i, n - i < step ? n - i : step, &out);
			ruv_utf8_stream_finish(&stream, &out);
			assert_string_equal(ruv_buf_cstr(&out), broken[k].shown);
			ruv_buf_clear(&out);
			ruv_utf8_repair(broken[k].bytes, n, &out);
			assert_string_equal(ruv_buf_cstr(&out), broken[k].shown);
		}
	ruv_buf_release(&out);
	assert_int_equal(ruv_utf8_floor("a\xC3\xA9z", 4, 2), 1);
	assert_int_equal(ruv_utf8_floor("a\xC3\xA9z", 4, 3), 3);
	assert_int_equal(ruv_utf8_floor("\x80\x80", 2, 1), 1);
	assert_int_equal(ruv_utf8_length("a\xC3\xA9z", 4), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_llama_cpp_vectors),
	    cmocka_unit_test(test_hugging_face_golden),
	    cmocka_unit_test(test_known),
	    cmocka_unit_test(test_properties),
	    cmocka_unit_test(test_special_tokens),
	    cmocka_unit_test(test_invalid_utf8),
	    cmocka_unit_test(test_merging_against_reference),
	    cmocka_unit_test(test_interpreted),
	    cmocka_unit_test(test_long_pieces),
	    cmocka_unit_test(test_limits_and_edges),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_nfc_in_stretches),
	    cmocka_unit_test(test_utf8_stream),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}

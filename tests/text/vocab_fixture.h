/* vocab_fixture.h - real vocabularies for tests, from the merges in tests/data/tokenizer/merges.tar.xz.
 *
 * GPT-2's and Qwen2.5's vocabularies are the 256 byte letters, then what each merge gives, then the added tokens: the merges alone
 * say everything. The build unpacks them to RUV_TEST_MERGES. */
#ifndef RUV_TESTS_TEXT_VOCAB_FIXTURE_H
#define RUV_TESTS_TEXT_VOCAB_FIXTURE_H

#include "test.h"
#include "base/file.h"
#include "text/vocab.h"

typedef struct fixture_token {
	const char *text;
	int type;
} fixture_token;

static const fixture_token fixture_gpt2_added[] = {{"<|endoftext|>", RUV_TOKEN_CONTROL}, {NULL, 0}};

static const fixture_token fixture_qwen2_added[] = {
    {"<|endoftext|>", 3},      {"<|im_start|>", 3},     {"<|im_end|>", 3},     {"<|object_ref_start|>", 3},
    {"<|object_ref_end|>", 3}, {"<|box_start|>", 3},    {"<|box_end|>", 3},    {"<|quad_start|>", 3},
    {"<|quad_end|>", 3},       {"<|vision_start|>", 3}, {"<|vision_end|>", 3}, {"<|vision_pad|>", 3},
    {"<|image_pad|>", 3},      {"<|video_pad|>", 3},    {"<tool_call>", 4},    {"</tool_call>", 4},
    {"<|fim_prefix|>", 4},     {"<|fim_middle|>", 4},   {"<|fim_suffix|>", 4}, {"<|fim_pad|>", 4},
    {"<|repo_name|>", 4},      {"<|file_sep|>", 4},     {"[PAD151665]", 5},    {NULL, 0},
};

/* "qwen2" or "gpt-2" merges under the pre-tokenizer `pre` (NULL: its own). */
static inline ruv_vocab *fixture_vocab(const char *name, const char *pre)
{
	bool qwen = strcmp(name, "qwen2") == 0;
	const fixture_token *added = qwen ? fixture_qwen2_added : fixture_gpt2_added;
	ruv_vocab_desc desc;
	ruv_vocab *vocab = NULL;
	ruv_error err = {0};
	char path[512], *text, *blob, *at, *line;
	size_t size, n_merges = 0, n = 0, i;
	ruv_str *tokens, *merges;
	int32_t *types;
	int b;

	snprintf(path, sizeof path, "%s/%s.merges", RUV_TEST_MERGES, name);
	assert_ok(ruv_file_read(&text, &size, path, 64 << 20, &err), err);
	for (i = 0; i < size; i++)
		n_merges += text[i] == '\n';
	tokens = calloc(256 + n_merges + 32, sizeof *tokens);
	types = calloc(256 + n_merges + 32, sizeof *types);
	merges = calloc(n_merges, sizeof *merges);
	at = blob = malloc(size + 1024);
	for (b = 0; b < 512; b++) { /* the letters of GPT-2's alphabet, printable bytes first */
		bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
		if (b < 256 ? !printable : n == 256)
			continue;
		tokens[n].data = at;
		if (b < 0x80) {
			*at++ = (char)b;
		} else {
			*at++ = (char)(0xC0 | b >> 6);
			*at++ = (char)(0x80 | (b & 0x3F));
		}
		tokens[n].len = (size_t)(at - tokens[n].data);
		types[n++] = RUV_TOKEN_NORMAL;
	}
	for (line = text, i = 0; i < n_merges; i++) {
		char *end = strchr(line, '\n'), *space = memchr(line, ' ', (size_t)(end - line));
		merges[i] = (ruv_str){line, (size_t)(end - line)};
		tokens[n] = (ruv_str){at, merges[i].len - 1};
		at = mempcpy(at, line, (size_t)(space - line));
		at = mempcpy(at, space + 1, (size_t)(end - space - 1));
		types[n++] = RUV_TOKEN_NORMAL;
		line = end + 1;
	}
	for (; added->text; added++) {
		tokens[n] = (ruv_str){added->text, strlen(added->text)};
		types[n++] = added->type;
	}
	ruv_vocab_desc_init(&desc);
	desc.tokens = tokens;
	desc.n_tokens = n;
	desc.types = types;
	desc.merges = merges;
	desc.n_merges = n_merges;
	desc.pre = pre ? pre : name;
	desc.eos = qwen ? 151645 : 50256;
	desc.bos = qwen ? -1 : 50256;
	desc.pad = qwen ? 151643 : -1;
	assert_ok(ruv_vocab_create(&vocab, &desc, &err), err);
	free(tokens);
	free(types);
	free(merges);
	free(blob);
	free(text);
	return vocab;
}

#endif

/* pretokenize.c - the expressions of pretokenize.h and their matching. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* Unicode White_Space, to stand inside a class. */
#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* English endings, either case. */
#define ENDINGS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define MODERN(digits)                                                                                                             \
	ENDINGS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS \
		"])|[" WS "]+"

#define LLAMA3 MODERN("\\p{N}{1,3}")
#define QWEN2 MODERN("\\p{N}")
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|[" WS "]+(?![^" WS "])|[" WS "]+"

/* One row a name that tokenizer.ggml.pre may hold. */
static const struct {
	ruv_pretokenizer_traits traits; /* name, nfc, ignore_merges, add_bos */
	const char *pattern;
} families[] = {
    {{"lfm2", false, true, true}, LLAMA3},        {{"llama-bpe", false, true, true}, LLAMA3},
    {{"llama3", false, true, true}, LLAMA3},      {{"llama-v3", false, true, true}, LLAMA3},
    {{"falcon3", false, true, true}, LLAMA3},     {{"pixtral", false, true, true}, LLAMA3},
    {{"smaug-bpe", false, false, false}, LLAMA3}, {{"dbrx", false, false, false}, LLAMA3},
    {{"qwen2", true, false, false}, QWEN2},       {{"deepseek-r1-qwen", false, false, false}, QWEN2},
    {{"stablelm2", true, false, false}, QWEN2},   {{"gpt-2", false, false, false}, GPT2},
    {{"phi-2", false, false, false}, GPT2},       {{"jina-es", false, false, false}, GPT2},
    {{"jina-de", false, false, false}, GPT2},
};

static const char family_names[] = "lfm2, llama-bpe, llama3, llama-v3, falcon3, pixtral, smaug-bpe, dbrx, qwen2, deepseek-r1-qwen, "
				   "stablelm2, gpt-2, phi-2, jina-es, jina-de";

struct ruv_pretokenizer {
	pcre2_code *code;
	pcre2_match_context *context;
	bool jit;
};

static int family_of(const char *name)
{
	size_t i;

	for (i = 0; name && i < sizeof families / sizeof *families; i++)
		if (strcmp(families[i].traits.name, name) == 0)
			return (int)i;
	return -1;
}

const ruv_pretokenizer_traits *ruv_pretokenizer_traits_of(const char *name)
{
	int i = family_of(name);
	return i < 0 ? NULL : &families[i].traits;
}

const char *ruv_pretokenizer_names(void)
{
	return family_names;
}

int ruv_pretokenizer_create(ruv_pretokenizer **out, const char *name, ruv_error *err)
{
	ruv_pretokenizer *pt = NULL;
	PCRE2_UCHAR text[160];
	PCRE2_SIZE offset;
	int family = family_of(name), code, rc;

	if (family < 0)
		return ruv_fail(err, RUV_EUNSUPPORTED, "vocab", "pre-tokenizer '%s' is not supported; supported are: %s",
		                name ? name : "(none)", family_names);
	pt = calloc(1, sizeof *pt);
	if (!pt)
		return ruv_fail_memory(err, "vocab", sizeof *pt);
	pt->code =
	    pcre2_compile((PCRE2_SPTR)families[family].pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
	if (!pt->code) {
		pcre2_get_error_message(code, text, sizeof text);
		rc = ruv_fail(err, RUV_EINTERNAL, "vocab", "expression of pre-tokenizer '%s': %s at %zu", name, (char *)text,
		              (size_t)offset);
		goto done;
	}
	pt->context = pcre2_match_context_create(NULL);
	if (!pt->context) {
		rc = ruv_fail_memory(err, "vocab", 128);
		goto done;
	}
	/* Every alternative steps back over its own run at most once, so the work is bounded by the text's length already. */
	pcre2_set_match_limit(pt->context, UINT32_MAX);
	/* Refused where memory may not be made executable (systemd's MemoryDenyWriteExecute): then it is interpreted. */
	pt->jit = pcre2_jit_compile(pt->code, PCRE2_JIT_COMPLETE) == 0;
	rc = RUV_OK;
	*out = pt;
	pt = NULL;
done:
	ruv_pretokenizer_free(pt);
	return rc;
}

void ruv_pretokenizer_free(ruv_pretokenizer *pt)
{
	if (!pt)
		return;
	pcre2_match_context_free(pt->context);
	pcre2_code_free(pt->code);
	free(pt);
}

bool ruv_pretokenizer_is_jit(const ruv_pretokenizer *pt)
{
	return pt->jit;
}

void ruv_pretokenizer_disable_jit(ruv_pretokenizer *pt)
{
	pt->jit = false;
}

int ruv_pretokenize_open(ruv_pretokenize_cursor *cursor, const ruv_pretokenizer *pt, ruv_error *err)
{
	memset(cursor, 0, sizeof *cursor);
	cursor->pt = pt;
	cursor->match = pcre2_match_data_create(1, NULL);
	return cursor->match ? RUV_OK : ruv_fail_memory(err, "vocab", 128);
}

void ruv_pretokenize_close(ruv_pretokenize_cursor *cursor)
{
	pcre2_match_data_free(cursor->match);
	cursor->match = NULL;
}

void ruv_pretokenize_set(ruv_pretokenize_cursor *cursor, const char *text, size_t n_bytes)
{
	cursor->text = text;
	cursor->n_bytes = n_bytes;
	cursor->at = 0;
}

int ruv_pretokenize_next(ruv_pretokenize_cursor *cursor, size_t *begin, size_t *end, ruv_error *err)
{
	const ruv_pretokenizer *pt = cursor->pt;
	PCRE2_SPTR text = (PCRE2_SPTR)cursor->text;
	PCRE2_UCHAR message[120];
	PCRE2_SIZE *range;
	int n;

	if (cursor->at >= cursor->n_bytes)
		return 0;
	*begin = cursor->at;
	n = PCRE2_ERROR_JIT_STACKLIMIT;
	if (pt->jit)
		n = pcre2_jit_match(pt->code, text, cursor->n_bytes, cursor->at, 0, cursor->match, pt->context);
	if (n == PCRE2_ERROR_JIT_STACKLIMIT)
		n = pcre2_match(pt->code, text, cursor->n_bytes, cursor->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, cursor->match,
		                pt->context);
	if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
		pcre2_get_error_message(n, message, sizeof message);
		return ruv_fail(err, n == PCRE2_ERROR_NOMEMORY ? RUV_ENOMEM : RUV_EINTERNAL, "vocab",
		                "splitting text at byte %zu: %s", cursor->at, (char *)message);
	}
	range = pcre2_get_ovector_pointer(cursor->match);
	if (n == PCRE2_ERROR_NOMATCH)
		*end = cursor->n_bytes;
	else if (range[0] > cursor->at)
		*end = range[0]; /* what no alternative takes is a piece too */
	else
		*end = range[1];
	cursor->at = *end;
	return 1;
}

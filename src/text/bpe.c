/* bpe.c - encoding: special tokens, normalisation, splitting, merging by rank.
 *
 * Merging takes the pair of lowest rank, leftmost first among equals, until none is left (Sennrich et al. 2016). Pieces are mostly
 * words, so short ones scan an array on the stack for the lowest rank; long ones (a megabyte of one letter is still one piece)
 * keep the pairs in a heap over a linked list: O(n log n).
 * Most words of a text are tokens, but a token need not be what merging its bytes gives; what was found out is remembered for each
 * token, so that from the second time on such a word costs one look-up.
 * Threads: everything that is written lies in the call's own encoder, except the remembered answers, which are atomic bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/unicode.h"
#include "text/vocab.h"
#include "text/vocab_impl.h"

enum { SHORT_PIECE = 48 }; /* bytes */

/* A symbol of a long piece: a token in a doubly linked list. */
typedef struct symbol {
	int32_t id; /* -1: merged away */
	int32_t prev, next;
} symbol;

/* A pair that may be merged; stale when the symbols are no longer these. */
typedef struct candidate {
	uint32_t rank;
	int32_t at; /* the left symbol */
	int32_t left, right, merged;
} candidate;

typedef struct encoder {
	const ruv_vocab *vocab;
	ruv_pretokenize_cursor cursor;
	ruv_tokens *out;
	ruv_buf nfc;
	symbol *symbols;
	size_t cap_symbols;
	candidate *heap;
	size_t n_heap, cap_heap;
	ruv_error *err;
} encoder;

void ruv_tokens_release(ruv_tokens *tokens)
{
	free(tokens->ids);
	tokens->ids = NULL;
	tokens->n = tokens->cap = 0;
}

static int tokens_reserve(ruv_tokens *tokens, size_t n, ruv_error *err)
{
	size_t need = tokens->n + n, cap = tokens->cap ? tokens->cap : 64;
	ruv_token *ids;

	if (tokens->max && need > tokens->max)
		return ruv_fail(err, RUV_ELIMIT, "vocab", "the text has more than %zu tokens", tokens->max);
	if (need <= tokens->cap)
		return RUV_OK;
	while (cap < need)
		cap *= 2;
	ids = realloc(tokens->ids, cap * sizeof *ids);
	if (!ids)
		return ruv_fail_memory(err, "vocab", cap * sizeof *ids);
	tokens->ids = ids;
	tokens->cap = cap;
	return RUV_OK;
}

int ruv_tokens_push(ruv_tokens *tokens, ruv_token id, ruv_error *err)
{
	int rc = tokens_reserve(tokens, 1, err);
	if (rc)
		return rc;
	tokens->ids[tokens->n++] = id;
	return RUV_OK;
}

/* ---- merging ---- */

static int byte_tokens_missing(encoder *e, unsigned char byte)
{
	return ruv_fail(e->err, RUV_EFORMAT, "vocab", "the vocabulary has no token for byte 0x%02X", byte);
}

/* Merges at most SHORT_PIECE bytes into ids[]; returns how many ids, or a status. */
static int merge_short(encoder *e, const char *piece, int n, int32_t *ids)
{
	const ruv_vocab *v = e->vocab;
	const vocab_merge *pair[SHORT_PIECE];
	int i;

	for (i = 0; i < n; i++) {
		ids[i] = v->byte_id[(unsigned char)piece[i]];
		if (ids[i] < 0)
			return byte_tokens_missing(e, (unsigned char)piece[i]);
	}
	for (i = 0; i + 1 < n; i++)
		pair[i] = ruv_vocab_lookup_merge(v, ids[i], ids[i + 1]);
	for (;;) {
		uint32_t lowest = UINT32_MAX;
		int best = -1;

		for (i = 0; i + 1 < n; i++)
			if (pair[i] && pair[i]->rank < lowest) {
				lowest = pair[i]->rank;
				best = i;
			}
		if (best < 0)
			return n;
		ids[best] = pair[best]->id;
		n--;
		for (i = best + 1; i < n; i++) {
			ids[i] = ids[i + 1];
			pair[i - 1] = pair[i];
		}
		/* pair[k] belongs to ids[k], ids[k + 1]; both neighbours of the new token changed. */
		if (best > 0)
			pair[best - 1] = ruv_vocab_lookup_merge(v, ids[best - 1], ids[best]);
		if (best + 1 < n)
			pair[best] = ruv_vocab_lookup_merge(v, ids[best], ids[best + 1]);
	}
}

static bool before(const candidate *a, const candidate *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static int heap_push(encoder *e, int32_t at)
{
	const symbol *left = &e->symbols[at], *right;
	const vocab_merge *merge;
	candidate c;
	size_t i;

	if (at < 0 || left->next < 0)
		return RUV_OK;
	right = &e->symbols[left->next];
	merge = ruv_vocab_lookup_merge(e->vocab, left->id, right->id);
	if (!merge)
		return RUV_OK;
	if (e->n_heap == e->cap_heap) {
		size_t cap = e->cap_heap ? e->cap_heap * 2 : 256;
		candidate *heap = realloc(e->heap, cap * sizeof *heap);
		if (!heap)
			return ruv_fail_memory(e->err, "vocab", cap * sizeof *heap);
		e->heap = heap;
		e->cap_heap = cap;
	}
	c = (candidate){merge->rank, at, left->id, right->id, merge->id};
	for (i = e->n_heap++; i > 0 && before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
		e->heap[i] = e->heap[(i - 1) / 2];
	e->heap[i] = c;
	return RUV_OK;
}

static candidate heap_pop(encoder *e)
{
	candidate top = e->heap[0], last = e->heap[--e->n_heap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < e->n_heap) {
		if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child]))
			child++;
		if (!before(&e->heap[child], &last))
			break;
		e->heap[i] = e->heap[child];
		i = child;
	}
	e->heap[i] = last;
	return top;
}

/* Merges a piece of any length and emits its tokens. */
static int merge_long(encoder *e, const char *piece, size_t n)
{
	size_t i;
	int32_t at;
	int rc;

	if (n > INT32_MAX)
		return ruv_fail(e->err, RUV_ELIMIT, "vocab", "a piece of %zu bytes without a break is too long", n);
	if (n > e->cap_symbols) {
		symbol *symbols = realloc(e->symbols, n * sizeof *symbols);
		if (!symbols)
			return ruv_fail_memory(e->err, "vocab", n * sizeof *symbols);
		e->symbols = symbols;
		e->cap_symbols = n;
	}
	for (i = 0; i < n; i++) {
		int32_t id = e->vocab->byte_id[(unsigned char)piece[i]];
		if (id < 0)
			return byte_tokens_missing(e, (unsigned char)piece[i]);
		e->symbols[i] = (symbol){id, (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
	}
	e->n_heap = 0;
	for (i = 0; i + 1 < n; i++) {
		rc = heap_push(e, (int32_t)i);
		if (rc)
			return rc;
	}
	while (e->n_heap > 0) {
		candidate c = heap_pop(e);
		symbol *left = &e->symbols[c.at], *right;

		if (left->id != c.left || left->next < 0)
			continue;
		right = &e->symbols[left->next];
		if (right->id != c.right)
			continue;
		left->id = c.merged;
		right->id = -1;
		left->next = right->next;
		if (left->next >= 0)
			e->symbols[left->next].prev = c.at;
		if (left->prev >= 0 && (rc = heap_push(e, left->prev)))
			return rc;
		rc = heap_push(e, c.at);
		if (rc)
			return rc;
	}
	for (at = 0; at >= 0; at = e->symbols[at].next) {
		rc = ruv_tokens_push(e->out, e->symbols[at].id, e->err);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

static int encode_piece(encoder *e, const char *piece, size_t n)
{
	const ruv_vocab *v = e->vocab;
	int32_t whole = ruv_vocab_lookup_bytes(v, piece, n), ids[SHORT_PIECE];
	int count, rc;

	if (whole >= 0 && (v->ignore_merges || atomic_load_explicit(&v->whole[whole], memory_order_relaxed) == WHOLE_YES))
		return ruv_tokens_push(e->out, whole, e->err);
	if (n <= SHORT_PIECE) {
		count = merge_short(e, piece, (int)n, ids);
		if (count < 0)
			return count;
		rc = tokens_reserve(e->out, (size_t)count, e->err);
		if (rc)
			return rc;
		memcpy(e->out->ids + e->out->n, ids, (size_t)count * sizeof *ids);
		e->out->n += (size_t)count;
		if (whole >= 0)
			atomic_store_explicit(&v->whole[whole], count == 1 && ids[0] == whole ? WHOLE_YES : WHOLE_NO,
			                      memory_order_relaxed);
		return RUV_OK;
	}
	return merge_long(e, piece, n);
}

/* ---- splitting ---- */

/* Text without special tokens in it. */
static int encode_plain(encoder *e, const char *text, size_t n)
{
	while (n > 0) {
		size_t n_valid = ruv_utf8_valid_prefix(text, n), n_bad;
		const char *valid = text;
		size_t begin, end, len = n_valid;
		int rc;

		if (n_valid > 0) {
			if (e->vocab->family->nfc) {
				ruv_buf_clear(&e->nfc);
				rc = ruv_unicode_nfc(text, n_valid, &e->nfc, e->err);
				if (rc)
					return rc;
				valid = e->nfc.data;
				len = e->nfc.len;
			}
			ruv_pretokenize_set(&e->cursor, valid, len);
			while ((rc = ruv_pretokenize_next(&e->cursor, &begin, &end, e->err)) > 0) {
				rc = encode_piece(e, valid + begin, end - begin);
				if (rc)
					return rc;
			}
			if (rc < 0)
				return rc;
		}
		for (n_bad = 0; n_valid + n_bad < n;) {
			const char *at = text + n_valid + n_bad;
			int bad;
			if (ruv_utf8_decode(at, n - n_valid - n_bad, NULL, &bad, NULL))
				break;
			n_bad += (size_t)bad;
		}
		if (n_bad > 0) {
			rc = encode_piece(e, text + n_valid, n_bad);
			if (rc)
				return rc;
		}
		text += n_valid + n_bad;
		n -= n_valid + n_bad;
	}
	return RUV_OK;
}

/* Where special tokens may be read: everywhere, nowhere, or in spans. */
typedef struct trust {
	const ruv_span *spans;
	size_t n, at;
	bool everywhere;
} trust;

static bool trusted(trust *t, size_t begin, size_t end)
{
	if (t->everywhere)
		return true;
	while (t->at < t->n && t->spans[t->at].end <= begin)
		t->at++;
	return t->at < t->n && t->spans[t->at].begin <= begin && end <= t->spans[t->at].end;
}

static int encode_all(encoder *e, const char *text, size_t n, trust *t)
{
	const ruv_vocab *v = e->vocab;
	size_t i, plain = 0;
	int rc;

	for (i = 0; i < n;) {
		unsigned char first = (unsigned char)text[i];
		uint32_t k = v->special_from[first], last = v->special_from[first + 1];

		for (; k < last; k++) {
			const vocab_special *s = &v->specials[k];
			if (s->len <= n - i && memcmp(text + i, s->text, s->len) == 0 &&
			    (!s->only_trusted || trusted(t, i, i + s->len)))
				break;
		}
		if (k == last) {
			i++;
			continue;
		}
		rc = encode_plain(e, text + plain, i - plain);
		if (rc)
			return rc;
		rc = ruv_tokens_push(e->out, v->specials[k].id, e->err);
		if (rc)
			return rc;
		i += v->specials[k].len;
		plain = i;
	}
	return encode_plain(e, text + plain, n - plain);
}

static int encode(const ruv_vocab *v, const char *text, size_t n_bytes, trust *t, bool edges, ruv_tokens *tokens, ruv_error *err)
{
	encoder e = {.vocab = v, .out = tokens, .err = err};
	size_t n_before = tokens->n;
	int rc;

	if (n_bytes > INT32_MAX)
		return ruv_fail(err, RUV_ELIMIT, "vocab", "a text of %zu bytes is too long, at most 2 GiB are allowed", n_bytes);
	ruv_buf_init(&e.nfc, 4 * (size_t)INT32_MAX);
	rc = ruv_pretokenize_open(&e.cursor, v->pt, err);
	if (rc)
		return rc;
	if (edges && v->add_bos && (rc = ruv_tokens_push(tokens, v->bos, err)))
		goto done;
	rc = encode_all(&e, text, n_bytes, t);
	if (rc)
		goto done;
	if (edges && v->add_eos)
		rc = ruv_tokens_push(tokens, v->eos, err);
done:
	if (rc)
		tokens->n = n_before;
	ruv_pretokenize_close(&e.cursor);
	ruv_buf_release(&e.nfc);
	free(e.symbols);
	free(e.heap);
	return rc;
}

int ruv_vocab_encode(const ruv_vocab *v, const char *text, size_t n_bytes, int flags, ruv_tokens *tokens, ruv_error *err)
{
	trust t = {.everywhere = (flags & RUV_ENCODE_SPECIAL) != 0};
	return encode(v, text, n_bytes, &t, flags & RUV_ENCODE_EDGES, tokens, err);
}

int ruv_vocab_encode_trusted(const ruv_vocab *v, const char *text, size_t n_bytes, const ruv_span *spans, size_t n_spans, int flags,
                             ruv_tokens *tokens, ruv_error *err)
{
	trust t = {.spans = spans, .n = n_spans, .everywhere = (flags & RUV_ENCODE_SPECIAL) != 0};
	return encode(v, text, n_bytes, &t, flags & RUV_ENCODE_EDGES, tokens, err);
}

int ruv_vocab_count(const ruv_vocab *v, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err)
{
	ruv_tokens tokens = {0};
	int rc = ruv_vocab_encode(v, text, n_bytes, 0, &tokens, err);

	if (rc == RUV_OK)
		*n_tokens = tokens.n;
	ruv_tokens_release(&tokens);
	return rc;
}

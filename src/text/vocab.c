/* vocab.c - making a vocabulary, its look-ups, and decoding. Encoding is in bpe.c.
 *
 * GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves as characters, the other 68 bytes for U+0100..U+0143 in their
 * order, so that every byte string is readable text. A normal token all of whose characters belong to the alphabet stands for those
 * bytes; any other token stands for its own UTF-8 text. */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "text/unicode.h"
#include "text/vocab_impl.h"

/* Control tokens that end a turn or a text, by name: files often name only one of them as eos. */
static const char *const end_names[] = {
    "<|im_end|>",      "<|endoftext|>", "<|eot_id|>", "<|eom_id|>",
    "<|end_of_text|>", "<|end|>",       "<|return|>", "<end_of_turn>",
    "<EOT>",           "</s>",          "<eos>",      "<\xEF\xBD\x9C\x65nd\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
};

void ruv_vocab_desc_init(ruv_vocab_desc *desc)
{
	memset(desc, 0, sizeof *desc);
	desc->bos = desc->eos = desc->eot = desc->pad = desc->unk = -1;
	desc->add_bos = desc->add_eos = desc->ignore_merges = -1;
}

const char *ruv_vocab_pre_names(void)
{
	return ruv_pretokenizer_names();
}

bool ruv_vocab_pre_known(const char *pre)
{
	return ruv_pretokenizer_traits_of(pre) != NULL;
}

/* The byte that a character of the alphabet stands for, -1 for any other character. */
static int alphabet_byte(uint32_t cp)
{
	static const unsigned char others[68] = {
	    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,  16,  17,  18,  19,  20,  21,  22,
	    23,  24,  25,  26,  27,  28,  29,  30,  31,  32,  127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139,
	    140, 141, 142, 143, 144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 173,
	};

	if ((cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xAC) || (cp >= 0xAE && cp <= 0xFF))
		return (int)cp;
	if (cp >= 0x100 && cp < 0x100 + sizeof others)
		return others[cp - 0x100];
	return -1;
}

/* ---- tables ---- */

static int table_init(vocab_table *table, size_t n_entries, ruv_error *err)
{
	size_t n_slots = 16, i;

	while (n_slots * 5 / 8 < n_entries)
		n_slots *= 2;
	table->slots = malloc(n_slots * sizeof *table->slots);
	if (!table->slots)
		return ruv_fail_memory(err, "vocab", n_slots * sizeof *table->slots);
	for (i = 0; i < n_slots; i++)
		table->slots[i] = (vocab_slot){0, -1};
	table->mask = (uint32_t)(n_slots - 1);
	return RUV_OK;
}

/* The id with these bytes, or -1 with *at at the free slot. `blob` and `blob_at` hold the entries' bytes. */
static int32_t table_find(const vocab_table *table, const char *blob, const uint32_t *blob_at, const char *key, size_t len,
                          uint64_t hash, uint32_t *at)
{
	uint32_t tag = (uint32_t)(hash >> 32), i = (uint32_t)hash & table->mask;

	for (;; i = (i + 1) & table->mask) {
		const vocab_slot *slot = &table->slots[i];
		if (slot->id < 0) {
			*at = i;
			return -1;
		}
		if (slot->tag == tag && blob_at[slot->id + 1] - blob_at[slot->id] == len &&
		    memcmp(blob + blob_at[slot->id], key, len) == 0)
			return slot->id;
	}
}

/* The first of several equal entries stays. */
static void table_add(vocab_table *table, const char *blob, const uint32_t *blob_at, int32_t id)
{
	const char *key = blob + blob_at[id];
	size_t len = blob_at[id + 1] - blob_at[id];
	uint64_t hash = ruv_hash64(key, len, 0);
	uint32_t at;

	if (table_find(table, blob, blob_at, key, len, hash, &at) < 0)
		table->slots[at] = (vocab_slot){(uint32_t)(hash >> 32), id};
}

static uint32_t merge_slot(uint64_t pair, uint32_t mask)
{
	pair *= 0x9E3779B97F4A7C15u;
	return (uint32_t)(pair >> 32) & mask;
}

int32_t ruv_vocab_lookup_bytes(const ruv_vocab *vocab, const char *bytes, size_t n_bytes)
{
	uint32_t at;
	return table_find(&vocab->by_bytes, vocab->bytes, vocab->bytes_at, bytes, n_bytes, ruv_hash64(bytes, n_bytes, 0), &at);
}

const vocab_merge *ruv_vocab_lookup_merge(const ruv_vocab *vocab, int32_t left, int32_t right)
{
	uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	uint32_t i = merge_slot(pair, vocab->merge_mask);

	for (;; i = (i + 1) & vocab->merge_mask) {
		if (vocab->merges[i].pair == pair)
			return &vocab->merges[i];
		if (vocab->merges[i].pair == UINT64_MAX)
			return NULL;
	}
}

/* ---- making ---- */

/* Texts, types and the bytes that tokens stand for. */
static int copy_tokens(ruv_vocab *v, const ruv_vocab_desc *desc, ruv_error *err)
{
	size_t i, total = 0;
	uint32_t n_text = 0, n_bytes = 0;

	for (i = 0; i < desc->n_tokens; i++) {
		if (desc->tokens[i].len > 1 << 20)
			return ruv_fail(err, RUV_ELIMIT, "vocab", "token %zu is %zu bytes long, at most %d are allowed", i,
			                desc->tokens[i].len, 1 << 20);
		total += desc->tokens[i].len;
		if (total > INT32_MAX)
			return ruv_fail(err, RUV_ELIMIT, "vocab", "the tokens' texts are larger than 2 GiB");
	}
	v->text = malloc(total + 1);
	v->bytes = malloc(total + 1); /* standing for bytes never makes a token longer */
	v->text_at = malloc((desc->n_tokens + 1) * sizeof *v->text_at);
	v->bytes_at = malloc((desc->n_tokens + 1) * sizeof *v->bytes_at);
	v->type = malloc(desc->n_tokens);
	v->traits = calloc(desc->n_tokens, 1);
	v->whole = calloc(desc->n_tokens, sizeof *v->whole);
	if (!v->text || !v->bytes || !v->text_at || !v->bytes_at || !v->type || !v->traits || !v->whole)
		return ruv_fail_memory(err, "vocab", 2 * total + desc->n_tokens * 11);

	for (i = 0; i < desc->n_tokens; i++) {
		const char *text = desc->tokens[i].data;
		size_t len = desc->tokens[i].len, at;
		int32_t type = desc->types ? desc->types[i] : RUV_TOKEN_NORMAL;
		uint32_t start = n_bytes;

		if (type < RUV_TOKEN_NORMAL || type > RUV_TOKEN_BYTE)
			return ruv_fail(err, RUV_EFORMAT, "vocab", "token %zu has type %d, known are 1 to 6", i, (int)type);
		v->type[i] = (uint8_t)type;
		v->text_at[i] = n_text;
		v->bytes_at[i] = n_bytes;
		if (len)
			memcpy(v->text + n_text, text, len);
		n_text += (uint32_t)len;
		if (type == RUV_TOKEN_NORMAL) {
			for (at = 0; at < len;) {
				uint32_t cp;
				int n = ruv_utf8_decode(text + at, len - at, &cp, NULL, NULL), byte;
				if (n == 0)
					return ruv_fail(err, RUV_EFORMAT, "vocab", "token %zu is not UTF-8", i);
				byte = alphabet_byte(cp);
				if (byte < 0)
					break;
				v->bytes[n_bytes++] = (char)byte;
				at += (size_t)n;
			}
			if (at == len)
				continue;
			n_bytes = start; /* a character from outside: it stands for its own text */
		} else if (type == RUV_TOKEN_BYTE) {
			char hex[3] = {0}, *stop;
			if (len != 6 || memcmp(text, "<0x", 3) || text[5] != '>')
				return ruv_fail(err, RUV_EFORMAT, "vocab", "token %zu is a byte, but not written <0xHH>", i);
			memcpy(hex, text + 3, 2);
			v->bytes[n_bytes++] = (char)strtol(hex, &stop, 16);
			if (stop != hex + 2)
				return ruv_fail(err, RUV_EFORMAT, "vocab", "token %zu is a byte, but not written <0xHH>", i);
			continue;
		}
		if (len)
			memcpy(v->bytes + n_bytes, text, len);
		n_bytes += (uint32_t)len;
	}
	v->text_at[i] = n_text;
	v->bytes_at[i] = n_bytes;
	v->n_tokens = desc->n_tokens;
	return RUV_OK;
}

static int index_tokens(ruv_vocab *v, ruv_error *err)
{
	size_t i, n_normal = 0;
	int rc, b;

	for (i = 0; i < v->n_tokens; i++)
		n_normal += v->type[i] == RUV_TOKEN_NORMAL;
	rc = table_init(&v->by_text, v->n_tokens, err);
	if (rc)
		return rc;
	rc = table_init(&v->by_bytes, n_normal, err);
	if (rc)
		return rc;
	for (b = 0; b < 256; b++)
		v->byte_id[b] = -1;
	for (i = 0; i < v->n_tokens; i++) {
		table_add(&v->by_text, v->text, v->text_at, (int32_t)i);
		if (v->type[i] == RUV_TOKEN_NORMAL && v->bytes_at[i + 1] > v->bytes_at[i])
			table_add(&v->by_bytes, v->bytes, v->bytes_at, (int32_t)i);
	}
	for (b = 0; b < 256; b++) {
		char byte = (char)b;
		v->byte_id[b] = ruv_vocab_lookup_bytes(v, &byte, 1);
	}
	return RUV_OK;
}

static int index_merges(ruv_vocab *v, const ruv_vocab_desc *desc, ruv_error *err)
{
	size_t n_slots = 16, i;
	char both[512], *joined = both;
	size_t room = sizeof both;
	int rc = RUV_OK;

	if (desc->n_merges > INT32_MAX / 2)
		return ruv_fail(err, RUV_ELIMIT, "vocab", "%zu merges are too many", desc->n_merges);
	while (n_slots * 5 / 8 < desc->n_merges)
		n_slots *= 2;
	v->merges = malloc(n_slots * sizeof *v->merges);
	if (!v->merges)
		return ruv_fail_memory(err, "vocab", n_slots * sizeof *v->merges);
	for (i = 0; i < n_slots; i++)
		v->merges[i].pair = UINT64_MAX;
	v->merge_mask = (uint32_t)(n_slots - 1);

	for (i = 0; i < desc->n_merges; i++) {
		const char *text = desc->merges[i].data, *space;
		size_t len = desc->merges[i].len, n_left;
		int32_t left, right, merged;
		uint64_t pair;
		uint32_t at;

		space = len > 2 ? memchr(text + 1, ' ', len - 2) : NULL;
		if (!space) {
			rc = ruv_fail(err, RUV_EFORMAT, "vocab", "merge %zu is not two tokens with a space between them", i);
			goto done;
		}
		n_left = (size_t)(space - text);
		left = ruv_vocab_find(v, text, n_left);
		right = ruv_vocab_find(v, space + 1, len - n_left - 1);
		if (len > room) {
			char *more = realloc(joined == both ? NULL : joined, len);
			if (!more) {
				rc = ruv_fail_memory(err, "vocab", len);
				goto done;
			}
			joined = more;
			room = len;
		}
		memcpy(joined, text, n_left);
		memcpy(joined + n_left, space + 1, len - n_left - 1);
		merged = ruv_vocab_find(v, joined, len - 1);
		if (left < 0 || right < 0 || merged < 0) {
			rc = ruv_fail(err, RUV_EFORMAT, "vocab", "merge %zu '%.*s': %s no token", i, (int)(len > 100 ? 100 : len),
			              text,
			              left < 0    ? "its left part is"
			              : right < 0 ? "its right part is"
			                          : "what it gives is");
			goto done;
		}
		pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
		for (at = merge_slot(pair, v->merge_mask); v->merges[at].pair != UINT64_MAX && v->merges[at].pair != pair;)
			at = (at + 1) & v->merge_mask;
		if (v->merges[at].pair == UINT64_MAX) /* the first of several equal ones has the better rank */
			v->merges[at] = (vocab_merge){pair, (uint32_t)i, merged};
	}
done:
	if (joined != both)
		free(joined);
	return rc;
}

static int by_first_byte_then_longest(const void *a, const void *b)
{
	const vocab_special *x = a, *y = b;
	int dx = (unsigned char)x->text[0], dy = (unsigned char)y->text[0];

	if (dx != dy)
		return dx - dy;
	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* The tokens that are cut out before splitting, and what each token is for. */
static int index_specials(ruv_vocab *v, ruv_error *err)
{
	size_t i, n = 0, k;
	int b;

	for (i = 0; i < v->n_tokens; i++)
		n += (v->type[i] == RUV_TOKEN_CONTROL || v->type[i] == RUV_TOKEN_USER_DEFINED || v->type[i] == RUV_TOKEN_UNKNOWN);
	v->specials = malloc((n + 1) * sizeof *v->specials);
	if (!v->specials)
		return ruv_fail_memory(err, "vocab", (n + 1) * sizeof *v->specials);
	for (i = 0; i < v->n_tokens; i++) {
		ruv_str text = ruv_vocab_text(v, (ruv_token)i);
		bool user = v->type[i] == RUV_TOKEN_USER_DEFINED, special;

		if (!user && v->type[i] != RUV_TOKEN_CONTROL && v->type[i] != RUV_TOKEN_UNKNOWN)
			continue;
		/* Runs of spaces and the like may come from anywhere; "<tool_call>" or "<think>" is as structural as
		 * "<|im_start|>". */
		special = !user || (text.len > 2 && text.data[0] == '<' && text.data[text.len - 1] == '>');
		if (special)
			v->traits[i] |= TRAIT_SPECIAL;
		for (k = 0; k < sizeof end_names / sizeof *end_names; k++)
			if (text.len == strlen(end_names[k]) && memcmp(text.data, end_names[k], text.len) == 0)
				v->traits[i] |= TRAIT_END;
		if (text.len > 0)
			v->specials[v->n_specials++] = (vocab_special){text.data, (uint32_t)text.len, (int32_t)i, special};
	}
	if (v->eos >= 0)
		v->traits[v->eos] |= TRAIT_END;
	if (v->eot >= 0)
		v->traits[v->eot] |= TRAIT_END;
	qsort(v->specials, v->n_specials, sizeof *v->specials, by_first_byte_then_longest);
	for (b = 0, i = 0; b < 256; b++) {
		v->special_from[b] = (uint32_t)i;
		while (i < v->n_specials && (unsigned char)v->specials[i].text[0] == b)
			i++;
	}
	v->special_from[256] = (uint32_t)i;
	return RUV_OK;
}

static int check_id(const ruv_vocab_desc *desc, ruv_token id, const char *what, ruv_error *err)
{
	if (id < -1 || (id >= 0 && (size_t)id >= desc->n_tokens))
		return ruv_fail(err, RUV_EFORMAT, "vocab", "%s token id %d is outside the vocabulary of %zu tokens", what, (int)id,
		                desc->n_tokens);
	return RUV_OK;
}

int ruv_vocab_create(ruv_vocab **out, const ruv_vocab_desc *desc, ruv_error *err)
{
	ruv_vocab *v = NULL;
	int rc;

	if (desc->n_tokens == 0 || desc->n_tokens > INT32_MAX / 4)
		return ruv_fail(err, RUV_EFORMAT, "vocab", "a vocabulary of %zu tokens", desc->n_tokens);
	if ((rc = check_id(desc, desc->bos, "bos", err)) || (rc = check_id(desc, desc->eos, "eos", err)) ||
	    (rc = check_id(desc, desc->eot, "eot", err)) || (rc = check_id(desc, desc->pad, "padding", err)) ||
	    (rc = check_id(desc, desc->unk, "unknown", err)))
		return rc;
	v = calloc(1, sizeof *v);
	if (!v)
		return ruv_fail_memory(err, "vocab", sizeof *v);
	rc = ruv_pretokenizer_create(&v->pt, desc->pre, err);
	if (rc)
		goto done;
	v->family = ruv_pretokenizer_traits_of(desc->pre);
	v->bos = desc->bos;
	v->eos = desc->eos;
	v->eot = desc->eot;
	v->pad = desc->pad;
	v->unk = desc->unk;
	v->add_bos = desc->add_bos < 0 ? v->family->add_bos && v->bos >= 0 : desc->add_bos != 0;
	v->add_eos = desc->add_eos > 0;
	v->ignore_merges = desc->ignore_merges < 0 ? v->family->ignore_merges : desc->ignore_merges != 0;
	if ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0)) {
		rc = ruv_fail(err, RUV_EFORMAT, "vocab", "add_%s_token is set, but there is no %s token",
		              v->bos < 0 ? "bos" : "eos", v->bos < 0 ? "bos" : "eos");
		goto done;
	}
	if ((rc = copy_tokens(v, desc, err)) || (rc = index_tokens(v, err)) || (rc = index_merges(v, desc, err)) ||
	    (rc = index_specials(v, err)))
		goto done;
	*out = v;
	v = NULL;
done:
	ruv_vocab_free(v);
	return rc;
}

void ruv_vocab_free(ruv_vocab *v)
{
	if (!v)
		return;
	ruv_pretokenizer_free(v->pt);
	free(v->text);
	free(v->bytes);
	free(v->text_at);
	free(v->bytes_at);
	free(v->type);
	free(v->traits);
	free(v->whole);
	free(v->by_text.slots);
	free(v->by_bytes.slots);
	free(v->merges);
	free(v->specials);
	free(v);
}

/* ---- questions ---- */

static bool inside(const ruv_vocab *v, ruv_token id)
{
	return id >= 0 && (size_t)id < v->n_tokens;
}

size_t ruv_vocab_n_tokens(const ruv_vocab *v)
{
	return v->n_tokens;
}

const char *ruv_vocab_pre(const ruv_vocab *v)
{
	return v->family->name;
}

ruv_token ruv_vocab_bos(const ruv_vocab *v)
{
	return v->bos;
}

ruv_token ruv_vocab_eos(const ruv_vocab *v)
{
	return v->eos;
}

ruv_token ruv_vocab_pad(const ruv_vocab *v)
{
	return v->pad;
}

bool ruv_vocab_add_bos(const ruv_vocab *v)
{
	return v->add_bos;
}

bool ruv_vocab_add_eos(const ruv_vocab *v)
{
	return v->add_eos;
}

ruv_token_type ruv_vocab_type(const ruv_vocab *v, ruv_token id)
{
	return inside(v, id) ? (ruv_token_type)v->type[id] : RUV_TOKEN_UNUSED;
}

bool ruv_vocab_is_end(const ruv_vocab *v, ruv_token id)
{
	return inside(v, id) && (v->traits[id] & TRAIT_END);
}

bool ruv_vocab_is_special(const ruv_vocab *v, ruv_token id)
{
	return inside(v, id) && (v->traits[id] & TRAIT_SPECIAL);
}

bool ruv_vocab_may_sample(const ruv_vocab *v, ruv_token id)
{
	if (!inside(v, id) || v->type[id] == RUV_TOKEN_UNUSED || v->type[id] == RUV_TOKEN_UNKNOWN)
		return false;
	return (v->traits[id] & TRAIT_END) || (id != v->bos && id != v->pad);
}

ruv_str ruv_vocab_text(const ruv_vocab *v, ruv_token id)
{
	if (!inside(v, id))
		return (ruv_str){NULL, 0};
	return (ruv_str){v->text + v->text_at[id], v->text_at[id + 1] - v->text_at[id]};
}

ruv_str ruv_vocab_bytes(const ruv_vocab *v, ruv_token id)
{
	if (!inside(v, id))
		return (ruv_str){NULL, 0};
	return (ruv_str){v->bytes + v->bytes_at[id], v->bytes_at[id + 1] - v->bytes_at[id]};
}

ruv_token ruv_vocab_find(const ruv_vocab *v, const char *text, size_t n_bytes)
{
	uint32_t at;
	return table_find(&v->by_text, v->text, v->text_at, text, n_bytes, ruv_hash64(text, n_bytes, 0), &at);
}

/* ---- decoding ---- */

int ruv_vocab_decode(const ruv_vocab *v, const ruv_token *ids, size_t n, bool skip_special, ruv_buf *text, ruv_error *err)
{
	size_t i;

	for (i = 0; i < n; i++) {
		ruv_str bytes = ruv_vocab_bytes(v, ids[i]);
		if (!bytes.data)
			return ruv_fail(err, RUV_EINVAL, "vocab", "id %d at position %zu is outside the vocabulary of %zu tokens",
			                (int)ids[i], i, v->n_tokens);
		if (skip_special && ruv_vocab_is_special(v, ids[i]))
			continue;
		ruv_buf_append(text, bytes.data, bytes.len);
	}
	if (text->failed)
		return ruv_fail(err, text->failed, "vocab", "decoding %zu tokens: %s", n, ruv_status_text(text->failed));
	return RUV_OK;
}

void ruv_utf8_stream_init(ruv_utf8_stream *stream)
{
	memset(stream, 0, sizeof *stream);
}

int ruv_utf8_stream_push(ruv_utf8_stream *stream, const char *bytes, size_t n_bytes, ruv_buf *out)
{
	size_t i = 0;

	/* Complete or refute what is held back, one byte at a time: it is at most three bytes. */
	while (stream->n_held > 0 && i < n_bytes) {
		char *held = (char *)stream->held;
		int n, bad;
		bool cut;

		held[stream->n_held] = bytes[i];
		n = ruv_utf8_decode(held, (size_t)stream->n_held + 1, NULL, &bad, &cut);
		if (n) {
			ruv_buf_append(out, held, (size_t)n);
			stream->n_held = 0;
			i++;
		} else if (cut) {
			stream->n_held++;
			i++;
		} else {
			ruv_buf_append(out, "\xEF\xBF\xBD", 3); /* this byte begins anew */
			stream->n_held = 0;
		}
	}
	while (i < n_bytes) {
		size_t n = ruv_utf8_valid_prefix(bytes + i, n_bytes - i);
		int bad;
		bool cut;

		ruv_buf_append(out, bytes + i, n);
		i += n;
		if (i == n_bytes)
			break;
		ruv_utf8_decode(bytes + i, n_bytes - i, NULL, &bad, &cut);
		if (cut) {
			memcpy(stream->held, bytes + i, n_bytes - i);
			stream->n_held = (int)(n_bytes - i);
			break;
		}
		ruv_buf_append(out, "\xEF\xBF\xBD", 3);
		i += (size_t)bad;
	}
	return out->failed;
}

int ruv_utf8_stream_finish(ruv_utf8_stream *stream, ruv_buf *out)
{
	if (stream->n_held > 0)
		ruv_buf_append(out, "\xEF\xBF\xBD", 3);
	stream->n_held = 0;
	return out->failed;
}

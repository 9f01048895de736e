/* vocab_impl.h - what vocab.c (making, looking up, decoding) and bpe.c (encoding) share. Layer: text, private.
 *
 * Tables are open-addressing with linear probing, a power of two of slots, at most 5/8 full. Ids and offsets are 32-bit. */
#ifndef RUV_TEXT_VOCAB_IMPL_H
#define RUV_TEXT_VOCAB_IMPL_H

#include <stdatomic.h>

#include "text/pretokenize.h"
#include "text/vocab.h"

/* Bytes to id: `tag` is the upper half of the hash; the bytes themselves are compared as well. */
typedef struct vocab_slot {
	uint32_t tag;
	int32_t id; /* -1: free */
} vocab_slot;

typedef struct vocab_table {
	vocab_slot *slots; /* [mask + 1] */
	uint32_t mask;
} vocab_table;

typedef struct vocab_merge {
	uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free */
	uint32_t rank;
	int32_t id; /* of the merged token */
} vocab_merge;

/* A token that is cut out of the text before splitting. */
typedef struct vocab_special {
	const char *text;
	uint32_t len;
	int32_t id;
	bool only_trusted; /* control and <...> */
} vocab_special;

/* Is merging a token's bytes known to give the token itself? */
enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

struct ruv_vocab {
	size_t n_tokens;
	char *text;             /* stored texts one after the other */
	uint32_t *text_at;      /* [n_tokens + 1] */
	char *bytes;            /* what the tokens stand for, likewise */
	uint32_t *bytes_at;     /* [n_tokens + 1] */
	uint8_t *type;          /* [n_tokens] ruv_token_type */
	uint8_t *traits;        /* [n_tokens] TRAIT_* */
	_Atomic uint8_t *whole; /* [n_tokens] WHOLE_*; a cache: both answers of a race are the same */
	vocab_table by_text;    /* every token */
	vocab_table by_bytes;   /* normal tokens, which merging can give */
	vocab_merge *merges;    /* [merge_mask + 1] */
	uint32_t merge_mask;
	int32_t byte_id[256];    /* the token of one byte; -1: none */
	vocab_special *specials; /* [n_specials] by first byte, longest first */
	size_t n_specials;
	uint32_t special_from[257]; /* specials whose first byte is b: [special_from[b], special_from[b + 1]) */
	ruv_pretokenizer *pt;
	const ruv_pretokenizer_traits *family;
	ruv_token bos, eos, eot, pad, unk;
	bool add_bos, add_eos, ignore_merges;
};

enum { TRAIT_SPECIAL = 1, TRAIT_END = 2 };

/* The id whose bytes are these; -1. */
int32_t ruv_vocab_lookup_bytes(const ruv_vocab *vocab, const char *bytes, size_t n_bytes);
/* The merge of two tokens; NULL when there is none. */
const vocab_merge *ruv_vocab_lookup_merge(const ruv_vocab *vocab, int32_t left, int32_t right);

#endif

/* vocab.h - a model's vocabulary: text to token ids and back, by byte-level BPE (Sennrich et al. 2016; GPT-2's byte alphabet).
 *
 * Encoding is that of Hugging Face's `tokenizers`, id for id: special tokens are cut out first (leftmost, then longest), the text
 * between them is normalised (NFC where the pre-tokenizer's models do so), split by the pre-tokenizer's regular expression, and
 * every piece is merged by rank over its bytes. Deviation: bytes that are not valid UTF-8 are kept (each run of them is a piece of
 * its own), so that what goes in comes out; `tokenizers` cannot be given such text.
 *
 * A vocabulary is made from plain arrays so that this layer knows no file format. Everything is copied.
 * Threads: immutable once made; any number of threads encode and decode with one vocabulary. Layer: text (uses base). */
#ifndef RUV_TEXT_VOCAB_H
#define RUV_TEXT_VOCAB_H

#include "base/buf.h"
#include "ruvllm/types.h"

typedef struct ruv_vocab ruv_vocab;

/* Bytes with a length, no NUL needed. */
typedef struct ruv_str {
	const char *data;
	size_t len;
} ruv_str;

/* Token types as GGUF's tokenizer.ggml.token_type numbers them. */
typedef enum ruv_token_type {
	RUV_TOKEN_NORMAL = 1,
	RUV_TOKEN_UNKNOWN = 2,
	RUV_TOKEN_CONTROL = 3,      /* special: <|im_start|>; never made from text unless RUV_ENCODE_SPECIAL says so */
	RUV_TOKEN_USER_DEFINED = 4, /* matched whole before splitting; those of the form <...> only with RUV_ENCODE_SPECIAL */
	RUV_TOKEN_UNUSED = 5,       /* padding rows; never sampled */
	RUV_TOKEN_BYTE = 6          /* "<0x0A>" */
} ruv_token_type;

/* What a vocabulary is made from. Start from ruv_vocab_desc_init(). */
typedef struct ruv_vocab_desc {
	const ruv_str *tokens; /* [n_tokens] as GGUF stores them: normal tokens in GPT-2's byte-to-unicode letters ("Ġthe") */
	size_t n_tokens;
	const int32_t *types;  /* [n_tokens] ruv_token_type; NULL: all normal */
	const ruv_str *merges; /* [n_merges] "left right", in order of rank */
	size_t n_merges;
	const char *pre;                   /* tokenizer.ggml.pre: see ruv_vocab_pre_names() */
	ruv_token bos, eos, eot, pad, unk; /* -1: none */
	int add_bos, add_eos;              /* 0, 1, or -1: what the pre-tokenizer's models do */
	int ignore_merges;                 /* 0, 1, or -1: likewise; 1: a piece that is a token needs no merging */
} ruv_vocab_desc;

/* All empty, ids and switches -1. */
void ruv_vocab_desc_init(ruv_vocab_desc *desc);

/* Checks and indexes the arrays. RUV_EUNSUPPORTED for an unknown pre-tokenizer (the message lists the known ones), RUV_EFORMAT for
 * a token, merge or id that does not hold together (named with its index), RUV_ENOMEM. The caller frees *out. */
int ruv_vocab_create(ruv_vocab **out, const ruv_vocab_desc *desc, ruv_error *err);
void ruv_vocab_free(ruv_vocab *vocab); /* NULL is fine */

/* "lfm2, llama-bpe, ..., gpt-2": the pre-tokenizers that ruv_vocab_create() knows. */
const char *ruv_vocab_pre_names(void);
bool ruv_vocab_pre_known(const char *pre);

size_t ruv_vocab_n_tokens(const ruv_vocab *vocab);
const char *ruv_vocab_pre(const ruv_vocab *vocab);
ruv_token ruv_vocab_bos(const ruv_vocab *vocab); /* -1: none */
ruv_token ruv_vocab_eos(const ruv_vocab *vocab);
ruv_token ruv_vocab_pad(const ruv_vocab *vocab);
bool ruv_vocab_add_bos(const ruv_vocab *vocab);
bool ruv_vocab_add_eos(const ruv_vocab *vocab);

/* RUV_TOKEN_UNUSED for ids outside the vocabulary. */
ruv_token_type ruv_vocab_type(const ruv_vocab *vocab, ruv_token id);
/* Generation stops here: eos, eot, and control tokens that are known to end a turn or a text (<|im_end|>, <|endoftext|>, ...). */
bool ruv_vocab_is_end(const ruv_vocab *vocab, ruv_token id);
/* Control, unknown, or a user-defined token of the form <...>: what only RUV_ENCODE_SPECIAL may produce. */
bool ruv_vocab_is_special(const ruv_vocab *vocab, ruv_token id);
/* May a sampler choose it? No for padding rows, ids outside, unknown and the begin-of-text token. */
bool ruv_vocab_may_sample(const ruv_vocab *vocab, ruv_token id);

/* The token as the file stores it ("Ġthe", "<|im_end|>"), for display and for comparing vocabularies. {NULL, 0} outside. */
ruv_str ruv_vocab_text(const ruv_vocab *vocab, ruv_token id);
/* The bytes that it stands for (" the"); special tokens stand for their own text. {NULL, 0} outside. Not always whole UTF-8. */
ruv_str ruv_vocab_bytes(const ruv_vocab *vocab, ruv_token id);
/* The id whose stored text is exactly this ("<|im_start|>", "Ġthe"); -1 when there is none. */
ruv_token ruv_vocab_find(const ruv_vocab *vocab, const char *text, size_t n_bytes);

/* ---- encoding ---- */

/* A growable list of ids. Zero it to start ({0}); max 0 means no limit of its own. */
typedef struct ruv_tokens {
	ruv_token *ids; /* [n] */
	size_t n, cap;
	size_t max; /* more is RUV_ELIMIT */
} ruv_tokens;

void ruv_tokens_release(ruv_tokens *tokens);
int ruv_tokens_push(ruv_tokens *tokens, ruv_token id, ruv_error *err);

enum {
	RUV_ENCODE_EDGES = 1,  /* add bos before and eos behind, where the vocabulary wants them */
	RUV_ENCODE_SPECIAL = 2 /* "<|im_end|>" in the text becomes the special token; never for text from users */
};

/* Appends the ids of text[0..n_bytes) to *tokens. On failure *tokens holds what it held before.
 * RUV_EFORMAT when a byte of the text has no token in this vocabulary, RUV_ELIMIT, RUV_ENOMEM. */
int ruv_vocab_encode(const ruv_vocab *vocab, const char *text, size_t n_bytes, int flags, ruv_tokens *tokens, ruv_error *err);

/* A range of bytes [begin, end). */
typedef struct ruv_span {
	size_t begin, end;
} ruv_span;

/* As ruv_vocab_encode, but special tokens are recognised only where they lie wholly within one of the trusted spans (ascending,
 * apart). The text is still tokenised in one go: where no special token is involved, the spans change nothing. */
int ruv_vocab_encode_trusted(const ruv_vocab *vocab, const char *text, size_t n_bytes, const ruv_span *trusted, size_t n_trusted,
                             int flags, ruv_tokens *tokens, ruv_error *err);

/* How many ids ruv_vocab_encode() without flags would append. */
int ruv_vocab_count(const ruv_vocab *vocab, const char *text, size_t n_bytes, size_t *n_tokens, ruv_error *err);

/* ---- decoding ---- */

/* Appends the bytes of all ids; with skip_special, special tokens are left out. Ids outside the vocabulary are RUV_EINVAL. */
int ruv_vocab_decode(const ruv_vocab *vocab, const ruv_token *ids, size_t n, bool skip_special, ruv_buf *text, ruv_error *err);

/* Turns a stream of token bytes into valid UTF-8: an incomplete sequence is held back until the next bytes complete it, bytes that
 * can never become valid turn into U+FFFD (one for each maximal run that began like a character, as Hugging Face and browsers do).
 */
typedef struct ruv_utf8_stream {
	unsigned char held[4];
	int n_held;
} ruv_utf8_stream;

void ruv_utf8_stream_init(ruv_utf8_stream *stream);
/* Appends to `out` what is complete. Returns the buffer's status. */
int ruv_utf8_stream_push(ruv_utf8_stream *stream, const char *bytes, size_t n_bytes, ruv_buf *out);
/* The end of the text: what is still held back becomes U+FFFD. */
int ruv_utf8_stream_finish(ruv_utf8_stream *stream, ruv_buf *out);

#endif

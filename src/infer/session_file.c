/* session_file.c - a session on disk.
 *
 * The fingerprint is that of the model and of the adapter that the session goes through.
 * The bytes (host order, which the magic tells apart; written and read on the same kind of machine):
 *     header  64 bytes: "RUVSESS1" | u64 model fingerprint | u32 kv type | u32 n tokens | u32 attention layers | u32 has logits |
 *             u64 bytes of one page of one layer's K | u64 state bytes | u64 vocabulary | 8 bytes zero
 *     tokens  i32 [n]
 *     pages   for each page, for each attention layer: K bytes, V bytes
 *     state   f32 [n_conv, 2, hidden]
 *     logits  f32 [n_vocab] when has logits
 *     check   u64: XXH3 chained over everything before it, section by section as written
 * Everything is checked before the session is touched. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "infer/session_object.h"

static const char where[] = "session";

struct header {
	char magic[8];
	uint64_t fingerprint;
	uint32_t kv_type, n_tokens, n_layers, has_logits;
	uint64_t page_bytes, state_bytes, n_vocab, zero;
};
_Static_assert(sizeof(struct header) == 64, "the header's bytes are the file format");

static const char magic[8] = {'R', 'U', 'V', 'S', 'E', 'S', 'S', '1'};

static struct header make_header(ruv_session *s)
{
	struct header h = {.fingerprint = ruv_model_fingerprint(s->model) ^ (s->adapter ? s->adapter->fingerprint : 0),
	                   .kv_type = (uint32_t)s->kv_type,
	                   .n_tokens = (uint32_t)s->n,
	                   .n_layers = (uint32_t)s->pool->n_layers,
	                   .has_logits = s->has_logits,
	                   .page_bytes = s->pool->n_layers ? s->pool->layers[0].page_bytes : 0,
	                   .state_bytes = ruv_session_state_bytes(s),
	                   .n_vocab = (uint64_t)s->model->hp.n_vocab};
	memcpy(h.magic, magic, sizeof magic);
	return h;
}

/* Bytes of a file with this header. */
static uint64_t file_bytes(const struct header *h)
{
	uint64_t n_pages = (h->n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
	return sizeof *h + 4ull * h->n_tokens + n_pages * h->n_layers * 2 * h->page_bytes + h->state_bytes +
	       (h->has_logits ? 4 * h->n_vocab : 0) + 8;
}

struct writer {
	FILE *stream;
	uint64_t check;
	bool failed;
};

static void put(struct writer *w, const void *bytes, size_t n_bytes)
{
	if (n_bytes == 0)
		return;
	w->check = ruv_hash64(bytes, n_bytes, w->check);
	w->failed |= fwrite(bytes, 1, n_bytes, w->stream) != n_bytes;
}

static void put_device(struct writer *w, ruv_session *s, const void *address, size_t n_bytes, void *host)
{
	ruv_backend_download(ruv_engine_backend(s->model->engine), host, address, n_bytes);
	put(w, host, n_bytes);
}

/* After truncate a session has neither logits nor the state of its position; the state written then is not used: who restores it
 * rebuilds the state before the next pass, as the saved session would have. */
int ruv_session_save(ruv_session *s, const char *path, ruv_error *err)
{
	struct header h = make_header(s);
	size_t largest = h.page_bytes > h.state_bytes ? h.page_bytes : h.state_bytes;
	void *host = malloc(largest + 1);
	if (!host)
		return ruv_fail_memory(err, where, largest);
	ruv_outfile out = {0};
	int rc = ruv_outfile_open(&out, path, err);
	if (rc)
		goto done;
	struct writer w = {.stream = out.stream};
	put(&w, &h, sizeof h);
	put(&w, s->tokens, (size_t)s->n * sizeof *s->tokens);
	ruv_engine_lock(s->model->engine);
	for (int p = 0; p < s->n_pages; p++)
		for (int i = 0; i < s->pool->n_layers; i++) {
			size_t at = (size_t)s->pages[p] * h.page_bytes;
			put_device(&w, s, (const char *)s->pool->layers[i].k + at, h.page_bytes, host);
			put_device(&w, s, (const char *)s->pool->layers[i].v + at, h.page_bytes, host);
		}
	if (h.state_bytes)
		put_device(&w, s, s->conv_state, h.state_bytes, host);
	ruv_engine_unlock(s->model->engine);
	if (s->has_logits)
		put(&w, s->logits, (size_t)h.n_vocab * sizeof(float));
	uint64_t check = w.check;
	put(&w, &check, sizeof check);
	if (w.failed) {
		rc = ruv_fail(err, RUV_EIO, where, "%s: writing failed", path);
		goto done;
	}
	rc = ruv_outfile_commit(&out, err);
done:
	ruv_outfile_release(&out);
	free(host);
	return rc;
}

static uint64_t checksum(const struct header *h, const unsigned char *bytes)
{
	const unsigned char *p = bytes;
	uint64_t check = ruv_hash64(p, sizeof *h, 0);
	p += sizeof *h;
	if (h->n_tokens)
		check = ruv_hash64(p, 4ull * h->n_tokens, check);
	p += 4ull * h->n_tokens;
	uint64_t n_blocks = (uint64_t)((h->n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS) * h->n_layers * 2;
	for (uint64_t i = 0; i < n_blocks; i++, p += h->page_bytes)
		check = ruv_hash64(p, h->page_bytes, check);
	if (h->state_bytes)
		check = ruv_hash64(p, h->state_bytes, check);
	p += h->state_bytes;
	if (h->has_logits)
		check = ruv_hash64(p, 4 * h->n_vocab, check);
	return check;
}

static int check_file(ruv_session *s, const ruv_map *map, const char *path, struct header *h, ruv_error *err)
{
	if (map->size < sizeof *h + 8 || memcmp(map->data, magic, sizeof magic) != 0)
		return ruv_fail(err, RUV_EFORMAT, where, "%s is no session file of this version", path);
	memcpy(h, map->data, sizeof *h);
	struct header mine = make_header(s);
	if (h->fingerprint != mine.fingerprint)
		return ruv_fail(err, RUV_EMISMATCH, where, "%s was saved with another model or adapter than %s", path,
		                s->model->path);
	if (h->kv_type != mine.kv_type)
		return ruv_fail(err, RUV_EMISMATCH, where, "%s holds keys and values of type %u, the session's are of type %u",
		                path, h->kv_type, mine.kv_type);
	if (h->n_layers != mine.n_layers || h->page_bytes != mine.page_bytes || h->state_bytes != mine.state_bytes ||
	    h->n_vocab != mine.n_vocab || h->has_logits > 1 || h->zero || h->n_tokens > RUV_MAX_CONTEXT)
		return ruv_fail(err, RUV_ECORRUPT, where, "%s: the header contradicts the model", path);
	if (file_bytes(h) != map->size)
		return ruv_fail(err, RUV_ECORRUPT, where, "%s has %zu bytes, its header says %llu", path, map->size,
		                (unsigned long long)file_bytes(h));
	uint64_t said;
	memcpy(&said, map->data + map->size - sizeof said, sizeof said);
	if (checksum(h, map->data) != said)
		return ruv_fail(err, RUV_ECORRUPT, where, "%s: the checksum is wrong", path);
	if (h->n_tokens > (uint32_t)s->n_ctx)
		return ruv_fail(err, RUV_ECONTEXT, where, "%s holds %u tokens, but the context holds %d", path, h->n_tokens,
		                s->n_ctx);
	for (uint32_t i = 0; i < h->n_tokens; i++) {
		ruv_token token;
		memcpy(&token, map->data + sizeof *h + 4ull * i, sizeof token);
		if (token < 0 || (uint64_t)token >= h->n_vocab)
			return ruv_fail(err, RUV_ECORRUPT, where, "%s: token %d at %u", path, token, i);
	}
	return RUV_OK;
}

int ruv_session_restore(ruv_session *s, const char *path, ruv_error *err)
{
	ruv_map map = {0};
	struct header h;
	int rc = ruv_map_open(&map, path, err);
	if (rc)
		return rc;
	if ((rc = check_file(s, &map, path, &h, err)) || (rc = ruv_session_adopt(s, (int)h.n_tokens, err)))
		goto done;
	const unsigned char *p = map.data + sizeof h;
	memcpy(s->tokens, p, 4ull * h.n_tokens);
	p += 4ull * h.n_tokens;
	ruv_backend *backend = ruv_engine_backend(s->model->engine);
	ruv_engine_lock(s->model->engine);
	for (int page = 0; page < s->n_pages; page++)
		for (int i = 0; i < s->pool->n_layers; i++, p += 2 * h.page_bytes) {
			size_t at = (size_t)s->pages[page] * h.page_bytes;
			ruv_backend_upload(backend, (char *)s->pool->layers[i].k + at, p, h.page_bytes);
			ruv_backend_upload(backend, (char *)s->pool->layers[i].v + at, p + h.page_bytes, h.page_bytes);
		}
	if (h.state_bytes)
		ruv_backend_upload(backend, s->conv_state, p, h.state_bytes);
	ruv_engine_unlock(s->model->engine);
	p += h.state_bytes;
	if (h.has_logits) {
		memcpy(s->logits, p, 4 * h.n_vocab);
		s->has_logits = true;
		s->state_at = s->n; /* logits exist only behind a whole pass, whose state was saved with them */
	}
done:
	ruv_map_release(&map);
	return rc;
}

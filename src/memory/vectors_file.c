/* vectors_file.c - segment files of vectors: rows, keys and labels of a moment; see vectors.h.
 *
 * Little-endian. Sections start at multiples of 4096 in this order, zeros between them:
 *   header   4096 bytes: struct header below, zeros, and in the last 8 bytes the hash of what is before them
 *   texts    the label texts from number 1 on, each with its NUL
 *   keys     [n_slots] i64; 0: the slot is free
 *   labels   [n_slots] ruv_labels
 *   rows     [n_chunks, RUV_VECTORS_CHUNK, stride] f32
 *   sums     [n_chunks] u64: hash of each chunk's rows
 * Hashes are XXH3 with seed 0. Opening checks, in this order: size and magic, version, the header's hash, sizes against each other
 * and the file, the hashes of texts, keys, labels and sums, and that labels point at texts. Rows are mapped privately (a slot that
 * is used again changes in memory only) and their sums are compared when ruv_vectors_verify is asked: a row that rotted misplaces
 * one hit, it can do no other harm. Layer: memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "memory/vectors_impl.h"

enum { PAGE = 4096, VERSION = 1, ROWS = 3, SUMS = 4, SECTION_N = 5 };

static const char *const WHERE = "vectors";
static const char MAGIC[8] = "RUVVECS";

typedef struct header {
	char magic[8];
	uint32_t version, byte_order; /* 0x01020304 */
	uint32_t dimension, stride, chunk, label_bytes;
	uint32_t n_slots, n_texts;
	uint64_t n_text_bytes, file_bytes;
	ruv_vectors_mark mark;
	uint64_t hashes[SECTION_N]; /* of all but the rows, whose sums are checked */
} header;

typedef struct layout {
	uint64_t at[SECTION_N], bytes[SECTION_N], end;
} layout;

static uint64_t round_up(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static uint64_t n_chunks_of(const header *h)
{
	return ((uint64_t)h->n_slots + RUV_VECTORS_CHUNK - 1) / RUV_VECTORS_CHUNK;
}

static void lay_out(layout *l, const header *h)
{
	uint64_t at = PAGE;

	l->bytes[0] = h->n_text_bytes;
	l->bytes[1] = (uint64_t)h->n_slots * sizeof(int64_t);
	l->bytes[2] = (uint64_t)h->n_slots * sizeof(ruv_labels);
	l->bytes[ROWS] = n_chunks_of(h) * RUV_VECTORS_CHUNK * h->stride * sizeof(float);
	l->bytes[SUMS] = n_chunks_of(h) * sizeof(uint64_t);
	for (int i = 0; i < SECTION_N; i++) {
		l->at[i] = at;
		at += round_up(l->bytes[i]);
	}
	l->end = at;
}

/* ---- writing ---- */

static void put(FILE *f, const void *bytes, size_t n)
{
	static const char zeros[PAGE];

	fwrite(bytes, 1, n, f);
	if (n % PAGE)
		fwrite(zeros, 1, PAGE - n % PAGE, f);
}

/* The chunk's rows as they go to the file: zeros where nothing is written. */
static void copy_rows(float *to, const ruv_vectors *v, const int64_t *keys, uint32_t n_slots, uint32_t chunk)
{
	const ruv_vectors_chunk *from = ruv_vectors_chunk_at(v, chunk);
	size_t stride = (size_t)v->stride;

	memset(to, 0, sizeof *to * RUV_VECTORS_CHUNK * stride);
	for (uint32_t i = 0; i < RUV_VECTORS_CHUNK && chunk * RUV_VECTORS_CHUNK + i < n_slots; i++)
		if (keys[chunk * RUV_VECTORS_CHUNK + i])
			memcpy(to + i * stride, from->rows + i * stride, sizeof *to * stride);
}

int ruv_vectors_save(ruv_vectors *v, const char *path, const ruv_vectors_mark *mark, const int64_t *keys, uint32_t n_slots,
                     ruv_error *err)
{
	unsigned char *page = calloc(1, PAGE);
	header *h = (header *)(void *)page;
	size_t row_bytes = sizeof(float) * RUV_VECTORS_CHUNK * (size_t)v->stride, text_bytes = 0;
	uint32_t n_chunks = (n_slots + RUV_VECTORS_CHUNK - 1) / RUV_VECTORS_CHUNK;
	ruv_labels *labels = calloc((size_t)n_slots + 1, sizeof *labels);
	uint64_t *sums = calloc((size_t)n_chunks + 1, sizeof *sums), own;
	float *rows = aligned_alloc(64, row_bytes);
	ruv_outfile out = {0};
	char *texts = NULL;
	layout l;
	int rc = RUV_OK;

	if (!page || !labels || !sums || !rows) {
		rc = ruv_fail_memory(err, WHERE, row_bytes + n_slots * sizeof *labels);
		goto done;
	}
	for (uint32_t i = 0; i < n_slots; i++)
		if (keys[i])
			labels[i] = ruv_vectors_chunk_at(v, i / RUV_VECTORS_CHUNK)->labels[i % RUV_VECTORS_CHUNK];
	/* After the labels: what they point at is there. */
	texts = ruv_texts_join(&v->texts, &text_bytes);
	if (!texts) {
		rc = ruv_fail_memory(err, WHERE, text_bytes);
		goto done;
	}
	memcpy(h->magic, MAGIC, sizeof h->magic);
	h->version = VERSION;
	h->byte_order = 0x01020304;
	h->dimension = (uint32_t)v->dimension;
	h->stride = (uint32_t)v->stride;
	h->chunk = RUV_VECTORS_CHUNK;
	h->label_bytes = sizeof *labels;
	h->n_slots = n_slots;
	h->n_texts = 1;
	for (size_t i = 0; i < text_bytes; i++)
		h->n_texts += texts[i] == '\0';
	h->n_text_bytes = text_bytes;
	h->mark = *mark;
	lay_out(&l, h);
	h->file_bytes = l.end;
	h->hashes[0] = ruv_hash64(texts, l.bytes[0], 0);
	h->hashes[1] = ruv_hash64(keys, l.bytes[1], 0);
	h->hashes[2] = ruv_hash64(labels, l.bytes[2], 0);

	rc = ruv_outfile_open_unnamed(&out, path, err);
	if (rc)
		goto done;
	put(out.stream, page, PAGE); /* its place */
	put(out.stream, texts, l.bytes[0]);
	put(out.stream, keys, l.bytes[1]);
	put(out.stream, labels, l.bytes[2]);
	for (uint32_t i = 0; i < n_chunks && !ferror(out.stream); i++) {
		copy_rows(rows, v, keys, n_slots, i);
		sums[i] = ruv_hash64(rows, row_bytes, 0);
		put(out.stream, rows, row_bytes);
	}
	put(out.stream, sums, l.bytes[SUMS]);
	h->hashes[SUMS] = ruv_hash64(sums, l.bytes[SUMS], 0);
	own = ruv_hash64(page, PAGE - sizeof own, 0);
	memcpy(page + PAGE - sizeof own, &own, sizeof own);
	if (fseek(out.stream, 0, SEEK_SET) || fwrite(page, 1, PAGE, out.stream) != PAGE) {
		rc = ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot write '%s'", path);
		goto done;
	}
	rc = ruv_outfile_commit(&out, err);
done:
	ruv_outfile_release(&out);
	free(page);
	free(labels);
	free(sums);
	free(rows);
	free(texts);
	return rc;
}

/* ---- opening ---- */

static int read_header(header *h, layout *l, const unsigned char *file, uint64_t file_bytes, ruv_error *err)
{
	uint64_t hash;

	if (file_bytes < PAGE)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "%llu bytes are no segment file", (unsigned long long)file_bytes);
	memcpy(h, file, sizeof *h);
	memcpy(&hash, file + PAGE - sizeof hash, sizeof hash);
	if (memcmp(h->magic, MAGIC, sizeof h->magic))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "not a segment file: it does not begin with \"%s\"", MAGIC);
	if (h->version != VERSION || h->byte_order != 0x01020304 || h->label_bytes != sizeof(ruv_labels) ||
	    h->chunk != RUV_VECTORS_CHUNK)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "version %u of the segment format, this program reads %d", h->version,
		                VERSION);
	if (hash != ruv_hash64(file, PAGE - sizeof hash, 0))
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the header's checksum does not fit");
	if (h->dimension < 1 || h->dimension > RUV_MEMORY_MAX_DIMENSION || h->stride != ((h->dimension + 15) & ~15u) ||
	    n_chunks_of(h) > RUV_VECTORS_MAX_CHUNKS || h->n_text_bytes > file_bytes || h->mark.graph[RUV_VECTORS_TAG - 1])
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the header holds impossible values");
	lay_out(l, h);
	if (l->end != h->file_bytes || l->end != file_bytes)
		return ruv_fail(err, RUV_ECORRUPT, WHERE,
		                "the file has %llu bytes and should have %llu: it was cut off or appended to",
		                (unsigned long long)file_bytes, (unsigned long long)l->end);
	return RUV_OK;
}

static int read_texts(ruv_texts *texts, const header *h, const char *from, ruv_error *err)
{
	const char *end = from + h->n_text_bytes;

	if (h->n_text_bytes && end[-1])
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the texts do not end");
	while (from < end) {
		uint32_t expected = texts->n, number;
		int rc = ruv_texts_add(texts, &number, from, err);
		if (rc)
			return rc;
		if (number != expected)
			return ruv_fail(err, RUV_ECORRUPT, WHERE, "a text stands there twice");
		from += strlen(from) + 1;
	}
	return texts->n == h->n_texts ? RUV_OK : ruv_fail(err, RUV_ECORRUPT, WHERE, "the number of texts does not fit");
}

static bool labels_fit(const ruv_labels *l, uint32_t n)
{
	return l->user < n && l->agent < n && l->session < n && l->domain < n && l->source < n && l->tags < n &&
	       l->type < RUV_N_NODE_TYPES;
}

static int take_slots(ruv_vectors *v, const header *h, const layout *l, ruv_error *err)
{
	const int64_t *keys = (const int64_t *)(const void *)(v->map + l->at[1]);
	const ruv_labels *labels = (const ruv_labels *)(const void *)(v->map + l->at[2]);
	size_t chunk_floats = (size_t)RUV_VECTORS_CHUNK * h->stride;
	int rc = ruv_key_map_reserve(&v->keys, h->n_slots, err);

	for (uint32_t i = 0; !rc && i < n_chunks_of(h); i++) {
		rc = ruv_vectors_make_chunk(v, i, (float *)(void *)(v->map + l->at[ROWS]) + i * chunk_floats, err);
		if (!rc) {
			uint32_t n = h->n_slots - i * RUV_VECTORS_CHUNK;
			memcpy(ruv_vectors_chunk_at(v, i)->labels, labels + (size_t)i * RUV_VECTORS_CHUNK,
			       sizeof *labels * (n < RUV_VECTORS_CHUNK ? n : RUV_VECTORS_CHUNK));
		}
	}
	if (rc)
		return rc;
	atomic_store(&v->n_slots, h->n_slots);
	for (uint32_t i = h->n_slots; i-- > 0;) {
		if (!keys[i])
			rc = ruv_vectors_free_slot(v, i, err);
		else if (keys[i] < 0 || !labels_fit(&labels[i], h->n_texts) || !ruv_vectors_adopt(v, keys[i], i))
			rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "slot %u makes no sense", i);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

/* The file mapped, and what has to fit before anything in it is believed. */
static int map_file(unsigned char **map, header *h, layout *l, const char *path, ruv_error *err)
{
	static const char *const names[SECTION_N] = {"texts", "keys", "labels", "rows", "checksums"};
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;

	*map = MAP_FAILED;
	if (fd < 0)
		return ruv_fail_errno(err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, WHERE, "%s", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < PAGE) {
		close(fd);
		return ruv_fail(err, RUV_EFORMAT, WHERE, "no segment file");
	}
	*map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	close(fd);
	if (*map == MAP_FAILED)
		return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "%lld bytes cannot be mapped", (long long)st.st_size);
	rc = read_header(h, l, *map, (uint64_t)st.st_size, err);
	for (int i = 0; !rc && i < SECTION_N; i++)
		if (i != ROWS && ruv_hash64(*map + l->at[i], l->bytes[i], 0) != h->hashes[i])
			rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "the checksum of the %s does not fit", names[i]);
	if (rc) {
		munmap(*map, (size_t)st.st_size);
		*map = MAP_FAILED;
	}
	return rc;
}

int ruv_vectors_open(ruv_vectors **out, const char *path, ruv_vectors_mark *mark, ruv_error *err)
{
	ruv_vectors *v = NULL;
	unsigned char *map;
	header h;
	layout l;
	int rc;

	*out = NULL;
	rc = map_file(&map, &h, &l, path, err);
	if (rc)
		goto done;
	rc = ruv_vectors_create(&v, (int)h.dimension, err);
	if (rc) {
		munmap(map, (size_t)l.end);
		goto done;
	}
	v->map = map;
	v->map_bytes = (size_t)l.end;
	/* Searches read here and there: reading ahead would fetch what nobody asked for. An advice, so it may fail. */
	(void)madvise(v->map + l.at[ROWS], (size_t)l.bytes[ROWS], MADV_RANDOM);
	rc = read_texts(&v->texts, &h, (const char *)v->map + l.at[0], err);
	if (!rc)
		rc = take_slots(v, &h, &l, err);
	if (rc)
		goto done;
	*mark = h.mark;
	*out = v;
	v = NULL;
done:
	ruv_vectors_free(v);
	return rc ? ruv_error_prefix(err, rc, "%s: ", path) : RUV_OK;
}

int ruv_vectors_verify(const char *path, ruv_error *err)
{
	unsigned char *map;
	header h;
	layout l;
	int rc = map_file(&map, &h, &l, path, err);

	if (!rc) {
		const uint64_t *sums = (const uint64_t *)(const void *)(map + l.at[SUMS]);
		size_t chunk_bytes = sizeof(float) * RUV_VECTORS_CHUNK * h.stride;
		for (size_t i = 0; !rc && i < n_chunks_of(&h); i++)
			if (ruv_hash64(map + l.at[ROWS] + i * chunk_bytes, chunk_bytes, 0) != sums[i])
				rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "the checksum of the rows of slots %zu to %zu does not fit",
				              i * RUV_VECTORS_CHUNK, (i + 1) * RUV_VECTORS_CHUNK - 1);
		munmap(map, (size_t)l.end);
	}
	return rc ? ruv_error_prefix(err, rc, "%s: ", path) : RUV_OK;
}

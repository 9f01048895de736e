/* hnsw_file.c - segment files.
 *
 * Little-endian. Sections start at multiples of 4096 in this order, zeros between them:
 *   header    4096 bytes: struct header below, zeros, and in the last 8 bytes the hash of what is before them
 *   centre    [dimension] f32
 *   keys      [n_ids] i64; 0: the id is free
 *   uppers    [n_upper_words] u32: lists of levels 1.., as in memory
 *   free      for each level 1..15 a u32 count and that many words of `uppers` where free blocks begin
 *   sums      [n_blocks] u64: hash of each MiB of records (the last one shorter)
 *   records   [n_ids * record_bytes], as in memory (hnsw_impl.h)
 * Hashes are XXH3 with seed 0; header.hashes holds those of centre to sums. A reader checks, in this order: size and magic,
 * version, the header's hash, sizes against each other and the file, the hashes, and that nothing leads out of the arrays. A mapped
 * file is mapped privately: changes stay in memory. Whoever cuts the file off in place while it is mapped kills the reader; we
 * replace files whole. Layer: memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "memory/hnsw_impl.h"

enum { PAGE = 4096, SUM_BLOCK = 1 << 20, VERSION = 1, SECTION_N = 5 };

static const char *const WHERE = "vector index";
static const char MAGIC[8] = "RUVHNSW";

typedef struct header {
	char magic[8];
	uint32_t version, byte_order; /* 0x01020304 */
	uint32_t dimension, metric, bits, m, ef_construction, ef_search;
	uint64_t seed;
	uint32_t n_ids, n_upper_words, n_free_words, record_bytes;
	uint64_t n_live, entry, file_bytes;
	uint64_t hashes[SECTION_N]; /* centre, keys, uppers, free, sums */
	char tag[RUV_HNSW_TAG];
} header;

typedef struct layout {
	uint64_t at[SECTION_N + 1], bytes[SECTION_N + 1], end; /* of the sections; records is the last */
} layout;

static uint64_t round_up(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static void lay_out(layout *l, const header *h)
{
	uint64_t records = (uint64_t)h->n_ids * h->record_bytes, at = PAGE;

	l->bytes[0] = (uint64_t)h->dimension * sizeof(float);
	l->bytes[1] = (uint64_t)h->n_ids * sizeof(int64_t);
	l->bytes[2] = (uint64_t)h->n_upper_words * sizeof(uint32_t);
	l->bytes[3] = (uint64_t)h->n_free_words * sizeof(uint32_t);
	l->bytes[4] = (records + SUM_BLOCK - 1) / SUM_BLOCK * sizeof(uint64_t);
	l->bytes[5] = records;
	for (int i = 0; i <= SECTION_N; i++) {
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

/* The free blocks of upper lists, with those of retired nodes. */
static uint32_t *list_free(ruv_hnsw *x, uint32_t *n_words)
{
	size_t n = HNSW_MAX_LEVEL, at = 0;
	uint32_t *words;

	for (int l = 1; l <= HNSW_MAX_LEVEL; l++)
		n += x->free_uppers[l].n;
	words = malloc((n + x->n_retired) * sizeof *words);
	if (!words)
		return NULL;
	for (uint32_t l = 1; l <= HNSW_MAX_LEVEL; l++) {
		uint32_t *count = &words[at++];
		*count = 0;
		for (size_t i = 0; i < x->free_uppers[l].n; i++, ++*count)
			words[at++] = x->free_uppers[l].at[i];
		for (size_t i = 0; i < x->n_retired; i++)
			if (hnsw_tail_of(x, x->retired[i].id)->level == l) {
				words[at++] = hnsw_tail_of(x, x->retired[i].id)->upper;
				++*count;
			}
	}
	*n_words = (uint32_t)at;
	return words;
}

static int save(ruv_hnsw *x, const char *path, const char *tag, ruv_error *err)
{
	unsigned char *page = calloc(1, PAGE);
	header *h = (header *)(void *)page;
	ruv_outfile out = {0};
	layout l;
	int64_t *keys = NULL;
	uint32_t *free_words = NULL;
	uint64_t *sums = NULL;
	int rc = ruv_hnsw_repair_links(x, NULL, err);

	if (rc)
		goto done;
	ruv_hnsw_reclaim(x);
	if (!page) {
		rc = ruv_fail_memory(err, WHERE, PAGE);
		goto done;
	}
	memcpy(h->magic, MAGIC, sizeof h->magic);
	h->version = VERSION;
	h->byte_order = 0x01020304;
	h->dimension = (uint32_t)x->params.dimension;
	h->metric = (uint32_t)x->params.metric;
	h->bits = (uint32_t)x->params.bits;
	h->m = (uint32_t)x->params.m;
	h->ef_construction = (uint32_t)x->params.ef_construction;
	h->ef_search = (uint32_t)x->params.ef_search;
	h->seed = x->params.seed;
	h->n_ids = atomic_load(&x->n_ids);
	h->n_upper_words = x->n_upper_words;
	h->record_bytes = (uint32_t)x->record_bytes;
	h->n_live = (uint64_t)atomic_load(&x->n_live);
	h->entry = atomic_load(&x->entry);
	if (tag)
		memcpy(h->tag, tag, strlen(tag));
	free_words = list_free(x, &h->n_free_words);
	lay_out(&l, h);
	h->file_bytes = l.end;
	keys = malloc(l.bytes[1] + 1);
	sums = malloc(l.bytes[4] + 1);
	if (!free_words || !keys || !sums) {
		rc = ruv_fail_memory(err, WHERE, l.bytes[1] + l.bytes[4] + h->n_free_words * sizeof(uint32_t));
		goto done;
	}
	for (uint32_t id = 0; id < h->n_ids; id++)
		keys[id] = hnsw_is_live(x, id) ? atomic_load(&x->keys[id]) : 0;
	for (uint64_t at = 0; at < l.bytes[5]; at += SUM_BLOCK)
		sums[at / SUM_BLOCK] = ruv_hash64(x->records + at, l.bytes[5] - at < SUM_BLOCK ? l.bytes[5] - at : SUM_BLOCK, 0);
	h->hashes[0] = ruv_hash64(x->format.centre, l.bytes[0], 0);
	h->hashes[1] = ruv_hash64(keys, l.bytes[1], 0);
	h->hashes[2] = ruv_hash64((const void *)x->upper_region.base, l.bytes[2], 0);
	h->hashes[3] = ruv_hash64(free_words, l.bytes[3], 0);
	h->hashes[4] = ruv_hash64(sums, l.bytes[4], 0);
	{
		uint64_t own = ruv_hash64(page, PAGE - sizeof own, 0);
		memcpy(page + PAGE - sizeof own, &own, sizeof own);
	}

	rc = ruv_outfile_open_unnamed(&out, path, err);
	if (rc)
		goto done;
	put(out.stream, page, PAGE);
	put(out.stream, x->format.centre, l.bytes[0]);
	put(out.stream, keys, l.bytes[1]);
	put(out.stream, x->upper_region.base, l.bytes[2]);
	put(out.stream, free_words, l.bytes[3]);
	put(out.stream, sums, l.bytes[4]);
	put(out.stream, x->records, l.bytes[5]);
	rc = ruv_outfile_commit(&out, err);
done:
	ruv_outfile_release(&out);
	free(page);
	free(keys);
	free(free_words);
	free(sums);
	return rc;
}

int ruv_hnsw_save(ruv_hnsw *x, const char *path, const char *tag, ruv_error *err)
{
	int rc;

	if (tag && strlen(tag) >= RUV_HNSW_TAG)
		return ruv_fail(err, RUV_EINVAL, WHERE, "the tag \"%s\" is longer than %d bytes", tag, RUV_HNSW_TAG - 1);
	pthread_mutex_lock(&x->writer);
	rc = save(x, path, tag, err);
	pthread_mutex_unlock(&x->writer);
	return rc;
}

/* ---- opening ---- */

static int read_at(int fd, void *to, uint64_t n, uint64_t at, ruv_error *err)
{
	for (uint64_t done = 0; done < n;) {
		ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "reading failed");
		if (!got)
			return ruv_fail(err, RUV_ECORRUPT, WHERE, "the file ends within its data");
		done += (uint64_t)got;
	}
	return RUV_OK;
}

static int read_header(header *h, layout *l, int fd, uint64_t file_bytes, ruv_error *err)
{
	unsigned char page[PAGE];
	uint64_t hash;
	int rc;

	if (file_bytes < PAGE)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "%llu bytes are no segment file", (unsigned long long)file_bytes);
	rc = read_at(fd, page, PAGE, 0, err);
	if (rc)
		return rc;
	memcpy(h, page, sizeof *h);
	memcpy(&hash, page + PAGE - sizeof hash, sizeof hash);
	if (memcmp(h->magic, MAGIC, sizeof h->magic))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "not a segment file: it does not begin with \"%s\"", MAGIC);
	if (h->version != VERSION || h->byte_order != 0x01020304)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "version %u of the segment format, this program reads %d", h->version,
		                VERSION);
	if (hash != ruv_hash64(page, PAGE - sizeof hash, 0))
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the header's checksum does not fit");
	if (h->n_ids > RUV_HNSW_MAX_NODES || h->dimension > RUV_HNSW_MAX_DIMENSION || h->m > RUV_HNSW_MAX_M ||
	    h->tag[RUV_HNSW_TAG - 1])
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the header holds impossible values");
	lay_out(l, h);
	if (l->end != h->file_bytes || l->end != file_bytes)
		return ruv_fail(err, RUV_ECORRUPT, WHERE,
		                "the file has %llu bytes and should have %llu: it was cut off or appended to",
		                (unsigned long long)file_bytes, (unsigned long long)l->end);
	return RUV_OK;
}

/* Section i to memory, checked. */
static int read_section(int fd, const header *h, const layout *l, int i, void *to, ruv_error *err)
{
	static const char *const names[SECTION_N] = {"centre", "keys", "upper lists", "free blocks", "checksums"};
	int rc = read_at(fd, to, l->bytes[i], l->at[i], err);

	if (rc)
		return rc;
	if (ruv_hash64(to, l->bytes[i], 0) != h->hashes[i])
		return ruv_fail(err, RUV_ECORRUPT, WHERE, "the checksum of the %s does not fit", names[i]);
	return RUV_OK;
}

static int open_records(ruv_hnsw *x, int fd, const layout *l, unsigned how, ruv_error *err)
{
	size_t mapped = round_up(l->bytes[5]);

	if (!mapped)
		return RUV_OK;
	if ((how & RUV_HNSW_READ) || sysconf(_SC_PAGESIZE) > PAGE) {
		int rc = ruv_hnsw_region_use(&x->record_region, l->bytes[5], err);
		return rc ? rc : read_at(fd, x->records, l->bytes[5], l->at[5], err);
	}
	if (mapped > x->record_region.size ||
	    mmap(x->records, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, (off_t)l->at[5]) == MAP_FAILED)
		return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "%zu bytes cannot be mapped", mapped);
	x->record_region.usable = mapped;
	return RUV_OK;
}

/* The list of the level leads to nodes that have that level. */
static bool upper_list_fits(const ruv_hnsw *x, uint32_t id, int level, uint32_t n_ids)
{
	const atomic_uint *list = hnsw_list(x, id, level);
	uint32_t n = atomic_load_explicit(&list[0], memory_order_relaxed);

	if (n > (uint32_t)x->params.m)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t to = hnsw_list_at(list, (int)i);
		if (to >= n_ids || atomic_load_explicit(&x->keys[to], memory_order_relaxed) <= 0 ||
		    hnsw_tail_of(x, to)->level < (uint32_t)level)
			return false;
	}
	return true;
}

static int check_records(const ruv_hnsw *x, const header *h, const layout *l, const uint64_t *sums, ruv_error *err)
{
	uint32_t stride = (uint32_t)x->params.m + 1;

	for (uint64_t at = 0; at < l->bytes[5]; at += SUM_BLOCK)
		if (sums[at / SUM_BLOCK] !=
		    ruv_hash64(x->records + at, l->bytes[5] - at < SUM_BLOCK ? l->bytes[5] - at : SUM_BLOCK, 0))
			return ruv_fail(err, RUV_ECORRUPT, WHERE, "the checksum of the records from byte %llu on does not fit",
			                (unsigned long long)(l->at[5] + at));
	/* First every node's own level, then the lists that rely on it. */
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t id = 0; id < h->n_ids; id++) {
			const hnsw_tail *tail = hnsw_tail_of(x, id);
			bool fits = true;
			if (atomic_load_explicit(&x->keys[id], memory_order_relaxed) <= 0)
				continue;
			if (!pass)
				fits = tail->level <= HNSW_MAX_LEVEL &&
				       atomic_load_explicit(&tail->list[0], memory_order_relaxed) <= (unsigned)x->m0 &&
				       !atomic_load_explicit(&tail->dead, memory_order_relaxed) &&
				       (!tail->level || (tail->upper && tail->upper <= h->n_upper_words &&
				                         tail->level * stride <= h->n_upper_words - tail->upper));
			else
				for (int level = 1; fits && level <= (int)tail->level; level++)
					fits = upper_list_fits(x, id, level, h->n_ids);
			if (!fits)
				return ruv_fail(err, RUV_ECORRUPT, WHERE, "node %u's lists make no sense", id);
		}
	return RUV_OK;
}

static int take_free_blocks(ruv_hnsw *x, const header *h, const uint32_t *words, ruv_error *err)
{
	uint32_t at = 0;

	for (int level = 1; level <= HNSW_MAX_LEVEL; level++) {
		uint32_t n = at < h->n_free_words ? words[at] : UINT32_MAX, block = (uint32_t)(level * (1 + x->params.m));
		if (n == UINT32_MAX || n > h->n_free_words - at - 1)
			return ruv_fail(err, RUV_ECORRUPT, WHERE, "the list of free blocks ends early");
		at++;
		for (uint32_t i = 0; i < n; i++) {
			uint32_t word = words[at++];
			int rc;
			if (!word || word > h->n_upper_words || block > h->n_upper_words - word)
				return ruv_fail(err, RUV_ECORRUPT, WHERE, "a free block lies outside of the upper lists");
			rc = ruv_hnsw_ids_push(&x->free_uppers[level], word, err);
			if (rc)
				return rc;
		}
	}
	return RUV_OK;
}

static int load(ruv_hnsw **out, int fd, const header *h, const layout *l, unsigned how, uint32_t max_nodes, ruv_error *err)
{
	ruv_hnsw_params params = {.dimension = (int)h->dimension,
	                          .metric = (ruv_hnsw_metric)h->metric,
	                          .bits = (int)h->bits,
	                          .m = (int)h->m,
	                          .ef_construction = (int)h->ef_construction,
	                          .ef_search = (int)h->ef_search,
	                          .max_nodes = max_nodes,
	                          .seed = h->seed + h->n_ids};
	uint32_t *free_words = malloc(l->bytes[3] + 1), entry = (uint32_t)h->entry;
	uint64_t *sums = malloc(l->bytes[4] + 1), n_live = 0;
	ruv_hnsw *x = NULL;
	int rc;

	*out = NULL;
	if (!free_words || !sums) {
		rc = ruv_fail_memory(err, WHERE, l->bytes[3] + l->bytes[4]);
		goto done;
	}
	rc = ruv_hnsw_alloc(&x, &params, err);
	if (rc) {
		rc = rc == RUV_EINVAL ? RUV_ECORRUPT : rc;
		goto done;
	}
	x->params.seed = h->seed;
	if (h->n_ids > x->params.max_nodes || h->record_bytes != x->record_bytes || !h->n_upper_words) {
		rc = h->n_ids > x->params.max_nodes
		         ? ruv_fail(err, RUV_ELIMIT, WHERE, "the file holds %u nodes, at most %u are wanted", h->n_ids,
		                    x->params.max_nodes)
		         : ruv_fail(err, RUV_ECORRUPT, WHERE, "the header holds impossible values");
		goto done;
	}
	rc = ruv_hnsw_region_use(&x->key_region, l->bytes[1], err);
	if (!rc)
		rc = ruv_hnsw_region_use(&x->upper_region, l->bytes[2], err);
	if (!rc)
		rc = read_section(fd, h, l, 0, x->format.centre, err);
	if (!rc)
		rc = read_section(fd, h, l, 1, x->key_region.base, err);
	if (!rc)
		rc = read_section(fd, h, l, 2, x->upper_region.base, err);
	if (!rc)
		rc = read_section(fd, h, l, 3, free_words, err);
	if (!rc)
		rc = read_section(fd, h, l, 4, sums, err);
	if (!rc)
		rc = open_records(x, fd, l, how, err);
	if (!rc && !(how & RUV_HNSW_TRUST))
		rc = check_records(x, h, l, sums, err);
	if (!rc)
		rc = take_free_blocks(x, h, free_words, err);
	if (rc)
		goto done;
	for (uint32_t id = h->n_ids; id-- > 0;) {
		int64_t key = atomic_load_explicit(&x->keys[id], memory_order_relaxed);
		n_live += key > 0;
		if (key <= 0 && (rc = ruv_hnsw_ids_push(&x->free_ids, id, err)))
			goto done;
	}
	if (n_live != h->n_live || (n_live == 0) != (h->entry == HNSW_NO_ENTRY) ||
	    (n_live &&
	     (entry >= h->n_ids || atomic_load(&x->keys[entry]) <= 0 || h->entry >> 32 != hnsw_tail_of(x, entry)->level))) {
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "the number of nodes or the entry point does not fit the keys");
		goto done;
	}
	{
		float *centre = malloc(l->bytes[0]);
		if (!centre) {
			rc = ruv_fail_memory(err, WHERE, l->bytes[0]);
			goto done;
		}
		memcpy(centre, x->format.centre, l->bytes[0]);
		ruv_code_set_centre(&x->format, centre); /* its norm, too */
		free(centre);
	}
	x->n_upper_words = h->n_upper_words;
	atomic_store(&x->n_ids, h->n_ids);
	atomic_store(&x->n_live, (int64_t)n_live);
	atomic_store(&x->entry, h->entry);
	atomic_store(&x->begun, h->n_ids > 0);
	*out = x;
	x = NULL;
done:
	ruv_hnsw_free(x);
	free(free_words);
	free(sums);
	return rc;
}

int ruv_hnsw_open_file(ruv_hnsw **out, const char *path, unsigned how, uint32_t max_nodes, char *tag, ruv_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;
	header h;
	layout l;

	*out = NULL;
	if (fd < 0)
		return ruv_fail_errno(err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, WHERE, "%s", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		rc = ruv_fail(err, RUV_EIO, WHERE, "not a regular file");
		goto done;
	}
	rc = read_header(&h, &l, fd, (uint64_t)st.st_size, err);
	if (!rc)
		rc = load(out, fd, &h, &l, how, max_nodes, err);
	if (!rc && tag)
		memcpy(tag, h.tag, sizeof h.tag);
done:
	close(fd);
	return rc ? ruv_error_prefix(err, rc, "%s: ", path) : RUV_OK;
}

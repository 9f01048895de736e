/* pack.c - packed forms of quantized matrices (packed.h): where they lie, and when they are made.
 *
 * Room is reserved when a matrix is bound, from arenas of untouched memory, and filled by the matrix's first product: a model that
 * is only opened costs nothing, and a matrix that is only looked up (an embedding with a head of its own) is never packed. A packed
 * matrix has exactly as many bytes as in the file (but for the rows that fill its last panel), and once it is made the file's pages
 * are given back, so that one copy stays in memory. Arenas ask for huge pages: a panel is read as one stream.
 *
 * The order of events is the engine thread's; nothing here is locked. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "tensor/cpu/backend.h"

static const size_t arena_bytes = 64u << 20, huge_page = 2u << 20;

static size_t packed_bytes(const ruv_backend *b, const ruv_tensor *t)
{
	size_t panel = (size_t)b->k->panel_rows * ruv_dtype_row_bytes(t->dtype, t->n_in);
	return (size_t)((t->n_out + b->k->panel_rows - 1) / b->k->panel_rows) * ((panel + 63) & ~(size_t)63);
}

static struct ruv_pack_arena *arena_with(ruv_backend *b, size_t n_bytes, ruv_error *err)
{
	struct ruv_pack_arena *arena = b->arenas;
	if (arena && arena->size - arena->used >= n_bytes)
		return arena;
	arena = calloc(1, sizeof *arena);
	if (!arena) {
		ruv_fail_memory(err, "pack", sizeof *arena);
		return NULL;
	}
	arena->size = n_bytes > arena_bytes ? n_bytes : arena_bytes;
	arena->size = (arena->size + huge_page - 1) & ~(huge_page - 1);
	/* Address space, not memory: pages come as they are written. */
	arena->memory = mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arena->memory == MAP_FAILED) {
		ruv_fail_memory(err, "pack", arena->size);
		free(arena);
		return NULL;
	}
	madvise(arena->memory, arena->size, MADV_HUGEPAGE);
	arena->next = b->arenas;
	b->arenas = arena;
	return arena;
}

int ruv_pack_reserve(ruv_backend *b, ruv_tensor *t, ruv_error *err)
{
	struct ruv_packed *packed;
	size_t n_bytes;

	if (!b->packing || !b->k->pack[t->dtype])
		return RUV_OK;
	packed = calloc(1, sizeof *packed);
	if (!packed)
		return ruv_fail_memory(err, "pack", sizeof *packed);
	n_bytes = packed_bytes(b, t);
	packed->arena = arena_with(b, n_bytes, err);
	if (!packed->arena) {
		free(packed);
		return RUV_ENOMEM;
	}
	packed->panels = packed->arena->memory + packed->arena->used;
	packed->arena->used += n_bytes;
	packed->arena->n_users++;
	t->packed = packed;
	return RUV_OK;
}

void ruv_pack_release(ruv_backend *b, ruv_tensor *t)
{
	struct ruv_packed *packed = t->packed;

	if (!packed)
		return;
	if (packed->made)
		b->packed_bytes -= packed_bytes(b, t);
	if (--packed->arena->n_users == 0) {
		struct ruv_pack_arena **at = &b->arenas;
		while (*at != packed->arena)
			at = &(*at)->next;
		*at = packed->arena->next;
		munmap(packed->arena->memory, packed->arena->size);
		free(packed->arena);
	}
	free(packed);
	t->packed = NULL;
}

struct job {
	const ruv_kernels *k;
	const ruv_tensor *t;
	uint8_t *panels;
	size_t panel_bytes, row_bytes;
};

static void pack_task(void *arg, int task, int thread)
{
	const struct job *job = arg;
	const int rows = job->k->panel_rows;
	const int64_t from = (int64_t)task * rows, left = job->t->n_out - from;

	(void)thread;
	job->k->pack[job->t->dtype](job->panels + (size_t)task * job->panel_bytes,
	                            (const uint8_t *)job->t->data + (size_t)from * job->row_bytes, job->row_bytes,
	                            (int)(left < rows ? left : rows), job->t->n_in);
}

/* The whole pages of the mapping that hold nothing but this tensor. */
static void give_back(const ruv_tensor *t)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n_bytes = (size_t)t->n_out * ruv_dtype_row_bytes(t->dtype, t->n_in);
	uintptr_t from = ((uintptr_t)t->data + page - 1) & ~(page - 1), to = ((uintptr_t)t->data + n_bytes) & ~(page - 1);
	if (to > from)
		madvise((void *)from, to - from, MADV_DONTNEED);
}

const uint8_t *ruv_pack_get(ruv_backend *b, const ruv_tensor *t)
{
	struct ruv_packed *packed = t->packed;

	if (!packed)
		return NULL;
	if (!packed->made) {
		int64_t t0 = ruv_clock_now_ns();
		struct job job = {.k = b->k, .t = t, .panels = packed->panels, .row_bytes = ruv_dtype_row_bytes(t->dtype, t->n_in)};
		job.panel_bytes = ((size_t)b->k->panel_rows * job.row_bytes + 63) & ~(size_t)63;
		ruv_backend_run(b, pack_task, &job, (int)((t->n_out + b->k->panel_rows - 1) / b->k->panel_rows),
		                packed_bytes(b, t));
		packed->made = true;
		if (t->mapped)
			give_back(t);
		b->packed_bytes += packed_bytes(b, t);
		b->packed_ns += ruv_clock_now_ns() - t0;
	}
	return packed->panels;
}

void ruv_backend_set_packing(ruv_backend *b, bool packing)
{
	b->packing = packing;
}

void ruv_backend_packed(const ruv_backend *b, size_t *n_bytes, int64_t *ns)
{
	if (n_bytes)
		*n_bytes = b->packed_bytes;
	if (ns)
		*ns = b->packed_ns;
}

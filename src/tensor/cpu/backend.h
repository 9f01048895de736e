/* backend.h - what the CPU backend's files share. Layer: tensor (private to cpu/). */
#ifndef RUV_TENSOR_CPU_BACKEND_H
#define RUV_TENSOR_CPU_BACKEND_H

#include "base/pool.h"
#include "tensor/cpu/kernels.h"
#include "tensor/ops.h"

/* Memory that packed matrices share; unmapped with the last of them. */
struct ruv_pack_arena {
	uint8_t *memory;
	size_t size, used;
	int n_users;
	struct ruv_pack_arena *next;
};

/* A matrix in packed form, behind ruv_tensor.packed: room for it from the time it is bound, filled by its first product. */
struct ruv_packed {
	uint8_t *panels; /* panel p of k->panel_rows rows starts at p * panel_rows * row_bytes; NULL: not bound to any room */
	struct ruv_pack_arena *arena;
	bool made;
};

struct ruv_backend {
	ruv_pool *pool;
	int n_threads;
	const ruv_kernels *k;
	ruv_error failure; /* the first since the last sync; code 0: none */
	char describe[128];

	/* What reserve made room for. */
	int64_t max_rows, max_elements;
	uint8_t *act; /* quantized activations */
	size_t act_bytes;
	uint8_t *scratch; /* n_threads pieces of thread_bytes */
	size_t thread_bytes;
	float *partial; /* pieces of rows whose attention was split; see attention.c */
	size_t n_partial;

	bool packing;
	struct ruv_pack_arena *arenas;
	size_t packed_bytes;
	int64_t packed_ns;
};

/* Rows whose attention over the context may be split among threads at a time, counted once per piece. */
enum { RUV_PARTIAL_ROWS = 128, RUV_MAX_HEAD_DIM = 256, RUV_ATTENTION_ROWS = 64 };

/* Remembers the first failure for ruv_backend_sync. */
void ruv_backend_fail(ruv_backend *backend, int code, const char *where, const char *fmt, ...) RUV_PRINTF(4, 5);
/* fn(arg, task, thread) for every task: on the pool, or on this thread alone when the work (in bytes touched) is too small to
 * share. */
void ruv_backend_run(ruv_backend *backend, ruv_pool_fn *fn, void *arg, int n_tasks, size_t work_bytes);
/* This thread's scratch, 64-byte aligned. */
void *ruv_backend_scratch(ruv_backend *backend, int thread);
/* Room for the packed form of a tensor just bound, where its type has one; leaves tensor->packed NULL where not. */
int ruv_pack_reserve(ruv_backend *backend, ruv_tensor *tensor, ruv_error *err);
void ruv_pack_release(ruv_backend *backend, ruv_tensor *tensor);
/* The packed form, made now if this is its first use; NULL when the tensor has none. */
const uint8_t *ruv_pack_get(ruv_backend *backend, const ruv_tensor *tensor);
/* Bytes of scratch that one thread's attention needs. */
size_t ruv_attention_scratch_bytes(void);

#endif

/* flat.c - exact search; see flat.h.
 *
 * One pass over the chunks, inner products of 64 slots at a time into a small block, then a bounded heap with the worst of the best
 * at its root. The pass is bound by memory: dimension * 4 bytes a vector. Layer: memory. */
#include "memory/flat.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "memory/dot.h"

/* Is a worse than b: further away, or as near with a greater key. */
static inline bool worse(const ruv_near *a, const ruv_near *b)
{
	return a->cosine < b->cosine || (a->cosine == b->cosine && a->key > b->key);
}

static void sift_down(ruv_near *heap, int n, int i)
{
	for (;;) {
		int child = 2 * i + 1;
		ruv_near swap;
		if (child >= n)
			return;
		if (child + 1 < n && worse(&heap[child + 1], &heap[child]))
			child++;
		if (!worse(&heap[child], &heap[i]))
			return;
		swap = heap[i];
		heap[i] = heap[child];
		heap[child] = swap;
		i = child;
	}
}

static void sift_up(ruv_near *heap, int i)
{
	while (i > 0 && worse(&heap[i], &heap[(i - 1) / 2])) {
		ruv_near swap = heap[i];
		heap[i] = heap[(i - 1) / 2];
		heap[(i - 1) / 2] = swap;
		i = (i - 1) / 2;
	}
}

static int nearer_first(const void *a, const void *b)
{
	return worse(a, b) ? 1 : worse(b, a) ? -1 : 0;
}

static int by_key(const void *a, const void *b)
{
	const ruv_near *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return nearer_first(a, b);
}

/* One pass. *twice: some key was seen in two slots (it was replaced meanwhile), and the nearer was kept. */
static int scan(ruv_near *heap, bool *twice, ruv_vectors *vectors, unsigned ticket, const float *query, int k, float min_cosine,
                const ruv_label_filter *filter)
{
	uint32_t n_slots = ruv_vectors_n_slots(vectors);
	int stride = ruv_vectors_stride(vectors), n = 0, kept = 0;
	ruv_dot_f32_fn *dot = ruv_dot_f32_kernel();

	for (uint32_t first = 0; first < n_slots; first += RUV_VECTORS_CHUNK) {
		const ruv_vectors_chunk *chunk = ruv_vectors_chunk_at(vectors, first / RUV_VECTORS_CHUNK);
		int n_here = n_slots - first < RUV_VECTORS_CHUNK ? (int)(n_slots - first) : RUV_VECTORS_CHUNK;
		for (int i = 0; i < n_here; i++) {
			ruv_near near;
			near.key = ruv_vectors_key(chunk, i, ticket);
			if (!near.key || !ruv_labels_pass(&chunk->labels[i], filter))
				continue;
			near.cosine = dot(query, chunk->rows + (size_t)i * (size_t)stride, stride);
			if (!(near.cosine >= min_cosine))
				continue;
			if (n < k) {
				heap[n] = near;
				sift_up(heap, n++);
			} else if (worse(&heap[0], &near)) {
				heap[0] = near;
				sift_down(heap, n, 0);
			}
		}
	}
	*twice = false;
	if (ruv_vectors_has_dead(vectors)) {
		qsort(heap, (size_t)n, sizeof *heap, by_key);
		for (int i = 0; i < n; i++) {
			if (i && heap[i].key == heap[kept - 1].key)
				*twice = true;
			else
				heap[kept++] = heap[i];
		}
		n = kept;
	}
	qsort(heap, (size_t)n, sizeof *heap, nearer_first);
	return n;
}

int ruv_flat_search(ruv_near *out, int *n, ruv_vectors *vectors, unsigned ticket, const float *query, int k, float min_cosine,
                    const ruv_label_filter *filter, ruv_error *err)
{
	ruv_near *wide;
	bool twice;

	*n = scan(out, &twice, vectors, ticket, query, k, min_cosine, filter);
	if (!twice)
		return RUV_OK;
	/* Doubles took places in the list: look again with room for every key twice. */
	wide = malloc((size_t)k * 2 * sizeof *wide);
	if (!wide)
		return ruv_fail_memory(err, "memory", (size_t)k * 2 * sizeof *wide);
	*n = scan(wide, &twice, vectors, ticket, query, 2 * k, min_cosine, filter);
	if (*n > k)
		*n = k;
	memcpy(out, wide, (size_t)*n * sizeof *out);
	free(wide);
	return RUV_OK;
}

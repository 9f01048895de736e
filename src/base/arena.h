/* arena.h - bump allocation for things that die together (a request, a loaded file's tables).
 *
 * Memory comes in blocks that double up to 1 MiB and is freed all at once. Threads: one arena, one thread at a time.
 * Layer: base. */
#ifndef RUV_BASE_ARENA_H
#define RUV_BASE_ARENA_H

#include <stddef.h>

typedef struct ruv_arena_block ruv_arena_block;

typedef struct ruv_arena {
	ruv_arena_block *head;
	size_t n_bytes; /* handed out so far */
} ruv_arena;

/* An empty arena; allocates nothing. */
void ruv_arena_init(ruv_arena *arena);
/* Frees every block; the arena is empty and usable again. */
void ruv_arena_release(ruv_arena *arena);
/* `n_bytes` aligned to 16, uninitialised; NULL when memory is out. */
void *ruv_arena_alloc(ruv_arena *arena, size_t n_bytes);
/* `n * size` zeroed bytes; NULL when out of memory or when the product overflows. */
void *ruv_arena_calloc(ruv_arena *arena, size_t n, size_t size);
/* A copy of text[0..n) with a NUL behind it; NULL when memory is out. */
char *ruv_arena_strndup(ruv_arena *arena, const char *text, size_t n);

#endif

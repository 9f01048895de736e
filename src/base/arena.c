/* arena.c - bump allocation in doubling blocks; see arena.h. */
#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BLOCK_BYTES = 4096, LARGEST_BLOCK_BYTES = 1 << 20, ALIGNMENT = 16 };

struct ruv_arena_block {
	ruv_arena_block *next;
	size_t used, size;
	_Alignas(16) unsigned char bytes[];
};

void ruv_arena_init(ruv_arena *arena)
{
	arena->head = NULL;
	arena->n_bytes = 0;
}

void ruv_arena_release(ruv_arena *arena)
{
	ruv_arena_block *block = arena->head;
	while (block) {
		ruv_arena_block *next = block->next;
		free(block);
		block = next;
	}
	ruv_arena_init(arena);
}

void *ruv_arena_alloc(ruv_arena *arena, size_t n_bytes)
{
	ruv_arena_block *block = arena->head;
	size_t need;
	void *p;

	if (n_bytes > SIZE_MAX / 2)
		return NULL;
	need = (n_bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (!block || block->size - block->used < need) {
		size_t size = block ? block->size * 2 : FIRST_BLOCK_BYTES;
		if (size > LARGEST_BLOCK_BYTES)
			size = LARGEST_BLOCK_BYTES;
		if (size < need)
			size = need;
		block = malloc(sizeof *block + size);
		if (!block)
			return NULL;
		block->next = arena->head;
		block->used = 0;
		block->size = size;
		arena->head = block;
	}
	p = block->bytes + block->used;
	block->used += need;
	arena->n_bytes += need;
	return p;
}

void *ruv_arena_calloc(ruv_arena *arena, size_t n, size_t size)
{
	size_t total;
	void *p;
	if (__builtin_mul_overflow(n, size, &total))
		return NULL;
	p = ruv_arena_alloc(arena, total);
	if (p)
		memset(p, 0, total);
	return p;
}

char *ruv_arena_strndup(ruv_arena *arena, const char *text, size_t n)
{
	char *copy = n < SIZE_MAX ? ruv_arena_alloc(arena, n + 1) : NULL;
	if (copy) {
		memcpy(copy, text, n);
		copy[n] = '\0';
	}
	return copy;
}

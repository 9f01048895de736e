/* keymap.h - from a node's key to a 32-bit number: open addressing, linear probing, at most 2/3 full.
 *
 * Threads: none of its own. Layer: memory. */
#ifndef RUV_MEMORY_KEYMAP_H
#define RUV_MEMORY_KEYMAP_H

#include "ruvllm/types.h"

/* Zeroed: empty. */
typedef struct ruv_key_map {
	int64_t *keys; /* 0: empty, -1: deleted */
	uint32_t *values;
	size_t cap, used; /* used: not empty */
	size_t n;
} ruv_key_map;

void ruv_key_map_release(ruv_key_map *map);
/* Room for n more. */
int ruv_key_map_reserve(ruv_key_map *map, size_t n, ruv_error *err);
/* The place of a key in keys and values, SIZE_MAX when it is not there. */
size_t ruv_key_map_find(const ruv_key_map *map, int64_t key);
/* There is room, and the key (positive) is not there. */
void ruv_key_map_add(ruv_key_map *map, int64_t key, uint32_t value);
void ruv_key_map_remove_at(ruv_key_map *map, size_t at);
int64_t ruv_key_map_bytes(const ruv_key_map *map);

#endif

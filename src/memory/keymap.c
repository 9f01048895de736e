/* keymap.c - see keymap.h. Layer: memory. */
#include "memory/keymap.h"

#include <stdlib.h>

#include "base/status.h"

static uint64_t mix(int64_t key)
{
	uint64_t x = (uint64_t)key * 0x9e3779b97f4a7c15u;

	return x ^ x >> 32;
}

void ruv_key_map_release(ruv_key_map *map)
{
	free(map->keys);
	free(map->values);
	*map = (ruv_key_map){0};
}

size_t ruv_key_map_find(const ruv_key_map *map, int64_t key)
{
	if (!map->cap || key <= 0)
		return SIZE_MAX;
	for (size_t i = mix(key) & (map->cap - 1);; i = (i + 1) & (map->cap - 1)) {
		if (map->keys[i] == key)
			return i;
		if (map->keys[i] == 0)
			return SIZE_MAX;
	}
}

int ruv_key_map_reserve(ruv_key_map *map, size_t n, ruv_error *err)
{
	size_t cap = 64;
	int64_t *keys;
	uint32_t *values;

	if (map->cap && (map->used + n) * 3 <= map->cap * 2)
		return RUV_OK;
	while (cap < (map->n + n) * 3)
		cap *= 2;
	keys = calloc(cap, sizeof *keys);
	values = malloc(cap * sizeof *values);
	if (!keys || !values) {
		free(keys);
		free(values);
		return ruv_fail_memory(err, "memory", cap * (sizeof *keys + sizeof *values));
	}
	for (size_t i = 0; i < map->cap; i++) {
		if (map->keys[i] > 0) {
			size_t j = mix(map->keys[i]) & (cap - 1);
			while (keys[j])
				j = (j + 1) & (cap - 1);
			keys[j] = map->keys[i];
			values[j] = map->values[i];
		}
	}
	free(map->keys);
	free(map->values);
	map->keys = keys;
	map->values = values;
	map->cap = cap;
	map->used = map->n;
	return RUV_OK;
}

void ruv_key_map_add(ruv_key_map *map, int64_t key, uint32_t value)
{
	size_t i = mix(key) & (map->cap - 1);

	while (map->keys[i] > 0)
		i = (i + 1) & (map->cap - 1);
	if (map->keys[i] == 0)
		map->used++;
	map->keys[i] = key;
	map->values[i] = value;
	map->n++;
}

void ruv_key_map_remove_at(ruv_key_map *map, size_t at)
{
	map->keys[at] = -1;
	map->n--;
}

int64_t ruv_key_map_bytes(const ruv_key_map *map)
{
	return (int64_t)(map->cap * (sizeof *map->keys + sizeof *map->values));
}

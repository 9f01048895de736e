/* safetensors.c - the safetensors reader; see safetensors.h for the bytes and the promises. */
#include "format/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/status.h"

#define WHERE "safetensors"

enum {
	MAX_HEADER_BYTES = 100 << 20, /* the format's own limit */
	MAX_INDEX_BYTES = 64 << 20,
	MAX_TENSORS = 1 << 20,
	MAX_SHARDS = 4096
};

struct ruv_safetensors {
	ruv_map *maps;
	size_t n_maps;
	bool owns_maps;
	ruv_arena arena; /* names */
	ruv_safetensors_tensor *tensors;
	size_t n_tensors, cap_tensors;
};

static const struct {
	const char *name;
	int bits;
	int dtype;
} types[] = {{"F32", 32, RUV_F32}, {"F16", 16, RUV_F16}, {"BF16", 16, RUV_BF16}, {"F64", 64, -1},    {"I64", 64, -1},
             {"U64", 64, -1},      {"I32", 32, -1},      {"U32", 32, -1},        {"I16", 16, -1},    {"U16", 16, -1},
             {"I8", 8, -1},        {"U8", 8, -1},        {"BOOL", 8, -1},        {"F8_E4M3", 8, -1}, {"F8_E5M2", 8, -1},
             {"F8_E8M0", 8, -1},   {"C64", 64, -1},      {"F4", 4, -1}};

/* ---- one file ---- */

typedef struct span {
	uint64_t begin, end;
	const char *name;
} span;

static int compare_spans(const void *a, const void *b)
{
	const span *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const ruv_safetensors_tensor *)a)->name, ((const ruv_safetensors_tensor *)b)->name);
}

static int get_offset(json_t *offsets, size_t i, uint64_t *value)
{
	json_t *v = json_array_get(offsets, i);
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return -1;
	*value = (uint64_t)json_integer_value(v);
	return 0;
}

static int read_entry(ruv_safetensors *st, const char *name, json_t *entry, const unsigned char *data, uint64_t data_bytes,
                      span *at, ruv_error *err)
{
	ruv_safetensors_tensor *t;
	json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
	const char *type = json_string_value(json_object_get(entry, "dtype"));
	size_t k;
	int bits = 0;
	uint64_t n_bits;

	if (!json_is_object(entry) || !type || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "tensor '%.200s' needs \"dtype\" (string), \"shape\" (array) and \"data_offsets\" (two numbers)",
		                name);
	if (!*name || strlen(name) > 1000)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "a tensor name of %zu bytes; 1 to 1000 are allowed", strlen(name));
	if (json_array_size(shape) > 8)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%.200s' has %zu dimensions; at most 8 are allowed", name,
		                json_array_size(shape));
	if (st->n_tensors == MAX_TENSORS)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "more than %d tensors", MAX_TENSORS);
	if (st->n_tensors == st->cap_tensors) {
		size_t cap = st->cap_tensors ? st->cap_tensors * 2 : 64;
		ruv_safetensors_tensor *p = realloc(st->tensors, cap * sizeof *p);
		if (!p)
			return ruv_fail_memory(err, WHERE, cap * sizeof *p);
		st->tensors = p;
		st->cap_tensors = cap;
	}
	t = &st->tensors[st->n_tensors];
	memset(t, 0, sizeof *t);
	t->dtype = -1;
	for (k = 0; k < sizeof types / sizeof *types; k++) {
		if (!strcmp(types[k].name, type)) {
			t->type_name = types[k].name;
			t->dtype = types[k].dtype;
			bits = types[k].bits;
			break;
		}
	}
	if (!bits)
		return ruv_fail(err, RUV_EUNSUPPORTED, WHERE, "tensor '%.200s' has the unknown dtype '%.40s'", name, type);
	t->n_dims = (int)json_array_size(shape);
	t->n_elements = 1;
	for (int d = 0; d < t->n_dims; d++) {
		json_t *v = json_array_get(shape, (size_t)d);
		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return ruv_fail(err, RUV_EFORMAT, WHERE, "dimension %d of tensor '%.200s' is no size", d, name);
		t->shape[d] = json_integer_value(v);
		if (__builtin_mul_overflow(t->n_elements, t->shape[d], &t->n_elements))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "the number of elements of tensor '%.200s' overflows", name);
	}
	if (get_offset(offsets, 0, &at->begin) || get_offset(offsets, 1, &at->end) || at->begin > at->end)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%.200s' has impossible data_offsets", name);
	if (at->end > data_bytes)
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "tensor '%.200s' ends at byte %llu of the data, which has %llu: the file is cut short", name,
		                (unsigned long long)at->end, (unsigned long long)data_bytes);
	if (__builtin_mul_overflow((uint64_t)t->n_elements, (uint64_t)bits, &n_bits) || n_bits % 8 ||
	    n_bits / 8 != at->end - at->begin)
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "tensor '%.200s' has %llu bytes, but %lld elements of %s need another size", name,
		                (unsigned long long)(at->end - at->begin), (long long)t->n_elements, type);
	t->n_bytes = (size_t)(at->end - at->begin);
	t->data = data + at->begin;
	t->name = ruv_arena_strndup(&st->arena, name, strlen(name));
	if (!t->name)
		return ruv_fail_memory(err, WHERE, strlen(name) + 1);
	at->name = t->name;
	st->n_tensors++;
	return RUV_OK;
}

static int read_file(ruv_safetensors *st, const ruv_map *map, ruv_error *err)
{
	json_t *header = NULL;
	json_error_t je;
	span *spans = NULL;
	size_t n_spans = 0;
	uint64_t n;
	int rc = RUV_OK;

	if (map->size < 8)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the file has %zu bytes: too short for a safetensors file", map->size);
	memcpy(&n, map->data, 8);
	if (n > MAX_HEADER_BYTES || n > map->size - 8)
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "the header claims %llu bytes; the file has %zu and at most %d are allowed", (unsigned long long)n,
		                map->size, MAX_HEADER_BYTES);
	const unsigned char *data = map->data + 8 + n;
	uint64_t data_bytes = map->size - 8 - n;

	header = json_loadb((const char *)map->data + 8, n, JSON_REJECT_DUPLICATES, &je);
	if (!header)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the header is not valid JSON: %s (byte %d)", je.text, je.position);
	if (!json_is_object(header)) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "the header is no JSON object");
		goto done;
	}
	spans = calloc(json_object_size(header) + 1, sizeof *spans);
	if (!spans) {
		rc = ruv_fail_memory(err, WHERE, json_object_size(header) * sizeof *spans);
		goto done;
	}
	const char *name;
	json_t *entry;
	json_object_foreach(header, name, entry)
	{
		if (!strcmp(name, "__metadata__"))
			continue;
		rc = read_entry(st, name, entry, data, data_bytes, &spans[n_spans], err);
		if (rc)
			goto done;
		n_spans++;
	}
	qsort(spans, n_spans, sizeof *spans, compare_spans);
	uint64_t end = 0;
	for (size_t i = 0; i < n_spans; i++) {
		if (spans[i].begin != end) {
			rc = ruv_fail(err, RUV_EFORMAT, WHERE,
			              "tensor '%.200s' starts at byte %llu of the data, where %llu is expected (%s)", spans[i].name,
			              (unsigned long long)spans[i].begin, (unsigned long long)end,
			              spans[i].begin < end ? "it overlaps another one" : "bytes that belong to no tensor");
			goto done;
		}
		end = spans[i].end;
	}
	if (end != data_bytes)
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%llu bytes behind the last tensor belong to none",
		              (unsigned long long)(data_bytes - end));
done:
	free(spans);
	json_decref(header);
	return rc;
}

/* Sorts and refuses a name that stands in two shards. */
static int finish(ruv_safetensors *st, ruv_error *err)
{
	if (st->n_tensors)
		qsort(st->tensors, st->n_tensors, sizeof *st->tensors, compare_names);
	for (size_t i = 1; i < st->n_tensors; i++)
		if (!strcmp(st->tensors[i - 1].name, st->tensors[i].name))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%.200s' stands in two shards", st->tensors[i].name);
	return RUV_OK;
}

/* ---- shards ---- */

static int add_map(ruv_safetensors *st, const char *path, ruv_error *err)
{
	ruv_map *maps = realloc(st->maps, (st->n_maps + 1) * sizeof *maps);
	int rc;
	if (!maps)
		return ruv_fail_memory(err, WHERE, (st->n_maps + 1) * sizeof *maps);
	st->maps = maps;
	rc = ruv_map_open(&maps[st->n_maps], path, err);
	if (rc)
		return rc;
	rc = read_file(st, &maps[st->n_maps++], err);
	if (rc)
		ruv_error_prefix(err, rc, "%s: ", path);
	return rc;
}

static int read_index(ruv_safetensors *st, const char *dir, const char *index_path, ruv_error *err)
{
	char *text = NULL, path[4096];
	size_t n;
	json_t *index = NULL, *map, *shard, *seen = NULL;
	json_error_t je;
	const char *name;
	int rc;

	rc = ruv_file_read(&text, &n, index_path, MAX_INDEX_BYTES, err);
	if (rc)
		return rc;
	index = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	map = json_object_get(index, "weight_map");
	if (!index) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s is not valid JSON: %s (line %d)", index_path, je.text, je.line);
		goto done;
	}
	if (!json_is_object(map)) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s has no object \"weight_map\"", index_path);
		goto done;
	}
	seen = json_object();
	json_object_foreach(map, name, shard)
	{
		const char *file = json_string_value(shard);
		if (!file || !*file || strchr(file, '/') || !strcmp(file, "..")) {
			rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s gives tensor '%.200s' no file of its own directory", index_path,
			              name);
			goto done;
		}
		if (json_object_get(seen, file))
			continue;
		if (json_object_size(seen) == MAX_SHARDS || json_object_set_new(seen, file, json_true())) {
			rc = ruv_fail(err, RUV_ELIMIT, WHERE, "%s names more than %d shards", index_path, MAX_SHARDS);
			goto done;
		}
		if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, file) >= sizeof path) {
			rc = ruv_fail(err, RUV_ELIMIT, WHERE, "the path of shard '%.200s' is too long", file);
			goto done;
		}
		rc = add_map(st, path, err);
		if (rc)
			goto done;
	}
	rc = finish(st, err);
	if (rc)
		goto done;
	json_object_foreach(map, name, shard)
	{
		if (!ruv_safetensors_find(st, name)) {
			rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s says that '%.200s' is in %.100s, but it is not", index_path,
			              name, json_string_value(shard));
			goto done;
		}
	}
	if (st->n_tensors != json_object_size(map))
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "the shards hold %zu tensors, %s names %zu", st->n_tensors, index_path,
		              json_object_size(map));
done:
	json_decref(seen);
	json_decref(index);
	free(text);
	return rc;
}

int ruv_safetensors_open(ruv_safetensors **out, const char *path, ruv_error *err)
{
	ruv_safetensors *st = calloc(1, sizeof *st);
	char file[4096], index[4096];
	struct stat sb;
	int rc;

	if (!st)
		return ruv_fail_memory(err, WHERE, sizeof *st);
	st->owns_maps = true;
	ruv_arena_init(&st->arena);
	if (stat(path, &sb)) {
		rc = ruv_fail_errno(err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, WHERE, "cannot open '%s'", path);
		goto done;
	}
	if (!S_ISDIR(sb.st_mode)) {
		rc = add_map(st, path, err);
		if (!rc)
			rc = finish(st, err);
		goto done;
	}
	if ((size_t)snprintf(file, sizeof file, "%s/model.safetensors", path) >= sizeof file ||
	    (size_t)snprintf(index, sizeof index, "%s/model.safetensors.index.json", path) >= sizeof index) {
		rc = ruv_fail(err, RUV_ELIMIT, WHERE, "the path '%.200s...' is too long", path);
		goto done;
	}
	if (!stat(file, &sb)) {
		rc = add_map(st, file, err);
		if (!rc)
			rc = finish(st, err);
	} else if (!stat(index, &sb)) {
		rc = read_index(st, path, index, err);
	} else {
		rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "'%s' holds neither model.safetensors nor model.safetensors.index.json",
		              path);
	}
done:
	if (rc)
		ruv_safetensors_free(st);
	else
		*out = st;
	return rc;
}

int ruv_safetensors_open_memory(ruv_safetensors **out, const void *bytes, size_t n_bytes, ruv_error *err)
{
	ruv_safetensors *st = calloc(1, sizeof *st);
	ruv_map map = {bytes, n_bytes};
	int rc;
	if (!st)
		return ruv_fail_memory(err, WHERE, sizeof *st);
	ruv_arena_init(&st->arena);
	rc = read_file(st, &map, err);
	if (!rc)
		rc = finish(st, err);
	if (rc)
		ruv_safetensors_free(st);
	else
		*out = st;
	return rc;
}

void ruv_safetensors_free(ruv_safetensors *st)
{
	if (!st)
		return;
	if (st->owns_maps)
		for (size_t i = 0; i < st->n_maps; i++)
			ruv_map_release(&st->maps[i]);
	free(st->maps);
	free(st->tensors);
	ruv_arena_release(&st->arena);
	free(st);
}

size_t ruv_safetensors_n_tensors(const ruv_safetensors *st)
{
	return st->n_tensors;
}

const ruv_safetensors_tensor *ruv_safetensors_at(const ruv_safetensors *st, size_t i)
{
	return i < st->n_tensors ? &st->tensors[i] : NULL;
}

const ruv_safetensors_tensor *ruv_safetensors_find(const ruv_safetensors *st, const char *name)
{
	ruv_safetensors_tensor key = {.name = name};
	return st->n_tensors ? bsearch(&key, st->tensors, st->n_tensors, sizeof key, compare_names) : NULL;
}

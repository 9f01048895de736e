/* gguf_write.c - the GGUF writer; see gguf_write.h, and gguf.h for the bytes.
 *
 * Keys are kept encoded as they will stand in the file. Offsets follow from the declared tensors, so that everything before the
 * data is written at once and the data streams behind it. */
#include "format/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/status.h"

#define WHERE "gguf"

enum { ALIGNMENT = 32 };

typedef struct out_key {
	char *name;
	uint32_t type;
	ruv_buf value; /* encoded, without the type */
} out_key;

typedef struct out_tensor {
	char name[64];
	ruv_dtype dtype;
	int n_dims;
	int64_t ne[4];
	uint64_t offset, n_bytes;
} out_tensor;

struct ruv_gguf_writer {
	out_key *keys;
	size_t n_keys, cap_keys;
	out_tensor *tensors;
	size_t n_tensors, cap_tensors;
	uint32_t *slots; /* hash of tensor names: index + 1 */
	size_t n_slots;
	uint64_t data_bytes;

	int failed; /* the first failure, and its words */
	ruv_error error;

	bool begun;
	ruv_outfile file;
	uint64_t head_bytes;
	size_t current;      /* tensor being written */
	uint64_t in_current; /* its bytes so far */
};

static uint64_t padded(uint64_t n)
{
	return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t hash_name(const char *name)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a: names are our own */
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	return h ^ h >> 29;
}

int ruv_gguf_writer_create(ruv_gguf_writer **out, ruv_error *err)
{
	ruv_gguf_writer *w = calloc(1, sizeof *w);
	if (!w)
		return ruv_fail_memory(err, WHERE, sizeof *w);
	*out = w;
	return RUV_OK;
}

static void release_key(out_key *key)
{
	free(key->name);
	ruv_buf_release(&key->value);
}

void ruv_gguf_writer_free(ruv_gguf_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n_keys; i++)
		release_key(&w->keys[i]);
	free(w->keys);
	free(w->tensors);
	free(w->slots);
	ruv_outfile_release(&w->file);
	free(w);
}

/* ---- keys ---- */

static out_key *find_key(const ruv_gguf_writer *w, const char *name)
{
	for (size_t i = 0; i < w->n_keys; i++)
		if (!strcmp(w->keys[i].name, name))
			return &w->keys[i];
	return NULL;
}

bool ruv_gguf_writer_has_key(const ruv_gguf_writer *w, const char *name)
{
	return find_key(w, name) != NULL;
}

void ruv_gguf_remove_key(ruv_gguf_writer *w, const char *name)
{
	out_key *key = find_key(w, name);
	if (!key)
		return;
	release_key(key);
	size_t i = (size_t)(key - w->keys);
	memmove(key, key + 1, (w->n_keys - i - 1) * sizeof *key);
	w->n_keys--;
}

/* An emptied key to append the value to; NULL when something failed before or now. */
static out_key *new_key(ruv_gguf_writer *w, const char *name, ruv_gguf_type type)
{
	size_t len = strlen(name);
	out_key *key;

	if (w->failed)
		return NULL;
	if (w->begun) {
		w->failed = ruv_fail(&w->error, RUV_EINVAL, WHERE, "key '%s' is set after the file was begun", name);
		return NULL;
	}
	if (len == 0 || len > 65535) {
		w->failed = ruv_fail(&w->error, RUV_EINVAL, WHERE, "a key's name has %zu bytes; 1 to 65535 are allowed", len);
		return NULL;
	}
	key = find_key(w, name);
	if (!key) {
		if (w->n_keys == w->cap_keys) {
			size_t cap = w->cap_keys ? w->cap_keys * 2 : 64;
			out_key *p = realloc(w->keys, cap * sizeof *p);
			if (!p) {
				w->failed = ruv_fail_memory(&w->error, WHERE, cap * sizeof *p);
				return NULL;
			}
			w->keys = p;
			w->cap_keys = cap;
		}
		char *copy = strdup(name);
		if (!copy) {
			w->failed = ruv_fail_memory(&w->error, WHERE, len + 1);
			return NULL;
		}
		key = &w->keys[w->n_keys++];
		key->name = copy;
		ruv_buf_init(&key->value, SIZE_MAX / 2);
	}
	key->type = type;
	ruv_buf_clear(&key->value);
	return key;
}

static void append(ruv_gguf_writer *w, out_key *key, const void *bytes, size_t n)
{
	if (key && n && ruv_buf_append(&key->value, bytes, n) && !w->failed)
		w->failed = ruv_fail(&w->error, key->value.failed, WHERE, "the value of key '%s' does not fit memory", key->name);
}

#define SCALAR(verb, ctype, id)                                                                                                    \
	void ruv_gguf_set_##verb(ruv_gguf_writer *w, const char *name, ctype value)                                                \
	{                                                                                                                          \
		append(w, new_key(w, name, id), &value, sizeof value);                                                             \
	}
SCALAR(u32, uint32_t, RUV_GGUF_U32)
SCALAR(u64, uint64_t, RUV_GGUF_U64)
SCALAR(i32, int32_t, RUV_GGUF_I32)
SCALAR(f32, float, RUV_GGUF_F32)
#undef SCALAR

void ruv_gguf_set_bool(ruv_gguf_writer *w, const char *name, bool value)
{
	uint8_t byte = value;
	append(w, new_key(w, name, RUV_GGUF_BOOL), &byte, 1);
}

void ruv_gguf_set_strn(ruv_gguf_writer *w, const char *name, const char *value, size_t n_bytes)
{
	out_key *key = new_key(w, name, RUV_GGUF_STRING);
	uint64_t n = n_bytes;
	append(w, key, &n, sizeof n);
	append(w, key, value, n_bytes);
}

void ruv_gguf_set_str(ruv_gguf_writer *w, const char *name, const char *value)
{
	ruv_gguf_set_strn(w, name, value, strlen(value));
}

static void array_head(ruv_gguf_writer *w, out_key *key, ruv_gguf_type type, size_t n)
{
	uint32_t id = type;
	uint64_t count = n;
	append(w, key, &id, sizeof id);
	append(w, key, &count, sizeof count);
}

void ruv_gguf_set_array(ruv_gguf_writer *w, const char *name, ruv_gguf_type type, const void *values, size_t n)
{
	static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
	out_key *key = new_key(w, name, RUV_GGUF_ARRAY);
	if (key && ((size_t)type >= sizeof bytes || !bytes[type])) {
		w->failed = ruv_fail(&w->error, RUV_EINVAL, WHERE, "key '%s': elements of %s have no fixed size", name,
		                     ruv_gguf_type_name(type));
		return;
	}
	array_head(w, key, type, n);
	if (key)
		append(w, key, values, n * bytes[type]);
}

void ruv_gguf_set_str_array(ruv_gguf_writer *w, const char *name, const ruv_gguf_str *values, size_t n)
{
	out_key *key = new_key(w, name, RUV_GGUF_ARRAY);
	array_head(w, key, RUV_GGUF_STRING, n);
	for (size_t i = 0; i < n && !w->failed; i++) {
		uint64_t len = values[i].len;
		append(w, key, &len, sizeof len);
		append(w, key, values[i].data, values[i].len);
	}
}

void ruv_gguf_set_copy(ruv_gguf_writer *w, const ruv_gguf_key *from)
{
	static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
	char *name = strndup(from->name.data, from->name.len);
	if (!name) {
		if (!w->failed)
			w->failed = ruv_fail_memory(&w->error, WHERE, from->name.len + 1);
		return;
	}
	out_key *key = new_key(w, name, from->type);
	if (from->type == RUV_GGUF_ARRAY) {
		array_head(w, key, from->array.type, from->array.n);
		append(w, key, from->array.data, from->array.n_bytes);
	} else if (from->type == RUV_GGUF_STRING) {
		uint64_t n;
		memcpy(&n, from->data, sizeof n);
		append(w, key, from->data, sizeof n + (size_t)n);
	} else {
		append(w, key, from->data, bytes[from->type]);
	}
	free(name);
}

/* ---- tensors ---- */

static int index_tensor(ruv_gguf_writer *w, const char *name)
{
	if ((w->n_tensors + 1) * 2 > w->n_slots) {
		size_t n = w->n_slots ? w->n_slots * 2 : 256;
		uint32_t *slots = calloc(n, sizeof *slots);
		if (!slots)
			return ruv_fail_memory(&w->error, WHERE, n * sizeof *slots);
		for (size_t i = 0; i < w->n_tensors; i++) {
			size_t k = hash_name(w->tensors[i].name) & (n - 1);
			while (slots[k])
				k = (k + 1) & (n - 1);
			slots[k] = (uint32_t)i + 1;
		}
		free(w->slots);
		w->slots = slots;
		w->n_slots = n;
	}
	size_t k = hash_name(name) & (w->n_slots - 1);
	for (; w->slots[k]; k = (k + 1) & (w->n_slots - 1))
		if (!strcmp(w->tensors[w->slots[k] - 1].name, name))
			return ruv_fail(&w->error, RUV_EINVAL, WHERE, "tensor '%s' is declared twice", name);
	w->slots[k] = (uint32_t)w->n_tensors + 1;
	return RUV_OK;
}

static int add_tensor(ruv_gguf_writer *w, const char *name, ruv_dtype dtype, int n_dims, const int64_t *ne)
{
	size_t len = strlen(name);
	out_tensor *t;
	uint64_t bytes;
	int rc;

	if (w->begun)
		return ruv_fail(&w->error, RUV_EINVAL, WHERE, "tensor '%s' is declared after the file was begun", name);
	if (len == 0 || len >= sizeof t->name)
		return ruv_fail(&w->error, RUV_EINVAL, WHERE, "tensor name '%s' has %zu bytes; 1 to 63 are allowed", name, len);
	if (n_dims < 1 || n_dims > 4)
		return ruv_fail(&w->error, RUV_EINVAL, WHERE, "tensor '%s' has %d dimensions; 1 to 4 are allowed", name, n_dims);
	for (int d = 0; d < n_dims; d++)
		if (ne[d] <= 0)
			return ruv_fail(&w->error, RUV_EINVAL, WHERE, "dimension %d of tensor '%s' is %lld", d, name,
			                (long long)ne[d]);
	bytes = ruv_dtype_row_bytes(dtype, ne[0]);
	if (!bytes)
		return ruv_fail(&w->error, RUV_EINVAL, WHERE, "tensor '%s': rows of %lld elements are no whole blocks of %s", name,
		                (long long)ne[0], ruv_dtype_name(dtype));
	for (int d = 1; d < n_dims; d++)
		if (__builtin_mul_overflow(bytes, (uint64_t)ne[d], &bytes))
			return ruv_fail(&w->error, RUV_EINVAL, WHERE, "the size of tensor '%s' overflows", name);
	if (bytes > UINT64_MAX / 2 || w->data_bytes > UINT64_MAX / 2)
		return ruv_fail(&w->error, RUV_EINVAL, WHERE, "the size of tensor '%s' overflows", name);
	if (w->n_tensors == w->cap_tensors) {
		size_t cap = w->cap_tensors ? w->cap_tensors * 2 : 64;
		out_tensor *p = realloc(w->tensors, cap * sizeof *p);
		if (!p)
			return ruv_fail_memory(&w->error, WHERE, cap * sizeof *p);
		w->tensors = p;
		w->cap_tensors = cap;
	}
	rc = index_tensor(w, name);
	if (rc)
		return rc;
	t = &w->tensors[w->n_tensors++];
	memset(t, 0, sizeof *t);
	memcpy(t->name, name, len);
	t->dtype = dtype;
	t->n_dims = n_dims;
	memcpy(t->ne, ne, (size_t)n_dims * sizeof *ne);
	t->offset = w->data_bytes;
	t->n_bytes = bytes;
	w->data_bytes += padded(bytes);
	return RUV_OK;
}

void ruv_gguf_add_tensor(ruv_gguf_writer *w, const char *name, ruv_dtype dtype, int n_dims, const int64_t *ne)
{
	if (!w->failed)
		w->failed = add_tensor(w, name, dtype, n_dims, ne);
}

/* ---- the file ---- */

static void put(ruv_gguf_writer *w, const void *bytes, size_t n)
{
	if (n)
		fwrite(bytes, 1, n, w->file.stream); /* a failure shows in finish, or in data's check */
	w->head_bytes += n;
}

static void put_name(ruv_gguf_writer *w, const char *name)
{
	uint64_t n = strlen(name);
	put(w, &n, sizeof n);
	put(w, name, n);
}

static void put_zeros(ruv_gguf_writer *w, uint64_t n)
{
	static const char zeros[ALIGNMENT];
	if (n)
		fwrite(zeros, 1, n, w->file.stream);
}

int ruv_gguf_writer_begin(ruv_gguf_writer *w, const char *path, ruv_error *err)
{
	const uint32_t version = 3;
	uint64_t n_tensors = w->n_tensors, n_keys = w->n_keys;
	int rc;

	if (w->failed) {
		if (err)
			*err = w->error;
		return w->failed;
	}
	if (w->begun)
		return ruv_fail(err, RUV_EINVAL, WHERE, "the file was begun already");
	rc = ruv_outfile_open_unnamed(&w->file, path, err);
	if (rc)
		return rc;
	w->begun = true;
	setvbuf(w->file.stream, NULL, _IOFBF, 1 << 18);
	put(w, "GGUF", 4);
	put(w, &version, sizeof version);
	put(w, &n_tensors, sizeof n_tensors);
	put(w, &n_keys, sizeof n_keys);
	for (size_t i = 0; i < w->n_keys; i++) {
		put_name(w, w->keys[i].name);
		put(w, &w->keys[i].type, sizeof w->keys[i].type);
		put(w, w->keys[i].value.data, w->keys[i].value.len);
	}
	for (size_t i = 0; i < w->n_tensors; i++) {
		const out_tensor *t = &w->tensors[i];
		uint32_t n_dims = (uint32_t)t->n_dims, dtype = t->dtype;
		put_name(w, t->name);
		put(w, &n_dims, sizeof n_dims);
		put(w, t->ne, n_dims * sizeof *t->ne);
		put(w, &dtype, sizeof dtype);
		put(w, &t->offset, sizeof t->offset);
	}
	put_zeros(w, padded(w->head_bytes) - w->head_bytes);
	w->head_bytes = padded(w->head_bytes);
	if (ferror(w->file.stream))
		return ruv_fail(err, RUV_EIO, WHERE, "cannot write '%s'", path);
	return RUV_OK;
}

int ruv_gguf_writer_data(ruv_gguf_writer *w, const void *bytes, size_t n_bytes, ruv_error *err)
{
	if (!w->begun)
		return ruv_fail(err, RUV_EINVAL, WHERE, "tensor data before the file was begun");
	if (w->current == w->n_tensors)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%zu bytes behind the last tensor", n_bytes);
	const out_tensor *t = &w->tensors[w->current];
	if (n_bytes > t->n_bytes - w->in_current)
		return ruv_fail(err, RUV_EINVAL, WHERE, "tensor '%s' has %llu bytes, but %llu were given", t->name,
		                (unsigned long long)t->n_bytes, (unsigned long long)(w->in_current + n_bytes));
	if (n_bytes && fwrite(bytes, 1, n_bytes, w->file.stream) != n_bytes)
		return ruv_fail(err, RUV_EIO, WHERE, "cannot write tensor '%s' to '%s': the disk may be full", t->name,
		                w->file.path);
	w->in_current += n_bytes;
	if (w->in_current == t->n_bytes) {
		put_zeros(w, padded(t->n_bytes) - t->n_bytes);
		w->current++;
		w->in_current = 0;
	}
	return RUV_OK;
}

int ruv_gguf_writer_finish(ruv_gguf_writer *w, ruv_error *err)
{
	if (!w->begun || !w->file.stream)
		return ruv_fail(err, RUV_EINVAL, WHERE, "finish without a file that was begun");
	if (w->current < w->n_tensors)
		return ruv_fail(err, RUV_EINVAL, WHERE, "tensor '%s' got %llu of its %llu bytes", w->tensors[w->current].name,
		                (unsigned long long)w->in_current, (unsigned long long)w->tensors[w->current].n_bytes);
	return ruv_outfile_commit(&w->file, err);
}

uint64_t ruv_gguf_writer_file_bytes(const ruv_gguf_writer *w)
{
	return w->head_bytes + w->data_bytes;
}

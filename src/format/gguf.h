/* gguf.h - reading GGUF: the file that holds a model's keys, vocabulary and tensors.
 *
 * The bytes (little-endian; version 2 and 3, which differ only in that 3 may be big-endian, which is refused):
 *     "GGUF" | u32 version | u64 n_tensors | u64 n_keys | keys | tensor infos | padding | data
 *     key         string name | u32 value type | value
 *     string      u64 n_bytes | bytes (no NUL)
 *     array       u32 element type | u64 n | elements (no arrays of arrays)
 *     tensor info string name | u32 n_dims <= 4 | u64 ne[n_dims] | u32 dtype | u64 offset in the data section
 * The data section starts at the next multiple of general.alignment (default 32), and every tensor's offset is exactly the sum of
 * the padded sizes before it. A model split over files NAME-00001-of-00003.gguf is opened by the name of any part and read as one.
 *
 * What does not hold is an error that names the key, the tensor or the byte offset. Counts in the file are never trusted for an
 * allocation: tables grow as entries are read.
 *
 * Lifetime: strings, arrays and tensor data are views of the map and live as long as the ruv_gguf. Strings carry no NUL.
 * Threads: any number of readers once open. Layer: format. */
#ifndef RUV_FORMAT_GGUF_H
#define RUV_FORMAT_GGUF_H

#include "ruvllm/types.h"
#include "tensor/dtype.h"

typedef struct ruv_gguf ruv_gguf;

typedef enum ruv_gguf_type {
	RUV_GGUF_U8 = 0,
	RUV_GGUF_I8 = 1,
	RUV_GGUF_U16 = 2,
	RUV_GGUF_I16 = 3,
	RUV_GGUF_U32 = 4,
	RUV_GGUF_I32 = 5,
	RUV_GGUF_F32 = 6,
	RUV_GGUF_BOOL = 7,
	RUV_GGUF_STRING = 8,
	RUV_GGUF_ARRAY = 9,
	RUV_GGUF_U64 = 10,
	RUV_GGUF_I64 = 11,
	RUV_GGUF_F64 = 12
} ruv_gguf_type;

/* "u32", "string", ...; "type 77" for an unknown one (static per thread). */
const char *ruv_gguf_type_name(int type);

/* Bytes of the map, no NUL behind them. */
typedef struct ruv_gguf_str {
	const char *data;
	size_t len;
} ruv_gguf_str;

typedef struct ruv_gguf_array {
	ruv_gguf_type type; /* of the elements, never RUV_GGUF_ARRAY */
	uint64_t n;
	const unsigned char *data; /* packed elements, unaligned; use the readers below */
	size_t n_bytes;
} ruv_gguf_array;

typedef struct ruv_gguf_key {
	ruv_gguf_str name;
	ruv_gguf_type type;
	const unsigned char *data; /* the value's bytes, unaligned; of an array: its first element */
	ruv_gguf_array array;      /* filled when type is RUV_GGUF_ARRAY */
} ruv_gguf_key;

typedef struct ruv_gguf_tensor {
	char name[64]; /* NUL-terminated, 1..63 bytes */
	int dtype;     /* a ruv_dtype; with RUV_GGUF_INSPECT it may be an id that ruv_dtype_known() denies */
	int n_dims;    /* 0..4 as stored (0: a scalar) */
	int64_t ne[4]; /* ne[0] contiguous; 1 beyond n_dims */
	const void *data;
	size_t n_bytes;  /* 0 when the dtype is not known */
	int part;        /* of a split file, from 0 */
	uint64_t offset; /* in its part's data section */
} ruv_gguf_tensor;

enum {
	RUV_GGUF_INSPECT = 1, /* let unknown tensor types pass, to be able to say what the file is */
	RUV_GGUF_ONE_PART = 2 /* open a part of a split file by itself */
};

/* Maps the file (and the other parts of its set) and checks everything above. flags: 0 to load a model. */
int ruv_gguf_open(ruv_gguf **out, const char *path, int flags, ruv_error *err);
/* The same over bytes that outlive the object; split files need RUV_GGUF_ONE_PART. */
int ruv_gguf_open_memory(ruv_gguf **out, const void *bytes, size_t n_bytes, int flags, ruv_error *err);
void ruv_gguf_free(ruv_gguf *gguf);

const char *ruv_gguf_path(const ruv_gguf *gguf); /* "" for memory */
int ruv_gguf_version(const ruv_gguf *gguf);
int ruv_gguf_n_parts(const ruv_gguf *gguf);
/* Finds "-00002-of-00005.gguf" at the end of a path: *stem_len is what stands before it, *no counts from 0. */
bool ruv_gguf_split_name(const char *path, size_t *stem_len, int *no, int *count);
uint64_t ruv_gguf_file_bytes(const ruv_gguf *gguf); /* all parts together */
uint32_t ruv_gguf_alignment(const ruv_gguf *gguf);

/* ---- keys ---- */

size_t ruv_gguf_n_keys(const ruv_gguf *gguf);
/* i in [0, n_keys), in the file's order (first part of a split file). */
const ruv_gguf_key *ruv_gguf_key_at(const ruv_gguf *gguf, size_t i);
/* NULL when there is none. */
const ruv_gguf_key *ruv_gguf_find_key(const ruv_gguf *gguf, const char *name);

/* The getters read one key: RUV_ENOTFOUND "key 'x' is missing", RUV_EFORMAT when its type is another one. Integers of any width
 * and sign serve every integer getter when the value fits; f32 serves f64 and the other way round, never an integer. */
int ruv_gguf_get_u32(const ruv_gguf *gguf, const char *name, uint32_t *value, ruv_error *err);
int ruv_gguf_get_u64(const ruv_gguf *gguf, const char *name, uint64_t *value, ruv_error *err);
int ruv_gguf_get_i32(const ruv_gguf *gguf, const char *name, int32_t *value, ruv_error *err);
int ruv_gguf_get_f32(const ruv_gguf *gguf, const char *name, float *value, ruv_error *err);
int ruv_gguf_get_bool(const ruv_gguf *gguf, const char *name, bool *value, ruv_error *err);
int ruv_gguf_get_str(const ruv_gguf *gguf, const char *name, ruv_gguf_str *value, ruv_error *err);
int ruv_gguf_get_array(const ruv_gguf *gguf, const char *name, ruv_gguf_array *value, ruv_error *err);

/* The same, but a missing key leaves *value as it was and is RUV_OK: set the default before. A wrong type is still an error. */
int ruv_gguf_opt_u32(const ruv_gguf *gguf, const char *name, uint32_t *value, ruv_error *err);
int ruv_gguf_opt_u64(const ruv_gguf *gguf, const char *name, uint64_t *value, ruv_error *err);
int ruv_gguf_opt_i32(const ruv_gguf *gguf, const char *name, int32_t *value, ruv_error *err);
int ruv_gguf_opt_f32(const ruv_gguf *gguf, const char *name, float *value, ruv_error *err);
int ruv_gguf_opt_bool(const ruv_gguf *gguf, const char *name, bool *value, ruv_error *err);
int ruv_gguf_opt_str(const ruv_gguf *gguf, const char *name, ruv_gguf_str *value, ruv_error *err);
int ruv_gguf_opt_array(const ruv_gguf *gguf, const char *name, ruv_gguf_array *value, ruv_error *err);

/* A string key as C text: a copy for the caller to free(). RUV_EFORMAT when it holds a NUL. */
int ruv_gguf_get_cstr(const ruv_gguf *gguf, const char *name, char **value, ruv_error *err);

/* ---- array elements; i in [0, n) ---- */

/* Of integer and bool arrays; u64 above INT64_MAX is RUV_ELIMIT. RUV_EFORMAT for others. */
int ruv_gguf_array_i64(const ruv_gguf_array *array, uint64_t i, int64_t *value, ruv_error *err);
/* Of float arrays. */
int ruv_gguf_array_f32(const ruv_gguf_array *array, uint64_t i, float *value, ruv_error *err);

/* Strings of an array in order: start with *cursor = 0; false at the end (or when it is no array of strings). */
bool ruv_gguf_array_next_str(const ruv_gguf_array *array, size_t *cursor, ruv_gguf_str *value);

static inline bool ruv_gguf_str_is(ruv_gguf_str s, const char *text)
{
	return s.len == __builtin_strlen(text) && (s.len == 0 || __builtin_memcmp(s.data, text, s.len) == 0);
}

/* ---- tensors ---- */

size_t ruv_gguf_n_tensors(const ruv_gguf *gguf);
const ruv_gguf_tensor *ruv_gguf_tensor_at(const ruv_gguf *gguf, size_t i);
/* NULL when there is none. */
const ruv_gguf_tensor *ruv_gguf_find_tensor(const ruv_gguf *gguf, const char *name);
/* The tensor, which must be there with these dimensions (a trailing 1 is no dimension); errors name it and both shapes. */
int ruv_gguf_get_tensor(const ruv_gguf *gguf, const char *name, int n_dims, const int64_t *ne, const ruv_gguf_tensor **tensor,
                        ruv_error *err);
/* "[2048, 65536]" into text[0..cap); returns text. */
const char *ruv_gguf_shape(const ruv_gguf_tensor *tensor, char *text, size_t cap);

#endif

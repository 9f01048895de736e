/* gguf_write.h - writing GGUF version 3: set keys, declare tensors, then stream their data in the order of declaration.
 *
 * The file appears under its name only when it is complete (base/file.h: temporary file, fsync, rename). The first failure of a
 * setter sticks and ruv_gguf_writer_begin reports it, so that setters need no check each. Setting a key again replaces it.
 * Threads: one writer, one thread. Layer: format. */
#ifndef RUV_FORMAT_GGUF_WRITE_H
#define RUV_FORMAT_GGUF_WRITE_H

#include "format/gguf.h"

typedef struct ruv_gguf_writer ruv_gguf_writer;

int ruv_gguf_writer_create(ruv_gguf_writer **out, ruv_error *err);
/* NULL is fine. A file that was begun and not finished disappears. */
void ruv_gguf_writer_free(ruv_gguf_writer *writer);

/* ---- keys; names 1..65535 bytes ---- */

void ruv_gguf_set_u32(ruv_gguf_writer *writer, const char *name, uint32_t value);
void ruv_gguf_set_u64(ruv_gguf_writer *writer, const char *name, uint64_t value);
void ruv_gguf_set_i32(ruv_gguf_writer *writer, const char *name, int32_t value);
void ruv_gguf_set_f32(ruv_gguf_writer *writer, const char *name, float value);
void ruv_gguf_set_bool(ruv_gguf_writer *writer, const char *name, bool value);
void ruv_gguf_set_str(ruv_gguf_writer *writer, const char *name, const char *value);
void ruv_gguf_set_strn(ruv_gguf_writer *writer, const char *name, const char *value, size_t n_bytes);
/* n packed elements of a fixed-size type (not string), little-endian as in memory. */
void ruv_gguf_set_array(ruv_gguf_writer *writer, const char *name, ruv_gguf_type type, const void *values, size_t n);
void ruv_gguf_set_str_array(ruv_gguf_writer *writer, const char *name, const ruv_gguf_str *values, size_t n);
/* One key of another file, byte for byte. */
void ruv_gguf_set_copy(ruv_gguf_writer *writer, const ruv_gguf_key *key);
bool ruv_gguf_writer_has_key(const ruv_gguf_writer *writer, const char *name);
void ruv_gguf_remove_key(ruv_gguf_writer *writer, const char *name);

/* ---- tensors ---- */

/* name: 1..63 bytes, unique. n_dims 1..4, every ne > 0, ne[0] a multiple of the dtype's block. */
void ruv_gguf_add_tensor(ruv_gguf_writer *writer, const char *name, ruv_dtype dtype, int n_dims, const int64_t *ne);

/* Opens the file and writes everything before the data; RUV_EINVAL with the first failure of a setter. */
int ruv_gguf_writer_begin(ruv_gguf_writer *writer, const char *path, ruv_error *err);
/* The next bytes of the current tensor: any number of calls; a call never crosses a tensor's end. Padding is ours. */
int ruv_gguf_writer_data(ruv_gguf_writer *writer, const void *bytes, size_t n_bytes, ruv_error *err);
/* All data is there: flushes, renames. RUV_EINVAL when bytes are missing (it names the tensor). */
int ruv_gguf_writer_finish(ruv_gguf_writer *writer, ruv_error *err);

/* Bytes of the finished file, known after begin. */
uint64_t ruv_gguf_writer_file_bytes(const ruv_gguf_writer *writer);

#endif

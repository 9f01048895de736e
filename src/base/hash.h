/* hash.h - XXH3 for tables and checks of our own files, SHA-256 for files that travel. Layer: base. */
#ifndef RUV_BASE_HASH_H
#define RUV_BASE_HASH_H

#include "ruvllm/types.h"

/* 64-bit XXH3 of bytes[0..n_bytes) with `seed`. */
uint64_t ruv_hash64(const void *bytes, size_t n_bytes, uint64_t seed);

/* The SHA-256 of a file's bytes as 64 lower-case hex digits and a NUL. */
int ruv_hash_file_sha256(char hex[65], const char *path, ruv_error *err);
/* The same of memory. */
int ruv_hash_sha256(char hex[65], const void *bytes, size_t n_bytes, ruv_error *err);

#endif

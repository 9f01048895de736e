/* section_file.h - the container of files that learning makes: named sections behind a header, the whole checksummed.
 *
 * Little-endian:
 *     0   8  kind, "RUVROUTE", "RUVAGENT", "RUVTEXTC"
 *     8   4  format version
 *    12   4  number of sections, at most RUV_SECTION_MAX
 *    16   8  XXH3 of every byte from 24 on
 *    24      per section: 8 bytes of name, 8 bytes offset from the file's start, 8 bytes size
 *            the sections, each at a multiple of 64
 * Threads: a file belongs to one thread. Layer: learn. */
#ifndef RUV_LEARN_SECTION_FILE_H
#define RUV_LEARN_SECTION_FILE_H

#include "base/buf.h"
#include "ruvllm/types.h"

enum { RUV_SECTION_MAX = 32 };

/* Sections as they are collected for writing: append to `data`, then ruv_section_end. */
typedef struct ruv_section_writer {
	ruv_buf data; /* of all sections, padded */
	struct {
		char name[8];
		size_t begin, size;
	} sections[RUV_SECTION_MAX];
	int n;
} ruv_section_writer;

void ruv_section_writer_init(ruv_section_writer *writer);
void ruv_section_writer_release(ruv_section_writer *writer);
/* Starts a section; bytes appended to writer->data until the next begin or the commit are its content. Name: at most 8 characters.
 */
int ruv_section_begin(ruv_section_writer *writer, const char *name, ruv_error *err);
/* A whole section at once. */
int ruv_section_put(ruv_section_writer *writer, const char *name, const void *bytes, size_t n_bytes, ruv_error *err);
/* The finished file as bytes (free()), or written to `path` whole or not at all. */
int ruv_section_pack(ruv_section_writer *writer, const char kind[8], uint32_t version, char **bytes, size_t *n_bytes,
                     ruv_error *err);
int ruv_section_commit(ruv_section_writer *writer, const char kind[8], uint32_t version, const char *path, ruv_error *err);

typedef struct ruv_section_file {
	char *bytes; /* owned, aligned as malloc does */
	size_t n_bytes;
	uint32_t version;
	int n;
} ruv_section_file;

/* Reads and checks a file of that kind. RUV_ENOTFOUND, RUV_EFORMAT (another kind), RUV_EUNSUPPORTED (newer than max_version),
 * RUV_ECORRUPT (cut off, or the checksum differs). */
int ruv_section_open(ruv_section_file *file, const char *path, const char kind[8], uint32_t max_version, ruv_error *err);
/* The same of bytes that are copied; `name` stands for them in errors. */
int ruv_section_parse(ruv_section_file *file, const void *bytes, size_t n_bytes, const char *name, const char kind[8],
                      uint32_t max_version, ruv_error *err);
void ruv_section_release(ruv_section_file *file);
/* A section's bytes, NULL when there is none; valid until release. */
const void *ruv_section_find(const ruv_section_file *file, const char *name, size_t *n_bytes);
/* As find, but it must be there and have exactly n_bytes: RUV_EFORMAT names it. */
int ruv_section_need(const ruv_section_file *file, const char *name, size_t n_bytes, const void **bytes, ruv_error *err);

#endif

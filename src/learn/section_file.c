/* section_file.c - see section_file.h. Layer: learn. */
#include "learn/section_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

enum { HEAD_BYTES = 24, ENTRY_BYTES = 24, ALIGN = 64 };
static const size_t MAX_FILE_BYTES = (size_t)1 << 30;

static void put_u32(unsigned char *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static void put_u64(unsigned char *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static uint32_t get_u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_u64(const unsigned char *p)
{
	return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

void ruv_section_writer_init(ruv_section_writer *writer)
{
	memset(writer, 0, sizeof *writer);
	ruv_buf_init(&writer->data, MAX_FILE_BYTES);
}

void ruv_section_writer_release(ruv_section_writer *writer)
{
	ruv_buf_release(&writer->data);
}

static void end_section(ruv_section_writer *writer)
{
	if (writer->n)
		writer->sections[writer->n - 1].size = writer->data.len - writer->sections[writer->n - 1].begin;
}

int ruv_section_begin(ruv_section_writer *writer, const char *name, ruv_error *err)
{
	size_t n = strlen(name);

	if (writer->n == RUV_SECTION_MAX || n > 8)
		return ruv_fail(err, RUV_ELIMIT, "section", "section '%s': at most %d sections with names of 8 bytes", name,
		                RUV_SECTION_MAX);
	end_section(writer);
	while (writer->data.len % ALIGN && !writer->data.failed)
		ruv_buf_putc(&writer->data, 0);
	memset(writer->sections[writer->n].name, 0, 8);
	memcpy(writer->sections[writer->n].name, name, n);
	writer->sections[writer->n++].begin = writer->data.len;
	return writer->data.failed ? ruv_fail(err, writer->data.failed, "section", "section '%s' cannot be stored", name) : RUV_OK;
}

int ruv_section_put(ruv_section_writer *writer, const char *name, const void *bytes, size_t n_bytes, ruv_error *err)
{
	int rc = ruv_section_begin(writer, name, err);

	if (!rc && n_bytes && ruv_buf_append(&writer->data, bytes, n_bytes))
		rc = ruv_fail(err, writer->data.failed, "section", "section '%s' of %zu bytes cannot be stored", name, n_bytes);
	return rc;
}

int ruv_section_pack(ruv_section_writer *writer, const char kind[8], uint32_t version, char **bytes, size_t *n_bytes,
                     ruv_error *err)
{
	size_t head = HEAD_BYTES + (size_t)writer->n * ENTRY_BYTES;
	size_t base = (head + ALIGN - 1) / ALIGN * ALIGN, total = base + writer->data.len;
	unsigned char *out;

	end_section(writer);
	if (writer->data.failed)
		return ruv_fail(err, writer->data.failed, "section", "the sections are too large or memory is out");
	out = calloc(1, total);
	if (!out)
		return ruv_fail_memory(err, "section", total);
	memcpy(out, kind, 8);
	put_u32(out + 8, version);
	put_u32(out + 12, (uint32_t)writer->n);
	for (int i = 0; i < writer->n; i++) {
		unsigned char *entry = out + HEAD_BYTES + i * ENTRY_BYTES;

		memcpy(entry, writer->sections[i].name, 8);
		put_u64(entry + 8, base + writer->sections[i].begin);
		put_u64(entry + 16, writer->sections[i].size);
	}
	if (writer->data.len)
		memcpy(out + base, writer->data.data, writer->data.len);
	put_u64(out + 16, ruv_hash64(out + HEAD_BYTES, total - HEAD_BYTES, 0));
	*bytes = (char *)out;
	*n_bytes = total;
	return RUV_OK;
}

int ruv_section_commit(ruv_section_writer *writer, const char kind[8], uint32_t version, const char *path, ruv_error *err)
{
	char *bytes;
	size_t n_bytes;
	int rc = ruv_section_pack(writer, kind, version, &bytes, &n_bytes, err);

	if (rc)
		return rc;
	rc = ruv_file_write(path, bytes, n_bytes, err);
	free(bytes);
	return rc;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static int check(ruv_section_file *file, const char *name, const char kind[8], uint32_t max_version, ruv_error *err)
{
	const unsigned char *p = (const unsigned char *)file->bytes;

	if (file->n_bytes < HEAD_BYTES || memcmp(p, kind, 8))
		return ruv_fail(err, RUV_EFORMAT, "section", "%s is no file of kind %.8s", name, kind);
	file->version = get_u32(p + 8);
	file->n = (int)get_u32(p + 12);
	if (file->version > max_version || !file->version)
		return ruv_fail(err, RUV_EUNSUPPORTED, "section", "%s has format version %u, this program reads up to %u", name,
		                file->version, max_version);
	if (file->n < 0 || file->n > RUV_SECTION_MAX || file->n_bytes < HEAD_BYTES + (size_t)file->n * ENTRY_BYTES ||
	    get_u64(p + 16) != ruv_hash64(p + HEAD_BYTES, file->n_bytes - HEAD_BYTES, 0))
		return ruv_fail(err, RUV_ECORRUPT, "section", "%s is damaged: its checksum does not fit its bytes", name);
	for (int i = 0; i < file->n; i++) {
		uint64_t begin = get_u64(p + HEAD_BYTES + i * ENTRY_BYTES + 8),
			 size = get_u64(p + HEAD_BYTES + i * ENTRY_BYTES + 16);

		if (begin > file->n_bytes || size > file->n_bytes - begin || begin % ALIGN)
			return ruv_fail(err, RUV_ECORRUPT, "section", "%s: section %d lies outside the file", name, i);
	}
	return RUV_OK;
}

int ruv_section_open(ruv_section_file *file, const char *path, const char kind[8], uint32_t max_version, ruv_error *err)
{
	int rc;

	memset(file, 0, sizeof *file);
	rc = ruv_file_read(&file->bytes, &file->n_bytes, path, MAX_FILE_BYTES, err);
	if (!rc)
		rc = check(file, path, kind, max_version, err);
	if (rc)
		ruv_section_release(file);
	return rc;
}

int ruv_section_parse(ruv_section_file *file, const void *bytes, size_t n_bytes, const char *name, const char kind[8],
                      uint32_t max_version, ruv_error *err)
{
	int rc;

	memset(file, 0, sizeof *file);
	file->bytes = malloc(n_bytes ? n_bytes : 1);
	if (!file->bytes)
		return ruv_fail_memory(err, "section", n_bytes);
	memcpy(file->bytes, bytes, n_bytes);
	file->n_bytes = n_bytes;
	rc = check(file, name, kind, max_version, err);
	if (rc)
		ruv_section_release(file);
	return rc;
}

void ruv_section_release(ruv_section_file *file)
{
	free(file->bytes);
	memset(file, 0, sizeof *file);
}

const void *ruv_section_find(const ruv_section_file *file, const char *name, size_t *n_bytes)
{
	char key[8] = {0};

	memcpy(key, name, strlen(name) > 8 ? 8 : strlen(name));
	for (int i = 0; i < file->n; i++) {
		const unsigned char *entry = (const unsigned char *)file->bytes + HEAD_BYTES + i * ENTRY_BYTES;

		if (!memcmp(entry, key, 8)) {
			*n_bytes = (size_t)get_u64(entry + 16);
			return file->bytes + get_u64(entry + 8);
		}
	}
	*n_bytes = 0;
	return NULL;
}

int ruv_section_need(const ruv_section_file *file, const char *name, size_t n_bytes, const void **bytes, ruv_error *err)
{
	size_t size;

	*bytes = ruv_section_find(file, name, &size);
	if (!*bytes)
		return ruv_fail(err, RUV_EFORMAT, "section", "section '%s' is missing", name);
	if (size != n_bytes)
		return ruv_fail(err, RUV_EFORMAT, "section", "section '%s' has %zu bytes, %zu are expected", name, size, n_bytes);
	return RUV_OK;
}

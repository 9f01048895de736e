/* file.h - files: read-only maps, whole reads, and writes that are there completely or not at all.
 *
 * ruv_outfile writes to a temporary name in the target's own directory; commit flushes it to the disk (fsync), renames it over
 * the target and flushes the directory. An interrupted writer leaves the old target as it was and at most a file
 * "NAME.tmp-XXXXXX" that release removes. Layer: base. */
#ifndef RUV_BASE_FILE_H
#define RUV_BASE_FILE_H

#include <stdio.h>

#include "ruvllm/types.h"

typedef struct ruv_map {
	const unsigned char *data; /* [size], NULL when size is 0 */
	size_t size;
} ruv_map;

/* Maps a regular file read-only (private). RUV_ENOTFOUND, RUV_EIO; directories and devices are RUV_EINVAL. */
int ruv_map_open(ruv_map *map, const char *path, ruv_error *err);
void ruv_map_release(ruv_map *map);

/* Reads a whole file of at most max_bytes; *data is NUL-terminated and freed by the caller. RUV_ELIMIT when larger. */
int ruv_file_read(char **data, size_t *size, const char *path, size_t max_bytes, ruv_error *err);

typedef struct ruv_outfile {
	FILE *stream; /* write here; check commit's status, not each write's */
	char *path, *temp_path;
	bool unnamed; /* temp_path is where commit links it, not where it is */
} ruv_outfile;

/* RUV_EINVAL when `path` is there and no regular file (a device, a directory): it is not replaced. */
int ruv_outfile_open(ruv_outfile *out, const char *path, ruv_error *err);
/* The same for long writes: the file has no name at all until commit, so that even a killed writer leaves nothing (O_TMPFILE).
 * Where the file system cannot do that, it is ruv_outfile_open. */
int ruv_outfile_open_unnamed(ruv_outfile *out, const char *path, ruv_error *err);
/* Makes the file appear under its name, or fails and leaves what was there. */
int ruv_outfile_commit(ruv_outfile *out, ruv_error *err);
/* Frees it; an uncommitted file disappears. Safe after commit and on a zeroed struct. */
void ruv_outfile_release(ruv_outfile *out);

/* Writes the bytes through a ruv_outfile. */
int ruv_file_write(const char *path, const void *bytes, size_t n_bytes, ruv_error *err);

/* Renames a finished file, whose bytes are on the disk, over `path` in the same directory, and makes the name last. */
int ruv_file_replace(const char *from, const char *path, ruv_error *err);

/* Creates a directory and its parents (mode 0700 for what is new); fine when it is there. */
int ruv_dir_create(const char *path, ruv_error *err);
/* Makes a directory of its own, "ruvllm-NAME-" and six random letters, in TMPDIR or /tmp; its path goes to path[0..cap). */
int ruv_dir_create_temporary(char *path, size_t cap, const char *name, ruv_error *err);
/* Removes a directory with all that is in it; links are removed, not followed. RUV_EIO names what could not be. */
int ruv_dir_remove(const char *path, ruv_error *err);

#endif

/* file.c - maps, whole reads and atomic writes; see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

static int open_regular(int *fd_out, struct stat *st, const char *path, ruv_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return ruv_fail_errno(err, errno == ENOENT ? RUV_ENOTFOUND : RUV_EIO, errno, "file", "cannot open '%s'", path);
	if (fstat(fd, st)) {
		int saved = errno;
		close(fd);
		return ruv_fail_errno(err, RUV_EIO, saved, "file", "cannot stat '%s'", path);
	}
	if (!S_ISREG(st->st_mode)) {
		close(fd);
		return ruv_fail(err, RUV_EINVAL, "file", "'%s' is not a regular file", path);
	}
	*fd_out = fd;
	return RUV_OK;
}

int ruv_map_open(ruv_map *map, const char *path, ruv_error *err)
{
	struct stat st;
	int fd = -1, rc;

	memset(map, 0, sizeof *map);
	rc = open_regular(&fd, &st, path, err);
	if (rc)
		return rc;
	if (st.st_size > 0) {
		void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED)
			rc = ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot map '%s'", path);
		else
			*map = (ruv_map){p, (size_t)st.st_size};
	}
	close(fd);
	return rc;
}

void ruv_map_release(ruv_map *map)
{
	if (map->data)
		munmap((void *)(uintptr_t)map->data, map->size);
	memset(map, 0, sizeof *map);
}

int ruv_file_read(char **data, size_t *size, const char *path, size_t max_bytes, ruv_error *err)
{
	struct stat st;
	char *bytes = NULL;
	size_t n = 0;
	int fd = -1, rc;

	rc = open_regular(&fd, &st, path, err);
	if (rc)
		return rc;
	if ((uintmax_t)st.st_size > max_bytes) {
		rc = ruv_fail(err, RUV_ELIMIT, "file", "'%s' has %jd bytes, at most %zu are read", path, (intmax_t)st.st_size,
		              max_bytes);
		goto done;
	}
	bytes = malloc((size_t)st.st_size + 1);
	if (!bytes) {
		rc = ruv_fail_memory(err, "file", (size_t)st.st_size + 1);
		goto done;
	}
	while (n < (size_t)st.st_size) {
		ssize_t got = read(fd, bytes + n, (size_t)st.st_size - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			rc = ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot read '%s'", path);
			goto done;
		}
		if (got == 0)
			break; /* it shrank under us: what is there is what counts */
		n += (size_t)got;
	}
	bytes[n] = '\0';
	*data = bytes;
	*size = n;
	bytes = NULL;
done:
	free(bytes);
	close(fd);
	return rc;
}

/* Renaming over a device or a pipe would replace it by a file. */
static int check_target(const char *path, ruv_error *err)
{
	struct stat st;

	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return ruv_fail(err, RUV_EINVAL, "file", "'%s' is there and not a regular file; it is not replaced", path);
	return RUV_OK;
}

int ruv_outfile_open(ruv_outfile *out, const char *path, ruv_error *err)
{
	size_t n = strlen(path);
	int fd, rc = check_target(path, err);

	memset(out, 0, sizeof *out);
	if (rc)
		return rc;
	out->path = strdup(path);
	out->temp_path = malloc(n + sizeof ".tmp-XXXXXX");
	if (!out->path || !out->temp_path) {
		rc = ruv_fail_memory(err, "file", n);
		goto failed;
	}
	memcpy(out->temp_path, path, n);
	memcpy(out->temp_path + n, ".tmp-XXXXXX", sizeof ".tmp-XXXXXX");
	fd = mkstemp(out->temp_path);
	if (fd < 0) {
		rc = ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot create a temporary file beside '%s'", path);
		free(out->temp_path); /* nothing to unlink */
		out->temp_path = NULL;
		goto failed;
	}
	fchmod(fd, 0644);
	out->stream = fdopen(fd, "wb");
	if (!out->stream) {
		close(fd);
		rc = ruv_fail_memory(err, "file", sizeof(FILE));
		goto failed;
	}
	return RUV_OK;
failed:
	ruv_outfile_release(out);
	return rc;
}

static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

int ruv_outfile_open_unnamed(ruv_outfile *out, const char *path, ruv_error *err)
{
	size_t n = strlen(path);
	char *dir;
	int fd = -1, rc = check_target(path, err);

	memset(out, 0, sizeof *out);
	if (rc)
		return rc;
	dir = directory_of(path);
	if (dir && !access("/proc/self/fd", X_OK)) /* the way to give it a name later */
		fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);

	free(dir);
	if (fd < 0)
		return ruv_outfile_open(out, path, err); /* it also says what is wrong with the directory */
	out->unnamed = true;
	out->path = strdup(path);
	out->temp_path = malloc(n + sizeof ".tmp-4294967295");
	out->stream = fdopen(fd, "wb");
	if (!out->stream)
		close(fd);
	if (!out->path || !out->temp_path || !out->stream) {
		ruv_outfile_release(out);
		return ruv_fail_memory(err, "file", n);
	}
	snprintf(out->temp_path, n + sizeof ".tmp-4294967295", "%s.tmp-%u", path, (unsigned)getpid());
	return RUV_OK;
}

/* Gives an unnamed file its temporary name, which rename then replaces the target with. */
static int name_it(ruv_outfile *out)
{
	char link_path[64];
	snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fileno(out->stream));
	unlink(out->temp_path); /* of a process that had our id and died within these lines */
	if (linkat(AT_FDCWD, link_path, AT_FDCWD, out->temp_path, AT_SYMLINK_FOLLOW))
		return -1;
	out->unnamed = false;
	return 0;
}

static int flush_directory(const char *path)
{
	char *dir = directory_of(path);
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

int ruv_file_replace(const char *from, const char *path, ruv_error *err)
{
	if (rename(from, path))
		return ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot rename '%s' to '%s'", from, path);
	if (flush_directory(path))
		return ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot flush the directory of '%s'", path);
	return RUV_OK;
}

int ruv_outfile_commit(ruv_outfile *out, ruv_error *err)
{
	int bad = fflush(out->stream) | ferror(out->stream);
	int saved = errno;
	if (!bad && fsync(fileno(out->stream))) {
		bad = 1;
		saved = errno;
	}
	if (!bad && out->unnamed && name_it(out)) {
		bad = 1;
		saved = errno;
	}
	if (fclose(out->stream) && !bad) {
		bad = 1;
		saved = errno;
	}
	out->stream = NULL;
	if (bad)
		return ruv_fail_errno(err, RUV_EIO, saved, "file", "cannot write '%s'", out->path);
	int rc = ruv_file_replace(out->temp_path, out->path, err);
	if (rc)
		return rc;
	free(out->temp_path);
	out->temp_path = NULL;
	return RUV_OK;
}

void ruv_outfile_release(ruv_outfile *out)
{
	if (out->stream)
		fclose(out->stream);
	if (out->temp_path && !out->unnamed)
		unlink(out->temp_path);
	free(out->temp_path);
	free(out->path);
	memset(out, 0, sizeof *out);
}

int ruv_file_write(const char *path, const void *bytes, size_t n_bytes, ruv_error *err)
{
	ruv_outfile out;
	int rc = ruv_outfile_open(&out, path, err);
	if (rc)
		return rc;
	fwrite(bytes, 1, n_bytes, out.stream); /* a short write shows in commit */
	rc = ruv_outfile_commit(&out, err);
	ruv_outfile_release(&out);
	return rc;
}

int ruv_dir_create(const char *path, ruv_error *err)
{
	char *copy = strdup(path);
	int rc = RUV_OK;

	if (!copy)
		return ruv_fail_memory(err, "file", strlen(path));
	for (char *p = copy + 1; rc == RUV_OK; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		char c = *p;
		*p = '\0';
		if (mkdir(copy, 0700) && errno != EEXIST)
			rc = ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot create directory '%s'", copy);
		*p = c;
		if (c == '\0')
			break;
	}
	free(copy);
	return rc;
}

int ruv_dir_create_temporary(char *path, size_t cap, const char *name, ruv_error *err)
{
	const char *base = getenv("TMPDIR");

	base = base && *base ? base : "/tmp";
	if (snprintf(path, cap, "%s/ruvllm-%s-XXXXXX", base, name) >= (int)cap) {
		*path = '\0';
		return ruv_fail(err, RUV_ELIMIT, "file", "the path of a temporary directory in '%s' is longer than %zu bytes", base,
		                cap - 1);
	}
	if (!mkdtemp(path)) {
		*path = '\0';
		return ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot make a temporary directory in '%s'", base);
	}
	return RUV_OK;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

int ruv_dir_remove(const char *path, ruv_error *err)
{
	if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
		return ruv_fail_errno(err, RUV_EIO, errno, "file", "cannot remove '%s'", path);
	return RUV_OK;
}

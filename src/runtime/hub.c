/* hub.c - see hub.h. */
#include "runtime/hub.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

#define WHERE "hub"

enum { MAX_PAGES = 100, MAX_LIST_BYTES = 32 << 20, MAX_WAIT_S = 60 };

/* ---- what a status means ----------------------------------------------------------------------------------------------- */

/* RUV_OK for 2xx. `what` is named in the message. */
static int check_status(const ruv_http_reply *reply, const char *what, bool with_token, ruv_error *err)
{
	const char *said = ruv_http_reply_header(reply, "x-error-message");
	const char *before = said ? ": " : "";
	int status = reply->status;

	said = said ? said : "";
	if (status >= 200 && status < 300)
		return RUV_OK;
	if (status == 401 || status == 403)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%.160s: the server says %d%s%.120s; it is private, gated or not there; %s",
		                what, status, before, said,
		                with_token ? "the token in HF_TOKEN is not allowed to read it"
		                           : "set HF_TOKEN to a token that may read it");
	if (status == 404 || status == 410)
		return ruv_fail(err, RUV_ENOTFOUND, WHERE, "%.200s is not there (the server says %d%s%.150s)", what, status, before,
		                said);
	if (status == 408 || status == 429 || status >= 500)
		return ruv_fail(err, RUV_EBUSY, WHERE, "%.200s: the server says %d%s%.150s", what, status, before, said);
	return ruv_fail(err, RUV_EIO, WHERE, "%.200s: the server says %d%s%.150s, which is not understood here", what, status,
	                before, said);
}

/* ---- addresses --------------------------------------------------------------------------------------------------------- */

static void put_encoded(ruv_buf *buf, const char *text, bool keep_slashes)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if ((*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z') || strchr("-._~", *p) ||
		    (keep_slashes && *p == '/'))
			ruv_buf_putc(buf, (char)*p);
		else
			ruv_buf_printf(buf, "%%%02X", *p);
}

static int n_hub(const char *hub) /* without slashes behind it */
{
	size_t n = strlen(hub);

	while (n && hub[n - 1] == '/')
		n--;
	return (int)n;
}

char *ruv_hub_file_url(const char *hub, const char *repo, const char *revision, const char *path)
{
	ruv_buf url;

	ruv_buf_init(&url, 8192);
	ruv_buf_printf(&url, "%.*s/%s/resolve/", n_hub(hub), hub, repo);
	put_encoded(&url, revision, false);
	ruv_buf_putc(&url, '/');
	put_encoded(&url, path, true);
	return ruv_buf_take(&url);
}

/* ---- lists ------------------------------------------------------------------------------------------------------------- */

void ruv_hub_files_free(ruv_hub_file *files, int n_files)
{
	for (int i = 0; i < n_files; i++)
		free(files[i].path);
	free(files);
}

static bool is_sha256(const char *text)
{
	return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* Appends the files of one page. */
static int read_page(ruv_hub_file **files, int *n_files, const char *text, size_t n_text, const char *what, ruv_error *err)
{
	json_error_t where;
	json_t *page = json_loadb(text, n_text, 0, &where), *entry;
	size_t i;
	int rc = RUV_OK;

	if (!json_is_array(page)) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%.200s: what came is no list of files; is the configured hub one?", what);
		goto done;
	}
	json_array_foreach(page, i, entry)
	{
		const char *type = json_string_value(json_object_get(entry, "type"));
		const char *path = json_string_value(json_object_get(entry, "path"));
		json_t *lfs = json_object_get(entry, "lfs");
		json_t *size = json_object_get(json_is_object(lfs) ? lfs : entry, "size");
		const char *oid = json_string_value(json_object_get(lfs, "oid"));

		if (!type || strcmp(type, "file") || !path || !ruv_hub_path_is_safe(path))
			continue;
		if (!json_is_integer(size) || json_integer_value(size) < 0) {
			rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%.200s: the list gives no size of %.100s", what, path);
			goto done;
		}
		ruv_hub_file *more = realloc(*files, ((size_t)*n_files + 1) * sizeof *more);
		char *copy = strdup(path);

		if (more)
			*files = more;
		if (!more || !copy) {
			free(copy);
			rc = ruv_fail_memory(err, WHERE, sizeof *more);
			goto done;
		}
		ruv_hub_file *file = &more[(*n_files)++];

		*file = (ruv_hub_file){.path = copy, .n_bytes = (uint64_t)json_integer_value(size)};
		if (is_sha256(oid))
			strcpy(file->sha256, oid);
	}
done:
	json_decref(page);
	return rc;
}

/* The address in `<...>; rel="next"`, NULL without one; free() it. */
static char *next_page(const ruv_http_reply *reply)
{
	const char *link = ruv_http_reply_header(reply, "link");
	const char *rel = link ? strstr(link, "rel=\"next\"") : NULL, *open = NULL;

	for (const char *p = link; rel && p < rel; p++)
		open = *p == '<' ? p : open;
	const char *close = open ? strchr(open, '>') : NULL;

	return close ? strndup(open + 1, (size_t)(close - open - 1)) : NULL;
}

int ruv_hub_list(ruv_hub_file **files, int *n_files, const char *hub, const char *token, const char *repo, const char *revision,
                 const ruv_cancel *cancel, ruv_error *err)
{
	ruv_http_client *client = NULL;
	ruv_buf body, address;
	char what[320], *url;
	int rc;

	*files = NULL;
	*n_files = 0;
	ruv_buf_init(&body, MAX_LIST_BYTES);
	ruv_buf_init(&address, 4096);
	ruv_buf_printf(&address, "%.*s/api/models/%s/tree/", n_hub(hub), hub, repo);
	put_encoded(&address, revision, false);
	ruv_buf_puts(&address, "?recursive=1");
	url = ruv_buf_take(&address);
	snprintf(what, sizeof what, "%s%s%s", repo, strcmp(revision, "main") ? " at " : "",
	         strcmp(revision, "main") ? revision : "");
	rc = url ? ruv_http_client_create(&client, err) : ruv_fail_memory(err, WHERE, 4096);
	for (int i = 0; !rc && url; i++) {
		ruv_http_request request = {.url = url, .token = token, .timeout_s = 120, .cancel = cancel};
		ruv_http_reply reply;

		ruv_buf_clear(&body);
		rc = ruv_http_fetch(client, &request, &reply, &body, err);
		if (!rc)
			rc = check_status(&reply, what, token && *token, err);
		if (!rc)
			rc = read_page(files, n_files, ruv_buf_cstr(&body), body.len, what, err);
		free(url);
		url = rc ? NULL : next_page(&reply);
		if (url && (strncmp(url, hub, (size_t)n_hub(hub)) || url[n_hub(hub)] != '/'))
			rc = ruv_fail(err, RUV_EIO, WHERE, "%s: the list goes on at another address, %.150s; it is not followed",
			              what, url);
		else if (url && i + 1 == MAX_PAGES)
			rc = ruv_fail(err, RUV_ELIMIT, WHERE, "%s: the list has more than %d pages", what, MAX_PAGES);
		ruv_http_reply_release(&reply);
	}
	free(url);
	ruv_http_client_free(client);
	ruv_buf_release(&body);
	if (rc) {
		ruv_hub_files_free(*files, *n_files);
		*files = NULL;
		*n_files = 0;
	}
	return rc;
}

/* ---- one file ---------------------------------------------------------------------------------------------------------- */

typedef struct fetch {
	const ruv_hub_download *d;
	char part[PATH_MAX], about[PATH_MAX]; /* the beginning, and the note on it */
	int fd;
	uint64_t n_done, n_bytes;
	char sha256[65], etag[300]; /* "" when not known */
	uint64_t n_kept;            /* of n_done, from an earlier try */
	bool locked;                /* the part is ours */
	bool whole;                 /* the server says that there is no more */
	int wait_s;                 /* that the server asked for */
} fetch;

static void note(const fetch *f, const char *fmt, ...) RUV_PRINTF(2, 3);
static void note(const fetch *f, const char *fmt, ...)
{
	char text[700];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (f->d->on_note)
		f->d->on_note(f->d->user, text);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Opens the part and locks it; one that was renamed away meanwhile is opened anew. */
static int open_part(fetch *f, ruv_error *err)
{
	for (int i = 0; i < 10; i++) {
		struct stat mine, named;

		f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (f->fd < 0)
			return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot write %s", f->part);
		if (flock(f->fd, LOCK_EX | LOCK_NB))
			return errno == EWOULDBLOCK
			           ? ruv_fail(err, RUV_EBUSY, WHERE, "%s is being fetched by another process", f->d->path)
			           : ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot lock %s", f->part);
		if (!fstat(f->fd, &mine) && !stat(f->part, &named) && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
			f->n_done = f->n_kept = (uint64_t)mine.st_size;
			f->locked = true;
			return RUV_OK;
		}
		close(f->fd);
		f->fd = -1;
	}
	return ruv_fail(err, RUV_EBUSY, WHERE, "%s is being fetched by another process", f->d->path);
}

static int start_over(fetch *f, ruv_error *err)
{
	if (ftruncate(f->fd, 0))
		return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot empty %s", f->part);
	f->n_done = f->n_kept = 0;
	return RUV_OK;
}

/* Of what is the part the beginning? Empties it unless it is that of the same file. */
static int read_about(fetch *f, ruv_error *err)
{
	char *text = NULL;
	size_t n;
	json_t *about = NULL;
	bool same = false;

	if (f->n_done && !ruv_file_read(&text, &n, f->about, 1 << 16, NULL))
		about = json_loadb(text, n, 0, NULL);
	if (about) {
		const char *url = json_string_value(json_object_get(about, "url"));
		const char *sha256 = json_string_value(json_object_get(about, "sha256"));
		const char *etag = json_string_value(json_object_get(about, "etag"));

		if (*f->sha256)
			same = sha256 && !strcmp(sha256, f->sha256);
		else if (url && etag && *etag && strncmp(etag, "W/", 2) && strlen(etag) < sizeof f->etag) {
			same = !strcmp(url, f->d->url);
			if (same)
				strcpy(f->etag, etag);
			if (same && is_sha256(sha256))
				strcpy(f->sha256, sha256);
		}
	}
	json_decref(about);
	free(text);
	if (!same || (f->n_bytes != UINT64_MAX && f->n_done > f->n_bytes))
		return start_over(f, err);
	return RUV_OK;
}

static int write_about(const fetch *f, ruv_error *err)
{
	json_t *about = json_pack("{s:s, s:s, s:s, s:o}", "url", f->d->url, "sha256", f->sha256, "etag", f->etag, "n_bytes",
	                          f->n_bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)f->n_bytes));
	char *text = about ? json_dumps(about, JSON_INDENT(2)) : NULL;
	int rc = text ? ruv_file_write(f->about, text, strlen(text), err) : ruv_fail_memory(err, WHERE, 1000);

	free(text);
	json_decref(about);
	return rc;
}

static int check_room(const fetch *f, ruv_error *err)
{
	char dir[PATH_MAX];
	struct statvfs disk;
	uint64_t need = (f->n_bytes == UINT64_MAX ? 0 : f->n_bytes - f->n_done) + f->d->n_more;

	snprintf(dir, sizeof dir, "%s", f->part);
	dir[base_name(dir) - dir] = 0;
	if (statvfs(*dir ? dir : ".", &disk))
		return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot tell how much room there is in %s", dir);
	uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;

	if (need <= room)
		return RUV_OK;
	return ruv_fail(err, RUV_ELIMIT, WHERE, "%s needs %.1f GiB more, but there is only %.1f GiB free in %.200s",
	                base_name(f->d->path), (double)need / (1 << 30), (double)room / (1 << 30), dir);
}

/* "bytes 100-199/200" or "bytes * /200"; what is not said is UINT64_MAX. */
static bool parse_range(const char *text, uint64_t *first, uint64_t *total)
{
	int n = 0;

	*first = *total = UINT64_MAX;
	if (!text || strncasecmp(text, "bytes ", 6))
		return false;
	text += 6;
	if (*text == '*')
		n = 1;
	else if (sscanf(text, "%" SCNu64 "-%*u%n", first, &n) < 1 || !n)
		return false;
	text += n;
	return *text == '/' && (text[1] == '*' || sscanf(text + 1, "%" SCNu64, total) == 1);
}

/* The head of the reply is there: does what follows belong at n_done? */
static int on_reply(void *user, const ruv_http_reply *reply, ruv_error *err)
{
	fetch *f = user;
	const char *etag = ruv_http_reply_header(reply, "etag"), *retry = ruv_http_reply_header(reply, "retry-after");
	const char *linked = reply->first_headers_etag;
	uint64_t first, total = UINT64_MAX;
	int rc;

	f->wait_s = retry && atoi(retry) > 0 ? atoi(retry) : 0;
	bool ranged = parse_range(ruv_http_reply_header(reply, "content-range"), &first, &total);

	if (reply->status == 416) { /* the part has all the bytes already, or more than there are */
		f->whole = ranged && total == f->n_done && (f->n_bytes == UINT64_MAX || f->n_bytes == total);
		if (f->whole)
			return RUV_OK;
		rc = start_over(f, err);
		return rc ? rc : ruv_fail(err, RUV_EBUSY, WHERE, "the server has fewer bytes than were fetched; it starts over");
	}
	rc = check_status(reply, f->d->url, f->d->token && *f->d->token, err);
	if (rc)
		return rc;
	if (reply->status == 206) {
		if (!ranged || first != f->n_done)
			return ruv_fail(err, RUV_EIO, WHERE, "%.200s: the server sends another range than was asked for",
			                f->d->url);
	} else {
		total = reply->n_bytes;
		if (f->n_done) {
			note(f, "the server starts at the beginning, so %s does too", base_name(f->d->path));
			rc = start_over(f, err);
			if (rc)
				return rc;
		}
	}
	if (total != UINT64_MAX && f->n_bytes != UINT64_MAX && total != f->n_bytes)
		return ruv_fail(err, RUV_EMISMATCH, WHERE, "%.200s: the server has %" PRIu64 " bytes, but the list says %" PRIu64,
		                f->d->url, total, f->n_bytes);
	if (f->n_bytes == UINT64_MAX)
		f->n_bytes = total;
	snprintf(f->etag, sizeof f->etag, "%s", etag && strlen(etag) < sizeof f->etag ? etag : "");
	if (!*f->sha256 && linked && *linked == '"' && strlen(linked) == 66) {
		char sum[65];

		snprintf(sum, sizeof sum, "%s", linked + 1);
		if (is_sha256(sum))
			strcpy(f->sha256, sum);
	}
	rc = check_room(f, err);
	return rc ? rc : write_about(f, err);
}

static int on_body(void *user, const void *bytes, size_t n_bytes, ruv_error *err)
{
	fetch *f = user;
	const char *p = bytes;

	if (f->whole)
		return RUV_OK; /* the text of a 416 */
	if (n_bytes > f->n_bytes - f->n_done)
		return ruv_fail(err, RUV_EMISMATCH, WHERE, "%.200s: the server sends more than the %" PRIu64 " bytes it announced",
		                f->d->url, f->n_bytes);
	while (n_bytes) {
		ssize_t n = pwrite(f->fd, p, n_bytes, (off_t)f->n_done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ruv_fail_errno(err, errno == ENOSPC || errno == EDQUOT ? RUV_ELIMIT : RUV_EIO, errno, WHERE,
			                      "cannot write %s", f->part);
		p += n;
		n_bytes -= (size_t)n;
		f->n_done += (uint64_t)n;
	}
	if (f->d->on_progress)
		f->d->on_progress(f->d->user, f->n_done, f->n_bytes);
	return RUV_OK;
}

static int wait_before_retry(const fetch *f, int seconds, ruv_error *err)
{
	for (int i = 0; i < seconds * 10; i++) {
		if (ruv_cancel_is_set(f->d->cancel))
			return ruv_fail(err, RUV_ECANCELLED, WHERE, "stopped while waiting for %.200s", f->d->url);
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	}
	return RUV_OK;
}

/* Requests until all bytes are there. */
static int fetch_bytes(fetch *f, ruv_error *err)
{
	ruv_http_client *client = NULL;
	int n_failures = 0, rc = ruv_http_client_create(&client, err);

	while (!rc && !f->whole && (f->n_bytes == UINT64_MAX || f->n_done < f->n_bytes)) {
		char range[64], condition[340];
		const char *headers[2] = {range, condition};
		ruv_http_request request = {.url = f->d->url,
		                            .token = f->d->token,
		                            .headers = headers,
		                            .cancel = f->d->cancel,
		                            .on_reply = on_reply,
		                            .on_body = on_body,
		                            .user = f};
		uint64_t before = f->n_done;
		ruv_http_reply reply;

		snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-", f->n_done);
		snprintf(condition, sizeof condition, "If-Range: %s", f->etag);
		/* With a sum a wrong beginning shows in the end; the tag is the last server's, which the next redirect may change.
		 */
		request.n_headers = !f->n_done ? 0 : *f->sha256 || !*f->etag ? 1 : 2;
		f->wait_s = 0;
		rc = ruv_http_send(client, &request, &reply, err);
		ruv_http_reply_release(&reply);
		if (!rc && f->n_bytes == UINT64_MAX)
			f->whole = true; /* no length was said: the end of the reply is the end of the file */
		else if (!rc && !f->whole && f->n_done < f->n_bytes)
			rc = ruv_fail(err, RUV_EBUSY, WHERE, "%.200s: the reply ends after %" PRIu64 " of %" PRIu64 " bytes",
			              f->d->url, f->n_done, f->n_bytes);
		if (rc != RUV_EBUSY)
			continue;
		n_failures = f->n_done > before ? 1 : n_failures + 1;
		if (n_failures > f->d->n_retries)
			break;
		int seconds = f->wait_s ? f->wait_s : 1 << (n_failures < 6 ? n_failures - 1 : 5);

		seconds = seconds < MAX_WAIT_S ? seconds : MAX_WAIT_S;
		note(f, "%s; trying again in %d s", err->message, seconds);
		rc = wait_before_retry(f, seconds, err);
	}
	ruv_http_client_free(client);
	return rc;
}

/* All bytes are there: are they the right ones? */
static int check_part(const fetch *f, ruv_hub_result *result, ruv_error *err)
{
	char magic[4] = "";
	int rc = RUV_OK;

	if (fsync(f->fd))
		return ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot bring %s to the disk", f->part);
	rc = ruv_hash_file_sha256(result->sha256, f->part, err);
	if (rc)
		return rc;
	result->checked = *f->sha256 != 0;
	if (result->checked && strcmp(result->sha256, f->sha256))
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE,
		              "%s: what came has the SHA-256 %.16s..., but it should be %.16s...; it was removed, fetch it again",
		              base_name(f->d->path), result->sha256, f->sha256);
	else if (pread(f->fd, magic, 4, 0) != 4 || memcmp(magic, "GGUF", 4))
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "%s: what came is no GGUF file; it was removed", base_name(f->d->path));
	if (rc) {
		unlink(f->part);
		unlink(f->about);
	}
	return rc;
}

int ruv_hub_fetch(const ruv_hub_download *download, ruv_hub_result *result, ruv_error *err)
{
	fetch f = {.d = download, .fd = -1, .n_bytes = download->n_bytes};
	struct stat there;
	char dir[PATH_MAX];
	int rc;

	memset(result, 0, sizeof *result);
	if (strlen(download->path) + 20 > sizeof f.part)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "the path of %.100s is too long", download->path);
	snprintf(f.part, sizeof f.part, "%s.part", download->path);
	snprintf(f.about, sizeof f.about, "%s.part.json", download->path);
	snprintf(dir, sizeof dir, "%s", download->path);
	dir[base_name(dir) - dir] = 0;
	if (download->sha256 && *download->sha256) {
		if (!is_sha256(download->sha256))
			return ruv_fail(err, RUV_EINVAL, WHERE, "'%.80s' is no SHA-256: 64 hex digits in small letters",
			                download->sha256);
		strcpy(f.sha256, download->sha256);
	}
	if (!stat(download->path, &there)) {
		if (!S_ISREG(there.st_mode))
			return ruv_fail(err, RUV_EINVAL, WHERE, "%s is there and no file", download->path);
		if (!*f.sha256 && !download->replace)
			return ruv_fail(err, RUV_EEXIST, WHERE,
			                "%s is there already, and there is no sum to compare it with; --force fetches it again",
			                download->path);
		if (*f.sha256 && (f.n_bytes == UINT64_MAX || (uint64_t)there.st_size == f.n_bytes)) {
			rc = ruv_hash_file_sha256(result->sha256, download->path, err);
			if (rc)
				return rc;
			if (!strcmp(result->sha256, f.sha256)) {
				result->present = result->checked = true;
				result->n_bytes = (uint64_t)there.st_size;
				return RUV_OK;
			}
		}
		result->replaced = true;
	}
	rc = ruv_dir_create(*dir ? dir : ".", err);
	if (!rc)
		rc = open_part(&f, err);
	if (!rc)
		rc = read_about(&f, err);
	if (!rc && f.n_kept)
		note(&f, "%s goes on after %.1f MiB that are there", base_name(download->path), (double)f.n_done / (1 << 20));
	if (!rc)
		rc = check_room(&f, err);
	if (!rc && download->on_progress)
		download->on_progress(download->user, f.n_done, f.n_bytes);
	if (!rc)
		rc = fetch_bytes(&f, err);
	if (!rc)
		rc = check_part(&f, result, err);
	if (!rc)
		rc = ruv_file_replace(f.part, download->path, err);
	if (!rc) {
		unlink(f.about);
		result->n_bytes = f.n_done;
		result->n_resumed = f.n_kept;
	} else if (f.locked && !f.n_done) { /* nothing to go on from: leave no litter */
		unlink(f.part);
		unlink(f.about);
	}
	if (f.fd >= 0)
		close(f.fd);
	return rc;
}

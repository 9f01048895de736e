/* hub.h - fetching model files over HTTPS: what a repository of a model hub has, and a file of it, resumable and checked.
 *
 * The hub speaks Hugging Face's API: GET HUB/api/models/USER/REPO/tree/REVISION?recursive=1 lists the files with their size and
 * SHA-256 (lfs.oid), HUB/USER/REPO/resolve/REVISION/FILE is a file. The token goes to the hub alone (http_client.h).
 *
 * A download is written to PATH.part, with PATH.part.json beside it that says of what it is the beginning:
 *     {"url": ..., "sha256": ..., "etag": ..., "n_bytes": ...}
 * It goes on where it stopped when the sum, or lacking one the address and the entity tag, is still the same (If-Range), and starts
 * over when the server ignores the range. PATH appears only when the file is whole, has the announced size and sum, and is on the
 * disk; what fails its sum is removed. Two downloads of one file keep out of each other's way (flock on the part).
 * Threads: one call a file. Layer: runtime. */
#ifndef RUV_RUNTIME_HUB_H
#define RUV_RUNTIME_HUB_H

#include "runtime/http_client.h"
#include "runtime/hub_name.h"

/* The files of a repository; *files is freed with ruv_hub_files_free. RUV_ENOTFOUND, RUV_EINVAL (not allowed), RUV_EFORMAT (no list
 * came), or as ruv_http_send. */
int ruv_hub_list(ruv_hub_file **files, int *n_files, const char *hub, const char *token, const char *repo, const char *revision,
                 const ruv_cancel *cancel, ruv_error *err);
void ruv_hub_files_free(ruv_hub_file *files, int n_files);

/* The address of a file; free() it, NULL when memory is out. */
char *ruv_hub_file_url(const char *hub, const char *repo, const char *revision, const char *path);

typedef struct ruv_hub_download {
	const char *url, *path;
	const char *token;  /* NULL: none */
	const char *sha256; /* 64 hex digits; NULL or "": not known */
	uint64_t n_bytes;   /* UINT64_MAX: not known */
	uint64_t n_more;    /* bytes that will be fetched after this file: there must be room for them too */
	int n_retries;      /* of a connection that failed or broke off, in a row without a byte of progress */
	bool replace;       /* a file that is there and cannot be compared; else that is RUV_EEXIST */
	const ruv_cancel *cancel;
	/* n_done of n_bytes (UINT64_MAX: not known) are there; NULL is fine. */
	void (*on_progress)(void *user, uint64_t n_done, uint64_t n_bytes);
	/* Something worth a line: it goes on from a part, starts over, or tries again. NULL is fine. */
	void (*on_note)(void *user, const char *text);
	void *user;
} ruv_hub_download;

typedef struct ruv_hub_result {
	bool present;       /* it was there already, with the right sum: nothing was fetched */
	bool replaced;      /* another file was there under that name */
	bool checked;       /* against a sum that hub or caller named */
	char sha256[65];    /* its own */
	uint64_t n_bytes;   /* of the file */
	uint64_t n_resumed; /* of them, from an earlier try */
} ruv_hub_result;

/* RUV_ELIMIT: no room on the disk; RUV_ECORRUPT: the wrong sum, or no GGUF file; RUV_EBUSY: somebody else is fetching it, or the
 * connection failed too often; RUV_ECANCELLED; both leave a part to go on from. RUV_EMISMATCH: the server has another size than the
 * list says. */
int ruv_hub_fetch(const ruv_hub_download *download, ruv_hub_result *result, ruv_error *err);

#endif

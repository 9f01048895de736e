/* find.c - a model by its name: a path, or a repository in the Hugging Face cache; see quantize.h.
 *
 * The cache: HUB/models--ORG--NAME/refs/main holds a commit, snapshots/COMMIT/ the files. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/status.h"
#include "format/quantize.h"

#define WHERE "find"

static bool is_directory(const char *path)
{
	struct stat sb;
	return !stat(path, &sb) && S_ISDIR(sb.st_mode);
}

/* "a/b" of two parts of harmless characters. */
static bool repository_name(const char *name)
{
	const char *slash = strchr(name, '/');
	if (!slash || slash == name || !slash[1] || strchr(slash + 1, '/') || strstr(name, "..") || strstr(name, "--"))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") == strlen(name);
}

/* The snapshot that refs/main names, else the newest. */
static bool find_snapshot(const char *repo, char *path, size_t cap)
{
	char *commit = NULL;
	size_t n;
	time_t newest = 0;
	bool found = false;

	snprintf(path, cap, "%.2000s/refs/main", repo);
	if (!ruv_file_read(&commit, &n, path, 4096, NULL)) {
		commit[strcspn(commit, "\r\n /")] = '\0';
		snprintf(path, cap, "%.2000s/snapshots/%.200s", repo, commit);
		free(commit);
		if (is_directory(path))
			return true;
	}
	char dir_path[PATH_MAX];
	snprintf(dir_path, sizeof dir_path, "%.2000s/snapshots", repo);
	DIR *dir = opendir(dir_path);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		char candidate[PATH_MAX + 300];
		struct stat sb;
		if (e->d_name[0] == '.')
			continue;
		snprintf(candidate, sizeof candidate, "%s/%s", dir_path, e->d_name);
		if (!stat(candidate, &sb) && S_ISDIR(sb.st_mode) && (!found || sb.st_mtime > newest) && strlen(candidate) < cap) {
			memcpy(path, candidate, strlen(candidate) + 1);
			newest = sb.st_mtime;
			found = true;
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

int ruv_model_find(char **out, const char *name, ruv_error *err)
{
	static const struct {
		const char *variable, *below;
	} hubs[] = {
	    {"HF_HUB_CACHE", ""}, {"HF_HOME", "/hub"}, {"XDG_CACHE_HOME", "/huggingface/hub"}, {"HOME", "/.cache/huggingface/hub"}};
	ruv_buf looked;
	char path[PATH_MAX] = "", repo[2001];
	struct stat sb;
	int rc = RUV_OK;

	ruv_buf_init(&looked, 1 << 16);
	if (!stat(name, &sb)) {
		snprintf(path, sizeof path, "%s", name);
	} else if (!repository_name(name)) {
		rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "there is no file or directory '%s'", name);
	} else {
		bool found = false;
		for (size_t i = 0; i < sizeof hubs / sizeof *hubs && !found; i++) {
			const char *base = getenv(hubs[i].variable), *slash = strchr(name, '/');
			if (!base || !*base)
				continue;
			snprintf(repo, sizeof repo, "%.1500s%s/models--%.*s--%.300s", base, hubs[i].below, (int)(slash - name),
			         name, slash + 1);
			found = find_snapshot(repo, path, sizeof path);
			ruv_buf_printf(&looked, "%s%s", looked.len ? ", " : "", repo);
		}
		if (!found)
			rc = ruv_fail(err, RUV_ENOTFOUND, WHERE,
			              "'%s' is no path here and not in the Hugging Face cache (looked at %s); nothing is "
			              "downloaded",
			              name, ruv_buf_cstr(&looked));
	}
	ruv_buf_release(&looked);
	if (rc)
		return rc;
	*out = strdup(path);
	return *out ? RUV_OK : ruv_fail_memory(err, WHERE, strlen(path) + 1);
}

/* hub_name.c - see hub_name.h. */
#include "runtime/hub_name.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/status.h"
#include "format/gguf.h"

#define WHERE "hub"

enum { MAX_LOCAL_FILES = 4096, MAX_DEPTH = 4 };

static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcasecmp(text + n - m, end);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- what the user writes ---------------------------------------------------------------------------------------------- */

static bool is_repo(const char *text)
{
	const char *slash = strchr(text, '/');

	return slash && slash != text && slash[1] && !strchr(slash + 1, '/') && text[0] != '.' && slash[1] != '.' &&
	       !strstr(text, "..") && strspn(text, name_characters) == (size_t)(slash - text) &&
	       strspn(slash + 1, name_characters) == strlen(slash + 1);
}

bool ruv_hub_path_is_safe(const char *path)
{
	if (!*path || strlen(path) > 200)
		return false;
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f || *p == '\\' ||
		    ((p == path || p[-1] == '/') && (*p == '.' || *p == '/')))
			return false;
	return path[strlen(path) - 1] != '/';
}

/* "%20" and its like, in place; false when it is none or a NUL. */
static bool decode_percent(char *text)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		if (*p != '%') {
			*to++ = *p;
			continue;
		}
		char digits[3] = {p[1], p[1] ? p[2] : 0, 0};

		if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]) || !strcmp(digits, "00"))
			return false;
		*to++ = (char)strtol(digits, NULL, 16);
		p += 2;
	}
	*to = 0;
	return true;
}

/* HUB/user/repo/resolve/REVISION/path (or blob/ as the browser shows it). */
static bool parse_hub_address(ruv_hub_name *name, const char *rest)
{
	char text[2049], *parts[5];

	snprintf(text, sizeof text, "%s", rest);
	text[strcspn(text, "?#")] = 0;
	char *p = text;

	for (int i = 0; i < 4; i++) {
		parts[i] = p;
		p = strchr(p, '/');
		if (!p)
			return false;
		*p++ = 0;
	}
	parts[4] = p;
	if (strcmp(parts[2], "resolve") && strcmp(parts[2], "blob"))
		return false;
	if (!decode_percent(parts[4]) || strlen(parts[4]) >= sizeof name->want || strlen(parts[3]) >= sizeof name->revision ||
	    strlen(parts[0]) + strlen(parts[1]) + 1 >= sizeof name->repo)
		return false;
	snprintf(name->repo, sizeof name->repo, "%.99s/%.99s", parts[0], parts[1]);
	snprintf(name->revision, sizeof name->revision, "%s", parts[3]);
	snprintf(name->want, sizeof name->want, "%s", parts[4]);
	return is_repo(name->repo) && ruv_hub_path_is_safe(name->want);
}

int ruv_hub_name_parse(ruv_hub_name *name, const char *text, const char *hub, ruv_error *err)
{
	size_t n_hub = strlen(hub);
	const char *colon;

	memset(name, 0, sizeof *name);
	strcpy(name->revision, "main");
	if (!strncasecmp(text, "https://", 8) || !strncasecmp(text, "http://", 7)) {
		if (strlen(text) >= sizeof name->url)
			return ruv_fail(err, RUV_EINVAL, WHERE, "the address has more than %zu bytes", sizeof name->url - 1);
		while (n_hub && hub[n_hub - 1] == '/')
			n_hub--;
		if (!strncasecmp(text, hub, n_hub) && text[n_hub] == '/' && parse_hub_address(name, text + n_hub + 1))
			return RUV_OK;
		memset(name->repo, 0, sizeof name->repo);
		name->want[0] = 0;
		snprintf(name->url, sizeof name->url, "%s", text);
		name->url[strcspn(name->url, "#")] = 0;
		char path[sizeof name->url];

		snprintf(path, sizeof path, "%s", name->url);
		path[strcspn(path, "?")] = 0;
		if (!ends_with(path, ".gguf"))
			return ruv_fail(err, RUV_EINVAL, WHERE, "'%.200s' is no address of a .gguf file", text);
		if (!decode_percent(path) || !ruv_hub_path_is_safe(base_name(path)))
			return ruv_fail(err, RUV_EINVAL, WHERE, "'%.200s' has no file name that could be used here", text);
		snprintf(name->want, sizeof name->want, "%.200s", base_name(path));
		return RUV_OK;
	}
	if (!strncmp(text, "hf.co/", 6))
		text += 6;
	colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);

	if (n >= sizeof name->repo || (colon && strlen(colon + 1) >= sizeof name->want))
		return ruv_fail(err, RUV_EINVAL, WHERE, "the name '%.60s...' is too long", text);
	snprintf(name->repo, sizeof name->repo, "%.*s", (int)n, text);
	snprintf(name->want, sizeof name->want, "%s", colon ? colon + 1 : "");
	if (!is_repo(name->repo) || (colon && !ruv_hub_path_is_safe(name->want)))
		return ruv_fail(err, RUV_EINVAL, WHERE,
		                "'%.200s' is no model: write user/repo, user/repo:TYPE (Q4_K_M), user/repo:FILE.gguf, or an https "
		                "address of a .gguf file",
		                text);
	return RUV_OK;
}

/* ---- types in names ---------------------------------------------------------------------------------------------------- */

/* Is text[0..n), in capitals, the name of a type? Q4_K_M, IQ3_XXS, F16, BF16, TQ1_0, MXFP4, MIXED. */
static bool is_quant(const char *text, size_t n)
{
	static const char *const whole[] = {"F16", "F32", "BF16", "FP16", "FP32", "MIXED", "MXFP4"};
	size_t i = 0;

	for (size_t w = 0; w < sizeof whole / sizeof *whole; w++)
		if (strlen(whole[w]) == n && !memcmp(text, whole[w], n))
			return true;
	if (n && (text[0] == 'I' || text[0] == 'T'))
		i++;
	if (i + 1 >= n || text[i] != 'Q' || !isdigit((unsigned char)text[i + 1]))
		return false;
	for (i += 2; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && text[i] != '_')
			return false;
	return true;
}

void ruv_hub_quant_of(const char *path, char quant[24])
{
	char stem[512];
	size_t n;
	int no, count;

	snprintf(stem, sizeof stem, "%s", base_name(path));
	if (ruv_gguf_split_name(stem, &n, &no, &count))
		stem[n] = 0;
	else if (ends_with(stem, ".gguf"))
		stem[strlen(stem) - 5] = 0;
	for (char *p = stem; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	*quant = 0;
	for (const char *p = stem; *p;) { /* words between - and . and the last that is a type */
		n = strcspn(p, "-.");
		if (is_quant(p, n) && n < 24)
			snprintf(quant, 24, "%.*s", (int)n, p);
		p += n + (p[n] != 0);
	}
}

/* ---- variants ---------------------------------------------------------------------------------------------------------- */

static bool is_model_file(const char *path)
{
	const char *base = base_name(path);

	return ends_with(base, ".gguf") && strncasecmp(base, "mmproj", 6) && !strcasestr(base, "-mmproj") &&
	       !strcasestr(base, "imatrix") && !strcasestr(base, "-vocab.");
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const ruv_hub_file *)a)->path, ((const ruv_hub_file *)b)->path);
}

int ruv_hub_group(ruv_hub_file *files, int n_files, ruv_hub_variant *variants, int cap)
{
	int n = 0;

	if (n_files) /* else there may be no array */
		qsort(files, (size_t)n_files, sizeof *files, by_path);
	for (int i = 0; i < n_files; i++) {
		size_t stem = 0, before = 0;
		int no = 0, count = 1, no_before, count_before;

		if (!is_model_file(files[i].path))
			continue;
		bool split = ruv_gguf_split_name(files[i].path, &stem, &no, &count);

		if (split && no && n && variants[n - 1].first + variants[n - 1].n_files == i &&
		    ruv_gguf_split_name(files[i - 1].path, &before, &no_before, &count_before) && no_before == no - 1 &&
		    count_before == count && before == stem && !memcmp(files[i].path, files[i - 1].path, stem)) {
			ruv_hub_variant *v = &variants[n - 1];

			v->n_files++;
			v->n_bytes += files[i].n_bytes;
			v->complete = v->n_files == count;
			continue;
		}
		if (n == cap)
			break;
		variants[n] = (ruv_hub_variant){.first = i, .n_files = 1, .n_bytes = files[i].n_bytes};
		variants[n].complete = !split || (no == 0 && count == 1);
		ruv_hub_quant_of(files[i].path, variants[n].quant);
		n++;
	}
	return n;
}

static const char *list_choices(ruv_buf *text, const ruv_hub_file *files, const ruv_hub_variant *variants, int n)
{
	for (int i = 0; i < n && text->len < 260; i++) {
		bool twice = !*variants[i].quant;

		for (int j = 0; j < n && !twice; j++)
			twice = j != i && !strcmp(variants[i].quant, variants[j].quant);
		ruv_buf_printf(text, "%s%s", i ? ", " : "", twice ? files[variants[i].first].path : variants[i].quant);
		if (i + 1 < n && text->len >= 260)
			ruv_buf_puts(text, ", ...");
	}
	return ruv_buf_cstr(text);
}

/* Does `want` name this variant: by type, by path, by file name, with or without .gguf? */
static bool is_wanted(const char *want, const char *path, const char *quant)
{
	const char *names[] = {path, base_name(path)};

	if (!strcasecmp(want, quant))
		return true;
	for (int i = 0; i < 2; i++)
		if (!strcasecmp(want, names[i]) || (strlen(names[i]) == strlen(want) + 5 && ends_with(names[i], ".gguf") &&
		                                    !strncasecmp(want, names[i], strlen(want))))
			return true;
	return false;
}

int ruv_hub_choose(int *index, const char *want, const ruv_hub_file *files, const ruv_hub_variant *variants, int n_variants,
                   const char *repo, ruv_error *err)
{
	static const char *const order[] = {"Q4_K_M", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q4_0", "Q6_K", "Q8_0",
	                                    "MIXED",  "BF16",   "F16",    "FP16",   "F32",  "FP32"};
	ruv_buf choices;
	int n = 0, rc = RUV_OK;

	if (!n_variants)
		return ruv_fail(err, RUV_ENOTFOUND, WHERE, "%s has no GGUF file", repo);
	ruv_buf_init(&choices, 4096);
	if (!*want && n_variants == 1) {
		*index = 0;
		n = 1;
	}
	for (size_t o = 0; !*want && !n && o < sizeof order / sizeof *order; o++) {
		for (int i = 0; i < n_variants; i++)
			if (!strcmp(variants[i].quant, order[o])) {
				*index = n++ ? *index : i;
				want = order[o];
			}
	}
	if (*want && !n)
		for (int i = 0; i < n_variants; i++) {
			bool part = false; /* any part of a split model names it */

			for (int f = 0; f < variants[i].n_files; f++)
				part = part || is_wanted(want, files[variants[i].first + f].path, variants[i].quant);
			if (part)
				*index = n++ ? *index : i;
		}
	if (n != 1) {
		list_choices(&choices, files, variants, n_variants);
		if (n)
			rc = ruv_fail(err, RUV_EINVAL, WHERE, "%s has %d models of type %s; name one as %s:FILE: %s", repo, n, want,
			              repo, ruv_buf_cstr(&choices));
		else if (*want)
			rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "%s has no '%s'; there is %s", repo, want, ruv_buf_cstr(&choices));
		else
			rc = ruv_fail(err, RUV_EINVAL, WHERE, "%s has none of the usual types; name one as %s:TYPE: %s", repo, repo,
			              ruv_buf_cstr(&choices));
	} else if (!variants[*index].complete) {
		rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "%s is split into parts of which some are not in %s",
		              files[variants[*index].first].path, repo);
	}
	ruv_buf_release(&choices);
	return rc;
}

/* ---- what was fetched -------------------------------------------------------------------------------------------------- */

typedef struct local_list {
	ruv_hub_file *files;
	int n, cap;
	size_t n_root;
} local_list;

static void list_dir(local_list *list, const char *path, int depth)
{
	DIR *dir = depth < MAX_DEPTH ? opendir(path) : NULL;

	for (struct dirent *e; dir && list->n < MAX_LOCAL_FILES && (e = readdir(dir));) {
		char below[PATH_MAX];
		struct stat st;

		if (e->d_name[0] == '.' || snprintf(below, sizeof below, "%s/%s", path, e->d_name) >= (int)sizeof below ||
		    stat(below, &st))
			continue;
		if (S_ISDIR(st.st_mode)) {
			list_dir(list, below, depth + 1);
			continue;
		}
		if (!S_ISREG(st.st_mode) || !is_model_file(below))
			continue;
		if (list->n == list->cap) {
			int cap = list->cap ? 2 * list->cap : 64;
			ruv_hub_file *more = realloc(list->files, (size_t)cap * sizeof *more);

			if (!more)
				break;
			list->files = more;
			list->cap = cap;
		}
		char *copy = strdup(below + list->n_root);

		if (copy)
			list->files[list->n++] = (ruv_hub_file){.path = copy, .n_bytes = (uint64_t)st.st_size};
	}
	if (dir)
		closedir(dir);
}

int ruv_hub_find_local(const char *dir, const char *text, char *path, size_t cap, ruv_error *err)
{
	char root[PATH_MAX], repo[201] = "";
	const char *colon = strchr(text, ':'), *want = colon ? colon + 1 : "";
	ruv_hub_variant variants[512];
	local_list list = {0};
	int index = -1, n, rc = RUV_OK;

	if (!strncmp(text, "hf.co/", 6))
		return ruv_hub_find_local(dir, text + 6, path, cap, err);
	snprintf(repo, sizeof repo, "%.*s", (int)(colon ? colon - text : (long)strnlen(text, 200)), text);
	bool by_repo = is_repo(repo);

	if (!by_repo && (colon || strchr(text, '/')))
		return ruv_fail(err, RUV_ENOTFOUND, WHERE, "'%.200s' is no model's name", text);
	if (snprintf(root, sizeof root, "%s%s%s", dir, by_repo ? "/" : "", by_repo ? repo : "") >= (int)sizeof root)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "the path of %.200s is too long", dir);
	list.n_root = strlen(root) + 1;
	list_dir(&list, root, by_repo ? 2 : 0);
	n = ruv_hub_group(list.files, list.n, variants, 512);
	if (by_repo) {
		rc = n ? ruv_hub_choose(&index, want, list.files, variants, n, repo, err)
		       : ruv_fail(err, RUV_ENOTFOUND, WHERE, "nothing of %s is in %s", repo, dir);
	} else {
		int n_same = 0;

		for (int i = 0; i < n; i++)
			if (is_wanted(text, list.files[variants[i].first].path, "")) {
				index = n_same++ ? index : i;
			}
		if (n_same > 1)
			rc = ruv_fail(err, RUV_EINVAL, WHERE,
			              "%d models in %s are called '%.100s'; name the one that is meant by its path", n_same, dir,
			              text);
		else if (!n_same)
			rc = ruv_fail(err, RUV_ENOTFOUND, WHERE, "nothing in %s is called '%.100s'", dir, text);
	}
	if (!rc && (size_t)snprintf(path, cap, "%s/%s", root, list.files[variants[index].first].path) >= cap)
		rc = ruv_fail(err, RUV_ELIMIT, WHERE, "the path of %.200s is too long", text);
	for (int i = 0; i < list.n; i++)
		free(list.files[i].path);
	free(list.files);
	return rc;
}

/* models.c - finding model files: see models.h. */
#include "runtime/models.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "runtime/hub_name.h"

static const struct {
	const char *role, *file;
} bundled[RUV_N_MODEL_ROLES] = {
    {"s", "ruvllm-nano-s.gguf"},          {"m", "ruvllm-nano-m.gguf"},
    {"l", "ruvllm-nano-l.gguf"},          {"encoder", "ruvllm-nano-encoder.gguf"},
    {"router", "ruvllm-nano-router.bin"}, {"agents", "ruvllm-nano-agents.bin"},
    {"graph", "ruvllm-nano-graph.bin"},
};

const char *ruv_models_role(int i)
{
	return i >= 0 && i < RUV_N_MODEL_ROLES ? bundled[i].role : NULL;
}

const char *ruv_models_bundled_name(const char *role)
{
	for (int i = 0; i < RUV_N_MODEL_ROLES; i++)
		if (!strcmp(role, bundled[i].role))
			return bundled[i].file;
	return NULL;
}

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Where this program lies, without its name; "" when /proc does not say. */
static void program_dir(char *text, size_t cap)
{
	ssize_t n = readlink("/proc/self/exe", text, cap - 1);

	text[n > 0 ? n : 0] = 0;
	char *slash = strrchr(text, '/');

	if (slash)
		*slash = 0;
}

const char *ruv_models_dir_at(const ruv_settings *settings, int i, char *text, size_t cap)
{
	/* Relative to the program: BUILD/bin in a source tree with BUILD = build, BUILD/tests/AREA, PREFIX/bin. */
	static const char *const beside[] = {"../share/ruvllm/models", "../../models", "../../../models"};
	static const char *const fixed[] = {"/usr/local/share/ruvllm/models", "/usr/share/ruvllm/models"};
	char program[4096];

	if (*settings->models_dir) {
		if (i == 0) {
			snprintf(text, cap, "%s", settings->models_dir);
			return text;
		}
		i--;
	}
	if (i == 0) {
		snprintf(text, cap, "%s/models", settings->data_dir);
		return text;
	}
	i--;
	if (i >= 0 && i < 3) {
		program_dir(program, sizeof program);
		snprintf(text, cap, "%s/%s", program, beside[i]);
		return text;
	}
	i -= 3;
	if (i >= 0 && i < 2) {
		snprintf(text, cap, "%s", fixed[i]);
		return text;
	}
	return NULL;
}

static int take_path(char *path, size_t cap, const char *found, ruv_error *err)
{
	char *real = realpath(found, NULL);
	const char *use = real ? real : found;
	int rc = RUV_OK;

	if (strlen(use) >= cap)
		rc = ruv_fail(err, RUV_ELIMIT, "models", "the path of %s is longer than %zu bytes", found, cap - 1);
	else
		strcpy(path, use);
	free(real);
	return rc;
}

static const char *configured(const ruv_settings *settings, const char *role)
{
	return !strcmp(role, "s")                                  ? settings->model_s
	       : !strcmp(role, "m")                                ? settings->model_m
	       : !strcmp(role, "l")                                ? settings->model_l
	       : !strcmp(role, "router")                           ? settings->router
	       : !strcmp(role, "agents") || !strcmp(role, "graph") ? ""
	                                                           : settings->encoder;
}

const char *ruv_models_own_dir(const ruv_settings *settings, char *text, size_t cap)
{
	return ruv_models_dir_at(settings, 0, text, cap);
}

static int find_fetched(const ruv_settings *settings, const char *name, char *path, size_t cap, ruv_error *err)
{
	char dir[4200], found[8400];
	ruv_error why = {0};

	for (int i = 0; ruv_models_dir_at(settings, i, dir, sizeof dir); i++) {
		int rc = ruv_hub_find_local(dir, name, found, sizeof found, &why);

		if (!rc)
			return take_path(path, cap, found, err);
		if (rc != RUV_ENOTFOUND)
			return ruv_fail(err, rc, "models", "%s", why.message);
	}
	return ruv_fail(err, RUV_ENOTFOUND, "models",
	                "the model '%s' is neither a tier (s, m, l), nor auto, nor a file, nor one that `ruvllm pull` fetched",
	                name);
}

int ruv_models_find(const ruv_settings *settings, const char *which, char *path, size_t cap, ruv_error *err)
{
	const char *file, *named;
	char dir[4200], candidate[8400];
	ruv_buf looked;
	int rc;

	if (!strcmp(which, "auto")) /* where one model is wanted and not one for a question: the tier that is always good enough */
		which = "l";
	file = ruv_models_bundled_name(which);
	if (!file)
		return is_file(which) ? take_path(path, cap, which, err) : find_fetched(settings, which, path, cap, err);
	named = configured(settings, which);
	if (*named) {
		if (!is_file(named))
			return ruv_fail(err, RUV_ENOTFOUND, "models", "%s%s is set to %s, which is no file",
			                which[1] ? "" : "model-", which, named);
		return take_path(path, cap, named, err);
	}
	ruv_buf_init(&looked, 4096);
	for (int i = 0; ruv_models_dir_at(settings, i, dir, sizeof dir); i++) {
		snprintf(candidate, sizeof candidate, "%s/%s", dir, file);
		if (is_file(candidate)) {
			ruv_buf_release(&looked);
			return take_path(path, cap, candidate, err);
		}
		char *real = realpath(dir, NULL);

		if (real) /* directories that are not there say nothing */
			ruv_buf_printf(&looked, "%s%s", looked.len ? ", " : "", real);
		free(real);
	}
	rc = ruv_fail(err, RUV_ENOTFOUND, "models", "%s (the bundled %s%s) is not there%s%s", file,
	              which[1] ? "" : "model of tier ", which, looked.len ? "; looked in " : "", ruv_buf_cstr(&looked));
	ruv_buf_release(&looked);
	return rc;
}

int ruv_models_verify(const char *path, const char *hex, bool *listed, ruv_error *err)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char *list_path = NULL, *list = NULL, own[65];
	size_t size;
	int rc;

	*listed = false;
	if (asprintf(&list_path, "%.*sSHA256SUMS", (int)(name - path), path) < 0)
		return ruv_fail_memory(err, "models", strlen(path));
	rc = ruv_file_read(&list, &size, list_path, 1 << 20, err);
	if (rc) {
		rc = rc == RUV_ENOTFOUND ? RUV_OK : rc;
		goto done;
	}
	for (char *line = list; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		size_t n = strcspn(line, "\n");

		if (n < 67 || strlen(name) != n - 66 || memcmp(line + 66, name, n - 66))
			continue;
		*listed = true;
		if (!hex)
			rc = ruv_hash_file_sha256(own, path, err);
		hex = hex ? hex : own;
		if (!rc && memcmp(hex, line, 64))
			rc = ruv_fail(err, RUV_ECORRUPT, "models",
			              "%s: its SHA-256 is %.16s..., but SHA256SUMS says %.16s...; get the file again", path, hex,
			              line);
		break;
	}
done:
	free(list);
	free(list_path);
	return rc;
}

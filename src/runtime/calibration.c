/* calibration.c - see calibration.h. The file is a few hundred bytes and is read for every question: nothing is kept, so a changed
 * file counts from the next question on. Layer: runtime. */
#include "runtime/calibration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "base/status.h"

static const char where[] = "answering";

enum { MAX_FILE_BYTES = 1 << 16 };

static int number(float *out, const json_t *entry, const char *key, const char *path, const char *name, ruv_error *err)
{
	const json_t *value = json_object_get(entry, key);

	if (!value)
		return RUV_OK;
	if (!json_is_number(value))
		return ruv_fail(err, RUV_EFORMAT, where, "%s: \"%s\" of %s is not a number", path, key, name);
	*out = (float)json_number_value(value);
	return RUV_OK;
}

static int take_entry(ruv_calibrated *out, const json_t *root, const char *path, const char *name, ruv_error *err)
{
	const json_t *entry = json_object_get(root, name);
	int rc;

	if (!entry)
		return RUV_OK;
	if (!json_is_object(entry))
		return ruv_fail(err, RUV_EFORMAT, where, "%s: what is said about %s is not an object", path, name);
	rc = number(&out->bias, entry, "bias", path, name, err);
	return rc ? rc : number(&out->within, entry, "within", path, name, err);
}

int ruv_calibration_read(ruv_calibrated *out, const ruv_model *model, ruv_error *err)
{
	ruv_model_info info;
	const char *slash;
	char *path = NULL, *text = NULL;
	json_error_t at;
	json_t *root = NULL;
	size_t n;
	int rc;

	memset(out, 0, sizeof *out);
	ruv_model_get_info(model, &info);
	slash = strrchr(info.path, '/');
	if (asprintf(&path, "%.*sanswering.json", slash ? (int)(slash + 1 - info.path) : 0, info.path) < 0)
		return ruv_fail_memory(err, where, strlen(info.path));
	rc = ruv_file_read(&text, &n, path, MAX_FILE_BYTES, NULL);
	if (rc) {
		rc = rc == RUV_ENOTFOUND ? RUV_OK : ruv_fail(err, rc, where, "%s cannot be read", path);
		goto done;
	}
	root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &at);
	rc = json_is_object(root)
	         ? take_entry(out, root, path, info.name, err)
	         : ruv_fail(err, RUV_EFORMAT, where, "%s is not a JSON object%s%s", path, root ? "" : ": ", root ? "" : at.text);
done:
	json_decref(root);
	free(text);
	free(path);
	return rc;
}

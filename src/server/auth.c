/* auth.c - the file of API keys, see auth.h. */
#include "server/auth.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <openssl/crypto.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

enum { MAX_FILE = 1 << 20, MAX_KEYS = 10000, MIN_KEY = 8 };

typedef struct api_key {
	char sha256[65];
	ruv_identity identity; /* strings in the json */
} api_key;

struct ruv_auth {
	int n_refs;
	json_t *json;
	api_key *keys; /* [n_keys] */
	int n_keys;
};

static const struct {
	const char *name;
	unsigned bit;
} scopes[] = {{"chat", RUV_SCOPE_CHAT},
              {"read", RUV_SCOPE_READ},
              {"write", RUV_SCOPE_WRITE},
              {"learn", RUV_SCOPE_LEARN},
              {"admin", RUV_SCOPE_ADMIN}};
enum { N_SCOPES = sizeof scopes / sizeof *scopes };

const char *ruv_scope_name(unsigned scope)
{
	for (int i = 0; i < N_SCOPES; i++)
		if (scopes[i].bit == scope)
			return scopes[i].name;
	return "?";
}

static int read_scopes(const json_t *list, unsigned *bits, ruv_error *err)
{
	const json_t *item;
	size_t i;

	*bits = list ? 0 : RUV_SCOPE_CHAT | RUV_SCOPE_READ;
	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(item);
		unsigned bit = 0;

		for (int s = 0; name && s < N_SCOPES; s++)
			bit |= strcmp(scopes[s].name, name) ? 0 : scopes[s].bit;
		if (!bit)
			return ruv_fail(err, RUV_EFORMAT, "server",
			                "'%s' is no scope; there are chat, read, write, learn and admin",
			                name ? name : "(no string)");
		*bits |= bit;
	}
	return RUV_OK;
}

static int read_key(api_key *key, const json_t *object, ruv_error *err)
{
	const char *secret = NULL, *sha256 = NULL, *name = "", *user = "", *agent = "";
	json_t *list = NULL;
	const char *known[] = {"name", "key", "sha256", "scopes", "user", "agent", "memory"};
	const char *field;
	json_t *value;
	bool memory = false;
	int rc = RUV_OK;

	if (!json_is_object(object))
		return ruv_fail(err, RUV_EFORMAT, "server", "it is no object");
	json_object_foreach((json_t *)object, field, value)
	{
		bool is_known = false;

		for (size_t i = 0; i < sizeof known / sizeof *known; i++)
			is_known = is_known || !strcmp(field, known[i]);
		if (!is_known)
			return ruv_fail(err, RUV_EFORMAT, "server", "'%s' means nothing", field);
	}
	if ((rc = ruv_json_text(object, "key", &secret, err)) || (rc = ruv_json_text(object, "sha256", &sha256, err)) ||
	    (rc = ruv_json_text(object, "name", &name, err)) || (rc = ruv_json_text(object, "user", &user, err)) ||
	    (rc = ruv_json_text(object, "agent", &agent, err)) || (rc = ruv_json_array(object, "scopes", &list, err)) ||
	    (rc = ruv_json_bool(object, "memory", &memory, err)))
		return rc;
	if (!secret == !sha256)
		return ruv_fail(err, RUV_EFORMAT, "server", "it needs one of \"key\" and \"sha256\"");
	if (secret && strlen(secret) < MIN_KEY)
		return ruv_fail(err, RUV_EFORMAT, "server", "the key has %zu characters; at least %d are needed", strlen(secret),
		                (int)MIN_KEY);
	if (sha256 && (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdefABCDEF") != 64))
		return ruv_fail(err, RUV_EFORMAT, "server", "\"sha256\" must be 64 hex digits");
	if (secret) {
		rc = ruv_hash_sha256(key->sha256, secret, strlen(secret), err);
	} else {
		for (int i = 0; i < 64; i++)
			key->sha256[i] = (char)(sha256[i] >= 'A' && sha256[i] <= 'F' ? sha256[i] + 32 : sha256[i]);
	}
	key->identity = (ruv_identity){.key_name = name, .user = user, .agent = agent, .memory = memory};
	return rc ? rc : read_scopes(list, &key->identity.scopes, err);
}

int ruv_auth_open(ruv_auth **out, const char *path, ruv_error *err)
{
	ruv_auth *auth = calloc(1, sizeof *auth);
	json_error_t bad;
	json_t *keys = NULL;
	struct stat st;
	char *text = NULL;
	size_t n;
	int rc;

	if (!auth)
		return ruv_fail_memory(err, "server", sizeof *auth);
	auth->n_refs = 1;
	rc = ruv_file_read(&text, &n, path, MAX_FILE, err);
	if (rc)
		goto done;
	if (!stat(path, &st) && (st.st_mode & (S_IRWXG | S_IRWXO))) {
		rc = ruv_fail(err, RUV_EINVAL, "server", "%s can be read by others (mode %03o); chmod 600 it", path,
		              st.st_mode & 0777);
		goto done;
	}
	auth->json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
	if (!auth->json) {
		rc = ruv_fail(err, RUV_EFORMAT, "server", "%s:%d:%d: %s", path, bad.line, bad.column, bad.text);
		goto done;
	}
	keys = json_object_get(auth->json, "keys");
	if (!json_is_array(keys) || !json_array_size(keys) || json_array_size(keys) > MAX_KEYS) {
		rc = ruv_fail(err, RUV_EFORMAT, "server", "%s: \"keys\" must be an array of 1 to %d objects", path, (int)MAX_KEYS);
		goto done;
	}
	auth->keys = calloc(json_array_size(keys), sizeof *auth->keys);
	if (!auth->keys) {
		rc = ruv_fail_memory(err, "server", json_array_size(keys) * sizeof *auth->keys);
		goto done;
	}
	for (; auth->n_keys < (int)json_array_size(keys); auth->n_keys++) {
		rc = read_key(&auth->keys[auth->n_keys], json_array_get(keys, (size_t)auth->n_keys), err);
		if (rc) {
			ruv_error_prefix(err, rc, "%s: key %d: ", path, auth->n_keys + 1);
			goto done;
		}
	}
	*out = auth;
	auth = NULL;
done:
	if (text)
		OPENSSL_cleanse(text, n);
	free(text);
	ruv_auth_free(auth);
	return rc;
}

ruv_auth *ruv_auth_hold(ruv_auth *auth)
{
	if (auth)
		auth->n_refs++;
	return auth;
}

void ruv_auth_free(ruv_auth *auth)
{
	if (!auth || --auth->n_refs > 0)
		return;
	json_decref(auth->json);
	free(auth->keys);
	free(auth);
}

int ruv_auth_n_keys(const ruv_auth *auth)
{
	return auth->n_keys;
}

bool ruv_auth_check(const ruv_auth *auth, const char *key, ruv_identity *identity)
{
	char hex[65];
	int found = -1;

	if (ruv_hash_sha256(hex, key, strlen(key), NULL))
		return false;
	for (int i = 0; i < auth->n_keys; i++)
		if (!CRYPTO_memcmp(hex, auth->keys[i].sha256, 64))
			found = i;
	if (found < 0)
		return false;
	*identity = auth->keys[found].identity;
	return true;
}

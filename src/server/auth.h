/* auth.h - API keys: a file of named keys with scopes, compared in constant time.
 *
 * The file is JSON:
 *     {"keys": [{"name": "laptop", "key": "sk-...", "scopes": ["chat", "read", "write", "learn", "admin"],
 *                "user": "ada", "agent": "", "memory": true}]}
 * Instead of "key", "sha256" may hold the key's SHA-256 in hex, so that the file holds no secret. Without "scopes" a key may chat
 * and read. It should be readable by its owner alone (mode 0600): a file that others can read is refused.
 *
 * Every key is compared by its SHA-256 and every comparison takes the same time; all keys are looked at, found or not.
 * Threads: immutable once read but for its count of holders, which belongs to the event-loop thread. Layer: server. */
#ifndef RUV_SERVER_AUTH_H
#define RUV_SERVER_AUTH_H

#include "server/http.h"

typedef struct ruv_auth ruv_auth;

/* RUV_ENOTFOUND, RUV_EIO, RUV_EFORMAT (which key, what is wrong), RUV_EINVAL (mode). */
int ruv_auth_open(ruv_auth **out, const char *path, ruv_error *err);
ruv_auth *ruv_auth_hold(ruv_auth *auth); /* NULL is fine */
void ruv_auth_free(ruv_auth *auth);      /* gives up a hold; NULL is fine */
int ruv_auth_n_keys(const ruv_auth *auth);
/* Whose key it is; its strings live as long as `auth`. False: nobody's. */
bool ruv_auth_check(const ruv_auth *auth, const char *key, ruv_identity *identity);
/* "chat" and so on for a single bit. */
const char *ruv_scope_name(unsigned scope);

#endif

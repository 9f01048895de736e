/* hash.c - hashing through libxxhash and libcrypto. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/status.h"

uint64_t ruv_hash64(const void *bytes, size_t n_bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(bytes, n_bytes, seed);
}

int ruv_hash_sha256(char hex[65], const void *bytes, size_t n_bytes, ruv_error *err)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (!EVP_Digest(bytes, n_bytes, digest, &n, EVP_sha256(), NULL) || n != 32)
		return ruv_fail(err, RUV_EINTERNAL, "sha256", "libcrypto could not compute a SHA-256");
	for (unsigned i = 0; i < n; i++) {
		hex[2 * i] = digits[digest[i] >> 4];
		hex[2 * i + 1] = digits[digest[i] & 15];
	}
	hex[64] = '\0';
	return RUV_OK;
}

int ruv_hash_file_sha256(char hex[65], const char *path, ruv_error *err)
{
	ruv_map map;
	int rc = ruv_map_open(&map, path, err);
	if (rc)
		return rc;
	rc = ruv_hash_sha256(hex, map.data, map.size, err);
	ruv_map_release(&map);
	return rc;
}

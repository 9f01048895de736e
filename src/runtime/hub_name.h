/* hub_name.h - how models of a hub are named: what the user writes, what files are called, and which of a repository's files is
 * meant.
 *
 * What the user writes:
 *   user/repo            the repository, in the type that is taken by default (ruv_hub_choose)
 *   user/repo:Q8_0       in that type; any case
 *   user/repo:FILE.gguf  that file
 *   https://...          that file; an address of the hub itself is the same as naming repository, revision and file
 *
 * What is fetched lies at DIR/USER/REPO/FILE, DIR being one of the models directories, so that the same names find it again. The
 * parts of a split model (NAME-00001-of-00003.gguf) are one variant. Layer: runtime. */
#ifndef RUV_RUNTIME_HUB_NAME_H
#define RUV_RUNTIME_HUB_NAME_H

#include "ruvllm/types.h"

typedef struct ruv_hub_name {
	char repo[201];     /* "user/repo"; empty for an address elsewhere */
	char want[257];     /* what stood behind the colon; "" for none */
	char revision[101]; /* "main" unless the address says otherwise */
	char url[2049];     /* of an address elsewhere, else empty */
} ruv_hub_name;

/* `hub` is the hub's address, to know its own. RUV_EINVAL says what is wrong with the name. */
int ruv_hub_name_parse(ruv_hub_name *name, const char *text, const char *hub, ruv_error *err);

/* Whether a path from a hub's list may become a file below our directory: relative, no "..", no hidden part, no control characters,
 * at most 200 bytes. */
bool ruv_hub_path_is_safe(const char *path);

/* The type in a file's name, "Q4_K_M" of "LFM2-350M-Q4_K_M.gguf", in capitals; "" when there is none. */
void ruv_hub_quant_of(const char *path, char quant[24]);

typedef struct ruv_hub_file {
	char *path;
	uint64_t n_bytes;
	char sha256[65]; /* "" when the hub does not say */
} ruv_hub_file;

/* One model of a repository: a file, or all parts of a split one. */
typedef struct ruv_hub_variant {
	char quant[24];
	int first, n_files; /* into the sorted list of files */
	uint64_t n_bytes;
	bool complete; /* all parts are there */
} ruv_hub_variant;

/* Sorts files[0..n_files) by path and groups the models among them into variants[0..cap); what is no model (projectors of
 * multimodal ones, importance matrices) is left out. Returns how many there are. */
int ruv_hub_group(ruv_hub_file *files, int n_files, ruv_hub_variant *variants, int cap);

/* Which variant `want` (see above; "" for the default) means: index into variants. By default Q4_K_M, else the only one there is,
 * else the first of a fixed order (Q4_K_S, Q5_K_M, ...; floats last). RUV_ENOTFOUND, or RUV_EINVAL when several could be meant;
 * both name the choices. */
int ruv_hub_choose(int *index, const char *want, const ruv_hub_file *files, const ruv_hub_variant *variants, int n_variants,
                   const char *repo, ruv_error *err);

/* Finds a model by such a name, or by its file's name (with or without .gguf), below a models directory: path[0..cap).
 * RUV_ENOTFOUND when nothing there has the name, RUV_EINVAL when several have. */
int ruv_hub_find_local(const char *dir, const char *text, char *path, size_t cap, ruv_error *err);

#endif

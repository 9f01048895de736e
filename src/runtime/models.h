/* models.h - which file a model's name stands for.
 *
 * A tier (s, m, l) or "encoder" is the file that the configuration names, else the bundled file of that tier, looked for in: the
 * configured models directory; DATA/models; beside the program (the build tree's and an installation's places); /usr/local/share
 * and /usr/share/ruvllm/models. Anything else is a file's path, or the name of a model that was fetched into one of these
 * directories (hub_name.h). Layer: runtime. */
#ifndef RUV_RUNTIME_MODELS_H
#define RUV_RUNTIME_MODELS_H

#include "runtime/config.h"

enum { RUV_N_MODEL_ROLES = 7 };

/* "s", "m", "l", "encoder", "router", "agents", "graph"; NULL past the end. */
const char *ruv_models_role(int i);
/* The bundled file's name for a role, NULL when it is none. */
const char *ruv_models_bundled_name(const char *role);

/* The directory that fetched models are put in: the first that is looked at. */
const char *ruv_models_own_dir(const ruv_settings *settings, char *text, size_t cap);

int ruv_models_find(const ruv_settings *settings, const char *which, char *path, size_t cap, ruv_error *err);
/* The i-th directory that is looked at, NULL past the end; text[0..cap) is its room. */
const char *ruv_models_dir_at(const ruv_settings *settings, int i, char *text, size_t cap);

/* Compares a bundled file with SHA256SUMS beside it. *listed is false when there is no such list or the file is not in it; only a
 * listed file is hashed, and not when its digest is given (hex, NULL: not known). RUV_ECORRUPT when the sums differ. */
int ruv_models_verify(const char *path, const char *hex, bool *listed, ruv_error *err);

#endif

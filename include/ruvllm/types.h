/* types.h - what every public header of RuvLLM shares: export marks, status codes, errors, token ids.
 *
 * Usable from C11 and C++. Every function that can fail returns a ruv_status: RUV_OK (0), or a negative code. Where it takes a
 * `ruv_error *err` (NULL is fine), the last argument, a failure also says there which value was wrong and what was expected.
 * Functions are safe to call from several threads on different objects; an object's own header says what it allows on one. */
#ifndef RUVLLM_TYPES_H
#define RUVLLM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RUV_API __attribute__((visibility("default")))
#define RUV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define RUV_API
#define RUV_PRINTF(fmt, args)
#endif

/* code, value, name, what it means. One list keeps the three together. */
#define RUV_STATUS_LIST(X)                                                                                                         \
	X(RUV_OK, 0, "ok", "success")                                                                                              \
	X(RUV_EINVAL, -1, "invalid", "an argument or option is out of range")                                                      \
	X(RUV_ENOMEM, -2, "no-memory", "out of memory")                                                                            \
	X(RUV_EIO, -3, "io", "reading or writing failed")                                                                          \
	X(RUV_EFORMAT, -4, "format", "a file or message is malformed")                                                             \
	X(RUV_EUNSUPPORTED, -5, "unsupported", "well-formed, but not something this build can do")                                 \
	X(RUV_ENOTFOUND, -6, "not-found", "no such file, key, node or model")                                                      \
	X(RUV_EEXIST, -7, "exists", "already there")                                                                               \
	X(RUV_ELIMIT, -8, "limit", "a size or count exceeds its declared limit")                                                   \
	X(RUV_ECONTEXT, -9, "context", "the tokens do not fit the context window")                                                 \
	X(RUV_EMISMATCH, -10, "mismatch", "two things that must belong together do not")                                           \
	X(RUV_EBUSY, -11, "busy", "in use by somebody else; try again")                                                            \
	X(RUV_ECANCELLED, -12, "cancelled", "stopped on request")                                                                  \
	X(RUV_ECORRUPT, -13, "corrupt", "stored data fails its own check")                                                         \
	X(RUV_EINTERNAL, -14, "internal", "a fault of RuvLLM itself; please report it")

typedef enum ruv_status {
#define X(code, value, name, text) code = value,
	RUV_STATUS_LIST(X)
#undef X
} ruv_status;

/* What went wrong. `where` is a static string (the operation), `message` a sentence with the offending values. */
typedef struct ruv_error {
	int code; /* ruv_status */
	const char *where;
	char message[480];
} ruv_error;

/* "format", "no-memory", ...; never NULL. */
RUV_API const char *ruv_status_name(int code);
/* The general meaning of a code; never NULL. */
RUV_API const char *ruv_status_text(int code);

/* The version of the library, "0.1.0". */
RUV_API const char *ruv_version(void);

/* A token id of a model's vocabulary; -1 is none. */
typedef int32_t ruv_token;

#ifdef __cplusplus
}
#endif
#endif

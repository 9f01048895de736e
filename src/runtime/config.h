/* config.h - the configuration's table and the values that the runtime works with.
 *
 * One row a key: field of ruv_settings, kind, name, what a value looks like (for CHOICE the words), least and greatest number,
 * default, preset edge, preset server-cpu (NULL: the preset leaves it), help. The row makes the flag --NAME, the environment's
 * RUVLLM_NAME, the file's key, the help text and the field.
 *
 * Kinds: TEXT and PATH (a leading ~/ is the home directory) are const char *, INT is int64_t, REAL is double and may be "auto"
 * (NaN: what the model asks for), SWITCH is bool, CHOICE is const char *. Layer: runtime. */
#ifndef RUV_RUNTIME_CONFIG_H
#define RUV_RUNTIME_CONFIG_H

#include "ruvllm/runtime.h"

/* clang-format off */
#define RUV_CONFIG_LIST(X)                                                                                                     \
	/* field           kind    name              arg                      min  max      default    edge       server-cpu   help */ \
	X(preset,         CHOICE, "preset",         "none|edge|server-cpu|server-gpu", 0, 0, "none",   NULL,      NULL,        "defaults for a kind of machine") \
	X(data_dir,       PATH,   "data-dir",       "DIR",                    0,   0,       "",        NULL,      NULL,        "where memory and chats are kept (default: $XDG_DATA_HOME/ruvllm, else ~/.local/share/ruvllm)") \
	X(models_dir,     PATH,   "models-dir",     "DIR",                    0,   0,       "",        NULL,      NULL,        "where model files are looked for first") \
	X(model,          TEXT,   "model",          "auto|s|m|l|FILE",        0,   0,       "l",       "m",       "l",         "the generator: a tier, a GGUF file, or auto: the smallest tier that will do, chosen for every question") \
	X(model_s,        PATH,   "model-s",        "FILE",                   0,   0,       "",        NULL,      NULL,        "GGUF file of tier s (default: the bundled one)") \
	X(model_m,        PATH,   "model-m",        "FILE",                   0,   0,       "",        NULL,      NULL,        "GGUF file of tier m (default: the bundled one)") \
	X(model_l,        PATH,   "model-l",        "FILE",                   0,   0,       "",        NULL,      NULL,        "GGUF file of tier l (default: the bundled one)") \
	X(encoder,        PATH,   "encoder",        "FILE",                   0,   0,       "",        NULL,      NULL,        "GGUF file of the text encoder (default: the bundled one)") \
	X(variant,        CHOICE, "variant",        "none|base|coder|agent",  0,   0,       "none",    NULL,      NULL,        "RuvLTRA-Medium variant of a Qwen2.5-class model") \
	X(threads,        INT,    "threads",        "N",                      0,   256,     "0",       NULL,      NULL,        "threads that compute; 0: one per core") \
	X(batch,          INT,    "batch",          "N",                      0,   8192,    "0",       "128",     "512",       "most tokens of one forward pass; 0: 256") \
	X(context,        INT,    "context",        "N",                      0,   1048576, "0",       "1024",    "4096",      "tokens of context; 0: what the model was trained for, at most 4096") \
	X(kv_type,        CHOICE, "kv-type",        "f16|f32|q8_0",           0,   0,       "f16",     "q8_0",    "f16",       "element type of keys and values") \
	X(models_memory,  INT,    "models-memory",  "BYTES",                  0,   INT64_MAX, "0",     NULL,      NULL,        "serve: weights and pages of all loaded models together; 0: no limit") \
	X(max_running,    INT,    "max-running",    "N",                      1,   256,     "64",      NULL,      NULL,        "serve: sequences of a model that are generated side by side") \
	X(draft,          TEXT,   "draft",          "no|s|m|l|FILE",          0,   0,       "no",      NULL,      NULL,        "a smaller model of the same vocabulary that drafts for the generator; what is written stays the same") \
	X(max_tokens,     INT,    "max-tokens",     "N",                      1,   1048576, "256",     NULL,      NULL,        "most tokens of one answer") \
	X(temperature,    REAL,   "temperature",    "NUMBER",                 0,   10,      "auto",    NULL,      NULL,        "0: always the likeliest token; auto: 0 for bundled models, else what the model asks for") \
	X(top_k,          INT,    "top-k",          "N",                      -1,  1048576, "-1",      NULL,      NULL,        "sample among the N likeliest tokens; 0: all, -1: what the model asks for") \
	X(top_p,          REAL,   "top-p",          "NUMBER",                 0,   1,       "auto",    NULL,      NULL,        "sample within this share of probability") \
	X(min_p,          REAL,   "min-p",          "NUMBER",                 0,   1,       "auto",    NULL,      NULL,        "leave out tokens below this share of the likeliest one's probability") \
	X(typical_p,      REAL,   "typical-p",      "NUMBER",                 0,   1,       "auto",    NULL,      NULL,        "locally typical sampling; 1: off") \
	X(repeat_penalty, REAL,   "repeat-penalty", "NUMBER",                 0,   10,      "auto",    NULL,      NULL,        "makes tokens that were just used less likely; 1: off") \
	X(seed,           INT,    "seed",           "N",                      0,   INT64_MAX, "0",     NULL,      NULL,        "of sampling; 0: a different one each time") \
	X(sources,        INT,    "sources",        "N",                      0,   50,      "3",       "2",       "3",         "passages given to the model") \
	X(graph_attention, CHOICE, "graph-attention", "auto|on|off",          0,   0,       "auto",    NULL,      NULL,        "order what is found by the memory's graph as well; auto: where that was measured to find more") \
	X(focus,          CHOICE, "focus",          "auto|yes|no",            0,   0,       "auto",    NULL,      NULL,        "give the model only the best passage when meaning and words agree on it; auto: bundled models") \
	X(search,         CHOICE, "search",         "hybrid|vector|lexical",  0,   0,       "hybrid",  NULL,      NULL,        "find passages by meaning and words, or by one of them") \
	X(fusion,         CHOICE, "fusion",         "rrf|zscore",             0,   0,       "zscore",    NULL,      NULL,        "how both lists are fused: standardised scores or reciprocal ranks") \
	X(min_cosine,     REAL,   "min-cosine",     "NUMBER",                 -1,  1,       "auto",    NULL,      NULL,        "passages less similar than this are not found by meaning; auto: all are") \
	X(chat_cosine,    REAL,   "chat-cosine",    "NUMBER",                 -1,  1,       "0.4",     NULL,      NULL,        "in a chat, passages less similar than this that also lack the message's words are not used: small talk") \
	X(chunk_tokens,   INT,    "chunk-tokens",   "N",                      16,  4096,    "160",     NULL,      NULL,        "most tokens of a remembered passage") \
	X(chunk_overlap,  INT,    "chunk-overlap",  "N",                      0,   3,       "0",       NULL,      NULL,        "sentences that a passage repeats from the one before") \
	X(max_file_bytes, INT,    "max-file-bytes", "N",                      1,   268435456, "33554432", NULL,  NULL,        "larger files are not remembered") \
	X(router,         PATH,   "router",         "FILE",                   0,   0,       "",        NULL,      NULL,        "the router's file (default: the bundled one)") \
	X(write_back,     SWITCH, "write-back",     "",                       0,   0,       "no",      NULL,      NULL,        "keep answers that are judged good in memory") \
	X(write_threshold, REAL,  "write-threshold", "NUMBER",                0,   1,       "0.75",    NULL,      NULL,        "the judged quality from which an answer is kept") \
	X(learn,          SWITCH, "learn",          "",                       0,   0,       "no",      NULL,      NULL,        "train an adapter of the generator on accepted and corrected answers (docs/learning.md)") \
	X(hub,            TEXT,   "hub",            "URL",                    0,   0,       "https://huggingface.co", NULL, NULL,   "pull: the model hub that names without an address mean") \
	X(otlp_endpoint,  TEXT,   "otlp-endpoint",  "URL",                    0,   0,       "",        NULL,      NULL,        "an OpenTelemetry collector that gets a trace of every answer, http://localhost:4318; empty: none") \
	X(user,           TEXT,   "user",           "NAME",                   0,   0,       "",        NULL,      NULL,        "whose memory: passages belong to this user, and only this user's and common ones are found") \
	X(agent,          TEXT,   "agent",          "NAME",                   0,   0,       "",        NULL,      NULL,        "the same for an agent") \
	X(session,        TEXT,   "session",        "NAME",                   0,   0,       "",        NULL,      NULL,        "the same for a session") \
	X(host,           TEXT,   "host",           "ADDRESS",                0,   0,       "127.0.0.1", NULL,    NULL,        "serve: the address to listen on; 0.0.0.0 or :: for all") \
	X(port,           INT,    "port",           "N",                      0,   65535,   "7885",    NULL,      NULL,        "serve: the port; 0: any free one") \
	X(unix_socket,    PATH,   "unix-socket",    "FILE",                   0,   0,       "",        NULL,      NULL,        "serve: a unix socket to listen on besides") \
	X(api_keys,       PATH,   "api-keys",       "FILE",                   0,   0,       "",        NULL,      NULL,        "serve: JSON file of API keys with their scopes (docs/server.md); without it everybody may do everything") \
	X(tls_cert,       PATH,   "tls-cert",       "FILE",                   0,   0,       "",        NULL,      NULL,        "serve: PEM file of the certificate chain; with tls-key, connections are encrypted") \
	X(tls_key,        PATH,   "tls-key",        "FILE",                   0,   0,       "",        NULL,      NULL,        "serve: PEM file of the certificate's key") \
	X(chat_memory,    SWITCH, "chat-memory",    "",                       0,   0,       "no",      NULL,      NULL,        "serve: chats use memory without asking for it") \
	X(max_connections, INT,   "max-connections", "N",                     1,   100000,  "2048",    NULL,      NULL,        "serve: connections at a time; more wait to be accepted") \
	X(max_queue,      INT,    "max-queue",      "N",                      1,   100000,  "256",     NULL,      NULL,        "serve: requests that wait; more are answered 429") \
	X(max_body_bytes, INT,    "max-body-bytes", "N",                      1024, 1073741824, "33554432", NULL, NULL,        "serve: largest body of a request") \
	X(request_timeout, INT,   "request-timeout", "SECONDS",               1,   3600,    "60",      NULL,      NULL,        "serve: for a request to come and for a client to take its answer") \
	X(drain_timeout,  INT,    "drain-timeout",  "SECONDS",                0,   3600,    "30",      NULL,      NULL,        "serve: for running requests to end after SIGTERM")
/* clang-format on */

#define RUV_CONFIG_C_TEXT const char *
#define RUV_CONFIG_C_PATH const char *
#define RUV_CONFIG_C_CHOICE const char *
#define RUV_CONFIG_C_INT int64_t
#define RUV_CONFIG_C_REAL double
#define RUV_CONFIG_C_SWITCH bool

typedef struct ruv_settings {
#define X(field, kind, name, arg, min, max, def, edge, server, help) RUV_CONFIG_C_##kind field;
	RUV_CONFIG_LIST(X)
#undef X
} ruv_settings;

/* The effective values, typed; strings belong to the config. RUV_EUNSUPPORTED for preset server-gpu. Paths are expanded, data_dir
 * is never empty. */
int ruv_config_settings(ruv_config *config, ruv_settings *settings, ruv_error *err);

/* A second config with the same values. */
int ruv_config_copy(ruv_config **out, const ruv_config *config, ruv_error *err);

#endif

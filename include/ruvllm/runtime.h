/* runtime.h - the whole of RuvLLM behind a few calls: configuration, remembering files, and answering questions from memory.
 *
 * A runtime opens what its configuration names when it is first needed (models, encoder, memory), owns it, and closes it:
 *
 *     ruv_config *config;   ruv_config_create(&config, &err);   ruv_config_load(config, NULL, &err);
 *     ruv_runtime *runtime; ruv_runtime_open(&runtime, config, &err);
 *     ruv_remember_params what = {.path = "docs/"};
 *     ruv_remember(runtime, &what, NULL, &err);
 *     ruv_ask_params ask = {.question = "When does the backup start?"};
 *     ruv_answer answer = {0};
 *     ruv_ask(runtime, &ask, &answer, &err);      answer.text, answer.sources, ...
 *
 * Usable from C11 and C++.
 * Threads: ruv_ask, ruv_retrieve, ruv_remember, ruv_runtime_embed and the calls that open things may come from several threads of
 * one runtime. Engine, models and memory that it hands out may be shared as their own headers say; a session belongs to one thread
 * at a time, and so does the embedder (ruv_runtime_embed takes turns at it). Without a scheduler, generating takes turns; with one
 * (ruv_runtime_scheduler) questions are answered side by side. Configurations belong to one thread. Several runtimes may share one
 * data directory, also from several processes (memory.h says how). ruv_cancel_set may come from anywhere. */
#ifndef RUVLLM_RUNTIME_H
#define RUVLLM_RUNTIME_H

#include "ruvllm/agent.h"
#include "ruvllm/grammar.h"
#include "ruvllm/learn.h"
#include "ruvllm/memory.h"
#include "ruvllm/model.h"
#include "ruvllm/router.h"
#include "ruvllm/scheduler.h"
#include "ruvllm/session.h"
#include "ruvllm/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- configuration ----------------------------------------------------------------------------------------------------- */

/* Named values. Each key is one row of a table (src/runtime/config.h) that makes its flag (--top-k), its name in the environment
 * (RUVLLM_TOP_K), its key in the file (top-k = 40) and its help. A flag beats the environment, that beats the file, that beats the
 * preset, that beats the default. */
typedef struct ruv_config ruv_config;

typedef enum ruv_config_origin {
	RUV_CONFIG_DEFAULT,
	RUV_CONFIG_PRESET,
	RUV_CONFIG_FILE,
	RUV_CONFIG_ENV,
	RUV_CONFIG_FLAG,
	RUV_N_CONFIG_ORIGINS
} ruv_config_origin;

typedef struct ruv_config_key {
	const char *name;          /* "max-tokens" */
	const char *env;           /* "RUVLLM_MAX_TOKENS" */
	const char *arg;           /* what a value looks like: "N", "FILE", "hybrid|vector|lexical" */
	const char *default_value; /* "" : none */
	const char *help;          /* one line */
	bool is_switch;            /* as a flag it may stand without a value: --key is --key yes, --no-key is --key no */
} ruv_config_key;

/* The i-th key, NULL past the end. */
RUV_API const ruv_config_key *ruv_config_key_at(int i);
/* What it is about, one of "place", "model", "compute", "generate", "search", "remember", "route", "learn", "pull", "traces",
 * "whose", "serve"; NULL past the end. */
RUV_API const char *ruv_config_key_group(int i);
/* Its index, or -1. */
RUV_API int ruv_config_key_find(const char *name);

/* All keys at their defaults. */
RUV_API int ruv_config_create(ruv_config **out, ruv_error *err);
RUV_API void ruv_config_free(ruv_config *config); /* NULL is fine */
/* Sets one key as a flag does. RUV_ENOTFOUND (the nearest key is named), RUV_EINVAL (what would be right is named). */
RUV_API int ruv_config_set(ruv_config *config, const char *name, const char *value, ruv_error *err);
/* Reads the file (NULL: $RUVLLM_CONFIG, or $XDG_CONFIG_HOME/ruvllm/config.ini, ~/.config/ruvllm/config.ini, if there is one), then
 * the environment, then the preset that they name; flags may be set before or after. Unknown keys and wrong values are errors that
 * name file and line. */
RUV_API int ruv_config_load(ruv_config *config, const char *path, ruv_error *err);
/* The file that was read, "" when there was none; valid while the config is. */
RUV_API const char *ruv_config_file(const ruv_config *config);
/* The value of the i-th key and where it comes from: `where` (NULL is fine) is "default", "preset edge", "FILE:LINE",
 * "RUVLLM_..." or "--...". Valid until the config changes. */
RUV_API const char *ruv_config_value(const ruv_config *config, int i, ruv_config_origin *origin, const char **where);

/* ---- runtime ----------------------------------------------------------------------------------------------------------- */

typedef struct ruv_runtime ruv_runtime;

/* Keeps a copy of what it needs of the config; opens nothing yet. RUV_EUNSUPPORTED for preset server-gpu: this build has no GPU. */
RUV_API int ruv_runtime_open(ruv_runtime **out, const ruv_config *config, ruv_error *err);
RUV_API void ruv_runtime_free(ruv_runtime *runtime); /* NULL is fine */

/* Says that many questions will come: models are then packed for speed at their first use, which one question would not earn back.
 * ruv_runtime_scheduler says it by itself. */
RUV_API void ruv_runtime_stays(ruv_runtime *runtime);

/* The following open at the first call and stay the runtime's. */
RUV_API int ruv_runtime_engine(ruv_runtime *runtime, ruv_engine **out, ruv_error *err);
/* The generator: `which` is a tier ("s", "m", "l"), a file, or NULL for the configured one. */
RUV_API int ruv_runtime_model(ruv_runtime *runtime, const char *which, ruv_model **out, ruv_error *err);
/* The scheduler with all tiers that are there, named "s", "m", "l", and the configured generator under the name it is configured by
 * (without directories when that is 64 bytes or more), over the runtime's engine. From the first call on questions without a
 * session of their own are answered through it. The runtime's; ruv_scheduler_drain is the caller's to call. */
RUV_API int ruv_runtime_scheduler(ruv_runtime *runtime, ruv_scheduler **out, ruv_error *err);
/* A session on that model with the configured context and key-value type; the caller frees it. */
RUV_API int ruv_runtime_session(ruv_runtime *runtime, const char *which, ruv_session **out, ruv_error *err);
RUV_API int ruv_runtime_embedder(ruv_runtime *runtime, ruv_embedder **out, ruv_error *err);
/* Vectors of texts [n_texts, dim of the encoder], host memory of the caller; see ruv_embedder_embed. Takes its turn at the encoder,
 * so that several threads may call it. */
RUV_API int ruv_runtime_embed(ruv_runtime *runtime, const char *const *texts, int n_texts, ruv_embed_kind kind, float *vectors,
                              const ruv_cancel *cancel, ruv_error *err);
/* Dimension of the encoder's vectors; negative: a status. */
RUV_API int ruv_runtime_embed_dim(ruv_runtime *runtime, ruv_error *err);
/* The memory in the data directory, made if absent, bound to the configured encoder (RUV_EMISMATCH: filled by another one). */
RUV_API int ruv_runtime_memory(ruv_runtime *runtime, ruv_memory **out, ruv_error *err);
/* Opens the memory only if it is there (RUV_ENOTFOUND) and without looking at the encoder. */
RUV_API int ruv_runtime_memory_if_any(ruv_runtime *runtime, ruv_memory **out, ruv_error *err);
/* Whose memory the configuration says. The strings live as long as the runtime. */
RUV_API ruv_memory_scope ruv_runtime_scope(const ruv_runtime *runtime);
RUV_API const char *ruv_runtime_data_dir(const ruv_runtime *runtime);
/* Where spans of work on this runtime go; NULL unless otlp-endpoint is set. */
RUV_API ruv_tracer *ruv_runtime_tracer(const ruv_runtime *runtime);

/* Where a model would be loaded from: which is "s", "m", "l", "encoder" or a file; path gets a file that exists. RUV_ENOTFOUND
 * lists the places that were looked at. */
RUV_API int ruv_runtime_find_model(const ruv_runtime *runtime, const char *which, char *path, size_t cap, ruv_error *err);

/* Was the model trained on docs/prompt-format.md, so that it answers with the sentence it used? */
RUV_API bool ruv_model_cites(const ruv_model *model);

/* ---- remembering ------------------------------------------------------------------------------------------------------- */

typedef struct ruv_remember_progress {
	int n_files, n_files_done;     /* known in advance */
	const char *path;              /* the one being read */
	int n_chunks, n_chunks_done;   /* of that file: passages to embed */
	int64_t n_bytes, n_bytes_done; /* of all files; done: of the finished ones */
	int64_t file_bytes;            /* of that file: n_chunks_done / n_chunks of it are done, too */
} ruv_remember_progress;

typedef enum ruv_remember_outcome {
	RUV_REMEMBER_ADDED,   /* why: "", or a note on how it was read: "read as Windows-1252: it is not UTF-8" */
	RUV_REMEMBER_UPDATED, /* as above */
	RUV_REMEMBER_UNCHANGED,
	RUV_REMEMBER_SKIPPED,  /* binary, too large, or without text; why says which */
	RUV_REMEMBER_FAILED,   /* could not be read; why */
	RUV_REMEMBER_FORGOTTEN /* was remembered and is gone from the directory; nodes.n_removed */
} ruv_remember_outcome;

typedef struct ruv_remember_file {
	const char *path;
	ruv_remember_outcome outcome;
	const char *why;
	ruv_memory_replaced nodes;
} ruv_remember_file;

/* One of path, text. */
typedef struct ruv_remember_params {
	const char
	    *path; /* a file or a directory (read recursively; hidden entries, symbolic links and binary files are left out) */
	const char *text; /* [n_bytes] instead of a path, e.g. standard input */
	size_t n_bytes;
	const char *name;        /* the source's name for text; NULL: "text:" and the beginning of its SHA-256 */
	const char *kind;        /* "text", "markdown", "html"; NULL: by the name's ending */
	const char *const *tags; /* [n_tags] put on every passage */
	int n_tags;
	const char *domain;
	const ruv_memory_scope *scope; /* whose memory; NULL: as configured */
	bool again;                    /* also what is unchanged */
	bool keep_missing;             /* of a directory: keep what was remembered of files that are gone from it */
	const ruv_cancel *cancel;
	void (*on_progress)(void *user, const ruv_remember_progress *progress);
	void (*on_file)(void *user, const ruv_remember_file *file); /* a file is finished */
	void *user;
} ruv_remember_params;

typedef struct ruv_remember_result {
	int n_files;                                              /* looked at */
	int n_added, n_updated, n_unchanged, n_skipped, n_failed; /* files */
	int n_forgotten;                                          /* files that are gone; not among n_files */
	int n_passages_added, n_passages_kept, n_passages_removed;
	int n_embedded; /* passages that the encoder had to read */
	int64_t n_bytes;
	double seconds;
} ruv_remember_result;

/* Reads files into passages with their place (file, lines), embeds what is new, and stores each file in one transaction:
 * interrupted at any point, what is finished stays and a second call goes on from there. A single unreadable file of a directory is
 * reported in on_file and counted; a path that is no file or directory is an error. What this scope remembers of files that are
 * gone from the directory is forgotten, after everything else. RUV_ECANCELLED: *result says how far it came; `cancel` is looked at
 * within a file as well, which is then not stored.
 */
RUV_API int ruv_remember(ruv_runtime *runtime, const ruv_remember_params *params, ruv_remember_result *result, ruv_error *err);

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

/* A passage that was found. Strings belong to the answer. */
typedef struct ruv_source {
	int number; /* its [number] in the prompt, 0: found, but not in it */
	char id[RUV_ID_SIZE];
	const char *text, *title, *source; /* source: the file */
	int first_line, last_line;
	double score;       /* fused */
	float cosine, bm25; /* 0 where it was not in that list */
	int vector_rank, lexical_rank;
	int n_tokens; /* in the prompt */
	bool cited;   /* the model pointed at it; its citation says whether the quote stands there */
} ruv_source;

typedef struct ruv_citation {
	int source;        /* index into sources: the one that has the quote, else the one that the model named */
	int named;         /* the number that the model wrote */
	const char *quote; /* the sentence as the model wrote it */
	int line;          /* the line of the file on which the quote begins; 0 when it cannot be told */
	bool verbatim;     /* the quote stands in the source, white space apart */
} ruv_citation;

/* One stage of the loop and what it took. */
typedef struct ruv_stage {
	const char *name; /* "embed", "retrieve", "route", "assemble", "weigh", "prefill", "generate", "cite", "judge", "write" */
	double ms;        /* all passes through it together */
} ruv_stage;

enum { RUV_ANSWER_MAX_STAGES = 12, RUV_ANSWER_MAX_CITATIONS = 16 };

/* How the generator was chosen. */
typedef struct ruv_answer_route {
	bool used;         /* by the router; the rest is zero otherwise */
	char tier[32];     /* that answered in the end: "s" */
	char first[32];    /* that was tried first */
	const char *why;   /* "model", "safe", "explore", "constrained": see ruv_route_why */
	float confidence;  /* of the choice, 0..1 */
	int n_escalations; /* answers that were not sure enough of themselves, so that a larger tier answered again */
} ruv_answer_route;

/* Zeroed is empty; release it with ruv_answer_release. */
typedef struct ruv_answer {
	char id[RUV_ID_SIZE]; /* names the answer in ruv_runtime_feedback */
	char *text;           /* all that the model wrote */
	const char *answer;   /* the short answer in it; all of it where the model gave none */
	bool unknown;         /* the model says that the sources do not hold the answer */
	ruv_citation citations[RUV_ANSWER_MAX_CITATIONS];
	int n_citations;
	ruv_source *sources;                   /* [n_sources] best first */
	int n_sources, n_in_prompt;            /* the rest was dropped: it did not fit, or */
	bool focused;                          /* only the best one was given, because both searches put it first */
	int n_history_dropped;                 /* of the history's oldest messages, likewise */
	int n_prompt, n_kept, n_tokens, n_ctx; /* tokens: of the prompt, of it already there, generated, of the context window */
	ruv_finish finish;
	ruv_stage stages[RUV_ANSWER_MAX_STAGES];
	int n_stages;
	uint64_t seed; /* that was sampled with */
	double total_ms, prefill_ms, decode_ms;
	double mean_logprob,
	    min_logprob; /* of the tokens that the model chose (not of a given quotation), by its own distribution; 0 without any */
	const char *model; /* name of the generator */
	ruv_answer_route route;
	ruv_verdict verdict;        /* of the programmatic checks, where there were sources; quality -1: not judged */
	bool wrote;                 /* write-back looked at it: */
	ruv_memory_written written; /* and did this */
	bool observed;              /* the learner has it */
	void *owner;
} ruv_answer;

RUV_API void ruv_answer_release(ruv_answer *answer);

/* Zeroed except for the question is the default. */
typedef struct ruv_ask_params {
	const char *question;
	const ruv_message *history; /* [n_history] earlier user and assistant messages, oldest first; without their sources */
	int n_history;
	ruv_session *session; /* to go on in, so that what it holds need not run again; NULL: one of its own */
	bool no_memory;       /* chat: no sources */
	bool chat;            /* without any source found, talk freely; otherwise that is RUV_ENOTFOUND */

	/* In place of what the configuration says; zeroed: as configured. */
	const char *model;             /* a tier ("s", "m", "l"), "auto" (the router chooses one), or a file */
	ruv_route_state *route_state;  /* of the conversation, for the router; NULL: a question by itself */
	const ruv_memory_scope *scope; /* whose memory */
	const ruv_sampling *sampling;
	int max_tokens;
	int n_sources;                  /* passages retrieved */
	const ruv_trace_context *trace; /* what the answer's spans are part of; NULL: a trace of its own */

	/* What the answer must follow (grammar.h), grammar_bytes of text; NULL: free. A model that quotes its sources does not
	 * then: the form is the caller's. */
	const char *grammar;
	size_t grammar_bytes;
	ruv_grammar_kind grammar_kind;

	const ruv_cancel *cancel;
	void (*on_sources)(void *user, const ruv_answer *so_far); /* after retrieval, before the first token */
	ruv_on_piece *on_piece;                                   /* the text as it is generated; NULL is fine */
	void *user;
} ruv_ask_params;

/* The loop: embed the question, retrieve, assemble the context, generate, find what was cited.
 *
 *   RUV_EINVAL      no question
 *   RUV_ENOTFOUND   a model file; or no source at all, unless `chat` or `no_memory` is set
 *   RUV_ECONTEXT    question and history alone do not fit
 *   RUV_EFORMAT, RUV_EUNSUPPORTED, RUV_ELIMIT  the grammar (ruv_grammar_open)
 *   RUV_EMISMATCH   the memory was filled by another encoder
 *   RUV_ECANCELLED  before the first token; later it is no failure and finish says so */
RUV_API int ruv_ask(ruv_runtime *runtime, const ruv_ask_params *params, ruv_answer *answer, ruv_error *err);

/* What the user says about an answer of this runtime. */
typedef struct ruv_feedback_result {
	bool wrote; /* memory has it now: */
	ruv_memory_written written;
	bool routed;  /* the router has the outcome */
	bool learned; /* the learner has it */
} ruv_feedback_result;

/* Takes the user's word for an answer: an accepted or corrected one becomes a memory that the user vouches for (whatever the
 * setting write-back says), the router that chose the tier learns the outcome, and the learner, when the setting learn is on,
 * trains on it later. `correction` is the right answer with RUV_FEEDBACK_CORRECT, else NULL. result may be NULL.
 *
 *   RUV_ENOTFOUND  no such answer among the last 256 of this runtime
 *   RUV_EINVAL     a correction is missing, or there is one where none belongs */
RUV_API int ruv_runtime_feedback(ruv_runtime *runtime, const char *answer_id, ruv_feedback feedback, const char *correction,
                                 ruv_feedback_result *result, ruv_error *err);

/* The router of the bundled tiers, opened at its first use. RUV_ENOTFOUND: there is no router file. */
RUV_API int ruv_runtime_router(ruv_runtime *runtime, ruv_router **out, ruv_error *err);
/* The router of agents, opened at its first use: the bundled agents and what this data directory was taught (DATA_DIR/agents.log).
 */
RUV_API int ruv_runtime_agents(ruv_runtime *runtime, ruv_agent_router **out, ruv_error *err);
/* How it sees a task: vector [ruv_runtime_embed_dim]. Of a task that is longer than the encoder reads, the beginning. */
RUV_API int ruv_runtime_task_vector(ruv_runtime *runtime, const char *task, float *vector, const ruv_cancel *cancel,
                                    ruv_error *err);
/* The learner of the configured generator in DATA_DIR/learn; its thread starts at the first use. */
RUV_API int ruv_runtime_learner(ruv_runtime *runtime, ruv_learner **out, ruv_error *err);

/* Those of the two that were opened already, else NULL. */
RUV_API ruv_router *ruv_runtime_router_if_open(ruv_runtime *runtime);
RUV_API ruv_learner *ruv_runtime_learner_if_open(ruv_runtime *runtime);

/* Only the first half: what memory has for a question. As ruv_ask fills it, without text. */
RUV_API int ruv_retrieve(ruv_runtime *runtime, const ruv_ask_params *params, ruv_answer *answer, ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif

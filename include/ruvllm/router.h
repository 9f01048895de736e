/* router.h - which model, context, temperature and top-p a question gets: features, the FastGRNN router, past outcomes, cascade.
 *
 * A router looks at 128 numbers about a question (docs/router.md lists them) and at a hidden state that it carries through a
 * conversation, and says which tier should answer. It blends a trained network with the nearest past outcomes; what the blend is
 * was decided on held-out data when it was trained. It never calls a model: embeddings and search results come in.
 *
 *     ruv_route_input input = {.text = question, .embedding = vector, .dim = dim, .hits = hits, .n_hits = n, ...};
 *     ruv_router_decide(router, &state, &input, &decision, &err);     decision.tier, .context, .temperature, ...
 *     ... answer with that tier ...
 *     if (ruv_router_escalate(router, &decision, &signs, &next)) ... answer again with tier `next` ...
 *     ruv_router_observe(router, &decision, &outcome, &err);          what became of it: learned from later
 *
 * Usable from C11 and C++.
 * Threads: any number of threads decide and observe on one router; ruv_router_refine may run beside them (one at a time) and swaps
 * the new weights in atomically. A ruv_route_state belongs to one conversation, so to one thread at a time. */
#ifndef RUVLLM_ROUTER_H
#define RUVLLM_ROUTER_H

#include "ruvllm/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
	RUV_ROUTE_FEATURES = 128,
	RUV_ROUTE_MAX_TIERS = 4,
	RUV_ROUTE_CONTEXTS = 5, /* 256, 512, 1024, 2048, 4096 tokens */
	RUV_ROUTE_MAX_HIDDEN = 64,
	RUV_ROUTE_LANGUAGES = 8,
	RUV_ROUTE_DOMAINS = 16,
	RUV_ROUTE_QUERY_TYPES = 6,
	RUV_ROUTE_MAX_HITS = 64 /* of a search that features look at */
};

/* ---- features ---------------------------------------------------------------------------------------------------------- */

/* Where each group of the 128 numbers begins (FR-003's order). */
enum {
	RUV_FEATURE_TOKENS = 0,
	RUV_FEATURE_LANGUAGE = 1, /* [8] */
	RUV_FEATURE_DOMAIN = 9,   /* [16] */
	RUV_FEATURE_USER = 25,
	RUV_FEATURE_TYPE = 26, /* [6] */
	RUV_FEATURE_NORM = 32,
	RUV_FEATURE_COMPONENTS = 33, /* [8] */
	RUV_FEATURE_ENTROPY = 41,
	RUV_FEATURE_SPARSITY = 42,
	RUV_FEATURE_CLUSTER = 43, /* [4] */
	RUV_FEATURE_LARGEST = 47,
	RUV_FEATURE_RETRIEVED = 48,
	RUV_FEATURE_DISTANCES = 49, /* mean, deviation, least, greatest */
	RUV_FEATURE_HIT_ENTROPY = 53,
	RUV_FEATURE_DEPTH = 54,
	RUV_FEATURE_RECALL = 55,
	RUV_FEATURE_DENSITY = 56,   /* [16] */
	RUV_FEATURE_COHERENCE = 72, /* [24] */
	RUV_FEATURE_BUDGET = 96,
	RUV_FEATURE_DEVICE = 97,   /* [4] */
	RUV_FEATURE_PRIVACY = 101, /* [4] */
	RUV_FEATURE_MEMORY = 105,
	RUV_FEATURE_BATTERY = 106,
	RUV_FEATURE_CONCURRENT = 107,
	RUV_FEATURE_HISTORY = 108, /* [16] */
	RUV_FEATURE_QUEUE = 124,
	RUV_FEATURE_PAGES = 125,
	RUV_FEATURE_PREFIX = 126,
	RUV_FEATURE_ADAPTER = 127
};

/* The name of a feature ("language.de", "density.03"), NULL out of range; `help` (NULL is fine) gets one line about it. */
RUV_API const char *ruv_feature_name(int i, const char **help);

typedef enum ruv_device_class { RUV_DEVICE_EDGE, RUV_DEVICE_MOBILE, RUV_DEVICE_SERVER, RUV_DEVICE_CLUSTER } ruv_device_class;
typedef enum ruv_privacy { RUV_PRIVACY_PUBLIC, RUV_PRIVACY_INTERNAL, RUV_PRIVACY_PERSONAL, RUV_PRIVACY_SECRET } ruv_privacy;

/* One search hit as far as features look at it. */
typedef struct ruv_route_hit {
	const char *text, *source; /* NULL is fine */
	const float *vector;       /* [dim], any length; NULL: not known */
	double score;              /* what hits are ordered by */
	float cosine;              /* to the question; 0 when it has none */
	int vector_rank, lexical_rank;
} ruv_route_hit;

/* The machine and the service at this moment. Zeroed is "not known, unlimited". */
typedef struct ruv_route_system {
	double latency_budget_ms; /* 0: none */
	ruv_device_class device;
	ruv_privacy privacy;
	int64_t memory_available;   /* bytes; 0: not known */
	double battery;             /* (0, 1]; 0: runs on mains, or not known */
	int n_concurrent, n_queued; /* requests running and waiting */
	double pages_used;          /* share of the KV pages in use, 0..1 */
	double prefix_hits;         /* share of prompt tokens that the prefix cache had lately, 0..1 */
	bool adapter_active;
} ruv_route_system;

/* Fills in what the operating system knows (device class from cores, memory and battery; memory from /proc, battery from /sys) and
 * leaves the service's own numbers alone. Reads files: call it every second or so, not for every question. */
RUV_API void ruv_route_system_fill(ruv_route_system *system);

/* What a decision is made of. The caller keeps everything alive during the call; zeros and NULL are "none". */
typedef struct ruv_route_input {
	const char *text; /* the question, UTF-8 */
	int n_tokens;     /* of it; 0: estimated from its bytes */
	const float *embedding;
	int dim; /* [dim]; NULL and 0 without an encoder */
	const ruv_route_hit *hits;
	int n_hits;           /* best first; those from RUV_ROUTE_MAX_HITS on are not looked at */
	int k;                /* how many hits were asked for */
	int n_both, n_vector; /* candidates of both lists of a hybrid search, of the vector list; 0: not known */
	double ann_recall;    /* of the vector search by itself: 1 when exact; 0: not known, taken as 1 */
	int graph_depth;      /* greatest number of edges from a hit to what the graph added */
	int user_requests;    /* of this user within the last hour */
	const ruv_route_system *system;
} ruv_route_input;

/* ---- a conversation ---------------------------------------------------------------------------------------------------- */

/* What the router carries through a conversation. Zeroed is a new one. Plain memory: may be copied and stored. */
typedef struct ruv_route_state {
	float hidden[RUV_ROUTE_MAX_HIDDEN];
	int n_turns;
	float quality[RUV_ROUTE_MAX_TIERS]; /* running mean of each tier in this conversation */
	int n_answers[RUV_ROUTE_MAX_TIERS];
} ruv_route_state;

/* ---- decisions --------------------------------------------------------------------------------------------------------- */

typedef enum ruv_route_why {
	RUV_ROUTE_MODEL,      /* the blend's best */
	RUV_ROUTE_SAFE,       /* confidence was too low: the safe tier */
	RUV_ROUTE_EXPLORE,    /* drawn, to learn what the others would do */
	RUV_ROUTE_CONSTRAINED /* the best was not available or does not fit the memory or latency budget */
} ruv_route_why;

/* "model", "safe", "explore", "constrained". */
RUV_API const char *ruv_route_why_name(int why);

typedef struct ruv_route_decision {
	uint64_t id; /* of this router; ties an outcome to it */
	int tier;    /* index into the router's tiers */
	int best;    /* the tier it holds best, whatever was drawn */
	ruv_route_why why;
	float probabilities[RUV_ROUTE_MAX_TIERS]; /* blended */
	float expected[RUV_ROUTE_MAX_TIERS];      /* quality 0..1 that each tier is expected to reach */
	float context_probabilities[RUV_ROUTE_CONTEXTS];
	int context;              /* tokens: the bin it chose */
	float temperature, top_p; /* 0..2, 0..1 */
	float confidence;         /* 0..1: that the choice is right or as good */
	float propensity;         /* probability with which `tier` was drawn; 1 without exploration */
	float neighbours;         /* weight of past outcomes in the blend, 0..1 */
	float features[RUV_ROUTE_FEATURES];
	int64_t ns; /* that the decision took */
} ruv_route_decision;

/* What came of it. */
typedef struct ruv_route_outcome {
	int tier;          /* that answered in the end */
	float quality;     /* 0..1: judge, user's feedback, or F1 */
	double latency_ms; /* of the whole answer */
	int n_prompt_tokens, n_answer_tokens;
} ruv_route_outcome;

/* ---- router ------------------------------------------------------------------------------------------------------------ */

typedef struct ruv_router ruv_router;

typedef struct ruv_router_tier {
	char name[32];                      /* as the configuration names it: "s", "m", "l" */
	int64_t n_params;                   /* cost of a token */
	int64_t n_bytes;                    /* of memory */
	double quality, latency_ms, tokens; /* means over the outcomes it was trained on */
} ruv_router_tier;

/* Zeroed takes the values in brackets. */
typedef struct ruv_router_options {
	float min_confidence;  /* below it the safe tier answers [what training chose] */
	const char *safe_tier; /* [the largest] */
	float explore;         /* epsilon: share of decisions that are drawn evenly [0] */
	float thompson;        /* > 0: draw tiers by Thompson sampling with this temperature instead of epsilon [0] */
	int refine_every;      /* observations after which ruv_router_refine_due says so [200] */
	uint64_t seed;         /* of the draws [from the clock] */
	const char *log_path;  /* observations are appended here and read back at open; NULL: kept in memory only */
	bool no_int8;          /* run the float cell */
} ruv_router_options;

/* Reads a router file. RUV_ENOTFOUND, RUV_EFORMAT, RUV_EUNSUPPORTED (a newer version), RUV_ECORRUPT (its checksum). */
RUV_API int ruv_router_open(ruv_router **out, const char *path, const ruv_router_options *options, ruv_error *err);
RUV_API void ruv_router_free(ruv_router *router); /* NULL is fine */

/* Which tiers it knows, in order of size: i-th or NULL. Valid while the router is. */
RUV_API const ruv_router_tier *ruv_router_tier_at(const ruv_router *router, int i);
RUV_API int ruv_router_n_tiers(const ruv_router *router);
/* Index of a tier's name, or -1. */
RUV_API int ruv_router_tier_find(const ruv_router *router, const char *name);
/* A tier that cannot be used now (its file is missing) is never chosen. All are available at open. */
RUV_API int ruv_router_set_available(ruv_router *router, int tier, bool available, ruv_error *err);

/* Decides. state may be NULL (a question by itself); it is advanced otherwise. Allocates nothing.
 * RUV_EMISMATCH when the embedding has another dimension than the router was trained with; RUV_EINVAL without text; RUV_ENOTFOUND
 * when no tier is available. */
RUV_API int ruv_router_decide(ruv_router *router, ruv_route_state *state, const ruv_route_input *input,
                              ruv_route_decision *decision, ruv_error *err);

/* How sure an answer is of itself. */
typedef struct ruv_route_signs {
	double mean_logprob; /* of its tokens (natural logarithm) */
	double min_logprob;  /* of its least sure token */
	bool unknown;        /* it says that it does not know */
	bool grounded;       /* its quote stands in a source */
	bool cut_off;        /* it ended for want of tokens */
	float judged;        /* 0..1; negative: not judged */
} ruv_route_signs;

/* Cascade: after an answer of decision->tier, is a larger tier worth the wait? True with *next the tier to try. The bound was
 * chosen in training from the same signs; a tier without one is never escalated from. */
RUV_API bool ruv_router_escalate(const ruv_router *router, const ruv_route_decision *decision, const ruv_route_signs *signs,
                                 int *next);
/* The probability that the tier's answer is good enough, from its signs; negative when the router was trained without signs. */
RUV_API float ruv_router_trust(const ruv_router *router, int tier, const ruv_route_signs *signs);

/* Notes an outcome: it becomes a neighbour at once, moves the history that features see, and is learned from by refine.
 * state as given to decide. Durable when the router has a log. */
RUV_API int ruv_router_observe(ruv_router *router, ruv_route_state *state, const ruv_route_decision *decision,
                               const ruv_route_outcome *outcome, ruv_error *err);

/* ---- learning online --------------------------------------------------------------------------------------------------- */

/* Have refine_every observations come since the last refinement? */
RUV_API bool ruv_router_refine_due(const ruv_router *router);

typedef struct ruv_router_refined {
	int n_observations, n_steps;
	double before, after; /* utility on the held-out part, by importance-weighted estimate and the bundled validation set */
	double interval[2];   /* 95 % of after - before, bootstrapped */
	bool kept;            /* false: the gate did not open, and the weights are what they were */
} ruv_router_refined;

/* Trains a copy of the weights on the observations (importance-weighted by the logged propensities, clipped, held back by EWC),
 * compares it on held-out data and swaps it in when it is better; otherwise nothing changes. Writes `path` when that is given and
 * the copy was kept; what was there is kept as path.previous. Takes up to some seconds; decisions go on meanwhile. */
RUV_API int ruv_router_refine(ruv_router *router, const char *path, ruv_router_refined *result, ruv_error *err);
/* Puts path.previous back and swaps it in. RUV_ENOTFOUND when there is none. */
RUV_API int ruv_router_rollback(ruv_router *router, const char *path, ruv_error *err);

typedef struct ruv_router_info {
	int version; /* of the weights: grows with every refinement that was kept */
	int hidden, rank, n_outcomes, n_observations, n_refined, n_rolled_back;
	double density;      /* share of the input weights that are not zero */
	int64_t n_bytes;     /* of the cell as it runs */
	const char *method;  /* "knn", "fastgrnn" or "blend": what held-out data preferred */
	int64_t trained_ms;  /* since 1970 */
	const char *encoder; /* "" when trained without embeddings */
	const char *encoder_version;
	double mu, lambda; /* of the utility: quality - lambda * seconds - mu * cost */
} ruv_router_info;
RUV_API void ruv_router_get_info(const ruv_router *router, ruv_router_info *info);

#ifdef __cplusplus
}
#endif
#endif

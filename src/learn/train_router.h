/* train_router.h - from collected outcomes to a router file, and what a router is worth on outcomes that it has not seen.
 *
 * Outcomes are JSON Lines as `ruvllm router collect` writes them (docs/router.md): a first line that names tiers and encoder, then
 * one line a question with its features, its embedding and what every tier made of it.
 * Split: whole groups (articles) are kept for the test and for choosing settings; of the groups that are trained on, some questions
 * are kept back as well. So there are four parts, and nothing of an unseen article is in training.
 * Threads: one. Layer: learn. */
#ifndef RUV_LEARN_TRAIN_ROUTER_H
#define RUV_LEARN_TRAIN_ROUTER_H

#include "base/arena.h"
#include "learn/router_weights.h"

typedef struct ruv_route_result {
	bool known, cut_off, unknown, grounded;
	float quality; /* 0..1 */
	double latency_ms, mean_logprob, min_logprob;
	int n_prompt, n_answer;
	float temperature, top_p;
	float judged; /* 0..1 by the programmatic checks; negative: not judged */
} ruv_route_result;

typedef enum ruv_route_part {
	RUV_PART_TRAIN,      /* "seen": asked again */
	RUV_PART_NEW,        /* new questions about groups that were trained on */
	RUV_PART_VALIDATION, /* groups for choosing settings and for the gate */
	RUV_PART_TEST,       /* "unseen": groups that nothing was chosen on */
	RUV_N_ROUTE_PARTS
} ruv_route_part;
const char *ruv_route_part_name(int part);

typedef struct ruv_route_sample {
	const char *id, *group;
	float features[RUV_ROUTE_FEATURES];
	const float *vector; /* [dim] or NULL */
	int min_context;     /* tokens that the prompt needs at least for the answer to be in it; 0: not known */
	ruv_route_result results[RUV_ROUTE_MAX_TIERS];
	ruv_route_part part;
} ruv_route_sample;

typedef struct ruv_route_data {
	ruv_router_tier tiers[RUV_ROUTE_MAX_TIERS];
	int n_tiers, dim;
	char encoder[64], encoder_version[24];
	ruv_route_sample *samples; /* [n] only those with a result of every tier */
	int n, cap, n_incomplete;
	ruv_arena arena;
} ruv_route_data;

/* Adds a file's rows. A last line that was cut off is left out; anything else malformed is RUV_EFORMAT with its line. */
int ruv_route_data_read(ruv_route_data *data, const char *path, ruv_error *err);
void ruv_route_data_release(ruv_route_data *data);
/* Assigns the parts. Deterministic for a seed. */
void ruv_route_data_split(ruv_route_data *data, uint64_t seed);

/* Zeros take the value in brackets. */
typedef struct ruv_router_training {
	int hidden;        /* [48] */
	int rank;          /* of U [16]; negative: dense */
	double density;    /* of W [0.3] */
	bool shared;       /* one W and U for both gates */
	double mu, lambda; /* [0.3], [0.05] a second */
	double regret;     /* points that the cascade may lose to always asking the largest tier [0.05] */
	double ewc;        /* lambda of EWC with `from` [1] */
	int n_epochs;      /* at most [80] */
	int n_components;  /* of the neighbours' space [64] */
	uint64_t seed;
	const char *from;    /* a router of the same shape to go on from; NULL: from nothing */
	const void *classes; /* [n_class_bytes] packed text classifiers, stored with it; NULL: none */
	size_t n_class_bytes;
	bool (*progress)(void *user, int n_done, int n_total, double loss, double utility); /* false: stop */
	void *user;
} ruv_router_training;

/* Trains on the split data. */
int ruv_router_train(ruv_router_weights **out, ruv_route_data *data, const ruv_router_training *training, ruv_error *err);

/* ---- what policies are worth ------------------------------------------------------------------------------------------- */

typedef enum ruv_route_policy {
	RUV_POLICY_SMALL,
	RUV_POLICY_BIG,
	RUV_POLICY_RANDOM, /* its expectation, every tier alike */
	RUV_POLICY_KNN,
	RUV_POLICY_FASTGRNN,
	RUV_POLICY_BLEND,
	RUV_POLICY_ROUTER,  /* the method that training chose, with its safe tier */
	RUV_POLICY_CASCADE, /* that, escalating when the answer's signs say so; costs and waits for both answers */
	RUV_POLICY_LADDER,  /* the smallest always first, escalating */
	RUV_POLICY_ORACLE,  /* the greatest utility, known afterwards */
	RUV_N_ROUTE_POLICIES
} ruv_route_policy;
const char *ruv_route_policy_name(int policy);

typedef struct ruv_policy_result {
	int n;
	double accuracy;                /* share that chose the oracle's tier */
	double cheapest_good;           /* the cheapest of those within 0.1 points of the best quality: ties go to the cheaper */
	double as_good;                 /* a tier within 0.05 of the oracle's utility, all that was spent counted */
	double quality;                 /* mean, 1..5 */
	double quality_regret;          /* always-big's mean minus it */
	double regret_low, regret_high; /* 95 % by bootstrap */
	double latency_ms, latency_regret_ms; /* to the oracle */
	double cost, cost_regret;             /* always-big's mean is 1; over the oracle's, as a share of always-big's */
	double utility;
	double shares[RUV_ROUTE_MAX_TIERS]; /* of questions answered last by each tier */
	double escalated;
} ruv_policy_result;

/* Brings freshly read rows to the form that `weights` sees: principal components by its basis, history as in training. */
void ruv_route_data_prepare(ruv_route_data *data, const ruv_router_weights *weights);
void ruv_route_evaluate(const ruv_router_weights *weights, const ruv_route_data *data, ruv_route_part part,
                        ruv_policy_result results[RUV_N_ROUTE_POLICIES]);

/* Mean utility of a network's choices on gate rows, for the gate of online learning. */
double ruv_router_gate_utility(const ruv_router_shape *shape, const float *params, const ruv_router_gate_row *rows, int n);

/* Adam's state and one step; shared with online refinement. */
typedef struct ruv_adam {
	float *m, *v;
	int n, step;
	float rate, decay;
} ruv_adam;
int ruv_adam_init(ruv_adam *adam, int n, float rate, float decay, ruv_error *err);
void ruv_adam_release(ruv_adam *adam);
void ruv_adam_step(ruv_adam *adam, float *params, const float *gradient);

#endif

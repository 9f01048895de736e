/* agent_model.h - what the agent router is made of: labelled tasks, a linear head, nearest tasks by meaning and by words, and how
 * the four are weighed. Threads: readers together, or one writer (agent_router.c locks). Layer: learn. */
#ifndef RUV_LEARN_AGENT_MODEL_H
#define RUV_LEARN_AGENT_MODEL_H

#include "memory/hnsw.h"
#include "ruvllm/agent.h"

enum {
	RUV_AGENT_BUCKETS = 16384,      /* of hashed grams */
	RUV_AGENT_NONE = RUV_AGENT_MAX, /* the class of tasks that are nobody's */
	RUV_AGENT_CLASSES = RUV_AGENT_MAX + 1,
	RUV_AGENT_MAX_GRAMS = 1024,
	RUV_AGENT_VIEWS = 3 /* head, meaning, words */
};

typedef struct ruv_agent {
	char name[RUV_AGENT_NAME];
	char *purpose;
	ruv_task_type type;
	bool used, bundled;
	int n_examples, n_taught, n_good, n_bad;
} ruv_agent;

/* A labelled task. sign -1: an outcome that went badly there; weight 0: gone. */
typedef struct ruv_agent_task {
	char *text;
	float *vector; /* [stride] of length 1, zeros behind dim; NULL: none */
	int agent;     /* or RUV_AGENT_NONE */
	float weight;  /* 1, -1 */
	bool is_outcome, taught;
	float complexity; /* negative: not labelled */
	float self_score; /* BM25 of the task with itself */
	int n_words;
} ruv_agent_task;

/* The numbers that training chooses. */
typedef struct ruv_agent_settings {
	float view[RUV_AGENT_VIEWS]; /* weight of each view's log-probabilities */
	float band;                  /* of the kernel over cosines */
	float temperature;           /* of the blend, calibrated */
	float oos[6];       /* logistic regression of out-of-scope: constant, head's none, cosine, words, confidence, entropy */
	float threshold;    /* of out-of-scope */
	float vector_scale; /* of the embedding among the head's inputs */
	float complexity[8];
} ruv_agent_settings;

typedef struct ruv_agent_model {
	ruv_agent agents[RUV_AGENT_MAX];
	ruv_agent_task *tasks; /* [n_tasks] */
	int n_tasks, cap;
	int dim, stride; /* of vectors; stride a multiple of 16 */
	ruv_agent_settings settings;
	float *weights; /* [RUV_AGENT_BUCKETS + dim, RUV_AGENT_CLASSES] */
	float bias[RUV_AGENT_CLASSES];
	float *idf; /* [RUV_AGENT_BUCKETS] of grams */
	/* Postings of words, by hash: entries of a list, newest first. */
	struct posting {
		int task, next;
		float count;
	} * postings;
	int n_postings, postings_cap, *heads; /* [RUV_AGENT_BUCKETS], -1: none */
	int *frequency;                       /* [RUV_AGENT_BUCKETS] tasks with the word */
	double total_words;
	ruv_hnsw *index; /* NULL without vectors */
} ruv_agent_model;

int ruv_agent_model_init(ruv_agent_model *model, int dim, ruv_error *err);
void ruv_agent_model_release(ruv_agent_model *model);
/* Index of an agent's name, or -1. */
int ruv_agent_model_find(const ruv_agent_model *model, const char *name);
/* RUV_ELIMIT when there are RUV_AGENT_MAX. */
int ruv_agent_model_agent(ruv_agent_model *model, const char *name, const char *purpose, ruv_task_type type, bool bundled,
                          ruv_error *err);
/* A copy of the task joins every view but the head. Returns its index or a negative status. */
int ruv_agent_model_add(ruv_agent_model *model, int agent, const char *text, const float *vector, float weight, bool is_outcome,
                        bool taught, float complexity, ruv_error *err);
/* Trains the head from nothing on all tasks; exact, so the order in which they came does not matter. Some tenths of a second. */
int ruv_agent_model_fit(ruv_agent_model *model, ruv_error *err);

/* One task as every view sees it. `skip`: a task to leave out (-1: none). */
typedef struct ruv_agent_view {
	float probability[RUV_AGENT_VIEWS][RUV_AGENT_MAX]; /* over the agents in use; a view without evidence is even */
	float blend[RUV_AGENT_MAX];
	float none;                   /* the head's probability of nobody's */
	float cosine, words;          /* of the nearest task of any agent */
	float quality[RUV_AGENT_MAX]; /* from outcomes near it */
	int nearest[RUV_AGENT_MAX];   /* task of each agent that is nearest; -1: none */
	float nearest_score[RUV_AGENT_MAX];
	float out_of_scope, complexity;
	int best;
} ruv_agent_view;
int ruv_agent_model_view(ruv_agent_model *model, const char *text, const float *vector, int skip, ruv_agent_view *view,
                         ruv_error *err);
/* Blends, judges scope and complexity again from the views, after the settings changed. */
void ruv_agent_model_blend(const ruv_agent_model *model, const char *text, ruv_agent_view *view);
/* The numbers of `settings.oos`. */
void ruv_agent_oos_numbers(const ruv_agent_model *model, const ruv_agent_view *view, float numbers[6]);
/* The numbers of `settings.complexity`. */
void ruv_agent_complexity_numbers(const char *text, float numbers[8]);
/* Up to three words of the task that speak for the agent most, as "a", "b", "c" into text[0..cap); "" when none does. */
void ruv_agent_model_words(const ruv_agent_model *model, const char *task, int agent, char *text, size_t cap);

#endif

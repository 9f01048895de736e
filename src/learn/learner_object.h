/* learner_object.h - what the learner's files share: its journal, its examples, its measurements.
 *
 * Locks, taken in this order: `work` guards everything that trains or measures (model, adapters, replay, journal); `lock` guards
 * the queue, the ring of recent interactions and the counters; `adapter_lock` the cached serving adapter. observe and feedback take
 * `lock` alone, so that they never wait for training. Layer: learn. */
#ifndef RUV_LEARN_LEARNER_OBJECT_H
#define RUV_LEARN_LEARNER_OBJECT_H

#include <pthread.h>
#include <stdatomic.h>

#include "learn/curriculum.h"
#include "learn/ewc.h"
#include "learn/microlora.h"
#include "learn/replay.h"
#include "learn/sql.h"
#include "ruvllm/learn.h"

enum {
	RUV_LEARN_RING = 4096,      /* interactions that feedback may name */
	RUV_LEARN_MAX_TOKENS = 512, /* of an example; longer ones are skipped */
	RUV_LEARN_MAX_TASKS = 64,
	RUV_LEARN_BATCH = 4,           /* examples of a background step */
	RUV_LEARN_REPLAYED = 3,        /* examples replayed beside each interaction */
	RUV_LEARN_DISTRACTORS = 3,     /* wrong answers that a held-out one is compared with */
	RUV_LEARN_ANCHOR_TOKENS = 128, /* of one anchor in a step */
	RUV_LEARN_ANCHOR_WEIGHT = 32   /* of its divergence, beside 1 for the examples' loss */
};
/* Share of a question's tokens that a step leaves out, drawn anew each time: what is learned has to do with fewer words, and so
 * does not hang on one wording. */
#define RUV_LEARN_WORD_DROPOUT 0.15
/* How a prompt with sources begins. */
#define RUV_LEARN_SOURCES "Sources:\n"

/* A pair that was taught, in text and in tokens. */
typedef struct ruv_lesson {
	char *question, *answer; /* as trained on: question is the whole user message */
	bool sourced;            /* sources stand in it */
	ruv_example example;
} ruv_lesson;

typedef struct ruv_seen {
	ruv_interaction what; /* strings and vectors are ours */
	bool recorded;        /* its trajectory is in the bank */
} ruv_seen;

typedef struct ruv_queued {
	int kind; /* 0: an interaction to judge by its quality; 1: feedback */
	ruv_feedback feedback;
	ruv_interaction what; /* a copy of what it is about */
	char *correction;
} ruv_queued;

struct ruv_learner {
	ruv_learner_options options; /* strings ours, defaults filled in */
	char *dir, *user;

	pthread_mutex_t work;
	ruv_model *model;
	ruv_backward *backward;
	ruv_microlora *candidate, *live; /* live: what the live version says, zero when there is none */
	ruv_ewc *ewc;
	ruv_replay *replay;
	ruv_lesson *lessons; /* [n_lessons] trained on: for the shuffled control and as wrong answers */
	int n_lessons, cap_lessons;
	ruv_lesson *held; /* [n_held] never trained on */
	int n_held, cap_held;
	ruv_example *anchors; /* [n_anchors], of base_text */
	ruv_example *suite;   /* [n_suite] */
	int n_anchors, n_suite, next_anchor;
	bool drawn; /* anchors hold what the model drew */
	char *tasks[RUV_LEARN_MAX_TASKS];
	int n_tasks, task; /* task: of the last interaction, -1: none yet */
	sqlite3 *journal;
	ruv_bank *bank;
	ruv_rng rng;
	int since_background, lock_file;
	bool dirty, opened; /* dirty: the candidate on disk is older */

	pthread_mutex_t lock;
	pthread_cond_t wake, idle;
	ruv_queued *queue; /* [queue_capacity] ring */
	int first, n_queued;
	bool busy, stop, has_thread;
	ruv_seen *ring; /* [RUV_LEARN_RING] */
	int64_t n_ring;
	ruv_learner_status status; /* counters */
	bool paused;
	pthread_t thread;

	atomic_int live_version;
	pthread_mutex_t adapter_lock;
	ruv_adapter *adapter; /* of adapter_version for adapter_model */
	ruv_model *adapter_model;
	int adapter_version;
};

/* ---- anchors.c ---- */

/* Prose anchors and the base suite. */
int ruv_anchors_open(ruv_learner *learner, ruv_error *err);
/* Adds the texts that the model itself draws, once: from DIR/anchors.bin or anew (some seconds). */
int ruv_anchors_draw(ruv_learner *learner, ruv_error *err);

/* ---- lessons.c ---- */

/* The example "user says question, assistant answers": every token of the answer and its end are targets, weights sum to 1.
 * RUV_ELIMIT when longer than RUV_LEARN_MAX_TOKENS. */
int ruv_lesson_make(ruv_lesson *out, const ruv_model *model, const char *question, const char *answer, int task, ruv_error *err);
void ruv_lesson_release(ruv_lesson *lesson);
/* The example without some of its free tokens, into room for example->n of each; returns how many are left. */
int ruv_example_thin(const ruv_example *example, ruv_rng *rng, ruv_token *tokens, float *weight);
/* A plain text's first max_tokens tokens, all of them targets. */
int ruv_lesson_text(ruv_example *out, const ruv_model *model, const char *text, int max_tokens, ruv_error *err);

/* One training step on examples [n] (and n_anchors anchors), on `lora`. */
int ruv_learner_step(ruv_learner *learner, ruv_microlora *lora, const ruv_example *const *examples, int n, int n_anchors,
                     ruv_ewc *ewc, double *loss, ruv_error *err);
/* n_epochs passes over the lessons by the curriculum, the rate rising over the first twentieth and falling to one, with
 * `answers_of` (NULL: their own) saying whose answer each question gets.
 */
int ruv_learner_epochs(ruv_learner *learner, ruv_microlora *lora, int n_epochs, const int *answers_of, ruv_ewc *ewc,
                       ruv_error *err);
/* What the gate compares, for one adapter (NULL: the bare model): score [n_held], old [n_held] of earlier tasks, n_old, base nll.
 */
int ruv_learner_measure(ruv_learner *learner, const ruv_microlora *lora, double *score, double *old, int *n_old, double *base_nll,
                        ruv_error *err);

/* ---- journal.c ---- */

int ruv_journal_open(ruv_learner *learner, ruv_error *err);
int ruv_journal_load(ruv_learner *learner, ruv_error *err); /* lessons, held-out ones, tasks, counters */
int ruv_journal_lesson(ruv_learner *learner, const char *task, const char *question, const char *answer, bool held, ruv_error *err);
int ruv_journal_event(ruv_learner *learner, const char *what, int version, const ruv_gate_result *gate, ruv_error *err);
int ruv_journal_set(ruv_learner *learner, const char *key, int64_t value, ruv_error *err);
int ruv_journal_get(ruv_learner *learner, const char *key, int64_t otherwise, int64_t *value, ruv_error *err);
/* DIR/adapters/v000012.gguf into path [cap]. */
void ruv_journal_version_path(const ruv_learner *learner, int version, char *path, size_t cap);

/* Adds a lesson (taken over) to the right list and to the replay. */
int ruv_learner_keep(ruv_learner *learner, ruv_lesson *lesson, bool held, ruv_error *err);
/* Is it being closed? */
bool ruv_learner_stops(ruv_learner *learner);
/* The number of a task, made when it is new. */
int ruv_learner_task(ruv_learner *learner, const char *name, ruv_error *err);

#endif

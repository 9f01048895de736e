/* scheduler_object.h - what is inside the scheduler, for its three files.
 *
 * scheduler.c: the engine thread's steps. scheduler_models.c: models, memory, queues, statistics. scheduler_jobs.c: requests.
 * Who touches what is said at each member: E the engine thread alone; M under `mutex`; C constant once made. Layer: infer. */
#ifndef RUV_INFER_SCHEDULER_OBJECT_H
#define RUV_INFER_SCHEDULER_OBJECT_H

#include <pthread.h>

#include "infer/prefix_cache.h"
#include "infer/speculative.h"
#include "ruvllm/scheduler.h"

enum { RUV_SCHEDULER_MAX_RUNNING = 256 };

/* One choice of a job. E, but for the list. */
typedef struct ruv_sequence {
	ruv_job *job;
	int index;
	uint64_t order;            /* of arrival; kept over preemption */
	struct ruv_sequence *next; /* M: in its model's waiting list */
	/* while it runs */
	ruv_session *session;
	int n_known;
	uint64_t root, key; /* of the prefix chain, and behind n_keyed pages */
	int n_keyed;
	ruv_lane lane;
	bool in_step, counted_hit;
	int step_place;
	/* from its first admission on */
	bool has_stream;
	ruv_stream stream;
	ruv_sampler *sampler;
	ruv_generation out;
	int64_t admitted_ns, first_ns, last_ns;
	void *constraint_state; /* its own copy; NULL: the caller's, or none */
} ruv_sequence;

struct ruv_job {
	int n_refs; /* atomic: the caller, and the scheduler until it ended */
	struct ruv_scheduled_model *sm;
	ruv_request request;        /* C; prompt, adapter and params are copies or held */
	ruv_generate_params params; /* C; the same */
	int n_choices;              /* C */
	ruv_sequence *choices;      /* [n_choices] */
	bool spawned;               /* E */
	int n_left;                 /* E */
	bool cancelled;             /* atomic */
	int status;                 /* E until done */
	ruv_error error;
	int64_t submitted_ns;
	double queue_ms, first_token_ms, total_ms; /* E until done */
	pthread_mutex_t mutex;
	pthread_cond_t ended;
	bool done; /* under the job's mutex */
};

/* What a loaded model runs with. E. */
typedef struct ruv_loaded {
	ruv_model *model; /* held */
	int n_ctx, max_running;
	ruv_kv_type kv_type;
	ruv_kv_pool *pool;
	bool caches;
	ruv_prefix_cache cache;
	ruv_batch batch;
	ruv_sampler_scratch *scratch;
	ruv_speculator *speculator; /* NULL: none */
	ruv_sequence *running[RUV_SCHEDULER_MAX_RUNNING];
	int n_running;
} ruv_loaded;

typedef struct ruv_scheduled_model {
	char *name, *path, *variant, *draft; /* C */
	ruv_scheduler_model how;             /* C; strings are the above */
	bool pinned;                         /* C: given open */
	ruv_model *model;                    /* M: NULL while not open */
	ruv_loaded *loaded;                  /* set under M by E; read by E */
	int n_ctx;                           /* M: as loaded; 0: not yet known */
	size_t memory_bytes;                 /* M */
	ruv_sequence *waiting;               /* M: by priority, then order */
	int n_waiting;                       /* M: sequences */
	int n_active;                        /* M: jobs that have not ended */
	int64_t used_ns;                     /* M: when it was last active */
	int64_t starved_ns;                  /* M: since when its memory is waited for; 0: not */
	ruv_scheduler_model_stats stats;     /* E */
	ruv_scheduler_model_stats shown;     /* M: a copy */
} ruv_scheduled_model;

struct ruv_scheduler {
	ruv_engine *engine; /* held by own_engine or the caller's models */
	ruv_engine *own_engine;
	ruv_scheduler_options how; /* C */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;            /* the engine thread */
	pthread_cond_t idle;            /* a job ended */
	pthread_mutex_t load;           /* one loading or unloading at a time; taken before mutex */
	bool woken, stopping, draining; /* M */
	int n_models;                   /* M; models [0, n_models) stay where they are */
	ruv_scheduled_model models[RUV_MAX_SCHEDULER_MODELS];
	uint64_t n_orders;                                                  /* M */
	int n_waiting_jobs;                                                 /* M: jobs that were never admitted */
	size_t memory_bytes;                                                /* M */
	int64_t n_submitted, n_refused, n_completed, n_failed, n_cancelled; /* M */
	double service_ms;                                                  /* M: running mean of a job's time in service */
	struct {
		ruv_latency queue, first_token, inter_token, total;
		double busy_ms;
	} work, shown;     /* E; M */
	struct step *step; /* E */
};

void *ruv_scheduler_thread(void *scheduler);

/* ---- scheduler_models.c ---- */

int ruv_scheduler_n_models(ruv_scheduler *s);
bool ruv_scheduler_is_stopping(ruv_scheduler *s);
/* Until there may be something to do. */
void ruv_scheduler_sleep(ruv_scheduler *s);
void ruv_scheduler_wake(ruv_scheduler *s);
bool ruv_scheduler_has_work(ruv_scheduler *s, ruv_scheduled_model *sm);
/* Must this model admit nothing, because another one waits for its memory? */
bool ruv_scheduler_must_yield(ruv_scheduler *s, ruv_scheduled_model *sm);
/* By the engine thread: everything to run it. RUV_EBUSY: the memory is in use, later perhaps. */
int ruv_scheduler_load(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_error *err);
void ruv_scheduler_unload(ruv_scheduler *s, ruv_scheduled_model *sm);
void ruv_scheduler_publish(ruv_scheduler *s, ruv_scheduled_model *sm);
void ruv_latency_add(ruv_latency *latency, double ms);

/* The waiting list. */
ruv_sequence *ruv_scheduler_first_waiting(ruv_scheduler *s, ruv_scheduled_model *sm);
void ruv_scheduler_take_waiting(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q);
void ruv_scheduler_wait_again(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q);
/* The first that is to be cancelled (all: any), taken from the list; NULL: none. */
ruv_sequence *ruv_scheduler_cancelled_waiting(ruv_scheduler *s, ruv_scheduled_model *sm, bool all, bool (*wants)(const ruv_job *));

/* ---- scheduler_jobs.c ---- */

/* Does the request fit the model? */
int ruv_scheduler_check(const ruv_model *model, int n_ctx, const ruv_request *request, ruv_error *err);
/* Sampler and stream of a choice. */
int ruv_sequence_begin(ruv_sequence *q, const ruv_model *model, ruv_sampler_scratch *scratch, int n_ctx, ruv_error *err);
/* They are no longer needed; the result stays. */
void ruv_sequence_stop(ruv_sequence *q);
/* The last choice ended: tells everybody. */
void ruv_scheduler_job_ended(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_job *job);

#endif

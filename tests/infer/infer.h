/* infer.h - what the tests of the scheduler share: a scheduler over the tiny models, prompts, a constraint. */
#ifndef RUV_TESTS_INFER_H
#define RUV_TESTS_INFER_H

#include "model/fixture.h"
#include "ruvllm/scheduler.h"

enum { V_FIRST = 10, V_COUNT = 250 }; /* tokens that the tiny models take as bytes or so */

/* Prompts of one `family` begin alike. */
static inline void make_prompt(ruv_token *prompt, int n, int family)
{
	for (int i = 0; i < n; i++)
		prompt[i] = V_FIRST + (family * 91 + i * 37 + i * i * 3) % V_COUNT;
}

static inline ruv_scheduler *open_scheduler(const ruv_scheduler_options *options)
{
	ruv_error err = {0};
	ruv_scheduler *s = NULL;
	const ruv_scheduler_options defaults = {.n_threads = 2};
	assert_ok(ruv_scheduler_open(&s, options ? options : &defaults, &err), err);
	return s;
}

static inline void add_model(ruv_scheduler *s, const char *name, const char *file, int n_ctx, int n_pool)
{
	ruv_error err = {0};
	assert_ok(ruv_scheduler_add_model(s,
	                                  &(ruv_scheduler_model){.name = name,
	                                                         .path = fixture_path(file),
	                                                         .n_ctx = n_ctx,
	                                                         .n_pool = n_pool,
	                                                         .n_batch = 160,
	                                                         .kv_type = RUV_KV_F32,
	                                                         .allow_longer = true},
	                                  &err),
	          err);
}

static inline ruv_session *open_alone(ruv_scheduler *s, const char *name, int n_ctx)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	ruv_session *session = NULL;
	assert_ok(ruv_scheduler_acquire(s, name, &model, &err), err);
	assert_ok(ruv_session_open(&session, model,
	                           &(ruv_session_options){.n_ctx = n_ctx, .kv_type = RUV_KV_F32, .allow_longer = true}, &err),
	          err);
	ruv_model_free(model); /* the session has it */
	return session;
}

static inline ruv_job *submit(ruv_scheduler *s, const ruv_request *request)
{
	ruv_error err = {0};
	ruv_job *job = NULL;
	assert_ok(ruv_scheduler_submit(s, request, &job, &err), err);
	return job;
}

static inline ruv_scheduler_stats stats_of(ruv_scheduler *s)
{
	ruv_scheduler_stats stats;
	ruv_scheduler_get_stats(s, &stats);
	return stats;
}

/* The job's choice says what ruv_generate says alone. */
static inline void assert_same_generation(const ruv_generation *a, const ruv_generation *b)
{
	assert_non_null(a);
	assert_int_equal(a->n_tokens, b->n_tokens);
	assert_memory_equal(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
	assert_string_equal(a->text, b->text);
	assert_int_equal(a->finish, b->finish);
	assert_int_equal(a->stop_index, b->stop_index);
	assert_int_equal(a->end_token, b->end_token);
	assert_int_equal(a->n_top, b->n_top);
	for (int i = 0; a->logprobs && i < a->n_tokens; i++)
		assert_true(fabsf(a->logprobs[i] - b->logprobs[i]) < 2e-3f);
	for (int i = 0; i < a->n_tokens * a->n_top; i++)
		assert_true(fabsf(a->top[i].logprob - b->top[i].logprob) < 2e-3f);
}

/* A constraint: token ids alternate between even and odd, beginning with even. Counts what it was asked. */
struct parity {
	int n_accepted, n_fills, n_rollbacks;
};

static inline int parity_fill(void *state, uint64_t *allowed, int n_vocab, ruv_error *err)
{
	struct parity *p = state;
	(void)err;
	p->n_fills++;
	for (int t = p->n_accepted % 2; t < n_vocab; t += 2)
		allowed[t / 64] |= 1ull << (t % 64);
	return RUV_OK;
}

static inline int parity_accept(void *state, ruv_token token, ruv_error *err)
{
	struct parity *p = state;
	(void)err;
	if (token % 2 != p->n_accepted % 2)
		return RUV_EINTERNAL;
	p->n_accepted++;
	return RUV_OK;
}

static inline int parity_rollback(void *state, int n, ruv_error *err)
{
	struct parity *p = state;
	(void)err;
	p->n_accepted -= n;
	p->n_rollbacks++;
	return p->n_accepted >= 0 ? RUV_OK : RUV_EINTERNAL;
}

static inline int parity_fork(void *state, void **copy, ruv_error *err)
{
	(void)err;
	*copy = malloc(sizeof(struct parity));
	if (!*copy)
		return RUV_ENOMEM;
	memcpy(*copy, state, sizeof(struct parity));
	return RUV_OK;
}

static inline ruv_constraint parity_constraint(struct parity *state)
{
	return (ruv_constraint){state, parity_fill, parity_accept, parity_rollback, parity_fork, free};
}

#endif

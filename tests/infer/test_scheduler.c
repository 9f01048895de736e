/* test_scheduler.c - many requests at once give what each gives alone: greedy, sampled, constrained, with stops, logprobs, choices
 * and adapters; also when pages run out. And the edges: queues, cancelling, refusals, models that take each other's memory. */
#include <pthread.h>

#include "base/rng.h"
#include "infer/infer.h"
#include "model/adapter.h"

enum { CTX = 512 };

static ruv_generation alone(ruv_session *session, const ruv_token *prompt, int n, const ruv_generate_params *params)
{
	ruv_error err = {0};
	ruv_generation g;
	ruv_session_reset(session);
	assert_ok(ruv_generate(session, prompt, n, params, &g, &err), err);
	return g;
}

/* 40 requests of all kinds, submitted at once; pool in tokens. */
static void many_requests(const char *file, int n_pool, bool expect_preemption)
{
	enum { N = 40, LONGEST = 400 };
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", file, CTX, n_pool);
	ruv_session *session = open_alone(s, "m", CTX);
	static ruv_token prompts[N][LONGEST];
	static ruv_generate_params params[N];
	static const char *const stops[] = {"e", "zzz"};
	const ruv_logit_bias bias[] = {{20, 3.0f}, {21, -INFINITY}};
	ruv_job *jobs[N];
	int lengths[N];
	for (int i = 0; i < N; i++) {
		lengths[i] = 1 + (i * 53) % (LONGEST - 10);
		make_prompt(prompts[i], lengths[i], i % 3);
		params[i] = (ruv_generate_params){.max_tokens = 30 + i, .ignore_end = i % 5 != 0, .n_logprobs = i % 4 - 1};
		if (i % 2)
			params[i].sampling =
			    (ruv_sampling){.temperature = 0.9f, .top_p = i % 4 == 1 ? 0.9f : 0, .seed = (uint64_t)i};
		if (i % 7 == 3) {
			params[i].stops = stops;
			params[i].n_stops = 2;
		}
		if (i % 6 == 1) {
			params[i].sampling.bias = bias;
			params[i].sampling.n_bias = 2;
			params[i].sampling.repetition_penalty = 1.3f;
		}
	}
	for (int i = 0; i < N; i++)
		jobs[i] = submit(s, &(ruv_request){.model = "m",
		                                   .prompt = prompts[i],
		                                   .n_prompt = lengths[i],
		                                   .params = &params[i],
		                                   .priority = i % 3,
		                                   .no_cache = i % 11 == 0});
	for (int i = 0; i < N; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		ruv_generation g = alone(session, prompts[i], lengths[i], &params[i]);
		assert_same_generation(ruv_job_result(jobs[i], 0), &g);
		ruv_generation_release(&g);
		ruv_job_free(jobs[i]);
	}
	const ruv_scheduler_stats stats = stats_of(s);
	assert_int_equal(stats.n_completed, N);
	assert_int_equal(stats.total.count, N);
	assert_int_equal(stats.models[0].n_running, 0);
	assert_true(stats.models[0].n_rows > stats.models[0].n_steps); /* rows did share passes */
	assert_true(expect_preemption ? stats.models[0].n_preempted > 0 : stats.models[0].n_preempted == 0);
	assert_int_equal(stats.models[0].pages_total, stats.models[0].pages_free + stats.models[0].pages_cached);
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

static void test_many_lfm2(void **state)
{
	(void)state;
	many_requests("lfm2.gguf", 40 * CTX, false);
}

static void test_many_qwen2(void **state)
{
	(void)state;
	many_requests("qwen2.gguf", 40 * CTX, false);
}

static void test_too_few_pages(void **state)
{
	(void)state;
	many_requests("lfm2.gguf", CTX + 64, true);
}

static void test_choices(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(&(ruv_scheduler_options){.n_threads = 1, .max_running = 5});
	add_model(s, "m", "lfm2.gguf", CTX, 0);
	ruv_session *session = open_alone(s, "m", CTX);
	ruv_token prompt[100];
	make_prompt(prompt, 100, 1);
	struct parity parity = {0};
	const ruv_constraint constraint = parity_constraint(&parity);
	for (int constrained = 0; constrained < 2; constrained++) {
		ruv_generate_params p = {.sampling = {.temperature = 1.2f, .seed = 77}, .max_tokens = 40, .ignore_end = true};
		p.constraint = constrained ? &constraint : NULL;
		ruv_job *job =
		    submit(s, &(ruv_request){.model = "m", .prompt = prompt, .n_prompt = 100, .params = &p, .n_choices = 8});
		assert_ok(ruv_job_wait(job, -1, &err), err);
		assert_int_equal(ruv_job_n_choices(job), 8);
		for (int i = 0; i < 8; i++) {
			const ruv_generation *g = ruv_job_result(job, i);
			struct parity own = {0};
			const ruv_constraint own_constraint = parity_constraint(&own);
			ruv_generate_params q = p;
			q.sampling.seed += (uint64_t)i;
			q.constraint = constrained ? &own_constraint : NULL;
			ruv_generation h = alone(session, prompt, 100, &q);
			assert_int_equal(g->seed, 77 + i);
			assert_same_generation(g, &h);
			for (int k = 0; constrained && k < g->n_tokens; k++)
				assert_int_equal(g->tokens[k] % 2, k % 2);
			ruv_generation_release(&h);
		}
		ruv_job_free(job);
	}
	ruv_constraint single = constraint;
	ruv_job *job = NULL;
	single.fork = NULL;
	assert_int_equal(ruv_scheduler_submit(s,
	                                      &(ruv_request){.model = "m",
	                                                     .prompt = prompt,
	                                                     .n_prompt = 100,
	                                                     .n_choices = 2,
	                                                     .params = &(ruv_generate_params){.constraint = &single}},
	                                      &job, &err),
	                 RUV_EUNSUPPORTED);
	assert_null(job);
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

/* Rows of three adapters (one of them none) in the same steps. */
static void test_adapters(void **state)
{
	(void)state;
	enum { N = 12 };
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", "lfm2.gguf", CTX, 0);
	ruv_session *session = open_alone(s, "m", CTX);
	ruv_model *model = ruv_session_model(session);
	ruv_adapter *adapters[3] = {NULL};
	ruv_rng rng;
	ruv_rng_init(&rng, 5);
	for (int a = 1; a < 3; a++) {
		assert_ok(ruv_adapter_create(&adapters[a], model, &err), err);
		for (int layer = 0; layer < model->hp.n_layers; layer++) {
			const int64_t f = model->hp.feed_forward, h = model->hp.hidden;
			float *down = malloc((size_t)(3 * f) * sizeof *down), *up = malloc((size_t)(3 * h) * sizeof *up);
			for (int64_t i = 0; i < 3 * f; i++)
				down[i] = (float)(0.3 * ruv_rng_normal(&rng));
			for (int64_t i = 0; i < 3 * h; i++)
				up[i] = (float)(0.3 * ruv_rng_normal(&rng));
			assert_ok(ruv_adapter_add(adapters[a], layer, RUV_SLOT_FFN_DOWN, 3, down, up, 1, &err), err);
			free(down);
			free(up);
		}
	}
	ruv_token prompt[70];
	make_prompt(prompt, 70, 2);
	const ruv_generate_params p = {.max_tokens = 30, .ignore_end = true};
	ruv_job *jobs[N];
	ruv_generation want[3];
	for (int i = 0; i < N; i++)
		jobs[i] = submit(
		    s, &(ruv_request){.model = "m", .prompt = prompt, .n_prompt = 70, .params = &p, .adapter = adapters[i % 3]});
	for (int a = 0; a < 3; a++) {
		assert_ok(ruv_session_set_adapter(session, adapters[a], &err), err);
		want[a] = alone(session, prompt, 70, &p);
	}
	assert_true(memcmp(want[0].tokens, want[1].tokens, 30 * sizeof(ruv_token)) != 0);
	assert_true(memcmp(want[1].tokens, want[2].tokens, 30 * sizeof(ruv_token)) != 0);
	for (int i = 0; i < N; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		assert_same_generation(ruv_job_result(jobs[i], 0), &want[i % 3]);
		ruv_job_free(jobs[i]);
	}
	for (int a = 0; a < 3; a++)
		ruv_generation_release(&want[a]);
	ruv_session_free(session);
	ruv_adapter_free(adapters[1]);
	ruv_adapter_free(adapters[2]);
	ruv_scheduler_free(s);
}

/* ---- streams and ends ---- */

struct watch {
	char text[8192];
	size_t n;
	int n_tokens, n_done, stop_after;
	ruv_token tokens[512];
	ruv_scheduler *scheduler;
	ruv_job *next; /* submitted in on_done */
};

static bool watch_piece(void *user, const ruv_job_piece *piece)
{
	struct watch *w = user;
	assert_true(w->n + piece->n_bytes < sizeof w->text);
	memcpy(w->text + w->n, piece->text, piece->n_bytes + 1);
	w->n += piece->n_bytes;
	for (int i = 0; i < piece->n_new; i++)
		w->tokens[w->n_tokens++] = piece->tokens[i];
	assert_int_equal(w->n_tokens, piece->n_tokens);
	return !w->stop_after || w->n_tokens < w->stop_after;
}

static void watch_done(void *user, ruv_job *job)
{
	struct watch *w = user;
	const ruv_token prompt[] = {12, 13, 14};
	assert_true(ruv_job_is_done(job));
	if (w->scheduler)
		w->next =
		    submit(w->scheduler, &(ruv_request){.model = "m",
		                                        .prompt = prompt,
		                                        .n_prompt = 3,
		                                        .params = &(ruv_generate_params){.max_tokens = 4, .ignore_end = true}});
	__atomic_add_fetch(&w->n_done, 1, __ATOMIC_RELEASE);
}

static void test_streams(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", "lfm2.gguf", CTX, 0);
	ruv_token prompt[90];
	make_prompt(prompt, 90, 0);
	static struct watch watches[6];
	memset(watches, 0, sizeof watches);
	ruv_job *jobs[6];
	watches[5].scheduler = s;
	for (int i = 0; i < 6; i++) {
		watches[i].stop_after = i == 2 ? 20 : 0;
		jobs[i] = submit(
		    s, &(ruv_request){.model = "m",
		                      .prompt = prompt,
		                      .n_prompt = 90,
		                      .params = &(ruv_generate_params){.sampling = {.temperature = 1.4f, .seed = 3u + (unsigned)i},
		                                                       .max_tokens = 80,
		                                                       .ignore_end = true},
		                      .on_piece = watch_piece,
		                      .on_done = watch_done,
		                      .user = &watches[i]});
	}
	for (int i = 0; i < 6; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		while (!__atomic_load_n(&watches[i].n_done, __ATOMIC_ACQUIRE)) /* comes just behind */
			usleep(100);
	}
	assert_ok(ruv_scheduler_drain(s, -1, &err), err);
	for (int i = 0; i < 6; i++) {
		const ruv_generation *g = ruv_job_result(jobs[i], 0);
		ruv_job_times times;
		ruv_job_get_times(jobs[i], &times);
		assert_true(times.queue_ms >= 0 && times.first_token_ms >= times.queue_ms &&
		            times.total_ms >= times.first_token_ms);
		assert_int_equal(watches[i].n_done, 1);
		assert_int_equal(watches[i].n_tokens, g->n_tokens);
		assert_memory_equal(watches[i].tokens, g->tokens, (size_t)g->n_tokens * sizeof *g->tokens);
		assert_int_equal(g->finish, i == 2 ? RUV_FINISH_CANCELLED : RUV_FINISH_LENGTH);
		if (i != 2)
			assert_string_equal(watches[i].text, g->text);
		ruv_job_free(jobs[i]);
	}
	assert_non_null(watches[5].next);
	assert_int_equal(ruv_job_result(watches[5].next, 0)->n_tokens, 4);
	ruv_job_free(watches[5].next);
	ruv_job *job = NULL;
	assert_int_equal(ruv_scheduler_submit(s, &(ruv_request){.model = "m", .prompt = prompt, .n_prompt = 90}, &job, &err),
	                 RUV_EBUSY);
	ruv_scheduler_free(s);
}

static void test_cancel_and_limits(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(&(ruv_scheduler_options){.n_threads = 2, .max_queue = 3, .max_running = 1});
	add_model(s, "m", "qwen2.gguf", CTX, 0);
	ruv_token prompt[CTX];
	make_prompt(prompt, CTX, 0);
	const ruv_generate_params endless = {.ignore_end = true};
	ruv_cancel flag = {0};
	ruv_generate_params with_flag = endless;
	with_flag.cancel = &flag;
	/* one that runs at a time: the others wait */
	ruv_job *jobs[8];
	int n = 0, n_refused = 0;
	ruv_request r = {.model = "m", .prompt = prompt, .n_prompt = 5, .params = &endless};
	for (int i = 0; i < 8; i++) {
		int rc = ruv_scheduler_submit(s, &r, &jobs[n], &err);
		assert_true(rc == RUV_OK || rc == RUV_EBUSY);
		n_refused += rc == RUV_EBUSY;
		n += rc == RUV_OK;
	}
	assert_true(ruv_scheduler_retry_after_ms(s) >= 1000);
	assert_int_equal(stats_of(s).n_refused, n_refused);
	ruv_job_cancel(jobs[n - 1]);
	for (int i = 0; i < n - 1; i++)
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
	int rc = ruv_job_wait(jobs[n - 1], -1, &err);
	assert_true(rc == RUV_ECANCELLED || (rc == RUV_OK && ruv_job_result(jobs[n - 1], 0)->finish == RUV_FINISH_CANCELLED));
	for (int i = 0; i < n; i++)
		ruv_job_free(jobs[i]);
	/* the caller's own flag, set before */
	r.params = &with_flag;
	ruv_cancel_set(&flag);
	ruv_job *job = submit(s, &r);
	rc = ruv_job_wait(job, -1, &err);
	assert_int_equal(rc, RUV_ECANCELLED);
	ruv_job_free(job);
	/* freed while it runs */
	r.params = &endless;
	job = submit(s, &r);
	ruv_job_free(job);
	/* refused, with both numbers */
	r.n_prompt = CTX;
	job = NULL;
	assert_int_equal(ruv_scheduler_submit(s, &r, &job, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "512 tokens, but the context holds 512"));
	r.n_prompt = 2;
	prompt[1] = 1000000;
	assert_int_equal(ruv_scheduler_submit(s, &r, &job, &err), RUV_EINVAL);
	prompt[1] = 11;
	r.model = "other";
	assert_int_equal(ruv_scheduler_submit(s, &r, &job, &err), RUV_ENOTFOUND);
	r.model = "m";
	r.n_choices = 17;
	assert_int_equal(ruv_scheduler_submit(s, &r, &job, &err), RUV_EINVAL);
	r.n_choices = 1;
	r.n_prompt = 0;
	assert_int_equal(ruv_scheduler_submit(s, &r, &job, &err), RUV_EINVAL);
	r.n_prompt = 2;
	r.params = &(ruv_generate_params){.sampling = {.top_p = 7}};
	job = submit(s, &r); /* found where the sampler is made */
	assert_int_equal(ruv_job_wait(job, -1, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "top_p"));
	assert_int_equal(stats_of(s).n_failed, 1);
	ruv_job_free(job);
	/* the context's end */
	ruv_generation g;
	r.params = &endless;
	r.n_prompt = CTX - 4;
	assert_ok(ruv_scheduler_generate(s, &r, &g, &err), err);
	assert_int_equal(g.n_tokens, 4);
	assert_int_equal(g.finish, RUV_FINISH_LENGTH);
	ruv_generation_release(&g);
	/* ends with the scheduler */
	r.n_prompt = 2;
	job = submit(s, &r);
	ruv_scheduler_free(s);
	rc = ruv_job_status(job, &err);
	assert_true(rc == RUV_ECANCELLED || rc == RUV_OK);
	ruv_job_free(job);
}

static void test_models_share_memory(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = NULL;
	size_t limit = 0;
	static const char *const names[] = {"lfm2", "qwen2", "qwen3", "llama"}, *const files[] = {"lfm2.gguf", "qwen2.gguf",
	                                                                                          "qwen3.gguf", "llama.gguf"};
	for (int round = 0; round < 2; round++) { /* the first one measures: the second has not room for all of them */
		ruv_scheduler_free(s);
		s = open_scheduler(&(ruv_scheduler_options){.n_threads = 1, .memory_bytes = limit});
		for (int i = 0; i < 4; i++)
			add_model(s, names[i], files[i], CTX, 1024);
		for (int i = 0; i < 4 && round == 0; i++) {
			const ruv_token token = 12;
			ruv_generation g;
			assert_ok(ruv_scheduler_generate(s,
			                                 &(ruv_request){.model = names[i],
			                                                .prompt = &token,
			                                                .n_prompt = 1,
			                                                .params = &(ruv_generate_params){.max_tokens = 1}},
			                                 &g, &err),
			          err);
			ruv_generation_release(&g);
		}
		if (round == 0)
			limit = stats_of(s).memory_bytes * 3 / 5;
	}
	assert_int_equal(ruv_scheduler_add_model(s, &(ruv_scheduler_model){.name = "lfm2", .path = "x"}, &err), RUV_EEXIST);
	ruv_token prompt[60];
	make_prompt(prompt, 60, 1);
	const ruv_generate_params p = {.max_tokens = 20, .ignore_end = true};
	ruv_generation first[4];
	ruv_job *jobs[16];
	for (int i = 0; i < 4; i++) {
		assert_ok(ruv_scheduler_generate(s,
		                                 &(ruv_request){.model = names[i], .prompt = prompt, .n_prompt = 60, .params = &p},
		                                 &first[i], &err),
		          err);
		assert_true(stats_of(s).memory_bytes <= limit);
	}
	for (int i = 0; i < 16; i++)
		jobs[i] = submit(s, &(ruv_request){.model = names[i % 4], .prompt = prompt, .n_prompt = 60, .params = &p});
	for (int i = 0; i < 16; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		assert_same_generation(ruv_job_result(jobs[i], 0), &first[i % 4]);
		ruv_job_free(jobs[i]);
	}
	const ruv_scheduler_stats stats = stats_of(s);
	int n_loaded = 0, n_unloads = 0;
	for (int i = 0; i < 4; i++) {
		n_loaded += stats.models[i].loaded;
		n_unloads += (int)stats.models[i].n_unloads;
		ruv_generation_release(&first[i]);
	}
	assert_true(n_loaded < 4 && n_unloads >= 4 - n_loaded);
	assert_true(stats.memory_bytes <= limit);
	/* what cannot be loaded fails its jobs and nothing else; what can never fit says so */
	add_model(s, "gone", "no-such-file.gguf", CTX, 0);
	add_model(s, "large", "lfm2.gguf", CTX, 1 << 20);
	ruv_generation g;
	assert_int_equal(ruv_scheduler_generate(s, &(ruv_request){.model = "gone", .prompt = prompt, .n_prompt = 60}, &g, &err),
	                 RUV_ENOTFOUND);
	assert_int_equal(ruv_scheduler_generate(s, &(ruv_request){.model = "large", .prompt = prompt, .n_prompt = 60}, &g, &err),
	                 RUV_ELIMIT);
	assert_non_null(strstr(err.message, "memory limit"));
	ruv_scheduler_free(s);
}

static void test_idle_models_are_unloaded(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(&(ruv_scheduler_options){.n_threads = 1, .idle_unload_ms = 1});
	add_model(s, "m", "lfm2.gguf", CTX, 0);
	const ruv_token prompt[] = {11, 12, 13};
	ruv_generation g;
	assert_ok(
	    ruv_scheduler_generate(
		s, &(ruv_request){.model = "m", .prompt = prompt, .n_prompt = 3, .params = &(ruv_generate_params){.max_tokens = 2}},
		&g, &err),
	    err);
	ruv_generation_release(&g);
	for (int i = 0; i < 10000 && stats_of(s).models[0].loaded; i++)
		usleep(1000);
	assert_false(stats_of(s).models[0].loaded);
	assert_int_equal(stats_of(s).memory_bytes, 0);
	ruv_scheduler_free(s);
}

/* ---- threads ---- */

struct client {
	ruv_scheduler *s;
	int number, n_ok;
};

static void *client_thread(void *arg)
{
	struct client *c = arg;
	for (int i = 0; i < 12; i++) {
		ruv_token prompt[150];
		const int n = 20 + (c->number * 17 + i * 31) % 130;
		ruv_generate_params p = {
		    .sampling = {.temperature = 1, .seed = 1u + (unsigned)i}, .max_tokens = 20, .ignore_end = true};
		ruv_error err = {0};
		make_prompt(prompt, n, i % 2);
		ruv_request r = {
		    .model = i % 3 ? "a" : "b", .prompt = prompt, .n_prompt = n, .params = &p, .priority = c->number % 2};
		if (i % 4 == 3) {
			ruv_job *job = NULL;
			if (ruv_scheduler_submit(c->s, &r, &job, &err) == RUV_OK) {
				ruv_job_cancel(job);
				int rc = ruv_job_wait(job, -1, &err);
				c->n_ok += rc == RUV_OK || rc == RUV_ECANCELLED;
				ruv_job_free(job);
			}
		} else {
			ruv_generation g;
			c->n_ok += ruv_scheduler_generate(c->s, &r, &g, &err) == RUV_OK && g.n_tokens == 20;
			ruv_generation_release(&g);
		}
		ruv_scheduler_stats stats;
		ruv_scheduler_get_stats(c->s, &stats);
		ruv_scheduler_retry_after_ms(c->s);
	}
	return NULL;
}

/* Beside the clients, a thread that embeds on the same engine. */
static void *embed_thread(void *arg)
{
	ruv_embedder *e = arg;
	ruv_token tokens[30];
	float *vector = malloc((size_t)ruv_embedder_dim(e) * sizeof *vector);
	make_prompt(tokens, 30, 0);
	for (int i = 0; i < 20; i++)
		ruv_embedder_embed_tokens(e, tokens, 30, vector, NULL);
	free(vector);
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	enum { N = 6 };
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "a", "lfm2.gguf", CTX, 1024);
	add_model(s, "b", "qwen2.gguf", CTX, 1024);
	ruv_model *model = NULL;
	ruv_embedder *embedder = NULL;
	assert_ok(ruv_scheduler_acquire(s, "a", &model, &err), err);
	assert_ok(ruv_embedder_open(&embedder, model, 64, &err), err);
	pthread_t threads[N + 1];
	struct client clients[N];
	for (int i = 0; i < N; i++) {
		clients[i] = (struct client){.s = s, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, client_thread, &clients[i]), 0);
	}
	assert_int_equal(pthread_create(&threads[N], NULL, embed_thread, embedder), 0);
	for (int i = 0; i <= N; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < N; i++)
		assert_int_equal(clients[i].n_ok, 12);
	ruv_embedder_free(embedder);
	ruv_model_free(model);
	assert_ok(ruv_scheduler_drain(s, 1000, &err), err);
	ruv_scheduler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_many_lfm2),
	    cmocka_unit_test(test_many_qwen2),
	    cmocka_unit_test(test_too_few_pages),
	    cmocka_unit_test(test_choices),
	    cmocka_unit_test(test_adapters),
	    cmocka_unit_test(test_streams),
	    cmocka_unit_test(test_cancel_and_limits),
	    cmocka_unit_test(test_models_share_memory),
	    cmocka_unit_test(test_idle_models_are_unloaded),
	    cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

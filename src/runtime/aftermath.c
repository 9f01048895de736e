/* aftermath.c - what becomes of an answer, and what the user says about it: see aftermath.h.
 *
 * The last answers are kept in a ring, so that "that was right" needs nothing but an id. An answer that the user vouches for is
 * written with confidence 1; what only the judge liked has the judge's quality. Neither the learner nor a full queue of it can make
 * a question fail: that an answer was not observed stands in the answer.
 *
 * Threads: the ring is behind the runtime's lock; memory, router and learner are used outside of it. Layer: runtime. */
#include "runtime/aftermath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"

static const char where[] = "feedback";

enum { N_RECENT = 256, MAX_CITED = RUV_ANSWER_MAX_CITATIONS };

/* Owned copies. */
typedef struct recent {
	char id[RUV_ID_SIZE];
	char *question, *answer;
	char *user, *agent, *session;
	char cited[MAX_CITED][RUV_ID_SIZE];
	int n_cited;
	bool routed, observed;
	ruv_route_decision decision;
	int tier; /* that answered */
	double latency_ms;
	int n_prompt, n_tokens;
} recent;

struct ruv_recent {
	recent items[N_RECENT];
	int next;
};

static void release(recent *r)
{
	free(r->question);
	free(r->answer);
	free(r->user);
	free(r->agent);
	free(r->session);
	memset(r, 0, sizeof *r);
}

void ruv_aftermath_release(ruv_runtime *runtime)
{
	for (int i = 0; runtime->recent && i < N_RECENT; i++)
		release(&runtime->recent->items[i]);
	free(runtime->recent);
	runtime->recent = NULL;
}

/* ---- judging ----------------------------------------------------------------------------------------------------------- */

int ruv_aftermath_judge(ruv_answer *answer, const ruv_aftermath *what, ruv_error *err)
{
	const char **texts = calloc((size_t)answer->n_in_prompt + 1, sizeof *texts);
	ruv_judged judged = {.question = what->params->question,
	                     .answer = answer->text,
	                     .sources = texts,
	                     .n_sources = answer->n_in_prompt,
	                     .must_cite = what->cites,
	                     .model_score = what->support < 0 ? 0 : (float)(1 + 4 * what->support)};
	int rc;

	if (!texts)
		return ruv_fail_memory(err, where, (size_t)answer->n_in_prompt * sizeof *texts);
	for (int i = 0; i < answer->n_in_prompt; i++)
		texts[i] = answer->sources[i].text;
	rc = ruv_judge_check(&answer->verdict, &judged, NULL, err);
	free(texts);
	return rc;
}

/* ---- writing back ------------------------------------------------------------------------------------------------------ */

static ruv_memory_scope scope_of(const ruv_runtime *runtime, const ruv_ask_params *params)
{
	return params->scope ? *params->scope : ruv_runtime_scope(runtime);
}

/* Question and answer become a memory that cites what the answer rests on. */
static int write(ruv_runtime *runtime, const char *question, const char *text, float quality, const ruv_memory_scope *scope,
                 const char *created_by, const char *const *cited, int n_cited, const char *const *sources, int n_sources,
                 ruv_memory_written *written, ruv_error *err)
{
	ruv_memory_answer answer = {.question = question,
	                            .answer = text,
	                            .quality = quality,
	                            .scope = *scope,
	                            .created_by = created_by,
	                            .cited = cited,
	                            .n_cited = n_cited,
	                            .sources = sources,
	                            .n_sources = n_sources};
	int dim = ruv_runtime_embed_dim(runtime, err), rc;
	ruv_memory *memory;
	float *vector;
	char *pair = NULL;

	if (dim < 0)
		return dim;
	vector = malloc(sizeof(float) * (size_t)dim);
	if (!vector || asprintf(&pair, "Q: %s\nA: %s", question, text) < 0) {
		free(vector);
		return ruv_fail_memory(err, where, sizeof(float) * (size_t)dim);
	}
	answer.threshold = (float)runtime->settings.write_threshold;
	answer.vector = vector;
	rc = ruv_runtime_memory(runtime, &memory, err);
	if (!rc)
		rc = ruv_runtime_embed(runtime, (const char *const[]){pair}, 1, RUV_EMBED_PASSAGE, vector, NULL, err);
	if (!rc)
		rc = ruv_memory_write_back(memory, written, &answer, 1, err);
	free(pair);
	free(vector);
	return rc;
}

int ruv_aftermath_write(ruv_runtime *runtime, ruv_answer *answer, const ruv_aftermath *what, ruv_error *err)
{
	const char *cited[MAX_CITED], **sources;
	ruv_memory_scope scope = scope_of(runtime, what->params);
	int n_cited = 0, rc;

	if (!runtime->settings.write_back || answer->unknown || answer->verdict.refusal || answer->n_in_prompt == 0)
		return RUV_OK;
	sources = calloc((size_t)answer->n_in_prompt, sizeof *sources);
	if (!sources)
		return ruv_fail_memory(err, where, (size_t)answer->n_in_prompt * sizeof *sources);
	for (int i = 0; i < answer->n_in_prompt; i++)
		sources[i] = answer->sources[i].text;
	for (int i = 0; i < answer->n_citations; i++)
		cited[n_cited++] = answer->sources[answer->citations[i].source].id;
	rc = write(runtime, what->params->question, answer->answer, answer->verdict.quality, &scope, answer->model, cited, n_cited,
	           sources, answer->n_in_prompt, &answer->written, err);
	answer->wrote = rc == RUV_OK;
	free(sources);
	return rc;
}

/* ---- the learner ------------------------------------------------------------------------------------------------------- */

static int embed_for_learner(void *user, const char *text, float *vector, ruv_error *err)
{
	return ruv_runtime_embed(user, &text, 1, RUV_EMBED_QUERY, vector, NULL, err);
}

/* Somebody waits for an answer: training steps aside. */
static bool is_busy(void *user)
{
	ruv_runtime *runtime = user;
	ruv_scheduler *scheduler = atomic_load(&runtime->scheduler);
	ruv_scheduler_stats stats = {0};

	if (atomic_load(&runtime->n_asking) > 0)
		return true;
	if (scheduler)
		ruv_scheduler_get_stats(scheduler, &stats);
	return stats.n_waiting + stats.n_running > 0;
}

/* The router learns on the learner's thread, when enough outcomes have come. What it made goes to router.bin in the data directory,
 * which the next start opens; a router that the user named is refined in memory alone. */
static int tend_router(void *user, ruv_learner_event *event, ruv_error *err)
{
	ruv_runtime *runtime = user;
	ruv_router *router = ruv_runtime_router_if_open(runtime);
	ruv_router_refined refined;
	ruv_router_info info;
	char path[4096];
	int rc;

	if (!router || !ruv_router_refine_due(router))
		return RUV_OK;
	if (snprintf(path, sizeof path, "%s/router.bin", runtime->settings.data_dir) >= (int)sizeof path)
		return ruv_fail(err, RUV_ELIMIT, where, "the data directory's path is longer than %zu bytes", sizeof path - 12);
	rc = ruv_router_refine(router, *runtime->settings.router ? NULL : path, &refined, err);
	if (rc)
		return rc;
	ruv_router_get_info(router, &info);
	snprintf(event->what, sizeof event->what, "%s", refined.kept ? "router" : "router kept");
	event->version = info.version;
	event->gate.pass = refined.kept;
	event->gate.gain = refined.after - refined.before;
	event->gate.gain_low = refined.interval[0];
	event->gate.gain_high = refined.interval[1];
	event->gate.n = refined.n_observations;
	if (!refined.kept)
		snprintf(event->gate.why, sizeof event->gate.why, "the refined router was not surely better on held-out outcomes");
	return RUV_OK;
}

static int open_learner(ruv_runtime *runtime, ruv_error *err)
{
	const ruv_settings *settings = &runtime->settings;
	char path[4096], dir[4096];
	ruv_learner_options options = {
	    .dir = dir,
	    .model_path = path,
	    .variant = strcmp(settings->variant, "none") ? settings->variant : NULL,
	    .user = settings->user,
	    .callbacks = {.embed = embed_for_learner, .tend = tend_router, .busy = is_busy, .user = runtime}};
	int rc = ruv_runtime_find_model(runtime, settings->model, path, sizeof path, err);

	if (rc)
		return rc;
	options.callbacks.embed_dim = ruv_runtime_embed_dim(runtime, err);
	if (options.callbacks.embed_dim < 0)
		return options.callbacks.embed_dim;
	if (snprintf(dir, sizeof dir, "%s/learn", settings->data_dir) >= (int)sizeof dir)
		return ruv_fail(err, RUV_ELIMIT, where, "the data directory's path is longer than %zu bytes", sizeof dir - 7);
	rc = ruv_dir_create(dir, err);
	if (!rc)
		rc = ruv_runtime_memory(runtime, &options.memory, err);
	return rc ? rc : ruv_learner_open(&runtime->learner, &options, err);
}

int ruv_runtime_learner(ruv_runtime *runtime, ruv_learner **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->learner)
		rc = open_learner(runtime, err);
	*out = runtime->learner;
	return ruv_runtime_unlock(runtime, rc);
}

ruv_learner *ruv_runtime_learner_if_open(ruv_runtime *runtime)
{
	ruv_learner *learner;

	ruv_runtime_lock(runtime);
	learner = runtime->learner;
	ruv_runtime_unlock(runtime, RUV_OK);
	return learner;
}

/* Hands the answer to the learner; a full queue or a pause is no failure of the question. */
static int observe(ruv_runtime *runtime, ruv_answer *answer, const ruv_aftermath *what, ruv_error *err)
{
	ruv_interaction interaction = {.user = scope_of(runtime, what->params).user,
	                               .question = what->params->question,
	                               .prompt = what->prompt,
	                               .answer = answer->text,
	                               .short_answer = answer->answer,
	                               .quality = answer->verdict.quality > 0 ? answer->verdict.quality : 0,
	                               .embedding = what->vector};
	ruv_error own = {0};
	ruv_learner *learner;
	int rc = ruv_runtime_learner(runtime, &learner, err);

	if (rc)
		return rc;
	memcpy(interaction.id, answer->id, sizeof interaction.id);
	rc = ruv_learner_observe(learner, &interaction, &own);
	answer->observed = rc == RUV_OK;
	if (rc == RUV_OK || rc == RUV_EBUSY || rc == RUV_ECANCELLED || rc == RUV_EMISMATCH)
		return RUV_OK;
	if (err)
		*err = own;
	return rc;
}

/* ---- keeping answers for feedback -------------------------------------------------------------------------------------- */

static char *copy(const char *text)
{
	return strdup(text ? text : "");
}

static int fill_recent(recent *r, const ruv_runtime *runtime, const ruv_answer *answer, const ruv_aftermath *what, ruv_error *err)
{
	ruv_memory_scope scope = scope_of(runtime, what->params);

	memcpy(r->id, answer->id, sizeof r->id);
	r->question = copy(what->params->question);
	r->answer = copy(answer->answer);
	r->user = copy(scope.user);
	r->agent = copy(scope.agent);
	r->session = copy(scope.session);
	for (int i = 0; i < answer->n_citations; i++)
		memcpy(r->cited[r->n_cited++], answer->sources[answer->citations[i].source].id, RUV_ID_SIZE);
	if (what->decision) {
		r->routed = true;
		r->decision = *what->decision;
	}
	r->observed = answer->observed;
	r->latency_ms = answer->total_ms;
	r->n_prompt = answer->n_prompt;
	r->n_tokens = answer->n_tokens;
	if (r->question && r->answer && r->user && r->agent && r->session)
		return RUV_OK;
	release(r);
	return ruv_fail_memory(err, where, strlen(what->params->question));
}

int ruv_aftermath_note(ruv_runtime *runtime, ruv_answer *answer, const ruv_aftermath *what, ruv_error *err)
{
	recent r = {0};
	int rc = RUV_OK;

	ruv_uuid_format(ruv_uuid_make(), answer->id);
	if (runtime->settings.learn)
		rc = observe(runtime, answer, what, err);
	if (!rc)
		rc = fill_recent(&r, runtime, answer, what, err);
	if (rc)
		return rc;
	if (what->decision) {
		ruv_router *router;

		if (!ruv_runtime_router(runtime, &router, NULL))
			r.tier = ruv_router_tier_find(router, answer->route.tier);
	}
	ruv_runtime_lock(runtime);
	if (!runtime->recent)
		runtime->recent = calloc(1, sizeof *runtime->recent);
	if (runtime->recent) {
		release(&runtime->recent->items[runtime->recent->next]);
		runtime->recent->items[runtime->recent->next] = r;
		runtime->recent->next = (runtime->recent->next + 1) % N_RECENT;
	} else {
		release(&r);
		rc = ruv_fail_memory(err, where, sizeof *runtime->recent);
	}
	return ruv_runtime_unlock(runtime, rc);
}

/* Takes the answer out of the ring: feedback comes once. */
static bool take_recent(ruv_runtime *runtime, const char *id, recent *out)
{
	bool found = false;

	ruv_runtime_lock(runtime);
	for (int i = 0; runtime->recent && !found && i < N_RECENT; i++) {
		recent *r = &runtime->recent->items[i];

		if (*r->id && !strcmp(r->id, id)) {
			*out = *r;
			memset(r, 0, sizeof *r);
			found = true;
		}
	}
	ruv_runtime_unlock(runtime, RUV_OK);
	return found;
}

int ruv_runtime_feedback(ruv_runtime *runtime, const char *answer_id, ruv_feedback feedback, const char *correction,
                         ruv_feedback_result *result, ruv_error *err)
{
	ruv_feedback_result own = {0};
	const char *cited[MAX_CITED];
	ruv_learner *learner;
	ruv_router *router;
	recent r;
	int rc = RUV_OK;

	result = result ? result : &own;
	memset(result, 0, sizeof *result);
	if ((feedback == RUV_FEEDBACK_CORRECT) != (correction && correction[strspn(correction, " \t\r\n")]))
		return ruv_fail(err, RUV_EINVAL, where,
		                feedback == RUV_FEEDBACK_CORRECT ? "a correction needs the right answer"
		                                                 : "only a correction has an answer of its own");
	if (!take_recent(runtime, answer_id, &r))
		return ruv_fail(err, RUV_ENOTFOUND, where,
		                "there is no answer %.40s without feedback among the last %d of this process", answer_id,
		                (int)N_RECENT);
	for (int i = 0; i < r.n_cited; i++)
		cited[i] = r.cited[i];
	if (feedback != RUV_FEEDBACK_REJECT) {
		ruv_memory_scope scope = {.user = r.user, .agent = r.agent, .session = r.session};

		rc = write(runtime, r.question, feedback == RUV_FEEDBACK_CORRECT ? correction : r.answer, 1, &scope, "user", cited,
		           r.n_cited, NULL, 0, &result->written, err);
		result->wrote = rc == RUV_OK;
	}
	if (!rc && r.routed) {
		ruv_route_outcome outcome = {.tier = r.tier,
		                             .quality = feedback == RUV_FEEDBACK_ACCEPT ? 1 : 0,
		                             .latency_ms = r.latency_ms,
		                             .n_prompt_tokens = r.n_prompt,
		                             .n_answer_tokens = r.n_tokens};

		rc = ruv_runtime_router(runtime, &router, err);
		if (!rc)
			rc = ruv_router_observe(router, NULL, &r.decision, &outcome, err);
		result->routed = rc == RUV_OK;
	}
	if (!rc && r.observed) {
		rc = ruv_runtime_learner(runtime, &learner, err);
		if (!rc)
			rc = ruv_learner_feedback(learner, r.id, feedback, correction, err);
		result->learned = rc == RUV_OK;
	}
	release(&r);
	return rc;
}

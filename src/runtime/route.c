/* route.c - the router's inputs from the loop, and what it says about an answer: see route.h.
 *
 * Tiers whose file is missing are told to the router when it opens. What the operating system knows is read once a second at most.
 * Layer: runtime. */
#include "runtime/route.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "learn/features.h"
#include "runtime/models.h"

static const int64_t second_ns = 1000000000;

/* The configured router, else the one that refinement made in the data directory, else the bundled one. Outcomes are kept beside
 * the memory, when there is one. */
static int open_router(ruv_runtime *runtime, ruv_error *err)
{
	const char *dir = runtime->settings.data_dir;
	ruv_router_options options = {0};
	char path[4096], tier_path[4096], log[4096];
	ruv_router *router;
	int rc = RUV_OK;

	if (*runtime->settings.router || snprintf(path, sizeof path, "%s/router.bin", dir) >= (int)sizeof path ||
	    access(path, R_OK))
		rc = ruv_models_find(&runtime->settings, "router", path, sizeof path, err);
	if (snprintf(log, sizeof log, "%s/router.log", dir) < (int)sizeof log && !access(dir, W_OK))
		options.log_path = log;

	if (!rc)
		rc = ruv_router_open(&router, path, &options, err);
	if (rc)
		return rc;
	for (int i = 0; !rc && i < ruv_router_n_tiers(router); i++) {
		bool there =
		    !ruv_models_find(&runtime->settings, ruv_router_tier_at(router, i)->name, tier_path, sizeof tier_path, NULL);

		rc = ruv_router_set_available(router, i, there, err);
	}
	if (rc) {
		ruv_router_free(router);
		return rc;
	}
	runtime->router = router;
	return RUV_OK;
}

int ruv_runtime_router(ruv_runtime *runtime, ruv_router **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->router)
		rc = open_router(runtime, err);
	*out = runtime->router;
	return ruv_runtime_unlock(runtime, rc);
}

ruv_router *ruv_runtime_router_if_open(ruv_runtime *runtime)
{
	ruv_router *router;

	ruv_runtime_lock(runtime);
	router = runtime->router;
	ruv_runtime_unlock(runtime, RUV_OK);
	return router;
}

/* The machine and the service now. */
static ruv_route_system look_at_system(ruv_runtime *runtime)
{
	ruv_scheduler *scheduler = atomic_load(&runtime->scheduler);
	ruv_route_system system;
	ruv_scheduler_stats stats;

	ruv_runtime_lock(runtime);
	if (!runtime->system_ns || ruv_clock_now_ns() - runtime->system_ns > second_ns) {
		ruv_route_system_fill(&runtime->system);
		runtime->system_ns = ruv_clock_now_ns();
	}
	system = runtime->system;
	ruv_runtime_unlock(runtime, RUV_OK);
	if (scheduler) {
		int total = 0, used = 0;
		int64_t looked = 0, had = 0;

		ruv_scheduler_get_stats(scheduler, &stats);
		for (int i = 0; i < stats.n_models; i++) {
			total += stats.models[i].pages_total;
			used += stats.models[i].pages_total - stats.models[i].pages_free - stats.models[i].pages_cached;
			looked += stats.models[i].prompt_tokens;
			had += stats.models[i].prefix_hit_tokens;
		}
		system.n_concurrent = stats.n_running;
		system.n_queued = stats.n_waiting;
		system.pages_used = total ? (double)used / total : 0;
		system.prefix_hits = looked ? (double)had / (double)looked : 0;
	}
	return system;
}

/* The search as the router saw it when its outcomes were collected: ten hits with their vectors, whatever the prompt gets. */
static int look_around(ruv_runtime *runtime, const char *question, const float *vector, const ruv_memory_scope *scope,
                       ruv_memory_hits *hits, ruv_error *err)
{
	ruv_memory_query query = {.text = question, .vector = vector, .k = RUV_ROUTE_SEARCH_K, .with_vectors = true};
	ruv_memory *memory;
	int rc = ruv_runtime_bound_memory(runtime, false, &memory, err);

	if (rc)
		return rc == RUV_ENOTFOUND ? RUV_OK : rc; /* nothing was ever remembered */
	query.filter.scope = scope ? *scope : ruv_runtime_scope(runtime);
	return ruv_memory_search(memory, hits, &query, err);
}

int ruv_route_question(ruv_runtime *runtime, const char *question, const float *vector, const ruv_memory_scope *scope,
                       const ruv_answer *found, ruv_route_state *state, ruv_route_decision *decision, ruv_error *err)
{
	ruv_route_hit hits[RUV_ROUTE_MAX_HITS];
	ruv_memory_hits around = {0};
	ruv_route_system system;
	ruv_route_input input = {.text = question, .hits = hits, .k = (int)runtime->settings.sources, .system = &system};
	ruv_router *router;
	int rc = ruv_runtime_router(runtime, &router, err);

	if (rc)
		return rc;
	system = look_at_system(runtime);
	if (vector) {
		input.embedding = vector;
		input.dim = ruv_runtime_embed_dim(runtime, err);
		input.ann_recall = 1;
		rc = look_around(runtime, question, vector, scope, &around, err);
		if (rc)
			return rc;
		ruv_route_input_hits(&input, hits, &around, RUV_ROUTE_SEARCH_K);
	}
	for (int i = 0; !vector && i < found->n_sources && i < RUV_ROUTE_MAX_HITS; i++) {
		const ruv_source *source = &found->sources[i];

		hits[input.n_hits++] = (ruv_route_hit){.text = source->text,
		                                       .source = source->source,
		                                       .score = source->score,
		                                       .cosine = source->cosine,
		                                       .vector_rank = source->vector_rank,
		                                       .lexical_rank = source->lexical_rank};
	}
	rc = ruv_router_decide(router, state, &input, decision, err);
	ruv_memory_hits_release(&around);
	return rc;
}

const char *ruv_route_tier_name(ruv_runtime *runtime, int tier)
{
	ruv_router *router;

	return ruv_runtime_router(runtime, &router, NULL) ? "" : ruv_router_tier_at(router, tier)->name;
}

bool ruv_route_escalates(ruv_runtime *runtime, const ruv_route_decision *decision, const ruv_answer *answer, int *next)
{
	ruv_route_signs signs = {.mean_logprob = answer->mean_logprob,
	                         .min_logprob = answer->min_logprob,
	                         .unknown = answer->unknown,
	                         .cut_off = answer->finish == RUV_FINISH_LENGTH,
	                         .judged = answer->verdict.quality};
	ruv_router *router;

	for (int i = 0; i < answer->n_citations; i++)
		signs.grounded |= answer->citations[i].verbatim;
	return !ruv_runtime_router(runtime, &router, NULL) && ruv_router_escalate(router, decision, &signs, next);
}

/* route.c - the router's inputs from the loop, and what it says about an answer: see route.h.
 *
 * Tiers whose file is missing are told to the router when it opens. What the operating system knows is read once a second at most.
 * Layer: runtime. */
#include "runtime/route.h"

#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "runtime/models.h"

static const int64_t second_ns = 1000000000;

static int open_router(ruv_runtime *runtime, ruv_error *err)
{
	const ruv_router_options options = {0};
	char path[4096], tier_path[4096];
	ruv_router *router;
	int rc = ruv_models_find(&runtime->settings, "router", path, sizeof path, err);

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

int ruv_route_question(ruv_runtime *runtime, const char *question, const float *vector, const ruv_answer *found,
                       ruv_route_state *state, ruv_route_decision *decision, ruv_error *err)
{
	ruv_route_hit hits[RUV_ROUTE_MAX_HITS];
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
	}
	for (int i = 0; i < found->n_sources && i < RUV_ROUTE_MAX_HITS; i++) {
		const ruv_source *source = &found->sources[i];

		hits[input.n_hits++] = (ruv_route_hit){.text = source->text,
		                                       .source = source->source,
		                                       .score = source->score,
		                                       .cosine = source->cosine,
		                                       .vector_rank = source->vector_rank,
		                                       .lexical_rank = source->lexical_rank};
	}
	return ruv_router_decide(router, state, &input, decision, err);
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

/* cmd_router.c - `ruvllm router PART`: the table of its parts, and the small ones: ask, features, refine, rollback. */
#include "cmd_router.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/status.h"
#include "cli_runtime.h"
#include "learn/features.h"
#include "runtime/models.h"
#include "ruvllm/router.h"

bool cmd_router_file(char *path, size_t cap, int *code)
{
	ruv_runtime *runtime = cli_runtime(code);
	ruv_error err = {0};
	int rc;

	if (!runtime)
		return false;
	rc = ruv_runtime_find_model(runtime, "router", path, cap, &err);
	ruv_runtime_free(runtime);
	if (rc)
		*code = cli_fail(&err, "name one with --router, or make one: `ruvllm router collect`, then `ruvllm router train`");
	return !rc;
}

/* ---- ask --------------------------------------------------------------------------------------------------------------- */

int cmd_router_ask(int argc, char **argv)
{
	static bool features;
	static double budget;
	static int concurrent;
	static const cli_option options[] = {
	    {"features", 0, CLI_FLAG, &features, NULL, "show the 128 numbers as well"},
	    {"latency-budget", 0, CLI_DOUBLE, &budget, "MS", "the answer must be there in so many ms"},
	    {"concurrent", 0, CLI_INT, &concurrent, "N", "requests running beside it"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router ask",
	    .usage = "[OPTIONS] QUESTION...",
	    .summary =
		"Which tier the questions would get, as turns of one conversation, and why; memory is searched as for an answer.",
	    .options = options,
	    .examples = "ruvllm router ask 'When does the backup start?'\nruvllm router ask --features 'hello'",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_router *router = NULL;
	ruv_runtime *runtime = NULL;
	ruv_embedder *embedder = NULL;
	ruv_memory *memory = NULL;
	ruv_route_state state = {0};
	float *vector = NULL;
	json_t *all = json_array();
	ruv_error err = {0};
	char path[4096];
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !cmd_router_file(path, sizeof path, &code))
		goto done;
	runtime = cli_runtime(&code);
	if (!runtime)
		goto done;
	rc = ruv_router_open(&router, path, NULL, &err);
	if (!rc)
		rc = ruv_runtime_embedder(runtime, &embedder, &err);
	if (!rc && ruv_runtime_memory_if_any(runtime, &memory, &err)) /* no memory: nothing is found */
		memory = NULL;
	vector = rc ? NULL : malloc(sizeof *vector * (size_t)ruv_embedder_dim(embedder));
	for (int i = 0; !rc && i < args.n; i++) {
		const char *question = args.items[i];
		ruv_memory_query query = {.text = question, .vector = vector, .k = 10, .with_vectors = true};
		ruv_memory_hits found = {0};
		ruv_route_hit hits[RUV_ROUTE_MAX_HITS];
		ruv_route_system system = {.latency_budget_ms = budget, .n_concurrent = concurrent};
		ruv_route_input input = {.text = question, .embedding = vector, .ann_recall = 1, .system = &system};
		ruv_route_decision d;

		input.dim = ruv_embedder_dim(embedder);
		rc = ruv_embedder_embed(embedder, &question, 1, RUV_EMBED_QUERY, vector, NULL, &err);
		query.filter.scope = ruv_runtime_scope(runtime);
		if (!rc && memory)
			rc = ruv_memory_search(memory, &found, &query, &err);
		if (rc)
			break;
		ruv_route_system_fill(&system);
		ruv_route_input_hits(&input, hits, &found, 10);
		input.n_tokens = ruv_embedder_count(embedder, question, strlen(question), RUV_EMBED_PLAIN, &err);
		rc = ruv_router_decide(router, &state, &input, &d, &err);
		if (!rc && cli.json) {
			json_t *row =
			    json_pack("{s:o, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f}", "question", cli_json_text(question), "tier",
			              ruv_router_tier_at(router, d.tier)->name, "why", ruv_route_why_name(d.why), "context",
			              d.context, "temperature", (double)d.temperature, "top_p", (double)d.top_p, "confidence",
			              (double)d.confidence, "neighbours", (double)d.neighbours, "us", (double)d.ns / 1e3);
			json_t *tiers = json_object(), *named = json_object();

			for (int t = 0; t < ruv_router_n_tiers(router); t++)
				json_object_set_new(tiers, ruv_router_tier_at(router, t)->name,
				                    json_pack("{s:f, s:f}", "probability", (double)d.probabilities[t],
				                              "expected_quality", (double)d.expected[t]));
			json_object_set_new(row, "tiers", tiers);
			for (int f = 0; f < RUV_ROUTE_FEATURES && features; f++)
				json_object_set_new(named, ruv_feature_name(f, NULL), json_real((double)d.features[f]));
			if (features)
				json_object_set_new(row, "features", named);
			json_decref(features ? NULL : named);
			json_array_append_new(all, row);
		} else if (!rc) {
			printf("%s\n  tier %s (%s), context %d, temperature %.2f, top-p %.2f, confidence %.2f, past outcomes weigh "
			       "%.2f, %.0f us\n ",
			       question, ruv_router_tier_at(router, d.tier)->name, ruv_route_why_name(d.why), d.context,
			       (double)d.temperature, (double)d.top_p, (double)d.confidence, (double)d.neighbours,
			       (double)d.ns / 1e3);
			for (int t = 0; t < ruv_router_n_tiers(router); t++)
				printf(" %s: %.2f, expected quality %.2f;", ruv_router_tier_at(router, t)->name,
				       (double)d.probabilities[t], (double)d.expected[t]);
			printf("\n");
			for (int f = 0; f < RUV_ROUTE_FEATURES && features; f++) {
				const char *help, *name = ruv_feature_name(f, &help);

				printf("  %3d %-28s %8.4f  %s\n", f, name, (double)d.features[f], help);
			}
		}
		ruv_memory_hits_release(&found);
	}
	if (rc)
		code = cli_runtime_fail(&err);
	else if (cli.json)
		code = cli_json_print(json_incref(all));
done:
	json_decref(all);
	free(vector);
	ruv_router_free(router);
	ruv_runtime_free(runtime);
	return code;
}

/* ---- refine, rollback -------------------------------------------------------------------------------------------------- */

/* The router in use: the configured one, else DATA/router.bin that refinement made, else the bundled one. */
static bool own_router(char *use, char *own, char *log, size_t cap, int *code)
{
	ruv_config *config = cli_config(code);
	ruv_runtime *runtime = config ? cli_runtime(code) : NULL;
	const char *given;
	struct stat there;
	bool ok;

	if (!runtime)
		return false;
	ok = snprintf(own, cap, "%s/router.bin", ruv_runtime_data_dir(runtime)) < (int)cap &&
	     snprintf(log, cap, "%s/router.log", ruv_runtime_data_dir(runtime)) < (int)cap;
	ruv_runtime_free(runtime);
	if (!ok) {
		*code = cli_failf(RUV_ELIMIT, "the data directory's path is too long");
		return false;
	}
	given = ruv_config_value(config, ruv_config_key_find("router"), NULL, NULL);
	if (!*given && !stat(own, &there))
		return snprintf(use, cap, "%s", own) < (int)cap;
	return cmd_router_file(use, cap, code);
}

int cmd_router_refine(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "router refine",
	    .usage = "[OPTIONS]",
	    .summary = "Learn from the outcomes in DATA/router.log now: a copy of the weights is trained on them, "
		       "importance-weighted and held "
		       "back by EWC, and becomes DATA/router.bin only when it is better on held-out outcomes.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	char use[4096], own[4096], log[4096];
	ruv_router_options router_options = {0};
	ruv_router_refined r;
	ruv_router *router = NULL;
	ruv_error err = {0};
	cli_args args;
	struct stat there;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !own_router(use, own, log, sizeof use, &code))
		return code;
	router_options.log_path =
	    stat(log, &there) ? NULL : log; /* without one there is nothing to learn from, and refine says so */
	rc = ruv_router_open(&router, use, &router_options, &err);
	if (!rc)
		rc = ruv_router_refine(router, own, &r, &err);
	ruv_router_free(router);
	if (rc)
		return cli_fail(&err, NULL);
	if (cli.json)
		return cli_json_print(json_pack("{s:b, s:i, s:i, s:f, s:f, s:[f,f], s:s}", "kept", r.kept, "observations",
		                                r.n_observations, "steps", r.n_steps, "before", r.before, "after", r.after,
		                                "interval", r.interval[0], r.interval[1], "file", own));
	printf("%d outcomes, %d steps: held-out utility %.3f before, %.3f after (difference %.3f to %.3f): %s\n", r.n_observations,
	       r.n_steps, r.before, r.after, r.interval[0], r.interval[1], r.kept ? "kept" : "not kept, nothing changed");
	return 0;
}

int cmd_router_rollback(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "router rollback",
	    .usage = "[OPTIONS]",
	    .summary = "Put the router back that was in use before the last refinement.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	char use[4096], own[4096], log[4096];
	ruv_router *router = NULL;
	ruv_router_info info;
	ruv_error err = {0};
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !own_router(use, own, log, sizeof use, &code))
		return code;
	rc = ruv_router_open(&router, use, NULL, &err);
	if (!rc)
		rc = ruv_router_rollback(router, own, &err);
	if (!rc)
		ruv_router_get_info(router, &info);
	ruv_router_free(router);
	if (rc)
		return cli_fail(&err, NULL);
	if (cli.json)
		return cli_json_print(json_pack("{s:s, s:i}", "file", own, "version", info.version));
	printf("%s: version %d again\n", own, info.version);
	return 0;
}

/* ---- status ------------------------------------------------------------------------------------------------------------ */

static int cmd_router_status(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "router status",
	    .usage = "[OPTIONS]",
	    .summary = "Which router is in use, what it was trained on and what it has seen since.",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	char use[4096], own[4096], log[4096];
	ruv_router_options router_options = {0};
	ruv_router *router = NULL;
	ruv_router_info info;
	ruv_error err = {0};
	struct stat there;
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !own_router(use, own, log, sizeof use, &code))
		return code;
	router_options.log_path = stat(log, &there) ? NULL : log;
	if (ruv_router_open(&router, use, &router_options, &err))
		return cli_fail(&err, NULL);
	ruv_router_get_info(router, &info);
	if (cli.json) {
		json_t *tiers = json_array();

		for (int t = 0; t < ruv_router_n_tiers(router); t++) {
			const ruv_router_tier *tier = ruv_router_tier_at(router, t);

			json_array_append_new(tiers, json_pack("{s:s, s:I, s:f, s:f, s:f}", "name", tier->name, "params",
			                                       (json_int_t)tier->n_params, "quality", tier->quality, "latency_ms",
			                                       tier->latency_ms, "tokens", tier->tokens));
		}
		code = cli_json_print(json_pack("{s:s, s:i, s:s, s:i, s:i, s:i, s:i, s:f, s:I, s:s, s:f, s:f, s:o}", "file", use,
		                                "version", info.version, "method", info.method, "outcomes", info.n_outcomes,
		                                "observations", info.n_observations, "hidden", info.hidden, "rank", info.rank,
		                                "density", info.density, "cell_bytes", (json_int_t)info.n_bytes, "encoder",
		                                info.encoder, "mu", info.mu, "lambda", info.lambda, "tiers", tiers));
	} else {
		printf("%s: version %d, %s\ntrained on %d questions, %d outcomes seen since\ncell: %d hidden units, rank %d, %.0f "
		       "%% of the input "
		       "weights, %lld bytes\nutility = quality - %.2g s - %.2g cost; encoder %s\n",
		       use, info.version, info.method, info.n_outcomes, info.n_observations, info.hidden, info.rank,
		       100 * info.density, (long long)info.n_bytes, info.lambda, info.mu, *info.encoder ? info.encoder : "none");
		for (int t = 0; t < ruv_router_n_tiers(router); t++) {
			const ruv_router_tier *tier = ruv_router_tier_at(router, t);

			printf("tier %s: %.1fM parameters, mean quality %.3f, %.0f ms, %.0f tokens\n", tier->name,
			       (double)tier->n_params / 1e6, tier->quality, tier->latency_ms, tier->tokens);
		}
	}
	ruv_router_free(router);
	return code;
}

static const cli_part parts[] = {
    {"ask", cmd_router_ask, "which tier a question would get, and why"},
    {"status", cmd_router_status, "which router is in use, and what it has seen"},
    {"collect", cmd_router_collect, "run every tier on a question set and record what comes of it"},
    {"train", cmd_router_train, "train a router on collected outcomes"},
    {"eval", cmd_router_eval, "what routing is worth: accuracy, regrets, Pareto plot"},
    {"bench", cmd_router_bench, "time of a decision; the cell dense, sparse, low-rank, 8 bits"},
    {"drift", cmd_router_drift, "how much it forgets under ten thousand online updates, by protection"},
    {"classify", cmd_router_classify, "language, domain and kind of texts; trains those classifiers"},
    {"refine", cmd_router_refine, "learn from the outcomes seen since, if that helps"},
    {"rollback", cmd_router_rollback, "put the router before the last refinement back"},
    {0},
};

int cmd_router(int argc, char **argv)
{
	return cli_run_part(
	    &(cli_parts){
		.name = "router", .kind = "part", .summary = "Which model a question gets: docs/router.md.", .parts = parts},
	    argc, argv);
}

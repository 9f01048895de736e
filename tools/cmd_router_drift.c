/* cmd_router_drift.c - `ruvllm router drift`: forgetting under ten thousand online updates, by protection. */
#include <string.h>

#include "cli_runtime.h"
#include "cmd_router.h"
#include "learn/router_drift.h"

struct shown {
	cli_progress progress;
	uint64_t n_before; /* updates of the runs that are over */
	int n_runs;
};

/* mean += one / n */
static void add(ruv_drift_result *mean, const ruv_drift_result *one, int n)
{
	mean->protection = one->protection;
	mean->n_updates = one->n_updates;
	mean->n_learned += one->n_learned;
	mean->n_held += one->n_held;
	mean->old_before += one->old_before / n;
	mean->old_after += one->old_after / n;
	mean->held_before += one->held_before / n;
	mean->held_after += one->held_after / n;
	mean->earlier_after += one->earlier_after / n;
	mean->last_after += one->last_after / n;
	mean->utility_before += one->utility_before / n;
	mean->utility_after += one->utility_after / n;
}

static bool show(void *user, int n_done, int n_total)
{
	struct shown *shown = user;

	if (!shown->progress.active)
		cli_progress_begin(&shown->progress, "drift", "updates", (uint64_t)n_total * (uint64_t)shown->n_runs);
	cli_progress_update(&shown->progress, shown->n_before + (uint64_t)n_done, NULL);
	return !cli_interrupted;
}

int cmd_router_drift(int argc, char **argv)
{
	static int updates = 10000, tasks = 4, reservoir = 512, seeds = 3;
	static double ewc = 3;
	static int64_t seed = 1;
	static const cli_option options[] = {
	    {"updates", 'n', CLI_INT, &updates, "N", "online updates after the first task (default 10000)"},
	    {"tasks", 0, CLI_INT, &tasks, "N", "tasks that come one after the other, 2 to 8 (default 4)"},
	    {"reservoir", 0, CLI_INT, &reservoir, "N", "questions kept for replay (default 512)"},
	    {"ewc", 0, CLI_DOUBLE, &ewc, "X", "lambda of EWC (default 3)"},
	    {"seeds", 0, CLI_INT, &seeds, "N", "the mean of N runs with other tasks and other beginnings (default 3)"},
	    {"seed", 0, CLI_INT64, &seed, "N", "the first of them (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router drift",
	    .usage = "[OPTIONS] OUTCOMES...",
	    .summary =
		"How much a router's network forgets of its first task while it learns others online, without protection, with "
		"replay, with EWC and with both.",
	    .options = options,
	    .notes =
		"Articles are dealt into tasks that come one after the other; in each the tiers have changed places, so that "
		"what was right becomes wrong. Accuracy is the share of held-out questions with a tier within 0.05 of the best "
		"utility.",
	    .examples = "ruvllm router drift outcomes.jsonl",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_drift_result results[RUV_N_DRIFT_PROTECTIONS], one[RUV_N_DRIFT_PROTECTIONS];
	ruv_router_weights *weights = NULL;
	ruv_route_data data = {0};
	struct shown shown = {0};
	ruv_error err = {0};
	char path[4096];
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !cmd_router_file(path, sizeof path, &code))
		return code;
	if (seeds < 1)
		return cli_usage("--seeds is at least 1");
	shown.n_runs = seeds;
	cli_interrupt_catch();
	rc = ruv_router_weights_read(&weights, path, true, &err);
	for (int i = 0; !rc && i < args.n; i++)
		rc = ruv_route_data_read(&data, args.items[i], &err);
	if (!rc)
		ruv_route_data_prepare(&data, weights);
	memset(results, 0, sizeof results);
	for (int i = 0; !rc && i < seeds; i++) {
		rc = ruv_router_drift(weights, &data,
		                      &(ruv_drift_options){.n_tasks = tasks,
		                                           .n_updates = updates,
		                                           .n_reservoir = reservoir,
		                                           .ewc = ewc,
		                                           .seed = (uint64_t)(seed + i),
		                                           .progress = show,
		                                           .user = &shown},
		                      one, &err);
		for (int p = 0; !rc && p < RUV_N_DRIFT_PROTECTIONS; p++)
			add(&results[p], &one[p], seeds);
		shown.n_before += (uint64_t)RUV_N_DRIFT_PROTECTIONS * (uint64_t)updates;
	}
	cli_progress_end(&shown.progress, false);
	if (rc) {
		code = cli_fail(&err, NULL);
	} else if (cli.json) {
		json_t *all = json_array();

		for (int p = 0; p < RUV_N_DRIFT_PROTECTIONS; p++)
			json_array_append_new(all, json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
			                                     "protection", results[p].protection, "updates", results[p].n_updates,
			                                     "learned", results[p].n_learned, "held_out", results[p].n_held,
			                                     "old_before", results[p].old_before, "old_after", results[p].old_after,
			                                     "held_before", results[p].held_before, "held_after",
			                                     results[p].held_after, "earlier_after", results[p].earlier_after,
			                                     "last_after", results[p].last_after, "utility_before",
			                                     results[p].utility_before, "utility_after", results[p].utility_after));
		code = cli_json_print(all);
	} else {
		cli_table *table = cli_table_create("protection|>first task before|>after|>points|>held out before|>after|>utility "
		                                    "before|>after|>all earlier tasks|>last task");

		printf(
		    "%d updates over %d further tasks; mean of %d runs, %d learned and %d held-out questions of the first tasks\n",
		    results[0].n_updates, tasks - 1, seeds, results[0].n_learned, results[0].n_held);
		for (int p = 0; table && p < RUV_N_DRIFT_PROTECTIONS; p++) {
			const ruv_drift_result *r = &results[p];

			cli_table_cell(table, "%s", r->protection);
			cli_table_cell(table, "%.1f %%", 100 * r->old_before);
			cli_table_cell(table, "%.1f %%", 100 * r->old_after);
			cli_table_cell(table, "%+.1f", 100 * (r->old_after - r->old_before));
			cli_table_cell(table, "%.1f %%", 100 * r->held_before);
			cli_table_cell(table, "%.1f %%", 100 * r->held_after);
			cli_table_cell(table, "%.3f", r->utility_before);
			cli_table_cell(table, "%.3f", r->utility_after);
			cli_table_cell(table, "%.1f %%", 100 * r->earlier_after);
			cli_table_cell(table, "%.1f %%", 100 * r->last_after);
		}
		cli_table_print(table, stdout);
		code = 0;
	}
	ruv_router_weights_free(weights);
	ruv_route_data_release(&data);
	return code;
}

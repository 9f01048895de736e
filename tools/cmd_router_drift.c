/* cmd_router_drift.c - `ruvllm router drift`: forgetting under ten thousand online updates, by protection. */
#include "cli_runtime.h"
#include "cmd_router.h"
#include "learn/router_drift.h"

struct shown {
	cli_progress progress;
};

static bool show(void *user, int n_done, int n_total)
{
	struct shown *shown = user;

	if (!shown->progress.active)
		cli_progress_begin(&shown->progress, "drift", "updates", (uint64_t)n_total);
	cli_progress_update(&shown->progress, (uint64_t)n_done, NULL);
	return !cli_interrupted;
}

int cmd_router_drift(int argc, char **argv)
{
	static int updates = 10000, tasks = 4, reservoir = 512;
	static double ewc = 3;
	static int64_t seed = 1;
	static const cli_option options[] = {
	    {"updates", 'n', CLI_INT, &updates, "N", "online updates after the first task (default 10000)"},
	    {"tasks", 0, CLI_INT, &tasks, "N", "tasks that come one after the other, 2 to 8 (default 4)"},
	    {"reservoir", 0, CLI_INT, &reservoir, "N", "questions kept for replay (default 512)"},
	    {"ewc", 0, CLI_DOUBLE, &ewc, "X", "lambda of EWC (default 3)"},
	    {"seed", 0, CLI_INT64, &seed, "N", "of tasks and training (default 1)"},
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
	ruv_drift_result results[RUV_N_DRIFT_PROTECTIONS];
	ruv_router_weights *weights = NULL;
	ruv_route_data data = {0};
	struct shown shown = {0};
	ruv_error err = {0};
	char path[4096];
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code) || !cmd_router_file(path, sizeof path, &code))
		return code;
	cli_interrupt_catch();
	rc = ruv_router_weights_read(&weights, path, true, &err);
	for (int i = 0; !rc && i < args.n; i++)
		rc = ruv_route_data_read(&data, args.items[i], &err);
	if (!rc) {
		ruv_route_data_prepare(&data, weights);
		rc = ruv_router_drift(weights, &data,
		                      &(ruv_drift_options){.n_tasks = tasks,
		                                           .n_updates = updates,
		                                           .n_reservoir = reservoir,
		                                           .ewc = ewc,
		                                           .seed = (uint64_t)seed,
		                                           .progress = show,
		                                           .user = &shown},
		                      results, &err);
	}
	cli_progress_end(&shown.progress, false);
	if (rc) {
		code = cli_fail(&err, NULL);
	} else if (cli.json) {
		json_t *all = json_array();

		for (int p = 0; p < RUV_N_DRIFT_PROTECTIONS; p++)
			json_array_append_new(all, json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "protection",
			                                     results[p].protection, "updates", results[p].n_updates, "held_out",
			                                     results[p].n_held, "old_before", results[p].old_before, "old_after",
			                                     results[p].old_after, "earlier_after", results[p].earlier_after,
			                                     "last_after", results[p].last_after, "utility_before",
			                                     results[p].utility_before, "utility_after", results[p].utility_after));
		code = cli_json_print(all);
	} else {
		cli_table *table =
		    cli_table_create("protection|>first task before|>after|>forgotten|>utility before|>after|>all earlier "
		                     "tasks|>last task");

		printf("%d updates over %d further tasks; %d held-out questions of the first\n", results[0].n_updates, tasks - 1,
		       results[0].n_held);
		for (int p = 0; table && p < RUV_N_DRIFT_PROTECTIONS; p++) {
			const ruv_drift_result *r = &results[p];

			cli_table_cell(table, "%s", r->protection);
			cli_table_cell(table, "%.1f %%", 100 * r->old_before);
			cli_table_cell(table, "%.1f %%", 100 * r->old_after);
			cli_table_cell(table, "%+.1f", 100 * (r->old_after - r->old_before));
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

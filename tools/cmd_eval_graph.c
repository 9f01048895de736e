/* cmd_eval_graph.c - `ruvllm eval retrieval --graph`: the same questions with graph attention and without. */
#include "cmd_eval.h"

#include <stdio.h>

#include "cli_runtime.h"
#include "runtime/eval_graph.h"
#include "runtime/graph.h"

static void print_gain(const char *what, const ruv_eval_gain *gain)
{
	printf("  %s %+.3f [%+.3f, %+.3f]\n", what, gain->gain, gain->low, gain->high);
}

void cmd_eval_print_graph(const ruv_eval_graph_result *r)
{
	cli_table *table = cli_table_create("RANKING|>R@1|>R@2|>R@5|>R@10|>ALL@5|>ALL@10|>MRR|>nDCG@10");

	for (int i = 0; table && i < RUV_EVAL_GRAPH_N; i++) {
		const ruv_graph_quality *q = &r->means[i];
		const double cells[] = {q->recall_1, q->recall_2, q->recall_5, q->recall_10,
		                        q->all_5,    q->all_10,   q->mrr,      q->ndcg_10};
		cli_table_cell(table, "%s", ruv_eval_graph_name(i));
		for (size_t c = 0; c < sizeof cells / sizeof *cells; c++)
			cli_table_cell(table, "%.3f", cells[c]);
	}
	if (table)
		cli_table_print(table, stdout);
	printf("%d questions, %d with edges around their hits; %.0f nodes and %.0f edges each\n", r->n, r->n_with_edges,
	       r->mean_nodes, r->mean_edges / 2);
	printf("gain over the search alone, 95 %% by paired bootstrap:\n");
	print_gain("nDCG@10", &r->ndcg);
	print_gain("R@5", &r->recall_5);
	print_gain("all evidence in 5", &r->all_5);
	print_gain("nDCG@10 with rewired edges (control)", &r->rewired_ndcg);
	printf("ms of CPU a question, median (p99): search %.2f (%.2f), gathering the neighbourhood %.2f (%.2f), attention %.2f "
	       "(%.2f)\n",
	       r->search_ms[0], r->search_ms[1], r->gather_ms[0], r->gather_ms[1], r->score_ms[0], r->score_ms[1]);
}

static json_t *gain_json(const ruv_eval_gain *gain)
{
	return json_pack("{s:f, s:f, s:f}", "gain", gain->gain, "low", gain->low, "high", gain->high);
}

static int print_json(const ruv_eval_graph_result *r, const ruv_runtime_graph *g)
{
	json_t *rankings = json_object();

	for (int i = 0; i < RUV_EVAL_GRAPH_N; i++) {
		const ruv_graph_quality *q = &r->means[i];
		json_object_set_new(rankings, ruv_eval_graph_name(i),
		                    json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "r1", q->recall_1, "r2", q->recall_2,
		                              "r5", q->recall_5, "r10", q->recall_10, "all5", q->all_5, "all10", q->all_10, "mrr",
		                              q->mrr, "ndcg10", q->ndcg_10));
	}
	return cli_json_print(json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:b, s:s, s:f, s:f, s:f}", "questions", r->n, "rankings",
	                                rankings, "ndcg10", gain_json(&r->ndcg), "r5", gain_json(&r->recall_5), "all5",
	                                gain_json(&r->all_5), "rewired_ndcg10", gain_json(&r->rewired_ndcg), "used", g->used, "why",
	                                g->why, "search_ms", r->search_ms[0], "gather_ms", r->gather_ms[0], "attention_ms",
	                                r->score_ms[0]));
}

int cmd_eval_graph(ruv_runtime *runtime, ruv_embedder *embedder, const ruv_eval_set *set, int limit, uint64_t seed)
{
	cli_progress progress = {0};
	const ruv_eval_graph_params params = {
	    .limit = limit, .seed = seed, .cancel = &cli_cancel, .progress = cmd_eval_progress, .user = &progress};
	ruv_eval_graph_samples samples = {0};
	ruv_eval_graph_result result;
	const ruv_runtime_graph *g;
	ruv_error err = {0};
	int code = 0, rc = ruv_runtime_graph_state(runtime, &g, &err);

	if (!rc && !g)
		return cli_failf(RUV_ENOTFOUND,
		                 "there are no parameters of graph attention to measure; `ruvllm memory graph train` makes them");
	if (!rc)
		rc = ruv_eval_graph_read(&samples, embedder, set, &params, &err);
	cli_progress_end(&progress, false);
	if (!rc)
		rc = ruv_eval_graph(&result, &samples, &g->weights.model, seed, &err);
	if (rc)
		code = cli_fail(&err, NULL);
	else if (cli.json)
		code = print_json(&result, g);
	else {
		const ruv_graph_gate *m = &g->weights.gate;
		cmd_eval_print_graph(&result);
		printf("as trained, on %d questions: gain [%+.3f, %+.3f]; trained on shuffled evidence [%+.3f, %+.3f]; ordinary "
		       "questions lost "
		       "%.1f points\n",
		       m->n, (double)m->low, (double)m->high, (double)m->shuffled_low, (double)m->shuffled_high,
		       (double)m->old_drop);
		printf("graph-attention auto: %s, %s\n", g->used ? "used" : "not used", g->why);
	}
	ruv_eval_graph_release(&samples);
	return code;
}

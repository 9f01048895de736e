/* cmd_eval_retrieval.c - `ruvllm eval retrieval`: does the memory find the passage that holds the answer? */
#include "cmd_eval.h"

#include <string.h>

#include "base/file.h"
#include "cli_runtime.h"
#include "runtime/eval.h"

/* Both histograms of cosines as a standalone picture. */
static void write_histogram(FILE *out, const ruv_eval_retrieval_result *r)
{
	enum { WIDTH = 720, HEIGHT = 300, LEFT = 40, BOTTOM = 40, TOP = 40 };
	const int *series[2] = {r->unrelated, r->related};
	static const char *const colours[2] = {"#c0504d", "#4f81bd"};
	double step = (double)(WIDTH - 2 * LEFT) / RUV_EVAL_COSINE_BINS;
	int top = 1;

	for (int i = 0; i < RUV_EVAL_COSINE_BINS; i++)
		for (int s = 0; s < 2; s++)
			top = series[s][i] > top ? series[s][i] : top;
	fprintf(out,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n",
	        WIDTH, HEIGHT);
	fprintf(out, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n");
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < RUV_EVAL_COSINE_BINS; i++) {
			double h = (double)series[s][i] / top * (HEIGHT - BOTTOM - TOP);
			if (series[s][i])
				fprintf(out,
				        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" "
				        "fill-opacity=\"0.6\"/>\n",
				        LEFT + i * step, HEIGHT - BOTTOM - h, step - 1, h, colours[s]);
		}
	for (int i = 0; i <= 4; i++)
		fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f</text>\n", LEFT + i * (WIDTH - 2 * LEFT) / 4.0,
		        HEIGHT - 20, -1 + i * 0.5);
	fprintf(out, "<text x=\"%d\" y=\"20\" fill=\"%s\">unrelated passages, mean %.2f</text>\n", LEFT, colours[0],
	        r->unrelated_mean);
	fprintf(out, "<text x=\"%d\" y=\"20\" fill=\"%s\">the passage with the answer, mean %.2f</text>\n", WIDTH / 2, colours[1],
	        r->related_mean);
	fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">cosine of question and passage</text>\n</svg>\n", WIDTH / 2,
	        HEIGHT - 4);
}

static int print_json(const ruv_eval_retrieval_result *r, const ruv_model_info *info)
{
	json_t *methods = json_object();

	for (int i = 0; i < r->n_methods; i++) {
		const ruv_eval_ranking *m = &r->methods[i];
		json_object_set_new(methods, ruv_eval_method_name(i),
		                    json_pack("{s:f, s:f, s:f, s:f, s:f}", "r1", m->recall_1, "r5", m->recall_5, "r10",
		                              m->recall_10, "mrr", m->mrr, "ndcg10", m->ndcg_10));
	}
	return cli_json_print(json_pack(
	    "{s:o, s:i, s:i, s:o, s:f, s:f, s:f, s:f, s:f}", "encoder", cli_json_text(info->name), "questions", r->n_questions,
	    "passages", r->n_passages, "methods", methods, "related_cosine", r->related_mean, "unrelated_cosine", r->unrelated_mean,
	    "embed_seconds", r->embed_seconds, "search_seconds", r->search_seconds, "rerank_seconds", r->rerank_seconds));
}

static void print_table(const ruv_eval_retrieval_result *r, const ruv_model_info *info)
{
	cli_table *table = cli_table_create("METHOD|>R@1|>R@5|>R@10|>MRR|>nDCG@10");

	printf("%d questions, %d passages, encoder %s (%s)\n", r->n_questions, r->n_passages, info->name, info->file_type);
	for (int i = 0; table && i < r->n_methods; i++) {
		const ruv_eval_ranking *m = &r->methods[i];
		cli_table_cell(table, "%s", ruv_eval_method_name(i));
		cli_table_cell(table, "%.3f", m->recall_1);
		cli_table_cell(table, "%.3f", m->recall_5);
		cli_table_cell(table, "%.3f", m->recall_10);
		cli_table_cell(table, "%.3f", m->mrr);
		cli_table_cell(table, "%.3f", m->ndcg_10);
	}
	if (table)
		cli_table_print(table, stdout);
	printf("cosine of a question to its passage %.3f, to another %.3f; %.1f texts/s embedded\n", r->related_mean,
	       r->unrelated_mean, (r->n_questions + r->n_passages) / (r->embed_seconds > 0 ? r->embed_seconds : 1));
	if (r->n_methods > RUV_EVAL_RERANKED)
		printf("reranking takes %.1f ms a question\n", 1000 * r->rerank_seconds / r->n_questions);
}

int cmd_eval_retrieval(int argc, char **argv)
{
	static int limit;
	static int64_t seed = 1;
	static const char *histogram, *rerank;
	static bool graph;
	static const cli_option options[] = {
	    {"graph", 0, CLI_FLAG, &graph, NULL,
	     "compare hybrid search with and without graph attention instead (docs/graph-attention.md)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "only a seeded sample of N questions (default: all)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample (default 1)"},
	    {"rerank", 0, CLI_STRING, &rerank, "s|m|l|FILE",
	     "this generator reads the ten best of the fused list: how likely does each make the question?"},
	    {"histogram", 0, CLI_STRING, &histogram, "FILE", "draw the cosines of related and unrelated pairs as SVG"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval retrieval",
	    .usage = "[OPTIONS] FILE...",
	    .summary = "Store all passages of the files in a memory of their own and look for each question's passage by words "
		       "(BM25), by meaning (vectors), "
		       "and by both, fused by reciprocal rank and by standardised scores. Files of passages without questions make "
		       "it harder.",
	    .options = options,
	    .examples = "ruvllm eval retrieval bench/data/xquad_en.jsonl.zst bench/data/distractors.jsonl.zst",
	    .min_args = 1,
	    .max_args = 16,
	    CLI_CONFIG_OPTIONS,
	};
	cli_progress progress = {0};
	ruv_eval_set set = {0};
	ruv_runtime *runtime = NULL;
	ruv_embedder *embedder;
	ruv_session *reranker = NULL;
	ruv_model *encoder;
	ruv_model_info info;
	ruv_eval_retrieval_params params;
	ruv_eval_retrieval_result r;
	ruv_outfile out = {0};
	ruv_error err = {0};
	cli_args args;
	int code = 0;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	cli_interrupt_catch();
	for (int i = 0; i < args.n; i++)
		if (ruv_eval_set_read(&set, args.items[i], &err)) {
			code = cli_fail(&err, NULL);
			goto done;
		}
	runtime = cli_runtime(&code);
	if (!runtime)
		goto done;
	if (ruv_runtime_embedder(runtime, &embedder, &err) || ruv_runtime_model(runtime, "encoder", &encoder, &err)) {
		code = cli_runtime_fail(&err);
		goto done;
	}
	if (graph) {
		code = cmd_eval_graph(runtime, embedder, &set, limit, (uint64_t)seed);
		goto done;
	}
	if (rerank && ruv_runtime_session(runtime, rerank, &reranker, &err)) {
		code = cli_runtime_fail(&err);
		goto done;
	}
	ruv_model_get_info(encoder, &info);
	params = (ruv_eval_retrieval_params){.limit = limit,
	                                     .seed = (uint64_t)seed,
	                                     .reranker = reranker,
	                                     .cancel = &cli_cancel,
	                                     .progress = cmd_eval_progress,
	                                     .user = &progress};
	code = ruv_eval_retrieval(&r, embedder, &set, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&progress, false);
	if (code)
		goto done;
	if (histogram) {
		if (ruv_outfile_open(&out, histogram, &err)) {
			code = cli_fail(&err, NULL);
			goto done;
		}
		write_histogram(out.stream, &r);
		if (ruv_outfile_commit(&out, &err)) {
			code = cli_fail(&err, NULL);
			goto done;
		}
	}
	if (cli.json)
		code = print_json(&r, &info);
	else
		print_table(&r, &info);
done:
	ruv_outfile_release(&out);
	ruv_session_free(reranker);
	ruv_runtime_free(runtime);
	ruv_eval_set_release(&set);
	return code;
}

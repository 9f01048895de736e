/* cmd_eval_perplexity.c - `ruvllm eval perplexity`: how well a model predicts a text.
 *
 * Counted as llama.cpp's llama-perplexity counts it, so that figures compare. The text is tokenized as a whole and cut into
 * windows of n_ctx tokens; each window starts afresh (its first token replaced by the start token where the model wants one), and
 * only the second half is scored, so that every scored token has at least n_ctx / 2 before it. */
#include "cmd_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "cli_runtime.h"
#include "infer/sampler.h"
#include "runtime/eval_data.h"

struct score {
	double nll, nll2;   /* sums of -ln p and of its square */
	int64_t n, n_bytes; /* tokens scored, and the bytes of them */
	int n_windows, n_ctx;
	double seconds;
};

/* Scores one window. tokens [n_ctx] may be changed; logits is room for [n_ctx - first, n_vocab]. */
static int score_window(struct score *score, ruv_session *session, ruv_token *tokens, int n_vocab, float *logits, ruv_error *err)
{
	const ruv_model *model = ruv_session_model(session);
	const int n = score->n_ctx, first = n / 2;
	ruv_session_reset(session);
	int rc = first ? ruv_session_prefill(session, tokens, first, &cli_cancel, err) : RUV_OK;
	if (rc == RUV_OK)
		rc = ruv_session_score(session, tokens + first, n - first, logits, &cli_cancel, err);
	for (int j = first; j < n - 1 && rc == RUV_OK; j++) {
		const float *row = logits + (size_t)(j - first) * (size_t)n_vocab;
		const double nll = ruv_log_sum_exp(row, n_vocab) - row[tokens[j + 1]];
		size_t n_bytes;
		ruv_model_token_bytes(model, tokens[j + 1], &n_bytes);
		score->nll += nll;
		score->nll2 += nll * nll;
		score->n++;
		score->n_bytes += (int64_t)n_bytes;
	}
	return rc;
}

static double perplexity(const struct score *s)
{
	return exp(s->nll / (double)s->n);
}

/* Standard error of the perplexity, from that of the mean. */
static double perplexity_error(const struct score *s)
{
	const double n = (double)s->n, mean = s->nll / n, variance = s->nll2 / n - mean * mean;
	return s->n > 1 && variance > 0 ? sqrt(variance / (n - 1)) * exp(mean) : 0;
}

static int run_perplexity(struct score *score, ruv_model *model, const char *path, int max_windows, ruv_kv_type kv_type,
                          ruv_error *err)
{
	char *text = NULL;
	size_t n_bytes = 0;
	ruv_token_list list = {0};
	ruv_session *session = NULL;
	float *logits = NULL;
	cli_progress progress = {0};
	ruv_model_info info;
	ruv_model_get_info(model, &info);
	int rc = ruv_eval_text_read(&text, &n_bytes, path, err);
	if (rc || (rc = ruv_model_tokenize(model, text, n_bytes, RUV_TOKENIZE_BOS, &list, err)))
		goto done;
	const bool bos = list.n > 0 && list.ids[0] == ruv_model_token_bos(model);
	int n_windows = list.n / score->n_ctx;
	if (n_windows == 0) {
		rc = ruv_fail(err, RUV_EINVAL, "eval",
		              "%s has %d tokens, one window needs %d; give a longer text or a smaller --ctx", path, list.n,
		              score->n_ctx);
		goto done;
	}
	if (max_windows > 0 && max_windows < n_windows)
		n_windows = max_windows;
	rc = ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = score->n_ctx, .kv_type = kv_type}, err);
	if (rc)
		goto done;
	const int rows = score->n_ctx - score->n_ctx / 2;
	logits = malloc((size_t)rows * (size_t)info.n_vocab * sizeof *logits);
	if (!logits) {
		rc = ruv_fail(err, RUV_ENOMEM, "eval", "no memory for the logits of %d tokens", rows);
		goto done;
	}
	cli_progress_begin(&progress, "perplexity", "windows", (uint64_t)n_windows);
	const int64_t start = ruv_clock_now_ns();
	for (int i = 0; i < n_windows && rc == RUV_OK; i++) {
		ruv_token *tokens = list.ids + (size_t)i * (size_t)score->n_ctx;
		const ruv_token first = tokens[0];
		if (bos)
			tokens[0] = ruv_model_token_bos(model);
		rc = score_window(score, session, tokens, info.n_vocab, logits, err);
		tokens[0] = first;
		if (rc == RUV_OK) {
			char so_far[64];
			score->n_windows++;
			snprintf(so_far, sizeof so_far, "so far %.4f", perplexity(score));
			cli_progress_update(&progress, (uint64_t)i + 1, so_far);
		}
	}
	score->seconds = (double)(ruv_clock_now_ns() - start) / 1e9;
done:
	cli_progress_end(&progress, false);
	free(logits);
	free(text);
	ruv_session_free(session);
	ruv_token_list_release(&list);
	return rc;
}

int cmd_eval_perplexity(int argc, char **argv)
{
	static int ctx = 512, threads, windows, batch = 256;
	static const char *kv = "f16";
	static const cli_option options[] = {
	    {"ctx", 'c', CLI_INT, &ctx, "N", "tokens of a window, of which the second half is scored (default 512)"},
	    {"windows", 'n', CLI_INT, &windows, "N", "score at most so many windows (default: all)"},
	    {"kv", 0, CLI_CHOICE, &kv, "f16|f32|q8_0", "how keys and values are kept (default f16)"},
	    {"batch", 'b', CLI_INT, &batch, "N", "tokens of one forward pass (default 256)"},
	    {"threads", 'j', CLI_INT, &threads, "N", "threads (default: one per core)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval perplexity",
	    .usage = "[OPTIONS] MODEL.gguf TEXT...",
	    .summary =
		"Measures how well a model predicts texts: perplexity per token (lower is better) and bits per byte, which also "
		"compares models of different tokenizers. Counted as llama.cpp's llama-perplexity does.",
	    .options = options,
	    .examples = "ruvllm eval perplexity model-Q4_K_M.gguf held-out.txt\nruvllm eval perplexity model.gguf wiki.txt "
			"--windows 20 --json",
	    .min_args = 2,
	    .max_args = -1};
	cli_args args;
	int code;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (ctx < 4)
		return cli_usage("--ctx must be at least 4");
	if (batch < 1)
		return cli_usage("--batch must be at least 1");
	cli_interrupt_catch();
	ruv_error err = {0};
	ruv_model *model = NULL;
	int rc = ruv_model_open(&model, args.items[0], &(ruv_model_options){.n_threads = threads, .n_batch = batch}, &err);
	if (rc)
		return cli_fail(&err, NULL);
	const ruv_kv_type kv_type = !strcmp(kv, "f32") ? RUV_KV_F32 : !strcmp(kv, "q8_0") ? RUV_KV_Q8_0 : RUV_KV_F16;
	struct score all = {.n_ctx = ctx};
	for (int i = 1; i < args.n && rc == RUV_OK; i++) {
		const int left = windows > 0 ? windows - all.n_windows : 0;
		if (windows > 0 && left <= 0)
			break;
		struct score one = {.n_ctx = ctx};
		rc = run_perplexity(&one, model, args.items[i], left, kv_type, &err);
		all.nll += one.nll;
		all.nll2 += one.nll2;
		all.n += one.n;
		all.n_bytes += one.n_bytes;
		all.n_windows += one.n_windows;
		all.seconds += one.seconds;
	}
	if (rc)
		goto done;
	const double bits_per_byte = all.n_bytes ? all.nll / log(2) / (double)all.n_bytes : 0;
	const double rate = (double)all.n_windows * ctx / all.seconds;
	if (cli.json) {
		code = cli_json_print(json_pack("{s:o, s:f, s:f, s:f, s:I, s:I, s:i, s:i, s:f, s:f}", "model",
		                                cli_json_text(args.items[0]), "perplexity", perplexity(&all), "standard_error",
		                                perplexity_error(&all), "bits_per_byte", bits_per_byte, "tokens_scored",
		                                (json_int_t)all.n, "bytes_scored", (json_int_t)all.n_bytes, "windows",
		                                all.n_windows, "ctx", ctx, "seconds", all.seconds, "tokens_per_second", rate));
	} else {
		printf("perplexity %.4f +/- %.4f, %.4f bits per byte\n", perplexity(&all), perplexity_error(&all), bits_per_byte);
		printf("%lld tokens scored in %d windows of %d, %.1f tokens/s\n", (long long)all.n, all.n_windows, ctx, rate);
		code = CLI_EXIT_OK;
	}
done:
	ruv_model_free(model);
	return rc ? cli_fail(&err, NULL) : code;
}

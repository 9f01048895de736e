/* cmd_imatrix.c - `ruvllm imatrix`: how much each input of each matrix matters, measured on a text, for `ruvllm quantize
 * --imatrix`.
 *
 * For every matrix of the layers the squares of its inputs are summed over all tokens of the text, in windows that start afresh.
 * The file is a GGUF that llama.cpp's tools read as well (format/quantize.h has its keys and tensors). */
#include "cli.h"
#include "commands.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/status.h"
#include "format/quantize.h"
#include "infer/session_object.h"

enum { MAX_TEXT_BYTES = 1 << 30, MAX_SUFFIXES = 12 };

/* The sums of one matrix. Those that read the same activations (q, k, v) have equal sums, kept apart all the same. */
struct sums {
	char name[64];
	float *sum2;   /* [n_in] handed to the writer */
	double *exact; /* [n_in] */
	int64_t n_in;
	double count;
};

struct collector {
	struct sums *list; /* [n] */
	int n, cap;
	float *host; /* activations */
	size_t host_floats;
	ruv_error *err;
};

static struct sums *find_sums(struct collector *c, const char *name, int64_t n_in)
{
	for (int i = 0; i < c->n; i++)
		if (!strcmp(c->list[i].name, name))
			return &c->list[i];
	if (c->n == c->cap) {
		int cap = c->cap ? 2 * c->cap : 64;
		struct sums *list = realloc(c->list, (size_t)cap * sizeof *list);
		if (!list)
			return NULL;
		c->list = list;
		c->cap = cap;
	}
	struct sums *s = &c->list[c->n];
	memset(s, 0, sizeof *s);
	snprintf(s->name, sizeof s->name, "%s", name);
	s->n_in = n_in;
	s->exact = calloc((size_t)n_in, sizeof *s->exact);
	s->sum2 = calloc((size_t)n_in, sizeof *s->sum2);
	if (!s->exact || !s->sum2) {
		free(s->exact);
		free(s->sum2);
		return NULL;
	}
	c->n++;
	return s;
}

static int on_linear(void *user, int layer, const char *suffix, ruv_backend *backend, const float *x, int n, int64_t n_in)
{
	struct collector *c = user;
	char name[64];
	if (layer < 0)
		return RUV_OK; /* the head is quantized without importance, as llama.cpp does */
	snprintf(name, sizeof name, "blk.%d.%s.weight", layer, suffix);
	struct sums *s = find_sums(c, name, n_in);
	const size_t floats = (size_t)n * (size_t)n_in;
	if (s && floats > c->host_floats) {
		free(c->host);
		c->host = malloc(floats * sizeof *c->host);
		c->host_floats = c->host ? floats : 0;
	}
	if (!s || !c->host)
		return ruv_fail(c->err, RUV_ENOMEM, "imatrix", "no memory for the sums of %s", name);
	ruv_backend_download(backend, c->host, x, floats * sizeof *c->host);
	for (int r = 0; r < n; r++)
		for (int64_t i = 0; i < n_in; i++) {
			const float v = c->host[(size_t)r * (size_t)n_in + (size_t)i];
			s->exact[i] += (double)v * v;
		}
	s->count += n;
	return RUV_OK;
}

static void release(struct collector *c)
{
	for (int i = 0; i < c->n; i++) {
		free(c->list[i].exact);
		free(c->list[i].sum2);
	}
	free(c->list);
	free(c->host);
}

static int collect(struct collector *c, ruv_model *model, const char *path, int ctx, int max_windows, int *n_windows,
                   ruv_error *err)
{
	char *text = NULL;
	size_t n_bytes = 0;
	ruv_token_list list = {0};
	ruv_session *session = NULL;
	cli_progress progress = {0};
	int rc = ruv_file_read(&text, &n_bytes, path, MAX_TEXT_BYTES, err);
	if (rc || (rc = ruv_model_tokenize(model, text, n_bytes, RUV_TOKENIZE_BOS, &list, err)))
		goto done;
	const bool bos = list.n > 0 && list.ids[0] == ruv_model_token_bos(model);
	int n = list.n / ctx;
	if (n == 0) {
		rc = ruv_fail(err, RUV_EINVAL, "imatrix",
		              "%s has %d tokens, one window needs %d; give a longer text or a smaller --ctx", path, list.n, ctx);
		goto done;
	}
	if (max_windows > 0 && max_windows < n)
		n = max_windows;
	rc = ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = ctx}, err);
	if (rc)
		goto done;
	const ruv_forward_tap tap = {.user = c, .linear = on_linear};
	session->tap = &tap;
	cli_progress_begin(&progress, "imatrix", "windows", (uint64_t)n);
	for (int i = 0; i < n && rc == RUV_OK; i++) {
		ruv_token *tokens = list.ids + (size_t)i * (size_t)ctx;
		if (bos)
			tokens[0] = ruv_model_token_bos(model);
		ruv_session_reset(session);
		rc = ruv_session_prefill(session, tokens, ctx, &cli_cancel, err);
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
	}
	*n_windows = n;
done:
	cli_progress_end(&progress, rc == RUV_OK);
	ruv_session_free(session);
	ruv_token_list_release(&list);
	free(text);
	return rc;
}

static int write_file(struct collector *c, const char *path, const char *dataset, int n_windows, int ctx, ruv_error *err)
{
	ruv_imatrix_entry *entries = calloc((size_t)c->n + 1, sizeof *entries);
	if (!entries)
		return ruv_fail_memory(err, "imatrix", (size_t)c->n * sizeof *entries);
	for (int i = 0; i < c->n; i++) {
		struct sums *s = &c->list[i];
		for (int64_t j = 0; j < s->n_in; j++)
			s->sum2[j] = (float)s->exact[j];
		entries[i] = (ruv_imatrix_entry){.name = s->name, .sum2 = s->sum2, .n_in = s->n_in, .count = (float)s->count};
	}
	int rc = ruv_imatrix_write(path, entries, (size_t)c->n, dataset, (uint32_t)n_windows, (uint32_t)ctx, err);
	free(entries);
	return rc;
}

int cmd_imatrix(int argc, char **argv)
{
	static int ctx = 512, threads, windows;
	static const char *output = "imatrix.gguf";
	static const cli_option options[] = {{"output", 'o', CLI_STRING, &output, "FILE", "where to write (default imatrix.gguf)"},
	                                     {"ctx", 'c', CLI_INT, &ctx, "N", "tokens of a window (default 512)"},
	                                     {"windows", 'n', CLI_INT, &windows, "N", "use at most so many windows (default: all)"},
	                                     {"threads", 'j', CLI_INT, &threads, "N", "threads (default: one per core)"},
	                                     {0}};
	static const cli_spec spec = {
	    .name = "imatrix",
	    .usage = "[OPTIONS] MODEL.gguf TEXT",
	    .summary = "Measures on a text which inputs of each matrix matter, so that `ruvllm quantize --imatrix` can spend its "
		       "bits there. "
		       "The model should be F16, BF16 or Q8_0; some 50,000 tokens of text like what it will meet are enough.",
	    .options = options,
	    .examples = "ruvllm imatrix model-F16.gguf sample.txt -o model.imatrix.gguf\n"
			"ruvllm quantize model-F16.gguf --imatrix model.imatrix.gguf",
	    .min_args = 2,
	    .max_args = 2};
	cli_args args;
	int code, n_windows = 0;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (ctx < 2)
		return cli_usage("--ctx must be at least 2");
	cli_interrupt_catch();
	ruv_error err = {0};
	struct collector collector = {.err = &err};
	ruv_model *model = NULL;
	const int64_t start = ruv_clock_now_ns();
	int rc = ruv_model_open(&model, args.items[0], &(ruv_model_options){.n_threads = threads}, &err);
	if (rc == RUV_OK)
		rc = collect(&collector, model, args.items[1], ctx, windows, &n_windows, &err);
	if (rc == RUV_OK)
		rc = write_file(&collector, output, args.items[1], n_windows, ctx, &err);
	const double seconds = (double)(ruv_clock_now_ns() - start) / 1e9;
	code = CLI_EXIT_OK;
	if (rc) {
		code = cli_fail(&err, NULL);
	} else if (cli.json) {
		code = cli_json_print(json_pack("{s:o, s:i, s:i, s:i, s:f}", "file", cli_json_text(output), "matrices", collector.n,
		                                "windows", n_windows, "ctx", ctx, "seconds", seconds));
	} else {
		char time[32];
		printf("%s: %d matrices over %d tokens in %s\n", output, collector.n, n_windows * ctx,
		       cli_human_time(time, sizeof time, seconds));
	}
	release(&collector);
	ruv_model_free(model);
	return code;
}

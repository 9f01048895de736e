/* cmd_bench.c - `ruvllm bench [MODEL]`: how fast a model reads and writes here, beside what the machine could do at most.
 *
 * Prefill (pp): so many tokens appended at once behind a context of some depth. Decode (tg): so many tokens one by one there. The
 * bound of decode is the measured memory bandwidth over the bytes that a token needs (weights, and keys and values of the context);
 * that of prefill the measured peak of the multiply instructions over the operations of the matrices. Medians of a few repetitions,
 * with the slowest and fastest, because other programs share the machine. */
#include "cli_runtime.h"
#include "commands.h"
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"

enum { MAX_DEPTHS = 16, MAX_REPEAT = 101 };

typedef struct rate {
	double median, min, max; /* tokens a second */
} rate;

typedef struct result {
	bool prefill;
	int n, depth;
	rate rate;
	double bound; /* tokens a second */
} result;

static int n_prompt = 512, n_generate = 64, n_threads = 0, n_repeat = 5, n_batch = 0;
static const char *depths_text = "0";
static const char *kv_type = "f16";

static const cli_option options[] = {
    {"prompt", 'p', CLI_INT, &n_prompt, "N", "tokens of the prefill test (default 512; 0: none)"},
    {"generate", 'n', CLI_INT, &n_generate, "N", "tokens of the decode test (default 64; 0: none)"},
    {"depths", 'd', CLI_STRING, &depths_text, "LIST", "context before the test, comma-separated (default 0)"},
    {"threads", 't', CLI_INT, &n_threads, "N", "threads (default: one per core)"},
    {"batch", 'b', CLI_INT, &n_batch, "N", "tokens of one forward pass (default: the engine's)"},
    {"kv-type", 0, CLI_CHOICE, &kv_type, "f16|f32|q8_0", "type of keys and values (default f16)"},
    {"repeat", 'r', CLI_INT, &n_repeat, "N", "repetitions of each test (default 5)"},
    {0}};

static const cli_spec spec = {
    .name = "bench",
    .usage = "[OPTIONS] [MODEL]",
    .summary = "Measures prefill and decode speed beside what this machine could do at most. MODEL is a GGUF file or a tier "
	       "(s, m, l; default l).",
    .options = options,
    .examples = "ruvllm bench model.gguf\nruvllm bench --depths 0,2048,8192 --json l",
    .min_args = 0,
    .max_args = 1};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static rate summarize(double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, by_value);
	return (rate){n & 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values[0], values[n - 1]};
}

static int parse_depths(int *depths)
{
	const char *p = depths_text;
	int n = 0;
	do {
		char *end;
		long d = strtol(p, &end, 10);
		if (end == p || d < 0 || d > 10000000 || (*end && *end != ',') || n == MAX_DEPTHS)
			return -1;
		depths[n++] = (int)d;
		p = end + (*end == ',');
	} while (*p);
	return n;
}

/* One test, n_repeat times: the session is brought back to `depth` before each. */
static int measure(ruv_session *session, const ruv_token *tokens, result *out, ruv_error *err)
{
	double rates[MAX_REPEAT];
	int rc;

	for (int i = -1; i < n_repeat; i++) { /* -1: warm caches and page tables, not counted */
		int64_t t0;
		rc = ruv_session_set_tokens(session, tokens, out->depth > 0 ? out->depth : 1, NULL, &cli_cancel, err);
		if (!rc && out->depth == 0)
			ruv_session_reset(session);
		if (rc)
			return rc;
		t0 = ruv_clock_now_ns();
		if (out->prefill)
			rc = ruv_session_prefill(session, tokens + out->depth, out->n, &cli_cancel, err);
		for (int t = 0; !out->prefill && t < out->n && !rc; t++)
			rc = cli_interrupted ? ruv_fail(err, RUV_ECANCELLED, "bench", "stopped")
			                     : ruv_session_decode(session, tokens[out->depth + t], err);
		if (rc)
			return rc;
		if (i >= 0)
			rates[i] = out->n / ((double)(ruv_clock_now_ns() - t0) * 1e-9);
	}
	out->rate = summarize(rates, n_repeat);
	return RUV_OK;
}

/* Upper bounds from the machine's measured limits. */
static double bound_of(const result *r, const ruv_model_info *info, const machine *m, double kv_bytes)
{
	double context = r->depth + r->n / 2.0;
	if (!r->prefill)
		return m->all.read_bytes / ((double)info->n_bytes + context * kv_bytes + (double)info->state_bytes);
	bool floats = strstr(info->file_type, "F16") || strstr(info->file_type, "F32");
	/* The head is needed for the last token alone. */
	double matrices = 2.0 * ((double)info->n_params - (double)info->n_vocab * info->hidden_size);
	double attention = 4.0 * info->n_attention_layers * context * info->n_heads * info->head_dim;
	return 1 / (matrices / (floats ? m->all.f32_ops : m->all.int8_ops) + attention / m->all.f32_ops);
}

static json_t *rate_json(const machine_rate *r)
{
	return json_pack("{s:f, s:f, s:f}", "read_bytes_per_s", r->read_bytes, "f32_ops_per_s", r->f32_ops, "int8_ops_per_s",
	                 r->int8_ops);
}

static void print_results(const result *results, int n, const ruv_model_info *info, const machine *m)
{
	char bytes[32], params[32];
	if (cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < n; i++) {
			const result *r = &results[i];
			json_array_append_new(
			    list, json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "test", r->prefill ? "prefill" : "decode",
			                    "tokens", r->n, "depth", r->depth, "tokens_per_s", r->rate.median, "min", r->rate.min,
			                    "max", r->rate.max, "bound", r->bound, "of_bound", r->rate.median / r->bound));
		}
		cli_json_print(json_pack("{s:o, s:o, s:o}", "model",
		                         json_pack("{s:s, s:s, s:s, s:I, s:I}", "path", info->path, "architecture",
		                                   info->architecture, "type", info->file_type, "parameters",
		                                   (json_int_t)info->n_params, "bytes", (json_int_t)info->n_bytes),
		                         "machine",
		                         json_pack("{s:s, s:i, s:o, s:o}", "isa", m->isa, "threads", m->n_threads, "one_thread",
		                                   rate_json(&m->one), "all_threads", rate_json(&m->all)),
		                         "results", list));
		return;
	}
	printf("%s: %s, %s, %s parameters, %s\n", info->path, info->architecture, info->file_type,
	       cli_human_count(params, sizeof params, (double)info->n_params), cli_human_bytes(bytes, sizeof bytes, info->n_bytes));
	printf("machine: %s, %d thread%s; reads %.1f GB/s, int8 %.0f Gop/s, F32 %.0f Gop/s\n\n", m->isa, m->n_threads,
	       m->n_threads == 1 ? "" : "s", m->all.read_bytes / 1e9, m->all.int8_ops / 1e9, m->all.f32_ops / 1e9);
	cli_table *table = cli_table_create("test|>tokens|>depth|>tokens/s|min..max|>bound|>of bound");
	for (int i = 0; table && i < n; i++) {
		const result *r = &results[i];
		cli_table_cell(table, "%s", r->prefill ? "prefill" : "decode");
		cli_table_cell(table, "%d", r->n);
		cli_table_cell(table, "%d", r->depth);
		cli_table_cell(table, "%.1f", r->rate.median);
		cli_table_cell(table, "%.1f..%.1f", r->rate.min, r->rate.max);
		cli_table_cell(table, "%.1f", r->bound);
		cli_table_cell(table, "%.0f %%", 100 * r->rate.median / r->bound);
	}
	cli_table_print(table, stdout);
}

int cmd_bench(int argc, char **argv)
{
	result results[2 * MAX_DEPTHS];
	int depths[MAX_DEPTHS], n_depths, n = 0, code = CLI_EXIT_OK, longest = 0, most;
	ruv_model_options model_options = {0};
	ruv_session_options session_options = {0};
	ruv_model *model = NULL;
	ruv_session *session = NULL;
	ruv_token *tokens = NULL;
	ruv_model_info info;
	ruv_error err = {0};
	machine limits;
	char path[4096];
	cli_args args;
	ruv_rng rng;
	int rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	n_depths = parse_depths(depths);
	if (n_depths < 0)
		return cli_usage("--depths '%s' is not a list of up to %d token counts", depths_text, MAX_DEPTHS);
	if (n_prompt < 0 || n_generate < 0 || n_prompt + n_generate == 0 || n_repeat < 1 || n_repeat > MAX_REPEAT || n_batch < 0)
		return cli_usage("--prompt and --generate must not be negative nor both 0, --repeat 1 to %d, --batch not negative",
		                 MAX_REPEAT);
	if (args.n == 1 && strlen(args.items[0]) > 1) {
		snprintf(path, sizeof path, "%s", args.items[0]);
	} else {
		ruv_runtime *runtime = cli_runtime(&code);
		if (!runtime)
			return code;
		rc = ruv_runtime_find_model(runtime, args.n ? args.items[0] : "l", path, sizeof path, &err);
		ruv_runtime_free(runtime);
		if (rc)
			return cli_runtime_fail(&err);
	}
	cli_interrupt_catch();
	cli_note("measuring the machine");
	rc = machine_measure(&limits, n_threads, &err);
	if (rc)
		goto done;
	model_options.n_threads = n_threads;
	model_options.n_batch = n_batch;
	rc = ruv_model_open(&model, path, &model_options, &err);
	if (rc)
		goto done;
	ruv_model_get_info(model, &info);
	for (int i = 0; i < n_depths; i++)
		longest = depths[i] > longest ? depths[i] : longest;
	most = n_prompt > n_generate ? n_prompt : n_generate;
	session_options.n_ctx = longest + most;
	session_options.kv_type = !strcmp(kv_type, "f32") ? RUV_KV_F32 : !strcmp(kv_type, "q8_0") ? RUV_KV_Q8_0 : RUV_KV_F16;
	rc = ruv_session_open(&session, model, &session_options, &err);
	if (rc)
		goto done;
	tokens = malloc((size_t)session_options.n_ctx * sizeof *tokens);
	if (!tokens) {
		rc = ruv_fail_memory(&err, "bench", (size_t)session_options.n_ctx * sizeof *tokens);
		goto done;
	}
	ruv_rng_init(&rng, 1);
	for (int i = 0; i < session_options.n_ctx; i++)
		tokens[i] = (ruv_token)ruv_rng_below(&rng, (uint64_t)(info.n_tokens > 0 ? info.n_tokens : info.n_vocab));

	double kv_bytes = (double)info.kv_bytes_per_token * (session_options.kv_type == RUV_KV_F32 ? 2 : 1);
	if (session_options.kv_type == RUV_KV_Q8_0)
		kv_bytes *= 34.0 / 64;
	for (int i = 0; i < n_depths; i++)
		for (int prefill = 1; prefill >= 0; prefill--) {
			result *r = &results[n];
			*r = (result){.prefill = prefill, .n = prefill ? n_prompt : n_generate, .depth = depths[i]};
			if (r->n == 0)
				continue;
			cli_note("%s %d at depth %d", prefill ? "prefill" : "decode", r->n, r->depth);
			rc = measure(session, tokens, r, &err);
			if (rc)
				goto done;
			r->bound = bound_of(r, &info, &limits, kv_bytes);
			n++;
		}
	print_results(results, n, &info, &limits);
done:
	if (rc)
		code = cli_fail(&err, NULL);
	free(tokens);
	ruv_session_free(session);
	ruv_model_free(model);
	return code;
}

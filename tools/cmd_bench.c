/* cmd_bench.c - `ruvllm bench [MODEL]`: how fast a model reads and writes here, beside what the machine could do at most.
 *
 * Prefill (pp): so many tokens appended at once behind a context of some depth. Decode (tg): so many tokens one by one there. The
 * bound of decode is the measured memory bandwidth over the bytes that a token needs (weights, and keys and values of the context);
 * that of prefill the measured peak of the multiply instructions over the operations of the matrices. --sequences decodes several
 * sequences at once through the scheduler; the sum of their tokens counts. --draft generates text greedily: plainly, with the draft
 * model's guesses, and with guesses from the text as well. Beside the speed-up stands what Leviathan's formula allows at the
 * measured acceptance, tokens / (passes + drafted c), were a checking pass no dearer than a plain one; c: a draft's time over a
 * plain pass's. Medians of a few repetitions, with the slowest and fastest, because other programs share the machine. */
#include "cli_runtime.h"
#include "commands.h"
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "ruvllm/scheduler.h"

enum { MAX_DEPTHS = 16, MAX_COUNTS = 16, MAX_SEQUENCES = 256, MAX_REPEAT = 101, MAX_RESULTS = MAX_DEPTHS * (2 + MAX_COUNTS) + 3 };

typedef enum kind { PREFILL, DECODE, SEQUENCES, PLAIN, DRAFTED, GUESSED, N_TEXTS = 3 } kind;
static const char *const kind_names[] = {"prefill", "decode", "decode", "greedy text", "+ draft", "+ draft, text"};

typedef struct rate {
	double median, min, max; /* tokens a second */
} rate;

typedef struct result {
	kind kind;
	int n, depth, n_seqs;
	rate rate;
	double bound; /* tokens a second; 0: none is known */
	/* speculation */
	ruv_speculation_stats drafts;
	double speedup, allowed; /* of plain text; by the formula */
} result;

static int n_prompt = 512, n_generate = 64, n_threads = 0, n_repeat = 5, n_batch = 0;
static const char *depths_text = "0";
static const char *kv_type = "f16", *sequences_text = "", *draft_path = NULL;
static bool packing = true;

static const cli_option options[] = {
    {"prompt", 'p', CLI_INT, &n_prompt, "N", "tokens of the prefill test (default 512; 0: none)"},
    {"generate", 'n', CLI_INT, &n_generate, "N", "tokens of the decode test (default 64; 0: none)"},
    {"depths", 'd', CLI_STRING, &depths_text, "LIST", "context before the test, comma-separated (default 0)"},
    {"threads", 't', CLI_INT, &n_threads, "N", "threads (default: one per core)"},
    {"batch", 'b', CLI_INT, &n_batch, "N", "tokens of one forward pass (default: the engine's)"},
    {"kv-type", 0, CLI_CHOICE, &kv_type, "f16|f32|q8_0", "type of keys and values (default f16)"},
    {"sequences", 's', CLI_STRING, &sequences_text, "LIST", "decode so many sequences at once, comma-separated (1..256)"},
    {"draft", 0, CLI_STRING, &draft_path, "FILE", "a small model of the same vocabulary: text with and without speculation"},
    {"packing", 0, CLI_FLAG, &packing, NULL, "lay weights out for this processor at their first use (default yes)"},
    {"repeat", 'r', CLI_INT, &n_repeat, "N", "repetitions of each test (default 5)"},
    {0}};

static const cli_spec spec = {
    .name = "bench",
    .usage = "[OPTIONS] [MODEL]",
    .summary = "Measures prefill and decode speed beside what this machine could do at most. MODEL is a GGUF file or a tier "
	       "(s, m, l; default l).",
    .options = options,
    .examples = "ruvllm bench model.gguf\nruvllm bench --depths 0,2048,8192 --json l\n"
		"ruvllm bench --sequences 1,4,8,16 model.gguf",
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

/* How many numbers of [min, max] the list has, -1 when it is none. */
static int parse_list(const char *p, int min, int max, int cap, int *out)
{
	int n = 0;
	while (*p) {
		char *end;
		long value = strtol(p, &end, 10);
		if (end == p || value < min || value > max || (*end && *end != ',') || n == cap)
			return -1;
		out[n++] = (int)value;
		p = end + (*end == ',');
	}
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
		if (out->kind == PREFILL)
			rc = ruv_session_prefill(session, tokens + out->depth, out->n, &cli_cancel, err);
		for (int t = 0; out->kind != PREFILL && t < out->n && !rc; t++)
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

/* Decodes out->n tokens of out->n_seqs sequences at once. A sequence's rate counts from its first token, so that prefill is left
 * out but where it holds up the others. */
static int measure_sequences(ruv_engine *engine, ruv_model *model, ruv_kv_type type, const ruv_token *tokens, result *out,
                             ruv_error *err)
{
	const int n_prompt_tokens = out->depth > 16 ? out->depth : 16;
	const ruv_scheduler_options limits = {.engine = engine, .max_running = out->n_seqs, .max_queue = out->n_seqs};
	const ruv_scheduler_model added = {.name = "bench",
	                                   .model = model,
	                                   .n_ctx = n_prompt_tokens + out->n + 1,
	                                   .n_pool = out->n_seqs * (n_prompt_tokens + out->n + 64),
	                                   .kv_type = type,
	                                   .no_prefix_cache = true,
	                                   .allow_longer = true};
	const ruv_generate_params params = {
	    .sampling = {.temperature = 0}, .max_tokens = out->n, .n_logprobs = -1, .ignore_end = true};
	ruv_scheduler *scheduler = NULL;
	ruv_job *jobs[MAX_SEQUENCES] = {0};
	double rates[MAX_REPEAT];
	int rc = ruv_scheduler_open(&scheduler, &limits, err);
	if (!rc)
		rc = ruv_scheduler_add_model(scheduler, &added, err);
	for (int i = -1; i < n_repeat && !rc; i++) {
		double sum = 0;
		for (int s = 0; s < out->n_seqs && !rc; s++) {
			const ruv_request request = {.model = "bench",
			                             .prompt = tokens + s % 8,
			                             .n_prompt = n_prompt_tokens,
			                             .params = &params,
			                             .no_cache = true};
			rc = ruv_scheduler_submit(scheduler, &request, &jobs[s], err);
		}
		for (int s = 0; s < out->n_seqs; s++) {
			if (!rc)
				rc = ruv_job_wait(jobs[s], -1, err);
			if (!rc && cli_interrupted)
				rc = ruv_fail(err, RUV_ECANCELLED, "bench", "stopped");
			const ruv_generation *made = rc ? NULL : ruv_job_result(jobs[s], 0);
			if (made && made->decode_ms > 0)
				sum += (made->n_tokens - 1) * 1000 / made->decode_ms;
			ruv_job_free(jobs[s]);
			jobs[s] = NULL;
		}
		if (i >= 0)
			rates[i] = sum;
	}
	ruv_scheduler_free(scheduler);
	if (!rc)
		out->rate = summarize(rates, n_repeat);
	return rc;
}

/* Greedy answers to a few questions: plainly, with the draft, with the draft and guesses from the text, taking turns. */
static int measure_speculation(ruv_engine *engine, ruv_model *model, const ruv_session_options *how, result *out, ruv_error *err)
{
	static const char *const questions[] = {
	    "What is a computer? Explain it in plain words, step by step.", "What is a router and why does a network need one?",
	    "Write a short story about a fox and a lighthouse.", "Name three kinds of tea.", "Explain how to boil an egg."};
	enum { N_QUESTIONS = sizeof questions / sizeof *questions };
	const ruv_model_options shared = {.engine = engine};
	ruv_generate_params params = {
	    .sampling = {.temperature = 0}, .max_tokens = n_generate, .n_logprobs = -1, .ignore_end = true};
	double rates[N_TEXTS][MAX_REPEAT];
	ruv_session *sessions[N_TEXTS] = {NULL};
	ruv_speculation speculation = {0};
	ruv_token_list prompts[N_QUESTIONS] = {{0}};
	int rc = ruv_model_open(&speculation.draft, draft_path, &shared, err);
	for (int i = 0; i < N_QUESTIONS && !rc; i++) {
		const ruv_message message = {.role = "user", .content = questions[i]};
		rc = ruv_model_chat_tokens(model, &message, 1, NULL, true, &prompts[i], err);
	}
	for (int on = 0; on < N_TEXTS && !rc; on++) {
		speculation.prompt_lookup = on == 2;
		rc = ruv_session_open(&sessions[on], model, how, err);
		if (!rc && on)
			rc = ruv_session_set_speculation(sessions[on], &speculation, err);
	}
	for (int i = -1; i < n_repeat && !rc; i++)
		for (int on = 0; on < N_TEXTS && !rc; on++) {
			double ms = 0;
			int n_tokens = 0;
			for (int q = 0; q < N_QUESTIONS && !rc; q++) {
				ruv_generation made = {0};
				rc = ruv_generate(sessions[on], prompts[q].ids, prompts[q].n, &params, &made, err);
				if (!rc && cli_interrupted)
					rc = ruv_fail(err, RUV_ECANCELLED, "bench", "stopped");
				ms += made.decode_ms;
				n_tokens += made.n_tokens - 1;
				ruv_generation_release(&made);
			}
			if (!rc && i >= 0)
				rates[on][i] = ms > 0 ? n_tokens * 1000 / ms : 0;
		}
	for (int on = 0; on < N_TEXTS && !rc; on++) {
		result *r = &out[on];
		*r = (result){.kind = PLAIN + (unsigned)on, .n = n_generate, .n_seqs = 1, .rate = summarize(rates[on], n_repeat)};
		ruv_session_speculation_stats(sessions[on], &r->drafts);
		r->speedup = out[0].rate.median > 0 ? r->rate.median / out[0].rate.median : 0;
		if (on && r->drafts.n_emitted) {
			const ruv_speculation_stats *d = &r->drafts;
			const double c = d->draft_ms * out[0].rate.median / 1000, passes = (double)(d->n_passes + d->n_plain);
			r->allowed = (double)d->n_emitted / (passes + c);
		}
	}
	for (int on = 0; on < N_TEXTS; on++)
		ruv_session_free(sessions[on]);
	for (int i = 0; i < N_QUESTIONS; i++)
		ruv_token_list_release(&prompts[i]);
	ruv_model_free(speculation.draft);
	return rc;
}

/* Upper bounds from the machine's measured limits. */
static double bound_of(const result *r, const ruv_model_info *info, const machine *m, double kv_bytes)
{
	double context = r->depth + r->n / 2.0, reading = 0;
	if (r->kind != PREFILL) {
		double per_seq = context * kv_bytes + (double)info->state_bytes;
		reading = m->all.read_bytes * r->n_seqs / ((double)info->n_bytes + r->n_seqs * per_seq);
	}
	bool floats = strstr(info->file_type, "F16") || strstr(info->file_type, "F32");
	/* The head is needed for the last token of a prompt alone. */
	double matrices = 2.0 * ((double)info->n_params - (r->kind == PREFILL ? (double)info->n_vocab * info->hidden_size : 0));
	double attention = 4.0 * info->n_attention_layers * context * info->n_heads * info->head_dim;
	double computing = 1 / (matrices / (floats ? m->all.f32_ops : m->all.int8_ops) + attention / m->all.f32_ops);
	return reading > 0 && reading < computing ? reading : computing;
}

static json_t *rate_json(const machine_rate *r)
{
	return json_pack("{s:f, s:f, s:f}", "read_bytes_per_s", r->read_bytes, "f32_ops_per_s", r->f32_ops, "int8_ops_per_s",
	                 r->int8_ops);
}

static void print_results(const result *results, int n, const ruv_model_info *info, const machine *m, size_t packed_bytes,
                          double packed_ms)
{
	char bytes[32], params[32];
	if (cli.json) {
		json_t *list = json_array();
		for (int i = 0; i < n; i++) {
			const result *r = &results[i];
			json_t *row = json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f}", "test",
			                        r->kind >= PLAIN ? "generate" : kind_names[r->kind], "tokens", r->n, "depth",
			                        r->depth, "sequences", r->n_seqs, "tokens_per_s", r->rate.median, "min",
			                        r->rate.min, "max", r->rate.max);
			if (r->bound > 0) {
				json_object_set_new(row, "bound", json_real(r->bound));
				json_object_set_new(row, "of_bound", json_real(r->rate.median / r->bound));
			}
			if (r->kind >= PLAIN)
				json_object_set_new(row, "speculation",
				                    json_string(r->kind == PLAIN     ? "none"
				                                : r->kind == DRAFTED ? "draft"
				                                                     : "draft and text"));
			if (r->kind > PLAIN) {
				json_t *places = json_array();
				for (int p = 0; p < RUV_MAX_LOOKAHEAD && r->drafts.drafted_at[p]; p++)
					json_array_append_new(
					    places, json_real((double)r->drafts.accepted_at[p] / (double)r->drafts.drafted_at[p]));
				json_object_set_new(row, "speedup", json_real(r->speedup));
				json_object_set_new(row, "formula", json_real(r->allowed));
				json_object_set_new(row, "accepted_at", places);
			}
			json_array_append_new(list, row);
		}
		cli_json_print(json_pack(
		    "{s:o, s:o, s:o, s:o}", "model",
		    json_pack("{s:s, s:s, s:s, s:I, s:I}", "path", info->path, "architecture", info->architecture, "type",
		              info->file_type, "parameters", (json_int_t)info->n_params, "bytes", (json_int_t)info->n_bytes),
		    "machine",
		    json_pack("{s:s, s:i, s:o, s:o}", "isa", m->isa, "threads", m->n_threads, "one_thread", rate_json(&m->one),
		              "all_threads", rate_json(&m->all)),
		    "packing", json_pack("{s:I, s:f}", "bytes", (json_int_t)packed_bytes, "ms", packed_ms), "results", list));
		return;
	}
	printf("%s: %s, %s, %s parameters, %s\n", info->path, info->architecture, info->file_type,
	       cli_human_count(params, sizeof params, (double)info->n_params), cli_human_bytes(bytes, sizeof bytes, info->n_bytes));
	printf("machine: %s, %d thread%s; reads %.1f GB/s, int8 %.0f Gop/s, F32 %.0f Gop/s\n\n", m->isa, m->n_threads,
	       m->n_threads == 1 ? "" : "s", m->all.read_bytes / 1e9, m->all.int8_ops / 1e9, m->all.f32_ops / 1e9);
	if (packed_bytes)
		printf("packed for this processor: %s in %.0f ms\n\n", cli_human_bytes(bytes, sizeof bytes, packed_bytes),
		       packed_ms);
	cli_table *table = cli_table_create("test|>sequences|>tokens|>depth|>tokens/s|min..max|>bound|>of bound");
	for (int i = 0; table && i < n; i++) {
		const result *r = &results[i];
		cli_table_cell(table, "%s", kind_names[r->kind]);
		cli_table_cell(table, "%d", r->n_seqs);
		cli_table_cell(table, "%d", r->n);
		cli_table_cell(table, "%d", r->depth);
		cli_table_cell(table, "%.1f", r->rate.median);
		cli_table_cell(table, "%.1f..%.1f", r->rate.min, r->rate.max);
		cli_table_cell(table, r->bound > 0 ? "%.1f" : "", r->bound);
		cli_table_cell(table, r->bound > 0 ? "%.0f %%" : "", 100 * r->rate.median / r->bound);
	}
	cli_table_print(table, stdout);
	for (int i = 0; i < n; i++) {
		const result *r = &results[i];
		if (r->kind <= PLAIN)
			continue;
		printf(
		    "%s%s: %.2f times the plain text's speed, %.0f %% of the %.2f that the formula allows; drafts taken by place",
		    r->kind == DRAFTED ? "\n" : "", kind_names[r->kind], r->speedup,
		    r->allowed > 0 ? 100 * r->speedup / r->allowed : 0, r->allowed);
		for (int p = 0; p < RUV_MAX_LOOKAHEAD && r->drafts.drafted_at[p]; p++)
			printf(" %.2f", (double)r->drafts.accepted_at[p] / (double)r->drafts.drafted_at[p]);
		printf("\n");
	}
}

int cmd_bench(int argc, char **argv)
{
	result results[MAX_RESULTS];
	int depths[MAX_DEPTHS], counts[MAX_COUNTS], n_depths, n_counts, n = 0, code = CLI_EXIT_OK, longest = 0, most;
	ruv_model_options model_options = {0};
	ruv_session_options session_options = {0};
	ruv_engine *engine = NULL;
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
	n_depths = parse_list(depths_text, 0, 10000000, MAX_DEPTHS, depths);
	n_counts = parse_list(sequences_text, 1, MAX_SEQUENCES, MAX_COUNTS, counts);
	if (n_counts < 0)
		return cli_usage("--sequences '%s' is not a list of up to %d numbers from 1 to %d", sequences_text, MAX_COUNTS,
		                 MAX_SEQUENCES);
	if (n_depths < 1)
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
	rc = ruv_engine_open(&engine, n_threads, &err);
	if (rc)
		goto done;
	ruv_engine_set_packing(engine, packing);
	model_options.engine = engine;
	model_options.n_batch = n_batch;
	rc = ruv_model_open(&model, path, &model_options, &err);
	if (rc)
		goto done;
	ruv_model_get_info(model, &info);
	for (int i = 0; i < n_depths; i++)
		longest = depths[i] > longest ? depths[i] : longest;
	most = n_prompt > n_generate ? n_prompt : n_generate;
	session_options.n_ctx = longest + most + (draft_path || n_counts ? 256 : 0);
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
		for (int test = 0; test < 2 + n_counts; test++) {
			result *r = &results[n];
			*r = (result){.kind = test == 0   ? PREFILL
			                      : test == 1 ? DECODE
			                                  : SEQUENCES,
			              .n = test == 0 ? n_prompt : n_generate,
			              .depth = depths[i],
			              .n_seqs = test < 2 ? 1 : counts[test - 2]};
			if (r->n == 0)
				continue;
			cli_note("%s %d at depth %d%s", kind_names[r->kind], r->n, r->depth, test < 2 ? "" : ", sequences at once");
			rc = test < 2 ? measure(session, tokens, r, &err)
			              : measure_sequences(engine, model, session_options.kv_type, tokens, r, &err);
			if (rc)
				goto done;
			r->bound = bound_of(r, &info, &limits, kv_bytes);
			n++;
		}
	if (draft_path && n_generate > 1) {
		cli_note("text with and without speculation");
		rc = measure_speculation(engine, model, &session_options, &results[n], &err);
		if (rc)
			goto done;
		n += N_TEXTS;
	}
	size_t packed_bytes;
	double packed_ms;
	ruv_engine_packed(engine, &packed_bytes, &packed_ms);
	print_results(results, n, &info, &limits, packed_bytes, packed_ms);
done:
	if (rc)
		code = cli_fail(&err, NULL);
	free(tokens);
	ruv_session_free(session);
	ruv_model_free(model);
	ruv_engine_free(engine);
	return code;
}

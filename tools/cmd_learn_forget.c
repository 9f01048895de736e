/* cmd_learn_forget.c - `ruvllm learn forget-bench`: online updates of a MicroLoRA on a stream whose tasks change, one interaction a
 * step, and what is left of the earlier tasks and of the base at the end, per kind of protection. */
#include "cmd_learn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "learn/base_text.h"
#include "learn/learner_object.h"
#include "model/object.h"
#include "runtime/eval_data.h"

enum { MAX_TASKS = 16, TEST_BATCH = 16, WINDOW = 256, ANCHOR_TOKENS = 64, MAX_ANCHORS = 256 };

struct item {
	ruv_lesson lesson;
	int task;
	bool test;
};

struct bench {
	ruv_model *model;
	ruv_backward *backward;
	struct item *items; /* [n] */
	int n;
	char tasks[MAX_TASKS][32];
	int n_tasks;
	ruv_example *text; /* [n_text] windows of plain text */
	int n_text;
	ruv_example anchors[MAX_ANCHORS];
	int n_anchors;
};

struct arm {
	const char *name;
	bool replay, ewc, anchors;
};

static const struct arm arms[] = {{"none", false, false, false},
                                  {"replay", true, false, false},
                                  {"ewc", false, true, false},
                                  {"both", true, true, false},
                                  {"default", true, true, true}};

struct outcome {
	double after[MAX_TASKS][MAX_TASKS]; /* [k][j]: accuracy on task j after task k */
	double final_mean, old_mean, forgetting, worst, ratio, seconds, before_mean;
	int n_updates;
};

static int read_items(struct bench *b, const char *path, ruv_error *err)
{
	char *text = NULL;
	size_t size = 0;
	int rc = ruv_eval_text_read(&text, &size, path, err), line = 0, cap = 0;
	if (rc)
		return rc;
	for (char *at = text; *at && rc == RUV_OK;) {
		char *end = strchr(at, '\n');
		json_error_t bad;
		line++;
		if (end)
			*end = 0;
		json_t *row = *at ? json_loads(at, 0, &bad) : NULL;
		const char *task = json_string_value(json_object_get(row, "task")),
			   *split = json_string_value(json_object_get(row, "split")),
			   *said = json_string_value(json_object_get(row, "text")),
			   *label = json_string_value(json_object_get(row, "label"));
		if (*at && (!task || !split || !said || !label))
			rc = ruv_fail(err, RUV_EFORMAT, "learn", "%s:%d: task, split, text and label are needed", path, line);
		if (*at && rc == RUV_OK) {
			int t = 0;
			while (t < b->n_tasks && strcmp(b->tasks[t], task) != 0)
				t++;
			if (t == b->n_tasks && t < MAX_TASKS)
				snprintf(b->tasks[b->n_tasks++], sizeof b->tasks[0], "%s", task);
			if (b->n == cap) {
				cap = cap ? 2 * cap : 512;
				struct item *items = realloc(b->items, (size_t)cap * sizeof *items);
				if (!items)
					rc = ruv_fail_memory(err, "learn", (size_t)cap * sizeof *items);
				b->items = items ? items : b->items;
			}
			if (rc == RUV_OK && t == MAX_TASKS)
				rc = ruv_fail(err, RUV_ELIMIT, "learn", "%s has more than %d tasks", path, MAX_TASKS);
			if (rc == RUV_OK) {
				struct item *item = &b->items[b->n];
				item->task = t;
				item->test = !strcmp(split, "test");
				rc = ruv_lesson_make(&item->lesson, b->model, said, label, t, err);
				b->n += rc == RUV_OK;
			}
		}
		json_decref(row);
		at = end ? end + 1 : at + strlen(at);
	}
	free(text);
	return rc;
}

static int read_text(struct bench *b, const char *path, int n_windows, ruv_error *err)
{
	char *text = NULL;
	size_t size = 0;
	ruv_token_list list = {0};
	int rc = ruv_eval_text_read(&text, &size, path, err);
	if (rc == RUV_OK)
		rc = ruv_model_tokenize(b->model, text, size < 400000 ? size : 400000, 0, &list, err);
	b->text = calloc((size_t)n_windows + 1, sizeof *b->text);
	if (rc == RUV_OK && !b->text)
		rc = ruv_fail_memory(err, "learn", (size_t)n_windows * sizeof *b->text);
	for (int i = 0; i < n_windows && rc == RUV_OK && (i + 1) * WINDOW <= list.n; i++) {
		ruv_example e = {.tokens = list.ids + (ptrdiff_t)i * WINDOW, .n = WINDOW};
		float weight[WINDOW];
		for (int k = 0; k < WINDOW; k++)
			weight[k] = k >= WINDOW / 4 ? 1 : 0; /* what stands before it is context */
		e.weight = weight;
		rc = ruv_example_copy(&b->text[b->n_text], &e, err);
		b->n_text += rc == RUV_OK;
	}
	ruv_token_list_release(&list);
	free(text);
	return rc;
}

/* Share of a task's test questions whose whole answer is the likeliest at every token: what greedy decoding would say. */
static int accuracy(const struct bench *b, const ruv_microlora *lora, int task, double *out, ruv_error *err)
{
	ruv_train_seq seqs[TEST_BATCH];
	int n = 0, n_right = 0, n_all = 0, rc = RUV_OK;
	for (int i = 0; i <= b->n && rc == RUV_OK; i++) {
		if (i < b->n && b->items[i].test && b->items[i].task == task)
			seqs[n++] = ruv_example_seq(&b->items[i].lesson.example);
		if (n && (n == TEST_BATCH || i == b->n)) {
			rc = ruv_microlora_measure(lora, b->backward, seqs, n, err);
			for (int k = 0; k < n; k++)
				n_right += seqs[k].n_right == seqs[k].n_targets;
			n_all += n;
			n = 0;
		}
	}
	*out = n_all ? (double)n_right / n_all : 0;
	return rc;
}

static int base_nll(const struct bench *b, const ruv_microlora *lora, double *out, ruv_error *err)
{
	double nll = 0;
	int n = 0, rc = RUV_OK;
	for (int i = 0; i < b->n_text && rc == RUV_OK; i++) {
		ruv_train_seq seq = ruv_example_seq(&b->text[i]);
		rc = ruv_microlora_measure(lora, b->backward, &seq, 1, err);
		nll += seq.nll;
		n += seq.n_targets;
	}
	*out = n ? nll / n : 0;
	return rc;
}

struct setting {
	int n_updates, rank, n_replayed, hooks[RUV_VARIANT_MAX_HOOKS], n_hooks;
	double rate, lambda, anchor_weight;
	unsigned slots;
	uint64_t seed;
};

/* Texts that the model itself draws, beside the prose: what the learner's own anchors are. */
static int draw_anchors(struct bench *b, ruv_error *err)
{
	enum { AT_ONCE = 40, N = 160 };
	const ruv_token bos = ruv_model_token_bos(b->model);
	ruv_token first[AT_ONCE], *ids = malloc((size_t)AT_ONCE * ANCHOR_TOKENS * sizeof *ids);
	float weight[ANCHOR_TOKENS] = {0};
	int rc = ids ? RUV_OK : ruv_fail_memory(err, "learn", (size_t)AT_ONCE * ANCHOR_TOKENS * sizeof *ids);
	for (int i = 1; i < ANCHOR_TOKENS; i++)
		weight[i] = 1.0f / (ANCHOR_TOKENS - 1);
	for (int at = 0; at < N && rc == RUV_OK; at += AT_ONCE) {
		for (int i = 0; i < AT_ONCE; i++)
			first[i] = bos >= 0 ? bos : b->anchors[i % b->n_anchors].tokens[0];
		rc = ruv_backward_sample(b->model, first, AT_ONCE, ANCHOR_TOKENS, (uint64_t)at + 1, ids, err);
		for (int i = 0; i < AT_ONCE && rc == RUV_OK && b->n_anchors < MAX_ANCHORS; i++) {
			const ruv_example e = {.tokens = ids + (ptrdiff_t)i * ANCHOR_TOKENS, .weight = weight, .n = ANCHOR_TOKENS};
			rc = ruv_example_copy(&b->anchors[b->n_anchors], &e, err);
			b->n_anchors += rc == RUV_OK;
		}
	}
	free(ids);
	return rc;
}

static const struct item *draw(const struct bench *b, int task, ruv_rng *rng)
{
	for (;;) {
		const struct item *item = &b->items[ruv_rng_below(rng, (uint64_t)b->n)];
		if (!item->test && item->task == task)
			return item;
	}
}

static int one_update(const struct bench *b, const struct arm *arm, const struct setting *s, ruv_microlora *lora, ruv_ewc *ewc,
                      ruv_replay *replay, const struct item *item, int u, ruv_error *err)
{
	enum { MOST = 8 };
	const ruv_example *batch[MOST] = {&item->lesson.example};
	ruv_train_seq seqs[MOST + 1];
	float weights[MOST][RUV_LEARN_MAX_TOKENS], anchored[ANCHOR_TOKENS];
	int n = 1;
	for (int k = 0; arm->replay && k < s->n_replayed && n < MOST; k++) {
		const ruv_example *old = ruv_replay_draw(replay);
		if (old)
			batch[n++] = old;
	}
	for (int k = 0; k < n; k++) {
		for (int i = 0; i < batch[k]->n; i++)
			weights[k][i] = batch[k]->weight[i] / (float)n;
		seqs[k] = (ruv_train_seq){.tokens = batch[k]->tokens, .n = batch[k]->n, .weight = weights[k]};
	}
	if (arm->anchors) {
		const ruv_example *anchor = &b->anchors[u % b->n_anchors];
		for (int i = 0; i < anchor->n; i++)
			anchored[i] = anchor->weight[i] * (float)s->anchor_weight;
		seqs[n] = (ruv_train_seq){.tokens = anchor->tokens, .n = anchor->n, .weight = anchored, .distill = true};
		n++;
	}
	int rc = ruv_microlora_step(lora, b->backward, seqs, n, arm->ewc ? ewc : NULL, NULL, err);
	if (rc == RUV_OK && arm->replay)
		rc = ruv_replay_offer(replay, &item->lesson.example, err);
	return rc;
}

static int run_arm(const struct bench *b, const struct arm *arm, const struct setting *s, struct outcome *out, ruv_error *err)
{
	ruv_microlora *lora = NULL;
	ruv_ewc *ewc = NULL;
	ruv_replay *replay = NULL;
	ruv_rng rng;
	cli_progress progress = {0};
	double before = 0, after = 0;
	const int64_t started = ruv_clock_now_ns();
	ruv_rng_init(&rng, s->seed);
	memset(out, 0, sizeof *out);
	int rc = ruv_microlora_create(&lora, b->model, s->hooks, s->n_hooks, s->rank, s->slots, s->seed, err);
	if (rc == RUV_OK)
		rc = ruv_ewc_create(&ewc, lora->first, lora->n_groups, s->lambda, err);
	if (rc == RUV_OK)
		rc = ruv_replay_create(&replay, 1000, s->seed, err);
	if (rc)
		goto done;
	lora->rate = (float)s->rate;
	rc = base_nll(b, NULL, &before, err);
	for (int j = 0; j < b->n_tasks && rc == RUV_OK; j++) {
		double a = 0;
		rc = accuracy(b, NULL, j, &a, err);
		out->before_mean += a / b->n_tasks;
	}
	cli_progress_begin(&progress, arm->name, "updates", (uint64_t)s->n_updates);
	for (int u = 0; u < s->n_updates && rc == RUV_OK; u++) {
		const int task = (int)((int64_t)u * b->n_tasks / s->n_updates);
		rc = one_update(b, arm, s, lora, ewc, replay, draw(b, task, &rng), u, err);
		if (rc == RUV_OK && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "learn", "stopped after %d updates", u + 1);
		cli_progress_update(&progress, (uint64_t)u + 1, b->tasks[task]);
		if ((int)((int64_t)(u + 1) * b->n_tasks / s->n_updates) == task && u + 1 < s->n_updates)
			continue;
		if (arm->ewc)
			ruv_ewc_boundary(ewc, lora->theta);
		for (int j = 0; j <= task && rc == RUV_OK; j++)
			rc = accuracy(b, lora, j, &out->after[task][j], err);
	}
	cli_progress_end(&progress, false);
	if (rc == RUV_OK)
		rc = base_nll(b, lora, &after, err);
	out->ratio = exp(after - before);
	const int last = b->n_tasks - 1;
	for (int j = 0; j <= last; j++) {
		double best = 0;
		for (int k = j; k <= last; k++)
			best = fmax(best, out->after[k][j]);
		const double lost = best - out->after[last][j];
		out->final_mean += out->after[last][j] / b->n_tasks;
		if (j < last) {
			out->old_mean += out->after[last][j] / last;
			out->forgetting += lost / last;
			out->worst = fmax(out->worst, lost);
		}
	}
	out->n_updates = s->n_updates;
	out->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
done:
	ruv_microlora_free(lora);
	ruv_ewc_free(ewc);
	ruv_replay_free(replay);
	return rc;
}

static json_t *outcome_json(const struct bench *b, const char *name, const struct outcome *o)
{
	json_t *matrix = json_array();
	for (int k = 0; k < b->n_tasks; k++) {
		json_t *row = json_array();
		for (int j = 0; j <= k; j++)
			json_array_append_new(row, json_real(o->after[k][j]));
		json_array_append_new(matrix, row);
	}
	return json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "arm", name, "updates", o->n_updates,
	                 "accuracy_untrained", o->before_mean, "accuracy_all", o->final_mean, "accuracy_old", o->old_mean,
	                 "forgetting", o->forgetting, "worst_forgetting", o->worst, "perplexity_ratio", o->ratio, "seconds",
	                 o->seconds, "after_task", matrix);
}

static void bench_release(struct bench *b)
{
	for (int i = 0; i < b->n; i++)
		ruv_lesson_release(&b->items[i].lesson);
	for (int i = 0; i < b->n_text; i++)
		ruv_example_release(&b->text[i]);
	for (int i = 0; i < b->n_anchors; i++)
		ruv_example_release(&b->anchors[i]);
	free(b->items);
	free(b->text);
	ruv_backward_free(b->backward);
}

static bool parse_hooks(const char *text, struct setting *s)
{
	for (s->n_hooks = 0; *text;) {
		char *end;
		const long layer = strtol(text, &end, 10);
		if (end == text || layer < 0 || layer > 1000 || s->n_hooks == RUV_VARIANT_MAX_HOOKS)
			return false;
		s->hooks[s->n_hooks++] = (int)layer;
		text = *end == ',' ? end + 1 : end;
		if (*end && *end != ',')
			return false;
	}
	return s->n_hooks > 0;
}

int cmd_learn_forget(int argc, char **argv)
{
	static int updates = 10000, rank = 4, replayed = 2, windows = 16, seed = 1;
	static double rate = 1e-3, lambda = 1, anchor_weight = RUV_LEARN_ANCHOR_WEIGHT;
	static const char *matrices = "all";
	static const char *arm_name = "all", *hooks, *text = "bench/data/heldout_wiki.txt.zst";
	static const cli_option options[] = {
	    {"updates", 'n', CLI_INT, &updates, "N", "online updates, divided evenly among the tasks (default 10000)"},
	    {"arm", 'a', CLI_CHOICE, &arm_name, "all|none|replay|ewc|both|default",
	     "kind of protection (default all); default is both and anchors"},
	    {"rank", 'r', CLI_INT, &rank, "N", "of the adapter, 1 to 4 (default 4)"},
	    {"hooks", 0, CLI_STRING, &hooks, "LIST", "layers that are adapted, \"3,5\" (default: the base variant's)"},
	    {"matrices", 0, CLI_CHOICE, &matrices, "all|ffn", "of a hook layer that are adapted (default all)"},
	    {"anchor-weight", 0, CLI_DOUBLE, &anchor_weight, "X", "of the anchors' divergence in the default arm (default 32)"},
	    {"rate", 0, CLI_DOUBLE, &rate, "X", "of Adam (default 0.001)"},
	    {"lambda", 0, CLI_DOUBLE, &lambda, "X", "of EWC (default 1)"},
	    {"replayed", 0, CLI_INT, &replayed, "N", "examples replayed beside each new one (default 2)"},
	    {"text", 0, CLI_STRING, &text, "FILE", "plain text for base perplexity (default bench/data/heldout_wiki.txt.zst)"},
	    {"windows", 0, CLI_INT, &windows, "N", "of 256 tokens of it (default 16)"},
	    {"draw", 0, CLI_INT, &seed, "N", "seed of the stream (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "learn forget-bench",
	    .usage = "[OPTIONS] [STREAM]",
	    .summary = "Trains an adapter online, one interaction an update, on tasks that follow one another, and says what is "
		       "left of the "
		       "earlier ones and of the base's perplexity with no protection, replay, EWC, both, and the default (both, "
		       "and anchors "
		       "to the base model). STREAM (default bench/data/drift.jsonl.zst) holds {task, split, text, label}.",
	    .options = options,
	    .examples = "ruvllm learn forget-bench --model s\nruvllm learn forget-bench --model s --arm default --json",
	    .notes = "Accuracy is exact: every token of the label is the likeliest one among the whole vocabulary. Forgetting of a "
		     "task is its "
		     "best accuracy at any earlier boundary less that at the end, the mean over all tasks but the last.",
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS};
	cli_args args;
	int code = CLI_EXIT_OK;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	struct setting s = {.n_updates = updates,
	                    .rank = rank,
	                    .n_replayed = replayed,
	                    .rate = rate,
	                    .lambda = lambda,
	                    .anchor_weight = anchor_weight,
	                    .slots = RUV_MICROLORA_SLOTS,
	                    .seed = (uint64_t)seed};
	if (!strcmp(matrices, "ffn"))
		s.slots = 1u << RUV_SLOT_FFN_GATE | 1u << RUV_SLOT_FFN_UP | 1u << RUV_SLOT_FFN_DOWN;
	if (updates < 1 || replayed < 0 || replayed > 7 || windows < 1 || !(rate > 0) || lambda < 0)
		return cli_usage("--updates and --windows are at least 1, --replayed is 0 to 7, --rate is above 0");
	if (hooks && !parse_hooks(hooks, &s))
		return cli_usage("--hooks is a list of layers, \"3,5\"");
	cli_interrupt_catch();
	ruv_runtime *runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	ruv_error err = {0};
	struct bench b = {0};
	char path[4096];
	ruv_model *model = NULL;
	ruv_config_origin origin;
	const char *where;
	int rc = ruv_runtime_find_model(runtime, ruv_config_value(cli_config(&code), ruv_config_key_find("model"), &origin, &where),
	                                path, sizeof path, &err);
	if (rc == RUV_OK)
		rc = ruv_model_open(&model, path, &(ruv_model_options){.n_threads = 1}, &err);
	b.model = model;
	if (rc == RUV_OK)
		rc = ruv_backward_open(&b.backward, model, &err);
	if (rc == RUV_OK && !s.n_hooks)
		s.n_hooks = ruv_variant_hooks(ruv_variant_find("base"), model->hp.n_layers, s.hooks);
	if (rc == RUV_OK)
		rc = read_items(&b, args.n ? args.items[0] : "bench/data/drift.jsonl.zst", &err);
	if (rc == RUV_OK)
		rc = read_text(&b, text, windows, &err);
	for (int i = 0; rc == RUV_OK && ruv_learn_anchors[i] && i < MAX_ANCHORS; i++, b.n_anchors++)
		rc = ruv_lesson_text(&b.anchors[i], model, ruv_learn_anchors[i], ANCHOR_TOKENS, &err);
	if (rc == RUV_OK && b.n_anchors && (!strcmp(arm_name, "all") || !strcmp(arm_name, "default")))
		rc = draw_anchors(&b, &err);
	if (rc == RUV_OK && b.n_tasks < 2)
		rc = ruv_fail(&err, RUV_EFORMAT, "learn", "a stream needs at least two tasks");
	json_t *list = json_array();
	cli_table *table =
	    cli.json ? NULL
		     : cli_table_create("protection|>all tasks|>old tasks|>forgetting|>worst task|>base perplexity|>ms/update");
	for (size_t a = 0; a < sizeof arms / sizeof *arms && rc == RUV_OK; a++) {
		struct outcome o;
		if (strcmp(arm_name, "all") != 0 && strcmp(arm_name, arms[a].name) != 0)
			continue;
		rc = run_arm(&b, &arms[a], &s, &o, &err);
		if (rc)
			break;
		json_array_append_new(list, outcome_json(&b, arms[a].name, &o));
		if (table) {
			cli_table_cell(table, "%s", arms[a].name);
			cli_table_cell(table, "%.1f %%", 100 * o.final_mean);
			cli_table_cell(table, "%.1f %%", 100 * o.old_mean);
			cli_table_cell(table, "%.1f", 100 * o.forgetting);
			cli_table_cell(table, "%.1f", 100 * o.worst);
			cli_table_cell(table, "x %.4f", o.ratio);
			cli_table_cell(table, "%.1f", 1e3 * o.seconds / o.n_updates);
		}
	}
	if (rc == RUV_OK && cli.json) {
		code = cli_json_print(json_incref(list));
	} else if (rc == RUV_OK) {
		printf("%d updates over %d tasks, rank %d at %d layers, rate %g, lambda %g\n", updates, b.n_tasks, rank, s.n_hooks,
		       rate, lambda);
		cli_table_print(table, stdout);
	}
	json_decref(list);
	bench_release(&b);
	ruv_model_free(model);
	ruv_runtime_free(runtime);
	return rc ? cli_fail(&err, NULL) : code;
}

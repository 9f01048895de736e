/* cmd_agent_eval.c - `ruvllm agent train` and `eval`: the labelled tasks, their parts, and what the agent router is worth on them.
 *
 * A directory holds tasks.jsonl (split by the hash of the id: 55 % to train on, 15 % to choose settings on, 30 % untouched until
 * eval), out_of_scope.jsonl, new_agent.jsonl and more_tasks.jsonl, which is trained on alone. `eval --development` measures on the
 * first two parts, by cross-validation, whatever has still to be decided. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/status.h"
#include "cmd_agent.h"
#include "runtime/eval_data.h"

/* ---- labelled sets ----------------------------------------------------------------------------------------------------- */

enum part { PART_TRAIN = 1, PART_VALIDATION = 2, PART_TEST = 4, PART_MORE = 8 };
enum { N_FOLDS = 5, MAX_STYLES = 32 };

struct labelled {
	char *id, *text, *agent, *style; /* agent "": out of scope */
	enum part part;
	float complexity;
	float *vector;
};

struct set {
	struct labelled *items;
	int n, cap;
};

static void set_release(struct set *set)
{
	for (int i = 0; i < set->n; i++) {
		free(set->items[i].id);
		free(set->items[i].text);
		free(set->items[i].agent);
		free(set->items[i].style);
		free(set->items[i].vector);
	}
	free(set->items);
}

static char *copy_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return strdup(text ? text : "");
}

/* By the id alone, so that the parts stay what they are when tasks are added. Foreign texts name their part: their sources differ.
 */
static enum part part_of(const char *id, const char *given, bool more)
{
	uint64_t hash = ruv_hash64(id, strlen(id), 11) % 100;

	if (more)
		return PART_MORE;
	if (given && !strcmp(given, "test"))
		return PART_TEST;
	if (given)
		return hash < 60 ? PART_TRAIN : PART_VALIDATION;
	return hash < 55 ? PART_TRAIN : hash < 70 ? PART_VALIDATION : PART_TEST;
}

/* Adds DIR/NAME: rows with id and text, and agent, style, complexity, part as far as they have them. */
static int set_read(struct set *set, const char *dir, const char *name, bool more, ruv_error *err)
{
	char path[4096], *text = NULL, *end;
	size_t n_bytes;
	int rc, line = 0;

	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return ruv_fail(err, RUV_ELIMIT, "agent", "the directory's path is too long");
	rc = ruv_eval_text_read(&text, &n_bytes, path, err);
	for (char *at = text; !rc && *at; at = end + (*end != 0)) {
		struct labelled item = {0};
		json_t *row;

		end = strchr(at, '\n');
		end = end ? end : at + strlen(at);
		line++;
		row = json_loadb(at, (size_t)(end - at), 0, NULL);
		if (!json_is_string(json_object_get(row, "text")) || !json_is_string(json_object_get(row, "id"))) {
			rc = ruv_fail(err, RUV_EFORMAT, "agent", "%s:%d: no object with \"id\" and \"text\"", path, line);
			json_decref(row);
			break;
		}
		if (set->n == set->cap) {
			struct labelled *grown = realloc(set->items, sizeof *grown * (size_t)(set->cap = 2 * set->cap + 1024));

			if (!grown) {
				json_decref(row);
				rc = ruv_fail_memory(err, "agent", sizeof *grown * (size_t)set->cap);
				break;
			}
			set->items = grown;
		}
		item.id = copy_of(row, "id");
		item.text = copy_of(row, "text");
		item.agent = copy_of(row, "agent");
		item.style = copy_of(row, "style");
		item.complexity = json_is_integer(json_object_get(row, "complexity"))
		                      ? ((float)json_integer_value(json_object_get(row, "complexity")) - 1) / 2
		                      : -1;
		if (item.id)
			item.part = part_of(item.id, json_string_value(json_object_get(row, "part")), more);
		set->items[set->n++] = item;
		json_decref(row);
		if (!item.id || !item.text || !item.agent || !item.style)
			rc = ruv_fail_memory(err, "agent", n_bytes);
	}
	free(text);
	return rc;
}

static int set_embed(struct set *set, cmd_agent_door *door, ruv_error *err)
{
	cli_progress progress = {0};
	int rc = RUV_OK;

	cli_progress_begin(&progress, "embed", "tasks", (uint64_t)set->n);
	for (int i = 0; !rc && i < set->n; i++) {
		set->items[i].vector = cmd_agent_see(door, set->items[i].text, err);
		rc = set->items[i].vector ? RUV_OK : err->code;
		cli_progress_update(&progress, (uint64_t)i + 1, NULL);
		if (!rc && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "agent", "stopped after %d of %d tasks", i + 1, set->n);
	}
	cli_progress_end(&progress, false);
	return rc;
}

/* All tasks and foreign texts of DIR with their vectors; without more_tasks.jsonl there are no more. */
static int set_open(struct set *set, const char *dir, cmd_agent_door *door, ruv_error *err)
{
	int rc = set_read(set, dir, "tasks.jsonl", false, err);

	if (!rc)
		rc = set_read(set, dir, "out_of_scope.jsonl", false, err);
	if (!rc) {
		rc = set_read(set, dir, "more_tasks.jsonl", true, err);
		if (rc == RUV_ENOTFOUND) {
			cli_note("%s has no more_tasks.jsonl: trained on tasks.jsonl alone", dir);
			*err = (ruv_error){0};
			rc = RUV_OK;
		}
	}
	return rc ? rc : set_embed(set, door, err);
}

/* Which rows. Zeroed members do not matter. */
struct filter {
	unsigned parts; /* of enum part */
	const char *style, *agent, *not_agent;
	int fold; /* 1..N_FOLDS; negative: all but that */
	bool foreign;
};

static bool fits(const struct filter *f, const struct labelled *item)
{
	int fold = 1 + (int)(ruv_hash64(item->id, strlen(item->id), 5) % N_FOLDS);

	return (!f->parts || (f->parts & item->part)) && (!f->style || !strcmp(f->style, item->style)) &&
	       (!f->agent || !strcmp(f->agent, item->agent)) && (!f->not_agent || strcmp(f->not_agent, item->agent) != 0) &&
	       (!f->fold || (f->fold > 0 ? fold == f->fold : fold != -f->fold)) && f->foreign == !*item->agent;
}

/* What a training does without. */
struct without {
	const char *style, *agent;
	int fold;
};

static bool is_left_out(const struct without *without, const struct labelled *item)
{
	return (without->style && fits(&(struct filter){.style = without->style}, item)) ||
	       (without->agent && fits(&(struct filter){.agent = without->agent}, item)) ||
	       (without->fold && item->part != PART_MORE &&
	        fits(&(struct filter){.fold = without->fold, .foreign = !*item->agent}, item));
}

/* Trains a file on everything but the test part. */
static int train_on(const struct set *set, const cmd_agent_door *door, const struct without *without, const char *path,
                    ruv_error *err)
{
	ruv_agent_example *examples = malloc(sizeof *examples * (size_t)(set->n + 1));
	ruv_agent_options options = door->options;
	int n = 0, n_train = 0, rc;

	if (!examples)
		return ruv_fail_memory(err, "agent", sizeof *examples * (size_t)set->n);
	options.without = without->agent;
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < set->n; i++) {
			const struct labelled *item = &set->items[i];
			/* Without a style nothing is kept for a test of the others: its own tasks are the test. */
			bool test = item->part == PART_TEST && !(without->style && *item->agent);

			if (test || (item->part == PART_VALIDATION) != pass || is_left_out(without, item))
				continue;
			examples[n++] = (ruv_agent_example){
			    .agent = item->agent, .text = item->text, .vector = item->vector, .complexity = item->complexity};
		}
		if (!pass)
			n_train = n;
	}
	rc = ruv_agent_train(path, examples, n_train, n, &options, err);
	free(examples);
	return rc;
}

/* A router trained without something; its file is gone again. */
static int open_without(ruv_agent_router **out, const struct set *set, const cmd_agent_door *door, const struct without *without,
                        ruv_error *err)
{
	char path[] = "/tmp/ruvllm-agents-XXXXXX";
	int fd = mkstemp(path), rc;

	if (fd < 0)
		return ruv_fail(err, RUV_EIO, "agent", "no temporary file can be made");
	close(fd);
	rc = train_on(set, door, without, path, err);
	if (!rc)
		rc = ruv_agent_router_open(out, path, NULL, &door->options, err);
	unlink(path);
	return rc;
}

/* ---- train ------------------------------------------------------------------------------------------------------------- */

int cmd_agent_train(int argc, char **argv)
{
	static const char *out;
	static const cli_option options[] = {{"out", 'o', CLI_STRING, &out, "FILE", "the trained file (required)"}, {0}};
	static const cli_spec spec = {
	    .name = "agent train",
	    .usage = "[OPTIONS] -o FILE DIR",
	    .summary = "Train the bundled file on DIR/tasks.jsonl, more_tasks.jsonl and out_of_scope.jsonl; the test parts are not "
		       "looked at.",
	    .options = options,
	    .examples = "ruvllm agent train -o ruvllm-nano-agents.bin bench/data/agents",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	struct set set = {0};
	cmd_agent_door door = {0};
	ruv_error err = {0};
	cli_args args;
	int code, rc;

	cli_interrupt_catch();
	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_ENCODER, NULL, &code))
		goto done;
	if (!out) {
		code = cli_usage("--out is missing");
		goto done;
	}
	rc = set_open(&set, args.items[0], &door, &err);
	if (!rc)
		rc = train_on(&set, &door, &(struct without){0}, out, &err);
	code = rc         ? cli_fail(&err, NULL)
	       : cli.json ? cli_json_print(json_pack("{s:s, s:i}", "file", out, "examples", set.n))
	                  : (printf("%s: trained\n", out), 0);
done:
	set_release(&set);
	cmd_agent_end(&door);
	return code;
}

/* ---- eval -------------------------------------------------------------------------------------------------------------- */

struct score {
	int n, right, in_three, abstained;
	double complexity_error, complexity_base;
	int n_complexity;
};

static double share(double part, int n)
{
	return n ? part / n : 0;
}

/* Half-width of the 95 % interval of a share. */
static double width_of(double p, int n)
{
	return n ? 1.96 * sqrt(p * (1 - p) / n) : 0;
}

/* Routes the filter's rows and adds to the score; scopes[n] (NULL is fine) gets how far out of scope each is. */
static int score_rows(ruv_agent_router *router, const struct set *set, const struct filter *filter, struct score *score,
                      int *confusion, float *scopes, ruv_error *err)
{
	for (int i = 0; i < set->n; i++) {
		const struct labelled *item = &set->items[i];
		ruv_agent_routed r;
		bool in_three;
		int rc;

		if (!fits(filter, item))
			continue;
		rc = ruv_agent_route(router, item->text, item->vector, &r, err);
		if (rc)
			return rc;
		in_three = !strcmp(r.agent.agent, item->agent);
		score->right += in_three;
		for (int j = 0; j < r.n_alternatives && j < 2; j++)
			in_three |= !strcmp(r.alternatives[j].agent, item->agent);
		score->in_three += in_three;
		score->abstained += r.abstains;
		if (item->complexity >= 0) {
			score->complexity_error += pow((double)(r.complexity - item->complexity), 2);
			score->complexity_base += pow((double)(0.5f - item->complexity), 2);
			score->n_complexity++;
		}
		if (scopes)
			scopes[score->n] = r.out_of_scope;
		for (int a = 0; confusion && ruv_agent_spec_at(a); a++)
			for (int b = 0; ruv_agent_spec_at(b); b++)
				confusion[a * 16 + b] += !strcmp(ruv_agent_spec_at(a)->name, item->agent) &&
				                         !strcmp(ruv_agent_spec_at(b)->name, r.agent.agent);
		score->n++;
	}
	return RUV_OK;
}

static double auc_of(const float *low, int n_low, const float *high, int n_high)
{
	double wins = 0;

	for (int i = 0; i < n_low; i++)
		for (int j = 0; j < n_high; j++)
			wins += high[j] > low[i] ? 1 : high[j] == low[i] ? 0.5 : 0;
	return n_low && n_high ? wins / n_low / n_high : 0;
}

static int styles_of(const struct set *set, const char *styles[MAX_STYLES])
{
	int n = 0;

	for (int i = 0; i < set->n; i++) {
		bool known = !*set->items[i].agent;

		for (int s = 0; s < n && !known; s++)
			known = !strcmp(styles[s], set->items[i].style);
		if (!known && n < MAX_STYLES)
			styles[n++] = set->items[i].style;
	}
	return n;
}

/* How an agent that is not bundled is learned: after nothing, five examples, ten and fifty corrections. */
enum { N_STAGES = 4, N_TAUGHT = 5, N_CORRECTED = 50 };
static const int stage_ends[N_STAGES] = {0, N_TAUGHT, N_TAUGHT + 10, N_TAUGHT + N_CORRECTED};

struct learned {
	double right[N_STAGES];
	int n;
};

static int by_id(const void *a, const void *b)
{
	const struct labelled *x = *(struct labelled *const *)a, *y = *(struct labelled *const *)b;
	uint64_t i = ruv_hash64(x->id, strlen(x->id), 2), j = ruv_hash64(y->id, strlen(y->id), 2);

	return i < j ? -1 : i > j;
}

/* Routes the task; a task of `agent` that went elsewhere is corrected. */
static int correct(ruv_agent_router *router, const struct labelled *item, const char *agent, ruv_error *err)
{
	ruv_agent_routed r;
	int rc = ruv_agent_route(router, item->text, item->vector, &r, err);
	bool good = !rc && !strcmp(r.agent.agent, agent);

	return rc ? rc : ruv_agent_outcome(router, item->text, item->vector, r.agent.agent, good, good ? NULL : agent, err);
}

/* The filter's rows, all of one agent: in the order of their ids' hashes the first five are examples, the next fifty are routed and
 * corrected, the rest is the test. */
static int learn_agent(ruv_agent_router *router, const struct set *set, const struct filter *filter, struct learned *learned,
                       ruv_error *err)
{
	struct labelled **rows = malloc(sizeof *rows * (size_t)(set->n + 1));
	int n = 0, rc = rows ? RUV_OK : ruv_fail_memory(err, "agent", sizeof *rows * (size_t)set->n);
	const char *agent;

	for (int i = 0; !rc && i < set->n; i++)
		if (fits(filter, &set->items[i]))
			rows[n++] = &set->items[i];
	if (!rc && n < N_TAUGHT + N_CORRECTED + 5)
		rc = ruv_fail(err, RUV_EINVAL, "agent", "%d tasks of a new agent, 60 are needed at least", n);
	if (rc)
		goto done;
	qsort(rows, (size_t)n, sizeof *rows, by_id); /* no style comes first */
	agent = rows[0]->agent;
	for (int stage = 0, at = 0; !rc && stage < N_STAGES; stage++) {
		for (; !rc && at < stage_ends[stage]; at++)
			rc = at < N_TAUGHT ? ruv_agent_teach(router, agent, "taught in the evaluation", RUV_TASK_INVESTIGATE,
			                                     rows[at]->text, rows[at]->vector, err)
			                   : correct(router, rows[at], agent, err);
		for (int i = N_TAUGHT + N_CORRECTED; !rc && i < n; i++) {
			ruv_agent_routed r;

			rc = ruv_agent_route(router, rows[i]->text, rows[i]->vector, &r, err);
			learned->right[stage] += !rc && !strcmp(r.agent.agent, agent);
		}
	}
	learned->n += n - N_TAUGHT - N_CORRECTED;
done:
	free(rows);
	return rc;
}

static json_t *learned_json(const struct learned *learned, const struct score *others)
{
	return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "test", learned->n, "before", share(learned->right[0], learned->n),
	                 "after_5_examples", share(learned->right[1], learned->n), "after_10_corrections",
	                 share(learned->right[2], learned->n), "after_50_corrections", share(learned->right[3], learned->n),
	                 "others_after", share(others->right, others->n));
}

static void print_learned(const char *who, const struct learned *learned, const struct score *others)
{
	printf("%s, %d test tasks: %.1f %% before, %.1f %% after 5 examples, %.1f %% after 10 and %.1f %% (+- %.1f) after 50 "
	       "corrections; the others' tasks afterwards %.1f %%\n",
	       who, learned->n, 100 * share(learned->right[0], learned->n), 100 * share(learned->right[1], learned->n),
	       100 * share(learned->right[2], learned->n), 100 * share(learned->right[3], learned->n),
	       100 * width_of(share(learned->right[3], learned->n), learned->n), 100 * share(others->right, others->n));
}

/* ---- what may be looked at while deciding ------------------------------------------------------------------------------- */

/* Cross-validation inside what is trained on, and each of the thirteen agents in turn as one that a user teaches. */
static int development(const struct set *set, const cmd_agent_door *door, ruv_error *err)
{
	const unsigned seen = PART_TRAIN | PART_VALIDATION;
	struct score score = {0}, others = {0};
	struct learned learned = {0};
	int rc = RUV_OK;

	for (int fold = 1; !rc && fold <= N_FOLDS; fold++) {
		ruv_agent_router *router = NULL;

		rc = open_without(&router, set, door, &(struct without){.fold = fold}, err);
		if (!rc)
			rc = score_rows(router, set, &(struct filter){.parts = seen, .fold = fold}, &score, NULL, NULL, err);
		ruv_agent_router_free(router);
	}
	for (int a = 0; !rc && ruv_agent_spec_at(a); a++) {
		const char *name = ruv_agent_spec_at(a)->name;
		ruv_agent_router *router = NULL;
		int fold = 1 + a % N_FOLDS;

		/* the agent's rows of every fold are unknown, of the others' one fold */
		rc = open_without(&router, set, door, &(struct without){.agent = name, .fold = fold}, err);
		if (!rc)
			rc = learn_agent(router, set, &(struct filter){.parts = seen, .agent = name}, &learned, err);
		if (!rc)
			rc = score_rows(router, set, &(struct filter){.parts = seen, .not_agent = name, .fold = fold}, &others,
			                NULL, NULL, err);
		ruv_agent_router_free(router);
		cli_note("%s as a new agent: %.1f %% so far", name, 100 * share(learned.right[3], learned.n));
	}
	if (rc)
		return rc;
	if (cli.json) {
		cli_json_print(json_pack("{s:i, s:f, s:f, s:o}", "tasks", score.n, "accuracy", share(score.right, score.n), "top3",
		                         share(score.in_three, score.n), "new_agent", learned_json(&learned, &others)));
		return RUV_OK;
	}
	printf("training and validation part, %d folds, %d tasks: accuracy %.1f %% (+- %.1f), among three %.1f %%\n", N_FOLDS,
	       score.n, 100 * share(score.right, score.n), 100 * width_of(share(score.right, score.n), score.n),
	       100 * share(score.in_three, score.n));
	print_learned("each agent in turn as a new one", &learned, &others);
	return RUV_OK;
}

/* ---- the test part ----------------------------------------------------------------------------------------------------- */

struct report {
	struct score all, by_style[MAX_STYLES], crossed[MAX_STYLES], foreign, others;
	struct learned learned;
	const char *styles[MAX_STYLES], *new_agent;
	int n_styles, confusion[16 * 16];
	double auc;
};

static int cross_styles(struct report *report, const struct set *set, const cmd_agent_door *door, ruv_error *err)
{
	int rc = RUV_OK;

	for (int s = 0; !rc && s < report->n_styles; s++) {
		const char *style = report->styles[s];
		ruv_agent_router *router = NULL;
		struct score *score = &report->crossed[s];

		rc = open_without(&router, set, door, &(struct without){.style = style}, err);
		if (!rc)
			rc = score_rows(router, set, &(struct filter){.style = style}, score, NULL, NULL, err);
		ruv_agent_router_free(router);
		if (!rc && cli_interrupted)
			rc = ruv_fail(err, RUV_ECANCELLED, "agent", "stopped");
		cli_note("%s left out: %.1f %%", style, 100 * share(score->right, score->n));
	}
	return rc;
}

static int measure(struct report *report, ruv_agent_router *router, const struct set *set, const struct set *new_set,
                   ruv_error *err)
{
	float *in = malloc(sizeof *in * (size_t)(set->n + 1)), *out = malloc(sizeof *out * (size_t)(set->n + 1));
	int rc = in && out ? RUV_OK : ruv_fail_memory(err, "agent", sizeof *in * (size_t)set->n);

	report->n_styles = styles_of(set, report->styles);
	if (!rc)
		rc = score_rows(router, set, &(struct filter){.parts = PART_TEST}, &report->all, report->confusion, in, err);
	for (int s = 0; !rc && s < report->n_styles; s++)
		rc = score_rows(router, set, &(struct filter){.parts = PART_TEST, .style = report->styles[s]}, &report->by_style[s],
		                NULL, NULL, err);
	if (!rc)
		rc = score_rows(router, set, &(struct filter){.parts = PART_TEST, .foreign = true}, &report->foreign, NULL, out,
		                err);
	if (!rc)
		report->auc = auc_of(in, report->all.n, out, report->foreign.n);
	if (!rc && new_set->n) {
		report->new_agent = new_set->items[0].agent;
		rc = learn_agent(router, new_set, &(struct filter){0}, &report->learned, err);
		if (!rc)
			rc = score_rows(router, set, &(struct filter){.parts = PART_TEST}, &report->others, NULL, NULL, err);
	}
	free(in);
	free(out);
	return rc;
}

static json_t *report_json(const struct report *r, bool cross)
{
	json_t *per = json_object(), *left = json_object();

	for (int s = 0; s < r->n_styles; s++) {
		if (r->by_style[s].n)
			json_object_set_new(per, r->styles[s], json_real(share(r->by_style[s].right, r->by_style[s].n)));
		if (cross)
			json_object_set_new(left, r->styles[s], json_real(share(r->crossed[s].right, r->crossed[s].n)));
	}
	return json_pack("{s:i, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:o, s:o, s:o}", "test", r->all.n, "accuracy",
	                 share(r->all.right, r->all.n), "top3", share(r->all.in_three, r->all.n), "in_scope_refused",
	                 share(r->all.abstained, r->all.n), "out_of_scope_auc", r->auc, "out_of_scope_n", r->foreign.n,
	                 "out_of_scope_refused", share(r->foreign.abstained, r->foreign.n), "complexity_error",
	                 sqrt(share(r->all.complexity_error, r->all.n_complexity)), "by_style", per, "without_style", left,
	                 "new_agent", learned_json(&r->learned, &r->others));
}

static void report_print(const struct report *r, bool cross, bool confusions)
{
	struct score crossed = {0};

	printf("untouched test part: %d tasks\naccuracy     %.1f %% (+- %.1f)\namong three  %.1f %% (+- %.1f)\n", r->all.n,
	       100 * share(r->all.right, r->all.n), 100 * width_of(share(r->all.right, r->all.n), r->all.n),
	       100 * share(r->all.in_three, r->all.n), 100 * width_of(share(r->all.in_three, r->all.n), r->all.n));
	for (int s = 0; s < r->n_styles; s++)
		if (r->by_style[s].n)
			printf("  %-11s %.1f %% of %d\n", r->styles[s], 100 * share(r->by_style[s].right, r->by_style[s].n),
			       r->by_style[s].n);
	printf("out of scope: AUC %.3f over %d foreign texts; refused %.1f %% of them and %.1f %% of the agents' own tasks\n",
	       r->auc, r->foreign.n, 100 * share(r->foreign.abstained, r->foreign.n), 100 * share(r->all.abstained, r->all.n));
	printf("complexity: root mean square error %.3f (always 0.5: %.3f)\n",
	       sqrt(share(r->all.complexity_error, r->all.n_complexity)), sqrt(share(r->all.complexity_base, r->all.n_complexity)));
	if (r->new_agent) {
		char who[96];

		snprintf(who, sizeof who, "new agent '%s'", r->new_agent);
		print_learned(who, &r->learned, &r->others);
	}
	for (int s = 0; cross && s < r->n_styles; s++) {
		crossed.n += r->crossed[s].n;
		crossed.right += r->crossed[s].right;
		crossed.in_three += r->crossed[s].in_three;
	}
	if (cross)
		printf("trained without a style, tested on it: %.1f %% of %d, among three %.1f %%\n",
		       100 * share(crossed.right, crossed.n), crossed.n, 100 * share(crossed.in_three, crossed.n));
	for (int s = 0; cross && s < r->n_styles; s++)
		printf("  %-11s %.1f %% of %d, among three %.1f %%\n", r->styles[s],
		       100 * share(r->crossed[s].right, r->crossed[s].n), r->crossed[s].n,
		       100 * share(r->crossed[s].in_three, r->crossed[s].n));
	for (int a = 0; confusions && ruv_agent_spec_at(a); a++)
		for (int b = 0; ruv_agent_spec_at(b); b++)
			if (a != b && r->confusion[a * 16 + b] > 1)
				printf("%s taken for %s: %d\n", ruv_agent_spec_at(a)->name, ruv_agent_spec_at(b)->name,
				       r->confusion[a * 16 + b]);
}

int cmd_agent_eval(int argc, char **argv)
{
	static const char *bundled;
	static bool cross, confusions, develop;
	static const cli_option options[] = {
	    {"agents", 0, CLI_STRING, &bundled, "FILE", "the trained file (default: the bundled one)"},
	    {"cross-style", 0, CLI_FLAG, &cross, NULL, "also train without each style of writing and test on it (minutes)"},
	    {"confusion", 0, CLI_FLAG, &confusions, NULL, "show who is taken for whom"},
	    {"development", 0, CLI_FLAG, &develop, NULL,
	     "leave the test part alone: cross-validate what is trained on, with each agent in turn as a new one (minutes)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "agent eval",
	    .usage = "[OPTIONS] DIR",
	    .summary =
		"Measure the agent router on the untouched test part of DIR (bench/data/agents): accuracy, right one among three, "
		"out-of-scope, complexity, and how a new agent is learned from fifty corrections.",
	    .options = options,
	    .examples = "ruvllm agent eval bench/data/agents --confusion",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	static struct report report;
	struct set set = {0}, new_set = {0};
	cmd_agent_door door = {0};
	ruv_error err = {0};
	cli_args args;
	int code, rc;

	cli_interrupt_catch();
	if (!cmd_agent_begin(&door, &spec, argc, argv, &args, CMD_AGENT_BUNDLED, &bundled, &code))
		goto done;
	rc = set_open(&set, args.items[0], &door, &err);
	if (!rc && develop) {
		rc = development(&set, &door, &err);
		code = rc ? cli_fail(&err, NULL) : 0;
		goto done;
	}
	if (!rc)
		rc = set_read(&new_set, args.items[0], "new_agent.jsonl", false, &err);
	if (!rc)
		rc = set_embed(&new_set, &door, &err);
	if (!rc)
		rc = measure(&report, door.router, &set, &new_set, &err);
	if (!rc && cross)
		rc = cross_styles(&report, &set, &door, &err);
	if (rc)
		code = cli_fail(&err, NULL);
	else if (cli.json)
		code = cli_json_print(report_json(&report, cross));
	else
		report_print(&report, cross, confusions);
done:
	set_release(&set);
	set_release(&new_set);
	cmd_agent_end(&door);
	return code;
}

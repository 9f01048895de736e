/* lessons.c - what is trained on and measured: examples from what people accepted or corrected, steps and passes over them, and the
 * gate's measurements.
 *
 * A held-out item's score is how much likelier its right answer is than wrong ones, per token: mean log p(right) - mean log
 * p(wrong), over answers that other lessons have. A style that all answers share raises both and cancels, so that training on
 * shuffled answers cannot gain here; only knowing which answer belongs to which question can. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "learn/base_text.h"
#include "learn/learner_object.h"
#include "model/object.h"

static const char where[] = "learn";

/* ---- lessons ---- */

void ruv_lesson_release(ruv_lesson *lesson)
{
	free(lesson->question);
	free(lesson->answer);
	ruv_example_release(&lesson->example);
	*lesson = (ruv_lesson){0};
}

static int fill_example(ruv_example *out, const ruv_token *ids, int n, int first_target, ruv_error *err)
{
	*out = (ruv_example){.n = n};
	out->tokens = malloc((size_t)n * sizeof *out->tokens);
	out->weight = calloc((size_t)n, sizeof *out->weight);
	if (!out->tokens || !out->weight) {
		ruv_example_release(out);
		return ruv_fail_memory(err, where, (size_t)n * 8);
	}
	memcpy(out->tokens, ids, (size_t)n * sizeof *ids);
	for (int i = first_target; i < n; i++)
		out->weight[i] = 1.0f / (float)(n - first_target);
	return RUV_OK;
}

/* Which tokens of the prompt are the question's: those that a prompt with another question does not share. */
static int find_free(ruv_example *e, const ruv_model *model, const ruv_token_list *prompt, ruv_error *err)
{
	enum { LEAST = 4 }; /* of a shorter question every word is needed */
	const ruv_message other = {.role = "user", .content = "."};
	ruv_token_list list = {0};
	int before = 0, behind = 0;
	int rc = ruv_model_chat_tokens(model, &other, 1, NULL, true, &list, err);
	const int most = rc == RUV_OK ? (list.n < prompt->n ? list.n : prompt->n) : 0;
	while (before < most && list.ids[before] == prompt->ids[before])
		before++;
	while (behind < most - before && list.ids[list.n - 1 - behind] == prompt->ids[prompt->n - 1 - behind])
		behind++;
	e->free_from = before;
	e->n_free = prompt->n - before - behind;
	e->n_free = e->n_free < LEAST ? 0 : e->n_free;
	ruv_token_list_release(&list);
	return rc;
}

int ruv_example_thin(const ruv_example *e, ruv_rng *rng, ruv_token *tokens, float *weight)
{
	int n = 0;
	for (int i = 0; i < e->n; i++) {
		const bool may_go = i >= e->free_from && i < e->free_from + e->n_free;
		if (may_go && ruv_rng_double(rng) < RUV_LEARN_WORD_DROPOUT)
			continue;
		tokens[n] = e->tokens[i];
		weight[n++] = e->weight[i];
	}
	return n;
}

int ruv_lesson_make(ruv_lesson *out, const ruv_model *model, const char *question, const char *answer, int task, ruv_error *err)
{
	const ruv_message both[2] = {{.role = "user", .content = question}, {.role = "assistant", .content = answer}};
	ruv_token_list prompt = {0}, whole = {0};
	*out = (ruv_lesson){0};
	int rc = ruv_model_chat_tokens(model, both, 1, NULL, true, &prompt, err);
	if (rc == RUV_OK)
		rc = ruv_model_chat_tokens(model, both, 2, NULL, false, &whole, err);
	if (rc)
		goto done;
	if (whole.n <= prompt.n || memcmp(whole.ids, prompt.ids, (size_t)prompt.n * sizeof *prompt.ids) != 0) {
		rc = ruv_fail(err, RUV_EUNSUPPORTED, where,
		              "the chat template of %s writes an answer otherwise than it asks for one", model->path);
		goto done;
	}
	int end = prompt.n;
	while (end < whole.n && !ruv_model_token_is_end(model, whole.ids[end]))
		end++;
	end += end < whole.n; /* the end itself is learned too */
	if (end - prompt.n < 2) {
		rc = ruv_fail(err, RUV_EINVAL, where, "the answer is empty");
		goto done;
	}
	if (end > RUV_LEARN_MAX_TOKENS) {
		rc = ruv_fail(err, RUV_ELIMIT, where, "question and answer take %d tokens, more than the %d that are learned from",
		              end, RUV_LEARN_MAX_TOKENS);
		goto done;
	}
	out->question = strdup(question);
	out->answer = strdup(answer);
	rc = out->question && out->answer ? fill_example(&out->example, whole.ids, end, prompt.n, err)
	                                  : ruv_fail_memory(err, where, strlen(question) + strlen(answer));
	out->example.task = task;
	out->example.difficulty = ruv_curriculum_difficulty(question, answer, 0);
	out->sourced = strncmp(question, RUV_LEARN_SOURCES, strlen(RUV_LEARN_SOURCES)) == 0;
	if (rc == RUV_OK && !out->sourced) /* what an answer is read from stays whole */
		rc = find_free(&out->example, model, &prompt, err);
done:
	if (rc)
		ruv_lesson_release(out);
	ruv_token_list_release(&prompt);
	ruv_token_list_release(&whole);
	return rc;
}

int ruv_lesson_text(ruv_example *out, const ruv_model *model, const char *text, int max_tokens, ruv_error *err)
{
	ruv_token_list list = {0};
	int rc = ruv_model_tokenize(model, text, strlen(text), RUV_TOKENIZE_BOS, &list, err);
	if (rc == RUV_OK && list.n < 2)
		rc = ruv_fail(err, RUV_EINVAL, where, "the text is empty");
	if (rc == RUV_OK)
		rc = fill_example(out, list.ids, list.n < max_tokens ? list.n : max_tokens, 1, err);
	ruv_token_list_release(&list);
	return rc;
}

int ruv_learner_keep(ruv_learner *l, ruv_lesson *lesson, bool held, ruv_error *err)
{
	ruv_lesson **list = held ? &l->held : &l->lessons;
	int *n = held ? &l->n_held : &l->n_lessons, *cap = held ? &l->cap_held : &l->cap_lessons;
	if (*n == l->options.replay_capacity) { /* the oldest goes; the reservoir keeps its own sample */
		ruv_lesson_release(&(*list)[0]);
		memmove(*list, *list + 1, (size_t)(*n - 1) * sizeof **list);
		--*n;
	}
	if (*n == *cap) {
		const int more = *cap ? 2 * *cap : 64;
		ruv_lesson *grown = realloc(*list, (size_t)more * sizeof *grown);
		if (!grown) {
			ruv_lesson_release(lesson);
			return ruv_fail_memory(err, where, (size_t)more * sizeof *grown);
		}
		*list = grown;
		*cap = more;
	}
	int rc = held ? RUV_OK : ruv_replay_offer(l->replay, &lesson->example, err);
	if (rc) {
		ruv_lesson_release(lesson);
		return rc;
	}
	(*list)[(*n)++] = *lesson;
	*lesson = (ruv_lesson){0};
	pthread_mutex_lock(&l->lock);
	l->status.n_held_out = l->n_held;
	l->status.n_replay = l->replay->n;
	l->status.n_tasks = l->n_tasks;
	pthread_mutex_unlock(&l->lock);
	return RUV_OK;
}

int ruv_learner_task(ruv_learner *l, const char *name, ruv_error *err)
{
	for (int i = 0; i < l->n_tasks; i++)
		if (!strcmp(l->tasks[i], name))
			return i;
	if (l->n_tasks == RUV_LEARN_MAX_TASKS)
		return ruv_fail(err, RUV_ELIMIT, where, "more than %d kinds of tasks", RUV_LEARN_MAX_TASKS);
	l->tasks[l->n_tasks] = strdup(name);
	return l->tasks[l->n_tasks] ? l->n_tasks++ : ruv_fail_memory(err, where, strlen(name));
}

bool ruv_learner_stops(ruv_learner *l)
{
	pthread_mutex_lock(&l->lock);
	const bool stop = l->stop;
	pthread_mutex_unlock(&l->lock);
	return stop;
}

/* ---- training ---- */

/* Lets whoever waits for an answer go first, up to a second, so that learning goes on under lasting load, slowly. */
static void stand_aside(ruv_learner *l)
{
	const struct timespec moment = {.tv_nsec = 2000000};
	const ruv_learner_callbacks *c = &l->options.callbacks;
	for (int i = 0; i < 500 && c->busy && c->busy(c->user) && !ruv_learner_stops(l); i++)
		nanosleep(&moment, NULL);
}

int ruv_learner_step(ruv_learner *l, ruv_microlora *lora, const ruv_example *const *examples, int n, int n_anchors, ruv_ewc *ewc,
                     double *loss, ruv_error *err)
{
	ruv_train_seq seqs[RUV_TRAIN_MAX_SEQS];
	int room = 0, n_seqs = 0, rc;
	n_anchors = l->n_anchors ? n_anchors : 0;
	n = n < RUV_TRAIN_MAX_SEQS - n_anchors ? n : RUV_TRAIN_MAX_SEQS - n_anchors;
	for (int i = 0; i < n; i++)
		room += examples[i]->n;
	for (int i = 0; i < n_anchors; i++)
		room += l->anchors[(l->next_anchor + i) % l->n_anchors].n;
	ruv_token *tokens = malloc(((size_t)room + 1) * sizeof *tokens), *token = tokens;
	float *weights = malloc(((size_t)room + 1) * sizeof *weights), *weight = weights;
	if (!tokens || !weights) {
		rc = ruv_fail_memory(err, where, (size_t)room * 8);
		goto done;
	}
	for (int i = 0; i < n + n_anchors; i++) {
		const bool anchor = i >= n;
		const ruv_example *e = anchor ? &l->anchors[l->next_anchor++ % l->n_anchors] : examples[i];
		const float scale = anchor ? (float)RUV_LEARN_ANCHOR_WEIGHT / (float)n_anchors : 1.0f / (float)n;
		const int kept = ruv_example_thin(e, &l->rng, token, weight);
		for (int k = 0; k < kept; k++)
			weight[k] *= scale;
		seqs[n_seqs++] = (ruv_train_seq){.tokens = token, .n = kept, .weight = weight, .distill = anchor};
		token += kept;
		weight += kept;
	}
	stand_aside(l);
	rc = ruv_microlora_step(lora, l->backward, seqs, n_seqs, ewc, NULL, err);
	if (rc == RUV_OK && loss) { /* of the examples alone */
		double nll = 0;
		int n_targets = 0;
		for (int i = 0; i < n; i++) {
			nll += seqs[i].nll;
			n_targets += seqs[i].n_targets;
		}
		*loss = n_targets ? nll / n_targets : 0;
	}
done:
	free(tokens);
	free(weights);
	return rc;
}

/* The lessons of a pass, in its order: what the curriculum takes, those with sources in every fourth pass alone: they are long, and
 * keep a form that the model has already. Returns how many. */
static int order_pass(ruv_learner *l, int *order, const float *difficulty, int epoch, int n_epochs, ruv_rng *rng)
{
	const double progress = n_epochs > 1 ? (double)epoch / (n_epochs - 1) : 1;
	const int take = ruv_curriculum_order(order, difficulty, l->n_lessons, progress, rng);
	int n = 0;
	for (int i = 0; i < take; i++)
		if (!l->lessons[order[i]].sourced || epoch % 4 == 3 || n_epochs < 4)
			order[n++] = order[i];
	return take < 0 ? take : n;
}

/* One step on lessons[order[0..m)]; answers_of: as in ruv_learner_epochs. */
static int lesson_step(ruv_learner *l, ruv_microlora *lora, const int *order, int m, const int *answers_of, ruv_ewc *ewc,
                       ruv_error *err)
{
	const ruv_example *batch[RUV_LEARN_BATCH];
	ruv_lesson mixed[RUV_LEARN_BATCH] = {0};
	int rc = RUV_OK;
	for (int k = 0; k < m && rc == RUV_OK; k++) {
		const ruv_lesson *lesson = &l->lessons[order[k]];
		batch[k] = &lesson->example;
		if (answers_of) {
			rc = ruv_lesson_make(&mixed[k], l->model, lesson->question, l->lessons[answers_of[order[k]]].answer,
			                     lesson->example.task, err);
			batch[k] = &mixed[k].example;
		}
	}
	if (rc == RUV_OK)
		rc = ruv_learner_step(l, lora, batch, m, 1, ewc, NULL, err);
	for (int k = 0; k < m; k++)
		ruv_lesson_release(&mixed[k]);
	return rc;
}

int ruv_learner_epochs(ruv_learner *l, ruv_microlora *lora, int n_epochs, const int *answers_of, ruv_ewc *ewc, ruv_error *err)
{
	const int n = l->n_lessons;
	const float rate = lora->rate;
	int *order = malloc((size_t)(n + 1) * sizeof *order);
	float *difficulty = malloc((size_t)(n + 1) * sizeof *difficulty);
	ruv_rng rng;
	int rc = order && difficulty ? ruv_anchors_draw(l, err) : ruv_fail_memory(err, where, (size_t)n * 8);
	ruv_rng_init(&rng, 0x5eed);
	for (int i = 0; i < n && rc == RUV_OK; i++)
		difficulty[i] = l->lessons[i].example.difficulty;
	for (int epoch = 0; epoch < n_epochs && rc == RUV_OK; epoch++) {
		const int take = order_pass(l, order, difficulty, epoch, n_epochs, &rng);
		if (take < 0)
			rc = ruv_fail_memory(err, where, (size_t)n * 8);
		for (int i = 0; i < take && rc == RUV_OK; i += RUV_LEARN_BATCH) {
			const int m = take - i < RUV_LEARN_BATCH ? take - i : RUV_LEARN_BATCH;
			const double done = (epoch + (double)i / take) / n_epochs;
			/* rises while the moments settle, then falls, so that the noise of single steps dies away */
			lora->rate = rate * (float)(fmin(1, done / 0.05 + 0.02) * (1 - 0.95 * done));
			rc = lesson_step(l, lora, order + i, m, answers_of, ewc, err);
			pthread_mutex_lock(&l->lock);
			l->status.n_replayed += rc == RUV_OK && !answers_of ? m : 0;
			pthread_mutex_unlock(&l->lock);
			if (rc == RUV_OK && ruv_learner_stops(l))
				rc = ruv_fail(err, RUV_ECANCELLED, where, "the learner is closing");
		}
	}
	lora->rate = rate;
	free(order);
	free(difficulty);
	return rc;
}

/* ---- measuring ---- */

static double mean_log_p(const ruv_train_seq *seq)
{
	return -seq->nll / seq->n_targets;
}

/* Wrong answers to lesson i: of other lessons, as told by a walk that depends on i alone. */
static int find_wrong(const ruv_learner *l, int i, const char *wrong[RUV_LEARN_DISTRACTORS])
{
	const int total = l->n_lessons + l->n_held;
	int n = 0;
	for (int k = 1; k < total && n < RUV_LEARN_DISTRACTORS; k++) {
		const int at = (int)((i * 7919u + (unsigned)k * 104729u) % (unsigned)total);
		const ruv_lesson *other = at < l->n_lessons ? &l->lessons[at] : &l->held[at - l->n_lessons];
		bool taken = !strcmp(other->answer, l->held[i].answer);
		for (int j = 0; j < n && !taken; j++)
			taken = !strcmp(other->answer, wrong[j]);
		if (!taken)
			wrong[n++] = other->answer;
	}
	return n;
}

static int score_item(ruv_learner *l, const ruv_microlora *lora, int i, double *score, double *right_share, ruv_error *err)
{
	const char *wrong[RUV_LEARN_DISTRACTORS];
	ruv_lesson others[RUV_LEARN_DISTRACTORS] = {0};
	ruv_train_seq seqs[1 + RUV_LEARN_DISTRACTORS];
	const int n = find_wrong(l, i, wrong);
	int rc = RUV_OK, n_seqs = 0;
	seqs[n_seqs++] = ruv_example_seq(&l->held[i].example);
	for (int k = 0; k < n && rc == RUV_OK; k++) {
		rc = ruv_lesson_make(&others[k], l->model, l->held[i].question, wrong[k], 0, err);
		seqs[n_seqs++] = ruv_example_seq(&others[k].example);
	}
	stand_aside(l);
	if (rc == RUV_OK)
		rc = ruv_microlora_measure(lora, l->backward, seqs, n_seqs, err);
	if (rc == RUV_OK) {
		double sum = 0;
		for (int k = 1; k < n_seqs; k++)
			sum += mean_log_p(&seqs[k]) / (n_seqs - 1);
		*score = mean_log_p(&seqs[0]) - sum;
		*right_share = (double)seqs[0].n_right / seqs[0].n_targets;
	}
	for (int k = 0; k < n; k++)
		ruv_lesson_release(&others[k]);
	return rc;
}

int ruv_learner_measure(ruv_learner *l, const ruv_microlora *lora, double *score, double *old, int *n_old, double *base_nll,
                        ruv_error *err)
{
	int rc = RUV_OK, n = 0, n_targets = 0;
	double nll = 0;
	for (int i = 0; i < l->n_held && rc == RUV_OK; i++) {
		double share = 0;
		rc = score_item(l, lora, i, &score[i], &share, err);
		if (l->held[i].example.task != l->task)
			old[n++] = share;
	}
	for (int i = 0; i < l->n_suite && rc == RUV_OK; i++) {
		ruv_train_seq seq = ruv_example_seq(&l->suite[i]);
		rc = ruv_microlora_measure(lora, l->backward, &seq, 1, err);
		nll += seq.nll;
		n_targets += seq.n_targets;
	}
	*n_old = n;
	*base_nll = n_targets ? nll / n_targets : 0;
	return rc;
}

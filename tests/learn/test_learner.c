/* test_learner.c - the learner on a tiny model: what is taught becomes likelier, adapters are files that load like any other,
 * rollback and restart are exact, the queue is bounded, others' interactions stay out, and nothing goes live but through the gate.
 */
#include <math.h>
#include <unistd.h>

#include "infer/session_object.h"
#include "learn/learner_object.h"
#include "test.h"

static char dir[300];

static int setup(void **state)
{
	const char *base = getenv("TMPDIR");
	(void)state;
	snprintf(dir, sizeof dir, "%s/ruv-learner-XXXXXX", base && *base ? base : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[400];
	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

static const char model_path[] = RUV_TEST_DATA "/model/lfm2.gguf";

static ruv_learner *open_in(const char *name, ruv_learner_options o)
{
	static char path[400];
	ruv_error err = {0};
	ruv_learner *l = NULL;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	o.dir = path;
	o.model_path = model_path;
	if (!(o.learning_rate > 0))
		o.learning_rate = 0.02f;
	assert_ok(ruv_learner_open(&l, &o, &err), err);
	return l;
}

static ruv_model *open_model(void)
{
	ruv_error err = {0};
	ruv_model *m = NULL;
	assert_ok(ruv_model_open(&m, model_path, &(ruv_model_options){.n_threads = 1}, &err), err);
	return m;
}

/* Likelihood of an answer through a session with the adapter (or none): the serving path's own numbers. */
static double nll(ruv_model *model, ruv_adapter *adapter, const char *question, const char *answer)
{
	ruv_error err = {0};
	ruv_lesson lesson;
	ruv_session *s = NULL;
	double sum = 0;
	assert_ok(ruv_lesson_make(&lesson, model, question, answer, 0, &err), err);
	assert_ok(ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = 512, .kv_type = RUV_KV_F32}, &err), err);
	assert_ok(ruv_session_set_adapter(s, adapter, &err), err);
	const ruv_example *e = &lesson.example;
	const int n_vocab = model->hp.n_vocab;
	float *logits = malloc((size_t)e->n * (size_t)n_vocab * sizeof *logits);
	assert_ok(ruv_session_score(s, e->tokens, e->n, logits, NULL, &err), err);
	for (int i = 1; i < e->n; i++)
		if (e->weight[i] > 0) {
			double total = 0;
			for (int k = 0; k < n_vocab; k++)
				total +=
				    exp((double)logits[(i - 1) * n_vocab + k] - (double)logits[(i - 1) * n_vocab + e->tokens[i]]);
			sum += log(total) * (double)e->weight[i];
		}
	free(logits);
	ruv_session_free(s);
	ruv_lesson_release(&lesson);
	return sum;
}

static const char *const facts[][2] = {{"key?", "shed"}, {"dog?", "Bruno"}, {"wifi?", "k7"}, {"car?", "red"}, {"cat?", "Mila"}};

static void teach_all(ruv_learner *l, int times)
{
	ruv_error err = {0};
	for (int i = 0; i < times; i++)
		for (int f = 0; f < 5; f++) {
			assert_ok(ruv_learner_teach(l, "facts", facts[f][0], facts[f][1], &err), err);
			assert_ok(ruv_learner_work(l, &err), err);
		}
}

static ruv_adapter *live_adapter(ruv_learner *l, ruv_model *model)
{
	ruv_error err = {0};
	ruv_adapter *a = NULL;
	assert_ok(ruv_learner_adapter(l, model, &a, &err), err);
	return a;
}

static void test_teach_gate_rollback_restart(void **state)
{
	ruv_error err = {0};
	ruv_model *model = open_model();
	ruv_learner_options o = {.no_thread = true, .background_every = 10000, .held_out_every = 4};
	ruv_learner *l = open_in("a", o);
	ruv_learner_status status;
	ruv_gate_result gate;
	(void)state;
	assert_null(live_adapter(l, model));
	assert_int_equal(ruv_learner_rollback(l, 1, &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_learner_export(l, 0, "/tmp/none.gguf", &err), RUV_ENOTFOUND);
	teach_all(l, 8);
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_corrected, 40);
	assert_int_equal(status.n_held_out, 10);
	assert_int_equal(status.n_steps, 30);
	assert_int_equal(status.n_replay, 30);
	assert_int_equal(status.live_version, 0); /* steps alone change nothing that serves */
	assert_null(live_adapter(l, model));
	assert_ok(ruv_learner_train(l, 24, &err), err);
	/* a random model of 30,000 parameters cannot keep its "perplexity" while it learns: what the gate says is not the point
	 * here, that it decides is */
	assert_ok(ruv_learner_gate(l, true, true, &gate, &err), err);
	print_message("gain %.3f [%.3f, %.3f], shuffled %.3f from %.3f, perplexity x %.4f: %s\n", gate.gain, gate.gain_low,
	              gate.gain_high, gate.shuffled_gain, gate.shuffled_low, gate.perplexity_ratio,
	              gate.pass ? "passes" : gate.why);
	assert_int_equal(gate.n, 10);
	assert_true(gate.gain > gate.shuffled_gain);
	assert_true(gate.pass ==
	            (gate.gain_low > 0 && gate.perplexity_ratio <= 1.01 && gate.old_drop <= 0.5 && gate.shuffled_low <= 0));
	ruv_learner_event events[8];
	assert_int_equal(ruv_learner_history(l, events, 8, &err), 1);
	assert_string_equal(events[0].what, gate.pass ? "published" : "refused");
	assert_true(fabs(events[0].gate.gain - gate.gain) < 1e-12);
	if (!gate.pass) { /* the same candidate by hand, to see versions at work */
		char path[400];
		assert_int_equal(ruv_learner_live_version(l), 0);
		ruv_journal_version_path(l, 1, path, sizeof path);
		assert_ok(ruv_microlora_save(l->candidate, path, 1, &err), err);
		l->status.last_version = 1;
		assert_ok(ruv_journal_set(l, "last", 1, &err), err);
		assert_ok(ruv_learner_rollback(l, 1, &err), err);
	}
	assert_int_equal(ruv_learner_live_version(l), 1);
	ruv_adapter *first = live_adapter(l, model), *same = live_adapter(l, model);
	assert_ptr_equal(first, same); /* cached */
	assert_int_equal(ruv_adapter_rank(first), 4);
	double learned[5], bare[5];
	for (int f = 0; f < 5; f++) {
		bare[f] = nll(model, NULL, facts[f][0], facts[f][1]);
		learned[f] = nll(model, first, facts[f][0], facts[f][1]);
		assert_true(learned[f] < 0.7 * bare[f]);
	}
	/* an exported file is an adapter like any other */
	char path[400];
	snprintf(path, sizeof path, "%s/out.gguf", dir);
	assert_ok(ruv_learner_export(l, 0, path, &err), err);
	ruv_adapter *exported = NULL;
	assert_ok(ruv_adapter_open(&exported, model, path, 1, &err), err);
	assert_true(nll(model, exported, facts[0][0], facts[0][1]) == learned[0]);
	ruv_adapter_free(exported);
	/* none, and back, exactly */
	assert_ok(ruv_learner_rollback(l, 0, &err), err);
	assert_null(live_adapter(l, model));
	for (int f = 0; f < 5; f++)
		assert_true(nll(model, NULL, facts[f][0], facts[f][1]) == bare[f]);
	assert_ok(ruv_learner_rollback(l, 1, &err), err);
	ruv_adapter *again = live_adapter(l, model);
	assert_true(nll(model, again, facts[1][0], facts[1][1]) == learned[1]);
	ruv_adapter_free(again);
	/* two halves of a version are the version; the candidate's files have it, what is live stays */
	const float halves[] = {0.5f, 0.5f};
	double kept = 0;
	assert_int_equal(ruv_learner_merge(l, (const int[]){1, 9}, NULL, 2, NULL, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "version 9"));
	assert_ok(ruv_learner_merge(l, (const int[]){1, 1}, halves, 2, &kept, &err), err);
	assert_true(kept > 0.999);
	ruv_adapter *merged = NULL;
	char candidate[500];
	snprintf(candidate, sizeof candidate, "%s/candidate.gguf", l->dir);
	assert_ok(ruv_adapter_open(&merged, model, candidate, 1, &err), err);
	for (int f = 0; f < 5; f++) /* the budget may have taken some of it back, but not in this test */
		assert_true(fabs(nll(model, merged, facts[f][0], facts[f][1]) - learned[f]) < 0.02 * (1 + learned[f]));
	ruv_adapter_free(merged);
	assert_int_equal(ruv_learner_live_version(l), 1);
	assert_ok(ruv_learner_pause(l, true, &err), err);
	assert_int_equal(ruv_learner_teach(l, "facts", "x?", "y", &err), RUV_ECANCELLED);
	/* another process may look, not learn */
	ruv_learner *second = NULL;
	char learn_dir[400];
	snprintf(learn_dir, sizeof learn_dir, "%s/a", dir);
	ruv_learner_options also = {.dir = learn_dir, .model_path = model_path};
	assert_int_equal(ruv_learner_open(&second, &also, &err), RUV_EBUSY);
	also.read_only = true;
	assert_ok(ruv_learner_open(&second, &also, &err), err);
	assert_int_equal(ruv_learner_live_version(second), 1);
	assert_int_equal(ruv_learner_rollback(second, 0, &err), RUV_EINVAL);
	ruv_learner_free(second);
	float *theta = malloc((size_t)l->candidate->n * sizeof *theta);
	memcpy(theta, l->candidate->theta, (size_t)l->candidate->n * sizeof *theta);
	ruv_learner_free(l);
	/* a restart keeps all of it */
	l = open_in("a", o);
	assert_memory_equal(l->candidate->theta, theta, (size_t)l->candidate->n * sizeof *theta);
	free(theta);
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_true(status.paused && status.live_version == 1 && status.n_held_out == 10 && status.n_replay == 30);
	assert_int_equal(status.n_corrected, 40);
	assert_int_equal(status.n_trajectories, 40);
	again = live_adapter(l, model);
	assert_true(nll(model, again, facts[1][0], facts[1][1]) == learned[1]);
	ruv_adapter_free(again);
	/* sessions keep theirs after the learner is gone */
	ruv_learner_free(l);
	assert_true(nll(model, first, facts[2][0], facts[2][1]) == learned[2]);
	ruv_adapter_free(first);
	ruv_adapter_free(same);
	/* the directory is that model's: another one under the same name does not get it */
	char elsewhere[400], other[400];
	snprintf(elsewhere, sizeof elsewhere, "%s/lfm2.gguf", dir);
	snprintf(other, sizeof other, "%s/model/llama.gguf", RUV_TEST_DATA);
	assert_int_equal(symlink(other, elsewhere), 0);
	ruv_learner_options wrong = {.dir = learn_dir, .model_path = elsewhere};
	assert_int_equal(ruv_learner_open(&second, &wrong, &err), RUV_EMISMATCH);
	assert_null(second);
	ruv_model_free(model);
}

static int embed(void *user, const char *text, float *vector, ruv_error *err)
{
	(void)user;
	(void)err;
	for (int i = 0; i < 4; i++)
		vector[i] = text[0] == "kdwc"[i] ? 1.0f : 0.1f;
	return RUV_OK;
}

static void test_thread(void **state)
{
	ruv_error err = {0};
	ruv_learner_options o = {
	    .queue_capacity = 4, .background_every = 16, .user = "ann", .callbacks = {.embed = embed, .embed_dim = 4}};
	ruv_learner *l = open_in("b", o);
	ruv_model *model = open_model();
	ruv_learner_status status;
	int n_taken = 0, n_full = 0;
	(void)state;
	ruv_interaction stranger = {.user = "bob", .question = "q", .answer = "a"};
	assert_int_equal(ruv_learner_observe(l, &stranger, &err), RUV_EMISMATCH);
	assert_int_equal(ruv_learner_feedback(l, "none", RUV_FEEDBACK_ACCEPT, NULL, &err), RUV_ENOTFOUND);
	for (int i = 0; i < 60; i++) {
		ruv_interaction what = {.user = "ann",
		                        .question = facts[i % 5][0],
		                        .answer = facts[i % 5][1],
		                        .quality = 0.8f,
		                        .prompt = i % 2 ? "Sources:\n[1] Keys\nIn the shed. Not here.\n\nQuestion: key?" : NULL};
		int rc = ruv_learner_observe(l, &what, &err);
		if (rc == RUV_OK) {
			n_taken++;
			assert_int_equal(strlen(what.id), 36);
			rc = ruv_learner_feedback(l, what.id, i % 7 == 6 ? RUV_FEEDBACK_REJECT : RUV_FEEDBACK_ACCEPT, NULL, &err);
		}
		if (rc == RUV_EBUSY) {
			n_full++;
			assert_ok(ruv_learner_work(l, &err), err); /* waits until it is empty */
		} else {
			assert_ok(rc, err);
		}
		ruv_adapter *a = NULL; /* the serving side beside it */
		assert_ok(ruv_learner_adapter(l, model, &a, &err), err);
		ruv_adapter_free(a);
		assert_ok(ruv_learner_get_status(l, &status, &err), err);
		assert_true(status.n_queued <= 4);
	}
	assert_ok(ruv_learner_work(l, &err), err);
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_observed, n_taken);
	assert_int_equal(status.n_refused, n_full);
	assert_true(status.n_accepted > 10 && status.n_rejected > 0 && status.n_steps > 10);
	assert_string_equal(status.error, "");
	ruv_learner_event events[32];
	assert_true(ruv_learner_history(l, events, 32, &err) >= 1); /* the gate has been asked */
	ruv_bank_report report;
	assert_ok(ruv_learner_consolidate(l, &report, &err), err);
	assert_int_equal(report.n_trajectories, n_taken);
	ruv_learner_free(l);
	ruv_model_free(model);
}

/* What waits when the learner is closed is a lesson after the restart. */
static void test_queue_survives(void **state)
{
	ruv_error err = {0};
	ruv_learner *l = open_in("c", (ruv_learner_options){.no_thread = true});
	ruv_learner_status status;
	(void)state;
	for (int f = 0; f < 4; f++)
		assert_ok(ruv_learner_teach(l, NULL, facts[f][0], facts[f][1], &err), err);
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_queued, 8);
	assert_int_equal(status.n_replay, 0);
	ruv_learner_free(l);
	l = open_in("c", (ruv_learner_options){.no_thread = true});
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_replay, 4);
	assert_int_equal(status.n_steps, 0);
	/* too long to learn from: counted, not fatal */
	char *text = malloc(9000);
	memset(text, 'x', 8999);
	text[8999] = 0;
	assert_ok(ruv_learner_teach(l, NULL, text, "y", &err), err);
	assert_ok(ruv_learner_work(l, &err), err);
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_skipped, 1);
	free(text);
	ruv_learner_free(l);
}

struct beside {
	atomic_int n_tended, n_asked, n_busy; /* n_busy: how often somebody is still in the way */
};

static int tend(void *user, ruv_learner_event *event, ruv_error *err)
{
	struct beside *b = user;
	(void)err;
	if (atomic_fetch_add(&b->n_tended, 1) == 0) {
		strcpy(event->what, "router");
		event->version = 7;
		event->gate.pass = true;
		event->gate.gain = 0.25;
	}
	return RUV_OK;
}

static bool busy(void *user)
{
	struct beside *b = user;
	atomic_fetch_add(&b->n_asked, 1);
	return atomic_fetch_sub(&b->n_busy, 1) > 0;
}

/* What else learns gets its turn on the learner's thread and a line in the history; a step waits while somebody is served. */
static void test_beside(void **state)
{
	struct beside b = {.n_busy = 5};
	ruv_error err = {0};
	ruv_learner_event events[4];
	ruv_learner *l =
	    open_in("d", (ruv_learner_options){.callbacks = {.tend = tend, .busy = busy, .user = &b}, .background_every = 1000});
	ruv_learner_status status;
	(void)state;
	assert_ok(ruv_learner_teach(l, "facts", facts[0][0], facts[0][1], &err), err);
	assert_ok(ruv_learner_work(l, &err), err);
	assert_int_equal(atomic_load(&b.n_asked), 6); /* five times in the way, then not */
	assert_ok(ruv_learner_get_status(l, &status, &err), err);
	assert_int_equal(status.n_steps, 1);
	assert_true(atomic_load(&b.n_tended) >= 1);
	assert_int_equal(ruv_learner_history(l, events, 4, &err), 1);
	assert_string_equal(events[0].what, "router");
	assert_int_equal(events[0].version, 7);
	assert_true(events[0].gate.pass && events[0].gate.gain == 0.25);
	ruv_learner_free(l);
}

/* Rank 4 of a merge of rank 2 adapters holds both exactly; of more, as much as fits. */
static void test_merge(void **state)
{
	ruv_error err = {0};
	ruv_model *model = open_model();
	ruv_microlora *parts[3], *sum = NULL;
	static const int hooks[] = {1, 4};
	static const float weights[] = {0.5f, 2, 1};
	double kept = 0;
	ruv_rng rng;
	(void)state;
	ruv_rng_init(&rng, 8);
	for (int i = 0; i < 3; i++) {
		assert_ok(ruv_microlora_create(&parts[i], model, hooks, 2, 2, RUV_MICROLORA_SLOTS, 10 + (uint64_t)i, &err), err);
		assert_true(ruv_microlora_is_zero(parts[i]));
		for (int64_t k = 0; k < parts[i]->n; k++)
			parts[i]->theta[k] = (float)ruv_rng_normal(&rng);
	}
	assert_ok(ruv_microlora_create(&sum, model, hooks, 2, 4, RUV_MICROLORA_SLOTS, 1, &err), err);
	const ruv_microlora *const two[] = {parts[0], parts[1]}, *const three[] = {parts[0], parts[1], parts[2]};
	assert_ok(ruv_microlora_merge(sum, two, weights, 2, &kept, &err), err);
	assert_true(kept > 0.999999);
	for (int p = 0; p < sum->n_params; p++) {
		const ruv_lora_param *s = &sum->params[p];
		double worst = 0;
		for (int64_t o = 0; o < s->n_out; o += 3)
			for (int64_t c = 0; c < s->n_in; c += 3) {
				double got = 0, want = 0;
				for (int k = 0; k < 4; k++)
					got += (double)s->b[o * 4 + k] * (double)s->a[k * s->n_in + c];
				for (int i = 0; i < 2; i++)
					for (int k = 0; k < 2; k++)
						want += (double)weights[i] * (double)parts[i]->params[p].b[o * 2 + k] *
						        (double)parts[i]->params[p].a[k * s->n_in + c];
				worst = fmax(worst, fabs(got - want));
			}
		assert_true(worst < 1e-4);
	}
	assert_ok(ruv_microlora_merge(sum, three, weights, 3, &kept, &err), err);
	assert_true(kept > 0.7 && kept < 1);
	for (int i = 0; i < 3; i++)
		ruv_microlora_free(parts[i]);
	ruv_microlora_free(sum);
	ruv_model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_teach_gate_rollback_restart), cmocka_unit_test(test_thread),
	                                   cmocka_unit_test(test_queue_survives), cmocka_unit_test(test_beside),
	                                   cmocka_unit_test(test_merge)};
	return cmocka_run_group_tests(tests, setup, teardown);
}

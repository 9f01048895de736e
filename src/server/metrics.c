/* metrics.c - counting, and the text that Prometheus reads, see metrics.h. */
#include "server/metrics.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "server/server_impl.h"

enum { MAX_STATUSES = 24, N_BOUNDS = 13, MAX_STAGES = 24, MAX_TIERS = 8, N_WHYS = RUV_ROUTE_CONSTRAINED + 1, N_SCORES = 10 };
enum { N_WRITTEN = RUV_WRITTEN_JUNK + 1, N_FEEDBACK = RUV_FEEDBACK_REJECT + 1 };

/* Seconds: requests and stages take from a tenth of a millisecond to minutes. */
static const double bounds[N_BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60};

typedef struct histogram {
	int64_t buckets[N_BOUNDS + 1], count;
	double sum;
} histogram;

typedef struct route_counts {
	const char *name;
	struct {
		int status;
		unsigned method;
		int64_t n;
	} statuses[MAX_STATUSES];
	int n_statuses;
	histogram duration;
} route_counts;

struct ruv_metrics {
	pthread_mutex_t lock;
	route_counts *routes; /* [n_routes + 1] */
	int n_routes;
	struct {
		const char *name;
		histogram duration;
	} stages[MAX_STAGES];
	int n_stages;
	histogram ask;
	int64_t ask_sources, ask_unknown;
	struct {
		char name[32];
		int64_t decisions[N_WHYS], answers;
	} tiers[MAX_TIERS];
	int n_tiers;
	int64_t escalations;
	int64_t scores[N_SCORES], n_scores, refusals; /* scores[i]: quality in (i/10, (i+1)/10], 0 with the first */
	double score_sum;
	int64_t written[N_WRITTEN], feedback[N_FEEDBACK];
	int64_t agents_routed, agents_abstained;
	int64_t embedded_texts, embedded_tokens;
	int64_t gone, cut_off;
};

int ruv_metrics_create(ruv_metrics **out, const char *const *names, int n_routes, ruv_error *err)
{
	ruv_metrics *metrics = calloc(1, sizeof *metrics);

	if (metrics)
		metrics->routes = calloc((size_t)n_routes + 1, sizeof *metrics->routes);
	if (!metrics || !metrics->routes) {
		free(metrics);
		return ruv_fail_memory(err, "server", ((size_t)n_routes + 1) * sizeof *metrics->routes);
	}
	pthread_mutex_init(&metrics->lock, NULL);
	metrics->n_routes = n_routes;
	for (int i = 0; i < n_routes; i++)
		metrics->routes[i].name = names[i];
	metrics->routes[n_routes].name = "other";
	*out = metrics;
	return RUV_OK;
}

void ruv_metrics_free(ruv_metrics *metrics)
{
	if (!metrics)
		return;
	pthread_mutex_destroy(&metrics->lock);
	free(metrics->routes);
	free(metrics);
}

static void observe(histogram *h, double seconds)
{
	int i = 0;

	while (i < N_BOUNDS && seconds > bounds[i])
		i++;
	h->buckets[i]++;
	h->count++;
	h->sum += seconds;
}

void ruv_metrics_request(ruv_metrics *metrics, int route, unsigned method, int status, double seconds)
{
	route_counts *r = &metrics->routes[route >= 0 && route < metrics->n_routes ? route : metrics->n_routes];
	int i = 0;

	pthread_mutex_lock(&metrics->lock);
	while (i < r->n_statuses && (r->statuses[i].status != status || r->statuses[i].method != method))
		i++;
	if (i == r->n_statuses && i < MAX_STATUSES) {
		r->statuses[i].status = status;
		r->statuses[i].method = method;
		r->n_statuses++;
	}
	if (i < MAX_STATUSES)
		r->statuses[i].n++;
	observe(&r->duration, seconds);
	pthread_mutex_unlock(&metrics->lock);
}

static void observe_stage(ruv_metrics *metrics, const char *stage, double seconds)
{
	int i = 0;

	while (i < metrics->n_stages && strcmp(metrics->stages[i].name, stage))
		i++;
	if (i == MAX_STAGES)
		return;
	metrics->stages[i].name = stage;
	if (i == metrics->n_stages)
		metrics->n_stages++;
	observe(&metrics->stages[i].duration, seconds);
}

/* The tier's counters; the last ones when there are more tiers than room. */
static int tier_of(ruv_metrics *metrics, const char *name)
{
	int i = 0;

	while (i < metrics->n_tiers && strcmp(metrics->tiers[i].name, name))
		i++;
	if (i == metrics->n_tiers && i < MAX_TIERS) {
		snprintf(metrics->tiers[i].name, sizeof metrics->tiers[i].name, "%s", name);
		metrics->n_tiers++;
	}
	return i < MAX_TIERS ? i : MAX_TIERS - 1;
}

static void observe_route(ruv_metrics *metrics, const ruv_answer_route *route)
{
	for (int why = 0; why < N_WHYS; why++)
		if (!strcmp(route->why, ruv_route_why_name(why)))
			metrics->tiers[tier_of(metrics, route->first)].decisions[why]++;
	metrics->tiers[tier_of(metrics, route->tier)].answers++;
	metrics->escalations += route->n_escalations;
}

static void observe_verdict(ruv_metrics *metrics, const ruv_verdict *verdict)
{
	int i = (int)ceil((double)verdict->quality * N_SCORES) - 1;

	metrics->scores[i < 0 ? 0 : i < N_SCORES ? i : N_SCORES - 1]++;
	metrics->n_scores++;
	metrics->score_sum += (double)verdict->quality;
	metrics->refusals += verdict->refusal;
}

void ruv_metrics_answer(ruv_metrics *metrics, const ruv_answer *answer)
{
	pthread_mutex_lock(&metrics->lock);
	for (int i = 0; i < answer->n_stages; i++)
		observe_stage(metrics, answer->stages[i].name, answer->stages[i].ms * 1e-3);
	observe(&metrics->ask, answer->total_ms * 1e-3);
	metrics->ask_sources += answer->n_in_prompt;
	metrics->ask_unknown += answer->unknown;
	if (answer->route.used)
		observe_route(metrics, &answer->route);
	if (answer->verdict.quality >= 0)
		observe_verdict(metrics, &answer->verdict);
	if (answer->wrote)
		metrics->written[answer->written.as]++;
	pthread_mutex_unlock(&metrics->lock);
}

void ruv_metrics_feedback(ruv_metrics *metrics, ruv_feedback feedback, const ruv_feedback_result *result)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->feedback[feedback]++;
	if (result->wrote)
		metrics->written[result->written.as]++;
	pthread_mutex_unlock(&metrics->lock);
}

void ruv_metrics_agent(ruv_metrics *metrics, bool abstains)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->agents_routed++;
	metrics->agents_abstained += abstains;
	pthread_mutex_unlock(&metrics->lock);
}

void ruv_metrics_embedding(ruv_metrics *metrics, int64_t n_texts, int64_t n_tokens)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->embedded_texts += n_texts;
	metrics->embedded_tokens += n_tokens;
	pthread_mutex_unlock(&metrics->lock);
}

void ruv_metrics_gone(ruv_metrics *metrics, bool too_slow)
{
	pthread_mutex_lock(&metrics->lock);
	if (too_slow)
		metrics->cut_off++;
	else
		metrics->gone++;
	pthread_mutex_unlock(&metrics->lock);
}

/* ---- the text ---------------------------------------------------------------------------------------------------------- */

static void head(ruv_buf *out, const char *name, const char *type, const char *help)
{
	ruv_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(ruv_buf *out, const char *name, const char *type, const char *help, double value)
{
	head(out, name, type, help);
	ruv_buf_printf(out, "%s %.17g\n", name, value);
}

/* label: "route=\"/v1/ask\"," or "". */
static void histogram_lines(ruv_buf *out, const char *name, const char *label, const double *bound, double scale, int n_bounds,
                            const int64_t *buckets, double sum, int64_t count)
{
	int64_t below = 0;
	size_t n = strlen(label);

	for (int i = 0; i < n_bounds; i++) {
		below += buckets[i];
		ruv_buf_printf(out, "%s_bucket{%sle=\"%g\"} %lld\n", name, label, bound[i] * scale, (long long)below);
	}
	ruv_buf_printf(out, "%s_bucket{%sle=\"+Inf\"} %lld\n", name, label, (long long)count);
	if (n)
		ruv_buf_printf(out, "%s_sum{%.*s} %.9g\n%s_count{%.*s} %lld\n", name, (int)n - 1, label, sum, name, (int)n - 1,
		               label, (long long)count);
	else
		ruv_buf_printf(out, "%s_sum %.9g\n%s_count %lld\n", name, sum, name, (long long)count);
}

static void own_histogram(ruv_buf *out, const char *name, const char *label, const histogram *h)
{
	histogram_lines(out, name, label, bounds, 1, N_BOUNDS, h->buckets, h->sum, h->count);
}

static void latency(ruv_buf *out, const char *name, const char *help, const ruv_latency *l)
{
	head(out, name, "histogram", help);
	histogram_lines(out, name, "", ruv_latency_bounds_ms(), 1e-3, RUV_LATENCY_BUCKETS - 1, l->buckets, l->sum_ms * 1e-3,
	                l->count);
}

static const char *method_name(unsigned method)
{
	return method == RUV_GET      ? "GET"
	       : method == RUV_POST   ? "POST"
	       : method == RUV_PUT    ? "PUT"
	       : method == RUV_PATCH  ? "PATCH"
	       : method == RUV_DELETE ? "DELETE"
	                              : "other";
}

static void write_http(ruv_buf *out, const ruv_metrics *metrics, const ruv_server *server)
{
	char label[300];

	head(out, "ruvllm_http_requests_total", "counter", "Finished HTTP requests. Status 499: the client left first.");
	for (int i = 0; i <= metrics->n_routes; i++)
		for (int s = 0; s < metrics->routes[i].n_statuses; s++)
			ruv_buf_printf(out, "ruvllm_http_requests_total{route=\"%s\",method=\"%s\",status=\"%d\"} %lld\n",
			               metrics->routes[i].name, method_name(metrics->routes[i].statuses[s].method),
			               metrics->routes[i].statuses[s].status, (long long)metrics->routes[i].statuses[s].n);
	head(out, "ruvllm_http_request_duration_seconds", "histogram", "From a whole request to the end of its answer.");
	for (int i = 0; i <= metrics->n_routes; i++) {
		if (!metrics->routes[i].duration.count)
			continue;
		snprintf(label, sizeof label, "route=\"%s\",", metrics->routes[i].name);
		own_histogram(out, "ruvllm_http_request_duration_seconds", label, &metrics->routes[i].duration);
	}
	one(out, "ruvllm_http_connections", "gauge", "Open connections.", __atomic_load_n(&server->n_conns, __ATOMIC_RELAXED));
	one(out, "ruvllm_http_requests_in_progress", "gauge", "Requests that are being answered.",
	    __atomic_load_n(&server->n_exchanges, __ATOMIC_RELAXED));
	one(out, "ruvllm_http_clients_gone_total", "counter", "Clients that left before their answer was whole.",
	    (double)metrics->gone);
	one(out, "ruvllm_http_slow_clients_total", "counter", "Clients cut off because they did not read their stream.",
	    (double)metrics->cut_off);
	one(out, "ruvllm_worker_queue_length", "gauge", "Requests that wait for a worker thread.", server->queue.n);
	one(out, "ruvllm_workers_busy", "gauge", "Worker threads at work.", server->queue.n_busy);
}

/* One line of every model. */
#define EACH_MODEL(metric, type, help, fmt, value)                                                                                 \
	do {                                                                                                                       \
		head(out, metric, type, help);                                                                                     \
		for (int i = 0; i < s->n_models; i++) {                                                                            \
			const ruv_scheduler_model_stats *m = &s->models[i];                                                        \
			ruv_buf_printf(out, "%s{model=\"%s\"} " fmt "\n", metric, m->name, value);                                 \
		}                                                                                                                  \
	} while (0)

static void write_scheduler(ruv_buf *out, const ruv_scheduler_stats *s)
{
	one(out, "ruvllm_num_requests_waiting", "gauge", "Generations that wait for admission.", s->n_waiting);
	one(out, "ruvllm_num_requests_running", "gauge", "Sequences in the batch.", s->n_running);
	one(out, "ruvllm_queue_limit", "gauge", "Generations that may wait before requests are refused.", s->max_queue);
	head(out, "ruvllm_generations_total", "counter", "Generations by how they ended.");
	ruv_buf_printf(out,
	               "ruvllm_generations_total{end=\"completed\"} %lld\nruvllm_generations_total{end=\"cancelled\"} %lld\n"
	               "ruvllm_generations_total{end=\"failed\"} %lld\nruvllm_generations_total{end=\"refused\"} %lld\n",
	               (long long)s->n_completed, (long long)s->n_cancelled, (long long)s->n_failed, (long long)s->n_refused);
	latency(out, "ruvllm_request_queue_time_seconds", "From asking for a generation to its admission.", &s->queue);
	latency(out, "ruvllm_time_to_first_token_seconds", "From asking for a generation to its first token.", &s->first_token);
	latency(out, "ruvllm_inter_token_latency_seconds", "Between two tokens of one sequence.", &s->inter_token);
	latency(out, "ruvllm_e2e_request_latency_seconds", "From asking for a generation to its end.", &s->total);
	one(out, "ruvllm_engine_busy_seconds_total", "counter", "Time that the engine thread spent in forward passes.",
	    s->busy_ms * 1e-3);
	one(out, "ruvllm_model_memory_bytes", "gauge", "Weights, pages and states of all loaded models.", (double)s->memory_bytes);
	EACH_MODEL("ruvllm_model_loaded", "gauge", "1 while the model is loaded.", "%d", m->loaded);
	EACH_MODEL("ruvllm_model_loads_total", "counter", "Times that the model was loaded.", "%lld", (long long)m->n_loads);
	EACH_MODEL("ruvllm_prompt_tokens_total", "counter", "Tokens of admitted prompts.", "%lld", (long long)m->prompt_tokens);
	EACH_MODEL("ruvllm_prompt_tokens_computed_total", "counter", "Tokens of prompts that had to be computed.", "%lld",
	           (long long)m->prompt_computed);
	EACH_MODEL("ruvllm_generation_tokens_total", "counter", "Generated tokens.", "%lld", (long long)m->generated_tokens);
	EACH_MODEL("ruvllm_engine_steps_total", "counter", "Forward passes.", "%lld", (long long)m->n_steps);
	EACH_MODEL("ruvllm_engine_rows_total", "counter", "Rows (tokens) in forward passes.", "%lld", (long long)m->n_rows);
	EACH_MODEL("ruvllm_num_preemptions_total", "counter", "Sequences put back for want of pages.", "%lld",
	           (long long)m->n_preempted);
	EACH_MODEL("ruvllm_kv_pages", "gauge", "Pages of 64 tokens for keys and values.", "%d", m->pages_total);
	EACH_MODEL("ruvllm_kv_pages_free", "gauge", "Pages that are free.", "%d", m->pages_free);
	EACH_MODEL("ruvllm_kv_pages_cached", "gauge", "Pages that only the prefix cache holds.", "%d", m->pages_cached);
	EACH_MODEL("ruvllm_kv_cache_usage_ratio", "gauge", "Share of pages in use by running sequences.", "%.6g",
	           m->pages_total ? 1 - (double)(m->pages_free + m->pages_cached) / m->pages_total : 0.0);
	EACH_MODEL("ruvllm_prefix_cache_queries_total", "counter", "Prompts looked up in the prefix cache.", "%lld",
	           (long long)m->prefix_lookups);
	EACH_MODEL("ruvllm_prefix_cache_hits_total", "counter", "Prompts of which at least a page was in the prefix cache.", "%lld",
	           (long long)m->prefix_hits);
	EACH_MODEL("ruvllm_prefix_cache_hit_tokens_total", "counter", "Prompt tokens taken from the prefix cache.", "%lld",
	           (long long)m->prefix_hit_tokens);
	EACH_MODEL("ruvllm_spec_decode_draft_tokens_total", "counter", "Tokens drafted by speculation.", "%lld",
	           (long long)m->speculation.n_drafted);
	EACH_MODEL("ruvllm_spec_decode_accepted_tokens_total", "counter", "Drafted tokens that were accepted.", "%lld",
	           (long long)m->speculation.n_accepted);
}

static void write_ask(ruv_buf *out, const ruv_metrics *metrics)
{
	char label[100];

	head(out, "ruvllm_ask_duration_seconds", "histogram", "Whole answers from memory.");
	own_histogram(out, "ruvllm_ask_duration_seconds", "", &metrics->ask);
	head(out, "ruvllm_ask_stage_duration_seconds", "histogram", "Stages of the loop.");
	for (int i = 0; i < metrics->n_stages; i++) {
		snprintf(label, sizeof label, "stage=\"%s\",", metrics->stages[i].name);
		own_histogram(out, "ruvllm_ask_stage_duration_seconds", label, &metrics->stages[i].duration);
	}
	one(out, "ruvllm_ask_sources_total", "counter", "Passages given to the model.", (double)metrics->ask_sources);
	one(out, "ruvllm_ask_unknown_total", "counter", "Answers that say that the sources do not know.",
	    (double)metrics->ask_unknown);
	one(out, "ruvllm_embedded_texts_total", "counter", "Texts embedded for clients.", (double)metrics->embedded_texts);
	one(out, "ruvllm_embedded_tokens_total", "counter", "Tokens of texts embedded for clients.",
	    (double)metrics->embedded_tokens);
}

/* Of the server's own count: decisions, verdicts, feedback, writes. */
static void write_judged(ruv_buf *out, const ruv_metrics *metrics)
{
	static const char *const written[N_WRITTEN] = {"new", "merged", "superseded", "contradicts", "not_good", "junk"};
	static const char *const said[N_FEEDBACK] = {"accept", "correct", "reject"};
	double score_bounds[N_SCORES];

	head(out, "ruvllm_router_decisions_total", "counter", "Tiers that the router chose first; why safe: the fallback.");
	for (int i = 0; i < metrics->n_tiers; i++)
		for (int why = 0; why < N_WHYS; why++)
			ruv_buf_printf(out, "ruvllm_router_decisions_total{model=\"%s\",why=\"%s\"} %lld\n", metrics->tiers[i].name,
			               ruv_route_why_name(why), (long long)metrics->tiers[i].decisions[why]);
	head(out, "ruvllm_router_answers_total", "counter", "Routed questions by the tier that answered in the end.");
	for (int i = 0; i < metrics->n_tiers; i++)
		ruv_buf_printf(out, "ruvllm_router_answers_total{model=\"%s\"} %lld\n", metrics->tiers[i].name,
		               (long long)metrics->tiers[i].answers);
	one(out, "ruvllm_router_escalations_total", "counter", "Answers that a larger tier was asked for again.",
	    (double)metrics->escalations);
	for (int i = 0; i < N_SCORES; i++)
		score_bounds[i] = (double)(i + 1) / N_SCORES;
	head(out, "ruvllm_judge_quality", "histogram", "Quality that the judge gave answers from memory, 0 to 1.");
	histogram_lines(out, "ruvllm_judge_quality", "", score_bounds, 1, N_SCORES, metrics->scores, metrics->score_sum,
	                metrics->n_scores);
	one(out, "ruvllm_judge_refusals_total", "counter", "Judged answers that say that they do not know.",
	    (double)metrics->refusals);
	head(out, "ruvllm_feedback_total", "counter", "What users said of answers.");
	for (int i = 0; i < N_FEEDBACK; i++)
		ruv_buf_printf(out, "ruvllm_feedback_total{feedback=\"%s\"} %lld\n", said[i], (long long)metrics->feedback[i]);
	head(out, "ruvllm_memory_writes_total", "counter", "Answers that write-back looked at, by what became of them.");
	for (int i = 0; i < N_WRITTEN; i++)
		ruv_buf_printf(out, "ruvllm_memory_writes_total{outcome=\"%s\"} %lld\n", written[i],
		               (long long)metrics->written[i]);
	one(out, "ruvllm_agent_routes_total", "counter", "Tasks routed to agents.", (double)metrics->agents_routed);
	one(out, "ruvllm_agent_abstentions_total", "counter", "Of them those that are no agent's.",
	    (double)metrics->agents_abstained);
}

/* Router and learner, once something has opened them: neither is opened for being looked at. */
static void write_learning(ruv_buf *out, ruv_server *server)
{
	ruv_router *router = ruv_runtime_router_if_open(server->runtime);
	ruv_learner *learner = ruv_runtime_learner_if_open(server->runtime);
	ruv_learner_status status;

	if (router) {
		ruv_router_info info;

		ruv_router_get_info(router, &info);
		one(out, "ruvllm_router_version", "gauge", "Version of the router's weights.", info.version);
		one(out, "ruvllm_router_observations", "gauge", "Outcomes that the router has learned or may learn from.",
		    info.n_observations);
		one(out, "ruvllm_router_refinements_total", "counter", "Refinements of the router that were kept.", info.n_refined);
		one(out, "ruvllm_router_rollbacks_total", "counter", "Refinements of the router that were not kept.",
		    info.n_rolled_back);
	}
	if (!learner || ruv_learner_get_status(learner, &status, NULL))
		return;
	one(out, "ruvllm_adapter_active", "gauge", "1 while an adapter is live.", status.live_version > 0);
	one(out, "ruvllm_adapter_version", "gauge", "The live adapter's version; 0: the bare model.", status.live_version);
	head(out, "ruvllm_adapter_gates_total", "counter", "Candidates that the gate looked at, by what it said.");
	ruv_buf_printf(out,
	               "ruvllm_adapter_gates_total{result=\"passed\"} %lld\nruvllm_adapter_gates_total{result=\"refused\"} %lld\n",
	               (long long)status.n_published, (long long)status.n_gates_refused);
	one(out, "ruvllm_adapter_rollbacks_total", "counter", "Ways back to an earlier version.", (double)status.n_rollbacks);
	one(out, "ruvllm_adapter_training_steps_total", "counter", "Steps of training.", (double)status.n_steps);
	one(out, "ruvllm_learner_queue_length", "gauge", "Interactions that wait to be learned.", status.n_queued);
	one(out, "ruvllm_learner_queue_refused_total", "counter", "Interactions dropped because the queue was full.",
	    (double)status.n_refused);
	one(out, "ruvllm_learner_replay_lessons", "gauge", "Lessons that are replayed.", status.n_replay);
}

static void write_memory(ruv_buf *out, ruv_server *server)
{
	ruv_memory_stats stats;
	ruv_memory *memory;

	if (ruv_runtime_memory_if_any(server->runtime, &memory, NULL) || ruv_memory_get_stats(memory, &stats, NULL))
		return; /* no memory yet */
	head(out, "ruvllm_memory_nodes", "gauge", "Nodes in memory.");
	for (int i = 0; i < RUV_N_NODE_TYPES; i++)
		ruv_buf_printf(out, "ruvllm_memory_nodes{type=\"%s\"} %lld\n", ruv_node_type_name(i),
		               (long long)stats.n_by_type[i]);
	head(out, "ruvllm_memory_edges", "gauge", "Edges between them.");
	for (int i = 0; i < RUV_N_EDGE_TYPES; i++)
		ruv_buf_printf(out, "ruvllm_memory_edges{type=\"%s\"} %lld\n", ruv_edge_type_name(i),
		               (long long)stats.n_by_edge_type[i]);
	one(out, "ruvllm_memory_vectors", "gauge", "Nodes with a vector.", (double)stats.n_vectors);
	one(out, "ruvllm_memory_sources", "gauge", "Files and pages remembered.", (double)stats.n_sources);
	one(out, "ruvllm_memory_text_bytes", "gauge", "Text in memory.", (double)stats.text_bytes);
	one(out, "ruvllm_memory_database_bytes", "gauge", "Size of the store on disk.", (double)stats.database_bytes);
	one(out, "ruvllm_memory_index_bytes", "gauge", "Size of the vector index in memory.", (double)stats.index_bytes);
}

static void write_traces(ruv_buf *out, const ruv_server *server)
{
	ruv_tracer_stats stats;

	ruv_tracer_get_stats(ruv_runtime_tracer(server->runtime), &stats);
	head(out, "ruvllm_trace_spans_total", "counter", "Spans for the collector, by what became of them.");
	ruv_buf_printf(out, "ruvllm_trace_spans_total{result=\"sent\"} %lld\nruvllm_trace_spans_total{result=\"dropped\"} %lld\n",
	               (long long)stats.n_sent, (long long)stats.n_dropped);
}

static void write_process(ruv_buf *out, const ruv_server *server)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	DIR *fds = opendir("/proc/self/fd");
	long size = 0, resident = 0, n = 0;

	if (statm) {
		if (fscanf(statm, "%ld %ld", &size, &resident) != 2)
			resident = 0;
		fclose(statm);
	}
	while (fds && readdir(fds))
		n++;
	if (fds)
		closedir(fds);
	one(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)resident * (double)sysconf(_SC_PAGESIZE));
	one(out, "process_cpu_seconds_total", "counter", "Processor time, all threads.", (double)ruv_clock_cpu_ns() * 1e-9);
	one(out, "process_open_fds", "gauge", "Open files.", n > 3 ? (double)n - 3 : 0);
	one(out, "process_start_time_seconds", "gauge", "When the server started, since 1970.", (double)server->started_ms * 1e-3);
	head(out, "ruvllm_build_info", "gauge", "The running version.");
	ruv_buf_printf(out, "ruvllm_build_info{version=\"%s\"} 1\n", ruv_version());
	one(out, "ruvllm_ready", "gauge", "1 when the server takes requests.", __atomic_load_n(&server->ready, __ATOMIC_ACQUIRE));
}

char *ruv_metrics_text(ruv_metrics *metrics, ruv_server *server)
{
	ruv_scheduler_stats *stats = calloc(1, sizeof *stats);
	ruv_buf out;

	if (!stats)
		return NULL;
	ruv_buf_init(&out, (size_t)16 << 20);
	pthread_mutex_lock(&metrics->lock);
	write_http(&out, metrics, server);
	write_ask(&out, metrics);
	write_judged(&out, metrics);
	pthread_mutex_unlock(&metrics->lock);
	ruv_scheduler_get_stats(server->scheduler, stats);
	write_scheduler(&out, stats);
	write_memory(&out, server);
	write_learning(&out, server);
	write_traces(&out, server);
	write_process(&out, server);
	free(stats);
	return ruv_buf_take(&out);
}

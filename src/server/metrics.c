/* metrics.c - counting, and the text that Prometheus reads, see metrics.h. */
#include "server/metrics.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "server/server_impl.h"

enum { N_METHODS = 5, MAX_STATUSES = 24, N_BOUNDS = 13, MAX_STAGES = 24 };

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

void ruv_metrics_stage(ruv_metrics *metrics, const char *stage, double seconds)
{
	int i = 0;

	pthread_mutex_lock(&metrics->lock);
	while (i < metrics->n_stages && strcmp(metrics->stages[i].name, stage))
		i++;
	if (i < MAX_STAGES) {
		metrics->stages[i].name = stage;
		if (i == metrics->n_stages)
			metrics->n_stages++;
		observe(&metrics->stages[i].duration, seconds);
	}
	pthread_mutex_unlock(&metrics->lock);
}

void ruv_metrics_ask(ruv_metrics *metrics, double seconds, int n_sources, bool unknown)
{
	pthread_mutex_lock(&metrics->lock);
	observe(&metrics->ask, seconds);
	metrics->ask_sources += n_sources;
	metrics->ask_unknown += unknown;
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
	pthread_mutex_unlock(&metrics->lock);
	ruv_scheduler_get_stats(server->scheduler, stats);
	write_scheduler(&out, stats);
	write_memory(&out, server);
	write_process(&out, server);
	free(stats);
	return ruv_buf_take(&out);
}

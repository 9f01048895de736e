/* agent_router.c - the agent router's object, its bundled file, and the log of what users teach; see include/ruvllm/agent.h.
 *
 * The bundled file is a section_file of kind "RUVAGENT": "encoder" (two NUL-terminated names, u32 dim), "settings", "agents",
 * "tasks" (vectors in 4 bits with a scale, in version 1 in 8), "weights" (the head's rows that are not zero, 8 bits with a scale a
 * class), "idf". The log is a run of records: u32 'A','G','E','1', u32 bytes of payload, payload, u64 XXH3 of the payload. A
 * payload is one byte of operation, one of good/bad, i16 type, then agent, purpose, right and task as u32 length + bytes, u32 dim,
 * F32 vector[dim]. Reading stops at the first record that is not whole; what is behind it is cut off. Layer: learn. */
#include "ruvllm/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "learn/agent_model.h"
#include "learn/section_file.h"

enum { VERSION = 2, MAX_RECORD = 1 << 20 };
enum { OP_TEACH = 1, OP_OUTCOME = 2, OP_FORGET = 3 };
static const char kind[8] = "RUVAGENT";
static const char magic[4] = "AGE1";

struct ruv_agent_router {
	pthread_rwlock_t lock;
	ruv_agent_model model;
	ruv_agent_options options;
	char *log_path;
	int log_fd;
	bool stale; /* tasks came or went since the head was trained: the next task to route trains it again */
};

static const ruv_agent_spec specs[] = {
    {"coder", "writes new code: features, functions, scripts", RUV_TASK_BUILD},
    {"researcher", "finds out and compares, with sources", RUV_TASK_INVESTIGATE},
    {"reviewer", "judges changes before they are merged", RUV_TASK_VERIFY},
    {"tester", "writes and runs tests", RUV_TASK_VERIFY},
    {"architect", "decides structure: components, boundaries, data models", RUV_TASK_DESIGN},
    {"security-architect", "threats, access, encryption, vulnerabilities", RUV_TASK_DESIGN},
    {"debugger", "finds the cause of faults and removes it", RUV_TASK_FIX},
    {"documenter", "manuals, READMEs, comments, release notes", RUV_TASK_EXPLAIN},
    {"refactorer", "changes structure of code, not its behaviour", RUV_TASK_IMPROVE},
    {"optimizer", "makes it faster, smaller, cheaper to run", RUV_TASK_IMPROVE},
    {"devops", "pipelines, deployments, infrastructure, monitoring", RUV_TASK_OPERATE},
    {"api-docs", "describes interfaces for those who call them", RUV_TASK_EXPLAIN},
    {"planner", "breaks work down, orders and schedules it", RUV_TASK_PLAN},
};

/* Words and phrases that mark each agent's tasks, separated by '|': short examples that take part in training. In the order of
 * specs.
 */
static const char *const marks[] = {
    /* coder */
    "implement|write a function|add a feature|build|create a script|code it|new endpoint|"
    "program a tool|component|develop|integrate|make a page|add a button|support for|class|handler|"
    "parser for|generate|import from csv|export|snippet|form|screen|widget|bot|game|app feature|"
    "hook up|wire up|query to select|method that returns|algorithm for|convert|upload|download|"
    "notification|login form|endpoint|module that",
    /* researcher */
    "research|compare|find out|look up|investigate options|survey|literature|sources|what is known|"
    "alternatives|market|competitors|studies|papers|evidence|overview of|state of the art|"
    "which vendors|who uses|collect links|read up on|licence of|published|statistics about|"
    "background|feasibility|case studies|gather information|trends|analysts|what do others do|"
    "history of|benchmarks published|explain the difference with references",
    /* reviewer */
    "review|pull request|merge request|diff|look over my code|code review|approve|"
    "feedback on my code|comments on the patch|PR|MR|LGTM|before merging|second pair of eyes|"
    "nitpicks|critique|style guide|is this commit ok|code quality verdict|request changes|"
    "sanity check|ready to be merged|inspect the changes|my branch|contribution|remarks|"
    "give your opinion on this code",
    /* tester */
    "test|unit tests|test cases|coverage|e2e|integration test|regression test|load test|stress test|"
    "mock|fixture|assert|pytest|jest|junit|cypress|selenium|playwright|fuzz|property based|test plan|"
    "QA|given when then|snapshot test|edge cases|test data|harness|smoke test|"
    "acceptance criteria test|simulate users|mutation testing",
    /* architect */
    "architecture|design the system|components|service boundaries|microservices or monolith|"
    "data model|high level design|adr|decision record|module structure|layers|event driven|"
    "scalable design|bounded contexts|domain model|which database|diagram|separation of concerns|"
    "patterns|cqrs|target architecture|how should it be structured|interfaces between|system design|"
    "topology|multi tenant|entities and relations|synchronous or asynchronous|split the monolith|"
    "concept of the platform|trade-offs",
    /* security-architect */
    "security|vulnerability|threat model|encryption|authentication|authorization|permissions|xss|"
    "csrf|sql injection|attack|attacker|secrets|keys|tokens safe|hardening|cve|owasp|"
    "penetration test|password hashing|least privilege|roles and rights|zero trust|audit of access|"
    "gdpr|personal data|certificates rotation|oauth scopes|jwt|exploit|leak|hacked|mitigation|secure|"
    "compliance|risk assessment|sandbox|malicious",
    /* debugger */
    "bug|crash|error|exception|stack trace|fix|why does it fail|broken|not working|wrong result|"
    "root cause|null pointer|segfault|hangs|freezes|deadlock|race condition|memory leak|"
    "infinite loop|reproduce|timeout|undefined|goes wrong|since the update|stopped working|404|500|"
    "data is lost|duplicate|off by one|find the cause|repair|what is wrong|happens sometimes|fails|"
    "incorrect|missing after|does nothing",
    /* documenter */
    "documentation|readme|docs|manual|guide|tutorial|docstring|comments in the code|wiki|changelog|"
    "release notes|how-to|handbook|explain in writing|user manual|onboarding page|faq|glossary|"
    "runbook text|getting started|typos|document the options|write down|help page|"
    "instructions for users|troubleshooting page|cheat sheet|describe how it works|knowledge base|"
    "contributing guide",
    /* refactorer */
    "refactor|clean up|rename|extract|simplify|split the class|remove duplication|duplicate code|"
    "restructure|dead code|untangle|decouple|same behaviour|without changing behaviour|readable|"
    "move into module|modernize|legacy code style|consolidate|circular imports|god class|long method|"
    "inline|convert to async await|tidy|copy-paste|reorganise|unify|nested ifs|replace inheritance|"
    "break up|magic numbers|smaller functions|cleaner",
    /* optimizer */
    "optimize|slow|faster|speed up|performance|latency|throughput|memory usage|reduce|bottleneck|"
    "profile|cache it|index for query|bundle size|load time|n+1|cpu usage|fps|lag|takes too long|"
    "vectorize|parallelize|p99|shrink|startup time|battery|efficient|quicker|cut time|tune|footprint|"
    "heavy page|flamegraph|quadratic|seconds to load|scale on same hardware",
    /* devops */
    "deploy|pipeline|ci|cd|docker|kubernetes|helm|terraform|ansible|server|cluster|"
    "release to production|rollback|monitoring|alerts|backup|staging|environment|infrastructure|"
    "nginx|container image|github actions|gitlab runner|certificate renew|provision|logs central|"
    "autoscaling|cloud|dns|firewall|cron|systemd|grafana|prometheus|registry|build server|"
    "zero downtime|environment variable|restart|migrate servers",
    /* api-docs */
    "openapi|swagger|api reference|document the endpoint|endpoint docs|request and response examples|"
    "postman collection|asyncapi|graphql schema descriptions|webhook payload docs|"
    "error codes of the api|curl examples|api documentation|parameters of endpoint|status codes|"
    "authentication section of api docs|developer portal|sdk reference|rate limit headers docs|"
    "pagination docs|specification yaml|schema of request|interface description|integrators|"
    "grpc reference|example request",
    /* planner */
    "plan|roadmap|sprint|milestones|timeline|schedule|prioritise|backlog|estimate|effort|"
    "break down into tasks|stories|epic|next steps|phases|work breakdown|dependencies between tasks|"
    "gantt|rollout plan|project plan|who does what|mvp scope|what first|capacity|deadline|"
    "tickets in order|distribute work|release schedule|okr|critical path|in which order|"
    "risks of project|week by week|split work|launch date",
};

const ruv_agent_spec *ruv_agent_spec_at(int i)
{
	return i >= 0 && i < (int)(sizeof specs / sizeof *specs) ? &specs[i] : NULL;
}

static const char *const type_names[RUV_N_TASK_TYPES] = {"build",   "investigate", "verify",  "design", "fix",
                                                         "explain", "improve",     "operate", "plan"};

const char *ruv_task_type_name(int type)
{
	return type >= 0 && type < RUV_N_TASK_TYPES ? type_names[type] : "?";
}

int ruv_task_type_parse(const char *name)
{
	for (int i = 0; i < RUV_N_TASK_TYPES; i++)
		if (!strcmp(type_names[i], name))
			return i;
	return -1;
}

/* ---- the bundled file -------------------------------------------------------------------------------------------------- */

static void put_text(ruv_buf *buf, const char *text)
{
	uint32_t n = (uint32_t)strlen(text);

	ruv_buf_append(buf, &n, sizeof n);
	ruv_buf_append(buf, text, n);
}

/* Reads on from *at; copies of texts are the caller's. */
struct reader {
	const char *at, *end;
	bool failed;
};

static void take(struct reader *r, void *out, size_t n)
{
	if (r->failed || (size_t)(r->end - r->at) < n) {
		r->failed = true;
		memset(out, 0, n);
		return;
	}
	memcpy(out, r->at, n);
	r->at += n;
}

static char *take_text(struct reader *r)
{
	uint32_t n;
	char *text;

	take(r, &n, sizeof n);
	if (r->failed || (size_t)(r->end - r->at) < n || n > RUV_AGENT_MAX_TASK) {
		r->failed = true;
		return NULL;
	}
	text = strndup(r->at, n);
	r->at += n;
	r->failed |= !text;
	return text;
}

static int write_file(const ruv_agent_model *m, const ruv_agent_options *options, const char *path, ruv_error *err)
{
	float scale[RUV_AGENT_CLASSES] = {0};
	uint32_t n_agents = 0, n_tasks = (uint32_t)m->n_tasks, dim = (uint32_t)m->dim, n_rows = RUV_AGENT_BUCKETS + dim;
	ruv_section_writer w;
	int rc;

	ruv_section_writer_init(&w);
	rc = ruv_section_begin(&w, "encoder", err);
	put_text(&w.data, options && options->encoder ? options->encoder : "");
	put_text(&w.data, options && options->encoder_version ? options->encoder_version : "");
	ruv_buf_append(&w.data, &dim, sizeof dim);
	if (!rc)
		rc = ruv_section_put(&w, "settings", &m->settings, sizeof m->settings, err);
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		n_agents += m->agents[a].used;
	if (!rc)
		rc = ruv_section_begin(&w, "agents", err);
	ruv_buf_append(&w.data, &n_agents, sizeof n_agents);
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		if (m->agents[a].used) {
			int32_t numbers[2] = {a, m->agents[a].type};

			ruv_buf_append(&w.data, numbers, sizeof numbers);
			put_text(&w.data, m->agents[a].name);
			put_text(&w.data, m->agents[a].purpose);
		}
	if (!rc)
		rc = ruv_section_begin(&w, "tasks", err);
	ruv_buf_append(&w.data, &n_tasks, sizeof n_tasks);
	for (int i = 0; i < m->n_tasks; i++) {
		const ruv_agent_task *task = &m->tasks[i];
		int32_t agent = task->agent;
		float top = 0;
		uint8_t row[4096];

		for (int d = 0; task->vector && d < m->dim; d++)
			top = fmaxf(top, fabsf(task->vector[d]));
		ruv_buf_append(&w.data, &agent, sizeof agent);
		ruv_buf_append(&w.data, &task->complexity, sizeof task->complexity);
		ruv_buf_append(&w.data, &top, sizeof top);
		memset(row, 0, sizeof row);
		for (int d = 0; top > 0 && d < m->dim; d++) /* -7..7 as 1..15, the even ones low */
			row[d / 2] |= (uint8_t)((lrintf(task->vector[d] / top * 7) + 8) << 4 * (d % 2));
		if (top > 0)
			ruv_buf_append(&w.data, row, (size_t)(m->dim + 1) / 2);
		put_text(&w.data, task->text);
	}
	for (uint32_t r = 0; r < n_rows; r++)
		for (int c = 0; c < RUV_AGENT_CLASSES; c++)
			scale[c] = fmaxf(scale[c], fabsf(m->weights[(size_t)r * RUV_AGENT_CLASSES + (size_t)c]));
	if (!rc)
		rc = ruv_section_begin(&w, "weights", err);
	ruv_buf_append(&w.data, scale, sizeof scale);
	ruv_buf_append(&w.data, m->bias, sizeof m->bias);
	for (uint32_t r = 0; r < n_rows; r++) { /* rows that are not zero, the classes in use alone */
		const float *row = m->weights + (size_t)r * RUV_AGENT_CLASSES;
		bool any = false;

		for (int c = 0; c < RUV_AGENT_CLASSES; c++)
			any |= row[c] != 0;
		if (!any)
			continue;
		ruv_buf_append(&w.data, &r, sizeof r);
		for (int c = 0; c < RUV_AGENT_CLASSES; c++)
			if (c == RUV_AGENT_NONE || m->agents[c].used)
				ruv_buf_putc(&w.data, (char)(int8_t)(scale[c] > 0 ? lrintf(row[c] / scale[c] * 127) : 0));
	}
	if (!rc)
		rc = ruv_section_begin(&w, "idf", err);
	for (uint32_t b = 0; b < RUV_AGENT_BUCKETS; b++) /* between 0 and 13: eight bits are enough */
		ruv_buf_putc(&w.data, (char)(uint8_t)lrintf(fminf(m->idf[b], 12.7f) * 20));
	if (!rc)
		rc = ruv_section_commit(&w, kind, VERSION, path, err);
	ruv_section_writer_release(&w);
	return rc;
}

/* Vectors of tasks that were stored for another encoder. */
static int embed_again(ruv_agent_router *router, float **vectors, char **texts, int n, ruv_error *err)
{
	*vectors = malloc(sizeof **vectors * (size_t)router->options.dim * (size_t)(n ? n : 1));
	if (!*vectors)
		return ruv_fail_memory(err, "agent", sizeof **vectors * (size_t)router->options.dim * (size_t)n);
	return router->options.embed(router->options.user, (const char *const *)texts, n, *vectors, err);
}

static int read_tasks(ruv_agent_router *router, const ruv_section_file *file, int file_dim, bool same, ruv_error *err)
{
	ruv_agent_model *m = &router->model;
	bool again = !same && m->dim && router->options.embed;
	size_t n_bytes;
	struct reader r;
	uint32_t n;
	char **texts = NULL;
	float *vectors = NULL;
	int32_t *agents = NULL;
	float *complexity = NULL;
	int rc = RUV_OK;

	r.at = ruv_section_find(file, "tasks", &n_bytes);
	r.end = r.at + n_bytes;
	r.failed = !r.at;
	take(&r, &n, sizeof n);
	if (r.failed || n > 1000000)
		return ruv_fail(err, RUV_EFORMAT, "agent", "section 'tasks' is missing or malformed");
	texts = calloc(n + 1, sizeof *texts);
	agents = calloc(n + 1, sizeof *agents);
	complexity = calloc(n + 1, sizeof *complexity);
	vectors = same && m->dim ? calloc((size_t)(n + 1) * (size_t)file_dim, sizeof *vectors) : NULL;
	if (!texts || !agents || !complexity || (same && m->dim && !vectors))
		rc = ruv_fail_memory(err, "agent", n * sizeof *texts);
	for (uint32_t i = 0; !rc && i < n; i++) {
		uint8_t q = 0;
		float top;

		take(&r, &agents[i], sizeof agents[i]);
		take(&r, &complexity[i], sizeof complexity[i]);
		take(&r, &top, sizeof top);
		for (int d = 0; top > 0 && d < file_dim && !r.failed; d++) {
			float value;

			if (file->version == 1 || d % 2 == 0)
				take(&r, &q, 1);
			value = file->version == 1 ? (float)(int8_t)q / 127 : (float)((q >> 4 * (d % 2) & 15) - 8) / 7;
			if (vectors)
				vectors[(size_t)i * (size_t)file_dim + (size_t)d] = value * top;
		}
		texts[i] = take_text(&r);
		if (r.failed || agents[i] < 0 || agents[i] > RUV_AGENT_NONE ||
		    (agents[i] != RUV_AGENT_NONE && !m->agents[agents[i]].used))
			rc = ruv_fail(err, RUV_EFORMAT, "agent", "section 'tasks' is malformed at task %u", i);
	}
	if (!rc && again)
		rc = embed_again(router, &vectors, texts, (int)n, err);
	for (uint32_t i = 0; !rc && i < n; i++) {
		int at = ruv_agent_model_add(m, agents[i], texts[i], vectors ? vectors + (size_t)i * (size_t)m->dim : NULL, 1,
		                             false, false, complexity[i], err);
		rc = at < 0 ? at : RUV_OK;
	}
	for (uint32_t i = 0; texts && i < n; i++)
		free(texts[i]);
	free(texts);
	free(agents);
	free(complexity);
	free(vectors);
	return rc;
}

static int read_weights(ruv_agent_model *m, const ruv_section_file *file, ruv_error *err)
{
	float scale[RUV_AGENT_CLASSES];
	struct reader r;
	size_t n_bytes;
	const unsigned char *idf = ruv_section_find(file, "idf", &n_bytes);

	if (!idf || n_bytes != RUV_AGENT_BUCKETS)
		return ruv_fail(err, RUV_EFORMAT, "agent", "section 'idf' is missing or malformed");
	for (int b = 0; b < RUV_AGENT_BUCKETS; b++)
		m->idf[b] = (float)idf[b] / 20;
	r.at = ruv_section_find(file, "weights", &n_bytes);
	r.end = r.at + n_bytes;
	r.failed = !r.at;
	take(&r, scale, sizeof scale);
	take(&r, m->bias, sizeof m->bias);
	while (!r.failed && r.at < r.end) {
		uint32_t row;

		take(&r, &row, sizeof row);
		if (r.failed || row >= RUV_AGENT_BUCKETS + (uint32_t)m->dim) {
			r.failed = true;
			break;
		}
		for (int c = 0; c < RUV_AGENT_CLASSES; c++)
			if (c == RUV_AGENT_NONE || m->agents[c].used) {
				int8_t q;

				take(&r, &q, 1);
				m->weights[(size_t)row * RUV_AGENT_CLASSES + (size_t)c] = (float)q * scale[c] / 127;
			}
	}
	return r.failed ? ruv_fail(err, RUV_EFORMAT, "agent", "section 'weights' is malformed") : RUV_OK;
}

static int read_file(ruv_agent_router *router, const char *path, ruv_error *err)
{
	ruv_agent_model *m = &router->model;
	ruv_section_file file;
	struct reader r;
	size_t n_bytes;
	char *encoder = NULL, *version = NULL;
	uint32_t dim, n_agents;
	const void *settings;
	bool same;
	int rc = ruv_section_open(&file, path, kind, VERSION, err);

	if (rc)
		return rc;
	r.at = ruv_section_find(&file, "encoder", &n_bytes);
	r.end = r.at + n_bytes;
	r.failed = !r.at;
	encoder = take_text(&r);
	version = r.failed ? NULL : take_text(&r);
	take(&r, &dim, sizeof dim);
	if (r.failed || dim > 8192) {
		rc = ruv_fail(err, RUV_EFORMAT, "agent", "section 'encoder' is missing or malformed");
		goto done;
	}
	same = (int)dim == m->dim && (!router->options.encoder_version || !strcmp(router->options.encoder_version, version));
	rc = ruv_section_need(&file, "settings", sizeof m->settings, &settings, err);
	if (rc)
		goto done;
	memcpy(&m->settings, settings, sizeof m->settings);
	r.at = ruv_section_find(&file, "agents", &n_bytes);
	r.end = r.at + n_bytes;
	r.failed = !r.at;
	take(&r, &n_agents, sizeof n_agents);
	for (uint32_t i = 0; !r.failed && !rc && i < n_agents; i++) {
		int32_t numbers[2];
		char *name, *purpose;
		int at;

		take(&r, numbers, sizeof numbers);
		name = take_text(&r);
		purpose = take_text(&r);
		if (!r.failed) {
			at = ruv_agent_model_agent(m, name, purpose, (ruv_task_type)numbers[1], true, err);
			rc = at < 0 ? at : at != numbers[0] ? ruv_fail(err, RUV_EFORMAT, "agent", "agents out of order") : RUV_OK;
		}
		free(name);
		free(purpose);
	}
	if (r.failed)
		rc = ruv_fail(err, RUV_EFORMAT, "agent", "section 'agents' is missing or malformed");
	if (!rc)
		rc = read_tasks(router, &file, (int)dim, same, err);
	if (!rc && same)
		rc = read_weights(m, &file, err);
	else if (!rc) /* the head read another encoder's vectors */
		rc = ruv_agent_model_fit(m, err);
done:
	free(encoder);
	free(version);
	ruv_section_release(&file);
	return rc ? ruv_error_prefix(err, rc, "%s: ", path) : RUV_OK;
}

/* ---- what users teach -------------------------------------------------------------------------------------------------- */

/* One thing that was taught. Strings may be NULL in what is applied at once. */
struct event {
	uint8_t op, good;
	int16_t type;
	const char *agent, *purpose, *right, *task;
	const float *vector;
	uint32_t dim;
};

static ruv_task_type type_near(ruv_agent_model *m, const char *task, const float *vector)
{
	ruv_agent_view view;

	if (!ruv_agent_model_view(m, task, vector, -1, &view, NULL) && view.best >= 0)
		return m->agents[view.best].type;
	return RUV_TASK_BUILD;
}

static int apply_example(ruv_agent_router *router, int agent, const struct event *e, float weight, bool is_outcome, ruv_error *err)
{
	int at = ruv_agent_model_add(&router->model, agent, e->task, e->vector, weight, is_outcome, true, -1, err);

	if (at < 0)
		return at;
	router->stale = true;
	return RUV_OK;
}

static int apply(ruv_agent_router *router, const struct event *e, ruv_error *err)
{
	ruv_agent_model *m = &router->model;
	int agent = e->op == OP_TEACH ? -1 : ruv_agent_model_find(m, e->agent), rc = RUV_OK;

	switch (e->op) {
	case OP_TEACH:
		agent = ruv_agent_model_find(m, e->agent);
		if (agent < 0)
			agent = ruv_agent_model_agent(m, e->agent, e->purpose,
			                              e->type >= 0 && e->type < RUV_N_TASK_TYPES ? (ruv_task_type)e->type
			                                                                         : type_near(m, e->task, e->vector),
			                              false, err);
		return agent < 0 ? agent : apply_example(router, agent, e, 1, false, err);
	case OP_OUTCOME:
		if (agent < 0)
			return ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'", e->agent);
		m->agents[agent].n_good += e->good != 0;
		m->agents[agent].n_bad += !e->good;
		rc = apply_example(router, agent, e, e->good ? 1 : -1, true, err);
		if (!rc && !e->good && *e->right) {
			int right = ruv_agent_model_find(m, e->right);

			if (right < 0)
				return ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'", e->right);
			rc = apply_example(router, right, e, 1, false, err);
		}
		return rc;
	case OP_FORGET:
		if (agent < 0)
			return ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'", e->agent);
		for (int i = 0; i < m->n_tasks; i++)
			if (m->tasks[i].agent == agent)
				m->tasks[i].weight = 0;
		m->agents[agent].used = false;
		router->stale = true;
		free(m->agents[agent].purpose);
		m->agents[agent].purpose = NULL;
		return RUV_OK;
	default:
		return ruv_fail(err, RUV_EFORMAT, "agent", "operation %d is not known", e->op);
	}
}

static int append(ruv_agent_router *router, const struct event *e, ruv_error *err)
{
	ruv_buf buf;
	struct stat before;
	uint32_t n = 0;
	uint64_t check;
	ssize_t written;
	int rc = RUV_OK;

	if (router->log_fd < 0)
		return RUV_OK;
	ruv_buf_init(&buf, MAX_RECORD);
	ruv_buf_append(&buf, magic, sizeof magic);
	ruv_buf_append(&buf, &n, sizeof n);
	ruv_buf_putc(&buf, (char)e->op);
	ruv_buf_putc(&buf, (char)e->good);
	ruv_buf_append(&buf, &e->type, sizeof e->type);
	put_text(&buf, e->agent);
	put_text(&buf, e->purpose);
	put_text(&buf, e->right);
	put_text(&buf, e->task);
	ruv_buf_append(&buf, &e->dim, sizeof e->dim);
	ruv_buf_append(&buf, e->vector ? (const void *)e->vector : "", sizeof(float) * e->dim);
	if (buf.failed) {
		rc = ruv_fail(err, buf.failed, "agent", "the record cannot be made");
		goto done;
	}
	n = (uint32_t)(buf.len - 8);
	memcpy(buf.data + 4, &n, sizeof n);
	check = ruv_hash64(buf.data + 8, n, 0);
	if (ruv_buf_append(&buf, &check, sizeof check)) {
		rc = ruv_fail_memory(err, "agent", buf.len);
		goto done;
	}
	if (fstat(router->log_fd, &before))
		before.st_size = -1;
	written = write(router->log_fd, buf.data, buf.len);
	if (written != (ssize_t)buf.len || fdatasync(router->log_fd)) {
		rc = ruv_fail_errno(err, RUV_EIO, errno, "agent", "%s cannot be written", router->log_path);
		if (written > 0 && before.st_size >= 0 && ftruncate(router->log_fd, before.st_size))
			ruv_log(RUV_LOG_WARN, "agent", "%s: a part of a record stays in it", router->log_path);
	}
done:
	ruv_buf_release(&buf);
	return rc;
}

/* One record at `at` of the file's bytes; returns its length, 0 when it is not whole, or a negative status. */
static ssize_t replay(ruv_agent_router *router, const char *bytes, size_t n_bytes, ruv_error *err)
{
	uint32_t n, dim;
	uint64_t check;
	struct reader r;
	struct event e = {0};
	float *vector = NULL;
	char *texts[4] = {0};
	int rc;

	if (n_bytes < 16 || memcmp(bytes, magic, sizeof magic))
		return 0;
	memcpy(&n, bytes + 4, sizeof n);
	if (n > MAX_RECORD || n_bytes < (size_t)n + 16)
		return 0;
	memcpy(&check, bytes + 8 + n, sizeof check);
	if (check != ruv_hash64(bytes + 8, n, 0))
		return 0;
	r = (struct reader){bytes + 8, bytes + 8 + n, false};
	take(&r, &e.op, 1);
	take(&r, &e.good, 1);
	take(&r, &e.type, sizeof e.type);
	for (int i = 0; i < 4; i++)
		texts[i] = r.failed ? NULL : take_text(&r);
	take(&r, &dim, sizeof dim);
	if (!r.failed && (size_t)(r.end - r.at) == sizeof(float) * dim) {
		vector = malloc(sizeof(float) * ((size_t)dim + 1));
		if (vector)
			take(&r, vector, sizeof(float) * dim);
	}
	if (r.failed || !vector) {
		rc = ruv_fail(err, RUV_ECORRUPT, "agent", "%s has a record that is whole but malformed", router->log_path);
	} else {
		bool same = dim && (int)dim == router->model.dim;
		const char *task = texts[3];
		float *fresh = NULL;

		rc = RUV_OK;
		if (dim && !same && router->model.dim && router->options.embed)
			rc = embed_again(router, &fresh, &texts[3], 1, err);
		e.agent = texts[0];
		e.purpose = texts[1];
		e.right = texts[2];
		e.task = task;
		e.vector = fresh ? fresh : same ? vector : NULL;
		if (!rc)
			rc = apply(router, &e, err);
		free(fresh);
	}
	for (int i = 0; i < 4; i++)
		free(texts[i]);
	free(vector);
	return rc ? rc : (ssize_t)n + 16;
}

static int open_log(ruv_agent_router *router, ruv_error *err)
{
	ruv_map map = {0};
	size_t at = 0;
	ssize_t n = 0;
	int rc;

	router->log_fd = open(router->log_path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
	if (router->log_fd < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, "agent", "%s cannot be opened", router->log_path);
	rc = ruv_map_open(&map, router->log_path, err);
	if (rc)
		return rc;
	while (at < map.size && (n = replay(router, (const char *)map.data + at, map.size - at, err)) > 0)
		at += (size_t)n;
	if (n < 0) {
		ruv_map_release(&map);
		return (int)n;
	}
	if (at < map.size) { /* what a crash left */
		ruv_log(RUV_LOG_WARN, "agent", "%s: the last record was not finished and is dropped", router->log_path);
		if (ftruncate(router->log_fd, (off_t)at))
			rc =
			    ruv_fail_errno(err, RUV_EIO, errno, "agent", "%s cannot be cut to its whole records", router->log_path);
	}
	ruv_map_release(&map);
	return rc;
}

/* ---- the object -------------------------------------------------------------------------------------------------------- */

int ruv_agent_router_open(ruv_agent_router **out, const char *bundled, const char *log_path, const ruv_agent_options *options,
                          ruv_error *err)
{
	ruv_agent_router *router = calloc(1, sizeof *router);
	int rc;

	if (!router)
		return ruv_fail_memory(err, "agent", sizeof *router);
	pthread_rwlock_init(&router->lock, NULL);
	router->log_fd = -1;
	if (options)
		router->options = *options;
	rc = router->options.dim >= 0 && router->options.dim <= 8192
	         ? ruv_agent_model_init(&router->model, router->options.dim, err)
	         : ruv_fail(err, RUV_EINVAL, "agent", "vectors of %d numbers, 0 to 8192 are possible", router->options.dim);
	if (!rc && bundled)
		rc = read_file(router, bundled, err);
	if (!rc && log_path) {
		router->log_path = strdup(log_path);
		rc = router->log_path ? open_log(router, err) : ruv_fail_memory(err, "agent", strlen(log_path));
	}
	router->options.encoder = router->options.encoder_version = NULL; /* the caller's */
	if (rc)
		ruv_agent_router_free(router);
	else
		*out = router;
	return rc;
}

void ruv_agent_router_free(ruv_agent_router *router)
{
	if (!router)
		return;
	if (router->log_fd >= 0)
		close(router->log_fd);
	ruv_agent_model_release(&router->model);
	free(router->log_path);
	pthread_rwlock_destroy(&router->lock);
	free(router);
}

static int check_task(const char *task, ruv_error *err)
{
	if (!task || !task[strspn(task, " \t\r\n")])
		return ruv_fail(err, RUV_EINVAL, "agent", "the task is empty");
	if (strlen(task) > RUV_AGENT_MAX_TASK)
		return ruv_fail(err, RUV_EINVAL, "agent", "the task has %zu bytes, at most %d are possible", strlen(task),
		                RUV_AGENT_MAX_TASK);
	return RUV_OK;
}

/* UTF-8 text cut at a whole character. */
static void cut(char *text, size_t n)
{
	if (strlen(text) <= n)
		return;
	while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	memcpy(text + n, "", 1);
}

static void choose(const ruv_agent_model *m, const char *task, const ruv_agent_view *view, int agent, ruv_agent_choice *choice)
{
	char words[108], near[64];

	snprintf(choice->agent, sizeof choice->agent, "%s", m->agents[agent].name);
	choice->type = m->agents[agent].type;
	choice->probability = view->blend[agent];
	choice->quality = fminf(1, fmaxf(0, view->quality[agent]));
	ruv_agent_model_words(m, task, agent, words, sizeof words);
	if (view->nearest[agent] >= 0) {
		snprintf(near, sizeof near, "%s", m->tasks[view->nearest[agent]].text);
		cut(near, 56);
		snprintf(choice->reason, sizeof choice->reason, "%s%s%slike \"%.56s\" (%.2f)", *words ? "words " : "", words,
		         *words ? "; " : "", near, fmin(9, fmax(-9, (double)view->nearest_score[agent])));
	} else {
		snprintf(choice->reason, sizeof choice->reason, "%s%s", *words ? "words " : "no task like it is known", words);
	}
	cut(choice->reason, sizeof choice->reason - 1);
}

int ruv_agent_route(ruv_agent_router *router, const char *task, const float *vector, ruv_agent_routed *routed, ruv_error *err)
{
	int64_t started = ruv_clock_now_ns();
	ruv_agent_model *m = &router->model;
	ruv_agent_view view;
	float left[RUV_AGENT_MAX];
	int rc = check_task(task, err);

	memset(routed, 0, sizeof *routed);
	if (rc)
		return rc;
	pthread_rwlock_wrlock(&router->lock);
	if (router->stale) {
		rc = ruv_agent_model_fit(m, err);
		router->stale = rc != RUV_OK;
	}
	pthread_rwlock_unlock(&router->lock);
	if (rc)
		return rc;
	pthread_rwlock_rdlock(&router->lock);
	rc = ruv_agent_model_view(m, task, vector, -1, &view, err);
	if (!rc && view.best < 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent yet: teach one by an example");
	if (rc)
		goto done;
	memcpy(left, view.blend, sizeof left);
	choose(m, task, &view, view.best, &routed->agent);
	routed->confidence = view.blend[view.best];
	left[view.best] = -1;
	while (routed->n_alternatives < RUV_AGENT_ALTERNATIVES) {
		int next = -1;

		for (int a = 0; a < RUV_AGENT_MAX; a++)
			if (m->agents[a].used && left[a] >= 0.01f && (next < 0 || left[a] > left[next]))
				next = a;
		if (next < 0)
			break;
		choose(m, task, &view, next, &routed->alternatives[routed->n_alternatives++]);
		left[next] = -1;
	}
	routed->out_of_scope = view.out_of_scope;
	routed->abstains = view.out_of_scope >= m->settings.threshold;
	routed->complexity = view.complexity;
done:
	pthread_rwlock_unlock(&router->lock);
	routed->ns = ruv_clock_now_ns() - started;
	return rc;
}

/* Writes first, then applies: what was acknowledged is there after a crash. */
static int change(ruv_agent_router *router, const struct event *e, ruv_error *err)
{
	int rc = append(router, e, err);

	return rc ? rc : apply(router, e, err);
}

int ruv_agent_teach(ruv_agent_router *router, const char *agent, const char *purpose, int type, const char *task,
                    const float *vector, ruv_error *err)
{
	struct event e = {.op = OP_TEACH,
	                  .type = (int16_t)type,
	                  .agent = agent,
	                  .purpose = purpose ? purpose : "",
	                  .right = "",
	                  .task = task,
	                  .vector = router->model.dim ? vector : NULL,
	                  .dim = vector ? (uint32_t)router->model.dim : 0};
	int rc = check_task(task, err), n = 0;

	if (!rc && (!agent || !*agent || strlen(agent) >= RUV_AGENT_NAME || strchr(agent, '\n')))
		rc = ruv_fail(err, RUV_EINVAL, "agent", "an agent's name has 1 to %d bytes, none of them a line break",
		              RUV_AGENT_NAME - 1);
	if (rc)
		return rc;
	pthread_rwlock_wrlock(&router->lock);
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		n += router->model.agents[a].used;
	if (n == RUV_AGENT_MAX && ruv_agent_model_find(&router->model, agent) < 0)
		rc = ruv_fail(err, RUV_ELIMIT, "agent", "there are %d agents already", RUV_AGENT_MAX);
	else
		rc = change(router, &e, err);
	pthread_rwlock_unlock(&router->lock);
	return rc;
}

int ruv_agent_outcome(ruv_agent_router *router, const char *task, const float *vector, const char *agent, bool good,
                      const char *right, ruv_error *err)
{
	struct event e = {.op = OP_OUTCOME,
	                  .good = good,
	                  .agent = agent,
	                  .purpose = "",
	                  .right = right ? right : "",
	                  .task = task,
	                  .vector = router->model.dim ? vector : NULL,
	                  .dim = vector ? (uint32_t)router->model.dim : 0};
	int rc = check_task(task, err);

	if (rc)
		return rc;
	pthread_rwlock_wrlock(&router->lock);
	if (ruv_agent_model_find(&router->model, agent) < 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'", agent);
	else if (right && *right && ruv_agent_model_find(&router->model, right) < 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'; teach it first", right);
	else
		rc = change(router, &e, err);
	pthread_rwlock_unlock(&router->lock);
	return rc;
}

int ruv_agent_forget(ruv_agent_router *router, const char *agent, ruv_error *err)
{
	struct event e = {.op = OP_FORGET, .agent = agent, .purpose = "", .right = "", .task = "-"};
	int at, rc;

	pthread_rwlock_wrlock(&router->lock);
	at = ruv_agent_model_find(&router->model, agent);
	if (at < 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "agent", "there is no agent '%s'", agent);
	else if (router->model.agents[at].bundled)
		rc = ruv_fail(err, RUV_EINVAL, "agent", "'%s' is bundled and cannot be forgotten", agent);
	else
		rc = change(router, &e, err);
	pthread_rwlock_unlock(&router->lock);
	return rc;
}

bool ruv_agent_at(ruv_agent_router *router, int i, ruv_agent_info *info)
{
	bool found = false;

	pthread_rwlock_rdlock(&router->lock);
	for (int a = 0; a < RUV_AGENT_MAX && !found; a++) {
		const ruv_agent *agent = &router->model.agents[a];

		if (!agent->used || i-- > 0)
			continue;
		*info = (ruv_agent_info){.name = agent->name,
		                         .purpose = agent->purpose,
		                         .type = agent->type,
		                         .bundled = agent->bundled,
		                         .n_examples = agent->n_examples,
		                         .n_taught = agent->n_taught,
		                         .n_good = agent->n_good,
		                         .n_bad = agent->n_bad};
		found = true;
	}
	pthread_rwlock_unlock(&router->lock);
	return found;
}

/* ---- training the bundled file ----------------------------------------------------------------------------------------- */

static int class_of(const ruv_agent_model *m, const ruv_agent_example *e, ruv_error *err)
{
	int agent = e->agent && *e->agent ? ruv_agent_model_find(m, e->agent) : RUV_AGENT_NONE;

	return agent >= 0
	           ? agent
	           : ruv_fail(err, RUV_EINVAL, "agent", "an example is labelled '%s', which is none of the agents", e->agent);
}

static int add_examples(ruv_agent_model *m, const ruv_agent_example *examples, int from, int to, ruv_error *err)
{
	for (int i = from; i < to; i++) {
		int agent = class_of(m, &examples[i], err);
		int at = agent < 0 ? agent
		                   : ruv_agent_model_add(m, agent, examples[i].text, examples[i].vector, 1, false, false,
		                                         examples[i].complexity, err);

		if (at < 0)
			return at;
	}
	return RUV_OK;
}

static int add_marks(ruv_agent_model *m, ruv_error *err)
{
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
		int agent = ruv_agent_model_find(m, specs[i].name);

		if (agent < 0) /* left out */
			continue;
		for (const char *at = marks[i], *end; *at; at = end + (*end == '|')) {
			char text[64];
			int rc;

			end = strchr(at, '|');
			end = end ? end : at + strlen(at);
			snprintf(text, sizeof text, "%.*s", (int)(end - at), at);
			rc = ruv_agent_model_add(m, agent, text, NULL, 1, false, false, -1, err);
			if (rc < 0)
				return rc;
		}
	}
	return RUV_OK;
}

/* Mean log-loss of the in-scope validation tasks with the present settings. */
static double blend_loss(const ruv_agent_model *m, const ruv_agent_example *examples, ruv_agent_view *views, const int *classes,
                         int n)
{
	double loss = 0;
	int seen = 0;

	for (int i = 0; i < n; i++)
		if (classes[i] != RUV_AGENT_NONE) {
			ruv_agent_model_blend(m, examples[i].text, &views[i]);
			loss -= log(fmax(1e-9, (double)views[i].blend[classes[i]]));
			seen++;
		}
	return seen ? loss / seen : 0;
}

static void choose_blend(ruv_agent_model *m, const ruv_agent_example *examples, ruv_agent_view *views, const int *classes, int n)
{
	static const float weights[] = {0, 0.15f, 0.3f, 0.6f, 1}, temperatures[] = {0.2f, 0.35f, 0.5f, 0.7f, 1, 1.4f};
	ruv_agent_settings best = m->settings;
	double least = INFINITY;

	m->settings.view[0] = 1;
	for (size_t a = 0; a < 5; a++)
		for (size_t b = 0; b < 5; b++)
			for (size_t t = 0; t < 6; t++) {
				double loss;

				m->settings.view[1] = weights[a];
				m->settings.view[2] = weights[b];
				m->settings.temperature = temperatures[t];
				loss = blend_loss(m, examples, views, classes, n);
				if (loss < least) {
					least = loss;
					best = m->settings;
				}
			}
	m->settings = best;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* Logistic regression of out-of-scope on the validation part; the bound lets 3 % of what is in scope be refused. */
static int fit_scope(ruv_agent_model *m, const ruv_agent_example *examples, ruv_agent_view *views, const int *classes, int n,
                     ruv_error *err)
{
	double weights[6] = {0};
	float *scores = malloc(sizeof *scores * (size_t)(n + 1));
	int n_in = 0, n_out = 0;

	if (!scores)
		return ruv_fail_memory(err, "agent", sizeof *scores * (size_t)n);
	for (int i = 0; i < n; i++) {
		ruv_agent_model_blend(m, examples[i].text, &views[i]);
		n_in += classes[i] != RUV_AGENT_NONE;
		n_out += classes[i] == RUV_AGENT_NONE;
	}
	for (int step = 0; step < 3000 && n_in && n_out; step++) {
		double gradient[6] = {0};

		for (int i = 0; i < n; i++) {
			bool out = classes[i] == RUV_AGENT_NONE;
			float numbers[6];
			double logit = 0, d;

			ruv_agent_oos_numbers(m, &views[i], numbers);
			for (int j = 0; j < 6; j++)
				logit += weights[j] * numbers[j];
			d = (1 / (1 + exp(-logit)) - out) / (out ? n_out : n_in);
			for (int j = 0; j < 6; j++)
				gradient[j] += d * numbers[j];
		}
		for (int j = 0; j < 6; j++)
			weights[j] -= 0.3 * (gradient[j] + 1e-3 * weights[j]);
	}
	for (int j = 0; j < 6; j++)
		m->settings.oos[j] = (float)weights[j];
	n_in = 0;
	for (int i = 0; i < n; i++)
		if (classes[i] != RUV_AGENT_NONE) {
			ruv_agent_model_blend(m, examples[i].text, &views[i]);
			scores[n_in++] = views[i].out_of_scope;
		}
	qsort(scores, (size_t)n_in, sizeof *scores, by_value);
	m->settings.threshold = n_in && n_out ? fmaxf(scores[(int)(0.97 * (n_in - 1))], 0.2f) : 2;
	free(scores);
	return RUV_OK;
}

/* Least squares with a little ridge, by gradient descent on eight numbers. */
static void fit_complexity(ruv_agent_model *m, const ruv_agent_example *examples, int n)
{
	double matrix[8][9] = {{0}};

	for (int i = 0; i < n; i++) {
		float x[8];

		if (examples[i].complexity < 0)
			continue;
		ruv_agent_complexity_numbers(examples[i].text, x);
		for (int a = 0; a < 8; a++) {
			for (int b = 0; b < 8; b++)
				matrix[a][b] += (double)x[a] * x[b];
			matrix[a][8] += (double)x[a] * examples[i].complexity;
		}
	}
	for (int a = 0; a < 8; a++)
		matrix[a][a] += 1;
	for (int a = 0; a < 8; a++) /* Gauss-Jordan; the matrix is positive definite */
		for (int b = 0; b < 8; b++) {
			double factor = matrix[b][a] / matrix[a][a];

			for (int c = a; c < 9 && b != a; c++)
				matrix[b][c] -= factor * matrix[a][c];
		}
	for (int a = 0; a < 8; a++)
		m->settings.complexity[a] = (float)(matrix[a][8] / matrix[a][a]);
}

int ruv_agent_train(const char *path, const ruv_agent_example *examples, int n_train, int n, const ruv_agent_options *options,
                    ruv_error *err)
{
	static const float scales[] = {0, 0.3f, 0.6f, 1}, bands[] = {0.04f, 0.08f, 0.15f};
	ruv_agent_model m;
	ruv_agent_settings best = {0};
	ruv_agent_view *views = NULL;
	int *classes = NULL, n_held = n - n_train, dim = options ? options->dim : 0, rc;
	double least = INFINITY;

	if (n_train < 20 || n_held < 5)
		return ruv_fail(err, RUV_EINVAL, "agent",
		                "%d examples to train on and %d to choose settings on; at least 20 and 5 are needed", n_train,
		                n_held);
	rc = ruv_agent_model_init(&m, dim, err);
	if (rc)
		return rc;
	views = malloc(sizeof *views * (size_t)n_held);
	classes = malloc(sizeof *classes * (size_t)n_held);
	if (!views || !classes)
		rc = ruv_fail_memory(err, "agent", sizeof *views * (size_t)n_held);
	for (int i = 0; !rc && ruv_agent_spec_at(i); i++) {
		bool leave = options && options->without && !strcmp(options->without, specs[i].name);
		int at = leave ? 0 : ruv_agent_model_agent(&m, specs[i].name, specs[i].purpose, specs[i].type, true, err);

		rc = at < 0 ? at : RUV_OK;
	}
	for (int i = 0; !rc && i < n_held; i++) {
		classes[i] = class_of(&m, &examples[n_train + i], err);
		rc = classes[i] < 0 ? classes[i] : RUV_OK;
	}
	if (!rc)
		rc = add_marks(&m, err);
	if (!rc)
		rc = add_examples(&m, examples, 0, n_train, err);
	fit_complexity(&m, examples, n);
	for (size_t s = 0; !rc && s < sizeof scales / sizeof *scales; s++) {
		if (s && !dim)
			break;
		m.settings.vector_scale = scales[s];
		rc = ruv_agent_model_fit(&m, err);
		for (size_t b = 0; !rc && b < sizeof bands / sizeof *bands; b++) {
			double loss;

			m.settings.band = bands[b];
			for (int i = 0; !rc && i < n_held; i++)
				rc = ruv_agent_model_view(&m, examples[n_train + i].text, examples[n_train + i].vector, -1,
				                          &views[i], err);
			if (rc)
				break;
			choose_blend(&m, examples + n_train, views, classes, n_held);
			loss = blend_loss(&m, examples + n_train, views, classes, n_held);
			if (loss < least) {
				least = loss;
				best = m.settings;
			}
		}
	}
	if (!rc) {
		m.settings = best;
		rc = ruv_agent_model_fit(&m, err);
	}
	for (int i = 0; !rc && i < n_held; i++)
		rc = ruv_agent_model_view(&m, examples[n_train + i].text, examples[n_train + i].vector, -1, &views[i], err);
	for (int i = 0, right = 0, seen = 0; !rc && i < n_held; i++) {
		if (classes[i] != RUV_AGENT_NONE) {
			ruv_agent_model_blend(&m, examples[n_train + i].text, &views[i]);
			right += views[i].best == classes[i];
			seen++;
		}
		if (i == n_held - 1)
			ruv_log(RUV_LOG_INFO, "agent",
			        "validation: %d of %d right; embedding x %.0f, views %.2f %.2f %.2f, kernel %.2f, temperature %.2f",
			        right, seen, (double)m.settings.vector_scale, (double)m.settings.view[0],
			        (double)m.settings.view[1], (double)m.settings.view[2], (double)m.settings.band,
			        (double)m.settings.temperature);
	}
	if (!rc)
		rc = fit_scope(&m, examples + n_train, views, classes, n_held, err);
	if (!rc) /* settings are chosen: the validation part may be learned from as well */
		rc = add_examples(&m, examples, n_train, n, err);
	if (!rc)
		rc = ruv_agent_model_fit(&m, err);
	if (!rc)
		rc = write_file(&m, options, path, err);
	free(views);
	free(classes);
	ruv_agent_model_release(&m);
	return rc;
}

/* cmd_mcp.c - ruvllm mcp: the MCP server over standard input and output, one JSON-RPC message a line.
 *
 * The main thread reads; every request that calls a tool runs on a thread of its own, at most MAX_RUNNING at a time (reading waits
 * then), so that a cancellation or a ping is heard while a question is answered. Nothing but messages goes to standard output. At
 * the end of the input what runs is still answered, and the program ends. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cli_runtime.h"
#include "server/mcp.h"

enum { MAX_RUNNING = 8, MAX_LINE = 64 << 20 };

typedef struct job {
	struct mcp *mcp;
	json_t *message;
	json_t *id; /* NULL: the place is free */
	ruv_cancel cancel;
	bool cancelled; /* by the client: no answer is sent */
	ruv_mcp_caller caller;
} job;

typedef struct mcp {
	ruv_runtime *runtime;
	bool read_only;
	pthread_mutex_t lock; /* jobs and n_running */
	pthread_cond_t ended;
	job jobs[MAX_RUNNING];
	int n_running;
	pthread_mutex_t out; /* standard output */
} mcp;

/* Takes over `message`. */
static void say(mcp *m, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);

	json_decref(message);
	if (!text)
		return;
	pthread_mutex_lock(&m->out);
	fputs(text, stdout);
	fputc('\n', stdout);
	fflush(stdout);
	pthread_mutex_unlock(&m->out);
	free(text);
}

static void notify(void *user, json_t *message)
{
	job *j = user;

	if (ruv_cancel_is_set(&j->cancel))
		json_decref(message);
	else
		say(j->mcp, message);
}

static ruv_mcp_caller caller_of(mcp *m, job *j)
{
	return (ruv_mcp_caller){.runtime = m->runtime,
	                        .may_read = true,
	                        .may_write = !m->read_only,
	                        .may_learn = !m->read_only,
	                        .owner_user = "",
	                        .owner_agent = "",
	                        .cancel = j ? &j->cancel : NULL,
	                        .notify = j ? notify : NULL,
	                        .user = j};
}

static void *run(void *arg)
{
	job *j = arg;
	mcp *m = j->mcp;
	json_t *answer = NULL;
	bool cancelled;

	ruv_mcp_handle(&j->caller, j->message, &answer, NULL);
	pthread_mutex_lock(&m->lock);
	cancelled = j->cancelled;
	json_decref(j->message);
	json_decref(j->id);
	j->id = NULL; /* before the answer is out: its reader may use the id again at once */
	pthread_mutex_unlock(&m->lock);
	if (cancelled)
		json_decref(answer);
	else if (answer)
		say(m, answer);
	pthread_mutex_lock(&m->lock);
	m->n_running--;
	pthread_cond_broadcast(&m->ended);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* Takes over `message`. */
static void start(mcp *m, json_t *message)
{
	json_t *id = json_object_get(message, "id");
	pthread_attr_t detached;
	pthread_t thread;
	job *j = NULL;

	pthread_mutex_lock(&m->lock);
	while (m->n_running == MAX_RUNNING)
		pthread_cond_wait(&m->ended, &m->lock);
	for (int i = 0; i < MAX_RUNNING; i++) {
		if (!m->jobs[i].id)
			j = &m->jobs[i];
		else if (json_equal(m->jobs[i].id, id)) { /* ids of running requests must differ */
			pthread_mutex_unlock(&m->lock);
			say(m, ruv_mcp_error(id, RUV_MCP_INVALID_REQUEST, "A request with this id is still running", NULL));
			json_decref(message);
			return;
		}
	}
	*j = (job){.mcp = m, .message = message, .id = json_incref(id)};
	j->caller = caller_of(m, j);
	m->n_running++;
	pthread_mutex_unlock(&m->lock);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, run, j))
		run(j); /* here, then */
	pthread_attr_destroy(&detached);
}

static void cancel(mcp *m, const json_t *id)
{
	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < MAX_RUNNING; i++)
		if (m->jobs[i].id && json_equal(m->jobs[i].id, id)) {
			m->jobs[i].cancelled = true;
			ruv_cancel_set(&m->jobs[i].cancel);
		}
	pthread_mutex_unlock(&m->lock);
}

static void take_line(mcp *m, const char *line, size_t n)
{
	json_error_t at;
	json_t *message = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at), *answer = NULL;
	const char *method = json_string_value(json_object_get(message, "method"));
	ruv_mcp_caller caller;

	if (!message) {
		char text[300];

		snprintf(text, sizeof text, "Parse error at byte %d: %s", at.position, at.text);
		say(m, ruv_mcp_error(NULL, RUV_MCP_PARSE_ERROR, text, NULL));
		return;
	}
	const json_t *id = json_object_get(message, "id");

	if (method && !strcmp(method, "tools/call") && (json_is_string(id) || json_is_integer(id))) {
		start(m, message);
		return;
	}
	caller = caller_of(m, NULL);
	switch (ruv_mcp_handle(&caller, message, &answer, NULL)) {
	case RUV_MCP_ANSWER:
		say(m, answer);
		break;
	case RUV_MCP_CANCEL:
		cancel(m, answer);
		json_decref(answer);
		break;
	case RUV_MCP_SILENT:
		break;
	}
	json_decref(message);
}

static int serve(mcp *m)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	errno = 0;
	while ((n = getline(&line, &cap, stdin)) >= 0) {
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r' || line[n - 1] == ' '))
			n--;
		if (n > MAX_LINE)
			say(m, ruv_mcp_error(NULL, RUV_MCP_INVALID_REQUEST, "The message is longer than 64 MiB", NULL));
		else if (n > 0)
			take_line(m, line, (size_t)n);
		errno = 0;
	}
	free(line);
	pthread_mutex_lock(&m->lock);
	while (m->n_running)
		pthread_cond_wait(&m->ended, &m->lock);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int cmd_mcp(int argc, char **argv)
{
	static bool read_only;
	static const cli_option options[] = {
	    {"read-only", 0, CLI_FLAG, &read_only, NULL, "offer no change of memory: memory_add and memory_forget fail"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "mcp",
	    .usage = "[OPTIONS]",
	    .summary = "Serve the Model Context Protocol on standard input and output: tools to search memory, add to it, forget, "
		       "and ask, "
		       "for coding agents and desktop assistants, which start this command themselves. `ruvllm serve` has the same "
		       "at /mcp over HTTP. docs/server-protocols.md shows how to set clients up.",
	    .options = options,
	    .examples = "claude mcp add ruvllm -- ruvllm mcp\nruvllm mcp --data-dir ~/notes-memory --read-only",
	    .min_args = 0,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	mcp m = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER, .out = PTHREAD_MUTEX_INITIALIZER};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	m.runtime = cli_runtime(&code);
	if (!m.runtime)
		return code;
	m.read_only = read_only;
	code = serve(&m);
	ruv_runtime_free(m.runtime);
	return code;
}

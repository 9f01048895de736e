/* cmd_serve.c - ruvllm serve: the HTTP server, until SIGTERM or Ctrl-C. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli_runtime.h"
#include "runtime/config.h"
#include "server/server.h"

/* A log line as JSON; what requests said never gets here. */
static void log_json(void *user, ruv_log_level level, const char *where, const char *line)
{
	static const char *const names[] = {"debug", "info", "warning", "error"};
	json_t *object = json_pack("{s:I, s:s, s:s, s:o}", "time_ms", (json_int_t)ruv_clock_wall_ms(), "level", names[level],
	                           "where", where, "message", cli_json_text(line));
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

	(void)user;
	if (text)
		fprintf(stderr, "%s\n", text);
	free(text);
	json_decref(object);
}

typedef struct started {
	const ruv_settings *settings;
	bool quiet;
} started;

static void on_ready(void *user, ruv_server *server)
{
	const started *s = user;
	const ruv_settings *settings = s->settings;
	const char *scheme = *settings->tls_cert ? "https" : "http";
	bool v6 = strchr(settings->host, ':') != NULL;

	if (cli.json)
		cli_json_print(json_pack("{s:s, s:s, s:i, s:s}", "event", "listening", "host", settings->host, "port",
		                         ruv_server_port(server), "scheme", scheme));
	else if (!s->quiet)
		printf("Listening on %s://%s%s%s:%d%s%s   (Ctrl-C ends)\n", scheme, v6 ? "[" : "", settings->host, v6 ? "]" : "",
		       ruv_server_port(server), *settings->unix_socket ? " and " : "", settings->unix_socket);
	fflush(stdout);
}

int cmd_serve(int argc, char **argv)
{
	static bool log_requests = true;
	static const cli_option options[] = {
	    {"log-requests", 0, CLI_FLAG, &log_requests, NULL,
	     "one JSON line a request on stderr (default; --no-log-requests: none)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "serve",
	    .usage = "[OPTIONS]",
	    .summary =
		"Serve OpenAI's API (chat, completions, embeddings, models), questions answered from memory, the memory itself, "
		"and "
		"metrics. Only this machine can connect unless --host says otherwise; give --api-keys then. SIGTERM and Ctrl-C let "
		"running requests end, SIGHUP reads keys and certificate again. docs/server.md describes every endpoint.",
	    .options = options,
	    .examples = "ruvllm serve\nruvllm serve --port 8080 --model m\n"
			"ruvllm serve --host 0.0.0.0 --api-keys keys.json --tls-cert cert.pem --tls-key key.pem\n"
			"curl -s localhost:7885/v1/ask -d '{\"question\": \"When does the backup start?\"}'",
	    .min_args = 0,
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_server_options server_options = {0};
	ruv_settings settings;
	ruv_server *server = NULL;
	ruv_runtime *runtime;
	ruv_config *config;
	ruv_error err = {0};
	started s = {.settings = &settings};
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	config = cli_config(&code);
	if (!config)
		return code;
	rc = ruv_config_settings(config, &settings, &err);
	if (rc)
		return cli_fail(&err, NULL);
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	ruv_log_set(log_json, NULL, cli.verbose ? RUV_LOG_INFO : RUV_LOG_WARN);
	s.quiet = cli.quiet;
	server_options = (ruv_server_options){.host = settings.host,
	                                      .port = (int)settings.port,
	                                      .socket = settings.unix_socket,
	                                      .keys_file = settings.api_keys,
	                                      .tls_cert = settings.tls_cert,
	                                      .tls_key = settings.tls_key,
	                                      .model = settings.model,
	                                      .chat_memory = settings.chat_memory,
	                                      .max_connections = (int)settings.max_connections,
	                                      .max_queue = (int)settings.max_queue,
	                                      .max_body_bytes = settings.max_body_bytes,
	                                      .timeout_s = (int)settings.request_timeout,
	                                      .drain_s = (int)settings.drain_timeout,
	                                      .log_requests = log_requests && !cli.quiet,
	                                      .on_ready = on_ready,
	                                      .user = &s};
	rc = ruv_server_open(&server, runtime, &server_options, &err);
	if (!rc)
		rc = ruv_server_run(server, &err);
	code = rc ? cli_runtime_fail(&err) : CLI_EXIT_OK;
	ruv_server_free(server);
	ruv_runtime_free(runtime);
	return code;
}

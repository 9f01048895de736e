/* cmd_chat.c - ruvllm chat: a conversation with memory behind it.
 *
 * One session lives as long as the chat, so a turn only runs what the conversation added (the prompts of two turns share their
 * beginning). On a terminal lines are edited with libedit and kept in DATA/chat_history; from a pipe each line is one turn. Ctrl-C
 * stops an answer and stays; at the prompt it clears the line. */
#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "answer_form.h"
#include "answer_print.h"
#include "base/buf.h"
#include "base/file.h"
#include "runtime/runtime.h"

typedef struct chat {
	ruv_runtime *runtime;
	ruv_model *model;
	ruv_session *session;
	ruv_message *messages; /* [n_messages] user and assistant in turn; contents are ours */
	int n_messages, cap;
	ruv_answer answer; /* the last one */
	bool has_answer;
	bool routed; /* --model auto: every turn has its own model */
	ruv_route_state route_state;
	bool use_memory, show_sources, interactive;
	ruv_ask_params form; /* its grammar: what answers follow */
	int exit_code;
} chat;

/* ---- the conversation -------------------------------------------------------------------------------------------------- */

static bool add_message(chat *c, const char *role, const char *content)
{
	char *copy = strdup(content);

	if (copy && c->n_messages == c->cap) {
		int cap = c->cap ? 2 * c->cap : 16;
		ruv_message *messages = realloc(c->messages, (size_t)cap * sizeof *messages);

		if (messages) {
			c->messages = messages;
			c->cap = cap;
		}
	}
	if (!copy || c->n_messages == c->cap) {
		free(copy);
		cli_failf(RUV_ENOMEM, "out of memory for the conversation");
		return false;
	}
	c->messages[c->n_messages++] = (ruv_message){.role = role, .content = copy};
	return true;
}

static void clear_messages(chat *c)
{
	for (int i = 0; i < c->n_messages; i++)
		free((char *)(uintptr_t)c->messages[i].content);
	c->n_messages = 0;
	ruv_session_reset(c->session);
}

/* One turn: ask, stream, show, remember the exchange. */
static void take_turn(chat *c, const char *line)
{
	answer_stream stream = {0};
	ruv_ask_params params = {.question = line,
	                         .history = c->messages,
	                         .n_history = c->n_messages,
	                         .session = c->routed ? NULL : c->session,
	                         .route_state = c->routed ? &c->route_state : NULL,
	                         .no_memory = !c->use_memory,
	                         .chat = true,
	                         .grammar = c->form.grammar,
	                         .grammar_bytes = c->form.grammar_bytes,
	                         .grammar_kind = c->form.grammar_kind,
	                         .cancel = &cli_cancel,
	                         .on_piece = cli.json ? NULL : answer_stream_piece,
	                         .user = &stream};
	ruv_error err = {0};
	int rc;

	if (c->has_answer)
		ruv_answer_release(&c->answer);
	cli_interrupt_clear();
	rc = ruv_ask(c->runtime, &params, &c->answer, &err);
	c->has_answer = rc == RUV_OK;
	if (!cli.json)
		answer_stream_end(&stream);
	if (rc == RUV_ECANCELLED) {
		printf("Stopped.\n");
		return;
	}
	if (rc) {
		c->exit_code = cli_runtime_fail(&err);
		return;
	}
	if (cli.json) {
		json_t *line_json = answer_json(&c->answer, line);

		/* One document a line, so that a pipe can read turn by turn. */
		json_dumpf(line_json, stdout, JSON_COMPACT);
		fputc('\n', stdout);
		fflush(stdout);
		json_decref(line_json);
	} else {
		answer_print_warnings(&c->answer, stdout);
		if (c->use_memory && c->answer.n_sources == 0)
			printf("%s(without a source: memory has nothing near this)%s\n", cli_sgr(stdout, CLI_DIM),
			       cli_sgr(stdout, CLI_PLAIN));
		for (int i = 0; i < c->answer.n_citations; i++) {
			const ruv_citation *citation = &c->answer.citations[i];
			const ruv_source *source = &c->answer.sources[citation->source];
			char place[4300];

			cli_place(source->source, citation->line ? citation->line : source->first_line,
			          citation->line ? 0 : source->last_line, place, sizeof place);
			printf("%s[%d] %s%s\n", cli_sgr(stdout, CLI_DIM), source->number, place, cli_sgr(stdout, CLI_PLAIN));
		}
		if (c->show_sources) {
			answer_print_sources(&c->answer, stdout);
			answer_print_times(&c->answer, stdout);
		}
		fflush(stdout);
	}
	/* An answer that was stopped stays in the conversation as far as it came. */
	if (c->answer.text[0] && add_message(c, "user", line) && !add_message(c, "assistant", c->answer.text))
		free((char *)(uintptr_t)c->messages[--c->n_messages].content);
}

/* ---- commands ---------------------------------------------------------------------------------------------------------- */

static void show_help(chat *c, const char *arg);

static void show_sources(chat *c, const char *arg)
{
	(void)arg;
	if (!c->has_answer) {
		printf("There is no answer yet.\n");
	} else if (c->answer.n_sources == 0) {
		printf("The last answer used no sources.\n");
	} else {
		answer_print_sources(&c->answer, stdout);
		for (int i = 0; i < c->answer.n_sources; i++)
			if (c->answer.sources[i].number)
				printf("\n%s[%d]%s %s\n", cli_sgr(stdout, CLI_BOLD), c->answer.sources[i].number,
				       cli_sgr(stdout, CLI_PLAIN), c->answer.sources[i].text);
		answer_print_times(&c->answer, stdout);
	}
}

static void show_memory(chat *c, const char *arg)
{
	ruv_memory *memory;
	ruv_memory_stats stats;
	ruv_error err = {0};
	char bytes[32];

	if (!strcmp(arg, "on") || !strcmp(arg, "off")) {
		c->use_memory = !strcmp(arg, "on");
		printf("Memory is %s for this chat.\n", arg);
		return;
	}
	if (*arg) { /* search */
		ruv_ask_params params = {.question = arg};
		ruv_answer found = {0};

		if (ruv_retrieve(c->runtime, &params, &found, &err)) {
			cli_runtime_fail(&err);
			return;
		}
		if (found.n_sources == 0)
			printf("Memory has nothing for that.\n");
		answer_print_sources(&found, stdout);
		for (int i = 0; i < found.n_sources; i++)
			printf("\n%s\n", found.sources[i].text);
		ruv_answer_release(&found);
		return;
	}
	if (ruv_runtime_memory_if_any(c->runtime, &memory, &err) || ruv_memory_get_stats(memory, &stats, &err)) {
		if (err.code == RUV_ENOTFOUND)
			printf("Memory is empty. /remember FILE|DIR|TEXT fills it.\n");
		else
			cli_runtime_fail(&err);
		return;
	}
	printf("%lld passages from %lld sources, %s, in %s; memory is %s for this chat.\n", (long long)stats.n_nodes,
	       (long long)stats.n_sources, cli_human_bytes(bytes, sizeof bytes, (uint64_t)stats.database_bytes),
	       ruv_runtime_data_dir(c->runtime), c->use_memory ? "on" : "off");
}

static void remember(chat *c, const char *arg)
{
	ruv_remember_params params = {.cancel = &cli_cancel};
	ruv_remember_result result;
	ruv_error err = {0};

	if (!*arg) {
		printf("What? /remember FILE, DIR or a sentence.\n");
		return;
	}
	cli_interrupt_clear();
	if (access(arg, F_OK) != 0 && (arg[0] == '/' || arg[0] == '~' || !strncmp(arg, "./", 2) || !strncmp(arg, "../", 3))) {
		cli_failf(RUV_ENOTFOUND, "there is no '%s'", arg);
		return;
	}
	if (access(arg, F_OK) == 0) {
		params.path = arg;
	} else {
		params.text = arg;
		params.n_bytes = strlen(arg);
	}
	if (ruv_remember(c->runtime, &params, &result, &err))
		cli_runtime_fail(&err);
	else if (result.n_unchanged == result.n_files)
		printf("That is remembered already.\n");
	else
		printf("Remembered: %d passage%s added, %d kept, %d removed.\n", result.n_passages_added,
		       result.n_passages_added == 1 ? "" : "s", result.n_passages_kept, result.n_passages_removed);
}

static void give_feedback(chat *c, ruv_feedback feedback, const char *correction)
{
	ruv_feedback_result result;
	ruv_error err = {0};

	if (!c->has_answer) {
		printf("There is no answer yet.\n");
		return;
	}
	if (ruv_runtime_feedback(c->runtime, c->answer.id, feedback, correction, &result, &err)) {
		if (err.code == RUV_ENOTFOUND)
			printf("That answer has been rated already.\n");
		else
			cli_runtime_fail(&err);
		return;
	}
	printf("Noted%s%s%s.\n", result.wrote && *result.written.id ? "; memory has it now" : "",
	       result.routed ? "; the router knows" : "", result.learned ? "; the learner has it" : "");
}

static void good(chat *c, const char *arg)
{
	(void)arg;
	give_feedback(c, RUV_FEEDBACK_ACCEPT, NULL);
}

static void bad(chat *c, const char *arg)
{
	if (*arg)
		give_feedback(c, RUV_FEEDBACK_CORRECT, arg);
	else
		give_feedback(c, RUV_FEEDBACK_REJECT, NULL);
}

static void clear(chat *c, const char *arg)
{
	(void)arg;
	clear_messages(c);
	printf("The conversation starts anew. Memory is untouched.\n");
}

static void save(chat *c, const char *arg)
{
	ruv_buf text;
	ruv_error err = {0};

	if (!*arg) {
		printf("Where? /save FILE.md\n");
		return;
	}
	ruv_buf_init(&text, (size_t)64 << 20);
	for (int i = 0; i < c->n_messages; i++)
		ruv_buf_printf(&text, "**%s:** %s\n\n", c->messages[i].role, c->messages[i].content);
	if (text.failed)
		cli_failf(text.failed, "the conversation is larger than 64 MiB");
	else if (ruv_file_write(arg, ruv_buf_cstr(&text), text.len, &err))
		cli_fail(&err, NULL);
	else
		printf("%d messages saved to %s.\n", c->n_messages, arg);
	ruv_buf_release(&text);
}

static void toggle_details(chat *c, const char *arg)
{
	(void)arg;
	c->show_sources = !c->show_sources;
	printf("Scores and times are %s after each answer.\n", c->show_sources ? "shown" : "not shown");
}

static void show_model(chat *c, const char *arg)
{
	ruv_model_info info;
	char params[32], bytes[32];

	(void)arg;
	ruv_model_get_info(c->model, &info);
	printf("%s: %s, %s, %s parameters, %s; context %d of %d tokens used.\n", info.name, info.architecture, info.file_type,
	       cli_human_count(params, sizeof params, (double)info.n_params), cli_human_bytes(bytes, sizeof bytes, info.n_bytes),
	       ruv_session_position(c->session), ruv_session_n_ctx(c->session));
}

static const struct {
	const char *name, *arg, *help;
	void (*run)(chat *c, const char *arg); /* NULL: leave */
} chat_commands[] = {
    {"/help", "", "this list", show_help},
    {"/sources", "", "the last answer's sources, with their text", show_sources},
    {"/memory", "[WORDS|on|off]", "what memory holds; search it; use it or not", show_memory},
    {"/remember", "FILE|DIR|TEXT", "put something into memory", remember},
    {"/good", "", "the last answer was right: remember it", good},
    {"/bad", "[RIGHT ANSWER]", "it was wrong; this would have been right", bad},
    {"/details", "", "scores and times after each answer, or not", toggle_details},
    {"/model", "", "which model answers, and how full its context is", show_model},
    {"/clear", "", "forget this conversation (not the memory)", clear},
    {"/save", "FILE", "write the conversation as Markdown", save},
    {"/quit", "", "leave (Ctrl-D does too)", NULL},
};
#define N_CHAT_COMMANDS ((int)(sizeof chat_commands / sizeof *chat_commands))

static void show_help(chat *c, const char *arg)
{
	(void)c;
	(void)arg;
	for (int i = 0; i < N_CHAT_COMMANDS; i++)
		printf("  %-9s %-14s %s\n", chat_commands[i].name, chat_commands[i].arg, chat_commands[i].help);
	printf("Anything else is a message. Ctrl-C stops an answer.\n");
}

/* Runs "/name arg". False: leave. */
static bool run_command(chat *c, char *line)
{
	const char *names[N_CHAT_COMMANDS], *near;
	size_t n = strcspn(line, " \t");
	char *arg = line + n;

	while (*arg == ' ' || *arg == '\t')
		*arg++ = 0;
	if (!strcmp(line, "/exit") || !strcmp(line, "/q"))
		return false;
	for (int i = 0; i < N_CHAT_COMMANDS; i++) {
		names[i] = chat_commands[i].name;
		if (strcmp(line, names[i]))
			continue;
		if (!chat_commands[i].run)
			return false;
		chat_commands[i].run(c, arg);
		fflush(stdout);
		return true;
	}
	near = cli_nearest(line, names, N_CHAT_COMMANDS);
	printf("There is no %s; %s%s%s\n", line, near ? "did you mean " : "/help lists the commands", near ? near : "",
	       near ? "?" : ".");
	fflush(stdout);
	return true;
}

/* A line of input; false: leave. */
static bool take_line(chat *c, char *line)
{
	size_t n = strlen(line);

	while (n && strchr(" \t\r\n", line[n - 1]))
		line[--n] = 0;
	while (*line == ' ' || *line == '\t')
		line++;
	if (!*line)
		return true;
	if (*line == '/')
		return run_command(c, line);
	take_turn(c, line);
	return true;
}

/* ---- input ------------------------------------------------------------------------------------------------------------- */

static const char *prompt(EditLine *el)
{
	(void)el;
	return "> ";
}

/* Completes the /command before the cursor when only one fits. */
static unsigned char complete(EditLine *el, int key)
{
	const LineInfo *line = el_line(el);
	size_t n = (size_t)(line->cursor - line->buffer);
	int match = -1;

	(void)key;
	if (n == 0 || line->buffer[0] != '/')
		return CC_ERROR;
	for (int i = 0; i < N_CHAT_COMMANDS; i++)
		if (strlen(chat_commands[i].name) >= n && !memcmp(chat_commands[i].name, line->buffer, n)) {
			if (match >= 0)
				return CC_ERROR;
			match = i;
		}
	if (match < 0 || el_insertstr(el, chat_commands[match].name + n) || el_insertstr(el, " "))
		return CC_ERROR;
	return CC_REFRESH;
}

/* Reads one character. Unlike libedit's own reader it also waits for Ctrl-C, so that one pressed at any moment ends the wait. */
static int read_character(EditLine *el, wchar_t *c)
{
	struct pollfd waits[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = cli_interrupt_fd(), .events = POLLIN}};
	mbstate_t state = {0};

	(void)el;
	for (;;) {
		char byte;
		size_t len;
		ssize_t n;

		if (poll(waits, 2, -1) < 0 && errno != EINTR)
			return -1;
		if (cli_interrupted) {
			errno = EINTR;
			return -1;
		}
		if (!waits[0].revents)
			continue;
		n = read(STDIN_FILENO, &byte, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return (int)n;
		len = mbrtowc(c, &byte, 1, &state);
		if (len == (size_t)-1) { /* no text of this locale: leave it out */
			memset(&state, 0, sizeof state);
			continue;
		}
		if (len != (size_t)-2)
			return 1;
	}
}

static void chat_on_terminal(chat *c)
{
	EditLine *el = el_init("ruvllm", stdin, stdout, stderr);
	History *past = history_init();
	HistEvent event;
	char path[4200];
	bool go_on = true;

	if (!el || !past) {
		c->exit_code = cli_failf(RUV_EINTERNAL, "the line editor cannot be started on this terminal (TERM=%s)",
		                         getenv("TERM") ? getenv("TERM") : "");
		goto done;
	}
	snprintf(path, sizeof path, "%s/chat_history", ruv_runtime_data_dir(c->runtime));
	history(past, &event, H_SETSIZE, 1000);
	history(past, &event, H_SETUNIQUE, 1);
	history(past, &event, H_LOAD, path); /* not there the first time */
	el_set(el, EL_PROMPT, prompt);
	el_set(el, EL_GETCFN, read_character);
	el_set(el, EL_EDITOR, "emacs");
	el_set(el, EL_HIST, history, past);
	el_wset(el, EL_ADDFN, L"ruv-complete", L"complete a command", complete); /* el_set would leak its copies */
	el_set(el, EL_BIND, "^I", "ruv-complete", NULL);
	el_set(el, EL_BIND, "^R", "em-inc-search-prev", NULL);
	el_source(el, NULL);
	while (go_on) {
		int n = 0;
		const char *typed;
		char *line;

		cli_interrupt_clear();
		errno = 0;
		el_set(el, EL_PREP_TERM,
		       1); /* before the prompt shows, or a Ctrl-D typed right at it is the old mode's and is lost */
		typed = el_gets(el, &n);
		if (!typed || n <= 0) {
			if (cli_interrupted != SIGTERM &&
			    (cli_interrupted || errno == EINTR)) { /* Ctrl-C at the prompt: a fresh line */
				printf("\n(/quit or Ctrl-D leaves)\n");
				el_reset(el);
				continue;
			}
			putchar('\n');
			break;
		}
		if (typed[0] != '\n')
			history(past, &event, H_ENTER, typed);
		line = strdup(typed);
		if (!line) {
			c->exit_code = cli_failf(RUV_ENOMEM, "out of memory");
			break;
		}
		go_on = take_line(c, line);
		free(line);
	}
	if (ruv_dir_create(ruv_runtime_data_dir(c->runtime), NULL) == RUV_OK) {
		mode_t old = umask(077);

		history(past, &event, H_SAVE, path);
		umask(old);
	}
done:
	if (past)
		history_end(past);
	if (el)
		el_end(el);
}

static void chat_on_pipe(chat *c)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) >= 0) {
		json_t *text = json_stringn(line, (size_t)n); /* NULL: not UTF-8 */

		if (!text) {
			c->exit_code = cli_failf(RUV_EFORMAT, "the line is not valid UTF-8");
			continue;
		}
		json_decref(text);
		if (!take_line(c, line))
			break;
		if (cli_interrupted) {
			c->exit_code = CLI_EXIT_INTERRUPTED;
			break;
		}
	}
	free(line);
}

/* ---- the command ------------------------------------------------------------------------------------------------------- */

static int open_chat(chat *c, ruv_error *err)
{
	int rc;

	ruv_runtime_stays(c->runtime);
	rc = ruv_runtime_session(c->runtime, NULL, &c->session, err);

	if (!rc)
		c->model = ruv_session_model(c->session);
	c->routed = !strcmp(c->runtime->settings.model, "auto");
	return rc;
}

int cmd_chat(int argc, char **argv)
{
	static bool no_memory, details;
	static const cli_option options[] = {
	    {"no-memory", 0, CLI_FLAG, &no_memory, NULL, "talk to the model alone, without sources"},
	    {"details", 0, CLI_FLAG, &details, NULL, "scores and times after each answer"},
	    CLI_FORM_OPTIONS,
	    {0},
	};
	static const cli_spec spec = {
	    .name = "chat",
	    .usage = "[OPTIONS]",
	    .summary = "Talk with the model; what memory holds is looked up for every message, and the answer says where it "
		       "stands. /help inside lists the "
		       "commands. Without a terminal, every line of standard input is a message; with --json every answer is one "
		       "line of JSON.",
	    .options = options,
	    .examples = "ruvllm chat\nprintf 'When does the backup start?\\nAnd how long is it kept?\\n' | ruvllm chat",
	    CLI_CONFIG_OPTIONS,
	};
	cli_args args;
	chat c = {.use_memory = true};
	char *form = NULL;
	ruv_error err = {0};
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	c.runtime = cli_runtime(&code);
	if (!c.runtime)
		return code;
	c.use_memory = !no_memory;
	c.show_sources = details;
	c.interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !cli.json;
	cli_interrupt_catch();
	if (cli_form_read(&c.form, &form, &err) || open_chat(&c, &err)) {
		code = cli_runtime_fail(&err);
	} else {
		if (c.interactive && !cli.quiet)
			printf("Ask something. /help lists the commands, Ctrl-D leaves.\n");
		if (c.interactive)
			chat_on_terminal(&c);
		else
			chat_on_pipe(&c);
		clear_messages(&c);
		code = c.exit_code;
	}
	if (c.has_answer)
		ruv_answer_release(&c.answer);
	free(c.messages);
	ruv_session_free(c.session);
	ruv_runtime_free(c.runtime);
	free(form);
	return code;
}

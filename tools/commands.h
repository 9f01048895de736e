/* commands.h - the subcommands of the ruvllm program, one row each.
 *
 * A subcommand NAME is one file tools/cmd_NAME.c with `int cmd_NAME(int argc, char **argv)`; argv[0] is NAME, and the result is the
 * exit code (cli.h). Its row here makes it known to the program and to the help; its file is added in tools/CMakeLists.txt. */
#ifndef RUV_TOOLS_COMMANDS_H
#define RUV_TOOLS_COMMANDS_H

/* Groups of the help text, in its order: id, heading. */
#define CLI_GROUP_LIST(X)                                                                                                          \
	X(GROUP_USE, "Ask and remember")                                                                                           \
	X(GROUP_MODELS, "Model files")                                                                                             \
	X(GROUP_MEASURE, "Measure")                                                                                                \
	X(GROUP_SYSTEM, "This installation")

/* name, group, one line of help. */
#define CLI_COMMAND_LIST(X)                                                                                                        \
	X(ask, GROUP_USE, "Answer a question from memory, with its sources")                                                       \
	X(chat, GROUP_USE, "Talk, with memory behind it")                                                                          \
	X(serve, GROUP_USE, "Answer over HTTP: OpenAI's API, memory, metrics")                                                     \
	X(mcp, GROUP_USE, "Be an MCP server: memory and answers as tools for agents")                                              \
	X(remember, GROUP_USE, "Read files, directories or standard input into memory")                                            \
	X(agent, GROUP_USE, "Which agent a task belongs to: route, teach, outcome, list, eval")                                    \
	X(memory, GROUP_USE, "Look into memory and change it: search, list, edit, forget, export, ...")                            \
	X(learn, GROUP_USE, "Learning from use: status, history, gate, rollback, export, pause, ...")                              \
	X(pull, GROUP_MODELS, "Fetch a model from a hub: resumable, checked")                                                      \
	X(convert, GROUP_MODELS, "Turn a Hugging Face model into a GGUF file")                                                     \
	X(quantize, GROUP_MODELS, "Make a model smaller")                                                                          \
	X(imatrix, GROUP_MODELS, "Measure which weights matter, for quantize")                                                     \
	X(inspect, GROUP_MODELS, "Say what a model file is and whether it runs here")                                              \
	X(tokenize, GROUP_MODELS, "Show how a model cuts a text into tokens")                                                      \
	X(bench, GROUP_MEASURE, "Measure speed beside what this machine could do at most")                                         \
	X(eval, GROUP_MEASURE, "Measure a model: answers, retrieval, judging, perplexity")                                         \
	X(router, GROUP_MEASURE, "Which model a question gets: ask, collect, train, eval, refine, ...")                            \
	X(config, GROUP_SYSTEM, "Show every setting and where it comes from")                                                      \
	X(doctor, GROUP_SYSTEM, "Check the processor, the models, memory and the disk")                                            \
	X(completion, GROUP_SYSTEM, "Print what makes a shell complete these commands")                                            \
	X(man, GROUP_SYSTEM, "Print or write the manual pages")                                                                    \
	X(version, GROUP_SYSTEM, "Print the version and how it was built")

/* A row as data; NULL past the last. */
typedef struct cli_command {
	const char *name;
	int group;
	const char *help;
	int (*run)(int argc, char **argv);
} cli_command;
const cli_command *cli_command_at(int i);
/* NULL past the last group. */
const char *cli_group_heading(int group);

#define X(name, group, help) int cmd_##name(int argc, char **argv);
CLI_COMMAND_LIST(X)
#undef X

#endif

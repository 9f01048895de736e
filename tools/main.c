/* main.c - the ruvllm program: finds the subcommand by its row in commands.h and runs it. */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum {
#define X(id, heading) id,
	CLI_GROUP_LIST(X)
#undef X
	    N_GROUPS
};

static const char *const headings[] = {
#define X(id, heading) heading,
    CLI_GROUP_LIST(X)
#undef X
};

static const cli_command commands[] = {
#define X(name, group, help) {#name, group, help, cmd_##name},
    CLI_COMMAND_LIST(X)
#undef X
};

#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

const cli_command *cli_command_at(int i)
{
	return i >= 0 && i < N_COMMANDS ? &commands[i] : NULL;
}

const char *cli_group_heading(int group)
{
	return group >= 0 && group < N_GROUPS ? headings[group] : NULL;
}

static void print_help(FILE *out)
{
	const char *bold = cli_sgr(out, CLI_BOLD), *plain = cli_sgr(out, CLI_PLAIN);

	fprintf(out, "ruvllm %s - a local LLM runtime that remembers\n\n%sUsage:%s ruvllm COMMAND [OPTIONS] [ARGUMENTS]\n",
	        ruv_version(), bold, plain);
	for (int group = 0; group < N_GROUPS; group++) {
		bool any = false;

		for (int i = 0; i < N_COMMANDS; i++) {
			if (commands[i].group != group)
				continue;
			if (!any)
				fprintf(out, "\n%s%s%s\n", bold, headings[group], plain);
			any = true;
			fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].help);
		}
	}
	fprintf(out,
	        "\n`ruvllm COMMAND --help` explains one command. Every command takes --json, --quiet, --verbose and --no-color.\n"
	        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.\n");
}

static int find_command(const char *name)
{
	for (int i = 0; i < N_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return i;
	return -1;
}

static int unknown_command(const char *name)
{
	const char *names[N_COMMANDS];
	const char *near;

	for (int i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	near = cli_nearest(name, names, N_COMMANDS);
	if (near)
		return cli_usage("there is no command '%s'; did you mean '%s'?", name, near);
	return cli_usage("there is no command '%s'; `ruvllm --help` lists them", name);
}

int main(int argc, char **argv)
{
	int i;

	setlocale(LC_CTYPE, "");
	cli_output_detect();
	/* Known before anything is parsed, so that every usage error is JSON too. */
	for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--json"))
			cli.json = true;
	if (argc < 2) {
		print_help(stderr);
		return CLI_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		print_help(stdout);
		return CLI_EXIT_OK;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("ruvllm %s\n", ruv_version());
		return CLI_EXIT_OK;
	}
	if (!strcmp(argv[1], "help")) {
		if (argc < 3) {
			print_help(stdout);
			return CLI_EXIT_OK;
		}
		i = find_command(argv[2]);
		if (i < 0)
			return unknown_command(argv[2]);
		char *help_argv[] = {argv[2], (char *)"--help", NULL};

		cli.command = commands[i].name;
		return commands[i].run(2, help_argv);
	}
	i = find_command(argv[1]);
	if (i < 0)
		return unknown_command(argv[1]);
	cli.command = commands[i].name;
	i = commands[i].run(argc - 1, argv + 1);
	/* A closed pipe or a full disk must not look like success. */
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "ruvllm: the output could not be written\n");
		return CLI_EXIT_FAILED;
	}
	return i;
}

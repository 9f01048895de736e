/* cmd_completion.c - ruvllm completion: what bash, zsh and fish need to complete commands, parts, options and their choices, made
 * of the tables that the program itself runs by (cli_tables.h). */
#include <string.h>

#include "cli_tables.h"

static void put_words(const char *arg)
{
	char word[64];

	for (int i = 0; cli_arg_word(arg, i, word, sizeof word); i++)
		printf("%s%s", i ? " " : "", word);
}

static bool has_words(const char *arg)
{
	char word[64];

	return cli_arg_word(arg, 0, word, sizeof word) != NULL;
}

/* "memory search", or "ask". */
static const char *page_name(const cli_entry *entry, const cli_page *page, char *text, size_t cap)
{
	snprintf(text, cap, "%s%s%s", entry->command->name, page->part ? " " : "", page->part ? page->part : "");
	return text;
}

/* ---- bash -------------------------------------------------------------------------------------------------------------- */

static void bash_names(const cli_spec *spec, int which)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, spec, which, i); i++)
		if (o.letter)
			printf(" --%s -%c", o.name, o.letter);
		else
			printf(" --%s", o.name);
}

/* The arms of a case over an option's name that takes a value. */
static void bash_values(const cli_spec *spec, int which, const char *indent)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, spec, which, i); i++) {
		if (o.flag)
			continue;
		printf("%s--%s", indent, o.name);
		if (o.letter)
			printf(" | -%c", o.letter);
		printf(") words='");
		put_words(o.arg);
		printf("' files=%s ;;\n", cli_arg_is_file(o.arg) ? "yes" : "no");
	}
}

static void print_bash(const cli_tables *t)
{
	char name[128];

	printf("# bash completion for ruvllm %s; made by `ruvllm completion bash`\n\n", ruv_version());
	printf("_ruvllm()\n{\n"
	       "\tlocal cur prev command part page options words files config=no parts=no\n"
	       "\tlocal shared='");
	bash_names(NULL, CLI_SHARED_OPTIONS);
	printf("'\n\tlocal keys='");
	bash_names(NULL, CLI_CONFIG_KEYS);
	printf("'\n"
	       "\tcur=${COMP_WORDS[COMP_CWORD]} prev=\n"
	       "\t((COMP_CWORD > 1)) && prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	       "\t[[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	       "\t[[ $cur == = ]] && cur=\n"
	       "\tCOMPREPLY=()\n"
	       "\tif ((COMP_CWORD == 1)); then\n"
	       "\t\tCOMPREPLY=($(compgen -W 'help --help --version");
	for (int e = 0; e < t->n_entries; e++)
		printf(" %s", t->entries[e].command->name);
	printf("' -- \"$cur\"))\n\t\treturn\n\tfi\n"
	       "\tcommand=${COMP_WORDS[1]} part=\n"
	       "\tcase $command in\n\thelp) words='");
	for (int e = 0; e < t->n_entries; e++)
		printf("%s%s", e ? " " : "", t->entries[e].command->name);
	printf("' parts=yes ;;\n");
	for (int e = 0; e < t->n_entries; e++) {
		const cli_entry *entry = &t->entries[e];

		if (!*entry->kind)
			continue;
		printf("\t%s) words='", entry->command->name);
		for (int p = 0; p < entry->n_pages; p++)
			printf("%s%s", p ? " " : "", t->pages[entry->first_page + p].part);
		printf("' parts=yes ;;\n");
	}
	printf("\tesac\n"
	       "\tif [[ $parts == yes ]]; then\n"
	       "\t\tif ((COMP_CWORD == 2)); then\n"
	       "\t\t\tCOMPREPLY=($(compgen -W \"$words --help\" -- \"$cur\"))\n\t\t\treturn\n\t\tfi\n"
	       "\t\tpart=${COMP_WORDS[2]}\n\tfi\n"
	       "\tpage=$command${part:+ $part} words= files=no\n"
	       "\tcase $page in\n");
	for (int e = 0; e < t->n_entries; e++)
		for (int p = 0; p < t->entries[e].n_pages; p++) {
			const cli_page *page = &t->pages[t->entries[e].first_page + p];

			printf("\t'%s')\n\t\toptions='", page_name(&t->entries[e], page, name, sizeof name));
			bash_names(&page->spec, CLI_OWN_OPTIONS);
			printf("' config=%s words='", cli_takes_config(&page->spec) ? "yes" : "no");
			put_words(page->spec.usage);
			printf("' files=%s\n\t\tcase $prev in\n", cli_arg_is_file(page->spec.usage) ? "yes" : "no");
			bash_values(&page->spec, CLI_OWN_OPTIONS, "\t\t");
			printf("\t\t*) prev= ;;\n\t\tesac\n\t\t;;\n");
		}
	printf("\t*) return ;;\n\tesac\n"
	       "\tif [[ -z $prev && $config == yes ]]; then\n"
	       "\t\tprev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	       "\t\t[[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	       "\t\tcase $prev in\n");
	bash_values(NULL, CLI_CONFIG_KEYS, "\t\t");
	printf("\t\t*) prev= ;;\n\t\tesac\n\tfi\n"
	       "\tif [[ -z $prev && $cur == -* ]]; then\n"
	       "\t\t[[ $config == yes ]] && options+=$keys\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$options$shared\" -- \"$cur\"))\n\t\treturn\n\tfi\n"
	       "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	       "\tif [[ $files == yes ]]; then\n"
	       "\t\tlocal IFS=$'\\n'\n"
	       "\t\tcompopt -o filenames 2>/dev/null\n"
	       "\t\tCOMPREPLY+=($(compgen -f -- \"$cur\"))\n\tfi\n"
	       "}\n"
	       "complete -F _ruvllm ruvllm\n");
}

/* ---- zsh --------------------------------------------------------------------------------------------------------------- */

/* Inside '...' of an _arguments specification: ] and \ of the explanation, : of a message. */
static void zsh_text(const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\'') {
			fputs("'\\''", stdout);
			continue;
		}
		if (strchr("[]\\:", *p))
			putchar('\\');
		putchar(*p == '\n' ? ' ' : *p);
	}
}

static void zsh_action(const char *arg)
{
	bool words = has_words(arg), files = cli_arg_is_file(arg);

	if (words) {
		fputs(files ? "{ compadd " : "(", stdout);
		put_words(arg);
		fputs(files ? "; _files }" : ")", stdout);
	} else {
		fputs(files ? "_files" : "", stdout);
	}
}

static void zsh_options(const cli_spec *spec, int which)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, spec, which, i); i++) {
		char forms[160];

		if (o.letter)
			snprintf(forms, sizeof forms, "'(-%c --%s)'{-%c%s,--%s%s}'", o.letter, o.name, o.letter, o.flag ? "" : "+",
			         o.name, o.flag ? "" : "=");
		else
			snprintf(forms, sizeof forms, "'--%s%s", o.name, o.flag ? "" : "=");
		printf(" \\\n\t\t\t%s[", forms);
		zsh_text(o.help);
		putchar(']');
		if (!o.flag) {
			putchar(':');
			zsh_text(o.arg);
			putchar(':');
			zsh_action(o.arg);
		}
		putchar('\'');
	}
}

/* 'name:help' of a list to choose from. */
static void zsh_item(const char *name, const char *help)
{
	printf(" '%s:", name);
	for (const char *p = help; *p; p++)
		if (*p == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*p);
	putchar('\'');
}

static void zsh_page(const cli_page *page, const char *indent)
{
	const char *usage = page->spec.usage;

	printf("%sown=(", indent);
	zsh_options(&page->spec, CLI_OWN_OPTIONS);
	if (has_words(usage) || cli_arg_is_file(usage)) {
		printf(" \\\n\t\t\t'*:argument:");
		zsh_action(usage);
		putchar('\'');
	}
	printf(")\n");
	if (!cli_takes_config(&page->spec))
		printf("%skeys=()\n", indent);
	printf("%s;;\n", indent);
}

static void print_zsh(const cli_tables *t)
{
	printf("#compdef ruvllm\n# zsh completion for ruvllm %s; made by `ruvllm completion zsh`\n\n", ruv_version());
	printf("_ruvllm()\n{\n\tlocal context state state_descr line\n\ttypeset -A opt_args\n\tlocal -a commands parts own shared "
	       "keys\n"
	       "\tcommands=('help:Explain a command'");
	for (int e = 0; e < t->n_entries; e++)
		zsh_item(t->entries[e].command->name, t->entries[e].command->help);
	printf(")\n\tshared=(");
	zsh_options(NULL, CLI_SHARED_OPTIONS);
	printf(")\n\tkeys=(");
	zsh_options(NULL, CLI_CONFIG_KEYS);
	printf(")\n"
	       "\tif ((CURRENT == 2)); then\n\t\t_describe -t commands command commands\n\t\treturn\n\tfi\n"
	       "\tcase $words[2] in\n"
	       "\thelp)\n\t\t_describe -t commands command commands\n\t\treturn\n\t\t;;\n");
	for (int e = 0; e < t->n_entries; e++) {
		const cli_entry *entry = &t->entries[e];

		printf("\t%s)\n", entry->command->name);
		if (!*entry->kind) {
			zsh_page(&t->pages[entry->first_page], "\t\t");
			continue;
		}
		printf("\t\tparts=(");
		for (int p = 0; p < entry->n_pages; p++)
			zsh_item(t->pages[entry->first_page + p].part, t->pages[entry->first_page + p].help);
		printf(")\n\t\tif ((CURRENT == 3)); then\n\t\t\t_describe -t parts %s parts\n\t\t\treturn\n\t\tfi\n"
		       "\t\tshift words\n\t\t((CURRENT--))\n\t\tcase $words[2] in\n",
		       entry->kind);
		for (int p = 0; p < entry->n_pages; p++) {
			printf("\t\t%s)\n", t->pages[entry->first_page + p].part);
			zsh_page(&t->pages[entry->first_page + p], "\t\t\t");
		}
		printf("\t\t*) return 1 ;;\n\t\tesac\n\t\t;;\n");
	}
	printf("\t*) return 1 ;;\n\tesac\n\tshift words\n\t((CURRENT--))\n\t_arguments -s -S $own $shared $keys\n}\n\n"
	       "if [[ $funcstack[1] == _ruvllm ]]; then\n\t_ruvllm \"$@\"\nelse\n\tcompdef _ruvllm ruvllm\nfi\n");
}

/* ---- fish -------------------------------------------------------------------------------------------------------------- */

static void fish_text(const char *text)
{
	putchar('\'');
	for (const char *p = text; *p; p++) {
		if (*p == '\'' || *p == '\\')
			putchar('\\');
		putchar(*p == '\n' ? ' ' : *p);
	}
	putchar('\'');
}

static void fish_options(const char *condition, const cli_spec *spec, int which)
{
	cli_option_view o;

	for (int i = 0; cli_option_at(&o, spec, which, i); i++) {
		printf("complete -c ruvllm -n '%s' -l %s", condition, o.name);
		if (o.letter)
			printf(" -s %c", o.letter);
		if (!o.flag)
			printf(cli_arg_is_file(o.arg) ? " -r -F" : " -x");
		if (!o.flag && has_words(o.arg)) {
			printf(" -a '");
			put_words(o.arg);
			putchar('\'');
		}
		printf(" -d ");
		fish_text(o.help);
		putchar('\n');
	}
}

static void print_fish(const cli_tables *t)
{
	char name[128], condition[200];

	printf("# fish completion for ruvllm %s; made by `ruvllm completion fish`\n\n", ruv_version());
	printf("# Are these the words behind ruvllm, before the one that is being written?\n"
	       "function __ruvllm_in\n\tset -l words (commandline -opc)\n"
	       "\ttest (count $words) -gt (count $argv); or return 1\n"
	       "\tfor i in (seq (count $argv))\n\t\tset -l n (math $i + 1)\n\t\ttest \"$words[$n]\" = \"$argv[$i]\"; or return "
	       "1\n\tend\nend\n"
	       "function __ruvllm_at\n\ttest (count (commandline -opc)) -eq (math 1 + (count $argv)); and __ruvllm_in $argv\nend\n"
	       "function __ruvllm_takes_config\n\tset -l words (commandline -opc)\n\tcontains -- \"$words[2]\"");
	for (int e = 0; e < t->n_entries; e++)
		if (!*t->entries[e].kind && cli_takes_config(&t->pages[t->entries[e].first_page].spec))
			printf(" %s", t->entries[e].command->name);
	printf("; or contains -- \"$words[2] $words[3]\"");
	for (int e = 0; e < t->n_entries; e++)
		for (int p = 0; p < t->entries[e].n_pages; p++) {
			const cli_page *page = &t->pages[t->entries[e].first_page + p];

			if (*t->entries[e].kind && cli_takes_config(&page->spec))
				printf(" '%s'", page_name(&t->entries[e], page, name, sizeof name));
		}
	printf("\nend\n\ncomplete -c ruvllm -f\n"
	       "complete -c ruvllm -n __ruvllm_at -a help -d 'Explain a command'\n"
	       "complete -c ruvllm -n __ruvllm_at -l version -d 'Print the version'\n");
	for (int e = 0; e < t->n_entries; e++) {
		printf("complete -c ruvllm -n '__ruvllm_at; or __ruvllm_at help' -a %s -d ", t->entries[e].command->name);
		fish_text(t->entries[e].command->help);
		putchar('\n');
	}
	fish_options("not __ruvllm_at", NULL, CLI_SHARED_OPTIONS);
	fish_options("__ruvllm_takes_config", NULL, CLI_CONFIG_KEYS);
	for (int e = 0; e < t->n_entries; e++)
		for (int p = 0; p < t->entries[e].n_pages; p++) {
			const cli_page *page = &t->pages[t->entries[e].first_page + p];
			const char *usage = page->spec.usage;

			snprintf(condition, sizeof condition, "__ruvllm_in %s", page_name(&t->entries[e], page, name, sizeof name));
			if (page->part) {
				printf("complete -c ruvllm -n '__ruvllm_at %s' -a %s -d ", t->entries[e].command->name, page->part);
				fish_text(page->help);
				putchar('\n');
			}
			if (has_words(usage)) {
				printf("complete -c ruvllm -n '%s' -a '", condition);
				put_words(usage);
				printf("'\n");
			}
			if (cli_arg_is_file(usage))
				printf("complete -c ruvllm -n '%s' -F\n", condition);
			fish_options(condition, &page->spec, CLI_OWN_OPTIONS);
		}
}

int cmd_completion(int argc, char **argv)
{
	static const cli_spec spec = {
	    .name = "completion",
	    .usage = "bash|zsh|fish",
	    .summary = "Print a script that makes the shell complete ruvllm's commands, options and their choices. `make install` "
		       "puts all "
		       "three where the shells look for them.",
	    .examples = "source <(ruvllm completion bash)\nruvllm completion zsh > ~/.zfunc/_ruvllm\n"
			"ruvllm completion fish > ~/.config/fish/completions/ruvllm.fish",
	    .min_args = 1,
	    .max_args = 1,
	};
	static const struct {
		const char *shell;
		void (*print)(const cli_tables *tables);
	} shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
	static cli_tables tables;
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
		if (!strcmp(args.items[0], shells[i].shell)) {
			cli_tables_read(&tables);
			shells[i].print(&tables);
			return CLI_EXIT_OK;
		}
	return cli_usage("'%s' is no shell that is known here: bash, zsh or fish", args.items[0]);
}

/* cmd_remember.c - ruvllm remember: files, directories or standard input into memory. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "cli_runtime.h"

typedef struct watch {
	cli_progress progress;
	json_t *files; /* with --json */
} watch;

static const char *const outcome_names[] = {"added", "updated", "unchanged", "skipped", "failed", "forgotten"};

static void on_progress(void *user, const ruv_remember_progress *p)
{
	watch *w = user;
	const char *slash = strrchr(p->path, '/');
	uint64_t done = (uint64_t)p->n_bytes_done;
	uint64_t now = 0;

	/* Within a file, its passages tell how far it is. */
	if (p->n_chunks)
		now = (uint64_t)((double)p->file_bytes * p->n_chunks_done / p->n_chunks);
	w->progress.total = (uint64_t)p->n_bytes;
	cli_progress_update(&w->progress, done + now, slash ? slash + 1 : p->path);
}

static void on_file(void *user, const ruv_remember_file *file)
{
	watch *w = user;
	char path[4300];

	if (w->files)
		json_array_append_new(w->files,
		                      json_pack("{s:o, s:s, s:o, s:i, s:i, s:i}", "file", cli_json_text(file->path), "outcome",
		                                outcome_names[file->outcome], "why",
		                                *file->why ? cli_json_text(file->why) : json_null(), "added", file->nodes.n_added,
		                                "kept", file->nodes.n_kept, "removed", file->nodes.n_removed));
	bool note = *file->why && (file->outcome == RUV_REMEMBER_ADDED || file->outcome == RUV_REMEMBER_UPDATED);

	if (file->outcome == RUV_REMEMBER_FAILED || cli.verbose || (note && !cli.quiet)) {
		if (w->progress.bar)
			fprintf(stderr, "\r\033[K");
		fprintf(stderr, "%s%s%s: %s%s%s\n", file->outcome == RUV_REMEMBER_FAILED ? cli_sgr(stderr, CLI_RED) : "",
		        outcome_names[file->outcome], cli_sgr(stderr, CLI_PLAIN), cli_short_path(file->path, path, sizeof path),
		        *file->why ? ": " : "", file->why);
	}
}

static void add_up(ruv_remember_result *sum, const ruv_remember_result *one)
{
	sum->n_files += one->n_files;
	sum->n_added += one->n_added;
	sum->n_updated += one->n_updated;
	sum->n_unchanged += one->n_unchanged;
	sum->n_skipped += one->n_skipped;
	sum->n_failed += one->n_failed;
	sum->n_forgotten += one->n_forgotten;
	sum->n_passages_added += one->n_passages_added;
	sum->n_passages_kept += one->n_passages_kept;
	sum->n_passages_removed += one->n_passages_removed;
	sum->n_embedded += one->n_embedded;
	sum->n_bytes += one->n_bytes;
	sum->seconds += one->seconds;
}

static void print_sum(const ruv_remember_result *sum)
{
	char bytes[32], time[32];

	printf("%d %s (%s) in %s: %d added, %d updated, %d unchanged", sum->n_files, sum->n_files == 1 ? "file" : "files",
	       cli_human_bytes(bytes, sizeof bytes, (uint64_t)sum->n_bytes), cli_human_time(time, sizeof time, sum->seconds),
	       sum->n_added, sum->n_updated, sum->n_unchanged);
	if (sum->n_skipped)
		printf(", %d skipped%s", sum->n_skipped, cli.verbose ? "" : " (--verbose says why)");
	if (sum->n_forgotten)
		printf(", %d forgotten (gone from disk)", sum->n_forgotten);
	if (sum->n_failed)
		printf(", %d failed", sum->n_failed);
	printf("\n%d passages added, %d kept, %d removed\n", sum->n_passages_added, sum->n_passages_kept, sum->n_passages_removed);
}

static char *read_stdin(size_t *n_bytes)
{
	ruv_buf buf;
	char part[16384];
	size_t n;

	ruv_buf_init(&buf, (size_t)256 << 20);
	ruv_buf_puts(&buf, "");
	while ((n = fread(part, 1, sizeof part, stdin)) > 0 && !cli_interrupted)
		ruv_buf_append(&buf, part, n);
	*n_bytes = buf.len;
	return ruv_buf_take(&buf);
}

int cmd_remember(int argc, char **argv)
{
	static cli_strings tags;
	static const char *name, *kind, *domain;
	static bool again, keep_missing;
	static const cli_option options[] = {
	    {"tag", 't', CLI_LIST, &tags, "TAG", "put a tag on every passage (may be repeated)"},
	    {"domain", 0, CLI_STRING, &domain, "NAME", "the domain of every passage"},
	    {"name", 'n', CLI_STRING, &name, "NAME", "what standard input is called as a source (default: text: and its hash)"},
	    {"kind", 0, CLI_CHOICE, &kind, "text|markdown|html", "how to read it (default: by the name's ending)"},
	    {"again", 0, CLI_FLAG, &again, NULL, "also read files that have not changed"},
	    {"keep-missing", 0, CLI_FLAG, &keep_missing, NULL, "keep what is remembered of files that are gone from a directory"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "remember",
	    .usage = "[OPTIONS] FILE|DIR|-...",
	    .summary = "Read text, Markdown and HTML into memory: cut into passages that know their file and lines, embedded, and "
		       "stored. A file that has "
		       "not changed is skipped; of a changed one only the changed passages are read again. Every file is stored as "
		       "a whole: "
		       "interrupted, what is finished is kept, and the same command goes on from there.",
	    .options = options,
	    .notes = "Directories are read recursively; hidden entries, symbolic links and binary files are left out. What was "
		     "remembered of files that are gone from a directory is forgotten. - is standard input.",
	    .examples = "ruvllm remember docs/\nruvllm remember --tag ops runbook.md notes.html\necho \"The backup starts at "
			"02:00.\" | ruvllm remember --name backup-note -",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	cli_args args;
	watch w = {0};
	ruv_remember_result sum = {0}, one;
	ruv_remember_params params = {0};
	ruv_error err = {0};
	ruv_runtime *runtime;
	int code, rc = RUV_OK;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	cli_interrupt_catch();
	params.kind = kind;
	params.tags = tags.items;
	params.n_tags = tags.n;
	params.domain = domain;
	params.again = again;
	params.keep_missing = keep_missing;
	params.cancel = &cli_cancel;
	params.on_progress = on_progress;
	params.on_file = on_file;
	params.user = &w;
	if (cli.json)
		w.files = json_array();
	for (int i = 0; i < args.n && !rc; i++) {
		bool is_stdin = !strcmp(args.items[i], "-");
		char *text = is_stdin ? read_stdin(&params.n_bytes) : NULL;

		cli_progress_begin(&w.progress, "reading", "B", 0);
		params.path = is_stdin ? NULL : args.items[i];
		params.text = text;
		params.name = is_stdin ? name : NULL;
		if (is_stdin && !text) {
			rc = ruv_fail(&err, RUV_ELIMIT, "cli", "standard input is larger than 256 MiB");
		} else {
			rc = ruv_remember(runtime, &params, &one, &err);
			add_up(&sum, &one);
		}
		cli_progress_end(&w.progress, false);
		free(text);
	}
	if (rc)
		code = cli_runtime_fail(&err);
	else
		code = sum.n_failed ? CLI_EXIT_FAILED : CLI_EXIT_OK;
	if (cli.json && !rc) {
		int printed = cli_json_print(json_pack(
		    "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:O}", "files", sum.n_files, "added",
		    sum.n_added, "updated", sum.n_updated, "unchanged", sum.n_unchanged, "skipped", sum.n_skipped, "failed",
		    sum.n_failed, "forgotten", sum.n_forgotten, "passages_added", sum.n_passages_added, "passages_kept",
		    sum.n_passages_kept, "passages_removed", sum.n_passages_removed, "passages_embedded", sum.n_embedded, "bytes",
		    (json_int_t)sum.n_bytes, "seconds", sum.seconds, "details", w.files));

		code = printed ? printed : code;
	} else if (!cli.json && sum.n_files && (!cli.quiet || rc)) {
		print_sum(&sum);
	}
	json_decref(w.files);
	ruv_runtime_free(runtime);
	return code;
}

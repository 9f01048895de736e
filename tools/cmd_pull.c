/* cmd_pull.c - ruvllm pull: fetches a model from a hub (or an address) into the models directory, where --model finds it by name.
 */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli_runtime.h"
#include "runtime/hub.h"
#include "runtime/models.h"
#include "ruvllm/model.h"

enum { MAX_VARIANTS = 512 };

typedef struct pull {
	const ruv_settings *settings;
	const char *token;
	ruv_hub_name name;
	ruv_hub_file *files;
	int n_files;
	ruv_hub_variant variants[MAX_VARIANTS];
	int n_variants, chosen;
	cli_progress progress;
	bool shows; /* the progress has begun */
	const char *label;
} pull;

static bool list_only, force;
static const char *revision, *sha256;
static int n_retries = 5;

static void on_progress(void *user, uint64_t n_done, uint64_t n_bytes)
{
	pull *p = user;

	if (!p->shows) {
		cli_progress_begin(&p->progress, p->label, "B", n_bytes == UINT64_MAX ? 0 : n_bytes);
		p->progress.first = n_done;
		p->shows = true;
	}
	p->progress.total = n_bytes == UINT64_MAX ? 0 : n_bytes;
	cli_progress_update(&p->progress, n_done, NULL);
}

static void on_note(void *user, const char *text)
{
	pull *p = user;

	cli_progress_end(&p->progress, false);
	p->shows = false;
	cli_note("%s", text);
}

static int fail(const ruv_error *err)
{
	const char *next = NULL;

	if (err->code == RUV_ECANCELLED)
		next = "the same command goes on where it stopped";
	else if (err->code == RUV_EBUSY && !strstr(err->message, "another process"))
		next = "the same command tries again and goes on where it stopped";
	return cli_fail(err, next);
}

/* ---- --list ------------------------------------------------------------------------------------------------------------ */

static int show_list(const pull *p)
{
	int by_default = -1;

	if (ruv_hub_choose(&by_default, "", p->files, p->variants, p->n_variants, p->name.repo, NULL))
		by_default = -1;
	if (cli.json) {
		json_t *list = json_array();

		for (int i = 0; i < p->n_variants; i++) {
			const ruv_hub_variant *v = &p->variants[i];

			json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:I, s:b, s:b}", "type", v->quant, "file",
			                                      p->files[v->first].path, "files", v->n_files, "bytes",
			                                      (json_int_t)v->n_bytes, "complete", v->complete, "default",
			                                      i == by_default));
		}
		return cli_json_print(
		    json_pack("{s:s, s:s, s:o}", "repository", p->name.repo, "revision", p->name.revision, "models", list));
	}
	cli_table *table = cli_table_create("type|>size|file|");

	for (int i = 0; table && i < p->n_variants; i++) {
		const ruv_hub_variant *v = &p->variants[i];
		char bytes[32];

		cli_table_cell(table, "%s", *v->quant ? v->quant : "-");
		cli_table_cell(table, "%s", cli_human_bytes(bytes, sizeof bytes, v->n_bytes));
		cli_table_cell(table, "%s", p->files[v->first].path);
		if (!v->complete)
			cli_table_cell(table, "parts are missing");
		else if (v->n_files > 1)
			cli_table_cell(table, "and %d more parts%s", v->n_files - 1, i == by_default ? ", the default" : "");
		else
			cli_table_cell(table, "%s", i == by_default ? "the default" : "");
	}
	if (table)
		cli_table_print(table, stdout);
	if (!p->n_variants)
		cli_note("%s has no GGUF file", p->name.repo);
	return CLI_EXIT_OK;
}

/* ---- fetching ---------------------------------------------------------------------------------------------------------- */

/* One file; its outcome is appended to `outcomes`. */
static int fetch_file(pull *p, const char *url, const char *path, const ruv_hub_file *file, uint64_t n_more, json_t *outcomes,
                      ruv_error *err)
{
	const char *slash = strrchr(path, '/');
	ruv_hub_download download = {.url = url,
	                             .path = path,
	                             .token = p->token,
	                             .sha256 = file ? file->sha256 : sha256,
	                             .n_bytes = file ? file->n_bytes : UINT64_MAX,
	                             .n_more = n_more,
	                             .n_retries = n_retries,
	                             .replace = force,
	                             .cancel = &cli_cancel,
	                             .on_progress = on_progress,
	                             .on_note = on_note,
	                             .user = p};
	ruv_hub_result result;
	int rc;

	if (file && sha256 && *file->sha256 && strcmp(sha256, file->sha256))
		return ruv_fail(err, RUV_EMISMATCH, "pull", "the hub says that %s has the SHA-256 %.16s..., and you %.16s...",
		                file->path, file->sha256, sha256);
	if (file && sha256)
		download.sha256 = sha256;
	p->label = slash ? slash + 1 : path;
	p->shows = false;
	rc = ruv_hub_fetch(&download, &result, err);
	if (p->shows)
		cli_progress_end(&p->progress, !rc);
	if (rc)
		return rc;
	if (result.present)
		cli_note("%s is there already, with the right sum", path);
	json_array_append_new(outcomes, json_pack("{s:o, s:s, s:s, s:b, s:I, s:I}", "path", cli_json_text(path), "outcome",
	                                          result.present    ? "present"
	                                          : result.replaced ? "replaced"
	                                                            : "fetched",
	                                          "sha256", result.sha256, "checked", result.checked, "bytes",
	                                          (json_int_t)result.n_bytes, "resumed", (json_int_t)result.n_resumed));
	return RUV_OK;
}

/* What the files are worth here, and how to use them. */
static int report(const char *path, const char *name, json_t *outcomes)
{
	const ruv_model_options options = {.n_threads = 1, .n_batch = 1};
	ruv_model *model = NULL;
	ruv_model_info info = {0};
	ruv_error err = {0};
	bool checked = true, runs = !ruv_model_open(&model, path, &options, &err);
	char params[32];
	json_t *entry;
	size_t i;
	int code = CLI_EXIT_OK;

	json_array_foreach(outcomes, i, entry) checked = checked && json_is_true(json_object_get(entry, "checked"));
	if (runs)
		ruv_model_get_info(model, &info);
	if (cli.json) {
		code = cli_json_print(json_pack("{s:o, s:o, s:b, s:o, s:b, s:O}", "model", cli_json_text(name), "path",
		                                cli_json_text(path), "runs", runs, "refusal",
		                                cli_json_text(runs ? "" : err.message), "checked", checked, "files", outcomes));
	} else {
		printf("%s\n", path);
		if (!checked)
			cli_note(
			    "the server names no SHA-256, so only the size was checked; give it with --sha256 where you know it");
		if (runs)
			printf("runs here: %s, %s parameters, %s\nuse it: ruvllm chat --model %s\n", info.architecture,
			       cli_human_count(params, sizeof params, (double)info.n_params), info.file_type, name);
		else
			printf("cannot run here: %s\n", err.message);
	}
	ruv_model_free(model);
	return code;
}

static int pull_repository(pull *p, const char *dir)
{
	const ruv_hub_name *n = &p->name;
	json_t *outcomes = json_array();
	char path[8400], first[8400] = "", name[520];
	ruv_error err = {0};
	int code, rc;

	rc = ruv_hub_list(&p->files, &p->n_files, p->settings->hub, p->token, n->repo, n->revision, &cli_cancel, &err);
	if (!rc)
		p->n_variants = ruv_hub_group(p->files, p->n_files, p->variants, MAX_VARIANTS);
	if (!rc && list_only) {
		code = show_list(p);
		goto done;
	}
	if (!rc)
		rc = ruv_hub_choose(&p->chosen, n->want, p->files, p->variants, p->n_variants, n->repo, &err);
	const ruv_hub_variant *v = &p->variants[p->chosen];
	uint64_t n_more = v->n_bytes;

	if (!rc && sha256 && v->n_files > 1)
		rc = ruv_fail(&err, RUV_EINVAL, "pull", "--sha256 is of one file, but %s has %d", p->files[v->first].path,
		              v->n_files);
	for (int i = 0; !rc && i < v->n_files; i++) {
		const ruv_hub_file *file = &p->files[v->first + i];
		char *url = ruv_hub_file_url(p->settings->hub, n->repo, n->revision, file->path);

		snprintf(path, sizeof path, "%s/%s/%s", dir, n->repo, file->path);
		if (!i)
			strcpy(first, path);
		n_more -= file->n_bytes;
		rc = url ? fetch_file(p, url, path, file, n_more, outcomes, &err) : ruv_fail_memory(&err, "pull", 8192);
		free(url);
	}
	if (rc) {
		code = fail(&err);
	} else {
		int same = 0;

		for (int i = 0; i < p->n_variants; i++)
			same += !strcmp(p->variants[i].quant, v->quant);
		snprintf(name, sizeof name, "%s:%s", n->repo, same == 1 && *v->quant ? v->quant : p->files[v->first].path);
		code = report(first, name, outcomes);
	}
done:
	json_decref(outcomes);
	return code;
}

static int pull_address(pull *p, const char *dir)
{
	json_t *outcomes = json_array();
	char path[8400];
	ruv_error err = {0};
	int code, rc = RUV_OK;

	if (list_only)
		rc = ruv_fail(&err, RUV_EINVAL, "pull", "--list is of a repository; %.200s is a file", p->name.url);
	p->token = NULL; /* it is the hub's */
	snprintf(path, sizeof path, "%s/%s", dir, p->name.want);
	if (!rc)
		rc = fetch_file(p, p->name.url, path, NULL, 0, outcomes, &err);
	code = rc ? fail(&err) : report(path, p->name.want, outcomes);
	json_decref(outcomes);
	return code;
}

int cmd_pull(int argc, char **argv)
{
	static const cli_option options[] = {
	    {"list", 'l', CLI_FLAG, &list_only, NULL, "list the repository's models and fetch nothing"},
	    {"revision", 0, CLI_STRING, &revision, "NAME", "a branch, tag or commit of the repository (default main)"},
	    {"sha256", 0, CLI_STRING, &sha256, "HEX", "what the file's SHA-256 must be, where the server does not say"},
	    {"force", 'f', CLI_FLAG, &force, NULL, "fetch again a file that is there and has no sum to compare it with"},
	    {"retries", 0, CLI_INT, &n_retries, "N", "tries in a row without a byte of progress before it gives up (default 5)"},
	    {0},
	};
	static const cli_spec spec = {
	    .name = "pull",
	    .usage = "[OPTIONS] USER/REPO[:TYPE|:FILE]|URL",
	    .summary =
		"Fetch a GGUF model from a hub into the models directory, where --model finds it by the same name. Without a type "
		"Q4_K_M is taken, or what there is. What was interrupted goes on where it stopped; a file appears only when it "
		"is whole and has the right SHA-256. HF_TOKEN in the environment is sent to the hub, and to nobody else.",
	    .options = options,
	    .examples = "ruvllm pull LiquidAI/LFM2-350M-GGUF\nruvllm pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0\n"
			"ruvllm pull LiquidAI/LFM2-350M-GGUF --list\nruvllm chat --model LiquidAI/LFM2-350M-GGUF",
	    .notes = "The directory is --models-dir, else models/ in the data directory.",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	static pull p; /* large */
	ruv_settings settings;
	ruv_config *config;
	ruv_error err = {0};
	char dir[4200];
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	config = cli_config(&code);
	if (!config)
		return code;
	rc = ruv_config_settings(config, &settings, &err);
	if (!rc)
		rc = ruv_hub_name_parse(&p.name, args.items[0], settings.hub, &err);
	if (rc)
		return cli_fail(&err, NULL);
	if (revision && strlen(revision) >= sizeof p.name.revision)
		return cli_usage("--revision: '%.100s...' is too long", revision);
	if (revision)
		strcpy(p.name.revision, revision);
	p.settings = &settings;
	p.token = getenv("HF_TOKEN");
	cli_interrupt_catch();
	ruv_models_own_dir(&settings, dir, sizeof dir);
	code = *p.name.repo ? pull_repository(&p, dir) : pull_address(&p, dir);
	ruv_hub_files_free(p.files, p.n_files);
	return code;
}

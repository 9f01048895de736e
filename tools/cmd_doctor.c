/* cmd_doctor.c - ruvllm doctor: what this machine offers, which models are there and whole, and whether memory is sound.
 *
 * Every finding is a line: ok, note (works, but you should know) or problem (something will fail; the line says what to do). The
 * exit code is 1 when there is a problem. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cpu.h"
#include "cli_runtime.h"
#include "machine.h"

typedef struct doctor {
	json_t *findings; /* with --json */
	int n_problems;
} doctor;

typedef enum finding { OK, NOTE, PROBLEM } finding;

static void RUV_PRINTF(4, 5) report(doctor *d, finding kind, const char *what, const char *fmt, ...)
{
	static const char *const names[] = {"ok", "note", "problem"};
	static const cli_style styles[] = {CLI_GREEN, CLI_YELLOW, CLI_RED};
	char text[2048];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	d->n_problems += kind == PROBLEM;
	if (d->findings)
		json_array_append_new(
		    d->findings, json_pack("{s:s, s:s, s:o}", "about", what, "verdict", names[kind], "text", cli_json_text(text)));
	else
		printf("%s%-8s%s %-9s %s\n", cli_sgr(stdout, styles[kind]), names[kind], cli_sgr(stdout, CLI_PLAIN), what, text);
}

/* A number of /proc/meminfo in bytes, 0 when it is not there. */
static uint64_t meminfo(const char *key)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long n = 0;
	size_t len = strlen(key);

	while (file && fgets(line, sizeof line, file))
		if (!strncmp(line, key, len) && line[len] == ':')
			n = strtoull(line + len + 1, NULL, 10);
	if (file)
		fclose(file);
	return n * 1024;
}

static void look_at_machine(doctor *d, ruv_runtime *runtime)
{
	const ruv_cpu *cpu = ruv_cpu_get();
	ruv_engine *engine = NULL;
	ruv_error err = {0};
	char features[256], total[32], free_text[32], l2[32], l3[32];
	uint64_t available = meminfo("MemAvailable");

	report(d, OK, "cpu", "%s, %d cores; L2 %s, L3 %s", cpu->name, cpu->n_cores, cli_human_bytes(l2, sizeof l2, cpu->l2_bytes),
	       cli_human_bytes(l3, sizeof l3, cpu->l3_bytes));
	report(d, OK, "cpu", "can do: %s", ruv_cpu_features(cpu, features, sizeof features));
	if (ruv_runtime_engine(runtime, &engine, &err))
		report(d, PROBLEM, "backend", "%s", err.message);
	else
		report(d, OK, "backend", "%s", ruv_engine_describe(engine));
	report(d, available < ((uint64_t)512 << 20) ? NOTE : OK, "memory", "%s of %s available",
	       cli_human_bytes(free_text, sizeof free_text, available), cli_human_bytes(total, sizeof total, meminfo("MemTotal")));
}

/* How fast it reads memory and multiplies: the bound of every model's speed on it. */
static void look_at_speed(doctor *d, ruv_runtime *runtime)
{
	ruv_engine *engine = NULL;
	machine m;
	ruv_error err = {0};

	if (ruv_runtime_engine(runtime, &engine, &err) || machine_measure(&m, ruv_engine_n_threads(engine), &err)) {
		report(d, PROBLEM, "speed", "%s", err.message);
		return;
	}
	report(d, OK, "speed",
	       "memory read at %.1f GB/s, %.0f GFLOP/s in F32, %.0f GOP/s on bytes (%d threads); a model of 1 GB writes at most "
	       "%.0f tokens/s",
	       m.all.read_bytes * 1e-9, m.all.f32_ops * 1e-9, m.all.int8_ops * 1e-9, m.n_threads, m.all.read_bytes * 1e-9);
}

/* A role ("l", "encoder") or a file; a model that nothing uses by default may be absent. */
static void look_at_model(doctor *d, ruv_runtime *runtime, const char *role, bool needed)
{
	bool is_encoder = !strcmp(role, "encoder");
	const char *about = strchr(role, '/') || strstr(role, ".gguf") ? "model" : role;
	char path[4096], bytes[32], params[32];
	ruv_model_options options = {0};
	ruv_model *model = NULL;
	ruv_model_info info;
	ruv_error err = {0};
	int rc = ruv_runtime_find_model(runtime, role, path, sizeof path, &err);

	if (rc) {
		report(d, needed ? PROBLEM : NOTE, about, "%s; set --%s%s FILE or --models-dir DIR", err.message,
		       is_encoder ? "" : "model-", !strcmp(about, "model") ? "l" : role);
		return;
	}
	/* The runtime's own way of opening checks the file's SHA-256 where a list is beside it. */
	if (is_encoder) {
		ruv_embedder *embedder;

		rc = ruv_runtime_embedder(runtime, &embedder, &err);
		if (!rc)
			rc = ruv_runtime_engine(runtime, &options.engine, &err);
		if (!rc)
			rc = ruv_model_open(&model, path, &options, &err);
	} else {
		rc = ruv_runtime_model(runtime, role, &model, &err);
	}
	if (rc) {
		report(d, PROBLEM, about, "%s", err.message);
		return;
	}
	ruv_model_get_info(model, &info);
	report(d, OK, about, "%s (%s, %s, %s parameters, %s, context %d): %s", info.name, info.architecture, info.file_type,
	       cli_human_count(params, sizeof params, (double)info.n_params), cli_human_bytes(bytes, sizeof bytes, info.n_bytes),
	       info.n_ctx_train, path);
	if (is_encoder)
		ruv_model_free(model);
}

typedef struct store_watch {
	doctor *doctor;
	int n;
} store_watch;

static bool on_store_problem(void *user, const char *problem)
{
	store_watch *watch = user;

	if (++watch->n <= 10)
		report(watch->doctor, PROBLEM, "store", "%s", problem);
	return true;
}

static void look_at_store(doctor *d, ruv_runtime *runtime)
{
	const char *dir = ruv_runtime_data_dir(runtime);
	ruv_memory *memory;
	ruv_memory_stats stats;
	ruv_memory_report checked;
	store_watch watch = {d, 0};
	ruv_error err = {0};
	struct statvfs disk;
	char text[32];
	int rc = ruv_runtime_memory_if_any(runtime, &memory, &err);

	if (rc == RUV_ENOTFOUND) {
		report(d, NOTE, "store", "%s holds no memory yet; `ruvllm remember FILE|DIR` makes it", dir);
		return;
	}
	if (!rc)
		rc = ruv_memory_get_stats(memory, &stats, &err);
	if (rc) {
		report(d, PROBLEM, "store", "%s", err.message);
		return;
	}
	report(d, OK, "store", "%s: %lld passages from %lld sources, %lld vectors, %s on disk", dir, (long long)stats.n_nodes,
	       (long long)stats.n_sources, (long long)stats.n_vectors,
	       cli_human_bytes(text, sizeof text, (uint64_t)stats.database_bytes));
	if (stats.n_without_vector)
		report(d, NOTE, "store",
		       "%lld passages have no vector and are found by words only; `ruvllm memory reembed` gives them one",
		       (long long)stats.n_without_vector);
	rc = ruv_memory_check(memory, &checked, false, on_store_problem, &watch, &err);
	if (rc)
		report(d, PROBLEM, "store", "%s", err.message);
	else if (checked.n_problems == 0)
		report(d, OK, "store", "sound: pages, checksums, edges and word index agree");
	else
		report(d, PROBLEM, "store", "%d problems; `ruvllm memory verify --repair` repairs what can be made again",
		       checked.n_problems);
	if (statvfs(dir, &disk) == 0) {
		uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;

		report(d, room < ((uint64_t)64 << 20) ? PROBLEM : OK, "disk", "%s free for %s",
		       cli_human_bytes(text, sizeof text, room), dir);
	}
	/* Does the encoder that is configured belong to this store? */
	rc = ruv_runtime_memory(runtime, &memory, &err);
	if (rc == RUV_EMISMATCH)
		report(d, PROBLEM, "store", "%s", err.message);
}

int cmd_doctor(int argc, char **argv)
{
	static bool quick;
	static const cli_option options[] = {{"quick", 0, CLI_FLAG, &quick, NULL, "do not measure the machine's speed (a second)"},
	                                     {0}};
	static const cli_spec spec = {
	    .name = "doctor",
	    .options = options,
	    .usage = "[OPTIONS]",
	    .summary = "Look at this installation: the processor and what is used of it, memory, the configuration, every model "
		       "with its checksum, the store "
		       "and the disk. Ends with 1 when something will not work, and says what to do.",
	    .notes = "`ruvllm bench` measures the machine and the models.",
	    CLI_CONFIG_OPTIONS,
	};
	static const char *const tiers[] = {"l", "m", "s"};
	const char *model;
	cli_args args;
	doctor d = {0};
	ruv_runtime *runtime;
	ruv_config *config;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	config = cli_config(&code);
	if (!config)
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	if (cli.json)
		d.findings = json_array();
	report(&d, OK, "version", "ruvllm %s", ruv_version());
	report(&d, OK, "config", "%s",
	       *ruv_config_file(config) ? ruv_config_file(config) : "no file; defaults, environment and flags only");
	look_at_machine(&d, runtime);
	if (!quick)
		look_at_speed(&d, runtime);
	model = ruv_config_value(config, ruv_config_key_find("model"), NULL, NULL);
	look_at_model(&d, runtime, model, true);
	for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
		if (strcmp(tiers[i], model))
			look_at_model(&d, runtime, tiers[i], false);
	look_at_model(&d, runtime, "encoder", true);
	look_at_store(&d, runtime);
	ruv_runtime_free(runtime);
	code = d.n_problems ? CLI_EXIT_FAILED : CLI_EXIT_OK;
	if (cli.json) {
		int printed = cli_json_print(json_pack("{s:i, s:o}", "problems", d.n_problems, "findings", d.findings));

		return printed ? printed : code;
	}
	if (d.n_problems)
		printf("\n%d %s.\n", d.n_problems, d.n_problems == 1 ? "problem" : "problems");
	else
		printf("\nAll is well.\n");
	return code;
}

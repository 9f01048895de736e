/* cmd_router_train.c - `ruvllm router classify`, `train`, `eval` and `bench`: making a router file and saying what it is worth. */
#include "cmd_router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "cli_runtime.h"
#include "learn/section_file.h"
#include "ruvllm/router.h"
#include "runtime/eval_data.h"

/* ---- classify ---------------------------------------------------------------------------------------------------------- */

static const char class_kind[8] = "RUVTEXTC";

int cmd_router_read_classes(ruv_textclass **classes, const char *path, char **bytes, size_t *n_bytes, ruv_error *err)
{
	ruv_section_file file;
	const void *section;
	int rc = ruv_section_open(&file, path, class_kind, 1, err);

	if (rc)
		return rc;
	section = ruv_section_find(&file, "classes", n_bytes);
	*bytes = section ? malloc(*n_bytes) : NULL;
	if (!section)
		rc = ruv_fail(err, RUV_EFORMAT, "router", "%s has no section 'classes'", path);
	else if (!*bytes)
		rc = ruv_fail_memory(err, "router", *n_bytes);
	if (!rc) {
		memcpy(*bytes, section, *n_bytes);
		rc = ruv_textclass_unpack(classes, section, *n_bytes, err);
	}
	ruv_section_release(&file);
	return rc;
}

int cmd_router_write_classes(const ruv_textclass *classes, const char *path, ruv_error *err)
{
	ruv_section_writer writer;
	char *bytes = NULL;
	size_t n_bytes;
	int rc = ruv_textclass_pack(classes, &bytes, &n_bytes, err);

	if (rc)
		return rc;
	ruv_section_writer_init(&writer);
	rc = ruv_section_put(&writer, "classes", bytes, n_bytes, err);
	if (!rc)
		rc = ruv_section_commit(&writer, class_kind, 1, path, err);
	ruv_section_writer_release(&writer);
	free(bytes);
	return rc;
}

/* Labelled texts: {"text", "language", "domain", "type"}, labels optional. */
static int read_labels(const char *path, ruv_textclass_example **out, int *n, char **text, ruv_error *err)
{
	ruv_textclass_example *examples = NULL;
	int cap = 0, line = 0, rc;
	size_t n_bytes;
	char *at, *end;

	*n = 0;
	rc = ruv_eval_text_read(text, &n_bytes, path, err);
	if (rc)
		return rc;
	for (at = *text; *at && !rc; at = end + (*end != 0)) {
		json_t *row;
		const char *words;
		ruv_textclass_example example = {.labels = {-1, -1, -1}};

		end = strchr(at, '\n');
		end = end ? end : at + strlen(at);
		line++;
		row = json_loadb(at, (size_t)(end - at), 0, NULL);
		words = json_string_value(json_object_get(row, "text"));
		if (!words) {
			rc = ruv_fail(err, RUV_EFORMAT, "router", "%s:%d: no object with a \"text\"", path, line);
		} else {
			for (int head = 0; !rc && head < RUV_N_TEXTCLASS_HEADS; head++) {
				const char *label = json_string_value(json_object_get(row, ruv_textclass_head_name(head)));

				example.labels[head] = label ? ruv_textclass_parse(head, label) : -1;
				if (label && example.labels[head] < 0)
					rc = ruv_fail(err, RUV_EFORMAT, "router", "%s:%d: there is no %s '%s'", path, line,
					              ruv_textclass_head_name(head), label);
			}
			if (*n == cap) {
				ruv_textclass_example *more =
				    realloc(examples, sizeof *more * (size_t)(cap = cap ? 2 * cap : 4096));

				if (!more)
					rc = ruv_fail_memory(err, "router", sizeof *more * (size_t)cap);
				else
					examples = more;
			}
			if (!rc) {
				example.text = strdup(words);
				examples[(*n)++] = example;
				if (!example.text)
					rc = ruv_fail_memory(err, "router", strlen(words));
			}
		}
		json_decref(row);
	}
	*out = examples;
	return rc;
}

int cmd_router_classify(int argc, char **argv)
{
	static const char *train, *file;
	static int64_t seed = 1;
	static const cli_option options[] = {
	    {"train", 0, CLI_STRING, &train, "LABELS",
	     "train on labelled texts (bench/make_text_labels.py makes them) and write FILE"},
	    {"file", 'f', CLI_STRING, &file, "FILE", "classifier file to write or use (default: the bundled router's)"},
	    {"seed", 0, CLI_INT64, &seed, "N", "seed of training (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router classify",
	    .usage = "[OPTIONS] [TEXT]...",
	    .summary =
		"Say language, domain and kind of texts, or train the three linear classifiers that do; a tenth of the labelled "
		"texts is held out and measured.",
	    .options = options,
	    .examples =
		"ruvllm router classify 'Wie spät ist es in Tokio?'\nruvllm router classify --train labels.jsonl -f classes.bin",
	    .min_args = 0,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_textclass *classes = NULL;
	ruv_textclass_example *examples = NULL;
	double accuracy[RUV_N_TEXTCLASS_HEADS];
	int code, n = 0, held[RUV_N_TEXTCLASS_HEADS], rc = RUV_OK;
	ruv_router_weights *weights = NULL;
	char *text = NULL, *bytes = NULL, path[4096];
	size_t n_bytes;
	ruv_error err = {0};
	cli_args args;
	json_t *rows = NULL;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (train && !file)
		return cli_usage("--train needs --file, where to write the classifiers");
	if (!train && !args.n)
		return cli_usage("a text is missing");
	if (train) {
		rc = read_labels(train, &examples, &n, &text, &err);
		if (!rc)
			rc = ruv_textclass_train(&classes, examples, n, 10, (uint64_t)seed, accuracy, held, &err);
		if (!rc)
			rc = cmd_router_write_classes(classes, file, &err);
		if (!rc && cli.json) {
			json_t *report = json_pack("{s:s, s:i}", "file", file, "texts", n);

			for (int h = 0; h < RUV_N_TEXTCLASS_HEADS; h++)
				json_object_set_new(report, ruv_textclass_head_name(h),
				                    json_pack("{s:f, s:i}", "accuracy", accuracy[h], "held_out", held[h]));
			cli_json_print(report);
		} else if (!rc) {
			for (int h = 0; h < RUV_N_TEXTCLASS_HEADS; h++)
				printf("%-9s %2d classes: %.1f %% of %d held-out texts\n", ruv_textclass_head_name(h),
				       ruv_textclass_n_classes(h), 100 * accuracy[h], held[h]);
		}
	} else if (file) {
		rc = cmd_router_read_classes(&classes, file, &bytes, &n_bytes, &err);
	} else {
		if (!cmd_router_file(path, sizeof path, &code))
			return code;
		rc = ruv_router_weights_read(&weights, path, true, &err);
		if (!rc && !weights->classes)
			rc = ruv_fail(&err, RUV_EFORMAT, "router", "%s has no text classifiers", path);
	}
	if (!rc && cli.json && !train)
		rows = json_array();
	for (int i = 0; !rc && i < args.n; i++) {
		const ruv_textclass *use = classes ? classes : weights->classes;
		json_t *row = rows ? json_pack("{s:o}", "text", cli_json_text(args.items[i])) : NULL;

		for (int h = 0; h < RUV_N_TEXTCLASS_HEADS; h++) {
			float p[RUV_TEXTCLASS_MAX_CLASSES];
			int best = 0;

			ruv_textclass_apply(use, h, args.items[i], strlen(args.items[i]), p);
			for (int c = 1; c < ruv_textclass_n_classes(h); c++)
				best = p[c] > p[best] ? c : best;
			if (row)
				json_object_set_new(
				    row, ruv_textclass_head_name(h),
				    json_pack("{s:s, s:f}", "class", ruv_textclass_name(h, best), "probability", (double)p[best]));
			else
				printf("%s%s %s (%.2f)", h ? ", " : "", ruv_textclass_head_name(h), ruv_textclass_name(h, best),
				       (double)p[best]);
		}
		if (row)
			json_array_append_new(rows, row);
		else
			printf("\n");
	}
	code = rc ? cli_fail(&err, NULL) : rows ? cli_json_print(rows) : 0;
	for (int i = 0; i < n; i++)
		free((char *)examples[i].text);
	free(examples);
	free(text);
	free(bytes);
	ruv_textclass_free(classes);
	ruv_router_weights_free(weights);
	return code;
}

/* ---- train ------------------------------------------------------------------------------------------------------------- */

struct shown {
	cli_progress progress;
};

static bool show_epoch(void *user, int n_done, int n_total, double loss, double utility)
{
	struct shown *shown = user;
	char text[64];

	if (!shown->progress.active)
		cli_progress_begin(&shown->progress, "train", "epochs", (uint64_t)n_total);
	snprintf(text, sizeof text, "loss %.3f, utility %.3f", loss, utility);
	cli_progress_update(&shown->progress, (uint64_t)n_done, text);
	return !cli_interrupted;
}

int cmd_router_train(int argc, char **argv)
{
	static const char *out, *classes, *from;
	static int hidden = 48, rank = 16, epochs = 80;
	static double density = 0.3, mu = 0.3, lambda = 0.05, ewc = 1, regret = 0.05;
	static int64_t seed = 1;
	static bool shared;
	static const cli_option options[] = {
	    {"out", 'o', CLI_STRING, &out, "FILE", "the router file (required)"},
	    {"classes", 0, CLI_STRING, &classes, "FILE", "text classifiers of `router classify` (default: the bundled router's)"},
	    {"from", 0, CLI_STRING, &from, "FILE", "go on from this router, held back by EWC"},
	    {"hidden", 0, CLI_INT, &hidden, "N", "hidden units, 32 to 64 (default 48)"},
	    {"rank", 0, CLI_INT, &rank, "N", "rank of the recurrent weights; -1: dense (default 16)"},
	    {"density", 0, CLI_DOUBLE, &density, "X", "share of input weights kept, 1: all (default 0.3)"},
	    {"shared", 0, CLI_FLAG, &shared, NULL, "one pair of weight matrices for both gates, as in the FastGRNN paper"},
	    {"mu", 0, CLI_DOUBLE, &mu, "X", "points of quality that a large answer's computation is worth (default 0.3)"},
	    {"lambda", 0, CLI_DOUBLE, &lambda, "X", "points of quality that a second is worth (default 0.05)"},
	    {"regret", 0, CLI_DOUBLE, &regret, "X",
	     "points of quality that the cascade may lose to always asking the largest tier (default 0.05)"},
	    {"ewc", 0, CLI_DOUBLE, &ewc, "X", "strength of EWC with --from (default 1)"},
	    {"epochs", 0, CLI_INT, &epochs, "N", "at most (default 80)"},
	    {"seed", 0, CLI_INT64, &seed, "N", "seed of the split and of training (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router train",
	    .usage = "[OPTIONS] -o ROUTER OUTCOMES...",
	    .summary =
		"Train the router on collected outcomes: FastGRNN by Adam, pruned and rounded to 8 bits, the neighbours' bank, the "
		"blend of both and the cascade's bounds, all chosen on articles that are not trained on.",
	    .options = options,
	    .examples = "ruvllm router train -o router.bin --classes classes.bin outcomes.jsonl",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	ruv_route_data data = {0};
	ruv_router_training training;
	ruv_router_weights *weights = NULL, *source = NULL;
	ruv_textclass *parsed = NULL;
	struct shown shown = {0};
	char *bytes = NULL, path[4096];
	size_t n_bytes = 0;
	ruv_error err = {0};
	cli_args args;
	int code, rc = RUV_OK, counts[RUV_N_ROUTE_PARTS] = {0};

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!out)
		return cli_usage("--out is missing");
	cli_interrupt_catch();
	if (classes) {
		rc = cmd_router_read_classes(&parsed, classes, &bytes, &n_bytes, &err);
	} else {
		if (!cmd_router_file(path, sizeof path, &code))
			return code;
		rc = ruv_router_weights_read(&source, path, true, &err);
	}
	for (int i = 0; !rc && i < args.n; i++)
		rc = ruv_route_data_read(&data, args.items[i], &err);
	training = (ruv_router_training){.hidden = hidden,
	                                 .rank = rank,
	                                 .density = density,
	                                 .shared = shared,
	                                 .mu = mu,
	                                 .lambda = lambda,
	                                 .regret = regret,
	                                 .ewc = ewc,
	                                 .n_epochs = epochs,
	                                 .seed = (uint64_t)seed,
	                                 .from = from,
	                                 .classes = source ? source->class_bytes : bytes,
	                                 .n_class_bytes = source ? source->n_class_bytes : n_bytes,
	                                 .progress = show_epoch,
	                                 .user = &shown};
	if (!rc) {
		ruv_route_data_split(&data, (uint64_t)seed);
		for (int i = 0; i < data.n; i++)
			counts[data.samples[i].part]++;
		rc = ruv_router_train(&weights, &data, &training, &err);
	}
	cli_progress_end(&shown.progress, false);
	if (!rc)
		rc = ruv_router_weights_write(weights, out, &err);
	if (rc)
		code = cli_fail(&err, NULL);
	else if (cli.json)
		code = cli_json_print(json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "file", out, "method",
		                                ruv_route_method_name(weights->head.method), "train", counts[RUV_PART_TRAIN], "new",
		                                counts[RUV_PART_NEW], "validation", counts[RUV_PART_VALIDATION], "test",
		                                counts[RUV_PART_TEST], "near_kappa", (double)weights->head.near_kappa, "near_band",
		                                (double)weights->head.near_band, "shrink", (double)weights->head.shrink,
		                                "min_confidence", (double)weights->head.min_confidence));
	else
		printf("%s: %s (the network counts %.2f, tier head %.1f; neighbours: kernel %.2f against %.1f of the means; safe "
		       "below %.2f); "
		       "trained on %d questions, settings from %d, %d and %d kept for `router eval`\n",
		       out, ruv_route_method_name(weights->head.method), (double)weights->head.shrink, (double)weights->head.share,
		       (double)weights->head.near_band, (double)weights->head.near_kappa, (double)weights->head.min_confidence,
		       counts[RUV_PART_TRAIN], counts[RUV_PART_VALIDATION], counts[RUV_PART_NEW], counts[RUV_PART_TEST]);
	free(bytes);
	ruv_textclass_free(parsed);
	ruv_router_weights_free(weights);
	ruv_router_weights_free(source);
	ruv_route_data_release(&data);
	return code;
}

/* ---- eval -------------------------------------------------------------------------------------------------------------- */

/* Cost to the right, quality upwards; the oracle is what could be had. */
static int draw_pareto(const char *path, const ruv_policy_result *results, const char *title, ruv_error *err)
{
	const double left = 70, top = 40, width = 520, height = 340;
	double low = 5, high = 1, widest = 1;
	ruv_outfile out;
	int rc = ruv_outfile_open(&out, path, err);

	if (rc)
		return rc;
	for (int p = 0; p < RUV_N_ROUTE_POLICIES; p++) {
		low = fmin(low, results[p].quality);
		high = fmax(high, results[p].quality);
		widest = fmax(widest, results[p].cost);
	}
	low -= 0.05;
	high += 0.05;
	widest *= 1.08;
	fprintf(out.stream,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 440\" font-family=\"sans-serif\" font-size=\"12\">\n"
	        "<rect width=\"640\" height=\"440\" fill=\"white\"/>\n<text x=\"%g\" y=\"24\" font-size=\"14\">%s</text>\n"
	        "<path d=\"M%g %gV%gH%g\" fill=\"none\" stroke=\"#444\"/>\n",
	        left, title, left, top, top + height, left + width);
	for (int i = 0; i <= 5; i++) {
		double x = left + width * i / 5, y = top + height - height * i / 5;

		fprintf(out.stream,
		        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"#444\">%.2f</text>\n<text x=\"%.1f\" y=\"%.1f\" "
		        "text-anchor=\"end\" fill=\"#444\">%.2f</text>\n",
		        x, top + height + 18, widest * i / 5, left - 8, y + 4, low + (high - low) * i / 5);
	}
	fprintf(out.stream,
	        "<text x=\"%g\" y=\"428\" text-anchor=\"middle\">cost (tokens x parameters, always-big = 1)</text>\n"
	        "<text x=\"18\" y=\"%g\" text-anchor=\"middle\" transform=\"rotate(-90 18 %g)\">mean quality (1 to 5)</text>\n",
	        left + width / 2, top + height / 2, top + height / 2);
	for (int p = 0; p < RUV_N_ROUTE_POLICIES; p++) {
		double x = left + width * results[p].cost / widest, y = top + height * (high - results[p].quality) / (high - low);
		const char *colour = p == RUV_POLICY_ROUTER || p == RUV_POLICY_CASCADE ? "#c03"
		                     : p == RUV_POLICY_ORACLE                          ? "#080"
		                                                                       : "#357";

		fprintf(out.stream, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
		        x, y, colour, x + 8, y + (p % 2 ? -6 : 12), ruv_route_policy_name(p));
	}
	fputs("</svg>\n", out.stream);
	rc = ruv_outfile_commit(&out, err);
	ruv_outfile_release(&out);
	return rc;
}

static json_t *policy_json(const ruv_policy_result *r, const ruv_route_data *data)
{
	json_t *shares = json_object();

	for (int t = 0; t < data->n_tiers; t++)
		json_object_set_new(shares, data->tiers[t].name, json_real(r->shares[t]));
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:[f,f], s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "accuracy", r->accuracy,
	                 "cheapest_good", r->cheapest_good, "as_good", r->as_good, "quality", r->quality, "quality_regret",
	                 r->quality_regret, "quality_regret_interval", r->regret_low, r->regret_high, "latency_ms", r->latency_ms,
	                 "latency_regret_ms", r->latency_regret_ms, "cost", r->cost, "cost_regret", r->cost_regret, "utility",
	                 r->utility, "escalated", r->escalated, "shares", shares);
}

static void print_part(const ruv_policy_result *results, ruv_route_part part, const ruv_route_data *data)
{
	cli_table *table = cli_table_create(
	    "policy|>oracle's tier|>cheapest good|>as good|>quality|>regret to big (95 %)|>latency ms|>to oracle|>cost|>to "
	    "oracle|>utility|tiers");

	printf("\n%s: %d questions\n", ruv_route_part_name(part), results[0].n);
	for (int p = 0; p < RUV_N_ROUTE_POLICIES && table; p++) {
		const ruv_policy_result *r = &results[p];
		char shares[96] = "";

		for (int t = 0; t < data->n_tiers; t++)
			snprintf(shares + strlen(shares), sizeof shares - strlen(shares), "%s%s %.0f%%", t ? " " : "",
			         data->tiers[t].name, 100 * r->shares[t]);
		cli_table_cell(table, "%s", ruv_route_policy_name(p));
		cli_table_cell(table, "%.1f %%", 100 * r->accuracy);
		cli_table_cell(table, "%.1f %%", 100 * r->cheapest_good);
		cli_table_cell(table, "%.1f %%", 100 * r->as_good);
		cli_table_cell(table, "%.3f", r->quality);
		cli_table_cell(table, "%.3f (%.3f..%.3f)", r->quality_regret, r->regret_low, r->regret_high);
		cli_table_cell(table, "%.0f", r->latency_ms);
		cli_table_cell(table, "%+.0f", r->latency_regret_ms);
		cli_table_cell(table, "%.3f", r->cost);
		cli_table_cell(table, "%+.1f %%", 100 * r->cost_regret);
		cli_table_cell(table, "%.3f", r->utility);
		cli_table_cell(table, "%s", shares);
	}
	cli_table_print(table, stdout);
}

int cmd_router_eval(int argc, char **argv)
{
	static const char *svg;
	static int64_t seed = 1;
	static double mu = -1, lambda = -1;
	static const cli_option options[] = {
	    {"svg", 0, CLI_STRING, &svg, "FILE", "draw quality over cost of the unseen articles"},
	    {"seed", 0, CLI_INT64, &seed, "N", "of the split: as in training (default 1)"},
	    {"mu", 0, CLI_DOUBLE, &mu, "X", "another price of computation than it was trained with"},
	    {"lambda", 0, CLI_DOUBLE, &lambda, "X", "another price of a second"},
	    {0}};
	static const cli_spec spec = {
	    .name = "router eval",
	    .usage = "[OPTIONS] OUTCOMES...",
	    .summary =
		"What routing is worth on collected outcomes, beside always-small, always-big, random, the neighbours alone, the "
		"network alone and the oracle: on questions that were trained on, new questions of the same articles, and articles "
		"that were never seen.",
	    .options = options,
	    .notes = "Quality is 1 + 4 F1 (a right refusal counts 5); cost is tokens x parameters with always-big's mean as 1; the "
		     "oracle knows "
		     "every tier's outcome and takes the greatest utility, quality - lambda * seconds - mu * cost.",
	    .examples = "ruvllm router eval outcomes.jsonl --svg pareto.svg",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	static ruv_policy_result results[RUV_N_ROUTE_PARTS][RUV_N_ROUTE_POLICIES];
	ruv_router_weights *weights = NULL;
	ruv_route_data data = {0};
	ruv_error err = {0};
	char path[4096];
	cli_args args;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!cmd_router_file(path, sizeof path, &code))
		return code;
	rc = ruv_router_weights_read(&weights, path, true, &err);
	for (int i = 0; !rc && i < args.n; i++)
		rc = ruv_route_data_read(&data, args.items[i], &err);
	if (!rc && (data.n_tiers != weights->head.n_tiers || data.dim != weights->basis.dim))
		rc = ruv_fail(&err, RUV_EMISMATCH, "router",
		              "%s was trained on %d tiers and embeddings of %d numbers, the outcomes have %d and %d", path,
		              weights->head.n_tiers, weights->basis.dim, data.n_tiers, data.dim);
	if (!rc && mu >= 0)
		weights->head.mu = (float)mu;
	if (!rc && lambda >= 0)
		weights->head.lambda = (float)lambda;
	if (!rc) {
		ruv_route_data_split(&data, (uint64_t)seed);
		ruv_route_data_prepare(&data, weights);
		for (int part = 0; part < RUV_N_ROUTE_PARTS; part++)
			ruv_route_evaluate(weights, &data, (ruv_route_part)part, results[part]);
	}
	if (!rc && svg)
		rc = draw_pareto(svg, results[RUV_PART_TEST], "Routing on articles that were never seen", &err);
	if (rc) {
		code = cli_fail(&err, NULL);
	} else if (cli.json) {
		json_t *parts = json_object();

		for (int part = 0; part < RUV_N_ROUTE_PARTS; part++) {
			json_t *policies = json_object();

			for (int p = 0; p < RUV_N_ROUTE_POLICIES; p++)
				json_object_set_new(policies, ruv_route_policy_name(p), policy_json(&results[part][p], &data));
			json_object_set_new(parts, ruv_route_part_name(part),
			                    json_pack("{s:i, s:o}", "questions", results[part][0].n, "policies", policies));
		}
		code = cli_json_print(json_pack("{s:s, s:s, s:f, s:f, s:o}", "router", path, "method",
		                                ruv_route_method_name(weights->head.method), "mu", (double)weights->head.mu,
		                                "lambda", (double)weights->head.lambda, "parts", parts));
	} else {
		printf("%s: %s, utility = quality - %.2g s - %.2g cost\n", path, ruv_route_method_name(weights->head.method),
		       (double)weights->head.lambda, (double)weights->head.mu);
		for (int part = 0; part < RUV_N_ROUTE_PARTS; part++)
			if (results[part][0].n)
				print_part(results[part], (ruv_route_part)part, &data);
	}
	ruv_router_weights_free(weights);
	ruv_route_data_release(&data);
	return code;
}

/* ---- bench ------------------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Median nanoseconds of a step, and the share of gate rows on which the tier head chooses as the F32 dense cell does. */
static int bench_form(const ruv_router_weights *w, const ruv_fastgrnn_shape *shape, const float *params, unsigned form, double *ns,
                      size_t *n_bytes, double *agreement, ruv_error *err)
{
	enum { N_RUNS = 2000 };
	static int64_t times[N_RUNS];
	ruv_fastgrnn_cell *cell;
	const float *heads = w->params + ruv_fastgrnn_n_params(&w->shape.cell);
	int rc = ruv_fastgrnn_cell_create(&cell, shape, params, form, err), same = 0;

	if (rc)
		return rc;
	for (int i = 0; i < N_RUNS; i++) {
		float state[RUV_ROUTE_MAX_HIDDEN] = {0};
		int64_t started = ruv_clock_now_ns();

		for (int j = 0; j < 8; j++)
			ruv_fastgrnn_cell_run(cell, w->gate[(i + j) % w->n_gate].x, state);
		times[i] = (ruv_clock_now_ns() - started) / 8;
	}
	qsort(times, N_RUNS, sizeof *times, by_time);
	for (int i = 0; i < w->n_gate; i++) {
		float one[RUV_ROUTE_MAX_HIDDEN] = {0}, other[RUV_ROUTE_MAX_HIDDEN] = {0};
		ruv_router_outputs a, b;
		int best[2] = {0};

		ruv_fastgrnn_step(&w->shape.cell, w->params, w->gate[i].x, one, one, NULL);
		ruv_fastgrnn_cell_run(cell, w->gate[i].x, other);
		ruv_router_heads(&w->shape, heads, one, &a);
		ruv_router_heads(&w->shape, heads, other, &b);
		for (int t = 1; t < w->head.n_tiers; t++) {
			best[0] = a.tiers[t] > a.tiers[best[0]] ? t : best[0];
			best[1] = b.tiers[t] > b.tiers[best[1]] ? t : best[1];
		}
		same += best[0] == best[1];
	}
	*ns = (double)times[N_RUNS / 2];
	*n_bytes = ruv_fastgrnn_cell_bytes(cell);
	*agreement = w->n_gate ? (double)same / w->n_gate : 0;
	ruv_fastgrnn_cell_free(cell);
	return RUV_OK;
}

/* The same network with U multiplied out: what low rank saves. */
static float *multiplied_out(const ruv_router_weights *w, ruv_fastgrnn_shape *shape)
{
	const ruv_fastgrnn_shape *low = &w->shape.cell;
	int n_w = ruv_fastgrnn_n_input_weights(low), h = low->hidden, r = low->rank, gates = low->shared ? 1 : 2;
	float *params;

	*shape = *low;
	shape->rank = 0;
	params = calloc((size_t)ruv_fastgrnn_n_params(shape), sizeof *params);
	if (!params)
		return NULL;
	memcpy(params, w->params, sizeof *params * (size_t)n_w);
	for (int g = 0; g < gates; g++) {
		const float *a = w->params + n_w + g * 2 * h * r, *b = a + h * r;
		float *u = params + n_w + g * h * h;

		for (int i = 0; i < h; i++)
			for (int j = 0; j < h; j++)
				for (int k = 0; k < r; k++)
					u[i * h + j] += a[i * r + k] * b[k * h + j];
	}
	memcpy(params + n_w + gates * h * h, w->params + n_w + gates * 2 * h * r, sizeof *params * (size_t)(2 * h + 2));
	return params;
}

/* A made-up but complete question of ten hits: features read all of it. */
static void fill_question(ruv_route_input *input, ruv_route_hit *hits, float *vectors, int dim, ruv_route_system *system, int turn)
{
	static const char *const texts[] = {"Which of the two treaties ended the war, and who signed it for the northern states?",
	                                    "How many points did the defense give up in the whole season?",
	                                    "Write a function that parses dates like 2024-05-01 and rejects anything else.",
	                                    "Where do the rivers meet?"};
	static const char passage[] =
	    "The treaty was signed in the spring after long negotiations between the northern states and the crown. Its second "
	    "part, which "
	    "dealt with the rivers and the trade along them, was not ratified for another seven years, and the defense of the "
	    "border was "
	    "left to the towns. In the season that followed the first harvest the points of dispute were settled one by one, most "
	    "of them "
	    "in favour of the states; the delegates signed each page, and a copy was kept in every town hall along the two rivers.";
	ruv_rng rng;

	ruv_rng_init(&rng, (uint64_t)turn + 1);
	for (int i = 0; i < 11 * dim; i++)
		vectors[i] = (float)ruv_rng_normal(&rng);
	for (int i = 0; i < 10; i++)
		hits[i] = (ruv_route_hit){.text = passage,
		                          .source = i % 3 ? "a.md" : "b.md",
		                          .vector = vectors + (size_t)(i + 1) * (size_t)dim,
		                          .score = 1.0 / (i + 1),
		                          .cosine = 0.8f - 0.05f * (float)i,
		                          .vector_rank = i + 1,
		                          .lexical_rank = i % 2 ? i : 0};
	*input = (ruv_route_input){.text = texts[turn % 4],
	                           .embedding = vectors,
	                           .dim = dim,
	                           .hits = hits,
	                           .n_hits = 10,
	                           .k = 10,
	                           .n_both = 5,
	                           .n_vector = 10,
	                           .system = system};
}

int cmd_router_bench(int argc, char **argv)
{
	static int runs = 20000;
	static const cli_option options[] = {{"runs", 'n', CLI_INT, &runs, "N", "decisions timed (default 20000)"}, {0}};
	static const cli_spec spec = {
	    .name = "router bench",
	    .usage = "[OPTIONS]",
	    .summary = "Time of a decision, features and neighbours included, embedding and search not; and the cell dense, "
		       "sparse, with low "
		       "rank and in 8 bits: bytes, time, and how often each chooses as the dense one in F32.",
	    .options = options,
	    .examples = "ruvllm router bench",
	    .max_args = 0,
	    CLI_CONFIG_OPTIONS,
	};
	static const char *const form_names[] = {"dense", "sparse", "dense int8", "sparse int8"};
	ruv_router_weights *w = NULL;
	ruv_router *router = NULL;
	ruv_route_hit hits[10];
	ruv_route_system system = {0};
	ruv_fastgrnn_shape full;
	int64_t *times = NULL;
	float *vectors = NULL, *params = NULL;
	json_t *forms = json_array();
	cli_table *table = NULL;
	ruv_error err = {0};
	char path[4096];
	cli_args args;
	int code, rc, dim;

	if (!cli_parse(&spec, argc, argv, &args, &code)) {
		json_decref(forms);
		return code;
	}
	if (!cmd_router_file(path, sizeof path, &code)) {
		json_decref(forms);
		return code;
	}
	if (runs < 100)
		runs = 100;
	rc = ruv_router_weights_read(&w, path, true, &err);
	if (!rc)
		rc = ruv_router_open(&router, path, NULL, &err);
	if (rc)
		goto done;
	dim = w->basis.dim ? w->basis.dim : 384;
	times = malloc(sizeof *times * (size_t)runs);
	vectors = malloc(sizeof *vectors * 11 * (size_t)dim);
	params = w->shape.cell.rank ? multiplied_out(w, &full) : w->params;
	if (!w->shape.cell.rank)
		full = w->shape.cell;
	if (!times || !vectors || !params) {
		rc = ruv_fail_memory(&err, "router", sizeof *times * (size_t)runs);
		goto done;
	}
	ruv_route_system_fill(&system);
	for (int i = 0; !rc && i < runs; i++) {
		ruv_route_input input;
		ruv_route_decision decision;

		fill_question(&input, hits, vectors, dim, &system, i % 16);
		rc = ruv_router_decide(router, NULL, &input, &decision, &err);
		times[i] = decision.ns;
	}
	if (rc)
		goto done;
	qsort(times, (size_t)runs, sizeof *times, by_time);
	if (!cli.json) {
		printf("decision over %d neighbours: median %.1f us, p99 %.1f us, p99.9 %.1f us (%d runs)\n", w->bank.n,
		       (double)times[runs / 2] / 1e3, (double)times[(int)(runs * 0.99)] / 1e3,
		       (double)times[(int)(runs * 0.999)] / 1e3, runs);
		table = cli_table_create("cell|>bytes|>of dense|>ns a step|>of dense|>same choice");
	}
	for (int low = 0; !rc && low < (w->shape.cell.rank ? 2 : 1); low++)
		for (unsigned form = 0; !rc && form < 4; form++) {
			static double dense_ns;
			static size_t dense_bytes;
			double ns = 0, agreement = 0;
			size_t n_bytes = 0;
			char name[64];

			rc = w->n_gate ? bench_form(w, low ? &w->shape.cell : &full, low ? w->params : params, form, &ns, &n_bytes,
			                            &agreement, &err)
			               : ruv_fail(&err, RUV_EFORMAT, "router", "%s has no held-out rows", path);
			if (rc)
				break;
			if (!low && !form) {
				dense_ns = ns;
				dense_bytes = n_bytes;
			}
			snprintf(name, sizeof name, "%s%s", form_names[form], low ? ", low-rank U" : "");
			if (cli.json) {
				json_array_append_new(forms, json_pack("{s:s, s:I, s:f, s:f}", "cell", name, "bytes",
				                                       (json_int_t)n_bytes, "ns", ns, "same_choice", agreement));
				continue;
			}
			cli_table_cell(table, "%s", name);
			cli_table_cell(table, "%zu", n_bytes);
			cli_table_cell(table, "%.2f", (double)n_bytes / (double)dense_bytes);
			cli_table_cell(table, "%.0f", ns);
			cli_table_cell(table, "%.2f", ns / dense_ns);
			cli_table_cell(table, "%.1f %%", 100 * agreement);
		}
	if (!rc && cli.json)
		code =
		    cli_json_print(json_pack("{s:i, s:i, s:f, s:f, s:f, s:O}", "runs", runs, "neighbours", w->bank.n, "median_us",
		                             (double)times[runs / 2] / 1e3, "p99_us", (double)times[(int)(runs * 0.99)] / 1e3,
		                             "p999_us", (double)times[(int)(runs * 0.999)] / 1e3, "cells", forms));
	else if (!rc)
		cli_table_print(table, stdout);
done:
	if (rc)
		code = cli_fail(&err, NULL);
	json_decref(forms);
	if (params && w && params != w->params)
		free(params);
	free(times);
	free(vectors);
	ruv_router_free(router);
	ruv_router_weights_free(w);
	return code;
}

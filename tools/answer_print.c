/* answer_print.c - see answer_print.h. */
#include "answer_print.h"

#include <string.h>

/* ---- streaming --------------------------------------------------------------------------------------------------------- */

static void write_bytes(answer_stream *stream, const char *bytes, size_t n)
{
	if (n == 0)
		return;
	fwrite(bytes, 1, n, stdout);
	stream->last = bytes[n - 1];
	stream->any = true;
}

/* The line's beginning decides how it looks. */
static void release_head(answer_stream *stream)
{
	if (!stream->answered && stream->n_head == 7 && !memcmp(stream->head, "Answer:", 7)) {
		stream->answered = true;
		fputs(cli_sgr(stdout, CLI_PLAIN), stdout);
		write_bytes(stream, stream->head, 7);
		fputs(cli_sgr(stdout, CLI_BOLD), stdout);
	} else {
		if (!stream->answered && stream->head[0] == '[')
			fputs(cli_sgr(stdout, CLI_DIM), stdout);
		write_bytes(stream, stream->head, (size_t)stream->n_head);
	}
	stream->n_head = 0;
	stream->inside = true;
}

bool answer_stream_piece(void *user, const ruv_piece *piece)
{
	answer_stream *stream = user;

	for (size_t i = 0; i < piece->n_bytes; i++) {
		char c = piece->text[i];

		if (!stream->inside && c != '\n') {
			stream->head[stream->n_head++] = c;
			if (stream->n_head == 7)
				release_head(stream);
			continue;
		}
		if (!stream->inside)
			release_head(stream);
		if (c == '\n') {
			if (!stream->answered)
				fputs(cli_sgr(stdout, CLI_PLAIN), stdout);
			stream->inside = false;
		}
		write_bytes(stream, &c, 1);
	}
	fflush(stdout);
	return !cli_interrupted;
}

void answer_stream_end(answer_stream *stream)
{
	if (!stream->inside && stream->n_head)
		release_head(stream);
	fputs(cli_sgr(stdout, CLI_PLAIN), stdout);
	if (stream->any && stream->last != '\n')
		fputc('\n', stdout);
	fflush(stdout);
}

/* ---- sources ----------------------------------------------------------------------------------------------------------- */

void answer_print_sources(const ruv_answer *answer, FILE *out)
{
	cli_table *table;
	char place[4300];

	if (answer->n_sources == 0)
		return;
	table = cli_table_create("SOURCES||TITLE|>SCORE|>COSINE|>BM25");
	for (int i = 0; i < answer->n_sources; i++) {
		const ruv_source *source = &answer->sources[i];
		int first = source->first_line, last = source->last_line;

		for (int j = 0; j < answer->n_citations; j++) /* the quote's own line is nearer than the passage's range */
			if (answer->citations[j].source == i && answer->citations[j].line)
				first = last = answer->citations[j].line;
		if (!answer->text) /* only retrieved: no prompt, no numbers in it */
			cli_table_cell(table, "  %d.", i + 1);
		else if (source->number)
			cli_table_cell(table, "%s[%d]", source->cited ? "* " : "  ", source->number);
		else
			cli_table_cell(table, "  [-]");
		cli_table_cell(table, "%s", cli_place(source->source, first, last, place, sizeof place));
		cli_table_cell(table, "%.*s", 48, source->title);
		cli_table_cell(table, "%.4f", source->score);
		if (source->vector_rank)
			cli_table_cell(table, "%.3f", (double)source->cosine);
		else
			cli_table_cell(table, "-");
		if (source->lexical_rank)
			cli_table_cell(table, "%.2f", (double)source->bm25);
		else
			cli_table_cell(table, "-");
	}
	cli_table_print(table, out);
}

void answer_print_warnings(const ruv_answer *answer, FILE *out)
{
	const char *yellow = cli_sgr(out, CLI_YELLOW), *plain = cli_sgr(out, CLI_PLAIN);

	for (int i = 0; i < answer->n_citations; i++) {
		const ruv_citation *c = &answer->citations[i];

		if (c->quote[0] && !c->verbatim)
			fprintf(out, "%sThe sentence quoted from [%d] does not stand there word for word; check it.%s\n", yellow,
			        c->named, plain);
		else if (c->quote[0] && answer->sources[c->source].number != c->named)
			fprintf(out, "%sThe sentence stands in [%d], not in [%d].%s\n", yellow, answer->sources[c->source].number,
			        c->named, plain);
	}
	if (!answer->unknown && answer->n_in_prompt && answer->n_citations == 0 && answer->n_tokens)
		fprintf(out, "%sThe answer names no source.%s\n", yellow, plain);
	if (answer->n_in_prompt < (answer->focused ? 1 : answer->n_sources))
		fprintf(out, "%s%d of %d sources did not fit the context of %d tokens (marked [-]).%s\n", yellow,
		        answer->n_sources - answer->n_in_prompt, answer->n_sources, answer->n_ctx, plain);
	if (answer->n_history_dropped)
		fprintf(out, "%sThe %d oldest messages did not fit the context of %d tokens.%s\n", yellow,
		        answer->n_history_dropped, answer->n_ctx, plain);
	if (answer->finish == RUV_FINISH_LENGTH)
		fprintf(out, "%sThe answer was cut at %d tokens; --max-tokens allows more.%s\n", yellow, answer->n_tokens, plain);
	if (answer->finish == RUV_FINISH_CANCELLED)
		fprintf(out, "%sStopped.%s\n", yellow, plain);
}

static double tokens_per_second(const ruv_answer *answer)
{
	/* The first token comes from the prefill. */
	return answer->n_tokens > 1 && answer->decode_ms > 0 ? (answer->n_tokens - 1) * 1e3 / answer->decode_ms : 0;
}

void answer_print_times(const ruv_answer *answer, FILE *out)
{
	char time[32];

	fprintf(out, "%s%s", cli_sgr(out, CLI_DIM), answer->model);
	if (answer->route.used)
		fprintf(out, " (routed: %s%s%s, %.0f %% sure)", answer->route.first, answer->route.n_escalations ? ", then " : "",
		        answer->route.n_escalations ? answer->route.tier : "", 100.0 * (double)answer->route.confidence);
	fprintf(out, ": %d tokens read", answer->n_prompt);
	if (answer->n_kept)
		fprintf(out, " (%d kept)", answer->n_kept);
	fprintf(out, ", %d written", answer->n_tokens);
	if (tokens_per_second(answer) > 0)
		fprintf(out, ", %.1f tokens/s", tokens_per_second(answer));
	fprintf(out, "; %s", cli_human_time(time, sizeof time, answer->total_ms * 1e-3));
	for (int i = 0; i < answer->n_stages; i++)
		fprintf(out, "%s%s %s", i ? ", " : " = ", answer->stages[i].name,
		        cli_human_time(time, sizeof time, answer->stages[i].ms * 1e-3));
	fprintf(out, "%s\n", cli_sgr(out, CLI_PLAIN));
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

static json_t *route_json(const ruv_answer_route *route)
{
	return route->used ? json_pack("{s:s, s:s, s:s, s:f, s:i}", "tier", route->tier, "first", route->first, "why", route->why,
	                               "confidence", (double)route->confidence, "escalations", route->n_escalations)
	                   : json_null();
}

static json_t *verdict_json(const ruv_verdict *verdict)
{
	return verdict->quality >= 0 ? json_pack("{s:f, s:f, s:f, s:f, s:s}", "quality", (double)verdict->quality, "grounded",
	                                         (double)verdict->grounded, "complete", (double)verdict->complete, "format",
	                                         (double)verdict->format, "why", verdict->why)
	                             : json_null();
}

json_t *answer_json(const ruv_answer *answer, const char *question)
{
	json_t *sources = json_array(), *citations = json_array(), *stages = json_object();

	for (int i = 0; i < answer->n_sources; i++) {
		const ruv_source *s = &answer->sources[i];

		json_array_append_new(sources,
		                      json_pack("{s:o, s:s, s:o, s:i, s:i, s:o, s:o, s:f, s:o, s:o, s:b}", "number",
		                                s->number ? json_integer(s->number) : json_null(), "id", s->id, "file",
		                                cli_json_text(s->source), "first_line", s->first_line, "last_line", s->last_line,
		                                "title", cli_json_text(s->title), "text", cli_json_text(s->text), "score", s->score,
		                                "cosine", s->vector_rank ? json_real((double)s->cosine) : json_null(), "bm25",
		                                s->lexical_rank ? json_real((double)s->bm25) : json_null(), "cited", s->cited));
	}
	for (int i = 0; i < answer->n_citations; i++) {
		const ruv_citation *c = &answer->citations[i];

		json_array_append_new(citations,
		                      json_pack("{s:i, s:i, s:o, s:o, s:o, s:b}", "number", answer->sources[c->source].number,
		                                "named", c->named, "quote", *c->quote ? cli_json_text(c->quote) : json_null(),
		                                "file", cli_json_text(answer->sources[c->source].source), "line",
		                                c->line ? json_integer(c->line) : json_null(), "verbatim", c->verbatim));
	}
	for (int i = 0; i < answer->n_stages; i++)
		json_object_set_new(stages, answer->stages[i].name, json_real(answer->stages[i].ms));
	return json_pack(
	    "{s:s, s:o, s:o, s:o, s:b, s:o, s:b, s:o, s:s, s:o, s:{s:i, s:i, s:i, s:i}, s:f, s:o, s:f, s:I, s:o, s:o, s:o}", "id",
	    answer->id, "question", cli_json_text(question), "text", answer->text ? cli_json_text(answer->text) : json_null(),
	    "answer", answer->answer ? cli_json_text(answer->answer) : json_null(), "unknown", answer->unknown, "citations",
	    citations, "focused", answer->focused, "sources", sources, "finish",
	    answer->text ? ruv_finish_name(answer->finish) : "retrieved", "model",
	    answer->model ? cli_json_text(answer->model) : json_null(), "tokens", "prompt", answer->n_prompt, "kept",
	    answer->n_kept, "generated", answer->n_tokens, "context", answer->n_ctx, "tokens_per_second", tokens_per_second(answer),
	    "stages_ms", stages, "total_ms", answer->total_ms, "seed", (json_int_t)answer->seed, "route",
	    route_json(&answer->route), "judge", verdict_json(&answer->verdict), "written",
	    answer->wrote && *answer->written.id ? json_string(answer->written.id) : json_null());
}

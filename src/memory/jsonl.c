/* jsonl.c - the JSON forms of jsonl.h. Layer: memory. */
#include "memory/jsonl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int ruv_jsonl_string(ruv_buf *buf, const char *text)
{
	const char *from = text ? text : "";
	const char *p;

	ruv_buf_putc(buf, '"');
	for (p = from; *p; p++) {
		unsigned char c = (unsigned char)*p;
		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
			continue;
		ruv_buf_append(buf, from, (size_t)(p - from));
		from = p + 1;
		switch (c) {
		case '"':
			ruv_buf_puts(buf, "\\\"");
			break;
		case '\\':
			ruv_buf_puts(buf, "\\\\");
			break;
		case '\n':
			ruv_buf_puts(buf, "\\n");
			break;
		case '\r':
			ruv_buf_puts(buf, "\\r");
			break;
		case '\t':
			ruv_buf_puts(buf, "\\t");
			break;
		default:
			ruv_buf_printf(buf, "\\u%04x", c);
		}
	}
	ruv_buf_append(buf, from, (size_t)(p - from));
	return ruv_buf_putc(buf, '"');
}

/* ,"name":"text" unless it is empty */
static void put_text(ruv_buf *buf, const char *name, const char *text)
{
	if (!text || !*text)
		return;
	ruv_buf_printf(buf, ",\"%s\":", name);
	ruv_jsonl_string(buf, text);
}

static void put_number(ruv_buf *buf, const char *name, int64_t value)
{
	if (value)
		ruv_buf_printf(buf, ",\"%s\":%lld", name, (long long)value);
}

static void put_float(ruv_buf *buf, float value)
{
	/* A locale may write a decimal comma, which is not JSON. */
	char text[40];
	/* "-0" would be read as the whole number 0. */
	int n =
	    value == 0 && signbit(value) ? snprintf(text, sizeof text, "-0.0") : snprintf(text, sizeof text, "%.9g", (double)value);

	for (int i = 0; i < n; i++)
		if (text[i] == ',')
			text[i] = '.';
	ruv_buf_append(buf, text, (size_t)n);
}

int ruv_json_node(ruv_buf *buf, const ruv_memory_node *node, int dimension)
{
	ruv_buf_printf(buf, "{\"kind\":\"node\",\"id\":\"%s\",\"type\":\"%s\",\"text\":", node->id, ruv_node_type_name(node->type));
	ruv_jsonl_string(buf, node->text);
	put_text(buf, "title", node->title);
	put_text(buf, "source", node->source);
	put_number(buf, "first_line", node->first_line);
	put_number(buf, "last_line", node->last_line);
	if (node->n_tags) {
		ruv_buf_puts(buf, ",\"tags\":[");
		for (int i = 0; i < node->n_tags; i++) {
			if (i)
				ruv_buf_putc(buf, ',');
			ruv_jsonl_string(buf, node->tags[i]);
		}
		ruv_buf_putc(buf, ']');
	}
	put_text(buf, "domain", node->domain);
	put_text(buf, "user", node->scope.user);
	put_text(buf, "agent", node->scope.agent);
	put_text(buf, "session", node->scope.session);
	ruv_buf_puts(buf, ",\"confidence\":");
	put_float(buf, node->confidence);
	put_number(buf, "version", node->version);
	put_number(buf, "created_ms", node->created_ms);
	put_number(buf, "updated_ms", node->updated_ms);
	put_number(buf, "expires_ms", node->expires_ms);
	if (node->meta && *node->meta)
		ruv_buf_printf(buf, ",\"meta\":%s", node->meta); /* checked to be one JSON object on a line when it came in */
	if (node->vector && dimension) {
		ruv_buf_puts(buf, ",\"vector\":[");
		for (int i = 0; i < dimension; i++) {
			if (i)
				ruv_buf_putc(buf, ',');
			put_float(buf, node->vector[i]);
		}
		ruv_buf_putc(buf, ']');
	}
	return ruv_buf_putc(buf, '}');
}

int ruv_json_edge(ruv_buf *buf, const ruv_memory_edge *edge)
{
	ruv_buf_printf(buf, "{\"kind\":\"edge\",\"id\":\"%s\",\"src\":\"%s\",\"dst\":\"%s\",\"type\":\"%s\",\"weight\":", edge->id,
	               edge->src, edge->dst, ruv_edge_type_name(edge->type));
	put_float(buf, edge->weight);
	ruv_buf_puts(buf, ",\"confidence\":");
	put_float(buf, edge->confidence);
	put_number(buf, "created_ms", edge->created_ms);
	put_text(buf, "created_by", edge->created_by);
	return ruv_buf_putc(buf, '}');
}

int ruv_json_source(ruv_buf *buf, const ruv_memory_source *source)
{
	ruv_buf_puts(buf, "{\"kind\":\"source\",\"name\":");
	ruv_jsonl_string(buf, source->name);
	ruv_buf_puts(buf, ",\"hash\":");
	ruv_jsonl_string(buf, source->hash);
	put_text(buf, "user", source->scope.user);
	put_text(buf, "agent", source->scope.agent);
	put_text(buf, "session", source->scope.session);
	put_number(buf, "size_bytes", source->size_bytes);
	put_number(buf, "modified_ms", source->modified_ms);
	put_number(buf, "remembered_ms", source->remembered_ms);
	return ruv_buf_putc(buf, '}');
}

int ruv_json_forgotten(ruv_buf *buf, const ruv_memory_source *which, int64_t hash)
{
	ruv_buf_puts(buf, "{\"kind\":\"forgotten\",\"name\":");
	ruv_jsonl_string(buf, which->name);
	put_text(buf, "user", which->scope.user);
	put_text(buf, "agent", which->scope.agent);
	put_text(buf, "session", which->scope.session);
	return ruv_buf_printf(buf, ",\"hash\":%lld}", (long long)hash);
}

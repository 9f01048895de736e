/* jsonl.h - nodes and edges as JSON, one a line: for the event log, export and import.
 *
 * A node: {"kind":"node","id","type","text", and what is not empty or zero of "title","vector","source","first_line","last_line",
 *          "tags","domain","user","agent","session","confidence","version","created_ms","updated_ms","expires_ms","meta"}
 * An edge: {"kind":"edge","id","src","dst","type","weight","confidence","created_ms","created_by"}
 * A source: {"kind":"source","name","hash","user","agent","session","size_bytes","modified_ms","remembered_ms"}
 * A passage of a source that was forgotten by itself and stays out when the source is remembered again:
 *          {"kind":"forgotten","name","user","agent","session","hash"}, hash a whole number
 * The first line of an export: {"kind":"ruvllm-memory","format":1,"embedder","embedder_version","dimension"}
 * Numbers carry nine digits, which a float survives exactly. Layer: memory. */
#ifndef RUV_MEMORY_JSONL_H
#define RUV_MEMORY_JSONL_H

#include "base/buf.h"
#include "ruvllm/memory.h"

/* Appends text as a JSON string (NULL is ""). Control characters are escaped, UTF-8 stays as it is. Returns the buffer's status. */
int ruv_jsonl_string(ruv_buf *buf, const char *text);
/* Appends a node; its vector when it has one, with `dimension` numbers. */
int ruv_json_node(ruv_buf *buf, const ruv_memory_node *node, int dimension);
int ruv_json_edge(ruv_buf *buf, const ruv_memory_edge *edge);
int ruv_json_source(ruv_buf *buf, const ruv_memory_source *source);
int ruv_json_forgotten(ruv_buf *buf, const ruv_memory_source *which, int64_t hash);

#endif

/* variant.c - the three configurations of RuvLTRA-Medium over a Qwen2.5-class file, as its document gives them.
 *
 * The document describes 32 layers; the file decides how many there are (DECISIONS 1). Where it says nothing for a variant, base's
 * value stands. */
#include <string.h>

#include "ruvllm/model.h"

enum { DOCUMENT_LAYERS = 32 };

#define COMMON .reasoning_bank = true, .kv_page_tokens = 64, .draft_lookahead = 4, .draft_min_prob = 0.7f, .draft_temperature = 0.0f

static const ruv_variant variants[] = {
    {.name = "base",
     .purpose = "conversation, completion, summaries, question answering",
     .temperature = 0.7f,
     .top_p = 0.9f,
     .n_hooks = 3,
     .hooks = {8, 16, 24},
     .pattern_capacity = 50000,
     .quality_threshold = 0.6f,
     .hnsw_m = 16,
     .hnsw_ef_construction = 200,
     .micro_lora_rank = 4,
     COMMON},
    {.name = "coder",
     .purpose = "writing, fixing and refactoring code",
     .temperature = 0.2f,
     .top_p = 0.95f,
     .n_hooks = 4,
     .hooks = {8, 16, 24, 28},
     .pattern_capacity = 100000,
     .quality_threshold = 0.7f,
     .hnsw_m = 16,
     .hnsw_ef_construction = 200,
     .micro_lora_rank = 4,
     COMMON},
    {.name = "agent",
     .purpose = "routing, planning and coordinating agents",
     .temperature = 0.3f,
     .top_p = 0.85f,
     .n_hooks = 3,
     .hooks = {8, 16, 24},
     .pattern_capacity = 50000,
     .quality_threshold = 0.6f,
     .hnsw_m = 32,
     .hnsw_ef_construction = 400,
     .micro_lora_rank = 2,
     .agent_routing = true,
     COMMON},
};

const ruv_variant *ruv_variant_at(int i)
{
	return i >= 0 && i < (int)(sizeof variants / sizeof *variants) ? &variants[i] : NULL;
}

const ruv_variant *ruv_variant_find(const char *name)
{
	for (int i = 0; name && ruv_variant_at(i); i++)
		if (strcmp(variants[i].name, name) == 0)
			return &variants[i];
	return NULL;
}

int ruv_variant_hooks(const ruv_variant *variant, int n_layers, int *hooks)
{
	int n = 0;
	for (int i = 0; i < variant->n_hooks && n_layers > 0; i++) {
		int layer = variant->hooks[i];
		if (n_layers < DOCUMENT_LAYERS)
			layer = (layer * n_layers + DOCUMENT_LAYERS / 2) / DOCUMENT_LAYERS;
		if (layer >= n_layers)
			layer = n_layers - 1;
		if (n == 0 || hooks[n - 1] != layer) /* a shallow model may bring two to one layer */
			hooks[n++] = layer;
	}
	return n;
}

/* object.h - what is inside an opened model, for the layers that run it. Layer: model.
 *
 * The engine's lock guards its backend: whoever calls an operation, a copy or a pass holds it. The workspace of a model is used
 * under that lock too. */
#ifndef RUV_MODEL_OBJECT_H
#define RUV_MODEL_OBJECT_H

#include "format/gguf.h"
#include "model/forward.h"
#include "ruvllm/model.h"
#include "ruvllm/session.h"
#include "text/chat_template.h"
#include "text/vocab.h"

ruv_backend *ruv_engine_backend(ruv_engine *engine);
void ruv_engine_lock(ruv_engine *engine);
void ruv_engine_unlock(ruv_engine *engine);

struct ruv_model {
	int n_refs;         /* atomic */
	ruv_engine *engine; /* NULL when vocab_only */
	ruv_gguf *gguf;
	ruv_hparams hp;      /* empty when vocab_only */
	ruv_weights weights; /* likewise */
	ruv_workspace workspace;
	int n_batch;
	ruv_vocab *vocab;        /* NULL: the file has no tokenizer */
	ruv_chat_template *chat; /* NULL: none */
	const ruv_variant *variant;
	ruv_sampling sampling; /* recommended */
	char *path, *name, *architecture, *file_type, *query_prefix, *passage_prefix;
	uint64_t fingerprint; /* 0: not computed yet; under the engine's lock */
	bool *may_sample;     /* [n_vocab]; NULL when vocab_only */
	void *grammars;       /* compiled grammars, infer/grammar.c's and under its lock; NULL until the first */
	void (*free_grammars)(void *grammars);
};

ruv_model *ruv_model_hold(ruv_model *model);

/* Room for passes of n_rows rows of n_seqs sequences over n_context tokens. Takes the lock. */
int ruv_model_reserve(ruv_model *model, int n_rows, int n_seqs, int n_context, ruv_error *err);
/* One pass under the lock. */
int ruv_model_forward(ruv_model *model, const ruv_forward *forward, ruv_error *err);

/* Tells models apart: a hash of the shape, the tensor table and a sample of every tensor's bytes. */
uint64_t ruv_model_fingerprint(ruv_model *model);

/* vocab_load.c: *vocab and *chat are NULL when the file has none. */
int ruv_vocab_load(ruv_vocab **vocab, const ruv_gguf *gguf, ruv_error *err);
int ruv_chat_load(ruv_chat_template **chat, const ruv_gguf *gguf, const ruv_vocab *vocab, ruv_error *err);

#endif

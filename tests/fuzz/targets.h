/* targets.h - what is fuzzed: one function a parser of bytes that come from outside.
 *
 * A target feeds the bytes to the parser, uses what came out of it (so that a result that does not hold together shows), and
 * releases everything. Returns 0 when the input was accepted; otherwise the status, with the reason in err. It aborts when a parser
 * breaks its contract: a failure without a message, or without a negative status. The same functions serve libFuzzer, the replay of
 * the corpora, and the mutation test. */
#ifndef RUV_TESTS_FUZZ_TARGETS_H
#define RUV_TESTS_FUZZ_TARGETS_H

#include <stddef.h>
#include <stdint.h>

#include "ruvllm/types.h"

/* name, what its input is */
#define FUZZ_TARGET_LIST(X)                                                                                                        \
	X(gguf, "a GGUF file: keys, arrays, tensors")                                                                              \
	X(model, "a GGUF file as a model: opened, tokenized with, run for a few tokens")                                           \
	X(safetensors, "a safetensors file")                                                                                       \
	X(config, "config.json of a Hugging Face model directory, converted")                                                      \
	X(tokenizer, "tokenizer.json of a model directory, converted, loaded, encoded with")                                       \
	X(template, "a chat template, rendered over a conversation with tools")                                                    \
	X(json, "JSON from outside: messages, tools and variables given to a chat template")                                       \
	X(tool_calls, "text of a model with tool calls in it")                                                                     \
	X(tool_stream, "the same, told of while it is written")                                                                    \
	X(gbnf, "a GBNF grammar, compiled and followed")                                                                           \
	X(schema, "a JSON schema, compiled and followed")                                                                          \
	X(imatrix, "an importance matrix file")                                                                                    \
	X(adapter, "a LoRA adapter file, run on a model")                                                                          \
	X(document, "a text, Markdown or HTML file to remember")

#define X(name, what) int fuzz_##name(const uint8_t *data, size_t n, ruv_error *err);
FUZZ_TARGET_LIST(X)
#undef X

typedef int fuzz_target(const uint8_t *data, size_t n, ruv_error *err);

/* The target of that name, or NULL. */
fuzz_target *fuzz_find(const char *name);
/* The i-th target's name, NULL past the end. */
const char *fuzz_name_at(int i);

/* Runs it and checks the contract. */
int fuzz_run(const char *name, const uint8_t *data, size_t n, ruv_error *err);

#endif

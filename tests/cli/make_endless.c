/* make_endless.c - a copy of a tiny model that practically never stops: its end tokens' rows are zero and its context is long, so
 * that a test has time to interrupt it. Usage: make_endless IN.gguf OUT.gguf */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"
#include "format/gguf_write.h"

enum { CONTEXT = 1000000 };

static int copy(const ruv_gguf *in, ruv_gguf_writer *out, const char *path, ruv_error *err)
{
	static const int ends[] = {0, 1, 2, 7}; /* pad, start, end of text, end of message */
	int rc;

	for (size_t i = 0; i < ruv_gguf_n_keys(in); i++)
		if (!ruv_gguf_str_is(ruv_gguf_key_at(in, i)->name, "lfm2.context_length"))
			ruv_gguf_set_copy(out, ruv_gguf_key_at(in, i));
	ruv_gguf_set_u32(out, "lfm2.context_length", CONTEXT);
	for (size_t i = 0; i < ruv_gguf_n_tensors(in); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(in, i);

		ruv_gguf_add_tensor(out, t->name, (ruv_dtype)t->dtype, t->n_dims, t->ne);
	}
	rc = ruv_gguf_writer_begin(out, path, err);
	for (size_t i = 0; !rc && i < ruv_gguf_n_tensors(in); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(in, i);
		unsigned char *bytes = malloc(t->n_bytes);

		if (!bytes)
			return RUV_ENOMEM;
		memcpy(bytes, t->data, t->n_bytes);
		if (!strcmp(t->name, "token_embd.weight"))
			for (size_t j = 0; j < sizeof ends / sizeof *ends; j++)
				memset(bytes + (size_t)ends[j] * (t->n_bytes / (size_t)t->ne[1]), 0, t->n_bytes / (size_t)t->ne[1]);
		rc = ruv_gguf_writer_data(out, bytes, t->n_bytes, err);
		free(bytes);
	}
	return rc ? rc : ruv_gguf_writer_finish(out, err);
}

int main(int argc, char **argv)
{
	ruv_error err = {0};
	ruv_gguf *in = NULL;
	ruv_gguf_writer *out = NULL;
	int rc;

	if (argc != 3) {
		fprintf(stderr, "usage: make_endless IN.gguf OUT.gguf\n");
		return 2;
	}
	rc = ruv_gguf_open(&in, argv[1], 0, &err);
	if (!rc)
		rc = ruv_gguf_writer_create(&out, &err);
	if (!rc)
		rc = copy(in, out, argv[2], &err);
	if (rc)
		fprintf(stderr, "make_endless: %s\n", err.message);
	ruv_gguf_writer_free(out);
	ruv_gguf_free(in);
	return rc != 0;
}

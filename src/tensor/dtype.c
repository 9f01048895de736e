/* dtype.c - the table of element types, indexed by GGUF id. */
#include "tensor/dtype.h"

#include <stdio.h>
#include <strings.h>

static const struct {
	const char *name;
	int16_t elements, bytes;
} table[RUV_DTYPE_END] = {
#define X(c, id, text, n_elements, n_bytes) [id] = {text, n_elements, n_bytes},
    RUV_DTYPE_LIST(X)
#undef X
};

bool ruv_dtype_known(int id)
{
	return id >= 0 && id < RUV_DTYPE_END && table[id].name;
}

const char *ruv_dtype_name(int id)
{
	static _Thread_local char unknown[24];
	if (ruv_dtype_known(id))
		return table[id].name;
	snprintf(unknown, sizeof unknown, "type %d", id);
	return unknown;
}

int ruv_dtype_parse(const char *name)
{
	for (int id = 0; id < RUV_DTYPE_END; id++)
		if (table[id].name && !strcasecmp(table[id].name, name))
			return id;
	return -1;
}

int ruv_dtype_block_elements(ruv_dtype dtype)
{
	return table[dtype].elements;
}

int ruv_dtype_block_bytes(ruv_dtype dtype)
{
	return table[dtype].bytes;
}

size_t ruv_dtype_row_bytes(ruv_dtype dtype, int64_t n)
{
	if (n < 0 || n % table[dtype].elements)
		return 0;
	return (size_t)(n / table[dtype].elements) * (size_t)table[dtype].bytes;
}

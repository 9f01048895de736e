/* gguf.c - the GGUF reader; see gguf.h for the bytes and the promises.
 *
 * A part is read in one pass with a cursor that knows the bytes left; every length is compared with them before it is used, so no
 * arithmetic on numbers of the file can wrap. Tables grow by doubling while entries are really read: a header that claims 2^60
 * tensors fails at the end of the file and has allocated in proportion to the file. Names go into one open-addressing hash table a
 * kind, which finds duplicates and serves lookups. */
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the GGUF reader assumes a little-endian machine"
#endif

#define WHERE "gguf"

enum { MAX_KEYS = 1 << 20, MAX_TENSORS = 1 << 20, MAX_KEY_BYTES = 65535, MAX_PARTS = 1024, MAX_ALIGNMENT = 1 << 20 };

/* Name to index + 1; capacity a power of two, at most half full. */
typedef struct name_table {
	uint32_t *slots;
	size_t cap;
} name_table;

typedef struct gguf_part {
	ruv_map map; /* not ours to unmap when opened from memory */
	const unsigned char *data;
	size_t data_bytes;
} gguf_part;

struct ruv_gguf {
	char *path;
	bool owns_maps;
	int flags;
	int version;
	uint32_t alignment;

	gguf_part *parts;
	int n_parts;

	ruv_gguf_key *keys; /* of part 0 */
	size_t n_keys, cap_keys;
	name_table key_names;

	ruv_gguf_tensor *tensors; /* of all parts */
	size_t n_tensors, cap_tensors;
	name_table tensor_names;
};

/* ---- the cursor ---- */

typedef struct cursor {
	const unsigned char *start, *p, *end;
} cursor;

static size_t left(const cursor *c)
{
	return (size_t)(c->end - c->p);
}

static size_t at(const cursor *c)
{
	return (size_t)(c->p - c->start);
}

static bool take(cursor *c, void *value, size_t n)
{
	if (left(c) < n)
		return false;
	memcpy(value, c->p, n);
	c->p += n;
	return true;
}

static int truncated(const cursor *c, const char *what, ruv_error *err)
{
	return ruv_fail(err, RUV_EFORMAT, WHERE, "the file ends inside %s at byte %zu of %zu", what, at(c),
	                (size_t)(c->end - c->start));
}

/* Text of the file for a message: cut and printable. */
static const char *show(ruv_gguf_str s, char text[68])
{
	size_t n = s.len < 64 ? s.len : 64;
	for (size_t i = 0; i < n; i++) {
		unsigned char ch = (unsigned char)s.data[i];
		text[i] = ch < 0x20 || ch >= 0x7f ? '?' : (char)ch;
	}
	memcpy(text + n, s.len > 64 ? "..." : "", s.len > 64 ? 4 : 1);
	return text;
}

/* ---- names ---- */

static ruv_gguf_str name_of(const ruv_gguf *g, bool tensor, size_t i)
{
	if (tensor)
		return (ruv_gguf_str){g->tensors[i].name, strlen(g->tensors[i].name)};
	return g->keys[i].name;
}

static bool str_same(ruv_gguf_str a, ruv_gguf_str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t name_slot(const ruv_gguf *g, bool tensor, const name_table *t, ruv_gguf_str name)
{
	size_t i = ruv_hash64(name.data, name.len, 0) & (t->cap - 1);
	while (t->slots[i] && !str_same(name_of(g, tensor, t->slots[i] - 1), name))
		i = (i + 1) & (t->cap - 1);
	return i;
}

/* Makes room for one more name; entries 0..n) are in the table. */
static int name_grow(const ruv_gguf *g, bool tensor, name_table *t, size_t n, ruv_error *err)
{
	name_table bigger = {NULL, t->cap ? t->cap * 2 : 64};

	if ((n + 1) * 2 <= t->cap)
		return RUV_OK;
	bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
	if (!bigger.slots)
		return ruv_fail_memory(err, WHERE, bigger.cap * sizeof *bigger.slots);
	for (size_t i = 0; i < n; i++)
		bigger.slots[name_slot(g, tensor, &bigger, name_of(g, tensor, i))] = (uint32_t)i + 1;
	free(t->slots);
	*t = bigger;
	return RUV_OK;
}

static size_t name_find(const ruv_gguf *g, bool tensor, const char *name)
{
	const name_table *t = tensor ? &g->tensor_names : &g->key_names;
	if (!t->cap)
		return SIZE_MAX;
	uint32_t slot = t->slots[name_slot(g, tensor, t, (ruv_gguf_str){name, strlen(name)})];
	return slot ? slot - 1 : SIZE_MAX;
}

/* ---- values ---- */

static size_t type_bytes(int type)
{
	switch (type) {
	case RUV_GGUF_U8:
	case RUV_GGUF_I8:
	case RUV_GGUF_BOOL:
		return 1;
	case RUV_GGUF_U16:
	case RUV_GGUF_I16:
		return 2;
	case RUV_GGUF_U32:
	case RUV_GGUF_I32:
	case RUV_GGUF_F32:
		return 4;
	case RUV_GGUF_U64:
	case RUV_GGUF_I64:
	case RUV_GGUF_F64:
		return 8;
	}
	return 0; /* strings, arrays and what is unknown */
}

const char *ruv_gguf_type_name(int type)
{
	static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
	                                    "bool", "string", "array", "u64", "i64", "f64"};
	static _Thread_local char unknown[24];
	if (type >= 0 && type < (int)(sizeof names / sizeof *names))
		return names[type];
	snprintf(unknown, sizeof unknown, "type %d", type);
	return unknown;
}

static int read_string(cursor *c, ruv_gguf_str *s, const char *what, ruv_error *err)
{
	uint64_t n;
	if (!take(c, &n, sizeof n))
		return truncated(c, what, err);
	if (n > left(c))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "%s at byte %zu claims %llu bytes, but %zu are left in the file", what,
		                at(c), (unsigned long long)n, left(c));
	*s = (ruv_gguf_str){(const char *)c->p, (size_t)n};
	c->p += n;
	return RUV_OK;
}

static int check_bools(const unsigned char *data, uint64_t n, const char *key, ruv_error *err)
{
	for (uint64_t i = 0; i < n; i++)
		if (data[i] > 1)
			return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s': the byte %u is no bool", key, data[i]);
	return RUV_OK;
}

static int read_array(cursor *c, ruv_gguf_array *a, const char *key, ruv_error *err)
{
	char what[96];
	uint32_t type;
	int rc;

	snprintf(what, sizeof what, "the array of key '%s'", key);
	if (!take(c, &type, sizeof type) || !take(c, &a->n, sizeof a->n))
		return truncated(c, what, err);
	if (type == RUV_GGUF_ARRAY)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' is an array of arrays, which GGUF does not allow here", key);
	if (type > RUV_GGUF_F64)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' is an array of unknown element type %u", key, type);
	a->type = (ruv_gguf_type)type;
	a->data = c->p;
	size_t each = type == RUV_GGUF_STRING ? 8 : type_bytes((int)type); /* a string takes 8 bytes at least */
	if (a->n > left(c) / each)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' claims %llu elements of %s, but %zu bytes are left in the file",
		                key, (unsigned long long)a->n, ruv_gguf_type_name((int)type), left(c));
	if (type == RUV_GGUF_STRING) {
		for (uint64_t i = 0; i < a->n; i++) {
			ruv_gguf_str s;
			rc = read_string(c, &s, what, err);
			if (rc)
				return rc;
		}
	} else {
		c->p += a->n * each;
		if (type == RUV_GGUF_BOOL) {
			rc = check_bools(a->data, a->n, key, err);
			if (rc)
				return rc;
		}
	}
	a->n_bytes = (size_t)(c->p - a->data);
	return RUV_OK;
}

static int read_key(ruv_gguf *g, cursor *c, uint64_t i, ruv_error *err)
{
	ruv_gguf_key *key;
	char what[48], name[68];
	uint32_t type;
	int rc;

	if (g->n_keys == g->cap_keys) {
		size_t cap = g->cap_keys ? g->cap_keys * 2 : 64;
		ruv_gguf_key *p = realloc(g->keys, cap * sizeof *p);
		if (!p)
			return ruv_fail_memory(err, WHERE, cap * sizeof *p);
		g->keys = p;
		g->cap_keys = cap;
	}
	rc = name_grow(g, false, &g->key_names, g->n_keys, err);
	if (rc)
		return rc;
	key = &g->keys[g->n_keys];
	memset(key, 0, sizeof *key);

	snprintf(what, sizeof what, "the name of key %llu", (unsigned long long)i);
	rc = read_string(c, &key->name, what, err);
	if (rc)
		return rc;
	show(key->name, name);
	if (key->name.len == 0 || key->name.len > MAX_KEY_BYTES)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the name of key %llu has %zu bytes; 1 to %d are allowed",
		                (unsigned long long)i, key->name.len, MAX_KEY_BYTES);
	if (memchr(key->name.data, 0, key->name.len))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the name of key %llu ('%s') holds a zero byte", (unsigned long long)i,
		                name);
	if (!take(c, &type, sizeof type))
		return truncated(c, "a key's type", err);

	key->type = (ruv_gguf_type)type;
	key->data = c->p;
	if (type == RUV_GGUF_ARRAY) {
		rc = read_array(c, &key->array, name, err);
		key->data = key->array.data;
	} else if (type == RUV_GGUF_STRING) {
		char value[96];
		ruv_gguf_str s;
		snprintf(value, sizeof value, "the value of key '%s'", name);
		rc = read_string(c, &s, value, err);
	} else {
		size_t n = type <= RUV_GGUF_F64 ? type_bytes((int)type) : 0;
		if (!n)
			return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' has the unknown value type %u", name, type);
		if (left(c) < n)
			return ruv_fail(err, RUV_EFORMAT, WHERE, "the file ends inside the value of key '%s'", name);
		c->p += n;
		if (type == RUV_GGUF_BOOL)
			rc = check_bools(key->data, 1, name, err);
	}
	if (rc)
		return rc;

	size_t slot = name_slot(g, false, &g->key_names, key->name);
	if (g->key_names.slots[slot])
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' stands twice in the file", name);
	g->key_names.slots[slot] = (uint32_t)++g->n_keys;
	return RUV_OK;
}

/* ---- tensors ---- */

/* Bytes of a tensor of a known dtype; false when they overflow or a row is no whole number of blocks. */
static int tensor_bytes(ruv_gguf_tensor *t, ruv_error *err)
{
	int64_t block = ruv_dtype_block_elements((ruv_dtype)t->dtype);
	uint64_t n_rows = 1, row, total;

	if (t->ne[0] % block)
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "tensor '%s' has rows of %lld elements, no multiple of the %lld of a %s block", t->name,
		                (long long)t->ne[0], (long long)block, ruv_dtype_name(t->dtype));
	for (int d = 1; d < 4; d++)
		n_rows *= (uint64_t)t->ne[d]; /* the product of all ne fits, see read_tensor */
	if (__builtin_mul_overflow((uint64_t)(t->ne[0] / block), (uint64_t)ruv_dtype_block_bytes((ruv_dtype)t->dtype), &row) ||
	    __builtin_mul_overflow(row, n_rows, &total) || total > (uint64_t)INT64_MAX)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the size of tensor '%s' overflows", t->name);
	t->n_bytes = (size_t)total;
	return RUV_OK;
}

static int read_tensor(ruv_gguf *g, cursor *c, int part, uint64_t i, ruv_error *err)
{
	ruv_gguf_tensor *t;
	ruv_gguf_str name;
	char what[48], text[68];
	uint32_t n_dims, type;
	int64_t n = 1;
	int rc;

	if (g->n_tensors == MAX_TENSORS)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "more than %d tensors", MAX_TENSORS);
	if (g->n_tensors == g->cap_tensors) {
		size_t cap = g->cap_tensors ? g->cap_tensors * 2 : 64;
		ruv_gguf_tensor *p = realloc(g->tensors, cap * sizeof *p);
		if (!p)
			return ruv_fail_memory(err, WHERE, cap * sizeof *p);
		g->tensors = p;
		g->cap_tensors = cap;
	}
	rc = name_grow(g, true, &g->tensor_names, g->n_tensors, err);
	if (rc)
		return rc;
	t = &g->tensors[g->n_tensors];
	memset(t, 0, sizeof *t);
	t->part = part;

	snprintf(what, sizeof what, "the name of tensor %llu", (unsigned long long)i);
	rc = read_string(c, &name, what, err);
	if (rc)
		return rc;
	show(name, text);
	if (name.len == 0 || name.len >= sizeof t->name)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the name of tensor %llu ('%s') has %zu bytes; 1 to %zu are allowed",
		                (unsigned long long)i, text, name.len, sizeof t->name - 1);
	if (memchr(name.data, 0, name.len))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the name of tensor %llu ('%s') holds a zero byte", (unsigned long long)i,
		                text);
	memcpy(t->name, name.data, name.len);

	if (!take(c, &n_dims, sizeof n_dims))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the file ends inside the description of tensor '%s'", text);
	if (n_dims > 4)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%s' has %u dimensions; at most 4 are allowed", text, n_dims);
	t->n_dims = (int)n_dims;
	for (int d = 0; d < 4; d++) {
		uint64_t ne = 1;
		if (d < t->n_dims && !take(c, &ne, sizeof ne))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "the file ends inside the description of tensor '%s'", text);
		if (ne == 0)
			return ruv_fail(err, RUV_EFORMAT, WHERE, "dimension %d of tensor '%s' is 0", d, text);
		if (ne > (uint64_t)INT64_MAX || __builtin_mul_overflow(n, (int64_t)ne, &n))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "the number of elements of tensor '%s' overflows", text);
		t->ne[d] = (int64_t)ne;
	}
	if (!take(c, &type, sizeof type) || !take(c, &t->offset, sizeof t->offset))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the file ends inside the description of tensor '%s'", text);
	t->dtype = type > INT32_MAX ? INT32_MAX : (int)type;
	if (ruv_dtype_known(t->dtype)) {
		rc = tensor_bytes(t, err);
		if (rc)
			return rc;
	} else if (!(g->flags & RUV_GGUF_INSPECT)) {
		return ruv_fail(err, RUV_EUNSUPPORTED, WHERE, "tensor '%s' has the element type %u, which this build does not know",
		                text, type);
	}

	size_t slot = name_slot(g, true, &g->tensor_names, (ruv_gguf_str){t->name, name.len});
	if (g->tensor_names.slots[slot])
		return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%s' stands twice in the %s", text,
		                g->n_parts > 1 ? "set" : "file");
	g->tensor_names.slots[slot] = (uint32_t)++g->n_tensors;
	return RUV_OK;
}

/* Gives the tensors [first, n_tensors) of one part their addresses. */
static int place_tensors(ruv_gguf *g, const gguf_part *part, size_t first, ruv_error *err)
{
	uint64_t expected = 0, mask = g->alignment - 1;
	bool exact = true; /* until a tensor of unknown size */

	for (size_t i = first; i < g->n_tensors; i++) {
		ruv_gguf_tensor *t = &g->tensors[i];
		if (exact ? t->offset != expected : t->offset < expected)
			return ruv_fail(err, RUV_EFORMAT, WHERE,
			                "tensor '%s' is at offset %llu of the data, where %llu is expected%s", t->name,
			                (unsigned long long)t->offset, (unsigned long long)expected,
			                t->offset < expected ? ": it overlaps the one before" : "");
		if (t->offset > part->data_bytes || t->n_bytes > part->data_bytes - t->offset)
			return ruv_fail(
			    err, RUV_EFORMAT, WHERE,
			    "tensor '%s' needs %llu bytes from offset %llu, but the data section has %llu: the file is cut short",
			    t->name, (unsigned long long)t->n_bytes, (unsigned long long)t->offset,
			    (unsigned long long)part->data_bytes);
		t->data = part->data + t->offset;
		if (!ruv_dtype_known(t->dtype)) {
			exact = false;
			expected = t->offset;
			continue;
		}
		exact = true;
		expected = (t->offset + t->n_bytes + mask) & ~mask; /* both are at most the file's size: no overflow */
	}
	return RUV_OK;
}

/* ---- a part ---- */

static int read_alignment(ruv_gguf *g, ruv_error *err)
{
	uint32_t value = 32;
	int rc = ruv_gguf_opt_u32(g, "general.alignment", &value, err);
	if (rc)
		return rc;
	if (value == 0 || (value & (value - 1)) || value > MAX_ALIGNMENT)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "general.alignment is %u; a power of two up to %d is needed", value,
		                MAX_ALIGNMENT);
	g->alignment = value;
	return RUV_OK;
}

/* Reads part `index` into the tables: its keys must find an empty one, its tensors are added. */
static int read_part(ruv_gguf *g, int index, ruv_error *err)
{
	gguf_part *part = &g->parts[index];
	cursor c = {part->map.data, part->map.data, part->map.data};
	uint64_t n_tensors, n_keys;
	size_t first = g->n_tensors;
	unsigned char magic[4];
	uint32_t version;
	int rc;

	if (part->map.size < sizeof magic)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the file has %zu bytes: too short for a GGUF file", part->map.size);
	c.end += part->map.size;
	take(&c, magic, sizeof magic);
	if (memcmp(magic, "GGUF", 4))
		return ruv_fail(err, RUV_EFORMAT, WHERE,
		                "not a GGUF file: it starts with the bytes %02x %02x %02x %02x, not with 'GGUF'", magic[0],
		                magic[1], magic[2], magic[3]);
	if (!take(&c, &version, sizeof version))
		return truncated(&c, "the header", err);
	if ((version & 0xffff) == 0 && version)
		return ruv_fail(err, RUV_EUNSUPPORTED, WHERE,
		                "a big-endian GGUF file (version %u); only little-endian files can be read",
		                __builtin_bswap32(version));
	if (version == 1)
		return ruv_fail(err, RUV_EUNSUPPORTED, WHERE,
		                "GGUF version 1 is not supported; convert the model again to get version 3");
	if (version != 2 && version != 3)
		return ruv_fail(err, RUV_EUNSUPPORTED, WHERE, "GGUF version %u is not supported; versions 2 and 3 are", version);
	if (!take(&c, &n_tensors, sizeof n_tensors) || !take(&c, &n_keys, sizeof n_keys))
		return truncated(&c, "the header", err);
	/* The smallest key takes 8 + 1 + 4 + 1 bytes, the smallest tensor 8 + 1 + 4 + 4 + 8. */
	if (n_keys > MAX_KEYS || n_keys > left(&c) / 14)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the header claims %llu keys, more than the file can hold",
		                (unsigned long long)n_keys);
	if (n_tensors > MAX_TENSORS || n_tensors > left(&c) / 25)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the header claims %llu tensors, more than the file can hold",
		                (unsigned long long)n_tensors);
	g->version = (int)version;

	for (uint64_t i = 0; i < n_keys; i++) {
		rc = read_key(g, &c, i, err);
		if (rc)
			return rc;
	}
	rc = read_alignment(g, err);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < n_tensors; i++) {
		rc = read_tensor(g, &c, index, i, err);
		if (rc)
			return rc;
	}

	size_t start = (at(&c) + g->alignment - 1) / g->alignment * g->alignment;
	if (start > part->map.size) {
		if (n_tensors)
			return ruv_fail(err, RUV_EFORMAT, WHERE,
			                "the data section would start at byte %zu, but the file ends at %zu", start,
			                part->map.size);
		start = part->map.size;
	}
	part->data = part->map.data + start;
	part->data_bytes = part->map.size - start;
	return place_tensors(g, part, first, err);
}

static void forget_keys(ruv_gguf *g)
{
	free(g->keys);
	free(g->key_names.slots);
	g->keys = NULL;
	g->n_keys = g->cap_keys = 0;
	g->key_names = (name_table){NULL, 0};
}

/* ---- split sets ---- */

bool ruv_gguf_split_name(const char *path, size_t *stem_len, int *no, int *count)
{
	size_t n = strlen(path), tail = strlen("-00001-of-00001.gguf");
	char digits[6] = {0};

	if (n <= tail)
		return false;
	const char *p = path + n - tail;
	for (size_t i = 0; i < tail; i++) {
		bool digit = (i >= 1 && i <= 5) || (i >= 10 && i <= 14);
		if (digit ? p[i] < '0' || p[i] > '9' : p[i] != "-00001-of-00001.gguf"[i])
			return false;
	}
	*stem_len = n - tail;
	memcpy(digits, p + 1, 5);
	*no = atoi(digits) - 1;
	memcpy(digits, p + 10, 5);
	*count = atoi(digits);
	return true;
}

/* What the keys of the part just read say about the set; count 1 when nothing. */
static int split_keys(const ruv_gguf *g, uint32_t *no, uint32_t *count, uint32_t *n_tensors, ruv_error *err)
{
	int rc;
	*no = 0;
	*count = 1;
	*n_tensors = UINT32_MAX;
	rc = ruv_gguf_opt_u32(g, "split.count", count, err);
	if (!rc)
		rc = ruv_gguf_opt_u32(g, "split.no", no, err);
	if (!rc)
		rc = ruv_gguf_opt_u32(g, "split.tensors.count", n_tensors, err);
	if (!rc && (*count == 0 || *count > MAX_PARTS || *no >= *count))
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "split.no %u of split.count %u is impossible", *no, *count);
	return rc;
}

static int read_set(ruv_gguf *g, ruv_error *err)
{
	uint32_t no, count, n_tensors;
	size_t stem = 0;
	int name_no = 0, name_count = 1, rc;

	rc = read_part(g, 0, err);
	if (rc)
		return rc;
	rc = split_keys(g, &no, &count, &n_tensors, err);
	if (rc || count == 1 || (g->flags & RUV_GGUF_ONE_PART))
		return rc;
	if (!g->path[0])
		return ruv_fail(err, RUV_EINVAL, WHERE, "part %u of a set of %u cannot be opened from memory", no + 1, count);
	if (!ruv_gguf_split_name(g->path, &stem, &name_no, &name_count) || name_no != (int)no || name_count != (int)count)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the file is part %u of %u, so its name must end in -%05u-of-%05u.gguf",
		                no + 1, count, no + 1, count);

	/* Part 0 holds the model's keys; start again with it, then the others in order. */
	gguf_part *parts = calloc(count, sizeof *parts);
	if (!parts)
		return ruv_fail_memory(err, WHERE, count * sizeof *parts);
	parts[no] = g->parts[0];
	free(g->parts);
	g->parts = parts;
	g->n_parts = (int)count;
	forget_keys(g);
	free(g->tensor_names.slots);
	g->tensor_names = (name_table){NULL, 0};
	g->n_tensors = 0;

	ruv_gguf_key *keys = NULL; /* part 0's, set aside while others are read */
	size_t n_keys = 0, cap_keys = 0;
	name_table names = {NULL, 0};
	uint32_t alignment = 32;
	uint32_t total = UINT32_MAX;
	int version = 0;
	char *path = malloc(strlen(g->path) + 1);
	if (!path)
		return ruv_fail_memory(err, WHERE, strlen(g->path) + 1);
	strcpy(path, g->path);
	for (uint32_t i = 0; i < count && !rc; i++) {
		uint32_t i_no, i_count;
		snprintf(path + stem, strlen(g->path) + 1 - stem, "-%05u-of-%05u.gguf", i + 1, count);
		if (i != no)
			rc = ruv_map_open(&g->parts[i].map, path, err);
		if (rc)
			break;
		rc = read_part(g, (int)i, err);
		if (!rc)
			rc = split_keys(g, &i_no, &i_count, &n_tensors, err);
		if (!rc && (i_no != i || i_count != count))
			rc = ruv_fail(err, RUV_EMISMATCH, WHERE, "its keys say part %u of %u", i_no + 1, i_count);
		if (!rc && i > 0 && n_tensors != total)
			rc = ruv_fail(err, RUV_EMISMATCH, WHERE, "split.tensors.count is not that of part 1");
		if (rc) {
			ruv_error_prefix(err, rc, "part '%s': ", path);
			break;
		}
		if (i == 0) {
			keys = g->keys;
			n_keys = g->n_keys;
			cap_keys = g->cap_keys;
			names = g->key_names;
			alignment = g->alignment;
			version = g->version;
			total = n_tensors;
			g->keys = NULL;
			g->n_keys = g->cap_keys = 0;
			g->key_names = (name_table){NULL, 0};
		} else {
			forget_keys(g);
		}
	}
	free(path);
	if (keys) {
		forget_keys(g);
		g->keys = keys;
		g->n_keys = n_keys;
		g->cap_keys = cap_keys;
		g->key_names = names;
		g->alignment = alignment;
		g->version = version;
	}
	if (!rc && total != UINT32_MAX && total != g->n_tensors)
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "split.tensors.count says %u tensors, the %u parts hold %zu", total, count,
		              g->n_tensors);
	return rc;
}

/* ---- opening ---- */

static int gguf_new(ruv_gguf **out, const char *path, int flags, ruv_error *err)
{
	ruv_gguf *g = calloc(1, sizeof *g);
	if (!g)
		return ruv_fail_memory(err, WHERE, sizeof *g);
	g->path = strdup(path);
	g->parts = calloc(1, sizeof *g->parts);
	g->n_parts = 1;
	g->flags = flags;
	if (!g->path || !g->parts) {
		ruv_gguf_free(g);
		return ruv_fail_memory(err, WHERE, sizeof *g->parts);
	}
	*out = g;
	return RUV_OK;
}

int ruv_gguf_open(ruv_gguf **out, const char *path, int flags, ruv_error *err)
{
	ruv_gguf *g = NULL;
	int rc = gguf_new(&g, path, flags, err);
	if (rc)
		return rc;
	g->owns_maps = true;
	rc = ruv_map_open(&g->parts[0].map, path, err);
	if (rc)
		goto done;
	rc = read_set(g, err);
	if (rc) {
		ruv_error_prefix(err, rc, "%s: ", path);
		goto done;
	}
	*out = g;
	g = NULL;
done:
	ruv_gguf_free(g);
	return rc;
}

int ruv_gguf_open_memory(ruv_gguf **out, const void *bytes, size_t n_bytes, int flags, ruv_error *err)
{
	ruv_gguf *g = NULL;
	int rc = gguf_new(&g, "", flags, err);
	if (rc)
		return rc;
	g->parts[0].map = (ruv_map){bytes, n_bytes};
	rc = read_set(g, err);
	if (rc) {
		ruv_gguf_free(g);
		return rc;
	}
	*out = g;
	return RUV_OK;
}

void ruv_gguf_free(ruv_gguf *g)
{
	if (!g)
		return;
	if (g->owns_maps)
		for (int i = 0; i < g->n_parts && g->parts; i++)
			ruv_map_release(&g->parts[i].map);
	forget_keys(g);
	free(g->tensor_names.slots);
	free(g->tensors);
	free(g->parts);
	free(g->path);
	free(g);
}

const char *ruv_gguf_path(const ruv_gguf *g)
{
	return g->path;
}

int ruv_gguf_version(const ruv_gguf *g)
{
	return g->version;
}

int ruv_gguf_n_parts(const ruv_gguf *g)
{
	return g->n_parts;
}

uint64_t ruv_gguf_file_bytes(const ruv_gguf *g)
{
	uint64_t n = 0;
	for (int i = 0; i < g->n_parts; i++)
		n += g->parts[i].map.size;
	return n;
}

uint32_t ruv_gguf_alignment(const ruv_gguf *g)
{
	return g->alignment;
}

/* ---- keys ---- */

size_t ruv_gguf_n_keys(const ruv_gguf *g)
{
	return g->n_keys;
}

const ruv_gguf_key *ruv_gguf_key_at(const ruv_gguf *g, size_t i)
{
	return i < g->n_keys ? &g->keys[i] : NULL;
}

const ruv_gguf_key *ruv_gguf_find_key(const ruv_gguf *g, const char *name)
{
	size_t i = name_find(g, false, name);
	return i == SIZE_MAX ? NULL : &g->keys[i];
}

static const ruv_gguf_key *need_key(const ruv_gguf *g, const char *name, int *rc, ruv_error *err)
{
	const ruv_gguf_key *key = ruv_gguf_find_key(g, name);
	*rc = key ? RUV_OK : ruv_fail(err, RUV_ENOTFOUND, WHERE, "key '%s' is missing", name);
	return key;
}

/* "u32" or "array of string": what a key really is. */
static int wrong_type(const ruv_gguf_key *key, const char *name, const char *wanted, ruv_error *err)
{
	bool array = key->type == RUV_GGUF_ARRAY;
	return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' is %s%s, but %s is needed", name, array ? "an array of " : "of type ",
	                ruv_gguf_type_name(array ? (int)key->array.type : (int)key->type), wanted);
}

/* An integer element as sign and magnitude; false for other types. */
static bool load_integer(ruv_gguf_type type, const unsigned char *p, bool *negative, uint64_t *magnitude)
{
	int64_t s = 0;
	*negative = false;
	switch (type) {
#define UNSIGNED(id, ctype)                                                                                                        \
	case id: {                                                                                                                 \
		ctype v;                                                                                                           \
		memcpy(&v, p, sizeof v);                                                                                           \
		*magnitude = v;                                                                                                    \
		return true;                                                                                                       \
	}
#define SIGNED(id, ctype)                                                                                                          \
	case id: {                                                                                                                 \
		ctype v;                                                                                                           \
		memcpy(&v, p, sizeof v);                                                                                           \
		s = v;                                                                                                             \
		break;                                                                                                             \
	}
		UNSIGNED(RUV_GGUF_U8, uint8_t)
		UNSIGNED(RUV_GGUF_BOOL, uint8_t)
		UNSIGNED(RUV_GGUF_U16, uint16_t)
		UNSIGNED(RUV_GGUF_U32, uint32_t)
		UNSIGNED(RUV_GGUF_U64, uint64_t)
		SIGNED(RUV_GGUF_I8, int8_t)
		SIGNED(RUV_GGUF_I16, int16_t)
		SIGNED(RUV_GGUF_I32, int32_t)
		SIGNED(RUV_GGUF_I64, int64_t)
#undef UNSIGNED
#undef SIGNED
	default:
		return false;
	}
	*negative = s < 0;
	*magnitude = s < 0 ? (uint64_t)0 - (uint64_t)s : (uint64_t)s;
	return true;
}

static bool load_float(ruv_gguf_type type, const unsigned char *p, double *value)
{
	if (type == RUV_GGUF_F32) {
		float f;
		memcpy(&f, p, sizeof f);
		*value = f;
		return true;
	}
	if (type == RUV_GGUF_F64) {
		memcpy(value, p, sizeof *value);
		return true;
	}
	return false;
}

/* The integer of a key within [-negative_max, positive_max]. */
static int get_integer(const ruv_gguf *g, const char *name, uint64_t positive_max, uint64_t negative_max, bool *negative,
                       uint64_t *magnitude, ruv_error *err)
{
	int rc;
	const ruv_gguf_key *key = need_key(g, name, &rc, err);
	if (rc)
		return rc;
	if (key->type == RUV_GGUF_BOOL || !load_integer(key->type, key->data, negative, magnitude))
		return wrong_type(key, name, "an integer", err);
	if (*magnitude > (*negative ? negative_max : positive_max))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' is %s%llu, outside of what is allowed here", name,
		                *negative ? "-" : "", (unsigned long long)*magnitude);
	return RUV_OK;
}

int ruv_gguf_get_u32(const ruv_gguf *g, const char *name, uint32_t *value, ruv_error *err)
{
	bool negative = false;
	uint64_t m = 0;
	int rc = get_integer(g, name, UINT32_MAX, 0, &negative, &m, err);
	if (!rc)
		*value = (uint32_t)m;
	return rc;
}

int ruv_gguf_get_u64(const ruv_gguf *g, const char *name, uint64_t *value, ruv_error *err)
{
	bool negative = false;
	uint64_t m = 0;
	int rc = get_integer(g, name, UINT64_MAX, 0, &negative, &m, err);
	if (!rc)
		*value = m;
	return rc;
}

int ruv_gguf_get_i32(const ruv_gguf *g, const char *name, int32_t *value, ruv_error *err)
{
	bool negative = false;
	uint64_t m = 0;
	int rc = get_integer(g, name, INT32_MAX, (uint64_t)INT32_MAX + 1, &negative, &m, err);
	if (!rc)
		*value = (int32_t)(negative ? -(int64_t)m : (int64_t)m);
	return rc;
}

int ruv_gguf_get_f32(const ruv_gguf *g, const char *name, float *value, ruv_error *err)
{
	int rc;
	double d;
	const ruv_gguf_key *key = need_key(g, name, &rc, err);
	if (rc)
		return rc;
	if (!load_float(key->type, key->data, &d))
		return wrong_type(key, name, "a number of type f32", err);
	if (!(d >= -3.4028234663852886e38 && d <= 3.4028234663852886e38))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "key '%s' is not a finite number", name);
	*value = (float)d;
	return RUV_OK;
}

int ruv_gguf_get_bool(const ruv_gguf *g, const char *name, bool *value, ruv_error *err)
{
	int rc;
	const ruv_gguf_key *key = need_key(g, name, &rc, err);
	if (rc)
		return rc;
	if (key->type != RUV_GGUF_BOOL)
		return wrong_type(key, name, "a bool", err);
	*value = key->data[0] != 0;
	return RUV_OK;
}

int ruv_gguf_get_str(const ruv_gguf *g, const char *name, ruv_gguf_str *value, ruv_error *err)
{
	int rc;
	uint64_t n;
	const ruv_gguf_key *key = need_key(g, name, &rc, err);
	if (rc)
		return rc;
	if (key->type != RUV_GGUF_STRING)
		return wrong_type(key, name, "a string", err);
	memcpy(&n, key->data, sizeof n);
	*value = (ruv_gguf_str){(const char *)key->data + sizeof n, (size_t)n};
	return RUV_OK;
}

int ruv_gguf_get_array(const ruv_gguf *g, const char *name, ruv_gguf_array *value, ruv_error *err)
{
	int rc;
	const ruv_gguf_key *key = need_key(g, name, &rc, err);
	if (rc)
		return rc;
	if (key->type != RUV_GGUF_ARRAY)
		return wrong_type(key, name, "an array", err);
	*value = key->array;
	return RUV_OK;
}

#define OPTIONAL(verb, ctype)                                                                                                      \
	int ruv_gguf_opt_##verb(const ruv_gguf *g, const char *name, ctype *value, ruv_error *err)                                 \
	{                                                                                                                          \
		return ruv_gguf_find_key(g, name) ? ruv_gguf_get_##verb(g, name, value, err) : RUV_OK;                             \
	}
OPTIONAL(u32, uint32_t)
OPTIONAL(u64, uint64_t)
OPTIONAL(i32, int32_t)
OPTIONAL(f32, float)
OPTIONAL(bool, bool)
OPTIONAL(str, ruv_gguf_str)
OPTIONAL(array, ruv_gguf_array)
#undef OPTIONAL

int ruv_gguf_get_cstr(const ruv_gguf *g, const char *name, char **value, ruv_error *err)
{
	ruv_gguf_str s = {NULL, 0};
	int rc = ruv_gguf_get_str(g, name, &s, err);
	if (rc)
		return rc;
	if (s.len && memchr(s.data, 0, s.len))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the string of key '%s' holds a zero byte", name);
	char *copy = malloc(s.len + 1);
	if (!copy)
		return ruv_fail_memory(err, WHERE, s.len + 1);
	memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	*value = copy;
	return RUV_OK;
}

int ruv_gguf_array_i64(const ruv_gguf_array *a, uint64_t i, int64_t *value, ruv_error *err)
{
	bool negative = false;
	uint64_t m = 0;
	if (i >= a->n)
		return ruv_fail(err, RUV_EINVAL, WHERE, "element %llu of an array of %llu", (unsigned long long)i,
		                (unsigned long long)a->n);
	if (a->type == RUV_GGUF_STRING || !load_integer(a->type, a->data + i * type_bytes(a->type), &negative, &m))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "an array of %s, but integers are needed",
		                ruv_gguf_type_name((int)a->type));
	if (!negative && m > (uint64_t)INT64_MAX)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "array element %llu is too large", (unsigned long long)i);
	*value = negative ? (int64_t)((uint64_t)0 - m) : (int64_t)m;
	return RUV_OK;
}

int ruv_gguf_array_f32(const ruv_gguf_array *a, uint64_t i, float *value, ruv_error *err)
{
	double d;
	if (i >= a->n)
		return ruv_fail(err, RUV_EINVAL, WHERE, "element %llu of an array of %llu", (unsigned long long)i,
		                (unsigned long long)a->n);
	if (!load_float(a->type, a->data + i * type_bytes(a->type), &d))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "an array of %s, but floats are needed", ruv_gguf_type_name((int)a->type));
	*value = d > 3.4028234663852886e38 ? __builtin_inff() : d < -3.4028234663852886e38 ? -__builtin_inff() : (float)d;
	return RUV_OK;
}

bool ruv_gguf_array_next_str(const ruv_gguf_array *a, size_t *pos, ruv_gguf_str *value)
{
	uint64_t n;
	if (a->type != RUV_GGUF_STRING || *pos + sizeof n > a->n_bytes)
		return false;
	memcpy(&n, a->data + *pos, sizeof n);
	*value = (ruv_gguf_str){(const char *)a->data + *pos + sizeof n, (size_t)n};
	*pos += sizeof n + (size_t)n;
	return true;
}

/* ---- tensors ---- */

size_t ruv_gguf_n_tensors(const ruv_gguf *g)
{
	return g->n_tensors;
}

const ruv_gguf_tensor *ruv_gguf_tensor_at(const ruv_gguf *g, size_t i)
{
	return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const ruv_gguf_tensor *ruv_gguf_find_tensor(const ruv_gguf *g, const char *name)
{
	size_t i = name_find(g, true, name);
	return i == SIZE_MAX ? NULL : &g->tensors[i];
}

static const char *shape_text(int n_dims, const int64_t *ne, char *text, size_t cap)
{
	size_t n = (size_t)snprintf(text, cap, "[");
	for (int d = 0; d < n_dims && n < cap; d++)
		n += (size_t)snprintf(text + n, cap - n, "%s%lld", d ? ", " : "", (long long)ne[d]);
	if (n < cap)
		snprintf(text + n, cap - n, "]");
	return text;
}

const char *ruv_gguf_shape(const ruv_gguf_tensor *t, char *text, size_t cap)
{
	return shape_text(t->n_dims, t->ne, text, cap);
}

int ruv_gguf_get_tensor(const ruv_gguf *g, const char *name, int n_dims, const int64_t *ne, const ruv_gguf_tensor **tensor,
                        ruv_error *err)
{
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(g, name);
	char have[96], want[96];

	if (!t)
		return ruv_fail(err, RUV_ENOTFOUND, WHERE, "tensor '%s' is missing", name);
	for (int d = 0; d < 4; d++)
		if (t->ne[d] != (d < n_dims ? ne[d] : 1))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "tensor '%s' has the shape %s, but %s is needed", name,
			                shape_text(t->n_dims, t->ne, have, sizeof have), shape_text(n_dims, ne, want, sizeof want));
	*tensor = t;
	return RUV_OK;
}

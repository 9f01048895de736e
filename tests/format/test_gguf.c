/* test_gguf.c - GGUF: what is written is read back bit for bit, and what does not hold is refused by name. */
#include "test.h"

#include <math.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "format/gguf_write.h"

static char dir[] = "/tmp/ruv-gguf-XXXXXX";
static char path_text[256];

static const char *path(const char *name)
{
	snprintf(path_text, sizeof path_text, "%s/%s", dir, name);
	return path_text;
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[300];
	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

/* ---- a file with one of everything ---- */

static const float matrix[2 * 64] = {1.5f, -2, 0.25f};

static void write_sample(const char *file, bool with_split, int no, int count)
{
	ruv_gguf_writer *w;
	ruv_error err = {0};
	const ruv_gguf_str words[] = {{"alpha", 5}, {"", 0}, {"\xc4\xa0the", 5}};
	const int32_t numbers[] = {-1, 0, 7};
	unsigned char block[2 * 34];
	char name[32];

	assert_ok(ruv_gguf_writer_create(&w, &err), err);
	if (no == 0) {
		ruv_gguf_set_str(w, "general.architecture", "replaced below");
		ruv_gguf_set_str(w, "general.architecture", "test");
		ruv_gguf_set_u32(w, "test.u32", 4000000000u);
		ruv_gguf_set_u64(w, "test.u64", 1ull << 60);
		ruv_gguf_set_i32(w, "test.i32", -5);
		ruv_gguf_set_f32(w, "test.f32", 1e-5f);
		ruv_gguf_set_bool(w, "test.bool", true);
		ruv_gguf_set_str_array(w, "test.words", words, 3);
		ruv_gguf_set_array(w, "test.numbers", RUV_GGUF_I32, numbers, 3);
		ruv_gguf_set_array(w, "test.empty", RUV_GGUF_F32, NULL, 0);
		ruv_gguf_set_u32(w, "test.gone", 1);
		ruv_gguf_remove_key(w, "test.gone");
	}
	if (with_split) {
		uint16_t n16 = (uint16_t)count;
		ruv_gguf_set_u32(w, "split.no", (uint32_t)no);
		ruv_gguf_set_u32(w, "split.count", n16);
		ruv_gguf_set_i32(w, "split.tensors.count", 2 * count);
	}
	snprintf(name, sizeof name, "part%d.matrix", no);
	ruv_gguf_add_tensor(w, name, RUV_F32, 2, (int64_t[]){64, 2});
	snprintf(name, sizeof name, "part%d.blocks", no);
	ruv_gguf_add_tensor(w, name, RUV_Q8_0, 1, (int64_t[]){64});
	assert_ok(ruv_gguf_writer_begin(w, file, &err), err);
	assert_ok(ruv_gguf_writer_data(w, matrix, 100, &err), err); /* in pieces */
	assert_ok(ruv_gguf_writer_data(w, (const char *)matrix + 100, sizeof matrix - 100, &err), err);
	for (size_t i = 0; i < sizeof block; i++)
		block[i] = (unsigned char)(i + (unsigned)no);
	assert_ok(ruv_gguf_writer_data(w, block, sizeof block, &err), err);
	assert_ok(ruv_gguf_writer_finish(w, &err), err);
	ruv_gguf_writer_free(w);
}

static void what_is_written_is_read_back(void **state)
{
	ruv_gguf *g;
	ruv_error err = {0};
	uint32_t u32 = 0;
	uint64_t u64 = 0;
	int32_t i32 = 0;
	float f32 = 0;
	bool b = false;
	char *text = NULL;
	ruv_gguf_array a;
	ruv_gguf_str s;
	const ruv_gguf_tensor *t;
	int64_t n;
	size_t cursor = 0;
	(void)state;

	write_sample(path("a.gguf"), false, 0, 1);
	assert_ok(ruv_gguf_open(&g, path("a.gguf"), 0, &err), err);
	assert_int_equal(ruv_gguf_version(g), 3);
	assert_int_equal(ruv_gguf_n_keys(g), 9);
	assert_int_equal(ruv_gguf_n_tensors(g), 2);
	assert_ok(ruv_gguf_get_u32(g, "test.u32", &u32, &err), err);
	assert_true(u32 == 4000000000u);
	assert_ok(ruv_gguf_get_u64(g, "test.u64", &u64, &err), err);
	assert_true(u64 == 1ull << 60);
	assert_ok(ruv_gguf_get_i32(g, "test.i32", &i32, &err), err);
	assert_int_equal(i32, -5);
	assert_ok(ruv_gguf_get_f32(g, "test.f32", &f32, &err), err);
	assert_true(f32 == 1e-5f);
	assert_ok(ruv_gguf_get_bool(g, "test.bool", &b, &err), err);
	assert_true(b);
	assert_ok(ruv_gguf_get_cstr(g, "general.architecture", &text, &err), err);
	assert_string_equal(text, "test");
	free(text);

	assert_ok(ruv_gguf_get_array(g, "test.words", &a, &err), err);
	assert_int_equal(a.n, 3);
	assert_true(ruv_gguf_array_next_str(&a, &cursor, &s) && ruv_gguf_str_is(s, "alpha"));
	assert_true(ruv_gguf_array_next_str(&a, &cursor, &s) && ruv_gguf_str_is(s, ""));
	assert_true(ruv_gguf_array_next_str(&a, &cursor, &s) && ruv_gguf_str_is(s, "\xc4\xa0the"));
	assert_false(ruv_gguf_array_next_str(&a, &cursor, &s));
	assert_ok(ruv_gguf_get_array(g, "test.numbers", &a, &err), err);
	assert_ok(ruv_gguf_array_i64(&a, 0, &n, &err), err);
	assert_int_equal(n, -1);
	assert_int_equal(ruv_gguf_array_i64(&a, 3, &n, &err), RUV_EINVAL);
	assert_int_equal(ruv_gguf_array_f32(&a, 0, &f32, &err), RUV_EFORMAT);
	assert_ok(ruv_gguf_get_array(g, "test.empty", &a, &err), err);
	assert_int_equal(a.n, 0);

	assert_ok(ruv_gguf_get_tensor(g, "part0.matrix", 2, (int64_t[]){64, 2}, &t, &err), err);
	assert_int_equal(t->dtype, RUV_F32);
	assert_int_equal(t->n_bytes, sizeof matrix);
	assert_memory_equal(t->data, matrix, sizeof matrix);
	assert_int_equal((uintptr_t)t->data % 32, 0);
	assert_int_equal(ruv_gguf_get_tensor(g, "part0.matrix", 1, (int64_t[]){64}, &t, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "part0.matrix"));
	assert_non_null(strstr(err.message, "[64, 2]"));
	t = ruv_gguf_find_tensor(g, "part0.blocks");
	assert_int_equal(t->n_bytes, 68);
	assert_int_equal(((const unsigned char *)t->data)[67], 67);
	assert_null(ruv_gguf_find_tensor(g, "part0"));
	ruv_gguf_free(g);
}

static void keys_of_another_type_or_missing_are_named(void **state)
{
	ruv_gguf *g;
	ruv_error err = {0};
	uint32_t u32 = 77;
	bool b = false;
	float f = 3;
	char *text = NULL;
	(void)state;

	write_sample(path("a.gguf"), false, 0, 1);
	assert_ok(ruv_gguf_open(&g, path("a.gguf"), 0, &err), err);
	assert_int_equal(ruv_gguf_get_u32(g, "test.none", &u32, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "test.none"));
	assert_ok(ruv_gguf_opt_u32(g, "test.none", &u32, &err), err);
	assert_int_equal(u32, 77);
	assert_int_equal(ruv_gguf_opt_u32(g, "test.f32", &u32, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "test.f32"));
	assert_non_null(strstr(err.message, "f32"));
	assert_int_equal(ruv_gguf_get_u32(g, "test.i32", &u32, &err), RUV_EFORMAT); /* negative */
	assert_int_equal(ruv_gguf_get_u32(g, "test.u64", &u32, &err), RUV_EFORMAT); /* too large */
	assert_int_equal(ruv_gguf_get_u32(g, "test.bool", &u32, &err), RUV_EFORMAT);
	assert_int_equal(ruv_gguf_get_bool(g, "test.u32", &b, &err), RUV_EFORMAT);
	assert_int_equal(ruv_gguf_get_f32(g, "test.u32", &f, &err), RUV_EFORMAT);
	assert_int_equal(ruv_gguf_get_cstr(g, "test.words", &text, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "array of string"));
	ruv_gguf_free(g);
}

static void a_split_set_is_one_model(void **state)
{
	ruv_gguf *g = NULL;
	ruv_error err = {0};
	char file[256];
	(void)state;

	for (int i = 0; i < 3; i++) {
		snprintf(file, sizeof file, "%s/m-%05d-of-00003.gguf", dir, i + 1);
		write_sample(file, true, i, 3);
	}
	for (int i = 1; i <= 3; i += 2) { /* by its first and by its last part */
		snprintf(file, sizeof file, "%s/m-%05d-of-00003.gguf", dir, i);
		assert_ok(ruv_gguf_open(&g, file, 0, &err), err);
		assert_int_equal(ruv_gguf_n_parts(g), 3);
		assert_int_equal(ruv_gguf_n_tensors(g), 6);
		assert_non_null(ruv_gguf_find_key(g, "test.words")); /* of part 1 */
		const ruv_gguf_tensor *t = ruv_gguf_find_tensor(g, "part2.blocks");
		assert_int_equal(t->part, 2);
		assert_int_equal(((const unsigned char *)t->data)[0], 2);
		ruv_gguf_free(g);
	}
	assert_ok(ruv_gguf_open(&g, file, RUV_GGUF_ONE_PART, &err), err);
	assert_int_equal(ruv_gguf_n_tensors(g), 2);
	ruv_gguf_free(g);

	/* A part renamed, missing, or of another set. */
	write_sample(path("other.gguf"), true, 1, 3);
	assert_int_equal(ruv_gguf_open(&g, path("other.gguf"), 0, &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "-00002-of-00003.gguf"));
	snprintf(file, sizeof file, "%s/m-00002-of-00003.gguf", dir);
	write_sample(file, true, 0, 3);
	snprintf(file, sizeof file, "%s/m-00001-of-00003.gguf", dir);
	assert_int_not_equal(ruv_gguf_open(&g, file, 0, &err), RUV_OK);
	assert_non_null(strstr(err.message, "m-00002-of-00003.gguf"));
	snprintf(file, sizeof file, "%s/m-00002-of-00003.gguf", dir);
	unlink(file);
	snprintf(file, sizeof file, "%s/m-00001-of-00003.gguf", dir);
	assert_int_equal(ruv_gguf_open(&g, file, 0, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "m-00002-of-00003.gguf"));
}

/* ---- bytes by hand ---- */

static ruv_buf raw;

static void u32(uint32_t v)
{
	ruv_buf_append(&raw, &v, 4);
}

static void u64(uint64_t v)
{
	ruv_buf_append(&raw, &v, 8);
}

static void str(const char *s)
{
	u64(strlen(s));
	ruv_buf_append(&raw, s, strlen(s));
}

static void head(uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
	ruv_buf_init(&raw, 1 << 20);
	ruv_buf_append(&raw, "GGUF", 4);
	u32(version);
	u64(n_tensors);
	u64(n_keys);
}

static void key_u32(const char *name, uint32_t v)
{
	str(name);
	u32(RUV_GGUF_U32);
	u32(v);
}

static void info(const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t dtype, uint64_t offset)
{
	str(name);
	u32(n_dims);
	for (uint32_t i = 0; i < n_dims; i++)
		u64(ne[i]);
	u32(dtype);
	u64(offset);
}

static void data(size_t n)
{
	static const char zeros[4096];
	while (raw.len % 32)
		ruv_buf_putc(&raw, 0);
	ruv_buf_append(&raw, zeros, n);
}

/* The message must hold `what`. */
static void refused(int code, const char *what)
{
	ruv_gguf *g = NULL;
	ruv_error err = {0};
	int rc = ruv_gguf_open_memory(&g, raw.data, raw.len, 0, &err);
	if (rc != code || !strstr(err.message, what))
		fail_msg("expected %d with '%s', got %d with '%s'", code, what, rc, err.message);
	ruv_buf_release(&raw);
}

static void accepted(void)
{
	ruv_gguf *g = NULL;
	ruv_error err = {0};
	assert_ok(ruv_gguf_open_memory(&g, raw.data, raw.len, 0, &err), err);
	ruv_gguf_free(g);
	ruv_buf_release(&raw);
}

static void what_does_not_hold_is_refused(void **state)
{
	const uint64_t four[] = {4}, blocky[] = {33}, zero[] = {4, 0}, huge[] = {1ull << 40, 1ull << 40}, negative[] = {1ull << 63},
		       five[] = {1, 1, 1, 1, 1}, large[] = {1ull << 61};
	char name64[65];
	(void)state;

	/* Versions and byte order. */
	head(2, 0, 0);
	accepted();
	head(3, 0, 0);
	accepted();
	head(1, 0, 0);
	refused(RUV_EUNSUPPORTED, "version 1");
	head(4, 0, 0);
	refused(RUV_EUNSUPPORTED, "version 4");
	head(0x03000000, 0, 0);
	refused(RUV_EUNSUPPORTED, "big-endian");
	ruv_buf_init(&raw, 100);
	ruv_buf_puts(&raw, "PK\3\4 something else");
	refused(RUV_EFORMAT, "not a GGUF file");
	ruv_buf_init(&raw, 100);
	refused(RUV_EFORMAT, "too short");

	/* Counts that the file cannot hold. */
	head(3, 1ull << 60, 0);
	refused(RUV_EFORMAT, "tensors");
	head(3, 0, 1ull << 60);
	refused(RUV_EFORMAT, "keys");
	head(3, 0, 1);
	str("a.b");
	u32(RUV_GGUF_ARRAY);
	u32(RUV_GGUF_STRING);
	u64(1ull << 61);
	data(64);
	refused(RUV_EFORMAT, "a.b");
	head(3, 0, 1);
	str("a.b");
	u32(RUV_GGUF_ARRAY);
	u32(RUV_GGUF_F64);
	u64(1ull << 61);
	refused(RUV_EFORMAT, "a.b");
	head(3, 0, 1);
	str("a.b");
	u32(RUV_GGUF_STRING);
	u64(UINT64_MAX - 3);
	data(0);
	refused(RUV_EFORMAT, "a.b");

	/* Keys. */
	head(3, 0, 1);
	str("a.b");
	u32(99);
	u64(0);
	refused(RUV_EFORMAT, "99");
	head(3, 0, 1);
	str("a.b");
	u32(RUV_GGUF_ARRAY);
	u32(RUV_GGUF_ARRAY);
	u64(0);
	refused(RUV_EFORMAT, "array of arrays");
	head(3, 0, 1);
	str("a.b");
	u32(RUV_GGUF_BOOL);
	ruv_buf_putc(&raw, 2);
	refused(RUV_EFORMAT, "bool");
	head(3, 0, 2);
	key_u32("twice", 1);
	key_u32("twice", 1);
	refused(RUV_EFORMAT, "twice");
	head(3, 0, 1);
	str("");
	u32(RUV_GGUF_U32);
	u32(1);
	refused(RUV_EFORMAT, "name of key 0");
	head(3, 0, 1);
	key_u32("general.alignment", 24);
	refused(RUV_EFORMAT, "general.alignment");
	head(3, 0, 1);
	key_u32("general.alignment", 0);
	refused(RUV_EFORMAT, "general.alignment");

	/* Tensors. */
	head(3, 1, 0);
	info("ok", 1, four, RUV_F32, 0);
	data(16);
	accepted();
	memset(name64, 'n', 64);
	name64[64] = '\0';
	head(3, 1, 0);
	info(name64, 1, four, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "64 bytes");
	head(3, 1, 0);
	info("five", 5, five, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "five");
	head(3, 1, 0);
	info("zero", 2, zero, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "zero");
	head(3, 1, 0);
	info("huge", 2, huge, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "overflows");
	head(3, 1, 0);
	info("large", 1, large, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "large");
	head(3, 1, 0);
	info("negative", 1, negative, RUV_F32, 0);
	data(16);
	refused(RUV_EFORMAT, "negative");
	head(3, 1, 0);
	info("blocky", 1, blocky, RUV_Q8_0, 0);
	data(64);
	refused(RUV_EFORMAT, "blocky");
	head(3, 1, 0);
	info("odd", 1, four, 99, 0);
	data(16);
	refused(RUV_EUNSUPPORTED, "99");
	head(3, 2, 0);
	info("same", 1, four, RUV_F32, 0);
	info("same", 1, four, RUV_F32, 32);
	data(64);
	refused(RUV_EFORMAT, "same");
	head(3, 2, 0);
	info("one", 1, four, RUV_F32, 0);
	info("overlap", 1, four, RUV_F32, 0);
	data(64);
	refused(RUV_EFORMAT, "overlap");
	head(3, 2, 0);
	info("one", 1, four, RUV_F32, 0);
	info("gap", 1, four, RUV_F32, 64);
	data(96);
	refused(RUV_EFORMAT, "gap");
	head(3, 2, 0);
	info("one", 1, four, RUV_F32, 0);
	info("unpadded", 1, four, RUV_F32, 16);
	data(96);
	refused(RUV_EFORMAT, "unpadded");
	head(3, 1, 0);
	info("cut", 1, four, RUV_F32, 0);
	data(12);
	refused(RUV_EFORMAT, "cut short");
	head(3, 1, 0);
	info("late", 1, four, RUV_F32, 1ull << 62);
	data(16);
	refused(RUV_EFORMAT, "late");
}

static void every_cut_of_a_file_is_refused(void **state)
{
	char *bytes;
	size_t n;
	ruv_error err = {0};
	ruv_gguf *g = NULL;
	(void)state;

	write_sample(path("a.gguf"), false, 0, 1);
	assert_ok(ruv_file_read(&bytes, &n, path("a.gguf"), 1 << 20, &err), err);
	for (size_t cut = 0; cut + 28 < n; cut++) { /* the last 28 bytes are padding that may be missing */
		char *part = malloc(cut + 1);       /* exact, so that a read behind the end shows */
		memcpy(part, bytes, cut);
		err.message[0] = '\0';
		if (ruv_gguf_open_memory(&g, part, cut, 0, &err) == RUV_OK)
			fail_msg("accepted after %zu of %zu bytes", cut, n);
		assert_true(err.message[0] != '\0');
		free(part);
	}
	free(bytes);
}

static void unknown_types_pass_for_inspection(void **state)
{
	ruv_gguf *g = NULL;
	ruv_error err = {0};
	const uint64_t four[] = {4};
	(void)state;

	head(3, 2, 0);
	info("new", 1, four, 77, 0);
	info("after", 1, four, RUV_F32, 64);
	data(96);
	assert_ok(ruv_gguf_open_memory(&g, raw.data, raw.len, RUV_GGUF_INSPECT, &err), err);
	assert_int_equal(ruv_gguf_find_tensor(g, "new")->dtype, 77);
	ruv_gguf_free(g);
	ruv_buf_release(&raw);
}

static void the_writer_refuses_what_it_could_not_read(void **state)
{
	static const struct {
		const char *name;
		ruv_dtype dtype;
		int n_dims;
		int64_t ne0, ne1;
		const char *what;
	} bad[] = {{"", RUV_F32, 1, 4, 1, "1 to 63"},
	           {"0123456789012345678901234567890123456789012345678901234567890123", RUV_F32, 1, 4, 1, "1 to 63"},
	           {"rows", RUV_Q4_K, 1, 128, 1, "rows"},
	           {"zero", RUV_F32, 2, 4, 0, "zero"},
	           {"dims", RUV_F32, 5, 4, 1, "dims"}};
	ruv_error err = {0};
	(void)state;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		ruv_gguf_writer *w;
		assert_ok(ruv_gguf_writer_create(&w, &err), err);
		ruv_gguf_add_tensor(w, bad[i].name, bad[i].dtype, bad[i].n_dims, (int64_t[]){bad[i].ne0, bad[i].ne1, 1, 1, 1});
		ruv_gguf_set_u32(w, "later", 1); /* the first failure is what counts */
		assert_int_equal(ruv_gguf_writer_begin(w, path("never.gguf"), &err), RUV_EINVAL);
		assert_non_null(strstr(err.message, bad[i].what));
		ruv_gguf_writer_free(w);
		assert_int_not_equal(access(path("never.gguf"), F_OK), 0);
	}
	/* An unfinished file never appears, and too much data is refused. */
	ruv_gguf_writer *w;
	assert_ok(ruv_gguf_writer_create(&w, &err), err);
	ruv_gguf_add_tensor(w, "t", RUV_F32, 1, (int64_t[]){4});
	assert_ok(ruv_gguf_writer_begin(w, path("never.gguf"), &err), err);
	assert_int_equal(ruv_gguf_writer_data(w, matrix, 17, &err), RUV_EINVAL);
	assert_ok(ruv_gguf_writer_data(w, matrix, 12, &err), err);
	assert_int_equal(ruv_gguf_writer_finish(w, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "'t'"));
	ruv_gguf_writer_free(w);
	assert_int_not_equal(access(path("never.gguf"), F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_written_is_read_back),
	    cmocka_unit_test(keys_of_another_type_or_missing_are_named),
	    cmocka_unit_test(a_split_set_is_one_model),
	    cmocka_unit_test(what_does_not_hold_is_refused),
	    cmocka_unit_test(every_cut_of_a_file_is_refused),
	    cmocka_unit_test(unknown_types_pass_for_inspection),
	    cmocka_unit_test(the_writer_refuses_what_it_could_not_read),
	};
	return cmocka_run_group_tests_name("gguf", tests, make_dir, remove_dir);
}

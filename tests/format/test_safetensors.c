/* test_safetensors.c - safetensors: one file, shards, and everything that does not hold together. */
#include "test.h"

#include <unistd.h>

#include "base/file.h"
#include "format/safetensors.h"

static char dir[] = "/tmp/ruv-st-XXXXXX";
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

static size_t make(char *bytes, const char *header, size_t n_data)
{
	uint64_t n = strlen(header);
	memcpy(bytes, &n, 8);
	memcpy(bytes + 8, header, n);
	for (size_t i = 0; i < n_data; i++)
		bytes[8 + n + i] = (char)i;
	return 8 + n + n_data;
}

static void write_file(const char *name, const char *header, size_t n_data)
{
	char bytes[2048];
	ruv_error err = {0};
	size_t n = make(bytes, header, n_data);
	assert_ok(ruv_file_write(path(name), bytes, n, &err), err);
}

static void one_file_is_read(void **state)
{
	ruv_safetensors *st;
	ruv_error err = {0};
	(void)state;

	write_file("one.safetensors",
	           "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[6,14]},"
	           "\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6]},\"ids\":{\"dtype\":\"I64\",\"shape\":[],"
	           "\"data_offsets\":[14,22]}}   ",
	           22);
	assert_ok(ruv_safetensors_open(&st, path("one.safetensors"), &err), err);
	assert_int_equal(ruv_safetensors_n_tensors(st), 3);
	assert_string_equal(ruv_safetensors_at(st, 0)->name, "a.weight");
	const ruv_safetensors_tensor *t = ruv_safetensors_find(st, "b");
	assert_int_equal(t->dtype, RUV_F32);
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->shape[0], 2);
	assert_int_equal(t->n_bytes, 8);
	assert_int_equal(((const char *)t->data)[0], 6);
	t = ruv_safetensors_find(st, "ids");
	assert_int_equal(t->dtype, -1); /* listed, but no weight type */
	assert_string_equal(t->type_name, "I64");
	assert_int_equal(t->n_elements, 1);
	assert_null(ruv_safetensors_find(st, "c"));
	ruv_safetensors_free(st);
}

static void shards_are_one_model(void **state)
{
	static const char index[] =
	    "{\"metadata\":{},\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"c\":\"s1.safetensors\"}}";
	ruv_safetensors *st = NULL;
	ruv_error err = {0};
	(void)state;

	write_file("s1.safetensors",
	           "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},\"c\":{\"dtype\":\"F16\",\"shape\":[1],\"data_"
	           "offsets\":[4,6]}}",
	           6);
	write_file("s2.safetensors", "{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4);
	assert_ok(ruv_file_write(path("model.safetensors.index.json"), index, strlen(index), &err), err);
	assert_ok(ruv_safetensors_open(&st, dir, &err), err);
	assert_int_equal(ruv_safetensors_n_tensors(st), 3);
	assert_int_equal(ruv_safetensors_find(st, "c")->n_bytes, 2);
	ruv_safetensors_free(st);

	static const struct {
		const char *index, *what;
	} bad[] = {{"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}", "3 tensors"},
	           {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s1.safetensors\"}}", "'b'"},
	           {"{\"weight_map\":{\"a\":\"../s1.safetensors\"}}", "'a'"},
	           {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", "none.safetensors"},
	           {"{\"weight_map\":[]}", "weight_map"},
	           {"{\"weight_map\":{", "JSON"}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_ok(ruv_file_write(path("model.safetensors.index.json"), bad[i].index, strlen(bad[i].index), &err), err);
		assert_int_not_equal(ruv_safetensors_open(&st, dir, &err), RUV_OK);
		if (!strstr(err.message, bad[i].what))
			fail_msg("expected '%s' in '%s'", bad[i].what, err.message);
	}
	unlink(path("model.safetensors.index.json"));
	assert_int_equal(ruv_safetensors_open(&st, dir, &err), RUV_ENOTFOUND);
	assert_non_null(strstr(err.message, "model.safetensors"));
}

static void what_does_not_hold_is_refused(void **state)
{
	static const struct {
		const char *header;
		size_t n_data;
		const char *what;
	} bad[] = {
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, "JSON"},
	    {"[]", 0, "object"},
	    {"{\"a\":5}", 0, "'a'"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "'a'"},
	    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "F31"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "'a'"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "dimension 0"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}", 8, "overflows"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "cut short"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "data_offsets"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "data_offsets"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "'a'"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12, "behind the last"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_"
	     "offsets\":[4,12]}}",
	     12, "overlaps"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_"
	     "offsets\":[8,16]}}",
	     16, "JSON"},
	    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "9 dimensions"},
	};
	ruv_safetensors *st = NULL;
	ruv_error err = {0};
	char bytes[2048];
	uint64_t huge = 1ull << 62;
	(void)state;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		size_t n = make(bytes, bad[i].header, bad[i].n_data);
		if (ruv_safetensors_open_memory(&st, bytes, n, &err) == RUV_OK || !strstr(err.message, bad[i].what))
			fail_msg("case %zu: expected '%s', got '%s'", i, bad[i].what, err.message);
	}
	memcpy(bytes, &huge, 8);
	assert_int_equal(ruv_safetensors_open_memory(&st, bytes, 100, &err), RUV_EFORMAT);
	assert_int_equal(ruv_safetensors_open_memory(&st, bytes, 5, &err), RUV_EFORMAT);
	assert_int_equal(ruv_safetensors_open_memory(&st, NULL, 0, &err), RUV_EFORMAT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_file_is_read),
	    cmocka_unit_test(shards_are_one_model),
	    cmocka_unit_test(what_does_not_hold_is_refused),
	};
	return cmocka_run_group_tests_name("safetensors", tests, make_dir, remove_dir);
}

/* test_base.c - the base layer: errors, memory, files, ids, random numbers, the thread pool. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/uuid.h"

static void errors_carry_code_place_and_values(void **state)
{
	ruv_error err = {0};
	(void)state;
	assert_int_equal(ruv_fail(&err, RUV_ELIMIT, "test", "%d is over %d", 5, 4), RUV_ELIMIT);
	assert_int_equal(err.code, RUV_ELIMIT);
	assert_string_equal(err.message, "5 is over 4");
	assert_int_equal(ruv_error_prefix(&err, RUV_EIO, "file %s: ", "a.gguf"), RUV_ELIMIT);
	assert_string_equal(err.message, "file a.gguf: 5 is over 4");
	assert_string_equal(ruv_status_name(RUV_ECONTEXT), "context");
	assert_string_equal(ruv_status_name(12345), "unknown");
	assert_int_equal(ruv_fail(NULL, RUV_EIO, "test", "no place to write to"), RUV_EIO);
}

static void a_buffer_stops_at_its_maximum_and_stays_failed(void **state)
{
	ruv_buf buf;
	(void)state;
	ruv_buf_init(&buf, 10);
	assert_int_equal(ruv_buf_puts(&buf, "12345"), RUV_OK);
	assert_int_equal(ruv_buf_printf(&buf, "%d", 67890), RUV_OK);
	assert_string_equal(ruv_buf_cstr(&buf), "1234567890");
	assert_int_equal(ruv_buf_putc(&buf, 'x'), RUV_ELIMIT);
	assert_int_equal(ruv_buf_puts(&buf, ""), RUV_ELIMIT);
	assert_null(ruv_buf_take(&buf));
	ruv_buf_release(&buf);
}

static void an_arena_aligns_and_refuses_overflow(void **state)
{
	ruv_arena arena;
	(void)state;
	ruv_arena_init(&arena);
	for (size_t n = 1; n < 100000; n *= 3) {
		unsigned char *p = ruv_arena_calloc(&arena, n, 1);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 16, 0);
		assert_int_equal(p[0] | p[n - 1], 0);
		memset(p, 0xff, n);
	}
	assert_null(ruv_arena_calloc(&arena, SIZE_MAX / 2, 4));
	assert_null(ruv_arena_alloc(&arena, SIZE_MAX));
	ruv_arena_release(&arena);
}

static void an_output_file_appears_whole_or_not_at_all(void **state)
{
	char dir[] = "/tmp/ruv-test-XXXXXX", path[64], *data;
	ruv_error err = {0};
	ruv_outfile out;
	size_t size;
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/file", dir);
	assert_ok(ruv_file_write(path, "old", 3, &err), err);
	assert_ok(ruv_outfile_open(&out, path, &err), err);
	fputs("half of the n", out.stream);
	ruv_outfile_release(&out); /* as after a failure */
	assert_ok(ruv_file_read(&data, &size, path, 100, &err), err);
	assert_string_equal(data, "old");
	free(data);
	assert_int_equal(ruv_file_read(&data, &size, path, 2, &err), RUV_ELIMIT);
	assert_int_equal(ruv_file_read(&data, &size, dir, 2, &err), RUV_EINVAL);
	assert_int_equal(ruv_outfile_open(&out, dir, &err), RUV_EINVAL); /* what is no regular file is not replaced */
	assert_int_equal(ruv_outfile_open_unnamed(&out, "/dev/null", &err), RUV_EINVAL);
	unlink(path);
	assert_int_equal(rmdir(dir), 0); /* no temporary file was left */
	assert_int_equal(ruv_file_read(&data, &size, path, 2, &err), RUV_ENOTFOUND);
}

static void a_temporary_directory_goes_with_all_that_is_in_it(void **state)
{
	char dir[256], deep[300], link[300], kept[256], file[300], small[8];
	struct stat st;
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_dir_create_temporary(dir, sizeof dir, "test", &err), err);
	assert_ok(ruv_dir_create_temporary(kept, sizeof kept, "test", &err), err);
	assert_string_not_equal(dir, kept);
	assert_non_null(strstr(dir, "/ruvllm-test-"));
	snprintf(file, sizeof file, "%s/file", kept);
	assert_ok(ruv_file_write(file, "x", 1, &err), err);
	snprintf(deep, sizeof deep, "%s/a/.b", dir);
	assert_ok(ruv_dir_create(deep, &err), err);
	snprintf(link, sizeof link, "%s/a/link", dir);
	assert_int_equal(symlink(kept, link), 0);
	assert_ok(ruv_dir_remove(dir, &err), err);
	assert_int_not_equal(stat(dir, &st), 0);
	assert_int_equal(stat(file, &st), 0); /* what a link led to stays */
	assert_ok(ruv_dir_remove(kept, &err), err);
	assert_int_equal(ruv_dir_remove(kept, &err), RUV_EIO);
	assert_non_null(strstr(err.message, kept));
	assert_int_equal(ruv_dir_create_temporary(small, sizeof small, "test", &err), RUV_ELIMIT);
}

static void hashes_match_known_values(void **state)
{
	char hex[65];
	ruv_error err = {0};
	(void)state;
	assert_ok(ruv_hash_sha256(hex, "abc", 3, &err), err);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_true(ruv_hash64("abc", 3, 0) == 0x78af5f94892f3950u);
}

static void ids_increase_and_survive_text(void **state)
{
	ruv_uuid last = ruv_uuid_make(), back;
	ruv_error err = {0};
	char text[37];
	(void)state;
	for (int i = 0; i < 20000; i++) {
		ruv_uuid id = ruv_uuid_make();
		assert_true(memcmp(&last, &id, 8) < 0);
		last = id;
	}
	assert_ok(ruv_uuid_parse(&back, ruv_uuid_format(last, text), &err), err);
	assert_memory_equal(&back, &last, 16);
	assert_int_equal(text[14], '7');
	assert_int_equal(ruv_uuid_parse(&back, "not an id", &err), RUV_EINVAL);
	assert_int_equal(ruv_uuid_parse(&back, "01932c5e-8f3a-7cc1-b1a2-5d0c3f6e7a9g", &err), RUV_EINVAL);
}

static void random_numbers_repeat_with_the_seed(void **state)
{
	ruv_rng a, b;
	double sum = 0, square = 0;
	(void)state;
	ruv_rng_init(&a, 7);
	ruv_rng_init(&b, 7);
	for (int i = 0; i < 20000; i++) {
		double x = ruv_rng_normal(&a);
		assert_true(x == ruv_rng_normal(&b));
		sum += x;
		square += x * x;
		assert_true(ruv_rng_below(&a, 10) == ruv_rng_below(&b, 10));
	}
	assert_true(sum / 20000 < 0.05 && sum / 20000 > -0.05);
	assert_true(square / 20000 < 1.05 && square / 20000 > 0.95);
}

struct tally {
	atomic_int hits[1000];
	atomic_int inside[64];
};

static void count_task(void *arg, int task, int thread)
{
	struct tally *tally = arg;
	assert_int_equal(atomic_fetch_add(&tally->inside[thread], 1), 0); /* an index belongs to one thread at a time */
	atomic_fetch_add(&tally->hits[task], 1);
	atomic_fetch_sub(&tally->inside[thread], 1);
}

static void every_task_runs_once(void **state)
{
	static const int sizes[] = {1, 2, 3, 8, 16};
	ruv_error err = {0};
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		ruv_pool *pool;
		assert_ok(ruv_pool_create(&pool, sizes[s], &err), err);
		for (int round = 0; round < 300; round++) {
			struct tally tally = {0};
			int n = round % 1000 == 999 ? 0 : (round * 37) % 1000;
			if (round % 50 == 0)
				usleep(300); /* let the workers fall asleep now and then */
			ruv_pool_run(pool, count_task, &tally, n);
			for (int i = 0; i < 1000; i++)
				assert_int_equal(tally.hits[i], i < n);
		}
		ruv_pool_free(pool);
	}
	assert_int_equal(ruv_pool_create(&(ruv_pool *){NULL}, 100000, &err), RUV_EINVAL);
}

static void *burn(void *arg)
{
	volatile atomic_bool *stop = arg;
	while (!*stop)
		;
	return NULL;
}

/* More busy threads than cores: workers are parked and come back, and every task is still done once. */
static void pool_shares_cores_with_other_work(void **state)
{
	static const int sizes[] = {2, 5, 64};
	atomic_bool stop = false;
	pthread_t burners[3];
	ruv_error err = {0};
	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&burners[i], NULL, burn, &stop), 0);
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		ruv_pool *pool;
		assert_ok(ruv_pool_create(&pool, sizes[s], &err), err);
		int64_t end = ruv_clock_now_ns() + 300000000;
		do {
			struct tally tally = {0};
			ruv_pool_run(pool, count_task, &tally, 900);
			for (int i = 0; i < 1000; i++)
				assert_int_equal(tally.hits[i], i < 900);
			assert_in_range(ruv_pool_n_active(pool), 1, sizes[s]);
		} while (ruv_clock_now_ns() < end);
		ruv_pool_free(pool);
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(burners[i], NULL);
}

struct caller {
	ruv_pool *pool;
	struct tally *tally;
};

static void *call_often(void *arg)
{
	struct caller *caller = arg;
	for (int i = 0; i < 200; i++)
		ruv_pool_run(caller->pool, count_task, caller->tally, i % 7);
	return NULL;
}

static void two_callers_take_turns(void **state)
{
	struct tally tally = {0};
	struct caller caller = {.tally = &tally};
	pthread_t threads[2];
	ruv_error err = {0};
	(void)state;
	assert_ok(ruv_pool_create(&caller.pool, 3, &err), err);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, call_often, &caller);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ruv_pool_free(caller.pool);
}

static void the_processor_is_described(void **state)
{
	char text[256];
	const ruv_cpu *cpu = ruv_cpu_get();
	(void)state;
	assert_true(cpu->n_cores >= 1);
	assert_true(strlen(cpu->name) > 0);
	assert_true(!cpu->avx512 || cpu->avx2);
	ruv_cpu_features(cpu, text, sizeof text);
	assert_true(!cpu->avx2 || strstr(text, "avx2"));
	ruv_cpu_features(cpu, text, 8); /* too small: cut, not overrun */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(errors_carry_code_place_and_values),
	    cmocka_unit_test(a_buffer_stops_at_its_maximum_and_stays_failed),
	    cmocka_unit_test(an_arena_aligns_and_refuses_overflow),
	    cmocka_unit_test(an_output_file_appears_whole_or_not_at_all),
	    cmocka_unit_test(a_temporary_directory_goes_with_all_that_is_in_it),
	    cmocka_unit_test(hashes_match_known_values),
	    cmocka_unit_test(ids_increase_and_survive_text),
	    cmocka_unit_test(random_numbers_repeat_with_the_seed),
	    cmocka_unit_test(every_task_runs_once),
	    cmocka_unit_test(pool_shares_cores_with_other_work),
	    cmocka_unit_test(two_callers_take_turns),
	    cmocka_unit_test(the_processor_is_described),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

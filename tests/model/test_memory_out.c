/* test_memory_out.c - every allocation of opening, running, forking, saving and embedding fails once: each time the call says so,
 * nothing leaks (the sanitizers look) and nothing crashes. The linker puts the functions below in place of the allocator's. */
#include "fixture.h"

static long countdown = -1; /* allocations until one fails; negative: none does */

static bool fails(void)
{
	return countdown >= 0 && countdown-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
	return fails() ? 12 /* ENOMEM */ : __real_posix_memalign(p, align, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return fails() ? NULL : __real_aligned_alloc(align, n);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

static char path[300];

static int generate_all(ruv_error *err)
{
	ruv_model *model = NULL;
	ruv_session *s = NULL, *fork = NULL;
	ruv_generation g = {0};
	ruv_token_list list = {0};
	const ruv_message messages[] = {{.role = "user", .content = "the queen"}};
	int rc;
	if ((rc = ruv_model_open(&model, fixture_path("lfm2.gguf"), &(ruv_model_options){.n_threads = 1, .n_batch = 8}, err)) ||
	    (rc = ruv_model_chat_tokens(model, messages, 1, NULL, true, &list, err)) ||
	    (rc = ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = 64, .n_pool = 256}, err)) ||
	    (rc = ruv_generate(s, list.ids, list.n, &(ruv_generate_params){.max_tokens = 3, .n_logprobs = 2}, &g, err)) ||
	    (rc = ruv_session_fork(&fork, s, err)) || (rc = ruv_session_decode(fork, 12, err)) ||
	    (rc = ruv_session_save(fork, path, err)) || (rc = ruv_session_restore(s, path, err)))
		goto done;
done:
	ruv_generation_release(&g);
	ruv_token_list_release(&list);
	ruv_session_free(fork);
	ruv_session_free(s);
	ruv_model_free(model);
	return rc;
}

static int embed_all(ruv_error *err)
{
	ruv_model *model = NULL;
	ruv_embedder *e = NULL;
	static const char *const texts[] = {"the queen and us", "st"};
	float v[64];
	int rc = ruv_model_open(&model, fixture_path("lfm2-encoder.gguf"), &(ruv_model_options){.n_threads = 1}, err);
	if (rc == RUV_OK)
		rc = ruv_embedder_open(&e, model, 0, err);
	if (rc == RUV_OK)
		rc = ruv_embedder_embed(e, texts, 2, RUV_EMBED_QUERY, v, NULL, err);
	ruv_embedder_free(e);
	ruv_model_free(model);
	return rc;
}

static void run(int (*work)(ruv_error *err), const char *what)
{
	ruv_error err = {0};
	assert_ok(work(&err), err); /* what happens once only (tables made at the first use) has happened */
	for (long n = 0; n < 100000; n++) {
		err = (ruv_error){0};
		countdown = n;
		int rc = work(&err);
		bool untouched = countdown >= 0;
		countdown = -1;
		if (untouched) {
			assert_ok(rc, err);
			print_message("%s: %ld allocations failed in turn\n", what, n);
			return;
		}
		if (rc != RUV_ENOMEM && rc != RUV_OK) /* a failure that only costs speed may be absorbed */
			fail_msg("allocation %ld of %s: %s (%s)", n, what, err.message, ruv_status_name(rc));
	}
	fail_msg("%s never ends", what);
}

static void test_out_of_memory(void **state)
{
	(void)state;
	const char *dir = getenv("TMPDIR");
	snprintf(path, sizeof path, "%s/ruv-memory-%d", dir && *dir ? dir : "/tmp", (int)getpid());
	run(generate_all, "generating");
	run(embed_all, "embedding");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_out_of_memory)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

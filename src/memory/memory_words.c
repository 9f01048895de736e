/* memory_words.c - which index answers a search by words: the store's own, or one in memory once there is enough asked of it.
 *
 * A process that asks once pays the store's search, which is ready; one that asks again and again has the index in memory built
 * behind, by a thread at low priority, after its first few questions. From then on it follows the event log like the vector index.
 * Layer: memory. */
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/memory_impl.h"

enum { ASKED_BEFORE = 4, NICE = 10 };

typedef struct building {
	ruv_memory *m;
	ruv_words *words;
} building;

static int build_row(void *user, const ruv_store_row *row, ruv_error *err)
{
	building *b = user;

	if (atomic_load(&b->m->stopping))
		return ruv_fail(err, RUV_ECANCELLED, "memory", "the memory is being closed");
	return row->gone ? RUV_OK : ruv_words_put(b->words, row, err);
}

static int follow_row(void *user, const ruv_store_row *row, ruv_error *err)
{
	ruv_words *words = user;

	if (!row->gone)
		return ruv_words_put(words, row, err);
	ruv_words_remove(words, row->key);
	return RUV_OK;
}

int ruv_memory_load_words(ruv_memory *m, ruv_error *err)
{
	building b = {.m = m};
	int64_t seq = 0;
	int rc = RUV_OK;

	if (atomic_load(&m->words))
		return RUV_OK;
	rc = ruv_words_create(&b.words, m->store, err);
	if (!rc)
		rc = m->store->ops->scan_words(m->store, &seq, build_row, &b, err);
	if (!rc) {
		ruv_words_trim(b.words);
		pthread_mutex_lock(&m->words_lock);
		if (!atomic_load(&m->words)) {
			atomic_store(&m->words_seq, seq);
			atomic_store(&m->words, b.words);
			b.words = NULL;
		}
		pthread_mutex_unlock(&m->words_lock);
	}
	ruv_words_free(b.words);
	return rc;
}

static void *run(void *arg)
{
	ruv_error err = {0};
	int rc;

	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	rc = ruv_memory_load_words(arg, &err);
	if (rc && rc != RUV_ECANCELLED)
		ruv_log(RUV_LOG_WARN, "memory", "no word index in memory, the store's answers: %s", err.message);
	return NULL;
}

static void start(ruv_memory *m)
{
	pthread_mutex_lock(&m->words_lock);
	if (!m->words_started && !atomic_load(&m->stopping)) {
		m->words_started = true; /* once, whatever becomes of it */
		m->words_threaded = !pthread_create(&m->words_thread, NULL, run, m);
	}
	pthread_mutex_unlock(&m->words_lock);
}

int ruv_memory_sync_words(ruv_memory *m, bool wait, ruv_error *err)
{
	ruv_words *words = atomic_load(&m->words);
	int64_t seq = 0, have;
	int rc;

	if (!words || (!wait && atomic_load(&m->n_following)))
		return RUV_OK;
	if (pthread_mutex_trylock(&m->words_lock)) {
		if (!wait)
			return RUV_OK;
		pthread_mutex_lock(&m->words_lock);
	}
	have = atomic_load(&m->words_seq);
	rc = m->store->ops->last_event(m->store, &seq, err);
	if (!rc && seq != have)
		rc = m->store->ops->changes_words(m->store, have, &seq, follow_row, words, err);
	if (!rc)
		atomic_store(&m->words_seq, seq);
	pthread_mutex_unlock(&m->words_lock);
	return rc;
}

int ruv_memory_lexical(ruv_memory *m, ruv_store_match *out, int *n, const ruv_store_term *terms, int n_terms,
                       const ruv_memory_filter *filter, int limit, ruv_error *err)
{
	ruv_words *words = atomic_load(&m->words);
	bool able = false;
	int rc = RUV_OK;

	if (words) {
		rc = ruv_memory_sync_words(m, false, err);
		if (!rc)
			rc = ruv_words_search(words, out, n, &able, terms, n_terms, filter, limit, ruv_clock_wall_ms(), err);
		if (rc || able)
			return rc;
	} else if (!m->index_options.no_background && atomic_fetch_add(&m->n_asked, 1) >= ASKED_BEFORE) {
		start(m);
	}
	return m->store->ops->lexical(m->store, out, n, terms, n_terms, filter, limit, err);
}

void ruv_memory_words_free(ruv_memory *m)
{
	bool threaded;

	atomic_store(&m->stopping, true);
	pthread_mutex_lock(&m->words_lock);
	threaded = m->words_threaded;
	m->words_threaded = false;
	pthread_mutex_unlock(&m->words_lock);
	if (threaded)
		pthread_join(m->words_thread, NULL);
	ruv_words_free(atomic_load(&m->words));
}

// bench_ann_peers.cc - our vector index beside hnswlib and pyglass: one process, the same vectors, in turns, CPU time of one
// thread.
//
// Not part of the build, because the peers are not part of this repository. With their sources in HNSWLIB and PYGLASS:
//   g++ -O3 -march=native -std=c++20 -fopenmp -Iinclude -Isrc -I$HNSWLIB -I$PYGLASS -I$PYGLASS/third_party/helpa -DWITH_GLASS
//       bench/bench_ann_peers.cc BUILD/lib/libruvllm.a -lxxhash -lcrypto -o bench_ann_peers
// (without -DWITH_GLASS, hnswlib alone).
//   bench_ann_peers FILE DIM N QUERIES M EFC [--keep DIR [--seconds S]] [--no-table] [--graft] [bits...]
// FILE: raw float32, DIM a vector; the last QUERIES are the queries. Truth is an exact scan. Every row of the table is one ef,
// every index asked in turns of 100 queries, three times, of which the last two count; "codes" is ours without any F32 vector. The
// builds use two threads, one after the other. With --keep the indexes and the time they took are kept in DIR, and after S seconds
// the program saves what it has and ends with 3: ask again, and it goes on (pyglass builds in one piece, so keep it out of this).
// --graft: hnswlib does not build, it searches the graph of the first of ours that DIR keeps, its own F32 vectors beside: where its
// own build takes too long. Its links are then ours; what it does with them, and its memory, are its own.
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hnswlib/hnswlib.h"
extern "C" {
#include "memory/codes.h"
#include "memory/hnsw.h"
}
#ifdef WITH_GLASS
#include "glass/hnsw/hnsw.hpp"
#include "glass/searcher/graph_searcher.hpp"
#endif

static double seconds(clockid_t clock)
{
	timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// An index in the table: asks for k of query q at ef; ids to `ids`, returns how many.
struct peer {
	const char *name;
	virtual int ask(const float *q, int k, int ef, uint32_t *ids) = 0;
	virtual ~peer()
	{
	}
	explicit peer(const char *n) : name(n)
	{
	}
};

struct ours : peer {
	ruv_hnsw *x;
	ruv_hnsw_rows rows;
	ours(const char *n, ruv_hnsw *index, ruv_hnsw_rows r) : peer(n), x(index), rows(r)
	{
	}
	int ask(const float *q, int k, int ef, uint32_t *ids) override
	{
		ruv_hnsw_query query = {};
		ruv_hnsw_hit hits[64];
		query.k = k;
		query.ef = ef;
		query.how = RUV_HNSW_GRAPH;
		query.rows = &rows;
		int n = ruv_hnsw_search(x, q, &query, hits);
		for (int i = 0; i < n; i++)
			ids[i] = hits[i].id;
		return n;
	}
};

struct theirs : peer {
	hnswlib::HierarchicalNSW<float> &h;
	explicit theirs(hnswlib::HierarchicalNSW<float> &index) : peer("hnswlib"), h(index)
	{
	}
	int ask(const float *q, int k, int ef, uint32_t *ids) override
	{
		h.setEf((size_t)ef);
		auto r = h.searchKnn(q, (size_t)k);
		int n = (int)r.size();
		for (int i = n; i-- > 0; r.pop())
			ids[i] = (uint32_t)r.top().second;
		return n;
	}
};

// How far a kept index is, and what it took, in a file beside it.
struct kept {
	size_t n;
	double wall, cpu, wall0, cpu0;
	void start()
	{
		wall0 = seconds(CLOCK_MONOTONIC);
		cpu0 = seconds(CLOCK_PROCESS_CPUTIME_ID);
	}
	void stop(size_t added)
	{
		wall += seconds(CLOCK_MONOTONIC) - wall0;
		cpu += seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu0;
		n += added;
	}
	void read(const std::string &path)
	{
		FILE *f = fopen((path + ".took").c_str(), "r");
		if (f && fscanf(f, "%zu %lf %lf", &n, &wall, &cpu) != 3)
			n = 0;
		if (f)
			fclose(f);
	}
	void write(const std::string &path)
	{
		FILE *f = fopen((path + ".took").c_str(), "w");
		if (!f || fprintf(f, "%zu %f %f\n", n, wall, cpu) < 0 || fclose(f))
			perror(path.c_str()), exit(1);
	}
};

// The links of a segment file (hnsw_file.c and hnsw_impl.h say where they are) for an hnswlib of the same M.
static void graft(hnswlib::HierarchicalNSW<float> &h, const std::string &path, const float *v, size_t n, size_t dim)
{
	struct {
		char magic[8];
		uint32_t version, order, dimension, metric, bits, m, efc, efs;
		uint64_t seed;
		uint32_t n_ids, n_upper_words, n_free_words, record_bytes;
		uint64_t n_live, entry, file_bytes;
	} head;
	auto page = [](uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; };
	FILE *f = fopen(path.c_str(), "rb");
	if (!f || fread(&head, sizeof head, 1, f) != 1 || head.n_ids != n || head.dimension != dim || head.m != h.maxM_)
		perror(path.c_str()), exit(1);
	uint64_t at = 4096 + page(4ull * dim) + page(8ull * n), records = (uint64_t)n * head.record_bytes;
	std::vector<uint32_t> uppers(head.n_upper_words);
	std::vector<unsigned char> record(head.record_bytes);
	if (fseek(f, (long)at, SEEK_SET) || fread(uppers.data(), 4, uppers.size(), f) != uppers.size() ||
	    fseek(f,
	          (long)(at + page(4ull * uppers.size()) + page(4ull * head.n_free_words) +
	                 page((records + (1 << 20) - 1) / (1 << 20) * 8)),
	          SEEK_SET))
		perror(path.c_str()), exit(1);
	ruv_code_format format;
	ruv_code_format_init(&format, (int)dim, (int)head.bits, false);
	auto put = [&](hnswlib::linklistsizeint *list, const uint32_t *from) {
		h.setListCount(list, (unsigned short)from[0]);
		memcpy(list + 1, from + 1, 4ull * from[0]);
	};
	for (size_t i = 0; i < n; i++) {
		if (fread(record.data(), head.record_bytes, 1, f) != 1)
			perror(path.c_str()), exit(1);
		const uint32_t *tail = (const uint32_t *)(record.data() + format.n_bytes + sizeof(ruv_code_header));
		uint32_t level = tail[1];
		memset(h.data_level0_memory_ + i * h.size_data_per_element_, 0, h.size_data_per_element_);
		h.setExternalLabel((hnswlib::tableint)i, i);
		memcpy(h.getDataByInternalId((hnswlib::tableint)i), v + i * dim, 4 * dim);
		h.label_lookup_[i] = (hnswlib::tableint)i;
		h.element_levels_[i] = (int)level;
		put(h.get_linklist0((hnswlib::tableint)i), tail + 4);
		if (level) {
			h.linkLists_[i] = (char *)calloc(level, h.size_links_per_element_ + 1);
			for (uint32_t l = 1; l <= level; l++)
				put(h.get_linklist((hnswlib::tableint)i, (int)l), uppers.data() + tail[2] + (l - 1) * (1 + head.m));
		}
	}
	h.cur_element_count = n;
	h.enterpoint_node_ = (hnswlib::tableint)head.entry;
	h.maxlevel_ = (int)(head.entry >> 32);
	fclose(f);
}

#ifdef WITH_GLASS
struct glassy : peer {
	std::unique_ptr<glass::GraphSearcherBase> s;
	glassy(const char *n, std::unique_ptr<glass::GraphSearcherBase> searcher) : peer(n), s(std::move(searcher))
	{
	}
	int ask(const float *q, int k, int ef, uint32_t *ids) override
	{
		s->SetEf(ef);
		s->Search(q, k, (int32_t *)ids, nullptr);
		return k;
	}
};
#endif

int main(int argc, char **argv)
{
	if (argc < 7)
		return fprintf(stderr,
		               "bench_ann_peers FILE DIM N QUERIES M EFC [--keep DIR [--seconds S]] [--no-table] [bits...]\n"),
		       2;
	const char *file = argv[1];
	const size_t dim = (size_t)atoi(argv[2]);
	size_t n = (size_t)atoll(argv[3]), nq = (size_t)atoi(argv[4]);
	const int m = atoi(argv[5]), efc = atoi(argv[6]);
	std::vector<int> bits;
	std::string dir;
	double budget = 1e9;
	bool table = true, grafted = false;
	for (int i = 7; i < argc; i++)
		if (!strcmp(argv[i], "--keep") && i + 1 < argc)
			dir = argv[++i];
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			budget = atof(argv[++i]);
		else if (!strcmp(argv[i], "--no-table"))
			table = false;
		else if (!strcmp(argv[i], "--graft"))
			grafted = true;
		else
			bits.push_back(atoi(argv[i]));
	if (bits.empty())
		bits = {8, 4};

	FILE *f = fopen(file, "rb");
	if (!f)
		return perror(file), 1;
	fseek(f, 0, SEEK_END);
	size_t total = (size_t)ftell(f) / (4 * dim);
	n = std::min(n, total - nq);
	float *v = (float *)aligned_alloc(64, ((n + nq) * dim * 4 + 63) / 64 * 64), *q = v + n * dim;
	rewind(f);
	if (fread(v, 4 * dim, n, f) != n || fseek(f, -(long)(4 * dim * nq), SEEK_END) || fread(q, 4 * dim, nq, f) != nq)
		return fprintf(stderr, "cannot read %s\n", file), 1;
	fclose(f);
	for (size_t i = 0; i < n + nq; i++) {
		double s = 0;
		for (size_t j = 0; j < dim; j++)
			s += (double)v[i * dim + j] * v[i * dim + j];
		for (size_t j = 0; j < dim; j++)
			v[i * dim + j] = (float)(v[i * dim + j] / sqrt(s));
	}

	const double until = seconds(CLOCK_MONOTONIC) + budget;
	printf("%zu x %zu, %zu queries, M %d, efConstruction %d\n", n, dim, nq, m, efc);
	fflush(stdout);

	std::vector<std::unique_ptr<peer>> all;
	ruv_error err = {};
	ruv_pool *pool;
	if (ruv_pool_create(&pool, 2, &err))
		return 1;
	std::vector<int64_t> keys(n);
	for (size_t i = 0; i < n; i++)
		keys[i] = (int64_t)i + 1;
	ruv_hnsw_rows rows = {};
	rows.base = v;
	rows.stride = dim;
	double our_cpu = 0;
	for (int b : bits) {
		std::string path = dir + "/ours" + std::to_string(b) + "-" + std::to_string(m) + "-" + std::to_string(efc);
		ruv_hnsw_params p;
		ruv_hnsw *x = nullptr;
		kept state = {};
		ruv_hnsw_params_for(&p, (int)dim, RUV_HNSW_IP, (int64_t)n);
		p.m = m;
		p.ef_construction = efc;
		p.bits = b;
		if (!dir.empty())
			state.read(path);
		if (state.n ? ruv_hnsw_open_file(&x, path.c_str(), RUV_HNSW_READ, 0, nullptr, &err) : ruv_hnsw_create(&x, &p, &err))
			return puts(err.message), 1;
		bool changed = false;
		while (state.n < n && seconds(CLOCK_MONOTONIC) < until) {
			size_t step = dir.empty() ? n : std::min<size_t>(n - state.n, 8192);
			ruv_hnsw_rows some = {};
			some.base = v + state.n * dim;
			some.stride = dim;
			state.start();
			if (ruv_hnsw_add(x, &some, keys.data() + state.n, (int)step, nullptr, pool, &err))
				return puts(err.message), 1;
			state.stop(step);
			changed = true;
		}
		if (!dir.empty() && changed) {
			if (ruv_hnsw_save(x, path.c_str(), "bench", &err))
				return puts(err.message), 1;
			state.write(path);
		}
		if (state.n < n)
			return printf("ours, %d bits: %zu vectors in %.1f s of CPU so far\n", b, state.n, state.cpu), 3;
		our_cpu = our_cpu ? our_cpu : state.cpu;
		ruv_hnsw_stats st;
		ruv_hnsw_get_stats(x, &st);
		ruv_hnsw_report report;
		int rc = ruv_hnsw_check(x, &report, &err);
		printf("ours, %d bits: built in %.1f s (%.1f s of CPU), %.0f bytes a vector beside the F32, check %d, %lld "
		       "unreachable\n",
		       b, state.wall, state.cpu, (double)st.n_bytes / (double)n, rc, (long long)report.n_unreachable);
		fflush(stdout);
		all.push_back(std::make_unique<ours>(b == 8 ? "ours 8" : b == 4 ? "ours 4" : "ours 1", x, rows));
		if (b == 8)
			all.push_back(std::make_unique<ours>("codes 8", x, ruv_hnsw_rows{}));
	}
	hnswlib::InnerProductSpace space(dim);
	kept state = {};
	std::string our_path = dir + "/ours" + std::to_string(bits[0]) + "-" + std::to_string(m) + "-" + std::to_string(efc);
	std::string path = dir + "/hnswlib-" + std::to_string(m) + "-" + std::to_string(efc);
	if (!dir.empty() && !grafted)
		state.read(path);
	auto made = state.n ? std::make_unique<hnswlib::HierarchicalNSW<float>>(&space, path, false, n)
	                    : std::make_unique<hnswlib::HierarchicalNSW<float>>(&space, n, (size_t)m, (size_t)efc);
	hnswlib::HierarchicalNSW<float> &h = *made;
	h.ef_construction_ = (size_t)efc;
	if (grafted) {
		graft(h, our_path, v, n, dim);
		puts("hnswlib searches our graph");
		all.push_back(std::make_unique<theirs>(h));
	} else {
		size_t first = state.n;
		state.start();
		if (!first)
			h.addPoint(v, 0);
		std::atomic<size_t> next{first ? first : 1};
		auto work = [&] {
			while (seconds(CLOCK_MONOTONIC) < until) {
				size_t a = next++;
				if (a >= n)
					break;
				h.addPoint(v + a * dim, a);
			}
		};
		std::thread t1(work), t2(work);
		t1.join();
		t2.join();
		state.stop(h.cur_element_count - first);
		if (!dir.empty() && state.n > first) {
			h.saveIndex(path);
			state.write(path);
		}
		if (state.n < n)
			return printf("hnswlib: %zu vectors in %.1f s of CPU so far\n", state.n, state.cpu), 3;
		size_t upper = 0;
		for (size_t i = 0; i < n; i++)
			upper += (size_t)h.element_levels_[i] * h.size_links_per_element_;
		printf("hnswlib: built in %.1f s (%.1f s of CPU, %.2f times ours), %.0f bytes a vector with the F32 inside\n",
		       state.wall, state.cpu, state.cpu / our_cpu,
		       (double)h.size_data_per_element_ + 8 + 4 + (double)upper / (double)n);
		fflush(stdout);
		all.push_back(std::make_unique<theirs>(h));
	}
	if (!table)
		return 0;
#ifdef WITH_GLASS
	{
		double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
		omp_set_num_threads(2);
		auto builder = glass::create_hnsw("IP", "SQ8U", 2 * m, efc);
		glass::Graph<int> graph = builder->Build(v, (int)n, (int)dim);
		wall = seconds(CLOCK_MONOTONIC) - wall;
		cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
		printf("pyglass: built in %.1f s (%.1f s of CPU, %.2f times ours)\n", wall, cpu, cpu / our_cpu);
		std::unique_ptr<glass::GraphSearcherBase> s = glass::create_searcher(std::move(graph), "IP", "SQ8U", "FP32");
		s->SetData(v, (int)n, (int)dim);
		omp_set_num_threads(1);
		s->SetEf(64);
		s->Optimize(1);
		fflush(stdout);
		all.push_back(std::make_unique<glassy>("pyglass", std::move(s)));
	}
#endif
	const int K = 64;
	std::vector<std::vector<uint32_t>> truth(nq);
	const ruv_code_kernels *kernels = ruv_code_kernels_get();
	{
		std::atomic<size_t> next{0};
		auto work = [&] {
			std::vector<std::pair<float, uint32_t>> d(n);
			for (size_t a; (a = next++) < nq;) {
				for (size_t i = 0; i < n; i++)
					d[i] = {-kernels->dot(q + a * dim, v + i * dim, (int)dim), (uint32_t)i};
				std::partial_sort(d.begin(), d.begin() + K, d.end());
				for (int i = 0; i < K; i++)
					truth[a].push_back(d[(size_t)i].second);
			}
		};
		std::thread t1(work), t2(work);
		t1.join();
		t2.join();
	}
	for (int k : {10, 64}) {
		printf("k = %d\n%5s", k, "ef");
		for (auto &p : all)
			printf(" | %-7s recall      q/s  p50  p99", p->name);
		puts("");
		for (int ef : {16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 512, 768}) {
			if (ef < k)
				continue;
			std::vector<double> sum(all.size());
			std::vector<long> found(all.size());
			std::vector<std::vector<double>> took(all.size());
			for (int pass = 0; pass < 3; pass++)
				for (size_t first = 0; first < nq; first += 100)
					for (size_t s = 0; s < all.size(); s++)
						for (size_t a = first; a < std::min(first + 100, nq); a++) {
							uint32_t ids[64];
							double t = seconds(CLOCK_THREAD_CPUTIME_ID);
							int got = all[s]->ask(q + a * dim, k, ef, ids);
							t = seconds(CLOCK_THREAD_CPUTIME_ID) - t;
							if (!pass)
								continue;
							sum[s] += t;
							took[s].push_back(t);
							for (int i = 0; i < got; i++)
								for (int j = 0; j < k; j++)
									found[s] += ids[i] == truth[a][(size_t)j];
						}
			printf("%5d", ef);
			for (size_t s = 0; s < all.size(); s++) {
				std::sort(took[s].begin(), took[s].end());
				printf(" |         %.4f %8.0f %4.0f %4.0f", (double)found[s] / 2 / k / (double)nq,
				       (double)took[s].size() / sum[s], 1e6 * took[s][took[s].size() / 2],
				       1e6 * took[s][took[s].size() * 99 / 100]);
			}
			puts("");
			fflush(stdout);
		}
	}
	return 0;
}

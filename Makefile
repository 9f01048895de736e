# Thin front of CMake: every target configures what it needs. `make run` and `make test` also install what a fresh Debian 12 lacks.
BUILD ?= build
JOBS  ?= $(shell nproc)

.PHONY: run build test asan tsan fuzz bench lint format install setup setup-test clean help

help:
	@echo "make run      install what is missing, build, and answer questions from the bundled handbook"
	@echo "make test     install what is missing, build, and run every test (also under ASan and UBSan)"
	@echo "make build    build $(BUILD)/bin/ruvllm and the libraries"
	@echo "make asan     build and run the tests with AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make tsan     build and run the threaded tests with ThreadSanitizer"
	@echo "make fuzz     build the libFuzzer targets with clang and fuzz each for FUZZ_SECONDS (60)"
	@echo "make bench    kernels and models beside the machine's bandwidth and peak"
	@echo "make lint     compiler warnings as errors, cppcheck, formatting"
	@echo "make format   clang-format over all sources"
	@echo "make install  to PREFIX (/usr/local)"

setup:
	@scripts/setup.sh run
setup-test:
	@scripts/setup.sh test

# $(call configure,PRESET,DIR,OPTIONS): quiet unless it fails.
configure = @cmake --preset $(1) -B $(2) $(3) > $(2)-configure.log 2>&1 || { cat $(2)-configure.log; exit 1; }

build:
	$(call configure,release,$(BUILD))
	@cmake --build $(BUILD) -j $(JOBS) -- --quiet

run: setup
	$(call configure,release,$(BUILD))
	@cmake --build $(BUILD) -j $(JOBS) --target ruvllm -- --quiet
	@scripts/run.sh $(BUILD)/bin/ruvllm

test: setup-test
	$(call configure,release,$(BUILD),-DRUV_REQUIRE_TESTS=ON)
	@cmake --build $(BUILD) -j $(JOBS) -- --quiet
	@cd $(BUILD) && ctest --output-on-failure -j $(JOBS)
	@$(MAKE) --no-print-directory asan

asan:
	$(call configure,asan,build-asan,-DRUV_REQUIRE_TESTS=ON)
	@cmake --build build-asan -j $(JOBS) -- --quiet
	@ctest --preset asan -j $(JOBS)

tsan:
	$(call configure,tsan,build-tsan,-DRUV_REQUIRE_TESTS=ON)
	@cmake --build build-tsan -j $(JOBS) -- --quiet
	@ctest --preset tsan -j $(JOBS)

fuzz:
	@scripts/fuzz.sh $(or $(FUZZ_SECONDS),60)

bench: setup build
	@scripts/bench.sh $(BUILD)

lint:
	@scripts/lint.sh

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	@cmake --install $(BUILD) --prefix $(or $(PREFIX),/usr/local)

clean:
	rm -rf build build-*

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

build:
	@cmake --preset release -B $(BUILD) $(if $(VERBOSE),,> $(BUILD)-configure.log 2>&1) || { cat $(BUILD)-configure.log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS) $(if $(VERBOSE),,-- --quiet)

run: setup build
	@scripts/run.sh $(BUILD)/bin/ruvllm

test: setup-test build
	@cd $(BUILD) && ctest --output-on-failure -j $(JOBS)
	@$(MAKE) --no-print-directory asan

asan:
	@cmake --preset asan > build-asan-configure.log 2>&1 || { cat build-asan-configure.log; exit 1; }
	@cmake --build --preset asan -j $(JOBS) -- --quiet
	@ctest --preset asan -j $(JOBS)

tsan:
	@cmake --preset tsan > build-tsan-configure.log 2>&1 || { cat build-tsan-configure.log; exit 1; }
	@cmake --build --preset tsan -j $(JOBS) -- --quiet
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

/* fuzz_main.c - libFuzzer's entry; compiled once a target with FUZZ_TARGET its name:
 *     CC=clang-14 cmake -B build-fuzz -DRUV_FUZZ=ON -DRUV_SANITIZE=ON && cmake --build build-fuzz --target fuzz_gguf
 *     build-fuzz/tests/fuzz/fuzz_gguf -max_len=65536 NEW_INPUTS tests/fuzz/corpus/gguf */
#include "targets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_run(FUZZ_TARGET, data, n, NULL);
	return 0;
}

#!/usr/bin/env bash
# Cross-compiles the tensor layer and its tests for AArch64 and runs them under qemu-user: cross-neon.sh [DIRECTORY FOR THE OUTPUT].
# The kernel tests need nothing but libc, so that no library has to be there for the other processor.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build-neon}
cc=${CROSS_CC:-aarch64-linux-gnu-gcc}
qemu=${QEMU:-qemu-aarch64}
for tool in "$cc" "$qemu"; do
  command -v "$tool" >/dev/null || { echo "cross-neon: $tool is missing; scripts/setup.sh test installs it" >&2; exit 1; }
done
mkdir -p "$out"
flags="-std=gnu11 -O2 -D_GNU_SOURCE -DRUV_VERSION=\"cross\" -DRUV_TEST_DATA=\"$PWD/tests/data\" -Iinclude -Isrc -Itests -Wall -Wextra -Wshadow
  -fno-math-errno -fno-trapping-math -fno-strict-aliasing -ffp-contract=off -pthread"
sources="src/base/status.c src/base/pool.c src/base/cpu.c src/base/log.c src/base/rng.c src/base/clock.c src/tensor/dtype.c src/tensor/quant.c src/tensor/quant_search.c
  src/tensor/cpu/backend.c src/tensor/cpu/linear.c src/tensor/cpu/pack.c src/tensor/cpu/attention.c src/tensor/cpu/elementwise.c src/tensor/cpu/table.c
  src/tensor/cpu/ref.c"

objects=
jobs=()
for source in $sources; do
  object=$out/$(echo "$source" | tr / _).o
  objects="$objects $object"
  "$cc" $flags -Wno-psabi -c "$source" -o "$object" & jobs+=($!)
done
"$cc" $flags -march=armv8.2-a+dotprod+fp16 -ffp-contract=fast -Wno-psabi -c src/tensor/cpu/neon.c -o "$out/neon.o" & jobs+=($!)
for job in "${jobs[@]}"; do wait "$job"; done

for test in test_quant test_kernels test_ops; do
  "$cc" $flags -static "tests/kernels/$test.c" $objects "$out/neon.o" -lm -o "$out/$test"
  "$qemu" -cpu max "$out/$test" quick
done

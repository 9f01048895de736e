#!/usr/bin/env bash
# Kernels against the machine's limits, then prefill and decode of the bundled models and of synthetic full-size files (made in BUILD/synthetic,
# about 2.7 GB for the default list). Usage: scripts/bench.sh BUILD [MODEL-SHAPE:TYPE...]
set -euo pipefail
build=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
shapes=("$@")
[ ${#shapes[@]} -gt 0 ] || shapes=(lfm2-350m:Q4_K_M lfm2-1.2b:Q4_K_M qwen2.5-3b:Q4_K_M)

"$build/bench/bench_kernels"
for model in models/ruvllm-nano-{s,m,l}.gguf; do
  "$build/bin/ruvllm" bench "$model"
done
mkdir -p "$build/synthetic"
for shape in "${shapes[@]}"; do
  file="$build/synthetic/${shape%%:*}-${shape##*:}.gguf"
  [ -f "$file" ] || "$build/bench/make_synthetic" "${shape%%:*}" "${shape##*:}" "$file"
  "$build/bin/ruvllm" bench "$file"
done

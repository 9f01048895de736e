#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and fuzzes each for SECONDS, starting from the checked-in corpora. What crashes stays in build-fuzz/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -- --quiet
cd build-fuzz
for target in bin/fuzz_*; do
  name=$(basename "$target")
  mkdir -p "work/$name"
  echo "== $name, $seconds s"
  "$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=4096 -artifact_prefix="work/$name-" "work/$name" \
    "../tests/fuzz/corpus/${name#fuzz_}"
done

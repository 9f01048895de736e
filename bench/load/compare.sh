#!/usr/bin/env bash
# Load on `ruvllm serve` beside llama.cpp's llama-server with the same file on the same machine, one after the other per point, and
# /v1/ask by itself. Usage: compare.sh RUVLLM LOAD MODEL.gguf [LLAMA_SERVER]; STREAMS="1 8 32 128" WORDS=100 TOKENS=64 ROUNDS=1
# TARGET=/v1/completions for files without a chat template.
# Each line is JSON (bench/load/load.c says what the figures are).
set -euo pipefail
ruvllm=$1 load=$2 model=$3 llama=${4:-}
streams=${STREAMS:-1 8 32 128} words=${WORDS:-100} tokens=${TOKENS:-64} rounds=${ROUNDS:-1} target=${TARGET:-/v1/chat/completions}
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

wait_for() { # URL
  for _ in $(seq 600); do curl -sf -o /dev/null "$1" && return; sleep 0.2; done
  echo "compare: $1 does not answer" >&2
  cat "$dir"/*.log >&2
  exit 1
}

RUVLLM_DATA_DIR=$dir/data "$ruvllm" serve --port 7995 --model "$model" --quiet --max-running 128 --max-queue 512 2>"$dir/ruvllm.log" &
pids+=($!)
wait_for http://127.0.0.1:7995/readyz
# llama-server shares its context among its slots: each gets what one request needs.
per_slot=$((words * 8 + tokens + 64))
if [ -n "$llama" ]; then
  slots=$(echo "$streams" | tr ' ' '\n' | sort -n | tail -1)
  "$llama" -m "$model" --host 127.0.0.1 --port 7996 -np "$slots" -c $((per_slot * slots)) -t "$(nproc)" --no-webui >"$dir/llama.log" 2>&1 &
  pids+=($!)
  wait_for http://127.0.0.1:7996/health
fi
for n in $streams; do
  requests=$((n < 4 ? 4 : n * 2))
  [ "$n" -ge 64 ] && requests=$n
  for round in $(seq "$rounds"); do
    "$load" --label ruvllm --port 7995 --streams "$n" --requests "$requests" --path "$target" --words "$words" --tokens "$tokens" --seed "$round$n"
    [ -n "$llama" ] && "$load" --label llama-server --port 7996 --streams "$n" --requests "$requests" --path "$target" --words "$words" --tokens "$tokens" --seed "$round$n"
  done
done

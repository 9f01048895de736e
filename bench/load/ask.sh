#!/usr/bin/env bash
# /v1/ask under load: the handbook is remembered, its questions are asked by 1, 8 and 16 clients. Usage: ask.sh RUVLLM LOAD [FLAGS...]
# One JSON line a point: requests a second, p50 and p99 of whole answers; then the server's resident memory.
set -euo pipefail
ruvllm=$(realpath "$1") load=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
export RUVLLM_DATA_DIR=$dir/data
trap 'kill "$pid" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
"$ruvllm" remember --quiet docs/handbook >/dev/null
"$ruvllm" serve --port 7997 --quiet "$@" 2>"$dir/log" &
pid=$!
for _ in $(seq 300); do curl -sf -o /dev/null http://127.0.0.1:7997/readyz && break; sleep 0.2; done
cat >"$dir/questions" <<'QUESTIONS'
Where is the configuration file?
How many tokens are in a page of keys and values?
How do I leave the chat?
What does forgetting delete?
Which instruction sets are used?
How is a directory remembered?
What is the default number of sources?
How do I make a backup of memory?
QUESTIONS
for n in 1 8 16; do
  "$load" --label ask --port 7997 --question "$dir/questions" --streams "$n" --requests $((n * 12))
done
curl -s http://127.0.0.1:7997/metrics | grep -E '^process_resident_memory_bytes '

#!/bin/sh
# Collect, train and evaluate a router in one go: train_router.sh CLASSES OUT_DIR FILE...
#   CLASSES  text classifiers of `ruvllm router classify`, or "bundled" to take the bundled router's
#   FILE     question sets as for `ruvllm eval qa`
# RUVLLM names the program (default: ruvllm in PATH), QUESTIONS how many are sampled (default 1500). Interrupted, it goes on.
set -eu
[ $# -ge 3 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
classes=$1
out=$2
shift 2
program=${RUVLLM:-ruvllm}
mkdir -p "$out"
if [ "$classes" = bundled ]; then set -- "$@"; with=; else with="--classes $classes"; fi
# shellcheck disable=SC2086
"$program" router collect $with -o "$out/outcomes.jsonl" -n "${QUESTIONS:-1500}" "$@"
# shellcheck disable=SC2086
"$program" router train $with -o "$out/ruvllm-nano-router.bin" "$out/outcomes.jsonl"
"$program" router eval --router "$out/ruvllm-nano-router.bin" "$out/outcomes.jsonl" --svg "$out/router-pareto.svg"

#!/bin/sh
# Exported directories -> the files that ship, in models/.  Usage: training/ship.sh EXPORT_DIR [RUVLLM]
# Together they must stay under 48 MB; the embedding, a fifth to a half of each model, is stored in 5 bits, which costs at most 0.001 bits per byte on L.
set -e
src=$1; ruvllm=${2:-ruvllm}; out=$(dirname "$0")/../models
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
one() { # directory, name, type
	"$ruvllm" convert "$src/$1" --type BF16 --name "ruvllm-nano-$2" -o "$tmp/$2.gguf" -f -q
	"$ruvllm" quantize "$tmp/$2.gguf" --type "$3" --embedding Q5_K_M -o "$out/ruvllm-nano-$2.gguf" -f -q
}
one L l Q4_K_M
one M m Q4_K_M
one S s Q5_K_M
one encoder encoder Q4_K_M
cd "$out"
sha256sum ruvllm-nano-*.gguf > SHA256SUMS
cat SHA256SUMS
ls -l ruvllm-nano-*.gguf | awk '{ s += $5 } END { print s " bytes"; exit s > 48000000 }'

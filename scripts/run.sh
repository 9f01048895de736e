#!/usr/bin/env bash
# What `make run` shows: remembers the bundled handbook in a memory of its own, asks three questions, says what to type next; on a
# terminal it ends in a chat. Usage: scripts/run.sh RUVLLM
set -euo pipefail
ruvllm=$(realpath "$1")
cd "$(dirname "$0")/.."
export RUVLLM_DATA_DIR
if [ -z "${RUVLLM_DATA_DIR:-}" ]; then
  RUVLLM_DATA_DIR=$(dirname "$(dirname "$ruvllm")")/handbook-memory
  rm -rf "$RUVLLM_DATA_DIR"/memory.db* # made anew each time: the models may have changed
fi

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\033[1m' plain=$'\033[0m'
fi
say() { printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"; }

say ruvllm remember docs/handbook
"$ruvllm" remember docs/handbook

while IFS= read -r question; do
  say "ruvllm ask \"$question\""
  "$ruvllm" ask "$question" </dev/null
done <<'QUESTIONS'
Where is the configuration file?
How many tokens are in a page of keys and values?
How do I leave the chat?
QUESTIONS

cat <<NEXT

This memory holds only the handbook. Make one of your own files (in ~/.local/share/ruvllm):
  $ruvllm remember FILE|DIR
  $ruvllm ask "..."
  $ruvllm chat
  $ruvllm --help
NEXT
if [ -t 0 ] && [ -t 1 ]; then
  echo
  echo "Now a chat with the handbook:"
  exec "$ruvllm" chat
fi

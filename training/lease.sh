#!/bin/sh
# One call of a lent GPU machine: takes in what was carried, keeps the chain running, brings back what is asked for.
# Usage (on that machine, in the repository root): training/lease.sh W SECONDS [FILE...]
#   - every file of .lease/ moves to W/in (chain.py takes it from there) or, tokenizer.json, to W
#   - the first call starts chain.py as a daemon with the arguments in .lease/chain.args
#   - waits SECONDS, or until the chain is done; then copies each W/out/FILE that exists to $OUT in pieces of 15 MB, and the logs
# Such a machine is lost some seconds after a call ends: the next call must follow at once, until the last has brought everything home.
w=$1; seconds=$2; shift 2
mkdir -p "$w/in"
for f in .lease/*; do
	case $f in
	*/tokenizer.json) cp "$f" "$w/tokenizer.json" ;;
	*/chain.args) [ -f "$w/chain.args" ] || cp "$f" "$w/chain.args" ;;
	*.7z | *.p8) cp "$f" "$w/in/$(basename "$f").part" && mv "$w/in/$(basename "$f").part" "$w/in/$(basename "$f")" ;;
	esac
done
if [ ! -f "$w/pid" ]; then
	[ -d "$w/src" ] || cp -r training "$w/src" # the checkout is renewed by every call
	setsid python3 "$w/src/chain.py" --w "$w" $(cat "$w/chain.args") >"$w/chain.out" 2>&1 &
	echo $! >"$w/pid"
fi
end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ] && [ ! -f "$w/done" ]; do sleep 1; done
for f in "$@"; do
	[ -f "$w/out/$f" ] && split -b 15000000 -d -a 1 "$w/out/$f" "$OUT/$f."
done
tail -n 4 "$w"/log/*.jsonl 2>/dev/null | cut -c1-300
ls -l "$w/out" "$w/in" | tail -n 40
cp "$w/log/chain.jsonl" "$OUT/chain.jsonl" 2>/dev/null
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader 2>/dev/null
exit 0

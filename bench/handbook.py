#!/usr/bin/env python3
"""Ten fixed questions about the bundled handbook, and how many of the answers are acceptable.

Usage: bench/handbook.py RUVLLM [--transcript FILE] [RUVLLM OPTIONS...]

The handbook is remembered in a memory of its own, then every question of bench/data/handbook_questions.jsonl is asked with
`ruvllm ask --json`. The rules stand in that file and were written before the first run: an answer is acceptable when the short
answer matches the regular expression "answer" (letter case apart) and what it quotes stands in a source word for word; a
question with "unknown" is answered acceptably when the model says that it does not know. Exit code 0 when at least eight are.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WANTED = 8


def acceptable(rule, said):
    if rule.get("unknown"):
        return said["unknown"]
    return (not said["unknown"] and re.search(rule["answer"], said["answer"], re.I) is not None and
            all(c["verbatim"] for c in said["citations"]))


def main():
    args = sys.argv[1:]
    if not args:
        sys.exit(__doc__)
    ruvllm, options, transcript = os.path.abspath(args[0]), args[1:], None
    if "--transcript" in options:
        at = options.index("--transcript")
        transcript = options[at + 1]
        del options[at:at + 2]
    rules = [json.loads(line) for line in open(f"{ROOT}/bench/data/handbook_questions.jsonl", encoding="utf-8")]
    n, text = 0, []
    with tempfile.TemporaryDirectory() as directory:
        env = dict(os.environ, RUVLLM_DATA_DIR=directory)
        subprocess.run([ruvllm, "remember", f"{ROOT}/docs/handbook", *options], env=env, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        for rule in rules:
            run = subprocess.run([ruvllm, "ask", "--json", rule["question"], *options], env=env, check=True, capture_output=True,
                                 text=True)
            said = json.loads(run.stdout)
            fine = acceptable(rule, said)
            n += fine
            text.append(f"Q: {rule['question']}\n{said['text'].strip()}\n({'acceptable' if fine else 'not acceptable'})\n")
            print(text[-1], flush=True)
    print(f"{n} of {len(rules)} answers are acceptable ({WANTED} are wanted)")
    if transcript:
        open(transcript, "w", encoding="utf-8").write("\n".join(text) + f"\n{n} of {len(rules)} answers are acceptable\n")
    return 0 if n >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Token ids of a test corpus by Hugging Face tokenizers, for the C tokenizer's tests: our tokenizer.json and two readings of a Qwen2 vocabulary."""
import json, sys
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, normalizers, Regex, AddedToken
import tok

corpus, ours, qwen, out = sys.argv[1:5]
lines = [json.loads(l) for l in open(corpus, encoding="utf-8") if l.strip()]


def dump(t, name):
    with open(f"{out}/{name}", "w") as f:
        for s in lines:
            f.write(json.dumps(t.encode(s, add_special_tokens=False).ids) + "\n")


dump(Tokenizer.from_file(ours), "golden_ours.txt")
vocab = json.load(open(f"{qwen}/vocab.json", encoding="utf-8"))
merges = [tuple(l.split(" ")) for l in open(f"{qwen}/merges.txt", encoding="utf-8").read().split("\n") if l and not l.startswith("#version")]
added = json.load(open(f"{qwen}/qwen2.5-vl.tokenizer_config.json"))["added_tokens_decoder"]
Q = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
for name, rx, ign, nfc in (("golden_qwen2.txt", Q, False, True), ("golden_lfm2_on_qwen.txt", tok.REGEX, True, False)):
    t = Tokenizer(models.BPE(vocab, merges, ignore_merges=ign))
    if nfc:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rx), "isolated", invert=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    for i, d in sorted(added.items(), key=lambda x: int(x[0])):
        (t.add_special_tokens if d["special"] else t.add_tokens)([AddedToken(d["content"], special=d["special"], normalized=d["normalized"])])
    dump(t, name)
print("tokenizers", tokenizers.__version__)

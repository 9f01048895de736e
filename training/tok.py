"""Byte-level BPE tokenizer in LFM2's form (llama3 pre-tokenizer, ignore_merges, ids 0..13 special).

`train` and fast encoding use Hugging Face `tokenizers`. Where that package is missing, a plain Python reader of the same
tokenizer.json (slow, exact) and a plain trainer stand in, so that every stage can be rehearsed on any machine.
"""
import heapq, json, os, re
from collections import Counter, defaultdict

try:
    import tokenizers as hf
except ImportError:
    hf = None

SPECIALS = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim_pre|>", "<|fim_mid|>", "<|fim_suf|>", "<|im_start|>", "<|im_end|>",
            "<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>",
            "<|tool_response_start|>", "<|tool_response_end|>"]
PAD, BOS, EOT, IM_START, IM_END = 0, 1, 2, 6, 7
REGEX = (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPLIT = re.compile("(" + "|".join(re.escape(s) for s in SPECIALS) + ")")


def byte_map():
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    cs, n = bs[:], 0
    for b in range(256):
        if b not in bs:
            bs.append(b); cs.append(256 + n); n += 1
    return dict(zip(bs, map(chr, cs)))


def finish(path, vocab_size):
    """Writes ignore_merges and the BOS template into a saved tokenizer.json"""
    j = json.load(open(path, encoding="utf-8"))
    j["model"]["ignore_merges"] = True
    j["post_processor"] = {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": SPECIALS[1], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": SPECIALS[1], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": SPECIALS[1], "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {SPECIALS[1]: {"id": SPECIALS[1], "ids": [1], "tokens": [SPECIALS[1]]}}}
    v = j["model"]["vocab"]
    assert [v[s] for s in SPECIALS] == list(range(14)), "special ids"
    if len(v) != vocab_size:
        print("vocabulary has", len(v), "of", vocab_size)
    json.dump(j, open(path, "w", encoding="utf-8"), ensure_ascii=False)


def train(files, out, vocab_size, max_bytes=60_000_000):
    def texts():
        left = max_bytes
        for f in files:
            for d in open(f, encoding="utf-8").read().split("\n<|endoftext|>\n"):
                if left <= 0:
                    return
                left -= len(d)
                yield d
    if hf:
        t = hf.Tokenizer(hf.models.BPE(ignore_merges=True))
        t.pre_tokenizer = hf.pre_tokenizers.Sequence([hf.pre_tokenizers.Split(hf.Regex(REGEX), "isolated", invert=False),
                                                      hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        t.decoder = hf.decoders.ByteLevel()
        tr = hf.trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIALS, show_progress=False, min_frequency=2,
                                    initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet())
        t.train_from_iterator(texts(), tr)
        t.save(out)
    else:
        import regex
        bm, words = byte_map(), Counter()
        for d in texts():
            for m in regex.findall(REGEX, d):
                words["".join(bm[b] for b in m.encode())] += 1
        ws = [[list(w), c] for w, c in words.items()]
        vocab = SPECIALS + sorted(bm.values(), key=ord)
        merges = []
        while len(vocab) < vocab_size:
            pairs = Counter()
            for w, c in ws:
                for a, b in zip(w, w[1:]):
                    pairs[a, b] += c
            a, b = max(pairs, key=lambda p: (pairs[p], p))
            merges.append([a, b]); vocab.append(a + b)
            for e in ws:
                w, i, n = e[0], 0, []
                if a not in w:
                    continue
                while i < len(w):
                    if i + 1 < len(w) and w[i] == a and w[i + 1] == b:
                        n.append(a + b); i += 2
                    else:
                        n.append(w[i]); i += 1
                e[0] = n
        j = {"version": "1.0", "truncation": None, "padding": None,
             "added_tokens": [dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, s in enumerate(SPECIALS)],
             "normalizer": None,
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                 {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False},
                 {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
             "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                       "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                       "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges}}
        json.dump(j, open(out, "w", encoding="utf-8"), ensure_ascii=False)
    finish(out, vocab_size)


class Tok:
    """encode(text) -> (ids, start offset in characters of every token). Special token strings in the text become their ids."""

    def __init__(self, path, force_python=False):
        self.path = path
        if hf and not force_python:
            self.t = hf.Tokenizer.from_file(path)
            self.n = self.t.get_vocab_size()
        else:
            import regex
            j = json.load(open(path, encoding="utf-8"))
            self.t, self.vocab = None, j["model"]["vocab"]
            self.n = len(self.vocab)
            self.rank = {tuple(m.split(" ") if isinstance(m, str) else m): i for i, m in enumerate(j["model"]["merges"])}
            self.inv = {i: s for s, i in self.vocab.items()}
            self.bm = byte_map()
            self.ub = {c: b for b, c in self.bm.items()}
            self.rx = regex.compile(REGEX)
            self.memo = {}

    def _piece(self, p):
        if p in self.memo:
            return self.memo[p]
        s = "".join(self.bm[b] for b in p.encode())
        if s in self.vocab:
            r = [s]
        else:
            r = list(s)
            while len(r) > 1:
                best = min(((self.rank.get((r[i], r[i + 1]), 1 << 30), i) for i in range(len(r) - 1)))
                if best[0] == 1 << 30:
                    break
                i = best[1]
                r[i:i + 2] = [r[i] + r[i + 1]]
        self.memo[p] = r
        return r

    def encode(self, text):
        if self.t:
            e = self.t.encode(text, add_special_tokens=False)
            return e.ids, [o[0] for o in e.offsets]
        ids, starts, at = [], [], 0
        for part in SPLIT.split(text):
            if part in SPECIALS:
                ids.append(SPECIALS.index(part)); starts.append(at)
            else:
                for m in self.rx.finditer(part):
                    blen, offs = 0, []
                    p = m.group()
                    b2c = [i for i, ch in enumerate(p) for _ in ch.encode()]
                    for t in self._piece(p):
                        ids.append(self.vocab[t]); starts.append(at + m.start() + b2c[blen]); blen += len(t)
            at += len(part)
        return ids, starts

    def ids(self, text):
        return self.encode(text)[0]

    def ids_batch(self, texts):
        if self.t:
            return [e.ids for e in self.t.encode_batch(texts, add_special_tokens=False)]
        return [self.ids(t) for t in texts]

    def decode(self, ids):
        if self.t:
            return self.t.decode(ids, skip_special_tokens=False)
        out = b""
        for i in ids:
            s = self.inv[int(i)]
            out += s.encode() if i < 14 else bytes(self.ub[c] for c in s)
        return out.decode("utf-8", "replace")

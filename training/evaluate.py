#!/usr/bin/env python3
"""Development scores (training-source questions only): F1/EM of the short answer, supporting sentence, refusals, judge, by greedy decoding.

The published figures come from `ruvllm eval` on the quantized files; this is for choosing checkpoints.
A dev record: {"prompt", "golds", "sentence", "n" (its source number), "unans" (None|"hard"|"random"), "judge" (None|1..5)}
"""
import argparse, json, math, sys
import numpy as np
import torch
import rows as R
from common import *
from tok import Tok


def batches(items, size):
    items = sorted(items, key=lambda x: len(x[1]))
    for i in range(0, len(items), size):
        yield items[i:i + size]


@torch.no_grad()
def answer_all(model, tok, prompts, max_new=110, size=256):
    enc = [(i, ids) for i, ids in enumerate(tok.ids_batch(prompts))]
    out = [""] * len(prompts)
    for b in batches(enc, size):
        L = max(len(x[1]) for x in b)
        ids = torch.zeros(len(b), L, dtype=torch.long)
        for j, (_, x) in enumerate(b):
            ids[j, :len(x)] = torch.tensor(x)
        lens = torch.tensor([len(x[1]) for x in b])
        with autocast():
            g = model.generate(ids.to(DEV), lens.to(DEV), max_new)
        for (i, _), row in zip(b, g.tolist()):
            keep = []
            for t in row:
                if t in (0, 2, 7):
                    break
                keep.append(t)
            out[i] = tok.decode(keep)
    return out


def parse(text):
    """-> (source number or None, sentence, short answer); refusal = (None, '', None)"""
    if text.strip().lower().startswith("i don't know"):
        return None, "", None
    head, _, ans = text.partition("\nAnswer:")
    n, s = None, head
    if head.startswith("[") and "]" in head:
        n = head[1:head.index("]")]
        s = head[head.index("]") + 1:].strip()
    return n, s, ans.strip()


def run(model, tok, dev, samples=0):
    t = [d for d in dev if d.get("judge") is None]
    outs = answer_all(model, tok, [d["prompt"] for d in t])
    f1 = em = sent = src = ans = 0.0
    n_a = 0
    idk = {"hard": [0, 0], "random": [0, 0]}
    by = {}
    ex = []
    for d, o in zip(t, outs):
        n, s, short = parse(o)
        if d["unans"]:
            idk[d["unans"]][1] += 1
            idk[d["unans"]][0] += short is None
        else:
            n_a += 1
            v = 0.0 if short is None else R.f1(short, d["golds"])
            f1 += v
            em += short is not None and any(R.norm_answer(short) == R.norm_answer(g) for g in d["golds"])
            sent += short is not None and s == d["sentence"]
            src += n == str(d["n"])
            ans += short is not None
            b = by.setdefault(d["src"], [0.0, 0]); b[0] += v; b[1] += 1
        if len(ex) < samples:
            ex.append((d["prompt"][-300:], d["golds"], o))
    r = dict(n=n_a, f1=100 * f1 / max(1, n_a), em=100 * em / max(1, n_a), sentence=100 * sent / max(1, n_a), source=100 * src / max(1, n_a),
             answers=100 * ans / max(1, n_a), by={k: round(100 * v[0] / v[1], 1) for k, v in by.items()},
             **{"idk_" + k: 100 * v[0] / max(1, v[1]) for k, v in idk.items()})
    j = [d for d in dev if d.get("judge") is not None]
    if j:
        r["judge_auc"] = judge_auc(model, tok, j)
    if samples:
        r["samples"] = ex
    return r


@torch.no_grad()
def judge_auc(model, tok, j):
    digits = [tok.ids(str(i))[0] for i in range(1, 6)]
    enc = [(i, x) for i, x in enumerate(tok.ids_batch([d["prompt"] for d in j]))]
    score = [0.0] * len(j)
    val = torch.arange(1, 6, device=DEV).float()
    for b in batches(enc, 128):
        L = max(len(x[1]) for x in b)
        ids = torch.zeros(len(b), L, dtype=torch.long)
        for k, (_, x) in enumerate(b):
            ids[k, :len(x)] = torch.tensor(x)
        last = torch.tensor([len(x[1]) - 1 for x in b], device=DEV)
        with autocast():
            h = model.trunk(ids.to(DEV))
            lg = F.linear(h[torch.arange(len(b), device=DEV), last], model.embed_tokens.weight.to(h.dtype)).float()[:, digits]
        e = (torch.softmax(lg, -1) * val).sum(-1).tolist()
        for (i, _), s in zip(b, e):
            score[i] = s
    pos = [s for s, d in zip(score, j) if d["judge"] == 5]
    neg = [s for s, d in zip(score, j) if d["judge"] <= 2]
    if not pos or not neg:
        return None
    return sum((p > q) + 0.5 * (p == q) for p in pos for q in neg) / (len(pos) * len(neg))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--w", required=True)
    ap.add_argument("--samples", type=int, default=12)
    a = ap.parse_args()
    m = load(a.model).eval()
    r = run(m, Tok(f"{a.w}/tokenizer.json"), [json.loads(l) for l in open(f"{a.w}/dev.jsonl", encoding="utf-8")], a.samples)
    print(json.dumps(r, indent=1, ensure_ascii=False))

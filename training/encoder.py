#!/usr/bin/env python3
"""Stage 6 (GPU): the text encoder, contrastive training with in-batch negatives.

Batches are drawn in clusters of passages of one article, so every batch holds hard negatives beside the random ones. Queries are perturbed (dropped
words, WordNet synonyms, lower case) so that low word overlap still matches. Passages stand with and without their title. InfoNCE both ways, learnt
temperature; a pair whose passage occurs twice in the batch is not its own negative. Batches are made by several processes: one alone starves the GPU.
"""
import argparse, glob, json, multiprocessing, os, random, re, time, traceback, zlib
import numpy as np
import torch
import lfm2, rows as R
from tok import Tok
from common import *


def synonyms(w):
    """WordNet lemma -> synonyms, from the dictionary text of the pretraining data"""
    syn = {}
    p = f"{w}/syn.json"
    if os.path.exists(p):
        return json.load(open(p))
    for f in sorted(glob.glob(f"{w}/text/chunk_*.txt"))[:20]:
        for m in re.finditer(r"^([a-z]{4,14}) \((?:noun|verb|adjective|adverb)\): [^\n]*?Also: ([a-z ,]+)[.\n]", open(f, encoding="utf-8").read(), re.M):
            s = [x.strip() for x in m[2].split(",")]
            s = [x for x in s if x and x != m[1] and len(x.split()) <= 2]
            if s:
                syn.setdefault(m[1], []).extend(s[:3])
    json.dump(syn, open(p, "w"))
    return syn


def perturb(rng, q, syn):
    r = rng.random()
    ws = q.split()
    if r < 0.35:
        return q
    if r < 0.55 and len(ws) > 4:
        ws = [w for w in ws if rng.random() > 0.15]
    if rng.random() < 0.5:
        for i, w in enumerate(ws):
            k = w.lower().strip("?,.")
            base = k if k in syn else k[:-1] if k.endswith("s") and k[:-1] in syn else k[:-2] if k.endswith(("ed", "es")) and k[:-2] in syn else k[:-1] if k.endswith("ed") and k[:-1] in syn else None
            if base and rng.random() < 0.4:
                ws[i] = rng.choice(syn[base]) + ("?" if w.endswith("?") else "")
    q = " ".join(ws) or q
    if rng.random() < 0.25:
        q = q.lower()
    if rng.random() < 0.2:
        q = q.rstrip("?")
    return q


class Pairs:
    def __init__(self, w, tok, seed, qn, pn):
        self.w, self.tok, self.rng, self.qn, self.pn = w, tok, random.Random(seed), qn, pn
        self.files, self.kinds = set(), {}
        self.syn = synonyms(w)
        self.weight = dict(real=0.42, qg=0.33, docs=0.05, ict=0.06, adj=0.02, title=0.03, rule=0.09)
        self.rescan()

    def rescan(self):
        for f in sorted(glob.glob(f"{self.w}/pairs/*.jsonl")):
            if f in self.files:
                continue
            self.files.add(f)
            for l in open(f, encoding="utf-8"):
                r = json.loads(l)
                self.kinds.setdefault(r["k"], {}).setdefault(r["t"] or r["p"][:40], []).append((r["q"], r["p"], r["t"]))
        self.keys = {k: sorted(v) for k, v in self.kinds.items()}
        self.total = {k: sum(map(len, v.values())) for k, v in self.kinds.items()}

    def make(self, B, early):
        rng = self.rng
        items = []
        ks = [k for k in self.kinds]
        ws = [self.weight.get(k, 0.02) for k in ks]
        while len(items) < B:
            k = rng.choices(ks, ws)[0]
            g = self.kinds[k][rng.choice(self.keys[k])]
            n = min(len(g), 1 if early else rng.choice([1, 2, 4, 8]))
            items += rng.sample(g, n)
        items = items[:B]
        pk, qs, ps = [], [], []
        for q, p, t in items:
            pk.append(zlib.crc32(p.encode()))
            qs.append("query: " + perturb(rng, R.squash(q), self.syn))
            text = R.squash(p)
            if rng.random() < 0.25:
                text = R.squash(R.short_passage(rng, text)) if rng.random() < 0.0 else text
            ps.append("passage: " + (t + "\n" + text if t and rng.random() < 0.5 else text))
        def pack(texts, n):
            e = [[1] + x[:n - 1] for x in self.tok.ids_batch(texts)]
            a = np.zeros((len(e), n), np.uint16)
            for i, x in enumerate(e):
                a[i, :len(x)] = x
            return a
        return pack(qs, self.qn), pack(ps, self.pn), np.array(pk, np.int64)


def make_batches(queue, w, path, seed, qn, pn, B, easy, rescan):
    """one process of the batch makers: `easy` batches without clusters first, then clustered ones; looks for new pairs every `rescan` seconds"""
    data = Pairs(w, Tok(path), seed, qn, pn)
    at = time.time()
    while True:
        queue.put(data.make(B, easy > 0) + (data.total,))
        easy -= 1
        if time.time() - at > rescan:
            data.rescan(); at = time.time()


@torch.no_grad()
def dev_recall(model, tok, w, n=400):
    """development questions -> their passage among all passages of the training sets' sample"""
    rows = [json.loads(l) for l in open(f"{w}/dev_pairs.jsonl", encoding="utf-8")]
    qs = rows[:n]
    ps = sorted({r["p"] for r in rows} | {r["p"] for r in map(json.loads, open(f"{w}/dev_distract.jsonl", encoding="utf-8"))})
    at = {p: i for i, p in enumerate(ps)}
    def enc(texts, T):
        out = []
        for i in range(0, len(texts), 256):
            e = [[1] + x[:T - 1] for x in tok.ids_batch(texts[i:i + 256])]
            a = torch.zeros(len(e), T, dtype=torch.long)
            for j, x in enumerate(e):
                a[j, :len(x)] = torch.tensor(x)
            a = a.to(DEV)
            with autocast():
                out.append(model.embed(a, a != 0).float())
        return torch.cat(out)
    Q, P = enc(["query: " + R.squash(r["q"]) for r in qs], 64), enc(["passage: " + R.squash(p) for p in ps], 320)
    s = Q @ P.T
    gold = torch.tensor([at[r["p"]] for r in qs], device=s.device)
    rank = (s > s.gather(1, gold[:, None])).sum(1)
    return dict(r1=100 * (rank < 1).float().mean().item(), r10=100 * (rank < 10).float().mean().item(), mrr=(1 / (1 + rank.float())).mean().item(), passages=len(ps))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--init", required=True)
    ap.add_argument("--w", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--until", type=float, required=True)
    ap.add_argument("--batch", type=int, default=1536)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--adam-lr", type=float, default=1e-3)
    ap.add_argument("--procs", type=int, default=6, help="batch-making processes")
    ap.add_argument("--seed", type=int, default=5)
    a = ap.parse_args()
    seed_all(a.seed)
    log = Log(f"{a.w}/log/{os.path.basename(a.out)}.jsonl", stage="encoder", size="E")
    tok = Tok(f"{a.w}/tokenizer.json")
    QN, PN = (48, 224) if GPU else (24, 64)
    if not wait_for(f"{a.w}/pairs/real_*.jsonl", a.until):
        raise SystemExit("no pairs")
    synonyms(a.w)
    ctx = multiprocessing.get_context("spawn")       # a forked child must not inherit the GPU
    queue = ctx.Queue(3 * a.procs)
    makers = [ctx.Process(target=make_batches, args=(queue, a.w, f"{a.w}/tokenizer.json", a.seed + 1000 * i, QN, PN, a.batch, 2, max(5.0, (a.until - time.time()) * 0.15)), daemon=True)
              for i in range(a.procs)]
    [p.start() for p in makers]
    model = load(a.init)
    lfm2.compile_blocks(model, GPU)
    temp = torch.nn.Parameter(torch.tensor(3.0, device=DEV))           # log of the inverse temperature, e^3 = 20
    opt = Muon(model, a.lr, a.adam_lr)
    topt = torch.optim.Adam([temp], lr=1e-3)
    t0, step = time.time(), 0
    span = max(1.0, a.until - t0)
    acc = torch.zeros(2, device=DEV)
    while time.time() < a.until:
        fr = (time.time() - t0) / span
        scale = min(1, (step + 1) / 60) * (0.02 + 0.98 * (1 - fr) if fr < 1 else 0.02)
        q, p, pk, total = queue.get(timeout=240)
        q, p, pk = (torch.from_numpy(x.astype(np.int64)).to(DEV) for x in (q, p, pk))
        with autocast():
            Q = model.embed(q, q != 0)
            P = model.embed(p, p != 0)
        s = (Q @ P.T) * temp.clamp(max=4.2).exp()
        eye = torch.eye(len(q), device=DEV, dtype=torch.bool)
        s = s.masked_fill((pk[:, None] == pk[None]) & ~eye, -1e4)
        y = torch.arange(len(q), device=DEV)
        loss = 0.5 * (F.cross_entropy(s, y) + F.cross_entropy(s.T, y))
        loss.backward()
        acc += torch.stack([loss.detach(), (s.argmax(1) == y).float().mean()])
        opt.clip(1.0); opt.step(scale); topt.step(); opt.zero(); temp.grad = None
        step += 1
        if step % 50 == 0 or (not GPU and step % 3 == 0):
            k = 50 if GPU else 3
            log(step=step, pairs=step * a.batch, loss=float(acc[0]) / k, acc=float(acc[1]) / k, temp=float(temp.exp()), scale=scale, tps=step / (time.time() - t0))
            acc.zero_()
    save(model, a.out, step=step)
    log(event="saved", step=step, total=total)
    [p.terminate() for p in makers]
    try:
        with Eager(model):
            log(event="dev", **dev_recall(model, tok, a.w))
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    main()

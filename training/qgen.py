#!/usr/bin/env python3
"""Stage 4 (GPU): questions written by a model over our own passages.

1. fine-tunes a pretrained checkpoint for a short time on real pairs in both directions: (passage, sentence) -> (answer, question), passage -> question that it
   does not answer, and question answering itself;
2. samples an answer and a question for candidate sentences (W/cand/*.jsonl), batched, with a cache;
3. round-trip filter: keeps a pair when the same model, given the passage and the question, would itself start with that sentence and copy that answer
   (teacher-forced: mean log-probability of the decision tokens, best share kept). Unanswerable questions are kept when the model does not find them clearly answerable.
Writes W/qg/<candidate file>.jsonl, one file at a time, so that rows are built while sampling goes on.
"""
import argparse, glob, json, os, random, time, traceback
import numpy as np
import torch
import lfm2, rows as R
from tok import Tok
from common import *


def logp_of(model, seqs, tok, size=192):
    """seqs: [(prompt ids, answer ids, decision mask)] -> (mean log p over decision tokens, min log p, log p of the first token)"""
    out = [None] * len(seqs)
    order = sorted(range(len(seqs)), key=lambda i: len(seqs[i][0]) + len(seqs[i][1]))
    for o in range(0, len(order), size):
        b = order[o:o + size]
        L = max(len(seqs[i][0]) + len(seqs[i][1]) for i in b)
        L = min(-(-L // 64) * 64, 2048)
        x = torch.zeros(len(b), L, dtype=torch.long)
        m = torch.zeros(len(b), L, dtype=torch.bool)
        f = torch.zeros(len(b), dtype=torch.long)
        for j, i in enumerate(b):
            p, a, d = seqs[i]
            s = p + a
            x[j, :len(s)] = torch.tensor(s)
            m[j, len(p):len(s)] = torch.tensor(d, dtype=torch.bool)
            f[j] = len(p)
        x, m, f = x.to(DEV), m.to(DEV), f.to(DEV)
        with torch.no_grad(), autocast():
            h = model.trunk(x)
        # only the decision tokens go through the head
        jj, tt = m.nonzero(as_tuple=True)
        lp = torch.empty(len(jj), device=DEV)
        W = model.embed_tokens.weight.to(h.dtype)
        for s in range(0, len(jj), 16384):
            hs = h[jj[s:s + 16384], tt[s:s + 16384] - 1]
            lg = F.linear(hs, W).float()
            lp[s:s + 16384] = lg.gather(1, x[jj[s:s + 16384], tt[s:s + 16384]][:, None])[:, 0] - lg.logsumexp(-1)
        n = torch.zeros(len(b), device=DEV).index_add_(0, jj, torch.ones_like(lp))
        sm = torch.zeros(len(b), device=DEV).index_add_(0, jj, lp)
        mn = torch.zeros(len(b), device=DEV).scatter_reduce_(0, jj, lp, "amin") if hasattr(torch.Tensor, "scatter_reduce_") else sm
        r = torch.arange(len(b), device=DEV)
        lg = F.linear(h[r, f - 1], W).float()
        first = (lg.gather(1, x[r, f][:, None])[:, 0] - lg.logsumexp(-1)).tolist()
        for j, (i, me, mi) in enumerate(zip(b, (sm / n.clamp_min(1)).tolist(), mn.tolist())):
            out[i] = (me, mi, first[j])
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--init", required=True)
    ap.add_argument("--w", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--tune-until", type=float, required=True)
    ap.add_argument("--until", type=float, required=True)
    ap.add_argument("--keep", type=float, default=0.55)
    ap.add_argument("--batch", type=int, default=2048)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--seed", type=int, default=3)
    a = ap.parse_args()
    seed_all(a.seed)
    log = Log(f"{a.w}/log/qgen.jsonl", stage="qgen")
    tok = Tok(f"{a.w}/tokenizer.json")
    os.makedirs(f"{a.w}/qg", exist_ok=True)
    model = load(a.init)
    lfm2.compile_blocks(model, GPU)
    rloss_f = maybe_compile(row_loss)
    opt = Muon(model, a.lr, a.lr)
    feed = TextFeed(f"{a.w}/tok/chunk_*.bin", 1024 if GPU else 128, a.seed)
    lm_f = maybe_compile(lm_loss)
    rows = RowFeed(f"{a.w}/rows/*.npz", 65536 if GPU else 4096, a.seed, dict(real=0.45, ask=0.45, rule=0.1))
    t0, step, acc = time.time(), 0, 0.0
    span = max(1.0, a.tune_until - t0)
    while time.time() < a.tune_until:
        fr = (time.time() - t0) / span
        scale = 0.6 * min(1, (step + 1) / 40) * (0.03 + 0.97 * (1 - fr))
        x, y, w = rows.batch()
        with autocast():
            h = model.trunk(x)
            l = rloss_f(h, model.embed_tokens.weight.to(h.dtype), y, w)
        l.backward()
        if step % 2 == 0:
            lx, ly = feed.batch(32 if GPU else 2)
            with autocast():
                h = model.trunk(lx)
                l2 = lm_f(h, model.embed_tokens.weight.to(h.dtype), ly)
            (0.4 * l2).backward()
        opt.clip(1.0); opt.step(scale); opt.zero()
        acc += l.detach(); step += 1
        if step % 25 == 0:
            log(step=step, rows=float(acc) / 25, scale=scale); acc = 0.0
    save(model, a.out, step=step)
    log(event="tuned", step=step, drawn=rows.drawn)
    model.eval()
    if GPU:
        for l in model.layers:            # sampling runs uncompiled: shapes vary
            l._compiled_call_impl = None
        to_bf16(model)
    rng = random.Random(a.seed)
    g = torch.Generator(device=DEV); g.manual_seed(a.seed)
    tot = dict(asked=0, parsed=0, kept=0, un_asked=0, un_kept=0)
    thr = un_thr = None
    for f in sorted(glob.glob(f"{a.w}/cand/*.jsonl")):
        if time.time() > a.until:
            break
        dst = f"{a.w}/qg/" + os.path.basename(f)
        if os.path.exists(dst):
            continue
        cand = [json.loads(l) for l in open(f, encoding="utf-8")]
        prompts = [R.qg_prompt_un(c["t"], c["p"]) if c["un"] else R.qg_prompt(c["t"], c["p"], c["s"], c.get("nq")) for c in cand]
        enc = [(i, e) for i, e in enumerate(tok.ids_batch(prompts)) if len(e) < 460]
        enc.sort(key=lambda x: len(x[1]))
        texts = {}
        for o in range(0, len(enc), a.batch):
            if time.time() > a.until:
                break
            b = enc[o:o + a.batch]
            L = max(len(x[1]) for x in b)
            ids = torch.zeros(len(b), L, dtype=torch.long)
            for j, (_, x) in enumerate(b):
                ids[j, :len(x)] = torch.tensor(x)
            lens = torch.tensor([len(x[1]) for x in b]).to(DEV)
            try:
                with autocast():
                    out = model.generate(ids.to(DEV), lens, 48, temperature=0.8, top_p=0.92, generator=g)
            except Exception:
                traceback.print_exc(); continue
            for (i, _), row in zip(b, out.tolist()):
                k = []
                for t in row:
                    if t in (0, 2, 7):
                        break
                    k.append(t)
                texts[i] = tok.decode(k)
        pairs, uns = [], []
        for i, txt in texts.items():
            c = cand[i]
            if c["un"]:
                q = txt.strip()
                tot["un_asked"] += 1
                if 15 < len(q) < 200 and "\n" not in q:
                    uns.append((i, q))
                continue
            tot["asked"] += 1
            ans, _, q = txt.partition("\n")
            ans, q = ans.strip(), q.strip()
            if not ans or not 12 < len(q) < 220 or "\n" in q or ans not in c["s"] or len(ans) > 100 or R.norm_answer(ans) in R.norm_answer(q):
                continue
            if ans == c["s"].strip(" ."):
                continue
            pairs.append((i, ans, q))
        tot["parsed"] += len(pairs)
        try:
            P = [R.prompt_of([("user", R.sources_text([(cand[i]["t"], cand[i]["p"])], q))]) for i, _, q in pairs]
            A = [R.answer_text(1, cand[i]["s"], ans) for i, ans, _ in pairs]
            pe = tok.ids_batch(P)
            seqs = []
            for p, (t, dec) in zip(pe, A):
                ai, st = tok.encode(t)
                seqs.append((p, ai, [any(x <= s < y for x, y in dec) for s in st]))
            lp = logp_of(model, seqs, tok)
            ue = tok.ids_batch([R.prompt_of([("user", R.sources_text([(cand[i]["t"], cand[i]["p"])], q))]) for i, q in uns])
            idk = tok.ids(R.IDK)
            ulp = logp_of(model, [(p, idk, [True] + [False] * (len(idk) - 1)) for p in ue], tok) if uns else []
        except Exception:
            traceback.print_exc(); continue
        if thr is None and len(lp) > 20:
            thr = float(np.quantile([x[0] for x in lp], 1 - a.keep))
        if un_thr is None and len(ulp) > 10:
            un_thr = float(np.quantile([x[2] for x in ulp], 0.5))
        res = []
        for (i, ans, q), s in zip(pairs, lp):
            if thr is not None and s[0] >= thr:
                res.append(dict(cand[i], q=q, a=ans, lp=round(s[0], 3)))
        for (i, q), s in zip(uns, ulp):
            if un_thr is not None and s[2] >= un_thr:
                res.append(dict(cand[i], q=q, a=None, lp=round(s[2], 3)))
                tot["un_kept"] += 1
        tot["kept"] += sum(r["a"] is not None for r in res)
        with open(dst + ".tmp", "w", encoding="utf-8") as o:
            for r in res:
                o.write(json.dumps(r, ensure_ascii=False) + "\n")
        os.replace(dst + ".tmp", dst)
        log(event="file", file=os.path.basename(f), thr=thr, un_thr=un_thr, **tot)
    log(event="done", **tot)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Stage 5 (GPU): question answering and the other tasks, mixed with plain text to the end; optional distillation from a larger tier.

Each step takes one plain-text batch (a quarter to a third of the tokens) and one row batch. The rate starts at --lr-scale of the pretraining rate,
is held for --hold of the time and falls linearly to 2 %. At the --mids (unix times) the average of the weights is saved as OUT.mid1.pt, OUT.mid2.pt, ... The teacher
may appear, and be replaced, while training runs: until then the rows' own tokens teach. --qat rounds the layer matrices to 4 bits in the forward pass for the last part (straight-through).
Development questions are answered greedily every --eval-every seconds; the best checkpoint by (F1 + sentence)/2 is kept beside the last.
"""
import argparse, json, os, time, traceback
import numpy as np
import torch
import lfm2, evaluate
from tok import Tok
from common import *


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--init", required=True)
    ap.add_argument("--teacher", default="")
    ap.add_argument("--alpha", type=float, default=0.5)
    ap.add_argument("--w", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--until", type=float, required=True)
    ap.add_argument("--weights", default='{"real":0.52,"qg":0.3,"rule":0.03,"skill":0.18,"judge":0.12}')
    ap.add_argument("--caps", default='{"real":6}', help="most passes over each group's built rows")
    ap.add_argument("--lm-batch", type=int, default=32)
    ap.add_argument("--row-tokens", type=int, default=65536)
    ap.add_argument("--T", type=int, default=1024)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--lr-scale", type=float, default=0.7)
    ap.add_argument("--hold", type=float, default=0.25)
    ap.add_argument("--lm-weight", type=float, default=0.6)
    ap.add_argument("--qat", type=float, default=0.0, help="share of the time, at the end, with 4-bit rounding")
    ap.add_argument("--eval-every", type=float, default=60)
    ap.add_argument("--mids", default="", help="unix times, comma between them")
    ap.add_argument("--no-final", action="store_true", help="skip the closing evaluation (it costs device time)")
    ap.add_argument("--seed", type=int, default=2)
    a = ap.parse_args()
    seed_all(a.seed)
    name = os.path.basename(a.out)
    log = Log(f"{a.w}/log/{name}.jsonl", stage="tune")
    model = load(a.init)
    log.fixed["size"] = model.size
    raw_layers = list(model.layers)
    lfm2.compile_blocks(model, GPU)
    teacher, teacher_of = None, 0.0

    def new_teacher():
        """the teacher's file, when it has appeared or changed; the second and later ones share the first one's compiled code"""
        nonlocal teacher, teacher_of
        if not a.teacher or not os.path.exists(a.teacher) or os.path.getmtime(a.teacher) == teacher_of:
            return
        teacher_of = os.path.getmtime(a.teacher)
        if teacher is None:
            teacher = load(a.teacher).eval()
            for p in teacher.parameters():
                p.requires_grad_(False)
            to_bf16(teacher)
            lfm2.compile_blocks(teacher, GPU)
        else:
            teacher.load_state_dict(torch.load(a.teacher, map_location="cpu")["sd"])
        log(event="teacher", file=a.teacher)

    loss_f, rloss_f, kd_f = maybe_compile(lm_loss), maybe_compile(row_loss), maybe_compile(row_kd_loss)
    opt = Muon(model, a.lr, a.lr)
    mids = [float(x) for x in a.mids.split(",") if x]
    avg = Average(model) if mids else None
    if not wait_for(f"{a.w}/tok/heldout.bin", a.until) or not wait_for(f"{a.w}/tok/chunk_*.bin", a.until) or not wait_for(f"{a.w}/rows/*.npz", a.until):
        raise SystemExit("no data")
    feed = TextFeed(f"{a.w}/tok/chunk_*.bin", a.T, a.seed)
    rows = RowFeed(f"{a.w}/rows/*.npz", a.row_tokens, a.seed, json.loads(a.weights), json.loads(a.caps))
    tok = Tok(f"{a.w}/tokenizer.json")
    dev = []
    ho = np.fromfile(f"{a.w}/tok/heldout.bin", np.uint16)
    hb = int(np.load(f"{a.w}/tok/heldout_bytes.npy"))
    cut = min(len(ho), 300_000)

    def evaluate_now(tag, q4=False, n=None):
        nonlocal dev
        try:
            t = time.time()
            if not dev:
                dev = [json.loads(l) for l in open(f"{a.w}/dev.jsonl", encoding="utf-8")]
            model.eval()
            with Quantized(model, q4), Eager(model):
                r = evaluate.run(model, tok, dev[:n] if n else dev)
                r["bpb"] = bits_per_byte(model, ho[:cut], hb * cut / len(ho))
            r.pop("samples", None)
            log(event=tag, q4=q4, seconds=time.time() - t, **r)
            return r
        except Exception:
            traceback.print_exc()
            return None
        finally:
            model.train()

    t0, step, toks, n_mid = time.time(), 0, 0, 0
    rows_at = t0 + 10
    span = max(1.0, a.until - t0)
    next_eval, best = t0 + a.eval_every, (-1.0, None)
    acc = torch.zeros(2, device=DEV)
    while time.time() < a.until:
        frac = (time.time() - t0) / span
        scale = a.lr_scale * min(1.0, (step + 1) / 60)
        if frac > a.hold:
            scale *= 0.02 + 0.98 * max(0.0, (1 - frac) / (1 - a.hold))
        with Quantized(model, a.qat > 0 and frac > 1 - a.qat):
            x, y = feed.batch(a.lm_batch)
            with autocast():
                h = model.trunk(x)
                W = model.embed_tokens.weight.to(h.dtype)
                l1 = loss_f(h, W, y)
            (a.lm_weight * l1).backward()
            rx, ry, rw = rows.batch()
            if teacher is not None:
                with torch.no_grad(), autocast():
                    ht = teacher.trunk(rx)
            with autocast():
                h = model.trunk(rx)
                W = model.embed_tokens.weight.to(h.dtype)
                l2 = kd_f(h, W, ry, rw, ht, teacher.embed_tokens.weight.to(h.dtype), a.alpha) if teacher is not None else rloss_f(h, W, ry, rw)
            l2.backward()
        toks += x.numel() + rx.numel()
        acc += torch.stack([l1.detach(), l2.detach()])
        gn = opt.clip(1.0)
        opt.step(scale)
        opt.zero()
        if avg:
            avg.step()
        step += 1
        if mids and time.time() > mids[0]:
            mids.pop(0)
            n_mid += 1
            with avg:
                save(model, a.out.replace(".pt", f".mid{n_mid}.pt"), step=step, tokens=toks)
            log(event="mid", step=step)
        if step % 40 == 0:
            feed.rescan()
            new_teacher()
            if time.time() > rows_at:
                rows_at = time.time() + (25 if GPU else 3)
                rows.rescan()
        if step % 50 == 0 or (not GPU and step % 5 == 0):
            k = 50 if GPU else 5
            log(step=step, tokens=toks, lm=float(acc[0]) / k, rows=float(acc[1]) / k, gnorm=float(gn), scale=scale, tps=toks / (time.time() - t0),
                passes={g: round(rows.drawn.get(g, 0) / max(1, sum(c.values())), 2) for g, c in rows.count.items()})
            acc.zero_()
        if time.time() > next_eval and a.until - time.time() > 20:
            r = evaluate_now("dev", n=300)
            next_eval = time.time() + a.eval_every
            if r and (r["f1"] + r["sentence"]) / 2 > best[0]:
                best = ((r["f1"] + r["sentence"]) / 2, step)
                save(model, a.out.replace(".pt", ".best.pt"), step=step, tokens=toks, dev=r)
    save(model, a.out, step=step, tokens=toks)
    log(event="saved", step=step, tokens=toks, drawn=rows.drawn, rows={g: sum(c.values()) for g, c in rows.count.items()})
    if not a.no_final:
        evaluate_now("final")
        evaluate_now("final", q4=True)


if __name__ == "__main__":
    main()

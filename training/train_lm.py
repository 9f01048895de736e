#!/usr/bin/env python3
"""Stage 3 (GPU): pretraining of one generator (or masked-token pretraining of the encoder), boxed by time.

Muon + AdamW, warm-up, constant rate until --decay-from, then linear to --end-scale (1 = no decay: the tuning stage decays).
With --rows a share of the tokens are question rows (rule-made and real), so that copying is learnt early.
"""
import argparse, os, time
import numpy as np
import torch
import lfm2
from common import *


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--size", required=True)
    ap.add_argument("--w", required=True, help="work directory")
    ap.add_argument("--out", required=True)
    ap.add_argument("--until", type=float, required=True, help="unix time at which to stop")
    ap.add_argument("--mid", type=float, default=0, help="unix time at which to write OUT with .mid")
    ap.add_argument("--vocab", type=int, default=16384)
    ap.add_argument("--batch", type=int, default=96)
    ap.add_argument("--T", type=int, default=1024)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--decay", type=float, default=0.0, help="share of the time over which the rate falls")
    ap.add_argument("--end-scale", type=float, default=0.1)
    ap.add_argument("--mlm", action="store_true")
    ap.add_argument("--rows", type=float, default=0.0, help="share of steps that also take a row batch")
    ap.add_argument("--rows-from", type=float, default=0.3)
    ap.add_argument("--row-tokens", type=int, default=65536, help="as in tune.py: equal shapes share compiled code")
    ap.add_argument("--init", default="")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    seed_all(a.seed)
    log = Log(f"{a.w}/log/{os.path.basename(a.out)}.jsonl", stage="lm", size=a.size)
    causal = not a.mlm
    model = load(a.init) if a.init else lfm2.Lfm2(a.size, a.vocab, causal).to(DEV)
    lfm2.compile_blocks(model, GPU)
    loss_f = maybe_compile(lm_loss)
    rloss_f = maybe_compile(masked_loss if a.mlm else row_loss)
    opt = Muon(model, a.lr, a.lr)
    # compile on made-up tokens while the data is still being prepared
    x = torch.randint(14, a.vocab, (a.batch, a.T), device=DEV)
    with autocast():
        h = model.trunk(x)
        loss_f(h, model.embed_tokens.weight.to(h.dtype), x).backward()
    opt.zero()
    log(event="compiled", params=lfm2.n_params(model))
    if not wait_for(f"{a.w}/tok/chunk_*.bin", a.until, n=1):
        raise SystemExit("no data")
    feed = TextFeed(f"{a.w}/tok/chunk_*.bin", a.T, a.seed)
    rows = None
    if a.rows:
        rows = RowFeed(f"{a.w}/rows/*.npz", a.row_tokens, a.seed, dict(rule=1.0, real=0.3, skill=0.3), caps=dict(real=2))
    t0, step, toks, mid_done = time.time(), 0, 0, False
    rows_at = 0.0
    acc, rl = torch.zeros((), device=DEV), None
    span = max(1.0, a.until - t0)
    gen = np.random.default_rng(a.seed)
    while time.time() < a.until:
        frac = (time.time() - t0) / span
        scale = min(1.0, (step + 1) / 150)
        if a.decay and frac > 1 - a.decay:
            scale *= a.end_scale + (1 - a.end_scale) * max(0.0, (1 - frac) / a.decay)
        x, y = feed.batch(a.batch)
        with autocast():
            if a.mlm:
                m = torch.rand(x.shape, device=DEV) < 0.25
                r = torch.rand(x.shape, device=DEV)
                xin = torch.where(m & (r < 0.8), torch.full_like(x, 4), torch.where(m & (r > 0.9), torch.randint_like(x, 14, a.vocab), x))
                h = model.trunk(xin)
                loss = rloss_f(h, model.embed_tokens.weight.to(h.dtype), x, m.float())
            else:
                h = model.trunk(x)
                loss = loss_f(h, model.embed_tokens.weight.to(h.dtype), y)
        loss.backward()
        toks += x.numel()
        acc += loss.detach()
        if rows is not None and rows.files and frac > a.rows_from and gen.random() < a.rows:
            rx, ry, rw = rows.batch()
            with autocast():
                h = model.trunk(rx)
                l2 = rloss_f(h, model.embed_tokens.weight.to(h.dtype), ry, rw)
            (0.5 * l2).backward()
            toks += rx.numel()
            rl = l2.detach() if rl is None else 0.9 * rl + 0.1 * l2.detach()
        gn = opt.clip(1.0)
        opt.step(scale)
        opt.zero()
        step += 1
        if step % 50 == 0:
            feed.rescan()
            if rows is not None and frac > a.rows_from - 0.02 and time.time() > rows_at:
                rows_at = time.time() + (40 if GPU else 3)
                rows.rescan()
        if step % 100 == 0 or (not GPU and step % 5 == 0):
            k = 100 if GPU else 5
            log(step=step, tokens=toks, loss=float(acc) / k, rows=float(rl) if rl is not None else None, gnorm=float(gn), scale=scale,
                data=feed.tokens, epochs=feed.epochs, tps=toks / (time.time() - t0))
            acc.zero_()
        if a.mid and not mid_done and time.time() > a.mid:
            mid_done = True
            save(model, a.out.replace(".pt", ".mid.pt"), step=step, tokens=toks)
    save(model, a.out, step=step, tokens=toks)
    log(event="saved", step=step, tokens=toks, epochs=feed.epochs)
    if causal and os.path.exists(f"{a.w}/tok/heldout.bin"):
        ho = np.fromfile(f"{a.w}/tok/heldout.bin", np.uint16)
        log(event="heldout", bpb=bits_per_byte(model, ho[:400_000], int(np.load(f"{a.w}/tok/heldout_bytes.npy")) * min(1, 400_000 / len(ho))))


if __name__ == "__main__":
    main()

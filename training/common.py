"""Shared by the GPU stages: optimizers, time boxes, data on the device, checkpoints, logs."""
import glob, json, math, os, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import lfm2
from rows import WEIGHTS

DEV = "cuda" if torch.cuda.is_available() else "cpu"
GPU = DEV == "cuda"
if GPU:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def seed_all(s):
    torch.manual_seed(s); np.random.seed(s % 2**31)


def autocast():
    import contextlib
    return torch.autocast("cuda", dtype=torch.bfloat16) if GPU else contextlib.nullcontext()


class Log:
    def __init__(self, path, **fixed):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.f, self.fixed, self.t0 = open(path, "a"), fixed, time.time()

    def __call__(self, **kw):
        d = dict(t=round(time.time() - self.t0, 2), **self.fixed, **{k: (round(v, 5) if isinstance(v, float) else v) for k, v in kw.items()})
        self.f.write(json.dumps(d) + "\n"); self.f.flush()
        print(json.dumps(d), flush=True)


# ---- optimizers ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def newton_schulz(G, steps=5):
    """batched orthogonalisation, G [n, r, c] (Muon, Jordan et al.)"""
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.bfloat16() if GPU else G.float()
    t = X.shape[1] > X.shape[2]
    if t:
        X = X.transpose(1, 2)
    X = X / (X.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        A = X @ X.transpose(1, 2)
        X = a * X + (b * A + c * A @ A) @ X
    return X.transpose(1, 2) if t else X


class Muon:
    """Moonlight form: Nesterov momentum, update scaled by 0.2*sqrt(max dim), decoupled weight decay; AdamW for the rest."""

    def __init__(self, model, lr=3e-3, adam_lr=3e-3, wd=0.05, mom=0.95, adam_wd=0.0):
        self.lr, self.adam_lr, self.wd, self.mom = lr, adam_lr, wd, mom
        groups, rest = {}, []
        for n, p in model.named_parameters():
            if not p.requires_grad:
                continue
            if p.dim() == 2 and ".layers." in "." + n:
                groups.setdefault(tuple(p.shape), []).append(p)
            else:
                rest.append(p)
        self.groups = list(groups.values())
        self.buf = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=adam_wd, **({"fused": True} if GPU else {}))
        self.params = [p for g in self.groups for p in g] + rest

    @torch.no_grad()
    def step(self, scale):
        for g, m in zip(self.groups, self.buf):
            G = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in g]).float()
            m.mul_(self.mom).add_(G)
            U = newton_schulz(G + self.mom * m).float()
            lr = self.lr * scale
            s = 0.2 * math.sqrt(max(U.shape[1:]))
            ps = list(g)
            torch._foreach_mul_(ps, 1 - lr * self.wd)
            torch._foreach_add_(ps, list(U.unbind(0)), alpha=-lr * s)
        for pg in self.adam.param_groups:
            pg["lr"] = self.adam_lr * scale
        self.adam.step()

    def zero(self):
        for p in self.params:
            p.grad = None

    def clip(self, c=1.0):
        return torch.nn.utils.clip_grad_norm_([p for p in self.params if p.grad is not None], c)


# ---- 4-bit rounding in the forward pass (straight-through), so that Q4_K files lose little ------------------------------
@torch.no_grad()
def fake_q4(w, bits=4):
    o, i = w.shape
    x = w.view(o, i // 32, 32)
    lo = x.amin(-1, keepdim=True).clamp_max(0)
    hi = x.amax(-1, keepdim=True).clamp_min(0)
    d = ((hi - lo) / (2 ** bits - 1)).clamp_min(1e-8)
    return (((x - lo) / d).round() * d + lo).view(o, i)


class Quantized:
    """with Quantized(model): forward/backward see rounded layer matrices; the float weights come back afterwards."""

    def __init__(self, model, on):
        self.ps = [p for n, p in model.named_parameters() if p.dim() == 2 and "layers." in n and p.shape[1] % 32 == 0] if on else []

    def __enter__(self):
        self.keep = [p.data for p in self.ps]
        for p in self.ps:
            p.data = fake_q4(p.data)

    def __exit__(self, *a):
        for p, d in zip(self.ps, self.keep):
            p.data = d


# ---- text on the device ---------------------------------------------------------------------------------------------
class TextFeed:
    """All token chunks in device memory; windows of T+1 tokens, without replacement inside an epoch; new files join when they appear."""

    def __init__(self, pattern, T, seed, skip=()):
        self.pattern, self.T, self.skip = pattern, T, set(skip)
        self.files, self.parts = set(), []
        self.gen = np.random.default_rng(seed)
        self.queue = np.zeros((0, 2), np.int64)
        self.epochs = 0
        self.rescan()

    def rescan(self):
        new = [f for f in sorted(glob.glob(self.pattern)) if f not in self.files and os.path.basename(f) not in self.skip]
        fresh = []
        for f in new:
            self.files.add(f)
            a = np.fromfile(f, np.uint16).astype(np.int32)
            if len(a) < 2 * self.T + 2:
                continue
            self.parts.append(torch.from_numpy(a).to(DEV))
            fresh.append(len(self.parts) - 1)
        if fresh:
            self.tokens = sum(len(p) for p in self.parts)
            self.flat = torch.cat(self.parts)
            self.base = np.cumsum([0] + [len(p) for p in self.parts])
            q = self._windows(fresh)
            self.queue = np.concatenate([self.queue, q])
            self.gen.shuffle(self.queue)
        return len(fresh)

    def _windows(self, which):
        out = []
        for i in which:
            n = len(self.parts[i])
            s = np.arange(self.gen.integers(0, self.T), n - self.T - 1, self.T)
            out.append(self.base[i] + s)
        s = np.concatenate(out)
        return np.stack([s, s], 1)

    def batch(self, B):
        if len(self.queue) < B:
            self.epochs += 1
            q = self._windows(range(len(self.parts)))
            self.gen.shuffle(q)
            self.queue = np.concatenate([self.queue, q])
            while len(self.queue) < B:
                self.queue = np.concatenate([self.queue, self.queue])
        s, self.queue = self.queue[:B, 0], self.queue[B:]
        idx = torch.from_numpy(s).to(DEV)[:, None] + torch.arange(self.T + 1, device=DEV)
        x = self.flat[idx].long()
        return x[:, :-1], x[:, 1:]


class RowFeed:
    """Row shards by group (file name up to the first '-'); buckets of equal padded length; draws by group weight with an epoch cap."""
    BUCKETS = (256, 448, 640, 1024)

    def __init__(self, pattern, tokens_per_batch, seed, weights, caps=None, exclude=()):
        self.pattern, self.tpb, self.weights, self.caps = pattern, tokens_per_batch, weights, caps or {}
        self.gen = np.random.default_rng(seed)
        self.files, self.ids, self.w = set(), [], []
        self.flat_n = 0
        self.rows = {}                      # (group, bucket) -> [array of (offset, length)]
        self.order, self.drawn = {}, {}
        self.exclude = exclude
        self.WT = torch.tensor(WEIGHTS, device=DEV)
        self.rescan()

    def rescan(self):
        new = [f for f in sorted(glob.glob(self.pattern)) if f not in self.files and ".tmp." not in f]
        n_new = 0
        for f in new:
            g = os.path.basename(f).split("-")[0]
            if g in self.exclude or g not in self.weights:
                continue
            try:
                z = np.load(f)
                ids, w, n = z["ids"], z["w"], z["n"]
            except Exception as e:
                print("skip", f, e, flush=True); continue
            self.files.add(f)
            off = self.flat_n + np.concatenate([[0], np.cumsum(n)[:-1]])
            self.flat_n += len(ids)
            self.ids.append(ids); self.w.append(w)
            for bi, T in enumerate(self.BUCKETS):
                lo = 0 if bi == 0 else self.BUCKETS[bi - 1] + 1
                m = (n - 1 >= lo) & (n - 1 <= T) if bi else (n - 1 <= T)
                if bi:
                    m = (n - 1 > self.BUCKETS[bi - 1]) & (n - 1 <= T)
                if m.any():
                    self.rows.setdefault((g, T), []).append(np.stack([off[m], n[m]], 1))
            n_new += len(n)
        if n_new:
            ids, w = np.concatenate(self.ids), np.concatenate(self.w)
            self.ids, self.w = [ids], [w]
            self.flat = torch.from_numpy(ids.astype(np.int32)).to(DEV)
            self.fw = torch.from_numpy(w).to(DEV)
            for k in self.rows:
                self.rows[k] = [np.concatenate(self.rows[k])]
                self.order[k] = self.gen.permutation(len(self.rows[k][0]))
            self.count = {}
            for (g, T), v in self.rows.items():
                self.count.setdefault(g, {})[T] = len(v[0])
        return n_new

    def groups(self):
        """current draw weights of the groups (0 once a group has been seen cap times)"""
        out = {}
        for g, c in self.count.items():
            n = sum(c.values())
            cap = self.caps.get(g)
            out[g] = 0.0 if cap and self.drawn.get(g, 0) >= cap * n else self.weights[g]
        return out

    def batch(self):
        gw = self.groups()
        if not any(gw.values()):
            gw = {g: self.weights[g] for g in self.count}
        # bucket: by the expected share of tokens in it
        p = np.zeros(len(self.BUCKETS))
        for g, w in gw.items():
            n = sum(self.count[g].values())
            for T, c in self.count[g].items():
                p[self.BUCKETS.index(T)] += w * c / n * T
        T = self.BUCKETS[self.gen.choice(len(p), p=p / p.sum())]
        B = max(1, self.tpb // T)
        gs = [g for g in gw if self.count[g].get(T)]
        q = np.array([gw[g] * self.count[g][T] / sum(self.count[g].values()) for g in gs])
        if q.sum() == 0:
            q = q + 1
        n_each = self.gen.multinomial(B, q / q.sum())
        sel = []
        for g, k in zip(gs, n_each):
            if k == 0:
                continue
            key = (g, T)
            o = self.order[key]
            while len(o) < k:
                o = np.concatenate([o, self.gen.permutation(len(self.rows[key][0]))])
            sel.append(self.rows[key][0][o[:k]])
            self.order[key] = o[k:]
            self.drawn[g] = self.drawn.get(g, 0) + int(k)
        r = np.concatenate(sel)
        off, n = torch.from_numpy(r[:, 0]).to(DEV), torch.from_numpy(r[:, 1]).to(DEV)
        ar = torch.arange(T + 1, device=DEV)
        idx = (off[:, None] + ar).clamp_max(len(self.flat) - 1)
        inside = ar[None] < n[:, None]
        x = torch.where(inside, self.flat[idx], 0).long()
        w = torch.where(inside, self.WT[self.fw[idx].long()], 0.0)
        return x[:, :-1], x[:, 1:], w[:, 1:]


# ---- losses -----------------------------------------------------------------------------------------------------------
def lm_loss(h, W, y):
    return F.cross_entropy(F.linear(h, W).flatten(0, 1).float(), y.flatten())


def heaviest(y, w, share=0.25):
    """The places with the largest weights, a fixed share of all: the question and the answer. Only they go through the head, the
    costliest matrix of a small model; passages weigh next to nothing in a row, since plain text is learnt beside it."""
    w, i = torch.topk(w.flatten(), int(w.numel() * share), sorted=False)
    return i, y.flatten()[i], w


def row_loss(h, W, y, w):
    i, y, w = heaviest(y, w)
    l = F.cross_entropy(F.linear(h.flatten(0, 1)[i], W).float(), y, reduction="none")
    return (l * w).sum() / w.sum().clamp_min(1e-6)


def masked_loss(h, W, y, w):
    """masked-token pretraining: w is 0 or 1"""
    l = F.cross_entropy(F.linear(h, W).flatten(0, 1).float(), y.flatten(), reduction="none")
    w = w.flatten()
    return (l * w).sum() / w.sum().clamp_min(1e-6)


def row_kd_loss(h, W, y, w, ht, Wt, alpha):
    i, y, w = heaviest(y, w)
    lg = F.linear(h.flatten(0, 1)[i], W).float()
    ce = F.cross_entropy(lg, y, reduction="none")
    pt = torch.softmax(F.linear(ht.flatten(0, 1)[i], Wt).float(), -1)
    kd = -(pt * torch.log_softmax(lg, -1)).sum(-1)
    ws = w.sum().clamp_min(1e-6)
    return ((1 - alpha) * (ce * w).sum() + alpha * (kd * w).sum()) / ws


def maybe_compile(f, on=True):
    return torch.compile(f, dynamic=False) if on and GPU else f


class Average:
    """Exponential average of the weights: what a decayed rate would give, at any time. Teacher and question writer are taken from it."""

    def __init__(self, model, keep=0.998):
        self.model, self.keep = model, keep
        self.src = [p for p in model.parameters()]
        self.avg = [p.detach().clone() for p in self.src]

    @torch.no_grad()
    def step(self):
        torch._foreach_lerp_(self.avg, [p.detach() for p in self.src], 1 - self.keep) if hasattr(torch, "_foreach_lerp_") else [
            a.lerp_(p, 1 - self.keep) for a, p in zip(self.avg, self.src)]

    def __enter__(self):
        self.own = [p.data for p in self.src]
        for p, a in zip(self.src, self.avg):
            p.data = a

    def __exit__(self, *a):
        for p, d in zip(self.src, self.own):
            p.data = d


# ---- checkpoints ------------------------------------------------------------------------------------------------------
def save(model, path, **meta):
    tmp = path + ".tmp"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    torch.save(dict(sd={k: v.detach().to("cpu", torch.float32) for k, v in model.state_dict().items()}, size=model.size,
                    vocab=model.cfg["vocab"], causal=model.causal, meta=meta), tmp)
    os.replace(tmp, path)


def load(path, size=None, causal=None, strict=True):
    d = torch.load(path, map_location="cpu")
    m = lfm2.Lfm2(d["size"], d["vocab"], d["causal"] if causal is None else causal)
    m.load_state_dict(d["sd"], strict=strict)
    return m.to(DEV)


def wait_for(pattern, until, what="", n=1):
    while len(glob.glob(pattern)) < n:
        if time.time() > until:
            print("gave up waiting for", pattern, what, flush=True)
            return False
        time.sleep(0.25)
    return True


def to_bf16(model):
    """weights to bfloat16 on a GPU; the rotary tables stay float32"""
    if GPU:
        model.to(torch.bfloat16)
        model.cos, model.sin = lfm2.rope_tables(model.cos.shape[0], device=DEV)
    return model


class Eager:
    """with Eager(model): the blocks run uncompiled (evaluation batches have many shapes)"""

    def __init__(self, model):
        self.layers = list(model.layers)

    def __enter__(self):
        self.keep = [getattr(l, "_compiled_call_impl", None) for l in self.layers]
        for l in self.layers:
            if hasattr(l, "_compiled_call_impl"):
                l._compiled_call_impl = None

    def __exit__(self, *a):
        for l, k in zip(self.layers, self.keep):
            if k is not None:
                l._compiled_call_impl = k


@torch.no_grad()
def bits_per_byte(model, ids, n_bytes, T=1024, B=16):
    """ids: one long token stream of the held-out text"""
    x = torch.from_numpy(ids.astype(np.int64)).to(DEV)
    n = (len(x) - 1) // T
    nll = 0.0
    with autocast(), Eager(model):
        W = model.embed_tokens.weight
        for i in range(0, n, B):
            idx = torch.arange(i, min(i + B, n), device=DEV)[:, None] * T + torch.arange(T + 1, device=DEV)
            b = x[idx]
            h = model.trunk(b[:, :-1])
            nll += F.cross_entropy(F.linear(h, W.to(h.dtype)).flatten(0, 1).float(), b[:, 1:].flatten(), reduction="sum").item()
    return nll / math.log(2) / (n_bytes * n * T / (len(x) - 1))

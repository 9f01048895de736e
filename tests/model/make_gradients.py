#!/usr/bin/env python3
"""make_gradients.py - what PyTorch says the gradients of LoRA matrices are, for test_backward.

    make_gradients.py tests/data/model          reads NAME.gguf there, writes NAME.grad.gguf

Each file holds, for two sequences in one batch: ids.S and weight.S, then for every adapted matrix I the tensors a.I [n_in, rank], b.I [rank, n_out],
grad_a.I, grad_b.I and where.I [layer, slot], and loss and distill (a loss; distill.grad_a.I and distill.grad_b.I are the gradients
of the divergence from the model without its adapter). All in float64, then rounded. Needs torch and numpy (Debian: python3-torch).
"""
import struct
import sys

import numpy as np
import torch

SLOTS = ["attn_q", "attn_k", "attn_v", "attn_output", "shortconv.in_proj", "shortconv.out_proj", "ffn_gate", "ffn_up", "ffn_down"]
KINDS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def read_gguf(path):
    raw, at = open(path, "rb").read(), 24
    n_tensors, n_keys = struct.unpack_from("<QQ", raw, 8)

    def string():
        nonlocal at
        n = struct.unpack_from("<Q", raw, at)[0]
        at += 8 + n
        return raw[at - n : at].decode("utf-8", "replace")

    def value(kind):
        nonlocal at
        if kind == 8:
            return string()
        if kind == 9:
            inner, n = struct.unpack_from("<IQ", raw, at)
            at += 12
            return [value(inner) for _ in range(n)]
        v = struct.unpack_from(KINDS[kind], raw, at)[0]
        at += struct.calcsize(KINDS[kind])
        return v

    keys, infos, tensors = {}, [], {}
    for _ in range(n_keys):
        name = string()
        kind = struct.unpack_from("<I", raw, at)[0]
        at += 4
        keys[name] = value(kind)
    for _ in range(n_tensors):
        name = string()
        n = struct.unpack_from("<I", raw, at)[0]
        ne = struct.unpack_from(f"<{n}Q", raw, at + 4)
        dtype, offset = struct.unpack_from("<IQ", raw, at + 4 + 8 * n)
        at += 4 + 8 * n + 12
        infos.append((name, ne, dtype, offset))
    base = (at + 31) // 32 * 32
    for name, ne, dtype, offset in infos:
        a = np.frombuffer(raw, {0: "<f4", 1: "<f2"}[dtype], int(np.prod(ne)), base + offset)
        tensors[name] = torch.tensor(a.astype(np.float64).reshape(ne[::-1]))
    return keys, tensors


def write_gguf(path, tensors):
    def string(s):
        return struct.pack("<Q", len(s)) + s.encode()

    keys = string("general.type") + struct.pack("<I", 8) + string("reference")
    infos, data = b"", b""
    for name, a in tensors.items():
        a = np.ascontiguousarray(a, np.int32 if np.asarray(a).dtype.kind == "i" else np.float32)
        ne = a.shape[::-1]
        infos += string(name) + struct.pack("<I", len(ne)) + struct.pack(f"<{len(ne)}Q", *ne)
        infos += struct.pack("<IQ", 26 if a.dtype == np.int32 else 0, len(data))
        data += a.tobytes() + b"\0" * (-a.nbytes % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + keys + infos
    open(path, "wb").write(head + b"\0" * (-len(head) % 32) + data)


def rms(x, w, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w


def rotate(x, theta, n_rot):
    half = n_rot // 2
    angle = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) * 2 / n_rot)
    c, s = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    a, b, rest = x[..., :half], x[..., half:n_rot], x[..., n_rot:]
    return torch.cat([a * c - b * s, a * s + b * c, rest], -1)


def forward(keys, w, lora, ids):
    arch = keys["general.architecture"]
    get = lambda name: keys[f"{arch}.{name}"]
    n_layers, heads, eps, theta = get("block_count"), get("attention.head_count"), get("attention.layer_norm_rms_epsilon"), get("rope.freq_base")
    kv_of = get("attention.head_count_kv")
    x = w["token_embd.weight"][ids]
    T = len(ids)

    def mul(layer, slot, v):
        name = f"blk.{layer}.{SLOTS[slot]}."
        y = v @ w[name + "weight"].T
        if name + "bias" in w:
            y = y + w[name + "bias"]
        if (layer, slot) in lora:
            a, b = lora[layer, slot]
            y = y + (v @ a.T) @ b.T
        return y

    for i in range(n_layers):
        t = rms(x, w[f"blk.{i}.attn_norm.weight"], eps)
        kv = kv_of[i] if isinstance(kv_of, list) else kv_of
        if kv == 0:
            b, c, g = mul(i, 4, t).chunk(3, -1)
            u = torch.cat([torch.zeros(2, b.shape[1], dtype=b.dtype), b * g])
            taps = w[f"blk.{i}.shortconv.conv.weight"]
            x = x + mul(i, 5, c * sum(taps[:, k] * u[k : k + T] for k in range(3)))
        else:
            q, k, v = mul(i, 0, t).view(T, heads, -1), mul(i, 1, t).view(T, kv, -1), mul(i, 2, t).view(T, kv, -1)
            e = q.shape[-1]
            if f"blk.{i}.attn_q_norm.weight" in w:
                q, k = rms(q, w[f"blk.{i}.attn_q_norm.weight"], eps), rms(k, w[f"blk.{i}.attn_k_norm.weight"], eps)
            q, k = rotate(q, theta, e), rotate(k, theta, e)
            k, v = k.repeat_interleave(heads // kv, 1), v.repeat_interleave(heads // kv, 1)
            p = torch.einsum("ihe,jhe->hij", q, k) / e**0.5
            p = torch.softmax(p + torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1), -1)
            x = x + mul(i, 3, torch.einsum("hij,jhe->ihe", p, v).reshape(T, -1))
        t = rms(x, w[f"blk.{i}.ffn_norm.weight"], eps)
        x = x + mul(i, 8, torch.nn.functional.silu(mul(i, 6, t)) * mul(i, 7, t))
    final = "token_embd_norm.weight" if arch == "lfm2" else "output_norm.weight"
    return torch.log_softmax(rms(x, w[final], eps) @ w.get("output.weight", w["token_embd.weight"]).T, -1)


def make(directory, name, seed):
    keys, w = read_gguf(f"{directory}/{name}.gguf")
    rng = np.random.default_rng(seed)
    n_layers = keys[keys["general.architecture"] + ".block_count"]
    out, lora, rank = {}, {}, 3
    for layer in range(1, n_layers):
        for slot, suffix in enumerate(SLOTS):
            m = w.get(f"blk.{layer}.{suffix}.weight")
            if m is None:
                continue
            i = len(lora)
            a, b = 0.1 * rng.normal(size=(rank, m.shape[1])), 0.1 * rng.normal(size=(m.shape[0], rank))
            a, b = a.astype(np.float32), b.astype(np.float32)
            out[f"where.{i}"], out[f"a.{i}"], out[f"b.{i}"] = np.array([layer, slot]), a, b
            lora[layer, slot] = [torch.tensor(v.astype(np.float64), requires_grad=True) for v in (a, b)]
    loss = divergence = torch.zeros((), dtype=torch.float64)
    for s, n in enumerate((29, 70)):
        ids = rng.integers(8, 280, size=n)
        weight = np.where(rng.random(n) < 0.4, rng.random(n), 0).astype(np.float32)
        weight[0] = 0
        out[f"ids.{s}"], out[f"weight.{s}"] = ids, weight
        p, q = forward(keys, w, lora, ids), forward(keys, w, {}, ids)
        wt = torch.tensor(weight[1:].astype(np.float64))
        loss = loss - (wt * p[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]).sum()
        divergence = divergence + (wt * (q.exp() * (q - p)).sum(-1)[:-1]).sum()
    flat = [v for pair in lora.values() for v in pair]
    for kind, value in (("", loss), ("distill.", divergence)):
        gradients = torch.autograd.grad(value, flat, retain_graph=True)
        for i in range(len(lora)):
            out[f"{kind}grad_a.{i}"], out[f"{kind}grad_b.{i}"] = gradients[2 * i].numpy(), gradients[2 * i + 1].numpy()
    out["loss"], out["distill"] = np.array([loss.item()]), np.array([divergence.item()])
    write_gguf(f"{directory}/{name}.grad.gguf", out)
    print(f"{name}: {len(lora)} matrices, loss {loss.item():.4f}, divergence {divergence.item():.4f}")


for seed, name in enumerate(("lfm2", "qwen2")):
    make(sys.argv[1], name, seed)

"""LFM2 blocks in PyTorch, for training: a causal language model and a bidirectional text encoder.

Facts of the architecture: gated short convolution (3 taps, in_proj rows in the order B, C, X), grouped-query attention with
per-head RMSNorm on q and k and half-split RoPE, SwiGLU, RMSNorm before each operator, tied head, no biases. Parameter names
are those of transformers' Lfm2 classes, so that export is a plain copy. The convolution is three shifted multiply-adds,
which is much faster in training than a depthwise conv1d kernel.

Two shapes of use: `Lfm2(ids)` for training (right padding is harmless under the causal mask) and `prefill`/`decode` with a
cache for batched generation of right-padded prompts.
"""
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")

# vocab 16384 everywhere; "a" = attention, "c" = convolution
SIZES = {
    "S": dict(hidden=192, ffn=512, heads=3, kv=1, layers="cacaca"),
    "M": dict(hidden=256, ffn=768, heads=4, kv=2, layers="ccacacacacaa"),
    "L": dict(hidden=512, ffn=1280, heads=8, kv=4, layers="ccacacacacaa"),
    "E": dict(hidden=256, ffn=512, heads=4, kv=2, layers="cacacaca"),
    "T": dict(hidden=64, ffn=128, heads=1, kv=1, layers="ca"),      # rehearsals and tests
}
EMBED_DIM = 384


class RMSNorm(nn.Module):
    def __init__(self, d, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.eps = eps

    def forward(self, x):
        xf = x.float()
        return (xf * torch.rsqrt(xf.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rope_tables(n, hd=64, theta=1e6, device="cpu"):
    inv = theta ** (-torch.arange(0, hd, 2, dtype=torch.float64) / hd)
    ang = torch.outer(torch.arange(n, dtype=torch.float64), inv)
    ang = torch.cat([ang, ang], -1)
    return ang.cos().float().to(device), ang.sin().float().to(device)


def rope(x, cos, sin):
    h = x.shape[-1] // 2
    rot = torch.cat([-x[..., h:], x[..., :h]], -1)
    return (x * cos + rot * sin).to(x.dtype)


def attend(q, k, v, causal, mask=None):
    """q [B,H,T,64], k/v [B,KV,S,64]; mask: bool, True = attend"""
    g = q.shape[1] // k.shape[1]
    if g > 1:
        k, v = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
    if HAS_SDPA:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    s = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    if mask is not None:
        s = s.masked_fill(~mask, float("-inf"))
    elif causal:
        t = q.shape[2]
        s = s.masked_fill(~torch.ones(t, t, dtype=torch.bool, device=q.device).tril(), float("-inf"))
    return torch.softmax(s.float(), -1).to(v.dtype) @ v


class ShortConv(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.conv = nn.Conv1d(d, d, 3, groups=d, bias=False)      # holds [d,1,3]; never called
        self.in_proj = nn.Linear(d, 3 * d, bias=False)
        self.out_proj = nn.Linear(d, d, bias=False)

    def forward(self, x, causal, pad):
        b, c, h = self.in_proj(x).chunk(3, -1)
        g = b * h
        if pad is not None:
            g = g * pad
        w = self.conv.weight[:, 0, :].to(g.dtype)
        if causal:
            z = w[:, 2] * g + w[:, 1] * F.pad(g, (0, 0, 1, 0))[:, :-1] + w[:, 0] * F.pad(g, (0, 0, 2, 0))[:, :-2]
        else:
            z = w[:, 1] * g + w[:, 0] * F.pad(g, (0, 0, 1, 0))[:, :-1] + w[:, 2] * F.pad(g, (0, 0, 0, 1))[:, 1:]
        return self.out_proj(c * z)

    def step(self, x, state):
        """x [B,1,d]; state [B,2,d] (g at t-2, t-1) is updated in place"""
        b, c, h = self.in_proj(x).chunk(3, -1)
        g = b * h
        w = self.conv.weight[:, 0, :].to(g.dtype)
        z = w[:, 2] * g[:, 0] + w[:, 1] * state[:, 1] + w[:, 0] * state[:, 0]
        state[:, 0] = state[:, 1].clone()
        state[:, 1] = g[:, 0]
        return self.out_proj(c * z[:, None])

    def final_state(self, x, lens):
        b, _, h = self.in_proj(x).chunk(3, -1)
        g = F.pad(b * h, (0, 0, 2, 0))
        i = torch.arange(g.shape[0], device=g.device)
        return torch.stack([g[i, lens], g[i, lens + 1]], 1)


class Attention(nn.Module):
    def __init__(self, d, heads, kv):
        super().__init__()
        self.h, self.kv = heads, kv
        self.q_proj = nn.Linear(d, heads * 64, bias=False)
        self.k_proj = nn.Linear(d, kv * 64, bias=False)
        self.v_proj = nn.Linear(d, kv * 64, bias=False)
        self.out_proj = nn.Linear(heads * 64, d, bias=False)
        self.q_layernorm = RMSNorm(64)
        self.k_layernorm = RMSNorm(64)

    def qkv(self, x, cos, sin):
        B, T, _ = x.shape
        q = self.q_layernorm(self.q_proj(x).view(B, T, self.h, 64)).transpose(1, 2)
        k = self.k_layernorm(self.k_proj(x).view(B, T, self.kv, 64)).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.kv, 64).transpose(1, 2)
        return rope(q, cos, sin).to(v.dtype), rope(k, cos, sin).to(v.dtype), v

    def forward(self, x, cos, sin, causal, mask):
        B, T, _ = x.shape
        q, k, v = self.qkv(x, cos, sin)
        y = attend(q, k, v, causal, mask)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, -1))


class FFN(nn.Module):
    def __init__(self, d, f):
        super().__init__()
        self.w1 = nn.Linear(d, f, bias=False)
        self.w2 = nn.Linear(f, d, bias=False)
        self.w3 = nn.Linear(d, f, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class ConvBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden"]
        self.operator_norm, self.ffn_norm = RMSNorm(d), RMSNorm(d)
        self.conv = ShortConv(d)
        self.feed_forward = FFN(d, c["ffn"])

    def forward(self, x, cos, sin, causal, mask, pad):
        h = x + self.conv(self.operator_norm(x), causal, pad)
        return h + self.feed_forward(self.ffn_norm(h))


class AttnBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden"]
        self.operator_norm, self.ffn_norm = RMSNorm(d), RMSNorm(d)
        self.self_attn = Attention(d, c["heads"], c["kv"])
        self.feed_forward = FFN(d, c["ffn"])

    def forward(self, x, cos, sin, causal, mask, pad):
        h = x + self.self_attn(self.operator_norm(x), cos, sin, causal, mask)
        return h + self.feed_forward(self.ffn_norm(h))


class Lfm2(nn.Module):
    """Trunk + tied head. Also the encoder when causal=False (with embedding_proj and embedding_layer_norm)."""

    def __init__(self, size, vocab=16384, causal=True, ctx=2048):
        super().__init__()
        c = dict(SIZES[size], vocab=vocab)
        self.cfg, self.size, self.causal = c, size, causal
        self.embed_tokens = nn.Embedding(vocab, c["hidden"])
        self.layers = nn.ModuleList([AttnBlock(c) if k == "a" else ConvBlock(c) for k in c["layers"]])
        self.embedding_norm = RMSNorm(c["hidden"])
        if not causal:
            self.embedding_proj = nn.Linear(c["hidden"], EMBED_DIM)
            self.embedding_layer_norm = nn.LayerNorm(EMBED_DIM, eps=1e-5)
        cos, sin = rope_tables(ctx)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        n = len(c["layers"])
        for name, p in self.named_parameters():
            if p.dim() == 2 and "embed_tokens" not in name:
                s = 0.5 / math.sqrt(p.shape[1])
                if name.endswith(("out_proj.weight", "w2.weight")):
                    s /= math.sqrt(2 * n)
                nn.init.normal_(p, 0, s)
            elif "embed_tokens" in name:
                nn.init.normal_(p, 0, 0.02)
            elif "conv.conv" in name:
                with torch.no_grad():
                    p.normal_(0, 0.3)
                    p[:, 0, 2 if causal else 1] += 0.7
            elif name.endswith("embedding_proj.bias"):
                nn.init.zeros_(p)

    def trunk(self, ids, mask=None, pad=None):
        T = ids.shape[1]
        x = self.embed_tokens(ids)
        dt = torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else x.dtype
        x = x.to(dt)
        cos, sin = self.cos[:T], self.sin[:T]
        for l in self.layers:
            x = l(x, cos, sin, self.causal, mask, pad)
        return self.embedding_norm(x)

    def forward(self, ids):
        return F.linear(self.trunk(ids), self.embed_tokens.weight.to(self.trunk_dtype()))

    def trunk_dtype(self):
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else self.embed_tokens.weight.dtype

    def embed(self, ids, pad, mask=None):
        """ids [B,T] right padded, pad [B,T] bool (True = token) -> unit vectors [B,384] float32"""
        if mask is None:
            mask = pad[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        h = self.trunk(ids, mask, pad[..., None].to(self.trunk_dtype()))
        m = pad[..., None].float()
        h = (h.float() * m).sum(1) / m.sum(1).clamp_min(1)
        h = F.linear(h, self.embedding_proj.weight.float(), self.embedding_proj.bias.float())
        h = F.layer_norm(h, (EMBED_DIM,), self.embedding_layer_norm.weight.float(), self.embedding_layer_norm.bias.float(), 1e-5)
        return F.normalize(h, dim=-1)

    # ---- batched generation -------------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(self, ids, lens, max_new, stop=(7, 2), temperature=0.0, top_p=1.0, generator=None, ban=None):
        """ids [B,T] right padded; lens [B]. Returns tokens [B,max_new] (0 after the stop token)."""
        B, T = ids.shape
        dev = ids.device
        S = T + max_new
        dt = self.trunk_dtype()
        rows = torch.arange(B, device=dev)
        x = self.embed_tokens(ids).to(dt)
        cos, sin = self.cos[:T], self.sin[:T]
        cache = []
        for l in self.layers:
            n = l.operator_norm(x)
            if isinstance(l, ConvBlock):
                cache.append(l.conv.final_state(n, lens).contiguous())
                h = x + l.conv(n, True, None)
            else:
                q, k, v = l.self_attn.qkv(n, cos, sin)
                K = torch.zeros(B, k.shape[1], S, 64, device=dev, dtype=k.dtype)
                V = torch.zeros_like(K)
                K[:, :, :T], V[:, :, :T] = k, v
                cache.append((K, V))
                h = x + l.self_attn.out_proj(attend(q, k, v, True).transpose(1, 2).reshape(B, T, -1))
            x = h + l.feed_forward(l.ffn_norm(h))
        last = self.embedding_norm(x[rows, lens - 1])
        del x, h, n
        out = torch.zeros(B, max_new, dtype=torch.long, device=dev)
        done = torch.zeros(B, dtype=torch.bool, device=dev)
        pos = torch.arange(S, device=dev)
        head = self.embed_tokens.weight.to(dt)
        for i in range(max_new):
            logits = F.linear(last, head).float()
            logits[:, 0:2] = -1e9
            if ban is not None:
                logits[:, ban] = -1e9
            if temperature > 0:
                top, idx = torch.topk(logits / temperature, 50, -1)
                p = torch.softmax(top, -1)
                keep = (p.cumsum(-1) - p) < top_p
                p = p * keep
                nxt = idx.gather(1, torch.multinomial(p, 1, generator=generator))[:, 0]
            else:
                nxt = logits.argmax(-1)
            nxt = torch.where(done, torch.zeros_like(nxt), nxt)
            out[:, i] = nxt
            for s in stop:
                done |= nxt == s
            if i % 8 == 7 and bool(done.all()):
                break
            if i == max_new - 1:
                break
            p_i = lens + i
            x = self.embed_tokens(nxt)[:, None].to(dt)
            c1, s1 = self.cos[p_i][:, None, None], self.sin[p_i][:, None, None]
            vis = (pos[None] <= p_i[:, None])[:, None, None]
            # right-padded prompts: slots between a row's own length and T hold padding keys until overwritten;
            # they lie above p_i and stay invisible, because row b writes to slot lens[b]+i
            for l, c in zip(self.layers, cache):
                n = l.operator_norm(x)
                if isinstance(l, ConvBlock):
                    h = x + l.conv.step(n, c)
                else:
                    q, k, v = l.self_attn.qkv(n, c1, s1)
                    K, V = c
                    K[rows, :, p_i], V[rows, :, p_i] = k[:, :, 0], v[:, :, 0]
                    kvh = K.shape[1]
                    g = l.self_attn.h // kvh
                    qq = q.view(B, kvh, g, 64)
                    sc = (qq @ K.transpose(-1, -2)).float() / 8.0
                    sc = sc.masked_fill(~vis, float("-inf"))
                    y = (torch.softmax(sc, -1).to(V.dtype) @ V).reshape(B, 1, -1)
                    h = x + l.self_attn.out_proj(y)
                x = h + l.feed_forward(l.ffn_norm(h))
            last = self.embedding_norm(x[:, 0])
        return out


def compile_blocks(model, on):
    """Regional compilation: one graph for each block kind and input shape, shared by all layers."""
    if on and hasattr(torch, "compile"):
        import torch._dynamo as d
        for k in ("cache_size_limit", "recompile_limit"):
            if hasattr(d.config, k):
                setattr(d.config, k, 96)
        for l in model.layers:
            l.compile(dynamic=False)
    return model


def n_params(model):
    return sum(p.numel() for p in model.parameters())

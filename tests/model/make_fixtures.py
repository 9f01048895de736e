#!/usr/bin/env python3
"""make_fixtures.py - tiny models with random weights, and what a plain float64 forward pass makes of them.

The forward pass here follows the published descriptions of the architectures, is written for clarity, and shares nothing with the
C code. It is itself checked against activations of Hugging Face transformers:

    make_fixtures.py check DIR...         DIR holds config.json, model.safetensors and reference.npz (ids, hidden_i, logits)
    make_fixtures.py import DIR MODEL.gguf REF.gguf   such a directory as GGUF files that test_forward reads
    make_fixtures.py quantized DIR TYPE REF.gguf      logits_TYPE of DIR/quantized.npz in the same form (no hidden states)
    make_fixtures.py make OUT_DIR         writes the fixtures of tests/data/model

A reference file is a GGUF file with the tensors ids, rows (positions that are kept), hidden.I [n_rows, hidden], logits [n_rows, n_vocab]
and argmax (every position); an encoder's has embedding [dim]. Needs numpy.
"""
import json
import math
import struct
import sys

import numpy as np

# ---- GGUF -------------------------------------------------------------------------------------------------------------------


def gguf_string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def gguf_value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, (str, bytes)):
        return struct.pack("<I", 8) + gguf_string(v)
    if isinstance(v, list):
        if isinstance(v[0], (str, bytes)):
            return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(gguf_string(x) for x in v)
        if isinstance(v[0], float):
            return struct.pack("<IIQ", 9, 6, len(v)) + struct.pack(f"<{len(v)}f", *v)
        return struct.pack("<IIQ", 9, 5, len(v)) + struct.pack(f"<{len(v)}i", *v)
    raise TypeError(type(v))


def gguf_write(path, keys, tensors):
    """tensors: name -> array in float32, float16 or int32, last axis contiguous"""
    types = {np.dtype("float32"): 0, np.dtype("float16"): 1, np.dtype("int32"): 26}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for k, v in keys.items():
        head += gguf_string(k) + gguf_value(v)
    at = 0
    for name, a in tensors.items():
        head += gguf_string(name) + struct.pack("<I", a.ndim) + struct.pack(f"<{a.ndim}Q", *a.shape[::-1])
        head += struct.pack("<IQ", types[a.dtype], at)
        at += (a.nbytes + 31) // 32 * 32
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32))
        for a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes() + b"\0" * (-a.nbytes % 32))


# ---- the forward pass, in float64 -----------------------------------------------------------------------------------------------


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu(x):
    return x / (1 + np.exp(-x))


def frequencies(c):
    """radians per position of each pair, and what multiplies cos and sin"""
    n = c["n_rot"]
    f = np.array([c["theta"] ** (-2 * i / n) for i in range(n // 2)])
    if c.get("rope_freqs") is not None:
        return f / c["rope_freqs"], 1.0
    y = c.get("yarn")
    if not y:
        return f, 1.0

    def corr(b):
        return n * math.log(y["orig"] / (2 * math.pi * b)) / (2 * math.log(c["theta"]))

    low, high = max(math.floor(corr(32)), 0), min(math.ceil(corr(1)), n - 1)
    out = []
    for i in range(n // 2):
        r = 1 - min(max((i - low) / max(0.001, high - low), 0), 1)
        out.append(f[i] * ((1 - r) / y["factor"] + r))
    return np.array(out), 1 + 0.1 * math.log(y["factor"])


def rotate(x, c):
    """x [T, heads, head_dim]"""
    f, magnitude = frequencies(c)
    a = np.arange(x.shape[0])[:, None] * f[None]
    cos, sin = np.cos(a)[:, None] * magnitude, np.sin(a)[:, None] * magnitude
    n, y = c["n_rot"], x.copy()
    if c["interleaved"]:
        p, q = x[..., 0:n:2], x[..., 1:n:2]
        y[..., 0:n:2], y[..., 1:n:2] = p * cos - q * sin, p * sin + q * cos
    else:
        p, q = x[..., : n // 2], x[..., n // 2 : n]
        y[..., : n // 2], y[..., n // 2 : n] = p * cos - q * sin, p * sin + q * cos
    return y


def attention(x, w, c):
    T, H, K, E = x.shape[0], c["heads"], c["kv"], c["head_dim"]
    q, k, v = x @ w["attn_q.weight"].T, x @ w["attn_k.weight"].T, x @ w["attn_v.weight"].T
    if "attn_q.bias" in w:
        q, k, v = q + w["attn_q.bias"], k + w["attn_k.bias"], v + w["attn_v.bias"]
    q, k, v = q.reshape(T, H, E), k.reshape(T, K, E), v.reshape(T, K, E)
    if "attn_q_norm.weight" in w:
        q, k = rms_norm(q, w["attn_q_norm.weight"], c["eps"]), rms_norm(k, w["attn_k_norm.weight"], c["eps"])
    q, k = rotate(q, c), rotate(k, c)
    y = np.zeros((T, H, E))
    for h in range(H):
        s = q[:, h] @ k[:, h * K // H].T / math.sqrt(E)
        if c["causal"]:
            s = np.where(np.tril(np.ones((T, T), bool)), s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        y[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h * K // H]
    return y.reshape(T, H * E) @ w["attn_output.weight"].T


def short_conv(x, w, c):
    T, d = x.shape
    bcx = x @ w["shortconv.in_proj.weight"].T
    b, gate, h = bcx[:, :d], bcx[:, d : 2 * d], bcx[:, 2 * d :]
    g = b * h
    pad = np.concatenate([np.zeros((2, d)), g] if c["causal"] else [np.zeros((1, d)), g, np.zeros((1, d))])
    taps = w["shortconv.conv.weight"]
    z = sum(taps[:, i] * pad[i : i + T] for i in range(3))
    return (gate * z) @ w["shortconv.out_proj.weight"].T


def forward(c, w, ids):
    """hidden states (embedding, after each layer, after the final norm in place of the last), logits or embedding"""
    w = {k: np.asarray(v, np.float64) for k, v in w.items()}
    x = w["token_embd.weight"][ids]
    hidden = [x]
    for i in range(c["layers"]):
        l = {k[len(f"blk.{i}."):]: v for k, v in w.items() if k.startswith(f"blk.{i}.")}
        n = rms_norm(x, l["attn_norm.weight"], c["eps"])
        x = x + (short_conv(n, l, c) if "shortconv.conv.weight" in l else attention(n, l, c))
        n = rms_norm(x, l["ffn_norm.weight"], c["eps"])
        x = x + (silu(n @ l["ffn_gate.weight"].T) * (n @ l["ffn_up.weight"].T)) @ l["ffn_down.weight"].T
        hidden.append(x)
    x = rms_norm(x, w[c["final_norm"]], c["eps"])
    hidden[-1] = x
    if not c["causal"]:
        e = x.mean(0) @ w["embedding_proj.weight"].T + w["embedding_proj.bias"]
        e = (e - e.mean()) / np.sqrt(e.var() + 1e-5) * w["embedding_layer_norm.weight"] + w["embedding_layer_norm.bias"]
        return hidden, e / np.linalg.norm(e)
    return hidden, x @ w.get("output.weight", w["token_embd.weight"]).T


# ---- Hugging Face directories -----------------------------------------------------------------------------------------------------


def read_safetensors(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8 : 8 + n]).items():
        if name == "__metadata__":
            continue
        a = raw[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]]
        assert t["dtype"] == "BF16", t["dtype"]
        out[name] = (np.frombuffer(a, "<u2").astype("<u4") << 16).view("<f4").reshape(t["shape"])
    return out


RENAME = {
    "operator_norm.weight": "attn_norm.weight", "input_layernorm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "feed_forward.w1.weight": "ffn_gate.weight", "mlp.gate_proj.weight": "ffn_gate.weight",
    "feed_forward.w3.weight": "ffn_up.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "feed_forward.w2.weight": "ffn_down.weight", "mlp.down_proj.weight": "ffn_down.weight",
    "self_attn.q_layernorm.weight": "attn_q_norm.weight", "self_attn.k_layernorm.weight": "attn_k_norm.weight",
    "self_attn.out_proj.weight": "attn_output.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "conv.in_proj.weight": "shortconv.in_proj.weight", "conv.out_proj.weight": "shortconv.out_proj.weight",
    "conv.conv.weight": "shortconv.conv.weight",
    **{f"self_attn.{a}_proj.{k}": f"attn_{a}.{k}" for a in "qkv" for k in ("weight", "bias")},
}


def load_hf(directory):
    j = json.load(open(directory + "/config.json"))
    lfm2 = j["model_type"] == "lfm2"
    c = dict(arch=j["model_type"], layers=j["num_hidden_layers"], hidden=j["hidden_size"], heads=j["num_attention_heads"],
             kv=j["num_key_value_heads"], ffn=j["intermediate_size"], eps=j["norm_eps"] if lfm2 else j["rms_norm_eps"],
             theta=j["rope_parameters"]["rope_theta"], interleaved=False, causal=True, ctx=j["max_position_embeddings"],
             final_norm="token_embd_norm.weight" if lfm2 else "output_norm.weight")
    c["head_dim"] = c["n_rot"] = c["hidden"] // c["heads"]
    c["kinds"] = ["a" if t == "full_attention" else "c" for t in j["layer_types"]]
    w = {}
    for name, a in read_safetensors(directory + "/model.safetensors").items():
        name = name.removeprefix("model.")
        if name.startswith("layers."):
            _, i, rest = name.split(".", 2)
            w[f"blk.{i}.{RENAME[rest]}"] = a.reshape(-1, 3) if rest == "conv.conv.weight" else a
        elif name == "embed_tokens.weight":
            w["token_embd.weight"] = a
        elif name in ("embedding_norm.weight", "norm.weight"):
            w[c["final_norm"]] = a
        elif name == "lm_head.weight":
            w["output.weight"] = a
        else:
            raise SystemExit("unknown tensor " + name)
    return c, w


def check(directory):
    c, w = load_hf(directory)
    ref = np.load(directory + "/reference.npz")
    hidden, logits = forward(c, w, ref["ids"])
    worst = 0
    for i, h in enumerate(hidden):
        worst = max(worst, np.abs(h - ref[f"hidden_{i}"]).max() / np.abs(h).max())
    worst = max(worst, np.abs(logits - ref["logits"]).max() / np.abs(logits).max())
    print(f"{directory}: {len(hidden)} hidden states and logits agree to {worst:.1e} of the largest element")
    assert worst < 1e-5


# ---- model files ----------------------------------------------------------------------------------------------------------------


def model_keys(c):
    a = c["arch"]
    k = {
        "general.architecture": a, "general.name": c.get("name", "fixture"),
        f"{a}.block_count": c["layers"], f"{a}.context_length": c["ctx"], f"{a}.embedding_length": c["hidden"],
        f"{a}.feed_forward_length": c["ffn"], f"{a}.attention.head_count": c["heads"],
        f"{a}.attention.layer_norm_rms_epsilon": float(c["eps"]), f"{a}.rope.freq_base": float(c["theta"]),
    }
    if a == "lfm2":
        k[f"{a}.attention.head_count_kv"] = [c["kv"] if t == "a" else 0 for t in c["kinds"]]
        k[f"{a}.shortconv.l_cache"] = 3
    else:
        k[f"{a}.attention.head_count_kv"] = c["kv"]
    if c["head_dim"] != c["hidden"] // c["heads"]:
        k[f"{a}.attention.key_length"] = k[f"{a}.attention.value_length"] = c["head_dim"]
    if not c["causal"]:
        k[f"{a}.attention.causal"] = False
        k[f"{a}.pooling_type"] = 1
        k["ruvllm.embed.query_prefix"], k["ruvllm.embed.passage_prefix"] = "query: ", "passage: "
    if c.get("yarn"):
        k[f"{a}.rope.scaling.type"] = "yarn"
        k[f"{a}.rope.scaling.factor"] = float(c["yarn"]["factor"])
        k[f"{a}.rope.scaling.original_context_length"] = c["yarn"]["orig"]
    return k


def tokenizer_keys():
    """the 256 bytes, a few merges, and special tokens; 300 rows of the head, of which the last few are padding"""
    letters = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    byte_of, n = {}, 0
    for b in range(256):
        byte_of[b] = chr(b) if b in letters else chr(256 + n)
        n += b not in letters
    tokens = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim|>", "<|a|>", "<|b|>", "<|im_start|>", "<|im_end|>",
              "<|tool_call_start|>", "<|tool_call_end|>"]
    types = [3] * len(tokens)
    tokens += [byte_of[b] for b in range(256)]
    merges = ["t h", "th e", "i n", "e r", "Ġ th", "Ġ a", "o n", "Ġth e", "a n", "an d", "q u", "e s", "s t", "u s"]
    tokens += [m.replace(" ", "") for m in merges]
    types += [1] * (len(tokens) - len(types))
    template = ("{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "lfm2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 7, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": template,
    }


def write_reference(path, c, w, ids, rows):
    hidden, out = forward(c, w, ids)
    t = {"ids": ids.astype(np.int32), "rows": rows.astype(np.int32)}
    for i, h in enumerate(hidden):
        t[f"hidden.{i}"] = h[rows].astype(np.float32)
    if c["causal"]:
        t["logits"] = out[rows].astype(np.float32)
        t["argmax"] = out.argmax(-1).astype(np.int32)
    else:
        t["embedding"] = out.astype(np.float32)
    gguf_write(path, {"general.type": "reference", "general.name": path.split("/")[-1]}, t)


VOCAB = 300  # rows; the tokenizer knows fewer


def random_weights(c, rng):
    d, f, q, kv, w = c["hidden"], c["ffn"], c["heads"] * c["head_dim"], c["kv"] * c["head_dim"], {}

    def matrix(name, n_out, n_in, scale=1.0):
        w[name] = (rng.normal(size=(n_out, n_in)) * scale / math.sqrt(n_in)).astype(np.float16)

    def vector(name, n, mean, scale):
        w[name] = (mean + scale * rng.normal(size=n)).astype(np.float32)

    matrix("token_embd.weight", VOCAB, d, math.sqrt(d))
    for i, kind in enumerate(c["kinds"]):
        b = f"blk.{i}."
        vector(b + "attn_norm.weight", d, 1, 0.2)
        vector(b + "ffn_norm.weight", d, 1, 0.2)
        if kind == "c":
            matrix(b + "shortconv.in_proj.weight", 3 * d, d, 1.5)
            w[b + "shortconv.conv.weight"] = rng.normal(size=(d, 3)).astype(np.float32)
            matrix(b + "shortconv.out_proj.weight", d, d, 0.7)
        else:
            matrix(b + "attn_q.weight", q, d, 2)
            matrix(b + "attn_k.weight", kv, d, 2)
            matrix(b + "attn_v.weight", kv, d)
            matrix(b + "attn_output.weight", d, q)
            if c["arch"] == "qwen2":
                vector(b + "attn_q.bias", q, 0, 0.5)
                vector(b + "attn_k.bias", kv, 0, 0.5)
                vector(b + "attn_v.bias", kv, 0, 0.5)
            if c["arch"] in ("lfm2", "qwen3"):
                vector(b + "attn_q_norm.weight", c["head_dim"], 1.5, 0.3)
                vector(b + "attn_k_norm.weight", c["head_dim"], 1.5, 0.3)
        matrix(b + "ffn_gate.weight", f, d)
        matrix(b + "ffn_up.weight", f, d)
        matrix(b + "ffn_down.weight", d, f)
    vector(c["final_norm"], d, 1, 0.2)
    if c.get("untied"):
        matrix("output.weight", VOCAB, d)
    if not c["causal"]:
        matrix("embedding_proj.weight", 20, d)
        vector("embedding_proj.bias", 20, 0, 0.3)
        vector("embedding_layer_norm.weight", 20, 1, 0.2)
        vector("embedding_layer_norm.bias", 20, 0, 0.2)
    if c.get("rope_freqs") is not None:
        w["rope_freqs.weight"] = c["rope_freqs"].astype(np.float32)
    return w


def make(out):
    lfm2 = dict(arch="lfm2", layers=5, hidden=32, heads=2, kv=1, head_dim=16, ffn=48, eps=1e-5, theta=1e6, interleaved=False,
                causal=True, ctx=512, final_norm="token_embd_norm.weight", kinds="cacac")
    plain = dict(layers=3, hidden=32, ffn=48, kinds="aaa", causal=True, ctx=512, final_norm="output_norm.weight")
    cases = {
        "lfm2": lfm2,
        "lfm2-encoder": dict(lfm2, causal=False, layers=4, kinds="cacc"),
        "qwen2": dict(plain, arch="qwen2", heads=4, kv=2, head_dim=8, eps=1e-6, theta=1e6, interleaved=False),
        "qwen2-yarn": dict(plain, arch="qwen2", layers=2, kinds="aa", heads=2, kv=1, head_dim=32, eps=1e-6, theta=1e4, interleaved=False,
                           untied=True, ctx=128, yarn=dict(factor=4.0, orig=128)),
        "qwen3": dict(plain, arch="qwen3", heads=2, kv=2, head_dim=24, eps=1e-6, theta=1e6, interleaved=False),
        "llama": dict(plain, arch="llama", heads=4, kv=1, head_dim=8, eps=1e-5, theta=5e5, interleaved=True, untied=True,
                      rope_freqs=np.array([1.0, 1.5, 4.0, 8.0])),
    }
    rows = np.array([0, 1, 2, 3, 31, 62, 63, 64, 65, 100, 127, 128, 129, 148, 149])
    for seed, (name, c) in enumerate(cases.items()):
        rng = np.random.default_rng(1000 + seed)
        c["name"], c["n_rot"] = "fixture " + name, c["head_dim"]
        w = random_weights(c, rng)
        gguf_write(f"{out}/{name}.gguf", {**model_keys(c), **tokenizer_keys()}, w)
        ids = rng.integers(8, 280, size=150)
        write_reference(f"{out}/{name}.ref.gguf", c, w, ids, rows)


def main():
    if len(sys.argv) >= 3 and sys.argv[1] == "check":
        for d in sys.argv[2:]:
            check(d)
    elif len(sys.argv) == 5 and sys.argv[1] == "import":
        c, w = load_hf(sys.argv[2])
        gguf_write(sys.argv[3], model_keys(c), w)
        ids = np.load(sys.argv[2] + "/reference.npz")["ids"]
        write_reference(sys.argv[4], c, w, ids, np.arange(len(ids)))
    elif len(sys.argv) == 5 and sys.argv[1] == "quantized":
        ids = np.load(sys.argv[2] + "/reference.npz")["ids"]
        logits = np.load(sys.argv[2] + "/quantized.npz")["logits_" + sys.argv[3]]
        gguf_write(sys.argv[4], {"general.type": "reference"},
                   {"ids": ids.astype(np.int32), "rows": np.arange(len(ids), dtype=np.int32), "logits": logits.astype(np.float32),
                    "argmax": logits.argmax(-1).astype(np.int32)})
    elif len(sys.argv) == 3 and sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        raise SystemExit(__doc__)


main()

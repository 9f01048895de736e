#!/usr/bin/env python3
"""Stage 7: checkpoint -> Hugging Face form (config.json, model.safetensors in bf16, tokenizer files) and golden activations.

`pack` writes one compressed file a model for the way back from the training machine: the high and low bytes of the bf16 words apart, xz on the high bytes.
`unpack` turns it into the directory again (needs numpy only). `pack8` and `unpack8` carry a checkpoint to the training machine in 8 bits, to be resumed there.
"""
import argparse, hashlib, json, lzma, os, struct, sys
import numpy as np

TEMPLATE = ("{{- bos_token -}}{%- set ns = namespace(system_prompt=\"\") -%}{%- if messages[0][\"role\"] == \"system\" -%}"
            "{%- set ns.system_prompt = messages[0][\"content\"] -%}{%- set messages = messages[1:] -%}{%- endif -%}"
            "{%- if tools -%}{%- set ns.system_prompt = ns.system_prompt + (\"\\n\" if ns.system_prompt else \"\") + \"List of tools: [\" -%}"
            "{%- for tool in tools -%}{%- if tool is not string -%}{%- set tool = tool | tojson -%}{%- endif -%}"
            "{%- set ns.system_prompt = ns.system_prompt + tool -%}{%- if not loop.last -%}{%- set ns.system_prompt = ns.system_prompt + \", \" -%}{%- endif -%}"
            "{%- endfor -%}{%- set ns.system_prompt = ns.system_prompt + \"]\" -%}{%- endif -%}"
            "{%- if ns.system_prompt -%}{{- \"<|im_start|>system\\n\" + ns.system_prompt + \"<|im_end|>\\n\" -}}{%- endif -%}"
            "{%- for message in messages -%}{{- \"<|im_start|>\" + message[\"role\"] + \"\\n\" -}}{%- set content = message[\"content\"] -%}"
            "{%- if content is not string -%}{%- set content = content | tojson -%}{%- endif -%}{{- content + \"<|im_end|>\\n\" -}}{%- endfor -%}"
            "{%- if add_generation_prompt -%}{{- \"<|im_start|>assistant\\n\" -}}{%- endif -%}")


def bf16(a):
    """float32 -> bfloat16 bits, round to nearest even"""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def tensors(path):
    """checkpoint -> (meta, {hf name: bf16 bits})"""
    import torch
    d = torch.load(path, map_location="cpu")
    out = {}
    for k, v in d["sd"].items():
        name = k if k.startswith("embedding_proj") or k.startswith("embedding_layer_norm") else "model." + k
        out[name] = bf16(v.float().numpy())
    return d, out


def config(d):
    import lfm2
    c = lfm2.SIZES[d["size"]]
    lt = ["full_attention" if k == "a" else "conv" for k in c["layers"]]
    j = dict(architectures=["Lfm2ForCausalLM"], block_auto_adjust_ff_dim=False, block_ffn_dim_multiplier=1.0, block_multiple_of=256, bos_token_id=1,
             conv_L_cache=3, conv_bias=False, dtype="bfloat16", eos_token_id=7, full_attn_idxs=[i for i, k in enumerate(lt) if k == "full_attention"],
             hidden_size=c["hidden"], initializer_range=0.02, intermediate_size=c["ffn"], layer_types=lt, max_position_embeddings=2048, model_type="lfm2",
             norm_eps=1e-5, num_attention_heads=c["heads"], num_hidden_layers=len(lt), num_key_value_heads=c["kv"], pad_token_id=0,
             rope_parameters=dict(rope_theta=1000000.0, rope_type="default"), tie_word_embeddings=True, use_cache=True, vocab_size=d["vocab"])
    if d["causal"]:
        j["ruvllm_prompt_format"] = "sources-1"
    else:
        j["architectures"] = ["Lfm2BidirectionalModel"]
        j["is_causal"] = False
        j["ruvllm_embed"] = dict(dimension=lfm2.EMBED_DIM, pooling="mean", query_prefix="query: ", passage_prefix="passage: ")
    return j


def write_dir(out, cfg, ts, tokenizer):
    os.makedirs(out, exist_ok=True)
    json.dump(cfg, open(f"{out}/config.json", "w"), indent=2)
    head, off = {"__metadata__": {"format": "pt"}}, 0
    for k, v in ts.items():
        head[k] = dict(dtype="BF16", shape=list(v.shape), data_offsets=[off, off + v.nbytes]); off += v.nbytes
    h = json.dumps(head).encode()
    h += b" " * (-len(h) % 8)
    with open(f"{out}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for v in ts.values():
            f.write(v.tobytes())
    open(f"{out}/tokenizer.json", "wb").write(tokenizer)
    json.dump(dict(add_bos_token=True, add_eos_token=False, bos_token="<|startoftext|>", eos_token="<|im_end|>", pad_token="<|pad|>", legacy=False,
                   model_max_length=2048, clean_up_tokenization_spaces=False, tokenizer_class="PreTrainedTokenizerFast", chat_template=TEMPLATE),
              open(f"{out}/tokenizer_config.json", "w"), indent=1)
    json.dump(dict(bos_token_id=1, eos_token_id=[7, 2], pad_token_id=0, do_sample=False), open(f"{out}/generation_config.json", "w"), indent=1)
    return hashlib.sha256(open(f"{out}/model.safetensors", "rb").read()).hexdigest()


def pack(path, dst, tokenizer, extra=b""):
    d, ts = tensors(path)
    meta = dict(config=config(d), order=[[k, list(v.shape)] for k, v in ts.items()], meta=d.get("meta"))
    flat = np.concatenate([v.reshape(-1) for v in ts.values()])
    hi, lo = (flat >> 8).astype(np.uint8).tobytes(), (flat & 255).astype(np.uint8).tobytes()
    hi = lzma.compress(hi, preset=1)
    meta["sha256_words"] = hashlib.sha256(flat.tobytes()).hexdigest()
    m = json.dumps(meta).encode()
    with open(dst, "wb") as f:
        f.write(struct.pack("<4Q", len(m), len(hi), len(lo), len(tokenizer)) + m + hi + lo + tokenizer)


def pack8(path, dst):
    """checkpoint -> small file to resume from: matrices as 8-bit integers with a scale for every 32, the rest as float32"""
    import torch
    d = torch.load(path, map_location="cpu")
    meta, blobs = dict(size=d["size"], vocab=d["vocab"], causal=d["causal"], order=[]), []
    for k, v in d["sd"].items():
        v = v.float().numpy()
        q = v.ndim == 2 and v.size % 32 == 0
        meta["order"].append([k, list(v.shape), q])
        if q:
            x = v.reshape(-1, 32)
            sc = np.maximum(np.abs(x).max(1, keepdims=True) / 127, 1e-8).astype(np.float16).astype(np.float32)
            blobs += [sc.astype(np.float16).tobytes(), np.clip(np.rint(x / sc), -127, 127).astype(np.int8).tobytes()]
        else:
            blobs.append(v.tobytes())
    m = json.dumps(meta).encode()
    open(dst, "wb").write(struct.pack("<Q", len(m)) + m + lzma.compress(b"".join(blobs), preset=1))


def unpack8(src, out):
    import torch
    b = open(src, "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    meta, b = json.loads(b[8:8 + n]), lzma.decompress(b[8 + n:])
    sd, o = {}, 0
    for k, shape, q in meta["order"]:
        c = int(np.prod(shape))
        if q:
            sc = np.frombuffer(b, np.float16, c // 32, o).astype(np.float32)[:, None]; o += c // 16
            x = np.frombuffer(b, np.int8, c, o).reshape(-1, 32) * sc; o += c
        else:
            x = np.frombuffer(b, np.float32, c, o); o += 4 * c
        sd[k] = torch.from_numpy(np.array(x, np.float32).reshape(shape))
    assert o == len(b), "damaged file"
    torch.save(dict(sd=sd, size=meta["size"], vocab=meta["vocab"], causal=meta["causal"], meta={}), out + ".tmp")
    os.replace(out + ".tmp", out)


def unpack(src, out):
    b = open(src, "rb").read()
    n = struct.unpack("<4Q", b[:32])
    at = 32
    p = []
    for x in n:
        p.append(b[at:at + x]); at += x
    meta = json.loads(p[0])
    flat = (np.frombuffer(lzma.decompress(p[1]), np.uint8).astype(np.uint16) << 8) | np.frombuffer(p[2], np.uint8)
    assert hashlib.sha256(flat.astype(np.uint16).tobytes()).hexdigest() == meta["sha256_words"], "damaged file"
    ts, o = {}, 0
    for k, s in meta["order"]:
        k_n = int(np.prod(s))
        ts[k] = flat[o:o + k_n].reshape(s); o += k_n
    print(out, "model.safetensors sha256", write_dir(out, meta["config"], ts, p[3]), "parameters", len(flat), json.dumps(meta["meta"]))


def checkpoint(src, out):
    """Hugging Face directory -> training checkpoint (for a resumed training)"""
    import torch
    cfg = json.load(open(f"{src}/config.json"))
    import lfm2
    b = open(f"{src}/model.safetensors", "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    h = json.loads(b[8:8 + n])
    sd = {}
    for k, v in h.items():
        if k != "__metadata__":
            u = np.frombuffer(b[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], np.uint16).astype(np.uint32) << 16
            sd[k[6:] if k.startswith("model.") else k] = torch.from_numpy(u.view(np.float32).reshape(v["shape"]).copy())
    size = next(s for s, c in lfm2.SIZES.items() if c["hidden"] == cfg["hidden_size"] and c["ffn"] == cfg["intermediate_size"] and len(c["layers"]) == cfg["num_hidden_layers"])
    torch.save(dict(sd=sd, size=size, vocab=cfg["vocab_size"], causal=cfg["architectures"] == ["Lfm2ForCausalLM"], meta={}), out)


GOLD_LM = [("user", "Sources:\n[1] Backups\nThe nightly backup starts at 02:00. It is kept for 30 days.\n\n[2] Restore\nA restore needs the passphrase that was printed at setup.\n\nQuestion: When does the nightly backup start?"),
           ("user", "Hello"), None]
GOLD_E = ["query: When does the nightly backup start?", "passage: Backups\nThe nightly backup starts at 02:00. It is kept for 30 days.", "passage: The cat sat on the mat."]
PLAIN = "The Norman conquest of England was an 11th-century invasion by an army made up of thousands of Norman, French, Flemish, and Breton troops."


def golden(hf_dir, dst):
    """float32 forward pass of the exported bf16 weights (so that a reader of the export must agree to about 1e-5)"""
    import torch, lfm2, tempfile
    import rows as R
    from tok import Tok
    ck = tempfile.mktemp()
    checkpoint(hf_dir, ck)
    d = torch.load(ck, map_location="cpu"); os.unlink(ck)
    m = lfm2.Lfm2(d["size"], d["vocab"], d["causal"]).eval()
    m.load_state_dict(d["sd"])
    tok = Tok(f"{hf_dir}/tokenizer.json")
    out = {}
    with torch.no_grad():
        if d["causal"]:
            for i, g in enumerate(GOLD_LM):
                text = R.prompt_of([g]) if g else "<|startoftext|>" + PLAIN
                ids = tok.ids(text)
                x = torch.tensor([ids])
                out[f"text_{i}"] = np.frombuffer(text.encode(), np.uint8)
                out[f"ids_{i}"] = np.array(ids, np.int32)
                lo = m(x)[0].numpy()
                out[f"logits_{i}"] = lo[-4:] if len(ids) > 40 else lo
                out[f"argmax_{i}"] = lo.argmax(-1).astype(np.int32)
                g2 = m.generate(x, torch.tensor([len(ids)]), 48)[0].numpy()
                out[f"greedy_{i}"] = g2.astype(np.int32)
        else:
            for i, text in enumerate(GOLD_E):
                ids = [1] + tok.ids(text)
                x = torch.tensor([ids])
                out[f"text_{i}"] = np.frombuffer(text.encode(), np.uint8)
                out[f"ids_{i}"] = np.array(ids, np.int32)
                out[f"embedding_{i}"] = m.embed(x, x > -1)[0].numpy()
                out[f"hidden_{i}"] = m.trunk(x, None, None)[0].numpy()
    np.savez(dst, **out)
    print("golden", dst, {k: v.shape for k, v in out.items() if not k.startswith("text")})


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("verb", choices=["pack", "unpack", "pack8", "unpack8", "dir", "golden", "checkpoint"])
    ap.add_argument("src")
    ap.add_argument("dst")
    ap.add_argument("--tokenizer", default="")
    a = ap.parse_args()
    tk = open(a.tokenizer, "rb").read() if a.tokenizer else b""
    if a.verb == "pack":
        pack(a.src, a.dst, tk)
    elif a.verb == "unpack":
        unpack(a.src, a.dst)
    elif a.verb == "pack8":
        pack8(a.src, a.dst)
    elif a.verb == "unpack8":
        unpack8(a.src, a.dst)
    elif a.verb == "dir":
        d, ts = tensors(a.src)
        print(write_dir(a.dst, config(d), ts, tk))
    elif a.verb == "checkpoint":
        checkpoint(a.src, a.dst)
    else:
        golden(a.src, a.dst)

#!/usr/bin/env python3
"""Writes the hand-made part of tests/fuzz/corpus: ok-* must be accepted, bad-* refused (test_corpus.c holds them to it).

Inputs that fuzzing found are kept beside them under other names. Run again only to add cases: the files are checked in.
"""
import json, os, random, struct

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
random.seed(1)
U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
FMT = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
SIZE = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)}


def put(target, name, data):
    os.makedirs(f"{ROOT}/{target}", exist_ok=True)
    open(f"{ROOT}/{target}/{name}", "wb").write(data.encode() if isinstance(data, str) else data)


def s(x):
    b = x.encode() if isinstance(x, str) else x
    return struct.pack("<Q", len(b)) + b


def value(t, v):
    if t == STR:
        return s(v)
    if t == ARR:
        et, items = v
        return struct.pack("<IQ", et, len(items)) + b"".join(value(et, i) for i in items)
    return struct.pack("<" + FMT[t], v)


def gguf(keys, tensors, version=3, align=32, n_tensors=None, n_keys=None, cut=0):
    """keys: (name, type, value); tensors: (name, ne, dtype, data or None[, offset])"""
    b = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    for k, t, v in keys:
        b += s(k) + struct.pack("<I", t) + value(t, v)
    off, blobs = 0, b""
    for t in tensors:
        name, ne, dt, data = t[:4]
        n = 1
        for e in ne:
            n *= e
        if data is None:
            e, z = SIZE.get(dt, (1, 1))
            data = bytes(random.randrange(256) for _ in range(n // e * z))
        b += s(name) + struct.pack("<I", len(ne)) + b"".join(struct.pack("<Q", e) for e in ne) + struct.pack("<IQ", dt, t[4] if len(t) > 4 else off)
        blobs += data + b"\0" * (-len(data) % align)
        off += len(data) + (-len(data) % align)
    b += b"\0" * (-len(b) % align)
    b += blobs
    return b[:len(b) - cut] if cut else b


def floats(n, centre=0.0, spread=0.1, fmt="f"):
    return b"".join(struct.pack("<" + fmt, random.gauss(centre, spread)) for _ in range(n))


def letters():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {}, 0
    for b in range(256):
        if b in keep:
            out[b] = chr(b)
        else:
            out[b] = chr(256 + n); n += 1
    return [out[b] for b in range(256)]


SPECIALS = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = SPECIALS + letters() + ["he", "ll", "llo", "<tool_call>"]
TYPES = [3] * 5 + [1] * 259 + [4]
MERGES = ["h e", "l l", "ll o"]
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def vocab_keys(pre):
    return [("tokenizer.ggml.model", STR, "gpt2"), ("tokenizer.ggml.pre", STR, pre), ("tokenizer.ggml.tokens", ARR, (STR, TOKENS)),
            ("tokenizer.ggml.token_type", ARR, (I32, TYPES)), ("tokenizer.ggml.merges", ARR, (STR, MERGES)),
            ("tokenizer.ggml.bos_token_id", U32, 1), ("tokenizer.ggml.eos_token_id", U32, 4), ("tokenizer.ggml.add_bos_token", BOOL, 1),
            ("tokenizer.chat_template", STR, TEMPLATE)]


def model(arch, encoder=False, vocab=None, dtype=1):
    d, f, h, kv, hd, V = 32, 64, 2, 1, 16, len(TOKENS)
    lfm2 = arch == "lfm2"
    k = [("general.architecture", STR, arch), ("general.type", STR, "model"), ("general.name", STR, "tiny"), ("general.file_type", U32, 1),
         (f"{arch}.block_count", U32, 2), (f"{arch}.context_length", U32, 64), (f"{arch}.embedding_length", U32, d),
         (f"{arch}.feed_forward_length", U32, f), (f"{arch}.vocab_size", U32, V), (f"{arch}.attention.head_count", U32, h),
         (f"{arch}.attention.head_count_kv", ARR, (I32, [0, kv])) if lfm2 else (f"{arch}.attention.head_count_kv", U32, kv),
         (f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5), (f"{arch}.rope.freq_base", F32, 1e6)]
    if lfm2:
        k.append(("lfm2.shortconv.l_cache", U32, 3))
    if encoder:
        k += [("lfm2.attention.causal", BOOL, 0), ("lfm2.pooling_type", U32, 1), ("ruvllm.embed.dimension", U32, 24),
              ("ruvllm.embed.query_prefix", STR, "query: "), ("ruvllm.embed.passage_prefix", STR, "passage: ")]
    k += vocab_keys("lfm2" if lfm2 else "qwen2")
    t = []

    def mat(name, ni, no):
        if dtype == 8:
            t.append((name, [ni, no], 8, b"".join(struct.pack("<e", 0.002) + bytes(random.randrange(256) for _ in range(32)) for _ in range(ni * no // 32))))
        else:
            t.append((name, [ni, no], 1, floats(ni * no, 0, 0.1, "e")))

    def vec(name, n, c=1.0):
        t.append((name, [n], 0, floats(n, c, 0.05)))
    mat("token_embd.weight", d, V)
    vec("token_embd_norm.weight" if lfm2 else "output_norm.weight", d)
    if encoder:
        mat("embedding_proj.weight", d, 24); vec("embedding_proj.bias", 24, 0); vec("embedding_layer_norm.weight", 24); vec("embedding_layer_norm.bias", 24, 0)
    for i in range(2):
        p = f"blk.{i}."
        vec(p + "attn_norm.weight", d); vec(p + "ffn_norm.weight", d)
        mat(p + "ffn_gate.weight", d, f); mat(p + "ffn_up.weight", d, f); mat(p + "ffn_down.weight", f, d)
        if lfm2 and i == 0:
            t.append((p + "shortconv.conv.weight", [3, d], 0, floats(3 * d, 0, 0.5)))
            mat(p + "shortconv.in_proj.weight", d, 3 * d); mat(p + "shortconv.out_proj.weight", d, d)
            continue
        mat(p + "attn_q.weight", d, h * hd); mat(p + "attn_k.weight", d, kv * hd); mat(p + "attn_v.weight", d, kv * hd)
        mat(p + "attn_output.weight", h * hd, d)
        if lfm2:
            vec(p + "attn_q_norm.weight", hd); vec(p + "attn_k_norm.weight", hd)
        else:
            vec(p + "attn_q.bias", h * hd, 0); vec(p + "attn_k.bias", kv * hd, 0); vec(p + "attn_v.bias", kv * hd, 0)
    return k, t


def make_gguf():
    every = [("a.u8", U8, 200), ("a.i8", I8, -100), ("a.u16", U16, 60000), ("a.i16", I16, -30000), ("a.u32", U32, 4000000000), ("a.i32", I32, -7),
             ("a.f32", F32, 1e-5), ("a.bool", BOOL, 1), ("a.str", STR, "text \u00e9"), ("a.u64", U64, 2 ** 63), ("a.i64", I64, -2 ** 62), ("a.f64", F64, 1e300),
             ("b.strs", ARR, (STR, ["x", "", "yz"])), ("b.f32", ARR, (F32, [1.0, -2.5])), ("b.bool", ARR, (BOOL, [0, 1])), ("b.none", ARR, (I64, []))]
    tensors = [("f32", [4, 3], 0, None), ("f16", [5], 1, None), ("q8", [64, 2], 8, None), ("q4k", [256], 12, None), ("q6k", [256, 1, 2], 14, None),
               ("scalar", [], 0, b"\0\0\x80\x3f")]
    put("gguf", "ok-everything.gguf", gguf(every, tensors))
    put("gguf", "ok-empty.gguf", gguf([], []))
    put("gguf", "ok-v2.gguf", gguf(every[:3], tensors[:1], version=2))
    put("gguf", "ok-aligned-64.gguf", gguf([("general.alignment", U32, 64)], tensors[:3], align=64))
    put("gguf", "ok-vocabulary.gguf", gguf([("general.architecture", STR, "lfm2")] + vocab_keys("lfm2"), []))
    put("gguf", "ok-one-of-three.gguf", gguf([("split.no", U16, 1), ("split.count", U16, 3), ("split.tensors.count", I32, 9)], tensors[:2]))
    ok = gguf(every, tensors)
    put("gguf", "bad-v1.gguf", gguf([], [], version=1))
    put("gguf", "bad-big-endian.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    put("gguf", "bad-magic.gguf", b"GGML" + ok[4:])
    put("gguf", "bad-empty.gguf", b"")
    put("gguf", "bad-cut-header.gguf", ok[:20])
    put("gguf", "bad-cut-keys.gguf", ok[:150])
    put("gguf", "bad-cut-data.gguf", ok[:-40])
    put("gguf", "bad-many-keys.gguf", gguf(every[:1], [], n_keys=2 ** 60))
    put("gguf", "bad-many-tensors.gguf", gguf([], tensors[:1], n_tensors=2 ** 62))
    put("gguf", "bad-nested-array.gguf", gguf([("a", ARR, (ARR, []))], []))
    put("gguf", "bad-long-array.gguf", gguf([], [], n_keys=1) + s("a") + struct.pack("<IIQ", ARR, F64, 2 ** 61))
    put("gguf", "bad-long-string.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2 ** 64 - 1) + b"abc")
    put("gguf", "bad-key-twice.gguf", gguf([every[0], every[0]], []))
    put("gguf", "bad-tensor-twice.gguf", gguf([], [tensors[0], tensors[0]]))
    put("gguf", "bad-overlap.gguf", gguf([], [tensors[0], ("t", [4], 0, None, 0)]))
    put("gguf", "bad-gap.gguf", gguf([], [tensors[0], ("t", [4], 0, None, 128)]))
    put("gguf", "bad-outside.gguf", gguf([], [("t", [4], 0, None, 2 ** 62)]))
    put("gguf", "bad-type.gguf", gguf([], [("t", [4], 99, None)]))
    put("gguf", "bad-blocks.gguf", gguf([], [("t", [33], 8, b"")]))
    put("gguf", "bad-dims.gguf", gguf([], [("t", [1, 1, 1, 1, 1], 0, None)]))
    put("gguf", "bad-product.gguf", gguf([], [("t", [2 ** 40, 2 ** 40], 0, b"")]))
    put("gguf", "bad-zero.gguf", gguf([], [("t", [4, 0], 0, b"")]))
    put("gguf", "bad-long-name.gguf", gguf([], [("n" * 64, [4], 0, None)]))
    put("gguf", "bad-alignment.gguf", gguf([("general.alignment", U32, 24)], []))
    put("gguf", "bad-alignment-type.gguf", gguf([("general.alignment", STR, "32")], []))
    put("gguf", "bad-bool.gguf", gguf([("a", U8, 1)], []).replace(s("a") + struct.pack("<I", U8) + b"\1", s("a") + struct.pack("<I", BOOL) + b"\2"))


def make_models():
    for arch, enc in (("lfm2", False), ("qwen2", False), ("lfm2", True)):
        k, t = model(arch, enc)
        put("model", f"ok-{'encoder' if enc else arch}.gguf", gguf(k, t))
    k, t = model("lfm2", dtype=8)
    put("model", "ok-lfm2-q8.gguf", gguf(k, t))
    # One key or tensor wrong at a time; the weights are shared to keep the corpus small.
    small = [x for x in t if not x[0].startswith("token_embd.")]
    put("model", "bad-no-embedding.gguf", gguf(k, small))
    head = [x for x in k if not x[0].startswith("tokenizer.ggml.t")]

    def change(name, typ, v):
        return [(a, typ, v) if a == name else (a, b, c) for a, b, c in head]
    for i, (name, typ, v) in enumerate((("lfm2.block_count", U32, 4000000000), ("lfm2.block_count", STR, "2"), ("lfm2.embedding_length", U32, 0),
                         ("lfm2.attention.head_count", U32, 0), ("lfm2.attention.head_count_kv", ARR, (I32, [0])),
                         ("lfm2.attention.head_count_kv", ARR, (STR, ["x", "y"])), ("lfm2.attention.head_count_kv", ARR, (I32, [-1, 1])),
                         ("lfm2.feed_forward_length", U32, 2 ** 31), ("lfm2.context_length", U32, 0), ("lfm2.rope.freq_base", F32, float("nan")),
                         ("lfm2.attention.layer_norm_rms_epsilon", F32, -1.0), ("lfm2.shortconv.l_cache", U32, 2 ** 30),
                         ("general.architecture", STR, "mamba"), ("general.architecture", U32, 1))):
        put("model", f"bad-{i:02d}-{name.split('.')[-1]}.gguf", gguf(change(name, typ, v), small[:3]))


def make_safetensors():
    def st(header, data, raw=None):
        h = (raw if raw is not None else json.dumps(header)).encode()
        return struct.pack("<Q", len(h)) + h + data
    a = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    put("safetensors", "ok-one", st({"a": a}, bytes(12)))
    put("safetensors", "ok-types", st({"__metadata__": {"format": "pt"}, "a": a, "b": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
                                       "c": {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]}, "d": {"dtype": "F16", "shape": [0], "data_offsets": [32, 32]}}, bytes(32)))
    put("safetensors", "ok-empty", st({}, b""))
    put("safetensors", "bad-short", b"\0\0\0")
    put("safetensors", "bad-length", struct.pack("<Q", 2 ** 63) + b"{}")
    put("safetensors", "bad-json", st(None, b"", '{"a":'))
    put("safetensors", "bad-list", st(None, b"", "[1,2]"))
    put("safetensors", "bad-twice", st(None, bytes(24), '{"a":%s,"a":%s}' % (json.dumps(a), json.dumps(a))))
    put("safetensors", "bad-size", st({"a": dict(a, shape=[2, 4])}, bytes(12)))
    put("safetensors", "bad-negative", st({"a": dict(a, shape=[-2, -3])}, bytes(12)))
    put("safetensors", "bad-overflow", st({"a": dict(a, shape=[2 ** 62, 2 ** 62])}, bytes(12)))
    put("safetensors", "bad-offsets", st({"a": dict(a, data_offsets=[12, 0])}, bytes(12)))
    put("safetensors", "bad-outside", st({"a": dict(a, data_offsets=[0, 2 ** 62])}, bytes(12)))
    put("safetensors", "bad-overlap", st({"a": a, "b": dict(a, data_offsets=[6, 18])}, bytes(18)))
    put("safetensors", "bad-hole", st({"a": dict(a, data_offsets=[4, 16])}, bytes(16)))
    put("safetensors", "bad-rest", st({"a": a}, bytes(13)))
    put("safetensors", "bad-dtype", st({"a": dict(a, dtype="F99")}, bytes(12)))
    put("safetensors", "bad-deep", st(None, b"", '{"a":' * 3000 + "1" + "}" * 3000))


CONFIG = {"architectures": ["Lfm2ForCausalLM"], "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 32,
          "bos_token_id": 1, "conv_L_cache": 3, "conv_bias": False, "eos_token_id": 4, "hidden_size": 64, "block_ff_dim": 140,
          "layer_types": ["conv", "full_attention", "conv"], "max_position_embeddings": 512, "norm_eps": 1e-5, "num_attention_heads": 2,
          "num_hidden_layers": 3, "num_key_value_heads": 1, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
          "tie_word_embeddings": True, "vocab_size": 300}


def make_config():
    put("config", "ok-lfm2.json", json.dumps(CONFIG))
    c = dict(CONFIG, intermediate_size=96, block_auto_adjust_ff_dim=False, rope_theta=1e7, full_attn_idxs=[1])
    for k in ("block_ff_dim", "rope_parameters", "layer_types"):
        del c[k]
    put("config", "ok-lfm2.5.json", json.dumps(c))
    put("config", "ok-encoder.json", json.dumps(dict(CONFIG, architectures=["Lfm2BidirectionalModel"])))
    for i, (k, v) in enumerate([("architectures", ["Nothing"]), ("architectures", 5), ("hidden_size", "64"), ("hidden_size", 1e9), ("hidden_size", -64),
                                ("num_hidden_layers", 2 ** 40), ("num_hidden_layers", 0), ("num_attention_heads", 0), ("num_attention_heads", 3),
                                ("num_key_value_heads", 7), ("layer_types", ["conv"]), ("layer_types", {"a": 1}), ("layer_types", ["x", "y", "z"]),
                                ("vocab_size", None), ("vocab_size", 2 ** 31), ("block_ff_dim", 2 ** 60), ("block_multiple_of", 0),
                                ("block_ffn_dim_multiplier", -1), ("norm_eps", "small"), ("rope_parameters", [1]),
                                ("rope_parameters", {"rope_theta": 0}), ("conv_L_cache", 1000), ("conv_bias", True), ("sliding_window", 4),
                                ("max_position_embeddings", 0), ("quantization_config", {"bits": 4})]):
        put("config", f"bad-{i:02d}-{k}.json", json.dumps(dict(CONFIG, **{k: v})))
    put("config", "bad-json.json", json.dumps(CONFIG)[:-20])
    put("config", "bad-list.json", "[]")
    put("config", "bad-empty.json", "")


REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer():
    return {"version": "1.0", "added_tokens": [{"id": i, "content": t, "special": True} for i, t in enumerate(SPECIALS)] +
            [{"id": 264, "content": "<tool_call>", "special": False}], "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]},
            "post_processor": None,
            "model": {"type": "BPE", "ignore_merges": True, "vocab": {t: i for i, t in enumerate(TOKENS[:264])}, "merges": [["h", "e"], "l l", ["ll", "o"]]}}


def make_tokenizer():
    def dump(j):
        return json.dumps(j, ensure_ascii=False, separators=(",", ":"))
    put("tokenizer", "ok-lfm2.json", dump(tokenizer()))
    t = tokenizer(); t["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}; t["model"]["ignore_merges"] = False
    put("tokenizer", "ok-gpt2.json", dump(t))

    def bad(name, change):
        j = tokenizer(); change(j)
        put("tokenizer", f"bad-{name}.json", dump(j))
    bad("model-type", lambda j: j["model"].update(type="WordPiece"))
    bad("no-model", lambda j: j.pop("model"))
    bad("byte-fallback", lambda j: j["model"].update(byte_fallback=True))
    bad("vocab-list", lambda j: j["model"].update(vocab=[1, 2]))
    bad("id-text", lambda j: j["model"]["vocab"].update(x="7"))
    bad("id-beyond", lambda j: j["model"]["vocab"].update(x=2 ** 40))
    bad("id-negative", lambda j: j["model"]["vocab"].update(x=-1))
    bad("id-twice", lambda j: j["model"]["vocab"].update(x=10))
    bad("merge-one", lambda j: j["model"].update(merges=["he"]))
    bad("merge-three", lambda j: j["model"].update(merges=["h e l"]))
    bad("merge-number", lambda j: j["model"].update(merges=[7]))
    bad("merge-unknown", lambda j: j["model"].update(merges=["zz yy"]))
    bad("merges-object", lambda j: j["model"].update(merges={"a": "b"}))
    bad("regex", lambda j: j["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(a+)+$"))
    bad("pre-tokenizer", lambda j: j.update(pre_tokenizer={"type": "Metaspace"}))
    bad("pre-none", lambda j: j.update(pre_tokenizer=None))
    bad("normalizer", lambda j: j.update(normalizer={"type": "NFKC"}))
    bad("added-no-content", lambda j: j["added_tokens"].append({"id": 270}))
    bad("added-no-id", lambda j: j["added_tokens"].append({"content": "<x>"}))
    bad("added-conflict", lambda j: j["added_tokens"].append({"id": 1, "content": "<x>"}))
    put("tokenizer", "bad-cut.json", dump(tokenizer())[:1500])
    put("tokenizer", "bad-empty.json", "")


def make_template():
    put("template", "ok-chatml.jinja", TEMPLATE)
    put("template", "ok-plain.jinja", "hello")
    put("template", "ok-empty.jinja", "")
    put("template", "ok-tools.jinja", "{%- set ns = namespace(s='') -%}{%- if tools -%}{%- for t in tools -%}{%- set ns.s = ns.s + (t | tojson) -%}"
        "{%- if not loop.last -%}{%- set ns.s = ns.s + ', ' -%}{%- endif -%}{%- endfor -%}{%- endif -%}{{ ns.s }}"
        "{%- for m in messages if m.role != 'system' -%}{%- if m.tool_calls -%}{%- for c in m.tool_calls -%}{{ c.function.name }}({{ c.function.arguments | tojson }})"
        "{%- endfor -%}{%- else -%}{{ (m.content or '') | trim }}{%- endif -%}{%- endfor -%}")
    put("template", "ok-macro.jinja", "{% macro f(a, b='x') %}[{{ a }}|{{ b }}]{% endmacro %}{{ f(1) }}{{ f('y', b=2) }}{# note #}{{ messages[-1]['content'][:2] }}"
        "{{ [1,2] + [3] }}{{ {'a': 1}.items() | list | length }}{{ 'a,b'.split(',') | join('-') }}{{ 7 % 3 }}{{ 'x' ~ 1 }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ none is none and x is not defined }}{{ 'yes' if 1 in [1] else 'no' }}")
    for name, text in {"open-block": "{% if x %}", "open-expression": "{{ x", "open-comment": "{# x", "unknown-statement": "{% include 'x' %}",
                       "endless": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "raise": "{{ raise_exception('no') }}",
                       "undefined": "{{ x.y.z }}", "division": "{{ 1 / 0 }}", "modulo": "{{ 1 % 0 }}", "unknown-filter": "{{ 1 | shout }}",
                       "big": "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
                       "recursion": "{% macro f(a) %}{{ f(a) }}{% endmacro %}{{ f(1) }}", "nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
                       "end-alone": "{% endif %}", "types": "{{ 1 + 'a' }}", "index": "{{ [1][9223372036854775807].x.y }}"}.items():
        put("template", f"bad-{name}.jinja", text)


def make_json():
    msg = {"role": "user", "content": "Hi"}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"q": [1, 2.5, None, True, "\u00e9"]}}}
    put("json", "ok-simple.json", json.dumps({"messages": [msg]}))
    put("json", "ok-tools.json", json.dumps({"messages": [msg, {"role": "assistant", "content": None, "tool_calls": [call]},
                                                          {"role": "tool", "content": "x", "tool_call_id": "1", "name": "f"}], "tools": [tool], "extra": {"extra_text": "e"}}))
    put("json", "ok-parts.json", json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}))
    put("json", "ok-string-arguments.json", json.dumps({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"q\": 1}"}}]}]}))
    put("json", "bad-json.json", '{"messages": [')
    put("json", "bad-no-role.json", json.dumps({"messages": [{"content": "x"}]}))
    put("json", "bad-twice.json", '{"a":1,"a":2}')
    put("json", "bad-utf8.json", b'{"messages":[{"role":"user","content":"\xff"}]}')
    put("json", "bad-deep.json", "[" * 5000 + "]" * 5000)
    put("json", "bad-arguments.json", json.dumps({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"q\": "}}]}]}))


def make_grammars():
    for name, text in {
        "ok-choice": 'root ::= "yes" | "no" # comment\n',
        "ok-json": 'root ::= object\nvalue ::= object | array | string | number | "true" | "false" | "null"\nobject ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}"\n'
                   'array ::= "[" ws (value ("," ws value)*)? "]"\nstring ::= "\\"" ([^"\\\\\\x00-\\x1F] | "\\\\" (["\\\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\\""\n'
                   'number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)?\nws ::= | " " | "\\n" [ \\t]{0,20}\n',
        "ok-unicode": 'root ::= [\u00e4-\u00fc\U0001f600-\U0001f64f^-]{2,300} . "\\u00e9\\U0001F600"\n',
        "ok-lines": 'root ::=\n  "a"\n  | (\n"b"\n|"c")+\n',
        "bad-left": 'root ::= root "x" | "y"\n',
        "bad-endless": 'root ::= "x" root\n',
        "bad-undefined": "root ::= other\n",
        "bad-class": "root ::= [z-a]\n",
        "bad-open": 'root ::= ("a" | "b"\n',
        "bad-token": "root ::= <|tool_call_start|>\n",
    }.items():
        put("gbnf", f"{name}.gbnf", text)
    leaf = {"type": "object", "properties": {"v": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 3.25}, "n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}}, "required": ["v"]}
    for name, schema in {
        "ok-object": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}, "b": {"type": "integer", "minimum": -12, "maximum": 345}, "c": {"enum": ["x", 1, None]}}, "required": ["b"], "additionalProperties": {"type": "boolean"}},
        "ok-recursive": {"$ref": "#/$defs/leaf", "$defs": {"leaf": leaf}},
        "ok-pattern": {"type": "string", "pattern": "^(foo|b[a-z]r)\\d{2,4}\\W?$"},
        "ok-formats": {"type": "array", "prefixItems": [{"type": "string", "format": f} for f in ("date", "date-time", "uuid", "email", "uri", "ipv4")], "items": False},
        "ok-all": {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"maximum": 3}}}], "type": "object"},
        "ok-one": {"oneOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": {"const": "b"}}, "required": ["k"]}]},
        "ok-map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 300}, "propertyNames": {"pattern": "^[a-z]+$"}, "minProperties": 1},
        "ok-any": True,
        "bad-not": {"not": {}},
        "bad-never": {"type": "integer", "minimum": 4, "maximum": 3},
        "bad-ref": {"$ref": "#/nowhere"},
        "bad-circle": {"$ref": "#"},
        "bad-overlap": {"oneOf": [{"type": "integer"}, {"minimum": 3, "type": "number"}]},
    }.items():
        put("schema", f"{name}.json", json.dumps(schema))


def make_tool_calls():
    put("tool_calls", "ok-none.txt", "Just text with [brackets] and <angle> signs.")
    put("tool_calls", "ok-lfm2.txt", 'Let me look. <|tool_call_start|>[get_weather(city="Paris", days=2, ok=True, none=None), files.read(path=\'a\\n\', l=[1, {"k": 2.5}])]<|tool_call_end|> Done.')
    put("tool_calls", "ok-lfm2-json.txt", '<|tool_call_start|>[{"name": "f", "arguments": {"a": 1}}]<|tool_call_end|>')
    put("tool_calls", "ok-qwen.txt", 'Sure.\n<tool_call>\n{"name": "f", "arguments": {"a": [1, "x"]}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>')
    put("tool_calls", "ok-empty.txt", "")
    put("tool_calls", "bad-lfm2-open.txt", '<|tool_call_start|>[f(a=1')
    put("tool_calls", "bad-lfm2-syntax.txt", '<|tool_call_start|>[f(a=)]<|tool_call_end|>')
    put("tool_calls", "bad-lfm2-string.txt", '<|tool_call_start|>[f(a="x)]<|tool_call_end|>')
    put("tool_calls", "bad-qwen-json.txt", '<tool_call>\n{"name": "f", "arguments": \n</tool_call>')
    put("tool_calls", "bad-qwen-name.txt", '<tool_call>\n{"arguments": {}}\n</tool_call>')
    put("tool_calls", "bad-lfm2-deep.txt", '<|tool_call_start|>[f(a=' + "[" * 4000 + "]" * 4000 + ')]<|tool_call_end|>')
    for name, text in {"ok-lfm2": '<|tool_call_start|>[write(path="a.c", text=\'it\\\'s\\n\\u00e9 \u00e4\', n=[1, {"k": (2,)}]), g()]<|tool_call_end|> Done.',
                       "ok-qwen": 'Hm.<tool_call>\n{"name": "f", "arguments": {"a": "x \\"q\\" }", "b": [{}]}}\n</tool_call>',
                       "ok-broken": 'a<|tool_call_start|>[f(x=1), g(y=<|tool_call_end|>b<tool_call>{"name": "g", "arguments": {]}</tool_call>',
                       "ok-open": '<|tool_call_start|>[f(x="never closed', "ok-bare": "[f(x=1), g()]"}.items():
        put("tool_stream", f"{name}.txt", text)


def make_imatrix():
    def im(tensors, typ="imatrix"):
        return gguf([("general.type", STR, typ), ("imatrix.datasets", ARR, (STR, ["x"])), ("imatrix.chunk_count", U32, 1), ("imatrix.chunk_size", U32, 512)], tensors)
    sums = struct.pack("<8f", *range(8))
    one = struct.pack("<f", 4)
    put("imatrix", "ok-one.gguf", im([("blk.0.ffn_up.weight.in_sum2", [8, 1], 0, sums), ("blk.0.ffn_up.weight.counts", [1, 1], 0, one)]))
    put("imatrix", "bad-type.gguf", im([], "model"))
    put("imatrix", "bad-nothing.gguf", im([]))
    put("imatrix", "bad-no-counts.gguf", im([("blk.0.ffn_up.weight.in_sum2", [8, 1], 0, sums)]))
    put("imatrix", "bad-zero-count.gguf", im([("a.in_sum2", [8, 1], 0, sums), ("a.counts", [1, 1], 0, bytes(4))]))
    put("imatrix", "bad-f16.gguf", im([("a.in_sum2", [8, 1], 1, bytes(16)), ("a.counts", [1, 1], 0, one)]))
    put("imatrix", "bad-negative.gguf", im([("a.in_sum2", [8, 1], 0, struct.pack("<8f", *[-1.0] * 8)), ("a.counts", [1, 1], 0, one)]))
    put("imatrix", "bad-nan.gguf", im([("a.in_sum2", [8, 1], 0, struct.pack("<8f", *[float("nan")] * 8)), ("a.counts", [1, 1], 0, one)]))


def make_adapter():
    def ad(tensors, **over):
        k = {"general.type": (STR, "adapter"), "general.architecture": (STR, "lfm2"), "adapter.type": (STR, "lora"), "adapter.lora.alpha": (F32, 4.0)}
        k.update({a.replace("__", "."): b for a, b in over.items()})
        return gguf([(a, t, v) for a, (t, v) in k.items() if v is not None], tensors)
    q = "blk.1.attn_q.weight"
    a, b = (q + ".lora_a", [32, 2], 0, floats(64)), (q + ".lora_b", [2, 32], 0, floats(64))
    put("adapter", "ok-q.gguf", ad([a, b]))
    put("adapter", "ok-two.gguf", ad([a, b, ("blk.0.ffn_down.weight.lora_a", [64, 2], 0, floats(128)), ("blk.0.ffn_down.weight.lora_b", [2, 32], 0, floats(64))]))
    put("adapter", "bad-half.gguf", ad([a]))
    put("adapter", "bad-shape.gguf", ad([a, (q + ".lora_b", [2, 31], 0, floats(62))]))
    put("adapter", "bad-rank.gguf", ad([a, (q + ".lora_b", [4, 32], 0, floats(128))]))
    put("adapter", "bad-name.gguf", ad([("blk.9.attn_q.weight.lora_a", [32, 2], 0, floats(64)), ("blk.9.attn_q.weight.lora_b", [2, 32], 0, floats(64))]))
    put("adapter", "bad-suffix.gguf", ad([a, b, (q + ".lora_c", [2, 32], 0, floats(64))]))
    put("adapter", "bad-arch.gguf", ad([a, b], general__architecture=(STR, "qwen2")))
    put("adapter", "bad-type.gguf", ad([a, b], adapter__type=(STR, "dora")))
    put("adapter", "bad-alpha.gguf", ad([a, b], adapter__lora__alpha=(STR, "4")))


def make_document():
    put("document", "ok-markdown.md", "# One\n\nText with *marks* and a\nsecond line.\n\n## Two\n\n- a\n- b\n  1. c\n\n```c\nint x;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n")
    put("document", "ok-page.html", "<!doctype html><html><head><title>T &amp; t</title><script>x</script></head><body><nav>n</nav><h1>One</h1><p>Text <b>bold</b><br>line</p>"
        "<ul><li>a<ul><li>b</li></ul></li></ul><pre>code\n  x</pre><table><tr><th>a</th><td>b</td></tr></table></body></html>")
    put("document", "ok-text.txt", "First paragraph,\r\ntwo lines.\r\n\r\nSecond \u00e9\u4e2d\U0001f642.\n")
    put("document", "ok-broken-utf8.txt", b"caf\xe9 \xff\xfe\xf0\x9f line\nnext \xc3")
    put("document", "ok-unclosed.html", "<div><p>a<table><tr><td>b<ul><li>c<<>&#xffffffff;&bogus;<p")
    put("document", "ok-deep.html", "<div>" * 400 + "x")
    put("document", "ok-deep.md", ">" * 300 + " x\n" + "- " * 200 + "y\n")
    put("document", "ok-empty.txt", "")
    put("document", "bad-binary", bytes(range(256)) * 4)


if __name__ == "__main__":
    make_gguf(); make_models(); make_safetensors(); make_config(); make_tokenizer(); make_template(); make_json(); make_tool_calls(); make_grammars(); make_imatrix(); make_adapter(); make_document()

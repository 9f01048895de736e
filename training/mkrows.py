#!/usr/bin/env python3
"""Stage 2 (CPU, beside the GPU stages): token files, training rows, question candidates and encoder pairs.

Watches W/text/chunk_*.txt (parts may arrive while training runs) and W/qg/*.jsonl (questions written by the model) and turns each file
into W/tok, W/rows, W/cand, W/pairs. Everything is written to a temporary name first, so a reader never sees half a file; files that exist are not redone.
"""
import argparse, glob, json, os, random, re, sys, time, traceback
from concurrent.futures import ProcessPoolExecutor
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import numpy as np
import rows as R
import rules, skills
from tok import Tok

SEP = "\n<|endoftext|>\n"
# builds of every example, each with other distractors, cuts and wordings
REPEAT = dict(squad_train=2, squad_train_articles=3, squadshifts_wiki=2, tydiqa_en=4, mlqa_en_dev=2, nq_oracle=6, qed_nq=4, squad2_unans_train=2,
              qamr=1, fairytaleqa=1, covidqa=2, bioasq=2, boolq=1)
TOK = None
W = None
SCALE = 1.0


def init(w, scale):
    global TOK, W, SCALE
    W, SCALE = w, scale
    os.nice(2)


def tok():
    global TOK
    if TOK is None:
        TOK = Tok(f"{W}/tokenizer.json")
    return TOK


def put(path, lines):
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        for l in lines:
            f.write(json.dumps(l, ensure_ascii=False) + "\n")
    os.replace(path + ".tmp", path)


def job_tok(path):
    name = os.path.basename(path)[:-4]
    dst = f"{W}/tok/{name}.bin"
    if not os.path.exists(dst):
        docs = open(path, encoding="utf-8").read().split(SEP)
        out = []
        for i in range(0, len(docs), 200):
            for ids in tok().ids_batch(docs[i:i + 200]):
                out.append(np.array([1] + ids + [2], np.uint16))
        np.concatenate(out).tofile(dst + ".tmp")
        os.replace(dst + ".tmp", dst)
    return name


def job_heldout(path):
    docs = open(path, encoding="utf-8").read().split(SEP)
    out = [np.array([1] + ids + [2], np.uint16) for ids in tok().ids_batch(docs)]
    np.save(f"{W}/tok/heldout_bytes.npy", sum(len(d.encode()) for d in docs))
    np.concatenate(out).tofile(f"{W}/tok/heldout.bin.tmp")
    os.replace(f"{W}/tok/heldout.bin.tmp", f"{W}/tok/heldout.bin")
    return "heldout"


def articles(path):
    out = []
    for d in open(path, encoding="utf-8").read().split(SEP):
        title, _, body = d.partition("\n\n")
        if not body or len(title) > 90 or title.startswith(("User:", "Assistant:", "Country profile")):
            continue
        pars, cur = [], ""
        for p in body.split("\n\n"):
            p = R.squash(p)
            if len(p) < 60:
                continue
            if len(p) > 1300:                       # long paragraphs: cut at sentence ends
                sp, a = R.sentences(p), 0
                for s, e in sp:
                    if e - a > 900:
                        pars.append(p[a:e]); a = e + 1
                if len(p) - a > 150:
                    pars.append(p[a:])
            elif len(p) >= 180:
                pars.append(p)
        pars = [p for p in pars if len(p) <= 1400]
        if pars:
            out.append((title, pars))
    return out


def good_sentence(s):
    return 35 <= len(s) <= 320 and s[0].isupper() and s[-1] in ".!?\"”" and len(s.split()) >= 6


def job_text(path):
    name = os.path.basename(path)[:-4]
    if os.path.exists(f"{W}/pairs/text_{name}.jsonl"):
        return name
    rng = random.Random("text" + name)
    arts = articles(path)
    pool = [(t, p) for t, ps in arts for p in ps[:6]]
    if len(pool) < 20:
        return name
    # candidates for the question writer
    cand = []
    want = int(8000 * SCALE)
    flat = [(i, j) for i, (t, ps) in enumerate(arts) for j in range(len(ps)) if 220 <= len(ps[j]) <= 1150]
    rng.shuffle(flat)
    for i, j in flat:
        if len(cand) >= want:
            break
        t, ps = arts[i]
        p = ps[j]
        sp = [p[a:e] for a, e in R.sentences(p)]
        ok = [s for s in sp if good_sentence(s)]
        if len(sp) < 2 or not ok:
            continue
        same = [x for x in ps if x != p]
        same = rng.sample(same, min(2, len(same)))
        for s in rng.sample(ok, min(len(ok), 2)):
            cand.append(dict(t=t, p=p, s=s, un=rng.random() < 0.12, nq=rng.random() < 0.2, same=same))
    rng.shuffle(cand)
    put(f"{W}/cand/{name}.jsonl", cand)
    # rule-made rows and pairs
    b = R.Builder(tok())
    pairs = []
    n_rule = int(2500 * SCALE)
    rng.shuffle(flat)
    n = 0
    for i, j in flat:
        if n >= n_rule:
            break
        t, ps = arts[i]
        p = ps[j]
        sp = R.sentences(p)
        a, e = rng.choice(sp)
        qs = rules.questions(p[a:e], t, rng)
        if not qs:
            continue
        q, ans = rng.choice(qs)
        ex = dict(title=t, context=p, question=q, answers=[(ans, a + p[a:e].find(ans))], unans=False)
        same = [(t, x) for x in ps if x != p]
        r = rng.random()
        mode = "random" if r < 0.06 else "same" if r < 0.10 and len(same) > 2 else "removed" if r < 0.16 else None
        if R.build_qa(b, rng, ex, same, pool, "rule", mode):
            n += 1
            if len(pairs) < n_rule // 2:
                pairs.append(dict(q=q, p=p, t=t))
    b.save(f"{W}/rows/rule-{name}.npz")
    # summaries, leads, chat
    b = R.Builder(tok())
    leads = []
    for t, ps in arts:
        first = ps[0][slice(*R.sentences(ps[0])[0])]
        if 40 < len(first) < 260 and re.match(re.escape(re.sub(r"\s*\(.*", "", t)), first) and re.search(r" (is|was|are|were) ", first):
            leads.append((re.sub(r"\s*\(.*", "", t), first, bool(re.search(r"\(born|\b(?:18|19|20)\d\d ?[–-]", first))))
    for t, ps in rng.sample(arts, min(len(arts), int(500 * SCALE) + 1)):
        skills.summary_row(b, rng, t, ps)
    for _ in range(int(400 * SCALE)):
        skills.chat_row(b, rng, leads)
    b.save(f"{W}/rows/skill-{name}.npz")
    # encoder pairs without questions: title or lead -> paragraph, sentence -> rest of its paragraph, neighbour paragraphs
    for t, ps in arts:
        j = rng.randrange(len(ps))
        p = ps[j]
        sp = R.sentences(p)
        r = rng.random()
        if r < 0.35 and len(sp) >= 3:
            k = rng.randrange(len(sp))
            pairs.append(dict(q=p[sp[k][0]:sp[k][1]], p=(p[:sp[k][0]] + p[sp[k][1]:]).strip(), t=t, k="ict"))
        elif r < 0.55 and len(ps) > 1:
            o = ps[j - 1] if j else ps[1]
            so = R.sentences(o)
            k = rng.randrange(len(so))
            pairs.append(dict(q=o[so[k][0]:so[k][1]], p=p, t=t, k="adj"))
        else:
            pairs.append(dict(q=t, p=ps[0], t="", k="title"))
    rng.shuffle(pairs)
    put(f"{W}/pairs/text_{name}.jsonl", [dict(x, k=x.get("k", "rule")) for x in pairs])
    return name


def job_qg(path):
    name = os.path.basename(path)[:-6]
    rng = random.Random("qg" + name)
    rows = [json.loads(l) for l in open(path, encoding="utf-8")]
    pool = [(r["t"], r["p"]) for r in rows]
    if len(pool) < 10:
        return name
    b = R.Builder(tok())
    pairs = []
    for r in rows:
        same = [(r["t"], x) for x in r["same"]]
        if r["a"] is None:
            R.build_qa(b, rng, dict(title=r["t"], context=r["p"], question=r["q"], answers=[], unans=True), same, pool, "qg")
            continue
        s = r["p"].find(r["s"])
        ex = dict(title=r["t"], context=r["p"], question=r["q"], answers=[(r["a"], s + r["s"].find(r["a"]))], unans=False)
        x = rng.random()
        mode = "removed" if x < 0.06 else "random" if x < 0.12 else "same" if x < 0.16 and same else None
        if 0.16 <= x < 0.20:
            q = R.swap_question(rng, ex, r["same"])
            if q:
                R.build_qa(b, rng, dict(ex, question=q, answers=[], unans=True), same, pool, "qg")
        R.build_qa(b, rng, ex, same, pool, "qg", mode)
        pairs.append(dict(q=r["q"], p=r["p"], t=r["t"], k="qg"))
    b.save(f"{W}/rows/qg-{name}.npz")
    put(f"{W}/pairs/qg_{name}.jsonl", pairs)
    return name


def by_context(exs):
    ctx = {}
    for e in exs:
        ctx.setdefault(e["context"], []).append(e)
    return ctx


def real_sets():
    rows = [json.loads(l) for l in open(f"{W}/real.jsonl", encoding="utf-8")]
    exs = []
    for r in rows:
        exs.append(dict(src=r["source"], title=r["title"], context=R.squash(r["context"]) if "\n" in r["context"] else r["context"], question=r["question"],
                        answers=[(a["text"], a.get("start", -1) if "\n" not in r["context"] else -1) for a in r["answers"]],
                        unans=r["unanswerable"], dev=r["dev"], yn=r.get("yn")))
    return exs


def job_real(part, parts):
    if os.path.exists(f"{W}/pairs/real_{part:03d}.jsonl"):
        return part
    rng = random.Random(f"real{part}")
    exs = real_sets()
    dev = [e for e in exs if e["dev"]]
    exs = [e for e in exs if not e["dev"]]
    art = {}
    for t, c in sorted({(e["title"], e["context"]) for e in exs}):
        art.setdefault(t, []).append((t, c))
    pool = [x for t, v in art.items() for x in v if len(x[1]) > 150]
    b, ask, sk, jg, pairs = R.Builder(tok()), R.Builder(tok(), 640), R.Builder(tok()), R.Builder(tok()), []
    mine = exs[part::parts]
    on = by_context([e for e in exs if not e["unans"] and not e.get("yn")])
    for e in mine:
        same = [x for x in art[e["title"]] if x[1] != e["context"]] if e["title"] else []
        for it in range(max(1, int(REPEAT.get(e["src"], 1) * (1 if SCALE >= 1 else SCALE)))):
            if e["unans"]:
                R.build_qa(b, rng, e, same, pool, "real")
                continue
            if e.get("yn"):
                yes_no(b, rng, e, same, pool)
                continue
            r = rng.random()
            mode = "random" if r < 0.07 else "removed" if r < 0.13 else "same" if r < 0.17 and len(same) >= 2 else None
            if 0.17 <= r < 0.23:
                q = R.swap_question(rng, e, [x[1] for x in same[:4]])
                if q:
                    R.build_qa(b, rng, dict(e, question=q, answers=[], unans=True), same, pool, "real")
            R.build_qa(b, rng, e, same, pool, "real", mode)
        # question writing
        if e["src"] in ("qamr", "fairytaleqa", "boolq", "covidqa", "bioasq"):
            pass
        elif e["unans"]:
            if len(e["context"]) < 1400 and len(e["question"]) < 200:
                ask.add([("user", f"Ask what is not said:\n{e['title']}\n{R.squash(e['context'])}")], R.squash(e["question"]), "ask.u")
        else:
            g = R.find_gold(e, rng)
            if g and len(e["context"]) < 1400 and len(g[2]) < 90:
                nq = e["src"] in ("nq_oracle", "qed_nq")
                for _ in range(5 if nq else 1):
                    ask.add([("user", R.ask_text(e["title"], R.squash(e["context"]), R.squash(e["context"][g[0]:g[1]]), nq))],
                            R.squash(g[2]) + "\n" + R.squash(e["question"]), "ask.a")
        if not e["unans"] and not e.get("yn"):
            if e["src"] not in ("qamr",):
                sib = [x for x in on[e["context"]] if x is not e]
                for _ in range(2 if sib else 1):
                    g = R.find_gold(e, rng)
                    if g:
                        skills.judge_row(jg, rng, e, same, pool, g, sib)
            pairs.append(dict(q=e["question"], p=e["context"], t=e["title"], k="real"))
    ctxs = list(by_context([e for e in mine if not e["unans"] and not e.get("yn")]).values())
    for es in ctxs:
        if len(es) >= 2:
            es = rng.sample(es, min(len(es), rng.choice([2, 2, 3])))
            gs = [R.find_gold(e, rng) for e in es]
            if all(gs):
                skills.follow_row(sk, rng, es, None, pool, gs)
    for _ in range(int(60000 * SCALE / parts)):
        skills.handbook_row(sk, rng)
    for _ in range(int(12000 * SCALE / parts)):
        skills.tool_row(sk, rng)
    for _ in range(int(9000 * SCALE / parts)):
        skills.chat_row(sk, rng, None)
    if os.path.exists(f"{W}/dolly.jsonl"):
        for r in [json.loads(l) for l in open(f"{W}/dolly.jsonl", encoding="utf-8")][part::parts]:
            if len(r["response"]) <= 240 and len(r["instruction"]) <= 200 and "\n" not in r["response"].strip():
                sk.add([("user", r["instruction"].strip())], r["response"].strip(), "dolly")
    # handbook questions for the encoder, in all their wordings
    for _ in range(int(12000 * SCALE / parts)):
        t, x, qa, un = skills.handbook(rng)
        if qa:
            qs, s, a = rng.choice(qa)
            pairs.append(dict(q=rng.choice(qs), p=x, t=t, k="docs"))
    b.save(f"{W}/rows/real-{part:03d}.npz"); ask.save(f"{W}/rows/ask-{part:03d}.npz"); sk.save(f"{W}/rows/skill-{part:03d}.npz"); jg.save(f"{W}/rows/judge-{part:03d}.npz")
    put(f"{W}/pairs/real_{part:03d}.jsonl", pairs)
    if part == 0 and os.path.exists(f"{W}/qsent.jsonl"):
        put(f"{W}/pairs/qsent.jsonl", [dict(q=r["question"], p=r["sentence"], t=r["title"], k="real") for r in map(json.loads, open(f"{W}/qsent.jsonl", encoding="utf-8"))])
    return part


def job_hard(part, parts, builds=3):
    """more builds of the crowd-written unanswerable questions: development runs refused too few of them with the plain share"""
    if os.path.exists(f"{W}/rows/real-9{part:02d}.npz"):
        return part
    rng = random.Random(f"hard{part}")
    exs = [e for e in real_sets() if not e["dev"]]
    art = {}
    for t, c in sorted({(e["title"], e["context"]) for e in exs}):
        art.setdefault(t, []).append((t, c))
    pool = [x for t, v in art.items() for x in v if len(x[1]) > 150]
    b = R.Builder(tok())
    for e in [e for e in exs if e["unans"]][part::parts]:
        same = [x for x in art[e["title"]] if x[1] != e["context"]] if e["title"] else []
        for _ in range(builds):
            R.build_qa(b, rng, e, same, pool, "real", k=rng.choice([1, 2, 3, 3]))
    b.save(f"{W}/rows/real-9{part:02d}.npz")
    return part


def job_dev():
    rng = random.Random(98)
    exs = real_sets()
    dev = [e for e in exs if e["dev"]]
    ctx = sorted({e["context"] for e in exs if not e["dev"] and len(e["context"]) > 150})
    put(f"{W}/dev_pairs.jsonl", [dict(q=e["question"], p=e["context"]) for e in dev if not e["unans"]])
    put(f"{W}/dev_distract.jsonl", [dict(p=p) for p in rng.sample(ctx, min(2000, len(ctx)))])
    make_dev(dev)
    return "dev"


def yes_no(b, rng, e, same, pool):
    q = R.content(e["question"])
    sp = [e["context"][a:z] for a, z in R.sentences(e["context"])]
    best = max(sp, key=lambda s: len(q & R.content(s)) - 0.02 * len(s.split()))
    if len(q & R.content(best)) < 2 or len(best) > 350:
        return
    ps = [(e["title"] or None, e["context"])]
    for _ in range(rng.choice([0, 1, 2])):
        t, p = rng.choice(pool)
        ps.append((t, R.squash(p)[:700]))
    o = list(range(len(ps))); rng.shuffle(o)
    t, dec = R.answer_text(o.index(0) + 1, R.squash(best), e["yn"])
    qq = e["question"][0].upper() + e["question"][1:].rstrip("?") + "?" if rng.random() < 0.7 else e["question"]
    b.add([("user", R.sources_text([(ps[i][0], R.squash(ps[i][1])) for i in o], qq))], t, "real.yn", dec)


def make_dev(dev):
    """three sources, gold at a random place; hard unanswerables with their own passage; unanswerable by random passages; judge pairs"""
    rng = random.Random(99)
    out = []
    pool = sorted({(e["title"], e["context"]) for e in dev})
    def show(ps, q):
        o = list(range(len(ps))); rng.shuffle(o)
        return R.prompt_of([("user", R.sources_text([(ps[i][0] or None, R.squash(ps[i][1])) for i in o], R.squash(q)))]), o.index(0) + 1, o
    rng.shuffle(dev)
    for e in dev:
        others = [x for x in pool if x[1] != e["context"]]
        if e["unans"]:
            p, n, _ = show([(e["title"], e["context"])] + rng.sample(others, 2), e["question"])
            out.append(dict(prompt=p, golds=[], sentence="", n=0, unans="hard", src=e["src"]))
            continue
        g = R.find_gold(e, rng)
        if not g:
            continue
        p, n, _ = show([(e["title"], e["context"])] + rng.sample(others, 2), e["question"])
        golds = sorted({a for a, _ in e["answers"]})
        out.append(dict(prompt=p, golds=golds, sentence=R.squash(e["context"][g[0]:g[1]]), n=n, unans=None, src=e["src"]))
        if rng.random() < 0.25:
            far = [x for x in others if x[0] != e["title"]]
            if len(far) < 3:
                continue
            p, n, _ = show(rng.sample(far, 3), e["question"])
            out.append(dict(prompt=p, golds=[], sentence="", n=0, unans="random", src=e["src"]))
    b = R.Builder(tok())
    js = []
    on = by_context([e for e in dev if not e["unans"] and not e.get("yn")])
    for e in dev * 3:
        if e["unans"] or e.get("yn"):
            continue
        g = R.find_gold(e, rng)
        r = skills.judge_row(b, rng, e, [], pool, g, [x for x in on[e["context"]] if x is not e]) if g else False
        if r and r[0]:
            js.append(dict(prompt=R.prompt_of([("user", r[2])]), judge=r[1], src="judge"))
    rng.shuffle(js)
    mixed = out[:]
    rng.shuffle(mixed)
    # the first 300 serve the quick checks
    put(f"{W}/dev.jsonl", mixed[:240] + js[:60] + mixed[240:] + js[60:400])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--w", required=True)
    ap.add_argument("--procs", type=int, default=26)
    ap.add_argument("--until", type=float, required=True)
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--real-parts", type=int, default=16)
    a = ap.parse_args()
    for d in ("tok", "rows", "cand", "pairs", "qg", "log"):
        os.makedirs(f"{a.w}/{d}", exist_ok=True)
    seen, futs = set(), []
    t0 = time.time()
    with ProcessPoolExecutor(a.procs, initializer=init, initargs=(a.w, a.scale)) as ex, \
            ProcessPoolExecutor(max(1, a.procs // 4), initializer=init, initargs=(a.w, a.scale)) as ex_tok:
        def go(f, *args):                 # tokens first: training waits for them
            futs.append((f.__name__, args, (ex_tok if f in (job_tok, job_heldout, job_qg) else ex).submit(f, *args)))
        real_done = False
        later = []
        while time.time() < a.until:
            for p in sorted(glob.glob(f"{a.w}/text/chunk_*.txt")):
                if p not in seen:
                    seen.add(p); go(job_tok, p); later.append(p)
            if os.path.exists(f"{a.w}/text/heldout_wiki.txt") and "h" not in seen:
                seen.add("h"); go(job_heldout, f"{a.w}/text/heldout_wiki.txt")
            if not real_done and os.path.exists(f"{a.w}/real.jsonl") and seen:
                real_done = True
                go(job_dev)
                for i in range(a.real_parts):
                    go(job_real, i, a.real_parts)
                for i in range(a.real_parts // 2):
                    go(job_hard, i, a.real_parts // 2)
            for p in later:
                go(job_text, p)
            later = []
            for p in sorted(glob.glob(f"{a.w}/qg/*.jsonl")):
                if p not in seen:
                    seen.add(p); go(job_qg, p)
            for x in futs[:]:
                if x[2].done():
                    futs.remove(x)
                    if x[2].exception():
                        print("FAILED", x[0], x[1], repr(x[2].exception()), flush=True)
                        traceback.print_exception(type(x[2].exception()), x[2].exception(), x[2].exception().__traceback__)
                    else:
                        print(round(time.time() - t0, 1), x[0], x[2].result(), flush=True)
            if os.path.exists(f"{a.w}/rows.stop") and not futs:
                break
            time.sleep(0.3)
        ex.shutdown(wait=False, cancel_futures=True)
        ex_tok.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()

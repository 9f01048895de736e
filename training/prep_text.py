#!/usr/bin/env python3
"""Stage 1 (CPU): collect, clean, deduplicate and decontaminate the pretraining text.

Input:  directories with the source texts (see README.md for repositories, licences and commits).
Output: OUT/chunk_XXX.txt   ~16 MB each, documents separated by a line "<|endoftext|>";
        OUT/heldout_wiki.txt  featured articles that no training stage ever reads (bits per byte).
A document is a title line, a blank line and paragraphs separated by blank lines.

Decontamination: articles that carry the title of a SQuAD evaluation article are dropped whole, and a paragraph is
dropped when at least a quarter of its sampled eight-word shingles occur in an evaluation passage (XQuAD, the ten SQuAD
evaluation articles, the last 300 NQ rows, wikitext-2).
"""
import argparse, glob, json, os, random, re, subprocess, sys
from multiprocessing import Pool

SEED = 1234
EOT = "<|endoftext|>"
WORD = re.compile(r"[a-z0-9]+")


def zcat(path):
    return subprocess.run(["zstdcat", path], stdout=subprocess.PIPE, check=True).stdout.decode("utf-8")


def norm_title(t):
    return " ".join(WORD.findall(t.lower().replace("_", " ")))


def shingles(text, step=1):
    w = WORD.findall(text.lower())
    return [hash(" ".join(w[i:i + 8])) for i in range(0, max(0, len(w) - 7), step)]


def load_eval(data):
    """-> (set of hashed shingles, set of normalised titles)"""
    s, titles = set(), set()
    for name in ("xquad_en", "squad_eval_articles"):
        for line in zcat(f"{data}/qa/{name}.jsonl.zst").splitlines():
            r = json.loads(line)
            s.update(shingles(r["context"]))
            if name == "squad_eval_articles":
                titles.add(norm_title(r["title"]))
    rows = [json.loads(l) for l in zcat(f"{data}/qa/nq_oracle.jsonl.zst").splitlines()]
    for r in rows[-300:]:
        s.update(shingles(r["context"]))
    for n in ("wikitext2_test", "wikitext2_valid"):
        for line in zcat(f"{data}/qa/{n}.txt.zst").splitlines():
            s.update(shingles(line.replace("@-@", "").replace("@,@", "").replace("@.@", "")))
    return s, titles


_rules = [(re.compile(p), r) for p, r in (
    (r"\(\s*[,;:\s]*\)", ""), (r"\(\s*[,;]\s*", "("), (r"\s*[,;]\s*\)", ")"), (r"[ \t\u00a0]+", " "), (r" ([,.;:)])", r"\1"),
    (r"\( ", "("), (r"&lt;.*?&gt;", ""), (r"<[^<>|]{0,80}>", ""), (r"\[\d+\]", ""))]


def clean_par(p):
    p = p.replace("&amp;", "&").replace("&quot;", '"').replace("&nbsp;", " ")
    for rx, rep in _rules:
        p = rx.sub(rep, p)
    return p.strip()


def bad_par(p):
    if len(p) < 3:
        return True
    if "{{" in p or "}}" in p or "|-" in p or "http" in p and len(p) < 120:
        return True
    letters = sum(c.isalpha() for c in p[:400])
    return letters < 0.55 * len(p[:400])


def docs_from(kind, path, rev=None):
    """yields (title, [paragraph])"""
    if kind == "zst":
        for d in zcat(path).split("\n" + EOT):
            lines = d.strip().split("\n")
            if len(lines) > 1:
                yield lines[0].strip(), lines[1:]
    elif kind == "txt":
        for d in open(path, encoding="utf-8", errors="replace").read().split("\n" + EOT):
            lines = d.strip().split("\n")
            if len(lines) > 1:
                yield lines[0].strip(), lines[1:]
    else:  # wikiextractor output inside a git directory
        repo, name = path
        raw = subprocess.run(["git", "--git-dir", repo, "show", f"HEAD:{name}"], stdout=subprocess.PIPE, check=True).stdout
        for d in raw.decode("utf-8", "replace").split("</doc>"):
            m = re.search(r'<doc id="[^"]*" url="[^"]*" title="([^"]*)"[^>]*>', d)
            if m:
                yield m.group(1), d[m.end():].strip().split("\n")[1:]


def work(job):
    source, kind, path, min_chars = job
    out, stats = [], dict(docs=0, dropped_title=0, dropped_par=0, short=0)
    for title, lines in docs_from(kind, path):
        nt = norm_title(title)
        if nt in EVAL_TITLES and source.startswith("wiki"):
            stats["dropped_title"] += 1
            continue
        if source == "dialog":                      # keep the turns line by line
            body = "\n".join([title] + [l for l in lines if l.strip()])
            out.append((nt[:60] + str(hash(body)), "", body)); stats["docs"] += 1
            continue
        pars = []
        for p in lines:
            p = clean_par(p)
            if not p or bad_par(p) or (pars and p == pars[-1]) or p == title:
                continue
            sh = shingles(p, 3)
            if len(sh) >= 4 and sum(h in EVAL_SH for h in sh) * 4 >= len(sh):
                stats["dropped_par"] += 1
                continue
            pars.append(p)
        body = "\n\n".join(pars)
        if len(body) < min_chars:
            stats["short"] += 1
            continue
        stats["docs"] += 1
        out.append((nt, title, body))
    return source, out, stats


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", required=True)
    ap.add_argument("--mirror", required=True, help="directory of bare git snapshots, owner+name/repo")
    ap.add_argument("--extra", default="", help="directory of further .txt files")
    ap.add_argument("--out", required=True)
    ap.add_argument("--tiny", action="store_true")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    global EVAL_SH, EVAL_TITLES
    EVAL_SH, EVAL_TITLES = load_eval(a.data)
    print("eval shingles", len(EVAL_SH), "titles", len(EVAL_TITLES), flush=True)

    def git_jobs(repo, prefix, source, min_chars):
        g = f"{a.mirror}/{repo}/repo"
        names = subprocess.run(["git", "--git-dir", g, "ls-tree", "-r", "--name-only", "HEAD"], stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
        return [(source, "git", (g, n), min_chars) for n in names if n.startswith(prefix) and "/wiki_" in n]

    t = a.data + "/train/"
    jobs = [("wiki_featured", "zst", t + "wiki_featured.txt.zst", 500), ("wiki_good", "zst", t + "wiki_good.txt.zst", 500),
            ("openstax", "zst", t + "textbooks_openstax_ccby.txt.zst", 400),
            ("dialog", "zst", t + "dialog_sgd.txt.zst", 0), ("factbook", "zst", t + "facts_factbook.txt.zst", 200),
            ("wordnet", "zst", t + "dict_wordnet.txt.zst", 200)]
    if a.extra:
        jobs += [("extra_" + os.path.basename(p)[:-4], "txt", p, 200) for p in sorted(glob.glob(a.extra + "/*.txt"))]
    jobs += git_jobs("JohanMadsen+02807_Project", "Data/Dataset1/", "wiki_core", 500)
    jobs += git_jobs("ZhouYii+PatchedDistro", "data/A", "wiki_2014", 700)
    jobs += git_jobs("Vibhas-hs-edu+WikiTasks", "text/AA/", "wiki_new", 900)
    if a.tiny:
        jobs = [j for j in jobs if j[0] in ("wiki_good", "dialog")]
    caps = dict(dialog=6_000_000, factbook=3_000_000, wordnet=6_000_000)
    seen, totals, groups = set(), {}, {}
    rng = random.Random(SEED)
    with Pool(2) as pool:
        for source, out, st in pool.imap(work, jobs):
            g = groups.setdefault(source, [])
            tot = totals.setdefault(source, dict(docs=0, dropped_title=0, dropped_par=0, short=0, dup=0, bytes=0))
            for k, v in st.items():
                tot[k] += v
            for nt, title, body in out:
                if source.startswith("wiki") and nt in seen:
                    tot["dup"] += 1
                    continue
                if source.startswith("wiki"):
                    seen.add(nt)
                doc = (title + "\n\n" + body) if title else body
                if tot["bytes"] + len(doc) > caps.get(source, 1 << 62):
                    continue
                tot["bytes"] += len(doc.encode())
                g.append(doc)
    feat = groups.get("wiki_featured") or groups["wiki_good"]
    rng.shuffle(feat)
    held, feat[:] = feat[:40], feat[40:]
    with open(f"{a.out}/heldout_wiki.txt", "w", encoding="utf-8") as f:
        f.write(("\n" + EOT + "\n").join(held))
    # order: best sources first, since later parts may arrive late on the training machine
    n = 0
    def write(docs):
        nonlocal n
        with open(f"{a.out}/chunk_{n:03d}.txt", "w", encoding="utf-8") as f:
            f.write(("\n" + EOT + "\n").join(docs))
        n += 1
    def emit(names, size=16_000_000):
        pool_ = [d for k in names for d in groups.get(k, [])]
        rng.shuffle(pool_)
        cur, cb = [], 0
        for d in pool_:
            cur.append(d); cb += len(d)
            if cb >= size:
                write(cur); cur, cb = [], 0
        if cur:
            write(cur)
    extra = [k for k in groups if k.startswith("extra_")]
    emit(["wiki_featured", "wiki_good", "openstax", "dialog", "factbook", "wordnet"] + extra)
    emit(["wiki_core", "wiki_2014", "wiki_new"])
    json.dump(totals, open(f"{a.out}/stats.json", "w"), indent=1)
    print(json.dumps(totals, indent=1), "chunks", n)


if __name__ == "__main__":
    main()

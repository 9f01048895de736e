#!/usr/bin/env python3
"""Stage 1b (CPU): all real question sets -> one jsonl {id, source, title, context, question, answers[{text,start}], unanswerable, dev}.

Drops what an evaluation set holds: same normalised question, a context with shared eight-word shingles, the ten SQuAD evaluation
articles by title, NQ rows from 1000 on. Two SQuAD articles and 150 NQ rows are set aside (dev=1) for choosing checkpoints.
"""
import argparse, glob, json, os, re, subprocess, sys
from collections import Counter
import prep_text
from prep_text import zcat, norm_title, shingles
from rows import norm_answer, squash

DEV_TITLES = {"kenya", "black death"}


def t0_rows(data):
    """adversarial_qa, quoref, duorc, ropes: distinct (context, question, answer) out of the templates"""
    rx = [("adversarial_qa", re.compile(r'^Given the following passage\n\n"(?P<c>.*?)",\n\nanswer the following question\. Note that the answer is present within the text\.\n\nQuestion: (?P<q>.*)', re.S)),
          ("adversarial_qa", re.compile(r'^Extract the answer to the question from the following context\.\nQuestion: (?P<q>.*?)\nContext: (?P<c>.*)', re.S)),
          ("quoref", re.compile(r'^Read the following paragraph and extract the answer for the question: (?P<q>.*?)\n\n(?P<c>.*)', re.S)),
          ("quoref", re.compile(r'^Given the following context:\n\n(?P<c>.*?)\n\nanswer the following question:\n\n(?P<q>.*)', re.S)),
          ("duorc", re.compile(r'^(?:Please answer the following movie-related question.*?|Given the following.*?|Answer the following.*?)\n(?P<q>.*?)\n(?P<c>.*)', re.S))]
    for l in zcat(f"{data}/qa/t0_permissive.jsonl.zst").splitlines():
        d = json.loads(l)
        for name, r in rx:
            if d["task"].startswith(name) and "generate_question" not in d["task"]:
                m = r.match(d["prompt"].strip())
                if m:
                    yield name, m["c"].strip(), m["q"].strip(), d["completion"].strip()
                    break


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", required=True)
    ap.add_argument("--extra", default="", help="directory of further .jsonl sets, same schema")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    sh, titles = prep_text.load_eval(a.data)
    evq = set()
    for n in ("xquad_en", "squad_eval_articles"):
        evq |= {norm_answer(json.loads(l)["question"]) for l in zcat(f"{a.data}/qa/{n}.jsonl.zst").splitlines()}
    nq = [json.loads(l) for l in zcat(f"{a.data}/qa/nq_oracle.jsonl.zst").splitlines()]
    evq |= {norm_answer(r["question"]) for r in nq[1000:]}
    rows = []
    for l in zcat(f"{a.data}/qa/squad_train_articles.jsonl.zst").splitlines():
        r = json.loads(l)
        rows.append(dict(id=r["id"], source="squad_train_articles", title=r["title"].replace("_", " "), context=r["context"], question=r["question"],
                         answers=[dict(text=t, start=-1) for t in r["answers"]], unanswerable=not r["answerable"]))
    for i, r in enumerate(nq[:1000]):
        rows.append(dict(id=f"nq{i}", source="nq_oracle", title=r["title"], context=r["context"], question=r["question"],
                         answers=[dict(text=t, start=-1) for t in r["answers"]], unanswerable=False, dev=int(i >= 850)))
    for i, (n, c, q, ans) in enumerate(t0_rows(a.data)):
        rows.append(dict(id=f"t0_{i}", source="t0_" + n, title="", context=c, question=q, answers=[dict(text=ans, start=-1)], unanswerable=False))
    for p in sorted(glob.glob(a.extra + "/*.jsonl")) if a.extra else []:
        base = os.path.basename(p)[:-6]
        if "." in base or base == "registry":
            continue
        for l in open(p, encoding="utf-8"):
            r = json.loads(l)
            if "question" not in r or "context" not in r:
                continue
            if base == "strategyqa":
                continue
            yn = None
            if base == "boolq":
                yn = r["answers"][0]["text"].lower()
            elif r.get("answers") and all(x.get("start", -1) is not None and x.get("start", -1) < 0 for x in r["answers"]) and not r.get("unanswerable"):
                continue                    # free-form answers
            rows.append(dict(id=str(r.get("id", len(rows))), yn=yn, source=base, title=(r.get("title") or "").replace("_", " "), context=r["context"], question=r["question"],
                             answers=r.get("answers") or [], unanswerable=bool(r.get("unanswerable"))))
    seen, kept, stat, ctx_bad = set(), [], Counter(), {}
    for r in rows:
        k = (norm_answer(r["question"]), norm_answer(r["context"])[:80])
        c = r["context"]
        if c not in ctx_bad:
            s = shingles(c)
            ctx_bad[c] = len(s) >= 4 and sum(h in sh for h in s) * 5 >= len(s)
        why = None
        if k in seen: why = "duplicate"
        elif k[0] in evq: why = "eval question"
        elif norm_title(r["title"]) in titles: why = "eval title"
        elif ctx_bad[c] and r["source"] != "nq_oracle": why = "eval context"
        elif ctx_bad[c]: why = "eval context"
        elif not r.get("yn") and not r["unanswerable"] and not any(x["text"].lower() in c.lower() for x in r["answers"] if x["text"]): why = "no span"
        elif len(c) > 4000 or len(c) < 40: why = "length"
        seen.add(k)
        if why:
            stat[r["source"], why] += 1
            continue
        r["dev"] = int(bool(r.get("dev")) or (r["source"] == "squad_train_articles" and norm_title(r["title"]) in DEV_TITLES))
        stat[r["source"], "dev" if r["dev"] else "unans" if r["unanswerable"] else "kept"] += 1
        kept.append(r)
    dev_ctx = {norm_answer(r["context"])[:100] for r in kept if r["dev"]}
    dev_titles = {norm_title(r["title"]) for r in kept if r["dev"] and r["source"] == "squad_train_articles"}
    n = 0
    kept.sort(key=lambda r: (r["title"], r["context"], r["id"]))        # equal passages side by side compress well
    with open(a.out, "w", encoding="utf-8") as f:
        for r in kept:
            if not r["dev"] and (norm_answer(r["context"])[:100] in dev_ctx or norm_title(r["title"]) in dev_titles):
                stat[r["source"], "dev context"] += 1
                continue
            r["answers"] = [x for x in r["answers"] if x.get("text")]
            f.write(json.dumps({k: v for k, v in r.items() if k != "id" and v is not None}, ensure_ascii=False) + "\n"); n += 1
    for k, v in sorted(stat.items()):
        print(k, v)
    print("rows", n)


if __name__ == "__main__":
    main()

"""Multi-hop question sets for graph attention, in the form of bench/data (README.md there).

    python3 training/graph_sets.py --hotpot FILE.jsonl|FILE.json ... --musique FILE.json ... --out DIR [--test-share 0.5]

Reads HotpotQA (distractor setting; also the form {"docs", "supporting"}) and MuSiQue files, splits questions by a hash of their id and
writes DIR/train.jsonl and DIR/test.jsonl: a row a question with its first piece of evidence as "context", the others as "evidence", and
a row without a question for every other passage. Test questions have all their evidence (two passages or more); a training question
may lack some. --bundle N also writes DIR/bundle.jsonl: the first N test questions with fewer distractors."""
import argparse
import hashlib
import json


def squeeze(text, most=1500):
    """One line, cut at a word: a passage as long as `remember` makes them."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0]


def read_hotpot(path):
    text = open(path, encoding="utf-8").read()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    for row in rows:
        if "docs" in row:
            docs = [(d["title"], squeeze(" ".join(d["sentences"]))) for d in row["docs"]]
            gold = [s[0] for s in row["supporting"]]
        else:
            docs = [(title, squeeze(" ".join(sentences))) for title, sentences in row["context"]]
            gold = [s[0] for s in row["supporting_facts"]]
        yield row.get("id") or row["_id"], row["question"], row["answer"], docs, set(gold)


def read_musique(path):
    for row in json.load(open(path, encoding="utf-8")):
        docs = [(p["title"], squeeze(p["paragraph_text"])) for p in row["paragraphs"]]
        gold = {i for i, p in enumerate(row["paragraphs"]) if p["is_supporting"]}
        yield row["id"], row["question"], row["answer"], docs, gold


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hotpot", nargs="*", default=[])
    parser.add_argument("--musique", nargs="*", default=[])
    parser.add_argument("--train-only", nargs="*", default=[], help="of those files, the ones that no test question comes from")
    parser.add_argument("--out", required=True)
    parser.add_argument("--test-share", type=float, default=0.5)
    parser.add_argument("--bundle", type=int, default=0)
    parser.add_argument("--bundle-distractors", type=int, default=3)
    args = parser.parse_args()
    parts = {"train": [], "test": []}
    for path in args.hotpot + args.musique:
        for key, question, answer, docs, gold in (read_hotpot if path in args.hotpot else read_musique)(path):
            share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32
            part = "test" if share < args.test_share and path not in args.train_only else "train"
            evidence = [d for i, d in enumerate(docs) if (i if path in args.musique else d[0]) in gold]
            others = [d for i, d in enumerate(docs) if (i if path in args.musique else d[0]) not in gold]
            if len(evidence) >= (2 if part == "test" else 1):
                parts[part].append((share, key, question, answer, evidence, others))

    def write(path, items, n_distractors):
        seen = {e for item in items for e in item[4]}
        with open(path, "w", encoding="utf-8") as out:
            for _, key, question, answer, evidence, others in items:
                row = {"id": key, "question": question, "answers": [answer], "answerable": True, "title": evidence[0][0],
                       "context": evidence[0][1], "evidence": [{"title": t, "text": x} for t, x in evidence[1:]]}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            for item in items:
                for other in item[5][:n_distractors]:
                    if other[1] and other not in seen:
                        seen.add(other)
                        out.write(json.dumps({"title": other[0], "context": other[1]}, ensure_ascii=False) + "\n")
        print(path, len(items), "questions,", len(seen), "passages")

    for part, items in parts.items():
        items.sort()
        write(f"{args.out}/{part}.jsonl", items, 100)
    if args.bundle:
        write(f"{args.out}/bundle.jsonl", parts["test"][:args.bundle], args.bundle_distractors)


if __name__ == "__main__":
    main()

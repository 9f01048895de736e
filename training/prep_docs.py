#!/usr/bin/env python3
"""Stage 1c (CPU): technical documentation (Markdown, reStructuredText in git snapshots) -> plain text sections, one document each."""
import argparse, re, subprocess, random

SOURCES = [("rust-lang+book", r"^src/.*\.md$", "md"), ("prometheus+docs", r"^(docs|blog)/.*\.md$", "md"), ("python+peps", r"^peps/pep-\d+\.rst$", "rst")]


def md(t):
    t = re.sub(r"^---\n.*?\n---\n", "", t, flags=re.S)
    t = re.sub(r"```.*?```", "", t, flags=re.S)
    t = re.sub(r"<[^>]+>", "", t)
    t = re.sub(r"\{\{.*?\}\}", "", t)
    t = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", t)
    t = re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])?", r"\1", t)
    t = re.sub(r"^\[[^\]]+\]:.*$", "", t, flags=re.M)
    t = re.sub(r"(\*\*|__)(.+?)\1", r"\2", t)
    return re.sub(r"(?<!\w)[*_]([^*_\n]+)[*_](?!\w)", r"\1", t)


def rst(t):
    t = t.split("\n\n", 1)[-1]
    t = re.sub(r"^\.\. .*$(\n[ \t]+.*$|\n$)*", "", t, flags=re.M)
    t = re.sub(r"::\s*\n(\n?[ \t]+.*\n?|\n)+", ":\n\n", t)
    t = re.sub(r":[a-z:]+:`~?([^`<]+?)(?: ?<[^>]*>)?`", r"\1", t)
    t = re.sub(r"`([^`<]+?) ?<[^>]*>`_+", r"\1", t)
    t = re.sub(r"``([^`]+)``", r"`\1`", t)
    t = re.sub(r"\[#?[\w-]*\]_", "", t)
    return re.sub(r"^(.+)\n([=\-~^'\"#*+])\2{2,}$", r"# \1", t, flags=re.M)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--mirror", required=True); ap.add_argument("--out", required=True); ap.add_argument("--cap", type=int, default=3_500_000)
    a = ap.parse_args()
    docs, rng = [], random.Random(7)
    for repo, rx, kind in SOURCES:
        g = ["git", "--git-dir", f"{a.mirror}/{repo}/repo"]
        names = [n for n in subprocess.run(g + ["ls-tree", "-r", "--name-only", "HEAD"], stdout=subprocess.PIPE).stdout.decode().split("\n") if re.match(rx, n)]
        rng.shuffle(names)
        size = 0
        for n in names:
            t = subprocess.run(g + ["show", f"HEAD:{n}"], stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")
            t = md(t) if kind == "md" else rst(t)
            top = None
            for sec in re.split(r"(?m)^#+ +", t):
                head, _, body = sec.partition("\n")
                head = head.strip(" #`")[:80]
                top = top or head
                pars = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", body)]
                pars = [p for p in pars if len(p) > 50 and sum(c.isalpha() or c == " " for c in p) > 0.8 * len(p)]
                merged = []
                for p in pars:                       # short paragraphs of one section stand together, as passages of notes do
                    if merged and len(merged[-1]) + len(p) < 800:
                        merged[-1] += " " + p
                    else:
                        merged.append(p)
                if sum(map(len, merged)) > 200 and size < a.cap:
                    title = head if head == top or rng.random() < 0.6 or not head else f"{top}: {head}"[:85]
                    docs.append(title + "\n\n" + "\n\n".join(merged)); size += len(docs[-1])
        print(repo, size)
    rng.shuffle(docs)
    open(a.out, "w", encoding="utf-8").write("\n<|endoftext|>\n".join(docs))


if __name__ == "__main__":
    main()

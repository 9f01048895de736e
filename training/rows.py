"""Training rows: texts in the exact prompt format of docs/prompt-format.md -> token ids and loss weights.

A row is (ids, weight classes, kind). Weight classes index WEIGHTS: the places where a decision is made (refuse or answer, which
source, how the sentence starts, the short answer) weigh most; the rest of a copied sentence is easy and weighs little.
"""
import glob, json, os, random, re
import numpy as np

#            pad  ctx   question quote end  decision first judge
WEIGHTS = [0.0, 0.02, 0.15, 0.3, 1.0, 2.5, 5.0, 12.0]
W_PAD, W_CTX, W_Q, W_QUOTE, W_END, W_DEC, W_FIRST, W_JUDGE = range(8)
IDK = "I don't know."
BOS_S, IS, IE = "<|startoftext|>", "<|im_start|>", "<|im_end|>"

_abbr = r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\bJr)(?<!\bSr)(?<!\bNo)(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bca)(?<!\bc)(?<!\bInc)(?<!\bCo)(?<!\bU\.S)(?<!\bA\.D)(?<!\bB\.C)(?<!\b[A-Z])(?<!\bMt)(?<!\bFt)(?<!\bGen)(?<!\bCol)(?<!\bProf)(?<!\bRev)(?<!\bLt)(?<!\b[a-z])(?<!\bpp)(?<!\bvol)(?<!\bfig)(?<!\bFig)(?<!\bapprox)(?<!\bed)"
_split = re.compile(_abbr + r"([.!?][\"”’')\]]*)\s+(?=[\"“‘'(\[]?[A-Z0-9])|\n+")
WORD = re.compile(r"[a-z0-9]+")


def sentences(text):
    """-> [(start, end)] spans that cover the passage's sentences"""
    out, a = [], 0
    for m in _split.finditer(text):
        e = m.end(1) if m.group(1) else m.start()
        if e > a and text[a:e].strip():
            out.append((a, e))
        a = m.end()
    if a < len(text) and text[a:].strip():
        out.append((a, len(text.rstrip())))
    return out


def words(s):
    return WORD.findall(s.lower())


STOP = set("the a an of in on at to is was were are be been and or by for with from that this which who what when where how did does do it its as his her their he she they has had have not".split())


def content(s):
    return {w for w in words(s) if w not in STOP}


def squash(p):
    return re.sub(r"\s+", " ", p).strip()


def norm_answer(s):
    s = re.sub(r"\b(a|an|the)\b", " ", re.sub(r"[^\w\s]", "", s.lower()))
    return " ".join(s.split())


def f1(pred, golds):
    best = 0.0
    for g in golds:
        p, q = norm_answer(pred).split(), norm_answer(g).split()
        if not p or not q:
            best = max(best, float(p == q)); continue
        c = 0
        qq = list(q)
        for w in p:
            if w in qq:
                qq.remove(w); c += 1
        if c:
            best = max(best, 2 * c / (len(p) + len(q)))
    return best


def prompt_of(messages):
    s = BOS_S
    for role, text in messages:
        s += f"{IS}{role}\n{text}{IE}\n"
    return s + f"{IS}assistant\n"


def sources_text(passages, question):
    """passages: [(title or None, text)]"""
    parts = [f"[{i + 1}] " + (f"{t}\n" if t else "") + p for i, (t, p) in enumerate(passages)]
    return "Sources:\n" + "\n\n".join(parts) + f"\n\nQuestion: {question}"


class Builder:
    def __init__(self, tok, max_len=1024):
        self.tok, self.max_len = tok, max_len
        self.out = []

    def add(self, messages, answer, kind, decide=None):
        """decide: [(start, end)] character spans of the answer that carry a decision; None = all of it (free text, weight 1)"""
        prompt = prompt_of(messages)
        ids, st = self.tok.encode(prompt)
        q_at = prompt.rfind("\nQuestion: ")
        if q_at < 0:
            q_at = prompt.rfind(IS + "user")
        w = [W_CTX if s < q_at else W_Q for s in st]
        w[0] = W_PAD
        a_ids, a_st = self.tok.encode(answer)
        if decide is None:
            aw = [W_END] * len(a_ids)
        else:
            aw = [W_DEC if any(x <= s < y for x, y in decide) else W_QUOTE for s in a_st]
            aw[0] = W_JUDGE if kind == "judge" else W_FIRST      # the rating; answer or refuse
        ids = ids + a_ids + [7]
        w = w + aw + [W_END]
        if len(ids) > self.max_len:
            return False
        self.out.append((np.array(ids, np.uint16), np.array(w, np.uint8), kind))
        return True

    def save(self, path):
        if not self.out:
            return 0
        n = np.array([len(r[0]) for r in self.out], np.int64)
        tmp = path + ".tmp.npz"
        np.savez(tmp, ids=np.concatenate([r[0] for r in self.out]), w=np.concatenate([r[1] for r in self.out]), n=n,
                 kind=np.array([r[2] for r in self.out]))
        os.replace(tmp, path)
        return len(self.out)


def answer_text(i, sent, short):
    """-> assistant text and its decision spans"""
    head = f"[{i}] "
    a = head + sent + "\nAnswer: " + short
    first = " ".join(sent.split(" ")[:4])
    return a, [(0, len(head) + len(first)), (len(a) - len(short) - 1, len(a))]


def find_gold(ex, rng):
    """-> (sentence start, end, short answer) or None; ex: context, question, answers [(text, start)]"""
    ctx = ex["context"]
    cand = []
    for t, s in ex["answers"]:
        if not t:
            continue
        if s is None or s < 0 or ctx[s:s + len(t)] != t:
            hits = [m.start() for m in re.finditer(re.escape(t), ctx)]
            if not hits:
                hits = [m.start() for m in re.finditer(re.escape(t), ctx, re.I)]
            if not hits:
                continue
            if len(hits) > 1:
                q = content(ex["question"])
                spans = sentences(ctx)
                def sc(h):
                    for a, b in spans:
                        if a <= h < b:
                            return len(q & content(ctx[a:b]))
                    return 0
                s = max(hits, key=sc)
            else:
                s = hits[0]
        cand.append((ctx[s:s + len(t)], s))
    if not cand:
        return None
    counts = {}
    for t, s in cand:
        counts[t] = counts.get(t, 0) + 1
    best = max(counts.values())
    t, s = rng.choice([c for c in cand if counts[c[0]] == best])
    for a, b in sentences(ctx):
        if a <= s < b:
            if s + len(t) > b:
                return None
            return a, b, t.strip()
    return None


K_DIST = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5]


def short_passage(rng, p, keep=None):
    """cut a passage to a few whole sentences; keep=(start, end) must survive. -> text"""
    sp = sentences(p)
    if len(sp) < 2:
        return p
    k = rng.randint(1, min(5, len(sp)))
    if keep is None:
        i = rng.randint(0, len(sp) - k)
    else:
        g = next((j for j, (a, b) in enumerate(sp) if a <= keep[0] < b), 0)
        i = rng.randint(max(0, g - k + 1), min(g, len(sp) - k))
    return p[sp[i][0]:sp[i + k - 1][1]]


def noisy_question(rng, q):
    q = squash(q)
    r = rng.random()
    if r < 0.05:
        q = q.rstrip("?").strip()
    elif r < 0.14:
        q = q.rstrip("?").strip().lower()
    elif r < 0.16:
        q = q.lower()
    elif r < 0.19 and q[:1].isupper():
        q = rng.choice(["Please tell me: ", "Do you know ", "Tell me, "]) + q[0].lower() + q[1:]
    return q


def build_qa(b, rng, ex, same, pool, kind, mode=None, k=None, plain=False):
    """ex: title, context, question, answers [(text,start)], unans. same: other passages of the article [(title, text)];
    pool: passages of anything. mode None = as the example is; 'removed', 'same', 'random' make it unanswerable."""
    q = ex["question"] if plain else noisy_question(rng, ex["question"])
    q = squash(q)
    k = k or rng.choice(K_DIST)
    ctx, title = ex["context"], ex["title"]
    gold = None
    if not ex.get("unans"):
        g = find_gold(ex, rng)
        if g is None:
            return False
        a, e, short = g
        sent = ctx[a:e]
        if len(sent) > 420 or len(short) > 160:
            return False
        if mode is None:
            text = ctx if rng.random() < 0.65 or plain else short_passage(rng, ctx, (a, e))
            gold = (title, text)
        elif mode == "removed":
            text = (ctx[:a].rstrip() + " " + ctx[e:].lstrip()).strip()
            if len(text) < 80 or norm_answer(short) in norm_answer(text):
                return False
            gold = (title, text)
    else:
        gold = (title, ctx)
    passages = [gold] if gold else []
    bad = None if ex.get("unans") else norm_answer(ex["answers"][0][0])
    tries = 0
    while len(passages) < k and tries < 30:
        tries += 1
        use_same = same and (rng.random() < (0.9 if mode == "same" else 0.4)) and mode != "random"
        t, p = rng.choice(same) if use_same else rng.choice(pool)
        if p == ctx or any(p == x[1] for x in passages) or (mode == "random" and t == title):
            continue
        if bad and (t == title or mode) and bad in norm_answer(p):
            continue
        if rng.random() < 0.3:
            p = short_passage(rng, p)
        passages.append((t, p))
    if not passages:
        return False
    budget = 3600
    for i in range(1, len(passages)):
        if sum(len(x[1]) for x in passages) > budget:
            passages[i] = (passages[i][0], short_passage(rng, passages[i][1]))
    order = list(range(len(passages)))
    rng.shuffle(order)
    r = rng.random()
    show = (lambda: True) if r < 0.7 else (lambda: False) if r < 0.85 else (lambda: rng.random() < 0.5)
    ps = [(passages[i][0] if passages[i][0] and show() else None, squash(passages[i][1])) for i in order]
    msgs = [("user", sources_text(ps, q))]
    if ex.get("unans") or mode:
        return b.add(msgs, IDK, kind + ".u", [(0, 1)])
    sent = squash(sent)
    n = order.index(0) + 1
    if sent not in ps[n - 1][1]:
        return False
    text, dec = answer_text(n, sent, squash(short))
    return b.add(msgs, text, kind + ".a", dec)


_ent = re.compile(r"\b(?:[A-Z][a-z]+(?: (?:of |the |de )?[A-Z][a-z]+)*|\d{4}|\d+(?:[.,]\d+)?)\b")


def swap_question(rng, ex, others):
    """An unanswerable question that looks answerable: one name or number of the question is replaced by another of its kind"""
    q = ex["question"]
    ents = [m for m in _ent.finditer(q) if m.start() > 0]
    if not ents:
        return None
    m = rng.choice(ents)
    num = m.group()[0].isdigit()
    cand = {x.group() for t in [ex["context"]] + others for x in _ent.finditer(t) if x.group()[0].isdigit() == num and x.start() > 0}
    cand = [c for c in cand if c.lower() not in q.lower() and (len(c) == 4) == (len(m.group()) == 4 if num else len(c) == 4)]
    if not cand:
        return None
    return q[:m.start()] + rng.choice(sorted(cand)) + q[m.end():]


def load_real(path):
    """unified real set (prep_qa.py) -> examples"""
    out = []
    for l in open(path, encoding="utf-8"):
        r = json.loads(l)
        out.append(dict(id=r["id"], src=r["source"], title=r["title"], context=r["context"], question=r["question"],
                        answers=[(a["text"], a["start"]) for a in r["answers"]], unans=r["unanswerable"]))
    return out


def ask_text(title, passage, sent, search=False):
    """what the question writer reads; search = a question as typed into a search engine (learnt from NQ)"""
    return f"{'Ask as in a search' if search else 'Ask'}:\n{title}\n{passage}\n\nSentence: {sent}"


def qg_prompt(title, passage, sent, search=False):
    return prompt_of([("user", ask_text(title, passage, sent, search))])


def qg_prompt_un(title, passage):
    return prompt_of([("user", f"Ask what is not said:\n{title}\n{passage}")])

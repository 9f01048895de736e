"""Questions made from sentences by rule: several methods, so that no single template gives the answer away.

Subject questions, object questions, time / place / number questions with do-support or inverted auxiliaries, lead-adverbial questions, and cloze questions
as a fallback. Grammar is often imperfect; they teach copying and source selection early, the tuned mix holds few of them.
"""
import random, re

AUX = r"(was|were|is|are|has|have|had|can|could|will|would|may|must|became|remained)"
_subj = re.compile(r"^((?:The |An? |His |Her |Its |Their |This |These )?(?:[\w'’\-]+ ){0,5}?[\w'’\-]+) " + AUX + r" (.+)$")
_date = re.compile(r"\b(?:in|on|since|by|until|from|during) ((?:(?:early|late|mid) )?(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November|December)(?: \d{1,2},?)?(?: \d{4})?|\d{4}|the \d{4}s)\b")
_place = re.compile(r"\b(?:in|at|near|from|to) ((?:the )?[A-Z][\w'’\-]+(?:,? (?:of |the )?[A-Z][\w'’\-]+)*)")
_num = re.compile(r"\b(\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|hundred) ((?:[a-z\-]+ ){0,2}[a-z\-]+s)\b")
_ent = re.compile(r"\b([A-Z][\w'’\-]+(?: (?:of |the |de |von )?[A-Z][\w'’\-]+)*)")
_paren = re.compile(r"\s*\([^)]*\)")
PRONS = {"He", "She", "It", "They", "This", "These", "There", "His", "Her", "Its", "Their", "In", "On", "At", "After", "However", "When", "While", "As", "For", "By", "From", "With", "Although", "But"}


def low(s, title=""):
    w = s.split(" ")[0]
    return s[0].lower() + s[1:] if w in ("The", "A", "An", "His", "Her", "Its", "Their", "This", "These") else s


def resolve(sent, title):
    """a leading pronoun becomes the article's subject in the question"""
    if title and sent.split(" ")[0] in ("He", "She", "It", "They"):
        return re.sub(r"\s*\(.*\)$", "", title) + sent[sent.index(" "):] if " " in sent else sent
    return sent


def questions(sent, title, rng):
    """-> [(question, answer)]; every answer is a substring of the sentence"""
    out = []
    s = sent.rstrip(".!? ")
    clean = _paren.sub("", s)
    body = resolve(clean, title)
    m = _subj.match(body)
    if m and len(clean) < 260:
        subj, aux, rest = m.groups()
        inv = aux not in ("became", "remained")
        d = _date.search(rest)
        if d:
            r2 = (rest[:d.start()] + rest[d.end():]).strip(" ,")
            wh = "In what year" if re.fullmatch(r"\d{4}", d.group(1)) and rng.random() < 0.4 else "When"
            if inv:
                out.append((f"{wh} {aux} {low(subj)} {r2}?", d.group(1)))
            elif aux == "became":
                out.append((f"{wh} did {low(subj)} become {r2}?", d.group(1)))
        p = _place.search(rest)
        if p and inv and not _date.match(p.group()):
            r2 = (rest[:p.start()] + rest[p.end():]).strip(" ,")
            if len(r2.split()) >= 2:
                out.append((f"Where {aux} {low(subj)} {r2}?", p.group(1)))
        n = _num.search(rest)
        if n:
            pre = rest[:n.start()].strip()
            if inv:
                out.append((f"How many {n.group(2)} {aux} {low(subj)} {pre}?".replace("  ", " ").replace(" ?", "?"), n.group(1)))
        if subj in clean and subj.split(" ")[0] not in PRONS and len(rest) > 15:
            cut = re.split(r", |; | and | but | which ", rest)[0]
            who = "Who" if re.match(r"^[A-Z][a-z]+ [A-Z][a-z]+$", subj) and rng.random() < 0.7 else "What"
            if len(cut.split()) >= 3:
                out.append((f"{who} {aux if aux != 'were' or who == 'What' else 'were'} {cut}?", subj))
        if aux in ("is", "was", "are", "were") and re.match(r"(an?|the) ", rest):
            obj = re.split(r"[,;]| that | which | who | and | where ", rest)[0]
            if 2 <= len(obj.split()) <= 12 and obj in sent:
                out.append((f"What {aux} {low(subj)}?", obj))
        by = re.search(r"\bby ((?:the )?[A-Z][\w'’\-]+(?: (?:of |the )?[A-Z][\w'’\-]+)*)", rest)
        if by and inv:
            r2 = rest[:by.start()].strip(" ,")
            if len(r2.split()) >= 1:
                out.append((f"By whom {aux} {low(subj)} {r2}?" if rng.random() < 0.4 else f"Who {r2} {low(subj)}?" if aux in ("was", "were") and len(r2.split()) == 1 else f"Who {aux} {low(subj)} {r2} by?", by.group(1)))
    lead = re.match(r"^(In|On|During|After|Since) ([^,]{3,40}), (.+)$", clean)
    if lead and lead.group(3)[0].isalnum():
        rest = resolve(lead.group(3)[0].upper() + lead.group(3)[1:], title)
        m2 = _subj.match(rest)
        if m2 and m2.group(2) not in ("became", "remained"):
            out.append((f"When {m2.group(2)} {low(m2.group(1))} {m2.group(3)}?" if re.search(r"\d", lead.group(2)) else f"{lead.group(1)} what {m2.group(2)} {low(m2.group(1))} {m2.group(3)}?", lead.group(2)))
    # cloze
    cands = [(x.group(1), "what" if rng.random() < 0.6 else "which") for x in _ent.finditer(s) if x.start() > 0] + \
            [(x.group(1), "how many") for x in _num.finditer(s)] + [(x.group(1), "when") for x in _date.finditer(s)]
    if cands:
        a, w = rng.choice(cands)
        i = s.find(a)
        parts = re.split(r"(?<=,) ", resolve(s[:i] + w + s[i + len(a):], title))
        part = next((p for p in parts if w in p.split(" ")), None)
        if part and len(part.split()) >= 5:
            out.append((part.rstrip(",. ") + "?", a))
    out = [(re.sub(r"\s+", " ", q[0].upper() + q[1:]), a.strip()) for q, a in out if q and a]
    return [(q, a) for q, a in out if a in sent and a.lower() not in q.lower() and 4 <= len(q.split()) <= 32]

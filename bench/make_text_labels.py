"""Builds the labelled texts that `ruvllm router classify --train` learns languages, domains and kinds of requests from.

    make_text_labels.py OUT.jsonl --tldr DIR --xquad DIR --trivia FILE --medquad FILE --gsm8k FILE --banking FILE --clinc FILE
                        --squad FILE --dialogues FILE --code FILE

Sources (all public): tldr-pages/tldr (CC-BY 4.0, descriptions in many languages), deepmind/xquad (CC-BY-SA 4.0, the questions that are
not English), OpenTriviaQA (CC-BY-SA 4.0), MedQuAD (CC-BY 4.0), GSM8K's training set (MIT), banking77 (CC-BY 4.0), clinc150
(CC-BY 3.0), SQuAD training articles (CC-BY-SA 4.0), the schema-guided dialogues (CC-BY-SA 4.0), MBPP prompts (CC-BY 4.0).
Files are JSON Lines (one text column as each source names it), plain or packed by zstd. Kinds of requests that no set labels
(creative, transform) are written by pattern below: verbs and objects are drawn, so that the classifier learns the verbs."""
import argparse
import io
import json
import pathlib
import random
import re
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("out")
for name in "tldr xquad trivia medquad gsm8k banking clinc squad dialogues code".split():
    parser.add_argument("--" + name)
args = parser.parse_args()
rng = random.Random(1)
rows = []


def lines(path):
    data = pathlib.Path(path).read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    return io.StringIO(data.decode("utf-8", "replace"))


def load(path):
    return [json.loads(line) for line in lines(path) if line.strip()]


def add(text, **labels):
    text = " ".join(text.split())
    if 3 <= len(text) <= 1500:
        rows.append({"text": text, **labels})


def sample(items, n):
    items = list(items)
    rng.shuffle(items)
    return items[:n]


LANGUAGES = {"de": "de", "fr": "fr", "es": "es", "it": "it", "pt_BR": "pt", "pt_PT": "pt", "zh": "zh", "zh_TW": "zh", "nl": "other", "pl": "other",
             "ru": "other", "tr": "other", "ja": "other", "ko": "other", "sv": "other", "da": "other", "id": "other", "uk": "other", "ar": "other",
             "ro": "other", "cs": "other", "en": "en"}
if args.tldr:
    for folder, language in LANGUAGES.items():
        texts = []
        root = pathlib.Path(args.tldr) / ("pages" if folder == "en" else "pages." + folder)
        for page in sorted(root.rglob("*.md")):
            for line in page.read_text().splitlines():
                match = re.match(r"^[->] (.*)", line)
                if match and "http" not in line and "tldr" not in line:
                    texts.append(re.sub(r"`[^`]*`", "", match.group(1)).rstrip(":. "))
        for text in sample(set(texts), 300 if language == "other" else 1500):
            add(text, language=language)
if args.xquad:
    for code in "de es zh ru tr ar el hi ro th vi".split():
        data = json.loads((pathlib.Path(args.xquad) / f"xquad.{code}.json").read_text())["data"]
        questions = [q["question"] for a in data for p in a["paragraphs"] for q in p["qas"]]
        for text in sample(questions, 1000 if code in LANGUAGES and LANGUAGES[code] != "other" else 150):
            add(text, language=code if code in ("de", "es", "zh") else "other", type="factual")
if args.squad:
    for row in sample(load(args.squad), 3000):
        add(row["question"], language="en", type="factual")

TRIVIA = {"animals": "animals", "science-technology": "science", "history": "history", "geography": "geography", "world": "geography",
          "literature": "literature", "movies": "film-tv", "television": "film-tv", "music": "music", "sports": "sports", "video-games": "games",
          "religion-faith": "religion", "celebrities": "people", "people": "people", "hobbies": "everyday"}
if args.trivia:
    by_domain = {}
    for row in load(args.trivia):
        if row["category"] in TRIVIA:
            by_domain.setdefault(TRIVIA[row["category"]], []).append(row["question"])
    for domain, texts in by_domain.items():
        for text in sample(set(texts), 1800):
            add(text, language="en", domain=domain, type="factual")
if args.medquad:
    for row in sample(load(args.medquad), 2500):
        add(row["question"], language="en", domain="medicine", type="factual")
        if rng.random() < 0.5:
            add(" ".join(row["answer"].split()[:40]), language="en", domain="medicine")
if args.gsm8k:
    for row in sample(load(args.gsm8k), 2000):
        add(row.get("question") or row.get("prompt"), language="en", domain="mathematics", type="reasoning")
if args.banking:
    for row in sample(load(args.banking), 1800):
        add(row["text"], language="en", domain="finance", type="conversational")
FINANCE = re.compile("account|balance|bill|bank|credit|interest|transfer|transaction|pin_|tax|income|spending|pay|w2|apr|routing|rollover|401")
CHAT = re.compile("greeting|goodbye|thank|are_you|who_|how_old|what_is_your|do_you|where_are|tell_joke|fun_fact|meaning|maybe|yes|no$|repeat|cancel|user_name|change_ai|what_are|what_can|sync|change_")
if args.clinc:
    for row in load(args.clinc):
        if row["intent"] == "oos" or rng.random() > 0.25:
            continue
        domain = "finance" if FINANCE.search(row["intent"]) else "everyday"
        add(row["text"], language="en", domain=domain, type="conversational")
if args.dialogues:
    turns = [re.sub(r"^[^:]{1,20}: ", "", l.strip()) for l in lines(args.dialogues) if ":" in l[:20]]
    for text in sample([t for t in turns if 15 < len(t) < 200], 1500):
        add(text, language="en", type="conversational")
if args.code:
    for row in load(args.code):
        text = row.get("prompt") or row.get("text") or row.get("question") or ""
        if isinstance(text, str):
            add(text[:400], language="en", domain="programming", type="procedural")
if args.tldr:
    texts = []
    for page in sorted((pathlib.Path(args.tldr) / "pages").rglob("*.md")):
        for line in page.read_text().splitlines():
            if line.startswith("- "):
                texts.append(re.sub(r"[`{}\[\]]", "", line[2:]).rstrip(":"))
    for text in sample(set(texts), 2500):
        how = rng.choice(["how do I {}", "how to {}", "{}", "command to {}", "what is the command to {}?", "show me how to {}"])
        add(how.format(text[0].lower() + text[1:]), language="en", domain="programming", type="procedural")

THINGS = ("a lighthouse keeper, the autumn rain, a lost cat, two old friends, a dragon who hates fire, the first day of school, my grandmother's kitchen, "
          "a city under water, a robot gardener, the last train home, a detective on Mars, our new coffee brand, a wedding, a retiring colleague, "
          "winter in the mountains, a startup that sells umbrellas, the sea, forgiveness, a broken clock, time travel, a village baker, jealousy, "
          "a birthday party, football, the moon, a haunted library, working from home, spring, a pirate captain, my dog").split(", ")
CREATE = ("Write a poem about {}|Compose a short story about {}|Invent a slogan for {}|Imagine {} and describe the scene|Tell me a bedtime story about {}|"
          "Write a song about {}|Come up with five names for {}|Draft a funny toast about {}|Make up a legend about {}|Give me a limerick on {}|"
          "Brainstorm ideas for a novel about {}|Write a dialogue between a cat and {}|Create a haiku about {}|Think of a metaphor for {}").split("|")
CHANGE = ("Summarize this text: {}|Summarise in one sentence: {}|Translate into German: {}|Rewrite more politely: {}|Extract all names and dates from: {}|"
          "Shorten this paragraph: {}|Turn this into bullet points: {}|Correct the grammar: {}|Classify the sentiment of: {}|Make a table from: {}|"
          "Give me the key points of the following. {}|Paraphrase: {}|tl;dr of this please: {}|List the people mentioned here: {}").split("|")
if args.squad:
    passages = sample({" ".join(r["context"].split()[:30]) for r in load(args.squad)}, 700)
    for text in passages:
        add(rng.choice(CHANGE).format(text), language="en", type="transform")
for form in CREATE:
    for thing in THINGS:
        add(form.format(thing), language="en", type="creative")
REASON = ("If {a} is older than {b} and {b} is older than {c}, who is the youngest?|{a} has {n} apples, gives {m} to {b}; how many are left?|Why does it follow that {a} must be late if {b} is early?|"
          "{a}, {b} and {c} sit in a row; {a} is not next to {c}. Who sits in the middle?|A train leaves at {n} and another at {m}. When do they meet?|Compare the two plans and decide which one is cheaper after {n} months.|"
          "Prove that the sum of {n} odd numbers is odd.|What would happen if {a} paid {n} percent less every year for {m} years?").split("|")
NAMES = "Anna Ben Carla David Emma Farid Grace Hugo Ines Jonas Kira Liam".split()
for form in REASON:
    for _ in range(60):
        a, b, c = rng.sample(NAMES, 3)
        add(form.format(a=a, b=b, c=c, n=rng.randint(2, 90), m=rng.randint(2, 40)), language="en", domain="mathematics", type="reasoning")

rng.shuffle(rows)
with open(args.out, "w") as out:
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
print(len(rows), "texts")

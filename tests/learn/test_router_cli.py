"""ruvllm router and ruvllm agent through the program itself: classify, collect (interrupted and resumed), train, eval, bench, ask, status,
refine; route, teach, outcome, list, forget over restarts."""
import json
import pathlib
import subprocess
import sys
import tempfile

program, source = sys.argv[1], pathlib.Path(sys.argv[2])
models = source / "models"
faults = []


def run(*arguments, code=0):
    result = subprocess.run([program, *map(str, arguments), "--models-dir", str(models), "--data-dir", str(work / "data")], capture_output=True, text=True)
    if result.returncode != code:
        faults.append(f"{' '.join(map(str, arguments))}: exit {result.returncode}, expected {code}\n{result.stdout[-400:]}{result.stderr[-400:]}")
    return result


def as_json(*arguments):
    result = run(*arguments, "--json", "-q")
    try:
        return json.loads(result.stdout)
    except ValueError:
        faults.append(f"{' '.join(map(str, arguments))}: no JSON: {result.stdout[:300]}")
        return {}


def check(what, value):
    if not value:
        faults.append(what)


with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    # classifiers
    labels = work / "labels.jsonl"
    rows = [{"text": "Wer ist der Mann dort", "language": "de"}, {"text": "Who is the man there", "language": "en", "type": "factual"},
            {"text": "write a poem about snow", "type": "creative", "language": "en"}, {"text": "guitar and piano songs", "domain": "music"},
            {"text": "goals in the football league", "domain": "sports"}] * 6
    labels.write_text("".join(json.dumps(r | {"text": r["text"] + " " * (i % 3)}) + "\n" for i, r in enumerate(rows)))
    classes = work / "classes.bin"
    as_json("router", "classify", "--train", labels, "-f", classes)
    seen = as_json("router", "classify", "-f", classes, "Wer ist dort")
    check("German is recognized", seen and seen[0]["language"]["class"] == "de")
    labels.write_text('{"text": "x", "language": "klingon"}\n')
    check("a wrong label is named", "klingon" in run("router", "classify", "--train", labels, "-f", work / "no.bin", code=1).stderr)

    # outcomes: eight questions asked of two tiers, stopped in between by asking for fewer at first
    questions = work / "questions.jsonl"
    questions.write_text("".join(json.dumps({"id": f"q{i}", "title": f"t{i}", "context": f"The bridge number {i} was built in {1900 + i} by the town of Aby{i}.",
                                             "question": f"When was bridge number {i} built?", "answers": [str(1900 + i)], "answerable": True}) + "\n" for i in range(8)))
    out = work / "outcomes.jsonl"
    as_json("router", "collect", "--tiers", "s,m", "--classes", classes, "-o", out, "-n", 3, questions)
    check("three outcomes and the head", len(out.read_text().splitlines()) == 4)
    with out.open("a") as f:
        f.write('{"id": "cut off')
    again = as_json("router", "collect", "--tiers", "s,m", "--classes", classes, "-o", out, questions)
    check("five are new", again.get("new") == 5)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    check("every question once", len({r["id"] for r in rows[1:]}) == 8 and len(rows) == 9)
    check("128 features", all(len(r["features"]) == 128 and set(r["tiers"]) == {"s", "m"} for r in rows[1:]))
    check("other tiers are refused", "other tiers" in run("router", "collect", "--tiers", "s", "--classes", classes, "-o", out, questions, code=1).stderr)
    check("too few to train on", "needed" in run("router", "train", "--classes", classes, "-o", work / "r.bin", out, code=1).stderr)

    # training, on more rows made of those
    many = work / "many.jsonl"
    many.write_text(json.dumps(rows[0]) + "\n" + "".join(json.dumps(rows[1 + i % 8] | {"id": f"x{i}", "group": f"g{i % 20}"}) + "\n" for i in range(120)))
    router = work / "router.bin"
    trained = as_json("router", "train", "--classes", classes, "-o", router, many)
    check("four parts", trained.get("train", 0) > 40 and trained.get("test", 0) > 10)
    svg = work / "pareto.svg"
    report = as_json("router", "eval", "--router", router, many, "--svg", svg)
    check("the oracle is right", report["parts"]["unseen articles"]["policies"]["oracle"]["accuracy"] == 1)
    check("the plot is SVG", svg.read_text().startswith("<svg"))
    bench = as_json("router", "bench", "--router", router, "-n", 200)
    check("eight cells", len(bench.get("cells", [])) == 8 and bench["p99_us"] > 0)
    asked = as_json("router", "ask", "--router", router, "--features", "When was bridge 3 built?", "And bridge 4?")
    check("two decisions", len(asked) == 2 and asked[0]["tier"] in ("s", "m") and len(asked[0]["features"]) == 128)
    check("status", as_json("router", "status", "--router", router).get("version") == 1)
    check("nothing to refine", "observations" in run("router", "refine", "--router", router, code=1).stderr)
    check("nothing to roll back", run("router", "rollback", "--router", router, code=1).stderr)
    broken = work / "broken.bin"
    broken.write_bytes(router.read_bytes()[:-7])
    check("damage is named", "damaged" in run("router", "status", "--router", broken, code=1).stderr)
    check("unknown part", "did you mean" in run("router", "colect", code=2).stderr)

    # agents
    routed = as_json("agent", "route", "write unit tests for the parser", "what is the weather in Rome")
    check("a tester's task", routed and routed[0]["choice"]["agent"] == "tester" and not routed[0]["abstains"] and routed[0]["choice"]["reason"])
    check("nobody's task", routed and routed[1]["abstains"])
    as_json("agent", "teach", "translator", "translate the menu into French", "translate this contract into German", "--purpose", "translates")
    routed = as_json("agent", "route", "translate the letter into Spanish")
    check("the new agent is known after a restart", routed and routed[0]["choice"]["agent"] == "translator")
    as_json("agent", "outcome", "tester", "bad", "translate the test names", "--right", "translator")
    agents = {a["agent"]: a for a in as_json("agent", "list")}
    check("counts", len(agents) == 14 and agents["tester"]["bad"] == 1 and agents["translator"]["taught"] == 3)
    check("unknown agent", "there is no agent" in run("agent", "outcome", "nobody", "good", "x", code=1).stderr)
    run("agent", "outcome", "tester", "perhaps", "x", code=2)
    check("bundled ones stay", "bundled" in run("agent", "forget", "tester", code=1).stderr)
    run("agent", "forget", "translator")
    check("forgotten", len(as_json("agent", "list")) == 13)

print("\n".join(faults) or "routers: all as promised")
sys.exit(bool(faults))

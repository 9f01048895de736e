"""Drives `ruvllm memory` as a user does: every action, its JSON, its errors and exit codes.

The tiny encoder's vectors mean nothing; what is checked is everything around them. Usage: test_memory_cli.py RUVLLM SOURCE_DIR
"""
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest

ruvllm, source = map(os.path.abspath, sys.argv[1:3])
encoder = str(pathlib.Path(source) / "tests/data/model/lfm2-encoder.gguf")
work = pathlib.Path(tempfile.mkdtemp(prefix="ruv-memory-cli-"))
env = {k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_", "NO_COLOR"))}
env.update(HOME=str(work), LC_ALL="C.UTF-8")


def run(*args, store="a", stdin="", user=None):
    more = ["--user", user] if user else []
    return subprocess.run([ruvllm, "memory", *map(str, args), "--data-dir", str(work / store), "--encoder", encoder, "--threads", "1", *more],
                          input=stdin, env=env, capture_output=True, text=True, timeout=120, cwd=work)


class Memory(unittest.TestCase):
    def ok(self, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        return done.stdout

    def fails(self, code, says, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        self.assertIn(says, done.stderr)

    def test_life_of_an_entry(self):
        one = self.ok("add", "The backup starts at 02:00 every night.", "--tag", "ops", "--title", "Backups").strip()
        two = self.ok("add", "-", "--type", "concept", "--ttl", "30d", "--meta", '{"a": 1}', stdin="Zebras are striped.\n").strip()
        self.assertRegex(one, r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$")
        hits = json.loads(self.ok("search", "--json", "when does the BACKUP start?"))["hits"]
        self.assertEqual({h["id"] for h in hits}, {one, two})
        hits = json.loads(self.ok("search", "--json", "--mode", "lexical", "zebra's"))["hits"]
        self.assertEqual([h["text"] for h in hits], ["Zebras are striped."])
        self.assertIn("Zebras", self.ok("search", "--mode", "vector", "--type", "Concept", "x"))
        self.assertNotIn("Zebras", self.ok("search", "--tag", "ops", "zebras"))
        listed = json.loads(self.ok("list", "--json"))
        self.assertEqual([n["id"] for n in listed], [two, one])
        self.assertEqual(listed[0]["meta"], {"a": 1})
        self.assertGreater(listed[0]["expires_ms"], listed[0]["created_ms"])
        edge = self.ok("link", one[-8:], two, "--type", "derived", "--weight", "0.5").strip()
        shown = json.loads(self.ok("show", one, "--json"))[0]
        self.assertEqual([(e["id"], e["dst"], e["type"]) for e in shown["edges"]], [(edge, two, "Derived")])
        self.ok("edit", one, "--text", "The backup starts at 03:00.", "--confidence", "0.9")
        self.assertIn("03:00", self.ok("show", one))
        log = json.loads(self.ok("history", one, "--json"))
        self.assertEqual([e["what"] for e in log], ["update", "link", "add"])
        self.assertIn("02:00", log[0]["detail"]["text"])
        self.ok("link", "--remove", edge)
        stats = json.loads(self.ok("stats", "--json"))
        self.assertEqual((stats["nodes"], stats["vectors"], stats["edges"]), (2, 2, 0))
        self.ok("forget", two)
        self.fails(1, "no node", "show", two)
        self.assertNotIn(b"Zebras", b"".join(p.read_bytes() for p in (work / "a").iterdir()))

    def test_scopes(self):
        hers = self.ok("add", "ann's secret", store="s", user="ann").strip()
        self.ok("add", "for everybody", store="s")
        self.assertEqual(len(json.loads(self.ok("list", "--json", store="s"))), 1)
        self.assertEqual(len(json.loads(self.ok("list", "--json", store="s", user="ann"))), 2)
        self.assertEqual(len(json.loads(self.ok("search", "secret", "--json", store="s", user="bob"))["hits"]), 1)
        self.assertEqual(len(json.loads(self.ok("list", "--json", "--all-scopes", store="s"))), 2)
        for words in (["show"], ["forget"], ["edit", "--domain", "x"]):
            self.fails(1, "no node", *words, hers, store="s", user="bob")
            self.fails(1, "no node", *words, hers[-12:], store="s", user="bob")
        self.assertIn("ann's secret", self.ok("show", hers, store="s", user="ann"))
        self.assertIn("ann's secret", self.ok("show", hers, store="s"))
        self.ok("forget", hers, store="s", user="ann")

    def test_moving_house(self):
        for i in range(5):
            self.ok("add", f"fact number {i} \u2013 \u00fcnicode", store="m")
        self.ok("export", "out.jsonl", store="m")
        self.ok("import", "out.jsonl", store="m2")
        self.ok("import", "out.jsonl", store="m2")  # again: nothing doubled
        self.assertEqual(self.ok("export", store="m2"), (work / "out.jsonl").read_text())
        self.fails(1, "line 1", "import", "-", store="m2", stdin="nonsense\n")
        self.fails(1, "cannot open", "import", "none.jsonl", store="m2")
        (work / "m3").mkdir()
        self.ok("backup", str(work / "m3/memory.db"), store="m")
        self.assertEqual(self.ok("export", store="m3"), (work / "out.jsonl").read_text())
        self.assertEqual(json.loads(self.ok("reembed", "--all", "--json", store="m3")), {"embedded": 5})
        self.ok("compact", store="m3")

    def test_verify(self):
        self.ok("add", "whole", store="v")
        self.assertIn("0 problems", self.ok("verify", store="v"))
        with sqlite3.connect(work / "v/memory.db") as db:
            db.execute("UPDATE vectors SET data=zeroblob(length(data))")
        db.close()
        self.assertEqual(run("verify", store="v").returncode, 1)
        self.ok("verify", "--repair", store="v")
        self.assertIn("1 texts embedded", self.ok("reembed", store="v"))
        self.assertIn("0 problems", self.ok("verify", store="v"))

    def test_wrong_usage(self):
        self.fails(1, "no memory", "list", store="none")
        self.fails(2, "did you mean 'search'", "serch")
        self.ok("add", "x", store="w")
        self.fails(2, "at least 1", "search", "x", "--top", "0", store="w")
        self.fails(1, "QAPair", "add", "x", "--type", "moon", store="w")
        self.fails(1, "time to live", "add", "x", "--ttl", "soon", store="w")
        self.fails(1, "not JSON", "add", "x", "--meta", "{", store="w")
        self.fails(1, "empty", "add", "", store="w")
        self.fails(1, "not an id", "show", "nothing", store="w")
        self.fails(2, "", "forget", store="w")
        self.fails(2, "", "link", "abcd", store="w")
        self.fails(1, "not been remembered", "forget", "--source", "nowhere", store="w")
        self.assertEqual(subprocess.run([ruvllm, "memory", "--help"], capture_output=True).returncode, 0)
        self.assertEqual(subprocess.run([ruvllm, "memory"], capture_output=True).returncode, 2)


if __name__ == "__main__":
    try:
        unittest.main(argv=sys.argv[:1])
    finally:
        shutil.rmtree(work, ignore_errors=True)

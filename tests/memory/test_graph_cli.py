"""`remember` draws the edges that passages imply; `ruvllm memory graph` weave, status, learn, rollback, train and `eval retrieval --graph`
as a user calls them. The tiny encoder's vectors mean nothing; what is checked is everything around them.
Usage: test_graph_cli.py RUVLLM SOURCE_DIR"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ruvllm, source = map(os.path.abspath, sys.argv[1:3])
encoder = str(pathlib.Path(source) / "tests/data/model/lfm2-encoder.gguf")
work = pathlib.Path(tempfile.mkdtemp(prefix="ruv-graph-cli-"))
env = {k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_", "NO_COLOR"))}
env.update(HOME=str(work), LC_ALL="C.UTF-8")
common = ["--encoder", encoder, "--models-dir", str(pathlib.Path(source) / "models"), "--threads", "1"]


def run(*args, data="a"):
    return subprocess.run([ruvllm, *map(str, args), "--data-dir", str(work / data), *common], env=env, capture_output=True, text=True,
                          timeout=120, cwd=work)


class Graph(unittest.TestCase):
    def ok(self, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        return done.stdout

    def test_edges_of_what_is_remembered(self):
        notes = work / "notes"
        notes.mkdir()
        (notes / "kestrel.md").write_text("# Kestrel Bridge\n\nIt was built by Ada Moreau in 1901.\n")
        (notes / "ada.md").write_text("# Ada Moreau\n\nAn engineer from Lyon. She studied steel.\n\n## Prizes\n\nShe won two.\n")
        self.ok("remember", notes)
        stats = json.loads(self.ok("memory", "stats", "--json"))
        self.assertGreaterEqual(stats["edges"], 2, stats)
        again = json.loads(self.ok("memory", "graph", "weave", "--json", "--same-topic", "2"))
        self.assertEqual(sum(again["added"].values()), 0)
        bridge = [n for n in json.loads(self.ok("memory", "list", "--json")) if "1901" in n["text"]][0]["id"]
        graph = json.loads(self.ok("memory", "graph", bridge, "--json", "--hops", "1"))
        self.assertIn("Cites", [e["type"] for e in graph["edges"]])
        # Without the setting no edges are drawn.
        self.ok("remember", notes, "--graph-attention", "off", data="b")
        self.assertEqual(json.loads(self.ok("memory", "stats", "--json", data="b"))["edges"], 0)
        dry = json.loads(self.ok("memory", "graph", "weave", "--dry-run", "--json", data="b"))
        self.assertGreaterEqual(dry["added"]["Cites"], 1)
        self.assertEqual(json.loads(self.ok("memory", "stats", "--json", data="b"))["edges"], 0)

    def test_parameters_of_another_encoder_are_not_used(self):
        # The bundled ones belong to the bundled encoder.
        status = json.loads(self.ok("memory", "graph", "status", "--json", data="c"))
        self.assertFalse(status["used"])
        self.assertIn("encoder", status["why"])
        done = run("memory", "graph", "learn", data="c")
        self.assertEqual(done.returncode, 1)
        self.assertIn("0 of 0 kept answers", done.stderr)
        done = run("memory", "graph", "rollback", "--version", "3", data="c")
        self.assertEqual(done.returncode, 1)
        self.ok("memory", "graph", "rollback", data="c")

    def test_training_and_its_file(self):
        rows = []
        for i in range(24):
            rows.append({"question": f"Who built tower number {i}?", "answers": ["x"], "answerable": True, "title": f"Tower {i}",
                         "context": f"Tower {i} was built by Builder {i}.",
                         "evidence": [{"title": f"Builder {i}", "text": f"The person of the name lived in town {i}."}]})
        data = work / "towers.jsonl"
        data.write_text("".join(json.dumps(r) + "\n" for r in rows))
        out = work / "graph.bin"
        text = self.ok("memory", "graph", "train", data, "--epochs", "2", "--hidden", "16", "--layers", "1", "--projected", "4", "-o", out)
        self.assertIn("gate:", text)
        (work / "d" / "graph").mkdir(parents=True)
        live = work / "d" / "graph" / "attention.bin"
        shutil.copy(out, live)
        status = json.loads(self.ok("memory", "graph", "status", "--json", data="d"))
        self.assertTrue(status["own"])
        measured = json.loads(self.ok("eval", "retrieval", "--graph", data, "--json", data="d"))
        self.assertEqual(measured["questions"], 24)
        self.assertEqual(set(measured["rankings"]), {"hybrid", "hybrid + graph", "edges rewired"})
        # A damaged file is said, not passed over.
        bytes_ = bytearray(live.read_bytes())
        bytes_[len(bytes_) // 2] ^= 4
        live.write_bytes(bytes_)
        done = run("memory", "graph", "status", data="d")
        self.assertEqual(done.returncode, 1)
        self.assertIn("attention.bin", done.stderr)


if __name__ == "__main__":
    try:
        unittest.main(argv=sys.argv[:1])
    finally:
        shutil.rmtree(work, ignore_errors=True)

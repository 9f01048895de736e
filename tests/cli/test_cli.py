"""Drives the ruvllm program as a user does: help, errors, configuration, remembering, asking, chatting, Ctrl-C.

Answers of the tiny random models mean nothing; everything around them is checked. With the bundled models in models/ a round trip also
checks an answer. Usage: test_cli.py RUVLLM MAKE_ENDLESS SOURCE_DIR
"""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ruvllm, make_endless, source = map(os.path.abspath, sys.argv[1:4])
models = pathlib.Path(source) / "tests/data/model"
work = pathlib.Path(tempfile.mkdtemp(prefix="ruv-cli-"))
env = {k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_", "NO_COLOR"))}
env.update(HOME=str(work / "home"), TERM="xterm", LC_ALL="C.UTF-8")
(work / "home").mkdir()
generator, encoder = str(models / "lfm2.gguf"), str(models / "lfm2-encoder.gguf")
tiny = ["--model", generator, "--encoder", encoder, "--threads", "1", "--chunk-tokens", "64", "--max-tokens", "12", "--temperature", "0"]
patience = 120  # seconds; nothing passes or fails by being fast


def run(*args, stdin="", **more):
    return subprocess.run([ruvllm, *map(str, args)], input=stdin, env={**env, **more}, capture_output=True, text=True, errors="replace",
                          timeout=patience, cwd=work)


def data(name):
    return ["--data-dir", str(work / name), *tiny]


def put(path, text):
    path = work / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Help(unittest.TestCase):
    def commands(self):
        return re.findall(r"^  (\w+)  +\S", run("--help").stdout, re.M)

    def test_every_command_has_help(self):
        commands = self.commands()
        for name in ("ask", "chat", "remember", "config", "doctor", "version"):
            self.assertIn(name, commands)
        for name in commands:
            for form in ([name, "--help"], ["help", name]):
                r = run(*form)
                self.assertEqual(r.returncode, 0, form)
                self.assertIn(f"ruvllm {name}", r.stdout)
                self.assertNotIn("\033", r.stdout)
                self.assertEqual(r.stderr, "")

    def test_help_lists_the_keys_a_command_uses(self):
        every = set(re.findall(r"^      --([\w-]+)", run("config", "--help").stdout, re.M))
        self.assertLessEqual({"port", "hub", "max-tokens", "chunk-tokens", "sources", "user"}, every)
        for name, has, lacks in (("ask", {"max-tokens", "sources", "user", "model"}, {"port", "hub", "chunk-tokens", "max-running"}),
                                 ("serve", {"port", "otlp-endpoint", "max-running", "drain-timeout", "chat-memory", "chunk-tokens"}, {"hub"}),
                                 ("remember", {"chunk-tokens", "encoder", "threads"}, {"port", "max-tokens", "model-l"})):
            r = run(name, "--help")
            keys = set(re.findall(r"^      --([\w-]+)", r.stdout, re.M))
            self.assertLessEqual(has, keys)
            self.assertFalse(lacks & keys)
            self.assertIn("ruvllm config --help", r.stdout)

    def test_no_command(self):
        r = run()
        self.assertEqual(r.returncode, 2)
        self.assertIn("Usage:", r.stderr)

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"^ruvllm \d+\.\d+")
        self.assertIn("version", json.loads(run("version", "--json").stdout))


class WrongUsage(unittest.TestCase):
    def check(self, args, *says):
        r = run(*args)
        self.assertEqual(r.returncode, 2, args)
        self.assertEqual(r.stdout, "")
        self.assertEqual(r.stderr.count("\n"), 1, r.stderr)
        for text in says:
            self.assertIn(text, r.stderr)

    def test_one_sentence_each(self):
        self.check(["aks"], "did you mean 'ask'")
        self.check(["zebra"], "ruvllm --help")
        self.check(["ask", "--sorces", "3", "x"], "--sorces", "--sources")
        self.check(["ask", "--sources"], "--sources needs a value")
        self.check(["ask", "--sources", "many", "x"], "many", "whole number")
        self.check(["ask", "--sources", "99", "x"], "0 to 50")
        self.check(["ask", "--kv-type=f8", "x"], "f8", "f16|f32|q8_0")
        self.check(["ask"], "missing", "QUESTION")
        self.check(["ask", "-Z", "x"], "-Z")
        self.check(["ask", "--json=yes", "x"], "takes no value")
        self.check(["remember", "--kind", "pdf", "x"], "text|markdown|html")
        self.check(["version", "x"], "'x'")
        self.check(["config", "contxt"], "did you mean 'context'")

    def test_json_usage_errors_are_json_too(self):
        for words in (["aks", "--json"], ["ask", "--sorces", "3", "x", "--json"], ["ask", "--json"], ["memory", "--json"],
                      ["memory", "lst", "--json"], ["eval", "--json"]):
            r = run(*words)
            self.assertEqual(r.returncode, 2, words)
            self.assertEqual(json.loads(r.stdout)["error"]["code"], "invalid", words)

    def test_json_errors_are_json_too(self):
        r = run("ask", "--json", "--no-memory", "--model", "/nowhere.gguf", "x")
        self.assertEqual(r.returncode, 1)
        self.assertEqual(json.loads(r.stdout)["error"]["code"], "not-found")
        self.assertIn("/nowhere.gguf", r.stderr)


class Configuration(unittest.TestCase):
    def key(self, name, *args, **more):
        return json.loads(run("config", "--json", name, *args, **more).stdout)["keys"][name]

    def test_precedence(self):
        ini = put("a.ini", "# mine\nseed = 3\n")
        self.assertEqual(self.key("seed")["origin"], "default")
        k = self.key("seed", "--config", ini)
        self.assertEqual((k["value"], k["origin"], k["where"]), ("3", "file", f"{ini}:2"))
        self.assertEqual(self.key("seed", "--config", ini, RUVLLM_SEED="4")["value"], "4")
        k = self.key("seed", "--config", ini, "--seed", "5", RUVLLM_SEED="4")
        self.assertEqual((k["value"], k["origin"]), ("5", "flag"))
        self.assertEqual(self.key("context", "--preset", "edge")["origin"], "preset")

    def test_wrong_file(self):
        r = run("config", "--config", put("b.ini", "\nmodle = x\n"))
        self.assertEqual(r.returncode, 1)
        self.assertIn("b.ini:2:", r.stderr)
        self.assertIn("'model'", r.stderr)

    def test_no_gpu(self):
        r = run("ask", "--preset", "server-gpu", "x")
        self.assertEqual(r.returncode, 1)
        self.assertIn("no", r.stderr)
        self.assertIn("server-cpu", r.stderr)


class RememberAndAsk(unittest.TestCase):
    def test_round_trip(self):
        d = data("trip")
        doc = put("docs/backup.md", "# Backups\n\nThe nightly backup starts at 02:00.\n\n# Ports\n\nThe server listens on port 8080.\n")
        put("docs/notes.txt", "The kettle holds two litres.\n")
        r = run("remember", *d, work / "docs")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("2 added", r.stdout)
        again = json.loads(run("remember", *d, "--json", work / "docs").stdout)
        self.assertEqual((again["unchanged"], again["added"], again["passages_embedded"]), (2, 0, 0))
        self.assertEqual({f["outcome"] for f in again["details"]}, {"unchanged"})

        a = json.loads(run("ask", *d, "--json", "When does the nightly backup start?").stdout)
        self.assertEqual(len(a["sources"]), 3)
        first = {s["file"]: s for s in a["sources"] if "backup starts" in s["text"]}
        self.assertEqual(first[str(doc)]["first_line"], 3)
        self.assertEqual(first[str(doc)]["title"], "Backups")
        self.assertEqual(list(a["stages_ms"]), ["embed", "retrieve", "assemble", "prefill", "generate", "cite", "judge"])
        self.assertGreater(a["tokens"]["prompt"], 50)

        manual = (pathlib.Path(source) / "docs/cli.md").read_text()
        for key in [*a, *a["sources"][0], *a["tokens"], *a["stages_ms"], *again, *again["details"][0]]:
            self.assertIn(f"`{key}`", manual)

        (work / "docs/notes.txt").unlink()
        kept = json.loads(run("remember", *d, "--json", "--keep-missing", work / "docs").stdout)
        self.assertEqual((kept["unchanged"], kept["forgotten"]), (1, 0))
        gone = json.loads(run("remember", *d, "--json", work / "docs").stdout)
        self.assertEqual((gone["forgotten"], gone["passages_removed"]), (1, 1))
        self.assertEqual([f["outcome"] for f in gone["details"]], ["unchanged", "forgotten"])
        put("docs/notes.txt", "The kettle holds two litres.\n")
        run("remember", *d, work / "docs")

        r = run("ask", *d, "When does the nightly backup start?")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("docs/backup.md:3", r.stdout)
        self.assertIn("retrieve", r.stdout)
        self.assertNotIn("\033", r.stdout)
        self.assertEqual(r.stdout.split("SOURCES")[0], run("ask", *d, "When does the nightly backup start?").stdout.split("SOURCES")[0])
        r = run("ask", *d, "--only-sources", "-", stdin="kettle")
        self.assertIn("notes.txt:1", r.stdout)

    def test_standard_input(self):
        d = data("stdin")
        r = run("remember", *d, "--json", "--name", "note", "--tag", "x", "-", stdin="The lamp is green.\n")
        self.assertEqual(json.loads(r.stdout)["added"], 1)
        self.assertEqual(json.loads(run("remember", *d, "--json", "--name", "note", "-", stdin="The lamp is green.\n").stdout)["unchanged"], 1)
        self.assertIn("note", run("ask", *d, "--only-sources", "lamp").stdout)
        self.assertEqual(run("remember", *d, "-", stdin="").returncode, 0)

    def test_encodings(self):
        d = data("encodings")
        (work / "enc").mkdir()
        (work / "enc/latin.txt").write_bytes("The café opens at nine.\n".encode("latin-1"))
        (work / "enc/wide.txt").write_bytes("The naïve lamp is green.\n".encode("utf-16"))
        (work / "enc/plain.txt").write_text("Grüße.\n")
        r = run("remember", *d, "--json", work / "enc")
        notes = {pathlib.Path(f["file"]).name: (f["outcome"], f["why"]) for f in json.loads(r.stdout)["details"]}
        self.assertEqual(notes, {"latin.txt": ("added", "read as Windows-1252: it is not UTF-8"), "wide.txt": ("added", "read as UTF-16"),
                                 "plain.txt": ("added", None)})
        self.assertRegex(r.stderr, r"added: .*latin.txt: read as Windows-1252")
        texts = [s["text"] for s in json.loads(run("ask", *d, "--json", "café lamp").stdout)["sources"]]
        self.assertEqual(sorted(texts), ["Grüße.", "The café opens at nine.", "The naïve lamp is green."])

    def test_a_drawn_seed_can_be_given_back(self):
        d = data("seed")
        d[d.index("0")] = "1.5"
        for _ in range(6):
            first = json.loads(run("ask", *d, "--no-memory", "--json", "Hello").stdout)
            self.assertGreater(first["seed"], 0)
            again = run("ask", *d, "--no-memory", "--json", "--seed", first["seed"], "Hello")
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertEqual(json.loads(again.stdout)["text"], first["text"])

    def test_question_too_long_for_the_encoder(self):
        d = data("long")
        put("long.txt", "The kettle holds two litres.\n")
        self.assertEqual(run("remember", *d, work / "long.txt").returncode, 0)
        for words in (("ask", *d, "--only-sources"), ("memory", "search", *d)):
            r = run(*words, "kettle " * 5000)
            self.assertEqual(r.returncode, 1)
            self.assertRegex(r.stderr, r"the question has \d+ tokens, but the encoder .* takes at most \d+; ask a shorter question")
            self.assertNotIn("--context", r.stderr)

    def test_nothing_remembered(self):
        r = run("ask", *data("empty"), "Anything?")
        self.assertEqual(r.returncode, 1)
        self.assertIn("ruvllm remember", r.stderr)
        self.assertEqual(run("ask", *data("empty"), "--no-memory", "Anything?").returncode, 0)

    def test_what_cannot_be_read(self):
        r = run("remember", *data("broken"), "/nowhere")
        self.assertEqual(r.returncode, 1)
        self.assertIn("/nowhere", r.stderr)
        r = run("ask", *data("broken"), " ")
        self.assertEqual(r.returncode, 1)
        self.assertIn("empty", r.stderr)

    def test_another_encoder_is_refused(self):
        d = data("trip2")
        put("one.txt", "One fact.\n")
        self.assertEqual(run("remember", *d, work / "one.txt").returncode, 0)
        other = d.copy()
        copy = work / "other-encoder.gguf"
        raw = pathlib.Path(encoder).read_bytes().replace(b"fixture lfm2-encoder", b"another lfm2-encoder")
        copy.write_bytes(raw)
        other[other.index(encoder)] = str(copy)
        r = run("ask", *other, "fact?")
        self.assertEqual(r.returncode, 1)
        self.assertIn("encoder", r.stderr)

    def interrupted(self, name, how):
        """stopped in the middle of 400 files, the second run finishes and nothing is lost or doubled"""
        for i in range(400):
            put(f"{name}-files/{i:03}.txt", f"File number {i} holds this sentence.\n" * 3)
        d = data(name)
        p = subprocess.Popen([ruvllm, "remember", *d, "--verbose", str(work / f"{name}-files")], env=env, cwd=work, stderr=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, text=True)
        seen = 0
        for line in p.stderr:
            seen += line.startswith("added")
            if seen == 20:
                p.send_signal(how)
                break
        p.stderr.read()
        code = p.wait(patience)
        p.stderr.close()
        r = json.loads(run("remember", *d, "--json", work / f"{name}-files").stdout)
        self.assertGreaterEqual(r["unchanged"], 20)
        self.assertEqual(r["unchanged"] + r["added"], 400)
        self.assertEqual(json.loads(run("remember", *d, "--json", work / f"{name}-files").stdout)["unchanged"], 400)
        return code

    def test_interrupted_by_ctrl_c(self):
        self.assertEqual(self.interrupted("sigint", signal.SIGINT), 130)

    def test_killed(self):
        self.assertEqual(self.interrupted("sigkill", signal.SIGKILL), -signal.SIGKILL)


class Doctor(unittest.TestCase):
    def test_findings(self):
        r = run("doctor", *data("doctor"), "--json")
        d = json.loads(r.stdout)
        self.assertEqual(r.returncode, 0, r.stdout)
        self.assertEqual(d["problems"], 0)
        self.assertIn("cpu", {f["about"] for f in d["findings"]})
        r = run("doctor", "--model", "/nowhere.gguf", "--encoder", encoder)
        self.assertEqual(r.returncode, 1)
        self.assertIn("/nowhere.gguf", r.stdout)


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *args):
        self.seen = ""
        try:
            self.pid, self.fd = pty.fork()
        except OSError as e:  # a bare chroot has no /dev/pts
            raise unittest.SkipTest(f"no terminal can be made here: {e}") from e
        if self.pid == 0:
            try:
                os.chdir(work)
                os.execve(ruvllm, [ruvllm, *map(str, args)], env)
            finally:
                os._exit(127)

    def send(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern):
        """waits until the output after the last match matches"""
        end = time.monotonic() + patience
        while not (m := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            try:
                chunk = os.read(self.fd, 65536) if ready else b""
            except OSError:
                chunk = b""
            if not chunk:
                self.close(signal.SIGKILL)
                raise AssertionError(f"no {pattern!r} in {self.seen[-2000:]!r}")
            self.seen += chunk.decode(errors="replace")
        self.seen = self.seen[m.end():]
        return m

    def close(self, number=None):
        if number:
            os.kill(self.pid, number)
        while True:  # let it write what it still has to say
            ready, _, _ = select.select([self.fd], [], [], patience)
            try:
                if not ready:
                    break
                rest = os.read(self.fd, 65536)
                self.seen += rest.decode(errors="replace")
                if not rest:
                    break
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.endless = str(work / "endless.gguf")
        subprocess.run([make_endless, generator, cls.endless], check=True)

    def slow(self, name):
        d = data(name)
        d[d.index(generator)] = self.endless
        d[d.index("12")] = "900000"
        return [*d, "--context", "1000000", "--kv-type", "f16", "--seed", "1"]

    def test_pipe(self):
        d = data("pipe")
        put("kettle.txt", "The kettle holds two litres.\n")
        r = run("chat", *d, stdin=f"/remember {work}/kettle.txt\n/remember The lamp is green.\nHow much does the kettle hold?\n/sources\n"
                "/memory\n/memory lamp\n/nonsense\n/sorces\n/save t.md\n/clear\n/memory off\nHello\n/quit\nnever read\n")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(r.stdout.count("Remembered: 1 passage added"), 2)
        self.assertIn("SOURCES", r.stdout)
        self.assertIn("The kettle holds two litres.", r.stdout)
        self.assertIn("2 passages from 2 sources", r.stdout)
        self.assertIn("/help", r.stdout)
        self.assertIn("did you mean /sources?", r.stdout)
        self.assertIn("messages saved to t.md", r.stdout)
        self.assertTrue((work / "t.md").exists())

    def test_pipe_json(self):
        r = run("chat", *data("pipejson"), "--no-memory", "--json", stdin="Hello\nAnd you?\n")
        lines = [json.loads(line) for line in r.stdout.splitlines()]
        self.assertEqual([line["question"] for line in lines], ["Hello", "And you?"])
        self.assertGreater(lines[1]["tokens"]["kept"], 5)

    def test_terminal(self):
        t = Terminal("chat", *data("tty"), "--no-memory")
        t.expect(r"/help lists")
        t.expect(r"> ")
        t.send("/he\t\n")
        t.expect(r"/sources")
        t.expect(r"> ")
        t.send("half a line\x03")
        t.expect(r"/quit or Ctrl-D")
        t.send("/model\n")
        t.expect(r"fixture lfm2")
        t.expect(r"> ")
        t.send("\x04")
        self.assertEqual(t.close(), 0)
        history = work / "tty" / "chat_history"
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)

    def test_ctrl_c_stops_the_answer_and_stays(self):
        t = Terminal("chat", *self.slow("slow"), "--no-memory")
        t.expect(r"> ")
        t.send("Talk\n")
        t.expect(r"(?s)Talk.{100}")
        t.send("\x03")
        t.expect(r"Stopped\.")
        t.expect(r"> ")
        t.send("/model\n")
        t.expect(r"context \d+ of 1000000 tokens used")
        t.expect(r"> ")
        t.send("Again\n")
        t.expect(r"(?s)Again.{100}")
        t.send("\x03")
        t.expect(r"Stopped\.")
        t.expect(r"> ")
        t.send("/quit\n")
        self.assertEqual(t.close(), 0, t.seen[-600:])

    def test_ctrl_c_ends_ask(self):
        p = subprocess.Popen([ruvllm, "ask", *self.slow("slowask"), "--no-memory", "Talk"], env=env, cwd=work, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.assertTrue(p.stdout.read(50))
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=patience)
        self.assertEqual(p.returncode, 130, err)
        self.assertIn(b"Stopped.", out)

    def test_closed_pipe(self):
        with open("/dev/full", "w") as full:
            p = subprocess.run([ruvllm, "version"], env=env, cwd=work, stdout=full, stderr=subprocess.PIPE, timeout=patience)
        self.assertIn(b"could not be written", p.stderr)
        self.assertEqual(p.returncode, 1)


@unittest.skipUnless(list((pathlib.Path(source) / "models").glob("*encoder*.gguf")), "the bundled models are not in models/")
class Bundled(unittest.TestCase):
    """The first command's way, on the models that ship."""

    def test_answer_with_its_source(self):
        d = ["--data-dir", str(work / "bundled"), "--models-dir", str(pathlib.Path(source) / "models")]
        put("bundled.md", "# Backups\n\nThe nightly backup starts at 02:00.\n\n# Ports\n\nThe server listens on port 8080.\n")
        self.assertEqual(run("remember", *d, work / "bundled.md").returncode, 0)
        a = json.loads(run("ask", *d, "--json", "When does the nightly backup start?").stdout)
        self.assertIn("02:00", a["answer"])
        self.assertEqual(a["citations"][0]["line"], 3)
        self.assertTrue(a["citations"][0]["verbatim"])


class Form(unittest.TestCase):
    """Answers held to a grammar or schema, and drafts."""

    def text(self, *args, command="ask"):
        args = [command, "--no-memory", "--json", *args, *data("form")]
        result = run(*args, "Is tea hot?") if command == "ask" else run(*args, stdin="Is tea hot?\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["answer"]

    def test_grammar_and_schema(self):
        grammar, schema = put("answers.gbnf", 'root ::= "yes" | "no"\n'), put("answers.json", '{"enum": ["tea", 7, null]}')
        for command in ("ask", "chat"):
            self.assertIn(self.text("--grammar", grammar, command=command), ("yes", "no"))
            self.assertIn(json.loads(self.text("--json-schema", schema, command=command)), ("tea", 7, None))

    def test_refusals(self):
        grammar, bad = put("answers.gbnf", 'root ::= "yes" | "no"\n'), put("bad.gbnf", "root ::= nothing\n")
        for args, words in ((["--grammar", grammar, "--json-schema", grammar], ("--grammar", "--json-schema")),
                            (["--grammar", bad], ("nothing",)), (["--json-schema", "none.json"], ("none.json",))):
            for command in ("ask", "chat"):
                result = run(command, "--no-memory", *args, *data("form"), *(["x"] if command == "ask" else []), stdin="x\n")
                self.assertNotEqual(result.returncode, 0)
                for word in words:
                    self.assertIn(word, result.stderr)

    def test_a_draft_changes_nothing(self):
        plain = self.text("--kv-type", "f32")
        for draft in (models / "llama.gguf", generator):  # another model, and the generator itself, which is no draft
            self.assertEqual(self.text("--kv-type", "f32", "--draft", draft), plain)
        result = run("ask", "--no-memory", "--draft", "none.gguf", *data("form"), "x")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("none.gguf", result.stderr)


if __name__ == "__main__":
    try:
        unittest.main(argv=sys.argv[:1], verbosity=1)
    finally:
        shutil.rmtree(work, ignore_errors=True)

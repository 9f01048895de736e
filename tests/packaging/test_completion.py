"""The shells complete what --help lists. bash is there always; zsh and fish are asked where they are. Usage: test_completion.py RUVLLM"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ruvllm = os.path.abspath(sys.argv[1])
work = pathlib.Path(tempfile.mkdtemp(prefix="ruv-completion-"))
env = {**{k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_"))}, "HOME": str(work), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def run(*words, **more):
    r = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, cwd=work, **more)
    assert r.returncode == 0 and not r.stderr, (words, r.stderr)
    return r.stdout


def options(*words):
    """All that a page takes: its own options, and every key of the configuration where it takes them (its help lists those that it uses)."""
    text = run(ruvllm, *words, "--help")
    if "\nConfiguration" in text:
        text += run(ruvllm, "config", "--help").partition("\nConfiguration")[2]
    return set(re.findall(r"^  (?:-\w, |    )(--[a-z][a-z0-9-]*)", text, re.M))


commands = re.findall(r"^  (\w+)  +\S", run(ruvllm, "--help"), re.M)
parts = {}
for name in commands:
    text = run(ruvllm, name, "--help")
    if "--help` explains one." in text:
        parts[name] = re.findall(r"^  ([\w-]+)  +\S", text, re.M)
pages = [[c] for c in commands if c not in parts] + [[c, p] for c in parts for p in parts[c]]
for shell in ("bash", "zsh", "fish"):
    (work / f"c.{shell}").write_text(run(ruvllm, "completion", shell))


class Bash(unittest.TestCase):
    def complete_all(self, lines):
        """For each line of words, the last being written: what bash offers."""
        script = "source ./c.bash\ncomplete -p ruvllm >/dev/null || exit 3\n"
        for line in lines:
            words = " ".join("'" + w + "'" for w in ["ruvllm", *line])
            script += f"COMP_WORDS=({words}); COMP_CWORD={len(line)}; COMPREPLY=(); _ruvllm; echo \"${{COMPREPLY[*]}}\"\n"
        return [set(l.split(" ")) - {""} for l in run("bash", "--norc", input=script).split("\n")[:-1]]

    def one(self, *line):
        return self.complete_all([line])[0]

    def test_commands_and_parts(self):
        self.assertEqual(self.one(""), set(commands) | {"help", "--help", "--version"})
        self.assertEqual(self.one("mem"), {"memory"})
        self.assertEqual(self.one("help", "as"), {"ask"})
        for command in parts:
            self.assertEqual(self.one(command, ""), set(parts[command]) | {"--help"})

    def test_options_of_every_page(self):
        for page, offered in zip(pages, self.complete_all([[*p, "--"] for p in pages])):
            self.assertEqual(offered, options(*page), page)

    def test_values(self):
        (work / "model.gguf").touch()
        self.assertEqual(self.one("ask", "--kv-type", ""), {"f16", "f32", "q8_0"})
        self.assertEqual(self.one("ask", "--kv-type", "=", "q"), {"q8_0"})
        self.assertEqual(self.one("remember", "--kind", "m"), {"markdown"})
        self.assertEqual(self.one("memory", "search", "-m", "l"), {"lexical"})
        self.assertLessEqual({"auto", "s", "m", "l", "model.gguf"}, self.one("ask", "--model", ""))
        self.assertEqual(self.one("inspect", "mod"), {"model.gguf"})
        self.assertEqual(self.one("completion", ""), {"bash", "zsh", "fish"})
        self.assertEqual(self.one("ask", "--top-k", ""), set())


@unittest.skipUnless(shutil.which("fish"), "fish is not there")
class Fish(unittest.TestCase):
    def test_it(self):
        (work / "model.gguf").touch()
        said = run("fish", "--no-config", "-c", "source c.fish; for l in 'ruvllm mem' 'ruvllm memory s' 'ruvllm ask --kv-type ' 'ruvllm memory search --to' "
                   "'ruvllm inspect mod'; complete -C $l | string replace -r '\\t.*' ''; echo .; end")
        found = [set(block.split()) for block in said.split(".\n")]
        self.assertEqual(found[:3], [{"memory"}, {p for p in parts["memory"] if p.startswith("s")}, {"f16", "f32", "q8_0"}])
        self.assertIn("--top", found[3])
        self.assertIn("model.gguf", said)


@unittest.skipUnless(shutil.which("zsh"), "zsh is not there")
class Zsh(unittest.TestCase):
    def test_it(self):
        run("zsh", "-f", "-n", "c.zsh")
        # What _arguments is given, without a terminal to complete on: the function runs, and the words are there.
        script = ("_arguments() { print -l -- $@ }\n_describe() { print -l -- ${(P)@[-1]} }\ncompdef() { }\nsource ./c.zsh\n"
                  "words=(ruvllm mem) CURRENT=2; _ruvllm; words=(ruvllm memory s) CURRENT=3; _ruvllm\n"
                  "words=(ruvllm ask --) CURRENT=3; _ruvllm\n")
        said = run("zsh", "-f", input=script)
        for word in [*(c + ":" for c in commands), *(p + ":" for p in parts["memory"]), "--only-sources[", "--kv-type=["]:
            self.assertIn(word, said)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

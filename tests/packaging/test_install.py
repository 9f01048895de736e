"""`cmake --install` into a prefix of its own, and what is there works from there: the program with its bundled models, the library through
pkg-config. Usage: test_install.py CMAKE BUILD_DIR SOURCE_DIR CC [CFLAGS...]"""
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

cmake, build, source, cc, *cflags = sys.argv[1:]
build, source = pathlib.Path(build).resolve(), pathlib.Path(source).resolve()
patience = 240

program = r"""
#include <ruvllm/runtime.h>
#include <stdio.h>
int main(void)
{
	ruv_config *config = NULL;
	ruv_error err = {0};
	if (ruv_config_create(&config, &err) || ruv_config_set(config, "top-k", "7", &err))
		return 1;
	printf("%s %s\n", ruv_version(), ruv_config_value(config, ruv_config_key_find("top-k"), NULL, NULL));
	ruv_config_free(config);
	return 0;
}
"""


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="install-", dir=build))
        cls.prefix = cls.work / "prefix"
        subprocess.run([cmake, "--install", build, "--prefix", cls.prefix], check=True, capture_output=True, timeout=patience)
        # It is moved once, so that nothing can depend on where it was installed.
        cls.prefix = cls.prefix.rename(cls.work / "moved")
        cls.ruvllm = cls.prefix / "bin/ruvllm"
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_"))}
        cls.env.update(HOME=str(cls.work / "home"), LC_ALL="C.UTF-8")
        (cls.work / "home").mkdir()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work)

    def run_it(self, *args, **more):
        r = subprocess.run([self.ruvllm, *args], env=self.env, capture_output=True, text=True, timeout=patience, cwd=self.work / "home",
                           **more)
        self.assertEqual(r.returncode, 0, r.stderr)
        return r.stdout

    def test_the_program_finds_its_models(self):
        note = self.work / "home/note.md"
        note.write_text("# Backup\n\nThe nightly backup starts at 02:30.\n")
        self.run_it("remember", "--quiet", str(note))
        said = json.loads(self.run_it("ask", "--json", "--model", "s", "--max-tokens", "24", "When does the nightly backup start?"))
        self.assertIn("02:30", said["sources"][0]["text"])
        self.assertTrue(said["text"])
        findings = json.loads(self.run_it("doctor", "--json", "--quick"))["findings"]
        for about in ("s", "m", "l", "encoder"):
            text = next(f["text"] for f in findings if f["about"] == about)
            self.assertIn(str(self.prefix / "share/ruvllm/models"), text)

    def test_manual_pages(self):
        commands = re.findall(r"^  (\w+)  +\S", self.run_it("--help"), re.M)
        directory = self.prefix / "share/man/man1"
        self.assertEqual({p.name for p in directory.iterdir()}, {"ruvllm.1.gz"} | {f"ruvllm-{c}.1.gz" for c in commands})
        mandoc = shutil.which("mandoc")
        for page in directory.iterdir():
            text = gzip.decompress(page.read_bytes()).decode()
            command = page.name[:-5].partition("-")[2]
            if command:
                for option in re.findall(r"^  (?:-\w, |    )--([a-z][a-z0-9-]*)", self.run_it(command, "--help").split("\nConfiguration")[0], re.M):
                    self.assertIn("\\-\\-" + option.replace("-", "\\-"), text, page.name)
            if mandoc:
                r = subprocess.run([mandoc, "-T", "lint", "-W", "warning"], input=text, capture_output=True, text=True, timeout=patience)
                self.assertEqual(r.stdout + r.stderr, "", page.name)
        keys = gzip.decompress((directory / "ruvllm-config.1.gz").read_bytes()).decode()
        for key in json.loads(self.run_it("config", "--json"))["keys"]:
            self.assertIn("\\-\\-" + key.replace("-", "\\-") + "\\fR", keys)

    def test_files(self):
        for path in ("share/bash-completion/completions/ruvllm", "share/zsh/site-functions/_ruvllm",
                     "share/fish/vendor_completions.d/ruvllm.fish", "lib/systemd/system/ruvllm.service", "include/ruvllm/runtime.h",
                     "share/ruvllm/models/SHA256SUMS", "share/ruvllm/models/ruvllm-nano-router.bin"):
            self.assertTrue((self.prefix / path).is_file(), path)
        docs = self.prefix / "share/doc/ruvllm"
        for path in ("README.md", "LICENSE", "cli.md", "handbook/01-what-it-is.md", "examples/config.ini", "examples/ruvllm.json"):
            self.assertTrue((docs / path).is_file(), path)
        # The example's keys, once they are uncommented, are keys.
        lines = [l[2:] for l in (docs / "examples/config.ini").read_text().splitlines() if re.match(r"# [a-z-]+ = ", l)]
        seen = {l.split(" =")[0]: l for l in lines}
        ini = self.work / "home/example.ini"
        ini.write_text("\n".join(seen.values()) + "\n")
        self.run_it("config", "--config", str(ini))

    def compile(self, name, *words):
        out = self.work / name
        (self.work / "use.c").write_text(program)
        r = subprocess.run([cc, *cflags, self.work / "use.c", "-o", out, *words], capture_output=True, text=True, timeout=patience)
        self.assertEqual(r.returncode, 0, r.stderr)
        r = subprocess.run([out], env=self.env, capture_output=True, text=True, timeout=patience)
        self.assertEqual(r.returncode, 0, r.stderr)
        version = self.run_it("--version").split()[1]
        self.assertEqual(r.stdout, f"{version} 7\n")

    def test_library(self):
        pc = next(self.prefix.rglob("ruvllm.pc"))

        def ask(*words):
            env = {**self.env, "PKG_CONFIG_PATH": str(pc.parent)}
            return subprocess.run(["pkg-config", *words, "ruvllm"], env=env, check=True, capture_output=True, text=True).stdout.split()

        self.compile("shared", *ask("--cflags", "--libs"), f"-Wl,-rpath,{pc.parent.parent}")
        self.compile("static", *[w if w != "-lruvllm" else "-l:libruvllm.a" for w in ask("--cflags", "--static", "--libs")])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

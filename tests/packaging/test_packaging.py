"""The service unit, the Dockerfile and the dashboard say what is true. Usage: test_packaging.py RUVLLM SOURCE_DIR"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ruvllm, source = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
sys.path.insert(0, str(source / "tests/server"))
from harness import Server  # noqa: E402

patience = 120


class Unit(unittest.TestCase):
    unit = source / "packaging/systemd/ruvllm.service"

    def test_keys_and_commands(self):
        text = self.unit.read_text()
        keys = json.loads(subprocess.run([ruvllm, "config", "--json"], capture_output=True, text=True, check=True).stdout)["keys"]
        names = {k["env"] for k in keys.values()}
        for name in re.findall(r"RUVLLM_\w+", text):
            self.assertIn(name, names)
        command = re.search(r"^ExecStart=ruvllm (\w+)", text, re.M)[1]
        self.assertEqual(subprocess.run([ruvllm, command, "--help"], capture_output=True).returncode, 0)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not there")
    def test_systemd(self):
        with tempfile.TemporaryDirectory() as work:
            unit = pathlib.Path(work) / "ruvllm.service"  # where it is not installed, systemd must be told the program's place
            # The program may lie where a service sees nothing (under /home, /tmp); verify only asks whether it can be run.
            unit.write_text(self.unit.read_text().replace("ExecStart=ruvllm", f"ExecStart={ruvllm}").replace("ExecReload=kill", "ExecReload=/bin/kill"))
            r = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True,
                               timeout=patience)
            mine = [l for l in (r.stdout + r.stderr).splitlines() if "ruvllm" in l]
            self.assertEqual((r.returncode, mine), (0, []), r.stderr)
        r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", self.unit], capture_output=True, text=True,
                           timeout=patience)
        self.assertEqual(r.returncode, 0, r.stdout[-300:])


class Docker(unittest.TestCase):
    text = (source / "packaging/docker/Dockerfile").read_text()

    @unittest.skipUnless(shutil.which("dpkg-query") and "debian" in open("/etc/os-release").read() and "bookworm" in open("/etc/os-release").read(),
                         "this is not the image's Debian")
    def test_the_image_has_every_library(self):
        needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.run(["readelf", "-d", ruvllm], capture_output=True, text=True, check=True).stdout)
        places = dict(re.findall(r"(\S+) => (\S+)", subprocess.run(["ldd", ruvllm], capture_output=True, text=True, check=True).stdout))
        listed = set(re.findall(r"\blib[\w.+-]+", self.text.split("AS build")[1]))
        for library in needed:
            path = places.get(library)
            if not path or re.match(r"(libc|libm|libgcc_s|libasan|libubsan|libtsan|ld-)", library):
                continue
            owner = subprocess.run(["dpkg-query", "-S", os.path.realpath(path)], capture_output=True, text=True)
            self.assertEqual(owner.returncode, 0, library)
            self.assertIn(owner.stdout.split(":")[0], listed, f"{library}: packaging/docker/Dockerfile does not install its package")

    def test_what_it_runs(self):
        entry, command = json.loads(re.search(r"^ENTRYPOINT (.*)", self.text, re.M)[1]), json.loads(re.search(r"^CMD (.*)", self.text, re.M)[1])
        self.assertEqual(entry, ["ruvllm"])
        self.assertEqual(subprocess.run([ruvllm, *command, "--help"], capture_output=True).returncode, 0)
        check = json.loads(re.search(r"^HEALTHCHECK .*CMD (.*)", self.text, re.M)[1])
        models = source / "tests/data/model"
        with Server(ruvllm, "--model", str(models / "lfm2.gguf"), "--encoder", str(models / "lfm2-encoder.gguf"), "--threads", "1") as s:
            for port, code in ((s.port, 0), (1, 1)):
                r = subprocess.run([w.replace("7885", str(port)) for w in check], capture_output=True, timeout=patience)
                self.assertEqual(r.returncode, code, r.stderr)


class Dashboard(unittest.TestCase):
    def test_every_metric_is_exported(self):
        board = json.loads((source / "packaging/grafana/ruvllm.json").read_text())
        named, ids = set(), []
        for panel in board["panels"]:
            ids.append(panel["id"])
            for target in panel.get("targets", []):
                named |= set(re.findall(r"\b((?:ruvllm|process)_\w+)", target["expr"]))
        for variable in board["templating"]["list"]:
            named |= set(re.findall(r"\b((?:ruvllm|process)_\w+)", json.dumps(variable)))
        self.assertEqual(len(ids), len(set(ids)))
        self.assertGreater(len(named), 30)
        models = source / "tests/data/model"
        with Server(ruvllm, "--model", str(models / "lfm2.gguf"), "--encoder", str(models / "lfm2-encoder.gguf"), "--threads", "1",
                    "--max-tokens", "8") as s:
            s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30."}, expect=201)
            s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?"})
            page = s.request("GET", "/metrics")[2].decode()
        exported = set()
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", page, re.M):
            exported |= {name} if kind != "histogram" else {name + "_bucket", name + "_count", name + "_sum"}
        self.assertEqual(named - exported, set())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

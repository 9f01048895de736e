"""Installs the pinned playwright-core (once for a lock file) and drives the page in Chromium against servers of its own: one with two
versions of an adapter to go back to, and one that asks for keys.

usage: run_page.py RUVLLM DIRECTORY [IMAGES]     pictures of the page go to IMAGES when it is given"""
import hashlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent / "server"))
from harness import Server  # noqa: E402

ruvllm, home = sys.argv[1], pathlib.Path(sys.argv[2])
programs = {name: shutil.which(name) for name in ("node", "npm", "chromium")}
for name, found in programs.items():
    if not found:
        sys.exit(f"{name} is missing: scripts/setup.sh test installs it")
digest = hashlib.sha256((here / "package-lock.json").read_bytes()).hexdigest()
stamp = home / "installed"
home.mkdir(parents=True, exist_ok=True)
if not stamp.exists() or stamp.read_text() != digest:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(here / name, home / name)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home, check=True)
    stamp.write_text(digest)
shutil.copy(here / "page.mjs", home / "page.mjs")


def make_versions(data):
    """Two versions of an adapter: a step of the learner's, and put live as it does after a gate, which a test cannot wait for."""
    with Server(ruvllm, "--model", "s", data=data) as s:
        s.json("POST", "/v1/learn/teach", {"question": "What is the door code?", "answer": "4711"})
        end = time.monotonic() + 300
        while not s.json("GET", "/v1/learn")["steps"]:
            assert time.monotonic() < end, "nothing was learned"
            time.sleep(0.1)
    learn = data / "learn/ruvllm-nano-s"
    (learn / "adapters").mkdir(exist_ok=True)
    journal = sqlite3.connect(learn / "learn.db")
    with journal:
        for version in (1, 2):
            shutil.copy(learn / "candidate.gguf", learn / f"adapters/v{version:06}.gguf")
            journal.execute("INSERT INTO event VALUES(NULL, ?, 'published', ?, 1, 1, 0.1, 0.05, 0.15, 0, 0, 0, 1, 0, 8, 0, 'gain')",
                            (1700000000000 + version, version))
        journal.executemany("INSERT OR REPLACE INTO setting VALUES(?, 2)", [("last",), ("live",)])
    journal.close()


KEYS = '{"keys": [{"name": "page", "key": "sk-page-0000", "scopes": ["chat", "read", "write", "learn", "admin"]}]}'
with tempfile.TemporaryDirectory() as place:
    data = pathlib.Path(place)
    make_versions(data)
    with Server(ruvllm, "--model", "s", data=data) as s, Server(ruvllm, "--api-keys", "@/keys.json", files={"keys.json": KEYS}) as keyed:
        s.json("POST", "/v1/memory/remember", {"name": "backup.md", "text": "# Backups\n\nThe nightly backup starts at 02:00 and keeps 14 days.\n\n"
               "# Printing\n\nThe office printer is on the second floor beside the kitchen.\n"}, expect=201)
        environment = {**os.environ, "RUVLLM_URL": f"http://127.0.0.1:{s.port}", "RUVLLM_KEYED_URL": f"http://127.0.0.1:{keyed.port}",
                       "CHROMIUM": programs["chromium"]}
        if len(sys.argv) > 3:
            environment["RUVLLM_IMAGES"] = str(pathlib.Path(sys.argv[3]).resolve())
        run = subprocess.run(["node", "page.mjs"], cwd=home, env=environment)
        s.wait_idle()
sys.exit(run.returncode)

"""Installs the pinned playwright-core (once for a lock file) and drives the page in Chromium against a server of its own.

usage: run_page.py RUVLLM DIRECTORY [IMAGES]     pictures of the page go to IMAGES when it is given"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

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
with Server(ruvllm) as s:
    s.wait_ready()
    s.json("POST", "/v1/memory/remember", {"name": "backup.md", "text": "# Backups\n\nThe nightly backup starts at 02:00 and keeps 14 days.\n\n"
           "# Printing\n\nThe office printer is on the second floor beside the kitchen.\n"}, expect=201)
    environment = {**os.environ, "RUVLLM_URL": f"http://127.0.0.1:{s.port}", "CHROMIUM": programs["chromium"]}
    if len(sys.argv) > 3:
        environment["RUVLLM_IMAGES"] = str(pathlib.Path(sys.argv[3]).resolve())
    run = subprocess.run(["node", "page.mjs"], cwd=home, env=environment)
sys.exit(run.returncode)

"""Installs the pinned npm clients (once for a lock file) and runs every program in clients/ (but check.mjs) against a server of its own.

usage: run_clients.py RUVLLM DIRECTORY [NAME...]     a test sees RUVLLM_URL, RUVLLM_PROGRAM and RUVLLM_DATA_DIR"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

from harness import Server

here = pathlib.Path(__file__).parent / "clients"
ruvllm, home, wanted = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]


def install():
    lock = (here / "package-lock.json").read_bytes()
    stamp, digest = home / "installed", hashlib.sha256(lock).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    for program in ("node", "npm"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: scripts/setup.sh test installs it")
    home.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(here / name, home / name)
    for attempt in range(3):  # a registry may stumble
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home, capture_output=True, text=True)
        if done.returncode == 0:
            stamp.write_text(digest)
            return
        time.sleep(2 + 5 * attempt)
    sys.exit(f"npm ci failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


install()
failed = 0
for file in here.glob("*.mjs"):  # beside node_modules, where imports are looked for
    shutil.copy(file, home / file.name)
for test in sorted(here.glob("*.mjs")):
    if test.name == "check.mjs" or (wanted and test.stem not in wanted):
        continue
    with Server(ruvllm) as s:
        run = subprocess.run(["node", test.name], cwd=home, env={**os.environ, "RUVLLM_URL": f"http://127.0.0.1:{s.port}", "RUVLLM_PROGRAM": ruvllm,
                                                                 "RUVLLM_DATA_DIR": str(s.data)}, capture_output=True, text=True)
        s.wait_idle()
    if run.returncode:
        print(run.stdout[-6000:], run.stderr[-4000:])
        failed += 1
    print(f"{'FAIL' if run.returncode else 'ok  '} {test.name}", flush=True)
sys.exit(1 if failed else 0)

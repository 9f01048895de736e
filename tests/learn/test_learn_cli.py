"""`ruvllm learn` through the program, on a model of a few thousand parameters: every part is a process of its own, so that each one
sees what an earlier one left, as after a restart. What the gate says about a random model is not the point, that it decides is."""
import json
import os
import subprocess
import sys
import tempfile

ruvllm, source = sys.argv[1:3]
model = os.path.join(source, "tests/data/model/lfm2.gguf")
work = tempfile.mkdtemp(prefix="ruv-learn-cli-")
env = dict(os.environ, RUVLLM_DATA_DIR=os.path.join(work, "data"), HOME=work)


def learn(*args, code=0):
    done = subprocess.run([ruvllm, "learn", args[0], "--model", model, *args[1:]], capture_output=True, text=True, env=env)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done


def status():
    return json.loads(learn("status", "--json").stdout)


facts = [("key?", "shed"), ("dog?", "Bruno"), ("wifi?", "k7"), ("car?", "red"), ("cat?", "Mila")]

nothing = learn("status", code=1)
assert "learn teach" in nothing.stderr, nothing.stderr
for _ in range(2):
    for question, answer in facts:
        learn("teach", question, answer)
s = status()
assert s["corrected"] == 10 and s["held_out"] == 2 and s["lessons"] == 8 and s["steps"] == 8, s
assert s["live_version"] == 0 and s["trajectories"] == 10 and not s["paused"], s
learn("train", "--epochs", "2")

gate = learn("gate", "--publish", "--json", code=1)  # two held-out items are too few
said = json.loads(gate.stdout)
assert not said["pass"] and "held-out" in said["why"], said
assert status()["live_version"] == 0
history = json.loads(learn("history", "--json").stdout)
assert history[0]["what"] == "refused" and history[0]["gate"]["why"] == said["why"], history

assert "no version 3" in learn("rollback", "3", code=1).stderr
learn("rollback", "x", code=2)
learn("rollback", "0")
assert "no version is live" in learn("export", os.path.join(work, "out.gguf"), code=1).stderr
assert [e["what"] for e in json.loads(learn("history", "--json").stdout)][:2] == ["rollback", "refused"]

assert "no version 1" in learn("merge", "1", "2", code=1).stderr
learn("merge", "1", code=2)

learn("pause")
assert status()["paused"]
assert "paused" in learn("teach", "more?", "no", code=1).stderr
learn("resume")
assert not status()["paused"]
learn("teach", "more?", "yes")
assert status()["corrected"] == 11
report = json.loads(learn("consolidate", "--json").stdout)
assert report["trajectories"] == 0, report  # without an encoder there are no embeddings to cluster
assert "passes" not in learn("history").stdout
print("ok")

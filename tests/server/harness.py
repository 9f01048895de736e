"""Starts `ruvllm serve` on a free port with a data directory of its own, talks to it, and holds it to ending cleanly.

A server that ends with another code than 0, or that a sanitizer complained about, fails the test that used it."""
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time


class Server:
    def __init__(self, ruvllm, *flags, env=None, files=None, data=None, before=None):
        """files: {name: text} beside the data directory; "@" in a flag is that place. data: another data directory, kept.
        before: called in the server's process before it starts."""
        self.dir = tempfile.TemporaryDirectory(prefix="ruvllm-serve-")
        self.data = pathlib.Path(data or self.dir.name + "/data")
        for name, text in (files or {}).items():
            path = pathlib.Path(self.dir.name) / name
            path.write_text(text)
            path.chmod(0o600)
        flags = [f.replace("@", self.dir.name) for f in flags]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RUVLLM_FUZZ")}  # the tests' own
        environment = {**inherited, "RUVLLM_DATA_DIR": str(self.data), "XDG_CONFIG_HOME": self.dir.name, **(env or {})}
        self.log = open(pathlib.Path(self.dir.name) / "log", "w+")
        self.process = subprocess.Popen([ruvllm, "serve", "--json", "--port", "0", *flags], stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, env=environment, preexec_fn=before)
        text, said = "", {}
        for line in self.process.stdout:  # one JSON object over several lines
            text += line
            try:
                said = json.loads(text)
                break
            except ValueError:
                continue
        if "port" not in said:
            self.process.wait(30)
            self.process.stdout.close()
            raise AssertionError(f"the server did not start:\n{text}\n{self.read_log()}")
        self.port = said["port"]

    def read_log(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def wait_ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, _, _ = self.request("GET", "/readyz")
            if status == 200:
                return self
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s:\n{self.read_log()}")

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def raw(self, timeout=30):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=120):
        connection = self.connect(timeout)
        try:
            data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=None, expect=200):
        status, _, data = self.request(method, path, body, headers)
        assert status == expect, f"{method} {path}: {status} instead of {expect}: {data[:600]!r}"
        return json.loads(data)

    def events(self, path, body, headers=None):
        """The server-sent events of a stream: [(event, data)]."""
        status, _, data = self.request("POST", path, body, headers)
        assert status == 200, f"{path}: {status}: {data[:600]!r}"
        out = []
        for block in data.decode().split("\n\n"):
            name, payload = None, None
            for line in block.split("\n"):
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    payload = line[6:]
            if payload is not None:
                out.append((name, payload if payload == "[DONE]" else json.loads(payload)))
        return out

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        _, _, data = self.request("GET", "/metrics")
        total = 0.0
        for line in data.decode().splitlines():
            if not (line.startswith(name + " ") or line.startswith(name + "{")):
                continue
            if all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_idle(self, seconds=60):
        """No generation is left running or waiting: no slot is stuck."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            busy = self.metric("ruvllm_num_requests_running") + self.metric("ruvllm_num_requests_waiting")
            if busy == 0 and self.metric("ruvllm_http_requests_in_progress") <= 1:
                return
            time.sleep(0.05)
        raise AssertionError(f"still busy after {seconds} s: running {self.metric('ruvllm_num_requests_running')}, waiting "
                             f"{self.metric('ruvllm_num_requests_waiting')}, in progress {self.metric('ruvllm_http_requests_in_progress')}")

    def stop(self, how=signal.SIGTERM, seconds=120):
        self.process.send_signal(how)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {seconds} s:\n{self.read_log()}")
        finally:
            self.process.stdout.close()
        log = self.read_log()
        self.log.close()
        self.dir.cleanup()
        assert code == (-9 if how == signal.SIGKILL else 0), f"exit code {code}:\n{log[-4000:]}"
        assert "Sanitizer" not in log and "runtime error" not in log, log[-8000:]
        return log

    def __enter__(self):
        return self.wait_ready()

    def __exit__(self, kind, value, trace):
        if kind:
            self.process.kill()
            self.process.wait()
            sys.stderr.write(self.read_log()[-4000:])
            self.process.stdout.close()
            self.log.close()
        else:
            self.stop()


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24, **more}


def run(tests):
    """Runs functions by name, all or those named in argv[2:]. argv[1] is the program."""
    ruvllm, wanted = sys.argv[1], sys.argv[2:]
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        began = time.monotonic()
        try:
            test(ruvllm)
            print(f"ok   {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as e:  # noqa: BLE001 - every failure is reported
            failed += 1
            import traceback
            traceback.print_exc()
            print(f"FAIL {test.__name__}: {e}", flush=True)
    sys.exit(1 if failed else 0)


def threads(n, work):
    """work(i) on n threads; the first failure is raised."""
    errors = []

    def guarded(i):
        try:
            work(i)
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    all_threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    if errors:
        raise errors[0]

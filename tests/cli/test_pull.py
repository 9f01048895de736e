"""Drives `ruvllm pull` against a hub of its own on 127.0.0.1 that breaks off, lies and refuses. Usage: test_pull.py RUVLLM SOURCE_DIR"""
import hashlib
import http.server
import json
import os
import pathlib
import signal
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

ruvllm, source = map(os.path.abspath, sys.argv[1:3])
work = pathlib.Path(tempfile.mkdtemp(prefix="ruv-pull-"))
env = {k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_", "HF_", "NO_COLOR")) and "proxy" not in k.lower()}
env.update(HOME=str(work / "home"), TERM="xterm", LC_ALL="C.UTF-8")
(work / "home").mkdir()
patience = 120
model = (pathlib.Path(source) / "tests/data/model/lfm2.gguf").read_bytes()


def split_in_two(data):
    """The same model in two files, as llama.cpp's gguf-split makes them."""
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0]

    def skip_value(kind):
        nonlocal at
        sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
        if kind == 8:
            text()
        elif kind == 9:
            inner, n = take("I"), take("Q")
            for _ in range(n):
                skip_value(inner)
        else:
            at += sizes[kind]

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at]

    assert take("I") == 0x46554747
    version, n_tensors, n_keys = take("I"), take("Q"), take("Q")
    keys_at, alignment = at, 32
    for _ in range(n_keys):
        if text() == b"general.alignment":
            take("I")
            alignment = take("I")
        else:
            skip_value(take("I"))
    keys, tensors = data[keys_at:at], []
    for _ in range(n_tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        tensors.append((name, shape, take("I"), take("Q")))
    start = -(-at // alignment) * alignment
    ends = sorted(t[3] for t in tensors) + [len(data) - start]

    def string(s):
        return struct.pack("<Q", len(s)) + s

    def part(no, some):
        own = string(b"split.no") + struct.pack("<IH", 2, no) + string(b"split.count") + struct.pack("<IH", 2, 2)
        own += string(b"split.tensors.count") + struct.pack("<Ii", 5, n_tensors)
        head, body = b"", b""
        for name, shape, kind, offset in some:
            size = ends[ends.index(offset) + 1] - offset
            body += b"\0" * (-len(body) % alignment)
            head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(body))
            body += data[start + offset:start + offset + size]
        keys_here = keys if no == 0 else (string(b"general.alignment") + struct.pack("<II", 4, alignment))
        out = struct.pack("<IIQQ", 0x46554747, version, len(some), (n_keys if no == 0 else 1) + 3) + keys_here + own + head
        return out + b"\0" * (-len(out) % alignment) + body

    half = len(tensors) // 2
    return part(0, tensors[:half]), part(1, tensors[half:])


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Hub(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """files: {repo: {path: bytes}}; the attributes say how it misbehaves."""
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.listed_sha, self.listed_size = {}, {}, {}
        self.requests = []
        self.break_after = []     # bytes after which the next answers break off
        self.refuse = []          # statuses of the next answers of files
        self.ignore_range = self.no_etag = self.no_sha = self.hang = False
        self.wrong = None         # bytes sent in place of the right ones
        self.redirect = None      # where files lie
        self.token = None         # that is asked for
        self.pages = 0            # entries of the list on one page; 0: all
        self.etag = {}
        self.lock = threading.Lock()
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_address[1]}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that break off


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        hub = self.server
        with hub.lock:
            hub.requests.append((self.path, dict(self.headers)))
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b'{"error":"no"}', X_Error_Message="Access is restricted")
        if path.startswith("/api/models/"):
            return self.list(path, urllib.parse.parse_qs(parts.query))
        pieces = path.strip("/").split("/", 4)
        files = hub.files.get("/".join(pieces[:2]), {})
        if len(pieces) != 5 or pieces[2] != "resolve" or pieces[4] not in files:
            return self.answer(404, b"nothing", X_Error_Message="Entry not found")
        name = pieces[4]
        if hub.refuse:
            return self.answer(hub.refuse.pop(0), b"later", Retry_After="1")
        if hub.redirect:
            return self.answer(302, b"there", Location=hub.redirect + self.path, X_Linked_Etag=f'"{sha(files[name])}"')
        data = hub.wrong if hub.wrong is not None else files[name]
        etag = hub.etag.get(name, f'"{sha(data)[:16]}"')
        first, wanted = 0, self.headers.get("Range")
        if wanted and not hub.ignore_range and self.headers.get("If-Range", etag) == etag:
            first = int(wanted.split("=")[1].split("-")[0])
            if first >= len(data):
                return self.answer(416, b"no such bytes", Content_Range=f"bytes */{len(data)}")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if not hub.no_etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        body = data[first:]
        if hub.break_after:
            self.wfile.write(body[:hub.break_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        if hub.hang:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(60)
            return
        self.wfile.write(body)

    def list(self, path, query):
        hub = self.server
        repo = "/".join(path.split("/")[3:5])
        if repo not in hub.files:
            return self.answer(404, b'{"error":"Repository not found"}', X_Error_Message="Repository not found")
        entries = [{"type": "directory", "path": "sub", "oid": "0"}]
        for name, data in hub.files[repo].items():
            size = hub.listed_size.get(name, len(data))
            entry = {"type": "file", "path": name, "size": size, "oid": "1" * 40}
            if not hub.no_sha:
                entry["lfs"] = {"oid": hub.listed_sha.get(name, sha(data)), "size": size, "pointerSize": 134}
            entries.append(entry)
        headers = {}
        if hub.pages:
            at = int(query.get("cursor", ["0"])[0])
            if at + hub.pages < len(entries):
                headers["Link"] = f'<{hub.address}{path}?recursive=1&cursor={at + hub.pages}>; rel="next"'
            entries = entries[at:at + hub.pages]
        self.answer(200, json.dumps(entries).encode(), Content_Type="application/json", **headers)


class Pull(unittest.TestCase):
    def setUp(self):
        self.hub = Hub()
        self.hub.files["me/tiny-GGUF"] = {"README.md": b"# tiny", "tiny-F32.gguf": model}
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=work))
        self.file = self.dir / "me/tiny-GGUF/tiny-F32.gguf"

    def tearDown(self):
        self.hub.shutdown()
        self.hub.server_close()

    def run_it(self, *args, hub=None, **more):
        return subprocess.run([ruvllm, "pull", "--models-dir", str(self.dir), "--hub", hub or self.hub.address, *map(str, args)],
                              env={**env, **more}, capture_output=True, text=True, errors="replace", timeout=patience, cwd=work)

    def pull(self, *args, **more):
        r = self.run_it("--json", *args, **more)
        self.assertEqual(r.returncode, 0, r.stderr)
        return json.loads(r.stdout)

    def fails(self, says, *args, code=1, **more):
        r = self.run_it(*args, **more)
        self.assertEqual(r.returncode, code, (r.stdout, r.stderr))
        self.assertIn(says, r.stderr)
        return r

    def litter(self):
        return sorted(p.name for p in self.dir.rglob("*") if p.is_file() and p.suffix != ".gguf")

    def file_requests(self):
        return [h for p, h in self.hub.requests if "/resolve/" in p]

    def test_fetches_and_finds(self):
        said = self.pull("me/tiny-GGUF")
        self.assertEqual(self.file.read_bytes(), model)
        self.assertEqual(said["path"], str(self.file))
        self.assertEqual(said["model"], "me/tiny-GGUF:F32")
        self.assertTrue(said["runs"] and said["checked"], said)
        f = said["files"][0]
        self.assertEqual((f["outcome"], f["sha256"], f["bytes"], f["resumed"]), ("fetched", sha(model), len(model), 0))
        self.assertEqual(self.litter(), [])
        for name in ("me/tiny-GGUF", "me/tiny-GGUF:f32", "me/tiny-GGUF:tiny-F32.gguf", "tiny-F32", "tiny-F32.gguf"):
            r = subprocess.run([ruvllm, "ask", "--json", "--no-memory", "--models-dir", self.dir, "--model", name, "--max-tokens", "2", "x"],
                               env=env, capture_output=True, text=True, timeout=patience, cwd=work)
            self.assertEqual(r.returncode, 0, (name, r.stderr))
        n = len(self.file_requests())
        self.assertEqual(self.pull("me/tiny-GGUF:F32")["files"][0]["outcome"], "present")
        self.assertEqual(len(self.file_requests()), n)
        self.file.write_bytes(b"GGUF of another time")
        self.assertEqual(self.pull("me/tiny-GGUF")["files"][0]["outcome"], "replaced")
        self.assertEqual(self.file.read_bytes(), model)

    def test_text_output(self):
        r = self.run_it("me/tiny-GGUF")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn(str(self.file), r.stdout)
        self.assertIn("--model me/tiny-GGUF:F32", r.stdout)

    def test_unknown_local_name(self):
        self.pull("me/tiny-GGUF")
        for name in ("me/tiny-GGUF:Q8_0", "me/other", "tiny"):
            r = subprocess.run([ruvllm, "ask", "--no-memory", "--models-dir", self.dir, "--model", name, "x"], env=env, capture_output=True,
                               text=True, timeout=patience, cwd=work)
            self.assertEqual(r.returncode, 1)
            self.assertIn(name, r.stderr)

    def test_choice(self):
        files = self.hub.files["me/many"] = {f"many-{q}.gguf": model for q in ("Q8_0", "Q4_K_M", "f16", "IQ2_XS")}
        files["mmproj-many-f16.gguf"] = model
        self.assertEqual(self.pull("me/many")["model"], "me/many:Q4_K_M")
        self.assertEqual(self.pull("me/many:q8_0")["model"], "me/many:Q8_0")
        self.assertEqual(self.pull("me/many:many-f16.gguf")["model"], "me/many:F16")
        r = self.fails("has no 'Q5_K_M'", "me/many:Q5_K_M")
        self.assertIn("IQ2_XS, Q4_K_M, Q8_0, F16", r.stderr)
        del files["many-Q4_K_M.gguf"]
        self.assertEqual(self.pull("me/many")["model"], "me/many:Q8_0")
        said = self.pull("--list", "me/many")
        self.assertEqual([(m["type"], m["default"]) for m in said["models"]], [("IQ2_XS", False), ("Q8_0", True), ("F16", False)])
        self.assertIn("the default", self.run_it("--list", "me/many").stdout)
        self.hub.files["me/two"] = {"a-Q4_K_M.gguf": model, "b-Q4_K_M.gguf": model}
        r = self.fails("2 models of type Q4_K_M", "me/two")
        self.assertIn("a-Q4_K_M.gguf, b-Q4_K_M.gguf", r.stderr)
        self.assertEqual(self.pull("me/two:b-Q4_K_M.gguf")["model"], "me/two:b-Q4_K_M.gguf")
        self.hub.files["me/odd"] = {"odd-IQ1_S.gguf": model, "odd-IQ2_S.gguf": model}
        self.fails("none of the usual types", "me/odd")
        self.hub.files["me/none"] = {"model.safetensors": b"x"}
        self.fails("has no GGUF file", "me/none")

    def test_long_list(self):
        self.hub.pages = 2
        self.hub.files["me/many"] = {f"many-{q}.gguf": model for q in ("F16", "Q5_0", "Q5_1", "Q8_0", "Q4_K_M")}
        self.assertEqual(self.pull("me/many")["model"], "me/many:Q4_K_M")

    def test_split(self):
        one, two = split_in_two(model)
        self.hub.files["me/big"] = {"Q4_K_M/big-Q4_K_M-00001-of-00002.gguf": one, "Q4_K_M/big-Q4_K_M-00002-of-00002.gguf": two}
        said = self.pull("me/big")
        self.assertTrue(said["runs"], said)
        self.assertEqual([f["outcome"] for f in said["files"]], ["fetched", "fetched"])
        self.assertTrue(said["path"].endswith("-00001-of-00002.gguf"))
        r = subprocess.run([ruvllm, "inspect", "--json", said["path"]], env=env, capture_output=True, text=True, timeout=patience)
        self.assertEqual(json.loads(r.stdout)["parts"], 2)
        del self.hub.files["me/big"]["Q4_K_M/big-Q4_K_M-00002-of-00002.gguf"]
        self.fails("some are not in me/big", "me/big")

    def test_breaks_off_and_goes_on_by_itself(self):
        self.hub.break_after = [len(model) // 3, 1000]
        said = self.pull("me/tiny-GGUF")
        self.assertEqual(self.file.read_bytes(), model)
        self.assertEqual([h.get("Range") for h in self.file_requests()],
                         [None, f"bytes={len(model) // 3}-", f"bytes={len(model) // 3 + 1000}-"])
        self.assertEqual(said["files"][0]["resumed"], 0)

    def test_gives_up_and_goes_on_later(self):
        self.hub.break_after = [5000] * 3
        r = self.fails("goes on where it stopped", "--retries", "0", "me/tiny-GGUF")
        self.assertFalse(self.file.exists())
        self.assertEqual(self.litter(), ["tiny-F32.gguf.part", "tiny-F32.gguf.part.json"])
        self.hub.break_after = []
        said = self.pull("me/tiny-GGUF")
        self.assertEqual(said["files"][0]["resumed"], 5000)
        self.assertEqual(self.file.read_bytes(), model)
        self.assertEqual(self.litter(), [])
        self.assertEqual(self.file_requests()[-1]["Range"], "bytes=5000-")

    def test_range_ignored(self):
        self.hub.break_after = [5000]
        self.fails("", "--retries", "0", "me/tiny-GGUF")
        self.hub.ignore_range = True
        r = self.run_it("--json", "me/tiny-GGUF")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("starts at the beginning", r.stderr)
        self.assertEqual(json.loads(r.stdout)["files"][0]["resumed"], 0)
        self.assertEqual(self.file.read_bytes(), model)

    def test_the_file_changed_meanwhile(self):
        self.hub.break_after = [5000]
        self.fails("", "--retries", "0", "me/tiny-GGUF")
        newer = model[:-4] + b"abcd"
        self.hub.files["me/tiny-GGUF"]["tiny-F32.gguf"] = newer
        self.assertEqual(self.pull("me/tiny-GGUF")["files"][0]["resumed"], 0)
        self.assertEqual(self.file.read_bytes(), newer)

    def test_wrong_bytes(self):
        self.hub.wrong = model[:5000] + b"\1" + model[5001:]
        self.fails("should be " + sha(model)[:16], "me/tiny-GGUF")
        self.assertEqual(self.litter(), [])
        self.assertFalse(self.file.exists())

    def test_wrong_sum(self):
        self.hub.listed_sha["tiny-F32.gguf"] = "ab" * 32
        self.fails("should be abababababababab", "me/tiny-GGUF")
        self.assertFalse(self.file.exists())
        self.hub.listed_sha.clear()
        self.fails("and you cdcdcdcd", "--sha256", "cd" * 32, "me/tiny-GGUF")

    def test_wrong_size(self):
        self.hub.wrong = model + b"more"
        self.fails(f"{len(model) + 4} bytes, but the list says {len(model)}", "me/tiny-GGUF")
        self.assertEqual(self.litter(), [])

    def test_no_gguf(self):
        self.hub.files["me/page"] = {"page-Q4_0.gguf": b"<html>please log in</html>"}
        self.fails("is no GGUF file", "me/page")
        self.assertEqual(list(self.dir.rglob("*.gguf*")), [])

    def test_no_room(self):
        self.hub.listed_size["tiny-F32.gguf"] = 1 << 60
        self.fails("GiB free", "me/tiny-GGUF")
        self.assertEqual(self.file_requests(), [])
        self.assertEqual(self.litter(), [])

    def test_not_there(self):
        self.fails("me/nobody is not there", "me/nobody")
        self.hub.files["me/tiny-GGUF"] = {}
        self.fails("has no GGUF file", "me/tiny-GGUF")
        self.fails("connect", "me/tiny-GGUF", hub="http://127.0.0.1:1")
        for wrong in ("tiny", "a/b/c", "a/b:../x.gguf", "a/../b", ".a/b", "https://x.example/page.html"):
            self.fails("", wrong)

    def test_token(self):
        self.hub.token = "hf_secret"
        self.fails("set HF_TOKEN", "me/tiny-GGUF")
        self.fails("is not allowed to read it", "me/tiny-GGUF", HF_TOKEN="hf_wrong")
        self.pull("me/tiny-GGUF", HF_TOKEN="hf_secret")
        self.assertEqual(self.file.read_bytes(), model)
        r = self.fails("plain http", "me/tiny-GGUF", hub="http://hub.example.invalid", HF_TOKEN="hf_secret")
        self.assertNotIn("hf_secret", r.stderr)

    def test_token_stays_at_the_hub(self):
        other = Hub()
        try:
            other.files = self.hub.files
            self.hub.redirect = other.address
            self.hub.token = "hf_secret"
            self.pull("me/tiny-GGUF", HF_TOKEN="hf_secret")
            self.assertEqual(self.file.read_bytes(), model)
            self.assertEqual(len(other.requests), 1)
            self.assertNotIn("Authorization", other.requests[0][1])
            self.assertTrue(all("Authorization" in h for _, h in self.hub.requests))
        finally:
            other.shutdown()
            other.server_close()

    def test_redirects_without_end(self):
        self.hub.redirect = self.hub.address
        self.fails("redirects more than", "me/tiny-GGUF")

    def test_busy_server(self):
        self.hub.refuse = [503, 429]
        self.pull("me/tiny-GGUF")
        self.assertEqual(self.file.read_bytes(), model)

    def test_address(self):
        address = f"{self.hub.address}/me/tiny-GGUF/resolve/main/tiny-F32.gguf"
        said = self.pull(address)  # of the hub itself: the same as by name
        self.assertEqual(said["path"], str(self.file))
        other = Hub()
        try:
            other.files = self.hub.files
            address = f"{other.address}/me/tiny-GGUF/resolve/main/tiny-F32.gguf?download=true"
            other.break_after = [7000]
            self.fails("goes on where", "--retries", "0", address)
            self.assertEqual(self.litter(), ["tiny-F32.gguf.part", "tiny-F32.gguf.part.json"])
            said = self.pull(address, HF_TOKEN="hf_secret")
            self.assertEqual((self.dir / "tiny-F32.gguf").read_bytes(), model)
            self.assertEqual((said["checked"], said["model"], said["files"][0]["resumed"]), (False, "tiny-F32.gguf", 7000))
            self.assertIn("If-Range", other.requests[-1][1])
            self.assertTrue(all("Authorization" not in h for _, h in other.requests))
            self.fails("--force", address)
            self.assertEqual(self.pull("--force", address)["files"][0]["outcome"], "replaced")
            self.assertTrue(self.pull("--sha256", sha(model), address)["checked"])
            # The tag changed: it starts over by itself.
            (self.dir / "tiny-F32.gguf").unlink()
            other.break_after = [7000]
            self.fails("", "--retries", "0", address)
            newer = model[:-4] + b"abcd"
            other.files = {"me/tiny-GGUF": {"tiny-F32.gguf": newer}}
            self.assertEqual(self.pull(address)["files"][0]["resumed"], 0)
            self.assertEqual((self.dir / "tiny-F32.gguf").read_bytes(), newer)
        finally:
            other.shutdown()
            other.server_close()

    def test_interrupted(self):
        self.hub.hang = True
        p = subprocess.Popen([ruvllm, "pull", "--models-dir", str(self.dir), "--hub", self.hub.address, "me/tiny-GGUF"], env=env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        part = self.file.with_name(self.file.name + ".part")
        end = time.monotonic() + patience
        while not (part.exists() and part.stat().st_size == 1000) and time.monotonic() < end:
            time.sleep(0.02)
        self.fails("another process", "me/tiny-GGUF")  # two at a time
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=patience)[1]
        self.assertEqual(p.returncode, 130, said)
        self.assertIn("goes on where it stopped", said)
        self.hub.hang = False
        self.assertEqual(self.pull("me/tiny-GGUF")["files"][0]["resumed"], 1000)

    def test_tls(self):
        key, cert = self.dir / "key.pem", self.dir / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "2", "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        secure = Hub(tls=(cert, key))
        try:
            secure.files = self.hub.files
            self.fails("certificate", "--retries", "0", "me/tiny-GGUF", hub=secure.address)
            self.pull("me/tiny-GGUF", hub=secure.address, SSL_CERT_FILE=str(cert), HF_TOKEN="hf_secret")
            self.assertEqual(self.file.read_bytes(), model)
            self.file.unlink()
            secure.redirect = self.hub.address  # from https to http
            self.fails("away from https", "me/tiny-GGUF", hub=secure.address, SSL_CERT_FILE=str(cert))
        finally:
            secure.shutdown()
            secure.server_close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])

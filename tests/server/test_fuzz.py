"""Malformed requests: 10,000 of them against one server, every endpoint among them. What is well framed gets an answer that is no server
error and says what was wrong; what is not is answered or closed. Afterwards nothing runs, waits or stays open, and the server answers.

RUVLLM_FUZZ is the number of requests (10000), RUVLLM_FUZZ_SEED their seed (1): each request follows from the seed and its number alone."""
import http.client
import json
import os
import pathlib
import random
import re
import socket
import time

from harness import Server, chat, run, threads

THREADS, HELD, PATIENCE = 4, 40, 300  # seconds: a gate's measuring takes long under a sanitizer
NODE, NO_NODE = "01a207c1-1e6c-70fc-aabd-daf76308fda9", "01a207c1-1e6c-70fc-aabd-daf76308fdaa"
EXPORT = "\n".join(json.dumps(line) for line in (
    {"kind": "ruvllm-memory", "format": 1, "embedder": "", "embedder_version": "", "dimension": 0},
    {"kind": "node", "id": NODE, "type": "Fact", "text": "A note.", "confidence": 1, "version": 1, "created_ms": 1, "updated_ms": 1})) + "\n"
TALK = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}], "max_tokens": 1}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"enum": ["b"]}}}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
RPC = {"jsonrpc": "2.0", "id": 1}

# A right request of every route, some in several shapes: (method, path, body).
SEEDS = [
    ("POST", "/v1/chat/completions", {**TALK, "stream": True, "n": 2, "stop": ["a"], "seed": 1, "temperature": 0.5, "top_p": 0.9}),
    ("POST", "/v1/chat/completions", {**TALK, "tools": TOOLS, "tool_choice": "auto", "logit_bias": {"1": 2}, "logprobs": True, "top_logprobs": 1}),
    ("POST", "/v1/chat/completions", {**TALK, "response_format": SCHEMA}),
    ("POST", "/v1/chat/completions", {**TALK, "grammar": 'root ::= "a" | "b"', "ruvllm": {"memory": True, "scope": {"user": "a"}, "n_sources": 2}}),
    ("POST", "/v1/completions", {"prompt": ["x", [1, 2]], "max_tokens": 1, "n": 1, "echo": False, "logprobs": 1}),
    ("POST", "/v1/embeddings", {"input": ["a", [1, 2]], "encoding_format": "base64", "input_type": "query"}),
    ("POST", "/v1/rerank", {"query": "x", "documents": ["a", {"text": "b"}], "top_n": 1}), ("POST", "/rerank", {"query": "x", "documents": ["a"]}),
    ("POST", "/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "max_output_tokens": 1, "stream": True}),
    ("POST", "/v1/responses", {"input": "x", "instructions": "y", "max_output_tokens": 1, "text": {"format": {"type": "text"}}}),
    ("GET", "/v1/models", None), ("GET", "/v1/models/ruvllm-nano-l", None),
    ("POST", "/v1/messages", {"model": "s", "max_tokens": 1, "system": [{"type": "text", "text": "s"}], "messages": [
        {"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
    ("POST", "/v1/messages/count_tokens", {"model": "s", "messages": [{"role": "user", "content": "x"}]}),
    ("POST", "/api/chat", {"model": "s", "messages": [{"role": "user", "content": "x"}], "options": {"num_predict": 1, "seed": 1}, "format": "json"}),
    ("POST", "/api/generate", {"model": "s", "prompt": "x", "options": {"num_predict": 1, "stop": ["a"]}, "stream": False}),
    ("POST", "/api/embed", {"model": "encoder", "input": ["a", "b"]}), ("POST", "/api/embeddings", {"model": "encoder", "prompt": "a"}),
    ("POST", "/api/show", {"model": "s"}), ("GET", "/api/tags", None), ("GET", "/api/version", None),
    ("POST", "/v1/ask", {"question": "x", "history": [{"role": "user", "content": "y"}], "max_tokens": 1, "n_sources": 1, "stream": True}),
    ("POST", "/tokenize", {"content": "abc", "add_special": True, "with_pieces": True}), ("POST", "/detokenize", {"tokens": [1, 2, 3]}),
    ("POST", "/apply-template", {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS}),
    ("GET", "/v1/memory?limit=3&offset=1&type=fact&tag=a&user=b", None),
    ("POST", "/v1/memory", {"nodes": [{"text": "x", "title": "t", "tags": ["a"], "type": "Fact", "confidence": 0.5}], "scope": {"user": "u"}}),
    ("POST", "/v1/memory/search", {"query": "x", "k": 3, "mode": "hybrid", "filter": {"tags": ["a"], "types": ["Fact"]}, "min_cosine": 0.1}),
    ("POST", "/v1/memory/remember", {"text": "# T\n\nwords\n", "name": "a.md", "kind": "markdown", "tags": ["a"]}),
    ("GET", "/v1/memory/sources?limit=2", None), ("DELETE", "/v1/memory/sources?name=b.md", None), ("GET", "/v1/memory/stats", None),
    ("GET", "/v1/memory/export?every_scope=1", None), ("POST", "/v1/memory/edges", {"src": NODE, "dst": NODE, "type": "follows", "weight": 0.5}),
    ("POST", "/v1/memory/import", {"kind": "ruvllm-memory", "format": 1, "embedder": "", "embedder_version": "", "dimension": 0}),
    ("DELETE", f"/v1/memory/edges/{NODE}", None), ("GET", f"/v1/memory/{NODE}", None), ("DELETE", f"/v1/memory/{NO_NODE}", None),
    ("PATCH", f"/v1/memory/{NODE}", {"text": "y", "tags": ["b"]}), ("GET", f"/v1/memory/{NODE}/graph?hops=2", None),
    ("GET", f"/v1/memory/{NODE}/history", None),
    ("POST", "/v1/feedback", {"answer_id": NODE, "feedback": "correct", "correction": "y"}), ("POST", "/v1/route", {"question": "x"}),
    ("POST", "/v1/agents/route", {"task": "x"}), ("POST", "/v1/agents/teach", {"agent": "a", "task": "x", "purpose": "y", "type": "fix"}),
    ("POST", "/v1/agents/outcome", {"agent": "coder", "task": "x", "good": False, "right": "tester"}), ("GET", "/v1/agents", None),
    ("DELETE", "/v1/agents/a", None), ("GET", "/v1/route/decisions?limit=5", None),
    ("GET", "/v1/learn", None), ("GET", "/v1/learn/history?limit=3", None), ("POST", "/v1/learn/pause", None), ("POST", "/v1/learn/resume", None),
    ("POST", "/v1/learn/teach", {"question": "x", "answer": "y", "task": "ask"}), ("POST", "/v1/learn/rollback", {"version": 0}),
    ("POST", "/v1/learn/train", None), ("POST", "/v1/learn/gate", {"control": True, "publish": False}),
    ("POST", "/mcp", {**RPC, "method": "tools/call", "params": {"name": "memory_search", "arguments": {"query": "x", "limit": 1}}}),
    ("POST", "/mcp", {**RPC, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}}),
    ("POST", "/mcp", {**RPC, "method": "tools/list", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}}),
    ("GET", "/mcp", None), ("GET", "/livez", None), ("GET", "/readyz", None), ("GET", "/health", None), ("GET", "/metrics", None),
    ("GET", "/", None), ("GET", "/web/main.js", None),
]
WITH_BODY = [s for s in SEEDS if s[2] is not None]
SLOW = ("/v1/learn/gate", "/v1/learn/train", "/v1/learn/teach", "/v1/learn/rollback")  # measure or train a model
VALUES = [None, True, -1, 0, 1, 1e308, 2**63 - 1, -2**63, "", "x" * 300, [], {}, [[]], [None], {"a": {}}, "\ud83d\ude00", 0.5, [1] * 50, "\x00", "auto", "l"]
RAW_VALUES = [b"NaN", b"1e999", b"-", b"01", b'"\\ud800"', b'"\xff\xfe"', b"{", b"]", b'{"a":1,"a":2}', b"//", b"18446744073709551616", b"tru", b'"']
LENGTHS = [b"-1", b"9999", b"0x10", b"99999999999999999999", b"+5", b"1 1", b"", b"abc", b"5, 5", b"9223372036854775807", b"1073741824"]


def choose(seeds, r):
    seed = r.choice(seeds)
    while seed[1] in SLOW and r.random() < 0.99:
        seed = r.choice(seeds)
    return seed


def mutate_json(value, r):
    if isinstance(value, dict) and value and r.random() < 0.85:
        key, copy = r.choice(list(value)), dict(value)
        if r.random() < 0.15:
            del copy[key]
        else:
            copy[key] = mutate_json(value[key], r)
        if r.random() < 0.1:
            copy[r.choice(["", "x", "model", "stream", "scope"])] = r.choice(VALUES)
        return copy
    if isinstance(value, list) and value and r.random() < 0.6:
        i = r.randrange(len(value))
        return value[:i] + [mutate_json(value[i], r)] + value[i + 1:]
    return r.choice(VALUES)


def mutate_bytes(data, r):
    data = bytearray(data)
    for _ in range(r.randrange(1, 12)):
        i, what = r.randrange(len(data)), r.randrange(3)
        if what == 0:
            data[i] = r.randrange(256)
        elif what == 1:
            data.insert(i, r.choice(b"\r\n\x00\"{}[],:\\ \xff/?%"))
        elif len(data) > 1:
            del data[i]
    return bytes(data)


def frame(method, path, body=None, headers=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode("utf-8", "surrogateescape") + headers
    return head + (b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def chunked(body, r):
    parts, i = [], 0
    while i < len(body):
        n = r.randrange(1, 40)
        size = r.choice([b"%x" % len(body[i:i + n])] * 8 + [b"-1", b"fffffffffffffffff", b"zz", b"", b"0"])
        parts.append(size + r.choice([b"\r\n"] * 8 + [b"\n", b";x=y\r\n", b""]) + body[i:i + n] + b"\r\n")
        i += n
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + r.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0"])


def request(r):
    """(the bytes, whether they are one whole request that must be answered)"""
    method, path, body = choose(SEEDS, r)
    kind = r.random()
    if kind < 0.34:  # wrong values in right JSON
        method, path, body = choose(WITH_BODY, r)
        return frame(method, path, json.dumps(mutate_json(body, r)).encode()), True
    if kind < 0.46:  # what is no JSON
        method, path, body = choose(WITH_BODY, r)
        data = json.dumps(body).encode()
        if r.random() < 0.5:
            values = list(re.finditer(rb'"[^"]*"(?!:)|\d+', data))
            at = r.choice(values)
            return frame(method, path, data[:at.start()] + r.choice(RAW_VALUES) + data[at.end():]), True
        return frame(method, path, mutate_bytes(data, r)), True
    if kind < 0.50:  # deep nesting
        method, path, body = choose(WITH_BODY, r)
        depth = r.choice([100, 129, 1000, 30000])
        opened, closed = r.choice([(b"[", b"]"), (b'{"a":', b"}")])
        inner = opened * depth + b"1" + closed * depth
        return frame(method, path, b'{"%s":%s}' % (r.choice(list(body)).encode(), inner) if r.random() < 0.7 else inner), True
    if kind < 0.58:  # wrong addresses, queries and methods
        where = r.choice(["%00", "%", "%zz", "..%2f..", "?limit=-1", "?limit=9" + "9" * 30, "?user=%ff", "/x", "?" + "a=b&" * 500, "//", "%2e%2e/", "?&=&&", "#", "x" * 3000])
        return frame(r.choice([method] * 4 + ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]), path + where, b"{}" if body is not None else None), "HEAD"
    data = frame(method, path, None if body is None else json.dumps(body).encode())
    if kind < 0.66:  # headers: too many, too long, doubled, with what does not belong there
        extra = r.choice([b"X: " + b"a" * 40000, b"\r\n".join(b"X-%d: y" % i for i in range(300)), b"X: \xff\x00\x01", b": y", b"X y", b" folded: y",
                          b"Host: a\r\nHost: b", b"x-request-id: " + b"\xff" * 90, b"Expect: 100-continue", b"Expect: 200-nothing", b"Origin: " + b"http://" * 60,
                          b"Authorization: Bearer " + b"\x80" * 200, b"Connection: Upgrade\r\nUpgrade: websocket", b"Content-Encoding: gzip", b"Range: bytes=0-9",
                          b"Mcp-Method: =?base64?!!!!?=", b"MCP-Protocol-Version: " + b"9" * 600, b"If-None-Match: \"" + b"a" * 5000])
        return data.replace(b"\r\n", b"\r\n" + extra + b"\r\n", 1), False
    if kind < 0.74:  # lengths that are none
        head, _, rest = data.partition(b"Content-Length: ")
        if rest:
            return head + b"Content-Length: " + r.choice(LENGTHS) + b"\r\n\r\n" + rest.partition(b"\r\n\r\n")[2], False
        return data[:-2] + b"Content-Length: " + r.choice(LENGTHS) + b"\r\n\r\n", False
    if kind < 0.80:  # pieces
        method, path, body = choose(WITH_BODY, r)
        both = b"Content-Length: 3\r\n" if r.random() < 0.2 else b""
        return frame(method, path, None, both)[:-2] + chunked(json.dumps(body).encode(), r), False
    if kind < 0.88:  # cut
        return data[:r.randrange(1, len(data))], False
    if kind < 0.92:  # noise
        return bytes(r.randrange(256) for _ in range(r.randrange(1, 400))), False
    return mutate_bytes(data, r), False


class Client:
    """One thread's connections: one that is kept between whole requests, and some that are left open with half a request."""

    def __init__(self, server):
        self.server, self.kept, self.held, self.statuses, self.closed = server, None, [], {}, 0

    def answer(self, c, data, head, what):
        answer = http.client.HTTPResponse(c, method="HEAD" if head else "POST")
        answer.begin()
        status, body = answer.status, answer.read()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        assert status < 500 or status in (501, 505), f"{what}: {status}: {body[:400]!r} to {data[:600]!r}"
        if status >= 400 and body and answer.headers.get_content_type() == "application/json":
            try:
                said = json.loads(body)
            except ValueError as e:
                raise AssertionError(f"{what}: {e}: {body[:600]!r} to {data[:600]!r}") from e
            said = said.get("error", said)
            assert said if isinstance(said, str) else said.get("message"), f"{what}: nothing is said: {body[:300]!r} to {data[:600]!r}"
        return not answer.will_close

    def whole(self, data, what):
        for attempt in range(2):  # the server may have closed the kept one
            fresh = self.kept is None
            self.kept = self.kept or self.server.raw(PATIENCE)
            try:
                self.kept.sendall(data)
                keep = self.answer(self.kept, data, data.startswith(b"HEAD"), what)
            except (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead):
                self.drop()
                assert not fresh, f"{what}: closed without an answer: {data[:600]!r}"
                continue
            if not keep:
                self.drop()
            return

    def drop(self):
        if self.kept:
            self.kept.close()
        self.kept = None

    def broken(self, data, hold, what):
        c = self.server.raw(PATIENCE)
        try:
            c.sendall(data)
            if hold:  # says no more and stays
                self.held.append(c)
                if len(self.held) > HELD:
                    self.held.pop(0).close()
                return
            c.shutdown(socket.SHUT_WR)
            got = b""
            while part := c.recv(65536):
                got += part
            assert not got or got.startswith(b"HTTP/1."), f"{what}: {data[:300]!r} -> {got[:200]!r}"
            if got:
                status = int(got.split(None, 2)[1])
                self.statuses[status] = self.statuses.get(status, 0) + 1
                assert status < 500 or status in (501, 505), f"{what}: {got[:600]!r} to {data[:600]!r}"
            else:
                self.closed += 1
        except ConnectionError:
            self.closed += 1
        finally:
            if not hold:
                c.close()

    def close(self):
        self.drop()
        for c in self.held:
            c.close()


def routes():
    """The paths of all tables of routes in the sources."""
    found = set()
    for file in (pathlib.Path(__file__).parents[2] / "src/server").glob("*.c"):
        found |= set(re.findall(r'^    \{RUV_[A-Z |_]+, "(/[^"]*)", ', file.read_text(), re.M))
    return found


def test_fuzz(ruvllm):
    n, seed = int(os.environ.get("RUVLLM_FUZZ", "10000")), int(os.environ.get("RUVLLM_FUZZ_SEED", "1"))
    with Server(ruvllm, "--quiet", "--model", "s", "--context", "512", "--max-tokens", "8", "--request-timeout", "20") as s:
        s.json("POST", "/v1/memory/import", EXPORT)
        clients = [Client(s) for _ in range(THREADS)]

        def work(w):
            for i in range(w, n, THREADS):
                r = random.Random(seed * 1000003 + i)
                if i < len(SEEDS):  # each once as it is
                    method, path, body = SEEDS[i]
                    data, whole = frame(method, path, None if body is None else json.dumps(body).encode()), True
                else:
                    data, whole = request(r)
                what = f"request {i} of seed {seed}"
                try:
                    if whole:
                        clients[w].whole(data, what)
                    else:
                        clients[w].broken(data, r.random() < 0.3, what)
                except (TimeoutError, ConnectionRefusedError) as e:
                    raise AssertionError(f"{what}: {e}: {data[:600]!r}") from e
                assert s.process.poll() is None, f"{what} ended the server: {data[:600]!r}"

        threads(THREADS, work)
        statuses = {}
        for c in clients:
            c.close()
            for status, count in c.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
        print(f"     {n} requests of seed {seed}: {sum(c.closed for c in clients)} closed unanswered, statuses {dict(sorted(statuses.items()))}")
        s.wait_idle()
        end = time.monotonic() + 30
        while s.metric("ruvllm_http_connections") > 2:
            assert time.monotonic() < end, f"{s.metric('ruvllm_http_connections')} connections are left"
            time.sleep(0.1)
        assert s.metric("ruvllm_workers_busy") <= 1 and s.metric("ruvllm_worker_queue_length") == 0
        page = s.request("GET", "/metrics")[2].decode()
        missed = [p for p in routes() if f'route="{p}"' not in page]
        assert routes() and (not missed or n < len(SEEDS)), f"not reached: {missed}"
        s.json("POST", "/v1/chat/completions", chat("Hello"))


run([test_fuzz])

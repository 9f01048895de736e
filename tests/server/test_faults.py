"""What goes wrong between clients and server: slow readers, half-sent requests, clients that leave, idle connections, kill -9, a full
disk. After each: no slot is stuck, the server answers, it ends cleanly (sanitizers watch). test_fuzz.py has the malformed requests."""
import json
import resource
import select
import signal
import socket
import tempfile
import threading
import time

from harness import Server, chat, run, threads


def post(body, path="/v1/chat/completions", extra=""):
    data = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{extra}Content-Length: {len(data)}\r\n\r\n{data}".encode()


def read_until(c, what, seconds=60):
    data, end = b"", time.monotonic() + seconds
    while what not in data and time.monotonic() < end:
        part = c.recv(65536)
        if not part:
            break
        data += part
    return data


def closed_within(c, seconds):
    """The server closes the connection; how long that took."""
    began = time.monotonic()
    c.settimeout(seconds)
    try:
        while c.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise AssertionError(f"the connection is still open after {seconds} s")
    return time.monotonic() - began


def test_disconnects(ruvllm):
    """Clients that leave in the middle of a stream, and while they wait for the first byte: their slots are free at once."""
    with Server(ruvllm) as s:
        for i in range(24):
            c = s.raw()
            c.sendall(post(chat("Tell me everything.", stream=True, max_tokens=2000, ignore_eos=True)))
            if i % 2:
                read_until(c, b"data: ")
            c.close()
        for _ in range(6):  # not streaming
            c = s.raw()
            c.sendall(post(chat("Tell me everything.", max_tokens=2000, ignore_eos=True)))
            time.sleep(0.05)
            c.close()
        s.wait_idle()
        assert s.metric("ruvllm_http_clients_gone_total") >= 1
        s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30."}, expect=201)
        for _ in range(6):
            c = s.raw()
            c.sendall(post({"question": "When does the backup start?", "stream": True}, "/v1/ask"))
            read_until(c, b"event: ")
            c.close()
        s.wait_idle()
        s.json("POST", "/v1/chat/completions", chat("Hello"))


def test_slow_readers(ruvllm):
    """A client that never reads is cut off; others do not wait for it."""
    with Server(ruvllm, "--request-timeout", "5") as s:
        slow = []
        for _ in range(2):
            c = socket.socket()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.connect(("127.0.0.1", s.port))
            c.sendall(post(chat("Tell me everything.", stream=True, max_tokens=150, ignore_eos=True, n=8, temperature=1, logprobs=True,
                                top_logprobs=20)))
            slow.append(c)
        began = time.monotonic()
        a = s.events("/v1/chat/completions", chat("Hello", stream=True))
        assert a[-1][1] == "[DONE]"
        s.wait_idle(120)
        assert s.metric("ruvllm_http_slow_clients_total") + s.metric("ruvllm_http_clients_gone_total") >= 1, time.monotonic() - began
        for c in slow:
            closed_within(c, 30)
            c.close()
        # A slow one that does read gets everything.
        c = s.raw(60)
        c.sendall(post(chat("Tell me.", stream=True, max_tokens=60, ignore_eos=True)))
        data = b""
        while b"[DONE]" not in data:
            part = c.recv(512)
            assert part, data[-300:]
            data += part
            time.sleep(0.002)
        c.close()
        # An export waits for its reader.
        nodes = [{"text": f"Note {i}: " + "words and more words " * 150} for i in range(500)]
        for i in range(0, 500, 100):
            s.json("POST", "/v1/memory/import", "\n".join(
                [json.dumps({"kind": "ruvllm-memory", "format": 1, "embedder": "", "embedder_version": "", "dimension": 0})] +
                [json.dumps({"kind": "node", "id": f"01a207c1-1e6c-70fc-aabd-{i + k:012x}", "type": "Fact", "text": n["text"], "confidence": 1,
                             "version": 1, "created_ms": 1, "updated_ms": 1}) for k, n in enumerate(nodes[i:i + 100])]) + "\n")
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.connect(("127.0.0.1", s.port))
        c.sendall(b"GET /v1/memory/export HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        data = b""
        while part := c.recv(1 << 20):
            data += part
        assert data.count(b'"kind":"node"') == 500, data.count(b'"kind":"node"')
        c.close()


def test_half_sent(ruvllm):
    """Requests that never end are ended, however slowly they drip."""
    with Server(ruvllm, "--request-timeout", "2") as s:
        whole = post(chat("Hello"))
        parts = [b"", b"POST", whole[:40], whole[:-5], b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                 b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /li"]
        connections = []
        for part in parts:
            c = s.raw()
            c.sendall(part)
            connections.append(c)
        for c in connections:
            took = closed_within(c, 12)
            assert took < 10, took
            c.close()
        drip = s.raw()
        began = time.monotonic()
        try:
            for i in range(200):
                drip.sendall(whole[i:i + 1])
                if select.select([drip], [], [], 0.1)[0] and not drip.recv(1000):
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        took = time.monotonic() - began
        assert took < 10, f"a request that drips was kept for {took:.0f} s"
        drip.close()
        # A request in several packets is a request.
        c = s.raw()
        for i in range(0, len(whole), 50):
            c.sendall(whole[i:i + 50])
            time.sleep(0.005)
        assert b"200 OK" in read_until(c, b"usage"), "a request in packets failed"
        # And two in one packet are two, answered in order.
        c.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx-request-id: one\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\nx-request-id: two\r\n\r\n")
        data = read_until(c, b"two")
        assert data.index(b"x-request-id: one") < data.index(b"x-request-id: two"), data
        # Also when the first one takes long.
        c.sendall(post(chat("Hello", max_tokens=20)) + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx-request-id: after\r\n\r\n")
        data = read_until(c, b"after")
        assert data.index(b"usage") < data.index(b"x-request-id: after"), data
        c.close()
        s.wait_idle()


def test_idle_connections(ruvllm):
    """1,000 connections that say nothing, among them requests; and a cap that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with Server(ruvllm) as s:
        idle = [s.raw() for _ in range(1000)]
        end = time.monotonic() + 30
        while s.metric("ruvllm_http_connections") < 1000 and time.monotonic() < end:
            time.sleep(0.05)
        assert s.metric("ruvllm_http_connections") >= 1000
        s.json("POST", "/v1/chat/completions", chat("Hello"))
        threads(16, lambda i: s.json("POST", "/v1/chat/completions", chat(f"Hello {i}", max_tokens=8)))
        idle[500].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_until(idle[500], b"ok\n").startswith(b"HTTP/1.1 200")
        for c in idle:
            c.close()
        end = time.monotonic() + 30
        while s.metric("ruvllm_http_connections") > 20:
            assert time.monotonic() < end, s.metric("ruvllm_http_connections")
            time.sleep(0.1)
    with Server(ruvllm, "--max-connections", "8") as s:
        idle = [s.raw() for _ in range(8)]
        time.sleep(0.3)
        waiting = s.raw()
        waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not select.select([waiting], [], [], 0.7)[0], "more than 8 connections were served"
        for c in idle[:4]:
            c.close()
        assert read_until(waiting, b"ok\n").startswith(b"HTTP/1.1 200")
        for c in [*idle[4:], waiting]:
            c.close()


def test_kill(ruvllm):
    """kill -9 while memories are written and chats run: everything that was acknowledged is there after the restart."""
    with tempfile.TemporaryDirectory() as data:
        acknowledged, rounds = {}, 2
        for round_ in range(rounds):
            began = time.monotonic()
            s = Server(ruvllm, data=data).wait_ready()
            assert time.monotonic() - began < 30, "the restart took longer than 30 s"
            for node, text in acknowledged.items():
                assert s.json("GET", f"/v1/memory/{node}")["text"] == text
            stop = threading.Event()

            def write(w):
                i = 0
                while not stop.is_set():
                    text = f"Round {round_}, writer {w}, note {i}."
                    try:
                        node = s.json("POST", "/v1/memory", {"text": text}, expect=201)
                    except (OSError, ValueError, AssertionError, __import__("http.client").client.HTTPException):
                        return
                    acknowledged[node["id"]] = text
                    i += 1

            def talk(_):
                try:
                    while not stop.is_set():
                        s.events("/v1/chat/completions", chat("Hello", stream=True))
                except (OSError, ValueError, AssertionError, __import__("http.client").client.HTTPException):
                    pass

            writers = [threading.Thread(target=write, args=(w,)) for w in range(3)] + [threading.Thread(target=talk, args=(0,))]
            for t in writers:
                t.start()
            before, end = len(acknowledged), time.monotonic() + 30
            while len(acknowledged) < before + 40 and time.monotonic() < end:
                time.sleep(0.01)
            s.stop(signal.SIGKILL)
            stop.set()
            for t in writers:
                t.join()
        assert len(acknowledged) >= 40 * rounds
        with Server(ruvllm, data=data) as s:
            for node, text in acknowledged.items():
                assert s.json("GET", f"/v1/memory/{node}")["text"] == text
            assert s.json("GET", "/v1/memory/stats")["nodes"] >= len(acknowledged)


def test_full_disk(ruvllm):
    """Files cannot grow: writing fails with a reason, reading goes on, and what was acknowledged stays."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))

    with Server(ruvllm, before=limit) as s:
        stored, failure = {}, None
        for i in range(400):
            text = f"Note {i}. " + "many words to fill the disk with " * 30
            status, _, data = s.request("POST", "/v1/memory", {"text": text})
            if status != 201:
                failure = (status, json.loads(data)["error"])
                break
            stored[json.loads(data)["id"]] = text
        assert failure and failure[0] in (500, 503), (len(stored), failure)
        assert failure[1]["message"], failure
        for node, text in list(stored.items())[:5] + list(stored.items())[-5:]:
            assert s.json("GET", f"/v1/memory/{node}")["text"] == text
        s.json("POST", "/v1/memory/search", {"query": "Note 3"})
        s.json("POST", "/v1/chat/completions", chat("Hello"))


run([test_disconnects, test_slow_readers, test_half_sent, test_idle_connections, test_kill, test_full_disk])

"""Traces of requests and answers at a collector of our own, held against OTLP's JSON: field names, types, ids, the tree of spans.

The collector takes, refuses, fails and hangs. Usage: test_traces.py RUVLLM SOURCE_DIR"""
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import Server

ruvllm, source = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
models = source / "tests/data/model"
tiny = ["--model", str(models / "lfm2.gguf"), "--encoder", str(models / "lfm2-encoder.gguf"), "--threads", "1", "--max-tokens", "8",
        "--temperature", "0"]
patience = 120


class Collector(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.headers, self.answers, self.tries = [], [], [], 0
        self.hang = threading.Event()
        self.hang.set()
        self.changed = threading.Condition()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def spans(self):
        return [s for b in self.bodies for r in b["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"]]

    def wait(self, test, what):
        with self.changed:
            assert self.changed.wait_for(lambda: test(self.spans()), patience), f"no {what} within {patience} s: {[s['name'] for s in self.spans()]}"
        return self.spans()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        c = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        c.hang.wait(patience)
        with c.changed:
            c.tries += 1
            status = c.answers.pop(0) if c.answers else 200
            if status == 200:
                assert self.path == "/v1/traces", self.path
                c.bodies.append(json.loads(body))
                c.headers.append(dict(self.headers))
            c.changed.notify_all()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/v1/traces")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def attributes(span):
    out = {}
    for a in span["attributes"]:
        (kind, value), = a["value"].items()
        out[a["key"]] = int(value) if kind == "intValue" else value
    return out


class Traces(unittest.TestCase):
    def setUp(self):
        self.collector = Collector()

    def tearDown(self):
        self.collector.hang.set()
        self.collector.shutdown()
        self.collector.server_close()

    def hold_to_otlp(self, bodies):
        """The fields of ExportTraceServiceRequest as protobuf's JSON has them: camelCase, ids in hex, 64-bit numbers as texts."""
        for body in bodies:
            self.assertEqual(set(body), {"resourceSpans"})
            for resource in body["resourceSpans"]:
                self.assertEqual(set(resource), {"resource", "scopeSpans"})
                names = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
                self.assertEqual(names["service.name"], {"stringValue": "ruvllm"})
                for scope in resource["scopeSpans"]:
                    self.assertEqual(set(scope), {"scope", "spans"})
                    self.assertEqual(scope["scope"]["name"], "ruvllm")
                    for s in scope["spans"]:
                        self.assertLessEqual(set(s), {"traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano",
                                                      "endTimeUnixNano", "attributes", "status", "flags"})
                        self.assertRegex(s["traceId"], r"^[0-9a-f]{32}$")
                        self.assertRegex(s["spanId"], r"^[0-9a-f]{16}$")
                        if "parentSpanId" in s:
                            self.assertRegex(s["parentSpanId"], r"^[0-9a-f]{16}$")
                        self.assertIn(s["kind"], (1, 2, 3))
                        for at in ("startTimeUnixNano", "endTimeUnixNano"):
                            self.assertIsInstance(s[at], str)
                            self.assertLess(abs(int(s[at]) / 1e9 - time.time()), 3600)
                        self.assertLessEqual(int(s["startTimeUnixNano"]), int(s["endTimeUnixNano"]))
                        for a in s["attributes"]:
                            (kind, value), = a["value"].items()
                            self.assertIsInstance(value, {"stringValue": str, "intValue": str, "doubleValue": float}[kind])

    def serve(self, *flags, **more):
        return Server(ruvllm, *tiny, "--otlp-endpoint", self.collector.endpoint, *flags, **more)

    def test_a_question_over_http(self):
        trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        with self.serve(env={"OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=abc,x-tenant=t"}) as s:
            s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30, says a-secret-word."}, expect=201)
            answer = s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?"},
                            {"traceparent": f"00-{trace}-{caller}-01", "x-request-id": "find-me"})
            s.json("POST", "/v1/ask", {"question": "Not sampled?"}, {"traceparent": f"00-{'1' * 32}-{caller}-00"})
            s.request("POST", "/v1/ask", {"question": ""})
            s.json("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "ruvllm": {"memory": True}})
        spans = self.collector.wait(lambda spans: sum(x["name"] == "POST /v1/chat/completions" for x in spans) == 1, "chat")
        self.hold_to_otlp(self.collector.bodies)
        self.assertEqual((self.collector.headers[0]["x-api-key"], self.collector.headers[0]["x-tenant"]), ("abc", "t"))
        mine = [x for x in spans if x["traceId"] == trace]
        request = next(x for x in mine if x["name"] == "POST /v1/ask")
        ask = next(x for x in mine if x["name"] == "ask")
        self.assertEqual((request["parentSpanId"], request["kind"]), (caller, 2))
        self.assertEqual(ask["parentSpanId"], request["spanId"])
        said = attributes(request)
        self.assertEqual((said["http.route"], said["http.response.status_code"], said["ruvllm.request_id"]), ("/v1/ask", 200, "find-me"))
        self.assertEqual(attributes(ask)["gen_ai.usage.output_tokens"], answer["usage"]["completion_tokens"])
        stages = {x["name"]: x for x in mine if x.get("parentSpanId") == ask["spanId"]}
        self.assertEqual(set(stages), set(answer["stages_ms"]))
        self.assertLessEqual({"embed", "retrieve", "assemble", "prefill", "generate", "judge"}, set(stages))
        for name, x in stages.items():
            ms = (int(x["endTimeUnixNano"]) - int(x["startTimeUnixNano"])) / 1e6
            self.assertAlmostEqual(ms, answer["stages_ms"][name], delta=0.01)
            self.assertGreaterEqual(int(x["startTimeUnixNano"]), int(ask["startTimeUnixNano"]) - 2000000)
        self.assertEqual(len(mine), len(stages) + 2)
        self.assertFalse([x for x in spans if x["traceId"] == "1" * 32])
        failed = [x for x in spans if x["name"] == "POST /v1/ask" and attributes(x)["http.response.status_code"] == 400]
        self.assertEqual(len(failed), 1)
        self.assertNotEqual(failed[0]["traceId"], trace)
        self.assertNotIn("parentSpanId", failed[0])
        chat = next(x for x in spans if x["name"] == "POST /v1/chat/completions")
        self.assertTrue([x for x in spans if x.get("parentSpanId") == chat["spanId"]])
        self.assertEqual({x["name"] for x in spans if x["kind"] == 2},
                         {"POST /v1/memory", "POST /v1/ask", "POST /v1/chat/completions"})  # not health
        self.assertNotIn("a-secret-word", json.dumps(self.collector.bodies))
        self.assertEqual(len({x["spanId"] for x in spans}), len(spans))

    def test_one_question(self):
        trace, caller = "a" * 32, "b" * 16
        with tempfile.TemporaryDirectory() as work:
            env = {**{k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_"))}, "HOME": work}
            note = pathlib.Path(work) / "note.md"
            note.write_text("The nightly backup starts at 02:30.\n")
            for command in (["remember", str(note)], ["ask", "When does the nightly backup start?"]):
                r = subprocess.run([ruvllm, command[0], *tiny, "--json", "--otlp-endpoint", self.collector.endpoint, command[1]],
                                   env={**env, "TRACEPARENT": f"00-{trace}-{caller}-01"}, capture_output=True, text=True, timeout=patience)
                self.assertEqual(r.returncode, 0, r.stderr)
        spans = self.collector.spans()  # sent before the program ended
        self.hold_to_otlp(self.collector.bodies)
        ask = next(x for x in spans if x["name"] == "ask")
        self.assertEqual((ask["traceId"], ask["parentSpanId"]), (trace, caller))
        self.assertEqual({x["name"] for x in spans if x.get("parentSpanId") == ask["spanId"]}, set(json.loads(r.stdout)["stages_ms"]))

    def test_malformed_parents(self):
        with self.serve() as s:
            for wrong in ("", "x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
                          "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more", "00-" + "G" * 32 + "-" + "1" * 16 + "-01",
                          "00-" + "A" * 32 + "-" + "1" * 16 + "-01"):
                s.json("POST", "/tokenize", {"content": "x"}, {"traceparent": wrong})
            s.json("POST", "/tokenize", {"content": "x"}, {"traceparent": "cc-" + "1" * 32 + "-" + "2" * 16 + "-01-later"})
        spans = self.collector.wait(lambda spans: len(spans) >= 9, "span for each")
        self.assertEqual([x.get("parentSpanId") for x in spans if "parentSpanId" in x], ["2" * 16])

    def test_tried_again(self):
        self.collector.answers = [503, 429]
        with self.serve() as s:
            s.json("POST", "/tokenize", {"content": "x"})
            self.collector.wait(lambda spans: len(spans) == 1, "span")
        self.assertEqual(self.collector.tries, 3)

    def test_given_up(self):
        self.collector.answers = [400]
        s = self.serve().wait_ready()
        s.json("POST", "/tokenize", {"content": "x"})
        with self.collector.changed:
            self.assertTrue(self.collector.changed.wait_for(lambda: self.collector.tries == 1, patience))
        self.collector.answers = [302]  # where its headers must not go
        s.json("POST", "/tokenize", {"content": "x"})
        with self.collector.changed:
            self.assertTrue(self.collector.changed.wait_for(lambda: self.collector.tries == 2, patience))
        s.json("POST", "/tokenize", {"content": "x"})
        self.collector.wait(lambda spans: len(spans) == 1, "span after the lost ones")
        self.assertIn("1 spans are lost", s.stop())

    def test_a_collector_that_hangs_or_is_away(self):
        """The server answers as ever; what does not fit the queue is dropped, and the end is not held up for long."""
        self.collector.hang.clear()
        s = self.serve().wait_ready()
        connection = s.connect()
        for _ in range(6000):
            connection.request("POST", "/tokenize", b'{"content": "x"}')
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, 200)
        connection.close()
        self.assertIn("lost", s.stop())
        with tempfile.TemporaryDirectory() as work:
            env = {**{k: v for k, v in os.environ.items() if not k.startswith(("RUVLLM_", "XDG_"))}, "HOME": work}
            r = subprocess.run([ruvllm, "ask", *tiny, "--no-memory", "--otlp-endpoint", "http://127.0.0.1:1", "x"], env=env, capture_output=True,
                               text=True, timeout=patience)
            self.assertEqual(r.returncode, 0, r.stderr)
            self.assertRegex(r.stderr, r"\d+ spans are lost")
            r = subprocess.run([ruvllm, "ask", *tiny, "--no-memory", "--otlp-endpoint", "localhost:4318", "x"], env=env, capture_output=True,
                               text=True, timeout=patience)
            self.assertEqual(r.returncode, 1)
            self.assertIn("localhost:4318", r.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])

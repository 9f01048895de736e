"""What the endpoints answer: OpenAI's, ours, operations, keys. One server for most of it."""
import base64
import json
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from harness import Server, chat, run, threads

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}}}


def test_chat(ruvllm):
    with Server(ruvllm) as s:
        a = s.json("POST", "/v1/chat/completions", chat("Hello!"))
        assert a["object"] == "chat.completion" and a["model"] == "ruvllm-nano-l", a
        assert a["choices"][0]["message"]["role"] == "assistant" and a["choices"][0]["message"]["content"], a
        assert a["usage"]["total_tokens"] == a["usage"]["prompt_tokens"] + a["usage"]["completion_tokens"], a

        # A stream says the same, piece by piece.
        events = s.events("/v1/chat/completions", chat("Hello!", stream=True, stream_options={"include_usage": True}))
        assert events[-1][1] == "[DONE]"
        chunks = [e for _, e in events[:-1]]
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        assert text == a["choices"][0]["message"]["content"], text
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == a["usage"]["completion_tokens"]
        assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == a["choices"][0]["finish_reason"]

        # Lengths, stops, several answers, seeds, log-probabilities.
        a = s.json("POST", "/v1/chat/completions", chat("Tell me about backups.", max_tokens=3))
        assert a["choices"][0]["finish_reason"] == "length" and a["usage"]["completion_tokens"] == 3, a
        a = s.json("POST", "/v1/completions", {"prompt": "one two three", "max_tokens": 24, "temperature": 0})
        whole = a["choices"][0]["text"]
        middle = whole.split()[2] if len(whole.split()) > 2 else None
        if middle:
            b = s.json("POST", "/v1/completions", {"prompt": "one two three", "max_tokens": 24, "temperature": 0, "stop": [middle]})
            assert b["choices"][0]["text"] == whole[:whole.index(middle)] and b["choices"][0]["finish_reason"] == "stop", (whole, b)
        a = s.json("POST", "/v1/chat/completions", chat("Hi", n=3, temperature=1.0, seed=7, max_tokens=12))
        b = s.json("POST", "/v1/chat/completions", chat("Hi", n=3, temperature=1.0, seed=7, max_tokens=12))
        assert [c["message"]["content"] for c in a["choices"]] == [c["message"]["content"] for c in b["choices"]]
        assert [c["index"] for c in a["choices"]] == [0, 1, 2]
        a = s.json("POST", "/v1/chat/completions", chat("Hi", logprobs=True, top_logprobs=3, max_tokens=5))
        entries = a["choices"][0]["logprobs"]["content"]
        assert len(entries) == a["usage"]["completion_tokens"] and all(len(e["top_logprobs"]) == 3 for e in entries), entries
        assert bytes(b for e in entries for b in e["bytes"]).decode() == a["choices"][0]["message"]["content"]
        assert all(e["logprob"] <= 0 and e["top_logprobs"][0]["logprob"] >= e["logprob"] - 1e-6 for e in entries)
        ban = entries[0]["top_logprobs"][0]["token"]
        ids = s.json("POST", "/tokenize", {"content": ban})["tokens"]
        c = s.json("POST", "/v1/chat/completions", chat("Hi", logit_bias={str(ids[0]): -100}, max_tokens=5))
        assert not c["choices"][0]["message"]["content"].startswith(ban), c

        # Parts of text are text; what is no text is refused.
        parts = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]
        s.json("POST", "/v1/chat/completions", {"messages": parts, "max_tokens": 4})
        e = s.json("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, expect=400)
        assert "image_url" in e["error"]["message"] and e["error"]["code"] == "unsupported", e

        # The same prompt again comes from the cache, and says so.
        long = "The office opens at nine. " * 40
        s.json("POST", "/v1/chat/completions", chat(long, max_tokens=2))
        a = s.json("POST", "/v1/chat/completions", chat(long, max_tokens=2))
        cached = a["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached >= 64 and cached < a["usage"]["prompt_tokens"], a["usage"]


def test_structured(ruvllm):
    with Server(ruvllm) as s:
        schema = {"type": "object", "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
                  "required": ["name", "age"], "additionalProperties": False}
        for seed in range(5):
            a = s.json("POST", "/v1/chat/completions", chat("A person", temperature=1.0, seed=seed + 1, max_tokens=80, response_format={
                "type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}))
            value = json.loads(a["choices"][0]["message"]["content"])
            assert set(value) == {"name", "age"} and value["name"] in ("Ada", "Bob") and isinstance(value["age"], int), value
        a = s.json("POST", "/v1/chat/completions", chat("Yes or no?", grammar='root ::= "yes" | "no"'))
        assert a["choices"][0]["message"]["content"] in ("yes", "no") and a["choices"][0]["finish_reason"] == "stop", a

        # Tools: forced, named, streamed; the pieces of a stream are one JSON object.
        a = s.json("POST", "/v1/chat/completions", chat("Weather in Paris?", tools=[TOOL], tool_choice="required", max_tokens=100,
                                                        parallel_tool_calls=False))
        call = a["choices"][0]["message"]["tool_calls"][0]
        assert call["function"]["name"] == "get_weather" and json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome"), a
        assert a["choices"][0]["finish_reason"] == "tool_calls" and call["id"].startswith("call_"), a
        events = s.events("/v1/chat/completions", chat("Weather in Paris?", tools=[TOOL], max_tokens=100, stream=True,
                                                       parallel_tool_calls=False,
                                                       tool_choice={"type": "function", "function": {"name": "get_weather"}}))
        deltas = [d for _, e in events[:-1] for c in e["choices"] for d in c["delta"].get("tool_calls", [])]
        assert deltas[0]["function"]["name"] == "get_weather" and deltas[0]["id"], deltas
        assert json.loads("".join(d["function"].get("arguments", "") for d in deltas)) == json.loads(call["function"]["arguments"]), deltas
        # The answer of the tool goes back in.
        history = chat("Weather in Paris?", tools=[TOOL], max_tokens=8)
        history["messages"] += [a["choices"][0]["message"], {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."}]
        s.json("POST", "/v1/chat/completions", history)
        e = s.json("POST", "/v1/chat/completions", chat("x", tool_choice="required"), expect=400)
        assert e["error"]["param"] == "tool_choice", e
        e = s.json("POST", "/v1/chat/completions", chat("x", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}), expect=400)
        assert e["error"]["param"] == "response_format", e


def test_completions_and_embeddings(ruvllm):
    with Server(ruvllm) as s:
        a = s.json("POST", "/v1/completions", {"prompt": ["One two", "The sea"], "n": 2, "max_tokens": 4, "logprobs": 1, "temperature": 0})
        assert [c["index"] for c in a["choices"]] == [0, 1, 2, 3], a
        assert all(len(c["logprobs"]["tokens"]) == 4 for c in a["choices"]), a
        ids = s.json("POST", "/tokenize", {"content": "One two", "add_special": True})["tokens"]
        b = s.json("POST", "/v1/completions", {"prompt": ids, "max_tokens": 4, "temperature": 0})
        assert b["choices"][0]["text"] == a["choices"][0]["text"], (a, b)
        assert s.json("POST", "/detokenize", {"tokens": s.json("POST", "/tokenize", {"content": "Grüße, world"})["tokens"]})["content"] == "Grüße, world"
        events = s.events("/v1/completions", {"prompt": "One two", "max_tokens": 4, "temperature": 0, "stream": True})
        assert "".join(e["choices"][0]["text"] for _, e in events[:-1]) == a["choices"][0]["text"]

        texts = ["The backup starts at night.", "Cats sleep."]
        a = s.json("POST", "/v1/embeddings", {"model": "ruvllm-nano-encoder", "input": texts})
        b = s.json("POST", "/v1/embeddings", {"model": "ruvllm-nano-encoder", "input": texts, "encoding_format": "base64"})
        for i in range(2):
            raw = base64.b64decode(b["data"][i]["embedding"])
            floats = struct.unpack(f"<{len(raw) // 4}f", raw)
            assert len(floats) == 384 and max(abs(x - y) for x, y in zip(floats, a["data"][i]["embedding"])) < 1e-6
            assert abs(sum(x * x for x in floats) - 1) < 1e-3
        assert a["usage"]["prompt_tokens"] > 4
        tokens = s.json("POST", "/tokenize", {"content": texts[0], "model": "ruvllm-nano-encoder", "add_special": True})["tokens"]
        c = s.json("POST", "/v1/embeddings", {"input": [tokens]})
        same = sum(x * y for x, y in zip(c["data"][0]["embedding"], a["data"][0]["embedding"]))
        assert same > 0.95, same
        e = s.json("POST", "/v1/embeddings", {"input": "word " * 5000}, expect=400)
        assert e["error"]["code"] == "context_length_exceeded" and "at most" in e["error"]["message"], e
        e = s.json("POST", "/v1/embeddings", {"input": "x", "model": "ruvllm-nano-l"}, expect=400)
        assert "ruvllm-nano-encoder" in e["error"]["message"], e
        r = s.json("POST", "/v1/rerank", {"query": "When does the backup run?", "documents": ["Cats sleep.", "The backup runs at night.", "Lunch."],
                                          "top_n": 2, "return_documents": True})
        assert r["results"][0]["index"] == 1 and len(r["results"]) == 2, r


def test_memory_and_ask(ruvllm):
    with Server(ruvllm) as s:
        e = s.json("GET", "/v1/memory", expect=404)
        assert e["error"]["message"], e
        node = s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30.", "title": "Backup", "tags": ["ops"]}, expect=201)
        more = s.json("POST", "/v1/memory", {"nodes": [{"text": "Anna signs off releases."}, {"text": "Bob keeps bees.", "type": "fact"}]}, expect=201)["data"]
        doc = s.json("POST", "/v1/memory/remember", {"text": "# Office\n\nThe office closes at six o'clock.\n", "name": "office.md"}, expect=201)
        assert doc["passages_added"] == 1, doc
        assert s.json("POST", "/v1/memory/remember", {"text": "# Office\n\nThe office closes at six o'clock.\n", "name": "office.md"}, expect=201)["unchanged"]
        hits = s.json("POST", "/v1/memory/search", {"query": "when does the backup begin", "k": 2})["data"]
        assert hits[0]["node"]["id"] == node["id"], hits

        a = s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?"})
        assert "02:30" in a["answer"] and a["citations"][0]["verbatim"] and a["citations"][0]["id"] == node["id"], a
        assert {"embed", "retrieve", "prefill", "generate"} <= set(a["stages_ms"]), a["stages_ms"]
        events = s.events("/v1/ask", {"question": "When does the nightly backup start?", "stream": True})
        assert events[0][0] == "sources" and events[-1][0] == "answer", [n for n, _ in events]
        assert "".join(d["text"] for n, d in events if n == "delta") == events[-1][1]["text"] == a["text"], events
        only = s.json("POST", "/v1/ask", {"question": "bees", "only_sources": True})
        assert only["finish"] == "retrieved" and only["answer"] is None and only["sources"], only

        # Memory in a chat is opt-in and visible.
        plain = s.json("POST", "/v1/chat/completions", chat("When does the nightly backup start?"))
        assert "ruvllm" not in plain, plain
        for ask in (chat("When does the nightly backup start?", ruvllm={"memory": True}), chat("When does the nightly backup start?", model="auto")):
            a = s.json("POST", "/v1/chat/completions", ask)
            assert "02:30" in a["choices"][0]["message"]["content"], a
            assert a["ruvllm"]["memory"]["sources"][0]["id"] == node["id"], a["ruvllm"]
            events = s.events("/v1/chat/completions", {**ask, "stream": True})
            own = [e["ruvllm"] for _, e in events[:-1] if "ruvllm" in e]
            assert own and own[0]["memory"]["sources"][0]["id"] == node["id"], events
        # With tools the sources are a system message.
        a = s.json("POST", "/v1/chat/completions", chat("When does the nightly backup start?", ruvllm={"memory": True}, tools=[TOOL]))
        assert a["ruvllm"]["memory"]["sources"], a

        # Change, link, look around, forget.
        changed = s.json("PATCH", f"/v1/memory/{node['id']}", {"text": "The nightly backup starts at 03:15."})
        assert changed["version"] == 2 and changed["tags"] == ["ops"], changed
        assert "03:15" in s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?"})["answer"]
        history = s.json("GET", f"/v1/memory/{node['id']}/history")["data"]
        assert [h["what"] for h in history][:2] == ["update", "add"], history
        edge = s.json("POST", "/v1/memory/edges", {"src": node["id"], "dst": more[0]["id"], "type": "follows", "weight": 0.5}, expect=201)
        graph = s.json("GET", f"/v1/memory/{node['id']}/graph?hops=2")
        assert {n["id"] for n in graph["nodes"]} == {node["id"], more[0]["id"]} and graph["edges"][0]["id"] == edge["id"], graph
        s.json("DELETE", f"/v1/memory/edges/{edge['id']}")
        assert len(s.json("GET", f"/v1/memory/{node['id']}/graph")["nodes"]) == 1
        page = s.json("GET", "/v1/memory?limit=2")
        assert len(page["data"]) == 2 and page["has_more"], page
        assert [n["id"] for n in s.json("GET", "/v1/memory?tag=ops")["data"]] == [node["id"]]
        s.json("DELETE", f"/v1/memory/{node['id']}")
        s.json("GET", f"/v1/memory/{node['id']}", expect=404)
        assert [x["name"] for x in s.json("GET", "/v1/memory/sources")["data"]] == ["office.md"]
        assert s.json("DELETE", "/v1/memory/sources?name=office.md")["nodes"] == 1

        # What is exported can be imported elsewhere.
        status, _, export = s.request("GET", "/v1/memory/export")
        assert status == 200 and json.loads(export.split(b"\n")[0])["kind"] == "ruvllm-memory", export[:200]
        with Server(ruvllm) as other:
            done = other.json("POST", "/v1/memory/import", export)
            assert done["nodes"] == 2, done
            assert other.json("GET", "/v1/memory/stats")["vectors"] == 2

        # Scopes hide.
        mine = s.json("POST", "/v1/memory", {"text": "Ada's locker code is 4711.", "scope": {"user": "ada"}}, expect=201)
        s.json("GET", f"/v1/memory/{mine['id']}", expect=404)
        s.json("GET", f"/v1/memory/{mine['id']}?user=ada")
        assert not any("4711" in h["node"]["text"] for h in s.json("POST", "/v1/memory/search", {"query": "locker code"})["data"])
        a = s.json("POST", "/v1/ask", {"question": "What is Ada's locker code?", "scope": {"user": "ada"}})
        assert any(x["id"] == mine["id"] for x in a["sources"]), a


def test_agents(ruvllm):
    """Tasks go to agents; what is taught and how tasks went counts at once and after a restart."""
    with tempfile.TemporaryDirectory() as data:
        with Server(ruvllm, data=data) as s:
            a = s.json("POST", "/v1/agents/route", {"task": "find out why the nightly build crashes with a segmentation fault"})
            names = [i["agent"] for i in s.json("GET", "/v1/agents")["data"]]
            assert len(names) >= 13 and a["agent"] in names and not a["abstains"] and a["reason"], a
            assert 0 < a["probability"] <= 1 and all(b["agent"] in names for b in a["alternatives"]), a
            for task in ("translate the menu into French", "translate this letter into German", "translate the manual into Spanish"):
                s.json("POST", "/v1/agents/teach", {"agent": "translator", "task": task, "purpose": "translates texts", "type": "improve"})
            assert s.json("POST", "/v1/agents/route", {"task": "translate the contract into Italian"})["agent"] == "translator"
            s.json("POST", "/v1/agents/outcome", {"agent": "translator", "task": "translate the contract into Italian", "good": True})
            s.json("POST", "/v1/agents/outcome", {"agent": "translator", "task": "explain the contract", "good": False, "right": names[0]})
            for path, body, field in (("route", {"task": ""}, "task"), ("route", {"task": 3}, "task"), ("teach", {"agent": "", "task": "x"}, "agent"),
                                      ("teach", {"agent": "a", "task": "x", "type": "juggle"}, "type"), ("outcome", {"agent": "a", "task": "x"}, None),
                                      ("outcome", {"agent": "translator", "task": "x", "good": True, "right": "coder"}, None)):
                e = s.json("POST", f"/v1/agents/{path}", body, expect=400)["error"]
                assert e["message"] and (field is None or e["param"] == field), (path, body, e)
            assert s.metric("ruvllm_agent_routes_total") == 2
        with Server(ruvllm, data=data) as s:
            # a task that went well is an example, too
            mine = [i for i in s.json("GET", "/v1/agents")["data"] if i["agent"] == "translator"]
            assert mine and mine[0]["taught"] == 4 and mine[0]["good"] == 1 and mine[0]["bad"] == 1 and not mine[0]["bundled"], mine
            s.json("DELETE", "/v1/agents/translator")
            assert s.json("POST", "/v1/agents/route", {"task": "translate the contract into Italian"})["agent"] != "translator"
            s.json("DELETE", "/v1/agents/coder", expect=400)


def test_routing(ruvllm):
    """The router's decisions are kept, counted, and carry what the user said of the answer."""
    with Server(ruvllm, "--api-keys", "@/keys.json", files={"keys.json": keys("ada", "admin")}) as s:
        admin, ada = {"Authorization": "Bearer sk-admin-00"}, {"Authorization": "Bearer sk-ada-0000"}
        s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30."}, admin, expect=201)
        assert s.json("GET", "/v1/route/decisions", headers=admin)["data"] == []
        s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?", "model": "l"}, admin)
        assert s.json("GET", "/v1/route/decisions", headers=admin)["data"] == []  # a named tier is no decision
        a = s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?", "model": "auto"}, admin)
        s.json("POST", "/v1/chat/completions", chat("When does the backup start?", model="auto"), ada)
        kept = s.json("GET", "/v1/route/decisions", headers=admin)["data"]
        assert [d["question"] for d in kept] == ["When does the backup start?", "When does the nightly backup start?"], kept
        assert kept[1]["answer_id"] == a["id"] and kept[1]["tier"] == a["route"]["tier"] and kept[1]["feedback"] is None, kept
        assert [d["question"] for d in s.json("GET", "/v1/route/decisions", headers=ada)["data"]] == ["When does the backup start?"]
        s.json("POST", "/v1/feedback", {"answer_id": a["id"], "feedback": "accept"}, admin)
        assert s.json("GET", "/v1/route/decisions?limit=2", headers=admin)["data"][1]["feedback"] == "accept"
        s.json("GET", "/v1/route/decisions?limit=0", headers=admin, expect=400)
        route = s.json("POST", "/v1/route", {"question": "When does the nightly backup start?"}, admin)
        assert route["tier"] in ("s", "m", "l") and abs(sum(t["probability"] for t in route["tiers"]) - 1) < 1e-3, route
        page = s.request("GET", "/metrics", headers=admin)[2].decode()
        for line in ('ruvllm_judge_quality_count 3', 'ruvllm_feedback_total{feedback="accept"} 1', 'ruvllm_memory_writes_total{outcome="new"} 1'):
            assert line in page.splitlines(), f"{line}\n{page}"
        answers = [l for l in page.splitlines() if l.startswith("ruvllm_router_answers_total{")]
        assert sum(int(l.rsplit(" ", 1)[1]) for l in answers) == 2, answers


def test_refusals(ruvllm):
    with Server(ruvllm, "--max-body-bytes", "65536", "--context", "512") as s:
        def error(body, code, param=None, status=400, path="/v1/chat/completions"):
            e = s.json("POST", path, body, expect=status)["error"]
            assert e["code"] == code and (param is None or e["param"] == param) and e["message"], e
            return e["message"]

        assert "gpt-9" in error(chat("x", model="gpt-9"), "model_not_found", "model", 404)
        assert "functions" in error(chat("x", functions=[{}]), "unsupported", "functions")
        assert "'temperature' must be a number" in error(chat("x", temperature="hot"), None, "temperature")
        error(chat("x", n=99), None, "n")
        error({"messages": []}, None, "messages")
        error({"messages": [{"role": "robot", "content": "x"}]}, None, "messages")
        error(b"{not json", "invalid_format")
        error(b'{"a": 1, "a": 2}', "invalid_format")
        error(b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}", "limit_exceeded")
        message = error(chat("word " * 3000), "context_length_exceeded")
        assert "512" in message, message
        error(chat("word " * 20000), "request_too_large", status=413)
        s.json("POST", "/v1/chat/completions", chat("x", something_new={"a": 1}, user="me", metadata={}))  # unknown fields are nobody's business
        e = s.json("DELETE", "/v1/models", expect=405)
        assert "GET" in e["error"]["message"], e
        s.json("GET", "/nowhere", expect=404)
        s.json("GET", "/v1/memory/%00", expect=400)
        status, headers, _ = s.request("GET", "/livez", headers={"x-request-id": "mine-1"})
        assert headers["x-request-id"] == "mine-1"
        status, headers, _ = s.request("GET", "/livez", headers={"x-request-id": "bad id\x01" if False else "b" * 100})
        assert len(headers["x-request-id"]) == 36, headers

        # Pages of this machine may ask, others may not.
        status, headers, _ = s.request("GET", "/livez", headers={"Origin": "http://localhost:5173"})
        assert status == 200 and headers["Access-Control-Allow-Origin"] == "http://localhost:5173", headers
        for origin in ("http://evil.example", "null", "http://localhost.evil.example"):
            assert s.request("GET", "/livez", headers={"Origin": origin})[0] == 403, origin
        assert s.request("GET", "/livez", headers={"Host": "evil.example"})[0] == 403
        status, headers, _ = s.request("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "http://127.0.0.1:3000", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"})
        assert status == 204 and headers["Access-Control-Allow-Headers"] == "authorization", headers


def said(e):
    """An error's message, whatever the API's shape."""
    error = e["error"]
    return error if isinstance(error, str) else error["message"]


def test_refused_by_name(ruvllm):
    """What an API's clients may ask for and this server cannot do is a 400 that names it; what nobody knows is passed over."""
    user = [{"role": "user", "content": "x"}]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    requests = {
        "/v1/chat/completions": ({"messages": user, "max_tokens": 1}, [
            {"functions": [{"name": "f"}]}, {"function_call": "auto"}, {"audio": {"voice": "a"}}, {"prediction": {"type": "content", "content": "a"}},
            {"web_search_options": {"a": 1}}, {"modalities": ["text", "audio"]}, {"tools": [{"type": "web_search", "name": "w"}]}]),
        "/v1/completions": ({"prompt": "x", "max_tokens": 1}, [{"suffix": "y"}, {"echo": True}, {"best_of": 3}]),
        "/v1/embeddings": ({"input": "x"}, [{"dimensions": 7}]),
        "/v1/responses": ({"input": "x", "max_output_tokens": 1}, [
            {"previous_response_id": "resp_1"}, {"conversation": "c"}, {"background": True}, {"prompt": {"id": "p"}}, {"truncation": "auto"}]),
        "/v1/messages": ({"model": "s", "max_tokens": 1, "messages": user}, [{"mcp_servers": [{"url": "u"}]}, {"container": "c"},
                                                                           {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}]),
        "/api/generate": ({"model": "s", "prompt": "x", "stream": False, "options": {"num_predict": 1}}, [
            {"suffix": "y"}, {"images": ["aGk="]}, {"template": "{{ .Prompt }}"}, {"context": [1]}, {"options": {"mirostat": 1}}]),
        "/api/chat": ({"model": "s", "messages": user, "stream": False, "options": {"num_predict": 1}}, [{"options": {"mirostat": 2}}]),
        "/api/embed": ({"model": "encoder", "input": "x"}, [{"dimensions": 7}]),
    }
    with Server(ruvllm, "--model", "s") as s:
        for path, (body, fields) in requests.items():
            s.json("POST", path, {**body, "nobody_knows_this": {"a": 1}})
            for field in fields:
                name = next(iter(field)) if "options" not in field else "mirostat"
                e = said(s.json("POST", path, {**body, **field}, expect=400))
                assert name.rstrip("s") in e or (name == "dimensions" and "shortened" in e), (path, field, e)
        for path, more in (("/v1/chat/completions", {}), ("/v1/responses", {"input": image})):
            e = said(s.json("POST", path, {"messages": image, "max_tokens": 1, **more}, expect=400))
            assert "image_url" in e, e


def test_too_long(ruvllm):
    """A prompt that does not fit is refused with its size and the limit, by every API, and nothing is cut."""
    long = "word " * 2000
    user = [{"role": "user", "content": long}]
    with Server(ruvllm, "--model", "s", "--context", "512") as s:
        for path, body in (("/v1/chat/completions", {"messages": user}), ("/v1/chat/completions", {"messages": user, "stream": True}),
                           ("/v1/completions", {"prompt": long}), ("/v1/responses", {"input": long}),
                           ("/v1/messages", {"model": "s", "max_tokens": 4, "messages": user}),
                           ("/api/chat", {"model": "s", "messages": user}), ("/api/generate", {"model": "s", "prompt": long}),
                           ("/v1/embeddings", {"input": 3 * long}), ("/v1/rerank", {"query": "x", "documents": ["a", 3 * long]})):
            e = said(s.json("POST", path, body, expect=400))
            sizes = sorted(int(n) for n in re.findall(r"\d+", e))
            limit = 2048 if "embed" in path or "rerank" in path else 512
            assert limit in sizes and sizes[-1] > max(limit, 1500), (path, e)
        count = s.json("POST", "/v1/messages/count_tokens", {"model": "s", "messages": user})["input_tokens"]
        assert str(count) in said(s.json("POST", "/v1/messages", {"model": "s", "max_tokens": 4, "messages": user}, expect=400))


def keys(*names):
    return json.dumps({"keys": [k for k in ({"name": "chat", "key": "sk-chat-000", "scopes": ["chat"]},
                                            {"name": "ada", "key": "sk-ada-0000", "scopes": ["chat", "read", "write"], "user": "ada", "memory": True},
                                            {"name": "bob", "sha256": "6ab7ebd4d3ea6e92f0b1e4e4aa6c0ab3ce2b3c2f4c5ff3d8a4ff1ef8f0f0f0f0",
                                             "scopes": ["chat", "read", "write"], "user": "bob"},
                                            {"name": "admin", "key": "sk-admin-00", "scopes": ["chat", "read", "write", "learn", "admin"]}) if k["name"] in names]})


def test_keys(ruvllm):
    def bearer(key):
        return {"Authorization": f"Bearer {key}"}

    with Server(ruvllm, "--api-keys", "@/keys.json", files={"keys.json": keys("chat", "ada", "bob", "admin")}) as s:
        e = s.json("POST", "/v1/chat/completions", chat("x"), expect=401)
        assert e["error"]["code"] == "invalid_api_key", e
        s.json("POST", "/v1/chat/completions", chat("x"), bearer("sk-chat-001"), expect=401)
        s.json("POST", "/v1/chat/completions", chat("x", max_tokens=2), bearer("sk-chat-000"))
        s.json("POST", "/v1/chat/completions", chat("x", max_tokens=2), {"x-api-key": "sk-chat-000"})
        e = s.json("GET", "/v1/memory", headers=bearer("sk-chat-000"), expect=403)
        assert e["error"]["code"] == "insufficient_scope" and "read" in e["error"]["message"], e
        assert s.request("GET", "/metrics", headers=bearer("sk-ada-0000"))[0] == 403
        assert s.request("GET", "/metrics", headers=bearer("sk-admin-00"))[0] == 200
        assert s.request("GET", "/livez")[0] == 200
        # A key that speaks for somebody stores and sees as them, and nobody else's.
        node = s.json("POST", "/v1/memory", {"text": "Ada's locker code is 4711."}, bearer("sk-ada-0000"), expect=201)
        assert node["scope"]["user"] == "ada", node
        s.json("GET", f"/v1/memory/{node['id']}", headers=bearer("sk-admin-00"), expect=404)
        s.json("GET", f"/v1/memory/{node['id']}?every_scope=1", headers=bearer("sk-admin-00"))
        s.json("GET", f"/v1/memory/{node['id']}?every_scope=1", headers=bearer("sk-ada-0000"), expect=400)
        e = s.json("POST", "/v1/memory/search", {"query": "x", "scope": {"user": "bob"}}, bearer("sk-ada-0000"), expect=400)
        assert "ada" in e["error"]["message"], e
        a = s.json("POST", "/v1/chat/completions", chat("What is Ada's locker code?"), bearer("sk-ada-0000"))
        assert a["ruvllm"]["memory"]["sources"][0]["id"] == node["id"], a  # this key's chats use memory by themselves
        common = s.json("POST", "/v1/memory", {"text": "Everybody's tea is green."}, bearer("sk-admin-00"), expect=201)
        s.json("GET", f"/v1/memory/{common['id']}", headers=bearer("sk-ada-0000"))
        s.json("DELETE", f"/v1/memory/{common['id']}", headers=bearer("sk-ada-0000"), expect=400)
        # What a key may not do is refused with the scope that it lacks, and MCP's tools keep to the same.
        for key, method, path, scope in (("sk-chat-000", "POST", "/v1/ask", "read"), ("sk-chat-000", "POST", "/v1/memory", "read"),
                                         ("sk-chat-000", "POST", "/v1/agents/route", "read"), ("sk-ada-0000", "POST", "/v1/agents/teach", "learn"),
                                         ("sk-ada-0000", "GET", "/v1/learn", "learn"), ("sk-ada-0000", "POST", "/v1/learn/rollback", "learn"),
                                         ("sk-ada-0000", "GET", "/v1/memory/export", "admin"), ("sk-ada-0000", "POST", "/v1/memory/import", "admin")):
            e = s.json(method, path, {} if method == "POST" else None, bearer(key), expect=403)["error"]
            assert e["code"] == "insufficient_scope" and f"'{scope}'" in e["message"], (path, e)
        for key, tool, arguments in (("sk-chat-000", "memory_search", {"query": "x"}), ("sk-chat-000", "memory_add", {"text": "x"}),
                                     ("sk-ada-0000", "agent_outcome", {"task": "x", "agent": "coder", "good": True})):
            answer = s.json("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}, bearer(key))
            assert answer["result"]["isError"] and tool in answer["result"]["content"][0]["text"], answer
        s.json("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, expect=401)
        # SIGHUP reads the keys again; a broken file leaves them.
        path = pathlib.Path(s.dir.name) / "keys.json"
        path.write_text("{broken")
        s.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        s.json("POST", "/v1/chat/completions", chat("x", max_tokens=2), bearer("sk-chat-000"))
        path.write_text(keys("admin"))
        s.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while s.request("GET", "/v1/models", headers=bearer("sk-chat-000"))[0] != 401:
            assert time.monotonic() < end, "the new keys are not in force"
            time.sleep(0.05)
        log = s.read_log()
        assert "keys stay as they were" in log and "sk-" not in log, log[-2000:]
    # A file that others can read is refused.
    try:
        path = None
        server = Server(ruvllm, "--api-keys", "/etc/passwd")
    except AssertionError as e:
        assert "chmod 600" in str(e), e
    else:
        server.process.kill()
        raise AssertionError("a readable key file was taken")


def test_sockets(ruvllm):
    """A unix socket, and TLS."""
    with Server(ruvllm, "--unix-socket", "@/ruvllm.sock") as s:
        path = f"{s.dir.name}/ruvllm.sock"
        c = socket.socket(socket.AF_UNIX)
        c.connect(path)
        c.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while part := c.recv(4096):
            data += part
        assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"ok\n"), data
        c.close()
        assert pathlib.Path(path).stat().st_mode & 0o777 == 0o600
    with tempfile_certificate() as (cert, key):
        with_tls = Server(ruvllm, "--tls-cert", cert, "--tls-key", key)
        try:
            import ssl
            context = ssl.create_default_context(cafile=cert)
            context.check_hostname = False
            end = time.monotonic() + 60
            while True:
                with socket.create_connection(("127.0.0.1", with_tls.port), timeout=30) as tcp, context.wrap_socket(tcp) as tls:
                    tls.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    data = b""
                    while part := tls.recv(4096):
                        data += part
                if data.startswith(b"HTTP/1.1 200"):
                    break
                assert time.monotonic() < end, data
                time.sleep(0.1)
            body = json.dumps(chat("Hello", stream=True))
            with socket.create_connection(("127.0.0.1", with_tls.port), timeout=30) as tcp, context.wrap_socket(tcp) as tls:
                tls.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                data = b""
                while part := tls.recv(4096):
                    data += part
            assert b"[DONE]" in data, data[-300:]
            # SIGHUP takes another certificate; a broken one leaves it.
            def served():
                return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", with_tls.port), timeout=30))

            first = served()
            make_certificate(cert, key)
            assert served() == first
            with_tls.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            while served() == first:
                assert time.monotonic() < end, "the new certificate is not in force"
                time.sleep(0.05)
            second = served()
            pathlib.Path(cert).write_text("nonsense")
            with_tls.process.send_signal(signal.SIGHUP)
            while "certificate stays as it was" not in with_tls.read_log():
                assert time.monotonic() < end, with_tls.read_log()
                time.sleep(0.05)
            assert served() == second
            with socket.create_connection(("127.0.0.1", with_tls.port), timeout=30) as tcp:  # plain text to a TLS port
                tcp.sendall(b"GET / HTTP/1.1\r\n\r\n")
                tcp.recv(100)
        finally:
            with_tls.stop()


def make_certificate(cert, key):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)


class tempfile_certificate:
    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        cert, key = f"{self.dir.name}/cert.pem", f"{self.dir.name}/key.pem"
        make_certificate(cert, key)
        return cert, key

    def __exit__(self, *_):
        self.dir.cleanup()


def test_operations(ruvllm):
    with Server(ruvllm) as s:
        assert s.json("GET", "/health")["status"] == "ok"
        s.json("POST", "/v1/memory", {"text": "The nightly backup starts at 02:30."}, expect=201)
        s.json("POST", "/v1/ask", {"question": "When does the nightly backup start?"})
        s.json("POST", "/v1/chat/completions", chat("Hello"))
        s.json("POST", "/v1/route", {"question": "When does the nightly backup start?"})  # opens the router, the next one the learner
        s.json("GET", "/v1/learn")
        _, headers, page = s.request("GET", "/metrics")
        promtool = shutil.which("promtool")
        assert promtool, "promtool is missing: scripts/setup.sh test installs it (package prometheus)"
        check = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True)
        assert check.returncode == 0 and not check.stderr.strip(), check.stderr.decode()
        assert s.metric("ruvllm_generation_tokens_total") > 0
        assert s.metric("ruvllm_http_requests_total", route="/v1/ask", status="200") == 1
        assert s.metric("ruvllm_memory_nodes", type="Fact") >= 1
        assert s.metric("ruvllm_ask_stage_duration_seconds_count", stage="generate") == 1
        documented = (pathlib.Path(__file__).parents[2] / "docs/metrics.md").read_text()
        for line in page.decode().splitlines():
            if line.startswith("# TYPE"):
                assert f"`{line.split()[2]}`" in documented, f"docs/metrics.md does not have {line.split()[2]}"

        # The log has a line a request and never what was said.
        s.json("POST", "/v1/chat/completions", chat("a-secret-word", max_tokens=2), {"x-request-id": "find-me"})
        time.sleep(0.2)
        lines = [json.loads(l) for l in s.read_log().splitlines()]
        mine = [l for l in lines if l.get("request_id") == "find-me"]
        assert len(mine) == 1 and mine[0]["status"] == 200 and mine[0]["output_tokens"] == 2, mine
        assert "a-secret-word" not in s.read_log()

        # SIGTERM: what runs ends, what comes is refused, and the answer in progress is whole.
        result = {}

        def talk(_):
            result["events"] = s.events("/v1/chat/completions", chat("Tell me everything.", stream=True, max_tokens=400, ignore_eos=True))

        def end(_):
            give_up = time.monotonic() + 30
            while s.metric("ruvllm_num_requests_running") == 0 and "events" not in result and time.monotonic() < give_up:
                time.sleep(0.01)
            s.process.send_signal(signal.SIGTERM)

        threads(2, lambda i: (talk, end)[i](i))
        assert result["events"][-1][1] == "[DONE]", result["events"][-1]


def test_busy(ruvllm):
    """More than the queue holds is answered 429 with Retry-After, and the server goes on."""
    with Server(ruvllm, "--max-queue", "2") as s:
        statuses, retry = [], []

        def ask(i):
            status, headers, _ = s.request("POST", "/v1/chat/completions", chat(f"Tell me {i}", max_tokens=60, ignore_eos=True, n=16))
            statuses.append(status)
            if status == 429:
                retry.append(int(headers["Retry-After"]))

        for _ in range(20):
            threads(40, ask)
            if 429 in statuses:
                break
        assert set(statuses) == {200, 429}, sorted(set(statuses))
        assert retry and all(r >= 1 for r in retry), retry
        s.wait_idle()
        s.json("POST", "/v1/chat/completions", chat("Hello"))


run([test_chat, test_structured, test_completions_and_embeddings, test_memory_and_ask, test_agents, test_routing, test_refusals, test_refused_by_name, test_too_long, test_keys, test_sockets, test_operations, test_busy])

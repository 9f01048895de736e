// mcp.mjs - the MCP server with @modelcontextprotocol/sdk over stdio and HTTP, and message by message for the modern protocol.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { assert, base, check, finish } from "./check.mjs";

const program = process.env.RUVLLM_PROGRAM;
const data = mkdtempSync(join(tmpdir(), "ruvllm-mcp-"));
process.on("exit", () => rmSync(data, { recursive: true, force: true }));
const env = { ...process.env, RUVLLM_DATA_DIR: data };
delete env.RUVLLM_PROGRAM;
delete env.RUVLLM_URL;

async function useTools(client) {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((t) => t.name), ["memory_search", "memory_add", "memory_forget", "ask", "agent_route", "agent_outcome"]);
  assert.equal(tools.find((t) => t.name === "memory_search").annotations.readOnlyHint, true);
  const added = await client.callTool({ name: "memory_add", arguments: { text: "The lighthouse keeper is called Morwenna Tregear.", source: "harbour.md", tags: ["people"] } });
  assert.ok(!added.isError, JSON.stringify(added));
  const { id } = added.structuredContent;
  const found = await client.callTool({ name: "memory_search", arguments: { query: "Who keeps the lighthouse?", limit: 3 } });
  assert.ok(!found.isError, JSON.stringify(found));
  assert.equal(found.structuredContent.passages[0].id, id);
  assert.match(found.content[0].text, /Morwenna/);
  const progress = [];
  const answer = await client.callTool({ name: "ask", arguments: { question: "What is the lighthouse keeper called?", model: "s" } }, undefined, { onprogress: (p) => progress.push(p) });
  assert.ok(!answer.isError, JSON.stringify(answer));
  assert.equal(answer.structuredContent.sources[0].id, id);
  assert.equal(typeof answer.structuredContent.answer, "string");
  assert.ok(progress.length >= 1 && progress.every((p, i) => i === 0 || p.progress > progress[i - 1].progress));
  const wrong = await client.callTool({ name: "memory_search", arguments: { question: "x" } });
  assert.ok(wrong.isError && /question/.test(wrong.content[0].text));
  await assert.rejects(client.callTool({ name: "nothing", arguments: {} }), (e) => e.code === -32602);
  assert.ok(!(await client.callTool({ name: "memory_forget", arguments: { id } })).isError);
  const again = await client.callTool({ name: "memory_forget", arguments: { id } });
  assert.ok(again.isError);
  const task = "find out why the nightly build crashes with a segmentation fault";
  const routed = await client.callTool({ name: "agent_route", arguments: { task } });
  assert.ok(!routed.isError, JSON.stringify(routed));
  assert.equal(routed.structuredContent.abstains, false);
  assert.ok(routed.content[0].text.startsWith(routed.structuredContent.agent));
  const noted = await client.callTool({ name: "agent_outcome", arguments: { task, agent: routed.structuredContent.agent, good: true } });
  assert.ok(!noted.isError, JSON.stringify(noted));
  for (const [name, args] of [["agent_route", { task: "" }], ["agent_outcome", { task, agent: "coder", good: "yes" }], ["agent_outcome", { task, agent: "nobody-known", good: true }]])
    assert.ok((await client.callTool({ name, arguments: args })).isError, name);
}

check("the SDK over stdio", async () => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StdioClientTransport({ command: program, args: ["mcp"], env, stderr: "inherit" }));
  assert.equal(client.getServerVersion().name, "ruvllm");
  assert.match(client.getInstructions(), /memory_search/);
  await client.ping();
  await useTools(client);
  await client.close();
});

check("the SDK over HTTP", async () => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${base}/mcp`)));
  await client.ping();
  await useTools(client);
  await client.close();
});

// A process that is spoken to line by line.
function open(...args) {
  const child = spawn(program, ["mcp", ...args], { env, stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    send: (message) => child.stdin.write((typeof message === "string" ? message : JSON.stringify({ jsonrpc: "2.0", ...message })) + "\n"),
    next: async () => JSON.parse((await lines.next()).value),
    end: async () => {
      child.stdin.end();
      const code = await new Promise((done) => child.on("exit", done));
      assert.equal(code, 0);
      assert.ok((await lines.next()).done);
    },
  };
}

const meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": { name: "t", version: "1" }, "io.modelcontextprotocol/clientCapabilities": {} };

check("modern messages over stdio", async () => {
  const s = open();
  s.send({ id: 1, method: "server/discover", params: { _meta: meta } });
  const found = (await s.next()).result;
  assert.ok(found.supportedVersions.includes("2026-07-28") && found.supportedVersions.includes("2025-11-25"));
  assert.equal(found.resultType, "complete");
  assert.equal(found._meta["io.modelcontextprotocol/serverInfo"].name, "ruvllm");
  assert.ok(found.capabilities.tools && found.ttlMs > 0 && found.cacheScope === "public");
  s.send({ id: "two", method: "tools/list", params: { _meta: meta } });
  const list = await s.next();
  assert.equal(list.id, "two");
  assert.ok(list.result.tools.length >= 4 && list.result.resultType === "complete" && list.result.ttlMs > 0);
  s.send({ id: 3, method: "tools/list", params: { _meta: { ...meta, "io.modelcontextprotocol/protocolVersion": "1900-01-01" } } });
  const old = (await s.next()).error;
  assert.equal(old.code, -32022);
  assert.equal(old.data.requested, "1900-01-01");
  s.send({ id: 4, method: "tools/list", params: { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } } });
  assert.equal((await s.next()).error.code, -32602);
  s.send({ id: 5, method: "ping", params: { _meta: meta } });
  assert.equal((await s.next()).error.code, -32601);
  await s.end();
});

check("JSON-RPC's rules over stdio", async () => {
  const s = open();
  for (const [message, code] of [["{nonsense", -32700], ["[]", -32600], ['[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600], ["1", -32600],
    ['{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600], ['{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600], ['{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600],
    ['{"jsonrpc":"2.0","id":1}', -32600], ['{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600], ['{"jsonrpc":"2.0","id":1,"method":"resources/list"}', -32601],
    ['{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}', -32602], ['{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}', -32602],
    ['{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask","arguments":[]}}', -32602]]) {
    s.send(message);
    assert.equal((await s.next()).error?.code, code, message);
  }
  s.send({ method: "notifications/initialized" });
  s.send({ method: "notifications/anything", params: { x: 1 } });
  s.send({ id: 8, result: {} });
  s.send({ id: 9, method: "ping" });
  assert.deepEqual(await s.next(), { jsonrpc: "2.0", id: 9, result: {} });
  s.send({ id: 10, method: "initialize", params: { protocolVersion: "2024-11-05", capabilities: {}, clientInfo: { name: "t", version: "1" } } });
  assert.equal((await s.next()).result.protocolVersion, "2025-11-25");
  s.send({ id: 11, method: "initialize", params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } } });
  assert.equal((await s.next()).result.protocolVersion, "2025-06-18");
  await s.end();
});

check("a cancelled request is not answered, others are", async () => {
  const s = open();
  s.send({ id: 1, method: "tools/call", params: { name: "memory_add", arguments: { text: "The harbour master is Jory Penrose." } } });
  assert.ok(!(await s.next()).result.isError);
  s.send({ id: 2, method: "tools/call", params: { name: "ask", arguments: { question: "Who is the harbour master?", model: "l" } } });
  s.send({ method: "notifications/cancelled", params: { requestId: 2, reason: "test" } });
  s.send({ id: 3, method: "ping" });
  assert.equal((await s.next()).id, 3);
  s.send({ id: 4, method: "tools/call", params: { name: "memory_search", arguments: { query: "harbour master" } } });
  assert.equal((await s.next()).id, 4);
  await s.end();
});

check("--read-only changes nothing", async () => {
  const s = open("--read-only");
  s.send({ id: 1, method: "tools/call", params: { name: "memory_add", arguments: { text: "x" } } });
  const answer = (await s.next()).result;
  assert.ok(answer.isError && /memory_add/.test(answer.content[0].text));
  s.send({ id: 2, method: "tools/call", params: { name: "agent_outcome", arguments: { task: "x", agent: "coder", good: true } } });
  assert.ok((await s.next()).result.isError);
  await s.end();
});

const post = (body, headers = {}) =>
  fetch(`${base}/mcp`, { method: "POST", headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers }, body: typeof body === "string" ? body : JSON.stringify({ jsonrpc: "2.0", ...body }) });
const modern = (method, name) => ({ "mcp-protocol-version": "2026-07-28", "mcp-method": method, ...(name ? { "mcp-name": name } : {}) });

check("modern messages over HTTP", async () => {
  let r = await post({ id: 1, method: "tools/list", params: { _meta: meta } }, modern("tools/list"));
  assert.equal(r.status, 200);
  assert.ok((await r.json()).result.tools.length >= 4);
  assert.equal(r.headers.get("mcp-session-id"), null);
  const call = { id: 2, method: "tools/call", params: { name: "memory_search", arguments: { query: "anything" }, _meta: meta } };
  r = await post(call, modern("tools/call", "memory_search"));
  assert.equal((await r.json()).result.resultType, "complete");
  r = await post(call, modern("tools/call", "=?base64?" + Buffer.from("memory_search").toString("base64") + "?="));
  assert.equal(r.status, 200);
  for (const headers of [{}, modern("tools/list"), modern("tools/call", "ask"), { ...modern("tools/call", "memory_search"), "mcp-protocol-version": "2025-11-25" }, modern("tools/call")]) {
    r = await post(call, headers);
    assert.equal(r.status, 400);
    assert.equal((await r.json()).error.code, -32020);
  }
  const unknown = { ...meta, "io.modelcontextprotocol/protocolVersion": "2999-01-01" };
  r = await post({ id: 3, method: "tools/list", params: { _meta: unknown } }, { ...modern("tools/list"), "mcp-protocol-version": "2999-01-01" });
  assert.equal(r.status, 400);
  assert.equal((await r.json()).error.code, -32022);
  r = await post({ id: 4, method: "prompts/list", params: { _meta: meta } }, modern("prompts/list"));
  assert.equal(r.status, 404);
  assert.equal((await r.json()).error.code, -32601);
});

check("HTTP's own rules", async () => {
  let r = await post("{");
  assert.equal(r.status, 400);
  assert.equal((await r.json()).error.code, -32700);
  r = await post("[]");
  assert.equal((await r.json()).error.code, -32600);
  r = await post({ method: "notifications/initialized" });
  assert.equal(r.status, 202);
  assert.equal((await r.text()).length, 0);
  assert.equal((await fetch(`${base}/mcp`)).status, 405);
  assert.equal((await fetch(`${base}/mcp`, { method: "DELETE" })).status, 405);
  r = await post({ id: 1, method: "ping" }, { "mcp-protocol-version": "2000-01-01" });
  assert.equal(r.status, 400);
  r = await post({ id: 1, method: "ping" }, { origin: "https://example.com" });
  assert.equal(r.status, 403);
});

await finish();

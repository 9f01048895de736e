// responses.mjs - the openai package against /v1/responses: whole, streamed, functions, items that Codex sends.
import OpenAI from "openai";
import { assert, base, check, checkWeather, finish, weather } from "./check.mjs";

const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
const model = "s";
const tools = [{ type: "function", name: "get_weather", description: "", parameters: weather, strict: true }];

check("a response", async () => {
  const response = await client.responses.create({ model, instructions: "Be short.", input: "Say hello.", temperature: 0, max_output_tokens: 16 });
  assert.match(response.id, /^resp_/);
  assert.ok(["completed", "incomplete"].includes(response.status));
  assert.equal(response.output[0].type, "message");
  assert.ok(response.output_text.length > 0);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
});

check("a stream counts up and ends with the whole", async () => {
  const seen = [];
  let text = "", last = -1, final;
  const stream = await client.responses.create({ model, input: [{ role: "user", content: [{ type: "input_text", text: "Say hello." }] }], temperature: 0, max_output_tokens: 16, stream: true });
  for await (const event of stream) {
    assert.equal(event.sequence_number, last + 1);
    last = event.sequence_number;
    seen.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.completed" || event.type === "response.incomplete") final = event.response;
  }
  assert.deepEqual(seen.slice(0, 4), ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]);
  assert.equal(final.output[0].content[0].text, text);
  assert.ok(final.usage.output_tokens > 0);
});

check("the stream helper", async () => {
  const stream = client.responses.stream({ model, input: "Say hello.", temperature: 0, max_output_tokens: 12 });
  const response = await stream.finalResponse();
  assert.ok(response.output[0].content[0].text.length > 0);
});

check("a forced function, streamed", async () => {
  let json = "", done;
  const stream = await client.responses.create({ model, input: "Weather in Rome?", tools, tool_choice: { type: "function", name: "get_weather" }, parallel_tool_calls: false, temperature: 1, max_output_tokens: 200, stream: true });
  for await (const event of stream) {
    if (event.type === "response.function_call_arguments.delta") json += event.delta;
    if (event.type === "response.output_item.done") done = event.item;
  }
  assert.equal(done.type, "function_call");
  assert.equal(done.arguments, json);
  checkWeather(JSON.parse(json));
});

check("what Codex sends", async () => {
  const developer = { type: "message", role: "developer", content: [{ type: "input_text", text: "<permissions>none</permissions>" }] };
  const response = await client.responses.create({
    model, store: false, parallel_tool_calls: false, reasoning: { effort: "low", summary: "auto" }, include: ["reasoning.encrypted_content"], prompt_cache_key: "k",
    instructions: "You are a coding agent.", max_output_tokens: 8, tool_choice: "auto",
    tools: [...tools, { type: "web_search" }, { type: "local_shell" }, { type: "custom", name: "apply_patch", format: { type: "grammar", syntax: "lark", definition: "start: /x/" } }],
    input: [developer, developer, { type: "message", role: "user", content: [{ type: "input_text", text: "Look." }] },
      { type: "reasoning", summary: [], encrypted_content: "abc" },
      { type: "function_call", call_id: "c1", name: "get_weather", arguments: "{\"city\":\"Rome\",\"days\":1}" },
      { type: "function_call_output", call_id: "c1", output: "sunny" },
      { type: "web_search_call", status: "completed" }, developer],
  });
  assert.ok(response.usage.input_tokens > 10);
  const once = await client.responses.create({ model, input: [developer, { role: "user", content: "x" }], max_output_tokens: 1 });
  const thrice = await client.responses.create({ model, input: [developer, developer, { role: "user", content: "x" }, developer], max_output_tokens: 1 });
  assert.equal(once.usage.input_tokens, thrice.usage.input_tokens);
});

check("a schema", async () => {
  const schema = { type: "object", properties: { a: { type: "string", enum: ["x", "y"] } }, required: ["a"], additionalProperties: false };
  const response = await client.responses.create({ model, input: "x or y?", text: { format: { type: "json_schema", name: "xy", schema, strict: true } }, max_output_tokens: 60 });
  assert.ok(["x", "y"].includes(JSON.parse(response.output_text).a));
});

check("refusals by name", async () => {
  await assert.rejects(client.responses.create({ model, input: "x", previous_response_id: "resp_1" }), (e) => e.status === 400 && /previous_response_id/.test(e.message));
  await assert.rejects(client.responses.create({ model, input: "x", truncation: "auto" }), (e) => e.status === 400 && /truncation/.test(e.message));
  await assert.rejects(client.responses.create({ model, input: [{ type: "message", role: "user", content: [{ type: "input_image", image_url: "x" }] }] }), (e) => e.status === 400 && /input_image/.test(e.message));
});

await finish();

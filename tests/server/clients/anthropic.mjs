// anthropic.mjs - @anthropic-ai/sdk against /v1/messages: whole, streamed, tools, counting, errors.
import Anthropic from "@anthropic-ai/sdk";
import { assert, base, check, checkWeather, finish, weather } from "./check.mjs";

const client = new Anthropic({ baseURL: base, apiKey: "none", maxRetries: 0 });
const model = "s";
const tools = [{ name: "get_weather", description: "The weather of a city", input_schema: weather }];

check("a message", async () => {
  const message = await client.messages.create({
    model, max_tokens: 24, temperature: 0,
    system: [{ type: "text", text: "Be short." }],
    messages: [{ role: "user", content: "Say hello." }],
  });
  assert.equal(message.type, "message");
  assert.equal(message.role, "assistant");
  assert.match(message.id, /^msg_/);
  assert.equal(message.content[0].type, "text");
  assert.ok(message.content[0].text.length > 0);
  assert.ok(["end_turn", "max_tokens"].includes(message.stop_reason));
  assert.ok(message.usage.input_tokens + message.usage.cache_read_input_tokens > 5);
  assert.ok(message.usage.output_tokens >= 1 && message.usage.output_tokens <= 24);
});

check("billing headers do not change the prompt", async () => {
  const count = async (system) =>
    (await client.messages.countTokens({ model, system, messages: [{ role: "user", content: "Hi" }] })).input_tokens;
  const plain = await count([{ type: "text", text: "Be short." }]);
  assert.ok(plain > 3);
  assert.equal(await count([{ type: "text", text: "x-anthropic-billing-header: cc_version=1.2.3; cch=00abc;" },
    { type: "text", text: "Be short." }]), plain);
  assert.equal(await count("Be short."), plain);
});

check("counting agrees with the usage", async () => {
  const messages = [{ role: "user", content: "How many tokens are these?" }];
  const { input_tokens } = await client.messages.countTokens({ model, messages, tools });
  const message = await client.messages.create({ model, messages, tools, max_tokens: 1 });
  assert.equal(message.usage.input_tokens + message.usage.cache_read_input_tokens, input_tokens);
});

check("a stream", async () => {
  const seen = [];
  const stream = client.messages.stream({ model, max_tokens: 24, temperature: 0, messages: [{ role: "user", content: "Say hello." }] });
  stream.on("streamEvent", (event) => seen.push(event.type));
  let text = "";
  stream.on("text", (delta) => (text += delta));
  const message = await stream.finalMessage();
  assert.equal(seen[0], "message_start");
  assert.equal(seen.at(-1), "message_stop");
  assert.equal(seen.at(-2), "message_delta");
  assert.ok(seen.includes("content_block_start") && seen.includes("content_block_stop"));
  assert.equal(message.content[0].text, text);
  assert.ok(message.usage.output_tokens >= 1);
  const whole = await client.messages.create({ model, max_tokens: 24, temperature: 0, messages: [{ role: "user", content: "Say hello." }] });
  assert.equal(whole.content[0].text, text);
});

check("a stop sequence", async () => {
  const ask = (extra) => client.messages.create({ model, max_tokens: 40, temperature: 0, messages: [{ role: "user", content: "Say hello to the world." }], ...extra });
  const free = (await ask({})).content[0].text;
  const stop = free.trim().slice(2, 5);
  const message = await ask({ stop_sequences: ["\u0007never", stop] });
  assert.equal(message.stop_reason, "stop_sequence");
  assert.equal(message.stop_sequence, stop);
  assert.ok(!(message.content[0]?.text ?? "").includes(stop));
});

check("a forced tool call, streamed and answered", async () => {
  const messages = [{ role: "user", content: "What is the weather in Paris for two days?" }];
  let json = "";
  const stream = client.messages.stream({ model, max_tokens: 200, temperature: 1, messages, tools, tool_choice: { type: "tool", name: "get_weather", disable_parallel_tool_use: true } });
  stream.on("inputJson", (delta) => (json += delta));
  const message = await stream.finalMessage();
  assert.equal(message.stop_reason, "tool_use");
  const call = message.content.find((block) => block.type === "tool_use");
  assert.equal(call.name, "get_weather");
  checkWeather(call.input);
  assert.deepEqual(JSON.parse(json), call.input);
  const answer = await client.messages.create({
    model, max_tokens: 16, tools,
    messages: [...messages, { role: "assistant", content: message.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: [{ type: "text", text: "18 degrees" }] }, { type: "text", text: "Well?" }] }],
  });
  assert.ok(answer.usage.output_tokens > 0);
});

check("any tool, whole", async () => {
  const message = await client.messages.create({ model, max_tokens: 300, tools: [...tools, { name: "now", input_schema: { type: "object" } }],
    tool_choice: { type: "any", disable_parallel_tool_use: true }, messages: [{ role: "user", content: "Do something." }] });
  const calls = message.content.filter((block) => block.type === "tool_use");
  assert.equal(calls.length, 1);
  if (calls[0].name === "get_weather") checkWeather(calls[0].input);
  else assert.deepEqual(calls[0].input, {});
});

check("structured output", async () => {
  const schema = { type: "object", properties: { yes: { type: "boolean" } }, required: ["yes"], additionalProperties: false };
  const message = await client.messages.create({ model, max_tokens: 60, messages: [{ role: "user", content: "Is it so?" }],
    output_config: { format: { type: "json_schema", schema } } });
  assert.equal(typeof JSON.parse(message.content[0].text).yes, "boolean");
});

check("errors have Anthropic's shape", async () => {
  const messages = [{ role: "user", content: "Hi" }];
  await assert.rejects(client.messages.create({ model: "no-such-model", max_tokens: 1, messages }),
    (e) => e instanceof Anthropic.NotFoundError && e.error.type === "error" && e.error.error.type === "not_found_error");
  await assert.rejects(client.messages.create({ model, messages }),
    (e) => e instanceof Anthropic.BadRequestError && e.error.error.type === "invalid_request_error" && /max_tokens/.test(e.message));
  await assert.rejects(client.messages.create({ model, max_tokens: 4, messages: [{ role: "user", content: [{ type: "image", source: { type: "base64", media_type: "image/png", data: "" } }] }] }),
    (e) => e instanceof Anthropic.BadRequestError && /image/.test(e.message));
  await assert.rejects(client.messages.create({ model, max_tokens: 4, messages: [{ role: "user", content: "word ".repeat(40000) }] }),
    (e) => e instanceof Anthropic.BadRequestError && /\d{4,}/.test(e.message));
  await assert.rejects(client.messages.create({ model, max_tokens: 4, messages, tools: [{ type: "web_search_20250305", name: "web_search" }] }),
    (e) => e instanceof Anthropic.BadRequestError && /web_search/.test(e.message));
});

await finish();

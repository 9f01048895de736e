// OpenAI's own client: chat, streams, tools, structured output, embeddings, completions, models, errors, cancelling.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const url = process.env.RUVLLM_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "ruvllm-nano-l";
const hello = [{ role: "user", content: "Hello!" }];

test("chat", async () => {
  const { data: answer, request_id } = await client.chat.completions.create({ model, messages: hello, max_tokens: 20, temperature: 0 }).withResponse();
  assert.equal(answer.object, "chat.completion");
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.ok(["stop", "length"].includes(answer.choices[0].finish_reason));
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(request_id);
});

test("stream says what the whole answer says", async () => {
  const whole = await client.chat.completions.create({ model, messages: hello, max_tokens: 20, temperature: 0 });
  const stream = await client.chat.completions.create({
    model, messages: hello, max_tokens: 20, temperature: 0, stream: true, stream_options: { include_usage: true } });
  let text = "", usage = null, finish = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.deepEqual(usage.completion_tokens, whole.usage.completion_tokens);
});

test("streaming helper", async () => {
  const runner = client.chat.completions.stream({ model, messages: hello, max_tokens: 20, temperature: 0 });
  const deltas = [];
  runner.on("content", (delta) => deltas.push(delta));
  const final = await runner.finalChatCompletion();
  assert.equal(deltas.join(""), final.choices[0].message.content);
});

const weather = { type: "function", function: { name: "get_weather", description: "The weather of a city", parameters: {
  type: "object", properties: { city: { type: "string", enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false } } };

test("tools: forced, streamed, and the answer goes back", async () => {
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const answer = await client.chat.completions.create({ model, messages, tools: [weather], tool_choice: "required", parallel_tool_calls: false, max_tokens: 100, temperature: 0 });
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));

  const runner = client.chat.completions.stream({ model, messages, tools: [weather], parallel_tool_calls: false, max_tokens: 100, temperature: 0,
    tool_choice: { type: "function", function: { name: "get_weather" } } });
  const names = [];
  runner.on("tool_calls.function.arguments.done", (event) => names.push(event.name));
  const final = await runner.finalChatCompletion();
  assert.deepEqual(names, ["get_weather"]);
  assert.deepEqual(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments), JSON.parse(call.function.arguments));

  const after = await client.chat.completions.create({ model, tools: [weather], max_tokens: 10,
    messages: [...messages, answer.choices[0].message, { role: "tool", tool_call_id: call.id, content: "Sunny, 21 degrees." }] });
  assert.ok(after.choices[0].message);
});

test("json_schema through zod", async () => {
  const Person = z.object({ name: z.enum(["Ada", "Bob"]), age: z.number().int().min(0).max(120), likes: z.array(z.enum(["tea", "cake"])).max(2) });
  const answer = await client.chat.completions.parse({ model, messages: [{ role: "user", content: "Describe a person." }],
    response_format: zodResponseFormat(Person, "person"), max_tokens: 120, temperature: 0.8, seed: 3 });
  assert.ok(Person.safeParse(answer.choices[0].message.parsed).success, JSON.stringify(answer.choices[0].message));
});

test("log-probabilities, several answers, seeds, stops", async () => {
  const answer = await client.chat.completions.create({ model, messages: hello, max_tokens: 4, temperature: 0, logprobs: true, top_logprobs: 2 });
  assert.equal(answer.choices[0].logprobs.content.length, answer.usage.completion_tokens);
  assert.equal(answer.choices[0].logprobs.content[0].top_logprobs.length, 2);
  const several = await client.chat.completions.create({ model, messages: hello, max_tokens: 8, n: 3, seed: 5, temperature: 1 });
  const again = await client.chat.completions.create({ model, messages: hello, max_tokens: 8, n: 3, seed: 5, temperature: 1 });
  assert.deepEqual(several.choices.map((c) => c.message.content), again.choices.map((c) => c.message.content));
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: "One, two, three,", max_tokens: 6, temperature: 0 });
  assert.equal(answer.object, "text_completion");
  assert.ok(answer.choices[0].text.length > 0);
});

test("embeddings: the client asks for base64 by itself", async () => {
  const answer = await client.embeddings.create({ model: "ruvllm-nano-encoder", input: ["The backup runs at night.", "Cats sleep.", "When does the backup run?"] });
  assert.equal(answer.data.length, 3);
  const [backup, cats, question] = answer.data.map((d) => d.embedding);
  assert.equal(backup.length, 384);
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  assert.ok(Math.abs(dot(backup, backup) - 1) < 1e-3);
  assert.ok(dot(question, backup) > dot(question, cats));
  const floats = await client.embeddings.create({ model: "ruvllm-nano-encoder", input: "Cats sleep.", encoding_format: "float" });
  assert.ok(dot(floats.data[0].embedding, cats) > 0.999);
});

test("models", async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes(model) && ids.includes("auto"));
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("errors are the client's own", async () => {
  await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages: hello }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found" && Boolean(e.requestID));
  await assert.rejects(client.chat.completions.create({ model, messages: hello, temperature: 99 }), OpenAI.BadRequestError);
  await assert.rejects(client.chat.completions.create({ model, messages: [{ role: "user", content: "word ".repeat(100000) }] }),
    (e) => e instanceof OpenAI.BadRequestError && e.code === "context_length_exceeded");
});

test("a cancelled stream frees its slot", async () => {
  const stream = await client.chat.completions.create({ model, messages: hello, stream: true, max_tokens: 2000, ignore_eos: true });
  let n = 0;
  for await (const _ of stream) if (++n === 5) break;
  stream.controller.abort();
  for (let i = 0; i < 200; i++) {
    const page = await (await fetch(`${url}/metrics`)).text();
    if (/^ruvllm_num_requests_running 0$/m.test(page)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail("the generation still runs");
});

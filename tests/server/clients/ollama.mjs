// ollama.mjs - the ollama package against /api: chat, generate, embed, tags, show, version, streams of lines.
import { Ollama } from "ollama";
import { assert, base, check, checkWeather, finish, weather } from "./check.mjs";

const client = new Ollama({ host: base });
const model = "s:latest";
const options = { temperature: 0, num_predict: 16 };

check("tags", async () => {
  const { models } = await client.list();
  assert.ok(models.length >= 2);
  const encoder = models.find((m) => m.name.includes("encoder"));
  assert.ok(encoder);
  assert.equal(encoder.details.format, "gguf");
  assert.ok(encoder.size > 1000);
});

check("show", async () => {
  const info = await client.show({ model });
  assert.ok(info.capabilities.includes("completion") && info.capabilities.includes("tools"));
  assert.ok(info.template.includes("im_start"));
  assert.equal(info.details.family, info.model_info["general.architecture"] ?? info.details.family);
});

check("version", async () => {
  const { version } = await (await fetch(`${base}/api/version`)).json();
  assert.match(version, /^\d+\.\d+\.\d+/);
});

check("chat, whole and streamed alike", async () => {
  const messages = [{ role: "system", content: "Be short." }, { role: "user", content: "Say hello." }];
  const whole = await client.chat({ model, messages, options });
  assert.equal(whole.done, true);
  assert.ok(["stop", "length"].includes(whole.done_reason));
  assert.equal(whole.message.role, "assistant");
  assert.ok(whole.prompt_eval_count > 5 && whole.eval_count >= 1 && whole.total_duration > 0);
  let text = "", last;
  for await (const part of await client.chat({ model, messages, options, stream: true })) {
    text += part.message.content;
    last = part;
  }
  assert.equal(text, whole.message.content);
  assert.equal(last.done, true);
  assert.equal(last.eval_count, whole.eval_count);
});

check("generate, also raw", async () => {
  const whole = await client.generate({ model, prompt: "Say hello.", system: "Be short.", options });
  assert.ok(whole.response.length > 0 && whole.done);
  let text = "";
  for await (const part of await client.generate({ model, prompt: "Say hello.", system: "Be short.", options, stream: true })) text += part.response;
  assert.equal(text, whole.response);
  assert.ok((await client.generate({ model, prompt: "Once upon a time", raw: true, options })).eval_count >= 1);
});

check("format: a schema, and any JSON", async () => {
  const format = { type: "object", properties: { name: { type: "string", maxLength: 12 }, n: { type: "integer", minimum: 0, maximum: 5 } }, required: ["name", "n"] };
  const { message } = await client.chat({ model, messages: [{ role: "user", content: "A name and a number." }], format, options: { temperature: 1, num_predict: 200 } });
  const value = JSON.parse(message.content);
  assert.ok(value.name.length <= 12 && value.n >= 0 && value.n <= 5);
  const free = await client.chat({ model, messages: [{ role: "user", content: "Some JSON." }], format: "json", options: { temperature: 0, num_predict: 200 } });
  assert.equal(free.message.content.trim()[0], "{");
});

check("tools are offered and past calls accepted", async () => {
  const tools = [{ type: "function", function: { name: "get_weather", description: "", parameters: weather } }];
  const answer = await client.chat({ model, tools, options: { temperature: 0, num_predict: 64 },
    messages: [{ role: "user", content: "The weather in Rome?" },
      { role: "assistant", content: "", tool_calls: [{ function: { name: "get_weather", arguments: { city: "Rome", days: 1 } } }] },
      { role: "tool", tool_name: "get_weather", content: "sunny" }, { role: "user", content: "And in Paris?" }] });
  assert.equal(answer.done, true);
  for (const call of answer.message.tool_calls ?? []) checkWeather(call.function.arguments);
});

check("embed", async () => {
  const { embeddings } = await client.embed({ model: "encoder", input: ["a cat", "a kitten", "the stock market"] });
  assert.equal(embeddings.length, 3);
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  assert.ok(Math.abs(dot(embeddings[0], embeddings[0]) - 1) < 1e-3);
  assert.ok(dot(embeddings[0], embeddings[1]) > dot(embeddings[0], embeddings[2]));
  const { embedding } = await client.embeddings({ model: "encoder", prompt: "a cat" });
  assert.equal(embedding.length, embeddings[0].length);
});

check("nothing to say loads", async () => {
  const answer = await client.chat({ model, messages: [] });
  assert.equal(answer.done_reason, "load");
});

check("errors", async () => {
  await assert.rejects(client.chat({ model: "nothing", messages: [{ role: "user", content: "x" }] }), (e) => e.status_code === 404 && /nothing/.test(e.message));
  await assert.rejects(client.generate({ model, prompt: "x", images: ["aGk="] }), (e) => e.status_code === 400);
  await assert.rejects(client.chat({ model, messages: [{ role: "user", content: "x" }], format: { type: "object", properties: { a: { not: {} } } } }), /"not"/);
});

await finish();

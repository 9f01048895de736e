// ai_sdk.mjs - the AI SDK with @ai-sdk/openai-compatible: text, streams, objects, tools, embeddings.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { assert, base, check, checkWeather, finish, weather } from "./check.mjs";

const provider = createOpenAICompatible({ name: "ruvllm", baseURL: `${base}/v1`, supportsStructuredOutputs: true, includeUsage: true });
const model = provider("s");

check("generateText", async () => {
  const { text, usage } = await generateText({ model, system: "Be short.", prompt: "Say hello.", temperature: 0, maxOutputTokens: 16, maxRetries: 0 });
  assert.ok(text.length > 0);
  assert.ok(usage.inputTokens > 3 && usage.outputTokens >= 1);
});

check("streamText", async () => {
  const result = streamText({ model, prompt: "Say hello.", temperature: 0, maxOutputTokens: 16, maxRetries: 0 });
  let text = "";
  for await (const part of result.textStream) text += part;
  assert.ok(text.length > 0);
  assert.ok((await result.usage).outputTokens >= 1);
});

check("generateObject", async () => {
  const schema = jsonSchema({ type: "object", properties: { name: { type: "string", maxLength: 10 }, age: { type: "integer", minimum: 1, maximum: 99 } }, required: ["name", "age"], additionalProperties: false });
  const { object } = await generateObject({ model, schema, prompt: "A person.", temperature: 1, maxRetries: 0, maxOutputTokens: 200 });
  assert.ok(object.age >= 1 && object.age <= 99 && object.name.length <= 10);
});

check("a tool call", async () => {
  const { toolCalls, finishReason } = await generateText({ model, prompt: "Weather in Rome?", maxRetries: 0, maxOutputTokens: 200, temperature: 1,
    tools: { get_weather: tool({ description: "", inputSchema: jsonSchema(weather) }) }, toolChoice: { type: "tool", toolName: "get_weather" } });
  assert.equal(finishReason, "tool-calls");
  checkWeather(toolCalls[0].input);
});

check("embed", async () => {
  const { embedding } = await embed({ model: provider.textEmbeddingModel("encoder"), value: "a cat", maxRetries: 0 });
  assert.ok(embedding.length > 16);
});

await finish();

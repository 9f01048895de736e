// check.mjs - what the client tests share: named checks that run one after the other, and the server's address.
import assert from "node:assert/strict";

export { assert };
export const base = process.env.RUVLLM_URL; // http://127.0.0.1:PORT
const checks = [];

export function check(name, run) {
  checks.push([name, run]);
}

export async function finish() {
  let failed = 0;
  for (const [name, run] of checks) {
    try {
      await run();
      console.log(`ok   ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAIL ${name}\n${error?.stack ?? error}\n${error?.responseBody ?? ""}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

export const weather = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"],
  additionalProperties: false,
};

export function checkWeather(input) {
  assert.equal(typeof input.city, "string");
  assert.ok([...input.city].length <= 20);
  assert.ok(Number.isInteger(input.days) && input.days >= 1 && input.days <= 9, `days: ${input.days}`);
}

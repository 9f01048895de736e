// The page as a person uses it: ask, stream, source, feedback, memory edit, graph, dashboards. With RUVLLM_IMAGES, pictures go there.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const url = process.env.RUVLLM_URL, images = process.env.RUVLLM_IMAGES;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
// Waiting for a condition evaluates its text, which the page's policy forbids the page itself.
const context = await browser.newContext({ bypassCSP: true, viewport: { width: 1000, height: 720 } });
const page = await context.newPage();
const wrong = [];
page.on('pageerror', (error) => wrong.push(`page: ${error.message}`));
page.on('console', (message) => { if (message.type() === 'error') wrong.push(`console: ${message.text()}`); });
page.on('requestfailed', (request) => wrong.push(`request: ${request.url()}`));
page.setDefaultTimeout(60000);
const picture = async (name) => { if (images) await page.screenshot({ path: `${images}/${name}.png` }); };

// Headers: types, policy, ETag and 304, no inline script.
for (const [path, type] of [['/', 'text/html'], ['/web/main.js', 'text/javascript'], ['/web/style.css', 'text/css'], ['/web/icon.svg', 'image/svg+xml']]) {
  const answer = await fetch(url + path);
  assert.equal(answer.status, 200);
  assert.ok(answer.headers.get('content-type').startsWith(type));
  assert.ok(answer.headers.get('content-security-policy').includes("script-src 'self'"));
  const again = await fetch(url + path, { headers: { 'if-none-match': answer.headers.get('etag') } });
  assert.equal(again.status, 304);
}
assert.equal((await fetch(`${url}/web/nothing.js`)).status, 404);

// Ask: the answer comes as a stream, with its source, route line and stage times.
await page.goto(url);
await page.waitForSelector('#model option:nth-child(2)', { state: 'attached' });
const [stream] = await Promise.all([
  page.waitForResponse((r) => r.url().endsWith('/v1/ask')),
  (async () => { await page.fill('#question', 'When does the nightly backup start?'); await page.press('#question', 'Enter'); })(),
]);
assert.ok(stream.headers()['content-type'].startsWith('text/event-stream'));
await page.waitForSelector('.turn .route');
assert.match(await page.textContent('.turn .answer'), /02:00/);
await page.click('.sources summary');
assert.match(await page.textContent('.sources .card'), /backup/);
await page.click('.stages summary');
assert.match(await page.textContent('.stages'), /\d ms/);

// Feedback: a thumb, then a correction.
await page.click('[aria-label="Good answer"]');
await page.waitForFunction(() => document.querySelector('.feedback [role=status]').textContent.startsWith('Thank you'));
await picture('web-chat');
await page.emulateMedia({ colorScheme: 'dark' });
await picture('web-chat-dark');
await page.setViewportSize({ width: 390, height: 780 });
assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page fits a phone');
await picture('web-chat-phone');
await page.emulateMedia({ colorScheme: 'light' });
await page.setViewportSize({ width: 1000, height: 720 });
await page.fill('#question', 'How long are backups kept?');
await page.click('#send');
await page.waitForSelector('.turn:nth-child(2) .feedback button');
await page.click('.turn:nth-child(2) button:text-is("Correct")');
await page.fill('.turn:nth-child(2) [aria-label="The right answer"]', 'Backups are kept for 14 days.');
await page.click('.turn:nth-child(2) button:text-is("Send correction")');
await page.waitForFunction(() => document.querySelectorAll('.feedback [role=status]')[1].textContent.startsWith('Thank you'));

// Without memory.
await page.uncheck('#use-memory');
await page.fill('#question', 'Hello!');
await page.click('#send');
await page.waitForSelector('.turn:nth-child(3) .meta-block .meta');
assert.ok((await page.textContent('.turn:nth-child(3) .answer')).length > 0);

// Memory: search, edit, graph, forget.
await page.click('nav a[href="#memory"]');
await page.waitForSelector('#nodes .card');
await page.fill('#query', 'nightly backup');
await page.press('#query', 'Enter');
await page.waitForFunction(() => document.querySelector('#memory-state').textContent.includes('found'));
const id = await page.getAttribute('#nodes .card', 'data-id');
const card = `#nodes [data-id="${id}"]`;
await page.click(`${card} button:text-is("Edit")`);
await page.fill(`${card} textarea`, 'The nightly backup starts at 03:30 and keeps 14 days.');
await page.click(`${card} button:text-is("Save")`);
await page.waitForFunction((c) => document.querySelector(`${c} p`)?.textContent.includes('03:30'), card);
assert.match((await (await fetch(`${url}/v1/memory/${id}`)).json()).text, /03:30/);
await page.click(`${card} button:text-is("Graph")`);
await page.waitForSelector('#graph svg circle');
assert.equal(await page.locator('#graph svg g.near').count(), 1);
await picture('web-memory');
await page.click(`${card} button:text-is("Forget")`);
await page.click(`${card} button:text-is("Really forget?")`);
await page.waitForFunction((c) => !document.querySelector(c), card);
assert.equal((await fetch(`${url}/v1/memory/${id}`)).status, 404);

// Dashboards.
await page.click('nav a[href="#learning"]');
await page.waitForFunction(() => document.querySelector('#learner').textContent.length > 0);
await page.click('nav a[href="#latency"]');
await page.waitForSelector('#latency table');
assert.match(await page.textContent('#latency'), /Answers from memory/);
await picture('web-latency');
await browser.close();
assert.deepEqual(wrong.filter((w) => !/favicon/.test(w)), []);
console.log('ok');

/* What every view uses: elements, requests, server-sent events. Text goes into the page as text nodes only, never as markup. */

export const byId = (id) => document.getElementById(id);

/* el('p', {class: 'x', onclick: fn}, child, 'text') */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, '');
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

let timer;
export function complain(error) {
  if (error.name === 'AbortError') return;
  const toast = byId('toast');
  toast.textContent = error.message;
  toast.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { toast.hidden = true; }, 8000);
}

/* The key stays in this page's memory alone: nothing is stored in the browser. */
export function request(method, path, body, signal) {
  const key = byId('key').value.trim();
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  return fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
}

async function failure(response) {
  const text = await response.text();
  try { return new Error(JSON.parse(text).error.message); } catch { return new Error(`${response.status}: ${text.slice(0, 200)}`); }
}

export async function api(method, path, body) {
  const response = await request(method, path, body);
  if (!response.ok) throw await failure(response);
  return response.json();
}

export async function text(path) {
  const response = await request('GET', path);
  if (!response.ok) throw await failure(response);
  return response.text();
}

/* Yields {event, data} of a stream; throws what the server says went wrong. */
export async function* events(path, body, signal) {
  const response = await request('POST', path, body, signal);
  if (!response.ok) throw await failure(response);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      let event = 'message', data = '';
      for (const line of block.split('\n')) {
        if (line.startsWith('event: ')) event = line.slice(7);
        else if (line.startsWith('data: ')) data += line.slice(6);
      }
      if (!data || data === '[DONE]') continue;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Error(parsed.error.message);
      yield { event, data: parsed };
    }
  }
}

export function table(head, rows) {
  const cell = (value) => (value instanceof Node ? el('td', {}, value) : el('td', { class: typeof value === 'number' ? 'n' : null }, String(value)));
  return el('div', { class: 'table' }, el('table', {}, el('thead', {}, el('tr', {}, ...head.map((h) => el('th', { scope: 'col' }, h)))),
    el('tbody', {}, ...rows.map((row) => el('tr', {}, ...row.map(cell))))));
}

export const round = (x, digits = 2) => Number(Number(x).toFixed(digits));

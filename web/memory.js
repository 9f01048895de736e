/* The memory browser: list, search, add, edit, forget, and the surroundings of a node as a picture. */
import { api, byId, complain, el, round } from './lib.js';

const PAGE = 30;
let offset = 0;

function say(what) { byId('memory-state').textContent = what; }

function card(node, score) {
  const view = el('p', {}, node.text);
  const item = el('li', { class: 'card', 'data-id': node.id });
  const edit = el('form', { hidden: true });
  const text = el('textarea', { rows: 4, required: true, 'aria-label': 'Text of this memory' });
  edit.append(text, el('div', { class: 'row' }, el('button', { class: 'main' }, 'Save'), el('button', { type: 'button', onclick: () => { edit.hidden = true; view.hidden = false; } }, 'Cancel')));
  edit.addEventListener('submit', async (e) => {
    e.preventDefault();
    try {
      item.replaceWith(card(await api('PATCH', `/v1/memory/${node.id}`, { text: text.value }), score));
      say('Saved.');
    } catch (error) { complain(error); }
  });
  const forget = el('button', { type: 'button', class: 'bad' }, 'Forget');
  forget.addEventListener('click', async () => {
    if (forget.textContent === 'Forget') { forget.textContent = 'Really forget?'; return; }
    try { await api('DELETE', `/v1/memory/${node.id}`); item.remove(); say('Forgotten.'); } catch (error) { complain(error); }
  });
  forget.addEventListener('blur', () => { forget.textContent = 'Forget'; });
  item.append(el('div', { class: 'meta' }, [node.type, node.title || null, node.source ? `${node.source}${node.first_line ? `:${node.first_line}` : ''}` : null,
    `version ${node.version}`, score === undefined ? null : `score ${round(score)}`].filter(Boolean).join(' · ')), view, edit,
  el('div', { class: 'row' }, el('button', { type: 'button', onclick: () => { text.value = node.text; edit.hidden = false; view.hidden = true; text.focus(); } }, 'Edit'),
    el('button', { type: 'button', onclick: () => graph(node.id).catch(complain) }, 'Graph'), forget));
  return item;
}

const SVG = 'http://www.w3.org/2000/svg';
function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* Nodes lie on rings by their distance, then springs along the edges pull neighbours together. Deterministic. */
function layout(nodes, edges, width, height) {
  const at = new Map(), rings = new Map();
  for (const n of nodes) rings.set(n.hops, [...(rings.get(n.hops) ?? []), n]);
  const furthest = Math.max(1, ...rings.keys());
  for (const [hops, ring] of rings)
    ring.forEach((n, i) => {
      const angle = 2 * Math.PI * i / ring.length + hops, r = hops / furthest;
      at.set(n.id, { x: width / 2 + r * Math.cos(angle) * (width / 2 - 70), y: height / 2 + r * Math.sin(angle) * (height / 2 - 30), fixed: !hops });
    });
  const points = [...at.values()];
  for (let step = 0; step < 60; step++) {
    for (const e of edges) {
      const a = at.get(e.src), b = at.get(e.dst);
      if (!a || !b) continue;
      const dx = b.x - a.x, dy = b.y - a.y, d = Math.hypot(dx, dy) || 1, f = (d - 110) / d * .05;
      if (!a.fixed) { a.x += dx * f; a.y += dy * f; }
      if (!b.fixed) { b.x -= dx * f; b.y -= dy * f; }
    }
    for (const a of points) for (const b of points) {
      const dx = a.x - b.x, dy = a.y - b.y, d = Math.hypot(dx, dy);
      if (a === b || a.fixed || d > 70 || !d) continue;
      a.x += dx / d * (70 - d) * .2;
      a.y += dy / d * (70 - d) * .2;
    }
    for (const p of points) { p.x = Math.min(width - 60, Math.max(60, p.x)); p.y = Math.min(height - 20, Math.max(20, p.y)); }
  }
  return at;
}

async function graph(id) {
  const { nodes, edges } = await api('GET', `/v1/memory/${id}/graph?hops=2&max_nodes=40`);
  const width = 800, height = 460, at = layout(nodes, edges, width, height);
  const lines = edges.filter((e) => at.has(e.src) && at.has(e.dst)).map((e) => {
    const a = at.get(e.src), b = at.get(e.dst);
    return svg('line', { x1: a.x, y1: a.y, x2: b.x, y2: b.y }, svg('title', {}, `${e.type}, weight ${round(e.weight)}`));
  });
  const dots = nodes.map((n) => {
    const p = at.get(n.id), label = n.title || n.text;
    const g = svg('g', { tabindex: 0, role: 'button', 'aria-label': `Go to: ${n.text.slice(0, 120)}`, class: n.hops ? 'far' : 'near', 'data-id': n.id }, svg('title', {}, n.text.slice(0, 300)),
      svg('circle', { cx: p.x, cy: p.y, r: n.hops ? 7 : 11 }), svg('text', { x: p.x, y: p.y + 22, 'text-anchor': 'middle' }, label.length > 18 ? `${label.slice(0, 17)}…` : label));
    g.addEventListener('click', () => graph(n.id).catch(complain));
    g.addEventListener('keydown', (e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); graph(n.id).catch(complain); } });
    return g;
  });
  byId('graph').replaceChildren(svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': `Graph of ${nodes.length} memories and ${lines.length} edges` }, ...lines, ...dots),
    el('button', { type: 'button', onclick: () => { byId('graph').hidden = true; } }, 'Close graph'));
  byId('graph').hidden = false;
  byId('graph').scrollIntoView({ block: 'nearest' });
  say(`${nodes.length} memories within two steps, ${lines.length} edges.`);
}

async function list(more) {
  offset = more ? offset + PAGE : 0;
  const page = await api('GET', `/v1/memory?limit=${PAGE}&offset=${offset}`);
  if (!more) byId('nodes').replaceChildren();
  byId('nodes').append(...page.data.map((node) => card(node)));
  byId('more').hidden = !page.has_more;
  say(`${byId('nodes').children.length} memories${page.has_more ? ', and more' : ''}.`);
}

async function find(query) {
  if (!query) return list(false);
  const hits = await api('POST', '/v1/memory/search', { query, k: 20 });
  byId('nodes').replaceChildren(...hits.data.map((hit) => card(hit.node, hit.score)));
  byId('more').hidden = true;
  say(`${hits.data.length} found in ${round(hits.timings_ms.total, 1)} ms.`);
}

export function start() {
  byId('search').addEventListener('submit', (e) => { e.preventDefault(); find(byId('query').value.trim()).catch(complain); });
  byId('more').addEventListener('click', () => list(true).catch(complain));
  byId('add').addEventListener('submit', async (e) => {
    e.preventDefault();
    try {
      byId('nodes').prepend(card(await api('POST', '/v1/memory', { text: byId('note').value })));
      byId('note').value = '';
      say('Remembered.');
    } catch (error) { complain(error); }
  });
}

export async function show() {
  byId('query').focus();
  try { await list(false); } catch (error) { say(error.message); }
}

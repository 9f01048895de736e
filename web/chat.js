/* The chat: questions to memory over /v1/ask, or plain turns over /v1/chat/completions; sources, route, stage times, feedback. */
import { api, byId, complain, el, events, round } from './lib.js';

let history = [];
let running = null;

function sourceCard(s) {
  const lines = s.first_line ? `:${s.first_line}${s.last_line > s.first_line ? `–${s.last_line}` : ''}` : '';
  return el('li', { class: s.cited ? 'card cited' : 'card' },
    el('div', { class: 'meta' }, `${s.number ? `[${s.number}] ` : ''}${s.file ?? s.title ?? s.id}${lines} · score ${round(s.score)}${s.cited ? ' · cited' : ''}`),
    s.text ? el('p', {}, s.text) : null);
}

function showSources(place, sources) {
  place.replaceChildren(...(sources.length ? [el('details', { class: 'sources' }, el('summary', {}, `${sources.length} sources`),
    el('ol', { class: 'cards' }, ...sources.map(sourceCard)))] : []));
}

function showMeta(place, answer) {
  const r = answer.route;
  const parts = [answer.model, r ? `route ${r.tier}${r.escalations ? ` after ${r.escalations} escalations` : ''} (${r.why}, ${round(r.confidence)})` : 'no route',
    answer.quality ? `quality ${round(answer.quality.quality)}` : null, `${answer.usage.completion_tokens} tokens`, `${round(answer.total_ms, 1)} ms`];
  place.replaceChildren(el('div', { class: 'meta route' }, parts.filter(Boolean).join(' · ')),
    el('details', { class: 'stages' }, el('summary', {}, 'Stage times'),
      el('div', { class: 'meta' }, Object.entries(answer.stages_ms).map(([name, ms]) => `${name} ${round(ms, 1)} ms`).join(' · '))));
}

function feedback(place, id) {
  const said = el('span', { class: 'soft', role: 'status' });
  const send = async (word, correction) => {
    try {
      const done = await api('POST', '/v1/feedback', { answer_id: id, feedback: word, ...(correction ? { correction } : {}) });
      const what = [done.wrote && 'remembered', done.routed && 'told to the router', done.learned && 'given to the learner'].filter(Boolean);
      said.textContent = `Thank you${what.length ? `: ${what.join(', ')}` : ''}.`;
      form.hidden = true;
    } catch (error) { complain(error); }
  };
  const right = el('textarea', { rows: 2, required: true, 'aria-label': 'The right answer' });
  const form = el('form', { hidden: true, onsubmit: (e) => { e.preventDefault(); send('correct', right.value); } }, right, el('button', { class: 'main' }, 'Send correction'));
  place.replaceChildren(el('div', { class: 'row' },
    el('button', { type: 'button', 'aria-label': 'Good answer', title: 'Good answer', onclick: () => send('accept') }, '👍'),
    el('button', { type: 'button', 'aria-label': 'Bad answer', title: 'Bad answer', onclick: () => send('reject') }, '👎'),
    el('button', { type: 'button', onclick: () => { form.hidden = !form.hidden; right.focus(); } }, 'Correct'), said), form);
}

async function ask(question) {
  const parts = Object.fromEntries(['answer', 'sources', 'meta-block', 'feedback'].map((name) => [name, el('div', { class: name })]));
  const turn = el('article', { class: 'turn', 'aria-busy': 'true' }, el('div', { class: 'question' }, question), ...Object.values(parts));
  byId('turns').append(turn);
  turn.scrollIntoView({ block: 'end' });
  running = new AbortController();
  byId('stop').hidden = false;
  byId('send').disabled = true;
  let said = '';
  const model = byId('model').value;
  try {
    if (byId('use-memory').checked) {
      for await (const { event, data } of events('/v1/ask', { question, model, history, stream: true }, running.signal)) {
        if (event === 'delta') { said += data.text; parts.answer.textContent = said; }
        else if (event === 'sources') showSources(parts.sources, data.sources);
        else if (event === 'answer') {
          said = data.answer ?? data.text ?? '';
          parts.answer.textContent = said;
          showSources(parts.sources, data.sources);
          showMeta(parts['meta-block'], data);
          feedback(parts.feedback, data.id);
        }
      }
    } else {
      const begun = performance.now();
      const body = { model, messages: [...history, { role: 'user', content: question }], stream: true, stream_options: { include_usage: true }, ruvllm: { memory: false } };
      let usage;
      for await (const { data } of events('/v1/chat/completions', body, running.signal)) {
        const piece = data.choices?.[0]?.delta?.content;
        if (piece) { said += piece; parts.answer.textContent = said; }
        usage = data.usage ?? usage;
      }
      parts['meta-block'].replaceChildren(el('div', { class: 'meta' }, `without memory · ${usage?.completion_tokens ?? '?'} tokens · ${round(performance.now() - begun, 0)} ms`));
    }
    history.push({ role: 'user', content: question }, { role: 'assistant', content: said });
  } catch (error) {
    if (error.name === 'AbortError') parts['meta-block'].replaceChildren(el('div', { class: 'meta' }, 'stopped'));
    else complain(error);
  } finally {
    turn.removeAttribute('aria-busy');
    running = null;
    byId('stop').hidden = true;
    byId('send').disabled = false;
    turn.scrollIntoView({ block: 'end' });
  }
}

export async function models() {
  const list = await api('GET', '/v1/models');
  byId('model').replaceChildren(el('option', { value: 'auto' }, 'auto'), ...list.data.filter((m) => m.id !== 'auto' && !/encoder|embed/.test(m.id)).map((m) => el('option', { value: m.id }, m.id)));
}

export function start() {
  byId('ask').addEventListener('submit', (e) => {
    e.preventDefault();
    const question = byId('question').value.trim();
    if (!question || running) return;
    byId('question').value = '';
    ask(question);
  });
  byId('question').addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); byId('ask').requestSubmit(); }
    if (e.key === 'Escape' && running) running.abort();
  });
  byId('stop').addEventListener('click', () => running?.abort());
  byId('clear').addEventListener('click', () => { running?.abort(); history = []; byId('turns').replaceChildren(); byId('question').focus(); });
}

export async function show() {
  byId('question').focus();
  await models();
}

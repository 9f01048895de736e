/* Router decisions, the learner's history with rollback, and latencies from /metrics. */
import { api, byId, complain, el, round, table, text } from './lib.js';

async function route(question) {
  const d = await api('POST', '/v1/route', { question });
  byId('route-result').replaceChildren(el('p', {}, `Tier ${d.tier} (${d.why}), confidence ${round(d.confidence)}, decided in ${round(d.micros, 0)} µs.`),
    table(['Tier', 'Probability', '', 'Expected quality'], d.tiers.map((t) => [t.tier, round(t.probability, 3),
      el('meter', { min: 0, max: 1, value: t.probability, 'aria-label': `Probability of ${t.tier}` }), round(t.expected_quality, 3)])));
}

async function rollback(version) {
  try { await api('POST', '/v1/learn/rollback', { version }); await learning(); } catch (error) { complain(error); }
}

async function decisions() {
  const list = (await api('GET', '/v1/route/decisions?limit=50')).data;
  byId('decisions').replaceChildren(list.length ? table(['When', 'Question', 'Tier', 'Why', 'Confidence', 'Quality', 'ms', 'Feedback'], list.map((d) => [new Date(d.time_ms).toLocaleTimeString(),
    d.question.slice(0, 60), d.escalations ? `${d.tier} after ${d.first}` : d.tier, d.why, round(d.confidence), d.quality === null ? '' : round(d.quality), round(d.total_ms, 1), d.feedback ?? '']))
    : el('p', { class: 'soft' }, 'None yet: ask with the model auto.'));
}

async function learning() {
  await decisions().catch((error) => byId('decisions').replaceChildren(el('p', { class: 'soft' }, error.message)));
  try {
    const s = await api('GET', '/v1/learn');
    const state = s.training ? 'training' : s.paused ? 'paused' : 'waiting';
    byId('learner').replaceChildren(table(['State', 'Live version', 'Observed', 'Accepted', 'Corrected', 'Rejected', 'Queued', 'Steps', 'Mean loss'],
      [[state, s.live_version || 'bare model', s.observed, s.accepted, s.corrected, s.rejected, s.queued, s.steps, round(s.mean_loss, 3)]]),
    s.error ? el('p', { class: 'soft' }, s.error) : '',
    el('div', { class: 'row' }, el('button', { type: 'button', onclick: () => api('POST', `/v1/learn/${s.paused ? 'resume' : 'pause'}`, {}).then(learning).catch(complain) }, s.paused ? 'Resume' : 'Pause'),
      el('button', { type: 'button', disabled: !s.live_version, onclick: () => rollback(0) }, 'Back to the bare model')));
    const events = (await api('GET', '/v1/learn/history')).data;
    byId('history').replaceChildren(events.length ? table(['When', 'What', 'Version', 'Steps', 'Gain', ''], events.map((e) => [new Date(e.time_ms).toLocaleString(), e.what, e.version, e.steps,
      e.gate ? `${round(e.gate.gain, 3)} ${e.gate.why}` : '', e.what === 'published' ? el('button', { type: 'button', onclick: () => rollback(e.version) }, `Go to version ${e.version}`) : ''])) : el('p', { class: 'soft' }, 'Nothing learned yet.'));
  } catch (error) {
    byId('learner').replaceChildren(el('p', { class: 'soft' }, error.message));
    byId('history').replaceChildren();
  }
}

/* {name: [{labels, value}]} of Prometheus' text form. */
export function parse(source) {
  const out = {};
  for (const line of source.split('\n')) {
    const m = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!m) continue;
    const labels = {};
    for (const [, key, value] of (m[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    (out[m[1]] ??= []).push({ labels, value: m[3] === '+Inf' ? Infinity : Number(m[3]) });
  }
  return out;
}

/* Histograms of one name, a row for each set of labels: quantiles are the upper end of the bucket that holds them. */
function histograms(metrics, name) {
  const groups = new Map();
  for (const { labels: { le, ...labels }, value } of metrics[`${name}_bucket`] ?? []) {
    const key = Object.values(labels).join(' ');
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push([le === '+Inf' ? Infinity : Number(le), value]);
  }
  return [...groups].map(([label, buckets]) => {
    const n = buckets.at(-1)[1], at = (q) => buckets.find(([, count]) => count >= q * n)?.[0];
    const ms = (seconds) => (seconds === Infinity ? 'over all buckets' : `≤ ${round(seconds * 1000, 1)} ms`);
    return { label, n, row: [label || 'all', n, ms(at(.5)), ms(at(.99))] };
  }).filter((h) => h.n);
}

async function latency() {
  const metrics = parse(await text('/metrics'));
  const parts = [];
  for (const [name, title] of [['ruvllm_ask_duration_seconds', 'Answers from memory'], ['ruvllm_ask_stage_duration_seconds', 'Stages of an answer'],
    ['ruvllm_time_to_first_token_seconds', 'Time to the first token'], ['ruvllm_inter_token_latency_seconds', 'Between two tokens'], ['ruvllm_request_queue_time_seconds', 'Waiting for admission'],
    ['ruvllm_http_request_duration_seconds', 'HTTP requests by route']]) {
    const rows = histograms(metrics, name);
    if (rows.length) parts.push(el('h2', {}, title), table(['', 'Count', 'p50', 'p99'], rows.map((h) => h.row)));
  }
  const one = (name) => metrics[name]?.reduce((sum, s) => sum + s.value, 0) ?? 0;
  byId('latency-state').textContent = `${one('ruvllm_num_requests_running')} running, ${one('ruvllm_num_requests_waiting')} waiting, ${one('ruvllm_generation_tokens_total')} tokens generated.`;
  byId('latency').replaceChildren(...parts);
}

export function start() {
  byId('route').addEventListener('submit', (e) => { e.preventDefault(); route(byId('route-question').value).catch(complain); });
}
export const showLearning = learning;
export const showLatency = latency;

/* The page: one view at a time, named by the address's fragment. Alt+1..4 (the browser's access keys) reach them. */
import { byId, complain } from './lib.js';
import * as chat from './chat.js';
import * as memory from './memory.js';
import * as dashboards from './dashboards.js';

const views = { chat: chat.show, memory: memory.show, learning: dashboards.showLearning, latency: dashboards.showLatency };

function go() {
  const wanted = location.hash.slice(1) in views ? location.hash.slice(1) : 'chat';
  for (const name of Object.keys(views)) byId(`view-${name}`).hidden = name !== wanted;
  for (const link of document.querySelectorAll('nav a'))
    if (link.hash === `#${wanted}`) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  views[wanted]().catch(complain);
}

chat.start();
memory.start();
dashboards.start();
addEventListener('hashchange', go);
byId('key').addEventListener('change', go);
setInterval(() => { if (location.hash === '#latency' && !document.hidden) dashboards.showLatency().catch(complain); }, 5000);
go();

// 64 connections with mixed endpoints for SECONDS: no error, and /health answers all the while.
//   node load.mjs URL SECONDS MODEL-TOKENS
import http from 'node:http';

const [, , base, seconds, tokens] = process.argv, url = new URL(base);
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 }), alone = new http.Agent({ keepAlive: true, maxSockets: 1 });
const until = Date.now() + seconds * 1000;
const max_tokens = +tokens, errors = [], counts = {};
const ask = (method, path, body, use = agent) => new Promise((resolve, reject) => {
  const r = http.request({ host: url.hostname, port: url.port, method, path, agent: use }, (a) => {
    let text = ''; a.on('data', (c) => { text += c; }); a.on('error', reject); a.on('end', () => resolve([a.statusCode, text]));
  });
  r.on('error', reject); r.end(body && JSON.stringify(body));
});
const question = (i) => [{ role: 'user', content: `What is ${i} and ${i * 7}? Answer in words.` }];
const kinds = [
  ['chat', (i) => ['POST', '/v1/chat/completions', { messages: question(i), max_tokens }], (t) => JSON.parse(t).choices.length === 1],
  ['chat stream', (i) => ['POST', '/v1/chat/completions', { messages: question(i), max_tokens, stream: true }], (t) => t.endsWith('data: [DONE]\n\n')],
  ['responses', (i) => ['POST', '/v1/responses', { input: question(i), max_output_tokens: max_tokens, stream: true }], (t) => /event: response\.(completed|incomplete)\n/.test(t)],
  ['messages', (i) => ['POST', '/v1/messages', { messages: question(i), max_tokens, stream: true }], (t) => /event: message_stop\n/.test(t)],
  ['completions', (i) => ['POST', '/v1/completions', { prompt: `Number ${i} is`, max_tokens }], (t) => JSON.parse(t).choices.length === 1],
  ['count', (i) => ['POST', '/v1/messages/count_tokens', { messages: question(i) }], (t) => JSON.parse(t).input_tokens > 5],
  ['tokenize', (i) => ['POST', '/tokenize', { content: `hello ${i}` }], (t) => JSON.parse(t).tokens.length > 0],
  ['models', () => ['GET', '/v1/models'], (t) => JSON.parse(t).data.length > 0],
  ['metrics', () => ['GET', '/metrics'], (t) => t.includes('flashchat:')],
];
let serial = 0;
const client = async () => {
  while (Date.now() < until && errors.length < 5) {
    const i = serial++, [name, make, good] = kinds[i % kinds.length];
    const [status, text] = await ask(...make(i)).catch((e) => [0, String(e)]);
    counts[name] = (counts[name] ?? 0) + 1;
    if (status !== 200 || !good(text)) errors.push(`${name}: ${status} ${text.slice(-300)}`);
  }
};
const times = [];
const watch = async () => {
  while (Date.now() < until) {
    const begin = process.hrtime.bigint(), [status] = await ask('GET', '/health', null, alone).catch((e) => [String(e)]);
    times.push(Number(process.hrtime.bigint() - begin) / 1e6);
    if (status !== 200) errors.push(`health: ${status}`);
    await new Promise((r) => setTimeout(r, 20));
  }
};
await Promise.all([watch(), ...Array.from({ length: 64 }, client)]);
times.sort((a, b) => a - b);
const at = (p) => times[Math.min(times.length - 1, Math.floor(times.length * p))].toFixed(1);
console.log(`health: ${times.length} times, median ${at(0.5)} ms, p99 ${at(0.99)} ms, worst ${at(1)} ms`);
console.log(`requests: ${Object.entries(counts).map(([k, v]) => `${k} ${v}`).join(', ')}`);
for (const e of errors) console.log(e);
process.exit(errors.length || times.length < 3 || Object.keys(counts).length < kinds.length ? 1 : 0);

// Clients that a server meets on a bad day, against build/fake-server. Prints "PASS name", "FAIL name".
//   node hostile.mjs URL [fast]
import net from 'node:net';
import http from 'node:http';

const url = new URL(process.argv[2]), fast = process.argv[3] === 'fast';
const port = +url.port, host = url.hostname, agent = new http.Agent({ keepAlive: false });
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
let failed = 0;
const report = (name, problem) => {
  console.log(problem ? `FAIL ${name}\n  ${problem}` : `PASS ${name}`);
  if (problem) failed = 1;
};
const test = async (name, body) => {
  try { report(name, await body()); } catch (e) { report(name, e.stack); }
};

const ask = (path, body, headers = {}, method = 'POST') => new Promise((resolve, reject) => {
  const r = http.request({ host, port, path, method, agent, headers: { 'content-type': 'application/json', ...headers } },
    (a) => { const parts = []; a.on('data', (c) => parts.push(c)); a.on('error', reject);
      a.on('end', () => resolve({ status: a.statusCode, text: Buffer.concat(parts).toString() })); });
  r.on('error', reject); r.setTimeout(300000, () => r.destroy(new Error('no answer in 300 s')));
  if (body !== null) r.write(body); r.end();
});
const chat = (content, more = {}) => JSON.stringify({ messages: [{ role: 'user', content }], ...more });
const wants = (a, status) => a.status !== status && `status ${a.status}, not ${status}: ${a.text.slice(0, 300)}`;

// Bytes as they are; resolves with what came back until the other side closed or ms passed.
const raw = (bytes, { ms = 60000, half = false, reset = 0 } = {}) => new Promise((resolve) => {
  const s = net.connect({ host, port, allowHalfOpen: true }); let got = '';
  const over = () => { s.destroy(); resolve(got); };
  s.on('connect', () => { s.write(bytes); if (half) s.end(); if (reset) setTimeout(() => { s.resetAndDestroy(); resolve(got); }, reset); });
  s.on('data', (c) => { got += c; }); s.on('end', over); s.on('error', over); setTimeout(over, ms);
});

let seed = 12345;
const random = (n) => { seed = (Math.imul(seed, 1103515245) + 12345) >>> 0; return (seed >>> 8) % n; };
const paths = ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/messages', '/v1/messages/count_tokens',
  '/tokenize', '/detokenize', '/apply-template'];
const models = {
  '/v1/chat/completions': { model: 'fake', messages: [{ role: 'system', content: 's' }, { role: 'user', content: [{ type: 'text', text: 'u' }] },
    { role: 'assistant', content: null, tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }] },
    { role: 'tool', tool_call_id: 'a', content: 't' }], tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }],
    temperature: 1, stop: ['x'], n: 1, logit_bias: { 5: 1 }, stream_options: { include_usage: true }, max_tokens: 5 },
  '/v1/completions': { prompt: ['a', [1, 2]], max_tokens: 3, echo: true, logprobs: 1 === 2 ? 1 : null },
  '/v1/responses': { input: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'u' }] },
    { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }, { type: 'function_call_output', call_id: 'c', output: 'o' }],
    tools: [{ type: 'function', name: 'f', parameters: {} }], text: { format: { type: 'text' } }, max_output_tokens: 5 },
  '/v1/messages': { max_tokens: 5, system: [{ type: 'text', text: 's' }], messages: [{ role: 'user', content: [{ type: 'text', text: 'u' }] },
    { role: 'assistant', content: [{ type: 'tool_use', id: 'i', name: 'f', input: {} }] },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'i', content: 'r' }] }], tools: [{ name: 'f', input_schema: {} }] },
};
models['/v1/messages/count_tokens'] = models['/v1/messages'];
models['/tokenize'] = { content: 'x', parse_special: true }; models['/detokenize'] = { tokens: [1, 2, 3] };
models['/apply-template'] = { messages: [{ role: 'user', content: 'x' }] };
const odd = [null, true, -1, 1e308, '', 'x', [], {}, [null], [[]], { type: 'x' }, '\u0000', '\ud800', 99999999999, 'a'.repeat(5000)];

// A request of the right shape with one to three values replaced, removed or added, or with bytes changed.
const mutate = (base) => {
  const o = JSON.parse(JSON.stringify(base));
  for (let i = 0; i <= random(3); i++) {
    let at = o;
    for (let depth = random(6); depth > 0; depth--) {
      const keys = Object.keys(at).filter((k) => at[k] && typeof at[k] === 'object');
      if (!keys.length) break;
      at = at[keys[random(keys.length)]];
    }
    const keys = Object.keys(at), key = keys.length && random(4) ? keys[random(keys.length)] : 'key' + random(9);
    if (random(5) === 0) delete at[key]; else at[key] = structuredClone(odd[random(odd.length)]);
  }
  const text = Buffer.from(JSON.stringify(o));
  if (random(4) === 0) for (let i = 0; i < 3; i++) text[random(text.length)] = random(256);
  return random(12) === 0 ? text.subarray(0, random(text.length)) : text;
};

await test('fuzzed bodies get 200 or 4xx', async () => {
  for (let i = 0; i < (fast ? 400 : 4000); i++) {
    const path = paths[random(paths.length)], body = mutate(models[path]);
    const a = await ask(path, body);
    if (a.status !== 200 && (a.status < 400 || a.status > 499)) return `${path} ${a.status} for ${body}: ${a.text}`;
    if (a.status !== 200 && !JSON.parse(a.text).error.message) return `no message: ${a.text}`;
  }
});
await test('strings of 10 MB', async () => {
  const a = await ask('/v1/chat/completions', chat('a'.repeat(10 << 20)));
  return wants(a, 400) || (!/context window/.test(a.text) && a.text.slice(0, 200));
});
await test('nesting 100,000 deep', async () => {
  for (const body of ['['.repeat(100000), '{"a":'.repeat(100000), '{"messages":' + '['.repeat(100000) + ']'.repeat(100000) + '}']) {
    const bad = wants(await ask('/v1/chat/completions', body), 400); if (bad) return bad;
  }
});
await test('invalid UTF-8', async () => wants(await ask('/v1/chat/completions',
  Buffer.concat([Buffer.from('{"messages":[{"role":"user","content":"'), Buffer.from([0xff, 0xc0, 0x80]), Buffer.from('"}]}')])), 400));
await test('a body beyond the limit', async () => {
  const got = await raw(`POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n`);
  return !got.startsWith('HTTP/1.1 413') && got.slice(0, 200);
});
await test('a chunked body beyond the limit', async () => {
  const piece = 'a'.repeat(1 << 20);
  const a = await new Promise((resolve) => {
    const r = http.request({ host, port, path: '/v1/messages', method: 'POST', agent }, (x) => { x.resume(); resolve(x.statusCode); });
    r.on('error', (e) => resolve(e.code)); for (let i = 0; i < 40; i++) r.write(piece); r.end();
  });
  return a !== 413 && a !== 'ECONNRESET' && a !== 'EPIPE' && `${a}`; // it may hang up before all is sent
});
await test('odd chunks', async () => {
  for (const chunk of ['zz\r\n', '-1\r\n', 'ffffffffffffffffff\r\nx', '5;a=b\r\nhello\r\n0\r\n\r\n', '0\r\n\r\n'])
    await raw('POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n' + chunk, { ms: 300 });
});
await test('headers: too many, too long, broken', async () => {
  const many = await raw('GET /v1/models HTTP/1.1\r\nHost: localhost\r\n' + 'X-A: b\r\n'.repeat(20000) + '\r\n', { ms: 2000 });
  const long = await raw('GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: ' + 'b'.repeat(1 << 20) + '\r\n\r\n', { ms: 2000 });
  for (const junk of ['\0\0\0\0\r\n\r\n', 'GET\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n', '\x16\x03\x01\x02\x00\x01', 'A'.repeat(70000)])
    await raw(Buffer.from(junk, 'latin1'), { ms: 300 });
  return (/^HTTP\/1.1 200/.test(many) || /^HTTP\/1.1 200/.test(long)) && 'accepted';
});
await test('paths', async () => {
  for (const p of ['/../../etc/passwd', '/v1/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '//etc/passwd', '/v1/models/../../x', '/health%00x', '/v1/models%2f', '/' + 'a'.repeat(8000)]) {
    const got = await raw(`GET ${p} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    if (!/^HTTP\/1.1 4\d\d/.test(got)) return `${p}: ${got.slice(0, 100)}`;
  }
});
await test('methods', async () => {
  const bad = wants(await ask('/v1/chat/completions', null, {}, 'GET'), 405) || wants(await ask('/health', null, {}, 'DELETE'), 405);
  return bad || wants(await ask('/v1/embeddings', '{}'), 404);
});
await test('pages of other origins', async () => wants(await ask('/v1/chat/completions', chat('x'), { origin: 'https://evil.example' }), 403)
  || wants(await ask('/v1/chat/completions', chat('x'), { host: 'evil.example' }), 403) || wants(await ask('/v1/models', null, { host: 'localhost:1' }, 'GET'), 200));
await test('half-closed: the request is dropped, the server lives', async () => {
  const body = chat('long:100000', { stream: true });
  await raw(`POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`, { half: true, ms: 1500 });
});
await test('disconnects at every stage', async () => {
  const body = chat('long:20000', { stream: true });
  const text = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const all = [];
  for (let i = 0; i < (fast ? 60 : 400); i++) all.push(raw(text.slice(0, i % 3 ? text.length : random(text.length)), { reset: 1 + random(60), ms: 1000 }));
  await Promise.all(all);
  for (let i = 0; i < 1000; i++) {
    const h = JSON.parse((await ask('/health', null, {}, 'GET')).text);
    if (h.running + h.waiting === 0) return; await sleep(100);
  }
  return 'requests of clients that left still run';
});
await test('slow senders do not hold others up', async () => {
  const slow = [];
  for (let i = 0; i < 40; i++) { const s = net.connect(port, host); s.on('error', () => {}); s.write('POST /v1/messages HTTP/1.1\r\nHost: x'); slow.push(s); }
  const drip = setInterval(() => slow.forEach((s) => s.destroyed || s.write('y')), 200);
  let worst = 0;
  for (let i = 0; i < 20; i++) { const t = performance.now(); const bad = wants(await ask('/health', null, {}, 'GET'), 200); if (bad) return bad; worst = Math.max(worst, performance.now() - t); await sleep(20); }
  clearInterval(drip); slow.forEach((s) => s.destroy());
  return worst > 60000 && `health took ${worst} ms`; // a machine may be busy; a sender may take for ever
});
await test('a flood of silent connections does not lock anybody out', async () => {
  const all = [];
  for (let i = 0; i < 1200; i++) { const s = net.connect(port, host); s.on('error', () => {}); all.push(s); if (i % 100 === 0) await sleep(5); }
  await sleep(300);
  const a = await ask('/health', null, {}, 'GET');
  all.forEach((s) => s.destroy());
  return wants(a, 200);
});
await test('and afterwards it answers as before', async () => {
  const a = await ask('/v1/chat/completions', chat('hello'));
  return wants(a, 200) || (JSON.parse(a.text).choices[0].message.content !== 'You said: hello' && a.text);
});
process.exit(failed);

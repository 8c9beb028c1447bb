// A model hub for tests: speaks the parts of the Hugging Face hub's API that flashchat uses, and can misbehave on
// request.
//
//   node server.mjs ROOT STATE      serves ROOT/ORG/NAME/* as repositories; writes the port to STATE/port, one line for
//                                   each request to STATE/log, and reads STATE/mode (JSON) before each answer
//
//   GET /api/models/O/N/revision/REV       {"sha", ...}
//   GET /api/models/O/N/tree/SHA           the files, in pages of mode.page (2)
//   GET /O/N/resolve/SHA/PATH              small files: the bytes; LFS files: 302 to /cdn/SHA256 on another port
//
// A file is LFS when it is larger than 1000 bytes or ends in .safetensors. Mode keys, all optional:
//   token: "x"        401 without "Authorization: Bearer x"; the CDN must never see the token (log says LEAK)
//   status: {path: [503, 429, ...]}   answers for the next requests of a path, then normal
//   retry_after: 1    sent with 429;  rate_limit: 1  sent as RateLimit instead
//   cut: N            the CDN closes the connection after N more bytes, each time, while cut_times > 0
//   corrupt: 1        the CDN flips a byte (corrupt_times: how often)
//   no_range: true    Range is ignored: 200 with everything
//   wrong_range: true 206 that begins elsewhere
//   changed: true     X-Linked-Etag of another file
//   slow: N           bytes a second of the CDN
//   extra: true       sends more bytes than promised;  page_loop: true  the list never ends
//   unsafe: true      the list has "../evil"
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import crypto from 'node:crypto';

const [root, state] = process.argv.slice(2);
const COMMIT = '0123456789abcdef0123456789abcdef01234567';
const served = {};        // how often each fault was used
const lfs = (name, size) => size > 1000 || name.endsWith('.safetensors');
const sha256 = (b) => crypto.createHash('sha256').update(b).digest('hex');
const gitsha = (b) => crypto.createHash('sha1').update(`blob ${b.length}\0`).update(b).digest('hex');
const etagOf = (name, bytes) => (lfs(name, bytes.length) ? sha256(bytes) : gitsha(bytes));
const mode = () => { try { return JSON.parse(fs.readFileSync(`${state}/mode`, 'utf8')); } catch { return {}; } };
const log = (line) => fs.appendFileSync(`${state}/log`, line + '\n');
const times = (key, most) => { served[key] = (served[key] ?? 0) + 1; return served[key] <= most; };
let modeText = '';

function walk(dir, prefix = '') {
  return fs.readdirSync(dir, { withFileTypes: true }).flatMap((d) =>
    d.isDirectory() ? walk(`${dir}/${d.name}`, `${prefix}${d.name}/`) : [prefix + d.name]).sort();
}

function refuse(res, status, headers = {}) {
  res.writeHead(status, { 'X-Error-Message': `test answer ${status}`, ...headers });
  res.end(`{"error":"test answer ${status}"}`);
}

function planned(m, name, res) {
  const list = m.status?.[name] ?? m.status?.['*'] ?? [];
  const n = served['status ' + name] ?? 0;
  if (n >= list.length || list[n] === 200) { served['status ' + name] = n + 1; return false; }
  served['status ' + name] = n + 1;
  const headers = {};
  if (list[n] === 429 && m.retry_after) headers['Retry-After'] = String(m.retry_after);
  if (list[n] === 429 && m.rate_limit) headers.RateLimit = `"resolvers";r=0;t=${m.rate_limit}`;
  if (list[n] === 0) { res.destroy(); return true; }
  refuse(res, list[n], headers);
  return true;
}

function tree(req, res, repo, m, url) {
  const dir = `${root}/${repo}`;
  const files = walk(dir).map((name) => {
    const bytes = fs.readFileSync(`${dir}/${name}`);
    const item = { type: 'file', oid: gitsha(bytes), size: bytes.length, path: name };
    if (lfs(name, bytes.length)) item.lfs = { oid: sha256(bytes), size: bytes.length, pointerSize: 134 };
    return item;
  });
  files.unshift({ type: 'directory', oid: COMMIT, size: 0, path: 'folder' });
  if (m.unsafe) files.push({ type: 'file', oid: COMMIT, size: 1, path: '../evil' });
  const page = m.page ?? 2, cursor = Number(url.searchParams.get('cursor') ?? 0);
  const headers = { 'Content-Type': 'application/json' };
  if (cursor + page < files.length || m.page_loop)
    headers.Link = `<http://127.0.0.1:${port}${url.pathname}?recursive=true&cursor=${cursor + (m.page_loop ? 0 : page)}>; rel="next"`;
  res.writeHead(200, headers);
  res.end(JSON.stringify(files.slice(cursor, cursor + page)));
}

async function send(res, bytes, m, status, headers) {
  res.setMaxListeners(0);
  res.writeHead(status, headers);
  let body = bytes;
  const cut = m.cut && bytes.length > m.cut && times('cut', m.cut_times ?? 1e9);
  if (cut) body = body.subarray(0, m.cut);
  const piece = m.slow ? Math.max(1, Math.floor(m.slow / 20)) : 65536;
  for (let i = 0; i < body.length; i += piece) {
    if (!res.write(body.subarray(i, i + piece))) await new Promise((r) => { res.once('drain', r); res.once('close', r); });
    if (m.slow) await new Promise((r) => setTimeout(r, 50));
    if (res.destroyed) return;
  }
  if (cut) await new Promise((r) => setTimeout(r, 20));
  if (cut && body.length < bytes.length) res.destroy(); else res.end();
}

function cdn(req, res) {
  const m = fresh(), file = cdnFiles[req.url.slice(5)];
  log(`cdn ${req.url} ${req.headers.range ?? '-'}${req.headers.authorization ? ' LEAK' : ''}`);
  if (!file) return refuse(res, 404);
  if (planned(m, 'cdn', res)) return undefined;
  let bytes = fs.readFileSync(file), start = 0, status = 200;
  const headers = { ETag: '"0123456789abcdef0123456789abcdef"' };   // the storage's own
  const range = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '');
  let end = bytes.length;
  if (range && !m.no_range) {
    start = Number(range[1]);
    if (range[2]) end = Math.min(end, Number(range[2]) + 1);
    if (start >= bytes.length) return refuse(res, 416, { 'Content-Range': `bytes */${bytes.length}` });
    status = 206;
    headers['Content-Range'] = `bytes ${m.wrong_range ? start - 1 : start}-${end - 1}/${bytes.length}`;
  }
  if (m.corrupt && times('corrupt', m.corrupt_times ?? 1e9)) { bytes = Buffer.from(bytes); bytes[bytes.length - 1] ^= 1; }
  bytes = bytes.subarray(start, end);
  if (m.extra) bytes = Buffer.concat([bytes, Buffer.from('more')]);
  else headers['Content-Length'] = bytes.length;
  return send(res, bytes, m, status, headers);
}

const cdnFiles = {};
function resolve(req, res, repo, name, m) {
  const file = `${root}/${repo}/${decodeURIComponent(name)}`;
  if (!fs.existsSync(file)) return refuse(res, 404, { 'X-Error-Code': 'EntryNotFound' });
  const bytes = fs.readFileSync(file), etag = etagOf(name, bytes);
  if (!lfs(name, bytes.length)) {
    res.writeHead(200, { ETag: `"${etag}"`, 'X-Repo-Commit': COMMIT, 'Content-Length': bytes.length });
    return res.end(bytes);
  }
  cdnFiles[etag] = file;
  const linked = m.changed ? 'f'.repeat(64) : etag;
  res.writeHead(302, { Location: `http://127.0.0.1:${cdnPort}/cdn/${etag}`, 'X-Linked-Etag': `"${linked}"`,
    'X-Linked-Size': bytes.length, 'X-Repo-Commit': COMMIT, ETag: `"${linked}"` });
  return res.end();
}

function fresh() {
  const m = mode(), text = JSON.stringify(m);
  if (text !== modeText) { for (const k of Object.keys(served)) delete served[k]; modeText = text; }
  return m;
}

const hub = http.createServer((req, res) => {
  const m = fresh(), url = new URL(req.url, 'http://x');
  log(`hub ${req.url} ${req.headers.range ?? '-'}`);
  if (m.token && req.headers.authorization !== `Bearer ${m.token}`) return refuse(res, 401);
  let hit = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(url.pathname);
  if (hit) {
    if (planned(m, hit[2], res)) return undefined;
    if (!fs.existsSync(`${root}/${hit[1]}`)) return refuse(res, m.token ? 401 : 404);
    if (hit[2] === 'tree') return tree(req, res, hit[1], m, url);
    if (hit[3] !== 'main' && hit[3] !== COMMIT) return refuse(res, 404);
    res.writeHead(200, { 'Content-Type': 'application/json' });
    return res.end(JSON.stringify({ id: hit[1], sha: COMMIT, siblings: [] }));
  }
  hit = /^\/([^/]+\/[^/]+)\/resolve\/([0-9a-f]{40})\/(.+)$/.exec(url.pathname);
  if (!hit) return refuse(res, 404);
  if (planned(m, hit[3], res)) return undefined;
  return resolve(req, res, hit[1], hit[3], m);
});

let port, cdnPort;
const second = http.createServer(cdn);
second.listen(0, '127.0.0.1', () => {
  cdnPort = second.address().port;
  hub.listen(0, '127.0.0.1', () => {
    port = hub.address().port;
    fs.writeFileSync(`${state}/port.new`, String(port));
    fs.renameSync(`${state}/port.new`, path.join(state, 'port'));
  });
});

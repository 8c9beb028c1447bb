// Real coding agents, headless, against a running flashchat serve with the answers of agents.json.
//   node agents.mjs URL BIN WORK AGENT
// BIN is the folder with the agents' programs, WORK an empty folder for this agent. Two runs of the agent in one
// conversation: the first is answered by the model, in the second the scripted answer calls the agent's shell. Prints
// "PASS name" and "FAIL name" with the reason.
//
// What is proven by effect: the command prints round-42, which stands nowhere in any prompt or script (they say
// $((40+2))), so the file that holds it was written by the agent's own tool, and the answer that only follows a message
// with round-42 proves that the agent sent the result back.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const [url, bin, work, name] = process.argv.slice(2);
const home = path.join(work, 'home'), project = path.join(work, 'project');
const limit = +(process.env.AGENT_SECONDS || 240) * 1000;
const write = (file, text) => { fs.mkdirSync(path.dirname(file), { recursive: true }); fs.writeFileSync(file, text); };
fs.mkdirSync(home, { recursive: true });
fs.mkdirSync(project, { recursive: true });

// prepare: its settings. run: the words of the first and of the second run. env: what it needs besides PATH and HOME.
const agents = {
  opencode: {
    prepare() {
      write(path.join(project, 'opencode.json'), JSON.stringify({
        provider: { flashchat: { npm: '@ai-sdk/openai-compatible', options: { baseURL: url + '/v1' }, models: { ember: { limit: { context: 65536, output: 400 } } } } },
        model: 'flashchat/ember', small_model: 'flashchat/ember', autoupdate: false, share: 'disabled',
      }));
    },
    run: [(p) => ['run', p], (p) => ['run', '--continue', p]],
    env: { OPENCODE_DISABLE_MODELS_FETCH: '1', OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_LSP_DOWNLOAD: '1', OPENCODE_DISABLE_DEFAULT_PLUGINS: '1' },
  },
  codex: {
    prepare() {
      write(path.join(home, '.codex/config.toml'),
        `model = "ember"\nmodel_provider = "flashchat"\n[model_providers.flashchat]\nname = "flashchat"\nbase_url = "${url}/v1"\nwire_api = "responses"\n`);
    },
    run: [(p) => ['exec', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox', p],
      (p) => ['exec', 'resume', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox', '--last', p]],
    env: {},
  },
  claude: {
    prepare() { },
    run: [(p) => ['-p', p, '--allowedTools', 'Bash'], (p) => ['-c', '-p', p, '--allowedTools', 'Bash']],
    env: {
      ANTHROPIC_BASE_URL: url, ANTHROPIC_AUTH_TOKEN: 'none', ANTHROPIC_MODEL: 'ember', ANTHROPIC_DEFAULT_HAIKU_MODEL: 'ember',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1', DISABLE_AUTOUPDATER: '1', IS_SANDBOX: '1', CLAUDE_CODE_MAX_OUTPUT_TOKENS: '400', API_TIMEOUT_MS: String(limit),
    },
  },
  qwen: {
    prepare() { write(path.join(home, '.qwen/settings.json'), JSON.stringify({ privacy: { usageStatisticsEnabled: false }, general: { enableAutoUpdate: false } })); },
    run: [(p) => ['--auth-type', 'openai', '--yolo', '-p', p], (p) => ['--auth-type', 'openai', '--yolo', '--continue', '-p', p]],
    env: { OPENAI_BASE_URL: url + '/v1', OPENAI_API_KEY: 'none', OPENAI_MODEL: 'ember', HTTPS_PROXY: '', https_proxy: '' }, // a proxy for https gets its http as well
  },
};

const agent = agents[name];
let failed = 0, at_work = null;
const check = (what, ok, detail) => {
  if (!ok) failed = 1;
  console.log(`${ok ? 'PASS' : 'FAIL'} agents: ${name}: ${what}`);
  if (!ok && detail) console.log(detail);
};

// The agent and whatever it started: one process group, ended when its time is over or ours is.
const kill_all = () => { if (at_work) try { process.kill(-at_work.pid, 'SIGKILL'); } catch { /* it has ended */ } };
for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(s, () => { kill_all(); process.exit(1); });
process.on('exit', kill_all);

function start(words) {
  return new Promise((done) => {
    let out = '', err = '', timed = false, slow = false;
    // Nothing outside is reached: https goes to a proxy that is not there, the server itself is http.
    const env = { PATH: `${path.dirname(process.execPath)}:${process.env.PATH}`, HOME: home, TERM: 'dumb', LANG: 'C.UTF-8', HTTPS_PROXY: 'http://127.0.0.1:9', https_proxy: 'http://127.0.0.1:9', NO_PROXY: '127.0.0.1', ...agent.env };
    const child = spawn(path.join(bin, name), words, { cwd: project, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    at_work = child;
    const timer = setTimeout(async () => { timed = true; slow = await still_computing(); kill_all(); }, limit);
    child.stdout.on('data', (d) => { out += d; });
    child.stderr.on('data', (d) => { err += d; });
    child.on('error', (e) => { err += e.message; });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      kill_all();
      at_work = null;
      done({ out, err, code, slow, why: timed ? `no end after ${limit / 1000} s` : `exit code ${code ?? signal}` });
    });
  });
}

async function metrics() {
  const text = await (await fetch(url + '/metrics')).text();
  const value = (n) => +(text.match(new RegExp(`^flashchat:${n} (.*)$`, 'm'))?.[1] ?? NaN);
  return { computed: value('prompt_tokens_total'), cached: value('cached_tokens_total'), made: value('tokens_predicted_total'), ttft: value('time_to_first_token_seconds_sum'), n: value('time_to_first_token_seconds_count'), running: value('requests_processing'), steps: value('n_decode_total') };
}
// The server is at work on a request and comes forward: not the client, the machine is what takes so long.
async function still_computing() {
  const a = await metrics();
  await new Promise((r) => setTimeout(r, 15000));
  const b = await metrics();
  return a.running > 0 && b.steps > a.steps;
}
const minus = (a, b) => Object.fromEntries(Object.keys(a).map((k) => [k, a[k] - b[k]]));
const told = (m, ms) => `${m.n} requests, ${m.computed} prompt tokens computed, ${m.cached} reused, ${m.made} made, first token after ${(m.ttft / m.n).toFixed(1)} s, ${(ms / 1000).toFixed(1)} s in all`;
const too_slow = (r) => {
  if (!r.slow) return;
  console.log(`SKIP agents: ${name}: this machine computes its prompt too slowly now (${limit / 1000} s were not enough)`);
  process.exit(failed);
};
const tail = (r) => `  ${r.why}\n${(r.out.slice(-1500) + '\n--\n' + r.err.slice(-1500)).replace(/^/gm, '  | ')}`;

agent.prepare();
const m0 = await metrics(), t0 = Date.now();
const first = await start(agent.run[0]('Say hello to the test'));
const m1 = await metrics(), a = minus(m1, m0), t1 = Date.now();
console.log(`  ${name}, first turn: ${told(a, t1 - t0)}`);
too_slow(first);
check('completes a turn with the model', first.code === 0 && first.out.includes('Hello.') && a.made > 0, tail(first));

const second = await start(agent.run[1](`Run the command of ${name}`));
const b = minus(await metrics(), m1);
console.log(`  ${name}, second turn: ${told(b, Date.now() - t1)}`);
too_slow(second);
let file = '';
try { file = fs.readFileSync(path.join(project, 'round.txt'), 'utf8'); } catch { /* not written */ }
check('its tool is executed', file.trim() === 'round-42', `  round.txt: ${JSON.stringify(file)}\n${tail(second)}`);
check('sends the result back', second.code === 0 && second.out.includes('The round trip is done.'), tail(second));
// Both requests of the second run (the call, the result) go on where the first run was.
check('the second turn reuses the prefix', b.cached > a.computed && b.computed < a.computed, `  ${told(b, 0)}`);
process.exit(failed);

// differential.mjs: our ids against those of the reference tokenizers.
//
//   node differential.mjs NPM_FOLDER WORK_FOLDER DRIVER EMBER_DIR COUNT
//
// NPM_FOLDER holds node_modules/ (tokenizers, @huggingface/tokenizers) and models/NAME/. "tokenizers" (the
// native library) is the reference: every id must agree. "@huggingface/tokenizers" (JavaScript) is a second
// opinion on every fifth of them: where it disagrees with the native one, the strings are counted (SHOW_DISAGREE=1
// prints them), and do not fail.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { makeStrings } from './strings.mjs';

const [npm, work, driver, ember, countText] = process.argv.slice(2);
const require = createRequire(path.resolve(npm, 'package.json'));
const native = require('tokenizers');
let second = null;
try { second = require('@huggingface/tokenizers'); } catch { /* said below */ }
const COUNT = parseInt(countText, 10);
let failed = 0;
const say = (ok, name, text) => { console.log(`${ok ? 'PASS' : 'FAIL'} ${name}: ${text}`); if (!ok) failed++; };

const QWEN35 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const read = (dir) => JSON.parse(fs.readFileSync(path.join(dir, 'tokenizer.json')));
const readConfig = (dir) => { try { return JSON.parse(fs.readFileSync(path.join(dir, 'tokenizer_config.json'))); } catch { return {}; } };

function writeRecords(file, buffers) {
    const parts = [];
    for (const b of buffers) {
        const head = Buffer.alloc(4);
        head.writeUInt32LE(b.length);
        parts.push(head, b);
    }
    fs.writeFileSync(file, Buffer.concat(parts));
}

function readIds(file, count) {
    const b = fs.readFileSync(file);
    const u = new Uint32Array(b.buffer, b.byteOffset, b.length / 4);
    const out = [];
    for (let at = 0; out.length < count; at += 1 + u[at]) out.push(u.subarray(at + 1, at + 1 + u[at]));
    return out;
}

const equal = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

// One case: the file `json`, our mode, and the file that the reference gets (the same, or one without added
// tokens: what content mode must be equal to).
async function compare(name, json, mode, count, seed, config) {
    const dir = path.join(work, name);
    fs.mkdirSync(dir, { recursive: true });
    fs.writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify(json));
    const strings = makeStrings(seed, count, json.added_tokens.map((t) => t.content));
    writeRecords(path.join(dir, 'strings'), strings.map((s) => Buffer.from(s)));
    try { execFileSync(driver, [dir, mode, path.join(dir, 'strings'), path.join(dir, 'ids')], { stdio: 'pipe' }); }
    catch (e) { return say(false, name, String(e.stderr).trim()); }
    const ours = readIds(path.join(dir, 'ids'), count);
    const theirs = mode === 'content' ? { ...json, added_tokens: [] } : json;
    const reference = native.Tokenizer.fromString(JSON.stringify(theirs));
    const js = config && second ? new second.Tokenizer(theirs, config) : null;
    let different = 0, disagree = 0, ids = 0, shown = 0;
    for (let i = 0; i < count; i += 500) {
        const batch = strings.slice(i, i + 500);
        const encodings = await reference.encodeBatch(batch, { addSpecialTokens: false });
        for (let k = 0; k < batch.length; k++) {
            const want = encodings[k].getIds();
            ids += want.length;
            if (!equal(want, ours[i + k])) {
                different++;
                if (shown++ < 5) console.log(`     ${JSON.stringify(batch[k])}\n     wanted ${want}\n     got    ${ours[i + k].join()}`);
            }
            if (!js || i >= COUNT / 5) continue;
            const other = js.encode(batch[k], { add_special_tokens: false }).ids;
            if (!equal(other, want)) disagree++;
            if (!equal(other, want) && process.env.SHOW_DISAGREE) console.log(`     ${JSON.stringify(batch[k])}\n     native ${want}\n     js     ${other}`);
        }
    }
    const opinion = js ? `; the JavaScript reference disagrees with the native one on ${disagree} of ${Math.min(count, COUNT / 5)}` : '';
    say(different === 0, name, `${count} strings, ${ids} ids, ${different} different${opinion}`);
    fs.rmSync(dir, { recursive: true });
}

function roundTrip(name, json, count, seed) {
    const dir = path.join(work, name);
    fs.mkdirSync(dir, { recursive: true });
    fs.writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify({ ...json, normalizer: null }));
    const strings = makeStrings(seed, count, ['<|im_start|>']).map((s, i) => {
        const b = Buffer.from(s); // break it: overwrite, cut, or leave bytes at random places
        for (let k = 0; k < i % 7 && b.length; k++) b[(i * 7919 + k * 104729) % b.length] = (i * 31 + k * 151) & 255;
        return b.subarray(i % 3 ? 0 : Math.min(1, b.length));
    });
    writeRecords(path.join(dir, 'strings'), strings);
    let ok = true, text = '';
    try { text = execFileSync(driver, [dir, 'roundtrip', path.join(dir, 'strings')]).toString().trim(); }
    catch (e) { ok = false; text = String(e.stdout) + String(e.stderr); }
    say(ok, name, text);
    fs.rmSync(dir, { recursive: true });
}

// A megabyte of each awkward thing, each under a second; and opening.
function longRuns(name, dir) {
    let ok = true, text = '', open = '';
    try {
        open = execFileSync(driver, [dir, 'open']).toString().trim();
        text = execFileSync(driver, [dir, 'long'], { stdio: 'pipe' }).toString();
    } catch (e) { ok = false; text = String(e.stdout) + String(e.stderr); }
    const times = [...text.matchAll(/([0-9.]+) s, /g)].map((m) => +m[1]);
    say(ok && times.length >= 20, name + '-long-runs', `${times.length} texts of 1 MB, the slowest ${Math.max(...times)} s; open: ${open}`);
    if (!ok) console.log(text);
}

// Variants of a small tokenizer for what the big ones do not use.
function variants(base) {
    const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
    const split = (pattern, behavior, invert = false) => ({ type: 'Split', pattern, behavior, invert });
    const sequence = (...pretokenizers) => ({ ...base, pre_tokenizer: { type: 'Sequence', pretokenizers: [...pretokenizers, byteLevel] } });
    const out = {};
    for (const behavior of ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']) {
        for (const invert of [false, true]) {
            out[`split-${behavior}${invert ? '-invert' : ''}`] = sequence(split({ Regex: '[\\s\\-]|\\p{N}{2}|x*' }, behavior, invert));
        }
    }
    out['split-string'] = sequence(split({ String: 'e ' }, 'MergedWithPrevious'), split({ String: '.' }, 'Contiguous'));
    out['digits'] = sequence({ type: 'Digits', individual_digits: false });
    out['digits-each'] = sequence({ type: 'Digits', individual_digits: true }, split({ Regex: '\\w'.replace('\\w', '\\p{L}+') }, 'Removed', true));
    out['gpt2'] = { ...base, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true } };
    out['gpt2-prefix-space'] = { ...base, pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true }] } };
    out['ignore-merges'] = { ...base, model: { ...base.model, ignore_merges: true } };
    out['merges-as-strings'] = { ...base, model: { ...base.model, merges: base.model.merges.map((m) => m.join(' ')) } };
    out['no-nfc'] = { ...base, normalizer: { type: 'Sequence', normalizers: [] } };
    out['expressions'] = sequence(split({ Regex: '(?=[A-Z])\\S{2,3}|(?:ab?|c*?d|[^\\S\\n]+)|\\d++(?!\\.)|\\D\\p{Lu}|[\\u00e0-\\u00ff\\-\\]]+|[.]|.e' }, 'Isolated'));
    const flags = (o) => ({ single_word: false, lstrip: false, rstrip: false, normalized: false, special: false, ...o });
    let id = Math.max(...base.added_tokens.map((t) => t.id));
    const more = [['<|both|>', { lstrip: true, rstrip: true }], ['<|left|>', { lstrip: true, special: true }], ['<|right|>', { rstrip: true }], ['coöperate', { single_word: true }], ['naïve', { single_word: true, normalized: true }],
        ["rock'n", { normalized: true }], ['caf\u00e9', { normalized: true }], ['re\u0301s', { normalized: true }], ['<|im', {}], ['<|im_start|>x', {}], ['\u0451', {}], ['and to', { lstrip: true, rstrip: true, single_word: true }]];
    out['added-flags'] = { ...base, added_tokens: [...base.added_tokens, ...more.map(([content, o]) => ({ id: ++id, content, ...flags(o) }))] };
    return out;
}

const models = path.join(npm, 'models');
const model = (name) => [read(path.join(models, name)), readConfig(path.join(models, name))];
const start = Date.now();
if (!second) console.log('SKIP second-opinion: @huggingface/tokenizers is not installed');
{
    const [qwen, config] = model('qwen3');
    await compare('qwen3', qwen, 'markup', COUNT, 1, config);
    await compare('qwen3-content', qwen, 'content', COUNT / 5, 2, null);
    const newer = structuredClone(qwen);
    newer.pre_tokenizer.pretokenizers[0].pattern.Regex = QWEN35;
    fs.mkdirSync(path.join(work, 'newer'), { recursive: true });
    fs.writeFileSync(path.join(work, 'newer', 'tokenizer.json'), JSON.stringify(newer));
    longRuns('qwen3', path.join(models, 'qwen3'));
    longRuns('qwen3_5-pattern', path.join(work, 'newer'));
    fs.rmSync(path.join(work, 'newer'), { recursive: true });
    await compare('qwen3_5-pattern', newer, 'markup', COUNT, 3, config);
}
for (const name of ['llama3', 'deepseek_v3', 'gptoss']) {
    const [json, config] = model(name);
    await compare(name, json, 'markup', COUNT / 5, 4, config);
    roundTrip(name + '-broken-utf8', json, COUNT / 10, 5);
    longRuns(name, path.join(models, name));
}
const small = read(ember);
await compare('ember', small, 'markup', COUNT / 5, 6, readConfig(ember));
await compare('ember-content', small, 'content', COUNT / 10, 7, null);
roundTrip('ember-broken-utf8', small, COUNT / 10, 8);
for (const [name, json] of Object.entries(variants(small))) await compare('variant-' + name, json, 'markup', COUNT / 20, 9, null);
{
    let refused = '';
    try { execFileSync(driver, [path.join(models, 'gemma3'), 'open'], { stdio: 'pipe' }); }
    catch (e) { refused = String(e.stderr).trim(); }
    say(/SentencePiece/.test(refused), 'gemma3-refused', refused.slice(-120));
}
console.log(`     ${((Date.now() - start) / 1000).toFixed(1)} s`);
process.exit(failed ? 1 : 0);

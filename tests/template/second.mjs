// A second opinion on our renderings: @huggingface/jinja.
//
//     second.mjs DRIVER COUNT TEMPLATE.jinja ...
//
// Where the two references differ we follow jinja2 (docs/TEMPLATES.md says where that is), so a difference is counted and
// not a failure; but there may not be many, and a rendering that @huggingface/jinja and jinja2 agree on is ours, too:
// that is what is checked. One line for each template.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Template } from '@huggingface/jinja';

const [driver, countText, ...files] = process.argv.slice(2);
const count = +countText;
const here = path.dirname(new URL(import.meta.url).pathname);
const python = process.env.PYTHON ?? 'python3';
const contexts = execFileSync(python, [path.join(here, 'conversations.py'), '77', String(count)], { maxBuffer: 1 << 28 })
    .toString().trim().split('\n').map((x) => JSON.parse(x));
const run = (program, args, lines) => execFileSync(program, args, { input: lines, maxBuffer: 1 << 29 })
    .toString().trim().split('\n').map((x) => JSON.parse(x));

let failed = 0;
for (const file of files) {
    const template = fs.readFileSync(file, 'utf8'), name = path.basename(file, '.jinja');
    const lines = contexts.map((context, i) => JSON.stringify({ context, now: 1753517000, ...(i ? {} : { template }) })).join('\n') + '\n';
    const ours = run(driver, [], lines), first = run(python, [path.join(here, 'reference.py')], lines);
    let parsed = null, same = 0, both = 0, alone = 0;
    try { parsed = new Template(template); } catch { }
    for (let i = 0; i < contexts.length && parsed; i++) {
        let text = null;
        try { text = parsed.render({ ...contexts[i], raise_exception: (m) => { throw new Error(m); } }); } catch { }
        if (text === null || first[i].output === undefined) continue;
        if (text === first[i].output) {
            both++;
            if (ours[i].output === text) same++;
        } else alone++;
    }
    const good = same === both;
    if (!good) failed++;
    console.log(parsed ? `${good ? 'PASS' : 'FAIL'} template-second-${name}: the references agree on ${both}, we on ${same} of them; they differ on ${alone}`
        : `SKIP template-second-${name}: @huggingface/jinja cannot parse it`);
}
process.exit(failed ? 1 : 0);

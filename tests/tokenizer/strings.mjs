// strings.mjs: the strings of the differential test, the same for a seed everywhere.
// Every generator returns one string: code, JSON, Markdown, scripts of the world, random Unicode, and
// what breaks tokenizers (runs, combining marks, odd spaces, pieces of added tokens).

export function generator(seed) {
    let state = seed >>> 0;
    const next = () => { // mulberry32
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const int = (low, high) => low + Math.floor(next() * (high - low + 1));
    const pick = (list) => list[Math.floor(next() * list.length)];
    const many = (low, high, make, between = '') =>
        Array.from({ length: int(low, high) }, make).join(between);
    return { next, int, pick, many };
}

const WORDS = ('the of and to in is that for it was on are as with his they at be this from have or by one had not but ' +
    'what all were when we there can an your which their said if do will each about how up out them then she many some ' +
    'so these would other into has more her two like him see time could no make than first been its who now people my ' +
    'made over did down only way find use may water long little very after words called just where most know get ' +
    'through back much before go good new write our used me man too any day same right look think also around another ' +
    "don't I'm you're we've she'll he'd it's WE'RE DON'T O'Neil rock'n'roll naïve café Übergröße résumé coöperate").split(' ');

const CODE = {
    c: ['#include <stdio.h>\n', 'static int $i(const char *$i, size_t n) {\n', '\tfor (size_t i = 0; i < n; i++) {\n',
        '    if (!$i || $i->next == NULL) return -$n;\n', '}\n', '/* $w $w $w */\n', '    *p++ = (uint8_t)(x >> $n & 0xff);\n',
        '#define $I(x) ((x) * 0x1p-$n)\n', '    printf("%s: %d\\n", $i, $n);\n', 'typedef struct $i { int $i[$n]; } $i;\n'],
    python: ['def $i(self, *args, **kwargs):\n', '    """$w $w."""\n', '    return [x for x in $i if x % $n == 0]\n',
        'class $I(Base):\n', '    @property\n', '        raise ValueError(f"{$i!r}: $w")\n', 'import numpy as np\n',
        '    with open($i, "rb") as f:\n', '\n\n', '# $w $w\n', "    $i = {'$w': $n, \"$w\": None}\n", '        yield from $i\n'],
    javascript: ['const $i = async ({ $i, ...rest }) => {\n', '  await $i?.$i ?? `${$i} $w`;\n', '};\n', 'export default $i;\n',
        '  // $w\n', "  it('$w $w', () => expect($i).toBe($n));\n", '  return $i.map((x) => x ** $n).filter(Boolean);\n',
        'module.exports = { $i, $i };\n', '  if (a !== b && a === $n) { throw new Error("$w"); }\n'],
    rust: ['pub fn $i<T: Clone>(&self, $i: &\'a mut [T]) -> Result<(), Error> {\n', '    let mut $i = Vec::<u8>::with_capacity($n);\n',
        '    match $i { Some(x) if x > $n => x, _ => 0 }\n', '#[derive(Debug, Clone)]\n', '    $i?.iter().map(|x| x + 1).collect::<Vec<_>>();\n',
        '}\n', '//! $w $w\n', '    println!("{:?} {}", $i, $n_usize);\n', 'impl<T> $I for $I<T> {}\n'],
    go: ['func (s *$I) $I(ctx context.Context, $i int) error {\n', '\tif err != nil {\n\t\treturn fmt.Errorf("$w: %w", err)\n\t}\n',
        '\tgo func() { ch <- $n }()\n', '}\n', 'package main\n\nimport (\n\t"fmt"\n)\n', '\tfor i, $i := range $i {\n', '\tdefer mu.Unlock()\n'],
    java: ['public final class $I extends $I<String> implements $I {\n', '    private static final long $I = $nL;\n', '    @Override\n',
        '    public void $i(final int $i) throws IOException {\n', '        System.out.println("$w" + $i);\n', '    }\n', '}\n', '    /** {@link $I} $w. */\n'],
    cpp: ['template <typename T, size_t N = $n>\n', 'auto $i = std::make_unique<$I>(std::move($i));\n', 'namespace $i::$i {\n',
        '  std::cout << $i << "\\t" << $n.0f << std::endl;\n', '}  // namespace\n', '[[nodiscard]] constexpr bool operator<=>(const $I&) const = default;\n'],
    shell: ['#!/bin/sh\nset -eu\n', 'for f in "$@"; do\n', '  [ -z "${$i:-}" ] && echo "$w" >&2\n', 'done\n', '$i=$(grep -rn \'$w\' . | awk \'{print $1}\')\n',
        'if [ $? -ne 0 ]; then exit $n; fi\n', 'cat <<EOF\n$w\nEOF\n', 'curl -sSL https://example.com/$i?x=$n&y=%20 | tar xz\n'],
    sql: ['SELECT $i.$i, COUNT(*) AS n FROM $i\n', '  LEFT JOIN $i ON $i.id = $i.$i_id\n', "WHERE $i LIKE '%$w%' AND x >= $n\n",
        'GROUP BY 1 HAVING SUM($i) > $n;\n', 'CREATE TABLE IF NOT EXISTS $i (id BIGINT PRIMARY KEY, $i VARCHAR($n));\n', '-- $w\n'],
    html: ['<!DOCTYPE html>\n<html lang="en">\n', '<div class="$i $i" id=\'$i\'>$w</div>\n', '  <a href="/$i?q=$n&amp;r=#$i">$w &mdash; $w</a>\n',
        '<style>\n.$i > #$i::after { margin: -$npx 0.5em; color: #a1b2c3; }\n</style>\n', '<!-- $w -->\n', '</html>'],
    haskell: ['module $I where\n', '$i :: (Monad m, Show a) => a -> m [a]\n', "$i' x = do { y <- $i x; return $ y <> [$n] }\n", '  where $i = foldr (\\a b -> a + b) 0\n', '{-# LANGUAGE GADTs #-}\n'],
    latex: ['\\begin{equation}\\label{eq:$i}\n', '  \\frac{\\partial $i}{\\partial x_{$n}} = \\sum_{i=0}^{n} \\alpha_i^2\n', '\\end{equation}\n', '% $w\n', '\\textbf{$w}~\\cite{$i}\n'],
};

// First and last code point of what a script's random words are made of.
const SCRIPTS = [[0x41, 0x5a], [0x61, 0x7a], [0xc0, 0x24f], [0x250, 0x2af], [0x370, 0x3ff], [0x400, 0x4ff], [0x530, 0x58f], [0x590, 0x5f4],
    [0x600, 0x6ff], [0x700, 0x74f], [0x7c0, 0x7ff], [0x900, 0x97f], [0x980, 0x9fe], [0xa00, 0xa76], [0xa80, 0xaff], [0xb00, 0xb77], [0xb80, 0xbfa],
    [0xc00, 0xc7f], [0xc80, 0xcf3], [0xd00, 0xd7f], [0xd80, 0xdf4], [0xe00, 0xe5b], [0xe80, 0xedf], [0xf00, 0xfda], [0x1000, 0x109f], [0x10a0, 0x10ff],
    [0x1100, 0x11ff], [0x1200, 0x137c], [0x13a0, 0x13fd], [0x1780, 0x17f9], [0x1800, 0x18aa], [0x1e00, 0x1eff], [0x1f00, 0x1fff], [0x2c00, 0x2c5f],
    [0x3041, 0x30ff], [0x3105, 0x312f], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xa000, 0xa48c], [0xf900, 0xfad9], [0xff00, 0xffef], [0x10300, 0x1034a],
    [0x12000, 0x12399], [0x13000, 0x1342f], [0x1d400, 0x1d7ff], [0x1f300, 0x1faff], [0x20000, 0x2a6df]];
const PUNCTUATION = [...'.,;:!?-–—…()[]{}"\'«»„“”‘’¿¡、。「」・，！？।॥؟،՞'];
const SPACES = [' ', ' ', ' ', '  ', '\n', '\n\n', '\t', '\r\n', '\r', '\u00a0', '\u3000', '\u2003', '\u2028', '\u0085', '\u200b', '\ufeff', '\u180e',
    '\u1680', '\u202f', '\v', '\f', ' \n ', '\n    ', '\x00', '\u200d', '\u00ad'];
const EMOJI = ['😀', '👨‍👩‍👧‍👦', '🏳️‍🌈', '👍🏽', '🇩🇪', '❤️', '1️⃣', '🤷🏿‍♀️', '🫠', '©️'];
const MARKS = [0x300, 0x301, 0x308, 0x315, 0x316, 0x323, 0x327, 0x328, 0x334, 0x345, 0x591, 0x5b0, 0x64b, 0x670, 0x93c, 0x94d, 0x9cd, 0xe38, 0xf71, 0xf72,
    0x3099, 0x309a, 0x1dc0, 0x20d0, 0xfe20, 0x302a, 0x1d165, 0x1e8d0];

export function makers(seed, addedTokens) {
    const g = generator(seed);
    const { next, int, pick, many } = g;
    const chr = String.fromCodePoint;
    const point = (low, high) => {
        for (;;) {
            const c = int(low, high);
            if (c < 0xd800 || c > 0xdfff) return chr(c);
        }
    };
    const word = () => pick(WORDS);
    const number = () => pick([() => int(0, 9), () => int(0, 9999), () => next().toFixed(int(1, 8)), () => int(0, 2 ** 31), () => '1e-' + int(1, 20)])() + '';
    const name = () => pick([() => word(), () => word() + '_' + word(), () => word() + word()[0].toUpperCase() + word().slice(1), () => pick([...'ijknxyzXYZ']),
        () => word() + int(0, 99)])().replace(/[^A-Za-z0-9_]/g, '');
    const fill = (s) => s.replace(/\$([iInw])/g, (_, k) => k === 'n' ? number() : k === 'w' ? word() : k === 'I' ? name().replace(/^./, (c) => c.toUpperCase()) : name());
    const json = (depth) => pick(depth > 3 ? [0, 1, 2] : [0, 1, 2, 3, 3, 4, 4]);
    const value = (depth) => {
        switch (json(depth)) {
        case 0: return number() * 1;
        case 1: return many(0, 4, word, ' ') + pick(['', '\n', '"', '\\', 'é', '漢字', '\u0007']);
        case 2: return pick([true, false, null]);
        case 3: return Array.from({ length: int(0, 5) }, () => value(depth + 1));
        default: return Object.fromEntries(Array.from({ length: int(0, 5) }, () => [name(), value(depth + 1)]));
        }
    };
    const scriptWord = () => { const [a, b] = pick(SCRIPTS); return many(1, 9, () => point(a, b)); };
    const sentence = () => { const [a, b] = pick(SCRIPTS); return many(2, 14, () => many(1, 8, () => point(a, b)), pick([' ', ' ', '', '\u200c', '\u3000'])) + pick(PUNCTUATION); };
    return {
        ...Object.fromEntries(Object.entries(CODE).map(([k, list]) => [k, () => many(1, 7, () => fill(pick(list)))])),
        json: () => JSON.stringify(value(0), null, pick([undefined, 2, 4, '\t'])),
        markdown: () => many(1, 6, () => pick([() => '#'.repeat(int(1, 6)) + ' ' + many(1, 5, word, ' '), () => '- [ ] **' + word() + '** _' + word() + '_',
            () => '| ' + many(2, 5, word, ' | ') + ' |\n|---|:-:|', () => '```' + pick(Object.keys(CODE)) + '\n' + fill(pick(CODE.python)) + '```',
            () => '> ' + many(3, 9, word, ' '), () => int(1, 99) + '. [' + word() + '](https://' + name() + '.org/' + name() + ')', () => '![](' + name() + '.png)', () => '***'])(), pick(['\n', '\n\n'])),
        prose: () => many(3, 30, () => pick([word, word, word, word, number, () => word() + pick(PUNCTUATION)])(), ' '),
        script: () => many(1, 4, sentence, ' '),
        mixed: () => many(2, 14, () => pick([word, scriptWord, number, () => pick(PUNCTUATION), () => pick(SPACES), () => pick(EMOJI)])(), pick(['', ' '])),
        unicode: () => many(1, 24, () => point(0, 0x10ffff)),
        planes: () => many(1, 24, () => pick([() => point(0, 0x7f), () => point(0x80, 0x7ff), () => point(0x800, 0xffff), () => point(0x10000, 0x1ffff), () => point(0x20000, 0x33fff), () => point(0xe0000, 0xe0fff)])()),
        marks: () => many(1, 12, () => pick([() => word(), () => point(0xc0, 0x1ff), () => point(0xac00, 0xd7a3), () => point(0x1100, 0x11ff), () => point(0x900, 0xdff)])() + many(0, 5, () => chr(pick(MARKS)))),
        newMarks: () => many(1, 12, () => pick([() => 'a', () => point(0x10d00, 0x11fff), () => point(0x1e000, 0x1efff), () => point(0x16000, 0x16fff)])() + many(0, 3, () => pick([() => chr(pick(MARKS)), () => point(0x1ab0, 0x1aff), () => point(0x10ea0, 0x10f8f)])())),
        spaces: () => many(1, 20, () => pick([() => pick(SPACES).repeat(int(1, 6)), word, () => pick([...'a1-.'])])()),
        contractions: () => many(1, 8, () => word() + pick(["'", '’', "''"]) + pick(['s', 'S', 't', 'T', 're', 'RE', 'Re', 've', 'vE', 'm', 'M', 'll', 'lL', 'LL', 'd', 'D', '\u017f', 'x', 'l', 'v', '']) + pick(['', ' ', 'x', 'é', '1']), pick(['', ' '])),
        runs: () => many(1, 5, () => pick([...'aA1 \n\t-=_#*.,/\\éж漢の한😀\u0301ß', '  ', '\r\n', 'ab', ' a', "'s"]).repeat(int(1, 70))),
        added: () => many(1, 8, () => pick([() => pick(addedTokens), () => pick(addedTokens), () => pick(addedTokens).slice(0, int(0, 9)), () => pick(addedTokens).slice(int(1, 9)), word, () => pick(SPACES), scriptWord])(), pick(['', ' '])),
    };
}

// count strings of all kinds, in turns.
export function makeStrings(seed, count, addedTokens) {
    const all = Object.values(makers(seed, addedTokens.length ? addedTokens : ['<|none|>']));
    const out = [];
    for (let i = 0; i < count; i++) out.push(all[i % all.length]());
    return out;
}

"""Builds the compact source tables in sources/ from Debian and npm packages.

  apt-get install wordnet-base wamerican-small
  npm install countries-list@3.4.1 periodic-table@0.0.8 chemical-elements@2.3.3   (in NPM_DIR)
  python3 prepare_sources.py NPM_DIR

The tables are checked in, so this is only needed to rebuild them."""
import csv, json, lzma, os, re, sys
from collections import defaultdict

HERE = os.path.dirname(os.path.abspath(__file__))
NPM = sys.argv[1]
WN = "/usr/share/wordnet"
LEX = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption "
    "verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative "
    "verb.weather adj.ppl"
).split()
CONCRETE = {
    "noun.animal",
    "noun.artifact",
    "noun.body",
    "noun.food",
    "noun.plant",
    "noun.object",
    "noun.substance",
    "noun.phenomenon",
    "noun.person",
    "noun.feeling",
    "noun.time",
    "noun.event",
}
BAD = set(
    """sex rape fuck shit cunt cock slut whore bastard nigger penis vagina anus breast tit nipple orgasm erection
prostitute semen condom genital masturbation incest pornography suicide terrorist terrorism nazi hitler""".split()
)


def synsets():
    out = {}
    for pos, fn in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
        for line in open(f"{WN}/data.{fn}", encoding="latin-1"):
            if line.startswith("  "):
                continue
            left, gloss = line.rstrip().split(" | ", 1)
            f = left.split()
            n = int(f[3], 16)
            lemmas = [(re.sub(r"\(.*?\)", "", f[4 + 2 * i]), int(f[5 + 2 * i], 16)) for i in range(n)]
            p = 4 + 2 * n
            ptr = [(f[p + 1 + 4 * i], f[p + 2 + 4 * i], f[p + 3 + 4 * i], f[p + 4 + 4 * i]) for i in range(int(f[p]))]
            out[(pos, f[0])] = dict(lex=LEX[int(f[1])], lemmas=lemmas, ptr=ptr, gloss=gloss)
    return out


def clean_gloss(g):
    ex = re.findall(r'"([^"]+)"', g)
    d = re.sub(r';?\s*"[^"]*"[^;]*', "", g).strip(" ;")
    parts = [x.strip() for x in d.split(";") if x.strip()]
    d = parts[0] if parts else ""
    if len(d) < 24 and len(parts) > 1:
        d = d + "; " + parts[1]
    d = re.sub(r"\s+", " ", d).strip()
    d = re.sub(r"^\((?:of|used|with|often|sometimes|usually|especially|followed|plural|informal)[^)]*\)\s*", "", d)
    ex = [e for e in ex if 12 <= len(e) <= 70 and "--" not in e]
    return d, ex


def main():
    common = {w.strip() for w in open("/usr/share/dict/american-english-small", encoding="utf-8")}
    S = synsets()
    count = defaultdict(int)  # (lemma, synset key) -> tag count in SemCor
    for line in open(f"{WN}/cntlist.rev", encoding="latin-1"):
        key, _, c = line.split()
        lemma, rest = key.split("%")
        count[(lemma, rest)] = int(c)
    # index files list senses by frequency
    senses = defaultdict(list)
    for pos, fn in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
        for line in open(f"{WN}/index.{fn}", encoding="latin-1"):
            if line.startswith("  "):
                continue
            f = line.split()
            nptr = int(f[3])
            tagged = int(f[5 + nptr])
            senses[f[0]].append((pos, tagged, f[6 + nptr :]))
    tag = defaultdict(int)
    for (lemma, rest), c in count.items():
        tag[(lemma, {"1": "n", "2": "v", "3": "a", "5": "a", "4": "r"}[rest[0]])] += c
    words = {}
    for w, ps in senses.items():
        if not re.fullmatch(r"[a-z]{2,13}", w) or w not in common or w in BAD:
            continue
        ents = []
        for pos, tagged, offs in ps:
            c = tag[(w, pos)]
            s = S[(pos, offs[0])]
            concrete = s["lex"] in CONCRETE
            if (
                c < 2
                and not (
                    concrete
                    and c == 0
                    and len(offs) <= 2
                    and not any(t in s["gloss"] for t in ("genus", "slang", "Roman", "Greek"))
                )
                and not c
            ):
                continue
            ents.append((c, pos, offs))
        if not ents:
            continue
        ents.sort(key=lambda e: -e[0])
        out = []
        for c, pos, offs in ents[:2]:
            if out and c < 0.25 * ents[0][0]:
                continue
            for k, off in enumerate(offs[:1]):
                s = S[(pos, off)]
                d, ex = clean_gloss(s["gloss"])
                if not d or len(d) > 120 or re.search(r"\b%s\b" % w, d):
                    continue
                ex = [e for e in ex if re.search(r"\b%s" % re.escape(w), e, re.I)]
                syn = [
                    l.replace("_", " ") for l, _ in s["lemmas"] if l.lower() != w and re.fullmatch(r"[a-z_]{2,18}", l)
                ][:4]
                hyper = (
                    [S[(p, o)]["lemmas"][0][0].replace("_", " ") for sym, o, p, _ in s["ptr"] if sym == "@"][:1]
                    if pos in "nv"
                    else []
                )
                chain = []
                if pos == "n":
                    cur = s
                    for _ in range(9):
                        up = [(p, o) for sym, o, p, _ in cur["ptr"] if sym == "@"]
                        if not up:
                            break
                        cur = S[up[0]]
                        nm = cur["lemmas"][0][0].replace("_", " ")
                        if nm in ("entity", "physical entity", "abstraction", "object", "whole", "matter"):
                            break
                        chain.append(nm)
                ant = []
                idx = [i + 1 for i, (l, _) in enumerate(s["lemmas"]) if l.lower() == w]
                for sym, o, p, st in s["ptr"]:
                    if sym == "!" and int(st[:2], 16) in idx:
                        ant.append(S[(p, o)]["lemmas"][int(st[2:], 16) - 1][0].replace("_", " "))
                parts = [S[(p, o)]["lemmas"][0][0].replace("_", " ") for sym, o, p, _ in s["ptr"] if sym == "%p"][:6]
                out.append(
                    dict(
                        p=pos,
                        d=d,
                        e=ex[:2],
                        s=syn,
                        h=chain,
                        vh=hyper if pos == "v" else [],
                        a=ant[:1],
                        m=parts,
                        lex=s["lex"],
                        c=c,
                    )
                )
        if out:
            words[w] = out
    # rank: frequent words first; keep the best ones
    rank = sorted(words, key=lambda w: (-sum(e["c"] for e in words[w]), w))
    freq = [w for w in rank if sum(e["c"] for e in words[w]) >= 3]
    rest = [w for w in rank if sum(e["c"] for e in words[w]) < 3]
    conc = [
        w
        for w in rest
        if words[w][0]["lex"] in CONCRETE - {"noun.person", "noun.time", "noun.event"}
        and not (w.endswith("s") and w[:-1] in common)
    ]
    keep = freq + conc
    print(len(words), "candidates;", len(freq), "frequent;", len(conc), "rare but concrete; kept", len(keep))
    table = [
        [w, [[e["p"], e["d"], e["e"], e["s"], e["h"], e["vh"], e["a"], e["m"], e["c"]] for e in words[w]]] for w in keep
    ]
    dump("words.json.xz", table)

    cl = json.load(open(f"{NPM}/node_modules/countries-list/countries.min.json"))
    lang = json.load(open(f"{NPM}/node_modules/countries-list/languages.min.json"))
    cur = json.load(open(f"{NPM}/node_modules/countries-list/currencies.min.json"))
    cont = {
        "AF": "Africa",
        "AN": "Antarctica",
        "AS": "Asia",
        "EU": "Europe",
        "NA": "North America",
        "OC": "Oceania",
        "SA": "South America",
    }
    fix = {
        "US": dict(capital="Washington, D.C."),
        "TR": dict(name="Turkey"),
        "RU": dict(continent="EU"),
        "MN": dict(capital="Ulaanbaatar"),
        "SZ": dict(capital="Mbabane"),
        "LK": dict(capital="Sri Jayawardenepura Kotte"),
        "CY": dict(languages=["el", "tr"]),
        "KI": dict(capital="Tarawa"),
        "TL": dict(continent="AS"),
        "IL": None,
        "PS": None,
    }  # disputed capitals: talk.py words those two
    dep = set(
        """AC AI AQ AS AW AX BL BM BQ BV CC CK CW CX EH FK FO GF GG GI GL GP GS GU HK HM IM IO JE KY MF MO MP MQ MS NC NF NU PF PM
PN PR RE SH SJ SX TA TC TF TK UM VG VI WF YT""".split()
    )
    rows = []
    for k, c in sorted(cl.items()):
        if k in dep or fix.get(k, {}) is None or not c["capital"]:
            continue
        c = {**c, **fix.get(k, {})}
        cc = c["currency"][0]
        rows.append(
            [
                k,
                c["name"],
                c["capital"],
                cont[c["continent"]],
                cc,
                cur[cc]["name"] if cc in cur else cc,
                [lang[l]["name"] for l in c["languages"] if l in lang][:3],
                c["phone"][0],
            ]
        )
    print(len(rows), "countries")
    dump("countries.json.xz", rows)

    el = []
    for r in csv.DictReader(open(f"{NPM}/node_modules/periodic-table/data.csv"), skipinitialspace=True):
        r = {k.strip(): (v or "").strip() for k, v in r.items() if k}
        m = re.sub(r"\(.*\)|[\[\]]", "", r["atomicMass"])
        el.append(
            [
                int(r["atomicNumber"]),
                r["symbol"],
                {"Aluminum": "Aluminium"}.get(r["name"], r["name"]),
                m,
                r["groupBlock"],
                r["standardState"],
                r["yearDiscovered"],
                r["meltingPoint"],
                r["boilingPoint"],
            ]
        )
    new = json.loads(
        os.popen(
            f'cd {NPM} && node -e "console.log(JSON.stringify('
            "require('chemical-elements').elements.map(e => [e.number, e.symbol, e.name])))\""
        ).read()
    )
    for (n, s, nm), e in zip(new, el):  # current names and symbols win over the older table
        assert n == e[0]
        e[1], e[2] = s, nm
    print(len(el), "elements", el[12], el[116])
    dump("elements.json.xz", el)


def dump(name, obj):
    with lzma.open(f"{HERE}/sources/{name}", "wb", preset=9 | lzma.PRESET_EXTREME) as f:
        f.write(json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode())
    print(name, os.path.getsize(f"{HERE}/sources/{name}"))


main()

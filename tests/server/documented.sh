#!/usr/bin/env bash
# docs/SERVER.md against the sources: every field that a request may have, every endpoint, metric and option of the server is
# in it. The tables are those that the server itself reads by.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v python3 >/dev/null || { echo "SKIP documented: no python3"; exit 0; }
python3 - <<'END'
import glob, re

text = open('docs/SERVER.md', encoding='utf-8').read()
sections = {m.group(1): m.group(2) for m in re.finditer(r'^## (.*?)\n(.*?)(?=^## |\Z)', text, re.M | re.S)}
shared = sections['Sampling, for all APIs that have the field']

def names(path, table):
    source = open(path, encoding='utf-8').read()
    body, more = re.search(r'const field ' + table + r'\[\] = \{(.*?)\n *\{(0|\.more = \w+)\}\};', source, re.S).groups()
    shared_names = names('src/server/fields.c', more.split()[-1]) if more != '0' else []
    return re.findall(r'\{\.name = "([^"]+)"', body) + shared_names

def told(name, where, least, found):
    missing = [n for n in found if not re.search(r'[`.]' + re.escape(n) + r'[`. ]', where)]
    if len(found) < least:
        print(f'FAIL documented: {name}: only {len(found)} found in the sources: this test reads them wrongly')
    elif missing:
        print(f'FAIL documented: {name}: not in docs/SERVER.md: {" ".join(missing)}')
    else:
        print(f'PASS documented: {name}')

common = shared + text[:text.index('## Sampling')] # model, and what the endpoints' table says
for name, path, table, section in (
        ('chat completions', 'openai_chat', 'chat_fields', 'Chat completions'),
        ('apply-template', 'openai_chat', 'template_fields', 'Endpoints'),
        ('completions', 'openai_completions', 'completion_fields', 'Completions'),
        ('responses', 'openai_responses', 'response_fields', 'Responses'),
        ('messages', 'anthropic', 'message_fields', 'Messages')):
    told('fields of ' + name, sections[section] + common, 5, names(f'src/server/{path}.c', table))
routes = re.findall(r'^    \{"(?:GET|POST)", "(/[^"]*)"', open('src/server/server.c').read(), re.M)
paths = {p.removesuffix('/ID') for p in re.findall(r'`(?:GET |POST )?(/[^`?]*)`', sections['Endpoints'])}
told('endpoints', ''.join(f'`{p}`' for p in paths), 10, [r.rstrip('/') or '/' for r in routes])
source = open('src/server/metrics.c').read()
told('metrics', sections['Metrics'], 20, re.findall(r'(?:COUNTER|GAUGE)\("([a-z_]+)"', source) +
     re.findall(r'# TYPE flashchat:([a-z_]+) ', source))
END

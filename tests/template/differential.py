"""Our renderings against jinja2's, of the templates given.

    differential.py DRIVER COUNT TEMPLATE.jinja ...

The two agree when both give the same bytes or both refuse. Prints PASS or FAIL for each template."""
import json
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from conversations import conversation  # noqa: E402
from reference import Renderer  # noqa: E402

NOW = 1753517000  # what strftime_now sees


def ours(driver, cases):
    with tempfile.TemporaryFile() as out:
        lines = "".join(json.dumps(c) + "\n" for c in cases).encode()
        done = subprocess.run([driver], input=lines, stdout=out, check=False)
        if done.returncode:
            raise SystemExit(f"FAIL {driver} ended with {done.returncode}")
        out.seek(0)
        return [json.loads(x) for x in out]


def compare(driver, name, template, count):
    r = random.Random(name + str(count))
    contexts = [conversation(r) for _ in range(count)]
    results = ours(driver, [{"context": c, "now": NOW} | ({} if i else {"template": template}) for i, c in enumerate(contexts)])
    reference, rendered, refused, different = Renderer(), 0, 0, []
    for context, got in zip(contexts, results):
        good, want = reference.render(template, context, NOW)
        rendered += good
        refused += not good
        if good != ("output" in got) or (good and want != got["output"]):
            different.append((context, good, want, got))
    verdict = "PASS" if not different and rendered else "FAIL"
    print(f"{verdict} template-{name}: {rendered} rendered the same, {refused} refused by both, {len(different)} different"
          if not different else f"{verdict} template-{name}: {len(different)} of {count} different")
    for context, good, want, got in different[:int(os.environ.get("SHOW", "1"))]:
        print(f"     {json.dumps(context)[:3000]}")
        if good and "output" in got:
            mine, at = got["output"], 0
            while at < min(len(want), len(mine)) and want[at] == mine[at]:
                at += 1
            print(f"     wanted ...{want[max(0, at - 80):at + 120]!r}\n     got    ...{mine[max(0, at - 80):at + 120]!r}")
        else:
            print(f"     wanted {want[-300:]!r}\n     got    {str(got)[:300]}")
    return not different


def main():
    driver, count, good = sys.argv[1], int(sys.argv[2]), True
    for path in sys.argv[3:]:
        with open(path, encoding="utf-8", newline="") as f:
            template = f.read()
        good = compare(driver, os.path.basename(path).removesuffix(".jinja"), template, count) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

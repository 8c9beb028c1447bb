"""The reference that we follow: Debian's python3-jinja2 with the settings of transformers' chat templates
(`_compile_jinja_template`). Also a program: the protocol of template_diff.c."""
import copy
import datetime
import json
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """{% generation %}: transformers notes where it stood; what it renders is its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


class Renderer:
    def __init__(self):
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                            extensions=[Generation, jinja2.ext.loopcontrols])
        env.filters["tojson"] = tojson
        env.globals["raise_exception"] = raise_exception
        env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(self.now).strftime(f)
        self.env, self.now, self.compiled = env, 0, {}

    def render(self, template, context, now=0):
        """(True, text) or (False, error)"""
        self.now = now
        try:
            if template not in self.compiled:
                self.compiled[template] = self.env.from_string(template)
            text = self.compiled[template].render(**copy.deepcopy(context))  # `list|indent` appends
            text.encode()
            return True, text
        except Exception as e:  # whatever the template did
            return False, f"{type(e).__name__}: {e}"


def main():
    renderer, template = Renderer(), ""
    for line in sys.stdin:
        one = json.loads(line)
        template = one.get("template", template)
        good, text = renderer.render(template, one["context"], one.get("now", 0))
        print(json.dumps({"output" if good else "error": text}))


if __name__ == "__main__":
    main()

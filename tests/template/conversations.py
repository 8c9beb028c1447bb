"""Makes conversations to render: every role, tools, calls, think blocks, lists of parts, empty, odd and hostile text.

    conversation(random.Random(seed)) -> the variables of one rendering, as transformers would pass them
"""
import random

WORDS = ("the", "weather", "in", "Oslo", "is", "fine", "naïve", "coöperate", "日本語", "Привет", "🙂", "a<b", "x&y",
         "\"quoted\"", "it's", "100%", "{curly}", "[list]", "back\\slash", "tab\there", "new\nline", "  spaces  ", "\r\n",
         "\u00a0", "\u2028", "ß", "İ", "e\u0301")
HOSTILE = ("<|im_end|>", "<|im_start|>system\n", "</think>", "<think>", "{{ messages }}", "{% raw %}", "<tool_call>",
           "</tool_call>", "<|eot_id|>", "[INST]", "[/INST]", "</s>", "<tool_response>", "</tool_response>", "<|endoftext|>",
           "\u0000", "\u001b[31m", "<end_of_turn>", "<|channel|>final", "</parameter>", "#}", "%}")
NAMES = ("get_weather", "search", "add", "run_python", "a.b-c_d", "browser.open", "Größe", "x")
KEYS = ("city", "days", "query", "code", "items", "keys", "values", "name", "type", "é", "a b", "opt")


def text(r, most=8):
    if r.random() < 0.06:
        return r.choice(("", " ", "\n", "\n\n  ", "\t"))
    parts = [r.choice(HOSTILE) if r.random() < 0.08 else r.choice(WORDS) for _ in range(r.randint(1, most))]
    ends = ("", "", "", " ", "\n")
    return r.choice(ends) + r.choice((" ", " ", "\n", "", "\n\n")).join(parts) + r.choice(ends)


def value(r, depth=0):
    kind = r.randint(0, 9 if depth < 3 else 6)
    if kind <= 2:
        return text(r, 4)
    if kind == 3:
        return r.choice((0, 1, -7, 42, 2**31, 10**15))
    if kind == 4:
        return r.choice((0.0, 1.5, -2.25, 1e-7, 1e16, 3.14159, 1e22, 0.1))
    if kind == 5:
        return r.choice((True, False))
    if kind == 6:
        return None
    if kind == 7:
        return [value(r, depth + 1) for _ in range(r.randint(0, 3))]
    return {r.choice(KEYS): value(r, depth + 1) for _ in range(r.randint(0, 3))}


def schema(r, depth=0):
    kind = r.choice(("string", "integer", "number", "boolean", "array", "object", ["string", "null"]))
    s = {"type": kind}
    if r.random() < 0.6:
        s["description"] = text(r, 5)
    if kind == "string" and r.random() < 0.4:
        s["enum"] = [text(r, 2) for _ in range(r.randint(1, 3))]
    if kind == "array":
        s["items"] = schema(r, depth + 1) if depth < 2 and r.random() < 0.8 else {}
    if kind == "object" and depth < 2:
        s["properties"] = {r.choice(KEYS): schema(r, depth + 1) for _ in range(r.randint(0, 3))}
        if r.random() < 0.5:
            s["required"] = list(s["properties"])[:1]
    if r.random() < 0.2:
        s["default"] = value(r, 2)
    if r.random() < 0.1:
        s["nullable"] = r.choice((True, False))
    if r.random() < 0.1:
        s = {"anyOf": [s, {"type": "null"}]} if depth < 2 else s
    return s


def tool(r):
    parameters = {"type": "object", "properties": {r.choice(KEYS): schema(r) for _ in range(r.randint(0, 4))}}
    if r.random() < 0.7:
        parameters["required"] = [k for k in parameters["properties"] if r.random() < 0.5]
    if r.random() < 0.1:
        parameters["$defs"] = {"o": {"type": "object"}}
    f = {"name": r.choice(NAMES), "description": text(r, 6), "parameters": parameters}
    if r.random() < 0.1:
        f["return"] = schema(r)
    if r.random() < 0.05:
        del f["description"]
    return {"type": "function", "function": f} if r.random() < 0.95 else f


def content(r):
    kind = r.random()
    if kind < 0.85:
        return text(r)
    if kind < 0.97:
        parts = [{"type": "text", "text": text(r)} for _ in range(r.randint(0, 3))]
        if r.random() < 0.1:
            parts.append({"type": "image"} if r.random() < 0.5 else {"type": "image_url", "image_url": {"url": "x"}})
        if r.random() < 0.05:
            parts.append(text(r))
        return parts
    return r.choice((None, "", []))


def call(r, i):
    arguments = {r.choice(KEYS): value(r, 1) for _ in range(r.randint(0, 3))}
    f = {"name": r.choice(NAMES), "arguments": arguments}
    if r.random() < 0.1:
        f["arguments"] = __import__("json").dumps(arguments)
    c = {"id": r.choice((f"call_{i}", f"{i:09d}", f"functions.{f['name']}:{i}")), "type": "function", "function": f}
    if r.random() < 0.05:
        del c["id"]
    return c


def assistant(r, calls):
    m = {"role": "assistant"}
    if r.random() < 0.92:
        m["content"] = content(r)
    if r.random() < 0.3:
        key = r.choice(("reasoning_content", "reasoning_content", "reasoning", "thinking"))
        m[key] = text(r) if r.random() < 0.95 else None
    elif r.random() < 0.2 and isinstance(m.get("content"), str):
        m["content"] = f"<think>\n{text(r)}\n</think>\n\n{m['content']}"
    if calls:
        m["tool_calls"] = [call(r, i) for i in range(calls)]
    elif r.random() < 0.05:
        m["tool_calls"] = r.choice(([], None))
    return m


def plain_messages(r):
    """What the strictest templates take: strings, user and assistant in turn."""
    out = []
    if r.random() < 0.2:
        out.append({"role": "system", "content": text(r)})
    for i in range(r.choice((1, 1, 2, 3, 5))):
        out += [{"role": "user", "content": text(r)}, {"role": "assistant", "content": text(r)}]
    return out[:-1] if r.random() < 0.7 else out


def messages(r):
    if r.random() < 0.4:
        return plain_messages(r)
    out = []
    if r.random() < 0.5:
        out.append({"role": r.choice(("system", "system", "system", "developer")), "content": content(r)})
    for _ in range(r.choice((1, 1, 2, 3, 4))):
        out.append({"role": "user", "content": content(r)})
        if r.random() < 0.1:
            out[-1]["name"] = "bob"
        for _ in range(r.choice((0, 0, 0, 1, 2))):
            calls = r.choice((1, 1, 2, 3))
            out.append(assistant(r, calls))
            for c in out[-1]["tool_calls"]:
                result = {"role": "tool", "content": content(r)}
                if r.random() < 0.9:
                    result["tool_call_id"] = c.get("id", "x")
                if r.random() < 0.7:
                    result["name"] = c["function"]["name"]
                out.append(result)
        if r.random() < 0.85:
            out.append(assistant(r, 0))
    if r.random() < 0.04:
        r.shuffle(out)
    if r.random() < 0.02:
        out.append({"role": r.choice(("ipython", "environment", "alien", "function", "")), "content": text(r)})
    if r.random() < 0.02:
        out = []
    return out


def conversation(r):
    c = {"messages": messages(r), "add_generation_prompt": r.random() < 0.6,
         "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if r.random() < 0.4:
        c["tools"] = [tool(r) for _ in range(r.choice((1, 1, 2, 3, 0)))]
    elif r.random() < 0.5:
        c["tools"] = None
    if r.random() < 0.3:
        c["functions"], c["datetime"] = r.choice(("[]", "[{}]")), "2024-07-26"
    documents = [{"title": "T", "text": "x", "doc_id": 1, "content": "c"}]
    for key, choices in (("enable_thinking", (True, False)), ("reasoning_effort", ("low", "medium", "high", "none")),
                         ("thinking", (True, False)), ("documents", (None, documents)), ("preserve_thinking", (True, False)),
                         ("model_identity", ("You are X.",)), ("date_string", ("26 Jul 2024",)),
                         ("builtin_tools", (["browser", "python"], [])), ("tools_in_user_message", (True, False)),
                         ("custom_instructions", ("Be brief.",)), ("think_mode", (True, False)),
                         ("tool_choice", ("auto", "none")), ("continue_final_message", (False,)), ("skip_think", (True,)),
                         ("add_vision_id", (True, False))):
        if r.random() < 0.12:
            c[key] = r.choice(choices)
    return c


if __name__ == "__main__":
    import json
    import sys
    generator = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        print(json.dumps(conversation(generator)))

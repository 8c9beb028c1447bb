"""See chat_terminal.sh."""
import base64
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from terminal import Pty, report  # noqa: E402

program, top = sys.argv[1], sys.argv[2]
os.environ["FLASHCHAT_HOME"] = os.getcwd()
hold = top + "/hold"


def call(name, **parameters):
    inside = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>"


LONG = "one two three four five six seven eight nine ten eleven twelve. " * 3
script = [
    {"match": "held", "hold": hold, "reply": LONG + "The very end."},
    {"match": "marks", "reply": "# Title\n\nSome **bold** text.\n\n| a | b |\n|---|---|\n| 1 | 日本語 |\n\n" + LONG},
    {"match": "ponder", "reply": "<think>\nFirst this, then that.\n</think>\n\nThe answer."},
    {"match": "evil", "reply": "a\x1b[2Jb"},
    {"match": "look", "role": "user", "reply": "I look.\n\n" + call("list_directory", path=".")},
    {"match": "steal", "role": "user", "reply": call("read_file", path="../secret.txt")},
    {"match": "write", "role": "user", "reply": call("write_file", path="new.txt", content="made\nhere")},
    {"match": "run", "role": "user", "reply": call("shell", command="echo $((40 + 2)); cat in.txt")},
    {"match": "", "role": "tool", "reply": "That was it."},
]
with open(top + "/script.json", "w", encoding="utf-8") as f:
    json.dump(script, f)
words = [program, "chat", "--no-think", "--scripted-reply", top + "/script.json"]


def chat(*more, **environment):
    t = Pty(words + list(more), **environment)
    report("starts " + " ".join(more), t.expect(r"/help"), t.all)
    return t


def leaves(t, name):
    t.send("\x04")
    status = t.status()
    report(name, status == 0, f"exit code {status}: {t.all}")
    t.close()


def interrupts():
    t = chat()
    t.expect("> ")
    t.send("\x03")
    report("Ctrl-C at the prompt says how to leave", t.expect("Ctrl-C again"), t.all)
    t.send("half a message")
    t.expect("half a message")
    t.send("\x03")
    t.expect("> ")
    t.send("held\r")
    report("an answer begins", t.expect("held.*one"), t.all)
    t.send("\x03")
    report("Ctrl-C stops the answer", t.expect(r"\(stopped\).*tokens"), t.all)
    report("and what there is stays", "The very end" not in t.all, t.all)
    t.send("Tell me of marks\r")
    report("the conversation goes on", t.expect("日本語.*tokens"), t.all)
    leaves(t, "the end of the input leaves")
    t = chat()
    t.expect("> ")
    t.send("\x03")
    t.expect("Ctrl-C again.*> ")
    t.send("\x03")
    report("Ctrl-C twice leaves", t.status() == 0, t.all)
    t.close()


def thinking():
    t = chat()
    for how, shown, hidden in (("show", r"First this.*The answer", None), ("fold", r"thought for.*4 words.*The answer", "First"),
                               ("hide", r"The answer", "First|thought")):
        t.send(f"/think {how}\r")
        t.expect("Thinking is")
        before = len(t.all)
        t.send("ponder\r")
        good = t.expect(shown + ".*tokens")
        part = t.all[before:]
        report(f"thoughts: {how}", good and not (hidden and re.search(hidden, part)), part)
    t.send("evil\r")
    report("a model cannot command the terminal", t.expect(r"a\ufffd?\[2Jb.*tokens") and "\x1b[2J" not in t.all, t.all)
    leaves(t, "and leaves")


def tools():
    os.chdir(top + "/folder")
    t = chat()
    t.send("look\r")
    report("off: nothing is asked", t.expect("I look.*tokens") and "y yes" not in t.all, t.all)
    t.send("/tools on\r")
    t.expect("list_directory")
    t.send("look\r")
    report("a call is shown", t.expect(r"list: \..*a always"), t.all)
    t.send("y")
    report("and run", t.expect(r"in\.txt.*That was it.*tokens"), t.all)
    t.send("steal\r")
    t.expect(r"read: \.\./secret.*a always")
    t.send("y")
    outside = t.expect("outside of the working directory.*That was it.*tokens")
    report("nothing outside is read", outside and "secret\r" not in t.all, t.all)
    t.send("write\r")
    t.expect("write: new.txt.*made.*a always")
    t.send("n")
    report("no is no", t.expect("not run.*That was it.*tokens") and not os.path.exists("new.txt"), t.all)
    t.send("run\r")
    t.expect("shell: echo.*a always")
    t.send("a")
    report("a command runs", t.expect(r"42.*inside.*exit code 0.*That was it.*tokens"), t.all)
    t.send("run\r")
    report("always: not asked again", t.expect(r"42.*That was it.*tokens"), t.all)
    t.send("write\r")
    t.expect("a always")
    t.send("\x04")
    report("the end of the input is no", t.expect("not run.*That was it.*tokens") and not os.path.exists("new.txt"), t.all)
    leaves(t, "and leaves after tools")
    os.chdir(os.environ["FLASHCHAT_HOME"])


def commands():
    t = chat("--tokens", "200")
    t.send("/sessoins\r")
    report("an unknown command", t.expect("Did you mean /sessions"), t.all)
    t.send("marks\r")
    t.expect("twelve.*tokens")
    t.send("/copy\r")
    t.expect("clipboard")
    m = re.search(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", t.all)
    report("copy", m and base64.b64decode(m[1]).decode().startswith("# Title\n\nSome **bold**"), t.all)
    with open(top + "/editor", "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\necho ponder it >\"$1\"\n")
    os.chmod(top + "/editor", 0o755)
    t.send("/edit\r")
    report("edit", t.expect(r"> ponder it.*The answer.*tokens"), t.all)
    t.send("/retry\r")
    report("retry", t.expect(r"The answer.*tokens"), t.all)
    t.send("/file " + top + "/secret.txt\r")
    t.expect("goes with your next message")
    t.send("held by a file\r")
    open(hold, "w", encoding="utf-8").close()
    report("file", t.expect("The very end.*tokens"), t.all)
    os.unlink(hold)
    t.send("/save " + top + "/saved.md\r")
    t.expect("Written")
    with open(top + "/saved.md", encoding="utf-8") as f:
        saved = f.read()
    report("save", "The file " in saved and "secret" in saved and "## assistant" in saved, saved)
    t.send("/stats\r")
    report("stats", t.expect(r"context.*of \d+ tokens.*experts"), t.all)
    leaves(t, "and leaves after commands")
    mode = oct(os.stat(top + "/.config/flashchat/history").st_mode & 0o777)
    report("the history is private", mode == "0o600", mode)


def looks():
    t = chat(NO_COLOR="1")
    t.send("marks\r")
    t.expect("twelve.*tokens")
    report("NO_COLOR", not re.search(r"\x1b\[[0-9;]*m", t.all) and "# Title" in t.all and "**bold**" in t.all, t.all)
    leaves(t, "and leaves without colours")
    t = Pty(words, columns=40, TERM="dumb")
    t.expect(r"/help.*> ")
    t.send("marks\n")
    t.expect("twelve.*tokens.*> ")
    report("a dumb terminal gets no escape sequences", "\x1b" not in t.all and "日本語" in t.all, t.all)
    lines = t.all.replace("\r", "").split("\n")
    report("40 columns", max(len(x) for x in lines) <= 40, max(lines, key=len))
    leaves(t, "and leaves the dumb terminal")


def pipes():
    run = subprocess.run(words + ["--quiet"], input="marks\nan open \\\nponder\n```\nmarks\n", capture_output=True, text=True,
                         timeout=120)
    wanted = script[1]["reply"]
    report("a pipe gets what the model wrote", run.stdout == f"{wanted}\nThe answer.\n{wanted}\n" and run.returncode == 0,
           run.stdout)
    run = subprocess.run(words + ["--quiet", "--tools"], input="run\n", capture_output=True, text=True, timeout=120)
    report("a pipe that ends is no consent", "not run" in run.stdout and "42" not in run.stdout, run.stdout)


interrupts()
thinking()
os.environ["EDITOR"] = top + "/editor"
tools()
commands()
looks()
pipes()

"""See chat_tmux.sh."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(__file__))
from terminal import Tmux, report  # noqa: E402

program, top = sys.argv[1], sys.argv[2]
os.environ["FLASHCHAT_HOME"] = os.getcwd()
hold = top + "/hold"
LONG = ("This paragraph goes on for quite a while, so that the window can be made narrower and wider again while it is being "
        "written, and it ends with a **bold** word and the very end.")
script = [
    {"match": "held", "hold": hold, "reply": LONG + "\n\n- one\n- two\n"},
    {"match": "alpha\nbeta", "reply": "two lines came"},
    {"match": "line 39", "reply": "forty lines came"},
    {"match": "grüße 日本", "reply": "Ünïcödé 日本語 🎉 arrived"},
    {"match": "show", "reply": "# Title\n\n- first item that is longer than forty columns are wide\n- second\n\n"
                               "```c\nint main(void);\n```\n\n| name | 日本語 |\n|---|--:|\n| tea | お茶 |\n"},
]
with open(top + "/script.json", "w", encoding="utf-8") as f:
    json.dump(script, f)
command = f"exec '{program}' chat --no-think --scripted-reply '{top}/script.json'"


def words_of(screen):
    return " ".join(screen.split())


def resize():
    t = Tmux(command, 80, 30)
    report("starts", t.expect("/help") and t.expect("^> *$"), t.screen())
    t.text("held")
    t.keys("Enter")
    t.expect("^This paragraph")
    t.size(32, 30)
    t.size(50, 30)
    t.size(36, 30)
    open(hold, "w", encoding="utf-8").close()
    good = t.expect("tokens") and t.expect("^> *$")
    screen = t.screen()
    whole = words_of(LONG.replace("**", "")) + " • one • two"
    report("a window that changes during an answer", good and words_of(screen).count(whole) == 1, screen)
    report("no line is too wide", max(len(x) for x in screen.split("\n")) <= 36, screen)
    os.unlink(hold)
    return t


def lines(t):
    t.size(80, 40)
    t.keys("C-l")
    t.text("alpha")
    t.keys("M-Enter")
    t.text("beta")
    t.keys("Enter")
    report("Alt-Enter", t.expect("two lines came"), t.screen())
    t.text("alpha\\")
    t.keys("Enter")
    t.text("beta")
    t.keys("Enter")
    report("backslash", t.expect("two lines came", 2), t.screen())
    t.paste("alpha\nbeta")
    report("a paste is not sent by itself", t.expect(r"> alpha\n *beta", 3), t.screen())
    t.keys("Enter")
    report("a paste of two lines", t.expect("two lines came", 3), t.screen())
    t.paste("".join(f"line {i}\n" for i in range(40)))
    report("a long paste is a label", t.expect(r"> \[pasted 40 lines\]"), t.screen())
    t.keys("Enter")
    report("and one message", t.expect("forty lines came"), t.screen())
    t.text("grüße 日本")
    t.keys("Enter")
    report("UTF-8 in and out", t.expect("Ünïcödé 日本語 🎉 arrived"), t.screen())
    t.keys("Up")
    report("history", t.expect("^> grüße 日本", 2), t.screen())
    t.keys("C-u")
    t.keys("C-r")
    t.text("ngrü")
    t.keys("C-g")
    t.keys("C-u")
    t.text("/sess")
    t.keys("Tab")
    t.keys("Enter")
    report("Tab completes a command", t.expect("^> /sessions") and t.expect("messages\\)"), t.screen())


def narrow(t):
    t.size(40, 40)
    t.text("show")
    t.keys("Enter")
    wanted = (r"Title\n\n• first item that is longer than forty\n  columns are wide\n• second\n\n    int main\(void\);\n\n"
              "name │ 日本語\n─────┼───────\ntea  │   お茶\n")
    report("Markdown at 40 columns", t.expect(wanted), t.screen())
    t.keys("C-d")
    report("Ctrl-D leaves, once everything is kept", t.ended())
    t.close()


def kept():
    t = Tmux(command + " --resume", 80, 24)
    report("resume: nothing is read again", t.expect(r"Going on with [-0-9]+, \d+ messages\.\n"), t.screen())
    t.text("show")
    t.keys("Enter")
    t.expect("tokens")
    t.text("/stats")
    t.keys("Enter")
    t.expect("computes")
    m = re.search(r"question +(\d+) tokens, (\d+) of them", t.screen())
    fresh = int(m[1]) - int(m[2]) if m else None
    report("resume: only the new question is computed", m and 0 < fresh < 40, t.screen())
    t.close()


window = resize()
lines(window)
narrow(window)
kept()

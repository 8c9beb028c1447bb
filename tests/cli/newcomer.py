"""The scripted newcomer: see newcomer.sh. Drives the real program through a pseudo terminal.

A screen is what one command (or one visit to the menu) printed, without escape sequences and with lines that were drawn
over left out. It is compared word by word with its golden file, so that a figure of another width may wrap elsewhere;
the width of every line is checked on the screen itself.
"""
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unicodedata
import fcntl

COLUMNS, ROWS = 78, 50
PATIENCE = int(os.environ.get('PATIENCE', '300'))  # seconds to wait for a text: only a hang takes so long
GOLDEN = "tests/cli/golden"
program = os.path.abspath(sys.argv[1])
update = "--update" in sys.argv
bad = 0


def report(name, good, more=""):
    global bad
    bad += not good
    print(("PASS " if good else "FAIL ") + "newcomer " + name)
    if not good and more:
        print("\n".join("     " + line for line in more.splitlines()[-40:]))
    sys.stdout.flush()
    return good


class Terminal:
    """One program on a terminal of its own."""

    def __init__(self, words, env, cwd):
        self.raw, self.seen = "", ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd)
                os.execve(words[0], words, env)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read(self, seconds):
        """False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.fd, 65536)
        except OSError:
            return False
        text = piece.decode("utf-8", "replace")
        self.raw += text
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return bool(piece)

    def expect(self, pattern):
        end, open_ = time.time() + PATIENCE, True
        while True:
            m = re.search(pattern, self.seen, re.S)
            if m:
                self.seen = self.seen[m.end():]
                return True
            if not open_ or time.time() > end:
                report("waits for " + pattern, False, self.raw)
                return False
            open_ = self.read(0.5)

    def send(self, text):
        os.write(self.fd, text.encode())

    def say(self, pattern, text):
        """Waits for the pattern, then types."""
        if self.expect(pattern):
            self.send(text)

    def close(self):
        """Until the program has ended; its exit code."""
        end = time.time() + PATIENCE
        while self.read(0.5):
            if time.time() > end:
                os.kill(self.pid, signal.SIGKILL)
                report("ends by itself", False, self.raw)
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


# ---- screens ----


def lines_of(raw):
    """The lines as they stand at the end: escape sequences gone, what was drawn over gone."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x07", "", raw).replace("\r\n", "\n")
    out = []
    for line in text.split("\n"):
        parts = [p for p in line.split("\r") if p.strip()]
        last = parts[-1].rstrip() if parts else ""
        if not re.match(r" *\d+% ", last):  # a progress bar: how it ends depends on the moment
            out.append(last)
    return out


def columns(line):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def plain(text, world):
    """What differs from run to run and machine to machine becomes a word."""
    for old, new in ((world.top, "/HOME"), (world.port, "PORT"), (world.hub, "HUB")):
        text = text.replace(old, new)
    for pattern, new in (
        (r"\[[#.]+\]", "[BAR]"),
        (r"\d[\d.,]* ?(bytes|kB|MB|GB|TB|KiB|MiB|GiB)\b", "SIZE"),
        (r"\d+ h \d+ min|\d[\d.]* (s|min|ms)\b", "TIME"),
        (r"[\d.,]+ tok/s", "RATE"),
        (r"process \d+", "process N"),
        (r"\d{8}-\d{6}(-\d+)?", "DATE"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "DATE"),
        (r"\d+ % of|\d+%", "PERCENT"),
        (r"[0-9a-f]{12,}", "HASH"),
    ):
        text = re.sub(pattern, new, text)
    return text


def words(text):
    return text.split()


NEXT = r"(Next:|Try|Run it again|flashchat [a-z-]+|Type |press|Y  )"


def check(name, raw, world, golden=True):
    """One finished screen."""
    lines = lines_of(raw)
    wide = [line for line in lines if columns(line) > COLUMNS and world.top not in line]
    report(name + ": fits the terminal", not wide, "\n".join(wide))
    report(name + ": no raw JSON", not re.search(r'^\s*\{"|^data: |"choices"', raw, re.M), raw)
    report(name + ": says what is next", bool(re.search(NEXT, raw)), raw)
    if not golden:
        return
    text = plain("\n".join(lines).strip("\n") + "\n", world)
    path = f"{GOLDEN}/{name}.txt"
    if update:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return
    wanted = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
    same = words(text) == words(wanted)
    if not same:
        import difflib
        more = "\n".join(difflib.unified_diff(wanted.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=1))
    report(name + ": the golden screen", same, "" if same else more or text)


# ---- the world of the newcomer ----


def script(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)


class World:
    """A home, an installation whose program is made by a stand-in for make, package tools that install nothing, and a
    hub on this machine. All paths have the same length in every run."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="newcomer-", dir="/tmp")
        self.home, self.tree = self.top + "/home", self.top + "/flashchat"
        os.makedirs(self.home)
        os.makedirs(self.tree)
        os.makedirs(self.top + "/bin")
        for name in ("src", "apps", "include", "Makefile"):
            os.symlink(os.path.abspath(name), f"{self.tree}/{name}")
        os.makedirs(self.tree + "/assets/ember")  # a copy: servers keep prompts beside the model
        shutil.copytree("assets/models", self.tree + "/assets/models")
        for name in os.listdir("assets/ember"):
            if os.path.isfile("assets/ember/" + name):
                shutil.copy("assets/ember/" + name, self.tree + "/assets/ember")
        shutil.copy("flashchat", self.tree)
        self.tools()
        self.start_hub()
        self.port = str(self.free_port())
        keep = {k: v for k, v in os.environ.items() if not re.match(r"FLASHCHAT_|HF_|XDG_|NO_COLOR|CC$|MAKE", k)}
        self.env = dict(keep, HOME=self.home, PATH=f"{self.top}/bin:{keep['PATH']}", TERM="xterm-256color",
                        LC_ALL="C.UTF-8", HF_ENDPOINT=self.hub, FLASHCHAT_MEMORY="2G", FLASHCHAT_THREADS="1",
                        FLASHCHAT_SERVER_PORT=self.port)

    def tools(self):
        flag, real = self.top + "/installed", shutil.which("pkg-config")
        script(self.top + "/bin/pkg-config",
               f'case "$*" in *jansson*) [ -f {flag} ]; exit ;; --version) echo 1.0; exit ;; esac\nexec {real or "true"} "$@"\n')
        script(self.top + "/bin/dpkg-query", "printf installed\n")
        script(self.top + "/bin/apt-cache",
               "for p; do :; done\nprintf 'Package: %s\\nSize: 44000\\nInstalled-Size: 151\\n' \"$p\"\n")
        script(self.top + "/bin/apt-get", f"""case " $* " in *" --assume-no "*)
    echo "0 upgraded, 2 newly installed, 0 to remove"; echo "Need to get 0.2 MB of archives."
    echo "After this operation, 1.2 MB of additional disk space will be used."; exit 1 ;;
*" install "*) touch {flag} ;;
esac\n""")
        script(self.top + "/bin/sudo", 'exec "$@"\n')
        script(self.top + "/bin/id", "echo 0\n")
        script(self.top + "/bin/make", f"""[ "$1" = --version ] && {{ echo "GNU Make 4.3"; exit 0; }}
mkdir -p {self.tree}/build && cp {program} {self.tree}/build/flashchat\n""")

    def free_port(self):
        while True:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                if s.getsockname()[1] >= 10000:
                    return s.getsockname()[1]

    def start_hub(self):
        repo, state = self.top + "/repos/org/tiny", self.top + "/hub"
        os.makedirs(repo)
        os.makedirs(state)
        for name in os.listdir("assets/ember"):
            if name.endswith((".json", ".jinja", ".safetensors")):
                shutil.copy("assets/ember/" + name, repo)
        self.server = subprocess.Popen(["node", "tests/hub/server.mjs", self.top + "/repos", state])
        end = time.time() + PATIENCE
        while not os.path.exists(state + "/port") and self.server.poll() is None and time.time() < end:
            time.sleep(0.1)
        self.hub = "http://127.0.0.1:" + open(state + "/port", encoding="ascii").read()

    def run(self, *words_):
        return Terminal([self.tree + "/flashchat", *words_], self.env, self.home)

    def screen(self, name, command, answers=(), code=0, golden=True):
        t = self.run(*command)
        for pattern, text in answers:
            t.say(pattern, text)
        rc = t.close()
        report(name + ": exit code", rc == code, f"{rc}, not {code}\n{t.raw}")
        check(name, t.raw, self, golden)
        return t.raw

    def close(self):
        subprocess.run([program, "serve", "--stop", "--force"], env=dict(self.env, FLASHCHAT_HOME=self.tree), check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.server.kill()
        self.server.wait()
        shutil.rmtree(self.top, ignore_errors=True)


def part(raw, begin, end):
    """Of a long recording, from the first match of begin to the next of end."""
    m = re.search(begin, raw, re.S)
    if not m:
        return raw
    stop = re.search(end, raw[m.start():], re.S)
    return raw[m.start(): m.start() + stop.end()] if stop else raw[m.start():]


PROMPT = r"(>|›|❯) ?$"
MENU = r"q  quit\s+:"


def first_start(w):
    w.screen("01-consent-cancelled", [], [(r"x  cancel :", "x\n")], 1)
    t = w.run()
    t.say(r"x  cancel :", "Y\n")
    t.say(MENU, "q")
    report("the menu ends", t.close() == 0)
    check("02-consent-and-menu", t.raw, w)


def menu(w):
    t = w.run()
    t.say(MENU, "n")
    t.say(PROMPT, "What is the capital of France?\r")
    chat = t.expect(r"The capital of France is Paris\.")
    t.say(PROMPT, "\x04")
    report("chat answers", chat, t.raw)
    t.say(MENU, "r")
    t.say(PROMPT, "What is the capital of Italy?\r")
    report("a resumed chat answers", t.expect(r"Rome"), t.raw)
    t.say(PROMPT, "\x04")
    t.expect(r"q  quit\s+:")
    begin = len(t.raw)
    t.send("s")
    t.expect(r"End it with")
    t.say(MENU, "t")
    t.say(MENU, "c")
    t.say(r"x  leave\s+:", "3")
    t.say(r"goes back : ", "\r")
    t.say(r"new value: ", "200\r")
    t.say(r"goes back : ", "q")
    t.say(r"x  leave\s+:", "p")
    t.say(r"x  leave\s+:", "s")
    t.say(r"x  leave\s+:", "x")
    t.say(MENU, "s")
    t.say(r"(has ended|is served).*q  quit\s+:", "m")
    t.say(r"other  back :", "b")
    t.say(MENU, "q")
    report("the menu ends well", t.close() == 0)
    check("03-menu-server-settings-models", t.raw[begin:], w)
    w.screen("04-server-off", ["serve", "--stop"])


def arrows(w):
    """Down, Enter: the second setting; a choice by its number; undo; nothing is saved."""
    t = w.run("config")
    t.say(r"x  leave\s+:", "3")
    for _ in range(2):
        t.say(r"goes back : ", "\x1b[B")
    t.say(r"goes back : ", "\r")
    t.say(r"Thinking  \(REASONING\).*new value: ", "2\r")
    t.say(r"REASONING is now .on..*goes back : ", "q")
    t.say(r"x  leave\s+:", "u")
    t.say(r"again.*x  leave\s+:", "x")
    report("the wizard by arrow keys", t.close() == 0, t.raw)


def files(w):
    w.screen("05-add-model", ["add-model", "org/tiny"])
    w.screen("06-download", ["download", "tiny"], [(r"x  cancel :", "Y")])
    w.screen("07-models", ["models", "tiny"])
    w.screen("08-pack", ["pack", "tiny"])
    w.screen("09-offload-where", ["offload", "tiny"], code=2)
    w.screen("10-set-archive", ["config", "set", "OFFLOAD_DIR", w.top + "/archive"])
    w.screen("11-offload", ["offload", "tiny"], [(r"to go on: ", "tiny\r")])
    w.screen("12-gone", ["prompt", "--model", "tiny", "hi"], code=1)
    w.screen("13-restore", ["restore", "tiny"])
    w.screen("14-verify", ["verify", "tiny", "--deep"])
    w.screen("15-manage", ["manage"], [(r"to leave: ", "\r")])
    w.screen("16-sessions", ["sessions"])
    w.screen("17-doctor", ["doctor"], golden=False)
    w.screen("18-plan", ["plan", "tiny"], golden=False)
    w.screen("19-unknown", ["chatt"], code=2)
    w.screen("20-help", ["help"], golden=False)  # the list of commands grows


def leave(w):
    w.screen("21-uninstall", ["uninstall"], [(r"x  cancel :", "Y"), (r"keeps it: ", "\r")])
    report("the program is gone", not os.path.exists(w.tree + "/build"))
    report("the settings are gone", not os.path.exists(w.home + "/.config/flashchat"))
    report("the model stays", os.path.exists(w.home + "/.cache/huggingface/hub/models--org--tiny/refs/main"))
    report("the sources stay", os.path.exists(w.tree + "/Makefile"))
    w.screen("22-uninstall-again", ["uninstall"])


def listing(home):
    out = []
    for top in (".config/flashchat", ".cache/huggingface"):
        for folder, dirs, names in os.walk(os.path.join(home, top)):
            dirs.sort()
            for n in sorted(names) + dirs:
                s = os.lstat(os.path.join(folder, n))
                out.append((folder, n, s.st_size, s.st_mtime_ns))
    return out


def main():
    real = os.path.expanduser("~")
    before = listing(real)
    os.environ.pop("FLASHCHAT_WIDTH", None)
    w = World()
    try:
        first_start(w)
        menu(w)
        arrows(w)
        files(w)
        leave(w)
    finally:
        w.close()
    report("the real home is untouched", before == listing(real))


main()
sys.exit(bad != 0)

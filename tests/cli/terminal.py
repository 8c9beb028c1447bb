"""A program on a pseudo terminal, or in tmux, for the tests of the chat.

Everything waits for what must appear, with a deadline that only a broken program reaches; nothing sleeps for a fixed time.
"""
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time

SECONDS = 120
failures = 0


def report(name, good, why=""):
    global failures
    failures += not good
    print(("PASS " if good else "FAIL ") + name + ("" if good else ": " + str(why)[-1500:]), flush=True)
    return good


def visible(text):
    """Without escape sequences, whole or just begun."""
    return re.sub(r"\x1b\][^\x07]*(\x07|$)|\x1b\[[0-9;?]*([A-Za-z]|$)|\x1b$", "", text)


class Pty:
    """What a program writes on a terminal: all of it, and for expect() what is no escape sequence, behind the last find."""

    def __init__(self, argv, columns=80, rows=24, **environment):
        self.all, self.mark = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(environment)
            os.execv(argv[0], argv)
        self.size(columns, rows)

    def size(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.fd, 65536).decode("utf-8", "replace")
        except OSError:
            return False
        self.all += piece
        return bool(piece)

    def find(self, pattern):
        m = re.search(pattern, visible(self.all)[self.mark:], re.S)
        if m:
            self.mark += m.end()
        return bool(m)

    def expect(self, pattern):
        end = time.time() + SECONDS
        while not self.find(pattern):
            if time.time() > end or not self.read(0.2):
                return self.find(pattern)
        return True

    def send(self, text):
        os.write(self.fd, text.encode())

    def status(self):
        """Waits for the end: the exit code, or None."""
        end = time.time() + SECONDS
        while time.time() < end:
            done, code = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(code)
            self.read(0.05)
        return None

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.fd)


class Tmux:
    """A program on a real terminal's screen."""

    def __init__(self, command, columns=80, rows=24):
        self.dir = tempfile.mkdtemp()
        self.socket = self.dir + "/tmux"
        self.run("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), command)
        self.run("set-option", "-g", "set-clipboard", "on")

    def run(self, *words):
        done = subprocess.run(["tmux", "-S", self.socket, *words], capture_output=True, text=True, timeout=SECONDS)
        return done.stdout

    def screen(self):
        return self.run("capture-pane", "-p")

    def expect(self, pattern, count=1):
        """Waits until the pattern is on the screen (so often)."""
        end = time.time() + SECONDS
        while len(re.findall(pattern, self.screen(), re.S | re.M)) < count:
            if time.time() > end:
                return False
            time.sleep(0.05)
        return True

    def keys(self, *words):
        self.run("send-keys", *words)

    def text(self, text):
        self.run("send-keys", "-l", text)

    def paste(self, text):
        subprocess.run(["tmux", "-S", self.socket, "load-buffer", "-"], input=text, text=True, timeout=SECONDS)
        self.run("paste-buffer", "-p")

    def size(self, columns, rows):
        """Until the program can see it: tmux changes its screen first, the terminal's size a moment later."""
        self.run("resize-window", "-x", str(columns), "-y", str(rows))
        tty, end = self.run("display-message", "-p", "#{pane_tty}").strip(), time.time() + SECONDS
        f = os.open(tty, os.O_RDONLY | os.O_NOCTTY)
        try:
            while time.time() < end:
                seen = struct.unpack("HHHH", fcntl.ioctl(f, termios.TIOCGWINSZ, bytes(8)))
                if seen[:2] == (rows, columns):
                    return
                time.sleep(0.02)
        finally:
            os.close(f)

    def ended(self):
        """Waits until the program has ended by itself, and its screen with it."""
        end = time.time() + SECONDS
        while time.time() < end:
            if subprocess.run(["tmux", "-S", self.socket, "has-session"], capture_output=True, timeout=SECONDS).returncode:
                return True
            time.sleep(0.05)
        return False

    def close(self):
        self.run("kill-server")
        shutil.rmtree(self.dir, ignore_errors=True)

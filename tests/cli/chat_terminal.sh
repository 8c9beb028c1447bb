#!/usr/bin/env bash
# flashchat chat on a real (pseudo) terminal: Ctrl-C stops the answer and the conversation goes on; Ctrl-C at the prompt
# only says how to leave; Ctrl-D leaves.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$flashchat"
python3 - "$flashchat" <<'END'
import os, pty, re, select, signal, sys, time

program = sys.argv[1]
pid, fd = pty.fork()
if pid == 0:
    os.execv(program, [program, "chat", "--temperature", "1.3"])
seen = everything = ""


def wait_for(pattern, seconds=20):
    global seen, everything
    end = time.time() + seconds
    while time.time() < end:
        m = re.search(pattern, seen, re.S)
        if m:
            seen = seen[m.end():]
            return True
        if select.select([fd], [], [], 0.1)[0]:
            try:
                piece = os.read(fd, 65536).decode("utf-8", "replace")
                seen, everything = seen + piece, everything + piece
            except OSError:
                return bool(re.search(pattern, seen, re.S))
    return False


def report(name, good):
    print(("PASS " if good else "FAIL ") + name + ("" if good else f": {seen[-300:]!r}"))
    return good


def main():
    if not report("chat: greets", wait_for(r"/help.*> ")):
        return
    os.write(fd, b"\x03")
    report("chat: Ctrl-C at the prompt", wait_for(r"/quit or Ctrl-D.*\n> "))
    # A long answer is stopped in its middle; one that ended too early is asked for again.
    stopped = False
    for attempt in range(10):
        os.write(fd, b"Tell me a story.\n")
        wait_for(r"story\.\r\n\w")
        os.write(fd, b"\x03")
        wait_for(r"decode [0-9.]+ tok/s")
        stopped = "(stopped)" in everything
        wait_for(r"> ")
        if stopped:
            break
    report("chat: Ctrl-C stops the answer", stopped)
    os.write(fd, b"What is the capital of France?\n")
    report("chat: goes on after Ctrl-C", wait_for(r"Paris"))
    wait_for(r"> ")
    os.write(fd, b"\x04")
    end = time.time() + 10
    status = None
    while time.time() < end and status is None:
        done, code = os.waitpid(pid, os.WNOHANG)
        status = code if done else None
        if select.select([fd], [], [], 0.05)[0]:
            try:
                os.read(fd, 65536)
            except OSError:
                pass
    report("chat: Ctrl-D leaves", status == 0)


try:
    main()
finally:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
END

#!/usr/bin/env bash
# Importing polars after a program has set its own handler of SIGINT keeps Ctrl-C from ending a blocking read.
#
# Packages: polars 2.1.0 (Linux, x86-64 or ARM64; any Python from 3.11).
# Expected: a handler set by signal.signal() that raises is run as soon as the signal comes: Python lets a signal end a read
#           from a socket with EINTR and runs handlers then, whatever was imported meanwhile.
# Seen:     the import replaces the handler that the system calls by one of polars' own, which calls Python's, but with
#           SA_RESTART: the kernel goes on with the read, and Python runs the handler only when something comes in, at worst
#           never. signal.getsignal() still shows the program's own. Set after the import, the handler works; so does setting
#           the same one again. mlflow imports polars where it is installed, so its import does the same.
# So:       set handlers of SIGINT again after imports that are made late: signal.signal(SIGINT, signal.getsignal(SIGINT)).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q polars==2.1.0

cat > waits.py <<'PY'
import signal
import socket
import sys


def interrupt(number, frame):
    raise KeyboardInterrupt


signal.signal(signal.SIGINT, interrupt)
if sys.argv[1] != "never":
    import polars  # noqa: F401
assert signal.getsignal(signal.SIGINT) is interrupt
if sys.argv[1] == "set again":
    signal.signal(signal.SIGINT, interrupt)
here, there = socket.socketpair()
print("waits", flush=True)
here.recv(1)
PY

cat > probe.py <<'PY'
import signal
import subprocess
import sys
import time

for when in ("never", "imported", "set again"):
    process = subprocess.Popen([sys.executable, "waits.py", when], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    time.sleep(1)  # it waits within the call
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
        print(when, "ended")
    except subprocess.TimeoutExpired:
        process.kill()
        print(when, "waits on")
PY
seen=$(venv/bin/python probe.py)
echo "$seen"
[ "$seen" = $'never ended\nimported waits on\nset again ended' ] || { echo "changed"; exit 1; }

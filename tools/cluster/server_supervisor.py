"""Runs one command for as long as the other end of standard input is open; then stops it and removes its folder.

A script of its own, without imports from mlspark: python server_supervisor.py STOP_SIGNAL FOLDER COMMAND...
A server's parent may be killed with no chance to tidy up. The kernel then closes the pipe, this process sees it, stops
the command with everything that it has started, and removes the folder. PR_SET_PDEATHSIG would do the first on Linux
only, does not reach grandchildren (executors of a Spark worker), and is lost when the command changes its user.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys

_POLL_SECONDS = 0.5
_STOP_SECONDS = 15


def main() -> int:
    """Return the exit status of the command."""
    stop_signal, folder, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A group of its own: Ctrl-C in the terminal is the parent's business, and the whole group can be killed.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder, start_new_session=True)  # noqa: S603
    try:
        while child.poll() is None:
            if select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:  # nobody writes: readable means end of file
                break
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _stop(child, int(stop_signal))
        shutil.rmtree(folder, ignore_errors=True)
    return child.returncode


def _stop(child: subprocess.Popen[bytes], stop_signal: int) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        if child.poll() is None:
            child.send_signal(stop_signal)
            child.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies is not permitted
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(main())

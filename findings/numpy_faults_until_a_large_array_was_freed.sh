#!/usr/bin/env bash
# In a thread, arrays of some megabytes cost a page fault for each 4 kB again and again, until one larger array was freed.
#
# Package: numpy 2.4.6, on Linux with glibc.
# Expected: a loop that makes, fills and drops the same three arrays of 2 MB gets their memory from the
#           allocator's own stock after the first time.
# Seen:     glibc gives the memory back to the system at each turn, and the next turn pays 1,500 page faults for it,
#           for ever. One array of 16 MB made and dropped before, never written to, ends that: glibc raises the size
#           above which it asks the system to the largest that was freed, and what it keeps to twice that.
#           Both are per process, so that the same loop is cheap or dear by what other code freed earlier.
# So:       a loader's threads that change pictures in place lost half of their time when the arrays of whole batches,
#           which were larger, were no longer made. Free one large array first, or keep the arrays.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q numpy==2.4.6

cat > probe.py <<'PY'
import resource
import sys
import threading

import numpy as np

TURNS, SIZE = 50, 2**21


def faults_of_a_turn() -> float:
    counts = []

    def work() -> None:
        for turn in range(TURNS + 5):
            if turn == 5:
                counts.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt)
            arrays = [np.empty(SIZE, np.uint8) for _ in range(3)]
            for array in arrays:
                array.fill(1)
            del arrays, array
        counts.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return (counts[1] - counts[0]) / TURNS


before = faults_of_a_turn()
np.empty(2**24, np.uint8)
after = faults_of_a_turn()
print("numpy", np.__version__)
print(f"page faults of a turn: {before:.0f}; after a larger array was freed: {after:.0f}")
same = before > 500 and after < 50
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py

#!/usr/bin/env bash
# delta-rs creates one table several times with mode="error", and reports no error.
#
# Packages: deltalake 1.6.6, pyarrow 25.0.1.
# Expected: of several threads or processes that call DeltaTable.create(..., mode="error") for one place at
#           the same time one makes the table, and the others get an error: there is a table by then.
# Seen:     mostly two to four succeed. One writes version 0; the others, which looked before it was there,
#           meet its file, and write CREATE TABLE again as version 1, 2, ..., without an error. On local disks,
#           and on S3 with conditional puts.
# So:       do not take success for "it was not there before"; put a token into the commit's metadata
#           (CommitProperties(custom_metadata=...)) and look whose token version 0 has.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q deltalake==1.6.6 pyarrow==25.0.1

cat > create.py <<'PY'
import tempfile
import threading

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError


def successes():
    table, begin, made = tempfile.mkdtemp(dir="."), threading.Barrier(4), []

    def create():
        begin.wait()
        try:
            DeltaTable.create(table, pa.schema([("x", pa.string())]), mode="error")
            made.append(table)
        except DeltaError:
            pass

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(made), DeltaTable(table).version()


tries = [successes() for _ in range(30)]
print(sum(made > 1 for made, _ in tries), max(version for _, version in tries))
PY

read -r several version < <(venv/bin/python create.py)
echo "expected: of four threads that create one table one succeeds, and the table is at version 0"
echo "seen:     in $several of 30 tries several succeeded; the table was at version up to $version"
if [ "$several" -gt 0 ]; then
  echo reproduced
else
  echo "the behaviour has changed"
  exit 1
fi

#!/usr/bin/env bash
# Behind Arrow's FSSpecHandler a file has a time of change only where fsspec calls it "mtime".
#
# Packages: pyarrow 25.0.1, fsspec 2026.9.0.
# Expected: FileInfo.mtime is the time that the file system itself gives by `modified(path)`, which
#           every fsspec file system with times has.
# Seen:     the handler looks up "mtime" in `info(path)` and nothing else. Of local files that is
#           there; the memory file system says "created", and so its files have mtime None, though
#           `modified(path)` knows it. Object stores name theirs in ways of their own, too.
# So:       a check "has the file changed since?" by FileInfo.mtime compares None with None and always
#           says no; ask fsspec's `modified`, or an ETag, and treat None as unknown.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyarrow==25.0.1 fsspec==2026.9.0

cat > probe.py <<'PY'
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
from pyarrow.fs import FSSpecHandler, PyFileSystem


def times(name, path):
    files = fsspec.filesystem(name)
    return PyFileSystem(FSSpecHandler(files)).get_file_info(path).mtime, files.modified(path)


fsspec.filesystem("memory").pipe("/rows.csv", b"a,b\n")
Path("rows.csv").write_text("a,b\n")
print("pyarrow", pa.__version__, "fsspec", fsspec.__version__)
seen = {"file": times("file", str(Path("rows.csv").resolve())), "memory": times("memory", "/rows.csv")}
for name, (by_arrow, by_fsspec) in seen.items():
    print(f"{name}: FileInfo.mtime {'a time' if by_arrow else by_arrow}, modified() {'a time' if by_fsspec else by_fsspec}")
same = seen["file"][0] is not None and seen["memory"][0] is None and seen["memory"][1] is not None
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py

#!/usr/bin/env bash
# ruff's "safe" fix for UP007 turns Union[tuple(types)] into tuple(types), which is not a type.
#
# Packages: ruff 0.17.5.
# Expected: a fix applied without --unsafe-fixes keeps the meaning; a Union whose members are only
#           known at run time has no X | Y spelling, so it is left alone.
# Seen:     Annotated[Union[tuple(types)], ...] becomes Annotated[tuple(types), ...]. ruff reports
#           "1 fixed", and the module then raises TypeError when it is imported.
# So:       mark such lines `# noqa: UP007`, and import the package after an automatic fix.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q ruff==0.17.5

cat > shapes.py <<'PY'
from typing import Annotated, Union

types = [int, str]
Shape = Annotated[Union[tuple(types)], "one of the types"]
PY
venv/bin/python -c 'import shapes; print("before the fix:", shapes.Shape)'
venv/bin/ruff --version
venv/bin/ruff check --isolated --no-cache --target-version py311 --select UP007 --fix shapes.py
if error=$(venv/bin/python -B -c 'import shapes' 2>&1); then error="no error"; fi
error=$(tail -n 1 <<< "$error")
echo "expected: the line is left alone, or still means the union of the types"
echo "seen:     $(grep '^Shape' shapes.py)"
echo "seen:     on import: $error"
if grep -q '^Shape = Annotated\[tuple(types), ' shapes.py && [[ $error == TypeError:* ]]; then
  echo reproduced
else
  echo "the behaviour has changed"
  exit 1
fi

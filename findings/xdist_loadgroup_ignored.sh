#!/usr/bin/env bash
# With pytest 9.2.0, pytest-xdist 3.8.0 ignores its own xdist_group marks without a word.
#
# Packages: pytest-xdist 3.8.0 with pytest 9.1.1, then with pytest 9.2.0.
# Expected: under --dist loadgroup all tests marked xdist_group("one") run in one worker, with
#           either pytest; or a pytest that xdist cannot work with is refused at install or start.
# Seen:     pytest 9.1.1: one worker. pytest 9.2.0: the tests of the group are spread over several
#           workers. Everything passes and nothing is printed, so tests that share a port, a
#           folder or a database start to collide now and then. xdist marks the group by writing
#           to the private attribute item._nodeid, which item.nodeid no longer reads in 9.2.0.
# So:       pin pytest below 9.2 as long as xdist is 3.8.0, or guard shared things with a lock.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv

cat > test_group.py <<'PY'
import os
import pathlib
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_same_worker(number):
    time.sleep(0.05)
    pathlib.Path(os.environ["SEEN"], os.environ["PYTEST_XDIST_WORKER"]).touch()
PY

workers() {  # prints how many workers ran tests of the group
  venv/bin/pip install -q "pytest==$1" pytest-xdist==3.8.0
  mkdir "seen-$1"
  SEEN="seen-$1" venv/bin/python -m pytest -q -p no:cacheprovider -n 3 --dist loadgroup \
    test_group.py > "log-$1" || { cat "log-$1" >&2; return 1; }
  find "seen-$1" -type f | wc -l | tr -d ' '
}

unset PYTEST_ADDOPTS PYTEST_PLUGINS
older=$(workers 9.1.1)
newer=$(workers 9.2.0)
echo "expected: the 12 tests of the group run in 1 worker with both versions of pytest"
echo "seen:     pytest 9.1.1: $older worker(s); pytest 9.2.0: $newer worker(s); pytest-xdist 3.8.0"
if [ "$older" = 1 ] && [ "$newer" -gt 1 ]; then
  echo reproduced
else
  echo "the behaviour has changed"
  exit 1
fi

#!/usr/bin/env bash
# Casting a decimal to float64 in Arrow does not give the nearest double.
#
# Packages: pyarrow 25.0.1.
# Expected: decimal128(9, 2) has few enough digits that each value has one nearest double, and the
#           cast gives it, as float("6111780.02") does.
# Seen:     6111780.02 becomes 6111780.0200000005. Of the million values 0.00 to 9999.99, more than
#           a tenth differ from the nearest double in the last bit. Casting to string and then to
#           float64 is right for all of them.
# So:       do not compare such a column for equality with one that Python or the JVM converted
#           (a cut point of a tree, a join key); go through strings where the bits must agree.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyarrow==25.0.1

cat > probe.py <<'PY'
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

print("pyarrow", pa.__version__)
money = pa.decimal128(9, 2)
one = pc.cast(pa.array([Decimal("6111780.02")], money), pa.float64())[0].as_py()

values = [Decimal(cents).scaleb(-2) for cents in range(1_000_000)]
nearest = [float(value) for value in values]
column = pa.array(values, money)
direct = pc.cast(column, pa.float64()).to_pylist()
through_text = pc.cast(pc.cast(column, pa.string()), pa.float64()).to_pylist()
off = sum(a != b for a, b in zip(direct, nearest))
off_text = sum(a != b for a, b in zip(through_text, nearest))

print("expected: 6111780.02, and no value of 0.00 to 9999.99 off")
print(f"seen:     {one!r}; {off} of {len(values)} off; through strings: {off_text} off")
same = one != 6111780.02 and off > 100_000 and off_text == 0
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py

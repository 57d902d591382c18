#!/usr/bin/env bash
# pyarrow writes a null list of a fixed length to Parquet without a word, and cannot read it back.
#
# Packages: pyarrow 25.0.1.
# Expected: a fixed_size_list column with a null in it (an embedding that a row lacks) comes back from
#           the file that write_table has just written.
# Seen:     read_table raises "Expected all lists to be of size=2 but index 2 had size=0", whatever
#           else is asked for beside the column. The file is whole: written with store_schema=False,
#           which leaves out Arrow's own note of the length, the same rows are read, as lists.
# So:       store embeddings that may be missing as lists of any length, or fill them before writing;
#           the error comes days later, from whoever reads.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyarrow==25.0.1

cat > probe.py <<'PY'
import sys

import pyarrow as pa
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
rows = [[1.0, 2.0], None, [3.0, 4.0]]
table = pa.table({"embedding": pa.array(rows, pa.list_(pa.float32(), 2))})

pq.write_table(table, "with_length.parquet")
try:
    seen = str(pq.read_table("with_length.parquet")["embedding"].to_pylist())
except pa.ArrowInvalid as error:
    seen = f"ArrowInvalid: {error}"

pq.write_table(table, "without.parquet", store_schema=False)
as_lists = pq.read_table("without.parquet")["embedding"].to_pylist()

print(f"expected: {rows}")
print(f"seen:     {seen}")
print(f"without Arrow's schema in the file: {as_lists}")
same = seen.startswith("ArrowInvalid: Expected all lists") and as_lists == rows
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py

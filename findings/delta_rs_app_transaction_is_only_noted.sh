#!/usr/bin/env bash
# delta-rs writes an application's transaction into the log, and lets the same one append again.
#
# Packages: deltalake 1.6.6, pyarrow 25.0.1.
# Expected: CommitProperties(app_transactions=[Transaction("job", 1)]) makes an append happen once, as the
#           options txnAppId and txnVersion do with Spark: a writer that is started again with the same
#           version writes nothing.
# Seen:     the second append with the same application and version succeeds, and its rows are in the table
#           twice. transaction_version() says 1 after both.
# So:       ask transaction_version(app) before an append, and write nothing where it is reached; several
#           writers of one application need a lock of their own for that.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q deltalake==1.6.6 pyarrow==25.0.1

cat > probe.py <<'PY'
import sys

import deltalake
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

rows = pa.table({"value": [1, 2, 3]})
for _ in range(2):
    once = CommitProperties(app_transactions=[Transaction("job", 1)])
    write_deltalake("table", rows, mode="append", commit_properties=once)
table = DeltaTable("table")
count, noted = table.to_pyarrow_table().num_rows, table.transaction_version("job")

print("deltalake", deltalake.__version__)
print("expected: 3 rows, transaction 1")
print(f"seen:     {count} rows, transaction {noted}, version {table.version()} of the table")
same = (count, noted, table.version()) == (6, 1, 1)
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py

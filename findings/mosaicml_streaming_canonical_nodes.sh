#!/usr/bin/env bash
# With more canonical nodes than the rows divide by, one rank of MosaicML Streaming sees rows twice, and more than len() says.
#
# Packages: mosaicml-streaming 0.13.0, filelock 4.2.12, torch 2.13.0.
# Expected: an epoch of 100 rows on one rank is 100 rows: nothing has to be filled up where one process reads everything, and
#           `num_canonical_nodes` (set to the largest cluster that one means to go on with) decides the order only.
# Seen:     each canonical node is given as many rows as any other, so rows are repeated up to a multiple of that number:
#           128 rows with 64 nodes, 28 of them for the second time; 104 with 8; len(dataset) and the length of the loader
#           stay those of 100 rows.
# So:       count what a loader gives, or choose a divisor of the number of rows; metrics over such an epoch count rows twice.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q mosaicml-streaming==0.13.0 filelock==4.2.12 torch==2.13.0

cat > probe.py <<'PY'
import sys
import warnings

from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

warnings.simplefilter("ignore")
ROWS, BATCH = 100, 4
with MDSWriter(out="mds", columns={"number": "int"}) as out:
    for number in range(ROWS):
        out.write({"number": number})

seen = {}
for nodes in (1, 4, 8, 64):
    dataset = StreamingDataset(local="mds", batch_size=BATCH, shuffle=True, num_canonical_nodes=nodes)
    loader = DataLoader(dataset, batch_size=BATCH)
    rows = [int(number) for batch in loader for number in batch["number"]]
    seen[nodes] = len(dataset), len(loader), len(rows), len(set(rows))
    words = "len(dataset) {}, len(loader) {}, rows in an epoch {}, of them different {}".format(*seen[nodes])
    print(f"num_canonical_nodes={nodes:<4}{words}")
sys.exit(0 if seen == {1: (100, 25, 100, 100), 4: (100, 25, 100, 100), 8: (100, 25, 104, 100), 64: (100, 25, 128, 100)} else 1)
PY
PYTHONWARNINGS=ignore venv/bin/python probe.py 2> errors.txt || { tail -5 errors.txt; exit 1; }

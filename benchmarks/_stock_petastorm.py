"""Stock Petastorm on the same files; runs in an environment of its own that benchmarks/streaming.py makes. Prints JSON.

python _stock_petastorm.py FOLDER ROWS BATCH WINDOW LOADER_ROWS TINY_FOLDER READS
"""

import glob
import json
import os
import sys
import time
import warnings

warnings.simplefilter("ignore")

import torch  # noqa: E402
from petastorm import make_batch_reader  # noqa: E402
from petastorm.pytorch import BatchedDataLoader, DataLoader  # noqa: E402


def main() -> None:
    folder, rows, batch, window, loader_rows, tiny, reads = (
        sys.argv[1],
        *map(int, sys.argv[2:6]),
        sys.argv[6],
        int(sys.argv[7]),
    )
    urls = [f"file://{path}" for path in sorted(glob.glob(os.path.join(folder, "*.parquet")))]
    names = [f"f{index}" for index in range(14)]

    started, seen = time.perf_counter(), 0
    with BatchedDataLoader(
        make_batch_reader(urls, num_epochs=1, workers_count=2), batch_size=batch, shuffling_queue_capacity=window
    ) as loader:
        for columns in loader:
            features = torch.stack([columns[name] for name in names], dim=1)
            seen += len(features)
    batched_seconds = time.perf_counter() - started

    started, taken = time.perf_counter(), 0
    with DataLoader(
        make_batch_reader(urls, num_epochs=1, workers_count=2),
        batch_size=batch,
        shuffling_queue_capacity=min(window, loader_rows),
    ) as loader:
        for columns in loader:
            taken += len(columns["label"])
            if taken >= loader_rows:
                break
    loader_seconds = time.perf_counter() - started

    short, lost = 0, 0
    for _ in range(reads):
        with make_batch_reader(f"file://{tiny}", num_epochs=1, workers_count=3, schema_fields=["row_id"]) as reader:
            given = sum(len(group.row_id) for group in reader)
        short, lost = short + (given < 4000), lost + 4000 - given
    figures = {
        "batched_rows_per_second": seen / batched_seconds,
        "batched_rows_lost": rows - seen,
        "loader_rows_per_second": taken / loader_seconds,
        "reads_short": short,
        "reads": reads,
        "rows_lost": lost,
    }
    print(json.dumps(figures))


main()

"""What people write with torchdata's nodes, on the same files; in an environment that benchmarks/streaming.py makes.

python _torchdata_nodes.py FOLDER BATCH WINDOW_GROUPS

For each line of input, `plain` or `shuffled`, reads an epoch and answers with JSON: [rows, seconds, processor seconds].
Shuffled: row groups in random order, and the rows of WINDOW_GROUPS of them among each other.
"""

import glob
import json
import os
import sys
import threading
import time

import numpy as np
import torch
from pyarrow import parquet as pq
from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

_FEATURES = [f"f{index}" for index in range(14)]
_WORKERS = 2


_opened = threading.local()  # two threads must not read from one open file at a time


def read_group(place):
    path, number = place
    files = _opened.__dict__
    if path not in files:
        files[path] = pq.ParquetFile(path)
    table = files[path].read_row_group(number, [*_FEATURES, "label"], use_threads=False)
    return np.column_stack([table[name].to_numpy() for name in _FEATURES]), table["label"].to_numpy()


def read_plain(places):
    return tuple(map(torch.from_numpy, map(np.require, read_group(*places), (None, None), ("W", "W"))))


def read_shuffled(places):
    x, label = map(np.concatenate, zip(*map(read_group, places), strict=True))
    order = np.random.default_rng(places[0][1]).permutation(len(x))
    return torch.from_numpy(x[order]), torch.from_numpy(label[order])


def batches(windows, size):
    left = None
    for x, label in windows:
        start = 0 if left is None else size - len(left[0])
        if left is not None:
            yield torch.cat([left[0], x[:start]]), torch.cat([left[1], label[:start]])
        stop = start + (len(x) - start) // size * size
        yield from zip(x[start:stop].split(size), label[start:stop].split(size), strict=True)
        left = (x[stop:], label[stop:]) if stop < len(x) else None
    if left is not None:
        yield left


def main():
    folder, size, window_groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    paths = sorted(glob.glob(os.path.join(folder, "*.parquet")))
    places = [(path, number) for path in paths for number in range(pq.read_metadata(path).num_row_groups)]
    print("ready", flush=True)
    for line in sys.stdin:
        started, cpu_started, rows = time.perf_counter(), time.process_time(), 0
        if line.strip() == "plain":
            read, windows = read_plain, [[place] for place in places]
        else:
            mixed = [places[place] for place in np.random.default_rng(0).permutation(len(places))]
            read = read_shuffled
            windows = [mixed[start : start + window_groups] for start in range(0, len(mixed), window_groups)]
        node = ParallelMapper(IterableWrapper(windows), read, num_workers=_WORKERS, method="thread")
        for x, _ in batches(Loader(node), size):
            rows += len(x)
        print(json.dumps([rows, time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


main()

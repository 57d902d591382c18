"""How fast, flat and exact the streaming is, beside the limit and the readers people use, on the same files.

    python benchmarks/streaming.py [--quick] [--json FILE] [--rows N] [--rounds N] [--stores] [--no-nodes] [--no-stock]

A table of 14 float32 features and a label in row groups of 50,000 rows, warm page cache; batches of 1,024 as one (B, 14)
matrix and labels, window 400,000 rows, whole epochs, first batch included. In each round all take turns, every other
round backwards. "The ceiling" is pyarrow.parquet.read_table of the zstd files, all threads, one file after the other.

    over_read_table         rows/s of flat zstd columns / ceiling. Aim: at least 0.5
    vector_over_read_table  the same of the layout that feature tables are written in: flat columns, lz4, no dictionary
                            (`bytes_per_row` has its cost) / the same ceiling. Aim: at least 0.9
    memory_over_numpy       rows/s of an epoch from memory / of permuting a numpy matrix and slicing it. Aim: at least 0.5
    over_petastorm_batched  rows/s / stock Petastorm's BatchedDataLoader with an equal window. Aim: at least 10
    over_petastorm_loader   rows/s / stock Petastorm's DataLoader (on a part of the rows)
    over_pyarrow_hand       rows/s / a hand-written PyArrow loop that shuffles within 8 row groups
    over_torchdata_nodes    rows/s in table order (lanes=1, shuffle=False) / of a few lines of torchdata's nodes on the same
                            files, two threads. Aim: at least 1.2
    ..._nodes_shuffled      rows/s / the same nodes with a window of 8 row groups. Aim: at least 2
    ..._cpu                 the same ratios in processor time instead of time: what is left of them on a busy machine
    consumer_cpu_share      processor time of an epoch on the consumer's thread, which only cuts batches off: no number of
                            cores makes an epoch more than 1 / this times as fast as one core would
    layout_cpu_share        the same of the thread that shares out the work of the others
    peak_over_window        peak memory of an epoch above that of a process which streamed a row group / bytes of a window;
                            17 columns. Aim: at most 2.5. `..._no_read_ahead`: with read_ahead_bytes=0
    first_batch_s           from opening to the first batch
    resume_ratio            the same at 90 % of an epoch / at 0 %. Aim: at most 1.5
    plan_seconds, plan_mb   plan and segments of rank 1,023 of 1,024 for 10^11 rows in 2 M row groups. Aim: 5 s, 500 MB
    rss_slope_mb_per_epoch  growth of resident memory over 20 epochs (least squares over the last 10)
    rss_20m_over_1m         peak resident memory, 20 times as many rows / 1 M rows (--quick: 5 times). Aim: at most 1.15
    process_over_thread     rows/s of a pool of 2 processes / 2 threads
    two_ranks_over_one      rows/s of two ranks at once, each its half / of one rank
    petastorm_reads_short   reads of 40 tiny row groups in which stock Petastorm lost rows, of `petastorm_reads`
    over_raw_hdfs, _s3      with --stores: rows/s / read_table of the same files on the same local server
    reads_short             the same of this reader, 1 to 5 threads; must be 0
"""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import _checkout  # noqa: F401
import numpy as np
import pyarrow as pa
import torch
import typer
from _figures import paired, tell
from _own_environment import python_with
from _stream_processes import MEMORY, PEAK, PLAN, Nodes, at_once, in_a_process
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.streaming.read_ahead import ReadOptions
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.streaming.stream import Stream
from tools.cluster import hdfs, loading, s3

_BATCH, _WINDOW, _GROUP_ROWS, _FILE_ROWS = 1024, 400_000, 50_000, 500_000
_FEATURES = [f"f{index}" for index in range(14)]
_COLUMNS = {"x": _FEATURES, "label": "label"}
_STOCK = ("petastorm==0.13.1", "pyarrow==14.0.2", "numpy==1.26.4", "setuptools<70", "pandas<2.3", "pyspark<4")


def write(folder: Path, num_rows: int, compression: str, features: Sequence[str] = _FEATURES) -> Snapshot:
    """Return the snapshot of a new table of random numbers."""
    schema = {"fields": [{"name": name, "type": "float"} for name in [*features, "label"]]}
    folder.mkdir(parents=True)
    chance, files = np.random.default_rng(0), []
    for number in range(-(-num_rows // _FILE_ROWS)):
        rows = min(_FILE_ROWS, num_rows - number * _FILE_ROWS)
        columns = {name: chance.standard_normal(rows, dtype=np.float32) for name in features}
        columns["label"] = (chance.random(rows) < 0.5).astype(np.float32)
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(
            pa.table(columns), path, row_group_size=_GROUP_ROWS, compression=compression, use_dictionary=False
        )
        groups = [min(_GROUP_ROWS, rows - start) for start in range(0, rows, _GROUP_ROWS)]
        files.append(DataFile(path.name, path.stat().st_size, {}, tuple(groups)))
    return Snapshot(str(folder), 0, schema, tuple(files))


def read_all(snapshot: Snapshot) -> int:
    """The ceiling: decode all files with all threads."""
    return sum(pq.read_table(snapshot.uri(file)).num_rows for file in snapshot.files)


def stream(snapshot: Snapshot, **options: Any) -> int:
    """One epoch; returns the real rows seen."""
    with Stream(snapshot, columns=_COLUMNS, batch_size=_BATCH, shuffle_window_rows=_WINDOW, **options) as batches:
        seen = sum(len(batch["label"]) for batch in batches)
        assert seen >= snapshot.num_rows
    return snapshot.num_rows


def by_hand(snapshot: Snapshot) -> int:
    """What people write: row groups in random order, shuffled eight at a time."""
    places = [(snapshot.uri(file), number) for file in snapshot.files for number in range(len(file.row_groups))]
    files = {uri: pq.ParquetFile(uri, memory_map=True) for uri in {uri for uri, _ in places}}
    chance = np.random.default_rng(0)
    order, seen = chance.permutation(len(places)), 0
    for start in range(0, len(order), 8):
        groups = [files[places[place][0]].read_row_group(places[place][1]) for place in order[start : start + 8]]
        table = pa.concat_tables(groups)
        mixed = chance.permutation(table.num_rows)
        features = np.column_stack([table[name].to_numpy() for name in _FEATURES])[mixed]
        labels = table["label"].to_numpy()[mixed]
        for row in range(0, len(mixed), _BATCH):
            batch = torch.from_numpy(features[row : row + _BATCH]), torch.from_numpy(labels[row : row + _BATCH])
            seen += len(batch[1])
    return seen


class Numpy:
    """A matrix in memory, permuted and sliced: the limit of an epoch from memory."""

    def __init__(self, num_rows: int) -> None:
        self.features = np.random.default_rng(0).standard_normal((num_rows, 14), dtype=np.float32)
        self.labels = np.ones(num_rows, np.float32)
        self.epoch = 0

    def __call__(self) -> int:
        self.epoch += 1
        order, seen = np.random.default_rng(self.epoch).permutation(len(self.labels)), 0
        features, labels = self.features[order], self.labels[order]
        for row in range(0, len(order), _BATCH):
            batch = torch.from_numpy(features[row : row + _BATCH]), torch.from_numpy(labels[row : row + _BATCH])
            seen += len(batch[1])
        return seen


def rates(
    cases: dict[str, Callable[[], int | tuple[int, float]]], num_rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return rows/s and rows per second of processor time of each case and round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(num_rounds):
        for name, run in list(cases.items())[:: -1 if number % 2 else 1]:
            started, cpu_started = time.perf_counter(), time.process_time()
            result = run()
            elapsed, cpu_elapsed = time.perf_counter() - started, time.process_time() - cpu_started
            rows, cpu_seconds = result if isinstance(result, tuple) else (result, cpu_elapsed)
            seconds[name].append(rows / elapsed)
            cpu[name].append(rows / cpu_seconds)
        print(f"round {number + 1}: " + ", ".join(f"{name} {rate[-1] / 1e6:.1f}" for name, rate in seconds.items()))
    return seconds, cpu


def note(figures: dict[str, Any], name: str, of: Sequence[float], to: Sequence[float]) -> None:
    """Put a ratio of two cases into the figures, and its least and greatest round below `ranges`."""
    figures[name], figures["ranges"][name] = paired(of, to)


def cpu_shares(snapshot: Snapshot, **options: Any) -> tuple[float, float]:
    """Return the shares of the consumer's thread and of the one that lays out in an epoch's processor time."""
    with Stream(snapshot, columns=_COLUMNS, batch_size=_BATCH, shuffle_window_rows=_WINDOW, **options) as batches:
        for _ in batches:
            pass
        started, own_started, shares = time.process_time(), time.thread_time(), (0.0, 0.0)
        for _ in batches:
            if batches.step % 64:
                continue
            with contextlib.suppress(StopIteration, FileNotFoundError, ProcessLookupError):  # it ends before the epoch
                thread = next(one for one in threading.enumerate() if one.name == "mlspark-gather")
                spent = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text(encoding="ascii").split()[0]
                whole = time.process_time() - started
                shares = (time.thread_time() - own_started) / whole, int(spent) / 1e9 / whole
    return shares


def peaks(folder: Path, num_rows: int) -> dict[str, float]:
    """Return the peak memory of an epoch of 17 columns over the bytes of a window, by default and without read-ahead."""
    features, files = [f"f{index}" for index in range(16)], []
    for name, of_table in (("little", _GROUP_ROWS), ("much", num_rows)):
        files.append(folder / f"{name}.json")
        write(folder / name, of_table, "lz4", features).save(str(files[-1]))
    columns, window = json.dumps({"x": features, "label": "label"}), 4 * (len(features) + 1) * _WINDOW
    return {
        f"peak_over_window{suffix}": in_a_process(PEAK, *files, columns, read_ahead) / window
        for suffix, read_ahead in (("", ReadOptions().read_ahead_bytes), ("_no_read_ahead", 0))
    }


def torchdata_nodes(folder: Path) -> Nodes | str:
    """Return the peer, or why it is left out."""
    try:
        return Nodes(folder, _BATCH, _WINDOW // _GROUP_ROWS)
    except subprocess.CalledProcessError as error:
        return f"torchdata cannot be installed: {error}"


def first_batch(snapshot: Snapshot, share: float) -> float:
    """Return the seconds from opening at that share of an epoch to the first batch."""
    options: dict[str, Any] = {"columns": _COLUMNS, "batch_size": _BATCH, "shuffle_window_rows": _WINDOW}
    with Stream(snapshot, **options) as batches:
        state = batches.state_dict() | {"step": int(share * batches.num_steps)}
    started = time.perf_counter()
    with Stream(snapshot, **options) as batches:
        batches.load_state_dict(state)
        next(iter(batches))
        return time.perf_counter() - started


def short_reads(folder: Path, reads: int) -> int:
    """Return in how many of `reads` reads of 40 tiny row groups this reader gave other rows than all, in order."""
    table = pq.read_metadata(folder / "tiny.parquet")
    file = DataFile("tiny.parquet", 0, {}, tuple(table.row_group(n).num_rows for n in range(table.num_row_groups)))
    groups, short = Snapshot(str(folder), 0, {}, (file,)).row_group_items(), 0
    for number in range(reads):
        with (
            Workers(["row_id"], lambda rows: rows["row_id"].to_numpy(), options=ReadOptions(1 + number % 5)) as workers,
            PlannedReader(workers, groups) as reader,
        ):
            short += not np.array_equal(np.concatenate(list(reader)), np.arange(4000))
    return short


def stock(folder: Path, num_rows: int, tiny: Path, quick: bool) -> dict[str, Any]:
    """Return stock Petastorm's figures, in an environment of its own, kept for the next time."""
    python = python_with("stock-petastorm", [*_STOCK, f"torch=={torch.__version__.partition('+')[0]}"])
    script = Path(__file__).with_name("_stock_petastorm.py")
    figures = (folder, num_rows, _BATCH, _WINDOW, 100_000 if quick else 500_000, tiny, 50 if quick else 150)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, str(script), *map(str, figures)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def stores(figures: dict[str, Any], folder: Path, table: Snapshot, num_rounds: int) -> None:
    """Note the share of the raw reader (pyarrow, all threads, the same client) on a local HDFS and a local S3."""
    for name, server in (("hdfs", hdfs), ("s3", s3)):
        with server.serve() as running:
            for variable, value in getattr(running, "environment", {}).items():
                os.environ[variable] = value
            root = storage.join(running.url, "streaming")
            loading.upload(folder, root)
            there = replace(table, table=root)

            def read_raw(there: Snapshot = there) -> int:
                places = [storage.filesystem(there.uri(file)) for file in there.files]
                return sum(pq.read_table(path, filesystem=filesystem).num_rows for filesystem, path in places)

            rate, _ = rates({f"{name}_raw": read_raw, name: lambda there=there: stream(there)}, num_rounds)  # type: ignore[misc]
            note(figures, f"over_raw_{name}", rate[name], rate[f"{name}_raw"])


def main(
    quick: Annotated[bool, typer.Option("--quick", help="1 M rows, two rounds.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 5,000,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds; 5 unless --quick.")] = None,
    with_stores: Annotated[bool, typer.Option("--stores", help="Measure on a local HDFS and S3 server too.")] = False,
    with_nodes: Annotated[bool, typer.Option("--nodes/--no-nodes", help="Measure torchdata's nodes too.")] = True,
    with_stock: Annotated[bool, typer.Option("--stock/--no-stock", help="Measure stock Petastorm too.")] = True,
) -> None:
    """See the head of this file."""
    num_rows, num_rounds = rows or (1_000_000 if quick else 5_000_000), rounds or (2 if quick else 5)
    figures: dict[str, Any] = {"rows": num_rows, "rounds": num_rounds, "ranges": {}}
    with tempfile.TemporaryDirectory(prefix="mlspark-streaming-") as name:
        folder = Path(name)
        tables = {codec: write(folder / codec, num_rows, codec) for codec in ("zstd", "lz4", "snappy", "none")}
        bytes_per_row = {
            codec: sum(file.size_bytes for file in table.files) / num_rows for codec, table in tables.items()
        }
        numpy = Numpy(num_rows)
        resident = Stream(tables["zstd"], columns=_COLUMNS, batch_size=_BATCH, memory_bytes=2**34)

        def from_memory() -> int:
            for _ in resident:
                pass
            return num_rows

        from_memory()  # reads the share
        processes = Stream(
            tables["zstd"], columns=_COLUMNS, batch_size=_BATCH, shuffle_window_rows=_WINDOW, pool="process"
        )

        def in_processes() -> int:
            for _ in processes:
                pass
            return num_rows

        in_processes()  # starts them, which takes seconds
        nodes = torchdata_nodes(folder / "zstd") if with_nodes else "not asked for"
        peers: dict[str, Callable[[], tuple[int, float]]] = (
            {how: lambda how=how: nodes(how) for how in ("plain", "shuffled")} if isinstance(nodes, Nodes) else {}  # type: ignore[misc]
        )
        cases: dict[str, Callable[[], int | tuple[int, float]]] = {
            **peers,
            "read_table": lambda: read_all(tables["zstd"]),
            "in_table_order": lambda: stream(tables["zstd"], lanes=1, shuffle=False),
            **{codec: lambda table=table: stream(table) for codec, table in tables.items()},  # type: ignore[misc]
            "memory": from_memory,
            "numpy": numpy,
            "pyarrow_hand": lambda: by_hand(tables["zstd"]),
            "process": in_processes,
        }
        wall, cpu = rates(cases, num_rounds)
        resident.close()
        processes.close()
        del numpy
        if isinstance(nodes, Nodes):
            nodes.close()
        else:
            figures["torchdata_nodes_left_out"] = nodes
        for suffix, rate in (("", wall), ("_cpu", cpu)):
            if peers:
                note(figures, f"over_torchdata_nodes{suffix}", rate["in_table_order"], rate["plain"])
                note(figures, f"over_torchdata_nodes_shuffled{suffix}", rate["zstd"], rate["shuffled"])
            note(figures, f"over_read_table{suffix}", rate["zstd"], rate["read_table"])
            note(figures, f"vector_over_read_table{suffix}", rate["lz4"], rate["read_table"])
            note(figures, f"memory_over_numpy{suffix}", rate["memory"], rate["numpy"])
            note(figures, f"over_pyarrow_hand{suffix}", rate["zstd"], rate["pyarrow_hand"])
        figures["consumer_cpu_share"], figures["layout_cpu_share"] = cpu_shares(tables["zstd"])
        figures |= peaks(folder / "wide", num_rows)
        note(figures, "process_over_thread", wall["process"], wall["zstd"])
        at = {share: [first_batch(tables["zstd"], share) for _ in range(7)] for share in (0.0, 0.9)}
        figures["first_batch_s"] = statistics.median(at[0.0])
        figures["resume_ratio"] = statistics.median(at[0.9]) / statistics.median(at[0.0])
        figures["plan_seconds"], figures["plan_mb"] = in_a_process(PLAN)

        tables["zstd"].save(str(folder / "snapshot.json"))
        columns = json.dumps(_COLUMNS)
        one, two = (
            statistics.median(at_once(folder / "snapshot.json", columns, size) for _ in range(3)) for size in (1, 2)
        )
        figures["two_ranks_over_one"] = one / two
        small, large = folder / "small", folder / "large"
        write(small, 1_000_000, "zstd").save(str(folder / "small.json"))
        write(large, (5 if quick else 20) * 1_000_000, "zstd").save(str(folder / "large.json"))
        epochs = in_a_process(MEMORY, folder / "small.json", 20, columns)
        figures["rss_slope_mb_per_epoch"] = float(np.polyfit(np.arange(10), epochs["rss"][10:], 1)[0])
        figures["rss_mb"] = epochs["rss"][-1]
        figures["rss_20m_over_1m"] = (
            in_a_process(MEMORY, folder / "large.json", 1, columns)["peak"]
            / in_a_process(MEMORY, folder / "small.json", 1, columns)["peak"]
        )

        tiny = folder / "tiny"
        tiny.mkdir()
        pq.write_table(pa.table({"row_id": np.arange(4000)}), tiny / "tiny.parquet", row_group_size=100)
        figures["reads_short"] = short_reads(tiny, 100 if quick else 1000)
        if with_stores:
            stores(figures, folder / "zstd", tables["zstd"], num_rounds)
        if with_stock:
            peer = stock(folder / "zstd", num_rows, tiny, quick)
            for loader in ("batched", "loader"):
                rate_of_peer = [peer[f"{loader}_rows_per_second"]] * num_rounds
                note(figures, f"over_petastorm_{loader}", wall["zstd"], rate_of_peer)
            figures["petastorm_reads_short"], figures["petastorm_reads"] = peer["reads_short"], peer["reads"]
            figures["petastorm_rows_lost"] = peer["rows_lost"] + peer["batched_rows_lost"]
    figures["bytes_per_row"] = {codec: round(size, 1) for codec, size in bytes_per_row.items()}
    figures["rows_per_second"] = {name: round(statistics.median(rate)) for name, rate in wall.items()}
    ranges = figures.pop("ranges")
    tell(figures, json_file, {"ranges": ranges})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

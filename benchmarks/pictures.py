"""How fast pictures are streamed, decoded, cropped and batched, beside the bare decoder and the loaders people use.

    python benchmarks/pictures.py [--quick] [--json FILE] [--rounds N] [--no-peers]

Two sets of JPEGs, in files that each loader reads best, warm page cache: 500 x 375 at quality 90, cut out of pictures that
scikit-learn ships, to random resized crops of 224 and flips; and 32 x 32 (CIFAR, from MLSPARK_DATA, else cut out of the
same), to crops with 4 pixels of padding and flips. Batches are uint8. In each round all take turns, every other round
backwards. A peer has its best of 0, 1, 2 and 4 workers, found before; WebDataset and MosaicML streaming run in an
environment of their own, and decode with torchvision, which is faster there than Pillow. `_small` is of the 32 x 32 ones.

    over_decode_only        pictures/s / the same decoder and crop in a bare loop, a process on each core. Aim: at least 0.9
    over_imagefolder        pictures/s / torchvision's ImageFolder in a DataLoader. Aim: at least 1.9; small: 12
    over_webdataset         pictures/s / WebDataset in its WebLoader. Aim: at least 1.6; small: 12
    over_mds                pictures/s / MosaicML's StreamingDataset in a DataLoader. Aim: at least 1.15; small: 10
    pixels_over_read_table  pictures/s of pixels that the table holds, shuffled and batched / pyarrow.parquet.read_table of
                            the same files, all threads. Aim: at least 0.5
    moved_over_read_table   the same with the crops and flips of the small ones
    ..._cpu                 the same ratios in processor time instead of time: what is left of them on a busy machine
    first_batch_s           from opening 500 x 375 JPEGs to the first batch of 128
    rss_mb                  peak resident memory of an epoch of them, window and read-ahead of 32 MB, torch included
    imports_mb              what of it is there before a stream is opened
    processes_mb            memory of the processes that decode, each page parted among those that have it
    growth_10x              rss_mb with ten times as many / with as many
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import _checkout  # noqa: F401
import numpy as np
import psutil
import pyarrow as pa
import torch
import torchvision
import typer
from _figures import tell
from _own_environment import python_with
from PIL import Image
from pyarrow import parquet as pq
from sklearn.datasets import load_sample_images

from mlspark.pictures import decoder
from mlspark.pictures.augment import Crop, Flip, ResizedCrop
from mlspark.streaming.pictures import Picture
from mlspark.streaming.stream import Stream

_BATCH = 128
_CORES = os.cpu_count() or 1
_PICTURES = {
    "large": Picture(column="jpg", size=224, augment=[ResizedCrop(), Flip()]),
    "small": Picture(column="jpg", size=32, augment=[Crop(padding=4), Flip()]),
}
_PEERS = ("imagefolder", "webdataset", "mds")
_PACKAGES = ("webdataset==1.0.2", "mosaicml-streaming==0.13.0")
_WORKERS = (0, 1, 2, 4)


def large_jpegs(count: int) -> list[bytes]:
    """Return photos of 500 x 375."""
    chance, photos, files = np.random.default_rng(0), load_sample_images().images, []
    for number in range(count):
        photo = Image.fromarray(photos[number % len(photos)])
        left, top = int(chance.integers(0, photo.width - 500)), int(chance.integers(0, photo.height - 375))
        files.append(_jpeg(photo.crop((left, top, left + 500, top + 375))))
    return files


def small_jpegs(count: int) -> list[bytes]:
    """Return pictures of 32 x 32: CIFAR's where MLSPARK_DATA has them."""
    archive = Path(os.environ.get("MLSPARK_DATA", "data")) / "cifar10-jpeg" / "train.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as members:
            names = [name for name in members.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
            return [members.read(name) for name in names[:count]]
    chance, photos, files = np.random.default_rng(0), load_sample_images().images, []
    for number in range(count):
        photo = Image.fromarray(photos[number % len(photos)]).resize((320, 214))
        left, top = int(chance.integers(0, 288)), int(chance.integers(0, 182))
        files.append(_jpeg(photo.crop((left, top, left + 32, top + 32))))
    return files


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write(folder: Path, files: list[bytes], rows_per_group: int) -> None:
    """Write the pictures in the layout of each loader but MosaicML's, which its own environment writes."""
    (folder / "table").mkdir(parents=True)
    labels = np.arange(len(files)) % 10
    table = pa.table({"jpg": pa.array(files, pa.binary()), "label": labels})
    pq.write_table(table, folder / "table" / "part.parquet", row_group_size=rows_per_group, compression="none")
    for label in range(10):
        (folder / "folders" / f"class-{label}").mkdir(parents=True)
    for number, (file, label) in enumerate(zip(files, labels.tolist(), strict=True)):
        (folder / "folders" / f"class-{label}" / f"{number:06d}.jpg").write_bytes(file)
    (folder / "tars").mkdir()
    shards = [range(start, len(files), 8) for start in range(8)]
    for shard, numbers in enumerate(shards):
        with tarfile.open(folder / "tars" / f"part-{shard:04d}.tar", "w") as tar:
            for number in numbers:
                for name, content in (("jpg", files[number]), ("cls", str(labels[number]).encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_pixels(folder: Path, files: list[bytes], repeat: int) -> None:
    """Write what the table holds with `store: pixels`, as feature tables are written."""
    spec = _PICTURES["small"].spec
    pixels = [decoder.encoded(file, spec).tobytes() for file in files] * repeat
    folder.mkdir()
    table = pa.table({"jpg": pa.array(pixels, pa.binary()), "label": np.arange(len(pixels)) % 10})
    pq.write_table(table, folder / "part.parquet", row_group_size=4000, compression="lz4", use_dictionary=False)


def stream(folder: Path, picture: Picture, **options: Any) -> Stream:
    return Stream(str(folder), images={"photo": picture}, batch_size=_BATCH, workers=_CORES, **options)


_BARE = """
import json, os, sys, time
import numpy as np, pyarrow.parquet as pq, torch
from mlspark.pictures.augment import Crop, Flip, ResizedCrop
from mlspark.pictures.draws import draw
from mlspark.pictures.filling import Filling
from mlspark.pictures.spec import PictureSpec
torch.set_num_threads(1)
path, kind, part, parts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
values = pq.read_table(path, columns=["jpg"])["jpg"].to_pylist()[part::parts]
size, augment = (224, (ResizedCrop(), Flip())) if kind == "large" else (32, (Crop(padding=4), Flip()))
filling = Filling(PictureSpec("RGB", size, size), augment)
print("ready", flush=True)
for line in sys.stdin:
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(values), 64):
        some = values[first : first + 64]
        pixels = np.empty((len(some), 3, size, size), np.uint8)
        filling.fill(pixels, some, draw(0, 0, np.arange(first, first + len(some)), filling.counts))
    print(json.dumps([time.perf_counter() - started, time.process_time() - cpu]), flush=True)
"""
_MEMORY = """
import json, psutil, sys
from mlspark.pictures.augment import Flip, ResizedCrop
from mlspark.streaming.pictures import Picture
from mlspark.streaming.stream import Stream
def kilobytes(name): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
imports = kilobytes("VmRSS")
photo = Picture(column="jpg", size=224, augment=[ResizedCrop(), Flip()])
with Stream(sys.argv[1], images={"photo": photo}, batch_size=64, shuffle_window_bytes=2**25, read_ahead_bytes=2**25) as rows:
    for batch in rows: pass
    processes = sum(each.memory_full_info().pss for each in psutil.Process().children(recursive=True))
print(json.dumps([kilobytes("VmHWM") / 1024, imports / 1024, processes / 2**20]))
"""


class Process:
    """A process that does the same whenever it is asked to, and says how long it took."""

    def __init__(self, command: list[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or "-c" in command}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._read() == "ready"

    def begin(self, request: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        return json.loads(self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r:.200} ended with status {self._process.wait()}")
        return line.strip()


def bare(processes: list[Process], count: int) -> tuple[float, float]:
    """Return pictures/s, and pictures per second of processor time, of a bare loop on all cores."""
    for process in processes:
        process.begin()
    times = [process.end() for process in processes]
    return count / max(wall for wall, _ in times), count / sum(cpu for _, cpu in times)


def epoch(rows: Stream, count: int) -> tuple[float, float]:
    """Return the same of an epoch of a stream."""

    def read() -> None:
        assert sum(len(batch["photo"]) for batch in rows) == count

    return timed(read, count)


def read_all(folder: Path, count: int) -> tuple[float, float]:
    """Return the same of read_table."""

    def read() -> None:
        assert pq.read_table(folder / "part.parquet").num_rows == count

    return timed(read, count)


def timed(read: Callable[[], None], count: int) -> tuple[float, float]:
    cpu, started = processor_seconds(), time.perf_counter()
    read()
    seconds = time.perf_counter() - started
    return count / seconds, count / (processor_seconds() - cpu)


def processor_seconds() -> float:
    """Return those that this process and those that it started took so far."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


class Peer:
    """One of the loaders people use, with its best number of workers."""

    def __init__(self, python: str, folder: Path, kind: str, name: str, count: int) -> None:
        script = str(Path(__file__).with_name("_picture_loaders.py"))
        self.process = Process([python, script, name, str(folder), kind])
        self.count, self.workers = count, 0
        rates = {}
        for workers in _WORKERS:
            self.workers = workers
            rates[workers] = self()[0]
        self.workers = max(rates, key=rates.__getitem__)

    def __call__(self) -> tuple[float, float]:
        self.process.begin(str(self.workers))
        wall, cpu = self.process.end()
        return self.count / wall, self.count / cpu


def peers_python() -> str:
    """Return the interpreter of an environment with WebDataset and MosaicML streaming, kept for the next time."""
    versions = (f"{module.__name__}=={module.__version__.partition('+')[0]}" for module in (torch, torchvision))
    return python_with("picture-loaders", [*_PACKAGES, *versions])


def cases(folder: Path, counts: dict[str, int], with_peers: bool, stack: ExitStack) -> Iterator[tuple[str, Any]]:
    """Yield name and function of all that take turns."""
    for kind, picture in _PICTURES.items():
        count, place = counts[kind], folder / kind
        rows = stack.enter_context(stream(place / "table", picture))
        for _ in range(3):  # all have had an epoch when the rounds begin, and their processes have started
            epoch(rows, count)
        yield f"mlspark_{kind}", lambda rows=rows, count=count: epoch(rows, count)
        command = [sys.executable, "-c", _BARE, str(place / "table" / "part.parquet"), kind]
        processes = [Process([*command, str(part), str(_CORES)]) for part in range(_CORES)]
        for process in processes:
            stack.callback(process.close)
        bare(processes, count)
        yield f"bare_{kind}", lambda processes=processes, count=count: bare(processes, count)
        for name in _PEERS if with_peers else ():
            python = sys.executable if name == "imagefolder" else peers_python()
            peer = Peer(python, place, kind, name, count)
            stack.callback(peer.process.close)
            yield f"{name}_{kind}", peer
    for name, augment in (("pixels", ()), ("moved", _PICTURES["small"].augment)):
        stored = Picture(column="jpg", size=32, store="pixels", augment=augment)
        rows = stack.enter_context(stream(folder / "pixels", stored))
        epoch(rows, counts["pixels"])
        yield name, lambda rows=rows: epoch(rows, counts["pixels"])
    yield "read_table", lambda: read_all(folder / "pixels", counts["pixels"])


def rates(
    turns: dict[str, Callable[[], tuple[float, float]]], num_rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of pictures/s and of pictures per second of processor time of each case."""
    walls: dict[str, list[float]] = {name: [] for name in turns}
    cpus: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(num_rounds):
        for name, run in list(turns.items())[:: -1 if number % 2 else 1]:
            wall, cpu = run()
            walls[name].append(wall)
            cpus[name].append(cpu)
        print(f"round {number + 1}: " + ", ".join(f"{name} {rate[-1]:,.0f}" for name, rate in walls.items()))
    return tuple({name: statistics.median(rate) for name, rate in each.items()} for each in (walls, cpus))


def ratios(rate: dict[str, float], suffix: str) -> dict[str, float]:
    """Return the figures that the head of this file names."""
    figures = {f"{name}_over_read_table{suffix}": rate[name] / rate["read_table"] for name in ("pixels", "moved")}
    for kind, ending in (("large", ""), ("small", "_small")):
        for name, key in (("bare", "decode_only"), *((peer, peer) for peer in _PEERS)):
            if f"{name}_{kind}" in rate:
                figures[f"over_{key}{ending}{suffix}"] = rate[f"mlspark_{kind}"] / rate[f"{name}_{kind}"]
    return figures


def first_batch(folder: Path) -> float:
    started = time.perf_counter()
    with stream(folder, _PICTURES["large"]) as rows:
        next(iter(rows))
        return time.perf_counter() - started


def peak_mb(folder: Path) -> tuple[float, float, float]:
    """Return peak resident memory of an epoch, what of it imports take, and memory of the processes that decode."""
    done = subprocess.run([sys.executable, "-c", _MEMORY, str(folder)], stdout=subprocess.PIPE, check=True, text=True)
    peak, imports, processes = json.loads(done.stdout)
    return peak, imports, processes


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures, two rounds.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds; 5 unless --quick.")] = None,
    with_peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Measure the loaders people use.")] = True,
) -> None:
    """See the head of this file."""
    num_rounds = rounds or (2 if quick else 5)
    large, small = large_jpegs(512 if quick else 2048), small_jpegs(4000 if quick else 20_000)
    repeat = 10 if quick else 5
    figures: dict[str, Any] = {"cores": _CORES, "rounds": num_rounds, "load_before": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="mlspark-pictures-") as name, ExitStack() as stack:
        folder = Path(name)
        write(folder / "large", large, 64)
        write(folder / "small", small, 1000)
        write_pixels(folder / "pixels", small, repeat)
        counts = {"large": len(large), "small": len(small), "pixels": len(small) * repeat}
        turns = dict(cases(folder, counts, with_peers, stack))
        workers = {case: turn.workers for case, turn in turns.items() if isinstance(turn, Peer)}
        wall, cpu = rates(turns, num_rounds)
        for suffix, rate in (("", wall), ("_cpu", cpu)):
            figures |= ratios(rate, suffix)
        figures["first_batch_s"] = statistics.median(first_batch(folder / "large" / "table") for _ in range(5))
        write(folder / "ten", large[:512] * 10, 64)
        write(folder / "one", large[:512], 64)
        figures["rss_mb"], figures["imports_mb"], _ = peak_mb(folder / "one" / "table")
        of_ten, _, figures["processes_mb"] = peak_mb(folder / "ten" / "table")
        figures["growth_10x"] = of_ten / figures["rss_mb"]
    figures["load_after"] = round(os.getloadavg()[0], 1)
    figures["pictures_per_second"] = {name: round(rate) for name, rate in wall.items()}
    figures["pictures_per_cpu_second"] = {name: round(rate) for name, rate in cpu.items()}
    figures["best_workers"] = workers
    tell(figures, json_file)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

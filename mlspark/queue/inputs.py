"""What the stages of a job read, as far as it can be seen at once: files on local disks. Runs anywhere."""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MOST_FILES = 20_000
"""Most files that are looked at: whoever submits is waiting."""


class _Unseen(Exception):
    """Something that cannot be seen at once."""


def seen(settings: Mapping[str, Any], stages: Sequence[str], folder: Path) -> tuple[list[Any], bool]:
    """Return the state of what the stages read, and whether that is all of it.

    The state of a file is its path, size and time of change; of a contract its content. What cannot be seen: what stands
    elsewhere, in databases or in a model registry, and more than MOST_FILES files.

    Args:
        settings: of the pipeline, as its files have them.
        stages: names, in order.
        folder: what relative paths are taken from.
    """
    try:
        return list(_states(settings, stages, folder)), True
    except _Unseen:
        return [], False


def num_bytes(settings: Mapping[str, Any], stages: Sequence[str], folder: Path) -> int | None:
    """Return the bytes of the files that the largest of stages reads; None where that cannot be seen, see `seen`.

    Args:
        settings: of the pipeline, as its files have them.
        stages: names, in order.
        folder: what relative paths are taken from.
    """
    largest = 0
    try:
        for stage in stages:
            if stage == "train":
                sizes = [size for _, size, _ in _files(_features(settings, folder))]
            elif stage == "monitor":
                raise _Unseen  # tables of scores
            else:  # slices of a promotion are of the rows that were prepared
                read = "prepare" if stage == "promote" else stage
                sizes = [size for _, size, _ in _source_files(settings, [read], folder)]
            largest = max(largest, sum(size for size in sizes if size > 0))
    except _Unseen:
        return None
    return largest


def _states(settings: Mapping[str, Any], stages: Sequence[str], folder: Path) -> Iterator[Any]:
    if "train" not in stages and not {"promote", "score", "monitor"}.isdisjoint(stages):
        raise _Unseen  # versions of the registry, tables of scores
    if "prepare" in stages:
        for contract in _values(settings, "contract"):
            yield contract, _digest(folder / _local(contract))
    elif "train" in stages:
        table = _features(settings, folder)
        yield table.name, max((file.name for file in (table / "_delta_log").glob("*.json")), default="")
    yield from _source_files(settings, stages, folder)


def _features(settings: Mapping[str, Any], folder: Path) -> Path:
    home = _section(settings, "storage").get("root") or os.environ.get("MLSPARK_HOME") or ".mlspark"
    return folder / _local(str(home)) / "tables" / f"{settings.get('name')}_features"


def _source_files(settings: Mapping[str, Any], stages: Sequence[str], folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (path, bytes, time of change) of the files of the sources that stages read."""
    sources = _section(settings, "sources")
    root = folder / _local(str(sources.get("root") or os.environ.get("MLSPARK_DATA") or "data"))
    read: list[Any] = []
    if "prepare" in stages:
        read += [value for name, value in sources.items() if name != "root"]
        read += [_section(join, "source") for join in settings.get("joins") or () if isinstance(join, Mapping)]
    if "score" in stages:
        read.append(_section(_section(settings, "scoring"), "source"))
    if "monitor" in stages:
        read.append(_section(_section(settings, "monitoring"), "labels"))
    num_files = 0
    for source in filter(None, read):
        paths = [*_values(source, "path"), *_values(source, "sidecar")]
        if not paths:
            raise _Unseen  # a database, a table of Hive
        for state in (state for path in paths for state in _files(root / _local(path))):
            num_files += 1
            if num_files > MOST_FILES:
                raise _Unseen
            yield state


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (path, bytes, time of change) of a file, of those of a pattern, and of all below a folder."""
    name = str(path)
    found = [name] if os.path.exists(name) or not glob.has_magic(name) else sorted(glob.glob(name, recursive=True))
    for each in found:
        if not os.path.isdir(each):
            yield _state(each)
        for parent, folders, files in os.walk(each):
            folders.sort()
            yield from (_state(os.path.join(parent, file)) for file in sorted(files))


def _state(file: str) -> tuple[str, int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return file, -1, 0  # the stage will say so
    return file, status.st_size, status.st_mtime_ns


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""  # the stage will say so


def _local(uri: str) -> str:
    """Return the path behind a local URI. Raises _Unseen."""
    if uri.startswith("file:"):
        return unquote(urlsplit(uri).path)
    if "://" in uri:
        raise _Unseen
    return uri


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _values(section: Any, key: str) -> Iterator[str]:
    """Yield the texts that `key` has anywhere in a section."""
    if isinstance(section, Mapping):
        for name, value in section.items():
            if name == key and isinstance(value, str) and value:
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(section, list):
        for value in section:
            yield from _values(value, key)

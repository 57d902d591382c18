"""Every file below a folder, hidden names too, with size and time of change; a million of them in pages. Driver."""

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pyarrow import fs

from mlspark import storage
from mlspark.errors import SourceError, StorageError
from mlspark.sources import file_states, files
from mlspark.sources.members import text
from mlspark.sources.opened_files import failures
from mlspark.sources.source import Part

NO_TEXT = "name is not UTF-8"
"""How the state of a file begins whose name is no text; its part has another name, by which it cannot be opened."""
_PATTERN = re.compile(r"[\[\]{}*?]")
_FOLDERS_AT_A_TIME = 16


def parts(uri: str, *, setting: str = "sources.*.path (scoring.source.path)") -> tuple[Part, ...]:
    """Return the files of a file, folder or glob, sorted by name, with states of `file_states.settled`.

    Unlike Spark's own listing it leaves nothing out: "_x", ".x" and files without a byte are files.

    Args:
        uri: where to look.
        setting: what names it, for the error.

    Raises:
        SourceError: nothing there, no file in it, a link that leads nowhere or in a circle, or it cannot be reached.
    """
    return file_states.settled(lambda: _listed(uri, setting))


def _listed(uri: str, setting: str) -> tuple[Part, ...]:
    base, pattern = split(uri)
    with failures(uri):
        filesys, path = storage.filesystem(base)
        info = filesys.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise files.absent(uri, setting)
        if info.type == fs.FileType.File:
            return (_part(base, info.size, info.mtime_ns),)
        found = _local(base) if storage.is_local(base) else _remote(base, filesys, path)
        matches = re.compile(_regex(pattern) + "(/.*)?") if pattern else None
        listed = [part for part in found if matches is None or matches.fullmatch(part.name[len(base) :].lstrip("/"))]
    if not listed:
        raise SourceError(f"{uri}: no file there; check that the folder is the right one")
    return tuple(sorted(listed, key=lambda part: part.name))


def split(uri: str) -> tuple[str, str]:
    """Return (folder, glob below it) of a place; the place itself and "" where it is no glob."""
    match = _PATTERN.search(uri)
    if match is None or (storage.is_local(uri) and os.path.exists(storage.local_path(uri))):
        return uri, ""
    cut = uri.rindex("/", 0, match.start())
    return uri[:cut] or "/", uri[cut + 1 :]


def base(uri: str, listed: Iterable[Part]) -> str:
    """Return the folder that names of files are relative to."""
    folder, _ = split(uri)
    return folder.rsplit("/", 1)[0] if any(part.name == uri for part in listed) else folder


@lru_cache(maxsize=64)
def _regex(glob: str) -> str:
    """Return the regular expression of a glob: * and ? within a folder's name, [abc], {one,other}."""
    found, depth, place = "", 0, 0
    while place < len(glob):
        sign = glob[place]
        end = glob.find("]", place + 2) if sign == "[" else -1
        if sign == "*":
            found += "[^/]*"
        elif sign == "?":
            found += "[^/]"
        elif end > 0:
            inside = re.sub(r"([\\[&~|])", r"\\\1", glob[place + 1 : end])
            found += f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]"
            place = end
        elif sign == "{" and "}" in glob[place:]:
            found, depth = found + "(?:", depth + 1
        elif sign == "}" and depth:
            found, depth = found + ")", depth - 1
        else:
            found += "|" if sign == "," and depth else re.escape(sign)
        place += 1
    return found


def _local(top: str) -> Iterator[Part]:
    """Yield local files, links followed."""
    try:
        for folder in storage.local_folders(storage.local_path(top), lambda path: True):
            for entry in os.scandir(folder):
                if entry.is_dir():
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    raise SourceError(
                        f"{entry.path}: is a link to {os.readlink(entry.path)}, which is not there; correct or remove it"
                    ) from None
                yield _part(entry.path, status.st_size, status.st_mtime_ns)
    except StorageError as error:
        raise SourceError(str(error)) from None


def _remote(top: str, filesys: fs.FileSystem, path: str) -> list[Part]:
    """Return the files below a remote folder, several folders listed at a time; stores give them in pages."""
    root = path.rstrip("/")

    def below(selector: fs.FileSelector) -> list[tuple[fs.FileType, Part, str]]:
        return [
            (info.type, _part(top.rstrip("/") + info.path[len(root) :], info.size or 0, info.mtime_ns or 0), info.path)
            for info in filesys.get_file_info(selector)
        ]

    first = below(fs.FileSelector(path))
    found = [part for kind, part, _ in first if kind == fs.FileType.File]
    folders = [fs.FileSelector(name, recursive=True) for kind, _, name in first if kind == fs.FileType.Directory]
    with ThreadPoolExecutor(_FOLDERS_AT_A_TIME) as pool:
        for listed in pool.map(below, folders):
            found += [part for kind, part, _ in listed if kind == fs.FileType.File]
    return found


def _part(name: str, size: int, mtime_ns: int) -> Part:
    shown = text(name)
    state = file_states.state(size, mtime_ns // 1000)
    return Part(shown, state if shown == name else f"{NO_TEXT}, {state}", size)

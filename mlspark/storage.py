"""Small files at a URI of any scheme: read whole, written whole or not at all. Runs anywhere; needs no Spark."""

import contextlib
import functools
import hashlib
import json
import os
import posixpath
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from mlspark import credentials
from mlspark.errors import ConfigError, DamagedFile, StorageError, one_line
from mlspark.section import Section


class StorageSettings(Section):
    root: str = ""
    """Folder or URI for tables, checkpoints and the embedded MLflow store; empty: $MLSPARK_HOME, else .mlspark."""


def is_local(uri: str) -> bool:
    """Return whether `uri` is a plain path or a file: URI."""
    return urlsplit(uri).scheme in ("", "file")


def local_path(uri: str) -> str:
    """Return the absolute path behind a plain path or file: URI."""
    assert is_local(uri), uri
    return os.path.abspath(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)


def absolute(uri: str) -> str:
    """Return `uri` itself, or the absolute path when it is local, so that executors elsewhere find the same place.

    Raises:
        ConfigError: it holds credentials.
    """
    if is_local(uri):
        return local_path(uri)
    credentials.refuse_in_uri(uri)
    return uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Return the URI of a file below `uri`."""
    return posixpath.join(uri, *parts)


def file_uri(table: str, path: str) -> str:
    """Return the absolute URI of a table's file whose path is relative to the table, or is a URI or local path by itself."""
    return path if "://" in path or path.startswith("/") else join(table, path)


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return (filesystem, path on it) of `uri`: file:, hdfs: (hdfs-native, no Hadoop needed), s3: and s3a:.

    S3 credentials, endpoint and region come from the environment (AWS_*). What follows the authority of a remote URI
    is the name itself, as for Spark: "%20", "#" and "?" stand for themselves (partition folders hold such names).

    Raises:
        ConfigError: no reader for this scheme, or credentials in the authority.
    """
    if is_local(uri):
        return fs.LocalFileSystem(), local_path(uri)
    scheme, _, rest = uri.partition("://")
    authority, _, name = rest.partition("/")
    credentials.refuse_in_uri(uri)
    if scheme == "hdfs":
        return _hdfs(authority, os.getpid()), f"/{name}"
    if scheme in ("s3", "s3a"):
        settings = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", *_S3_KEYS)
        return _s3(os.getpid(), *map(os.environ.get, settings)), rest
    raise ConfigError(f"{uri}: no reader for scheme {scheme!r}; use file:, hdfs:, s3: or s3a:")


_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@functools.cache
def _s3(
    process: int, endpoint: str | None, region: str | None, default_region: str | None, *keys: str | None
) -> fs.S3FileSystem:
    """Return the client for these settings; one for all files, because it keeps its connections."""
    split = urlsplit(endpoint) if endpoint else None
    return fs.S3FileSystem(
        endpoint_override=split.netloc if split else None,
        scheme=split.scheme if split else None,
        region=region or default_region,
    )


@functools.cache
def _hdfs(authority: str, process: int) -> fs.FileSystem:
    """Return hdfs-native's filesystem for literal names, whose rename replaces in one step.

    One for each process, kept until it ends. fsspec would drop its instances in a forked child, where dropping the
    client waits for ever for threads that a fork does not copy: starting Spark's JVM forks, and would hang.
    """
    from hdfs_native.fsspec import HdfsFileSystem

    class Hdfs(HdfsFileSystem):
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path

        def mv(self, path1: str, path2: str, **_: Any) -> None:
            self.client.rename(path1, path2, overwrite=True)

        def _convert_file_status(self, file_status: Any) -> dict[str, Any]:
            # pyarrow looks for "mtime" in seconds; without it a file's time of change is None.
            status: dict[str, Any] = super()._convert_file_status(file_status)
            return status | {"mtime": file_status.modification_time / 1000}

    return fs.PyFileSystem(fs.FSSpecHandler(Hdfs(authority)))


def rust_uri(uri: str) -> str:
    """Return `uri` as deltalake names it: it knows s3: where Hadoop says s3a:.

    Raises:
        ConfigError: credentials in the URI, or a local path that deltalake would take for another one.
    """
    credentials.refuse_in_uri(uri)
    if not is_local(uri):
        return "s3://" + uri.removeprefix("s3a://") if uri.startswith("s3a://") else uri
    path = local_path(uri)
    real = os.path.realpath(path)  # deltalake follows links first
    if escape := _ESCAPE.search(real):
        place = path if real == path else f"{path}, a link to {real}"
        raise ConfigError(
            f"{place}: deltalake reads {escape[0]} in a local path as {unquote(escape[0])!r}; move the table to a folder "
            f"without it in its name"
        )
    return path


def exists(uri: str) -> bool:
    """Return whether a file or folder stands at `uri`."""
    filesys, path = filesystem(uri)
    return bool(filesys.get_file_info(path).type != fs.FileType.NotFound)


def list_files(uri: str) -> list[str]:
    """Return the URIs of the files directly in folder `uri`, sorted; empty when there is no such folder."""
    return sorted(join(uri, info.base_name) for info in _listed(uri) if info.type == fs.FileType.File)


def list_folders(uri: str) -> list[str]:
    """Return the URIs of the folders directly in folder `uri`, sorted; empty when there is no such folder."""
    return sorted(join(uri, info.base_name) for info in _listed(uri) if info.type == fs.FileType.Directory)


def _listed(uri: str) -> Sequence[fs.FileInfo]:
    filesys, path = filesystem(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    try:
        return list(filesys.get_file_info(selector))
    except NotADirectoryError:
        # On HDFS pyarrow asks whether it is a folder, then whether it is there: it may have been made in between.
        if filesys.get_file_info(path).type != fs.FileType.Directory:
            raise
        return list(filesys.get_file_info(selector))


def delete(uri: str) -> None:
    """Delete the file."""
    filesys, path = filesystem(uri)
    filesys.delete_file(path)


def delete_folder(uri: str) -> None:
    """Delete the folder with all that it holds."""
    filesys, path = filesystem(uri)
    filesys.delete_dir(path)


def read_bytes(uri: str) -> bytes:
    """Return the whole file, as one writer left it. Raises FileNotFoundError when there is none."""
    filesys, path = filesystem(uri)
    while True:
        with filesys.open_input_stream(path, compression=None) as stream:
            content = bytes(stream.read())
        # On S3 pyarrow asks for the size, then for so many bytes: of an object that was replaced in between, a longer one's
        # beginning.
        if not isinstance(filesys, fs.S3FileSystem) or filesys.get_file_info(path).size in (len(content), None):
            return content


def write_bytes(uri: str, content: bytes) -> None:
    """Write the file so that a reader sees all of `content` or the file as it was.

    Object stores publish on close; elsewhere a temporary name is renamed, after an fsync on local disks.
    """
    filesys, path = filesystem(uri)
    if isinstance(filesys, fs.S3FileSystem):
        with filesys.open_output_stream(path, compression=None) as stream:
            stream.write(content)
        return
    temporary = _temporary(filesys, path)
    try:
        _write(filesys, temporary, content)
        if isinstance(filesys, fs.LocalFileSystem):
            os.replace(temporary, path)
        else:
            filesys.move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what is written is whole or absent, but a full disk must not get fuller
            filesys.delete_file(temporary)
        raise


def _temporary(filesys: fs.FileSystem, path: str) -> str:
    """Return a new name beside `path`, as `sweep` knows it, in a folder that is there."""
    folder, name = posixpath.split(path)
    filesys.create_dir(folder, recursive=True)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex}")


def _write(filesys: fs.FileSystem, path: str, content: bytes) -> None:
    if isinstance(filesys, fs.LocalFileSystem):
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    else:
        with filesys.open_output_stream(path, compression=None) as stream:
            stream.write(content)


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


def sweep(uri: str) -> None:
    """Delete what writers of files in folder `uri` have left that were killed; nobody may be writing there."""
    for file in list_files(uri):
        if _TEMPORARY.fullmatch(posixpath.basename(file)):
            delete(file)


def create(uri: str, content: bytes) -> bool:
    """Write a new file, whole at once, and return True; return False, and write nothing, where there is one already.

    Of several that create it at the same time one gets True. For local disks and HDFS; object stores need more than one
    file for that, see `stages.training_mark`.
    """
    filesys, path = filesystem(uri)
    assert not isinstance(filesys, fs.S3FileSystem), uri
    temporary = _temporary(filesys, path)
    try:
        _write(filesys, temporary, content)
        if isinstance(filesys, fs.LocalFileSystem):
            os.link(temporary, path)
        else:
            filesys.handler.fs.client.rename(temporary, path, overwrite=False)
    except Exception:  # HDFS has errors of its own for a file that is there
        if not exists(uri):
            raise
        return False
    finally:
        with contextlib.suppress(OSError):
            filesys.delete_file(temporary)
    return True


def local_folders(top: str, enters: Callable[[str], bool], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a local folder and those below it that `enters` accepts, in order, links followed; none where there is none.

    Raises:
        StorageError: a link leads to a folder that it is in.
    """
    real = os.path.realpath(top)
    if real in above:
        raise StorageError(
            f"{top}: is a link to {real}, a folder that it is in, so it would be read for ever; remove it"
        )
    if not os.path.isdir(top):
        return
    yield top
    folders = sorted(entry.path for entry in os.scandir(top) if entry.is_dir())
    for folder in filter(enters, folders):
        yield from local_folders(folder, enters, (*above, real))


def make_private(uri: str) -> None:
    """Make folder `uri` and those above it, for its owner alone, on local disks and HDFS; one that exists stays as it is.

    Object stores have no rights of folders: their buckets' policies decide.
    """
    filesys, path = filesystem(uri)
    if isinstance(filesys, fs.S3FileSystem) or filesys.get_file_info(path).type != fs.FileType.NotFound:
        return
    if isinstance(filesys, fs.LocalFileSystem):
        os.makedirs(path, mode=0o700)  # those above are made by the umask
    else:
        filesys.create_dir(posixpath.dirname(path), recursive=True)
        filesys.handler.fs.client.mkdirs(path, permission=0o700)


def check_writable(uri: str) -> None:
    """Write a trial file of 64 KiB where folder `uri` is, or would be, and delete it.

    Raises:
        StorageError: names the folder and what the store said.
    """
    filesys, path = filesystem(uri)
    folder = path.rstrip("/")
    try:
        if not isinstance(filesys, fs.S3FileSystem):
            while (found := filesys.get_file_info(folder or "/")).type == fs.FileType.NotFound:
                folder = posixpath.dirname(folder)
            if found.type == fs.FileType.File:
                raise NotADirectoryError(f"{folder} is a file")
        trial = posixpath.join(folder, f".trial-{uuid.uuid4().hex}")
        try:
            with filesys.open_output_stream(trial, compression=None) as stream:
                stream.write(bytes(_TRIAL_BYTES))
        finally:
            if filesys.get_file_info(trial).type == fs.FileType.File:
                filesys.delete_file(trial)
    except OSError as error:
        raise StorageError(
            f"{uri}: cannot be written ({one_line(str(error))}); make room there, give this user the right to write, or set "
            f"storage.root to another place; nothing was written"
        ) from error


_TRIAL_BYTES = 2**16


def read_json(uri: str) -> Any:
    """Return the parsed JSON file."""
    return json.loads(read_bytes(uri))


def write_json(uri: str, value: Any) -> None:
    """Write `value` as JSON, keys in the value's order: the same value is always the same bytes."""
    write_bytes(uri, (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


_SEAL = "sha256"
"""Key of a sealed file's digest of the rest."""


def write_sealed(uri: str, value: Mapping[str, Any]) -> None:
    """Write `value`, JSON with keys that are texts, with the SHA-256 of itself, which `read_sealed` checks."""
    assert _SEAL not in value, f"{uri}: {_SEAL} is the seal's own key"
    write_json(uri, {**value, _SEAL: digest(value)})


def read_sealed(uri: str) -> dict[str, Any]:
    """Return what `write_sealed` wrote. Raises FileNotFoundError when there is no such file.

    Raises:
        DamagedFile: it is not what was written; names the file.
    """
    try:
        value = read_json(uri)
    except ValueError as error:  # no JSON, or no UTF-8
        raise DamagedFile(f"{uri}: damaged: it is not the JSON that was written") from error
    if not isinstance(value, dict) or value.pop(_SEAL, None) != digest(value):
        raise DamagedFile(f"{uri}: changed since it was written: it has another SHA-256 than it says")
    return value


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

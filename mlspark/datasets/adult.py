"""The UCI Adult (Census Income) files, downloaded once and checked. Runs on the driver; needs no Spark."""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from mlspark.errors import SourceError

logger = logging.getLogger(__name__)

BASE_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
CHUNK_BYTES = 1 << 16

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes here, bytes in all)."""


@dataclass(frozen=True)
class _File:
    name: str
    num_bytes: int
    sha256: str


# Becker, B. & Kohavi, R. (1996), Adult, UCI Machine Learning Repository, doi:10.24432/C5XW20, CC BY 4.0.
FILES = (
    _File("adult.data", 3_974_305, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    _File("adult.test", 2_003_153, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
    _File("adult.names", 5_229, "c248284c0b5de30c9e1958d6cdd168a34a654758b620e68f46aefa83fc0a576a"),
)


class _Cut(Exception):
    """The transfer ended early in a way that is worth another attempt."""


def fetch(
    folder: Path,
    *,
    base_url: str = BASE_URL,
    attempts: int = 5,
    timeout_seconds: float = 30.0,
    backoff_seconds: float = 1.0,
    progress: Progress | None = None,
) -> list[str]:
    """Return the names of the files downloaded into `folder`; those already there and right are left alone.

    A transfer that is cut goes on where it stopped, in this call or the next one: bytes gather in NAME.part, which
    gets its final name only when the checksum is right.

    Args:
        folder: made when absent.
        base_url: folder on a web server, http or https.
        attempts: tries in a row that bring no new byte before it gives up.
        timeout_seconds: longest silence of the server.
        backoff_seconds: wait after the first such try; doubles with each further one.
        progress: told after each chunk.

    Raises:
        SourceError: the server refuses, stays silent or sends another file; a file of other content is in the way;
            the folder cannot be written.
    """
    if urlsplit(base_url).scheme not in ("http", "https"):
        raise SourceError(f"{base_url}: expected an http or https address")
    downloaded = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            target = folder / file.name
            if target.exists():
                if _sha256(target) != file.sha256:
                    raise SourceError(f"{target} differs from the published file; move it away and fetch again")
                continue
            url = urljoin(base_url.rstrip("/") + "/", file.name)
            _download(url, file, target, attempts, timeout_seconds, backoff_seconds, progress)
            downloaded.append(file.name)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return downloaded


def _download(
    url: str,
    file: _File,
    target: Path,
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
    progress: Progress | None,
) -> None:
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, file, part, timeout_seconds, progress)
        except _Cut as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise SourceError(
                    f"{url}: {error}; gave up after {attempts} tries, run the command again to go on "
                    f"from byte {_size(part):,}"
                ) from None
            wait_seconds = backoff_seconds * 2 ** (failures - 1)
            logger.warning("%s: %s; next try in %.0f s", url, error, wait_seconds)
            time.sleep(wait_seconds)
            continue
        if _sha256(part) == file.sha256:
            os.replace(part, target)
            return
        part.unlink()
        if not resumed:
            raise SourceError(
                f"{url}: the server sent another file than the published one (sha256 differs); "
                f"nothing was kept, give another --base-url"
            )
        resumed = False  # the earlier bytes may be to blame: once more from the start


def _transfer(url: str, file: _File, part: Path, timeout_seconds: float, progress: Progress | None) -> None:
    """Append to `part` what is missing of `file`. Raises _Cut when the transfer ends before its last byte."""
    done = _size(part)
    if done >= file.num_bytes:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "mlspark"})  # noqa: S310 (checked by fetch)
    if done:
        request.add_header("Range", f"bytes={done}-")
    with _network_errors(url), urllib.request.urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310
        if response.status != 206:
            done = 0  # the server knows no ranges and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _Cut(f"the server sent another range than byte {done:,} onwards")
        with open(part, "ab" if done else "wb") as out:
            # A byte too many shows that it is not our file; no need to read on.
            while done <= file.num_bytes and (chunk := response.read1(CHUNK_BYTES)):
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(file.name, min(done, file.num_bytes), file.num_bytes)
    if done < file.num_bytes:
        raise _Cut(f"the connection closed after {done:,} of {file.num_bytes:,} bytes")


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Tell what may pass (_Cut) from what will not (SourceError)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in (408, 429) or error.code >= 500:
            raise _Cut(f"the server answered {error.code} {error.reason}") from None
        raise SourceError(f"{url}: the server answered {error.code} {error.reason}; give another --base-url") from None
    except urllib.error.URLError as error:
        raise _Cut(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Cut(f"the connection broke ({error or type(error).__name__})") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

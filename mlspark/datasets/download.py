"""Known data sets, downloaded once and checked. Runs on the driver; needs no Spark."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from requests import exceptions
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from urllib3.exceptions import MaxRetryError

from mlspark.datasets.known import DATA_SETS, File
from mlspark.errors import SourceError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 16

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes downloaded, bytes in all)."""


class _Interrupted(Exception):
    """A transfer failed in a way that may pass."""


class _Bar:
    """What pooch reports the transfer of one file to. Ends it when the server sends more than the file has."""

    def __init__(self, url: str, file: File, progress: Progress | None, remedy: str) -> None:
        self.total = 0  # set by pooch, from the server's word; the published size counts here
        self._url, self._file, self._progress, self._remedy = url, file, progress, remedy
        self._done = 0

    def update(self, num_bytes: int) -> None:
        # pooch adds a whole chunk for the last one, too: it is too long only when it was all there before.
        if self._done >= self._file.num_bytes and num_bytes:
            raise _other_file(self._url, self._remedy)
        self._done += num_bytes
        if self._progress:
            self._progress(self._file.name, min(self._done, self._file.num_bytes), self._file.num_bytes)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


_MOST_BYTES = 64 << 30
"""Most bytes of a file whose size nobody published."""
_OTHER_ADDRESS = "give another --base-url"


def fetch_file(
    url: str, sha256: str, *, attempts: int = 5, timeout_seconds: float = 30.0, backoff_seconds: float = 1.0
) -> Path:
    """Return a file of the web in the user's cache, downloaded where it is not there yet.

    Args:
        url: http or https.
        sha256: of the file, by which it is known in the cache.
        attempts, timeout_seconds, backoff_seconds: as for `fetch`.

    Raises:
        SourceError: the server refuses, stays silent or sends another file; the cache cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SourceError(f"{url}: expected an http or https address")
    pooch.get_logger().setLevel(logging.WARNING)
    target = Path(pooch.os_cache("mlspark")) / "files" / sha256
    if target.exists() and pooch.file_hash(str(target)) == sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        file = File(target.name, _MOST_BYTES, sha256)
        _download(url, file, target, attempts, timeout_seconds, backoff_seconds, None, remedy="give another address")
    except OSError as error:
        raise SourceError(f"{target.parent}: cannot be written ({error.strerror or error})") from error
    return target


def fetch(
    name: str,
    folder: Path,
    *,
    base_url: str = "",
    attempts: int = 5,
    timeout_seconds: float = 30.0,
    backoff_seconds: float = 1.0,
    progress: Progress | None = None,
) -> list[str]:
    """Return the names of the files downloaded into `folder`, and of those made of them; what is there is left alone.

    A file gets its name when all of it is there and its checksum is right, so a broken transfer leaves no part of one.
    It starts anew after a break; files that are complete are not fetched again.

    Args:
        name: key of DATA_SETS.
        folder: made when absent.
        base_url: folder on a web server, http or https; empty: where the data set is published.
        attempts: tries for each file.
        timeout_seconds: longest silence of the server.
        backoff_seconds: wait after the first failed try; doubles with each further one.
        progress: called after each chunk.

    Raises:
        SourceError: the server refuses, stays silent or sends another file; a file of other content is in the way;
            the folder cannot be written.
    """
    data_set = DATA_SETS[name]
    base_url = base_url or data_set.base_url
    if urlsplit(base_url).scheme not in ("http", "https"):
        raise SourceError(f"{base_url}: expected an http or https address")
    pooch.get_logger().setLevel(logging.WARNING)
    downloaded = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in data_set.files:
            target = folder / file.name
            if target.exists():
                if pooch.file_hash(str(target)) != file.sha256:
                    raise SourceError(f"{target} differs from the published file; move it away and fetch again")
                continue
            url = urljoin(base_url.rstrip("/") + "/", file.name)
            _download(url, file, target, attempts, timeout_seconds, backoff_seconds, progress)
            downloaded.append(file.name)
        if data_set.make is not None:
            downloaded += data_set.make(folder)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return downloaded


def _download(
    url: str,
    file: File,
    target: Path,
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
    progress: Progress | None,
    remedy: str = _OTHER_ADDRESS,
) -> None:
    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s: %s; next try in %.0f s", url, error, state.upcoming_sleep)

    tries = Retrying(
        retry=retry_if_exception_type(_Interrupted),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=backoff_seconds),
        before_sleep=report,
        reraise=True,
    )
    try:
        tries(_transfer, url, file, target, timeout_seconds, progress, remedy)
    except _Interrupted as error:
        raise SourceError(
            f"{url}: {error}; gave up after {attempts} tries, run the command again to fetch the missing files"
        ) from None


def _transfer(
    url: str, file: File, target: Path, timeout_seconds: float, progress: Progress | None, remedy: str
) -> None:
    """Download one file. Raises _Interrupted when another try may do better."""
    bar = _Bar(url, file, progress, remedy)
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, timeout=timeout_seconds)
    try:
        pooch.retrieve(url, f"sha256:{file.sha256}", fname=target.name, path=target.parent, downloader=downloader)
    except exceptions.RequestException as error:
        raise _described(url, error, remedy) from None
    except SourceError:
        raise
    except ValueError:  # pooch's word for a wrong checksum
        raise _other_file(url, remedy) from None
    target.chmod(0o666 & ~_umask())  # pooch's temporary file is its owner's only


def _described(url: str, error: exceptions.RequestException, remedy: str) -> Exception:
    """Tell what may pass (_Interrupted) from what will not (SourceError)."""
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        status = error.response.status_code
        answer = f"the server answered {status} {error.response.reason}"
        if status in (requests.codes.request_timeout, requests.codes.too_many_requests) or status >= 500:
            return _Interrupted(answer)
        return SourceError(f"{url}: {answer}; {remedy}")
    if isinstance(error, exceptions.Timeout):
        return _Interrupted("no answer in time (timed out)")
    if not isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError):
        return SourceError(f"{url}: {error}; {remedy}")
    cause = error.args[0] if error.args else error
    if isinstance(cause, MaxRetryError):
        return _Interrupted(f"no connection ({str(cause.reason).rpartition(': ')[2]})")
    cause = cause.args[0] if isinstance(cause, Exception) and cause.args else cause
    return _Interrupted(f"the connection broke ({cause})")


def _other_file(url: str, remedy: str) -> SourceError:
    return SourceError(
        f"{url}: the server sent another file than the published one (sha256 differs); nothing was kept, {remedy}"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""`mlspark fetch` against a server on this machine that breaks in every way a server can."""

import contextlib
import dataclasses
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlspark.datasets import download
from mlspark.datasets.known import DATA_SETS, DataSet, File
from mlspark.errors import SourceError

CONTENT = {"adult.data": bytes(range(256)) * 2_000, "adult.test": b"0123456789" * 3_000, "adult.names": b"names\n"}


@dataclass
class Server:
    """What it serves, how it misbehaves, and what it was asked."""

    url: str = ""
    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    cut_after: list[int] = field(default_factory=list)  # body bytes of the next answers, each cut there
    statuses: list[int] = field(default_factory=list)  # error statuses of the next answers
    silent: bool = False
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if state.silent:
                stop.wait(20)
                return
            body = state.content.get(self.path.rsplit("/", 1)[-1])
            status = state.statuses.pop(0) if state.statuses else 200 if body is not None else 404
            if status != 200 or body is None:
                self.send_error(status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have seen enough
                self.wfile.write(body[: state.cut_after.pop(0)] if state.cut_after else body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/adult"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = tuple(File(name, len(body), hashlib.sha256(body).hexdigest()) for name, body in CONTENT.items())
    monkeypatch.setitem(DATA_SETS, "made", DataSet("Made for tests", "https://127.0.0.1:9/", files, "made here"))
    yield state
    stop.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def fetch(server: Server, folder: Path, attempts: int = 3, timeout_seconds: float = 5.0) -> list[str]:
    return download.fetch(
        "made", folder, base_url=server.url, attempts=attempts, timeout_seconds=timeout_seconds, backoff_seconds=0.01
    )


def assert_complete(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_fetch_downloads_all_files_and_the_second_call_none(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "adult") == list(CONTENT)
    assert_complete(tmp_path / "adult")
    assert fetch(server, tmp_path / "adult") == []
    assert server.asked == [f"/adult/{name}" for name in CONTENT]


def test_cut_connection_is_tried_again_and_leaves_no_part_of_a_file(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 50_000]
    fetch(server, tmp_path)
    assert_complete(tmp_path)
    assert len(server.asked) == 5


def test_next_call_fetches_what_is_missing_after_one_that_gave_up(server: Server, tmp_path: Path) -> None:
    server.cut_after = [10**6, 1_000, 0, 0]
    with pytest.raises(
        SourceError, match=r"adult\.test: the connection broke \(.*; gave up after 3 tries, run the command again"
    ):
        fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adult.data"]
    server.asked.clear()
    assert fetch(server, tmp_path) == ["adult.test", "adult.names"]
    assert_complete(tmp_path)
    assert len(server.asked) == 2


def test_files_may_be_read_by_those_whom_the_umask_lets(server: Server, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        fetch(server, tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_wrong_content_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content["adult.data"] = CONTENT["adult.data"][:-1] + b"!"
    with pytest.raises(SourceError, match=r"adult\.data: the server sent another file .* nothing was kept"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_longer_content_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.content["adult.names"] = CONTENT["adult.names"] * 1_000_000
    with pytest.raises(SourceError, match="another file"):
        fetch(server, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adult.data", "adult.test"]


def test_file_of_other_content_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "adult.data").write_text("mine")
    with pytest.raises(SourceError, match="differs from the published file; move it away"):
        fetch(server, tmp_path)
    assert (tmp_path / "adult.data").read_text() == "mine"


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(server, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        ({"statuses": [404]}, r"the server answered 404 Not Found; give another --base-url"),
        ({"statuses": [500, 500]}, r"the server answered 500 .*; gave up after 2 tries"),
        ({"silent": True}, r"no answer in time \(timed out\); gave up after 2 tries"),
        ({"url": "http://127.0.0.1:9/adult"}, r"no connection \(.*refused.*\); gave up after 2 tries"),
        ({"url": "file:///etc"}, r"file:///etc: expected an http or https address"),
    ],
)
def test_failures_name_cause_and_remedy(
    server: Server, tmp_path: Path, misbehave: dict[str, object], message: str
) -> None:
    for name, value in misbehave.items():
        setattr(server, name, value)
    with pytest.raises(SourceError, match=message):
        fetch(server, tmp_path, attempts=2, timeout_seconds=0.3)


def test_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"file/adult: cannot be written \(Not a directory\)"):
        fetch(server, tmp_path / "file" / "adult")


def test_progress_ends_at_the_whole_file(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    download.fetch("made", tmp_path, base_url=server.url, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("adult.names", 6, 6)
    assert ("adult.data", 512_000, 512_000) in calls


def test_what_sources_read_is_made_of_what_was_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path) -> list[str]:
        made = folder / "made.txt"
        if made.exists():
            return []
        made.write_bytes((folder / "adult.names").read_bytes())
        return [made.name]

    monkeypatch.setitem(DATA_SETS, "made", dataclasses.replace(DATA_SETS["made"], make=make))
    assert fetch(server, tmp_path) == [*CONTENT, "made.txt"]
    assert (tmp_path / "made.txt").read_bytes() == CONTENT["adult.names"]
    assert fetch(server, tmp_path) == []
    (tmp_path / "made.txt").unlink()
    assert fetch(server, tmp_path) == ["made.txt"]


def test_every_known_file_has_a_published_checksum() -> None:
    for data_set in DATA_SETS.values():
        assert data_set.base_url.endswith("/")
        for file in data_set.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.num_bytes > 0

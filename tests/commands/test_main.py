"""The `mlspark` command, started as a user does."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest


def mlspark(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mlspark.commands.main import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_version(tmp_path: Path) -> None:
    assert mlspark("version", folder=tmp_path).stdout == f"mlspark {metadata.version('mlspark')}\n"


def test_help_names_the_commands(tmp_path: Path) -> None:
    done = mlspark("--help", folder=tmp_path)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("fetch", "demo", "tune", "version"))


def test_fetch_lists_the_known_data_sets(tmp_path: Path) -> None:
    done = mlspark("fetch", folder=tmp_path)
    assert done.returncode == 0
    assert "adult: UCI Adult (Census Income), 6.0 MB from https://" in done.stdout
    assert "CC BY 4.0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch", "adult", "--base-url", "ftp://127.0.0.1/"), "mlspark: ftp://127.0.0.1/: expected an http or https"),
        (("fetch", "iris"), "'iris' is not"),
        (("demo",), "mlspark: conf/census.yaml not found in "),
        (("tune", "--config", "no.yaml", "--search", "x"), "mlspark: no.yaml: cannot be read"),
        (("deno",), "No such command 'deno'"),
    ],
)
def test_what_the_user_can_mend_ends_with_status_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = mlspark(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_fetch_says_what_went_wrong_on_one_line(tmp_path: Path) -> None:
    """The real sizes and checksums, and a server that has other files."""
    (tmp_path / "site").mkdir()
    for name in ("adult.data", "adult.test", "adult.names"):
        (tmp_path / "site" / name).write_bytes(b"x" * 5_000_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "site"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        done = mlspark("fetch", "adult", "--into", "raw", "--base-url", url, folder=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"mlspark: {url}adult.data: the server sent another file than the published one (sha256 differs); "
        "nothing was kept, give another --base-url"
    ]
    assert list((tmp_path / "raw" / "adult").iterdir()) == []

"""User and password in MLFLOW_TRACKING_URI open the server, and stand in nothing that is logged, raised or kept."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from mlspark.errors import TrackingError
from mlspark.registry import versions
from mlspark.tracking import runs
from mlspark.tracking.runs import Run

from ..conftest import census_settings

SECRET = "hunter2-in-clear"


class Server:
    """An MLflow that knows no experiment, and fails when it is told to; notes who asked."""

    def __init__(self) -> None:
        self.authorizations: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.authorizations.add(self.headers.get("Authorization", ""))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(500)
                self.end_headers()
                self.wfile.write(f"no database behind http://{self.headers['Host']}".encode())

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    stores = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    running = Server()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{SECRET}@{running.address}")
    yield running
    running.http.shutdown()
    running.http.server_close()
    mlflow.set_tracking_uri(stores[0])
    mlflow.set_registry_uri(stores[1])


@pytest.mark.parametrize("is_there", [True, False])
def test_password_of_the_environment_is_told_to_the_server_alone(
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    is_there: bool,
) -> None:
    if not is_there:
        server.http.shutdown()
        server.http.server_close()
    said = []
    for seconds in (0.6, 6, 60):  # until there was time for a second try
        settings = census_settings(Path("unused"), tmp_path, f"tracking.retry_seconds={seconds}")
        with pytest.raises(TrackingError, match="MLflow did not open the experiment") as refused:
            runs.connect(settings.tracking, settings.root)
        said += [settings.to_yaml(), str(refused.value)]
        if "MLflow did not open the experiment, trying again" in caplog.text:
            break
    client = mlflow.MlflowClient()
    with pytest.raises(TrackingError, match="MLflow did not find model census") as refused:
        versions.find(client, "census", "champion", retry_seconds=0.0)
    said.append(str(refused.value))
    with Run(client, "0" * 32, retry_seconds=0.2) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert "MLflow did not open the experiment, trying again" in caplog.text
    assert "MLflow did not end run" in caplog.text
    output = capfd.readouterr()
    told = "\n".join([*said, caplog.text, output.out, output.err])
    assert server.address in told  # the server is named
    assert SECRET not in told
    assert "ann" not in "".join(said[1::2])
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    if is_there:
        assert server.authorizations == {"Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()}

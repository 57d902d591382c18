"""A URL behind which there is no Kubeflow."""

import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from mlspark.commands import kubeflow
from mlspark.errors import ConfigError

from ..conftest import ROOT


@contextlib.contextmanager
def server() -> Iterator[str]:
    """An HTTP server that knows no path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404, "nothing of Kubeflow here")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.slow  # kfp asks five times
def test_server_that_is_no_kubeflow_is_named() -> None:
    with server() as url, pytest.raises(ConfigError, match=f"Kubeflow at {url}: .*; is it the URL of its API"):
        kubeflow.run([str(ROOT / "conf" / "census.yaml")], endpoint=url)

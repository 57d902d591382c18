"""`mlspark serve` beside `mlflow models serve` on the same version, on the loopback: latencies, requests/s, rows/s.

    python benchmarks/serving.py [--quick] [--json FILE] [--seconds S] [--rounds N]

Trains one epoch on census rows (the real Adult files below MLSPARK_DATA where they are), serves the version by both, one
process each, and loads them in turn from a process of its own: 1 client and 32 clients with one row a request, 1 client with
1,000 rows a request. Then 32 clients go on while the alias moves between two versions, and while `mlspark serve` ends.
Of each figure it prints the median of the rounds, in which the two servers take turns. Keys of the JSON:
KIND_CLIENTS_p50_ms, _p99_ms, _per_second for KIND in mlspark, mlflow and CLIENTS in 1, 32; KIND_rows_per_second;
requests_ratio_CLIENTS, p99_ratio_CLIENTS (mlspark over mlflow), rows_ratio; switches, switch_requests, switch_failed,
drain_requests, drain_failed, drain_exit; rounds: each figure of each round.
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from _figures import tell
from _load import Load
from mlflow import MlflowClient

from mlspark import session
from mlspark.datasets import census_like
from mlspark.registry import versions
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train
from mlspark.tracking import runs

ROOT = Path(__file__).resolve().parents[1]
ROWS = 1000
CLIENTS = (1, 32)


def make_versions(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the URI of a store with the same model as census versions 1 and 2, and a row that it takes."""
    data = Path(os.environ.get("MLSPARK_DATA", ROOT / "data")).resolve()
    if not (data / "adult" / "adult.data").is_file():
        census_like.write(folder, num_train=6000, num_test=2000, seed=1, bad_rows=0)
        data = folder
    changes = {
        "contract": str(ROOT / "schemas" / "census.json"),
        "storage.root": str(folder / "home"),
        "sources.root": str(data),
        "training.epochs": 1,
    }
    files = [str(ROOT / "conf" / "census.yaml")]
    settings = loading.load(files, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    spark = session.start("serving", {"spark.master": "local[2]"})
    spark.sparkContext.setLogLevel("ERROR")
    try:
        prepare(spark, settings)
        for seed in (1, 2):
            train(spark, loading.override(settings, {"training.seed": seed}, source="serving"))
    finally:
        spark.stop()
    client = runs.connect(settings.tracking, settings.root)
    example = versions.find(client, "census", 1).example
    assert example is not None
    return runs.embedded_uri(settings.root), dict(example)


@contextmanager
def serving(command: list[str], store: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a server that answers GET `url`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": path}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"does not serve: {' '.join(command)}") from None
                time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started_load(url: str, body: Mapping[str, Any], clients: int, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "benchmarks" / "_load.py"), url, str(clients), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(body).encode())
    process.stdin.close()
    process.stdin = None
    return process


def ended_load(process: subprocess.Popen[bytes]) -> Load:
    output, _ = process.communicate(timeout=300)
    return Load(**json.loads(output))


def load(url: str, body: Mapping[str, Any], clients: int, seconds: float) -> Load:
    return ended_load(started_load(url, body, clients, seconds))


def measured(
    urls: Mapping[str, tuple[str, str]], row: dict[str, Any], rounds: int, seconds: float
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return medians of the rounds, and the figures of each round. `urls` has those for one row and for several."""
    bodies: dict[str, tuple[Any, Any]] = {
        "mlspark": (row, {"rows": [row] * ROWS}),
        "mlflow": ({"dataframe_records": [row]}, {"dataframe_records": [row] * ROWS}),
    }
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind, (one_url, many_url) in urls.items():
            one, many = bodies[kind]
            load(one_url, one, 4, 1.0)  # what is made at the first request
            for clients in CLIENTS:
                of_load = load(one_url, one, clients, seconds)
                assert not of_load.failed, f"{kind}: {of_load.failed} requests failed"
                for name, value in (
                    ("p50_ms", of_load.p50_ms), ("p99_ms", of_load.p99_ms), ("per_second", of_load.per_second),
                ):  # fmt: skip
                    seen.setdefault(f"{kind}_{clients}_{name}", []).append(value)
            of_load = load(many_url, many, 1, seconds)
            assert not of_load.failed, f"{kind}: {of_load.failed} requests failed"
            seen.setdefault(f"{kind}_rows_per_second", []).append(of_load.per_second * ROWS)
    figures = {name: statistics.median(values) for name, values in seen.items()}
    for clients in CLIENTS:
        for name, key in (("requests_ratio", "per_second"), ("p99_ratio", "p99_ms"), ("p50_ratio", "p50_ms")):
            figures[f"{name}_{clients}"] = figures[f"mlspark_{clients}_{key}"] / figures[f"mlflow_{clients}_{key}"]
    figures["rows_ratio"] = figures["mlspark_rows_per_second"] / figures["mlflow_rows_per_second"]
    return figures, seen


def switched(client: MlflowClient, url: str, row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return what became of requests while the alias moved to and fro."""
    loading_process, switches = started_load(url, row, 32, seconds), 0
    until = time.monotonic() + seconds
    ready = re.sub("/predict$", "/ready", url)
    while time.monotonic() < until:
        version = 1 + (switches % 2)
        client.set_registered_model_alias("census", "champion", str(version))
        while time.monotonic() < until:
            if json.load(urllib.request.urlopen(ready, timeout=60))["version"] == version:
                switches += 1
                break
            time.sleep(0.05)
    of_load = ended_load(loading_process)
    return {"switches": switches, "switch_requests": of_load.requests, "switch_failed": of_load.failed}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One round of a second each.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each load.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure both servers."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    rounds, seconds = (1, 1.0) if quick else (rounds, seconds)
    with tempfile.TemporaryDirectory(prefix="mlspark-serving-") as name:
        store, row = make_versions(Path(name))
        client = MlflowClient(store)
        client.set_registered_model_alias("census", "champion", "1")
        ours, theirs = free_port(), free_port()
        program = "from mlspark.commands.main import main; main()"
        mlspark = [sys.executable, "-c", program, "serve", "census", "--port", str(ours), "--poll", "0.2"]
        mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/census/1", "--env-manager", "local"]
        mlflow += ["--host", "127.0.0.1", "--port", str(theirs), "--workers", "1"]
        urls = {
            "mlspark": (f"http://127.0.0.1:{ours}/predict", f"http://127.0.0.1:{ours}/predict/rows"),
            "mlflow": (f"http://127.0.0.1:{theirs}/invocations", f"http://127.0.0.1:{theirs}/invocations"),
        }
        with serving(mlspark, store, f"http://127.0.0.1:{ours}/ready") as server:
            with serving(mlflow, store, f"http://127.0.0.1:{theirs}/ping"):
                figures, by_round = measured(urls, row, rounds, seconds)
            figures |= switched(client, urls["mlspark"][0], row, max(5.0, seconds))
            drained = started_load(urls["mlspark"][0], row, 32, 60.0)
            time.sleep(2)
            server.send_signal(signal.SIGTERM)
            figures["drain_exit"] = server.wait(120)
            of_load = ended_load(drained)
            figures |= {"drain_requests": of_load.requests, "drain_failed": of_load.failed}
    tell(figures, json_file, {"rounds": by_round})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

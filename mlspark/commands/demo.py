"""`mlspark demo`: the three jobs on census rows, one after the other, and a summary. Starts Spark itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from mlspark import credentials, storage
from mlspark.commands import options
from mlspark.datasets import census_like
from mlspark.errors import ConfigError
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.tracking import runs

app = options.app()

CONFIG = "conf/census.yaml"
TAIL_LINES = 15

Report = Mapping[str, Any]


class JobFailed(Exception):
    """A job ended with another status than 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@app.command()
def demo() -> None:
    """Run prepare, train and score on census rows and sum up what came of it; from the repository's folder."""
    raise typer.Exit(run())


def run() -> int:
    """Return the exit status: 0, or that of the job that failed.

    Raises:
        ConfigError: this is not the repository's folder, or a setting is wrong.
    """
    for file in (CONFIG, "jobs/prepare.py", "conf/spark-defaults.conf"):
        if not Path(file).exists():
            raise ConfigError(f"{file} not found in {Path.cwd()}; run the demo in the repository's folder")
    started = time.monotonic()
    settings = loading.load([CONFIG])
    folder = Path(storage.local_path(settings.root) if storage.is_local(settings.root) else ".mlspark").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = _raw_data(settings.sources.root, folder / "demo-data")
    unlabelled = _unlabelled(storage.join(data, "adult", "adult.test"), folder / "demo-data" / "unlabelled")
    log = folder / "demo.log"
    log.write_text("", encoding="utf-8")
    to_score = f"scoring.source.path={json.dumps(str(unlabelled))}", "scoring.source.has_label=false"
    try:
        prepared = _job("prepare", data, settings.root, log)
        trained = _job("train", data, settings.root, log)
        scored = _job("score", data, settings.root, log, "--set", to_score[0], "--set", to_score[1])
    except JobFailed as failure:
        typer.echo(f"\n{failure}", err=True)
        return failure.status
    typer.echo("\n".join(_summary(settings, data, prepared, trained, scored, time.monotonic() - started, log)))
    return 0


def _raw_data(root: str, made_up: Path) -> str:
    """Return the folder whose adult/ holds the raw files, and print which it is; without fetched files, make some up."""
    adult = storage.join(storage.absolute(root), "adult")
    if storage.exists(adult):
        typer.echo(f"data: the census files in {_shown(adult)}")
        return storage.absolute(root)
    if not all((made_up / "adult" / name).exists() for name in ("adult.data", "adult.test")):
        census_like.write(made_up)
    typer.echo(
        f"data: {_shown(adult)} is not there, so made-up census-like rows in {_shown(made_up)},\n"
        "      some of them broken on purpose (for the real ones: mlspark fetch adult)"
    )
    return str(made_up)


def _unlabelled(test: str, folder: Path) -> Path:
    """Return a copy of the raw test file without its last field, the label, as rows to be scored are in real life."""
    lines = storage.read_bytes(test).decode().splitlines()
    content = "".join(line.rpartition(",")[0] + "\n" if "," in line else line + "\n" for line in lines)
    copy = folder / "adult.test"
    # Left alone when it is right: a file's time of change is part of what a source's identity is.
    if not copy.exists() or copy.read_text(encoding="utf-8") != content:
        storage.write_bytes(str(copy), content.encode())
    return copy


def _job(name: str, data: str, root: str, log: Path, *arguments: str) -> Report:
    """Return the report of jobs/NAME.py, run by spark-submit; its own lines are shown, everything goes to `log`."""
    report = log.with_name(f"demo-{name}.json")
    report.unlink(missing_ok=True)
    command = [
        str(Path(sys.executable).with_name("spark-submit")),
        f"jobs/{name}.py", "--config", CONFIG, "--report", str(report), *arguments,
    ]  # fmt: skip
    environment = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        **{key: value for key, value in os.environ.items() if key != "SPARK_HOME"},  # this environment's Spark
        "SPARK_CONF_DIR": str(Path("conf").absolute()),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "MLSPARK_DATA": data,
        "MLSPARK_HOME": root,
    }
    typer.secho(f"\n{name}", bold=True)
    # What the job says, spark-submit puts on standard output; its own standard error has what went wrong before that.
    said_nothing = True
    with (
        open(log, "a", encoding="utf-8") as out,
        subprocess.Popen(  # noqa: S603 (our own files)
            command, env=environment, stdout=subprocess.PIPE, stderr=out, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            said_nothing = False
            typer.echo(f"  {line}", nl=False)
            typer.echo(line, file=out, nl=False)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:] if said_nothing else []
        end = f"{name} ended with status {process.returncode}; everything it said: {_shown(log)}"
        raise JobFailed(process.returncode, "\n".join([*lines, end]))
    return dict(json.loads(report.read_text(encoding="utf-8")))


def _summary(
    settings: Settings, data: str, prepared: Report, trained: Report, scored: Report, seconds: float, log: Path
) -> list[str]:
    """Return the lines that end the demo."""
    test = trained["metrics"]["test"]
    steps_per_second = trained["steps"] / trained["train_seconds"]
    facts = [
        ("raw rows", f"{prepared['rows_read']:,} read from {_shown(storage.join(data, 'adult'))}"),
        ("", f"{prepared['rows_good']:,} good, {prepared['rows_quarantined']:,} quarantined"),
        *(("", f"  {count:>6,}  {reason}") for reason, count in prepared["reasons"].items()),
        ("features", f"version {prepared['version']} of {_shown(prepared['table'])}"),
        ("training", f"{trained['world_size']} workers, {trained['steps']:,} steps, "
                     f"{steps_per_second:,.0f} steps and {trained['rows_per_second']:,} rows a second"),
        ("test", f"accuracy {_with_interval(test, 'accuracy')}"),
        ("", f"ROC AUC  {_with_interval(test, 'roc_auc')}"),
        ("", f"on {test['num_rows']:,} rows that training never saw; in brackets the 95 % interval"),
        ("model", f"{trained['model_name']}, version {trained['model_version']}, alias {trained['alias'] or 'none'}"),
        ("scores", f"{scored['rows_scored']:,} rows ({scored['rows_quarantined']:,} quarantined), "
                   f"version {scored['output_version']} of {_shown(scored['output'])}"),
        ("log", _shown(log)),
        ("took", f"{seconds:.0f} s"),
    ]  # fmt: skip
    rule = "-" * 78
    mlflow = _shown(Path(sys.executable).with_name("mlflow"))
    server = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    opening = (
        credentials.masked(server)
        or f"{mlflow} ui --host 127.0.0.1 --backend-store-uri {runs.embedded_uri(settings.root)}"
    )
    return [
        "",
        typer.style("From raw rows to scores", bold=True),
        rule,
        *(f"{typer.style(f'{name:<10}', dim=True)}{fact}" for name, fact in facts),
        rule,
        "The run, its curves and the model in MLflow:",
        f"  {opening}",
    ]


def _with_interval(metrics: Mapping[str, Any], name: str) -> str:
    if metrics[name] is None:
        return "not defined (one class only)"
    low, high = metrics[f"{name}_interval"]
    return f"{metrics[name]:.4f}  [{low:.4f}, {high:.4f}]"


def _shown(path: str | Path) -> str:
    """Return `path` from here on when it is below this folder."""
    text = str(path)
    return os.path.relpath(text) if Path(text).is_relative_to(Path.cwd()) else text

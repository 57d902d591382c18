"""`mlspark demo`: `mlspark run` on census rows or pictures, and a summary."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mlspark import credentials, storage
from mlspark.commands import options
from mlspark.datasets import census_like, pictures_like
from mlspark.errors import ConfigError
from mlspark.queue.submission import ALL_STAGES
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.tracking.embedded import embedded_uri

app = options.app()

TAIL_LINES = 15

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Demo:
    """What a demo shows."""

    config: str
    title: str
    folder: str
    """Folder of the raw data, below sources.root."""
    files: tuple[str, ...]
    """What stands in it when the data is there."""
    make_up: Callable[[Path], object]
    """Function that makes such data up below a folder."""
    found: str
    made_up: str
    """What is said of the data."""
    metrics: Mapping[str, str]
    """Metric of the test rows -> its name in the summary."""
    in_profile: str = ""
    """What a profile's page has besides columns, for the summary."""


DEMOS = {
    "census": Demo(
        config="conf/census.yaml",
        title="From raw rows to scores",
        folder="adult",
        files=("adult.data", "adult.test"),
        make_up=census_like.write,
        found="the census files",
        made_up="made-up census-like rows in {},\n"
        "      some of them broken on purpose (for the real ones: mlspark fetch adult)",
        metrics={"accuracy": "accuracy", "roc_auc": "ROC AUC "},
    ),
    "pictures": Demo(
        config="conf/pictures.yaml",
        title="From pictures to scores",
        folder="pictures",
        files=("train.zip", "test"),
        make_up=pictures_like.write,
        found="the pictures",
        made_up="made-up pictures of four shapes in {},\n"
        "      some of them broken on purpose (for real ones: mlspark fetch mnist, conf/mnist.yaml)",
        metrics={"accuracy": "accuracy"},
        in_profile=", with samples of the pictures and those refused",
    ),
}


class JobFailed(Exception):
    """The stages ended with another status than 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@app.command()
def demo(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Data to run on: {', '.join(DEMOS)}.")] = "census",
) -> None:
    """Run prepare, train, promote and score on census rows or pictures and sum it up; from the repository's folder."""
    if name not in DEMOS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(DEMOS)}", param_hint="NAME")
    raise typer.Exit(run(DEMOS[name]))


def run(shown: Demo) -> int:
    """Return the exit status: 0, or that of the stage that failed.

    Raises:
        ConfigError: this is not the repository's folder, or a setting is wrong.
    """
    for file in (shown.config, "conf/spark-defaults.conf"):
        if not Path(file).exists():
            raise ConfigError(f"{file} not found in {Path.cwd()}; run the demo in the repository's folder")
    started = time.monotonic()
    settings = loading.load([shown.config])
    folder = Path(storage.local_path(settings.root) if storage.is_local(settings.root) else ".mlspark").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = _raw_data(shown, settings.sources.root, folder / "demo-data")
    to_score: list[str] = []
    if shown.folder == "adult":
        unlabelled = _unlabelled(storage.join(data, "adult", "adult.test"), folder / "demo-data" / "unlabelled")
        path = f"scoring.source.path={json.dumps(str(unlabelled))}"
        to_score = ["--set", path, "--set", "scoring.source.has_label=false"]
    log = folder / "demo.log"
    log.write_text("", encoding="utf-8")
    try:
        reports = _jobs(shown.config, data, settings.root, log, *to_score)
    except JobFailed as failure:
        typer.echo(f"\n{failure}", err=True)
        return failure.status
    typer.echo("\n".join(_summary(shown, settings, data, reports, time.monotonic() - started, log)))
    return 0


def _raw_data(shown: Demo, root: str, made_up: Path) -> str:
    """Return the folder that holds the raw files, and print which it is; where there are none, make some up."""
    place = storage.join(storage.absolute(root), shown.folder)
    if storage.exists(place):
        typer.echo(f"data: {shown.found} in {_shown(place)}")
        return storage.absolute(root)
    if not all((made_up / shown.folder / name).exists() for name in shown.files):
        shown.make_up(made_up)
    typer.echo(f"data: {_shown(place)} is not there, so {shown.made_up.format(_shown(made_up))}")
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


def _jobs(config: str, data: str, root: str, log: Path, *arguments: str) -> tuple[Report, ...]:
    """Return the reports of the stages, run in one session; their own lines are shown, everything goes to `log`."""
    reports = log.with_name("demo-reports")
    shutil.rmtree(reports, ignore_errors=True)
    program = [sys.executable, "-c", "from mlspark.commands.main import main; main()"]
    command = [*program, "run", f"{config}:{','.join(ALL_STAGES)}", "--reports", str(reports), *arguments]
    environment = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        **{key: value for key, value in os.environ.items() if key != "SPARK_HOME"},  # this environment's Spark
        "SPARK_CONF_DIR": str(Path("conf").absolute()),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "MLSPARK_DATA": data,
        "MLSPARK_HOME": root,
    }
    # What the stages say is on standard output; standard error has what went wrong.
    stage = "run"
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        open(log, "a", encoding="utf-8") as out,
        subprocess.Popen(  # noqa: S603 (our own files)
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() in ALL_STAGES:
                stage = line.strip()
                typer.secho(f"\n{stage}", bold=True)
            else:
                typer.echo(f"  {line}", nl=False)
            typer.echo(line, file=out, nl=False)
            out.flush()
        process.wait()
        errors.seek(0)
        lines = errors.read().splitlines()
        typer.echo("\n".join(lines), file=out)
    if process.returncode:
        end = f"{stage} ended with status {process.returncode}; everything it said: {_shown(log)}"
        raise JobFailed(process.returncode, "\n".join([*lines[-TAIL_LINES:], end]))
    return tuple(dict(json.loads((reports / f"{name}.json").read_text(encoding="utf-8"))) for name in ALL_STAGES)


def _summary(
    shown: Demo, settings: Settings, data: str, reports: tuple[Report, ...], seconds: float, log: Path
) -> list[str]:
    """Return the lines that end the demo."""
    prepared, trained, promoted, scored = reports
    test = trained["metrics"]["test"]
    steps_per_second = trained["steps"] / trained["train_seconds"]
    facts = [
        ("raw rows", f"{prepared['rows_read']:,} read from {_shown(storage.join(data, shown.folder))}"),
        ("", f"{prepared['rows_good']:,} good, {prepared['rows_quarantined']:,} quarantined"),
        *(("", f"  {count:>6,}  {reason}") for reason, count in prepared["reasons"].items()),
        ("features", f"version {prepared['version']} of {_shown(prepared['table'])}"),
        ("training", f"{trained['world_size']} workers, {trained['steps']:,} steps, "
                     f"{steps_per_second:,.0f} steps and {trained['rows_per_second']:,} rows a second"),
        *((fact, f"{words} {_with_interval(test, name)}")
          for fact, (name, words) in zip(("test", ""), shown.metrics.items(), strict=False)),
        ("", f"on {test['num_rows']:,} rows that training never saw; in brackets the 95 % interval"),
        ("model", f"{trained['model_name']}, version {trained['model_version']}, alias {trained['alias'] or 'none'}"),
        ("champion", f"version {scored['model_version']} is in use, " + _promotion(promoted)),
        ("scores", f"{scored['rows_scored']:,} rows ({scored['rows_quarantined']:,} quarantined), "
                   f"version {scored['output_version']} of {_shown(scored['output'])}"),
        ("log", _shown(log)),
        ("took", f"{seconds:.0f} s"),
    ]  # fmt: skip
    rule = "-" * 78
    mlflow, mlspark = (_shown(Path(sys.executable).with_name(name)) for name in ("mlflow", "mlspark"))
    server = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    opening = (
        credentials.masked(server) or f"{mlflow} ui --host 127.0.0.1 --backend-store-uri {embedded_uri(settings.root)}"
    )
    return [
        "",
        typer.style(shown.title, bold=True),
        rule,
        *(f"{typer.style(f'{name:<10}', dim=True)}{fact}" for name, fact in facts),
        rule,
        "The run, its curves and the model in MLflow:",
        f"  {opening}",
        f"What the good rows hold{shown.in_profile}, as a page:",
        f"  {mlspark} profile --config {shown.config} --html {_shown(log.with_name('profile.html'))}",
    ]


def _promotion(report: Report) -> str:
    """Return in words what was decided of the trained version."""
    if report["verdict"] in ("in_use", "disabled"):
        return "as before"
    return f"version {report['version']} was {report['verdict'].replace('_', ' ')}: {'; '.join(report['reasons'])}"


def _with_interval(metrics: Mapping[str, Any], name: str) -> str:
    if metrics[name] is None:
        return "not defined (one class only)"
    low, high = metrics[f"{name}_interval"]
    return f"{metrics[name]:.4f}  [{low:.4f}, {high:.4f}]"


def _shown(path: str | Path) -> str:
    """Return `path` from here on when it is below this folder."""
    text = str(path)
    return os.path.relpath(text) if Path(text).is_relative_to(Path.cwd()) else text

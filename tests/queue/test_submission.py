"""What a job is made from, and when two are the same."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlspark.errors import ConfigError
from mlspark.queue import submission, targets
from mlspark.queue.job import Limits, Submission
from mlspark.queue.targets import Place

from ..conftest import imported_by

PIPELINE = """\
name: fake
contract: contract.json
sources:
  root: data
  learn: {kind: csv, path: learn.csv}
scoring:
  source: {kind: csv, path: new}
cost: {tier: small, machines: machines.yaml, count: 2}
"""
MACHINES = "currency: EUR\ntiers:\n  small: {cores: 2, price_per_hour: 3.6, source: here, date: '2026-11-28'}\n"
SPARK_SUBMIT = str(Path(sys.executable).with_name("spark-submit"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a pipeline with its data, and programs called as those of jobs/."""
    for name in ("jobs", "data/new", "conf"):
        (tmp_path / name).mkdir(parents=True)
    for stage in targets.STAGES:
        (tmp_path / "jobs" / f"{stage}.py").touch()
    files = {"p.yaml": PIPELINE, "machines.yaml": MACHINES, "contract.json": "{}", "data/learn.csv": "1\n",
             "data/new/1.csv": "2\n", "conf/spark-defaults.conf": ""}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    for name in submission.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def make(pipeline: str = "p.yaml", target: str = "local", place: Place | None = None, *, limits: Limits | None = None,
         budget: float | None = None, overrides: tuple[str, ...] = ()) -> Submission:  # fmt: skip
    return submission.make(
        pipeline, target, place or Place(), limits=limits or Limits(), budget=budget, overrides=overrides
    )


def commands(made: Submission) -> list[list[str]]:
    return [list(stage.command) for stage in made.stages]


@pytest.mark.parametrize(
    ("target", "place", "expected"),
    [
        ("local", Place(), []),
        ("local", Place(master="local[4]"), ["--master", "local[4]"]),
        ("standalone", Place(master="spark://host-1:7077"), ["--master", "spark://host-1:7077"]),
        ("yarn", Place(confs=("spark.yarn.queue=a b",)),
         ["--master", "yarn", "--deploy-mode", "client", "--conf", "spark.yarn.queue=a b"]),
        ("kubernetes", Place("k8s://https://k8s.example:6443", "registry/mlspark:1", "ml"),
         ["--master", "k8s://https://k8s.example:6443", "--deploy-mode", "client", "--conf",
          "spark.kubernetes.container.image=registry/mlspark:1", "--conf", "spark.kubernetes.namespace=ml"]),
    ],
)  # fmt: skip
def test_command_line_of_each_target(target: str, place: Place, expected: list[str]) -> None:
    made = make("p.yaml:prepare,train", target, place)
    assert commands(made) == [[SPARK_SUBMIT, *expected, f"jobs/{name}.py"] for name in ("prepare", "train")]


@pytest.mark.parametrize(
    ("target", "place", "message"),
    [
        ("cloud", Place(), r"--target cloud: must be one of local, standalone, yarn, kubernetes, kubeflow"),
        ("local", Place(image="x"), r"--image: means nothing to --target local; leave it out"),
        ("local", Place(master="spark://a:1"), r"--target local expects the form local\[4\]"),
        ("standalone", Place(), r"--target standalone: give --master, of the form spark://HOST:7077"),
        ("standalone", Place(master="spark://u:pw@h"), r"--master spark://h: --target standalone expects the form"),
        ("yarn", Place(master="yarn"), r"--master: means nothing to --target yarn"),
        ("kubernetes", Place(master="k8s://https://h:1"), r"--target kubernetes: give --image"),
        ("kubeflow", Place("k8s://https://h:1"), r"--master: means nothing to --target kubeflow"),
        ("local", Place(confs=("memory=1",)), r"--conf memory: expected spark.NAME=VALUE"),
        ("local", Place(confs=("spark.x.password=hunter2x",)), r"looks like a secret \(spark.x.password=...\)"),
    ],
)
def test_wrong_targets_are_refused(target: str, place: Place, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(target=target, place=place)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("none.yaml", r"none.yaml: cannot be read"),
        ("p.yaml:train,prepare", r"stages in another order, or twice; they run as prepare,train,promote,score,monitor"),
        ("p.yaml:tune", r"'tune' is no stage; after the colon: prepare,train,promote,score,monitor, or some"),
        ("machines.yaml", r"machines.yaml: name: expected the pipeline's name, like census"),
    ],
)
def test_wrong_pipelines_are_refused(pipeline: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(pipeline)


def test_kubeflow_runs_its_pipeline_where_there_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLSPARK_KUBEFLOW", raising=False)
    with pytest.raises(
        ConfigError, match=r"MLSPARK_KUBEFLOW is not set; give it .* mlspark kubeflow run runs the same"
    ):
        make("p.yaml:prepare,train,promote", "kubeflow")
    monkeypatch.setenv("MLSPARK_KUBEFLOW", "https://ml.example/pipeline")
    expected = ["kubeflow", "run", "--endpoint", "https://ml.example/pipeline", "--image", "registry/mlspark:1"]
    for names, also in (
        ("prepare,train,promote,score", []),
        ("prepare,train,promote", ["--set", "scoring.source=null"]),
    ):
        [command] = commands(make(f"p.yaml:{names}", "kubeflow", Place(image="registry/mlspark:1")))
        assert command == [str(Path(SPARK_SUBMIT).with_name("mlspark")), *expected, *also]
    with pytest.raises(ConfigError, match=r"pipeline is prepare,train,promote,score, .* with or without promote,train"):
        make("p.yaml:prepare", "kubeflow")
    with pytest.raises(ConfigError, match=r"with or without monitor"):
        make("p.yaml:prepare,train,promote,score,monitor", "kubeflow")


def test_stages_unless_they_are_named() -> None:
    assert [stage.name for stage in make().stages] == ["prepare", "train", "promote", "score"]
    without = make(overrides=("scoring.source=null",))
    assert [stage.name for stage in without.stages] == ["prepare", "train", "promote"]


def test_the_same_inputs_are_the_same_job(folder: Path) -> None:
    first = make()
    assert make() == first
    assert first.is_seen
    # Limits are no part of what a job does.
    assert make(limits=Limits(retries=7)).identity == first.identity
    others = [make("p.yaml:prepare"), make(overrides=("training.epochs=3",)), make(place=Place(master="local[1]"))]
    for file in ("data/learn.csv", "data/new/2.csv", "contract.json"):
        (folder / file).write_text('{"longer": 1}')
        others.append(make())
    assert len({first.identity, *(each.identity for each in others)}) == 7


def test_what_cannot_be_seen_is_known_to_be_unseen(folder: Path) -> None:
    assert not make(overrides=("sources.learn.path=s3://bucket/learn.csv",)).is_seen
    assert not make(overrides=("sources.learn={kind: jdbc, url: jdbc:x, query: q}",)).is_seen
    assert not make("p.yaml:score").is_seen  # by which version, the registry knows
    before = make("p.yaml:train")
    assert before.is_seen
    log = folder / ".mlspark" / "tables" / "fake_features" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").touch()
    assert make("p.yaml:train").identity != before.identity


def test_settings_are_those_of_the_moment_of_submission(folder: Path) -> None:
    made = make(overrides=("training.epochs=3",))
    (folder / "p.yaml").write_text("name: other\n")
    (folder / "kept.yaml").write_text(made.settings)
    assert make("kept.yaml").settings == made.settings
    assert "epochs: 3" in made.settings


def test_environment_is_kept_without_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSPARK_HOME", "home")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    made = make()
    assert made.environment["MLSPARK_HOME"] == "home"
    assert made.environment["SPARK_CONF_DIR"] == str(folder / "conf")
    assert made.environment["MLSPARK_DATA"] is None
    assert "hidden" not in repr(made)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:mine@mlflow.example")
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI: holds what looks like a secret"):
        make()


def test_budget_is_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 machines at 3.60 an hour: 0.002 a second.
    made = make(budget=1.0)
    assert made.limits.seconds == pytest.approx(500.0)
    assert made.limits.why == "budget of 1 EUR"
    shorter = Limits(seconds=60.0, why="time limit of 60s")
    assert make(budget=1.0, limits=shorter).limits == shorter
    assert replace(make(budget=0.1, limits=shorter).limits, seconds=0.0).why == "budget of 0.1 EUR"
    with pytest.raises(ConfigError, match=r"--budget: needs cost.tier"):
        make(budget=1.0, overrides=("cost=null",))
    with pytest.raises(ConfigError, match=r"cost.tier=large: not in machines.yaml"):
        make(budget=1.0, overrides=("cost.tier=large",))


def test_submitting_imports_nothing_that_takes_seconds() -> None:
    commands = (f"mlspark.commands.{name}" for name in ("cancel", "jobs", "logs", "retry", "submit", "wait"))
    imported = imported_by(*commands, "mlspark.queue.worker")
    assert not {"pyspark", "torch", "mlflow", "pyarrow", "pandas", "scipy"} & imported

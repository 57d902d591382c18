"""`mlspark new`: the files of a project, what is refused; whole projects, with their `make demo`, tests and notebook."""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn
from sklearn import datasets
from typer.testing import CliRunner

from mlspark.commands import new as command
from mlspark.datasets import census_like
from mlspark.errors import ConfigError, SourceError
from mlspark.projects import files
from mlspark.settings import loading
from mlspark.stages.check import check_prepare, check_score

from ..conftest import ROOT

SHIPPED = Path(sklearn.__file__).parent / "datasets" / "data"
IRIS = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]


def new(folder: Path, name: str, file: Path, label: str, *options: str) -> str:
    """Return what the command prints. Raises what it raises."""
    arguments = [str(folder / name), "--csv", str(file), "--label", label, *options]
    return CliRunner().invoke(command.app, arguments, catch_exceptions=False).stdout


def test_a_project_is_whole_and_its_settings_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's own file: no header, and a first line that says how many rows and classes there are."""
    file = SHIPPED / "iris.csv"
    with pytest.raises(
        SourceError, match="first line has the number 150, so it is no header; name the columns: --colu"
    ):
        new(tmp_path, "iris", file, "species")
    assert list(tmp_path.iterdir()) == []
    done = new(tmp_path, "iris", file, "species", "--columns", ",".join(IRIS))
    assert "all 151 rows, 1 to be quarantined" in done
    assert "task: multiclass, as species has the 3 values 0, 1, 2" in done
    project = tmp_path / "iris"
    written = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert written == {
        ".github/workflows/ci.yml", ".gitignore", "Makefile", "README.md", "conf/pipeline.yaml", "data/iris.csv",
        "jobs/prepare.py", "jobs/promote.py", "jobs/score.py", "jobs/train.py", "notebooks/look.py",
        "schemas/contract.json", "tests/test_pipeline.py",
    }  # fmt: skip
    assert (project / "data" / "iris.csv").read_bytes() == file.read_bytes()
    assert "data/" in (project / ".gitignore").read_text().splitlines()
    for source in project.rglob("*.py"):
        compile(source.read_text(), str(source), "exec")
    assert json.loads((project / "schemas" / "contract.json").read_text())["label"] == "species"
    monkeypatch.chdir(project)
    settings = loading.load(["conf/pipeline.yaml"])
    assert len(check_prepare(settings).columns) == 5
    check_score(settings)
    with pytest.raises(ConfigError, match="iris: exists already; give another name, or remove it"):
        new(tmp_path, "iris", file, "species", "--columns", ",".join(IRIS))


def test_a_name_that_no_pipeline_can_have_is_refused_with_one_that_it_can(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"My Churn: not a name of a pipeline.*for example my_churn"):
        new(tmp_path, "My Churn", SHIPPED / "iris.csv", "x")


def test_a_compressed_file_with_tabs_and_odd_headers_is_read_where_it_is_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "is rich?\tpay/hour\tland",
        *(f"{'yes' if row % 3 else 'no'}\t{row}.5\t{'AB'[row % 2]}" for row in range(80)),
    ]
    (tmp_path / "raw").mkdir()
    file = tmp_path / "raw" / "people.tsv.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setattr(files, "MOST_COPIED_BYTES", 10)
    said = new(tmp_path, "people", file, "is rich?")
    assert "task: binary, as is rich? has the 2 values no, yes; predicted is the probability of yes" in said
    project = tmp_path / "people"
    assert list((project / "data").iterdir()) == []
    assert "`../raw/people.tsv.gz` is larger than 100 MB" in (project / "README.md").read_text()
    tests = (project / "tests" / "test_pipeline.py").read_text()
    assert "import gzip" in tests
    compile(tests, "test_pipeline.py", "exec")
    monkeypatch.chdir(project)
    settings = loading.load(["conf/pipeline.yaml"])
    source = settings.sources.rows["learn"]
    assert source.model_dump(include={"path", "separator"}) == {"path": "../../raw/people.tsv.gz", "separator": "\t"}
    assert (check_prepare(settings).label, settings.task.target) == ("is_rich", "is_rich")
    file.unlink()
    with pytest.raises(SourceError, match=r"people\.tsv\.gz"):
        check_prepare(settings)


def iris(folder: Path) -> tuple[Path, str, list[str]]:
    return SHIPPED / "iris.csv", "species", IRIS


def breast_cancer(folder: Path) -> tuple[Path, str, list[str]]:
    return SHIPPED / "breast_cancer.csv", "benign", [*map(str, datasets.load_breast_cancer().feature_names), "benign"]


def diabetes(folder: Path) -> tuple[Path, str, list[str]]:
    """The file that pandas writes of scikit-learn's, whose own have the target apart."""
    datasets.load_diabetes(as_frame=True, scaled=False).frame.to_csv(folder / "diabetes.csv", index=False)
    return folder / "diabetes.csv", "target", []


def census(folder: Path) -> tuple[Path, str, list[str]]:
    """Dirty: texts among numbers, labels that are none, fields too few and too many, "?" for what is missing."""
    census_like.write(folder, num_train=1500, num_test=100, seed=1, bad_rows=40)
    contract = json.loads((ROOT / "schemas" / "census.json").read_text())
    names = [column["name"] for column in contract["columns"]]
    lines = (folder / "adult" / "adult.data").read_text()
    (folder / "census.csv").write_text(",".join(names) + "\n" + lines)
    return folder / "census.csv", "income", []


@pytest.mark.slow
@pytest.mark.parametrize("data", [iris, breast_cancer, diabetes, census], ids=lambda data: data.__name__)
def test_demo_tests_and_notebook_of_a_new_project_pass(tmp_path: Path, data: object) -> None:
    assert callable(data)
    file, label, columns = data(tmp_path)
    names = ["--columns", ",".join(columns)] if columns else []
    made = new(tmp_path, "mine", file, label, *names)
    project = tmp_path / "mine"
    left_out = ("SPARK_HOME", "SPARK_CONF_DIR", "MLFLOW_TRACKING_URI", "MLSPARK_DATA", "MLSPARK_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    for step in (
        ["make", "demo", f"PYTHON={sys.executable}"],
        ["make", "test", f"PYTHON={sys.executable}"],
        [sys.executable, "notebooks/look.py"],
    ):
        done = subprocess.run(
            step, cwd=project, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{step}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    prepared, scored = (json.loads((project / "reports" / f"{job}.json").read_text()) for job in ("prepare", "score"))
    with open(file) as lines:
        num_lines = sum(1 for fields in csv.reader(lines) if fields) - (not columns)
    assert prepared["rows_read"] == scored["rows_read"] == num_lines
    assert f"{prepared['rows_quarantined']:,} to be quarantined" in made

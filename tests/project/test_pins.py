"""pyproject.toml and constraints.txt say the same, the import contracts hold, and serving needs what it declares."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]] + [
    each for all_ in EXTRAS.values() for each in all_
]
PINS = (ROOT / "constraints.txt").read_text().splitlines()
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.]*)( ; (?P<marker>.+))?")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_hold_names_versions_and_markers_only() -> None:
    for line in PINS:
        pin = PIN.fullmatch(line)
        assert pin, line
        assert pin["marker"] is None or Marker(pin["marker"])
    assert sorted(PINS, key=lambda line: line.split("==")[0]) == PINS


def test_every_requirement_is_pinned_within_its_range() -> None:
    pins = [PIN.fullmatch(line) for line in PINS]
    versions: dict[str, list[Version]] = {}
    for pin in pins:
        assert pin
        versions.setdefault(pin["name"], []).append(Version(pin["version"]))
    for requirement in REQUIREMENTS:
        if requirement.name != PROJECT["name"]:
            assert all(map(requirement.specifier.contains, versions[normal(requirement.name)])), requirement
    assert "uv" in versions  # scripts/setup.sh fetches it


def test_dev_has_every_extra_and_serving_neither_spark_nor_petastorm() -> None:
    [whole] = [requirement for requirement in EXTRAS["dev"] if requirement.name == PROJECT["name"]]
    assert whole.extras == EXTRAS.keys() - {"dev"}
    assert whole.extras == {
        "docs",
        "engines",
        "kubeflow",
        "pictures",
        "rest",
        "serve",
        "server",
        "spark",
        "train",
        "tune",
    }
    serving = {normal(requirement.name) for requirement in EXTRAS["serve"]}
    assert serving.isdisjoint({"pyspark", "delta-spark", "deltalake", "petastorm"})


def test_delta_jar_is_that_of_the_pinned_packages() -> None:
    pins = {line.split("==")[0]: line.split("==")[1] for line in PINS if " ; " not in line}
    spark = ".".join(pins["pyspark"].split(".")[:2])
    jar = f"io.delta:delta-spark_{spark}_2.13:{pins['delta-spark']}"
    settings = (ROOT / "conf" / "spark-defaults.conf").read_text()
    assert re.findall(r"^spark\.jars\.packages +(\S+)$", settings, re.M) == [jar]


def test_imports_point_one_way_only() -> None:
    # In a process of its own: it sets up logging anew, and no logger of this one would speak again.
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


def test_tests_of_a_group_run_in_one_process_each(tmp_path: Path) -> None:
    """What `make test` relies on: pytest-xdist ignores the groups, silently, under a pytest that it does not know."""
    (tmp_path / "test_groups.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('group, number', [\n"
        "    pytest.param(group, number, marks=pytest.mark.xdist_group(group)) for number in range(3) for group in 'ab'\n"
        "])\n"
        "def test_of(group, number, record_property):\n"
        "    record_property(group, os.environ['PYTEST_XDIST_WORKER'])\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "--junitxml", "report.xml", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = set(re.findall(r'<property name="(.)" value="(.+?)"', (tmp_path / "report.xml").read_text()))
    assert sorted(group for group, _ in runs) == ["a", "b"]


# What a machine that only scores imports, and what it does without: the packages of the other extras.
SERVING = (
    "mlspark.scoring.predictor",
    "mlspark.scoring.mlflow_model",
    "mlspark.registry.package",
    "mlspark.engines.engine",
)
ABSENT = (
    "delta", "deltalake", "dill", "hdfs_native", "matplotlib", "optuna", "petastorm", "pkg_resources", "pooch",
    "psutil", "py4j", "pyspark",
)  # fmt: skip


@pytest.mark.parametrize("module", SERVING)
def test_serving_imports_nothing_of_the_other_extras(module: str) -> None:
    # A process of its own, in which these packages cannot be imported.
    text = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

"""pyproject.toml and constraints.txt say the same, and the import contracts hold."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]
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
    versions = {pin["name"]: Version(pin["version"]) for pin in pins if pin and pin["marker"] is None}
    for requirement in REQUIREMENTS:
        assert requirement.specifier.contains(versions[normal(requirement.name)]), requirement


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

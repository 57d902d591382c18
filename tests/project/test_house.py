"""What keeps the house readable: short modules and functions, and words that stand in one room only."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "mlspark").rglob("*.py"))
MOST_LINES_OF_A_MODULE, MOST_LINES_OF_A_FUNCTION = 400, 60


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_modules_and_functions_are_short(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_MODULE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        > MOST_LINES_OF_A_FUNCTION
    }
    assert not long, f"functions over {MOST_LINES_OF_A_FUNCTION} lines, docstring aside: {long}"


def test_few_look_at_a_clock_that_may_be_set() -> None:
    """Who waits or takes another one for dead goes by `time.monotonic`; these say when something was, or how old it is."""
    allowed = {
        "commands/schedule.py",  # from when on jobs are due
        "contracts/accounting.py",  # freshness
        "queue/database.py",  # when jobs were submitted and ended
        "queue/worker.py",  # when scheduled jobs are due
        "registry/versions.py",  # of figures
        "scoring/rest/prediction_log.py",  # when rows were answered
        "sources/file_states.py",  # files of this very second
        "stages/promote.py",  # of a decision
        "streaming/disk_cache.py",  # what killed processes left
        "tracking/figures.py",
        "training/progress_display.py",
        "training/rank.py",  # of its error
    }
    clock = re.compile(r"\btime\.time(_ns)?\(|\.(now|utcnow|today)\(")
    found = {str(module.relative_to(ROOT / "mlspark")) for module in MODULES if clock.search(module.read_text())}
    assert found == allowed


def test_only_tasks_know_which_class_is_which() -> None:
    allowed = [ROOT / "mlspark" / "tasks", ROOT / "mlspark" / "features" / "kinds" / "target.py"]
    hits = [
        f"{module.relative_to(ROOT)}:{number}: {line.strip()}"
        for module in MODULES
        if not any(module.is_relative_to(place) for place in allowed)
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if re.search("positive|negative", line)
    ]
    assert not hits, "\n".join(hits)

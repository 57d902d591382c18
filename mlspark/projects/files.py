"""The files of a project. Driver of a person's own machine; needs no Spark."""

import copy
import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlspark.contracts import infer
from mlspark.errors import ConfigError, one_line
from mlspark.projects.csv_rows import CsvRows
from mlspark.projects.draft import Draft
from mlspark.settings import yaml_file

MOST_COPIED_BYTES = 100 * 2**20
"""A larger file stays where it is."""
NAME = re.compile(r"[a-z][a-z0-9_-]*")

_TEMPLATES = {
    "README.md": "README.md.jinja",
    "Makefile": "Makefile.jinja",
    ".gitignore": "gitignore.jinja",
    "tests/test_pipeline.py": "tests/test_pipeline.py.jinja",
    "notebooks/look.py": "notebooks/look.py.jinja",
    ".github/workflows/ci.yml": "github/ci.yml.jinja",
}
_JOBS = {
    "prepare": "Raw rows to a feature table; bad rows go to the quarantine with their reasons",
    "train": "The newest feature table to a registered version",
    "score": "Raw rows and the version in use to scores",
    "promote": "The newest version takes the place of the one in use, or not",
}
_MOST_BATCH, _LEAST_BATCH = 512, 16


def check_place(folder: Path) -> None:
    """Refuse a place that cannot become a project.

    Raises:
        ConfigError: its name cannot be a pipeline's, or something stands there.
    """
    if not NAME.fullmatch(folder.name):
        plain = re.sub(r"[^a-z0-9_-]+", "_", folder.name.lower()).strip("_-0123456789") or "churn"
        raise ConfigError(
            f"{folder.name}: not a name of a pipeline, which are small letters, digits, _ and -, a letter first; "
            f"for example {plain}"
        )
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; give another name, or remove it")


def write(folder: Path, rows: CsvRows, draft: Draft) -> list[str]:
    """Write the project and return its files, relative to `folder`; nothing is left where that fails.

    Args:
        folder: of the project, see `check_place`.
        rows: of the CSV file.
        draft: what is drafted from them.

    Raises:
        ConfigError: the folder cannot be written.
    """
    check_place(folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        data = _data(folder.absolute(), rows.path.absolute())
        for name, content in _contents(folder.name, rows, draft, data).items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_text(content, encoding="utf-8")
        (beside / "data").mkdir()
        if not data.startswith(".."):
            shutil.copyfile(rows.path, beside / "data" / data)
        beside.rename(folder)
    except OSError as error:
        problem = error.strerror or one_line(str(error))
        raise ConfigError(f"{folder}: cannot be written ({problem}); give a place that is yours") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _data(folder: Path, file: Path) -> str:
    """Return the file's path relative to the project's folder data."""
    if file.stat().st_size <= MOST_COPIED_BYTES:
        return file.name
    return os.path.relpath(file, folder / "data")


def _contents(name: str, rows: CsvRows, draft: Draft, data: str) -> dict[str, str]:
    """Return file -> its content."""
    values = _values(name, rows, draft, data)
    contents = {file: _render(template, values) for file, template in _TEMPLATES.items()}
    for job, title in _JOBS.items():
        template = "jobs/promote.py.jinja" if job == "promote" else "jobs/job.py.jinja"
        contents[f"jobs/{job}.py"] = _render(template, {"job": job, "title": title})
    contents["schemas/contract.json"] = infer.to_text(draft.contract)
    notes = "".join(f"# {note}\n" for note in draft.notes)
    contents["conf/pipeline.yaml"] = notes + yaml_file.write(pipeline(name, rows, draft, data))
    return contents


def pipeline(name: str, rows: CsvRows, draft: Draft, data: str) -> dict[str, Any]:
    """Return the settings of the pipeline, as `conf/pipeline.yaml` has them."""
    source: dict[str, Any] = {"kind": "csv", "path": data, "header": rows.has_header}
    if rows.separator != ",":
        source["separator"] = rows.separator
    if draft.missing:
        source["missing"] = {column: list(texts) for column, texts in draft.missing.items()}
    num_train = 0.7 * (draft.num_rows - draft.num_bad)
    batch = min(_MOST_BATCH, max(_LEAST_BATCH, 2 ** max(0, int(num_train / 20).bit_length() - 1)))
    return {
        "name": name,
        "contract": "schemas/contract.json",
        "storage": {"root": ".mlspark"},
        "sources": {"root": "data", "learn": source},
        "split": {"validation_share": 0.15, "test_share": 0.15},
        "task": draft.task,
        "features": {"inputs": draft.features},
        "training": {"num_processes": 1, "epochs": 20, "global_batch_size": batch},
        "promotion": {"min_rows": 100 if num_train > 700 else 10},
        "scoring": {"source": copy.deepcopy(source)},  # YAML would write one object twice as an anchor
    }


def _values(name: str, rows: CsvRows, draft: Draft, data: str) -> dict[str, Any]:
    """Return what the templates name."""
    path = os.path.normpath(f"data/{data}")
    label = draft.contract.column(str(draft.contract.label))
    headers = list(rows.columns)
    # Nobody's row: as few fields as no line has, and a line that is empty but for one field.
    place = headers.index(draft.broken[0]) if draft.broken else 0
    broken = [draft.broken[1] if draft.broken and place == number else "" for number in range(len(headers))]
    if not draft.broken:
        broken[0 if headers[0] != label.source_name else 1] = "x"
    arguments = [json.dumps(path)]
    if rows.separator != ",":
        arguments.append(f"sep={json.dumps(rows.separator)}")
    if not rows.has_header:
        arguments.append(f"names={json.dumps(headers, ensure_ascii=False)}")
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in draft.reasons.items())
    reader = "gzip.open(DATA, 'rt'" if rows.path.suffix == ".gz" else "open(DATA"
    return {
        "name": name,
        "label": label.name,
        "label_header": label.source_name,
        "data": path,
        "num_rows": draft.num_rows,
        "num_bad": draft.num_bad,
        "reasons": f" ({reasons})" if reasons else "",
        "notes": draft.notes,
        "is_whole": rows.is_whole,
        "has_header": rows.has_header,
        "dirty": json.dumps(["x", rows.separator.join(broken)]),
        "opener": f'{reader}, encoding="utf-8")',
        "csv_arguments": ", ".join(arguments),
        "elsewhere": f" `{path}` is larger than 100 MB, so it was not copied." if data.startswith("..") else "",
    }


def _render(template: str, values: Mapping[str, Any]) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(  # noqa: S701 (no HTML)
        loader=PackageLoader("mlspark.projects", "template"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

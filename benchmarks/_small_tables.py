"""Tables and pipelines of a few megabytes that `small_jobs.py` works on. The same seed, the same bytes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mlspark.datasets import census_like

_SEED = 20
_CLASSES = ("normal.", "attack.")
_TEXTS = {"protocol": 3, "service": 66, "flag": 11}
_WHOLE = ("duration", "src_bytes", "dst_bytes", *(f"count_{number}" for number in range(20)))
_RATES = tuple(f"rate_{number}" for number in range(15))
CONNECTIONS = (*_TEXTS, *_WHOLE, *_RATES, "label")
"""Columns of the CSV file, the label last: 41 and a label, as KDD Cup 99 has them."""


def write_census(folder: Path, rows: int) -> None:
    """Write a census of `rows` rows below `folder`, a fifth of them to test with, and as many more to be scored."""
    census_like.write(folder, num_train=rows - rows // 5, num_test=rows // 5, bad_rows=rows // 100)
    census_like.write(folder / "fresh", num_train=10, num_test=rows, bad_rows=rows // 100, seed=1)


def write_connections(file: Path, rows: int) -> None:
    """Write connections of a network as CSV without a header: mostly zeros, long tails, rates of two decimals."""
    random = np.random.default_rng(_SEED)
    is_attack = random.random(rows) < 0.4
    columns: dict[str, Any] = {}
    for name, values in _TEXTS.items():
        shares = 1.0 / np.arange(1, values + 1)
        columns[name] = np.char.add(f"{name[:4]}_", random.choice(values, rows, p=shares / shares.sum()).astype(str))
    for place, name in enumerate(_WHOLE):
        tail = np.floor(np.exp(random.normal(2.0 + place % 5, 2.0, rows)) * (1 + is_attack))
        columns[name] = np.where(random.random(rows) < 0.5, 0, tail).astype(np.int64).clip(0, 10**9)
    for name in _RATES:
        columns[name] = np.round(random.beta(0.3 + is_attack, 0.4, rows), 2)
    columns["label"] = np.where(is_attack, _CLASSES[1], _CLASSES[0])
    table = pa.table({name: columns[name] for name in CONNECTIONS})
    pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, quoting_style="none"))


def write_measures(file: Path, rows: int) -> None:
    """Write 30 typed columns as Parquet: 16 doubles, 6 whole numbers, 6 texts, a moment and the label."""
    random = np.random.default_rng(_SEED + 1)
    columns: dict[str, Any] = {}
    for place in range(16):
        values = random.normal(place, 1.0 + place, rows) if place % 2 else random.lognormal(place / 4, 1.5, rows)
        columns[f"x{place}"] = pa.array(values, mask=random.random(rows) < 0.02)
    for place in range(6):
        columns[f"n{place}"] = random.poisson(3 * 4**place, rows).astype(np.int64)
    for place in range(6):
        codes = random.zipf(1.5, rows) % (5 * 3**place)
        columns[f"t{place}"] = pa.array(np.char.add("v", codes.astype(str)), mask=random.random(rows) < 0.01)
    columns["at"] = (
        pa.array(1_700_000_000 + random.integers(0, 30_000_000, rows)).cast(pa.timestamp("s")).cast(pa.timestamp("us"))
    )
    is_event = columns["n0"] + random.normal(0.0, 2.0, rows) > 4
    columns["label"] = np.where(is_event, _CLASSES[1], _CLASSES[0])
    pq.write_table(pa.table(columns), file)


def contract_of_connections() -> dict[str, Any]:
    """Return the contract of the CSV file."""
    columns = [{"name": name, "type": "string", "nullable": False} for name in _TEXTS]
    columns += [{"name": name, "type": "bigint", "nullable": False, "min": 0} for name in _WHOLE]
    columns += [{"name": name, "type": "double", "nullable": False, "min": 0, "max": 1} for name in _RATES]
    return _contract("connections", columns)


def contract_of_measures() -> dict[str, Any]:
    """Return the contract of the Parquet file."""
    types = {"x": "double", "n": "bigint", "t": "string"}
    names = [*(f"x{place}" for place in range(16)), *(f"{kind}{place}" for kind in "nt" for place in range(6))]
    columns: list[dict[str, Any]] = [{"name": name, "type": types[name[0]]} for name in names]
    return _contract("measures", [*columns, {"name": "at", "type": "timestamp"}])


def _contract(name: str, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    label = {"name": "label", "type": "string", "nullable": False, "allowed": list(_CLASSES)}
    return {"name": name, "label": "label", "columns": [*columns, label]}


def features_of_connections() -> list[dict[str, Any]]:
    """Return a feature for each of the 41 columns."""
    return [
        {"kind": "number", "columns": list(_WHOLE), "log1p": True},
        {"kind": "number", "columns": list(_RATES)},
        {"kind": "index", "columns": list(_TEXTS)},
    ]


def features_of_measures() -> list[dict[str, Any]]:
    """Return 13 entries of as many ways to encode a column."""
    return [
        {"kind": "number", "columns": [f"x{place}" for place in range(1, 16, 2)]},
        {"kind": "number", "columns": ["x0", "x2", "x4"], "log1p": True, "impute": "median"},
        {"kind": "number", "columns": ["x6", "x8"], "scale": "robust", "indicator": True},
        {"kind": "number", "columns": ["x10"], "scale": "quantile"},
        {"kind": "number", "columns": ["n0", "n1", "n2"], "scale": "min_max"},
        {"kind": "buckets", "columns": ["x12", "n3"], "quantiles": 10},
        {"kind": "index", "columns": ["t0", "t1", "t2"], "min_count": 5},
        {"kind": "one_hot", "columns": ["t0"], "name": "t0_one_hot"},
        {"kind": "target", "columns": ["t3", "t4"]},
        {"kind": "frequency", "columns": ["t5"]},
        {"kind": "hash", "columns": ["t4", "t5"], "name": "hashed", "buckets": 16},
        {"kind": "cyclic", "columns": ["at"], "parts": ["hour", "day_of_week"]},
        {"kind": "index", "cross": ["t0", "t1"], "name": "t0_t1"},
    ]


def pipeline(
    name: str, source: Mapping[str, Any], features: Sequence[Mapping[str, Any]], *, contract: str, before_tasks: bool
) -> str:
    """Return the settings of a pipeline of one source as JSON, which YAML is too.

    Args:
        name: of the pipeline.
        source: its settings; its rows are learnt from and scored.
        features: `features.inputs`.
        contract: path of the contract.
        before_tasks: as the settings were before there was a section `task`.
    """
    label = {"label": {"column": "label", "positive": [_CLASSES[1]], "negative": [_CLASSES[0]]}}
    task = {"kind": "binary", "target": "label", "classes": list(_CLASSES)}
    settings = {
        "name": name,
        "contract": contract,
        "sources": {"learn": source},
        "split": {"validation_share": 0.1, "test_share": 0.1},
        "features": {"inputs": features, **(label if before_tasks else {})},
        **({} if before_tasks else {"task": task}),
        "scoring": {"source": source},
    }
    return json.dumps(settings, indent=1)

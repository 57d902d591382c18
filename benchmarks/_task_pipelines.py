"""Pipelines of several classes and of a number to predict, on data that scikit-learn ships and on generated houses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn import datasets


@dataclass(frozen=True)
class Pipeline:
    """A data set as a user would have it: a CSV file, a contract, settings."""

    name: str
    rows: pd.DataFrame
    """One of the columns is the target."""
    task: Mapping[str, Any]
    """Section `task`."""
    inputs: tuple[Mapping[str, Any], ...]
    """features.inputs."""
    model: Mapping[str, Any]
    training: Mapping[str, Any]

    def write(self, folder: Path) -> Path:
        """Write CSV, contract and settings into `folder`, and return the settings' file."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_csv(folder / f"{self.name}.csv", index=False)
        contract = {"name": self.name, "label": self.task["target"], "columns": [self._rule(c) for c in self.rows]}
        (folder / f"{self.name}.json").write_text(json.dumps(contract, indent=1) + "\n")
        source = {"kind": "csv", "path": f"{self.name}.csv", "header": True}
        settings = {
            "name": self.name,
            "contract": str(folder / f"{self.name}.json"),
            "sources": {"root": str(folder), "learn": source},
            "split": {"validation_share": 0.15, "test_share": 0.25},
            "task": dict(self.task),
            "features": {"inputs": [dict(entry) for entry in self.inputs]},
            "model": dict(self.model),
            "training": dict(self.training),
            "scoring": {"source": source},
        }
        file = folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(settings, sort_keys=False))
        return file

    def _rule(self, name: str) -> dict[str, Any]:
        kinds = {"i": "bigint", "f": "double", "b": "boolean"}
        rule: dict[str, Any] = {
            "name": name,
            "type": kinds.get(self.rows[name].dtype.kind, "string"),
            "nullable": False,
        }
        classes = self.task.get("classes")
        if name == self.task["target"] and classes and rule["type"] == "string":
            rule["allowed"] = list(classes)
        return rule


def digits() -> Pipeline:
    """1,797 pictures of 8x8 pixels, ten classes that are whole numbers, taken as seen."""
    pixels, classes = datasets.load_digits(return_X_y=True)
    names = [f"pixel_{place}" for place in range(64)]
    rows = pd.DataFrame(pixels.astype(np.int64), columns=names).assign(digit=classes.astype(np.int64))
    return Pipeline(
        "digits", rows, {"kind": "multiclass", "target": "digit"}, ({"kind": "number", "columns": names},),
        {"hidden": [128], "dropout": 0.2, "dense_frequencies": 0},
        {"epochs": 60, "global_batch_size": 64, "optimizer": {"learning_rate": 0.004}},
    )  # fmt: skip


def wine() -> Pipeline:
    """178 wines, 13 measures, three classes that are texts, listed."""
    bunch = datasets.load_wine(as_frame=True)
    names = [name.replace("/", "_per_") for name in bunch.data.columns]
    kinds = np.array(["barolo", "grignolino", "barbera"])
    rows = bunch.data.set_axis(names, axis=1).assign(grape=kinds[bunch.target])
    return Pipeline(
        "wine", rows, {"kind": "multiclass", "target": "grape", "classes": ["barbera", "barolo", "grignolino"]},
        ({"kind": "number", "columns": names},), {"hidden": [32], "dropout": 0.1, "dense_frequencies": 0},
        {"epochs": 60, "global_batch_size": 16, "optimizer": {"learning_rate": 0.004}},
    )  # fmt: skip


def diabetes() -> Pipeline:
    """442 patients, ten measures, how far the illness has come a year later: a number."""
    bunch = datasets.load_diabetes(as_frame=True, scaled=False)
    names = [name for name in bunch.data.columns if name != "sex"]
    rows = bunch.data.assign(sex=bunch.data["sex"].map({1.0: "a", 2.0: "b"}), progression=bunch.target)
    return Pipeline(
        "diabetes", rows, {"kind": "regression", "target": "progression"},
        ({"kind": "number", "columns": names}, {"kind": "index", "columns": ["sex"]}),
        {"hidden": [32], "dropout": 0.1, "dense_frequencies": 0},
        {"epochs": 60, "global_batch_size": 32, "optimizer": {"learning_rate": 0.004}},
    )  # fmt: skip


def houses(num_rows: int = 8000, seed: int = 0) -> Pipeline:
    """Generated districts in the manner of the Californian ones of 1990: prices with a long tail, of eight numbers."""
    random = np.random.default_rng(seed)
    latitude, longitude = random.uniform(32.5, 42.0, num_rows), random.uniform(-124.3, -114.3, num_rows)
    income = random.lognormal(1.2, 0.45, num_rows)
    age, rooms = random.integers(1, 53, num_rows), random.lognormal(1.6, 0.3, num_rows)
    occupants = random.lognormal(1.0, 0.3, num_rows)
    coast = np.exp(-np.abs(longitude + 124.3 - 1.05 * (42.0 - latitude)) / 1.5)
    price = 60_000 * np.exp(0.28 * income**0.8 + 0.9 * coast - 0.12 * occupants + 0.004 * age + 0.2 * np.log(rooms))
    rows = pd.DataFrame({
        "median_income": income, "house_age": age.astype(np.int64), "rooms": rooms, "bedrooms": rooms / 4.5,
        "population": random.lognormal(7.0, 0.7, num_rows).round(), "occupants": occupants,
        "latitude": latitude, "longitude": longitude,
        "price": (price * random.lognormal(0.0, 0.15, num_rows)).round(2),
    })  # fmt: skip
    return Pipeline(
        "houses", rows, {"kind": "regression", "target": "price", "transform": "log1p"},
        ({"kind": "number", "columns": [name for name in rows if name != "price"]},),
        {"hidden": [64, 64], "dropout": 0.0, "dense_frequencies": 16},
        {"epochs": 30, "global_batch_size": 128, "optimizer": {"learning_rate": 0.006}},
    )  # fmt: skip


ALL = {"digits": digits, "wine": wine, "diabetes": diabetes, "houses": houses}

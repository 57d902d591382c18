"""The encoder of the real Adult rows against scikit-learn: the same fitted numbers, the same numbers for rows to be scored.

Fitted on adult.data, compared on adult.test. Left out where definitions differ:

- Scalers of a pipeline that imputes first: ours fit on the values that are there, so here the imputer comes last.
- KBinsDiscretizer takes no missing values: it is fitted and compared on the others.
- `min_count`: what is rare counts as unseen, scikit-learn's `min_frequency` gives it a category of its own.
- TargetEncoder's fit_transform: its folds are random or in row order, ours by the row's hash.
- `power` and PowerTransformer (fits its exponent); `hash` and FeatureHasher (MurmurHash 3).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from pyspark.sql import SparkSession
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from mlspark.features.encode_spark import encode
from mlspark.features.encoder import Encoder
from mlspark.features.fit import fit
from mlspark.features.kinds.buckets import Bucketed
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.number import Ranked, Scaled
from mlspark.features.kinds.one_hot import OneHot
from mlspark.features.kinds.target import TargetShare
from mlspark.features.settings import FeaturesSettings
from mlspark.tasks.kinds import from_settings

Floats = NDArray[np.float64]

NUMBERS = ["age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
TEXTS = ["workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country"]
# In the order of the files.
COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship",
    "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip
KNOTS, BUCKETS = 100, 7


def of_numbers(prefix: str, **settings: Any) -> list[dict[str, Any]]:
    """Declare a feature "prefix_column" of each number."""
    return [{"kind": "number", "columns": [name], "name": f"{prefix}_{name}", **settings} for name in NUMBERS]


def of_texts(prefix: str, kind: str, **settings: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "columns": [name], "name": f"{prefix}_{name}", **settings} for name in TEXTS]


DECLARED = [
    *of_numbers("mean", scale="none", impute="mean", indicator=True),
    *of_numbers("median", scale="none", impute="median", exact=True),
    *of_numbers("mode", scale="none", impute="mode"),
    *of_numbers("standard", scale="standard", impute="median", exact=True),
    *of_numbers("log", scale="standard", log1p=True),
    *of_numbers("min_max", scale="min_max", clip=[0, 60]),
    *of_numbers("robust", scale="robust", exact=True),
    *of_numbers("quantile", scale="quantile", knots=KNOTS, exact=True),
    *of_numbers("log_quantile", scale="quantile", knots=KNOTS, exact=True, log1p=True),
    *(
        {"kind": "buckets", "columns": [name], "name": f"bins_{name}", "quantiles": BUCKETS, "exact": True}
        for name in NUMBERS
    ),
    *of_texts("id", "index"),
    *of_texts("is", "one_hot"),
    *of_texts("filled", "one_hot", impute="mode"),
    *of_texts("auto", "target", smooth="auto"),
    *of_texts("share", "target", smooth=12.5),
]


@dataclass(frozen=True)
class Compared:
    """Adult's rows, the encoder of the training rows, and what it makes of the test rows."""

    train: pd.DataFrame
    is_positive: NDArray[np.int64]
    """Label of the training rows."""
    test: pd.DataFrame
    encoder: Encoder
    encoded: pa.Table

    def fitted(self, name: str) -> Any:
        return next(feature for feature in self.encoder.features if feature.name == name)

    def outputs(self, name: str) -> Floats:
        """Return what the test rows become: shape (n, outputs of the feature)."""
        found = [output.name for output in self.fitted(name).outputs]
        return np.column_stack([self.encoded.column(each).to_numpy() for each in found]).astype(np.float64)


def read(path: Path, **more: Any) -> pd.DataFrame:
    """Return Adult rows, "?" and one number of eleven missing."""
    rows = pd.read_csv(path, names=COLUMNS, sep=r"\s*,\s*", engine="python", na_values=["?"], **more)
    rows[NUMBERS] = rows[NUMBERS].astype(np.float64)
    number = np.arange(len(rows))
    for place, name in enumerate(NUMBERS):
        rows.loc[number % 11 == place, name] = np.nan
    return rows.astype(dict.fromkeys([*TEXTS, "income"], object))


@pytest.fixture(scope="module")
def compared(spark: SparkSession, adult: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("adult")
    train = read(adult / "adult" / "adult.data")
    test = read(adult / "adult" / "adult.test", skiprows=1)
    for place, name in enumerate(TEXTS):  # unseen ones; a row for each column
        test.loc[place, name] = "Nowhere"
    whole = pa.schema([(name, pa.int32()) for name in NUMBERS] + [(name, pa.string()) for name in [*TEXTS, "income"]])
    # Not createDataFrame: what it makes is transformed by the optimizer, row by row in one thread, each time it is planned.
    for name, rows in {"train": train, "test": test}.items():
        table = pa.Table.from_pandas(rows[whole.names], whole, preserve_index=False)
        table = table.append_column("row_id", pa.array(range(len(table)), pa.int64()))
        parquet.write_table(table, folder / f"{name}.parquet")
    train_rows, test_rows = (spark.read.parquet(str(folder / f"{name}.parquet")) for name in ("train", "test"))
    task = from_settings({"kind": "binary", "target": "income", "classes": ["<=50K", ">50K"]})
    declared = FeaturesSettings.model_validate_json(json.dumps({"inputs": DECLARED}))
    encoder = fit(train_rows, declared, task, pipeline="adult")
    encoded = encode(test_rows, encoder, "row_id").toArrow().sort_by("row_id")
    return Compared(train, (train["income"] == ">50K").to_numpy(np.int64), test, encoder, encoded)


def assert_equal(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("strategy", ["mean", "median", "mode"])
def test_imputed_numbers_are_those_of_simple_imputer(compared: Compared, strategy: str, name: str) -> None:
    imputer = SimpleImputer(strategy={"mode": "most_frequent"}.get(strategy, strategy)).fit(compared.train[[name]])
    fitted = compared.fitted(f"{strategy}_{name}")
    assert_equal(fitted.missing, imputer.statistics_[0])
    assert_equal(compared.outputs(fitted.name)[:, :1], imputer.transform(compared.test[[name]]))


@pytest.mark.parametrize("name", NUMBERS)
def test_indicators_are_those_of_missing_indicator(compared: Compared, name: str) -> None:
    indicator = MissingIndicator().fit(compared.train[[name]])
    assert_equal(compared.outputs(f"mean_{name}")[:, 1:], indicator.transform(compared.test[[name]]))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("prefix", "scaler", "imputes", "before"),
    [
        ("standard", StandardScaler(), "median", None),
        ("log", StandardScaler(), "mean", np.log1p),
        ("min_max", MinMaxScaler(), "mean", lambda values: np.clip(values, 0, 60)),
        ("robust", RobustScaler(), "mean", None),
    ],
)  # fmt: skip
def test_scaled_numbers_are_those_of_the_scalers(
    compared: Compared, prefix: str, scaler: Any, imputes: str, before: Any, name: str
) -> None:
    steps = make_pipeline(FunctionTransformer(before), scaler, SimpleImputer(strategy=imputes))
    theirs = steps.fit(compared.train[[name]].to_numpy()).transform(compared.test[[name]].to_numpy())
    fitted = compared.fitted(f"{prefix}_{name}")
    assert isinstance(fitted, Scaled)
    center = {"min_max": "data_min_", "robust": "center_"}.get(prefix, "mean_")
    assert_equal(fitted.center, getattr(scaler, center)[0])
    scale = scaler.data_range_[0] if prefix == "min_max" else scaler.scale_[0]
    assert_equal(fitted.scale, scale or 1.0)
    assert_equal(compared.outputs(fitted.name), theirs)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(("prefix", "before"), [("quantile", None), ("log_quantile", np.log1p)])
def test_ranks_are_those_of_quantile_transformer(compared: Compared, prefix: str, before: Any, name: str) -> None:
    ranks = QuantileTransformer(n_quantiles=KNOTS, output_distribution="uniform", subsample=None)
    chain = FunctionTransformer(before)
    ranks.fit(chain.transform(compared.train[[name]].to_numpy()))
    fitted = compared.fitted(f"{prefix}_{name}")
    assert isinstance(fitted, Ranked)
    assert_equal(fitted.knots, np.unique(ranks.quantiles_[:, 0]))
    # A missing value gets the rank of the mean.
    mean = np.nanmean(chain.transform(compared.train[[name]].to_numpy()))
    theirs = ranks.transform(chain.transform(compared.test[[name]].to_numpy()))
    assert_equal(compared.outputs(fitted.name), np.where(np.isnan(theirs), ranks.transform([[mean]]), theirs))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.filterwarnings("ignore:Bins whose width are too small")
def test_buckets_are_those_of_kbins_discretizer(compared: Compared, name: str) -> None:
    train, test = compared.train[[name]].dropna(), compared.test[name]
    bins = KBinsDiscretizer(BUCKETS, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None)
    bins.fit(train.to_numpy())
    fitted = compared.fitted(f"bins_{name}")
    assert isinstance(fitted, Bucketed)
    assert_equal(fitted.edges, bins.bin_edges_[0][1:-1])
    theirs = np.zeros(len(test))  # 0: missing
    theirs[test.notna()] = bins.transform(test.dropna().to_numpy()[:, None])[:, 0] + 1
    assert_equal(compared.outputs(fitted.name)[:, 0], theirs)


@pytest.mark.parametrize("name", TEXTS)
def test_ids_are_those_of_ordinal_encoder(compared: Compared, name: str) -> None:
    # -2 missing, -1 unseen, known from 0: ours are 2 more.
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    ordinal.fit(compared.train[[name]])
    fitted = compared.fitted(f"id_{name}")
    assert isinstance(fitted, Indexed)
    assert list(fitted.values) == [value for value in ordinal.categories_[0] if isinstance(value, str)]
    assert_equal(compared.outputs(fitted.name), ordinal.transform(compared.test[[name]]) + 2)
    assert 1 in compared.outputs(fitted.name)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("prefix", ["is", "filled"])
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_one_hot_floats_are_those_of_one_hot_encoder(compared: Compared, prefix: str, name: str) -> None:
    fill = [SimpleImputer(strategy="most_frequent")] if prefix == "filled" else []
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = make_pipeline(*fill, encoder).fit(compared.train[[name]])
    fitted = compared.fitted(f"{prefix}_{name}")
    assert isinstance(fitted, OneHot)
    [categories] = encoder.categories_
    assert list(fitted.values) == [value for value in categories if isinstance(value, str)]
    assert fitted.has_missing == (len(categories) > len(fitted.values))
    assert_equal(compared.outputs(fitted.name), steps.transform(compared.test[[name]]))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("prefix", "smooth"), [("auto", "auto"), ("share", 12.5)])
def test_shares_are_those_of_target_encoder(compared: Compared, prefix: str, smooth: Any, name: str) -> None:
    target = TargetEncoder(smooth=smooth, target_type="binary").fit(compared.train[[name]], compared.is_positive)
    fitted = compared.fitted(f"{prefix}_{name}")
    assert isinstance(fitted, TargetShare)
    has_missing = not isinstance(target.categories_[0][-1], str)
    assert_equal([*fitted.numbers, *([fitted.missing] if has_missing else [])], target.encodings_[0])
    assert_equal(fitted.unseen, target.target_mean_)
    assert_equal(compared.outputs(fitted.name), target.transform(compared.test[[name]]))

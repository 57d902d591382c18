# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Two versions compared
#
# Boosted trees challenge a network: which is better, by how much, for whom, and may it be used? What follows is what
# `mlspark compare` and `mlspark promote` do, from Python.
#
# The rows are some of UCI's Adult files (Becker and Kohavi, CC BY 4.0), where `MLSPARK_DATA` names the folder that has them
# (`mlspark fetch adult` downloads them), else made-up ones.

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import mlspark
from mlspark import session
from mlspark.datasets import census_like
from mlspark.settings import loading
from mlspark.stages.compare import Wanted, compare_versions
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.train import train

checkout = Path(mlspark.__file__).parents[1]  # of the repository, for its conf/ and schemas/
temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)
data = Path(os.environ.get("MLSPARK_DATA", checkout / "data")).absolute()
(work / "data" / "adult").mkdir(parents=True)
if (data / "adult" / "adult.data").exists():
    for file, count in (("adult.data", 8000), ("adult.test", 4001)):
        lines = (data / "adult" / file).read_text().splitlines(keepends=True)
        (work / "data" / "adult" / file).write_text("".join(lines[:count]))
    print("8,000 and 4,000 rows of the Adult files")
else:
    census_like.write(work / "data", num_train=8000, num_test=4000, seed=1, bad_rows=0)
    print("made-up rows, no real ones: the figures below say nothing of the census")

# %% [markdown]
# ## Two versions of one model
#
# Both learn from the same feature table and are evaluated on the same test rows. Their predictions of these rows are kept
# with their runs.

# %%
changes = {
    "contract": str(checkout / "schemas" / "census.json"),
    "storage.root": str(work / "home"),
    "sources.root": str(work / "data"),
    "promotion.metric": "roc_auc",
}
network = loading.load(
    [str(checkout / "conf" / "census.yaml")], [f"{key}={json.dumps(value)}" for key, value in changes.items()]
)
trees = loading.override(network, {"model": {"kind": "trees"}}, source="this notebook")

spark = session.start("versions")
prepared = prepare(spark, network)
reports = {"network": train(spark, network)}
print(promote(network)["reasons"])

# %%
reports["trees"] = train(spark, trees)
pd.DataFrame(
    {f"{name}, version {report['model_version']}": report["metrics"]["test"] for name, report in reports.items()}
).loc[["accuracy", "roc_auc", "log_loss"]].astype(float).round(4)

# %% [markdown]
# The trees look better. Would they be, on other rows?
#
# ## Differences with intervals
#
# A paired bootstrap takes the same rows of both versions, 2,000 times; accuracy also has McNemar's exact test, and the area
# under the ROC curve DeLong's. An interval that leaves out 0 is a difference by more than chance.

# %%
compared = compare_versions(
    network, Wanted((("census", 1), ("census", 2)), slices=("sex", "race", "age")), lambda: spark
)
[comparison] = compared.comparisons
differences = pd.DataFrame(
    {
        name: {
            "network": of.a, "trees": of.b, "difference": of.difference, "low": of.low, "high": of.high,
            "p": of.p_value, "test": of.test, "better": {"a": "network", "b": "trees", "": "-"}[of.better],
        }
        for name, of in comparison.differences.items()
    }
).T  # fmt: skip
shown = differences.loc[["accuracy", "roc_auc", "average_precision", "log_loss", "brier"]]
numbers = ["network", "trees", "difference", "low", "high", "p"]
shown.assign(**shown[numbers].astype(float).round(4))

# %% [markdown]
# ## Slices
#
# The same on parts of the rows. Each p value is adjusted for how many slices were looked at, so that one below 0.05 stands.

# %%
slices = pd.DataFrame(
    [
        {
            "column": column.column, "value": part.value, "rows": part.num_rows,
            "network": part.figures[0].value, "trees": part.figures[1].value,
            "difference": part.differences[0].difference,
            "low": part.differences[0].low, "high": part.differences[0].high, "p": part.adjusted[0],
        }
        for column in compared.slices
        for part in column.slices
        if part.is_judged
    ]
)  # fmt: skip
slices.round(3)

# %%
figure, axes = plt.subplots(figsize=(7, 0.28 * len(slices) + 1), layout="constrained")
names = slices["column"] + ": " + slices["value"]
axes.errorbar(
    slices["difference"], names, fmt="o", capsize=3,
    xerr=[slices["difference"] - slices["low"], slices["high"] - slices["difference"]],
)  # fmt: skip
axes.axvline(0, color="gray", linewidth=1)
axes.invert_yaxis()
axes.set(xlabel="accuracy: trees less network, 95 % interval", title=f"{comparison.num_rows:,} test rows")
plt.show()

# %% [markdown]
# What the two take is part of the decision: bytes, seconds of training, milliseconds of one row, checked, encoded and
# predicted. Times are those of the machine that made this page.

# %%
pd.DataFrame(
    {
        version.label: {
            "kB": round(version.size_bytes / 1000),
            "seconds of training": round(version.train_seconds, 1),
            "ms of one row": round(version.latency.raw_row_milliseconds, 1),
        }
        for version in compared.versions
    }
).T

# %% [markdown]
# ## The decision
#
# The gate of `promotion` decides by one metric that was chosen before: the lower end of the gain's interval must be above 0.

# %%
promoted = promote(network)
print(f"version {promoted['version']}: {promoted['verdict']}; in use: version {promoted['champion_after']}")
for check in promoted["checks"]:
    print(f"  {check['rule']}: {check['reason']}")

# %%
spark.stop()
temporary.cleanup()

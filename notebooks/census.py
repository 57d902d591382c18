# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # The census, end to end
#
# Who earns more than 50,000 dollars a year? Raw rows become a feature table, a network, a version in use, and scores: the
# same functions that the jobs in `jobs/` call, in one session of Spark.
#
# The rows are UCI's Adult files (Becker and Kohavi, CC BY 4.0), where `MLSPARK_DATA` names the folder that has them
# (`mlspark fetch adult` downloads them), else made-up rows that look like them.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from deltalake import DeltaTable

import mlspark
from mlspark import session
from mlspark.datasets import census_like
from mlspark.settings import loading
from mlspark.stages.check import check_prepare
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.score import score
from mlspark.stages.train import train

checkout = Path(mlspark.__file__).parents[1]  # of the repository, for its conf/ and schemas/
temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)
data = Path(os.environ.get("MLSPARK_DATA", checkout / "data")).absolute()
if (data / "adult" / "adult.data").exists():
    print("the Adult files of UCI")
else:
    print("made-up rows, no real ones: the figures below say nothing of the census")
    data = work / "data"
    census_like.write(data, num_train=8000, num_test=2000, seed=1, bad_rows=40)

# %% [markdown]
# ## Settings and contract
#
# `conf/census.yaml` says where rows come from, what is predicted and what columns become. Keys of one's own go over it, as
# with `--set` on a command line. Checking needs neither data nor Spark, and names each wrong key.

# %%
settings = loading.load(
    [str(checkout / "conf" / "census.yaml")],
    [
        f"contract={checkout / 'schemas' / 'census.json'}",
        f"storage.root={work / 'home'}",
        f"sources.root={data}",
        "training.epochs=4",
    ],
)
check_prepare(settings)

try:
    loading.override(settings, {"training.epoch": 3}, source="this notebook")
except mlspark.errors.ConfigError as error:
    print(error)

# %% [markdown]
# The contract says what each raw row must be.

# %%
pd.read_json(checkout / "schemas" / "census.json")["columns"].apply(pd.Series).fillna("").head(6)

# %% [markdown]
# ## Prepare
#
# Each row is read, held against the contract, and either encoded into the feature table or quarantined with its reasons. The
# account adds up. The encoder is fitted on the training rows alone, and the split is decided by a hash of the row.

# %%
spark = session.start("census")
prepared = prepare(spark, settings)
assert prepared["rows_read"] == prepared["rows_good"] + prepared["rows_quarantined"]
counts = ["rows_read", "rows_good", "rows_quarantined", "missing_workclass", "missing_occupation"]
pd.DataFrame(prepared["sources"]).T[counts]

# %%
pd.DataFrame(prepared["splits"]).T

# %% [markdown]
# Done again, it finds its work done and writes nothing.

# %%
prepare(spark, settings)["already_done"]

# %% [markdown]
# A row of the table is what the network gets: floats, scaled; categories as ids, 0 for a missing or unknown one.

# %%
table = DeltaTable(prepared["table"], version=prepared["version"])
table.to_pandas(partitions=[("split", "=", "validation")]).sort_values("row_id").iloc[:4, :9]

# %% [markdown]
# ## Train
#
# Spark starts two ranks of PyTorch, each of which streams its share of the rows. The epoch with the least loss of the
# validation rows is evaluated on the test rows and becomes a registered version.

# %%
trained = train(spark, settings)
metrics = trained["metrics"]["test"]
pd.DataFrame(
    {name: [metrics[name], *metrics[f"{name}_interval"]] for name in ("accuracy", "roc_auc", "log_loss")},
    index=["value", "low, 95 %", "high, 95 %"],
).T.round(4)

# %%
print(
    f"{trained['epochs']} epochs of {trained['steps']} steps on {trained['world_size']} ranks; best: {trained['best_epoch']}"
)
print(f"model {trained['model_name']}, version {trained['model_version']}, alias {trained['alias']}")

# %% [markdown]
# ## Promote
#
# The gate decides whether the version takes the place of the one in use. The first has nobody to beat.

# %%
promoted = promote(settings)
print(promoted["verdict"], promoted["reasons"])

# %% [markdown]
# ## Score
#
# Two hundred rows as they might arrive next month, three of them broken. The version in use brings its own contract: rows
# that it could not have learned from are quarantined, not guessed at.

# %%
lines = [line for line in (data / "adult" / "adult.test").read_text().splitlines() if line and line[0] != "|"][:200]
lines[10] = "forty," + lines[10].partition(",")[2]  # a text for a number
lines[20] = lines[20].replace("Male", "M").replace("Female", "F")  # a value that nobody allowed
lines[30] = lines[30].rpartition(",")[0]  # a field short
(work / "arrived.csv").write_text("\n".join(lines) + "\n")

arrived = loading.override(
    settings,
    {"scoring.source": {"kind": "csv", "path": str(work / "arrived.csv"), "missing": "?"}, "scoring.model": "champion"},
    source="this notebook",
)
scored = score(spark, arrived)
{name: scored[name] for name in ("rows_read", "rows_scored", "rows_quarantined", "reasons", "model_version")}

# %%
scores = DeltaTable(scored["output"]).to_pandas().sort_values("row_number")
scores[["row_number", "age", "education", "occupation", "hours_per_week", "probability", "prediction"]].head()

# %%
quarantined = DeltaTable(arrived.table("scores_quarantine")).to_pandas()
quarantined["reason"] = [", ".join(f"{why['column']} {why['rule']}" for why in whys) for whys in quarantined["reasons"]]
quarantined[["raw", "reason"]]

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for label, rows in scores.groupby(scores["income"].str.rstrip(".")):
    axes.hist(rows["probability"], bins=20, range=(0, 1), alpha=0.6, label=f"earned {label}")
axes.set(xlabel="predicted probability of more than 50K", ylabel="rows")
axes.legend()
plt.show()

# %%
spark.stop()
temporary.cleanup()

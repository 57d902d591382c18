# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Transfer learning
#
# A thousand photographs are few to learn from. A network that has seen others before needs no more: its body is taken over,
# and a new last layer learns the ten classes.
#
# The photographs are CIFAR-10's: of `cifar10-jpeg/` below `MLSPARK_DATA`, else of `cifar10/`, which `mlspark fetch cifar10`
# downloads into `data`. The network is the ResNet-20 of github.com/akamaster/pytorch_resnet_cifar10
# (`resnet20-12fca82f.th`), expected in `pretrained-cifar10-resnet/` there. It has seen the originals of these pictures, so
# the figures show that weights are taken over as they should be, not how well they would do on other pictures.

# %%
import json
import os
import tempfile
import textwrap
import zipfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import mlspark
from mlspark import session
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train

checkout = Path(mlspark.__file__).parents[1]  # of the repository, for its conf/ and schemas/
temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)
data = Path(os.environ.get("MLSPARK_DATA", checkout / "data")).absolute()
checkpoint = data / "pretrained-cifar10-resnet" / "resnet20-12fca82f.th"
photographs = next((data / name for name in ("cifar10-jpeg", "cifar10") if (data / name / "train.zip").exists()), None)
if photographs is None or not checkpoint.exists():
    raise FileNotFoundError(f"{data} lacks the photographs or the checkpoint: see the text above")

# %% [markdown]
# ## A thousand photographs to learn from, five hundred to test with

# %%
for side, per_class in (("train", 100), ("test", 50)):
    taken = Counter()
    with zipfile.ZipFile(photographs / f"{side}.zip") as archive, zipfile.ZipFile(work / f"{side}.zip", "w") as part:
        for name in sorted(archive.namelist()):
            label = Path(name).parent.name
            if Path(name).suffix in (".jpg", ".png") and taken[label] < per_class:
                taken[label] += 1
                part.writestr(name, archive.read(name))

# %% [markdown]
# ## Settings
#
# `model.weights` names the file, what its tensors are called here, how pictures were normalised for it, and that the last
# layer is a new one. `training.freeze` keeps the body as it is.

# %%
weights = {
    "file": str(checkpoint),
    "names": {"module": "backbone.image", "module.linear": "head.linear"},
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "head": "new",
}
changes = {
    "contract": str(checkout / "schemas" / "cifar10.json"),
    "storage.root": str(work / "home"),
    "sources.root": str(work),
    "sources.learn.path": "train.zip",
    "sources.test.path": "test.zip",
    "model": {"kind": "vision", "backbone": "resnet20", "weights": weights},
    "training.epochs": 3,
    "training.global_batch_size": 64,
    "training.optimizer": {"kind": "sgd", "learning_rate": 0.1, "nesterov": True},
    "training.freeze": ["backbone"],
}
probe = loading.load(
    [str(checkout / "conf" / "cifar10.yaml")], [f"{key}={json.dumps(value)}" for key, value in changes.items()]
)
scratch = loading.override(probe, {"model.weights": None, "training.freeze": []}, source="this notebook")

# %%
spark = session.start("transfer")
prepared = prepare(spark, probe)
pd.DataFrame(prepared["splits"]).T[["rows"]]

# %% [markdown]
# ## Trained twice
#
# From random weights, and with the body taken over. All else is the same: rows, order, epochs, steps. From random weights
# these are too few steps to learn anything.

# %%
reports = {"from scratch": train(spark, scratch), "body taken over": train(spark, probe)}
pd.DataFrame(
    {
        name: {
            "accuracy": report["metrics"]["test"]["accuracy"],
            "95 % interval": " to ".join(f"{end:.3f}" for end in report["metrics"]["test"]["accuracy_interval"]),
            "log loss": round(report["metrics"]["test"]["log_loss"], 3),
            "test pictures": report["metrics"]["test"]["num_rows"],
        }
        for name, report in reports.items()
    }
).T

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, report in reports.items():
    events = (work / "home" / "runs" / report["run_id"] / "events.jsonl").read_text().splitlines()
    epochs = pd.DataFrame([event for event in map(json.loads, events) if event["event"] == "epoch"])
    axes.plot(epochs["epoch"], epochs["validation_accuracy"], marker="o", label=name)
axes.axhline(0.1, color="gray", linestyle=":", linewidth=1, label="a guess")
axes.set(xlabel="epoch", ylabel="accuracy of validation pictures", ylim=(0, 1), xticks=epochs["epoch"])
axes.legend()
plt.show()

# %% [markdown]
# ## Weights that do not fit are refused
#
# Before anything starts, and with the setting that helps. Here the names lead to where this network has none:

# %%
wrong = loading.override(probe, {"model.weights.names": {"module": "body"}}, source="this notebook")
try:
    train(spark, wrong)
except mlspark.errors.MlsparkError as error:
    print(textwrap.fill(str(error).replace(str(data), "$MLSPARK_DATA"), 100))
else:
    raise AssertionError("taken over in spite of their names")

# %% [markdown]
# A body at a tenth of the learning rate (`training.optimizer.rates`), layers that thaw later (`training.unfreeze`), and
# what they are worth on 4,000 pictures: [weights to begin with](../models.md#weights-to-begin-with).

# %%
spark.stop()
temporary.cleanup()

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A first network: handwritten digits
#
# Pictures of digits become a table, a small convolutional network learns from it on two ranks, and the digits that it reads
# wrongly are looked at.
#
# MNIST is read where `MLSPARK_DATA` names the folder that has it; `mlspark fetch mnist` downloads it into `data`. Of its
# 60,000 pictures 6,000 are taken here, for an answer within a minute: `conf/mnist.yaml` as it stands takes all, and reads
# 0.994 of the test digits. Without MNIST the digits of scikit-learn stand in: 1,797 real ones, of 8 x 8 pixels.

# %%
import gzip
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from deltalake import DeltaTable

import mlspark
from mlspark import session
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.score import score
from mlspark.stages.train import train

checkout = Path(mlspark.__file__).parents[1]  # of the repository, for its conf/ and schemas/
temporary = tempfile.TemporaryDirectory(prefix="mlspark-")  # removed in the last cell
work = Path(temporary.name)
mnist = Path(os.environ.get("MLSPARK_DATA", checkout / "data")).absolute() / "mnist"
mnist_files = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def read_idx(file: Path) -> np.ndarray:
    """Return an idx file of bytes: its last header byte is the number of axes, whose lengths follow."""
    content = gzip.decompress(file.read_bytes())
    axes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(axes)


def write_idx(file: Path, values: np.ndarray) -> None:
    file.write_bytes(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes())


if mnist.exists():
    digits = {side: [read_idx(mnist / file) for file in files] for side, files in mnist_files.items()}
    digits = {side: [values[:count] for values in digits[side]] for side, count in (("train", 6000), ("test", 2000))}
    print("MNIST")
else:
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    pictures = np.kron(pictures.reshape(-1, 8, 8) * 15, np.ones((3, 3))).astype(np.uint8)
    pictures = np.pad(pictures, ((0, 0), (2, 2), (2, 2)))
    labels = labels.astype(np.uint8)
    digits = {"train": [pictures[:1400], labels[:1400]], "test": [pictures[1400:], labels[1400:]]}
    print("the digits of scikit-learn in place of MNIST: the figures below are theirs")
for side, (pictures, labels) in digits.items():
    write_idx(work / f"{side}-images", pictures)
    write_idx(work / f"{side}-labels", labels)

# %% [markdown]
# ## Settings
#
# Those of `conf/mnist.yaml`: three stages of convolutions, the mean over all places, one linear layer. Fewer pictures want
# smaller batches, so that there are steps enough.

# %%
sources = {
    side: {"kind": "idx", "path": str(work), "columns": {"image": f"{side}-images", "label": f"{side}-labels"}}
    for side in ("train", "test")
}
changes = {
    "contract": str(checkout / "schemas" / "mnist.json"),
    "storage.root": str(work / "home"),
    "sources.learn": sources["train"],
    "sources.test": sources["test"],
    "scoring.source": sources["test"],
    "training.epochs": 4,
    "training.global_batch_size": 64,
    "training.augment": {},
}
settings = loading.load(
    [str(checkout / "conf" / "mnist.yaml")], [f"{key}={json.dumps(value)}" for key, value in changes.items()]
)

# %% [markdown]
# ## Prepare
#
# Each picture is decoded once, to see that it can be; the table holds its 784 bytes.

# %%
spark = session.start("first network")
prepared = prepare(spark, settings)
pd.DataFrame(prepared["splits"]).T[["rows"]]

# %% [markdown]
# ## Train

# %%
trained = train(spark, settings)
test = trained["metrics"]["test"]
low, high = test["accuracy_interval"]
print(f"{trained['epochs']} epochs on {trained['world_size']} ranks")
print(f"accuracy of {test['num_rows']:,} test digits: {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f}")

# %% [markdown]
# The run keeps each of its events as a line of JSON. The loss of the training rows is the mean over an epoch in which the
# network still changes, that of the validation rows is measured after it.

# %%
run = work / "home" / "runs" / trained["run_id"]
events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
epochs = pd.DataFrame([event for event in events if event["event"] == "epoch"]).set_index("epoch")
epochs[["train_loss", "validation_log_loss"]].plot(figsize=(6, 3), marker="o", xticks=epochs.index, ylabel="loss")
plt.show()

# %% [markdown]
# ## Score
#
# The test digits once more, as if they came without labels: the first version is promoted, and the version in use scores.

# %%
print(promote(settings)["verdict"])
scored = score(spark, loading.override(settings, {"scoring.model": "champion"}, source="this notebook"))
scores = DeltaTable(scored["output"]).to_pandas().sort_values("row_number")
wrong = scores[scores["prediction"].astype(int) != scores["digit"]]
print(f"{len(scores):,} digits, {len(wrong)} read wrongly")
pd.crosstab(wrong["digit"].rename("is"), wrong["prediction"].rename("read as"))

# %% [markdown]
# The wrongly read ones that it was surest of:

# %% tags=["not-in-docs"]
pictures, labels = digits["test"]
assert (labels[wrong["row_number"]] == wrong["digit"]).all()  # rows are numbered as they stand in the source
probabilities = wrong[[name for name in wrong if name.startswith("probability")]]
surest = wrong.assign(sure=probabilities.max(axis=1)).nlargest(12, "sure")
figure, places = plt.subplots(2, 6, figsize=(8, 3.2), layout="constrained")
for place in places.flat:
    place.set_axis_off()
for place, row in zip(places.flat, surest.itertuples(), strict=False):
    place.imshow(pictures[row.row_number], cmap="gray_r")
    place.set_title(f"{row.digit}, not {row.prediction}")
plt.show()

# %%
spark.stop()
temporary.cleanup()

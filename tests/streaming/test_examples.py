"""The example of docs/streaming.md, as it stands there, and a linear model on MNIST the same way."""

import gzip
import re
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import mlspark.streaming

from ..conftest import REAL_DATA, ROOT

(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "streaming.md").read_text(), re.M | re.S)


def test_example_of_the_readme_trains_on_the_census(
    adult: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line.split(", ") for line in (adult / "adult" / "adult.data").read_text().splitlines() if line]
    places = {"age": 0, "education_num": 4, "hours_per_week": 12}
    numbers = {name: np.array([float(line[place]) for line in lines], np.float32) for name, place in places.items()}
    columns = {name: (values - values.mean()) / values.std() for name, values in numbers.items()}
    columns["label"] = np.array([line[14] == ">50K" for line in lines], np.float32)
    (tmp_path / ".mlspark" / "tables").mkdir(parents=True)
    deltalake.write_deltalake(str(tmp_path / ".mlspark" / "tables" / "census_features"), pa.table(columns))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(EXAMPLE, names)
    assert len(EXAMPLE.splitlines()) <= 15
    saved = torch.load("checkpoint.pt")
    assert (saved["rows"]["epoch"], saved["rows"]["step"]) == (2, 0)
    rows, model = names["rows"], names["model"]
    with torch.inference_mode():
        right = [(model(batch["x"])[:, 0] > 0) == (batch["y"] > 0) for batch in rows]
    assert torch.cat(right).float().mean() > 0.77  # 0.76 of the people are below


def test_mnist_trains_from_a_binary_column(tmp_path: Path) -> None:
    folder = REAL_DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no mnist in {REAL_DATA}: set MLSPARK_DATA")
    pictures = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    table = pa.table({"image": [row.tobytes() for row in pictures.reshape(-1, 784)], "label": labels.astype(np.int64)})
    deltalake.write_deltalake(str(tmp_path), table)
    torch.manual_seed(0)
    model = torch.nn.Linear(784, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with mlspark.streaming.open(str(tmp_path), lengths={"image": 784}, batch_size=250, remainder="drop") as rows:
        for _ in range(2):
            right = []
            for batch in rows:
                logits = model(batch["image"] / 255)
                functional.cross_entropy(logits, batch["label"]).backward()
                optimizer.step()
                optimizer.zero_grad()
                right.append(logits.argmax(1) == batch["label"])
    assert torch.cat(right).float().mean() > 0.85

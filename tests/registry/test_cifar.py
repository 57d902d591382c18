"""A published network on real pictures: the score that it is known to have, through our own path."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mlspark.contracts import contract as contracts
from mlspark.engines import eager
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.image import Image
from mlspark.models import from_json
from mlspark.models import weights as weights_file
from mlspark.pictures import decoder
from mlspark.pictures.spec import PictureSpec
from mlspark.registry import initial_weights
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks.kinds import from_settings
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

from ..conftest import REAL_DATA, ROOT

PUBLISHED = "pretrained-cifar10-resnet/resnet20-12fca82f.th"
RESNET: dict[str, Any] = {
    "kind": "vision",
    "backbone": "resnet20",
    "weights": {
        "file": str(REAL_DATA / PUBLISHED),
        "names": {"module": "backbone.image", "module.linear": "head.linear"},
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def package() -> Package:
    """The published weights as a version, of which nothing was trained here."""
    contract = contracts.load(str(ROOT / "schemas" / "cifar10.json"))
    spec = PictureSpec("RGB", 32, 32, mean=(0.5,) * 3, std=(0.25,) * 3, decoder=decoder.version())
    image = Image(name="image", column="image", spec=spec, file_bytes=1000.0)
    encoder = Encoder(pipeline="cifar10", rows=1, inputs={"image": "binary"}, features=(image,))
    classes = next(rule.allowed for rule in contract.columns if rule.name == "label")
    task = from_settings({"kind": "multiclass", "target": "label", "classes": classes})
    run = TrainingSpec(
        run_uri="",
        tensors=encoder.tensors(task),
        task=task,
        model=from_json(RESNET),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )
    run, found = initial_weights.resolve(None, run, retry_seconds=1.0)  # type: ignore[arg-type]
    content = initial_weights.fitted(run, found)
    assert content is not None
    files = eager.pack(run.model, run.tensors, task.num_outputs, weights_file.from_bytes(content))
    about = {"run_id": "", "table": "", "table_version": 0, "metrics": {}, "train_seconds": 0.0, "libraries": {}}
    return Package.pack(model=files, encoder=encoder, contract=contract, task=task, provenance=about)


@pytest.mark.slow
def test_published_resnet_has_its_known_score_on_4000_jpegs() -> None:
    """0.8060 of them, as in plain PyTorch over the same files: see the data's README."""
    if not (REAL_DATA / PUBLISHED).is_file():
        pytest.skip(f"no {PUBLISHED} in {REAL_DATA}: set MLSPARK_DATA")
    with zipfile.ZipFile(REAL_DATA / "cifar10-jpeg" / "test.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        pictures = [archive.read(name) for name in names]
    labels = np.array([Path(name).parent.name for name in names])
    made = package()
    assert json.loads(made.files["model.json"])["model"]["weights"]["sha256"].startswith("12fca82f")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other on a busy machine
    predicted = Predictor(made).predict(pa.table({"image": pa.array(pictures, pa.binary())}))["prediction"]
    torch.set_num_threads(threads)
    assert len(labels) == 4000
    assert float(np.mean(np.asarray(predicted).astype(str) == labels)) == pytest.approx(0.8060, abs=0.0005)

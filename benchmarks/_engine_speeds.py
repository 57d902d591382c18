"""Seconds of a picture network by each engine, and of trees beside scikit-learn's: for engines.py."""

import statistics
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier

from mlspark.engines import eager, engine, onnx_graph, openvino_engine, processor
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import trees
from mlspark.models.trees import Rows, TreesSettings
from mlspark.models.vision import VisionSettings
from mlspark.pictures import decoder
from mlspark.pictures.spec import PictureSpec
from mlspark.tasks.kinds import from_settings

_BATCH = 64
_CALIBRATION_PICTURES = 512
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED = "pretrained-cifar10-resnet/resnet20-12fca82f.th"
INCOME = from_settings({"kind": "binary", "target": "income", "classes": ["<=50K", ">50K"]})


def of_pictures(data: Path | None, *, rounds: int, most_pictures: int) -> dict[str, Any]:
    """Return figures of ResNet-20 on 32 pixels, batches of 64, one thread: rates in turns, and accuracy where it is known.

    Args:
        data: folder with the published weights and CIFAR JPEGs; None: random weights and pixels, without accuracy.
        rounds: in which all engines take turns.
        most_pictures: that accuracy is of.
    """
    torch.set_num_threads(1)
    spec = PictureSpec("RGB", 32, 32, mean=_MEAN, std=_STD)
    tensors = Tensors((TensorSpec("image", ("image",), "uint8", picture=spec),))
    settings = VisionSettings(backbone="resnet20")
    network = settings.build(tensors, 10).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (1024, 3, 32, 32), np.uint8)
    calibration, labels = pictures[:_CALIBRATION_PICTURES], None
    if data is not None:
        network.load_state_dict(_published(data, network))
        pictures, labels = _jpegs(data / "cifar10-jpeg" / "test.zip", most_pictures)
        calibration, _ = _jpegs(data / "cifar10-jpeg" / "train.zip", _CALIBRATION_PICTURES)
    files = eager.pack(settings, tensors, 10, network.state_dict())
    plain = eager.load(files)
    batches = [{"image": calibration[start : start + _BATCH]} for start in range(0, len(calibration), _BATCH)]
    graph = onnx_graph.export(plain)
    engines = {"eager": plain.run, "bare": _bare(plain.network)}
    for precision in ("float32", "bfloat16", "int8"):
        if precision != "bfloat16" or processor.has_bfloat16():
            made = openvino_engine.pack(graph, tensors, precision, batches)
            engines[precision] = engine.load({**files, **made}, threads=1).run
    rates = _rates(engines, {"image": pictures[:_BATCH]}, rounds)
    figures: dict[str, Any] = {
        "int8_over_eager": rates["int8"] / rates["bare"],
        "bf16_over_eager": rates["bfloat16"] / rates["bare"] if "bfloat16" in rates else None,
        "float32_over_eager": rates["float32"] / rates["bare"],
        "pictures_per_second": {name: round(rate) for name, rate in rates.items()},
        "has_avx512_vnni": "avx512_vnni" in processor.flags(),
    }
    if labels is not None:
        shares = {
            name: float((run({"image": pictures}).argmax(1) == labels).mean())
            for name, run in engines.items()
            if name != "bare"
        }
        figures |= {"accuracy": shares, "pictures": len(labels)}
        figures |= {f"{name}_loss": shares["eager"] - shares[name] for name in shares if name != "eager"}
    return figures


def _bare(network: torch.nn.Module) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    """The network called on the whole batch, as people write it: `Eager` runs blocks of 16 pictures, for equal bits."""

    def run(values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.inference_mode():
            return network(**{name: torch.from_numpy(value) for name, value in values.items()}).numpy()

    return run


def _rates(engines: Mapping[str, Callable[..., Any]], values: dict[str, NDArray[Any]], rounds: int) -> dict[str, float]:
    """Return the median of pictures per second of processor time."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for run in engines.values():
        run(values)
    for number in range(rounds):
        for name, run in list(engines.items())[:: -1 if number % 2 else 1]:
            started, times = time.process_time(), 0
            while time.process_time() - started < 0.3:
                run(values)
                times += 1
            rates[name].append(times * _BATCH / (time.process_time() - started))
    return {name: statistics.median(rate) for name, rate in rates.items()}


def _published(data: Path, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the published weights under the names that they have here."""
    weights = torch.load(data / PUBLISHED, map_location="cpu", weights_only=True)["state_dict"]
    here = network.state_dict()
    named = {
        name.replace("module.linear", "head.linear").replace("module.", "backbone.image."): value
        for name, value in weights.items()
    }
    return {name: named.get(name, value) for name, value in here.items()}


def _jpegs(archive: Path, most: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures (n, 3, 32, 32) spread over the archive, and the numbers of their classes."""
    spec = PictureSpec("RGB", 32, 32)
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".jpg"))
        classes = sorted({Path(name).parent.name for name in names}, key=_CLASSES.index)
        names = names[:: max(1, len(names) // most)][:most]
        pixels = [decoder.encoded(opened.read(name), spec) for name in names]
    return np.stack(pixels), np.array([classes.index(Path(name).parent.name) for name in names])


_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def of_trees(
    dense: NDArray[Any], ids: NDArray[Any], cardinalities: tuple[int, ...], label: NDArray[Any]
) -> dict[str, Any]:
    """Return fit times of XGBoost as `model.kind: trees` grows them, and of scikit-learn's trees of the same data.

    A fifth of the rows is held out for accuracy, a tenth of the others decides when to stop.
    """
    tensors = Tensors(
        (
            TensorSpec("dense", tuple(f"d{place}" for place in range(dense.shape[1])), "float32"),
            TensorSpec("ids", tuple(f"i{place}" for place in range(ids.shape[1])), "int64", cardinalities),
        )
    )
    order = np.random.default_rng(0).permutation(len(label))
    test, rest = order[: len(order) // 5], order[len(order) // 5 :]
    validation, train = rest[: len(rest) // 10], rest[len(rest) // 10 :]

    def rows(places: NDArray[Any]) -> Rows:
        return Rows({"dense": dense[places], "ids": ids[places]}, label[places])

    settings = TreesSettings(learning_rate=0.3, early_stopping_rounds=10)
    started, cpu_started = time.perf_counter(), time.process_time()
    booster = trees.grow(settings, INCOME, tensors, train=rows(train), validation=rows(validation), seed=0)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    held_out = trees.matrix(settings, INCOME, tensors, rows(test))
    accuracy = float(((booster.predict(held_out) > 0.5) == label[test]).mean())
    matrix = np.column_stack([dense, ids])
    started, cpu_started = time.perf_counter(), time.process_time()
    baseline = GradientBoostingClassifier(random_state=0).fit(matrix[rest], label[rest])
    of_baseline, cpu_of_baseline = time.perf_counter() - started, time.process_time() - cpu_started
    return {
        "trees_over_baseline": of_baseline / seconds,
        "trees_over_baseline_cpu": cpu_of_baseline / cpu_seconds,
        "trees": {"seconds": round(seconds, 3), "rounds": booster.num_boosted_rounds(), "accuracy": accuracy},
        "baseline": {
            "seconds": round(of_baseline, 3),
            "accuracy": float(baseline.score(matrix[test], label[test])),
        },
        "trees_rows": len(label),
    }

"""Every family of networks by each engine: how far its outputs are from eager's, and how much faster it is. No Spark.

    python benchmarks/engine_families.py [--quick] [--json FILE] [--network NAME] [--engine NAME] [--size PIXELS]

A network of each family of docs/models.md, of random weights, its batch norms settled on some rows, for pictures of 64
pixels (75 where that is the least) with columns of numbers and ids beside them; and the kinds of networks for columns.
--network and --engine choose some of them and may be repeated; int8 and compiled take minutes for each, and are left out
unless asked for.

For each network and engine `difference` is the greatest difference of an output from eager's, relative where that is above
1, over batches of 1, 7 and 32 rows (for columns 1, 7, 70 and 4,096): at most 1e-4 for float32, or ten roundings. `ratio`
is eager's processor time / the engine's, medians of rounds in turns, one thread, 16 pictures or 4,096 rows at a time. Random
weights and rows say nothing about what bfloat16 and int8 lose: that is for `mlspark optimize` to measure. `rounding` is how
far eager's own float32 is from the same network in float64: through many random layers it grows, and so do differences.
"""

import copy
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn

from mlspark import models
from mlspark.engines import eager, engine
from mlspark.engines.agreement import difference
from mlspark.engines.candidates import CANDIDATES, Source
from mlspark.engines.engine import Engine
from mlspark.errors import RegistryError, one_line
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.models.model import Model
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.vision import VisionSettings
from mlspark.pictures.spec import PictureSpec

Rows = dict[str, NDArray[Any]]

_FAMILIES = (
    "resnet18", "resnext50", "seresnext50", "densenet121", "inception_v4", "inception_resnet_v2", "xception", "nasnet",
    "mobilenet_v2", "shufflenet_v2", "squeezenet", "resnet20",
)  # fmt: skip
_LEAST = {"inception_v4": 75, "inception_resnet_v2": 75}
_DENSE = TensorSpec("dense", tuple("abcdef"), "float32")
_IDS = TensorSpec("ids", ("job", "place"), "int64", (7, 300))
_USUAL = [name for name in CANDIDATES if name not in ("compiled", "openvino int8")]
_NUM_OUTPUTS = 10


def networks(size: int) -> dict[str, tuple[Model, Tensors]]:
    """Return what is built: kinds for columns, then a network of each family."""
    columns = Tensors((_DENSE, _IDS))
    found: dict[str, tuple[Model, Tensors]] = {
        "tabular": (TabularSettings(), columns),
        "tabm": (TabmSettings(), columns),
        "softmax": (SoftmaxSettings(), Tensors((_DENSE, _photo(size)))),
        "cnn": (CnnSettings(), Tensors((_DENSE, _photo(size)))),
    }
    for name in _FAMILIES:
        tensors = Tensors((_DENSE, _IDS, _photo(max(size, _LEAST.get(name, 0)))))
        found[name] = (VisionSettings(backbone=name), tensors)
    return found


def _photo(size: int) -> TensorSpec:
    spec = PictureSpec("RGB", size, size, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
    return TensorSpec("photo", ("photo",), "uint8", picture=spec)


def _rows(count: int, tensors: Tensors, *, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    values: Rows = {}
    for spec in tensors.specs:
        if spec.picture:
            channels, height, width = spec.shape
            # Patches: of single random pixels all pictures look alike to a deep network, and rounding is all that differs.
            patches = random.integers(0, 256, (count, channels, 5, 5), np.uint8)
            values[spec.name] = (
                patches.repeat(-(-height // 5), 2).repeat(-(-width // 5), 3)[:, :, :height, :width].copy()
            )
        elif spec.cardinalities:
            values[spec.name] = random.integers(0, spec.cardinalities, (count, *spec.shape))
        else:
            values[spec.name] = random.normal(size=(count, *spec.shape)).astype(np.float32)
    return values


def _packed(settings: Model, tensors: Tensors) -> dict[str, bytes]:
    """Return the files of a network of random weights."""
    torch.manual_seed(0)
    network = models.build(settings, tensors, _NUM_OUTPUTS)
    for weights in network.parameters():
        if not weights.any():  # softmax begins with zeros
            nn.init.normal_(weights, std=0.01)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # the mean over all that it meets: outputs of deep networks overflow with those of no rows
    if norms:
        with torch.no_grad():
            network.train()(**{name: torch.from_numpy(value) for name, value in _rows(16, tensors).items()})
    return eager.pack(settings, tensors, _NUM_OUTPUTS, network.eval().state_dict())


def measured(settings: Model, tensors: Tensors, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Return for each engine its difference and ratio, or why it is refused."""
    files = _packed(settings, tensors)
    as_trained = eager.load(files, threads=1)
    calibration = [_rows(32, tensors, seed=seed) for seed in (1, 2)]
    source, figures = Source(as_trained, calibration), dict[str, dict[str, Any]]()
    engines: dict[str, Engine] = {"eager": as_trained}
    for name in names:
        if refusal := CANDIDATES[name].obstacle():
            figures[name] = {"refused": refusal}
            continue
        try:
            engines[name] = engine.load({**files, **CANDIDATES[name].pack(source)}, threads=1)
        except RegistryError as error:
            figures[name] = {"refused": one_line(str(error))}
    figures["eager"] = {"rounding": _rounding(as_trained, _rows(7, tensors))}
    counts = (1, 7, 32) if tensors.pictures else (1, 7, 70, 4096)
    values = _rows(max(counts), tensors)
    expected = as_trained.run(values)
    at_once = 16 if tensors.pictures else 4096
    seconds = _seconds(engines, _rows(at_once, tensors), rounds)
    for name in [name for name in engines if name != "eager"]:
        differences = [
            difference(engines[name].run({key: value[:count] for key, value in values.items()}), expected[:count])
            for count in counts
        ]
        figures[name] = {"difference": max(differences), "ratio": seconds["eager"] / seconds[name]}
    return figures


def _rounding(as_trained: eager.Eager, values: Rows) -> float:
    """Return how far eager's outputs are from those of the same network in float64."""
    inputs = {name: torch.from_numpy(value) for name, value in values.items()}
    with torch.inference_mode():
        exact = copy.deepcopy(as_trained.network).double()(
            **{name: each.double() if each.is_floating_point() else each for name, each in inputs.items()}
        )
    return difference(as_trained.run(values), exact.numpy())


def _seconds(engines: Mapping[str, Engine], values: Rows, rounds: int) -> dict[str, float]:
    """Return the median processor time of a batch; all engines take turns, every other round backwards."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for of in engines.values():
        of.run(values)
    for number in range(rounds):
        for name, of in list(engines.items())[:: -1 if number % 2 else 1]:
            started, times = time.process_time(), 0
            while not times or time.process_time() - started < 0.2:
                of.run(values)
                times += 1
            taken[name].append((time.process_time() - started) / times)
    return {name: statistics.median(of_engine) for name, of_engine in taken.items()}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Two small networks, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    engine_: Annotated[list[str] | None, typer.Option("--engine", help="Only this one; may be repeated.")] = None,
    size: Annotated[int, typer.Option(help="Pixels of a side of the pictures.")] = 64,
) -> None:
    """Measure every family by each engine."""
    torch.set_num_threads(1)
    known = networks(16 if quick else size)
    table = {}
    for name in network or (["tabular", "resnet20"] if quick else list(known)):
        table[name] = measured(*known[name], engine_ or _USUAL, 1 if quick else 5)
        for made, figures in table[name].items():
            if made == "eager":
                print(f"{name:<22}{made:<20}rounding {figures['rounding']:.1e}", flush=True)
                continue
            said = figures.get("refused") or f"difference {figures['difference']:.1e}  {figures['ratio']:.2f}x"
            print(f"{name:<22}{made:<20}{said}", flush=True)
        if json_file:
            json_file.write_text(json.dumps({"networks": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

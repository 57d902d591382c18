"""Pictures in training: changed and mixed at random where the model learns, and nowhere else."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.models.softmax import SoftmaxSettings
from mlspark.pictures.augment import Crop, Flip, ResizedCrop
from mlspark.pictures.mixing import Mix
from mlspark.pictures.spec import PictureSpec
from mlspark.settings import loading
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training import network_learner
from mlspark.training.data import RankData, splits_of
from mlspark.training.events import Event, Resumed
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec
from mlspark.training.state import RankContext
from mlspark.training.step import Stepper

from ..conftest import ROOT
from . import forked_ranks
from .conftest import epochs, fit_here, last_checkpoint, new_run, weights_manifest
from .test_resume import assert_equal, stop_at

AUGMENT = {"photo": (Crop(padding=2), Flip())}
MIX = Mix(mixup=0.4, cutmix=1.0)
SPEC = PictureSpec("RGB", 12, 12, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """40 training pictures and 16 of each other split: bright ones are of class 1."""
    folder, chance, files = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for split, count in (("test", 16), ("train", 40), ("validation", 16)):
        photos, labels = [], np.arange(count) % 2
        for label in labels:
            pixels, stream = chance.integers(0, 130, (12, 12, 3), dtype=np.uint8) + np.uint8(90 * label), io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            photos.append(stream.getvalue())
        row_ids = chance.integers(-(2**62), 2**62, count)
        rows = {"photo": pa.array(photos, pa.binary()), "label": labels.astype(np.float32), "row_id": row_ids}
        rows["weight"] = 1 + labels.astype(np.float32)
        path = folder / f"split={split}" / "part.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table(rows), path, row_group_size=10)
        groups = tuple(min(10, count - start) for start in range(0, count, 10))
        files.append(DataFile(str(path.relative_to(folder)), path.stat().st_size, {"split": split}, groups))
    return Snapshot(str(folder), 0, {}, tuple(files))


def run_of(folder: Path, table: Snapshot, **training: Any) -> TrainingSpec:
    defaults = {"num_processes": 1, "epochs": 2, "global_batch_size": 8, "augment": AUGMENT}
    return dataclasses.replace(
        new_run(folder, table, **(defaults | training)),
        tensors=Tensors((TensorSpec("photo", ("photo",), "uint8", picture=SPEC),)),
        model=CnnSettings(depth=1, widths=(4,)),
        streaming=StreamingSettings(lanes=4),
    )


def pictures(stream: Any) -> dict[int, torch.Tensor]:
    return {
        row_id: picture
        for batch in stream
        for row_id, picture in zip(batch["row_id"].tolist(), batch["photo"], strict=True)
    }


def test_only_rows_that_a_model_learns_from_are_changed(tmp_path: Path, table: Snapshot) -> None:
    context = RankContext(0, 1, torch.device("cpu"), lambda event: None, lambda: False)
    data = {
        name: RankData(run_of(tmp_path / name, table, augment=augment), splits_of(table), context)
        for name, augment in (("changed", AUGMENT), ("plain", {}))
    }
    learnt = {name: pictures(of.training(0, 0)) for name, of in data.items()}
    assert sum(bool((learnt["changed"][row] == picture).all()) for row, picture in learnt["plain"].items()) < 8
    for split in ("train", "validation"):
        held_out = {name: pictures(of.held_out(split)) for name, of in data.items()}
        assert held_out["changed"].keys() == held_out["plain"].keys()
        assert all(bool((held_out["changed"][row] == picture).all()) for row, picture in held_out["plain"].items())
    assert torch.equal(data["changed"].two_rows()["photo"], data["plain"].two_rows()["photo"])
    for of in data.values():
        of.close()


def test_what_is_done_to_pictures_is_part_of_a_run_and_of_its_weights(tmp_path: Path, table: Snapshot) -> None:
    specs = [run_of(tmp_path / name, table) for name in ("first", "again")]
    plain = run_of(tmp_path / "plain", table, augment={})
    assert specs[0].digest("table") == specs[1].digest("table") != plain.digest("table")
    assert TrainingSpec.from_json(specs[0].to_json()) == specs[0]
    for spec in (*specs, plain):
        fit_here(spec)
    weights = [weights_manifest(spec) for spec in (*specs, plain)]
    assert weights[0] == weights[1] != weights[2]


# Mixed with each other


def batches(
    spec: TrainingSpec, table: Snapshot, *, world_size: int = 1, rank: int = 0
) -> list[dict[str, torch.Tensor]]:
    """What a rank learns from in the first epoch."""
    data = RankData(spec, splits_of(table), RankContext(rank, world_size, torch.device("cpu"), print, lambda: False))
    found = [dict(data.to_learn_from(batch)) for batch in data.training(0, 0)]
    data.close()
    return found


def test_a_rank_learns_from_mixed_pictures_and_is_evaluated_on_plain_ones(tmp_path: Path, table: Snapshot) -> None:
    weighed = Tensors((TensorSpec("photo", ("photo",), "uint8", picture=SPEC),), weight="weight")
    spec = dataclasses.replace(run_of(tmp_path, table, mix=MIX), tensors=weighed)
    plain = dataclasses.replace(run_of(tmp_path, table), tensors=weighed)
    mixed, unmixed = batches(spec, table), batches(plain, table)
    assert set(mixed[0]) - set(unmixed[0]) == {"mix_share", "mix_target", "mix_weight"}
    for left, right in zip(mixed, unmixed, strict=True):
        assert torch.equal(left["row_id"], right["row_id"])
        assert torch.equal(left["target"], right["target"])
        assert torch.equal(left["mix_weight"], 1 + left["mix_target"])
        is_own = (left["photo"] == right["photo"]).flatten(1).all(1)
        assert torch.equal(is_own, left["mix_share"] == 1)
    assert sum(int((batch["mix_share"] < 1).sum()) for batch in mixed) > 25
    data = RankData(spec, splits_of(table), RankContext(0, 1, torch.device("cpu"), print, lambda: False))
    for split in ("train", "validation", "test"):
        with data.held_out(split) as stream:
            assert not any(name.startswith("mix_") for batch in stream for name in batch)
    assert not any(name.startswith("mix_") for name in data.two_rows())


def test_the_loss_that_is_told_is_that_of_the_mixed_rows(tmp_path: Path, table: Snapshot) -> None:
    """Softmax of zeros: whatever the pictures, each class has the probability 1/2 in the first step."""
    losses = {}
    for name, mix in (("mixed", MIX), ("plain", Mix())):
        spec = run_of(tmp_path / name, table, epochs=1, global_batch_size=40, mix=mix)
        spec = dataclasses.replace(spec, model=SoftmaxSettings(), task=task(class_weights={"1": 3.0}))
        fit_here(spec)
        [batch] = batches(spec, table)
        share = batch["mix_share"] if mix.is_on else torch.ones(40)
        other = batch["mix_target"] if mix.is_on else batch["target"]
        weights = share * (1 + 2 * batch["target"]) + (1 - share) * (1 + 2 * other)
        [epoch] = epochs(spec)
        assert epoch["train_loss"] == pytest.approx(float(weights.mean()) * math.log(2), rel=1e-4)
        losses[name] = epoch["train_loss"]
    assert losses["mixed"] != losses["plain"]


def task(**loss: Any) -> Any:
    return from_settings(
        {"kind": "binary", "target": "label", "classes": [0, 1], "loss": {"kind": "cross_entropy", **loss}}
    )


def test_what_is_learnt_of_mixed_rows_is_the_same_on_two_ranks_and_in_parts(tmp_path: Path, table: Snapshot) -> None:
    runs = {
        "one": {}, "again": {}, "plain": {"mix": Mix()}, "parts": {"accumulation_steps": 2}, "two": {"num_processes": 2},
    }  # fmt: skip
    specs = {}
    for name, options in runs.items():
        spec = run_of(tmp_path / name, table, **({"mix": MIX, "epochs": 3, "global_batch_size": 16} | options))
        specs[name] = dataclasses.replace(spec, model=CnnSettings(depth=1, widths=(4,), norm="group"))
    for name, spec in specs.items():
        if name == "two":
            done = forked_ranks.run(spec)
            assert done.returncode == 0, done.output
        else:
            fit_here(spec)
    losses = {name: [epoch["train_loss"] for epoch in epochs(spec)] for name, spec in specs.items()}
    assert weights_manifest(specs["one"]) == weights_manifest(specs["again"])
    assert losses["one"] != pytest.approx(losses["plain"], rel=1e-3)
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)  # the same rows, float sums in another order
    assert losses["parts"] == pytest.approx(losses["one"], rel=1e-5)
    shares = [batch["mix_share"] for batch in batches(specs["one"], table)]
    halves = [batches(specs["two"], table, world_size=2, rank=rank) for rank in range(2)]
    for step, whole in enumerate(shares):
        together = torch.cat([half[step]["mix_share"] for half in halves])
        assert sorted(together.tolist()) == sorted(whole.tolist())


@pytest.mark.parametrize("at", [0, 7, 11])
def test_a_step_that_fails_leaves_no_trace_in_the_statistics_of_batch_norm(
    tmp_path: Path, table: Snapshot, at: int
) -> None:
    """Its forward pass has changed them already when another rank is lost, or the loss raises as here."""
    calls = 0

    def plain_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2 * at + 2:  # of the step's two calls the second
            raise RuntimeError("odd")
        return plain_loss(logits, label)

    resumed: list[Event] = []
    custom = task(kind="custom", function="tests:loss")
    undisturbed, hurt = (
        dataclasses.replace(run_of(tmp_path / name, table, epochs=3, mix=MIX), task=custom) for name in ("one", "other")
    )
    fit_here(undisturbed, functions=Functions(loss=plain_loss))
    with pytest.raises(RuntimeError, match="odd"):
        fit_here(hurt, functions=Functions(loss=loss))
    fit_here(hurt, functions=Functions(loss=plain_loss), on_event=resumed.append)
    assert [event.step for event in resumed if isinstance(event, Resumed)] == [at]
    expected, weights = last_checkpoint(undisturbed).weights, last_checkpoint(hurt).weights
    assert any("running_mean" in name for name in expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, weights[name]), name


def test_nor_does_a_rank_that_is_lost_while_it_warms_up(
    tmp_path: Path, table: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first step a run of several ranks, or of a compiled model, tries the model with that step's rows."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    undisturbed, hurt = (run_of(tmp_path / name, table, compile=True) for name in ("one", "other"))
    fit_here(undisturbed)
    calls, outputs_of = 0, Stepper._outputs_of

    def lost(self: Stepper, part: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        outputs = outputs_of(self, part)
        if calls == 2:
            raise RuntimeError("odd")
        return outputs

    monkeypatch.setattr(Stepper, "_outputs_of", lost)
    with pytest.raises(RuntimeError, match="odd"):
        fit_here(hurt)
    fit_here(hurt)
    expected, weights = last_checkpoint(undisturbed).weights, last_checkpoint(hurt).weights
    for name, tensor in expected.items():
        assert torch.equal(tensor, weights[name]), name


NUMBER = from_settings({"kind": "regression", "target": "label", "standardise": False})
BESIDE = (TensorSpec("photo", ("photo",), "uint8", picture=SPEC), TensorSpec("dense", ("weight",), "float32"))


def test_unfrozen_convolutions_in_channels_last_go_on_with_the_same_bits(tmp_path: Path, table: Snapshot) -> None:
    settings: dict[str, Any] = {
        "epochs": 3, "channels_last": True, "precision": "bf16", "ema_decay": 0.5, "mix": MIX,
        "freeze": ("towers",), "unfreeze": {2: ("towers.photo.5", "towers.photo.4"), 3: ("towers",)},
        "optimizer": OptimizerSettings(rates={"towers": 0.1}, decay_norm_and_bias=False),
        "task": task(label_smoothing=0.1),
    }  # fmt: skip
    expected, spec = (
        dataclasses.replace(run_of(tmp_path / name, table, **settings), model=CnnSettings(depth=2, widths=(4,)))
        for name in ("undisturbed", "stopped")
    )
    fit_here(expected)
    for step in (3, 4, 8):
        stop_at(spec, step)
    fit_here(spec)
    assert_equal(spec, expected)


@pytest.mark.parametrize(
    ("training", "changes", "message"),
    [
        (
            {"augment": {"image": (Flip(),)}}, {},
            r"training\.augment names image, which is no feature of pictures; there are photo",
        ),
        ({"augment": {"photo": (Flip(), ResizedCrop())}}, {}, r"training\.augment\.photo: resized_crop is number 2"),
        ({"mix": MIX}, {"task": NUMBER}, r"training\.mix: .* but task\.kind=regression has none"),
        ({"mix": MIX}, {"tensors": Tensors(BESIDE)}, r"training\.mix: .* and this one reads photo, dense; leave"),
        (
            {"mix": MIX, "augment": {}}, {"tensors": Tensors(BESIDE[1:])},
            r"training\.mix: .* reads one picture of each and nothing else, and this one reads dense",
        ),
        (
            {"mix": MIX, "global_batch_size": 7}, {},
            r"training\.mix: .* training\.global_batch_size=7 has fewer than two for each of streaming\.lanes=4",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_ranks_start(
    tmp_path: Path, table: Snapshot, training: Any, changes: Any, message: str
) -> None:
    spec = dataclasses.replace(run_of(tmp_path, table, **training), **changes)
    with pytest.raises(ConfigError, match=message):
        network_learner.learn(None, spec, lambda event: None, functions=NO_FUNCTIONS)  # type: ignore[arg-type]


def test_settings_come_from_yaml_and_are_refused_by_name() -> None:
    census = str(ROOT / "conf" / "census.yaml")
    text = "training.augment={photo: [{kind: resized_crop, scale: [0.3, 1]}, {kind: flip, vertical: 0.1}]}"
    settings = loading.load([census], [text])
    assert settings.training.augment == {"photo": (ResizedCrop(scale=(0.3, 1.0)), Flip(vertical=0.1))}
    with pytest.raises(ConfigError, match=r"training\.augment\.photo\.0.*padding"):
        loading.load([census], ["training.augment={photo: [{kind: crop, padding: 0}]}"])


def test_mixing_comes_from_yaml_and_is_refused_where_it_makes_no_sense() -> None:
    census, mix = str(ROOT / "conf" / "census.yaml"), "training.mix={mixup: 0.2, share: 0.5}"
    assert loading.load([census], [mix]).training.mix == Mix(mixup=0.2, share=0.5)
    for settings, message in (
        (["training.mix.mixup=-1"], r"training\.mix\.mixup: .*greater than or equal to 0"),
        (["training.mix.share=0.5"], r"training\.mix: share: nothing is mixed; set mixup or cutmix above 0"),
        ([mix, "model={kind: trees}"], r"training\.mix: model\.kind=trees learns from no pictures"),
        (
            ["training.augment={photo: [{kind: flip}]}", "model={kind: trees}"],
            r"training\.augment\.photo: model\.kind=trees learns from no pictures; set it to \[\], or choose a network",
        ),
        (
            [mix, "training.global_batch_size=15"],
            r"training\.global_batch_size=15 has fewer than two for each of streaming",
        ),
        ([mix, "task={kind: regression, target: age}"], r"training\.mix: .* task\.kind=regression has none"),
    ):
        with pytest.raises(ConfigError, match=message):
            loading.load([census], settings)
    # As an overlay takes back what the file below it asks for.
    loading.load([census], ["training.augment={photo: []}", "model={kind: trees}"])
    # Of an ensemble's trees only what they alone are asked for; what all members are, its networks do.
    flip, members = (
        "{photo: [{kind: flip}]}",
        "model={kind: ensemble, members: [{model: {kind: tabular}}, {model: {kind: trees}%s}]}",
    )
    loading.load([census], [f"training.augment={flip}", members % ""])
    with pytest.raises(ConfigError, match=r"training\.augment\.photo: model\.kind=trees learns from no pictures"):
        loading.load([census], [members % f", training: {{augment: {flip}}}"])

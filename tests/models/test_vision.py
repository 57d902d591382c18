"""Networks for pictures by name: built for what a table has, refused by name where they cannot be, the same row the same."""

import csv
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from mlspark import models
from mlspark.engines import eager
from mlspark.errors import ConfigError, RegistryError
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.as_is import AsIs
from mlspark.features.kinds.image import Image
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import architectures, backbones
from mlspark.models.pictures import key
from mlspark.models.vision import VisionSettings
from mlspark.pictures import decoder
from mlspark.pictures.spec import Mode, PictureSpec
from mlspark.registry import requirements
from mlspark.tasks.kinds import from_settings
from mlspark.training import batch_norm

from ..conftest import REAL_DATA

DENSE = TensorSpec("dense", ("age", "hours", "gain"), "float32")
IDS = TensorSpec("ids", ("job",), "int64", (7,))
TASK = from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]})


def photo(size: int | tuple[int, int], mode: Mode = "RGB", name: str = "photo", **statistics: Any) -> TensorSpec:
    height, width = (size, size) if isinstance(size, int) else size
    return TensorSpec(name, (name,), "uint8", picture=PictureSpec(mode, height, width, **statistics))


def rows(count: int, *specs: TensorSpec) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(count)
    values: dict[str, Any] = {}
    for spec in specs:
        if spec.picture:
            values[spec.name] = random.integers(0, 256, (count, *spec.shape), np.uint8)
        elif spec.cardinalities:
            values[spec.name] = random.integers(0, spec.cardinalities, (count, *spec.shape))
        else:
            values[spec.name] = random.normal(size=(count, *spec.shape)).astype(np.float32)
    return {name: torch.from_numpy(value) for name, value in values.items()}


# The least size of each family: with the small stem, where it has one.
LEAST = {
    "resnet18": 1, "resnext50": 1, "seresnext50": 1, "densenet121": 8, "inception_v4": 75, "inception_resnet_v2": 75,
    "xception": 5, "nasnet": 3, "mobilenet_v2": 1, "shufflenet_v2": 1, "squeezenet": 6, "resnet20": 1,
}  # fmt: skip
STANDARD = {"densenet121": 29, "xception": 7, "squeezenet": 17, "torchvision/squeezenet1_0": 21}
SMALL = {"mobilenet_v2", "shufflenet_v2", "squeezenet", "resnet20"}
ALL = [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.slow]) for name in LEAST]


def plan(name: str, size: int, **options: Any) -> backbones.Plan:
    return backbones.plan_of(name, PictureSpec("RGB", size, size), **options)


def test_least_size_is_found_without_computing() -> None:
    """The others are seen to run at their least size, and no smaller, below."""
    for name in ("squeezenet", "xception"):
        assert backbones.least_size(plan(name, 224)) == LEAST[name]
        if name in STANDARD:
            assert backbones.least_size(plan(name, 224, stem="standard")) == STANDARD[name]


@pytest.mark.parametrize("name", ALL)
def test_network_runs_at_its_least_size_and_a_row_has_the_same_bits_alone_and_in_a_batch(name: str) -> None:
    torch.manual_seed(0)
    settings, tensors = VisionSettings(backbone=name), Tensors((DENSE, IDS, photo(LEAST[name])))
    settings.check_tensors(tensors)
    model = models.build(settings, tensors, 3)
    outputs = model.train()(**rows(6, *tensors.specs))
    assert outputs.shape == (6, 3)
    outputs.sum().backward()
    assert not [name for name, weights in model.named_parameters() if weights.grad is None]
    files = eager.pack(settings, tensors, 3, model.state_dict())
    del model
    engine = eager.load(files)
    values = {name: value.numpy() for name, value in rows(20, *tensors.specs).items()}
    together = engine.run(values)
    assert np.isfinite(together).all()
    for row in (0, 5, 15, 19):
        alone = engine.run({name: value[row : row + 1] for name, value in values.items()})
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("squeezenet"),
        *(pytest.param(name, marks=pytest.mark.slow) for name, least in LEAST.items() if least > 1),
    ],
)
def test_no_network_reads_less_than_its_least_size(name: str) -> None:
    for stem, least in (("auto", LEAST[name]), *([("standard", STANDARD[name])] if name in STANDARD else [])):
        backbones.attempt(plan(name, least, stem=stem))
        with pytest.raises(ConfigError, match=f"its least size is {least} x {least}"):
            backbones.attempt(plan(name, least - 1, stem=stem))
        if name == "squeezenet":  # nothing else is said where numbers are computed
            network = backbones._built(plan(name, least - 1, stem=stem))[0].eval()
            with pytest.raises(RuntimeError):
                network(torch.zeros(2, 3, least - 1, least - 1))


@pytest.mark.parametrize(
    ("settings", "specs", "message"),
    [
        (
            {"backbone": "squeezenet"},
            (photo(5),),
            "model.backbone=squeezenet cannot read photo (3 x 5 x 5); its least size is 6 x 6: give the feature `size: 6`",
        ),
        (
            {"backbone": "squeezenet", "stem": "standard"},
            (photo((40, 16), "L"),),
            "cannot read photo (1 x 40 x 16) with model.stem=standard; its least size is 17 x 17",
        ),
        (
            {"backbone": "inception_v4", "stem": "small"},
            (photo(80),),
            "inception_v4 has no stem for small pictures; use model.stem=standard or auto",
        ),
        ({"backbone": "vit_tiny_patch16_224"}, (photo(12),), "read photo (3 x 12 x 12); its least size is 16 x 16"),
        ({"backbone": "torchvision/vit_b_16"}, (photo((32, 48)),), "model.backbone=torchvision/vit_b_16 cannot"),
        ({"backbone": "csatv2"}, (photo(512, "L"),), "cannot read photo (1 x 512 x 512)"),
        (
            {"backbone": "mobilenetv5_300m_enc"},
            (photo(256),),
            "for 2 pictures, not one vector for each; choose another",
        ),
        ({"backbone": "densenet121", "drop_path": 0.1}, (photo(32),), "densenet121 has no paths to drop; leave model."),
        ({"backbone": "squeezenet", "drop_path": 0.1}, (photo(32),), "squeezenet has no paths to drop"),
        ({"backbone": "resnet20", "drop_path": 0.1}, (photo(32),), "resnet20 has no paths to drop"),
        ({"backbone": "inception_v4", "checkpoint_gradients": True}, (photo(80),), "has no gradient checkpointing"),
        ({"backbone": "shufflenet_v2", "checkpoint_gradients": True}, (photo(80),), "has no gradient checkpointing"),
        ({"backbone": "resnet18"}, (DENSE,), "model.backbone=resnet18 needs a picture"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings: Any, specs: tuple[TensorSpec, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisionSettings(**settings).check_tensors(Tensors(specs))
    assert message in str(caught.value)


def test_a_rank_refuses_what_the_driver_refuses() -> None:
    with pytest.raises(ConfigError, match=r"cannot read photo \(3 x 5 x 5\); its least size is 6 x 6"):
        models.build(VisionSettings(backbone="squeezenet"), Tensors((photo(5),)), 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ResNet-50", "did you mean resnet50?"),
        ("SE-ResNeXt-50", "did you mean seresnext50?"),
        ("timm/resnet50", "did you mean resnet50?"),
        ("squeezenet1_0", "did you mean torchvision/squeezenet1_0?"),
        ("resnet81", "did you mean resnet"),
        ("convnext_tinny", "did you mean convnext_tiny"),
        ("torchvision/resnet_50", "did you mean torchvision/resnet50?"),
        ("qqqqqq", "`mlspark models --all` lists all of them"),
        ("hf-hub:timm/resnet18.a1_in1k", "networks are not fetched from elsewhere"),
        ("torchvision/fcn_resnet50", "is no classifier of pictures"),
        ("torchvision/fasterrcnn_resnet50_fpn", "is no classifier of pictures"),
    ],
)
def test_an_unknown_name_is_answered_with_the_one_that_is_meant(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisionSettings(backbone=name).check(TASK)
    assert str(caught.value).startswith(f"model.backbone={name}")
    assert message in str(caught.value)


def test_names_of_the_packages_are_known_with_tags_too() -> None:
    for name in ("convnext_atto", "torchvision/googlenet", "resnet50.a1_in1k", "resnet18"):
        VisionSettings(backbone=name).check(TASK)
    assert len(architectures.everything()) > 1000
    assert {known.family for known in architectures.KNOWN.values()} == {
        "ResNet", "ResNeXt", "SENet", "DenseNet", "Inception-v4", "Inception-ResNet-v2", "Xception", "NASNet",
        "MobileNetV2", "ShuffleNetV2", "SqueezeNet", "ResNet for 32 pixels",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize(
    "name", ["resnet18", "torchvision/resnet18", "shufflenet_v2", "squeezenet", "resnet20", "torchvision/googlenet",
             "vit_tiny_patch16_224", "torchvision/efficientnet_b0"],
)  # fmt: skip
def test_pictures_of_any_channels_and_sides_are_read(name: str, mode: Mode) -> None:
    tensors = Tensors((photo((40, 32), mode),))
    settings = VisionSettings(backbone=name)
    outputs = models.build(settings, tensors, 2).train()(**rows(3, *tensors.specs))
    assert outputs.shape == (3, 2)


def test_a_small_stem_is_taken_under_64_pixels_and_said() -> None:
    settings = VisionSettings(backbone="resnet18")
    for size, stem in ((63, "small (as a side is under 64 pixels)"), (64, "standard")):
        tensors = Tensors((photo((80, size)),))
        assert settings.remarks(tensors) == [
            f"resnet18 of timm for photo (3 x 80 x {size}): {11_168_832 if size == 63 else 11_176_512:,} parameters, "
            f"512 features, stem {stem}"
        ]
        network: Any = models.build(settings, tensors, 2)
        conv = network.backbone["photo"].conv1
        assert (conv.kernel_size, conv.stride) == (((3, 3), (1, 1)) if size == 63 else ((7, 7), (2, 2)))
    [line] = VisionSettings(backbone="nasnet").remarks(Tensors((photo(32),)))
    assert line.endswith("stem standard (the network has no small one, though a side is under 64 pixels)")


def test_weights_are_those_of_the_seed_whatever_was_tried_before() -> None:
    tensors, weights = Tensors((DENSE, photo(16))), []
    settings = VisionSettings(backbone="mobilenet_v2", hidden=(8,))
    for is_tried in (False, True):
        torch.manual_seed(7)
        if is_tried:
            settings.check_tensors(tensors)
        weights.append(models.build(settings, tensors, 2).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_columns_and_pictures_meet_in_the_head() -> None:
    tensors = Tensors((DENSE, IDS, photo(8), photo(12, "L", "thumb")))
    model: Any = models.build(VisionSettings(backbone="resnet20", hidden=(10,)), tensors, 2).eval()
    embedded = model.head.embeddings[0].embedding_dim
    assert model.head.hidden[0].in_features == -(-(64 + 64 + 3 + embedded) // 4) * 4
    values = rows(5, *tensors.specs)
    outputs = model(**values)
    for spec in tensors.specs:  # each of them matters
        other = dict(values) | {spec.name: rows(5, DENSE, IDS, photo(8), photo(12, "L", "thumb"))[spec.name].flip(0)}
        assert not torch.allclose(model(**other), outputs)
    names = [name for name, _ in model.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}
    assert "backbone.photo.layer1.0.conv1.weight" in names
    assert "head.linear.bias" in names


@pytest.mark.parametrize("is_single", [False, True])
def test_gradient_checkpoints_change_no_bit(is_single: bool) -> None:
    """Neither outputs, gradients nor the statistics of batch norm, which would be taken twice; frozen ones stay frozen."""
    tensors, states = Tensors((photo(16),)), []
    for checkpoint_gradients in (False, True):
        torch.manual_seed(0)
        settings = VisionSettings(
            backbone="mobilenetv2_035", checkpoint_gradients=checkpoint_gradients, dropout=0.2, drop_path=0.2
        )
        model = models.build(settings, tensors, 2).train()
        norms = batch_norm.BatchNorms(model)
        with norms.frozen_for_one_value() if is_single else torch.enable_grad():
            outputs = model(**rows(1 if is_single else 6, *tensors.specs))
        outputs.square().sum().backward()
        gradients = {name: weights.grad for name, weights in model.named_parameters()}
        states.append((outputs, gradients, dict(model.named_buffers())))
        assert all(
            norm.training and norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)
        )
    (outputs, gradients, buffers), others = states
    assert torch.equal(outputs, others[0])
    for mine, theirs in ((gradients, others[1]), (buffers, others[2])):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_batch_norm_over_all_ranks_keeps_the_activations_of_timms_layers() -> None:
    tensors = Tensors((photo(16),))
    model = models.build(VisionSettings(backbone="mobilenet_v2"), tensors, 2).eval()
    outputs = model(**rows(3, *tensors.specs))
    synced = batch_norm.synced(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) == 52
    assert torch.equal(synced(**rows(3, *tensors.specs)), outputs)


def test_a_branch_is_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    tensors = Tensors((photo(16),))
    model = models.build(VisionSettings(backbone="mobilenet_v2", drop_path=0.5), tensors, 2)
    values = rows(4, *tensors.specs)
    assert not torch.equal(model.train()(**values), model(**values))
    assert torch.equal(model.eval()(**values), model(**values))


def test_pictures_may_be_called_like_what_torch_has() -> None:
    tensors = Tensors(tuple(photo(8, name=name) for name in ("items", "items_", "training", "half")))
    assert len({key(spec.name) for spec in tensors.specs}) == 4
    for kind in ({"kind": "vision", "backbone": "resnet20"}, {"kind": "cnn", "widths": [4]}, {"kind": "softmax"}):
        assert models.build(models.from_json(kind), tensors, 2)(**rows(2, *tensors.specs)).shape == (2, 2)


def test_a_version_names_what_it_needs_and_refuses_other_weights() -> None:
    assert VisionSettings(backbone="resnet18").distributions() == ("timm", "torchvision")
    assert VisionSettings(backbone="resnet20").distributions() == ()
    tensors = Tensors((photo(8),))
    model = models.build(VisionSettings(backbone="resnet20"), tensors, 2)
    with pytest.raises(RegistryError, match=r"weights\.safetensors: not the weights of the network"):
        eager.pack(VisionSettings(backbone="resnet32"), tensors, 2, model.state_dict())


def test_an_encoder_makes_only_what_a_model_reads() -> None:
    spec = PictureSpec("RGB", 8, 8)
    encoder = Encoder(
        pipeline="things",
        rows=3,
        inputs={"age": "float", "job": "int", "photo": "binary"},
        features=(
            AsIs(name="age", column="age", ids=0),
            AsIs(name="job", column="job", ids=7),
            Image(name="photo", column="photo", spec=spec, file_bytes=100.0),
        ),
    )
    for names in (["dense"], ["dense", "ids"], ["photo"]):
        of_model = encoder.only(names)
        assert [spec.name for spec in of_model.specs] == names
        assert set(of_model.specs) <= set(encoder.specs)
    rows = pa.table({"age": pa.array([1.0, 2.0], pa.float32()), "job": [3, 4], "photo": [b"no picture", b""]})
    np.testing.assert_array_equal(ArrowEncoder(encoder.only(["dense"])).transform(rows)["dense"], [[1.0], [2.0]])


def test_requirements_of_a_version_name_the_packages_that_make_its_network() -> None:
    tensors = Tensors((photo(8),))
    for name, are_needed in (("shufflenet_v2", True), ("resnet20", False)):
        settings = VisionSettings(backbone=name)
        files = eager.pack(settings, tensors, 2, models.build(settings, tensors, 2).state_dict())
        lines = {line.partition("==")[0] for line in requirements.pinned(files)}
        assert ({"timm", "torchvision"} <= lines) == are_needed
        assert {"pillow", "simplejpeg"} <= lines


def test_settings_survive_json() -> None:
    settings = VisionSettings(backbone="resnet18", inputs=("photo", "dense"), hidden=(4,), stem="small")
    assert models.from_json(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("inputs", "names"),
    [(None, ["dense", "ids", "photo"]), (("photo", "dense"), ["dense", "photo"]), (("ids",), ["ids"])],
)
def test_a_model_reads_the_tensors_that_it_names(inputs: Any, names: list[str]) -> None:
    tensors = Tensors((DENSE, IDS, photo(8)))
    assert [spec.name for spec in VisionSettings(backbone="resnet20", inputs=inputs).chosen(tensors).specs] == names


def test_names_of_tensors_that_there_are_not_are_refused() -> None:
    tensors = Tensors((DENSE, photo(8)))
    with pytest.raises(
        ConfigError, match=r"model\.inputs names photos, which the features do not make; did you mean photo\?"
    ):
        VisionSettings(backbone="resnet20", inputs=("photos",)).chosen(tensors)
    with pytest.raises(ConfigError, match=r"names ids, which the features do not make; there are dense, photo"):
        VisionSettings(backbone="resnet20", inputs=("ids",)).chosen(tensors)
    with pytest.raises(ValueError, match="at least 1 item"):
        VisionSettings(backbone="resnet20", inputs=())


@pytest.mark.parametrize("kind", [{"kind": "tabular"}, {"kind": "softmax"}, {"kind": "cnn", "widths": [4]}])
def test_every_kind_of_model_takes_inputs_and_its_engine_gets_more(kind: dict[str, Any]) -> None:
    of_table = Tensors((DENSE, IDS, photo(8)))
    settings = models.from_json({**kind, "inputs": ["dense"] if kind["kind"] == "tabular" else ["photo"]})
    tensors = settings.chosen(of_table)
    settings.check_tensors(tensors)
    model = models.build(settings, tensors, 2).eval()
    engine = eager.load(eager.pack(settings, tensors, 2, model.state_dict()))
    values = rows(16, *of_table.specs)
    expected = model(**tensors.pick(values)).detach().numpy()
    np.testing.assert_allclose(engine.run({name: value.numpy() for name, value in values.items()}), expected, atol=1e-6)


@pytest.mark.slow
def test_the_published_weights_of_cifars_resnet_fit_by_name_and_score_what_they_should() -> None:
    """0.8060 of the 4,000 JPEGs: names, shortcut, normalisation and decoder are those that the weights were trained with."""
    file = REAL_DATA / "pretrained-cifar10-resnet" / "resnet20-12fca82f.th"
    pictures = REAL_DATA / "cifar10-jpeg"
    if not file.is_file() or not pictures.is_dir():
        pytest.skip(f"no {file} or {pictures}: set MLSPARK_DATA")
    spec = photo(32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = models.build(VisionSettings(backbone="resnet20"), Tensors((spec,)), 10).eval()
    weights = {}
    for name, value in torch.load(file, map_location="cpu", weights_only=True)["state_dict"].items():
        first, _, rest = name.removeprefix("module.").partition(".")
        weights[f"head.linear.{rest}" if first == "linear" else f"backbone.photo.{first}.{rest}"] = value
    model.load_state_dict(weights)
    with zipfile.ZipFile(pictures / "test.zip") as archive, (pictures / "test.csv").open() as labels:
        entries = list(csv.DictReader(labels))
        assert spec.picture is not None
        decoded = [decoder.encoded(archive.read(entry["path"]), spec.picture) for entry in entries]
    num_right = 0
    with torch.inference_mode():
        for start in range(0, len(entries), 500):
            outputs = model(photo=torch.from_numpy(np.stack(decoded[start : start + 500])))
            truth = torch.tensor([int(entry["label"]) for entry in entries[start : start + 500]])
            num_right += int((outputs.argmax(1) == truth).sum())
    assert num_right / len(entries) == pytest.approx(0.8060, abs=0.0005)

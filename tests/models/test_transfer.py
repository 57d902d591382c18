"""Weights of one network for another: names, heads, colours; and files of which some are no weights at all."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mlspark.errors import ConfigError
from mlspark.models import transfer, weight_files
from mlspark.models.initial import InitialWeights
from mlspark.models.weights import to_bytes


class Net(nn.Module):
    def __init__(self, channels: int = 3, outputs: int = 4) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(channels, 5, 3, bias=False), "norm": nn.BatchNorm2d(5)})
        self.head = nn.Linear(5, outputs)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body["norm"](self.body["conv"](pictures)).mean((2, 3)))
        return outputs


def settings(**others: Any) -> InitialWeights:
    return InitialWeights(file="other.pth", **others)


def fit(model: nn.Module, weights: Any, **others: Any) -> transfer.Fitted:
    return transfer.fit(model, weights, settings(**others), "model.kind=net")


def torch_file(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_equal_networks_take_all_weights() -> None:
    one, other = Net(), Net()
    fitted = fit(other, one.state_dict())
    assert (fitted.random, fitted.notes) == ([], [])
    other.load_state_dict(fitted.weights)
    pictures = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(other.eval()(pictures), one.eval()(pictures), rtol=0, atol=0)


def test_names_are_mapped_by_whole_parts_and_the_longest_that_fits() -> None:
    weights = {
        f"net.{name.replace('body', 'b').replace('head', 'classifier')}": value
        for name, value in Net().state_dict().items()
    }
    fitted = fit(Net(), weights, names={"net": "", "net.b": "body", "net.classifier": "head"})
    assert fitted.weights.keys() == Net().state_dict().keys()
    body = Net().body.state_dict()
    fitted = fit(Net(), body, names={"": "body"}, head="new")
    assert fitted.random == ["head.weight", "head.bias"]


def test_wrappers_go_and_a_place_for_all_names_is_found() -> None:
    average = AveragedModel(nn.DataParallel(Net())).state_dict()  # type: ignore[no-untyped-call]
    fitted = fit(
        Net(), {f"_orig_mod.{name}" if name != "n_averaged" else name: value for name, value in average.items()}
    )
    assert fitted.notes == [
        "_orig_mod. taken off all names",
        "module. taken off all names",
        "module. taken off all names",
    ]
    fitted = fit(Net(), Net().body.state_dict(), head="replace")
    assert fitted.notes == ["body. put in front of all names", "head.weight, head.bias random"]
    published = {**Net().body.state_dict(), "fc.weight": torch.ones(9, 5), "fc.bias": torch.ones(9)}
    with pytest.raises(ConfigError, match=r"a place here: fc\.weight, fc\.bias; .*without: \[fc\] to leave them"):
        fit(Net(), published, head="replace")
    assert set(fit(Net(), published, head="replace", without=("fc",)).random) == {"head.weight", "head.bias"}


def test_two_places_for_all_names_are_not_guessed_between() -> None:
    two = nn.ModuleDict({"left": Net().body, "right": Net().body, "head": nn.Linear(5, 1)})
    with pytest.raises(
        ConfigError, match=r"missing there: left\.conv\.weight, .*; .*names to map what they are called"
    ):
        fit(two, Net().body.state_dict(), head="new")


@pytest.mark.parametrize(
    ("head", "outputs", "random"),
    [("replace", 7, 2), ("replace", 4, 0), ("new", 4, 2), ("new", 7, 2), ("keep", 4, 0)],
)
def test_head_is_replaced_where_it_does_not_fit(head: Any, outputs: int, random: int) -> None:
    assert len(fit(Net(outputs=outputs), Net().state_dict(), head=head).random) == random


def test_head_is_the_last_layer_or_what_the_model_calls_it() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU())
    assert transfer.head_of(model) == "1"
    model.head_name = "0"  # type: ignore[assignment]
    assert transfer.head_of(model) == "0"


def test_all_that_does_not_fit_is_named_in_one_error() -> None:
    weights = Net().state_dict()
    del weights["body.norm.bias"]
    weights |= {"tail.weight": torch.ones(2), "head.bias": torch.ones(9)}
    with pytest.raises(ConfigError) as caught:
        fit(Net(), weights)
    assert str(caught.value) == (
        "model.weights: other.pth does not fit model.kind=net: missing there: body.norm.bias; without a place here: "
        "tail.weight; of another shape: head.bias (9,), here (4,); set model.weights.names to map what they are called, "
        "without: [tail] to leave them out"
    )
    with pytest.raises(ConfigError, match=r"head\.weight \(4, 5\), here \(7, 5\), .*set model\.weights\.head: replace"):
        fit(Net(outputs=7), Net().state_dict())
    with pytest.raises(ConfigError, match=r"names: no name in other\.pth begins with nodule; there are body, head"):
        fit(Net(), Net().state_dict(), names={"nodule": ""})
    with pytest.raises(ConfigError, match=r"names: head\.\w+ becomes body\.\w+|becomes x\.weight, as another one does"):
        fit(Net(), {"a.weight": torch.ones(1), "b.weight": torch.ones(1)}, names={"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.bias", torch.tensor([0.0, 1.0, float("nan"), 1.0]), r"head\.bias is not finite"),
        ("head.bias", torch.tensor([0.0, 1.0, float("inf"), 1.0]), r"head\.bias is not finite"),
        ("head.bias", torch.tensor([0, 1, 2, 3]), r"head\.bias is int64"),
        ("head.bias", torch.ones(4, dtype=torch.complex64), r"head\.bias is complex64"),
        # Claims 8 TB and has 4 bytes: no memory is taken for it.
        (
            "head.weight",
            torch.ones(1).expand(2_000_000, 1_000_000),
            r"head\.weight \(2000000, 1000000\), here \(4, 5\)",
        ),
    ],
)
def test_what_is_no_weight_is_refused(name: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(Net(), Net().state_dict() | {name: value})


def test_half_precision_becomes_the_network_s() -> None:
    weights = {name: value.half() if value.is_floating_point() else value for name, value in Net().state_dict().items()}
    assert fit(Net(), weights).weights["head.weight"].dtype == torch.float32


def test_counts_that_old_files_lack_are_not_missing() -> None:
    weights = {name: value for name, value in Net().state_dict().items() if not name.endswith("num_batches_tracked")}
    assert fit(Net(), weights).weights["body.norm.num_batches_tracked"] == 0


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_weights_over_colours_become_those_of_timm_for_other_channels(channels: int) -> None:
    from timm.models import adapt_input_conv

    weights = Net().state_dict()
    fitted = fit(Net(channels), weights)
    expected = adapt_input_conv(channels, weights["body.conv.weight"])
    torch.testing.assert_close(fitted.weights["body.conv.weight"], expected)
    assert fitted.notes[0].startswith("body.conv.weight ")
    if channels == 1:  # a grey picture gives what it gives as one of three equal colours
        grey, model, coloured = torch.rand(2, 1, 6, 6), Net(1), Net()
        model.load_state_dict(fitted.weights)
        coloured.load_state_dict(weights)
        torch.testing.assert_close(model.eval()(grey), coloured.eval()(grey.expand(2, 3, 6, 6)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"epoch": 3, "state_dict": w}, lambda w: {"model": w, "best": 0.5}]
)
def test_files_of_torch_and_safetensors_are_read(wrap: Any) -> None:
    weights = Net().state_dict()
    for content in (torch_file(wrap(weights)), to_bytes(weights)):
        read = weight_files.read(content, "some.pth")
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[name], value) for name, value in weights.items())


class Code:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def packed(content: bytes) -> bytes:
    """A file of torch whose members are compressed: a little one may become a huge one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as other:
        for member in archive.infolist():
            other.writestr(member.filename, archive.read(member))
    return stream.getvalue()


def test_files_that_are_no_weights_are_refused_with_words(tmp_path: Path) -> None:
    whole, zeros = torch_file(Net().state_dict()), torch_file({"a": torch.zeros(100_000)})
    cases = {
        r"holds code or Python objects beside tensors, which are not read": torch_file({"a": Code(tmp_path / "ran")}),
        r"holds code or Python objects beside": torch_file(Net()),
        r"a damaged file of torch\.save": whole[: len(whole) // 2],
        r"that unpack to [\d,]+, which torch\.save does not do": packed(zeros),
        r"holds list, not tensors by name": torch_file([torch.ones(1)]),
        r"no tensors by name, neither below state_dict, .* its top, which has epoch": torch_file({"epoch": 3}),
        r"lr of 2 entries are no tensors": torch_file({"a": torch.ones(1), "lr": 0.5}),
        r"a: sparse, quantized or without numbers": torch_file({"a": torch.eye(3).to_sparse()}),
        r"b: sparse, quantized or without numbers": torch_file({"b": torch.ones(2, device="meta")}),
        r"a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
        r"15 bytes that are neither a safetensors file": b"<html>404</html"[:15],
        r"neither a safetensors file \(.*header too large": struct.pack("<Q", 2**62) + b"{}",
        r"0 bytes that are neither": b"",
        r"neither a safetensors file": to_bytes(Net().state_dict())[:-4],
        r"(holds code|a damaged file)": b"\x80\x02nothing",
    }
    for message, content in cases.items():
        with pytest.raises(ConfigError, match=f"^some.pth: .*{message}"):
            weight_files.read(content, "some.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give one of file, version, url, package, got none"),
        ({"file": "a.pth", "version": "a/1"}, "give one of file, version, url, package, got file, version"),
        ({"url": "https://example.org/a.pth"}, "url needs sha256"),
        ({"file": "a.pth", "sha256": "12ab"}, "pattern"),
        ({"file": "a.pth", "mean": (0.5,)}, "mean has 1 channels and std 0"),
        ({"file": "a.pth", "mean": (0.5,), "std": (0.0,)}, "greater than 0"),
        ({"file": "a.pth", "names": {"module.": ""}}, "pattern"),
    ],
)
def test_settings_that_say_too_little_or_too_much_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InitialWeights(**values)


def test_the_place_is_no_part_of_the_identity() -> None:
    digest = "0" * 64
    one, other = InitialWeights(file="a.pth", sha256=digest), InitialWeights(version="a/3", sha256=digest)
    assert one.identity() == other.identity() != InitialWeights(file="a.pth", sha256=digest, head="new").identity()

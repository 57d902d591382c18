"""`mlspark models`: names that may be given, and what networks cost."""

import json
from pathlib import Path

import pytest

from mlspark.commands import main as cli
from mlspark.errors import ConfigError

from .test_main import mlspark


def test_figures_of_a_network_by_name(tmp_path: Path) -> None:
    done = mlspark("models", "squeezenet", "resnet20", "--size", "32", "--json", "models.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    header, squeezenet, resnet20, *legend = done.stdout.splitlines()
    assert header.split() == ["name", "made", "by", "parameters", "least", "size", "GFLOPs", "ms"]
    assert squeezenet.split()[:6] == ["squeezenet", "torchvision", "squeezenet1_1", "722,496", "6", "32"]
    assert resnet20.split()[:7] == ["resnet20", "mlspark", "resnet20", "269,072", "1", "32", "0.08"]
    assert "batch of 16, float32, one thread, here" in legend[1]
    first, second = json.loads((tmp_path / "models.json").read_text())
    assert (first["family"], first["least_size"], second["parameters"]) == ("SqueezeNet", 6, 269_072)
    first_layer, stage = 32 * 32 * 16 * 3 * 9, 32 * 32 * 16 * 16 * 9  # multiplications; each is followed by an addition
    assert second["flops"] == 2 * (first_layer + 6 * stage + 2 * (5 * stage + stage // 2))
    assert 0 < second["milliseconds"] < 60_000


def test_all_names_are_listed(tmp_path: Path) -> None:
    done = mlspark("models", "--all", "--json", "names.json", folder=tmp_path)
    names = json.loads((tmp_path / "names.json").read_text())
    assert done.stdout.split() == names
    assert {"resnet50", "nasnet", "convnext_tiny", "torchvision/resnet50", "torchvision/squeezenet1_0"} <= set(names)
    assert "torchvision/fcn_resnet50" not in names


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"ResNet50 is no network of mlspark, timm or torchvision; did you mean resnet50\?"
    ):
        cli.app(["models", "ResNet50"], standalone_mode=False)

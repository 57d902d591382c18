"""Networks for pictures by name: the known ones, and every classifier of timm and torchvision. Runs anywhere.

Imports timm and torchvision only for names that are not in `KNOWN`.
"""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from typing import Literal

from mlspark.errors import ConfigError

TORCHVISION = "torchvision/"
"""What names of torchvision's networks begin with; those of timm stand alone."""


Package = Literal["mlspark", "timm", "torchvision"]


@dataclass(frozen=True)
class Architecture:
    """A network by its name in YAML, and which package makes it of which name."""

    name: str
    package: Package
    upstream: str
    """Name in the package."""
    family: str = ""
    """Usual name of the family; empty for those that are not in `KNOWN`."""


def _families() -> dict[str, Architecture]:
    timm = {
        "ResNet": {f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
        "ResNeXt": {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d"},
        "SENet": {
            "seresnet50": "seresnet50",
            "seresnext50": "seresnext50_32x4d",
            "seresnext101": "seresnext101_32x8d",
            "senet154": "senet154",
        },
        "DenseNet": {f"densenet{depth}": f"densenet{depth}" for depth in (121, 161, 169, 201)},
        "Inception-v4": {"inception_v4": "inception_v4"},
        "Inception-ResNet-v2": {"inception_resnet_v2": "inception_resnet_v2"},
        "Xception": {"xception": "legacy_xception"},
        "NASNet": {"nasnet": "nasnetalarge"},
        "MobileNetV2": {"mobilenet_v2": "mobilenetv2_100"},
    }
    torchvision = {
        "ShuffleNetV2": {"shufflenet_v2": "shufflenet_v2_x1_0"},
        "SqueezeNet": {"squeezenet": "squeezenet1_1"},
    }
    ours = {"ResNet for 32 pixels": {f"resnet{depth}": f"resnet{depth}" for depth in (20, 32, 44, 56, 110)}}
    packages: dict[Package, dict[str, dict[str, str]]] = {"timm": timm, "torchvision": torchvision, "mlspark": ours}
    return {
        name: Architecture(name, package, upstream, family)
        for package, families in packages.items()
        for family, names in families.items()
        for name, upstream in names.items()
    }


KNOWN = _families()
"""Networks that have short names here, by these names."""


def find(name: str) -> Architecture:
    """Return the network of that name.

    Raises:
        ConfigError: there is none, or the package that would know is not installed; proposes names that are meant.
    """
    if name in KNOWN:
        return KNOWN[name]
    if ":" in name:
        raise ConfigError(
            f"model.backbone={name}: networks are not fetched from elsewhere; give a name of timm's registry"
        )
    require()
    package: Package = "torchvision" if name.startswith(TORCHVISION) else "timm"
    upstream = name.removeprefix(TORCHVISION)
    if upstream in (_torchvision() if package == "torchvision" else [*_timm(), *_timm_with_tags()]):
        return Architecture(name, package, upstream)
    if package == "torchvision" and upstream in _other_torchvision():
        raise ConfigError(
            f"model.backbone={name} is no classifier of pictures: it has other inputs, or several outputs; choose one of "
            f"`mlspark models --all`"
        )
    meant = " or ".join(_close(name))
    raise ConfigError(
        f"model.backbone={name} is no network of mlspark, timm or torchvision; "
        + (f"did you mean {meant}?" if meant else "`mlspark models --all` lists all of them")
    )


def everything() -> list[str]:
    """Return all names: the known ones, timm's, torchvision's.

    Raises:
        ConfigError: timm or torchvision is not installed.
    """
    require()
    return list(dict.fromkeys([*KNOWN, *_timm(), *(f"{TORCHVISION}{name}" for name in _torchvision())]))


def is_installed() -> bool:
    """Return whether timm and torchvision can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in ("timm", "torchvision"))


def require() -> None:
    """Raise ConfigError where timm or torchvision is not installed."""
    if not is_installed():
        raise ConfigError('timm and torchvision are not installed: pip install "mlspark[pictures]"')


def _close(name: str) -> list[str]:
    """Return the names that are meant, best first: the same but for case and marks, else the most alike; three at most."""
    names = everything()
    bare = {_bare(known): known for known in reversed(names)}
    for wanted in (_bare(name), _bare(name.rpartition("/")[2]), _bare(f"{TORCHVISION}{name}")):
        if wanted in bare:
            return [bare[wanted]]
    return difflib.get_close_matches(name, names, n=3, cutoff=0.7)


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _timm() -> list[str]:
    import timm

    return list(timm.list_models())


def _timm_with_tags() -> list[str]:
    """Return names with the tag of published weights, such as resnet50.a1_in1k."""
    import timm

    return list(timm.list_pretrained())


def _torchvision() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _other_torchvision() -> list[str]:
    from torchvision import models

    return list(models.list_models())

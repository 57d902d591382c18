"""Networks of timm, torchvision and mlspark without their last layer: pictures in, a vector of features for each out."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mlspark.errors import ConfigError
from mlspark.models import architectures
from mlspark.models.architectures import Architecture
from mlspark.models.cifar_resnet import CifarResNet
from mlspark.pictures.spec import PictureSpec

SMALL_UNDER = 64
"""Pictures with a side below so many pixels get the small stem, where the network has one."""
_MARK = 10_007
"""Outputs by which the last layer of a network is found."""
_STEMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ResNet": (("conv1", "maxpool"),),  # of timm and of torchvision
    "DenseNet": (("features.conv0", "features.pool0"),),
    "ShuffleNetV2": (("conv1", "maxpool"),),
    "SqueezeNet": (("features.0", "features.2"),),
    "Xception": (("conv1", ""),),
    "EfficientNet": (("conv_stem", ""), ("features.0", "")),
    "MobileNetV2": (("features.0", ""),),
    "MobileNetV3": (("conv_stem", ""), ("features.0", "")),
}
"""Class of a network -> where its first convolution and the pooling after it may be."""


@dataclass(frozen=True)
class Plan:
    """What is to be built for one picture."""

    architecture: Architecture
    channels: int
    height: int
    width: int
    stem: Literal["auto", "standard", "small"] = "auto"
    drop_path: float = 0.0
    checkpoint_gradients: bool = False

    @property
    def wants_small_stem(self) -> bool:
        return self.stem == "small" or (self.stem == "auto" and min(self.height, self.width) < SMALL_UNDER)


@dataclass(frozen=True)
class Trial:
    """What came of a forward pass without numbers."""

    num_features: int
    has_small_stem: bool
    num_parameters: int
    flops: int
    """Operations for one picture; a multiplication and an addition are two."""


@dataclass(frozen=True)
class Backbone:
    """A network, (B, C, H, W) float32 -> (B, features) float32."""

    network: nn.Module
    num_features: int


def make(plan: Plan, *, called: str) -> Backbone:
    """Return the network with random weights of torch's global generator; raises what `attempt` raises."""
    num_features = attempt(plan, called=called).num_features
    return Backbone(_built(plan)[0], num_features)


def attempt(plan: Plan, *, called: str = "pictures") -> Trial:
    """Return what `make` would make, after a forward pass on torch's meta device, which computes shapes alone.

    Args:
        plan: what is to be built.
        called: name of the pictures, for the error.

    Raises:
        ConfigError: it cannot be built so, or reads no pictures of this size; names the least size that it reads.
    """
    try:
        return _attempt(plan)
    except _UnreadableError as error:
        raise ConfigError(_size_problem(plan, called, str(error))) from error.__cause__


def least_size(plan: Plan) -> int | None:
    """Return the least side of square pictures that the network reads; None where none up to its own size is read."""
    low, high = 1, max(own_size(plan.architecture))
    if not _reads(plan, high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _reads(plan, middle) else (middle + 1, high)
    return low


def own_size(architecture: Architecture) -> tuple[int, int]:
    """Return height and width of the pictures that the published weights are for."""
    if architecture.package == "timm":
        _, height, width = _timm_config(architecture)["input_size"]
        return height, width
    if architecture.package == "mlspark":
        return 32, 32
    return (299, 299) if architecture.upstream.startswith("inception") else (224, 224)


class _UnreadableError(Exception):
    """The network was built, and its forward pass failed."""


def _reads(plan: Plan, side: int) -> bool:
    # With the stem that pictures of this size would get.
    changed = Plan(plan.architecture, plan.channels, side, side, plan.stem)
    try:
        _attempt(changed)
    except (_UnreadableError, ConfigError):
        return False
    return True


def _size_problem(plan: Plan, called: str, why: str) -> str:
    least = least_size(plan)
    problem = (
        f"model.backbone={plan.architecture.name} cannot read {called} ({plan.channels} x {plan.height} x {plan.width})"
        + ("" if plan.stem == "auto" else f" with model.stem={plan.stem}")
    )
    own = " x ".join(map(str, own_size(plan.architecture)))
    if least is None:
        return f"{problem}: {why}; it was made for 3 x {own}, choose another"
    if min(plan.height, plan.width) < least:
        return f"{problem}; its least size is {least} x {least}: give the feature `size: {least}` or more, or choose another"
    return f"{problem}: {why}; it was made for 3 x {own}, and reads {plan.channels} x {least} x {least}"


def _attempt(plan: Plan) -> Trial:
    with _as_before(), torch.device("meta"):
        network, has_small_stem = _built(plan)
        pictures = torch.empty(2, plan.channels, plan.height, plan.width)
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                features = network.eval()(pictures)
        except Exception as error:  # whatever a network of others raises
            raise _UnreadableError(_short(error)) from error
    if not isinstance(features, torch.Tensor) or features.dim() != 2 or len(features) != 2:
        returned = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise ConfigError(
            f"model.backbone={plan.architecture.name} returns {returned} for 2 pictures, not one vector for each; choose "
            f"another, or use model.kind=custom"
        )
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Trial(features.shape[1], has_small_stem, num_parameters, counter.get_total_flops() // len(pictures))


@contextmanager
def _as_before() -> Iterator[None]:
    """Leave torch's generator as it was: what is tried draws none of the numbers of what is built."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _built(plan: Plan) -> tuple[nn.Module, bool]:
    """Return the network and whether its stem is the small one."""
    name = plan.architecture.name
    makers: dict[str, Callable[[Plan], nn.Module]]
    makers = {"timm": _of_timm, "torchvision": _of_torchvision, "mlspark": _of_ours}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are deprecated, and of weights that nobody asked for
        network = makers[plan.architecture.package](plan)
    if plan.checkpoint_gradients:
        _checkpoint_gradients(network, name)
    has_small_stem = plan.architecture.package == "mlspark" or (plan.wants_small_stem and _make_stem_small(network))
    if plan.stem == "small" and not has_small_stem:
        raise ConfigError(f"model.backbone={name} has no stem for small pictures; use model.stem=standard or auto")
    return network, has_small_stem


def _of_timm(plan: Plan) -> nn.Module:
    architectures.require()
    import timm

    options: dict[str, Any] = {"in_chans": plan.channels, "drop_path_rate": plan.drop_path or None}
    if _timm_config(plan.architecture).get("fixed_input_size"):
        options["img_size"] = (plan.height, plan.width)
    network = _called(
        plan, lambda: timm.create_model(plan.architecture.upstream, pretrained=False, num_classes=0, **options)
    )
    return _with_paths_dropped(plan, network)


def _of_torchvision(plan: Plan) -> nn.Module:
    architectures.require()
    from torchvision import models

    name = plan.architecture.upstream
    options: dict[str, Any] = {"stochastic_depth_prob": plan.drop_path} if plan.drop_path else {}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = plan.height
    if name.startswith("maxvit"):
        options["input_size"] = plan.height, plan.width
    network = _called(plan, lambda: models.get_model(name, weights=None, num_classes=_MARK, **options))
    _take_last_layer_out(network)
    if plan.channels != 3:
        _change_channels(network, plan.channels)
    return _with_paths_dropped(plan, network)


def _of_ours(plan: Plan) -> nn.Module:
    network = CifarResNet(int(plan.architecture.upstream.removeprefix("resnet")), plan.channels)
    return _with_paths_dropped(plan, network)


def _called(plan: Plan, make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that another package makes."""
    name = plan.architecture.name
    try:
        return make()
    except TypeError as error:
        if plan.drop_path and ("drop_path_rate" in str(error) or "stochastic_depth_prob" in str(error)):
            raise _no_paths(name) from error
        raise _not_built(plan, error) from error
    except Exception as error:  # whatever other packages raise
        raise _not_built(plan, error) from error


def _not_built(plan: Plan, error: Exception) -> ConfigError:
    return ConfigError(
        f"model.backbone={plan.architecture.name} cannot be built for pictures of {plan.channels} channels and "
        f"{plan.height} x {plan.width} pixels ({_short(error)}); choose another, or other `mode` and `size` of the feature"
    )


def _no_paths(name: str) -> ConfigError:
    return ConfigError(f"model.backbone={name} has no paths to drop; leave model.drop_path out")


def _with_paths_dropped(plan: Plan, network: nn.Module) -> nn.Module:
    # Some take the setting and do nothing with it.
    if plan.drop_path and not any(
        type(module).__name__ in ("DropPath", "StochasticDepth") for module in network.modules()
    ):
        raise _no_paths(plan.architecture.name)
    return network


def _checkpoint_gradients(network: nn.Module, name: str) -> None:
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except Exception as error:  # none such, or an assertion
        raise ConfigError(
            f"model.backbone={name} has no gradient checkpointing; leave model.checkpoint_gradients out"
        ) from error


def _take_last_layer_out(network: nn.Module) -> None:
    """Have torchvision's network return what its last layer gets."""
    [name] = [
        name
        for name, module in network.named_modules()
        if _MARK in (getattr(module, "out_features", 0), getattr(module, "out_channels", 0))
    ]
    _put(network, name, nn.Identity())


def _change_channels(network: nn.Module, channels: int) -> None:
    """Have the first convolution read other channels than three; weights are summed or repeated, as timm does it."""
    from timm.models import adapt_input_conv

    name, conv = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    changed = _like(conv, channels, conv.kernel_size, conv.stride, conv.padding)
    with torch.no_grad():
        changed.weight.copy_(adapt_input_conv(channels, conv.weight))
        if changed.bias is not None and conv.bias is not None:
            changed.bias.copy_(conv.bias)
    _put(network, name, changed)


def _make_stem_small(network: nn.Module) -> bool:
    """Have the first convolution keep the size, 3 x 3 pixels, and take the pooling after it out; say whether it could be."""
    modules = dict(network.named_modules())
    for conv_name, pool_name in _STEMS.get(type(network).__name__, ()):
        if conv_name not in modules:
            continue
        name, conv = next(
            (f"{conv_name}.{name}".rstrip("."), module)
            for name, module in modules[conv_name].named_modules()
            if isinstance(module, nn.Conv2d)
        )
        if max(conv.kernel_size) > 3:
            small = _like(conv, conv.in_channels, (3, 3), (1, 1), (1, 1))
            nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
            _put(network, name, small)
        else:
            conv.stride = (1, 1)
        if pool_name:
            _put(network, pool_name, nn.Identity())
        return True
    return False


def _like(conv: nn.Conv2d, channels: int, kernel: Any, stride: Any, padding: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, conv.out_channels, kernel, stride, padding, bias=conv.bias is not None)


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


def _timm_config(architecture: Architecture) -> dict[str, Any]:
    """Return what timm says of the weights that it publishes for a network."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(architecture.upstream)
    return {"input_size": (3, 224, 224)} if config is None else config.to_dict()  # type: ignore[no-untyped-call]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def plan_of(
    name: str,
    spec: PictureSpec,
    *,
    stem: Literal["auto", "standard", "small"] = "auto",
    drop_path: float = 0.0,
    checkpoint_gradients: bool = False,
) -> Plan:
    """Return what is to be built of the network of that name for pictures of a feature.

    Raises:
        ConfigError: there is no such network.
    """
    channels, height, width = spec.shape
    return Plan(architectures.find(name), channels, height, width, stem, drop_path, checkpoint_gradients)

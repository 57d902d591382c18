"""From settings to a module with fresh weights."""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from mlspark.config import ModelSettings
from mlspark.errors import ConfigError
from mlspark.features.layout import Layout
from mlspark.models.tabular import TabularNet

Factory = Callable[[Layout], nn.Module]


def build(settings: ModelSettings, layout: Layout) -> nn.Module:
    """Return the model that `settings` ask for, for batches of `layout`, with random weights of torch's generator.

    Its forward takes dense (B, F) float32 and categorical (B, K) int64 and gives logits (B,) float32.

    Raises:
        ConfigError: model.factory cannot be imported, or returns no module.
    """
    if settings.kind == "custom":
        return called(imported(settings.factory, "model.factory"), layout, settings.factory)
    return TabularNet(
        len(layout.dense),
        layout.cardinalities,
        hidden=settings.hidden,
        embedding_dim_max=settings.embedding_dim_max,
        dropout=settings.dropout,
    )


def called(factory: Factory, layout: Layout, name: str) -> nn.Module:
    """Return the module that `factory` makes."""
    model = factory(layout)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def imported(path: str, setting: str) -> Callable[..., Any]:
    """Return the function at `path`, package.module:function, that `setting` names.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{setting}={path} cannot be imported ({error}); give package.module:function, of a module that is "
            f"installed on every node or found through PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"{setting}={path} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]

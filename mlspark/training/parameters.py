"""A model's parameters by name: which of them are trained, from which epoch on, and at which learning rate."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mlspark.errors import ConfigError
from mlspark.training.settings import OptimizerSettings, TrainingSettings

_FEW = 12
"""Most names that a message lists."""


def is_below(name: str, prefix: str) -> bool:
    """Return whether a parameter or module is the one called `prefix`, or a part of it."""
    return name == prefix or name.startswith(f"{prefix}.")


class Freezing:
    """Which parameters of a model are trained in which epoch, as `training.freeze` and `.unfreeze` say."""

    def __init__(self, settings: TrainingSettings, model: nn.Module) -> None:
        """Find the parameters that the settings name; changes nothing.

        Raises:
            ConfigError: a prefix meets no parameter, or one of `unfreeze` none that is still frozen; or an epoch would
                train nothing.
        """
        self._model = model
        trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        for prefix in settings.freeze:
            check_prefix(model, prefix, "training.freeze")
        self._frozen = {
            name: weight for name, weight in trainable.items() if any(is_below(name, of) for of in settings.freeze)
        }
        self._thaws = {epoch - 1: prefixes for epoch, prefixes in sorted(settings.unfreeze.items())}
        self._freeze = settings.freeze
        self.first_epochs: dict[str, int | None] = dict.fromkeys(trainable, 0) | dict.fromkeys(self._frozen)
        """Parameter -> first epoch, from 0, that trains it; None: none does."""
        for epoch, prefixes in self._thaws.items():
            for prefix in prefixes:
                check_prefix(model, prefix, f"training.unfreeze.{epoch + 1}")
                self._thaw(prefix, epoch)
        if trainable and len(self._frozen) == len(trainable):
            raise ConfigError(
                f"training.freeze={list(settings.freeze)} leaves no parameter that epoch 1 trains; leave one out, like the "
                f"last layer: the model has {_listed(model)}"
            )

    def apply(self, epoch: int) -> bool:
        """Have an epoch, from 0, train what it should; return whether that is another choice than before."""
        changed = False
        for name, weight in self._frozen.items():
            first = self.first_epochs[name]
            is_trained = first is not None and first <= epoch
            changed |= weight.requires_grad != is_trained
            weight.requires_grad_(is_trained)
        return changed

    def keep_statistics(self, epoch: int) -> None:
        """Have the batch norm layers that are frozen in an epoch use their running statistics, and take none."""
        for name, module in self._model.named_modules():
            if isinstance(module, _NormBase) and self._is_frozen(name, epoch):
                module.training = False

    def _thaw(self, prefix: str, epoch: int) -> None:
        names = [name for name in self._frozen if is_below(name, prefix) and self.first_epochs[name] is None]
        if not names:
            raise ConfigError(
                f"training.unfreeze.{epoch + 1}: {prefix} is not frozen in epoch {epoch}; training.freeze is "
                f"{list(self._freeze)}"
            )
        self.first_epochs.update(dict.fromkeys(names, epoch))

    def _is_frozen(self, module: str, epoch: int) -> bool:
        if not any(is_below(module, prefix) for prefix in self._freeze):
            return False
        thawed = (prefix for first, prefixes in self._thaws.items() if first <= epoch for prefix in prefixes)
        return not any(is_below(module, prefix) for prefix in thawed)


def groups(
    settings: OptimizerSettings, model: nn.Module, first_epochs: Mapping[str, int | None]
) -> list[tuple[float, bool, list[nn.Parameter]]]:
    """Return (factor of the learning rate, whether weights decay, parameters) of each group that an optimizer treats alike.

    Parameters that are unfrozen in another epoch are another group: some optimizers count steps for a group.

    Raises:
        ConfigError: a prefix of optimizer.rates meets no parameter.
    """
    for prefix in settings.rates:
        check_prefix(model, prefix, "training.optimizer.rates")
    alike: dict[tuple[float, bool, int | None], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        decays = settings.decay_norm_and_bias or weight.ndim > 1
        key = (_rate(settings.rates, name), decays, first_epochs.get(name))
        alike.setdefault(key, []).append(weight)
    return [(rate, decays, weights) for (rate, decays, _), weights in alike.items()]


def check_prefix(model: nn.Module, prefix: str, setting: str) -> None:
    """Raise ConfigError where no parameter of the model is called `prefix` or lies below; proposes one that is like it."""
    if any(is_below(name, prefix) for name, _ in model.named_parameters()):
        return
    known = list(dict.fromkeys(_prefixes(model)))
    close = difflib.get_close_matches(prefix, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"the model has {_listed(model)}"
    raise ConfigError(f"{setting}: no parameter of the model is called {prefix}, or begins with {prefix}.; {hint}")


def _rate(rates: Mapping[str, float], name: str) -> float:
    """Return the factor of the longest prefix that meets a parameter."""
    return rates[max(met, key=len)] if (met := [prefix for prefix in rates if is_below(name, prefix)]) else 1.0


def _prefixes(model: nn.Module) -> Iterator[str]:
    for name, _ in model.named_parameters():
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            yield ".".join(parts[:count])


def _listed(model: nn.Module) -> str:
    """Return the names that a prefix of few parts can have: deep enough that there are several."""
    names: Sequence[str] = []
    for depth in range(1, 5):
        names = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name, _ in model.named_parameters()))
        if len(names) > 1:
            break
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")

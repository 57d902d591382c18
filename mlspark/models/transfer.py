"""Weights of one network for another: names mapped, colours made grey, the head left random, all else refused by name."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from mlspark.errors import ConfigError
from mlspark.models.initial import InitialWeights

logger = logging.getLogger(__name__)

_WRAPPERS = ("module", "_orig_mod")
"""First parts of all names by DataParallel, DDP and averages, and by torch.compile."""
_COUNTERS = ("n_averaged", "num_batches_tracked")
"""Last parts of counts that some writers leave out and no output depends on."""
_COLOURS = 3
_FEW = 8


@dataclass
class Fitted:
    """Weights as the network takes them."""

    weights: dict[str, torch.Tensor]
    """Tensors for `load_state_dict`; those that stay random are absent."""
    random: list[str]
    """Names of those that stay random."""
    notes: list[str] = field(default_factory=list)
    """What was done to the weights, for people."""


def fit(model: nn.Module, weights: Mapping[str, torch.Tensor], settings: InitialWeights, name: str) -> Fitted:
    """Return the weights that `model` begins with.

    Args:
        model: network that they are for; is not changed.
        weights: as they were read.
        settings: how names are mapped, and what becomes of the head.
        name: what the network is called in errors.

    Raises:
        ConfigError: weights are missing, left over, of another shape or type, or not finite; names all of them.
    """
    expected = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    fitted = Fitted({}, [])
    offered, front = _renamed(weights, expected, settings, fitted.notes)
    head = head_of(model)
    is_free = {key for key in expected if settings.head != "keep" and _is_below(key, head)}
    problems = _Problems([name.removeprefix(front) for name in offered if name not in expected])
    problems.placed = [name.removeprefix(front) for name in offered if name in expected]
    for key, value in expected.items():
        if key not in offered:
            if key in is_free:
                fitted.random.append(key)
            elif key.rpartition(".")[2] in _COUNTERS:
                fitted.weights[key] = value
            else:
                problems.missing.append(key)
            continue
        taken = _coloured(offered[key], value, key, fitted.notes)
        if key in is_free and (settings.head == "new" or taken.shape != value.shape):
            fitted.random.append(key)
        elif taken.shape != value.shape:
            problems.shapes[key] = f"{key} {tuple(offered[key].shape)}, here {tuple(value.shape)}"
        elif taken.is_floating_point() != value.is_floating_point() or taken.is_complex():
            problems.others.append(f"{key} is {str(taken.dtype).removeprefix('torch.')}")
        elif not bool(taken.isfinite().all()):
            problems.others.append(f"{key} is not finite")
        else:
            fitted.weights[key] = taken.to(value.dtype).contiguous()
    if not fitted.weights and not problems.missing and not problems.shapes:
        problems.missing = list(expected)
    problems.refuse(settings, name, head)
    if settings.head != "keep" and fitted.random:
        fitted.notes.append(f"{', '.join(fitted.random)} random")
    return fitted


def head_of(model: nn.Module) -> str:
    """Return the name of the layer that gives the outputs: the model's `head_name`, else its last layer with weights."""
    named = getattr(model, "head_name", "")
    if named:
        return str(named)
    holders = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    return holders[-1] if holders else ""


@dataclass
class _Problems:
    unexpected: list[str]
    placed: list[str] = field(default_factory=list)
    """Names that have a place."""
    missing: list[str] = field(default_factory=list)
    shapes: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def refuse(self, settings: InitialWeights, name: str, head: str) -> None:
        """Raise ConfigError with all that is wrong, and the setting that mends it."""
        parts = list(self._parts(settings, head))
        if parts:
            raise ConfigError(f"model.weights: {settings.place} does not fit {name}: {'; '.join(parts)}")

    def _parts(self, settings: InitialWeights, head: str) -> Iterator[str]:
        if self.missing:
            yield f"missing there: {_listed(self.missing)}"
        if self.unexpected:
            yield f"without a place here: {_listed(self.unexpected)}"
        if self.shapes:
            yield f"of another shape: {_listed(list(self.shapes.values()))}"
        if self.others:
            yield f"no weights: {_listed(self.others)}"
            return
        remedies = []
        of_head = [*self.missing, *self.shapes]
        if of_head and all(_is_below(key, head) for key in of_head):
            remedies.append("head: replace for a new last layer")
        elif self.missing:
            remedies.append("names to map what they are called")
        if self.unexpected:
            remedies.append(f"without: [{', '.join(self._alone())}] to leave them out")
        if remedies:
            yield f"set model.weights.{', '.join(remedies)}"

    def _alone(self) -> list[str]:
        """Return the shortest first parts of the unexpected names that no name with a place has."""
        alone: dict[str, None] = {}
        for name in self.unexpected:
            parts = name.split(".")
            prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            alone[next((of for of in prefixes if not any(_is_below(placed, of) for placed in self.placed)), name)] = (
                None
            )
        return list(alone)[:_FEW]


def _renamed(
    weights: Mapping[str, torch.Tensor], expected: Iterable[str], settings: InitialWeights, notes: list[str]
) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights by the network's names, and what was put in front of all of them."""
    known = set(expected)
    offered = {name: value for name, value in weights.items() if name.rpartition(".")[2] != "n_averaged"}
    if settings.names:
        offered = _mapped(offered, settings)
    else:
        while wrapper := next((part for part in _WRAPPERS if _is_wrapped(offered, known, part)), ""):
            offered = {name.removeprefix(f"{wrapper}."): value for name, value in offered.items()}
            notes.append(f"{wrapper}. taken off all names")
    offered = {
        name: value for name, value in offered.items() if not any(_is_below(name, part) for part in settings.without)
    }
    fits_badly = 2 * len(known & offered.keys()) < len(offered)
    if not settings.names and fits_badly and (front := _front(offered, known)):
        notes.append(f"{front}. put in front of all names")
        return {f"{front}.{name}": value for name, value in offered.items()}, f"{front}."
    return offered, ""


def _mapped(offered: Mapping[str, torch.Tensor], settings: InitialWeights) -> dict[str, torch.Tensor]:
    mapped: dict[str, torch.Tensor] = {}
    unused = set(settings.names)
    for name, value in offered.items():
        met = [part for part in settings.names if not part or _is_below(name, part)]
        new = name
        if met:
            longest = max(met, key=len)
            unused.difference_update(met)
            rest = name[len(longest) :].lstrip(".")
            new = ".".join(part for part in (settings.names[longest], rest) if part)
        if new in mapped:
            raise ConfigError(f"model.weights.names: {name} becomes {new}, as another one does; map them apart")
        mapped[new] = value
    if unused:
        raise ConfigError(
            f"model.weights.names: no name in {settings.place} begins with {', '.join(sorted(unused))}; there are "
            f"{', '.join(_first_parts(list(offered)))}"
        )
    return mapped


def _is_wrapped(offered: Mapping[str, torch.Tensor], known: set[str], part: str) -> bool:
    has_place = any(_is_below(name, part) for name in known)
    return bool(offered) and not has_place and all(name.startswith(f"{part}.") for name in offered)


def _front(offered: Mapping[str, torch.Tensor], known: set[str]) -> str:
    """Return the one module below which most names have a place; "" where there is none, or there are several."""
    fits: dict[str, int] = {}
    for name in known:
        parts = name.split(".")
        for count in range(1, len(parts)):
            if ".".join(parts[count:]) in offered:
                fits[".".join(parts[:count])] = fits.get(".".join(parts[:count]), 0) + 1
    best = [front for front, count in fits.items() if 2 * count > len(offered)]
    return best[0] if len(best) == 1 else ""


def _coloured(offered: torch.Tensor, expected: torch.Tensor, name: str, notes: list[str]) -> torch.Tensor:
    """Return a convolution's weights over three colours for pictures of 1, 2 or 4 channels, as timm makes them."""
    if offered.ndim != 4 or expected.ndim != 4 or offered.shape[1] != _COLOURS or not offered.is_floating_point():
        return offered
    channels, others = expected.shape[1], (offered.shape[0], *offered.shape[2:])
    if channels not in (1, 2, 4) or others != (expected.shape[0], *expected.shape[2:]):
        return offered
    if channels == 1:
        notes.append(f"{name} summed over the colours, for grey pictures")
        return offered.float().sum(1, keepdim=True)
    notes.append(f"{name} repeated for {channels} channels, times {_COLOURS}/{channels}")
    return offered.float().repeat(1, 2, 1, 1)[:, :channels] * (_COLOURS / channels)


def _is_below(name: str, parts: str) -> bool:
    return name == parts or name.startswith(f"{parts}.")


def _first_parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))[:_FEW]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")

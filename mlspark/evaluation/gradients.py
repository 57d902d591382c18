"""Gradients of a network's outputs with respect to a row: integrated along a path, or at the last convolutions. CPU."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from mlspark.engines.eager import Eager
from mlspark.evaluation.attribution import GRADIENTS, Arrays, AttributionError, Contributions
from mlspark.features.tensors import Tensors
from mlspark.models.pictures import key
from mlspark.models.tabular_net import PeriodicEmbedding
from mlspark.tasks.intervals import Floats

_LEAST_CONVOLUTIONS = 2
"""Convolutions from which on there is a map: the only one of a vision transformer cuts the picture into patches."""
_VECTORS = "vectors of dense"
_TOWERS = ("backbone", "towers")
"""Where our networks keep the part that reads a picture, by its key."""


def integrated(engine: Eager, tensors: Arrays, factors: Floats, *, reference: Arrays, steps: int) -> Contributions:
    """Return integrated gradients; see `attribution.contributions`.

    The path is straight, from the mean of the reference rows in floats, pixels and the vectors that ids and, by sines and
    cosines, floats are embedded as; Gauss-Legendre quadrature.
    """
    spec, network = engine.tensors, engine.network.requires_grad_(False)
    path = _Path(network, spec, _torch(spec, tensors), _torch(spec, reference))
    weights = torch.from_numpy(factors)

    def numbers(share: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the explained numbers at a share of the way, and what their gradients are of."""
        points, inputs = path.at(share)
        with path.embedding(points):
            return points, (network(**inputs).double() * weights).sum(1)

    totals = [torch.zeros_like(length) for length in path.lengths]
    places, shares = np.polynomial.legendre.leggauss(steps)
    for place, share in zip((places + 1) / 2, shares / 2, strict=True):
        points, found = numbers(float(place))
        gradients = torch.autograd.grad(found.sum(), points, allow_unused=True)
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total += float(share) * gradient.double()
    with torch.no_grad():
        (_, start), (_, output) = numbers(0.0), numbers(1.0)
    parts = {name: total * length for name, total, length in zip(path.names, totals, path.lengths, strict=True)}
    names, values, pixels = [*spec.columns("dense")], [], {}
    if spec.num_dense:
        of_vectors = parts[_VECTORS].reshape(len(factors), spec.num_dense, -1).sum(2) if _VECTORS in parts else 0.0
        values.append((parts["dense"] + of_vectors).numpy())
    for column in spec.columns("ids"):
        names.append(column)
        values.append(parts[f"ids.{column}"].sum(1, keepdim=True).numpy())
    for picture in spec.pictures:
        names.append(picture)
        pixels[picture] = parts[picture].sum(1).numpy()
        values.append(pixels[picture].sum(axis=(1, 2))[:, None])
    columns = np.concatenate(values, axis=1)
    return Contributions(GRADIENTS, tuple(names), columns, start.numpy(), output.numpy(), pixels)


def outputs_at_start(engine: Eager, tensors: Arrays, *, reference: Arrays) -> Floats:
    """Return the outputs (n, O) where the path of `integrated` begins."""
    spec = engine.tensors
    with torch.no_grad():
        path = _Path(engine.network, spec, _torch(spec, tensors), _torch(spec, reference))
        points, inputs = path.at(0.0)
        with path.embedding(points):
            return np.asarray(engine.network(**inputs).double().numpy())


class _Path:
    """The way from the mean of other rows to the rows, in floats, pixels and the vectors of ids and floats.

    Vectors of floats are parts of their own, because sines of many periods change too often on the way from float to float:
    of a column far from the mean no thousand steps add up (1,024 steps at 2,600 periods: 5 times the whole difference).
    """

    def __init__(
        self,
        network: nn.Module,
        spec: Tensors,
        rows: Mapping[str, torch.Tensor],
        others: Mapping[str, torch.Tensor],
    ) -> None:
        self._rows = rows
        embeddings = _embeddings(network, spec, rows) if spec.cardinalities else []
        periodic = [module for module in network.modules() if isinstance(module, PeriodicEmbedding)]
        periodic = periodic if spec.num_dense and len(periodic) == 1 else []
        self._embeddings = [*embeddings, *periodic]
        floats = [name for name in rows if name != "ids"]
        self.names = [*floats, *(f"ids.{column}" for column in spec.columns("ids")), *(_VECTORS for _ in periodic)]
        """Parts of a row: dense, pictures, the vectors of each column of ids, and those of dense."""
        self._num_floats = len(floats)
        self._ends = [rows[name].float() for name in floats]
        self._starts = [others[name].float() for name in floats]
        with torch.no_grad():
            for starts_or_ends, of in ((self._ends, rows), (self._starts, others)):
                ids = of["ids"].unbind(1) if embeddings else ()
                inputs = [*ids, *(of["dense"] for _ in periodic)]
                starts_or_ends += [each(values) for each, values in zip(self._embeddings, inputs, strict=True)]
        self._starts = [start.mean(0, keepdim=True) for start in self._starts]
        self.lengths = [(end - start).double() for start, end in zip(self._starts, self._ends, strict=True)]
        """End less start of each part."""

    def at(self, share: float) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Return the parts at a share of the way, and with them the network's inputs."""
        points = [
            (start + share * (end - start)).requires_grad_()
            for start, end in zip(self._starts, self._ends, strict=True)
        ]
        return points, {**self._rows, **dict(zip(self.names[: self._num_floats], points, strict=False))}

    @contextmanager
    def embedding(self, points: Sequence[torch.Tensor]) -> Iterator[None]:
        """Have the embeddings return the vectors among `points` meanwhile."""

        def returns(vectors: torch.Tensor) -> Any:
            return lambda module, inputs, output: vectors

        vectors = points[self._num_floats :]
        pairs = zip(self._embeddings, vectors, strict=True)
        with _removed([embedding.register_forward_hook(returns(of_column)) for embedding, of_column in pairs]):
            yield


def class_activations(engine: Eager, tensors: Arrays, factors: Floats) -> dict[str, Floats]:
    """Return Grad-CAM (n, H, W), 0 and more, of each picture whose part of the network has convolutions.

    The layer is the last whose output is spread over the picture: (B, channels, more than one place).
    """
    network, found = engine.network.requires_grad_(False), {}
    rows = _torch(engine.tensors, tensors)
    for name in engine.tensors.pictures:
        tower = _tower(network, engine.tensors, name)
        if tower is None:
            continue
        inputs = {**rows, name: rows[name].float().requires_grad_()}
        spread: list[torch.Tensor] = []
        num_convolutions = 0

        def look(module: nn.Module, _: Any, output: Any, spread: list[torch.Tensor] = spread) -> None:
            nonlocal num_convolutions
            num_convolutions += isinstance(module, nn.Conv2d)
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                spread[:] = [output] if num_convolutions >= _LEAST_CONVOLUTIONS else []

        with _removed([module.register_forward_hook(look) for module in tower.modules()]):
            number = (network(**inputs).double() * torch.from_numpy(factors)).sum()
        if spread:
            [gradient] = torch.autograd.grad(number, spread)
            found[name] = _map(spread[0].detach(), gradient, rows[name].shape[-2:])
    return found


def _map(activation: torch.Tensor, gradient: torch.Tensor, size: Sequence[int]) -> Floats:
    """Return the map (n, *size) of activations and gradients (n, channels, places)."""
    # The sum over places, not the mean: maps of networks whose layers have other numbers of places can be added up.
    weights = gradient.sum((2, 3), keepdim=True)
    values = functional.relu((weights * activation).sum(1, keepdim=True))
    return np.asarray(functional.interpolate(values, tuple(size), mode="bilinear", align_corners=False)[:, 0].double())


def _tower(network: nn.Module, spec: Tensors, picture: str) -> nn.Module | None:
    """Return the part of the network that reads a picture: the whole of one that is not ours and reads no other."""
    for name in _TOWERS:
        towers = getattr(network, name, None)
        if isinstance(towers, nn.ModuleDict) and key(picture) in towers:
            return towers[key(picture)]
    return network if len(spec.pictures) == 1 else None


def _embeddings(network: nn.Module, spec: Tensors, rows: Mapping[str, torch.Tensor]) -> list[nn.Module]:
    """Return the embedding of each column of ids, in the columns' order.

    Raises:
        AttributionError: there is not one for each column.
    """
    called: list[tuple[nn.Module, torch.Tensor]] = []

    def look(module: nn.Module, inputs: Any, _: Any) -> None:
        called.append((module, inputs[0]))

    embeddings = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    with _removed([module.register_forward_hook(look) for module in embeddings]), torch.no_grad():
        network(**rows)
    columns = rows["ids"].unbind(1)
    is_each = len(called) == len(columns) == len({id(module) for module, _ in called})
    if not is_each or not all(torch.equal(ids, column) for (_, ids), column in zip(called, columns, strict=True)):
        raise AttributionError(
            f"ids ({', '.join(spec.columns('ids'))}): this network does not take each column through a torch.nn.Embedding "
            f"of its own, in the columns' order, so what each adds cannot be told"
        )
    return [module for module, _ in called]


@contextmanager
def _removed(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Take hooks off at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _torch(spec: Tensors, arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in spec.pick(arrays).items()}

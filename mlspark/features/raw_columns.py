"""Which raw columns the inputs of a model are made of. Runs anywhere."""

from collections.abc import Sequence
from typing import NamedTuple

from mlspark.features.encoder import Encoder
from mlspark.features.tensors import Tensors


class Input(NamedTuple):
    """One number of a row, or one picture, as a model reads it."""

    tensor: str
    place: int
    """In "dense" and "ids"; of a picture 0."""
    columns: tuple[str, ...]
    """Raw columns that it is made of."""


def inputs_of(encoder: Encoder, tensors: Tensors) -> list[Input]:
    """Return a model's inputs: floats, ids, then pictures, each in the order of its tensor.

    Args:
        encoder: of the version.
        tensors: that the model reads.
    """
    inputs = []
    for name in ("dense", "ids", *tensors.pictures):
        if tensors.get(name) is None:
            continue
        owners = [
            tuple(feature.inputs) for feature in encoder.features for output in feature.outputs if output.tensor == name
        ]
        inputs += [Input(name, place, columns) for place, columns in enumerate(owners)]
    return inputs


def groups(encoder: Encoder, inputs: Sequence[Input]) -> tuple[tuple[str, ...], ...]:
    """Return the raw columns in groups that no input goes across: most stand alone.

    Columns that a feature is made of together are in one group, and so is what each of them is with others.
    """
    group_of = {name: {name} for name in encoder.inputs}
    for each in inputs:
        joined = set().union(*(group_of[name] for name in each.columns))
        group_of |= dict.fromkeys(joined, joined)
    read = {name for each in inputs for name in each.columns}
    ordered = (
        tuple(other for other in encoder.inputs if other in group_of[name]) for name in encoder.inputs if name in read
    )
    return tuple(dict.fromkeys(ordered))

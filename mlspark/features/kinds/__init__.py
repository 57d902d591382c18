"""The kinds of features: one module for each, with its settings, its fitted state, its SQL, its Arrow code and its words.

A further kind is one more module and its line in `KINDS`: the settings, the fitted encoder, fitting, encoding and explaining
are computed from it.
"""

from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from mlspark.features.kinds import (
    as_is,
    buckets,
    cyclic,
    frequency,
    image,
    index,
    ngrams,
    number,
    one_hot,
    target,
    vector,
)
from mlspark.features.kinds import hash as hashing
from mlspark.features.kinds.kind import Declared, Fitted, Kind

KINDS: dict[str, Kind] = {
    "number": number.KIND,
    "buckets": buckets.KIND,
    "index": index.KIND,
    "one_hot": one_hot.KIND,
    "target": target.KIND,
    "frequency": frequency.KIND,
    "hash": hashing.KIND,
    "ngrams": ngrams.KIND,
    "cyclic": cyclic.KIND,
    "vector": vector.KIND,
    "as_is": as_is.KIND,
    "image": image.KIND,
}
"""`kind` in YAML -> kind of feature."""


class _DeclaredUnion:
    """Has pydantic take for `Declared` the declared class of one of the kinds."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        classes = tuple(kind.declared for kind in KINDS.values())
        return handler.generate_schema(Annotated[Union[classes], Field(discriminator="kind")])  # noqa: UP007


class _FittedUnion:
    """Has pydantic take for `Fitted` a fitted class of one of the kinds."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        by_kind: dict[str, list[type[Fitted]]] = {}
        for fitted in (fitted for kind in KINDS.values() for fitted in kind.fitted):
            by_kind.setdefault(fitted.model_fields["kind"].default, []).append(fitted)
        # Fitted classes that share a `kind` differ in `what`.
        members = tuple(
            classes[0] if len(classes) == 1 else Annotated[Union[tuple(classes)], Field(discriminator="what")]  # noqa: UP007
            for classes in by_kind.values()
        )
        return handler.generate_schema(Annotated[Union[members], Field(discriminator="kind")])  # noqa: UP007


DeclaredFeature = Annotated[Declared, _DeclaredUnion()]
FittedFeature = Annotated[Fitted, _FittedUnion()]

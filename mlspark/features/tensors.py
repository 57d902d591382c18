"""Which named tensors a row becomes, and which columns of a feature table stand in each. Runs anywhere."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from mlspark.pictures.spec import PictureSpec

V = TypeVar("V")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a batch and the columns it is made of."""

    name: str
    """Name: "dense", "ids", or the name of a picture."""
    columns: tuple[str, ...]
    """Columns of the feature table, in the order in which they stand in the tensor."""
    dtype: Literal["float32", "int64", "uint8"]
    cardinalities: tuple[int, ...] = ()
    """Cardinalities of "ids": ids of each column run from 0 to its cardinality - 1."""
    picture: PictureSpec | None = None
    """What the pictures of its one column are; None: its columns are numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row: (columns,), or (C, H, W) of a picture."""
        return (len(self.columns),) if self.picture is None else self.picture.shape

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "columns": list(self.columns),
            "dtype": self.dtype,
            "cardinalities": list(self.cardinalities),
            **({} if self.picture is None else {"picture": self.picture.to_json()}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TensorSpec":
        picture = PictureSpec.from_json(value["picture"]) if "picture" in value else None
        return cls(value["name"], tuple(value["columns"]), value["dtype"], tuple(value["cardinalities"]), picture)


@dataclass(frozen=True)
class Tensors:
    """The tensors that a model gets for a row, and the columns that stand beside them in a batch.

    A tensor without columns is absent.
    """

    specs: tuple[TensorSpec, ...]
    target: str = "label"
    """Column of the target."""
    target_dtype: Literal["float32", "int64", "float64"] = "float32"
    row_id: str = "row_id"
    """Column of the int64 hash of the row's content."""
    weight: str | None = None
    """Column of the sample weights; None: all rows weigh the same."""

    def get(self, name: str) -> TensorSpec | None:
        """Return the tensor of that name, None where it is absent."""
        return next((spec for spec in self.specs if spec.name == name), None)

    def only(self, names: Collection[str]) -> "Tensors":
        """Return those of these names, in the order of the table."""
        return replace(self, specs=tuple(spec for spec in self.specs if spec.name in names))

    def pick(self, values: Mapping[str, V]) -> dict[str, V]:
        """Return what `values` holds for these tensors; it may hold more."""
        return {spec.name: values[spec.name] for spec in self.specs}

    def columns(self, name: str) -> tuple[str, ...]:
        """Return the columns of the tensor of that name, none where it is absent."""
        spec = self.get(name)
        return () if spec is None else spec.columns

    @property
    def num_dense(self) -> int:
        """Number of columns of "dense", 0 where it is absent."""
        return len(self.columns("dense"))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Cardinalities of the columns of "ids", empty where it is absent."""
        ids = self.get("ids")
        return () if ids is None else ids.cardinalities

    @property
    def pictures(self) -> dict[str, PictureSpec]:
        """Tensor -> what its pictures are, of those that hold pictures."""
        return {spec.name: spec.picture for spec in self.specs if spec.picture is not None}

    def to_json(self) -> dict[str, Any]:
        return {
            "specs": [spec.to_json() for spec in self.specs],
            "target": self.target,
            "target_dtype": self.target_dtype,
            "row_id": self.row_id,
            "weight": self.weight,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Tensors":
        return cls(
            specs=tuple(TensorSpec.from_json(spec) for spec in value["specs"]),
            target=value["target"],
            target_dtype=value["target_dtype"],
            row_id=value["row_id"],
            weight=value["weight"],
        )

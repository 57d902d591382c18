"""Which rank sees which row, when: snapshot, plan, reader, batches. Imports no pyspark.

`mlspark.streaming.open` is `dataset.open_table`, the one name that a package of this project gives out: it is what people
come for. It is looked up when used, so that the reader's processes do not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspark.streaming.dataset import open_table as open  # noqa: A004, F401
else:

    def __getattr__(name: str) -> Any:
        if name != "open":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mlspark.streaming.dataset import open_table

        return open_table

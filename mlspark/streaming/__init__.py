"""Which rank sees which row, when: snapshot, plan, reader, stream. Imports no pyspark.

`mlspark.streaming.open` is `stream.Stream`, the one name that a package of this project exports: it is what people
come for. It is looked up when used, so that the reader's processes do not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspark.streaming.stream import Stream as open  # noqa: A004, F401, N813
else:

    def __getattr__(name: str) -> Any:
        if name != "open":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mlspark.streaming.stream import Stream

        return Stream

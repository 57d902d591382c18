"""How feature rows are streamed into the ranks. Runs anywhere."""

from typing import Annotated, Literal

from pydantic import Field

from mlspark.section import Section
from mlspark.streaming.plan import DEFAULT_LANES, DEFAULT_READ_AHEAD_BYTES, DEFAULT_WINDOW_BYTES


class StreamingSettings(Section):
    lanes: Annotated[int, Field(ge=1)] = DEFAULT_LANES
    """Number of lanes into which the rows are parted for the ranks: at least as many as ranks, and a multiple of them for
    equal shares. Part of the row order, which never depends on the number of ranks."""
    shuffle_window_rows: Annotated[int, Field(ge=1)] = 400_000
    """Number of rows shuffled among each other, over all lanes and ranks."""
    shuffle_window_bytes: Annotated[int, Field(ge=1)] = DEFAULT_WINDOW_BYTES
    """Most bytes that the rows shuffled among each other need where pictures are among the columns, as the table holds them:
    their number is lower where they need more. Part of the row order; ignored without pictures."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Number of reader threads or processes per rank, of the threads that put rows in order, and of the threads or processes
    that decode its pictures; null: 4 where the table is in a remote store (`s3a:`, `hdfs:`), else 2."""
    pool: Literal["thread", "process"] = "thread"
    """Kind of the workers: threads copy nothing, processes take seconds to start."""
    read_ahead_bytes: Annotated[int, Field(ge=0)] = DEFAULT_READ_AHEAD_BYTES
    """Most bytes of decoded rows that a rank reads ahead, besides one row group per worker and the window that is filled
    while the one before is used."""
    cache_folder: str = ""
    """Local folder that keeps what was read of a remote table, for all ranks and runs of a machine; empty: none."""
    cache_bytes: Annotated[int, Field(ge=1)] = 10 * 2**30
    """Most bytes of that folder; what was not read for longest is removed."""
    remainder: Literal["keep", "drop"] = "keep"
    """What happens to the last, short batch of an epoch: keep takes a step with the rows left, drop leaves them out."""

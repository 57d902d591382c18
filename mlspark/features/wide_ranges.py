"""The first pass over many numbers, in Python workers: the same bits as Spark's own aggregates give. Driver.

Spark compiles no query of hundreds of aggregates as a whole, and runs each for each row; numpy takes a batch of a column at
once. What is summed are whole numbers, so that no order of batches or partitions shows in the result.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame

from mlspark.features.counts import SUMS, Number
from mlspark.features.few_rows import FewRows

FEWEST_NUMBERS = 50
"""Least number of columns that are counted in Python workers: with three to eight aggregates of each, more than Spark
compiles as a whole."""
_MOST_ROWS = 2**16  # counted at once: the sums of so many products of two halves are far from the end of 64 bits

Ranges = dict[str, Any]


def ranges(values: DataFrame, numbers: Mapping[str, Number], num_events: int) -> Ranges:
    """Return rows, those of each event, and of each number count, range, and sums of whole numbers. One Spark job.

    Args:
        values: "_event0" ... and the columns of `numbers`, doubles without NaN.
        numbers: column -> what is asked of it.
        num_events: number of events.
    """
    asked = dict(numbers)
    nothing: Ranges = {"rows": 0, **{f"events{place}": 0 for place in range(num_events)}}
    for column, number in asked.items():
        nothing |= {f"count{column}": 0, f"min{column}": None, f"max{column}": None}
        nothing |= {f"{name}{column}": 0 for name in SUMS} if number.step is not None else {}

    def of_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counted = nothing
        for batch in batches:
            for start in range(0, batch.num_rows, _MOST_ROWS):
                part = pa.Table.from_batches([batch.slice(start, _MOST_ROWS)])
                counted = _merged([counted, FewRows(part, {}).ranges(asked)])
        yield pa.RecordBatch.from_pydict({"counted": [json.dumps(counted)]})

    events = (f"_event{place}" for place in range(num_events))
    partitions = values.select(*events, *asked).mapInArrow(of_partition, "counted string").collect()
    return _merged([nothing, *(json.loads(partition["counted"]) for partition in partitions)])


def _merged(parts: Iterable[Ranges]) -> Ranges:
    """Return what several parts of the rows hold together; the first part has every name."""
    first, *others = parts
    merged = dict(first)
    for part in others:
        for name, value in part.items():
            if not name.startswith(("min_", "max_")):
                merged[name] += value
            elif value is not None and merged[name] is not None:
                merged[name] = (min if name.startswith("min_") else max)(merged[name], value)
            elif value is not None:
                merged[name] = value
    return merged

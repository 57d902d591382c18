"""What tests run in a reader's workers; a module of its own, because a worker process imports all that is beside it."""

import os
import signal
import sys

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc


def ids_of(table: pa.Table) -> list[int]:
    return table.column("row_id").to_pylist()


def fail_at_60(table: pa.Table) -> list[int]:
    if 60 in ids_of(table):
        raise KeyError("no such word")
    return ids_of(table)


def exit_at_60(table: pa.Table) -> pa.Table:
    if 60 in ids_of(table):
        sys.exit(3)
    return table


def die_at_60(table: pa.Table) -> pa.Table:
    if 60 in ids_of(table):
        os.kill(os.getpid(), signal.SIGKILL)
    return table


def add_double(rows: pa.Table) -> pa.Table:
    return rows.append_column("double", pc.multiply(rows["age"].cast(pa.float64()), 2.0))


def stand_ins(table: pa.Table) -> list[str]:
    """What is there of the names that pyarrow and numpy removed, in the process that decodes."""
    modules = [name for name in ("pyarrow.filesystem", "pyarrow.hdfs") if name in sys.modules]
    return modules + [name for name in ("unicode_", "string_") if hasattr(np, name)]

"""Memory of decoded row groups, which one thread asks for and another gives back, some megabytes at a time."""

from functools import cache

import pyarrow as pa


@cache
def decoded_memory() -> pa.MemoryPool:
    """Return the pool that row groups are decoded in.

    Arrow's default, mimalloc, kept 44 to 61 MB for two threads and row groups of 3 MB, where at most 10 to 18 were in use. A
    process that streams them has 40 MB less at its peak with jemalloc, or with glibc's memory where Arrow lacks that.
    """
    return pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.system_memory_pool()

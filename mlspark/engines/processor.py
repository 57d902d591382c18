"""What the processor of this machine computes. Runs anywhere."""

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def flags() -> frozenset[str]:
    """Return the processor's features as Linux names them; none elsewhere."""
    return frozenset(_entry("flags").split())


def has_bfloat16() -> bool:
    """Return whether it multiplies bfloat16 numbers; without it OpenVINO computes float32 where it is asked for them."""
    return not flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def name() -> str:
    """Return its model, and with how many cores."""
    import os

    return f"{_entry('model name') or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _entry(key: str) -> str:
    if not _CPUINFO.is_file():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""

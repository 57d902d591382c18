"""Petastorm's engine, imported on today's pyarrow and numpy. The rest of this package imports it from here only.

Petastorm 0.13.1 imports two pyarrow modules that pyarrow 16 removed, and numpy 2 lacks two names that it uses. Stand-ins
let it import; nothing of them is called, and they are gone again when this module has been imported, so that no other code
of the process takes them for the real ones.
"""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator

import numpy as np

_REMOVED_MODULES = {"pyarrow.filesystem": "LocalFileSystem", "pyarrow.hdfs": "HadoopFileSystem"}
_REMOVED_NAMES = {"unicode_": np.str_, "string_": np.bytes_}  # of numpy


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand in for what pyarrow and numpy removed, as long as this is open."""
    modules, names = [], []
    try:
        for module_name, class_name in _REMOVED_MODULES.items():
            if importlib.util.find_spec(module_name) is None:
                module = types.ModuleType(module_name)
                setattr(module, class_name, type(class_name, (), {}))
                sys.modules[module_name] = module
                modules.append(module_name)
        for name, value in _REMOVED_NAMES.items():
            if not hasattr(np, name):
                setattr(np, name, value)
                names.append(name)
        yield
    finally:
        for module_name in modules:
            del sys.modules[module_name]
        for name in names:
            delattr(np, name)


with _stand_ins():
    from petastorm.reader import Reader
    from petastorm.workers_pool import VentilatedItemProcessedMessage, process_pool, thread_pool
    from petastorm.workers_pool.process_pool import ProcessPool
    from petastorm.workers_pool.thread_pool import ThreadPool, WorkerThread
    from petastorm.workers_pool.ventilator import Ventilator
    from petastorm.workers_pool.worker_base import WorkerBase

__all__ = [
    "ProcessPool",
    "Reader",
    "ThreadPool",
    "VentilatedItemProcessedMessage",
    "Ventilator",
    "WorkerBase",
    "WorkerThread",
    "process_pool",
    "thread_pool",
]

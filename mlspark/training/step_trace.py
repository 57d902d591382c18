"""A trace of some training steps, for Perfetto or chrome://tracing: where a step's time goes. Rank 0."""

import gzip
import tempfile
from pathlib import Path

import torch

from mlspark import storage

_SKIPPED_STEPS = 5


class StepTrace:
    """Records some steps with torch.profiler and leaves RUN/profile/trace.json.gz."""

    def __init__(self, run_uri: str, num_steps: int) -> None:
        """Begin after the first steps, which are slower than the others; num_steps 0: do nothing."""
        self._uri = storage.join(run_uri, "profile", "trace.json.gz")
        self._profiler: torch.profiler.profile | None = None
        if num_steps:
            schedule = torch.profiler.schedule(wait=_SKIPPED_STEPS, warmup=1, active=num_steps, repeat=1)
            self._profiler = torch.profiler.profile(schedule=schedule, on_trace_ready=self._write)
            self._profiler.start()

    def step(self) -> None:
        """Say that a step is over."""
        if self._profiler is not None:
            self._profiler.step()

    def close(self) -> None:
        """End recording, if the run had fewer steps."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, profiler: torch.profiler.profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(file))
            storage.write_bytes(self._uri, gzip.compress(file.read_bytes(), mtime=0))

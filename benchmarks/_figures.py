"""How a benchmark tells its figures."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def tell(figures: Mapping[str, Any], json_file: Path | None, details: Mapping[str, Any] | None = None) -> None:
    """Print the figures, a line each, and write them as JSON where asked; `details` stand there only."""
    for key, value in figures.items():
        print(f"{key:<28}{value:.3f}" if isinstance(value, float) else f"{key:<28}{value}")
    if json_file:
        json_file.write_text(json.dumps({**figures, **(details or {})}, indent=1) + "\n", encoding="utf-8")


def paired(of: Sequence[float], to: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median of the ratios of rounds, and the least and the greatest of them."""
    ratios = [one / other for one, other in zip(of, to, strict=True)]
    return statistics.median(ratios), [min(ratios), max(ratios)]

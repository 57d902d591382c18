"""How a benchmark tells its figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tell(figures: Mapping[str, Any], json_file: Path | None, details: Mapping[str, Any] | None = None) -> None:
    """Print the figures, a line each, and write them as JSON where asked; `details` stand there only."""
    for key, value in figures.items():
        print(f"{key:<28}{value:.3f}" if isinstance(value, float) else f"{key:<28}{value}")
    if json_file:
        json_file.write_text(json.dumps({**figures, **(details or {})}, indent=1) + "\n", encoding="utf-8")

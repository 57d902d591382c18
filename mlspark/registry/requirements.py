"""What a model version needs to be installed, pinned to what it was trained with. Runs anywhere."""

import json
from collections.abc import Mapping
from importlib import metadata

from mlspark import __version__, models
from mlspark.engines import engine

_OF_PICTURES = ("pillow", "simplejpeg")
"""Distributions that decode pictures."""
_ALWAYS = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "xxhash")
"""Distributions that checking, encoding and serving need whatever the version."""


def pinned(model: Mapping[str, bytes]) -> list[str]:
    """Return lines "name==version", mlspark first.

    mlspark itself is on no index: install its wheel first (or `pip install --find-links FOLDER_OF_THE_WHEEL -r ...`).

    Args:
        model: the engine's files: model.json names the engine, its tensors, and what the code of a custom model imports.
    """
    names = {*_ALWAYS}
    for files in engine.models(model):
        description = json.loads(files["model.json"])
        names |= {*engine.kind(files).REQUIRES, *engine.source_kind(files).REQUIRES}
        names |= {*(description.get("code") or {}).get("distributions", ())}
        names |= {*models.from_json(description["model"]).distributions()}
        if any("picture" in tensor for tensor in description.get("tensors", {}).get("specs", ())):
            names |= set(_OF_PICTURES)
    # Without "+cpu" and the like: such builds are on no index.
    versions = (f"{name}=={metadata.version(name).partition('+')[0]}" for name in sorted(names, key=str.lower))
    return [f"mlspark[serve]=={__version__}", *versions]

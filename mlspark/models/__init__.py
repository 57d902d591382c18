"""What is trained: a file per model, with its settings. `build` makes a network of them."""

from mlspark.models.kinds import KINDS, ModelSettings, build, from_json

__all__ = ["KINDS", "ModelSettings", "build", "from_json"]

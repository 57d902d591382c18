"""How a model is trained: one rank (loop, step, evaluate, ...), all ranks (launcher), and what learns (learner).

`mlspark.training.launch` is `custom_model.launch`, for people who bring a model of their own. It is looked up when used, so
that ranks import no Spark.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspark.training.custom_model import launch  # noqa: F401
else:

    def __getattr__(name: str) -> Any:
        if name != "launch":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mlspark.training.custom_model import launch

        return launch

"""Trainer (one rank), checkpoint, metrics; launcher (all ranks).

`mlspark.training.launch` is `own.launch_own`: the name for people who bring a model of their own. It is looked up when used,
so that ranks import no Spark.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspark.training.own import launch_own as launch  # noqa: F401
else:

    def __getattr__(name: str) -> Any:
        if name != "launch":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mlspark.training.own import launch_own

        return launch_own

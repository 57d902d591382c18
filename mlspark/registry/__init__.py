"""What is kept: model versions packaged with everything needed to trust and use them.

`mlspark.registry.register` is `outcomes.register`: the name for people who train a model of their own. It is looked up when
used, so that scoring imports neither Spark nor MLflow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspark.registry.outcomes import register  # noqa: F401
else:

    def __getattr__(name: str) -> Any:
        if name != "register":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mlspark.registry.outcomes import register

        return register

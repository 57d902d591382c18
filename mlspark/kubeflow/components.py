"""The components of the pipeline: a Python function each, which imports mlspark where it runs.

What stands in a function is copied into the compiled pipeline: no more than the call of a step. Parameters are text wherever
they can be: Kubeflow makes floats of numbers in lists, and changes whole numbers beyond 2**53.
"""

from kfp import dsl

IMAGE = "mlspark:latest"
"""Container image of the components, which has mlspark and kfp; `compiled` writes another one in its place."""

_component = dsl.component(base_image=IMAGE, install_kfp_package=False)


@_component
def prepare(settings: str, overrides: list[str], run: str, report: dsl.Output[dsl.Artifact]) -> int:
    """Raw rows -> feature table; its version."""
    from mlspark.kubeflow import steps

    return steps.prepare(settings, overrides, run, report.path)


@_component
def train(settings: str, overrides: list[str], run: str, report: dsl.Output[dsl.Artifact]) -> int:
    """Feature table -> registered model version; its number."""
    from mlspark.kubeflow import steps

    return steps.train(settings, overrides, run, report.path)


@_component
def evaluate(
    settings: str,
    overrides: list[str],
    run: str,
    version: int,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Model version -> metrics and the page of its evaluation; promotion.mode, by which it goes on."""
    from mlspark.kubeflow import steps

    mode, found = steps.evaluate(settings, overrides, run, version, page.path)
    for name, value in found.items():
        metrics.log_metric(name, value)
    return mode


@_component
def promote(settings: str, overrides: list[str], run: str, version: int, report: dsl.Output[dsl.Artifact]) -> str:
    """Model version -> version in use, or not; the verdict."""
    from mlspark.kubeflow import steps

    return steps.promote(settings, overrides, run, version, report.path)


@_component
def score(settings: str, overrides: list[str], run: str, report: dsl.Output[dsl.Artifact]) -> None:
    """Raw rows + model version -> scores."""
    from mlspark.kubeflow import steps

    steps.score(settings, overrides, run, report.path)


@_component
def sum_up(
    settings: str,
    overrides: list[str],
    run: str,
    status: dsl.PipelineTaskFinalStatus,
    report: dsl.Output[dsl.Artifact],
) -> None:
    """What came of the run, however it ended: its state, and which step failed and why."""
    from mlspark.kubeflow import steps

    steps.sum_up(settings, overrides, run, status.state, status.error_message or "", report.path)

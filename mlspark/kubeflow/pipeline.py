"""The pipeline: prepare -> train -> evaluate -> promote -> score, and a report whatever happens; compiled to YAML."""

import tempfile
from pathlib import Path

from kfp import compiler, dsl

from mlspark.kubeflow import components

NAME = "mlspark"


def _uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    return task.set_caching_options(False)


@dsl.pipeline(name=NAME, description="Raw tables to a trained, versioned model and scored rows")
def pipeline(settings: str, overrides: list[str] = []) -> None:  # noqa: B006  kfp reads the default and never changes it
    """One pipeline for every project.

    Kubeflow's own cache is off: it does not see that files or tables have changed. Each stage looks itself whether the same
    was done on the same rows, and leaves it as it is.

    Args:
        settings: YAML of all settings of the project.
        overrides: "section.key=value", each over a setting.
    """
    given = {"settings": settings, "overrides": overrides, "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    with dsl.ExitHandler(_uncached(components.sum_up(**given)), name="stages"):
        prepared = _uncached(components.prepare(**given))
        trained = _uncached(components.train(**given)).after(prepared)
        version = trained.outputs["Output"]
        evaluated = _uncached(components.evaluate(**given, version=version))
        with dsl.If(evaluated.outputs["Output"] != "disabled", name="with promotion"):
            promoted = _uncached(components.promote(**given, version=version))
            _uncached(components.score(**given)).after(promoted)
        with dsl.Else(name="without promotion"):
            _uncached(components.score(**given))


def compiled(image: str = components.IMAGE) -> str:
    """Return the pipeline as YAML: the same text for the same sources and the same kfp.

    Args:
        image: container image of the components, with mlspark and kfp.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(file))
        return file.read_text(encoding="utf-8").replace(f"image: {components.IMAGE}\n", f"image: {image}\n")

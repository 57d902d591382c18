"""`mlspark kubeflow`: the stages as a pipeline of Kubeflow, run here or on its cluster, or compiled to YAML."""

import json
import os
from typing import Annotated

import typer

from mlspark.commands import options, output_file
from mlspark.errors import ConfigError
from mlspark.queue.targets import ENDPOINT
from mlspark.settings import loading

app = options.app()
Image = Annotated[str, typer.Option(metavar="NAME", help="Container image of the components, with mlspark and kfp.")]


@app.callback()
def _kubeflow() -> None:
    """prepare -> train -> evaluate -> promote -> score as one pipeline of Kubeflow, with a report whatever happens."""


@app.command("compile")
def compile_(
    output: Annotated[str, typer.Option(metavar="FILE", help="YAML to write.")] = "pipelines/mlspark.yaml",
    image: Image = "",
) -> None:
    """Write the pipeline as YAML, which Kubeflow's page and client take."""
    output_file.check("--output", output)
    _check_installed()
    from mlspark.kubeflow import components, pipeline

    output_file.write("--output", output, pipeline.compiled(image or components.IMAGE), what_stands="nothing is done")
    typer.echo(f"wrote {output}")


@app.command()
def run(
    config: options.Config,
    set_: options.Overrides = None,
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help=f"Of Kubeflow Pipelines, or ${ENDPOINT}; else the steps run on this machine."),
    ] = "",
    image: Image = "",
    wait: Annotated[bool, typer.Option(help="With --endpoint: come back when the run has ended.")] = True,
    pipeline: Annotated[str, typer.Option(metavar="FILE", help="Here: run this compiled pipeline.")] = "",
    root: Annotated[str, typer.Option(metavar="FOLDER", help="Here: keep the files that the steps hand on.")] = "",
    report: options.Report = None,
) -> None:
    """Run the pipeline and say what came of it; exit status 2 and one message if a step failed."""
    output_file.check("--report", report)
    settings = loading.load(config, set_ or ())
    text, endpoint = settings.to_yaml(), endpoint or os.environ.get(ENDPOINT, "")
    _check_installed()
    if endpoint:
        if pipeline or root:
            raise ConfigError("--pipeline and --root belong to runs on this machine; leave them out, or --endpoint")
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"--endpoint {endpoint}: expected the form https://HOST/pipeline")
        from mlspark.kubeflow import cluster, components

        run_id = cluster.submit(
            endpoint, text, (), name=settings.name, image=image or components.IMAGE, wait=wait
        )  # fmt: skip
        summed = {"run": run_id, "pipeline": settings.name, "endpoint": endpoint}
        typer.echo(run_id)
    else:
        from mlspark.kubeflow import local

        summed = local.run(text, (), file=pipeline, root=root)
    if report:
        output_file.write("--report", report, json.dumps(summed, indent=1) + "\n", what_stands="the run stands")
    if not endpoint:
        local.check(summed)
        typer.echo(f"{summed['pipeline']}: succeeded, {', '.join(summed['steps'])}")


def _check_installed() -> None:
    try:
        import kfp  # noqa: F401
    except ImportError:
        raise ConfigError('kubeflow: kfp is not installed; pip install "mlspark[kubeflow]"') from None

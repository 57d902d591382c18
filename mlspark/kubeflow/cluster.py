"""The pipeline on a cluster that has Kubeflow Pipelines, through its HTTP interface. Driver."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3

from mlspark.errors import ConfigError, one_line
from mlspark.kubeflow.pipeline import compiled

_ENDS = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")
_SECONDS = 5.0
"""Between two questions whether a run has ended."""


def submit(endpoint: str, settings: str, overrides: Sequence[str], *, name: str, image: str, wait: bool) -> str:
    """Have the cluster run the pipeline, and return the id of the run.

    Args:
        endpoint: http or https URL of Kubeflow Pipelines.
        settings: YAML of all settings; paths in it are those of the containers.
        overrides: "section.key=value", over them.
        name: of the experiment that Kubeflow lists the run under.
        image: container image of the components.
        wait: whether to come back when the run has ended, and to raise unless it succeeded.

    Raises:
        ConfigError: the endpoint does not answer or refuses, or the run did not succeed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")
        file.write_text(compiled(image), encoding="utf-8")
        try:
            client = kfp.Client(host=endpoint)
            arguments: dict[str, Any] = {"settings": settings, "overrides": list(overrides)}
            started = client.create_run_from_pipeline_package(
                str(file), arguments=arguments, experiment_name=name, enable_caching=False
            )
            run_id: str = started.run_id
            state = _end(client, run_id) if wait else "SUCCEEDED"
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ConfigError(f"Kubeflow at {endpoint}: {one_line(str(error))}; is it the URL of its API?") from None
    if state != "SUCCEEDED":
        raise ConfigError(f"Kubeflow run {run_id}: {state}; its step report says which step failed and why")
    return run_id


def _end(client: Any, run_id: str) -> str:
    """Return the state in which a run ended; kfp's own wait knows no cancelled runs and would not come back from one.

    Ctrl-C ends the run of the cluster, too.
    """
    try:
        while (state := str(client.get_run(run_id).state)) not in _ENDS:
            time.sleep(_SECONDS)
    except KeyboardInterrupt:  # as of mlspark cancel
        client.terminate_run(run_id)
        raise
    return state

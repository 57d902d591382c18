"""Where runs are tracked. Runs anywhere."""

from typing import Annotated

from pydantic import Field

from mlspark.section import Section


class TrackingSettings(Section):
    uri: str = ""
    """URI of the MLflow tracking server; empty: $MLFLOW_TRACKING_URI, else an embedded store below `storage.root`."""
    experiment: str = ""
    """Name of the MLflow experiment; empty: the pipeline's name."""
    events: str = ""
    """Local file to which each event of training is written as a line of JSON; empty: RUN/events.jsonl, if RUN is local."""
    tensorboard: str = ""
    """Local folder for TensorBoard's files, one for each run (needs the package tensorboard); empty: none is written."""
    retry_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """Seconds for which a call to MLflow that fails is made again before the job ends. The figures of a training wait for
    as long as it takes, and for these seconds after its end."""

"""Where runs are tracked. Runs anywhere."""

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

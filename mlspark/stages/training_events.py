"""A training's events on their way to people, schedulers and MLflow. Driver."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlspark import storage
from mlspark.tracking.runs import Run
from mlspark.tracking.settings import TrackingSettings
from mlspark.training import progress_display
from mlspark.training.events import EpochEnded, Evaluated, Event, OfMember, OnEvent, Progressed, RunEnded
from mlspark.training.progress_display import EventFile, TensorBoard
from mlspark.training.spec import TrainingSpec


@contextmanager
def following(settings: TrackingSettings, spec: TrainingSpec, run: Run) -> Iterator[OnEvent]:
    """Yield what shows and logs the events of a run, which come in another thread than this one.

    Args:
        settings: where the log of events and TensorBoard's files are.
        spec: the run.
        run: in MLflow; gets the figures of the training. Those of the model that comes of it are logged with the model.
    """
    file = settings.events
    if not file and storage.is_local(spec.run_uri):
        file = storage.local_path(storage.join(spec.run_uri, "events.jsonl"))
    board = TensorBoard(settings.tensorboard, run.run_id)
    log = EventFile(file)

    def follow(event: Event) -> None:
        log.write(event)
        board.write(event)
        progress_display.show(event)
        of, prefix = (event.event, f"{event.member}/") if isinstance(event, OfMember) else (event, "")
        figures = progress_display.numbers(of)
        match of:
            case EpochEnded():
                run.log_metrics({f"{prefix}{name}": value for name, value in figures.items()}, step=of.epoch)
            case Progressed():
                run.log_metrics({f"{prefix}step_{name}": value for name, value in figures.items()}, step=of.step)
            case Evaluated() if prefix:
                run.log_metrics({f"{prefix}{of.split}_{name}": value for name, value in figures.items()}, step=of.step)

    try:
        yield follow
    except BaseException as error:
        log.write(RunEnded(is_finished=False, message=str(error)))
        raise
    else:
        log.write(RunEnded(is_finished=True))
    finally:
        log.close()
        board.close()

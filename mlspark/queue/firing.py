"""One due minute of a schedule: python -m mlspark.queue.firing QUEUE NAME MINUTE, started by the worker.

A process of its own because settings are read in the folder and the environment in which the schedule was added.
"""

import contextlib
import os
import sys
from pathlib import Path

from mlspark.errors import MlsparkError
from mlspark.queue.places import Places
from mlspark.queue.schedules import Schedules
from mlspark.queue.store import Store


def main(queue: Places, name: str, minute: str) -> None:
    """Submit the job of a due minute, or record why it cannot be."""
    with contextlib.closing(Store(queue.database)) as store:
        schedules = Schedules(store)
        schedule = next((each for each in schedules.all() if each.name == name), None)
        if schedule is None:  # removed meanwhile
            return
        try:
            os.chdir(schedule.asked.folder)
            for variable, value in schedule.asked.environment.items():
                os.environ.pop(variable, None)
                if value is not None:
                    os.environ[variable] = value
            schedules.fire(name, minute, schedule.asked.submission())
        except (MlsparkError, OSError) as error:
            schedules.fail(name, minute, str(error))


if __name__ == "__main__":
    main(Places(Path(sys.argv[1])), sys.argv[2], sys.argv[3])

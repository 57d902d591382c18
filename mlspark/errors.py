"""Errors that the user can correct; anything else is a fault of this project and keeps its traceback."""

import re


class MlsparkError(ValueError):
    """Wrong input, configuration or data; jobs print the message and exit with status 2."""


class ConfigError(MlsparkError):
    """A setting is unknown, missing, of the wrong type or contradicts another."""


class DamagedFile(MlsparkError):
    """A file that mlspark wrote is not what it was; names it."""


class StorageError(MlsparkError):
    """A place cannot be written: it is full, read-only or another's."""


class SourceError(MlsparkError):
    """Raw data is absent, unreadable or not of the stated kind."""


class ContractError(MlsparkError):
    """A contract file is wrong, or data as a whole does not meet its contract."""


class PictureError(MlsparkError):
    """A picture cannot be read, or not as it is asked for; says why, and holds none of its bytes."""


class TableError(MlsparkError):
    """A table or table version is absent, or in a state that cannot be read."""


class FeatureError(MlsparkError):
    """A feature declaration does not fit the contract or the data."""


class DatasetError(MlsparkError):
    """A snapshot cannot be streamed as asked (files, row groups, ranks, batch size)."""


class TrainingFailed(MlsparkError):
    """A training job ended without a model; names the rank, host and exception."""


class BudgetSpent(MlsparkError):
    """A training has cost nearly what it may; its newest checkpoint stands."""


class RegistryError(MlsparkError):
    """A model, model version or alias is absent or incomplete."""


class TrackingError(MlsparkError):
    """MLflow does not answer, or refuses what a job asks of it."""


def raised_by_worker(kind: type[MlsparkError], text: str) -> str | None:
    """Return what an error of a Python worker says, of which Spark tells the driver as text alone; None for other errors.

    Args:
        kind: class of the error that is looked for.
        text: of Spark's error, traceback of the worker and all.
    """
    told = re.search(rf"{re.escape(f'{kind.__module__}.{kind.__qualname__}')}: (.*)", text)
    return told[1] if told else None


def one_line(message: str) -> str:
    """Return the first line of an error message, without Spark's own marks, at most 300 characters of it."""
    lines = [line for line in message.splitlines() if line.strip()]
    plain = re.sub(
        r"^(\[[A-Z0-9_.]+\] *)+|,? *SQLSTATE: \w{5}.*$", "", " ".join(lines[0].split()) if lines else "unknown"
    )
    return plain.rstrip(".;: ")[:300]

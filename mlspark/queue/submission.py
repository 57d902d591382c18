"""A job from what its user asks for: settings as they are now, command lines, limits, identity. Runs anywhere, at once."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlspark import credentials
from mlspark.errors import ConfigError
from mlspark.queue import inputs, targets
from mlspark.queue.job import Limits, Submission
from mlspark.queue.targets import Place
from mlspark.settings import merging, yaml_file

ENVIRONMENT = (
    "MLSPARK_HOME", "MLSPARK_DATA", "MLFLOW_TRACKING_URI", "SPARK_CONF_DIR", "SPARK_LOCAL_IP", "HADOOP_CONF_DIR",
    "YARN_CONF_DIR", "JAVA_HOME", "PYTHONPATH",
)  # fmt: skip
"""Variables that a stage has as they were where its job was submitted. All others, and with them all credentials, are those
of the worker, that is of the command that has started it."""
ALL_STAGES = ("prepare", "train", "promote", "score")
"""Stages from raw rows to scores."""


def make(
    pipeline: str,
    target: str,
    place: Place,
    *,
    limits: Limits,
    budget: float | None = None,
    overlays: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Submission:
    """Return the job as it would be submitted now, from this folder.

    Args:
        pipeline: file of settings, and after a colon the stages if they are not all: "conf/census.yaml:prepare,train".
        target: one of targets.TARGETS.
        place: what else is said of the target.
        limits: of retries and time.
        budget: most that it may cost at the price of `cost.tier`, in the currency of conf/machines.yaml.
        overlays: further files of settings, each over those before it.
        overrides: "section.key=value".

    Raises:
        ConfigError: settings cannot be read or hold a secret, or stages, target or budget are wrong.
    """
    if budget is not None and budget <= 0:
        raise ConfigError(f"--budget {budget:g}: must be more than 0")
    file, names = parsed(pipeline)
    settings, _ = merging.merged([file, *overlays], list(overrides))
    name = settings.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ConfigError(f"{file}: name: expected the pipeline's name, like census")
    if not names:
        names = default_stages(has_rows=bool((settings.get("scoring") or {}).get("source")))
    folder = Path.cwd()
    environment = kept_environment(folder)
    stages = targets.stages(target, place, names, folder)
    if budget is not None:
        limits = _limited(limits, budget, settings)
    states, is_seen = inputs.seen(settings, names, folder)
    submission = Submission(
        pipeline=name,
        stages=stages,
        target=target,
        folder=str(folder),
        environment=environment,
        settings=yaml_file.write(settings),
        identity="",
        is_seen=is_seen,
        limits=limits,
    )
    return replace(submission, identity=_identity(submission, states))


def kept_environment(folder: Path) -> dict[str, str | None]:
    """Return the variables that jobs of `folder` have as they are now. Raises ConfigError where one holds a secret."""
    found = {name: os.environ.get(name) for name in ENVIRONMENT}
    credentials.refuse({name: value for name, value in found.items() if value})
    if found["SPARK_CONF_DIR"] is None and (folder / "conf" / "spark-defaults.conf").exists():
        found["SPARK_CONF_DIR"] = str(folder / "conf")
    # This environment's Spark and Python, whatever the worker has.
    return {**found, "SPARK_HOME": None, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}


def default_stages(*, has_rows: bool) -> tuple[str, ...]:
    """Return the stages of a pipeline that names none; `has_rows`: whether `scoring.source` is set."""
    return ALL_STAGES if has_rows else ALL_STAGES[:-1]


def parsed(pipeline: str) -> tuple[str, tuple[str, ...]]:
    """Return file and stages of "FILE:STAGES"; no stages where there is no colon, or a file that has one in its name.

    Raises:
        ConfigError: there is no such stage, or the stages stand in another order.
    """
    file, colon, text = pipeline.rpartition(":")
    if not colon or Path(pipeline).exists():
        return pipeline, ()
    names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in targets.STAGES]
    if unknown:
        raise ConfigError(
            f"{pipeline}: {unknown[0]!r} is no stage; after the colon: {','.join(targets.STAGES)}, or some"
        )
    if sorted(set(names), key=targets.STAGES.index) != list(names):
        raise ConfigError(f"{pipeline}: stages in another order, or twice; they run as {','.join(targets.STAGES)}")
    return file, names


def _limited(limits: Limits, budget: float, settings: Mapping[str, Any]) -> Limits:
    """Return limits that end the job before it costs more. Raises ConfigError."""
    from mlspark.settings import machines  # pydantic takes a while

    price = machines.price_of(settings.get("cost") or {})
    if price is None:
        raise ConfigError("--budget: needs cost.tier, the machines whose price counts")
    if price.of(1.0) == 0:
        raise ConfigError(f"--budget: {price.tier} costs nothing; give --time-limit")
    seconds = budget / price.of(1.0)
    if limits.seconds is not None and limits.seconds <= seconds:
        return limits
    return replace(limits, seconds=seconds, why=f"budget of {budget:g} {price.currency}")


def _identity(submission: Submission, states: Sequence[Any]) -> str:
    """Return the SHA-256 of what decides what the job does; limits do not."""
    content = asdict(submission)
    decides = {key: content[key] for key in ("stages", "target", "folder", "environment", "settings")}
    return hashlib.sha256(json.dumps({**decides, "inputs": states}, sort_keys=True).encode()).hexdigest()

"""How many ranks a training wants: a pipeline's table, model, speed and machines, put into the model of `scaling`."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlspark import models
from mlspark.cost import Price
from mlspark.errors import ConfigError, DatasetError, TableError
from mlspark.features import prepared as preparations
from mlspark.features.tensors import Tensors
from mlspark.models.ensemble import EnsembleSettings
from mlspark.models.trees import TreesSettings
from mlspark.settings import machines
from mlspark.settings.pipeline import Settings
from mlspark.stages import job_records, scaling
from mlspark.stages.scaling import Machine, Model, Ranks, Speed, Table
from mlspark.streaming import delta_files
from mlspark.streaming.plan import Plan

GROUP_ROWS = 50_000
"""Rows of a row group, as conf/spark-defaults.conf has it."""
RANKS = tuple(2**power for power in range(11))
"""Numbers of ranks that are looked at unless others are asked for."""
_BESIDE_BYTES = 20
"""Bytes that a row has in memory beside its features: id, label, weight."""
_BYTES = {"float32": 4, "int64": 8, "uint8": 1}


@dataclass(frozen=True)
class Given:
    """What is said instead of being looked up; None: it is looked up."""

    rows: int | None = None
    row_bytes: float | None = None
    """Bytes of a row in the table's files."""
    rows_per_second: float | None = None
    """Of one rank."""
    step_seconds: float = 0.0
    parameters: int | None = None
    ranks_per_machine: int | None = None
    network_bytes_per_second: float = 1.25e9
    latency_seconds: float = 50e-6
    store_bytes_per_second: float | None = None
    start_seconds: float = 60.0


def plan(
    settings: Settings,
    given: Given,
    *,
    ranks: Sequence[int] = RANKS,
    hours: float | None = None,
    budget: float | None = None,
) -> dict[str, Any]:
    """Return for each number of ranks what the training takes, as JSON, and which of them to take under the limits.

    Args:
        settings: of the pipeline.
        given: see there.
        ranks: numbers of ranks; those that the batch is too small for are left out, and said to be.
        hours: most hours.
        budget: most money, in the currency of `cost.machines`.

    Raises:
        ConfigError: the model is grown and not trained by ranks; something is neither given nor known; `budget` without
            `cost.tier`.
    """
    if isinstance(settings.model, TreesSettings | EnsembleSettings):
        raise ConfigError(f"plan: model.kind={settings.model.kind} is not trained by ranks; plan a network")
    price, machine = _machine(settings, given)
    if budget is not None and price is None:
        raise ConfigError("--budget: cost.tier is not set, so nothing has a price; name a tier of conf/machines.yaml")
    table, prepared = _table(settings, given)
    parameters = _parameters(settings, given, prepared)
    speed, source = _speed(settings, given, parameters)
    asked = sorted(set(ranks))
    streaming, training = settings.streaming, settings.training
    order = Plan(
        table.rows_per_group,
        training.global_batch_size,
        training.seed,
        0,
        lanes=max(streaming.lanes, asked[-1]),
        shuffle_window_rows=streaming.shuffle_window_rows,
        remainder=streaming.remainder,
    )
    model = Model(table, order, training.epochs, speed, machine, price)
    rows: list[Ranks] = []
    left_out: dict[int, str] = {}
    for count in asked:
        try:
            rows.append(model.on(count))
        except DatasetError as error:
            left_out[count] = str(error)
    if not rows:
        raise ConfigError(f"plan: {next(iter(left_out.values()))}")
    best = scaling.recommended(rows, hours=hours, budget=budget)
    return _basis(settings, model, source) | {
        "limits": {"hours": hours, "budget": budget},
        "ranks": [row.to_json() for row in rows],
        "left_out": {str(count): why for count, why in left_out.items()},
        "recommended": None if best is None else best.ranks,
    }


def _basis(settings: Settings, model: Model, source: str) -> dict[str, Any]:
    """Return what a plan rests on, as JSON; `source` says where the speed is from."""
    table, machine, speed = model.table, model.machine, model.speed
    return {
        "table": {
            "rows": table.num_rows,
            "row_groups": len(table.rows_per_group),
            "stored_bytes_per_row": table.stored_bytes_per_row,
            "memory_bytes_per_row": table.memory_bytes_per_row,
        },
        "training": {"epochs": model.epochs, "batch": model.plan.batch_size, "lanes": model.plan.lanes},
        "speed": asdict(speed) | {"source": source},
        "machine": {"tier": settings.cost.tier or "this one"} | asdict(machine),
        "price": None if model.price is None else model.price.to_json(3600.0),
    }


def _machine(settings: Settings, given: Given) -> tuple[Price | None, Machine]:
    """Return the price of one machine, and the machine; without `cost.tier` this one, which has no price."""
    training = settings.training
    tier = machines.tier(settings.cost)
    cores, gpus = (os.cpu_count() or 1, 0) if tier is None else (tier.cores, tier.gpus)
    if training.use_gpu and tier is not None and not gpus:
        raise ConfigError(f"cost.tier={settings.cost.tier} has no GPU, and training.use_gpu is true; change one")
    ranks = given.ranks_per_machine or (
        max(1, gpus) if training.use_gpu else max(1, cores // training.threads_per_rank)
    )
    machine = Machine(
        cores,
        ranks,
        training.threads_per_rank,
        given.network_bytes_per_second,
        given.latency_seconds,
        given.store_bytes_per_second,
        given.start_seconds,
    )
    return machines.price(settings.cost), machine


def _table(settings: Settings, given: Given) -> tuple[Table, tuple[Tensors, int] | None]:
    """Return what is trained on, and the tensors and outputs of its model where it was prepared."""
    try:
        prepared = preparations.latest(settings.table("features"))
    except TableError:
        if given.rows is None or given.row_bytes is None:
            raise ConfigError(
                f"plan: nothing was prepared below {settings.root} yet; run prepare, or give --rows and --row-bytes"
            ) from None
        return scaling.even_table(given.rows, GROUP_ROWS, given.row_bytes, given.row_bytes), None
    task = settings.task.on_table(prepared.task, prepared.table)
    tensors = settings.model.chosen(prepared.encoder.tensors(task))
    memory = _BESIDE_BYTES + sum(_BYTES[spec.dtype] * int(np.prod(spec.shape)) for spec in tensors.specs)
    snapshot = delta_files.take(prepared.table, version=prepared.version).where(split="train")
    snapshot.refuse_no_rows()
    stored = given.row_bytes or sum(file.size_bytes for file in snapshot.files) / snapshot.num_rows
    groups = snapshot.rows_per_group()
    if given.rows is None:
        return Table(groups, stored, memory), (tensors, task.num_outputs)
    # As large as this table's where it has whole ones: more rows make more row groups, not larger ones.
    typical = max(GROUP_ROWS if len(groups) < 3 else 0, int(statistics.median(groups.tolist())))
    return scaling.even_table(given.rows, typical, stored, memory), (tensors, task.num_outputs)


def _parameters(settings: Settings, given: Given, prepared: tuple[Tensors, int] | None) -> int:
    """Return how many numbers the model has that are learnt."""
    if given.parameters is not None:
        return given.parameters
    if prepared is None:
        raise ConfigError(
            "plan: how large the model is, is not known before prepare was run; run it, or give --parameters"
        )
    network = models.build(settings.model, *prepared)
    return sum(parameter.numel() for parameter in network.parameters())


def _speed(settings: Settings, given: Given, parameters: int) -> tuple[Speed, str]:
    """Return the speed of one rank, and where it is from."""
    if given.rows_per_second is not None:
        return Speed(given.rows_per_second, given.step_seconds, parameters), "--rows-per-second"
    alone = settings.model_copy(update={"training": settings.training.model_copy(update={"num_processes": 1})})
    wanted = job_records.speed(alone, "train")
    runs = [
        (record.work, -(-record.work // settings.training.global_batch_size), record.busy_seconds)
        for record in job_records.read(settings, "train")
        if record.speed == wanted and record.busy_seconds
    ]
    if not runs:
        raise ConfigError(
            f"plan: no training of this model and batch by one rank was done below {settings.root}; run one, on few rows "
            f"or for one epoch, with --set training.num_processes=1, or give --rows-per-second"
        )
    jobs = "1 job" if len(runs) == 1 else f"{len(runs)} jobs"
    speed = Speed.fitted([(rows, steps, seconds) for rows, steps, seconds in runs], parameters)
    if given.step_seconds:
        speed = Speed(speed.rows_per_second, given.step_seconds, parameters)
    return speed, f"{jobs} of one rank"

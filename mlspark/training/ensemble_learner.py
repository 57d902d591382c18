"""Ensembles: their members are learnt one after another, each as it would be alone, then combined. Driver.

Each member has a folder of its own below the run's, where it resumes and recovers as any training does: of a run that goes
on, members that are whole are not trained again.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from mlspark.engines import engine
from mlspark.engines import ensemble as ensemble_engine
from mlspark.engines.combination import Combination
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.evaluation import combining, predictions
from mlspark.evaluation.mcnemar import mcnemar
from mlspark.evaluation.predictions import Predictions
from mlspark.models.ensemble import EnsembleSettings, MemberRun, of_member
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.class_metrics import OF_CLASSES
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task
from mlspark.training import held_out, members, progress_display
from mlspark.training.data import splits_of
from mlspark.training.events import Evaluated, Event, OfMember, OnEvent
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec

logger = logging.getLogger(__name__)

_KEPT = ("steps", "epochs", "best_epoch", "rounds", "restarts", "initial_weights")
"""Of a member's report, where it has such."""


@dataclass(frozen=True)
class _Member:
    """A member that is whole."""

    name: str
    kind: str
    """Kind of the model; "version" of a registered one."""
    files: Mapping[str, bytes]
    predictions: Mapping[str, Predictions]
    """By split."""
    metrics: Mapping[str, Metrics]
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outcome:
    """What came of a member's run: several members with snapshots."""

    members: Sequence[_Member]
    train_seconds: float = 0.0
    world_size: int = 1
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


def learn(spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions) -> LearnedModel:
    """See `learner.learn`. Members are trained in their order."""
    settings = spec.model
    assert isinstance(settings, EnsembleSettings), settings
    if functions != NO_FUNCTIONS:
        raise ConfigError(
            "model.kind=ensemble takes no model or loss function; give each member a model by kind: custom"
        )
    spec = spec if spec.members else members.expanded(spec)
    splits = splits_of(Snapshot.load(spec.snapshot_uri))
    if settings.combine in combining.FITTED and not splits["validation"].num_rows:
        raise ConfigError(
            f"model.combine={settings.combine} is fitted on validation rows, and the table has none; set "
            f"split.validation_share, or model.combine: mean"
        )
    outcomes = []
    for run in settings.runs():
        with of_member(run.name):
            outcomes.append(_outcome(spark, spec, splits, run, on_event))
    of_all = [member for each in outcomes for member in each.members]
    combination = combining.combination(
        settings.combine, spec.task, len(of_all), [of.predictions["validation"] for of in of_all if of.predictions]
    )
    files = ensemble_engine.pack(
        settings, spec.tensors, spec.task.num_outputs, combination, {member.name: member.files for member in of_all}
    )
    combined = _combined(of_all, combination)
    uris = {split: predictions.uri_of(spec.run_uri, split) for split in combined}
    for split, rows in combined.items():
        predictions.write(uris[split], rows)
    metrics = {split: rows.metrics(spec.task) for split, rows in combined.items()}
    report = _report(spec, of_all, combination, combined, metrics)
    if "test" in metrics:
        on_event(Evaluated("test", 0, metrics["test"].to_json()))
    return LearnedModel(
        files=files,
        engine="ensemble",
        metrics=metrics,
        predictions=uris,
        train_seconds=sum(each.train_seconds for each in outcomes),
        report={"world_size": max(each.world_size for each in outcomes), **report},
        artifacts={name: content for each in outcomes for name, content in each.artifacts.items()},
    )


def _outcome(
    spark: SparkSession, spec: TrainingSpec, splits: Mapping[str, Snapshot], run: MemberRun, on_event: OnEvent
) -> _Outcome:
    from mlspark.training import learner  # which knows this module

    if run.settings.model is None:
        files = members.kept_version(spec, run.name)
        of_version = replace(spec, run_uri=spec.member_uri(run.name), members={})
        _, uris = held_out.evaluate(of_version, splits, engine.load(files))
        return _Outcome([_member(spec, run.name, "version", files, uris, on_event, {"version": run.settings.version})])
    of_run = spec.members[run.name]
    Snapshot.load(spec.snapshot_uri).save(of_run.snapshot_uri)

    def follow(event: Event) -> None:
        if not isinstance(event, Evaluated):  # that of each member comes below, with snapshots of several
            on_event(OfMember(run.name, event))

    learned = learner.learn(spark, of_run, follow)
    kept = {name: learned.report[name] for name in _KEPT if name in learned.report}
    report = {"seed": of_run.training.seed, "train_seconds": round(learned.train_seconds, 3), **kept}
    sources: Sequence[Any] = learned.snapshots if run.settings.snapshots else (learned,)
    return _Outcome(
        [
            _member(spec, name, of_run.model.kind, source.files, source.predictions, on_event, report)
            for name, source in zip(run.names, sources, strict=True)
        ],
        learned.train_seconds,
        learned.report["world_size"],
        {f"members/{run.name}/{name}": content for name, content in learned.artifacts.items()},
    )


def _member(
    spec: TrainingSpec,
    name: str,
    kind: str,
    files: Mapping[str, bytes],
    uris: Mapping[str, str],
    on_event: OnEvent,
    report: Mapping[str, Any],
) -> _Member:
    rows = {split: predictions.read(uri) for split, uri in uris.items()}
    metrics = {split: of_split.metrics(spec.task) for split, of_split in rows.items()}
    logger.info("member %s (%s)%s", name, kind, _line(metrics))
    if "test" in metrics:
        on_event(OfMember(name, Evaluated("test", 0, metrics["test"].to_json())))
    return _Member(name, kind, files, rows, metrics, report)


def _line(metrics: Mapping[str, Metrics]) -> str:
    shown = (
        f"{split} {progress_display.metrics_line({name: each.value for name, each in of_split.values.items()})}"
        for split, of_split in metrics.items()
    )
    return "".join(f"; {line}" for line in shown)


def _combined(of_all: Sequence[_Member], combination: Combination) -> dict[str, Predictions]:
    """Return the ensemble's predictions of each split.

    Raises:
        TrainingFailed: members have predicted different rows.
    """
    combined = {}
    for split, rows in of_all[0].predictions.items():
        for other in of_all[1:]:
            if not _are_same_rows(rows, other.predictions.get(split)):
                raise TrainingFailed(
                    f"split={split}: {of_all[0].name} and {other.name} have predicted different rows; train again"
                )
        outputs = combination.apply([member.predictions[split].outputs for member in of_all])
        combined[split] = Predictions.of(rows.row_id, rows.target, outputs, rows.weight)
    return combined


def _are_same_rows(rows: Predictions, others: Predictions | None) -> bool:
    if (
        others is None
        or not np.array_equal(rows.row_id, others.row_id)
        or not np.array_equal(rows.target, others.target)
    ):
        return False
    if rows.weight is None or others.weight is None:
        return rows.weight is others.weight
    return np.array_equal(rows.weight, others.weight)


def _report(
    spec: TrainingSpec,
    of_all: Sequence[_Member],
    combination: Combination,
    combined: Mapping[str, Predictions],
    metrics: Mapping[str, Metrics],
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "members": [
            {
                "name": member.name,
                "kind": member.kind,
                **member.report,
                **({"weight": weight} if combination.weights else {}),
                **{split: _figures(of_split) for split, of_split in member.metrics.items()},
            }
            for member, weight in zip(of_all, combination.weights or [None] * len(of_all), strict=True)
        ]
    }
    logger.info("ensemble of %d members%s", len(of_all), _line(metrics))
    if "test" in combined:
        best = _best(spec.task, spec.best_metric, of_all)
        report |= {"best_member": best.name, **_compared(spec.task, combined["test"], best)}
    return report


def _figures(metrics: Metrics) -> dict[str, float | None]:
    """Return the metrics, but for those of single classes."""
    return {name: each.value for name, each in metrics.values.items() if not name.startswith(OF_CLASSES)}


def _best(task: Task, metric: str, of_all: Sequence[_Member]) -> _Member:
    """Return the member that is best on the test rows: the hardest to beat there."""

    def badness(member: _Member) -> float:
        value = member.metrics["test"][metric]
        if value is None:
            return float("inf")
        return value if task.lower_is_better(metric) else -value

    return min(of_all, key=badness)


def _compared(task: Task, ensemble: Predictions, best: _Member) -> dict[str, Any]:
    """Return McNemar's test of the ensemble and its best member on the test rows; nothing for numbers."""
    of_best = best.predictions["test"]
    first, second = task.is_right(ensemble.outputs, ensemble.target), task.is_right(of_best.outputs, of_best.target)
    if first is None or second is None:
        return {}
    found = mcnemar(first, second)
    logger.info(
        "beside its best member, %s, the ensemble alone is right on %d test rows and wrong on %d; McNemar's p %.2g",
        best.name, found.only_first, found.only_second, found.p_value,
    )  # fmt: skip
    return {"mcnemar": asdict(found)}

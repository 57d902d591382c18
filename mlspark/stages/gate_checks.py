"""What the gate asks of a version, answered from the registry and from what the runs kept. Driver; needs no Spark."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mlspark import storage
from mlspark.errors import RegistryError
from mlspark.evaluation import comparison, predictions
from mlspark.evaluation.paired_rows import ComparisonError
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.shared_rows import shared
from mlspark.registry import gate, versions
from mlspark.registry.decision import Decision
from mlspark.registry.gate import Check
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import latency
from mlspark.settings.pipeline import Settings
from mlspark.stages import gate_slices
from mlspark.stages.gate_slices import Spark
from mlspark.tracking.runs import Client

logger = logging.getLogger(__name__)


def checks(
    client: Client,
    settings: Settings,
    history: Sequence[Decision],
    challenger: ModelVersion,
    champion: int | None,
    spark: Spark,
) -> Iterator[Check]:
    """Yield every condition that the gate has, and how it came out.

    Args:
        client: of the registry.
        settings: of the pipeline.
        history: of decisions, oldest first.
        challenger: the version that is decided on.
        champion: number of the version in use; None: there is none.
        spark: starts Spark; asked for where `promotion.slices` is set.

    Raises:
        RegistryError: a version is not whole, or its run's files are not below storage.root.
        TrackingError: MLflow does not answer.
    """
    of, name, seconds = settings.promotion, settings.registry.model_name, settings.tracking.retry_seconds
    yield from _of_history(history, challenger, champion, settings)
    if champion is not None:
        in_use = versions.find(client, name, champion, retry_seconds=seconds)
        if of.contract == "compatible":
            yield gate.of_contracts(in_use.package, challenger.package)
        if in_use.package.is_same_model(challenger.package):
            yield Check("min_gain", False, f"its model is that of version {champion}, byte for byte")
        else:
            yield from _of_rows(settings, in_use, challenger, spark)
    metrics = challenger.package.provenance["metrics"]
    yield from gate.of_limits(of, metrics.get(of.split, {}))
    if of.max_cost is not None:
        yield gate.of_cost(of, challenger.package.provenance.get("cost"))
    if of.max_latency_ms is not None:
        row = versions.example(client, name, challenger.version, retry_seconds=seconds)
        allow = settings.scoring.allow_decoder
        taken = None if row is None else latency.milliseconds(challenger.package, row, allow_decoder=allow)
        yield gate.of_latency(of, taken)


def _of_history(
    history: Sequence[Decision], challenger: ModelVersion, champion: int | None, settings: Settings
) -> Iterator[Check]:
    """Yield what earlier decisions say: a version that was rolled back stays out, and a champion does not just vanish."""
    alias = settings.promotion.champion
    moves = [decision for decision in history if decision.moves_alias]
    run_id = challenger.package.provenance["run_id"]
    by_rollback = [move for move in moves if move.verdict == "rolled_back"]
    left = [
        move for move in by_rollback if move.champion_before == challenger.version and _is_of(history, move, run_id)
    ]
    if left:
        yield Check(
            "rollback", False,
            f"it was rolled back on {left[-1].decided_at[:19]} ({left[-1].reasons[0]}); train another one, or name it: "
            f"mlspark promote --rollback --to {challenger.version}",
        )  # fmt: skip
    if champion is None and moves:
        last = moves[-1].champion_after
        yield Check(
            "champion", False,
            f"alias {alias} names no version, though version {last} was given it on {moves[-1].decided_at[:19]}: version or "
            f"alias was deleted; give the alias to a version: mlspark promote --rollback --to NUMBER",
        )  # fmt: skip
    elif champion is None:
        yield Check("champion", True, f"no version is alias {alias} yet")


def _is_of(history: Sequence[Decision], move: Decision, run_id: str) -> bool:
    """Return whether the version that a rollback took out of use is the run's: numbers may begin anew."""
    ids = {decision.run_id for decision in history if decision.version == move.champion_before}
    return not ids or run_id in ids


def _of_rows(settings: Settings, champion: ModelVersion, challenger: ModelVersion, spark: Spark) -> Iterator[Check]:
    """Yield how both do on the rows that were evaluated of both."""
    of = settings.promotion
    one, other = shared(_predictions(settings, champion), _predictions(settings, challenger))
    if len(one) < of.min_rows:
        yield gate.of_few_rows(of, len(one), "kept of both versions")
        return
    try:
        compared = comparison.compare(
            champion.package.task, one, other,
            challenger_task=challenger.package.task, names=(_named(champion), _named(challenger)),
            confidence=of.confidence,
        )  # fmt: skip
    except ComparisonError as error:
        yield Check("comparison", False, str(error))
        return
    logger.info(
        "promotion: version %d against version %d on %s rows of both",
        challenger.version,
        champion.version,
        f"{len(one):,}",
    )
    yield from gate.of_comparison(of, challenger.package.task, compared)
    yield from gate_slices.checks(settings, (champion, one), (challenger, other), spark)


def _named(version: ModelVersion) -> str:
    return f"version {version.version}"


def _predictions(settings: Settings, version: ModelVersion) -> Predictions:
    """Return what the version's run predicted of the split."""
    provenance: dict[str, Any] = version.package.provenance
    run_uri = storage.join(settings.root, "runs", provenance["run_id"])
    uri = predictions.uri_of(run_uri, settings.promotion.split)
    if not storage.exists(uri):
        kept = ", ".join(provenance["metrics"]) or "none"
        raise RegistryError(
            f"model {version.name} version {version.version}: no predictions of {settings.promotion.split} rows at {uri} "
            f"(it has metrics of: {kept}); give the storage.root that it was trained with, or set promotion.split"
        )
    return predictions.read(uri)

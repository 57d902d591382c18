"""The promote stage: a version takes the place of the one in use, or is kept out, with reasons; and back again. Driver."""

import getpass
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.errors import ConfigError, RegistryError
from mlspark.registry import gate, versions
from mlspark.registry.decision import Decision, Verdict
from mlspark.registry.gate import Check
from mlspark.settings.pipeline import Settings
from mlspark.stages import gate_checks, promotion_audit, promotion_steps
from mlspark.stages.gate_slices import Spark
from mlspark.tracking.runs import Client

logger = logging.getLogger(__name__)


def _no_spark() -> SparkSession:
    raise ConfigError(
        "promotion.slices: needs Spark, which reads the values of their columns; call it by mlspark promote"
    )


def promote(settings: Settings, wanted: int | str | None = None, *, spark: Spark = _no_spark) -> dict[str, Any]:
    """Decide whether a version takes the place of the one in use, carry it out, and return the report.

    The same version is decided on once: again, the report is that of the decision, unless the gate or the version in use is
    another one now.

    Args:
        settings: of the pipeline; `promotion` is the gate.
        wanted: number or alias of the version; None: that of `registry.alias`.
        spark: starts Spark; called where `promotion.slices` is set.

    Raises:
        ConfigError: no version is named, or another process decides at this moment.
        RegistryError: there is no such version, or its run's files are not below storage.root.
        TrackingError: MLflow does not answer; run again.
        StorageError: storage.root cannot be written.
    """
    started = time.monotonic()
    of = settings.promotion
    if of.mode == "disabled":
        logger.info("promotion: disabled by promotion.mode; no version is looked at, no alias moves")
        return {
            "verdict": "disabled",
            "model_name": settings.registry.model_name,
            "mode": of.mode,
            "already_done": True,
        }
    wanted = wanted or settings.registry.alias
    if not wanted:
        raise ConfigError("promote: which version? registry.alias is empty; give its number")
    name = settings.registry.model_name
    with promotion_steps.turn(settings) as (client, mark):
        settled = promotion_steps.settle(client, settings, mark) if of.mode == "enabled" else None
        challenger = versions.find(
            client, name, wanted, retry_seconds=settings.tracking.retry_seconds,
            remedy="train one, or name another: mlspark promote NUMBER",
        )  # fmt: skip
        if settled is not None and settled.version == challenger.version and settled.verdict != "superseded":
            return _report(settled, settings, started)
        champion = _champion(client, settings)
        history = _history(settings)
        if challenger.version == champion:
            return _in_use(settings, champion, history)
        decided_id = _id(client, settings, challenger.version, champion, history)
        earlier = next((decision for decision in history if decision.id == decided_id), None)
        if earlier is not None:
            logger.info("promotion: decided already, %s: %s", earlier.decided_at, promotion_steps.words(earlier))
            return _report(earlier, settings, started) | {"already_done": True}
        checks = list(gate_checks.checks(client, settings, history, challenger, champion, spark))
        is_passed = gate.is_passed(checks)
        decision = _decision(
            client, settings, decided_id, "promoted" if is_passed else "kept_out", challenger.version,
            before=champion, after=challenger.version if is_passed else champion, reasons=gate.reasons(checks),
            checks=checks, mode=of.mode,
        )  # fmt: skip
        decision = promotion_steps.carry_out(client, settings, decision, mark)
    return _report(decision, settings, started)


def promote_in_session(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Do what `promote` does, for the version that training has registered, as one of the stages of a session."""
    return promote(settings, spark=lambda: spark)


def roll_back(settings: Settings, *, to: int | None = None, because: str = "") -> dict[str, Any]:
    """Give the alias of the version in use to the one that had it before, or to version `to`, and return the report.

    Whatever `promotion.mode` is. The version that was in use is not promoted again, unless it is named here.

    Raises:
        RegistryError: no such version, or a file of it is missing or changed; or it is not known which was before.
        ConfigError: another process decides at this moment.
        TrackingError: MLflow does not answer; run again.
    """
    started = time.monotonic()
    name = settings.registry.model_name
    with promotion_steps.turn(settings) as (client, mark):
        settled = promotion_steps.settle(client, settings, mark)
        if settled is not None and settled.verdict == "rolled_back" and to in (None, settled.version):
            return _report(settled, settings, started)
        champion, history = _champion(client, settings), _history(settings)
        wanted = _before(champion, history, settings) if to is None else to
        version = versions.find(
            client, name, wanted, retry_seconds=settings.tracking.retry_seconds, remedy="name another: --to NUMBER"
        ).version
        if version == champion:
            return _in_use(settings, version, history)
        reason = because or (f"back to version {version}" if to is None else f"version {version} was named")
        decision = _decision(
            client, settings, _id(client, settings, version, champion, history, "rollback"), "rolled_back", version,
            before=champion, after=version, reasons=(reason,), checks=(), mode="enabled",
        )  # fmt: skip
        decision = promotion_steps.carry_out(client, settings, decision, mark)
    return _report(decision, settings, started)


def _champion(client: Client, settings: Settings) -> int | None:
    return versions.with_alias(
        client, settings.registry.model_name, settings.promotion.champion, retry_seconds=settings.tracking.retry_seconds
    )


def _history(settings: Settings) -> list[Decision]:
    """Return what was decided on versions that have or might have got the alias, oldest first."""
    decisions = promotion_audit.read(settings.table("promotions"), settings.registry.model_name)
    return [decision for decision in decisions if decision.alias == settings.promotion.champion]


def _before(champion: int | None, history: Sequence[Decision], settings: Settings) -> int:
    """Return the version that was in use before the one in use was promoted."""
    moves = (decision for decision in reversed(history) if decision.verdict == "promoted" and decision.moves_alias)
    of_champion = next((move for move in moves if move.champion_after == champion), None)
    if champion is None or of_champion is None or of_champion.champion_before is None:
        why = "no version is in use" if champion is None else f"no version was in use before version {champion}"
        raise RegistryError(
            f"model {settings.registry.model_name}: {why}, as far as {settings.table('promotions')} says; "
            f"name the version: --to NUMBER"
        )
    return of_champion.champion_before


def _id(
    client: Client,
    settings: Settings,
    version: int,
    champion: int | None,
    history: Sequence[Decision],
    what: str = "promotion",
) -> str:
    name, seconds = settings.registry.model_name, settings.tracking.retry_seconds
    decides = {
        "what": what,
        "version": [name, version, versions.run_of(client, name, version, retry_seconds=seconds)],
        "champion": champion,
        "gate": settings.promotion.model_dump(mode="json"),
        "moves": sum(decision.moves_alias for decision in history),
    }
    return storage.digest(decides)[:32]


def _decision(
    client: Client,
    settings: Settings,
    id_: str,
    verdict: Verdict,
    version: int,
    *,
    before: int | None,
    after: int | None,
    reasons: Sequence[str],
    checks: Sequence[Check],
    mode: str,
) -> Decision:
    name, seconds = settings.registry.model_name, settings.tracking.retry_seconds
    return Decision(
        id=id_,
        decided_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        model_name=name,
        mode=mode,
        verdict=verdict,
        version=version,
        run_id=versions.run_of(client, name, version, retry_seconds=seconds) or "",
        alias=settings.promotion.champion,
        champion_before=before,
        champion_after=after,
        reasons=tuple(reasons),
        checks=tuple(asdict(check) for check in checks),
        settings=settings.promotion.model_dump(mode="json"),
        user=_user(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user of a container without a name
        return ""


def _in_use(settings: Settings, version: int, history: Sequence[Decision]) -> dict[str, Any]:
    """Return the report on the version that is in use."""
    logger.info("promotion: version %d of model %s is in use already", version, settings.registry.model_name)
    of_version = [decision for decision in history if decision.champion_after == version and decision.moves_alias]
    return {
        "verdict": "in_use",
        "mode": settings.promotion.mode,
        "model_name": settings.registry.model_name,
        "version": version,
        "champion_before": version,
        "champion_after": version,
        "reasons": list(of_version[-1].reasons) if of_version else [],
        "already_done": True,
    }


def _report(decision: Decision, settings: Settings, started: float) -> dict[str, Any]:
    return {
        **decision.to_json(),
        "reasons": list(decision.reasons),
        "checks": list(decision.checks),
        "audit": settings.table("promotions"),
        "already_done": False,
        "seconds": round(time.monotonic() - started, 3),
    }

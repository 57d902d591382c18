"""A decision is carried out: whole, once, and by one process at a time, whatever is killed in between. Driver.

It is written down before anything moves, and taken out again when all is done: who comes after a process that was killed
carries it out first. The alias moves in one transaction of MLflow, so that one version is in use at every moment.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mlspark import storage
from mlspark.registry import versions
from mlspark.registry.decision import Decision
from mlspark.settings.pipeline import Settings
from mlspark.stages import places, promotion_audit, training_mark
from mlspark.stages.training_mark import Mark
from mlspark.tracking import runs
from mlspark.tracking.runs import Client

logger = logging.getLogger(__name__)

_FOLDER = "promotions"
"""Folder of what is being decided, below the root."""


@contextmanager
def turn(settings: Settings) -> Iterator[tuple[Client, Mark]]:
    """Yield a client of the registry and the mark of the one process that decides on this model."""
    name = settings.registry.model_name
    with (
        places.writing(settings, ("promotions",), folder=_FOLDER),
        training_mark.held(
            storage.join(settings.root, _FOLDER),
            name,
            refusal=lambda holder: (
                f"process {holder.process} on {holder.host} decides on versions of model {name} at this moment; run again "
                f"when it has ended"
            ),
        ) as mark,
    ):
        yield runs.connect(settings.tracking, settings.root), mark
        mark.finish()


def _pending(settings: Settings) -> str:
    return storage.join(settings.root, _FOLDER, f"{settings.registry.model_name}.pending.json")


def carry_out(client: Client, settings: Settings, decision: Decision, mark: Mark) -> Decision:
    """Do what was decided and return it, superseded where the alias names a third version by now.

    Raises:
        TrackingError: MLflow does not answer; the next call goes on.
        ConfigError: another process has taken the turn, because this one gave no sign of life.
    """
    if decision.mode != "enabled":
        promotion_audit.append(settings.table("promotions"), decision)
        logger.info("promotion: %s", words(decision))
        return decision
    storage.write_sealed(_pending(settings), decision.to_json())
    return _finish(client, settings, decision, mark)


def settle(client: Client, settings: Settings, mark: Mark) -> Decision | None:
    """Carry out what a process has decided that was killed before it was done; None where there is nothing."""
    uri = _pending(settings)
    if not storage.exists(uri):
        return None
    decision = Decision.from_json(storage.read_sealed(uri))
    logger.info("promotion: the decision of %s was not carried out to its end; going on with it", decision.decided_at)
    return _finish(client, settings, decision, mark)


def _finish(client: Client, settings: Settings, decision: Decision, mark: Mark) -> Decision:
    """Move the alias, note the decision with the version and in the audit; again, it changes nothing."""
    name, seconds = decision.model_name, settings.tracking.retry_seconds
    if decision.moves_alias:
        now = versions.with_alias(client, name, decision.alias, retry_seconds=seconds)
        is_there = versions.run_of(client, name, decision.version, retry_seconds=seconds) == decision.run_id
        if now not in (decision.champion_before, decision.champion_after) or not is_there:
            gone = f"alias {decision.alias} names version {now}" if is_there else f"version {decision.version} is gone"
            decision = replace(
                decision, verdict="superseded", champion_after=now, reasons=(f"not carried out: {gone} by now",)
            )
        elif now != decision.champion_after:
            assert decision.champion_after is not None
            mark.check()
            versions.move_alias(client, name, decision.alias, decision.champion_after, retry_seconds=seconds)
    if decision.verdict != "superseded":
        versions.annotate(client, name, decision.version, decision.tags, retry_seconds=seconds)
    promotion_audit.append(settings.table("promotions"), decision)
    storage.delete(_pending(settings))
    logger.info("promotion: %s", words(decision))
    return decision


def words(decision: Decision) -> str:
    verdict = {
        "promoted": f"is promoted over version {decision.champion_before}"
        if decision.champion_before
        else "is promoted",
        "kept_out": "is kept out",
        "rolled_back": f"is in use again, in place of version {decision.champion_before}",
        "superseded": "is not promoted",
    }[decision.verdict]
    dry = " (dry run: no alias moves)" if decision.mode == "dry_run" else ""
    return f"version {decision.version} of model {decision.model_name} {verdict}{dry}: {'; '.join(decision.reasons)}"

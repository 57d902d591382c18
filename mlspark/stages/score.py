"""The score stage: raw rows become predictions in a table, every row accounted for. Driver."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import storage, tables
from mlspark.errors import ConfigError
from mlspark.intake import join_types, pictures, row_numbers
from mlspark.intake import joins as joining
from mlspark.intake.joins import Join
from mlspark.intake.rows import take_in
from mlspark.pictures import decoder
from mlspark.registry import versions
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch
from mlspark.scoring.predictor import refuse_other_decoder
from mlspark.session import computed_in_utc
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.sources.json import JsonSettings
from mlspark.sources.source import Source, refuse_changed
from mlspark.stages import places
from mlspark.stages.check import check_score
from mlspark.tracking import runs

logger = logging.getLogger(__name__)


@computed_in_utc
def score(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Write predictions for `scoring.source` with `scoring.model` and return the report.

    Does nothing when these rows were already scored with this model version.

    Raises:
        ConfigError: scoring.source is not set, or the joins lack columns that the model needs.
        TrackingError: MLflow does not answer.
        RegistryError: no such model, version or alias, or a file of the version is not what was registered.
        SourceError: the source is absent or empty, or changed while it was read.
        ContractError: the data as a whole does not meet the model's contract.
        TableError: the score table holds scores of another kind of task.
        StorageError: the tables' folder is full, read-only or another's; found before a row is read where it is so then.
        In all these cases nothing was written that counts.
    """
    started = time.monotonic()
    check_score(settings)
    model = _find_model(settings)
    rows_source, joins = _find_source(spark, settings), _joins(spark, model, settings)
    kept = batch.kept_columns(model.package, settings.scoring.keep, _types(spark, rows_source, settings))
    score_id = _score_id(rows_source, joins, model, settings)
    table = settings.table("scores")
    batch.check(model.package, table, kept=kept)
    renamed = {name: new for name, new in batch.written_names(model.package, kept).items() if name != new}

    done = tables.find_commit(table, score_id)
    if done is not None:
        logger.info("scores: already done, version %d of %s", done.version, table)
        return _report(
            renamed, done.metadata, table, done.version, already_done=True, seconds=time.monotonic() - started
        )

    with ExitStack() as stack:
        stack.enter_context(places.writing(settings, ("scores", "scores_quarantine")))
        taken = stack.enter_context(
            take_in(
                spark,
                {"score": rows_source},
                batch.contract_of_rows(model.package, has_label=rows_source.settings.has_label, kept=kept),
                columns=model.package.scoring_contract,
                ignored=(*model.package.ignored, *(rule.source_name for rule in kept)),
                extended=row_numbers.with_position,
                picture_features=pictures.fitted(model.package.encoder, for_model=True),
            )
        )
        stack.enter_context(joining.computing(joins))
        joined = stack.enter_context(joining.read(spark, joins))
        good = joining.attach(row_numbers.numbered(taken.rows, taken.good), joined.good, joins)
        differences, totals = taken.differences["score"], taken.account.totals
        metadata = {
            "id": score_id,
            "source": {**rows_source.identity, "schema_differences": differences},
            "joins": joined.to_json(joins),
            "model_name": model.name,
            "model_version": model.version,
            "reasons": taken.account.reasons,
            **totals,
        }
        _write_beside(settings, score_id, joined.with_bad(taken.bad), totals["rows_quarantined"] + joined.num_bad)
        scored = batch.scored(
            good,
            model,
            score_id=score_id,
            source_version=rows_source.identity["sha256"],
            kept=kept,
            allow_decoder=settings.scoring.allow_decoder,
        )
        _refuse_changed(spark, settings, rows_source, joins)
        part = {"part": "score_id", "value": score_id}
        written = tables.replace_part(scored, table, **part, metadata=metadata, may_add_columns=True)
    seconds = time.monotonic() - started
    logger.info("scores: wrote version %d of %s in %.1f s", written.version, table, seconds)
    return _report(renamed, metadata, table, written.version, already_done=False, seconds=seconds)


def _find_model(settings: Settings) -> ModelVersion:
    """Return the version to score with, if it may be used here."""
    client = runs.connect(settings.tracking, settings.root)
    model = versions.find(
        client,
        settings.registry.model_name,
        settings.scoring.model,
        retry_seconds=settings.tracking.retry_seconds,
    )
    if not settings.scoring.allow_decoder:
        refuse_other_decoder(model.package.encoder)
    return model


def _write_beside(settings: Settings, score_id: str, bad: DataFrame, num_bad: int) -> None:
    """Write the settings and the bad rows; they count from when the scores stand."""
    storage.write_bytes(tables.sidecar(settings.table("scores"), score_id, "config.yaml"), settings.to_yaml().encode())
    tables.write_quarantine(bad, settings.table("scores_quarantine"), score_id, num_bad)


def _find_source(spark: SparkSession, settings: Settings) -> Source:
    assert settings.scoring.source is not None
    return catalog.find(spark, settings.scoring.source, root=settings.sources.root)


def _types(spark: SparkSession, source: Source, settings: Settings) -> dict[str, str] | None:
    """Return the source's columns -> types as far as `scoring.keep` needs them; None where rows have no names."""
    if not settings.scoring.keep:
        return {}
    if isinstance(source.settings, JsonSettings):
        return dict.fromkeys(settings.scoring.keep, "string")  # each line names its own
    schema = catalog.columns(spark, source)
    return None if schema is None else {field.name: field.dataType.simpleString() for field in schema}


def _joins(spark: SparkSession, model: ModelVersion, settings: Settings) -> tuple[Join, ...]:
    """Return the joins that add the columns of the model's features that are not in its contract."""
    contract = model.package.scoring_contract
    needed = set(model.package.encoder.inputs) - {column.name for column in contract.columns}
    if not needed:
        return ()
    joins = joining.find(spark, settings.joins, root=settings.sources.root)
    if missing := sorted(needed - set(join_types.declared(settings.joins, contract))):
        raise ConfigError(
            f"joins: model {model.name} version {model.version} needs {', '.join(missing)}; give the joins that it was "
            f"trained with"
        )
    return joins


def _score_id(rows_source: Source, joins: Sequence[Join], model: ModelVersion, settings: Settings) -> str:
    """Return the hash of everything that decides the scores; the threshold is part of the version."""
    decides = {
        "source": rows_source.identity,
        "joins": [join.identity for join in joins],
        "model": [model.name, model.version, model.package.digest],
        "keep": settings.scoring.keep,
        **({"decoder": decoder.version()} if model.package.encoder.images else {}),
    }
    return storage.digest(decides)[:32]


def _refuse_changed(spark: SparkSession, settings: Settings, rows_source: Source, joins: Sequence[Join]) -> None:
    """Raise SourceError when a source is no longer what it was when the job began to read it."""
    refuse_changed(rows_source, _find_source(spark, settings))
    now = joining.sources(spark, settings.joins, root=settings.sources.root) if joins else {}
    for join in joins:
        refuse_changed(join.source, now[join.settings.name])


def _report(
    renamed: Mapping[str, str],
    metadata: Mapping[str, Any],
    table: str,
    version: int,
    *,
    already_done: bool,
    seconds: float,
) -> dict[str, Any]:
    return {
        "rows_read": metadata["rows_read"],
        "rows_scored": metadata["rows_good"],
        "rows_quarantined": metadata["rows_quarantined"],
        "reasons": metadata["reasons"],
        "schema_differences": metadata["source"]["schema_differences"],
        "renamed": dict(renamed),
        "source": metadata["source"],
        "output": table,
        "output_version": version,
        "model_name": metadata["model_name"],
        "model_version": metadata["model_version"],
        "already_done": already_done,
        "seconds": round(seconds, 3),
    }

"""The score stage: raw rows become predictions in a table, every row accounted for. Driver."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import storage, tables
from mlspark.contracts.contract import ColumnRule
from mlspark.errors import ConfigError
from mlspark.intake import join_types, pictures, row_numbers
from mlspark.intake import joins as joining
from mlspark.intake.joins import Join, JoinSettings
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
from mlspark.tables import Commit
from mlspark.tracking import runs

logger = logging.getLogger(__name__)


@computed_in_utc
def score(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Write predictions for `scoring.source` with `scoring.model` and those beside it, and return the report.

    Leaves out the versions with which these rows were already scored.

    Raises:
        ConfigError: scoring.source is not set, or the joins lack columns that a model needs, or a version cannot stand
            beside the first.
        TrackingError: MLflow does not answer.
        RegistryError: no such model, version or alias, or a file of the version is not what was registered.
        SourceError: the source is absent or empty, or changed while it was read.
        ContractError: the data as a whole does not meet the model's contract, or a model's output for a row is no number.
        TableError: the score table holds scores of another kind of task.
        StorageError: the tables' folder is full, read-only or another's; found before a row is read where it is so then.
        In all these cases nothing was written that counts, but the parts of versions that were whole before.
    """
    started = time.monotonic()
    check_score(settings)
    models = _find_models(settings)
    rows_source = _find_source(spark, settings)
    joins = needed_joins(spark, models, settings.joins, root=settings.sources.root)
    kept = batch.kept_columns(models[0].package, settings.scoring.keep, _types(spark, rows_source, settings))
    table, parts = settings.table("scores"), {}
    for model in models:
        batch.check(model.package, table, kept=kept)
        parts[_score_id(rows_source, joins, model, settings)] = model
    done = {score_id: tables.find_commit(table, score_id) for score_id in parts}
    todo = {score_id: model for score_id, model in parts.items() if done[score_id] is None}
    written = _score(spark, settings, todo, rows_source, joins, kept) if todo else {}
    reports = []
    for score_id, model in parts.items():
        commit = written.get(score_id) or done[score_id]
        assert commit is not None
        renamed = {name: new for name, new in batch.written_names(model.package, kept).items() if name != new}
        if score_id not in written:
            logger.info("scores: already done, version %d of %s", commit.version, table)
        reports.append(_report(renamed, commit, table, already_done=score_id not in written, started=started))
    return {**reports[0], **({"beside": reports[1:]} if len(reports) > 1 else {})}


def _score(
    spark: SparkSession,
    settings: Settings,
    todo: Mapping[str, ModelVersion],
    rows_source: Source,
    joins: Sequence[Join],
    kept: Sequence[ColumnRule],
) -> dict[str, Commit]:
    """Write the scores of each version by its score id, of rows that are read and checked once; return their commits."""
    package = next(iter(todo.values())).package
    table, commits = settings.table("scores"), {}
    with ExitStack() as stack:
        stack.enter_context(places.writing(settings, ("scores", "scores_quarantine")))
        taken = stack.enter_context(
            take_in(
                spark,
                {"score": rows_source},
                batch.contract_of_rows(package, has_label=rows_source.settings.has_label, kept=kept),
                columns=package.scoring_contract,
                ignored=(*package.ignored, *(rule.source_name for rule in kept)),
                extended=row_numbers.with_position,
                picture_features=pictures.fitted(package.encoder, for_model=True),
            )
        )
        stack.enter_context(joining.computing(joins))
        joined = stack.enter_context(joining.read(spark, joins))
        good = joining.attach(row_numbers.numbered(taken.rows, taken.good), joined.good, joins)
        for score_id, model in todo.items():
            metadata = {
                "id": score_id,
                "source": {**rows_source.identity, "schema_differences": taken.differences["score"]},
                "joins": joined.to_json(joins),
                "model_name": model.name,
                "model_version": model.version,
                "reasons": taken.account.reasons,
                **taken.account.totals,
            }
            num_bad = taken.account.totals["rows_quarantined"] + joined.num_bad
            _write_beside(settings, score_id, joined.with_bad(taken.bad), num_bad)
            scored = batch.scored(
                good,
                model,
                score_id=score_id,
                source_version=rows_source.identity["sha256"],
                kept=kept,
                allow_decoder=settings.scoring.allow_decoder,
            )
            _refuse_changed(spark, settings, rows_source, joins)
            started = time.monotonic()
            part = {"part": "score_id", "value": score_id}
            with batch.predicting():
                commits[score_id] = tables.replace_part(scored, table, **part, metadata=metadata, may_add_columns=True)
            logger.info(
                "scores: wrote version %d of %s, by version %d of model %s, in %.1f s",
                commits[score_id].version, table, model.version, model.name, time.monotonic() - started,
            )  # fmt: skip
    return commits


def _find_models(settings: Settings) -> list[ModelVersion]:
    """Return the versions to score with, if they may be used here: scoring.model, then scoring.beside, each once."""
    client = runs.connect(settings.tracking, settings.root)
    models: dict[int, ModelVersion] = {}
    for wanted in (settings.scoring.model, *settings.scoring.beside):
        model = versions.find(
            client, settings.registry.model_name, wanted, retry_seconds=settings.tracking.retry_seconds
        )
        if not settings.scoring.allow_decoder:
            refuse_other_decoder(model.package.encoder)
        models.setdefault(model.version, model)
    first, *others = models.values()
    for other in others:
        _refuse_beside(first, other)
    return [first, *others]


def _refuse_beside(first: ModelVersion, other: ModelVersion) -> None:
    """Raise ConfigError where rows that are read for one version are not those that the other needs."""
    mine, theirs = first.package, other.package
    is_same = {
        "contract": mine.files["contract.json"] == theirs.files["contract.json"],
        "sample weight": mine.scoring_contract == theirs.scoring_contract,
        "pictures": mine.encoder.images == theirs.encoder.images,
        "task": mine.task.prediction_types == theirs.task.prediction_types,
    }
    if different := [name for name, same in is_same.items() if not same]:
        raise ConfigError(
            f"scoring.beside: version {other.version} of model {other.name} has another {' and '.join(different)} than "
            f"version {first.version}; score with it in a job of its own"
        )


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


def needed_joins(
    spark: SparkSession, models: Sequence[ModelVersion], declared: Sequence[JoinSettings], *, root: str
) -> tuple[Join, ...]:
    """Return the joins that add the columns of the models' features that are not in their contract.

    Args:
        spark: the session.
        models: versions of one contract.
        declared: the pipeline's joins.
        root: `sources.root`.

    Raises:
        ConfigError: they lack a column.
        SourceError: a source of theirs is absent.
    """
    contract = models[0].package.scoring_contract
    inputs = {name: model for model in models for name in model.package.encoder.inputs}
    needed = set(inputs) - {column.name for column in contract.columns}
    if not needed:
        return ()
    joins = joining.find(spark, declared, root=root)
    if missing := sorted(needed - set(join_types.declared(declared, contract))):
        model = inputs[missing[0]]
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
    renamed: Mapping[str, str], commit: Commit, table: str, *, already_done: bool, started: float
) -> dict[str, Any]:
    metadata = commit.metadata
    return {
        "rows_read": metadata["rows_read"],
        "rows_scored": metadata["rows_good"],
        "rows_quarantined": metadata["rows_quarantined"],
        "reasons": metadata["reasons"],
        "schema_differences": metadata["source"]["schema_differences"],
        "renamed": dict(renamed),
        "source": metadata["source"],
        "output": table,
        "output_version": commit.version,
        "model_name": metadata["model_name"],
        "model_version": metadata["model_version"],
        "already_done": already_done,
        "seconds": round(time.monotonic() - started, 3),
    }

"""The score stage: raw rows become predictions in a table, every row accounted for. Driver."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import quarantine, storage, tables
from mlspark.contracts.contract import ColumnRule
from mlspark.errors import ConfigError
from mlspark.intake import join_types, pictures, row_numbers
from mlspark.intake import joins as joining
from mlspark.intake.joins import Join, JoinSettings
from mlspark.intake.rows import take_in
from mlspark.pictures import decoder
from mlspark.registry import versions
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch, contributions, new_files
from mlspark.scoring.contributions import Explaining
from mlspark.scoring.predictor import refuse_other_decoder
from mlspark.session import computed_in_utc
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.sources.json import JsonSettings
from mlspark.sources.source import Source, refuse_changed
from mlspark.sql_literals import sql_text
from mlspark.stages import places, score_reports
from mlspark.stages.check import check_score
from mlspark.tables import Commit
from mlspark.tracking import runs

logger = logging.getLogger(__name__)


@computed_in_utc
def score(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Write predictions for `scoring.source` with `scoring.model` and those beside it, and return the report.

    Leaves out the versions with which these rows were already scored; with `scoring.files_at_once` the files.

    Raises:
        ConfigError: scoring.source is not set, or the joins lack columns that a model needs, or a version cannot stand
            beside the first.
        TrackingError: MLflow does not answer.
        RegistryError: no such model, version or alias, or a file of the version is not what was registered.
        SourceError: the source is absent or empty, or changed while it was read.
        ContractError: the data as a whole does not meet the model's contract, or a model's output for a row is no number.
        TableError: the score table holds scores of another kind of task.
        AttributionError: `scoring.explain` is set, and a version cannot be explained.
        StorageError: the tables' folder is full, read-only or another's; found before a row is read where it is so then.
        In all these cases nothing was written that counts, but the parts of versions that were whole before.
    """
    started = time.monotonic()
    check_score(settings)
    # The source first: what finds models may still be imported, see `commands.job.Later`.
    rows_source = _find_source(spark, settings)
    models = _find_models(settings)
    joins = needed_joins(spark, models, settings.joins, root=settings.sources.root)
    kept = batch.kept_columns(models[0].package, settings.scoring.keep, _types(spark, rows_source, settings))
    table, parts = settings.table("scores"), {}
    for model in models:
        batch.check(model.package, table, kept=kept, is_explained=settings.scoring.explain > 0)
        parts[_score_id(rows_source, joins, model, settings)] = model
    if settings.scoring.files_at_once:
        return _score_new_files(spark, settings, models, rows_source, joins, kept, started=started)
    done = {score_id: tables.find_commit(table, score_id) for score_id in parts}
    todo = {score_id: model for score_id, model in parts.items() if done[score_id] is None}
    work = _Work(spark, settings, joins, kept, _explaining(settings, todo.values()))
    written = _score(work, todo, rows_source) if todo else {}
    reports = []
    for score_id, model in parts.items():
        commit = written.get(score_id) or done[score_id]
        assert commit is not None
        renamed = {name: new for name, new in batch.written_names(model.package, kept).items() if name != new}
        if score_id not in written:
            logger.info("scores: already done, version %d of %s", commit.version, table)
        reports.append(
            score_reports.of_commit(renamed, commit, table, already_done=score_id not in written, started=started)
        )
    return {**reports[0], **({"beside": reports[1:]} if len(reports) > 1 else {})}


def _score_new_files(
    spark: SparkSession,
    settings: Settings,
    models: Sequence[ModelVersion],
    rows_source: Source,
    joins: Sequence[Join],
    kept: Sequence[ColumnRule],
    *,
    started: float,
) -> dict[str, Any]:
    """Write the scores of the files that a version has not scored yet, group by group, and return the report."""
    table = settings.table("scores")
    tables.keep_history(spark, table)
    turn = tables.next_turn(table, new_files.WRITERS)  # before the ledger: what is committed after it was read is seen
    done = new_files.scored(table)
    of_source = {"source": rows_source.settings.model_dump(mode="json", exclude={"path"})}
    decides = {model.version: _decides(joins, model, settings) | of_source for model in models}
    commits: dict[int, list[Commit]] = {model.version: [] for model in models}
    groups = new_files.groups(rows_source, decides, done, settings.scoring.files_at_once)
    work = _Work(spark, settings, joins, kept, _explaining(settings, models if groups else ()))
    for number, (group, wanted) in enumerate(groups, 1):
        logger.info("%s: group %d of %d, %d files", rows_source.uri, number, len(groups), len(group.parts))
        todo = {_score_id(group, joins, model, settings): model for model in models if model.version in wanted}
        ledger = {score_id: new_files.keys(group, decides[model.version]) for score_id, model in todo.items()}
        for commit in _score(work, todo, group, ledger=ledger, turn=turn).values():
            commits[commit.metadata["model_version"]].append(commit)
            turn = turn[0], turn[1] + 1
    if not done:
        tables.keep_history(spark, table)
    reports = [
        score_reports.of_files(model, rows_source, commits[model.version], table, kept, started) for model in models
    ]
    return {**reports[0], **({"beside": reports[1:]} if len(reports) > 1 else {})}


@dataclass(frozen=True)
class _Work:
    """What all scores of a job have in common."""

    spark: SparkSession
    settings: Settings
    joins: Sequence[Join]
    kept: Sequence[ColumnRule]
    """Columns besides the contract's."""
    explaining: Mapping[int, Explaining]
    """Version -> what its contributions rest on."""


def _score(
    work: _Work,
    todo: Mapping[str, ModelVersion],
    rows_source: Source,
    *,
    ledger: Mapping[str, Sequence[str]] | None = None,
    turn: tuple[str, int] | None = None,
) -> dict[str, Commit]:
    """Write the scores of each version by its score id, of rows that are read and checked once; return their commits.

    Args:
        work: what they have in common.
        todo: score id -> version.
        rows_source: the rows.
        ledger: score id -> keys of the source's files, see `new_files`.
        turn: of the first commit in the row of writers that go by the ledger.
    """
    package = next(iter(todo.values())).package
    commits: dict[str, Commit] = {}
    with ExitStack() as stack:
        if ledger is None:  # of many groups of files only the first would gain by it
            allow_decoder = work.settings.scoring.allow_decoder
            stack.enter_context(batch.worker_ahead(work.spark, package, allow_decoder=allow_decoder))
        stack.enter_context(places.writing(work.settings, ("scores", "scores_quarantine")))
        taken = stack.enter_context(
            take_in(
                work.spark,
                {"score": rows_source},
                batch.contract_of_rows(package, has_label=rows_source.settings.has_label, kept=work.kept),
                columns=package.scoring_contract,
                ignored=(*package.ignored, *(rule.source_name for rule in work.kept)),
                extended=row_numbers.with_position,
                picture_features=pictures.fitted(package.encoder, for_model=True),
            )
        )
        stack.enter_context(batch.sending(work.spark))
        stack.enter_context(joining.computing(work.joins))
        joined = stack.enter_context(joining.read(work.spark, work.joins))
        good = joining.attach(row_numbers.numbered(taken.rows, taken.good), joined.good, work.joins)
        for score_id, model in todo.items():
            metadata = {
                "id": score_id,
                "source": {**rows_source.identity, "schema_differences": taken.differences["score"]},
                "joins": joined.to_json(work.joins),
                "model_name": model.name,
                "model_version": model.version,
                "reasons": taken.account.reasons,
                **taken.account.totals,
                **({} if ledger is None else {new_files.FILES: list(ledger[score_id])}),
            }
            num_bad = taken.account.totals["rows_quarantined"] + joined.num_bad
            _write_beside(work.settings, score_id, joined.with_bad(taken.bad), num_bad)
            of_model = None if turn is None else (turn[0], turn[1] + len(commits))
            commits[score_id] = _write(work, good, model, rows_source, metadata, turn=of_model)
    return commits


def _write(
    work: _Work,
    good: DataFrame,
    model: ModelVersion,
    rows_source: Source,
    metadata: Mapping[str, Any],
    *,
    turn: tuple[str, int] | None,
) -> Commit:
    """Write the scores of good rows by a version, as the commit that `metadata` describes."""
    score_id, settings = metadata["id"], work.settings
    scored = batch.scored(
        good,
        model,
        score_id=score_id,
        source_version=rows_source.identity["sha256"],
        kept=work.kept,
        allow_decoder=settings.scoring.allow_decoder,
        explaining=work.explaining.get(model.version),
    )
    _refuse_changed(work.spark, settings, rows_source, work.joins)
    started = time.monotonic()
    with batch.predicting():
        commit = tables.replace_part(
            scored,
            settings.table("scores"),
            part="score_id",
            value=score_id,
            metadata=metadata,
            may_add_columns=True,
            replacing=_replaced(settings, model),
            turn=turn,
            ranges_of=batch.ranged_names(model.package, work.kept),
        )
    logger.info(
        "scores: wrote version %d of %s, by version %d of model %s, in %.1f s",
        commit.version, settings.table("scores"), model.version, model.name, time.monotonic() - started,
    )  # fmt: skip
    return commit


def _replaced(settings: Settings, model: ModelVersion) -> str:
    """Return SQL of the earlier scores that those of a version take the place of."""
    if not settings.scoring.replace:
        return ""
    name = sql_text(model.name)
    return f"({settings.scoring.replace}) AND model_name = {name} AND model_version = {model.version}"


def _explaining(settings: Settings, models: Iterable[ModelVersion]) -> dict[int, Explaining]:
    """Return what the contributions of each version rest on, nothing where none are asked for."""
    if not settings.scoring.explain:
        return {}
    from mlspark.stages import explanation  # torch, which takes seconds

    found = {}
    for model in models:
        reference, _ = explanation.reference_rows(model, settings.root)
        found[model.version] = Explaining(settings.scoring.explain, reference)
        contributions.check(model.package, found[model.version], allow_decoder=settings.scoring.allow_decoder)
    return found


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
    quarantine.write(bad, settings.table("scores_quarantine"), score_id, num_bad)


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
    return storage.digest({"source": rows_source.identity} | _decides(joins, model, settings))[:32]


def _decides(joins: Sequence[Join], model: ModelVersion, settings: Settings) -> dict[str, Any]:
    """Return what decides the scores besides the source."""
    return {
        "joins": [join.identity for join in joins],
        "model": [model.name, model.version, model.package.digest],
        "keep": settings.scoring.keep,
        **({"decoder": decoder.version()} if model.package.encoder.images else {}),
        **({"explain": settings.scoring.explain} if settings.scoring.explain else {}),
        **({"replace": settings.scoring.replace} if settings.scoring.replace else {}),
    }


def _refuse_changed(spark: SparkSession, settings: Settings, rows_source: Source, joins: Sequence[Join]) -> None:
    """Raise SourceError when a source is no longer what it was when the job began to read it."""
    refuse_changed(rows_source, _find_source(spark, settings))
    now = joining.sources(spark, settings.joins, root=settings.sources.root) if joins else {}
    for join in joins:
        refuse_changed(join.source, now[join.settings.name])

"""One commit of the score table, compared with what its version was trained and tried on. Driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.errors import ConfigError, MlsparkError, TableError
from mlspark.features import drift, profile
from mlspark.monitoring import checks, comparing, labels, reference
from mlspark.monitoring.checks import Check, Comparison
from mlspark.monitoring.labels import Labelled
from mlspark.monitoring.reference import KeptRows, TrainingRows
from mlspark.monitoring.settings import MonitoringSettings
from mlspark.registry.versions import ModelVersion
from mlspark.reports.monitor_page import Section
from mlspark.scoring import batch
from mlspark.sources import catalog
from mlspark.sources.source import Source
from mlspark.tables import Commit
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.losses import key_text


def compare(
    spark: SparkSession,
    commit: Commit,
    model: ModelVersion,
    source: Source | None,
    *,
    scores: str,
    root: str,
    limits: MonitoringSettings,
) -> tuple[dict[str, Any], list[Section]]:
    """Return the result of one commit of a score table, JSON-able, and what its page shows of columns.

    Args:
        spark: the session of the job.
        commit: of the score table.
        model: the version that scored it.
        source: of labels; None: those that the scored rows had.
        scores: the score table.
        root: storage.root, where the version's run has its predictions.
        limits: what is an alarm.

    Raises:
        TableError: rows of the commit are gone, or the version's training table is.
        ConfigError: a column or metric of `monitoring` is none.
        SourceError: labels cannot be read, or their keys are not unique.
        ContractError: the source of labels is not what its contract says.
    """
    contract = model.package.scoring_contract
    if unknown := [name for name in limits.ignore if name not in contract.names]:
        raise ConfigError(f"monitoring.ignore: {'; '.join(f'{name}: {contract.no_column(name)}' for name in unknown)}")
    metric = model.package.task.metric(limits.metric, setting="monitoring.metric")
    metadata, training = commit.metadata, reference.training_rows(model)
    scored = tables.read(spark, scores).where(F.col("score_id") == metadata["id"])
    work = _Comparing(model, commit, training, limits, scored, batch.written_names(model.package))
    work.compare_quarantine()
    kept = work.kept(root)
    work.compare_rows(kept)
    found = work.labelled(spark, source) if metadata["rows_good"] else None
    metrics = work.compare_labels(found, kept, metric)
    judged = checks.judged(work.comparisons, false_alarms=limits.false_alarms)
    result = {
        "scores": scores,
        "score_version": commit.version,
        "score_id": metadata["id"],
        **{key: metadata[key] for key in ("model_name", "model_version", "rows_read", "rows_quarantined", "reasons")},
        "rows_scored": metadata["rows_good"],
        "training": {
            "table": training.table,
            "version": training.version,
            "rows": training.record["rows"],
            "rows_read": training.num_read,
            "rows_quarantined": training.num_quarantined,
        },
        "kept": None if kept is None else {"split": kept.split, "rows": len(kept.predictions)},
        "labels": None if found is None else dict(found.counts),
        "metrics": metrics,
        "checks": [check.to_json() for check in sorted(judged, key=_gravest_first)],
        "not_compared": work.not_compared,
        "comparisons": {section.subject: section.comparison for section in work.sections},
        "alarms": sum(check.verdict == "alarm" for check in judged),
    }
    return result, work.sections


@dataclass
class _Comparing:
    """The comparisons of one commit, as they are made."""

    model: ModelVersion
    commit: Commit
    training: TrainingRows
    limits: MonitoringSettings
    scored: DataFrame
    names: Mapping[str, str]
    """Column of the contract -> its name in the score table."""
    comparisons: list[Comparison] = field(default_factory=list)
    not_compared: list[dict[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def _leave_out(self, subject: str, reason: str) -> None:
        self.not_compared.append({"subject": subject, "reason": reason})

    def _too_few(self, rows: int, words: str) -> str:
        return f"{rows:,} {words}, fewer than monitoring.min_rows={self.limits.min_rows:,}"

    def kept(self, root: str) -> KeptRows | None:
        """Return the rows that the version was tried on; without them scores and metrics have nothing to be held against."""
        try:
            return reference.kept_rows(self.model, root)
        except MlsparkError as error:
            self._leave_out("score", str(error))
            self._leave_out("performance", str(error))
            return None

    def compare_quarantine(self) -> None:
        metadata, training = self.commit.metadata, self.training
        if metadata["rows_read"] < self.limits.min_rows:
            self._leave_out("quarantine", self._too_few(metadata["rows_read"], "rows read"))
            return
        old = (training.num_quarantined, training.num_read)
        new = (metadata["rows_quarantined"], metadata["rows_read"])
        self.comparisons.append(comparing.of_quarantine(old, new, metadata["reasons"], self.limits))

    def compare_rows(self, kept: KeptRows | None) -> None:
        """Compare the columns of the scored rows, and their scores."""
        package, limits, task = self.model.package, self.limits, self.model.package.task
        scored, names, num_good = self.scored, self.names, self.commit.metadata["rows_good"]
        if num_good < limits.min_rows:
            for subject in ("input", *(() if kept is None else ("score",))):
                self._leave_out(subject, self._too_few(num_good, "scored rows"))
            return
        contract = package.scoring_contract
        inputs = {
            rule.name: rule.type for rule in contract.columns if rule.name in names and rule.name not in limits.ignore
        }
        numbers = [] if kept is None else reference.number_columns(task)
        types = {names[name]: type_ for name, type_ in inputs.items()} | dict.fromkeys(numbers, "double")
        records = profile.columns(scored.select(*types), types) if types else {}
        num_rows = _counted(records, scored)
        if num_rows != num_good:
            raise TableError(
                f"score table: has {num_rows:,} rows of version {self.commit.version}, which wrote {num_good:,}: rows were "
                f"deleted or added since; only whole commits can be monitored"
            )
        old = self.training.record
        self._compare_columns(
            "input",
            {"rows": old["rows"], "columns": {names[name]: old["columns"][name] for name in inputs}},
            {"rows": num_rows, "columns": {names[name]: records[names[name]] for name in inputs}},
        )
        if kept is None:
            return
        of_scores = {name: records[name] for name in numbers}
        if isinstance(task, ClassTask):
            classes = {key_text(row[0]): row[1] for row in scored.groupBy("prediction").count().collect()}
            of_scores["prediction"] = profile.of_values(classes)
        self._compare_columns(
            "score", reference.record_of_scores(kept.predictions, task), {"rows": num_rows, "columns": of_scores}
        )

    def _compare_columns(self, subject: checks.Subject, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        self.comparisons += comparing.of_columns(old, new, self.limits, subject=subject)
        self.sections.append(Section(subject, old, new, drift.compare(old, new)))

    def labelled(self, spark: SparkSession, source: Source | None) -> Labelled | None:
        """Return the scored rows that have a label; None where none is known."""
        package, scored, names = self.model.package, self.scored, self.names
        if source is None:
            return labels.of_scores(scored, package, names)
        schema = catalog.columns(spark, source)
        columns = [] if schema is None else schema.names
        key = labels.key_of(self.limits.label_key, package, names, scored, columns)
        return labels.of_source(spark, source, scored, package, names, key=key)

    def compare_labels(self, found: Labelled | None, kept: KeptRows | None, metric: str) -> dict[str, Any] | None:
        """Compare labels and the metric, and return all metrics of both sides."""
        task, limits = self.model.package.task, self.limits
        reason = ""
        if found is None:
            reason = "no label is known yet: the scored rows have none, and monitoring.labels is not set"
        elif len(found) < limits.min_rows:
            reason = self._too_few(len(found), "labelled rows")
        if reason or found is None:
            self._leave_out("label", reason)
            if kept is not None:
                self._leave_out("performance", reason)
            return None
        old = reference.record_of_labels(self.training.record, task)
        self._compare_columns("label", old, reference.record_of_targets(found.target, task))
        now = task.metrics(task.outputs_from(found.predictions), found.target)
        now_json = {
            name: value for name, value in now.to_json().items() if not name.startswith(task.lost_metrics or " ")
        }
        if kept is None:
            return {"kept": None, "now": now_json}
        if task.weight or metric in task.lost_metrics:
            lacks = "sample weights" if task.weight else "all quantiles"
            self._leave_out("performance", f"the score table does not have {lacks}, by which the kept {metric} goes")
        elif found_metric := comparing.of_metric(task, metric, kept.metrics, now, limits):
            self.comparisons += found_metric
        else:
            self._leave_out(
                "performance", f"{metric} or its interval cannot be computed of the labelled or the kept rows"
            )
        return {"kept": kept.metrics.to_json(), "now": now_json}


def _counted(records: Mapping[str, Mapping[str, Any]], scored: DataFrame) -> int:
    """Return the number of rows that records are of."""
    first = next(iter(records.values()), None)
    return scored.count() if first is None else first["count"] + first["nulls"]


def _gravest_first(check: Check) -> tuple[int, int]:
    return checks.VERDICTS.index(check.verdict), checks.SUBJECTS.index(check.subject)

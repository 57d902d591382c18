"""The model card of a version: what it is, what it is made of and how good it is, on one page for people. Runs anywhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlspark.engines import engine_file, ensemble
from mlspark.registry.package import Package
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.metrics import title

_MOST_CHARACTERS = 5_000
"""Length that MLflow's database has room for."""
_MOST_COLUMNS = 60
_FEW_METRICS = 3
"""Metrics of each member of an ensemble."""


def card(package: Package, name: str) -> str:
    """Return the card of a version of model `name`, in Markdown."""
    text = "\n".join([f"# {name}", "", *_what(package), "", *_quality(package.provenance), "", *_origin(package)])
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 4] + " ..."


def _what(package: Package) -> Iterator[str]:
    task, model = package.task, json.loads(package.files["model.json"])
    columns = list(package.input_contract.names)
    more = f" and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""
    yield f"Predicts `{task.target}` ({task.kind}) from {len(columns)} columns: {', '.join(columns[:_MOST_COLUMNS])}{more}."
    if isinstance(task, ClassTask):
        yield f"Classes: {', '.join(map(str, task.known_classes))}."
    predictions = ", ".join(f"`{column}` ({kind})" for column, kind in task.prediction_types.items())
    yield f"Gives {predictions}."
    yield ""
    yield f"Model: {_settings(model.get('model', {}))}. Engine: {_engine(package.files)}."
    yield (
        f"Rows that break the contract `{package.contract.name}` are refused or quarantined with their reasons, never "
        f"predicted."
    )


def _engine(files: Mapping[str, bytes]) -> str:
    """Return which engine runs the version, of an ensemble also those of its members."""
    members = [f"{name} by {engine_file.words(of_member)}" for name, of_member in ensemble.members(files)]
    return engine_file.words(files) + (f" ({', '.join(members)})" if members else "")


def _quality(provenance: Mapping[str, Any]) -> Iterator[str]:
    metrics: Mapping[str, Mapping[str, Any]] = provenance["metrics"]
    names = [name for split in metrics.values() for name in split if f"{name}_interval" in split]
    if not names:
        return
    yield (
        "| metric | "
        + " | ".join(f"{split} ({of_split['num_rows']:,} rows)" for split, of_split in metrics.items())
        + " |"
    )
    yield "| --- |" + " --- |" * len(metrics)
    for name in dict.fromkeys(names):
        yield f"| {title(name)} | " + " | ".join(_figure(of_split, name) for of_split in metrics.values()) + " |"
    yield ""
    yield "In brackets the 95 % interval."
    yield from _members(provenance.get("members", ()))


def _members(members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the table of an ensemble's members, by the rows of the last split that they were tried on."""
    split = next((split for split in ("test", "validation") if members and split in members[0]), "")
    if not split:
        return
    names = list(members[0][split])[:_FEW_METRICS]
    yield ""
    yield "| member | kind | " + " | ".join(f"{title(name)}, {split}" for name in names) + " |"
    yield "| --- | --- |" + " --- |" * len(names)
    for member in members:
        figures = (_figure(member[split], name) for name in names)
        yield f"| {member['name']} | {member.get('version') or member['kind']} | " + " | ".join(figures) + " |"


def _figure(metrics: Mapping[str, Any], name: str) -> str:
    if metrics.get(name) is None:
        return "not defined"
    interval = metrics.get(f"{name}_interval")
    return f"{metrics[name]:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _origin(package: Package) -> Iterator[str]:
    provenance = package.provenance
    changed = ", with changes" if provenance.get("git_is_changed") else ""
    yield f"* trained on version {provenance['table_version']} of `{provenance['table']}`, {package.encoder.rows:,} rows"
    for source, of_source in (provenance.get("sources") or {}).items():
        yield f"* source {source}: `{of_source['uri']}`, SHA-256 {of_source['sha256'][:12]}"
    if initial := provenance.get("initial_weights"):
        yield f"* began with the weights of `{initial['place']}`, SHA-256 {initial['sha256'][:12]}"
    if origin := provenance.get("optimized_from"):
        yield f"* optimised from version `{origin}`: the same weights, run by another engine"
    yield f"* MLflow run {provenance['run_id']}, {provenance['train_seconds']:.1f} s of training"
    if cost := provenance.get("cost"):
        yield f"* cost {cost['amount']:.4f} {cost['currency']}: {cost['seconds']:.0f} s of {cost['count']} x {cost['tier']}"
    yield f"* commit of the pipeline: {provenance['git_commit'] or 'none'}{changed}"
    yield f"* {', '.join(f'{library} {version}' for library, version in provenance['libraries'].items())}"


def _settings(model: Mapping[str, Any]) -> str:
    kind = model.get("kind", "")
    left_out = {"kind", "weights", *(key for key, value in model.items() if _are_sections(value))}
    others = ", ".join(f"{key}={value}" for key, value in model.items() if key not in left_out)
    return f"{kind} ({others})" if others else str(kind)


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value)

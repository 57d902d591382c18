"""What can be wrong with a pipeline before a row is read: settings, contracts, features, splits, paths. Needs no Spark."""

import re

from mlspark import storage
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError
from mlspark.features import check as features
from mlspark.features import prepared as preparations
from mlspark.features import split
from mlspark.features.kinds.image import ImageFeature, other_decoder
from mlspark.features.prepared import Prepared
from mlspark.features.tensors import Tensors
from mlspark.intake import join_types
from mlspark.pictures.filling import check_augment
from mlspark.settings.pipeline import Settings
from mlspark.sources import files
from mlspark.sources.settings import FilesSettings, SourceSettings
from mlspark.sources.source import absolute_uri
from mlspark.tasks.task import Task
from mlspark.training import members


def check_prepare(settings: Settings) -> Contract:
    """Return the contract, once all that prepare needs besides data is right.

    Raises:
        ContractError: a contract file is wrong.
        ConfigError: the split does not fit the contract, or `training.augment` the features.
        FeatureError: the joins, the task or the features do not fit the contract.
        SourceError: a local file or folder is not there.
    """
    contract = contracts.load(settings.contract)
    split.check(settings.split, contract)
    joined = join_types.declared(settings.joins, contract)
    features.check(settings.features, settings.task, contract, settings.name, joined=joined)
    pictures = (entry for entry in settings.features.inputs if isinstance(entry, ImageFeature))
    check_augment({name: entry.spec for entry in pictures for name in entry.names}, settings.training.augment)
    joins = {f"joins.{join.name}.source": join.source for join in settings.joins}
    rows = {f"sources.{name}": source for name, source in settings.sources.rows.items()}
    for name, source in (rows | joins).items():
        _check_path(source, settings, name)
    return contract


def check_train(settings: Settings) -> None:
    """Refuse what cannot be trained on the newest feature table.

    Raises:
        TableError: nothing was prepared yet.
        ConfigError: the table was prepared for another task, or the model takes no features of its kinds.
    """
    prepared = preparations.latest(settings.table("features"))
    task = settings.task.on_table(prepared.task, prepared.table)
    trainable_tensors(settings, prepared, task)


def trainable_tensors(settings: Settings, prepared: Prepared, task: Task) -> Tensors:
    """Return the tensors of a feature table, if the configured model can read them here.

    Raises:
        ConfigError: the model takes no features of these kinds, `training` asks for what does not fit its pictures, or files
            of pictures would be decoded by other libraries than when the table was prepared.
    """
    tensors = settings.model.chosen(prepared.encoder.tensors(task))
    members.check_tensors(settings.model, settings.training, task, tensors)
    files = [
        image for image in prepared.encoder.images if image.spec.store == "encoded" and image.name in tensors.pictures
    ]
    if problem := other_decoder(files):
        raise ConfigError(f"{prepared.table}: {problem}; install those, or prepare the table anew")
    return tensors


def check_score(settings: Settings) -> None:
    """Refuse what says not what is to be scored.

    Raises:
        ConfigError: scoring.source is not set.
        SourceError: a local file or folder is not there.
    """
    if settings.scoring.source is None:
        raise ConfigError("scoring.source: missing; give scoring.source.path the raw rows to score")
    _check_path(settings.scoring.source, settings, "scoring.source")


def check_labels(settings: Settings) -> None:
    """Refuse labels that came later and are not there. Raises SourceError."""
    if settings.monitoring.labels is not None:
        _check_path(settings.monitoring.labels, settings, "monitoring.labels")


def _check_path(source: SourceSettings, settings: Settings, name: str) -> None:
    if not isinstance(source, FilesSettings) or re.search(r"[\[\]{}*?]", source.path):
        return
    uri = absolute_uri(source.path, settings.sources.root)
    if storage.is_local(uri) and not storage.exists(uri):
        raise files.absent(uri, f"{name}.path")

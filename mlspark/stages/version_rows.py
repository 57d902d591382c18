"""The run of a registered version: its folder, and the rows that it was trained and evaluated on. Driver."""

from mlspark import storage
from mlspark.errors import RegistryError
from mlspark.registry.versions import ModelVersion
from mlspark.settings.pipeline import Settings
from mlspark.streaming.snapshot import Snapshot


def of_run(settings: Settings, version: ModelVersion) -> tuple[str, Snapshot]:
    """Return the folder of a version's run, and the pinned snapshot of all its rows.

    Raises:
        RegistryError: the run has no folder below storage.root.
    """
    run_uri = storage.join(settings.root, "runs", version.package.provenance["run_id"])
    snapshot_uri = storage.join(run_uri, "snapshot.json")
    if not storage.exists(snapshot_uri):
        raise RegistryError(
            f"model {version.name} version {version.version}: its run has no folder {run_uri}, where its rows and "
            f"predictions are; give the storage.root that it was trained with"
        )
    return run_uri, Snapshot.load(snapshot_uri)

"""Checkpoints that are complete or absent, on storage of any scheme.

A checkpoint is a folder: weights (safetensors), optional training state (torch's own format, without code), and
manifest.json, which names both files with their SHA-256, has one of itself and is written last. Files are named after
their content, so a newer checkpoint never touches the files of the one it replaces; those go once the new manifest stands.

A run's checkpoints are folders step-N next to each other: a restart takes the newest that is whole.
"""

import hashlib
import io
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

from mlspark import storage
from mlspark.errors import DamagedFile, MlsparkError
from mlspark.models import weights as weights_file

logger = logging.getLogger(__name__)

_FORMAT = 1
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0


class CheckpointError(MlsparkError):
    """A checkpoint is absent, incomplete or not what its manifest says."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved, on the CPU."""

    weights: Mapping[str, torch.Tensor]
    """Weights for the model's `load_state_dict`."""
    state: Mapping[str, Any]
    """State of optimizer, schedule and the like; empty when none was saved."""
    about: Mapping[str, Any]
    """Record of the writer: epoch, step, metrics."""


def save(
    uri: str,
    *,
    weights: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint to folder `uri`, in place of the one there. One writer at a time; runs in rank 0.

    Args:
        uri: folder, of this checkpoint alone.
        weights: tensors by name, on any device.
        about: JSON values.
        state: nested dicts, lists, numbers, strings and tensors; None: not saved.
    """
    storage.sweep(uri)  # leftovers of a writer that was killed here may be what fills the disk
    contents = {"weights": (".safetensors", weights_file.to_bytes(weights))}
    if state is not None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        contents["state"] = (".pt", buffer.getvalue())
    files: dict[str, dict[str, Any]] = {}
    for role, (suffix, content) in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        name = f"{role}-{digest[:16]}{suffix}"
        storage.write_bytes(storage.join(uri, name), content)
        files[role] = {"name": name, "bytes": len(content), "sha256": digest}
    storage.write_sealed(_manifest(uri), {"format": _FORMAT, "about": dict(about), "files": files})
    _delete_others(uri, {file["name"] for file in files.values()})


def exists(uri: str) -> bool:
    """Return whether a whole checkpoint was written to folder `uri`; does not read it."""
    return storage.exists(_manifest(uri))


def load(uri: str) -> Checkpoint:
    """Return the checkpoint in folder `uri`, verified. Runs anywhere; runs no code that is in the files.

    Raises:
        CheckpointError: no checkpoint there, or a file of it is missing or damaged; names the file.
    """
    try:
        manifest = storage.read_sealed(_manifest(uri))
    except FileNotFoundError:
        raise CheckpointError(f"{uri}: no complete checkpoint here (no manifest.json); train first") from None
    except DamagedFile as error:
        raise CheckpointError(f"{error}; delete the folder and train again") from error
    if (written := manifest.get("format")) != _FORMAT:
        raise CheckpointError(f"{uri}: checkpoint format {written}, expected {_FORMAT}; use the mlspark that wrote it")
    files = manifest["files"]
    weights = weights_file.from_bytes(_read_verified(uri, files["weights"]))
    state: Mapping[str, Any] = {}
    if "state" in files:
        content = io.BytesIO(_read_verified(uri, files["state"]))
        state = torch.load(content, map_location="cpu", weights_only=True)
    return Checkpoint(weights, state, manifest["about"])


def step_uri(uri: str, step: int) -> str:
    """Return the folder of the checkpoint after `step` optimizer steps, of the run whose checkpoints are in `uri`."""
    return storage.join(uri, f"step-{step:010d}")


def newest(uri: str, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, verified; None without one. Damaged ones are left out with a warning.

    Args:
        uri: folder of the run's checkpoints.
        identity: what `about["identity"]` must be.

    Raises:
        CheckpointError: it is of another table, model or training; names what differs.
    """
    for folder in reversed(storage.list_folders(uri)):
        if not folder.rpartition("/")[2].startswith("step-"):
            continue
        if not exists(folder):
            logger.warning("%s: left out, it was not written to its end", folder)
            continue
        try:
            saved = load(folder)
        except CheckpointError as error:
            logger.warning("%s; an older checkpoint is used", str(error).partition(";")[0])
            continue
        other = differences(saved.about.get("identity", {}), identity)
        if other:
            raise CheckpointError(
                f"{folder}: of another run: {'; '.join(other)}; train with the settings it was made with, or elsewhere"
            )
        return saved
    return None


def prune(uri: str, keep: int) -> None:
    """Delete all of a run's checkpoints but the newest `keep` whole ones, and what was begun before those."""
    folders = [folder for folder in storage.list_folders(uri) if folder.rpartition("/")[2].startswith("step-")]
    whole = [folder for folder in folders if exists(folder)]
    for folder in folders:
        if whole[-keep:] and folder < whole[-keep:][0]:
            storage.delete_folder(folder)


def sweep(uri: str) -> None:
    """Delete what writers of a run's checkpoints left that were killed: temporary files, folders without a manifest."""
    for folder in storage.list_folders(uri):
        if not folder.rpartition("/")[2].startswith("step-"):
            continue
        if exists(folder):
            storage.sweep(folder)
        else:
            storage.delete_folder(folder)


def differences(then: Any, now: Any, at: str = "") -> list[str]:
    """Return each difference of two JSON values as "section.key X (now Y)"."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = sorted(then.keys() | now.keys())
        return [line for key in keys for line in differences(then.get(key), now.get(key), f"{at}.{key}".strip("."))]
    return [] if then == now else [f"{at} {then!r} (now {now!r})"]


def copied(value: Any) -> Any:
    """Return a copy in memory of nested values, tensors included; what can be called is left out of mappings."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


class Writer:
    """Writes checkpoints in a thread of its own, one after the other, while the rank trains on.

    A write that the storage refuses is tried again with growing pauses; one that keeps failing is raised by the next call.
    """

    def __init__(self, *, retry_seconds: float, on_trouble: Callable[[str], None]) -> None:
        """Start the thread.

        Args:
            retry_seconds: how long a write is tried.
            on_trouble: called in the thread with what the storage said, once per write, and when it works again.
        """
        self._retry_seconds, self._on_trouble = retry_seconds, on_trouble
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=1)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` done after the one before it; waits while two are to be done, so that few states are in memory.

        Raises:
            CheckpointError: an earlier one could not be written.
        """
        if self._error is not None:
            raise self._error
        self._jobs.put(job)

    def wait(self) -> None:
        """Return when all that was submitted is done.

        Raises:
            CheckpointError: it could not be written.
        """
        self._jobs.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread when all is done; raises nothing."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None:
                    self._try(job)
            except Exception as error:  # raised by `wait`, in the rank's own thread
                self._error = error
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _try(self, job: Callable[[], None]) -> None:
        def report(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self._on_trouble(f"a checkpoint could not be written, trying again: {state.outcome.exception()}")

        tries = Retrying(
            retry=retry_if_exception_type(OSError),
            stop=stop_before_delay(self._retry_seconds),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS),
            before_sleep=report,
            reraise=True,
        )
        try:
            tries(job)
        except OSError as error:
            raise CheckpointError(
                f"a checkpoint could not be written for {self._retry_seconds:g} s: {error}; fix the storage "
                f"(space, rights, network) and run again: training goes on from the newest checkpoint"
            ) from error
        if tries.statistics["attempt_number"] > 1:
            self._on_trouble("the checkpoint is written now")


def _manifest(uri: str) -> str:
    return storage.join(uri, "manifest.json")


def _read_verified(uri: str, file: Mapping[str, Any]) -> bytes:
    path = storage.join(uri, file["name"])
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though the checkpoint's manifest names it; train again") from None
    if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise CheckpointError(
            f"{path}: damaged: {len(content)} bytes that do not have the manifest's SHA-256 "
            f"(of {file['bytes']} bytes); delete the folder and train again"
        )
    return content


def _delete_others(uri: str, kept: set[str]) -> None:
    """Delete the files of earlier checkpoints in the folder."""
    for path in storage.list_files(uri):
        name = path.rsplit("/", 1)[-1]
        if name not in kept and name.startswith(("weights-", "state-")):
            filesystem, location = storage.filesystem(path)
            filesystem.delete_file(location)
